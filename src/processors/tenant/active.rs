//! How many series or streams a tenant has, and which are new.
//!
//! Each is known by a hash of the bytes that make it, with the time it was last seen; one that was not seen for five
//! minutes is none any more. At the limit, what is known passes and what is new does not.
//!
//! Costs: twelve bytes a series and one hash a point, under the tenant's own lock; nothing without a limit.

use std::time::{Duration, Instant};

use hashbrown::HashTable;

use crate::pdata::Signal;
use crate::pdata::common::{ResourceGroup, ScopeGroup};
use crate::pdata::metrics::{Kind, Metric};
use crate::pdata::partition::{Assign, Partition, PartitionError, Pieces, partition};
use crate::pdata::wire::WireError;
use crate::prometheus::identity::Identity;
use crate::prometheus::scan::Scan;

/// How long something is active after it was seen last.
const WINDOW: u32 = 300;

/// How often it is looked for what is not: seconds.
const SWEEP: u32 = 10;

/// The bucket of what passes, and that of what does not.
pub(super) const PASSES: usize = 0;
const NEW: usize = 1;

/// What is active of one tenant.
#[derive(Debug)]
pub(super) struct Active {
    limit: usize,
    identity: Identity,
    /// Half of the hash, and when it was seen: seconds since the start.
    seen: HashTable<(u64, u32)>,
    start: Option<Instant>,
    swept: u32,
    /// What was told last.
    told: i64,
}

/// Sorts points and records into known and new ones.
struct Sorting<'t> {
    active: &'t mut Active,
    signal: Signal,
    now: u32,
    resource: u128,
    scope: u128,
    metric: u128,
}

impl Active {
    pub(super) fn new(limit: usize) -> Self {
        Active { limit, identity: Identity::new(), seen: HashTable::new(), start: None, swept: 0, told: 0 }
    }

    /// Cuts off what is new where there is no room for it: what passes is bucket [`PASSES`].
    pub(super) fn cut(
        &mut self,
        now: Instant,
        signal: Signal,
        pieces: &Pieces,
        items: usize,
    ) -> Result<Partition, PartitionError> {
        let now = self.seconds(now);
        let mut sorting = Sorting { active: self, signal, now, resource: 0, scope: 0, metric: 0 };
        partition(signal, pieces, items, &mut sorting)
    }

    /// How many more there are than when it was last asked.
    pub(super) fn change(&mut self, now: Instant) -> i64 {
        let now = self.seconds(now);
        self.sweep(now);
        let count = self.seen.len() as i64;
        count - std::mem::replace(&mut self.told, count)
    }

    fn seconds(&mut self, now: Instant) -> u32 {
        let start = *self.start.get_or_insert(now);
        now.saturating_duration_since(start).min(Duration::from_secs(u64::from(u32::MAX))).as_secs() as u32
    }

    /// The bucket of what has this hash.
    fn bucket(&mut self, hash: u128, now: u32) -> usize {
        let key = hash as u64;
        if let Some((_, last)) = self.seen.find_mut(key, |(known, _)| *known == key) {
            *last = now.max(*last);
            return PASSES;
        }
        if self.seen.len() >= self.limit && now.saturating_sub(self.swept) >= SWEEP {
            self.sweep(now);
        }
        if self.seen.len() >= self.limit {
            return NEW;
        }
        self.seen.insert_unique(key, (key, now), |(key, _)| *key);
        PASSES
    }

    fn sweep(&mut self, now: u32) {
        self.swept = now;
        self.seen.retain(|(_, last)| now.saturating_sub(*last) < WINDOW);
        if self.seen.len() < self.seen.capacity() / 4 {
            self.seen.shrink_to_fit(|(key, _)| *key);
        }
    }
}

impl<'a> Assign<'a> for Sorting<'_> {
    fn resource(&mut self, group: ResourceGroup<'a>) -> Result<Option<usize>, WireError> {
        self.resource = self.active.identity.resource(group, 0)?;
        Ok(None)
    }

    fn scope(&mut self, group: ScopeGroup<'a>) -> Result<Option<usize>, WireError> {
        self.scope = self.active.identity.scope(self.resource, group)?;
        Ok((self.signal == Signal::Logs).then(|| self.active.bucket(self.scope, self.now)))
    }

    fn metric(&mut self, metric: &'a [u8]) -> Result<Option<usize>, WireError> {
        let metric = self.active.identity.metric(&Metric::parse(metric)?)?;
        self.metric = self.active.identity.mix(self.scope, metric);
        Ok(None)
    }

    fn item(&mut self, kind: Kind, item: &'a [u8]) -> Result<usize, WireError> {
        let scan = Scan::parse(kind, item)?;
        let attributes = self.active.identity.attributes(kind, &scan, item)?;
        let series = self.active.identity.mix(self.metric, attributes);
        Ok(self.active.bucket(series, self.now))
    }
}
