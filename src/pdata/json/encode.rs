//! A protobuf request to OTLP/JSON text, written directly from cursors.
//!
//! Each message is looked over once to learn where its fields stand, then written in the order of the field
//! numbers: one JSON array a list even when the wire interleaves lists, the last of repeated scalars, the merge
//! of repeated messages. Unknown fields are dropped and defaults omitted, as the Collector does; invalid UTF-8
//! becomes U+FFFD. Time is linear: fields are hopped over at most a constant number of times. Memory beyond the
//! output is needed only where one message arrives in several parts, at most [`MAX_MERGES`] deep.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::MAX_DEPTH;
use super::schema::{Field, Kind, Label, MAX_FIELDS, Message, request};
use crate::pdata::Signal;
use crate::pdata::wire::{Cursor, Value, WireError, read_varint};

/// How many messages that arrive in parts may enclose each other: each holds a copy of its parts.
const MAX_MERGES: u32 = 4;

/// Appends the request as one OTLP/JSON document, without a line break.
///
/// # Errors
/// What is wrong with the bytes; `out` then ends in the middle of the document.
pub fn encode(signal: Signal, req: &[u8], out: &mut Vec<u8>) -> Result<(), WireError> {
    Encoder { out, depth: 0, merges: 0 }.message(request(signal), req)
}

/// Appends an AnyValue as plain JSON, as a log body would be read by a person: maps as objects, lists as
/// arrays, text as strings, bytes as base64, 64-bit integers as numbers, an empty value as `null`.
pub(crate) fn put_any_value(value: &[u8], out: &mut Vec<u8>) -> Result<(), WireError> {
    plain(value, out, 0)
}

struct Encoder<'o> {
    out: &'o mut Vec<u8>,
    /// AnyValues open now.
    depth: u32,
    /// Messages open now that arrived in parts.
    merges: u32,
}

/// Where a field was seen in its message: offsets of the first and the last tag, plus one; 0 is never.
type Slots = [(usize, usize); MAX_FIELDS];

