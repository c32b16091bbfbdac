//! Whatever arrives on either port, the sender gets the right answer, memory stays bounded and the agent goes on
//! serving others: malformed frames and messages, HTTP/2 garbage, broken JSON, compression bombs, clients that
//! never finish.
//!
//! `TIDEGATE_IDLE` sets how many connections stay open without a request (10 000, or what the limit of open files
//! allows).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code"
)]
#![allow(clippy::disallowed_methods, reason = "tests have no supervisor")]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::agent::Agent;
use support::grpc::{self, RpcStatus};
use support::load::{self, Target};
use support::payload::Template;
use support::sink::{Options, Sink};
use support::{Compression, Signal, from_env, process};

const AGENT: &str = "
receivers:
  otlp:
    protocols:
      grpc: {endpoint: '127.0.0.1:@GRPC@'}
      http: {endpoint: '127.0.0.1:@HTTP@'}
processors:
  memory_limiter: {check_interval: 1s, limit_mib: @LIMIT@}
exporters:
  otlp_grpc: {endpoint: '@TO@', tls: {insecure: true}}
service:
  pipelines:
    traces: {receivers: [otlp], processors: [memory_limiter], exporters: [otlp_grpc]}
    metrics: {receivers: [otlp], processors: [memory_limiter], exporters: [otlp_grpc]}
    logs: {receivers: [otlp], processors: [memory_limiter], exporters: [otlp_grpc]}
";

/// The budget for data, and what the process may have beyond it.
const LIMIT_MIB: u64 = 128;
const ALLOWANCE_MIB: u64 = 32;

async fn start(limit_mib: u64) -> (Sink, Agent) {
    let sink = Sink::start(Options { items: 100_000, ..Default::default() }).await;
    let agent = Agent::builder(env!("CARGO_BIN_EXE_tidegate"), AGENT)
        .mark("TO", sink.grpc)
        .mark("LIMIT", limit_mib)
        .start();
    (sink, agent)
}

/// The agent is alive, lean, and serves a well-behaved client on both ports.
async fn still_serves(agent: &mut Agent, sink: &Sink, limit_mib: u64) {
    assert!(agent.is_running(), "the agent died");
    let peak = agent.peak_rss() >> 20;
    assert!(peak < limit_mib + ALLOWANCE_MIB, "RSS reached {peak} MiB");
    let before = sink.items();
    let report = load::run(load::Options {
        targets: vec![Target::Grpc(agent.grpc), Target::Http(agent.http)],
        connections: 2,
        items_per_request: vec![10],
        signals: Signal::ALL.to_vec(),
        items: 600,
        ..Default::default()
    })
    .await;
    assert_eq!(report.acknowledged, 600, "{report:?}");
    support::eventually(Duration::from_secs(10), "what a good client sends arrives", || {
        sink.items() == before + 600
    })
    .await;
    assert_eq!(sink.violations(), Vec::<String>::new());
}

fn traces(items: usize) -> Vec<u8> {
    let mut body = Vec::new();
    Template::new(Signal::Traces, items, 0).write(1, &mut body);
    body
}

/// An attribute value nested `depth` levels deep, in an otherwise valid request.
fn nested(depth: usize) -> Vec<u8> {
    let wrap = |tag: u8, inner: Vec<u8>| {
        let mut out = vec![tag];
        prost::encoding::encode_varint(inner.len() as u64, &mut out);
        out.extend(inner);
        out
    };
    // AnyValue.array_value = 5, ArrayValue.values = 1.
    let mut value = wrap(0x0a, b"bottom".to_vec());
    for _ in 0..depth {
        value = wrap(0x2a, wrap(0x0a, value));
    }
    let attribute = [wrap(0x0a, b"key".to_vec()), wrap(0x12, value)].concat();
    let span = [wrap(0x0a, vec![1; 16]), wrap(0x12, vec![2; 8]), wrap(0x4a, attribute)].concat();
    wrap(0x0a, wrap(0x12, wrap(0x12, span)))
}

