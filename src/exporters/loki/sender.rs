//! One attempt: the form of the request, the tenant's header, and what the answer means.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::answer;
use super::config::LokiConfig;
use crate::components::BuildError;
use crate::exporters::delivery::sharded::ShardBody;
use crate::exporters::delivery::{Attempt, Outcome, Sender};
use crate::exporters::http::Post;
use crate::loki::{Encoding, LokiBody};
use crate::net::auth::ClientKey;
use crate::pdata::Tenant;
use crate::pipeline::{BuildContext, RunContext, StartError};
use crate::telemetry::Counter;

/// How often Loki may fail on a request before it is cut.
const FAILURES: u32 = 3;

/// How often it may fail on a single entry before that is at fault.
const ALONE: u32 = 8;

/// Of how many tenants it is remembered when Loki last took something.
const TENANTS: usize = 10_000;

/// Sends requests to one Loki.
pub(super) struct PushSender {
    post: Post,
    encoding: Encoding,
    /// The header that names the tenant.
    tenant: Option<HeaderName>,
    /// When Loki last took something of a tenant.
    taken: Mutex<HashMap<Option<Tenant>, Instant>>,
    blocked: Counter,
    id: String,
}

impl PushSender {
    pub fn new(config: &LokiConfig, encoding: Encoding, cx: &BuildContext) -> Result<Self, BuildError> {
        let mut headers = HeaderMap::new();
        let (kind, coding) = match encoding {
            Encoding::Protobuf => ("application/x-protobuf", Some("snappy")),
            Encoding::Json { gzip } => ("application/json", gzip.then_some("gzip")),
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        if let Some(coding) = coding {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        Ok(PushSender {
            post: Post::new(&config.client, config.client.endpoint.as_str(), headers)?,
            encoding,
            tenant: HeaderName::try_from(config.tenant.header.as_str()).ok(),
            taken: Mutex::default(),
            blocked: cx.metrics.series(
                "tidegate_loki_blocked",
                "Log records that Loki said to have taken and did not store, because the tenant is blocked.",
                &[("exporter", &cx.id)],
            ),
            id: cx.id.clone(),
        })
    }

    async fn attempt(&self, attempt: Attempt<'_, LokiBody>) -> Result<Outcome, Outcome> {
        let body = attempt.body;
        let wire: Bytes = match self.encoding {
            Encoding::Protobuf => body.wire().clone(),
            Encoding::Json { gzip } => {
                body.json(gzip).map_err(|e| Outcome::rejected(format!("as JSON: {e}")))?
            }
        };
        let mut headers = HeaderMap::new();
        if let (Some(name), Some(tenant)) = (&self.tenant, body.tenant()) {
            // Without it the request would be taken for somebody else's.
            let value = HeaderValue::try_from(tenant).map_err(|_| {
                Outcome::rejected(format!("the tenant {tenant:?} cannot be named in a header"))
            })?;
            headers.insert(name.clone(), value);
        }
        let len = wire.len();
        let answer = self.post.send(attempt.client, headers, wire.into(), len).await?;
        let outcome = answer::read(&answer, body.items(), self.post.shown());
        Ok(match outcome {
            Outcome::Retry { after, reason } if answer.status.as_u16() == 500 => {
                self.failed(body, attempt.tenant, Outcome::Retry { after, reason })
            }
            Outcome::Delivered { rejected, message } => {
                if answer::is_blocked(&answer) {
                    self.blocked.add(rejected as u64);
                    tracing::warn!(
                        otelcol.component.id = %self.id, otelcol.component.kind = "exporter",
                        status = answer.status.as_u16(), tenant = body.tenant().unwrap_or_default(),
                        dropped_items = rejected, "Loki takes logs of this tenant and does not store them."
                    );
                }
                self.took(attempt.tenant);
                Outcome::Delivered { rejected, message }
            }
            other => other,
        })
    }

    /// Loki took something of a tenant.
    fn took(&self, tenant: Option<&Tenant>) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = taken.get_mut(&tenant.cloned()) {
            *at = Instant::now();
            return;
        }
        if taken.len() >= TENANTS {
            taken.clear();
        }
        taken.insert(tenant.cloned(), Instant::now());
    }

    /// Loki fails: it may be out of order, or this request may make it fail for ever. A request on which it fails
    /// repeatedly is cut; an entry that stands alone is at fault if Loki took something else of its tenant since it
    /// first failed on it. Otherwise it is sent again: an outage costs nothing but smaller requests.
    fn failed(&self, body: &LokiBody, tenant: Option<&Tenant>, retry: Outcome) -> Outcome {
        let first = *body.failed.get_or_init(Instant::now);
        let failures = body.failures.fetch_add(1, Ordering::Relaxed) + 1;
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner).get(&tenant.cloned()).copied();
        let works = taken.is_some_and(|taken| taken > first);
        let Outcome::Retry { reason, .. } = &retry else { return retry };
        let alone = body.items() <= 1;
        let enough = match (alone, body.suspect) {
            (true, _) => ALONE,
            (false, true) => 1,
            (false, false) => FAILURES,
        };
        if failures < enough || (alone && !works) {
            return retry;
        }
        Outcome::Rejected { bad_data: true, reason: reason.clone() }
    }
}

impl Sender<LokiBody> for PushSender {
    fn start(&self, cx: &RunContext) -> Result<(), StartError> {
        self.post.start(cx)
    }

    fn reads(&self) -> Vec<ClientKey> {
        self.post.reads()
    }

    async fn send(&self, attempt: Attempt<'_, LokiBody>) -> Outcome {
        match self.attempt(attempt).await {
            Ok(outcome) | Err(outcome) => outcome,
        }
    }
}
