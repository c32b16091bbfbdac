//! Admission of frames that are still on their way.
//!
//! The HTTP/2 library hands a DATA frame out when it is complete, so up to a frame of every connection is in
//! memory before a request can account for it. The gate closes that gap: past [`FREE`] bytes, a connection reads
//! on only when the ledger has room for as much again, up to [`STEP`], and what it then has read is in the ledger until the
//! frame is complete and its request takes over.
//!
//! A full ledger must not silence the receiver: its clients are owed a refusal, and that takes reading their
//! frame. So a few connections at a time ([`OVERDRAFTS`]) may read one frame past the budget; the others wait for
//! their turn, and one that makes no progress loses it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

use super::body::STEP;
use crate::pipeline::{Lease, Ledger};

/// What a connection may hold of an incomplete frame without asking.
pub const FREE: usize = 16 << 10;
/// How many connections may read past the budget at the same time.
const OVERDRAFTS: usize = 8;
/// How long a connection waits before it asks again.
const PAUSE: Duration = Duration::from_millis(20);
/// How long one frame may take past the budget.
const TURN: Duration = Duration::from_secs(5);

/// The gates of one server.
#[derive(Debug, Clone)]
pub struct Gates {
    ledger: Arc<Ledger>,
    overdrafts: Arc<Semaphore>,
}

/// One connection's gate.
#[derive(Debug)]
pub struct Gate {
    gates: Gates,
    lease: Option<Lease>,
    turn: Option<(OwnedSemaphorePermit, Instant)>,
    /// When to ask again, or when the turn is over.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Gates {
    /// Gates in front of `ledger`.
    pub fn new(ledger: Arc<Ledger>) -> Self {
        Gates { ledger, overdrafts: Arc::new(Semaphore::new(OVERDRAFTS)) }
    }

    /// A gate for one connection.
    pub fn open(&self) -> Gate {
        Gate { gates: self.clone(), lease: None, turn: None, timer: None }
    }
}

impl Gate {
    /// Whether the connection, which holds `held` bytes of an incomplete frame, may read on.
    ///
    /// # Errors
    /// It had its turn past the budget and did not use it.
    pub fn poll_pass(&mut self, held: usize, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Some((_, until)) = &self.turn {
                let until = *until;
                if Instant::now() >= until {
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "the frame is too slow",
                    )));
                }
                // Wakes a connection that waits for bytes which do not come.
                let _ = self.timer(until).as_mut().poll(cx);
                return Poll::Ready(Ok(()));
            }
            if self.admit(held + held.clamp(FREE, STEP)) {
                self.timer = None;
                return Poll::Ready(Ok(()));
            }
            match self.gates.overdrafts.clone().try_acquire_owned() {
                Ok(permit) => {
                    self.turn = Some((permit, Instant::now() + TURN));
                    self.timer = None;
                }
                Err(_) => {
                    let again = Instant::now() + PAUSE;
                    ready!(self.timer(again).as_mut().poll(cx));
                    self.timer = None;
                }
            }
        }
    }

    /// Notes that `held` bytes of an incomplete frame are here; 0 when the frame is complete.
    pub fn holds(&mut self, held: usize) {
        if held == 0 {
            self.lease = None;
            self.turn = None;
            self.timer = None;
        } else if let Some(lease) = &self.lease {
            lease.settle(held);
        } else if held > FREE {
            self.lease = Some(self.gates.ledger.hold(held));
        }
    }

    fn admit(&mut self, bytes: usize) -> bool {
        match &self.lease {
            Some(lease) => bytes <= lease.bytes() || lease.grow(bytes - lease.bytes()),
            None => {
                self.lease = self.gates.ledger.reserve(bytes);
                self.lease.is_some()
            }
        }
    }

    fn timer(&mut self, due: Instant) -> &mut Pin<Box<Sleep>> {
        self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    async fn pass(gate: &mut Gate, held: usize) -> io::Result<()> {
        poll_fn(|cx| gate.poll_pass(held, cx)).await
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_is_in_the_ledger_until_the_frame_is_complete() {
        let ledger = Ledger::new(1 << 20);
        let mut gate = Gates::new(ledger.clone()).open();
        gate.holds(FREE);
        assert_eq!(ledger.used(), 0);
        pass(&mut gate, FREE).await.unwrap();
        assert_eq!(ledger.used(), 2 * FREE);
        // More came than was asked for: it exists, so it counts.
        gate.holds(500_000);
        assert_eq!(ledger.used(), 500_000);
        pass(&mut gate, 500_000).await.unwrap();
        assert_eq!(ledger.used(), 500_000 + STEP);
        gate.holds(0);
        assert_eq!(ledger.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_ledger_lets_a_few_through_in_turn() {
        let ledger = Ledger::new(1000);
        let gates = Gates::new(ledger.clone());
        let mut open: Vec<Gate> = (0..=OVERDRAFTS).map(|_| gates.open()).collect();
        let mut last = open.pop().unwrap();
        for gate in &mut open {
            pass(gate, FREE).await.unwrap();
            gate.holds(FREE + 1);
        }
        assert_eq!(ledger.used(), OVERDRAFTS * (FREE + 1));
        let waits = async { pass(&mut last, FREE).await };
        assert!(tokio::time::timeout(Duration::from_secs(1), waits).await.is_err());
        // One is done: the next has its turn.
        open.pop();
        pass(&mut last, FREE).await.unwrap();
        // Who does not use it loses it.
        tokio::time::advance(TURN).await;
        assert!(pass(&mut last, FREE).await.is_err());
        drop((open, last));
        assert_eq!(ledger.used(), 0);
    }
}
