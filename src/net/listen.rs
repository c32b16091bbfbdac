//! Listening sockets: TCP and unix, plain and TLS, as one kind of stream.
//!
//! Promises: the accept loop survives whatever the kernel says about a single connection, and pauses (counted,
//! logged once) when the process is out of file descriptors; the number of open connections is bounded; no client
//! can hold up the accept loop, because handshakes happen outside it and end after a while.
//!
//! Costs: an accept and nothing else; options are set once, on the listening socket, and inherited.

mod address;
mod stream;

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use address::Transport;
pub use stream::{RawStream, Stream, secure};

use crate::config::types::Endpoint;
use crate::telemetry::Counter;

/// How a listener treats its socket and its connections.
#[derive(Clone)]
pub struct ListenOptions {
    /// Most connections open at once; more wait in the kernel's backlog.
    pub max_connections: usize,
    /// Permissions of a unix socket; `None` leaves them to the umask.
    pub unix_mode: Option<u32>,
    /// Counts the pauses of the accept loop for want of file descriptors or memory.
    pub pauses: Option<Counter>,
}

/// A listening socket.
pub struct Listener {
    socket: Bound,
    slots: Arc<Semaphore>,
    pauses: Option<Counter>,
    paused: AtomicBool,
    crowded: AtomicBool,
}

/// A connection's place among those allowed; free again when the stream is dropped.
type Slot = OwnedSemaphorePermit;

enum Bound {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// After the listener, so that the file goes last.
        _file: SocketFile,
    },
}

/// A socket's file, removed with the listener if it is still the one that was made.
struct SocketFile {
    path: PathBuf,
    inode: Option<(u64, u64)>,
}

/// What an error of `accept` says about the next one.
#[derive(Debug, PartialEq, Eq)]
enum AcceptError {
    /// It was about one connection.
    Connection,
    /// The process or the system has run out of something.
    Exhausted,
    /// The socket is gone.
    Fatal,
}

/// As many as Linux allows without a change of `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// How long the accept loop rests when there are no file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// When a silent peer is first probed, as in Go.
const KEEPALIVE: Duration = Duration::from_secs(15);

impl Default for ListenOptions {
    fn default() -> Self {
        ListenOptions { max_connections: 16_384, unix_mode: None, pauses: None }
    }
}

impl Listener {
    /// Opens `endpoint` with default options.
    ///
    /// `localhost` and other names bind the first address they resolve to, IPv4 before IPv6, as Go does. An empty
    /// host, `0.0.0.0` and `[::]` mean every address of both families under `tcp`, of one under `tcp4` and `tcp6`.
    /// A unix socket's stale file is replaced; one on which somebody listens is not.
    ///
    /// # Errors
    /// What the resolver or the kernel says, with the address in the message.
    pub async fn bind(endpoint: &Endpoint, transport: Transport) -> io::Result<Listener> {
        Listener::bind_with(endpoint, transport, ListenOptions::default()).await
    }

    /// Opens `endpoint`; see [`Listener::bind`].
    ///
    /// # Errors
    /// As [`Listener::bind`].
    pub async fn bind_with(
        endpoint: &Endpoint,
        transport: Transport,
        options: ListenOptions,
    ) -> io::Result<Listener> {
        let bound = match endpoint.unix_path() {
            Some(path) => bind_unix(path, options.unix_mode),
            None => match address::resolve(endpoint, transport).await {
                Ok(candidates) => bind_tcp(&candidates),
                Err(error) => Err(error),
            },
        };
        let socket =
            bound.map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {endpoint}: {e}")))?;
        Ok(Listener {
            socket,
            slots: Arc::new(Semaphore::new(options.max_connections.clamp(1, Semaphore::MAX_PERMITS))),
            pauses: options.pauses,
            paused: AtomicBool::new(false),
            crowded: AtomicBool::new(false),
        })
    }

