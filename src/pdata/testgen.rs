//! Random OTLP requests for property tests, built from the generated types of `opentelemetry-proto`.
//!
//! [`arb_traces`], [`arb_metrics`] and [`arb_logs`] give typed requests, [`arb_request`] gives encoded ones
//! of any signal. [`scramble`] rewrites an encoded request into another encoding that producers may also
//! send: fields in any order, singular messages in two occurrences, unknown fields, overlong varints.
//! [`mutate`] damages bytes. Everything is small (a request is a few hundred bytes to some KiB).

use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList, any_value,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint,
    Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, exemplar,
    exponential_histogram_data_point::Buckets, metric, number_data_point,
    summary_data_point::ValueAtQuantile,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message;

use super::Signal;
pub use super::oracle::{oracle, oracle_count};
use super::wire::{Cursor, Value, put_bytes, put_tag, put_varint};

/// A request for spans.
pub fn arb_traces() -> impl Strategy<Value = ExportTraceServiceRequest> {
    let scope = (option::of(arb_scope()), vec(arb_span(), 0..6), arb_text());
    let scope = scope.prop_map(|(scope, spans, schema_url)| ScopeSpans { scope, spans, schema_url });
    let group = (option::of(arb_resource()), vec(scope, 0..4), arb_text());
    let group = group.prop_map(|(resource, scope_spans, schema_url)| ResourceSpans {
        resource,
        scope_spans,
        schema_url,
    });
    vec(group, 0..4).prop_map(|resource_spans| ExportTraceServiceRequest { resource_spans })
}

/// A request for metrics of every kind.
pub fn arb_metrics() -> impl Strategy<Value = ExportMetricsServiceRequest> {
    let scope = (option::of(arb_scope()), vec(arb_metric(), 0..5), arb_text());
    let scope = scope.prop_map(|(scope, metrics, schema_url)| ScopeMetrics { scope, metrics, schema_url });
    let group = (option::of(arb_resource()), vec(scope, 0..4), arb_text());
    let group = group.prop_map(|(resource, scope_metrics, schema_url)| ResourceMetrics {
        resource,
        scope_metrics,
        schema_url,
    });
    vec(group, 0..4).prop_map(|resource_metrics| ExportMetricsServiceRequest { resource_metrics })
}

/// A request for log records.
pub fn arb_logs() -> impl Strategy<Value = ExportLogsServiceRequest> {
    let scope = (option::of(arb_scope()), vec(arb_log_record(), 0..6), arb_text());
    let scope =
        scope.prop_map(|(scope, log_records, schema_url)| ScopeLogs { scope, log_records, schema_url });
    let group = (option::of(arb_resource()), vec(scope, 0..4), arb_text());
    let group = group.prop_map(|(resource, scope_logs, schema_url)| ResourceLogs {
        resource,
        scope_logs,
        schema_url,
    });
    vec(group, 0..4).prop_map(|resource_logs| ExportLogsServiceRequest { resource_logs })
}

/// An encoded request of any signal.
pub fn arb_request() -> impl Strategy<Value = (Signal, Vec<u8>)> {
    prop_oneof![
        arb_traces().prop_map(|r| (Signal::Traces, r.encode_to_vec())),
        arb_metrics().prop_map(|r| (Signal::Metrics, r.encode_to_vec())),
        arb_logs().prop_map(|r| (Signal::Logs, r.encode_to_vec())),
    ]
}

/// Any signal.
pub fn arb_signal() -> impl Strategy<Value = Signal> {
    prop_oneof![Just(Signal::Traces), Just(Signal::Metrics), Just(Signal::Logs)]
}

/// An attribute list; keys may repeat.
pub fn arb_attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    vec(arb_key_value(), 0..4)
}

/// A value of any kind, nested at most three levels.
pub fn arb_any_value() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        4 => arb_text().prop_map(|s| Some(any_value::Value::StringValue(s))),
        1 => any::<bool>().prop_map(|b| Some(any_value::Value::BoolValue(b))),
        1 => any::<i64>().prop_map(|i| Some(any_value::Value::IntValue(i))),
        1 => arb_double().prop_map(|d| Some(any_value::Value::DoubleValue(d))),
        1 => vec(any::<u8>(), 0..20).prop_map(|b| Some(any_value::Value::BytesValue(b))),
        1 => Just(None),
    ]
    .prop_map(|value| AnyValue { value });
    leaf.prop_recursive(3, 8, 3, |inner| {
        let list = vec(inner.clone(), 0..3)
            .prop_map(|values| AnyValue { value: Some(any_value::Value::ArrayValue(ArrayValue { values })) });
        let map = vec((arb_key(), option::of(inner)), 0..3).prop_map(|pairs| AnyValue {
            value: Some(any_value::Value::KvlistValue(KeyValueList {
                values: pairs
                    .into_iter()
                    .map(|(key, value)| KeyValue { key, value, ..Default::default() })
                    .collect(),
            })),
        });
        prop_oneof![list, map]
    })
}

