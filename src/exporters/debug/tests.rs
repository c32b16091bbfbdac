//! What a user sees, line by line, and which keys are understood.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::config::{Key, Pos};
use crate::exporters::testing::{batch, build_context, run_context, sent};
use crate::pdata::json;
use crate::pdata::testgen::{arb_request, mutate};
use crate::pipeline::Verdict;

const TRACES: &str = r#"{"resourceSpans":[{"schemaUrl":"https://s/1","resource":{"attributes":[
    {"key":"service.name","value":{"stringValue":"shop"}}]},"scopeSpans":[{"scope":{"name":"lib","version":"1.0"},
    "spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","parentSpanId":"eee19b7ec3c1b173",
    "name":"GET /","kind":2,"startTimeUnixNano":"1544712660000000000","endTimeUnixNano":"1544712661500000001",
    "traceState":"a=b","status":{"code":2,"message":"boom"},"attributes":[{"key":"n","value":{"intValue":"7"}},
    {"key":"m","value":{"kvlistValue":{"values":[{"key":"k","value":{"arrayValue":{"values":[{"boolValue":true},{}]}}}]}}}],
    "events":[{"name":"e","timeUnixNano":"1","droppedAttributesCount":2}],
    "links":[{"traceId":"5b8efff798038103d269b633813fc60c","attributes":[{"key":"b","value":{"bytesValue":"AQID"}}]}]}]}]}]}"#;

const METRICS: &str = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[
    {"name":"g","unit":"By","gauge":{"dataPoints":[{"asInt":"-3","timeUnixNano":"1544712660000000000",
        "attributes":[{"key":"k","value":{"stringValue":"v"}}]},{"asDouble":0.5}]}},
    {"name":"s","sum":{"isMonotonic":true,"aggregationTemporality":2,"dataPoints":[{"asInt":"1","flags":1}]}},
    {"name":"h","histogram":{"aggregationTemporality":1,"dataPoints":[{"count":"3","sum":4.5,"min":0,
        "bucketCounts":["1","2"],"explicitBounds":[2.5],
        "exemplars":[{"asDouble":1.5,"traceId":"5b8efff798038103d269b633813fc60c"}]}]}},
    {"name":"e","exponentialHistogram":{"dataPoints":[{"count":"4","scale":0,"zeroCount":"1",
        "positive":{"offset":1,"bucketCounts":["2","0"]},"negative":{"bucketCounts":["0","1"]}}]}},
    {"name":"q","summary":{"dataPoints":[{"count":"1","sum":2,"quantileValues":[{"quantile":0.5,"value":9}]}]}},
    {"name":"none"}]}]}]}"#;

const LOGS: &str = r#"{"resourceLogs":[{"resource":{"droppedAttributesCount":1},"scopeLogs":[{"logRecords":[
    {"observedTimeUnixNano":"1581452773000000789","severityNumber":10,"severityText":"Info","body":{"stringValue":"hi\u001b[1m\nthere"},
    "attributes":[{"key":"d","value":{"doubleValue":1.5}},{"key":"x"}],"traceId":"5b8efff798038103d269b633813fc60c","flags":1},
    {"eventName":"started"}]}]}]}"#;

fn wire(signal: Signal, text: &str) -> Vec<u8> {
    json::decode(signal, text.as_bytes(), json::Limits::default()).unwrap()
}

