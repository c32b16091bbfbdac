//! One request as it is sent, that can be cut and shown as JSON.

use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use bytes::Bytes;

use super::labels::parse_labels;
use crate::exporters::delivery::sharded::ShardBody;
use crate::pdata::Tenant;
use crate::pdata::wire::{Cursor, WireError, put_bytes};
use crate::prometheus::text::json_string;

/// One request: some streams of one tenant.
#[derive(Debug)]
pub struct LokiBody {
    tenant: Option<Tenant>,
    /// The message as a snappy block.
    block: Bytes,
    /// For each entry of the message, when it came among them; empty if they stand as they came.
    order: Vec<u32>,
    items: usize,
    json: OnceLock<Bytes>,
    attempts: AtomicU32,
    /// Whether it was cut because the destination fails on it.
    pub(crate) suspect: bool,
    /// When the destination first failed on it, or on what it was cut from.
    pub(crate) failed: OnceLock<Instant>,
    /// How often it failed since.
    pub(crate) failures: AtomicU32,
}

/// One stream of a message: labels and entries.
type StreamView<'a> = (&'a [u8], Vec<&'a [u8]>);

impl LokiBody {
    pub(super) fn new(tenant: Option<Tenant>, block: Bytes, order: Vec<u32>, items: usize) -> Self {
        LokiBody {
            tenant,
            block,
            order,
            items,
            json: OnceLock::new(),
            attempts: AtomicU32::new(0),
            suspect: false,
            failed: OnceLock::new(),
            failures: AtomicU32::new(0),
        }
    }

    /// Whose data it is, if it is said.
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_ref().map(Tenant::name)
    }

    /// The message as a snappy block.
    pub fn wire(&self) -> &Bytes {
        &self.block
    }

    /// The message before compression.
    ///
    /// # Errors
    /// It is no block of ours.
    pub fn message(&self) -> Result<Vec<u8>, snap::Error> {
        snap::raw::Decoder::new().decompress_vec(&self.block)
    }

    /// Counts an attempt; gives how many there were before.
    pub fn attempt(&self) -> u32 {
        self.attempts.fetch_add(1, Ordering::Relaxed)
    }

    /// The same request as JSON, made once.
    ///
    /// # Errors
    /// It is no message of ours.
    pub fn json(&self, gzip: bool) -> Result<Bytes, WireError> {
        if let Some(json) = self.json.get() {
            return Ok(json.clone());
        }
        let text = self.to_json()?;
        let bytes: Bytes = if gzip {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            let done = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish());
            done.map_err(|_| WireError::Truncated)?.into()
        } else {
            text.into_bytes().into()
        };
        Ok(self.json.get_or_init(|| bytes).clone())
    }

    fn to_json(&self) -> Result<String, WireError> {
        let message = self.message().map_err(|_| WireError::Truncated)?;
        let mut out = String::with_capacity(message.len() + message.len() / 2);
        out.push_str("{\"streams\":[");
        for (i, (labels, entries)) in streams(&message)?.into_iter().enumerate() {
            out.push_str(if i > 0 { ",{\"stream\":{" } else { "{\"stream\":{" });
            let labels = parse_labels(&String::from_utf8_lossy(labels)).unwrap_or_default();
            put_object(labels.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())), &mut out);
            out.push_str("},\"values\":[");
            for (i, entry) in entries.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                json_entry(entry, &mut out)?;
            }
            out.push_str("]}");
        }
        out.push_str("]}");
        Ok(out)
    }

    /// The entries that pass, as a request.
    fn part(&self, message: &[u8], keep: impl Fn(u32) -> bool) -> Result<LokiBody, WireError> {
        let (mut out, mut order) = (Vec::new(), Vec::new());
        let (mut at, mut stream) = (0, Vec::new());
        for (labels, entries) in streams(message)? {
            stream.clear();
            put_bytes(&mut stream, 1, labels);
            let empty = stream.len();
            for entry in entries {
                let came =
                    if self.order.is_empty() { Some(at) } else { self.order.get(at as usize).copied() };
                at += 1;
                if let Some(came) = came.filter(|came| keep(*came)) {
                    order.push(came);
                    put_bytes(&mut stream, 2, entry);
                }
            }
            if stream.len() > empty {
                put_bytes(&mut out, 1, &stream);
            }
        }
        let first = order.iter().min().copied().unwrap_or(0);
        order.iter_mut().for_each(|came| *came -= first);
        let items = order.len();
        if order.is_sorted() {
            order = Vec::new();
        }
        let block = snap::raw::Encoder::new().compress_vec(&out).map_err(|_| WireError::Truncated)?;
        let mut part = LokiBody::new(self.tenant.clone(), block.into(), order, items);
        if let Some(failed) = self.failed.get() {
            part.failed = OnceLock::from(*failed);
            part.suspect = true;
        }
        Ok(part)
    }
}

