//! A socket that gathers small writes without copying the large ones.
//!
//! HTTP/2 writes and flushes each frame (16 KiB by default) by itself, which costs a system call and a wake-up of
//! the peer per frame. Here frames are gathered and written with one vectored write when the buffer is full or
//! when the connection has nothing more to say ([`Handle::poll_flush`]). A slice that lies in a message that was
//! lent ([`Handle::lend`]) is kept as a reference; frame heads and other slivers are copied. A slice that is not
//! recognised is copied too: that costs time, never correctness.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// Shorter slices are copied: cheaper than a reference and one more slice in a write.
const WORTH_SHARING: usize = 1024;
/// Slices in one write; a frame takes two.
const SLICES: usize = 96;

/// The connection's end: what HTTP/2 reads and writes.
pub(super) struct Gathered<T>(Arc<Mutex<Inner<T>>>);

/// The driver's end: flushes, and knows when something was last heard.
pub(super) struct Handle<T>(Arc<Mutex<Inner<T>>>);

/// Pieces that the socket may refer to instead of copying, until this is dropped.
pub(super) struct Lent<T> {
    inner: Arc<Mutex<Inner<T>>>,
    keys: SmallVec<[usize; 2]>,
}

struct Inner<T> {
    io: T,
    out: Out,
    limit: usize,
    /// Lent pieces by the address of their first byte, with how often they are lent.
    lent: BTreeMap<usize, (Bytes, usize)>,
    input: Vec<u8>,
    /// How much of `input` is read.
    taken: usize,
    read_size: usize,
    heard: Instant,
}

/// What is gathered.
#[derive(Default)]
struct Out {
    pieces: VecDeque<Bytes>,
    /// What was copied behind the last piece.
    tail: BytesMut,
    len: usize,
}

/// Wraps `io`: `write_size` bytes are gathered (0: none), `read_size` bytes are read at a time (0: as many as the
/// reader asks for).
pub(super) fn gather<T>(io: T, read_size: usize, write_size: usize) -> (Gathered<T>, Handle<T>) {
    let inner = Inner {
        io,
        out: Out::default(),
        limit: write_size,
        lent: BTreeMap::new(),
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

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        Handle(self.0.clone())
    }
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

    /// Lets writes refer to `pieces`.
    pub fn lend(&self, pieces: &[Bytes]) -> Lent<T> {
        let mut keys = SmallVec::new();
        let mut inner = lock(&self.0);
        let gathers = inner.limit > 0;
        for piece in pieces.iter().filter(|p| gathers && p.len() >= WORTH_SHARING) {
            let key = piece.as_ptr() as usize;
            let (held, times) = inner.lent.entry(key).or_insert_with(|| (piece.clone(), 0));
            *times += 1;
            if held.len() < piece.len() {
                *held = piece.clone();
            }
            keys.push(key);
        }
        Lent { inner: self.0.clone(), keys }
    }
}

impl<T> Drop for Lent<T> {
    fn drop(&mut self) {
        let mut inner = lock(&self.inner);
        for key in &self.keys {
            if let Some((_, times)) = inner.lent.get_mut(key) {
                *times -= 1;
                if *times == 0 {
                    inner.lent.remove(key);
                }
            }
        }
    }
}

impl Out {
    fn copy(&mut self, slice: &[u8]) {
        self.tail.extend_from_slice(slice);
        self.len += slice.len();
    }

    fn refer(&mut self, piece: Bytes) {
        self.seal();
        self.len += piece.len();
        self.pieces.push_back(piece);
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
    }

    fn advance(&mut self, mut n: usize) {
        self.len -= n;
        while n > 0 {
            let Some(first) = self.pieces.front_mut() else { return };
            let step = n.min(first.len());
            first.advance(step);
            n -= step;
            if first.is_empty() {
                self.pieces.pop_front();
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> Inner<T> {
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.out.seal();
        while self.out.len > 0 {
            let slices: SmallVec<[IoSlice<'_>; SLICES]> =
                self.out.pieces.iter().take(SLICES).map(|p| IoSlice::new(p)).collect();
            let n = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &slices))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            drop(slices);
            self.out.advance(n);
        }
        Poll::Ready(Ok(()))
    }

    /// The slice as part of a lent piece.
    fn recognise(&self, slice: &[u8]) -> Option<Bytes> {
        if slice.len() < WORTH_SHARING {
            return None;
        }
        let at = slice.as_ptr() as usize;
        let (start, (piece, _)) = self.lent.range(..=at).next_back()?;
        // Same address, same memory: the piece keeps it alive and nothing can change it.
        (at + slice.len() <= start + piece.len()).then(|| piece.slice_ref(slice))
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
        if inner.out.len + total > inner.limit {
            ready!(inner.poll_write_out(cx))?;
            if total > inner.limit {
                return Pin::new(&mut inner.io).poll_write_vectored(cx, bufs);
            }
        }
        for buf in bufs {
            match inner.recognise(buf) {
                Some(piece) => inner.out.refer(piece),
                None => inner.out.copy(buf),
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn everything_arrives_in_order_lent_or_not() {
        let big = Bytes::from((0..200_000u32).map(|i| (i % 251) as u8).collect::<Vec<_>>());
        for limit in [0, 100, 5000, 1 << 20] {
            let (ours, mut theirs) = tokio::io::duplex(777);
            let (mut gathered, handle) = gather(ours, 0, limit);
            let parts = [big.slice(..60_000), big.slice(50_000..)];
            let lent = handle.lend(&parts);
            let again = handle.lend(&parts[..1]);
            let mut want = Vec::new();
            let reader = async {
                let mut got = Vec::new();
                theirs.read_to_end(&mut got).await.unwrap();
                got
            };
            let writer = async {
                for (i, range) in
                    [(0, 10), (0, 16_384), (40_000, 60_000), (55_000, 70_000), (190_000, 200_000)]
                        .into_iter()
                        .enumerate()
                {
                    let head = [i as u8; 9];
                    let slice = &big[range.0..range.1];
                    want.extend_from_slice(&head);
                    want.extend_from_slice(slice);
                    let mut chain = Buf::chain(&head[..], slice);
                    while chain.has_remaining() {
                        gathered.write_buf(&mut chain).await.unwrap();
                    }
                }
                drop((lent, again));
                gathered.shutdown().await.unwrap();
            };
            let ((), got) = tokio::join!(writer, reader);
            assert!(got == want, "limit {limit}: {} of {}", got.len(), want.len());
            assert!(lock(&handle.0).lent.is_empty());
        }
    }
}
