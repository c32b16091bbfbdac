//! A thread of its own for exporters that write to files and terminals, which can stall for seconds.
//!
//! Batches travel through a bounded channel; their bytes stay reserved in the ledger until they are written, so
//! a stalled disk costs no more memory than the budget allows. The acknowledgement is resolved after the write.
//! A crowded channel refuses, retryably; a writer that cannot write refuses too, so that nothing is lost unseen.
//! What was acknowledged before it came here cannot be refused: half of the channel is kept for it, and it is
//! written again for [`PATIENCE`] before it is given up and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use prometheus::IntGauge;
use tokio::sync::{Notify, oneshot};

use crate::pdata::Batch;
use crate::pipeline::runtime::Supervisor;
use crate::pipeline::{Leftover, StartError, Verdict};
use crate::telemetry::ExporterItems;

/// How many batches may wait for the thread; the second half is for those that cannot be refused.
const QUEUE: usize = 256;

/// How long a batch that cannot be refused is tried again.
const PATIENCE: Duration = Duration::from_secs(30);

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(500);

/// What the thread does with batches.
pub(super) trait Writer: Send + 'static {
    /// Writes one batch.
    fn write(&mut self, batch: &Batch) -> Result<(), WriteError>;

    /// When [`Writer::flush`] has to be called at the latest.
    fn deadline(&self) -> Option<Instant>;

    /// Forces out what was written.
    fn flush(&mut self);
}

/// Why a batch was not written.
#[derive(Debug)]
pub(super) enum WriteError {
    /// Its bytes are no request: it can never be written.
    Malformed(String),
    /// The destination failed; another attempt may succeed.
    Failed(String),
}

/// One exporter's way to a thread, which several exporters may share.
pub(super) struct Entrance {
    items: ExporterItems,
    waiting: Arc<Waiting>,
}

/// A running thread. It ends, after the last batch, when the last clone is gone.
#[derive(Clone)]
pub(super) struct Thread(Sender<Message>);

/// What one exporter has in the channel.
struct Waiting {
    items: AtomicUsize,
    /// The same number, for the scrape.
    shown: Option<IntGauge>,
    less: Notify,
}

#[allow(clippy::large_enum_variant, reason = "nearly every message is a batch")]
enum Message {
    Write(Job),
    Flush(oneshot::Sender<()>),
}

/// A batch on its way. Dropping it unwritten refuses it.
struct Job {
    batch: Option<Batch>,
    items: ExporterItems,
    waiting: Arc<Waiting>,
}

impl Thread {
    /// Starts a thread around `writer`.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub(super) fn start(
        name: &str,
        writer: impl Writer,
        supervisor: &Supervisor,
    ) -> Result<Self, StartError> {
        let (tx, rx) = bounded(QUEUE);
        supervisor
            .thread(name, move || run(&rx, writer))
            .map_err(|why| StartError::new(format!("cannot start a thread: {why}")))?;
        Ok(Thread(tx))
    }

    /// Whether another batch would be refused now.
    pub(super) fn is_crowded(&self) -> bool {
        self.0.len() >= QUEUE / 2
    }
}

impl Entrance {
    pub(super) fn new(items: ExporterItems) -> Self {
        let waiting = Waiting { items: AtomicUsize::new(0), shown: items.queued(), less: Notify::new() };
        Entrance { items, waiting: Arc::new(waiting) }
    }

    /// Hands a batch over, or refuses it. Never blocks.
    pub(super) fn offer(&self, thread: Option<&Thread>, batch: Batch) {
        self.items.offered(batch.items);
        self.waiting.add(batch.items);
        let settled = batch.acks.settled();
        let job = Job { batch: Some(batch), items: self.items.clone(), waiting: self.waiting.clone() };
        let Some(thread) = thread else { return job.refuse("the exporter has not started") };
        if !settled && thread.is_crowded() {
            return job.refuse("the exporter's queue is full");
        }
        match thread.0.try_send(Message::Write(job)) {
            Ok(()) => {}
            Err(TrySendError::Full(Message::Write(job))) => job.refuse("the exporter's queue is full"),
            Err(TrySendError::Disconnected(Message::Write(job))) => {
                job.refuse("the exporter's writer has ended")
            }
            Err(_) => {}
        }
    }

