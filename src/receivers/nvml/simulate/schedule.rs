//! Who holds which simulated device when, how hard they work it, and what breaks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::config::SimulateConfig;
use super::super::holders::Holder;
use super::super::model::Identity;

/// How long a pod holds a device before the next one may have it, in seconds.
const TENURE: u64 = 300;
/// How often something may break, in seconds.
const FAULTS: u64 = 240;
/// How long a lost device stays lost, in seconds.
const LOST: u64 = 60;

/// How many instances a device is cut into.
pub const INSTANCES: u32 = 3;

const TEAMS: [(&str, &str); 5] = [
    ("team-search", "ranker"),
    ("team-chat", "llm-serve"),
    ("team-vision", "detector"),
    ("research", "trainer"),
    ("batch", "embeddings"),
];

/// The schedule of one simulation.
#[derive(Debug)]
pub struct Schedule {
    start: Instant,
    seed: u64,
    faults: bool,
    pods: bool,
    hot: Vec<u32>,
    /// The number of the first device that is cut into MIG instances.
    first_cut: u32,
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
        let first_cut = config.devices.saturating_sub(config.mig_devices);
        Schedule { start, seed, faults, pods, hot: config.hot.clone(), first_cut }
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

    /// What pods hold of a device: as the kubelet would name it, and who.
    pub fn claims(&self, device: &Identity, at: Duration) -> Vec<(String, Arc<Holder>)> {
        let held =
            |(part, uuid): (u32, Arc<str>)| Some((uuid.to_string(), self.holder(device.index, part, at)?.0));
        if self.is_cut(device.index) {
            let instances =
                (0..INSTANCES).map(|instance| (instance + 1, self.instance(device.index, instance)));
            instances.filter_map(held).collect()
        } else {
            held((0, device.uuid.clone())).into_iter().collect()
        }
    }

    /// Whether a device is cut into MIG instances.
    pub fn is_cut(&self, device: u32) -> bool {
        device >= self.first_cut
    }

    /// The UUID of a device.
    pub fn device(&self, device: u32) -> Arc<str> {
        self.uuid("GPU", device, 0)
    }

    /// The UUID of a MIG instance of a device.
    pub fn instance(&self, device: u32, instance: u32) -> Arc<str> {
        self.uuid("MIG", device, 10 + u64::from(instance))
    }

    fn uuid(&self, kind: &str, device: u32, part: u64) -> Arc<str> {
        let (a, b) = (self.number(&[4, device.into(), part]), self.number(&[4, device.into(), part, 1]));
        let (first, second, third) = (a >> 32, a >> 16 & 0xffff, a & 0xffff);
        let (fourth, fifth) = (b >> 48, b & 0xffff_ffff_ffff);
        format!("{kind}-{first:08x}-{second:04x}-{third:04x}-{fourth:04x}-{fifth:012x}").into()
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
