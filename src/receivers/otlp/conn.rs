//! What a connection knows of itself: open requests, when it was last heard, what passes over its socket.
//!
//! [`Watched`] wraps the socket below HTTP. It notes the time of reads and writes, and, for gRPC, follows the
//! nine-byte frame headers as they come in, for what the HTTP/2 library does not tell: the largest frame (which
//! bounds how much memory a slice of a read buffer can keep alive) and how often the client pings. It looks at
//! frame headers only, so its cost does not depend on how much telemetry passes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::gate::{FREE, Gate};
use crate::pdata::ClientInfo;

/// Bytes of the connection preface that precede the first frame.
const PREFACE: usize = 24;
/// Bytes of a frame header.
const HEADER: usize = 9;
/// A ping without open requests may come this often when the policy does not permit it: practically never.
const PING_WITHOUT_STREAM: Duration = Duration::from_secs(2 * 3600);
/// How many pings too many are forgiven.
const STRIKES: u32 = 2;

/// A connection's state, shared by its task, its requests and its socket.
#[derive(Debug)]
pub struct Conn {
    /// Who is on the other side, where a request adds nothing to it.
    pub client: Arc<ClientInfo>,
    started: Instant,
    /// Requests open now.
    active: AtomicUsize,
    /// When the last request ended, in milliseconds since the start.
    quiet_since: AtomicU64,
    /// When bytes came in last, in milliseconds since the start.
    heard: AtomicU64,
    /// Since when a request's head has been arriving; `u64::MAX` when none is.
    head_since: AtomicU64,
    multiplexed: AtomicBool,
    /// Since when the frame at hand has been arriving; `u64::MAX` when none is incomplete.
    frame_since: AtomicU64,
    /// Since when the client has not taken what we write; `u64::MAX` when it takes it.
    blocked_since: AtomicU64,
    /// Payload bytes of the largest frame seen.
    largest_frame: AtomicUsize,
    /// Something was sent since the client's last ping.
    sent: AtomicBool,
    /// Signalled when the client pinged more often than it may.
    ping_abuse: Notify,
    /// Bodies that are not complete are given up.
    cut: AtomicBool,
    cut_signal: Notify,
    /// Keeps the server waiting until the connection and its requests are gone.
    _alive: mpsc::Sender<()>,
}

/// Counts a request as open while it lives.
#[derive(Debug)]
pub struct OpenRequest(Arc<Conn>);

/// How often a client may ping.
#[derive(Debug, Clone, Copy)]
pub struct PingPolicy {
    /// The least time between two pings.
    pub min_time: Duration,
    /// Whether it may ping while it has no request open.
    pub without_stream: bool,
}

/// A socket that keeps [`Conn`] informed.
#[derive(Debug)]
pub struct Watched<IO> {
    io: IO,
    conn: Arc<Conn>,
    frames: Option<(Frames, Gate)>,
    /// Answers gathered for one write; empty unless `gather` is above 0.
    out: Vec<u8>,
    out_at: usize,
    gather: usize,
}

/// Follows HTTP/2's frames.
#[derive(Debug)]
struct Frames {
    policy: PingPolicy,
    header: [u8; HEADER],
    have: usize,
    /// How many frames have begun.
    seen: u64,
    /// Payload bytes of the frame at hand.
    payload: usize,
    /// Bytes until the next frame header.
    skip: usize,
    last_ping: Option<Instant>,
    strikes: u32,
}

impl Conn {
    /// A connection that starts now. `alive` is held until the connection and its requests are gone.
    pub fn new(client: Arc<ClientInfo>, alive: mpsc::Sender<()>) -> Arc<Self> {
        Arc::new(Conn {
            client,
            started: Instant::now(),
            active: AtomicUsize::new(0),
            quiet_since: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            head_since: AtomicU64::new(0),
            multiplexed: AtomicBool::new(false),
            frame_since: AtomicU64::new(u64::MAX),
            blocked_since: AtomicU64::new(u64::MAX),
            largest_frame: AtomicUsize::new(0),
            sent: AtomicBool::new(false),
            ping_abuse: Notify::new(),
            cut: AtomicBool::new(false),
            cut_signal: Notify::new(),
            _alive: alive,
        })
    }

