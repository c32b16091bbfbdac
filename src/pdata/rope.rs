//! A request as a chain of shared byte ranges.
//!
//! The top-level field of every Export*ServiceRequest is repeated, so two requests put end to end are one
//! request: appending a rope merges, cloning one bumps reference counts, and neither copies telemetry.
//! Invariants: `len` is the sum of the pieces; no piece is empty. A piece may end anywhere, also inside a
//! message: readers that need whole messages ask for [`Rope::to_bytes`], writers take piece by piece.
//! [`RopeBuilder`] coalesces small neighbours so that a rope never degenerates into thousands of slivers.

use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};
use smallvec::SmallVec;

/// Pieces shorter than this are copied into a neighbour rather than kept apart: about the size at which a
/// copy costs less than carrying a reference count and one more `iovec` through a send.
pub const SLIVER: usize = 512;

/// How much a [`RopeBuilder`] allocates at a time for the bytes it copies.
const FRESH: usize = 4096;

/// A chain of shared byte ranges that together form one request.
#[derive(Debug, Clone, Default)]
pub struct Rope {
    pieces: SmallVec<[Bytes; 2]>,
    /// Pieces before this one were read through [`Buf`] and are empty.
    head: usize,
    len: usize,
}

/// Puts ropes together from shared ranges and fresh bytes.
///
/// Whatever is shorter than [`SLIVER`] is copied behind what was copied last, so two slivers never stand
/// side by side: a rope of `n` bytes has at most `2 * n / SLIVER + 2` pieces. All copied bytes of all ropes
/// made by one builder share few allocations, each of which lives as long as any rope that points into it.
#[derive(Debug, Default)]
pub struct RopeBuilder {
    rope: Rope,
    /// Copied bytes that are not yet a piece.
    fresh: BytesMut,
}

impl Rope {
    /// The empty rope: an empty request.
    pub fn new() -> Self {
        Rope::default()
    }

    /// Total bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces, in order; none is empty.
    #[inline]
    pub fn pieces(&self) -> &[Bytes] {
        self.pieces.get(self.head..).unwrap_or_default()
    }

    /// Appends one piece. An empty piece adds nothing.
    #[inline]
    pub fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.len += piece.len();
            self.pieces.push(piece);
        }
    }

    /// Appends another rope: the merge of two requests. Copies no telemetry.
    pub fn append(&mut self, other: Rope) {
        self.len += other.len;
        self.pieces.extend(other.into_pieces());
    }

    /// The bytes in one contiguous range: free for a rope of one piece, one copy otherwise.
    pub fn to_bytes(&self) -> Bytes {
        match self.pieces() {
            [] => Bytes::new(),
            [one] => one.clone(),
            many => {
                let mut out = Vec::with_capacity(self.len);
                for piece in many {
                    out.extend_from_slice(piece);
                }
                Bytes::from(out)
            }
        }
    }

    /// The pieces, by value.
    pub fn into_pieces(mut self) -> SmallVec<[Bytes; 2]> {
        if self.head > 0 {
            self.pieces.drain(..self.head);
        }
        self.pieces
    }
}

impl RopeBuilder {
    /// An empty builder.
    pub fn new() -> Self {
        RopeBuilder::default()
    }

    /// How many bytes have been put since the last [`RopeBuilder::finish`].
    pub fn len(&self) -> usize {
        self.rope.len + self.fresh.len()
    }

    /// Whether nothing has been put since the last [`RopeBuilder::finish`].
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts a shared range: by reference, or copied when it is a sliver.
    pub fn put(&mut self, piece: Bytes) {
        if piece.len() < SLIVER {
            self.copy(&piece);
        } else {
            self.flush();
            self.rope.push(piece);
        }
    }

    /// Puts a part of a shared range: by reference, or copied when it is a sliver. A range that is not
    /// within `piece` is cut to what is.
    pub fn put_range(&mut self, piece: &Bytes, from: usize, to: usize) {
        let to = to.min(piece.len());
        let from = from.min(to);
        if to - from < SLIVER {
            self.copy(piece.get(from..to).unwrap_or_default());
        } else {
            self.flush();
            self.rope.push(piece.slice(from..to));
        }
    }

