//! The views, read into prost's types, must give what prost's decoder gives.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1 as pb;
use opentelemetry_proto::tonic::logs::v1 as pl;
use opentelemetry_proto::tonic::metrics::v1 as pm;
use opentelemetry_proto::tonic::trace::v1 as pt;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::pdata::logs::LogRecord;
use crate::pdata::metrics::{
    Exemplar, ExponentialHistogramPoint, HistogramPoint, Kind, Metric, Number, NumberPoint, SummaryPoint,
};
use crate::pdata::testgen::{arb_logs, arb_metrics, arb_request, arb_traces, mutate, scramble};
use crate::pdata::traces::Span;
use crate::pdata::wire::{put_bytes, put_tag, put_varint};
use crate::pdata::{Signal, check};

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn value(view: AnyValue<'_>) -> pb::AnyValue {
    use pb::any_value::Value as V;
    let value = match view {
        AnyValue::Empty => None,
        AnyValue::Str(s) => Some(V::StringValue(text(s))),
        AnyValue::Bool(b) => Some(V::BoolValue(b)),
        AnyValue::Int(i) => Some(V::IntValue(i)),
        AnyValue::Double(d) => Some(V::DoubleValue(d)),
        AnyValue::Bytes(b) => Some(V::BytesValue(b.to_vec())),
        AnyValue::Array(a) => {
            Some(V::ArrayValue(pb::ArrayValue { values: a.values().map(|v| value(v.unwrap())).collect() }))
        }
        AnyValue::KvList(l) => Some(V::KvlistValue(pb::KeyValueList { values: pairs(l.pairs()) })),
    };
    pb::AnyValue { value }
}

/// A missing value and an empty one are the same to a view, so both sides are compared as missing.
fn pairs(view: Attributes<'_>) -> Vec<pb::KeyValue> {
    let pairs = view.map(|pair| {
        let (key, v) = pair.unwrap();
        let v = value(v);
        pb::KeyValue { key: text(key), value: v.value.is_some().then_some(v), ..Default::default() }
    });
    pairs.collect()
}

fn plain(pairs: &mut [pb::KeyValue]) {
    for pair in pairs {
        match &mut pair.value {
            Some(pb::AnyValue { value: None }) => pair.value = None,
            Some(v) => plain_value(v),
            None => {}
        }
    }
}

fn plain_value(value: &mut pb::AnyValue) {
    use pb::any_value::Value as V;
    match &mut value.value {
        Some(V::ArrayValue(a)) => a.values.iter_mut().for_each(plain_value),
        Some(V::KvlistValue(l)) => plain(&mut l.values),
        _ => {}
    }
}

fn exemplars<'a>(view: impl Iterator<Item = Result<Exemplar<'a>, WireError>>) -> Vec<pm::Exemplar> {
    view.map(|e| {
        let e = e.unwrap();
        pm::Exemplar {
            filtered_attributes: pairs(e.filtered_attributes()),
            time_unix_nano: e.time_unix_nano,
            span_id: e.span_id.to_vec(),
            trace_id: e.trace_id.to_vec(),
            value: e.value.map(|v| match v {
                Number::Double(d) => pm::exemplar::Value::AsDouble(d),
                Number::Int(i) => pm::exemplar::Value::AsInt(i),
            }),
        }
    })
    .collect()
}