    /// Notes that a request has begun: its head is complete. On a multiplexed connection bytes without a request
    /// are no head on its way: they may be pings.
    pub fn open(self: &Arc<Self>, multiplexed: bool) -> OpenRequest {
        self.active.fetch_add(1, Ordering::AcqRel);
        self.head_since.store(u64::MAX, Ordering::Relaxed);
        self.multiplexed.store(multiplexed, Ordering::Relaxed);
        OpenRequest(self.clone())
    }

    /// When the connection began.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Since when no request is open; `None` while one is.
    pub fn quiet_since(&self) -> Option<Instant> {
        (self.active.load(Ordering::Acquire) == 0).then(|| self.at(self.quiet_since.load(Ordering::Relaxed)))
    }

    /// When bytes came in last.
    pub fn heard(&self) -> Instant {
        self.at(self.heard.load(Ordering::Relaxed))
    }

    /// Since when a request's head has been arriving, `None` when none is. The first one is expected from the
    /// start of the connection, later ones from their first byte.
    pub fn head_since(&self) -> Option<Instant> {
        self.maybe(&self.head_since)
    }

    /// Since when the frame at hand has been arriving; `None` when none is incomplete or frames are not followed.
    pub fn frame_since(&self) -> Option<Instant> {
        self.maybe(&self.frame_since)
    }

    /// Since when the client has not taken what we write; `None` when it takes it.
    pub fn blocked_since(&self) -> Option<Instant> {
        self.maybe(&self.blocked_since)
    }

    /// Ends when the client pinged more often than it may.
    pub async fn ping_abuse(&self) {
        self.ping_abuse.notified().await;
    }

    /// Notes that an answer was sent, which entitles the client to a ping.
    pub fn answered(&self) {
        self.sent.store(true, Ordering::Relaxed);
    }

    /// Payload bytes of the largest frame seen.
    pub fn largest_frame(&self) -> usize {
        self.largest_frame.load(Ordering::Relaxed)
    }

    /// Gives up bodies that are not complete: the agent stops.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        self.cut_signal.notify_waiters();
    }

    /// Ends when bodies are given up.
    pub async fn cut_off(&self) {
        let signal = self.cut_signal.notified();
        if !self.cut.load(Ordering::Acquire) {
            signal.await;
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }

    fn at(&self, millis: u64) -> Instant {
        self.started + Duration::from_millis(millis)
    }

    fn maybe(&self, field: &AtomicU64) -> Option<Instant> {
        Some(field.load(Ordering::Relaxed)).filter(|&ms| ms != u64::MAX).map(|ms| self.at(ms))
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.quiet_since.store(self.0.now(), Ordering::Relaxed);
        self.0.active.fetch_sub(1, Ordering::AcqRel);
    }
}

impl<IO> Watched<IO> {
    /// Watches `io`. With a policy and a gate, frames are followed; `gather` is how many bytes of answers are put
    /// together before they are written, 0 to write each at once.
    pub fn new(io: IO, conn: Arc<Conn>, frames: Option<(PingPolicy, Gate)>, gather: usize) -> Self {
        let frames = frames.map(|(policy, gate)| (Frames::new(policy), gate));
        Watched { io, conn, frames, out: Vec::new(), out_at: 0, gather }
    }

    fn noted_write<T>(&self, result: Poll<T>) -> Poll<T> {
        let blocked = &self.conn.blocked_since;
        if result.is_ready() {
            blocked.store(u64::MAX, Ordering::Relaxed);
        } else if blocked.load(Ordering::Relaxed) == u64::MAX {
            blocked.store(self.conn.now(), Ordering::Relaxed);
        }
        result
    }
}

