//! A strict backend over real sockets: decodes every request with prost, and misbehaves as told.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use tidegate::net::compress::{Codec, inflate};
use tidegate::pipeline::Ledger;
use tokio::net::TcpListener;

/// How the backend answers one request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Takes it.
    Ok,
    /// Takes it, says that it rejected some items.
    Partial(i64, &'static str),
    /// A gRPC status, perhaps with RetryInfo.
    Grpc(u32, &'static str, Option<Duration>),
    /// An HTTP status with headers and a body.
    Http(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// Refuses for its size when it has more spans than this, else takes it.
    AtMost(usize),
    /// Reads the request and never answers.
    Hang,
    /// Closes the connection in the middle of the request.
    Close,
    /// Takes it, then closes the connection before answering.
    TakeAndClose,
}

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub at: Instant,
    pub path: String,
    pub headers: HeaderMap,
    pub spans: Vec<u64>,
    pub wire_bytes: usize,
    pub taken: bool,
}

#[derive(Clone)]
pub struct Backend {
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    script: Mutex<VecDeque<Reply>>,
    otherwise: Mutex<Reply>,
    seen: Mutex<Vec<Seen>>,
    connections: Mutex<usize>,
}

type Body = BoxBody<Bytes, Infallible>;

impl Backend {
    /// Listens and answers by `script`, then with `otherwise`.
    pub async fn start(script: Vec<Reply>, otherwise: Reply) -> Backend {
        Self::start_with(script, otherwise, None).await
    }

    /// The same on a unix socket, for gRPC.
    pub async fn start_unix(path: &std::path::Path) -> Backend {
        let backend = Self::start(vec![], Reply::Ok).await;
        let listener = tokio::net::UnixListener::bind(path).unwrap();
        let state = backend.state.clone();
        tokio::spawn(async move {
            loop {
                let Ok((socket, _)) = listener.accept().await else { return };
                tokio::spawn(serve(socket, state.clone()));
            }
        });
        backend
    }

    /// The same behind TLS.
    pub async fn start_with(
        script: Vec<Reply>,
        otherwise: Reply,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            script: Mutex::new(script.into()),
            otherwise: Mutex::new(otherwise),
            seen: Mutex::default(),
            connections: Mutex::default(),
        });
        let backend = Backend { address, state: state.clone() };
        tokio::spawn(async move {
            loop {
                let Ok((socket, _)) = listener.accept().await else { return };
                *state.connections.lock().unwrap() += 1;
                let (state, tls) = (state.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(socket, state).await,
                        Some(tls) => {
                            if let Ok(socket) = tokio_rustls::TlsAcceptor::from(tls).accept(socket).await {
                                serve(socket, state).await;
                            }
                        }
                    }
                });
            }
        });
        backend
    }

    pub fn otherwise(&self, reply: Reply) {
        *self.state.otherwise.lock().unwrap() = reply;
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// The ids of all spans taken, in order of arrival.
    pub fn taken(&self) -> Vec<u64> {
        self.seen().iter().filter(|s| s.taken).flat_map(|s| s.spans.clone()).collect()
    }

    pub fn connections(&self) -> usize {
        *self.state.connections.lock().unwrap()
    }
}

async fn serve<T>(socket: T, state: Arc<State>)
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (cut, mut cut_rx) = tokio::sync::mpsc::channel::<()>(1);
    let service = service_fn(move |request| answer(request, state.clone(), cut.clone()));
    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    tokio::select! {
        _ = server.serve_connection(TokioIo::new(socket), service) => {}
        _ = cut_rx.recv() => {}
    }
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<State>,
    cut: tokio::sync::mpsc::Sender<()>,
) -> Result<Response<Body>, Infallible> {
    let reply = {
        let next = state.script.lock().unwrap().pop_front();
        next.unwrap_or_else(|| state.otherwise.lock().unwrap().clone())
    };
    let (head, mut body) = request.into_parts();
    if matches!(reply, Reply::Close) {
        let _ = body.frame().await;
        let _ = cut.send(()).await;
        std::future::pending::<()>().await;
    }
    let Ok(body) = body.collect().await.map(|b| b.to_bytes()) else {
        return std::future::pending().await;
    };
    let grpc = head.headers.get("content-type").is_some_and(|t| t == "application/grpc");
    let spans = decode(&head.headers, &body, grpc);
    let taken = match &reply {
        Reply::Ok | Reply::Partial(..) | Reply::TakeAndClose => true,
        Reply::AtMost(n) => spans.len() <= *n,
        Reply::Http(status, ..) => (200..300).contains(status),
        Reply::Grpc(code, ..) => *code == 0,
        Reply::Hang | Reply::Close => false,
    };
    let response = respond(&reply, grpc, taken, &head.headers);
    state.seen.lock().unwrap().push(Seen {
        at: Instant::now(),
        path: head.uri.path().to_owned(),
        headers: head.headers,
        spans,
        wire_bytes: body.len(),
        taken,
    });
    match reply {
        Reply::Hang => std::future::pending().await,
        Reply::TakeAndClose => {
            let _ = cut.send(()).await;
            std::future::pending().await
        }
        _ => Ok(response),
    }
}

