//! The encoding task: one batch at a time into the shards' open requests, which are closed as shards become free.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::engine::{Core, ENDED, Fate, INTERRUPTED, Work};
use super::output::{Closed, Report};
use super::ticket::{Share, Shares, Ticket, total};
use super::worker::{Request, Whose};
use super::{ShardBody, ShardEncoder};
use crate::exporters::delivery::Sender;
use crate::exporters::delivery::lanes::LaneKey;
use crate::exporters::delivery::queue::Job;
use crate::net::auth::ClientKey;
use crate::pdata::Tenant;
use crate::pipeline::Verdict;

/// How often an encoder is told that time passes.
pub(super) const TICK: Duration = Duration::from_secs(1);

/// The encoder, and what the engine knows of its open requests.
pub(super) struct Coding<E: ShardEncoder> {
    encoder: E,
    report: Report<E::Body>,
    open: Vec<Open>,
    /// Closed and not yet in line, in order.
    closed: Vec<(usize, Request<E::Body>)>,
    /// The batch being encoded.
    current: Option<Current>,
    /// Of the batches in the open requests: their lane, and what the encoder keeps apart within it.
    lane: LaneKey,
    partition: u64,
    /// What requests take from clients, and what the clients of the open ones have there.
    reads: Vec<ClientKey>,
    read: Vec<Vec<String>>,
    /// Whether a call of the encoder panicked, so that nothing is known of its open requests.
    torn: bool,
    /// When to tick next.
    tick: Instant,
}

/// What the engine is told of the open requests.
pub(super) struct OpenRequests<'a> {
    /// The shards that have one, and whose it is.
    pub shards: Vec<(usize, Option<Tenant>)>,
    /// Bytes in all of them.
    pub size: usize,
    /// Whose batches are in them, or were in the last ones.
    pub lane: &'a LaneKey,
}

/// The open request of a shard.
#[derive(Default)]
struct Open {
    shares: Shares,
    /// Of the batch that opened it.
    whose: Option<Whose>,
    /// Whether there is anything in it; it need not be items.
    holds: bool,
}

struct Current {
    ticket: Arc<Ticket>,
    whose: Whose,
    /// Items of which the encoder has said nothing yet.
    left: usize,
}

/// Cleans up when the task does not end by itself: after a panic of the encoder, or at the runtime's end.
pub(super) struct Watch<E: ShardEncoder, S: Sender<E::Body>> {
    core: Arc<Core<E, S>>,
    /// Whether the encoder is being called, so that it must have panicked.
    working: bool,
    finished: bool,
}

impl<E: ShardEncoder> Coding<E> {
    pub fn new(encoder: E) -> Self {
        let shards = encoder.shards();
        Coding {
            encoder,
            report: Report::new(shards),
            open: (0..shards).map(|_| Open::default()).collect(),
            closed: Vec::new(),
            current: None,
            lane: LaneKey::default(),
            partition: 0,
            reads: Vec::new(),
            read: Vec::new(),
            torn: false,
            tick: Instant::now() + TICK,
        }
    }

    /// Keeps clients apart that differ in these.
    pub fn keep_apart(&mut self, keys: Vec<ClientKey>) {
        self.encoder.keep_apart(&keys);
        self.reads = keys;
    }

