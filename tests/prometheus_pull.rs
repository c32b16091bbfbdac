//! The page of the `prometheus` exporter: by the rules of each format, and as a real Prometheus server reads it.
//!
//! The pages are read by a parser of our own that takes nothing the formats do not allow; the server is the one in
//! `PATH`, or what `prometheus/install` fetches.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "test code"
)]
#![allow(dead_code, reason = "what is shared with another test is not all used here")]

mod support;

#[path = "prometheus_real/server.rs"]
mod server;
#[path = "../src/exporters/prometheus/page/strict.rs"]
mod strict;

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics};
use prost::Message;

use server::Prometheus;
use strict::Family;
use support::agent::Agent;
use support::load::{Client, Outcome, Target};
use support::otlp::{
    DELTA, attributes, buckets, counter, double, exemplar, exponential, exponential_point, gauge, histogram,
    int, quantiles, resource, scope, stale, sum, summary,
};
use support::prometheus::now;
use support::{Compression, Signal, free_port, http, loopback};

const AGENT: &str = "
receivers:
  otlp: {protocols: {grpc: {endpoint: '127.0.0.1:@GRPC@'}}}
exporters:
  prometheus: {endpoint: '127.0.0.1:@PAGE@', enable_open_metrics: true, metric_expiration: 10m, @MORE@}
service:
  pipelines:
    metrics: {receivers: [otlp], exporters: [prometheus]}
";

const OPEN: &str = "application/openmetrics-text; version=1.0.0; escaping=allow-utf-8";

fn agent(more: &str) -> (Agent, SocketAddr) {
    let page = free_port();
    let program = env!("CARGO_BIN_EXE_tidegate");
    (Agent::builder(program, AGENT).mark("PAGE", page).mark("MORE", more).start(), loopback(page))
}

/// Sends metrics over gRPC; they must be taken.
async fn send(agent: &Agent, resource_metrics: Vec<ResourceMetrics>) {
    let client = Client::new(Target::Grpc(agent.grpc));
    let body = ExportMetricsServiceRequest { resource_metrics }.encode_to_vec();
    let request = client.encode(Signal::Metrics, Compression::Zstd, &body);
    let outcome = client.send(&request, &[], Duration::from_secs(10)).await;
    assert!(matches!(outcome, Outcome::Accepted { rejected: 0 }), "not taken: {outcome:?}");
}

/// A page as a scraper gets it, uncompressed.
fn scrape(page: SocketAddr, accept: &str, gzip: bool) -> String {
    let mut headers = vec![("accept", accept)];
    if gzip {
        headers.push(("accept-encoding", "gzip"));
    }
    let (status, body) = http::request(page, "GET", "/metrics", &headers, b"").unwrap();
    assert_eq!(status, 200);
    if !gzip {
        return String::from_utf8(body).unwrap();
    }
    let mut text = String::new();
    flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
    text
}

/// Everything that a metric can be, from one resource.
fn everything(time: i64) -> Vec<Metric> {
    let times = (time - 60_000, time);
    let get = attributes(&[("http.route", &"/a"), ("quote", &"\"\\\n")]);
    let mut requests = int(7, times, &get);
    requests.exemplars = vec![exemplar(0.5, time - 5, 0xab, 0xcd, attributes(&[("peer", &"p")]))];
    let mut durations = buckets(&[0.5, 1.0, 1e6], &[1, 2, 3, 4], 42.5, times, &get);
    durations.exemplars = vec![exemplar(0.75, time - 5, 0xab, 0xcd, Vec::new())];
    vec![
        counter("http.requests", "", vec![requests]),
        gauge("room.temperature", "Cel", vec![double(21.5, times, &[])]),
        sum("queue", "", false, support::otlp::CUMULATIVE, vec![int(-3, times, &[])]),
        histogram("http.duration", "s", vec![durations]),
        exponential("latency", "ms", vec![exponential_point(0, 1, (0, &[2, 1]), (0, &[]), 9.0, times, &[])]),
        summary("pause", "s", vec![quantiles(4, 20.0, &[(0.5, 2.0), (1.0, 10.0)], times, &[])]),
        sum(
            "jobs",
            "",
            true,
            DELTA,
            vec![int(5, (time - 2000, time - 1000), &[]), int(3, (time - 1000, time), &[])],
        ),
        gauge("gone", "", vec![double(1.0, (0, time - 1), &[]), stale((0, time), &[])]),
    ]
}