impl<IO: AsyncWrite + Unpin> Watched<IO> {
    /// Writes what was gathered.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.out.get(self.out_at..).filter(|rest| !rest.is_empty()) {
            let result = Pin::new(&mut self.io).poll_write(cx, rest);
            let written = ready!(self.noted_write(result))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out_at += written;
        }
        // Idle connections keep no buffer.
        self.out = Vec::new();
        self.out_at = 0;
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Watched<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        if let Some((frames, gate)) = &mut this.frames
            && frames.skip > FREE
        {
            ready!(gate.poll_pass(frames.held(), cx))?;
        }
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        let new = buf.filled().get(before..).unwrap_or_default();
        if !new.is_empty() {
            let conn = &this.conn;
            let now = conn.now();
            conn.heard.store(now, Ordering::Relaxed);
            if conn.head_since.load(Ordering::Relaxed) == u64::MAX
                && !conn.multiplexed.load(Ordering::Relaxed)
                && conn.active.load(Ordering::Acquire) == 0
            {
                conn.head_since.store(now, Ordering::Relaxed);
            }
            if let Some((frames, gate)) = &mut this.frames {
                let seen = frames.seen;
                frames.follow(new, conn);
                gate.holds(frames.held());
                if frames.held() == 0 {
                    conn.frame_since.store(u64::MAX, Ordering::Relaxed);
                } else if frames.seen != seen || conn.frame_since().is_none() {
                    conn.frame_since.store(now, Ordering::Relaxed);
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Watched<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.gather > 0 {
            if this.out.len() + buf.len() > this.gather {
                ready!(this.poll_drain(cx))?;
            }
            if buf.len() < this.gather {
                this.out.extend_from_slice(buf);
                return Poll::Ready(Ok(buf.len()));
            }
        }
        let result = Pin::new(&mut this.io).poll_write(cx, buf);
        this.noted_write(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.gather > 0 {
            let first = bufs.iter().find(|b| !b.is_empty()).map_or(&[][..], |b| &**b);
            return Pin::new(this).poll_write(cx, first);
        }
        let result = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.noted_write(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.gather == 0 && self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_drain(cx))?;
        let result = Pin::new(&mut this.io).poll_flush(cx);
        this.noted_write(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

impl Frames {
    fn new(policy: PingPolicy) -> Self {
        Frames {
            policy,
            header: [0; HEADER],
            have: 0,
            seen: 0,
            payload: 0,
            skip: PREFACE,
            last_ping: None,
            strikes: 0,
        }
    }

    /// Payload bytes of an incomplete frame that are here.
    fn held(&self) -> usize {
        if self.skip == 0 { 0 } else { self.payload.saturating_sub(self.skip) }
    }

    /// Follows the frames through what was just read.
    fn follow(&mut self, mut new: &[u8], conn: &Conn) {
        while !new.is_empty() {
            let skip = self.skip.min(new.len());
            self.skip -= skip;
            new = new.get(skip..).unwrap_or_default();
            if self.skip > 0 {
                return;
            }
            let take = (HEADER - self.have).min(new.len());
            let (head, rest) = new.split_at(take);
            if let Some(slot) = self.header.get_mut(self.have..self.have + take) {
                slot.copy_from_slice(head);
            }
            self.have += take;
            new = rest;
            if self.have == HEADER {
                self.have = 0;
                self.seen = self.seen.wrapping_add(1);
                let [a, b, c, kind, flags, ..] = self.header;
                self.payload = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                self.skip = self.payload;
                conn.largest_frame.fetch_max(self.skip, Ordering::Relaxed);
                const PING: u8 = 6;
                const ACK: u8 = 1;
                if kind == PING && flags & ACK == 0 {
                    self.ping(conn);
                }
            }
        }
    }

    /// Judges a ping the way gRPC servers do: one that comes too early is a strike, an answer sent in between
    /// wipes the slate, the third strike ends the connection.
    fn ping(&mut self, conn: &Conn) {
        let now = Instant::now();
        let last = self.last_ping.replace(now);
        if conn.sent.swap(false, Ordering::Relaxed) {
            self.strikes = 0;
            return;
        }
        let quiet = conn.active.load(Ordering::Acquire) == 0;
        let least =
            if quiet && !self.policy.without_stream { PING_WITHOUT_STREAM } else { self.policy.min_time };
        if last.is_some_and(|last| now.duration_since(last) < least) {
            self.strikes += 1;
            if self.strikes > STRIKES {
                conn.ping_abuse.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receivers::otlp::ingest::plain_client;

    fn conn() -> Arc<Conn> {
        Conn::new(plain_client(None, None), mpsc::channel(1).0)
    }

    fn ready_now(future: impl Future<Output = ()>) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        std::pin::pin!(future).poll(&mut cx).is_ready()
    }

    fn frames(without_stream: bool) -> Frames {
        Frames::new(PingPolicy { min_time: Duration::from_secs(300), without_stream })
    }

    #[test]
    fn frames_are_followed_however_the_bytes_are_cut() {
        let mut wire = vec![b'P'; PREFACE];
        for (len, kind) in [(5usize, 0u8), (300, 0), (0, 4), (8, 6), (70_000, 1)] {
            wire.extend([(len >> 16) as u8, (len >> 8) as u8, len as u8, kind, 0, 0, 0, 0, 1]);
            wire.extend(std::iter::repeat_n(6u8, len));
        }
        for cut in [1, 2, 7, 9, 100, 100_000] {
            let conn = conn();
            let mut frames = frames(true);
            wire.chunks(cut).for_each(|part| frames.follow(part, &conn));
            assert_eq!((frames.skip, frames.have, conn.largest_frame()), (0, 0, 70_000));
            assert!(frames.last_ping.is_some());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_third_early_ping_is_one_too_many() {
        let cases = [
            // (pings without open requests are permitted, gap in seconds, sent something in between, abuse)
            (true, 301, false, false),
            (true, 299, false, true),
            (true, 299, true, false),
            (false, 301, false, true),
            (false, 7201, false, false),
        ];
        for (without_stream, gap, sent, abuse) in cases {
            let conn = conn();
            let mut frames = frames(without_stream);
            for i in 0..4 {
                let early = ready_now(conn.ping_abuse());
                assert!(!early, "{i} pings");
                if sent {
                    conn.answered();
                }
                frames.ping(&conn);
                tokio::time::advance(Duration::from_secs(gap)).await;
            }
            assert_eq!(ready_now(conn.ping_abuse()), abuse, "{without_stream} {gap} {sent}");
        }
    }

    #[tokio::test]
    async fn a_frame_on_its_way_is_in_the_ledger() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let ledger = crate::pipeline::Ledger::new(1 << 20);
        let gate = super::super::gate::Gates::new(ledger.clone()).open();
        let policy = PingPolicy { min_time: Duration::ZERO, without_stream: true };
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut io = Watched::new(near, conn(), Some((policy, gate)), 0);
        let mut wire = vec![b'P'; PREFACE];
        wire.extend([3, 0, 0, 0, 0, 0, 0, 0, 1]);
        wire.resize(wire.len() + 0x2_0000, 0);
        far.write_all(&wire).await.unwrap();
        let mut sink = vec![0; 1 << 20];
        let mut got = 0;
        while got < wire.len() {
            got += io.read(&mut sink[..40_000]).await.unwrap();
        }
        assert_eq!(ledger.used(), 0x2_0000);
        assert!(io.conn.frame_since().is_some());
        far.write_all(&[0; 0x1_0000]).await.unwrap();
        while got < wire.len() + 0x1_0000 {
            got += io.read(&mut sink).await.unwrap();
        }
        assert_eq!(ledger.used(), 0);
        assert!(io.conn.frame_since().is_none());
    }

    #[tokio::test]
    async fn gathered_writes_arrive_in_order() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        for gather in [0, 4, 64] {
            let (near, mut far) = tokio::io::duplex(16);
            let mut io = Watched::new(near, conn(), None, gather);
            let read = async {
                let mut all = Vec::new();
                far.read_to_end(&mut all).await.unwrap();
                all
            };
            let write = async {
                for part in ["ab", "cde", "fghijklmnop", "", "q"] {
                    io.write_all(part.as_bytes()).await.unwrap();
                }
                io.shutdown().await.unwrap();
                drop(io);
            };
            let (all, ()) = tokio::join!(read, write);
            assert_eq!(all, b"abcdefghijklmnopq", "gather {gather}");
        }
    }
}
