//! `otlp_grpc` (alias `otlp`): sends OTLP over gRPC.
//!
//! Below any gRPC library: a request is one HTTP/2 stream whose body is five bytes and the batch's own pieces, so
//! that sending telemetry uncompressed copies none of it in user space, and a request needs no task. Statuses are read by the OTLP rules, see `delivery::otlp`.

mod channel;
mod io;
mod message;
mod proxy;
mod status;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use h2::client::ResponseFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};

use self::channel::{Channel, Connection, Socket};
use self::io::Lent;
use self::message::Message;
use super::delivery::otlp::{OtlpEncoder, RpcStatus, partial_success};
use super::delivery::{Attempt, Delivery, DeliveryConfig, Outcome, QueueConfig, RetryConfig, Sender};
use super::tenant::{TenantConfig, TenantHeader};
use crate::components::{BuildError, ComponentConfig};
use crate::config;
use crate::config::types::Optional;
use crate::config::{Cx, Node};
use crate::net::auth::ClientAuth;
use crate::net::auth::ClientKey;
use crate::net::client::{GrpcClientConfig, user_agent};
use crate::net::compress::{Codec, deflate};
use crate::pdata::{Rope, Signal};
use crate::pipeline::{BuildContext, Exporter, RunContext, StartError};

/// Answers beyond this are not read, as in every gRPC client.
const MAX_ANSWER: usize = 4 << 20;

config! {
    /// Sends OTLP over gRPC.
    pub struct OtlpGrpcConfig {
        /// The longest one attempt may take. 0 is no limit.
        pub timeout: Duration = Duration::from_secs(5),
        /// How the destination is told whose data a request carries, where a `tenant` processor has said so.
        pub tenant: TenantConfig = TenantConfig::default(),
        /// Sends failed requests again.
        pub retry_on_failure: RetryConfig = RetryConfig::default(),
        /// Holds requests until the destination has taken them. On unless `enabled: false`.
        pub sending_queue: Optional<QueueConfig> = Optional::on(QueueConfig::default()),
    }
    flatten { client: GrpcClientConfig = GrpcClientConfig::default() }
    validate = OtlpGrpcConfig::check;
}

impl OtlpGrpcConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        self.client.check(node, cx);
        // An endpoint that does not parse is reported as such.
        if self.client.endpoint.is_empty() && node.get("endpoint").is_none_or(|n| n.is_null() || is_empty(n))
        {
            let pos = node.pos_of("endpoint");
            cx.error(pos, "requires a non-empty \"endpoint\"");
        }
    }
}

fn is_empty(node: &Node) -> bool {
    matches!(&node.value, crate::config::Value::Str(s) if s.is_empty())
}

impl ComponentConfig for OtlpGrpcConfig {
    fn extension_refs(&self) -> Vec<(&'static str, String)> {
        let auth = self.client.auth.get().filter(|a| !a.authenticator.is_empty());
        auth.map(|a| ("auth::authenticator", a.authenticator.as_str().to_owned())).into_iter().collect()
    }
}

/// Builds the exporter for one signal.
///
/// # Errors
/// An endpoint that makes no URI.
pub fn build(
    config: &OtlpGrpcConfig,
    signal: Signal,
    cx: &BuildContext,
) -> Result<Arc<dyn Exporter>, BuildError> {
    let sender = GrpcSender::new(config, signal)?;
    let delivery = DeliveryConfig {
        queue: config.sending_queue.get().cloned(),
        retry: config.retry_on_failure.clone(),
        timeout: config.timeout,
    };
    Ok(Arc::new(Delivery::new(cx, signal, delivery, OtlpEncoder, sender)))
}

/// Sends one request at a time over a shared channel.
struct GrpcSender {
    config: GrpcClientConfig,
    uri: Uri,
    headers: HeaderMap,
    tenant: TenantHeader,
    codec: Option<Codec>,
    running: OnceLock<Running>,
}

