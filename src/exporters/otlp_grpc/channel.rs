//! Connections to one endpoint: resolved, dialled, balanced, pinged and dialled again.
//!
//! Nothing runs while nothing is sent: a request that finds no connection starts the dialling and waits for it. A
//! failed dialling is repeated after a short rest, at the earliest with the next request; until then requests fail
//! at once, unless `wait_for_ready`. With several addresses the missing ones are dialled beside the requests that
//! use the others.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use h2::client::SendRequest;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::io::{Handle, gather};
use super::message::Message;
use super::proxy::Proxy;
use crate::config::types::Target;
use crate::net::client::{Balancer, GrpcClientConfig, KeepaliveConfig, UNACKNOWLEDGED};
use crate::net::tls::ClientTls;
use crate::pipeline::runtime::Supervisor;

/// How long one address may take to accept a connection, as in every gRPC client.
const DIAL_TIMEOUT: Duration = Duration::from_secs(20);
/// The rest after a failed dialling. It does not grow, unlike in other gRPC clients: requests back off by
/// themselves, and one that comes after its wait must find out whether the server is back rather than fail because
/// the channel waits too.
const REST: Duration = Duration::from_millis(500);
/// The same while other addresses serve: nothing waits for the missing one.
const REST_BESIDE: Duration = Duration::from_secs(10);
/// Answers are small; a window of this size never holds one up.
const WINDOW: u32 = 1 << 20;

/// Connections to one endpoint.
pub(super) struct Channel {
    target: Target,
    proxy: Option<Proxy>,
    tls: Option<ClientTls>,
    balancer: Balancer,
    wait_for_ready: bool,
    keepalive: Option<KeepaliveConfig>,
    read_size: usize,
    write_size: usize,
    supervisor: Supervisor,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    connections: Vec<Connection>,
    /// Counts requests, for the turn.
    turn: usize,
    /// Diallings under way.
    dialling: usize,
    /// How many connections the last resolution called for.
    wanted: usize,
    retry_at: Option<Instant>,
    last_error: String,
    next_id: u64,
}

/// An established connection.
#[derive(Clone)]
pub(super) struct Connection {
    id: u64,
    address: Address,
    /// Opens streams.
    pub sender: SendRequest<Message>,
    /// Shared with each request that is open.
    pub users: Arc<()>,
    /// Takes references to messages instead of copies.
    pub handle: Handle<Box<dyn Socket>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
    /// Behind the channel's proxy, which resolves the name itself.
    Proxied,
}

/// What TLS and plaintext have in common.
pub(super) trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Socket for T {}

impl Channel {
    pub fn new(config: &GrpcClientConfig, tls: Option<ClientTls>, supervisor: Supervisor) -> Arc<Self> {
        let proxy = match config.endpoint.target() {
            Target::Tcp { host, port } => Proxy::from_env(host, *port),
            Target::Unix(_) | Target::None => None,
        };
        Arc::new(Channel {
            target: config.endpoint.target().clone(),
            proxy,
            tls,
            balancer: config.balancer_name,
            wait_for_ready: config.wait_for_ready,
            keepalive: config.keepalive.get().cloned(),
            read_size: config.read_buffer_size,
            write_size: config.write_buffer_size,
            supervisor,
            state: Mutex::default(),
            changed: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection to send the next request on.
    ///
    /// # Errors
    /// Why there is none, when waiting is not wanted.
    pub async fn connection(self: &Arc<Self>) -> Result<Connection, String> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let mut resting = None;
            {
                let mut state = self.lock();
                let complete = !state.connections.is_empty() && state.connections.len() >= state.wanted;
                resting = match state.retry_at {
                    Some(at) if at > Instant::now() => Some(at),
                    _ => resting,
                };
                if !complete && state.dialling == 0 && resting.is_none() {
                    state.dialling = 1;
                    self.supervisor.spawn("gRPC dialling", dial_all(Arc::downgrade(self)));
                }
                if let Some(connection) = state.pick(self.balancer) {
                    return Ok(connection);
                }
                if state.dialling > 0 {
                    resting = None;
                } else if !self.wait_for_ready && resting.is_some() {
                    return Err(state.last_error.clone());
                }
            }
            match resting {
                None => changed.await,
                Some(at) => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(at) => {}
                },
            }
        }
    }

