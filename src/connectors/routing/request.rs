//! Conditions on a request's metadata: `request["name"] == "value"`, or `!=`, and no more.

use crate::pdata::ClientInfo;

/// A condition on one metadata key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RequestCondition {
    name: String,
    value: String,
    equal: bool,
}

impl RequestCondition {
    /// Parses a condition.
    ///
    /// # Errors
    /// What is wrong with it, in one sentence.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let form = || "a condition on the request is request[\"name\"] == \"value\"".to_owned();
        let rest = text.trim().strip_prefix("request[").ok_or_else(form)?;
        let (name, rest) = quoted(rest.trim_start()).ok_or_else(form)?;
        let rest = rest.trim_start().strip_prefix(']').ok_or_else(form)?.trim_start();
        let (equal, rest) = match (rest.strip_prefix("=="), rest.strip_prefix("!=")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err("the condition does not compare with == or !=".to_owned()),
        };
        let (value, rest) = quoted(rest.trim_start()).ok_or_else(form)?;
        if !rest.trim().is_empty() {
            return Err(format!("\"{}\" follows the condition, which is one comparison only", rest.trim()));
        }
        if name.is_empty() {
            return Err("the name of the metadata is empty".to_owned());
        }
        Ok(RequestCondition { name, value, equal })
    }

    /// Whether it holds for one of the values that came under the name. A request without that name fits no
    /// condition, not even one with `!=`, as in the Collector.
    pub(super) fn holds(&self, client: &ClientInfo) -> bool {
        let values = client.metadata(&self.name).unwrap_or_default();
        values.iter().any(|value| (*value == self.value) == self.equal)
    }
}

/// A text in double quotes with `\"` and `\\`, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let text = text.strip_prefix('"')?;
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, text.get(at + 1..)?)),
            '\\' => out.push(chars.next()?.1),
            c => out.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::*;

    #[test]
    fn conditions_hold_for_any_of_the_values() {
        let client = ClientInfo {
            metadata: vec![
                ("x-tenant".to_owned(), smallvec!["acme".to_owned(), "ecorp".to_owned()]),
                ("x-one".to_owned(), smallvec!["a\"b".to_owned()]),
                ("x-none".to_owned(), smallvec![]),
            ],
            ..ClientInfo::default()
        };
        for (text, holds) in [
            (r#"request["x-tenant"] == "acme""#, true),
            (r#"request["X-Tenant"]=="ecorp""#, true),
            (r#"  request[ "x-tenant" ] != "acme"  "#, true),
            (r#"request["x-tenant"] == "Acme""#, false),
            (r#"request["x-one"] == "a\"b""#, true),
            (r#"request["x-one"] != "a\"b""#, false),
            (r#"request["x-none"] != "a""#, false),
            (r#"request["absent"] == """#, false),
            (r#"request["absent"] != "a""#, false),
        ] {
            let condition = RequestCondition::parse(text).unwrap();
            assert_eq!(condition.holds(&client), holds, "{text}");
        }
    }

    #[test]
    fn anything_else_is_an_error() {
        for text in [
            "",
            "request",
            "request[",
            r#"request["a"]"#,
            r#"request["a"] "#,
            r#"request["a"] = "b""#,
            r#"request["a"] == b"#,
            r#"request["a"] == "b"#,
            r#"request["a"] == "b" and request["c"] == "d""#,
            r#"request["a"] == "b" != "c""#,
            r#"request[a] == "b""#,
            r#"request[""] == "b""#,
            r#"attributes["a"] == "b""#,
        ] {
            assert!(RequestCondition::parse(text).is_err(), "{text}");
        }
    }
}
