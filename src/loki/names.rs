//! Attribute keys and what Loki calls them, known by number.
//!
//! Keys that become the same name have the same number, so that a name is found twice in an entry by its number.

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::pdata::wire::put_bytes;
use crate::prometheus::names::loki_label;

/// Numbers of what the record and scope fields are called.
pub(super) const OBSERVED: u32 = 0;
pub(super) const SEVERITY_NUMBER: u32 = 1;
pub(super) const SEVERITY_TEXT: u32 = 2;
pub(super) const DROPPED: u32 = 3;
pub(super) const FLAGS: u32 = 4;
pub(super) const TRACE: u32 = 5;
pub(super) const SPAN: u32 = 6;
pub(super) const EVENT: u32 = 7;
pub(super) const SCOPE_NAME: u32 = 8;
pub(super) const SCOPE_VERSION: u32 = 9;
pub(super) const SCOPE_DROPPED: u32 = 10;

/// The names of these numbers.
const FIELDS: [&str; 11] = [
    "observed_timestamp",
    "severity_number",
    "severity_text",
    "dropped_attributes_count",
    "flags",
    "trace_id",
    "span_id",
    "event_name",
    "scope_name",
    "scope_version",
    "scope_dropped_attributes_count",
];

/// Memory that names may take.
const CAP: usize = 4 << 20;

/// The number of a key of which no name is left.
const NO_NAME: u32 = u32::MAX;

/// Names by number.
#[derive(Debug)]
pub(super) struct Names {
    keys: HashTable<u32>,
    /// Keys and the numbers of their names.
    known: Vec<(Box<[u8]>, u32)>,
    ids: HashTable<u32>,
    names: Vec<Name>,
    seed: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Name {
    text: Box<str>,
    /// As field 1 of a pair.
    field: Box<[u8]>,
}

impl Names {
    pub fn new() -> Self {
        let mut names = Names {
            keys: HashTable::new(),
            known: Vec::new(),
            ids: HashTable::new(),
            names: Vec::new(),
            seed: fastrand::u64(..),
            bytes: 0,
        };
        names.clear();
        names
    }

    /// Forgets everything but the fields. Numbers change their meaning.
    pub fn clear(&mut self) {
        self.keys.clear();
        self.known.clear();
        self.ids.clear();
        self.names.clear();
        self.bytes = 0;
        for name in FIELDS {
            self.id(name.as_bytes());
        }
    }

    /// Whether there are too many.
    pub fn is_full(&self) -> bool {
        self.bytes > CAP
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// The number of a key's name; nothing if no name is left.
    #[inline]
    pub fn id(&mut self, key: &[u8]) -> Option<u32> {
        let hash = xxh3_64_with_seed(key, self.seed);
        let same = |&at: &u32| self.known.get(at as usize).is_some_and(|(known, _)| **known == *key);
        let id = match self.keys.find(hash, same).and_then(|&at| self.known.get(at as usize)) {
            Some((_, id)) => *id,
            None => self.meet(key, hash),
        };
        (id != NO_NAME).then_some(id)
    }

    /// The name of a number.
    pub fn text(&self, id: u32) -> &str {
        self.names.get(id as usize).map_or("", |name| &name.text)
    }

    /// The name of a number as field 1 of a pair, and its length.
    #[inline]
    pub fn field(&self, id: u32) -> (&[u8], usize) {
        self.names.get(id as usize).map_or((&[], 0), |name| (&name.field, name.text.len()))
    }

    #[cold]
    fn meet(&mut self, key: &[u8], hash: u64) -> u32 {
        let mut text = String::new();
        let id = match loki_label(&String::from_utf8_lossy(key), &mut text) {
            Ok(()) => self.name(&text),
            Err(_) => NO_NAME,
        };
        let at = self.known.len() as u32;
        self.bytes += key.len() + 64;
        self.known.push((key.into(), id));
        let (known, seed) = (&self.known, self.seed);
        let rehash = |&at: &u32| known.get(at as usize).map_or(0, |(key, _)| xxh3_64_with_seed(key, seed));
        self.keys.insert_unique(hash, at, rehash);
        id
    }

    fn name(&mut self, text: &str) -> u32 {
        let (names, seed) = (&self.names, self.seed);
        let of = |&id: &u32| names.get(id as usize).map_or("", |name| &*name.text);
        let hash = xxh3_64_with_seed(text.as_bytes(), seed);
        if let Some(&id) = self.ids.find(hash, |id| of(id) == text) {
            return id;
        }
        let id = self.names.len() as u32;
        let mut field = Vec::new();
        put_bytes(&mut field, 1, text.as_bytes());
        self.bytes += 2 * text.len() + 96;
        self.names.push(Name { text: text.into(), field: field.into() });
        let names = &self.names;
        let rehash = |&id: &u32| {
            xxh3_64_with_seed(names.get(id as usize).map_or("", |name| &*name.text).as_bytes(), seed)
        };
        self.ids.insert_unique(hash, id, rehash);
        id
    }
}
