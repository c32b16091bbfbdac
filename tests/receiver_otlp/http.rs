//! HTTP: what every kind of request is answered.

use std::time::Duration;

use http::Method;
use prost::Message;
use tidegate::config::types::Optional;
use tidegate::config::{Config, Cx, Node, Value};
use tidegate::net::compress::{Codec, deflate};
use tidegate::pdata::Signal;
use tidegate::pipeline::Verdict;
use tidegate::receivers::otlp::{ContentCoding, CorsConfig, HttpAuthConfig, HttpProtocolConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::kit::*;
use crate::support::grpc::RpcStatus;

const PB: &str = "application/x-protobuf";
const JSON: &str = "application/json";
const PATHS: [&str; 3] = ["/v1/traces", "/v1/metrics", "/v1/logs"];
const ONE_LOG: &str = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"x"}}]}]}]}"#;

#[tokio::test]
async fn every_signal_arrives_byte_by_byte() {
    let rig = Rig::http(http()).await;
    for (signal, path) in Signal::ALL.into_iter().zip(PATHS) {
        for items in [1, 20, 200, 2000] {
            let sent = request(signal, items);
            let reply = rig.post(path, PB, sent.clone()).await;
            assert_eq!((reply.status, reply.header("content-type"), reply.text()), (200, PB, ""));
            let got = rig.pipe.take();
            assert_eq!((got.len(), got[0].signal, got[0].items), (1, signal, items));
            assert_eq!(got[0].rope.to_bytes(), sent);
            assert_eq!(rig.cx.ledger.in_flight(), sent.len());
        }
    }
    assert_eq!(rig.cx.ledger.in_flight(), 0);
    assert_eq!(rig.count("otelcol_receiver_accepted_metric_points", "http"), 2221);
}

#[tokio::test]
async fn json_becomes_protobuf() {
    let rig = Rig::http(http()).await;
    let reply = rig.post("/v1/logs", "application/json; charset=utf-8", ONE_LOG).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, JSON));
    assert_eq!(reply.text(), r#"{"partialSuccess":{}}"#);
    let got = rig.pipe.take();
    assert_eq!(got[0].items, 1);
    assert_eq!(got[0].rope.to_bytes(), &b"\x0a\x09\x12\x07\x12\x05\x2a\x03\x0a\x01x"[..]);
    assert_eq!(rig.cx.ledger.in_flight(), got[0].rope.len());
    // Protobuf larger than its JSON is taken too.
    let bounds = vec!["1"; 1000].join(",");
    let json = format!(
        r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"h","histogram":{{"dataPoints":[{{"explicitBounds":[{bounds}]}}]}}}}]}}]}}]}}"#
    );
    assert_eq!(rig.post("/v1/metrics", JSON, json.clone()).await.status, 200);
    assert!(rig.pipe.bodies()[0].len() > 8000 && json.len() < 8000);
}

#[tokio::test]
async fn verdicts_become_statuses() {
    let rig = Rig::http(http()).await;
    let cases = [
        (retry(None), 503, "1", 14),
        (retry(Some(7)), 503, "7", 14),
        (rejected(true), 400, "", 3),
        (rejected(false), 500, "", 13),
    ];
    for (verdict, status, after, code) in cases {
        rig.answers(verdict.clone());
        let message = match verdict {
            Verdict::Retry { reason, .. } | Verdict::Rejected { reason, .. } => reason,
            Verdict::Accepted => String::new(),
        };
        let reply = rig.post("/v1/traces", PB, request(Signal::Traces, 2)).await;
        assert_eq!(
            (reply.status, reply.header("retry-after"), reply.header("content-type")),
            (status, after, PB)
        );
        let body = RpcStatus::decode(&reply.body[..]).unwrap();
        assert_eq!((body.code, body.message.as_str()), (code, message.as_str()));
        assert_eq!(body.details.len(), usize::from(!after.is_empty()));
        let reply = rig.post("/v1/logs", JSON, ONE_LOG).await;
        assert_eq!(
            (reply.status, reply.header("retry-after"), reply.header("content-type")),
            (status, after, JSON)
        );
        let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!((&body["code"], &body["message"]), (&code.into(), &message.into()));
    }
    assert_eq!(rig.count("otelcol_receiver_refused_spans", "http"), 8);
    assert_eq!(rig.count("otelcol_receiver_refused_log_records", "http"), 4);
}

