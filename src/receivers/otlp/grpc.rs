//! OTLP over gRPC, on HTTP/2 frames directly.
//!
//! A unary gRPC call is one length-prefixed message and a status; a general-purpose gRPC server costs more than
//! the telemetry it carries. Here a message that arrives in one DATA frame is never copied between the socket
//! and the pipeline, and the answer is three small frames.
//!
//! # Windows
//!
//! A client may send frames of `read_buffer_size` (512 KiB), so a usual request is one frame. A stream's window
//! is [`STREAM_WINDOW`], a connection's [`CONNECTION_WINDOW`]. Window is given back when the ledger has admitted
//! the bytes, in halves: a message of 256 KiB needs no WINDOW_UPDATE of its own stream, one of 4 MiB about eight.
//! What a connection may hold that the ledger has not yet seen is what its requests have not yet looked at, which
//! is at most [`CONNECTION_WINDOW`] for the moment until they run, and a small piece of a frame on its way (see
//! [`gate`](super::gate)).

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason as H2Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::Code;

use super::body::{Admission, Gather, Patience};
use super::config::{GrpcServerConfig, KeepaliveConfig};
use super::conn::{Conn, OpenRequest, PingPolicy, Watched};
use super::gate::Gates;
use super::http::inflate_failure;
use super::ingest::{Ingest, Pending, not_served};
use super::server::{Protocol, Stopping};
use super::status::{Failure, Reason};
use crate::net::compress::{Codec, inflate};
use crate::net::listen::Stream;
use crate::pdata::{ClientInfo, Signal};
use crate::pipeline::Lease;

/// How many bytes a client may send on one stream before they are admitted.
const STREAM_WINDOW: u32 = 1 << 20;
/// How many bytes a client may send on one connection before they are admitted.
const CONNECTION_WINDOW: u32 = 2 << 20;
/// Frames larger than this are refused whatever is configured.
const MAX_FRAME: u32 = 1 << 20;
/// The smallest maximum HTTP/2 allows.
const MIN_FRAME: u32 = 16 << 10;
/// Headers of one request, decoded, with HTTP/2's 32 bytes of overhead each.
const MAX_HEADERS: u32 = 64 << 10;
/// Open requests of a connection when nothing is configured: each costs a task, whatever it sends.
const DEFAULT_STREAMS: u32 = 1024;
/// How long a client may take to say the first words of HTTP/2.
const HANDSHAKE: Duration = Duration::from_secs(20);
/// How long one frame may take: until it is complete its bytes are held, whatever becomes of its request.
const FRAME_TIME: Duration = Duration::from_secs(120);
/// How long bodies may go on arriving after the agent was told to stop.
const STOP_GRACE: Duration = Duration::from_secs(1);
/// gRPC's defaults for `time`, `timeout` and `min_time`.
const PING_AFTER: Duration = Duration::from_secs(2 * 3600);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
const PING_MIN_TIME: Duration = Duration::from_secs(300);

/// Bytes before a message: one of flags, four of length.
const PREFIX: usize = 5;
/// An empty Export*ServiceResponse with its prefix.
const EMPTY_ANSWER: [u8; PREFIX] = [0; PREFIX];
/// Single-frame messages shorter than this are copied out of the read buffer they share with others.
const SMALL: usize = 8 << 10;
/// The share of its buffer a message must fill to be used where it lies: the memory that telemetry in a queue
/// keeps alive is at most this many times what the ledger thinks.
const PINNED: usize = 4;

/// The methods, in the order of [`Signal::ALL`].
const METHODS: [&str; 3] = [
    "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
];
const ACCEPT_ENCODING: HeaderValue = HeaderValue::from_static("gzip,zstd,snappy,deflate,identity");
const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");

/// The gRPC server of one receiver.
pub struct Grpc {
    ingest: Arc<Ingest>,
    http2: h2::server::Builder,
    limits: Limits,
    pings: PingPolicy,
    gates: Gates,
    max_message: usize,
    gather: usize,
}

/// When a connection is probed and ended.
#[derive(Debug, Clone, Copy)]
struct Limits {
    idle: Option<Duration>,
    age: Option<Duration>,
    age_grace: Option<Duration>,
    ping_after: Duration,
    ping_timeout: Duration,
}

