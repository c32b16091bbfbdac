//! What the OTLP receiver costs: CPU-seconds of the receiving thread per million items, and memory per idle
//! connection.
//!
//! The receiver runs alone on one thread, the client on another; only the receiver's CPU time counts. Run with
//! `cargo bench --bench receiver`.

#![allow(missing_docs)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use support::payload::Template;
use tidegate::config::types::{Endpoint, Optional};
use tidegate::pdata::{self, Batch, Signal};
use tidegate::pipeline::{Consumer, Ledger, Outputs, Receiver, RunContext, Verdict};
use tidegate::receivers::otlp::{GrpcServerConfig, HttpProtocolConfig, Otlp, OtlpConfig, Protocols};
use tidegate::telemetry::Metrics;
use tokio::net::TcpStream;

const METHOD: &str = "http://bench:1/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const IN_FLIGHT: usize = 8;

/// Accepts everything and forgets it.
struct Sink;

impl Consumer for Sink {
    fn consume(&self, batch: Batch) {
        batch.acks.resolve(Verdict::Accepted);
    }

    fn holds_acks(&self) -> bool {
        false
    }
}

/// A receiver on a thread of its own.
struct Server {
    grpc: String,
    http: String,
    task: String,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Server {
    fn start() -> Self {
        let (up, ready) = mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::Builder::new().name("receiver".to_owned());
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let cx = RunContext {
                    supervisor: Default::default(),
                    ledger: Ledger::new(256 << 20),
                    metrics: Metrics::new(),
                    extensions: Arc::new(HashMap::new()),
                    readiness: Default::default(),
                };
                let endpoint = || Endpoint::of("127.0.0.1:0");
                let grpc = GrpcServerConfig { endpoint: endpoint(), ..Default::default() };
                let http = HttpProtocolConfig { endpoint: endpoint(), ..Default::default() };
                let protocols = Protocols { grpc: Optional::on(grpc), http: Optional::on(http) };
                let mut otlp = Otlp::new(OtlpConfig { protocols }, "otlp".to_owned());
                let sink: Arc<dyn Consumer> = Arc::new(Sink);
                let outputs: Outputs = [Some(sink.clone()), Some(sink.clone()), Some(sink)];
                otlp.start(outputs, &cx).await.unwrap();
                let task = std::fs::read_link("/proc/thread-self").unwrap();
                let (grpc, http) = (otlp.grpc_address().unwrap(), otlp.http_address().unwrap());
                up.send((grpc.to_owned(), http.to_owned(), format!("/proc/{}", task.display()))).unwrap();
                let _ = stopped.await;
                otlp.stop(Instant::now() + Duration::from_secs(1)).await;
            });
        };
        thread.spawn(run).unwrap();
        let (grpc, http, task) = ready.recv().unwrap();
        Server { grpc, http, task, _stop: stop }
    }

    /// CPU time of the receiver's thread.
    fn cpu(&self) -> Duration {
        let text = std::fs::read_to_string(format!("{}/schedstat", self.task)).unwrap();
        Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
    }
}

/// Sends requests over one connection, `IN_FLIGHT` at a time; frames are as large as the server allows, or
/// `frame` bytes.
async fn grpc(address: &str, message: &Bytes, requests: usize, frame: Option<usize>) {
    let io = TcpStream::connect(address).await.unwrap();
    io.set_nodelay(true).unwrap();
    let (mut sender, connection) = h2::client::Builder::new().handshake::<_, Bytes>(io).await.unwrap();
    tokio::spawn(connection);
    let mut open = tokio::task::JoinSet::new();
    for _ in 0..requests {
        if open.len() == IN_FLIGHT {
            open.join_next().await.unwrap().unwrap();
        }
        let request =
            Request::post(METHOD).header("content-type", "application/grpc").header("te", "trailers");
        sender = sender.ready().await.unwrap();
        let (response, mut body) = sender.send_request(request.body(()).unwrap(), false).unwrap();
        let message = message.clone();
        open.spawn(async move {
            let step = frame.unwrap_or(message.len());
            let mut rest = message;
            while !rest.is_empty() {
                // A frame is never larger than the window at hand, so wait until it has room for the whole piece.
                let piece = rest.split_to(step.min(rest.len()));
                body.reserve_capacity(piece.len());
                while body.capacity() < piece.len() {
                    std::future::poll_fn(|cx| body.poll_capacity(cx)).await.unwrap().unwrap();
                }
                body.send_data(piece, rest.is_empty()).unwrap();
            }
            let (head, mut body) = response.await.unwrap().into_parts();
            while let Some(data) = body.data().await {
                body.flow_control().release_capacity(data.unwrap().len()).unwrap();
            }
            let trailers = body.trailers().await.unwrap().unwrap_or(head.headers);
            assert_eq!(trailers["grpc-status"], "0");
        });
    }
    while let Some(done) = open.join_next().await {
        done.unwrap();
    }
}

