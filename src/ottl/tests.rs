//! What expressions and editors do, on requests built from the generated types.

mod editors;
mod errors;
mod functions;
mod naive;
mod paths;
mod rules;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric,
    NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, metric,
    number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};
use prost::Message;

use super::{ConditionGroup, Context, ErrorMode, Rules, StatementGroup};
use crate::pdata::{Batch, ClientInfo, Rope, Signal};
use crate::pipeline::Acks;
use crate::processors::edit::{Applied, Program};

fn any(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn text(s: &str) -> AnyValue {
    any(Value::StringValue(s.to_owned()))
}

fn int(i: i64) -> AnyValue {
    any(Value::IntValue(i))
}

fn list(values: Vec<AnyValue>) -> AnyValue {
    any(Value::ArrayValue(ArrayValue { values }))
}

fn map(values: Vec<KeyValue>) -> AnyValue {
    any(Value::KvlistValue(KeyValueList { values }))
}

fn pair(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(value), ..Default::default() }
}

/// One of each kind of value.
fn attributes() -> Vec<KeyValue> {
    vec![
        pair("s", text("Hello World")),
        pair("i", int(7)),
        pair("d", any(Value::DoubleValue(2.5))),
        pair("t", any(Value::BoolValue(true))),
        pair("b", any(Value::BytesValue(vec![1, 0xff]))),
        pair("l", list(vec![text("x"), int(2), text("z")])),
        pair("m", map(vec![pair("a", int(1)), pair("n", map(vec![pair("k", text("deep"))]))])),
        pair("e", AnyValue { value: None }),
        pair("digits", text("42")),
        pair("json", text(r#"{"a":1,"b":[true,null],"c":{"d":"x"}}"#)),
    ]
}

fn resource() -> Option<Resource> {
    let attributes = vec![pair("service.name", text("shop")), pair("n", int(3))];
    Some(Resource { attributes, dropped_attributes_count: 4, ..Default::default() })
}

fn scope() -> Option<InstrumentationScope> {
    Some(InstrumentationScope {
        name: "lib".to_owned(),
        version: "1.2".to_owned(),
        attributes: vec![pair("k", text("scope"))],
        dropped_attributes_count: 2,
    })
}

fn event(name: &str) -> span::Event {
    span::Event {
        time_unix_nano: 50,
        name: name.to_owned(),
        attributes: attributes(),
        dropped_attributes_count: 1,
    }
}

fn a_span() -> Span {
    Span {
        trace_id: (1..17).collect(),
        span_id: (1..9).collect(),
        parent_span_id: vec![8; 8],
        trace_state: "a=1, b=two".to_owned(),
        name: "GET /".to_owned(),
        kind: 2,
        start_time_unix_nano: 1_000,
        end_time_unix_nano: 3_500,
        attributes: attributes(),
        dropped_attributes_count: 5,
        events: vec![event("one"), event("two")],
        dropped_events_count: 6,
        dropped_links_count: 7,
        status: Some(Status { message: "bad".to_owned(), code: 2 }),
        flags: 0x101,
        ..Default::default()
    }
}

fn traces_of(spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope_spans = vec![ScopeSpans { scope: scope(), spans, ..Default::default() }];
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { resource: resource(), scope_spans, ..Default::default() }],
    }
}

fn a_log() -> LogRecord {
    LogRecord {
        time_unix_nano: 11,
        observed_time_unix_nano: 12,
        severity_number: 9,
        severity_text: "info".to_owned(),
        body: Some(map(vec![pair("msg", text("user=bob password=secret")), pair("code", int(5))])),
        attributes: attributes(),
        dropped_attributes_count: 1,
        flags: 1,
        trace_id: (1..17).collect(),
        span_id: Vec::new(),
        event_name: "login".to_owned(),
    }
}

fn logs_of(log_records: Vec<LogRecord>) -> ExportLogsServiceRequest {
    let scope_logs = vec![ScopeLogs { scope: scope(), log_records, ..Default::default() }];
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs { resource: resource(), scope_logs, ..Default::default() }],
    }
}

fn metric(name: &str, data: metric::Data) -> Metric {
    Metric {
        name: name.to_owned(),
        description: "what".to_owned(),
        unit: "s".to_owned(),
        metadata: vec![pair("k", text("meta"))],
        data: Some(data),
    }
}