impl Encoder<'_> {
    fn message(&mut self, table: &'static Message, bytes: &[u8]) -> Result<(), WireError> {
        if !table.recursive {
            return self.object(table, bytes);
        }
        if self.depth >= MAX_DEPTH {
            return Err(WireError::TooDeep);
        }
        self.depth += 1;
        let done = self.object(table, bytes);
        self.depth -= 1;
        done
    }

    fn object(&mut self, table: &'static Message, bytes: &[u8]) -> Result<(), WireError> {
        let mut slots: Slots = [(0, 0); MAX_FIELDS];
        locate(table, bytes, &mut slots)?;
        self.out.push(b'{');
        let mut first = true;
        for (field, slot) in table.fields.iter().zip(slots) {
            if slot.0 == 0 {
                continue;
            }
            let before = self.out.len();
            if !first {
                self.out.push(b',');
            }
            self.out.push(b'"');
            self.out.extend_from_slice(field.json.as_bytes());
            self.out.extend_from_slice(b"\":");
            let written = match field.label {
                Label::Repeated => self.list(field, bytes, slot)?,
                _ => self.single(table, field, bytes, slot, &slots)?,
            };
            if written {
                first = false;
            } else {
                self.out.truncate(before);
            }
        }
        self.out.push(b'}');
        Ok(())
    }

    /// A field that occurs once, or counts once.
    fn single(
        &mut self,
        table: &'static Message,
        field: &'static Field,
        bytes: &[u8],
        slot: (usize, usize),
        slots: &Slots,
    ) -> Result<bool, WireError> {
        // Of a oneof's members the last on the wire wins; it merges with what it did not replace.
        let mut from = slot.0;
        if field.label == Label::Oneof {
            let others = table
                .fields
                .iter()
                .zip(slots)
                .filter(|(other, _)| other.label == Label::Oneof && other.number != field.number);
            let replaced = others.map(|(_, (_, last))| *last).max().unwrap_or_default();
            if replaced > slot.1 {
                return Ok(false);
            }
            from = from.max(replaced);
        }
        match (field.kind, value_at(bytes, slot.1)?) {
            (Kind::Message(inner), _) if from < slot.1 => {
                self.merged(field, inner, bytes, (from, slot.1)).map(|()| true)
            }
            (_, Some(value)) => self.value(field, value, field.label != Label::Plain),
            (_, None) => Ok(false),
        }
    }

    /// A message that arrived in several parts: the parts end to end are the message.
    fn merged(
        &mut self,
        field: &Field,
        inner: &'static Message,
        bytes: &[u8],
        (from, last): (usize, usize),
    ) -> Result<(), WireError> {
        if self.merges >= MAX_MERGES {
            return Err(WireError::TooDeep);
        }
        let mut whole = Vec::new();
        for_each(field.number, bytes, (from, last), |value| {
            whole.extend_from_slice(value.bytes()?);
            Ok(())
        })?;
        self.merges += 1;
        let done = self.message(inner, &whole);
        self.merges -= 1;
        done
    }

    fn list(&mut self, field: &'static Field, bytes: &[u8], slot: (usize, usize)) -> Result<bool, WireError> {
        self.out.push(b'[');
        let start = self.out.len();
        for_each(field.number, bytes, slot, |value| {
            match (value, field.kind.wire_type()) {
                // A packed list of scalars.
                (Value::Bytes(mut packed), wire_type @ (0 | 1)) => {
                    while !packed.is_empty() {
                        let (value, used) = unpack(packed, wire_type)?;
                        packed = packed.get(used..).unwrap_or_default();
                        self.separate(start);
                        self.value(field, value, true)?;
                    }
                }
                _ => {
                    self.separate(start);
                    self.value(field, value, true)?;
                }
            }
            Ok(())
        })?;
        self.out.push(b']');
        Ok(self.out.len() > start + 1)
    }

    fn separate(&mut self, start: usize) {
        if self.out.len() > start {
            self.out.push(b',');
        }
    }

    /// One value; `false`, and nothing written, for a default that need not be kept.
    fn value(&mut self, field: &'static Field, value: Value<'_>, keep: bool) -> Result<bool, WireError> {
        let (bits, bytes): (u64, &[u8]) = match (value, field.kind.wire_type()) {
            (Value::Varint(v), 0) | (Value::Fixed64(v), 1) => (v, &[]),
            (Value::Fixed32(v), 5) => (v.into(), &[]),
            (Value::Bytes(b), 2) => (0, b),
            _ => return Err(WireError::WrongType),
        };
        if !keep && bits == 0 && bytes.is_empty() {
            return Ok(false);
        }
        match field.kind {
            Kind::Absent => return Ok(false),
            Kind::Message(inner) => self.message(inner, bytes)?,
            Kind::String => put_text(bytes, self.out),
            Kind::Bytes => put_base64(bytes, self.out),
            Kind::Id(_) => {
                self.out.push(b'"');
                put_hex(bytes, self.out);
                self.out.push(b'"');
            }
            Kind::Bool => self.out.extend_from_slice(if bits == 0 { b"false" } else { b"true" }),
            Kind::Int64 | Kind::Sfixed64 => self.quoted(|out| put_int(bits as i64, out)),
            Kind::Uint64 | Kind::Fixed64 => self.quoted(|out| put_uint(bits, out)),
            Kind::Double => put_double(f64::from_bits(bits), self.out),
            Kind::Uint32 | Kind::Fixed32 => put_uint(u64::from(bits as u32), self.out),
            Kind::Sint32 => {
                let zigzag = bits as u32;
                put_int(i64::from((zigzag >> 1) as i32 ^ -((zigzag & 1) as i32)), self.out);
            }
            Kind::Enum(_) => put_int(i64::from(bits as i32), self.out),
        }
        Ok(true)
    }

    fn quoted(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.out.push(b'"');
        write(self.out);
        self.out.push(b'"');
    }
}

/// Notes where each known field stands; checks the form of the whole message on the way.
fn locate(table: &'static Message, bytes: &[u8], slots: &mut Slots) -> Result<(), WireError> {
    let mut cursor = Cursor::new(bytes);
    let mut at = 0usize;
    while let Some(found) = cursor.next_field()? {
        // Fields mostly come in order, so the search goes on where it ended, and wraps once.
        let ahead = table.fields.iter().skip(at).position(|f| f.number == found.number).map(|i| i + at);
        let index = ahead.or_else(|| table.fields.iter().position(|f| f.number == found.number));
        if let Some(index) = index {
            at = index;
            if let Some(slot) = slots.get_mut(index) {
                slot.1 = found.start + 1;
                if slot.0 == 0 {
                    slot.0 = slot.1;
                }
            }
        }
    }
    Ok(())
}

/// The value of the field whose tag stands at `slot - 1`.
fn value_at(bytes: &[u8], slot: usize) -> Result<Option<Value<'_>>, WireError> {
    let mut cursor = Cursor::new(bytes.get(slot.saturating_sub(1)..).unwrap_or_default());
    Ok(cursor.next_field()?.map(|field| field.value))
}

/// Calls `each` with every value of field `number` between two slots, both included.
fn for_each<'b>(
    number: u32,
    bytes: &'b [u8],
    (first, last): (usize, usize),
    mut each: impl FnMut(Value<'b>) -> Result<(), WireError>,
) -> Result<(), WireError> {
    let base = first.saturating_sub(1);
    let mut cursor = Cursor::new(bytes.get(base..).unwrap_or_default());
    while base + cursor.pos() < last {
        let Some(field) = cursor.next_field()? else { return Ok(()) };
        if field.number == number {
            each(field.value)?;
        }
    }
    Ok(())
}

