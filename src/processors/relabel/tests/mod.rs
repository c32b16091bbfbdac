//! Rules on requests: the vectors at every level, and against a slow obvious version.

mod config;
mod naive;
mod tree;
mod vectors;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use smallvec::SmallVec;

use super::*;
use crate::pdata::{Batch, ClientInfo, Rope, Tenant, count};
use crate::pipeline::{Acks, Ledger};
use crate::processors::edit::{Applied, Program};
use crate::relabel::{Action, RelabelConfig};

fn context() -> BuildContext {
    BuildContext { id: "relabel".to_owned(), metrics: Metrics::new(), ledger: Ledger::new(usize::MAX) }
}

fn program(rules: &[RelabelConfig], signal: Signal) -> Program {
    let config = RelabelProcessorConfig { rules: rules.iter().cloned().map(LabelRule).collect() };
    match build(&config, signal, &context()).unwrap() {
        Stage::Edit(edit) => Program::new(signal, vec![edit]),
        _ => panic!("an edit"),
    }
}

fn batch(signal: Signal, bytes: &[u8]) -> Batch {
    Batch {
        signal,
        rope: Rope::from(Bytes::copy_from_slice(bytes)),
        items: count(signal, bytes).unwrap_or_default(),
        client: Arc::new(ClientInfo::default()),
        tenant: Some(Tenant::new("team")),
        demoted: false,
        received: Instant::now(),
        leases: SmallVec::new(),
        acks: Acks::none(),
    }
}

/// What rules make of a request.
fn relabelled(rules: &[RelabelConfig], signal: Signal, bytes: &[u8]) -> (Bytes, Applied) {
    let mut batch = batch(signal, bytes);
    let applied = program(rules, signal).apply(&mut batch);
    assert_eq!(count(signal, &batch.rope.to_bytes()), Ok(batch.items));
    (batch.rope.to_bytes(), applied)
}

fn rule(action: Action, sources: &[&str], regex: &str, target: &str, replacement: &str) -> RelabelConfig {
    RelabelConfig {
        action,
        source_labels: sources.iter().map(|s| (*s).to_owned()).collect(),
        regex: regex.to_owned(),
        target_label: target.to_owned(),
        replacement: replacement.to_owned(),
        ..RelabelConfig::default()
    }
}

fn string(text: &str) -> AnyValue {
    AnyValue { value: Some(any_value::Value::StringValue(text.to_owned())) }
}

fn attribute(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(value), ..Default::default() }
}
