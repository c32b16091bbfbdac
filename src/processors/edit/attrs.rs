//! One message while it is edited: where each attribute stands in it, and what became of it.
//!
//! Changes of other fields are in `patch`.
//!
//! Untouched attributes are never decoded further than their key; they keep their bytes, their order and
//! whatever fields we do not know. Buffers are reused from list to list: no allocation once they have grown.

use bytes::Bytes;

use super::patch::Patch;
use super::splice::{field_len, put_field};
use crate::pdata::wire::{Cursor, WireError, put_varint};

/// The attributes of one message. Offsets are into that message, which every call is given again as `src`.
#[derive(Debug, Default)]
pub(super) struct Attrs {
    pub(super) entries: Vec<Entry>,
    /// New keys and values.
    arena: Vec<u8>,
    /// A value while it is built.
    fresh: Vec<u8>,
    /// Where new attributes go: after the last one there was, or at the end of the message.
    tail: u32,
    changed: bool,
    /// A bit for every key there is or was; see [`key_bit`].
    keys: u64,
    /// The tag of the field the attributes stand in.
    tag: u8,
    /// The finished attributes of the program; see [`Pool`].
    pool: Bytes,
    /// Changes of other fields than the attributes; see [`Patch`].
    pub(super) patches: Vec<Patch>,
}

/// A range in the message or, with a mark set in its start, in the arena or the pool.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Loc {
    start: u32,
    len: u32,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    key: Loc,
    /// The `AnyValue`'s bytes; empty if it has none.
    value: Loc,
    /// Fields of the `KeyValue` other than key and value; for an added attribute its length and whole
    /// `KeyValue`.
    extra: Loc,
    /// The whole field in the message, tag included; empty for a new one.
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Untouched,
    Changed,
    Added,
    Deleted,
}

/// Marks of ranges in the arena and in the pool. Messages, arenas and pools are shorter than 1 GiB.
const ARENA: u32 = 1 << 31;
const POOL: u32 = 1 << 30;
const MARKS: u32 = ARENA | POOL;

impl Attrs {
    /// Takes the pool of the program that is about to run.
    pub(super) fn set_pool(&mut self, pool: &Bytes) {
        self.pool = pool.clone();
    }

    /// Reads the attributes of `src`, which stand in its field `number`.
    #[inline]
    pub(super) fn read(&mut self, src: &[u8], number: u32) -> Result<(), WireError> {
        self.entries.clear();
        self.arena.clear();
        self.patches.clear();
        self.changed = false;
        self.keys = 0;
        self.tail = offset(src.len())?;
        let tag = (number << 3 | 2) as u8;
        self.tag = tag;
        let mut rest = src;
        while let [first, after @ ..] = rest {
            let start = src.len() - rest.len();
            // A tag of one byte and a length of at most two is nearly every field there is.
            let next = match first & 0x87 {
                2 => short_len(after).and_then(|(len, body)| body.split_at_checked(len)),
                0 => after.iter().position(|b| *b < 0x80).filter(|n| *n < 9).map(|n| after.split_at(n + 1)),
                1 => after.split_at_checked(8),
                5 => after.split_at_checked(4),
                _ => None,
            };
            let pair = match next {
                Some((body, after)) if *first >= 8 => {
                    rest = after;
                    if *first == tag {
                        Some(body)
                    } else if u32::from(*first >> 3) == number {
                        return Err(WireError::WrongType);
                    } else {
                        None
                    }
                }
                _ => {
                    let mut field = Cursor::new(rest);
                    let Some(field) = field.next_field()? else { break };
                    rest = rest.get(field.end..).unwrap_or_default();
                    if field.number == number { Some(field.value.bytes()?) } else { None }
                }
            };
            let Some(pair) = pair else { continue };
            let end = src.len() - rest.len();
            let (mut entry, bit) = match plain_key_value(pair, end - pair.len()) {
                Some((entry, key)) => (entry, key_bit(key)),
                None => {
                    let entry = self.odd_key_value(pair, end - pair.len())?;
                    (entry, key_bit(self.get(src, entry.key)))
                }
            };
            self.keys |= bit;
            (entry.from, entry.to) = (start as u32, end as u32);
            self.tail = entry.to;
            self.entries.push(entry);
        }
        Ok(())
    }

    /// Whether anything is different from what was read.
    #[inline]
    pub(super) fn changed(&self) -> bool {
        if !self.patches.is_empty() {
            return true;
        }
        // An attribute that was added and deleted again is none.
        self.changed
            && self.entries.iter().any(|e| match e.state {
                State::Untouched => false,
                State::Changed | State::Added => true,
                State::Deleted => e.from != e.to,
            })
    }

