//! Whether GPUs can be read, since when, and when to try again.

use std::time::{Duration, Instant};

use prometheus::IntGauge;

use super::model::{Closed, Inventory, Reason, Report, State};
use crate::telemetry::Metrics;

/// The first pause after a failure, and the longest: where there is no driver, and where there was one.
const ABSENT: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(300));
const BROKEN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// The state of the way to the driver.
pub struct Health {
    id: String,
    required: bool,
    open: bool,
    /// Whether a collection succeeded since it was opened.
    read: bool,
    /// Whether it was ever open: what was there once is missed.
    known: bool,
    generation: u64,
    /// Failures in a row, and what the last one was.
    failures: u32,
    reason: Option<Reason>,
    next: Option<Instant>,
    duration: Duration,
    last_success: Option<f64>,
    gauge: Option<IntGauge>,
}

impl Health {
    /// Nothing is known yet. `required` shows health even where there never was a driver.
    pub fn new(id: &str, required: bool, metrics: &Metrics) -> Self {
        let help = "Whether the receiver can read GPUs: 1 or 0.";
        let gauge = metrics.gauge("tidegate_nvml_up", help, &["receiver"]);
        let gauge = gauge.map(|family| family.with_label_values(&[id]));
        if let Some(gauge) = &gauge {
            gauge.set(0);
        }
        Health {
            id: id.to_owned(),
            required,
            open: false,
            read: false,
            known: false,
            generation: 0,
            failures: 0,
            reason: None,
            next: None,
            duration: Duration::ZERO,
            last_success: None,
            gauge,
        }
    }

