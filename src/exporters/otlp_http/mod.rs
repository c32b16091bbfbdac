//! `otlp_http` (alias `otlphttp`): sends OTLP over HTTP, as protobuf or JSON.
//!
//! Protobuf is the batch's own bytes: uncompressed they are streamed from the rope with an exact content length,
//! compressed they are read where they lie. Statuses follow the Collector's table; of an answer at most 64 KiB are
//! read.

mod answer;
mod body;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};

use self::body::RopeBody;
use super::delivery::otlp::OtlpEncoder;
use super::delivery::{Attempt, Delivery, DeliveryConfig, Outcome, QueueConfig, RetryConfig, Sender};
use super::http::Post;
use super::tenant::{TenantConfig, TenantHeader};
use crate::components::{BuildError, ComponentConfig};
use crate::config::types::{HttpUrl, Optional};
use crate::config::{Cx, Node};
use crate::net::auth::ClientKey;
use crate::net::client::{HttpClientConfig, HttpCompression};
use crate::net::compress::deflate;
use crate::pdata::{Rope, Signal, json};
use crate::pipeline::{BuildContext, Exporter, RunContext, StartError};
use crate::{config, config_enum};

config_enum! {
    /// The form of requests.
    pub enum Encoding {
        /// Protobuf.
        Proto = "proto",
        /// OTLP/JSON.
        Json = "json",
    }
}

config! {
    /// Sends OTLP over HTTP.
    pub struct OtlpHttpConfig {
        /// The URL for traces, used as it is written instead of `endpoint` with `/v1/traces`.
        pub traces_endpoint: HttpUrl = HttpUrl::default(),
        /// The URL for metrics, used as it is written instead of `endpoint` with `/v1/metrics`.
        pub metrics_endpoint: HttpUrl = HttpUrl::default(),
        /// The URL for logs, used as it is written instead of `endpoint` with `/v1/logs`.
        pub logs_endpoint: HttpUrl = HttpUrl::default(),
        /// Not used: there are no pipelines for profiles.
        pub profiles_endpoint: HttpUrl = HttpUrl::default(),
        /// The form of requests.
        pub encoding: Encoding = Encoding::Proto,
        /// How the destination is told whose data a request carries, where a `tenant` processor has said so.
        pub tenant: TenantConfig = TenantConfig::default(),
        /// Sends failed requests again.
        pub retry_on_failure: RetryConfig = RetryConfig::default(),
        /// Holds requests until the destination has taken them. On unless `enabled: false`.
        pub sending_queue: Optional<QueueConfig> = Optional::on(QueueConfig::default()),
    }
    flatten {
        client: HttpClientConfig = HttpClientConfig {
            compression: HttpCompression::Gzip,
            timeout: Duration::from_secs(30),
            write_buffer_size: 512 * 1024,
            ..HttpClientConfig::default()
        },
    }
    validate = OtlpHttpConfig::check;
}

impl OtlpHttpConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        self.client.check(node, cx);
        let keys = ["endpoint", "traces_endpoint", "metrics_endpoint", "logs_endpoint", "profiles_endpoint"];
        // A URL that does not parse is reported as such.
        let written = |key: &&str| node.get(key).is_some_and(|n| !n.is_null() && !is_empty(n));
        let set =
            Signal::ALL.iter().any(|s| !self.own_url(*s).is_empty()) || !self.client.endpoint.is_empty();
        if !set && !keys.iter().any(written) {
            cx.error(node.pos, "at least one endpoint must be specified");
        }
        if !self.profiles_endpoint.is_empty() {
            let why = "profiles are not supported: this endpoint is not used";
            cx.within("profiles_endpoint", |cx| cx.warn(node.pos_of("profiles_endpoint"), why));
        }
    }

    fn own_url(&self, signal: Signal) -> &HttpUrl {
        match signal {
            Signal::Traces => &self.traces_endpoint,
            Signal::Metrics => &self.metrics_endpoint,
            Signal::Logs => &self.logs_endpoint,
        }
    }

    fn url(&self, signal: Signal) -> Result<String, BuildError> {
        let own = self.own_url(signal);
        if !own.is_empty() {
            return Ok(own.as_str().to_owned());
        }
        if self.client.endpoint.is_empty() {
            return Err(format!("either endpoint or {}_endpoint must be specified", signal.name()));
        }
        Ok(self.client.endpoint.join(&format!("v1/{}", signal.name())))
    }
}

