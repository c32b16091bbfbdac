//! Remote write the plain way: decode with prost, build label lists, sort, encode with prost.
//!
//! The oracle of the tests and the baseline of the benches. Slow and obvious; only how names are made comes from
//! outside. No caches, no order, one `TimeSeries` a sample.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    HistogramDataPoint, Metric, NumberDataPoint, SummaryDataPoint, exemplar, number_data_point,
};

/// `prometheus.WriteRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    pub timeseries: Vec<TimeSeries>,
}

/// `prometheus.TimeSeries`, without histograms, which plain code has no say in.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    pub exemplars: Vec<Exemplar>,
    #[prost(bytes = "vec", repeated, tag = "4")]
    pub histograms: Vec<Vec<u8>>,
}

/// `prometheus.Label`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, prost::Message)]
pub struct Label {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

/// `prometheus.Sample`; the value as bits, so that NaNs stay what they are.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Sample {
    #[prost(fixed64, tag = "1")]
    pub bits: u64,
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
}

/// `prometheus.Exemplar`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Exemplar {
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    #[prost(fixed64, tag = "2")]
    pub bits: u64,
    #[prost(int64, tag = "3")]
    pub timestamp: i64,
}

/// How names are made.
pub struct Names<'a> {
    /// Name, unit, and the letter of the type: c, n, g, h, s.
    pub metric: &'a dyn Fn(&str, &str, char) -> Option<String>,
    pub label: &'a dyn Fn(&str) -> Option<String>,
}

const STALE: u64 = 0x7ff0_0000_0000_0002;
const NAN: u64 = 0x7ff8_0000_0000_0001;

type Labels = BTreeMap<String, String>;

/// The series of a request but `target_info` and exponential histograms, which are tested elsewhere.
pub fn series(request: &ExportMetricsServiceRequest, names: &Names<'_>, scopes: bool) -> Vec<TimeSeries> {
    let mut out = Vec::new();
    for group in &request.resource_metrics {
        let attributes = group.resource.as_ref().map(|r| r.attributes.as_slice()).unwrap_or_default();
        let get = |key: &str| {
            attributes.iter().find(|a| a.key == key).map(|a| text(&a.value)).filter(|t| !t.is_empty())
        };
        let mut strong = Labels::new();
        if let Some(name) = get("service.name") {
            let job = get("service.namespace").map_or(name.clone(), |ns| format!("{ns}/{name}"));
            strong.insert("job".into(), job);
        }
        if let Some(instance) = get("service.instance.id") {
            strong.insert("instance".into(), instance);
        }
        for scope in &group.scope_metrics {
            let mut strong = strong.clone();
            if scopes {
                let given = scope.scope.clone().unwrap_or_default();
                for attribute in &given.attributes {
                    if let Some(name) = (names.label)(&format!("otel_scope_{}", attribute.key)) {
                        strong.insert(name, text(&attribute.value));
                    }
                }
                strong.insert("otel_scope_name".into(), given.name);
                strong.insert("otel_scope_version".into(), given.version);
                strong.insert("otel_scope_schema_url".into(), scope.schema_url.clone());
            }
            for metric in &scope.metrics {
                one(metric, &strong, names, &mut out);
            }
        }
    }
    out
}

fn one(metric: &Metric, strong: &Labels, names: &Names<'_>, out: &mut Vec<TimeSeries>) {
    let named = |letter| (names.metric)(&metric.name, &metric.unit, letter);
    match &metric.data {
        Some(Data::Gauge(gauge)) => {
            let Some(name) = named('g') else { return };
            gauge.data_points.iter().for_each(|p| number(&name, p, strong, names, false, out));
        }
        Some(Data::Sum(sum)) if sum.aggregation_temporality == 2 => {
            let Some(name) = named(if sum.is_monotonic { 'c' } else { 'n' }) else { return };
            sum.data_points.iter().for_each(|p| number(&name, p, strong, names, sum.is_monotonic, out));
        }
        Some(Data::Histogram(histogram)) if histogram.aggregation_temporality == 2 => {
            let Some(name) = named('h') else { return };
            histogram.data_points.iter().for_each(|p| buckets(&name, p, strong, names, out));
        }
        Some(Data::Summary(summary)) => {
            let Some(name) = named('s') else { return };
            summary.data_points.iter().for_each(|p| quantiles(&name, p, strong, names, out));
        }
        _ => {}
    }
}

fn number(
    name: &str,
    point: &NumberDataPoint,
    strong: &Labels,
    names: &Names<'_>,
    exemplars: bool,
    out: &mut Vec<TimeSeries>,
) {
    let bits = match point.value {
        _ if point.flags & 1 != 0 => STALE,
        Some(number_data_point::Value::AsDouble(v)) => ordinary(v),
        Some(number_data_point::Value::AsInt(v)) => (v as f64).to_bits(),
        None => return,
    };
    if point.time_unix_nano == 0 {
        return;
    }
    let list = if exemplars { exemplars_of(&point.exemplars) } else { Vec::new() };
    let labels = labels(&point.attributes, strong, names, None);
    push(name, labels, None, bits, point.time_unix_nano, list, out);
}

