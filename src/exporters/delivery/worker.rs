//! One consumer: takes a batch through encoding, attempts, waits and splits, and books every item.

use std::collections::VecDeque;
use std::sync::Arc;

use super::attempts::{End, Place, deliver};
use super::engine::{Core, Start};
use super::lanes::LaneKey;
use super::queue::{Cost, Job};
use super::slots::Seat;
use super::tenancy::{Booking, Tenancy};
use super::{Encoder, Request, Sender};
use crate::pipeline::{Acks, Verdict};

/// Sends a batch, then whatever is next in line, until nothing is.
pub(super) async fn work<E: Encoder, S: Sender<E::Body>>(core: Arc<Core<E, S>>, start: Start) {
    let mut next = Some(start);
    while let Some(start) = next {
        next = process(&core, start).await;
    }
}

/// A batch being sent. Dropped in the middle (a panic, the runtime's end) it still books what it holds.
struct InFlight<'a, E: Encoder, S: Sender<E::Body>> {
    core: &'a Arc<Core<E, S>>,
    tenancy: Arc<Tenancy>,
    acks: Acks,
    /// Items not yet booked.
    items: usize,
    cost: Cost,
    seat: Option<Arc<Seat>>,
    finished: bool,
}

/// A batch's place among the consumers.
struct Consumer<'a, E: Encoder, S: Sender<E::Body>> {
    core: &'a Arc<Core<E, S>>,
    key: LaneKey,
    seat: Option<Arc<Seat>>,
}

impl<E: Encoder, S: Sender<E::Body>> InFlight<'_, E, S> {
    fn sent(&mut self, items: usize) {
        let items = self.take(items);
        self.core.shared.settle(&self.tenancy, items, Booking::Sent);
    }

    fn dropped(&mut self, items: usize, reason: &'static str) {
        let items = self.take(items);
        self.core.shared.settle(&self.tenancy, items, Booking::Dropped(reason));
    }

    /// Not delivered, and the data is good: back to who waits for it, else dropped.
    fn undelivered(&mut self, items: usize, reason: &'static str) {
        let items = self.take(items);
        self.core.shared.settle_undelivered(&self.tenancy, items, !self.acks.settled(), reason);
    }

    /// The agent ends: what is left is given up.
    fn unsent(&mut self) {
        let items = self.take(usize::MAX);
        self.core.shared.settle_unsent(&self.tenancy, items, !self.acks.settled());
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
            self.unsent();
            self.core.torn_down(&self.cost, self.seat.as_ref());
        }
    }
}

impl<E: Encoder, S: Sender<E::Body>> Place for Consumer<'_, E, S> {
    fn is_pressed(&self) -> bool {
        self.core.is_full_for(&self.key)
    }

    fn rest(&self) {
        if let Some(seat) = &self.seat {
            self.core.rest(seat);
        }
    }

    async fn resume(&self) {
        if let Some(seat) = &self.seat {
            self.core.resume(seat);
            seat.granted().await;
        }
    }
}

async fn process<E: Encoder, S: Sender<E::Body>>(core: &Arc<Core<E, S>>, start: Start) -> Option<Start> {
    let Start { job: Job { batch, cost }, seat } = start;
    let signal = core.shared.signal;
    core.shared.gauges.in_flight(1);
    let place = Consumer { core, key: LaneKey::of(&batch), seat: seat.clone() };
    let tenancy = seat.as_ref().map_or_else(|| core.shared.tenancies.of(None), |seat| seat.tenancy.clone());
    let mut flight = InFlight {
        core,
        tenancy: tenancy.clone(),
        acks: batch.acks,
        items: batch.items,
        cost,
        seat,
        finished: false,
    };
    let encoded = core.encoder.encode(signal, batch.rope, batch.items);
    for (items, reason) in encoded.dropped {
        flight.dropped(items, reason);
    }
    let mut todo: VecDeque<Request<E::Body>> = encoded.requests.into_iter().collect();
    let mut verdict = Verdict::Accepted;
    while let Some(request) = todo.pop_front() {
        let items = request.items;
        match deliver(&core.shared, &tenancy, &core.sender, &request.body, &batch.client, &place).await {
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
                flight.unsent();
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
    let (cost, seat) = (std::mem::take(&mut flight.cost), flight.seat.take());
    drop(flight);
    core.finished(&cost, seat.as_ref())
}
