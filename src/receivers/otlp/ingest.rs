//! What both transports do with a request: authenticate, hand the bytes to the pipelines, count the outcome.
//!
//! A batch that was handed over is never lost with its client: the pipelines own it. What the client's going
//! away must not lose either is the count, so a [`Pending`] dropped early leaves a task behind that counts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use smallvec::{SmallVec, smallvec};
use tokio::sync::oneshot;
use tonic::Code;

use super::status::{Failure, Reason};
use crate::net::auth::ServerAuth;
use crate::pdata::{Batch, ClientCertificate, ClientInfo, Rope, Signal, check};
use crate::pipeline::{Lease, Ledger, Outputs, RunContext, Verdict, ack, output, runtime::Supervisor};
use crate::telemetry::{Counter, Metrics, ReceiverItems};

/// The way from one transport of a receiver into its pipelines.
pub struct Ingest {
    outputs: Outputs,
    /// The byte ledger.
    pub ledger: Arc<Ledger>,
    /// Starts the tasks of connections and requests.
    pub supervisor: Supervisor,
    auth: Option<Arc<dyn ServerAuth>>,
    auth_params: Vec<String>,
    include_metadata: bool,
    counts: Counts,
}

/// The counters of one transport.
#[derive(Clone)]
pub struct Counts {
    items: ReceiverItems,
    errors: [Counter; Reason::ALL.len()],
}

/// A batch on its way, and who will hear of it.
pub struct Pending {
    verdict: Option<oneshot::Receiver<Verdict>>,
    counts: Counts,
    supervisor: Supervisor,
    signal: Signal,
    items: usize,
}

impl Counts {
    /// The counters of the receiver `id`; `transport` is `grpc` or `http`.
    pub fn new(metrics: &Metrics, id: &str, transport: &str) -> Self {
        let errors = Reason::ALL.map(|reason| {
            metrics.series(
                "tidegate_receiver_errors",
                "Requests answered with an error, by reason.",
                &[("receiver", id), ("transport", transport), ("reason", reason.word())],
            )
        });
        Counts { items: ReceiverItems::new(metrics, id, transport), errors }
    }

    /// Counts one failed request.
    pub fn failed(&self, reason: Reason) {
        if let Some(counter) = self.errors.get(reason as usize) {
            counter.add(1);
        }
    }

    fn settle(&self, signal: Signal, items: usize, verdict: Verdict) -> Result<(), Failure> {
        match Failure::try_from(verdict) {
            Err(()) => {
                self.items.accepted(signal, items);
                Ok(())
            }
            Ok(failure) => {
                self.items.refused(signal, items);
                Err(failure)
            }
        }
    }
}

impl Ingest {
    /// The way into `outputs`.
    pub fn new(
        outputs: Outputs,
        cx: &RunContext,
        counts: Counts,
        auth: Option<Arc<dyn ServerAuth>>,
        auth_params: Vec<String>,
        include_metadata: bool,
    ) -> Self {
        Ingest {
            outputs,
            ledger: cx.ledger.clone(),
            supervisor: cx.supervisor.clone(),
            auth,
            auth_params,
            include_metadata,
            counts,
        }
    }

    /// Counts one failed request.
    pub fn failed(&self, reason: Reason) {
        self.counts.failed(reason);
    }

    /// Whether some pipeline takes the signal.
    pub fn serves(&self, signal: Signal) -> bool {
        output(&self.outputs, signal).is_some()
    }

    /// Authenticates a request by its headers and says who sent it. `plain` is what is known of every client of
    /// the connection, shared where nothing is added to it.
    ///
    /// # Errors
    /// UNAUTHENTICATED, with the authenticator's reason.
    pub fn client(
        &self,
        plain: &Arc<ClientInfo>,
        headers: &HeaderMap,
        authority: Option<&str>,
        query: Option<&str>,
    ) -> Result<Arc<ClientInfo>, Failure> {
        let mut auth = Vec::new();
        if let Some(authenticator) = &self.auth {
            let with_params = with_params(&self.auth_params, headers, query);
            auth = authenticator
                .authenticate(with_params.as_ref().unwrap_or(headers))
                .map_err(|e| Failure::new(Code::Unauthenticated, Reason::Unauthenticated, e.to_string()))?;
        }
        if auth.is_empty() && !self.include_metadata {
            return Ok(plain.clone());
        }
        let metadata = if self.include_metadata { metadata(headers, authority) } else { Vec::new() };
        Ok(Arc::new(ClientInfo {
            metadata,
            auth,
            certificate: plain.certificate.clone(),
            address: plain.address,
        }))
    }

