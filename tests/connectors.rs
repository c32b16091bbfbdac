//! Pipelines that feed pipelines, in the real binary: every item ends where the YAML says, and nowhere else.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code"
)]

mod support;

use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;

use support::Signal;
use support::agent::Agent;
use support::load::{self, Target, Told};
use support::sink::{Captured, Faults, Options, Sink};

/// What all configurations here share. Batches end with the agent, or when they are large.
const HEAD: &str = "
receivers:
  otlp:
    protocols:
      grpc: {endpoint: '127.0.0.1:@GRPC@', include_metadata: true}
processors:
  batch: {timeout: 1h, send_batch_size: 700}
  batch/small: {timeout: 5ms, send_batch_size: 100}
  batch/metadata: {timeout: 1h, send_batch_size: 700, metadata_keys: [x-scope-orgid]}
  tenant: {from: [{metadata: x-scope-orgid}], unresolved: {use: nobody}}
exporters:
  otlp_grpc/a: {endpoint: '@A@', tls: {insecure: true}, @QUEUE@retry_on_failure: {initial_interval: 20ms, max_interval: 100ms}}
  otlp_grpc/b: {endpoint: '@B@', tls: {insecure: true}, retry_on_failure: {initial_interval: 20ms, max_interval: 100ms}}
";

const ITEMS: u64 = 6_000;

/// Requests of several sizes from eight connections, each with a service of its own.
fn load(agent: &Agent) -> load::Options {
    load::Options {
        targets: vec![Target::Grpc(agent.grpc)],
        connections: 8,
        in_flight: 2,
        items_per_request: vec![1, 10, 64],
        signals: Signal::ALL.to_vec(),
        items: ITEMS,
        ..Default::default()
    }
}

/// Two backends that check what they get and keep it.
async fn sinks() -> (Sink, Sink) {
    let options = Options { items: ITEMS, capture: true, ..Default::default() };
    (Sink::start(options.clone()).await, Sink::start(options).await)
}

fn start(yaml: &str, a: &Sink, b: &Sink, queue: &str) -> Agent {
    Agent::builder(env!("CARGO_BIN_EXE_tidegate"), &format!("{HEAD}{yaml}"))
        .mark("QUEUE", queue)
        .mark("A", a.grpc)
        .mark("B", b.grpc)
        .start()
}

fn stop(agent: &mut Agent) {
    assert_eq!(agent.metric("tidegate_accounting_gap", ""), 0.0, "every item is accounted for");
    let status = tokio::task::block_in_place(|| agent.terminate(Duration::from_secs(30)));
    assert!(status.success());
}

/// Runs one configuration until everything acknowledged has left.
async fn run(yaml: &str) -> (Sink, Sink) {
    let (a, b) = sinks().await;
    let mut agent = start(yaml, &a, &b, "");
    let report = load::run(load(&agent)).await;
    assert_eq!(report.acknowledged, ITEMS, "{report:?}");
    stop(&mut agent);
    assert_eq!((a.violations(), b.violations()), (vec![], vec![]));
    (a, b)
}

/// Fails unless every item is stored once, at one of the two.
fn stored_once(a: &Sink, b: &Sink) {
    for n in 1..=ITEMS {
        let (at_a, at_b) = (a.ledger().stored(n), b.ledger().stored(n));
        assert_eq!(at_a + at_b, 1, "item {n}: {at_a} at a, {at_b} at b");
    }
}

/// Whether each item that a sink stored is one that `belongs` there; says how many there were.
fn all_belong(sink: &Sink, belongs: impl Fn(Signal, &Item) -> bool) -> usize {
    let mut seen = 0;
    for request in sink.captured() {
        for item in items(&request) {
            assert!(
                belongs(request.signal, &item),
                "{} does not belong here: {item:?}",
                request.signal.name()
            );
            seen += 1;
        }
    }
    seen
}

