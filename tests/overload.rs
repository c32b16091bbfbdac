//! Clients push as fast as they can and the backend has stopped answering: memory stays bounded, every refusal
//! may be retried, and service is back as soon as the backend is.
//!
//! `TIDEGATE_OVERLOAD_SECONDS` sets for how long (60 for the full promise).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code"
)]

mod support;

use std::time::{Duration, Instant};

use support::agent::Agent;
use support::load::{self, Target, Told};
use support::sink::{Faults, Options, Sink};
use support::{Compression, Signal, from_env};

/// The budget in the YAML below, and what the process may have beyond it.
const LIMIT_MIB: u64 = 128;
const ALLOWANCE_MIB: u64 = 32;

const AGENT: &str = "
receivers:
  otlp:
    protocols:
      grpc: {endpoint: '127.0.0.1:@GRPC@'}
      http: {endpoint: '127.0.0.1:@HTTP@'}
processors:
  memory_limiter: {check_interval: 1s, limit_mib: 128}
  batch:
exporters:
  otlp_grpc:
    endpoint: '@TO@'
    tls: {insecure: true}
    compression: none
    timeout: 5s
    sending_queue: {sizer: bytes, queue_size: 1073741824}
service:
  pipelines:
    traces: {receivers: [otlp], processors: [memory_limiter, batch], exporters: [otlp_grpc]}
    metrics: {receivers: [otlp], processors: [memory_limiter, batch], exporters: [otlp_grpc]}
    logs: {receivers: [otlp], processors: [memory_limiter, batch], exporters: [otlp_grpc]}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_backend_costs_refusals_not_memory_and_not_data() {
    let seconds = from_env("TIDEGATE_OVERLOAD_SECONDS", 10);
    // More numbers than clients can use up in that time.
    let items = seconds * 1_000_000;
    let sink = Sink::start(Options { items, ..Default::default() }).await;
    sink.set_faults(Faults { hang: true, ..Default::default() });
    let mut agent = Agent::builder(env!("CARGO_BIN_EXE_tidegate"), AGENT).mark("TO", sink.grpc).start();
    let running = load::start(load::Options {
        targets: vec![Target::Grpc(agent.grpc), Target::Http(agent.http)],
        connections: 4,
        in_flight: 8,
        items_per_request: vec![512],
        signals: Signal::ALL.to_vec(),
        compressions: vec![Compression::None, Compression::Zstd],
        items,
        // As fast as they can: a refused client is back at once, whatever it was asked to wait.
        max_backoff: Duration::from_millis(20),
        retry_for: Duration::from_secs(5),
        ..Default::default()
    });
    let (start, mut most) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(seconds) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(agent.is_running(), "the agent died under load");
        most = most.max(agent.rss());
    }
    let most_mib = most.max(agent.peak_rss()) >> 20;
    let ceiling = LIMIT_MIB + ALLOWANCE_MIB;
    assert!(most_mib < ceiling, "RSS reached {most_mib} MiB, allowed are {ceiling}");
    assert_eq!(sink.items(), 0, "the backend did not hang");

    // Back: acknowledgements of new data flow within two seconds.
    let before = running.acknowledged();
    sink.set_faults(Faults::default());
    let back = Instant::now();
    support::eventually(Duration::from_secs(2), "service resumes", || running.acknowledged() > before).await;
    let resumed = back.elapsed();
    support::eventually(Duration::from_secs(10), "much gets through again", || {
        running.acknowledged() > before + 20_000
    })
    .await;
    running.stop();
    let report = running.finish().await;
    assert!(!report.retryable.is_empty(), "nothing was refused: no overload");
    assert!(report.permanent.is_empty(), "refusals that must not be retried: {:?}", report.permanent);
    let log = agent.log();
    let status = tokio::task::block_in_place(|| agent.terminate(Duration::from_secs(60)));
    assert!(status.success(), "{status}\n{log}");
    let acknowledged = (1..=report.sent).filter(|n| report.books.told(*n) == Told::Acknowledged);
    let missing = acknowledged.filter(|n| sink.ledger().stored(*n) == 0).count();
    assert_eq!(missing, 0, "acknowledged under overload and missing");
    println!(
        "{seconds} s against a hanging backend: RSS at most {most_mib} MiB with {LIMIT_MIB} MiB allowed to data; \
         {} items acknowledged, refusals {:?}; service back after {resumed:.1?}",
        report.acknowledged, report.retryable
    );
}
