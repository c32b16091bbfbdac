//! What the walks over telemetry cost: count, check, split, and the bare cursor.
//!
//! `cargo bench --bench pdata [name]` prints nanoseconds an item, best of several rounds, for the standard
//! load of 512 items a request. `--once name` runs one case a fixed number of times and measures nothing,
//! for instruction counts: `valgrind --tool=callgrind target/release/deps/pdata-* --once check/traces`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, missing_docs)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use tidegate::pdata::split::{split_bytes, split_items};
use tidegate::pdata::wire::{Cursor, Value as Wire};
use tidegate::pdata::{Rope, Signal, check, count};

const ITEMS: usize = 512;

type Case = (String, Box<dyn Fn()>);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let once = args.iter().any(|a| a == "--once");
    let filter = args.iter().find(|a| !a.starts_with("--")).cloned().unwrap_or_default();
    for (name, run) in cases() {
        if !name.contains(&filter) {
            continue;
        }
        if once {
            (0..100).for_each(|_| run());
        } else {
            let ns = measure(&run).as_nanos() as f64;
            println!("{name:28} {:9.2} us a request  {:8.2} ns an item", ns / 1e3, ns / ITEMS as f64);
        }
    }
}

fn measure(run: &dyn Fn()) -> Duration {
    let start = Instant::now();
    let mut rounds = 0u32;
    while start.elapsed() < Duration::from_millis(50) {
        run();
        rounds += 1;
    }
    let best = (0..20).map(|_| {
        let start = Instant::now();
        (0..rounds / 8 + 1).for_each(|_| run());
        start.elapsed() / (rounds / 8 + 1)
    });
    best.min().unwrap()
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for (signal, bytes) in [(Signal::Traces, traces()), (Signal::Metrics, metrics()), (Signal::Logs, logs())]
    {
        let bytes = Bytes::from(bytes);
        let name = signal.name();
        let b = bytes.clone();
        cases.push((format!("cursor/{name}"), Box::new(move || every_field(&b, 3))));
        let b = bytes.clone();
        cases.push((
            format!("count/{name}"),
            Box::new(move || {
                black_box(count(signal, black_box(&b))).unwrap();
            }),
        ));
        let b = bytes.clone();
        cases.push((
            format!("check/{name}"),
            Box::new(move || {
                black_box(check(signal, black_box(&b))).unwrap();
            }),
        ));
        let b = bytes.clone();
        cases.push((
            format!("prost/{name}"),
            Box::new(move || match signal {
                Signal::Traces => drop(black_box(ExportTraceServiceRequest::decode(b.clone()))),
                Signal::Metrics => drop(black_box(ExportMetricsServiceRequest::decode(b.clone()))),
                Signal::Logs => drop(black_box(ExportLogsServiceRequest::decode(b.clone()))),
            }),
        ));
        let b = bytes.clone();
        cases.push((
            format!("split/items/{name}"),
            Box::new(move || drop(black_box(split_items(signal, Rope::from(b.clone()), ITEMS, 100)))),
        ));
        let b = bytes.clone();
        cases.push((
            format!("split/bytes/{name}"),
            Box::new(move || drop(black_box(split_bytes(signal, Rope::from(b.clone()), ITEMS, 40_000)))),
        ));
    }
    cases
}

/// Every field of the messages down to `levels` below this one, without what is inside the last.
fn every_field(message: &[u8], levels: u32) {
    let mut cursor = Cursor::new(message);
    while let Some(field) = cursor.next_field().unwrap() {
        match field.value {
            // The way to the items is field 1 of the request and field 2 from there on.
            Wire::Bytes(inner) if levels > 0 && (field.number == 2 || levels == 3) => {
                every_field(inner, levels - 1);
            }
            other => {
                black_box(other);
            }
        }
    }
}

fn attributes(n: usize, seed: usize) -> Vec<KeyValue> {
    let keys = [
        "http.request.method",
        "url.full",
        "http.route",
        "server.address",
        "server.port",
        "http.response.status_code",
        "user_agent.original",
        "network.protocol.version",
        "client.address",
        "thread.id",
    ];
    (0..n)
        .map(|i| KeyValue {
            key: keys[i % keys.len()].to_owned(),
            value: Some(AnyValue {
                value: Some(match i % 5 {
                    4 => Value::IntValue((seed * 37 % 60000) as i64),
                    _ => Value::StringValue(format!("some-value-{seed}-of-{i}")),
                }),
            }),
            ..Default::default()
        })
        .collect()
}

fn resource() -> Option<Resource> {
    Some(Resource { attributes: attributes(8, 7), ..Default::default() })
}

fn scope() -> Option<InstrumentationScope> {
    Some(InstrumentationScope { name: "bench".into(), version: "1.0".into(), ..Default::default() })
}

fn traces() -> Vec<u8> {
    let spans = (0..ITEMS).map(|i| Span {
        trace_id: vec![i as u8 | 1; 16],
        span_id: vec![i as u8 | 1; 8],
        parent_span_id: vec![3; 8],
        name: format!("GET /api/v1/orders/{}", i % 10),
        kind: 2,
        start_time_unix_nano: 1_760_000_000_000_000_000 + i as u64,
        end_time_unix_nano: 1_760_000_000_005_000_000 + i as u64,
        attributes: attributes(10, i),
        status: Some(Status { code: 1, ..Default::default() }),
        flags: 0x101,
        ..Default::default()
    });
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: resource(),
            scope_spans: vec![ScopeSpans { scope: scope(), spans: spans.collect(), ..Default::default() }],
            ..Default::default()
        }],
    }
    .encode_to_vec()
}

fn logs() -> Vec<u8> {
    let log_records = (0..ITEMS).map(|i| LogRecord {
        time_unix_nano: 1_760_000_000_000_000_000 + i as u64,
        observed_time_unix_nano: 1_760_000_000_000_000_001 + i as u64,
        severity_number: 9,
        severity_text: "INFO".into(),
        body: Some(AnyValue {
            value: Some(Value::StringValue(format!(
                "request {i} took 12 ms and was answered {}",
                "x".repeat(140)
            ))),
        }),
        attributes: attributes(6, i),
        trace_id: vec![i as u8 | 1; 16],
        span_id: vec![i as u8 | 1; 8],
        ..Default::default()
    });
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: resource(),
            scope_logs: vec![ScopeLogs {
                scope: scope(),
                log_records: log_records.collect(),
                ..Default::default()
            }],
            ..Default::default()
        }],
    }
    .encode_to_vec()
}

fn metrics() -> Vec<u8> {
    let metrics = (0..ITEMS / 8).map(|m| Metric {
        name: format!("http.server.request.count.{m}"),
        description: "Requests answered".into(),
        unit: "{request}".into(),
        data: Some(metric::Data::Sum(Sum {
            data_points: (0..8)
                .map(|i| NumberDataPoint {
                    attributes: attributes(5, m * 8 + i),
                    start_time_unix_nano: 1_760_000_000_000_000_000,
                    time_unix_nano: 1_760_000_000_000_000_000 + i as u64,
                    value: Some(number_data_point::Value::AsInt(i as i64)),
                    ..Default::default()
                })
                .collect(),
            aggregation_temporality: 2,
            is_monotonic: true,
        })),
        ..Default::default()
    });
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: resource(),
            scope_metrics: vec![ScopeMetrics {
                scope: scope(),
                metrics: metrics.collect(),
                ..Default::default()
            }],
            ..Default::default()
        }],
    }
    .encode_to_vec()
}
