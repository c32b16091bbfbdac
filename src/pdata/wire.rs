//! The protobuf wire format: varints, tags and a forward-only cursor over one message.
//!
//! Promises: no allocation, no recursion, no panic on any bytes; each byte is visited at most once. Groups
//! (wire types 3 and 4) are legal on the wire and never used by OTLP; they are skipped iteratively and a
//! nesting deeper than [`MAX_GROUP_DEPTH`] is refused.

use std::fmt;

/// How deep groups may nest before a message is refused.
pub const MAX_GROUP_DEPTH: u32 = 64;

/// What is wrong with a piece of protobuf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireError {
    /// The bytes end inside a tag, a value or a length-delimited field.
    Truncated,
    /// A varint of more than ten bytes, or one whose tenth byte overflows 64 bits.
    VarintTooLong,
    /// Field number 0, a field number above 2^29-1, or wire type 6 or 7.
    BadTag,
    /// A group that is closed without being open, or the other way round.
    BadGroup,
    /// Messages, values or groups nested deeper than the limit.
    TooDeep,
    /// A known field that arrived with another wire type than its own.
    WrongType,
    /// A trace id that is neither empty nor 16 bytes, or a span id that is neither empty nor 8 bytes.
    BadId,
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WireError::Truncated => "the message ends inside a field",
            WireError::VarintTooLong => "a varint is longer than 10 bytes or overflows 64 bits",
            WireError::BadTag => "a field has number 0 or an unknown wire type",
            WireError::BadGroup => "a group is not closed as it was opened",
            WireError::TooDeep => "the message is nested too deeply",
            WireError::WrongType => "a field has the wrong wire type",
            WireError::BadId => "a trace id is not 16 bytes long or a span id not 8",
        })
    }
}

impl std::error::Error for WireError {}

/// One field's value as it stands on the wire.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1, little endian.
    Fixed64(u64),
    /// Wire type 2: a string, bytes, a message or a packed list.
    Bytes(&'a [u8]),
    /// Wire type 5, little endian.
    Fixed32(u32),
    /// Wire type 3: the whole group, without its start tag and with its end tag.
    Group(&'a [u8]),
}

impl<'a> Value<'a> {
    /// The bytes of a length-delimited field.
    ///
    /// # Errors
    /// [`WireError::WrongType`] for any other wire type.
    #[inline]
    pub fn bytes(self) -> Result<&'a [u8], WireError> {
        match self {
            Value::Bytes(b) => Ok(b),
            _ => Err(WireError::WrongType),
        }
    }

    /// The value of a varint field.
    ///
    /// # Errors
    /// [`WireError::WrongType`] for any other wire type.
    #[inline]
    pub fn varint(self) -> Result<u64, WireError> {
        match self {
            Value::Varint(v) => Ok(v),
            _ => Err(WireError::WrongType),
        }
    }

    /// The value of a field of eight bytes.
    ///
    /// # Errors
    /// [`WireError::WrongType`] for any other wire type.
    #[inline]
    pub fn fixed64(self) -> Result<u64, WireError> {
        match self {
            Value::Fixed64(v) => Ok(v),
            _ => Err(WireError::WrongType),
        }
    }

    /// The value of a double.
    ///
    /// # Errors
    /// [`WireError::WrongType`] for any other wire type.
    #[inline]
    pub fn double(self) -> Result<f64, WireError> {
        self.fixed64().map(f64::from_bits)
    }

    /// The value of a field of four bytes.
    ///
    /// # Errors
    /// [`WireError::WrongType`] for any other wire type.
    #[inline]
    pub fn fixed32(self) -> Result<u32, WireError> {
        match self {
            Value::Fixed32(v) => Ok(v),
            _ => Err(WireError::WrongType),
        }
    }
}

/// One field: its number, its value and where it stands in the message.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Field<'a> {
    /// Field number, 1 to 2^29-1.
    pub number: u32,
    /// The value.
    pub value: Value<'a>,
    /// Offset of the field's tag in the message.
    pub start: usize,
    /// Offset just past the field.
    pub end: usize,
}

