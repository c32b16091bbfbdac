//! Reading a request's body: bounded, admitted as it arrives, copied at most once.
//!
//! * **Admission.** Memory is reserved for what has arrived, and as much again ahead of it up to [`STEP`]: a client
//!   that announces 4 MiB and sends nothing holds [`FIRST_STEP`] bytes of the budget. When the ledger refuses,
//!   reading ends.
//! * **Copies.** A body that arrives in one piece is used where it lies; one in several pieces is copied once,
//!   piece by piece, so that a million tiny frames cost their bytes and not a million buffers.
//! * **Patience.** A body that does not bring [`PROGRESS`] bytes in [`STALL`] is given up, so that nobody can hold
//!   the budget with a byte a minute, as is one that misses the request's deadline, and every incomplete body
//!   shortly after the agent was told to stop.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, Sleep};

use super::conn::Conn;
use super::status::{DEFAULT_RETRY, Failure, Reason};
use crate::pipeline::{Lease, Ledger};

/// How far ahead of what has arrived memory is reserved at most.
pub const STEP: usize = 64 << 10;
/// How far ahead of the first bytes.
const FIRST_STEP: usize = 4 << 10;
/// A body that makes no progress for this long is given up.
pub const STALL: Duration = Duration::from_secs(60);
/// Fewer bytes are no progress.
const PROGRESS: usize = 16 << 10;
/// The first buffer of a body in several pieces; bodies up to this size are never moved while they grow.
const FIRST_BUFFER: usize = 256 << 10;

/// Why waiting ended without what was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expired {
    /// The request's own deadline passed.
    Deadline,
    /// Nothing worth mentioning came for [`STALL`].
    Stalled,
    /// The agent is stopping.
    Stopping,
}

/// How long a request waits for its client.
pub struct Patience {
    deadline: Option<Instant>,
    /// When the body has stalled, once it was waited for.
    stalled: Option<Instant>,
    /// Bytes towards the next [`PROGRESS`].
    arrived: usize,
    /// Made when something is waited for, and kept: most requests set one timer or none.
    timer: Option<Pin<Box<Sleep>>>,
}

/// The memory a body holds, growing with it.
pub struct Admission {
    lease: Lease,
}

/// The bytes of a body so far.
#[derive(Debug, Default)]
pub enum Gather {
    /// None.
    #[default]
    Empty,
    /// One piece, as it came.
    One(Bytes),
    /// Several pieces in one buffer.
    Many(Vec<u8>),
}

impl Patience {
    /// Patience until `deadline`.
    pub fn new(deadline: Option<Instant>) -> Self {
        Patience { deadline, stalled: None, arrived: 0, timer: None }
    }

    /// Notes that this many bytes have come.
    pub fn progress(&mut self, bytes: usize) {
        self.arrived += bytes;
        if self.arrived >= PROGRESS {
            self.arrived = 0;
            self.stalled = None;
        }
    }

    /// Waits for `poll`, as long as there was [`progress`](Patience::progress) lately.
    ///
    /// # Errors
    /// [`Expired`], whichever comes first.
    pub async fn wait<T>(
        &mut self,
        conn: &Conn,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Result<T, Expired> {
        let mut cut = pin!(conn.cut_off());
        poll_fn(|cx| {
            if let Poll::Ready(value) = poll(cx) {
                return Poll::Ready(Ok(value));
            }
            if cut.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(Expired::Stopping));
            }
            let stalled = *self.stalled.get_or_insert_with(|| Instant::now() + STALL);
            self.poll_expired(stalled, cx).map(Err)
        })
        .await
    }

    /// Waits for `poll` until the deadline only: for what the client is not to blame for.
    ///
    /// # Errors
    /// The deadline passed.
    pub async fn wait_verdict<F: Future>(&mut self, future: F) -> Result<F::Output, Expired> {
        match self.deadline {
            None => Ok(future.await),
            Some(deadline) => tokio::time::timeout_at(deadline, future).await.map_err(|_| Expired::Deadline),
        }
    }

    fn poll_expired(&mut self, stalled: Instant, cx: &mut Context<'_>) -> Poll<Expired> {
        let (due, why) = match self.deadline {
            Some(deadline) if deadline < stalled => (deadline, Expired::Deadline),
            _ => (stalled, Expired::Stalled),
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        // A timer set for an earlier wait may fire too early; it is moved only then.
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= due {
                return Poll::Ready(why);
            }
            timer.as_mut().reset(due);
        }
        Poll::Pending
    }
}

