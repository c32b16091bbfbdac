//! Metrics in OTLP, written down briefly. Times are milliseconds since the epoch.

use std::net::SocketAddr;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value::Value,
};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram,
    HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary,
    SummaryDataPoint, exemplar, metric::Data, number_data_point, summary_data_point::ValueAtQuantile,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use super::http;

pub const DELTA: AggregationTemporality = AggregationTemporality::Delta;
pub const CUMULATIVE: AggregationTemporality = AggregationTemporality::Cumulative;
pub const UNSPECIFIED: AggregationTemporality = AggregationTemporality::Unspecified;

/// A value of an attribute.
pub trait ToValue {
    fn to_value(&self) -> Value;
}

impl ToValue for &str {
    fn to_value(&self) -> Value {
        Value::StringValue((*self).to_owned())
    }
}

impl ToValue for String {
    fn to_value(&self) -> Value {
        Value::StringValue(self.clone())
    }
}

impl ToValue for i64 {
    fn to_value(&self) -> Value {
        Value::IntValue(*self)
    }
}

impl ToValue for f64 {
    fn to_value(&self) -> Value {
        Value::DoubleValue(*self)
    }
}

impl ToValue for bool {
    fn to_value(&self) -> Value {
        Value::BoolValue(*self)
    }
}

impl ToValue for Vec<u8> {
    fn to_value(&self) -> Value {
        Value::BytesValue(self.clone())
    }
}

impl ToValue for Vec<&dyn ToValue> {
    fn to_value(&self) -> Value {
        let values = self.iter().map(|v| AnyValue { value: Some(v.to_value()) }).collect();
        Value::ArrayValue(ArrayValue { values })
    }
}

impl ToValue for Vec<(&str, &dyn ToValue)> {
    fn to_value(&self) -> Value {
        Value::KvlistValue(KeyValueList { values: attributes(self) })
    }
}

/// Attributes in this order.
pub fn attributes(pairs: &[(&str, &dyn ToValue)]) -> Vec<KeyValue> {
    let one = |(key, value): &(&str, &dyn ToValue)| KeyValue {
        key: (*key).to_owned(),
        value: Some(AnyValue { value: Some(value.to_value()) }),
        ..Default::default()
    };
    pairs.iter().map(one).collect()
}

/// The metrics of one scope of one resource.
pub fn resource(attributes: Vec<KeyValue>, scope: Option<Scope>, metrics: Vec<Metric>) -> ResourceMetrics {
    let (scope, schema_url) = match scope {
        Some(scope) => (Some(scope.scope), scope.schema_url),
        None => (None, String::new()),
    };
    ResourceMetrics {
        resource: Some(Resource { attributes, ..Default::default() }),
        scope_metrics: vec![ScopeMetrics { scope, metrics, schema_url }],
        ..Default::default()
    }
}

/// A scope with what is told about it.
#[derive(Debug, Clone)]
pub struct Scope {
    scope: InstrumentationScope,
    schema_url: String,
}

pub fn scope(name: &str, version: &str, schema_url: &str, attributes: Vec<KeyValue>) -> Option<Scope> {
    let scope =
        InstrumentationScope { name: name.into(), version: version.into(), attributes, ..Default::default() };
    Some(Scope { scope, schema_url: schema_url.into() })
}

/// Sends metrics as an SDK does.
///
/// # Errors
/// When they are not taken: the status, and why.
pub fn send(agent_http: SocketAddr, resource_metrics: Vec<ResourceMetrics>) -> Result<(), String> {
    send_with(agent_http, &[], resource_metrics)
}

/// The same with more headers.
///
/// # Errors
/// As [`send`].
pub fn send_with(
    agent_http: SocketAddr,
    headers: &[(&str, &str)],
    resource_metrics: Vec<ResourceMetrics>,
) -> Result<(), String> {
    let body = ExportMetricsServiceRequest { resource_metrics }.encode_to_vec();
    let headers = [headers, &[("content-type", "application/x-protobuf")]].concat();
    match http::request(agent_http, "POST", "/v1/metrics", &headers, &body)? {
        (200, _) => Ok(()),
        (status, body) => Err(format!("{status}: {}", String::from_utf8_lossy(&body))),
    }
}

fn metric(name: &str, unit: &str, data: Data) -> Metric {
    Metric {
        name: name.into(),
        unit: unit.into(),
        description: format!("What {name} is"),
        data: Some(data),
        ..Default::default()
    }
}

pub fn gauge(name: &str, unit: &str, data_points: Vec<NumberDataPoint>) -> Metric {
    metric(name, unit, Data::Gauge(Gauge { data_points }))
}

/// A monotonic cumulative sum.
pub fn counter(name: &str, unit: &str, points: Vec<NumberDataPoint>) -> Metric {
    sum(name, unit, true, CUMULATIVE, points)
}

