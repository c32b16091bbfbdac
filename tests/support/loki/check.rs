//! What Loki looks at before it stores anything: labels, lines, metadata and times, against limits.

use std::collections::BTreeMap;
use std::time::Duration;

use super::decode::{Entry, Refusal, Stream};
use super::{Labels, Poison, labels, now};

/// The limits of a tenant; the default is Loki's.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Names of a stream, `service_name` not counted.
    pub label_names: usize,
    /// Bytes.
    pub label_name: usize,
    /// Bytes.
    pub label_value: usize,
    /// Bytes.
    pub line: usize,
    /// Longer lines are cut instead of refused.
    pub truncate: bool,
    pub allow_metadata: bool,
    /// Bytes of names and values.
    pub metadata_bytes: usize,
    pub metadata_pairs: usize,
    /// Older entries are refused.
    pub oldest: Option<Duration>,
    /// Entries further in the future are refused.
    pub future: Duration,
    /// How far behind the newest entry of its stream one may be.
    pub window: Duration,
    /// Bytes a second of a tenant, and at once.
    pub rate: (usize, usize),
    /// Bytes a second of a stream, and at once.
    pub stream_rate: (usize, usize),
    /// A stream over its rate loses all its entries of the request, as with automatic sharding.
    pub whole_stream: bool,
    /// Streams of a tenant.
    pub streams: usize,
    /// Bytes of a request as sent.
    pub body: usize,
    /// Bytes of a request, decompressed.
    pub decompressed: usize,
    /// Nothing is stored, and this is the answer.
    pub blocked: Option<u16>,
    /// A stream without `service_name` gets one.
    pub discover_service: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            label_names: 15,
            label_name: 1024,
            label_value: 2048,
            line: 256 << 10,
            truncate: false,
            allow_metadata: true,
            metadata_bytes: 64 << 10,
            metadata_pairs: 128,
            oldest: Some(Duration::from_secs(7 * 24 * 3600)),
            future: Duration::from_secs(600),
            window: Duration::from_secs(3600),
            rate: (4 << 20, 6 << 20),
            stream_rate: (3 << 20, 15 << 20),
            whole_stream: true,
            streams: 5000,
            body: 100 << 20,
            decompressed: 5000 << 20,
            blocked: None,
            discover_service: true,
        }
    }
}

/// Where a service name is taken from, first come first.
const SERVICE: [&str; 13] = [
    "service",
    "app",
    "application",
    "app_name",
    "name",
    "app_kubernetes_io_name",
    "container",
    "container_name",
    "k8s_container_name",
    "component",
    "workload",
    "job",
    "k8s_job_name",
];

/// What is good of a request, and what was wrong with the rest.
#[derive(Debug, Default)]
pub struct Checked {
    pub streams: Vec<Stream>,
    pub errors: Errors,
}

/// Errors of one request, equal ones together.
#[derive(Debug, Default)]
pub struct Errors(BTreeMap<String, usize>);

impl Errors {
    fn add(&mut self, message: String) {
        *self.0.entry(message).or_default() += 1;
    }

    /// As the answer has them.
    pub fn text(&self) -> Option<String> {
        let one = |(message, count): (&String, &usize)| match count {
            1 => message.clone(),
            _ => format!("{count} errors like: {message}"),
        };
        (!self.0.is_empty()).then(|| self.0.iter().map(one).collect::<Vec<_>>().join("; "))
    }
}

/// Who sends, by the header.
///
/// # Errors
/// No tenant, or one that cannot be.
pub fn tenant(auth: bool, header: Option<&str>) -> Result<String, Refusal> {
    if !auth {
        return Ok(super::SINGLE.to_owned());
    }
    let Some(tenant) = header.filter(|t| !t.is_empty()) else {
        return Err(Refusal::new(401, "no org id"));
    };
    let wrong = |why: String| Err(Refusal::new(400, why));
    if tenant.contains('|') {
        return wrong("multiple org IDs present".into());
    }
    if tenant.len() > 150 {
        return wrong("tenant ID is too long: max 150 characters".into());
    }
    if tenant == "." || tenant == ".." {
        return wrong("tenant ID is '.' or '..'".into());
    }
    match tenant.chars().find(|c| !c.is_ascii_alphanumeric() && !"!-_.*'()".contains(*c)) {
        Some(c) => wrong(format!("tenant ID '{tenant}' contains unsupported character '{c}'")),
        None => Ok(tenant.to_owned()),
    }
}

/// Sorts the good from the bad.
///
/// # Errors
/// What takes the whole request with it: no streams, and the entry that nothing is said about but 500.
pub fn streams(
    limits: &Limits,
    tenant: &str,
    all: Vec<Stream>,
    poison: Option<&Poison>,
) -> Result<Checked, Refusal> {
    if all.is_empty() {
        return Err(Refusal::new(422, "error at least one valid stream is required for ingestion"));
    }
    let mut checked = Checked::default();
    for mut stream in all.into_iter().filter(|stream| !stream.entries.is_empty()) {
        if let Err(message) = check_labels(limits, &stream) {
            checked.errors.add(message);
            continue;
        }
        if limits.discover_service {
            discover_service(&mut stream.labels);
        }
        let mut good = Vec::with_capacity(stream.entries.len());
        for mut entry in std::mem::take(&mut stream.entries) {
            if limits.truncate && entry.line.len() > limits.line {
                let end = (0..=limits.line).rev().find(|at| entry.line.is_char_boundary(*at)).unwrap_or(0);
                entry.line.truncate(end);
            }
            if let Err(message) = check_entry(limits, &stream.text, &entry) {
                checked.errors.add(message);
                continue;
            }
            if poison.is_some_and(|poison| poison(tenant, &stream.labels, &entry)) {
                return Err(Refusal::new(500, "poisoned by the test"));
            }
            let entry = entry.normalised().map_err(|name| {
                Refusal::new(500, format!("normalization for label name {name:?} resulted in invalid name"))
            })?;
            good.push(entry);
        }
        if !good.is_empty() {
            stream.entries = good;
            checked.streams.push(stream);
        }
    }
    Ok(checked)
}

