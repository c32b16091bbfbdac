//! Structured metadata: pairs in wire form, each name once, within the limits.

use super::Limits;
use super::names::Names;
use crate::pdata::MAX_VALUE_DEPTH;
use crate::pdata::common::AnyValue;
use crate::pdata::wire::{Cursor, WireError, put_varint, varint_len};
use crate::prometheus::text::value_text;

/// The metadata of one entry, being put together.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    /// Encoded fields of the entry.
    pub bytes: Vec<u8>,
    /// Bytes of names and values, as Loki counts.
    size: usize,
    count: usize,
    /// Pairs that did not fit.
    pub trimmed: u64,
    /// Pairs of which no name was left.
    pub nameless: u64,
    stamp: u32,
    stamps: Vec<u32>,
    max_size: usize,
    max_count: usize,
    scratch: Scratch,
}

/// Buffers.
#[derive(Debug, Default)]
struct Scratch {
    text: String,
    key: Vec<u8>,
}

/// Pairs that many entries share.
#[derive(Debug, Default)]
pub(super) struct Block {
    pub bytes: Vec<u8>,
    pairs: Vec<Pair>,
    size: usize,
}

#[derive(Debug, Clone, Copy)]
struct Pair {
    id: u32,
    end: u32,
    size: u32,
}

impl Metadata {
    pub fn new(limits: &Limits) -> Self {
        Metadata {
            max_size: limits.metadata_bytes,
            max_count: limits.metadata_count,
            stamp: 1,
            ..Metadata::default()
        }
    }

    /// One that takes everything, for blocks.
    pub fn unlimited() -> Self {
        Metadata { max_size: usize::MAX, max_count: usize::MAX, stamp: 1, ..Metadata::default() }
    }

    /// Begins an entry.
    #[inline]
    pub fn begin(&mut self, names: &Names) {
        self.bytes.clear();
        self.size = 0;
        self.count = 0;
        self.trimmed = 0;
        self.nameless = 0;
        self.stamp = self.stamp.wrapping_add(1);
        if self.stamp == 0 {
            self.stamps.clear();
            self.stamp = 1;
        }
        if self.stamps.len() < names.len() {
            self.stamps.resize(names.len() + 64, 0);
        }
    }

    /// Forgets what numbers mean.
    pub fn forget(&mut self) {
        self.stamps.clear();
        self.stamp = 1;
    }

    /// Takes a name; `false` if it is taken.
    #[inline]
    pub fn claim(&mut self, id: u32) -> bool {
        let at = id as usize;
        if at >= self.stamps.len() {
            self.stamps.resize(at + 64, 0);
        }
        match self.stamps.get_mut(at) {
            Some(stamp) if *stamp != self.stamp => {
                *stamp = self.stamp;
                true
            }
            _ => false,
        }
    }

    #[inline]
    fn is_claimed(&self, id: u32) -> bool {
        self.stamps.get(id as usize) == Some(&self.stamp)
    }

    /// Appends a pair whose name is claimed.
    #[inline]
    pub fn put(&mut self, names: &Names, id: u32, value: &[u8]) {
        if value.is_empty() {
            return;
        }
        let (field, name_len) = names.field(id);
        let size = name_len + value.len();
        if self.size + size > self.max_size || self.count >= self.max_count {
            self.trimmed += 1;
            return;
        }
        self.size += size;
        self.count += 1;
        let len = field.len() + 1 + varint_len(value.len() as u64) + value.len();
        let out = &mut self.bytes;
        out.reserve(len + 6);
        out.push(3 << 3 | 2);
        put_varint(out, len as u64);
        out.extend_from_slice(field);
        out.push(2 << 3 | 2);
        put_varint(out, value.len() as u64);
        out.extend_from_slice(value);
    }

    /// Appends a pair of text that may be no UTF-8, whose name is claimed.
    #[inline]
    pub fn put_text(&mut self, names: &Names, id: u32, value: &[u8]) {
        if std::str::from_utf8(value).is_ok() {
            self.put(names, id, value);
        } else {
            self.put(names, id, String::from_utf8_lossy(value).as_bytes());
        }
    }

