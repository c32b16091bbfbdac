//! Real OpenTelemetry SDKs send through the agent, and what arrives is what they were told to send, field for
//! field: names, ids, every kind of attribute and body, events, links, status, metric points, exemplars, scope,
//! resource, schema URLs, times to the nanosecond.
//!
//! `interop/telemetry.json` says what to emit; a program per SDK emits it and prints the ids its SDK chose. The
//! same comparison runs with the SDK connected straight to the backend, which shows that a difference found
//! behind the agent is the agent's.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code"
)]

mod support;

#[path = "interop/canonical.rs"]
mod canonical;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::time::Duration;

use serde_json::Value;
use support::Signal;
use support::agent::Agent;
use support::sink::Sink;

const PROTOCOLS: [&str; 3] = ["grpc", "http/protobuf", "http/json"];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The SDKs, installed once.
fn installed() -> PathBuf {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        let done = Command::new(repository().join("tests/interop/install")).output().unwrap();
        assert!(
            done.status.success(),
            "tests/interop/install failed; it needs python3 with venv, node and npm:\n{}",
            String::from_utf8_lossy(&done.stderr)
        );
    });
    repository().join("target/interop")
}

/// Runs one SDK's program to its end and returns what it says.
fn emit(sdk: &str, protocol: &str, endpoint: &str) -> Value {
    let installed = installed();
    let sources = repository().join("tests/interop");
    let mut command = match sdk {
        "python" => {
            let mut command = Command::new(installed.join("python/bin/python"));
            command.arg(sources.join("python/emit.py"));
            command
        }
        _ => {
            let mut command = Command::new("node");
            command.arg(sources.join("node/emit.js")).env("NODE_PATH", installed.join("node/node_modules"));
            command
        }
    };
    // What a developer's shell sets for its own SDKs must not reach these.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("OTEL_")) {
        command.env_remove(name);
    }
    for name in
        ["http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"]
    {
        command.env_remove(name);
    }
    let done = command.args([protocol, endpoint]).env("PYTHONDONTWRITEBYTECODE", "1").output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{sdk} {protocol}:\n{out}\n{err}");
    let said: Value =
        serde_json::from_str(out.trim()).unwrap_or_else(|e| panic!("{sdk}: {e}:\n{out}\n{err}"));
    assert_eq!(said["delivered"], true, "{sdk} {protocol}: the exporter reports a failure:\n{err}");
    said
}

fn endpoint(protocol: &str, grpc: std::net::SocketAddr, http: std::net::SocketAddr) -> String {
    format!("http://{}", if protocol == "grpc" { grpc } else { http })
}

/// Waits for all three signals and compares them.
async fn compare(label: &str, sink: &Sink, said: &Value) {
    let told: Value = serde_json::from_str(
        &std::fs::read_to_string(repository().join("tests/interop/telemetry.json")).unwrap(),
    )
    .unwrap();
    let want = canonical::expected(&told, said);
    support::eventually(Duration::from_secs(15), &format!("{label}: every signal has arrived"), || {
        let all = Signal::ALL.into_iter().all(|s| sink.items_of(s) >= want.items(s));
        all || !sink.violations().is_empty()
    })
    .await;
    assert_eq!(sink.violations(), Vec::<String>::new(), "{label}");
    let got = canonical::arrived(&sink.captured(), &told);
    for signal in Signal::ALL {
        let (want, got) = (want.text(signal), got.text(signal));
        assert!(want == got, "{label}: {} differ\n{}", signal.name(), canonical::difference(&want, &got));
    }
}

async fn directly(sdk: &str) {
    for protocol in PROTOCOLS {
        let sink = Sink::capturing().await;
        let said = emit_beside(sdk, protocol, endpoint(protocol, sink.grpc, sink.http)).await;
        assert!(sink.captured().iter().all(|c| c.protocol == protocol));
        compare(&format!("{sdk} {protocol} straight to the backend"), &sink, &said).await;
    }
}

/// Runs an SDK's program without keeping the sink's tasks from running.
async fn emit_beside(sdk: &str, protocol: &'static str, endpoint: String) -> Value {
    let sdk = sdk.to_owned();
    tokio::task::spawn_blocking(move || emit(&sdk, protocol, &endpoint)).await.unwrap()
}

async fn through_the_agent(sdk: &str) {
    for protocol in PROTOCOLS {
        let (over_grpc, over_http) = (Sink::capturing().await, Sink::capturing().await);
        let agent = Agent::builder(env!("CARGO_BIN_EXE_tidegate"), AGENT)
            .mark("TO_GRPC", over_grpc.grpc)
            .mark("TO_HTTP", over_http.http)
            .start();
        let said = emit_beside(sdk, protocol, endpoint(protocol, agent.grpc, agent.http)).await;
        compare(&format!("{sdk} {protocol} through the agent, out over gRPC"), &over_grpc, &said).await;
        compare(&format!("{sdk} {protocol} through the agent, out over HTTP"), &over_http, &said).await;
    }
}

const AGENT: &str = "
receivers:
  otlp:
    protocols:
      grpc: {endpoint: '127.0.0.1:@GRPC@'}
      http: {endpoint: '127.0.0.1:@HTTP@'}
processors:
  batch: {timeout: 50ms}
exporters:
  otlp_grpc: {endpoint: '@TO_GRPC@', tls: {insecure: true}}
  otlp_http: {endpoint: 'http://@TO_HTTP@', compression: zstd}
service:
  pipelines:
    traces: {receivers: [otlp], processors: [batch], exporters: [otlp_grpc, otlp_http]}
    metrics: {receivers: [otlp], processors: [batch], exporters: [otlp_grpc, otlp_http]}
    logs: {receivers: [otlp], processors: [batch], exporters: [otlp_grpc, otlp_http]}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_sdk_straight_to_the_backend() {
    directly("python").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_sdk_straight_to_the_backend() {
    directly("node").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_sdk_through_the_agent() {
    through_the_agent("python").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_sdk_through_the_agent() {
    through_the_agent("node").await;
}