#[tokio::test]
async fn wrong_requests_get_their_status() {
    let config = HttpProtocolConfig { max_request_body_size: 4096, ..http() };
    let rig = Rig::start(None, Some(config), 64 << 20, &[Signal::Traces, Signal::Logs]).await;
    let text = "text/plain";
    let (post, get) = (Method::POST, Method::GET);
    let not_allowed = "405 method not allowed, supported: [POST]";
    let unsupported = "415 unsupported media type, supported: [application/json, application/x-protobuf]";
    let fallback = r#"{"code": 13, "message": "failed to marshal error message"}"#;
    type Case<'a> = (&'a Method, &'a str, &'a [(&'a str, &'a str)], &'a [u8], u16, &'a str, &'a str);
    let cases: [Case; 13] = [
        (&get, "/v1/traces", &[], b"", 405, text, not_allowed),
        (&Method::OPTIONS, "/v1/traces", &[("content-type", PB)], b"", 405, text, not_allowed),
        (&post, "/v1/traces", &[], b"", 415, text, unsupported),
        (&post, "/v1/traces", &[("content-type", "application/xml")], b"", 415, text, unsupported),
        (&post, "/v1/nothing", &[("content-type", PB)], b"", 404, text, "404 page not found\n"),
        (&get, "/", &[], b"", 404, text, "404 page not found\n"),
        // No pipeline takes metrics.
        (&post, "/v1/metrics", &[("content-type", PB)], b"", 404, text, "404 page not found\n"),
        (&post, "/v1/traces", &[("content-type", PB)], b"", 200, PB, ""),
        (&post, "/v1/traces", &[("content-type", JSON)], b"{}", 200, JSON, "partialSuccess"),
        (&post, "/v1/traces", &[("content-type", PB)], b"\x0a\x05x", 400, PB, "not a valid traces request"),
        (&post, "/v1/traces", &[("content-type", JSON)], b"{\"a\":", 400, JSON, "not OTLP/JSON"),
        (
            &post,
            "/v1/logs",
            &[("content-type", JSON), ("content-encoding", "br")],
            b"{}",
            400,
            JSON,
            "unsupported Content-Encoding: br",
        ),
        (&post, "/v1/logs", &[("content-encoding", "br")], b"{}", 500, text, fallback),
    ];
    for (method, path, headers, body, status, content_type, want) in cases {
        let reply = rig.send(method.clone(), path, headers, body.to_vec()).await;
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        assert_eq!(
            (reply.status, reply.header("content-type")),
            (status, content_type),
            "{method} {path} {text}"
        );
        assert!(text.contains(want), "{method} {path} {headers:?}: {text}");
    }
    assert!(rig.pipe.bodies().is_empty());

    // Too large: as announced, as it comes, and when inflated.
    let large = vec![0u8; 5000];
    assert_eq!(rig.post("/v1/traces", PB, large.clone()).await.status, 413);
    let packed = deflate(Codec::Gzip, None, &large.into()).unwrap();
    assert!(packed.len() < 4096);
    let headers = [("content-type", PB), ("content-encoding", "gzip")];
    assert_eq!(rig.send(post.clone(), "/v1/traces", &headers, packed).await.status, 413);
    let mut stream = TcpStream::connect(rig.otlp.http_address().unwrap()).await.unwrap();
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: {PB}\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..3 {
        stream.write_all(format!("800\r\n{}\r\n", "x".repeat(2048)).as_bytes()).await.unwrap();
    }
    assert!(read_some(&mut stream).await.starts_with("HTTP/1.1 413 "));
    assert_eq!(rig.count("tidegate_receiver_errors", "too_large"), 3);
    assert_eq!(rig.cx.ledger.in_flight(), 0);
}

#[tokio::test]
async fn content_encodings() {
    let rig = Rig::http(http()).await;
    let sent = request(Signal::Metrics, 100);
    for codec in [
        Codec::Gzip,
        Codec::Zstd,
        Codec::Zlib,
        Codec::Deflate,
        Codec::Snappy,
        Codec::SnappyFramed,
        Codec::Lz4,
    ] {
        let packed = deflate(codec, None, &sent.clone().into()).unwrap();
        let headers = [("content-type", PB), ("content-encoding", codec.name())];
        let reply = rig.send(Method::POST, "/v1/metrics", &headers, packed).await;
        assert_eq!(reply.status, 200, "{codec:?}");
        assert_eq!(rig.pipe.bodies(), std::slice::from_ref(&sent), "{codec:?}");
        rig.pipe.take();
        assert_eq!(rig.cx.ledger.in_flight(), 0);
    }
    let headers = [("content-type", PB), ("content-encoding", "gzip")];
    assert_eq!(rig.send(Method::POST, "/v1/metrics", &headers, sent.clone()).await.status, 400);

    let only = HttpProtocolConfig { compression_algorithms: vec![ContentCoding::Zstd], ..http() };
    let rig = Rig::http(only).await;
    // Nothing listed but zstd: neither plain nor gzip.
    assert_eq!(rig.post("/v1/metrics", PB, sent.clone()).await.status, 400);
    assert_eq!(rig.send(Method::POST, "/v1/metrics", &headers, sent.clone()).await.status, 400);

    let none = HttpProtocolConfig { compression_algorithms: vec![], ..http() };
    let rig = Rig::http(none).await;
    // Nothing is ever decompressed: the header means nothing.
    assert_eq!(rig.send(Method::POST, "/v1/metrics", &headers, sent.clone()).await.status, 200);
}

