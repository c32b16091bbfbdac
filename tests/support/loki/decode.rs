//! From HTTP to streams, as Loki reads a push.

use std::collections::BTreeSet;
use std::io::Read;

use http::HeaderMap;
use prost::Message;
use serde_json::Value;

use super::{Findings, Labels, Limits, labels, wire};
use crate::support::prometheus::wire::walk;

/// A stream of a request; labels sorted, those without a value gone.
#[derive(Debug, Clone, PartialEq)]
pub struct Stream {
    /// As it was sent.
    pub text: String,
    pub labels: Labels,
    pub entries: Vec<Entry>,
}

/// An entry; the time is nanoseconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry {
    pub time: i64,
    pub line: String,
    /// In the order of the wire.
    pub metadata: Labels,
}

impl Entry {
    /// The metadata as Loki keeps it: normalised names, each once, in order.
    ///
    /// # Errors
    /// The name that cannot be normalised.
    pub fn normalised(mut self) -> Result<Entry, String> {
        for (name, value) in &mut self.metadata {
            *name = labels::normalise(name).ok_or_else(|| name.clone())?;
            *value = value.replace('\u{fffd}', " ");
        }
        // Of two with one name the first stays.
        self.metadata.sort_by(|a, b| a.0.cmp(&b.0));
        self.metadata.dedup_by(|later, first| later.0 == first.0);
        Ok(self)
    }

    /// What counts against rates.
    pub fn bytes(&self) -> usize {
        self.line.len() + self.metadata_bytes()
    }

    pub fn metadata_bytes(&self) -> usize {
        self.metadata.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.metadata.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// Why a request is refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub message: String,
}

impl Refusal {
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        Refusal { status, message: message.into() }
    }
}

/// The streams of a request, and its bytes before compression.
#[derive(Debug)]
pub struct Decoded {
    pub streams: Vec<Stream>,
    pub bytes: usize,
}

/// Reads a request; what a careful client would not have sent goes into `odd`.
///
/// # Errors
/// What Loki answers instead of taking it.
pub fn request(
    limits: &Limits,
    headers: &HeaderMap,
    body: &[u8],
    odd: &mut Findings,
) -> Result<Decoded, Refusal> {
    let header = |name: &str| headers.get(name).map_or("", |v| v.to_str().unwrap_or("?"));
    if body.len() > limits.body {
        return Err(too_large(body.len(), limits.body));
    }
    let plain = match header("content-encoding") {
        "" | "snappy" => body.to_vec(),
        "gzip" => inflate(flate2::read::GzDecoder::new(body), limits.decompressed)?,
        "deflate" => inflate(flate2::read::DeflateDecoder::new(body), limits.decompressed)?,
        other => return Err(Refusal::new(400, format!("Content-Encoding {other:?} not supported"))),
    };
    let media = header("content-type").split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    if media.is_empty() {
        return Err(Refusal::new(400, "mime: no media type"));
    }
    if media == "application/json" {
        let bytes = plain.len();
        return Ok(Decoded { streams: from_json(&plain, odd)?, bytes });
    }
    if media != "application/x-protobuf" {
        odd.add("content-type", &media);
    }
    if header("content-encoding") == "gzip" {
        odd.add("content-encoding", "gzip around snappy");
    }
    let size = snap::raw::decompress_len(&plain).map_err(|e| Refusal::new(400, e.to_string()))?;
    if size > limits.decompressed {
        return Err(too_large(size, limits.decompressed));
    }
    let message =
        snap::raw::Decoder::new().decompress_vec(&plain).map_err(|e| Refusal::new(400, e.to_string()))?;
    let push =
        wire::PushRequest::decode(&message[..]).map_err(|e| Refusal::new(400, format!("proto: {e}")))?;
    walk(&wire::PUSH, &message, odd);
    let streams = push.streams.into_iter().map(|stream| from_wire(stream, odd)).collect::<Result<_, _>>()?;
    Ok(Decoded { streams, bytes: message.len() })
}

/// What a careful client would not send, of a request that can be read.
pub fn find_odd(streams: &[Stream], odd: &mut Findings) {
    let mut seen = BTreeSet::new();
    for stream in streams {
        let text = &stream.text;
        if !seen.insert(&stream.labels) {
            odd.add("stream-repeated", text);
        }
        if stream.entries.is_empty() {
            odd.add("stream-empty", text);
        }
        if let Some(pair) = stream.entries.windows(2).find(|pair| pair[0].time > pair[1].time) {
            odd.add("entries-unsorted", format!("{text}: {} before {}", pair[0].time, pair[1].time));
        }
        for entry in &stream.entries {
            let mut names = BTreeSet::new();
            for (name, _) in &entry.metadata {
                if !names.insert(name) {
                    odd.add("metadata-repeated", format!("{text}: {name}"));
                }
                if labels::normalise(name).is_some_and(|normal| normal != *name) {
                    odd.add("metadata-name", format!("{text}: {name}"));
                }
            }
        }
    }
}

fn too_large(size: usize, limit: usize) -> Refusal {
    Refusal::new(413, format!("request body too large: {size} bytes, limit: {limit} bytes"))
}

