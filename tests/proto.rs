//! The promise of `proto/`: what the remote write and Loki encoders send reads as the messages that are written there, with no
//! field left over.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use std::sync::Arc;

use prost_reflect::{DescriptorPool, DynamicMessage, ReflectMessage, Value};
use tidegate::exporters::delivery::sharded::{Report, ShardEncoder};
use tidegate::exporters::prometheus_remote_write::{RemoteWriteConfig, options};
use tidegate::loki::{LokiEncoder, LokiOptions};
use tidegate::pdata::json::Limits;
use tidegate::pdata::{Batch, ClientInfo, Rope, Signal};
use tidegate::pipeline::Acks;
use tidegate::prometheus::remote::{Negotiation, RemoteEncoder, Version, WriteBody};

fn batch(signal: Signal, request: impl Into<Rope> + AsRef<[u8]>) -> Batch {
    Batch {
        signal,
        items: tidegate::pdata::count(signal, request.as_ref()).unwrap(),
        rope: request.into(),
        client: Arc::new(ClientInfo::default()),
        tenant: None,
        demoted: false,
        received: std::time::Instant::now(),
        leases: Default::default(),
        acks: Acks::none(),
    }
}

/// The requests for the example of the documentation.
fn bodies(version: Version) -> Vec<WriteBody> {
    let json = std::fs::read("docs/examples/names.json").unwrap();
    let request = tidegate::pdata::json::decode(Signal::Metrics, &json, Limits::default()).unwrap();
    let mut options = options(&RemoteWriteConfig::default());
    options.negotiation = Arc::new(Negotiation::new(version));
    let mut encoder = RemoteEncoder::new(options);
    let mut report = Report::new(encoder.shards());
    let batch = batch(Signal::Metrics, request);
    encoder.encode(&batch, &mut report.output());
    let closed = report.take_closed().into_iter().map(|closed| closed.body);
    let mut bodies: Vec<WriteBody> = closed.collect();
    bodies.extend((0..encoder.shards()).filter_map(|shard| encoder.close(shard)));
    assert!(!bodies.is_empty());
    bodies
}

fn read(pool: &DescriptorPool, name: &str, message: &[u8]) -> DynamicMessage {
    let descriptor = pool.get_message_by_name(name).unwrap();
    let message = DynamicMessage::decode(descriptor, message).unwrap();
    nothing_left(&message);
    message
}

/// Fails for a field that the definition does not have, at any depth.
fn nothing_left(message: &DynamicMessage) {
    let name = message.descriptor().full_name().to_owned();
    assert_eq!(message.unknown_fields().count(), 0, "{name} has fields that proto/ does not know");
    for (_, value) in message.fields() {
        let list = value.as_list().map_or(std::slice::from_ref(value), |list| list);
        list.iter().filter_map(Value::as_message).for_each(nothing_left);
    }
}

#[test]
fn requests_read_as_they_are_defined() {
    let files = ["prometheus/remote_write_v1.proto", "prometheus/remote_write_v2.proto"];
    let set = protox::compile(files, ["proto"]).unwrap();
    let pool = DescriptorPool::from_file_descriptor_set(set).unwrap();
    let list = |message: &DynamicMessage, field: &str| -> Vec<Value> {
        message.get_field_by_name(field).unwrap().as_list().unwrap().to_vec()
    };
    let mut seen = [0, 0];
    for (version, name, at) in
        [(Version::V1, "prometheus.WriteRequest", 0), (Version::V2, "io.prometheus.write.v2.Request", 1)]
    {
        let (mut samples, mut histograms, mut exemplars) = (0, 0, 0);
        for body in bodies(version) {
            let request = read(&pool, name, &body.message().unwrap());
            let counts = body.counts();
            let before = (samples, histograms, exemplars);
            for series in list(&request, "timeseries") {
                let series = series.as_message().unwrap();
                samples += list(series, "samples").len();
                histograms += list(series, "histograms").len();
                exemplars += list(series, "exemplars").len();
                if version == Version::V2 {
                    assert_eq!(list(series, "labels_refs").len() % 2, 0);
                    assert!(series.has_field_by_name("metadata"));
                }
            }
            let added = (samples - before.0, histograms - before.1, exemplars - before.2);
            assert_eq!(added, (counts.samples, counts.histograms, counts.exemplars));
        }
        assert!(samples > 10 && histograms > 0 && exemplars > 0, "the example shows every kind");
        seen[at] = samples + histograms + exemplars;
    }
    assert_eq!(seen[0], seen[1], "both versions carry the same");
}

#[test]
fn push_requests_read_as_they_are_defined() {
    let set = protox::compile(["loki/push.proto"], ["proto"]).unwrap();
    let pool = DescriptorPool::from_file_descriptor_set(set).unwrap();
    let json = std::fs::read("docs/examples/logs.json").unwrap();
    let request = tidegate::pdata::json::decode(Signal::Logs, &json, Limits::default()).unwrap();
    let mut encoder = LokiEncoder::new(LokiOptions::default());
    let mut report = Report::new(encoder.shards());
    encoder.encode(&batch(Signal::Logs, request), &mut report.output());
    let list = |message: &DynamicMessage, field: &str| -> Vec<Value> {
        message.get_field_by_name(field).unwrap().as_list().unwrap().to_vec()
    };
    let (mut entries, mut pairs) = (0, 0);
    for body in (0..encoder.shards()).filter_map(|shard| encoder.close(shard)) {
        let request = read(&pool, "logproto.PushRequest", &body.message().unwrap());
        for stream in list(&request, "streams") {
            let stream = stream.as_message().unwrap();
            assert!(stream.has_field_by_name("labels"));
            for entry in list(stream, "entries") {
                let entry = entry.as_message().unwrap();
                assert!(entry.has_field_by_name("timestamp"));
                entries += 1;
                pairs += list(entry, "structuredMetadata").len();
            }
        }
    }
    assert!(entries == 3 && pairs > 20, "{entries} entries with {pairs} pairs");
}
