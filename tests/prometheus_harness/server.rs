//! Rules across requests, and the receiver's behaviours, over HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::TcpStream;

use super::requests::{compress, headers};
use crate::support::eventually;
use crate::support::prometheus::wire::{
    Count, Histogram, Label, Metadata2, Request2, Sample, TimeSeries, TimeSeries2, WriteRequest,
};
use crate::support::prometheus::{Faults, Options, Receiver, Speaks, Then, Version};

const TIME: i64 = 1_700_000_000_000;

/// Sends one request; `None` when there is no answer.
async fn post(to: SocketAddr, version: Version, message: Vec<u8>) -> Option<(u16, HeaderMap)> {
    let body = compress(&message);
    let mut request = Request::post("/api/v1/write").header("host", to.to_string());
    *request.headers_mut().unwrap() = headers(version, &body);
    let request = request.body(Full::new(Bytes::from(body))).unwrap();
    let stream = TcpStream::connect(to).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await.ok()?;
    connection.abort();
    Some((answer.status().as_u16(), answer.headers().clone()))
}

fn one(series: &[(&str, &[(i64, f64)])]) -> Vec<u8> {
    let label = |name: &str, value: &str| Label { name: name.into(), value: value.into() };
    let timeseries = series.iter().map(|(name, samples)| TimeSeries {
        labels: vec![label("__name__", name)],
        samples: samples
            .iter()
            .map(|(time, value)| Sample { bits: value.to_bits(), timestamp: TIME + time, start_timestamp: 0 })
            .collect(),
        ..Default::default()
    });
    WriteRequest { timeseries: timeseries.collect(), ..Default::default() }.encode_to_vec()
}

fn two(series: &[(&str, &[(i64, f64)])]) -> Vec<u8> {
    let mut symbols = vec![String::new(), "__name__".to_owned()];
    symbols.extend(series.iter().map(|(name, _)| (*name).to_owned()));
    let timeseries = series.iter().enumerate().map(|(n, (_, samples))| TimeSeries2 {
        labels_refs: vec![1, n as u32 + 2],
        samples: samples
            .iter()
            .map(|(time, value)| Sample {
                bits: value.to_bits(),
                timestamp: TIME + time,
                start_timestamp: TIME,
            })
            .collect(),
        metadata: Some(Metadata2 { kind: 2, ..Default::default() }),
        ..Default::default()
    });
    let timeseries = timeseries.collect();
    Request2 { symbols, timeseries }.encode_to_vec()
}

/// Sends requests of 1.0 one after the other; the answers' statuses and the rules that were broken.
async fn play(options: Options, steps: &[Then], requests: &[Vec<u8>]) -> (Receiver, Vec<u16>, Vec<String>) {
    let receiver = Receiver::start(options).await;
    receiver.script(steps.iter().copied());
    let mut answers = Vec::new();
    for request in requests {
        let answer = post(receiver.address, Version::V1, request.clone()).await;
        answers.push(answer.map_or(0, |(status, _)| status));
    }
    let rules = receiver.violations().iter().map(|v| v.split(':').next().unwrap().to_owned()).collect();
    (receiver, answers, rules)
}

#[tokio::test]
async fn samples_of_a_series_ascend_over_requests() {
    let none = Vec::<String>::new();
    let newest = one(&[("a", &[(10, 1.0)])]);
    let cases: [(&str, Vec<u8>, &[&str]); 6] = [
        ("newer", one(&[("a", &[(11, 1.0)])]), &[]),
        ("another series", one(&[("b", &[(5, 1.0)])]), &[]),
        ("older", one(&[("a", &[(9, 1.0)])]), &["order-backwards"]),
        ("same again", newest.clone(), &["order-repeated"]),
        ("another value", one(&[("a", &[(10, 2.0)])]), &["order-other-value"]),
        ("backwards in one request", one(&[("b", &[(2, 1.0)]), ("b", &[(1, 1.0)])]), &["order-backwards"]),
    ];
    for (what, second, broken) in cases {
        let (receiver, answers, rules) = play(Options::default(), &[], &[newest.clone(), second]).await;
        assert_eq!(rules, broken, "{what}");
        assert_eq!(answers, [204, if broken.is_empty() { 204 } else { 400 }], "{what}");
        assert_eq!(receiver.stored(), if broken.is_empty() { 2 } else { 1 }, "{what}");
    }
    // Within the window of a receiver that takes late samples, and beyond it.
    let late = Options { out_of_order: Duration::from_millis(3), ..Default::default() };
    let requests = [newest, one(&[("a", &[(8, 1.0)])]), one(&[("a", &[(7, 1.0)])])];
    let (receiver, answers, rules) = play(late.clone(), &[], &requests[..2]).await;
    assert_eq!((answers, rules), (vec![204, 204], none));
    assert_eq!(receiver.series(&[("__name__", "a")]).unwrap().floats()[0], (TIME + 8, 1f64.to_bits()));
    let (_, _, rules) = play(late, &[], &requests).await;
    assert_eq!(rules, ["order-backwards"]);
}

