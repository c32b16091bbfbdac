//! Every rule of the protocol that one request can be held against alone: headers, compression, wire format, labels,
//! samples, native histograms, exemplars, metadata.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use http::{HeaderMap, Method, Uri};
use prost::Message;

use super::histogram;
use super::wire::{self, Histogram, MetricMetadata, Request2, Sample, WriteRequest};
use super::{Exemplar, Findings, Labels, Metadata, ORDINARY_NAN, STALE, Version, now};

/// Largest request, compressed and not, that the usual receivers take.
const MAX_BYTES: usize = 32 << 20;
/// Most runes in the labels of an exemplar.
const MAX_EXEMPLAR_RUNES: usize = 128;

/// What is expected beyond the protocol itself.
#[derive(Debug, Clone)]
pub struct Rules {
    pub path: String,
    /// Headers that every request must have, with their values.
    pub headers: Vec<(&'static str, String)>,
    /// Metric and label names outside `[a-zA-Z0-9_:]` are as configured, in either version.
    pub any_names: bool,
    /// `__type__` and `__unit__` are as configured.
    pub type_and_unit_labels: bool,
    /// The earliest time, in milliseconds, at which anything under test happened.
    pub earliest: i64,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            path: "/api/v1/write".into(),
            headers: Vec::new(),
            any_names: false,
            type_and_unit_labels: false,
            // 2020: seconds, microseconds and nanoseconds taken for milliseconds are far outside.
            earliest: 1_577_836_800_000,
        }
    }
}

/// One request, of either version.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    pub version: Version,
    pub series: Vec<Part>,
    /// Metadata of its own, in 1.0.
    pub metadata: Vec<MetricMetadata>,
    /// Before compression.
    pub bytes: usize,
}

/// One time series element of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    pub labels: Labels,
    pub samples: Vec<Sample>,
    pub histograms: Vec<Histogram>,
    pub exemplars: Vec<Exemplar>,
    /// In 2.0.
    pub metadata: Option<Metadata>,
}

/// Checks a whole request; `None` when it cannot be read.
pub fn request(
    rules: &Rules,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: &[u8],
    findings: &mut Findings,
) -> Option<Decoded> {
    if method != Method::POST {
        findings.add("http-method", method);
    }
    if uri.path() != rules.path || uri.query().is_some() {
        findings.add("http-path", uri);
    }
    let version = head(rules, headers, findings);
    let message = decompress(body, findings)?;
    let table = match version? {
        Version::V1 => &wire::REQUEST_1,
        Version::V2 => &wire::REQUEST_2,
    };
    let before = findings.count();
    wire::walk(table, &message, findings);
    let sound = findings.count() == before;
    let decoded = match version? {
        Version::V1 => WriteRequest::decode(&message[..]).map(|request| from_1(request, message.len())),
        Version::V2 => Request2::decode(&message[..]).map(|request| {
            let mut own = Findings::default();
            from_2(request, message.len(), if sound { &mut *findings } else { &mut own })
        }),
    };
    match decoded {
        Ok(decoded) => {
            // Content that was not read as it was meant is no reason for more findings.
            if sound {
                content(rules, &decoded, findings);
            }
            Some(decoded)
        }
        Err(e) => {
            if sound {
                findings.add("wire-undecodable", e);
            }
            None
        }
    }
}

/// Headers; the version that they name.
fn head(rules: &Rules, headers: &HeaderMap, findings: &mut Findings) -> Option<Version> {
    let mut one = |name: &str| {
        let mut values = headers.get_all(name).iter();
        let value = values.next().map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
        if values.next().is_some() {
            findings.add("header-repeated", name);
        }
        value.unwrap_or_default()
    };
    let kind = one("content-type");
    let encoding = one("content-encoding");
    let version = one("x-prometheus-remote-write-version");
    let agent = one("user-agent");
    let length = headers.get("content-length").is_some();
    let wanted: Vec<_> = rules.headers.iter().map(|(name, want)| (*name, want, one(name))).collect();
    let said = match kind.as_str() {
        "application/x-protobuf" | "application/x-protobuf;proto=prometheus.WriteRequest" => {
            Some(Version::V1)
        }
        "application/x-protobuf;proto=io.prometheus.write.v2.Request" => Some(Version::V2),
        _ => {
            findings.add("header-content-type", format!("{kind:?}"));
            None
        }
    };
    if encoding != "snappy" {
        findings.add("header-content-encoding", format!("{encoding:?}"));
    }
    if said.is_some_and(|said| version != said.header()) {
        findings.add("header-version", format!("{version:?} with content type {kind:?}"));
    }
    if agent.trim().is_empty() {
        findings.add("header-user-agent", format!("{agent:?}"));
    }
    if !length {
        findings.add("header-content-length", "a request of known size does not say it");
    }
    for (name, want, got) in wanted {
        if *want != got {
            findings.add("header-configured", format!("{name}: {got:?} instead of {want:?}"));
        }
    }
    said
}