fn span(message: &[u8]) -> pt::Span {
    let s = Span::parse(message).unwrap();
    pt::Span {
        trace_id: s.trace_id.to_vec(),
        span_id: s.span_id.to_vec(),
        trace_state: text(s.trace_state),
        parent_span_id: s.parent_span_id.to_vec(),
        flags: s.flags,
        name: text(s.name),
        kind: s.kind,
        start_time_unix_nano: s.start_time_unix_nano,
        end_time_unix_nano: s.end_time_unix_nano,
        attributes: pairs(s.attributes()),
        dropped_attributes_count: s.dropped_attributes_count,
        events: s
            .events()
            .map(|e| {
                let e = e.unwrap();
                pt::span::Event {
                    time_unix_nano: e.time_unix_nano,
                    name: text(e.name),
                    attributes: pairs(e.attributes()),
                    dropped_attributes_count: e.dropped_attributes_count,
                }
            })
            .collect(),
        dropped_events_count: s.dropped_events_count,
        links: s
            .links()
            .map(|l| {
                let l = l.unwrap();
                pt::span::Link {
                    trace_id: l.trace_id.to_vec(),
                    span_id: l.span_id.to_vec(),
                    trace_state: text(l.trace_state),
                    attributes: pairs(l.attributes()),
                    dropped_attributes_count: l.dropped_attributes_count,
                    flags: l.flags,
                }
            })
            .collect(),
        dropped_links_count: s.dropped_links_count,
        status: s.status_code.map(|code| pt::Status { message: text(s.status_message), code }),
    }
}

fn record(message: &[u8]) -> pl::LogRecord {
    let r = LogRecord::parse(message).unwrap();
    pl::LogRecord {
        time_unix_nano: r.time_unix_nano,
        observed_time_unix_nano: r.observed_time_unix_nano,
        severity_number: r.severity_number,
        severity_text: text(r.severity_text),
        body: r.body.map(value),
        attributes: pairs(r.attributes()),
        dropped_attributes_count: r.dropped_attributes_count,
        flags: r.flags,
        trace_id: r.trace_id.to_vec(),
        span_id: r.span_id.to_vec(),
        event_name: text(r.event_name),
    }
}

fn number_points(m: &Metric<'_>) -> Vec<pm::NumberDataPoint> {
    let points = m.points().map(|p| {
        let p = NumberPoint::parse(p.unwrap()).unwrap();
        pm::NumberDataPoint {
            attributes: pairs(p.attributes()),
            start_time_unix_nano: p.start_time_unix_nano,
            time_unix_nano: p.time_unix_nano,
            exemplars: exemplars(p.exemplars()),
            flags: p.flags,
            value: p.value.map(|v| match v {
                Number::Double(d) => pm::number_data_point::Value::AsDouble(d),
                Number::Int(i) => pm::number_data_point::Value::AsInt(i),
            }),
        }
    });
    points.collect()
}

fn histogram_point(message: &[u8]) -> pm::HistogramDataPoint {
    let p = HistogramPoint::parse(message).unwrap();
    pm::HistogramDataPoint {
        attributes: pairs(p.attributes()),
        start_time_unix_nano: p.start_time_unix_nano,
        time_unix_nano: p.time_unix_nano,
        count: p.count,
        sum: p.sum,
        bucket_counts: p.bucket_counts().map(Result::unwrap).collect(),
        explicit_bounds: p.explicit_bounds().map(Result::unwrap).collect(),
        exemplars: exemplars(p.exemplars()),
        flags: p.flags,
        min: p.min,
        max: p.max,
    }
}

fn exponential_point(message: &[u8]) -> pm::ExponentialHistogramDataPoint {
    let p = ExponentialHistogramPoint::parse(message).unwrap();
    let buckets = |offset: Option<i32>, counts: Scalars<'_>| {
        offset.map(|offset| pm::exponential_histogram_data_point::Buckets {
            offset,
            bucket_counts: counts.map(Result::unwrap).collect(),
        })
    };
    pm::ExponentialHistogramDataPoint {
        attributes: pairs(p.attributes()),
        start_time_unix_nano: p.start_time_unix_nano,
        time_unix_nano: p.time_unix_nano,
        count: p.count,
        sum: p.sum,
        scale: p.scale,
        zero_count: p.zero_count,
        positive: buckets(p.positive_offset, p.positive_counts()),
        negative: buckets(p.negative_offset, p.negative_counts()),
        flags: p.flags,
        exemplars: exemplars(p.exemplars()),
        min: p.min,
        max: p.max,
        zero_threshold: p.zero_threshold,
    }
}

