//! Rules of a single request: golden bytes that keep all of them, and a table of requests that each break one.

use http::{HeaderMap, HeaderValue, Method, Uri};
use prost::Message;

use crate::support::prometheus::wire::{
    BucketSpan, Count, Exemplar, Exemplar2, Histogram, Label, Metadata2, MetricMetadata, Request2, Sample,
    TimeSeries, TimeSeries2, WriteRequest, ZeroCount,
};
use crate::support::prometheus::{self, Decoded, ORDINARY_NAN, Rules, STALE, Version, histogram};

const TIME: i64 = 1_700_000_000_000;

pub fn headers(version: Version, body: &[u8]) -> HeaderMap {
    let kind = match version {
        Version::V1 => "application/x-protobuf",
        Version::V2 => "application/x-protobuf;proto=io.prometheus.write.v2.Request",
    };
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static(kind));
    headers.insert("content-encoding", HeaderValue::from_static("snappy"));
    headers.insert("x-prometheus-remote-write-version", HeaderValue::from_static(version.header()));
    headers.insert("user-agent", HeaderValue::from_static("test/1"));
    headers.insert("content-length", body.len().into());
    headers
}

pub fn compress(message: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(message).unwrap()
}

fn check(version: Version, body: &[u8], rules: &Rules) -> (Option<Decoded>, Vec<String>) {
    let uri = Uri::from_static("/api/v1/write");
    prometheus::check(rules, &Method::POST, &uri, &headers(version, body), body)
}

fn labels(pairs: &[(&str, &str)]) -> Vec<Label> {
    pairs.iter().map(|(name, value)| Label { name: (*name).into(), value: (*value).into() }).collect()
}

fn native() -> Histogram {
    Histogram {
        count: Some(Count::Int(13)),
        sum: 5.5,
        schema: 0,
        zero_threshold: 1e-128,
        zero_count: Some(ZeroCount::Int(1)),
        negative_spans: vec![BucketSpan { offset: -3, length: 1 }],
        negative_deltas: vec![2],
        positive_spans: vec![BucketSpan { offset: -1, length: 2 }, BucketSpan { offset: 3, length: 1 }],
        positive_deltas: vec![4, -1, 0],
        timestamp: TIME,
        ..Default::default()
    }
}

fn custom() -> Histogram {
    Histogram {
        count: Some(Count::Int(5)),
        sum: 5.5,
        schema: histogram::CUSTOM,
        positive_spans: vec![BucketSpan { offset: 1, length: 2 }],
        positive_deltas: vec![2, 1],
        custom_values: vec![0.5, 2.0],
        timestamp: TIME,
        ..Default::default()
    }
}

/// A request with something of everything in 1.0: a counter with an exemplar, a native histogram, metadata.
fn first() -> WriteRequest {
    let sample = |value: f64, timestamp| Sample { bits: value.to_bits(), timestamp, ..Default::default() };
    WriteRequest {
        timeseries: vec![
            TimeSeries {
                labels: labels(&[("A", "x"), ("__name__", "up_total"), ("job", "a")]),
                samples: vec![sample(1.0, TIME), sample(f64::from_bits(STALE), TIME + 1)],
                exemplars: vec![Exemplar {
                    labels: labels(&[("span_id", "b"), ("trace_id", "a")]),
                    value: 1.0,
                    timestamp: TIME,
                }],
                ..Default::default()
            },
            TimeSeries {
                labels: labels(&[("__name__", "h:s")]),
                histograms: vec![native()],
                ..Default::default()
            },
        ],
        metadata: vec![MetricMetadata {
            kind: 1,
            metric_family_name: "up_total".into(),
            help: "Whether\nit is up".into(),
            ..Default::default()
        }],
    }
}

