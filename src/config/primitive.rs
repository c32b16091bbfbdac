//! Decoding of what the language has: booleans, numbers, text, durations, lists, maps.
//!
//! The rules are the Collector's: no conversions between types, but numbers are truncated to integers, text is split
//! at commas for a list of texts, a number of nanoseconds is a duration, and null keeps the default.

use std::collections::BTreeMap;
use std::time::Duration;

use super::node::{Node, Value};
use super::types::{format_duration, parse_duration};
use super::{Config, Cx, Schema, SchemaKind, Severity};

/// The text a string field takes from a node: a string, or the original spelling of an expanded scalar.
pub fn text_of<'a>(node: &'a Node, cx: &mut Cx) -> Option<&'a str> {
    match (&node.expanded, &node.value) {
        (_, Value::Str(s)) => Some(s),
        (Some(raw), _) => Some(raw),
        (None, Value::Null) => None,
        (None, Value::Seq(_) | Value::Map(_)) => {
            cx.wrong_type(node, "a string");
            None
        }
        _ => {
            cx.error_hint(node.pos, format!("expected a string, got {}", node.kind()), "put it in quotes");
            None
        }
    }
}

impl Config for bool {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        match node.value {
            Value::Bool(b) => *self = b,
            Value::Null => {}
            Value::Str(_) => cx.error_hint(
                node.pos,
                "expected a boolean, got a string",
                "write true or false, without quotes",
            ),
            _ => cx.wrong_type(node, "a boolean"),
        }
    }

    fn schema() -> Schema {
        Schema { name: "boolean", kind: SchemaKind::Bool }
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::Value::from(*self)
    }
}

macro_rules! integers {
    ($($ty:ty),*) => { $(
        impl Config for $ty {
            fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
                let wide: i128 = match node.value {
                    Value::Null => return,
                    Value::Int(i) => i.into(),
                    Value::UInt(u) => u.into(),
                    // The Collector truncates a float in an integer field.
                    Value::Float(f) if f.is_finite() => f as i128,
                    Value::Str(ref text) if text.parse::<i128>().is_ok() => {
                        let message = "expected an integer, got a string";
                        return cx.error_hint(node.pos, message, "take the quotes off");
                    }
                    _ => return cx.wrong_type(node, "an integer"),
                };
                match <$ty>::try_from(wide) {
                    Ok(value) => *self = value,
                    Err(_) => cx.error(node.pos, format!("{wide} is out of range: {} to {}", <$ty>::MIN, <$ty>::MAX)),
                }
            }

            fn schema() -> Schema {
                Schema { name: "integer", kind: SchemaKind::Int { min: <$ty>::MIN as i128, max: <$ty>::MAX as i128 } }
            }

            fn to_json(&self) -> serde_json::Value {
                serde_json::Value::from(*self)
            }
        }
    )* };
}
integers!(i32, i64, u16, u32, u64, usize);

impl Config for f64 {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        match node.value {
            Value::Null => {}
            Value::Int(i) => *self = i as f64,
            Value::UInt(u) => *self = u as f64,
            Value::Float(f) => *self = f,
            _ => cx.wrong_type(node, "a number"),
        }
    }

    fn schema() -> Schema {
        Schema { name: "number", kind: SchemaKind::Float }
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::Value::from(*self)
    }
}

impl Config for String {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        if let Some(text) = text_of(node, cx) {
            *self = text.to_owned();
        }
    }

    fn schema() -> Schema {
        Schema { name: "string", kind: SchemaKind::Text("text") }
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::Value::from(self.as_str())
    }
}

