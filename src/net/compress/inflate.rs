//! The way in: a compressed body in, bounded plain bytes out.

use std::cell::RefCell;
use std::io::{self, Read};

use bytes::Bytes;
use flate2::{Decompress, FlushDecompress, Status};
use libdeflater::{DecompressionError, Decompressor};
use zstd::zstd_safe::{self, DCtx, DParameter, InBuffer, OutBuffer, ResetDirective};

use super::{Codec, InflateError, SNAPPY_STREAM, contiguous};
use crate::pipeline::Lease;

/// No deflate stream expands further than this (258 bytes from two bits).
const DEFLATE_RATIO: usize = 1032;

/// No snappy block expands further than this (64 bytes from three).
const SNAPPY_RATIO: usize = 22;

/// The largest zstd window that is decoded as a stream: what RFC 8878 asks every decoder to support.
const ZSTD_WINDOW_LOG: u32 = 23;

/// A thread lets go of a zstd context that had to touch more memory than this.
const ZSTD_KEPT: usize = 1 << 20;

/// Most lz4 frames in one body. Writers write one; the decoder allocates megabytes for each, however small it is.
const LZ4_FRAMES: usize = 64;

/// How much a reader-based codec is asked for at a time.
const STEP: usize = 32 << 10;

thread_local! {
    static CONTEXTS: RefCell<Contexts> = RefCell::default();
}

/// What one thread reuses from request to request.
#[derive(Default)]
struct Contexts {
    gzip: Option<Decompressor>,
    zlib: Option<Decompress>,
    zstd: Option<DCtx<'static>>,
    snappy: Option<snap::raw::Decoder>,
}

/// Memory reserved in a lease while a body is decompressed; given back on failure.
struct Reserved<'a> {
    lease: &'a Lease,
    bytes: usize,
}

/// The output: grows in the ledger first, and never past the limit by more than the one byte that shows that
/// there is more.
struct Output<'a> {
    buf: Vec<u8>,
    limit: usize,
    reserved: Reserved<'a>,
}

/// Decompresses a body of at most `limit` bytes.
///
/// On success `lease` has grown by the capacity of the result; on failure it is what it was. Nobody else may
/// change the lease meanwhile.
///
/// # Errors
/// [`InflateError`]; nothing is retained then.
pub fn inflate(codec: Codec, input: &[Bytes], limit: usize, lease: &Lease) -> Result<Bytes, InflateError> {
    let total: usize = input.iter().map(Bytes::len).sum();
    let mut scratch = Reserved { lease, bytes: 0 };
    if input.len() > 1 {
        // Compressed bytes are the small side, and every codec is faster on one range.
        scratch.grow(total)?;
    }
    let body = contiguous(input);
    let mut out = Output { buf: Vec::new(), limit, reserved: Reserved { lease, bytes: 0 } };
    CONTEXTS.with_borrow_mut(|contexts| match codec {
        Codec::Gzip => contexts.gzip(&body, &mut out),
        Codec::Zlib => contexts.zlib(&body, true, &mut out),
        Codec::Deflate => contexts.zlib(&body, has_zlib_header(&body), &mut out),
        Codec::Zstd => contexts.zstd(&body, &mut out),
        Codec::Snappy if body.starts_with(SNAPPY_STREAM) => snappy_framed(&body, &mut out),
        Codec::Snappy => contexts.snappy(&body, &mut out),
        Codec::SnappyFramed => snappy_framed(&body, &mut out),
        Codec::Lz4 => lz4(&body, &mut out),
    })?;
    out.finish()
}

impl Contexts {
    /// The fast way takes the size from the trailer and decodes in one piece. Several members, and whatever
    /// looks like it might be, go through the streaming decoder.
    fn gzip(&mut self, body: &[u8], out: &mut Output<'_>) -> Result<(), InflateError> {
        let Some(size) = single_member_size(body) else { return gzip_members(body, out) };
        if size > out.limit {
            return Err(InflateError::TooLarge { limit: out.limit });
        }
        out.reserve_exact(size)?;
        out.buf.resize(size, 0);
        match self.gzip.get_or_insert_with(Decompressor::new).gzip_decompress(body, &mut out.buf) {
            Ok(written) if written == size => Ok(()),
            // The trailer belongs to something else: let the slow way find out what.
            Ok(_) | Err(DecompressionError::InsufficientSpace) => {
                out.clear();
                gzip_members(body, out)
            }
            Err(DecompressionError::BadData) => Err(malformed("not a gzip stream, or damaged")),
        }
    }

