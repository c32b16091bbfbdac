//! The memory queue: what it takes, what that costs, who is told when.
//!
//! Plain data behind the engine's lock: no clock, no task, no metric. Acknowledgements that become due are handed
//! back, to be resolved outside the lock.
//!
//! `queue_size` bounds all batches together. A batch that has a tenant must fit its lane's share, too:
//! * [`ALPHA`] times what is free in the queue now. One tenant alone can fill four fifths, two can fill four ninths
//!   each, ten about a tenth each, and there is room for one more, as long as shares are several batches;
//! * the tenant's `queue_share` of the whole queue;
//! * in bytes, as much as is free in the process-wide ledger now (`memory`): a destination that throttles a tenant
//!   must not cost all others their memory.
//!
//! A lane that holds nothing may take one batch of any size for which the queue has room. What nobody waits for was
//! acknowledged already and is always taken; [`Queue::is_strained`] has stages before it stop acknowledging early,
//! so that what is taken beyond a share is no more than one batch at a time.

use std::collections::HashMap;

use super::lanes::{LaneKey, Lanes};
use super::{QueueConfig, Sizer};
use crate::pdata::Batch;
use crate::pipeline::Acks;

/// How many times what is free a lane may hold (the dynamic threshold of Choudhury and Hahne).
const ALPHA: usize = 4;

/// What a batch takes up in the queue until it is finished.
#[derive(Debug, Default)]
pub(super) struct Cost {
    /// Units of the queue's sizer.
    units: usize,
    bytes: usize,
    /// Whose share it is part of; `None` without a tenant, or a queue.
    lane: Option<LaneKey>,
}

/// A batch that was taken, with what it takes up in the queue.
#[derive(Debug)]
pub(super) struct Job {
    pub batch: Batch,
    /// Returned when the batch is finished.
    pub cost: Cost,
}

/// The bounds of a queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub capacity: usize,
    pub sizer: Sizer,
    pub consumers: usize,
    /// Acknowledge with the outcome instead of at once.
    pub wait_for_result: bool,
    /// Park what finds no room instead of refusing it.
    pub block: bool,
}

/// What became of an offer.
#[derive(Debug)]
pub(super) enum Offer {
    /// Taken; these acknowledgements are due.
    Taken(Job, Acks),
    /// Waits for room; nobody is told anything yet.
    Parked,
    /// No room.
    Full(Batch),
    /// The tenant has its share of the room.
    OverShare(Batch),
    /// Larger than the whole queue.
    TooLarge(Batch),
}

/// Occupancy and admission.
#[derive(Debug)]
pub(super) struct Queue {
    /// `None`: no queue; everything is taken and acknowledged with its outcome.
    limits: Option<Limits>,
    /// Whether nothing may overtake what its lane has parked, not even what is taken without room for it.
    in_order: bool,
    parked: Lanes<Batch>,
    room: Room,
}

/// Who has taken how much.
#[derive(Debug, Default)]
struct Room {
    used: usize,
    /// Lanes of tenants that hold anything.
    shares: HashMap<LaneKey, Share>,
}

/// What one lane holds.
#[derive(Debug, Default)]
struct Share {
    units: usize,
    bytes: usize,
    /// Bytes that are parked.
    parked: usize,
}

/// What there is too little of.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Lack {
    Room,
    Share,
    Memory,
}

impl Cost {
    /// Adds what another batch of the same lane takes up.
    pub fn add(&mut self, other: Cost) {
        self.units += other.units;
        self.bytes += other.bytes;
    }

    /// Takes out the part of a piece that has `part` of `whole` items, rounded down.
    pub fn split(&mut self, part: usize, whole: usize) -> Cost {
        let of = |total: usize| {
            let share = (total as u128 * part as u128 / whole.max(1) as u128) as usize;
            share.min(total)
        };
        let (units, bytes) = (of(self.units), of(self.bytes));
        self.units -= units;
        self.bytes -= bytes;
        Cost { units, bytes, lane: self.lane.clone() }
    }
}