    /// The first attribute of that key.
    #[inline]
    pub(super) fn find(&self, src: &[u8], key: &[u8]) -> Option<usize> {
        self.find_from(src, key, 0)
    }

    /// The first attribute of that key at `from` or behind it.
    #[inline]
    pub(super) fn find_from(&self, src: &[u8], key: &[u8], from: usize) -> Option<usize> {
        if self.keys & key_bit(key) == 0 {
            return None;
        }
        let is = |e: &Entry| {
            e.key.len as usize == key.len() && e.state != State::Deleted && self.get(src, e.key) == key
        };
        Some(from + self.entries.get(from..)?.iter().position(is)?)
    }

    /// The value of the first attribute of that key.
    #[inline]
    pub(super) fn lookup<'a>(&'a self, src: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
        self.find(src, key).map(|at| self.value(src, at))
    }

    /// The tag of the field the attributes stand in.
    pub(super) fn tag(&self) -> u8 {
        self.tag
    }

    /// Bytes of memory that are kept for the next list.
    pub(super) fn held(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.arena.capacity() + self.fresh.capacity()
    }

    /// How many places there are, deleted ones included: valid arguments are smaller.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The key at a place; `None` if it was deleted.
    pub(super) fn key<'a>(&'a self, src: &'a [u8], at: usize) -> Option<&'a [u8]> {
        self.entries.get(at).filter(|e| e.state != State::Deleted).map(|e| self.get(src, e.key))
    }

    /// The value at a place.
    #[inline]
    pub(super) fn value<'a>(&'a self, src: &'a [u8], at: usize) -> &'a [u8] {
        self.entries.get(at).map_or(&[], |e| self.get(src, e.value))
    }

    /// Where the value at a place stands; stays good until the next read.
    #[inline]
    pub(super) fn value_loc(&self, at: usize) -> Loc {
        self.entries.get(at).map_or(Loc::default(), |e| e.value)
    }

    /// Keeps new bytes and says where.
    #[inline]
    pub(super) fn store(&mut self, bytes: &[u8]) -> Result<Loc, WireError> {
        self.build(|arena| arena.extend_from_slice(bytes))
    }

    /// Keeps what `write` appends and says where.
    #[inline]
    pub(super) fn build(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<Loc, WireError> {
        let start = self.arena.len();
        write(&mut self.arena);
        Ok(Loc { start: offset(start)? | ARENA, len: offset(self.arena.len())? - start as u32 })
    }

    /// Builds a new value from the one at a place: `write` gets the value, and the buffer to append to.
    /// `None` if it says that there is none.
    pub(super) fn derive(
        &mut self,
        src: &[u8],
        at: usize,
        write: impl FnOnce(&[u8], &mut Vec<u8>) -> Result<bool, WireError>,
    ) -> Result<Option<Loc>, WireError> {
        // The value may stand in the arena, so that its successor is built beside it.
        let mut fresh = std::mem::take(&mut self.fresh);
        fresh.clear();
        let made = write(self.value(src, at), &mut fresh);
        let stored = self.store(&fresh);
        self.fresh = fresh;
        if made? { stored.map(Some) } else { Ok(None) }
    }

    /// Builds a string value from the bytes `from` to `to` of an older value.
    pub(super) fn text_piece(
        &mut self,
        src: &[u8],
        whole: Loc,
        from: usize,
        to: usize,
    ) -> Result<Loc, WireError> {
        let start = (whole.start & !MARKS) as usize;
        let range = start + from..start + to.min(whole.len());
        if whole.start & ARENA == 0 {
            let pool = self.pool.clone();
            let from = if whole.start & POOL == 0 { src } else { &pool };
            let text = from.get(range).unwrap_or_default();
            return self.build(|arena| put_field(arena, 0x0a, text));
        }
        self.build(|arena| {
            arena.push(0x0a);
            put_varint(arena, range.len() as u64);
            arena.extend_from_within(range);
        })
    }

    /// Sets the value at a place. Setting what is there already changes nothing.
    #[inline]
    pub(super) fn set(&mut self, src: &[u8], at: usize, value: Loc) {
        let same = self.get(src, value) == self.value(src, at);
        if let Some(entry) = self.entries.get_mut(at).filter(|_| !same) {
            if entry.state == State::Added {
                entry.extra = Loc::default();
            }
            entry.value = value;
            entry.state = State::Changed;
            self.changed = true;
        }
    }

    /// Appends an attribute.
    pub(super) fn push(&mut self, src: &[u8], key: Loc, value: Loc) {
        let (at, extra) = (self.tail, Loc::default());
        self.keys |= key_bit(self.get(src, key));
        self.entries.push(Entry { key, value, extra, from: at, to: at, state: State::Changed });
        self.changed = true;
    }

    /// Appends an attribute of the pool.
    #[inline]
    pub(super) fn push_pair(&mut self, key: &[u8], pair: &Pair) {
        let at = self.tail;
        self.keys |= key_bit(key);
        self.entries.push(Entry {
            key: pair.key,
            value: pair.value,
            extra: pair.whole,
            from: at,
            to: at,
            state: State::Added,
        });
        self.changed = true;
    }

    /// Deletes the attribute at a place.
    pub(super) fn delete(&mut self, at: usize) {
        if let Some(entry) = self.entries.get_mut(at) {
            entry.state = State::Deleted;
            self.changed = true;
        }
    }

    /// How long the message is with the changes.
    #[inline]
    pub(super) fn encoded_len(&self, src: &[u8]) -> usize {
        let mut len = src.len();
        for entry in self.entries.iter().filter(|e| e.state != State::Untouched) {
            len = len - (entry.to - entry.from) as usize + entry.written_len();
        }
        for patch in &self.patches {
            len = len - (patch.to - patch.from) as usize + patch.field.map_or(0, Loc::len);
        }
        len
    }

    /// Writes the message with the changes; `tag` is the attribute field's.
    #[inline]
    pub(super) fn write(&self, src: &[u8], tag: u8, out: &mut Vec<u8>) {
        if !self.patches.is_empty() {
            return self.write_patched(src, tag, out);
        }
        let mut done = 0;
        for entry in self.entries.iter().filter(|e| e.state != State::Untouched) {
            let from = entry.from as usize;
            if done < from {
                out.extend_from_slice(src.get(done..from).unwrap_or_default());
            }
            done = entry.to as usize;
            self.write_entry(src, entry, tag, out);
        }
        out.extend_from_slice(src.get(done..).unwrap_or_default());
    }

    #[inline]
    pub(super) fn write_entry(&self, src: &[u8], entry: &Entry, tag: u8, out: &mut Vec<u8>) {
        match entry.state {
            State::Deleted => {}
            State::Untouched => {
                let (from, to) = (entry.from as usize, entry.to as usize);
                out.extend_from_slice(src.get(from..to).unwrap_or_default());
            }
            State::Added => {
                out.push(tag);
                out.extend_from_slice(self.get(src, entry.extra));
            }
            State::Changed => {
                out.push(tag);
                put_varint(out, entry.pair_len() as u64);
                put_field(out, 0x0a, self.get(src, entry.key));
                put_field(out, 0x12, self.get(src, entry.value));
                out.extend_from_slice(self.get(src, entry.extra));
            }
        }
    }

    fn write_patched(&self, src: &[u8], tag: u8, out: &mut Vec<u8>) {
        let mut done = 0;
        for change in self.changes() {
            let (from, to) = change.range();
            out.extend_from_slice(src.get(done..from).unwrap_or_default());
            self.write_change(src, change, tag, out);
            done = to;
        }
        out.extend_from_slice(src.get(done..).unwrap_or_default());
    }

    #[inline]
    pub(super) fn get<'a>(&'a self, src: &'a [u8], loc: Loc) -> &'a [u8] {
        let start = (loc.start & !MARKS) as usize;
        let from = match loc.start & MARKS {
            0 => src,
            POOL => &self.pool,
            _ => &self.arena,
        };
        from.get(start..start + loc.len()).unwrap_or_default()
    }

    /// Reads a `KeyValue` that starts at `base` and is not just a key and a value in that order.
    #[cold]
    fn odd_key_value(&mut self, pair: &[u8], base: usize) -> Result<Entry, WireError> {
        let mut entry = Entry {
            key: Loc::default(),
            value: Loc::default(),
            extra: Loc::default(),
            from: 0,
            to: 0,
            state: State::Untouched,
        };
        // A singular message that stands twice is merged, which is what its bytes end to end decode to.
        let (mut values, mut merged, mut extras) = (0, Vec::new(), Vec::new());
        let mut fields = Cursor::new(pair);
        while let Some(field) = fields.next_field()? {
            match field.number {
                1 => {
                    let key = field.value.bytes()?;
                    entry.key = Loc::at(base + field.end - key.len(), key.len());
                }
                2 => {
                    let value = field.value.bytes()?;
                    entry.value = Loc::at(base + field.end - value.len(), value.len());
                    merged.extend_from_slice(value);
                    values += 1;
                }
                _ => extras.extend_from_slice(pair.get(field.start..field.end).unwrap_or_default()),
            }
        }
        if values > 1 {
            entry.value = self.store(&merged)?;
        }
        entry.extra = self.store(&extras)?;
        Ok(entry)
    }
}