fn number(value: number_data_point::Value) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes(),
        start_time_unix_nano: 1,
        time_unix_nano: 2,
        flags: 1,
        value: Some(value),
        ..Default::default()
    }
}

/// One metric of each type: `gauge`, `sum`, `histogram`, `exponential`, `summary`.
fn metrics() -> ExportMetricsServiceRequest {
    let gauge = Gauge { data_points: vec![number(number_data_point::Value::AsDouble(1.5))] };
    let sum = Sum {
        data_points: vec![number(number_data_point::Value::AsInt(-3))],
        aggregation_temporality: 2,
        is_monotonic: true,
    };
    let histogram = HistogramDataPoint {
        attributes: attributes(),
        count: 6,
        sum: Some(9.5),
        bucket_counts: vec![1, 5],
        explicit_bounds: vec![0.5],
        flags: 1,
        ..Default::default()
    };
    let exponential = ExponentialHistogramDataPoint {
        attributes: attributes(),
        count: 3,
        sum: Some(4.0),
        scale: -2,
        zero_count: 1,
        positive: Some(Buckets { offset: -1, bucket_counts: vec![2, 300] }),
        ..Default::default()
    };
    let summary = SummaryDataPoint { attributes: attributes(), count: 2, sum: 8.0, ..Default::default() };
    let metrics = vec![
        metric("gauge", metric::Data::Gauge(gauge)),
        metric("sum", metric::Data::Sum(sum)),
        metric(
            "histogram",
            metric::Data::Histogram(Histogram { data_points: vec![histogram], aggregation_temporality: 1 }),
        ),
        metric(
            "exponential",
            metric::Data::ExponentialHistogram(ExponentialHistogram {
                data_points: vec![exponential],
                aggregation_temporality: 2,
            }),
        ),
        metric("summary", metric::Data::Summary(Summary { data_points: vec![summary] })),
    ];
    let scope_metrics = vec![ScopeMetrics { scope: scope(), metrics, ..Default::default() }];
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics { resource: resource(), scope_metrics, ..Default::default() }],
    }
}

fn request(signal: Signal) -> Vec<u8> {
    match signal {
        Signal::Traces => traces_of(vec![a_span()]).encode_to_vec(),
        Signal::Metrics => metrics().encode_to_vec(),
        Signal::Logs => logs_of(vec![a_log()]).encode_to_vec(),
    }
}

fn client() -> ClientInfo {
    let metadata = |k: &str, v: &[&str]| (k.to_owned(), v.iter().map(|v| (*v).to_owned()).collect());
    ClientInfo {
        metadata: vec![metadata("tenant", &["one", "two"])],
        auth: vec![("subject".to_owned(), "me".to_owned())],
        address: Some("127.0.0.1:4317".parse().unwrap()),
        certificate: None,
    }
}

/// Runs rules on a request.
fn apply(signal: Signal, rules: Vec<Rules>, request: &[u8]) -> (Vec<u8>, Applied) {
    let mut batch = Batch {
        signal,
        rope: Rope::from(Bytes::copy_from_slice(request)),
        items: crate::pdata::count(signal, request).unwrap_or(0),
        client: Arc::new(client()),
        tenant: None,
        demoted: false,
        received: Instant::now(),
        leases: Default::default(),
        acks: Acks::none(),
    };
    let program = Program::new(signal, rules.into_iter().map(Rules::edit).collect());
    let applied = program.apply(&mut batch);
    (batch.rope.to_bytes().to_vec(), applied)
}

fn transform(context: Context, statements: &[&str], signal: Signal) -> Rules {
    let none: &[&str] = &[];
    let group = StatementGroup::parse(Some(context), none, statements, signal, ErrorMode::Propagate);
    Rules::transform("transform", signal, vec![group.unwrap_or_else(|why| panic!("{statements:?}: {why}"))])
}

fn filter(conditions: &[&str], signal: Signal, keep: bool) -> Rules {
    let groups = conditions
        .iter()
        .map(|c| ConditionGroup::parse(None, &[c], signal, ErrorMode::Propagate).unwrap())
        .collect();
    Rules::filter("filter", signal, groups, keep, None)
}

/// A signal in which there is such a context.
fn signal_of(context: Context) -> Signal {
    context.signal().unwrap_or(Signal::Logs)
}