impl From<Expired> for Failure {
    fn from(expired: Expired) -> Self {
        match expired {
            Expired::Deadline => {
                Failure::new(tonic::Code::DeadlineExceeded, Reason::Deadline, "the request's deadline passed")
            }
            Expired::Stalled => Failure::new(
                tonic::Code::DeadlineExceeded,
                Reason::Stalled,
                format!("next to nothing of the request arrived for {} s", STALL.as_secs()),
            ),
            Expired::Stopping => Failure::retry(Reason::Stopping, DEFAULT_RETRY, "the agent is stopping"),
        }
    }
}

impl Admission {
    /// Reserves for a body whose first `arrived` bytes are here and whose full length is `expected` where known.
    ///
    /// # Errors
    /// The ledger has no room.
    pub fn new(ledger: &Arc<Ledger>, arrived: usize, expected: Option<usize>) -> Result<Self, Failure> {
        let lease = ledger.reserve(ahead(arrived, expected)).ok_or_else(Failure::memory)?;
        Ok(Admission { lease })
    }

    /// Reserves for `arrived` bytes in all.
    ///
    /// # Errors
    /// The ledger has no room.
    pub fn hold(&self, arrived: usize, expected: Option<usize>) -> Result<(), Failure> {
        let held = self.lease.bytes();
        if arrived <= held || self.lease.grow(ahead(arrived, expected).max(arrived) - held) {
            Ok(())
        } else {
            Err(Failure::memory())
        }
    }

    /// The reservation, for the batch.
    pub fn into_lease(self) -> Lease {
        self.lease
    }
}

impl Gather {
    /// Bytes so far.
    pub fn len(&self) -> usize {
        match self {
            Gather::Empty => 0,
            Gather::One(bytes) => bytes.len(),
            Gather::Many(buf) => buf.len(),
        }
    }

    /// The first `N` bytes, once they are here.
    pub fn first<const N: usize>(&self) -> Option<[u8; N]> {
        let bytes: &[u8] = match self {
            Gather::Empty => &[],
            Gather::One(bytes) => bytes,
            Gather::Many(buf) => buf,
        };
        bytes.first_chunk().copied()
    }

    /// Adds a piece. `expected` is the length of the whole where known: nothing is moved twice then.
    pub fn push(&mut self, piece: Bytes, expected: Option<usize>) {
        if piece.is_empty() {
            return;
        }
        match self {
            Gather::Empty => *self = Gather::One(piece),
            Gather::One(first) => {
                let mut buf = Vec::with_capacity(room(first.len() + piece.len(), expected));
                buf.extend_from_slice(first);
                buf.extend_from_slice(&piece);
                *self = Gather::Many(buf);
            }
            Gather::Many(buf) => {
                let need = buf.len() + piece.len();
                if need > buf.capacity() {
                    buf.reserve_exact(room(need, expected) - buf.len());
                }
                buf.extend_from_slice(&piece);
            }
        }
    }

    /// The body. A single piece shorter than `least` is copied, so that it does not keep a large read buffer
    /// alive.
    pub fn finish(self, least: usize) -> Bytes {
        match self {
            Gather::Empty => Bytes::new(),
            Gather::One(bytes) if bytes.len() < least => Bytes::copy_from_slice(&bytes),
            Gather::One(bytes) => bytes,
            Gather::Many(buf) => buf.into(),
        }
    }
}

/// How much to reserve for a body of which `arrived` bytes are here.
fn ahead(arrived: usize, expected: Option<usize>) -> usize {
    let step = arrived.saturating_add(arrived.clamp(FIRST_STEP, STEP));
    expected.map_or(step, |all| all.min(step)).max(arrived)
}

