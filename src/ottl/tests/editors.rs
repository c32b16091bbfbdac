//! What each editor leaves behind.

use super::*;

/// The attributes after statements on a log with a few of them.
fn edited(attributes: &[(&str, AnyValue)], statements: &[&str]) -> String {
    let mut log = a_log();
    log.attributes = attributes.iter().map(|(key, value)| pair(key, value.clone())).collect();
    let request = logs_of(vec![log]).encode_to_vec();
    let (out, applied) =
        apply(Signal::Logs, vec![transform(Context::Log, statements, Signal::Logs)], &request);
    assert_eq!(applied.malformed, 0, "{statements:?}");
    match applied.refused {
        Some(why) => {
            format!("error: {}", why.split(", in:").next().unwrap().trim_start_matches("transform: "))
        }
        None => show_map(&attributes_of(Context::Log, "", &out)),
    }
}

#[test]
fn editors_of_maps() {
    let abc =
        [("a", text("one")), ("b", int(2)), ("c", map(vec![pair("x", text("deep")), pair("y", int(1))]))];
    for (statement, want) in [
        ("set(attributes[\"a\"], 1)", "{a: 1, b: 2, c: {x: \"deep\", y: 1}}"),
        ("set(attributes[\"d\"], [1])", "{a: \"one\", b: 2, c: {x: \"deep\", y: 1}, d: [1]}"),
        ("set(attributes[\"a\"], nil)", "{a: \"one\", b: 2, c: {x: \"deep\", y: 1}}"),
        ("set(attributes[\"a\"], attributes[\"none\"])", "{a: \"one\", b: 2, c: {x: \"deep\", y: 1}}"),
        (
            "set(attributes[\"a\"], 1) where attributes[\"b\"] == 3",
            "{a: \"one\", b: 2, c: {x: \"deep\", y: 1}}",
        ),
        ("set(attributes[\"c\"][\"x\"], attributes[\"a\"])", "{a: \"one\", b: 2, c: {x: \"one\", y: 1}}"),
        (
            "set(attributes[\"c\"][\"z\"][\"q\"], true)",
            "{a: \"one\", b: 2, c: {x: \"deep\", y: 1, z: {q: true}}}",
        ),
        ("set(attributes[\"n\"][\"z\"], 1)", "{a: \"one\", b: 2, c: {x: \"deep\", y: 1}, n: {z: 1}}"),
        ("set(attributes[\"n\"][2], 1)", "{a: \"one\", b: 2, c: {x: \"deep\", y: 1}, n: [nil, nil, 1]}"),
        ("set(attributes[\"n\"][100000000], 1)", "error: an index needs a list, found nil"),
        ("set(attributes[\"a\"][\"z\"], 1)", "error: [\"key\"] needs a map, found a string"),
        ("set(attributes, attributes[\"c\"])", "{x: \"deep\", y: 1}"),
        ("set(attributes, {})", "{}"),
        ("set(attributes, attributes[\"a\"])", "error: set needs a map for all attributes, found a string"),
        (
            "set(attributes[\"all\"], attributes)",
            "{a: \"one\", b: 2, c: {x: \"deep\", y: 1}, all: {a: \"one\", b: 2, c: {x: \"deep\", y: 1}}}",
        ),
        ("delete_key(attributes, \"b\")", "{a: \"one\", c: {x: \"deep\", y: 1}}"),
        ("delete_key(attributes, \"none\")", "{a: \"one\", b: 2, c: {x: \"deep\", y: 1}}"),
        ("delete_key(attributes[\"c\"], \"x\")", "{a: \"one\", b: 2, c: {y: 1}}"),
        (
            "delete_key(attributes[\"c\"], Concat([\"\", \"y\"], \"\"))",
            "{a: \"one\", b: 2, c: {x: \"deep\"}}",
        ),
        ("delete_key(attributes[\"a\"], \"x\")", "error: delete_key needs a map, found a string"),
        ("delete_matching_keys(attributes, \"^[ab]$\")", "{c: {x: \"deep\", y: 1}}"),
        ("delete_matching_keys(attributes[\"c\"], \"x\")", "{a: \"one\", b: 2, c: {y: 1}}"),
        ("keep_keys(attributes, [\"b\", \"z\"])", "{b: 2}"),
        ("keep_keys(attributes, [])", "{}"),
        ("keep_matching_keys(attributes, \"(?i)[BC]\")", "{b: 2, c: {x: \"deep\", y: 1}}"),
        ("keep_matching_keys(attributes[\"none\"], \"a\")", "error: the editor needs a map, found nil"),
        ("limit(attributes, 2)", "{a: \"one\", b: 2}"),
        ("limit(attributes, 2, [\"c\"])", "{a: \"one\", c: {x: \"deep\", y: 1}}"),
        ("limit(attributes, 3, [\"c\"])", "{a: \"one\", b: 2, c: {x: \"deep\", y: 1}}"),
        ("limit(attributes, 0)", "{}"),
        ("limit(attributes[\"c\"], limit=1, priority_keys=[\"y\"])", "{a: \"one\", b: 2, c: {y: 1}}"),
        ("truncate_all(attributes, 2)", "{a: \"on\", b: 2, c: {x: \"deep\", y: 1}}"),
        ("truncate_all(attributes[\"c\"], 1)", "{a: \"one\", b: 2, c: {x: \"d\", y: 1}}"),
        (
            "merge_maps(attributes, {\"a\": 0, \"z\": 9}, \"insert\")",
            "{a: \"one\", b: 2, c: {x: \"deep\", y: 1}, z: 9}",
        ),
        ("merge_maps(attributes, {\"a\": 0, \"z\": 9}, \"update\")", "{a: 0, b: 2, c: {x: \"deep\", y: 1}}"),
        (
            "merge_maps(attributes, {\"a\": 0, \"z\": 9}, \"upsert\")",
            "{a: 0, b: 2, c: {x: \"deep\", y: 1}, z: 9}",
        ),
        (
            "merge_maps(attributes[\"c\"], attributes, \"upsert\")",
            "{a: \"one\", b: 2, c: {x: \"deep\", y: 1, a: \"one\", b: 2, c: {x: \"deep\", y: 1}}}",
        ),
        (
            "merge_maps(attributes, body[\"none\"], \"upsert\")",
            "error: merge_maps needs a map as its source, found nil",
        ),
    ] {
        assert_eq!(edited(&abc, &[statement]), want, "{statement}");
    }
    let words = [("é", text("ééé")), ("b", text("xyz"))];
    assert_eq!(edited(&words, &["truncate_all(attributes, 3)"]), "{é: \"é\", b: \"xyz\"}");
    assert_eq!(edited(&words, &["truncate_all(attributes, 1, utf8_safe=true)"]), "{é: \"\", b: \"x\"}");
    let cut = edited(&[("a", text("éb"))], &["replace_pattern(attributes[\"a\"], \"\\\\B\", \"-\")"]);
    assert_eq!(cut, "{a: \"-éb\"}");
}

