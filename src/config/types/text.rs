//! Text with a meaning: regular expressions, sizes in bytes, ids of components.

use std::fmt;
use std::sync::LazyLock;

use super::super::node::{Node, Value};
use super::super::{Config, Cx, Schema, SchemaKind, text_of};
use super::endpoint::decode_text;

/// A regular expression, compiled when the file is read. Unanchored, RE2 syntax; matching is linear in the text.
#[derive(Clone)]
pub struct Regex(regex::Regex);

impl Regex {
    /// Compiles an expression.
    ///
    /// # Errors
    /// What is wrong with it, in one sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        regex::Regex::new(text).map(Regex).map_err(|why| match why {
            regex::Error::CompiledTooBig(limit) => {
                format!("the expression needs more than {limit} bytes compiled")
            }
            // The message draws the expression and ends with a line of its own that says what is wrong.
            other => {
                let text = other.to_string();
                let last = text.lines().last().unwrap_or_default();
                format!("not a regular expression: {}", last.strip_prefix("error: ").unwrap_or(last))
            }
        })
    }
}

impl Default for Regex {
    /// Matches everything.
    fn default() -> Self {
        #[allow(clippy::expect_used, reason = "the empty expression always compiles")]
        Regex(regex::Regex::new("").expect("the empty expression"))
    }
}

impl std::ops::Deref for Regex {
    type Target = regex::Regex;

    fn deref(&self) -> &regex::Regex {
        &self.0
    }
}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.as_str())
    }
}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Config for Regex {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        decode_text(self, node, cx, Regex::parse, "the syntax is RE2's: no look-around, no back-references");
    }

    fn schema() -> Schema {
        Schema { name: "regex", kind: SchemaKind::Text("a regular expression (RE2 syntax)") }
    }

    fn to_json(&self) -> serde_json::Value {
        self.0.as_str().into()
    }
}

/// A number of bytes: an integer, or text with a unit (`KiB`, `MiB`, `GiB`, `TiB`; `KB`, `MB`, `GB`, `TB` in
/// thousands; `B`). Upper and lower case are the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// Parses text such as `64MiB`.
    ///
    /// # Errors
    /// One sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fail = || format!("\"{text}\" is not a size");
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "kib" | "ki" | "k" => 1 << 10,
            "mib" | "mi" | "m" => 1 << 20,
            "gib" | "gi" | "g" => 1 << 30,
            "tib" | "ti" | "t" => 1 << 40,
            "kb" => 1000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => return Err(fail()),
        };
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(factor).map(ByteSize).ok_or_else(|| format!("\"{text}\" is too large"));
        }
        let number: f64 = number.parse().map_err(|_| fail())?;
        Ok(ByteSize((number * factor as f64) as u64))
    }

    /// The number as `usize`, capped at what this machine can address.
    pub fn get(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
            if self.0 >= 1 << shift && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

impl Config for ByteSize {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        match &node.value {
            Value::Str(_) => {
                decode_text(self, node, cx, ByteSize::parse, "write bytes or a unit, such as 64MiB")
            }
            Value::Null => {}
            Value::Int(_) | Value::UInt(_) => self.0.decode_into(node, cx),
            _ => cx.wrong_type(node, "a size"),
        }
    }

    fn schema() -> Schema {
        Schema { name: "size", kind: SchemaKind::Text("bytes, or a number with a unit: 512KiB, 64MiB, 2GiB") }
    }

    fn to_json(&self) -> serde_json::Value {
        let text = self.to_string();
        text.parse::<u64>().map_or_else(|_| text.into(), Into::into)
    }
}

/// The id of an extension (`type` or `type/name`), as in `auth.authenticator` and `storage`. Trimmed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ExtensionId(String);

impl ExtensionId {
    /// The id as it is written in `extensions:`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether none was written.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for ExtensionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Config for ExtensionId {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        if let Some(text) = text_of(node, cx) {
            match check_id(text) {
                Ok(()) => self.0 = text.trim().to_owned(),
                Err(why) => cx.error_hint(node.pos, why, "an extension's id: type or type/name"),
            }
        }
    }

    fn schema() -> Schema {
        Schema { name: "extension_id", kind: SchemaKind::Text("the id of an extension: type or type/name") }
    }

    fn to_json(&self) -> serde_json::Value {
        self.0.as_str().into()
    }
}