fn buckets(
    name: &str,
    point: &HistogramDataPoint,
    strong: &Labels,
    names: &Names<'_>,
    out: &mut Vec<TimeSeries>,
) {
    if point.time_unix_nano == 0 || point.explicit_bounds.windows(2).any(|w| w[0] >= w[1]) {
        return;
    }
    let labels = labels(&point.attributes, strong, names, Some("le"));
    let stale = |bits| if point.flags & 1 != 0 { STALE } else { bits };
    let mut put = |suffix: &str, le: Option<String>, bits: u64, list: Vec<Exemplar>| {
        let own = le.map(|le| ("le", le));
        push(&format!("{name}{suffix}"), labels.clone(), own, stale(bits), point.time_unix_nano, list, out);
    };
    if let Some(sum) = point.sum {
        put("_sum", None, ordinary(sum), vec![]);
    }
    put("_count", None, (point.count as f64).to_bits(), vec![]);
    let mut left = exemplars_of(&point.exemplars);
    left.sort_by(|a, b| f64::from_bits(a.bits).total_cmp(&f64::from_bits(b.bits)));
    let mut total = 0u64;
    for (bound, count) in point.explicit_bounds.iter().zip(&point.bucket_counts) {
        total += count;
        let rest = left.iter().position(|e| f64::from_bits(e.bits) > *bound).unwrap_or(left.len());
        let rest = left.split_off(rest);
        let mine = std::mem::replace(&mut left, rest);
        put("_bucket", Some(format!("{bound}")), (total as f64).to_bits(), mine);
    }
    put("_bucket", Some("+Inf".into()), (point.count as f64).to_bits(), left);
}

fn quantiles(
    name: &str,
    point: &SummaryDataPoint,
    strong: &Labels,
    names: &Names<'_>,
    out: &mut Vec<TimeSeries>,
) {
    if point.time_unix_nano == 0 {
        return;
    }
    let labels = labels(&point.attributes, strong, names, Some("quantile"));
    let mut put = |suffix: &str, own: Option<String>, bits: u64| {
        let bits = if point.flags & 1 != 0 { STALE } else { bits };
        let own = own.map(|q| ("quantile", q));
        push(&format!("{name}{suffix}"), labels.clone(), own, bits, point.time_unix_nano, vec![], out);
    };
    put("_sum", None, ordinary(point.sum));
    put("_count", None, (point.count as f64).to_bits());
    for q in &point.quantile_values {
        put("", Some(format!("{}", q.quantile)), ordinary(q.value));
    }
}

fn push(
    name: &str,
    mut labels: Labels,
    own: Option<(&str, String)>,
    bits: u64,
    time: u64,
    mut exemplars: Vec<Exemplar>,
    out: &mut Vec<TimeSeries>,
) {
    exemplars.sort_by_key(|e| e.timestamp);
    labels.insert("__name__".into(), name.into());
    if let Some((key, value)) = own {
        labels.insert(key.into(), value);
    }
    let labels = labels.into_iter().map(|(name, value)| Label { name, value }).collect();
    let samples = vec![Sample { bits, timestamp: (time / 1_000_000) as i64 }];
    out.push(TimeSeries { labels, samples, exemplars, histograms: vec![] });
}

fn labels(attributes: &[KeyValue], strong: &Labels, names: &Names<'_>, own: Option<&str>) -> Labels {
    let mut sorted: Vec<&KeyValue> = attributes.iter().collect();
    sorted.sort_by(|a, b| a.key.as_bytes().cmp(b.key.as_bytes()));
    let mut labels = Labels::new();
    for attribute in sorted {
        let Some(name) = (names.label)(&attribute.key) else { continue };
        let value = text(&attribute.value);
        match labels.get_mut(&name) {
            Some(known) if !known.is_empty() => *known = format!("{known};{value}"),
            Some(known) => *known = value,
            None => _ = labels.insert(name, value),
        }
    }
    for (name, value) in strong {
        if !value.is_empty() || name.starts_with("otel_scope_") {
            labels.insert(name.clone(), value.clone());
        }
    }
    labels.retain(|name, value| !value.is_empty() && !name.starts_with("__") && Some(name.as_str()) != own);
    labels
}

fn exemplars_of(list: &[opentelemetry_proto::tonic::metrics::v1::Exemplar]) -> Vec<Exemplar> {
    let mut out: Vec<Exemplar> = Vec::new();
    for given in list {
        let bits = match given.value {
            Some(exemplar::Value::AsDouble(v)) => ordinary(v),
            Some(exemplar::Value::AsInt(v)) => (v as f64).to_bits(),
            None => continue,
        };
        if given.time_unix_nano == 0 {
            continue;
        }
        let hex = |id: &[u8]| id.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let mut labels = vec![("trace_id".to_owned(), hex(&given.trace_id))];
        labels.push(("span_id".to_owned(), hex(&given.span_id)));
        let own = labels.clone();
        for attribute in &given.filtered_attributes {
            if !labels.iter().any(|(name, value)| *name == attribute.key && !value.is_empty()) {
                labels.push((attribute.key.clone(), text(&attribute.value)));
            }
        }
        labels.retain(|(name, value)| !name.is_empty() && !value.is_empty());
        if labels.iter().map(|(n, v)| n.chars().count() + v.chars().count()).sum::<usize>() > 128 {
            labels = own;
            labels.retain(|(_, value)| !value.is_empty());
        }
        labels.sort();
        let labels = labels.into_iter().map(|(name, value)| Label { name, value }).collect();
        out.push(Exemplar { labels, bits, timestamp: (given.time_unix_nano / 1_000_000) as i64 });
    }
    out.sort_by(|a, b| f64::from_bits(a.bits).total_cmp(&f64::from_bits(b.bits)));
    out
}

fn ordinary(value: f64) -> u64 {
    if value.is_nan() { NAN } else { value.to_bits() }
}

fn text(value: &Option<AnyValue>) -> String {
    match value.as_ref().and_then(|v| v.value.as_ref()) {
        Some(Value::StringValue(s)) => s.clone(),
        Some(Value::BoolValue(b)) => b.to_string(),
        Some(Value::IntValue(i)) => i.to_string(),
        // Only plain numbers are given to this.
        Some(Value::DoubleValue(d)) => d.to_string(),
        _ => String::new(),
    }
}
