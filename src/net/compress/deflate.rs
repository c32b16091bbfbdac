//! The way out: a rope in, one compressed body out.

use std::cell::RefCell;
use std::io::{self, Write};

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress, Status};
use libdeflater::{CompressionLvl, Compressor};
use zstd::zstd_safe::{self, CCtx, CParameter, InBuffer, OutBuffer, ResetDirective};
use zstd_safe::zstd_sys::ZSTD_EndDirective;

use super::Codec;
use crate::pdata::Rope;

/// gzip, zlib and deflate when no level is given: on spans a fifth of the CPU of zlib's customary 6, for a fifth
/// more bytes. `benches/compress.rs` has the numbers.
const DEFAULT_DEFLATE_LEVEL: i32 = 1;

/// zstd when no level is given: as small as gzip at 6, at less than the CPU of gzip at 1.
const DEFAULT_ZSTD_LEVEL: i32 = 1;

/// A thread keeps an output buffer up to this size between requests.
const SCRATCH_KEPT: usize = 1 << 20;

thread_local! {
    static CONTEXTS: RefCell<Contexts> = RefCell::default();
}

/// What one thread reuses from request to request.
#[derive(Default)]
struct Contexts {
    /// zlib-rs at level 1, the fastest there is; one state a container format.
    fast_gzip: Option<Compress>,
    fast_zlib: Option<Compress>,
    /// libdeflate at any other level, where it is several times faster than zlib.
    deflate: Option<(i32, Compressor)>,
    zstd: Option<(i32, CCtx<'static>)>,
    snappy: Option<snap::raw::Encoder>,
    scratch: Vec<u8>,
}

/// Compresses a rope. `level` must have passed [`validate_level`]; `None` and -1 mean the default, and -2
/// (Huffman coding only, in the Collector) means the fastest level there is. Levels of zstd beyond its range mean
/// the nearest one.
///
/// # Errors
/// When a codec refuses its parameters; bytes themselves never fail.
pub fn deflate(codec: Codec, level: Option<i32>, input: &Rope) -> io::Result<Bytes> {
    CONTEXTS.with_borrow_mut(|contexts| match codec {
        Codec::Gzip | Codec::Zlib | Codec::Deflate => contexts.deflate(codec, level, input),
        Codec::Zstd => contexts.zstd(level, input),
        Codec::Snappy => contexts.snappy(input),
        // The encoder would write nothing for nothing, not even the header.
        Codec::SnappyFramed if input.is_empty() => Ok(Bytes::from_static(super::SNAPPY_STREAM)),
        Codec::SnappyFramed => {
            let out = Vec::with_capacity(input.len() / 4 + 64);
            let mut encoder = snap::write::FrameEncoder::new(out);
            for piece in input.pieces() {
                encoder.write_all(piece)?;
            }
            encoder.into_inner().map(Bytes::from).map_err(|e| io::Error::other(e.to_string()))
        }
        Codec::Lz4 => {
            let out = Vec::with_capacity(input.len() / 4 + 64);
            let mut encoder = lz4_flex::frame::FrameEncoder::new(out);
            for piece in input.pieces() {
                encoder.write_all(piece)?;
            }
            Ok(Bytes::from(encoder.finish()?))
        }
    })
}

/// Checks `compression_params.level` for a codec.
///
/// # Errors
/// One sentence for the user.
pub fn validate_level(codec: Codec, level: i32) -> Result<(), String> {
    let valid = match codec {
        Codec::Gzip | Codec::Zlib | Codec::Deflate => (-2..=9).contains(&level),
        Codec::Zstd => true,
        Codec::Snappy | Codec::SnappyFramed | Codec::Lz4 => level == 0,
    };
    if valid {
        return Ok(());
    }
    Err(format!("unsupported parameters {{Level:{level}}} for compression type \"{}\"", codec.name()))
}

impl Contexts {
    fn deflate(&mut self, codec: Codec, level: Option<i32>, input: &Rope) -> io::Result<Bytes> {
        match level {
            None | Some(-1) => self.deflate_at(codec, DEFAULT_DEFLATE_LEVEL, input),
            Some(level) => self.deflate_at(codec, level.clamp(-2, 9), input),
        }
    }

    fn deflate_at(&mut self, codec: Codec, level: i32, input: &Rope) -> io::Result<Bytes> {
        if level == 1 || level < 0 {
            self.deflate_fast(codec, input)
        } else {
            self.deflate_well(codec, level, input)
        }
    }

    fn deflate_fast(&mut self, codec: Codec, input: &Rope) -> io::Result<Bytes> {
        let state = match codec {
            Codec::Gzip => self.fast_gzip.get_or_insert_with(|| Compress::new_gzip(Compression::fast(), 15)),
            _ => self.fast_zlib.get_or_insert_with(|| Compress::new(Compression::fast(), true)),
        };
        state.reset();
        self.scratch.clear();
        self.scratch.reserve(input.len() / 3 + 1024);
        for piece in input.pieces() {
            let start = state.total_in();
            while let Some(rest) = piece.get((state.total_in() - start) as usize..).filter(|r| !r.is_empty())
            {
                if self.scratch.len() == self.scratch.capacity() {
                    self.scratch.reserve(self.scratch.len() / 2 + 1024);
                }
                state
                    .compress_vec(rest, &mut self.scratch, FlushCompress::None)
                    .map_err(|e| refused(e.to_string()))?;
            }
        }
        loop {
            let status = state
                .compress_vec(&[], &mut self.scratch, FlushCompress::Finish)
                .map_err(|e| refused(e.to_string()))?;
            if status == Status::StreamEnd {
                break;
            }
            self.scratch.reserve(self.scratch.len() / 2 + 1024);
        }
        let written = self.scratch.len();
        Ok(self.take_scratch(written))
    }

