//! One tenant at one destination: when it may be sent to, whether it answers, and what it has got.
//!
//! A destination may throttle or fail one tenant and serve the others. Hence each tenant has a [`Pace`] and a
//! [`Life`] of its own, and so has what comes without a tenant. The end of an outage of the whole destination is
//! noticed by all: it is one when a tenant that failed is delivered for again and nobody was in between.
//!
//! Costs: finding a tenancy is a hash of its name and an uncontended lock, a batch.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::core::Collector;
use prometheus::{IntGauge, IntGaugeVec};
use tokio::sync::watch;
use tokio::time::Instant;

use super::life::Life;
use super::{Pace, RetryConfig};
use crate::pdata::{Signal, Tenant};
use crate::telemetry::{Counter, Metrics};

/// How few tenancies are always remembered.
const FEW: usize = 32;

/// One tenant, or what has none, at one destination.
pub(super) struct Tenancy {
    tenant: Option<Tenant>,
    pub pace: Pace,
    life: Life,
    /// Of the destination, whoever the data is of.
    whole: Arc<Life>,
    books: Option<Books>,
}

/// What is counted for one tenant.
struct Books {
    sent: Counter,
    failed: Counter,
    refused: Counter,
    queued: Option<IntGauge>,
}

/// Where items go that are held no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Booking {
    /// Delivered.
    Sent,
    /// Given up, for a reason from a small fixed set.
    Dropped(&'static str),
    /// Back to who waits for them, for a reason from a small fixed set.
    Refused(&'static str),
}

/// The tenancies of one exporter and signal.
pub(super) struct Tenancies {
    metrics: Arc<Metrics>,
    id: String,
    signal: Signal,
    retry: RetryConfig,
    whole: Arc<Life>,
    /// What comes without a tenant.
    nobody: Arc<Tenancy>,
    known: Mutex<Known>,
}

struct Known {
    tenancies: HashMap<Tenant, Arc<Tenancy>>,
    /// When there are so many, those that nobody needs are forgotten.
    limit: usize,
}

impl Tenancy {
    fn new(tenant: Option<Tenant>, retry: &RetryConfig, whole: Arc<Life>, books: Option<Books>) -> Arc<Self> {
        Arc::new(Tenancy { tenant, pace: Pace::default(), life: Life::new(retry), whole, books })
    }

    /// Whose data this is about.
    pub fn tenant(&self) -> Option<&Tenant> {
        self.tenant.as_ref()
    }

    /// Whether nothing is known that speaks against sending: no wait that was asked for, no failure since the last
    /// delivery.
    pub fn is_well(&self) -> bool {
        self.pace.until().is_none() && !self.life.is_failing()
    }

    /// An attempt begins.
    pub fn attempt(&self) -> Instant {
        self.whole.attempt();
        self.life.attempt()
    }

    /// The attempt that began then has failed.
    pub fn failed(&self, began: Instant) {
        self.whole.failed(began);
        self.life.failed(began);
    }

    /// An attempt has delivered.
    pub fn delivered(&self) {
        match (self.life.delivered(), self.whole.delivered()) {
            (true, true) => self.whole.tell(),
            (true, false) => self.life.tell(),
            // Others failed, which says nothing about them.
            (false, _) => {}
        }
    }

    /// Change at the end of an outage: the tenant's own, and the destination's.
    pub fn returns(&self) -> [watch::Receiver<u64>; 2] {
        [self.life.returns(), self.whole.returns()]
    }

    /// When to [`ask`](Tenancy::ask) next.
    pub fn next_look(&self) -> Instant {
        self.failing_life().next_look()
    }

    /// Whether the caller is to try now, because nobody has for a while. While nothing is delivered for anybody that
    /// is true for one caller at a time, whatever its tenant.
    pub fn ask(&self) -> bool {
        self.failing_life().ask()
    }

    fn failing_life(&self) -> &Life {
        if self.whole.is_failing() { &self.whole } else { &self.life }
    }

    /// Counts items in.
    pub fn hold(&self, items: usize) {
        if let Some(queued) = self.books.as_ref().and_then(|books| books.queued.as_ref()) {
            queued.add(items as i64);
        }
    }

    /// Counts items out.
    pub fn settle(&self, items: usize, booking: Booking) {
        let Some(books) = &self.books else { return };
        let counter = match booking {
            Booking::Sent => &books.sent,
            Booking::Dropped(_) => &books.failed,
            Booking::Refused(_) => &books.refused,
        };
        counter.add(items as u64);
        if let Some(queued) = &books.queued {
            queued.sub(items as i64);
        }
    }
}

impl Tenancies {
    pub fn new(metrics: &Arc<Metrics>, id: &str, signal: Signal, retry: &RetryConfig) -> Self {
        let whole = Arc::new(Life::new(retry));
        Tenancies {
            metrics: metrics.clone(),
            id: id.to_owned(),
            signal,
            retry: retry.clone(),
            nobody: Tenancy::new(None, retry, whole.clone(), None),
            whole,
            known: Mutex::new(Known { tenancies: HashMap::new(), limit: FEW }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tenancy of a tenant, or of what has none. It is remembered for as long as the caller keeps it, or a wait
    /// that was asked for lasts.
    pub fn of(&self, tenant: Option<&Tenant>) -> Arc<Tenancy> {
        let Some(tenant) = tenant else { return self.nobody.clone() };
        let mut known = self.lock();
        if let Some(found) = known.tenancies.get(tenant) {
            return found.clone();
        }
        if known.tenancies.len() >= known.limit {
            known.tenancies.retain(|_, t| Arc::strong_count(t) > 1 || t.pace.until().is_some());
            known.limit = (known.tenancies.len() * 2).max(FEW);
        }
        let books = self.books(tenant);
        let made = Tenancy::new(Some(tenant.clone()), &self.retry, self.whole.clone(), Some(books));
        known.tenancies.insert(tenant.clone(), made.clone());
        made
    }

    fn books(&self, tenant: &Tenant) -> Books {
        let (exporter, data_type) = (self.id.as_str(), self.signal.name());
        let count = |outcome| {
            let labels = [
                ("exporter", exporter),
                ("data_type", data_type),
                ("tenant", tenant.name()),
                ("outcome", outcome),
            ];
            let help = "Items of a tenant that an exporter has sent, given up on or refused.";
            self.metrics.series("tidegate_exporter_tenant_items", help, &labels)
        };
        Books {
            sent: count("sent"),
            failed: count("failed"),
            refused: count("refused"),
            queued: self.queued().map(|f| f.with_label_values(&[exporter, data_type, tenant.name()])),
        }
    }

    fn queued(&self) -> Option<IntGaugeVec> {
        let help = "Items of a tenant, taken and not yet sent, given up or refused.";
        let labels = ["exporter", "data_type", "tenant"];
        self.metrics.gauge("tidegate_exporter_tenant_queued_items", help, &labels)
    }
}

impl Drop for Tenancies {
    /// The gauges go with the exporter, as its others do; what was counted stays.
    fn drop(&mut self) {
        let Some(family) = self.queued() else { return };
        for metric in family.collect().iter().flat_map(|f| f.get_metric()) {
            let label =
                |name: &str| metric.get_label().iter().find(|l| l.name() == name).map_or("", |l| l.value());
            if label("exporter") == self.id && label("data_type") == self.signal.name() {
                // Gone already is as good.
                let _ = family.remove_label_values(&[label("exporter"), label("data_type"), label("tenant")]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tenants_are_forgotten_unless_they_are_needed_or_wait() {
        let metrics = Metrics::new();
        let tenancies = Tenancies::new(&metrics, "otlp", Signal::Logs, &RetryConfig::default());
        let of = |name: &str| tenancies.of(Some(&Tenant::new(name)));
        let kept = of("kept");
        of("throttled").pace.hold(Duration::from_secs(60));
        for i in 0..10_000 {
            of(&format!("t{i}")).hold(1);
            assert!(tenancies.lock().tenancies.len() <= FEW);
        }
        assert!(Arc::ptr_eq(&of("kept"), &kept));
        assert!(!of("throttled").is_well());
        tokio::time::advance(Duration::from_secs(60)).await;
        (0..FEW).for_each(|i| drop(of(&format!("u{i}"))));
        let known = tenancies.lock();
        assert!(!known.tenancies.contains_key(&Tenant::new("throttled")));
        assert!(known.tenancies.contains_key(&Tenant::new("kept")));
        drop(known);
        assert!(Arc::ptr_eq(&tenancies.of(None), &tenancies.of(None)));

        // What was counted of a tenant that was forgotten is still there; gauges go with their exporter.
        let series = || {
            let families = metrics.gather();
            let of = |name: &str| {
                families.iter().filter(|f| f.name() == name).map(|f| f.get_metric().len()).sum::<usize>()
            };
            [of("tidegate_exporter_tenant_queued_items"), of("tidegate_exporter_tenant_items")]
        };
        of("t7").settle(1, Booking::Sent);
        let other = Tenancies::new(&metrics, "otlp/2", Signal::Logs, &RetryConfig::default());
        other.of(Some(&Tenant::new("t7"))).hold(1);
        assert_eq!(series(), [10_000 + FEW + 3, 1]);
        drop(tenancies);
        assert_eq!(series(), [1, 1]);
    }
}
