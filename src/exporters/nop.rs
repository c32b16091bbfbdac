//! `nop`: takes everything and forgets it. For measuring a pipeline without a destination.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;

use crate::components::{BuildError, ComponentConfig};
use crate::config;
use crate::pdata::{Batch, Signal};
use crate::pipeline::{BuildContext, Consumer, Exporter, Leftover, RunContext, StartError, Verdict};
use crate::telemetry::ExporterItems;

config! {
    /// Takes everything, acknowledges it and forgets it. It has no keys.
    pub struct NopConfig {}
}

impl ComponentConfig for NopConfig {}

/// The exporter of one signal.
struct Nop {
    items: ExporterItems,
}

/// Builds the exporter for one signal.
///
/// # Errors
/// None.
pub fn build(_: &NopConfig, signal: Signal, cx: &BuildContext) -> Result<Arc<dyn Exporter>, BuildError> {
    Ok(Arc::new(Nop { items: ExporterItems::new(&cx.metrics, &cx.id, signal) }))
}

impl Consumer for Nop {
    fn consume(&self, batch: Batch) {
        self.items.offered(batch.items);
        self.items.sent(batch.items);
        batch.acks.resolve(Verdict::Accepted);
    }

    fn holds_acks(&self) -> bool {
        false
    }
}

#[async_trait]
impl Exporter for Nop {
    async fn start(&self, _: &RunContext) -> Result<(), StartError> {
        Ok(())
    }

    async fn drain(&self, _: Instant) -> Leftover {
        Leftover::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exporters::testing;

    #[test]
    fn everything_is_taken_and_counted() {
        let (cx, metrics) = testing::build_context("nop");
        let exporter = build(&NopConfig {}, Signal::Logs, &cx).unwrap();
        let (batch, mut verdict) = testing::batch(Signal::Logs, b"", 7);
        exporter.consume(batch);
        assert_eq!(verdict.try_recv(), Ok(Verdict::Accepted));
        assert_eq!(ExporterItems::new(&metrics, "nop", Signal::Logs).totals(), [0; 4], "handles count alone");
        assert_eq!(testing::sent(&metrics, "nop", Signal::Logs), 7);
    }
}
