//! A rope as a request body: its pieces in order, its length known.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use smallvec::SmallVec;

use crate::pdata::Rope;

/// Yields the pieces where they lie.
pub(super) struct RopeBody {
    /// Still to be sent, last first.
    pieces: SmallVec<[Bytes; 2]>,
    remaining: usize,
}

impl RopeBody {
    pub fn new(rope: Rope) -> Self {
        let remaining = rope.len();
        let mut pieces = rope.into_pieces();
        pieces.reverse();
        RopeBody { pieces, remaining }
    }

    pub fn len(&self) -> usize {
        self.remaining
    }

    /// The body as reqwest takes it. One piece is handed over as it is, which lets a request be repeated on
    /// another connection when the one it was given turns out to be closed.
    pub fn into_body(mut self) -> reqwest::Body {
        match self.pieces.len() {
            0 => reqwest::Body::from(Bytes::new()),
            1 => reqwest::Body::from(self.pieces.pop().unwrap_or_default()),
            _ => reqwest::Body::wrap(self),
        }
    }
}

impl Body for RopeBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(piece) = self.pieces.pop() else { return Poll::Ready(None) };
        self.remaining -= piece.len();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining as u64)
    }
}
