//! What is told against what is sent.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::exporters::prometheus_remote_write::{self, RemoteWriteConfig};
use crate::pdata::count;
use crate::pdata::json::{Limits, decode};
use crate::pdata::testgen::arb_metrics;
use crate::prometheus::delta::Limits as DeltaLimits;
use crate::prometheus::remote::{Exponential, Negotiation};

fn options() -> RemoteOptions {
    prometheus_remote_write::options(&RemoteWriteConfig::default())
}

fn tell(options: &RemoteOptions, json: &str) -> Told {
    let mut teller = Teller::new(options);
    teller.read(&decode(Signal::Metrics, json.as_bytes(), Limits::default()).unwrap()).unwrap();
    teller.finish()
}

/// Keys and values.
type Pairs<'a> = &'a [(&'a str, &'a str)];

/// A request of gauges with one point each: resource attributes, then metrics as name and point attributes.
fn gauges(groups: &[(Pairs<'_>, &[(&str, Pairs<'_>)])]) -> String {
    let attributes = |list: Pairs<'_>| -> serde_json::Value {
        list.iter().map(|(k, v)| serde_json::json!({"key": k, "value": {"stringValue": v}})).collect()
    };
    let groups: Vec<_> = groups
        .iter()
        .map(|(resource, metrics)| {
            let metrics: Vec<_> = metrics
                .iter()
                .map(|(name, point)| {
                    let point = serde_json::json!(
                        {"timeUnixNano": "1700000000000000000", "asInt": 1, "attributes": attributes(point)}
                    );
                    serde_json::json!({"name": name, "gauge": {"dataPoints": [point]}})
                })
                .collect();
            serde_json::json!({
                "resource": {"attributes": attributes(resource)}, "scopeMetrics": [{"metrics": metrics}],
            })
        })
        .collect();
    serde_json::json!({ "resourceMetrics": groups }).to_string()
}

fn collisions(told: &Told) -> Vec<(&'static str, &str, &str)> {
    told.collisions.iter().map(|c| (c.kind, c.name.as_str(), c.why.as_str())).collect()
}