fn shown(
    put: fn(Signal, &[u8], &mut Vec<u8>) -> Result<(), WireError>,
    signal: Signal,
    text: &str,
) -> String {
    let mut out = Vec::new();
    put(signal, &wire(signal, text), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn detailed_traces() {
    let want = r#"ResourceSpans #0
Resource SchemaURL: https://s/1
Resource attributes:
     -> service.name: Str(shop)
ScopeSpans #0
ScopeSpans SchemaURL: 
InstrumentationScope lib 1.0
Span #0
    Trace ID       : 5b8efff798038103d269b633813fc60c
    Parent ID      : eee19b7ec3c1b173
    ID             : eee19b7ec3c1b174
    Name           : GET /
    Kind           : Server
    TraceState     : a=b
    Start time     : 2018-12-13 14:51:00 +0000 UTC
    End time       : 2018-12-13 14:51:01.500000001 +0000 UTC
    Status code    : Error
    Status message : boom
Attributes:
     -> n: Int(7)
     -> m: Map({"k":[true,null]})
Events:
SpanEvent #0
     -> Name: e
     -> Timestamp: 1970-01-01 00:00:00.000000001 +0000 UTC
     -> DroppedAttributesCount: 2
Links:
SpanLink #0
     -> Trace ID: 5b8efff798038103d269b633813fc60c
     -> ID: 
     -> TraceState: 
     -> Attributes::
          -> b: Bytes(AQID)
"#;
    assert_eq!(shown(detailed::put, Signal::Traces, TRACES), want);
}

#[test]
fn detailed_metrics() {
    let want = r#"ResourceMetrics #0
Resource SchemaURL: 
ScopeMetrics #0
ScopeMetrics SchemaURL: 
InstrumentationScope  
Metric #0
Descriptor:
     -> Name: g
     -> Description: 
     -> Unit: By
     -> DataType: Gauge
NumberDataPoints #0
Data point attributes:
     -> k: Str(v)
StartTimestamp: 1970-01-01 00:00:00 +0000 UTC
Timestamp: 2018-12-13 14:51:00 +0000 UTC
Value: -3
NumberDataPoints #1
StartTimestamp: 1970-01-01 00:00:00 +0000 UTC
Timestamp: 1970-01-01 00:00:00 +0000 UTC
Value: 0.500000
Metric #1
Descriptor:
     -> Name: s
     -> Description: 
     -> Unit: 
     -> DataType: Sum
     -> IsMonotonic: true
     -> AggregationTemporality: Cumulative
NumberDataPoints #0
StartTimestamp: 1970-01-01 00:00:00 +0000 UTC
Timestamp: 1970-01-01 00:00:00 +0000 UTC
Value: 1
Flags: 1
Metric #2
Descriptor:
     -> Name: h
     -> Description: 
     -> Unit: 
     -> DataType: Histogram
     -> AggregationTemporality: Delta
HistogramDataPoints #0
StartTimestamp: 1970-01-01 00:00:00 +0000 UTC
Timestamp: 1970-01-01 00:00:00 +0000 UTC
Count: 3
Sum: 4.500000
Min: 0.000000
ExplicitBounds #0: 2.500000
Buckets #0, Count: 1
Buckets #1, Count: 2
Exemplars:
Exemplar #0
     -> Trace ID: 5b8efff798038103d269b633813fc60c
     -> Span ID: 
     -> Timestamp: 1970-01-01 00:00:00 +0000 UTC
     -> Value: 1.500000
Metric #3
Descriptor:
     -> Name: e
     -> Description: 
     -> Unit: 
     -> DataType: ExponentialHistogram
     -> AggregationTemporality: Unspecified
ExponentialHistogramDataPoints #0
StartTimestamp: 1970-01-01 00:00:00 +0000 UTC
Timestamp: 1970-01-01 00:00:00 +0000 UTC
Count: 4
Bucket [-4.000000, -2.000000), Count: 1
Bucket [0, 0], Count: 1
Bucket (2.000000, 4.000000], Count: 2
Metric #4
Descriptor:
     -> Name: q
     -> Description: 
     -> Unit: 
     -> DataType: Summary
SummaryDataPoints #0
StartTimestamp: 1970-01-01 00:00:00 +0000 UTC
Timestamp: 1970-01-01 00:00:00 +0000 UTC
Count: 1
Sum: 2.000000
QuantileValue #0: Quantile 0.500000, Value 9.000000
Metric #5
Descriptor:
     -> Name: none
     -> Description: 
     -> Unit: 
     -> DataType: Empty
"#;
    assert_eq!(shown(detailed::put, Signal::Metrics, METRICS), want);
}

#[test]
fn detailed_logs() {
    let want = r#"ResourceLog #0
Resource SchemaURL: 
ScopeLogs #0
ScopeLogs SchemaURL: 
InstrumentationScope  
LogRecord #0
ObservedTimestamp: 2020-02-11 20:26:13.000000789 +0000 UTC
Timestamp: 1970-01-01 00:00:00 +0000 UTC
SeverityText: Info
SeverityNumber: Info2(10)
Body: Str(hi\u{1b}[1m
there)
Attributes:
     -> d: Double(1.5)
     -> x: Empty()
Trace ID: 5b8efff798038103d269b633813fc60c
Span ID: 
Flags: 1
LogRecord #1
ObservedTimestamp: 1970-01-01 00:00:00 +0000 UTC
Timestamp: 1970-01-01 00:00:00 +0000 UTC
SeverityText: 
SeverityNumber: Unspecified(0)
EventName: started
Body: Empty()
Trace ID: 
Span ID: 
Flags: 0
"#;
    assert_eq!(shown(detailed::put, Signal::Logs, LOGS), want);
}

#[test]
fn normal_is_one_line_an_item() {
    assert_eq!(
        shown(normal::put, Signal::Traces, TRACES),
        "ResourceTraces #0 [https://s/1] service.name=shop\nScopeTraces #0 lib@1.0\n\
         GET / 5b8efff798038103d269b633813fc60c eee19b7ec3c1b174 n=7 m={\"k\":[true,null]}\n"
    );
    assert_eq!(
        shown(normal::put, Signal::Metrics, METRICS),
        "ResourceMetrics #0\nScopeMetrics #0\n\
         g{k=v} -3\ng{} 0.5\ns{} 1\n\
         h{} count=3 sum=4.5 min=0 le2.5=1 2\n\
         e{} count=4 scale=0 zero_count=1 negative=0:[0, 1] positive=1:[2, 0]\n\
         q{} count=1 sum=2 q0.5=9\n"
    );
    assert_eq!(
        shown(normal::put, Signal::Logs, LOGS),
        "ResourceLog #0\nScopeLog #0\nhi\\u{1b}[1m\nthere d=1.5 x=\nstarted\n"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every item appears; damaged requests give an error or some text, never a panic.
    #[test]
    fn any_request_can_be_shown((signal, mut request) in arb_request(), seed in any::<u64>()) {
        let (mut long, mut short) = (Vec::new(), Vec::new());
        detailed::put(signal, &request, &mut long).unwrap();
        normal::put(signal, &request, &mut short).unwrap();
        let label = match signal {
            Signal::Traces => "\nSpan #",
            Signal::Logs => "\nLogRecord #",
            Signal::Metrics => "DataPoints #",
        };
        let items = crate::pdata::count(signal, &request).unwrap();
        prop_assert!(String::from_utf8(long).unwrap().matches(label).count() >= items);
        prop_assert!(short.iter().filter(|b| **b == b'\n').count() >= items);
        mutate(&mut request, seed);
        let _ = detailed::put(signal, &request, &mut Vec::new());
        let _ = normal::put(signal, &request, &mut Vec::new());
    }
}

#[test]
fn counts_are_of_groups_metrics_and_items() {
    let request = wire(Signal::Metrics, METRICS);
    assert!(ExportMetricsServiceRequest::decode(request.as_slice()).is_ok());
    let (batch, _verdict) = batch(Signal::Metrics, &request, 6);
    let counts = Counts::of(&batch, &request).unwrap();
    assert_eq!(counts, Counts { groups: 1, metrics: 6, items: 6 });
    let line = counts.line(Signal::Metrics, "debug/x");
    assert!(
        line.ends_with(
            "\tinfo\tMetrics\t{\"exporter\": \"debug/x\", \"resource metrics\": 1, \"metrics\": 6, \"data points\": 6}\n"
        ),
        "{line}"
    );
}

#[test]
fn sampling_is_per_second() {
    let start = Instant::now();
    let run = |initial, thereafter| {
        let mut sampler = Sampler::new(initial, thereafter);
        let mut shown = |millis: u64| sampler.allows(start + Duration::from_millis(millis));
        let first: Vec<bool> = (0..8).map(&mut shown).collect();
        assert!(initial == 0 || shown(1000), "a new second");
        first.into_iter().map(|yes| if yes { 'x' } else { '.' }).collect::<String>()
    };
    assert_eq!(run(2, 1), "xxxxxxxx");
    assert_eq!(run(2, 3), "xx..x..x");
    assert_eq!(run(2, 0), "xx......");
    assert_eq!(run(0, 2), ".x.x.x.x");
}

#[tokio::test]
async fn output_paths_get_the_text_and_the_sender_its_verdict() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("debug.txt");
    let config = DebugConfig {
        verbosity: Verbosity::Normal,
        use_internal_logger: false,
        output_paths: vec![path.to_str().unwrap().to_owned()],
        ..DebugConfig::default()
    };
    let (cx, metrics) = build_context("debug");
    let exporter = build(&config, Signal::Logs, &cx).unwrap();
    assert!(exporter.holds_acks(), "before the start nothing is taken");
    exporter.start(&run_context(&metrics)).await.unwrap();
    assert!(!exporter.holds_acks());
    for (request, accepted) in [(wire(Signal::Logs, LOGS), true), (b"\n\x05".to_vec(), false)] {
        let (batch, verdict) = batch(Signal::Logs, &request, 2);
        exporter.consume(batch);
        assert_eq!(verdict.await.unwrap() == Verdict::Accepted, accepted);
    }
    assert_eq!(exporter.drain(Instant::now() + Duration::from_secs(30)).await, Leftover::default());
    let text = std::fs::read_to_string(&path).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    assert!(first.ends_with("\"resource logs\": 1, \"log records\": 2}"), "{first}");
    assert!(rest.starts_with("ResourceLog #0\n") && rest.ends_with("\nstarted\n"), "{rest}");
    assert_eq!(sent(&metrics, "debug", Signal::Logs), 2);

    let config =
        DebugConfig { output_paths: vec![dir.path().join("no/x").to_str().unwrap().to_owned()], ..config };
    let exporter = build(&config, Signal::Logs, &cx).unwrap();
    assert!(exporter.start(&run_context(&metrics)).await.is_err());
}

#[test]
fn keys_are_checked() {
    let list = |items: &[&str]| {
        Value::Seq(items.iter().map(|s| Node::new(Pos::default(), Value::Str((*s).to_owned()))).collect())
    };
    let map = |entries: Vec<(&str, Value)>| {
        let entry = |(key, value): (&str, Value)| {
            (Key { pos: Pos::default(), text: key.to_owned() }, Node::new(Pos::default(), value))
        };
        Value::Map(entries.into_iter().map(entry).collect())
    };
    let internal = |on| ("use_internal_logger", Value::Bool(on));
    let cases: Vec<(Vec<(&str, Value)>, Option<&str>)> = vec![
        (vec![], None),
        (vec![("verbosity", Value::Str("DeTailed".into()))], None),
        (vec![("verbosity", Value::Str("none".into()))], Some("unsupported value \"none\"")),
        (vec![("loglevel", Value::Str("debug".into()))], Some("unknown key \"loglevel\"")),
        (vec![internal(false), ("output_paths", list(&["stderr", "/tmp/x"]))], None),
        (vec![("output_paths", list(&["stdout"]))], Some("not supported when use_internal_logger is true")),
        (vec![internal(false), ("output_paths", list(&[]))], Some("cannot be empty")),
        (vec![internal(false), ("output_paths", list(&[""]))], Some("must not be empty")),
        (vec![("sending_queue", map(vec![("enabled", Value::Bool(false))]))], None),
        (vec![("sending_queue", map(vec![]))], Some("no sending queue")),
        (vec![("sending_queue", Value::Null)], Some("no sending queue")),
        (vec![("sampling_initial", Value::Int(-1))], Some("out of range")),
    ];
    for (entries, want) in cases {
        let mut cx = Cx::default();
        DebugConfig::default().decode_into(&Node::new(Pos::default(), map(entries)), &mut cx);
        let got: Vec<&str> = cx.diags.iter().map(|diag| diag.message.as_str()).collect();
        match want {
            None => assert!(got.is_empty(), "{got:?}"),
            Some(want) => assert!(got.len() == 1 && got[0].contains(want), "{want}: {got:?}"),
        }
    }
}
