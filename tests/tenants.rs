//! Real OpenTelemetry SDKs end up under their tenants at every backend: traces over OTLP, metrics over remote write, logs
//! at Loki. A tenant is named by gRPC metadata, by an HTTP header, or by an attribute of single spans, points and records
//! in a request of several tenants, which is split.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "test code"
)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use support::agent::Agent;
use support::loki::{self, Loki};
use support::prometheus::{self, Receiver};
use support::sink::Sink;

const AGENT: &str = "
receivers:
  otlp:
    protocols:
      grpc: {endpoint: '127.0.0.1:@GRPC@', include_metadata: true}
      http: {endpoint: '127.0.0.1:@HTTP@', include_metadata: true}
processors:
  tenant:
    from:
      - metadata: x-scope-orgid
      - attribute: tenant_id
    unresolved: {use: shared}
    attribute: tenant.id
exporters:
  otlp_grpc: {endpoint: '@TRACES@', tls: {insecure: true}}
  prometheus_remote_write: {endpoint: '@METRICS_TO@', tls: {insecure: true}}
  loki: {endpoint: '@LOGS@'}
service:
  pipelines:
    traces: {receivers: [otlp], processors: [tenant], exporters: [otlp_grpc]}
    metrics: {receivers: [otlp], processors: [tenant], exporters: [prometheus_remote_write]}
    logs: {receivers: [otlp], processors: [tenant], exporters: [loki]}
";

/// Runs the SDK's program to its end.
fn emit(agent: &Agent) {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let install = Command::new(repository.join("tests/interop/install")).output().unwrap();
    assert!(install.status.success(), "{}", String::from_utf8_lossy(&install.stderr));
    let mut command = Command::new(repository.join("target/interop/python/bin/python"));
    for (name, _) in std::env::vars() {
        if name.starts_with("OTEL_") || name.to_lowercase().ends_with("_proxy") {
            command.env_remove(name);
        }
    }
    let endpoints = [agent.grpc, agent.http].map(|address| format!("http://{address}"));
    let program = repository.join("tests/interop/python/tenants.py");
    let done = command.arg(program).args(endpoints).env("PYTHONDONTWRITEBYTECODE", "1").output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success() && !err.contains("Failed to export"), "{out}\n{err}");
}

/// A request of remote write has one tenant, and every series in it is that tenant's.
fn only_own_series(headers: &http::HeaderMap, request: &prometheus::Decoded) -> Option<String> {
    let named: Vec<_> = headers.get_all("x-scope-orgid").iter().collect();
    let [tenant] = named[..] else { return Some(format!("tenants {named:?}")) };
    let tenant = tenant.to_str().unwrap_or_default();
    let strange = request.series.iter().find(|series| {
        let label = |name: &str| series.labels.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        // The series about the target itself has the resource's attributes.
        label("owner").or(label("tenant_id")) != Some(tenant)
    });
    strange.map(|series| format!("{:?} under {tenant}", series.labels))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_item_is_under_its_tenant() {
    let traces = Sink::capturing().await;
    let metrics =
        Receiver::start(prometheus::Options { also: Some(Arc::new(only_own_series)), ..Default::default() })
            .await;
    let logs = Loki::start(loki::Options { auth: true, ..Default::default() }).await;
    let mut agent = Agent::builder(env!("CARGO_BIN_EXE_tidegate"), AGENT)
        .mark("TRACES", traces.grpc)
        .mark("METRICS_TO", metrics.url())
        .mark("LOGS", logs.url())
        .start();
    tokio::task::block_in_place(|| emit(&agent));
    let status = tokio::task::block_in_place(|| agent.terminate(Duration::from_secs(20)));
    assert!(status.success(), "{status}; its log:\n{}", agent.log());
    assert_eq!(traces.violations(), Vec::<String>::new());
    assert_eq!(metrics.violations(), Vec::<String>::new());
    assert_eq!(logs.violations(), Vec::<String>::new());

    let want: BTreeMap<String, usize> =
        [("shared", 3), ("team-a", 6), ("team-b", 6), ("team-c", 3)].map(|(t, n)| (t.to_owned(), n)).into();

    let mut spans: BTreeMap<String, usize> = BTreeMap::new();
    for request in traces.captured() {
        let named: Vec<_> = request.headers.get_all("x-scope-orgid").iter().collect();
        assert_eq!(named.len(), 1, "one tenant a request");
        let tenant = named[0].to_str().unwrap().to_owned();
        let is_tenant = |v: Option<&Value>| v == Some(&Value::StringValue(tenant.clone()));
        for group in request.traces().resource_spans {
            let resource = group.resource.unwrap_or_default();
            let value = |attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue], key: &str| {
                attributes.iter().find(|a| a.key == key).and_then(|a| a.value.clone()?.value)
            };
            assert!(is_tenant(value(&resource.attributes, "tenant.id").as_ref()), "{resource:?}");
            for span in group.scope_spans.iter().flat_map(|s| &s.spans) {
                assert!(is_tenant(value(&span.attributes, "owner").as_ref()), "{} under {tenant}", span.name);
                *spans.entry(tenant.clone()).or_default() += 1;
            }
        }
    }
    assert_eq!(spans, want);

    let mut records: BTreeMap<String, usize> = BTreeMap::new();
    for tenant in logs.tenants() {
        for row in logs.query(&tenant, r#"{service_name=~".+"}"#) {
            assert!(row.entry.line.ends_with(&format!(" of {tenant}")), "{} under {tenant}", row.entry.line);
            *records.entry(tenant.clone()).or_default() += 1;
        }
    }
    assert_eq!(records, want);

    // A series an owner and program, each with the sum of what was counted.
    let all = metrics.all();
    let orders = all.keys().filter(|l| l.iter().any(|(n, v)| n == "__name__" && v == "orders_total"));
    assert_eq!(orders.count(), 6, "{:?}", all.keys());
}