/// How often each series is sent, and how many points are dropped for each reason.
type Summary = (BTreeMap<Labels, usize>, BTreeSet<Labels>, BTreeMap<&'static str, usize>);

/// The same in one go: what the exporter would send for the request.
fn at_once(options: &RemoteOptions, request: &[u8]) -> Summary {
    let mut encoder = RemoteEncoder::new(options.clone());
    let batch = Batch {
        signal: Signal::Metrics,
        rope: Rope::from(request.to_vec()),
        items: count(Signal::Metrics, request).unwrap(),
        client: Arc::default(),
        tenant: None,
        demoted: false,
        received: Instant::now(),
        leases: SmallVec::new(),
        acks: Acks::none(),
    };
    let mut report = Report::new(options.shards);
    encoder.encode(&batch, &mut report.output());
    let mut summary = Summary::default();
    let target = options.map.namer.target_info();
    let rest: Vec<WriteBody> = (0..options.shards).filter_map(|shard| encoder.close(shard)).collect();
    for body in report.closed().iter().map(|closed| &closed.body).chain(&rest) {
        for sample in decode::samples(body).unwrap().0 {
            if sample.labels.iter().any(|(name, value)| name == "__name__" && *value == target) {
                summary.1.insert(sample.labels);
            } else {
                *summary.0.entry(sample.labels).or_default() += 1;
            }
        }
    }
    for (items, reason) in report.dropped() {
        *summary.2.entry(*reason).or_default() += items;
    }
    summary
}

fn told(options: &RemoteOptions, request: &[u8]) -> Summary {
    let mut teller = Teller::new(options);
    teller.read(request).unwrap();
    let told = teller.finish();
    let mut summary = Summary::default();
    summary.1.extend(told.targets.iter().cloned());
    for metric in &told.metrics {
        for sent in &metric.sent {
            *summary.0.entry(told.series[sent.series].labels.clone()).or_default() += sent.samples;
        }
        for (reason, points) in &metric.dropped {
            *summary.2.entry(reason).or_default() += points;
        }
    }
    summary
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// One point at a time gives what the exporter sends of the request as a whole.
    #[test]
    fn what_is_told_is_what_is_sent(
        request in arb_metrics(), newer in any::<bool>(), classic in any::<bool>(), sum_up in any::<bool>(),
    ) {
        let mut options = options();
        options.negotiation = Arc::new(Negotiation::new(if newer { Version::V2 } else { Version::V1 }));
        options.exponential = if classic { Exponential::Classic } else { Exponential::Native };
        options.custom_buckets = newer;
        options.keep_classic = classic;
        options.delta = sum_up.then_some(DeltaLimits { max_streams: 1000, max_stale: Duration::from_secs(60) });
        let request = ExportMetricsServiceRequest::encode_to_vec(&request);
        prop_assert_eq!(told(&options, &request), at_once(&options, &request));
    }
}

/// The same for metrics that meet in every way.
#[test]
fn what_is_told_of_examples_is_what_is_sent() {
    for json in [
        include_str!("../../../docs/examples/names.json"),
        include_str!("../../../tests/names/collisions.json"),
    ] {
        let request = decode(Signal::Metrics, json.as_bytes(), Limits::default()).unwrap();
        let told = told(&options(), &request);
        assert!(told.0.len() >= 7 && !told.1.is_empty() && !told.2.is_empty());
        assert_eq!(told, at_once(&options(), &request));
    }
}

#[test]
fn metrics_of_one_name_are_told() {
    let json =
        gauges(&[(&[], &[("queue.size", &[("a", "1")]), ("queue_size", &[("a", "1")]), ("other", &[])])]);
    let told = tell(&options(), &json);
    let want = [
        ("family", "queue_size", "2 metrics have one name"),
        ("series", "queue_size{a=\"1\"}", "2 metrics make it"),
    ];
    assert_eq!(collisions(&told), want);
    assert_eq!(told.collisions[0].metrics, ["queue.size (gauge)", "queue_size (gauge)"]);
    // Of two points of one series and time the second is not sent.
    assert_eq!(told.metrics[1].dropped, BTreeMap::from([("duplicate", 1)]));
}

#[test]
fn resources_that_are_alike_are_told() {
    let (a, b) =
        ([("service.name", "api"), ("host.name", "a")], [("service.name", "api"), ("host.name", "b")]);
    let told = tell(&options(), &gauges(&[(&a, &[("up", &[])]), (&b, &[("up", &[])])]));
    let advice = "2 resources make it, which differ in host.name: give each a service.instance.id of its own";
    let join = "2 resources have this identity, so that a join with it fails";
    let want = [("series", "up{job=\"api\"}", advice), ("target_info", "target_info{job=\"api\"}", join)];
    assert_eq!(collisions(&told), want);
    // With an instance each nothing is wrong.
    let instance = |i| [("service.name", "api"), ("host.name", i), ("service.instance.id", i)];
    let told =
        tell(&options(), &gauges(&[(&instance("a"), &[("up", &[])]), (&instance("b"), &[("up", &[])])]));
    assert_eq!(collisions(&told), []);
}

#[test]
fn attributes_without_a_label_of_their_own_are_told() {
    let point =
        [("a.b", "1"), ("a_b", "2"), ("__x", "3"), ("job", "mine"), ("ok", "4"), ("...", "5"), ("empty", "")];
    let told = tell(&options(), &gauges(&[(&[("service.name", "api")], &[("m", &point)])]));
    assert_eq!(collisions(&told), [("label", "a_b", "attributes a.b, a_b of metric m are joined")]);
    let notes: Vec<_> = told.notes.iter().map(|n| (n.fate, n.keys.join(","), n.label.as_str())).collect();
    let want = [
        (LabelFate::Hidden, "job".to_owned(), "job"),
        (LabelFate::Left, "...".to_owned(), ""),
        (LabelFate::Left, "__x".to_owned(), "__x"),
    ];
    assert_eq!(notes, want);
    // Points that only differ in what is no label are one series.
    let json = gauges(&[(&[], &[("m", &[("__x", "1")]), ("m", &[("__x", "2")])])]);
    let want = [("series", "m", "points make it that differ in __x")];
    assert_eq!(collisions(&tell(&options(), &json)), want);
}

#[test]
fn series_names_that_meet_are_told() {
    let json = r#"{"resourceMetrics": [{
        "resource": {"attributes": [
            {"key": "service.name", "value": {"stringValue": "a"}}, {"key": "z", "value": {"stringValue": "z"}}
        ]},
        "scopeMetrics": [{"metrics": [
            {"name": "x", "histogram": {"aggregationTemporality": 2, "dataPoints": [{"timeUnixNano": 1000000, "count": 1}]}},
            {"name": "x.count", "gauge": {"dataPoints": [{"timeUnixNano": 1000000, "asInt": 1}]}},
            {"name": "y", "gauge": {"dataPoints": [{"timeUnixNano": 1000000, "asInt": 1}]}},
            {"name": "y", "summary": {"dataPoints": [{"timeUnixNano": 1000000, "count": 1}]}},
            {"name": "target.info", "gauge": {"dataPoints": [{"timeUnixNano": 1000000, "asInt": 1}]}}
        ]}]
    }]}"#;
    let told = tell(&options(), json);
    let want = [
        ("type", "y", "one name of several types: gauge, summary"),
        ("name", "target_info", "the series that describes resources has this name"),
        ("name", "x_count", "series of x and x_count have one name"),
        ("series", "x_count{job=\"a\"}", "2 metrics make it"),
    ];
    assert_eq!(collisions(&told), want);
}