#[tokio::test]
async fn a_full_ledger_refuses_and_recovers() {
    let rig = Rig::start(None, Some(http()), 300 << 10, &Signal::ALL).await;
    let large = request(Signal::Traces, 400);
    assert_eq!(rig.post("/v1/traces", PB, large.clone()).await.status, 200);
    for _ in 0..5 {
        let reply = rig.post("/v1/traces", PB, large.clone()).await;
        assert_eq!((reply.status, reply.header("retry-after")), (503, "1"));
    }
    assert!(rig.cx.ledger.peak() <= rig.cx.ledger.budget());
    assert_eq!(rig.count("tidegate_receiver_errors", "memory"), 5);
    rig.pipe.take();
    assert_eq!(rig.post("/v1/traces", PB, large).await.status, 200);
}

#[tokio::test]
async fn cross_origin_requests() {
    let cors = CorsConfig {
        allowed_origins: vec!["https://*.example.com".into()],
        allowed_headers: vec!["X-Tenant".into()],
        exposed_headers: vec!["x-a".into(), "x-b".into()],
        max_age: 600,
    };
    let mut response_headers = tidegate::config::types::Headers::default();
    assert!(response_headers.insert("x-served-by", "tidegate"));
    let rig = Rig::http(HttpProtocolConfig { cors: Optional::on(cors), response_headers, ..http() }).await;
    let ask = |origin: &'static str, headers: &'static str| {
        vec![
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", headers),
        ]
    };
    let good = "https://app.example.com";
    let cases = [
        (ask(good, "content-type,x-tenant"), true),
        (ask("HTTPS://APP.example.com", "content-type"), true),
        (ask(good, "x-other"), false),
        (ask("https://example.org", "content-type"), false),
        (vec![("origin", good), ("access-control-request-method", "PUT")], false),
    ];
    for (headers, allowed) in cases {
        let reply = rig.send(Method::OPTIONS, "/v1/traces", &headers, "").await;
        let origin = if allowed { headers[0].1 } else { "" };
        assert_eq!((reply.status, reply.header("access-control-allow-origin")), (204, origin), "{headers:?}");
        assert_eq!(reply.header("access-control-allow-credentials"), if allowed { "true" } else { "" });
        assert_eq!(reply.header("access-control-max-age"), if allowed { "600" } else { "" });
        assert_eq!(reply.header("x-served-by"), "tidegate");
    }
    for (origin, allowed) in [(good, true), ("https://example.org", false)] {
        let headers = [("origin", origin), ("content-type", PB)];
        let reply = rig.send(Method::POST, "/v1/traces", &headers, "").await;
        assert_eq!((reply.status, reply.header("vary")), (200, "origin"));
        let (origin, exposed) = if allowed { (origin, "x-a, x-b") } else { ("", "") };
        assert_eq!(reply.header("access-control-allow-origin"), origin);
        assert_eq!(reply.header("access-control-expose-headers"), exposed);
    }
    let any = CorsConfig { allowed_origins: vec!["*".into()], ..CorsConfig::default() };
    let rig = Rig::http(HttpProtocolConfig { cors: Optional::on(any), ..http() }).await;
    let reply = rig.send(Method::OPTIONS, "/v1/traces", &ask(good, "content-type"), "").await;
    assert_eq!(reply.header("access-control-allow-origin"), "*");
}

