//! Admission, the shards' lines, the books and the end.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::coder::{self, Coding, Watch};
use super::ticket::{Share, Shares};
use super::worker::{self, InFlight, Request};
use super::{ShardEncoder, ShardedConfig};
use crate::exporters::delivery::Sender;
use crate::exporters::delivery::queue::{Cost, Job, Offer, Queue};
use crate::exporters::delivery::shared::{Phase, Shared};
use crate::exporters::delivery::tenancy::Booking;
use crate::pdata::{Batch, Signal};
use crate::pipeline::{BuildContext, Consumer, Exporter, Leftover, RunContext, StartError, Verdict};
use crate::telemetry::ExporterItems;

/// Why something was given up that could have been sent.
pub(super) const ENDED: &str = "the agent is shutting down";
/// The same, when only a part of the agent has come to an unforeseen end.
pub(super) const INTERRUPTED: &str = "the agent was interrupted while it exported the request";

/// An exporter whose series keep their order: a sharding encoder and a sender with everything around them.
pub struct ShardedDelivery<E: ShardEncoder, S: Sender<E::Body>> {
    core: Arc<Core<E, S>>,
}

/// What the encoding task and the shards' tasks share. Locks are taken in this order: `coding`, `state`.
pub(super) struct Core<E: ShardEncoder, S: Sender<E::Body>> {
    pub shared: Shared,
    pub sender: S,
    /// See [`ShardedConfig::bisect`].
    pub bisect: usize,
    /// See [`ShardedConfig::backlog`].
    backlog: usize,
    /// Held by the encoding task while it works, never across a wait.
    coding: Mutex<Coding<E>>,
    state: Mutex<State<E::Body>>,
    /// Tells the encoding task that there may be something to do.
    pub wake: Notify,
}

pub(super) struct State<B> {
    queue: Queue,
    /// What is encoded next, oldest first.
    ready: VecDeque<Job>,
    lines: Vec<Line<B>>,
    /// Lines with a task.
    busy: usize,
    /// Bytes of closed requests, those being sent included.
    backlog: usize,
    /// Whether the encoding task lives.
    coder: bool,
    /// Whether a batch is being encoded, or an open request holds something.
    coding: bool,
    closed: bool,
    /// Whether nobody holds the exporter any more: the encoding task ends when there is nothing left to do.
    orphan: bool,
}

/// The requests of one shard.
struct Line<B> {
    /// Waiting for the one that is being sent.
    queued: VecDeque<Request<B>>,
    /// Whether a task sends; it takes what is queued.
    busy: bool,
}

/// What the encoding task does next.
pub(super) enum Work {
    Encode(Job),
    /// These shards have nothing to send and their open requests do.
    Close(Vec<usize>),
    Tick,
    /// Nothing, until woken or until then.
    Wait(Option<Instant>),
    End,
    /// End, and give up what is open.
    GiveUp,
}

