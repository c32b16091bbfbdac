//! The stages between a receiver and its exporters, chained by calls.
//!
//! A chain is built once from the exporters backwards; a batch moves through it on the receiver's own task. Only
//! a regrouping stage keeps data, and only it has a task, for its timer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::runtime::Supervisor;
use super::{Consumer, Processor, Split, Verdict};
use crate::pdata::Batch;
use crate::processors::edit::Program;
use crate::telemetry::{Counter, Metrics};

/// Gives every batch to several consumers. Each has its own queue, so none waits for another; the sender hears
/// the worst of their verdicts.
pub struct FanOut(Vec<Arc<dyn Consumer>>);

/// The books of one pipeline: `received = forwarded + refused + dropped + held` at all times.
pub struct Books {
    received: Counter,
    forwarded: Counter,
    refused: Counter,
    dropped: Counter,
}

/// Counts what enters a pipeline.
pub struct Entry {
    books: Arc<Books>,
    next: Arc<dyn Consumer>,
}

/// Counts what leaves a pipeline for its exporters.
pub struct Exit {
    books: Arc<Books>,
    next: Arc<dyn Consumer>,
}

/// Looks at every batch and passes it on.
pub struct Observe {
    look: Box<dyn Fn(&Batch) + Send + Sync>,
    next: Arc<dyn Consumer>,
}

/// Runs a fused edit program.
pub struct Editing {
    program: Program,
    malformed: Counter,
    refused_late: Counter,
    books: Arc<Books>,
    next: Arc<dyn Consumer>,
}

/// Tells apart what batches hold.
pub struct Splitting {
    split: Box<dyn Split>,
    books: Arc<Books>,
    next: Arc<dyn Consumer>,
}

/// Runs a processor that keeps data for a while.
pub struct Regroup {
    processor: Mutex<Box<dyn Processor>>,
    /// Tells the timer that a deadline was set.
    deadline_set: Notify,
    books: Arc<Books>,
    next: Arc<dyn Consumer>,
}

impl FanOut {
    /// One consumer as it is, several behind a fan-out.
    pub fn over(mut consumers: Vec<Arc<dyn Consumer>>) -> Option<Arc<dyn Consumer>> {
        match consumers.len() {
            0 | 1 => consumers.pop(),
            _ => Some(Arc::new(FanOut(consumers))),
        }
    }
}

impl Consumer for FanOut {
    fn consume(&self, batch: Batch) {
        let Some((last, others)) = self.0.split_last() else { return };
        for consumer in others {
            consumer.consume(batch.clone());
        }
        last.consume(batch);
    }

    fn holds_acks(&self) -> bool {
        self.0.iter().any(|c| c.holds_acks())
    }
}

impl Books {
    /// The books of the pipeline `id`.
    pub fn new(metrics: &Metrics, id: &str) -> Arc<Self> {
        let series = |name: &str, help: &str| metrics.series(name, help, &[("pipeline", id)]);
        Arc::new(Books {
            received: series("tidegate_pipeline_received_items", "Items that entered a pipeline."),
            forwarded: series(
                "tidegate_pipeline_forwarded_items",
                "Items that left a pipeline for its exporters, counted once however many there are.",
            ),
            refused: series("tidegate_pipeline_refused_items", "Items a processor refused or gave up on."),
            dropped: series(
                "tidegate_pipeline_dropped_items",
                "Items a processor dropped as it was told to, such as `filter`.",
            ),
        })
    }

    /// What is missing from the books, given what the stages hold: 0, or a bug.
    pub fn gap(&self, held: usize) -> i64 {
        let out = self.forwarded.get() + self.refused.get() + self.dropped.get() + held as u64;
        self.received.get() as i64 - out as i64
    }
}

impl Entry {
    /// The way into a pipeline.
    pub fn new(books: Arc<Books>, next: Arc<dyn Consumer>) -> Self {
        Entry { books, next }
    }
}

impl Consumer for Entry {
    fn consume(&self, batch: Batch) {
        self.books.received.add(batch.items as u64);
        self.next.consume(batch);
    }

    fn holds_acks(&self) -> bool {
        self.next.holds_acks()
    }
}

impl Exit {
    /// The way out of a pipeline.
    pub fn new(books: Arc<Books>, next: Arc<dyn Consumer>) -> Self {
        Exit { books, next }
    }
}