    fn open(&self) -> OpenRequests<'_> {
        let holds = |(shard, open): (usize, &Open)| {
            let whose = || open.whose.as_ref().and_then(|whose| whose.tenant.as_ref());
            open.holds.then(|| (shard, self.encoder.open_tenant(shard).or_else(whose).cloned()))
        };
        let shards: Vec<_> = self.open.iter().enumerate().filter_map(holds).collect();
        let size = shards.iter().map(|(shard, _)| self.encoder.open_size(*shard)).sum();
        OpenRequests { shards, size, lane: &self.lane }
    }

    fn close_all<S: Sender<E::Body>>(&mut self, core: &Arc<Core<E, S>>) {
        for shard in 0..self.open.len() {
            if self.open.get(shard).is_some_and(|open| open.holds) {
                self.close(core, shard);
            }
        }
    }

    fn is_open(&self) -> bool {
        self.open.iter().any(|open| open.holds)
    }

    fn encode<S: Sender<E::Body>>(&mut self, core: &Arc<Core<E, S>>, mut job: Job) {
        let tenancy = core.shared.tenancies.of(job.batch.tenant.as_ref());
        let ticket = Ticket::new(&mut job, tenancy);
        let batch = job.batch;
        let (lane, partition) = (LaneKey::of(&batch), self.encoder.partition(&batch.client));
        let of_client = |key: &ClientKey| key.values(&batch.client).map(str::to_owned).collect();
        let read: Vec<Vec<String>> = self.reads.iter().map(of_client).collect();
        if partition != self.partition || lane != self.lane || read != self.read {
            self.close_all(core);
            (self.lane, self.partition, self.read) = (lane, partition, read);
        }
        let whose = Whose { client: batch.client.clone(), tenant: batch.tenant.clone() };
        self.current = Some(Current { ticket, whose: whose.clone(), left: batch.items });
        self.encoder.encode(&batch, &mut self.report.output());
        self.account(core);
        // What an encoder adds of its own belongs to the batch, too, and does not wait for items.
        for (shard, open) in self.open.iter_mut().enumerate() {
            if !open.holds && self.encoder.open_size(shard) > 0 {
                open.holds = true;
                open.whose = Some(whose.clone());
            }
        }
        drop(batch);
        self.conclude(core, Fate::Dropped("unencodable"), None);
    }

    /// Takes the encoder's report: requests get their shares of the batch.
    fn account<S: Sender<E::Body>>(&mut self, core: &Arc<Core<E, S>>) {
        let mut closed = std::mem::take(&mut self.report.closed);
        for Closed { shard, body, items } in closed.drain(..) {
            let Open { shares, whose, .. } = match items {
                None => Open::default(),
                Some(items) => {
                    self.append(shard, items);
                    self.open.get_mut(shard).map(std::mem::take).unwrap_or_default()
                }
            };
            let whose = whose.or_else(|| self.current.as_ref().map(|current| current.whose.clone()));
            let whose = whose.unwrap_or_default();
            self.closed.push((shard, Request::new(body, shares, whose, &core.shared.tenancies)));
        }
        // Kept for its memory.
        self.report.closed = closed;
        for shard in 0..self.open.len() {
            let items = self.report.open.get_mut(shard).map(std::mem::take).unwrap_or_default();
            self.append(shard, items);
        }
        for (items, reason) in std::mem::take(&mut self.report.dropped) {
            if let Some(current) = &mut self.current {
                let items = items.min(current.left);
                current.left -= items;
                let share = Share { ticket: current.ticket.clone(), items };
                core.book(&share, Fate::Dropped(reason), None);
            }
        }
    }

    /// Items of the present batch are in the open request of a shard.
    fn append(&mut self, shard: usize, items: usize) {
        let (Some(current), Some(open)) = (&mut self.current, self.open.get_mut(shard)) else { return };
        // An encoder that counts more than the batch has must not upset the books.
        let items = items.min(current.left);
        current.left -= items;
        if items > 0 {
            open.holds = true;
            open.whose.get_or_insert_with(|| current.whose.clone());
            open.shares.push(Share { ticket: current.ticket.clone(), items });
        }
    }

    /// Books what the encoder did not account for, and is done with the batch.
    fn conclude<S: Sender<E::Body>>(
        &mut self,
        core: &Arc<Core<E, S>>,
        fate: Fate,
        verdict: Option<&Verdict>,
    ) {
        if let Some(Current { ticket, left, .. }) = self.current.take() {
            core.book(&Share { ticket, items: left }, fate, verdict);
        }
    }

    /// Closes a shard's open request.
    fn close<S: Sender<E::Body>>(&mut self, core: &Arc<Core<E, S>>, shard: usize) {
        let body = self.encoder.close(shard);
        let Open { shares, whose, .. } = self.open.get_mut(shard).map(std::mem::take).unwrap_or_default();
        match body {
            // After a panic only what is what it should be is sent.
            Some(body) if !self.torn || body.items() == total(&shares) => {
                let whose = whose.unwrap_or_default();
                self.closed.push((shard, Request::new(body, shares, whose, &core.shared.tenancies)));
            }
            _ if self.torn => core.give_up(shares, INTERRUPTED),
            _ => shares.iter().for_each(|share| core.book(share, Fate::Dropped("unencodable"), None)),
        }
    }

    /// Gives up what is open, without asking the encoder.
    fn give_up<S: Sender<E::Body>>(&mut self, core: &Arc<Core<E, S>>) {
        for (_, request) in self.closed.drain(..) {
            core.give_up(request.shares, ENDED);
        }
        for open in &mut self.open {
            core.give_up(std::mem::take(open).shares, ENDED);
        }
    }
}

