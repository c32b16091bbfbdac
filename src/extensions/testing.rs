//! What the tests of extensions share.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{Config, Cx, Key, Node, Pos, Value};
use crate::pipeline::runtime::Supervisor;
use crate::pipeline::{BuildContext, Ledger, Readiness, RunContext};
use crate::telemetry::Metrics;

pub(super) fn context() -> (RunContext, BuildContext) {
    let (metrics, ledger) = (Metrics::new(), Ledger::new(1 << 20));
    let run = RunContext {
        supervisor: Supervisor::default(),
        ledger: ledger.clone(),
        metrics: metrics.clone(),
        extensions: Arc::new(HashMap::new()),
        readiness: Readiness::default(),
    };
    (run, BuildContext { id: "test".to_owned(), metrics, ledger })
}

pub(super) fn text(value: &str) -> Value {
    Value::Str(value.to_owned())
}

pub(super) fn list(values: &[&str]) -> Value {
    Value::Seq(values.iter().map(|v| Node::new(Pos::default(), text(v))).collect())
}

/// Decodes a config from keys (`a.b` for a key inside a section) and says what was wrong.
pub(super) fn decode<T: Config + Default>(entries: &[(&str, Value)]) -> (T, Vec<String>) {
    let mut top: Vec<(Key, Node)> = Vec::new();
    let key = |text: &str| Key { pos: Pos::default(), text: text.to_owned() };
    for (path, value) in entries {
        let leaf = Node::new(Pos::default(), value.clone());
        let Some((section, name)) = path.split_once('.') else {
            top.push((key(path), leaf));
            continue;
        };
        match top.iter_mut().find(|(k, _)| k.text == section) {
            Some((_, Node { value: Value::Map(inner), .. })) => inner.push((key(name), leaf)),
            _ => top.push((key(section), Node::new(Pos::default(), Value::Map(vec![(key(name), leaf)])))),
        }
    }
    let (mut out, mut cx) = (T::default(), Cx::default());
    out.decode_into(&Node::new(Pos::default(), Value::Map(top)), &mut cx);
    (out, cx.diags.into_iter().map(|d| d.message).collect())
}
