//! One shard: sends its requests one after the other, cuts what is refused, and books every item.

use std::collections::VecDeque;
use std::sync::Arc;

use super::engine::{Core, ENDED, Fate, INTERRUPTED};
use super::ticket::{Share, Shares, split, total};
use super::{ShardBody, ShardEncoder};
use crate::exporters::delivery::Sender;
use crate::exporters::delivery::attempts::{End, Place, deliver};
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

/// A request on its way. Dropped in the middle (a panic, the runtime's end) it still books what it holds.
pub(super) struct InFlight<E: ShardEncoder, S: Sender<E::Body>> {
    core: Arc<Core<E, S>>,
    shard: usize,
    charge: usize,
    client: Arc<ClientInfo>,
    /// Not yet booked; the first one is being sent.
    pieces: VecDeque<Piece<E::Body>>,
    started: bool,
    finished: bool,
}

/// A shard's one place, kept while a request rests: the order of series depends on it.
struct Shard<'a, E: ShardEncoder, S: Sender<E::Body>> {
    core: &'a Arc<Core<E, S>>,
}

impl<E: ShardEncoder, S: Sender<E::Body>> Place for Shard<'_, E, S> {
    fn is_pressed(&self) -> bool {
        self.core.is_strained()
    }
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

impl<E: ShardEncoder, S: Sender<E::Body>> InFlight<E, S> {
    pub fn new(core: Arc<Core<E, S>>, shard: usize, request: Request<E::Body>) -> Self {
        let Request { body, shares, client, charge } = request;
        core.shared.gauges.in_flight(1);
        let pieces = VecDeque::from([Piece { body, shares }]);
        InFlight { core, shard, charge, client, pieces, started: false, finished: false }
    }

    /// Sends the request, in pieces if need be. It is cut as often as its size demands, and for bad data as long as
    /// the attempts for that last. A piece that is delivered gives back those for a cut: few bad items among many
    /// are all found, and what is bad all over is given up soon.
    async fn send(&mut self) {
        self.started = true;
        let core = self.core.clone();
        let place = Shard { core: &core };
        let tenancy = core.shared.tenancies.of(None);
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
        self.core.torn_down(self.shard, self.charge);
    }
}

/// Sends a request, then whatever is next in its shard's line, until nothing is.
pub(super) async fn work<E: ShardEncoder, S: Sender<E::Body>>(flight: InFlight<E, S>) {
    let mut next = Some(flight);
    while let Some(mut flight) = next {
        flight.send().await;
        let (core, shard, charge) = (flight.core.clone(), flight.shard, flight.charge);
        drop(flight);
        next = core.finished(shard, charge).map(|request| InFlight::new(core, shard, request));
    }
}
