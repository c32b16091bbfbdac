//! What the fuzz targets share: how an input becomes a request, and the answers to compare with.
//!
//! A new target is a file in `fuzz_targets/` and a `[[bin]]` in `Cargo.toml`. `cargo +nightly fuzz run NAME`
//! runs it. Targets assert that an answer is right, by prost or by slow obvious code, not only that there is
//! no panic.

#[path = "../../src/prometheus/names/naive.rs"]
pub mod naive_names;
#[path = "../../src/pdata/oracle.rs"]
pub mod oracle;

use bytes::Bytes;
use tidegate::pdata::{Rope, Signal};
use tidegate::prometheus::names::{Shape, TranslationStrategy};

/// An input as three numbers to choose with, a signal and a request.
pub struct Input<'a> {
    /// What kind of request it is.
    pub signal: Signal,
    /// A size to cut at, 1 to 256.
    pub size: usize,
    /// How long the pieces of a rope are, 1 to 256.
    pub piece: usize,
    /// The request; any bytes.
    pub request: &'a [u8],
}

impl<'a> Input<'a> {
    /// `None` when there are too few bytes.
    pub fn new(data: &'a [u8]) -> Option<Self> {
        let [signal, size, piece, request @ ..] = data else { return None };
        Some(Input {
            signal: Signal::ALL[usize::from(*signal) % 3],
            size: usize::from(*size) + 1,
            piece: usize::from(*piece) + 1,
            request,
        })
    }

    /// The request in pieces of equal length.
    pub fn rope(&self) -> Rope {
        let mut rope = Rope::new();
        self.request.chunks(self.piece).for_each(|p| rope.push(Bytes::copy_from_slice(p)));
        rope
    }
}
