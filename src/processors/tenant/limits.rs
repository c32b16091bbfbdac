//! Rates: how much a tenant may still send.
//!
//! A bucket holds one second's worth. A request passes while there is anything left and is then taken out whole, so
//! that the bucket may owe; until that is paid back nothing passes. However large requests are, the rate is held in
//! the long run, and how long a refused sender has to wait is known exactly.

use std::time::{Duration, Instant};

/// What one tenant may still send.
#[derive(Debug)]
pub(super) struct Meter {
    bytes: Bucket,
    items: Bucket,
}

#[derive(Debug)]
struct Bucket {
    /// A second; 0 is no limit.
    rate: f64,
    level: f64,
    /// When the level was right; `None` before the first request.
    at: Option<Instant>,
}

impl Meter {
    /// Limits a second; 0 is none.
    pub(super) fn new(bytes: u64, items: u64) -> Self {
        Meter { bytes: Bucket::new(bytes), items: Bucket::new(items) }
    }

    /// How long until something passes; `None` if it does now.
    pub(super) fn wait(&mut self, now: Instant) -> Option<Duration> {
        self.bytes.wait(now).max(self.items.wait(now))
    }

    /// Takes out what has passed.
    pub(super) fn charge(&mut self, now: Instant, bytes: usize, items: usize) {
        self.bytes.charge(now, bytes);
        self.items.charge(now, items);
    }
}

impl Bucket {
    fn new(rate: u64) -> Self {
        Bucket { rate: rate as f64, level: rate as f64, at: None }
    }

    fn refill(&mut self, now: Instant) {
        // Requests are handled side by side: one may bring an earlier time than the one before.
        let before = self.at.map_or(now, |at| at.max(now));
        let elapsed = self.at.map_or(Duration::ZERO, |at| before.duration_since(at));
        self.level = (self.level + elapsed.as_secs_f64() * self.rate).min(self.rate);
        self.at = Some(before);
    }

    fn wait(&mut self, now: Instant) -> Option<Duration> {
        if self.rate == 0.0 {
            return None;
        }
        self.refill(now);
        if self.level > 0.0 {
            return None;
        }
        // A little more than it takes to come to nothing: there has to be something.
        Some(Duration::from_secs_f64((-self.level / self.rate).min(1e9)) + Duration::from_micros(1))
    }

    fn charge(&mut self, now: Instant, amount: usize) {
        if self.rate > 0.0 {
            self.refill(now);
            self.level -= amount as f64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offers requests of these sizes at these intervals for so many seconds, waiting as told; what has passed.
    fn run(rate: u64, size: impl Fn(&mut fastrand::Rng) -> usize, every: Duration, seconds: u64) -> f64 {
        let (start, mut rng) = (Instant::now(), fastrand::Rng::with_seed(7));
        let mut meter = Meter::new(rate, 0);
        let (mut now, mut passed) = (start, 0);
        while now < start + Duration::from_secs(seconds) {
            match meter.wait(now) {
                Some(after) => {
                    assert!(meter.wait(now + after).is_none(), "passes when it was said to");
                    now += after.max(every);
                }
                None => {
                    let bytes = size(&mut rng);
                    meter.charge(now, bytes, 1);
                    passed += bytes;
                    now += every;
                }
            }
        }
        // The first second's worth was there from the start.
        passed as f64 / (seconds + 1) as f64
    }

    #[test]
    fn rates_are_held_whatever_the_size_of_requests() {
        let cases: [(u64, fn(&mut fastrand::Rng) -> usize, u64, u64); 5] = [
            (1_000_000, |_| 100, 10, 20),
            (1_000_000, |_| 10_000, 500, 100),
            (1_000_000, |rng| rng.usize(..200_000), 3000, 1000),
            // Larger than a second's worth.
            (1_000_000, |_| 3_500_000, 1000, 1000),
            (1_000, |rng| rng.usize(1..5000), 100, 1000),
        ];
        for (case, (rate, size, micros, seconds)) in cases.into_iter().enumerate() {
            let got = run(rate, size, Duration::from_micros(micros), seconds);
            let off = got / rate as f64 - 1.0;
            assert!(off.abs() < 0.02, "case {case}: {got} instead of {rate} a second");
        }
    }

    #[test]
    fn what_is_below_its_rate_never_waits() {
        let got = run(1000, |_| 100, Duration::from_millis(101), 1000);
        assert!((got - 989.0).abs() < 1.0, "{got}");
    }

    #[test]
    fn a_burst_of_a_second_passes_and_the_hint_is_exact() {
        let now = Instant::now();
        let mut meter = Meter::new(100, 10);
        for _ in 0..10 {
            assert_eq!(meter.wait(now), None);
            meter.charge(now, 9, 1);
        }
        // Ten bytes are left and no items.
        assert_eq!(meter.wait(now), Some(Duration::from_micros(1)));
        meter.charge(now, 60, 1);
        // Fifty bytes are owed, and one item.
        assert_eq!(meter.wait(now), Some(Duration::from_millis(500) + Duration::from_micros(1)));
        assert!(meter.wait(now + Duration::from_millis(500)).is_some());
        assert_eq!(meter.wait(now + Duration::from_micros(500_001)), None);
        let mut free = Meter::new(0, 0);
        free.charge(now, usize::MAX, usize::MAX);
        assert_eq!(free.wait(now), None);
    }

    #[test]
    fn time_that_goes_back_gives_nothing() {
        let now = Instant::now();
        let mut meter = Meter::new(100, 0);
        meter.charge(now + Duration::from_secs(1), 200, 1);
        for _ in 0..100 {
            assert!(meter.wait(now).is_some());
            assert!(meter.wait(now + Duration::from_secs(1)).is_some());
        }
        assert_eq!(meter.wait(now + Duration::from_secs(3)), None);
    }
}
