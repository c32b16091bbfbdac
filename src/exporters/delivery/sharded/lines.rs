//! The requests that wait for their turn on the wire, and which tenant's batches may be encoded next. Plain data.
//!
//! A *line* is what one tenant has for one shard: a request that is being sent, and those behind it. Lines exist for
//! as long as they hold anything, so that a tenant that is throttled keeps nobody else from sending.
//!
//! What is encoded and not yet sent is bounded (`bound`), and within the bound each tenant has its share: at most
//! [`ALPHA`] times what is free. One tenant alone can fill four fifths; there is always room for one more. A tenant
//! that has filled its share is not encoded for until half of it is sent, so that requests do not become slivers. A
//! tenant that has nothing encoded can always have one batch encoded, and data without a tenant has the whole bound.
//!
//! Requests of one tenant only grow while no other tenant's batch is encoded. Where tenants alternate, requests are
//! therefore made when they are needed, or when they are worth it: while a tenant has closed requests in line, its
//! batches stay as they are until nothing waits in its lines, or until much has gathered ([`WORTH`] for each request in
//! line). A line that is stuck must not keep those of other shards from being filled, so that after some time
//! ([`PATIENCE`]) batches are encoded all the same, to see whether there is anything for a free line; where there was
//! nothing, the next time is later.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::pdata::Tenant;

/// How many times what is free of the bound one tenant may have.
const ALPHA: usize = 4;
/// Bytes of batches that are worth requests of their own, for each request that is in line already.
pub(super) const WORTH: usize = 256 << 10;
/// How long batches gather for each request that is in line already, and the longest they do; twice as long after each
/// time that it was in vain, with a limit of its own.
const PATIENCE: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(1);
const LONGEST_IN_VAIN: Duration = Duration::from_secs(4);

/// All lines, and what is known of those who have them.
#[derive(Debug)]
pub(super) struct Lines<R> {
    owners: HashMap<Tenant, Owner<R>>,
    /// What has no tenant.
    nobody: Owner<R>,
    bound: usize,
    /// Bytes of closed requests, those being sent included.
    backlog: usize,
    /// Lines whose first request is being sent.
    busy: usize,
}

#[derive(Debug)]
struct Owner<R> {
    /// By shard: what waits behind the request that is being sent.
    lines: HashMap<usize, VecDeque<R>>,
    /// Its part of the backlog.
    backlog: usize,
    /// Bytes of its batches that are not encoded yet.
    ready: usize,
    /// When it was last encoded for.
    encoded: Option<Instant>,
    /// Whether that was to see whether there is anything for a free line, and nothing was found yet.
    tries: bool,
    /// How often nothing was found in a row.
    vain: u32,
    /// Whether it has filled its share and not yet emptied half of it.
    filled: bool,
}

/// Whether a tenant's next batch is to be encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Now,
    /// Not before then, unless more comes or something is sent.
    At(Instant),
    /// When something of the backlog is sent.
    Later,
}

/// What is encoded and in open requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpenSize<'a> {
    /// Whose it is.
    pub owner: Option<&'a Tenant>,
    pub bytes: usize,
}

impl<R> Default for Owner<R> {
    fn default() -> Self {
        Owner {
            lines: HashMap::new(),
            backlog: 0,
            ready: 0,
            encoded: None,
            tries: false,
            vain: 0,
            filled: false,
        }
    }
}

impl<R> Owner<R> {
    fn is_idle(&self) -> bool {
        self.lines.is_empty() && self.backlog == 0 && self.ready == 0
    }

    /// Whether what has gathered makes requests of a fair size.
    fn is_worth_it(&self, depth: usize) -> bool {
        self.ready >= WORTH.saturating_mul(depth)
    }

    /// How long batches gather.
    fn patience(&self, depth: usize) -> Duration {
        let patience = PATIENCE.saturating_mul(u32::try_from(depth).unwrap_or(u32::MAX)).min(LONGEST);
        patience.saturating_mul(2u32.saturating_pow(self.vain)).min(LONGEST_IN_VAIN)
    }

