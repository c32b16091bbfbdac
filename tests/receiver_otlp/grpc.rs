//! gRPC: what every kind of call is answered.

use std::time::Duration;

use http::Method;
use tidegate::config::types::Optional;
use tidegate::net::compress::{Codec, deflate};
use tidegate::pdata::Signal;
use tidegate::receivers::otlp::{GrpcAuthConfig, GrpcServerConfig};

use crate::kit::*;

const OK: i32 = 0;
const DEADLINE: i32 = 4;
const INVALID: i32 = 3;
const EXHAUSTED: i32 = 8;
const UNIMPLEMENTED: i32 = 12;
const INTERNAL: i32 = 13;
const UNAVAILABLE: i32 = 14;
const UNAUTHENTICATED: i32 = 16;

#[tokio::test]
async fn every_signal_arrives_byte_by_byte() {
    let rig = Rig::grpc(grpc()).await;
    let client = rig.grpc_client().await;
    for (signal, path) in Signal::ALL.into_iter().zip([TRACES, METRICS, LOGS]) {
        // From less than a frame to many, below and above the windows.
        for items in [1, 20, 200, 2000] {
            let sent = request(signal, items);
            let answer = client.export(path, &sent).await;
            assert_eq!((answer.http, answer.status, answer.body), (200, OK, vec![0; 5]));
            assert_eq!(answer.headers["content-type"], "application/grpc");
            let got = rig.pipe.take();
            assert_eq!((got.len(), got[0].signal, got[0].items), (1, signal, items));
            assert_eq!(got[0].rope.to_bytes(), sent);
            assert_eq!(rig.cx.ledger.in_flight(), sent.len() + 5, "the batch holds its memory");
        }
    }
    assert_eq!(rig.cx.ledger.in_flight(), 0);
    assert_eq!(rig.count("otelcol_receiver_accepted_spans", "grpc"), 2221);
    assert_eq!(rig.count("otelcol_receiver_accepted_log_records", "otlp/test"), 2221);
    assert_eq!(rig.count("tidegate_receiver_errors", ""), 0);
}

#[tokio::test]
async fn verdicts_become_statuses() {
    let rig = Rig::grpc(grpc()).await;
    let client = rig.grpc_client().await;
    let sent = request(Signal::Traces, 2);
    let cases = [
        (tidegate::pipeline::Verdict::Accepted, OK, None, ""),
        (retry(None), UNAVAILABLE, Some(1), "queue is full"),
        (retry(Some(7)), UNAVAILABLE, Some(7), "queue is full"),
        (rejected(true), INVALID, None, "100%25 wrong%C3%A9"),
        (rejected(false), INTERNAL, None, "100%25 wrong%C3%A9"),
    ];
    for (verdict, status, delay, message) in cases {
        rig.answers(verdict);
        let answer = client.export(TRACES, &sent).await;
        assert_eq!((answer.status, answer.retry(), answer.message()), (status, delay, message));
    }
    assert_eq!(rig.count("otelcol_receiver_accepted_spans", "grpc"), 2);
    assert_eq!(rig.count("otelcol_receiver_refused_spans", "grpc"), 8);
    assert_eq!(rig.count("tidegate_receiver_errors", "retry"), 2);
    assert_eq!(rig.count("tidegate_receiver_errors", "rejected"), 2);
}

#[tokio::test]
async fn wrong_calls_get_their_status() {
    let rig = Rig::start(Some(grpc()), None, 64 << 20, &[Signal::Traces]).await;
    let client = rig.grpc_client().await;
    let good = framed(0, &request(Signal::Traces, 1));
    let two = [good.clone(), good.clone()].concat();
    let cut = good[..good.len() - 1].to_vec();
    let mut flagged = good.clone();
    flagged[0] = 2;
    let mut compressed = good.clone();
    compressed[0] = 1;
    let huge = [&[0u8][..], &(4u32 << 20 | 1).to_be_bytes()].concat();
    let cases: Vec<(&str, &str, &[(&str, &str)], Vec<u8>, u16, i32)> = vec![
        ("an empty request", TRACES, &[], framed(0, b""), 200, OK),
        ("parameters", TRACES, &[("content-type", "application/grpc+proto;x=y")], good.clone(), 200, OK),
        ("no message", TRACES, &[], vec![], 200, INTERNAL),
        ("half a prefix", TRACES, &[], vec![0, 0], 200, INTERNAL),
        ("a message cut short", TRACES, &[], cut, 200, INTERNAL),
        ("two messages", TRACES, &[], two, 200, INTERNAL),
        ("unknown flags", TRACES, &[], flagged, 200, INTERNAL),
        ("compressed by nothing", TRACES, &[], compressed.clone(), 200, INTERNAL),
        (
            "compressed by identity",
            TRACES,
            &[("grpc-encoding", "identity")],
            compressed.clone(),
            200,
            INTERNAL,
        ),
        ("not gzip", TRACES, &[("grpc-encoding", "gzip")], compressed.clone(), 200, INVALID),
        ("an unknown codec", TRACES, &[("grpc-encoding", "br")], compressed, 200, UNIMPLEMENTED),
        ("not protobuf", TRACES, &[], framed(0, b"\x0a\x05x"), 200, INVALID),
        ("announced too large", TRACES, &[], huge, 200, EXHAUSTED),
        ("no such method", "/a.B/C", &[], good.clone(), 200, UNIMPLEMENTED),
        ("a signal nobody takes", LOGS, &[], good.clone(), 200, UNIMPLEMENTED),
        ("another type", TRACES, &[("content-type", "application/x-protobuf")], good.clone(), 415, INVALID),
        ("a malformed timeout", TRACES, &[("grpc-timeout", "soon")], good.clone(), 200, INTERNAL),
    ];
    let (mut errors, mut batches) = (0, 0);
    for (what, path, headers, body, http, status) in cases {
        let answer = client.call(path, headers, body).await;
        assert_eq!((answer.http, answer.status), (http, status), "{what}: {answer:?}");
        assert_eq!(answer.retry(), None, "{what}");
        errors += u64::from(status != OK);
        batches += usize::from(what == "parameters");
        assert_eq!(rig.count("tidegate_receiver_errors", ""), errors, "{what}");
        assert_eq!(rig.pipe.bodies().len(), batches, "{what}");
    }
    let get = client.open_as(Method::GET, TRACES, &[]).await;
    assert_eq!(get.answer().await.http, 405);
    // After all that, the same connection still works.
    assert_eq!(client.call(TRACES, &[], good).await.status, OK);
    rig.pipe.take();
    assert_eq!(rig.cx.ledger.in_flight(), 0);
}