/// How far the end of a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Requests come in.
    Serving,
    /// The client was told to open no more; what is open goes on, at the latest until then.
    Draining(Option<Instant>),
    /// The agent stops: from then on, bodies that are not complete are given up.
    Stopping(Instant),
    /// The agent stops and they were.
    Cut,
}

impl Grpc {
    /// A server with the user's settings.
    pub fn new(config: &GrpcServerConfig, ingest: Arc<Ingest>) -> Self {
        let keepalive = config.keepalive.get().cloned().unwrap_or_default();
        let frame = u32::try_from(config.read_buffer_size).unwrap_or(MAX_FRAME).clamp(MIN_FRAME, MAX_FRAME);
        let streams = match config.max_concurrent_streams {
            0 => DEFAULT_STREAMS,
            n => n,
        };
        let mut http2 = h2::server::Builder::new();
        http2
            .max_frame_size(frame)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEADERS)
            .max_concurrent_streams(streams);
        Grpc {
            gates: Gates::new(ingest.ledger.clone()),
            ingest,
            http2,
            limits: Limits::new(&keepalive),
            pings: ping_policy(&keepalive),
            max_message: config.max_message(),
            gather: usize::try_from(config.write_buffer_size).unwrap_or(0),
        }
    }

    /// Serves one request to its end.
    async fn request(
        self: Arc<Self>,
        conn: Arc<Conn>,
        _open: OpenRequest,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let deadline = match grpc_timeout(&head.headers) {
            Ok(timeout) => timeout.and_then(|t| Instant::now().checked_add(t)),
            Err(failure) => return self.refuse(&conn, &mut respond, StatusCode::OK, &failure),
        };
        if let Some((status, failure)) = self.misdirected(&head.method, path, &head.headers) {
            return self.refuse(&conn, &mut respond, status, &failure);
        }
        let mut patience = Patience::new(deadline);
        let outcome = self.export(&conn, head, body, &mut patience).await;
        match outcome {
            Ok(()) => {
                // The client may be gone; its telemetry is in the pipeline all the same.
                let _ = accept(&mut respond);
                conn.answered();
            }
            Err(failure) => self.refuse(&conn, &mut respond, StatusCode::OK, &failure),
        }
    }

    /// Whether the request is not one of ours at all.
    fn misdirected(&self, method: &Method, path: &str, headers: &HeaderMap) -> Option<(StatusCode, Failure)> {
        let failure = |code, reason, message: &'static str| Failure::new(code, reason, message);
        if method != Method::POST {
            let status = StatusCode::METHOD_NOT_ALLOWED;
            return Some((status, failure(Code::Internal, Reason::Protocol, "gRPC requests are POSTs")));
        }
        if !is_grpc(headers) {
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Some((
                status,
                failure(Code::InvalidArgument, Reason::Unsupported, "content-type is not application/grpc"),
            ));
        }
        match signal_of(path) {
            None => Some((
                StatusCode::OK,
                Failure::new(Code::Unimplemented, Reason::Unsupported, format!("unknown method {path}")),
            )),
            Some(signal) if !self.ingest.serves(signal) => Some((StatusCode::OK, not_served(signal))),
            Some(_) => None,
        }
    }

    async fn export(
        &self,
        conn: &Arc<Conn>,
        head: http::request::Parts,
        mut body: RecvStream,
        patience: &mut Patience,
    ) -> Result<(), Failure> {
        let Some(signal) = signal_of(head.uri.path()) else { return Ok(()) };
        let authority = head.uri.authority().map(http::uri::Authority::as_str);
        let client = self.ingest.client(&conn.client, &head.headers, authority, None)?;
        let codec = message_codec(&head.headers)?;
        // Up to 64 KiB that no ledger knows of: not for as long as the client cares to take.
        drop(head);
        let (flag, message, lease) = self.message(conn, &mut body, patience).await?;
        let request = match (flag, codec) {
            (0, _) => message,
            (1, Some(codec)) => self.inflate(codec, message, &lease)?,
            (1, None) => return Err(protocol("a compressed message without grpc-encoding")),
            _ => return Err(protocol("unknown message flags")),
        };
        drop(body);
        self.deliver(signal, request, lease, client, patience).await
    }

    async fn deliver(
        &self,
        signal: Signal,
        request: Bytes,
        lease: Lease,
        client: Arc<ClientInfo>,
        patience: &mut Patience,
    ) -> Result<(), Failure> {
        let pending: Option<Pending> = self.ingest.submit(signal, request, lease, client)?;
        let Some(mut pending) = pending else { return Ok(()) };
        patience.wait_verdict(pending.outcome()).await?
    }

    /// Reads the one message of a call: its flags, its bytes, the memory reserved for them.
    async fn message(
        &self,
        conn: &Conn,
        body: &mut RecvStream,
        patience: &mut Patience,
    ) -> Result<(u8, Bytes, Lease), Failure> {
        let mut gather = Gather::default();
        let mut admission: Option<Admission> = None;
        let mut prefix: Option<(u8, usize)> = None;
        while let Some(piece) = patience.wait(conn, |cx| body.poll_data(cx)).await? {
            let piece = piece.map_err(|e| disconnected(&e))?;
            let size = piece.len();
            patience.progress(size);
            let arrived = gather.len() + size;
            gather.push(piece, prefix.map(|(_, len)| PREFIX + len));
            if prefix.is_none()
                && let Some([flag, a, b, c, d]) = gather.first()
            {
                let len = u32::from_be_bytes([a, b, c, d]) as usize;
                if len > self.max_message {
                    return Err(Failure::too_large(self.max_message));
                }
                prefix = Some((flag, len));
            }
            let expected = prefix.map(|(_, len)| PREFIX + len);
            if expected.is_some_and(|all| arrived > all) {
                return Err(protocol("more than one message in a unary call"));
            }
            match &admission {
                None => admission = Some(Admission::new(&self.ingest.ledger, arrived, expected)?),
                Some(admission) => admission.hold(arrived, expected)?,
            }
            // Admitted: the client may send as much again.
            let _ = body.flow_control().release_capacity(size);
        }
        let (Some((flag, len)), Some(admission)) = (prefix, admission) else {
            return Err(protocol("the call ended without a message"));
        };
        if gather.len() < PREFIX + len {
            return Err(protocol("the message is shorter than its length says"));
        }
        let least = (conn.largest_frame() / PINNED).max(SMALL);
        let message = gather.finish(least).slice(PREFIX..);
        let lease = admission.into_lease();
        lease.settle(PREFIX + len);
        Ok((flag, message, lease))
    }

    fn inflate(&self, codec: Codec, message: Bytes, lease: &Lease) -> Result<Bytes, Failure> {
        let compressed = lease.bytes();
        let plain = inflate(codec, &[message], self.max_message, lease).map_err(inflate_failure)?;
        lease.settle(lease.bytes().saturating_sub(compressed));
        Ok(plain)
    }

    /// Answers with a failure, in one frame.
    fn refuse(&self, conn: &Conn, respond: &mut SendResponse<Bytes>, status: StatusCode, failure: &Failure) {
        self.ingest.failed(failure.reason);
        let mut response = Response::new(());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, CONTENT_TYPE);
        headers.insert("grpc-accept-encoding", ACCEPT_ENCODING);
        failure.write_grpc(headers);
        // The client may be gone: then there is nobody to tell.
        let _ = respond.send_response(response, true);
        conn.answered();
    }
}