impl Config for Duration {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        match &node.value {
            Value::Null => {}
            Value::Int(0) => *self = Duration::ZERO,
            Value::Int(n) if *n > 0 => *self = nanoseconds(n.unsigned_abs(), &n.to_string(), node, cx),
            Value::Int(_) => cx.error(node.pos, "a duration must not be negative"),
            Value::Float(f) if *f >= 0.0 => *self = nanoseconds(*f as u64, &f.to_string(), node, cx),
            Value::Str(text) => match parse_duration(text) {
                Ok(d) => *self = d,
                Err(why) => {
                    cx.error_hint(node.pos, why, "write a number with a unit, such as 300ms, 5s, 1m30s")
                }
            },
            _ => cx.wrong_type(node, "a duration"),
        }
    }

    fn schema() -> Schema {
        Schema { name: "duration", kind: SchemaKind::Text("a number with a unit: 300ms, 1.5s, 5m, 1h30m") }
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::Value::from(format_duration(*self))
    }
}

impl Config for serde_json::Value {
    fn decode_into(&mut self, node: &Node, _: &mut Cx) {
        *self = node.to_json();
    }

    fn schema() -> Schema {
        Schema { name: "any", kind: SchemaKind::Any }
    }

    fn to_json(&self) -> serde_json::Value {
        self.clone()
    }
}

impl<T: Config + Default> Config for Option<T> {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        if node.is_null() && node.expanded.is_none() {
            return;
        }
        let before = cx.diags.len();
        let mut value = self.take().unwrap_or_default();
        value.decode_into(node, cx);
        let failed = cx.diags.iter().skip(before).any(|d| d.severity == Severity::Error);
        *self = (!failed).then_some(value);
    }

    fn schema() -> Schema {
        let inner = T::schema();
        Schema { name: inner.name, kind: SchemaKind::Optional(Box::new(inner)) }
    }

    fn to_json(&self) -> serde_json::Value {
        self.as_ref().map_or(serde_json::Value::Null, Config::to_json)
    }
}

impl<T: Config + Default> Config for Vec<T> {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        match &node.value {
            Value::Null => {}
            Value::Seq(nodes) => {
                self.clear();
                for (i, node) in nodes.iter().enumerate() {
                    let mut value = T::default();
                    cx.within(&i.to_string(), |cx| value.decode_into(node, cx));
                    self.push(value);
                }
            }
            // A comma-separated string stands for a list of strings, split without trimming; "" is empty.
            Value::Str(_) | Value::Int(_) | Value::UInt(_) | Value::Float(_) | Value::Bool(_)
                if matches!(T::schema().kind, SchemaKind::Text(_)) =>
            {
                let Some(text) = text_of(node, cx) else { return };
                self.clear();
                for part in text.split(',').filter(|_| !text.is_empty()) {
                    let mut value = T::default();
                    value.decode_into(&Node::new(node.pos, Value::Str(part.to_owned())), cx);
                    self.push(value);
                }
            }
            _ => cx.wrong_type(node, "a list"),
        }
    }

    fn schema() -> Schema {
        Schema { name: "list", kind: SchemaKind::List(Box::new(T::schema())) }
    }

    fn to_json(&self) -> serde_json::Value {
        self.iter().map(Config::to_json).collect()
    }
}

impl<T: Config + Default> Config for BTreeMap<String, T> {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        match &node.value {
            Value::Null => {}
            Value::Map(entries) => {
                for (key, node) in entries {
                    let mut value = T::default();
                    cx.within(&key.text, |cx| value.decode_into(node, cx));
                    self.insert(key.text.clone(), value);
                }
            }
            _ => cx.wrong_type(node, "a mapping"),
        }
    }

    fn schema() -> Schema {
        Schema { name: "mapping", kind: SchemaKind::Map(Box::new(T::schema())) }
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::Value::Object(self.iter().map(|(k, v)| (k.clone(), v.to_json())).collect())
    }
}

/// The Collector's reading of a number as a duration, which is rarely what was meant.
fn nanoseconds(nanos: u64, written: &str, node: &Node, cx: &mut Cx) -> Duration {
    let duration = Duration::from_nanos(nanos);
    let message = format!("{written} without a unit is nanoseconds: {}", format_duration(duration));
    let hint = "write a unit, such as 300ms, 5s, 1m30s".to_owned();
    cx.report(Severity::Warning, node.pos, message, Some(hint));
    duration
}

#[cfg(test)]
mod tests;