pub fn sum(
    name: &str,
    unit: &str,
    is_monotonic: bool,
    temporality: AggregationTemporality,
    data_points: Vec<NumberDataPoint>,
) -> Metric {
    let aggregation_temporality = temporality as i32;
    metric(name, unit, Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic }))
}

pub fn histogram(name: &str, unit: &str, data_points: Vec<HistogramDataPoint>) -> Metric {
    let aggregation_temporality = CUMULATIVE as i32;
    metric(name, unit, Data::Histogram(Histogram { data_points, aggregation_temporality }))
}

pub fn exponential(name: &str, unit: &str, data_points: Vec<ExponentialHistogramDataPoint>) -> Metric {
    let aggregation_temporality = CUMULATIVE as i32;
    metric(
        name,
        unit,
        Data::ExponentialHistogram(ExponentialHistogram { data_points, aggregation_temporality }),
    )
}

pub fn summary(name: &str, unit: &str, data_points: Vec<SummaryDataPoint>) -> Metric {
    metric(name, unit, Data::Summary(Summary { data_points }))
}

/// When counting began, and when it was looked at.
pub type Times = (i64, i64);

/// Milliseconds as OTLP has them.
pub fn nanos(millis: i64) -> u64 {
    u64::try_from(millis).unwrap() * 1_000_000
}

fn number(value: number_data_point::Value, (start, time): Times, attributes: &[KeyValue]) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes.to_vec(),
        start_time_unix_nano: nanos(start),
        time_unix_nano: nanos(time),
        value: Some(value),
        ..Default::default()
    }
}

pub fn double(value: f64, times: Times, attributes: &[KeyValue]) -> NumberDataPoint {
    number(number_data_point::Value::AsDouble(value), times, attributes)
}

pub fn int(value: i64, times: Times, attributes: &[KeyValue]) -> NumberDataPoint {
    number(number_data_point::Value::AsInt(value), times, attributes)
}

/// A point that says that nothing was recorded.
pub fn stale((start, time): Times, attributes: &[KeyValue]) -> NumberDataPoint {
    NumberDataPoint { flags: 1, value: None, ..int(0, (start, time), attributes) }
}

/// A point of a histogram with bounds; the count is what the buckets add up to.
pub fn buckets(
    bounds: &[f64],
    counts: &[u64],
    sum: f64,
    (start, time): Times,
    attributes: &[KeyValue],
) -> HistogramDataPoint {
    HistogramDataPoint {
        attributes: attributes.to_vec(),
        start_time_unix_nano: nanos(start),
        time_unix_nano: nanos(time),
        count: counts.iter().sum(),
        sum: Some(sum),
        bucket_counts: counts.to_vec(),
        explicit_bounds: bounds.to_vec(),
        ..Default::default()
    }
}

/// A point of an exponential histogram from offset and counts of each side; the count is what the buckets add up to.
pub fn exponential_point(
    scale: i32,
    zero: u64,
    positive: (i32, &[u64]),
    negative: (i32, &[u64]),
    sum: f64,
    (start, time): Times,
    attributes: &[KeyValue],
) -> ExponentialHistogramDataPoint {
    let side = |(offset, counts): (i32, &[u64])| Some(Buckets { offset, bucket_counts: counts.to_vec() });
    ExponentialHistogramDataPoint {
        attributes: attributes.to_vec(),
        start_time_unix_nano: nanos(start),
        time_unix_nano: nanos(time),
        count: zero + positive.1.iter().sum::<u64>() + negative.1.iter().sum::<u64>(),
        sum: Some(sum),
        scale,
        zero_count: zero,
        positive: side(positive),
        negative: side(negative),
        ..Default::default()
    }
}

pub fn quantiles(
    count: u64,
    sum: f64,
    values: &[(f64, f64)],
    (start, time): Times,
    attributes: &[KeyValue],
) -> SummaryDataPoint {
    SummaryDataPoint {
        attributes: attributes.to_vec(),
        start_time_unix_nano: nanos(start),
        time_unix_nano: nanos(time),
        count,
        sum,
        quantile_values: values
            .iter()
            .map(|(quantile, value)| ValueAtQuantile { quantile: *quantile, value: *value })
            .collect(),
        ..Default::default()
    }
}

/// An exemplar with ids made of one byte each.
pub fn exemplar(value: f64, time: i64, trace: u8, span: u8, attributes: Vec<KeyValue>) -> Exemplar {
    Exemplar {
        filtered_attributes: attributes,
        time_unix_nano: nanos(time),
        span_id: vec![span; 8],
        trace_id: vec![trace; 16],
        value: Some(exemplar::Value::AsDouble(value)),
    }
}
