//! What waits, by lane: one lane a tenant, one more for what is demoted. Plain data, no clock.
//!
//! Lanes take turns by bytes (deficit round robin): however much waits in one, another is served after at most one
//! [`QUANTUM`], or one item where that is larger, of each lane that waits. Demoted lanes are served when no other
//! lane has anything that may start. Inside a lane order is kept.
//!
//! Costs: a push or pop is a hash of the lane's name and a few steps, without an allocation in the steady state; a
//! pop looks in vain once at each lane that may not start, and at none that sleeps. A lane exists for as long as it
//! holds anything.

use std::collections::{HashMap, VecDeque};

use crate::pdata::{Batch, Tenant};

/// What a lane may take in one turn, in bytes, where nothing else is said.
const QUANTUM: usize = 64 << 10;
/// How many empty lanes keep their memory for the next one, and room for how many items each.
const SPARE: usize = 16;

/// Which lane something waits in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct LaneKey {
    /// Whose it is.
    pub tenant: Option<Tenant>,
    /// Whether it waits behind all others.
    pub demoted: bool,
}

/// Whether the first item of a lane may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chance {
    Now,
    NotNow,
    /// Not before the tenant is [woken](Lanes::wake): nobody asks until then.
    Asleep,
}

/// Lanes of things that wait.
#[derive(Debug)]
pub(super) struct Lanes<T> {
    lanes: Vec<Lane<T>>,
    /// Places in `lanes` that hold nothing.
    free: Vec<usize>,
    /// Where the lane of each key is; only lanes that hold something. The one that most agents have alone, without a
    /// tenant and not demoted, is found without a hash.
    index: HashMap<LaneKey, usize>,
    plain: Option<usize>,
    /// Whose turn it is, first those that are not demoted, then those that are; none that sleeps.
    turns: [VecDeque<usize>; 2],
    len: usize,
    /// What a lane may take in one turn, in bytes.
    quantum: usize,
}

#[derive(Debug)]
struct Lane<T> {
    key: LaneKey,
    items: VecDeque<(usize, T)>,
    /// Bytes it may take in this turn.
    deficit: usize,
    /// Whether it has had what this turn brings.
    granted: bool,
    asleep: bool,
}

impl LaneKey {
    /// The lane of a batch.
    pub fn of(batch: &Batch) -> Self {
        LaneKey { tenant: batch.tenant.clone(), demoted: batch.demoted }
    }

    fn is_plain(&self) -> bool {
        self.tenant.is_none() && !self.demoted
    }
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Lanes::with_quantum(QUANTUM)
    }
}

