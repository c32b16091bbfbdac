//! What the agent says about itself.

mod metrics;

pub use metrics::{Counter, ExporterItems, Metrics, ReceiverItems, dropped};
