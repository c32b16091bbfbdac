//! Sockets and the lives of connections: accept, TLS, serve, stop.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::config::Transport;
use super::conn::Conn;
use super::ingest::plain_client;
use crate::config::types::Endpoint;
use crate::net::tls::ServerTls;
use crate::pipeline::StartError;
use crate::pipeline::runtime::Supervisor;

/// How long a client may take for its TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(20);
/// How long accepting pauses when the process has no file descriptors left.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// What is spoken on a connection.
pub trait Protocol: Send + Sync + 'static {
    /// The application protocols offered in a TLS handshake, best first.
    const ALPN: &'static [&'static [u8]];

    /// Serves one connection to its end. When `stopping` ends, no new request is taken, those that are here are
    /// answered, and the connection is closed.
    fn serve<IO>(
        self: Arc<Self>,
        io: IO,
        conn: Arc<Conn>,
        stopping: Stopping,
    ) -> impl Future<Output = ()> + Send
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static;
}

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

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
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
        supervisor: &Supervisor,
    ) -> Result<Self, StartError> {
        let fail = |e: io::Error| StartError::new(format!("cannot listen on {endpoint}: {e}"));
        let socket = bind(endpoint, transport).await.map_err(fail)?;
        let address = match &socket {
            Socket::Tcp(listener) => listener.local_addr().map_err(fail)?.to_string(),
            Socket::Unix(_) => endpoint.to_string(),
        };
        let (life, watching) = watch::channel(Life::Serving);
        let (token, alive) = mpsc::channel(1);
        let stopping = Stopping(watching);
        let acceptor = Acceptor { tls, protocol, supervisor: supervisor.clone(), stopping, token };
        supervisor.spawn("otlp accept", acceptor.run(socket));
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
    stopping: Stopping,
    token: mpsc::Sender<()>,
}

impl<P: Protocol> Acceptor<P> {
    async fn run(self, socket: Socket) {
        let mut stopping = self.stopping.clone();
        loop {
            let accepted = tokio::select! {
                accepted = self.accept(&socket) => accepted,
                () = stopping.reached(Life::Stopping) => return,
            };
            if let Err(error) = accepted {
                // The error belongs to one connection that is gone, or to a lack of descriptors that passes.
                if !matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted
                        | io::ErrorKind::ConnectionReset
                        | io::ErrorKind::Interrupted
                ) {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(EXHAUSTED).await;
                }
            }
        }
    }

    async fn accept(&self, socket: &Socket) -> io::Result<()> {
        match socket {
            Socket::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Answers are small and must not wait for more.
                let _ = stream.set_nodelay(true);
                self.connection(stream, Some(peer));
            }
            Socket::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                self.connection(stream, None);
            }
        }
        Ok(())
    }

    fn connection<IO>(&self, io: IO, peer: Option<std::net::SocketAddr>)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let conn = Conn::new(plain_client(peer), self.token.clone());
        let (protocol, stopping) = (self.protocol.clone(), self.stopping.clone());
        let mut over = self.stopping.clone();
        let tls = self.tls.clone();
        self.supervisor.spawn("otlp connection", async move {
            let serve = async move {
                match tls {
                    None => protocol.serve(io, conn, stopping).await,
                    Some(tls) => match timeout(HANDSHAKE, tls.acceptor().accept(io)).await {
                        Ok(Ok(io)) => protocol.serve(io, conn, stopping).await,
                        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                        Err(_) => tracing::debug!("TLS handshake timed out"),
                    },
                }
            };
            tokio::select! {
                () = serve => {}
                () = over.reached(Life::Over) => {}
            }
        });
    }
}

async fn bind(endpoint: &Endpoint, transport: Transport) -> io::Result<Socket> {
    if let Some(path) = endpoint.unix_path() {
        return Ok(Socket::Unix(UnixListener::bind(path)?));
    }
    let text = endpoint.socket_text().unwrap_or_default();
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no usable address");
    for address in tokio::net::lookup_host(&text).await? {
        let wanted = match transport {
            Transport::Tcp4 => address.is_ipv4(),
            Transport::Tcp6 => address.is_ipv6(),
            Transport::Tcp | Transport::Unix => true,
        };
        if wanted {
            match TcpListener::bind(address).await {
                Ok(listener) => return Ok(Socket::Tcp(listener)),
                Err(error) => last = error,
            }
        }
    }
    Err(last)
}
