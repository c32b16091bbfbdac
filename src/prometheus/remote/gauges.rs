//! What the series cache does, among the agent's own metrics.

use prometheus::IntGauge;

use super::encoder::CacheFigures;
use crate::telemetry::{Counter, Metrics};

/// The series of one exporter.
pub(super) struct Gauges {
    hits: Counter,
    misses: Counter,
    forgotten: Counter,
    series: Option<IntGauge>,
    bytes: Option<IntGauge>,
    streams: Option<IntGauge>,
    last: CacheFigures,
}

impl Gauges {
    pub fn new(metrics: &Metrics, id: &str) -> Self {
        let labels = [("exporter", id)];
        let counter = |name: &str, help: &str| metrics.series(name, help, &labels);
        let gauge = |name: &str, help: &str| {
            metrics.gauge(name, help, &["exporter"]).map(|family| family.with_label_values(&[id]))
        };
        Gauges {
            hits: counter("tidegate_series_cache_hits", "Data points whose labels were known."),
            misses: counter("tidegate_series_cache_misses", "Data points whose labels had to be made."),
            forgotten: counter(
                "tidegate_series_cache_forgotten",
                "Known labels that were forgotten because the cache had no room.",
            ),
            series: gauge("tidegate_series_cache_entries", "Known labels."),
            bytes: gauge("tidegate_series_cache_bytes", "Memory that known labels take, in bytes."),
            streams: gauge("tidegate_delta_streams", "Series of delta temporality that are being added up."),
            last: CacheFigures::default(),
        }
    }

    pub fn show(&mut self, now: CacheFigures, streams: usize) {
        self.hits.add(now.hits.saturating_sub(self.last.hits));
        self.misses.add(now.misses.saturating_sub(self.last.misses));
        self.forgotten.add(now.forgotten.saturating_sub(self.last.forgotten));
        for (gauge, value) in [(&self.series, now.series), (&self.bytes, now.bytes), (&self.streams, streams)]
        {
            if let Some(gauge) = gauge {
                gauge.set(value as i64);
            }
        }
        self.last = now;
    }
}
