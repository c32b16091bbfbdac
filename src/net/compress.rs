//! Compression of request bodies and gRPC messages, in both directions.
//!
//! Promises: [`inflate`] never holds more than `limit` bytes of output, and reserves every byte it allocates in
//! the ledger before it allocates it, so a bomb costs its sender a refusal and us a bounded moment. [`deflate`]
//! reads a rope's pieces where they lie if the codec can.
//!
//! Costs: codec contexts live in thread-locals, so a request allocates its output and nothing else. Defaults are
//! the fastest levels: telemetry is repetitive, and the second-best ratio costs several times the CPU.

mod deflate;
mod inflate;

use bytes::Bytes;

pub use deflate::{deflate, validate_level};
pub use inflate::inflate;

/// A compression format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// RFC 1952; several members put end to end are one stream.
    Gzip,
    /// RFC 1950.
    Zlib,
    /// HTTP's `deflate`: written as a zlib stream; a bare RFC 1951 stream is read too.
    Deflate,
    /// RFC 8878.
    Zstd,
    /// Snappy's block format; over HTTP the framed format is recognised by its header and read too.
    Snappy,
    /// Snappy's framed format.
    SnappyFramed,
    /// LZ4's frame format.
    Lz4,
}

impl Codec {
    /// The codec of a `Content-Encoding`, `grpc-encoding` or `compression` value: `Some(None)` for no
    /// compression, `None` for a name nobody knows. Case matters not.
    pub fn from_encoding(name: &str) -> Option<Option<Codec>> {
        const NAMES: [(&str, Option<Codec>); 11] = [
            ("", None),
            ("identity", None),
            ("none", None),
            ("gzip", Some(Codec::Gzip)),
            ("x-gzip", Some(Codec::Gzip)),
            ("zstd", Some(Codec::Zstd)),
            ("zlib", Some(Codec::Zlib)),
            ("deflate", Some(Codec::Deflate)),
            ("snappy", Some(Codec::Snappy)),
            ("x-snappy-framed", Some(Codec::SnappyFramed)),
            ("lz4", Some(Codec::Lz4)),
        ];
        NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, codec)| *codec)
    }

    /// The name on the wire and in the config file.
    pub const fn name(self) -> &'static str {
        match self {
            Codec::Gzip => "gzip",
            Codec::Zlib => "zlib",
            Codec::Deflate => "deflate",
            Codec::Zstd => "zstd",
            Codec::Snappy => "snappy",
            Codec::SnappyFramed => "x-snappy-framed",
            Codec::Lz4 => "lz4",
        }
    }
}

/// Why a body could not be decompressed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InflateError {
    /// It is larger than allowed; sending it again cannot help.
    #[error("the decompressed body exceeds the limit of {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The ledger has no room now; the client may try again.
    #[error("not enough memory to decompress the body now")]
    NoMemory,
    /// It is not what its encoding says.
    #[error("malformed compressed body: {0}")]
    Malformed(String),
}

/// The chunk that opens a framed snappy stream.
const SNAPPY_STREAM: &[u8] = b"\xff\x06\x00\x00sNaPpY";

/// Several ranges as one: free for a single piece.
fn contiguous(pieces: &[Bytes]) -> Bytes {
    match pieces {
        [] => Bytes::new(),
        [one] => one.clone(),
        many => {
            let mut out = Vec::with_capacity(many.iter().map(Bytes::len).sum());
            many.iter().for_each(|piece| out.extend_from_slice(piece));
            Bytes::from(out)
        }
    }
}

#[cfg(test)]
mod tests;
