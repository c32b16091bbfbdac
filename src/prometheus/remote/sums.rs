//! Running sums of delta streams, for each tenant by itself and within one bound for all.
//!
//! A tenant may have at most [`ALPHA`] times as many streams as are free: one alone has four fifths of them, and there
//! is always room for another one. What has no tenant may have all.
//!
//! Costs, a batch of another tenant than the last: two look-ups. A point: what the sum itself costs.

use std::collections::HashMap;

use crate::prometheus::delta::{Accumulator, Limits};

/// How many times the streams that are free a tenant may have.
const ALPHA: usize = 4;

/// The sums of all.
pub(super) struct Sums {
    limits: Limits,
    /// Whose batch it is, and its sums.
    whose: u64,
    current: Accumulator,
    /// Those of others, and how many streams they have together.
    others: HashMap<u64, Accumulator>,
    taken: usize,
}

impl Sums {
    /// No sums.
    pub fn new(limits: Limits) -> Self {
        Sums { limits, whose: 0, current: Accumulator::new(limits), others: HashMap::new(), taken: 0 }
    }

    /// Begins a batch of a partition; `shares` says whether it must leave room for others.
    pub fn begin(&mut self, partition: u64, shares: bool) {
        if partition != self.whose {
            let next = self.others.remove(&partition).unwrap_or_else(|| Accumulator::new(self.limits));
            self.taken -= next.len();
            let last = std::mem::replace(&mut self.current, next);
            self.taken += last.len();
            if !last.is_empty() {
                self.others.insert(self.whose, last);
            }
            self.whose = partition;
        }
        let free = self.limits.max_streams.saturating_sub(self.taken);
        // Where what it has is `ALPHA` times what it leaves.
        let most = if shares { (free - free / (ALPHA + 1)).max(1) } else { free };
        self.current.set_max_streams(most);
    }

    /// The sums of the batch's partition.
    #[inline]
    pub fn current(&mut self) -> &mut Accumulator {
        &mut self.current
    }

    /// Forgets streams for which nothing came for long.
    pub fn expire(&mut self, now_ms: i64) {
        self.current.expire(now_ms);
        self.others.retain(|_, sums| {
            sums.expire(now_ms);
            !sums.is_empty()
        });
        self.taken = self.others.values().map(Accumulator::len).sum();
    }

    /// How many streams there are.
    pub fn len(&self) -> usize {
        self.taken + self.current.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pdata::metrics::Number;

    #[test]
    fn a_tenant_leaves_streams_to_others() {
        let limits = Limits { max_streams: 100, max_stale: Duration::from_secs(1) };
        let mut sums = Sums::new(limits);
        // Adds to so many streams; how many were taken.
        let mut add = |sums: &mut Sums, who: u64, shares: bool, time: u64| {
            sums.begin(who, shares);
            let mut one = |key: u128| sums.current().number(key, 0, time, Number::Int(1), 0).is_ok();
            (0..1000).filter(|key| one(*key)).count()
        };
        assert_eq!(add(&mut sums, 1, true, 1), 80);
        assert_eq!(add(&mut sums, 2, true, 1), 16);
        assert_eq!(add(&mut sums, 3, true, 1), 4);
        // Who comes late has one at least, and what is there goes on.
        assert_eq!(add(&mut sums, 4, true, 1), 1);
        assert_eq!((add(&mut sums, 1, true, 2), sums.len()), (80, 101));
        assert_eq!(add(&mut sums, 0, false, 1), 0);
        sums.expire(5000);
        assert_eq!((sums.len(), sums.others.len()), (0, 0));
        assert_eq!(add(&mut sums, 0, false, 3), 100);
    }
}