fn shop(instance: &str) -> Vec<opentelemetry_proto::tonic::common::v1::KeyValue> {
    attributes(&[("service.name", &"api"), ("service.instance.id", &instance), ("cloud.region", &"eu")])
}

/// Value of the sample with that name whose labels hold these.
fn value(families: &[Family], name: &str, labels: &[(&str, &str)]) -> f64 {
    let samples = families.iter().flat_map(|f| &f.samples).filter(|s| s.name == name);
    let mut fitting =
        samples.filter(|s| labels.iter().all(|(n, v)| s.labels.get(*n).is_some_and(|l| l == v)));
    let first = fitting.next().unwrap_or_else(|| panic!("no {name} {labels:?}"));
    assert!(fitting.next().is_none(), "more than one {name} {labels:?}");
    first.value
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_follow_the_rules_of_their_formats() {
    let (mut agent, page) = agent("const_labels: {cluster: west}");
    let time = now();
    for instance in ["1", "2"] {
        let scope = scope("lib", "1.2", "", attributes(&[("team", &"x")]));
        send(&agent, vec![resource(shop(instance), scope, everything(time))]).await;
    }
    let plain = scrape(page, "text/plain;version=0.0.4", false);
    let open = scrape(page, OPEN, false);
    assert_eq!(scrape(page, "*/*", true), plain);
    assert_eq!(scrape(page, OPEN, true), open);

    for (text, is_open) in [(&plain, false), (&open, true)] {
        let families = strict::parse(text, is_open).unwrap_or_else(|why| panic!("{why}\n{text}"));
        let kinds: BTreeMap<&str, &str> = families.iter().map(|f| (&*f.name, &*f.kind)).collect();
        let [requests, jobs, target, info] = match is_open {
            true => ["http_requests", "jobs", "target", "info"],
            false => ["http_requests_total", "jobs_total", "target_info", "gauge"],
        };
        let want = [
            ("http_duration_seconds", "histogram"),
            (requests, "counter"),
            (jobs, "counter"),
            ("latency_milliseconds", "histogram"),
            ("pause_seconds", "summary"),
            ("queue", "gauge"),
            ("room_temperature_celsius", "gauge"),
            (target, info),
        ];
        assert_eq!(kinds, BTreeMap::from(want));
        let duration = families.iter().find(|f| f.name == "http_duration_seconds").unwrap();
        assert_eq!(duration.help, "What http.duration is");
        assert_eq!(duration.unit, if is_open { "seconds" } else { "" });
        for instance in ["1", "2"] {
            let of =
                |name: &str, label: (&str, &str)| value(&families, name, &[("instance", instance), label]);
            let own = ("otel_scope_team", "x");
            assert_eq!(of("http_requests_total", ("quote", "\"\\\n")), 7.0);
            assert_eq!(of("room_temperature_celsius", own), 21.5);
            assert_eq!(of("queue", ("cluster", "west")), -3.0);
            assert_eq!(of("http_duration_seconds_bucket", ("le", if is_open { "1.0" } else { "1" })), 3.0);
            assert_eq!(of("http_duration_seconds_sum", own), 42.5);
            assert_eq!(of("latency_milliseconds_bucket", ("le", if is_open { "4.0" } else { "4" })), 4.0);
            assert_eq!(of("pause_seconds", ("quantile", "0.5")), 2.0);
            assert_eq!(of("jobs_total", own), 8.0);
            assert_eq!(of("target_info", ("cloud_region", "eu")), 1.0);
        }
        let exemplars = families.iter().flat_map(|f| &f.samples).filter_map(|s| s.exemplar.as_ref()).count();
        assert_eq!(exemplars, if is_open { 4 } else { 0 });
    }

    let (status, _) = http::request(page, "GET", "/", &[], b"").unwrap();
    assert_eq!(status, 404);
    // Nine points twice, one of them to end a series.
    assert_eq!(agent.metric("otelcol_exporter_sent_metric_points", "prometheus"), 20.0);
    assert_eq!(agent.metric("tidegate_dropped_items", ""), 0.0);
    assert_eq!(agent.metric("tidegate_accounting_gap", ""), 0.0);
    let series = open.lines().filter(|l| !l.starts_with('#')).count() as f64;
    assert!(agent.metric("tidegate_prometheus_series", "") >= series);
    let status = tokio::task::block_in_place(|| agent.terminate(Duration::from_secs(20)));
    assert!(status.success(), "{status}");
}

/// Lets the server scrape until a query has a result that `fits`.
fn until(server: &Prometheus, promql: &str, fits: impl Fn(&[serde_json::Value]) -> bool) {
    let start = Instant::now();
    loop {
        let result = server.query(promql, now());
        if fits(&result) {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{promql}: {result:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn is(value: f64) -> impl Fn(&[serde_json::Value]) -> bool {
    move |result| result.len() == 1 && server::number(&result[0]["value"][1]) == value
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_scrapes_what_was_sent() {
    // With the feature the server asks for protobuf, without for OpenMetrics.
    for features in ["native-histograms,exemplar-storage", "exemplar-storage"] {
        let (agent, page) = agent("");
        let config = format!(
            "scrape_configs: [{{job_name: agent, scrape_interval: 200ms, scrape_timeout: 200ms, honor_labels: true, \
             static_configs: [{{targets: ['{page}']}}]}}]"
        );
        let time = now();
        send(&agent, vec![resource(shop("1"), None, everything(time))]).await;
        let server = tokio::task::block_in_place(|| Prometheus::start_with(&config, features));
        let native = features.contains("native");
        tokio::task::block_in_place(|| {
            until(&server, "up", is(1.0));
            let api = r#"job="api",instance="1""#;
            for (promql, want) in [
                (format!("http_requests_total{{{api},http_route=\"/a\"}}"), 7.0),
                (format!("room_temperature_celsius{{{api}}}"), 21.5),
                (format!("queue{{{api}}}"), -3.0),
                (format!("http_duration_seconds_bucket{{{api},le=~\"1(.0)?\"}}"), 3.0),
                (format!("http_duration_seconds_count{{{api}}}"), 10.0),
                (format!("pause_seconds{{{api},quantile=\"0.5\"}}"), 2.0),
                (format!("jobs_total{{{api}}}"), 8.0),
                (format!("target_info{{{api},cloud_region=\"eu\"}}"), 1.0),
            ] {
                until(&server, &promql, is(want));
            }
            if native {
                until(&server, "histogram_count(latency_milliseconds)", is(4.0));
                until(&server, "histogram_sum(latency_milliseconds)", is(9.0));
                let natives = server.natives("latency_milliseconds[1m]", now());
                let last = natives.values().next().unwrap().last().unwrap().clone();
                let positive: Vec<_> = last.buckets.into_iter().filter(|b| b.0 >= 1.0).collect();
                assert_eq!(positive, [(1.0, 2.0, 2.0), (2.0, 4.0, 1.0)]);
            } else {
                until(&server, "latency_milliseconds_bucket{le=\"4.0\"}", is(4.0));
            }
            let exemplars = server.exemplars("http_requests_total", time - 60_000, now() + 1000);
            assert_eq!(exemplars.len(), 1, "{exemplars:?}");
            let (_, labels, value, at) = &exemplars[0];
            assert_eq!((*value, *at, &*labels["peer"]), (0.5, time - 5, "p"));
            assert_eq!(labels["trace_id"], "ab".repeat(16));
            let metadata = server.api("metadata", &[("metric", "room_temperature_celsius")]);
            assert_eq!(metadata["room_temperature_celsius"][0]["type"], "gauge");
            assert_eq!(metadata["room_temperature_celsius"][0]["help"], "What room.temperature is");
        });
        // A series that ends is gone with the next scrape, minutes before it would be forgotten.
        let end = vec![gauge("room.temperature", "Cel", vec![stale((0, time + 1), &[])])];
        send(&agent, vec![resource(shop("1"), None, end)]).await;
        tokio::task::block_in_place(|| {
            until(&server, "room_temperature_celsius", <[_]>::is_empty);
            until(&server, "queue", is(-3.0));
        });
    }
}
