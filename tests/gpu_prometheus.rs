//! Simulated GPUs through the whole agent into a real Prometheus server that has the rules of `deploy/prometheus`: every
//! question of the dashboard has an answer, the alerts on a hot GPU name that GPU, the older names arrive as they are,
//! and costs add up.
//!
//! The rules are used as they are but for time, which runs sixty times as fast: in windows, `for` and steps of
//! subqueries a minute is a second. The server is the one in `PATH`, or what `prometheus/install` fetches.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "test code"
)]

mod support;

#[path = "prometheus_real/server.rs"]
#[allow(dead_code, reason = "this test uses a part")]
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use regex::{Captures, Regex};
use serde_json::Value;

use server::{Labels, Prometheus, number};
use support::agent::Agent;
use support::prometheus::now;

/// As much as a loaded machine may take; a few seconds after the windows are full are enough.
const PATIENCE: Duration = Duration::from_secs(90);

const DEVICES: usize = 4;
const HOT: &str = "1";
const PRICE: f64 = 3.5;

const AGENT: &str = "
receivers:
  nvml:
    collection_interval: 1s
    initial_delay: 0s
    slow_interval: 1s
    legacy_names: true
    node: node-a
    simulate: {devices: 4, mig_devices: 1, hot: [1]}
    tenant: {from: [{attribute: resource.k8s.namespace.name}]}
    cost: {currency: EUR, per_gpu_hour: {default: 3.5}}
processors:
  filter/older: {error_mode: propagate, metric_conditions: ['not IsMatch(metric.name, \"^gpu_\")']}
  filter/newer: {error_mode: propagate, metric_conditions: ['IsMatch(metric.name, \"^gpu_\")']}
  # Of which job and instance are made.
  resource/bare:
    attributes:
      - {key: service.name, action: delete}
      - {key: service.instance.id, action: delete}
exporters:
  prometheus_remote_write: {endpoint: '@TO@', disable_scope_info: true}
service:
  pipelines:
    metrics: {receivers: [nvml], processors: [filter/newer], exporters: [prometheus_remote_write]}
    metrics/older: {receivers: [nvml], processors: [filter/older, resource/bare], exporters: [prometheus_remote_write]}
";

/// Questions that have no answer here, by a part of theirs, and why.
const WITHOUT_ANSWER: [(&str, &str); 4] = [
    ("nvidia_gpu_xid_last_seen_seconds", "simulations have no XID in their first four minutes"),
    ("nvidia_gpu_xid_events_total", "the same"),
    ("nvidia_gpu_pcie_throughput_bytes_per_second", "it stands in for a counter that these GPUs have"),
    ("nvidia_gpu_read_errors_total", "no call into a simulation fails"),
];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Rules in which a minute is a second.
fn hurried(text: &str) -> String {
    let duration = Regex::new(r"(\d+)([smhd])").unwrap();
    let faster = |text: &str| {
        let one = |found: &Captures<'_>| {
            let amount: u64 = found[1].parse().unwrap();
            match &found[2] {
                "m" => format!("{amount}s"),
                "h" => format!("{amount}m"),
                "d" => format!("{}m", amount * 24),
                unit => panic!("{amount}{unit} is too short to be hurried"),
            }
        };
        duration.replace_all(text, one).into_owned()
    };
    let times = Regex::new(r"\[[0-9smhd:]+\]|(?m:^ *for: .*$)").unwrap();
    times.replace_all(text, |found: &Captures<'_>| faster(&found[0])).into_owned()
}

/// A server with the rules.
fn prometheus(directory: &Path) -> Prometheus {
    for entry in std::fs::read_dir(repository().join("deploy/prometheus")).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_some_and(|e| e == "yaml") {
            let text = hurried(&std::fs::read_to_string(&file).unwrap());
            std::fs::write(directory.join(file.file_name().unwrap()), text).unwrap();
        }
    }
    let rules = directory.join("*.yaml");
    let config = format!("global: {{evaluation_interval: 1s}}\nrule_files: ['{}']", rules.display());
    Prometheus::start_with(&config, "native-histograms")
}

