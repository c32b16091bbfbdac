//! What editing costs, next to what it could cost: passing through, copying, and decoding with prost.
//!
//! `cargo bench --bench edit`, or under `valgrind --tool=callgrind` with a filter as argument and `ROUNDS=1`.
//! Prints nanoseconds per item, the best of several rounds.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::panic, reason = "a measurement, not the product")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use tidegate::config::types::Any;
use tidegate::pdata::{Batch, ClientInfo, Rope, Signal};
use tidegate::pipeline::{Acks, BuildContext, Ledger, Stage};
use tidegate::processors::attributes::{self, AttributesProcessorConfig};
use tidegate::processors::edit::{Action, ActionKind, Edit, Program};
use tidegate::processors::matching::{AttributeCriterion, MatchConfig, MatchType};
use tidegate::processors::resource::{self, ResourceProcessorConfig};
use tidegate::telemetry::Metrics;

const ITEMS: usize = 512;

/// Decodes, inserts one attribute into every item, encodes.
type Typed = fn(&[u8]) -> Vec<u8>;

fn main() {
    let filter = std::env::args().skip(1).find(|a| !a.starts_with("--")).unwrap_or_default();
    let requests: [(Signal, Bytes, Typed); 3] = [
        (Signal::Traces, traces(), typed_traces),
        (Signal::Metrics, metrics(), typed_metrics),
        (Signal::Logs, logs(), typed_logs),
    ];
    for (signal, request, typed) in requests {
        println!("{} ({} items of {} bytes)", signal.name(), ITEMS, request.len() / ITEMS);
        let run = |name: &str, work: &mut dyn FnMut()| {
            if format!("{}/{name}", signal.name()).contains(&filter) {
                let best = measure(work);
                println!(
                    "  {name:<34} {:>9.2} ns/item {:>9.2} us/request",
                    best / ITEMS as f64,
                    best / 1000.0
                );
            }
        };
        run("pass-through (clone)", &mut || drop(black_box(batch(signal, &request))));
        run("copy", &mut || drop(black_box(Bytes::from(request.to_vec()))));
        for (name, edits) in programs(signal) {
            let program = Program::new(signal, edits);
            run(name, &mut || {
                let mut batch = batch(signal, &request);
                let applied = program.apply(&mut batch);
                assert_eq!(applied.malformed, 0);
                drop(black_box(batch));
            });
        }
        run("prost decode, insert, encode", &mut || drop(black_box(typed(&request))));
    }
}

fn programs(signal: Signal) -> Vec<(&'static str, Vec<Edit>)> {
    let item = || items(signal, vec![action(ActionKind::Insert, "deployment.environment")], None);
    let on_resource = MatchConfig {
        match_type: Some(MatchType::Strict),
        resources: vec![AttributeCriterion {
            key: "host.name".to_owned(),
            value: Any::Str("other".to_owned()),
        }],
        ..Default::default()
    };
    vec![
        ("resource upsert", vec![resource_edit(action(ActionKind::Upsert, "k8s.cluster.name"))]),
        (
            "resource upsert, four processors",
            ["a", "b", "c", "d"].map(|k| resource_edit(action(ActionKind::Upsert, k))).into(),
        ),
        ("item insert", vec![item()]),
        (
            "item insert, present already",
            vec![items(signal, vec![action(ActionKind::Insert, "http.route")], None)],
        ),
        (
            "item insert, no resource matches",
            vec![items(signal, vec![action(ActionKind::Insert, "x")], Some(on_resource))],
        ),
        ("item delete", vec![items(signal, vec![action(ActionKind::Delete, "http.route")], None)]),
        ("item hash", vec![items(signal, vec![action(ActionKind::Hash, "http.route")], None)]),
        (
            "four processors",
            vec![
                resource_edit(action(ActionKind::Upsert, "k8s.cluster.name")),
                item(),
                items(signal, vec![action(ActionKind::Delete, "http.route")], None),
                items(signal, vec![action(ActionKind::Upsert, "team")], None),
            ],
        ),
        (
            "four processors of items",
            ["deployment.environment", "team", "region", "zone"]
                .map(|k| items(signal, vec![action(ActionKind::Insert, k)], None))
                .into(),
        ),
    ]
}

