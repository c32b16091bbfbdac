//! `headers_setter` from client to backend: whoever sent something, every request that carries it says so, whatever is
//! collected on the way and however slow a destination is; and nobody's data goes out under nobody's name.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code"
)]
#![allow(clippy::disallowed_methods, reason = "tests have no supervisor")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use support::agent::Agent;
use support::loki::{self, Loki};
use support::otlp::{ToValue, attributes, counter, int, resource};
use support::prometheus::{self, Labels, Receiver};
use support::sink::{Captured, Faults, Options, Sink};
use support::{Signal, eventually, http};

/// Clients name their tenant in `X-Tenant`; backends are told in `X-Scope-OrgID`.
const AGENT: &str = "
extensions:
  headers_setter:
    additional_auth: bearertokenauth
    headers:
      - {key: X-Scope-OrgID, action: upsert, from_context: X-Tenant}
      - {key: X-Tier, action: insert, from_context: x-tier, default_value: basic}
      - {key: X-Region, action: upsert, value: west}
      - {key: X-Internal, action: delete}
  bearertokenauth: {token: sesame}
receivers:
  otlp:
    protocols:
      http: {endpoint: '127.0.0.1:@HTTP@', include_metadata: true}
processors:
  batch: {timeout: 20ms, metadata_keys: [x-tenant]}
exporters:
  otlp_grpc:
    endpoint: '@GRPC_TO@'
    tls: {insecure: true}
    headers: {x-internal: secret}
    auth: {authenticator: headers_setter}
    @QUEUE@
  otlp_http:
    endpoint: 'http://@HTTP_TO@'
    headers: {x-internal: secret}
    auth: {authenticator: headers_setter}
    @QUEUE@
  loki: {endpoint: '@LOKI@', auth: {authenticator: headers_setter}}
  prometheus_remote_write: {endpoint: '@PROMETHEUS@', auth: {authenticator: headers_setter}}
service:
  extensions: [health_check, bearertokenauth, headers_setter]
  pipelines:
    traces: {receivers: [otlp], processors: [@BATCH@], exporters: [otlp_grpc, otlp_http]}
    logs: {receivers: [otlp], processors: [@BATCH@], exporters: [otlp_grpc, loki]}
    metrics: {receivers: [otlp], processors: [@BATCH@], exporters: [otlp_http, prometheus_remote_write]}
";

const TENANTS: [&str; 4] = ["team-a", "team-b", "team-c", NOBODY];
/// Sends no header.
const NOBODY: &str = "nobody";
const ROUNDS: usize = 25;

fn owner(tenant: &str) -> Vec<KeyValue> {
    attributes(&[("service.name", &tenant)])
}

/// Sends one item of each signal, as the tenant.
fn send(to: SocketAddr, tenant: &str, round: usize) {
    let of_resource = || Some(Resource { attributes: owner(tenant), ..Default::default() });
    let span =
        Span { name: "work".to_owned(), trace_id: vec![1; 16], span_id: vec![2; 8], ..Default::default() };
    let traces = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: of_resource(),
            scope_spans: vec![ScopeSpans { spans: vec![span], ..Default::default() }],
            ..Default::default()
        }],
    };
    let body = Some(opentelemetry_proto::tonic::common::v1::AnyValue { value: Some("hello".to_value()) });
    let record = LogRecord { time_unix_nano: loki::now() as u64, body, ..Default::default() };
    let logs = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: of_resource(),
            scope_logs: vec![ScopeLogs { log_records: vec![record], ..Default::default() }],
            ..Default::default()
        }],
    };
    let times = (1_000, prometheus::now() - 60_000 + round as i64);
    let metric = counter("requests", "", vec![int(round as i64, times, &[])]);
    let metrics =
        ExportMetricsServiceRequest { resource_metrics: vec![resource(owner(tenant), None, vec![metric])] };
    for (signal, body) in [
        (Signal::Traces, traces.encode_to_vec()),
        (Signal::Logs, logs.encode_to_vec()),
        (Signal::Metrics, metrics.encode_to_vec()),
    ] {
        let mut headers = vec![("content-type", "application/x-protobuf")];
        headers.extend((tenant != NOBODY).then_some(("X-Tenant", tenant)));
        let (status, said) = http::request(to, "POST", signal.http_path(), &headers, &body).unwrap();
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&said));
    }
}

/// Whom a request says it is from.
fn named(headers: &::http::HeaderMap) -> &str {
    headers.get("x-scope-orgid").map_or(NOBODY, |v| v.to_str().unwrap())
}

/// Whose data is in it.
fn owners(request: &Captured) -> Vec<String> {
    let resources: Vec<Option<Resource>> = match request.signal {
        Signal::Traces => request.traces().resource_spans.into_iter().map(|r| r.resource).collect(),
        Signal::Logs => request.logs().resource_logs.into_iter().map(|r| r.resource).collect(),
        Signal::Metrics => request.metrics().resource_metrics.into_iter().map(|r| r.resource).collect(),
    };
    let of = |r: Option<Resource>| match &r.unwrap().attributes[0].value.as_ref().unwrap().value {
        Some(opentelemetry_proto::tonic::common::v1::any_value::Value::StringValue(name)) => name.clone(),
        other => panic!("{other:?}"),
    };
    resources.into_iter().map(of).collect()
}

