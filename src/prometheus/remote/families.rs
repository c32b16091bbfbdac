//! What is kept of metrics: their family, and the labels that differ between the series of one point.
//!
//! A histogram's series share all labels but the name's suffix and `le`. Those are made once a family (and anew when
//! bounds change), so that a bucket costs no more than copying them between the shared labels of its point.

use std::collections::HashMap;

use super::body::Version;
use super::cache::Symbols;
use super::open::Meta;
use super::wire::varint_field;
use crate::pdata::wire::put_bytes;
use crate::prometheus::map::{Family, NAME};

/// How often it is looked what is to be told, milliseconds.
const LOOK: i64 = 1000;

/// The labels of one list of numbers, as blocks.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// The list the labels are for.
    raw: Vec<u8>,
    blocks: Vec<u8>,
    ends: Vec<u32>,
    generation: Option<u64>,
}

/// One metric.
#[derive(Debug)]
pub(super) struct Known {
    /// Why its points are dropped, if they are.
    pub skip: Option<&'static str>,
    /// What it becomes; empty when it is skipped.
    pub family: Family,
    /// The description it was made from.
    pub description: Vec<u8>,
    /// The name's label, as it is and with `_bucket`, `_sum` and `_count`.
    pub names: [Vec<u8>; 4],
    /// `le` labels, the last one for `+Inf`.
    pub bounds: Numbers,
    /// `quantile` labels.
    pub quantiles: Numbers,
    /// For 2.0.
    pub meta: Meta,
    generation: Option<u64>,
    /// Whether it came since its metadata was last told.
    pub seen: bool,
    /// When its metadata was last told, as it is now; milliseconds since 1970.
    told: Option<i64>,
    /// Whether another metric has series of the same names, so that each series must be looked at by itself.
    pub clashes: bool,
    /// For whom it is told: the data of different partitions never shares a request.
    partition: u64,
}

/// Which name of a family.
#[derive(Debug, Clone, Copy)]
pub(super) enum Suffix {
    Bucket = 1,
    Sum = 2,
    Count = 3,
}

/// All metrics seen.
#[derive(Debug, Default)]
pub(super) struct Families {
    table: HashMap<u128, u32>,
    known: Vec<Known>,
    bytes: usize,
    /// Who has series of a name.
    owners: HashMap<String, Owner>,
    /// When it was last looked what is to be told to a partition, if nothing new came since; milliseconds since 1970.
    looked: HashMap<u64, i64>,
}

/// Who has series of one name.
#[derive(Debug)]
struct Owner {
    /// The family that was first.
    family: String,
    form: Form,
    clashing: bool,
    /// The metrics that are to know when it becomes so; none afterwards.
    users: Vec<u32>,
}

/// Which series a family consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One of the family's name: numbers and native histograms.
    Single,
    /// `_bucket`, `_sum` and `_count`.
    Classic,
    /// A native and a classic histogram.
    Both,
    /// Quantiles of the family's name, `_sum` and `_count`.
    Summary,
}

impl Families {
    pub fn find(&self, key: u128) -> Option<u32> {
        self.table.get(&key).copied()
    }

    pub fn get(&self, at: u32) -> Option<&Known> {
        self.known.get(at as usize)
    }

    pub fn get_mut(&mut self, at: u32) -> Option<&mut Known> {
        self.known.get_mut(at as usize)
    }

    /// Remembers a metric.
    pub fn insert(&mut self, key: u128, mut known: Known, form: Form) -> u32 {
        let at = self.known.len() as u32;
        if known.skip.is_none() {
            self.claim(at, &mut known, form);
        }
        self.bytes += 1200 + 17 * known.family.name.len() + known.bytes();
        self.looked.remove(&known.partition);
        self.known.push(known);
        self.table.insert(key, at);
        at
    }

    /// Notes the names of a metric's series, and whom it shares them with. Metrics of one name and form share the
    /// order of their series anyway.
    fn claim(&mut self, at: u32, known: &mut Known, form: Form) {
        let family = &known.family.name;
        let suffixes: &[&str] = match form {
            Form::Single => &[""],
            Form::Classic => &["_bucket", "_sum", "_count"],
            Form::Both => &["", "_bucket", "_sum", "_count"],
            Form::Summary => &["", "_sum", "_count"],
        };
        for suffix in suffixes {
            let first = || Owner { family: family.clone(), form, clashing: false, users: Vec::new() };
            let owner = self.owners.entry(format!("{family}{suffix}")).or_insert_with(first);
            owner.clashing |= owner.family != *family || owner.form != form;
            if !owner.clashing {
                owner.users.push(at);
                continue;
            }
            known.clashes = true;
            for user in std::mem::take(&mut owner.users) {
                if let Some(user) = self.known.get_mut(user as usize) {
                    user.clashes = true;
                }
            }
        }
    }

    /// Notes that a metric, which took `before` bytes, was changed.
    pub fn changed(&mut self, at: u32, before: usize) {
        let Some(known) = self.known.get(at as usize) else { return };
        self.looked.remove(&known.partition);
        self.bytes = (self.bytes + known.bytes()).saturating_sub(before);
    }