fn measure(work: &mut dyn FnMut()) -> f64 {
    let rounds: usize = std::env::var("ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(15);
    let mut best = f64::MAX;
    for _ in 0..rounds {
        let (mut runs, start) = (0u32, Instant::now());
        while runs == 0 || (rounds > 1 && start.elapsed() < Duration::from_millis(20)) {
            work();
            runs += 1;
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(runs));
    }
    best
}

fn action(kind: ActionKind, key: &str) -> Action {
    let sets = matches!(kind, ActionKind::Insert | ActionKind::Upsert);
    let value = if sets { Any::Str("production-eu-1".to_owned()) } else { Any::Null };
    Action { key: key.to_owned(), action: Some(kind), value, ..Default::default() }
}

fn context() -> BuildContext {
    BuildContext { id: "bench".to_owned(), metrics: Metrics::new(), ledger: Ledger::new(usize::MAX) }
}

fn resource_edit(action: Action) -> Edit {
    let config = ResourceProcessorConfig { attributes: vec![action] };
    edit(resource::build(&config, Signal::Traces, &context()))
}

fn items(signal: Signal, actions: Vec<Action>, include: Option<MatchConfig>) -> Edit {
    let config = AttributesProcessorConfig { actions, include, exclude: None };
    edit(attributes::build(&config, signal, &context()))
}

fn edit(stage: Result<Stage, String>) -> Edit {
    match stage {
        Ok(Stage::Edit(edit)) => edit,
        Ok(_) => panic!("not an edit"),
        Err(why) => panic!("{why}"),
    }
}

fn batch(signal: Signal, request: &Bytes) -> Batch {
    Batch {
        signal,
        rope: Rope::from(request.clone()),
        items: ITEMS,
        client: Arc::new(ClientInfo::default()),
        tenant: None,
        demoted: false,
        received: Instant::now(),
        leases: Default::default(),
        acks: Acks::none(),
    }
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value.into())) });
    KeyValue { key: key.to_owned(), value, ..Default::default() }
}

fn int(key: &str, value: i64) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::IntValue(value)) });
    KeyValue { key: key.to_owned(), value, ..Default::default() }
}

fn the_resource() -> Option<Resource> {
    let attributes = vec![
        text("service.name", "checkout"),
        text("service.namespace", "shop"),
        text("service.instance.id", "627cc493-f310-47de-96bd-71410b7dec09"),
        text("host.name", "node-17.cluster.example"),
        text("k8s.pod.name", "checkout-7d9c5b6f4-x2x7k"),
        text("telemetry.sdk.language", "java"),
    ];
    Some(Resource { attributes, ..Default::default() })
}

fn the_scope() -> Option<InstrumentationScope> {
    Some(InstrumentationScope {
        name: "io.shop.checkout".into(),
        version: "1.4.2".into(),
        ..Default::default()
    })
}

fn attributes_of(i: usize) -> Vec<KeyValue> {
    vec![
        text("http.request.method", "GET"),
        text("http.route", "/api/v1/products/{id}"),
        text("url.path", format!("/api/v1/products/{}", i * 7919)),
        text("server.address", "checkout.shop.svc.cluster.local"),
        int("server.port", 8443),
        int("http.response.status_code", 200),
        text("user_agent.original", "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/128.0"),
        text("client.address", format!("10.0.{}.{}", i / 256, i % 256)),
        text("network.protocol.version", "1.1"),
        text("thread.name", format!("http-nio-8443-exec-{}", i % 64)),
    ]
}

