//! One request as it is sent, that can be cut, counted and turned into the older version.
//!
//! A message is a head (the symbols of 2.0; nothing in 1.0) and series end to end; it is kept compressed. `ends` says
//! where in the series each item (OTLP data point) ends, so that a refused request is cut without being read.

use std::mem::size_of;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::snappy::Snappy;
use crate::exporters::delivery::sharded::ShardBody;
use crate::pdata::wire::{Cursor, Value, WireError, put_bytes, put_varint, read_varint};

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// `prometheus.WriteRequest`.
    V1,
    /// `io.prometheus.write.v2.Request`.
    V2,
}

/// What a request holds, as the 2.0 response headers count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Float samples.
    pub samples: usize,
    /// Native histograms.
    pub histograms: usize,
    /// Exemplars.
    pub exemplars: usize,
}

/// One request.
#[derive(Debug)]
pub struct WriteBody {
    version: Version,
    /// The snappy block.
    wire: Bytes,
    /// The length of the head.
    head: usize,
    ends: Ends,
    counts: Counts,
    undo: Option<Undo>,
    delivered: AtomicBool,
    attempts: AtomicU32,
}

/// Where parts of a request begin and end in its series.
#[derive(Debug, Default)]
pub(super) struct Ends {
    /// Where each item ends. It begins at the end of the one before, but for extras.
    pub items: Vec<u32>,
    /// Series that belong to no item, in order: they must not be lost with one that is refused.
    pub extras: Vec<(u32, u32)>,
}

impl Ends {
    /// Cuts before the item `middle`, at byte `cut`.
    fn split(mut self, middle: usize, cut: u32) -> [Ends; 2] {
        let mut items = self.items.split_off(middle);
        items.iter_mut().for_each(|end| *end -= cut);
        let at = self.extras.partition_point(|(start, _)| *start < cut);
        let mut extras = self.extras.split_off(at);
        extras.iter_mut().for_each(|(start, end)| (*start, *end) = (*start - cut, *end - cut));
        [self, Ends { items, extras }]
    }
}

/// What the order of a series was before an item, for items that go back to their sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The series.
    pub group: u32,
    /// Which numbering of series that is.
    pub epoch: u32,
    /// Milliseconds of the newest sample before.
    pub before: i64,
    /// Milliseconds of this sample.
    pub time: i64,
}

/// Where bodies that were not delivered leave their steps.
#[derive(Debug, Default)]
pub struct Returned {
    steps: Mutex<Vec<Step>>,
    any: AtomicBool,
}

#[derive(Debug)]
struct Undo {
    steps: Vec<Step>,
    back: Arc<Returned>,
}

