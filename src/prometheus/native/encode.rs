//! The protobuf form of a native histogram, the same in both versions of remote write.

use super::{Native, Side};
use crate::pdata::wire::{put_tag, put_varint, varint_len};

/// Field numbers of `prometheus.Histogram` and `io.prometheus.write.v2.Histogram`.
mod histogram {
    pub const COUNT_INT: u32 = 1;
    pub const SUM: u32 = 3;
    pub const SCHEMA: u32 = 4;
    pub const ZERO_THRESHOLD: u32 = 5;
    pub const ZERO_COUNT_INT: u32 = 6;
    pub const NEGATIVE_SPANS: u32 = 8;
    pub const NEGATIVE_DELTAS: u32 = 9;
    pub const POSITIVE_SPANS: u32 = 11;
    pub const POSITIVE_DELTAS: u32 = 12;
    pub const TIMESTAMP: u32 = 15;
    pub const CUSTOM_VALUES: u32 = 16;
    pub const START_TIMESTAMP: u32 = 17;
}

/// Field numbers of `BucketSpan`.
mod span {
    pub const OFFSET: u32 = 1;
    pub const LENGTH: u32 = 2;
}

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;

impl Native {
    /// Appends the fields of the message, without a tag and a length around it. Times are in milliseconds
    /// since 1970; a `start_ms` of 0 is none, as there is none in version 1.0.
    ///
    /// Fields that are 0 are left out but for the two that say by their number that counts are integers.
    pub fn encode(&self, timestamp_ms: i64, start_ms: i64, out: &mut Vec<u8>) {
        put_tag(out, histogram::COUNT_INT, VARINT);
        put_varint(out, self.count);
        put_double(out, histogram::SUM, self.sum_bits);
        put_nonzero(out, histogram::SCHEMA, zigzag(self.schema.into()));
        put_double(out, histogram::ZERO_THRESHOLD, self.zero_threshold.to_bits());
        put_tag(out, histogram::ZERO_COUNT_INT, VARINT);
        put_varint(out, self.zero_count);
        put_side(out, &self.negative, histogram::NEGATIVE_SPANS, histogram::NEGATIVE_DELTAS);
        put_side(out, &self.positive, histogram::POSITIVE_SPANS, histogram::POSITIVE_DELTAS);
        put_nonzero(out, histogram::TIMESTAMP, timestamp_ms as u64);
        if !self.custom_values.is_empty() {
            put_tag(out, histogram::CUSTOM_VALUES, BYTES);
            put_varint(out, 8 * self.custom_values.len() as u64);
            out.extend(self.custom_values.iter().flat_map(|bound| bound.to_le_bytes()));
        }
        put_nonzero(out, histogram::START_TIMESTAMP, start_ms as u64);
    }
}

fn put_side(out: &mut Vec<u8>, side: &Side, spans: u32, deltas: u32) {
    for &(offset, length) in &side.spans {
        let (offset, length) = (zigzag(offset.into()), u64::from(length));
        let size = |value: u64| if value == 0 { 0 } else { 1 + varint_len(value) as u64 };
        put_tag(out, spans, BYTES);
        put_varint(out, size(offset) + size(length));
        put_nonzero(out, span::OFFSET, offset);
        put_nonzero(out, span::LENGTH, length);
    }
    if !side.deltas.is_empty() {
        let size: usize = side.deltas.iter().map(|&delta| varint_len(zigzag(delta))).sum();
        put_tag(out, deltas, BYTES);
        put_varint(out, size as u64);
        side.deltas.iter().for_each(|&delta| put_varint(out, zigzag(delta)));
    }
}

fn put_nonzero(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        put_tag(out, number, VARINT);
        put_varint(out, value);
    }
}

fn put_double(out: &mut Vec<u8>, number: u32, bits: u64) {
    if bits != 0 {
        put_tag(out, number, FIXED64);
        out.extend_from_slice(&bits.to_le_bytes());
    }
}

/// The wire form of sint32 and sint64.
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}
