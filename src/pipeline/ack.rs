//! Acknowledgements: who waits for what.
//!
//! A receiver calls [`ack`] and waits on the returned future; the [`Ack`] travels with the batch. Fan-out
//! clones it (one more share), merging collects several, splitting clones again. The verdict is known when
//! the last share is resolved; it is the worst of all shares: retry beats rejected beats accepted, because a
//! retry may still deliver what another branch refused for good.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use smallvec::SmallVec;
use tokio::sync::oneshot;

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Taken in charge as the destination's queue promises (queued, on disk, or delivered).
    Accepted,
    /// Not now; the same data may be sent again, not before `after` if given.
    Retry {
        /// The least time to wait, where it is known.
        after: Option<Duration>,
        /// One sentence for the sender and the log.
        reason: String,
    },
    /// Never: sending the same data again cannot help.
    Rejected {
        /// Whether the data itself is at fault (INVALID_ARGUMENT) or something behind us (INTERNAL).
        bad_data: bool,
        /// One sentence for the sender and the log.
        reason: String,
    },
}

impl Verdict {
    /// A retry without a known delay.
    pub fn retry(reason: impl Into<String>) -> Self {
        Verdict::Retry { after: None, reason: reason.into() }
    }

    fn rank(&self) -> u8 {
        match self {
            Verdict::Accepted => 0,
            Verdict::Rejected { .. } => 1,
            Verdict::Retry { .. } => 2,
        }
    }

    /// The worse of two verdicts; of two retries the longer delay.
    pub fn worst(self, other: Verdict) -> Verdict {
        match (&self, &other) {
            (Verdict::Retry { after: a, .. }, Verdict::Retry { after: b, .. }) if b > a => other,
            _ if other.rank() > self.rank() => other,
            _ => self,
        }
    }
}

#[derive(Debug)]
struct Shared {
    /// Shares not yet resolved; the one that takes it to zero sends the verdict.
    open: AtomicUsize,
    /// Worst verdict so far, and where to send it. Locked once a share that is not plainly accepted, and once
    /// at the end: never per item.
    state: Mutex<(Verdict, Option<oneshot::Sender<Verdict>>)>,
}

/// One share of an acknowledgement. Dropping it unresolved counts as "retry".
#[derive(Debug)]
pub struct Ack(Option<Arc<Shared>>);

/// Opens an acknowledgement with one share, and the future of its verdict.
pub fn ack() -> (Ack, oneshot::Receiver<Verdict>) {
    let (tx, rx) = oneshot::channel();
    let shared = Shared { open: AtomicUsize::new(1), state: Mutex::new((Verdict::Accepted, Some(tx))) };
    (Ack(Some(Arc::new(shared))), rx)
}

impl Ack {
    /// Resolves this share.
    pub fn resolve(mut self, verdict: Verdict) {
        self.settle(verdict);
    }

    fn settle(&mut self, verdict: Verdict) {
        let Some(shared) = self.0.take() else { return };
        if verdict != Verdict::Accepted {
            let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            let worst = std::mem::replace(&mut state.0, Verdict::Accepted).worst(verdict);
            state.0 = worst;
        }
        if shared.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            let worst = std::mem::replace(&mut state.0, Verdict::Accepted);
            if let Some(tx) = state.1.take() {
                // A receiver that no longer waits (client gone) needs no answer.
                let _ = tx.send(worst);
            }
        }
    }
}

impl Clone for Ack {
    fn clone(&self) -> Self {
        if let Some(shared) = &self.0 {
            shared.open.fetch_add(1, Ordering::Relaxed);
        }
        Ack(self.0.clone())
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        self.settle(Verdict::retry("the agent dropped the request without a verdict"));
    }
}

/// All that waits for one batch: several shares after a merge, none for telemetry acknowledged already.
///
/// A merge may bring together what was acknowledged and what was not. Refusing such a batch would lose the
/// acknowledged part, so `settled` sticks: whoever gets a settled batch must take it.
#[derive(Debug, Clone)]
pub struct Acks {
    shares: SmallVec<[Ack; 1]>,
    settled: bool,
}

impl Acks {
    /// Nobody waits: the batch was acknowledged already, or is of our own making.
    pub fn none() -> Self {
        Acks { shares: SmallVec::new(), settled: true }
    }

    /// Whether some of the batch was acknowledged already, so that refusing it would be a loss.
    pub fn settled(&self) -> bool {
        self.settled
    }

    /// Resolves every share with the same verdict.
    pub fn resolve(self, verdict: Verdict) {
        for ack in self.shares {
            ack.resolve(verdict.clone());
        }
    }

    /// Takes over the shares of another batch, for a merge.
    pub fn append(&mut self, other: Acks) {
        self.shares.extend(other.shares);
        self.settled |= other.settled;
    }
}

impl Default for Acks {
    fn default() -> Self {
        Acks::none()
    }
}

impl From<Ack> for Acks {
    fn from(ack: Ack) -> Self {
        let mut shares = SmallVec::new();
        shares.push(ack);
        Acks { shares, settled: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_share_sends_the_worst_verdict() {
        let rejected = || Verdict::Rejected { bad_data: false, reason: "no".into() };
        let later = |s| Verdict::Retry { after: Some(Duration::from_secs(s)), reason: "later".into() };
        let cases: Vec<(Vec<Verdict>, Verdict)> = vec![
            (vec![Verdict::Accepted], Verdict::Accepted),
            (vec![Verdict::Accepted, rejected(), Verdict::Accepted], rejected()),
            (vec![rejected(), Verdict::retry("x")], Verdict::retry("x")),
            (vec![later(1), later(5), Verdict::retry("x")], later(5)),
        ];
        for (verdicts, want) in cases {
            let (first, mut rx) = ack();
            let shares: Vec<Ack> = verdicts.iter().map(|_| first.clone()).collect();
            first.resolve(Verdict::Accepted);
            for (share, verdict) in shares.into_iter().zip(verdicts) {
                assert!(rx.try_recv().is_err(), "sent before the last share");
                share.resolve(verdict);
            }
            assert_eq!(rx.try_recv(), Ok(want));
        }
    }

    #[test]
    fn a_dropped_share_is_a_retry() {
        let (first, mut rx) = ack();
        drop(Acks::from(first));
        assert!(matches!(rx.try_recv(), Ok(Verdict::Retry { .. })));
    }

    #[test]
    fn a_merge_with_acknowledged_data_is_settled() {
        let (share, _verdict) = ack();
        let mut merged = Acks::from(share);
        assert!(!merged.settled());
        merged.append(Acks::none());
        assert!(merged.settled());
    }
}
