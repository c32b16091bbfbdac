//! Sockets and the lives of connections: accept, TLS, serve, stop.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

use super::conn::Conn;
use super::ingest::plain_client;
use crate::config::types::Endpoint;
use crate::net::listen::{ListenOptions, Listener, RawStream, Stream, Transport, secure};
use crate::net::tls::ServerTls;
use crate::pipeline::runtime::Supervisor;
use crate::pipeline::{Ledger, RunContext, StartError};
use crate::telemetry::Counter;

/// What is spoken on a connection.
pub trait Protocol: Send + Sync + 'static {
    /// The application protocols offered in a TLS handshake, best first.
    const ALPN: &'static [&'static [u8]];

    /// About what an idle connection holds in this process, buffers and task; reserved in the ledger.
    const IDLE_BYTES: usize;

    /// Serves one connection to its end. When `stopping` ends, no new request is taken, those that are here are
    /// answered, and the connection is closed.
    fn serve(
        self: Arc<Self>,
        io: Stream,
        conn: Arc<Conn>,
        stopping: Stopping,
    ) -> impl Future<Output = ()> + Send;
}

/// What TLS adds to an idle connection.
const TLS_BYTES: usize = 32 << 10;

/// Tells a connection that the server stops.
#[derive(Debug, Clone)]
pub struct Stopping(watch::Receiver<Life>);

/// A listening server.
#[derive(Debug)]
pub struct Server {
    /// Where it listens, with the port it was given.
    pub address: String,
    life: watch::Sender<Life>,
    /// Ends when the last connection and the last request are gone.
    alive: mpsc::Receiver<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Life {
    Serving,
    Stopping,
    Over,
}

impl Stopping {
    /// Ends when the server is told to stop.
    pub async fn wait(mut self) {
        self.reached(Life::Stopping).await;
    }

    async fn reached(&mut self, life: Life) {
        // A server that is dropped without being stopped is over.
        let _ = self.0.wait_for(|now| *now >= life).await;
    }
}

/// What is counted of a listening socket.
pub struct Counters {
    /// Pauses for want of file descriptors.
    pub pauses: Counter,
    /// Connections closed at once because open ones hold all the memory that is theirs.
    pub turned_away: Counter,
}

impl Server {
    /// Binds and starts accepting.
    ///
    /// # Errors
    /// The address cannot be resolved or bound.
    pub async fn start<P: Protocol>(
        endpoint: &Endpoint,
        transport: Transport,
        tls: Option<ServerTls>,
        protocol: Arc<P>,
        cx: &RunContext,
        counters: Counters,
    ) -> Result<Self, StartError> {
        let options = ListenOptions { pauses: Some(counters.pauses), ..ListenOptions::default() };
        let listener = Listener::bind_with(endpoint, transport, options)
            .await
            .map_err(|e| StartError::new(e.to_string()))?;
        let address = listener.local_addr().map_or_else(|| endpoint.to_string(), |a| a.to_string());
        let (life, watching) = watch::channel(Life::Serving);
        let (token, alive) = mpsc::channel(1);
        let stopping = Stopping(watching);
        let (supervisor, ledger) = (cx.supervisor.clone(), cx.ledger.clone());
        let turned_away = counters.turned_away;
        let acceptor = Acceptor { tls, protocol, supervisor, ledger, turned_away, stopping, token };
        cx.supervisor.spawn("accept", acceptor.run(listener));
        Ok(Server { address, life, alive })
    }

    /// Accepts no more, lets what is open finish, and closes at `deadline` what did not.
    pub async fn stop(&mut self, deadline: Instant) {
        self.life.send_replace(Life::Stopping);
        if timeout_at(deadline, self.alive.recv()).await.is_err() {
            self.life.send_replace(Life::Over);
        }
    }
}

struct Acceptor<P> {
    tls: Option<ServerTls>,
    protocol: Arc<P>,
    supervisor: Supervisor,
    ledger: Arc<Ledger>,
    turned_away: Counter,
    stopping: Stopping,
    token: mpsc::Sender<()>,
}

impl<P: Protocol> Acceptor<P> {
    async fn run(self, listener: Listener) {
        let mut stopping = self.stopping.clone();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stopping.reached(Life::Stopping) => return,
            };
            match accepted {
                Ok((stream, peer)) => self.connection(stream, peer),
                Err(error) => return tracing::error!(%error, "the listening socket is gone"),
            }
        }
    }

    fn connection(&self, stream: RawStream, peer: Option<SocketAddr>) {
        let bytes = P::IDLE_BYTES + self.tls.as_ref().map_or(0, |_| TLS_BYTES);
        // Closed before a word is said: a client comes back, and one that opened too many does not matter.
        let Some(memory) = self.ledger.connect(bytes) else { return self.turned_away.add(1) };
        let token = self.token.clone();
        let (protocol, stopping) = (self.protocol.clone(), self.stopping.clone());
        let mut over = self.stopping.clone();
        let tls = self.tls.clone();
        self.supervisor.spawn("connection", async move {
            let serve = async move {
                let io: Stream = match tls {
                    None => stream.into(),
                    Some(tls) => tokio::select! {
                        secured = secure(stream, &tls) => match secured {
                            Ok(io) => io,
                            Err(error) => return tracing::debug!(%error, ?peer, "TLS handshake failed"),
                        },
                        // Nothing was said yet that a stop would have to wait for.
                        () = stopping.clone().wait() => return,
                    },
                };
                let conn = Conn::new(plain_client(peer, io.certificate()), token);
                protocol.serve(io, conn, stopping).await;
            };
            let _memory = memory;
            tokio::select! {
                () = serve => {}
                () = over.reached(Life::Over) => {}
            }
        });
    }
}