/// Runs an agent with these processors and OTLP queues, and checks every request at every backend.
async fn run(batch: &str, queue: &str) {
    let sink = Sink::start(Options { capture: true, ..Default::default() }).await;
    // Slow enough that data of all tenants waits together.
    sink.set_faults(Faults { delay: (100, Duration::from_millis(30)), ..Default::default() });
    let loki = Loki::start(loki::Options::default()).await;
    loki.set_faults(loki::Faults { delay: (100, Duration::from_millis(30)), ..Default::default() });
    let also: prometheus::Also = Arc::new(|headers, request| {
        let tenant = named(headers);
        let of = |labels: &Labels| labels.iter().any(|(name, value)| name == "job" && value == tenant);
        let wrong = request.series.iter().find(|part| !of(&part.labels))?;
        Some(format!("{:?} in a request of {tenant}", wrong.labels))
    });
    let receiver = Receiver::start(prometheus::Options { also: Some(also), ..Default::default() }).await;
    receiver.set_faults(prometheus::Faults { delay: (100, Duration::from_millis(30)), ..Default::default() });
    let mut agent = Agent::builder(env!("CARGO_BIN_EXE_tidegate"), AGENT)
        .mark("BATCH", batch)
        .mark("QUEUE", queue)
        .mark("GRPC_TO", sink.grpc)
        .mark("HTTP_TO", sink.http)
        .mark("LOKI", loki.url())
        .mark("PROMETHEUS", receiver.url())
        .start();
    let to = agent.http;
    tokio::task::block_in_place(|| {
        std::thread::scope(|threads| {
            for tenant in TENANTS {
                threads.spawn(move || (0..ROUNDS).for_each(|round| send(to, tenant, round)));
            }
        });
    });
    let all = TENANTS.len() * ROUNDS;
    // Traces go to both, logs and metrics to one of them.
    eventually(Duration::from_secs(20), "everything is at the backends", || {
        sink.items() == 4 * all as u64 && loki.stored() == all && {
            let stored = |job: &str| receiver.series(&[("__name__", "requests_total"), ("job", job)]);
            TENANTS.iter().all(|t| stored(t).is_some_and(|s| s.points.len() == ROUNDS))
        }
    })
    .await;
    assert_eq!(agent.metric("tidegate_dropped_items", ""), 0.0);
    assert!(agent.metric("tidegate_headers_setter_missing_values", "header=\"x-scope-orgid\"") > 0.0);
    let status = tokio::task::block_in_place(|| agent.terminate(Duration::from_secs(20)));
    assert!(status.success(), "{status}");
    assert_eq!(sink.violations(), Vec::<String>::new());
    assert_eq!(loki.violations(), Vec::<String>::new());
    assert_eq!(receiver.violations(), Vec::<String>::new());

    let mut merged = 0;
    for request in sink.captured() {
        let (named, owners) = (named(&request.headers), owners(&request));
        assert!(owners.iter().all(|o| o == named), "{} of {owners:?} as {named}", request.protocol);
        merged += usize::from(owners.len() > 1);
        let header = |name: &str| request.headers.get(name).map(|v| v.to_str().unwrap());
        assert_eq!(header("authorization"), Some("Bearer sesame"));
        assert_eq!((header("x-tier"), header("x-region")), (Some("basic"), Some("west")));
        assert_eq!(header("x-internal"), None);
    }
    assert!(merged > 0, "nothing was merged: this shows nothing");
    for request in loki.requests() {
        let wanted = format!("service_name=\"{}\"", named(&request.headers));
        assert!(
            request.streams.iter().all(|(labels, _)| labels.contains(&wanted)),
            "{wanted}: {:?}",
            request.streams
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_stay_apart_in_the_batch_processor() {
    run("batch", "sending_queue: {}").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_stay_apart_in_batching_queues() {
    let batch = "batch: {flush_timeout: 20ms, partition: {metadata_keys: [X-Tenant]}}";
    run("", &format!("sending_queue: {{{batch}}}")).await;
}

/// The exporter knows what its authenticator looks at: nobody has to name it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_stay_apart_without_being_told() {
    run("", "sending_queue: {batch: {flush_timeout: 20ms}}").await;
}

/// A client that sends two names has its data refused for good: neither is guessed, and nothing waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_names_are_none() {
    let sink = Sink::start(Options { capture: true, ..Default::default() }).await;
    let yaml = AGENT
        .replace("exporters: [otlp_grpc, loki]", "exporters: [otlp_grpc]")
        .replace("exporters: [otlp_http, prometheus_remote_write]", "exporters: [otlp_http]");
    let agent = Agent::builder(env!("CARGO_BIN_EXE_tidegate"), &yaml)
        .mark("BATCH", "")
        .mark("QUEUE", "sending_queue: {}")
        .mark("GRPC_TO", sink.grpc)
        .mark("HTTP_TO", sink.http)
        .mark("LOKI", "http://127.0.0.1:1/")
        .mark("PROMETHEUS", "http://127.0.0.1:1/")
        .start();
    let span =
        Span { name: "work".to_owned(), trace_id: vec![1; 16], span_id: vec![2; 8], ..Default::default() };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..Default::default() }];
    let body = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { scope_spans, ..Default::default() }],
    };
    let headers = [("content-type", "application/x-protobuf"), ("X-Tenant", "a"), ("x-tenant", "b")];
    let (status, _) = tokio::task::block_in_place(|| {
        http::request(agent.http, "POST", "/v1/traces", &headers, &body.encode_to_vec()).unwrap()
    });
    assert_eq!(status, 200, "taken: what is wrong is known when it is sent");
    eventually(Duration::from_secs(10), "both exporters give it up", || {
        agent.metric("tidegate_dropped_items", "reason=\"rejected\"") == 2.0
    })
    .await;
    assert_eq!(sink.items(), 0);
    assert!(agent.log().contains("2 source keys found in the context"), "{}", agent.log());
}
