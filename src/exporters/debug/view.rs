//! Telemetry looked at by field, for printing: convenience before speed.
//!
//! [`Msg::new`] checks a message's form once; the accessors then take a field of a foreign wire type as absent.
//! Each accessor hops over the fields of its message, so printing costs a constant number of looks a message.

use std::borrow::Cow;

use crate::pdata::wire::{Cursor, Value, WireError, read_varint};

/// One well-formed message.
#[derive(Clone, Copy)]
pub(super) struct Msg<'a>(&'a [u8]);

impl<'a> Msg<'a> {
    /// Checks that `bytes` are a message.
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut cursor = Cursor::new(bytes);
        while cursor.next_field()?.is_some() {}
        Ok(Msg(bytes))
    }

    fn values(self, number: u32) -> impl Iterator<Item = Value<'a>> {
        let mut cursor = Cursor::new(self.0);
        std::iter::from_fn(move || cursor.next_field().ok().flatten())
            .filter(move |field| field.number == number)
            .map(|field| field.value)
    }

    /// Every occurrence of a length-delimited field.
    pub(super) fn all(self, number: u32) -> impl Iterator<Item = &'a [u8]> {
        self.values(number).filter_map(|value| value.bytes().ok())
    }

    /// The last occurrence of a length-delimited field.
    pub(super) fn last(self, number: u32) -> Option<&'a [u8]> {
        self.all(number).last()
    }

    /// A text, invalid UTF-8 replaced; empty when absent.
    pub(super) fn text(self, number: u32) -> Cow<'a, str> {
        String::from_utf8_lossy(self.last(number).unwrap_or_default())
    }

    /// The bits of a number of any width, if it is there.
    pub(super) fn bits(self, number: u32) -> Option<u64> {
        let bits = |value| match value {
            Value::Varint(v) | Value::Fixed64(v) => Some(v),
            Value::Fixed32(v) => Some(v.into()),
            _ => None,
        };
        self.values(number).filter_map(bits).last()
    }

    /// An unsigned number; 0 when absent.
    pub(super) fn uint(self, number: u32) -> u64 {
        self.bits(number).unwrap_or_default()
    }

    /// A double, if it is there.
    pub(super) fn double(self, number: u32) -> Option<f64> {
        self.bits(number).map(f64::from_bits)
    }

    /// A zigzag-encoded number; 0 when absent.
    pub(super) fn sint(self, number: u32) -> i64 {
        let zigzag = self.uint(number);
        (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64)
    }

    /// A singular message: its parts put together where it came in several; empty when absent.
    pub(super) fn message(self, number: u32) -> Cow<'a, [u8]> {
        let mut parts = self.all(number);
        let first = parts.next().unwrap_or_default();
        let mut whole = Cow::Borrowed(first);
        for part in parts {
            whole.to_mut().extend_from_slice(part);
        }
        whole
    }

    /// A list of numbers, packed or not; `fixed` says whether they are 64 bits wide or varints.
    pub(super) fn numbers(self, number: u32, fixed: bool) -> Vec<u64> {
        let mut out = Vec::new();
        for value in self.values(number) {
            match value {
                Value::Varint(v) | Value::Fixed64(v) => out.push(v),
                Value::Bytes(packed) if fixed => {
                    out.extend(packed.as_chunks::<8>().0.iter().map(|chunk| u64::from_le_bytes(*chunk)));
                }
                Value::Bytes(mut packed) => {
                    while let Ok((v, used)) = read_varint(packed) {
                        out.push(v);
                        packed = packed.get(used..).unwrap_or_default();
                    }
                }
                _ => {}
            }
        }
        out
    }

    /// Which of the oneof members stands last.
    pub(super) fn which(self, members: &[u32]) -> Option<u32> {
        let mut cursor = Cursor::new(self.0);
        let mut last = None;
        while let Ok(Some(field)) = cursor.next_field() {
            if members.contains(&field.number) {
                last = Some(field.number);
            }
        }
        last
    }
}
