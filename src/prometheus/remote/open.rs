//! The request of one shard that is being filled.
//!
//! Series are appended in wire form. Labels come as *parts*: blocks in the form of the version (see `cache`), which
//! stand in the order of the labels. In 2.0 each symbol gets its number in the request when it is first used; a
//! table indexed by the symbol's id, with a stamp for the request, makes that one load a label.
//!
//! Requests are compressed while they grow, 64 KiB at a time, while those bytes are in the processor's cache: a
//! request that waits takes the room of its compressed form.

use std::collections::HashMap;
use std::sync::Arc;

use super::body::{Counts, Ends, Returned, Step, Version, WriteBody};
use super::cache::Symbols;
use super::snappy::{BLOCK, Snappy};
use super::wire::{fixed64_field, varint_field};
use crate::pdata::wire::{put_bytes, put_varint, varint_len};
use crate::prometheus::exemplars::ExemplarText;

/// A float sample.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// The value's bits.
    pub bits: u64,
    /// Milliseconds since 1970.
    pub time: i64,
    /// When counting began, milliseconds since 1970; 0 when unknown.
    pub start: i64,
}

/// What 2.0 says of a series' family.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Meta {
    /// The type's number.
    pub kind: u8,
    /// Symbol of the description.
    pub help: u32,
    /// Symbol of the unit.
    pub unit: u32,
}

/// How much room is kept from request to request, in bytes.
const KEPT: usize = 1 << 20;

/// One request being filled.
#[derive(Debug)]
pub(super) struct Open {
    version: Version,
    head: Vec<u8>,
    /// Series that are not compressed yet.
    series: Vec<u8>,
    /// Those before, compressed, and how long they were.
    blocks: Vec<u8>,
    before: usize,
    ends: Vec<u32>,
    /// Where series that belong to no item begin and end.
    extras: Vec<(u32, u32)>,
    counts: Counts,
    steps: Vec<Step>,
    /// For each symbol id: the request it was last used in, and its number there.
    locals: Vec<(u32, u32)>,
    stamp: u32,
    symbols: u32,
    /// Strings that are no symbols: those of exemplars.
    others: HashMap<Vec<u8>, u32>,
    refs: Vec<u8>,
}

impl Open {
    pub fn new(version: Version) -> Self {
        Open {
            version,
            head: Vec::new(),
            series: Vec::new(),
            blocks: Vec::new(),
            before: 0,
            ends: Vec::new(),
            extras: Vec::new(),
            counts: Counts::default(),
            steps: Vec::new(),
            locals: Vec::new(),
            stamp: 1,
            symbols: 0,
            others: HashMap::new(),
            refs: Vec::new(),
        }
    }

