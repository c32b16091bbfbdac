//! A client that sends like an SDK: over gRPC or HTTP, many requests in flight, retrying what may be retried and
//! nothing else. It keeps books of what it was told about every item.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::grpc::{self, RpcStatus};
use super::payload::Template;
use super::{Compression, Signal};

/// Where to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Grpc(SocketAddr),
    /// OTLP/HTTP with protobuf bodies over HTTP/1.1.
    Http(SocketAddr),
}

/// What to send, and how hard.
#[derive(Debug, Clone)]
pub struct Options {
    pub targets: Vec<Target>,
    /// Connections, dealt over the targets in turn.
    pub connections: usize,
    /// Requests in flight on a gRPC connection; an HTTP/1.1 connection carries one.
    pub in_flight: usize,
    /// Sizes of requests in items, used in turn.
    pub items_per_request: Vec<usize>,
    pub signals: Vec<Signal>,
    pub compressions: Vec<Compression>,
    /// Stop after this many items; numbered from 1.
    pub items: u64,
    /// Stop starting new requests at this time after the start.
    pub duration: Duration,
    /// Most requests a second over all connections; 0 is no limit.
    pub rate: u64,
    /// Give up retrying a request after this long; zero never retries.
    pub retry_for: Duration,
    /// Longest pause between attempts that the server did not ask for.
    pub max_backoff: Duration,
    /// How long to wait for an answer.
    pub timeout: Duration,
    /// Headers on every request.
    pub headers: Vec<(&'static str, String)>,
    /// Keep books by item.
    pub keep_books: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            targets: Vec::new(),
            connections: 1,
            in_flight: 8,
            items_per_request: vec![512],
            signals: vec![Signal::Traces],
            compressions: vec![Compression::None],
            items: u64::MAX,
            duration: Duration::from_secs(3600),
            rate: 0,
            retry_for: Duration::from_secs(120),
            max_backoff: Duration::from_millis(500),
            timeout: Duration::from_secs(30),
            headers: Vec::new(),
            keep_books: true,
        }
    }
}

/// What the client knows of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    NotSent,
    /// Sent, and no answer says what became of it.
    Unknown,
    Acknowledged,
    /// The last answer was a refusal, for good or until retries ran out.
    Refused,
}

/// What the client was told, by item.
#[derive(Default)]
pub struct Books {
    told: Vec<AtomicU8>,
    resent: Vec<AtomicU8>,
}

impl std::fmt::Debug for Books {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Books of {} items", self.told.len().saturating_sub(1))
    }
}

impl Books {
    fn new(items: u64) -> Self {
        let zeroes = || (0..=items).map(|_| AtomicU8::new(0)).collect();
        Books { told: zeroes(), resent: zeroes() }
    }

    pub fn told(&self, number: u64) -> Told {
        match self.told[number as usize].load(Ordering::Relaxed) {
            0 => Told::NotSent,
            1 => Told::Unknown,
            2 => Told::Acknowledged,
            _ => Told::Refused,
        }
    }

    /// How often the item was sent again because no answer came (not because of a refusal).
    pub fn resent_unanswered(&self, number: u64) -> u8 {
        self.resent[number as usize].load(Ordering::Relaxed)
    }

    fn write(&self, first: u64, items: usize, told: Told) {
        let value = match told {
            Told::NotSent => 0,
            Told::Unknown => 1,
            Told::Acknowledged => 2,
            Told::Refused => 3,
        };
        for slot in self.told.iter().skip(first as usize).take(items) {
            slot.store(value, Ordering::Relaxed);
        }
    }