impl ShardBody for LokiBody {
    fn items(&self) -> usize {
        self.items
    }

    fn halve(self) -> Result<[Self; 2], Self> {
        let middle = (self.items / 2) as u32;
        if middle == 0 {
            return Err(self);
        }
        let Ok(message) = self.message() else { return Err(self) };
        let halves = (self.part(&message, |came| came < middle), self.part(&message, |came| came >= middle));
        match halves {
            (Ok(first), Ok(second)) if first.items + second.items == self.items => Ok([first, second]),
            _ => Err(self),
        }
    }

    fn tenant(&self) -> Option<&Tenant> {
        self.tenant.as_ref()
    }

    fn size(&self) -> usize {
        self.block.len() + 4 * self.order.len()
    }
}

/// The streams of a message.
fn streams(message: &[u8]) -> Result<Vec<StreamView<'_>>, WireError> {
    let mut out = Vec::new();
    let mut cursor = Cursor::new(message);
    while let Some(field) = cursor.next_field()? {
        let (mut labels, mut entries): StreamView<'_> = (&[], Vec::new());
        let mut inner = Cursor::new(field.value.bytes()?);
        while let Some(field) = inner.next_field()? {
            match field.number {
                1 => labels = field.value.bytes()?,
                _ => entries.push(field.value.bytes()?),
            }
        }
        out.push((labels, entries));
    }
    Ok(out)
}

/// An entry as `["time","line",{metadata}]`.
fn json_entry(entry: &[u8], out: &mut String) -> Result<(), WireError> {
    let (mut seconds, mut nanos, mut line): (u64, u64, &[u8]) = (0, 0, &[]);
    let mut pairs: Vec<(&[u8], &[u8])> = Vec::new();
    let mut cursor = Cursor::new(entry);
    while let Some(field) = cursor.next_field()? {
        let bytes = field.value.bytes()?;
        let mut inner = Cursor::new(bytes);
        match field.number {
            1 => {
                while let Some(part) = inner.next_field()? {
                    match part.number {
                        1 => seconds = part.value.varint()?,
                        _ => nanos = part.value.varint()?,
                    }
                }
            }
            2 => line = bytes,
            _ => {
                let (mut name, mut value): (&[u8], &[u8]) = (&[], &[]);
                while let Some(part) = inner.next_field()? {
                    match part.number {
                        1 => name = part.value.bytes()?,
                        _ => value = part.value.bytes()?,
                    }
                }
                pairs.push((name, value));
            }
        }
    }
    let time = u128::from(seconds) * 1_000_000_000 + u128::from(nanos);
    out.push_str("[\"");
    out.push_str(&time.to_string());
    out.push_str("\",");
    json_string(line, out);
    if !pairs.is_empty() {
        out.push_str(",{");
        put_object(pairs.into_iter(), out);
        out.push('}');
    }
    out.push(']');
    Ok(())
}

fn put_object<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>, out: &mut String) {
    for (i, (name, value)) in pairs.enumerate() {
        if i > 0 {
            out.push(',');
        }
        json_string(name, out);
        out.push(':');
        json_string(value, out);
    }
}
