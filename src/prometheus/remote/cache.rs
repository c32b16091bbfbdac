//! The series that were seen before: from the hash of their raw bytes to their finished labels.
//!
//! Two generations: what is used stays in the young one, or moves there; when the young one has taken its half of
//! the cap, it becomes the old one and what the old one still held is forgotten. So a series in use is never
//! forgotten while the series in use fit into half the cap, memory is bounded, and nothing is scanned. That happens
//! between batches; a batch that brings more series than the whole cap has the rest of them made without being kept.
//!
//! Labels are kept as a *block*: in 1.0 the encoded Label fields, in 2.0 pairs of symbol ids of the generation.
//!
//! Costs: a steady sender names its series in the same order each time, so a look-up first tries the entry after the
//! last one, which lies beside it; else a hit is one probe of a table of `u32` and one look at the entry. An entry is 48 bytes, about 8 of table,
//! and its block.

use std::mem::size_of;

use hashbrown::HashTable;

/// Labels are kept in pieces of this size, so that growing never copies them.
const CHUNK: usize = 256 << 10;

/// What is kept of a series, or of the series that one histogram or summary makes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// The hash of the raw bytes.
    pub key: u128,
    /// Its place in [`Groups`](super::groups::Groups).
    pub group: u32,
    /// The shard that sends it.
    pub shard: u32,
    /// Where the labels before the name, and those before `le` or `quantile`, end in the block. Nothing for
    /// numbers, whose block has all labels.
    pub cuts: (u32, u32),
    chunk: u32,
    offset: u32,
    len: u32,
}

/// A generation is at most this large, so that offsets into it fit into 32 bits with room for a batch.
const MOST: usize = 1 << 30;

/// Strings with numbers.
#[derive(Debug, Default)]
pub(super) struct Symbols {
    text: Vec<u8>,
    ends: Vec<u32>,
    table: HashTable<u32>,
}

#[derive(Debug, Default)]
struct Generation {
    number: u64,
    table: HashTable<u32>,
    entries: Vec<Entry>,
    chunks: Vec<Vec<u8>>,
    symbols: Symbols,
    /// How many entries have a copy in the next generation.
    moved: usize,
}

/// Two generations of entries.
#[derive(Debug)]
pub(super) struct Store {
    young: Generation,
    old: Generation,
    /// Whether blocks are symbol ids.
    symbolic: bool,
    half: usize,
    /// The entry after the one found last.
    next: u32,
    pub hits: u64,
    pub misses: u64,
    pub forgotten: u64,
}

impl Symbols {
    /// The number of a string, a new one if it has none.
    pub fn intern(&mut self, text: &[u8]) -> u32 {
        let hash = hash(text);
        let Symbols { text: all, ends, table } = self;
        let same = |&id: &u32| slice(all, ends, id) == text;
        if let Some(&id) = table.find(hash, same) {
            return id;
        }
        let id = ends.len() as u32;
        all.extend_from_slice(text);
        ends.push(all.len() as u32);
        let (all, ends) = (&*all, &*ends);
        table.insert_unique(hash, id, |&id| self::hash(slice(all, ends, id)));
        id
    }

    /// The number of a string that has one.
    pub fn find(&self, text: &[u8]) -> Option<u32> {
        self.table.find(hash(text), |&id| self.get(id) == text).copied()
    }

    /// The string of a number.
    #[inline]
    pub fn get(&self, id: u32) -> &[u8] {
        slice(&self.text, &self.ends, id)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    fn bytes(&self) -> usize {
        self.text.capacity() + self.ends.capacity() * 4 + self.table.capacity() * 5
    }
}

fn slice<'a>(text: &'a [u8], ends: &[u32], id: u32) -> &'a [u8] {
    let id = id as usize;
    let start = id.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or(0);
    let end = ends.get(id).copied().unwrap_or(start);
    text.get(start as usize..end as usize).unwrap_or_default()
}