/// A request that waits for its answer; dropped early, its stream is reset.
struct Open {
    _stream: h2::SendStream<Message>,
    _lent: Lent<Box<dyn Socket>>,
    _users: Arc<()>,
}

struct Running {
    channel: Arc<Channel>,
    auth: Option<Arc<dyn ClientAuth>>,
}

impl GrpcSender {
    fn new(config: &OtlpGrpcConfig, signal: Signal) -> Result<Self, BuildError> {
        let client = &config.client;
        let authority = match client.authority.as_str() {
            "" => client.endpoint.authority().unwrap_or_else(|| "localhost".to_owned()),
            authority => authority.to_owned(),
        };
        let path = match signal {
            Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        };
        let uri = Uri::builder()
            .scheme(if client.plaintext() { "http" } else { "https" })
            .authority(authority.as_str())
            .path_and_query(path)
            .build()
            .map_err(|e| format!("\"{authority}\" is not an authority: {e}"))?;
        let codec = client.compression.codec();
        let mut headers = client.headers.to_map();
        let mut set = |name: HeaderName, value: HeaderValue| headers.insert(name, value);
        set(header::TE, HeaderValue::from_static("trailers"));
        set(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        if let Some(codec) = codec {
            set(HeaderName::from_static("grpc-encoding"), HeaderValue::from_static(codec.name()));
        }
        if !config.timeout.is_zero() {
            set(HeaderName::from_static("grpc-timeout"), grpc_timeout(config.timeout));
        }
        let agent = if client.user_agent.is_empty() { user_agent() } else { client.user_agent.clone() };
        let agent = HeaderValue::from_str(&agent).map_err(|e| format!("user_agent: {e}"))?;
        set(header::USER_AGENT, agent);
        let tenant = TenantHeader::new(&config.tenant, &client.headers);
        Ok(GrpcSender { config: client.clone(), uri, headers, tenant, codec, running: OnceLock::new() })
    }

    async fn attempt(&self, attempt: Attempt<'_, Rope>) -> Result<Outcome, Outcome> {
        let running = self.running.get().ok_or_else(|| Outcome::retry("the exporter is not started"))?;
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        self.tenant.add(attempt.tenant, request.headers_mut())?;
        if let Some(auth) = &running.auth {
            auth.authorize(attempt.client, request.headers_mut())?;
        }
        let (answer, _open) = self.open(&running.channel, request, attempt.body).await?;
        read_answer(answer).await
    }

    /// Opens a stream with the whole request on it. A connection that turns out to be closing is passed over:
    /// nothing was sent on it.
    async fn open(
        &self,
        channel: &Arc<Channel>,
        request: Request<()>,
        body: &Rope,
    ) -> Result<(ResponseFuture, Open), Outcome> {
        let mut message = None;
        let mut failure = String::new();
        for _ in 0..3 {
            let connection = channel.connection().await.map_err(Outcome::retry)?;
            if message.is_none() {
                message = Some(self.frame(body)?);
            }
            let Connection { mut sender, users, handle, .. } = connection.clone();
            sender = match sender.ready().await {
                Ok(sender) => sender,
                Err(e) => {
                    failure = e.to_string();
                    channel.retire(&connection);
                    continue;
                }
            };
            match sender.send_request(request.clone(), false) {
                Ok((answer, mut stream)) => {
                    let Some(message) = message.take() else { break };
                    let lent = handle.lend(message.pieces());
                    // An error means that the stream is reset already: its answer says why.
                    let _ = stream.send_data(message, true);
                    return Ok((answer, Open { _stream: stream, _lent: lent, _users: users }));
                }
                Err(e) => {
                    failure = e.to_string();
                    channel.retire(&connection);
                }
            }
        }
        Err(Outcome::retry(format!("connection error: {failure}")))
    }

    fn frame(&self, body: &Rope) -> Result<Message, Outcome> {
        let payload = match self.codec {
            None => body.clone(),
            Some(codec) => Rope::from(
                deflate(codec, None, body).map_err(|e| Outcome::rejected(format!("compression: {e}")))?,
            ),
        };
        Message::new(self.codec.is_some(), payload)
            .ok_or_else(|| Outcome::TooLarge { reason: "the message is larger than 4 GiB".to_owned() })
    }
}

impl Sender<Rope> for GrpcSender {
    fn start(&self, cx: &RunContext) -> Result<(), StartError> {
        let auth = match self.config.auth.get().filter(|a| !a.authenticator.is_empty()) {
            Some(auth) => Some(cx.client_auth(auth.authenticator.as_str())?),
            None => None,
        };
        let tls = if self.config.plaintext() { None } else { Some(self.config.tls.load(&[b"h2"])?) };
        let channel = Channel::new(&self.config, tls, cx.supervisor.clone());
        let _ = self.running.set(Running { channel, auth });
        Ok(())
    }

