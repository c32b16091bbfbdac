//! The engine around every exporter: takes batches, starts workers, keeps the books, drains.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::batcher::Batcher;
use super::lanes::{LaneKey, Lanes};
use super::queue::{Cost, Job, Offer, Queue};
use super::shared::{Phase, Shared};
use super::slots::{Seat, Slots};
use super::tenancy::Booking;
use super::{DeliveryConfig, Encoder, Sender};
use crate::pdata::{Batch, Signal};
use crate::pipeline::{Acks, BuildContext, Consumer, Exporter, Leftover, RunContext, StartError, Verdict};
use crate::telemetry::ExporterItems;

/// An exporter: an encoder and a sender with everything around them.
pub struct Delivery<E: Encoder, S: Sender<E::Body>> {
    core: Arc<Core<E, S>>,
}

/// What workers share.
pub(super) struct Core<E: Encoder, S: Sender<E::Body>> {
    pub shared: Shared,
    pub encoder: E,
    pub sender: S,
    state: Mutex<State>,
}

struct State {
    queue: Queue,
    /// What the next free worker takes.
    ready: Lanes<Job>,
    batcher: Option<Batcher>,
    /// Whether a task watches the batcher's deadline.
    timer: bool,
    slots: Slots,
    closed: bool,
}

/// A batch that may be sent now.
pub(super) struct Start {
    pub job: Job,
    /// Where it has a tenant.
    pub seat: Option<Arc<Seat>>,
}

/// Work that a change of state made startable, to be spawned outside the lock.
#[derive(Default)]
struct Startable {
    jobs: SmallVec<[Start; 1]>,
    timer: bool,
    due: Acks,
}

impl<E: Encoder, S: Sender<E::Body>> Delivery<E, S> {
    /// Puts delivery around an encoder and a sender, for one signal. Opens nothing.
    pub fn new(cx: &BuildContext, signal: Signal, config: DeliveryConfig, encoder: E, sender: S) -> Self {
        let DeliveryConfig { queue, retry, timeout } = config;
        let shared = Shared::new(cx, signal, queue.as_ref(), retry, timeout);
        let state = State {
            queue: Queue::new(shared.limits),
            ready: Lanes::default(),
            batcher: queue.as_ref().and_then(|q| q.batch.get()).map(Batcher::new),
            timer: false,
            slots: Slots::new(shared.limits.map_or(usize::MAX, |l| l.consumers)),
            closed: false,
        };
        let core = Core { shared, encoder, sender, state: Mutex::new(state) };
        Delivery { core: Arc::new(core) }
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

#[async_trait]
impl<E: Encoder, S: Sender<E::Body>> Exporter for Delivery<E, S> {
    async fn start(&self, cx: &RunContext) -> Result<(), StartError> {
        self.core.sender.start(cx)?;
        let core = &self.core;
        if let Some(batcher) = &mut core.lock().batcher {
            batcher.keep_apart(core.sender.reads());
        }
        core.shared.start(cx);
        let work = core.startable(&mut core.lock());
        core.launch(work);
        Ok(())
    }

    async fn drain(&self, deadline: std::time::Instant) -> Leftover {
        let core = &self.core;
        let deadline = Instant::from_std(deadline);
        core.shared.phase.send_replace(Phase::Draining(deadline));
        let work = core.flush(&mut core.lock(), None);
        core.launch(work);
        core.shared.drain(deadline, || core.is_idle(), || core.close()).await
    }
}

impl<E: Encoder, S: Sender<E::Body>> Consumer for Delivery<E, S> {
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
                core.admit(&mut state, job);
                let mut work = core.startable(&mut state);
                drop(state);
                work.due = due;
                core.launch(work);
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
        let core = &self.core;
        core.shared.limits.is_none_or(|l| l.wait_for_result)
            || core.lock().queue.is_strained(core.shared.memory())
    }
}

impl State {
    /// Something has happened to a batch that has a seat: its tenant may start another one.
    fn wake(&mut self, seat: Option<&Arc<Seat>>) {
        if let Some(tenant) = seat.and_then(|seat| seat.tenancy.tenant()) {
            self.ready.wake(tenant);
        }
    }
}

impl<E: Encoder, S: Sender<E::Body>> Core<E, S> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the next batch of a lane would find no room.
    pub fn is_full_for(&self, key: &LaneKey) -> bool {
        self.lock().queue.is_full_for(key, self.shared.memory())
    }

    /// Puts a taken batch where it waits: in the batcher or in line.
    fn admit(&self, state: &mut State, job: Job) {
        let Some(batcher) = &mut state.batcher else { return line_up(&mut state.ready, [job]) };
        let mut out = VecDeque::new();
        let unsplittable = batcher.add(Instant::now(), job, &mut out);
        if *self.shared.phase.borrow() != Phase::Running {
            batcher.flush(None, &mut out);
        }
        line_up(&mut state.ready, out);
        for job in unsplittable {
            self.drop_unsplittable(state, job);
        }
    }

    /// A piece that cannot be cut down to `max_size`.
    fn drop_unsplittable(&self, state: &mut State, job: Job) {
        let items = job.batch.items;
        state.queue.release(&job.cost);
        let tenancy = self.shared.tenancies.of(job.batch.tenant.as_ref());
        self.shared.settle(&tenancy, items, Booking::Dropped("too_large"));
        tracing::error!(
            otelcol.component.id = %self.shared.id, otelcol.component.kind = "exporter",
            otelcol.signal = self.shared.signal.name(), dropped_items = items,
            "one item is greater than max_size, dropping it"
        );
        let reason = "one item is larger than sending_queue::batch::max_size".to_owned();
        job.batch.acks.resolve(Verdict::Rejected { bad_data: true, reason });
    }