#[test]
fn replacing() {
    let of = |statement: &str| {
        edited(&[("a", text("user=bob id=12")), ("user", text("bob")), ("n", int(12))], &[statement])
    };
    for (statement, want) in [
        (
            "replace_pattern(attributes[\"a\"], \"=\\\\w+\", \"=*\")",
            "{a: \"user=* id=*\", user: \"bob\", n: 12}",
        ),
        (
            "replace_pattern(attributes[\"a\"], \"(\\\\w+)=(\\\\w+)\", \"$2=${1}\")",
            "{a: \"bob=user 12=id\", user: \"bob\", n: 12}",
        ),
        (
            "replace_pattern(attributes[\"a\"], \"(?P<k>\\\\w+)=\", \"${k}:\")",
            "{a: \"user:bob id:12\", user: \"bob\", n: 12}",
        ),
        (
            "replace_pattern(attributes[\"user\"], \"b\", \"$$\")",
            "{a: \"user=bob id=12\", user: \"$o$\", n: 12}",
        ),
        ("replace_pattern(attributes[\"n\"], \"1\", \"2\")", "{a: \"user=bob id=12\", user: \"bob\", n: 12}"),
        (
            "replace_pattern(attributes[\"none\"], \"1\", \"2\")",
            "{a: \"user=bob id=12\", user: \"bob\", n: 12}",
        ),
        (
            "replace_pattern(attributes[\"user\"], \"(b)o\", \"$1\", SHA1)",
            "{a: \"user=bob id=12\", user: \"e9d71f5ee7c92d6dc9e92ffdad17b8bd49418f98b\", n: 12}",
        ),
        (
            "replace_pattern(attributes[\"user\"], \"o\", \"x\", function=ToUpperCase, replacement_format=\"<%s>\")",
            "{a: \"user=bob id=12\", user: \"b<X>b\", n: 12}",
        ),
        ("replace_match(attributes[\"a\"], \"user*\", \"gone\")", "{a: \"gone\", user: \"bob\", n: 12}"),
        (
            "replace_match(attributes[\"a\"], \"user\", \"gone\")",
            "{a: \"user=bob id=12\", user: \"bob\", n: 12}",
        ),
        (
            "replace_match(attributes[\"user\"], \"[!x]?{a,b}\", \"$1\")",
            "{a: \"user=bob id=12\", user: \"$1\", n: 12}",
        ),
        ("replace_all_matches(attributes, \"*bob*\", \"x\")", "{a: \"x\", user: \"x\", n: 12}"),
        (
            "replace_all_patterns(attributes, \"value\", \"b.b\", \"x\")",
            "{a: \"user=x id=12\", user: \"x\", n: 12}",
        ),
        (
            "replace_all_patterns(attributes, \"key\", \"^us(er)$\", \"$1\")",
            "{a: \"user=bob id=12\", n: 12, er: \"bob\"}",
        ),
        ("replace_all_patterns(attributes, \"key\", \"user\", \"n\")", "{a: \"user=bob id=12\", n: \"bob\"}"),
    ] {
        assert_eq!(of(statement), want, "{statement}");
    }
}

