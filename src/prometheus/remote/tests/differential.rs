//! Random metrics: the encoder against the plain way, 2.0 against 1.0, and any cache against none.

use fastrand::Rng;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum, Summary, SummaryDataPoint,
    exemplar, number_data_point,
};

use prost::Message;

use super::plain::{self, Names, TimeSeries};
use super::rig::*;
use crate::prometheus::names::{Namer, Shape, TranslationStrategy};
use crate::prometheus::remote::{OutOfOrder, RemoteOptions, Version};

const KEYS: &[&str] = &[
    "a",
    "b",
    "a.b",
    "a_b",
    "http.method",
    "le",
    "quantile",
    "job",
    "__x",
    "_y",
    "A",
    "k8s.pod.name",
    "é",
    "0",
    "otel_scope_name",
];
const NAMES: &[&str] =
    &["x", "x.count", "http.server.duration", "cpu_seconds", "x.total", "ようこそ", "m", "y"];
const UNITS: &[&str] = &["", "s", "By", "1", "{request}", "By/s"];

fn pick<'a>(rng: &mut Rng, list: &[&'a str]) -> &'a str {
    list[rng.usize(..list.len())]
}

fn some_attributes(rng: &mut Rng, most: usize) -> Vec<KeyValue> {
    let mut keys: Vec<&str> = KEYS.to_vec();
    rng.shuffle(&mut keys);
    keys.truncate(rng.usize(..=most.min(keys.len())));
    keys.into_iter()
        .map(|key| {
            let value = match rng.u8(..6) {
                0 => Value::IntValue(rng.i64(-5..5)),
                1 => Value::BoolValue(rng.bool()),
                2 => Value::StringValue(String::new()),
                3 => Value::StringValue("wert\n\"ü\"".to_owned()),
                _ => Value::StringValue(format!("v{}", rng.u8(..8))),
            };
            KeyValue {
                key: key.to_owned(),
                value: Some(AnyValue { value: Some(value) }),
                ..Default::default()
            }
        })
        .collect()
}

fn some_value(rng: &mut Rng) -> f64 {
    match rng.u8(..8) {
        0 => f64::NAN,
        1 => f64::NEG_INFINITY,
        2 => -0.0,
        _ => f64::from(rng.i32(-1000..1000)) / 8.0,
    }
}

fn some_exemplars(rng: &mut Rng) -> Vec<Exemplar> {
    (0..rng.usize(..3))
        .map(|_| Exemplar {
            time_unix_nano: if rng.u8(..10) == 0 { 0 } else { (NOW + rng.u64(..100)) * 1_000_000 },
            value: (rng.u8(..10) > 0).then(|| exemplar::Value::AsDouble(f64::from(rng.u8(..20)))),
            trace_id: if rng.bool() { vec![rng.u8(..); 16] } else { vec![] },
            span_id: if rng.bool() { vec![rng.u8(..); 8] } else { vec![] },
            filtered_attributes: some_attributes(rng, 3).into_iter().filter(|_| rng.bool()).collect(),
        })
        .collect()
}

fn some_number(rng: &mut Rng, at: u64) -> NumberDataPoint {
    NumberDataPoint {
        attributes: some_attributes(rng, 6),
        time_unix_nano: if rng.u8(..40) == 0 { 0 } else { at },
        start_time_unix_nano: rng.u64(..2) * (at - 1_000_000_000),
        flags: u32::from(rng.u8(..20) == 0),
        exemplars: some_exemplars(rng),
        value: match rng.u8(..20) {
            0 => None,
            1..10 => Some(number_data_point::Value::AsInt(rng.i64(..))),
            _ => Some(number_data_point::Value::AsDouble(some_value(rng))),
        },
    }
}

fn some_metric(rng: &mut Rng, at: u64) -> Metric {
    let points = rng.usize(..4);
    let temporality = i32::from(rng.u8(..20) > 0) * 2;
    let data = match rng.u8(..5) {
        0 => Data::Gauge(Gauge { data_points: (0..points).map(|_| some_number(rng, at)).collect() }),
        1 | 2 => Data::Sum(Sum {
            data_points: (0..points).map(|_| some_number(rng, at)).collect(),
            aggregation_temporality: temporality,
            is_monotonic: rng.bool(),
        }),
        3 => {
            let data_points = (0..points)
                .map(|_| {
                    let bounds: Vec<f64> =
                        [0.1, 1.0, 2.5, 1e6, 1e21].into_iter().filter(|_| rng.bool()).collect();
                    let bucket_counts: Vec<u64> = bounds.iter().map(|_| rng.u64(..9)).chain([3]).collect();
                    HistogramDataPoint {
                        attributes: some_attributes(rng, 6),
                        time_unix_nano: at,
                        count: bucket_counts.iter().sum(),
                        bucket_counts: if rng.u8(..9) == 0 { vec![] } else { bucket_counts },
                        explicit_bounds: bounds,
                        sum: rng.bool().then(|| some_value(rng)),
                        flags: u32::from(rng.u8(..20) == 0),
                        exemplars: some_exemplars(rng),
                        ..Default::default()
                    }
                })
                .collect();
            Data::Histogram(Histogram { data_points, aggregation_temporality: temporality })
        }
        _ => {
            let data_points = (0..points)
                .map(|_| SummaryDataPoint {
                    attributes: some_attributes(rng, 6),
                    time_unix_nano: at,
                    count: rng.u64(..100),
                    sum: some_value(rng),
                    quantile_values: [0.0, 0.5, 0.9, 1.0]
                        .into_iter()
                        .filter_map(|quantile| {
                            let value = some_value(rng);
                            rng.bool().then_some(ValueAtQuantile { quantile, value })
                        })
                        .collect(),
                    flags: u32::from(rng.u8(..20) == 0),
                    ..Default::default()
                })
                .collect();
            Data::Summary(Summary { data_points })
        }
    };
    let description = if rng.bool() { "tells".to_owned() } else { String::new() };
    Metric { description, ..metric(pick(rng, NAMES), pick(rng, UNITS), data) }
}