fn summary_point(message: &[u8]) -> pm::SummaryDataPoint {
    let p = SummaryPoint::parse(message).unwrap();
    let quantiles = p.quantiles().map(|q| {
        let (quantile, value) = q.unwrap();
        pm::summary_data_point::ValueAtQuantile { quantile, value }
    });
    pm::SummaryDataPoint {
        attributes: pairs(p.attributes()),
        start_time_unix_nano: p.start_time_unix_nano,
        time_unix_nano: p.time_unix_nano,
        count: p.count,
        sum: p.sum,
        quantile_values: quantiles.collect(),
        flags: p.flags,
    }
}

fn metric(message: &[u8]) -> pm::Metric {
    let m = Metric::parse(message).unwrap();
    let t = m.temporality;
    use pm::metric::Data;
    let data = match m.kind {
        Kind::Empty => None,
        Kind::Gauge => Some(Data::Gauge(pm::Gauge { data_points: number_points(&m) })),
        Kind::Sum => Some(Data::Sum(pm::Sum {
            data_points: number_points(&m),
            aggregation_temporality: t,
            is_monotonic: m.monotonic,
        })),
        Kind::Histogram => Some(Data::Histogram(pm::Histogram {
            data_points: m.points().map(|p| histogram_point(p.unwrap())).collect(),
            aggregation_temporality: t,
        })),
        Kind::ExponentialHistogram => Some(Data::ExponentialHistogram(pm::ExponentialHistogram {
            data_points: m.points().map(|p| exponential_point(p.unwrap())).collect(),
            aggregation_temporality: t,
        })),
        Kind::Summary => Some(Data::Summary(pm::Summary {
            data_points: m.points().map(|p| summary_point(p.unwrap())).collect(),
        })),
    };
    pm::Metric {
        name: text(m.name),
        description: text(m.description),
        unit: text(m.unit),
        metadata: pairs(m.metadata()),
        data,
    }
}

/// What a view says of a group or scope, and what prost says: attributes and schema, name and version.
type Around = (Vec<pb::KeyValue>, String, String, String);

fn group_view(group: ResourceGroup<'_>) -> Around {
    (pairs(group.attributes()), text(group.schema_url().unwrap()), String::new(), String::new())
}

fn scope_view(s: ScopeGroup<'_>) -> Around {
    let (name, version) = (text(s.name().unwrap()), text(s.version().unwrap()));
    (pairs(s.attributes()), text(s.schema_url().unwrap()), name, version)
}

fn scope_prost(scope: &Option<pb::InstrumentationScope>, schema_url: &str) -> Around {
    let s = scope.clone().unwrap_or_default();
    let mut attributes = s.attributes;
    plain(&mut attributes);
    (attributes, schema_url.to_owned(), s.name, s.version)
}

/// Compares the two ways of reading a request, group by group; `$items` names prost's list of items.
macro_rules! compare {
    ($request:ty, $groups:ident, $scopes:ident, $items:ident, $bytes:expr, $read:expr, $plain:expr) => {{
        let bytes: &[u8] = $bytes;
        let theirs = <$request>::decode(bytes).unwrap();
        let ours: Vec<_> = groups(bytes).map(Result::unwrap).collect();
        prop_assert_eq!(ours.len(), theirs.$groups.len());
        for (ours, theirs) in ours.into_iter().zip(theirs.$groups) {
            let mut attributes = theirs.resource.clone().unwrap_or_default().attributes;
            plain(&mut attributes);
            let around = (attributes, theirs.schema_url, String::new(), String::new());
            prop_assert_eq!(group_view(ours), around);
            prop_assert_eq!(ours.resources().next().is_some(), theirs.resource.is_some());
            let scopes: Vec<_> = ours.scopes().map(Result::unwrap).collect();
            prop_assert_eq!(scopes.len(), theirs.$scopes.len());
            for (ours, theirs) in scopes.into_iter().zip(theirs.$scopes) {
                prop_assert_eq!(scope_view(ours), scope_prost(&theirs.scope, &theirs.schema_url));
                let items: Vec<_> = ours.items().map(|i| $read(i.unwrap())).collect();
                let mut expected = theirs.$items;
                expected.iter_mut().for_each($plain);
                prop_assert_eq!(items, expected);
            }
        }
    }};
}

