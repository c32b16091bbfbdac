//! Python's `logging` through the OpenTelemetry SDK, found as a user would look for it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::{AGENT, JSON, agent, arrived};
use crate::support::agent::Agent;
use crate::support::loki::{Loki, Options, Row, SINGLE};

/// Runs the SDK's program and returns what it logged.
fn log(endpoint: &str) -> Value {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let install = Command::new(repository.join("tests/interop/install")).output().unwrap();
    assert!(install.status.success(), "{}", String::from_utf8_lossy(&install.stderr));
    let mut command = Command::new(repository.join("target/interop/python/bin/python"));
    for (name, _) in std::env::vars() {
        if name.starts_with("OTEL_") || name.to_lowercase().ends_with("_proxy") {
            command.env_remove(name);
        }
    }
    let program = repository.join("tests/interop/python/logs.py");
    let done = command.arg(program).arg(endpoint).env("PYTHONDONTWRITEBYTECODE", "1").output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{out}\n{err}");
    serde_json::from_str(out.trim()).unwrap_or_else(|e| panic!("{e}:\n{out}\n{err}"))
}

fn lines(rows: &[Row]) -> Vec<&str> {
    rows.iter().map(|row| row.entry.line.as_str()).collect()
}

/// What was logged is found by the queries that users write; labels are few.
fn find(loki: &Loki, told: &Value, exactly: &[(&str, &str)]) {
    let find = |query: &str| loki.query(SINGLE, query);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = find(r#"{service_name="checkout"}"#);
    let messages: Vec<String> = told["messages"].as_array().unwrap().iter().map(text).collect();
    assert_eq!(lines(&all), messages);
    for row in &all {
        let labels: Vec<(&str, &str)> = row.labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(labels, exactly);
    }
    // Attributes are structured metadata: no selector finds them, filters do.
    for (query, want) in [
        (r#"{tenant_id="acme"}"#, &[][..]),
        (r#"{service_name="checkout"} | tenant_id="acme""#, &[0, 2, 4]),
        (r#"{service_name="checkout", service_namespace="shop"} | tenant_id="Ünïcode & co""#, &[1]),
        (r#"{service_name="checkout"} | tenant_id="acme" | user_id="42" | request_id="r-3""#, &[2]),
        (r#"{service_name="checkout"} | tenant_id="nobody""#, &[]),
        (r#"{service_name="checkout"} |= "second line""#, &[2]),
        (r#"{service_name="checkout"} | severity_text=~"WARN.*""#, &[1]),
        (r#"{service_name="checkout"} | detected_level="error""#, &[3]),
        (r#"{service_name="checkout"} | exception_type="ZeroDivisionError""#, &[3]),
        (r#"{service_name="checkout"} | k8s_pod_name="checkout-1""#, &[0, 1, 2, 3, 4]),
        (r#"{k8s_pod_name="checkout-1"}"#, &[]),
    ] {
        let rows = find(query);
        let want: Vec<&str> = want.iter().map(|n: &usize| messages[*n].as_str()).collect();
        assert_eq!(lines(&rows), want, "{query}");
    }
    let failed = &all[3].entry;
    assert!(failed.get("exception_stacktrace").unwrap().contains("\nZeroDivisionError: "), "{failed:?}");
    assert_eq!(failed.get("exception_message"), Some("division by zero"));
    let traced = find(&format!("{{service_name=\"checkout\"}} | trace_id={}", told["trace_id"]));
    assert_eq!(lines(&traced), [messages[4].as_str()]);
    assert_eq!(traced[0].entry.get("span_id"), told["span_id"].as_str());
    assert_eq!(traced[0].entry.get("scope_name"), Some("shop.checkout"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_logs_are_found_by_a_users_query() {
    let labels = [("service_name", "checkout"), ("service_namespace", "shop")];
    for encoding in ["encoding: protobuf", JSON] {
        let loki = Loki::start(Options::default()).await;
        let mut agent = agent(&loki, &[encoding]);
        let told = tokio::task::block_in_place(|| log(&format!("http://{}", agent.http)));
        arrived(&loki, 5).await;
        let status = tokio::task::block_in_place(|| agent.terminate(Duration::from_secs(20)));
        assert!(status.success() && loki.violations().is_empty(), "{:?}", loki.violations());
        find(&loki, &told, &labels);
    }
}

/// Loki's own endpoint does the same with two labels more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_logs_over_lokis_otlp_endpoint() {
    let from = AGENT.find("  loki:").unwrap();
    let to = AGENT.find("service:").unwrap();
    for more in ["encoding: proto", "encoding: json", "compression: zstd", "compression: none"] {
        let loki = Loki::start(Options::default()).await;
        let exporter = format!("  otlp_http:\n    endpoint: '{}'\n    {more}\n", loki.otlp());
        let yaml = AGENT[..from].to_owned() + &exporter + &AGENT[to..].replace("[loki]", "[otlp_http]");
        let mut agent = Agent::builder(env!("CARGO_BIN_EXE_tidegate"), &yaml).start();
        let told = tokio::task::block_in_place(|| log(&format!("http://{}", agent.http)));
        arrived(&loki, 5).await;
        let status = tokio::task::block_in_place(|| agent.terminate(Duration::from_secs(20)));
        assert!(status.success(), "{status}");
        let rows = loki.query(SINGLE, r#"{service_name="checkout"} | tenant_id="acme""#);
        assert_eq!(rows.len(), 3, "{more}");
        let pod = rows[0].label("k8s_pod_name");
        assert_eq!((pod, rows[0].entry.get("k8s_pod_name")), (Some("checkout-1"), None), "{more}");
        assert_eq!(lines(&rows)[0], told["messages"][0].as_str().unwrap());
        assert_eq!(loki.requests()[0].path, "/otlp/v1/logs");
    }
}