    /// Takes whatever may start now out of the state. Places go to those who have rested first.
    fn startable(&self, state: &mut State) -> Startable {
        let mut work = Startable::default();
        self.shared.gauges.size(state.queue.used());
        if self.shared.run.get().is_none() {
            return work;
        }
        let State { ready, slots, .. } = state;
        slots.grant();
        while slots.has_free()
            && let Some(job) = ready.pop_or_sleep(|key, _| slots.chance(key))
        {
            let seat = slots.start(&self.shared.tenancies.of(job.batch.tenant.as_ref()));
            work.jobs.push(Start { job, seat });
        }
        if !state.timer && state.batcher.as_ref().is_some_and(|b| b.deadline().is_some()) {
            state.timer = true;
            work.timer = true;
        }
        work
    }

    fn launch(self: &Arc<Self>, work: Startable) {
        if let Some((supervisor, runtime)) = self.shared.run.get()
            && (work.timer || !work.jobs.is_empty())
        {
            let _runtime = runtime.enter();
            for start in work.jobs {
                supervisor.spawn("exporter worker", super::worker::work(self.clone(), start));
            }
            if work.timer {
                supervisor.spawn("exporter batch timer", watch_deadline(self.clone()));
            }
        }
        work.due.resolve(Verdict::Accepted);
    }

    fn flush(&self, state: &mut State, now: Option<Instant>) -> Startable {
        if let Some(batcher) = &mut state.batcher {
            let mut out = VecDeque::new();
            batcher.flush(now, &mut out);
            line_up(&mut state.ready, out);
        }
        self.startable(state)
    }

    /// Returns a finished batch's room and place, and lets in what was parked.
    fn make_room(&self, state: &mut State, cost: &Cost, seat: Option<&Arc<Seat>>) -> Acks {
        state.slots.finish(seat);
        state.wake(seat);
        state.queue.release(cost);
        let mut due = Acks::none();
        let memory = self.shared.memory();
        while let Some((job, acks)) = state.queue.promote(memory) {
            due.append(acks);
            self.admit(state, job);
        }
        due
    }

    /// A worker has finished a batch: the next one for it, or `None` when it must end.
    pub fn finished(self: &Arc<Self>, cost: &Cost, seat: Option<&Arc<Seat>>) -> Option<Start> {
        let mut state = self.lock();
        let due = self.make_room(&mut state, cost, seat);
        let mut work = self.startable(&mut state);
        let next = if work.jobs.is_empty() { None } else { Some(work.jobs.remove(0)) };
        if state.slots.is_idle() {
            self.shared.idle.notify_waiters();
        }
        drop(state);
        work.due = due;
        self.launch(work);
        next
    }

    /// A worker was torn down in the middle of a batch.
    pub fn torn_down(self: &Arc<Self>, cost: &Cost, seat: Option<&Arc<Seat>>) {
        if let Some(next) = self.finished(cost, seat) {
            let mut jobs = SmallVec::new();
            jobs.push(next);
            self.launch(Startable { jobs, ..Startable::default() });
        }
    }

    /// A batch gives its place back for a while.
    pub fn rest(self: &Arc<Self>, seat: &Arc<Seat>) {
        let mut state = self.lock();
        state.slots.rest(seat);
        state.wake(Some(seat));
        let work = self.startable(&mut state);
        drop(state);
        self.launch(work);
    }

    /// A batch that has rested wants its place again.
    pub fn resume(self: &Arc<Self>, seat: &Arc<Seat>) {
        let mut state = self.lock();
        state.slots.resume(seat);
        state.wake(Some(seat));
        let work = self.startable(&mut state);
        drop(state);
        self.launch(work);
    }

    fn is_idle(&self) -> bool {
        let state = self.lock();
        state.slots.is_idle() && state.ready.is_empty()
    }

    /// Ends everything at once: what waits is given up, workers are told.
    fn close(&self) {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.closed = true;
        let mut waiting = VecDeque::from(state.ready.take_all());
        if let Some(batcher) = &mut state.batcher {
            batcher.flush(None, &mut waiting);
        }
        let parked = state.queue.abandon();
        for job in &waiting {
            state.queue.release(&job.cost);
        }
        self.shared.gauges.size(state.queue.used());
        drop(guard);
        self.shared.phase.send_replace(Phase::Closed);
        for batch in waiting.into_iter().map(|job| job.batch).chain(parked) {
            self.shared.abandon(batch);
        }
    }
}

fn line_up(ready: &mut Lanes<Job>, jobs: impl IntoIterator<Item = Job>) {
    for job in jobs {
        let (key, bytes) = job.lane();
        ready.push(key, bytes, job);
    }
}

/// Flushes the batcher whenever its oldest data is due, as long as it holds any.
async fn watch_deadline<E: Encoder, S: Sender<E::Body>>(core: Arc<Core<E, S>>) {
    loop {
        let deadline = {
            let mut state = core.lock();
            match state.batcher.as_ref().and_then(Batcher::deadline) {
                Some(deadline) => deadline,
                None => {
                    state.timer = false;
                    return;
                }
            }
        };
        tokio::time::sleep_until(deadline).await;
        let work = core.flush(&mut core.lock(), Some(Instant::now()));
        core.launch(work);
    }
}
