//! The engine around every exporter: takes batches, starts workers, keeps the books, drains.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use smallvec::SmallVec;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::batcher::Batcher;
use super::gauges::Gauges;
use super::life::Life;
use super::queue::{Job, Limits, Offer, Queue};
use super::worker::LogGate;
use super::{DeliveryConfig, Encoder, Pace, RetryConfig, Sender};
use crate::pdata::{Batch, Signal};
use crate::pipeline::runtime::Supervisor;
use crate::pipeline::{
    Acks, BuildContext, Consumer, Exporter, Ledger, Leftover, RunContext, StartError, Verdict,
};
use crate::telemetry::ExporterItems;

/// An exporter: an encoder and a sender with everything around them.
pub struct Delivery<E: Encoder, S: Sender<E::Body>> {
    core: Arc<Core<E, S>>,
}

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Phase {
    Running,
    /// Sending what is left, until then.
    Draining(Instant),
    /// Nothing is sent any more.
    Closed,
}

/// What workers share.
pub(super) struct Core<E: Encoder, S: Sender<E::Body>> {
    pub id: String,
    pub signal: Signal,
    pub encoder: E,
    pub sender: S,
    pub retry: RetryConfig,
    pub timeout: Duration,
    limits: Option<Limits>,
    state: Mutex<State>,
    idle: Notify,
    pub phase: watch::Sender<Phase>,
    pub pace: Pace,
    pub life: Life,
    ledger: Arc<Ledger>,
    pub items: ExporterItems,
    /// Items taken and not yet settled: waiting, parked or being sent.
    held: AtomicUsize,
    lost: AtomicU64,
    pub gauges: Gauges,
    pub drops: LogGate,
    pub warnings: LogGate,
    refusals: LogGate,
    run: OnceLock<(Supervisor, tokio::runtime::Handle)>,
}

struct State {
    queue: Queue,
    /// What the next free worker takes, oldest first.
    ready: VecDeque<Job>,
    batcher: Option<Batcher>,
    /// Whether a task watches the batcher's deadline.
    timer: bool,
    active: usize,
    closed: bool,
}

/// Work that a change of state made startable, to be spawned outside the lock.
#[derive(Default)]
struct Startable {
    jobs: SmallVec<[Job; 1]>,
    timer: bool,
    due: Acks,
}

impl<E: Encoder, S: Sender<E::Body>> Delivery<E, S> {
    /// Puts delivery around an encoder and a sender, for one signal. Opens nothing.
    pub fn new(cx: &BuildContext, signal: Signal, config: DeliveryConfig, encoder: E, sender: S) -> Self {
        let limits = config.queue.as_ref().map(Limits::new);
        let batcher = config.queue.as_ref().and_then(|q| q.batch.get()).map(Batcher::new);
        let state = State {
            queue: Queue::new(limits),
            ready: VecDeque::new(),
            batcher,
            timer: false,
            active: 0,
            closed: false,
        };
        let core = Core {
            id: cx.id.clone(),
            signal,
            encoder,
            sender,
            life: Life::new(&config.retry),
            retry: config.retry,
            timeout: config.timeout,
            limits,
            state: Mutex::new(state),
            idle: Notify::new(),
            phase: watch::Sender::new(Phase::Running),
            pace: Pace::default(),
            ledger: cx.ledger.clone(),
            items: ExporterItems::new(&cx.metrics, &cx.id, signal),
            held: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
            gauges: Gauges::new(&cx.metrics, &cx.id, signal),
            drops: LogGate::default(),
            warnings: LogGate::default(),
            refusals: LogGate::default(),
            run: OnceLock::new(),
        };
        Delivery { core: Arc::new(core) }
    }

    /// Items taken and not yet sent, given up or refused.
    pub fn queued_items(&self) -> usize {
        self.core.held.load(Ordering::Relaxed)
    }

    /// The exporter's books.
    pub fn items(&self) -> &ExporterItems {
        &self.core.items
    }
}

#[async_trait]
impl<E: Encoder, S: Sender<E::Body>> Exporter for Delivery<E, S> {
    async fn start(&self, cx: &RunContext) -> Result<(), StartError> {
        self.core.sender.start(cx)?;
        let core = &self.core;
        let _ = core.run.set((cx.supervisor.clone(), tokio::runtime::Handle::current()));
        core.gauges.show(core.limits.map(|l| l.capacity));
        let work = core.startable(&mut core.lock());
        core.launch(work);
        Ok(())
    }