impl Job {
    /// The lane in which it waits, and what it takes of the lane's turn.
    pub fn lane(&self) -> (LaneKey, usize) {
        (LaneKey::of(&self.batch), self.batch.rope.len())
    }
}

impl Limits {
    pub fn new(config: &QueueConfig) -> Self {
        let size = |n: i64| usize::try_from(n).unwrap_or(1).max(1);
        Limits {
            capacity: size(config.queue_size),
            sizer: config.sizer,
            consumers: size(config.num_consumers),
            wait_for_result: config.wait_for_result,
            block: config.block_on_overflow,
        }
    }

    fn units(&self, batch: &Batch) -> usize {
        match self.sizer {
            Sizer::Requests => 1,
            Sizer::Items => batch.items,
            Sizer::Bytes => batch.rope.len(),
        }
    }

    /// The most units a lane may hold while so many are in use.
    fn share(&self, key: &LaneKey, used: usize) -> usize {
        let part = key.tenant.as_ref().map_or(1.0, |tenant| tenant.queue_share());
        let fixed = (self.capacity as f64 * part) as usize;
        fixed.min(self.capacity.saturating_sub(used).saturating_mul(ALPHA))
    }
}

impl Room {
    /// What there is too little of for this batch, if anything.
    fn lack(&self, limits: &Limits, key: &LaneKey, batch: &Batch, memory: usize) -> Option<Lack> {
        let units = limits.units(batch);
        if self.used + units > limits.capacity {
            return Some(Lack::Room);
        }
        // A lane that holds nothing has no entry.
        let share = self.shares.get(key).filter(|share| !share.is_empty())?;
        if share.units + units > limits.share(key, self.used) {
            return Some(Lack::Share);
        }
        (share.bytes + batch.rope.len() > memory).then_some(Lack::Memory)
    }

    /// Whether this lane holds all that it may.
    fn is_at_share(&self, limits: &Limits, key: &LaneKey, share: &Share, memory: usize) -> bool {
        !share.is_empty() && (share.units >= limits.share(key, self.used) || share.bytes >= memory)
    }

    /// Changes what a lane holds; forgets a lane that holds nothing.
    fn change(&mut self, key: &LaneKey, change: impl FnOnce(&mut Share)) {
        let share = self.shares.entry(key.clone()).or_default();
        change(share);
        if share.is_empty() && share.parked == 0 {
            self.shares.remove(key);
        }
    }
}

impl Share {
    fn is_empty(&self) -> bool {
        self.units == 0 && self.bytes == 0
    }
}

impl Queue {
    pub fn new(limits: Option<Limits>) -> Self {
        Queue { limits, in_order: false, parked: Lanes::default(), room: Room::default() }
    }

    /// The same, with everything of a lane taken in the order in which it was offered.
    pub fn in_order(limits: Option<Limits>) -> Self {
        Queue { in_order: true, ..Queue::new(limits) }
    }

    /// Units in use: waiting and being sent.
    pub fn used(&self) -> usize {
        self.room.used
    }

    /// Whether some next offer would find no room: the queue is full, or some lane has its share.
    pub fn is_strained(&self, memory: usize) -> bool {
        self.limits.as_ref().is_some_and(|limits| {
            self.room.used >= limits.capacity
                || !self.parked.is_empty()
                || self
                    .room
                    .shares
                    .iter()
                    .any(|(key, share)| self.room.is_at_share(limits, key, share, memory))
        })
    }

    /// Whether the next offer of this lane would find no room.
    pub fn is_full_for(&self, key: &LaneKey, memory: usize) -> bool {
        self.limits.as_ref().is_some_and(|limits| {
            self.room.used >= limits.capacity
                || self.parked.holds(key)
                || self
                    .room
                    .shares
                    .get(key)
                    .is_some_and(|share| self.room.is_at_share(limits, key, share, memory))
        })
    }

