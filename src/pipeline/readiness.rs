//! Where the agent is between start and stop, as one value that whoever reports health can read or await.

use std::time::{Instant, SystemTime};

use tokio::sync::watch;

/// A stage of the agent's life; it only moves forward, except that a reload may go from `Ready` to `Ready`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Phase {
    /// Components are being started.
    #[default]
    Starting,
    /// Every pipeline takes data.
    Ready,
    /// Shutdown has begun: no new data is taken.
    Stopping,
}

/// The agent's phase. Clones share it.
#[derive(Debug, Clone)]
pub struct Readiness(watch::Sender<State>);

#[derive(Debug, Clone, Copy)]
struct State {
    phase: Phase,
    ready_since: Option<(SystemTime, Instant)>,
}

impl Default for Readiness {
    fn default() -> Self {
        Readiness(watch::Sender::new(State { phase: Phase::Starting, ready_since: None }))
    }
}

impl Readiness {
    /// The phase now.
    pub fn phase(&self) -> Phase {
        self.0.borrow().phase
    }

    /// When the agent became ready, on the wall clock and on the steady one; `None` while it is not ready.
    pub fn ready_since(&self) -> Option<(SystemTime, Instant)> {
        let state = *self.0.borrow();
        state.ready_since.filter(|_| state.phase == Phase::Ready)
    }

    /// Moves on to `phase`. Going back is ignored: once stopping, an agent does not become ready again.
    pub fn advance(&self, phase: Phase) {
        self.0.send_if_modified(|state| {
            let moves = phase > state.phase;
            if moves {
                state.phase = phase;
                state.ready_since = (phase == Phase::Ready).then(|| (SystemTime::now(), Instant::now()));
            }
            moves
        });
    }

    /// Returns when the agent has come to `phase` or beyond.
    pub async fn reached(&self, phase: Phase) {
        let mut changes = self.0.subscribe();
        // We hold a sender, so this ends only when the condition holds.
        let _ = changes.wait_for(|state| state.phase >= phase).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn phases_only_move_forward_and_wake_whoever_waits() {
        let readiness = Readiness::default();
        assert_eq!((readiness.phase(), readiness.ready_since()), (Phase::Starting, None));
        let (_, ()) =
            tokio::join!(readiness.reached(Phase::Ready), async { readiness.advance(Phase::Ready) });
        let since = readiness.ready_since();
        assert!(since.is_some());
        readiness.advance(Phase::Ready);
        assert_eq!(readiness.ready_since(), since);
        readiness.advance(Phase::Stopping);
        readiness.advance(Phase::Ready);
        assert_eq!((readiness.phase(), readiness.ready_since()), (Phase::Stopping, None));
    }
}