fn is_empty(node: &Node) -> bool {
    matches!(&node.value, crate::config::Value::Str(s) if s.is_empty())
}

impl ComponentConfig for OtlpHttpConfig {
    fn extension_refs(&self) -> Vec<(&'static str, String)> {
        self.client.extension_refs()
    }
}

/// Builds the exporter for one signal.
///
/// # Errors
/// There is no URL for the signal.
pub fn build(
    config: &OtlpHttpConfig,
    signal: Signal,
    cx: &BuildContext,
) -> Result<Arc<dyn Exporter>, BuildError> {
    let mut headers = HeaderMap::new();
    let (kind, codec) = (config.encoding, config.client.compression.codec());
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(kind)));
    if let Some(codec) = codec {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(codec.name()));
    }
    let post = Post::new(&config.client, &config.url(signal)?, headers)?;
    let tenant = TenantHeader::new(&config.tenant, &config.client.headers);
    let sender = HttpSender { config: config.client.clone(), encoding: kind, tenant, post };
    let delivery = DeliveryConfig {
        queue: config.sending_queue.get().cloned(),
        retry: config.retry_on_failure.clone(),
        timeout: config.client.timeout,
    };
    Ok(Arc::new(Delivery::new(cx, signal, delivery, OtlpEncoder, sender)))
}

fn content_type(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Proto => "application/x-protobuf",
        Encoding::Json => "application/json",
    }
}

struct HttpSender {
    config: HttpClientConfig,
    encoding: Encoding,
    tenant: TenantHeader,
    post: Post,
}

impl HttpSender {
    async fn attempt(&self, attempt: Attempt<'_, Rope>) -> Result<Outcome, Outcome> {
        let mut own = HeaderMap::new();
        self.tenant.add(attempt.tenant, &mut own)?;
        let body = self.body(attempt.signal, attempt.body)?;
        let len = body.len();
        let answer = self.post.send(attempt.client, own, body.into_body(), len).await?;
        if let (true, Some(message)) = (answer.status.is_success(), answer.broken) {
            return Ok(Outcome::Delivered { rejected: 0, message });
        }
        Ok(answer::outcome(answer.status, &answer.headers, &answer.body, self.post.shown()))
    }

    fn body(&self, signal: Signal, rope: &Rope) -> Result<RopeBody, Outcome> {
        let rope = match self.encoding {
            Encoding::Proto => rope.clone(),
            Encoding::Json => {
                let mut out = Vec::with_capacity(rope.len() * 2);
                json::encode(signal, &rope.to_bytes(), &mut out).map_err(|e| Outcome::Rejected {
                    bad_data: true,
                    reason: format!("the request cannot be written as JSON: {e}"),
                })?;
                Rope::from(out)
            }
        };
        let Some(codec) = self.config.compression.codec() else { return Ok(RopeBody::new(rope)) };
        let compressed: Bytes = deflate(codec, self.config.level(), &rope)
            .map_err(|e| Outcome::rejected(format!("compression: {e}")))?;
        Ok(RopeBody::new(Rope::from(compressed)))
    }
}

impl Sender<Rope> for HttpSender {
    fn start(&self, cx: &RunContext) -> Result<(), StartError> {
        self.post.start(cx)
    }

    fn reads(&self) -> Vec<ClientKey> {
        self.post.reads()
    }

    async fn send(&self, attempt: Attempt<'_, Rope>) -> Outcome {
        match self.attempt(attempt).await {
            Ok(outcome) | Err(outcome) => outcome,
        }
    }
}