impl Returned {
    /// Takes what has come back; almost always nothing, at the price of one load.
    pub fn take(&self) -> Vec<Step> {
        if !self.any.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut *self.steps.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl WriteBody {
    /// A request; `steps` are empty when nobody waits for it.
    pub(super) fn new(
        version: Version,
        wire: Bytes,
        head: usize,
        ends: Ends,
        counts: Counts,
        steps: Vec<Step>,
        back: &Arc<Returned>,
    ) -> Self {
        let undo = (!steps.is_empty()).then(|| Undo { steps, back: back.clone() });
        let (delivered, attempts) = (AtomicBool::new(false), AtomicU32::new(0));
        WriteBody { version, wire, head, ends, counts, undo, delivered, attempts }
    }

    /// A 1.0 request of nothing but metadata.
    pub(super) fn metadata(message: &[u8]) -> Self {
        let (ends, steps) = (Ends::default(), Vec::new());
        WriteBody::new(Version::V1, block(&[], message), 0, ends, Counts::default(), steps, &Arc::default())
    }

    /// The version it is encoded in.
    pub fn version(&self) -> Version {
        self.version
    }

    /// What it holds.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The message as a snappy block, as it is sent.
    pub fn wire(&self) -> &Bytes {
        &self.wire
    }

    /// How much of [`message`](Self::message) is symbols and items. The series behind that are no item's:
    /// `target_info`.
    pub fn items_len(&self) -> usize {
        self.head + self.ends.items.last().map_or(0, |end| *end as usize)
    }

    /// The message before compression.
    ///
    /// # Errors
    /// It is no block of ours.
    pub fn message(&self) -> Result<Bytes, snap::Error> {
        snap::raw::Decoder::new().decompress_vec(&self.wire).map(Bytes::from)
    }

    /// Counts an attempt; gives how many there were before.
    pub fn attempt(&self) -> u32 {
        self.attempts.fetch_add(1, Ordering::Relaxed)
    }

    /// The destination has it, or will never have it: its samples are not expected again.
    pub fn settle(&self) {
        self.delivered.store(true, Ordering::Release);
    }

    /// The same data as the block of a 1.0 message: metadata and start times, which 1.0 has no place for, are left
    /// out. `None` when that message would be larger than `max`: 1.0 repeats what 2.0 says once.
    ///
    /// # Errors
    /// It is no message of ours.
    pub fn to_v1(&self, max: usize) -> Result<Option<Bytes>, WireError> {
        let message = self.message().map_err(|_| WireError::Truncated)?;
        let (head, body) = message.split_at_checked(self.head).ok_or(WireError::Truncated)?;
        let mut symbols: Vec<&[u8]> = Vec::new();
        let mut cursor = Cursor::new(head);
        while let Some(field) = cursor.next_field()? {
            symbols.push(field.value.bytes()?);
        }
        let mut out = Vec::with_capacity((body.len() * 4).min(max));
        let (mut series, mut inner) = (Vec::new(), Vec::new());
        let mut cursor = Cursor::new(body);
        while let Some(message) = cursor.next_field()? {
            series.clear();
            let mut fields = Cursor::new(message.value.bytes()?);
            while let Some(part) = fields.next_field()? {
                let bytes = part.value.bytes()?;
                match part.number {
                    1 if !labels_to_v1(bytes, &symbols, max, &mut series)? => return Ok(None),
                    1 => {}
                    2 => {
                        inner.clear();
                        without(bytes, 3, &mut inner)?;
                        put_bytes(&mut series, 2, &inner);
                    }
                    3 => {
                        inner.clear();
                        without(bytes, 17, &mut inner)?;
                        put_bytes(&mut series, 4, &inner);
                    }
                    4 => {
                        inner.clear();
                        exemplar_to_v1(bytes, &symbols, max, &mut inner)?;
                        put_bytes(&mut series, 3, &inner);
                    }
                    _ => {}
                }
            }
            if out.len() + series.len() > max {
                return Ok(None);
            }
            put_bytes(&mut out, 1, &series);
        }
        Ok(Some(block(&[], &out)))
    }

    /// The series that belong to no item, and the others.
    #[expect(clippy::result_large_err, reason = "the request goes back, as from `halve`")]
    fn without_extras(mut self) -> Result<[Self; 2], Self> {
        if self.ends.extras.is_empty() || self.ends.items.is_empty() {
            return Err(self);
        }
        let Ok(message) = self.message() else { return Err(self) };
        let (head, series) = message.split_at(self.head.min(message.len()));
        let Ends { items, extras } = std::mem::take(&mut self.ends);
        let (mut apart, mut rest) = (Vec::new(), Vec::with_capacity(series.len()));
        let mut at = 0;
        for (start, end) in &extras {
            let (start, end) = (*start as usize, *end as usize);
            rest.extend_from_slice(series.get(at..start).unwrap_or_default());
            apart.extend_from_slice(series.get(start..end).unwrap_or_default());
            at = end;
        }
        rest.extend_from_slice(series.get(at..).unwrap_or_default());
        let steps = self.undo.as_mut().map(|u| std::mem::take(&mut u.steps)).unwrap_or_default();
        // Of one item, what is cut out lies before it or behind it.
        let items = items.iter().map(|_| rest.len() as u32).collect();
        let halves = [
            self.part(head, &apart, Ends::default(), Vec::new()),
            self.part(head, &rest, Ends { items, extras: Vec::new() }, steps),
        ];
        self.settle();
        Ok(halves)
    }

    fn part(&self, head: &[u8], series: &[u8], ends: Ends, steps: Vec<Step>) -> WriteBody {
        let counts = count(self.version, series).unwrap_or_default();
        let mut part = WriteBody::new(
            self.version,
            block(head, series),
            head.len(),
            ends,
            counts,
            Vec::new(),
            &Arc::default(),
        );
        let undo = self.undo.as_ref().filter(|_| !steps.is_empty());
        part.undo = undo.map(|undo| Undo { steps, back: undo.back.clone() });
        part
    }
}

impl Drop for WriteBody {
    fn drop(&mut self) {
        if let Some(undo) = self.undo.take()
            && !self.delivered.load(Ordering::Acquire)
        {
            undo.back.steps.lock().unwrap_or_else(PoisonError::into_inner).extend(undo.steps);
            undo.back.any.store(true, Ordering::Release);
        }
    }
}

impl ShardBody for WriteBody {
    fn items(&self) -> usize {
        self.ends.items.len()
    }

    fn halve(mut self) -> Result<[Self; 2], Self> {
        let middle = self.ends.items.len() / 2;
        let Some(&cut) = middle.checked_sub(1).and_then(|last| self.ends.items.get(last)) else {
            return self.without_extras();
        };
        let Ok(message) = self.message() else { return Err(self) };
        let (head, series) = message.split_at(self.head.min(message.len()));
        let [first, second] = std::mem::take(&mut self.ends).split(middle, cut);
        let mut steps = self.undo.as_mut().map(|u| std::mem::take(&mut u.steps)).unwrap_or_default();
        let later = if steps.is_empty() { Vec::new() } else { steps.split_off(middle.min(steps.len())) };
        let (one, two) = series.split_at((cut as usize).min(series.len()));
        let halves = [self.part(head, one, first, steps), self.part(head, two, second, later)];
        self.settle();
        Ok(halves)
    }

    fn size(&self) -> usize {
        let steps = self.undo.as_ref().map_or(0, |undo| undo.steps.len());
        self.wire.len() + 4 * self.ends.items.len() + steps * size_of::<Step>()
    }
}

/// A message as a snappy block.
fn block(head: &[u8], series: &[u8]) -> Bytes {
    let mut wire = Vec::new();
    put_varint(&mut wire, (head.len() + series.len()) as u64);
    let mut snappy = Snappy::default();
    snappy.append(head, &mut wire);
    snappy.append(series, &mut wire);
    wire.into()
}

/// Counts what stands in encoded series.
fn count(version: Version, series: &[u8]) -> Result<Counts, WireError> {
    let mut counts = Counts::default();
    let mut cursor = Cursor::new(series);
    while let Some(message) = cursor.next_field()? {
        let mut fields = Cursor::new(message.value.bytes()?);
        while let Some(part) = fields.next_field()? {
            match (part.number, version) {
                (2, _) => counts.samples += 1,
                (4, Version::V1) | (3, Version::V2) => counts.histograms += 1,
                (3, Version::V1) | (4, Version::V2) => counts.exemplars += 1,
                _ => {}
            }
        }
    }
    Ok(counts)
}

/// Packed references as Label messages in field 1; `false` when that is more than `max` bytes.
fn labels_to_v1(
    mut refs: &[u8],
    symbols: &[&[u8]],
    max: usize,
    out: &mut Vec<u8>,
) -> Result<bool, WireError> {
    let mut next = || -> Result<&[u8], WireError> {
        let (at, used) = read_varint(refs)?;
        refs = refs.get(used..).unwrap_or_default();
        let symbol = usize::try_from(at).ok().and_then(|at| symbols.get(at));
        symbol.copied().ok_or(WireError::Truncated)
    };
    let mut label = Vec::new();
    loop {
        let name = match next() {
            Ok(name) => name,
            Err(_) => return Ok(true),
        };
        let value = next()?;
        if out.len() + name.len() + value.len() > max {
            return Ok(false);
        }
        label.clear();
        put_bytes(&mut label, 1, name);
        put_bytes(&mut label, 2, value);
        put_bytes(out, 1, &label);
    }
}

fn exemplar_to_v1(message: &[u8], symbols: &[&[u8]], max: usize, out: &mut Vec<u8>) -> Result<(), WireError> {
    let mut cursor = Cursor::new(message);
    while let Some(part) = cursor.next_field()? {
        match (part.number, part.value) {
            (1, Value::Bytes(refs)) => {
                labels_to_v1(refs, symbols, max, out)?;
            }
            _ => out.extend_from_slice(message.get(part.start..part.end).unwrap_or_default()),
        }
    }
    Ok(())
}

/// Copies a message but for one field.
fn without(message: &[u8], number: u32, out: &mut Vec<u8>) -> Result<(), WireError> {
    let mut cursor = Cursor::new(message);
    while let Some(part) = cursor.next_field()? {
        if part.number != number {
            out.extend_from_slice(message.get(part.start..part.end).unwrap_or_default());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_no_item_is_not_lost_with_one() {
        // Extra, item, item, extra, item, extra: series messages of four bytes.
        let series: Vec<u8> = (1..=6).flat_map(|n| [0x0a, 2, 0x50, n]).collect();
        let ends = Ends { items: vec![8, 12, 20], extras: vec![(0, 4), (12, 16), (20, 24)] };
        let back = Arc::new(Returned::default());
        let wire = block(&[], &series);
        let whole = WriteBody::new(Version::V1, wire, 0, ends, Counts::default(), Vec::new(), &back);
        // Items and last bytes of the series of each part, in order, when everything is cut that can be.
        let mut parts = vec![whole];
        let mut found = Vec::new();
        while let Some(part) = parts.pop() {
            match part.halve() {
                Ok([first, second]) => parts.extend([second, first]),
                Err(single) => {
                    let series: Vec<u8> = single.message().unwrap().chunks(4).map(|s| s[3]).collect();
                    found.push((single.items(), series));
                }
            }
        }
        let want = [(0, vec![1]), (1, vec![2]), (1, vec![3]), (0, vec![4, 6]), (1, vec![5])];
        assert_eq!(found, want);
    }
}
