//! Single values as the Collector's debug output shows them.

use std::io::Write;

use chrono::DateTime;

use super::view::Msg;
use crate::pdata::fields::{any_value, key_value};
use crate::pdata::json::{put_any_value, put_double};
use crate::pdata::wire::WireError;

/// Appends text with control characters escaped, so that telemetry cannot steer a terminal.
pub(super) fn put_str(text: &str, out: &mut Vec<u8>) {
    for c in text.chars() {
        match c {
            '\n' | '\t' => out.push(c as u8),
            c if c.is_control() => out.extend(c.escape_default().map(|c| c as u8)),
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// Appends an AnyValue with its type: `Str(a)`, `Int(1)`, `Map({"k":"v"})`, `Empty()`.
pub(super) fn put_typed(value: &[u8], out: &mut Vec<u8>) -> Result<(), WireError> {
    let name = match kind(value)? {
        None => "Empty",
        Some(any_value::STRING) => "Str",
        Some(any_value::BOOL) => "Bool",
        Some(any_value::INT) => "Int",
        Some(any_value::DOUBLE) => "Double",
        Some(any_value::ARRAY) => "Slice",
        Some(any_value::KVLIST) => "Map",
        Some(_) => "Bytes",
    };
    out.extend_from_slice(name.as_bytes());
    out.push(b'(');
    put_plain(value, out)?;
    out.push(b')');
    Ok(())
}

/// Appends an AnyValue as bare text; maps and lists as JSON, nothing for an empty value.
pub(super) fn put_plain(value: &[u8], out: &mut Vec<u8>) -> Result<(), WireError> {
    match kind(value)? {
        None => {}
        Some(any_value::STRING) => put_str(&Msg::new(value)?.text(any_value::STRING), out),
        Some(any_value::DOUBLE) => put_number(Msg::new(value)?.double(any_value::DOUBLE).unwrap_or(0.0), out),
        Some(kind) => {
            let start = out.len();
            put_any_value(value, out)?;
            if kind == any_value::BYTES {
                // Without the quotes that it has as JSON.
                out.pop();
                out.drain(start..=start);
            }
        }
    }
    Ok(())
}

/// Appends the shortest text of a double, also of those that JSON cannot write.
pub(super) fn put_number(value: f64, out: &mut Vec<u8>) {
    if value.is_finite() {
        put_double(value, out);
    } else {
        let _ = write!(out, "{value}");
    }
}

/// Appends `key=value` pairs, each after a blank.
pub(super) fn put_pairs<'a>(
    attributes: impl Iterator<Item = &'a [u8]>,
    out: &mut Vec<u8>,
) -> Result<(), WireError> {
    for attribute in attributes {
        let attribute = Msg::new(attribute)?;
        out.push(b' ');
        put_str(&attribute.text(key_value::KEY), out);
        out.push(b'=');
        put_plain(&attribute.message(key_value::VALUE), out)?;
    }
    Ok(())
}

/// Appends nanoseconds since 1970 as `2024-01-02 15:04:05.123456789 +0000 UTC`.
pub(super) fn put_time(nanos: u64, out: &mut Vec<u8>) {
    let time = DateTime::from_timestamp_nanos(nanos as i64);
    let _ = write!(out, "{}", time.format("%Y-%m-%d %H:%M:%S"));
    let fraction = time.timestamp_subsec_nanos();
    if fraction != 0 {
        let digits = format!("{fraction:09}");
        let _ = write!(out, ".{}", digits.trim_end_matches('0'));
    }
    out.extend_from_slice(b" +0000 UTC");
}

/// The oneof member that a value holds.
fn kind(value: &[u8]) -> Result<Option<u32>, WireError> {
    Ok(Msg::new(value)?.which(&[1, 2, 3, 4, 5, 6, 7]))
}

/// Appends the time of day now, to the millisecond, in UTC.
pub(super) fn put_now(out: &mut Vec<u8>) {
    let _ = write!(out, "{}", chrono::Utc::now().format("%Y-%m-%dT%H:%M:%S%.3fZ"));
}
