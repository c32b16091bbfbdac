//! `include` and `exclude`.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};

use crate::processors::testing::{attr, run, text};

fn resource(env: &str) -> Option<Resource> {
    Some(Resource { attributes: vec![attr("env", env)], ..Resource::default() })
}

fn scope(name: &str) -> Option<InstrumentationScope> {
    Some(InstrumentationScope { name: name.into(), ..InstrumentationScope::default() })
}

/// Two environments, each with two scopes of two spans.
pub(super) fn traces() -> ExportTraceServiceRequest {
    let span = |name: &str, kind| Span {
        name: name.into(),
        kind,
        attributes: vec![attr("name", name)],
        ..Span::default()
    };
    let spans = |name: &str| ScopeSpans {
        scope: scope(name),
        spans: vec![span("get", 2), span("put", 3)],
        ..ScopeSpans::default()
    };
    let of = |env: &str| ResourceSpans {
        resource: resource(env),
        scope_spans: vec![spans("one"), spans("two")],
        ..ResourceSpans::default()
    };
    ExportTraceServiceRequest { resource_spans: vec![of("test"), of("prod")] }
}

/// `env/scope/name` of every span.
pub(super) fn spans_of(request: &ExportTraceServiceRequest) -> Vec<String> {
    let mut out = Vec::new();
    for resource in &request.resource_spans {
        for scope in &resource.scope_spans {
            assert!(!scope.spans.is_empty(), "an empty scope is left");
            for span in &scope.spans {
                let env = format!("{:?}", resource.resource);
                let env = if env.contains("prod") { "prod" } else { "test" };
                out.push(format!("{env}/{}/{}", scope.scope.as_ref().unwrap().name, span.name));
            }
        }
        assert!(!resource.scope_spans.is_empty(), "an empty resource is left");
    }
    out
}

pub(super) fn metrics() -> ExportMetricsServiceRequest {
    let point = |code: &str| NumberDataPoint { attributes: vec![attr("code", code)], ..Default::default() };
    let gauge = |name: &str, codes: &[&str]| Metric {
        name: name.into(),
        data: Some(metric::Data::Gauge(Gauge { data_points: codes.iter().map(|c| point(c)).collect() })),
        ..Metric::default()
    };
    let histogram = Metric {
        name: "latency".into(),
        data: Some(metric::Data::Histogram(Histogram {
            data_points: vec![HistogramDataPoint {
                attributes: vec![attr("code", "200"), attr("le", "")],
                ..Default::default()
            }],
            aggregation_temporality: 2,
        })),
        ..Metric::default()
    };
    let of = |env: &str| ResourceMetrics {
        resource: resource(env),
        scope_metrics: vec![ScopeMetrics {
            scope: scope("one"),
            metrics: vec![gauge("requests", &["200", "500"]), gauge("errors", &["500"]), histogram.clone()],
            ..ScopeMetrics::default()
        }],
        ..ResourceMetrics::default()
    };
    ExportMetricsServiceRequest { resource_metrics: vec![of("test"), of("prod")] }
}

pub(super) fn metrics_of(request: &ExportMetricsServiceRequest) -> Vec<String> {
    let mut out = Vec::new();
    for resource in &request.resource_metrics {
        let env = format!("{:?}", resource.resource);
        let env = if env.contains("prod") { "prod" } else { "test" };
        assert!(!resource.scope_metrics.is_empty(), "an empty resource is left");
        for metric in resource.scope_metrics.iter().flat_map(|s| &s.metrics) {
            out.push(format!("{env}/{}", metric.name));
        }
    }
    out
}

pub(super) fn logs() -> ExportLogsServiceRequest {
    let record = |body: &str, severity: i32, level: &str| LogRecord {
        body: Some(text(body)),
        severity_number: severity,
        severity_text: level.into(),
        attributes: vec![attr("level", level)],
        ..LogRecord::default()
    };
    let of = |env: &str| ResourceLogs {
        resource: resource(env),
        scope_logs: vec![ScopeLogs {
            scope: scope("one"),
            log_records: vec![
                record("starting", 9, "info"),
                record("slow query", 13, "warn"),
                record("no idea", 0, ""),
            ],
            ..ScopeLogs::default()
        }],
        ..ResourceLogs::default()
    };
    ExportLogsServiceRequest { resource_logs: vec![of("test"), of("prod")] }
}

