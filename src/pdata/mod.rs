//! Telemetry in flight, as bytes. The only module that knows protobuf tags, varints and length prefixes.
//!
//! A [`Batch`] carries one valid `Export{Traces,Metrics,Logs}ServiceRequest` as a [`Rope`] of shared byte
//! ranges. Nothing here decodes into owned structs: views are cursors on the stack, edits are splices.

mod batch;
mod check;
mod count;
pub mod fields;
pub mod json;
pub mod rope;
pub mod split;
#[cfg(test)]
pub mod testgen;
pub mod wire;

pub use batch::{Batch, ClientInfo, Signal};
pub use check::check;
pub use count::count;
pub use rope::{Rope, RopeBuilder};
pub use split::{halve, split_bytes, split_items};
