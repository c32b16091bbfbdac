//! Writes an edited request: what changed is written, everything else is copied or referenced.
//!
//! The walk announces the messages it enters; nothing is written until a change is made inside one of them, so
//! a request without changes costs no copy. Lengths of the messages around a change are filled in when the walk
//! leaves them, always in the shortest form. An unchanged stretch of at least [`REFER`] bytes is referenced,
//! a shorter one is copied: a rope never holds more than one small piece between two large ones.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::pdata::Rope;
use crate::pdata::wire::{put_varint, varint_len};

/// The least stretch that is referenced instead of copied: a copy of this size costs about as much as a
/// reference count now and one more piece in every later send.
const REFER: usize = 4096;

/// The output of one program on one request.
pub(super) struct Splicer<'a> {
    /// The piece of the request that is being walked.
    input: &'a Bytes,
    /// The input up to here is in the output.
    done: usize,
    out: Vec<u8>,
    /// Referenced stretches, each with the offset in `out` before which it stands.
    refs: Vec<(usize, Bytes)>,
    referred: usize,
    /// The messages the walk is in, outermost first; the first `open` of them are begun in `out`.
    frames: SmallVec<[Frame; 4]>,
    open: usize,
    /// How much to reserve when the first change is made.
    reserve: usize,
    changed: bool,
}

/// A message the walk is in.
struct Frame {
    tag: u8,
    /// Offsets of its tag, its first byte and its end in the input.
    header: usize,
    payload: usize,
    end: usize,
    /// Once open: where its length stands in `out`, how many bytes are reserved for it, and how much output
    /// there was before its first byte.
    mark: usize,
    width: usize,
    base: usize,
}

impl<'a> Splicer<'a> {
    /// Starts with one piece of the request; `reserve` bytes are allocated if anything changes.
    pub(super) fn new(input: &'a Bytes, reserve: usize) -> Self {
        Splicer {
            input,
            done: 0,
            out: Vec::new(),
            refs: Vec::new(),
            referred: 0,
            frames: SmallVec::new(),
            open: 0,
            reserve,
            changed: false,
        }
    }

    /// Goes on with the next piece of the request; the walk is outside all messages.
    pub(super) fn next_piece(&mut self, input: &'a Bytes) {
        self.flush(self.input.len());
        self.input = input;
        self.done = 0;
    }

    /// The walk enters a message: its tag (one byte), where the tag, the first byte and the end stand.
    #[inline]
    pub(super) fn enter(&mut self, tag: u8, header: usize, payload: usize, end: usize) {
        self.frames.push(Frame { tag, header, payload, end, mark: 0, width: 0, base: 0 });
    }

    /// The walk leaves the innermost message.
    #[inline]
    pub(super) fn leave(&mut self) {
        let Some(frame) = self.frames.pop() else { return };
        if self.open > self.frames.len() {
            self.open -= 1;
            self.close(&frame);
        }
    }

    /// The walk leaves the innermost message, which is not to be in the output: whatever was written of it goes.
    pub(super) fn abandon(&mut self) {
        let Some(frame) = self.frames.pop() else { return };
        if self.open <= self.frames.len() {
            self.replace(frame.header, frame.end);
            return;
        }
        self.open -= 1;
        // Its tag stands before its length.
        let start = frame.mark.saturating_sub(1);
        self.out.truncate(start);
        while let Some((_, piece)) = self.refs.pop_if(|(at, _)| *at > start) {
            self.referred -= piece.len();
        }
        self.done = frame.end;
    }

    /// Replaces the input from `from` to `to` by what the caller appends to the returned buffer.
    #[inline]
    pub(super) fn replace(&mut self, from: usize, to: usize) -> &mut Vec<u8> {
        if self.open < self.frames.len() || !self.changed {
            self.open_frames();
        }
        self.flush(from);
        self.done = to;
        &mut self.out
    }

    /// The edited request with how many bytes were allocated for it and whether it still refers to the input;
    /// `None` if nothing changed.
    pub(super) fn finish(mut self) -> Option<Spliced> {
        if !self.changed {
            return None;
        }
        self.flush(self.input.len());
        let allocated = self.out.capacity();
        let refers = !self.refs.is_empty();
        let out = Bytes::from(self.out);
        let mut rope = Rope::new();
        let mut from = 0;
        for (at, piece) in self.refs {
            rope.push(out.slice(from..at));
            rope.push(piece);
            from = at;
        }
        rope.push(out.slice(from..));
        Some(Spliced { rope, allocated, refers })
    }

    #[cold]
    fn open_frames(&mut self) {
        if !self.changed {
            self.changed = true;
            self.out.reserve(self.reserve);
        }
        for i in self.open..self.frames.len() {
            let Some(frame) = self.frames.get(i) else { break };
            let (tag, header, payload, end) = (frame.tag, frame.header, frame.payload, frame.end);
            self.flush(header);
            self.done = payload;
            self.out.push(tag);
            // The length mostly keeps its width; where it does not, `close` moves what follows.
            let (mark, width) = (self.out.len(), varint_len((end - payload) as u64));
            self.out.resize(mark + width, 0);
            let base = self.total();
            if let Some(frame) = self.frames.get_mut(i) {
                (frame.mark, frame.width, frame.base) = (mark, width, base);
            }
        }
        self.open = self.frames.len();
    }

    /// Fills in the length of a message that the walk has left.
    fn close(&mut self, frame: &Frame) {
        let len = self.total() - frame.base + (frame.end - self.done);
        let mut varint: SmallVec<[u8; 16]> = SmallVec::new();
        let mut rest = len as u64;
        while rest >= 0x80 {
            varint.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        varint.push(rest as u8);
        if varint.len() == frame.width {
            if let Some(hole) = self.out.get_mut(frame.mark..frame.mark + frame.width) {
                hole.copy_from_slice(&varint);
            }
            return;
        }
        let (old_end, grown) = (frame.mark + frame.width, varint.len());
        for (at, _) in self.refs.iter_mut().rev().take_while(|(at, _)| *at >= old_end) {
            *at = *at + grown - frame.width;
        }
        self.out.splice(frame.mark..old_end, varint);
    }

    /// Brings the input up to `to` into the output.
    #[inline]
    fn flush(&mut self, to: usize) {
        let Some(stretch) = self.input.get(self.done..to) else { return };
        if stretch.len() < REFER {
            self.out.extend_from_slice(stretch);
        } else {
            self.referred += stretch.len();
            self.refs.push((self.out.len(), self.input.slice(self.done..to)));
        }
        self.done = to;
    }

    #[inline]
    fn total(&self) -> usize {
        self.out.len() + self.referred
    }
}

/// An edited request.
pub(super) struct Spliced {
    pub(super) rope: Rope,
    /// Bytes allocated for what was written.
    pub(super) allocated: usize,
    /// Whether a piece still refers to the original bytes.
    pub(super) refers: bool,
}

/// Appends a length-delimited field's length and bytes after a one-byte tag.
#[inline]
pub(super) fn put_field(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// How many bytes [`put_field`] writes.
#[inline]
pub(super) const fn field_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}