/// A gRPC request as raw as HTTP/2 allows: the HTTP status and the gRPC status.
async fn call(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> (u16, Option<u32>) {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::post(format!("http://{address}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = sender.send_request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    let trailers = body.collect().await.unwrap().trailers().cloned();
    let status = RpcStatus::read(trailers.as_ref().unwrap_or(&head.headers));
    (head.status.as_u16(), status.map(|s| s.code as u32))
}

const PLAIN: &[(&str, &str)] = &[("content-type", "application/grpc"), ("te", "trailers")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_grpc_gets_its_status() {
    let (sink, mut agent) = start(LIMIT_MIB).await;
    let path = Signal::Traces.grpc_path();
    let with = |name: &'static str, value: &'static str| [PLAIN, &[(name, value)]].concat();
    let framed = |flag: u8, length: u32, message: &[u8]| {
        let mut out = vec![flag];
        out.extend(length.to_be_bytes());
        out.extend(message);
        out
    };
    let good = traces(3);
    let whole = framed(0, good.len() as u32, &good);
    let bomb = |encoding: Compression| {
        let packed = encoding.compress(&vec![0u8; 512 << 20]);
        framed(1, packed.len() as u32, &packed)
    };
    type Case<'a> = (&'a str, &'a str, Vec<(&'a str, &'a str)>, Vec<u8>, &'a [u32]);
    let cases: Vec<Case> = vec![
        ("good", path, PLAIN.to_vec(), whole.clone(), &[grpc::OK]),
        ("good, empty message", path, PLAIN.to_vec(), framed(0, 0, b""), &[grpc::OK]),
        ("no message at all", path, PLAIN.to_vec(), vec![], &[grpc::INTERNAL, grpc::INVALID_ARGUMENT]),
        ("half a prefix", path, PLAIN.to_vec(), vec![0, 0], &[grpc::INTERNAL, grpc::INVALID_ARGUMENT]),
        (
            "ends early",
            path,
            PLAIN.to_vec(),
            framed(0, 4000, b"short"),
            &[grpc::INTERNAL, grpc::INVALID_ARGUMENT],
        ),
        ("claims 4 GiB", path, PLAIN.to_vec(), framed(0, u32::MAX, b"x"), &[grpc::RESOURCE_EXHAUSTED]),
        ("flag 7", path, PLAIN.to_vec(), framed(7, 1, b"x"), &[grpc::INTERNAL, grpc::INVALID_ARGUMENT]),
        ("no protobuf", path, PLAIN.to_vec(), framed(0, 3, &[0xff; 3]), &[grpc::INVALID_ARGUMENT]),
        ("truncated protobuf", path, PLAIN.to_vec(), framed(0, 100, &good[..100]), &[grpc::INVALID_ARGUMENT]),
        (
            "nested too deep",
            path,
            PLAIN.to_vec(),
            grpc::frame(&nested(5000), false).to_vec(),
            &[grpc::INVALID_ARGUMENT],
        ),
        (
            "compressed without saying how",
            path,
            PLAIN.to_vec(),
            framed(1, good.len() as u32, &good),
            &[grpc::INTERNAL, grpc::INVALID_ARGUMENT, grpc::UNIMPLEMENTED],
        ),
        ("unknown encoding", path, with("grpc-encoding", "br"), framed(1, 1, b"x"), &[grpc::UNIMPLEMENTED]),
        (
            "gzip that is none",
            path,
            with("grpc-encoding", "gzip"),
            framed(1, 4, b"nope"),
            &[grpc::INVALID_ARGUMENT, grpc::INTERNAL],
        ),
        (
            "gzip bomb",
            path,
            with("grpc-encoding", "gzip"),
            bomb(Compression::Gzip),
            &[grpc::RESOURCE_EXHAUSTED],
        ),
        (
            "zstd bomb",
            path,
            with("grpc-encoding", "zstd"),
            bomb(Compression::Zstd),
            &[grpc::RESOURCE_EXHAUSTED],
        ),
        (
            "no such method",
            "/opentelemetry.Nothing/Export",
            PLAIN.to_vec(),
            whole.clone(),
            &[grpc::UNIMPLEMENTED],
        ),
    ];
    for (name, path, headers, body, allowed) in cases {
        let (http, status) =
            tokio::time::timeout(Duration::from_secs(20), call(agent.grpc, path, &headers, body))
                .await
                .unwrap_or_else(|_| panic!("{name}: no answer"));
        assert_eq!(http, 200, "{name}: gRPC statuses travel in HTTP 200");
        assert!(status.is_some_and(|s| allowed.contains(&s)), "{name}: {status:?}, allowed {allowed:?}");
    }
    let wrong_type = [("content-type", "text/html"), ("te", "trailers")];
    let (http, status) = call(agent.grpc, path, &wrong_type, whole).await;
    assert!(http == 415 || status.is_some_and(|s| s != grpc::OK), "wrong content type: {http} {status:?}");
    still_serves(&mut agent, &sink, LIMIT_MIB).await;
}

/// One HTTP/1.1 request as bytes; the status of the answer, 0 when the connection was closed without one.
fn raw(address: SocketAddr, request: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    // A server may answer and close before it has read everything.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while !answer.windows(2).any(|w| w == b"\r\n") {
        match stream.read(&mut chunk) {
            Ok(n) if n > 0 => answer.extend_from_slice(&chunk[..n]),
            _ => break,
        }
    }
    let line = String::from_utf8_lossy(&answer);
    line.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0)
}

fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: agent\r\n{headers}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_http_gets_its_status() {
    let (sink, mut agent) = start(LIMIT_MIB).await;
    let proto = "content-type: application/x-protobuf\r\n";
    let json = "content-type: application/json\r\n";
    let packed = |encoding: &str| format!("{proto}content-encoding: {encoding}\r\n");
    let deep_json = format!("{{\"resourceSpans\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_value = format!(
        "{{\"resourceSpans\":[{{\"resource\":{{\"attributes\":[{{\"key\":\"k\",\"value\":{}{{}}{}}}]}}}}]}}",
        "{\"arrayValue\":{\"values\":[".repeat(20_000),
        "]}}".repeat(20_000)
    );
    let bomb = |encoding: Compression| encoding.compress(&vec![b' '; 512 << 20]);
    let good = traces(3);
    let cases: Vec<(&str, Vec<u8>, &[u16])> = vec![
        ("good", post("/v1/traces", proto, &good), &[200]),
        ("good, gzip", post("/v1/traces", &packed("gzip"), &Compression::Gzip.compress(&good)), &[200]),
        ("empty", post("/v1/traces", proto, b""), &[200]),
        ("empty json", post("/v1/traces", json, b"{}"), &[200]),
        ("wrong method", b"GET /v1/traces HTTP/1.1\r\nhost: agent\r\n\r\n".to_vec(), &[405]),
        ("wrong path", post("/v1/nothing", proto, &good), &[404]),
        ("no content type", post("/v1/traces", "", &good), &[415]),
        ("wrong content type", post("/v1/traces", "content-type: text/plain\r\n", &good), &[415]),
        ("no protobuf", post("/v1/traces", proto, b"\xff\xff\xff"), &[400]),
        ("truncated protobuf", post("/v1/traces", proto, &good[..good.len() - 9]), &[400]),
        ("nested too deep", post("/v1/traces", proto, &nested(5000)), &[400]),
        ("no json", post("/v1/logs", json, b"hello"), &[400]),
        ("half a json", post("/v1/logs", json, b"{\"resourceLogs\":[{"), &[400]),
        ("json of another shape", post("/v1/logs", json, b"{\"resourceLogs\":{\"a\":1}}"), &[400]),
        ("deep json", post("/v1/traces", json, deep_json.as_bytes()), &[400]),
        ("deep json value", post("/v1/traces", json, deep_value.as_bytes()), &[400]),
        ("not utf-8", post("/v1/logs", json, b"{\"\xff\":1}"), &[400]),
        ("unknown encoding", post("/v1/traces", &packed("br"), &good), &[400]),
        ("gzip that is none", post("/v1/traces", &packed("gzip"), &good), &[400]),
        (
            "truncated gzip",
            post("/v1/traces", &packed("gzip"), &Compression::Gzip.compress(&good)[..100]),
            &[400],
        ),
        ("gzip bomb", post("/v1/traces", &packed("gzip"), &bomb(Compression::Gzip)), &[400, 413]),
        ("zstd bomb", post("/v1/traces", &packed("zstd"), &bomb(Compression::Zstd)), &[400, 413]),
        (
            "claims a terabyte",
            format!("POST /v1/traces HTTP/1.1\r\nhost: a\r\n{proto}content-length: 1099511627776\r\n\r\nx")
                .into_bytes(),
            &[400, 413],
        ),
        (
            "bad chunk",
            format!("POST /v1/traces HTTP/1.1\r\nhost: a\r\n{proto}transfer-encoding: chunked\r\n\r\nzz\r\n")
                .into_bytes(),
            &[400, 0],
        ),
        ("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(50), &[400, 0]),
        (
            "endless header",
            [b"POST /v1/traces HTTP/1.1\r\nx: ".as_slice(), &vec![b'a'; 4 << 20]].concat(),
            &[400, 431, 0],
        ),
    ];
    for (name, request, allowed) in cases {
        let address = agent.http;
        let status = tokio::task::spawn_blocking(move || raw(address, &request)).await.unwrap();
        assert!(allowed.contains(&status), "{name}: {status}, allowed {allowed:?}");
    }
    still_serves(&mut agent, &sink, LIMIT_MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_bombs_at_once_stay_within_the_budget() {
    let (sink, mut agent) = start(LIMIT_MIB).await;
    let bombs: Vec<Vec<u8>> = [Compression::Gzip, Compression::Zstd]
        .into_iter()
        .map(|encoding| {
            let headers =
                format!("content-type: application/x-protobuf\r\ncontent-encoding: {}\r\n", encoding.name());
            post("/v1/logs", &headers, &encoding.compress(&vec![0u8; 256 << 20]))
        })
        .collect();
    let mut attacks = tokio::task::JoinSet::new();
    for n in 0..64 {
        let (address, bomb) = (agent.http, bombs[n % bombs.len()].clone());
        attacks.spawn_blocking(move || raw(address, &bomb));
    }
    while let Some(status) = attacks.join_next().await {
        let status = status.unwrap();
        // A bomb is refused for what it is, or because there is no memory left to find out.
        assert!([400, 413, 429, 503].contains(&status), "status {status}");
    }
    still_serves(&mut agent, &sink, LIMIT_MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_garbage_harms_nobody_else() {
    let (sink, mut agent) = start(LIMIT_MIB).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        out.extend([kind, flags]);
        out.extend(stream.to_be_bytes());
        out.extend(payload);
        out
    };
    let mut rng = fastrand::Rng::with_seed(99);
    let opening = [preface.as_slice(), &settings].concat();
    let then = |frames: Vec<u8>| [opening.clone(), frames].concat();
    let mut attacks: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\nhost: agent\r\n\r\n".to_vec(),
        preface[..10].to_vec(),
        then(frame(0, 0, 1, b"data before headers")),
        then(frame(1, 4, 1, &[0xff; 64])),
        then(frame(1, 4, 2, b"")),
        then(frame(9, 4, 1, b"continuation of nothing")),
        then(frame(8, 0, 0, &[0, 0, 0, 0])),
        then(vec![0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]),
        // A flood of settings, of pings, of stream resets.
        then((0..10_000).flat_map(|_| frame(4, 0, 0, b"")).collect()),
        then((0..10_000).flat_map(|_| frame(6, 0, 0, &[7; 8])).collect()),
        then((0..10_000u32).flat_map(|n| frame(3, 0, n * 2 + 1, &[0, 0, 0, 8])).collect()),
    ];
    for _ in 0..200 {
        let noise: Vec<u8> = (0..rng.usize(1..400)).map(|_| rng.u8(..)).collect();
        attacks.push(noise.clone());
        attacks.push(then(noise));
    }
    for attack in attacks {
        for address in [agent.grpc, agent.http] {
            let attack = attack.clone();
            tokio::task::spawn_blocking(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
                let _ = stream.write_all(&attack);
                let _ = stream.shutdown(std::net::Shutdown::Write);
                stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                // Whatever the answer, it ends: the connection does not outlive its sender.
                let mut answer = Vec::new();
                match stream.read_to_end(&mut answer) {
                    Err(e)
                        if [std::io::ErrorKind::WouldBlock, std::io::ErrorKind::TimedOut]
                            .contains(&e.kind()) =>
                    {
                        panic!("a closed garbage connection is still open on {address}: {attack:02x?}")
                    }
                    _ => {}
                }
            })
            .await
            .unwrap();
        }
    }
    still_serves(&mut agent, &sink, LIMIT_MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_never_finish_do_not_keep_others_out() {
    let limit = process::raise_open_files();
    let wanted = from_env("TIDEGATE_IDLE", 10_000);
    let idle = wanted.min(limit.saturating_sub(1000)) as usize;
    if (idle as u64) < wanted {
        println!("{idle} instead of {wanted} connections: the limit of open files is {limit}");
    }
    // Connections themselves are no data; what they cost is bounded by how many there are.
    let limit_mib = 512;
    let (sink, mut agent) = start(limit_mib).await;
    let before = agent.rss();
    // Beginnings that each port has to wait on; what is wrong from the first byte may be closed at once.
    let grpc: [&[u8]; 3] = [b"", b"PRI * HT", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"];
    let http: [&[u8]; 5] = [
        b"",
        b"POST /v1/traces HTTP/1.1\r\nhost: agent\r\ncontent-t",
        b"POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-protobuf\r\ncontent-length: 100000\r\n\r\nx",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        b"PRI * HT",
    ];
    let mut held = Vec::with_capacity(idle);
    for n in 0..idle {
        let (address, opening) = match n % 2 {
            0 => (agent.grpc, grpc[n / 2 % grpc.len()]),
            _ => (agent.http, http[n / 2 % http.len()]),
        };
        let mut stream = None;
        // The accept queue may be full for a moment.
        for _ in 0..100 {
            match TcpStream::connect_timeout(&address, Duration::from_secs(2)) {
                Ok(open) => {
                    stream = Some(open);
                    break;
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
        let mut stream = stream.unwrap_or_else(|| panic!("connection {n} is not accepted"));
        stream.write_all(opening).unwrap();
        held.push(stream);
    }
    support::eventually(Duration::from_secs(20), "every connection is accepted", || {
        process::open_files(agent.pid()) >= idle
    })
    .await;
    let each = (agent.rss() - before) / idle as u64;
    println!("{idle} connections without a request: {each} bytes each");
    assert!(each < 32 << 10, "an idle connection costs {each} bytes");
    still_serves(&mut agent, &sink, limit_mib).await;
    // They do not keep the agent from ending either.
    let status = tokio::task::block_in_place(|| agent.terminate(Duration::from_secs(30)));
    assert!(status.success(), "{status}");
    drop(held);
}