impl Consumer for Exit {
    fn consume(&self, batch: Batch) {
        self.books.forwarded.add(batch.items as u64);
        self.next.consume(batch);
    }

    fn holds_acks(&self) -> bool {
        self.next.holds_acks()
    }
}

impl Observe {
    /// A stage that calls `look` on every batch.
    pub fn new(look: Box<dyn Fn(&Batch) + Send + Sync>, next: Arc<dyn Consumer>) -> Self {
        Observe { look, next }
    }
}

impl Consumer for Observe {
    fn consume(&self, batch: Batch) {
        (self.look)(&batch);
        self.next.consume(batch);
    }

    fn holds_acks(&self) -> bool {
        self.next.holds_acks()
    }
}

impl Editing {
    /// A stage that edits, in the pipeline `id`; items whose bytes are not what they should be pass unchanged and are
    /// counted.
    pub fn new(
        program: Program,
        metrics: &Metrics,
        id: &str,
        books: Arc<Books>,
        next: Arc<dyn Consumer>,
    ) -> Self {
        let malformed = metrics.series(
            "tidegate_pipeline_malformed_items",
            "Items passed on unedited because their bytes are not what they should be.",
            &[("pipeline", id)],
        );
        let refused_late = metrics.series(
            "tidegate_pipeline_refused_late_items",
            "Items dropped because a processor refused them after they had been acknowledged.",
            &[("pipeline", id)],
        );
        Editing { program, malformed, refused_late, books, next }
    }
}

impl Consumer for Editing {
    fn consume(&self, mut batch: Batch) {
        let applied = self.program.apply(&mut batch);
        self.malformed.add(applied.malformed as u64);
        self.books.dropped.add(applied.dropped as u64);
        if let Some(reason) = applied.refused {
            // Its bytes are as they were.
            if batch.acks.settled() {
                self.refused_late.add(batch.items as u64);
                self.books.dropped.add(batch.items as u64);
            } else {
                self.books.refused.add(batch.items as u64);
            }
            return batch.acks.resolve(Verdict::Rejected { bad_data: true, reason });
        }
        if batch.items == 0 && applied.dropped > 0 {
            return batch.acks.resolve(Verdict::Accepted);
        }
        self.next.consume(batch);
    }

    fn holds_acks(&self) -> bool {
        self.next.holds_acks()
    }
}

impl Splitting {
    /// A stage around `split`.
    pub fn new(split: Box<dyn Split>, books: Arc<Books>, next: Arc<dyn Consumer>) -> Self {
        Splitting { split, books, next }
    }
}

impl Consumer for Splitting {
    fn consume(&self, batch: Batch) {
        let now = tokio::time::Instant::now().into_std();
        let mut out = Vec::new();
        let gone = self.split.split(now, batch, &mut out);
        self.books.refused.add(gone.refused as u64);
        self.books.dropped.add(gone.dropped as u64);
        out.into_iter().for_each(|batch| self.next.consume(batch));
    }

    fn holds_acks(&self) -> bool {
        self.next.holds_acks()
    }
}

impl Regroup {
    /// A stage around `processor`. Call [`Regroup::start`] once there is a runtime.
    pub fn new(processor: Box<dyn Processor>, books: Arc<Books>, next: Arc<dyn Consumer>) -> Arc<Self> {
        Arc::new(Regroup { processor: Mutex::new(processor), deadline_set: Notify::new(), books, next })
    }

    /// How many items the processor keeps.
    pub fn held(&self) -> usize {
        self.locked(|p| p.held())
    }

    /// Starts the timer.
    pub fn start(self: &Arc<Self>, supervisor: &Supervisor) {
        let stage = self.clone();
        supervisor.spawn("pipeline timer", async move {
            loop {
                let deadline = stage.locked(|p| p.deadline());
                match deadline {
                    // Registered before the check above could have missed a deadline: `notify_one` leaves a permit.
                    None => stage.deadline_set.notified().await,
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                }
                stage.flush(false);
            }
        });
    }

    /// Passes on what is due, or everything.
    pub fn flush(&self, all: bool) {
        let now = tokio::time::Instant::now().into_std();
        let mut out = Vec::new();
        self.locked(|p| p.flush(now, all, &mut out));
        out.into_iter().for_each(|batch| self.next.consume(batch));
    }