    /// Waits until everything offered is written and forced out.
    pub(super) async fn drain(&self, thread: Option<&Thread>, deadline: Instant) -> Leftover {
        let all = async {
            loop {
                let less = self.waiting.less.notified();
                tokio::pin!(less);
                less.as_mut().enable();
                if self.waiting.items.load(Ordering::Acquire) == 0 {
                    break;
                }
                less.await;
            }
            let Some(thread) = thread else { return };
            let (tx, rx) = oneshot::channel();
            // There is room: what others have in the channel is being written.
            if thread.0.try_send(Message::Flush(tx)).is_ok() {
                let _ = rx.await;
            }
        };
        let _ = tokio::time::timeout_at(deadline.into(), all).await;
        Leftover { lost: self.waiting.items.load(Ordering::Acquire) as u64, kept: 0 }
    }
}

impl Job {
    fn finish(mut self, outcome: Result<(), WriteError>) {
        let Some(batch) = self.batch.take() else { return };
        let verdict = match outcome {
            Ok(()) => {
                self.items.sent(batch.items);
                Verdict::Accepted
            }
            Err(WriteError::Malformed(reason)) => {
                self.items.dropped(batch.items, "malformed");
                Verdict::Rejected { bad_data: true, reason }
            }
            Err(WriteError::Failed(reason)) => return self.put_back(batch, reason),
        };
        self.waiting.subtract(batch.items);
        batch.acks.resolve(verdict);
    }

    fn refuse(mut self, reason: &str) {
        if let Some(batch) = self.batch.take() {
            self.put_back(batch, reason.to_owned());
        }
    }

    /// Gives the batch back to its sender; where part of it was acknowledged already, that is a counted loss.
    fn put_back(&self, batch: Batch, reason: String) {
        if batch.acks.settled() {
            self.items.dropped(batch.items, "write_failed");
        } else {
            self.items.refused(batch.items, "write_failed");
        }
        self.waiting.subtract(batch.items);
        batch.acks.resolve(Verdict::retry(reason));
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(batch) = self.batch.take() {
            self.put_back(batch, "the exporter's writer has ended".to_owned());
        }
    }
}

impl Waiting {
    fn add(&self, items: usize) {
        self.items.fetch_add(items, Ordering::AcqRel);
        if let Some(shown) = &self.shown {
            shown.add(items as i64);
        }
    }

    fn subtract(&self, items: usize) {
        self.items.fetch_sub(items, Ordering::AcqRel);
        if let Some(shown) = &self.shown {
            shown.sub(items as i64);
        }
        self.less.notify_waiters();
    }
}

fn run(rx: &Receiver<Message>, mut writer: impl Writer) {
    loop {
        let next = match writer.deadline() {
            Some(deadline) => rx.recv_deadline(deadline),
            None => rx.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match next {
            Ok(Message::Write(job)) => {
                let outcome = job.batch.as_ref().map_or(Ok(()), |batch| attempt(&mut writer, batch));
                job.finish(outcome);
                // Under load the channel never runs dry, so the deadline is looked at here too.
                if writer.deadline().is_some_and(|deadline| deadline <= Instant::now()) {
                    writer.flush();
                }
            }
            Ok(Message::Flush(done)) => {
                writer.flush();
                let _ = done.send(());
            }
            Err(RecvTimeoutError::Timeout) => writer.flush(),
            Err(RecvTimeoutError::Disconnected) => {
                writer.flush();
                return;
            }
        }
    }
}

/// Writes a batch; tries again for a while if it cannot be given back.
fn attempt(writer: &mut impl Writer, batch: &Batch) -> Result<(), WriteError> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match writer.write(batch) {
            Err(WriteError::Failed(_)) if batch.acks.settled() && Instant::now() < give_up => {
                thread::sleep(PAUSE)
            }
            done => return done,
        }
    }
}
