//! Telemetry goes where the YAML says: one line changed sends it elsewhere, and two destinations receive the same.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code"
)]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use support::Signal;
use support::agent::Agent;
use support::load::{self, Target};
use support::sink::{Options, Sink};

const AGENT: &str = "
receivers:
  otlp:
    protocols:
      grpc: {endpoint: '127.0.0.1:@GRPC@'}
processors:
  resource: {attributes: [{key: cluster, value: gpu-west-1, action: upsert}]}
exporters:
  otlp_grpc/a: {endpoint: '@A@', tls: {insecure: true}}
  otlp_http/b: {endpoint: 'http://@B@'}
service:
  pipelines:
    traces: {receivers: [otlp], processors: [resource], exporters: [otlp_grpc/a]}
    metrics: {receivers: [otlp], processors: [resource], exporters: [otlp_grpc/a]}
    logs: {receivers: [otlp], processors: [resource], exporters: [otlp_grpc/a]}
";

const ITEMS: u64 = 6_000;

/// Runs one configuration until everything acknowledged has left, and says what both backends got.
async fn run(yaml: &str) -> (Sink, Sink) {
    let options = Options { items: ITEMS, capture: true, ..Default::default() };
    let (a, b) = (Sink::start(options.clone()).await, Sink::start(options).await);
    let mut agent =
        Agent::builder(env!("CARGO_BIN_EXE_tidegate"), yaml).mark("A", a.grpc).mark("B", b.http).start();
    let report = load::run(load::Options {
        targets: vec![Target::Grpc(agent.grpc)],
        items_per_request: vec![1, 10, 100],
        signals: Signal::ALL.to_vec(),
        items: ITEMS,
        ..Default::default()
    })
    .await;
    assert_eq!(report.acknowledged, ITEMS, "{report:?}");
    let status = tokio::task::block_in_place(|| agent.terminate(Duration::from_secs(30)));
    assert!(status.success());
    assert_eq!((a.violations(), b.violations()), (vec![], vec![]));
    (a, b)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_line_sends_logs_elsewhere() {
    let line = "logs: {receivers: [otlp], processors: [resource], exporters: [otlp_grpc/a]}";
    let (a, b) = run(AGENT).await;
    assert_eq!((a.items(), b.items()), (ITEMS, 0));

    let changed = AGENT.replace(line, &line.replace("otlp_grpc/a", "otlp_http/b"));
    let differing = AGENT.lines().zip(changed.lines()).filter(|(x, y)| x != y).count();
    assert_eq!(differing, 1);
    let (a, b) = run(&changed).await;
    assert_eq!(a.items_of(Signal::Logs), 0);
    assert_eq!((b.items_of(Signal::Traces), b.items_of(Signal::Metrics)), (0, 0));
    assert_eq!(a.items() + b.items(), ITEMS);
    assert!(b.items_of(Signal::Logs) > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_destinations_receive_the_same() {
    let both = AGENT.replace("exporters: [otlp_grpc/a]", "exporters: [otlp_grpc/a, otlp_http/b]");
    let (a, b) = run(&both).await;
    // Each request as bytes, with how often it came: the order may differ.
    let requests = |sink: &Sink| {
        let mut all: BTreeMap<(Signal, Vec<u8>), usize> = BTreeMap::new();
        for request in sink.captured() {
            *all.entry((request.signal, request.body.to_vec())).or_default() += 1;
        }
        all
    };
    assert_eq!((a.items(), b.items()), (ITEMS, ITEMS));
    assert!(requests(&a) == requests(&b), "the two destinations did not receive the same bytes");
    assert!((1..=ITEMS).all(|n| a.ledger().stored(n) == 1 && b.ledger().stored(n) == 1));
}

/// A destination that is down does not delay the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_destination_does_not_stop_the_living_one() {
    let options = Options { items: ITEMS, ..Default::default() };
    let (a, b) = (Sink::start(options.clone()).await, Sink::start(options).await);
    b.leave().await;
    let both = AGENT.replace("exporters: [otlp_grpc/a]", "exporters: [otlp_grpc/a, otlp_http/b]").replace(
        "endpoint: 'http://@B@'",
        "endpoint: 'http://@B@', retry_on_failure: {initial_interval: 50ms, max_interval: 200ms}",
    );
    let agent =
        Agent::builder(env!("CARGO_BIN_EXE_tidegate"), &both).mark("A", a.grpc).mark("B", b.http).start();
    let report = load::run(load::Options {
        targets: vec![Target::Grpc(agent.grpc)],
        items_per_request: vec![100],
        signals: Signal::ALL.to_vec(),
        items: ITEMS,
        ..Default::default()
    })
    .await;
    assert_eq!(report.acknowledged, ITEMS, "{report:?}");
    support::eventually(Duration::from_secs(10), "the living destination has all", || a.items() == ITEMS)
        .await;
    assert_eq!(b.items(), 0);
    b.come_back().await;
    support::eventually(Duration::from_secs(20), "the dead destination catches up", || b.items() >= ITEMS)
        .await;
    assert!((1..=ITEMS).all(|n| b.ledger().stored(n) >= 1));
}