/// The like in 2.0, with a histogram of custom bounds.
fn second() -> Request2 {
    let words = ["", "__name__", "up", "job", "a", "Whether it is up", "trace_id", "h"];
    Request2 {
        symbols: words.iter().map(|w| (*w).to_owned()).collect(),
        timeseries: vec![
            TimeSeries2 {
                labels_refs: vec![1, 2, 3, 4],
                samples: vec![Sample { bits: ORDINARY_NAN, timestamp: TIME, start_timestamp: TIME - 1 }],
                exemplars: vec![Exemplar2 { labels_refs: vec![6, 4], value: 1.0, timestamp: TIME }],
                metadata: Some(Metadata2 { kind: 2, help_ref: 5, unit_ref: 0 }),
                ..Default::default()
            },
            TimeSeries2 {
                labels_refs: vec![1, 7],
                histograms: vec![Histogram { start_timestamp: TIME - 1, ..custom() }],
                metadata: Some(Metadata2 { kind: 3, ..Default::default() }),
                ..Default::default()
            },
        ],
    }
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn right_requests_are_right() {
    let none = Vec::<String>::new();
    let (decoded, findings) = check(Version::V1, &compress(&first().encode_to_vec()), &Rules::default());
    assert_eq!(findings, none);
    assert_eq!(decoded.unwrap().series[0].samples[1].bits, STALE);
    let (decoded, findings) = check(Version::V2, &compress(&second().encode_to_vec()), &Rules::default());
    assert_eq!(findings, none);
    let decoded = decoded.unwrap();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(decoded.series[0].labels, [pair("__name__", "up"), pair("job", "a")]);
    assert_eq!(decoded.series[0].exemplars[0].labels, [pair("trace_id", "a")]);
    assert_eq!(decoded.series[0].metadata.as_ref().unwrap().help, "Whether it is up");
    let only_metadata = WriteRequest { timeseries: Vec::new(), ..first() };
    assert_eq!(check(Version::V1, &compress(&only_metadata.encode_to_vec()), &Rules::default()).1, none);
}

#[test]
fn golden_bytes() {
    let none = Vec::<String>::new();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let one = "0a2c0a0e0a085f5f6e616d655f5f120275700a080a036a6f62120161121009000000000000f03f1080d095ffbc31";
    // As a block that consists of one literal.
    let (decoded, findings) = check(Version::V1, &unhex(&format!("2eb4{one}")), &Rules::default());
    assert_eq!(findings, none);
    let up = &decoded.unwrap().series[0];
    assert_eq!(up.labels, [pair("__name__", "up"), pair("job", "a")]);
    assert_eq!((up.samples[0].bits, up.samples[0].timestamp), (1f64.to_bits(), TIME));

    let two = "220022085f5f6e616d655f5f2202757022036a6f622201612a1c0a0401020304121009000000000000f03f1080d095ffbc312a02\
               0802";
    let (decoded, findings) = check(Version::V2, &compress(&unhex(two)), &Rules::default());
    assert_eq!(findings, none);
    let decoded = decoded.unwrap();
    assert_eq!((&decoded.series[0].labels, &decoded.series[0].samples), (&up.labels, &up.samples));
    assert_eq!(decoded.series[0].metadata.as_ref().unwrap().kind, 2);

    let native = "0a360a0d0a085f5f6e616d655f5f1201682225080a190000000000001640299d978ccf08ba5b2530005a040802100462040801\
                  010178e807";
    // Its time is one second past the epoch.
    let rules = Rules { earliest: 0, ..Default::default() };
    let (decoded, findings) = check(Version::V1, &compress(&unhex(native)), &rules);
    assert_eq!(findings, none);
    let h = &decoded.unwrap().series[0].histograms[0];
    assert_eq!(histogram::positive(h), [(1, 4.0), (2, 3.0), (3, 2.0), (4, 1.0)]);
    assert_eq!((histogram::count(h), h.sum, h.zero_threshold, h.timestamp), (10.0, 5.5, 1e-128, 1000));
}

/// How a request is broken.
enum Broken {
    First(fn(&mut WriteRequest)),
    Second(fn(&mut Request2)),
    /// The message of 1.0 as bytes.
    Message(fn(&mut Vec<u8>)),
    /// The message of 2.0 as bytes.
    Message2(fn(&mut Vec<u8>)),
    /// What is sent, compressed.
    Body(fn(&mut Vec<u8>)),
    /// Headers, of 1.0 and of 2.0.
    Head(fn(&mut HeaderMap)),
    Head2(fn(&mut HeaderMap)),
}

use Broken::{Body, First, Head, Head2, Message as Raw, Message2, Second};

fn set(headers: &mut HeaderMap, name: &'static str, value: &'static str) {
    headers.insert(name, HeaderValue::from_static(value));
}

fn again(headers: &mut HeaderMap, name: &'static str, value: &'static str) {
    headers.append(name, HeaderValue::from_static(value));
}

fn label(request: &mut WriteRequest, at: usize, name: &str, value: &str) {
    request.timeseries[0].labels[at] = Label { name: name.into(), value: value.into() };
}

fn h(request: &mut WriteRequest) -> &mut Histogram {
    &mut request.timeseries[1].histograms[0]
}

fn c(request: &mut Request2) -> &mut Histogram {
    &mut request.timeseries[1].histograms[0]
}

fn cut_last<T>(list: &mut Vec<T>) {
    list.pop();
}

/// A series element of 1.0 around raw bytes, behind the others.
fn append(message: &mut Vec<u8>, field: u8, content: &[u8]) {
    message.extend([field << 3 | 2, u8::try_from(content.len()).unwrap()]);
    message.extend(content);
}

const FRAMED: &[u8] = b"\xff\x06\x00\x00sNaPpY";

const CASES: &[(&str, Broken)] = &[
    ("header-content-type", Head(|h| set(h, "content-type", "application/x-protobuf; charset=utf-8"))),
    ("header-content-type", Head(|h| drop(h.remove("content-type")))),
    (
        "header-content-type",
        Head2(|h| set(h, "content-type", "application/x-protobuf; proto=io.prometheus.write.v2.Request")),
    ),
    ("header-repeated", Head(|h| again(h, "content-type", "text/plain"))),
    ("header-repeated", Head(|h| again(h, "user-agent", "b"))),
    ("header-content-encoding", Head(|h| set(h, "content-encoding", "gzip"))),
    ("header-content-encoding", Head2(|h| drop(h.remove("content-encoding")))),
    ("header-version", Head(|h| set(h, "x-prometheus-remote-write-version", "2.0.0"))),
    ("header-version", Head2(|h| set(h, "x-prometheus-remote-write-version", "0.1.0"))),
    ("header-version", Head2(|h| drop(h.remove("x-prometheus-remote-write-version")))),
    ("header-user-agent", Head(|h| drop(h.remove("user-agent")))),
    ("header-content-length", Head(|h| drop(h.remove("content-length")))),
    ("snappy-framed", Body(|b| drop(b.splice(..0, FRAMED.iter().copied())))),
    ("snappy-length", Body(|b| *b = vec![0xff; 12])),
    ("snappy-invalid", Body(|b| b[0] += 1)),
    ("snappy-invalid", Body(|b| b.extend([0, b'x']))),
    ("snappy-invalid", Body(cut_last)),
    ("too-large", Body(|b| drop(b.splice(..2, [0xff, 0xff, 0xff, 0x7f])))),
    ("wire-truncated", Raw(|m| m.push(0x0a))),
    ("wire-truncated", Message2(|m| m.extend([0x22, 5]))),
    ("wire-unknown-field", Raw(|m| m.extend([0x78, 1]))),
    // The number that Cortex uses, and a start time in 1.0.
    ("wire-unknown-field", Raw(|m| m.extend([0x10, 1]))),
    (
        "wire-unknown-field",
        Raw(|m| {
            append(m, 1, b"\x0a\x0d\x0a\x08__name__\x12\x01a\x12\x09\x10\x80\xd0\x95\xff\xbc\x31\x18\x01")
        }),
    ),
    ("wire-unknown-field", Message2(|m| m.extend([0x0a, 0]))),
    (
        "wire-repeated",
        Raw(|m| {
            append(m, 1, b"\x0a\x10\x0a\x08__name__\x12\x01a\x12\x01b\x12\x07\x10\x80\xd0\x95\xff\xbc\x31")
        }),
    ),
    ("wire-type", Message2(|m| m.extend([0x20, 1]))),
    // References one by one instead of packed.
    (
        "wire-type",
        Message2(|m| {
            append(m, 5, b"\x08\x01\x0a\x02\x01\x02\x12\x07\x10\x80\xd0\x95\xff\xbc\x31\x2a\x02\x08\x02")
        }),
    ),
    ("wire-range", First(|r| r.metadata[0].kind = 8)),
    ("wire-range", First(|r| h(r).reset_hint = 4)),
    ("wire-range", Second(|r| r.timeseries[0].metadata.as_mut().unwrap().kind = 9)),
    (
        "wire-utf8",
        Raw(|m| append(m, 1, b"\x0a\x0d\x0a\x08__name__\x12\x01\xff\x12\x07\x10\x80\xd0\x95\xff\xbc\x31")),
    ),
    ("symbols-first", Second(|r| r.symbols[0] = "x".into())),
    ("symbols-repeated", Second(|r| r.symbols.push("job".into()))),
    ("symbols-range", Second(|r| r.timeseries[0].metadata.as_mut().unwrap().help_ref = 8)),
    ("symbols-range", Second(|r| r.timeseries[0].metadata.as_mut().unwrap().unit_ref = 99)),
    ("symbols-odd", Second(|r| r.timeseries[0].labels_refs.push(3))),
    ("symbols-odd", Second(|r| r.timeseries[0].exemplars[0].labels_refs.push(3))),
    ("request-empty", First(|r| *r = WriteRequest::default())),
    ("request-empty", Second(|r| r.timeseries.clear())),
    ("labels-unsorted", First(|r| r.timeseries[0].labels.swap(0, 1))),
    ("labels-unsorted", First(|r| label(r, 0, "a", "x"))),
    ("labels-unsorted", Second(|r| r.timeseries[0].labels_refs = vec![3, 4, 1, 2])),
    ("label-repeated", First(|r| label(r, 0, "__name__", "up_total"))),
    ("label-repeated", Second(|r| r.timeseries[0].labels_refs.extend([3, 4]))),
    ("label-name-empty", First(|r| label(r, 0, "", "x"))),
    ("label-value-empty", First(|r| label(r, 2, "job", ""))),
    ("label-value-empty", Second(|r| r.timeseries[0].labels_refs[3] = 0)),
    ("name-missing", First(|r| drop(r.timeseries[0].labels.remove(1)))),
    ("name-charset", First(|r| label(r, 1, "__name__", "up.total"))),
    ("name-charset", First(|r| label(r, 1, "__name__", "9up"))),
    ("name-charset", First(|r| r.metadata[0].metric_family_name = "ü".into())),
    ("name-charset", Second(|r| r.symbols[2] = "u-p".into())),
    ("label-charset", First(|r| label(r, 2, "job.name", "a"))),
    ("label-charset", First(|r| label(r, 2, "job:name", "a"))),
    ("label-charset", First(|r| label(r, 0, "0", "a"))),
    ("label-reserved", First(|r| label(r, 2, "__type__", "a"))),
    ("label-reserved", First(|r| label(r, 2, "__x__", "a"))),
    ("series-empty", First(|r| r.timeseries[0].samples.clear())),
    ("series-empty", Second(|r| r.timeseries[1].histograms.clear())),
    (
        "series-mixed",
        First(|r| r.timeseries[0].histograms.push(Histogram { timestamp: TIME + 2, ..native() })),
    ),
    (
        "series-mixed",
        Second(|r| r.timeseries[1].samples.push(Sample { timestamp: TIME - 1, ..Default::default() })),
    ),
    ("order-in-request", First(|r| r.timeseries[0].samples[1].timestamp = TIME)),
    ("order-in-request", First(|r| r.timeseries[0].samples.reverse())),
    ("order-in-request", First(|r| r.timeseries[1].histograms.push(native()))),
    ("time-implausible", First(|r| r.timeseries[1].histograms[0].timestamp = TIME / 1000)),
    ("time-implausible", First(|r| r.timeseries[0].samples[1].timestamp = TIME * 1000)),
    (
        "time-implausible",
        Second(|r| r.timeseries[0].samples[0] = Sample { timestamp: 0, ..Default::default() }),
    ),
    ("time-implausible", Second(|r| r.timeseries[0].samples[0].timestamp = prometheus::now() + 700_000)),
    ("start-implausible", Second(|r| r.timeseries[0].samples[0].start_timestamp = TIME + 1)),
    ("start-implausible", Second(|r| r.timeseries[1].histograms[0].start_timestamp = 1)),
    ("sample-nan", First(|r| r.timeseries[0].samples[0].bits = STALE | 1 << 51)),
    ("sample-nan", Second(|r| r.timeseries[0].samples[0].bits = f64::NAN.to_bits())),
    ("histogram-nan", First(|r| h(r).sum = -f64::from_bits(ORDINARY_NAN))),
    ("histogram-schema", First(|r| h(r).schema = 9)),
    ("histogram-schema", First(|r| h(r).schema = -5)),
    ("histogram-flavour", First(|r| h(r).count = Some(Count::Float(13.0)))),
    ("histogram-flavour", First(|r| h(r).zero_count = Some(ZeroCount::Float(1.0)))),
    (
        "histogram-flavour",
        First(|r| {
            h(r).positive_deltas.clear();
            h(r).positive_counts = vec![4.0, 3.0, 3.0];
        }),
    ),
    ("histogram-flavour", First(|r| *h(r) = Histogram { timestamp: TIME, ..Default::default() })),
    ("histogram-zero-threshold", First(|r| h(r).zero_threshold = -1.0)),
    ("histogram-zero-threshold", First(|r| h(r).zero_threshold = f64::INFINITY)),
    ("histogram-custom-values", First(|r| h(r).custom_values = vec![1.0])),
    ("histogram-custom-values", Second(|r| c(r).custom_values.reverse())),
    ("histogram-custom-values", Second(|r| c(r).custom_values.push(2.0))),
    ("histogram-custom-values", Second(|r| c(r).custom_values.push(f64::INFINITY))),
    ("histogram-custom-range", Second(|r| cut_last(&mut c(r).custom_values))),
    ("histogram-custom-zero", Second(|r| c(r).zero_threshold = 1e-128)),
    (
        "histogram-custom-zero",
        Second(|r| {
            c(r).zero_count = Some(ZeroCount::Int(1));
            c(r).count = Some(Count::Int(6));
        }),
    ),
    ("histogram-span-offset", Second(|r| c(r).positive_spans[0].offset = -1)),
    ("histogram-span-offset", First(|r| h(r).positive_spans[1].offset = -1)),
    ("histogram-span-empty", First(|r| h(r).positive_spans.push(BucketSpan { offset: 1, length: 0 }))),
    ("histogram-span-length", First(|r| h(r).positive_spans[1].length = 2)),
    ("histogram-span-length", First(|r| h(r).negative_spans.clear())),
    ("histogram-index", First(|r| h(r).positive_spans[1].offset = i32::MAX)),
    ("histogram-negative-count", First(|r| h(r).positive_deltas = vec![4, -5, 8])),
    ("histogram-count", First(|r| h(r).count = Some(Count::Int(14)))),
    (
        "histogram-count",
        First(|r| {
            h(r).sum = f64::from_bits(ORDINARY_NAN);
            h(r).count = Some(Count::Int(12));
        }),
    ),
    ("histogram-count", Second(|r| c(r).positive_deltas[0] = 3)),
    ("histogram-stale-not-empty", First(|r| h(r).sum = f64::from_bits(STALE))),
    ("exemplar-too-long", First(|r| r.timeseries[0].exemplars[0].labels[0].value = "é".repeat(113))),
    ("exemplar-time", First(|r| r.timeseries[0].exemplars[0].timestamp = 0)),
    ("exemplar-time", Second(|r| r.timeseries[0].exemplars[0].timestamp = 0)),
    ("exemplar-nan", First(|r| r.timeseries[0].exemplars[0].value = f64::from_bits(STALE))),
    ("exemplar-nan", First(|r| r.timeseries[0].exemplars[0].value = f64::NAN)),
    (
        "exemplar-order",
        Second(|r| {
            let more = Exemplar2 { timestamp: TIME - 1, ..r.timeseries[0].exemplars[0].clone() };
            r.timeseries[0].exemplars.push(more);
        }),
    ),
    ("labels-unsorted", First(|r| r.timeseries[0].exemplars[0].labels.reverse())),
    ("label-repeated", Second(|r| r.timeseries[0].exemplars[0].labels_refs.extend([6, 4]))),
    ("label-value-empty", Second(|r| r.timeseries[0].exemplars[0].labels_refs[1] = 0)),
    ("metadata-type", First(|r| r.metadata[0].kind = 0)),
    ("metadata-type", Second(|r| r.timeseries[0].metadata = Some(Metadata2::default()))),
    ("metadata-missing", Second(|r| r.timeseries[0].metadata = None)),
    ("metadata-repeated", First(|r| r.metadata.push(r.metadata[0].clone()))),
];

#[test]
fn every_broken_rule_is_found_and_no_other() {
    for (number, (rule, broken)) in CASES.iter().enumerate() {
        let (mut one, mut two) = (first(), second());
        match broken {
            First(edit) => edit(&mut one),
            Second(edit) => edit(&mut two),
            _ => {}
        }
        let version =
            if matches!(broken, Second(_) | Message2(_) | Head2(_)) { Version::V2 } else { Version::V1 };
        let mut message = if version == Version::V1 { one.encode_to_vec() } else { two.encode_to_vec() };
        if let Raw(edit) | Message2(edit) = broken {
            edit(&mut message);
        }
        let mut body = compress(&message);
        if let Body(edit) = broken {
            edit(&mut body);
        }
        let mut head = headers(version, &body);
        if let Head(edit) | Head2(edit) = broken {
            edit(&mut head);
        }
        let uri = Uri::from_static("/api/v1/write");
        let (_, findings) = prometheus::check(&Rules::default(), &Method::POST, &uri, &head, &body);
        let right = !findings.is_empty() && findings.iter().all(|f| f.split(':').next() == Some(rule));
        assert!(right, "case {number} should break {rule} alone: {findings:#?}");
    }
}

#[test]
fn method_and_path_are_checked() {
    let body = compress(&first().encode_to_vec());
    let head = headers(Version::V1, &body);
    for (method, uri, rule) in [
        (Method::PUT, "/api/v1/write", "http-method"),
        (Method::POST, "/api/v1/push", "http-path"),
        (Method::POST, "/api/v1/write?a=b", "http-path"),
    ] {
        let (_, findings) =
            prometheus::check(&Rules::default(), &method, &Uri::from_static(uri), &head, &body);
        assert!(findings.len() == 1 && findings[0].starts_with(rule), "{findings:?}");
    }
}

#[test]
fn what_is_configured_is_allowed() {
    let mut request = first();
    label(&mut request, 1, "__name__", "up.total");
    label(&mut request, 2, "__unit__", "s");
    let body = compress(&request.encode_to_vec());
    let rules = Rules { any_names: true, type_and_unit_labels: true, ..Default::default() };
    assert_eq!(check(Version::V1, &body, &rules).1, Vec::<String>::new());
    let rules = Rules { headers: vec![("x-scope-orgid", "a".into())], ..Default::default() };
    let body = compress(&first().encode_to_vec());
    let (_, findings) = check(Version::V1, &body, &rules);
    assert!(findings.len() == 1 && findings[0].starts_with("header-configured"), "{findings:?}");
}
