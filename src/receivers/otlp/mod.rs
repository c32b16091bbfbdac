//! The `otlp` receiver: OTLP over gRPC and over HTTP, protobuf and JSON.
//!
//! ```text
//!  socket ─ TLS ─ watched ─┬─ HTTP/2 ─ message ─┐
//!                          └─ HTTP/1.1, 2 ─ body ┴─ inflate ─ count ─► pipelines ─► verdict ─► answer
//! ```
//!
//! Promises: an answer of OK means what the pipelines' verdict means and nothing weaker; every other answer says
//! truthfully whether the request may be sent again; no bytes are held that the ledger has not admitted, but for
//! the windows described in [`grpc`](self::grpc); a request that was handed over is counted whatever becomes of
//! its client.
//!
//! Costs, per request and not per item: one task, one acknowledgement, three small frames; telemetry is copied at
//! most once, and not at all when it arrives in one frame.

mod body;
mod config;
pub(crate) mod conn;
pub(crate) mod cors;
mod gate;
mod grpc;
mod http;
mod ingest;
pub(crate) mod server;
mod status;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

pub(crate) use self::http::Timeouts;
pub(crate) use self::ingest::with_params;
pub use config::{
    ContentCoding, CorsConfig, EnforcementPolicy, GrpcAuthConfig, GrpcServerConfig, HttpAuthConfig,
    HttpProtocolConfig, KeepaliveConfig, OtlpConfig, Protocols, ServerParameters,
};

use self::grpc::Grpc;
use self::http::Http;
use self::ingest::{Counts, Ingest};
use self::server::{Counters, Protocol, Server};
use crate::components::BuildError;
use crate::config::types::{Endpoint, ExtensionId, Optional};
use crate::net::auth::ServerAuth;
use crate::net::listen::Transport;
use crate::net::tls::{ServerTls, TlsServerConfig};
use crate::pipeline::{BuildContext, Outputs, Receiver, RunContext, StartError};

/// How long closing a server that has no clients yet may take.
const CLOSE: Duration = Duration::from_secs(1);

/// The receiver.
#[derive(Debug)]
pub struct Otlp {
    id: String,
    config: OtlpConfig,
    grpc: Option<Server>,
    http: Option<Server>,
}

/// Builds the receiver.
///
/// # Errors
/// None: what can be wrong with a config is found when it is decoded.
pub fn build(config: &OtlpConfig, cx: &BuildContext) -> Result<Box<dyn Receiver>, BuildError> {
    Ok(Box::new(Otlp::new(config.clone(), cx.id.clone())))
}

impl Otlp {
    /// A receiver that is not started.
    pub fn new(config: OtlpConfig, id: String) -> Self {
        Otlp { id, config, grpc: None, http: None }
    }

    /// Where gRPC is served, with the port the system chose; `None` when it is not.
    pub fn grpc_address(&self) -> Option<&str> {
        self.grpc.as_ref().map(|server| server.address.as_str())
    }

    /// Where HTTP is served, with the port the system chose; `None` when it is not.
    pub fn http_address(&self) -> Option<&str> {
        self.http.as_ref().map(|server| server.address.as_str())
    }

    async fn serve<P: Protocol>(
        &self,
        endpoint: &Endpoint,
        transport: Transport,
        tls: Option<ServerTls>,
        protocol: Arc<P>,
        cx: &RunContext,
    ) -> Result<Server, StartError> {
        let pauses = cx.metrics.series(
            "tidegate_receiver_accept_pauses",
            "Times the receiver could not accept connections for want of file descriptors or memory.",
            &[("receiver", &self.id)],
        );
        let turned_away = cx.metrics.series(
            "tidegate_receiver_connections_turned_away",
            "Connections closed at once because open ones hold all the memory that is theirs.",
            &[("receiver", &self.id)],
        );
        Server::start(endpoint, transport, tls, protocol, cx, Counters { pauses, turned_away }).await
    }

    async fn start_grpc(&self, outputs: &Outputs, cx: &RunContext) -> Result<Option<Server>, StartError> {
        let Some(config) = self.config.protocols.grpc.get() else { return Ok(None) };
        let auth = authenticator(config.auth.get().map(|a| &a.authenticator), cx)?;
        let counts = Counts::new(&cx.metrics, &self.id, "grpc");
        let ingest = Ingest::new(outputs.clone(), cx, counts, auth, Vec::new(), config.include_metadata);
        let protocol = Arc::new(Grpc::new(config, Arc::new(ingest)));
        let tls = load::<Grpc>(&config.tls)?;
        let server = self.serve(&config.endpoint, config.transport, tls, protocol, cx).await?;
        tracing::info!(component = %self.id, endpoint = %server.address, "OTLP/gRPC is served");
        Ok(Some(server))
    }

    async fn start_http(&self, outputs: &Outputs, cx: &RunContext) -> Result<Option<Server>, StartError> {
        let Some(config) = self.config.protocols.http.get() else { return Ok(None) };
        let auth = authenticator(config.auth.get().map(|a| &a.authenticator), cx)?;
        let params = config.auth.get().map(|a| a.request_params.clone()).unwrap_or_default();
        let counts = Counts::new(&cx.metrics, &self.id, "http");
        let ingest = Ingest::new(outputs.clone(), cx, counts, auth, params, config.include_metadata);
        let protocol = Arc::new(Http::new(config, Arc::new(ingest)));
        let tls = load::<Http>(&config.tls)?;
        let server = self.serve(&config.endpoint, config.transport, tls, protocol, cx).await?;
        tracing::info!(component = %self.id, endpoint = %server.address, "OTLP/HTTP is served");
        Ok(Some(server))
    }
}

#[async_trait]
impl Receiver for Otlp {
    async fn start(&mut self, outputs: Outputs, cx: &RunContext) -> Result<(), StartError> {
        let grpc = self.start_grpc(&outputs, cx).await?;
        match self.start_http(&outputs, cx).await {
            Ok(http) => (self.grpc, self.http) = (grpc, http),
            Err(error) => {
                // Nothing may be left running: wait until the other port is closed.
                stop_one(grpc, tokio::time::Instant::now() + CLOSE).await;
                return Err(error);
            }
        }
        Ok(())
    }

    async fn stop(&mut self, deadline: Instant) {
        let deadline = tokio::time::Instant::from_std(deadline);
        let (grpc, http) = (self.grpc.take(), self.http.take());
        tokio::join!(stop_one(grpc, deadline), stop_one(http, deadline));
    }
}

async fn stop_one(server: Option<Server>, deadline: tokio::time::Instant) {
    if let Some(mut server) = server {
        server.stop(deadline).await;
    }
}

fn load<P: Protocol>(tls: &Optional<TlsServerConfig>) -> Result<Option<ServerTls>, StartError> {
    tls.get().map(|tls| tls.load(P::ALPN)).transpose()
}

fn authenticator(
    id: Option<&ExtensionId>,
    cx: &RunContext,
) -> Result<Option<Arc<dyn ServerAuth>>, StartError> {
    id.map(|id| cx.server_auth(id.as_str())).transpose()
}
