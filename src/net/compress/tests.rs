//! Compression: every codec both ways, bombs against the ledger, damaged input.

use std::io::Write;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::pdata::Rope;
use crate::pipeline::Ledger;

const ALL: [Codec; 7] =
    [Codec::Gzip, Codec::Zlib, Codec::Deflate, Codec::Zstd, Codec::Snappy, Codec::SnappyFramed, Codec::Lz4];

const MIB: usize = 1 << 20;

/// What inflating costs beyond its output: the decoder's own buffers.
const OVERHEAD: usize = 13 * MIB;

fn inflated(codec: Codec, body: &[u8], limit: usize) -> Result<Vec<u8>, InflateError> {
    let ledger = Ledger::new(256 * MIB);
    let lease = ledger.reserve(10).unwrap();
    let result = inflate(codec, &[Bytes::copy_from_slice(body)], limit, &lease);
    match &result {
        Ok(bytes) => assert!(lease.bytes() >= 10 + bytes.len(), "{codec:?}: output that is not reserved"),
        Err(_) => assert_eq!(lease.bytes(), 10, "{codec:?}: a failure keeps memory"),
    }
    assert!(ledger.peak() <= 10 + 3 * limit.max(64 << 10) + OVERHEAD, "{codec:?}: {}", ledger.peak());
    result.map(|b| b.to_vec())
}

fn packed(codec: Codec, level: Option<i32>, plain: &[u8]) -> Bytes {
    deflate(codec, level, &Rope::from(plain.to_vec())).unwrap()
}

/// Telemetry-like bytes: repetitive, with some noise.
fn telemetry(len: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut out = Vec::new();
    while out.len() < len {
        out.extend_from_slice(b"service.name frontend http.route /api/v1/orders ");
        out.extend_from_slice(&rng.u64(..).to_le_bytes());
    }
    out.truncate(len);
    out
}

fn pieces(plain: &[u8], size: usize) -> Rope {
    let mut rope = Rope::new();
    plain.chunks(size.max(1)).for_each(|c| rope.push(Bytes::copy_from_slice(c)));
    rope
}

#[test]
fn every_codec_gives_back_what_it_was_given() {
    let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(300_000).collect();
    let inputs = [Vec::new(), b"x".to_vec(), telemetry(250_000), noise, vec![0; MIB]];
    for codec in ALL {
        for plain in &inputs {
            for piece in [plain.len(), 1000, 70_000] {
                let body = deflate(codec, None, &pieces(plain, piece)).unwrap();
                assert!(
                    inflated(codec, &body, plain.len()).as_ref() == Ok(plain),
                    "{codec:?} {}",
                    plain.len()
                );
                // The body as it comes off a socket.
                let ledger = Ledger::new(64 * MIB);
                let lease = ledger.reserve(0).unwrap();
                let frames: Vec<Bytes> = body.chunks(999).map(Bytes::copy_from_slice).collect();
                let out = inflate(codec, &frames, plain.len(), &lease).unwrap();
                assert!(out == plain[..], "{codec:?}");
                assert!(lease.bytes() <= plain.len() * 5 / 4 + 1, "{codec:?}: kept more than the output");
            }
        }
    }
}

#[test]
fn every_valid_level_works_and_the_others_are_refused() {
    let plain = telemetry(100_000);
    for codec in ALL {
        for level in [-200_000, -7, -3, -2, -1, 0, 1, 2, 5, 9, 10, 22, 23, i32::MAX] {
            let valid = match codec {
                Codec::Gzip | Codec::Zlib | Codec::Deflate => (-2..=9).contains(&level),
                Codec::Zstd => true,
                _ => level == 0,
            };
            match validate_level(codec, level) {
                Ok(()) => {
                    assert!(valid, "{codec:?} {level}");
                    let body = packed(codec, Some(level), &plain);
                    assert!(inflated(codec, &body, plain.len()) == Ok(plain.clone()), "{codec:?} {level}");
                }
                Err(why) => {
                    assert!(!valid, "{codec:?} {level}");
                    let want = format!(
                        "unsupported parameters {{Level:{level}}} for compression type \"{}\"",
                        codec.name()
                    );
                    assert_eq!(why, want);
                }
            }
        }
    }
    let size = |level| packed(Codec::Gzip, Some(level), &plain).len();
    assert!(size(0) > plain.len() && size(1) < plain.len() / 2 && size(9) <= size(1));
}

#[test]
fn the_limit_is_exact() {
    for codec in ALL {
        for size in [1, 5000, MIB / 2] {
            let plain = telemetry(size);
            let body = packed(codec, None, &plain);
            assert!(inflated(codec, &body, size).is_ok(), "{codec:?}");
            let limit = size - 1;
            assert_eq!(
                inflated(codec, &body, limit),
                Err(InflateError::TooLarge { limit }),
                "{codec:?} {size}"
            );
        }
    }
}

