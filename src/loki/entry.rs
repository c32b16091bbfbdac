//! The parts of an entry: its head, its line, and the fields of its record that are structured metadata.

use super::line::put_line;
use super::metadata::Metadata;
use super::names::{self, Names};
use super::resolve::{Above, Place};
use super::{Format, LokiOptions};
use crate::pdata::common::AnyValue;
use crate::pdata::logs::LogRecord;
use crate::pdata::wire::{WireError, put_varint, varint_len};

/// Takes the names of the fields that a record has: they win over attributes.
#[inline]
pub(super) fn claim_fields(
    metadata: &mut Metadata,
    record: &LogRecord<'_>,
    text_is_label: bool,
    number_is_label: bool,
) {
    let has = [
        (record.observed_time_unix_nano != 0 && record.time_unix_nano != 0, names::OBSERVED),
        (record.severity_number != 0 && !number_is_label, names::SEVERITY_NUMBER),
        (!record.severity_text.is_empty() && !text_is_label, names::SEVERITY_TEXT),
        (record.dropped_attributes_count != 0, names::DROPPED),
        (record.flags != 0, names::FLAGS),
        (!record.trace_id.is_empty(), names::TRACE),
        (!record.span_id.is_empty(), names::SPAN),
        (!record.event_name.is_empty(), names::EVENT),
    ];
    for (has, id) in has {
        if has {
            metadata.claim(id);
        }
    }
}

/// Appends the fields, whose names are claimed.
#[inline]
pub(super) fn fields(
    metadata: &mut Metadata,
    names: &Names,
    record: &LogRecord<'_>,
    text_is_label: bool,
    number_is_label: bool,
) {
    let mut digits = [0; 20];
    if record.observed_time_unix_nano != 0 && record.time_unix_nano != 0 {
        metadata.put(names, names::OBSERVED, decimal(record.observed_time_unix_nano, &mut digits));
    }
    if record.severity_number != 0 && !number_is_label {
        if record.severity_number > 0 {
            let text = decimal(record.severity_number as u64, &mut digits);
            metadata.put(names, names::SEVERITY_NUMBER, text);
        } else {
            metadata.put(names, names::SEVERITY_NUMBER, record.severity_number.to_string().as_bytes());
        }
    }
    if !text_is_label {
        metadata.put_text(names, names::SEVERITY_TEXT, record.severity_text);
    }
    for (id, count) in [(names::DROPPED, record.dropped_attributes_count), (names::FLAGS, record.flags)] {
        if count != 0 {
            metadata.put(names, id, decimal(u64::from(count), &mut digits));
        }
    }
    let mut hex = [0; 32];
    for (id, bytes) in [(names::TRACE, record.trace_id), (names::SPAN, record.span_id)] {
        metadata.put(names, id, put_hex(bytes, &mut hex));
    }
    metadata.put_text(names, names::EVENT, record.event_name);
}

/// The digits of a number.
fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + (number % 10) as u8;
        number /= 10;
        at -= 1;
        if number == 0 {
            break;
        }
    }
    digits.get(at..).unwrap_or_default()
}

/// An id of up to 16 bytes in lower-case hex.
fn put_hex<'h>(bytes: &[u8], hex: &'h mut [u8; 32]) -> &'h [u8] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: u8| DIGITS.get(usize::from(n)).copied().unwrap_or(b'0');
    for (pair, byte) in hex.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
    hex.get(..2 * bytes.len().min(16)).unwrap_or_default()
}

/// The line of a record: of a text body as it lies, else in the buffer.
#[inline]
pub(super) fn line<'l>(
    options: &LokiOptions,
    above: &Above,
    place: &Place<'l>,
    buffer: &'l mut String,
) -> Result<&'l str, WireError> {
    if above.format == Format::Raw {
        match place.record.body {
            None => return Ok(""),
            Some(AnyValue::Str(text)) => {
                if let Ok(text) = std::str::from_utf8(text) {
                    return Ok(text);
                }
            }
            _ => {}
        }
    }
    buffer.clear();
    put_line(options, above, place, buffer)?;
    Ok(buffer)
}

/// What stands before the line in an entry: the entry's own tag and length, the time, the line's tag and length.
#[inline]
pub(super) fn entry_head(time: u64, line: usize, metadata: usize, out: &mut Vec<u8>) {
    let (seconds, nanos) = (time / 1_000_000_000, time % 1_000_000_000);
    let field = |value: u64| if value == 0 { 0 } else { 1 + varint_len(value) };
    let stamp = field(seconds) + field(nanos);
    let text = if line == 0 { 0 } else { 1 + varint_len(line as u64) + line };
    out.clear();
    out.push(2 << 3 | 2);
    put_varint(out, (2 + stamp + text + metadata) as u64);
    out.extend_from_slice(&[1 << 3 | 2, stamp as u8]);
    for (tag, value) in [(1 << 3, seconds), (2 << 3, nanos)] {
        if value != 0 {
            out.push(tag);
            put_varint(out, value);
        }
    }
    if line > 0 {
        out.push(2 << 3 | 2);
        put_varint(out, line as u64);
    }
}
