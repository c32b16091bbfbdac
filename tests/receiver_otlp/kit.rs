//! A receiver on a free port, pipelines that do as they are told, and clients that speak frame by frame.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use tidegate::config::types::{Endpoint, Optional};
use tidegate::net::auth::{AuthError, ServerAuth};
use tidegate::pdata::{Batch, Signal};
use tidegate::pipeline::{
    Consumer, Extension, Ledger, Outputs, Receiver, RunContext, StartError, Verdict, runtime::Supervisor,
};
use tidegate::receivers::otlp::{GrpcServerConfig, HttpProtocolConfig, Otlp, OtlpConfig, Protocols};
use tidegate::telemetry::Metrics;
use tokio::net::TcpStream;

use crate::support;
use crate::support::payload::Template;

/// What a pipeline does with what it gets.
#[derive(Debug, Clone)]
pub enum Does {
    Answers(Verdict),
    /// Keeps the batch without an answer.
    Holds,
}

/// A pipeline: keeps what it got.
pub struct Pipe {
    pub does: Mutex<Does>,
    pub got: Mutex<Vec<Batch>>,
}

impl Consumer for Pipe {
    fn consume(&self, batch: Batch) {
        let does = self.does.lock().unwrap().clone();
        let mut kept = batch;
        if let Does::Answers(verdict) = does {
            std::mem::take(&mut kept.acks).resolve(verdict);
        }
        self.got.lock().unwrap().push(kept);
    }

    fn holds_acks(&self) -> bool {
        false
    }
}

impl Pipe {
    pub fn bodies(&self) -> Vec<Bytes> {
        self.got.lock().unwrap().iter().map(|b| b.rope.to_bytes()).collect()
    }

    pub fn take(&self) -> Vec<Batch> {
        std::mem::take(&mut *self.got.lock().unwrap())
    }
}

/// A receiver that runs.
pub struct Rig {
    pub otlp: Otlp,
    pub pipe: Arc<Pipe>,
    pub cx: RunContext,
}

/// An authenticator that lets in whoever says `authorization: letmein`.
struct Doorman;

impl ServerAuth for Doorman {
    fn authenticate(&self, headers: &HeaderMap) -> Result<Vec<(String, String)>, AuthError> {
        match headers.get("authorization") {
            Some(value) if value == "letmein" => Ok(vec![("subject".to_owned(), "guest".to_owned())]),
            _ => Err(AuthError("not on the list".to_owned())),
        }
    }
}

#[async_trait::async_trait]
impl Extension for Doorman {
    async fn start(&self, _: &RunContext) -> Result<(), StartError> {
        Ok(())
    }

    async fn stop(&self) {}

    fn server_auth(&self) -> Option<Arc<dyn ServerAuth>> {
        Some(Arc::new(Doorman))
    }
}

/// Settings for gRPC on a free port.
pub fn grpc() -> GrpcServerConfig {
    GrpcServerConfig { endpoint: Endpoint::of("127.0.0.1:0"), ..GrpcServerConfig::default() }
}

/// Settings for HTTP on a free port.
pub fn http() -> HttpProtocolConfig {
    HttpProtocolConfig { endpoint: Endpoint::of("127.0.0.1:0"), ..HttpProtocolConfig::default() }
}

impl Rig {
    pub async fn grpc(config: GrpcServerConfig) -> Self {
        Self::start(Some(config), None, 64 << 20, &Signal::ALL).await
    }

    pub async fn http(config: HttpProtocolConfig) -> Self {
        Self::start(None, Some(config), 64 << 20, &Signal::ALL).await
    }

    pub async fn start(
        grpc: Option<GrpcServerConfig>,
        http: Option<HttpProtocolConfig>,
        budget: usize,
        signals: &[Signal],
    ) -> Self {
        let pipe =
            Arc::new(Pipe { does: Mutex::new(Does::Answers(Verdict::Accepted)), got: Mutex::default() });
        let doorman: Arc<dyn Extension> = Arc::new(Doorman);
        let cx = RunContext {
            supervisor: Supervisor::default(),
            ledger: Ledger::new(budget),
            metrics: Metrics::new(),
            extensions: Arc::new(HashMap::from([("doorman".to_owned(), doorman)])),
            readiness: Default::default(),
        };
        let outputs: Outputs =
            Signal::ALL.map(|signal| signals.contains(&signal).then(|| pipe.clone() as Arc<dyn Consumer>));
        let mut protocols = Protocols::default();
        if let Some(grpc) = grpc {
            protocols.grpc = Optional::on(grpc);
        }
        if let Some(http) = http {
            protocols.http = Optional::on(http);
        }
        let mut otlp = Otlp::new(OtlpConfig { protocols }, "otlp/test".to_owned());
        otlp.start(outputs, &cx).await.unwrap();
        Rig { otlp, pipe, cx }
    }

    pub fn does(&self, does: Does) {
        *self.pipe.does.lock().unwrap() = does;
    }

    pub fn answers(&self, verdict: Verdict) {
        self.does(Does::Answers(verdict));
    }

    /// A counter's value, given as it stands in `/metrics`, or 0.
    pub fn count(&self, name: &str, label: &str) -> u64 {
        let families = self.cx.metrics.gather();
        let series = families.iter().filter(|f| f.name() == name).flat_map(|f| f.get_metric());
        series
            .filter(|m| label.is_empty() || m.get_label().iter().any(|l| l.value() == label))
            .map(|m| m.get_counter().get_value() as u64)
            .sum()
    }

