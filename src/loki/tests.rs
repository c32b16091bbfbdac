//! Vectors, limits, hints, tenants, order and cuts, read back through generated types.

mod hints;
mod limits;
#[allow(dead_code, reason = "the bench uses more of it")]
mod plain;
mod random;
mod requests;
mod tenants;
mod vectors;

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use super::*;
use crate::exporters::delivery::sharded::{Report, ShardBody, ShardEncoder};
use crate::pdata::{Batch, ClientInfo, Rope, Signal};
use crate::pipeline::Acks;

/// The messages, written a second time.
#[derive(Clone, PartialEq, Message)]
pub struct PushRequest {
    #[prost(message, repeated, tag = "1")]
    pub streams: Vec<StreamAdapter>,
}

#[derive(Clone, PartialEq, Message)]
pub struct StreamAdapter {
    #[prost(string, tag = "1")]
    pub labels: String,
    #[prost(message, repeated, tag = "2")]
    pub entries: Vec<EntryAdapter>,
}

#[derive(Clone, PartialEq, Message)]
pub struct EntryAdapter {
    #[prost(message, optional, tag = "1")]
    pub timestamp: Option<Timestamp>,
    #[prost(string, tag = "2")]
    pub line: String,
    #[prost(message, repeated, tag = "3")]
    pub metadata: Vec<LabelPair>,
}

#[derive(Clone, PartialEq, Message)]
pub struct LabelPair {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Timestamp {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// An entry as tests compare it: metadata sorted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub tenant: Option<String>,
    pub labels: String,
    pub time: i64,
    pub line: String,
    pub metadata: Vec<(String, String)>,
}

pub fn value(value: any_value::Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

pub fn text(text: &str) -> AnyValue {
    value(any_value::Value::StringValue(text.to_owned()))
}

pub fn int(number: i64) -> AnyValue {
    value(any_value::Value::IntValue(number))
}

pub fn bytes(bytes: &[u8]) -> AnyValue {
    value(any_value::Value::BytesValue(bytes.to_vec()))
}

pub fn list(values: Vec<AnyValue>) -> AnyValue {
    value(any_value::Value::ArrayValue(ArrayValue { values }))
}

pub fn map(pairs: Vec<(&str, AnyValue)>) -> AnyValue {
    value(any_value::Value::KvlistValue(KeyValueList { values: attributes(pairs) }))
}

pub fn attributes(pairs: Vec<(&str, AnyValue)>) -> Vec<KeyValue> {
    let pair = |(key, value): (&str, AnyValue)| KeyValue {
        key: key.to_owned(),
        value: Some(value),
        ..KeyValue::default()
    };
    pairs.into_iter().map(pair).collect()
}

/// A record at 7 ns with a line.
pub fn record(line: &str, own: Vec<(&str, AnyValue)>) -> LogRecord {
    LogRecord {
        time_unix_nano: 7,
        body: Some(text(line)),
        attributes: attributes(own),
        ..LogRecord::default()
    }
}

pub fn request(
    resource: Vec<(&str, AnyValue)>,
    scope: Option<InstrumentationScope>,
    records: Vec<LogRecord>,
) -> ExportLogsServiceRequest {
    let resource = Some(Resource { attributes: attributes(resource), ..Resource::default() });
    let scope_logs = vec![ScopeLogs { scope, log_records: records, ..ScopeLogs::default() }];
    let group = ResourceLogs { resource, scope_logs, ..ResourceLogs::default() };
    ExportLogsServiceRequest { resource_logs: vec![group] }
}

pub fn batch(request: &[u8]) -> Batch {
    Batch {
        signal: Signal::Logs,
        items: crate::pdata::count(Signal::Logs, request).unwrap(),
        rope: Rope::from(request.to_vec()),
        client: Arc::new(ClientInfo::default()),
        tenant: None,
        demoted: false,
        received: std::time::Instant::now(),
        leases: Default::default(),
        acks: Acks::none(),
    }
}

/// Encodes a request: the bodies, closed, and what was dropped.
pub fn encode(encoder: &mut LokiEncoder, request: &[u8]) -> (Vec<LokiBody>, Vec<(usize, &'static str)>) {
    let batch = batch(request);
    let mut report = Report::new(encoder.shards());
    encoder.encode(&batch, &mut report.output());
    let closed = report.take_closed();
    let counted: usize = closed.iter().filter_map(|c| c.items).sum::<usize>()
        + report.open().iter().sum::<usize>()
        + report.dropped().iter().map(|(n, _)| n).sum::<usize>();
    assert_eq!(counted, batch.items, "every record is accounted for");
    let mut bodies: Vec<LokiBody> = closed.into_iter().map(|closed| closed.body).collect();
    bodies.extend((0..encoder.shards()).filter_map(|shard| encoder.close(shard)));
    (bodies, report.dropped().to_vec())
}

/// What is in a request, in its order.
pub fn entries(body: &LokiBody) -> Vec<Entry> {
    let message = PushRequest::decode(&*body.message().unwrap()).unwrap();
    let mut out = Vec::new();
    for stream in message.streams {
        assert!(!stream.entries.is_empty());
        for entry in stream.entries {
            let time = entry.timestamp.unwrap();
            let mut metadata: Vec<_> = entry.metadata.into_iter().map(|p| (p.name, p.value)).collect();
            metadata.sort();
            out.push(Entry {
                tenant: body.tenant().map(str::to_owned),
                labels: stream.labels.clone(),
                time: time.seconds * 1_000_000_000 + i64::from(time.nanos),
                line: entry.line,
                metadata,
            });
        }
    }
    assert_eq!(out.len(), body.items());
    out
}

/// All entries of a request, encoded twice: with what is known and without, which gives the same.
pub fn run(options: LokiOptions, request: &ExportLogsServiceRequest) -> Vec<Entry> {
    let bytes = request.encode_to_vec();
    let mut encoder = LokiEncoder::new(options);
    let mut round = || -> Vec<Entry> {
        let mut all: Vec<Entry> = encode(&mut encoder, &bytes).0.iter().flat_map(entries).collect();
        all.sort();
        all
    };
    let first = round();
    assert_eq!(round(), first, "what is known gives the same");
    first
}

/// The only entry of a request of one record.
pub fn one(
    options: LokiOptions,
    resource: Vec<(&str, AnyValue)>,
    scope: Option<InstrumentationScope>,
    record: LogRecord,
) -> Entry {
    let mut entries = run(options, &request(resource, scope, vec![record]));
    assert_eq!(entries.len(), 1);
    entries.remove(0)
}

/// Metadata as text, `a=b c=d`.
pub fn metadata(entry: &Entry) -> String {
    entry.metadata.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join(" ")
}
