//! What became of each tenant's telemetry, for the agent's own metrics.
//!
//! `tidegate_tenant_items` and `tidegate_tenant_bytes` count everything that comes in once, by outcome: what is
//! refused here is in the pipeline's refused items, what is dropped in its dropped items and in
//! `tidegate_dropped_items`. The series of a tenant that is forgotten go with it.

use std::sync::Arc;

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec};

use crate::pdata::Signal;
use crate::telemetry::{Counter, Metrics, dropped};

/// What became of telemetry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Accepted,
    Refused,
    Dropped,
    Demoted,
}

/// Why; `Known` for what was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// It has a tenant, within its limits.
    Known,
    /// Over a rate.
    RateLimit,
    /// Another tenant's part of the same request was refused.
    SharedRequest,
    ActiveSeries,
    ActiveStreams,
    /// Nothing names a tenant.
    Unresolved,
    /// There are too many tenants.
    Overflow,
    /// The request cannot be read or cut.
    BadData,
}

/// The counters of one processor in one pipeline.
pub(super) struct Counts {
    metrics: Arc<Metrics>,
    id: String,
    signal: Signal,
    items: Option<IntCounterVec>,
    bytes: Option<IntCounterVec>,
    active: Option<IntGaugeVec>,
    invalid: Counter,
}

impl Outcome {
    const ALL: [Outcome; 4] = [Outcome::Accepted, Outcome::Refused, Outcome::Dropped, Outcome::Demoted];

    const fn word(self) -> &'static str {
        match self {
            Outcome::Accepted => "accepted",
            Outcome::Refused => "refused",
            Outcome::Dropped => "dropped",
            Outcome::Demoted => "demoted",
        }
    }
}

impl Reason {
    const ALL: [Reason; 8] = [
        Reason::Known,
        Reason::RateLimit,
        Reason::SharedRequest,
        Reason::ActiveSeries,
        Reason::ActiveStreams,
        Reason::Unresolved,
        Reason::Overflow,
        Reason::BadData,
    ];

    const fn word(self) -> &'static str {
        match self {
            Reason::Known => "",
            Reason::RateLimit => "rate_limit",
            Reason::SharedRequest => "shared_request",
            Reason::ActiveSeries => "active_series",
            Reason::ActiveStreams => "active_streams",
            Reason::Unresolved => "unresolved",
            Reason::Overflow => "overflow",
            Reason::BadData => "bad_data",
        }
    }
}

impl Counts {
    pub(super) fn new(metrics: &Arc<Metrics>, id: &str, signal: Signal) -> Self {
        const LABELS: [&str; 5] = ["processor", "data_type", "tenant", "outcome", "reason"];
        let (what, help) = match signal {
            Signal::Logs => ("streams", "Streams of a tenant with a record in the last five minutes."),
            _ => ("series", "Series of a tenant with a point in the last five minutes."),
        };
        let name = format!("tidegate_tenant_active_{what}");
        Counts {
            metrics: metrics.clone(),
            id: id.to_owned(),
            signal,
            items: metrics.counter(
                "tidegate_tenant_items",
                "Items, by tenant and what became of them.",
                &LABELS,
            ),
            bytes: metrics.counter(
                "tidegate_tenant_bytes",
                "Bytes, by tenant and what became of them.",
                &LABELS,
            ),
            active: match signal {
                Signal::Traces => None,
                _ => metrics.gauge(&name, help, &["processor", "data_type", "tenant"]),
            },
            invalid: metrics.series(
                "tidegate_tenant_invalid",
                "Values that are no valid tenant name, counted once for each request that has them.",
                &[("processor", id), ("data_type", signal.name())],
            ),
        }
    }

    /// Counts what became of a part of a request; the tenant is empty where there is none.
    pub(super) fn add(&self, tenant: &str, outcome: Outcome, reason: Reason, items: usize, bytes: usize) {
        if items == 0 {
            return;
        }
        let labels = [self.id.as_str(), self.signal.name(), tenant, outcome.word(), reason.word()];
        for (family, amount) in [(&self.items, items), (&self.bytes, bytes)] {
            if let Some(family) = family {
                family.with_label_values(&labels).inc_by(amount as u64);
            }
        }
        if outcome == Outcome::Dropped {
            dropped(&self.metrics, &self.id, self.signal, items, reason.word());
        }
    }

    /// Counts values that are no names.
    pub(super) fn invalid(&self, values: u64) {
        self.invalid.add(values);
    }

    /// How many series or streams a tenant has.
    pub(super) fn active(&self, tenant: &str) -> Option<IntGauge> {
        Some(self.active.as_ref()?.with_label_values(&[&self.id, self.signal.name(), tenant]))
    }

    /// Takes out the series of a tenant.
    pub(super) fn forget(&self, tenant: &str) {
        for outcome in Outcome::ALL {
            for reason in Reason::ALL {
                let labels = [self.id.as_str(), self.signal.name(), tenant, outcome.word(), reason.word()];
                for family in [&self.items, &self.bytes].into_iter().flatten() {
                    // Most of them are not there.
                    let _ = family.remove_label_values(&labels);
                }
            }
        }
        if let Some(active) = &self.active {
            let _ = active.remove_label_values(&[&self.id, self.signal.name(), tenant]);
        }
    }
}
