//! Connectors: the end of some pipelines and the beginning of others.
//!
//! A connector is a [`Consumer`] like an exporter, and hands what it gets to the entries of pipelines, on the same
//! task and at once: it keeps nothing, so it needs no flush and no timer. Whoever waits for a batch waits for all the
//! pipelines that get a part of it.

pub mod forward;
pub mod routing;

use std::sync::Arc;

use crate::pipeline::Consumer;

/// A pipeline that lists a connector as a receiver.
#[derive(Clone)]
pub struct Target {
    /// The pipeline's id.
    pub pipeline: String,
    /// The way into it.
    pub entry: Arc<dyn Consumer>,
}

/// A connector for one signal.
pub struct Connector {
    /// Takes what pipelines hand over.
    pub consumer: Arc<dyn Consumer>,
    /// What is missing from its books at the moment, for a connector that may keep something from its pipelines.
    pub gap: Option<Gap>,
}

/// Reads what is missing from the books: 0, or a bug.
pub type Gap = Box<dyn Fn() -> i64 + Send + Sync>;
