//! The sum of histograms with equal bounds.

use std::mem::size_of;

use super::Refusal;
use crate::pdata::metrics::HistogramPoint;
use crate::pdata::wire::WireError;
use crate::prometheus::native::Explicit;

/// Histograms with more bounds are not accumulated.
pub const MAX_BOUNDS: usize = 1024;

/// What has been counted since `start_ns`.
///
/// When buckets did not add up to the count, or a sum was missing, in one point, so it stays until the sum
/// begins anew. Counts end at 2^64 - 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cumulative<'a> {
    /// Where counting began, nanoseconds since 1970; 0 when unknown.
    pub start_ns: u64,
    /// How many values.
    pub count: u64,
    /// Their sum, if every point had one.
    pub sum: Option<f64>,
    /// The counts of the buckets: one more than bounds, or none.
    pub counts: &'a [u64],
    /// The upper bounds of the buckets, ascending.
    pub bounds: &'a [f64],
}

/// A histogram that grows.
#[derive(Debug)]
pub struct ExplicitSum {
    count: u64,
    sum: Option<f64>,
    counts: Box<[u64]>,
    bounds: Box<[f64]>,
}

impl ExplicitSum {
    /// Nothing counted, in the buckets of a point that was checked.
    pub fn new(point: &HistogramPoint<'_>) -> Self {
        ExplicitSum {
            count: 0,
            sum: Some(0.0),
            counts: point.bucket_counts().map(|_| 0).collect(),
            bounds: point.explicit_bounds().map_while(Result::ok).collect(),
        }
    }

    /// Whether the buckets of a point that was checked and has so many are these.
    pub fn has_buckets_of(&self, point: &HistogramPoint<'_>, buckets: usize) -> bool {
        let bounds = point.explicit_bounds().map_while(Result::ok);
        buckets == self.counts.len() && bounds.eq(self.bounds.iter().copied())
    }

    /// Adds a point that was checked and has these buckets.
    pub fn add(&mut self, point: &HistogramPoint<'_>) {
        self.count = self.count.saturating_add(point.count);
        self.sum = self.sum.zip(point.sum).map(|(a, b)| a + b);
        for (sum, count) in self.counts.iter_mut().zip(point.bucket_counts().map_while(Result::ok)) {
            *sum = sum.saturating_add(count);
        }
    }

    /// What was added.
    pub fn cumulative(&self, start_ns: u64) -> Cumulative<'_> {
        Cumulative { start_ns, count: self.count, sum: self.sum, counts: &self.counts, bounds: &self.bounds }
    }

    /// The bytes that are allocated, its own among them.
    pub fn heap(&self) -> usize {
        size_of::<Self>() + size_of::<u64>() * (self.counts.len() + self.bounds.len())
    }
}

impl Explicit for Cumulative<'_> {
    fn count(&self) -> u64 {
        self.count
    }

    fn sum(&self) -> Option<f64> {
        self.sum
    }

    fn bounds(&self) -> impl Iterator<Item = Result<f64, WireError>> {
        self.bounds.iter().copied().map(Ok)
    }

    fn counts(&self) -> impl Iterator<Item = Result<u64, WireError>> {
        self.counts.iter().copied().map(Ok)
    }
}

/// Whether a point can be added: its lists can be read, its bounds ascend, and its counts are as many. How many
/// buckets it has.
pub fn check(point: &HistogramPoint<'_>) -> Result<usize, Refusal> {
    let (mut bounds, mut last) = (0, None);
    for bound in point.explicit_bounds() {
        let bound = bound.map_err(|_| Refusal::Malformed)?;
        if bound.is_nan() || last.is_some_and(|last| last >= bound) {
            return Err(Refusal::Malformed);
        }
        last = Some(bound);
        bounds += 1;
        if bounds > MAX_BOUNDS {
            return Err(Refusal::TooLarge);
        }
    }
    let mut counts = 0;
    for count in point.bucket_counts() {
        count.map_err(|_| Refusal::Malformed)?;
        counts += 1;
    }
    if counts == bounds + 1 || (counts, bounds) == (0, 0) { Ok(counts) } else { Err(Refusal::Malformed) }
}