impl<E: ShardEncoder, S: Sender<E::Body>> Watch<E, S> {
    pub fn new(core: Arc<Core<E, S>>) -> Self {
        Watch { core, working: false, finished: false }
    }
}

impl<E: ShardEncoder, S: Sender<E::Body>> Drop for Watch<E, S> {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let core = &self.core;
        let mut guard = core.coding();
        let coding = &mut *guard;
        coding.account(core);
        coding.conclude(core, Fate::Unsent, Some(&Verdict::retry(INTERRUPTED)));
        // An encoder that cannot even close its requests is not called again.
        if !self.working || coding.torn {
            core.close();
            coding.give_up(core);
        }
        coding.torn = true;
        let open = coding.is_open();
        core.hand_over(&mut coding.closed, &coding.lane, open);
        drop(guard);
        core.coder_ended(open);
    }
}

/// Encodes for as long as there is something to encode or the exporter runs.
pub(super) async fn run<E: ShardEncoder, S: Sender<E::Body>>(mut watch: Watch<E, S>) {
    let core = watch.core.clone();
    loop {
        watch.working = true;
        let work = step(&core);
        watch.working = false;
        match work {
            // Shards get their turn between two batches, on a single thread too.
            None => tokio::task::yield_now().await,
            Some(Work::Wait(Some(until))) => {
                tokio::select! {
                    () = core.wake.notified() => {}
                    () = tokio::time::sleep_until(until) => {}
                }
            }
            Some(Work::Wait(None)) => core.wake.notified().await,
            Some(_) => break,
        }
    }
    watch.finished = true;
}

/// Does one thing, if there is one to do; else says what is to be done instead.
fn step<E: ShardEncoder, S: Sender<E::Body>>(core: &Arc<Core<E, S>>) -> Option<Work> {
    let mut guard = core.coding();
    let coding = &mut *guard;
    if coding.torn {
        for shard in 0..coding.open.len() {
            coding.close(core, shard);
        }
        coding.torn = false;
    } else {
        let mut tick = coding.tick;
        let work = core.next_work(&coding.open(), &mut tick);
        coding.tick = tick;
        match work {
            Work::Encode(job) => coding.encode(core, job),
            Work::Close(shards) => shards.into_iter().for_each(|shard| coding.close(core, shard)),
            Work::Tick => {
                coding.encoder.tick(&mut coding.report.output());
                coding.account(core);
            }
            Work::GiveUp => {
                coding.give_up(core);
                core.coder_ended(false);
                return Some(Work::GiveUp);
            }
            other => return Some(other),
        }
    }
    let open = coding.is_open();
    core.hand_over(&mut coding.closed, &coding.lane, open);
    None
}
