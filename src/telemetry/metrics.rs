//! The agent's own metrics, under the Collector's names, in one registry.
//!
//! Components ask once, at construction, for the handles they need; on the data path a handle is one relaxed
//! atomic per batch, never per item. A series appears in `/metrics` with its first increment, as in the
//! Collector: a component that never refused anything shows no refusals.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use prometheus::core::Collector;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::pdata::Signal;

/// The registry and the families made so far.
#[derive(Default)]
pub struct Metrics {
    registry: Registry,
    families: Mutex<HashMap<String, Family>>,
    before_scrape: Mutex<Vec<Box<dyn Fn() + Send + Sync>>>,
    hidden: OnceLock<&'static [&'static str]>,
}

#[derive(Clone)]
enum Family {
    Counter(IntCounterVec),
    Gauge(IntGaugeVec),
    Histogram(HistogramVec),
}

impl Metrics {
    /// An empty registry.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Runs `update` before every scrape: for gauges that are read rather than kept.
    pub fn before_scrape(&self, update: impl Fn() + Send + Sync + 'static) {
        self.before_scrape.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(update));
    }

    /// Leaves out the families whose names start with one of `prefixes`. Can be said once.
    pub fn hide(&self, prefixes: &'static [&'static str]) {
        let _ = self.hidden.set(prefixes);
    }

    /// Every series as it is now, less what is hidden.
    pub fn gather(&self) -> Vec<prometheus::proto::MetricFamily> {
        self.before_scrape.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|update| update());
        let hidden = self.hidden.get().copied().unwrap_or_default();
        let mut families = self.registry.gather();
        families.retain(|family| !hidden.iter().any(|prefix| family.name().starts_with(prefix)));
        families
    }

    /// A counter family, made on first use; `None` if the name is taken by another kind or is not a name.
    /// Names are complete, as they appear in `/metrics` (`otelcol_exporter_sent_spans`).
    pub fn counter(&self, name: &str, help: &str, labels: &[&str]) -> Option<IntCounterVec> {
        let make = || IntCounterVec::new(Opts::new(name, help), labels).ok();
        match self.family(name, || make().map(Family::Counter))? {
            Family::Counter(family) => Some(family),
            _ => None,
        }
    }

    /// A gauge family; see [`Metrics::counter`].
    pub fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> Option<IntGaugeVec> {
        let make = || IntGaugeVec::new(Opts::new(name, help), labels).ok();
        match self.family(name, || make().map(Family::Gauge))? {
            Family::Gauge(family) => Some(family),
            _ => None,
        }
    }

    /// A histogram family; see [`Metrics::counter`].
    pub fn histogram(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Option<HistogramVec> {
        let make =
            || HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels).ok();
        match self.family(name, || make().map(Family::Histogram))? {
            Family::Histogram(family) => Some(family),
            _ => None,
        }
    }

    /// Items sent, dropped and refused so far, over all components: for the last line of the log.
    pub fn totals(&self) -> [u64; 3] {
        self.sums(["otelcol_exporter_sent_", "tidegate_dropped_items", "otelcol_receiver_refused_"])
    }

    /// The sums of all counters and gauges whose names start with each prefix, read as nearly at one time as can
    /// be: nothing else is collected in between.
    pub fn sums<const N: usize>(&self, prefixes: [&str; N]) -> [u64; N] {
        let families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        let chosen = prefixes.map(|prefix| {
            families.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, f)| f).collect::<Vec<_>>()
        });
        let collected =
            chosen.map(|families| families.into_iter().flat_map(Family::collect).collect::<Vec<_>>());
        collected.map(|families| {
            let values = families
                .iter()
                .flat_map(|f| f.get_metric())
                .map(|m| m.get_counter().get_value() + m.get_gauge().get_value());
            values.sum::<f64>() as u64
        })
    }

    /// Adds a collector of another kind; `false` if one of its names is taken.
    pub fn add(&self, collector: Box<dyn Collector>) -> bool {
        self.registry.register(collector).is_ok()
    }

    fn family(&self, name: &str, make: impl FnOnce() -> Option<Family>) -> Option<Family> {
        let mut families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = families.get(name) {
            return Some(found.clone());
        }
        let made = make()?;
        let collector: Box<dyn Collector> = match &made {
            Family::Counter(family) => Box::new(family.clone()),
            Family::Gauge(family) => Box::new(family.clone()),
            Family::Histogram(family) => Box::new(family.clone()),
        };
        self.registry.register(collector).ok()?;
        families.insert(name.to_owned(), made.clone());
        Some(made)
    }
}

impl Family {
    fn collect(&self) -> Vec<prometheus::proto::MetricFamily> {
        match self {
            Family::Counter(family) => family.collect(),
            Family::Gauge(family) => family.collect(),
            Family::Histogram(family) => family.collect(),
        }
    }
}

/// A counter with fixed labels that appears in `/metrics` with its first increment.
#[derive(Clone)]
pub struct Counter {
    family: Option<IntCounterVec>,
    labels: Vec<String>,
    child: Arc<OnceLock<IntCounter>>,
}

impl Counter {
    /// Adds `n`; adding 0 does not make the series appear. One relaxed atomic after the first call.
    pub fn add(&self, n: u64) {
        if n == 0 {
            return;
        }
        let labels: Vec<&str>;
        let child = match self.child.get() {
            Some(child) => child,
            None => {
                let Some(family) = &self.family else { return };
                labels = self.labels.iter().map(String::as_str).collect();
                self.child.get_or_init(|| family.with_label_values(&labels))
            }
        };
        child.inc_by(n);
    }

