//! One consumer: takes a batch through encoding, attempts, waits and splits, and books every item.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::engine::{Core, Phase};
use super::life::SPREAD;
use super::queue::Job;
use super::{Attempt, Backoff, Encoder, Outcome, Request, Sender};
use crate::pdata::ClientInfo;
use crate::pipeline::{Acks, Verdict};

/// The longest wait a destination can ask for: beyond it the number is more likely wrong than meant.
const LONGEST: Duration = Duration::from_secs(3600);

/// How a request ended after all its attempts.
enum End {
    Delivered { rejected: usize, message: String },
    Rejected { bad_data: bool, reason: String },
    TooLarge { reason: String },
    Expired { after: Option<Duration>, reason: String },
    Cancelled,
}

/// Sends `job`, then whatever is next in line, until nothing is.
pub(super) async fn work<E: Encoder, S: Sender<E::Body>>(core: Arc<Core<E, S>>, job: Job) {
    let mut next = Some(job);
    while let Some(job) = next {
        next = process(&core, job).await;
    }
}

/// A batch being sent. Dropped in the middle (a panic, the runtime's end) it still books what it holds.
struct InFlight<'a, E: Encoder, S: Sender<E::Body>> {
    core: &'a Arc<Core<E, S>>,
    acks: Acks,
    /// Items not yet booked.
    items: usize,
    cost: usize,
    finished: bool,
}

impl<E: Encoder, S: Sender<E::Body>> InFlight<'_, E, S> {
    fn sent(&mut self, items: usize) {
        let items = self.take(items);
        self.core.settle(items, |books| books.sent(items));
    }

    fn dropped(&mut self, items: usize, reason: &'static str) {
        let items = self.take(items);
        self.core.settle(items, |books| books.dropped(items, reason));
    }

    /// Not delivered, and the data is good: back to who waits for it, else dropped.
    fn undelivered(&mut self, items: usize, reason: &'static str) {
        if self.acks.settled() {
            return self.dropped(items, reason);
        }
        let items = self.take(items);
        self.core.settle(items, |books| books.refused(items));
    }

    /// An encoder that counts more than the batch has must not upset the books.
    fn take(&mut self, items: usize) -> usize {
        let items = items.min(self.items);
        self.items -= items;
        items
    }
}

impl<E: Encoder, S: Sender<E::Body>> Drop for InFlight<'_, E, S> {
    fn drop(&mut self) {
        self.core.gauges.in_flight(-1);
        if !self.finished {
            let items = std::mem::take(&mut self.items);
            self.core.settle_unsent(items, !self.acks.settled());
            self.core.torn_down(self.cost);
        }
    }
}

async fn process<E: Encoder, S: Sender<E::Body>>(core: &Arc<Core<E, S>>, job: Job) -> Option<Job> {
    let Job { batch, cost } = job;
    core.gauges.in_flight(1);
    let mut flight = InFlight { core, acks: batch.acks, items: batch.items, cost, finished: false };
    let encoded = core.encoder.encode(core.signal, batch.rope, batch.items);
    for (items, reason) in encoded.dropped {
        flight.dropped(items, reason);
    }
    let mut todo: VecDeque<Request<E::Body>> = encoded.requests.into_iter().collect();
    let mut verdict = Verdict::Accepted;
    while let Some(request) = todo.pop_front() {
        let items = request.items;
        match deliver(core, &request, &batch.client).await {
            End::Delivered { rejected, message } => {
                let rejected = rejected.min(items);
                flight.sent(items - rejected);
                flight.dropped(rejected, "partial_success");
                if !message.is_empty() || rejected > 0 {
                    warn_partial(core, rejected, &message);
                }
            }
            End::TooLarge { reason } => match core.encoder.halve(core.signal, request) {
                Ok([first, second]) => {
                    todo.push_front(second);
                    todo.push_front(first);
                }
                Err(_) => {
                    flight.dropped(items, "too_large");
                    log_drop(core, items, "too_large", &reason);
                    verdict = verdict.worst(Verdict::Rejected { bad_data: true, reason });
                }
            },
            End::Rejected { bad_data, reason } => {
                flight.dropped(items, "rejected");
                log_drop(core, items, "not retryable error", &reason);
                verdict = verdict.worst(Verdict::Rejected { bad_data, reason });
            }
            End::Expired { after, reason } => {
                let waited_for = !flight.acks.settled();
                flight.undelivered(items, "expired");
                if !waited_for {
                    log_drop(core, items, "no more retries left", &reason);
                }
                verdict = verdict.worst(Verdict::Retry { after, reason });
            }
            End::Cancelled => {
                let left = flight.take(usize::MAX);
                core.settle_unsent(left, !flight.acks.settled());
                verdict = Verdict::retry("the agent is shutting down");
                break;
            }
        }
    }
    // What the encoder's requests do not account for.
    let rest = flight.items;
    flight.dropped(rest, "unencodable");
    flight.finished = true;
    // The memory goes back before anybody is told that there is room.
    drop(batch.leases);
    std::mem::take(&mut flight.acks).resolve(verdict);
    drop(flight);
    core.finished(cost)
}