/// What routes look at.
#[derive(Debug)]
struct Item {
    service: String,
    /// `http.response.status_code` of the item.
    code: Option<i64>,
    error: bool,
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    match value(attributes, key)? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

fn int(attributes: &[KeyValue], key: &str) -> Option<i64> {
    match value(attributes, key)? {
        Value::IntValue(int) => Some(int),
        _ => None,
    }
}

fn value(attributes: &[KeyValue], key: &str) -> Option<Value> {
    attributes.iter().find(|kv| kv.key == key)?.value.as_ref()?.value.clone()
}

fn items(request: &Captured) -> Vec<Item> {
    let mut out = Vec::new();
    const CODE: &str = "http.response.status_code";
    match request.signal {
        Signal::Traces => {
            for group in request.traces().resource_spans {
                let service = text(&group.resource.unwrap().attributes, "service.name").unwrap();
                for span in group.scope_spans.into_iter().flat_map(|s| s.spans) {
                    let error = span.status.unwrap_or_default().code == 2;
                    let code = int(&span.attributes, CODE);
                    out.push(Item { service: service.clone(), code, error });
                }
            }
        }
        Signal::Logs => {
            for group in request.logs().resource_logs {
                let service = text(&group.resource.unwrap().attributes, "service.name").unwrap();
                for record in group.scope_logs.into_iter().flat_map(|s| s.log_records) {
                    let error = record.severity_number >= 17;
                    out.push(Item { service: service.clone(), code: None, error });
                }
            }
        }
        Signal::Metrics => {
            for group in request.metrics().resource_metrics {
                let service = text(&group.resource.unwrap().attributes, "service.name").unwrap();
                for metric in group.scope_metrics.into_iter().flat_map(|s| s.metrics) {
                    let Some(Data::Sum(sum)) = metric.data else { panic!("not what was sent") };
                    for point in sum.data_points {
                        let code = int(&point.attributes, CODE);
                        out.push(Item { service: service.clone(), code, error: false });
                    }
                }
            }
        }
    }
    out
}

/// A signal goes elsewhere by one line changed and one added; what pipelines collect when the agent ends moves on
/// through all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forward_moves_a_signal_to_another_pipeline() {
    let yaml = "
connectors:
  forward/logs:
  forward/deep:
service:
  pipelines:
    # In no order that would help.
    logs/deep: {receivers: [forward/deep], processors: [batch], exporters: [otlp_grpc/b]}
    traces: {receivers: [otlp], processors: [batch], exporters: [otlp_grpc/a]}
    metrics: {receivers: [otlp], processors: [batch], exporters: [otlp_grpc/a]}
    logs: {receivers: [otlp], processors: [batch], exporters: [forward/logs]}
    logs/elsewhere: {receivers: [forward/logs], processors: [batch], exporters: [forward/deep]}
";
    let (a, b) = run(yaml).await;
    assert_eq!(a.items_of(Signal::Logs), 0);
    assert_eq!((b.items_of(Signal::Traces), b.items_of(Signal::Metrics)), (0, 0));
    assert!(b.items() > 0);
    stored_once(&a, &b);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forward_gives_every_pipeline_everything() {
    let yaml = "
connectors: {forward: }
service:
  pipelines:
    traces: {receivers: [otlp], exporters: [forward]}
    metrics: {receivers: [otlp], processors: [batch], exporters: [forward]}
    logs: {receivers: [otlp], exporters: [forward]}
    traces/a: {receivers: [forward], processors: [batch], exporters: [otlp_grpc/a]}
    traces/b: {receivers: [forward], exporters: [otlp_grpc/b]}
    metrics/a: {receivers: [forward], exporters: [otlp_grpc/a]}
    metrics/b: {receivers: [forward], exporters: [otlp_grpc/b]}
    logs/a: {receivers: [forward], exporters: [otlp_grpc/a]}
    logs/b: {receivers: [forward], processors: [batch], exporters: [otlp_grpc/b]}
";
    let (a, b) = run(yaml).await;
    assert!((1..=ITEMS).all(|n| a.ledger().stored(n) == 1 && b.ledger().stored(n) == 1));
}

/// One table for all signals; what arrives at the connector holds several services in one request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routing_by_attribute() {
    let yaml = "
connectors:
  routing:
    table:
      - {attribute: resource.service.name, regex: '^checkout-[0-2]$', pipelines: [traces/a, metrics/a, logs/a]}
      - {attribute: resource.service.name, value: checkout-5, pipelines: [traces/a, metrics/a, logs/a]}
    default_pipelines: [traces/b, metrics/b, logs/b]
service:
  pipelines:
    traces: {receivers: [otlp], processors: [batch], exporters: [routing]}
    metrics: {receivers: [otlp], processors: [batch], exporters: [routing]}
    logs: {receivers: [otlp], processors: [batch], exporters: [routing]}
    traces/a: {receivers: [routing], exporters: [otlp_grpc/a]}
    metrics/a: {receivers: [routing], processors: [batch], exporters: [otlp_grpc/a]}
    logs/a: {receivers: [routing], exporters: [otlp_grpc/a]}
    traces/b: {receivers: [routing], processors: [batch], exporters: [otlp_grpc/b]}
    metrics/b: {receivers: [routing], exporters: [otlp_grpc/b]}
    logs/b: {receivers: [routing], exporters: [otlp_grpc/b]}
";
    let (a, b) = run(yaml).await;
    let chosen =
        |item: &Item| matches!(&*item.service, "checkout-0" | "checkout-1" | "checkout-2" | "checkout-5");
    let at_a = all_belong(&a, |_, item| chosen(item));
    let at_b = all_belong(&b, |_, item| !chosen(item));
    assert!(at_a > 0 && at_b > 0, "{at_a} {at_b}");
    assert_eq!((at_a + at_b) as u64, ITEMS);
    stored_once(&a, &b);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routing_by_condition() {
    let yaml = "
connectors:
  routing:
    table:
      - {condition: 'log.severity_number >= SEVERITY_NUMBER_ERROR', pipelines: [logs/a]}
      - {context: span, condition: 'status.code == STATUS_CODE_ERROR', pipelines: [traces/a]}
      - context: datapoint
        statement: route() where attributes[\"http.response.status_code\"] >= 203 and resource.attributes[\"service.name\"] != \"checkout-1\"
        pipelines: [metrics/a]
    default_pipelines: [traces/b, metrics/b, logs/b]
service:
  pipelines:
    traces: {receivers: [otlp], processors: [batch], exporters: [routing]}
    metrics: {receivers: [otlp], exporters: [routing]}
    logs: {receivers: [otlp], exporters: [routing]}
    traces/a: {receivers: [routing], exporters: [otlp_grpc/a]}
    metrics/a: {receivers: [routing], exporters: [otlp_grpc/a]}
    logs/a: {receivers: [routing], processors: [batch], exporters: [otlp_grpc/a]}
    traces/b: {receivers: [routing], exporters: [otlp_grpc/b]}
    metrics/b: {receivers: [routing], exporters: [otlp_grpc/b]}
    logs/b: {receivers: [routing], exporters: [otlp_grpc/b]}
";
    let (a, b) = run(yaml).await;
    let chosen = |signal: Signal, item: &Item| match signal {
        Signal::Metrics => item.code.is_some_and(|code| code >= 203) && item.service != "checkout-1",
        Signal::Traces | Signal::Logs => item.error,
    };
    let at_a = all_belong(&a, chosen);
    let at_b = all_belong(&b, |signal, item| !chosen(signal, item));
    assert!(Signal::ALL.into_iter().all(|s| a.items_of(s) > 0 && b.items_of(s) > 0));
    assert_eq!((at_a + at_b) as u64, ITEMS);
    stored_once(&a, &b);
}

/// Tenants by the processor that resolves them, and by the request's own metadata, side by side.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routing_by_tenant_and_by_request() {
    let by_tenant = "
connectors:
  routing:
    table: [{tenant: team-a, pipelines: [logs/team-a]}]
    default_pipelines: [logs/rest]
service:
  pipelines:
    logs: {receivers: [otlp], processors: [tenant, batch], exporters: [routing]}
    logs/team-a: {receivers: [routing], processors: [batch], exporters: [otlp_grpc/a]}
    logs/rest: {receivers: [routing], exporters: [otlp_grpc/b]}
";
    let by_request = by_tenant
        .replace(
            "{tenant: team-a,",
            "{context: request, condition: 'request[\"X-Scope-OrgID\"] == \"team-a\"',",
        )
        .replace("processors: [tenant, batch]", "processors: [batch/metadata]");
    for yaml in [by_tenant, &by_request] {
        let (a, b) = sinks().await;
        let mut agent = start(yaml, &a, &b, "");
        let mut before = (0, 0);
        for (tenant, to_a) in [(Some("team-b"), false), (Some("team-a"), true), (None, false)] {
            let report = load::run(load::Options {
                signals: vec![Signal::Logs],
                headers: tenant.map(|t| ("x-scope-orgid", t.to_owned())).into_iter().collect(),
                items: ITEMS / 3,
                ..load(&agent)
            })
            .await;
            assert_eq!(report.acknowledged, ITEMS / 3, "{report:?}");
            // What is collected is sent at the end only; what the connector has sent to each says enough by then.
            let routed = |pipeline: &str| {
                agent.metric("tidegate_pipeline_received_items", &format!("pipeline=\"{pipeline}\"")) as u64
            };
            let now = (routed("logs/team-a"), routed("logs/rest"));
            assert!(if to_a { now.0 > before.0 } else { now.1 > before.1 }, "{tenant:?}: {before:?} {now:?}");
            before = now;
        }
        stop(&mut agent);
        assert_eq!((a.items(), b.items()), (ITEMS / 3, ITEMS / 3 * 2), "{yaml}");
        assert_eq!((a.violations(), b.violations()), (vec![], vec![]));
    }
}

/// What nobody takes is dropped, acknowledged, and counted to the last item.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_route_takes_is_counted() {
    let yaml = "
connectors:
  routing:
    table: [{attribute: resource.service.name, value: checkout-3, pipelines: [logs/a]}]
service:
  pipelines:
    logs: {receivers: [otlp], exporters: [routing]}
    logs/a: {receivers: [routing], exporters: [otlp_grpc/a]}
";
    let (a, b) = sinks().await;
    let mut agent =
        start(&format!("{yaml}    logs/b: {{receivers: [otlp], exporters: [otlp_grpc/b]}}\n"), &a, &b, "");
    let report = load::run(load::Options { signals: vec![Signal::Logs], ..load(&agent) }).await;
    assert_eq!(report.acknowledged, ITEMS, "{report:?}");
    let unrouted = agent
        .metric("tidegate_dropped_items", "component=\"routing\",data_type=\"logs\",reason=\"unrouted\"");
    stop(&mut agent);
    let at_a = all_belong(&a, |_, item| item.service == "checkout-3");
    let at_b = all_belong(&b, |_, _| true);
    assert!(at_a > 0);
    assert_eq!(at_b as u64, ITEMS, "the pipeline beside it has everything");
    assert_eq!(at_a as u64 + unrouted as u64, ITEMS);
}

