//! One shard: sends its requests one after the other, cuts what is refused, and books every item.

use std::collections::VecDeque;
use std::sync::Arc;

use super::engine::{Core, ENDED, Fate, INTERRUPTED};
use super::ticket::{Share, Shares, split, total};
use super::{ShardBody, ShardEncoder};
use crate::exporters::delivery::Sender;
use crate::exporters::delivery::attempts::{End, deliver};
use crate::pdata::ClientInfo;
use crate::pipeline::Verdict;

/// A request in a shard's line.
pub(super) struct Request<B> {
    body: B,
    pub shares: Shares,
    client: Arc<ClientInfo>,
    /// Bytes in the backlog, returned when the last piece of it is finished.
    pub charge: usize,
}

/// What a request was cut into.
struct Piece<B> {
    body: B,
    shares: Shares,
}

/// A request being sent. Dropped in the middle (a panic, the runtime's end) it still books what it holds.
struct InFlight<'a, E: ShardEncoder, S: Sender<E::Body>> {
    core: &'a Arc<Core<E, S>>,
    shard: usize,
    charge: usize,
    /// Not yet booked; the first one is being sent.
    pieces: VecDeque<Piece<E::Body>>,
    finished: bool,
}

impl<B: ShardBody> Request<B> {
    pub fn new(body: B, shares: Shares, client: Arc<ClientInfo>) -> Self {
        Request { charge: body.size(), body, shares, client }
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

impl<E: ShardEncoder, S: Sender<E::Body>> InFlight<'_, E, S> {
    fn book(&self, shares: &[Share], fate: Fate, verdict: Option<&Verdict>) {
        for share in shares {
            self.core.book(share, fate, verdict);
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
}

impl<E: ShardEncoder, S: Sender<E::Body>> Drop for InFlight<'_, E, S> {
    fn drop(&mut self) {
        self.core.shared.gauges.in_flight(-1);
        let why = if self.finished { ENDED } else { INTERRUPTED };
        for piece in std::mem::take(&mut self.pieces) {
            self.core.give_up(piece.shares, why);
        }
        if !self.finished {
            self.core.torn_down(self.shard, self.charge);
        }
    }
}

/// Sends `request`, then whatever is next in the shard's line, until nothing is.
pub(super) async fn work<E: ShardEncoder, S: Sender<E::Body>>(
    core: Arc<Core<E, S>>,
    shard: usize,
    request: Request<E::Body>,
) {
    let mut next = Some(request);
    while let Some(request) = next {
        let charge = request.charge;
        send(&core, shard, request).await;
        next = core.finished(shard, charge);
    }
}

/// Sends a request, in pieces if need be. It is cut as often as its size demands, and for bad data as long as the
/// attempts for that last.
async fn send<E: ShardEncoder, S: Sender<E::Body>>(
    core: &Arc<Core<E, S>>,
    shard: usize,
    request: Request<E::Body>,
) {
    let Request { body, shares, client, charge } = request;
    core.shared.gauges.in_flight(1);
    let pieces = VecDeque::from([Piece { body, shares }]);
    let mut flight = InFlight { core, shard, charge, pieces, finished: false };
    let mut attempts = core.bisect;
    let pressed = || core.is_full();
    while let Some(piece) = flight.pieces.front() {
        let end = deliver(&core.shared, &core.sender, &piece.body, &client, &pressed).await;
        let cut = match end {
            End::TooLarge { .. } => true,
            End::Rejected { bad_data, .. } => bad_data && attempts >= 2,
            _ => false,
        };
        if let End::Cancelled = end {
            break;
        }
        let Some(mut piece) = flight.pieces.pop_front() else { break };
        if cut && piece.body.items() > 1 {
            match piece.halve() {
                Ok([first, second]) => {
                    if let End::Rejected { .. } = end {
                        attempts -= 2;
                    }
                    flight.pieces.push_front(second);
                    flight.pieces.push_front(first);
                    continue;
                }
                Err(whole) => piece = whole,
            }
        }
        let shares = piece.shares;
        match end {
            End::Delivered { rejected, message } => flight.delivered(shares, rejected, &message),
            End::TooLarge { reason } => flight.refused(&shares, "too_large", "too_large", true, reason),
            End::Rejected { bad_data, reason } => {
                flight.refused(&shares, "rejected", "not retryable error", bad_data, reason);
            }
            End::Expired { after, reason } => {
                let lost = shares.iter().filter(|s| !s.ticket.waited_for).map(|s| s.items).sum();
                if lost > 0 {
                    core.shared.log_drop(lost, "no more retries left", &reason);
                }
                let verdict = Verdict::Retry { after, reason };
                flight.book(&shares, Fate::Undelivered("expired"), Some(&verdict));
            }
            End::Cancelled => {}
        }
    }
    flight.finished = true;
}
