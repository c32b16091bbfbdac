//! Nothing is lost silently: what clients were told about each item is true of that item at the destination.
//!
//! Mixed signals over gRPC and HTTP from sixteen connections, through `batch`, `resource` and `attributes`, to a
//! backend that refuses one request in ten, answers late, closes connections in the middle of requests, loses
//! answers after storing and is away altogether for a while. At the end: sent = delivered + refused by id; an item
//! stored twice needs an answer that was lost; every item went through the edits.
//!
//! `TIDEGATE_ITEMS` sets how many items (2 000 000 for the full promise), `TIDEGATE_AWAY` for how many seconds the
//! backend is away.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code"
)]

mod support;

use std::time::Duration;

use support::agent::Agent;
use support::load::{self, Target, Told};
use support::sink::{Faults, Options, Sink};
use support::{Compression, Signal, from_env, grpc};

const AGENT: &str = "
receivers:
  otlp:
    protocols:
      grpc: {endpoint: '127.0.0.1:@GRPC@'}
      http: {endpoint: '127.0.0.1:@HTTP@'}
processors:
  memory_limiter: {check_interval: 1s, limit_mib: 256}
  resource: {attributes: [{key: cluster, value: gpu-west-1, action: upsert}]}
  attributes: {actions: [{key: passed.through, value: tidegate, action: insert}]}
  batch: {timeout: 50ms, send_batch_size: 500, send_batch_max_size: 1000}
exporters:
  otlp_grpc:
    endpoint: '@TO@'
    tls: {insecure: true}
    compression: @COMPRESSION@
    timeout: 5s
    retry_on_failure: {initial_interval: 20ms, max_interval: 500ms, max_elapsed_time: 0s}
    sending_queue: {sizer: bytes, queue_size: @QUEUE@}
service:
  pipelines:
    traces: {receivers: [otlp], processors: [memory_limiter, resource, attributes, batch], exporters: [otlp_grpc]}
    metrics: {receivers: [otlp], processors: [memory_limiter, resource, attributes, batch], exporters: [otlp_grpc]}
    logs: {receivers: [otlp], processors: [memory_limiter, resource, attributes, batch], exporters: [otlp_grpc]}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_are_told_is_what_the_backend_has() {
    let items = from_env("TIDEGATE_ITEMS", 200_000);
    let away = Duration::from_secs(from_env("TIDEGATE_AWAY", if items >= 2_000_000 { 10 } else { 3 }));
    let sink = Sink::start(Options { items, ..Default::default() }).await;
    sink.set_faults(Faults {
        cut: 1,
        fail: (10, grpc::UNAVAILABLE),
        throttle: (1, Duration::from_millis(50)),
        lose_answer: 1,
        delay: (10, Duration::from_millis(100)),
        ..Default::default()
    });
    let mut agent = Agent::builder(env!("CARGO_BIN_EXE_tidegate"), AGENT)
        .mark("TO", sink.grpc)
        .mark("COMPRESSION", "zstd")
        .mark("QUEUE", 8 << 20)
        .start();
    let running = load::start(load::Options {
        targets: vec![Target::Grpc(agent.grpc), Target::Http(agent.http)],
        connections: 16,
        in_flight: 4,
        items_per_request: vec![10, 100, 512],
        signals: Signal::ALL.to_vec(),
        compressions: vec![Compression::None, Compression::Gzip, Compression::Zstd],
        items,
        ..Default::default()
    });
    support::eventually(Duration::from_secs(120), "a third is acknowledged", || {
        running.acknowledged() > items / 3
    })
    .await;
    sink.leave().await;
    tokio::time::sleep(away).await;
    sink.come_back().await;
    let report = running.finish().await;
    // What is queued leaves while the backend still misbehaves.
    support::eventually(Duration::from_secs(120), "everything acknowledged is stored", || {
        sink.items() >= items && (1..=items).all(|n| sink.ledger().stored(n) > 0)
    })
    .await;
    let peak = agent.peak_rss() >> 20;
    let status = tokio::task::block_in_place(|| agent.terminate(Duration::from_secs(60)));
    assert!(status.success(), "{status}; its log:\n{}", agent.log());

    assert_eq!(report.sent, items);
    assert_eq!(report.acknowledged + report.refused, items, "every item has an outcome: {report:?}");
    assert!(report.permanent.is_empty(), "good data was refused for good: {:?}", report.permanent);
    let ledger = sink.ledger();
    assert_eq!(ledger.unknown(), 0, "items arrived that nobody sent");
    assert_eq!(sink.violations(), Vec::<String>::new());
    let (mut missing, mut unexcused, mut surprising, mut twice) = (vec![], vec![], vec![], 0u64);
    for n in 1..=items {
        let stored = ledger.stored(n);
        // A client that got no answer sends again, and the agent then has both.
        let excused = 1 + ledger.unanswered(n) + report.books.resent_unanswered(n);
        match report.books.told(n) {
            Told::Acknowledged if stored == 0 => missing.push(n),
            Told::Refused if stored > 0 && report.books.resent_unanswered(n) == 0 => surprising.push(n),
            _ if stored > excused => unexcused.push(n),
            _ => {}
        }
        twice += u64::from(stored > 1);
    }
    let head = |v: &Vec<u64>| (v.len(), v.iter().take(10).copied().collect::<Vec<_>>());
    assert!(missing.is_empty(), "acknowledged and missing: {:?}", head(&missing));
    assert!(surprising.is_empty(), "refused and yet delivered: {:?}", head(&surprising));
    assert!(unexcused.is_empty(), "stored more often than lost answers excuse: {:?}", head(&unexcused));
    let (good, bad) = (sink.requests(), sink.refused());
    assert!(bad * 20 > good && twice > 0, "the backend hardly misbehaved: {bad} requests of {good}");
    println!(
        "{items} items in {:.1?}: {} acknowledged, {} refused; {} stored more than once, each with a lost answer; \
         the backend broke or refused {} requests; peak RSS {} MiB",
        report.elapsed, report.acknowledged, report.refused, twice, bad, peak,
    );
}