    fn count_resent(&self, first: u64, items: usize) {
        for slot in self.resent.iter().skip(first as usize).take(items) {
            slot.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The outcome of a run.
#[derive(Debug, Default)]
pub struct Report {
    pub elapsed: Duration,
    /// Items sent at least once; they are numbered 1 to this.
    pub sent: u64,
    pub acknowledged: u64,
    pub refused: u64,
    /// Items without an answer.
    pub unknown: u64,
    pub requests: u64,
    /// Attempts beyond the first.
    pub retries: u64,
    /// Bytes of requests before compression, first attempts only.
    pub bytes: u64,
    /// Refusals by what they said, such as `grpc 14` or `http 503`; retryable and not.
    pub retryable: BTreeMap<String, u64>,
    pub permanent: BTreeMap<String, u64>,
    /// Connections that broke or could not be opened, and answers that did not come in time.
    pub broken: BTreeMap<String, u64>,
    pub books: Books,
}

/// A run in progress.
pub struct Running {
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
    start: Instant,
}

struct Shared {
    options: Options,
    next: AtomicU64,
    tickets: AtomicU64,
    start: Instant,
    stop: watch::Sender<bool>,
    report: Mutex<Report>,
    books: Mutex<Option<Arc<Books>>>,
    acknowledged: AtomicU64,
    requests: AtomicU64,
}

/// What to do after an attempt.
enum Next {
    Settled(Told),
    /// Try again after this pause; if not, this is what is known.
    Again(Told, Option<Duration>),
}

impl Shared {
    fn note(&self, outcome: Outcome) -> Next {
        let mut report = self.report.lock().unwrap();
        let count = |map: &mut BTreeMap<String, u64>, key: String| *map.entry(key).or_default() += 1;
        match outcome {
            Outcome::Accepted { rejected: 0 } => Next::Settled(Told::Acknowledged),
            Outcome::Accepted { rejected } => {
                count(&mut report.permanent, format!("partial success, {rejected} rejected"));
                Next::Settled(Told::Refused)
            }
            Outcome::Refused { what, message } => {
                count(&mut report.permanent, format!("{what} {message}"));
                Next::Settled(Told::Refused)
            }
            Outcome::Retry { after, what } => {
                count(&mut report.retryable, what);
                Next::Again(Told::Refused, after)
            }
            Outcome::Broken(what) => {
                count(&mut report.broken, what);
                Next::Again(Told::Unknown, None)
            }
        }
    }
}

/// What one attempt came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Accepted { rejected: i64 },
    Retry { after: Option<Duration>, what: String },
    Refused { what: String, message: String },
    Broken(String),
}

/// Starts sending on the current runtime.
pub fn start(options: Options) -> Running {
    let books = Arc::new(Books::new(if options.keep_books { options.items } else { 0 }));
    let shared = Arc::new(Shared {
        next: AtomicU64::new(1),
        tickets: AtomicU64::new(0),
        start: Instant::now(),
        stop: watch::channel(false).0,
        report: Mutex::default(),
        books: Mutex::new(Some(books.clone())),
        acknowledged: AtomicU64::new(0),
        requests: AtomicU64::new(0),
        options,
    });
    let run = shared.clone();
    let task = tokio::spawn(async move {
        let mut workers = tokio::task::JoinSet::new();
        for n in 0..run.options.connections {
            workers.spawn(connection(run.clone(), books.clone(), n));
        }
        while let Some(done) = workers.join_next().await {
            done.expect("a load worker died");
        }
    });
    Running { start: shared.start, shared, task }
}

/// Sends everything and reports.
pub async fn run(options: Options) -> Report {
    start(options).finish().await
}

impl Running {
    /// Items acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Requests finished so far.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Starts no new request and gives up retries.
    pub fn stop(&self) {
        self.shared.stop.send_replace(true);
    }

    /// Waits until every request has its outcome.
    pub async fn finish(self) -> Report {
        self.task.await.expect("the load task died");
        let mut report = std::mem::take(&mut *self.shared.report.lock().unwrap());
        let last = self.shared.next.load(Ordering::Relaxed) - 1;
        report.sent = last.min(self.shared.options.items);
        report.elapsed = self.start.elapsed();
        report.acknowledged = self.shared.acknowledged.load(Ordering::Relaxed);
        let books = self.shared.books.lock().unwrap().take();
        report.books = Arc::into_inner(books.expect("finished once")).unwrap_or_default();
        report
    }
}

/// One connection's worth of requests, reconnecting as needed.
async fn connection(shared: Arc<Shared>, books: Arc<Books>, n: usize) {
    let options = &shared.options;
    let target = options.targets[n % options.targets.len()];
    let width = if matches!(target, Target::Grpc(_)) { options.in_flight } else { 1 };
    let client = Arc::new(Client::new(target));
    let mut templates: Vec<Template> = Vec::new();
    for signal in &options.signals {
        for items in &options.items_per_request {
            templates.push(Template::new(*signal, *items, n));
        }
    }
    let templates = Arc::new(templates);
    let mut lanes = tokio::task::JoinSet::new();
    for lane in 0..width {
        lanes.spawn(one_lane(
            shared.clone(),
            books.clone(),
            client.clone(),
            templates.clone(),
            n * width + lane,
        ));
    }
    while let Some(done) = lanes.join_next().await {
        done.expect("a load lane died");
    }
}

async fn one_lane(
    shared: Arc<Shared>,
    books: Arc<Books>,
    client: Arc<Client>,
    templates: Arc<Vec<Template>>,
    seed: usize,
) {
    let options = &shared.options;
    let mut turn = seed;
    let mut scratch = Vec::new();
    let mut ready: Vec<Encoded> = Vec::new();
    loop {
        if *shared.stop.borrow() || shared.start.elapsed() >= options.duration {
            return;
        }
        if options.rate > 0 {
            let ticket = shared.tickets.fetch_add(1, Ordering::Relaxed);
            let due = Duration::from_secs_f64(ticket as f64 / options.rate as f64);
            tokio::time::sleep_until((shared.start + due).into()).await;
            if due >= options.duration {
                return;
            }
        }
        let template = &templates[turn % templates.len()];
        let compression = options.compressions[turn / templates.len() % options.compressions.len()];
        turn += 1;
        let items = template.items();
        let first = shared.next.fetch_add(items as u64, Ordering::Relaxed);
        if first.saturating_add(items as u64 - 1) > options.items {
            // The books end here; what is left is sent one by one below.
            return leftover(&shared, &books, &client, template.signal, first).await;
        }
        if options.keep_books || ready.len() < templates.len() * options.compressions.len() {
            scratch.clear();
            template.write(first, &mut scratch);
            let encoded = client.encode(template.signal, compression, &scratch);
            if options.keep_books {
                send_until_settled(&shared, &books, &client, &encoded, first, items).await;
                continue;
            }
            ready.push(encoded);
        }
        // Without books the same bytes serve again: the client costs next to nothing then.
        let encoded = &ready[(turn - 1 - seed) % ready.len()];
        send_until_settled(&shared, &books, &client, encoded, first, items).await;
    }
}

/// The last numbers, when they are fewer than a whole request.
async fn leftover(shared: &Shared, books: &Books, client: &Client, signal: Signal, first: u64) {
    if first > shared.options.items {
        return;
    }
    let items = (shared.options.items - first + 1) as usize;
    let mut body = Vec::new();
    Template::new(signal, items, 0).write(first, &mut body);
    let encoded = client.encode(signal, Compression::None, &body);
    send_until_settled(shared, books, client, &encoded, first, items).await;
}

async fn send_until_settled(
    shared: &Shared,
    books: &Books,
    client: &Client,
    request: &Encoded,
    first: u64,
    items: usize,
) {
    let options = &shared.options;
    let begun = Instant::now();
    let mut backoff = Duration::from_millis(5);
    let mut stop = shared.stop.subscribe();
    books.write(first, items, Told::Unknown);
    let mut attempts = 0u64;
    let told = loop {
        attempts += 1;
        let outcome = client.send(request, &options.headers, options.timeout).await;
        let (told, pause) = match shared.note(outcome) {
            Next::Settled(told) => break told,
            Next::Again(told, pause) => (told, pause),
        };
        let pause = pause.unwrap_or(backoff).max(Duration::from_millis(1));
        backoff = (backoff * 2).min(options.max_backoff);
        if begun.elapsed() + pause > options.retry_for || *stop.borrow() {
            break told;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop) => break told,
        }
        if told == Told::Unknown {
            books.count_resent(first, items);
        }
    };
    books.write(first, items, told);
    shared.requests.fetch_add(1, Ordering::Relaxed);
    let mut report = shared.report.lock().unwrap();
    report.requests += 1;
    report.retries += attempts - 1;
    report.bytes += request.plain_bytes as u64;
    match told {
        Told::Acknowledged => {
            shared.acknowledged.fetch_add(items as u64, Ordering::Relaxed);
        }
        Told::Refused => report.refused += items as u64,
        Told::Unknown | Told::NotSent => report.unknown += items as u64,
    }
}

/// A request ready to be sent any number of times.
pub struct Encoded {
    signal: Signal,
    compression: Compression,
    plain_bytes: usize,
    body: Bytes,
}

/// One connection to a server, opened when needed and again after it broke.
pub struct Client {
    target: Target,
    open: tokio::sync::Mutex<Option<Sender>>,
}

enum Sender {
    Grpc(hyper::client::conn::http2::SendRequest<Full<Bytes>>),
    Http(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
}

impl Client {
    pub fn new(target: Target) -> Self {
        Client { target, open: tokio::sync::Mutex::new(None) }
    }