/// Asks until the answer is good, fails with what it was last.
fn eventually<T: std::fmt::Debug>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(why) => assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}: {why}"),
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The dashboard's expressions, by panel, with variables filled in.
fn questions(gpu: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(repository().join("deploy/grafana/gpu-dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let values = [("$node", ".*"), ("$gpu", gpu), ("$tenant", ".*"), ("$__rate_interval", "10s")];
    let filled = |text: &Value| {
        let text = text.as_str().unwrap().to_owned();
        values.iter().fold(text, |text, (name, value)| text.replace(name, value))
    };
    let label_values = Regex::new(r"^label_values\((.*), (\w+)\)$").unwrap();
    let mut all = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let title = panel["title"].as_str().unwrap().to_owned();
            all.push((title, filled(&target["expr"])));
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        if variable["type"] == "query" {
            let asked = filled(&variable["definition"]);
            let parts = label_values.captures(&asked).unwrap_or_else(|| panic!("{asked} is no label_values"));
            let expression = format!("count by ({}) ({})", &parts[2], &parts[1]);
            all.push((format!("variable {}", variable["name"]), expression));
        }
    }
    all
}

fn answered(server: &Prometheus, question: &str) -> bool {
    !server.query(question, now()).is_empty()
}

/// (a) Every question of the dashboard has an answer; those that have none are exactly the ones we can explain. All of
/// them that ask for a GPU have none for a GPU that is not there.
fn the_dashboard_has_data(server: &Prometheus) {
    let excused = |question: &str| WITHOUT_ANSWER.iter().any(|(part, _)| question.contains(part));
    let asked = questions(".*");
    assert!(asked.len() > 60, "only {} questions", asked.len());
    eventually("the dashboard has data", || {
        let open: Vec<_> =
            asked.iter().filter(|(_, question)| !excused(question) && !answered(server, question)).collect();
        if open.is_empty() { Ok(()) } else { Err(format!("no data: {open:#?}")) }
    });
    for (part, why) in WITHOUT_ANSWER {
        let all: Vec<_> = asked.iter().filter(|(_, question)| question.contains(part)).collect();
        assert!(!all.is_empty(), "nothing asks for {part}");
        for (panel, question) in all {
            assert!(!answered(server, question), "{panel} has data, although {why}: {question}");
        }
    }
    let narrow = questions("GPU-none");
    let narrowed = narrow.iter().zip(&asked).filter(|(narrow, wide)| narrow != wide);
    assert!(narrowed.clone().count() > 40);
    for ((panel, question), _) in narrowed {
        assert!(!answered(server, question), "{panel} shows a GPU that is not selected: {question}");
    }
}

/// UUIDs by index.
fn uuids(server: &Prometheus) -> BTreeMap<String, String> {
    let series = server.query("gpu:info", now());
    let text = |series: &Value, name: &str| series["metric"][name].as_str().unwrap().to_owned();
    let uuids: BTreeMap<String, String> =
        series.iter().map(|s| (text(s, "nvidia_gpu_index"), text(s, "hw_id"))).collect();
    assert_eq!(uuids.len(), DEVICES, "{series:?}");
    uuids
}

/// (b) The alerts on heat fire for the hot GPU and for no other, by both kinds of names.
fn the_alerts_name_the_hot_gpu(server: &Prometheus, hot: &str) {
    let firing = |server: &Prometheus| -> Vec<Value> {
        let alerts = server.api("alerts", &[])["alerts"].as_array().unwrap().clone();
        alerts.into_iter().filter(|alert| alert["state"] == "firing").collect()
    };
    let named = |alerts: &[Value], alert: &str, label: &str| -> Vec<String> {
        let of = alerts.iter().filter(|a| a["labels"]["alertname"] == alert);
        of.filter_map(|a| a["labels"][label].as_str()).map(str::to_owned).collect()
    };
    let alerts = eventually("a hot GPU has its alerts", || {
        let alerts = firing(server);
        let wanted = [
            ("GpuTemperatureHigh", "hw_id"),
            ("GpuTemperatureHigh", "gpu_id"),
            ("GpuAboveMaxOperating", "hw_id"),
        ];
        let missing: Vec<_> =
            wanted.iter().filter(|(alert, label)| named(&alerts, alert, label).is_empty()).collect();
        if missing.is_empty() { Ok(alerts) } else { Err(format!("{missing:?} not among {alerts:#?}")) }
    });
    assert_eq!(named(&alerts, "GpuTemperatureHigh", "hw_id"), [hot]);
    assert_eq!(named(&alerts, "GpuTemperatureHigh", "gpu_id"), [hot]);
    assert_eq!(named(&alerts, "GpuAboveMaxOperating", "hw_id"), [hot]);
    let about_heat = alerts.iter().find(|alert| alert["labels"]["hw_id"] == hot).unwrap();
    assert_eq!(about_heat["labels"]["instance"], "node-a");
    let faults = [
        "GpuXid",
        "GpuEcc",
        "GpuRowRemap",
        "GpuLost",
        "GpuMissing",
        "GpuCollection",
        "GpuAgent",
        "GpuAccess",
    ];
    for alert in &alerts {
        let name = alert["labels"]["alertname"].as_str().unwrap();
        assert!(!faults.iter().any(|fault| name.starts_with(fault)), "nothing is broken: {alert:#}");
        for (key, text) in alert["annotations"].as_object().unwrap() {
            let text = text.as_str().unwrap();
            let bad = ["error", "no value", "%!", "{{", "  "].iter().find(|bad| text.contains(**bad));
            assert!(bad.is_none() && !text.is_empty(), "{name} says {text:?} as its {key}");
        }
    }
    let rules = server.api("rules", &[]);
    for group in rules["groups"].as_array().unwrap() {
        for rule in group["rules"].as_array().unwrap() {
            assert!(rule["lastError"].is_null(), "{rule:#}");
            assert_eq!(rule["health"], "ok", "{rule:#}");
        }
    }
}

/// (c) The older names, with their exact labels.
fn older_names_arrive_as_they_are(server: &Prometheus, uuids: &BTreeMap<String, String>) {
    let labels = |pairs: &[(&str, &str)]| -> Labels {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let mut want = BTreeSet::new();
    for (index, uuid) in uuids {
        for name in [
            "gpu_utilization_percent",
            "gpu_memory_used_bytes",
            "gpu_temperature_celsius",
            "gpu_memory_allocated_bytes",
            "gpu_memory_reserved_bytes",
        ] {
            // The last one is cut into instances, and has no utilisation.
            if name != "gpu_utilization_percent" || *index != (DEVICES - 1).to_string() {
                want.insert(labels(&[("__name__", name), ("gpu_id", uuid), ("node", "node-a")]));
            }
        }
        let total = [("__name__", "gpu_memory_total_bytes"), ("gpu_id", uuid), ("gpu_name", "NVIDIA H200")];
        want.insert(labels(&total));
    }
    let older = Regex::new("^gpu_(utilization|memory|temperature)_").unwrap();
    let all = server.series(now() - 600_000, now());
    let got: BTreeSet<Labels> =
        all.into_iter().filter(|labels| older.is_match(&labels["__name__"])).collect();
    assert_eq!(got, want);
    let total = server.query("gpu_memory_total_bytes", now());
    assert!(total.iter().all(|series| number(&series["value"][1]) == 150_754_820_096.0), "{total:?}");
}

/// (d) What tenants pay adds up to what the GPUs cost.
fn costs_add_up(server: &Prometheus) {
    let an_hour = DEVICES as f64 * PRICE;
    let tenants = eventually("costs by tenant add up to the price of the GPUs", || {
        let series = server.query("sum by (gpu_tenant, currency) (gpu_tenant:cost_per_hour)", now());
        let sum: f64 = series.iter().map(|s| number(&s["value"][1])).sum();
        assert!(sum < an_hour * 1.05, "{sum} an hour is more than the GPUs cost: {series:?}");
        // Rates over whole samples: what a clock is off by in a window of five seconds.
        if (sum - an_hour).abs() < an_hour * 0.01 { Ok(series) } else { Err(format!("{sum}: {series:?}")) }
    });
    assert!(tenants.len() > 1, "{tenants:?}");
    for tenant in &tenants {
        assert_eq!(tenant["metric"]["currency"], "EUR");
        assert!(!tenant["metric"]["gpu_tenant"].as_str().unwrap().is_empty());
        assert!(number(&tenant["value"][1]) > 0.0, "{tenant}");
    }
    // At one moment, to the last digits: the money is the time at its price, and every GPU has the same time. Not all that
    // is of a moment arrives at once.
    eventually("time and money agree", || {
        let at = now();
        let spent = server.value("sum(gpu_tenant_cost_total)", at);
        let held = server.query("sum by (hw_id) (gpu_tenant_allocated_time_seconds_total)", at);
        let held: Vec<f64> = held.iter().map(|gpu| number(&gpu["value"][1])).collect();
        let sum: f64 = held.iter().sum();
        let even = held.len() == DEVICES && held.iter().all(|time| (time - held[0]).abs() < 0.1);
        let right = (spent - sum / 3600.0 * PRICE).abs() < 1e-9 * spent;
        if even && right { Ok(()) } else { Err(format!("{held:?} s cost {spent}")) }
    });
    eventually("a day costs what was spent so far", || {
        let at = now();
        let (daily, spent) =
            (server.value("sum(gpu_tenant:cost_daily)", at), server.value("sum(gpu_tenant_cost_total)", at));
        // The first value of each sum is no increase, and the rest is extrapolated to the ends.
        if (0.5..1.5).contains(&(daily / spent)) { Ok(()) } else { Err(format!("{daily} of {spent}")) }
    });
}

#[test]
fn simulated_gpus_in_a_real_prometheus() {
    let directory = tempfile::tempdir().unwrap();
    let server = prometheus(directory.path());
    let mut agent =
        Agent::builder(env!("CARGO_BIN_EXE_tidegate"), AGENT).mark("TO", server.write_url()).start();
    the_dashboard_has_data(&server);
    let uuids = uuids(&server);
    the_alerts_name_the_hot_gpu(&server, &uuids[HOT]);
    older_names_arrive_as_they_are(&server, &uuids);
    costs_add_up(&server);
    let status = agent.terminate(Duration::from_secs(30));
    assert!(status.success(), "{status}; its log:\n{}", agent.log());
}

#[test]
fn a_minute_is_a_second_in_hurried_rules() {
    let rule = "rate(x[5m]) * 5m + max_over_time((y)[6h:5m])\n        for: 15m\n increase(z[1d]) # for: it";
    let hurried = hurried(rule);
    assert_eq!(
        hurried,
        "rate(x[5s]) * 5m + max_over_time((y)[6m:5s])\n        for: 15s\n increase(z[24m]) # for: it"
    );
}