#[tokio::test]
async fn unsupported_encodings_say_what_is_supported() {
    let rig = Rig::grpc(grpc()).await;
    let answer = rig.grpc_client().await.call(TRACES, &[("grpc-encoding", "br")], framed(1, b"x")).await;
    assert_eq!(answer.headers["grpc-accept-encoding"], "gzip,zstd,snappy,deflate,identity");
}

#[tokio::test]
async fn compressed_messages_are_inflated_within_the_limit() {
    let rig = Rig::grpc(GrpcServerConfig { max_recv_msg_size_mib: 1, ..grpc() }).await;
    let client = rig.grpc_client().await;
    let sent = request(Signal::Logs, 500);
    // 2 MiB of an unknown field of zeros: valid, small when compressed, too large when not.
    let mut bomb = vec![0xfa, 0x7f, 0x80, 0x80, 0x80, 0x01];
    bomb.resize(bomb.len() + (2 << 20), 0);
    for codec in [Codec::Gzip, Codec::Zstd, Codec::Snappy, Codec::Deflate] {
        let pack = |plain: &[u8]| {
            let packed = deflate(codec, None, &plain.to_vec().into()).unwrap();
            framed(1, &packed)
        };
        let headers = [("grpc-encoding", codec.name())];
        let answer = client.call(LOGS, &headers, pack(&sent)).await;
        assert_eq!(answer.status, OK, "{codec:?} {}", answer.message());
        let got = rig.pipe.take();
        assert_eq!(got[0].rope.to_bytes(), sent);
        assert!(
            rig.cx.ledger.in_flight() >= sent.len() && rig.cx.ledger.in_flight() < sent.len() * 2,
            "{codec:?}"
        );
        drop(got);
        let answer = client.call(LOGS, &headers, pack(&bomb)).await;
        assert_eq!((answer.status, answer.retry()), (EXHAUSTED, None), "{codec:?}");
        assert_eq!(rig.cx.ledger.in_flight(), 0);
        // Marked as possibly compressed, and not.
        assert_eq!(client.call(LOGS, &headers, framed(0, &sent)).await.status, OK);
        rig.pipe.take();
    }
}

#[tokio::test]
async fn tiny_frames_make_one_message() {
    let rig = Rig::grpc(grpc()).await;
    let client = rig.grpc_client().await;
    let sent = request(Signal::Traces, 3);
    let body = framed(0, &sent);
    let mut call = client.open(TRACES, &[]).await;
    for byte in &body {
        call.send(vec![*byte], false).await;
    }
    call.send(vec![], true).await;
    assert_eq!(call.answer().await.status, OK);
    assert_eq!(rig.pipe.bodies(), [sent]);
}

#[tokio::test]
async fn a_full_ledger_refuses_and_recovers() {
    let rig = Rig::start(Some(grpc()), None, 300 << 10, &Signal::ALL).await;
    let client = rig.grpc_client().await;
    rig.does(Does::Holds);
    let large = request(Signal::Traces, 400);
    assert!(large.len() > 150 << 10 && large.len() < 250 << 10);
    let mut held = client.open(TRACES, &[]).await;
    held.send(framed(0, &large), true).await;
    rig_holds(&rig, 1).await;
    // The budget is taken: every further request is asked to come back, and none is kept.
    for _ in 0..20 {
        let answer = client.export(TRACES, &large).await;
        assert_eq!((answer.status, answer.retry()), (UNAVAILABLE, Some(1)), "{}", answer.message());
    }
    assert!(rig.cx.ledger.in_flight() <= rig.cx.ledger.budget());
    assert_eq!(rig.count("tidegate_receiver_errors", "memory"), 20);
    rig.answers(tidegate::pipeline::Verdict::Accepted);
    for mut batch in rig.pipe.take() {
        std::mem::take(&mut batch.acks).resolve(tidegate::pipeline::Verdict::Accepted);
    }
    assert_eq!(held.answer().await.status, OK);
    assert_eq!(client.export(TRACES, &large).await.status, OK);
    rig.pipe.take();
    assert_eq!(rig.cx.ledger.in_flight(), 0);
}