impl Protocol for Grpc {
    const ALPN: &'static [&'static [u8]] = &[b"h2"];
    const IDLE_BYTES: usize = 32 << 10;

    async fn serve(self: Arc<Self>, io: Stream, conn: Arc<Conn>, stopping: Stopping) {
        let io = Watched::new(io, conn.clone(), Some((self.pings, self.gates.open())), self.gather);
        let mut stop = pin!(stopping.wait());
        let handshake = timeout(HANDSHAKE, self.http2.handshake::<_, Bytes>(io));
        let mut http2 = match tokio::select! { done = handshake => done, () = &mut stop => return } {
            Ok(Ok(http2)) => http2,
            _ => return self.ingest.failed(Reason::Protocol),
        };
        let mut pings = None;
        let mut probe: Option<Instant> = None;
        let mut phase = Phase::Serving;
        let age = self.limits.age.map(jitter);
        let mut stopped = false;
        let mut abuse = pin!(conn.ping_abuse());
        let mut abused = false;
        let first = self.limits.next(&conn, phase, probe, age);
        let mut timer = pin!(sleep_until(first));
        loop {
            tokio::select! {
                next = http2.accept() => match next {
                    Some(Ok((request, respond))) => {
                        let open = conn.open(true);
                        let task = self.clone().request(conn.clone(), open, request, respond);
                        self.ingest.supervisor.spawn("otlp request", task);
                    }
                    // A connection ends as its client likes; what was read of it is in the pipeline.
                    Some(Err(_)) | None => return,
                },
                () = &mut stop, if !stopped => {
                    stopped = true;
                    http2.graceful_shutdown();
                    phase = Phase::Stopping(Instant::now() + STOP_GRACE);
                    timer.as_mut().reset(self.limits.next(&conn, phase, probe, age));
                }
                () = &mut abuse, if !abused => {
                    abused = true;
                    http2.abrupt_shutdown(H2Reason::ENHANCE_YOUR_CALM);
                    phase = Phase::Draining(Some(Instant::now() + STOP_GRACE));
                    timer.as_mut().reset(self.limits.next(&conn, phase, probe, age));
                }
                () = &mut timer => {
                    let now = Instant::now();
                    if conn.frame_since().is_some_and(|since| now >= since + FRAME_TIME) {
                        return self.ingest.failed(Reason::Stalled);
                    }
                    match phase {
                        Phase::Serving => {
                            let old = age.is_some_and(|age| now >= conn.started() + age);
                            let idle = self.limits.idle.is_some_and(|idle| {
                                conn.quiet_since().is_some_and(|since| now >= since + idle)
                            });
                            if old || idle {
                                http2.graceful_shutdown();
                                phase = Phase::Draining(self.limits.age_grace.map(|grace| now + grace));
                            }
                        }
                        Phase::Draining(Some(end)) if now >= end => return,
                        Phase::Stopping(end) if now >= end => {
                            conn.cut();
                            phase = Phase::Cut;
                        }
                        Phase::Draining(_) | Phase::Stopping(_) | Phase::Cut => {}
                    }
                    match probe {
                        Some(sent) if conn.heard() > sent => probe = None,
                        Some(sent) if now >= sent + self.limits.ping_timeout => return,
                        Some(_) => {}
                        None if now >= conn.heard() + self.limits.ping_after => {
                            if pings.is_none() {
                                pings = http2.ping_pong();
                            }
                            if let Some(pings) = &mut pings {
                                // The pong is noticed as bytes heard; asking for it here frees the slot.
                                let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
                                let _ = pings.poll_pong(&mut cx);
                                let _ = pings.send_ping(h2::Ping::opaque());
                            }
                            probe = Some(now);
                        }
                        None => {}
                    }
                    timer.as_mut().reset(self.limits.next(&conn, phase, probe, age));
                }
            }
        }
    }
}

