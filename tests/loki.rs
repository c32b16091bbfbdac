//! `loki` against a Loki that refuses what the real one refuses: labels, lines and metadata are what they should be,
//! nothing is ever bounced by a limit that is known, what was acknowledged is stored once and in order per stream
//! whatever goes wrong on the way, and a user's query finds it.
//!
//! `TIDEGATE_ITEMS` sets how many records the random load has, `TIDEGATE_SEED` which load it is.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "test code"
)]
#![allow(clippy::disallowed_methods, reason = "tests have no supervisor")]

mod support;

#[path = "loki/answers.rs"]
mod answers;
#[path = "loki/conservation.rs"]
mod conservation;
#[path = "loki/limits.rs"]
mod limits;
#[path = "loki/mapping.rs"]
mod mapping;
#[path = "loki/random.rs"]
mod random;
#[path = "loki/ready.rs"]
mod ready;
#[path = "loki/sdk.rs"]
mod sdk;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use support::agent::Agent;
use support::loki::{Loki, now};
use support::otlp::{ToValue, attributes};
use support::{eventually, http};

const AGENT: &str = "
receivers:
  otlp:
    protocols:
      grpc: {endpoint: '127.0.0.1:@GRPC@'}
      http: {endpoint: '127.0.0.1:@HTTP@'}
exporters:
  loki:
    endpoint: '@TO@'
    retry_on_failure: {initial_interval: 5ms, max_interval: 50ms, max_elapsed_time: 0s}
@MORE@
service:
  pipelines:
    logs: {receivers: [otlp], exporters: [loki]}
";

const JSON: &str = "encoding: json";

/// An agent that pushes to `to`, with more keys of the exporter.
fn agent(to: &Loki, more: &[&str]) -> Agent {
    let more: Vec<String> = more.iter().map(|line| format!("    {line}")).collect();
    Agent::builder(env!("CARGO_BIN_EXE_tidegate"), AGENT)
        .mark("MORE", more.join("\n"))
        .mark("TO", to.url())
        .start()
}

/// A record of this moment.
fn record(body: impl ToValue, pairs: &[(&str, &dyn ToValue)]) -> LogRecord {
    LogRecord {
        time_unix_nano: now() as u64,
        body: Some(AnyValue { value: Some(body.to_value()) }),
        attributes: attributes(pairs),
        ..Default::default()
    }
}

/// Records of one resource, of one scope or of none.
fn logs(
    resource: Vec<KeyValue>,
    scope: Option<InstrumentationScope>,
    log_records: Vec<LogRecord>,
) -> ResourceLogs {
    ResourceLogs {
        resource: Some(Resource { attributes: resource, ..Default::default() }),
        scope_logs: vec![ScopeLogs { scope, log_records, ..Default::default() }],
        ..Default::default()
    }
}

/// Sends as an SDK does; the status, and what is said when it is not 200.
fn try_send(to: SocketAddr, body: &[u8]) -> Result<(), String> {
    match http::request(to, "POST", "/v1/logs", &[("content-type", "application/x-protobuf")], body)? {
        (200, _) => Ok(()),
        (status, body) => Err(format!("{status}: {}", String::from_utf8_lossy(&body))),
    }
}

/// Sends what must be taken.
fn send(agent: &Agent, resource_logs: Vec<ResourceLogs>) {
    let body = ExportLogsServiceRequest { resource_logs }.encode_to_vec();
    tokio::task::block_in_place(|| try_send(agent.http, &body)).unwrap();
}

/// Records that were delivered.
fn sent(agent: &Agent) -> u64 {
    agent.metric("otelcol_exporter_sent_log_records", "") as u64
}

/// Records given up on, by reason.
fn dropped(metrics: &str) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for line in metrics.lines().filter(|l| l.starts_with("tidegate_dropped_items{")) {
        let reason = line.split("reason=\"").nth(1).unwrap().split('"').next().unwrap();
        let count: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        if count > 0.0 {
            *all.entry(reason.to_owned()).or_default() += count as u64;
        }
    }
    all
}

/// Waits until `count` records have ended one way or the other, stops the agent, and says what it counted as dropped.
async fn finish(agent: &mut Agent, loki: &Loki, count: u64) -> BTreeMap<String, u64> {
    let mut last = (0, BTreeMap::new());
    let ended = |last: &(u64, BTreeMap<String, u64>)| last.0 + last.1.values().sum::<u64>();
    let mut moved = Instant::now();
    while ended(&last) < count || loki.in_flight() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let before = ended(&last);
        if let Ok(told) = agent.scrape() {
            last = (sent(agent), dropped(&told));
        }
        if ended(&last) > before {
            moved = Instant::now();
        }
        let stuck = moved.elapsed() > Duration::from_secs(30);
        assert!(!stuck, "{count} records have not ended: {last:?}; rejected: {:?}", loki.rejections());
    }
    let status = tokio::task::block_in_place(|| agent.terminate(Duration::from_secs(20)));
    assert!(status.success(), "{status}");
    assert_eq!(loki.violations(), Vec::<String>::new());
    assert_eq!(ended(&last), count, "each ends once: {last:?}");
    last.1
}

/// Waits for entries.
async fn arrived(loki: &Loki, count: usize) {
    eventually(Duration::from_secs(15), &format!("{count} entries are stored"), || {
        let rejected = loki.rejections();
        assert_eq!(rejected, Vec::<String>::new());
        loki.stored() >= count
    })
    .await;
}