fn plain_span(s: &mut pt::Span) {
    plain(&mut s.attributes);
    s.events.iter_mut().for_each(|e| plain(&mut e.attributes));
    s.links.iter_mut().for_each(|l| plain(&mut l.attributes));
}

fn plain_record(r: &mut pl::LogRecord) {
    plain(&mut r.attributes);
    r.body.iter_mut().for_each(plain_value);
}

fn plain_metric(m: &mut pm::Metric) {
    use pm::metric::Data;
    let plain_exemplars =
        |e: &mut Vec<pm::Exemplar>| e.iter_mut().for_each(|e| plain(&mut e.filtered_attributes));
    plain(&mut m.metadata);
    match &mut m.data {
        Some(Data::Gauge(pm::Gauge { data_points }) | Data::Sum(pm::Sum { data_points, .. })) => {
            for p in data_points {
                plain(&mut p.attributes);
                plain_exemplars(&mut p.exemplars);
            }
        }
        Some(Data::Histogram(d)) => {
            for p in &mut d.data_points {
                plain(&mut p.attributes);
                plain_exemplars(&mut p.exemplars);
            }
        }
        Some(Data::ExponentialHistogram(d)) => {
            for p in &mut d.data_points {
                plain(&mut p.attributes);
                plain_exemplars(&mut p.exemplars);
            }
        }
        Some(Data::Summary(d)) => d.data_points.iter_mut().for_each(|p| plain(&mut p.attributes)),
        None => {}
    }
}