fn traces() -> Bytes {
    let spans = (0..ITEMS)
        .map(|i| Span {
            trace_id: vec![i as u8; 16],
            span_id: vec![i as u8; 8],
            parent_span_id: vec![1; 8],
            name: "GET /api/v1/products/{id}".into(),
            kind: 2,
            start_time_unix_nano: 1_700_000_000_000_000_000 + i as u64,
            end_time_unix_nano: 1_700_000_000_500_000_000 + i as u64,
            attributes: attributes_of(i),
            status: Some(Status { code: 1, ..Default::default() }),
            flags: 257,
            ..Default::default()
        })
        .collect();
    let scope_spans = vec![ScopeSpans { scope: the_scope(), spans, ..Default::default() }];
    let group = ResourceSpans { resource: the_resource(), scope_spans, ..Default::default() };
    ExportTraceServiceRequest { resource_spans: vec![group] }.encode_to_vec().into()
}

fn logs() -> Bytes {
    let log_records = (0..ITEMS)
        .map(|i| LogRecord {
            time_unix_nano: 1_700_000_000_000_000_000 + i as u64,
            observed_time_unix_nano: 1_700_000_000_000_000_000 + i as u64,
            severity_number: 9,
            severity_text: "INFO".into(),
            body: text(
                "",
                format!("request {i} served from cache in {} ms, 1532 bytes written to the client", i % 97),
            )
            .value,
            attributes: attributes_of(i).into_iter().skip(1).collect(),
            trace_id: vec![i as u8; 16],
            span_id: vec![i as u8; 8],
            ..Default::default()
        })
        .collect();
    let scope_logs = vec![ScopeLogs { scope: the_scope(), log_records, ..Default::default() }];
    let group = ResourceLogs { resource: the_resource(), scope_logs, ..Default::default() };
    ExportLogsServiceRequest { resource_logs: vec![group] }.encode_to_vec().into()
}

fn metrics() -> Bytes {
    let metrics = (0..ITEMS / 8)
        .map(|m| Metric {
            name: format!("http.server.request.count.{m}"),
            description: "Requests served".into(),
            unit: "{request}".into(),
            data: Some(metric::Data::Sum(Sum {
                data_points: (0..8)
                    .map(|i| NumberDataPoint {
                        attributes: attributes_of(m * 8 + i).into_iter().take(6).collect(),
                        start_time_unix_nano: 1_700_000_000_000_000_000,
                        time_unix_nano: 1_700_000_060_000_000_000,
                        value: Some(number_data_point::Value::AsInt(i as i64)),
                        ..Default::default()
                    })
                    .collect(),
                aggregation_temporality: 2,
                is_monotonic: true,
            })),
            ..Default::default()
        })
        .collect();
    let scope_metrics = vec![ScopeMetrics { scope: the_scope(), metrics, ..Default::default() }];
    let group = ResourceMetrics { resource: the_resource(), scope_metrics, ..Default::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![group] }.encode_to_vec().into()
}

fn insert(attributes: &mut Vec<KeyValue>) {
    if attributes.iter().all(|kv| kv.key != "deployment.environment") {
        attributes.push(text("deployment.environment", "production-eu-1"));
    }
}

fn typed_traces(bytes: &[u8]) -> Vec<u8> {
    let mut request = ExportTraceServiceRequest::decode(bytes).unwrap();
    let scopes = request.resource_spans.iter_mut().flat_map(|g| &mut g.scope_spans);
    scopes.flat_map(|s| &mut s.spans).for_each(|s| insert(&mut s.attributes));
    request.encode_to_vec()
}

fn typed_logs(bytes: &[u8]) -> Vec<u8> {
    let mut request = ExportLogsServiceRequest::decode(bytes).unwrap();
    let scopes = request.resource_logs.iter_mut().flat_map(|g| &mut g.scope_logs);
    scopes.flat_map(|s| &mut s.log_records).for_each(|r| insert(&mut r.attributes));
    request.encode_to_vec()
}

fn typed_metrics(bytes: &[u8]) -> Vec<u8> {
    let mut request = ExportMetricsServiceRequest::decode(bytes).unwrap();
    let scopes = request.resource_metrics.iter_mut().flat_map(|g| &mut g.scope_metrics);
    for metric in scopes.flat_map(|s| &mut s.metrics) {
        if let Some(metric::Data::Sum(sum)) = &mut metric.data {
            sum.data_points.iter_mut().for_each(|p| insert(&mut p.attributes));
        }
    }
    request.encode_to_vec()
}