#[tokio::test]
async fn a_promise_holds_little_memory() {
    let rig = Rig::grpc(grpc()).await;
    let client = rig.grpc_client().await;
    let mut calls = Vec::new();
    for _ in 0..100 {
        let mut call = client.open(TRACES, &[]).await;
        call.send([&[0u8][..], &(4u32 << 20).to_be_bytes()].concat(), false).await;
        calls.push(call);
    }
    let step = 4 << 10;
    crate::support::eventually(Duration::from_secs(10), "100 promises", || {
        rig.cx.ledger.in_flight() >= 100 * step
    })
    .await;
    assert!(rig.cx.ledger.in_flight() <= 100 * (step + 5));
    drop(calls);
    drop(client);
    crate::support::eventually(Duration::from_secs(10), "memory returned", || rig.cx.ledger.in_flight() == 0)
        .await;
    rig.counted("tidegate_receiver_errors", "disconnected", 100).await;
}

#[tokio::test]
async fn a_deadline_is_kept_and_the_outcome_still_counted() {
    let rig = Rig::grpc(grpc()).await;
    let client = rig.grpc_client().await;
    rig.does(Does::Holds);
    let headers = [("grpc-timeout", "50m")];
    // In the pipeline.
    let answer = client.call(TRACES, &headers, framed(0, &request(Signal::Traces, 3))).await;
    assert_eq!(answer.status, DEADLINE);
    assert_eq!(rig.count("otelcol_receiver_accepted_spans", "grpc"), 0);
    for mut batch in rig.pipe.take() {
        std::mem::take(&mut batch.acks).resolve(tidegate::pipeline::Verdict::Accepted);
    }
    rig.counted("otelcol_receiver_accepted_spans", "grpc", 3).await;
    // On its way.
    let mut call = client.open(TRACES, &headers).await;
    call.send(vec![0, 0, 0], false).await;
    assert_eq!(call.answer().await.status, DEADLINE);
    assert_eq!(rig.count("tidegate_receiver_errors", "deadline"), 2);
    assert_eq!(rig.cx.ledger.in_flight(), 0);
}

#[tokio::test]
async fn a_client_that_leaves_loses_nothing_handed_over() {
    let rig = Rig::grpc(grpc()).await;
    rig.does(Does::Holds);
    let client = rig.grpc_client().await;
    let mut call = client.open(TRACES, &[]).await;
    call.send(framed(0, &request(Signal::Traces, 4)), true).await;
    rig_holds(&rig, 1).await;
    drop((call, client));
    tokio::task::yield_now().await;
    for mut batch in rig.pipe.take() {
        std::mem::take(&mut batch.acks).resolve(tidegate::pipeline::Verdict::Accepted);
    }
    rig.counted("otelcol_receiver_accepted_spans", "grpc", 4).await;
}

#[tokio::test]
async fn authentication_and_metadata() {
    let mut auth = GrpcAuthConfig::default();
    let mut cx = tidegate::config::Cx::default();
    let id = tidegate::config::Node::new(Default::default(), tidegate::config::Value::Str("doorman".into()));
    tidegate::config::Config::decode_into(&mut auth.authenticator, &id, &mut cx);
    let config = GrpcServerConfig { auth: Optional::on(auth), include_metadata: true, ..grpc() };
    let rig = Rig::grpc(config).await;
    let client = rig.grpc_client().await;
    let body = || framed(0, &request(Signal::Traces, 1));
    let answer = client.call(TRACES, &[("authorization", "please")], body()).await;
    assert_eq!((answer.status, answer.message()), (UNAUTHENTICATED, "not on the list"));
    assert_eq!(rig.count("tidegate_receiver_errors", "unauthenticated"), 1);

    let headers = [("authorization", "letmein"), ("X-Scope-OrgID".to_ascii_lowercase().leak(), "acme")];
    assert_eq!(client.call(TRACES, &headers, body()).await.status, OK);
    let got = rig.pipe.take();
    let who = &got[0].client;
    assert_eq!(who.auth, [("subject".to_owned(), "guest".to_owned())]);
    assert_eq!(who.metadata("X-Scope-OrgID"), Some(&["acme".to_owned()][..]));
    assert_eq!(who.metadata("host"), Some(&["rig:4317".to_owned()][..]));
    assert!(who.address.is_some_and(|a| a.ip().is_loopback()));
}

/// Waits until the pipeline has this many batches.
async fn rig_holds(rig: &Rig, batches: usize) {
    crate::support::eventually(Duration::from_secs(10), "batches", || {
        rig.pipe.got.lock().unwrap().len() == batches
    })
    .await;
}
