//! Writing protobuf: the few forms that remote write consists of.

/// Appends a varint.
#[inline]
pub(super) fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// How many bytes a varint takes.
#[inline]
pub(super) const fn varint_len(value: u64) -> usize {
    // Seven bits a byte; zero takes one.
    (63 - (value | 1).leading_zeros() as usize) / 7 + 1
}

/// Appends a field of bytes; `number` is at most 15.
#[inline]
pub(super) fn field(number: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(number << 3 | 2);
    varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Appends a varint field; `number` is at most 15.
#[inline]
pub(super) fn varint_field(number: u8, value: u64, out: &mut Vec<u8>) {
    out.push(number << 3);
    varint(value, out);
}

/// Appends a field of eight bytes; `number` is at most 15.
#[inline]
pub(super) fn fixed64_field(number: u8, bits: u64, out: &mut Vec<u8>) {
    out.push(number << 3 | 1);
    out.extend_from_slice(&bits.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_written() {
        for value in [0, 1, 127, 128, 16383, 16384, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut out = Vec::new();
            varint(value, &mut out);
            assert_eq!(out.len(), varint_len(value), "{value}");
            assert_eq!(crate::pdata::wire::read_varint(&out).unwrap(), (value, out.len()));
        }
    }
}