fn inflate(from: impl Read, limit: usize) -> Result<Vec<u8>, Refusal> {
    let mut plain = Vec::new();
    let read = from.take(limit as u64 + 1).read_to_end(&mut plain);
    read.map_err(|e| Refusal::new(400, e.to_string()))?;
    if plain.len() > limit { Err(too_large(plain.len(), limit)) } else { Ok(plain) }
}

/// Labels from their text, with what is odd about it.
fn read_labels(text: &[u8], odd: &mut Findings) -> Result<Labels, Refusal> {
    let shown = String::from_utf8_lossy(text);
    let mut pairs = labels::parse(text)
        .map_err(|why| Refusal::new(400, format!("couldn't parse labels: {why}: {shown}")))?;
    if !pairs.is_sorted() {
        odd.add("labels-unsorted", &shown);
    }
    for (name, value) in &pairs {
        if value.is_empty() {
            odd.add("label-empty", format!("{name} in {shown}"));
        }
        if value.contains('\u{fffd}') && std::str::from_utf8(text).is_err() {
            odd.add("label-utf8", &shown);
        }
        if labels::normalise(name).is_some_and(|normal| normal != *name) {
            odd.add("label-name", format!("{name} in {shown}"));
        }
    }
    pairs.retain(|(_, value)| !value.is_empty());
    pairs.sort();
    Ok(pairs)
}

fn from_wire(stream: wire::Stream, odd: &mut Findings) -> Result<Stream, Refusal> {
    let labels = read_labels(&stream.labels, odd)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut entries = Vec::with_capacity(stream.entries.len());
    for entry in &stream.entries {
        let at = entry.timestamp.unwrap_or_default();
        if !(0..1_000_000_000).contains(&at.nanos) {
            return Err(Refusal::new(400, format!("timestamp: nanos not in range [0, 1e9): {}", at.nanos)));
        }
        if entry.timestamp.is_none() {
            odd.add("entry-without-time", text(&stream.labels));
        }
        let time = at.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(at.nanos));
        let metadata = entry.metadata.iter().map(|p| (text(&p.name), text(&p.value))).collect();
        entries.push(Entry { time, line: text(&entry.line), metadata });
    }
    Ok(Stream { text: text(&stream.labels), labels, entries })
}

fn from_json(body: &[u8], odd: &mut Findings) -> Result<Vec<Stream>, Refusal> {
    let wrong = |what: String| Refusal::new(400, what);
    let root: Value = serde_json::from_slice(body).map_err(|e| wrong(e.to_string()))?;
    let root = root.as_object().ok_or_else(|| wrong("not an object".into()))?;
    if let Some(name) = root.keys().find(|name| *name != "streams") {
        odd.add("json-unknown", name);
    }
    let none = Vec::new();
    let list = match root.get("streams") {
        None | Some(Value::Null) => &none,
        Some(streams) => streams.as_array().ok_or_else(|| wrong("streams: not an array".into()))?,
    };
    let mut streams = Vec::new();
    for stream in list {
        let stream = stream.as_object().ok_or_else(|| wrong("stream: not an object".into()))?;
        if let Some(name) = stream.keys().find(|name| !["stream", "values"].contains(&name.as_str())) {
            odd.add("json-unknown", name);
        }
        let text = labels::write(&json_pairs(stream.get("stream"), "stream")?);
        let labels = read_labels(text.as_bytes(), odd)?;
        let values = match stream.get("values") {
            None => &none,
            Some(values) => values.as_array().ok_or_else(|| wrong("values: not an array".into()))?,
        };
        let entries = values.iter().map(json_entry).collect::<Result<_, _>>()?;
        streams.push(Stream { text, labels, entries });
    }
    Ok(streams)
}

fn json_entry(value: &Value) -> Result<Entry, Refusal> {
    let wrong = |what: &str| Refusal::new(400, format!("{what}: {value}"));
    let (time, line, metadata) = match value.as_array().map(Vec::as_slice) {
        Some([time, line]) => (time, line, Vec::new()),
        Some([time, line, metadata]) => (time, line, json_pairs(Some(metadata), "structured metadata")?),
        _ => return Err(wrong("an entry is an array of two or three")),
    };
    let time = time.as_str().ok_or_else(|| wrong("the time is not a string"))?;
    let time = time.parse().map_err(|_| wrong("the time is not nanoseconds"))?;
    let line = line.as_str().ok_or_else(|| wrong("the line is not a string"))?.to_owned();
    Ok(Entry { time, line, metadata })
}

fn json_pairs(value: Option<&Value>, what: &str) -> Result<Labels, Refusal> {
    let object = value.and_then(Value::as_object);
    let object = object.ok_or_else(|| Refusal::new(400, format!("{what}: not an object")))?;
    let pair = |(name, value): (&String, &Value)| {
        let text = value.as_str().map(str::to_owned);
        let text = text.ok_or_else(|| Refusal::new(400, format!("{what}: {name} is not a string")))?;
        Ok((name.clone(), text))
    };
    object.iter().map(pair).collect()
}
