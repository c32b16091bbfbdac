//! Everything that the server has, compared with everything that it must have.

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message;

use super::expected::{Expected, INFOS, Native, STEP, STEPS, everything, parse};
use super::server::{self, Labels, Prometheus};
use super::{ONE, TWO, agent};
use crate::support::prometheus::wire::{
    BucketSpan, Count, Exemplar, Histogram, Label, Sample, TimeSeries, WriteRequest, ZeroCount,
};
use crate::support::prometheus::{STALE, now};
use crate::support::{http, otlp};

fn through_the_agent(message: &str) {
    let base = now() - 60_000;
    let (input, want) = everything(base);
    let server = Prometheus::start();
    let mut agent = agent(&server, message);
    for request in input.requests() {
        otlp::send(agent.http, request).unwrap();
    }
    let status = agent.terminate(Duration::from_secs(30));
    assert!(status.success(), "{status}; its log:\n{}", agent.log());
    // Prometheus knows 2.0 since 2.54.
    let falls_back = message == TWO && server.major() < 3;
    assert_eq!(agent.log().contains("does not know remote write 2.0"), falls_back);
    compare(&server, base, &want);
}

/// Everything that is expected as one request.
fn direct(base: i64, want: &Expected) -> WriteRequest {
    let pairs = |labels: &Labels| {
        labels.iter().map(|(name, value)| Label { name: name.clone(), value: value.clone() }).collect()
    };
    let at = |step: i64| base + step * STEP;
    let mut timeseries = Vec::new();
    for (labels, values) in &want.floats {
        let sample = |(step, value): &(i64, f64)| Sample {
            bits: value.to_bits(),
            timestamp: at(*step),
            start_timestamp: 0,
        };
        let mut exemplars: Vec<Exemplar> = want
            .exemplars
            .iter()
            .filter(|e| e.0 == *labels)
            .map(|e| Exemplar { labels: pairs(&e.1), value: e.2, timestamp: base - e.3 })
            .collect();
        exemplars.sort_by_key(|e| e.timestamp);
        let samples = values.iter().map(sample).collect();
        timeseries.push(TimeSeries { labels: pairs(labels), samples, exemplars, ..Default::default() });
    }
    for info in INFOS {
        let samples = vec![Sample { bits: 1f64.to_bits(), timestamp: base, start_timestamp: 0 }];
        timeseries.push(TimeSeries { labels: pairs(&parse(info)), samples, ..Default::default() });
    }
    for (labels, values) in &want.natives {
        let native = |(step, count, sum, schema, threshold, zero, up, down): &Native| {
            let (positive_spans, positive_deltas) = spans(up);
            let (negative_spans, negative_deltas) = spans(down);
            Histogram {
                count: Some(Count::Int(*count as u64)),
                sum: *sum,
                schema: *schema,
                zero_threshold: *threshold,
                zero_count: Some(ZeroCount::Int(*zero as u64)),
                positive_spans,
                positive_deltas,
                negative_spans,
                negative_deltas,
                timestamp: at(*step),
                ..Default::default()
            }
        };
        let histograms = values.iter().map(native).collect();
        timeseries.push(TimeSeries { labels: pairs(labels), histograms, ..Default::default() });
    }
    WriteRequest { timeseries, metadata: Vec::new() }
}

/// A span for each bucket.
fn spans(buckets: &[(i64, f64)]) -> (Vec<BucketSpan>, Vec<i64>) {
    let (mut spans, mut deltas, mut next, mut last) = (Vec::new(), Vec::new(), 0, 0);
    for (index, count) in buckets {
        spans.push(BucketSpan { offset: i32::try_from(index - next).unwrap(), length: 1 });
        deltas.push(*count as i64 - last);
        (next, last) = (index + 1, *count as i64);
    }
    (spans, deltas)
}

