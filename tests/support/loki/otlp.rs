//! Loki's OTLP endpoint: its quirks over HTTP, and how a log record becomes an entry, written as plainly as can be.
//! What an agent pushes by itself is compared with this.

use std::collections::BTreeMap;
use std::io::Read;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::HeaderMap;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message;

#[allow(unused_imports, reason = "each test uses its part")]
pub use super::check::discover_service;
use super::decode::{Decoded, Entry, Refusal, Stream};
use super::{Labels, Limits, labels, now};

/// Resource attributes that become labels at a Loki that nobody has configured.
pub const INDEX: [&str; 18] = [
    "service.name",
    "service.namespace",
    "service.instance.id",
    "deployment.environment",
    "deployment.environment.name",
    "cloud.region",
    "cloud.availability_zone",
    "k8s.cluster.name",
    "k8s.namespace.name",
    "k8s.pod.name",
    "k8s.container.name",
    "container.name",
    "k8s.replicaset.name",
    "k8s.deployment.name",
    "k8s.statefulset.name",
    "k8s.daemonset.name",
    "k8s.cronjob.name",
    "k8s.job.name",
];

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// An error as OTLP has it.
pub fn status(message: &str) -> Vec<u8> {
    Status { code: 0, message: message.to_owned() }.encode_to_vec()
}

/// Reads a request.
///
/// # Errors
/// What the endpoint answers instead of taking it.
pub fn request(limits: &Limits, headers: &HeaderMap, body: &[u8]) -> Result<Decoded, Refusal> {
    let header = |name: &str| headers.get(name).map_or("", |v| v.to_str().unwrap_or("?"));
    let wrong = |e: String| Refusal::new(400, e);
    if body.len() > limits.body {
        return Err(Refusal::new(413, "request body too large"));
    }
    let mut plain = Vec::new();
    match header("content-encoding") {
        "" => plain = body.to_vec(),
        "gzip" => drop(
            flate2::read::GzDecoder::new(body).read_to_end(&mut plain).map_err(|e| wrong(e.to_string()))?,
        ),
        "zstd" => plain = zstd::stream::decode_all(body).map_err(|e| wrong(e.to_string()))?,
        "lz4" => drop(
            lz4_flex::frame::FrameDecoder::new(body)
                .read_to_end(&mut plain)
                .map_err(|e| wrong(e.to_string()))?,
        ),
        other => return Err(wrong(format!("unsupported content encoding {other}"))),
    }
    let request = match header("content-type") {
        "application/x-protobuf" => {
            ExportLogsServiceRequest::decode(&plain[..]).map_err(|e| wrong(e.to_string()))?
        }
        "application/json" => serde_json::from_slice(&plain).map_err(|e| wrong(e.to_string()))?,
        other => return Err(wrong(format!("content type {other:?} is not supported"))),
    };
    let streams = streams(&request, &INDEX)?;
    if streams.is_empty() {
        return Err(Refusal::new(422, "error at least one valid stream is required for ingestion"));
    }
    Ok(Decoded { streams, bytes: plain.len() })
}

/// What a request becomes when the resource attributes in `index` are labels; streams in the order of their labels.
///
/// # Errors
/// A name that cannot be normalised.
pub fn streams(request: &ExportLogsServiceRequest, index: &[&str]) -> Result<Vec<Stream>, Refusal> {
    let mut found: BTreeMap<Labels, Vec<Entry>> = BTreeMap::new();
    for resource_logs in &request.resource_logs {
        let attributes = resource_logs.resource.as_ref().map_or(&[][..], |r| &r.attributes);
        let (indexed, others): (Vec<_>, Vec<_>) =
            attributes.iter().cloned().partition(|kv| index.contains(&kv.key.as_str()));
        let mut pairs: BTreeMap<String, String> = flatten(&indexed)?.into_iter().collect();
        pairs.retain(|_, value| !value.is_empty());
        if pairs.is_empty() {
            pairs.insert("service_name".into(), "unknown_service".into());
        }
        let of_resource = flatten(&others)?;
        for scope_logs in &resource_logs.scope_logs {
            let mut of_scope = Labels::new();
            if let Some(scope) = &scope_logs.scope {
                of_scope = flatten(&scope.attributes)?;
                let dropped = scope.dropped_attributes_count;
                let fields = [
                    ("scope_name", scope.name.clone()),
                    ("scope_version", scope.version.clone()),
                    ("scope_dropped_attributes_count", decimal(u64::from(dropped))),
                ];
                put(&mut of_scope, &fields);
            }
            for record in &scope_logs.log_records {
                let entry = entry(record, &of_resource, &of_scope)?;
                found.entry(pairs.clone().into_iter().collect()).or_default().push(entry);
            }
        }
    }
    let stream =
        |(pairs, entries): (Labels, _)| Stream { text: labels::write(&pairs), labels: pairs, entries };
    Ok(found.into_iter().map(stream).collect())
}

