//! Telemetry in flight, as bytes. The only module that knows protobuf tags, varints and length prefixes.
//!
//! A [`Batch`] carries one valid `Export{Traces,Metrics,Logs}ServiceRequest` as a [`Rope`] of shared byte
//! ranges. Nothing here decodes into owned structs: views are cursors on the stack, edits are splices.

mod batch;
mod check;
pub mod common;
mod count;
pub mod fields;
pub mod json;
pub mod logs;
pub mod metrics;
#[cfg(test)]
pub mod oracle;
pub mod partition;
pub mod rope;
pub mod split;
pub mod template;
mod tenant;
#[cfg(test)]
pub mod testgen;
pub mod traces;
pub mod wire;

pub use batch::{Batch, ClientCertificate, ClientInfo, Signal};
pub use check::{MAX_VALUE_DEPTH, check};
pub use count::count;
pub(crate) use count::{count_metric, count_resource, count_scope};
pub use rope::{Rope, RopeBuilder};
pub use split::{halve, split_bytes, split_items};
pub use tenant::Tenant;
