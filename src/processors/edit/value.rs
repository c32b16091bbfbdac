//! Attribute values (`AnyValue`) as they stand on the wire: reading, hashing, converting, rendering as text.
//!
//! Reading looks at the value's own fields only and never recurses; rendering a list or map as text recurses
//! at most [`MAX_DEPTH`] levels. Any bytes give a value or an error.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest as _, Sha256};

use super::splice::put_field;
use crate::config::types::Any;
use crate::pdata::wire::{Cursor, Value, WireError, put_varint};

/// How deep lists and maps may nest where a value is rendered as text.
const MAX_DEPTH: usize = 64;

/// What an attribute value holds. Strings are bytes: nothing here needs them to be UTF-8.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scalar<'a> {
    /// Nothing is set.
    Empty,
    /// Text.
    Str(&'a [u8]),
    /// `true` or `false`.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A number.
    Double(f64),
    /// Bytes.
    Bytes(&'a [u8]),
    /// A list; read it with a cursor.
    List,
    /// A map; read it with a cursor.
    Map,
}

impl<'a> Scalar<'a> {
    /// Reads a value. Of several that are set the last counts, as every decoder has it.
    #[inline]
    pub(crate) fn read(any: &'a [u8]) -> Result<Self, WireError> {
        let mut found = Scalar::Empty;
        let mut fields = Cursor::new(any);
        while let Some(field) = fields.next_field()? {
            found = match (field.number, field.value) {
                (1, Value::Bytes(b)) => Scalar::Str(b),
                (2, Value::Varint(v)) => Scalar::Bool(v != 0),
                (3, Value::Varint(v)) => Scalar::Int(v as i64),
                (4, Value::Fixed64(bits)) => Scalar::Double(f64::from_bits(bits)),
                (5, Value::Bytes(_)) => Scalar::List,
                (6, Value::Bytes(_)) => Scalar::Map,
                (7, Value::Bytes(b)) => Scalar::Bytes(b),
                (1..=7, _) => return Err(WireError::WrongType),
                _ => continue,
            };
        }
        Ok(found)
    }

    /// The text of a string, boolean, integer or number; `None` for everything else.
    pub(crate) fn text(&self) -> Option<Cow<'a, [u8]>> {
        Some(match *self {
            Scalar::Str(s) => Cow::Borrowed(s),
            Scalar::Bool(true) => Cow::Borrowed(b"true"),
            Scalar::Bool(false) => Cow::Borrowed(b"false"),
            Scalar::Int(i) => Cow::Owned(i.to_string().into_bytes()),
            Scalar::Double(d) => Cow::Owned(double_text(d).into_bytes()),
            Scalar::Empty | Scalar::Bytes(_) | Scalar::List | Scalar::Map => return None,
        })
    }
}

/// What an attribute can be converted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Int,
    Double,
    Str,
}

/// Appends a string value.
pub(super) fn put_str(out: &mut Vec<u8>, text: &[u8]) {
    put_field(out, 0x0a, text);
}

/// Appends a value from the config.
pub(crate) fn put_any(out: &mut Vec<u8>, value: &Any) {
    match value {
        Any::Null => {}
        Any::Str(s) => put_str(out, s.as_bytes()),
        Any::Bool(b) => out.extend_from_slice(&[0x10, u8::from(*b)]),
        Any::Int(i) => put_int(out, *i),
        Any::Float(d) => put_double(out, *d),
        Any::List(items) => {
            let mut list = Vec::new();
            for item in items {
                let mut inner = Vec::new();
                put_any(&mut inner, item);
                put_field(&mut list, 0x0a, &inner);
            }
            put_field(out, 0x2a, &list);
        }
        Any::Map(entries) => {
            let mut map = Vec::new();
            for (key, item) in entries {
                let (mut inner, mut pair) = (Vec::new(), Vec::new());
                put_any(&mut inner, item);
                put_field(&mut pair, 0x0a, key.as_bytes());
                put_field(&mut pair, 0x12, &inner);
                put_field(&mut map, 0x0a, &pair);
            }
            put_field(out, 0x32, &map);
        }
    }
}

/// Appends, as a string value, the SHA-256 of a value in lower-case hex.
///
/// What is hashed: a string's or bytes' own bytes, an integer's or number's eight bytes (little endian), one
/// byte for a boolean. An empty string, an empty value, a list and a map become the empty string, as in the
/// Collector.
pub(super) fn put_hash(out: &mut Vec<u8>, any: &[u8]) -> Result<(), WireError> {
    let digest = match Scalar::read(any)? {
        Scalar::Str(b) | Scalar::Bytes(b) if !b.is_empty() => Sha256::digest(b),
        Scalar::Bool(b) => Sha256::digest([u8::from(b)]),
        Scalar::Int(i) => Sha256::digest(i.to_le_bytes()),
        Scalar::Double(d) => Sha256::digest(d.to_bits().to_le_bytes()),
        Scalar::Str(_) | Scalar::Bytes(_) | Scalar::Empty | Scalar::List | Scalar::Map => {
            put_str(out, b"");
            return Ok(());
        }
    };
    out.extend_from_slice(&[0x0a, 64]);
    for byte in digest {
        out.extend_from_slice(&[hex(byte >> 4), hex(byte & 15)]);
    }
    Ok(())
}