    /// The address bound; `None` for a unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            Bound::Tcp(tcp) => tcp.local_addr().ok(),
            Bound::Unix { .. } => None,
        }
    }

    /// The next connection and, over TCP, who made it. May be dropped at any time without losing a connection.
    ///
    /// # Errors
    /// Only when the socket itself is unusable; everything else is waited out.
    pub async fn accept(&self) -> io::Result<(RawStream, Option<SocketAddr>)> {
        let slot = self.slot().await?;
        loop {
            let accepted = match &self.socket {
                Bound::Tcp(tcp) => tcp.accept().await.map(|(stream, peer)| {
                    // An IPv4 client of a dual-stack socket is still an IPv4 client.
                    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                    (stream::Socket::Tcp(stream), Some(peer))
                }),
                Bound::Unix { listener, .. } => {
                    listener.accept().await.map(|(stream, _)| (stream::Socket::Unix(stream), None))
                }
            };
            match accepted {
                Ok((socket, peer)) => {
                    self.paused.store(false, Ordering::Relaxed);
                    return Ok((RawStream::new(socket, peer, slot), peer));
                }
                Err(error) => self.recover(error).await?,
            }
        }
    }

    async fn slot(&self) -> io::Result<Slot> {
        if let Ok(slot) = self.slots.clone().try_acquire_owned() {
            self.crowded.store(false, Ordering::Relaxed);
            return Ok(slot);
        }
        if !self.crowded.swap(true, Ordering::Relaxed) {
            tracing::warn!(address = ?self.local_addr(), "the limit of open connections is reached; new ones wait");
        }
        self.slots.clone().acquire_owned().await.map_err(io::Error::other)
    }

    /// Waits out an error of `accept`, or returns it.
    async fn recover(&self, error: io::Error) -> io::Result<()> {
        match classify(&error) {
            AcceptError::Connection => {
                tracing::debug!(%error, "a connection was gone before it was accepted");
                // A kernel that fails every accept at once must not keep this thread from its other tasks.
                tokio::task::yield_now().await;
                Ok(())
            }
            AcceptError::Exhausted => {
                self.pauses.iter().for_each(|c| c.add(1));
                if !self.paused.swap(true, Ordering::Relaxed) {
                    tracing::error!(%error, address = ?self.local_addr(), "cannot accept connections; trying on");
                }
                tokio::time::sleep(PAUSE).await;
                Ok(())
            }
            AcceptError::Fatal => Err(error),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path) == self.inode && self.inode.is_some() {
            // Nothing can be done about a file that cannot be removed; the next start replaces it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn classify(error: &io::Error) -> AcceptError {
    use io::ErrorKind;
    // EMFILE, ENFILE, ENOBUFS, ENOMEM as Linux numbers them; most have no kind of their own.
    const EXHAUSTED: [i32; 4] = [24, 23, 105, 12];
    match (error.raw_os_error(), error.kind()) {
        (Some(code), _) if EXHAUSTED.contains(&code) => AcceptError::Exhausted,
        (_, ErrorKind::OutOfMemory) => AcceptError::Exhausted,
        // EBADF, ENOTSOCK, EINVAL, EOPNOTSUPP: no next call will do better.
        (Some(9 | 88 | 22 | 95), _) => AcceptError::Fatal,
        _ => AcceptError::Connection,
    }
}

/// Binds the first of several addresses that can be bound.
fn bind_tcp(candidates: &[SocketAddr]) -> io::Result<Bound> {
    let mut first_error = None;
    for address in candidates {
        match bind_one(*address, candidates.len() > 1) {
            Ok(listener) => return TcpListener::from_std(listener).map(Bound::Tcp),
            // A second wildcard is there for hosts without IPv6 alone; any other failure is the answer.
            Err(error) if is_without_family(&error) => first_error = first_error.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    Err(first_error
        .unwrap_or_else(|| io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address")))
}

fn bind_one(address: SocketAddr, dual_stack: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!dual_stack)?;
    }
    // Accepted sockets inherit both.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// EAFNOSUPPORT, EADDRNOTAVAIL, EPROTONOSUPPORT: the host does not speak this family.
fn is_without_family(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(97 | 99 | 93))
}

fn bind_unix(path: &Path, mode: Option<u32>) -> io::Result<Bound> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile { path: path.to_owned(), inode: inode(path) };
    // Nobody can connect before `listen`, so the permissions hold from the first connection on.
    if let Some(mode) = mode {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(Bound::Unix { listener: UnixListener::from_std(socket.into())?, _file: file })
}

/// Removes the socket file that a process left behind when it died.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(meta) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !meta.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the path exists and is not a socket"));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens on the socket")),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(e) => Err(e),
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|m| (m.dev(), m.ino()))
}

#[cfg(test)]
mod tests;
