//! The vectors of the mapping and of the wire, through the encoder.

use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint,
    Metric, Sum, Summary, SummaryDataPoint, exemplar, exponential_histogram_data_point,
};

use super::rig::*;
use crate::exporters::delivery::sharded::ShardBody;
use crate::prometheus::remote::{Exponential, OutOfOrder, Version};

const R2: &[(&str, &str)] = &[("service.name", "api")];

fn gauge(points: Vec<opentelemetry_proto::tonic::metrics::v1::NumberDataPoint>) -> Data {
    Data::Gauge(Gauge { data_points: points })
}

fn counter(points: Vec<opentelemetry_proto::tonic::metrics::v1::NumberDataPoint>, temporality: i32) -> Data {
    Data::Sum(Sum { data_points: points, aggregation_temporality: temporality, is_monotonic: true })
}

fn one_gauge(list: &[(&str, &str)]) -> Vec<Metric> {
    vec![metric("g", "", gauge(vec![number(list, 1.0, 0)]))]
}

#[test]
fn golden_bytes() {
    let up = |version| {
        let mut options = options(version);
        options.map.target_info = false;
        let mut rig = Rig::new(options);
        let bodies = rig.bodies(&[request(
            &[("service.name", "a")],
            vec![metric("up", "", gauge(vec![number(&[], 1.0, 0)]))],
        )]);
        bodies[0].1.message().unwrap().to_vec()
    };
    let hex = |bytes: Vec<u8>| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let v1 = "0a2c0a0e0a085f5f6e616d655f5f120275700a080a036a6f62120161121009000000000000f03f1080d095ffbc31";
    assert_eq!(hex(up(Version::V1)), v1);
    let v2 = "220022085f5f6e616d655f5f2202757022036a6f622201612a1c0a0401020304121009000000000000f03f1080d095ffbc312a020802";
    assert_eq!(hex(up(Version::V2)), v2);
}

#[test]
fn resources_and_scopes() {
    let table: &[(&str, &[(&str, &str)], &[(&str, &str)], &[&str])] = &[
        (
            "R1",
            &[("service.namespace", "shop"), ("service.name", "api"), ("service.instance.id", "i1")],
            &[],
            &["g{instance=\"i1\",job=\"shop/api\"} 1 @0"],
        ),
        ("R2", R2, &[], &["g{job=\"api\"} 1 @0"]),
        ("R3", &[("service.namespace", "shop")], &[], &["g{} 1 @0"]),
        ("R4", &[("service.namespace", ""), ("service.name", "api")], &[], &["g{job=\"api\"} 1 @0"]),
        ("R5", &[("service.name", "api"), ("service.namespace", "x")], &[], &["g{job=\"x/api\"} 1 @0"]),
        (
            "R6",
            &[
                ("service.namespace", "shop"),
                ("service.name", "api"),
                ("service.instance.id", "i1"),
                ("cloud.region", "eu"),
            ],
            &[],
            &[
                "g{instance=\"i1\",job=\"shop/api\"} 1 @0",
                "target_info{cloud_region=\"eu\",instance=\"i1\",job=\"shop/api\"} 1 @0",
            ],
        ),
        ("R7", &[("cloud.region", "eu")], &[], &["g{} 1 @0"]),
        ("R10", R2, &[("job", "x")], &["g{job=\"api\"} 1 @0"]),
        ("X9", R2, &[("A", "1"), ("Zone", "2")], &["g{A=\"1\",Zone=\"2\",job=\"api\"} 1 @0"]),
        ("X10", R2, &[("a", "")], &["g{job=\"api\"} 1 @0"]),
        ("reserved", R2, &[("__x", "1"), ("__name__", "y")], &["g{job=\"api\"} 1 @0"]),
    ];
    for (name, resource, point, want) in table {
        for version in [Version::V1, Version::V2] {
            let mut options = options(version);
            options.map.target_info = true;
            let got = Rig::new(options).text(&[request(resource, one_gauge(point))]);
            assert_eq!(got, *want, "{name} {version:?}");
        }
    }
}

#[test]
fn scope_labels_overwrite() {
    let mut options = options(Version::V1);
    options.map.scope_labels = true;
    let mut request = request(R2, one_gauge(&[("otel_scope_name", "p")]));
    let scope = request.resource_metrics[0].scope_metrics[0].scope.as_mut().unwrap();
    scope.attributes = attributes(&[("name", "n"), ("x.y", "z")]);
    let want = "g{job=\"api\",otel_scope_name=\"s\",otel_scope_version=\"1\",otel_scope_x_y=\"z\"} 1 @0";
    assert_eq!(Rig::new(options).text(&[request]), [want]);
}