fn compare(server: &Prometheus, base: i64, want: &Expected) {
    let at = |step: i64| base + step * STEP;
    let (from, to) = (base - 3_600_000, now());
    let mut got = server.read(from, to);
    // `target_info` is told once in a while, at the time of a point.
    for info in INFOS {
        let stored = got.remove(&parse(info)).unwrap_or_else(|| panic!("no {info}"));
        let step = |time| (0..STEPS).any(|step| at(step) == time);
        assert!(
            stored.iter().all(|(time, bits)| step(*time) && *bits == 1f64.to_bits()),
            "{info}: {stored:?}"
        );
    }
    // The sign of a zero does not survive remote read; PromQL shows it.
    let unsigned = |v: &f64| if *v == 0.0 { 0 } else { v.to_bits() };
    let want_read = expect(&want.floats, |(step, v)| Some((at(*step), unsigned(v))));
    assert_same("samples", &want_read, &got);
    let seen = server.floats("{__name__=~\".+\",__name__!=\"target_info\"}[1h]", at(STEPS));
    let want_seen =
        expect(&want.floats, |(step, v)| (v.to_bits() != STALE).then(|| (at(*step), v.to_bits())));
    assert_same("samples in PromQL", &want_seen, &seen);

    let natives = server.natives("{__name__=~\".+\"}[1h]", at(STEPS));
    let want_natives = expect(&want.natives, |n| (n.2.to_bits() != STALE).then(|| visible(n, at(n.0))));
    assert_same("native histograms", &want_natives, &natives);
    for (labels, all) in &want.natives {
        for (step, _, sum, ..) in all {
            let found = server.query(&labels["__name__"], at(*step) + 1).len();
            assert_eq!(found, usize::from(sum.to_bits() != STALE), "{labels:?} at step {step}");
        }
    }

    let mut all: Vec<Labels> =
        want.floats.keys().chain(want.natives.keys()).cloned().chain(INFOS.map(parse)).collect();
    all.sort();
    assert_eq!(server.series(from, to), all);
    let mut got = server.exemplars("{__name__=~\".+\"}", from, to);
    let mut exemplars: Vec<_> =
        want.exemplars.iter().map(|(s, l, v, before)| (s.clone(), l.clone(), *v, base - before)).collect();
    got.sort_by_key(|e| e.3);
    exemplars.sort_by_key(|e| e.3);
    assert_eq!(got, exemplars);
}

/// What is expected of each series, item by item.
fn expect<A, B>(all: &BTreeMap<Labels, Vec<A>>, item: impl Fn(&A) -> Option<B>) -> BTreeMap<Labels, Vec<B>> {
    all.iter().map(|(labels, items)| (labels.clone(), items.iter().filter_map(&item).collect())).collect()
}

/// A native histogram as users see it: bounds instead of a schema and indices.
fn visible((_, count, sum, schema, threshold, zero, up, down): &Native, time: i64) -> server::Native {
    let bound = |index: i64| server::rounded(2f64.powf(index as f64 * 2f64.powi(-schema)));
    let mut buckets: Vec<(f64, f64, f64)> =
        down.iter().rev().map(|(index, count)| (-bound(*index), -bound(index - 1), *count)).collect();
    if *zero > 0.0 {
        buckets.push((-threshold, *threshold, *zero));
    }
    buckets.extend(up.iter().map(|(index, count)| (bound(index - 1), bound(*index), *count)));
    server::Native { time, count: *count, sum: *sum, buckets }
}

/// Says which series differ, not only that some do.
fn assert_same<T: PartialEq + std::fmt::Debug>(
    what: &str,
    want: &BTreeMap<Labels, T>,
    got: &BTreeMap<Labels, T>,
) {
    let mut wrong = String::new();
    for (labels, values) in want.iter().filter(|(labels, values)| got.get(*labels) != Some(values)) {
        wrong.push_str(&format!("{labels:?}\n  want {values:?}\n  got  {:?}\n", got.get(labels)));
    }
    for (labels, values) in got.iter().filter(|(labels, _)| !want.contains_key(*labels)) {
        wrong.push_str(&format!("{labels:?}\n  want nothing\n  got  {values:?}\n"));
    }
    assert!(wrong.is_empty(), "{what} differ:\n{wrong}");
}

/// Shows that a difference found behind the agent is the agent's.
#[test]
fn what_is_expected_is_what_the_server_keeps() {
    let base = now() - 60_000;
    let (_, want) = everything(base);
    let server = Prometheus::start();
    let body = snap::raw::Encoder::new().compress_vec(&direct(base, &want).encode_to_vec()).unwrap();
    let headers = [
        ("content-type", "application/x-protobuf"),
        ("content-encoding", "snappy"),
        ("x-prometheus-remote-write-version", "0.1.0"),
    ];
    let answer = http::request(server.address, "POST", "/api/v1/write", &headers, &body).unwrap();
    assert_eq!(answer.0, 204, "{}", String::from_utf8_lossy(&answer.1));
    compare(&server, base, &want);
}

#[test]
fn every_value_of_every_metric_type_arrives() {
    through_the_agent(ONE);
}

/// A server that knows 1.0 alone says that all is well to a request in 2.0, of which it reads nothing.
#[test]
fn every_value_arrives_in_2_0_or_in_1_0_where_2_0_is_not_known() {
    through_the_agent(TWO);
}
