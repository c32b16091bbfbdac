//! What hostile requests can make of memory, of other series and of other senders.

use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, Gauge, Histogram, HistogramDataPoint, Metric, Sum, exemplar,
};
use prost::Message;

use super::rig::*;
use crate::exporters::delivery::sharded::{Report, ShardBody, ShardEncoder};
use crate::pdata::{Batch, ClientInfo};
use crate::prometheus::remote::Version;

fn gauge(name: &str, points: Vec<opentelemetry_proto::tonic::metrics::v1::NumberDataPoint>) -> Metric {
    metric(name, "", Data::Gauge(Gauge { data_points: points }))
}

/// Metrics with a histogram of these bounds, all counts one.
fn histogram(name: &str, bounds: Vec<f64>) -> Metric {
    let bucket_counts = vec![1; bounds.len() + 1];
    let point = HistogramDataPoint {
        time_unix_nano: NOW * 1_000_000,
        count: bucket_counts.len() as u64,
        bucket_counts,
        explicit_bounds: bounds,
        ..Default::default()
    };
    metric(name, "", Data::Histogram(Histogram { data_points: vec![point], aggregation_temporality: 2 }))
}

#[test]
fn a_batch_does_not_fill_the_cache_beyond_its_cap() {
    for version in [Version::V1, Version::V2] {
        let mut options = options(version);
        options.map.scope_labels = true;
        options.cache_bytes = 2 << 20;
        let mut rig = Rig::new(options);
        // Each point's block repeats what stands once in the request.
        let points = (0..4000).map(|n| number(&[("n", &n.to_string())], 1.0, 0)).collect();
        let mut request = request(&[("service.name", "a")], vec![gauge("g", points)]);
        let scope = request.resource_metrics[0].scope_metrics[0].scope.as_mut().unwrap();
        scope.attributes = attributes(&[("large", &"x".repeat(8000))]);
        assert_eq!(rig.series(std::slice::from_ref(&request)).len(), 4000);
        assert!(rig.encoder.cache().bytes < 6 << 20, "{version:?} {:?}", rig.encoder.cache());
    }
}

#[test]
fn families_and_their_bounds_are_bounded() {
    for version in [Version::V1, Version::V2] {
        let mut options = options(version);
        options.cache_bytes = 4 << 20;
        let mut rig = Rig::new(options);
        for round in 0..40 {
            let metrics = (0..100).map(|n| gauge(&format!("g{n}.{round}"), vec![number(&[], 1.0, 0)]));
            // Their text is longer than they are.
            let bounds = (0..1000).map(|n| 1e300 * f64::from(n + round));
            let mut metrics: Vec<Metric> = metrics.collect();
            metrics.push(histogram(&format!("h{round}"), bounds.collect()));
            rig.series(&[request(&[("service.name", "a")], metrics)]);
        }
        assert!(rig.encoder.cache().bytes < 8 << 20, "{version:?} {:?}", rig.encoder.cache());
    }
}

#[test]
fn points_that_no_receiver_takes_are_dropped() {
    let mut rig = Rig::new(options(Version::V1));
    let many = histogram("h", (0..70_000).map(f64::from).collect());
    assert!(rig.series(&[request(&[], vec![many])]).is_empty());
    let mut wide = histogram("h", (0..6000).map(f64::from).collect());
    let Some(Data::Histogram(data)) = &mut wide.data else { panic!() };
    data.data_points[0].attributes = attributes(&[("large", &"x".repeat(10_000))]);
    assert!(rig.series(&[request(&[], vec![wide])]).is_empty());
    assert_eq!(rig.dropped, [(1, "too_large"), (1, "too_large")]);
}

#[test]
fn a_request_is_not_expanded_without_end() {
    let mut options = options(Version::V2);
    options.map.scope_labels = true;
    let mut rig = Rig::new(options);
    let points = (0..600).map(|n| number(&[("n", &n.to_string())], 1.0, 0)).collect();
    let mut request = request(&[], vec![gauge("g", points)]);
    let scope = request.resource_metrics[0].scope_metrics[0].scope.as_mut().unwrap();
    scope.attributes = attributes(&[("large", &"x".repeat(100_000))]);
    let body = rig.bodies(&[request]).pop().unwrap().1;
    assert!(body.wire().len() < 200_000);
    assert!(body.to_v1(32 << 20).unwrap().is_none());
    let [first, second] = body.halve().unwrap();
    for half in [first, second] {
        assert_eq!(half.items(), 300);
        assert!(half.to_v1(32 << 20).unwrap().is_some());
    }
}