#[test]
fn target_info_spans_the_points_and_rests_a_minute() {
    let mut options = options(Version::V1);
    options.map.target_info = true;
    let mut rig = Rig::new(options);
    let resource = &[("service.name", "api"), ("cloud.region", "eu")];
    let info = |rig: &mut Rig, times: &[u64]| -> Vec<String> {
        let points = times.iter().map(|at| number(&[], 1.0, *at)).collect();
        let text = rig.text(&[request(resource, vec![metric("g", "", gauge(points))])]);
        text.iter()
            .filter(|l| l.starts_with("target_info"))
            .map(|l| l.rsplit('@').next().unwrap().to_owned())
            .collect()
    };
    // R8, R9
    assert_eq!(info(&mut rig, &[0, 400_000]), ["0", "150000", "300000", "400000"]);
    assert!(info(&mut rig, &[410_000, 459_999]).is_empty());
    assert_eq!(info(&mut rig, &[460_000]), ["460000"]);
    // A span of years is not filled.
    assert_eq!(info(&mut rig, &[470_000, 99_000_000_000]).len(), 25);
}

fn histogram(point: HistogramDataPoint) -> Metric {
    let point = HistogramDataPoint {
        attributes: attributes(&[("route", "/a")]),
        time_unix_nano: NOW * 1_000_000,
        ..point
    };
    let data = Histogram { data_points: vec![point], aggregation_temporality: 2 };
    metric("http.server.request.duration", "s", Data::Histogram(data))
}

fn short(lines: Vec<String>) -> Vec<String> {
    let shorten = |l: String| {
        l.replace("http_server_request_duration_seconds", "")
            .replace("{job=\"api\",", "{")
            .replace(",route=\"/a\"", "")
            .replace("route=\"/a\"", "")
            .replace("job=\"api\",", "")
            .replace(" @0", "")
    };
    lines.into_iter().map(shorten).collect()
}

#[test]
fn histograms() {
    let h = |bounds: &[f64], counts: &[u64], count, sum| HistogramDataPoint {
        explicit_bounds: bounds.to_vec(),
        bucket_counts: counts.to_vec(),
        count,
        sum,
        ..Default::default()
    };
    let exemplar = |value, at: u64| Exemplar {
        time_unix_nano: (NOW + at) * 1_000_000,
        value: Some(exemplar::Value::AsDouble(value)),
        ..Default::default()
    };
    let table: &[(&str, HistogramDataPoint, &[&str])] = &[
        (
            "H1",
            h(&[0.5, 1.0, 100.0], &[1, 2, 3, 4], 10, Some(42.5)),
            &[
                "_sum{} 42.5",
                "_count{} 10",
                "_bucket{le=\"0.5\"} 1",
                "_bucket{le=\"1\"} 3",
                "_bucket{le=\"100\"} 6",
                "_bucket{le=\"+Inf\"} 10",
            ],
        ),
        (
            "H2",
            h(&[0.5, 1.0, 100.0], &[1, 2, 3, 4], 10, None),
            &[
                "_count{} 10",
                "_bucket{le=\"0.5\"} 1",
                "_bucket{le=\"1\"} 3",
                "_bucket{le=\"100\"} 6",
                "_bucket{le=\"+Inf\"} 10",
            ],
        ),
        ("H3", h(&[], &[], 10, Some(4.0)), &["_sum{} 4", "_count{} 10", "_bucket{le=\"+Inf\"} 10"]),
        ("H4", h(&[], &[10], 10, None), &["_count{} 10", "_bucket{le=\"+Inf\"} 10"]),
        ("H5", h(&[1.0], &[2, 3], 9, None), &["_count{} 9", "_bucket{le=\"1\"} 2", "_bucket{le=\"+Inf\"} 9"]),
        (
            "H6",
            HistogramDataPoint { flags: 1, ..h(&[1.0], &[0, 0], 0, None) },
            &["_count{} stale", "_bucket{le=\"1\"} stale", "_bucket{le=\"+Inf\"} stale"],
        ),
        (
            "H7",
            HistogramDataPoint {
                exemplars: vec![exemplar(2.0, 1), exemplar(0.5, 2), exemplar(0.7, 3), exemplar(1.0, 4)],
                ..h(&[0.5, 1.0], &[0, 0, 4], 4, None)
            },
            &[
                "_count{} 4",
                "_bucket{le=\"0.5\"} 0 # {} 0.5 @2",
                "_bucket{le=\"1\"} 0 # {} 0.7 @3 # {} 1 @4",
                "_bucket{le=\"+Inf\"} 4 # {} 2 @1",
            ],
        ),
        (
            "a bound of infinity",
            h(&[1.0, f64::INFINITY], &[2, 3, 0], 5, None),
            &["_count{} 5", "_bucket{le=\"1\"} 2", "_bucket{le=\"+Inf\"} 5"],
        ),
        ("bounds that fall", h(&[1.0, 0.5], &[2, 3, 0], 5, None), &[]),
        ("bounds that are none", h(&[f64::NAN], &[2, 3], 5, None), &[]),
    ];
    for (name, point, want) in table {
        for version in [Version::V1, Version::V2] {
            let mut rig = Rig::new(options(version));
            let got = short(rig.text(&[request(R2, vec![histogram(point.clone())])]));
            assert_eq!(got, *want, "{name} {version:?}");
            assert_eq!(rig.dropped.is_empty(), !want.is_empty(), "{name}");
        }
    }
}