/// The same request in another legal encoding, chosen by `seed`.
///
/// The order of items changes with the order of fields, so compare with what prost makes of the result, not
/// with what it made of the input.
pub fn scramble(signal: Signal, request: &[u8], seed: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let levels = if signal == Signal::Metrics { 4 } else { 2 };
    rewrite(request, 0, levels, &mut rng)
}

/// Damages a few bytes: flips, cuts, insertions, repetitions.
pub fn mutate(bytes: &mut Vec<u8>, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    for _ in 0..rng.usize(1..4) {
        if bytes.is_empty() {
            bytes.push(rng.u8(..));
        }
        let at = rng.usize(..bytes.len());
        match rng.u8(..5) {
            0 => bytes[at] ^= 1 << rng.u8(..8),
            1 => bytes[at] = rng.u8(..),
            2 => bytes.truncate(at),
            3 => bytes.insert(at, rng.u8(..)),
            _ => {
                let end = (at + rng.usize(..40)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
        }
    }
}

/// The processor time of this thread, which other work on the machine does not lengthen.
#[allow(unsafe_code, reason = "the standard library has no such clock")]
fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a local that outlives the call.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(failed, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Fails when `work` takes much longer on an input four times the size, as quadratic work would.
pub fn assert_linear<T, R>(make: impl Fn(usize) -> T, work: impl Fn(&T) -> R, size: usize) {
    let timed = |input: &T| {
        let start = thread_time();
        std::hint::black_box(work(input));
        thread_time().saturating_sub(start)
    };
    let (small, large) = (make(size), make(size * 4));
    let (mut short, mut long) = (Duration::MAX, Duration::MAX);
    for _ in 0..40 {
        short = short.min(timed(&small));
        long = long.min(timed(&large));
        // Linear work takes 4 times as long, quadratic work 16 times. Whatever else the machine does makes
        // either look longer than it is, never shorter, so one good round is proof.
        if long < short * 8 + Duration::from_millis(1) {
            return;
        }
    }
    panic!("{size} took {short:?}, four times as much took {long:?}");
}

fn rewrite(message: &[u8], level: u32, levels: u32, rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut fields: Vec<Vec<u8>> = Vec::new();
    let mut cursor = Cursor::new(message);
    while let Some(field) = cursor.next_field().unwrap() {
        let Value::Bytes(body) = field.value else {
            fields.push(message[field.start..field.end].to_vec());
            continue;
        };
        let nests = match (level, field.number) {
            (0, 1) | (1 | 2, 2) => true,
            (3, 5 | 7 | 9 | 10 | 11) => levels == 4,
            _ => false,
        };
        let body =
            if nests && level < levels { rewrite(body, level + 1, levels, rng) } else { body.to_vec() };
        // A singular message may come in several occurrences, which merge: cut it at a field.
        let singular = (matches!(level, 1 | 2) && field.number == 1) || (level == 3 && nests);
        let cut = if singular && rng.bool() { field_boundary(&body, rng) } else { None };
        match cut {
            Some(at) => {
                fields.push(one_field(field.number, &body[..at], rng));
                fields.push(one_field(field.number, &body[at..], rng));
            }
            None => fields.push(one_field(field.number, &body, rng)),
        }
    }
    if rng.u8(..4) == 0 {
        let mut unknown = Vec::new();
        match rng.u8(..4) {
            0 => put_bytes(&mut unknown, 1000, b"kept"),
            1 => {
                put_tag(&mut unknown, 100, 0);
                put_varint(&mut unknown, rng.u64(..));
            }
            2 => {
                put_tag(&mut unknown, 77, 3);
                put_bytes(&mut unknown, 1, b"in a group");
                put_tag(&mut unknown, 77, 4);
            }
            _ => {
                put_tag(&mut unknown, 99, 5);
                unknown.extend_from_slice(&[1, 2, 3, 4]);
            }
        }
        fields.push(unknown);
    }
    rng.shuffle(&mut fields);
    fields.concat()
}

fn one_field(number: u32, body: &[u8], rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut out = Vec::new();
    put_tag(&mut out, number, 2);
    put_varint(&mut out, body.len() as u64);
    if rng.u8(..8) == 0 {
        // The same length in one byte more than needed.
        *out.last_mut().unwrap() |= 0x80;
        out.push(0);
    }
    out.extend_from_slice(body);
    out
}

fn field_boundary(message: &[u8], rng: &mut fastrand::Rng) -> Option<usize> {
    let mut cursor = Cursor::new(message);
    let mut ends = Vec::new();
    while let Some(field) = cursor.next_field().unwrap() {
        ends.push(field.end);
    }
    rng.choice(ends)
}

fn arb_text() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => Just(String::new()),
        4 => "[a-z./:]{1,12}",
        1 => "\\PC{0,8}",
        1 => "[a-z ]{100,200}",
    ]
}

fn arb_key() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-c]", 3 => "[a-z]{1,5}\\.[a-z]{1,6}", 1 => arb_text()]
}

