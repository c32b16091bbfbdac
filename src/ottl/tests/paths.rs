//! Every path, read.

use super::*;

#[test]
fn paths_of_spans_and_events() {
    for (expression, want) in [
        ("name", "\"GET /\""),
        ("span.name", "\"GET /\""),
        ("kind", "2"),
        ("kind.string", "\"Server\""),
        ("kind.deprecated_string", "\"SPAN_KIND_SERVER\""),
        ("status.code", "2"),
        ("status.message", "\"bad\""),
        ("trace_id", "0x0102030405060708090a0b0c0d0e0f10"),
        ("trace_id.string", "\"0102030405060708090a0b0c0d0e0f10\""),
        ("span_id.string", "\"0102030405060708\""),
        ("parent_span_id", "0x0808080808080808"),
        ("parent_span_id.string", "\"0808080808080808\""),
        ("trace_state", "\"a=1, b=two\""),
        ("trace_state[\"b\"]", "\"two\""),
        ("trace_state[\"c\"]", "nil"),
        ("start_time_unix_nano", "1000"),
        ("end_time_unix_nano - start_time_unix_nano", "2500"),
        ("UnixNano(end_time)", "3500"),
        ("dropped_attributes_count", "5"),
        ("dropped_events_count", "6"),
        ("dropped_links_count", "7"),
        ("flags", "257"),
        ("attributes[\"m\"][\"n\"][\"k\"]", "\"deep\""),
        ("attributes[\"l\"][2]", "\"z\""),
        ("attributes[\"l\"][9]", "error: an index is past the end of the list"),
        ("attributes[\"none\"][\"k\"]", "nil"),
        ("attributes[\"s\"][\"k\"]", "error: [\"key\"] needs a map, found a string"),
        ("resource.attributes[\"service.name\"]", "\"shop\""),
        ("resource.dropped_attributes_count", "4"),
        ("instrumentation_scope.name", "\"lib\""),
        ("scope.version", "\"1.2\""),
        ("scope.attributes", "{k: \"scope\"}"),
        ("IsRootSpan()", "false"),
        ("otelcol.client.metadata[\"Tenant\"]", "[\"one\", \"two\"]"),
        ("otelcol.client.metadata[\"tenant\"][1]", "\"two\""),
        ("otelcol.grpc.metadata[\"tenant\"][0]", "\"one\""),
        ("otelcol.grpc.metadata[\"tenant\"][2]", "nil"),
        ("otelcol.client.metadata[\"none\"]", "nil"),
        ("otelcol.client.auth.attributes[\"subject\"]", "\"me\""),
        ("otelcol.client.addr", "\"127.0.0.1:4317\""),
    ] {
        assert_eq!(eval_at(Context::Span, "", expression), want, "{expression}");
    }
    for (expression, want) in [
        ("name", "\"one\""),
        ("time_unix_nano", "50"),
        ("dropped_attributes_count", "1"),
        ("attributes[\"i\"]", "7"),
        ("span.name", "\"GET /\""),
        ("span.attributes[\"m\"][\"a\"]", "1"),
        ("span.status.code", "2"),
        ("scope.name", "\"lib\""),
        ("resource.attributes[\"n\"]", "3"),
        ("IsRootSpan()", "false"),
    ] {
        assert_eq!(eval_at(Context::SpanEvent, "", expression), want, "{expression}");
    }
    assert_eq!(holds(Context::Span, "trace_id == TraceID(0x0102030405060708090a0b0c0d0e0f10)"), Ok(true));
    assert_eq!(holds(Context::Span, "otelcol.client.metadata[\"tenant\"] == \"one\""), Ok(true));
    assert_eq!(holds(Context::Span, "\"two\" == otelcol.client.metadata[\"tenant\"]"), Ok(false));
}

