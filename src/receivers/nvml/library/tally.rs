//! What the calls of one report came to, and when each is due again.

use std::time::{Duration, Instant};

use nvml_wrapper::error::NvmlError;

use super::errors::{self, Class};

/// How often a lost device is looked for, MIG instances, and limits that an operator may change.
pub(super) const MINUTE: Duration = Duration::from_secs(60);

/// How often something is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tier {
    /// Every time.
    Fast,
    /// Every minute, or more often where slow readings are.
    Minute,
    /// As often as the config says of slow readings.
    Slow,
    /// When it is this device's turn.
    Turn,
}

/// When readings are due again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cadence {
    /// Between two slow ones.
    pub(super) slow: Duration,
}

/// The calls of one report.
#[derive(Debug, Default)]
pub(super) struct Tally {
    calls: u32,
    unknown: u32,
    /// How often calls failed, by the word of the error.
    pub(super) errors: Vec<(&'static str, u32)>,
}

impl Cadence {
    /// When something of this tier that was read now is due again; `None` for the next time.
    pub(super) fn next(&self, tier: Tier, now: Instant) -> Option<Instant> {
        match tier {
            Tier::Fast | Tier::Turn => None,
            Tier::Minute => now.checked_add(self.slow.min(MINUTE)),
            Tier::Slow => now.checked_add(self.slow),
        }
    }
}

impl Tally {
    /// Counts a call, and its error where that is one worth telling.
    pub(super) fn note(&mut self, error: Option<&NvmlError>) {
        self.calls += 1;
        let Some(error) = error else { return };
        match errors::class(error) {
            Class::Unsupported | Class::Empty | Class::Invalid => {}
            class => {
                self.unknown += u32::from(class == Class::Unknown);
                self.count(errors::word(error), 1);
            }
        }
    }

    /// Counts something that went wrong.
    pub(super) fn count(&mut self, word: &'static str, by: u32) {
        match self.errors.iter_mut().find(|(known, _)| *known == word) {
            Some((_, count)) => *count += by,
            None => self.errors.push((word, by)),
        }
    }

    /// Whether calls were made and none of them was answered.
    pub(super) fn silent(&self) -> bool {
        self.calls > 0 && self.unknown == self.calls
    }
}