    /// Forgets a connection that takes no more requests.
    pub fn retire(&self, connection: &Connection) {
        self.remove(connection.id);
    }

    fn remove(&self, id: u64) {
        let mut state = self.lock();
        state.connections.retain(|c| c.id != id);
        if state.connections.is_empty() {
            state.retry_at = None;
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// One of `wanted` diallings has ended.
    fn dialled(self: &Arc<Self>, result: Result<(Address, Established), String>) {
        let mut state = self.lock();
        state.dialling = state.dialling.saturating_sub(1);
        match result {
            Ok((address, established)) => {
                state.next_id += 1;
                let id = state.next_id;
                let Established { sender, driver } = established;
                let (users, handle) = (Arc::default(), driver.handle.clone());
                state.connections.push(Connection { id, address, sender, users, handle });
                let driver = drive(Arc::downgrade(self), id, driver);
                self.supervisor.spawn("gRPC connection", driver);
            }
            Err(why) => {
                tracing::debug!(error = why, "gRPC dialling failed");
                state.last_error = why;
                let rest = if state.connections.is_empty() { REST } else { REST_BESIDE };
                state.retry_at = Some(Instant::now() + rest);
            }
        }
        drop(state);
        self.changed.notify_waiters();
    }

    async fn resolve(&self) -> Result<Vec<Address>, String> {
        if self.proxy.is_some() {
            return Ok(vec![Address::Proxied]);
        }
        match &self.target {
            Target::Unix(path) => Ok(vec![Address::Unix(path.clone())]),
            Target::None => Err("no endpoint".to_owned()),
            Target::Tcp { host, port } => {
                let found = tokio::net::lookup_host((host.as_str(), *port))
                    .await
                    .map_err(|e| format!("name resolver error: {host}: {e}"))?;
                let mut seen = HashSet::new();
                let found: Vec<_> = found.filter(|a| seen.insert(*a)).map(Address::Tcp).collect();
                if found.is_empty() {
                    Err(format!("name resolver error: {host}: no addresses"))
                } else {
                    Ok(found)
                }
            }
        }
    }

    async fn dial(&self, address: &Address) -> Result<Established, String> {
        let name = match address {
            Address::Tcp(address) => address.to_string(),
            Address::Unix(path) => path.display().to_string(),
            Address::Proxied => self.proxy.as_ref().map(Proxy::name).unwrap_or_default(),
        };
        match tokio::time::timeout(DIAL_TIMEOUT, self.connect(address)).await {
            Ok(Ok(established)) => Ok(established),
            Ok(Err(e)) => Err(format!("connection error: {name}: {e}")),
            Err(_) => Err(format!("connection error: {name}: no connection within {DIAL_TIMEOUT:?}")),
        }
    }

    async fn connect(&self, address: &Address) -> io::Result<Established> {
        let tcp = |socket: TcpStream| {
            socket.set_nodelay(true)?;
            socket2::SockRef::from(&socket).set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
            Ok::<_, io::Error>(Box::new(socket))
        };
        let socket: Box<dyn Socket> = match (address, &self.proxy) {
            (Address::Tcp(address), _) => tcp(TcpStream::connect(address).await?)?,
            (Address::Unix(path), _) => Box::new(UnixStream::connect(path).await?),
            (Address::Proxied, Some(proxy)) => tcp(proxy.connect().await?)?,
            (Address::Proxied, None) => return Err(io::Error::other("no proxy")),
        };
        let socket: Box<dyn Socket> = match &self.tls {
            None => socket,
            Some(tls) => {
                let host = match &self.target {
                    Target::Tcp { host, .. } => host.as_str(),
                    _ => "localhost",
                };
                let socket = tls.connector().connect(tls.server_name(host)?, socket).await?;
                if socket.get_ref().1.alpn_protocol() != Some(b"h2") {
                    return Err(io::Error::other("the server does not offer HTTP/2 over TLS (ALPN h2)"));
                }
                Box::new(socket)
            }
        };
        let (io, handle) = gather(socket, self.read_size, self.write_size);
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .enable_push(false)
            .handshake::<_, Message>(io)
            .await
            .map_err(io::Error::other)?;
        Ok(Established { sender, driver: Driver { connection, handle, keepalive: self.keepalive.clone() } })
    }
}

impl State {
    fn pick(&mut self, balancer: Balancer) -> Option<Connection> {
        let n = self.connections.len();
        if n > 1 && balancer == Balancer::RoundRobin {
            self.turn = self.turn.wrapping_add(1) % n;
        } else {
            self.turn = 0;
        }
        self.connections.get(self.turn).cloned()
    }
}

/// Resolves the endpoint and dials what is missing.
async fn dial_all(channel: Weak<Channel>) {
    let Some(this) = channel.upgrade() else { return };
    let addresses = match this.resolve().await {
        Ok(addresses) => addresses,
        Err(why) => return this.dialled(Err(why)),
    };
    if this.balancer == Balancer::PickFirst {
        this.lock().wanted = 1;
        let mut failure = Err(String::new());
        for address in addresses {
            match this.dial(&address).await {
                Ok(established) => return this.dialled(Ok((address, established))),
                Err(why) => failure = Err(why),
            }
        }
        return this.dialled(failure);
    }
    let missing: Vec<Address> = {
        let mut state = this.lock();
        state.wanted = addresses.len();
        let missing: Vec<Address> =
            addresses.into_iter().filter(|a| state.connections.iter().all(|c| c.address != *a)).collect();
        state.dialling = missing.len().max(1);
        state.retry_at = None;
        missing
    };
    if missing.is_empty() {
        this.lock().dialling = 0;
        this.changed.notify_waiters();
    }
    for address in missing {
        let this = this.clone();
        this.supervisor.clone().spawn("gRPC dialling", async move {
            let result = this.dial(&address).await;
            this.dialled(result.map(|established| (address, established)));
        });
    }
}

struct Established {
    sender: SendRequest<Message>,
    driver: Driver,
}

type Io = super::io::Gathered<Box<dyn Socket>>;

/// The half of a connection that moves bytes.
struct Driver {
    connection: h2::client::Connection<Io, Message>,
    handle: Handle<Box<dyn Socket>>,
    keepalive: Option<KeepaliveConfig>,
}

/// Moves bytes until the connection ends.
async fn drive(channel: Weak<Channel>, id: u64, mut driver: Driver) {
    let pings = driver.connection.ping_pong();
    let Driver { mut connection, handle, keepalive } = driver;
    let flushing = handle.clone();
    let running = std::future::poll_fn(move |cx| {
        let ended = std::pin::Pin::new(&mut connection).poll(cx);
        match flushing.poll_flush(cx) {
            std::task::Poll::Ready(Err(e)) => std::task::Poll::Ready(Err(e.to_string())),
            _ => ended.map_err(|e| e.to_string()),
        }
    });
    let busy =
        || channel.upgrade().is_some_and(|c| c.lock().connections.iter().any(|c| c.id == id && c.is_busy()));
    let ended = match (keepalive, pings) {
        (Some(keepalive), Some(pings)) => tokio::select! {
            ended = running => ended,
            () = keep_alive(&keepalive, pings, &handle, busy) => Err("keepalive ping not answered in time".to_owned()),
        },
        _ => running.await,
    };
    if let Err(why) = ended {
        tracing::debug!(error = why, "gRPC connection ended");
    }
    if let Some(channel) = channel.upgrade() {
        channel.remove(id);
    }
}

impl Connection {
    fn is_busy(&self) -> bool {
        Arc::strong_count(&self.users) > 1
    }
}

/// Returns when the peer is dead.
async fn keep_alive(
    config: &KeepaliveConfig,
    mut pings: h2::PingPong,
    handle: &Handle<Box<dyn Socket>>,
    busy: impl Fn() -> bool,
) {
    let time = config.time.max(Duration::from_secs(10));
    let timeout = if config.timeout.is_zero() { Duration::from_secs(20) } else { config.timeout };
    loop {
        let due = handle.heard() + time;
        if due > Instant::now() {
            tokio::time::sleep_until(due).await;
            continue;
        }
        if !config.permit_without_stream && !busy() {
            tokio::time::sleep(time).await;
            continue;
        }
        match tokio::time::timeout(timeout, pings.ping(h2::Ping::opaque())).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}