#[test]
fn metrics_that_are_left_out_collide_with_nothing() {
    let json = r#"{"resourceMetrics": [{"scopeMetrics": [{"metrics": [
        {"name": "x", "sum": {"aggregationTemporality": 2, "dataPoints": [{"timeUnixNano": 1000000, "asInt": 1}]}},
        {"name": "x", "sum": {"aggregationTemporality": 1, "dataPoints": [{"timeUnixNano": 1000000, "asInt": 1}]}},
        {"name": "x"},
        {"name": "よ", "gauge": {"dataPoints": [{"timeUnixNano": 1000000, "asInt": 1}]}}
    ]}]}]}"#;
    let told = tell(&options(), json);
    assert_eq!(collisions(&told), []);
    assert_eq!(told.metrics[2].family, Err("no_data"));
    assert_eq!(told.metrics[3].dropped, BTreeMap::from([("name", 1)]));
}

#[test]
fn histograms_read_as_prometheus_shows_them() {
    let mut options = options();
    options.negotiation = Arc::new(Negotiation::new(Version::V2));
    options.custom_buckets = true;
    let json = r#"{"resourceMetrics": [{"scopeMetrics": [{"metrics": [
        {"name": "a", "exponentialHistogram": {"aggregationTemporality": 2, "dataPoints": [{
            "timeUnixNano": 1000000, "count": 10, "sum": -1.5, "scale": 1, "zeroCount": 1, "zeroThreshold": 0.25,
            "positive": {"offset": -1, "bucketCounts": [2, 0, 3]},
            "negative": {"offset": 1, "bucketCounts": [1, 3]}
        }]}},
        {"name": "b", "histogram": {"aggregationTemporality": 2, "dataPoints": [{
            "timeUnixNano": 1000000, "count": 6, "sum": 7, "explicitBounds": [0.5, 1], "bucketCounts": [1, 2, 3]
        }]}},
        {"name": "c", "exponentialHistogram": {"aggregationTemporality": 2, "dataPoints": [
            {"timeUnixNano": 1000000, "flags": 1}
        ]}}
    ]}]}]}"#;
    let told = tell(&options, json);
    let values: Vec<&str> = told.metrics.iter().map(|m| m.sent[0].value.as_str()).collect();
    let root = std::f64::consts::SQRT_2;
    let want = [
        &format!(
            "{{count:10, sum:-1.5, [-{},-2):3, [-2,-{root}):1, [-0.25,0.25]:1, ({},1]:2, ({root},2]:3}}",
            1.5_f64.exp2(),
            (-0.5_f64).exp2(),
        ),
        "{count:6, sum:7, [-Inf,0.5]:1, (0.5,1]:2, (1,+Inf]:3}",
        "(stale)",
    ];
    assert_eq!(values, want);
}

#[test]
fn series_are_quoted_as_in_queries() {
    let labels = |list: &[(&str, &str)]| -> String {
        let list: Labels = list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        print::series(&list)
    };
    for (list, want) in [
        (&[("__name__", "a:b")][..], "a:b"),
        (&[("__name__", "a"), ("b", "x\"\\\n")], "a{b=\"x\\\"\\\\\\n\"}"),
        (&[("__name__", "a.b")], "{\"a.b\"}"),
        (&[("__name__", "a.b"), ("c.d", "e")], "{\"a.b\",\"c.d\"=\"e\"}"),
        (&[("b", "1")], "{b=\"1\"}"),
    ] {
        assert_eq!(labels(list), want);
    }
}
