//! Reading tags and lengths from a rope whose pieces may end anywhere.
//!
//! Positions are offsets from the start of the rope. A tag and a length that stand in one piece are read in
//! place; those that straddle a boundary are gathered in twenty bytes on the stack. Content is never touched,
//! so a rope of many pieces costs no copy.

use std::cell::Cell;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::pdata::wire::{MAX_GROUP_DEPTH, WireError, read_tag, read_varint};
use crate::pdata::{Rope, RopeBuilder};

/// The longest tag followed by the longest length.
const WINDOW: usize = 20;

/// A rope that is read by offset.
pub(super) struct Source<'a> {
    pieces: &'a [Bytes],
    /// Where each piece begins.
    starts: SmallVec<[usize; 4]>,
    len: usize,
    /// The piece looked at last; reading is mostly forward and local.
    last: Cell<usize>,
}

/// One field: where it begins, where its content begins and where it ends.
#[derive(Clone, Copy)]
pub(super) struct Field {
    pub number: u32,
    pub wire_type: u8,
    pub start: usize,
    pub body: usize,
    pub end: usize,
}

impl Field {
    /// This field, when it is length-delimited.
    pub fn message(self) -> Result<Field, WireError> {
        if self.wire_type == 2 { Ok(self) } else { Err(WireError::WrongType) }
    }
}

impl<'a> Source<'a> {
    pub fn new(rope: &'a Rope) -> Self {
        let mut at = 0;
        let starts = rope.pieces().iter().map(|p| {
            at += p.len();
            at - p.len()
        });
        Source { pieces: rope.pieces(), starts: starts.collect(), len: rope.len(), last: Cell::new(0) }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// The field at `at` of a message that ends at `end`; `at` is before `end`.
    pub fn field(&self, at: usize, end: usize) -> Result<Field, WireError> {
        let mut field = self.head(at, end)?;
        match field.wire_type {
            3 => field.end = self.skip_group(field, end)?,
            4 => return Err(WireError::BadGroup),
            _ => {}
        }
        Ok(field)
    }

    /// Puts a range into a rope, piece by piece.
    pub fn put(&self, from: usize, to: usize, out: &mut RopeBuilder) {
        self.ranges(from, to, |piece, a, b| out.put_range(piece, a, b));
    }

    /// Appends a copy of a range.
    pub fn copy(&self, from: usize, to: usize, out: &mut Vec<u8>) {
        self.ranges(from, to, |piece, a, b| out.extend_from_slice(piece.get(a..b).unwrap_or_default()));
    }

    /// How many pieces a range touches.
    pub fn pieces_in(&self, from: usize, to: usize) -> usize {
        1 + self.piece_at(to.saturating_sub(1)) - self.piece_at(from)
    }

    /// A field without looking into groups: the start tag of a group ends where its content begins.
    fn head(&self, at: usize, end: usize) -> Result<Field, WireError> {
        let mut gathered = [0u8; WINDOW];
        let view = self.view(at, end, &mut gathered);
        let (number, wire_type, used) = read_tag(view)?;
        let after = |n: usize| (at + used).checked_add(n).filter(|e| *e <= end).ok_or(WireError::Truncated);
        let rest = view.get(used..).unwrap_or_default();
        let (body, end) = match wire_type {
            2 => {
                let (len, n) = read_varint(rest)?;
                let len = usize::try_from(len).map_err(|_| WireError::Truncated)?;
                let end = after(n.checked_add(len).ok_or(WireError::Truncated)?)?;
                (at + used + n, end)
            }
            0 => (at + used, after(read_varint(rest)?.1)?),
            1 => (at + used, after(8)?),
            5 => (at + used, after(4)?),
            3 | 4 => (at + used, at + used),
            _ => return Err(WireError::BadTag),
        };
        Ok(Field { number, wire_type, start: at, body, end })
    }

    fn skip_group(&self, open: Field, end: usize) -> Result<usize, WireError> {
        let mut stack: SmallVec<[u32; 8]> = SmallVec::new();
        stack.push(open.number);
        let mut at = open.end;
        while at < end {
            let inner = self.head(at, end)?;
            at = inner.end;
            match inner.wire_type {
                3 if stack.len() > MAX_GROUP_DEPTH as usize => return Err(WireError::TooDeep),
                3 => stack.push(inner.number),
                4 if stack.pop() != Some(inner.number) => return Err(WireError::BadGroup),
                4 if stack.is_empty() => return Ok(at),
                _ => {}
            }
        }
        Err(WireError::Truncated)
    }

    /// The bytes from `at` on: to `end`, or at least enough for a tag and a length.
    fn view<'v>(&'v self, at: usize, end: usize, gathered: &'v mut [u8; WINDOW]) -> &'v [u8] {
        let index = self.piece_at(at);
        let here = self.tail_of(index, at);
        let wanted = end - at;
        if here.len() >= wanted {
            return here.get(..wanted).unwrap_or_default();
        }
        if here.len() >= WINDOW {
            return here;
        }
        let mut filled = 0;
        let mut next = index;
        while filled < wanted.min(WINDOW) && next < self.pieces.len() {
            let from = self.tail_of(next, at + filled);
            let room = gathered.get_mut(filled..wanted.min(WINDOW)).unwrap_or_default();
            let n = from.len().min(room.len());
            if let (Some(to), Some(from)) = (room.get_mut(..n), from.get(..n)) {
                to.copy_from_slice(from);
            }
            filled += n;
            next += 1;
        }
        gathered.get(..filled).unwrap_or_default()
    }

    /// What stands in one piece from an offset on.
    fn tail_of(&self, index: usize, at: usize) -> &[u8] {
        let start = self.starts.get(index).copied().unwrap_or(self.len);
        self.pieces.get(index).and_then(|p| p.get(at.saturating_sub(start)..)).unwrap_or_default()
    }

    fn piece_at(&self, at: usize) -> usize {
        let begins = |i: usize| self.starts.get(i).copied().unwrap_or(self.len);
        let mut near = self.last.get();
        if begins(near) <= at {
            // Mostly it is the same piece, or one of the next.
            for _ in 0..4 {
                if at < begins(near + 1) {
                    self.last.set(near);
                    return near;
                }
                near += 1;
            }
        }
        let found = self.starts.partition_point(|s| *s <= at).saturating_sub(1);
        self.last.set(found);
        found
    }

    fn ranges(&self, mut from: usize, to: usize, mut f: impl FnMut(&'a Bytes, usize, usize)) {
        while from < to {
            let index = self.piece_at(from);
            let (Some(piece), Some(start)) = (self.pieces.get(index), self.starts.get(index)) else { return };
            let upto = to.min(start + piece.len());
            f(piece, from - start, upto - start);
            if upto <= from {
                return;
            }
            from = upto;
        }
    }
}
