//! Admission, the shards' lines, the books and the end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::coder::{self, Coding, OpenRequests, Watch};
use super::lines::{Lines, OpenSize, Turn, WORTH};
use super::ticket::{Share, Shares};
use super::worker::{self, InFlight, Request, Start};
use super::{ShardEncoder, ShardedConfig};
use crate::exporters::delivery::Sender;
use crate::exporters::delivery::lanes::{LaneKey, Lanes};
use crate::exporters::delivery::queue::{Cost, Job, Offer, Queue};
use crate::exporters::delivery::shared::{Phase, Shared};
use crate::exporters::delivery::slots::{Seat, Slots};
use crate::exporters::delivery::tenancy::Booking;
use crate::pdata::{Batch, Signal, Tenant};
use crate::pipeline::{BuildContext, Consumer, Exporter, Leftover, RunContext, StartError, Verdict};
use crate::telemetry::ExporterItems;

/// Why something was given up that could have been sent.
pub(super) const ENDED: &str = "the agent is shutting down";
/// The same, when only a part of the agent has come to an unforeseen end.
pub(super) const INTERRUPTED: &str = "the agent was interrupted while it exported the request";

/// What a tenant may have encoded in one turn, in bytes: several times what makes requests of a fair size, and little
/// enough not to keep others waiting.
const QUANTUM: usize = 4 * WORTH;
/// How many requests are sent at the same time at most, all tenants together: so many for each shard, and at least.
const PLACES: usize = 4;
const LEAST_PLACES: usize = 8;

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
    /// Held by the encoding task while it works, never across a wait.
    coding: Mutex<Coding<E>>,
    state: Mutex<State<E::Body>>,
    /// Tells the encoding task that there may be something to do.
    pub wake: Notify,
}

pub(super) struct State<B> {
    queue: Queue,
    /// What is not encoded yet.
    ready: Lanes<Job>,
    lines: Lines<Request<B>>,
    /// The places of what is being sent.
    slots: Slots,
    /// Whether the encoding task lives.
    coder: bool,
    /// Whether a batch is being encoded, or an open request holds something.
    coding: bool,
    closed: bool,
    /// Whether nobody holds the exporter any more: the encoding task ends when there is nothing left to do.
    orphan: bool,
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
        let state = State {
            queue: Queue::in_order(shared.limits),
            ready: Lanes::with_quantum(QUANTUM),
            lines: Lines::new(backlog),
            slots: Slots::new(encoder.shards().saturating_mul(PLACES).max(LEAST_PLACES)),
            coder: false,
            coding: false,
            closed: false,
            orphan: false,
        };
        let core = Core {
            shared,
            sender,
            bisect,
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
                state.line_up(job);
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
        self.lines.is_idle() && !self.coding && self.ready.is_empty()
    }

    fn line_up(&mut self, job: Job) {
        let (key, bytes) = job.lane();
        self.lines.gather(key.tenant.as_ref(), bytes);
        self.ready.push(key, bytes, job);
    }