/// The first scalar of a packed list, and the bytes it takes.
fn unpack(packed: &[u8], wire_type: u8) -> Result<(Value<'_>, usize), WireError> {
    if wire_type == 0 {
        return read_varint(packed).map(|(value, used)| (Value::Varint(value), used));
    }
    let (head, _) = packed.split_first_chunk::<8>().ok_or(WireError::Truncated)?;
    Ok((Value::Fixed64(u64::from_le_bytes(*head)), 8))
}

fn plain(value: &[u8], out: &mut Vec<u8>, depth: u32) -> Result<(), WireError> {
    if depth >= MAX_DEPTH {
        return Err(WireError::TooDeep);
    }
    let start = out.len();
    let mut cursor = Cursor::new(value);
    while let Some(field) = cursor.next_field()? {
        if !(1..=7).contains(&field.number) {
            continue;
        }
        out.truncate(start);
        match (field.number, field.value) {
            (1, Value::Bytes(text)) => put_text(text, out),
            (2, Value::Varint(v)) => out.extend_from_slice(if v == 0 { b"false" } else { b"true" }),
            (3, Value::Varint(v)) => put_int(v as i64, out),
            (4, Value::Fixed64(v)) => put_double(f64::from_bits(v), out),
            (5, Value::Bytes(list)) => plain_list(list, out, depth)?,
            (6, Value::Bytes(map)) => plain_map(map, out, depth)?,
            (7, Value::Bytes(bytes)) => put_base64(bytes, out),
            _ => return Err(WireError::WrongType),
        }
    }
    if out.len() == start {
        out.extend_from_slice(b"null");
    }
    Ok(())
}

fn plain_list(list: &[u8], out: &mut Vec<u8>, depth: u32) -> Result<(), WireError> {
    out.push(b'[');
    let start = out.len();
    let mut cursor = Cursor::new(list);
    while let Some(field) = cursor.next_field()? {
        if field.number == 1 {
            if out.len() > start {
                out.push(b',');
            }
            plain(field.value.bytes()?, out, depth + 1)?;
        }
    }
    out.push(b']');
    Ok(())
}

fn plain_map(map: &[u8], out: &mut Vec<u8>, depth: u32) -> Result<(), WireError> {
    out.push(b'{');
    let start = out.len();
    let mut cursor = Cursor::new(map);
    while let Some(field) = cursor.next_field()? {
        if field.number != 1 {
            continue;
        }
        let (mut key, mut value): (&[u8], &[u8]) = (&[], &[]);
        let mut entry = Cursor::new(field.value.bytes()?);
        while let Some(part) = entry.next_field()? {
            match part.number {
                1 => key = part.value.bytes()?,
                2 => value = part.value.bytes()?,
                _ => {}
            }
        }
        if out.len() > start {
            out.push(b',');
        }
        put_text(key, out);
        out.push(b':');
        plain(value, out, depth + 1)?;
    }
    out.push(b'}');
    Ok(())
}

/// Appends a JSON string; invalid UTF-8 becomes U+FFFD.
fn put_text(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    if std::str::from_utf8(text).is_ok() {
        put_escaped(text, out);
    } else {
        for chunk in text.utf8_chunks() {
            put_escaped(chunk.valid().as_bytes(), out);
            if !chunk.invalid().is_empty() {
                out.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
    }
    out.push(b'"');
}

fn put_escaped(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|&b| b < 0x20 || b == b'"' || b == b'\\') {
        out.extend_from_slice(rest.get(..at).unwrap_or_default());
        let Some((&b, tail)) = rest.get(at..).and_then(<[u8]>::split_first) else { return };
        match b {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            other => {
                out.extend_from_slice(b"\\u00");
                put_hex(&[other], out);
            }
        }
        rest = tail;
    }
    out.extend_from_slice(rest);
}

/// Appends bytes as lower-case hexadecimal digits.
pub(crate) fn put_hex(bytes: &[u8], out: &mut Vec<u8>) {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble };
    out.extend(bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 0x0f)]));
}

/// Appends the shortest text that reads back as the same double; `"NaN"` and the infinities are strings.
pub(crate) fn put_double(value: f64, out: &mut Vec<u8>) {
    if value.is_finite() {
        // Writing to a vector cannot fail.
        let _ = serde_json::to_writer(&mut *out, &value);
        if out.ends_with(b".0") {
            out.truncate(out.len() - 2);
        }
        return;
    }
    out.extend_from_slice(match () {
        () if value.is_nan() => b"\"NaN\"".as_slice(),
        () if value > 0.0 => b"\"Infinity\"",
        () => b"\"-Infinity\"",
    });
}

fn put_base64(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    if let Some(room) = out.get_mut(start..) {
        // The room is exactly what base64 with padding needs.
        let _ = STANDARD.encode_slice(bytes, room);
    }
    out.push(b'"');
}

fn put_int(value: i64, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    put_uint(value.unsigned_abs(), out);
}

fn put_uint(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut used = 0;
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + (value % 10) as u8;
        value /= 10;
        used += 1;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(20 - used..).unwrap_or_default());
}