    /// Puts a copy of these bytes.
    pub fn copy(&mut self, bytes: &[u8]) {
        if self.fresh.capacity() - self.fresh.len() < bytes.len() {
            let grown =
                BytesMut::with_capacity(FRESH.max(self.fresh.len() + bytes.len()).max(2 * self.fresh.len()));
            let old = std::mem::replace(&mut self.fresh, grown);
            self.fresh.extend_from_slice(&old);
        }
        self.fresh.extend_from_slice(bytes);
    }

    /// Puts every piece of a rope.
    pub fn put_rope(&mut self, rope: Rope) {
        for piece in rope.into_pieces() {
            self.put(piece);
        }
    }

    /// The rope, leaving the builder empty and ready for another.
    pub fn finish(&mut self) -> Rope {
        self.flush();
        std::mem::take(&mut self.rope)
    }

    fn flush(&mut self) {
        if !self.fresh.is_empty() {
            self.rope.push(self.fresh.split().freeze());
        }
    }
}

impl From<Bytes> for Rope {
    fn from(piece: Bytes) -> Self {
        let mut rope = Rope::new();
        rope.push(piece);
        rope
    }
}

impl From<Vec<u8>> for Rope {
    fn from(piece: Vec<u8>) -> Self {
        Rope::from(Bytes::from(piece))
    }
}

/// Reading a rope front to back, for writers that take any [`Buf`]. A piece is let go when it has been read.
impl Buf for Rope {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.get(self.head).map_or(&[], |p| p)
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slot, piece) in dst.iter_mut().zip(self.pieces()) {
            *slot = IoSlice::new(piece);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut cnt: usize) {
        self.len = self.len.saturating_sub(cnt);
        while cnt > 0 {
            let Some(first) = self.pieces.get_mut(self.head) else { return };
            if cnt < first.len() {
                first.advance(cnt);
                return;
            }
            cnt -= first.len();
            *first = Bytes::new();
            self.head += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pdata::testgen::assert_linear;

    #[test]
    fn reading_in_small_steps_is_linear() {
        let make = |n: usize| {
            let mut rope = Rope::new();
            (0..n).for_each(|_| rope.push(Bytes::from_static(b"ab")));
            rope
        };
        let read = |rope: &Rope| {
            let mut rope = rope.clone();
            while rope.has_remaining() {
                rope.advance(1);
            }
        };
        assert_linear(make, read, 1 << 13);
    }

    #[test]
    fn a_rope_that_was_read_in_part_is_the_rest() {
        let mut rope = Rope::from(b"first ".to_vec());
        rope.push(Bytes::from_static(b"second"));
        rope.advance(8);
        assert_eq!(rope.chunk(), b"cond");
        assert_eq!(rope.pieces(), [Bytes::from_static(b"cond")]);
        rope.push(Bytes::from_static(b"!"));
        let mut all = Rope::from(b"<".to_vec());
        all.append(rope.clone());
        assert_eq!((all.to_bytes(), all.len()), (Bytes::from_static(b"<cond!"), 6));
        assert_eq!(rope.into_pieces().len(), 2);
    }

    proptest! {
        #[test]
        fn a_builder_keeps_the_bytes_and_no_two_slivers(
            parts in proptest::collection::vec((0..3 * SLIVER, any::<bool>()), 0..20),
        ) {
            let source = Bytes::from((0..3 * SLIVER).map(|i| i as u8).collect::<Vec<_>>());
            let mut builder = RopeBuilder::new();
            let mut want = Vec::new();
            for &(len, copied) in &parts {
                if copied { builder.copy(&source[..len]) } else { builder.put_range(&source, 0, len) }
                want.extend_from_slice(&source[..len]);
            }
            prop_assert_eq!(builder.len(), want.len());
            let mut rope = builder.finish();
            prop_assert!(builder.is_empty());
            prop_assert_eq!(rope.to_bytes(), want);
            let slivers = rope.pieces().windows(2).filter(|w| w.iter().all(|p| p.len() < SLIVER));
            prop_assert_eq!(slivers.count(), 0);
            let len = rope.len();
            prop_assert_eq!(rope.copy_to_bytes(len).len(), len);
        }
    }
}
