//! Series with their last values: found by key on the way in, by name and labels on the way out.
//!
//! A *slot* is one label set of one family: a number's one series, or all those of a histogram. Several keys
//! (attributes in another order, several resources that make the same labels) may lead to one slot. Families and
//! the labels in each are kept sorted, so that a page is a walk.

use std::collections::BTreeMap;
use std::collections::hash_map::{Entry, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Bound;
use std::sync::Arc;

use smallvec::SmallVec;

use super::value::Value;
use crate::prometheus::exemplars::ExemplarText;
use crate::prometheus::map::{Family, MetricType};

/// So many keys lead to one slot; what comes under others takes the long way each time.
const MAX_KEYS: usize = 16;

/// All series.
#[derive(Debug)]
pub struct Series {
    places: HashMap<u128, u32, BuildHasherDefault<Prehashed>>,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    groups: BTreeMap<Arc<str>, Group>,
    /// Names of samples, and the families that make them.
    claimed: HashMap<Box<str>, Arc<str>>,
    /// How many series of Prometheus there are.
    weight: usize,
    limit: usize,
    made: u64,
}

/// One label set of one family.
#[derive(Debug)]
pub struct Slot {
    /// The name of the family.
    pub family: Arc<str>,
    /// The labels: `a="1",b="2"`; names that are no old-style names are quoted.
    pub labels: Arc<str>,
    /// Time of the last point, nanoseconds since 1970.
    pub time: u64,
    /// When it came, milliseconds of the state's clock.
    pub seen: u64,
    /// The last value.
    pub value: Value,
    /// Exemplars of the last point, sorted by value.
    pub exemplars: Option<Box<[ExemplarText]>>,
    keys: SmallVec<[u128; 1]>,
    weight: u32,
}

/// One family.
#[derive(Debug)]
pub struct Group {
    /// No other family ever has this number.
    pub id: u64,
    /// The type.
    pub kind: MetricType,
    /// The description.
    pub help: String,
    /// The unit.
    pub unit: String,
    members: BTreeMap<Arc<str>, u32>,
}

/// Why a new series is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is a family of that name with another type, or one whose samples have such names.
    Conflict,
    /// There are too many series.
    Full,
}

impl Series {
    /// Takes at most `limit` series, as Prometheus counts them.
    pub fn new(limit: usize) -> Self {
        Series {
            places: HashMap::default(),
            slots: Vec::new(),
            free: Vec::new(),
            groups: BTreeMap::new(),
            claimed: HashMap::new(),
            weight: 0,
            limit,
            made: 0,
        }
    }

    /// How many series there are, as Prometheus counts them.
    pub fn len(&self) -> usize {
        self.weight
    }

    /// The slot of a key.
    #[inline]
    pub fn find(&self, key: u128) -> Option<u32> {
        self.places.get(&key).copied()
    }

    /// The slot of labels; `key` leads to it from now on.
    pub fn find_labels(&mut self, key: u128, family: &str, labels: &str) -> Option<u32> {
        let at = *self.groups.get(family)?.members.get(labels)?;
        let slot = self.slots.get_mut(at as usize)?.as_mut()?;
        if slot.keys.len() < MAX_KEYS {
            slot.keys.push(key);
            self.places.insert(key, at);
        }
        Some(at)
    }

    /// A slot that was found.
    #[inline]
    pub fn get_mut(&mut self, at: u32) -> Option<&mut Slot> {
        self.slots.get_mut(at as usize)?.as_mut()
    }

    /// As [`Series::get_mut`].
    pub fn get(&self, at: u32) -> Option<&Slot> {
        self.slots.get(at as usize)?.as_ref()
    }

    /// Whether a family can have series.
    pub fn check(&self, family: &Family) -> Result<(), Refusal> {
        match self.groups.get(family.name.as_str()) {
            Some(group) if group.kind == family.kind => Ok(()),
            Some(_) => Err(Refusal::Conflict),
            None => {
                let free = |name: String| !self.claimed.contains_key(name.as_str());
                if sample_names(&family.name, family.kind).all(free) {
                    Ok(())
                } else {
                    Err(Refusal::Conflict)
                }
            }
        }
    }