#[test]
fn fields_of_logs() {
    let request = logs_of(vec![a_log()]).encode_to_vec();
    let statements = [
        "set(severity_number, SEVERITY_NUMBER_ERROR)",
        "set(severity_text, \"error\")",
        "set(event_name, \"\")",
        "set(time_unix_nano, 77)",
        "set(observed_time, time)",
        "set(trace_id, TraceID(0x00000000000000000000000000000000))",
        "set(span_id, SpanID(0x0102030405060708))",
        "set(flags, 0)",
        "set(dropped_attributes_count, 9)",
        "set(body[\"msg\"], Concat([\"<\", body[\"msg\"], \">\"], \"\"))",
        "replace_pattern(body[\"msg\"], \"password=\\\\w+\", \"password=***\")",
        "delete_key(body, \"code\")",
        "keep_keys(attributes, [\"i\"])",
    ];
    let (out, applied) =
        apply(Signal::Logs, vec![transform(Context::Log, &statements, Signal::Logs)], &request);
    assert_eq!(applied.refused, None);
    let want = LogRecord {
        time_unix_nano: 77,
        observed_time_unix_nano: 77,
        severity_number: 17,
        severity_text: "error".to_owned(),
        body: Some(map(vec![pair("msg", text("<user=bob password=***>"))])),
        attributes: vec![pair("i", int(7))],
        dropped_attributes_count: 9,
        flags: 0,
        trace_id: Vec::new(),
        span_id: (1..9).collect(),
        event_name: String::new(),
    };
    assert_eq!(ExportLogsServiceRequest::decode(&out[..]).unwrap(), logs_of(vec![want]));
    let (out, _) = apply(
        Signal::Logs,
        vec![transform(
            Context::Log,
            &["set(body, attributes[\"l\"])", "set(body[1], \"new\")"],
            Signal::Logs,
        )],
        &request,
    );
    let body = ExportLogsServiceRequest::decode(&out[..]).unwrap().resource_logs[0].scope_logs[0].log_records
        [0]
    .body
    .clone();
    assert_eq!(show(body.as_ref()), "[\"x\", \"new\", \"z\"]");
}