    /// Hands one request's protobuf to the pipelines; `None` if it holds nothing. `lease` is the memory it holds.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for bytes that are not such a request, UNIMPLEMENTED for a signal no pipeline takes.
    pub fn submit(
        &self,
        signal: Signal,
        request: Bytes,
        lease: Lease,
        client: Arc<ClientInfo>,
    ) -> Result<Option<Pending>, Failure> {
        let Some(consumer) = output(&self.outputs, signal) else { return Err(not_served(signal)) };
        // To the bottom: what a backend would refuse for good must not come into a batch with what it would take.
        let items = check(signal, &request)
            .map_err(|e| Failure::malformed(format!("not a valid {} request: {e}", signal.name())))?;
        if items == 0 {
            return Ok(None);
        }
        let (ack, verdict) = ack();
        consumer.consume(Batch {
            signal,
            rope: Rope::from(request),
            items,
            client,
            tenant: None,
            demoted: false,
            received: Instant::now(),
            leases: smallvec![Arc::new(lease)],
            acks: ack.into(),
        });
        Ok(Some(Pending {
            verdict: Some(verdict),
            counts: self.counts.clone(),
            supervisor: self.supervisor.clone(),
            signal,
            items,
        }))
    }
}

impl Pending {
    /// Waits for the verdict and counts it. Cancel safe.
    ///
    /// # Errors
    /// What the client is to be told.
    pub async fn outcome(&mut self) -> Result<(), Failure> {
        let Some(receiver) = &mut self.verdict else { return Ok(()) };
        let verdict = receiver.await;
        self.verdict = None;
        self.counts.settle(self.signal, self.items, verdict.unwrap_or_else(|_| Verdict::retry("no verdict")))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let Some(receiver) = self.verdict.take() else { return };
        // Only at the end of the process is there no runtime any more, and nobody to read the counters.
        if tokio::runtime::Handle::try_current().is_ok() {
            let (counts, signal, items) = (self.counts.clone(), self.signal, self.items);
            self.supervisor.spawn("otlp verdict", async move {
                let verdict = receiver.await.unwrap_or_else(|_| Verdict::retry("no verdict"));
                // The client is gone or was answered already: the outcome is counted, nobody is told.
                let _ = counts.settle(signal, items, verdict);
            });
        }
    }
}

/// The headers with these query parameters among them, for an authenticator; `None` if none are wanted.
pub fn with_params(params: &[String], headers: &HeaderMap, query: Option<&str>) -> Option<HeaderMap> {
    if params.is_empty() {
        return None;
    }
    let mut all = headers.clone();
    for (name, value) in form_pairs(query.unwrap_or_default()) {
        if params.contains(&name)
            && let (Ok(name), Ok(value)) =
                (http::HeaderName::try_from(name), http::HeaderValue::try_from(value))
        {
            all.append(name, value);
        }
    }
    Some(all)
}

/// What is known of every request of a connection.
pub fn plain_client(address: Option<SocketAddr>, certificate: Option<ClientCertificate>) -> Arc<ClientInfo> {
    Arc::new(ClientInfo { address, certificate: certificate.map(Arc::new), ..ClientInfo::default() })
}

/// The answer for a signal that no pipeline takes.
pub fn not_served(signal: Signal) -> Failure {
    Failure::new(Code::Unimplemented, Reason::Unsupported, format!("no pipeline takes {}", signal.name()))
}

/// Headers as client metadata. gRPC's `:authority` and HTTP's `Host` both appear as `host`.
fn metadata(headers: &HeaderMap, authority: Option<&str>) -> Vec<(String, SmallVec<[String; 1]>)> {
    let mut out: Vec<(String, SmallVec<[String; 1]>)> = Vec::with_capacity(headers.keys_len() + 1);
    for name in headers.keys() {
        let values = headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
        out.push((name.as_str().to_owned(), values.collect()));
    }
    if let Some(authority) = authority.filter(|_| !headers.contains_key(http::header::HOST)) {
        out.push(("host".to_owned(), smallvec![authority.to_owned()]));
    }
    out
}

/// The pairs of a URL's query, decoded.
fn form_pairs(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    query.split('&').filter(|part| !part.is_empty()).map(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        (form_decode(name), form_decode(value))
    })
}

fn form_decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, tail) {
            (b'+', _) => out.push(b' '),
            (b'%', [high, low, after @ ..]) => {
                match (char::from(*high).to_digit(16), char::from(*low).to_digit(16)) {
                    (Some(high), Some(low)) => {
                        out.push((high * 16 + low) as u8);
                        rest = after;
                    }
                    _ => out.push(byte),
                }
            }
            _ => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        let got: Vec<_> = form_pairs("a=b+c&&d%3D=%zz&e").collect();
        let want = [("a", "b c"), ("d=", "%zz"), ("e", "")];
        assert_eq!(got, want.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }

    #[test]
    fn metadata_keeps_every_value_and_the_authority() {
        let mut headers = HeaderMap::new();
        headers.append("X-Scope-OrgID", http::HeaderValue::from_static("a"));
        headers.append("X-Scope-OrgID", http::HeaderValue::from_static("b"));
        let info = ClientInfo { metadata: metadata(&headers, Some("h:1")), ..ClientInfo::default() };
        assert_eq!(info.metadata("x-scope-orgid"), Some(&["a".to_owned(), "b".to_owned()][..]));
        assert_eq!(info.metadata("Host"), Some(&["h:1".to_owned()][..]));
    }
}
