//! Keys that exist in the Collector and cannot be honoured here: an error that says so, not an unknown key.

use super::super::node::{Node, Value};
use super::super::{Config, Cx, Schema, SchemaKind};

/// A key that may only be written with the one value that is true anyway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fixed<const VALUE: bool>;

impl<const VALUE: bool> Config for Fixed<VALUE> {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        match node.value {
            Value::Null => {}
            Value::Bool(value) if value == VALUE => {}
            Value::Bool(value) => cx.error_hint(
                node.pos,
                format!("{value} is not supported"),
                format!("write {VALUE} or take the key out"),
            ),
            _ => cx.wrong_type(node, "a boolean"),
        }
    }

    fn schema() -> Schema {
        Schema { name: if VALUE { "true" } else { "false" }, kind: SchemaKind::Fixed(VALUE) }
    }

    fn to_json(&self) -> serde_json::Value {
        VALUE.into()
    }
}

/// A key that cannot be written. Left out of the schema and the reference.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unsupported;

impl Config for Unsupported {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        let empty = match &node.value {
            Value::Null => true,
            Value::Seq(items) => items.is_empty(),
            Value::Map(entries) => entries.is_empty(),
            _ => false,
        };
        // What says nothing asks for nothing.
        if !empty {
            let path = cx.path();
            let key = path.rsplit("::").next().unwrap_or_default();
            cx.error_hint(node.pos, format!("\"{key}\" is not supported"), "take the key out");
        }
    }

    fn schema() -> Schema {
        Schema { name: "unsupported", kind: SchemaKind::Unsupported }
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}