    /// Takes, parks or hands back a batch. One that nobody waits for is always taken: it was acknowledged
    /// already, so that a refusal would be a loss; the byte ledger bounds it. `memory`: bytes free in the ledger.
    pub fn offer(&mut self, batch: Batch, memory: usize) -> Offer {
        let Some(limits) = self.limits else {
            return Offer::Taken(Job { batch, cost: Cost::default() }, Acks::none());
        };
        let waited_for = !batch.acks.settled();
        if waited_for && limits.units(&batch) > limits.capacity {
            return Offer::TooLarge(batch);
        }
        let key = LaneKey::of(&batch);
        // What its lane has parked goes first.
        let behind = self.parked.holds(&key) && (waited_for || self.in_order);
        let lack = if waited_for { self.room.lack(&limits, &key, &batch, memory) } else { None };
        if !behind && lack.is_none() {
            let (job, acks) = self.take(&limits, key, batch);
            return Offer::Taken(job, acks);
        }
        if limits.block && (!waited_for || self.may_park(&key, &batch, memory)) {
            self.park(key, batch);
            return Offer::Parked;
        }
        match lack {
            Some(Lack::Room) => Offer::Full(batch),
            Some(Lack::Share | Lack::Memory) => Offer::OverShare(batch),
            // Behind others that wait for the one or the other.
            None if key.tenant.is_some() => Offer::OverShare(batch),
            None => Offer::Full(batch),
        }
    }

    /// Whether a tenant's parked batches leave others their memory.
    fn may_park(&self, key: &LaneKey, batch: &Batch, memory: usize) -> bool {
        let held = self.room.shares.get(key).map_or(0, |share| share.bytes + share.parked);
        key.tenant.is_none() || held == 0 || held + batch.rope.len() <= memory
    }

    fn park(&mut self, key: LaneKey, batch: Batch) {
        let bytes = batch.rope.len();
        if key.tenant.is_some() {
            self.room.change(&key, |share| share.parked += bytes);
        }
        self.parked.push(key, bytes, batch);
    }

    fn take(&mut self, limits: &Limits, key: LaneKey, mut batch: Batch) -> (Job, Acks) {
        let (units, bytes) = (limits.units(&batch), batch.rope.len());
        self.room.used += units;
        let lane = key.tenant.is_some().then_some(key);
        if let Some(key) = &lane {
            self.room.change(key, |share| {
                share.units += units;
                share.bytes += bytes;
            });
        }
        let due = if limits.wait_for_result { Acks::none() } else { std::mem::take(&mut batch.acks) };
        (Job { batch, cost: Cost { units, bytes, lane } }, due)
    }

    /// Returns what a finished batch has taken up.
    pub fn release(&mut self, cost: &Cost) {
        self.room.used = self.room.used.saturating_sub(cost.units);
        if let Some(key) = &cost.lane {
            self.room.change(key, |share| {
                share.units = share.units.saturating_sub(cost.units);
                share.bytes = share.bytes.saturating_sub(cost.bytes);
            });
        }
    }

    /// Takes the next parked batch for which there is room now.
    pub fn promote(&mut self, memory: usize) -> Option<(Job, Acks)> {
        let limits = self.limits?;
        let room = &self.room;
        let batch = self
            .parked
            .pop(|key, batch| batch.acks.settled() || room.lack(&limits, key, batch, memory).is_none())?;
        let key = LaneKey::of(&batch);
        if key.tenant.is_some() {
            let bytes = batch.rope.len();
            self.room.change(&key, |share| share.parked = share.parked.saturating_sub(bytes));
        }
        Some(self.take(&limits, key, batch))
    }

    /// Everything that is still parked.
    pub fn abandon(&mut self) -> Vec<Batch> {
        let parked = self.parked.take_all();
        self.room.shares.retain(|_, share| {
            share.parked = 0;
            !share.is_empty()
        });
        parked
    }
}

#[cfg(test)]
mod tests;