/// One request: attempts and waits until it has an end.
async fn deliver<E: Encoder, S: Sender<E::Body>>(
    core: &Core<E, S>,
    request: &Request<E::Body>,
    client: &ClientInfo,
) -> End {
    let mut backoff = Backoff::new(&core.retry);
    let mut started = None;
    loop {
        while let Some(until) = core.pace.until() {
            tokio::select! {
                biased;
                () = closed(core) => return End::Cancelled,
                () = tokio::time::sleep_until(until) => {}
            }
        }
        let started = *started.get_or_insert_with(Instant::now);
        let began = core.life.attempt();
        let attempt = core.sender.send(Attempt { body: &request.body, signal: core.signal, client });
        let outcome = tokio::select! {
            biased;
            outcome = in_time(core.timeout, attempt) => outcome,
            () = closed(core) => return End::Cancelled,
        };
        let (after, reason) = match outcome {
            Outcome::Delivered { rejected, message } => {
                core.life.delivered();
                return End::Delivered { rejected, message };
            }
            Outcome::Rejected { bad_data, reason } => return End::Rejected { bad_data, reason },
            Outcome::TooLarge { reason } => return End::TooLarge { reason },
            Outcome::Retry { after, reason } => (after, reason),
        };
        let mut wait = backoff.next(fastrand::f64());
        if let Some(delay) = after {
            wait = wait.max(delay.min(LONGEST));
            core.pace.hold(wait);
        }
        if !core.retry.enabled {
            return End::Expired { after, reason };
        }
        let limit = core.retry.max_elapsed_time;
        if !limit.is_zero() && started.elapsed().saturating_add(wait) > limit {
            return End::Expired { after, reason };
        }
        tracing::info!(
            otelcol.component.id = %core.id, otelcol.component.kind = "exporter",
            otelcol.signal = core.signal.name(), error = reason, interval = ?wait,
            "Exporting failed. Will retry the request after interval."
        );
        if !rest(core, began, wait, after.is_some()).await {
            return End::Cancelled;
        }
    }
}

async fn in_time(limit: Duration, attempt: impl Future<Output = Outcome>) -> Outcome {
    if limit.is_zero() {
        return attempt.await;
    }
    match tokio::time::timeout(limit, attempt).await {
        Ok(outcome) => outcome,
        Err(_) => Outcome::retry(format!("no answer within the timeout of {limit:?}")),
    }
}

/// Waits after the attempt that `began` then; `false` when sending has ended. A back-off ends early when the
/// destination is back, when it is this request's turn to see whether it is, and when a drain starts; during a
/// drain it takes no more than half of the time that is left. A wait the destination asked for is kept in full.
async fn rest<E: Encoder, S: Sender<E::Body>>(
    core: &Core<E, S>,
    began: Instant,
    wait: Duration,
    asked_for: bool,
) -> bool {
    let mut phase = core.phase.subscribe();
    let mut returns = core.life.returns();
    core.life.failed(began);
    let now = *phase.borrow_and_update();
    let wait = match now {
        Phase::Closed => return false,
        Phase::Draining(deadline) if !asked_for => {
            let left = deadline.saturating_duration_since(Instant::now());
            wait.min((left / 2).max(Duration::from_millis(50)))
        }
        _ => wait,
    };
    // A year stands for whatever is longer: the sum must not overflow.
    let mut until = Instant::now() + wait.min(LONGEST * 24 * 365);
    loop {
        let look = if asked_for { until } else { until.min(core.life.next_look()) };
        tokio::select! {
            () = tokio::time::sleep_until(look) => {
                if look == until || core.is_pressed() && core.life.ask() {
                    return true;
                }
            }
            Ok(()) = returns.changed(), if !asked_for => {
                until = until.min(Instant::now() + SPREAD.mul_f64(fastrand::f64()));
            }
            changed = phase.changed() => {
                let now = *phase.borrow_and_update();
                match now {
                    Phase::Closed => return false,
                    Phase::Draining(_) if !asked_for => return true,
                    _ if changed.is_err() => return false,
                    _ => {}
                }
            }
        }
    }
}

async fn closed<E: Encoder, S: Sender<E::Body>>(core: &Core<E, S>) {
    // The core keeps the channel open, so that this cannot fail.
    let _ = core.phase.subscribe().wait_for(|phase| *phase == Phase::Closed).await;
}

fn log_drop<E: Encoder, S: Sender<E::Body>>(core: &Core<E, S>, items: usize, kind: &str, reason: &str) {
    if let Some(suppressed) = core.drops.open() {
        tracing::error!(
            otelcol.component.id = %core.id, otelcol.component.kind = "exporter",
            otelcol.signal = core.signal.name(), error = %format_args!("{kind}: {reason}"),
            dropped_items = items, suppressed,
            "Exporting failed. Dropping data."
        );
    }
}

fn warn_partial<E: Encoder, S: Sender<E::Body>>(core: &Core<E, S>, rejected: usize, message: &str) {
    if let Some(suppressed) = core.warnings.open() {
        tracing::warn!(
            otelcol.component.id = %core.id, otelcol.component.kind = "exporter",
            otelcol.signal = core.signal.name(), message_from_destination = message, dropped_items = rejected,
            suppressed, "Partial success response"
        );
    }
}

/// Lets one log line a second through and counts the others.
#[derive(Debug, Default)]
pub(super) struct LogGate {
    last: Mutex<Option<Instant>>,
    suppressed: AtomicU64,
}

impl LogGate {
    /// How many lines were held back since the last one, if this one may be written.
    pub fn open(&self) -> Option<u64> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if last.is_some_and(|last| now.duration_since(last) < Duration::from_secs(1)) {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        *last = Some(now);
        Some(self.suppressed.swap(0, Ordering::Relaxed))
    }
}