    /// Compresses and frames a message for this client's protocol.
    pub fn encode(&self, signal: Signal, compression: Compression, message: &[u8]) -> Encoded {
        let compressed;
        let payload = if compression == Compression::None {
            message
        } else {
            compressed = compression.compress(message);
            &compressed
        };
        let body = match self.target {
            Target::Grpc(_) => grpc::frame(payload, compression != Compression::None),
            Target::Http(_) => Bytes::copy_from_slice(payload),
        };
        Encoded { signal, compression, plain_bytes: message.len(), body }
    }

    /// One attempt.
    pub async fn send(
        &self,
        request: &Encoded,
        headers: &[(&'static str, String)],
        timeout: Duration,
    ) -> Outcome {
        match tokio::time::timeout(timeout, self.attempt(request, headers)).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Broken("no answer in time".into()),
        }
    }

    async fn attempt(&self, request: &Encoded, headers: &[(&'static str, String)]) -> Outcome {
        let response = match self.target {
            Target::Grpc(address) => {
                let mut http = Request::post(format!("http://{address}{}", request.signal.grpc_path()))
                    .header("content-type", "application/grpc")
                    .header("te", "trailers")
                    .header("user-agent", "tidegate-test/1");
                if request.compression != Compression::None {
                    http = http.header("grpc-encoding", request.compression.name());
                }
                for (name, value) in headers {
                    http = http.header(*name, value);
                }
                let http = http.body(Full::new(request.body.clone())).unwrap();
                let sender = {
                    let mut open = self.open.lock().await;
                    match &*open {
                        Some(Sender::Grpc(sender)) if !sender.is_closed() => Ok(sender.clone()),
                        _ => match connect_http2(address).await {
                            Ok(sender) => {
                                *open = Some(Sender::Grpc(sender.clone()));
                                Ok(sender)
                            }
                            Err(e) => Err(e),
                        },
                    }
                };
                match sender {
                    Ok(mut sender) => match sender.ready().await {
                        Ok(()) => sender.send_request(http).await.map_err(|e| describe(&e)),
                        Err(e) => Err(describe(&e)),
                    },
                    Err(e) => Err(e),
                }
            }
            Target::Http(address) => {
                let mut http = Request::post(request.signal.http_path())
                    .header("host", address.to_string())
                    .header("content-type", "application/x-protobuf")
                    .header("user-agent", "tidegate-test/1");
                if request.compression != Compression::None {
                    http = http.header("content-encoding", request.compression.name());
                }
                for (name, value) in headers {
                    http = http.header(*name, value);
                }
                let http = http.body(Full::new(request.body.clone())).unwrap();
                let mut open = self.open.lock().await;
                let usable = match open.take() {
                    Some(Sender::Http(mut sender)) => match sender.ready().await {
                        Ok(()) => Some(sender),
                        Err(_) => None,
                    },
                    _ => None,
                };
                let sender = match usable {
                    Some(sender) => Ok(sender),
                    None => connect_http1(address).await,
                };
                match sender {
                    Ok(mut sender) => {
                        let response = sender.send_request(http).await.map_err(|e| describe(&e));
                        *open = Some(Sender::Http(sender));
                        response
                    }
                    Err(e) => Err(e),
                }
            }
        };
        match response {
            Err(what) => Outcome::Broken(what),
            Ok(response) => match self.target {
                Target::Grpc(_) => grpc_outcome(response).await,
                Target::Http(_) => http_outcome(response).await,
            },
        }
    }
}

async fn connect_http2(
    address: SocketAddr,
) -> Result<hyper::client::conn::http2::SendRequest<Full<Bytes>>, String> {
    let stream = TcpStream::connect(address).await.map_err(|e| format!("connect: {}", e.kind()))?;
    let _ = stream.set_nodelay(true);
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(16 << 20)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|e| describe(&e))?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn connect_http1(
    address: SocketAddr,
) -> Result<hyper::client::conn::http1::SendRequest<Full<Bytes>>, String> {
    let stream = TcpStream::connect(address).await.map_err(|e| format!("connect: {}", e.kind()))?;
    let _ = stream.set_nodelay(true);
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| describe(&e))?;
    tokio::spawn(connection);
    Ok(sender)
}

/// The cause of a hyper error without what differs from case to case.
fn describe(error: &hyper::Error) -> String {
    let source = std::error::Error::source(error).map(|s| format!(": {s}")).unwrap_or_default();
    format!("{error}{source}")
}

async fn grpc_outcome(response: http::Response<Incoming>) -> Outcome {
    let (head, body) = response.into_parts();
    if head.status != 200 {
        return Outcome::Broken(format!("grpc answered with http {}", head.status.as_u16()));
    }
    if !head.headers.get("content-type").is_some_and(|v| v.as_bytes().starts_with(b"application/grpc")) {
        return Outcome::Broken("grpc answered without its content type".into());
    }
    let (data, trailers) = match body.collect().await {
        Ok(body) => {
            let trailers = body.trailers().cloned();
            (body.to_bytes(), trailers)
        }
        Err(e) => return Outcome::Broken(describe(&e)),
    };
    let Some(status) = RpcStatus::read(trailers.as_ref().unwrap_or(&head.headers)) else {
        return Outcome::Broken("no grpc-status".into());
    };
    let what = format!("grpc {}", status.code);
    match status.code as u32 {
        grpc::OK => match grpc::unframe(&data) {
            Ok((false, message)) => accepted(message),
            Ok((true, _)) => Outcome::Broken("a compressed answer nobody asked for".into()),
            Err(e) => Outcome::Broken(e),
        },
        // CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS, as the OTLP specification.
        1 | 4 | 10 | 11 | 14 | 15 => Outcome::Retry { after: status.retry_after(), what },
        grpc::RESOURCE_EXHAUSTED if status.retry_after().is_some() => {
            Outcome::Retry { after: status.retry_after(), what: format!("{what} with RetryInfo") }
        }
        _ => Outcome::Refused { what, message: status.message },
    }
}

async fn http_outcome(response: http::Response<Incoming>) -> Outcome {
    let (head, body) = response.into_parts();
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(e) => return Outcome::Broken(describe(&e)),
    };
    let what = format!("http {}", head.status.as_u16());
    match head.status.as_u16() {
        200 => accepted(&body),
        429 | 502 | 503 | 504 => Outcome::Retry { after: retry_after(&head.headers), what },
        _ => Outcome::Refused { what, message: String::from_utf8_lossy(&body).into_owned() },
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get("retry-after")?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The three export responses have one shape: a partial success with a count in field 1.
fn accepted(message: &[u8]) -> Outcome {
    match ExportTraceServiceResponse::decode(message) {
        Ok(answer) => {
            Outcome::Accepted { rejected: answer.partial_success.map_or(0, |partial| partial.rejected_spans) }
        }
        Err(e) => Outcome::Broken(format!("undecodable answer: {e}")),
    }
}