#[test]
fn fields_of_spans_events_scopes_and_resources() {
    let group = |context, statements: &[&str]| transform(context, statements, Signal::Traces);
    let rules = vec![
        group(
            Context::Resource,
            &["set(attributes[\"n\"], attributes[\"n\"] + 1)", "set(dropped_attributes_count, 0)"],
        ),
        group(
            Context::Scope,
            &["set(name, Concat([name, version], \"/\"))", "delete_key(attributes, \"k\")"],
        ),
        group(
            Context::Span,
            &[
                "set(name, \"x\") where kind == SPAN_KIND_SERVER",
                "set(kind, SPAN_KIND_CLIENT)",
                "set(status.code, STATUS_CODE_OK)",
                "set(status.message, resource.attributes[\"service.name\"])",
                "set(trace_state, \"z=1\")",
                "set(start_time, end_time - Duration(\"1us\"))",
                "set(end_time_unix_nano, 4000)",
                "set(flags, 2)",
                "limit(attributes, 1)",
            ],
        ),
        group(
            Context::SpanEvent,
            &[
                "set(name, span.name) where name == \"one\"",
                "set(time_unix_nano, 51)",
                "keep_keys(attributes, [])",
            ],
        ),
    ];
    let (out, applied) = apply(Signal::Traces, rules, &request(Signal::Traces));
    assert_eq!((applied.refused, applied.malformed), (None, 0));
    let mut span = a_span();
    span.name = "x".to_owned();
    span.kind = 3;
    span.status = Some(Status { message: "shop".to_owned(), code: 1 });
    span.trace_state = "z=1".to_owned();
    (span.start_time_unix_nano, span.end_time_unix_nano, span.flags) = (2_500, 4_000, 2);
    span.attributes.truncate(1);
    for (event, name) in span.events.iter_mut().zip(["x", "two"]) {
        (event.name, event.time_unix_nano) = (name.to_owned(), 51);
        event.attributes.clear();
    }
    let mut want = traces_of(vec![span]);
    let group = &mut want.resource_spans[0];
    group.resource = Some(Resource {
        attributes: vec![pair("service.name", text("shop")), pair("n", int(4))],
        ..Default::default()
    });
    let scope = group.scope_spans[0].scope.as_mut().unwrap();
    scope.name = "lib/1.2".to_owned();
    scope.attributes.clear();
    assert_eq!(ExportTraceServiceRequest::decode(&out[..]).unwrap(), want);
}

#[test]
fn fields_of_metrics_and_points() {
    let group = |context, statements: &[&str]| transform(context, statements, Signal::Metrics);
    let rules = vec![
        group(
            Context::Metric,
            &[
                "set(name, ToUpperCase(name))",
                "set(description, \"\")",
                "set(unit, \"ms\") where type == METRIC_DATA_TYPE_SUM",
                "set(metadata[\"k\"], 1)",
            ],
        ),
        group(
            Context::DataPoint,
            &[
                "set(value_int, 5) where metric.name == \"GAUGE\"",
                "set(value_double, 0.5) where metric.unit == \"ms\"",
                "set(flags, 0)",
                "set(time_unix_nano, 3)",
                "keep_keys(attributes, [\"i\"])",
            ],
        ),
    ];
    let (out, applied) = apply(Signal::Metrics, rules, &request(Signal::Metrics));
    assert_eq!((applied.refused, applied.malformed), (None, 0));
    let mut want = metrics();
    for metric in &mut want.resource_metrics[0].scope_metrics[0].metrics {
        metric.name = metric.name.to_uppercase();
        metric.description = String::new();
        metric.metadata = vec![pair("k", int(1))];
        macro_rules! points {
            ($data:expr) => {
                for point in &mut $data.data_points {
                    point.attributes = vec![pair("i", int(7))];
                    (point.flags, point.time_unix_nano) = (0, 3);
                }
            };
        }
        match metric.data.as_mut().unwrap() {
            metric::Data::Gauge(data) => {
                points!(data);
                data.data_points[0].value = Some(number_data_point::Value::AsInt(5));
            }
            metric::Data::Sum(data) => {
                points!(data);
                data.data_points[0].value = Some(number_data_point::Value::AsDouble(0.5));
                metric.unit = "ms".to_owned();
            }
            metric::Data::Histogram(data) => points!(data),
            metric::Data::ExponentialHistogram(data) => points!(data),
            metric::Data::Summary(data) => points!(data),
        }
    }
    assert_eq!(ExportMetricsServiceRequest::decode(&out[..]).unwrap(), want);
    let rules = vec![group(Context::DataPoint, &["set(value_int, 5)"])];
    let (_, applied) = apply(Signal::Metrics, rules, &request(Signal::Metrics));
    assert_eq!(
        applied.refused.unwrap(),
        "transform: set: only points of gauges and sums have a value, in: set(value_int, 5)"
    );
}