/// One backend fails and has no queue, so that senders hear of it and send again: nothing that was acknowledged is
/// missing, and whatever is stored more than once is where it belongs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_destination_loses_nothing_and_leaks_nothing() {
    let yaml = "
connectors:
  routing:
    table: [{attribute: resource.service.name, regex: '[0-3]$', pipelines: [traces/a]}]
    default_pipelines: [traces/b]
  forward:
service:
  pipelines:
    traces: {receivers: [otlp], exporters: [forward]}
    traces/route: {receivers: [forward], processors: [batch/small], exporters: [routing]}
    traces/a: {receivers: [routing], exporters: [otlp_grpc/a]}
    traces/b: {receivers: [routing], exporters: [otlp_grpc/b]}
";
    let (a, b) = sinks().await;
    a.set_faults(Faults { fail: (30, 14), ..Faults::default() });
    let mut agent = start(yaml, &a, &b, "sending_queue: {enabled: false}, ");
    let report = load::run(load::Options { signals: vec![Signal::Traces], ..load(&agent) }).await;
    assert_eq!(report.acknowledged, ITEMS, "{report:?}");
    assert!(a.refused() > 0, "nothing went wrong");
    stop(&mut agent);
    assert_eq!((a.violations(), b.violations()), (vec![], vec![]));
    let chosen = |item: &Item| matches!(item.service.as_bytes().last(), Some(b'0'..=b'3'));
    all_belong(&a, |_, item| chosen(item));
    all_belong(&b, |_, item| !chosen(item));
    for n in (1..=ITEMS).filter(|n| report.books.told(*n) == Told::Acknowledged) {
        let (at_a, at_b) = (a.ledger().stored(n), b.ledger().stored(n));
        assert!(at_a + at_b >= 1, "item {n} was acknowledged and is nowhere");
        assert!(at_a == 0 || at_b == 0, "item {n} is at both");
    }
}