/// 8 MiB of zeros, compressed as well as the codec can, with and without the size in the header.
fn bombs() -> Vec<(Codec, Vec<u8>)> {
    let zeros = vec![0; 8 * MIB];
    let mut out: Vec<_> = ALL.into_iter().map(|c| (c, packed(c, None, &zeros).to_vec())).collect();
    let mut unsized_zstd = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    unsized_zstd.include_contentsize(false).unwrap();
    unsized_zstd.write_all(&zeros).unwrap();
    out.push((Codec::Zstd, unsized_zstd.finish().unwrap()));
    let member = packed(Codec::Gzip, None, &zeros[..MIB]);
    out.push((Codec::Gzip, member.repeat(8)));
    // The trailer lies: the size is taken from the last member only.
    let mut liar = packed(Codec::Gzip, None, &zeros).to_vec();
    let at = liar.len() - 4;
    liar[at..].copy_from_slice(&5u32.to_le_bytes());
    out.push((Codec::Gzip, liar));
    out.push((Codec::Deflate, packed(Codec::Zlib, None, &zeros)[2..].to_vec()));
    out.push((Codec::Snappy, packed(Codec::SnappyFramed, None, &zeros).to_vec()));
    out
}

#[test]
fn bombs_are_bounded_by_the_ledger_and_by_the_limit() {
    for (i, (codec, body)) in bombs().into_iter().enumerate() {
        let body = [Bytes::from(body)];
        let ledger = Ledger::new(3 * MIB);
        let lease = ledger.reserve(0).unwrap();
        assert_eq!(inflate(codec, &body, 128 * MIB, &lease), Err(InflateError::NoMemory), "{i} {codec:?}");
        assert!(ledger.peak() <= 3 * MIB);
        assert_eq!((ledger.used(), lease.bytes()), (0, 0), "{i} {codec:?}: memory was not given back");

        let result = inflated(codec, &body[0], MIB);
        assert_eq!(result, Err(InflateError::TooLarge { limit: MIB }), "{i} {codec:?}");
    }
}

#[test]
fn claims_are_checked_before_anything_is_allocated() {
    // Each claims about a gigabyte in a few bytes.
    let cases: [(Codec, &[u8]); 4] = [
        (Codec::Snappy, b"\x80\x80\x80\x80\x04\x00x"),
        (Codec::Gzip, b"\x1f\x8b\x08\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\0\x40"),
        (Codec::Zstd, b"\x28\xb5\x2f\xfd\xa0\0\0\0\x40\x01\0\0"),
        // A window of 2 GiB.
        (Codec::Zstd, b"\x28\xb5\x2f\xfd\x00\xa8\x01\0\0"),
    ];
    for (codec, body) in cases {
        let ledger = Ledger::new(usize::MAX);
        let lease = ledger.reserve(0).unwrap();
        let result = inflate(codec, &[Bytes::from_static(body)], 32 * MIB, &lease);
        assert!(result.is_err(), "{codec:?}");
        assert!(ledger.peak() <= 9 * MIB, "{codec:?}: {}", ledger.peak());
    }
}

#[test]
fn broken_bodies_are_errors() {
    let plain = telemetry(3_000);
    for codec in ALL {
        let body = packed(codec, None, &plain);
        for end in 0..body.len() {
            // Framed snappy has no end: a stream cut between two chunks is a shorter stream.
            if codec == Codec::SnappyFramed && end >= 10 {
                continue;
            }
            assert!(inflated(codec, &body[..end], MIB).is_err(), "{codec:?} cut at {end} of {}", body.len());
        }
        assert!(inflated(codec, b"neither compressed nor short", MIB).is_err(), "{codec:?}");
    }
    for codec in [Codec::Gzip, Codec::Zlib, Codec::Zstd, Codec::Lz4, Codec::Snappy] {
        let mut body = packed(codec, None, &plain).to_vec();
        body.extend_from_slice(b"trailing garbage");
        assert!(inflated(codec, &body, MIB).is_err(), "{codec:?} ignores what follows the stream");
    }
}

#[test]
fn streams_put_end_to_end_are_one_stream() {
    let (a, b) = (telemetry(1000), telemetry(3000));
    for codec in [Codec::Gzip, Codec::Zstd, Codec::Lz4, Codec::SnappyFramed] {
        for (first, second) in [(&a, &b), (&b, &a), (&a, &a)] {
            let body = [packed(codec, None, first), packed(codec, None, second)].concat();
            let want = [first.as_slice(), second].concat();
            assert!(inflated(codec, &body, MIB) == Ok(want), "{codec:?}");
        }
    }
}

