//! The line of an entry, in the forms of the Collector's old exporter: a JSON object, or logfmt.
//!
//! Attributes that are labels, and hints, are left out. Keys of attributes are sorted, so that equal records have
//! equal lines.

use std::fmt::Write;

use super::resolve::{Above, Place, is_hint};
use super::sources::LabelSource;
use super::{Format, LokiOptions};
use crate::pdata::MAX_VALUE_DEPTH;
use crate::pdata::common::{AnyValue, Attributes};
use crate::pdata::wire::WireError;
use crate::prometheus::text::{json_string, json_value, value_text};

/// Keys and values, sorted.
type Pairs<'a> = Vec<(&'a [u8], AnyValue<'a>)>;

/// Appends a line.
///
/// # Errors
/// The record cannot be read.
pub(super) fn put_line(
    options: &LokiOptions,
    above: &Above,
    place: &Place<'_>,
    out: &mut String,
) -> Result<(), WireError> {
    match above.format {
        Format::Raw => {
            place.record.body.iter().for_each(|body| value_text(body, out));
            Ok(())
        }
        Format::Json => json(options, above, place, out),
        Format::Logfmt => logfmt(options, above, place, out),
    }
}

fn attributes<'a>(above: &Above, place: &Place<'a>) -> Result<Pairs<'a>, WireError> {
    let is_label = |key: &[u8]| above.wanted.iter().any(|w| !w.keep && *w.key == *key);
    pairs(place.record.attributes(), is_label)
}

fn resources<'a>(options: &LokiOptions, above: &Above, place: &Place<'a>) -> Result<Pairs<'a>, WireError> {
    let is_label = |key: &[u8]| {
        let same = |source: &LabelSource| matches!(source, LabelSource::Resource(k) if k.as_bytes() == key);
        options.labels.iter().any(|(_, source)| same(source))
            || above.hinted_resource_labels().iter().any(|k| k.as_bytes() == key)
    };
    pairs(place.group.attributes(), is_label)
}

fn pairs<'a>(attributes: Attributes<'a>, is_label: impl Fn(&[u8]) -> bool) -> Result<Pairs<'a>, WireError> {
    let mut out = Pairs::new();
    for pair in attributes {
        let (key, value) = pair?;
        if !is_hint(key) && !is_label(key) {
            out.push((key, value));
        }
    }
    out.sort_by_key(|(key, _)| *key);
    out.dedup_by_key(|(key, _)| *key);
    Ok(out)
}

fn json(options: &LokiOptions, above: &Above, place: &Place<'_>, out: &mut String) -> Result<(), WireError> {
    let record = &place.record;
    let mut first = true;
    let mut key = |key: &str, out: &mut String| {
        out.push(if std::mem::take(&mut first) { '{' } else { ',' });
        let _ = write!(out, "\"{key}\":");
    };
    if !record.event_name.is_empty() {
        key("name", out);
        json_string(record.event_name, out);
    }
    if let Some(body) = record.body.as_ref().filter(|body| !is_empty(body)) {
        key("body", out);
        json_value(body, out);
    }
    for (name, id) in [("traceid", record.trace_id), ("spanid", record.span_id)] {
        if !id.is_empty() {
            key(name, out);
            out.push('"');
            put_hex(id, out);
            out.push('"');
        }
    }
    if !record.severity_text.is_empty() {
        key("severity", out);
        json_string(record.severity_text, out);
    }
    if record.flags != 0 {
        key("flags", out);
        let _ = write!(out, "{}", record.flags);
    }
    for (name, pairs) in
        [("attributes", attributes(above, place)?), ("resources", resources(options, above, place)?)]
    {
        if !pairs.is_empty() {
            key(name, out);
            for (i, (key, value)) in pairs.iter().enumerate() {
                out.push(if i > 0 { ',' } else { '{' });
                json_string(key, out);
                out.push(':');
                json_value(value, out);
            }
            out.push('}');
        }
    }
    let (name, version) = (place.scope.name()?, place.scope.version()?);
    if !name.is_empty() || !version.is_empty() {
        key("instrumentation_scope", out);
        let mut comma = '{';
        for (name, value) in [("name", name), ("version", version)] {
            if !value.is_empty() {
                out.push(comma);
                let _ = write!(out, "\"{name}\":");
                json_string(value, out);
                comma = ',';
            }
        }
        out.push('}');
    }
    out.push_str(if first { "{}" } else { "}" });
    Ok(())
}

fn is_empty(body: &AnyValue<'_>) -> bool {
    matches!(body, AnyValue::Empty | AnyValue::Str([]))
}

