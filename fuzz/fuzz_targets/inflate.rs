//! Any bytes under any encoding: an answer within the limit, at memory that the ledger knows of, and given back
//! on failure. What we compress comes back as it was.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tidegate::net::compress::{Codec, deflate, inflate};
use tidegate::pipeline::Ledger;
use tidegate_fuzz::Input;

const CODECS: [Codec; 7] =
    [Codec::Gzip, Codec::Zlib, Codec::Deflate, Codec::Zstd, Codec::Snappy, Codec::SnappyFramed, Codec::Lz4];
const LIMIT: usize = 1 << 20;
/// Twice the output while it grows, and the decoders' own buffers.
const MEMORY: usize = 3 * LIMIT + (13 << 20);

fuzz_target!(|data: &[u8]| {
    let Some(input) = Input::new(data) else { return };
    let codec = CODECS[input.size % CODECS.len()];
    let ledger = Ledger::new(usize::MAX);
    let Some(lease) = ledger.reserve(0) else { return };
    let pieces: Vec<Bytes> = input.request.chunks(input.piece).map(Bytes::copy_from_slice).collect();
    match inflate(codec, &pieces, LIMIT, &lease) {
        Ok(out) => assert!(out.len() <= LIMIT && lease.bytes() >= out.len()),
        Err(_) => assert_eq!(lease.bytes(), 0),
    }
    assert!(ledger.peak() <= MEMORY + input.request.len());

    lease.settle(0);
    let Ok(packed) = deflate(codec, None, &input.rope()) else { panic!("{codec:?} refuses to compress") };
    let back = inflate(codec, &[packed], input.request.len(), &lease);
    assert_eq!(back.as_deref(), Ok(input.request), "{codec:?}");
});