#[test]
fn paths_of_logs_scopes_and_resources() {
    for (expression, want) in [
        ("body", "{msg: \"user=bob password=secret\", code: 5}"),
        ("body[\"code\"]", "5"),
        ("body[\"none\"]", "nil"),
        ("body.string", r#""{\"code\":5,\"msg\":\"user=bob password=secret\"}""#),
        ("severity_number", "9"),
        ("severity_text", "\"info\""),
        ("event_name", "\"login\""),
        ("time_unix_nano", "11"),
        ("observed_time_unix_nano", "12"),
        ("trace_id.string", "\"0102030405060708090a0b0c0d0e0f10\""),
        ("span_id.string", "\"\""),
        ("span_id", "0x0000000000000000"),
        ("flags", "1"),
        ("dropped_attributes_count", "1"),
        ("log.attributes[\"i\"]", "7"),
        ("scope.dropped_attributes_count", "2"),
    ] {
        assert_eq!(eval(expression), want, "{expression}");
    }
    for (expression, want) in [
        ("name", "\"lib\""),
        ("version", "\"1.2\""),
        ("attributes[\"k\"]", "\"scope\""),
        ("resource.attributes[\"n\"] + 1", "4"),
    ] {
        assert_eq!(eval_at(Context::Scope, "", expression), want, "{expression}");
    }
    assert_eq!(eval_at(Context::Resource, "", "attributes"), "{service.name: \"shop\", n: 3}");
    assert_eq!(eval_at(Context::Resource, "", "dropped_attributes_count"), "4");
}

#[test]
fn paths_of_metrics_and_points() {
    for (metric, expression, want) in [
        ("gauge", "name", "\"gauge\""),
        ("gauge", "description", "\"what\""),
        ("gauge", "unit", "\"s\""),
        ("gauge", "metadata[\"k\"]", "\"meta\""),
        ("gauge", "type", "1"),
        ("sum", "type", "2"),
        ("histogram", "type", "3"),
        ("exponential", "type", "4"),
        ("summary", "type", "5"),
        ("gauge", "aggregation_temporality", "nil"),
        ("sum", "aggregation_temporality", "2"),
        ("histogram", "aggregation_temporality", "1"),
        ("sum", "is_monotonic", "true"),
        ("histogram", "is_monotonic", "nil"),
        ("sum", "HasAttrKeyOnDatapoint(\"s\")", "true"),
        ("sum", "HasAttrKeyOnDatapoint(\"none\")", "false"),
        ("exponential", "HasAttrOnDatapoint(\"s\", \"Hello World\")", "true"),
        ("exponential", "HasAttrOnDatapoint(\"s\", \"x\")", "false"),
    ] {
        assert_eq!(eval_at(Context::Metric, metric, expression), want, "{metric} {expression}");
    }
    for (metric, expression, want) in [
        ("gauge", "value_double", "1.5"),
        ("gauge", "value_int", "0"),
        ("sum", "value_int", "-3"),
        ("sum", "value_double", "0.0"),
        ("histogram", "value_double", "nil"),
        ("sum", "start_time_unix_nano", "1"),
        ("sum", "time_unix_nano", "2"),
        ("sum", "flags", "1"),
        ("histogram", "flags", "1"),
        ("summary", "flags", "0"),
        ("gauge", "count", "nil"),
        ("histogram", "count", "6"),
        ("exponential", "count", "3"),
        ("summary", "count", "2"),
        ("gauge", "sum", "nil"),
        ("histogram", "sum", "9.5"),
        ("summary", "sum", "8.0"),
        ("exponential", "scale", "-2"),
        ("histogram", "scale", "nil"),
        ("exponential", "zero_count", "1"),
        ("histogram", "bucket_counts", "[1, 5]"),
        ("histogram", "bucket_counts[1]", "5"),
        ("histogram", "explicit_bounds", "[0.5]"),
        ("gauge", "explicit_bounds", "nil"),
        ("exponential", "positive.offset", "-1"),
        ("exponential", "positive.bucket_counts", "[2, 300]"),
        ("exponential", "negative.offset", "0"),
        ("summary", "negative.bucket_counts", "nil"),
        ("gauge", "metric.name", "\"gauge\""),
        ("sum", "metric.aggregation_temporality", "2"),
        ("sum", "resource.attributes[\"service.name\"]", "\"shop\""),
        ("exponential", "attributes[\"m\"][\"a\"]", "1"),
    ] {
        assert_eq!(eval_at(Context::DataPoint, metric, expression), want, "{metric} {expression}");
    }
}
