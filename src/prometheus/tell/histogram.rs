//! A native histogram as Prometheus shows it: `{count:11, sum:60, (1,2]:4, (2,4]:3}`.

use crate::pdata::wire::{Cursor, WireError, read_varint};
use crate::prometheus::native::STALE;
use crate::prometheus::text::plain_double;

/// The schema of histograms with custom buckets.
const CUSTOM: i64 = -53;

/// A histogram of remote write, as text.
///
/// # Errors
/// It cannot be read.
pub fn text(message: &[u8]) -> Result<String, WireError> {
    let (mut count, mut sum, mut schema, mut zero_threshold, mut zero_count) = (0, 0, 0, 0, 0);
    let (mut spans, mut deltas) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    let mut custom = Vec::new();
    let mut cursor = Cursor::new(message);
    while let Some(field) = cursor.next_field()? {
        let value = field.value;
        let [negative, positive] = &mut spans;
        let [down, up] = &mut deltas;
        match field.number {
            1 => count = value.varint()?,
            3 => sum = value.fixed64()?,
            4 => schema = zigzag(value.varint()?),
            5 => zero_threshold = value.fixed64()?,
            6 => zero_count = value.varint()?,
            8 => negative.push(span(value.bytes()?)?),
            9 => numbers(value.bytes()?, down)?,
            11 => positive.push(span(value.bytes()?)?),
            12 => numbers(value.bytes()?, up)?,
            16 => custom = value.bytes()?.chunks_exact(8).map(double).collect(),
            _ => {}
        }
    }
    if sum == STALE {
        return Ok("(stale)".to_owned());
    }
    let mut out = format!("{{count:{count}, sum:{}", number(f64::from_bits(sum)));
    let bound = |index: i64| -> f64 {
        if schema != CUSTOM {
            return (index as f64 * (-schema as f64).exp2()).exp2();
        }
        match usize::try_from(index) {
            Ok(at) => custom.get(at).copied().unwrap_or(f64::INFINITY),
            Err(_) => f64::NEG_INFINITY,
        }
    };
    let [negative, positive] = [0, 1].map(|side: usize| {
        let (spans, deltas) = (spans.get(side), deltas.get(side));
        buckets(spans.map(Vec::as_slice).unwrap_or_default(), deltas.map(Vec::as_slice).unwrap_or_default())
    });
    for (index, count) in negative.iter().rev() {
        let (lower, upper) = (number(-bound(*index)), number(-bound(index - 1)));
        out.push_str(&format!(", [{lower},{upper}):{count}"));
    }
    if zero_count > 0 {
        let threshold = number(f64::from_bits(zero_threshold));
        out.push_str(&format!(", [-{threshold},{threshold}]:{zero_count}"));
    }
    for (index, count) in &positive {
        let open = if schema == CUSTOM && *index == 0 { '[' } else { '(' };
        out.push_str(&format!(", {open}{},{}]:{count}", number(bound(index - 1)), number(bound(*index))));
    }
    out.push('}');
    Ok(out)
}

/// Indexes and counts of the buckets that have any.
fn buckets(spans: &[(i64, u64)], deltas: &[i64]) -> Vec<(i64, i64)> {
    let (mut out, mut index, mut count) = (Vec::new(), 0_i64, 0_i64);
    let mut deltas = deltas.iter();
    for (offset, length) in spans {
        index += offset;
        for delta in deltas.by_ref().take(usize::try_from(*length).unwrap_or(0)) {
            count += delta;
            if count != 0 {
                out.push((index, count));
            }
            index += 1;
        }
    }
    out
}

fn span(message: &[u8]) -> Result<(i64, u64), WireError> {
    let mut span = (0, 0);
    let mut cursor = Cursor::new(message);
    while let Some(field) = cursor.next_field()? {
        match field.number {
            1 => span.0 = zigzag(field.value.varint()?),
            _ => span.1 = field.value.varint()?,
        }
    }
    Ok(span)
}

fn numbers(mut packed: &[u8], out: &mut Vec<i64>) -> Result<(), WireError> {
    while !packed.is_empty() {
        let (value, used) = read_varint(packed)?;
        out.push(zigzag(value));
        packed = packed.get(used..).unwrap_or_default();
    }
    Ok(())
}

fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

fn double(bytes: &[u8]) -> f64 {
    bytes.try_into().map_or(0.0, f64::from_le_bytes)
}

/// Prometheus shows bounds with an exponent where they are very large or small.
fn number(value: f64) -> String {
    let mut out = String::new();
    match value.abs() {
        size if size != 0.0 && size.is_finite() && !(1e-4..1e21).contains(&size) => {
            crate::prometheus::text::sample_double(value.to_bits(), &mut out);
        }
        _ => plain_double(value, &mut out),
    }
    out
}