    /// The value so far.
    pub fn get(&self) -> u64 {
        self.child.get().map_or(0, IntCounter::get)
    }
}

impl Metrics {
    /// The counter behind [`dropped`], for a component that drops often.
    pub fn dropped_items(&self, id: &str, signal: Signal, reason: &'static str) -> Counter {
        let labels = &[("component", id), ("data_type", signal.name()), ("reason", reason)];
        self.series("tidegate_dropped_items", "Items given up on, by reason.", labels)
    }

    /// One series of a counter family: `series("otelcol_exporter_sent_spans", "…", &[("exporter", id)])`.
    pub fn series(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Counter {
        let names: Vec<&str> = labels.iter().map(|(name, _)| *name).collect();
        let labels = labels.iter().map(|(_, value)| (*value).to_owned()).collect();
        Counter { family: self.counter(name, help, &names), labels, child: Arc::default() }
    }
}

/// What a receiver counts, one instance a transport: items accepted and refused, by signal.
#[derive(Clone)]
pub struct ReceiverItems {
    accepted: [Counter; 3],
    refused: [Counter; 3],
}

impl ReceiverItems {
    /// The counters of the receiver `id`; `transport` is `grpc` or `http`.
    pub fn new(metrics: &Metrics, id: &str, transport: &str) -> Self {
        let family = |what: &str, help: &str| {
            Signal::ALL.map(|signal| {
                let name = format!("otelcol_receiver_{what}_{}", signal.items());
                metrics.series(&name, help, &[("receiver", id), ("transport", transport)])
            })
        };
        ReceiverItems {
            accepted: family("accepted", "Items taken in charge by the pipeline."),
            refused: family("refused", "Items answered with an error; the client may send them again."),
        }
    }

    /// Counts items whose sender got an OK.
    pub fn accepted(&self, signal: Signal, items: usize) {
        add(&self.accepted, signal, items);
    }

    /// Counts items whose sender got an error.
    pub fn refused(&self, signal: Signal, items: usize) {
        add(&self.refused, signal, items);
    }
}

/// What an exporter counts, for one signal. `offered = sent + failed + refused + queued` holds at all times, and
/// `tidegate_accounting_gap` shows it.
#[derive(Clone)]
pub struct ExporterItems {
    metrics: Arc<Metrics>,
    id: String,
    signal: Signal,
    offered: Counter,
    sent: Counter,
    failed: Counter,
    refused: Counter,
}

impl ExporterItems {
    /// The counters of the exporter `id` for one signal.
    pub fn new(metrics: &Arc<Metrics>, id: &str, signal: Signal) -> Self {
        let series = |what: &str, help: &str| {
            metrics.series(&format!("otelcol_exporter_{what}_{}", signal.items()), help, &[("exporter", id)])
        };
        let labels = &[("exporter", id), ("data_type", signal.name())];
        ExporterItems {
            metrics: metrics.clone(),
            id: id.to_owned(),
            signal,
            offered: metrics.series(
                "tidegate_exporter_offered_items",
                "Items handed to the exporter.",
                labels,
            ),
            sent: series("sent", "Items delivered."),
            failed: series("send_failed", "Items given up on; see tidegate_dropped_items for the reasons."),
            refused: series("enqueue_failed", "Items refused because the queue was full."),
        }
    }

    /// The gauge of items taken and not yet sent, given up or refused; the exporter keeps it.
    pub fn queued(&self) -> Option<IntGauge> {
        let help = "Items taken and not yet sent, given up or refused.";
        let family =
            self.metrics.gauge("tidegate_exporter_queued_items", help, &["exporter", "data_type"])?;
        Some(family.with_label_values(&[&self.id, self.signal.name()]))
    }

    /// Items handed over, before anything else is known of them.
    pub fn offered(&self, items: usize) {
        self.offered.add(items as u64);
    }

    /// Items the destination has taken.
    pub fn sent(&self, items: usize) {
        self.sent.add(items as u64);
    }

    /// Items refused to their sender, who may send them again, with a reason from a small fixed set (`queue_full`,
    /// `expired`, …).
    pub fn refused(&self, items: usize, reason: &'static str) {
        self.refused.add(items as u64);
        let labels = &[("exporter", self.id.as_str()), ("data_type", self.signal.name()), ("reason", reason)];
        let help = "Items refused to their sender, who may send them again, by reason.";
        self.metrics.series("tidegate_exporter_refused_items", help, labels).add(items as u64);
    }

    /// Items given up on, with a reason from a small fixed set (`rejected`, `partial_success`, `expired`, …).
    pub fn dropped(&self, items: usize, reason: &'static str) {
        self.failed.add(items as u64);
        dropped(&self.metrics, &self.id, self.signal, items, reason);
    }

    /// Offered, sent, dropped and refused so far.
    pub fn totals(&self) -> [u64; 4] {
        [self.offered.get(), self.sent.get(), self.failed.get(), self.refused.get()]
    }
}

/// Counts items that a component gave up on: every loss has a component and a reason.
pub fn dropped(metrics: &Metrics, id: &str, signal: Signal, items: usize, reason: &'static str) {
    metrics.dropped_items(id, signal, reason).add(items as u64);
}

fn add(counters: &[Counter; 3], signal: Signal, items: usize) {
    if let Some(counter) = counters.get(signal.index()) {
        counter.add(items as u64);
    }
}
