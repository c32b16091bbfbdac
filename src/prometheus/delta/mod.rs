//! From delta to cumulative: the running sums that Prometheus wants of streams that say what was added.
//!
//! A stream is known by a key that its user makes from resource, scope, metric, kind and attributes. Its first
//! point begins a sum. A point that begins where the last one ended is added; so is one that does not say when
//! it begins (no start time, or one equal to its time). One that begins later begins the sum anew, with its own
//! start time; one that begins earlier, or ends no later than the last one, is refused, and changes nothing: not
//! even how long the stream counts as idle, so one point from the future keeps a stream silent for no longer
//! than `max_stale`. What changes its bounds or its kind begins anew too.
//!
//! Whether a point says that nothing was recorded is for the caller to look at first.
//!
//! Memory: at most `max_streams` streams, each a number, a histogram of at most [`MAX_BOUNDS`] bounds, or an
//! exponential one of at most [`MAX_BUCKETS`] buckets a side. Cost of a point: one look-up, and two passes over
//! its counts; allocated is for new streams and for histograms that grow.

mod explicit;
mod exponential;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::mem::size_of;
use std::time::Duration;

use self::explicit::ExplicitSum;
pub use self::explicit::{Cumulative, MAX_BOUNDS};
pub use self::exponential::{CumulativeExponential, MAX_BUCKETS};
use self::exponential::{ExponentialSum, Shape};
use crate::pdata::metrics::{ExponentialHistogramPoint, HistogramPoint, Number};

/// What bounds an [`Accumulator`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many streams are kept. Points of others are refused.
    pub max_streams: usize,
    /// How long a stream is kept after the last point that was added to it.
    pub max_stale: Duration,
}

/// Why a point was not added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// It ends no later than what was counted before: it is late, or a repetition.
    BeforeStart,
    /// It begins before the end of what was counted before: there are two writers.
    Overlap,
    /// There are as many streams as there may be, and it belongs to another.
    Full,
    /// It has more bounds than are kept.
    TooLarge,
    /// It has no time, ends before it begins, its value is no finite number, or its buckets are not as its kind
    /// of histogram has them.
    Malformed,
}

/// The running sums of delta streams.
#[derive(Debug)]
pub struct Accumulator {
    limits: Limits,
    streams: HashMap<u128, Stream>,
    /// What the streams have allocated outside the map.
    heap: usize,
}

#[derive(Debug)]
struct Stream {
    /// Where the sum begins; 0 when unknown. Nanoseconds since 1970.
    start_ns: u64,
    /// Where it ends.
    time_ns: u64,
    /// When it last grew, by the caller's clock.
    seen_ms: i64,
    sum: Sum,
}

#[derive(Debug)]
enum Sum {
    Number(Number),
    Explicit(Box<ExplicitSum>),
    Exponential(Box<ExponentialSum>),
}

/// The interval that a point is about, nanoseconds since 1970.
#[derive(Clone, Copy)]
struct Interval {
    /// `None` when unknown.
    start: Option<u64>,
    end: u64,
}

impl Accumulator {
    /// Knows no stream yet.
    pub fn new(limits: Limits) -> Self {
        Accumulator { limits, streams: HashMap::new(), heap: 0 }
    }

    /// Adds a number: where its sum begins (nanoseconds since 1970, 0 when unknown), and the sum. Integers
    /// stay integers, at most those of 64 bits; with a double the sum becomes one.
    ///
    /// # Errors
    /// Why it was not added.
    pub fn number(
        &mut self,
        key: u128,
        start_ns: u64,
        time_ns: u64,
        value: Number,
        now_ms: i64,
    ) -> Result<(u64, Number), Refusal> {
        if matches!(value, Number::Double(value) if !value.is_finite()) {
            return Err(Refusal::Malformed);
        }
        let interval = Interval::new(start_ns, time_ns)?;
        let same = |sum: &Sum| matches!(sum, Sum::Number(_));
        let begin = || Sum::Number(Number::Int(0));
        let stream = self.stream(key, interval, now_ms, same, begin)?.0;
        let Sum::Number(sum) = &mut stream.sum else { return Err(Refusal::Malformed) };
        *sum = add(*sum, value);
        Ok((stream.start_ns, *sum))
    }

