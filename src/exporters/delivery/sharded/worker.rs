//! One line: sends its requests one after the other, cuts what is refused, and books every item.

use std::collections::VecDeque;
use std::sync::Arc;

use super::engine::{Core, ENDED, Fate, INTERRUPTED};
use super::ticket::{Share, Shares, split, total};
use super::{ShardBody, ShardEncoder};
use crate::exporters::delivery::Sender;
use crate::exporters::delivery::attempts::{End, Place, closed, deliver};
use crate::exporters::delivery::slots::Seat;
use crate::exporters::delivery::tenancy::{Tenancies, Tenancy};
use crate::pdata::{ClientInfo, Tenant};
use crate::pipeline::Verdict;

/// Who a batch, or a request made of batches, is from.
#[derive(Clone, Default)]
pub(super) struct Whose {
    pub client: Arc<ClientInfo>,
    pub tenant: Option<Tenant>,
}

/// A request in its line.
pub(super) struct Request<B> {
    body: B,
    pub shares: Shares,
    client: Arc<ClientInfo>,
    /// Of whom it is sent for.
    pub tenancy: Arc<Tenancy>,
    /// Who pays for it: whose batches it is made of.
    pub payer: Option<Tenant>,
    /// Bytes in the backlog, returned when the last piece of it is finished.
    pub charge: usize,
}

/// A request that may be sent, with its place.
pub(super) struct Start<B> {
    pub shard: usize,
    pub request: Request<B>,
    /// Where it has a tenant.
    pub seat: Option<Arc<Seat>>,
}

/// What a request took up while it was sent.
pub(super) struct Turn {
    pub shard: usize,
    pub tenancy: Arc<Tenancy>,
    pub seat: Option<Arc<Seat>>,
    pub payer: Option<Tenant>,
    pub charge: usize,
}

/// What a request was cut into.
struct Piece<B> {
    body: B,
    shares: Shares,
}

/// A request on its way. Dropped in the middle (a panic, the runtime's end) it still books what it holds.
pub(super) struct InFlight<E: ShardEncoder, S: Sender<E::Body>> {
    core: Arc<Core<E, S>>,
    shard: usize,
    tenancy: Arc<Tenancy>,
    seat: Option<Arc<Seat>>,
    payer: Option<Tenant>,
    charge: usize,
    client: Arc<ClientInfo>,
    /// Not yet booked; the first one is being sent.
    pieces: VecDeque<Piece<E::Body>>,
    started: bool,
    finished: bool,
}

/// The place of a request among those that are sent at the same time. Its line is its own whatever it does.
struct Seated<'a, E: ShardEncoder, S: Sender<E::Body>> {
    core: &'a Arc<Core<E, S>>,
    tenancy: &'a Tenancy,
    seat: Option<&'a Arc<Seat>>,
}

impl<E: ShardEncoder, S: Sender<E::Body>> Place for Seated<'_, E, S> {
    fn is_pressed(&self) -> bool {
        self.core.is_full_for(self.tenancy.tenant())
    }

    fn rest(&self) {
        if let Some(seat) = self.seat {
            self.core.rest(seat);
        }
    }

    async fn resume(&self) {
        if let Some(seat) = self.seat {
            self.core.resume(seat);
            seat.granted().await;
        }
    }
}

impl<B: ShardBody> Request<B> {
    /// A request made of batches of `whose`, who may be told better by the request itself.
    pub fn new(body: B, shares: Shares, whose: Whose, tenancies: &Tenancies) -> Self {
        let Whose { client, tenant: payer } = whose;
        let tenancy = tenancies.of(body.tenant().or(payer.as_ref()));
        Request { charge: body.size(), body, shares, client, tenancy, payer }
    }
}

impl<B: ShardBody> Piece<B> {
    fn halve(self) -> Result<[Self; 2], Self> {
        let Piece { body, shares } = self;
        match body.halve() {
            Ok([first, second]) => {
                let [left, right] = split(shares, first.items());
                Ok([Piece { body: first, shares: left }, Piece { body: second, shares: right }])
            }
            Err(body) => Err(Piece { body, shares }),
        }
    }
}

impl<E: ShardEncoder, S: Sender<E::Body>> InFlight<E, S> {
    pub fn new(core: Arc<Core<E, S>>, start: Start<E::Body>) -> Self {
        let Start { shard, request: Request { body, shares, client, tenancy, payer, charge }, seat } = start;
        core.shared.gauges.in_flight(1);
        let pieces = VecDeque::from([Piece { body, shares }]);
        let (started, finished) = (false, false);
        InFlight { core, shard, tenancy, seat, payer, charge, client, pieces, started, finished }
    }

    fn turn(&self) -> Turn {
        Turn {
            shard: self.shard,
            tenancy: self.tenancy.clone(),
            seat: self.seat.clone(),
            payer: self.payer.clone(),
            charge: self.charge,
        }
    }

