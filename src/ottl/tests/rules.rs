//! Groups: order, gates, dropping and keeping, errors.

use super::*;
use crate::telemetry::Metrics;

fn names(request: &[u8]) -> Vec<(String, Vec<String>)> {
    let request = ExportTraceServiceRequest::decode(request).unwrap();
    let spans = request.resource_spans.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans);
    spans.map(|s| (s.name, s.events.into_iter().map(|e| e.name).collect())).collect()
}

fn spans(names: &[&str]) -> Vec<u8> {
    let span = |name: &&str| Span { name: (*name).to_owned(), ..a_span() };
    traces_of(names.iter().map(span).collect()).encode_to_vec()
}

#[test]
fn filters_drop_or_keep() {
    let request = spans(&["a", "b", "c"]);
    let run = |conditions: &[&str], keep| {
        let (out, applied) = apply(Signal::Traces, vec![filter(conditions, Signal::Traces, keep)], &request);
        let names: Vec<String> =
            names(&out).into_iter().map(|(name, events)| format!("{name}{}", events.len())).collect();
        (names.join(" "), applied.dropped)
    };
    let traces = |want: &str, dropped| (want.to_owned(), dropped);
    assert_eq!(run(&["span.name == \"b\""], false), traces("a2 c2", 1));
    assert_eq!(run(&["span.name == \"b\""], true), traces("b2", 2));
    assert_eq!(run(&["span.name == \"b\"", "span.name == \"a\""], false), traces("c2", 2));
    assert_eq!(run(&["span.name == \"b\"", "span.name == \"a\""], true), traces("a2 b2", 1));
    assert_eq!(run(&["spanevent.name == \"one\""], false), traces("a1 b1 c1", 0));
    assert_eq!(run(&["spanevent.name != \"\" and span.name == \"a\""], false), traces("a0 b2 c2", 0));
    assert_eq!(run(&["resource.attributes[\"n\"] == 3"], false), traces("", 3));
    assert_eq!(run(&["resource.attributes[\"n\"] == 3"], true), traces("a2 b2 c2", 0));
    assert_eq!(run(&["scope.name == \"other\""], true), traces("", 3));
    assert_eq!(run(&["otelcol.client.metadata[\"tenant\"] == \"one\""], false), traces("", 3));
    assert_eq!(run(&["true"], false), traces("", 3));
    assert_eq!(run(&["false"], false), traces("a2 b2 c2", 0));
    // A resource's condition and a span's: what either drops is gone.
    assert_eq!(run(&["span.name == \"b\"", "resource.attributes[\"n\"] == 4"], false), traces("a2 c2", 1));
}

#[test]
fn metrics_without_points_are_gone() {
    let (out, applied) = apply(
        Signal::Metrics,
        vec![filter(&["datapoint.value_int == -3"], Signal::Metrics, false)],
        &request(Signal::Metrics),
    );
    let out = ExportMetricsServiceRequest::decode(&out[..]).unwrap();
    let left: Vec<_> =
        out.resource_metrics[0].scope_metrics[0].metrics.iter().map(|m| m.name.clone()).collect();
    assert_eq!((left.join(" "), applied.dropped), ("gauge histogram exponential summary".to_owned(), 1));
    let (out, applied) = apply(
        Signal::Metrics,
        vec![filter(&["HasAttrKeyOnDatapoint(\"s\")"], Signal::Metrics, false)],
        &request(Signal::Metrics),
    );
    assert_eq!((out.len(), applied.dropped), (0, 5));
}

#[test]
fn what_is_dropped_is_counted() {
    let counter = Metrics::new().series("dropped", "Dropped.", &[("by", "test")]);
    let group =
        ConditionGroup::parse(None, &["span.name == \"a\""], Signal::Traces, ErrorMode::Ignore).unwrap();
    let rules = Rules::filter("filter", Signal::Traces, vec![group], false, Some(counter.clone()));
    let (_, applied) = apply(Signal::Traces, vec![rules], &spans(&["a", "b", "a"]));
    assert_eq!(applied.dropped, 2);
    assert_eq!(counter.get(), 2);
}

