//! The promises of both directions: every vector of the mapping, every leniency, every fault, every bound.

mod random;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

use super::*;
use crate::pdata::Signal;
use crate::pdata::wire::{WireError, put_bytes, put_tag, put_varint};

const GOLDEN_LOGS: &str = "0a200a0a0a080a016112030a01621212121009010000000000000010092a030a0178";

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn text(signal: Signal, request: &[u8]) -> String {
    let mut out = Vec::new();
    encode(signal, request, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn try_decode(signal: Signal, json: &str) -> Result<Vec<u8>, JsonError> {
    decode(signal, json.as_bytes(), Limits::default())
}

/// The span that `members` describe.
fn span(members: &str) -> Result<Span, JsonError> {
    let json = format!("{{\"resourceSpans\":[{{\"scopeSpans\":[{{\"spans\":[{{{members}}}]}}]}}]}}");
    let bytes = try_decode(Signal::Traces, &json)?;
    let mut request = ExportTraceServiceRequest::decode(bytes.as_slice()).unwrap();
    Ok(request.resource_spans.remove(0).scope_spans.remove(0).spans.remove(0))
}

/// The log body that `value` describes.
fn body(value: &str) -> Result<Option<Value>, JsonError> {
    let json =
        format!("{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{{\"body\":{value}}}]}}]}}]}}");
    let bytes = try_decode(Signal::Logs, &json)?;
    let mut request = ExportLogsServiceRequest::decode(bytes.as_slice()).unwrap();
    let record = request.resource_logs.remove(0).scope_logs.remove(0).log_records.remove(0);
    Ok(record.body.and_then(|body| body.value))
}

/// The metric data that `members` describe.
fn metric(members: &str) -> Result<Data, JsonError> {
    let json = format!("{{\"resourceMetrics\":[{{\"scopeMetrics\":[{{\"metrics\":[{{{members}}}]}}]}}]}}");
    let bytes = try_decode(Signal::Metrics, &json)?;
    let mut request = ExportMetricsServiceRequest::decode(bytes.as_slice()).unwrap();
    Ok(request.resource_metrics.remove(0).scope_metrics.remove(0).metrics.remove(0).data.unwrap())
}

#[test]
fn the_golden_request_is_exact_both_ways() {
    let json = concat!(
        r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"a","value":{"stringValue":"b"}}]},"#,
        r#""scopeLogs":[{"logRecords":[{"timeUnixNano":"1","severityNumber":9,"body":{"stringValue":"x"}}]}]}]}"#
    );
    let bytes = unhex(GOLDEN_LOGS);
    assert_eq!(try_decode(Signal::Logs, json).unwrap(), bytes);
    assert_eq!(text(Signal::Logs, &bytes), json);
}

