//! When to try again: back-off of one request, pace of all requests of a tenant to a destination.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::RetryConfig;

/// No wait is shorter: an interval of 0 must not become a busy loop.
const LEAST: Duration = Duration::from_millis(1);

/// The waits of one request: exponential, capped, each varied at random.
#[derive(Debug)]
pub struct Backoff {
    next: f64,
    multiplier: f64,
    max: f64,
    factor: f64,
}

impl Backoff {
    /// Starts at the initial interval.
    pub fn new(config: &RetryConfig) -> Self {
        Backoff {
            next: config.initial_interval.as_secs_f64(),
            multiplier: config.multiplier,
            max: config.max_interval.as_secs_f64(),
            factor: config.randomization_factor,
        }
    }

    /// The next wait. `random` is in `0..1`.
    pub fn next(&mut self, random: f64) -> Duration {
        let base = self.next.min(self.max);
        self.next = (base * self.multiplier).min(self.max);
        let varied = base * (1.0 + self.factor * (2.0 * random - 1.0));
        Duration::try_from_secs_f64(varied).unwrap_or(Duration::MAX).max(LEAST)
    }
}

/// The moment before which a destination wants to hear nothing of a tenant: one request that is throttled holds back
/// all.
#[derive(Debug, Default)]
pub struct Pace(Mutex<Option<Instant>>);

impl Pace {
    /// Nothing is sent for `delay` from now; a longer wait already agreed stays.
    pub fn hold(&self, delay: Duration) {
        let until = Instant::now().checked_add(delay);
        let mut pace = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *pace = (*pace).max(until);
    }

    /// When sending may go on, if that is not now.
    pub fn until(&self) -> Option<Instant> {
        let mut pace = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pace.is_some_and(|until| until <= Instant::now()) {
            *pace = None;
        }
        *pace
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_are_capped_and_vary_within_the_factor() {
        let config = RetryConfig::default();
        let mut middle = Backoff::new(&config);
        let waits: Vec<f64> = (0..7).map(|_| middle.next(0.5).as_secs_f64()).collect();
        assert_eq!(waits, [5.0, 7.5, 11.25, 16.875, 25.3125, 30.0, 30.0]);
        let (mut low, mut high) = (Backoff::new(&config), Backoff::new(&config));
        assert_eq!(low.next(0.0), Duration::from_millis(2500));
        assert!(high.next(0.999_999) < Duration::from_millis(7500));
        let zero = RetryConfig { initial_interval: Duration::ZERO, ..config };
        assert_eq!(Backoff::new(&zero).next(0.5), LEAST);
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_hold_wins_and_ends() {
        let pace = Pace::default();
        assert_eq!(pace.until(), None);
        let start = Instant::now();
        pace.hold(Duration::from_secs(5));
        pace.hold(Duration::from_secs(2));
        assert_eq!(pace.until(), Some(start + Duration::from_secs(5)));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(pace.until(), None);
    }
}