#[tokio::test]
async fn histograms_are_told_apart_by_their_bits() {
    let request = |sum: f64| {
        let labels = vec![Label { name: "__name__".into(), value: "h".into() }];
        let histograms =
            vec![Histogram { count: Some(Count::Int(0)), sum, timestamp: TIME, ..Default::default() }];
        let timeseries = vec![TimeSeries { labels, histograms, ..Default::default() }];
        WriteRequest { timeseries, ..Default::default() }.encode_to_vec()
    };
    let stale = f64::from_bits(0x7ff0_0000_0000_0002);
    let (receiver, _, rules) =
        play(Options::default(), &[Then::LoseAnswer], &[request(stale), request(stale)]).await;
    assert_eq!((rules, receiver.resent()), (vec![], 1));
    assert_eq!(receiver.series(&[("__name__", "h")]).unwrap().histograms()[0].sum.to_bits(), stale.to_bits());
    let (_, _, rules) = play(Options::default(), &[Then::LoseAnswer], &[request(0.0), request(1.0)]).await;
    assert_eq!(rules, ["order-other-value"]);
}

#[tokio::test]
async fn a_repeat_needs_a_lost_answer() {
    let request = one(&[("a", &[(10, 1.0), (11, 2.0)])]);
    let thrice = [request.clone(), request.clone(), request.clone()];
    for (steps, answers, resent, rules) in [
        (vec![Then::LoseAnswer], vec![0, 204], 2, vec![]),
        (vec![Then::StoreButFail(503)], vec![503, 204], 2, vec![]),
        (vec![Then::LoseAnswer, Then::LoseAnswer], vec![0, 0, 204], 4, vec![]),
        (vec![Then::LoseAnswer], vec![0, 204, 400], 2, vec!["order-repeated"; 2]),
        (vec![Then::Cut], vec![0, 204], 0, vec![]),
        (vec![Then::Refuse(503, None)], vec![503, 204], 0, vec![]),
        (vec![Then::Ignore], vec![202, 204], 0, vec![]),
    ] {
        let (receiver, got, broken) = play(Options::default(), &steps, &thrice[..answers.len()]).await;
        assert_eq!(
            (got, broken, receiver.resent()),
            (answers, rules.iter().map(|r| (*r).to_owned()).collect(), resent)
        );
        assert_eq!(receiver.stored(), 2, "{steps:?}");
    }
    let (receiver, ..) = play(Options::default(), &[], &thrice[..1]).await;
    receiver.excuse();
    assert_eq!(post(receiver.address, Version::V1, request).await.unwrap().0, 204);
    assert_eq!((receiver.violations(), receiver.resent()), (vec![], 2));
}

#[tokio::test]
async fn requests_with_the_same_series_are_not_sent_at_once() {
    let receiver = Receiver::start(Options::default()).await;
    receiver.set_faults(Faults { delay: (100, Duration::from_millis(100)), ..Default::default() });
    let to = receiver.address;
    let send = |request| tokio::spawn(post(to, Version::V1, request));
    let first = send(one(&[("a", &[(1, 1.0)]), ("b", &[(1, 1.0)])]));
    eventually(Duration::from_secs(5), "it is under way", || receiver.in_flight() == 1).await;
    let others = [send(one(&[("c", &[(1, 1.0)])])), send(one(&[("b", &[(2, 1.0)])]))];
    first.await.unwrap();
    for other in others {
        other.await.unwrap();
    }
    let at_once: Vec<_> =
        receiver.violations().into_iter().filter(|v| v.starts_with("order-at-once")).collect();
    assert_eq!(at_once.len(), 1, "{at_once:?}");
    assert!(at_once[0].contains("\"b\""), "{at_once:?}");

    // A sender that gave up and closed the connection may send again, whether it was stored or not.
    for step in [Then::Hang, Then::StoreAndHang] {
        let receiver = Receiver::start(Options::default()).await;
        receiver.script([step]);
        let request = one(&[("a", &[(1, 1.0)])]);
        let given_up = tokio::spawn(post(receiver.address, Version::V1, request.clone()));
        eventually(Duration::from_secs(5), "it is under way", || receiver.in_flight() == 1).await;
        given_up.abort();
        assert!(given_up.await.is_err());
        assert_eq!(post(receiver.address, Version::V1, request).await.unwrap().0, 204);
        eventually(Duration::from_secs(5), "both ended", || receiver.in_flight() == 0).await;
        assert_eq!((receiver.violations(), receiver.stored()), (vec![], 1));
    }
}

