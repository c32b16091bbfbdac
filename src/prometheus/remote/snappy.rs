//! Snappy's block format, piece by piece.
//!
//! A block is the length of what it holds, then elements that refer back into it by distance. So elements can be
//! made of each piece by itself and put end to end behind the length of the whole; with pieces of the size in which
//! the library works anyway, the result is what it makes of the whole.

use crate::pdata::wire::varint_len;

/// The piece in which the library compresses: references never reach further back.
pub(super) const BLOCK: usize = 1 << 16;

/// A compressor with its table and its buffer.
pub(super) struct Snappy {
    encoder: snap::raw::Encoder,
    buffer: Vec<u8>,
}

impl Default for Snappy {
    fn default() -> Self {
        let buffer = vec![0; snap::raw::max_compress_len(BLOCK)];
        Snappy { encoder: snap::raw::Encoder::new(), buffer }
    }
}

impl Snappy {
    /// Appends the elements for `bytes`, without a length before them.
    pub fn append(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for piece in bytes.chunks(BLOCK) {
            // The buffer has room for any piece, which is all that can be wrong.
            if let Ok(len) = self.encoder.compress(piece, &mut self.buffer) {
                let elements = self.buffer.get(varint_len(piece.len() as u64)..len);
                out.extend_from_slice(elements.unwrap_or_default());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pdata::wire::put_varint;

    #[test]
    fn pieces_are_what_the_whole_is() {
        let mut rng = fastrand::Rng::with_seed(1);
        for len in [0, 1, 100, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 3 * BLOCK + 17] {
            let bytes: Vec<u8> = (0..len).map(|_| rng.u8(..4)).collect();
            let mut out = Vec::new();
            put_varint(&mut out, len as u64);
            Snappy::default().append(&bytes, &mut out);
            assert_eq!(out, snap::raw::Encoder::new().compress_vec(&bytes).unwrap(), "{len}");
        }
    }
}