    async fn drain(&self, deadline: std::time::Instant) -> Leftover {
        let core = &self.core;
        let deadline = Instant::from_std(deadline);
        core.phase.send_replace(Phase::Draining(deadline));
        let before = core.lost.load(Ordering::Relaxed);
        let work = core.flush(&mut core.lock());
        core.launch(work);
        if tokio::time::timeout_at(deadline, core.wait_idle()).await.is_err() {
            core.close();
            // Workers notice at once; the limit is for a sender that blocks its thread.
            let _ = tokio::time::timeout(Duration::from_secs(1), core.wait_idle()).await;
        }
        Leftover { lost: core.lost.load(Ordering::Relaxed) - before, kept: 0 }
    }
}

impl<E: Encoder, S: Sender<E::Body>> Consumer for Delivery<E, S> {
    fn consume(&self, batch: Batch) {
        let core = &self.core;
        let items = batch.items;
        core.items.offered(items);
        core.hold(items);
        let mut state = core.lock();
        if state.closed {
            drop(state);
            return core.abandon(batch);
        }
        match state.queue.offer(batch) {
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
                core.settle(items, |books| books.refused(items));
                core.log_refusal("sending queue is full", items);
                batch.acks.resolve(Verdict::retry("sending queue is full"));
            }
            Offer::TooLarge(batch) => {
                drop(state);
                core.settle(items, |books| books.dropped(items, "too_large"));
                core.log_refusal("element size too large", items);
                let reason = "the request is larger than the exporter's whole queue".to_owned();
                batch.acks.resolve(Verdict::Rejected { bad_data: false, reason });
            }
        }
    }

    fn holds_acks(&self) -> bool {
        self.core.limits.is_none_or(|l| l.wait_for_result) || self.core.lock().queue.is_full()
    }
}