/// Appends the value converted to `target`; `false`, and nothing appended, if it is of that type already or
/// cannot be converted.
pub(super) fn put_converted(out: &mut Vec<u8>, any: &[u8], target: Target) -> Result<bool, WireError> {
    let value = Scalar::read(any)?;
    match (target, value) {
        (Target::Int, Scalar::Double(d)) => put_int(out, d as i64),
        (Target::Int, Scalar::Bool(b)) => put_int(out, i64::from(b)),
        (Target::Int, Scalar::Str(s)) => match parse::<i64>(s) {
            Some(i) => put_int(out, i),
            None => return Ok(false),
        },
        (Target::Double, Scalar::Int(i)) => put_double(out, i as f64),
        (Target::Double, Scalar::Bool(b)) => put_double(out, f64::from(u8::from(b))),
        (Target::Double, Scalar::Str(s)) => match parse::<f64>(s) {
            // Digits that overflow are no number; "inf" is one.
            Some(d) if d.is_infinite() && s.iter().any(u8::is_ascii_digit) => return Ok(false),
            Some(d) => put_double(out, d),
            None => return Ok(false),
        },
        (Target::Str, Scalar::Str(_)) => return Ok(false),
        (Target::Str, _) => put_str(out, text(any)?.as_bytes()),
        (Target::Int | Target::Double, _) => return Ok(false),
    }
    Ok(true)
}

/// A value as text: what a `string` conversion gives. Lists and maps are compact JSON with sorted keys.
pub(crate) fn text(any: &[u8]) -> Result<String, WireError> {
    let value = Scalar::read(any)?;
    Ok(match value {
        Scalar::Empty => String::new(),
        Scalar::Bytes(b) => BASE64.encode(b),
        Scalar::List | Scalar::Map => {
            let mut out = String::new();
            put_json(&mut out, any, 0)?;
            out
        }
        _ => String::from_utf8_lossy(&value.text().unwrap_or_default()).into_owned(),
    })
}

/// Appends a value as JSON: numbers as [`double_text`] has them, what JSON has no number for as a string.
fn put_json(out: &mut String, any: &[u8], depth: usize) -> Result<(), WireError> {
    if depth > MAX_DEPTH {
        return Err(WireError::TooDeep);
    }
    match Scalar::read(any)? {
        Scalar::Empty => out.push_str("null"),
        Scalar::Str(s) => put_json_str(out, &String::from_utf8_lossy(s)),
        Scalar::Bool(b) => out.push_str(if b { "true" } else { "false" }),
        Scalar::Int(i) => out.push_str(&i.to_string()),
        Scalar::Double(d) if d.is_finite() => out.push_str(&double_text(d)),
        Scalar::Double(d) => put_json_str(out, &double_text(d)),
        Scalar::Bytes(b) => put_json_str(out, &BASE64.encode(b)),
        Scalar::List => {
            let mut separator = '[';
            for_each(any, 5, |item| {
                out.push(separator);
                separator = ',';
                put_json(out, item, depth + 1)
            })?;
            out.push_str(if separator == '[' { "[]" } else { "]" });
        }
        Scalar::Map => {
            let mut entries = BTreeMap::new();
            for_each(any, 6, |pair| {
                let (mut key, mut value) = (Cow::Borrowed(""), Vec::new());
                let mut fields = Cursor::new(pair);
                while let Some(field) = fields.next_field()? {
                    match field.number {
                        1 => key = String::from_utf8_lossy(field.value.bytes()?),
                        2 => value.extend_from_slice(field.value.bytes()?),
                        _ => {}
                    }
                }
                let mut text = String::new();
                put_json(&mut text, &value, depth + 1)?;
                entries.insert(key.into_owned(), text);
                Ok(())
            })?;
            out.push('{');
            for (i, (key, value)) in entries.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                put_json_str(out, key);
                out.push(':');
                out.push_str(value);
            }
            out.push('}');
        }
    }
    Ok(())
}

fn put_json_str(out: &mut String, text: &str) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

/// Calls `f` with the elements of a list (`kind` 5) or map (6). Of a value set several times, neighbours of the
/// same kind merge and another kind starts afresh, so only the last run of `kind` counts.
fn for_each(
    any: &[u8],
    kind: u32,
    mut f: impl FnMut(&[u8]) -> Result<(), WireError>,
) -> Result<(), WireError> {
    let mut start = 0;
    let mut fields = Cursor::new(any);
    while let Some(field) = fields.next_field()? {
        if (1..=7).contains(&field.number) && field.number != kind {
            start = field.end;
        }
    }
    let mut fields = Cursor::new(any.get(start..).unwrap_or_default());
    while let Some(field) = fields.next_field()? {
        if field.number == kind {
            let mut elements = Cursor::new(field.value.bytes()?);
            while let Some(element) = elements.next_field()? {
                if element.number == 1 {
                    f(element.value.bytes()?)?;
                }
            }
        }
    }
    Ok(())
}

/// A number as text: the shortest digits that give it back, with an exponent below 1e-6 and from 1e21.
fn double_text(d: f64) -> String {
    if d.is_nan() {
        return "NaN".to_owned();
    }
    if d.is_infinite() {
        return if d > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    if d == 0.0 || (1e-6..1e21).contains(&d.abs()) {
        return d.to_string();
    }
    let text = format!("{d:e}");
    if d.abs() >= 1.0 { text.replacen('e', "e+", 1) } else { text }
}

fn put_int(out: &mut Vec<u8>, value: i64) {
    out.push(0x18);
    put_varint(out, value as u64);
}

fn put_double(out: &mut Vec<u8>, value: f64) {
    out.push(0x21);
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

fn parse<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn hex(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}