    fn zlib(&mut self, body: &[u8], header: bool, out: &mut Output<'_>) -> Result<(), InflateError> {
        let state = self.zlib.get_or_insert_with(|| Decompress::new(header));
        state.reset(header);
        out.expect(body.len().saturating_mul(4))?;
        let mut rest = body;
        loop {
            out.room()?;
            let (before_in, before_out) = (state.total_in(), state.total_out());
            let status = state
                .decompress_vec(rest, &mut out.buf, FlushDecompress::None)
                .map_err(|e| malformed(&e.to_string()))?;
            let consumed = (state.total_in() - before_in) as usize;
            rest = rest.get(consumed..).unwrap_or_default();
            match status {
                Status::StreamEnd if rest.is_empty() => return Ok(()),
                Status::StreamEnd => return Err(malformed("bytes follow the end of the stream")),
                _ if consumed == 0 && state.total_out() == before_out && out.has_room() => {
                    return Err(malformed("the stream ends too early"));
                }
                _ => {}
            }
        }
    }

    fn zstd(&mut self, body: &[u8], out: &mut Output<'_>) -> Result<(), InflateError> {
        let context = match &mut self.zstd {
            Some(context) => context,
            none => none.insert(DCtx::try_create().ok_or(InflateError::NoMemory)?),
        };
        let mut touched = 0;
        let result = zstd_frames(context, body, out, &mut touched);
        if touched > ZSTD_KEPT {
            self.zstd = None;
        }
        result
    }

    fn snappy(&mut self, body: &[u8], out: &mut Output<'_>) -> Result<(), InflateError> {
        let size = snap::raw::decompress_len(body).map_err(|e| malformed(&e.to_string()))?;
        if size > out.limit {
            return Err(InflateError::TooLarge { limit: out.limit });
        }
        if size > body.len().saturating_mul(SNAPPY_RATIO) {
            return Err(malformed("the length prefix promises more than the block can hold"));
        }
        out.reserve_exact(size)?;
        out.buf.resize(size, 0);
        let decoder = self.snappy.get_or_insert_with(snap::raw::Decoder::new);
        let written = decoder.decompress(body, &mut out.buf).map_err(|e| malformed(&e.to_string()))?;
        out.buf.truncate(written);
        Ok(())
    }
}

/// The size a gzip body claims, if it can only have one member: no second header occurs in it, and the claim is
/// one that the format can keep.
fn single_member_size(body: &[u8]) -> Option<usize> {
    // Header and trailer take 18 bytes.
    let (_, after) = body.split_at_checked(10)?;
    let (_, size) = body.split_last_chunk::<4>()?;
    if body.len() < 18 || memchr::memmem::find(after, &[0x1f, 0x8b, 0x08]).is_some() {
        return None;
    }
    let size = u32::from_le_bytes(*size) as usize;
    (size <= body.len().saturating_mul(DEFLATE_RATIO)).then_some(size)
}

fn gzip_members(body: &[u8], out: &mut Output<'_>) -> Result<(), InflateError> {
    if body.is_empty() {
        return Err(malformed("an empty body is no gzip stream"));
    }
    out.expect(body.len().saturating_mul(4))?;
    out.read_from(flate2::bufread::MultiGzDecoder::new(body))
}

/// Whether a body starts as RFC 1950 says; HTTP's `deflate` is sent both with and without.
fn has_zlib_header(body: &[u8]) -> bool {
    matches!(body, [a, b, ..] if a & 0x0f == 8 && a >> 4 <= 7 && (u16::from(*a) << 8 | u16::from(*b)) % 31 == 0)
}