    /// Adds a slot.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn insert(&mut self, key: u128, family: &Family, labels: &str, value: Value) -> Result<u32, Refusal> {
        self.check(family)?;
        let weight = value.weight();
        if self.weight + weight as usize > self.limit {
            return Err(Refusal::Full);
        }
        let name: Arc<str> = match self.groups.get_key_value(family.name.as_str()) {
            Some((name, _)) => name.clone(),
            None => self.begin(family),
        };
        let labels: Arc<str> = labels.into();
        let mut keys = SmallVec::new();
        keys.push(key);
        let slot = Slot {
            family: name.clone(),
            labels: labels.clone(),
            time: 0,
            seen: 0,
            value,
            exemplars: None,
            keys,
            weight,
        };
        let at = match self.free.pop() {
            Some(at) => at,
            None => {
                self.slots.push(None);
                (self.slots.len() - 1) as u32
            }
        };
        if let Some(place) = self.slots.get_mut(at as usize) {
            *place = Some(slot);
        }
        self.places.insert(key, at);
        if let Some(group) = self.groups.get_mut(&name) {
            group.members.insert(labels, at);
        }
        self.weight += weight as usize;
        Ok(at)
    }

    fn begin(&mut self, family: &Family) -> Arc<str> {
        let name: Arc<str> = family.name.as_str().into();
        self.made += 1;
        let group = Group {
            id: self.made,
            kind: family.kind,
            help: family.help.clone(),
            unit: family.unit.clone(),
            members: BTreeMap::new(),
        };
        self.groups.insert(name.clone(), group);
        for sample in sample_names(&name, family.kind) {
            self.claimed.insert(sample.into(), name.clone());
        }
        name
    }

    /// Books what a slot's value has become. `false` if it made too many series; the slot is gone then.
    pub fn reweigh(&mut self, at: u32) -> bool {
        let Some(Some(slot)) = self.slots.get_mut(at as usize) else { return true };
        let now = slot.value.weight();
        if now == slot.weight {
            return true;
        }
        self.weight = self.weight - slot.weight as usize + now as usize;
        slot.weight = now;
        if self.weight <= self.limit {
            return true;
        }
        self.remove(at);
        false
    }

    /// Takes a slot out.
    pub fn remove(&mut self, at: u32) {
        let Some(slot) = self.slots.get_mut(at as usize).and_then(Option::take) else { return };
        self.free.push(at);
        self.weight -= slot.weight as usize;
        for key in &slot.keys {
            self.places.remove(key);
        }
        let Some(group) = self.groups.get_mut(&slot.family) else { return };
        group.members.remove(&slot.labels);
        if group.members.is_empty() {
            let kind = group.kind;
            self.groups.remove(&slot.family);
            for sample in sample_names(&slot.family, kind) {
                if let Entry::Occupied(claim) = self.claimed.entry(sample.into())
                    && *claim.get() == slot.family
                {
                    claim.remove();
                }
            }
        }
    }

    /// Takes out what was last seen before `before` of the `count` slots from `from` on. Returns where to go on,
    /// `None` at the end.
    pub fn sweep(&mut self, from: u32, count: usize, before: u64) -> Option<u32> {
        let end = (from as usize + count).min(self.slots.len()) as u32;
        for at in from..end {
            if self.get(at).is_some_and(|slot| slot.seen < before) {
                self.remove(at);
            }
        }
        ((end as usize) < self.slots.len()).then_some(end)
    }

    /// Describes a family anew.
    pub fn describe(&mut self, family: &str, help: &str) {
        if let Some(group) = self.groups.get_mut(family) {
            help.clone_into(&mut group.help);
        }
    }

    /// The first family from `from` on, or behind it.
    pub fn family(&self, from: Bound<&str>) -> Option<(&Arc<str>, &Group)> {
        self.groups.range::<str, _>((from, Bound::Unbounded)).next()
    }

    /// Whether nothing at all is left.
    #[cfg(test)]
    pub fn is_clear(&self) -> bool {
        let Series { places, slots, groups, claimed, weight, .. } = self;
        slots.iter().all(Option::is_none)
            && (places.len(), groups.len(), claimed.len(), *weight) == (0, 0, 0, 0)
    }

    /// Whether a family, or samples of one, have this name.
    pub fn is_claimed(&self, name: &str) -> bool {
        self.claimed.contains_key(name)
    }
}

impl Group {
    /// Its slots whose labels come after these, in order.
    pub fn after<'a>(&'a self, labels: Option<&str>) -> impl Iterator<Item = u32> + 'a {
        let from = labels.map_or(Bound::Unbounded, Bound::Excluded);
        self.members.range::<str, _>((from, Bound::Unbounded)).map(|(_, at)| *at)
    }
}

/// The names of the samples that a family makes.
pub fn sample_names(name: &str, kind: MetricType) -> impl Iterator<Item = String> {
    let suffixes: &[&str] = match kind {
        MetricType::Histogram => &["", "_bucket", "_count", "_sum"],
        MetricType::Summary => &["", "_count", "_sum"],
        _ => &[""],
    };
    let name = name.to_owned();
    suffixes.iter().map(move |suffix| format!("{name}{suffix}"))
}

/// Takes keys that are hashes already as they are.
#[derive(Debug, Default)]
struct Prehashed(u64);

impl Hasher for Prehashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}
