//! Delivery, written once for all exporters: queue, batching, concurrency, retry, pace, drain and the books.
//!
//! An exporter is an [`Encoder`] (pure: one batch to the requests its destination takes) and a [`Sender`] (one
//! attempt at one request). [`Delivery`] puts everything else around them.
//!
//! Promises:
//! * `offered = sent + failed + refused + queued` in items, at all times ([`Delivery::queued_items`]);
//! * memory and acknowledgements of a batch are released when its last request is finished, not before;
//! * batches start in the order in which they were taken, at most `num_consumers` at a time, without a task for
//!   an idle consumer;
//! * a destination that asks for time gets it from all requests, not only from the one that was told;
//! * a destination that is back is noticed: no request sleeps out a back-off from the time it was away (`life`);
//! * tenants do not delay each other: they take turns by bytes (`lanes`), each has a share of the queue (`queue`), is
//!   throttled and fails for itself (`tenancy`), and gives its place back while it waits (`slots`);
//! * nothing is given up without a counted reason: `rejected`, `expired`, `too_large`, `partial_success`,
//!   `shutdown`, or one the encoder names.
//!
//! Costs, a batch: a few uncontended locks, a few atomics, one task when the exporter was idle.

mod attempts;
mod batcher;
mod config;
mod engine;
mod gauges;
mod lanes;
mod life;
pub mod otlp;
mod queue;
mod retry;
pub mod sharded;
mod shared;
mod slots;
mod split;
mod tenancy;
mod worker;

use std::future::Future;
use std::time::Duration;

use smallvec::SmallVec;

pub use config::{BatchConfig, BatchSizer, DeliveryConfig, PartitionConfig, QueueConfig, RetryConfig, Sizer};
pub use engine::Delivery;
pub use retry::{Backoff, Pace};

use crate::net::auth::{ClientKey, Unauthorized};
use crate::pdata::{ClientInfo, Rope, Signal, Tenant};
use crate::pipeline::{RunContext, StartError};

/// How one attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The destination has it.
    Delivered {
        /// Items it did not want all the same (partial success).
        rejected: usize,
        /// What it said about them, or a warning when `rejected` is 0.
        message: String,
    },
    /// Not now; the same request may be sent again.
    Retry {
        /// How long the destination wants to be left alone, if it said so.
        after: Option<Duration>,
        /// For the log and the sender.
        reason: String,
    },
    /// Never: sending the same request again cannot help.
    Rejected {
        /// Whether the data is at fault, rather than the configuration or the destination.
        bad_data: bool,
        /// For the log and the sender.
        reason: String,
    },
    /// Refused for its size: smaller requests with the same data may be taken.
    TooLarge {
        /// For the log and the sender.
        reason: String,
    },
}

impl Outcome {
    /// Taken as it is.
    pub fn delivered() -> Self {
        Outcome::Delivered { rejected: 0, message: String::new() }
    }

    /// Not now, without a delay asked for.
    pub fn retry(reason: impl Into<String>) -> Self {
        Outcome::Retry { after: None, reason: reason.into() }
    }

    /// Never, for a reason that is not in the data.
    pub fn rejected(reason: impl Into<String>) -> Self {
        Outcome::Rejected { bad_data: false, reason: reason.into() }
    }
}

impl From<Unauthorized> for Outcome {
    fn from(why: Unauthorized) -> Self {
        match why {
            Unauthorized::NotNow(reason) => Outcome::retry(reason),
            Unauthorized::Never(reason) => Outcome::rejected(reason),
        }
    }
}

/// One request for the destination.
#[derive(Debug, Clone)]
pub struct Request<B> {
    /// What is sent.
    pub body: B,
    /// How many of the batch's items it carries, for the books.
    pub items: usize,
}

/// A batch as its destination takes it.
#[derive(Debug, Clone)]
pub struct Encoded<B> {
    /// The requests, in the order in which they are sent. Their items and the dropped ones add up to the batch's.
    pub requests: SmallVec<[Request<B>; 1]>,
    /// Items that the destination has no form for, with reasons from a small fixed set.
    pub dropped: Vec<(usize, &'static str)>,
}

impl<B> Encoded<B> {
    /// One request that carries everything.
    pub fn one(body: B, items: usize) -> Self {
        let mut requests = SmallVec::new();
        requests.push(Request { body, items });
        Encoded { requests, dropped: Vec::new() }
    }
}

/// Turns batches into requests. Pure: no I/O, no clock; benched and fuzzed without a network.
pub trait Encoder: Send + Sync + 'static {
    /// What a request consists of.
    type Body: Send + Sync + 'static;

    /// The requests for one batch.
    fn encode(&self, signal: Signal, rope: Rope, items: usize) -> Encoded<Self::Body>;

    /// Cuts a request that was refused for its size in two, each with fewer items; gives it back if it cannot be
    /// cut further.
    ///
    /// # Errors
    /// The request, when it holds a single item.
    #[allow(clippy::type_complexity, reason = "a pair or the input")]
    fn halve(
        &self,
        signal: Signal,
        request: Request<Self::Body>,
    ) -> Result<[Request<Self::Body>; 2], Request<Self::Body>>;
}

/// What one attempt may know.
#[derive(Debug)]
pub struct Attempt<'a, B> {
    /// The request.
    pub body: &'a B,
    /// Its signal.
    pub signal: Signal,
    /// Who sent the data, where the batch still knows it.
    pub client: &'a ClientInfo,
    /// Whose the data is, where that is known. The request must name it, or not be sent.
    pub tenant: Option<&'a Tenant>,
}

/// Makes one attempt at one request.
pub trait Sender<B>: Send + Sync + 'static {
    /// Reads certificates, resolves authenticators. Opens no connection.
    ///
    /// # Errors
    /// Whatever makes every attempt fail until the configuration is mended.
    fn start(&self, cx: &RunContext) -> Result<(), StartError>;

    /// What requests take from clients, once started: data of clients that differ in it must not share a request.
    fn reads(&self) -> Vec<ClientKey> {
        Vec::new()
    }

    /// Sends once. Dropped when the attempt has run out of time.
    fn send(&self, attempt: Attempt<'_, B>) -> impl Future<Output = Outcome> + Send;
}

#[cfg(test)]
mod tests;