#[test]
fn summaries() {
    let point = |quantiles: &[(f64, f64)]| {
        let data_point = SummaryDataPoint {
            attributes: attributes(&[("route", "/a"), ("quantile", "x")]),
            time_unix_nano: NOW * 1_000_000,
            count: 4,
            sum: 20.0,
            quantile_values: quantiles
                .iter()
                .map(|(quantile, value)| ValueAtQuantile { quantile: *quantile, value: *value })
                .collect(),
            ..Default::default()
        };
        vec![metric(
            "http.server.request.duration",
            "s",
            Data::Summary(Summary { data_points: vec![data_point] }),
        )]
    };
    let h8 = [(0.0, 1.5), (0.5, 2.0), (0.99, 9.0), (1.0, 10.0)];
    let want = [
        "_sum{} 20",
        "_count{} 4",
        "{quantile=\"0\"} 1.5",
        "{quantile=\"0.5\"} 2",
        "{quantile=\"0.99\"} 9",
        "{quantile=\"1\"} 10",
    ];
    for version in [Version::V1, Version::V2] {
        assert_eq!(short(Rig::new(options(version)).text(&[request(R2, point(&h8))])), want, "{version:?}");
    }
    let mut rig = Rig::new(options(Version::V1));
    assert!(rig.text(&[request(R2, point(&[(0.5, 1.0), (0.5, 2.0)]))]).is_empty());
    assert_eq!(rig.dropped, [(1, "malformed")]);
}

#[test]
fn exponential_histograms_are_native_or_classic() {
    let point = ExponentialHistogramDataPoint {
        time_unix_nano: NOW * 1_000_000,
        count: 10,
        sum: Some(5.5),
        scale: 0,
        positive: Some(exponential_histogram_data_point::Buckets {
            offset: 0,
            bucket_counts: vec![4, 3, 2, 1],
        }),
        ..Default::default()
    };
    let data = ExponentialHistogram { data_points: vec![point], aggregation_temporality: 2 };
    let input = request(&[], vec![metric("h", "", Data::ExponentialHistogram(data))]);
    let bodies = Rig::new(options(Version::V1)).bodies(std::slice::from_ref(&input));
    // That of the reference but for the time, which takes four bytes more.
    let golden = concat!(
        "0a3a0a0d0a085f5f6e616d655f5f1201682229",
        "080a190000000000001640299d978ccf08ba5b2530005a0408021004620408010101",
        "7880d095ffbc31"
    );
    let hex: String = bodies[0].1.message().unwrap().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, golden);
    assert_eq!(bodies[0].1.counts().histograms, 1);
    let mut classic = options(Version::V1);
    classic.exponential = Exponential::Classic;
    let want = [
        "h_sum{} 5.5 @0",
        "h_count{} 10 @0",
        "h_bucket{le=\"2\"} 4 @0",
        "h_bucket{le=\"4\"} 7 @0",
        "h_bucket{le=\"8\"} 9 @0",
        "h_bucket{le=\"16\"} 10 @0",
        "h_bucket{le=\"+Inf\"} 10 @0",
    ];
    assert_eq!(Rig::new(classic).text(&[input]), want);
}