#[test]
fn a_sample_from_the_future_does_not_silence_its_series() {
    let mut rig = Rig::new(options(Version::V1));
    let at = |time: u64| {
        let mut point = number(&[], 1.0, 0);
        point.time_unix_nano = time * 1_000_000;
        request(&[("service.name", "a")], vec![gauge("g", vec![point])])
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    assert_eq!(rig.series(&[at(now + 86_400_000)]).len(), 1);
    assert_eq!(rig.series(&[at(now)]).len(), 1);
    assert_eq!(rig.series(&[at(now + 1)]).len(), 1);
    assert_eq!(rig.series(&[at(now)]).len(), 0);
}

#[test]
fn exemplars_ascend_in_time() {
    let given = |value: f64, at: u64| Exemplar {
        time_unix_nano: (NOW + at) * 1_000_000,
        value: Some(exemplar::Value::AsDouble(value)),
        ..Default::default()
    };
    let exemplars = vec![given(1.0, 30), given(2.0, 20), given(3.0, 10)];
    let mut point = number(&[], 1.0, 40);
    point.exemplars = exemplars.clone();
    let sum = Sum { data_points: vec![point], aggregation_temporality: 2, is_monotonic: true };
    let mut buckets = histogram("h", vec![2.5]);
    let Some(Data::Histogram(data)) = &mut buckets.data else { panic!() };
    data.data_points[0].exemplars = exemplars;
    let text =
        Rig::new(options(Version::V2)).text(&[request(&[], vec![metric("c", "", Data::Sum(sum)), buckets])]);
    let want = [
        "c_total{} 1 @40 # {} 3 @10 # {} 2 @20 # {} 1 @30",
        "h_count{} 2 @0",
        "h_bucket{le=\"2.5\"} 1 @0 # {} 2 @20 # {} 1 @30",
        "h_bucket{le=\"+Inf\"} 2 @0 # {} 3 @10",
    ];
    assert_eq!(text, want);
}

#[test]
fn exemplars_find_their_buckets_beside_the_native_form_too() {
    let given = |value: f64, at: u64| Exemplar {
        time_unix_nano: (NOW + at) * 1_000_000,
        value: Some(exemplar::Value::AsDouble(value)),
        ..Default::default()
    };
    let mut both = histogram("h", vec![2.5]);
    let Some(Data::Histogram(data)) = &mut both.data else { panic!() };
    data.data_points[0].sum = Some(4.0);
    data.data_points[0].exemplars = vec![given(1.0, 30), given(3.0, 10)];
    let mut options = options(Version::V2);
    (options.custom_buckets, options.keep_classic) = (true, true);
    let text = Rig::new(options).text(&[request(&[], vec![both])]);
    assert_eq!(
        text[text.len() - 2..],
        ["h_bucket{le=\"2.5\"} 1 @0 # {} 1 @30", "h_bucket{le=\"+Inf\"} 2 @0 # {} 3 @10"]
    );
}

#[test]
fn points_behind_what_cannot_be_read_are_nobodys() {
    let mut rig = Rig::new(options(Version::V1));
    let good = request(&[], vec![gauge("g", vec![number(&[("a", "1")], 1.0, 0)])]).encode_to_vec();
    // A point whose time is no fixed64.
    let bad = b"\x0a\x0d\x12\x0b\x12\x09\x0a\x01h\x2a\x04\x0a\x02\x18\x01";
    let mut report = Report::new(1);
    let broken = Batch { items: 3, ..batch([&good[..], bad, &good[..]].concat()) };
    rig.encoder.encode(&broken, &mut report.output());
    assert_eq!((report.open(), report.closed().len(), report.dropped()), (&[1][..], 0, &[][..]));
    let body = rig.encoder.close(0).unwrap();
    assert_eq!((body.items(), decode(&body).len()), (1, 1));
}

#[test]
fn tenants_are_told_of_their_own_metrics() {
    let mut options = options(Version::V1);
    options.metadata = true;
    options.partition_keys = vec!["x-scope-orgid".to_owned()];
    options.map.target_info = true;
    let mut rig = Rig::new(options);
    let mut told = |tenant: &str, name: &str| -> Vec<usize> {
        let resource = &[("service.name", "api"), ("cloud.region", "eu")];
        let bytes = request(resource, vec![gauge(name, vec![number(&[], 1.0, 0)])]).encode_to_vec();
        let metadata = vec![("x-scope-orgid".to_owned(), [tenant.to_owned()].into())];
        let client = ClientInfo { metadata, ..ClientInfo::default() };
        let batch = Batch { client: client.into(), ..batch(bytes) };
        let mut report = Report::new(1);
        rig.encoder.encode(&batch, &mut report.output());
        let extra = report.take_closed().into_iter().filter(|closed| closed.items.is_none());
        let told = extra.map(|closed| closed.body.message().unwrap().len()).collect();
        let mut report = Report::new(1);
        rig.encoder.tick(&mut report.output());
        assert!(report.closed().is_empty());
        rig.encoder.close(0);
        told
    };
    assert_eq!(told("a", "m").len(), 1);
    assert_eq!(told("a", "m").len(), 0);
    assert_eq!(told("b", "m").len(), 1);
    assert_eq!(told("a", "n").len(), 1);
}
