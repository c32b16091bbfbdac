//! An OTLP backend on loopback, over gRPC and HTTP: checks what it is sent, remembers which items it stored, and
//! misbehaves on command.
//!
//! In strict mode every request is checked as a strict server would (method, path, content type, `te`, framing,
//! encoding, decodable body) and each finding lands in [`Sink::violations`]. In counting mode it walks just far
//! enough to count items, for benches.
//!
//! An answer may be lost when a connection is cut: what was stored on it shortly before counts as possibly
//! unanswered, so that a duplicate can be told from a retry that had a reason.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

use super::grpc::{self, RpcStatus};
use super::{Compression, Signal, eventually, loopback, payload};

/// What goes wrong, per request. Percentages are rolled independently of each other in the order of the fields;
/// the first that hits decides.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Nothing is answered while set; when it is cleared, waiting requests go on as usual.
    pub hang: bool,
    /// Percent of requests whose connection is closed in the middle of the body, before anything is stored.
    pub cut: u32,
    /// Percent refused with this gRPC status, or its HTTP counterpart.
    pub fail: (u32, u32),
    /// Percent refused with a delay to wait (`RetryInfo`, `Retry-After` in whole seconds).
    pub throttle: (u32, Duration),
    /// Percent stored, and then the connection is closed instead of an answer.
    pub lose_answer: u32,
    /// Percent answered late, and how late.
    pub delay: (u32, Duration),
}

/// How a sink is set up.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How many items will be numbered from 1; 0 when numbers are not looked at.
    pub items: u64,
    /// Keep every request.
    pub capture: bool,
    /// Only count; no decoding, no checks, no capture, no numbers.
    pub count_only: bool,
}

/// A stored request.
#[derive(Debug, Clone)]
pub struct Captured {
    pub signal: Signal,
    /// `grpc`, `http/protobuf` or `http/json`.
    pub protocol: &'static str,
    pub headers: HeaderMap,
    /// The export request as protobuf, whatever it came as.
    pub body: Bytes,
}

impl Captured {
    pub fn traces(&self) -> ExportTraceServiceRequest {
        ExportTraceServiceRequest::decode(&self.body[..]).unwrap()
    }
    pub fn metrics(&self) -> ExportMetricsServiceRequest {
        ExportMetricsServiceRequest::decode(&self.body[..]).unwrap()
    }
    pub fn logs(&self) -> ExportLogsServiceRequest {
        ExportLogsServiceRequest::decode(&self.body[..]).unwrap()
    }
}

/// What became of each numbered item at the backend.
#[derive(Debug, Default)]
pub struct Ledger {
    stored: Vec<AtomicU8>,
    unanswered: Vec<AtomicU8>,
    unknown: AtomicU64,
}

impl Ledger {
    fn new(items: u64) -> Self {
        let zeroes = || (0..=items).map(|_| AtomicU8::new(0)).collect();
        Ledger { stored: zeroes(), unanswered: zeroes(), unknown: AtomicU64::new(0) }
    }

    /// How often item `number` was stored.
    pub fn stored(&self, number: u64) -> u8 {
        self.stored[number as usize].load(Ordering::Relaxed)
    }

    /// How often item `number` was stored with an answer that may not have arrived.
    pub fn unanswered(&self, number: u64) -> u8 {
        self.unanswered[number as usize].load(Ordering::Relaxed)
    }

    /// Items that arrived with a number nobody sent.
    pub fn unknown(&self) -> u64 {
        self.unknown.load(Ordering::Relaxed)
    }

