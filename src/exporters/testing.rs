//! What the tests of exporters share: contexts, batches with a waiting sender, counters.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::pdata::{Batch, ClientInfo, Rope, Signal};
use crate::pipeline::runtime::Supervisor;
use crate::pipeline::{Acks, BuildContext, Ledger, RunContext, Verdict, ack};
use crate::telemetry::Metrics;

pub(super) fn build_context(id: &str) -> (BuildContext, Arc<Metrics>) {
    let metrics = Metrics::new();
    let cx = BuildContext { id: id.to_owned(), metrics: metrics.clone(), ledger: Ledger::new(1 << 30) };
    (cx, metrics)
}

pub(super) fn run_context(metrics: &Arc<Metrics>) -> RunContext {
    RunContext {
        supervisor: Supervisor::default(),
        ledger: Ledger::new(1 << 30),
        metrics: metrics.clone(),
        extensions: Arc::default(),
        readiness: Default::default(),
    }
}

/// A batch of `items` items and the verdict its sender waits for.
pub(super) fn batch(signal: Signal, request: &[u8], items: usize) -> (Batch, oneshot::Receiver<Verdict>) {
    let (ack, verdict) = ack();
    let batch = Batch {
        signal,
        rope: Rope::from(request.to_vec()),
        items,
        client: Arc::new(ClientInfo::default()),
        tenant: None,
        demoted: false,
        received: Instant::now(),
        leases: Default::default(),
        acks: Acks::from(ack),
    };
    (batch, verdict)
}

/// Items counted as sent.
pub(super) fn sent(metrics: &Metrics, id: &str, signal: Signal) -> u64 {
    let name = format!("otelcol_exporter_sent_{}", signal.items());
    metrics.counter(&name, "", &["exporter"]).map_or(0, |family| family.with_label_values(&[id]).get())
}