#[test]
fn a_group_sees_what_those_before_it_left() {
    let group = |context, conditions: &[&str], statements: &[&str]| {
        StatementGroup::parse(context, conditions, statements, Signal::Traces, ErrorMode::Propagate).unwrap()
    };
    // The resource changes between two groups about spans, both of which ask for it.
    let groups = vec![
        group(None, &[], &["set(span.attributes[\"first\"], resource.attributes[\"n\"])"]),
        group(None, &[], &["set(resource.attributes[\"n\"], 100)"]),
        group(None, &[], &["set(span.attributes[\"second\"], resource.attributes[\"n\"])"]),
        group(
            None,
            &["resource.attributes[\"n\"] == 100"],
            &["set(span.name, \"seen\")", "set(span.attributes[\"third\"], span.name)"],
        ),
        group(None, &[], &["set(spanevent.name, span.name)"]),
        group(None, &["span.name == \"a\""], &["set(span.attributes[\"fourth\"], true)"]),
        group(
            Some(Context::Span),
            &["name == \"x\"", "true"],
            &["set(attributes[\"fifth\"], 1) where name == \"seen\""],
        ),
    ];
    let rules = Rules::transform("transform", Signal::Traces, groups);
    let (out, applied) = apply(Signal::Traces, vec![rules], &spans(&["a"]));
    assert_eq!(applied.refused, None);
    assert_eq!(names(&out), [("seen".to_owned(), vec!["seen".to_owned(), "seen".to_owned()])]);
    let attributes = attributes_of(Context::Span, "", &out);
    assert_eq!(show_map(&attributes[10..]), "{first: 3, second: 100, third: \"seen\", fifth: 1}");
}

#[test]
fn errors_go_as_the_mode_says() {
    let request = spans(&["a", "b"]);
    let run = |mode| {
        let statements = ["set(name, attributes[\"i\"]) where name == \"a\"", "set(kind, 0)"];
        let none: [&str; 0] = [];
        let group =
            StatementGroup::parse(Some(Context::Span), &none, &statements, Signal::Traces, mode).unwrap();
        apply(Signal::Traces, vec![Rules::transform("transform/x", Signal::Traces, vec![group])], &request)
    };
    for mode in [ErrorMode::Ignore, ErrorMode::Silent] {
        let (out, applied) = run(mode);
        let out = ExportTraceServiceRequest::decode(&out[..]).unwrap();
        assert!(out.resource_spans[0].scope_spans[0].spans.iter().all(|span| span.kind == 0));
        assert_eq!(applied.refused, None);
    }
    let (out, applied) = run(ErrorMode::Propagate);
    assert_eq!(out, request);
    assert_eq!(
        applied.refused.unwrap(),
        "transform/x: set needs a string, found an integer, in: set(name, attributes[\"i\"]) where name == \"a\""
    );
    // A condition that cannot be evaluated does not hold, and the next one is asked.
    let group = |mode| {
        let conditions = ["HasPrefix(attributes[\"i\"], \"a\")", "name == \"b\""];
        ConditionGroup::parse(Some(Context::Span), &conditions, Signal::Traces, mode).unwrap()
    };
    let run = |mode, keep| {
        apply(
            Signal::Traces,
            vec![Rules::filter("filter", Signal::Traces, vec![group(mode)], keep, None)],
            &request,
        )
    };
    assert_eq!(names(&run(ErrorMode::Ignore, false).0)[0].0, "a");
    assert_eq!(names(&run(ErrorMode::Silent, true).0)[0].0, "b");
    assert!(run(ErrorMode::Propagate, false).1.refused.is_some());
}

#[test]
fn rules_of_another_signal_do_nothing() {
    let (out, applied) =
        apply(Signal::Logs, vec![filter(&["true"], Signal::Traces, false)], &request(Signal::Logs));
    assert_eq!((out, applied.changed), (request(Signal::Logs), false));
}
