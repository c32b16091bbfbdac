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

/// A key that cannot be written, unless empty or with `enabled: false`. Left out of the schema and the reference.
/// The field's doc comment says why: `Not supported: the reason.`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unsupported;

impl Config for Unsupported {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        self.decode_field(node, "", cx);
    }

    fn decode_field(&mut self, node: &Node, doc: &'static str, cx: &mut Cx) {
        let off = |n: &Node| n.value == Value::Bool(false);
        let nothing = match &node.value {
            Value::Null => true,
            Value::Seq(items) => items.is_empty(),
            Value::Map(entries) => entries.is_empty() || node.get("enabled").is_some_and(off),
            _ => false,
        };
        // What says nothing asks for nothing.
        if nothing {
            return;
        }
        let path = cx.path();
        let key = path.rsplit("::").next().unwrap_or_default();
        let doc = doc.split_whitespace().collect::<Vec<_>>().join(" ");
        let hint = match doc.strip_prefix("Not supported: ") {
            Some(reason) => format!("{}; take the key out", reason.trim_end_matches('.').replace('`', "")),
            None => "take the key out".to_owned(),
        };
        cx.unknown();
        cx.error_hint(node.pos, format!("\"{key}\" is not supported"), hint);
    }

    fn schema() -> Schema {
        Schema { name: "unsupported", kind: SchemaKind::Unsupported }
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}
