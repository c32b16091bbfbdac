//! Pages as a protobuf library reads them.

use proptest::prelude::*;
use prost::Message;

use super::super::{PART, strict};
use crate::exporters::prometheus::negotiate::{Escaping, Format, Media};
use crate::exporters::prometheus::tests::{Rig, TEXT, attr, bytes, gauge, page, sum};
use crate::pdata::testgen::arb_metrics;

const PROTO: Format = Format { media: Media::Protobuf, escaping: Escaping::Underscores };

#[derive(Clone, PartialEq, Message)]
struct Family {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    help: Option<String>,
    #[prost(int32, optional, tag = "3")]
    kind: Option<i32>,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<Metric>,
    #[prost(string, optional, tag = "5")]
    unit: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    value: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Metric {
    #[prost(message, repeated, tag = "1")]
    label: Vec<Label>,
    #[prost(message, optional, tag = "2")]
    gauge: Option<Number>,
    #[prost(message, optional, tag = "3")]
    counter: Option<Number>,
    #[prost(message, optional, tag = "4")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "5")]
    untyped: Option<Number>,
    #[prost(int64, optional, tag = "6")]
    timestamp_ms: Option<i64>,
    #[prost(message, optional, tag = "7")]
    histogram: Option<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
struct Number {
    #[prost(double, optional, tag = "1")]
    value: Option<f64>,
    #[prost(message, optional, tag = "2")]
    exemplar: Option<Exemplar>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(uint64, optional, tag = "1")]
    sample_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    sample_sum: Option<f64>,
    #[prost(message, repeated, tag = "3")]
    quantile: Vec<Quantile>,
}

#[derive(Clone, PartialEq, Message)]
struct Quantile {
    #[prost(double, optional, tag = "1")]
    quantile: Option<f64>,
    #[prost(double, optional, tag = "2")]
    value: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
struct Histogram {
    #[prost(uint64, optional, tag = "1")]
    sample_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    sample_sum: Option<f64>,
    #[prost(message, repeated, tag = "3")]
    bucket: Vec<Bucket>,
    #[prost(sint32, optional, tag = "5")]
    schema: Option<i32>,
    #[prost(double, optional, tag = "6")]
    zero_threshold: Option<f64>,
    #[prost(uint64, optional, tag = "7")]
    zero_count: Option<u64>,
    #[prost(message, repeated, tag = "9")]
    negative_span: Vec<Span>,
    #[prost(sint64, repeated, packed = "false", tag = "10")]
    negative_delta: Vec<i64>,
    #[prost(message, repeated, tag = "12")]
    positive_span: Vec<Span>,
    #[prost(sint64, repeated, packed = "false", tag = "13")]
    positive_delta: Vec<i64>,
    #[prost(message, repeated, tag = "16")]
    exemplars: Vec<Exemplar>,
}

#[derive(Clone, PartialEq, Message)]
struct Bucket {
    #[prost(uint64, optional, tag = "1")]
    cumulative_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    upper_bound: Option<f64>,
    #[prost(message, optional, tag = "3")]
    exemplar: Option<Exemplar>,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(sint32, optional, tag = "1")]
    offset: Option<i32>,
    #[prost(uint32, optional, tag = "2")]
    length: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct Exemplar {
    #[prost(message, repeated, tag = "1")]
    label: Vec<Label>,
    #[prost(double, optional, tag = "2")]
    value: Option<f64>,
    #[prost(message, optional, tag = "3")]
    timestamp: Option<Time>,
}

#[derive(Clone, PartialEq, Message)]
struct Time {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

fn families(rig: &Rig, format: Format, timestamps: bool) -> Vec<Family> {
    let bytes = bytes(&rig.0, format, timestamps, 0);
    let mut rest = &bytes[..];
    let mut out = Vec::new();
    while !rest.is_empty() {
        out.push(Family::decode_length_delimited(&mut rest).unwrap());
    }
    out
}

fn label(name: &str, value: &str) -> Label {
    Label { name: Some(name.into()), value: Some(value.into()) }
}

fn number(value: f64) -> Option<Number> {
    Some(Number { value: Some(value), exemplar: None })
}

#[test]
fn numbers_and_what_describes_them() {
    let rig = Rig::new("");
    let described =
        gauge("a", &attr("x", r#"\"1\"\\"#), 1, 2.0).replacen('{', r#"{"unit":"s","description":"what","#, 1);
    rig.store(&[described, sum("b", 2, (0, 2), 7)].join(","), 0);
    let labels = vec![label("x", "\"1\"\\")];
    let a = Metric { label: labels, gauge: number(2.0), timestamp_ms: Some(1000), ..Metric::default() };
    let b = Metric { counter: number(7.0), timestamp_ms: Some(2000), ..Metric::default() };
    let want = [
        Family {
            name: Some("a_seconds".into()),
            help: Some("what".into()),
            kind: Some(1),
            metric: vec![a],
            unit: Some("seconds".into()),
        },
        Family { name: Some("b_total".into()), kind: Some(0), metric: vec![b], ..Family::default() },
    ];
    assert_eq!(families(&rig, PROTO, true), want);
}

fn point(name: &str, kind: &str, point: &str) -> String {
    format!(
        r#"{{"name":"{name}","{kind}":{{"aggregationTemporality":2,"dataPoints":[{{"timeUnixNano":"1",{point}}}]}}}}"#
    )
}

#[test]
fn exponential_histograms_are_native() {
    let rig = Rig::new("enable_open_metrics: true");
    let exemplar = r#""exemplars":[{"timeUnixNano":"1400000000","asInt":"3","spanId":"eee19b7ec3c1b174"}]"#;
    let fine = format!(
        r#""count":"7","sum":9,"scale":1,"zeroCount":"1","zeroThreshold":0.5,"positive":{{"offset":2,"bucketCounts":["2","1"]}},"negative":{{"offset":0,"bucketCounts":["3"]}},{exemplar}"#
    );
    rig.store(&point("e", "exponentialHistogram", &fine), 0);
    // Too coarse to be native.
    let coarse = r#""count":"2","sum":9,"scale":-5,"positive":{"offset":0,"bucketCounts":["2"]}"#;
    rig.store(&point("f", "exponentialHistogram", coarse), 0);
    let told = families(&rig, PROTO, false);
    let span = |offset, length| Span { offset: Some(offset), length: Some(length) };
    let exemplar = Exemplar {
        label: vec![label("span_id", "eee19b7ec3c1b174")],
        value: Some(3.0),
        timestamp: Some(Time { seconds: 1, nanos: 400_000_000 }),
    };
    let want = Histogram {
        sample_count: Some(7),
        sample_sum: Some(9.0),
        schema: Some(1),
        zero_threshold: Some(0.5),
        zero_count: Some(1),
        negative_span: vec![span(1, 1)],
        negative_delta: vec![3],
        positive_span: vec![span(3, 2)],
        positive_delta: vec![2, -1],
        exemplars: vec![exemplar],
        ..Histogram::default()
    };
    assert_eq!(told[0].kind, Some(4));
    assert_eq!(told[0].metric[0].histogram.as_ref(), Some(&want));
    let bucket =
        |bound, count| Bucket { cumulative_count: Some(count), upper_bound: Some(bound), exemplar: None };
    let want = Histogram {
        sample_count: Some(2),
        sample_sum: Some(9.0),
        bucket: vec![bucket(4_294_967_296.0, 2), bucket(f64::INFINITY, 2)],
        ..Histogram::default()
    };
    assert_eq!(told[1].metric[0].histogram.as_ref(), Some(&want));
}

#[test]
fn a_large_family_comes_in_several_messages() {
    let rig = Rig::new("");
    let points: Vec<String> =
        (0..5000).map(|n| gauge("a", &attr("number", &format!("{n:04}")), 1, 0.5)).collect();
    rig.store(&points.join(","), 0);
    let told = families(&rig, PROTO, false);
    assert!(told.len() > 1 && told.iter().all(|f| f.name.as_deref() == Some("a")));
    assert!(told.iter().all(|f| f.encoded_len() < PART + 100));
    assert_eq!(told.iter().map(|f| f.metric.len()).sum::<usize>(), 5000);
}

#[test]
fn names_are_raw_or_escaped() {
    let rig = Rig::new("translation_strategy: NoTranslation");
    rig.store(&gauge("a.b", &attr("x.y", "1"), 1, 1.0), 0);
    for (escaping, name, of_label) in
        [(Escaping::AllowUtf8, "a.b", "x.y"), (Escaping::Underscores, "a_b", "x_y")]
    {
        let told = families(&rig, Format { media: Media::Protobuf, escaping }, false);
        assert_eq!(told[0].name.as_deref(), Some(name));
        assert_eq!(told[0].metric[0].label, [label(of_label, "1")]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The text says the same of the same state: families, series, values; of native histograms count and sum.
    #[test]
    fn protobuf_says_what_the_text_says(request in arb_metrics()) {
        let rig = Rig::new("");
        rig.take(&request.encode_to_vec(), 0);
        let text = strict::parse(&page(&rig.0, TEXT, false, 0), false).unwrap();
        let mut expected = Vec::new();
        for family in &text {
            for sample in &family.samples {
                let own = sample.name.strip_prefix(&family.name).unwrap();
                if own != "_bucket" && !(family.kind == "summary" && own.is_empty()) {
                    expected.push((sample.name.clone(), sample.labels.clone(), sample.value.to_bits()));
                }
            }
        }
        let mut got = Vec::new();
        for family in families(&rig, PROTO, false) {
            let name = family.name.unwrap();
            for metric in family.metric {
                let labels: std::collections::BTreeMap<String, String> =
                    metric.label.into_iter().map(|l| (l.name.unwrap(), l.value.unwrap())).collect();
                let mut push = |suffix: &str, value: f64| {
                    // Text has one NaN.
                    let value = if value.is_nan() { f64::NAN } else { value };
                    got.push((format!("{name}{suffix}"), labels.clone(), value.to_bits()));
                };
                for number in [metric.gauge, metric.counter, metric.untyped].into_iter().flatten() {
                    push("", number.value.unwrap());
                }
                let sums = metric.histogram.map(|h| (h.sample_sum, h.sample_count));
                if let Some((sum, count)) = sums.or(metric.summary.map(|s| (s.sample_sum, s.sample_count))) {
                    sum.into_iter().for_each(|sum| push("_sum", sum));
                    push("_count", count.unwrap() as f64);
                }
            }
        }
        prop_assert_eq!(got, expected);
    }
}
