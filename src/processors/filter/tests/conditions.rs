//! Conditions of the transformation language, in each context.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::span::Event;

use super::older::{logs, logs_of, metrics, metrics_of, spans_of, traces};
use crate::processors::testing::{attr, run};

fn with_events() -> ExportTraceServiceRequest {
    let mut request = traces();
    for resource in &mut request.resource_spans {
        for span in resource.scope_spans.iter_mut().flat_map(|s| &mut s.spans) {
            let event = |name: &str| Event {
                name: name.into(),
                attributes: vec![attr("span", &span.name)],
                ..Event::default()
            };
            span.events = vec![event("message"), event("exception")];
        }
    }
    request
}

type Keeps = fn(&str) -> bool;

#[test]
fn spans_go_for_which_a_condition_holds() {
    let cases: [(&str, Keeps); 14] = [
        ("trace_conditions: [span.name == \"get\"]", |s| !s.ends_with("/get")),
        ("trace_conditions: ['resource.attributes[\"env\"] == \"prod\"']", |s| s.starts_with("test")),
        ("trace_conditions: [scope.name == \"one\"]", |s| s.contains("/two/")),
        ("trace_conditions: [instrumentation_scope.name == \"one\"]", |s| s.contains("/two/")),
        (
            "trace_conditions: ['resource.attributes[\"env\"] == \"prod\" and span.kind == SPAN_KIND_SERVER']",
            |s| s != "prod/one/get" && s != "prod/two/get",
        ),
        (
            "trace_conditions: ['scope.name == \"one\" and span.name == \"put\"', 'resource.attributes[\"env\"] == \"test\"']",
            |s| s.starts_with("prod") && s != "prod/one/put",
        ),
        (
            "trace_conditions: [{context: span, conditions: [name == \"get\", 'resource.attributes[\"env\"] == \"test\"']}]",
            |s| s.starts_with("prod") && s.ends_with("put"),
        ),
        (
            "trace_conditions: [{conditions: [span.name == \"get\", 'resource.attributes[\"env\"] == \"test\"']}]",
            |s| s.starts_with("prod") && s.ends_with("put"),
        ),
        (
            "trace_conditions: [{context: Resource, conditions: ['IsMatch(attributes[\"env\"], \"^p\")']}]",
            |s| s.starts_with("test"),
        ),
        ("traces: {span: [name == \"get\"]}", |s| s.ends_with("/put")),
        ("traces: {resource: ['attributes[\"env\"] == \"prod\"'], span: [name == \"get\"]}", |s| {
            s.starts_with("test") && s.ends_with("/put")
        }),
        ("trace_conditions: [IsRootSpan()]", |_| false),
        ("trace_conditions: ['span.attributes[\"none\"] != nil']", |_| true),
        ("trace_conditions: []", |_| true),
    ];
    let all = spans_of(&traces());
    for (conditions, keeps) in cases {
        let out = run(&format!("filter/x: {{{conditions}}}"), &traces());
        let want: Vec<String> = all.iter().filter(|s| keeps(s)).cloned().collect();
        assert_eq!(spans_of(&out.request), want, "{conditions}");
        let left = want.len();
        assert_eq!((out.items, out.dropped, out.malformed), (left, 8 - left, 0), "{conditions}");
        assert_eq!(out.changed, left < 8, "{conditions}");
        let counted = out.counter("otelcol_processor_filter_spans_filtered", &[("processor", "filter/x")]);
        assert_eq!(counted, 8 - left as u64, "{conditions}");
    }
}

#[test]
fn spans_stay_without_events() {
    for (conditions, left) in [
        ("trace_conditions: [spanevent.name == \"message\"]", 8),
        ("traces: {spanevent: [name == \"message\"]}", 8),
        ("trace_conditions: ['spanevent.attributes[\"span\"] == \"get\" and span.name == \"get\"']", 8),
        ("trace_conditions: ['spanevent.name != nil']", 0),
        (
            "trace_conditions: ['spanevent.name == \"message\" and resource.attributes[\"env\"] == \"prod\"']",
            12,
        ),
    ] {
        let out = run(&format!("filter: {{{conditions}}}"), &with_events());
        assert_eq!(spans_of(&out.request).len(), 8, "{conditions}");
        let spans = out.request.resource_spans.iter().flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans);
        assert_eq!(spans.map(|s| s.events.len()).sum::<usize>(), left, "{conditions}");
        assert_eq!((out.items, out.dropped), (8, 0), "{conditions}");
    }
    // A dropped span is not asked for its events.
    let out =
        run("filter: {trace_conditions: [span.name == \"get\", spanevent.name != \"\"]}", &with_events());
    assert_eq!(out.dropped, 4);
}

