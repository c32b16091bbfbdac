//! OTLP over HTTP/1.1 and HTTP/2: protobuf and JSON, with the Collector's answers.
//!
//! What a connection may hold that the ledger has not admitted: a read buffer of [`READ_BUFFER`] over HTTP/1.1,
//! a window of [`CONNECTION_WINDOW`] over HTTP/2. Bodies are read only as fast as they are admitted.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::Body;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::time::{Instant, sleep_until};
use tonic::Code;

use super::body::{Admission, Gather, Patience};
use super::config::{ContentCoding, HttpProtocolConfig};
use super::conn::{Conn, Watched};
use super::cors::Cors;
use super::ingest::Ingest;
use super::server::{Protocol, Stopping};
use super::status::{Failure, Reason};
use crate::net::compress::{Codec, InflateError, inflate};
use crate::net::listen::Stream;
use crate::pdata::json::{self, Limit, Limits};
use crate::pdata::{ClientInfo, Signal};
use crate::pipeline::Lease;
use crate::pipeline::runtime::Supervisor;

/// The largest read buffer of an HTTP/1.1 connection; it starts at 8 KiB.
const READ_BUFFER: usize = 128 << 10;
/// What a client may send on one HTTP/2 stream, and on one connection, before it is read.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 512 << 10;
/// The largest HTTP/2 frame.
const FRAME: u32 = 64 << 10;
/// Open requests of an HTTP/2 connection.
const STREAMS: u32 = 256;
/// Headers of one HTTP/2 request.
const MAX_HEADERS: u32 = 64 << 10;
/// Bodies in one piece shorter than this are copied out of the read buffer they share with others: each would keep
/// all of it alive, and the ledger knows of the body only.
const SMALL: usize = READ_BUFFER / 4 * 3;
/// How long bodies may go on arriving after the agent was told to stop.
const STOP_GRACE: Duration = Duration::from_secs(1);
/// Protobuf may be this many times larger than the JSON it comes from.
const JSON_GROWTH: usize = 4;

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain");

type Answer = Response<Full<Bytes>>;

/// The HTTP server of one receiver.
pub struct Http {
    ingest: Arc<Ingest>,
    builder: auto::Builder<Executor>,
    paths: [String; 3],
    cors: Option<Cors>,
    response_headers: HeaderMap,
    codings: Vec<ContentCoding>,
    max_body: usize,
    timeouts: Timeouts,
}

/// Where HTTP/2 runs its streams.
#[derive(Debug, Clone)]
struct Executor(Supervisor);

/// How long a connection may take for what. `None` is without limit.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    head: Option<Duration>,
    read: Option<Duration>,
    write: Option<Duration>,
    idle: Option<Duration>,
}

/// How a request is written, and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Protobuf,
    Json,
}

/// How a request that is not taken is answered.
enum Refusal {
    /// With a status in the request's encoding.
    Failure(Failure),
    /// Before the encoding is known to be one of ours: the Collector's plain text.
    Text(StatusCode, Reason, &'static str),
}

impl Http {
    /// A server with the user's settings.
    pub fn new(config: &HttpProtocolConfig, ingest: Arc<Ingest>) -> Self {
        let mut builder = auto::Builder::new(Executor(ingest.supervisor.clone()));
        builder
            .http1()
            // The timers below know more than hyper's: which part of the time is idle.
            .header_read_timeout(None)
            // A client that has sent all it wants to send still gets its answer.
            .half_close(true)
            .keep_alive(config.keep_alives_enabled)
            .max_buf_size(READ_BUFFER)
            .timer(TokioTimer::new());
        builder
            .http2()
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .max_header_list_size(MAX_HEADERS)
            .max_concurrent_streams(STREAMS)
            .timer(TokioTimer::new());
        Http {
            ingest,
            builder,
            paths: config.paths(),
            cors: config.cors.get().and_then(Cors::new),
            response_headers: config.response_headers.to_map(),
            codings: config.compression_algorithms.clone(),
            max_body: config.max_body(),
            timeouts: Timeouts::new(
                config.read_timeout,
                config.read_header_timeout,
                config.write_timeout,
                config.idle_timeout,
            ),
        }
    }

