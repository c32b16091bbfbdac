//! Which version of the protocol a destination is sent.
//!
//! 2.0 is tried when it is asked for. A receiver that does not know it says so (415), or takes it for an empty 1.0
//! request and says OK without the headers that 2.0 demands. From then on it gets 1.0, and is asked again after an
//! hour.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::body::Version;

/// How long a receiver that did not know 2.0 is not asked again.
const FORGET: Duration = Duration::from_secs(3600);

/// What is known of one destination.
#[derive(Debug)]
pub struct Negotiation {
    wanted: Version,
    /// Until when 1.0 is sent instead.
    fallen: Mutex<Option<Instant>>,
    confirmed: AtomicBool,
}

impl Negotiation {
    /// Nothing is known yet.
    pub fn new(wanted: Version) -> Self {
        Negotiation { wanted, fallen: Mutex::new(None), confirmed: AtomicBool::new(false) }
    }

    /// What to encode now.
    pub fn version(&self, now: Instant) -> Version {
        if self.wanted == Version::V1 {
            return Version::V1;
        }
        let mut fallen = self.fallen.lock().unwrap_or_else(PoisonError::into_inner);
        match *fallen {
            Some(until) if now < until => Version::V1,
            Some(_) => {
                *fallen = None;
                Version::V2
            }
            None => Version::V2,
        }
    }

    /// The destination has stored a 2.0 request: it knows 2.0.
    pub fn confirm(&self) {
        self.confirmed.store(true, Ordering::Relaxed);
    }

    /// Whether it ever has.
    pub fn is_confirmed(&self) -> bool {
        self.confirmed.load(Ordering::Relaxed)
    }

    /// The destination does not know 2.0. True if that is news.
    pub fn fall_back(&self, now: Instant) -> bool {
        self.confirmed.store(false, Ordering::Relaxed);
        let before = self.fallen.lock().unwrap_or_else(PoisonError::into_inner).replace(now + FORGET);
        before.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newer_version_is_tried_again_after_an_hour() {
        let now = Instant::now();
        let talks = Negotiation::new(Version::V2);
        assert_eq!(talks.version(now), Version::V2);
        assert!(talks.fall_back(now));
        assert!(!talks.fall_back(now));
        assert_eq!(talks.version(now), Version::V1);
        assert_eq!(talks.version(now + FORGET - Duration::from_secs(1)), Version::V1);
        assert_eq!(talks.version(now + FORGET), Version::V2);
        assert_eq!(Negotiation::new(Version::V1).version(now), Version::V1);
    }
}
