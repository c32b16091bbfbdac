//! Tenants that send the very same series: nobody's times, sums or metrics have a say in another's.

use std::time::Duration;

use opentelemetry_proto::tonic::metrics::v1::{Gauge, Histogram, HistogramDataPoint, Sum};

use super::rig::*;

use crate::exporters::delivery::sharded::{Report, ShardEncoder};
use crate::pdata::{Batch, Tenant};
use crate::prometheus::delta::Limits;
use crate::prometheus::remote::{RemoteEncoder, RemoteOptions, Version, WriteBody};
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use prost::Message;

const NAMES: [Option<&str>; 3] = [Some("a"), Some("b"), None];
const RESOURCE: [(&str, &str); 2] = [("service.name", "api"), ("cloud.region", "eu")];

/// Encodes metrics of a tenant: what would be sent, and what was dropped.
fn send(
    encoder: &mut RemoteEncoder,
    tenant: Option<&str>,
    metrics: Vec<Metric>,
) -> (Vec<WriteBody>, Vec<(usize, &'static str)>) {
    let tenant = tenant.map(Tenant::new);
    let batch = Batch { tenant, ..batch(request(&RESOURCE, metrics).encode_to_vec()) };
    let mut report = Report::new(encoder.shards());
    encoder.encode(&batch, &mut report.output());
    let mut bodies: Vec<WriteBody> = report.take_closed().into_iter().map(|closed| closed.body).collect();
    bodies.extend((0..encoder.shards()).filter_map(|shard| encoder.close(shard)));
    (bodies, report.dropped().to_vec())
}

/// The same as text, where everything must be sent.
fn text(encoder: &mut RemoteEncoder, tenant: Option<&str>, metrics: Vec<Metric>) -> Vec<String> {
    let (bodies, dropped) = send(encoder, tenant, metrics);
    assert_eq!(dropped, [], "of {tenant:?}");
    bodies.iter().flat_map(decode).flat_map(|series| lines(&series)).collect()
}

fn gauge(value: f64, at: u64) -> Metric {
    let data_points = vec![number(&[("x", "1")], value, at)];
    metric("g", "", Data::Gauge(Gauge { data_points }))
}

fn delta(value: f64, at: u64) -> Metric {
    let mut point = number(&[("x", "1")], value, at);
    point.start_time_unix_nano = point.time_unix_nano - 1_000_000_000;
    let sum = Sum { data_points: vec![point], aggregation_temporality: 1, is_monotonic: true };
    metric("s", "", Data::Sum(sum))
}

fn delta_histogram(count: u64, at: u64) -> Metric {
    let point = HistogramDataPoint {
        time_unix_nano: (NOW + at) * 1_000_000,
        start_time_unix_nano: (NOW + at - 1000) * 1_000_000,
        count,
        sum: Some(count as f64),
        bucket_counts: vec![count, 0],
        explicit_bounds: vec![1.0],
        ..Default::default()
    };
    metric("h", "", Data::Histogram(Histogram { data_points: vec![point], aggregation_temporality: 1 }))
}

fn accumulating(version: Version) -> RemoteOptions {
    let mut options = options(version);
    options.delta = Some(Limits { max_streams: 100, max_stale: Duration::from_secs(300) });
    options
}

#[test]
fn the_same_series_at_any_times_is_nobodys_repetition() {
    for version in [Version::V1, Version::V2] {
        let mut encoder = RemoteEncoder::new(options(version));
        // Later, earlier and at the same time as another's; each tenant's own ascend.
        let times = [[50, 10, 10], [60, 20, 60], [70, 70, 70], [80, 71, 71]];
        for (round, times) in times.into_iter().enumerate() {
            for (tenant, at) in NAMES.into_iter().zip(times) {
                let value = round as f64;
                let want = format!("g{{job=\"api\",x=\"1\"}} {value} @{at}");
                assert_eq!(text(&mut encoder, tenant, vec![gauge(value, at)]), [want], "{tenant:?} {round}");
            }
        }
        // Each tenant's own repetitions are still dropped.
        for tenant in NAMES {
            assert_eq!(send(&mut encoder, tenant, vec![gauge(9.0, 70)]).1.len(), 1, "{tenant:?}");
        }
        // What is known of a tenant is found again.
        let before = encoder.cache();
        text(&mut encoder, Some("a"), vec![gauge(1.0, 100)]);
        assert_eq!((encoder.cache().hits, encoder.cache().misses), (before.hits + 1, before.misses));
    }
}

#[test]
fn sums_are_each_tenants_own() {
    let mut encoder = RemoteEncoder::new(accumulating(Version::V1));
    let mut totals = [0.0; 3];
    for round in 1..=5u64 {
        for (i, tenant) in NAMES.into_iter().enumerate() {
            let step = (i + 1) as f64 * 10f64.powi(i as i32);
            totals[i] += step;
            let sent = text(&mut encoder, tenant, vec![delta(step, round * 1000)]);
            let want = format!("s_total{{job=\"api\",x=\"1\"}} {} @{}", totals[i], round * 1000);
            assert_eq!(sent, [want], "{tenant:?} {round}");
            let counts = text(&mut encoder, tenant, vec![delta_histogram(i as u64 + 1, round * 1000)]);
            let want = format!("h_count{{job=\"api\"}} {} @{}", (i as u64 + 1) * round, round * 1000);
            assert!(counts.contains(&want), "{want} in {counts:?}");
        }
    }
}

#[test]
fn each_tenant_gets_target_info_and_metadata() {
    let mut options = options(Version::V1);
    options.map.target_info = true;
    options.metadata = true;
    let mut encoder = RemoteEncoder::new(options);
    for tenant in NAMES {
        let (bodies, _) = send(&mut encoder, tenant, vec![gauge(1.0, 0)]);
        let all: Vec<_> = bodies.iter().flat_map(decode).flat_map(|series| lines(&series)).collect();
        assert!(all.iter().any(|line| line.starts_with("target_info")), "{tenant:?}: {all:?}");
        let told = |body: &&WriteBody| decode(body).is_empty();
        // What is nobody's is told with the next tick.
        assert_eq!(bodies.iter().filter(told).count(), usize::from(tenant.is_some()), "{tenant:?}");
    }
    let mut report = Report::new(1);
    encoder.tick(&mut report.output());
    assert_eq!(report.closed().len(), 1);
    // Nobody is told twice.
    for tenant in NAMES {
        assert_eq!(send(&mut encoder, tenant, vec![gauge(1.0, 1)]).0.len(), 1);
    }
}

#[test]
fn descriptions_and_forms_of_others_change_nothing() {
    // One name, two kinds and two descriptions: told apart within a tenant, of no concern to another.
    let other = |at: u64| {
        let data_points = vec![number(&[("x", "1")], 5.0, at)];
        let sum = Sum { data_points, aggregation_temporality: 2, is_monotonic: false };
        Metric { description: "other".into(), ..metric("g", "", Data::Sum(sum)) }
    };
    let mut encoder = RemoteEncoder::new(options(Version::V2));
    for round in 0..5 {
        let sent = text(&mut encoder, Some("a"), vec![gauge(1.0, round)]);
        assert_eq!(sent, [format!("g{{job=\"api\",x=\"1\"}} 1 @{round}")]);
        let sent = text(&mut encoder, Some("b"), vec![other(round)]);
        assert_eq!(sent, [format!("g{{job=\"api\",x=\"1\"}} 5 @{round}")]);
    }
}