/// Adds what is not empty.
fn put(to: &mut Labels, fields: &[(&str, String)]) {
    let some = fields.iter().filter(|(_, value)| !value.is_empty());
    to.extend(some.map(|(name, value)| ((*name).to_owned(), value.clone())));
}

/// Nothing for 0.
fn decimal(number: u64) -> String {
    if number == 0 { String::new() } else { number.to_string() }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn entry(record: &LogRecord, resource: &Labels, scope: &Labels) -> Result<Entry, Refusal> {
    let (time, observed) = (record.time_unix_nano as i64, record.observed_time_unix_nano);
    let event = &record.event_name;
    let kept = |kv: &&KeyValue| event.is_empty() || kv.key != "event_name";
    let attributes = flatten(&record.attributes.iter().filter(kept).cloned().collect::<Vec<_>>())?;
    let mut fields = Labels::new();
    put(
        &mut fields,
        &[
            ("observed_timestamp", if time == 0 { String::new() } else { decimal(observed) }),
            ("severity_number", decimal(record.severity_number as u64)),
            ("severity_text", record.severity_text.clone()),
            ("dropped_attributes_count", decimal(u64::from(record.dropped_attributes_count))),
            ("flags", decimal(u64::from(record.flags))),
            ("trace_id", hex(&record.trace_id)),
            ("span_id", hex(&record.span_id)),
            ("event_name", event.clone()),
        ],
    );
    // Of two with one name the server keeps one: a field, then the record's, the resource's, the scope's.
    let mut metadata = Labels::new();
    for (name, value) in fields.into_iter().chain(attributes).chain(resource.clone()).chain(scope.clone()) {
        if !metadata.iter().any(|(known, _)| *known == name) {
            metadata.push((name, value));
        }
    }
    let time = match (time, observed as i64) {
        (0, 0) => now(),
        (0, observed) => observed,
        (time, _) => time,
    };
    Ok(Entry { time, line: text(record.body.as_ref()), metadata })
}

/// Attributes as names and texts; maps become several.
fn flatten(attributes: &[KeyValue]) -> Result<Labels, Refusal> {
    let mut all = Labels::new();
    for kv in attributes {
        flatten_into(&mut all, "", kv)?;
    }
    Ok(all)
}

fn flatten_into(all: &mut Labels, parent: &str, kv: &KeyValue) -> Result<(), Refusal> {
    let path = if parent.is_empty() { kv.key.clone() } else { format!("{parent}_{}", kv.key) };
    let name = labels::normalise(&path)
        .ok_or_else(|| Refusal::new(400, format!("the name {path:?} cannot be normalised")))?;
    match kv.value.as_ref().and_then(|v| v.value.as_ref()) {
        Some(Value::KvlistValue(list)) => {
            list.values.iter().try_for_each(|inner| flatten_into(all, &name, inner))
        }
        _ => {
            all.push((name, text(kv.value.as_ref())));
            Ok(())
        }
    }
}

/// A value as text.
pub fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|v| v.value.as_ref()) {
        None => String::new(),
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::BoolValue(value)) => value.to_string(),
        Some(Value::IntValue(value)) => value.to_string(),
        Some(Value::DoubleValue(value)) => double(*value),
        Some(Value::BytesValue(bytes)) => BASE64_STANDARD.encode(bytes),
        Some(other) => json(Some(other)),
    }
}

fn json(value: Option<&Value>) -> String {
    // As Go does, for the sake of JavaScript.
    let quoted = |text: &str| {
        let json = serde_json::Value::from(text).to_string();
        json.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
    };
    match value {
        None => "null".into(),
        Some(Value::ArrayValue(list)) => {
            let values: Vec<_> = list.values.iter().map(|v| json(v.value.as_ref())).collect();
            format!("[{}]", values.join(","))
        }
        Some(Value::KvlistValue(list)) => {
            let sorted: BTreeMap<_, _> = list.values.iter().map(|kv| (&kv.key, kv)).collect();
            let member = |(key, kv): (&String, &&KeyValue)| {
                format!("{}:{}", quoted(key), json(kv.value.as_ref().and_then(|v| v.value.as_ref())))
            };
            format!("{{{}}}", sorted.iter().map(|(k, v)| member((k, v))).collect::<Vec<_>>().join(","))
        }
        Some(Value::BoolValue(value)) => value.to_string(),
        Some(Value::IntValue(value)) => value.to_string(),
        Some(Value::DoubleValue(value)) if value.is_finite() => double(*value),
        Some(other) => quoted(&text(Some(&AnyValue { value: Some(other.clone()) }))),
    }
}

fn double(value: f64) -> String {
    let size = value.abs();
    match value {
        _ if value.is_nan() => "NaN".into(),
        _ if value.is_infinite() => if value > 0.0 { "Infinity" } else { "-Infinity" }.into(),
        _ if value == 0.0 || (1e-6..1e21).contains(&size) => value.to_string(),
        _ => {
            let text = format!("{value:e}");
            if size >= 1e21 { text.replace('e', "e+") } else { text }
        }
    }
}
