//! What the queue shows of itself: gauges under the Collector's names.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus::{IntGauge, IntGaugeVec};

use crate::pdata::Signal;
use crate::telemetry::Metrics;

/// The gauges of one exporter and signal; gone from `/metrics` with the exporter.
pub(super) struct Gauges {
    labels: [String; 2],
    families: [Option<IntGaugeVec>; 4],
    children: OnceLock<[Option<IntGauge>; 4]>,
    /// Held items before the gauges were shown.
    shown: AtomicUsize,
}

const SIZE: usize = 0;
const CAPACITY: usize = 1;
const IN_FLIGHT: usize = 2;
const HELD: usize = 3;

impl Gauges {
    pub fn new(metrics: &Metrics, id: &str, signal: Signal) -> Self {
        let family = |name, help| metrics.gauge(name, help, &["exporter", "data_type"]);
        Gauges {
            labels: [id.to_owned(), signal.name().to_owned()],
            families: [
                family("otelcol_exporter_queue_size", "What the queue holds, in units of its sizer."),
                family("otelcol_exporter_queue_capacity", "What the queue can hold, in units of its sizer."),
                family("otelcol_exporter_in_flight_requests", "Batches being sent."),
                family(
                    "tidegate_exporter_queued_items",
                    "Items taken and not yet sent, given up or refused.",
                ),
            ],
            children: OnceLock::new(),
            shown: AtomicUsize::new(0),
        }
    }

    /// Makes the series appear; those of the queue only where there is one.
    pub fn show(&self, capacity: Option<usize>) {
        let labels = self.labels.each_ref().map(String::as_str);
        let make = |i: usize| self.families.get(i)?.as_ref().map(|f| f.with_label_values(&labels));
        let queue = |i| capacity.and_then(|_| make(i));
        let _ = self.children.set([queue(SIZE), queue(CAPACITY), make(IN_FLIGHT), make(HELD)]);
        if let Some(gauge) = self.child(CAPACITY) {
            gauge.set(capacity.unwrap_or_default() as i64);
        }
        if let Some(gauge) = self.child(HELD) {
            gauge.add(self.shown.swap(0, Ordering::Relaxed) as i64);
        }
    }

    fn child(&self, i: usize) -> Option<&IntGauge> {
        self.children.get()?.get(i)?.as_ref()
    }

    pub fn size(&self, used: usize) {
        if let Some(gauge) = self.child(SIZE) {
            gauge.set(used as i64);
        }
    }

    pub fn held(&self, change: i64) {
        match self.child(HELD) {
            Some(gauge) => gauge.add(change),
            None => drop(self.shown.fetch_add(usize::try_from(change).unwrap_or(0), Ordering::Relaxed)),
        }
    }

    /// One batch more, or one less, is being sent.
    pub fn in_flight(&self, change: i64) {
        if let Some(gauge) = self.child(IN_FLIGHT) {
            gauge.add(change);
        }
    }
}

impl Drop for Gauges {
    fn drop(&mut self) {
        let labels = self.labels.each_ref().map(String::as_str);
        for family in self.families.iter().flatten() {
            // A series that was never shown cannot be removed; that is no fault.
            let _ = family.remove_label_values(&labels);
        }
    }
}