/// Separators, control characters and symbols, as Unicode classes them.
static NOT_IN_NAMES: LazyLock<Option<regex::Regex>> =
    LazyLock::new(|| regex::Regex::new(r"[\pZ\pC\pS]").ok());

/// Checks a component id: `type` or `type/name`.
///
/// # Errors
/// What is wrong with it, in the Collector's words.
pub fn check_id(text: &str) -> Result<(), String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("id must not be empty".to_owned());
    }
    let (type_name, name) = match text.split_once('/') {
        Some((type_name, name)) => (type_name.trim(), Some(name.trim())),
        None => (text, None),
    };
    if type_name.is_empty() {
        return Err(format!("in \"{text}\" id: the part before / should not be empty"));
    }
    let head = type_name.starts_with(|c: char| c.is_ascii_alphabetic());
    let rest = type_name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !head || !rest || type_name.len() > 63 {
        return Err(format!("invalid character(s) in type \"{type_name}\""));
    }
    match name {
        None => Ok(()),
        Some("") => Err(format!("in \"{text}\" id: the part after / should not be empty")),
        Some(name) if name.chars().count() > 1024 => Err(format!(
            "name \"{}…\" is longer than 1024 characters",
            name.chars().take(32).collect::<String>()
        )),
        Some(name) => {
            let bad = NOT_IN_NAMES.as_ref().and_then(|re| re.find(name));
            match bad {
                Some(bad) => Err(format!("invalid character {:?} in name \"{name}\"", bad.as_str())),
                None => Ok(()),
            }
        }
    }
}

/// The type part of an id, trimmed.
pub fn type_of(id: &str) -> &str {
    id.split_once('/').map_or(id, |(type_name, _)| type_name).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("1024", 1024),
            ("1KiB", 1024),
            ("1 kib", 1024),
            ("64MiB", 64 << 20),
            ("1.5GiB", 3 << 29),
            ("10MB", 10_000_000),
            ("2TiB", 2 << 40),
            ("7b", 7),
        ] {
            assert_eq!(ByteSize::parse(text), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "MiB", "1XB", "-1", "1.2.3MiB", "18446744073709551615KiB", "1e3"] {
            assert!(ByteSize::parse(text).is_err(), "{text}");
        }
        for size in [0, 1, 1000, 1024, 3 << 29, u64::MAX] {
            assert_eq!(ByteSize::parse(&ByteSize(size).to_string()), Ok(ByteSize(size)));
        }
    }

    #[test]
    fn expressions() {
        assert!(Regex::parse("^a.*$").unwrap().is_match("abc"));
        assert_eq!(Regex::parse("a(").unwrap_err(), "not a regular expression: unclosed group");
        assert!(Regex::parse("(?=a)").unwrap_err().contains("look-around"));
        assert!(Regex::parse("a{1000}{1000}{1000}").unwrap_err().contains("bytes compiled"));
    }

    #[test]
    fn ids() {
        for id in ["otlp", "otlp/2", " otlp / a b ".replace(' ', "").as_str(), "a_1/x/y", "otlp/ümläut-1.2"]
        {
            assert_eq!(check_id(id), Ok(()), "{id}");
        }
        for (id, why) in [
            ("", "id must not be empty"),
            ("/x", "in \"/x\" id: the part before / should not be empty"),
            ("otlp/", "in \"otlp/\" id: the part after / should not be empty"),
            ("1a", "invalid character(s) in type \"1a\""),
            ("a-b", "invalid character(s) in type \"a-b\""),
            ("a/b c", "invalid character \" \" in name \"b c\""),
            ("a/b+c", "invalid character \"+\" in name \"b+c\""),
        ] {
            assert_eq!(check_id(id).unwrap_err(), why);
        }
        assert_eq!(type_of("otlp/2/3"), "otlp");
    }
}