#[test]
fn exemplars_have_at_most_128_characters() {
    let exemplar = |filtered: &[(&str, &str)]| Exemplar {
        time_unix_nano: (NOW + 5) * 1_000_000,
        value: Some(exemplar::Value::AsInt(3)),
        trace_id: vec![0xab; 16],
        span_id: vec![0xcd; 8],
        filtered_attributes: attributes(filtered),
    };
    let trace = "ab".repeat(16);
    let span = "cd".repeat(8);
    let ids = format!("span_id=\"{span}\",trace_id=\"{trace}\"");
    let fits = "é".repeat(64);
    let long = "v".repeat(65);
    let table: &[(&str, &[(&str, &str)], String)] = &[
        ("none", &[], ids.clone()),
        ("X1 X4", &[("k", &fits)], format!("k=\"{fits}\",{ids}")),
        ("X2", &[("k", &long)], ids.clone()),
        ("X3", &[("a", &fits), ("b", "c")], ids.clone()),
        ("ids win", &[("trace_id", "mine")], ids.clone()),
    ];
    for (name, filtered, want) in table {
        for version in [Version::V1, Version::V2] {
            let mut point = number(&[], 1.0, 0);
            point.exemplars = vec![exemplar(filtered)];
            let input = request(&[], vec![metric("c", "", counter(vec![point], 2))]);
            let want = format!("c_total{{}} 1 @0 # {{{want}}} 3 @5");
            assert_eq!(Rig::new(options(version)).text(&[input]), [want], "{name} {version:?}");
        }
    }
    // Gauges and sums that fall have none.
    let mut point = number(&[], 1.0, 0);
    point.exemplars = vec![exemplar(&[])];
    let input = request(&[], vec![metric("g", "", gauge(vec![point]))]);
    assert_eq!(Rig::new(options(Version::V1)).text(&[input]), ["g{} 1 @0"]);
}

#[test]
fn values_keep_their_bits() {
    let mut stale = number(&[("k", "stale")], 5.0, 0);
    stale.flags = 1;
    let mut empty_stale = number(&[("k", "empty")], 5.0, 0);
    (empty_stale.flags, empty_stale.value) = (1, None);
    let mut large = number(&[("k", "large")], 0.0, 0);
    large.value =
        Some(opentelemetry_proto::tonic::metrics::v1::number_data_point::Value::AsInt(9_007_199_254_740_993));
    let points = vec![
        number(&[("k", "nan")], f64::from_bits(0x7ff0_0000_0000_0002), 0),
        number(&[("k", "minus")], -0.0, 0),
        number(&[("k", "inf")], f64::INFINITY, 0),
        stale,
        empty_stale,
        large,
    ];
    let series = Rig::new(options(Version::V2)).series(&[request(&[], vec![metric("g", "", gauge(points))])]);
    let bits: Vec<u64> = series.iter().map(|s| s.samples[0].bits).collect();
    let want = [
        0x7ff8_0000_0000_0001,
        1 << 63,
        0x7ff0_0000_0000_0000,
        0x7ff0_0000_0000_0002,
        0x7ff0_0000_0000_0002,
        9_007_199_254_740_992f64.to_bits(),
    ];
    assert_eq!(bits, want);
}

#[test]
fn what_cannot_be_sent_is_dropped_with_a_reason() {
    let point = || number(&[], 1.0, 0);
    let with = |change: fn(&mut opentelemetry_proto::tonic::metrics::v1::NumberDataPoint)| {
        let mut point = point();
        change(&mut point);
        gauge(vec![point])
    };
    let table: Vec<(&str, Metric)> = vec![
        ("delta", metric("c", "", counter(vec![point()], 1))),
        ("temporality", metric("c", "", counter(vec![point()], 0))),
        ("name", metric("ようこそ", "", gauge(vec![point()]))),
        ("no_value", metric("g", "", with(|p| p.value = None))),
        ("timestamp", metric("g", "", with(|p| p.time_unix_nano = 0))),
        ("timestamp", metric("g", "", with(|p| p.time_unix_nano = u64::MAX))),
    ];
    for (reason, metric) in table {
        let mut rig = Rig::new(options(Version::V1));
        assert!(rig.text(&[request(&[], vec![metric])]).is_empty(), "{reason}");
        assert_eq!(rig.dropped, [(1, reason)]);
    }
}