#[tokio::test]
async fn authentication_metadata_and_paths() {
    let mut auth = HttpAuthConfig { request_params: vec!["authorization".into()], ..Default::default() };
    let id = Node::new(Default::default(), Value::Str("doorman".into()));
    auth.authenticator.decode_into(&id, &mut Cx::default());
    let config = HttpProtocolConfig {
        auth: Optional::on(auth),
        include_metadata: true,
        logs_url_path: "in/logs".to_owned(),
        ..http()
    };
    let rig = Rig::http(config).await;
    let reply = rig.post("/in/logs", JSON, ONE_LOG).await;
    assert_eq!((reply.status, reply.header("content-type")), (401, JSON));
    assert!(reply.text().contains("not on the list"));
    // Authentication comes before everything else.
    assert_eq!(rig.post("/nowhere", JSON, "").await.status, 401);

    for (path, header) in [("/in/logs", "letmein"), ("/in/logs?authorization=letmein", "x")] {
        let headers = [("content-type", JSON), ("x-scope-orgid", "acme"), ("authorization", header)];
        let headers = if path.contains('?') { &headers[..2] } else { &headers[..] };
        assert_eq!(rig.send(Method::POST, path, headers, ONE_LOG).await.status, 200, "{path}");
        let who = rig.pipe.take()[0].client.clone();
        assert_eq!(who.auth, [("subject".to_owned(), "guest".to_owned())]);
        assert_eq!(who.metadata("X-Scope-OrgID"), Some(&["acme".to_owned()][..]));
        assert_eq!(who.metadata("Host"), Some(&["rig".to_owned()][..]));
    }
    let headers = [("content-type", JSON), ("authorization", "letmein")];
    assert_eq!(rig.send(Method::POST, "/v1/logs", &headers, ONE_LOG).await.status, 404);
}

#[tokio::test]
async fn http2_with_prior_knowledge() {
    let rig = Rig::http(http()).await;
    let client = Grpc::connect(rig.otlp.http_address().unwrap()).await;
    let sent = request(Signal::Traces, 1000);
    let mut call = client.open("/v1/traces", &[("content-type", PB)]).await;
    call.send(sent.clone(), true).await;
    let answer = call.answer().await;
    assert_eq!((answer.http, answer.headers["content-type"].to_str().unwrap()), (200, PB));
    assert_eq!(rig.pipe.bodies(), [sent]);
}

#[tokio::test]
async fn timeouts_close_what_waits_too_long() {
    let short = Duration::from_millis(200);
    let config = HttpProtocolConfig {
        read_header_timeout: short,
        read_timeout: short,
        write_timeout: short,
        idle_timeout: short,
        ..http()
    };
    let rig = Rig::http(config).await;
    let head = format!("POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: {PB}\r\ncontent-length: ");
    // (what is sent, how the answer starts)
    let cases = [
        (String::new(), ""),
        ("POST /v1".to_owned(), ""),
        // Answered, then idle.
        (format!("{head}0\r\n\r\n"), "HTTP/1.1 200 "),
        // The body never comes.
        (format!("{head}5\r\n\r\nab"), "HTTP/1.1 503 "),
    ];
    for (sent, want) in cases {
        let mut stream = TcpStream::connect(rig.otlp.http_address().unwrap()).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut all = Vec::new();
        tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut all)).await.unwrap().unwrap();
        let all = String::from_utf8(all).unwrap();
        assert!(if want.is_empty() { all.is_empty() } else { all.starts_with(want) }, "{sent:?}: {all}");
    }
    // A pipeline that does not answer in time.
    rig.does(Does::Holds);
    assert_eq!(rig.post("/v1/traces", PB, request(Signal::Traces, 1)).await.status, 503);
}

#[tokio::test]
async fn connections_serve_one_request_or_many() {
    for (keep, answers) in [(true, 3), (false, 1)] {
        let rig = Rig::http(HttpProtocolConfig { keep_alives_enabled: keep, ..http() }).await;
        let mut stream = TcpStream::connect(rig.otlp.http_address().unwrap()).await.unwrap();
        let one = format!(
            "POST /v1/logs HTTP/1.1\r\nhost: x\r\ncontent-type: {JSON}\r\ncontent-length: 2\r\n\r\n{{}}"
        );
        // All at once: pipelined. The client then sends no more and still gets every answer.
        stream.write_all(one.repeat(3).as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut all = Vec::new();
        // A server that closes with requests unread may reset the connection.
        let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut all)).await.unwrap();
        assert_eq!(String::from_utf8(all).unwrap().matches("HTTP/1.1 200 ").count(), answers, "{keep}");
    }
}

/// Whatever the server says first.
async fn read_some(stream: &mut TcpStream) -> String {
    let mut buf = vec![0; 4096];
    let n = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut buf)).await.unwrap().unwrap();
    String::from_utf8_lossy(&buf[..n]).into_owned()
}
