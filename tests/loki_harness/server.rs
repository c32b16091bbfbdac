//! Tenants, rates, memory of earlier requests, and misbehaviour.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use tokio::net::TcpStream;

use super::{JSON, PROTOBUF, compress, one, post, push};
use crate::support::eventually;
use crate::support::loki::wire::{self, PushRequest};
use crate::support::loki::{Faults, Limits, Loki, Options, SINGLE, Then, now};
use crate::support::otlp::attributes;

const PATH: &str = "/loki/api/v1/push";

async fn limited(limits: Limits) -> Loki {
    Loki::start(Options { limits, ..Default::default() }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_are_told_apart() {
    let loki = Loki::start(Options { auth: true, ..Default::default() }).await;
    let body = compress(&one(r#"{a="b"}"#, now(), "x"));
    let long = "t".repeat(150);
    let longer = "t".repeat(151);
    for (tenant, status, text) in [
        (None, 401, "no org id"),
        (Some(""), 401, "no org id"),
        (Some("team-a"), 204, ""),
        (Some("a!-_.*'()Z9"), 204, ""),
        (Some(&*long), 204, ""),
        (Some(&*longer), 400, "too long"),
        (Some("."), 400, "'.' or '..'"),
        (Some(".."), 400, "'.' or '..'"),
        (Some("a|b"), 400, "multiple org IDs"),
        (Some("a/b"), 400, "unsupported character '/'"),
        (Some("a b"), 400, "unsupported character ' '"),
    ] {
        let mut headers = vec![PROTOBUF];
        headers.extend(tenant.map(|t| ("x-scope-orgid", t)));
        let (got, message) = post(&loki, PATH, &headers, &body);
        assert_eq!(got, status, "{tenant:?}: {message}");
        assert!(message.contains(text), "{tenant:?}: {message}");
    }
    assert_eq!(loki.tenants(), ["a!-_.*'()Z9", "team-a", &long]);
    assert_eq!(loki.query("team-a", r#"{a="b"}"#).len(), 1);
    assert_eq!(loki.query(SINGLE, r#"{a="b"}"#).len(), 0);
    // Where nobody asks, the header is not looked at.
    let loki = Loki::start(Options::default()).await;
    assert_eq!(post(&loki, PATH, &[PROTOBUF, ("x-scope-orgid", "team-a")], &body).0, 204);
    assert_eq!(loki.tenants(), [SINGLE]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rates_are_kept_per_tenant_and_per_stream() {
    let line = "x".repeat(600);
    let two = |at: i64| -> PushRequest {
        wire::push(&[
            (r#"{a="1"}"#, &[(at, &line, &[])]),
            (r#"{a="2"}"#, &[(at, "y", &[]), (at + 1, &line, &[])]),
        ])
    };
    // The tenant's: the whole request, and others are not concerned.
    let limits = Limits { rate: (1000, 1300), ..Default::default() };
    let loki = Loki::start(Options { auth: true, limits, ..Default::default() }).await;
    let send = |tenant, at| post(&loki, PATH, &[PROTOBUF, ("x-scope-orgid", tenant)], &compress(&two(at)));
    let at = now();
    assert_eq!(send("a", at).0, 204);
    let (status, message) = send("a", at + 10);
    assert!(
        message.contains("Ingestion rate limit exceeded for user a (limit: 1000 bytes/sec)"),
        "{message}"
    );
    assert_eq!((status, loki.stored(), send("b", at).0), (429, 3, 204));
    tokio::time::sleep(Duration::from_millis(1250)).await;
    assert_eq!(send("a", at + 10).0, 204);

    // The stream's: all of the stream, or just what is too much; other streams are stored.
    for (whole_stream, stored) in [(true, 1), (false, 2)] {
        let loki = limited(Limits { stream_rate: (10, 600), whole_stream, ..Default::default() }).await;
        let (status, message) = push(&loki, &two(now()));
        assert_eq!((status, loki.stored()), (429, stored), "{message}");
        assert!(message.contains("Per stream rate limit exceeded (limit: 10"), "{message}");
        let ignored = format!("total ignored: {} out of 2 for stream: {{a=\"2\"", 3 - stored);
        assert!(message.contains(&ignored), "{message}");
    }

    // The number of streams: those that are new.
    let loki = limited(Limits { streams: 1, ..Default::default() }).await;
    for at in [at, at + 10] {
        let (status, message) = push(&loki, &two(at));
        assert_eq!(status, 429, "{message}");
        assert!(message.contains("Maximum active stream limit exceeded"), "{message}");
    }
    assert_eq!((loki.stored(), loki.streams(SINGLE).len()), (2, 1));
}

/// A stream may have both what is too late and what is too much.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_failure_of_a_stream_makes_the_answer() {
    let hour = 3_600_000_000_000;
    let (at, line) = (now(), "x".repeat(600));
    let late = at - hour - 1_000_000_000;
    for (entries, status) in [
        ([(at, "1", &[][..]), (late, "2", &[]), (at + 1, &*line, &[])], 429),
        ([(at, "1", &[]), (at + 1, &*line, &[]), (late, "2", &[])], 400),
    ] {
        let loki = limited(Limits { stream_rate: (1, 500), whole_stream: false, ..Default::default() }).await;
        let (got, message) = push(&loki, &wire::push(&[(r#"{a="1"}"#, &entries)]));
        assert_eq!((got, loki.stored()), (status, 1), "{message}");
        assert!(message.contains("total ignored: 2 out of 3"), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_tenant_stores_nothing() {
    for code in [260, 200] {
        let loki = Loki::start(Options { auth: true, ..Default::default() }).await;
        loki.limit_tenant("a", Limits { blocked: Some(code), ..Default::default() });
        let send = |tenant, request: &PushRequest| {
            post(&loki, PATH, &[PROTOBUF, ("x-scope-orgid", tenant)], &compress(request))
        };
        let request = one(r#"{a="b"}"#, now(), "x");
        let (status, message) = send("a", &request);
        assert_eq!((status, loki.stored()), (code, 0));
        assert!(message.contains("ingestion blocked for user a"), "{message}");
        assert_eq!(send("a", &one("{}", now(), "x")).0, 400);
        assert_eq!((send("b", &request).0, loki.tenants()), (204, vec!["b".to_owned()]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_poisonous_entry_fails_a_request() {
    let poison: crate::support::loki::Poison =
        Arc::new(|tenant, labels, entry| tenant == SINGLE && labels[0].1 == "b" && entry.line == "bad");
    let loki = Loki::start(Options { poison: Some(poison), ..Default::default() }).await;
    let at = now();
    let mut request = one(r#"{a="b"}"#, at, "bad");
    request.streams.extend(one(r#"{a="c"}"#, at, "bad").streams);
    let (status, message) = push(&loki, &request);
    assert_eq!((status, &*message, loki.stored()), (500, "poisoned by the test\n", 0));
    request.streams.remove(0);
    assert_eq!((push(&loki, &request).0, loki.stored()), (204, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_comes_once() {
    let loki = Loki::start(Options::default()).await;
    let at = now();
    let request = |metadata: &[(&str, &str)]| wire::push(&[(r#"{a="b"}"#, &[(at, "x", metadata)])]);
    for (metadata, stored, resent) in
        [(&[("k", "1")], 1, 0), (&[("k", "1")], 1, 1), (&[("k", "2")], 2, 1), (&[("k", "1")], 2, 2)]
    {
        assert_eq!(push(&loki, &request(metadata)).0, 204);
        assert_eq!((loki.stored(), loki.resent()), (stored, resent));
    }
    // The same labels in another order and with an empty one are the same stream; a service is made up.
    assert_eq!(push(&loki, &one(r#"{c="", a="b"}"#, at + 1, "y")).0, 204);
    let streams = loki.streams(SINGLE);
    let only = streams.first_key_value().unwrap();
    assert_eq!((streams.len(), only.1.len()), (1, 3));
    let service = only.0.iter().find(|(name, _)| name == "service_name").unwrap();
    assert_eq!(service.1, "unknown_service");
    assert_eq!(push(&loki, &one(r#"{app="web", job="j"}"#, at, "y")).0, 204);
    assert_eq!(loki.query(SINGLE, r#"{service_name="web"}"#).len(), 1);
    // Lines are cut where this is configured.
    let loki = limited(Limits { line: 4, truncate: true, ..Default::default() }).await;
    assert_eq!(push(&loki, &one(r#"{a="b"}"#, at, "123456")).0, 204);
    assert_eq!(loki.query(SINGLE, r#"{a="b"}"#)[0].entry.line, "1234");
    let metadata = Limits { allow_metadata: false, ..Default::default() };
    let (status, message) = push(&limited(metadata).await, &request(&[("k", "v")]));
    assert_eq!(status, 400);
    assert!(message.contains("includes structured metadata"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_misbehaves_on_command() {
    for (then, status, stored) in [
        (Then::Store, 204, 1),
        (Then::Refuse(503, None), 503, 0),
        (Then::StoreButFail(500), 500, 1),
        (Then::Cut, 0, 0),
        (Then::LoseAnswer, 0, 1),
    ] {
        let loki = Loki::start(Options::default()).await;
        loki.script([then]);
        let request = one(r#"{a="b"}"#, now(), "x");
        let (got, _) = push(&loki, &request);
        assert_eq!((got, loki.stored(), loki.script_left()), (status, stored, 0), "{then:?}");
        assert_eq!(push(&loki, &request).0, 204);
        assert_eq!((loki.stored(), loki.resent()), (1, stored), "{then:?}");
        let answers: Vec<_> = loki.requests().iter().map(|r| r.answer.unwrap_or(0)).collect();
        assert_eq!((answers, loki.rejections()), (vec![status, 204], Vec::new()));
    }
    for (faults, status) in [
        (Faults { cut: 100, ..Default::default() }, 0),
        (Faults { fail: (100, 502), ..Default::default() }, 502),
        (Faults { throttle: (100, None), ..Default::default() }, 429),
        (Faults { store_but_fail: 100, ..Default::default() }, 503),
        (Faults { lose_answer: 100, ..Default::default() }, 0),
    ] {
        let loki = Loki::start(Options::default()).await;
        loki.set_faults(faults.clone());
        assert_eq!(push(&loki, &one(r#"{a="b"}"#, now(), "x")).0, status, "{faults:?}");
    }
}

/// Sends a request and waits for nothing but the answer.
async fn begin(to: std::net::SocketAddr, labels: &'static str) -> u16 {
    let stream = TcpStream::connect(to).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let body = Full::new(Bytes::from(compress(&one(labels, now(), "x"))));
    let request = Request::post(PATH).header("host", "h").header(PROTOBUF.0, PROTOBUF.1).body(body).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    connection.abort();
    answer.status().as_u16()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_not_under_way_twice() {
    for (then, stored) in [(Then::Hang, 0), (Then::StoreAndHang, 1)] {
        let loki = Loki::start(Options::default()).await;
        loki.script([then]);
        let first = tokio::spawn(begin(loki.address, r#"{a="b"}"#));
        eventually(Duration::from_secs(5), "it is under way", || loki.in_flight() == 1).await;
        eventually(Duration::from_secs(5), "it is stored", || loki.stored() == stored).await;
        assert_eq!(begin(loki.address, r#"{a="c"}"#).await, 204);
        assert_eq!(loki.violations(), Vec::<String>::new());
        assert_eq!(begin(loki.address, r#"{a="b"}"#).await, 204);
        assert!(loki.violations()[0].starts_with("order-at-once"), "{:?}", loki.violations());
        first.abort();
        assert!(first.await.is_err());
        eventually(Duration::from_secs(5), "it is over", || loki.in_flight() == 0).await;
        assert_eq!(begin(loki.address, r#"{a="b"}"#).await, 204);
        assert_eq!(loki.violations().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_otlp_endpoint_has_its_own_rules() {
    let record = |key: &str| LogRecord {
        time_unix_nano: now() as u64,
        body: Some(AnyValue { value: Some(Value::StringValue("hi".into())) }),
        attributes: attributes(&[(key, &"t1")]),
        ..Default::default()
    };
    let request = |log_records| ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource {
                attributes: attributes(&[("service.name", &"shop"), ("host.name", &"h")]),
                ..Default::default()
            }),
            scope_logs: vec![ScopeLogs { log_records, ..Default::default() }],
            ..Default::default()
        }],
    };
    let good = request(vec![record("tenant.id")]);
    let plain = good.encode_to_vec();
    let json = serde_json::to_vec(&good).unwrap();
    let zstd = zstd::stream::encode_all(&plain[..], 1).unwrap();
    let with = |encoding| [PROTOBUF, ("content-encoding", encoding)];
    let cases: Vec<(&str, &[(&str, &str)], &[u8], u16, usize)> = vec![
        ("protobuf", &[PROTOBUF], &plain, 204, 1),
        ("JSON", &[JSON], &json, 204, 1),
        ("a parameter", &[("content-type", "application/x-protobuf; charset=utf-8")], &plain, 400, 0),
        ("no records", &[PROTOBUF], b"", 422, 0),
        ("not protobuf", &[PROTOBUF], b"x", 400, 0),
    ];
    let zstd_case = with("zstd");
    let br_case = with("br");
    let more: [(&str, &[(&str, &str)], &[u8], u16, usize); 2] =
        [("zstd", &zstd_case, &zstd, 204, 1), ("br", &br_case, &plain, 400, 0)];
    for (what, headers, body, status, stored) in cases.into_iter().chain(more) {
        let loki = Loki::start(Options::default()).await;
        let (got, message) = post(&loki, "/otlp/v1/logs", headers, body);
        assert_eq!((got, loki.stored()), (status, stored), "{what}: {message}");
        let found = loki.query(SINGLE, r#"{service_name="shop"} | tenant_id="t1" | host_name="h""#);
        assert_eq!(found.len(), stored, "{what}");
    }
    let loki = Loki::start(Options::default()).await;
    let bad = request(vec![record("tenant.id"), record("é")]).encode_to_vec();
    assert_eq!((post(&loki, "/otlp/v1/logs", &[PROTOBUF], &bad).0, loki.stored()), (400, 0));
    let mut old = record("a");
    old.time_unix_nano = 1;
    let partly = request(vec![record("tenant.id"), old]).encode_to_vec();
    assert_eq!((post(&loki, "/otlp/v1/logs", &[PROTOBUF], &partly).0, loki.stored()), (400, 1));
    loki.script([Then::Refuse(500, None)]);
    assert_eq!(post(&loki, "/otlp/v1/logs", &[PROTOBUF], &plain).0, 503);
}
