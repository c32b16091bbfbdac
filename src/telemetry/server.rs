//! The scrape endpoint: `GET /metrics` in the Prometheus text format.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Encoder, TextEncoder};
use tokio::net::TcpListener;

use super::Metrics;
use crate::pipeline::runtime::Supervisor;

/// How many scrapes are served at once; a scraper needs one.
const MAX_CONNECTIONS: usize = 64;

/// Opens `address` (`host:port`) and serves `metrics` until the process ends. Returns the address bound.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(
    address: &str,
    metrics: Arc<Metrics>,
    supervisor: &Supervisor,
) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await?;
    let local = listener.local_addr()?;
    let permits = Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS));
    let spawner = supervisor.clone();
    supervisor.spawn("metrics endpoint", async move {
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                // Out of file descriptors, most likely: wait for some to come back.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            };
            let metrics = metrics.clone();
            spawner.spawn("metrics connection", async move {
                let service = service_fn(move |request| {
                    let answer = answer(&request, &metrics);
                    async move { Ok::<_, Infallible>(answer) }
                });
                let mut http = http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(std::time::Duration::from_secs(30));
                // A scraper that goes away in the middle is its own affair.
                let _ = http.serve_connection(TokioIo::new(stream), service).await;
                drop(permit);
            });
        }
    });
    Ok(local)
}

fn answer(request: &Request<Incoming>, metrics: &Metrics) -> Response<Full<Bytes>> {
    let (status, content_type, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => {
            let mut body = Vec::new();
            match TextEncoder::new().encode(&metrics.gather(), &mut body) {
                Ok(()) => (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body),
                Err(why) => (StatusCode::INTERNAL_SERVER_ERROR, "text/plain", why.to_string().into_bytes()),
            }
        }
        (_, "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, "text/plain", b"use GET".to_vec()),
        _ => (StatusCode::NOT_FOUND, "text/plain", b"metrics are at /metrics".to_vec()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}
