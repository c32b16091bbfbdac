//! Statements in each context, and how groups of them follow each other.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, span::Event};

use crate::processors::testing::{attr, run, text};

fn resource() -> Option<Resource> {
    let attributes = vec![attr("service.name", "shop"), attr("env", "test")];
    Some(Resource { attributes, ..Resource::default() })
}

fn scope() -> Option<InstrumentationScope> {
    Some(InstrumentationScope {
        name: "lib".into(),
        version: "1.0".into(),
        ..InstrumentationScope::default()
    })
}

fn traces() -> ExportTraceServiceRequest {
    let event =
        |name: &str| Event { name: name.into(), attributes: vec![attr("k", "v")], ..Event::default() };
    let span = |name: &str, kind| Span {
        name: name.into(),
        kind,
        attributes: vec![attr("http.method", "GET"), attr("token", "secret-1234")],
        events: vec![event("start"), event("end")],
        ..Span::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: resource(),
            scope_spans: vec![ScopeSpans {
                scope: scope(),
                spans: vec![span("get /", 2), span("put /", 3)],
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
}

fn logs(bodies: &[&str]) -> ExportLogsServiceRequest {
    let record = |body: &&str| LogRecord {
        body: Some(text(body)),
        attributes: vec![attr("a", "1"), attr("b", "2"), attr("c", "3")],
        ..LogRecord::default()
    };
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: resource(),
            scope_logs: vec![ScopeLogs {
                scope: scope(),
                log_records: bodies.iter().map(record).collect(),
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    }
}

fn metrics() -> ExportMetricsServiceRequest {
    let point = |user: &str, value| NumberDataPoint {
        attributes: vec![attr("user", user), attr("route", "/")],
        value: Some(number_data_point::Value::AsInt(value)),
        ..NumberDataPoint::default()
    };
    let sum = |name: &str| Metric {
        name: name.into(),
        unit: "1".into(),
        data: Some(metric::Data::Sum(Sum {
            data_points: vec![point("ann", 1), point("bob", 2)],
            aggregation_temporality: 2,
            is_monotonic: true,
        })),
        ..Metric::default()
    };
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: resource(),
            scope_metrics: vec![ScopeMetrics {
                scope: scope(),
                metrics: vec![sum("legacy.requests"), sum("errors")],
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    }
}

/// `key=value` of each attribute that is a text.
fn texts(attributes: &[KeyValue]) -> Vec<String> {
    let of = |kv: &KeyValue| match &kv.value.as_ref()?.value {
        Some(Value::StringValue(text)) => Some(format!("{}={text}", kv.key)),
        other => Some(format!("{}={other:?}", kv.key)),
    };
    attributes.iter().filter_map(of).collect()
}

fn spans(request: &ExportTraceServiceRequest) -> Vec<&Span> {
    request.resource_spans.iter().flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans).collect()
}

fn records(request: &ExportLogsServiceRequest) -> Vec<&LogRecord> {
    request.resource_logs.iter().flat_map(|r| &r.scope_logs).flat_map(|s| &s.log_records).collect()
}

fn body(record: &LogRecord) -> &str {
    match record.body.as_ref().and_then(|b| b.value.as_ref()) {
        Some(Value::StringValue(text)) => text,
        _ => "",
    }
}

#[test]
fn spans_events_scopes_and_resources_are_changed() {
    let out = run(
        "transform:\n  trace_statements:\n\
         \x20 - set(resource.attributes[\"env\"], \"prod\") where resource.attributes[\"env\"] == \"test\"\n\
         \x20 - set(scope.version, \"2.0\")\n\
         \x20 - set(span.attributes[\"env\"], resource.attributes[\"env\"])\n\
         \x20 - set(span.name, Concat([span.attributes[\"http.method\"], scope.version], \" \")) where span.kind == SPAN_KIND_SERVER\n\
         \x20 - replace_pattern(span.attributes[\"token\"], \"^secret-\\\\d+$\", \"***\")\n\
         \x20 - set(spanevent.attributes[\"of\"], span.name)\n\
         \x20 - delete_key(spanevent.attributes, \"k\") where spanevent.name == \"end\"\n",
        &traces(),
    );
    let resource_spans = &out.request.resource_spans[0];
    assert_eq!(
        texts(&resource_spans.resource.as_ref().unwrap().attributes),
        ["service.name=shop", "env=prod"]
    );
    assert_eq!(resource_spans.scope_spans[0].scope.as_ref().unwrap().version, "2.0");
    let spans = spans(&out.request);
    assert_eq!([&*spans[0].name, &*spans[1].name], ["GET 2.0", "put /"]);
    for span in &spans {
        assert_eq!(texts(&span.attributes), ["http.method=GET", "token=***", "env=prod"]);
        let events: Vec<_> = span.events.iter().map(|event| texts(&event.attributes)).collect();
        let of = format!("of={}", span.name);
        assert_eq!(events, [vec!["k=v".to_owned(), of.clone()], vec![of]]);
    }
    assert_eq!((out.items, out.dropped, out.malformed, out.walks), (2, 0, 0, 1));
}

#[test]
fn metrics_and_points_are_changed() {
    let out = run(
        "transform:\n  metric_statements:\n\
         \x20 - replace_pattern(metric.name, \"^legacy\\\\.\", \"\")\n\
         \x20 - delete_key(datapoint.attributes, \"user\") where metric.name == \"requests\"\n\
         \x20 - set(datapoint.value_int, datapoint.value_int * 10) where datapoint.attributes[\"user\"] == \"bob\"\n\
         \x20 - set(metric.unit, \"{request}\") where metric.type == METRIC_DATA_TYPE_SUM and metric.is_monotonic == true\n",
        &metrics(),
    );
    let found = &out.request.resource_metrics[0].scope_metrics[0].metrics;
    assert_eq!([&*found[0].name, &*found[1].name], ["requests", "errors"]);
    let points = |at: usize| match &found[at].data {
        Some(metric::Data::Sum(sum)) => {
            sum.data_points.iter().map(|p| (texts(&p.attributes), p.value)).collect::<Vec<_>>()
        }
        _ => Vec::new(),
    };
    let int = |i| Some(number_data_point::Value::AsInt(i));
    assert_eq!(points(0), [(vec!["route=/".to_owned()], int(1)), (vec!["route=/".to_owned()], int(2))]);
    assert_eq!(points(1)[1], (vec!["user=bob".to_owned(), "route=/".to_owned()], int(20)));
    assert!(found.iter().all(|m| m.unit == "{request}"));
}

#[test]
fn records_are_changed() {
    for (statements, bodies, want, attributes) in [
        (
            "- replace_pattern(log.body, \"(token|password)=\\\\S+\", \"$1=***\")",
            "login password=x token=y ok",
            "login password=*** token=*** ok",
            "a=1,b=2,c=3",
        ),
        (
            "- replace_pattern(log.body, \"(\\\\w+)@\\\\w+\", \"$$1@x\")",
            "to ann@home",
            "to ann@x",
            "a=1,b=2,c=3",
        ),
        ("- keep_keys(log.attributes, [\"c\", \"x\", \"a\"])", "", "", "a=1,c=3"),
        ("- keep_matching_keys(log.attributes, \"[ab]\")", "", "", "a=1,b=2"),
        ("- delete_matching_keys(log.attributes, \"[ab]\")", "", "", "c=3"),
        ("- set(log.body, \"x\") where log.attributes[\"a\"] == \"2\"", "kept", "kept", "a=1,b=2,c=3"),
        ("- set(log.body, nil)", "kept", "kept", "a=1,b=2,c=3"),
        (
            "- context: log\n  conditions: ['attributes[\"a\"] == \"2\"', 'attributes[\"b\"] == \"2\"']\n  \
             statements: ['set(attributes[\"b\"], \"3\")', 'set(attributes[\"c\"], \"4\")']",
            "",
            "",
            // The condition is asked once for all statements.
            "a=1,b=3,c=4",
        ),
        (
            "- context: log\n  conditions: ['attributes[\"a\"] == \"2\"']\n  statements: ['delete_key(attributes, \"a\")']",
            "",
            "",
            "a=1,b=2,c=3",
        ),
        (
            "- statements: ['set(log.attributes[\"a\"], resource.attributes[\"env\"])', 'set(resource.attributes[\"env\"], \"new\")', \
             'set(log.attributes[\"b\"], resource.attributes[\"env\"])']",
            "",
            "",
            "a=test,b=new,c=3",
        ),
        ("- set(log.attributes[\"a\"], scope.name)", "", "", "a=lib,b=2,c=3"),
        ("- truncate_all(log.attributes, 0)", "", "", "a=,b=,c="),
        (
            "- merge_maps(log.attributes, ParseJSON(log.body), \"upsert\")",
            "{\"a\": \"x\", \"d\": \"y\"}",
            "{\"a\": \"x\", \"d\": \"y\"}",
            "a=x,b=2,c=3,d=y",
        ),
    ] {
        let text = format!("transform:\n  log_statements:\n  {}", statements.replace('\n', "\n  "));
        let out = run(&text, &logs(&[bodies]));
        let record = records(&out.request)[0];
        assert_eq!(
            (body(record), texts(&record.attributes).join(",").as_str()),
            (want, attributes),
            "{statements}"
        );
    }
}

#[test]
fn a_statement_that_fails_does_what_its_error_mode_says() {
    let request = logs(&["no json", "{}"]);
    let statements =
        "set(log.attributes[\"a\"], ParseJSON(log.body)[\"x\"]), set(log.attributes[\"b\"], \"set\")";
    for (mode, refused) in [("ignore", false), ("silent", false), ("propagate", true)] {
        let list = statements.replace("), ", ")', '");
        let out = run(&format!("transform: {{error_mode: {mode}, log_statements: ['{list}']}}"), &request);
        assert_eq!(out.refused.is_some(), refused, "{mode}");
        let want = if refused { "b=2" } else { "b=set" };
        assert!(
            records(&out.request).iter().all(|r| texts(&r.attributes).contains(&want.to_owned())),
            "{mode}"
        );
        let block =
            format!("transform: {{log_statements: [{{error_mode: {mode}, statements: ['{list}']}}]}}");
        assert_eq!(run(&block, &request).refused.is_some(), refused, "{mode} of a block");
    }
}

#[test]
fn what_no_statement_touches_keeps_its_bytes() {
    for text in [
        "transform: {log_statements: ['set(log.attributes[\"a\"], \"1\")', 'delete_key(log.attributes, \"x\")']}",
        "transform: {trace_statements: ['set(span.name, \"x\")']}",
        "transform: {log_statements: []}",
        "transform: {}",
    ] {
        let out = run(text, &logs(&["a", "b"]));
        assert_eq!((out.changed, out.request), (false, logs(&["a", "b"])), "{text}");
    }
}

#[test]
fn metrics_are_judged_by_points_as_statements_before_left_them() {
    let out = run(
        "transform: {metric_statements: ['delete_key(datapoint.attributes, \"user\")', \
         'set(metric.description, \"no users\") where not HasAttrKeyOnDatapoint(\"user\")']}",
        &metrics(),
    );
    assert_eq!(out.walks, 2);
    let found = &out.request.resource_metrics[0].scope_metrics[0].metrics;
    assert!(found.iter().all(|m| m.description == "no users"));
}

#[test]
fn filters_and_transforms_walk_together() {
    let out = run(
        "transform/a: {log_statements: ['set(log.attributes[\"a\"], log.body)']}\n\
         filter: {log_conditions: ['log.attributes[\"a\"] == \"drop\"']}\n\
         transform/b: {log_statements: ['set(log.body, \"seen\")', 'set(resource.attributes[\"n\"], 1)']}",
        &logs(&["drop", "keep", "drop"]),
    );
    assert_eq!((out.items, out.dropped, out.walks), (1, 2, 1));
    let record = records(&out.request)[0];
    assert_eq!((body(record), texts(&record.attributes)[0].as_str()), ("seen", "a=keep"));
}