fn decompress(body: &[u8], findings: &mut Findings) -> Option<Vec<u8>> {
    if body.starts_with(b"\xff\x06\x00\x00sNaPpY") {
        findings.add("snappy-framed", "a block is expected");
        return None;
    }
    let length = match snap::raw::decompress_len(body) {
        Ok(length) => length,
        Err(e) => {
            findings.add("snappy-length", e);
            return None;
        }
    };
    if length > MAX_BYTES || body.len() > MAX_BYTES {
        findings.add("too-large", format!("{} bytes, {length} before compression", body.len()));
        return None;
    }
    match snap::raw::Decoder::new().decompress_vec(body) {
        Ok(message) => Some(message),
        Err(e) => {
            findings.add("snappy-invalid", e);
            None
        }
    }
}

fn from_1(request: WriteRequest, bytes: usize) -> Decoded {
    let pairs = |labels: Vec<wire::Label>| labels.into_iter().map(|l| (l.name, l.value)).collect();
    let series = request.timeseries.into_iter().map(|s| Part {
        labels: pairs(s.labels),
        samples: s.samples,
        histograms: s.histograms,
        exemplars: s
            .exemplars
            .into_iter()
            .map(|e| Exemplar { labels: pairs(e.labels), value: e.value.to_bits(), timestamp: e.timestamp })
            .collect(),
        metadata: None,
    });
    Decoded { version: Version::V1, series: series.collect(), metadata: request.metadata, bytes }
}

fn from_2(request: Request2, bytes: usize, findings: &mut Findings) -> Decoded {
    let symbols = request.symbols;
    if !request.timeseries.is_empty() && symbols.first().is_none_or(|s| !s.is_empty()) {
        findings.add("symbols-first", format!("{:?} instead of an empty string", symbols.first()));
    }
    let mut known = HashSet::new();
    for symbol in &symbols {
        if !known.insert(symbol) {
            findings.add("symbols-repeated", format!("{symbol:?}"));
        }
    }
    let mut text = |index: u32| match symbols.get(index as usize) {
        Some(text) => text.clone(),
        None => {
            findings.add("symbols-range", format!("{index} of {}", symbols.len()));
            String::new()
        }
    };
    let mut odd = 0;
    let mut pairs = |refs: &[u32], text: &mut dyn FnMut(u32) -> String| -> Labels {
        odd += refs.len() % 2;
        refs.chunks_exact(2).map(|pair| (text(pair[0]), text(pair[1]))).collect()
    };
    let mut series = Vec::with_capacity(request.timeseries.len());
    for s in request.timeseries {
        let mut exemplars = Vec::new();
        for e in s.exemplars {
            let labels = pairs(&e.labels_refs, &mut text);
            exemplars.push(Exemplar { labels, value: e.value.to_bits(), timestamp: e.timestamp });
        }
        series.push(Part {
            labels: pairs(&s.labels_refs, &mut text),
            samples: s.samples,
            histograms: s.histograms,
            exemplars,
            metadata: s.metadata.map(|m| Metadata {
                kind: m.kind,
                help: text(m.help_ref),
                unit: text(m.unit_ref),
            }),
        });
    }
    if odd > 0 {
        findings.add("symbols-odd", format!("{odd} lists of references have an odd length"));
    }
    Decoded { version: Version::V2, series, metadata: Vec::new(), bytes }
}

fn content(rules: &Rules, request: &Decoded, findings: &mut Findings) {
    if request.series.is_empty() && request.metadata.is_empty() {
        findings.add("request-empty", "neither series nor metadata");
    }
    let time = rules.earliest..=now() + 600_000;
    for part in &request.series {
        labels(rules, &part.labels, findings);
        match (part.samples.is_empty(), part.histograms.is_empty()) {
            (true, true) => findings.add("series-empty", format!("{:?}", part.labels)),
            (false, false) => findings.add("series-mixed", format!("{:?}", part.labels)),
            _ => {}
        }
        times(part, &time, findings);
        for sample in &part.samples {
            nan("sample-nan", sample.bits, findings);
        }
        for histogram in &part.histograms {
            nan("histogram-nan", histogram.sum.to_bits(), findings);
            histogram::check(histogram, findings);
        }
        exemplars(part, &time, findings);
        match &part.metadata {
            Some(metadata) if metadata.kind == 0 => {
                findings.add("metadata-type", format!("{:?}: type unspecified", part.labels));
            }
            None if request.version == Version::V2 => {
                findings.add("metadata-missing", format!("{:?}", part.labels));
            }
            _ => {}
        }
    }
    let mut families = HashSet::new();
    for metadata in &request.metadata {
        if metadata.metric_family_name.is_empty() || metadata.kind == 0 {
            findings.add("metadata-type", format!("{metadata:?}"));
        }
        if !rules.any_names && !is_legacy(&metadata.metric_family_name, true) {
            findings.add("name-charset", format!("{metadata:?}"));
        }
        if !families.insert(&metadata.metric_family_name) {
            findings.add("metadata-repeated", format!("{metadata:?}"));
        }
    }
}

