//! A gRPC message as HTTP/2 sends it: five bytes of prefix, then the rope's pieces where they lie.

use std::io::IoSlice;

use bytes::{Buf, Bytes};
use smallvec::SmallVec;

use crate::pdata::Rope;

/// One length-prefixed message, read once front to back. Copies no telemetry.
#[derive(Debug)]
pub(super) struct Message {
    prefix: [u8; 5],
    /// How much of the prefix has been read.
    read: usize,
    pieces: SmallVec<[Bytes; 2]>,
    /// The piece being read; those before it are empty.
    at: usize,
    remaining: usize,
}

impl Message {
    /// Frames `payload`; `None` when it does not fit the 32 bits of the prefix.
    pub fn new(compressed: bool, payload: Rope) -> Option<Self> {
        let len = payload.len();
        let [a, b, c, d] = u32::try_from(len).ok()?.to_be_bytes();
        let prefix = [u8::from(compressed), a, b, c, d];
        Some(Message { prefix, read: 0, pieces: payload.into_pieces(), at: 0, remaining: len + 5 })
    }

    /// The telemetry, as far as it is not sent yet.
    pub fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }

    fn head(&self) -> &[u8] {
        self.prefix.get(self.read..).unwrap_or_default()
    }
}

impl Buf for Message {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        match self.head() {
            [] => self.pieces.get(self.at).map_or(&[], |p| p),
            head => head,
        }
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        let head = Some(self.head()).filter(|h| !h.is_empty());
        let pieces = self.pieces.iter().skip(self.at).map(|p| &p[..]);
        let mut n = 0;
        for (slot, slice) in dst.iter_mut().zip(head.into_iter().chain(pieces)) {
            *slot = IoSlice::new(slice);
            n += 1;
        }
        n
    }

    fn advance(&mut self, cnt: usize) {
        let mut cnt = cnt.min(self.remaining);
        self.remaining -= cnt;
        let from_head = cnt.min(self.head().len());
        self.read += from_head;
        cnt -= from_head;
        while cnt > 0 {
            let Some(piece) = self.pieces.get_mut(self.at) else { return };
            let step = cnt.min(piece.len());
            piece.advance(step);
            cnt -= step;
            if piece.is_empty() {
                // Sent: the memory must not wait for the rest of the message.
                *piece = Bytes::new();
                self.at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(pieces: &[&'static str]) -> Rope {
        let mut rope = Rope::new();
        pieces.iter().for_each(|p| rope.push(Bytes::from_static(p.as_bytes())));
        rope
    }

    #[test]
    fn reads_the_same_by_any_steps() {
        let want = b"\x01\x00\x00\x00\x09abcdefghi";
        for step in 1..=want.len() {
            let mut message = Message::new(true, rope(&["abc", "d", "efghi"])).unwrap();
            let mut got = Vec::new();
            while message.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 8];
                let n = message.chunks_vectored(&mut slices);
                let all: Vec<u8> = slices[..n].iter().flat_map(|s| s.iter().copied()).collect();
                assert_eq!(all.len(), message.remaining());
                assert!(all.starts_with(message.chunk()));
                let step = step.min(all.len());
                got.extend_from_slice(&all[..step]);
                message.advance(step);
            }
            assert_eq!(got, want);
        }
    }
}
