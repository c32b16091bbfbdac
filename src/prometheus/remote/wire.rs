//! Writing protobuf fields of numbers; field numbers are at most 15.

use crate::pdata::wire::put_varint;

/// Appends a varint field.
#[inline]
pub(super) fn varint_field(number: u8, value: u64, out: &mut Vec<u8>) {
    out.push(number << 3);
    put_varint(out, value);
}

/// Appends a field of eight bytes.
#[inline]
pub(super) fn fixed64_field(number: u8, bits: u64, out: &mut Vec<u8>) {
    out.push(number << 3 | 1);
    out.extend_from_slice(&bits.to_le_bytes());
}