/// A value as one would write it.
fn show(value: Option<&AnyValue>) -> String {
    match value.and_then(|v| v.value.as_ref()) {
        None => "nil".to_owned(),
        Some(Value::StringValue(s)) => format!("{s:?}"),
        Some(Value::BoolValue(b)) => b.to_string(),
        Some(Value::IntValue(i)) => i.to_string(),
        Some(Value::DoubleValue(d)) => format!("{d:?}"),
        Some(Value::BytesValue(b)) => {
            format!("0x{}", b.iter().map(|b| format!("{b:02x}")).collect::<String>())
        }
        Some(Value::ArrayValue(l)) => {
            format!("[{}]", l.values.iter().map(|v| show(Some(v))).collect::<Vec<_>>().join(", "))
        }
        Some(Value::KvlistValue(m)) => show_map(&m.values),
        Some(other) => format!("{other:?}"),
    }
}

fn show_map(entries: &[KeyValue]) -> String {
    let entries: Vec<String> =
        entries.iter().map(|kv| format!("{}: {}", kv.key, show(kv.value.as_ref()))).collect();
    format!("{{{}}}", entries.join(", "))
}

/// The attributes of the first message of a context; of the metric of that name for data points.
fn attributes_of(context: Context, metric: &str, request: &[u8]) -> Vec<KeyValue> {
    match signal_of(context) {
        Signal::Traces => {
            let request = ExportTraceServiceRequest::decode(request).unwrap();
            let span = &request.resource_spans[0].scope_spans[0].spans[0];
            match context {
                Context::SpanEvent => span.events[0].attributes.clone(),
                _ => span.attributes.clone(),
            }
        }
        Signal::Logs => {
            let request = ExportLogsServiceRequest::decode(request).unwrap();
            let group = &request.resource_logs[0];
            match context {
                Context::Resource => group.resource.as_ref().unwrap().attributes.clone(),
                Context::Scope => group.scope_logs[0].scope.as_ref().unwrap().attributes.clone(),
                _ => group.scope_logs[0].log_records[0].attributes.clone(),
            }
        }
        Signal::Metrics => {
            let request = ExportMetricsServiceRequest::decode(request).unwrap();
            let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
            let found = metrics.iter().find(|m| m.name == metric).unwrap();
            match (context, found.data.as_ref().unwrap()) {
                (Context::Metric, _) => found.metadata.clone(),
                (_, metric::Data::Gauge(d)) => d.data_points[0].attributes.clone(),
                (_, metric::Data::Sum(d)) => d.data_points[0].attributes.clone(),
                (_, metric::Data::Histogram(d)) => d.data_points[0].attributes.clone(),
                (_, metric::Data::ExponentialHistogram(d)) => d.data_points[0].attributes.clone(),
                (_, metric::Data::Summary(d)) => d.data_points[0].attributes.clone(),
            }
        }
    }
}

/// What an expression gives, stored in an attribute and shown; `error: …` if it cannot be evaluated or stored.
fn eval_at(context: Context, metric: &str, expression: &str) -> String {
    let signal = signal_of(context);
    let target = if context == Context::Metric { "metadata" } else { "attributes" };
    let statement = format!("set({target}[\"out\"], {expression})");
    let (out, applied) = apply(signal, vec![transform(context, &[&statement], signal)], &request(signal));
    assert_eq!(applied.malformed, 0, "{expression}");
    if let Some(why) = applied.refused {
        return format!("error: {}", why.split(", in:").next().unwrap().trim_start_matches("transform: "));
    }
    let attributes = attributes_of(context, metric, &out);
    show(attributes.iter().find(|kv| kv.key == "out").and_then(|kv| kv.value.as_ref()))
}

fn eval(expression: &str) -> String {
    eval_at(Context::Log, "", expression)
}

/// Whether a condition holds for the standard message of a context.
fn holds(context: Context, condition: &str) -> Result<bool, String> {
    let signal = signal_of(context);
    let statement = format!("set(attributes[\"out\"], true) where {condition}");
    let (out, applied) = apply(signal, vec![transform(context, &[&statement], signal)], &request(signal));
    match applied.refused {
        Some(why) => Err(why),
        None => Ok(attributes_of(context, "sum", &out).iter().any(|kv| kv.key == "out")),
    }
}
