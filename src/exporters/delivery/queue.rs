//! The memory queue: what waits, what it costs, who is told when.
//!
//! Plain data behind the engine's lock: no clock, no task, no metric. Acknowledgements that become due are handed
//! back, to be resolved outside the lock.

use std::collections::VecDeque;

use super::{QueueConfig, Sizer};
use crate::pdata::Batch;
use crate::pipeline::Acks;

/// A batch that was taken, with what it takes up in the queue.
#[derive(Debug)]
pub(super) struct Job {
    pub batch: Batch,
    /// Units of the queue's sizer, returned when the batch is finished.
    pub cost: usize,
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

    fn cost(&self, batch: &Batch) -> usize {
        match self.sizer {
            Sizer::Requests => 1,
            Sizer::Items => batch.items,
            Sizer::Bytes => batch.rope.len(),
        }
    }
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
    /// Larger than the whole queue.
    TooLarge(Batch),
}

/// Occupancy and order.
#[derive(Debug)]
pub(super) struct Queue {
    /// `None`: no queue; everything is taken and acknowledged with its outcome.
    limits: Option<Limits>,
    /// Whether nothing may overtake what is parked, not even what is taken without room for it.
    in_order: bool,
    parked: VecDeque<Batch>,
    used: usize,
}

impl Queue {
    pub fn new(limits: Option<Limits>) -> Self {
        Queue { limits, in_order: false, parked: VecDeque::new(), used: 0 }
    }

    /// The same, with everything taken in the order in which it was offered.
    pub fn in_order(limits: Option<Limits>) -> Self {
        Queue { in_order: true, ..Queue::new(limits) }
    }

    /// Units in use: waiting and being sent.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Whether the next offer would find no room.
    pub fn is_full(&self) -> bool {
        self.limits.is_some_and(|l| self.used >= l.capacity || !self.parked.is_empty())
    }

    /// Takes, parks or hands back a batch. One that nobody waits for is always taken: it was acknowledged
    /// already, so that a refusal would be a loss; the byte ledger bounds it.
    pub fn offer(&mut self, batch: Batch) -> Offer {
        let Some(limits) = self.limits else { return Offer::Taken(Job { batch, cost: 0 }, Acks::none()) };
        let cost = limits.cost(&batch);
        let waited_for = !batch.acks.settled();
        if waited_for && cost > limits.capacity {
            return Offer::TooLarge(batch);
        }
        // What is parked goes first.
        let behind = !self.parked.is_empty() && (waited_for || self.in_order);
        if behind || waited_for && self.used + cost > limits.capacity {
            if !limits.block {
                return Offer::Full(batch);
            }
            self.parked.push_back(batch);
            return Offer::Parked;
        }
        let (job, acks) = self.take(limits, batch, cost);
        Offer::Taken(job, acks)
    }

    fn take(&mut self, limits: Limits, mut batch: Batch, cost: usize) -> (Job, Acks) {
        self.used += cost;
        let due = if limits.wait_for_result { Acks::none() } else { std::mem::take(&mut batch.acks) };
        (Job { batch, cost }, due)
    }

    /// Returns the units of a finished batch.
    pub fn release(&mut self, cost: usize) {
        self.used = self.used.saturating_sub(cost);
    }

    /// Takes the next parked batch, if there is room for it now.
    pub fn promote(&mut self) -> Option<(Job, Acks)> {
        let limits = self.limits?;
        let first = self.parked.front()?;
        let cost = limits.cost(first);
        if self.used + cost > limits.capacity && !first.acks.settled() {
            return None;
        }
        let batch = self.parked.pop_front()?;
        Some(self.take(limits, batch, cost))
    }

    /// Everything that is still parked.
    pub fn abandon(&mut self) -> VecDeque<Batch> {
        std::mem::take(&mut self.parked)
    }
}
