//! Whether a destination answers: ends back-offs when it comes back, and asks after it while senders are refused.
//!
//! Back-off spares a destination that is down, and costs nothing while there is room for what comes in. Once it
//! has answered again every further second of waiting is lost, and while senders are refused for want of room so
//! is every second in which nobody looks. Hence two promises:
//! * the first delivery after an outage ends the back-offs of all requests, spread over [`SPREAD`];
//! * while room is short ([`Life::ask`]), one of the resting requests is tried each [`PROBE`] at the latest.
//!
//! A destination that fails now and then has no outage: what it refused backs off as configured. Waits that the
//! destination asked for are none of this module's business, and kept.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::RetryConfig;

/// Failing for less than this is no outage.
const OUTAGE: Duration = Duration::from_secs(1);
/// The longest time without an attempt while room is short; a fifth of the first wait where that is longer.
const PROBE: Duration = Duration::from_secs(1);
/// How long it may take until all requests are tried again after an outage.
pub(super) const SPREAD: Duration = Duration::from_millis(500);

/// What is known of one destination.
#[derive(Debug)]
pub(super) struct Life {
    state: Mutex<State>,
    /// How many outages have ended.
    returns: watch::Sender<u64>,
    probe: Duration,
}

#[derive(Debug)]
struct State {
    /// When the first attempt began that failed since the last delivery.
    failing: Option<Instant>,
    /// When the last attempt began.
    attempted: Instant,
}

impl Life {
    pub fn new(retry: &RetryConfig) -> Self {
        let state = State { failing: None, attempted: Instant::now() };
        Life {
            state: Mutex::new(state),
            returns: watch::Sender::new(0),
            probe: PROBE.max(retry.initial_interval / 5),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An attempt begins.
    pub fn attempt(&self) -> Instant {
        let now = Instant::now();
        self.lock().attempted = now;
        now
    }

    /// The attempt that began then has failed.
    pub fn failed(&self, began: Instant) {
        let mut state = self.lock();
        state.failing = Some(state.failing.map_or(began, |first| first.min(began)));
    }

    /// An attempt has delivered. Whether that is the end of an outage, for the caller to [`tell`](Life::tell).
    pub fn delivered(&self) -> bool {
        let failing = self.lock().failing.take();
        failing.is_some_and(|since| since.elapsed() >= OUTAGE)
    }

    /// Whether an attempt has failed since the last delivery.
    pub fn is_failing(&self) -> bool {
        self.lock().failing.is_some()
    }

    /// Ends the back-offs of those who listen.
    pub fn tell(&self) {
        self.returns.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Changes at the end of each outage that was told.
    pub fn returns(&self) -> watch::Receiver<u64> {
        self.returns.subscribe()
    }

    /// When to [`ask`](Life::ask) next.
    pub fn next_look(&self) -> Instant {
        let (now, due) = (Instant::now(), self.lock().attempted + self.probe);
        if due > now { due } else { now + self.probe }
    }

    /// Whether the caller is to try now, because nobody has for a while. True for one caller at a time.
    pub fn ask(&self) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        let due = state.failing.is_some() && now >= state.attempted + self.probe;
        if due {
            state.attempted = now;
        }
        due
    }
}