/// Reads everything a request offers, whatever it is.
fn read_all(signal: Signal, bytes: &[u8]) -> Result<(), WireError> {
    fn attributes(view: Attributes<'_>, depth: u32) -> Result<(), WireError> {
        view.into_iter().try_for_each(|pair| any(pair?.1, depth))
    }
    fn any(view: AnyValue<'_>, depth: u32) -> Result<(), WireError> {
        match view {
            _ if depth > 70 => Err(WireError::TooDeep),
            AnyValue::Array(a) => a.values().try_for_each(|v| any(v?, depth + 1)),
            AnyValue::KvList(l) => attributes(l.pairs(), depth + 1),
            _ => Ok(()),
        }
    }
    for group in groups(bytes) {
        let group = group?;
        attributes(group.attributes(), 0)?;
        for scope in group.scopes() {
            let scope = scope?;
            attributes(scope.attributes(), 0)?;
            for item in scope.items() {
                let item = item?;
                match signal {
                    Signal::Traces => attributes(Span::parse(item)?.attributes(), 0)?,
                    Signal::Logs => attributes(LogRecord::parse(item)?.attributes(), 0)?,
                    Signal::Metrics => {
                        for point in Metric::parse(item)?.points() {
                            attributes(NumberPoint::parse(point?)?.attributes(), 0)?;
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn numbers_come_packed_and_unpacked_and_mixed() {
    let mut point = Vec::new();
    let bounds = [1f64, 2.0, 3.0, 4.0].map(f64::to_le_bytes);
    put_bytes(&mut point, 7, &bounds[..2].concat());
    put_tag(&mut point, 7, 1);
    point.extend(bounds[2]);
    put_bytes(&mut point, 7, &bounds[3]);
    let theirs = pm::HistogramDataPoint::decode(point.as_slice()).unwrap();
    assert_eq!(histogram_point(&point), theirs);
    assert_eq!(theirs.explicit_bounds, [1.0, 2.0, 3.0, 4.0]);

    let mut buckets = Vec::new();
    put_bytes(&mut buckets, 2, &[1, 0xac, 2]);
    put_tag(&mut buckets, 2, 0);
    put_varint(&mut buckets, 7);
    let mut point = Vec::new();
    // Two occurrences of one singular message: their lists join, the later offset wins.
    put_bytes(&mut point, 8, &buckets);
    put_bytes(&mut point, 8, &[0x08, 5, 0x12, 1, 9]);
    let theirs = pm::ExponentialHistogramDataPoint::decode(point.as_slice()).unwrap();
    assert_eq!(exponential_point(&point), theirs);
    assert_eq!(theirs.positive.unwrap().bucket_counts, [1, 300, 7, 9]);
}

#[test]
fn of_a_value_the_last_kind_wins_and_equal_lists_join() {
    let list = |n: u8| vec![0x0a, 2, 0x18, n];
    let mut message = Vec::new();
    put_bytes(&mut message, 5, &list(1));
    put_bytes(&mut message, 1, b"text");
    put_bytes(&mut message, 5, &list(2));
    put_bytes(&mut message, 5, &list(3));
    let theirs = pb::AnyValue::decode(message.as_slice()).unwrap();
    assert_eq!(value(AnyValue::parse(&message).unwrap()), theirs);
    put_bytes(&mut message, 6, b"");
    let theirs = pb::AnyValue::decode(message.as_slice()).unwrap();
    assert_eq!(value(AnyValue::parse(&message).unwrap()), theirs);
}

#[test]
fn iterators_end_after_the_first_error() {
    let bytes = [0x0a, 0, 0x10, 1, 0x0a, 0];
    let seen: Vec<_> = groups(&bytes).map(|g| g.map(|_| ())).collect();
    assert_eq!(seen, [Ok(()), Ok(())], "a field of another number is passed over");
    let bytes = [0x0a, 0, 0x0d, 1];
    let seen: Vec<_> = groups(&bytes).map(|g| g.map(|_| ())).collect();
    assert_eq!(seen, [Ok(()), Err(WireError::Truncated)]);
}

#[test]
fn the_first_of_two_equal_keys_is_found() {
    let mut message = Vec::new();
    put_bytes(&mut message, 1, b"\x0a\x01k\x12\x02\x18\x01");
    put_bytes(&mut message, 1, b"\x0a\x01k\x12\x02\x18\x02");
    let found = Attributes::of(&message, 1).get(b"k").unwrap();
    assert!(matches!(found, Some(AnyValue::Int(1))), "{found:?}");
    assert!(Attributes::of(&message, 1).get(b"x").unwrap().is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn spans_read_as_prost_reads_them(request in arb_traces(), seed: u64) {
        let bytes = scramble(Signal::Traces, &request.encode_to_vec(), seed);
        compare!(ExportTraceServiceRequest, resource_spans, scope_spans, spans, &bytes, span, plain_span);
    }

    #[test]
    fn log_records_read_as_prost_reads_them(request in arb_logs(), seed: u64) {
        let bytes = scramble(Signal::Logs, &request.encode_to_vec(), seed);
        compare!(ExportLogsServiceRequest, resource_logs, scope_logs, log_records, &bytes, record, plain_record);
    }

    #[test]
    fn metrics_read_as_prost_reads_them(request in arb_metrics(), seed: u64) {
        let bytes = scramble(Signal::Metrics, &request.encode_to_vec(), seed);
        compare!(ExportMetricsServiceRequest, resource_metrics, scope_metrics, metrics, &bytes, metric, plain_metric);
    }

    #[test]
    fn damage_is_survived_and_what_is_checked_can_be_read((signal, mut bytes) in arb_request(), seed: u64) {
        mutate(&mut bytes, seed);
        let read = read_all(signal, &bytes);
        // Points are read as numbers here whatever they are, so metrics may be refused for that.
        if check(signal, &bytes).is_ok() && signal != Signal::Metrics {
            prop_assert_eq!(read, Ok(()));
        }
    }
}
