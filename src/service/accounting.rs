//! Checks, at each scrape, that every item is accounted for: `tidegate_accounting_gap` is 0, or there is a bug.
//!
//! Three equations hold. In a pipeline: received = forwarded + refused + dropped + held. At a connector that chooses:
//! received = forwarded + refused + dropped. At an exporter: offered = sent + failed + refused + queued. The counters move one after the other, so a reading in between is off by the items
//! of that moment; a reading that is off is repeated before it is believed.

use std::sync::Arc;

use crate::connectors::Gap;
use crate::pdata::Signal;
use crate::pipeline::stages::{Books, Regroup};
use crate::telemetry::Metrics;

const NAME: &str = "tidegate_accounting_gap";
const HELP: &str = "Items that entered and are neither gone on, refused, dropped nor held: 0, or a bug.";

/// How often a reading that is off is repeated. Each takes microseconds, a batch in motion less.
const READINGS: usize = 100;

/// Watches the books of a pipeline.
pub fn watch_pipeline(metrics: &Arc<Metrics>, id: &str, books: Arc<Books>, stages: Vec<Arc<Regroup>>) {
    let Some(family) = metrics.gauge(NAME, HELP, &["where"]) else { return };
    let gauge = family.with_label_values(&[&format!("pipelines::{id}")]);
    metrics.before_scrape(move || {
        gauge.set(settled(|| books.gap(stages.iter().map(|s| s.held()).sum())));
    });
}

/// Watches the books of a connector.
pub fn watch_connector(metrics: &Arc<Metrics>, id: &str, signal: Signal, gap: Gap) {
    let Some(family) = metrics.gauge(NAME, HELP, &["where"]) else { return };
    let gauge = family.with_label_values(&[&format!("connectors::{id}::{}", signal.name())]);
    metrics.before_scrape(move || gauge.set(settled(&gap)));
}

/// Watches the books of all exporters, which the registry holds.
pub fn watch_exporters(metrics: &Arc<Metrics>) {
    let Some(family) = metrics.gauge(NAME, HELP, &["where"]) else { return };
    let gauge = family.with_label_values(&["exporters"]);
    let weak = Arc::downgrade(metrics);
    metrics.before_scrape(move || {
        let Some(metrics) = weak.upgrade() else { return };
        gauge.set(settled(|| {
            let [offered, sent, failed, refused, queued] = metrics.sums([
                "tidegate_exporter_offered_items",
                "otelcol_exporter_sent_",
                "otelcol_exporter_send_failed_",
                "otelcol_exporter_enqueue_failed_",
                "tidegate_exporter_queued_items",
            ]);
            offered as i64 - (sent + failed + refused + queued) as i64
        }));
    });
}

/// The reading, once two agree that it is off; 0 as soon as one says so.
fn settled(read: impl Fn() -> i64) -> i64 {
    let mut last = read();
    for _ in 0..READINGS {
        if last == 0 {
            break;
        }
        std::thread::yield_now();
        last = read();
    }
    last
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_reading_between_two_counters_is_not_believed() {
        let reads = Cell::new(0);
        let torn = || {
            reads.set(reads.get() + 1);
            if reads.get() < 3 { 512 } else { 0 }
        };
        assert_eq!(settled(torn), 0);
        assert_eq!(settled(|| 7), 7);
    }

    #[test]
    fn exporters_balance_or_show_the_difference() {
        let metrics = Metrics::new();
        watch_exporters(&metrics);
        let items = crate::telemetry::ExporterItems::new(&metrics, "otlp", crate::pdata::Signal::Logs);
        let gap = || {
            let families = metrics.gather();
            families.iter().find(|f| f.name() == NAME).unwrap().get_metric()[0].get_gauge().get_value()
        };
        items.offered(10);
        items.sent(4);
        assert_eq!(gap(), 6.0);
        items.dropped(5, "rejected");
        items.refused(1, "queue_full");
        assert_eq!(gap(), 0.0);
    }
}
