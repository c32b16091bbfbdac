//! GPU time and what it cost, added up for whoever held the GPU.
//!
//! # What it promises
//!
//! * Over all payers, with `_unallocated`, `_host` and `_unknown` among them, the time allocated on a GPU is the time that
//!   passed since it was first seen, less what is unaccounted: exactly, before it is read as a floating-point number.
//! * Time is charged where it both begins and ends with a GPU that can be read, and no more than three intervals lie in
//!   between. All other time is unaccounted and nobody pays for it. Who holds a GPU at the end of an interval pays for all
//!   of it.
//! * No sum ever goes down. A row that begins anew, after a restart or after it was forgotten, begins at 0 with a new
//!   start time, which no other row of the same name had.
//! * Elapsed time is that of the monotonic clock; the clock on the wall says when rows start, and may jump.
//!
//! # What it costs
//!
//! A row is found by its names and takes no memory while it exists already: tens of microseconds for a hundred shares. Rows
//! are kept for ten minutes after they were last held, so that their last value is seen, and there are at most 10,000.

mod payers;
mod prices;
mod rows;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use payers::{HOST, Payer, Payers, UNALLOCATED, UNKNOWN};
pub use rows::Row;

use self::prices::Prices;
use self::rows::{Charge, Rows, WHOLE};
use super::config::CostConfig;
use super::holders::{Owner, Share};
use super::model::{Identity, Reading, Report, State, Value};
use crate::telemetry::{Counter, Metrics};

/// How long rows are kept after they were last held, at least.
const KEEP: Duration = Duration::from_secs(600);
/// An interval longer than so many configured ones is a gap.
const LONGEST: u32 = 3;
/// Parts that add up to 1 but for this do add up to 1.
const ROUNDING: f64 = 1e-6;
/// No node has so many GPUs; beyond it, those that were not seen for longest are forgotten.
const MOST_DEVICES: usize = 256;

/// The accounts of one node.
pub struct Accounts {
    prices: Option<Prices>,
    payers: Payers,
    rows: Rows,
    devices: Vec<Device>,
    wall: u64,
    stale: Counter,
    crowded: Counter,
}

/// Time of one GPU that nobody pays for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Unaccounted<'a> {
    /// The UUID of the GPU.
    pub gpu: &'a Arc<str>,
    /// The product.
    pub model: &'a Arc<str>,
    /// Since when it is added up, in nanoseconds since 1970.
    pub start: u64,
    /// How much.
    pub seconds: f64,
}

/// A GPU as it was when last reported.
#[derive(Debug)]
struct Device {
    uuid: Arc<str>,
    model: Arc<str>,
    start: u64,
    last: Instant,
    charged: bool,
    /// Millijoules on its counter, when it last told, if no gap lies between.
    energy: Option<u64>,
    unaccounted: u128,
    /// Whether it was seen of late.
    shown: bool,
}

impl Accounts {
    /// Accounts at 0. Without prices there is no cost. `id` is the receiver's, for the agent's own metrics.
    pub fn new(cost: Option<&CostConfig>, payers: Payers, metrics: &Metrics, id: &str) -> Self {
        let evicted = |reason| {
            let help = "Sums of GPU time that are no longer kept: nobody held the GPU of late, or there are too many.";
            let labels = &[("receiver", id), ("reason", reason)];
            metrics.series("tidegate_nvml_accounts_evicted", help, labels)
        };
        Accounts {
            prices: cost.map(Prices::new),
            payers,
            rows: Rows::default(),
            devices: Vec::new(),
            wall: 0,
            stale: evicted("stale"),
            crowded: evicted("limit"),
        }
    }

    /// Adds what passed since the last time: `now` on the monotonic clock, `wall` in nanoseconds since 1970 on the other.
    /// `interval` is how often this is meant to be called, `reports` is what was read of each device, and `shares` says
    /// who holds them.
    ///
    /// Parts of a device that add up to less than 1 leave the rest to [`UNALLOCATED`], those that add up to more are
    /// scaled down, and a device without any share is [`UNKNOWN`]'s.
    pub fn advance(
        &mut self,
        now: Instant,
        wall: u64,
        interval: Duration,
        shares: &[Share],
        reports: &[Report],
    ) {
        if wall < self.wall {
            self.rows.not_after(wall);
            self.devices.iter_mut().for_each(|device| device.start = device.start.min(wall));
        }
        self.wall = wall;
        for report in reports {
            self.device(now, interval.saturating_mul(LONGEST), shares, report);
        }
        let keep = KEEP.max(interval.saturating_mul(LONGEST + 1));
        self.stale.add(self.rows.forget(now, keep) as u64);
        for device in &mut self.devices {
            device.shown = now.saturating_duration_since(device.last) <= keep;
        }
    }