#[test]
fn long_maps_are_merged_in_linear_time() {
    let long = |from: i64| (from..from + 20_000).map(|i| pair(&i.to_string(), int(i))).collect::<Vec<_>>();
    let mut log = a_log();
    log.attributes = long(0);
    log.body = Some(map(long(10_000)));
    let request = logs_of(vec![log]).encode_to_vec();
    let rules = vec![transform(
        Context::Log,
        &[
            "merge_maps(attributes, body, \"upsert\")",
            "replace_all_patterns(attributes, \"key\", \"^\", \"k\")",
        ],
        Signal::Logs,
    )];
    let (out, _) = apply(Signal::Logs, rules, &request);
    let got = attributes_of(Context::Log, "", &out);
    assert_eq!((got.len(), got[0].key.as_str(), got[29_999].key.as_str()), (30_000, "k0", "k29999"));
}

#[test]
fn values_never_nest_deeper_than_others_read() {
    let mut deep = text("x");
    for _ in 1..crate::pdata::MAX_VALUE_DEPTH {
        deep = list(vec![deep]);
    }
    // Whether it is stored, and can be read then.
    let of = |attributes: Vec<KeyValue>, statement: &str| {
        let request = logs_of(vec![LogRecord { attributes, ..a_log() }]).encode_to_vec();
        let rules = transform(Context::Log, &[statement], Signal::Logs);
        let (out, applied) = apply(Signal::Logs, vec![rules], &request);
        assert_eq!(crate::pdata::check(Signal::Logs, &out), Ok(1), "{statement}");
        assert_eq!(applied.malformed, 0, "{statement}");
        applied.refused
    };
    let attributes = || vec![pair("a", deep.clone()), pair("m", map(vec![]))];
    for statement in [
        "set(attributes[\"b\"], [attributes[\"a\"]])",
        "set(attributes[\"b\"][\"c\"], attributes[\"a\"])",
        "set(body, attributes)",
        "set(body[\"k\"], attributes[\"a\"])",
        "set(attributes, {\"a\": [attributes[\"a\"]]})",
        "merge_maps(attributes, {\"a\": [attributes[\"a\"]]}, \"upsert\")",
        "merge_maps(attributes[\"m\"], attributes, \"upsert\")",
    ] {
        let why = of(attributes(), statement).expect(statement);
        assert!(why.contains("the value would nest too deeply"), "{statement}: {why}");
    }
    assert_eq!(of(attributes(), "set(attributes[\"b\"], attributes[\"a\"])"), None);
    let json = |depth: usize| {
        let text = text(&format!("{}1{}", "[".repeat(depth), "]".repeat(depth)));
        of(vec![pair("j", text)], "set(attributes[\"j\"], ParseJSON(attributes[\"j\"]))")
    };
    assert_eq!(json(63), None);
    assert!(json(64).unwrap().contains("ParseJSON: the text nests too deeply"));
    assert!(json(100_000).unwrap().contains("ParseJSON: the text is no JSON"));
}