#[tokio::test]
async fn bad_samples_void_a_request_in_1_and_are_left_out_in_2() {
    let series: &[(&str, &[(i64, f64)])] = &[("a", &[(1, 1.0)]), ("bad", &[(1, 1.0)]), ("b", &[(1, 1.0)])];
    let options = Options {
        refuses: Some(Arc::new(|labels, _| labels.iter().any(|(_, value)| value == "bad"))),
        ..Default::default()
    };
    let receiver = Receiver::start(options).await;
    let (status, headers) = post(receiver.address, Version::V1, one(series)).await.unwrap();
    assert_eq!((status, headers.get("x-prometheus-remote-write-samples-written")), (400, None));
    assert_eq!(receiver.stored(), 0);
    let (status, headers) = post(receiver.address, Version::V2, two(series)).await.unwrap();
    assert_eq!(status, 400);
    for (kind, count) in [("samples", "2"), ("histograms", "0"), ("exemplars", "0")] {
        assert_eq!(headers[&format!("x-prometheus-remote-write-{kind}-written")], count);
    }
    assert_eq!(receiver.stored(), 2);
    assert_eq!(receiver.violations(), Vec::<String>::new());
    let a = receiver.series(&[("__name__", "a")]).unwrap();
    assert_eq!((a.points[0].start, a.metadata.unwrap().kind), (TIME, 2));
}

#[tokio::test]
async fn versions_are_understood_as_told() {
    let written = "x-prometheus-remote-write-samples-written";
    let series: &[(&str, &[(i64, f64)])] = &[("a", &[(1, 1.0)])];
    for (speaks, in_1, in_2, headers, stored) in [
        (Speaks::Both, 204, 204, true, 1),
        (Speaks::Only1Unaware, 204, 204, false, 0),
        (Speaks::Only1(415), 204, 415, false, 0),
        (Speaks::Only1(400), 204, 400, false, 0),
        (Speaks::Only2, 415, 204, true, 1),
    ] {
        let receiver = Receiver::start(Options { speaks, ..Default::default() }).await;
        let (status, head) = post(receiver.address, Version::V2, two(series)).await.unwrap();
        assert_eq!(
            (status, head.contains_key(written), receiver.stored()),
            (in_2, headers, stored),
            "{speaks:?}"
        );
        let later: &[(&str, &[(i64, f64)])] = &[("a", &[(2, 1.0)])];
        let (status, head) = post(receiver.address, Version::V1, one(later)).await.unwrap();
        assert_eq!((status, head.contains_key(written)), (in_1, false), "{speaks:?}");
        let log = receiver.requests();
        assert_eq!((log[0].version, log[0].answer), (Some(Version::V2), Some(in_2)));
        assert_eq!((log[1].number, log[1].series, log[1].samples), (2, 1, 1));
        assert_eq!(receiver.violations(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn broken_requests_are_refused_and_throttled_ones_told_when_to_come() {
    let receiver = Receiver::start(Options::default()).await;
    let broken = one(&[("a-b", &[(1, 1.0)])]);
    assert_eq!(post(receiver.address, Version::V1, broken).await.unwrap().0, 400);
    assert!(receiver.violations()[0].starts_with("name-charset"));
    receiver.script([Then::Refuse(429, Some(7))]);
    let (status, headers) = post(receiver.address, Version::V1, one(&[("a", &[(1, 1.0)])])).await.unwrap();
    assert_eq!((status, headers["retry-after"].as_bytes()), (429, &b"7"[..]));
    assert_eq!((receiver.stored(), receiver.script_left()), (0, 0));
}