pub(super) fn logs_of(request: &ExportLogsServiceRequest) -> Vec<String> {
    let mut out = Vec::new();
    for resource in &request.resource_logs {
        let env = format!("{:?}", resource.resource);
        let env = if env.contains("prod") { "prod" } else { "test" };
        assert!(!resource.scope_logs.is_empty(), "an empty resource is left");
        for record in resource.scope_logs.iter().flat_map(|s| &s.log_records) {
            out.push(format!("{env}/{}", record.severity_text));
        }
    }
    out
}

#[test]
fn spans_stay_that_are_included_and_not_excluded() {
    let all: Vec<String> = ["test", "prod"]
        .iter()
        .flat_map(|env| ["one", "two"].map(|scope| (*env, scope)))
        .flat_map(|(env, scope)| ["get", "put"].map(|name| format!("{env}/{scope}/{name}")))
        .collect();
    type Keeps = fn(&str) -> bool;
    let cases: [(&str, Keeps); 9] = [
        ("include: {match_type: strict, span_names: [get]}", |s| s.ends_with("/get")),
        ("exclude: {match_type: strict, span_names: [get]}", |s| !s.ends_with("/get")),
        ("include: {match_type: regexp, span_names: ['^g']}", |s| s.ends_with("/get")),
        ("include: {match_type: strict, resources: [{key: env, value: prod}]}", |s| s.starts_with("prod")),
        ("exclude: {match_type: strict, resources: [{key: env, value: prod}]}", |s| s.starts_with("test")),
        ("exclude: {match_type: strict, libraries: [{name: two}], span_kinds: [SPAN_KIND_SERVER]}", |s| {
            !s.ends_with("two/get")
        }),
        ("include: {match_type: strict, attributes: [{key: name, value: put}]}", |s| s.ends_with("/put")),
        (
            "include: {match_type: strict, libraries: [{name: one}]}, \
             exclude: {match_type: strict, resources: [{key: env, value: test}], span_names: [put]}",
            |s| s.contains("/one/") && s != "test/one/put",
        ),
        ("exclude: {match_type: strict, services: [none]}", |_| true),
    ];
    for (blocks, keeps) in cases {
        let out = run(&format!("filter/a: {{spans: {{{blocks}}}}}"), &traces());
        let want: Vec<String> = all.iter().filter(|s| keeps(s)).cloned().collect();
        assert_eq!(spans_of(&out.request), want, "{blocks}");
        assert_eq!((out.items, out.dropped, out.malformed), (want.len(), 8 - want.len(), 0), "{blocks}");
        assert_eq!(out.changed, want.len() < 8, "{blocks}");
        let counted = out.counter("otelcol_processor_filter_spans_filtered", &[("processor", "filter/a")]);
        let labels = [("component", "filter/a"), ("data_type", "traces"), ("reason", "filtered")];
        let dropped = out.counter("tidegate_dropped_items", &labels);
        assert_eq!((counted, dropped), (8 - want.len() as u64, 8 - want.len() as u64), "{blocks}");
    }
}

#[test]
fn metrics_stay_that_are_included_and_not_excluded() {
    let names = ["requests", "errors", "latency"];
    let all: Vec<String> =
        ["test", "prod"].iter().flat_map(|env| names.map(|name| format!("{env}/{name}"))).collect();
    type Keeps = fn(&str) -> bool;
    let cases: [(&str, Keeps); 12] = [
        ("include: {match_type: strict, metric_names: [requests, errors]}", |m| !m.ends_with("latency")),
        ("exclude: {match_type: regexp, metric_names: [e.*s$]}", |m| m.ends_with("latency")),
        ("include: {match_type: strict, resource_attributes: [{key: env, value: prod}]}", |m| {
            m.starts_with("prod")
        }),
        // Both have to hold for what is included, either is enough for what is excluded.
        (
            "include: {match_type: strict, metric_names: [errors], resource_attributes: [{key: env, value: prod}]}",
            |m| m == "prod/errors",
        ),
        (
            "exclude: {match_type: strict, metric_names: [errors], resource_attributes: [{key: env, value: prod}]}",
            |m| m == "test/requests" || m == "test/latency",
        ),
        ("include: {match_type: expr, expressions: ['MetricName == \"errors\"', 'HasLabel(\"le\")']}", |m| {
            !m.ends_with("requests")
        }),
        ("exclude: {match_type: expr, expressions: ['Label(\"code\") == \"500\"']}", |m| {
            m.ends_with("latency")
        }),
        ("exclude: {match_type: expr, expressions: ['MetricType == \"Histogram\"']}", |m| {
            !m.ends_with("latency")
        }),
        ("include: {match_type: expr, expressions: ['Label(\"le\") == \"\" && HasLabel(\"le\")']}", |m| {
            m.ends_with("latency")
        }),
        ("include: {match_type: expr, expressions: ['HasLabel(\"none\")']}", |_| false),
        (
            "include: {match_type: expr, expressions: ['HasLabel(\"code\")']}, \
             exclude: {match_type: strict, metric_names: [latency]}",
            |m| !m.ends_with("latency"),
        ),
        (
            "regexp: {cacheenabled: true}, exclude: {match_type: strict, resource_attributes: [{key: env}]}",
            |_| false,
        ),
    ];
    for (blocks, keeps) in cases {
        let out = run(&format!("filter: {{metrics: {{{blocks}}}}}"), &metrics());
        let want: Vec<String> = all.iter().filter(|m| keeps(m)).cloned().collect();
        assert_eq!(metrics_of(&out.request), want, "{blocks}");
        // Two points in `requests`, one in the others.
        let points = |list: &[String]| list.iter().map(|m| 1 + usize::from(m.ends_with("requests"))).sum();
        let left: usize = points(&want);
        assert_eq!((out.items, out.dropped), (left, 8 - left), "{blocks}");
        let counted = out.counter("otelcol_processor_filter_datapoints_filtered", &[("processor", "filter")]);
        assert_eq!(counted, 8 - left as u64, "{blocks}");
    }
}