    async fn answer(self: Arc<Self>, conn: Arc<Conn>, request: Request<Incoming>) -> Answer {
        let _open = conn.open(request.version() == Version::HTTP_2);
        let (head, body) = request.into_parts();
        let mut response = match &self.cors {
            Some(cors) if Cors::is_preflight(&head.method, &head.headers) => {
                let mut response = plain(StatusCode::NO_CONTENT, "");
                response.headers_mut().remove(header::CONTENT_TYPE);
                cors.preflight(&head.headers, response.headers_mut());
                response
            }
            cors => {
                let mut response = self.export(&conn, &head, body).await;
                if let Some(cors) = cors {
                    cors.permit(&head.headers, response.headers_mut());
                }
                response
            }
        };
        for (name, value) in &self.response_headers {
            response.headers_mut().insert(name, value.clone());
        }
        response
    }

    /// Everything but what is added to every answer.
    async fn export(&self, conn: &Arc<Conn>, head: &http::request::Parts, body: Incoming) -> Answer {
        let encoding = Encoding::of(&head.headers);
        match self.take(conn, head, body, encoding).await {
            Ok(encoding) => encoding.success(),
            Err(Refusal::Text(status, reason, text)) => {
                self.ingest.failed(reason);
                plain(status, text)
            }
            Err(Refusal::Failure(failure)) => {
                self.ingest.failed(failure.reason);
                match encoding {
                    Some(encoding) => encoding.failure(&failure),
                    // What the Collector answers when it cannot say its error in the request's encoding.
                    None => plain(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        r#"{"code": 13, "message": "failed to marshal error message"}"#,
                    ),
                }
            }
        }
    }

    async fn take(
        &self,
        conn: &Arc<Conn>,
        head: &http::request::Parts,
        mut body: Incoming,
        encoding: Option<Encoding>,
    ) -> Result<Encoding, Refusal> {
        let began = Instant::now();
        // The order is the Collector's: authentication, compression, path, method, type.
        let authority = head.uri.authority().map(http::uri::Authority::as_str);
        let client = self.ingest.client(&conn.client, &head.headers, authority, head.uri.query())?;
        let codec = self.codec(&head.headers)?;
        let signal = self.signal_of(head.uri.path()).filter(|signal| self.ingest.serves(*signal));
        let Some(signal) = signal else {
            let text = "404 page not found\n";
            return Err(Refusal::Text(StatusCode::NOT_FOUND, Reason::Unsupported, text));
        };
        if head.method != Method::POST {
            let text = "405 method not allowed, supported: [POST]";
            return Err(Refusal::Text(StatusCode::METHOD_NOT_ALLOWED, Reason::Unsupported, text));
        }
        let Some(encoding) = encoding else {
            let text = "415 unsupported media type, supported: [application/json, application/x-protobuf]";
            return Err(Refusal::Text(StatusCode::UNSUPPORTED_MEDIA_TYPE, Reason::Unsupported, text));
        };
        let mut patience = Patience::new(self.timeouts.read.map(|t| began + t));
        let (bytes, lease) = self.read(conn, &mut body, &mut patience).await?;
        drop(body);
        let bytes = match codec {
            None => bytes,
            Some(codec) => self.inflate(codec, bytes, &lease)?,
        };
        let request = match encoding {
            Encoding::Protobuf => bytes,
            Encoding::Json => from_json(signal, &bytes, &lease)?,
        };
        let mut patience = Patience::new(self.timeouts.write.map(|t| began + t));
        self.deliver(signal, request, lease, client, &mut patience).await?;
        Ok(encoding)
    }

    async fn deliver(
        &self,
        signal: Signal,
        request: Bytes,
        lease: Lease,
        client: Arc<ClientInfo>,
        patience: &mut Patience,
    ) -> Result<(), Failure> {
        let Some(mut pending) = self.ingest.submit(signal, request, lease, client)? else { return Ok(()) };
        patience.wait_verdict(pending.outcome()).await?
    }

    fn signal_of(&self, path: &str) -> Option<Signal> {
        self.paths.iter().zip(Signal::ALL).find(|(p, _)| *p == path).map(|(_, signal)| signal)
    }