fn logfmt(
    options: &LokiOptions,
    above: &Above,
    place: &Place<'_>,
    out: &mut String,
) -> Result<(), WireError> {
    let record = &place.record;
    match &record.body {
        None => {}
        Some(AnyValue::Str(text)) => {
            let text = String::from_utf8_lossy(text);
            if is_logfmt(&text) {
                out.push_str(text.trim());
            } else if !text.is_empty() {
                put_pair("msg", &text, out);
            }
        }
        Some(AnyValue::KvList(map)) => {
            for (key, value) in pairs(map.pairs(), |_| false)? {
                put_value(&String::from_utf8_lossy(key), &value, 0, out)?;
            }
        }
        Some(value) => put_value("msg", value, 0, out)?,
    }
    let mut hex = String::new();
    for (name, id) in [("traceID", record.trace_id), ("spanID", record.span_id)] {
        hex.clear();
        put_hex(id, &mut hex);
        put_pair(name, &hex, out);
    }
    put_pair("severity", &String::from_utf8_lossy(record.severity_text), out);
    if record.flags != 0 {
        put_pair("flags", &record.flags.to_string(), out);
    }
    for (prefix, pairs) in
        [("attribute_", attributes(above, place)?), ("resource_", resources(options, above, place)?)]
    {
        for (key, value) in pairs {
            put_value(&format!("{prefix}{}", String::from_utf8_lossy(key)), &value, 0, out)?;
        }
    }
    put_pair("instrumentation_scope_name", &String::from_utf8_lossy(place.scope.name()?), out);
    put_pair("instrumentation_scope_version", &String::from_utf8_lossy(place.scope.version()?), out);
    Ok(())
}

/// Maps become one pair for each value in them.
fn put_value(key: &str, value: &AnyValue<'_>, depth: u32, out: &mut String) -> Result<(), WireError> {
    if let AnyValue::KvList(map) = value {
        if depth < MAX_VALUE_DEPTH {
            for (inner, value) in pairs(map.pairs(), |_| false)? {
                put_value(&format!("{key}_{}", String::from_utf8_lossy(inner)), &value, depth + 1, out)?;
            }
        }
        return Ok(());
    }
    let mut text = String::new();
    value_text(value, &mut text);
    put_pair(key, &text, out);
    Ok(())
}

/// Appends a pair, unless its value is empty.
fn put_pair(key: &str, value: &str, out: &mut String) {
    if value.is_empty() {
        return;
    }
    if !out.is_empty() {
        out.push(' ');
    }
    // What would end a key does not stand in one.
    out.extend(key.chars().map(|c| if c <= ' ' || c == '=' || c == '"' { '_' } else { c }));
    out.push('=');
    if value.chars().any(|c| c <= ' ' || c == '=' || c == '"' || c == '\u{7f}') {
        json_string(value.as_bytes(), out);
    } else {
        out.push_str(value);
    }
}

/// Whether text consists of pairs of key and value.
fn is_logfmt(text: &str) -> bool {
    let mut rest = text.trim();
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let Some((key, tail)) = rest.split_once('=') else { return false };
        if key.is_empty() || key.contains(|c: char| c <= ' ' || c == '"') {
            return false;
        }
        let end = match tail.strip_prefix('"') {
            Some(quoted) => {
                let mut escaped = false;
                let closing = quoted.find(|c| {
                    let closes = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    closes
                });
                match closing {
                    Some(at) => at + 2,
                    None => return false,
                }
            }
            None => {
                let end = tail.find(|c: char| c <= ' ').unwrap_or(tail.len());
                if tail.get(..end).is_some_and(|value| value.contains(['"', '='])) {
                    return false;
                }
                end
            }
        };
        let after = tail.get(end..).unwrap_or_default();
        if !after.is_empty() && !after.starts_with(|c: char| c <= ' ') {
            return false;
        }
        rest = after.trim_start();
    }
    true
}

/// Appends lower-case hex.
pub(super) fn put_hex(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            out.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_logfmt() {
        for text in ["a=b", "a=b c=\"d e\"", " a= b=1 ", "msg=\"a \\\" b\" x=1"] {
            assert!(is_logfmt(text), "{text}");
        }
        for text in ["", "hello", "a b=c", "a=b hello", "a=\"b", "=b", "a=\"b\"c", "a=b=c"] {
            assert!(!is_logfmt(text), "{text}");
        }
    }

    #[test]
    fn pairs_are_quoted() {
        let mut out = String::new();
        put_pair("a b", "x", &mut out);
        put_pair("c", "x y", &mut out);
        put_pair("d", "", &mut out);
        put_pair("e", "\"\n", &mut out);
        assert_eq!(out, r#"a_b=x c="x y" e="\"\n""#);
        assert!(is_logfmt(&out));
    }
}
