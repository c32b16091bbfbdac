//! Any bytes as a request for logs: no panic, every record that is told of is in a request, requests hold what Loki's
//! messages may hold, and cutting them loses nothing. Whole requests give what the slow mapping makes of them.
#![no_main]

#[allow(dead_code)]
#[path = "../../src/loki/tests/plain.rs"]
mod plain;

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::AnyValue;
use prost::Message;
use tidegate::exporters::delivery::sharded::{Report, ShardBody, ShardEncoder};
use tidegate::loki::{DEFAULT_LABELS, Limits, LokiEncoder, LokiOptions, parse_labels};
use tidegate::pdata::{Batch, ClientInfo, Rope, Signal};
use tidegate::pipeline::Acks;

fuzz_target!(|data: &[u8]| {
    let [choice, request @ ..] = data else { return };
    let small = choice & 1 == 1;
    let limits = if small {
        Limits { line: 20, labels: 2, label_value: 8, metadata_bytes: 64, metadata_count: 4, streams: 8, ..Limits::default() }
    } else {
        Limits::default()
    };
    let mut encoder =
        LokiEncoder::new(LokiOptions { limits: limits.clone(), max_bytes: 4096, shards: 2, ..LokiOptions::default() });
    // Twice: with what is known, and without.
    let first = encode(&mut encoder, request);
    let second = encode(&mut encoder, request);
    for (labels, entry) in first.iter().chain(&second) {
        let labels = parse_labels(labels).expect("labels are text of ours");
        assert!(!labels.is_empty() && labels.iter().all(|(_, value)| !value.is_empty()));
        assert!(entry.line.len() <= limits.line && entry.metadata.len() <= limits.metadata_count);
        let size: usize = entry.metadata.iter().map(|p| p.name.len() + p.value.len()).sum();
        assert!(size <= limits.metadata_bytes);
    }
    if !small && tidegate::pdata::count(Signal::Logs, request).is_ok() {
        compare(request, &first);
    }
});

fn encode(encoder: &mut LokiEncoder, request: &[u8]) -> Vec<(String, plain::PlainAdapter)> {
    let batch = Batch {
        signal: Signal::Logs,
        items: usize::MAX,
        rope: Rope::from(request.to_vec()),
        client: Arc::new(ClientInfo::default()),
        tenant: None,
        demoted: false,
        received: std::time::Instant::now(),
        leases: Default::default(),
        acks: Acks::none(),
    };
    let mut report = Report::new(encoder.shards());
    encoder.encode(&batch, &mut report.output());
    let told: usize = report.open().iter().sum::<usize>()
        + report.closed().iter().filter_map(|closed| closed.items).sum::<usize>();
    let mut bodies: Vec<_> = report.take_closed().into_iter().map(|closed| closed.body).collect();
    bodies.extend((0..encoder.shards()).filter_map(|shard| encoder.close(shard)));
    let (mut out, mut items) = (Vec::new(), 0);
    for body in bodies {
        items += body.items();
        let whole = entries(&body.message().expect("a block of ours"));
        match body.halve() {
            Ok(halves) => {
                let parts = halves.iter().map(|half| entries(&half.message().expect("a block")).len());
                assert_eq!(parts.sum::<usize>(), whole.len());
            }
            Err(body) => assert_eq!(body.items(), 1),
        }
        out.extend(whole);
    }
    assert_eq!((out.len(), items), (told, told));
    out
}

fn entries(message: &[u8]) -> Vec<(String, plain::PlainAdapter)> {
    let request = plain::PlainRequest::decode(message).expect("a message of Loki's");
    let of = |stream: plain::PlainStream| {
        let labels = stream.labels;
        stream.entries.into_iter().map(move |entry| (labels.clone(), entry))
    };
    request.streams.into_iter().flat_map(of).collect()
}

/// What the slow mapping makes of it, without hints and as far as times are given.
fn compare(request: &[u8], got: &[(String, plain::PlainAdapter)]) {
    let Ok(decoded) = ExportLogsServiceRequest::decode(request) else { return };
    // Repeated messages merge otherwise than prost has it; hints are not the slow mapping's.
    if has_hints(request) || decoded.encode_to_vec() != request {
        return;
    }
    let name = |key: &str| {
        let mut out = String::new();
        tidegate::prometheus::names::loki_label(key, &mut out).ok().map(|()| out)
    };
    let text = |value: &AnyValue| {
        let (bytes, mut out) = (value.encode_to_vec(), String::new());
        if let Ok(value) = tidegate::pdata::common::AnyValue::parse(&bytes) {
            tidegate::prometheus::text::value_text(&value, &mut out);
        }
        out
    };
    let rules = plain::Rules { index: &DEFAULT_LABELS, own: &[], name: &name, text: &text };
    let want = plain::entries(&decoded, &rules);
    // Limits and the clock are not the slow mapping's.
    let plain_enough = want.iter().all(|entry| {
        let size: usize = entry.metadata.iter().map(|(n, v)| n.len() + v.len()).sum();
        let labels = entry.labels.iter().all(|(n, v)| n.len() <= 1024 && v.len() <= 2048);
        entry.time != 0 && size < 65_536 && entry.metadata.len() <= 128 && labels && entry.labels.len() < 15
    });
    if !plain_enough || want.len() != got.len() {
        return;
    }
    let mut lines: Vec<&str> = got.iter().map(|(_, entry)| entry.line.as_str()).collect();
    let mut wanted: Vec<&str> = want.iter().map(|entry| entry.line.as_str()).collect();
    lines.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(lines, wanted);
    let pairs = |n: usize, entry: usize| n + entry;
    let sent = got.iter().map(|(_, entry)| entry.metadata.len()).fold(0, pairs);
    assert_eq!(sent, want.iter().map(|entry| entry.metadata.len()).fold(0, pairs));
}

fn has_hints(request: &[u8]) -> bool {
    request.windows(5).any(|window| window == b"loki.")
}