    /// The codec of a body. With an empty list nothing is ever decompressed.
    fn codec(&self, headers: &HeaderMap) -> Result<Option<Codec>, Failure> {
        if self.codings.is_empty() {
            return Ok(None);
        }
        let name = headers.get(header::CONTENT_ENCODING).map_or("", |v| v.to_str().unwrap_or("?"));
        let plain = |word: &str| if word.eq_ignore_ascii_case("identity") { "" } else { word }.to_owned();
        let wanted = plain(name);
        if !self.codings.iter().any(|coding| coding.word().eq_ignore_ascii_case(&wanted)) {
            return Err(Failure::malformed(format!("unsupported Content-Encoding: {name}")));
        }
        Ok(Codec::from_encoding(&wanted).flatten())
    }

    async fn read(
        &self,
        conn: &Conn,
        body: &mut Incoming,
        patience: &mut Patience,
    ) -> Result<(Bytes, Lease), Failure> {
        let expected = body.size_hint().exact().map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        if expected.is_some_and(|n| n > self.max_body) {
            return Err(Failure::too_large(self.max_body));
        }
        let admission = Admission::new(&self.ingest.ledger, 0, expected)?;
        let mut gather = Gather::default();
        while let Some(frame) = patience.wait(conn, |cx| Pin::new(&mut *body).poll_frame(cx)).await? {
            let frame = frame.map_err(|e| broken_off(&e))?;
            let Ok(piece) = frame.into_data() else { continue };
            patience.progress(piece.len());
            let arrived = gather.len() + piece.len();
            if arrived > self.max_body {
                return Err(Failure::too_large(self.max_body));
            }
            admission.hold(arrived, expected)?;
            gather.push(piece, expected);
        }
        let lease = admission.into_lease();
        let bytes = gather.finish(SMALL);
        lease.settle(bytes.len());
        Ok((bytes, lease))
    }

    fn inflate(&self, codec: Codec, body: Bytes, lease: &Lease) -> Result<Bytes, Failure> {
        let compressed = lease.bytes();
        let plain = inflate(codec, &[body], self.max_body, lease).map_err(inflate_failure)?;
        lease.settle(lease.bytes().saturating_sub(compressed));
        Ok(plain)
    }
}

impl Protocol for Http {
    const ALPN: &'static [&'static [u8]] = &[b"h2", b"http/1.1"];
    const IDLE_BYTES: usize = 8 << 10;

