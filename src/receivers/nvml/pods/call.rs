//! A call to the kubelet: one connection, one or two requests, and gone again.
//!
//! A connection a round costs one more packet each way on a local socket, and leaves nothing that can go stale: a kubelet
//! that restarts puts a new socket at the old path, and the next round finds it. There is no task either: whoever waits
//! for the answer also moves the bytes. This is gRPC on the HTTP/2 that the agent has anyway; a client library would add
//! a pool, a balancer and tasks for what is one request in ten seconds.

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request, header};
use tokio::net::UnixStream;
use tonic::{Code, Status};

use super::answer::Fault;
use crate::net::client::user_agent;

/// Answers beyond this are not read. A pod is some hundred bytes.
const MOST_BYTES: usize = 16 << 20;
/// How much the kubelet may send ahead.
const WINDOW: u32 = 1 << 20;

/// Which container has which devices.
const LIST: &str = "http://localhost/v1.PodResourcesLister/List";
/// Which devices there are to be had.
const ALLOCATABLE: &str = "http://localhost/v1.PodResourcesLister/GetAllocatableResources";
/// Both requests are empty messages: neither compressed, nor of any length.
const EMPTY: Bytes = Bytes::from_static(&[0; 5]);

/// What one round brought.
#[derive(Debug)]
pub(super) struct Round {
    /// The answer to `List`.
    pub list: Result<Bytes, Failure>,
    /// The answer to `GetAllocatableResources`, if that was asked.
    pub allocatable: Option<Result<Bytes, Failure>>,
}

/// Why there is no answer.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// The socket cannot be connected to.
    Connect(io::ErrorKind, String),
    /// No answer in time.
    Timeout,
    /// The connection broke, or does not speak HTTP/2.
    Transport(String),
    /// The kubelet refuses.
    Status(Code, String),
    /// More bytes than anybody's pods.
    TooLarge(usize),
    /// Not what was asked for.
    Malformed(Fault),
}

impl Failure {
    /// In a word, for metrics and to see whether it is still the same.
    pub fn word(&self) -> &'static str {
        match self {
            Failure::Connect(io::ErrorKind::NotFound, _) => "no_socket",
            Failure::Connect(io::ErrorKind::PermissionDenied, _) => "no_permission",
            Failure::Connect(io::ErrorKind::ConnectionRefused, _) => "refused",
            Failure::Connect(..) | Failure::Transport(_) => "transport",
            Failure::Timeout => "timeout",
            Failure::Status(Code::ResourceExhausted, _) => "resource_exhausted",
            Failure::Status(Code::Unimplemented, _) => "unimplemented",
            Failure::Status(..) => "status",
            Failure::TooLarge(_) => "too_large",
            Failure::Malformed(_) => "malformed",
        }
    }

    /// What a user can do about it.
    pub fn hint(&self) -> &'static str {
        match self.word() {
            "no_socket" => "mount the host's /var/lib/kubelet/pod-resources, as a directory",
            "no_permission" => "the socket is root's: run the agent as root, or give it the socket's group",
            "refused" => "the kubelet is restarting, or the socket alone is mounted: mount its directory",
            "resource_exhausted" => "too many clients ask this kubelet: ask less often",
            "unimplemented" => "the API is there from Kubernetes 1.20",
            _ => "it is asked again with the next collection",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Connect(_, error) => write!(f, "cannot connect: {error}"),
            Failure::Timeout => f.write_str("no answer in time"),
            Failure::Transport(error) => write!(f, "the connection failed: {error}"),
            Failure::Status(code, message) => write!(f, "{code:?}: {message}"),
            Failure::TooLarge(bytes) => {
                write!(f, "an answer of {bytes} bytes; at most {MOST_BYTES} are read")
            }
            Failure::Malformed(fault) => write!(f, "the answer cannot be read: {fault}"),
        }
    }
}

impl From<h2::Error> for Failure {
    fn from(error: h2::Error) -> Self {
        Failure::Transport(error.to_string())
    }
}

/// Asks the kubelet at this socket, for at most so long in all. Without an answer to the first question the second is
/// not asked.
pub(super) async fn round(path: &str, timeout: Duration, allocatable: bool) -> Round {
    let mut list = None;
    let mut second = None;
    let asking = async {
        let socket = match UnixStream::connect(path).await {
            Ok(socket) => socket,
            Err(error) => {
                list = Some(Err(Failure::Connect(error.kind(), error.to_string())));
                return;
            }
        };
        let built = h2::client::Builder::new()
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_header_list_size(16 << 10)
            .enable_push(false)
            .handshake::<_, Bytes>(socket)
            .await;
        let (mut sender, connection) = match built {
            Ok(built) => built,
            Err(error) => {
                list = Some(Err(error.into()));
                return;
            }
        };
        let mut questions = std::pin::pin!(async {
            let answer = list.insert(call(&mut sender, LIST).await);
            if allocatable && answer.is_ok() {
                second = Some(call(&mut sender, ALLOCATABLE).await);
            }
        });
        tokio::select! {
            biased;
            () = &mut questions => {}
            // What it ended with, the questions find out themselves: an answer may have come in full.
            _ = connection => questions.await,
        }
    };
    if tokio::time::timeout(timeout, asking).await.is_err() && list.is_some() && allocatable {
        second.get_or_insert(Err(Failure::Timeout));
    }
    Round { list: list.unwrap_or(Err(Failure::Timeout)), allocatable: second }
}

/// One unary call with an empty message: the message of the answer.
async fn call(sender: &mut SendRequest<Bytes>, uri: &'static str) -> Result<Bytes, Failure> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(uri)
        .header(header::TE, "trailers")
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::USER_AGENT, user_agent())
        .body(())
        .map_err(|e| Failure::Transport(e.to_string()))?;
    std::future::poll_fn(|cx| sender.poll_ready(cx)).await?;
    let (answer, mut stream) = sender.send_request(request, false)?;
    stream.send_data(EMPTY, true)?;
    let (head, mut body) = answer.await?.into_parts();
    let mut received = BytesMut::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        check_size(received.len() + chunk.len())?;
        // Fails only on a window that overflows, which the connection itself reports.
        let _ = body.flow_control().release_capacity(chunk.len());
        received.extend_from_slice(&chunk);
        if let Some([_, length @ ..]) = received.first_chunk::<5>() {
            check_size(u32::from_be_bytes(*length) as usize)?;
        }
    }
    let trailers = body.trailers().await?;
    check_status(trailers.as_ref(), &head.headers)?;
    if !head.status.is_success() {
        return Err(Failure::Transport(format!("HTTP status {}", head.status)));
    }
    let received = received.freeze();
    match received.first_chunk::<5>() {
        Some([0, length @ ..]) if u32::from_be_bytes(*length) as usize == received.len() - 5 => {
            Ok(received.slice(5..))
        }
        _ => Err(Failure::Transport("the answer is not one uncompressed message".to_owned())),
    }
}

fn check_size(bytes: usize) -> Result<(), Failure> {
    if bytes > MOST_BYTES + 5 { Err(Failure::TooLarge(bytes)) } else { Ok(()) }
}

/// The status stands in the trailers, or with an answer that is nothing but a status in the headers.
fn check_status(trailers: Option<&HeaderMap>, headers: &HeaderMap) -> Result<(), Failure> {
    match trailers.and_then(Status::from_header_map).or_else(|| Status::from_header_map(headers)) {
        Some(status) if status.code() == Code::Ok => Ok(()),
        Some(status) => Err(Failure::Status(status.code(), status.message().to_owned())),
        None => Err(Failure::Transport("the answer ended without a status".to_owned())),
    }
}
