//! Headers a user configures: a mapping, or a list of `{name, value}`; values never show.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::super::node::{Node, Pos, Value};
use super::super::{Config, Cx, Schema, SchemaKind, text_of};
use super::Secret;

/// Header names and values in the order written. Names and values are valid in HTTP; a name occurs once.
#[derive(Debug, Clone, Default)]
pub struct Headers(Vec<(HeaderName, Secret)>);

impl Headers {
    /// Name and value of each.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &Secret)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// Whether none is configured.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one; `false` if the name or value cannot be a header's. A name that is there already is replaced.
    pub fn insert(&mut self, name: &str, value: &str) -> bool {
        let (Ok(name), Ok(_)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) else {
            return false;
        };
        self.0.retain(|(known, _)| *known != name);
        self.0.push((name, Secret::from(value)));
        true
    }

    /// All of them as a map for requests, values marked sensitive.
    pub fn to_map(&self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.0.len());
        for (name, value) in &self.0 {
            if let Ok(mut value) = HeaderValue::try_from(value.expose()) {
                value.set_sensitive(true);
                map.insert(name.clone(), value);
            }
        }
        map
    }

    fn add(&mut self, name: &str, pos: Pos, value: &Node, cx: &mut Cx) {
        let mut secret = Secret::default();
        secret.decode_into(value, cx);
        let Ok(header) = HeaderName::try_from(name) else {
            return cx.error(pos, format!("\"{name}\" is not a header name"));
        };
        if HeaderValue::try_from(secret.expose()).is_err() {
            return cx.error_hint(
                value.pos,
                "the value cannot be sent in a header",
                "line breaks and control characters are not allowed",
            );
        }
        if self.0.iter().any(|(known, _)| *known == header) {
            return cx.error(pos, format!("header \"{header}\" is given twice (case does not matter)"));
        }
        self.0.push((header, secret));
    }
}

impl Config for Headers {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        match &node.value {
            Value::Null => {}
            Value::Map(entries) => {
                self.0.clear();
                for (key, value) in entries {
                    cx.within(&key.text, |cx| self.add(&key.text, key.pos, value, cx));
                }
            }
            Value::Seq(items) => {
                self.0.clear();
                for (i, item) in items.iter().enumerate() {
                    cx.within(&i.to_string(), |cx| self.add_item(item, cx));
                }
            }
            _ => cx.wrong_type(node, "a mapping of names to values, or a list of {name, value}"),
        }
    }

    fn schema() -> Schema {
        Schema { name: "headers", kind: SchemaKind::Map(Box::new(Secret::schema())) }
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::Value::Object(
            self.0.iter().map(|(name, value)| (name.as_str().to_owned(), value.to_json())).collect(),
        )
    }
}

impl Headers {
    fn add_item(&mut self, item: &Node, cx: &mut Cx) {
        let Value::Map(entries) = &item.value else { return cx.wrong_type(item, "{name, value}") };
        for (key, _) in entries.iter().filter(|(key, _)| key.text != "name" && key.text != "value") {
            cx.within(&key.text, |cx| super::super::unknown_key(key.pos, &key.text, &["name", "value"], cx));
        }
        let (Some(name), Some(value)) = (item.get("name"), item.get("value")) else {
            cx.unknown();
            let missing = if item.get("name").is_some() { "value" } else { "name" };
            return cx.error(item.pos, format!("\"{missing}\" is missing"));
        };
        if let Some(text) = cx.within("name", |cx| text_of(name, cx)) {
            cx.within("value", |cx| self.add(text, name.pos, value, cx));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Key;

    fn text(text: &str) -> Node {
        Node::new(Pos::default(), Value::Str(text.to_owned()))
    }

    fn map(entries: &[(&str, &str)]) -> Node {
        let entry = |(k, v): &(&str, &str)| (Key { pos: Pos::default(), text: (*k).to_owned() }, text(v));
        Node::new(Pos::default(), Value::Map(entries.iter().map(entry).collect()))
    }

    fn decode(node: &Node) -> (Headers, Vec<String>) {
        let (mut headers, mut cx) = (Headers::default(), Cx::default());
        headers.decode_into(node, &mut cx);
        (headers, cx.diags.into_iter().map(|d| format!("{}: {}", d.path, d.message)).collect())
    }

    #[test]
    fn a_map_and_a_list_say_the_same() {
        let list = Node::new(
            Pos::default(),
            Value::Seq(vec![
                map(&[("name", "X-Scope-OrgID"), ("value", "a")]),
                map(&[("name", "b"), ("value", "")]),
            ]),
        );
        for node in [map(&[("X-Scope-OrgID", "a"), ("b", "")]), list] {
            let (headers, errors) = decode(&node);
            assert_eq!(errors, Vec::<String>::new());
            let got: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.expose())).collect();
            assert_eq!(got, [("x-scope-orgid", "a"), ("b", "")]);
            assert!(!format!("{headers:?} {}", headers.to_json()).contains("\"a\""));
        }
    }

    #[test]
    fn mistakes() {
        assert_eq!(decode(&map(&[("a b", "x")])).1, ["a b: \"a b\" is not a header name"]);
        assert_eq!(decode(&map(&[("a", "x\ny")])).1, ["a: the value cannot be sent in a header"]);
        assert_eq!(
            decode(&map(&[("A", "x"), ("a", "y")])).1,
            ["a: header \"a\" is given twice (case does not matter)"]
        );
        let list = Node::new(Pos::default(), Value::Seq(vec![map(&[("nam", "x")])]));
        assert_eq!(decode(&list).1, ["0::nam: unknown key \"nam\"", "0: \"name\" is missing"]);
    }
}