    /// Requests that wait in its longest line.
    fn depth(&self) -> usize {
        self.lines.values().map(VecDeque::len).max().unwrap_or(0)
    }
}

impl<R> Lines<R> {
    /// No lines, with room for so many bytes.
    pub fn new(bound: usize) -> Self {
        let nobody = Owner::default();
        Lines { owners: HashMap::new(), nobody, bound: bound.max(1), backlog: 0, busy: 0 }
    }

    /// Whether nothing is being sent, so that nothing waits either.
    pub fn is_idle(&self) -> bool {
        self.busy == 0
    }

    /// Whether a line would send a request at once.
    pub fn is_free(&self, owner: Option<&Tenant>, shard: usize) -> bool {
        self.get(owner).is_none_or(|state| !state.lines.contains_key(&shard))
    }

    /// Whether there is room for more in general.
    pub fn has_room(&self, open: usize) -> bool {
        self.backlog + open < self.bound
    }

    /// A batch of a tenant waits to be encoded.
    pub fn gather(&mut self, owner: Option<&Tenant>, bytes: usize) {
        self.entry(owner).ready += bytes;
    }

    /// A batch waits no longer: it is encoded now. `gathers` as for its [`turn`](Lines::turn). [`Lines::tidy`] when
    /// that is done.
    pub fn encoding(&mut self, owner: Option<&Tenant>, bytes: usize, gathers: bool) {
        let now = Instant::now();
        let state = self.entry(owner);
        if gathers {
            let depth = state.depth();
            state.vain = if state.tries { state.vain.saturating_add(1) } else { state.vain };
            state.tries = depth > 0 && !state.is_worth_it(depth);
        }
        state.ready = state.ready.saturating_sub(bytes);
        state.encoded = Some(now);
    }

    /// Whether the next batch of a tenant is to be encoded. `open` is what stands in open requests; `gathers`
    /// whether batches may be held back to be encoded together: it makes a difference where the open requests, if
    /// there are any, are somebody else's.
    pub fn turn(&mut self, owner: Option<&Tenant>, open: OpenSize<'_>, gathers: bool) -> Turn {
        let free = self.bound.saturating_sub(self.backlog + open.bytes);
        let Some(state) = self.get_mut(owner) else { return Turn::Now };
        let own = state.backlog + if open.owner == owner { open.bytes } else { 0 };
        if own > 0 {
            let share = if owner.is_some() { free.saturating_mul(ALPHA) } else { usize::MAX };
            state.filled = if state.filled { own > share / 2 } else { own >= share };
            if free == 0 || state.filled {
                return Turn::Later;
            }
        }
        let depth = state.depth();
        if !gathers || depth == 0 || state.is_worth_it(depth) {
            return Turn::Now;
        }
        match state.encoded.map(|encoded| encoded + state.patience(depth)) {
            Some(until) if until > Instant::now() => Turn::At(until),
            _ => Turn::Now,
        }
    }

    /// Puts a request in its line; gives it back if it is to be sent at once. Its `charge` is its payer's.
    pub fn add(
        &mut self,
        owner: Option<&Tenant>,
        shard: usize,
        payer: Option<&Tenant>,
        charge: usize,
        request: R,
    ) -> Option<R> {
        self.backlog += charge;
        self.entry(payer).backlog += charge;
        let lines = &mut self.entry(owner).lines;
        if let Some(line) = lines.get_mut(&shard) {
            line.push_back(request);
            return None;
        }
        lines.insert(shard, VecDeque::new());
        self.busy += 1;
        let state = self.entry(owner);
        if std::mem::take(&mut state.tries) {
            state.vain = 0;
        }
        Some(request)
    }

    /// A request is sent or given up: its charge is returned.
    pub fn refund(&mut self, payer: Option<&Tenant>, charge: usize) {
        self.backlog = self.backlog.saturating_sub(charge);
        if let Some(state) = self.get_mut(payer) {
            state.backlog = state.backlog.saturating_sub(charge);
        }
        self.tidy(payer);
    }

