//! Changes of a message's fields other than its attributes, and all changes of a message in the order of its bytes.

use smallvec::SmallVec;

use super::attrs::{Attrs, Entry, Loc, State, offset};
use crate::pdata::wire::{Cursor, Value, WireError, put_varint};

/// A field that was replaced, taken out (`field` is `None`) or added (`from` is `to`).
#[derive(Debug, Clone, Copy)]
pub(super) struct Patch {
    pub(super) from: u32,
    pub(super) to: u32,
    number: u32,
    /// The new field, tag included.
    pub(super) field: Option<Loc>,
}

/// One change of a message.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change<'a> {
    Attribute(&'a Entry),
    Field(&'a Patch),
}

impl Change<'_> {
    /// What it replaces.
    pub(super) fn range(&self) -> (usize, usize) {
        let (from, to) = match self {
            Change::Attribute(entry) => (entry.from, entry.to),
            Change::Field(patch) => (patch.from, patch.to),
        };
        (from as usize, to as usize)
    }
}

impl Attrs {
    /// All changes, in the order in which they stand in the message.
    pub(super) fn changes(&self) -> SmallVec<[Change<'_>; 8]> {
        let changed = self.entries.iter().filter(|e| e.state != State::Untouched).map(Change::Attribute);
        let mut all: SmallVec<[Change<'_>; 8]> =
            changed.chain(self.patches.iter().map(Change::Field)).collect();
        // Stable: what is added at one place stays in the order in which it was added.
        all.sort_by_key(Change::range);
        all
    }

    /// Writes what stands in the place of a change.
    pub(super) fn write_change(&self, src: &[u8], change: Change<'_>, tag: u8, out: &mut Vec<u8>) {
        match change {
            Change::Attribute(entry) => self.write_entry(src, entry, tag, out),
            Change::Field(patch) => {
                if let Some(field) = patch.field {
                    out.extend_from_slice(self.get(src, field));
                }
            }
        }
    }

    /// The last value of a field.
    pub(super) fn field<'a>(&'a self, src: &'a [u8], number: u32) -> Result<Option<Value<'a>>, WireError> {
        let mut patched = self.patches.iter().filter(|p| p.number == number).peekable();
        if patched.peek().is_some() {
            let Some(field) = patched.find_map(|p| p.field) else { return Ok(None) };
            return Ok(Cursor::new(self.get(src, field)).next_field()?.map(|f| f.value));
        }
        let mut last = None;
        let mut fields = Cursor::new(src);
        while let Some(field) = fields.next_field()? {
            if field.number == number {
                last = Some(field.value);
            }
        }
        Ok(last)
    }

    /// Replaces one field at its place, or takes it out. For repeated fields.
    pub(super) fn patch_range(
        &mut self,
        from: usize,
        to: usize,
        number: u32,
        field: Option<Loc>,
    ) -> Result<(), WireError> {
        self.patches.push(Patch { from: offset(from)?, to: offset(to)?, number, field });
        Ok(())
    }

    /// Sets a field, or takes it out.
    pub(super) fn set_field(
        &mut self,
        src: &[u8],
        number: u32,
        value: Option<Value<'_>>,
    ) -> Result<(), WireError> {
        if self.field(src, number)? == value {
            return Ok(());
        }
        let field = match value {
            Some(value) => Some(self.build(|out| put_value(out, number, value))?),
            None => None,
        };
        let mut own = self.patches.iter_mut().filter(|p| p.number == number);
        if let Some(last) = own.next_back() {
            last.field = field;
            return Ok(());
        }
        let before = self.patches.len();
        let mut fields = Cursor::new(src);
        while let Some(found) = fields.next_field()? {
            if found.number == number {
                let (from, to) = (offset(found.start)?, offset(found.end)?);
                self.patches.push(Patch { from, to, number, field: None });
            }
        }
        if self.patches.len() == before && field.is_some() {
            let end = offset(src.len())?;
            self.patches.push(Patch { from: end, to: end, number, field: None });
        }
        // The others are taken out.
        if let Some(last) = self.patches.get_mut(before..).and_then(<[Patch]>::last_mut) {
            last.field = field;
        }
        Ok(())
    }
}

/// Writes a whole field.
fn put_value(out: &mut Vec<u8>, number: u32, value: Value<'_>) {
    let tag = |out: &mut Vec<u8>, wire: u32| put_varint(out, u64::from(number << 3 | wire));
    match value {
        Value::Varint(n) => {
            tag(out, 0);
            put_varint(out, n);
        }
        Value::Fixed64(n) => {
            tag(out, 1);
            out.extend_from_slice(&n.to_le_bytes());
        }
        Value::Bytes(bytes) => {
            tag(out, 2);
            put_varint(out, bytes.len() as u64);
            out.extend_from_slice(bytes);
        }
        Value::Fixed32(n) => {
            tag(out, 5);
            out.extend_from_slice(&n.to_le_bytes());
        }
        // Without its start tag, with its end tag.
        Value::Group(bytes) => {
            tag(out, 3);
            out.extend_from_slice(bytes);
        }
    }
}