/// How items are booked.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fate {
    Sent,
    Dropped(&'static str),
    /// The data is good: refused where somebody waits for it, else dropped for this reason.
    Undelivered(&'static str),
    /// Given up because the agent, or a part of it, ends.
    Unsent,
}

impl<E: ShardEncoder, S: Sender<E::Body>> ShardedDelivery<E, S> {
    /// Puts delivery around an encoder and a sender, for one signal. Opens nothing.
    pub fn new(cx: &BuildContext, signal: Signal, config: ShardedConfig, encoder: E, sender: S) -> Self {
        let ShardedConfig { queue, retry, timeout, backlog, bisect } = config;
        let shared = Shared::new(cx, signal, queue.as_ref(), retry, timeout);
        let line = || Line { queued: VecDeque::new(), busy: false };
        let state = State {
            queue: Queue::in_order(shared.limits),
            ready: VecDeque::new(),
            lines: (0..encoder.shards()).map(|_| line()).collect(),
            busy: 0,
            backlog: 0,
            coder: false,
            coding: false,
            closed: false,
            orphan: false,
        };
        let core = Core {
            shared,
            sender,
            bisect,
            backlog: backlog.max(1),
            coding: Mutex::new(Coding::new(encoder)),
            state: Mutex::new(state),
            wake: Notify::new(),
        };
        ShardedDelivery { core: Arc::new(core) }
    }

    /// Items taken and not yet sent, given up or refused.
    pub fn queued_items(&self) -> usize {
        self.core.shared.held()
    }

    /// The exporter's books.
    pub fn items(&self) -> &ExporterItems {
        &self.core.shared.items
    }
}

impl<E: ShardEncoder, S: Sender<E::Body>> Drop for ShardedDelivery<E, S> {
    fn drop(&mut self) {
        self.core.lock().orphan = true;
        self.core.wake.notify_one();
    }
}

#[async_trait]
impl<E: ShardEncoder, S: Sender<E::Body>> Exporter for ShardedDelivery<E, S> {
    async fn start(&self, cx: &RunContext) -> Result<(), StartError> {
        self.core.sender.start(cx)?;
        self.core.coding().keep_apart(self.core.sender.reads());
        self.core.shared.start(cx);
        let state = self.core.lock();
        self.core.rouse(state);
        Ok(())
    }

    async fn drain(&self, deadline: std::time::Instant) -> Leftover {
        let core = &self.core;
        let deadline = Instant::from_std(deadline);
        core.shared.phase.send_replace(Phase::Draining(deadline));
        core.wake.notify_one();
        core.shared.drain(deadline, || core.lock().is_idle(), || core.close()).await
    }
}

impl<E: ShardEncoder, S: Sender<E::Body>> Consumer for ShardedDelivery<E, S> {
    fn consume(&self, batch: Batch) {
        let core = &self.core;
        core.shared.hold(&core.shared.tenancies.of(batch.tenant.as_ref()), batch.items);
        let mut state = core.lock();
        if state.closed {
            drop(state);
            return core.shared.abandon(batch);
        }
        match state.queue.offer(batch, core.shared.memory()) {
            Offer::Taken(job, due) => {
                state.ready.push_back(job);
                core.shared.gauges.size(state.queue.used());
                core.rouse(state);
                due.resolve(Verdict::Accepted);
            }
            Offer::Parked => {}
            Offer::Full(batch) => {
                drop(state);
                core.shared.refuse_full(batch);
            }
            Offer::OverShare(batch) => {
                drop(state);
                core.shared.refuse_over_share(batch);
            }
            Offer::TooLarge(batch) => {
                drop(state);
                core.shared.refuse_too_large(batch);
            }
        }
    }

    fn holds_acks(&self) -> bool {
        self.core.shared.limits.is_none_or(|l| l.wait_for_result) || self.core.is_strained()
    }
}

impl<B> State<B> {
    fn is_idle(&self) -> bool {
        self.busy == 0 && !self.coding && self.ready.is_empty()
    }
}

impl<E: ShardEncoder, S: Sender<E::Body>> Core<E, S> {
    fn lock(&self) -> MutexGuard<'_, State<E::Body>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The encoder and what is open. Free for as long as the encoding task does not work.
    pub fn coding(&self) -> MutexGuard<'_, Coding<E>> {
        self.coding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the next batch of some lane would find no room.
    pub fn is_strained(&self) -> bool {
        self.lock().queue.is_strained(self.shared.memory())
    }

    /// Has the encoding task look for work; starts it if there is none.
    fn rouse(self: &Arc<Self>, mut state: MutexGuard<'_, State<E::Body>>) {
        if let Some((supervisor, runtime)) = self.shared.run.get()
            && !state.coder
            && !state.closed
        {
            state.coder = true;
            drop(state);
            let _runtime = runtime.enter();
            supervisor.spawn("exporter encoder", coder::run(Watch::new(self.clone())));
        } else {
            drop(state);
            self.wake.notify_one();
        }
    }

    /// What the encoding task, which has `open` requests of these shards and this many bytes in them, does next.
    pub fn next_work(&self, open: &[usize], size: usize, tick: &mut Instant) -> Work {
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.closed {
            return Work::GiveUp;
        }
        let is_free = |shard: &usize| state.lines.get(*shard).is_some_and(|line| !line.busy);
        let free: Vec<usize> = open.iter().copied().filter(is_free).collect();
        if !free.is_empty() {
            return Work::Close(free);
        }
        let running = *self.shared.phase.borrow() == Phase::Running && !state.orphan;
        let room = state.backlog + size < self.backlog;
        let now = Instant::now();
        if running && now >= *tick {
            *tick = now + coder::TICK;
            if room {
                return Work::Tick;
            }
        }
        if room && let Some(job) = state.ready.pop_front() {
            state.coding = true;
            return Work::Encode(job);
        }
        if !running && state.ready.is_empty() && open.is_empty() {
            state.coder = false;
            return Work::End;
        }
        Work::Wait(running.then_some(*tick))
    }

    /// Puts closed requests in line and starts the shards that were idle. `open`: whether more is to be closed.
    pub fn hand_over(self: &Arc<Self>, requests: &mut Vec<(usize, Request<E::Body>)>, open: bool) {
        let mut guard = self.lock();
        if guard.closed {
            drop(guard);
            // Before anybody can see that nothing is left to do.
            for (_, request) in requests.drain(..) {
                self.give_up(request.shares, ENDED);
            }
            guard = self.lock();
        }
        let state = &mut *guard;
        let mut start = Vec::new();
        for (shard, request) in requests.drain(..) {
            let Some(line) = state.lines.get_mut(shard) else { continue };
            state.backlog += request.charge;
            if line.busy {
                line.queued.push_back(request);
            } else {
                line.busy = true;
                state.busy += 1;
                start.push((shard, request));
            }
        }
        state.coding = open;
        self.tell_idle(state);
        drop(guard);
        for (shard, request) in start {
            self.send(shard, request);
        }
    }

    fn tell_idle(&self, state: &State<E::Body>) {
        if state.is_idle() {
            self.shared.idle.notify_waiters();
        }
    }

    fn send(self: &Arc<Self>, shard: usize, request: Request<E::Body>) {
        // Made before the task, so that a task that never runs books it too.
        let flight = InFlight::new(self.clone(), shard, request);
        if let Some((supervisor, runtime)) = self.shared.run.get() {
            let _runtime = runtime.enter();
            supervisor.spawn("exporter shard", worker::work(flight));
        }
    }

    /// A shard has finished a request: its next one, or `None` when its task must end.
    pub fn finished(self: &Arc<Self>, shard: usize, charge: usize) -> Option<Request<E::Body>> {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.backlog = state.backlog.saturating_sub(charge);
        let line = state.lines.get_mut(shard)?;
        let next = line.queued.pop_front();
        if next.is_none() {
            line.busy = false;
            state.busy = state.busy.saturating_sub(1);
            self.tell_idle(state);
        }
        drop(guard);
        self.wake.notify_one();
        next
    }

    /// A shard's task was torn down in the middle of a request.
    pub fn torn_down(self: &Arc<Self>, shard: usize, charge: usize) {
        if let Some(next) = self.finished(shard, charge) {
            self.send(shard, next);
        }
    }

    /// The encoding task has ended; another one carries on unless nothing can be sent any more.
    pub fn coder_ended(self: &Arc<Self>, open: bool) {
        let mut state = self.lock();
        state.coder = false;
        state.coding = open;
        self.tell_idle(&state);
        self.rouse(state);
    }

    /// Books items of one batch, and pays what falls due with them.
    pub fn book(self: &Arc<Self>, share: &Share, fate: Fate, verdict: Option<&Verdict>) {
        let (items, due) = share.ticket.take(share.items, verdict);
        let (shared, tenancy) = (&self.shared, &share.ticket.tenancy);
        match fate {
            Fate::Sent => shared.settle(tenancy, items, Booking::Sent),
            Fate::Dropped(reason) => shared.settle(tenancy, items, Booking::Dropped(reason)),
            Fate::Undelivered(reason) => {
                shared.settle_undelivered(tenancy, items, share.ticket.waited_for, reason);
            }
            Fate::Unsent => shared.settle_unsent(tenancy, items, share.ticket.waited_for),
        }
        if let Some(due) = due {
            let cost = due.pay();
            self.make_room(&cost);
        }
    }

    /// Gives up what is not sent.
    pub fn give_up(self: &Arc<Self>, shares: Shares, why: &str) {
        let verdict = Verdict::retry(why);
        for share in &shares {
            self.book(share, Fate::Unsent, Some(&verdict));
        }
    }

    /// Returns a finished batch's room and lets in what was parked.
    fn make_room(self: &Arc<Self>, cost: &Cost) {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.queue.release(cost);
        let mut accepted = Vec::new();
        let memory = self.shared.memory();
        while let Some((job, acks)) = state.queue.promote(memory) {
            accepted.push(acks);
            state.ready.push_back(job);
        }
        self.shared.gauges.size(state.queue.used());
        if accepted.is_empty() {
            return;
        }
        self.rouse(guard);
        for acks in accepted {
            acks.resolve(Verdict::Accepted);
        }
    }

    /// Ends everything at once: what waits is given up, tasks are told.
    pub fn close(self: &Arc<Self>) {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.closed = true;
        let waiting = std::mem::take(&mut state.ready);
        let parked = state.queue.abandon();
        for job in &waiting {
            state.queue.release(&job.cost);
        }
        self.shared.gauges.size(state.queue.used());
        let queued: Vec<Request<E::Body>> =
            state.lines.iter_mut().flat_map(|line| std::mem::take(&mut line.queued)).collect();
        let charge: usize = queued.iter().map(|request| request.charge).sum();
        state.backlog = state.backlog.saturating_sub(charge);
        drop(guard);
        self.shared.phase.send_replace(Phase::Closed);
        self.wake.notify_one();
        for request in queued {
            self.give_up(request.shares, ENDED);
        }
        for batch in waiting.into_iter().map(|job| job.batch).chain(parked) {
            self.shared.abandon(batch);
        }
    }
}