fn some_request(rng: &mut Rng, at: u64) -> ExportMetricsServiceRequest {
    let mut all = ExportMetricsServiceRequest::default();
    for _ in 0..rng.usize(1..4) {
        let name = format!("api{}", rng.u8(..3));
        let resource = [("service.name", name.as_str()), ("host.name", "h"), ("service.instance.id", "")];
        let metrics = (0..rng.usize(..5)).map(|_| some_metric(rng, at)).collect();
        let mut one = request(&resource[..rng.usize(..=3)], metrics);
        let scope = &mut one.resource_metrics[0].scope_metrics[0];
        scope.schema_url = ["", "https://s"][rng.usize(..2)].to_owned();
        if let Some(scope) = &mut scope.scope {
            scope.attributes = some_attributes(rng, 2);
            scope.attributes.retain(|a| a.key == "a" || a.key == "http.method");
        }
        all.resource_metrics.extend(one.resource_metrics);
    }
    all
}

fn all_points(version: Version) -> RemoteOptions {
    RemoteOptions { out_of_order: OutOfOrder::Keep, ..options(version) }
}

fn plainly(request: &ExportMetricsServiceRequest, scopes: bool) -> Vec<TimeSeries> {
    // As it arrives: minus zero does not in every field.
    let request = &ExportMetricsServiceRequest::decode(request.encode_to_vec().as_slice()).unwrap();
    let namer = Namer::new(TranslationStrategy::UnderscoreEscapingWithSuffixes, "");
    let metric = |name: &str, unit: &str, letter| {
        let shape = match letter {
            'c' => Shape::Counter,
            'n' => Shape::UpDown,
            'g' => Shape::Gauge,
            'h' => Shape::Histogram,
            _ => Shape::Summary,
        };
        let mut out = String::new();
        namer.metric(name, unit, shape, &mut out).ok().map(|()| out)
    };
    let label = |key: &str| {
        let mut out = String::new();
        namer.label(key, &mut out).ok().map(|()| out)
    };
    plain::series(request, &Names { metric: &metric, label: &label }, scopes)
}

/// Says where two lists differ first.
fn assert_same(got: &[TimeSeries], want: &[TimeSeries], case: &str) {
    for (at, (got, want)) in got.iter().zip(want).enumerate() {
        assert_eq!(got, want, "{case}, series {at}");
    }
    assert_eq!(got.len(), want.len(), "{case}");
}

#[test]
fn the_long_way_is_the_plain_way() {
    for seed in 0..400 {
        let mut rng = Rng::with_seed(seed);
        let request = some_request(&mut rng, NOW * 1_000_000);
        for (version, scopes) in [(Version::V1, false), (Version::V1, true), (Version::V2, true)] {
            let mut options = all_points(version);
            options.map.scope_labels = scopes;
            let got = Rig::new(options).series(std::slice::from_ref(&request));
            assert_same(&got, &plainly(&request, scopes), &format!("seed {seed} {version:?}"));
        }
    }
}

#[test]
fn caches_change_nothing() {
    for seed in 0..12 {
        let mut rng = Rng::with_seed(seed);
        // Few series come often: the same requests again, later and shuffled.
        let pool: Vec<u64> = (0..6).map(|_| rng.u64(..)).collect();
        let mut requests = Vec::new();
        for step in 0..40 {
            let mut of_pool = Rng::with_seed(pool[rng.usize(..pool.len())]);
            let mut request = some_request(&mut of_pool, (NOW + step) * 1_000_000);
            if rng.bool() {
                for group in &mut request.resource_metrics {
                    rng.shuffle(&mut group.scope_metrics[0].metrics);
                }
            }
            requests.push(request);
        }
        for version in [Version::V1, Version::V2] {
            let want: Vec<TimeSeries> = requests.iter().flat_map(|r| plainly(r, true)).collect();
            for cache_bytes in [64 << 20, 400_000, 0] {
                let mut options = all_points(version);
                options.map.scope_labels = true;
                options.cache_bytes = cache_bytes;
                let mut rig = Rig::new(options);
                let got = rig.series(&requests);
                assert_same(&got, &want, &format!("seed {seed} {version:?} {cache_bytes}"));
                let cache = rig.encoder.cache();
                assert!(cache.hits > 0);
                assert_eq!(cache.forgotten > 0, cache_bytes < 1 << 20, "seed {seed} {cache:?}");
            }
        }
    }
}

#[test]
fn order_survives_a_small_cache() {
    // Enough to forget labels with each batch; orders have an eighth.
    let mut small = options(Version::V1);
    small.cache_bytes = 400_000;
    let mut rig = Rig::new(small);
    for seed in 0..60 {
        let mut rng = Rng::with_seed(seed % 7);
        let request = some_request(&mut rng, (NOW + 1000 - seed % 3) * 1_000_000);
        rig.series(&[request]);
    }
    let mut rng = Rng::with_seed(0);
    let late = some_request(&mut rng, NOW * 1_000_000);
    assert!(rig.series(&[late]).is_empty());
}