/// Panics on anything that is not exactly a request.
fn decode(headers: &HeaderMap, body: &Bytes, grpc: bool) -> Vec<u64> {
    let encoding = |name: &str| headers.get(name).map(|v| v.to_str().unwrap().to_owned());
    let (payload, codec) = if grpc {
        assert_eq!(headers.get("te").unwrap(), "trailers");
        let len = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
        assert_eq!(body.len(), len + 5, "the prefix does not match the body");
        let codec = encoding("grpc-encoding");
        assert_eq!(body[0] == 1, codec.is_some());
        (body.slice(5..), codec)
    } else {
        let declared: usize = headers["content-length"].to_str().unwrap().parse().unwrap();
        assert_eq!(declared, body.len());
        (body.clone(), encoding("content-encoding"))
    };
    let payload = match codec.map(|c| Codec::from_encoding(&c).unwrap().unwrap()) {
        None => payload.to_vec(),
        Some(codec) => {
            let ledger = Ledger::new(1 << 30);
            let lease = ledger.reserve(0).unwrap();
            inflate(codec, &[payload], 1 << 28, &lease).unwrap().to_vec()
        }
    };
    let json = headers.get("content-type").is_some_and(|t| t == "application/json");
    let request = if json {
        serde_json::from_slice(&payload).unwrap()
    } else {
        ExportTraceServiceRequest::decode(payload.as_slice()).unwrap()
    };
    let spans = request.resource_spans.iter().flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans);
    spans.map(|s| u64::from_be_bytes(s.span_id.as_slice().try_into().unwrap())).collect()
}

fn respond(reply: &Reply, grpc: bool, taken: bool, headers: &HeaderMap) -> Response<Body> {
    let partial = match reply {
        Reply::Partial(rejected_spans, message) => Some(ExportTracePartialSuccess {
            rejected_spans: *rejected_spans,
            error_message: (*message).to_owned(),
        }),
        _ => None,
    };
    let message = ExportTraceServiceResponse { partial_success: partial };
    match (reply, grpc) {
        (Reply::Http(status, extra, body), _) => {
            let mut response = Response::builder().status(*status);
            for (name, value) in extra {
                response = response.header(*name, value);
            }
            response.body(full(Bytes::from(body.clone()))).unwrap()
        }
        (Reply::Grpc(code, text, retry), true) => grpc_status(*code, text, *retry),
        (Reply::AtMost(_), true) if !taken => {
            grpc_status(8, "grpc: received message larger than max (5000 vs. 100)", None)
        }
        (Reply::AtMost(_), false) if !taken => {
            Response::builder().status(413).body(full(Bytes::new())).unwrap()
        }
        (_, true) => {
            let payload = message.encode_to_vec();
            let mut data = vec![0];
            data.extend((payload.len() as u32).to_be_bytes());
            data.extend(payload);
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let body = Frames([Frame::data(Bytes::from(data)), Frame::trailers(trailers)].into()).boxed();
            Response::builder().header("content-type", "application/grpc").body(body).unwrap()
        }
        (_, false) => {
            let json = headers.get("content-type").is_some_and(|t| t == "application/json");
            let (kind, body) = if json {
                ("application/json", serde_json::to_vec(&message).unwrap())
            } else {
                ("application/x-protobuf", message.encode_to_vec())
            };
            Response::builder().header("content-type", kind).body(full(Bytes::from(body))).unwrap()
        }
    }
}

/// A status without a message: trailers only.
fn grpc_status(code: u32, text: &str, retry: Option<Duration>) -> Response<Body> {
    let mut response = Response::builder()
        .header("content-type", "application/grpc")
        .header("grpc-status", code.to_string())
        .header("grpc-message", text);
    if let Some(retry) = retry {
        #[derive(Clone, PartialEq, prost::Message)]
        struct Any {
            #[prost(string, tag = "1")]
            type_url: String,
            #[prost(bytes = "vec", tag = "2")]
            value: Vec<u8>,
        }
        #[derive(Clone, PartialEq, prost::Message)]
        struct Status {
            #[prost(int32, tag = "1")]
            code: i32,
            #[prost(string, tag = "2")]
            message: String,
            #[prost(message, repeated, tag = "3")]
            details: Vec<Any>,
        }
        #[derive(Clone, PartialEq, prost::Message)]
        struct Delay {
            #[prost(int64, tag = "1")]
            seconds: i64,
            #[prost(int32, tag = "2")]
            nanos: i32,
        }
        #[derive(Clone, PartialEq, prost::Message)]
        struct RetryInfo {
            #[prost(message, optional, tag = "1")]
            retry_delay: Option<Delay>,
        }
        let delay = Delay { seconds: retry.as_secs() as i64, nanos: retry.subsec_nanos() as i32 };
        let info = RetryInfo { retry_delay: Some(delay) };
        let any = Any {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
            value: info.encode_to_vec(),
        };
        let status = Status { code: code as i32, message: text.to_owned(), details: vec![any] };
        let text = base64::engine::general_purpose::STANDARD_NO_PAD.encode(status.encode_to_vec());
        response = response.header("grpc-status-details-bin", text);
    }
    response.body(full(Bytes::new())).unwrap()
}

fn full(bytes: Bytes) -> Body {
    http_body_util::Full::new(bytes).boxed()
}

/// Frames that are ready.
struct Frames(VecDeque<Frame<Bytes>>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        std::task::Poll::Ready(self.0.pop_front().map(Ok))
    }
}