/// Gives a stream the service name that Loki would.
pub fn discover_service(pairs: &mut Labels) {
    let get = |name: &str| pairs.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
    if get("service_name").is_some() {
        return;
    }
    let name = SERVICE.iter().find_map(|name| get(name)).unwrap_or_else(|| "unknown_service".into());
    pairs.push(("service_name".into(), name));
    pairs.sort();
}

fn check_labels(limits: &Limits, stream: &Stream) -> Result<(), String> {
    let (text, pairs) = (&stream.text, &stream.labels);
    if pairs.is_empty() {
        return Err("error at least one label pair is required per stream".into());
    }
    let count = pairs.iter().filter(|(name, _)| name != "service_name").count();
    if count > limits.label_names {
        let limit = limits.label_names;
        let message = format!("entry for stream '{text}' has {count} label names; limit {limit}");
        return Err(message);
    }
    for (name, value) in pairs {
        if name.len() > limits.label_name {
            let message = format!("stream '{text}' has label name too long: '{name}'");
            return Err(message);
        }
        if value.len() > limits.label_value {
            let message = format!("stream '{text}' has label value too long: '{value}'");
            return Err(message);
        }
    }
    match pairs.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => {
            let message = format!("stream '{text}' has duplicate label name: '{}'", pair[0].0);
            Err(message)
        }
        None => Ok(()),
    }
}

fn check_entry(limits: &Limits, text: &str, entry: &Entry) -> Result<(), String> {
    let (now, time) = (i128::from(now()), i128::from(entry.time));
    let nanos = |limit: Duration| limit.as_nanos() as i128;
    if let Some(oldest) = limits.oldest.map(|age| now - nanos(age)).filter(|oldest| time < *oldest) {
        let message = format!(
            "entry for stream '{text}' has timestamp too old: {time}, oldest acceptable timestamp is: {oldest}"
        );
        return Err(message);
    }
    if time > now + nanos(limits.future) {
        let message = format!("entry for stream '{text}' has timestamp too new: {time}");
        return Err(message);
    }
    let (size, limit) = (entry.line.len(), limits.line);
    if size > limit {
        let message = format!(
            "Max entry size '{limit}' bytes exceeded for stream '{text}' while adding an entry with length '{size}' \
             bytes"
        );
        return Err(message);
    }
    if entry.metadata.is_empty() {
        return Ok(());
    }
    if !limits.allow_metadata {
        let message = format!("stream '{text}' includes structured metadata, but this feature is disallowed");
        return Err(message);
    }
    let (size, limit) = (entry.metadata_bytes(), limits.metadata_bytes);
    if size > limit {
        let message = format!(
            "stream '{text}' has structured metadata too large: '{size}' bytes, limit: '{limit}' bytes"
        );
        return Err(message);
    }
    let (count, limit) = (entry.metadata.len(), limits.metadata_pairs);
    if count > limit {
        let message =
            format!("stream '{text}' has too many structured metadata labels: '{count}', limit: '{limit}'");
        return Err(message);
    }
    Ok(())
}

/// The level that Loki would find, from labels, metadata and the severity number; it is not looked for in the line.
pub fn detected_level(pairs: &Labels, entry: &Entry) -> String {
    let of = |name: &str| {
        let all = entry.metadata.iter().chain(pairs);
        all.into_iter().find(|(n, _)| n == name).map(|(_, value)| value.clone())
    };
    let level_like = |name: &str| {
        ["level", "severity", "lvl", "severity_text"].contains(&name.to_ascii_lowercase().as_str())
    };
    let like = |from: &Labels| from.iter().find(|(n, _)| level_like(n)).map(|(_, value)| value.clone());
    let named = of("detected_level").or_else(|| like(pairs)).or_else(|| like(&entry.metadata));
    if let Some(level) = named {
        return match level.to_ascii_lowercase().as_str() {
            "trace" | "trc" => "trace".into(),
            "debug" | "dbg" => "debug".into(),
            "info" | "inf" | "information" => "info".into(),
            "warn" | "wrn" | "warning" => "warn".into(),
            "error" | "err" => "error".into(),
            "critical" => "critical".into(),
            "fatal" => "fatal".into(),
            _ => level,
        };
    }
    let number = of("severity_number").and_then(|n| n.parse::<u32>().ok());
    let names = ["trace", "debug", "info", "warn", "error", "fatal"];
    match number {
        Some(n @ 1..=24) => names[(n as usize - 1) / 4].to_owned(),
        _ => "unknown".to_owned(),
    }
}

/// The text of a stream in messages of what comes after the checks.
pub fn name_of(pairs: &Labels) -> String {
    labels::write(pairs)
}
