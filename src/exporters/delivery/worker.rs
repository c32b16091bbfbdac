//! One consumer: takes a batch through encoding, attempts, waits and splits, and books every item.

use std::collections::VecDeque;
use std::sync::Arc;

use super::attempts::{End, deliver};
use super::engine::Core;
use super::queue::Job;
use super::{Encoder, Request, Sender};
use crate::pipeline::{Acks, Verdict};

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
        self.core.shared.settle(items, |books| books.sent(items));
    }

    fn dropped(&mut self, items: usize, reason: &'static str) {
        let items = self.take(items);
        self.core.shared.settle(items, |books| books.dropped(items, reason));
    }

    /// Not delivered, and the data is good: back to who waits for it, else dropped.
    fn undelivered(&mut self, items: usize, reason: &'static str) {
        let items = self.take(items);
        self.core.shared.settle_undelivered(items, !self.acks.settled(), reason);
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
        self.core.shared.gauges.in_flight(-1);
        if !self.finished {
            let items = std::mem::take(&mut self.items);
            self.core.shared.settle_unsent(items, !self.acks.settled());
            self.core.torn_down(self.cost);
        }
    }
}

async fn process<E: Encoder, S: Sender<E::Body>>(core: &Arc<Core<E, S>>, job: Job) -> Option<Job> {
    let Job { batch, cost } = job;
    let signal = core.shared.signal;
    core.shared.gauges.in_flight(1);
    let mut flight = InFlight { core, acks: batch.acks, items: batch.items, cost, finished: false };
    let encoded = core.encoder.encode(signal, batch.rope, batch.items);
    for (items, reason) in encoded.dropped {
        flight.dropped(items, reason);
    }
    let mut todo: VecDeque<Request<E::Body>> = encoded.requests.into_iter().collect();
    let mut verdict = Verdict::Accepted;
    let pressed = || core.is_full();
    while let Some(request) = todo.pop_front() {
        let items = request.items;
        match deliver(&core.shared, &core.sender, &request.body, &batch.client, &pressed).await {
            End::Delivered { rejected, message } => {
                let rejected = rejected.min(items);
                flight.sent(items - rejected);
                flight.dropped(rejected, "partial_success");
                core.shared.log_partial(rejected, &message);
            }
            End::TooLarge { reason } => match core.encoder.halve(signal, request) {
                Ok([first, second]) => {
                    todo.push_front(second);
                    todo.push_front(first);
                }
                Err(_) => {
                    flight.dropped(items, "too_large");
                    core.shared.log_drop(items, "too_large", &reason);
                    verdict = verdict.worst(Verdict::Rejected { bad_data: true, reason });
                }
            },
            End::Rejected { bad_data, reason } => {
                flight.dropped(items, "rejected");
                core.shared.log_drop(items, "not retryable error", &reason);
                verdict = verdict.worst(Verdict::Rejected { bad_data, reason });
            }
            End::Expired { after, reason } => {
                let waited_for = !flight.acks.settled();
                flight.undelivered(items, "expired");
                if !waited_for {
                    core.shared.log_drop(items, "no more retries left", &reason);
                }
                verdict = verdict.worst(Verdict::Retry { after, reason });
            }
            End::Cancelled => {
                let left = flight.take(usize::MAX);
                core.shared.settle_unsent(left, !flight.acks.settled());
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