#[test]
fn samples_of_a_series_ascend() {
    let at = |times: &[u64]| {
        let points = times.iter().map(|at| number(&[("a", "b")], *at as f64, *at)).collect();
        request(R2, vec![metric("g", "", gauge(points))])
    };
    let mut rig = Rig::new(options(Version::V1));
    let got = rig.text(&[at(&[10, 20]), at(&[20, 15, 30])]);
    let want =
        ["g{a=\"b\",job=\"api\"} 10 @10", "g{a=\"b\",job=\"api\"} 20 @20", "g{a=\"b\",job=\"api\"} 30 @30"];
    assert_eq!(got, want);
    assert_eq!(rig.dropped, [(1, "duplicate"), (1, "out_of_order")]);
    let mut keep = options(Version::V1);
    keep.out_of_order = OutOfOrder::Keep;
    let mut rig = Rig::new(keep);
    assert_eq!(rig.text(&[at(&[10, 20]), at(&[20, 15, 30])]).len(), 5);
}

#[test]
fn one_series_has_one_order_whatever_it_came_as() {
    let mut rig = Rig::new(options(Version::V1));
    let input = |list: &[(&str, &str)], resource: &[(&str, &str)], at| {
        request(resource, vec![metric("g", "", gauge(vec![number(list, 1.0, at)]))])
    };
    let all = [("service.name", "api")];
    let requests = [
        input(&[("a", "1"), ("b", "2")], &all, 10),
        input(&[("b", "2"), ("a", "1")], &all, 9),
        input(&[("b", "2"), ("a", "1")], &[("service.name", "api"), ("host", "other")], 10),
    ];
    assert_eq!(rig.text(&requests).len(), 1);
    assert_eq!(rig.dropped, [(1, "out_of_order"), (1, "duplicate")]);
}

#[test]
fn series_that_can_be_alike_share_a_shard() {
    let mut sharded = options(Version::V1);
    sharded.shards = 16;
    for n in 0..50 {
        let value = n.to_string();
        let mut rig = Rig::new(sharded.clone());
        let point = HistogramDataPoint {
            explicit_bounds: vec![1.0],
            bucket_counts: vec![1, 1],
            count: 2,
            time_unix_nano: NOW * 1_000_000,
            attributes: attributes(&[("k", &value)]),
            ..Default::default()
        };
        let data = Histogram { data_points: vec![point], aggregation_temporality: 2 };
        let metrics = vec![
            metric("x", "", Data::Histogram(data)),
            metric("x_count", "", gauge(vec![number(&[("k", &value)], 1.0, 0)])),
            metric("x_bucket", "", gauge(vec![number(&[("k", &value), ("le", "1")], 1.0, 0)])),
        ];
        let shards: Vec<usize> =
            rig.bodies(&[request(R2, metrics)]).iter().map(|(shard, _)| *shard).collect();
        assert_eq!(shards.len(), 1, "{shards:?}");
    }
}

#[test]
fn deltas_add_up_when_asked_to() {
    let mut accumulate = options(Version::V2);
    accumulate.delta = Some(crate::prometheus::delta::Limits {
        max_streams: 10,
        max_stale: std::time::Duration::from_secs(300),
    });
    let mut rig = Rig::new(accumulate);
    let point = |from: u64, to, value| {
        let mut point = number(&[], value, to);
        point.start_time_unix_nano = (NOW + from) * 1_000_000;
        point
    };
    let points = vec![point(0, 10, 5.0), point(10, 20, 3.0), point(30, 40, 2.0), point(5, 8, 1.0)];
    let bodies = rig.bodies(&[request(&[], vec![metric("c", "", counter(points, 1))])]);
    let lines: Vec<String> = bodies.iter().flat_map(|(_, b)| decode(b)).flat_map(|s| lines(&s)).collect();
    assert_eq!(lines, ["c_total{} 5 @10", "c_total{} 8 @20", "c_total{} 2 @40"]);
    assert_eq!(rig.dropped, [(1, "late")]);
    let h = |from: u64, to: u64, counts: [u64; 2]| HistogramDataPoint {
        explicit_bounds: vec![1.0],
        bucket_counts: counts.to_vec(),
        count: counts.iter().sum(),
        sum: Some(1.0),
        start_time_unix_nano: (NOW + from) * 1_000_000,
        time_unix_nano: (NOW + to) * 1_000_000,
        ..Default::default()
    };
    let data =
        Histogram { data_points: vec![h(0, 10, [1, 2]), h(10, 20, [3, 4])], aggregation_temporality: 1 };
    let got = rig.text(&[request(&[], vec![metric("h", "", Data::Histogram(data))])]);
    let last: Vec<&str> = got[4..].iter().map(String::as_str).collect();
    assert_eq!(
        last,
        ["h_sum{} 2 @20", "h_count{} 10 @20", "h_bucket{le=\"1\"} 4 @20", "h_bucket{le=\"+Inf\"} 10 @20"]
    );
}