    /// Sends the request, in pieces if need be. It is cut as often as its size demands, and for bad data as long as
    /// the attempts for that last. A piece that is delivered gives back those for a cut: few bad items among many
    /// are all found, and what is bad all over is given up soon.
    async fn send(&mut self) {
        self.started = true;
        let (core, tenancy, seat) = (self.core.clone(), self.tenancy.clone(), self.seat.clone());
        let place = Seated { core: &core, tenancy: &tenancy, seat: seat.as_ref() };
        if let Some(seat) = &seat {
            tokio::select! {
                biased;
                () = closed(&core.shared) => return self.finished = true,
                () = seat.granted() => {}
            }
        }
        let mut attempts = core.bisect;
        while let Some(piece) = self.pieces.front() {
            let end = deliver(&core.shared, &tenancy, &core.sender, &piece.body, &self.client, &place).await;
            let cut = match end {
                End::Cancelled => break,
                End::TooLarge { .. } => true,
                End::Rejected { bad_data, .. } => bad_data && attempts >= 2,
                _ => false,
            };
            let Some(mut piece) = self.pieces.pop_front() else { break };
            if attempts < core.bisect && matches!(end, End::Delivered { rejected: 0, .. }) {
                attempts += 2;
            }
            if cut {
                match piece.halve() {
                    Ok([first, second]) => {
                        if let End::Rejected { .. } = end {
                            attempts -= 2;
                        }
                        self.pieces.push_front(second);
                        self.pieces.push_front(first);
                        continue;
                    }
                    Err(whole) => piece = whole,
                }
            }
            let Piece { body, shares } = piece;
            // Before anybody hears of the end: who sends the data again must find that it was not delivered.
            drop(body);
            self.conclude(shares, end);
        }
        self.finished = true;
    }

    /// Books a piece that will not be sent again.
    fn conclude(&self, shares: Shares, end: End) {
        match end {
            End::Delivered { rejected, message } => self.delivered(shares, rejected, &message),
            End::TooLarge { reason } => self.refused(&shares, "too_large", "too_large", true, reason),
            End::Rejected { bad_data, reason } => {
                self.refused(&shares, "rejected", "not retryable error", bad_data, reason);
            }
            End::Expired { after, reason } => {
                let lost = shares.iter().filter(|s| !s.ticket.waited_for).map(|s| s.items).sum();
                if lost > 0 {
                    self.core.shared.log_drop(lost, "no more retries left", &reason);
                }
                let verdict = Verdict::Retry { after, reason };
                self.book(&shares, Fate::Undelivered("expired"), Some(&verdict));
            }
            End::Cancelled => self.core.give_up(shares, ENDED),
        }
    }

    /// Delivered, less what the destination did not want; that is taken to be the last.
    fn delivered(&self, shares: Shares, rejected: usize, message: &str) {
        let items = total(&shares);
        let rejected = rejected.min(items);
        let [sent, unwanted] = split(shares, items - rejected);
        self.book(&sent, Fate::Sent, None);
        self.book(&unwanted, Fate::Dropped("partial_success"), None);
        self.core.shared.log_partial(rejected, message);
    }

    fn refused(&self, shares: &[Share], reason: &'static str, kind: &str, bad_data: bool, message: String) {
        self.core.shared.log_drop(total(shares), kind, &message);
        let verdict = Verdict::Rejected { bad_data, reason: message };
        self.book(shares, Fate::Dropped(reason), Some(&verdict));
    }

    fn book(&self, shares: &[Share], fate: Fate, verdict: Option<&Verdict>) {
        for share in shares {
            self.core.book(share, fate, verdict);
        }
    }
}

impl<E: ShardEncoder, S: Sender<E::Body>> Drop for InFlight<E, S> {
    fn drop(&mut self) {
        self.core.shared.gauges.in_flight(-1);
        let why = if self.finished { ENDED } else { INTERRUPTED };
        for Piece { body, shares } in std::mem::take(&mut self.pieces) {
            drop(body);
            self.core.give_up(shares, why);
        }
        if self.finished {
            return;
        }
        // Only a panic leaves a runtime on which the shard can go on.
        if !self.started || !std::thread::panicking() {
            self.core.close();
        }
        self.core.torn_down(&self.turn());
    }
}

/// Sends a request, then whatever is next in its line, until nothing is.
pub(super) async fn work<E: ShardEncoder, S: Sender<E::Body>>(flight: InFlight<E, S>) {
    let mut next = Some(flight);
    while let Some(mut flight) = next {
        flight.send().await;
        let (core, turn) = (flight.core.clone(), flight.turn());
        drop(flight);
        next = core.finished(&turn).map(|start| InFlight::new(core, start));
    }
}