#[test]
fn log_records_stay_that_are_included_and_not_excluded() {
    let levels = ["info", "warn", ""];
    let all: Vec<String> =
        ["test", "prod"].iter().flat_map(|env| levels.map(|level| format!("{env}/{level}"))).collect();
    type Keeps = fn(&str) -> bool;
    let cases: [(&str, Keeps); 9] = [
        ("include: {match_type: strict, severity_texts: [warn]}", |r| r.ends_with("warn")),
        ("include: {match_type: strict, severity_number: {min: WARN}}", |r| r.ends_with("warn")),
        ("include: {match_type: strict, severity_number: {min: '13', match_undefined: true}}", |r| {
            !r.ends_with("info")
        }),
        ("exclude: {match_type: regexp, bodies: ['^slow', idea]}", |r| r.ends_with("info")),
        ("exclude: {match_type: strict, bodies: [start]}", |_| true),
        ("include: {match_type: strict, record_attributes: [{key: level, value: info}]}", |r| {
            r.ends_with("info")
        }),
        ("exclude: {match_type: regexp, resource_attributes: [{key: env, value: te.t}]}", |r| {
            r.starts_with("prod")
        }),
        (
            "exclude: {match_type: strict, resource_attributes: [{key: env, value: test}], severity_texts: [info]}",
            |r| r != "test/info",
        ),
        (
            "include: {match_type: strict, severity_number: {min: INFO}}, \
             exclude: {match_type: strict, severity_texts: [info]}",
            |r| r.ends_with("warn"),
        ),
    ];
    for (blocks, keeps) in cases {
        let out = run(&format!("filter: {{logs: {{{blocks}}}}}"), &logs());
        let want: Vec<String> = all.iter().filter(|r| keeps(r)).cloned().collect();
        assert_eq!(logs_of(&out.request), want, "{blocks}");
        assert_eq!((out.items, out.dropped), (want.len(), 6 - want.len()), "{blocks}");
        let counted = out.counter("otelcol_processor_filter_logs_filtered", &[("processor", "filter")]);
        assert_eq!(counted, 6 - want.len() as u64, "{blocks}");
    }
}

#[test]
fn a_signal_without_conditions_passes_as_it_is() {
    let out = run("filter: {spans: {exclude: {match_type: strict, span_names: [get]}}}", &logs());
    assert_eq!((out.request, out.items, out.changed), (logs(), 6, false));
}

#[test]
fn what_earlier_processors_made_of_data_points_is_judged() {
    let text = "attributes: {actions: [{key: code, action: delete}]}\n\
                filter: {metrics: {include: {match_type: expr, expressions: ['HasLabel(\"code\")']}}}";
    let out = run(text, &metrics());
    assert_eq!((out.items, out.walks), (0, 2), "it walks on its own, after the attributes are gone");
    let text = "attributes: {actions: [{key: code, action: delete}]}\n\
                filter: {spans: {include: {match_type: strict, attributes: [{key: name}]}}}";
    assert_eq!(run(text, &traces()).walks, 1);
}