fn hash(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

impl Generation {
    fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
            + self.table.capacity() * 5
            + self.chunks.len() * CHUNK
            + self.symbols.bytes()
    }

    #[inline]
    fn find(&self, key: u128) -> Option<u32> {
        let same = |&at: &u32| self.entries.get(at as usize).is_some_and(|e| e.key == key);
        self.table.find(key as u64, same).copied()
    }

    fn insert(&mut self, mut entry: Entry, block: &[u8]) -> u32 {
        let fits = self.chunks.last().is_some_and(|c| c.capacity() - c.len() >= block.len());
        if !fits {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        entry.chunk = self.chunks.len() as u32 - 1;
        entry.len = block.len() as u32;
        if let Some(chunk) = self.chunks.last_mut() {
            entry.offset = chunk.len() as u32;
            chunk.extend_from_slice(block);
        }
        let at = self.entries.len() as u32;
        self.entries.push(entry);
        let entries = &self.entries;
        let rehash = |&at: &u32| entries.get(at as usize).map_or(0, |e: &Entry| e.key as u64);
        self.table.insert_unique(entry.key as u64, at, rehash);
        at
    }

    #[inline]
    fn block(&self, entry: &Entry) -> &[u8] {
        let chunk = self.chunks.get(entry.chunk as usize).map(Vec::as_slice).unwrap_or_default();
        chunk.get(entry.offset as usize..(entry.offset + entry.len) as usize).unwrap_or_default()
    }
}

impl Store {
    /// A store of at most about `cap` bytes; `symbolic` for 2.0.
    pub fn new(cap: usize, symbolic: bool) -> Self {
        Store {
            young: Generation::default(),
            old: Generation::default(),
            symbolic,
            half: (cap / 2).min(MOST),
            next: 0,
            hits: 0,
            misses: 0,
            forgotten: 0,
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        let number = self.young.number + 1;
        self.forgotten += self.len() as u64;
        self.old = Generation::default();
        self.young = Generation { number, ..Generation::default() };
    }

    /// Looks a series up.
    #[inline]
    pub fn find(&mut self, key: u128) -> Option<u32> {
        let next = self.next;
        let at = match self.young.entries.get(next as usize) {
            Some(entry) if entry.key == key => next,
            _ => match self.young.find(key) {
                Some(at) => at,
                None => return self.promote(key),
            },
        };
        self.next = at.wrapping_add(1);
        self.hits += 1;
        Some(at)
    }

    #[cold]
    fn promote(&mut self, key: u128) -> Option<u32> {
        let Some(at) = self.old.find(key) else {
            self.misses += 1;
            return None;
        };
        self.hits += 1;
        let entry = *self.old.entries.get(at as usize)?;
        let mut block = self.old.block(&entry).to_vec();
        if self.symbolic {
            for id in block.chunks_exact_mut(4) {
                if let Ok(bytes) = <[u8; 4]>::try_from(&*id) {
                    let text = self.old.symbols.get(u32::from_le_bytes(bytes));
                    id.copy_from_slice(&self.young.symbols.intern(text).to_le_bytes());
                }
            }
        }
        self.old.moved += 1;
        Some(self.young.insert(entry, &block))
    }

    /// Remembers a series.
    pub fn insert(&mut self, key: u128, group: u32, shard: u32, cuts: (u32, u32), block: &[u8]) -> u32 {
        let entry = Entry { key, group, shard, cuts, chunk: 0, offset: 0, len: 0 };
        self.young.insert(entry, block)
    }

    /// Whether the young generation has taken its half of the room: time to [`Store::age`].
    pub fn is_full(&self) -> bool {
        let holds = !self.young.entries.is_empty() || self.young.symbols.len() > 0;
        holds && self.young.bytes() >= self.half
    }

    /// Whether a series may be remembered. Only one batch with more series than fit into the cap can see it false.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.young.bytes() < 2 * self.half + 4 * CHUNK
    }

    /// Makes the young generation the old one. Entry numbers and symbols change: between batches only, so that the
    /// cap may be passed by what one batch brings.
    pub fn age(&mut self) {
        let number = self.young.number + 1;
        let young = Generation { number, ..Generation::default() };
        let old = std::mem::replace(&mut self.old, std::mem::replace(&mut self.young, young));
        self.forgotten += (old.entries.len() - old.moved) as u64;
    }

    /// An entry that was found or inserted since the last [`Store::age`].
    #[inline]
    pub fn entry(&self, at: u32) -> Option<(Entry, &[u8])> {
        let entry = self.young.entries.get(at as usize)?;
        Some((*entry, self.young.block(entry)))
    }

    /// The symbols that blocks refer to now.
    pub fn symbols(&self) -> &Symbols {
        &self.young.symbols
    }

    /// As [`Store::symbols`].
    pub fn symbols_mut(&mut self) -> &mut Symbols {
        &mut self.young.symbols
    }

    /// Changes whenever symbols are numbered anew.
    pub fn generation(&self) -> u64 {
        self.young.number
    }

    /// Series held.
    pub fn len(&self) -> usize {
        self.young.entries.len() + self.old.entries.len() - self.old.moved
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.young.bytes() + self.old.bytes()
    }

    /// The largest block that is kept.
    pub const LARGEST: usize = CHUNK / 4;
}