    /// Waits until a counter has this value.
    pub async fn counted(&self, name: &str, label: &str, want: u64) {
        support::eventually(Duration::from_secs(10), name, || self.count(name, label) == want).await;
    }

    pub async fn grpc_client(&self) -> Grpc {
        Grpc::connect(self.otlp.grpc_address().unwrap()).await
    }

    pub async fn post(&self, path: &str, content_type: &str, body: impl Into<Bytes>) -> Reply {
        self.send(Method::POST, path, &[("content-type", content_type)], body).await
    }

    /// One HTTP/1.1 request on a connection of its own.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let stream = TcpStream::connect(self.otlp.http_address().unwrap()).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "rig");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(http_body_util::Full::new(body.into())).unwrap();
        Reply::read(sender.send_request(request).await.unwrap()).await
    }

    pub async fn stop_within(&mut self, limit: Duration) -> Duration {
        let start = Instant::now();
        self.otlp.stop(start + limit).await;
        start.elapsed()
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub async fn read(response: http::Response<hyper::body::Incoming>) -> Self {
        use http_body_util::BodyExt;
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Reply { status: head.status.as_u16(), headers: head.headers, body }
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// A gRPC answer: HTTP status, gRPC status, and the headers that carried it.
#[derive(Debug)]
pub struct Answer {
    pub http: u16,
    pub status: i32,
    pub headers: HeaderMap,
    pub trailers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn message(&self) -> &str {
        self.trailers.get("grpc-message").map_or("", |v| v.to_str().unwrap())
    }

    /// The delay asked for, in seconds.
    pub fn retry(&self) -> Option<i64> {
        use base64::Engine;
        use prost::Message;
        let text = self.trailers.get("grpc-status-details-bin")?;
        let bytes = base64::engine::general_purpose::STANDARD_NO_PAD.decode(text.as_bytes()).unwrap();
        let status = support::grpc::RpcStatus::decode(&bytes[..]).unwrap();
        assert_eq!(status.code, self.status);
        let info = support::grpc::RetryInfo::decode(&status.details.first()?.value[..]).unwrap();
        Some(info.retry_delay?.seconds)
    }
}

/// A client on one HTTP/2 connection.
#[derive(Clone)]
pub struct Grpc {
    pub sender: h2::client::SendRequest<Bytes>,
}

/// A call whose message is still being sent.
pub struct Call {
    pub response: h2::client::ResponseFuture,
    pub body: h2::SendStream<Bytes>,
}

pub const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
pub const METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
pub const LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

impl Grpc {
    pub async fn connect(address: &str) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap()).await
    }

    pub async fn over<IO>(io: IO) -> Self
    where
        IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = h2::client::handshake(io).await.unwrap();
        tokio::spawn(connection);
        Grpc { sender }
    }

    /// Opens a call with the usual headers and some more; a header named twice replaces the usual one.
    pub async fn open(&self, path: &str, headers: &[(&str, &str)]) -> Call {
        self.open_as(Method::POST, path, headers).await
    }

    pub async fn open_as(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Call {
        let uri = format!("http://rig:4317{path}");
        let mut request = Request::builder().method(method).uri(uri).version(http::Version::HTTP_2);
        let usual = [("content-type", "application/grpc"), ("te", "trailers")];
        for (name, value) in usual.iter().filter(|(n, _)| !headers.iter().any(|(h, _)| h == n)).chain(headers)
        {
            request = request.header(*name, *value);
        }
        let mut sender = self.sender.clone().ready().await.unwrap();
        let (response, body) = sender.send_request(request.body(()).unwrap(), false).unwrap();
        Call { response, body }
    }

    /// A whole call with `body` as it is, prefix included.
    pub async fn call(&self, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        let mut call = self.open(path, headers).await;
        call.send(body, true).await;
        call.answer().await
    }

    /// A whole call with one uncompressed message.
    pub async fn export(&self, path: &str, message: &[u8]) -> Answer {
        self.call(path, &[], framed(0, message)).await
    }
}

impl Call {
    /// Sends bytes as far as the window allows; stops when the server has answered.
    pub async fn send(&mut self, body: Vec<u8>, end: bool) {
        // Errors mean that the server wants no more: it has answered.
        let _ = self.body.send_data(Bytes::from(body), end);
    }

    pub async fn answer(self) -> Answer {
        let response = tokio::time::timeout(Duration::from_secs(20), self.response).await.unwrap().unwrap();
        let (head, mut stream) = response.into_parts();
        let mut body = Vec::new();
        while let Some(Ok(data)) = stream.data().await {
            body.extend_from_slice(&data);
        }
        let trailers = stream.trailers().await.ok().flatten().unwrap_or_else(|| head.headers.clone());
        let status = trailers.get("grpc-status").map_or(-1, |v| v.to_str().unwrap().parse().unwrap());
        Answer { http: head.status.as_u16(), status, headers: head.headers, trailers, body }
    }
}

/// A message with its prefix.
pub fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let mut out = vec![flag];
    out.extend((message.len() as u32).to_be_bytes());
    out.extend_from_slice(message);
    out
}

/// A request of `items` items.
pub fn request(signal: Signal, items: usize) -> Vec<u8> {
    let signal = support::Signal::ALL[signal.index()];
    let mut out = Vec::new();
    Template::new(signal, items, 0).write(1, &mut out);
    out
}

pub fn retry(seconds: Option<u64>) -> Verdict {
    Verdict::Retry { after: seconds.map(Duration::from_secs), reason: "queue is full".to_owned() }
}

pub fn rejected(bad_data: bool) -> Verdict {
    Verdict::Rejected { bad_data, reason: "100% wrong\u{e9}".to_owned() }
}
