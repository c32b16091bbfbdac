//! A request as a chain of shared byte ranges.
//!
//! The top-level field of every Export*ServiceRequest is repeated, so two requests put end to end are one
//! request: appending a rope merges, cloning one bumps reference counts, and neither copies telemetry.
//! Invariants: `len` is the sum of the pieces; no piece is empty; small neighbours are coalesced (see
//! [`RopeBuilder`]) so that a rope never degenerates into thousands of slivers.

use bytes::{Buf, Bytes};
use smallvec::SmallVec;

/// Pieces shorter than this are copied into a neighbour rather than kept apart: about the size at which a
/// copy costs less than carrying a reference count and one more `iovec` through a send.
pub const SLIVER: usize = 512;

/// A chain of shared byte ranges that together form one request.
#[derive(Debug, Clone, Default)]
pub struct Rope {
    pieces: SmallVec<[Bytes; 2]>,
    len: usize,
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
        &self.pieces
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
        self.pieces.extend(other.pieces);
    }

    /// The bytes in one contiguous range: free for a rope of one piece, one copy otherwise.
    pub fn to_bytes(&self) -> Bytes {
        match self.pieces.as_slice() {
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
    pub fn into_pieces(self) -> SmallVec<[Bytes; 2]> {
        self.pieces
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

/// Reading a rope front to back, for writers that take any [`Buf`].
impl Buf for Rope {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.first().map_or(&[], |p| p)
    }

    fn advance(&mut self, mut cnt: usize) {
        self.len = self.len.saturating_sub(cnt);
        while cnt > 0 {
            let Some(first) = self.pieces.first_mut() else { return };
            if cnt < first.len() {
                first.advance(cnt);
                return;
            }
            cnt -= first.len();
            self.pieces.remove(0);
        }
    }
}
