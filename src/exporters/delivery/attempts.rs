//! One request: attempts and waits until it has an end, by the rules of retry, pace and life.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::life::SPREAD;
use super::shared::{Phase, Shared};
use super::tenancy::Tenancy;
use super::{Attempt, Backoff, Outcome, Sender};
use crate::pdata::{ClientInfo, Tenant};

/// The longest wait a destination can ask for: beyond it the number is more likely wrong than meant.
const LONGEST: Duration = Duration::from_secs(3600);

/// How a request ended after all its attempts.
pub(super) enum End {
    Delivered { rejected: usize, message: String },
    Rejected { bad_data: bool, reason: String },
    TooLarge { reason: String },
    Expired { after: Option<Duration>, reason: String },
    Cancelled,
}

/// The place of a request among those that are sent at the same time.
pub(super) trait Place: Sync {
    /// Whether senders of the request's tenant are refused, or soon will be, for want of room.
    fn is_pressed(&self) -> bool;

    /// The request rests: its place may be given to another one. Called once before each [`resume`](Place::resume).
    fn rest(&self) {}

    /// Waits until the request may go on. Dropped when sending ends.
    fn resume(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// One request: attempts and waits until it has an end.
pub(super) async fn deliver<B: Sync, S: Sender<B>>(
    shared: &Shared,
    tenancy: &Tenancy,
    sender: &S,
    body: &B,
    client: &ClientInfo,
    place: &impl Place,
) -> End {
    let mut backoff = Backoff::new(&shared.retry);
    let mut started = None;
    let mut resting = false;
    loop {
        // When it has its place again, a wait may have been agreed meanwhile.
        loop {
            if let Some(until) = tenancy.pace.until() {
                if !resting {
                    place.rest();
                    resting = true;
                }
                tokio::select! {
                    biased;
                    () = closed(shared) => return End::Cancelled,
                    () = tokio::time::sleep_until(until) => {}
                }
            } else if resting {
                tokio::select! {
                    biased;
                    () = closed(shared) => return End::Cancelled,
                    () = place.resume() => resting = false,
                }
            } else {
                break;
            }
        }
        let started = *started.get_or_insert_with(Instant::now);
        let began = tenancy.attempt();
        let attempt = Attempt { body, signal: shared.signal, client, tenant: tenancy.tenant() };
        let outcome = tokio::select! {
            biased;
            outcome = in_time(shared.timeout, sender.send(attempt)) => outcome,
            () = closed(shared) => return End::Cancelled,
        };
        let (after, reason) = match outcome {
            Outcome::Delivered { rejected, message } => {
                tenancy.delivered();
                return End::Delivered { rejected, message };
            }
            Outcome::Rejected { bad_data, reason } => return End::Rejected { bad_data, reason },
            Outcome::TooLarge { reason } => return End::TooLarge { reason },
            Outcome::Retry { after, reason } => (after, reason),
        };
        let mut wait = backoff.next(fastrand::f64());
        if let Some(delay) = after {
            wait = wait.max(delay.min(LONGEST));
            tenancy.pace.hold(wait);
        }
        if !shared.retry.enabled {
            return End::Expired { after, reason };
        }
        let limit = shared.retry.max_elapsed_time;
        if !limit.is_zero() && started.elapsed().saturating_add(wait) > limit {
            return End::Expired { after, reason };
        }
        tracing::info!(
            otelcol.component.id = %shared.id, otelcol.component.kind = "exporter",
            otelcol.signal = shared.signal.name(), tenant = tenancy.tenant().map(Tenant::name), error = reason,
            interval = ?wait,
            "Exporting failed. Will retry the request after interval."
        );
        // Listening comes first: what is told from here on is heard.
        let returns = tenancy.returns();
        tenancy.failed(began);
        place.rest();
        resting = true;
        if !rest(shared, tenancy, returns, wait, after.is_some(), place).await {
            return End::Cancelled;
        }
    }
}

async fn in_time(limit: Duration, attempt: impl Future<Output = Outcome>) -> Outcome {
    if limit.is_zero() {
        return attempt.await;
    }
    match tokio::time::timeout(limit, attempt).await {
        Ok(outcome) => outcome,
        Err(_) => Outcome::retry(format!("no answer within the timeout of {limit:?}")),
    }
}

/// Waits after a failed attempt; `false` when sending has ended. A back-off ends early when the destination is back, when it is this request's turn to see whether it is, and when a drain starts; during a
/// drain it takes no more than half of the time that is left. A wait the destination asked for is kept in full.
async fn rest(
    shared: &Shared,
    tenancy: &Tenancy,
    [mut own, mut whole]: [watch::Receiver<u64>; 2],
    wait: Duration,
    asked_for: bool,
    place: &impl Place,
) -> bool {
    let mut phase = shared.phase.subscribe();
    let now = *phase.borrow_and_update();
    let wait = match now {
        Phase::Closed => return false,
        Phase::Draining(deadline) if !asked_for => {
            let left = deadline.saturating_duration_since(Instant::now());
            wait.min((left / 2).max(Duration::from_millis(50)))
        }
        _ => wait,
    };
    // A year stands for whatever is longer: the sum must not overflow.
    let mut until = Instant::now() + wait.min(LONGEST * 24 * 365);
    loop {
        let look = if asked_for { until } else { until.min(tenancy.next_look()) };
        tokio::select! {
            () = tokio::time::sleep_until(look) => {
                if look == until || (shared.ledger.is_pressed() || place.is_pressed()) && tenancy.ask() {
                    return true;
                }
            }
            Ok(()) = async { tokio::select! { told = own.changed() => told, told = whole.changed() => told } },
                if !asked_for =>
            {
                until = until.min(Instant::now() + SPREAD.mul_f64(fastrand::f64()));
            }
            changed = phase.changed() => {
                let now = *phase.borrow_and_update();
                match now {
                    Phase::Closed => return false,
                    Phase::Draining(_) if !asked_for => return true,
                    _ if changed.is_err() => return false,
                    _ => {}
                }
            }
        }
    }
}

/// Waits until sending has ended.
pub(super) async fn closed(shared: &Shared) {
    // The engine keeps the channel open, so that this cannot fail.
    let _ = shared.phase.subscribe().wait_for(|phase| *phase == Phase::Closed).await;
}
