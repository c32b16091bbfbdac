//! Values that are parsed once and cannot be wrong afterwards.

use std::fmt;
use std::time::Duration;

use super::node::{Node, Value};
use super::{Config, Cx, Schema, text_of};

mod endpoint;
mod fixed;
mod headers;
mod text;

pub use endpoint::{Endpoint, GrpcEndpoint, HttpUrl, Target};
pub use fixed::{Fixed, Unsupported};
pub use headers::Headers;
pub use text::{ByteSize, ExtensionId, Regex, check_id, type_of};

/// Text that never shows: tokens, passwords, header values. Prints as `[REDACTED]` everywhere.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Secret(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}

impl Config for Secret {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        if let Some(text) = text_of(node, cx) {
            self.0 = text.to_owned();
        }
        cx.secret();
    }

    fn schema() -> Schema {
        Schema { name: "secret", kind: super::SchemaKind::Text("text; shown as [REDACTED]") }
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::Value::from(if self.0.is_empty() { "" } else { "[REDACTED]" })
    }
}

/// An optional block in one of the Collector's three flavours: on by default, off with defaults, off without.
#[derive(Debug, Clone)]
pub struct Optional<T> {
    on: bool,
    null_turns_on: bool,
    value: T,
}

impl<T> Optional<T> {
    /// On unless the user writes `enabled: false` ("Some").
    pub fn on(value: T) -> Self {
        Optional { on: true, null_turns_on: true, value }
    }

    /// Off unless the key is written; `key:` alone turns it on with these defaults ("Default").
    pub fn off(value: T) -> Self {
        Optional { on: false, null_turns_on: true, value }
    }

    /// Off unless the key has a value; `key:` alone leaves it off ("None").
    pub fn none(value: T) -> Self {
        Optional { on: false, null_turns_on: false, value }
    }

    /// The block, if it is on.
    pub fn get(&self) -> Option<&T> {
        self.on.then_some(&self.value)
    }

    /// The block, if it is on, to settle defaults that depend on other keys.
    pub fn get_mut(&mut self) -> Option<&mut T> {
        self.on.then_some(&mut self.value)
    }
}

impl<T: super::ConfigStruct> Config for Optional<T> {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        match &node.value {
            Value::Null => {
                self.on |= self.null_turns_on;
                if self.on {
                    self.value.decode_into(node, cx);
                }
            }
            Value::Map(entries) => {
                self.on = true;
                if let Some((_, flag)) = node.entry("enabled") {
                    cx.within("enabled", |cx| self.on.decode_into(flag, cx));
                }
                // `enabled` belongs to the wrapper unless the struct inside has such a key itself.
                if self.value.fields().iter().any(|f| f.key == "enabled") {
                    return super::decode_and_validate(&mut self.value, self.on, node, cx);
                }
                let rest = entries.iter().filter(|(k, _)| k.text != "enabled").cloned().collect();
                super::decode_and_validate(
                    &mut self.value,
                    self.on,
                    &Node::new(node.pos, Value::Map(rest)),
                    cx,
                );
            }
            _ => cx.wrong_type(node, "a mapping"),
        }
    }

    fn schema() -> Schema {
        let inner = T::schema();
        Schema { name: inner.name, kind: super::SchemaKind::Optional(Box::new(inner)) }
    }

    fn schema_of(&self) -> Schema {
        let inner = self.value.schema_of();
        Schema { name: inner.name, kind: super::SchemaKind::Optional(Box::new(inner)) }
    }

    fn to_json(&self) -> serde_json::Value {
        if self.on { self.value.to_json() } else { serde_json::Value::Null }
    }
}

/// A value of any type, for keys that take what an attribute can hold.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Any {
    /// Nothing: `null`, or the key was not written.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A number with a fraction or an exponent.
    Float(f64),
    /// A string.
    Str(String),
    /// A list.
    List(Vec<Any>),
    /// A map, in the order of the file.
    Map(Vec<(String, Any)>),
}

impl Config for Any {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        *self = match &node.value {
            Value::Null => return,
            Value::Bool(b) => Any::Bool(*b),
            Value::Int(i) => Any::Int(*i),
            Value::UInt(u) => {
                return cx.error(node.pos, format!("{u} is out of range: {} to {}", i64::MIN, i64::MAX));
            }
            Value::Float(f) => Any::Float(*f),
            Value::Str(s) => Any::Str(s.clone()),
            Value::Seq(nodes) => Any::List(nodes.iter().map(|n| Any::from_node(n, cx)).collect()),
            Value::Map(entries) => {
                Any::Map(entries.iter().map(|(k, n)| (k.text.clone(), Any::from_node(n, cx))).collect())
            }
        };
    }

    fn schema() -> Schema {
        Schema { name: "value", kind: super::SchemaKind::Any }
    }

    fn to_json(&self) -> serde_json::Value {
        match self {
            Any::Null => serde_json::Value::Null,
            Any::Bool(b) => serde_json::Value::from(*b),
            Any::Int(i) => serde_json::Value::from(*i),
            Any::Float(f) => serde_json::Value::from(*f),
            Any::Str(s) => serde_json::Value::from(s.as_str()),
            Any::List(items) => items.iter().map(Config::to_json).collect(),
            Any::Map(entries) => {
                serde_json::Value::Object(entries.iter().map(|(k, v)| (k.clone(), v.to_json())).collect())
            }
        }
    }
}

impl Any {
    fn from_node(node: &Node, cx: &mut Cx) -> Self {
        let mut value = Any::Null;
        value.decode_into(node, cx);
        value
    }
}

/// Parses a Go duration: a sequence of decimal numbers with units `ns us µs ms s m h`; `0` needs no unit.
///
/// # Errors
/// One sentence that says what is wrong.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let fail = || format!("\"{text}\" is not a duration");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.starts_with('-') {
        return Err("a duration must not be negative".to_owned());
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return Err(fail());
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(fail)?;
        let (number, tail) = rest.split_at(digits);
        let number: f64 = number.parse().map_err(|_| fail())?;
        let unit_len = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let nanos = match unit {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(format!("\"{unit}\" is not a unit of time in \"{text}\"")),
        };
        total += number * nanos;
        rest = tail;
    }
    // Go's durations end at 2^63 nanoseconds, about 292 years.
    if total > i64::MAX as f64 {
        return Err(format!("\"{text}\" is longer than 292 years"));
    }
    Ok(Duration::from_nanos(total.round() as u64))
}

/// Writes a duration the way a user would: the largest unit that leaves whole numbers.
pub fn format_duration(d: Duration) -> String {
    let nanos = d.as_nanos();
    for (unit, size) in [
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1000),
    ] {
        if nanos >= size && nanos.is_multiple_of(size) {
            return format!("{}{unit}", nanos / size);
        }
    }
    if nanos == 0 { "0s".to_owned() } else { format!("{nanos}ns") }
}
