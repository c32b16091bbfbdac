//! Metrics through the agent into a real Prometheus server: every label, value and time stored there is what was
//! sent in OTLP, and PromQL over it gives what the numbers say.
//!
//! What is expected is written down here as text, from the rules of the OpenTelemetry specification for Prometheus,
//! and computed by this test alone. The server is the one in `PATH`, or what `prometheus/install` fetches.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "test code"
)]

mod support;

#[path = "prometheus_real/expected.rs"]
mod expected;
#[path = "prometheus_real/promql.rs"]
mod promql;
#[path = "prometheus_real/sdk.rs"]
mod sdk;
#[path = "prometheus_real/server.rs"]
mod server;
#[path = "prometheus_real/values.rs"]
mod values;

use support::agent::Agent;

const AGENT: &str = "
receivers:
  otlp:
    protocols:
      grpc: {endpoint: '127.0.0.1:@GRPC@'}
      http: {endpoint: '127.0.0.1:@HTTP@'}
exporters:
  prometheus_remote_write: {endpoint: '@TO@', protobuf_message: @MESSAGE@}
service:
  pipelines:
    metrics: {receivers: [otlp], exporters: [prometheus_remote_write]}
";

const ONE: &str = "prometheus.WriteRequest";
const TWO: &str = "io.prometheus.write.v2.Request";

fn agent(to: &server::Prometheus, message: &str) -> Agent {
    Agent::builder(env!("CARGO_BIN_EXE_tidegate"), AGENT)
        .mark("TO", to.write_url())
        .mark("MESSAGE", message)
        .start()
}
