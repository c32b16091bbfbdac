//! The request of one shard that is being filled.
//!
//! Entries are kept in wire form in the order in which they came. When the request is closed they are put under their
//! streams, ordered by time, and compressed in one go.

use bytes::Bytes;

use super::body::LokiBody;
use super::cache::Stream;
use crate::pdata::Tenant;
use crate::pdata::wire::{put_bytes, put_varint, varint_len};

/// One entry in its request.
#[derive(Debug, Clone, Copy)]
struct Placed {
    slot: u32,
    start: u32,
    end: u32,
    time: u64,
}

/// One request being filled.
#[derive(Debug, Default)]
pub(super) struct Open {
    /// Whose data it holds; of what is added next, if it is empty.
    pub tenant: u32,
    /// Tells this request from all others.
    pub stamp: u32,
    entries: Vec<Placed>,
    arena: Vec<u8>,
    /// Where the labels of each stream end.
    slots: Vec<u32>,
    labels: Vec<u8>,
}

impl Open {
    pub fn new(stamp: u32) -> Self {
        Open { stamp, ..Open::default() }
    }

    /// Entries so far.
    pub fn items(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of the message so far, at most.
    pub fn size(&self) -> usize {
        self.arena.len() + self.labels.len() + 16 * self.slots.len()
    }

    /// Bytes that one more entry takes at most.
    pub fn cost(entry: usize, labels: usize) -> usize {
        entry + labels + 16
    }

    /// Adds an encoded entry of a stream.
    #[inline]
    pub fn add(&mut self, stream: &mut Stream, time: u64, entry: &[&[u8]]) {
        if stream.slot.0 != self.stamp {
            stream.slot = (self.stamp, self.slots.len() as u32);
            self.labels.extend_from_slice(stream.labels.as_bytes());
            self.slots.push(self.labels.len() as u32);
        }
        let start = self.arena.len() as u32;
        for part in entry {
            self.arena.extend_from_slice(part);
        }
        let end = self.arena.len() as u32;
        self.entries.push(Placed { slot: stream.slot.1, start, end, time });
    }

    /// Takes the request out, for a tenant; what is added next has another stamp.
    pub fn close(
        &mut self,
        tenant: Option<Tenant>,
        stamp: u32,
        snappy: &mut snap::raw::Encoder,
    ) -> Option<LokiBody> {
        self.stamp = stamp;
        if self.entries.is_empty() {
            return None;
        }
        let mut order: Vec<u32> = (0..self.entries.len() as u32).collect();
        let key = |at: &u32| self.entries.get(*at as usize).map(|e| (e.slot, e.time));
        let sorted = self.entries.is_sorted_by_key(|e| (e.slot, e.time));
        if !sorted {
            // Stable: entries of one time stay as they came.
            order.sort_by_key(key);
        }
        let message = self.message(&order);
        let items = self.entries.len();
        let block: Bytes = snappy.compress_vec(&message).unwrap_or_default().into();
        self.entries.clear();
        self.arena.clear();
        self.slots.clear();
        self.labels.clear();
        Some(LokiBody::new(tenant, block, if sorted { Vec::new() } else { order }, items))
    }

    fn message(&self, order: &[u32]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.size() + 16);
        let entry = |at: &u32| self.entries.get(*at as usize);
        let slot = |at: &u32| entry(at).map(|e| e.slot);
        for stream in order.chunk_by(|a, b| slot(a) == slot(b)) {
            let at = stream.first().and_then(slot).unwrap_or_default() as usize;
            let start = at.checked_sub(1).and_then(|before| self.slots.get(before)).copied().unwrap_or(0);
            let end = self.slots.get(at).copied().unwrap_or(start);
            let labels = self.labels.get(start as usize..end as usize).unwrap_or_default();
            let entries: usize = stream.iter().filter_map(entry).map(|e| (e.end - e.start) as usize).sum();
            let len = 1 + varint_len(labels.len() as u64) + labels.len() + entries;
            out.push(1 << 3 | 2);
            put_varint(&mut out, len as u64);
            put_bytes(&mut out, 1, labels);
            for e in stream.iter().filter_map(entry) {
                out.extend_from_slice(self.arena.get(e.start as usize..e.end as usize).unwrap_or_default());
            }
        }
        out
    }
}