#[test]
fn metrics_and_points_go_for_which_a_condition_holds() {
    let cases: [(&str, Keeps, usize); 9] = [
        ("metric_conditions: [metric.name == \"errors\"]", |m| !m.ends_with("errors"), 6),
        ("metric_conditions: ['resource.attributes[\"env\"] == \"test\"']", |m| m.starts_with("prod"), 4),
        ("metric_conditions: [metric.type == METRIC_DATA_TYPE_HISTOGRAM]", |m| !m.ends_with("latency"), 6),
        (
            "metrics: {metric: [name == \"errors\"], datapoint: ['attributes[\"code\"] == \"200\"']}",
            |m| m.ends_with("requests"),
            2,
        ),
        // A metric that loses all its points goes.
        ("metric_conditions: ['datapoint.attributes[\"code\"] == \"500\"']", |m| !m.ends_with("errors"), 4),
        (
            "metric_conditions: ['datapoint.attributes[\"code\"] == \"500\" and metric.name == \"requests\"']",
            |_| true,
            6,
        ),
        ("metric_conditions: ['HasAttrKeyOnDatapoint(\"le\")']", |m| !m.ends_with("latency"), 6),
        ("metric_conditions: ['HasAttrOnDatapoint(\"code\", \"500\")']", |m| m.ends_with("latency"), 2),
        ("metrics: {resource: ['attributes[\"env\"] != nil']}", |_| false, 0),
    ];
    let all = metrics_of(&metrics());
    for (conditions, keeps, points) in cases {
        let out = run(&format!("filter: {{{conditions}}}"), &metrics());
        let want: Vec<String> = all.iter().filter(|m| keeps(m)).cloned().collect();
        assert_eq!(metrics_of(&out.request), want, "{conditions}");
        assert_eq!((out.items, out.dropped), (points, 8 - points), "{conditions}");
        let counted = out.counter("otelcol_processor_filter_datapoints_filtered", &[("processor", "filter")]);
        assert_eq!(counted, 8 - points as u64, "{conditions}");
    }
}

#[test]
fn records_go_for_which_a_condition_holds() {
    let cases: [(&str, Keeps); 7] = [
        ("log_conditions: [log.severity_number >= SEVERITY_NUMBER_WARN]", |r| !r.ends_with("warn")),
        ("log_conditions: ['IsMatch(log.body, \"^(slow|no)\")']", |r| r.ends_with("info")),
        ("logs: {log_record: ['severity_text == \"\"']}", |r| !r.ends_with("/")),
        ("logs: {resource: ['attributes[\"env\"] == \"test\"']}", |r| r.starts_with("prod")),
        (
            "log_conditions: [{context: log, conditions: ['attributes[\"level\"] == \"info\" and resource.attributes[\"env\"] == \"test\"']}]",
            |r| r != "test/info",
        ),
        ("log_conditions: [scope.name == \"one\"]", |_| false),
        ("log_conditions: [not (log.severity_number == 9 or log.severity_number == 0)]", |r| {
            !r.ends_with("warn")
        }),
    ];
    let all = logs_of(&logs());
    for (conditions, keeps) in cases {
        let out = run(&format!("filter: {{{conditions}}}"), &logs());
        let want: Vec<String> = all.iter().filter(|r| keeps(r)).cloned().collect();
        assert_eq!(logs_of(&out.request), want, "{conditions}");
        assert_eq!((out.items, out.dropped), (want.len(), 6 - want.len()), "{conditions}");
    }
}

#[test]
fn a_condition_that_fails_does_what_its_error_mode_says() {
    let fails = "ParseJSON(log.body) != nil";
    for (mode, refused) in [("ignore", false), ("silent", false), ("propagate", true)] {
        let text = format!(
            "filter: {{error_mode: {mode}, log_conditions: ['{fails}', log.severity_text == \"info\"]}}"
        );
        let out = run(&text, &logs());
        assert_eq!(out.refused.is_some(), refused, "{mode}");
        assert_eq!((out.items, out.dropped), if refused { (6, 0) } else { (4, 2) }, "{mode}");
        let block = format!(
            "filter: {{log_conditions: [{{error_mode: {mode}, conditions: ['{fails}', 'log.flags == 1']}}]}}"
        );
        assert_eq!(run(&block, &logs()).refused.is_some(), refused, "{mode} of a block");
    }
    let out = run(&format!("filter: {{error_mode: propagate, log_conditions: ['{fails}']}}"), &logs());
    assert!(out.refused.as_deref().is_some_and(|why| why.contains(fails)), "{:?}", out.refused);
    assert_eq!(out.request, logs(), "nothing of it has been changed");
}

#[test]
fn a_filter_sees_what_processors_before_it_left() {
    let text = "attributes: {actions: [{key: level, value: changed, action: update}]}\n\
                resource: {attributes: [{key: env, value: dev, action: update}]}\n\
                filter: {log_conditions: ['log.attributes[\"level\"] != \"changed\" or resource.attributes[\"env\"] != \"dev\"']}";
    let out = run(text, &logs());
    assert_eq!((out.items, out.walks), (6, 1), "all in one walk");
    let text = "attributes: {actions: [{key: code, value: changed, action: update}]}\n\
                filter: {metric_conditions: ['HasAttrOnDatapoint(\"code\", \"changed\")']}";
    let out = run(text, &metrics());
    assert_eq!((out.items, out.walks), (0, 2), "what it finds in points is what they are by then");
}
