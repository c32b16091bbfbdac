//! `prometheus_remote_write` against a receiver that finds every broken rule: what was acknowledged is stored once,
//! in order, bit by bit, whatever goes wrong on the way, in both versions of the protocol.
//!
//! `TIDEGATE_SERIES` sets how many streams the random load has (100 000 for the full promise), `TIDEGATE_SEED` which
//! load it is.

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

#[path = "remote_write/answers.rs"]
mod answers;
#[path = "remote_write/everything.rs"]
mod everything;
#[path = "remote_write/model.rs"]
mod model;
#[path = "remote_write/options.rs"]
mod options;

use support::agent::Agent;
use support::prometheus::Receiver;

const AGENT: &str = "
receivers:
  otlp:
    protocols:
      grpc: {endpoint: '127.0.0.1:@GRPC@'}
      http: {endpoint: '127.0.0.1:@HTTP@', include_metadata: true}
exporters:
  prometheus_remote_write:
    endpoint: '@TO@'
    timeout: 10s
    retry_on_failure: {initial_interval: 5ms, max_interval: 50ms, max_elapsed_time: 0s}
@MORE@
service:
  pipelines:
    metrics: {receivers: [otlp], exporters: [prometheus_remote_write]}
";

const TWO: &str = "protobuf_message: io.prometheus.write.v2.Request";

/// An agent that writes to `to`, with more keys of the exporter.
fn agent(to: &Receiver, more: &[&str]) -> Agent {
    let more: Vec<String> = more.iter().map(|line| format!("    {line}")).collect();
    Agent::builder(env!("CARGO_BIN_EXE_tidegate"), AGENT)
        .mark("TO", to.url())
        .mark("MORE", more.join("\n"))
        .start()
}