    /// The next request of a line, to be sent now; without one the line ends.
    pub fn next(&mut self, owner: Option<&Tenant>, shard: usize) -> Option<R> {
        let state = self.get_mut(owner)?;
        let next = state.lines.get_mut(&shard)?.pop_front();
        if next.is_none() {
            state.lines.remove(&shard);
            self.busy = self.busy.saturating_sub(1);
            self.tidy(owner);
        }
        next
    }

    /// Takes out what waits in all lines. What is being sent goes on, and no batch waits any more.
    pub fn abandon(&mut self) -> Vec<R> {
        let mut waiting = Vec::new();
        for state in self.owners.values_mut().chain([&mut self.nobody]) {
            state.ready = 0;
            waiting.extend(state.lines.values_mut().flat_map(std::mem::take));
        }
        self.owners.retain(|_, state| !state.is_idle());
        waiting
    }

    /// Forgets a tenant of whom nothing is left.
    pub fn tidy(&mut self, owner: Option<&Tenant>) {
        if let Some(tenant) = owner
            && self.owners.get(tenant).is_some_and(Owner::is_idle)
        {
            self.owners.remove(tenant);
        }
    }

    fn get(&self, owner: Option<&Tenant>) -> Option<&Owner<R>> {
        owner.map_or(Some(&self.nobody), |tenant| self.owners.get(tenant))
    }

    fn get_mut(&mut self, owner: Option<&Tenant>) -> Option<&mut Owner<R>> {
        match owner {
            Some(tenant) => self.owners.get_mut(tenant),
            None => Some(&mut self.nobody),
        }
    }

