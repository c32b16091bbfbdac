//! Who holds which simulated device when, how hard they work it, and what breaks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::config::SimulateConfig;
use super::super::holders::Holder;

/// How long a pod holds a device before the next one may have it, in seconds.
const TENURE: u64 = 300;
/// How often something may break, in seconds.
const FAULTS: u64 = 240;
/// How long a lost device stays lost, in seconds.
const LOST: u64 = 60;

const TEAMS: [(&str, &str); 5] = [
    ("team-search", "ranker"),
    ("team-chat", "llm-serve"),
    ("team-vision", "detector"),
    ("research", "trainer"),
    ("batch", "embeddings"),
];

/// A device, or a part of one, that a pod holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// As the kubelet would name it: the UUID of a GPU or a MIG instance.
    pub device_id: String,
    /// Who.
    pub holder: Arc<Holder>,
}

/// The schedule of one simulation.
#[derive(Debug)]
pub struct Schedule {
    start: Instant,
    seed: u64,
    faults: bool,
    pods: bool,
    hot: Vec<u32>,
}

/// What breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// An XID that an application causes.
    Application(u64),
    /// Errors in memory that ECC corrects.
    Corrected,
    /// Cooling fails for a while.
    Heat,
    /// The device falls off the bus.
    Lost,
}

/// How a pod works its device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Work {
    /// Requests that come in waves.
    Inference,
    /// As hard as it goes, with pauses for checkpoints.
    Training,
    /// It holds the device and does nothing.
    Idle,
}

impl Schedule {
    /// A schedule that begins at `start`.
    pub fn new(config: &SimulateConfig, start: Instant) -> Schedule {
        let SimulateConfig { seed, faults, pods, .. } = *config;
        Schedule { start, seed, faults, pods, hot: config.hot.clone() }
    }

    /// Time since the start.
    pub fn since_start(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.start)
    }

    /// Who holds a device, or an instance of it, and what for. `part` is 0 for the whole device.
    pub fn holder(&self, device: u32, part: u32, at: Duration) -> Option<(Arc<Holder>, Work)> {
        if !self.pods {
            return None;
        }
        // Devices change hands at different times.
        let shift = self.number(&[1, device.into(), part.into()]) % TENURE;
        let tenure = (at.as_secs() + shift) / TENURE;
        let number = self.number(&[2, device.into(), part.into(), tenure]);
        // The first device always has work, so that a demonstration has something to show.
        let (allocated, work) = match number % 10 {
            0 if device > 0 => (false, Work::Idle),
            1 if device > 0 => (true, Work::Idle),
            2..=4 => (true, Work::Training),
            _ => (true, Work::Inference),
        };
        if !allocated {
            return None;
        }
        let team = (number >> 8) as usize % TEAMS.len();
        let (namespace, app) = TEAMS.get(team).copied().unwrap_or_default();
        let suffix = number >> 32 & 0xf_ffff;
        let holder = Holder {
            namespace: namespace.to_owned(),
            pod: format!("{app}-{suffix:05x}"),
            container: "main".to_owned(),
            uid: Some(format!("{:08x}-0000-4000-8000-{:012x}", number as u32, number >> 16)),
        };
        Some((Arc::new(holder), work))
    }

    /// What is broken on a device now.
    pub fn fault(&self, device: u32, at: Duration) -> Option<Fault> {
        if self.hot.contains(&device) {
            return Some(Fault::Heat);
        }
        if !self.faults {
            return None;
        }
        let (window, into) = (at.as_secs() / FAULTS, at.as_secs() % FAULTS);
        let number = self.number(&[3, device.into(), window]);
        let begins = number >> 8 & 0x7f;
        if window == 0 || into < begins {
            return None;
        }
        let after = into - begins;
        match number % 40 {
            0 | 1 => Some(Fault::Application(31)),
            2 => Some(Fault::Application(13)),
            3 | 4 => Some(Fault::Corrected),
            5 | 6 => Some(Fault::Heat),
            7 if after < LOST => Some(Fault::Lost),
            _ => None,
        }
    }

    /// A number that follows from the seed and these.
    pub fn number(&self, of: &[u64]) -> u64 {
        of.iter().fold(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, |state, &n| mix(state ^ mix(n)))
    }
}

/// Spreads what a number differs in over all of its bits.
fn mix(mut n: u64) -> u64 {
    n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}