impl<T> Lanes<T> {
    /// Lanes that may take so many bytes in one turn.
    pub fn with_quantum(quantum: usize) -> Self {
        Lanes {
            lanes: Vec::new(),
            free: Vec::new(),
            index: HashMap::new(),
            plain: None,
            turns: [VecDeque::new(), VecDeque::new()],
            len: 0,
            quantum,
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether something waits in this lane.
    pub fn holds(&self, key: &LaneKey) -> bool {
        self.len > 0 && self.find(key).is_some()
    }

    fn find(&self, key: &LaneKey) -> Option<usize> {
        if key.is_plain() { self.plain } else { self.index.get(key).copied() }
    }

    /// Puts something last in its lane; `bytes` is what it takes of the lane's turn.
    pub fn push(&mut self, key: LaneKey, bytes: usize, item: T) {
        self.len += 1;
        if let Some(lane) = self.find(&key).and_then(|at| self.lanes.get_mut(at)) {
            lane.items.push_back((bytes, item));
            return;
        }
        let at = self.free.pop().unwrap_or(self.lanes.len());
        if let Some(turns) = self.turns.get_mut(usize::from(key.demoted)) {
            turns.push_back(at);
        }
        if key.is_plain() {
            self.plain = Some(at);
        } else {
            self.index.insert(key.clone(), at);
        }
        match self.lanes.get_mut(at) {
            Some(lane) => {
                (lane.key, lane.deficit, lane.granted, lane.asleep) = (key, 0, false, false);
                lane.items.push_back((bytes, item));
            }
            None => {
                let items = VecDeque::from([(bytes, item)]);
                self.lanes.push(Lane { key, items, deficit: 0, granted: false, asleep: false });
            }
        }
    }

    /// Takes what is next of the lanes whose first item may start, as `may_start` says. It is asked several times.
    pub fn pop(&mut self, mut may_start: impl FnMut(&LaneKey, &T) -> bool) -> Option<T> {
        self.pop_or_sleep(|key, item| if may_start(key, item) { Chance::Now } else { Chance::NotNow })
    }

    /// The same, for lanes of which it can be said that they will not start until something happens.
    pub fn pop_or_sleep(&mut self, mut chance: impl FnMut(&LaneKey, &T) -> Chance) -> Option<T> {
        (0..self.turns.len()).find_map(|class| self.pop_of(class, &mut chance))
    }

    /// Something has happened to a tenant: its lanes are asked again.
    pub fn wake(&mut self, tenant: &Tenant) {
        for demoted in [false, true] {
            let key = LaneKey { tenant: Some(tenant.clone()), demoted };
            if let Some(at) = self.find(&key)
                && let Some(lane) = self.lanes.get_mut(at)
                && std::mem::take(&mut lane.asleep)
                && let Some(turns) = self.turns.get_mut(usize::from(demoted))
            {
                turns.push_back(at);
            }
        }
    }

    fn pop_of(&mut self, class: usize, chance: &mut impl FnMut(&LaneKey, &T) -> Chance) -> Option<T> {
        if self.turns.get(class)?.is_empty() {
            return None;
        }
        let rounds = match self.round(class, chance) {
            Ok(item) => return Some(item),
            Err(rounds) => rounds?,
        };
        // Nobody's turns have added up to the bytes of its first item: all rounds until somebody's have, but the last.
        let more = self.quantum.saturating_mul(rounds.saturating_sub(1));
        for &at in self.turns.get(class)? {
            if let Some(lane) = self.lanes.get_mut(at)
                && lane.items.front().is_some_and(|(_, item)| chance(&lane.key, item) == Chance::Now)
            {
                lane.deficit = lane.deficit.saturating_add(more);
            }
        }
        self.round(class, chance).ok()
    }

    /// Gives each lane its turn until one has saved enough for its first item. Otherwise says how many rounds more
    /// it takes, unless nothing may start at all.
    fn round(
        &mut self,
        class: usize,
        chance: &mut impl FnMut(&LaneKey, &T) -> Chance,
    ) -> Result<T, Option<usize>> {
        let mut least: Option<usize> = None;
        for _ in 0..self.turns.get(class).map_or(0, VecDeque::len) {
            let Some(turns) = self.turns.get_mut(class) else { break };
            let Some(lane) = turns.front().and_then(|&at| self.lanes.get_mut(at)) else { break };
            let Some((bytes, item)) = lane.items.front() else { break };
            match chance(&lane.key, item) {
                Chance::Now => {
                    if !lane.granted {
                        lane.granted = true;
                        lane.deficit = lane.deficit.saturating_add(self.quantum);
                    }
                    if let Some(left) = lane.deficit.checked_sub(*bytes) {
                        lane.deficit = left;
                        return self.take_first(class).ok_or(None);
                    }
                    let rounds = (bytes - lane.deficit).div_ceil(self.quantum.max(1));
                    least = Some(least.map_or(rounds, |least| least.min(rounds)));
                    lane.granted = false;
                    turns.rotate_left(1);
                }
                Chance::NotNow => {
                    lane.granted = false;
                    turns.rotate_left(1);
                }
                Chance::Asleep => {
                    (lane.granted, lane.asleep) = (false, true);
                    turns.pop_front();
                }
            }
        }
        Err(least)
    }

    /// Takes the first item of the lane whose turn it is.
    fn take_first(&mut self, class: usize) -> Option<T> {
        let turns = self.turns.get_mut(class)?;
        let at = *turns.front()?;
        let lane = self.lanes.get_mut(at)?;
        let (_, item) = lane.items.pop_front()?;
        self.len -= 1;
        if lane.items.is_empty() {
            // What it has saved is forfeit: who has nothing to send saves nothing.
            turns.pop_front();
            if self.free.len() < SPARE {
                lane.items.shrink_to(SPARE);
            } else {
                lane.items = VecDeque::new();
            }
            let key = std::mem::take(&mut lane.key);
            if key.is_plain() {
                self.plain = None;
            } else {
                self.index.remove(&key);
            }
            self.free.push(at);
            if self.len == 0 {
                self.forget();
            }
        }
        Some(item)
    }

    /// Nothing waits: what many lanes have needed is given back.
    fn forget(&mut self) {
        self.lanes.truncate(1);
        self.free.clear();
        self.free.extend(0..self.lanes.len());
        self.free.shrink_to(SPARE);
        self.index.shrink_to(SPARE);
        self.turns.iter_mut().for_each(|turns| turns.shrink_to(SPARE));
    }

    /// Takes everything, lane by lane.
    pub fn take_all(&mut self) -> Vec<T> {
        let all = std::mem::replace(self, Lanes::with_quantum(self.quantum));
        all.lanes.into_iter().flat_map(|lane| lane.items).map(|(_, item)| item).collect()
    }
}

#[cfg(test)]
mod tests;