/// Frames put end to end, skippable ones among them.
fn zstd_frames(
    context: &mut DCtx<'static>,
    body: &[u8],
    out: &mut Output<'_>,
    touched: &mut usize,
) -> Result<(), InflateError> {
    if body.is_empty() {
        return Err(malformed("an empty body is no zstd stream"));
    }
    let size = zstd_safe::get_frame_content_size(body).map_err(|_| malformed("not a zstd frame"))?;
    if let Some(size) = size {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if size > out.limit {
            return Err(InflateError::TooLarge { limit: out.limit });
        }
        // A frame that fills the body and knows its size is decoded in one piece and needs no window.
        if zstd_safe::find_frame_compressed_size(body) == Ok(body.len()) {
            out.reserve_exact(size)?;
            context.decompress(&mut out.buf, body).map_err(zstd_malformed)?;
            return Ok(());
        }
    }
    context.reset(ResetDirective::SessionAndParameters).map_err(zstd_malformed)?;
    context.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG)).map_err(zstd_malformed)?;
    out.expect(body.len().saturating_mul(6))?;
    let mut source = InBuffer::around(body);
    let mut window = Reserved { lease: out.reserved.lease, bytes: 0 };
    let mut frame_open = false;
    while source.pos() < body.len() || frame_open {
        if !frame_open {
            let need = zstd_window(body.get(source.pos()..).unwrap_or_default());
            if need > window.bytes {
                window.grow(need - window.bytes)?;
            }
        }
        out.room()?;
        let (read, written) = (source.pos(), out.buf.len());
        let mut sink = OutBuffer::around_pos(&mut out.buf, written);
        let hint = context.decompress_stream(&mut sink, &mut source).map_err(zstd_malformed)?;
        frame_open = hint != 0;
        *touched = window.bytes.min(out.buf.len());
        if source.pos() == read && out.buf.len() == written && out.has_room() {
            return Err(malformed("the stream ends too early"));
        }
    }
    Ok(())
}

/// The memory a frame's window takes, from its header (RFC 8878, 3.1.1); 0 for skippable and broken frames, about
/// which the decoder has its own opinion. Windows beyond the maximum are refused there too.
fn zstd_window(frame: &[u8]) -> usize {
    let [0x28, 0xb5, 0x2f, 0xfd, descriptor, rest @ ..] = frame else { return 0 };
    let single_segment = descriptor & 0x20 != 0;
    let window = if single_segment {
        zstd_safe::get_frame_content_size(frame).ok().flatten().unwrap_or_default()
    } else {
        let byte = rest.first().copied().unwrap_or_default();
        let base = 1u64 << (10 + (byte >> 3));
        base + base / 8 * u64::from(byte & 7)
    };
    usize::try_from(window).unwrap_or(usize::MAX).min(1 << ZSTD_WINDOW_LOG)
}

fn snappy_framed(body: &[u8], out: &mut Output<'_>) -> Result<(), InflateError> {
    if body.is_empty() {
        return Err(malformed("an empty body is no snappy stream"));
    }
    // The decoder's two buffers of one chunk each.
    let mut buffers = Reserved { lease: out.reserved.lease, bytes: 0 };
    buffers.grow(160 << 10)?;
    out.expect(body.len().saturating_mul(4))?;
    out.read_from(snap::read::FrameDecoder::new(body))
}

/// Frames put end to end. Each frame is walked before the decoder sees it: its header says how much the decoder
/// will allocate, and the decoder itself takes a frame without an end for a complete one.
fn lz4(body: &[u8], out: &mut Output<'_>) -> Result<(), InflateError> {
    let mut rest = body;
    if rest.is_empty() {
        return Err(malformed("an empty body is no lz4 stream"));
    }
    for _ in 0..LZ4_FRAMES {
        if rest.is_empty() {
            return Ok(());
        }
        let frame = lz4_frame(rest).ok_or_else(|| malformed("not an lz4 frame, or it ends too early"))?;
        let mut buffers = Reserved { lease: out.reserved.lease, bytes: 0 };
        buffers.grow(frame.buffers)?;
        let (bytes, after) = rest.split_at_checked(frame.len).unwrap_or_default();
        out.expect(out.buf.len() + bytes.len().saturating_mul(4))?;
        out.read_from(lz4_flex::frame::FrameDecoder::new(bytes))?;
        rest = after;
    }
    if rest.is_empty() { Ok(()) } else { Err(malformed("too many lz4 frames in one body")) }
}

/// What an lz4 frame's outside says about it.
struct Lz4Frame {
    /// From the magic number to the last checksum.
    len: usize,
    /// What the decoder allocates: one block of input, and two of output with a window between them.
    buffers: usize,
}