    /// About how many bytes there are.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn clear(&mut self) {
        *self = Families::default();
    }

    /// The 1.0 metadata of a partition's families that were never told, and of those that came since they were and
    /// were last told `every` milliseconds ago, in messages of about `max` bytes at most. Looks at all families once
    /// a second, or when there are new ones.
    pub fn tell(&mut self, partition: u64, now: i64, every: i64, max: usize) -> Vec<Vec<u8>> {
        let (mut messages, mut out, mut message) = (Vec::new(), Vec::new(), Vec::new());
        if self.looked.get(&partition).is_some_and(|at| (*at..at.saturating_add(LOOK)).contains(&now)) {
            return messages;
        }
        let due = |known: &Known| {
            let rested = known.told.is_none_or(|told| !(told..told.saturating_add(every)).contains(&now));
            known.skip.is_none() && known.seen && rested
        };
        let mut any = false;
        for known in self.known.iter_mut().filter(|known| known.partition == partition) {
            any = true;
            if !due(known) {
                continue;
            }
            (known.seen, known.told) = (false, Some(now));
            message.clear();
            varint_field(1, known.family.kind as u64, &mut message);
            put_bytes(&mut message, 2, known.family.name.as_bytes());
            if !known.family.help.is_empty() {
                put_bytes(&mut message, 4, known.family.help.as_bytes());
            }
            if !known.family.unit.is_empty() {
                put_bytes(&mut message, 5, known.family.unit.as_bytes());
            }
            if !out.is_empty() && out.len() + message.len() > max {
                messages.push(std::mem::take(&mut out));
            }
            put_bytes(&mut out, 3, &message);
        }
        if !out.is_empty() {
            messages.push(out);
        }
        if any {
            // Only who has families is remembered, so that these bound the memory.
            self.looked.insert(partition, now);
        }
        messages
    }
}

impl Known {
    pub fn new(family: Family, description: &[u8], skip: Option<&'static str>, partition: u64) -> Self {
        Known {
            skip,
            family,
            description: description.to_vec(),
            names: Default::default(),
            bounds: Numbers::default(),
            quantiles: Numbers::default(),
            meta: Meta::default(),
            generation: None,
            seen: true,
            told: None,
            clashes: false,
            partition,
        }
    }

    /// Takes another description.
    #[cold]
    pub fn redescribe(&mut self, description: &[u8]) {
        self.description = description.to_vec();
        self.family.help = String::from_utf8_lossy(description).into_owned();
        self.told = None;
        self.generation = None;
    }

    /// Bytes of what can change: the description and the labels of numbers.
    pub fn bytes(&self) -> usize {
        self.description.capacity()
            + self.family.help.capacity()
            + self.bounds.bytes()
            + self.quantiles.bytes()
    }

    /// Makes the labels, once a generation.
    #[inline]
    pub fn prepare(&mut self, version: Version, generation: u64, symbols: &mut Symbols) {
        if self.generation != Some(generation) {
            self.make(version, generation, symbols);
        }
    }

    #[cold]
    fn make(&mut self, version: Version, generation: u64, symbols: &mut Symbols) {
        self.generation = Some(generation);
        for (block, suffix) in self.names.iter_mut().zip(["", "_bucket", "_sum", "_count"]) {
            block.clear();
            let name = format!("{}{suffix}", self.family.name);
            label(version, symbols, NAME, &name, block);
        }
        let help = if version == Version::V2 { symbols.intern(self.family.help.as_bytes()) } else { 0 };
        let unit = if version == Version::V2 { symbols.intern(self.family.unit.as_bytes()) } else { 0 };
        self.meta = Meta { kind: self.family.kind as u8, help, unit };
    }

    /// The label of the name with a suffix.
    #[inline]
    pub fn name(&self, suffix: Suffix) -> &[u8] {
        self.names.get(suffix as usize).map(Vec::as_slice).unwrap_or_default()
    }
}

impl Numbers {
    /// Whether the labels are those for this list.
    #[inline]
    pub fn fits(&self, raw: &[u8], generation: u64) -> bool {
        self.generation == Some(generation) && self.raw == raw
    }

    /// Makes the labels for a list: `texts` in order, each as a label `name`.
    pub fn make(
        &mut self,
        raw: &[u8],
        generation: u64,
        texts: impl Iterator<Item = String>,
        name: &str,
        version: Version,
        symbols: &mut Symbols,
    ) {
        // Anew, so that a long list is not paid for by every short one after it.
        *self = Numbers { raw: raw.to_vec(), generation: Some(generation), ..Numbers::default() };
        for text in texts {
            label(version, symbols, name, &text, &mut self.blocks);
            self.ends.push(self.blocks.len() as u32);
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.raw.capacity() + self.blocks.capacity() + 4 * self.ends.capacity()
    }

    /// The label of the `at`-th number.
    #[inline]
    pub fn block(&self, at: usize) -> &[u8] {
        let start = at.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let end = self.ends.get(at).copied().unwrap_or(start);
        self.blocks.get(start as usize..end as usize).unwrap_or_default()
    }
}

/// Appends one label in the form of a version.
pub(super) fn label(version: Version, symbols: &mut Symbols, name: &str, value: &str, out: &mut Vec<u8>) {
    match version {
        Version::V1 => {
            let mut inner = Vec::with_capacity(name.len() + value.len() + 8);
            put_bytes(&mut inner, 1, name.as_bytes());
            put_bytes(&mut inner, 2, value.as_bytes());
            put_bytes(out, 1, &inner);
        }
        Version::V2 => {
            for text in [name, value] {
                out.extend_from_slice(&symbols.intern(text.as_bytes()).to_le_bytes());
            }
        }
    }
}