impl<E: Encoder, S: Sender<E::Body>> Core<E, S> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether senders are refused, or soon will be, for want of room.
    pub fn is_pressed(&self) -> bool {
        self.ledger.is_pressed() || self.lock().queue.is_full()
    }

    /// Counts items in.
    fn hold(&self, items: usize) {
        self.held.fetch_add(items, Ordering::Relaxed);
        self.gauges.held(items as i64);
    }

    /// Moves items from held to wherever `book` puts them.
    pub fn settle(&self, items: usize, book: impl FnOnce(&ExporterItems)) {
        book(&self.items);
        self.held.fetch_sub(items, Ordering::Relaxed);
        self.gauges.held(-(items as i64));
    }

    /// Gives up items because the agent ends: back to their sender if one waits, else lost.
    pub fn settle_unsent(&self, items: usize, waited_for: bool) {
        if waited_for {
            self.settle(items, |books| books.refused(items));
        } else {
            self.lost.fetch_add(items as u64, Ordering::Relaxed);
            self.settle(items, |books| books.dropped(items, "shutdown"));
        }
    }

    fn abandon(&self, batch: Batch) {
        self.settle_unsent(batch.items, !batch.acks.settled());
        batch.acks.resolve(Verdict::retry("the agent is shutting down"));
    }

    fn log_refusal(&self, reason: &str, items: usize) {
        if let Some(suppressed) = self.refusals.open() {
            tracing::error!(
                otelcol.component.id = %self.id, otelcol.component.kind = "exporter",
                otelcol.signal = self.signal.name(), error = reason, rejected_items = items, suppressed,
                "Exporting failed. Rejecting data."
            );
        }
    }

    /// Puts a taken batch where it waits: in the batcher or in line.
    fn admit(&self, state: &mut State, job: Job) {
        match &mut state.batcher {
            None => state.ready.push_back(job),
            Some(batcher) => {
                let unsplittable = batcher.add(Instant::now(), job, &mut state.ready);
                if *self.phase.borrow() != Phase::Running {
                    batcher.flush(None, &mut state.ready);
                }
                for job in unsplittable {
                    self.drop_unsplittable(state, job);
                }
            }
        }
    }

    /// A piece that cannot be cut down to `max_size`.
    fn drop_unsplittable(&self, state: &mut State, job: Job) {
        let items = job.batch.items;
        state.queue.release(job.cost);
        self.settle(items, |books| books.dropped(items, "too_large"));
        tracing::error!(
            otelcol.component.id = %self.id, otelcol.component.kind = "exporter",
            otelcol.signal = self.signal.name(), dropped_items = items,
            "one item is greater than max_size, dropping it"
        );
        let reason = "one item is larger than sending_queue::batch::max_size".to_owned();
        job.batch.acks.resolve(Verdict::Rejected { bad_data: true, reason });
    }

    /// Takes whatever may start now out of the state.
    fn startable(&self, state: &mut State) -> Startable {
        let mut work = Startable::default();
        self.gauges.size(state.queue.used());
        if self.run.get().is_none() {
            return work;
        }
        let window = self.limits.map_or(usize::MAX, |l| l.consumers);
        while state.active < window
            && let Some(job) = state.ready.pop_front()
        {
            state.active += 1;
            work.jobs.push(job);
        }
        if !state.timer && state.batcher.as_ref().is_some_and(|b| b.deadline().is_some()) {
            state.timer = true;
            work.timer = true;
        }
        work
    }

    fn launch(self: &Arc<Self>, work: Startable) {
        if let Some((supervisor, runtime)) = self.run.get()
            && (work.timer || !work.jobs.is_empty())
        {
            let _runtime = runtime.enter();
            for job in work.jobs {
                supervisor.spawn("exporter worker", super::worker::work(self.clone(), job));
            }
            if work.timer {
                supervisor.spawn("exporter batch timer", watch_deadline(self.clone()));
            }
        }
        work.due.resolve(Verdict::Accepted);
    }

    fn flush(&self, state: &mut State) -> Startable {
        if let Some(batcher) = &mut state.batcher {
            batcher.flush(None, &mut state.ready);
        }
        self.startable(state)
    }

    /// Returns a finished batch's room and lets in what was parked.
    fn make_room(&self, state: &mut State, cost: usize) -> Acks {
        state.queue.release(cost);
        let mut due = Acks::none();
        while let Some((job, acks)) = state.queue.promote() {
            due.append(acks);
            self.admit(state, job);
        }
        due
    }

    /// A worker has finished a batch: the next one for it, or `None` when it must end.
    pub fn finished(self: &Arc<Self>, cost: usize) -> Option<Job> {
        let mut state = self.lock();
        let due = self.make_room(&mut state, cost);
        let next = state.ready.pop_front();
        if next.is_none() {
            self.leave(&mut state);
        }
        let mut work = self.startable(&mut state);
        drop(state);
        work.due = due;
        self.launch(work);
        next
    }

    /// A worker was torn down in the middle of a batch.
    pub fn torn_down(self: &Arc<Self>, cost: usize) {
        let mut state = self.lock();
        let due = self.make_room(&mut state, cost);
        self.leave(&mut state);
        let mut work = self.startable(&mut state);
        drop(state);
        work.due = due;
        self.launch(work);
    }

    fn leave(&self, state: &mut State) {
        state.active = state.active.saturating_sub(1);
        if state.active == 0 {
            self.idle.notify_waiters();
        }
    }

    async fn wait_idle(&self) {
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            if self.is_idle() {
                return;
            }
            idle.await;
        }
    }

    fn is_idle(&self) -> bool {
        let state = self.lock();
        state.active == 0 && state.ready.is_empty()
    }

    /// Ends everything at once: what waits is given up, workers are told.
    fn close(&self) {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.closed = true;
        if let Some(batcher) = &mut state.batcher {
            batcher.flush(None, &mut state.ready);
        }
        let waiting = std::mem::take(&mut state.ready);
        let parked = state.queue.abandon();
        for job in &waiting {
            state.queue.release(job.cost);
        }
        self.gauges.size(state.queue.used());
        drop(guard);
        self.phase.send_replace(Phase::Closed);
        for batch in waiting.into_iter().map(|job| job.batch).chain(parked) {
            self.abandon(batch);
        }
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
        let work = {
            let mut state = core.lock();
            let state = &mut *state;
            if let Some(batcher) = &mut state.batcher {
                batcher.flush(Some(Instant::now()), &mut state.ready);
            }
            core.startable(state)
        };
        core.launch(work);
    }
}