fn lz4_frame(bytes: &[u8]) -> Option<Lz4Frame> {
    const WINDOW: usize = 64 << 10;
    let [0x04, 0x22, 0x4d, 0x18, flags, sizes, ..] = bytes else { return None };
    let has = |bit: u8| usize::from(flags >> bit & 1);
    // Block checksums, content size, content checksum, dictionary id.
    let (per_block, header, trailer) = (4 + 4 * has(4), 7 + 8 * has(3) + 4 * has(0), 4 + 4 * has(2));
    let mut rest = bytes.get(header..)?;
    loop {
        let size = u32::from_le_bytes(*rest.first_chunk()?);
        if size == 0 {
            let after = rest.get(trailer..)?;
            let block = match sizes >> 4 & 7 {
                4 => 64 << 10,
                5 => 256 << 10,
                6 => 1 << 20,
                _ => 4 << 20,
            };
            return Some(Lz4Frame { len: bytes.len() - after.len(), buffers: 3 * block + WINDOW });
        }
        // The highest bit marks a block that is stored as it is.
        rest = rest.get(per_block + (size & 0x7fff_ffff) as usize..)?;
    }
}

impl Reserved<'_> {
    fn grow(&mut self, more: usize) -> Result<(), InflateError> {
        if !self.lease.grow(more) {
            return Err(InflateError::NoMemory);
        }
        self.bytes += more;
        Ok(())
    }

    fn give_back(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.lease.settle(self.lease.bytes().saturating_sub(bytes));
        self.bytes -= bytes;
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

impl Output<'_> {
    /// One byte past the limit: room to see that there is more.
    fn cap(&self) -> usize {
        self.limit.saturating_add(1)
    }

    fn has_room(&self) -> bool {
        self.buf.len() < self.buf.capacity()
    }

    /// Makes the capacity exactly `total`, in the ledger first. Old and new exist together for a moment, so both
    /// are reserved for that moment.
    fn reserve_exact(&mut self, total: usize) -> Result<(), InflateError> {
        let before = self.buf.capacity();
        if total <= before {
            return Ok(());
        }
        self.reserved.grow(total)?;
        self.buf.try_reserve_exact(total - self.buf.len()).map_err(|_| InflateError::NoMemory)?;
        let settled = before + total - self.buf.capacity().min(before + total);
        self.reserved.give_back(settled);
        Ok(())
    }

    /// A first guess at the size, from the size of the input.
    fn expect(&mut self, total: usize) -> Result<(), InflateError> {
        self.reserve_exact(total.clamp(4096, 4 << 20).min(self.cap()))
    }

    /// Ensures that at least one byte can be written, or says that the limit is reached.
    fn room(&mut self) -> Result<(), InflateError> {
        if self.buf.len() > self.limit {
            return Err(InflateError::TooLarge { limit: self.limit });
        }
        if !self.has_room() {
            let double = self.buf.capacity().saturating_mul(2).max(4096);
            self.reserve_exact(double.min(self.cap()))?;
        }
        Ok(())
    }

    /// Takes everything a decoder yields.
    fn read_from(&mut self, mut decoder: impl Read) -> Result<(), InflateError> {
        loop {
            self.room()?;
            let start = self.buf.len();
            let end = self.buf.capacity().min(start + STEP);
            self.buf.resize(end, 0);
            let read = decoder.read(self.buf.get_mut(start..).unwrap_or_default());
            let filled = read.as_ref().map_or(0, |n| *n);
            self.buf.truncate(start + filled);
            match read {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(malformed(&e.to_string())),
            }
        }
    }

    fn clear(&mut self) {
        self.buf = Vec::new();
        self.reserved.give_back(self.reserved.bytes);
    }

    /// The result, without the room that a wrong guess left behind it.
    fn finish(mut self) -> Result<Bytes, InflateError> {
        if self.buf.len() > self.limit {
            return Err(InflateError::TooLarge { limit: self.limit });
        }
        if self.buf.capacity() - self.buf.len() > self.buf.len() / 4 {
            self.buf.shrink_to_fit();
            let spare = self.reserved.bytes.saturating_sub(self.buf.capacity());
            self.reserved.give_back(spare);
        }
        // What is kept stays reserved: the lease outlives this.
        self.reserved.bytes = 0;
        Ok(Bytes::from(self.buf))
    }
}

fn malformed(why: &str) -> InflateError {
    InflateError::Malformed(why.to_owned())
}

fn zstd_malformed(code: usize) -> InflateError {
    InflateError::Malformed(zstd_safe::get_error_name(code).to_owned())
}
