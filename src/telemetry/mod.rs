//! What the agent says about itself.

pub mod logs;
mod metrics;
pub mod process;
pub mod server;

pub use metrics::{Counter, ExporterItems, Metrics, ReceiverItems, dropped};
