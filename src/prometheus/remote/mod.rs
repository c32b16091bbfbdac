//! Remote write: OTLP metrics as requests of version 1.0 or 2.0, from the bytes.
//!
//! A steady series is recognised by a hash of its raw bytes (resource, scope, metric, attributes) and its finished
//! labels are copied from a cache; only the sample is written. A series that is not known takes the long way through
//! [`Mapper`], which is the specification; both ways give the same bytes (tests compare them).
//!
//! Promises:
//! * all series that can ever have the same labels are on one shard, whatever metric they come from: the shard is
//!   a hash of the labels without `__name__`, `le` and `quantile`;
//! * within a shard the samples of one series ascend in time; one that does not is dropped and counted;
//! * every data point is one item: sent as a whole, or dropped for a reason;
//! * caches have a cap in bytes; what one batch brings may pass it until the next batch.
//!
//! Costs, a steady number: one pass over its fields, one hash of its attributes, two look-ups, one copy of its
//! labels. See `docs/benchmarks.md`.

mod body;
mod cache;
mod encoder;
mod families;
mod gauges;
mod groups;
mod negotiation;
mod open;
mod pen;
mod points;
mod series;
mod snappy;
mod sums;
mod target;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::Arc;
use std::time::Duration;

pub use self::body::{Counts, Version, WriteBody};
pub use self::encoder::{CacheFigures, RemoteEncoder};
pub use self::negotiation::Negotiation;
use super::delta::Limits;
use super::map::MapOptions;

/// What a late or repeated sample is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutOfOrder {
    /// Dropped and counted: a receiver without an out-of-order window would refuse the whole request for it.
    Drop,
    /// Sent: the receiver has such a window.
    Keep,
}

/// What an exponential histogram becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exponential {
    /// A native histogram.
    Native,
    /// Classic buckets.
    Classic,
}

/// How requests are made.
#[derive(Debug, Clone)]
pub struct RemoteOptions {
    /// How metrics are mapped.
    pub map: MapOptions,
    /// Which version to send.
    pub negotiation: Arc<Negotiation>,
    /// How many lines of requests there are.
    pub shards: usize,
    /// The size of a request before compression, in bytes. Only a single data point that is larger than a sixteenth
    /// of it can pass it.
    pub max_bytes: usize,
    /// The cap of the caches, in bytes.
    pub cache_bytes: usize,
    /// What becomes of samples that are not newer than the last one of their series.
    pub out_of_order: OutOfOrder,
    /// Samples older than this are dropped; zero is no limit.
    pub sample_age_limit: Duration,
    /// What exponential histograms become.
    pub exponential: Exponential,
    /// Whether histograms become native ones with custom buckets. 2.0 only: in 1.0 they stay classic.
    pub custom_buckets: bool,
    /// Whether such histograms are sent in the classic form too.
    pub keep_classic: bool,
    /// Whether 1.0 sends the metadata of metrics, in requests of their own.
    pub metadata: bool,
    /// Whether the senders of the data wait for its delivery, and send again what was not delivered.
    pub senders_wait: bool,
    /// Request metadata keys by which data is kept apart.
    pub partition_keys: Vec<String>,
    /// Bounds for adding up delta temporality; `None` drops it.
    pub delta: Option<Limits>,
}