    /// Adds a histogram: its sum. When its bounds are not those of the sum it begins anew.
    ///
    /// # Errors
    /// Why it was not added.
    pub fn histogram(
        &mut self,
        key: u128,
        point: &HistogramPoint<'_>,
        now_ms: i64,
    ) -> Result<Cumulative<'_>, Refusal> {
        let interval = Interval::new(point.start_time_unix_nano, point.time_unix_nano)?;
        let buckets = explicit::check(point)?;
        let same = |sum: &Sum| matches!(sum, Sum::Explicit(sum) if sum.has_buckets_of(point, buckets));
        let begin = || Sum::Explicit(Box::new(ExplicitSum::new(point)));
        let (stream, heap) = self.stream(key, interval, now_ms, same, begin)?;
        let Sum::Explicit(sum) = &mut stream.sum else { return Err(Refusal::Malformed) };
        sum.add(point);
        *heap += sum.heap();
        Ok(sum.cumulative(stream.start_ns))
    }

    /// Adds an exponential histogram: its sum, at the finest scale that both have and that needs no more than
    /// [`MAX_BUCKETS`] buckets a side.
    ///
    /// # Errors
    /// Why it was not added.
    pub fn exponential(
        &mut self,
        key: u128,
        point: &ExponentialHistogramPoint<'_>,
        now_ms: i64,
    ) -> Result<CumulativeExponential<'_>, Refusal> {
        let interval = Interval::new(point.start_time_unix_nano, point.time_unix_nano)?;
        let shape = Shape::of(point).map_err(|_| Refusal::Malformed)?;
        let same = |sum: &Sum| matches!(sum, Sum::Exponential(_));
        let begin = || Sum::Exponential(Box::default());
        let (stream, heap) = self.stream(key, interval, now_ms, same, begin)?;
        let Sum::Exponential(sum) = &mut stream.sum else { return Err(Refusal::Malformed) };
        sum.add(point, &shape);
        *heap += sum.heap();
        Ok(CumulativeExponential { start_ns: stream.start_ns, sum })
    }

    /// Forgets the streams to which nothing was added for `max_stale`, and says how many. Looks at every one.
    pub fn expire(&mut self, now_ms: i64) -> usize {
        let max_stale = i64::try_from(self.limits.max_stale.as_millis()).unwrap_or(i64::MAX);
        let before = self.streams.len();
        let heap = &mut self.heap;
        self.streams.retain(|_, stream| {
            let keep = now_ms.saturating_sub(stream.seen_ms) <= max_stale;
            if !keep {
                *heap -= stream.sum.heap();
            }
            keep
        });
        if self.streams.capacity() / 4 >= self.streams.len() {
            self.streams.shrink_to(self.streams.len() * 2);
        }
        before - self.streams.len()
    }

    /// Keeps at most so many streams from now on; those that are there already stay.
    pub fn set_max_streams(&mut self, max_streams: usize) {
        self.limits.max_streams = max_streams;
    }

    /// How many streams there are.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Whether there is no stream.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// About how many bytes the streams take.
    pub fn bytes(&self) -> usize {
        // The map has a control byte for every place.
        self.streams.capacity() * (size_of::<(u128, Stream)>() + 1) + self.heap
    }

    /// The stream to add to, its interval already that with the point. It is begun when it is new, after a gap,
    /// and when its sum is not of the same form. With it comes what is allocated, from which its own is taken
    /// away: the caller adds that when it knows.
    fn stream(
        &mut self,
        key: u128,
        point: Interval,
        now_ms: i64,
        same: impl FnOnce(&Sum) -> bool,
        begin: impl FnOnce() -> Sum,
    ) -> Result<(&mut Stream, &mut usize), Refusal> {
        let full = self.streams.len() >= self.limits.max_streams;
        let start_ns = point.start.unwrap_or(0);
        match self.streams.entry(key) {
            Entry::Vacant(_) if full => Err(Refusal::Full),
            Entry::Vacant(entry) => {
                let stream = Stream { start_ns, time_ns: point.end, seen_ms: now_ms, sum: begin() };
                Ok((entry.insert(stream), &mut self.heap))
            }
            Entry::Occupied(entry) => {
                let stream = entry.into_mut();
                let anew = point.after(stream.time_ns)?;
                self.heap -= stream.sum.heap();
                if anew || !same(&stream.sum) {
                    (stream.start_ns, stream.sum) = (start_ns, begin());
                }
                (stream.time_ns, stream.seen_ms) = (point.end, now_ms);
                Ok((stream, &mut self.heap))
            }
        }
    }
}

impl Sum {
    fn heap(&self) -> usize {
        match self {
            Sum::Number(_) => 0,
            Sum::Explicit(sum) => sum.heap(),
            Sum::Exponential(sum) => sum.heap(),
        }
    }
}

impl Interval {
    fn new(start: u64, end: u64) -> Result<Self, Refusal> {
        if end == 0 || start > end {
            return Err(Refusal::Malformed);
        }
        Ok(Interval { start: Some(start).filter(|&start| start != 0 && start != end), end })
    }

    /// Whether it comes after a gap when the last one ended at `last`; an error when it may not follow that.
    fn after(self, last: u64) -> Result<bool, Refusal> {
        match self.start {
            _ if self.end <= last => Err(Refusal::BeforeStart),
            Some(start) if start < last => Err(Refusal::Overlap),
            start => Ok(start.is_some_and(|start| start > last)),
        }
    }
}

impl Refusal {
    /// A word for it, as the reason by which drops are counted.
    pub const fn as_str(self) -> &'static str {
        match self {
            Refusal::BeforeStart => "late",
            Refusal::Overlap => "overlap",
            Refusal::Full => "too_many_streams",
            Refusal::TooLarge => "too_large",
            Refusal::Malformed => "malformed",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::BeforeStart => "the point is late or a repetition: its time was counted before",
            Refusal::Overlap => "the point begins before the last one ended: two writers have one stream",
            Refusal::Full => "there are too many delta streams",
            Refusal::TooLarge => "the histogram has too many bounds",
            Refusal::Malformed => "the point has no valid time, value or buckets",
        })
    }
}

impl std::error::Error for Refusal {}

fn add(sum: Number, value: Number) -> Number {
    let double = |number| match number {
        Number::Int(value) => value as f64,
        Number::Double(value) => value,
    };
    match (sum, value) {
        (Number::Int(sum), Number::Int(value)) => Number::Int(sum.saturating_add(value)),
        _ => Number::Double(double(sum) + double(value)),
    }
}