    /// libdeflate works on one range, so a rope of several pieces is put together first: a copy of 250 KB costs
    /// a hundredth of compressing it.
    fn deflate_well(&mut self, codec: Codec, level: i32, input: &Rope) -> io::Result<Bytes> {
        let mut cached = self.deflate.take().filter(|(cached, _)| *cached == level);
        let (_, compressor) = match &mut cached {
            Some(cached) => cached,
            None => {
                let lvl = CompressionLvl::new(level).map_err(|_| refused(format!("level {level}")))?;
                cached.insert((level, Compressor::new(lvl)))
            }
        };
        let plain = input.to_bytes();
        let bound = match codec {
            Codec::Gzip => compressor.gzip_compress_bound(plain.len()),
            _ => compressor.zlib_compress_bound(plain.len()),
        };
        if self.scratch.len() < bound {
            self.scratch.resize(bound, 0);
        }
        let written = match codec {
            Codec::Gzip => compressor.gzip_compress(&plain, &mut self.scratch),
            _ => compressor.zlib_compress(&plain, &mut self.scratch),
        }
        .map_err(|e| refused(e.to_string()))?;
        self.deflate = cached;
        Ok(self.take_scratch(written))
    }

    fn zstd(&mut self, level: Option<i32>, input: &Rope) -> io::Result<Bytes> {
        let level = level.unwrap_or(DEFAULT_ZSTD_LEVEL);
        let level = level.clamp(zstd_safe::min_c_level(), zstd_safe::max_c_level());
        let mut cached = self.zstd.take().filter(|(cached, _)| *cached == level);
        let (_, context) = match &mut cached {
            Some(cached) => cached,
            None => {
                let mut context = CCtx::try_create().ok_or_else(|| refused("out of memory".to_owned()))?;
                context.set_parameter(CParameter::CompressionLevel(level)).map_err(zstd_refused)?;
                cached.insert((level, context))
            }
        };
        self.scratch.clear();
        self.scratch.reserve(zstd_safe::compress_bound(input.len()));
        match input.pieces() {
            [] => context.compress2(&mut self.scratch, &[]).map_err(zstd_refused)?,
            [one] => context.compress2(&mut self.scratch, one).map_err(zstd_refused)?,
            many => {
                // The size goes into the frame, so that the reader can decode in one piece.
                context.reset(ResetDirective::SessionOnly).map_err(zstd_refused)?;
                context.set_pledged_src_size(Some(input.len() as u64)).map_err(zstd_refused)?;
                let mut out = OutBuffer::around(&mut self.scratch);
                for piece in many {
                    let mut source = InBuffer::around(piece);
                    while source.pos() < piece.len() {
                        let go_on = ZSTD_EndDirective::ZSTD_e_continue;
                        context.compress_stream2(&mut out, &mut source, go_on).map_err(zstd_refused)?;
                    }
                }
                let mut nothing = InBuffer::around(&[]);
                let end = ZSTD_EndDirective::ZSTD_e_end;
                // The buffer has room for the worst case, so the frame ends in a bounded number of calls.
                while context.compress_stream2(&mut out, &mut nothing, end).map_err(zstd_refused)? > 0 {
                    if out.pos() == out.capacity() {
                        return Err(refused("the output exceeds its bound".to_owned()));
                    }
                }
                out.pos()
            }
        };
        self.zstd = cached;
        let written = self.scratch.len();
        Ok(self.take_scratch(written))
    }

    fn snappy(&mut self, input: &Rope) -> io::Result<Bytes> {
        let plain = input.to_bytes();
        let bound = snap::raw::max_compress_len(plain.len());
        if bound == 0 {
            return Err(refused(format!("{} bytes are too many for one block", plain.len())));
        }
        if self.scratch.len() < bound {
            self.scratch.resize(bound, 0);
        }
        let encoder = self.snappy.get_or_insert_with(snap::raw::Encoder::new);
        let written = encoder.compress(&plain, &mut self.scratch).map_err(|e| refused(e.to_string()))?;
        Ok(self.take_scratch(written))
    }

    /// The first `written` bytes of the scratch buffer in an allocation of their own size: a compressed request
    /// may wait in a queue for long, and must not hold the room its worst case would have needed.
    fn take_scratch(&mut self, written: usize) -> Bytes {
        let out = Bytes::copy_from_slice(self.scratch.get(..written).unwrap_or_default());
        if self.scratch.capacity() > SCRATCH_KEPT {
            self.scratch = Vec::new();
        }
        out
    }
}

fn refused(why: String) -> io::Error {
    io::Error::other(format!("cannot compress: {why}"))
}

fn zstd_refused(code: usize) -> io::Error {
    refused(zstd_safe::get_error_name(code).to_owned())
}
