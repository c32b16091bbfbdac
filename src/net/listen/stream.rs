//! Accepted connections: TCP, unix and TLS behind one type, vectored writes passed through.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use super::Slot;
use crate::net::tls::{ServerTls, names};
use crate::pdata::ClientCertificate;

/// How long a client may take for its TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A connection as accepted, before TLS.
#[derive(Debug)]
pub struct RawStream {
    socket: Socket,
    peer: Option<SocketAddr>,
    /// Held for the life of the connection.
    _slot: Slot,
}

/// A connection ready for use.
#[derive(Debug)]
pub enum Stream {
    /// Without TLS.
    Plain(RawStream),
    /// With TLS.
    Tls(Box<TlsStream<RawStream>>),
}

#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Does the server's side of a TLS handshake. Belongs into the connection's own task, not into the accept loop.
///
/// # Errors
/// The client speaks no TLS, has no certificate where one is asked for, or takes longer than ten seconds.
pub async fn secure(raw: RawStream, tls: &ServerTls) -> io::Result<Stream> {
    let handshake = tls.acceptor().accept(raw);
    match tokio::time::timeout(HANDSHAKE, handshake).await {
        Ok(done) => Ok(Stream::Tls(Box::new(done?))),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long")),
    }
}

impl RawStream {
    pub(super) fn new(socket: Socket, peer: Option<SocketAddr>, slot: Slot) -> Self {
        RawStream { socket, peer, _slot: slot }
    }

    /// Who is at the other end; `None` for a unix socket.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.peer
    }

    #[cfg(test)]
    pub(super) fn socket_ref(&self) -> &Socket {
        &self.socket
    }

    fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }
}

impl Stream {
    /// Who is at the other end; `None` for a unix socket.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        match self {
            Stream::Plain(raw) => raw.peer_addr(),
            Stream::Tls(tls) => tls.get_ref().0.peer_addr(),
        }
    }

    /// What the client's certificate calls it, where TLS has verified one.
    pub fn certificate(&self) -> Option<ClientCertificate> {
        match self {
            Stream::Plain(_) => None,
            // Servers ask for certificates only where they verify them.
            Stream::Tls(tls) => names(tls.get_ref().1.peer_certificates()?.first()?),
        }
    }

    /// The application protocol that TLS agreed on, such as `h2`.
    pub fn alpn(&self) -> Option<&[u8]> {
        match self {
            Stream::Plain(_) => None,
            Stream::Tls(tls) => tls.get_ref().1.alpn_protocol(),
        }
    }
}

impl From<RawStream> for Stream {
    fn from(raw: RawStream) -> Self {
        Stream::Plain(raw)
    }
}

/// Passes every poll on to whichever stream there is.
macro_rules! pass_on {
    ($outer:ty, $field:expr, $($variant:path),+) => {
        impl AsyncRead for $outer {
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                match $field(self.get_mut()) { $( $variant(s) => Pin::new(s).poll_read(cx, buf), )+ }
            }
        }

        impl AsyncWrite for $outer {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                match $field(self.get_mut()) { $( $variant(s) => Pin::new(s).poll_write(cx, buf), )+ }
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                match $field(self.get_mut()) { $( $variant(s) => Pin::new(s).poll_write_vectored(cx, bufs), )+ }
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match $field(self.get_mut()) { $( $variant(s) => Pin::new(s).poll_flush(cx), )+ }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match $field(self.get_mut()) { $( $variant(s) => Pin::new(s).poll_shutdown(cx), )+ }
            }
        }
    };
}

pass_on!(RawStream, RawStream::socket, Socket::Tcp, Socket::Unix);
pass_on!(Stream, std::convert::identity, Stream::Plain, Stream::Tls);
