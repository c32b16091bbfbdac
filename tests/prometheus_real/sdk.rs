//! What the OpenTelemetry SDK for Python was told to record is what Prometheus has, export by export.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::server::{Floats, Labels, Prometheus};
use super::{ONE, agent};
use crate::support::prometheus::now;

/// Runs the SDK's program and returns what it recorded.
fn record(endpoint: &str) -> Value {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let install = Command::new(repository.join("tests/interop/install")).output().unwrap();
    assert!(install.status.success(), "{}", String::from_utf8_lossy(&install.stderr));
    let mut command = Command::new(repository.join("target/interop/python/bin/python"));
    for (name, _) in std::env::vars() {
        if name.starts_with("OTEL_") || name.to_lowercase().ends_with("_proxy") {
            command.env_remove(name);
        }
    }
    let program = repository.join("tests/interop/python/metrics.py");
    let done = command.arg(program).arg(endpoint).env("PYTHONDONTWRITEBYTECODE", "1").output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{out}\n{err}");
    serde_json::from_str(out.trim()).unwrap_or_else(|e| panic!("{e}:\n{out}\n{err}"))
}

fn numbers(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn labels(name: &str, more: &[(&str, &str)]) -> Labels {
    let base = [
        ("__name__", name),
        ("instance", "c-1"),
        ("job", "shop/checkout"),
        ("otel_scope_name", "checkout.metrics"),
        ("otel_scope_version", "3.4"),
    ];
    base.iter().chain(more).map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
}

/// The values of each series, export by export.
fn expected(told: &Value) -> BTreeMap<Labels, Vec<f64>> {
    let bounds = numbers(&told["bounds"]);
    let mut want: BTreeMap<Labels, Vec<f64>> = BTreeMap::new();
    for round in told["rounds"].as_array().unwrap() {
        let mut put = |name: &str, more: &[(&str, &str)], value: f64| {
            want.entry(labels(name, more)).or_default().push(value);
        };
        for (method, count) in round["requests"].as_object().unwrap() {
            put("http_requests_total", &[("http_request_method", method)], count.as_f64().unwrap());
        }
        for (room, value) in round["rooms"].as_object().unwrap() {
            put("room_temperature_celsius", &[("room", room)], value.as_f64().unwrap());
        }
        put("connections", &[], round["connections"].as_f64().unwrap());
        let durations = numbers(&round["durations"]);
        put("http_request_duration_seconds_sum", &[], durations.iter().sum());
        put("http_request_duration_seconds_count", &[], durations.len() as f64);
        for (le, bound) in
            ["0.1", "0.5", "2.5", "10", "+Inf"].iter().zip(bounds.iter().chain([&f64::INFINITY]))
        {
            let below = durations.iter().filter(|d| *d <= bound).count();
            put("http_request_duration_seconds_bucket", &[("le", le)], below as f64);
        }
    }
    want
}

#[test]
fn what_an_sdk_records_is_what_prometheus_has() {
    let from = now() - 1000;
    let server = Prometheus::start();
    let mut agent = agent(&server, ONE);
    let told = record(&format!("http://{}", agent.http));
    let status = agent.terminate(Duration::from_secs(30));
    assert!(status.success(), "{status}; its log:\n{}", agent.log());

    let mut got = server.read(from, now());
    let info = got.keys().find(|l| l["__name__"] == "target_info").expect("target_info").clone();
    assert_eq!((&*info["telemetry_sdk_language"], &*info["job"]), ("python", "shop/checkout"));
    got.remove(&info);
    let values = |floats: &Floats| floats.iter().map(|(_, bits)| f64::from_bits(*bits)).collect();
    let got: BTreeMap<Labels, Vec<f64>> = got.iter().map(|(l, s)| (l.clone(), values(s))).collect();
    assert_eq!(got, expected(&told));

    let rounds = told["rounds"].as_array().unwrap();
    let natives = server.natives("{__name__=~\".+\"}[10m]", now());
    assert_eq!(natives.keys().collect::<Vec<_>>(), [&labels("rpc_latency_milliseconds", &[])]);
    let latency = natives.values().next().unwrap();
    assert_eq!(latency.len(), rounds.len());
    for (round, native) in rounds.iter().zip(latency) {
        let recorded = numbers(&round["latencies"]);
        assert_eq!((native.count, native.sum), (recorded.len() as f64, recorded.iter().sum()));
        // The SDK picks the width of the buckets.
        assert!(native.buckets.len() > 10);
        for (lower, upper, count) in &native.buckets {
            let inside = recorded.iter().filter(|v| lower < v && *v <= upper).count();
            assert_eq!(*count, inside as f64, "from {lower} to {upper}");
        }
    }
}
