//! One attribute list while it is edited: where each attribute stands in its message, and what became of it.
//!
//! Untouched attributes are never decoded further than their key; they keep their bytes, their order and
//! whatever fields we do not know. Buffers are reused from list to list: no allocation once they have grown.

use super::splice::{field_len, put_field};
use crate::pdata::wire::{Cursor, WireError, put_varint, read_varint};

/// The attributes of one message. Offsets are into that message, which every call is given again as `src`.
#[derive(Debug, Default)]
pub(super) struct Attrs {
    entries: Vec<Entry>,
    /// New keys and values.
    arena: Vec<u8>,
    /// A value while it is built.
    fresh: Vec<u8>,
    /// Where new attributes go: after the last one there was, or at the end of the message.
    tail: u32,
    changed: bool,
}

/// A range in the message or in the arena.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Loc {
    start: u32,
    end: u32,
    arena: bool,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    key: Loc,
    /// The `AnyValue`'s bytes; empty if it has none.
    value: Loc,
    /// Fields of the `KeyValue` other than key and value.
    extra: Loc,
    /// The whole field in the message, tag included; empty for a new one.
    from: u32,
    to: u32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Untouched,
    Changed,
    Deleted,
}

impl Attrs {
    /// Reads the attributes of `src`, which stand in its field `number`.
    #[inline]
    pub(super) fn read(&mut self, src: &[u8], number: u32) -> Result<(), WireError> {
        self.entries.clear();
        self.arena.clear();
        self.changed = false;
        self.tail = offset(src.len())?;
        let mut fields = Cursor::new(src);
        while let Some(field) = fields.next_field()? {
            if field.number == number {
                let pair = field.value.bytes()?;
                let mut entry = self.key_value(pair, field.end - pair.len())?;
                (entry.from, entry.to) = (field.start as u32, field.end as u32);
                self.tail = entry.to;
                self.entries.push(entry);
            }
        }
        Ok(())
    }

    /// Whether anything is different from what was read.
    #[inline]
    pub(super) fn changed(&self) -> bool {
        // An attribute that was added and deleted again is none.
        self.changed
            && self.entries.iter().any(|e| match e.state {
                State::Untouched => false,
                State::Changed => true,
                State::Deleted => e.from != e.to,
            })
    }

    /// The first attribute of that key.
    #[inline]
    pub(super) fn find(&self, src: &[u8], key: &[u8]) -> Option<usize> {
        self.entries.iter().position(|e| self.get(src, e.key) == key && e.state != State::Deleted)
    }

    /// The value of the first attribute of that key.
    #[inline]
    pub(super) fn lookup<'a>(&'a self, src: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
        self.find(src, key).map(|at| self.value(src, at))
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
        Ok(Loc { start: offset(start)?, end: offset(self.arena.len())?, arena: true })
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
        let range = whole.start as usize + from..(whole.start as usize + to).min(whole.end as usize);
        if !whole.arena {
            let text = src.get(range).unwrap_or_default();
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
            entry.value = value;
            entry.state = State::Changed;
            self.changed = true;
        }
    }

    /// Appends an attribute.
    #[inline]
    pub(super) fn push(&mut self, key: Loc, value: Loc) {
        let (at, extra) = (self.tail, Loc::default());
        self.entries.push(Entry { key, value, extra, from: at, to: at, state: State::Changed });
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
        for entry in &self.entries {
            if entry.state != State::Untouched {
                len -= (entry.to - entry.from) as usize;
            }
            if entry.state == State::Changed {
                len += field_len(entry.pair_len());
            }
        }
        len
    }

    /// Writes the message with the changes; `tag` is the attribute field's.
    #[inline]
    pub(super) fn write(&self, src: &[u8], tag: u8, out: &mut Vec<u8>) {
        let mut done = 0;
        for entry in self.entries.iter().filter(|e| e.state != State::Untouched) {
            out.extend_from_slice(src.get(done..entry.from as usize).unwrap_or_default());
            done = entry.to as usize;
            if entry.state == State::Changed {
                out.push(tag);
                put_varint(out, entry.pair_len() as u64);
                put_field(out, 0x0a, self.get(src, entry.key));
                put_field(out, 0x12, self.get(src, entry.value));
                out.extend_from_slice(self.get(src, entry.extra));
            }
        }
        out.extend_from_slice(src.get(done..).unwrap_or_default());
    }

    #[inline]
    fn get<'a>(&'a self, src: &'a [u8], loc: Loc) -> &'a [u8] {
        let from = if loc.arena { self.arena.as_slice() } else { src };
        from.get(loc.start as usize..loc.end as usize).unwrap_or_default()
    }

    /// Reads a `KeyValue` that starts at `base`. The form that every encoder writes, key then value and nothing
    /// else, is read at once; any other goes through [`Attrs::odd_key_value`].
    #[inline]
    fn key_value(&mut self, pair: &[u8], base: usize) -> Result<Entry, WireError> {
        plain_key_value(pair, base).map_or_else(|| self.odd_key_value(pair, base), Ok)
    }

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
    #[inline]
    fn pair_len(&self) -> usize {
        field_len(self.key.len()) + field_len(self.value.len()) + self.extra.len()
    }
}

impl Loc {
    fn at(start: usize, len: usize) -> Self {
        Loc { start: start as u32, end: (start + len) as u32, arena: false }
    }

    #[inline]
    fn len(self) -> usize {
        (self.end - self.start) as usize
    }
}

#[inline]
fn plain_key_value(pair: &[u8], base: usize) -> Option<Entry> {
    let (&tag, rest) = pair.split_first()?;
    if tag != 0x0a {
        return None;
    }
    let (key_len, used) = read_varint(rest).ok()?;
    let key_at = 1 + used;
    let value_tag_at = key_at.checked_add(usize::try_from(key_len).ok()?)?;
    let (&tag, rest) = pair.get(value_tag_at..)?.split_first()?;
    if tag != 0x12 {
        return None;
    }
    let (value_len, used) = read_varint(rest).ok()?;
    let value_at = value_tag_at + 1 + used;
    let value_len = usize::try_from(value_len).ok()?;
    if value_at.checked_add(value_len)? != pair.len() {
        return None;
    }
    Some(Entry {
        key: Loc::at(base + key_at, value_tag_at - key_at),
        value: Loc::at(base + value_at, value_len),
        extra: Loc::default(),
        from: 0,
        to: 0,
        state: State::Untouched,
    })
}

/// An offset as it is kept. Messages beyond 4 GiB are refused.
#[inline]
fn offset(at: usize) -> Result<u32, WireError> {
    u32::try_from(at).map_err(|_| WireError::Truncated)
}
