//! The sums of one payer on one GPU, and the table of all of them.
//!
//! Sums are integers: nanoseconds and millijoules in parts of 2^48, in 128 bits. Adding to them is exact however long the
//! agent runs, and the parts of a GPU add up to the whole; only reading one rounds, once. Cost is not a sum of its own
//! but the time at each price, multiplied when it is read.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::payers::Payer;
use crate::receivers::nvml::model::Identity;

/// The whole of a GPU, in the unit of parts.
pub(super) const WHOLE: u64 = 1 << 48;
/// More rows than this are not kept: a pod a minute on each of 16 GPUs, for ten hours.
pub(super) const MOST_ROWS: usize = 10_000;
/// So many are given up at once when there is no room, so that making room is rare.
const ROOM: usize = MOST_ROWS / 16;

/// What one payer had of one GPU since [`Row::start`].
#[derive(Debug)]
pub struct Row {
    payer: Arc<Payer>,
    gpu: Arc<str>,
    model: Arc<str>,
    pub(super) start: u64,
    pub(super) advanced: Instant,
    pub(super) allocated: u128,
    pub(super) busy: Option<u128>,
    pub(super) energy: Option<u128>,
    /// Time at each price an hour; nearly always one.
    pub(super) priced: SmallVec<[(f64, u128); 1]>,
}

/// What is added to a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Charge {
    /// How long.
    pub(super) nanos: u64,
    /// Of the device in that time.
    pub(super) millijoules: Option<u64>,
    /// Which part of the device was held.
    pub(super) part: u64,
    /// Which part of it was busy.
    pub(super) busy: Option<u64>,
    /// The price of an hour, and which part of what has that price was held.
    pub(super) price: Option<(f64, u64)>,
}

/// All rows, in the order they were made.
#[derive(Debug, Default)]
pub(super) struct Rows {
    rows: Vec<Row>,
    places: HashMap<(Arc<Payer>, Arc<str>), usize>,
}

impl Row {
    /// The tenant; see [`Payer::tenant`].
    pub fn tenant(&self) -> &str {
        &self.payer.tenant
    }

    /// The namespace, where there is one.
    pub fn namespace(&self) -> Option<&str> {
        self.payer.namespace.as_deref()
    }

    /// The pod, where there is one and pods are kept apart.
    pub fn pod(&self) -> Option<&str> {
        self.payer.pod.as_deref()
    }

    /// The UUID of the GPU.
    pub fn gpu(&self) -> &str {
        &self.gpu
    }

    /// The product.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Who pays, the UUID and the product, to be kept.
    pub fn shared(&self) -> (&Arc<Payer>, &Arc<str>, &Arc<str>) {
        (&self.payer, &self.gpu, &self.model)
    }

    /// Since when it is added up, in nanoseconds since 1970.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// When it was last held.
    pub fn advanced(&self) -> Instant {
        self.advanced
    }

    /// Seconds of the whole GPU that were held.
    pub fn allocated(&self) -> f64 {
        self.allocated as f64 / (WHOLE as f64 * 1e9)
    }

    /// Seconds of the whole GPU that were busy; `None` while that was never known.
    pub fn busy(&self) -> Option<f64> {
        Some(self.busy? as f64 / (WHOLE as f64 * 1e9))
    }

    /// Joules; `None` while the device never told.
    pub fn energy(&self) -> Option<f64> {
        Some(self.energy? as f64 / (WHOLE as f64 * 1e3))
    }

    /// What it cost; `None` without a price.
    pub fn cost(&self) -> Option<f64> {
        if self.priced.is_empty() {
            return None;
        }
        Some(self.priced.iter().map(|(price, time)| price * (*time as f64 / (WHOLE as f64 * 3.6e12))).sum())
    }

    fn add(&mut self, charge: Charge) {
        let Charge { nanos, millijoules, part, busy, price } = charge;
        let of = |amount: u64, part: u64| u128::from(amount) * u128::from(part);
        self.allocated += of(nanos, part);
        if let Some(busy) = busy {
            *self.busy.get_or_insert(0) += of(nanos, busy);
        }
        if let Some(millijoules) = millijoules {
            *self.energy.get_or_insert(0) += of(millijoules, part);
        }
        if let Some((price, part)) = price {
            match self.priced.iter_mut().find(|(other, _)| other.to_bits() == price.to_bits()) {
                Some((_, time)) => *time += of(nanos, part),
                None => self.priced.push((price, of(nanos, part))),
            }
        }
    }
}

impl Rows {
    pub(super) fn iter(&self) -> std::slice::Iter<'_, Row> {
        self.rows.iter()
    }

    /// Adds to the row of this payer and GPU, which is made where there is none, started `charge.nanos` before `wall`.
    /// Returns how many rows had to go for it.
    pub(super) fn add(
        &mut self,
        payer: Arc<Payer>,
        gpu: &Identity,
        (now, wall): (Instant, u64),
        charge: Charge,
    ) -> usize {
        let key = (payer, gpu.uuid.clone());
        if let Some(row) = self.places.get(&key).and_then(|place| self.rows.get_mut(*place)) {
            row.advanced = now;
            row.add(charge);
            return 0;
        }
        let gone = if self.rows.len() < MOST_ROWS { 0 } else { self.make_room() };
        let mut row = Row {
            payer: key.0.clone(),
            gpu: key.1.clone(),
            model: gpu.name.clone(),
            start: wall.saturating_sub(charge.nanos),
            advanced: now,
            allocated: 0,
            busy: None,
            energy: None,
            priced: SmallVec::new(),
        };
        row.add(charge);
        self.places.insert(key, self.rows.len());
        self.rows.push(row);
        gone
    }

    /// Takes out what was not held for longer than this; how many.
    pub(super) fn forget(&mut self, now: Instant, keep: Duration) -> usize {
        let gone = |row: &Row| now.saturating_duration_since(row.advanced) > keep;
        if self.rows.iter().any(gone) { self.retain(|row| !gone(row)) } else { 0 }
    }

    /// No row starts in the future of a clock that was set back.
    pub(super) fn not_after(&mut self, wall: u64) {
        for row in &mut self.rows {
            row.start = row.start.min(wall);
        }
    }

    /// Takes out those that have not been held for longest.
    fn make_room(&mut self) -> usize {
        let mut order: Vec<(Instant, usize)> =
            self.rows.iter().enumerate().map(|(at, row)| (row.advanced, at)).collect();
        order.sort_unstable();
        let mut oldest: Vec<usize> = order.into_iter().take(ROOM).map(|(_, at)| at).collect();
        oldest.sort_unstable();
        let mut at = 0;
        self.retain(|_| {
            at += 1;
            oldest.binary_search(&(at - 1)).is_err()
        })
    }

    fn retain(&mut self, keep: impl FnMut(&Row) -> bool) -> usize {
        let before = self.rows.len();
        self.rows.retain(keep);
        self.places.clear();
        let places = self.rows.iter().enumerate();
        self.places.extend(places.map(|(at, row)| ((row.payer.clone(), row.gpu.clone()), at)));
        before - self.rows.len()
    }
}
