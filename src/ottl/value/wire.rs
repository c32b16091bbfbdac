//! Lists and maps as they stand on the wire: going through them, looking in them, writing them.

use bumpalo::Bump;
use bumpalo::collections::Vec as BumpVec;

use super::{Fault, Val};
use crate::pdata::wire::{Cursor, WireError, varint_len};

/// Bytes while they are built in the arena.
pub(in crate::ottl) type Buf<'b> = BumpVec<'b, u8>;

/// The elements of a list.
pub(in crate::ottl) struct Items<'a>(Cursor<'a>);

/// The entries of a map: key and encoded value.
pub(in crate::ottl) struct Entries<'a> {
    fields: Cursor<'a>,
    arena: &'a Bump,
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<&'a [u8], WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.0.next_field() {
                Ok(Some(field)) if field.number == 1 => return Some(field.value.bytes()),
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(error) => {
                    self.0 = Cursor::new(&[]);
                    return Some(Err(error));
                }
            }
        }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.fields.next_field() {
                Ok(Some(field)) if field.number == 1 => {
                    return Some(field.value.bytes().and_then(|pair| entry(pair, self.arena)));
                }
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(error) => {
                    self.fields = Cursor::new(&[]);
                    return Some(Err(error));
                }
            }
        }
    }
}

/// The encoded values in a list.
pub(in crate::ottl) fn items(list: &[u8]) -> Items<'_> {
    Items(Cursor::new(list))
}

/// The keys and encoded values in a map.
pub(in crate::ottl) fn entries<'a>(map: &'a [u8], arena: &'a Bump) -> Entries<'a> {
    Entries { fields: Cursor::new(map), arena }
}

/// Key and encoded value of a `KeyValue`.
fn entry<'a>(pair: &'a [u8], arena: &'a Bump) -> Result<(&'a [u8], &'a [u8]), WireError> {
    let (mut key, mut value): (&[u8], Option<&[u8]>) = (&[], None);
    let mut fields = Cursor::new(pair);
    while let Some(field) = fields.next_field()? {
        match field.number {
            1 => key = field.value.bytes()?,
            2 => {
                let bytes = field.value.bytes()?;
                value = Some(value.map_or(bytes, |before| join(before, bytes, arena)));
            }
            _ => {}
        }
    }
    Ok((key, value.unwrap_or_default()))
}

/// The encoded value of the first entry of that key.
pub(in crate::ottl) fn find<'a>(
    map: &'a [u8],
    key: &[u8],
    arena: &'a Bump,
) -> Result<Option<&'a [u8]>, WireError> {
    for entry in entries(map, arena) {
        let (found, value) = entry?;
        if found == key {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

pub(super) fn join<'a>(first: &[u8], second: &[u8], arena: &'a Bump) -> &'a [u8] {
    let mut out = Buf::with_capacity_in(first.len() + second.len(), arena);
    out.extend_from_slice_copy(first);
    out.extend_from_slice_copy(second);
    out.into_bump_slice()
}

/// Bytes in hexadecimal.
pub(in crate::ottl) fn hex<'b>(bytes: &[u8], arena: &'b Bump) -> &'b [u8] {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let digit = |n: u8| DIGITS.get(usize::from(n)).copied().unwrap_or_default();
    let mut out = Buf::with_capacity_in(bytes.len() * 2, arena);
    out.extend(bytes.iter().flat_map(|b| [digit(*b >> 4), digit(*b & 15)]));
    out.into_bump_slice()
}

/// Appends a field of bytes.
pub(in crate::ottl) fn put_bytes(out: &mut Buf<'_>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice_copy(bytes);
}

/// Appends an element to a list.
pub(in crate::ottl) fn put_item(list: &mut Buf<'_>, value: Val<'_>, arena: &Bump) -> Result<(), Fault> {
    let any = value.encode(arena)?;
    put_bytes(list, 0x0a, any);
    Ok(())
}

/// Appends an entry of a map.
pub(in crate::ottl) fn put_entry(out: &mut Buf<'_>, key: &[u8], any: &[u8]) {
    let len = |n: usize| 1 + varint_len(n as u64) + n;
    out.push(0x0a);
    put_varint(out, (len(key.len()) + len(any.len())) as u64);
    put_bytes(out, 0x0a, key);
    put_bytes(out, 0x12, any);
}

/// Appends a varint.
pub(in crate::ottl) fn put_varint(out: &mut Buf<'_>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