impl Entry {
    /// How long it is in the message that is written.
    #[inline]
    fn written_len(&self) -> usize {
        match self.state {
            State::Untouched => (self.to - self.from) as usize,
            State::Added => 1 + self.extra.len(),
            State::Deleted => 0,
            State::Changed => field_len(self.pair_len()),
        }
    }

    #[inline]
    fn pair_len(&self) -> usize {
        field_len(self.key.len()) + field_len(self.value.len()) + self.extra.len()
    }
}

impl Loc {
    #[inline]
    fn at(start: usize, len: usize) -> Self {
        Loc { start: start as u32, len: len as u32 }
    }

    #[inline]
    pub(super) fn len(self) -> usize {
        self.len as usize
    }
}

/// A finished attribute in the pool: the length of its `KeyValue` and the `KeyValue`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair {
    whole: Loc,
    key: Loc,
    value: Loc,
}

/// The finished attributes of a program, one after another.
#[derive(Debug, Clone, Default)]
pub(super) struct Pool(Vec<u8>);

impl Pool {
    /// Adds an attribute; `value` is an `AnyValue`.
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) -> Pair {
        let start = self.0.len();
        put_varint(&mut self.0, (field_len(key.len()) + field_len(value.len())) as u64);
        put_field(&mut self.0, 0x0a, key);
        let key_at = self.0.len() - key.len();
        put_field(&mut self.0, 0x12, value);
        let value_at = self.0.len() - value.len();
        let loc = |start: usize, end: usize| Loc { start: start as u32 | POOL, len: (end - start) as u32 };
        Pair {
            whole: loc(start, self.0.len()),
            key: loc(key_at, key_at + key.len()),
            value: loc(value_at, self.0.len()),
        }
    }

    pub(super) fn into_bytes(self) -> Bytes {
        self.0.into()
    }
}