#[test]
fn other_writers_are_understood() {
    let plain = telemetry(100_000);
    // A raw deflate stream under HTTP's `deflate`.
    let mut raw = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    raw.write_all(&plain).unwrap();
    assert!(inflated(Codec::Deflate, &raw.finish().unwrap(), MIB) == Ok(plain.clone()));
    // gzip with a name and a comment, which may look like the start of another member.
    let mut gzip = flate2::GzBuilder::new()
        .filename(&b"\x1f\x8b\x08"[..])
        .comment("x")
        .write(Vec::new(), flate2::Compression::default());
    gzip.write_all(&plain).unwrap();
    assert!(inflated(Codec::Gzip, &gzip.finish().unwrap(), MIB) == Ok(plain.clone()));
    // zstd without a size, as streaming encoders write it, with flushed blocks and a checksum.
    let mut zstd = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    zstd.include_contentsize(false).unwrap();
    zstd.include_checksum(true).unwrap();
    for chunk in plain.chunks(1000) {
        zstd.write_all(chunk).unwrap();
        zstd.flush().unwrap();
    }
    assert!(inflated(Codec::Zstd, &zstd.finish().unwrap(), MIB) == Ok(plain.clone()));
    // Framed snappy under the name of the block format.
    assert!(inflated(Codec::Snappy, &packed(Codec::SnappyFramed, None, &plain), MIB) == Ok(plain.clone()));
    // lz4 with every option.
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    for mode in [BlockMode::Linked, BlockMode::Independent] {
        for block in [BlockSize::Max64KB, BlockSize::Max4MB] {
            let info = FrameInfo::new()
                .block_mode(mode)
                .block_size(block)
                .block_checksums(true)
                .content_checksum(true)
                .content_size(Some(plain.len() as u64));
            let mut lz4 = FrameEncoder::with_frame_info(info, Vec::new());
            lz4.write_all(&plain).unwrap();
            assert!(inflated(Codec::Lz4, &lz4.finish().unwrap(), MIB) == Ok(plain.clone()));
        }
    }
}

#[test]
fn what_we_write_others_understand() {
    use std::io::Read;
    let plain = telemetry(100_000);
    for level in -2..=9 {
        let mut out = Vec::new();
        let body = packed(Codec::Gzip, Some(level), &plain);
        flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut out).unwrap();
        assert!(out == plain, "gzip {level}");
        out.clear();
        let body = packed(Codec::Deflate, Some(level), &plain);
        flate2::read::ZlibDecoder::new(&body[..]).read_to_end(&mut out).unwrap();
        assert!(out == plain, "deflate {level}");
    }
    assert!(zstd::stream::decode_all(&packed(Codec::Zstd, None, &plain)[..]).unwrap() == plain);
    // The size is in the frame, also when the rope has several pieces.
    let many = deflate(Codec::Zstd, None, &pieces(&plain, 999)).unwrap();
    assert_eq!(zstd::zstd_safe::get_frame_content_size(&many).unwrap(), Some(plain.len() as u64));
}

#[test]
fn frames_that_cost_more_than_they_hold_are_bounded() {
    let frame = packed(Codec::Lz4, None, b"x");
    assert!(inflated(Codec::Lz4, &frame.repeat(64), MIB) == Ok(vec![b'x'; 64]));
    assert!(matches!(inflated(Codec::Lz4, &frame.repeat(65), MIB), Err(InflateError::Malformed(_))));
}

#[test]
fn names() {
    for codec in ALL {
        assert_eq!(Codec::from_encoding(codec.name()), Some(Some(codec)));
    }
    for none in ["", "identity", "none", "IDENTITY"] {
        assert_eq!(Codec::from_encoding(none), Some(None));
    }
    assert_eq!(Codec::from_encoding("GZip"), Some(Some(Codec::Gzip)));
    assert_eq!(Codec::from_encoding("br"), None);
}

proptest! {
    /// Any bytes, and any damage to a valid body: an answer at bounded memory, never a panic.
    #[test]
    fn any_bytes_get_an_answer(
        noise in proptest::collection::vec(any::<u8>(), 0..300),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        size in 0usize..20_000,
    ) {
        let plain = telemetry(size);
        for codec in ALL {
            let _ = inflated(codec, &noise, 100_000);
            let mut body = packed(codec, None, &plain).to_vec();
            for (at, byte) in &damage {
                let at = at.index(body.len());
                body[at] = *byte;
            }
            let _ = inflated(codec, &body, 100_000);
        }
    }
}