/// How large a buffer for `need` bytes is to be: the whole body if that is little or mostly here, four times what
/// is here otherwise. What is not written to is not resident, so this is address space, not memory.
fn room(need: usize, expected: Option<usize>) -> usize {
    let generous = need.saturating_mul(4).max(FIRST_BUFFER);
    expected.map_or(need.saturating_mul(2), |all| all.min(generous)).max(need)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receivers::otlp::ingest::plain_client;
    use tokio::sync::mpsc;

    #[test]
    fn a_promise_of_megabytes_reserves_little() {
        let ledger = Ledger::new(1 << 20);
        let admission = Admission::new(&ledger, 5, Some(4 << 20)).unwrap();
        assert_eq!(ledger.used(), 5 + FIRST_STEP);
        admission.hold(5 + FIRST_STEP, Some(4 << 20)).unwrap();
        assert_eq!(ledger.used(), 5 + FIRST_STEP);
        admission.hold(6 + FIRST_STEP, Some(4 << 20)).unwrap();
        assert_eq!(ledger.used(), 2 * (6 + FIRST_STEP));
        admission.hold(2 * STEP, Some(4 << 20)).unwrap();
        assert_eq!(ledger.used(), 3 * STEP);
        assert_eq!(admission.hold(2 << 20, Some(4 << 20)), Err(Failure::memory()));
        drop(admission);
        let small = Admission::new(&ledger, 0, Some(100)).unwrap();
        assert_eq!((ledger.used(), small.into_lease().bytes()), (100, 100));
    }

    #[test]
    fn pieces_come_out_as_they_went_in() {
        for (sizes, expected) in [
            (&[10usize][..], None),
            (&[1, 1, 1, 1], Some(4)),
            (&[0, 300_000, 0, 700_000], Some(1_000_000)),
            (&[5, 400_000, 1], None),
            // An announced length that is not kept to.
            (&[5, 10], Some(8)),
        ] {
            let mut gather = Gather::default();
            let mut want = Vec::new();
            for (i, &size) in sizes.iter().enumerate() {
                let piece = vec![i as u8; size];
                want.extend_from_slice(&piece);
                gather.push(piece.into(), expected);
                assert_eq!(gather.len(), want.len());
            }
            if let Gather::Many(buf) = &gather
                && expected == Some(want.len())
            {
                assert_eq!(buf.capacity(), want.len());
            }
            assert_eq!(gather.first::<4>().as_ref().map(|h| &h[..]), want.get(..4));
            assert_eq!(gather.finish(0), want);
        }
    }

    #[test]
    fn one_piece_is_not_copied_unless_it_is_small() {
        let piece = Bytes::from(vec![1; 100]);
        let at = piece.as_ptr();
        let mut gather = Gather::default();
        gather.push(piece.clone(), None);
        assert_eq!(gather.finish(100).as_ptr(), at);
        let mut gather = Gather::default();
        gather.push(piece, None);
        assert_ne!(gather.finish(101).as_ptr(), at);
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends_by_stall_deadline_or_stop() {
        let conn = Conn::new(plain_client(None, None), mpsc::channel(1).0);
        let start = Instant::now();
        let never = |_: &mut Context<'_>| Poll::<()>::Pending;
        assert_eq!(Patience::new(None).wait(&conn, never).await, Err(Expired::Stalled));
        assert_eq!(start.elapsed().as_secs(), STALL.as_secs());

        let mut patience = Patience::new(None);
        for _ in 0..3 {
            // Progress after 50 s each time is progress.
            let mut nap = pin!(tokio::time::sleep(Duration::from_secs(50)));
            assert_eq!(patience.wait(&conn, |cx| nap.as_mut().poll(cx)).await, Ok(()));
            patience.progress(PROGRESS);
        }
        // A byte after 50 s is none.
        for want in [Ok(()), Err(Expired::Stalled)] {
            let mut nap = pin!(tokio::time::sleep(Duration::from_secs(50)));
            assert_eq!(patience.wait(&conn, |cx| nap.as_mut().poll(cx)).await, want);
            patience.progress(1);
        }

        let start = Instant::now();
        let deadline = start + Duration::from_secs(3);
        assert_eq!(Patience::new(Some(deadline)).wait(&conn, never).await, Err(Expired::Deadline));
        assert_eq!(start.elapsed().as_secs(), 3);

        let wait = async { Patience::new(None).wait(&conn, never).await };
        let stop = async { conn.cut() };
        assert_eq!(tokio::join!(wait, stop).0, Err(Expired::Stopping));
        assert_eq!(Patience::new(None).wait(&conn, never).await, Err(Expired::Stopping));
    }
}