impl Pair {
    /// Where the `AnyValue` stands.
    #[inline]
    pub(super) fn value(&self) -> Loc {
        self.value
    }

    /// How long the attribute is.
    pub(super) fn len(&self) -> usize {
        self.whole.len()
    }
}

/// A bit for a key: where it is not set, a list has no such key, which is the common answer to an insert.
#[inline]
fn key_bit(key: &[u8]) -> u64 {
    let last = key.last().copied().unwrap_or_default();
    1 << ((key.len() as u32 * 11 + u32::from(last)) & 63)
}

/// Reads the form that every encoder writes: key, then value, then nothing.
#[inline]
fn plain_key_value(pair: &[u8], base: usize) -> Option<(Entry, &[u8])> {
    let [0x0a, after @ ..] = pair else { return None };
    let (key_len, after) = short_len(after)?;
    let (key, after) = after.split_at_checked(key_len)?;
    let [0x12, after @ ..] = after else { return None };
    let (value_len, value) = short_len(after)?;
    if value_len != value.len() {
        return None;
    }
    let value_at = pair.len() - value_len;
    // A value's tag takes one byte, its length one or two.
    let key_end = value_at - 1 - if after.len() - value_len == 1 { 1 } else { 2 };
    let entry = Entry {
        key: Loc::at(base + key_end - key.len(), key.len()),
        value: Loc::at(base + value_at, value_len),
        extra: Loc::default(),
        from: 0,
        to: 0,
        state: State::Untouched,
    };
    Some((entry, key))
}

/// A length of one or two bytes and what follows it.
#[inline]
fn short_len(bytes: &[u8]) -> Option<(usize, &[u8])> {
    match bytes {
        [len, after @ ..] if *len < 0x80 => Some((*len as usize, after)),
        [low, high, after @ ..] if *high < 0x80 => {
            Some(((*low & 0x7f) as usize | (*high as usize) << 7, after))
        }
        _ => None,
    }
}

/// An offset as it is kept.
#[inline]
pub(super) fn offset(at: usize) -> Result<u32, WireError> {
    u32::try_from(at).ok().filter(|at| at & MARKS == 0).ok_or(WireError::Truncated)
}