    /// Whether the library may be opened now.
    pub fn may_open(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| next <= now)
    }

    /// The library was opened.
    pub fn opened(&mut self, inventory: &Inventory) {
        tracing::info!(
            component = %self.id,
            driver = inventory.driver.version,
            devices = inventory.devices.len(),
            denied = inventory.denied,
            "GPUs are read"
        );
        if inventory.denied > 0 {
            tracing::warn!(
                component = %self.id,
                denied = inventory.denied,
                "some GPUs may not be read: the container lacks their device files or the right to use them"
            );
        }
        self.open = true;
        self.read = false;
        self.known = true;
        self.generation += 1;
        self.next = None;
        self.show();
    }

    /// Nothing can be read any more, or still.
    pub fn closed(&mut self, closed: &Closed, now: Instant) {
        let (component, message, reason) = (&self.id, &closed.message, closed.reason.word());
        // Once for each state of affairs; a node without GPUs is nothing to worry about.
        match (self.reason == Some(closed.reason), closed.reason) {
            (true, _) => tracing::debug!(%component, reason, message, "GPUs still cannot be read"),
            (false, Reason::NoLibrary) if !self.known => {
                tracing::info!(%component, reason, message, "there is no GPU driver here; it is looked for again");
            }
            (false, Reason::Changed) => {
                tracing::info!(%component, reason, message, "GPUs are looked for again")
            }
            (false, _) => tracing::warn!(%component, reason, message, "GPUs cannot be read"),
        }
        // One that was just read is tried at the next collection; one that opens and is never read fails all the same.
        let (first, longest) =
            if closed.reason == Reason::NoLibrary && !self.known { ABSENT } else { BROKEN };
        let worked = self.open && self.read;
        let doublings = (!worked).then_some(self.failures.min(16));
        self.failures = if worked { 0 } else { self.failures.saturating_add(1) };
        self.next = doublings.map(|doublings| now + first.saturating_mul(1 << doublings).min(longest));
        self.open = false;
        self.reason = Some(closed.reason);
        self.show();
    }

    /// A collection has ended.
    pub fn collected(&mut self, reports: &[Report], took: Duration, wall: u64) {
        self.duration = took;
        let read = |report: &Report| matches!(report.state, State::Readable | State::Asleep);
        if self.open && (reports.is_empty() || reports.iter().any(read)) {
            self.last_success = Some(wall as f64 / 1e9);
            self.read = true;
            self.failures = 0;
            self.reason = None;
        }
    }

    /// Whether anything is said of GPUs at all.
    pub fn shows(&self) -> bool {
        self.known || self.required
    }

    /// Whether the driver can be asked.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Times the library was opened.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Seconds that the last collection took.
    pub fn duration(&self) -> f64 {
        self.duration.as_secs_f64()
    }

    /// When a collection last succeeded, in seconds since 1970.
    pub fn last_success(&self) -> Option<f64> {
        self.last_success
    }

    fn show(&self) {
        if let Some(gauge) = &self.gauge {
            gauge.set(self.open.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::model::{Driver, Identity};
    use super::*;

    fn closed(reason: Reason) -> Closed {
        Closed { reason, message: "why".to_owned() }
    }

    fn inventory() -> Inventory {
        Inventory {
            driver: Arc::new(Driver::default()),
            devices: vec![Arc::new(Identity::default())],
            denied: 0,
        }
    }

    /// Seconds until the library may be opened again, after each of so many failures.
    fn pauses(health: &mut Health, reason: Reason, times: usize) -> Vec<u64> {
        let now = Instant::now();
        let mut out = Vec::new();
        for _ in 0..times {
            health.closed(&closed(reason), now);
            let may = |seconds: u64| health.may_open(now + Duration::from_secs(seconds));
            out.push((0..1000).find(|&seconds| may(seconds)).unwrap());
        }
        out
    }

    #[test]
    fn tries_come_less_and_less_often() {
        let metrics = Metrics::new();
        let mut never = Health::new("nvml", false, &metrics);
        assert_eq!(pauses(&mut never, Reason::NoLibrary, 6), [30, 60, 120, 240, 300, 300]);
        assert_eq!(pauses(&mut Health::new("b", false, &metrics), Reason::DriverNotLoaded, 2), [5, 10]);
        let mut once = Health::new("c", false, &metrics);
        let read = |health: &mut Health| {
            health.opened(&inventory());
            health.collected(&[], Duration::ZERO, 1);
        };
        read(&mut once);
        // What was there a moment ago is looked for at once, then with pauses.
        let want = [0, 5, 10, 20, 40, 60, 60];
        assert_eq!(pauses(&mut once, Reason::DriverNotLoaded, 7), want);
        read(&mut once);
        assert_eq!(pauses(&mut once, Reason::NoLibrary, 2), [0, 5]);
        assert_eq!(once.generation(), 2);
        // What opens and is closed before anything is read is no better than what does not open.
        let opened_only = [(); 3].map(|()| {
            once.opened(&inventory());
            pauses(&mut once, Reason::Changed, 1)
        });
        assert_eq!(opened_only, [[10], [20], [40]]);
    }

    #[test]
    fn a_node_that_never_had_gpus_says_nothing_unless_told_to() {
        let metrics = Metrics::new();
        for required in [false, true] {
            let mut health = Health::new("nvml", required, &metrics);
            health.closed(&closed(Reason::NoLibrary), Instant::now());
            assert_eq!(health.shows(), required);
            health.opened(&inventory());
            health.closed(&closed(Reason::DriverNotLoaded), Instant::now());
            assert!(health.shows() && !health.is_open(), "what was there once is missed");
        }
    }

    #[test]
    fn success_is_a_device_that_was_read_or_a_node_without_any() {
        let identity = Arc::new(Identity::default());
        let cases = [
            (vec![State::Readable, State::Lost], true),
            (vec![State::Asleep], true),
            (vec![State::Lost, State::Hung], false),
            (vec![], true),
        ];
        for (states, success) in cases {
            let mut health = Health::new("nvml", false, &Metrics::new());
            let reports: Vec<Report> =
                states.iter().map(|&state| Report::bare(identity.clone(), state)).collect();
            health.collected(&reports, Duration::from_millis(1500), 7_000_000_000);
            assert_eq!(health.last_success(), None, "the library is not open");
            health.opened(&inventory());
            health.collected(&reports, Duration::from_millis(1500), 7_000_000_000);
            assert_eq!(health.last_success(), success.then_some(7.0), "{states:?}");
            assert_eq!(health.duration(), 1.5);
        }
    }
}