/// A forward-only cursor over the fields of one message.
#[derive(Debug, Clone, Copy)]
pub struct Cursor<'a> {
    message: &'a [u8],
    /// What is not read yet: a tail of `message`.
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// Starts at the first field of `message`.
    #[inline]
    pub fn new(message: &'a [u8]) -> Self {
        Cursor { message, rest: message }
    }

    /// Offset of the next field's tag.
    #[inline]
    pub fn pos(&self) -> usize {
        self.message.len() - self.rest.len()
    }

    /// The whole message.
    #[inline]
    pub fn message(&self) -> &'a [u8] {
        self.message
    }

    /// Passes over the fields of bytes with this number that come next, as long as their tags and lengths are of one
    /// byte each: for lists that are taken as they are. What is wrong with one is left for [`Cursor::next_field`].
    #[inline]
    pub fn pass_short(&mut self, number: u32) {
        let Some(wanted) = u8::try_from(number << 3 | 2).ok().filter(|tag| *tag < 0x80) else { return };
        while let [tag, len @ ..=0x7f, tail @ ..] = self.rest
            && *tag == wanted
            && let Some(after) = tail.get(usize::from(*len)..)
        {
            self.rest = after;
        }
    }

    /// The next field, or `None` at the end of the message.
    ///
    /// # Errors
    /// The reason why the bytes are not a message. The cursor does not move past the fault.
    // Always inlined, so that a caller which looks at one number and one type pays for no more than that:
    // out of line, most of the cost is building and taking apart the answer.
    #[inline(always)]
    pub fn next_field(&mut self) -> Result<Option<Field<'a>>, WireError> {
        let (number, value, after) = match self.rest {
            [] => return Ok(None),
            // Fields 1 to 15 have a tag of one byte; lengths below 16384 take one or two.
            [tag @ 0x08..=0x7f, tail @ ..] => {
                let number = u32::from(tag >> 3);
                match (tag & 7, tail) {
                    (2, [len @ ..=0x7f, tail @ ..]) => bytes(number, usize::from(*len), tail)?,
                    (2, [low, high @ ..=0x7f, tail @ ..]) => {
                        bytes(number, usize::from(low & 0x7f) | usize::from(*high) << 7, tail)?
                    }
                    (0, [value @ ..=0x7f, tail @ ..]) => (number, Value::Varint(u64::from(*value)), tail),
                    (1, _) => {
                        let (head, tail) = tail.split_first_chunk().ok_or(WireError::Truncated)?;
                        (number, Value::Fixed64(u64::from_le_bytes(*head)), tail)
                    }
                    _ => any_field(self.rest)?,
                }
            }
            _ => any_field(self.rest)?,
        };
        let start = self.pos();
        self.rest = after;
        Ok(Some(Field { number, value, start, end: self.pos() }))
    }
}

/// A field with a value of so many bytes: number, value and what follows.
#[inline(always)]
fn bytes(number: u32, len: usize, tail: &[u8]) -> Result<(u32, Value<'_>, &[u8]), WireError> {
    let (value, after) = tail.split_at_checked(len).ok_or(WireError::Truncated)?;
    Ok((number, Value::Bytes(value), after))
}

/// The first field of `rest`, whatever it is, and what follows it.
#[inline(never)]
fn any_field(rest: &[u8]) -> Result<(u32, Value<'_>, &[u8]), WireError> {
    let (number, wire_type, used) = read_tag(rest)?;
    let tail = rest.get(used..).unwrap_or_default();
    match wire_type {
        0 => {
            let (value, used) = read_varint(tail)?;
            Ok((number, Value::Varint(value), tail.get(used..).unwrap_or_default()))
        }
        1 => {
            let (head, after) = tail.split_first_chunk().ok_or(WireError::Truncated)?;
            Ok((number, Value::Fixed64(u64::from_le_bytes(*head)), after))
        }
        2 => {
            let (value, after) = read_bytes(tail)?;
            Ok((number, Value::Bytes(value), after))
        }
        3 => {
            let end = skip_group(tail, number)?;
            let (value, after) = tail.split_at_checked(end).ok_or(WireError::Truncated)?;
            Ok((number, Value::Group(value), after))
        }
        4 => Err(WireError::BadGroup),
        5 => {
            let (head, after) = tail.split_first_chunk().ok_or(WireError::Truncated)?;
            Ok((number, Value::Fixed32(u32::from_le_bytes(*head)), after))
        }
        _ => Err(WireError::BadTag),
    }
}

/// Reads a length and as many bytes: the bytes, and what follows them.
///
/// # Errors
/// [`WireError::Truncated`] when there are fewer, and as [`read_varint`].
#[inline(always)]
pub fn read_bytes(buf: &[u8]) -> Result<(&[u8], &[u8]), WireError> {
    let (len, tail) = match buf {
        [len @ ..=0x7f, tail @ ..] => (usize::from(*len), tail),
        [low, high @ ..=0x7f, tail @ ..] => (usize::from(low & 0x7f) | usize::from(*high) << 7, tail),
        _ => {
            let (len, used) = read_long_varint(buf)?;
            let len = usize::try_from(len).map_err(|_| WireError::Truncated)?;
            (len, buf.get(used..).unwrap_or_default())
        }
    };
    tail.split_at_checked(len).ok_or(WireError::Truncated)
}

/// Reads one tag: field number, wire type and how many bytes it took. The wire type may still be 6 or 7.
///
/// # Errors
/// [`WireError::BadTag`] when the number is 0 or above 2^29-1, and as [`read_varint`].
#[inline]
pub fn read_tag(buf: &[u8]) -> Result<(u32, u8, usize), WireError> {
    let (tag, used) = read_varint(buf)?;
    match u32::try_from(tag) {
        Ok(tag) if tag >= 8 => Ok((tag >> 3, (tag & 7) as u8, used)),
        _ => Err(WireError::BadTag),
    }
}

/// Reads one varint: the value and how many bytes it took.
///
/// # Errors
/// [`WireError::Truncated`] when the bytes end first, [`WireError::VarintTooLong`] past ten bytes.
#[inline]
pub fn read_varint(buf: &[u8]) -> Result<(u64, usize), WireError> {
    match *buf {
        [a, ..] if a < 0x80 => Ok((u64::from(a), 1)),
        [a, b, ..] if b < 0x80 => Ok((u64::from(a & 0x7f) | u64::from(b) << 7, 2)),
        _ => read_long_varint(buf),
    }
}