#[test]
fn ids_are_hexadecimal_of_the_right_length() {
    let want = unhex("5b8efff798038103d269b633813fc60c");
    assert_eq!(span(r#""traceId":"5B8EFFF798038103D269B633813FC60C""#).unwrap().trace_id, want);
    assert_eq!(span(r#""traceId":"""#).unwrap().trace_id, b"");
    assert_eq!(span(r#""trace\u0049d":"5b8efff798038103d269b633813fc\u00360c""#).unwrap().trace_id, want);
    assert_eq!(
        span(r#""parentSpanId":"0102030405060708""#).unwrap().parent_span_id,
        unhex("0102030405060708")
    );
    for bad in [
        r#""traceId":"abcd""#,
        r#""traceId":"5b8efff798038103d269b633813fc60""#,
        r#""traceId":"5b8efff798038103d269b633813fc60g""#,
        r#""spanId":"5b8efff798038103d269b633813fc60c""#,
        r#""spanId":7"#,
        r#""links":[{"spanId":"aa"}]"#,
    ] {
        assert!(span(bad).is_err(), "{bad}");
    }
}

#[test]
fn values_of_every_kind_are_read() {
    let list = |values: Vec<Option<Value>>| {
        let values = values
            .into_iter()
            .map(|value| opentelemetry_proto::tonic::common::v1::AnyValue { value })
            .collect();
        Value::ArrayValue(opentelemetry_proto::tonic::common::v1::ArrayValue { values })
    };
    let cases: Vec<(&str, Option<Value>)> = vec![
        (r#"{}"#, None),
        (r#"{"intValue":"7"}"#, Some(Value::IntValue(7))),
        (r#"{"intValue":7}"#, Some(Value::IntValue(7))),
        (r#"{"int_value":7}"#, Some(Value::IntValue(7))),
        (r#"{"intValue":7.0}"#, Some(Value::IntValue(7))),
        (r#"{"intValue":-1e3}"#, Some(Value::IntValue(-1000))),
        (r#"{"intValue":"-9223372036854775808"}"#, Some(Value::IntValue(i64::MIN))),
        (r#"{"intValue":0}"#, Some(Value::IntValue(0))),
        (r#"{"intValue":null}"#, None),
        (r#"{"boolValue":false}"#, Some(Value::BoolValue(false))),
        (r#"{"boolValue":true}"#, Some(Value::BoolValue(true))),
        (r#"{"stringValue":""}"#, Some(Value::StringValue(String::new()))),
        (r#"{"doubleValue":0}"#, Some(Value::DoubleValue(0.0))),
        (r#"{"doubleValue":"1.5"}"#, Some(Value::DoubleValue(1.5))),
        (r#"{"doubleValue":-2.5e-3}"#, Some(Value::DoubleValue(-0.0025))),
        (r#"{"doubleValue":"Infinity"}"#, Some(Value::DoubleValue(f64::INFINITY))),
        (r#"{"doubleValue":"-Infinity"}"#, Some(Value::DoubleValue(f64::NEG_INFINITY))),
        (r#"{"bytesValue":"AQID"}"#, Some(Value::BytesValue(vec![1, 2, 3]))),
        (r#"{"bytesValue":"AQ=="}"#, Some(Value::BytesValue(vec![1]))),
        (r#"{"bytesValue":"AQ"}"#, Some(Value::BytesValue(vec![1]))),
        (r#"{"bytesValue":"\/\/79"}"#, Some(Value::BytesValue(vec![0xff, 0xfe, 0xfd]))),
        (r#"{"bytesValue":"__79"}"#, Some(Value::BytesValue(vec![0xff, 0xfe, 0xfd]))),
        (r#"{"bytesValue":""}"#, Some(Value::BytesValue(vec![]))),
        (r#"{"arrayValue":{}}"#, Some(list(vec![]))),
        (
            r#"{"arrayValue":{"values":[{"intValue":1},null,{}]}}"#,
            Some(list(vec![Some(Value::IntValue(1)), None, None])),
        ),
        // A member that occurs twice, or two members of one oneof: the last wins.
        (r#"{"intValue":1,"intValue":0}"#, Some(Value::IntValue(0))),
        (r#"{"intValue":1,"stringValue":"a"}"#, Some(Value::StringValue("a".into()))),
        // Strings.
        (r#"{"stringValue":"\"\\\/\b\f\n\r\té"}"#, Some(Value::StringValue("\"\\/\u{8}\u{c}\n\r\té".into()))),
        (r#"{"stringValue":"\ud83d\ude00x"}"#, Some(Value::StringValue("😀x".into()))),
        (r#"{"stringValue":"a\ud83d"}"#, Some(Value::StringValue("a\u{fffd}".into()))),
        (r#"{"stringValue":"\ude00\ud83dx"}"#, Some(Value::StringValue("\u{fffd}\u{fffd}x".into()))),
        (r#"{"stringValue":"\ud83d\u0041"}"#, Some(Value::StringValue("\u{fffd}A".into()))),
    ];
    for (json, want) in cases {
        assert_eq!(body(json).unwrap(), want, "{json}");
    }
    assert!(matches!(body(r#"{"doubleValue":"NaN"}"#), Ok(Some(Value::DoubleValue(d))) if d.is_nan()));
}

#[test]
fn enums_are_read_by_number_and_name() {
    for json in [r#""kind":2"#, r#""kind":"SPAN_KIND_SERVER""#, r#""kind":"2""#] {
        assert_eq!(span(json).unwrap().kind, 2, "{json}");
    }
    assert_eq!(span(r#""status":{"code":"STATUS_CODE_ERROR"}"#).unwrap().status.unwrap().code, 2);
    assert_eq!(span(r#""kind":-1"#).unwrap().kind, -1);
    let error = span(r#""kind":"SERVER""#).unwrap_err();
    assert_eq!(error.path, "resourceSpans[0].scopeSpans[0].spans[0].kind");
    assert!(error.message.contains("unknown value \"SERVER\""), "{error}");
}

#[test]
fn numbers_of_points_are_read_leniently() {
    let json = r#""histogram":{"data_points":[{"bucketCounts":["1","2"],"explicit_bounds":[1,2.5,"Infinity"],
        "count":3,"sum":0,"flags":"1"},{}],"aggregationTemporality":"AGGREGATION_TEMPORALITY_DELTA"}"#;
    let Data::Histogram(histogram) = metric(json).unwrap() else { panic!() };
    let point = &histogram.data_points[0];
    assert_eq!((point.count, point.sum, point.flags, point.min), (3, Some(0.0), 1, None));
    assert_eq!(point.bucket_counts, [1, 2]);
    assert_eq!(point.explicit_bounds, [1.0, 2.5, f64::INFINITY]);
    assert_eq!((histogram.data_points.len(), histogram.aggregation_temporality), (2, 1));

    // The golden bytes of the mapping: scale -4, positive offset -3, counts [1, 300].
    let json = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"exponentialHistogram":{"dataPoints":[
        {"scale":-4,"positive":{"offset":-3,"bucketCounts":[1,"300"]}}]}}]}]}]}"#;
    let bytes = try_decode(Signal::Metrics, json).unwrap();
    assert!(bytes.ends_with(&unhex("300742070805120301ac02")), "{bytes:02x?}");
}

#[test]
fn unknown_members_and_nulls_are_ignored_at_any_depth() {
    let json = r#"{"future":{"a":[1,{"b":null},[]],"c":"\n"},"resourceLogs":null,
        "resource_logs":[null,{"resource":{"x":1,"attributes":[{"key":"a","key2":true,"value":{"new":[{}],"stringValue":"b"}}]},
        "scopeLogs":[{"scope":null,"log_records":[{"time_unix_nano":1,"severityNumber":9,"traceId":null,
        "body":{"stringValue":"x","unknown":-0.5e+7}}]}]}]}"#;
    assert_eq!(try_decode(Signal::Logs, json).unwrap(), unhex(GOLDEN_LOGS));
    for empty in ["{}", " {\n} ", r#"{"resourceSpans":[]}"#, r#"{"resourceLogs":[]}"#] {
        assert_eq!(try_decode(Signal::Logs, empty).unwrap(), b"", "{empty}");
    }
}

#[test]
fn repeated_members_merge_as_in_protobuf() {
    let whole = r#""events":[{"name":"a"},{"name":"b"}],"status":{"message":"m","code":2},"name":"last""#;
    let parts = r#""name":"first","status":{"code":1,"message":"m"},"events":[{"name":"a"}],"status":{"code":2},
        "events":[{"name":"b"}],"name":"last","kind":3,"kind":0"#;
    assert_eq!(span(whole).unwrap(), span(parts).unwrap());
}

#[test]
fn faults_say_where_and_what() {
    let cases: &[(&str, usize, usize, &str, &str)] = &[
        ("", 1, 1, "", "expected an object (ExportLogsServiceRequest), got the end of the document"),
        ("[]", 1, 1, "", "got an array"),
        ("{} x", 1, 4, "", "expected the end of the document, got 'x'"),
        ("{\n \"resourceLogs\": 3}", 2, 18, "resourceLogs", "expected an array, got a number"),
        (
            "{\"resourceLogs\":[{},\n{\"schemaUrl\":1}]}",
            2,
            14,
            "resourceLogs[1].schemaUrl",
            "expected a string",
        ),
        ("{\"resourceLogs\":[{}", 1, 20, "resourceLogs", "expected ',' or ']', got the end"),
        ("{\"resourceLogs\":[{}}", 1, 20, "resourceLogs", "expected ',' or ']', got '}'"),
        ("{\"resourceLogs\":[{},]}", 1, 21, "resourceLogs[1]", "an object (ResourceLogs), got ']'"),
        ("{\"a\" 1}", 1, 6, "", "expected ':'"),
        ("{\"a\":1,}", 1, 8, "", "expected a member name, got '}'"),
        ("{\"a\":01}", 1, 6, "", "malformed number"),
        ("{\"a\":1.}", 1, 6, "", "malformed number"),
        ("{\"a\":nul}", 1, 6, "", "unknown word"),
        ("{\"a\":\"x", 1, 6, "", "not closed"),
        ("{\"a\":\"\\x\"}", 1, 7, "", "unknown escape"),
        ("{\"a\":\"\\u12g4\"}", 1, 7, "", "four hexadecimal digits"),
        ("{\"a\":\"\t\"}", 1, 7, "", "control character"),
    ];
    for (json, line, column, path, message) in cases {
        let error = try_decode(Signal::Logs, json).unwrap_err();
        assert_eq!(
            (error.line, error.column, error.path.as_str()),
            (*line, *column, *path),
            "{json}: {error}"
        );
        assert!(error.message.contains(message), "{json}: {error}");
    }
    for (json, message) in [
        (r#"{"intValue":"7x"}"#, "expected a 64-bit integer"),
        (r#"{"intValue":""}"#, "expected a 64-bit integer"),
        (r#"{"intValue":"+7"}"#, "expected a 64-bit integer"),
        (r#"{"intValue":9223372036854775808}"#, "got 9223372036854775808"),
        (r#"{"intValue":1e19}"#, "got 1e19"),
        (r#"{"intValue":1.5}"#, "got 1.5"),
        (r#"{"intValue":true}"#, "got a boolean"),
        (r#"{"doubleValue":1e999}"#, "out of the range of a double"),
        (r#"{"doubleValue":"inf"}"#, "expected a number, \"NaN\""),
        (r#"{"boolValue":"true"}"#, "expected true or false, got a string"),
        (r#"{"bytesValue":"A"}"#, "expected base64"),
        (r#"{"bytesValue":"A*=="}"#, "expected base64"),
        (r#"{"arrayValue":[]}"#, "expected an object (ArrayValue), got an array"),
    ] {
        let error = body(json).unwrap_err();
        assert!(error.message.contains(message), "{json}: {error}");
        assert!(error.path.starts_with("resourceLogs[0].scopeLogs[0].logRecords[0].body."), "{error}");
    }
    let error = decode(Signal::Logs, b"{\"a\":\"\xff\"}", Limits::default()).unwrap_err();
    assert_eq!((error.offset, error.message.as_str()), (6, "the document is not valid UTF-8"));
}

#[test]
fn nesting_and_output_are_bounded() {
    let nested = |levels: usize| {
        let open = r#"{"arrayValue":{"values":["#.repeat(levels - 1);
        format!("{open}{{}}{}", "]}}".repeat(levels - 1))
    };
    let deep = |levels| {
        let body = nested(levels);
        try_decode(
            Signal::Logs,
            &format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{body}}}]}}]}}]}}"#),
        )
    };
    assert!(deep(64).is_ok());
    assert_eq!(deep(65).unwrap_err().limit, Some(Limit::Depth));
    for bomb in ["[".repeat(1 << 20), "{\"a\":".repeat(1 << 20), nested(1 << 16)] {
        let error = try_decode(Signal::Logs, &format!("{{\"unknown\":{bomb}")).unwrap_err();
        assert_eq!(error.limit, Some(Limit::Depth));
    }
    let json = r#"{"resourceLogs":[{"schemaUrl":"0123456789"}]}"#;
    let limit = |output| decode(Signal::Logs, json.as_bytes(), Limits { output, ..Limits::default() });
    assert!(limit(14).is_ok());
    assert_eq!(limit(13).unwrap_err().limit, Some(Limit::Output));
}

#[test]
fn the_wire_may_come_in_any_form() {
    let field = |number: u32, body: &[u8]| {
        let mut out = Vec::new();
        put_bytes(&mut out, number, body);
        out
    };
    let wrap = |body: &[u8]| field(1, &field(2, &field(2, body)));
    let varint = |number: u32, value: u64| {
        let mut out = Vec::new();
        put_tag(&mut out, number, 0);
        put_varint(&mut out, value);
        out
    };
    let spans =
        |members: &str| format!("{{\"resourceSpans\":[{{\"scopeSpans\":[{{\"spans\":[{{{members}}}]}}]}}]}}");
    let event = |name: &[u8]| field(11, &field(2, name));
    let cases: Vec<(Vec<u8>, &str)> = vec![
        // Lists interleaved, with a field nobody knows.
        (
            [event(b"a"), field(13, b""), event(b"b"), field(99, b"?"), field(13, b""), event(b"c")].concat(),
            r#""events":[{"name":"a"},{"name":"b"},{"name":"c"}],"links":[{},{}]"#,
        ),
        // The last scalar wins, also when it is the default.
        ([field(5, b"x"), varint(6, 2), field(5, b"y"), varint(6, 0)].concat(), r#""name":"y""#),
        // A message in two parts.
        (
            [field(15, &varint(3, 1)), field(15, &field(2, b"m"))].concat(),
            r#""status":{"message":"m","code":1}"#,
        ),
        // A oneof: the last member wins; parts before another member are gone.
        (
            field(
                9,
                &field(
                    2,
                    &[field(5, &field(1, b"")), varint(3, 1), field(5, b""), field(5, &field(1, b""))]
                        .concat(),
                ),
            ),
            r#""attributes":[{"value":{"arrayValue":{"values":[{}]}}}]"#,
        ),
        (
            field(9, &field(2, &[varint(3, 5), varint(2, 0)].concat())),
            r#""attributes":[{"value":{"boolValue":false}}]"#,
        ),
        // A member for the profiles signal alone leaves nothing.
        (field(9, &field(2, &[field(1, b"x"), varint(8, 1)].concat())), r#""attributes":[{"value":{}}]"#),
        // Text that is no text.
        (field(5, b"a\xff\x00\"\\\xe2\x82"), "\"name\":\"a\u{fffd}\\u0000\\\"\\\\\u{fffd}\""),
        (field(1, &[0xAB; 3]), r#""traceId":"ababab""#),
    ];
    for (bytes, want) in cases {
        assert_eq!(text(Signal::Traces, &wrap(&bytes)), spans(want));
    }
    assert_eq!(encode(Signal::Traces, &wrap(&varint(5, 1)), &mut Vec::new()), Err(WireError::WrongType));
    assert_eq!(encode(Signal::Traces, b"\x0a\x05", &mut Vec::new()), Err(WireError::Truncated));
}

#[test]
fn bounds_are_read_packed_and_unpacked() {
    let point = |bytes: &str| {
        let mut out = unhex(bytes);
        // Histogram points: point, histogram, metric, scope, resource.
        for number in [1, 9, 2, 2, 1] {
            let mut outer = Vec::new();
            put_bytes(&mut outer, number, &out);
            out = outer;
        }
        text(Signal::Metrics, &out)
    };
    let packed = point("3a10000000000000f03f0000000000000040");
    assert!(packed.contains(r#"{"dataPoints":[{"explicitBounds":[1,2]}]}"#), "{packed}");
    assert_eq!(point("39000000000000f03f390000000000000040"), packed);
    assert_eq!(point("39000000000000f03f3a080000000000000040"), packed);
}

#[test]
fn deep_and_merging_values_are_refused_not_followed() {
    let wrap = |mut value: Vec<u8>| {
        for number in [5, 2, 2, 1] {
            let mut outer = Vec::new();
            put_bytes(&mut outer, number, &value);
            value = outer;
        }
        value
    };
    let deep = |levels: usize, copies: usize| {
        let mut value = Vec::new();
        for _ in 1..levels {
            let mut list = Vec::new();
            put_bytes(&mut list, 1, &value);
            value.clear();
            for part in 0..copies {
                put_bytes(&mut value, 5, if part + 1 == copies { &list } else { &[] });
            }
        }
        value
    };
    let run = |value| {
        let mut out = Vec::new();
        encode(Signal::Logs, &wrap(value), &mut out).map(|()| out)
    };
    let longest = run(deep(64, 1)).unwrap();
    assert!(decode(Signal::Logs, &longest, Limits::default()).is_ok());
    assert_eq!(run(deep(65, 1)), Err(WireError::TooDeep));
    assert!(run(deep(5, 2)).is_ok());
    assert_eq!(run(deep(6, 2)), Err(WireError::TooDeep));
    let mut out = Vec::new();
    assert_eq!(put_any_value(&deep(64, 1), &mut out), Ok(()));
    assert_eq!(put_any_value(&deep(65, 1), &mut out), Err(WireError::TooDeep));
}

#[test]
fn doubles_are_shortest_and_exact() {
    for (value, want) in [
        (0.0, "0"),
        (-0.0, "-0"),
        (1.0, "1"),
        (0.1, "0.1"),
        (-2.5, "-2.5"),
        (f64::NAN, "\"NaN\""),
        (f64::INFINITY, "\"Infinity\""),
        (f64::NEG_INFINITY, "\"-Infinity\""),
    ] {
        let mut out = Vec::new();
        put_double(value, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }
}