    fn reads(&self) -> Vec<ClientKey> {
        let auth = self.running.get().and_then(|running| running.auth.as_ref());
        auth.map(|auth| auth.reads()).unwrap_or_default()
    }

    async fn send(&self, attempt: Attempt<'_, Rope>) -> Outcome {
        match self.attempt(attempt).await {
            Ok(outcome) | Err(outcome) => outcome,
        }
    }
}

/// Reads status and partial success.
async fn read_answer(answer: ResponseFuture) -> Result<Outcome, Outcome> {
    let (head, mut body) = answer.await.map_err(|e| broken(&e))?.into_parts();
    let mut message: Vec<u8> = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk: Bytes = match chunk {
            Ok(chunk) => chunk,
            // The status may have come with the headers; what follows is then of no interest.
            Err(_) if head.headers.contains_key("grpc-status") => break,
            Err(e) => return Err(broken(&e)),
        };
        if message.len() + chunk.len() > MAX_ANSWER {
            return Err(Outcome::rejected(format!("the answer is larger than {MAX_ANSWER} bytes")));
        }
        // Fails only on a window that overflows, which the connection itself reports.
        let _ = body.flow_control().release_capacity(chunk.len());
        message.extend_from_slice(&chunk);
    }
    let trailers = match body.trailers().await {
        Ok(trailers) => trailers,
        Err(_) if head.headers.contains_key("grpc-status") => None,
        Err(e) => return Err(broken(&e)),
    };
    let status =
        trailers.as_ref().and_then(status::from_headers).or_else(|| status::from_headers(&head.headers));
    match status {
        Some(RpcStatus { code: 0, .. }) => Ok(accepted(&message)),
        Some(status) => Ok(status.outcome()),
        None if head.status.is_success() => {
            Err(Outcome::retry("the server closed the stream without a status"))
        }
        None => Ok(status::from_http(head.status).outcome()),
    }
}

/// Status OK: the server has the data, whatever the rest of the answer looks like.
fn accepted(message: &[u8]) -> Outcome {
    let payload = match message {
        [] => return Outcome::delivered(),
        [0, _, _, _, _, payload @ ..] => payload,
        _ => return unreadable(),
    };
    match partial_success(payload) {
        Ok((rejected, message)) => Outcome::Delivered { rejected, message },
        Err(_) => unreadable(),
    }
}

fn unreadable() -> Outcome {
    Outcome::Delivered { rejected: 0, message: "the answer could not be read".to_owned() }
}

/// The call ended without an answer: the request may be sent again.
fn broken(error: &h2::Error) -> Outcome {
    Outcome::retry(format!("rpc error: code = Unavailable desc = {error}"))
}

/// A deadline as gRPC writes it: at most eight digits and a unit.
fn grpc_timeout(timeout: Duration) -> HeaderValue {
    let millis = timeout.as_millis().max(1);
    let text = if millis < 100_000_000 {
        format!("{millis}m")
    } else {
        format!("{}S", (millis / 1000).min(99_999_999))
    };
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("5S"))
}