impl Limits {
    fn new(keepalive: &KeepaliveConfig) -> Self {
        let server = keepalive.server_parameters.get().cloned().unwrap_or_default();
        let set = |d: Duration| (!d.is_zero()).then_some(d);
        Limits {
            idle: set(server.max_connection_idle),
            age: set(server.max_connection_age),
            age_grace: set(server.max_connection_age_grace),
            ping_after: set(server.time).unwrap_or(PING_AFTER),
            ping_timeout: set(server.timeout).unwrap_or(PING_TIMEOUT),
        }
    }

    /// When the connection has to be looked at next.
    fn next(&self, conn: &Conn, phase: Phase, probe: Option<Instant>, age: Option<Duration>) -> Instant {
        let ping = probe.map_or(conn.heard() + self.ping_after, |sent| sent + self.ping_timeout);
        let ping = ping.min(conn.frame_since().unwrap_or_else(Instant::now) + FRAME_TIME);
        let end = match phase {
            Phase::Serving => {
                let old = age.map(|age| conn.started() + age);
                // While a request is open, idleness is looked at again after as long as it may last.
                let idle = self.idle.map(|idle| conn.quiet_since().unwrap_or_else(Instant::now) + idle);
                old.into_iter().chain(idle).min()
            }
            Phase::Draining(end) => end,
            Phase::Stopping(end) => Some(end),
            Phase::Cut => None,
        };
        end.map_or(ping, |end| end.min(ping))
    }
}