async fn http(address: &str, message: &Bytes, requests: usize) {
    let io = hyper_util::rt::TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..requests {
        let body = http_body_util::Full::new(message.clone());
        let request =
            Request::post("/v1/traces").header("host", "b").header("content-type", "application/x-protobuf");
        let response = sender.send_request(request.body(body).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap();
        assert!(body.to_bytes().is_empty());
    }
}

/// Resident memory of the process, in bytes.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn main() {
    let client = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = Server::start();
    for (signal, items) in [(0, 512), (0, 10), (2, 512), (1, 512)] {
        let template = Template::new(support::Signal::ALL[signal], items, 0);
        let mut plain = Vec::new();
        template.write(1, &mut plain);
        let mut framed = vec![0];
        framed.extend((plain.len() as u32).to_be_bytes());
        framed.extend_from_slice(&plain);
        let (plain, framed) = (Bytes::from(plain), Bytes::from(framed));
        let requests = (support::from_env("BENCH_ITEMS", 2_000_000) as usize / items).min(100_000);
        let measure = |what: &str, run: &dyn Fn(usize)| {
            run(requests / 10);
            let before = server.cpu();
            run(requests);
            let spent = (server.cpu() - before).as_secs_f64();
            let per_million = spent / (requests * items) as f64 * 1e6;
            println!(
                "{:8} {items:4} items, {:6} bytes: {what:22} {per_million:.4} CPU-s per million items, {:.1} us per request",
                Signal::ALL[signal].name(),
                plain.len(),
                spent / requests as f64 * 1e6
            );
        };
        if signal == 0 {
            measure("gRPC, one frame", &|n| client.block_on(grpc(&server.grpc, &framed, n, None)));
            measure("gRPC, 16 KiB frames", &|n| client.block_on(grpc(&server.grpc, &framed, n, Some(16384))));
            measure("HTTP/1.1", &|n| client.block_on(http(&server.http, &plain, n)));
        }
        for (what, look) in [("count", pdata::count as fn(_, &_) -> _), ("check", pdata::check)] {
            let start = Instant::now();
            for _ in 0..requests {
                assert_eq!(look(Signal::ALL[signal], std::hint::black_box(&plain)), Ok(items));
            }
            let per_million = start.elapsed().as_secs_f64() / (requests * items) as f64 * 1e6;
            println!("{:31}: {what:22} {per_million:.4}", "");
        }
    }
    let idle = support::from_env("BENCH_IDLE", 2000) as usize;
    for (what, address) in [("gRPC", &server.grpc), ("HTTP", &server.http)] {
        let before = resident();
        let open = client.block_on(async {
            let mut open = Vec::with_capacity(idle);
            for _ in 0..idle {
                let stream = TcpStream::connect(address).await.unwrap();
                if what == "gRPC" {
                    use tokio::io::{AsyncReadExt, AsyncWriteExt};
                    let mut stream = stream;
                    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
                    let mut settings = [0; 9];
                    stream.read_exact(&mut settings).await.unwrap();
                    open.push(stream);
                } else {
                    open.push(stream);
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            open
        });
        let each = (resident() - before) as f64 / idle as f64 / 1024.0;
        println!("{idle} idle {what} connections: {each:.1} KiB each, both ends' bookkeeping included");
        drop(open);
    }
}