    /// Items so far.
    pub fn items(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of the message so far.
    pub fn size(&self) -> usize {
        self.head.len() + self.before + self.series.len()
    }

    /// Bytes that are held for it.
    pub fn held(&self) -> usize {
        self.head.len() + self.blocks.len() + self.series.len()
    }

    /// Bytes of the table of symbols, which outlives requests.
    pub fn table_bytes(&self) -> usize {
        self.locals.capacity() * 8
    }

    /// Compresses what fills blocks.
    #[inline]
    pub fn compress(&mut self, snappy: &mut Snappy) {
        if self.series.len() >= BLOCK {
            self.compress_blocks(snappy);
        }
    }

    fn compress_blocks(&mut self, snappy: &mut Snappy) {
        let mut blocks = self.series.chunks_exact(BLOCK);
        for block in blocks.by_ref() {
            snappy.append(block, &mut self.blocks);
        }
        let left = blocks.remainder().len();
        let done = self.series.len() - left;
        self.before += done;
        self.series.copy_within(done.., 0);
        self.series.truncate(left);
    }

    /// Ends an item. `step` is kept for items that may have to be sent again by who sent them.
    #[inline]
    pub fn end_item(&mut self, step: Option<Step>) {
        self.ends.push((self.before + self.series.len()) as u32);
        if let Some(step) = step {
            // Items before this one were nobody's to take back.
            let missing = self.ends.len() - 1 - self.steps.len();
            let nothing = Step { group: u32::MAX, epoch: 0, time: 0, before: 0 };
            self.steps.extend(std::iter::repeat_n(nothing, missing));
            self.steps.push(step);
        }
    }

    /// What was appended since the request had `start` bytes of series belongs to no item.
    pub fn end_extra(&mut self, start: usize) {
        self.extras.push((start as u32, self.series_size() as u32));
    }

    /// Bytes of series so far.
    pub fn series_size(&self) -> usize {
        self.before + self.series.len()
    }

    /// Takes the request out; `None` if there is nothing in it.
    pub fn close(
        &mut self,
        version: Version,
        back: &Arc<Returned>,
        snappy: &mut Snappy,
    ) -> Option<WriteBody> {
        if self.series.is_empty() && self.before == 0 {
            self.begin(version);
            return None;
        }
        let (head, series) = (self.head.len(), self.before + self.series.len());
        let mut wire = Vec::with_capacity(self.blocks.len() + 10 + (self.head.len() + self.series.len()) / 4);
        put_varint(&mut wire, (head + series) as u64);
        snappy.append(&self.head, &mut wire);
        wire.extend_from_slice(&self.blocks);
        snappy.append(&self.series, &mut wire);
        let body = WriteBody::new(
            self.version,
            wire.into(),
            head,
            Ends { items: std::mem::take(&mut self.ends), extras: std::mem::take(&mut self.extras) },
            std::mem::take(&mut self.counts),
            std::mem::take(&mut self.steps),
            back,
        );
        self.begin(version);
        Some(body)
    }

    fn begin(&mut self, version: Version) {
        for buffer in [&mut self.head, &mut self.blocks, &mut self.series] {
            buffer.clear();
            buffer.shrink_to(KEPT);
        }
        self.before = 0;
        self.version = version;
        self.symbols = 0;
        self.others.clear();
        self.stamp = self.stamp.wrapping_add(1);
        if self.stamp == 0 {
            self.locals.clear();
            self.stamp = 1;
        }
    }

    /// Forgets what symbol ids mean: they are numbered anew. The request must be closed.
    pub fn forget_symbols(&mut self) {
        self.locals = Vec::new();
    }

    /// Appends a series with one sample, or with what `extra` holds (encoded fields), or both.
    #[inline]
    pub fn series(
        &mut self,
        symbols: &Symbols,
        parts: &[&[u8]],
        sample: Option<Sample>,
        extra: &[u8],
        meta: Meta,
    ) {
        self.counts.samples += usize::from(sample.is_some());
        match self.version {
            Version::V1 => self.series_v1(parts, sample, extra),
            Version::V2 => self.series_v2(symbols, parts, sample, extra, meta),
        }
    }

    #[inline]
    fn series_v1(&mut self, parts: &[&[u8]], sample: Option<Sample>, extra: &[u8]) {
        let labels: usize = parts.iter().map(|p| p.len()).sum();
        let inner = sample.map_or(0, |s| 10 + varint_len(s.time as u64));
        let outer = if sample.is_some() { 2 + inner } else { 0 };
        let len = labels + outer + extra.len();
        let out = &mut self.series;
        out.reserve(len + 6);
        out.push(1 << 3 | 2);
        put_varint(out, len as u64);
        for part in parts {
            out.extend_from_slice(part);
        }
        if let Some(sample) = sample {
            out.extend_from_slice(&[2 << 3 | 2, inner as u8]);
            fixed64_field(1, sample.bits, out);
            varint_field(2, sample.time as u64, out);
        }
        out.extend_from_slice(extra);
    }

    fn series_v2(
        &mut self,
        symbols: &Symbols,
        parts: &[&[u8]],
        sample: Option<Sample>,
        extra: &[u8],
        meta: Meta,
    ) {
        let mut refs = std::mem::take(&mut self.refs);
        refs.clear();
        for part in parts {
            for id in part.chunks_exact(4) {
                if let Ok(id) = <[u8; 4]>::try_from(id) {
                    let number = self.local(symbols, u32::from_le_bytes(id));
                    put_varint(&mut refs, u64::from(number));
                }
            }
        }
        let help = self.local(symbols, meta.help);
        let unit = self.local(symbols, meta.unit);
        let mut told = [0_u8; 24];
        let told = metadata(meta.kind, help, unit, &mut told);
        let inner = sample.map_or(0, |s| {
            let start = if s.start == 0 { 0 } else { 1 + varint_len(s.start as u64) };
            10 + varint_len(s.time as u64) + start
        });
        let outer = if sample.is_some() { 2 + inner } else { 0 };
        let len = 1 + varint_len(refs.len() as u64) + refs.len() + outer + extra.len() + told.len();
        let out = &mut self.series;
        out.reserve(len + 6);
        out.push(5 << 3 | 2);
        put_varint(out, len as u64);
        put_bytes(out, 1, &refs);
        if let Some(sample) = sample {
            out.extend_from_slice(&[2 << 3 | 2, inner as u8]);
            fixed64_field(1, sample.bits, out);
            varint_field(2, sample.time as u64, out);
            if sample.start != 0 {
                varint_field(3, sample.start as u64, out);
            }
        }
        out.extend_from_slice(extra);
        out.extend_from_slice(told);
        self.refs = refs;
    }

    /// Counts a native histogram that was put into `extra`.
    pub fn count_histogram(&mut self) {
        self.counts.histograms += 1;
    }

    /// Appends an exemplar as a field of a series to `out`.
    pub fn exemplar(&mut self, symbols: &Symbols, exemplar: &ExemplarText, out: &mut Vec<u8>) {
        self.counts.exemplars += 1;
        let (mut message, mut inner) = (Vec::new(), Vec::new());
        for (name, value) in &exemplar.labels {
            match self.version {
                Version::V1 => {
                    inner.clear();
                    put_bytes(&mut inner, 1, name.as_bytes());
                    put_bytes(&mut inner, 2, value.as_bytes());
                    put_bytes(&mut message, 1, &inner);
                }
                Version::V2 => {
                    for text in [name, value] {
                        let number = self.text(symbols, text.as_bytes());
                        put_varint(&mut inner, u64::from(number));
                    }
                }
            }
        }
        if self.version == Version::V2 && !inner.is_empty() {
            put_bytes(&mut message, 1, &inner);
        }
        fixed64_field(2, exemplar.bits, &mut message);
        varint_field(3, exemplar.time as u64, &mut message);
        let number: u32 = match self.version {
            Version::V1 => 3,
            Version::V2 => 4,
        };
        put_bytes(out, number, &message);
    }

    /// The number of a symbol in this request.
    #[inline]
    fn local(&mut self, symbols: &Symbols, id: u32) -> u32 {
        if let Some(&(stamp, number)) = self.locals.get(id as usize)
            && stamp == self.stamp
        {
            return number;
        }
        self.name_symbol(symbols, id)
    }

    fn name_symbol(&mut self, symbols: &Symbols, id: u32) -> u32 {
        let text = symbols.get(id);
        let number = match self.others.get(text) {
            Some(&number) => number,
            None => self.append_symbol(text),
        };
        if self.locals.len() <= id as usize {
            self.locals.resize((id as usize + 1).max(symbols.len()), (0, 0));
        }
        if let Some(slot) = self.locals.get_mut(id as usize) {
            *slot = (self.stamp, number);
        }
        number
    }

    /// The number of any string.
    fn text(&mut self, symbols: &Symbols, text: &[u8]) -> u32 {
        if let Some(id) = symbols.find(text) {
            return self.local(symbols, id);
        }
        if let Some(&number) = self.others.get(text) {
            return number;
        }
        let number = self.append_symbol(text);
        self.others.insert(text.to_vec(), number);
        number
    }

    fn append_symbol(&mut self, text: &[u8]) -> u32 {
        if self.symbols == 0 {
            // The first symbol is the empty string.
            self.head.extend_from_slice(&[4 << 3 | 2, 0]);
            self.symbols = 1;
        }
        if text.is_empty() {
            return 0;
        }
        put_bytes(&mut self.head, 4, text);
        self.symbols += 1;
        self.symbols - 1
    }
}

/// The Metadata field of a 2.0 series.
fn metadata(kind: u8, help: u32, unit: u32, out: &mut [u8; 24]) -> &[u8] {
    let mut at = 2;
    let mut put = |number: u8, mut value: u32| {
        if value == 0 {
            return;
        }
        let mut byte = |b: u8| {
            if let Some(slot) = out.get_mut(at) {
                *slot = b;
                at += 1;
            }
        };
        byte(number << 3);
        while value >= 0x80 {
            byte(value as u8 | 0x80);
            value >>= 7;
        }
        byte(value as u8);
    };
    put(1, u32::from(kind));
    put(3, help);
    put(4, unit);
    out[0] = 5 << 3 | 2;
    out[1] = (at - 2) as u8;
    out.get(..at).unwrap_or_default()
}