fn arb_double() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), any::<i32>().prop_map(f64::from), -1e9..1e9f64]
}

fn arb_key_value() -> impl Strategy<Value = KeyValue> {
    (arb_key(), option::weighted(0.95, arb_any_value())).prop_map(|(key, value)| KeyValue {
        key,
        value,
        ..Default::default()
    })
}

fn arb_resource() -> impl Strategy<Value = Resource> {
    let entity = (arb_text(), vec(arb_key(), 0..2)).prop_map(|(r#type, id_keys)| EntityRef {
        schema_url: String::new(),
        r#type,
        id_keys,
        description_keys: vec!["d".to_owned()],
    });
    (arb_attributes(), small(), vec(entity, 0..2)).prop_map(
        |(attributes, dropped_attributes_count, entity_refs)| Resource {
            attributes,
            dropped_attributes_count,
            entity_refs,
        },
    )
}

fn arb_scope() -> impl Strategy<Value = InstrumentationScope> {
    (arb_text(), arb_text(), arb_attributes(), small()).prop_map(
        |(name, version, attributes, dropped_attributes_count)| InstrumentationScope {
            name,
            version,
            attributes,
            dropped_attributes_count,
        },
    )
}

fn small() -> impl Strategy<Value = u32> {
    prop_oneof![3 => Just(0u32), 1 => 1..300u32]
}

fn id(len: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![1 => Just(Vec::new()), 3 => vec(any::<u8>(), len)]
}

fn arb_span() -> impl Strategy<Value = Span> {
    let event = (any::<u64>(), arb_text(), arb_attributes(), small()).prop_map(
        |(time_unix_nano, name, attributes, dropped_attributes_count)| span::Event {
            time_unix_nano,
            name,
            attributes,
            dropped_attributes_count,
        },
    );
    let link = (id(16), id(8), arb_attributes(), small(), small()).prop_map(
        |(trace_id, span_id, attributes, dropped_attributes_count, flags)| span::Link {
            trace_id,
            span_id,
            trace_state: String::new(),
            attributes,
            dropped_attributes_count,
            flags,
        },
    );
    let status = option::of((arb_text(), 0..3i32).prop_map(|(message, code)| Status { message, code }));
    let ids = (id(16), id(8), id(8), arb_text());
    let times = (any::<u64>(), any::<u64>(), 0..6i32, small());
    (ids, times, arb_text(), arb_attributes(), vec(event, 0..3), vec(link, 0..3), status, small()).prop_map(
        |(ids, times, name, attributes, events, links, status, flags)| Span {
            trace_id: ids.0,
            span_id: ids.1,
            trace_state: ids.3,
            parent_span_id: ids.2,
            flags,
            name,
            kind: times.2,
            start_time_unix_nano: times.0,
            end_time_unix_nano: times.1,
            attributes,
            dropped_attributes_count: times.3,
            events,
            dropped_events_count: flags / 2,
            links,
            dropped_links_count: flags / 3,
            status,
        },
    )
}

fn arb_log_record() -> impl Strategy<Value = LogRecord> {
    let times = (any::<u64>(), any::<u64>());
    let body = option::of(arb_any_value());
    (times, 0..25i32, arb_text(), body, arb_attributes(), small(), (id(16), id(8)), arb_text()).prop_map(
        |(times, severity_number, severity_text, body, attributes, flags, ids, event_name)| LogRecord {
            time_unix_nano: times.0,
            observed_time_unix_nano: times.1,
            severity_number,
            severity_text,
            body,
            attributes,
            dropped_attributes_count: flags / 2,
            flags,
            trace_id: ids.0,
            span_id: ids.1,
            event_name,
        },
    )
}

fn arb_exemplar() -> impl Strategy<Value = Exemplar> {
    let value = option::of(prop_oneof![
        arb_double().prop_map(exemplar::Value::AsDouble),
        any::<i64>().prop_map(exemplar::Value::AsInt),
    ]);
    (arb_attributes(), any::<u64>(), id(8), id(16), value).prop_map(
        |(filtered_attributes, time_unix_nano, span_id, trace_id, value)| Exemplar {
            filtered_attributes,
            time_unix_nano,
            span_id,
            trace_id,
            value,
        },
    )
}