/// The rest of [`read_varint`], out of line so that the short cases stay small where they are inlined.
#[inline(never)]
fn read_long_varint(buf: &[u8]) -> Result<(u64, usize), WireError> {
    let mut value = 0u64;
    for (i, &b) in buf.iter().take(10).enumerate() {
        // The tenth byte holds bit 63 only; more would be lost, as every decoder refuses.
        if i == 9 && b > 1 {
            return Err(WireError::VarintTooLong);
        }
        value |= u64::from(b & 0x7f) << (7 * i);
        if b < 0x80 {
            return Ok((value, i + 1));
        }
    }
    Err(if buf.len() < 10 { WireError::Truncated } else { WireError::VarintTooLong })
}

/// How many bytes `value` takes as a varint: 1 to 10.
#[inline]
pub const fn varint_len(value: u64) -> usize {
    // 9/64 approximates 1/7 well enough for all 64 widths.
    ((64 - (value | 1).leading_zeros() as usize) * 9 + 64) / 64
}

/// Appends `value` as a varint.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a field's tag.
#[inline]
pub fn put_tag(out: &mut Vec<u8>, number: u32, wire_type: u8) {
    put_varint(out, (u64::from(number) << 3) | u64::from(wire_type));
}

/// Appends a length-delimited field: tag, length, bytes.
#[inline]
pub fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_tag(out, number, 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The end of a group of number `open`, of which `buf` begins after the start tag.
fn skip_group(buf: &[u8], open: u32) -> Result<usize, WireError> {
    let mut pos = 0;
    let mut stack = [0u32; MAX_GROUP_DEPTH as usize];
    let mut depth = 0usize;
    let mut current = open;
    loop {
        let rest = buf.get(pos..).ok_or(WireError::Truncated)?;
        let (number, wire_type, used) = read_tag(rest)?;
        pos += used;
        let after = |n: usize| pos.checked_add(n).filter(|&p| p <= buf.len()).ok_or(WireError::Truncated);
        match wire_type {
            0 => pos += read_varint(buf.get(pos..).ok_or(WireError::Truncated)?)?.1,
            1 => pos = after(8)?,
            2 => {
                let (len, used) = read_varint(buf.get(pos..).ok_or(WireError::Truncated)?)?;
                let len = usize::try_from(len).map_err(|_| WireError::Truncated)?;
                pos = after(used.checked_add(len).ok_or(WireError::Truncated)?)?;
            }
            3 => {
                *stack.get_mut(depth).ok_or(WireError::TooDeep)? = current;
                depth += 1;
                current = number;
            }
            4 => {
                if number != current {
                    return Err(WireError::BadGroup);
                }
                if depth == 0 {
                    return Ok(pos);
                }
                depth -= 1;
                current = stack.get(depth).copied().unwrap_or_default();
            }
            5 => pos = after(4)?,
            _ => return Err(WireError::BadTag),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_at_every_width() {
        for shift in 0..64 {
            for delta in [-1i64, 0, 1] {
                let v = (1u64 << shift).wrapping_add_signed(delta);
                let mut out = Vec::new();
                put_varint(&mut out, v);
                assert_eq!(out.len(), varint_len(v), "{v}");
                assert_eq!(read_varint(&out), Ok((v, out.len())));
            }
        }
    }

    #[test]
    fn malformed_bytes_are_named() {
        let cases: &[(&[u8], WireError)] = &[
            (&[0x80], WireError::Truncated),
            (&[0x00], WireError::BadTag),
            (&[0x0e], WireError::BadTag),
            (&[0x0a, 0x05, 1], WireError::Truncated),
            (&[0x09, 1, 2], WireError::Truncated),
            (&[0x0d, 1, 2], WireError::Truncated),
            (&[0x0c], WireError::BadGroup),
            (&[0x0b, 0x14], WireError::BadGroup),
            (&[0x0b], WireError::Truncated),
            (&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], WireError::VarintTooLong),
            (&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], WireError::Truncated),
        ];
        for (bytes, want) in cases {
            let mut c = Cursor::new(bytes);
            assert_eq!(c.next_field(), Err(*want), "{bytes:02x?}");
        }
    }

    #[test]
    fn groups_are_skipped_whole_and_bounded() {
        let bytes = [0x0b, 0x13, 0x08, 0x01, 0x14, 0x0c, 0x10, 0x07];
        let mut c = Cursor::new(&bytes);
        let group = c.next_field().unwrap().unwrap();
        assert_eq!((group.number, group.start, group.end), (1, 0, 6));
        let last = c.next_field().unwrap().unwrap();
        assert_eq!((last.number, last.value), (2, Value::Varint(7)));
        assert_eq!(c.next_field(), Ok(None));
        let bomb = vec![0x0b; 1 << 16];
        assert_eq!(Cursor::new(&bomb).next_field(), Err(WireError::TooDeep));
    }
}