    fn store(&self, numbers: &[u64]) {
        for number in numbers {
            match self.stored.get(*number as usize) {
                Some(slot) if *number != 0 => {
                    slot.fetch_add(1, Ordering::Relaxed);
                }
                _ => {
                    self.unknown.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn lose_answer(&self, numbers: &[u64]) {
        for slot in numbers.iter().filter_map(|n| self.unanswered.get(*n as usize)) {
            slot.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The backend. Ends with the runtime it was started on.
pub struct Sink {
    pub grpc: SocketAddr,
    pub http: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    options: Options,
    ledger: Ledger,
    faults: watch::Sender<Faults>,
    away: watch::Sender<bool>,
    rng: Mutex<fastrand::Rng>,
    listening: AtomicUsize,
    requests: AtomicU64,
    refused: AtomicU64,
    bytes: AtomicU64,
    items: [AtomicU64; 3],
    connections: AtomicUsize,
    violations: Mutex<Vec<String>>,
    captured: Mutex<Vec<Captured>>,
}

/// One connection: how to cut it, and what it stored lately.
struct Connection {
    cut: Notify,
    /// `None` once it is closed: requests still in the works then store without an answer.
    recent: Mutex<Option<VecDeque<(Instant, Vec<u64>)>>>,
}

/// How long after storing an answer may still be on its way out of this process.
const ANSWER_ON_ITS_WAY: Duration = Duration::from_millis(500);

impl Sink {
    /// Opens both ports.
    pub async fn start(options: Options) -> Sink {
        let shared = Arc::new(Shared {
            ledger: Ledger::new(options.items),
            options,
            faults: watch::channel(Faults::default()).0,
            away: watch::channel(false).0,
            rng: Mutex::new(fastrand::Rng::with_seed(4711)),
            listening: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            items: Default::default(),
            connections: AtomicUsize::new(0),
            violations: Mutex::new(Vec::new()),
            captured: Mutex::new(Vec::new()),
        });
        let mut ports = [0; 2];
        for (port, over_grpc) in ports.iter_mut().zip([true, false]) {
            let listener = TcpListener::bind(loopback(0)).await.unwrap();
            *port = listener.local_addr().unwrap().port();
            tokio::spawn(listen(shared.clone(), listener, over_grpc));
        }
        let sink = Sink { grpc: loopback(ports[0]), http: loopback(ports[1]), shared };
        sink.wait_listening(2).await;
        sink
    }

    /// A strict sink that keeps every request.
    pub async fn capturing() -> Sink {
        Sink::start(Options { capture: true, ..Default::default() }).await
    }

    /// Changes what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.shared.faults.send_replace(faults);
    }

    /// Closes the ports and every connection; returns when connecting is refused.
    pub async fn leave(&self) {
        self.shared.away.send_replace(true);
        self.wait_listening(0).await;
    }

    /// Opens the same ports again.
    pub async fn come_back(&self) {
        self.shared.away.send_replace(false);
        self.wait_listening(2).await;
    }

    async fn wait_listening(&self, ports: usize) {
        eventually(Duration::from_secs(10), "the sink's ports change state", || {
            self.shared.listening.load(Ordering::Acquire) == ports
        })
        .await;
    }

    /// Items stored, duplicates included.
    pub fn items(&self) -> u64 {
        Signal::ALL.into_iter().map(|s| self.items_of(s)).sum()
    }

    /// Items of one signal stored, duplicates included.
    pub fn items_of(&self, signal: Signal) -> u64 {
        self.shared.items[signal.index()].load(Ordering::Relaxed)
    }

    /// Requests stored.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Requests refused or broken on purpose.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// Bytes of stored requests as they came over the wire.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Connections open now.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    pub fn ledger(&self) -> &Ledger {
        &self.shared.ledger
    }

    /// What a strict server would have complained about.
    pub fn violations(&self) -> Vec<String> {
        self.shared.violations.lock().unwrap().clone()
    }

    /// Every stored request, in order of arrival.
    pub fn captured(&self) -> Vec<Captured> {
        self.shared.captured.lock().unwrap().clone()
    }
}

async fn listen(shared: Arc<Shared>, first: TcpListener, over_grpc: bool) {
    let address = first.local_addr().unwrap();
    let mut listener = Some(first);
    let mut away = shared.away.subscribe();
    loop {
        let open = match listener.take() {
            Some(open) => open,
            None => bind_again(address).await,
        };
        shared.listening.fetch_add(1, Ordering::Release);
        loop {
            tokio::select! {
                accepted = open.accept() => {
                    let Ok((stream, _)) = accepted else { continue };
                    tokio::spawn(serve(shared.clone(), stream, over_grpc));
                }
                changed = away.wait_for(|away| *away) => {
                    if changed.is_err() { return }
                    break;
                }
            }
        }
        drop(open);
        shared.listening.fetch_sub(1, Ordering::Release);
        if away.wait_for(|away| !*away).await.is_err() {
            return;
        }
    }
}

async fn bind_again(address: SocketAddr) -> TcpListener {
    for _ in 0..500 {
        if let Ok(listener) = TcpListener::bind(address).await {
            return listener;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("cannot bind {address} again");
}

async fn serve(shared: Arc<Shared>, stream: TcpStream, over_grpc: bool) {
    let _ = stream.set_nodelay(true);
    let connection = Arc::new(Connection { cut: Notify::new(), recent: Mutex::new(Some(VecDeque::new())) });
    shared.connections.fetch_add(1, Ordering::Relaxed);
    let service = service_fn(|request| {
        let (shared, connection) = (shared.clone(), connection.clone());
        async move { Ok::<_, Infallible>(answer(shared, connection, request, over_grpc).await) }
    });
    let mut away = shared.away.subscribe();
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http2().max_concurrent_streams(1000);
    if over_grpc {
        server = server.http2_only();
    }
    {
        let mut serving = std::pin::pin!(server.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            _ = serving.as_mut() => {}
            () = connection.cut.notified() => {}
            _ = away.wait_for(|away| *away) => {}
        }
    }
    let recent = connection.recent.lock().unwrap().take();
    for (stored, numbers) in recent.into_iter().flatten() {
        if stored.elapsed() < ANSWER_ON_ITS_WAY {
            shared.ledger.lose_answer(&numbers);
        }
    }
    shared.connections.fetch_sub(1, Ordering::Relaxed);
}

/// What one request is in for.
enum Fate {
    Store { lose_answer: bool },
    Cut,
    Refuse(RpcStatus),
}

impl Shared {
    fn fate(&self, faults: &Faults) -> (Fate, Option<Duration>) {
        let mut rng = self.rng.lock().unwrap();
        let mut hits = |percent: u32| percent > 0 && rng.u32(0..100) < percent;
        let fate = if hits(faults.cut) {
            Fate::Cut
        } else if hits(faults.fail.0) {
            Fate::Refuse(RpcStatus::new(faults.fail.1, "refused by the test", None))
        } else if hits(faults.throttle.0) {
            Fate::Refuse(RpcStatus::new(grpc::RESOURCE_EXHAUSTED, "slow down", Some(faults.throttle.1)))
        } else {
            Fate::Store { lose_answer: hits(faults.lose_answer) }
        };
        (fate, hits(faults.delay.0).then_some(faults.delay.1))
    }

    fn violation(&self, text: String) {
        let mut violations = self.violations.lock().unwrap();
        if violations.len() < 100 {
            violations.push(text);
        }
    }
}

async fn answer(
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
    over_grpc: bool,
) -> Response<Answer> {
    let (head, mut body) = request.into_parts();
    if shared.options.count_only {
        return count(&shared, &head, body, over_grpc).await;
    }
    let faults = shared.faults.borrow().clone();
    let (fate, delay) = shared.fate(&faults);
    if let Fate::Cut = fate {
        // One frame is read, so that the sender is in the middle of its request.
        let _ = body.frame().await;
        shared.refused.fetch_add(1, Ordering::Relaxed);
        connection.cut.notify_one();
        return std::future::pending().await;
    }
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(e) => return refuse(RpcStatus::new(grpc::INTERNAL, &format!("body: {e}"), None), over_grpc),
    };
    let mut hung = false;
    if faults.hang {
        hung = true;
        let mut faults = shared.faults.subscribe();
        let _ = faults.wait_for(|faults| !faults.hang).await;
    }
    if let Some(delay) = delay {
        tokio::time::sleep(delay).await;
    }
    if let Fate::Refuse(status) = fate {
        shared.refused.fetch_add(1, Ordering::Relaxed);
        return refuse(status, over_grpc);
    }
    let checked = if over_grpc { check_grpc(&head, &body) } else { check_http(&head, &body) };
    let (signal, protocol, message, numbers) = match checked {
        Ok(checked) => checked,
        Err(reason) => {
            let status = RpcStatus::new(grpc::INVALID_ARGUMENT, &reason, None);
            shared.violation(format!("{} {}: {reason}", head.method, head.uri));
            return refuse(status, over_grpc);
        }
    };
    shared.requests.fetch_add(1, Ordering::Relaxed);
    shared.bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
    shared.items[signal.index()].fetch_add(count_items(signal, &message), Ordering::Relaxed);
    if shared.options.items > 0 {
        shared.ledger.store(&numbers);
    }
    if shared.options.capture {
        shared.captured.lock().unwrap().push(Captured {
            signal,
            protocol,
            headers: head.headers,
            body: message.into(),
        });
    }
    if shared.options.items > 0 {
        match &mut *connection.recent.lock().unwrap() {
            // After a hang the sender may have given up waiting.
            Some(recent) if !hung => {
                while recent.front().is_some_and(|(at, _)| at.elapsed() > ANSWER_ON_ITS_WAY) {
                    recent.pop_front();
                }
                recent.push_back((Instant::now(), numbers));
            }
            _ => shared.ledger.lose_answer(&numbers),
        }
    }
    if let Fate::Store { lose_answer: true } = fate {
        connection.cut.notify_one();
        return std::future::pending().await;
    }
    if over_grpc { grpc_ok() } else { http_answer(StatusCode::OK, protocol, Vec::new()) }
}

type Checked = (Signal, &'static str, Vec<u8>, Vec<u64>);

fn check_grpc(head: &http::request::Parts, body: &[u8]) -> Result<Checked, String> {
    let header = |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("");
    if head.method != http::Method::POST {
        return Err(format!("method {}", head.method));
    }
    let signal = Signal::of_path(head.uri.path()).ok_or("unknown method")?;
    if !["application/grpc", "application/grpc+proto"].contains(&header("content-type")) {
        return Err(format!("content-type {:?}", header("content-type")));
    }
    if header("te") != "trailers" {
        return Err(format!("te {:?}", header("te")));
    }
    let encoding = Compression::parse(header("grpc-encoding"))
        .ok_or_else(|| format!("grpc-encoding {:?}", header("grpc-encoding")))?;
    let (compressed, message) = grpc::unframe(body)?;
    if compressed && encoding == Compression::None {
        return Err("compressed flag without grpc-encoding".into());
    }
    let encoding = if compressed { encoding } else { Compression::None };
    let message = encoding.decompress(message).map_err(|e| format!("{}: {e}", encoding.name()))?;
    let numbers = payload::numbers(signal, &message).map_err(|e| e.to_string())?;
    Ok((signal, "grpc", message, numbers))
}

fn check_http(head: &http::request::Parts, body: &[u8]) -> Result<Checked, String> {
    let header = |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("");
    if head.method != http::Method::POST {
        return Err(format!("method {}", head.method));
    }
    let signal = Signal::of_path(head.uri.path()).ok_or("unknown path")?;
    let encoding = Compression::parse(header("content-encoding"))
        .ok_or_else(|| format!("content-encoding {:?}", header("content-encoding")))?;
    let body = encoding.decompress(body).map_err(|e| format!("{}: {e}", encoding.name()))?;
    let (protocol, message) = match header("content-type").split(';').next().unwrap_or("").trim() {
        "application/x-protobuf" => ("http/protobuf", body),
        "application/json" => ("http/json", from_json(signal, &body).map_err(|e| e.to_string())?),
        other => return Err(format!("content-type {other:?}")),
    };
    let numbers = payload::numbers(signal, &message).map_err(|e| e.to_string())?;
    Ok((signal, protocol, message, numbers))
}

fn from_json(signal: Signal, body: &[u8]) -> serde_json::Result<Vec<u8>> {
    Ok(match signal {
        Signal::Traces => serde_json::from_slice::<ExportTraceServiceRequest>(body)?.encode_to_vec(),
        Signal::Metrics => serde_json::from_slice::<ExportMetricsServiceRequest>(body)?.encode_to_vec(),
        Signal::Logs => serde_json::from_slice::<ExportLogsServiceRequest>(body)?.encode_to_vec(),
    })
}

async fn count(
    shared: &Shared,
    head: &http::request::Parts,
    mut body: Incoming,
    over_grpc: bool,
) -> Response<Answer> {
    let mut whole = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data() {
            whole.extend_from_slice(&data);
        }
    }
    let header = |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("");
    let (compressed, message, encoding) = match grpc::unframe(&whole) {
        Ok((flag, message)) if over_grpc => (flag, message, header("grpc-encoding")),
        _ => (!header("content-encoding").is_empty(), &whole[..], header("content-encoding")),
    };
    let inflated;
    let message = match Compression::parse(encoding) {
        Some(encoding) if compressed => {
            inflated = encoding.decompress(message).unwrap_or_default();
            &inflated[..]
        }
        _ => message,
    };
    let Some(signal) = Signal::of_path(head.uri.path()) else {
        return refuse(RpcStatus::new(grpc::UNIMPLEMENTED, "unknown method", None), over_grpc);
    };
    shared.requests.fetch_add(1, Ordering::Relaxed);
    shared.bytes.fetch_add(whole.len() as u64, Ordering::Relaxed);
    shared.items[signal.index()].fetch_add(count_items(signal, message), Ordering::Relaxed);
    if over_grpc { grpc_ok() } else { http_answer(StatusCode::OK, "http/protobuf", Vec::new()) }
}

/// Items in a request by walking over it, not through it.
pub fn count_items(signal: Signal, request: &[u8]) -> u64 {
    fields(request, 1)
        .flat_map(|resource| fields(resource, 2))
        .flat_map(|scope| fields(scope, 2))
        .map(|item| match signal {
            Signal::Traces | Signal::Logs => 1,
            // Gauge, sum, histogram, exponential histogram, summary: each has its points in field 1.
            Signal::Metrics => [5, 7, 9, 10, 11]
                .into_iter()
                .flat_map(|kind| fields(item, kind))
                .map(|data| fields(data, 1).count() as u64)
                .sum(),
        })
        .sum()
}

/// The length-delimited fields with number `wanted` of a well-formed message.
fn fields(message: &[u8], wanted: u64) -> impl Iterator<Item = &[u8]> {
    let mut rest = message;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let tag = varint(&mut rest)?;
            match tag & 7 {
                0 => {
                    varint(&mut rest)?;
                }
                1 => rest = rest.get(8..)?,
                5 => rest = rest.get(4..)?,
                2 => {
                    let length = varint(&mut rest)? as usize;
                    let (field, tail) = rest.split_at_checked(length)?;
                    rest = tail;
                    if tag >> 3 == wanted {
                        return Some(field);
                    }
                }
                _ => return None,
            }
        }
        None
    })
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn grpc_ok() -> Response<Answer> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let mut response =
        Response::new(Answer { data: Some(Bytes::from_static(&[0; 5])), trailers: Some(trailers) });
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

fn http_answer(status: StatusCode, protocol: &str, body: Vec<u8>) -> Response<Answer> {
    let json = protocol == "http/json";
    let body = if json && body.is_empty() { b"{\"partialSuccess\":{}}".to_vec() } else { body };
    let mut response = Response::new(Answer { data: Some(body.into()), trailers: None });
    *response.status_mut() = status;
    let content_type = if json { "application/json" } else { "application/x-protobuf" };
    response.headers_mut().insert("content-type", HeaderValue::from_static(content_type));
    response
}

fn refuse(status: RpcStatus, over_grpc: bool) -> Response<Answer> {
    if over_grpc {
        let mut response = Response::new(Answer { data: None, trailers: None });
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        status.write(response.headers_mut());
        return response;
    }
    let code = match status.code as u32 {
        grpc::INVALID_ARGUMENT => 400,
        grpc::UNAUTHENTICATED => 401,
        grpc::UNIMPLEMENTED => 404,
        grpc::RESOURCE_EXHAUSTED => 429,
        grpc::UNAVAILABLE | grpc::DEADLINE_EXCEEDED => 503,
        _ => 500,
    };
    let mut response =
        http_answer(StatusCode::from_u16(code).unwrap(), "http/protobuf", status.encode_to_vec());
    if let Some(after) = status.retry_after() {
        response.headers_mut().insert("retry-after", HeaderValue::from(after.as_secs_f64().ceil() as u64));
    }
    response
}

/// A small body with trailers.
pub struct Answer {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = self.data.take().filter(|d| !d.is_empty()).map(Frame::data);
        Poll::Ready(data.or_else(|| self.trailers.take().map(Frame::trailers)).map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.data.as_ref().is_none_or(Bytes::is_empty) && self.trailers.is_none()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match &self.trailers {
            None => http_body::SizeHint::with_exact(self.data.as_ref().map_or(0, Bytes::len) as u64),
            Some(_) => http_body::SizeHint::default(),
        }
    }
}