fn labels(rules: &Rules, labels: &Labels, findings: &mut Findings) {
    sorted_and_full(labels, findings);
    match labels.iter().find(|(name, _)| name == "__name__") {
        None => findings.add("name-missing", format!("{labels:?}")),
        Some((_, name)) if !rules.any_names && !is_legacy(name, true) => {
            findings.add("name-charset", format!("{name:?}"));
        }
        Some(_) => {}
    }
    for (name, _) in labels {
        let allowed = rules.type_and_unit_labels && ["__type__", "__unit__"].contains(&name.as_str());
        if name.starts_with("__") && name != "__name__" && !allowed {
            findings.add("label-reserved", format!("{name:?} in {labels:?}"));
        }
        if !rules.any_names && !is_legacy(name, false) && !name.is_empty() {
            findings.add("label-charset", format!("{name:?} in {labels:?}"));
        }
    }
}

fn sorted_and_full(labels: &Labels, findings: &mut Findings) {
    for pair in labels.windows(2) {
        match pair[0].0.as_bytes().cmp(pair[1].0.as_bytes()) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => findings.add("label-repeated", format!("{labels:?}")),
            std::cmp::Ordering::Greater => findings.add("labels-unsorted", format!("{labels:?}")),
        }
    }
    for (name, value) in labels {
        if name.is_empty() {
            findings.add("label-name-empty", format!("{labels:?}"));
        }
        if value.is_empty() {
            findings.add("label-value-empty", format!("{name:?} in {labels:?}"));
        }
    }
}

/// `[a-zA-Z_][a-zA-Z0-9_]*`, in metric names also with `:`.
fn is_legacy(name: &str, of_metric: bool) -> bool {
    let letter = |b: u8| b.is_ascii_alphabetic() || b == b'_' || of_metric && b == b':';
    name.bytes().next().is_some_and(letter) && name.bytes().all(|b| letter(b) || b.is_ascii_digit())
}

fn times(part: &Part, plausible: &RangeInclusive<i64>, findings: &mut Findings) {
    let samples = part.samples.iter().map(|s| (s.timestamp, s.start_timestamp));
    let histograms = part.histograms.iter().map(|h| (h.timestamp, h.start_timestamp));
    let mut last = i64::MIN;
    for (time, start) in samples.chain(histograms) {
        if !plausible.contains(&time) {
            findings.add("time-implausible", format!("{time} in {:?}", part.labels));
        }
        if start != 0 && (start > time || !plausible.contains(&start)) {
            findings.add("start-implausible", format!("{start}, sample at {time}, in {:?}", part.labels));
        }
        if time <= last {
            findings.add("order-in-request", format!("{time} after {last} in {:?}", part.labels));
        }
        last = time;
    }
}

fn nan(rule: &'static str, bits: u64, findings: &mut Findings) {
    if f64::from_bits(bits).is_nan() && ![ORDINARY_NAN, STALE].contains(&bits) {
        findings.add(rule, format!("bits {bits:#x}"));
    }
}

fn exemplars(part: &Part, plausible: &RangeInclusive<i64>, findings: &mut Findings) {
    let mut last = i64::MIN;
    for exemplar in &part.exemplars {
        sorted_and_full(&exemplar.labels, findings);
        let runes: usize =
            exemplar.labels.iter().map(|(name, value)| name.chars().count() + value.chars().count()).sum();
        if runes > MAX_EXEMPLAR_RUNES {
            findings.add("exemplar-too-long", format!("{runes} runes in {:?}", exemplar.labels));
        }
        if !plausible.contains(&exemplar.timestamp) {
            findings.add("exemplar-time", format!("{} in {:?}", exemplar.timestamp, part.labels));
        }
        if exemplar.timestamp < last {
            findings.add("exemplar-order", format!("{} after {last}", exemplar.timestamp));
        }
        last = exemplar.timestamp;
        nan("exemplar-nan", exemplar.value, findings);
        if exemplar.value == STALE {
            findings.add("exemplar-nan", "a stale marker");
        }
    }
}
