//! A trace backend of many tenants: checks that each span came under the tenant whose it is, notes how long it took, and
//! treats tenants as it is told.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message;
use tokio::net::TcpListener;

use crate::support::grpc::{self, RpcStatus};
use crate::support::loopback;

/// What happens to a tenant's requests.
#[derive(Debug, Clone, Copy)]
pub enum Treat {
    /// Refused with a delay to wait, until then.
    Throttle(Instant, Duration),
    /// Refused as bad data.
    Refuse,
}

/// What arrived of one tenant.
#[derive(Debug, Default, Clone)]
pub struct Arrived {
    /// How often each item was stored, by its number.
    pub stored: HashMap<u64, u32>,
    /// When each item was sent, and how long it took, in order of arrival.
    pub latencies: Vec<(SystemTime, Duration)>,
    pub refused: u64,
}

#[derive(Default)]
pub struct Shared {
    treat: Mutex<HashMap<String, Treat>>,
    arrived: Mutex<HashMap<String, Arrived>>,
    violations: Mutex<Vec<String>>,
}

pub struct Sink {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl Sink {
    pub async fn start() -> Sink {
        let shared = Arc::<Shared>::default();
        let listener = TcpListener::bind(loopback(0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = serve.clone();
                let _ = stream.set_nodelay(true);
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let shared = shared.clone();
                        async move { Ok::<_, Infallible>(answer(&shared, request).await) }
                    });
                    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Sink { address, shared }
    }

    pub fn treat(&self, tenant: &str, how: Treat) {
        self.shared.treat.lock().unwrap().insert(tenant.to_owned(), how);
    }

    pub fn arrived(&self, tenant: &str) -> Arrived {
        self.shared.arrived.lock().unwrap().get(tenant).cloned().unwrap_or_default()
    }

    pub fn has(&self, tenant: &str, item: u64) -> bool {
        self.shared.arrived.lock().unwrap().get(tenant).is_some_and(|a| a.stored.contains_key(&item))
    }

    pub fn violations(&self) -> Vec<String> {
        self.shared.violations.lock().unwrap().clone()
    }
}

type Body = BoxBody<Bytes, Infallible>;

async fn answer(shared: &Shared, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    let tenants: Vec<&str> =
        head.headers.get_all("x-scope-orgid").iter().filter_map(|v| v.to_str().ok()).collect();
    let [tenant] = tenants[..] else {
        violation(shared, format!("{} tenants in a request: {tenants:?}", tenants.len()));
        return status(RpcStatus::new(grpc::UNAUTHENTICATED, "one tenant, please", None));
    };
    let decoded = grpc::unframe(&body)
        .and_then(|(_, message)| ExportTraceServiceRequest::decode(message).map_err(|e| e.to_string()));
    let request = match decoded {
        Ok(request) => request,
        Err(why) => {
            violation(shared, why);
            return status(RpcStatus::new(grpc::INVALID_ARGUMENT, "no request", None));
        }
    };
    let now = SystemTime::now();
    let spans = request.resource_spans.iter().flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans);
    let mut items = Vec::new();
    for span in spans {
        let owner = span.attributes.iter().find(|a| a.key == "owner").and_then(|a| a.value.clone()?.value);
        if owner != Some(Value::StringValue(tenant.to_owned())) {
            violation(shared, format!("a span of {owner:?} under {tenant}"));
        }
        let number = u64::from_be_bytes(span.span_id[..].try_into().unwrap_or_default());
        items.push((number, SystemTime::UNIX_EPOCH + Duration::from_nanos(span.start_time_unix_nano)));
    }
    let treat = shared.treat.lock().unwrap().get(tenant).copied();
    let mut all = shared.arrived.lock().unwrap();
    let arrived = all.entry(tenant.to_owned()).or_default();
    let refusal = match treat {
        Some(Treat::Throttle(until, wait)) if Instant::now() < until => {
            Some(RpcStatus::new(grpc::RESOURCE_EXHAUSTED, "slow down", Some(wait)))
        }
        Some(Treat::Refuse) => Some(RpcStatus::new(grpc::INVALID_ARGUMENT, "bad data", None)),
        _ => None,
    };
    if let Some(refusal) = refusal {
        arrived.refused += 1;
        return status(refusal);
    }
    for (number, sent) in items {
        *arrived.stored.entry(number).or_default() += 1;
        arrived.latencies.push((sent, now.duration_since(sent).unwrap_or_default()));
    }
    drop(all);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    let body = Full::new(Bytes::from_static(&[0; 5])).with_trailers(async move { Some(Ok(trailers)) });
    let mut response = Response::new(body.boxed());
    response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    response
}

fn status(status: RpcStatus) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::new()).boxed());
    response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    status.write(response.headers_mut());
    response
}

fn violation(shared: &Shared, text: String) {
    let mut violations = shared.violations.lock().unwrap();
    if violations.len() < 20 {
        violations.push(text);
    }
}