    /// Gives a request that is next in its line a place, or a place in the line for one.
    fn start(&mut self, shard: usize, request: Request<B>) -> Start<B> {
        let seat = self.slots.start(&request.tenancy);
        if let Some(seat) = &seat {
            self.slots.rest(seat);
            self.slots.resume(seat);
        }
        Start { shard, request, seat }
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

    /// Whether the next batch of a tenant would find no room.
    pub fn is_full_for(&self, tenant: Option<&Tenant>) -> bool {
        let key = LaneKey { tenant: tenant.cloned(), demoted: false };
        self.lock().queue.is_full_for(&key, self.shared.memory())
    }

    /// A request gives its place back for a while.
    pub fn rest(&self, seat: &Seat) {
        let mut state = self.lock();
        state.slots.rest(seat);
        state.slots.grant();
    }

    /// A request that has rested wants its place again.
    pub fn resume(&self, seat: &Arc<Seat>) {
        let mut state = self.lock();
        state.slots.resume(seat);
        state.slots.grant();
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

    /// What the encoding task, which has these open requests, does next.
    pub fn next_work(&self, open: &OpenRequests<'_>, tick: &mut Instant) -> Work {
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.closed {
            return Work::GiveUp;
        }
        let free = |(shard, owner): &(usize, Option<Tenant>)| {
            state.lines.is_free(owner.as_ref(), *shard).then_some(*shard)
        };
        let free: Vec<usize> = open.shards.iter().filter_map(free).collect();
        if !free.is_empty() {
            return Work::Close(free);
        }
        let running = *self.shared.phase.borrow() == Phase::Running && !state.orphan;
        let now = Instant::now();
        if running && now >= *tick {
            *tick = now + coder::TICK;
            if state.lines.has_room(open.size) {
                return Work::Tick;
            }
        }
        let mut until = running.then_some(*tick);
        let State { ready, lines, .. } = state;
        let size = OpenSize { owner: open.lane.tenant.as_ref(), bytes: open.size };
        let job =
            ready.pop(|key, _| match lines.turn(key.tenant.as_ref(), size, running && key != open.lane) {
                Turn::Now => true,
                Turn::At(at) => {
                    until = until.map(|until| until.min(at));
                    false
                }
                Turn::Later => false,
            });
        if let Some(job) = job {
            let (key, bytes) = job.lane();
            lines.encoding(key.tenant.as_ref(), bytes, running && key != *open.lane);
            state.coding = true;
            return Work::Encode(job);
        }
        if !running && state.ready.is_empty() && open.shards.is_empty() {
            state.coder = false;
            return Work::End;
        }
        Work::Wait(until)
    }

    /// Puts closed requests in line and starts the lines that were idle. `lane` is whose batches are encoded, `open`
    /// whether more is to be closed.
    pub fn hand_over(
        self: &Arc<Self>,
        requests: &mut Vec<(usize, Request<E::Body>)>,
        lane: &LaneKey,
        open: bool,
    ) {
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
        let mut starts = Vec::new();
        for (shard, request) in requests.drain(..) {
            let (tenancy, payer, charge) = (request.tenancy.clone(), request.payer.clone(), request.charge);
            if let Some(request) = state.lines.add(tenancy.tenant(), shard, payer.as_ref(), charge, request) {
                starts.push(state.start(shard, request));
            }
        }
        state.lines.tidy(lane.tenant.as_ref());
        state.slots.grant();
        state.coding = open;
        self.tell_idle(state);
        drop(guard);
        for start in starts {
            self.send(start);
        }
    }

    fn tell_idle(&self, state: &State<E::Body>) {
        if state.is_idle() {
            self.shared.idle.notify_waiters();
        }
    }

    fn send(self: &Arc<Self>, start: Start<E::Body>) {
        // Made before the task, so that a task that never runs books it too.
        let flight = InFlight::new(self.clone(), start);
        if let Some((supervisor, runtime)) = self.shared.run.get() {
            let _runtime = runtime.enter();
            supervisor.spawn("exporter shard", worker::work(flight));
        }
    }

    /// A line has finished a request: its next one, or `None` when its task must end.
    pub fn finished(self: &Arc<Self>, done: &worker::Turn) -> Option<Start<E::Body>> {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.lines.refund(done.payer.as_ref(), done.charge);
        state.slots.finish(done.seat.as_ref());
        let next = state.lines.next(done.tenancy.tenant(), done.shard);
        let next = next.map(|request| state.start(done.shard, request));
        state.slots.grant();
        self.tell_idle(state);
        drop(guard);
        self.wake.notify_one();
        next
    }

    /// A line's task was torn down in the middle of a request.
    pub fn torn_down(self: &Arc<Self>, done: &worker::Turn) {
        if let Some(next) = self.finished(done) {
            self.send(next);
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
            state.line_up(job);
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
        let waiting = state.ready.take_all();
        let parked = state.queue.abandon();
        for job in &waiting {
            state.queue.release(&job.cost);
        }
        self.shared.gauges.size(state.queue.used());
        let queued = state.lines.abandon();
        for request in &queued {
            state.lines.refund(request.payer.as_ref(), request.charge);
        }
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