    fn entry(&mut self, owner: Option<&Tenant>) -> &mut Owner<R> {
        let Some(tenant) = owner else { return &mut self.nobody };
        if !self.owners.contains_key(tenant) {
            self.owners.insert(tenant.clone(), Owner::default());
        }
        self.owners.entry(tenant.clone()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> Tenant {
        Tenant::new(name)
    }

    /// Lines of numbers, with room for a thousand bytes.
    fn lines() -> Lines<u32> {
        Lines::new(1000)
    }

    const NOTHING: OpenSize<'_> = OpenSize { owner: None, bytes: 0 };

    #[tokio::test(start_paused = true)]
    async fn a_line_sends_one_request_at_a_time_and_ends() {
        let mut lines = lines();
        let names = [tenant("a"), tenant("b")];
        let [a, b] = names.each_ref().map(Some);
        assert!(lines.is_idle() && lines.is_free(a, 0));
        assert_eq!(lines.add(a, 0, a, 10, 1), Some(1));
        assert_eq!(lines.add(a, 0, a, 10, 2), None);
        assert_eq!(lines.add(b, 0, b, 10, 3), Some(3));
        assert_eq!(lines.add(a, 1, a, 10, 4), Some(4));
        assert!(!lines.is_free(a, 0) && !lines.is_free(b, 0) && lines.is_free(b, 1));
        assert!(lines.is_free(None, 0));
        assert_eq!(lines.next(a, 0), Some(2));
        assert_eq!(lines.next(a, 0), None);
        assert!(lines.is_free(a, 0) && !lines.is_idle());
        assert_eq!((lines.next(a, 1), lines.next(b, 0)), (None, None));
        assert!(lines.is_idle());
        for (payer, charge) in [(a, 30), (b, 10)] {
            lines.refund(payer, charge);
        }
        assert_eq!((lines.owners.len(), lines.backlog), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn everyone_finds_room_whatever_others_do() {
        // The bytes that each of so many tenants can have, all of whom take what they can, ten at a time.
        for (tenants, most) in [(1, 8000), (2, 4444), (10, 975), (50, 199)] {
            let mut lines = Lines::new(10_000);
            let names: Vec<_> = (0..tenants).map(|n| tenant(&n.to_string())).collect();
            for _ in 0..1000 {
                for name in names.iter().map(Some) {
                    if lines.turn(name, NOTHING, false) == Turn::Now {
                        lines.add(name, 0, name, 10, 0);
                    }
                }
            }
            let held: Vec<usize> = lines.owners.values().map(|state| state.backlog).collect();
            assert!(held.iter().all(|held| held.abs_diff(most) <= 20), "{tenants}: {held:?}");
            assert!(lines.has_room(0) || tenants > 10, "{tenants}");
            // Who comes last finds room as well.
            assert_eq!(lines.turn(Some(&tenant("new")), NOTHING, false), Turn::Now);
        }
        // What has no tenant has the whole bound, and one batch even beyond it.
        let mut lines = lines();
        for _ in 0..100 {
            assert_eq!(lines.turn(None, NOTHING, true), Turn::Now);
            lines.add(None, 0, None, 10, 0);
        }
        assert_eq!(lines.turn(None, NOTHING, true), Turn::Later);
        let a = &tenant("a");
        assert_eq!(lines.turn(Some(a), NOTHING, true), Turn::Now);
        lines.add(Some(a), 0, Some(a), 1, 0);
        assert_eq!(lines.turn(Some(a), NOTHING, true), Turn::Later);
    }

    #[tokio::test(start_paused = true)]
    async fn a_filled_share_is_half_emptied_first() {
        let (mut lines, name) = (lines(), tenant("a"));
        let a = Some(&name);
        while lines.turn(a, NOTHING, false) == Turn::Now {
            lines.add(a, 0, a, 10, 0);
        }
        let mut returned = 0;
        while lines.turn(a, NOTHING, false) == Turn::Later {
            lines.refund(a, 10);
            returned += 10;
        }
        // 800 held; with 666 held four times 334 is free, half of which is that much.
        assert!((130..=140).contains(&returned), "{returned}");
        // What is open counts.
        let open = OpenSize { owner: a, bytes: 300 };
        assert_eq!(lines.turn(a, open, false), Turn::Later);
    }

    #[tokio::test(start_paused = true)]
    async fn batches_gather_behind_requests_in_line() {
        let (mut lines, name, start) = (lines(), tenant("a"), Instant::now());
        let a = Some(&name);
        let after = |ms: u64| Turn::At(start + Duration::from_millis(ms));
        lines.gather(a, 10);
        lines.encoding(a, 10, true);
        lines.add(a, 0, a, 10, 0);
        assert_eq!(lines.turn(a, NOTHING, true), Turn::Now, "nothing waits behind what is being sent");
        let mut waits = Vec::new();
        for _ in 0..12 {
            lines.add(a, 0, a, 10, 0);
            waits.push(lines.turn(a, NOTHING, true));
        }
        assert_eq!(waits[..3], [after(100), after(200), after(300)]);
        assert_eq!(waits[9..], [after(1000); 3]);
        // Not when there is much, or when the time has come.
        assert_eq!(lines.turn(a, NOTHING, false), Turn::Now);
        lines.gather(a, 12 * WORTH);
        assert_eq!(lines.turn(a, NOTHING, true), Turn::Now);
        lines.encoding(a, 12 * WORTH, true);
        assert_eq!(lines.turn(a, NOTHING, true), after(1000));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(lines.turn(a, NOTHING, true), Turn::Now);
        // In vain, and again; then there is something for a line that is free.
        lines.encoding(a, 0, true);
        assert_eq!(lines.turn(a, NOTHING, true), after(2000));
        lines.encoding(a, 0, true);
        assert_eq!(lines.turn(a, NOTHING, true), after(3000));
        lines.encoding(a, 0, true);
        assert_eq!(lines.turn(a, NOTHING, true), after(5000));
        assert_eq!(lines.add(a, 1, a, 10, 7), Some(7));
        assert_eq!(lines.turn(a, NOTHING, true), after(2000));
    }
}