fn arb_number_point() -> impl Strategy<Value = NumberDataPoint> {
    let value = option::of(prop_oneof![
        arb_double().prop_map(number_data_point::Value::AsDouble),
        any::<i64>().prop_map(number_data_point::Value::AsInt),
    ]);
    let times = (any::<u64>(), any::<u64>());
    (arb_attributes(), times, vec(arb_exemplar(), 0..2), small(), value).prop_map(
        |(attributes, times, exemplars, flags, value)| NumberDataPoint {
            attributes,
            start_time_unix_nano: times.0,
            time_unix_nano: times.1,
            exemplars,
            flags,
            value,
        },
    )
}

fn arb_histogram_point() -> impl Strategy<Value = HistogramDataPoint> {
    let times = (any::<u64>(), any::<u64>(), any::<u64>());
    let range = (option::of(arb_double()), option::of(arb_double()), option::of(arb_double()));
    let buckets = (vec(any::<u64>(), 0..5), vec(arb_double(), 0..5));
    (arb_attributes(), times, range, buckets, vec(arb_exemplar(), 0..2), small()).prop_map(
        |(attributes, times, range, buckets, exemplars, flags)| HistogramDataPoint {
            attributes,
            start_time_unix_nano: times.0,
            time_unix_nano: times.1,
            count: times.2,
            sum: range.0,
            bucket_counts: buckets.0,
            explicit_bounds: buckets.1,
            exemplars,
            flags,
            min: range.1,
            max: range.2,
        },
    )
}

fn arb_exponential_point() -> impl Strategy<Value = ExponentialHistogramDataPoint> {
    let buckets = || {
        option::of(
            (-20..20i32, vec(any::<u64>(), 0..5))
                .prop_map(|(offset, bucket_counts)| Buckets { offset, bucket_counts }),
        )
    };
    let times = (any::<u64>(), any::<u64>(), any::<u64>());
    let range = (option::of(arb_double()), option::of(arb_double()), option::of(arb_double()), arb_double());
    let scale = (-10..20i32, any::<u64>(), small());
    (arb_attributes(), times, range, scale, buckets(), buckets(), vec(arb_exemplar(), 0..2)).prop_map(
        |(attributes, times, range, scale, positive, negative, exemplars)| ExponentialHistogramDataPoint {
            attributes,
            start_time_unix_nano: times.0,
            time_unix_nano: times.1,
            count: times.2,
            sum: range.0,
            scale: scale.0,
            zero_count: scale.1,
            positive,
            negative,
            flags: scale.2,
            exemplars,
            min: range.1,
            max: range.2,
            zero_threshold: range.3,
        },
    )
}

fn arb_summary_point() -> impl Strategy<Value = SummaryDataPoint> {
    let quantile =
        (arb_double(), arb_double()).prop_map(|(quantile, value)| ValueAtQuantile { quantile, value });
    let times = (any::<u64>(), any::<u64>(), any::<u64>());
    (arb_attributes(), times, arb_double(), vec(quantile, 0..3), small()).prop_map(
        |(attributes, times, sum, quantile_values, flags)| SummaryDataPoint {
            attributes,
            start_time_unix_nano: times.0,
            time_unix_nano: times.1,
            count: times.2,
            sum,
            quantile_values,
            flags,
        },
    )
}

fn arb_metric() -> impl Strategy<Value = Metric> {
    let data = prop_oneof![
        vec(arb_number_point(), 0..5).prop_map(|data_points| metric::Data::Gauge(Gauge { data_points })),
        (vec(arb_number_point(), 0..5), 0..3i32, any::<bool>()).prop_map(
            |(data_points, aggregation_temporality, is_monotonic)| metric::Data::Sum(Sum {
                data_points,
                aggregation_temporality,
                is_monotonic,
            })
        ),
        (vec(arb_histogram_point(), 0..4), 0..3i32).prop_map(|(data_points, aggregation_temporality)| {
            metric::Data::Histogram(Histogram { data_points, aggregation_temporality })
        }),
        (vec(arb_exponential_point(), 0..4), 0..3i32).prop_map(|(data_points, aggregation_temporality)| {
            metric::Data::ExponentialHistogram(ExponentialHistogram { data_points, aggregation_temporality })
        }),
        vec(arb_summary_point(), 0..4).prop_map(|data_points| metric::Data::Summary(Summary { data_points })),
    ];
    (arb_text(), arb_text(), arb_text(), arb_attributes(), option::weighted(0.9, data)).prop_map(
        |(name, description, unit, metadata, data)| Metric { name, description, unit, metadata, data },
    )
}
