//! A socket that gathers small writes: HTTP/2 writes and flushes each frame (16 KiB by default) by itself, which
//! costs a system call and a wake-up of the peer per frame. Frames are gathered here and written when the buffer
//! is full or when the connection has nothing more to say ([`Handle::poll_flush`]).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// The connection's end: what HTTP/2 reads and writes.
pub(super) struct Gathered<T>(Arc<Mutex<Inner<T>>>);

/// The driver's end: flushes, and knows when something was last heard.
pub(super) struct Handle<T>(Arc<Mutex<Inner<T>>>);

struct Inner<T> {
    io: T,
    out: Vec<u8>,
    /// How much of `out` is written.
    written: usize,
    limit: usize,
    input: Vec<u8>,
    /// How much of `input` is read.
    taken: usize,
    read_size: usize,
    heard: Instant,
}

/// Wraps `io`: `write_size` bytes are gathered (0: none), `read_size` bytes are read at a time (0: as many as the
/// reader asks for).
pub(super) fn gather<T>(io: T, read_size: usize, write_size: usize) -> (Gathered<T>, Handle<T>) {
    let inner = Inner {
        io,
        out: Vec::new(),
        written: 0,
        limit: write_size,
        input: Vec::new(),
        taken: 0,
        read_size,
        heard: Instant::now(),
    };
    let inner = Arc::new(Mutex::new(inner));
    (Gathered(inner.clone()), Handle(inner))
}

fn lock<T>(inner: &Mutex<Inner<T>>) -> MutexGuard<'_, Inner<T>> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: AsyncWrite + Unpin> Handle<T> {
    /// Writes what is gathered.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        ready!(inner.poll_write_out(cx))?;
        Pin::new(&mut inner.io).poll_flush(cx)
    }

    /// When the peer was last heard.
    pub fn heard(&self) -> Instant {
        lock(&self.0).heard
    }
}

impl<T: AsyncWrite + Unpin> Inner<T> {
    fn gathered(&self) -> usize {
        self.out.len() - self.written
    }

    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            let n = ready!(Pin::new(&mut self.io).poll_write(cx, rest))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += n;
        }
        self.out.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Gathered<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        let inner = &mut *inner;
        if inner.taken == inner.input.len() {
            if inner.read_size <= buf.remaining() {
                let before = buf.filled().len();
                ready!(Pin::new(&mut inner.io).poll_read(cx, buf))?;
                if buf.filled().len() > before {
                    inner.heard = Instant::now();
                }
                return Poll::Ready(Ok(()));
            }
            inner.input.resize(inner.read_size, 0);
            let mut input = ReadBuf::new(&mut inner.input);
            let read = Pin::new(&mut inner.io).poll_read(cx, &mut input);
            let n = input.filled().len();
            inner.input.truncate(n);
            inner.taken = if read.is_ready() { 0 } else { n };
            ready!(read)?;
            inner.heard = Instant::now();
        }
        let rest = inner.input.get(inner.taken..).unwrap_or_default();
        let n = rest.len().min(buf.remaining());
        buf.put_slice(rest.get(..n).unwrap_or_default());
        inner.taken += n;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gathered<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = lock(&self.0);
        let total: usize = bufs.iter().map(|b| b.len()).sum();
        if inner.gathered() + total > inner.limit {
            ready!(inner.poll_write_out(cx))?;
            if total > inner.limit {
                return Pin::new(&mut inner.io).poll_write_vectored(cx, bufs);
            }
        }
        for buf in bufs {
            inner.out.extend_from_slice(buf);
        }
        Poll::Ready(Ok(total))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Does nothing while gathering: the driver flushes when the connection is done for now.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        if inner.limit == 0 { Pin::new(&mut inner.io).poll_flush(cx) } else { Poll::Ready(Ok(())) }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        ready!(inner.poll_write_out(cx))?;
        Pin::new(&mut inner.io).poll_shutdown(cx)
    }
}
