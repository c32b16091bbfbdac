//! The tenants that one processor knows.
//!
//! Those that the configuration names are always there. Others are made as they come up, `max_tenants` at most at a
//! time, and forgotten when nothing came of them for an hour. One short lock for each request and tenant.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::active::Active;
use super::config::{LimitConfig, LimitsConfig};
use super::counts::Counts;
use super::limits::Meter;
use crate::pdata::{Signal, Tenant};

/// How long a tenant is known that sends nothing.
const IDLE: Duration = Duration::from_secs(3600);

/// How often it is looked for such.
const SWEEP: Duration = Duration::from_secs(60);

/// A tenant and what it has used up.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) tenant: Tenant,
    pub(super) limits: LimitConfig,
    meter: Mutex<Meter>,
    /// Where the number of series or streams is limited.
    active: Option<Mutex<Active>>,
}

pub(super) struct Table {
    signal: Signal,
    limits: LimitsConfig,
    max: usize,
    pub(super) counts: Counts,
    inner: Mutex<Inner>,
}

struct Inner {
    owners: HashMap<Box<str>, Seen>,
    /// How many may be forgotten.
    passing: usize,
    swept: Option<Instant>,
}

struct Seen {
    owner: Arc<Owner>,
    /// When it was last asked for; `None` for those that stay.
    last: Option<Instant>,
}

impl Owner {
    pub(super) fn name(&self) -> &str {
        self.tenant.name()
    }

    pub(super) fn meter(&self) -> MutexGuard<'_, Meter> {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn active(&self) -> Option<MutexGuard<'_, Active>> {
        Some(self.active.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Table {
    /// A table that knows those that `named` and the limits name.
    pub(super) fn new(
        signal: Signal,
        limits: LimitsConfig,
        max: usize,
        counts: Counts,
        named: impl Iterator<Item = String>,
    ) -> Self {
        let inner = Mutex::new(Inner { owners: HashMap::new(), passing: 0, swept: None });
        let table = Table { signal, limits, max, counts, inner };
        let named: Vec<String> = named.chain(table.limits.overrides.keys().cloned()).collect();
        {
            let mut inner = table.lock();
            for name in named {
                let seen = Seen { owner: table.make(&name), last: None };
                inner.owners.insert(name.into(), seen);
            }
        }
        table
    }

    /// The tenant of a valid name; `None` if there are too many.
    pub(super) fn get(&self, name: &str, now: Instant) -> Option<Arc<Owner>> {
        let mut inner = self.lock();
        self.sweep_now_and_then(&mut inner, now);
        if let Some(seen) = inner.owners.get_mut(name) {
            seen.last = seen.last.map(|last| last.max(now));
            return Some(seen.owner.clone());
        }
        if inner.passing >= self.max {
            return None;
        }
        inner.passing += 1;
        let owner = self.make(name);
        inner.owners.insert(name.into(), Seen { owner: owner.clone(), last: Some(now) });
        Some(owner)
    }

    /// Forgets the idle, and says how many series and streams the others have.
    pub(super) fn look_after(&self, now: Instant) {
        let owners: Vec<Arc<Owner>> = {
            let mut inner = self.lock();
            self.sweep_now_and_then(&mut inner, now);
            inner.owners.values().map(|seen| seen.owner.clone()).collect()
        };
        for owner in owners {
            if let (Some(mut active), Some(gauge)) = (owner.active(), self.counts.active(owner.name())) {
                // Added, not set: several pipelines may count for one tenant.
                gauge.add(active.change(now));
            }
        }
    }

    fn sweep_now_and_then(&self, inner: &mut Inner, now: Instant) {
        if inner.swept.is_some_and(|swept| now.saturating_duration_since(swept) < SWEEP) {
            return;
        }
        inner.swept = Some(now);
        inner.owners.retain(|name, seen| {
            let idle = seen.last.is_some_and(|last| now.saturating_duration_since(last) >= IDLE);
            if idle {
                self.counts.forget(name);
            }
            !idle
        });
        inner.passing = inner.owners.values().filter(|seen| seen.last.is_some()).count();
    }

    fn make(&self, name: &str) -> Arc<Owner> {
        let default = &self.limits.default;
        let limits = self.limits.overrides.get(name).map_or_else(|| default.clone(), |own| own.over(default));
        let active = match self.signal {
            Signal::Metrics => limits.active_series,
            Signal::Logs => limits.active_streams,
            Signal::Traces => 0,
        };
        Arc::new(Owner {
            tenant: Tenant::with_queue_share(name, limits.queue_share),
            meter: Mutex::new(Meter::new(limits.bytes_per_second.0, limits.items_per_second)),
            active: (active > 0).then(|| Mutex::new(Active::new(active))),
            limits,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    fn table(max: usize) -> (Arc<Metrics>, Table) {
        let metrics = Metrics::new();
        let counts = Counts::new(&metrics, "tenant", Signal::Logs);
        let mut limits = LimitsConfig::default();
        limits.overrides.insert("big".to_owned(), Default::default());
        let named = ["shared".to_owned()].into_iter();
        (metrics, Table::new(Signal::Logs, limits, max, counts, named))
    }

    #[test]
    fn there_are_no_more_than_allowed_and_the_named_always_fit() {
        let (_, table) = table(2);
        let now = Instant::now();
        let a = table.get("a", now).unwrap();
        assert!(Arc::ptr_eq(&a, &table.get("a", now).unwrap()));
        assert!(table.get("b", now).is_some());
        assert!(table.get("c", now).is_none());
        assert!(table.get("shared", now).is_some() && table.get("big", now).is_some());
    }

    #[test]
    fn the_idle_are_forgotten_with_their_series() {
        use crate::processors::tenant::counts::{Outcome, Reason};
        let (metrics, table) = table(1);
        let start = Instant::now();
        let at = |minutes: u64| start + Duration::from_secs(60 * minutes);
        table.get("a", at(0)).unwrap();
        table.counts.add("a", Outcome::Accepted, Reason::Known, 5, 50);
        assert!(table.get("b", at(59)).is_none());
        assert_eq!(metrics.sums(["tidegate_tenant_items", "tidegate_tenant_bytes"]), [5, 50]);
        table.get("a", at(59)).unwrap();
        assert!(table.get("b", at(118)).is_none(), "used at 59");
        assert!(table.get("b", at(120)).is_some());
        assert_eq!(metrics.sums(["tidegate_tenant_items"]), [0]);
        assert!(table.get("a", at(120)).is_none());
        table.look_after(at(500));
        assert!(table.get("a", at(500)).is_some());
        assert!(table.get("shared", at(500)).is_some());
    }
}
