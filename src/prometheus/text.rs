//! Text: attribute values as labels show them, and numbers as labels and expositions show them.
//!
//! Everything is appended to a string of the caller's. Strings of OTLP may be no UTF-8: what is none becomes
//! U+FFFD. Numbers have the fewest digits that read back as the same number. Only maps allocate, one list of
//! references each, to sort their keys; the work is linear in the value but for that.

#[cfg(test)]
mod tests;

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::pdata::MAX_VALUE_DEPTH;
use crate::pdata::common::{AnyValue, Array, KvList};

/// Appends an attribute value as the value of a label: strings as they are, lists and maps as compact JSON
/// with sorted keys, bytes as base64, nothing for an empty value.
///
/// A value that a checked request cannot hold is cut short: nesting below [`MAX_VALUE_DEPTH`] shows as `null`,
/// and a list that cannot be read on ends there. Of a key that a map has twice, the last value shows.
pub fn value_text(value: &AnyValue<'_>, out: &mut String) {
    match *value {
        AnyValue::Empty => {}
        AnyValue::Str(text) => put_lossy(text, out),
        AnyValue::Bytes(bytes) => STANDARD.encode_string(bytes, out),
        AnyValue::Double(number) => js_double(number, out),
        AnyValue::Bool(_) | AnyValue::Int(_) | AnyValue::Array(_) | AnyValue::KvList(_) => {
            put_json(value, 0, out);
        }
    }
}

/// Appends a double as attributes show it, and as JavaScript would: `1000000`, `0.000001`, `1e-7`, `1e+21`,
/// `NaN`, `Infinity`, `-Infinity`.
pub fn js_double(value: f64, out: &mut String) {
    let size = value.abs();
    match () {
        () if value.is_nan() => out.push_str("NaN"),
        () if size.is_infinite() => out.push_str(if value > 0.0 { "Infinity" } else { "-Infinity" }),
        () if size == 0.0 || (1e-6..1e21).contains(&size) => put_plain(value, out),
        () => put_exponent(value, 1, out),
    }
}

/// Appends a double without an exponent, as `le` and `quantile` show it: `0.5`, `1`, `1000000`, `+Inf`.
pub fn plain_double(value: f64, out: &mut String) {
    if !put_special(value, out) {
        put_plain(value, out);
    }
}

/// Appends a double as OpenMetrics shows `le` and `quantile`: `0.5`, `1.0`, `1e+06`, `+Inf`.
pub fn openmetrics_double(value: f64, out: &mut String) {
    let start = out.len();
    // Zero has one form, or two buckets could have one bound.
    let value = if value == 0.0 { 0.0 } else { value };
    sample_double(value.to_bits(), out);
    if value.is_finite() && !out.get(start..).is_some_and(|text| text.contains(['.', 'e'])) {
        out.push_str(".0");
    }
}

/// Appends a sample's value, given by its bits, as text expositions show it: `12`, `0.0001`, `1e-05`, `1e+06`,
/// `NaN`, `+Inf`. Numbers below 0.0001 and from a million have an exponent, as Go prints them. Text cannot
/// tell the stale marker from other NaNs.
pub fn sample_double(bits: u64, out: &mut String) {
    let value = f64::from_bits(bits);
    let size = value.abs();
    if put_special(value, out) {
    } else if size == 0.0 || (1e-4..1e6).contains(&size) {
        put_plain(value, out);
    } else {
        put_exponent(value, 2, out);
    }
}

/// Appends any value as compact JSON, with sorted keys, bytes as base64; see [`value_text`].
pub fn json_value(value: &AnyValue<'_>, out: &mut String) {
    put_json(value, 0, out);
}

/// Appends text as a JSON string.
pub fn json_string(text: &[u8], out: &mut String) {
    put_json_string(text, out);
}

/// What is no number, in Prometheus' spelling; `false`, and nothing appended, for numbers.
fn put_special(value: f64, out: &mut String) -> bool {
    if value.is_finite() {
        return false;
    }
    out.push_str(match () {
        () if value.is_nan() => "NaN",
        () if value > 0.0 => "+Inf",
        () => "-Inf",
    });
    true
}

fn put_plain(value: f64, out: &mut String) {
    // Writing to a string cannot fail.
    let _ = write!(out, "{value}");
}

/// The form with an exponent, which has a sign and at least so many digits.
fn put_exponent(value: f64, digits: usize, out: &mut String) {
    let start = out.len();
    let _ = write!(out, "{value:e}");
    let Some(at) = out.get(start..).and_then(|text| text.find('e')) else { return };
    let mut at = start + at + 1;
    if out.get(at..).is_some_and(|exponent| exponent.starts_with('-')) {
        at += 1;
    } else {
        out.insert(at, '+');
        at += 1;
    }
    while out.len() - at < digits {
        out.insert(at, '0');
    }
}

fn put_lossy(text: &[u8], out: &mut String) {
    for chunk in text.utf8_chunks() {
        out.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            out.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

fn put_json(value: &AnyValue<'_>, depth: u32, out: &mut String) {
    if depth >= MAX_VALUE_DEPTH {
        out.push_str("null");
        return;
    }
    match *value {
        AnyValue::Empty => out.push_str("null"),
        AnyValue::Str(text) => put_json_string(text, out),
        AnyValue::Bool(truth) => out.push_str(if truth { "true" } else { "false" }),
        AnyValue::Int(number) => {
            let _ = write!(out, "{number}");
        }
        AnyValue::Double(number) if number.is_finite() => js_double(number, out),
        AnyValue::Double(number) => {
            out.push('"');
            js_double(number, out);
            out.push('"');
        }
        AnyValue::Array(list) => put_json_list(list, depth, out),
        AnyValue::KvList(map) => put_json_map(map, depth, out),
        AnyValue::Bytes(bytes) => {
            out.push('"');
            STANDARD.encode_string(bytes, out);
            out.push('"');
        }
    }
}

fn put_json_list(list: Array<'_>, depth: u32, out: &mut String) {
    out.push('[');
    for (i, value) in list.values().map_while(Result::ok).enumerate() {
        if i > 0 {
            out.push(',');
        }
        put_json(&value, depth + 1, out);
    }
    out.push(']');
}

fn put_json_map(map: KvList<'_>, depth: u32, out: &mut String) {
    let mut pairs: Vec<(&[u8], AnyValue<'_>)> = map.pairs().map_while(Result::ok).collect();
    // Stable, so that of equal keys the last given stays last.
    pairs.sort_by_key(|(key, _)| *key);
    out.push('{');
    let mut first = true;
    let mut pairs = pairs.iter().peekable();
    while let Some((key, value)) = pairs.next() {
        if pairs.peek().is_some_and(|(next, _)| next == key) {
            continue;
        }
        if !first {
            out.push(',');
        }
        first = false;
        put_json_string(key, out);
        out.push(':');
        put_json(value, depth + 1, out);
    }
    out.push('}');
}

/// A string with the escapes of Go's encoder, HTML aside: labels of other senders are the same then.
fn put_json_string(text: &[u8], out: &mut String) {
    out.push('"');
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                '\0'..='\u{1f}' | '\u{2028}' | '\u{2029}' => {
                    let _ = write!(out, "\\u{:04x}", u32::from(c));
                }
                c => out.push(c),
            }
        }
        if !chunk.invalid().is_empty() {
            out.push(char::REPLACEMENT_CHARACTER);
        }
    }
    out.push('"');
}