#[test]
fn requests_are_closed_at_their_size_and_cut_without_loss() {
    for version in [Version::V1, Version::V2] {
        let mut small = options(version);
        small.max_bytes = 4096;
        let mut rig = Rig::new(small);
        let points = (0..500).map(|n| number(&[("n", &n.to_string())], f64::from(n), 0)).collect();
        let bodies = rig.bodies(&[request(R2, vec![metric("g", "", gauge(points))])]);
        assert!(bodies.len() > 3, "{version:?}");
        assert!(bodies.iter().all(|(_, b)| b.message().unwrap().len() <= 4096), "{version:?}");
        let whole: Vec<_> = bodies.iter().flat_map(|(_, b)| decode(b)).collect();
        let mut parts: std::collections::VecDeque<_> = bodies.into_iter().map(|(_, b)| b).collect();
        let mut singles = Vec::new();
        while let Some(body) = parts.pop_front() {
            match body.halve() {
                Ok([a, b]) => {
                    parts.push_front(b);
                    parts.push_front(a);
                }
                Err(one) => {
                    assert_eq!((one.items(), one.counts().samples), (1, 1));
                    singles.extend(decode(&one));
                }
            }
        }
        assert_eq!(whole, singles, "{version:?}");
        assert_eq!(whole.len(), 500);
    }
}

#[test]
fn what_was_not_delivered_may_come_again() {
    let mut waiting = options(Version::V1);
    waiting.senders_wait = true;
    let mut rig = Rig::new(waiting);
    let input = request(R2, vec![metric("g", "", gauge(vec![number(&[], 1.0, 10), number(&[], 2.0, 20)]))]);
    let bodies = rig.bodies(std::slice::from_ref(&input));
    drop(bodies);
    let bodies = rig.bodies(std::slice::from_ref(&input));
    assert_eq!(bodies[0].1.items(), 2);
    bodies[0].1.settle();
    drop(bodies);
    assert!(rig.bodies(&[input]).is_empty());
    assert_eq!(rig.dropped, [(1, "out_of_order"), (1, "duplicate")]);
}

#[test]
fn of_metrics_with_series_of_one_name_the_first_has_it() {
    let point = |at: u64| HistogramDataPoint {
        explicit_bounds: vec![1.0],
        bucket_counts: vec![1, 1],
        count: 2,
        sum: Some(3.0),
        time_unix_nano: (NOW + at) * 1_000_000,
        ..Default::default()
    };
    let both = |at| {
        let data = Histogram { data_points: vec![point(at)], aggregation_temporality: 2 };
        let gauge = metric("x.count", "", gauge(vec![number(&[], 7.0, at)]));
        request(R2, vec![metric("x", "", Data::Histogram(data)), gauge])
    };
    for version in [Version::V1, Version::V2] {
        let mut rig = Rig::new(options(version));
        // It shows when the second comes.
        assert_eq!(rig.text(&[both(0)]).len(), 5);
        for at in [10, 20] {
            let got = rig.text(&[both(at)]);
            let counts: Vec<&String> = got.iter().filter(|l| l.starts_with("x_count")).collect();
            assert_eq!(
                (got.len(), counts),
                (4, vec![&format!("x_count{{job=\"api\"}} 2 @{at}")]),
                "{version:?}"
            );
            assert_eq!(rig.dropped, [(1, "collision")]);
            rig.dropped.clear();
        }
    }
}

#[test]
fn old_samples_are_dropped_where_asked() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    let of_today = |ago: u64| {
        let mut point = number(&[("ago", &ago.to_string())], 1.0, 0);
        point.time_unix_nano = (now - ago) * 1_000_000;
        point
    };
    let input = request(R2, vec![metric("g", "", gauge(vec![of_today(7_200_000), of_today(60_000)]))]);
    assert_eq!(Rig::new(options(Version::V1)).text(std::slice::from_ref(&input)).len(), 2);
    let mut aged = options(Version::V1);
    aged.sample_age_limit = std::time::Duration::from_secs(3600);
    let mut rig = Rig::new(aged);
    let got = rig.text(&[input]);
    assert!(matches!(&got[..], [one] if one.contains("ago=\"60000\"")), "{got:?}");
    assert_eq!(rig.dropped, [(1, "too_old")]);
}