/// Without a queue the acknowledgement means "delivered", so it has to be true at the moment it is given, and a
/// kill loses nothing that was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_queue_an_acknowledgement_means_delivered() {
    let items = 50_000;
    let sink = Sink::start(Options { items, ..Default::default() }).await;
    sink.set_faults(Faults {
        fail: (5, grpc::UNAVAILABLE),
        lose_answer: 1,
        delay: (5, Duration::from_millis(20)),
        ..Default::default()
    });
    let yaml = AGENT.replace("{sizer: bytes, queue_size: @QUEUE@}", "{enabled: false}");
    let mut agent = Agent::builder(env!("CARGO_BIN_EXE_tidegate"), &yaml)
        .mark("TO", sink.grpc)
        .mark("COMPRESSION", "none")
        .start();
    let running = load::start(load::Options {
        targets: vec![Target::Grpc(agent.grpc)],
        connections: 4,
        items_per_request: vec![100],
        signals: Signal::ALL.to_vec(),
        items,
        retry_for: Duration::from_secs(2),
        ..Default::default()
    });
    support::eventually(Duration::from_secs(60), "half is acknowledged", || {
        running.acknowledged() > items / 2
    })
    .await;
    agent.kill();
    running.stop();
    let report = running.finish().await;
    let acknowledged: Vec<u64> =
        (1..=report.sent).filter(|n| report.books.told(*n) == Told::Acknowledged).collect();
    assert!(acknowledged.len() as u64 >= items / 2);
    let missing: Vec<u64> = acknowledged.into_iter().filter(|n| sink.ledger().stored(*n) == 0).collect();
    assert!(missing.is_empty(), "acknowledged, killed, missing: {} items", missing.len());
}

/// Every item passed the edits on its way, whatever it came with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_item_is_edited() {
    let items = 3_000;
    let sink = Sink::start(Options { items, capture: true, ..Default::default() }).await;
    let mut agent = Agent::builder(env!("CARGO_BIN_EXE_tidegate"), AGENT)
        .mark("TO", sink.grpc)
        .mark("COMPRESSION", "gzip")
        .mark("QUEUE", 32 << 20)
        .start();
    let report = load::run(load::Options {
        targets: vec![Target::Grpc(agent.grpc), Target::Http(agent.http)],
        connections: 2,
        items_per_request: vec![1, 10, 100],
        signals: Signal::ALL.to_vec(),
        compressions: vec![Compression::None, Compression::Gzip, Compression::Zstd],
        items,
        ..Default::default()
    })
    .await;
    assert_eq!(report.acknowledged, items, "{report:?}");
    let status = tokio::task::block_in_place(|| agent.terminate(Duration::from_secs(30)));
    assert!(status.success());
    assert!((1..=items).all(|n| sink.ledger().stored(n) == 1));
    let has = |attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue], key: &str| {
        attributes.iter().filter(|a| a.key == key).count() == 1
    };
    let mut seen = 0u64;
    for request in sink.captured() {
        match request.signal {
            Signal::Traces => {
                for r in request.traces().resource_spans {
                    assert!(has(&r.resource.unwrap().attributes, "cluster"));
                    for span in r.scope_spans.iter().flat_map(|s| &s.spans) {
                        assert!(has(&span.attributes, "passed.through") && span.attributes.len() == 11);
                        seen += 1;
                    }
                }
            }
            Signal::Logs => {
                for r in request.logs().resource_logs {
                    assert!(has(&r.resource.unwrap().attributes, "cluster"));
                    for log in r.scope_logs.iter().flat_map(|s| &s.log_records) {
                        assert!(has(&log.attributes, "passed.through") && log.attributes.len() == 11);
                        seen += 1;
                    }
                }
            }
            Signal::Metrics => {
                use opentelemetry_proto::tonic::metrics::v1::metric::Data;
                for r in request.metrics().resource_metrics {
                    assert!(has(&r.resource.unwrap().attributes, "cluster"));
                    for metric in r.scope_metrics.iter().flat_map(|s| &s.metrics) {
                        let Some(Data::Sum(sum)) = &metric.data else { panic!("a sum was sent") };
                        for point in &sum.data_points {
                            assert!(has(&point.attributes, "passed.through") && point.attributes.len() == 6);
                            seen += 1;
                        }
                    }
                }
            }
        }
    }
    assert_eq!(seen, items);
}
