//! OTLP/JSON to protobuf bytes and back, without objects in between.
//!
//! [`decode`] reads leniently: lowerCamelCase and snake_case names, enum names and integers, 64-bit integers as
//! strings or numbers, unknown members ignored at any depth, `null` as absence. A member that occurs twice has
//! protobuf's meaning: the last scalar wins, messages merge, lists append. [`encode`] writes strictly, as the
//! OTLP specification says.
//!
//! Both walk one table a message ([`schema`]) and cost linear time in their input. Recursion is bounded by
//! [`Limits::depth`]; decoding needs memory for its output only, which is at most about four times the input
//! (`1,` in a list of doubles becomes eight bytes).

mod decode;
mod encode;
mod lex;
mod schema;
#[cfg(test)]
mod tests;

use std::fmt;

pub use decode::decode;
pub use encode::encode;
pub(crate) use encode::{put_any_value, put_double, put_hex};

/// How deep attribute values and bodies may nest, in both directions.
pub const MAX_DEPTH: u32 = 64;

/// What a document may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How deep AnyValues, and unknown members, may nest.
    pub depth: u32,
    /// The most bytes of protobuf a document may become.
    pub output: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { depth: MAX_DEPTH, output: usize::MAX }
    }
}

/// Why a document cannot be an OTLP request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonError {
    /// Byte offset of the fault.
    pub offset: usize,
    /// Line of the fault, from 1.
    pub line: usize,
    /// Column of the fault in bytes, from 1.
    pub column: usize,
    /// Which limit was exceeded, if that is the reason.
    pub limit: Option<Limit>,
    /// The members that lead to the fault, such as `resourceSpans[0].scopeSpans[2].spans[1].traceId`.
    pub path: String,
    /// What was expected or is wrong.
    pub message: String,
}

/// The limit that a document exceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// [`Limits::depth`].
    Depth,
    /// [`Limits::output`].
    Output,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: ", self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for JsonError {}