    async fn serve(self: Arc<Self>, io: Stream, conn: Arc<Conn>, stopping: Stopping) {
        let io = TokioIo::new(Watched::new(io, conn.clone(), None, 0));
        let service = service_fn(|request| {
            let answer = self.clone().answer(conn.clone(), request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let mut connection = pin!(self.builder.serve_connection(io, service));
        let mut stop = pin!(stopping.wait());
        let mut stopped: Option<Instant> = None;
        let mut timer = pin!(sleep_until(self.timeouts.next(&conn)));
        loop {
            tokio::select! {
                // A connection ends as its client likes; what was read of it is in the pipeline.
                _ = connection.as_mut() => return,
                () = &mut stop, if stopped.is_none() => {
                    connection.as_mut().graceful_shutdown();
                    let cut = Instant::now() + STOP_GRACE;
                    stopped = Some(cut);
                    timer.as_mut().reset(cut);
                }
                () = &mut timer => {
                    let now = Instant::now();
                    if self.timeouts.over(&conn, now) {
                        return;
                    }
                    let mut next = self.timeouts.next(&conn);
                    if let Some(cut) = stopped {
                        if now >= cut {
                            // Quiet all the time: what it has begun to send is no request yet.
                            if conn.quiet_since().is_some_and(|since| since + STOP_GRACE <= now) {
                                return;
                            }
                            conn.cut();
                        } else {
                            next = next.min(cut);
                        }
                    }
                    timer.as_mut().reset(next);
                }
            }
        }
    }
}

impl Timeouts {
    /// As a server's settings say: 0 is without limit, and for `head` and `idle` the same as `read`.
    pub fn new(read: Duration, head: Duration, write: Duration, idle: Duration) -> Self {
        let set = |d: Duration| (!d.is_zero()).then_some(d);
        let read = set(read);
        Timeouts { head: set(head).or(read), read, write: set(write), idle: set(idle).or(read) }
    }

    /// How long an answer may take.
    pub fn write(&self) -> Option<Duration> {
        self.write
    }

    /// Whether the connection has outlived one of them.
    pub fn over(&self, conn: &Conn, now: Instant) -> bool {
        self.ends(conn).into_iter().flatten().any(|end| now >= end)
    }

    /// When to look again. What has not begun yet is looked at after as long as it may last.
    pub fn next(&self, conn: &Conn) -> Instant {
        const FAR: Duration = Duration::from_secs(24 * 3600);
        let now = Instant::now();
        let rounds = [self.head, self.write, self.idle].into_iter().flatten().map(|t| now + t);
        let ends = self.ends(conn).into_iter().flatten();
        ends.chain(rounds).min().unwrap_or(now + FAR)
    }

    fn ends(&self, conn: &Conn) -> [Option<Instant>; 3] {
        let add = |since: Option<Instant>, limit: Option<Duration>| Some(since? + limit?);
        let head = conn.head_since();
        // A connection is idle between requests, not while the head of one is arriving.
        let quiet = if head.is_none() { conn.quiet_since() } else { None };
        [add(head, self.head), add(conn.blocked_since(), self.write), add(quiet, self.idle)]
    }
}

impl Encoding {
    /// The encoding of a request by its content type, parameters aside.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(header::CONTENT_TYPE)?.as_bytes();
        let essence = value.split(|&b| b == b';').next()?.trim_ascii();
        if essence.eq_ignore_ascii_case(PROTOBUF.as_bytes()) {
            Some(Encoding::Protobuf)
        } else if essence.eq_ignore_ascii_case(JSON.as_bytes()) {
            Some(Encoding::Json)
        } else {
            None
        }
    }

    fn success(self) -> Answer {
        match self {
            Encoding::Protobuf => respond(StatusCode::OK, PROTOBUF, Bytes::new()),
            Encoding::Json => respond(StatusCode::OK, JSON, Bytes::from_static(br#"{"partialSuccess":{}}"#)),
        }
    }

    fn failure(self, failure: &Failure) -> Answer {
        let status = failure.http_status();
        let mut response = match self {
            Encoding::Protobuf => respond(status, PROTOBUF, failure.to_proto()),
            Encoding::Json => respond(status, JSON, failure.to_json()),
        };
        if let Some(seconds) = failure.retry_after() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Refusal::Failure(failure)
    }
}

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn("otlp http stream", task);
    }
}

/// Turns a JSON body into protobuf, reserving for the result before it is made.
fn from_json(signal: Signal, body: &[u8], lease: &Lease) -> Result<Bytes, Failure> {
    let held = lease.bytes();
    // Protobuf is nearly always the smaller of the two; only lists of short numbers make it grow.
    let mut limit = body.len();
    loop {
        if !lease.grow((held + limit).saturating_sub(lease.bytes())) {
            return Err(Failure::memory());
        }
        match json::decode(signal, body, Limits { output: limit, ..Limits::default() }) {
            Ok(request) => {
                let request = Bytes::from(request.into_boxed_slice());
                lease.settle(request.len());
                return Ok(request);
            }
            Err(e) if e.limit == Some(Limit::Output) && limit == body.len() => limit *= JSON_GROWTH,
            Err(e) => return Err(Failure::malformed(format!("not OTLP/JSON: {e}"))),
        }
    }
}

pub(super) fn inflate_failure(error: InflateError) -> Failure {
    match error {
        InflateError::TooLarge { limit } => Failure::too_large(limit),
        InflateError::NoMemory => Failure::memory(),
        InflateError::Malformed(why) => Failure::malformed(why),
    }
}

fn plain(status: StatusCode, text: &'static str) -> Answer {
    respond(status, TEXT, Bytes::from_static(text.as_bytes()))
}

fn respond(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Answer {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// A body that ended early: by the client's going away, which may be retried, or by chunks or frames that are not
/// as they must be, which will be no better next time.
fn broken_off(error: &hyper::Error) -> Failure {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let io = cause.downcast_ref::<std::io::Error>();
        if io.is_some_and(|e| matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::InvalidData)) {
            let message = format!("the body is not framed as it must be: {cause}");
            return Failure::new(Code::InvalidArgument, Reason::Protocol, message);
        }
        source = cause.source();
    }
    Failure::new(Code::Cancelled, Reason::Disconnected, format!("the request broke off: {error}"))
}
