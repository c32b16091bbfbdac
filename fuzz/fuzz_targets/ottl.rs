//! Any text is refused with an error inside of it, or is a condition or statement that can be evaluated: what a condition
//! drops and what it keeps make the whole, and what a statement leaves can be decoded.
#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Summary, SummaryDataPoint, metric,
    number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};
use prost::Message;
use tidegate::ottl::{ConditionGroup, Context, ErrorMode, GroupError, Rules, StatementGroup};
use tidegate::pdata::{Batch, ClientInfo, Rope, Signal, check, count};
use tidegate::pipeline::Acks;
use tidegate::processors::edit::Program;
use tidegate_fuzz::oracle::oracle;

/// A request of each signal.
static REQUESTS: LazyLock<[Vec<u8>; 3]> = LazyLock::new(|| [traces(), metrics(), logs()]);

fuzz_target!(|data: &[u8]| {
    let [signal, context, text @ ..] = data else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let signal = Signal::ALL[usize::from(*signal) % 3];
    let context = Context::ALL.get(usize::from(*context) % 8).copied();
    let request = &REQUESTS[signal.index()];
    let none: [&str; 0] = [];
    match StatementGroup::parse(context, &none, &[text], signal, ErrorMode::Silent) {
        Ok(group) => {
            let out = run(Rules::transform("fuzz", signal, vec![group]), signal, request);
            assert_eq!(count(signal, &out), count(signal, request));
            readable(signal, &out);
        }
        Err(error) => inside(&error, text),
    }
    let condition = || ConditionGroup::parse(context, &[text], signal, ErrorMode::Silent);
    match condition() {
        Ok(group) => {
            let items = |keep| {
                let Ok(group) = condition() else { unreachable!() };
                let out = run(Rules::filter("fuzz", signal, vec![group], keep, None), signal, request);
                readable(signal, &out);
                count(signal, &out).expect("what is kept can be read")
            };
            // Events are no items.
            let whole = count(signal, request).expect("a good request");
            let left = items(true) + items(false);
            let events = group.context() == Context::SpanEvent;
            assert_eq!(left, if events { 2 * whole } else { whole });
        }
        Err(error) => inside(&error, text),
    }
});

fn inside(error: &GroupError, text: &str) {
    assert!(text.is_char_boundary(error.error.offset));
    assert!(!error.error.message.is_empty());
}

/// Prost bounds nesting more tightly than others do.
fn readable(signal: Signal, request: &[u8]) {
    assert!(check(signal, request).is_ok());
    if let Err(error) = oracle(signal, request) {
        assert!(error.to_string().contains("recursion limit"), "{error}");
    }
}

fn run(rules: Rules, signal: Signal, request: &[u8]) -> Vec<u8> {
    let mut batch = Batch {
        signal,
        rope: Rope::from(request.to_vec()),
        items: count(signal, request).expect("a good request"),
        client: Arc::new(ClientInfo::default()),
        tenant: None,
        demoted: false,
        received: Instant::now(),
        leases: Default::default(),
        acks: Acks::none(),
    };
    let applied = Program::new(signal, vec![rules.edit()]).apply(&mut batch);
    assert_eq!((applied.malformed, applied.refused), (0, None));
    batch.rope.to_bytes().to_vec()
}

fn any(value: Value) -> Option<AnyValue> {
    Some(AnyValue { value: Some(value) })
}

fn pair(key: &str, value: Option<AnyValue>) -> KeyValue {
    KeyValue { key: key.to_owned(), value, ..Default::default() }
}

fn attributes() -> Vec<KeyValue> {
    let list = ArrayValue { values: any(Value::IntValue(1)).into_iter().collect() };
    let map = KeyValueList { values: vec![pair("a", any(Value::StringValue("{\"x\":1}".to_owned())))] };
    vec![
        pair("a", any(Value::StringValue("one two".to_owned()))),
        pair("b", any(Value::IntValue(7))),
        pair("c", any(Value::DoubleValue(0.5))),
        pair("d", any(Value::BytesValue(vec![1, 2]))),
        pair("l", any(Value::ArrayValue(list))),
        pair("m", any(Value::KvlistValue(map))),
        pair("n", None),
    ]
}

fn resource() -> Option<Resource> {
    Some(Resource { attributes: attributes(), ..Default::default() })
}

fn scope() -> Option<InstrumentationScope> {
    Some(InstrumentationScope { name: "lib".to_owned(), attributes: attributes(), ..Default::default() })
}

fn traces() -> Vec<u8> {
    let event = span::Event { name: "e".to_owned(), attributes: attributes(), ..Default::default() };
    let span = Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        name: "GET".to_owned(),
        kind: 2,
        trace_state: "a=1".to_owned(),
        attributes: attributes(),
        events: vec![event],
        status: Some(Status { message: "m".to_owned(), code: 1 }),
        ..Default::default()
    };
    let spans = vec![span, Span::default()];
    let scope_spans = vec![ScopeSpans { scope: scope(), spans, ..Default::default() }];
    let group = ResourceSpans { resource: resource(), scope_spans, ..Default::default() };
    ExportTraceServiceRequest { resource_spans: vec![group] }.encode_to_vec()
}

fn metrics() -> Vec<u8> {
    let point = NumberDataPoint {
        attributes: attributes(),
        value: Some(number_data_point::Value::AsInt(3)),
        ..Default::default()
    };
    let metric = |name: &str, data| Metric { name: name.to_owned(), data: Some(data), ..Default::default() };
    let summary = SummaryDataPoint { attributes: attributes(), count: 2, ..Default::default() };
    let metrics = vec![
        metric("g", metric::Data::Gauge(Gauge { data_points: vec![point] })),
        metric("s", metric::Data::Summary(Summary { data_points: vec![summary] })),
    ];
    let scope_metrics = vec![ScopeMetrics { scope: scope(), metrics, ..Default::default() }];
    let group = ResourceMetrics { resource: resource(), scope_metrics, ..Default::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![group] }.encode_to_vec()
}

fn logs() -> Vec<u8> {
    let log = LogRecord {
        severity_number: 9,
        severity_text: "info".to_owned(),
        body: any(Value::KvlistValue(KeyValueList { values: attributes() })),
        attributes: attributes(),
        ..Default::default()
    };
    let log_records = vec![log, LogRecord::default()];
    let scope_logs = vec![ScopeLogs { scope: scope(), log_records, ..Default::default() }];
    let group = ResourceLogs { resource: resource(), scope_logs, ..Default::default() };
    ExportLogsServiceRequest { resource_logs: vec![group] }.encode_to_vec()
}
