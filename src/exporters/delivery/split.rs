//! Cutting what is too large for one request, with its share of the queue's room.

use super::queue::Job;
use super::{BatchSizer, Request};
use crate::pdata::split::{halve as halve_rope, split_bytes, split_items};
use crate::pdata::{Batch, Rope, Signal};

/// Cuts a job into pieces of at most `max`, as far as its items allow; the last piece may be small. Pieces share
/// the memory and the acknowledgements of the whole.
pub(super) fn cut(job: Job, max: usize, sizer: BatchSizer) -> Vec<Job> {
    let Job { batch, mut cost } = job;
    let Batch { signal, rope, items, client, tenant, demoted, received, leases, acks } = batch;
    let parts = match sizer {
        BatchSizer::Items => split_items(signal, rope, items, max),
        BatchSizer::Bytes => {
            split_bytes(signal, rope, items, max).into_iter().map(|part| (part.rope, part.items)).collect()
        }
    };
    let last = parts.len().saturating_sub(1);
    let mut items_left = items;
    let piece = |(i, (rope, n)): (usize, (Rope, usize))| {
        // Of what is left by items, rounded down; the last piece takes what rounding left.
        let cost = if i == last { std::mem::take(&mut cost) } else { cost.split(n, items_left) };
        items_left = items_left.saturating_sub(n);
        let (client, leases, acks) = (client.clone(), leases.clone(), acks.clone());
        let tenant = tenant.clone();
        Job { batch: Batch { signal, rope, items: n, client, tenant, demoted, received, leases, acks }, cost }
    };
    let pieces = parts.into_iter().enumerate().map(piece).collect();
    // The pieces hold shares of their own.
    acks.resolve(crate::pipeline::Verdict::Accepted);
    pieces
}

/// Cuts an OTLP request in two by items.
pub(super) fn halve(signal: Signal, request: Request<Rope>) -> Result<[Request<Rope>; 2], Request<Rope>> {
    match halve_rope(signal, request.body.clone(), request.items) {
        Some(halves) => Ok(halves.map(|(body, items)| Request { body, items })),
        None => Err(request),
    }
}