/// Answers with an empty response.
fn accept(respond: &mut SendResponse<Bytes>) -> Result<(), h2::Error> {
    let mut response = Response::new(());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, CONTENT_TYPE);
    headers.insert("grpc-accept-encoding", ACCEPT_ENCODING);
    let mut stream = respond.send_response(response, false)?;
    stream.send_data(Bytes::from_static(&EMPTY_ANSWER), false)?;
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    stream.send_trailers(trailers)
}

fn ping_policy(keepalive: &KeepaliveConfig) -> PingPolicy {
    let policy = keepalive.enforcement_policy.get().cloned().unwrap_or_default();
    let min_time = if policy.min_time.is_zero() { PING_MIN_TIME } else { policy.min_time };
    PingPolicy { min_time, without_stream: policy.permit_without_stream }
}

fn signal_of(path: &str) -> Option<Signal> {
    METHODS.iter().zip(Signal::ALL).find(|(method, _)| **method == path).map(|(_, signal)| signal)
}

/// `application/grpc`, `application/grpc+proto`, either with parameters.
fn is_grpc(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let essence = value.split(|&b| b == b';').next().unwrap_or_default().trim_ascii();
    essence.eq_ignore_ascii_case(b"application/grpc")
        || essence.eq_ignore_ascii_case(b"application/grpc+proto")
}

/// The codec of a call's compressed messages.
fn message_codec(headers: &HeaderMap) -> Result<Option<Codec>, Failure> {
    let Some(value) = headers.get("grpc-encoding") else { return Ok(None) };
    let name = value.to_str().unwrap_or("?");
    match Codec::from_encoding(name) {
        Some(codec @ (None | Some(Codec::Gzip | Codec::Zstd | Codec::Snappy | Codec::Deflate))) => Ok(codec),
        _ => Err(Failure::new(
            Code::Unimplemented,
            Reason::Unsupported,
            format!("grpc-encoding \"{name}\" is not supported"),
        )),
    }
}

/// The time a client gives its call: up to eight digits and a unit.
fn grpc_timeout(headers: &HeaderMap) -> Result<Option<Duration>, Failure> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let parse = || {
        let (digits, unit) = value.to_str().ok()?.split_at_checked(value.len().checked_sub(1)?)?;
        if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let n: u64 = digits.parse().ok()?;
        Some(match unit {
            "H" => Duration::from_secs(n * 3600),
            "M" => Duration::from_secs(n * 60),
            "S" => Duration::from_secs(n),
            "m" => Duration::from_millis(n),
            "u" => Duration::from_micros(n),
            "n" => Duration::from_nanos(n),
            _ => return None,
        })
    };
    parse().map(Some).ok_or_else(|| protocol("malformed grpc-timeout"))
}

fn protocol(message: &'static str) -> Failure {
    Failure::new(Code::Internal, Reason::Protocol, message)
}

fn disconnected(error: &h2::Error) -> Failure {
    let reason = if error.is_io() || error.is_reset() || error.is_go_away() {
        Reason::Disconnected
    } else {
        Reason::Protocol
    };
    Failure::new(Code::Cancelled, reason, format!("the request broke off: {error}"))
}

/// A duration give or take a tenth.
fn jitter(d: Duration) -> Duration {
    d.mul_f64(0.9 + 0.2 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts() {
        let cases = [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("4m", Some(Duration::from_millis(4))),
            ("5u", Some(Duration::from_micros(5))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("", None),
            ("S", None),
            ("5", None),
            ("-5S", None),
            ("123456789S", None),
            ("1é", None),
        ];
        for (text, want) in cases {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_bytes(text.as_bytes()).unwrap());
            assert_eq!(grpc_timeout(&headers).ok().flatten(), want, "{text}");
        }
        assert_eq!(grpc_timeout(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn content_types() {
        let cases = [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/gRPC; charset=x", true),
            ("application/grpc+json", false),
            ("application/grpc-web", false),
            ("application/x-protobuf", false),
            ("", false),
        ];
        for (text, want) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(text));
            assert_eq!(is_grpc(&headers), want, "{text}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }
}
