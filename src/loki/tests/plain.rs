//! The mapping, slow and obvious: over decoded messages, with a map for everything, nothing cached. The oracle of the
//! tests and the baseline of the bench.

use std::collections::{BTreeMap, BTreeSet};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message;

/// What is tested elsewhere.
pub struct Rules<'a> {
    /// Resource attributes that are labels.
    pub index: &'a [&'a str],
    /// Log attributes that are labels.
    pub own: &'a [&'a str],
    /// What Loki calls a key, if anything.
    pub name: &'a dyn Fn(&str) -> Option<String>,
    /// The text of a value that is no map.
    pub text: &'a dyn Fn(&AnyValue) -> String,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlainEntry {
    pub labels: BTreeMap<String, String>,
    pub time: u64,
    pub line: String,
    pub metadata: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct PlainRequest {
    #[prost(message, repeated, tag = "1")]
    pub streams: Vec<PlainStream>,
}

#[derive(Clone, PartialEq, Message)]
pub struct PlainStream {
    #[prost(string, tag = "1")]
    pub labels: String,
    #[prost(message, repeated, tag = "2")]
    pub entries: Vec<PlainAdapter>,
}

#[derive(Clone, PartialEq, Message)]
pub struct PlainAdapter {
    #[prost(message, optional, tag = "1")]
    pub timestamp: Option<PlainTime>,
    #[prost(string, tag = "2")]
    pub line: String,
    #[prost(message, repeated, tag = "3")]
    pub metadata: Vec<PlainPair>,
}

#[derive(Clone, PartialEq, Message)]
pub struct PlainPair {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct PlainTime {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// The entries of a request, in its order.
pub fn entries(request: &ExportLogsServiceRequest, rules: &Rules<'_>) -> Vec<PlainEntry> {
    let mut out = Vec::new();
    for group in &request.resource_logs {
        let resource = group.resource.as_ref().map_or(&[][..], |r| &r.attributes);
        for scope_logs in &group.scope_logs {
            let mut of_scope: Vec<(String, String)> = Vec::new();
            if let Some(scope) = &scope_logs.scope {
                flatten(&scope.attributes, &[], rules, &mut of_scope);
                field(&mut of_scope, "scope_name", scope.name.clone());
                field(&mut of_scope, "scope_version", scope.version.clone());
                field(
                    &mut of_scope,
                    "scope_dropped_attributes_count",
                    number(scope.dropped_attributes_count),
                );
            }
            for record in &scope_logs.log_records {
                let mut labels = BTreeMap::new();
                for (keys, attributes) in [(rules.index, resource), (rules.own, &record.attributes[..])] {
                    for key in keys {
                        let found = attributes.iter().find(|kv| kv.key == *key);
                        let mut pairs = Vec::new();
                        flatten(found.map_or(&[][..], std::slice::from_ref), &[], rules, &mut pairs);
                        labels.extend(pairs.into_iter().filter(|(_, value)| !value.is_empty()));
                    }
                }
                if labels.is_empty() {
                    labels.insert("service_name".to_owned(), "unknown_service".to_owned());
                }
                let mut pairs = fields(record);
                flatten(&record.attributes, rules.own, rules, &mut pairs);
                flatten(resource, rules.index, rules, &mut pairs);
                pairs.extend(of_scope.iter().cloned());
                let mut seen = BTreeSet::new();
                pairs.retain(|(name, _)| seen.insert(name.clone()));
                pairs.retain(|(_, value)| !value.is_empty());
                let time = match (record.time_unix_nano, record.observed_time_unix_nano) {
                    (0, observed) => observed,
                    (time, _) => time,
                };
                let line = record.body.as_ref().map_or(String::new(), |body| (rules.text)(body));
                out.push(PlainEntry { labels, time, line, metadata: pairs.into_iter().collect() });
            }
        }
    }
    out
}

/// The request for entries, as it is sent.
pub fn push(entries: Vec<PlainEntry>) -> Vec<u8> {
    let mut streams: BTreeMap<BTreeMap<String, String>, Vec<PlainEntry>> = BTreeMap::new();
    for entry in entries {
        streams.entry(entry.labels.clone()).or_default().push(entry);
    }
    let streams = streams.into_iter().map(|(labels, mut entries)| {
        entries.sort_by_key(|entry| entry.time);
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        let adapter = |entry: PlainEntry| PlainAdapter {
            timestamp: Some(PlainTime {
                seconds: (entry.time / 1_000_000_000) as i64,
                nanos: (entry.time % 1_000_000_000) as i32,
            }),
            line: entry.line,
            metadata: entry.metadata.into_iter().map(|(name, value)| PlainPair { name, value }).collect(),
        };
        let entries = entries.into_iter().map(adapter).collect();
        PlainStream { labels: format!("{{{}}}", labels.join(", ")), entries }
    });
    let message = PlainRequest { streams: streams.collect() }.encode_to_vec();
    snap::raw::Encoder::new().compress_vec(&message).unwrap_or_default()
}

fn field(to: &mut Vec<(String, String)>, name: &str, value: String) {
    if !value.is_empty() {
        to.push((name.to_owned(), value));
    }
}

fn number(number: u32) -> String {
    if number == 0 { String::new() } else { number.to_string() }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn fields(record: &LogRecord) -> Vec<(String, String)> {
    let mut out = Vec::new();
    if record.time_unix_nano != 0 && record.observed_time_unix_nano != 0 {
        field(&mut out, "observed_timestamp", record.observed_time_unix_nano.to_string());
    }
    if record.severity_number != 0 {
        field(&mut out, "severity_number", record.severity_number.to_string());
    }
    field(&mut out, "severity_text", record.severity_text.clone());
    field(&mut out, "dropped_attributes_count", number(record.dropped_attributes_count));
    field(&mut out, "flags", number(record.flags));
    field(&mut out, "trace_id", hex(&record.trace_id));
    field(&mut out, "span_id", hex(&record.span_id));
    field(&mut out, "event_name", record.event_name.clone());
    out
}

/// Attributes as names and texts, but for some.
fn flatten(attributes: &[KeyValue], without: &[&str], rules: &Rules<'_>, out: &mut Vec<(String, String)>) {
    for kv in attributes.iter().filter(|kv| !without.contains(&kv.key.as_str())) {
        if let Some(value) = &kv.value {
            put(&kv.key, value, rules, out);
        }
    }
}

fn put(key: &str, value: &AnyValue, rules: &Rules<'_>, out: &mut Vec<(String, String)>) {
    let Some(name) = (rules.name)(key) else { return };
    match &value.value {
        None => {}
        Some(Value::KvlistValue(map)) => {
            for inner in &map.values {
                if let Some(value) = &inner.value {
                    put(&format!("{name}_{}", inner.key), value, rules, out);
                }
            }
        }
        Some(_) => out.push((name, (rules.text)(value))),
    }
}
