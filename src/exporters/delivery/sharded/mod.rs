//! Delivery for protocols in which the order of each series matters, as in remote write.
//!
//! One stateful [`ShardEncoder`] appends each batch to the open requests of its shards, one batch at a time, those of
//! a tenant in the order in which they were taken. What a tenant has for a shard is a *line* of its own: it sends one
//! request at a time and stays closed while that request is retried, so that a series, which is always on the same
//! shard, keeps its order whatever the destination does.
//!
//! There is no timer: a line with nothing to send gets its open request at once, for one that is busy more is
//! collected until it is free. Requests are small while the destination is quick and grow when it is slow.
//!
//! Promises, besides those of [`Delivery`](super::Delivery):
//! * a batch's telemetry is gone from memory as soon as it is encoded; its reservation and its acknowledgement stay
//!   until its last item is booked, on whichever shard;
//! * what is encoded and not yet sent is bounded by `backlog`, apart from the batch that reaches it and one batch of
//!   each tenant that has nothing encoded;
//! * a tenant that is throttled, rejected or fails closes its own lines and no others; encoding takes turns, and
//!   nobody can fill the backlog or take all places on the wire (`lines`);
//! * a request holds one tenant's data, or says itself whose it is ([`ShardBody::tenant`]);
//! * a request refused for bad data is cut until the bad item stands alone: the rest is delivered, in order.
//!
//! Costs, a batch: an uncontended lock or two, and work for each shard. A request: a task switch, and a lock for
//! each batch it carries items of. An item: a counter.

mod coder;
mod engine;
mod lines;
mod output;
mod ticket;
mod worker;

use std::time::Duration;

pub use engine::ShardedDelivery;
pub use output::{Closed, Output, Report};

use super::{QueueConfig, RetryConfig};
use crate::net::auth::ClientKey;
use crate::pdata::{Batch, ClientInfo, Tenant};

/// A request of one shard.
pub trait ShardBody: Send + Sync + Sized + 'static {
    /// Items in it; 0 for what an encoder adds of its own.
    fn items(&self) -> usize;

    /// Cuts it in two after `items() / 2` items; their order is kept. From a single item it cuts what the encoder
    /// added of its own.
    ///
    /// # Errors
    /// The request, when there is nothing to cut.
    fn halve(self) -> Result<[Self; 2], Self>;

    /// Bytes it occupies, for the backlog.
    fn size(&self) -> usize;

    /// Whose it is, where the encoder knows better than the batch it is from.
    fn tenant(&self) -> Option<&Tenant> {
        None
    }
}

/// Turns batches into the requests of shards. Serial and stateful: it runs on one task at a time and never blocks.
///
/// A call that panics costs what is left of its batch. Afterwards every open request is closed; one that does not
/// hold the number of items reported for it is given up.
pub trait ShardEncoder: Send + 'static {
    /// What a request consists of.
    type Body: ShardBody;

    /// How many shards there are; always the same number.
    fn shards(&self) -> usize;

    /// Appends a batch's items to the open requests and says where each went. The batch's acknowledgements and
    /// reservations are not in it. Items not accounted for are dropped as `unencodable`.
    fn encode(&mut self, batch: &Batch, out: &mut Output<'_, Self::Body>);

    /// Closes the open request of a shard, if it holds anything.
    fn close(&mut self, shard: usize) -> Option<Self::Body>;

    /// Bytes in the open request of a shard.
    fn open_size(&self, shard: usize) -> usize;

    /// Whose the open request of a shard is, as [`ShardBody::tenant`] will say.
    fn open_tenant(&self, _shard: usize) -> Option<&Tenant> {
        None
    }

    /// Which batches of one tenant may share a request: two with different values never do, nor do two tenants.
    fn partition(&self, _client: &ClientInfo) -> u64 {
        0
    }

    /// Told once, before the first batch: requests say whose they are by these. The requests of clients that differ in
    /// them are kept apart without the encoder's doing; what it remembers of their data it keeps apart itself.
    fn keep_apart(&mut self, _keys: &[ClientKey]) {}

    /// Called about once a second while the exporter runs, unless the backlog is full: to expire, to measure, to
    /// send what is due from time to time.
    fn tick(&mut self, _out: &mut Output<'_, Self::Body>) {}
}

/// What an exporter hands to its sharded delivery.
#[derive(Debug, Clone)]
pub struct ShardedConfig {
    /// The queue in front of the encoder; `None` takes everything and tells each sender the outcome. Its
    /// `num_consumers` and `batch` do not apply: shards take their place.
    pub queue: Option<QueueConfig>,
    /// Whether and how failed requests are sent again.
    pub retry: RetryConfig,
    /// The longest one attempt may take; zero is no limit.
    pub timeout: Duration,
    /// Bytes of encoded requests, open ones included, at which no further batch is encoded. A tenant has four times
    /// what is free of them.
    pub backlog: usize,
    /// Attempts that may be spent on cutting one request that was refused for bad data; a cut takes two, a piece of it
    /// that is delivered gives two back.
    pub bisect: usize,
}

#[cfg(test)]
mod tests;
