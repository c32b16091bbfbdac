//! What a remote write request holds, read from its bytes.

use super::{Labels, histogram};
use crate::pdata::wire::{Cursor, Value, WireError, read_varint};
use crate::prometheus::native::STALE;
use crate::prometheus::remote::{Version, WriteBody};
use crate::prometheus::text::sample_double;

/// One sample of one series.
pub struct Sample {
    /// The labels, the name among them, sorted.
    pub labels: Labels,
    /// The value as text.
    pub value: String,
    /// Exemplars, and their values as text.
    pub exemplars: Vec<(Labels, String)>,
}

/// The samples of a request, and how many of them, from the first, belong to data points.
///
/// # Errors
/// It is no remote write request.
pub fn samples(body: &WriteBody) -> Result<(Vec<Sample>, usize), WireError> {
    let message = body.message().map_err(|_| WireError::Truncated)?;
    let (symbols_field, series_field) = match body.version() {
        Version::V1 => (0, 1),
        Version::V2 => (4, 5),
    };
    let mut symbols = Vec::new();
    let (mut samples, mut items) = (Vec::new(), 0);
    let mut cursor = Cursor::new(&message);
    while let Some(field) = cursor.next_field()? {
        if field.number == symbols_field {
            symbols.push(field.value.bytes()?);
        } else if field.number == series_field {
            samples.push(sample(body.version(), field.value.bytes()?, &symbols)?);
            items += usize::from(field.end <= body.items_len());
        }
    }
    Ok((samples, items))
}

fn sample(version: Version, series: &[u8], symbols: &[&[u8]]) -> Result<Sample, WireError> {
    let mut sample = Sample { labels: Vec::new(), value: String::new(), exemplars: Vec::new() };
    let mut cursor = Cursor::new(series);
    while let Some(field) = cursor.next_field()? {
        let bytes = field.value.bytes()?;
        match (field.number, version) {
            (1, _) => labels(version, bytes, symbols, &mut sample.labels)?,
            (2, _) => sample.value = number(bytes, 1)?,
            (4, Version::V1) | (3, Version::V2) => sample.value = histogram::text(bytes)?,
            (3, Version::V1) | (4, Version::V2) => {
                let mut own = Vec::new();
                let mut parts = Cursor::new(bytes);
                while let Some(part) = parts.next_field()? {
                    if let (1, Value::Bytes(bytes)) = (part.number, part.value) {
                        labels(version, bytes, symbols, &mut own)?;
                    }
                }
                sample.exemplars.push((own, number(bytes, 2)?));
            }
            _ => {}
        }
    }
    Ok(sample)
}

/// One label in 1.0, all of them in 2.0.
fn labels(version: Version, bytes: &[u8], symbols: &[&[u8]], out: &mut Labels) -> Result<(), WireError> {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    if version == Version::V1 {
        let mut label = (String::new(), String::new());
        let mut cursor = Cursor::new(bytes);
        while let Some(field) = cursor.next_field()? {
            match field.number {
                1 => label.0 = text(field.value.bytes()?),
                _ => label.1 = text(field.value.bytes()?),
            }
        }
        out.push(label);
        return Ok(());
    }
    let mut rest = bytes;
    let mut next = || -> Result<Option<String>, WireError> {
        if rest.is_empty() {
            return Ok(None);
        }
        let (at, used) = read_varint(rest)?;
        rest = rest.get(used..).unwrap_or_default();
        let symbol = usize::try_from(at).ok().and_then(|at| symbols.get(at)).ok_or(WireError::Truncated)?;
        Ok(Some(text(symbol)))
    };
    while let Some(name) = next()? {
        out.push((name, next()?.unwrap_or_default()));
    }
    Ok(())
}

/// The double in a field, as text.
fn number(message: &[u8], at: u32) -> Result<String, WireError> {
    let mut bits = 0;
    let mut cursor = Cursor::new(message);
    while let Some(field) = cursor.next_field()? {
        if field.number == at {
            bits = field.value.fixed64()?;
        }
    }
    if bits == STALE {
        return Ok("(stale)".to_owned());
    }
    let mut out = String::new();
    sample_double(bits, &mut out);
    Ok(out)
}