    fn locked<R>(&self, f: impl FnOnce(&mut dyn Processor) -> R) -> R {
        f(self.processor.lock().unwrap_or_else(PoisonError::into_inner).as_mut())
    }
}

impl Consumer for Regroup {
    fn consume(&self, batch: Batch) {
        let hold = self.next.holds_acks();
        let now: Instant = tokio::time::Instant::now().into_std();
        let mut out = Vec::new();
        let newly_waiting = self.locked(|p| {
            let before = p.deadline().is_some();
            let refused = p.process(now, batch, hold, &mut out);
            self.books.refused.add(refused as u64);
            !before && p.deadline().is_some()
        });
        if newly_waiting {
            self.deadline_set.notify_one();
        }
        out.into_iter().for_each(|batch| self.next.consume(batch));
    }

    fn holds_acks(&self) -> bool {
        self.next.holds_acks()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use smallvec::SmallVec;

    use super::*;
    use crate::components::Build;
    use crate::config::{Node, Pos, Value};
    use crate::pdata::{Rope, Signal};
    use crate::pipeline::{Acks, BuildContext, Ledger, Stage, ack};

    /// Takes everything, or refuses everything while `full`.
    #[derive(Default)]
    struct Destination {
        full: AtomicBool,
        taken: Mutex<Vec<usize>>,
    }

    impl Consumer for Destination {
        fn consume(&self, batch: Batch) {
            if self.full.load(Ordering::Relaxed) && !batch.acks.settled() {
                return batch.acks.resolve(Verdict::retry("full"));
            }
            self.taken.lock().unwrap().push(batch.items);
            batch.acks.resolve(Verdict::Accepted);
        }

        fn holds_acks(&self) -> bool {
            self.full.load(Ordering::Relaxed)
        }
    }

    fn batch(items: usize, acks: Acks) -> Batch {
        Batch {
            signal: Signal::Logs,
            rope: Rope::from(vec![0u8; 8]),
            items,
            client: Arc::default(),
            tenant: None,
            demoted: false,
            received: Instant::now(),
            leases: SmallVec::new(),
            acks,
        }
    }

    fn regroup(next: Arc<dyn Consumer>) -> Arc<Regroup> {
        let row = crate::components::find(crate::components::Kind::Processor, "batch").unwrap();
        let config = (row.decode)(&Node::new(Pos::default(), Value::Null), &mut crate::config::Cx::default());
        let cx = BuildContext { id: "batch".into(), metrics: Metrics::new(), ledger: Ledger::new(1 << 20) };
        let Build::Processor(make) = row.build else { panic!("batch is a processor") };
        let Stage::Regroup(processor) = make(config.as_ref(), Signal::Logs, &cx).unwrap() else {
            panic!("regroups")
        };
        Regroup::new(processor, Books::new(&cx.metrics, "logs"), next)
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_sent_when_its_time_comes() {
        let destination = Arc::new(Destination::default());
        let stage = regroup(destination.clone());
        stage.start(&Supervisor::default());
        for round in 1..=3 {
            let (share, verdict) = ack();
            stage.consume(batch(3, share.into()));
            assert_eq!(verdict.await, Ok(Verdict::Accepted), "acknowledged before it is sent");
            tokio::time::sleep(Duration::from_millis(199)).await;
            assert_eq!(destination.taken.lock().unwrap().len(), round - 1);
            tokio::time::sleep(Duration::from_millis(2)).await;
            assert_eq!(destination.taken.lock().unwrap().len(), round);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_destination_answers_for_itself_and_delays_nobody() {
        let (full, free) = (Arc::new(Destination::default()), Arc::new(Destination::default()));
        let both = FanOut::over(vec![full.clone() as Arc<dyn Consumer>, free.clone()]).unwrap();
        let stage = regroup(both);
        stage.start(&Supervisor::default());

        // Acknowledged while there was room: taken by both, however full one has become since.
        let (early, verdict) = ack();
        stage.consume(batch(1, early.into()));
        assert_eq!(verdict.await, Ok(Verdict::Accepted));
        full.full.store(true, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(300)).await;

        // Sent while one is full: the other has it, and the sender hears that not all do.
        let (late, verdict) = ack();
        stage.consume(batch(2, late.into()));
        assert_eq!(verdict.await, Ok(Verdict::retry("full")));
        assert_eq!(*full.taken.lock().unwrap(), [1]);
        assert_eq!(*free.taken.lock().unwrap(), [1, 2]);
    }
}
