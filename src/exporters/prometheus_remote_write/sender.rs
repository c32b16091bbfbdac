//! One attempt: the snappy block, the headers of its version, and the older version where the newer is not known.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::answer::{self, Verdict};
use super::config::RemoteWriteConfig;
use crate::components::BuildError;
use crate::exporters::delivery::sharded::ShardBody;
use crate::exporters::delivery::{Attempt, Outcome, Sender};
use crate::exporters::http::{Answer, Post};
use crate::exporters::tenant::TenantHeader;
use crate::net::auth::ClientKey;
use crate::pipeline::{BuildContext, RunContext, StartError};
use crate::prometheus::remote::{Negotiation, Version, WriteBody};
use crate::telemetry::Counter;

const VERSION: HeaderName = HeaderName::from_static("x-prometheus-remote-write-version");
const RETRY_ATTEMPT: HeaderName = HeaderName::from_static("retry-attempt");

/// The largest 1.0 message that is made of one of 2.0; a larger one is cut first. Prometheus takes no more.
const MAX_OLDER: usize = 32 << 20;

/// Sends requests to one destination.
pub(super) struct WriteSender {
    post: Post,
    negotiation: Arc<Negotiation>,
    /// Metadata keys and the headers they become.
    forwarded: Vec<(String, HeaderName)>,
    tenant: TenantHeader,
    fallbacks: Counter,
    id: String,
}

impl WriteSender {
    pub fn new(
        config: &RemoteWriteConfig,
        negotiation: &Arc<Negotiation>,
        cx: &BuildContext,
    ) -> Result<Self, BuildError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("snappy"));
        let header = |key: &String| Some((key.clone(), HeaderName::try_from(key.to_lowercase()).ok()?));
        Ok(WriteSender {
            post: Post::new(config.http(), config.url().as_str(), headers)?,
            negotiation: negotiation.clone(),
            forwarded: config.include_metadata_keys.iter().filter_map(header).collect(),
            tenant: TenantHeader::new(&config.tenant, &config.http().headers),
            fallbacks: cx.metrics.series(
                "tidegate_remote_write_fallbacks",
                "How often a destination turned out not to know remote write 2.0 and was sent 1.0.",
                &[("exporter", &cx.id)],
            ),
            id: cx.id.clone(),
        })
    }

    async fn post(
        &self,
        attempt: &Attempt<'_, WriteBody>,
        version: Version,
        block: Bytes,
        attempts: u32,
    ) -> Result<Answer, Outcome> {
        let (kind, number) = match version {
            Version::V1 => ("application/x-protobuf", "0.1.0"),
            Version::V2 => ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "2.0.0"),
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(VERSION, HeaderValue::from_static(number));
        if attempts > 0 {
            headers.insert(RETRY_ATTEMPT, HeaderValue::from(attempts));
        }
        for (key, name) in &self.forwarded {
            for value in attempt.client.metadata(key).unwrap_or_default() {
                if let Ok(value) = HeaderValue::try_from(value) {
                    headers.append(name.clone(), value);
                }
            }
        }
        self.tenant.add(attempt.tenant, &mut headers)?;
        let len = block.len();
        self.post.send(attempt.client, headers, block.into(), len).await
    }

    async fn attempt(&self, attempt: Attempt<'_, WriteBody>) -> Result<Outcome, Outcome> {
        let body = attempt.body;
        let attempts = body.attempt();
        let items = body.items();
        if body.version() == Version::V2 && self.negotiation.version(Instant::now()) == Version::V2 {
            let block = body.wire().clone();
            let answer = self.post(&attempt, Version::V2, block, attempts).await?;
            let confirmed = self.negotiation.is_confirmed();
            match answer::read(&answer, Version::V2, body.counts(), items, confirmed, self.post.shown()) {
                Verdict::Older => self.fall_back(&answer),
                Verdict::End(outcome) => {
                    if matches!(outcome, Outcome::Delivered { .. }) {
                        self.negotiation.confirm();
                    }
                    return Ok(outcome);
                }
            }
        }
        let block = match body.version() {
            Version::V1 => body.wire().clone(),
            Version::V2 => {
                let block = body.to_v1(MAX_OLDER).map_err(|e| Outcome::rejected(format!("as 1.0: {e}")))?;
                let reason = || format!("larger than {MAX_OLDER} bytes as remote write 1.0");
                block.ok_or_else(|| Outcome::TooLarge { reason: reason() })?
            }
        };
        let answer = self.post(&attempt, Version::V1, block, attempts).await?;
        match answer::read(&answer, Version::V1, body.counts(), items, true, self.post.shown()) {
            Verdict::End(outcome) => Ok(outcome),
            Verdict::Older => Ok(Outcome::rejected("there is no older version than 1.0")),
        }
    }

    fn fall_back(&self, answer: &Answer) {
        if self.negotiation.fall_back(Instant::now()) {
            self.fallbacks.add(1);
            tracing::warn!(
                otelcol.component.id = %self.id, otelcol.component.kind = "exporter",
                status = answer.status.as_u16(),
                "The destination does not know remote write 2.0. Sending 1.0 for an hour."
            );
        }
    }
}

impl Sender<WriteBody> for WriteSender {
    fn start(&self, cx: &RunContext) -> Result<(), StartError> {
        self.post.start(cx)
    }

    fn reads(&self) -> Vec<ClientKey> {
        self.post.reads()
    }

    async fn send(&self, attempt: Attempt<'_, WriteBody>) -> Outcome {
        let body = attempt.body;
        match self.attempt(attempt).await {
            Ok(outcome) | Err(outcome) => {
                if matches!(outcome, Outcome::Delivered { .. }) {
                    body.settle();
                }
                outcome
            }
        }
    }
}