    /// All sums. Those that stay keep their order, and new ones come last.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &Row> {
        self.rows.iter()
    }

    /// The time of each GPU that nobody pays for.
    pub fn unaccounted(&self) -> impl Iterator<Item = Unaccounted<'_>> {
        self.shown().map(|device| Unaccounted {
            gpu: &device.uuid,
            model: &device.model,
            start: device.start,
            seconds: device.unaccounted as f64 / 1e9,
        })
    }

    /// The prices of an hour that are in force for the products there are.
    pub fn prices(&self) -> impl Iterator<Item = (&str, f64)> {
        self.shown().enumerate().filter_map(|(at, device)| {
            let first = !self.shown().take(at).any(|other| other.model == device.model);
            let price = self.prices.as_ref()?.gpu(&device.model)?;
            first.then_some((&*device.model, price))
        })
    }

    /// What prices and costs are in; empty without prices.
    pub fn currency(&self) -> &str {
        self.prices.as_ref().map_or("", |prices| &prices.currency)
    }

    /// Who pays, for those who need to know of others than rows.
    pub fn payers(&mut self) -> &mut Payers {
        &mut self.payers
    }

    fn shown(&self) -> impl Iterator<Item = &Device> {
        self.devices.iter().filter(|device| device.shown)
    }

    /// Adds what passed on one device.
    fn device(&mut self, now: Instant, longest: Duration, shares: &[Share], report: &Report) {
        let gpu = &*report.identity;
        let charges = matches!(report.state, State::Readable | State::Asleep);
        let energy = match report.get(Reading::Energy, 0) {
            Some(Value::Int(millijoules)) if charges => u64::try_from(millijoules).ok(),
            _ => None,
        };
        let wall = self.wall;
        let device = match self.devices.iter().position(|device| device.uuid == gpu.uuid) {
            Some(at) => at,
            None => self.meet(gpu, now, charges),
        };
        let Some(device) = self.devices.get_mut(device) else { return };
        let elapsed = now.saturating_duration_since(device.last);
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let counted = charges && device.charged && elapsed <= longest;
        let before = device.energy.filter(|_| counted);
        // A counter that went back began anew; what it had counted by then nobody knows.
        let millijoules = energy.map(|energy| energy.saturating_sub(before.unwrap_or(energy)));
        device.energy = energy.or(before);
        device.last = now;
        device.charged = charges;
        if !counted {
            device.unaccounted += u128::from(nanos);
        }
        if charges {
            let nanos = if counted { nanos } else { 0 };
            self.divide((now, wall), gpu, shares, nanos, millijoules);
        }
    }

    /// Gives each share of a device its part of what passed.
    fn divide(
        &mut self,
        at: (Instant, u64),
        gpu: &Identity,
        shares: &[Share],
        nanos: u64,
        millijoules: Option<u64>,
    ) {
        let mine = || shares.iter().filter(|share| share.part > 0.0 && share.device.uuid == gpu.uuid);
        let part = |share: &Share| share.part.min(1.0);
        let busy =
            |share: &Share| share.busy.filter(|busy| busy.is_finite()).map(|busy| busy.clamp(0.0, 1.0));
        let (mut total, mut all_busy, mut count) = (0.0, 0.0, 0);
        for share in mine() {
            total += part(share);
            all_busy += busy(share).unwrap_or_default();
            count += 1;
        }
        // A GPU is not held by more than the whole of it, nor busy for longer than the time that passes.
        let (scale, busy_scale) = (1.0 / f64::max(total, 1.0), 1.0 / f64::max(all_busy, 1.0));
        let complete = count > 0 && total > 1.0 - ROUNDING;
        let whole = self.prices.as_ref().and_then(|prices| prices.gpu(&gpu.name));
        // Parts are differences of where they end, so that together they are the whole whatever each rounds to.
        let (mut end, mut given) = (0.0, 0);
        for (number, share) in mine().enumerate() {
            end += part(share) * scale;
            let last = complete && number + 1 == count;
            let to = if last { WHOLE } else { fixed(end).clamp(given, WHOLE) };
            let held = to - given;
            given = to;
            let instance = share.mig.as_deref().and_then(|mig| {
                let price = self.prices.as_ref()?.instance(mig)?;
                let of = |other: &&Share| other.mig.as_ref().is_some_and(|other| other.uuid == mig.uuid);
                let instance: f64 = mine().filter(of).map(part).sum();
                Some((price, fixed(part(share) / instance).min(WHOLE)))
            });
            let charge = Charge {
                nanos,
                millijoules,
                part: held,
                busy: busy(share).map(|busy| ((busy * busy_scale * WHOLE as f64) as u64).min(WHOLE)),
                price: instance.or(whole.map(|price| (price, held))),
            };
            let payer = self.payers.of(&share.owner);
            self.crowded.add(self.rows.add(payer, gpu, at, charge) as u64);
        }
        if given < WHOLE {
            let left = WHOLE - given;
            let price = whole.map(|price| (price, left));
            let charge = Charge { nanos, millijoules, part: left, busy: None, price };
            let payer = self.payers.of(if count == 0 { &Owner::Unknown } else { &Owner::Unallocated });
            self.crowded.add(self.rows.add(payer, gpu, at, charge) as u64);
        }
    }

    /// A device that is new; its place.
    fn meet(&mut self, gpu: &Identity, now: Instant, charged: bool) -> usize {
        if self.devices.len() >= MOST_DEVICES
            && let Some(oldest) =
                (0..self.devices.len()).min_by_key(|at| self.devices.get(*at).map(|d| d.last))
        {
            self.devices.remove(oldest);
        }
        self.devices.push(Device {
            uuid: gpu.uuid.clone(),
            model: gpu.name.clone(),
            start: self.wall,
            last: now,
            charged,
            energy: None,
            unaccounted: 0,
            shown: true,
        });
        self.devices.len() - 1
    }
}

/// A part of 1, in the unit of parts.
fn fixed(part: f64) -> u64 {
    (part * WHOLE as f64).round() as u64
}