    /// Appends an attribute, a map as one pair for each value in it.
    ///
    /// # Errors
    /// A map cannot be read.
    #[inline]
    pub fn attribute(
        &mut self,
        names: &mut Names,
        key: &[u8],
        value: &AnyValue<'_>,
    ) -> Result<(), WireError> {
        match value {
            AnyValue::Empty => return Ok(()),
            AnyValue::KvList(_) => return self.flatten(names, key, value, 0),
            _ => {}
        }
        let Some(id) = names.id(key) else {
            self.nameless += 1;
            return Ok(());
        };
        if self.claim(id) {
            self.value(names, id, value);
        }
        Ok(())
    }

    #[inline]
    fn value(&mut self, names: &Names, id: u32, value: &AnyValue<'_>) {
        if let AnyValue::Str(text) = value {
            return self.put_text(names, id, text);
        }
        let mut text = std::mem::take(&mut self.scratch.text);
        text.clear();
        value_text(value, &mut text);
        self.put(names, id, text.as_bytes());
        self.scratch.text = text;
    }

    fn flatten(
        &mut self,
        names: &mut Names,
        key: &[u8],
        value: &AnyValue<'_>,
        depth: u32,
    ) -> Result<(), WireError> {
        let AnyValue::KvList(map) = value else {
            let Some(id) = names.id(key) else {
                self.nameless += 1;
                return Ok(());
            };
            if !matches!(value, AnyValue::Empty) && self.claim(id) {
                self.value(names, id, value);
            }
            return Ok(());
        };
        if depth >= MAX_VALUE_DEPTH {
            return Ok(());
        }
        let Some(id) = names.id(key) else {
            self.nameless += 1;
            return Ok(());
        };
        for pair in map.pairs() {
            let (inner, value) = pair?;
            let mut path = std::mem::take(&mut self.scratch.key);
            path.clear();
            path.extend_from_slice(names.text(id).as_bytes());
            path.push(b'_');
            path.extend_from_slice(inner);
            if matches!(value, AnyValue::KvList(_)) {
                let own = path.clone();
                self.scratch.key = path;
                self.flatten(names, &own, &value, depth + 1)?;
            } else {
                let done = self.flatten(names, &path, &value, depth + 1);
                self.scratch.key = path;
                done?;
            }
        }
        Ok(())
    }

    /// Appends the pairs of a block whose names are not taken.
    #[inline]
    pub fn block(&mut self, block: &Block) {
        let fits =
            self.size + block.size <= self.max_size && self.count + block.pairs.len() <= self.max_count;
        if fits && !block.pairs.iter().any(|pair| self.is_claimed(pair.id)) {
            self.bytes.extend_from_slice(&block.bytes);
            self.size += block.size;
            self.count += block.pairs.len();
            return;
        }
        let mut start = 0;
        for pair in &block.pairs {
            let bytes = block.bytes.get(start..pair.end as usize).unwrap_or_default();
            start = pair.end as usize;
            if self.is_claimed(pair.id) {
                continue;
            }
            if self.size + pair.size as usize > self.max_size || self.count >= self.max_count {
                self.trimmed += 1;
                continue;
            }
            self.bytes.extend_from_slice(bytes);
            self.size += pair.size as usize;
            self.count += 1;
        }
    }

    /// As [`block`](Self::block), for one whose names win over what comes after.
    pub fn claim_block(&mut self, block: &Block) {
        self.block(block);
        for pair in &block.pairs {
            self.claim(pair.id);
        }
    }
}

impl Block {
    /// The pairs that a maker has written.
    pub fn of(maker: &Metadata, names: &mut Names) -> Self {
        let mut block = Block::default();
        let mut cursor = Cursor::new(&maker.bytes);
        while let Ok(Some(field)) = cursor.next_field() {
            let Ok(pair) = field.value.bytes() else { break };
            let mut parts = Cursor::new(pair);
            let mut part = || parts.next_field().ok().flatten().and_then(|f| f.value.bytes().ok());
            let (Some(name), Some(value)) = (part(), part()) else { break };
            // A name that Loki has is its own.
            let Some(id) = names.id(name) else { break };
            block.bytes.extend_from_slice(maker.bytes.get(field.start..field.end).unwrap_or_default());
            let size = name.len() + value.len();
            block.size += size;
            block.pairs.push(Pair { id, end: block.bytes.len() as u32, size: size as u32 });
        }
        block
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Bytes it takes, about.
    pub fn held(&self) -> usize {
        self.bytes.capacity() + 12 * self.pairs.capacity()
    }
}
