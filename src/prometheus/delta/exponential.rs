//! The sum of exponential histograms.
//!
//! Sums are kept dense, from the first to the last occupied bucket, at the finest scale that all points had and
//! that leaves at most [`MAX_BUCKETS`] buckets a side. The zero bucket is as wide as that of the widest point;
//! buckets that it reaches into count with it, and it then ends where they end.

use std::mem::size_of;
use std::slice;

use crate::pdata::wire::WireError;
use crate::prometheus::native::{
    Exponential, ExponentialScalars, Occupied, Range, Skip, power, shift, zero_threshold,
};

/// So many buckets are kept for values of one sign: what is finer is scaled down.
pub const MAX_BUCKETS: usize = 160;

/// What has been counted since `start_ns`, to be made a native histogram or classic buckets as a point is.
#[derive(Debug, Clone, Copy)]
pub struct CumulativeExponential<'a> {
    /// Where counting began, nanoseconds since 1970; 0 when unknown.
    pub start_ns: u64,
    pub(super) sum: &'a ExponentialSum,
}

/// The counts of one side.
#[derive(Debug, Clone)]
pub struct Counts<'a>(slice::Iter<'a, u64>);

/// An exponential histogram that grows.
#[derive(Debug)]
pub struct ExponentialSum {
    count: u64,
    sum: Option<f64>,
    /// May be somewhat below the lowest of a point.
    scale: i64,
    zero_count: u64,
    /// `None` before the first point.
    zero_threshold: Option<f64>,
    positive: Dense,
    negative: Dense,
}

/// Where a point has occupied buckets.
#[derive(Debug)]
pub struct Shape {
    positive: Range,
    negative: Range,
}

/// The counts from the first occupied bucket to the last.
#[derive(Debug, Default)]
struct Dense {
    first: i64,
    counts: Vec<u64>,
}

impl ExponentialSum {
    /// Adds a point of that shape.
    pub fn add(&mut self, point: &impl Exponential, shape: &Shape) {
        let scalars = point.scalars();
        let point_scale = i64::from(scalars.scale);
        let finest = match (self.is_occupied(), shape.is_occupied()) {
            // The scale of no buckets means nothing.
            (false, _) => point_scale,
            (true, false) => self.scale,
            (true, true) => self.scale.min(point_scale),
        };
        let (positive, negative) = (self.positive.range(), self.negative.range());
        // At the latest two indices are left, 0 and -1.
        let fits = |scale: &i64| {
            let (own, new) = (shift(self.scale - scale), shift(point_scale - scale));
            let width =
                |own_range: Range, range: Range| own_range.shifted(own).with(range.shifted(new)).width();
            width(positive, shape.positive).max(width(negative, shape.negative)) <= MAX_BUCKETS as i64
        };
        let scale = (finest - 63..=finest).rev().find(fits).unwrap_or(finest - 63);
        let (own, new) = (shift(self.scale - scale), shift(point_scale - scale));
        self.scale = scale;
        self.positive.add(own, shape.positive.shifted(new), point.positive(), new);
        self.negative.add(own, shape.negative.shifted(new), point.negative(), new);

        self.count = self.count.saturating_add(scalars.count);
        self.sum = self.sum.zip(scalars.sum).map(|(a, b)| a + b);
        self.zero_count = self.zero_count.saturating_add(scalars.zero_count);
        let threshold = scalars.zero_threshold;
        self.zero_threshold = Some(match self.zero_threshold {
            Some(own) if own != threshold => self.absorb(own.max(threshold)),
            _ => threshold,
        });
    }

    /// The bytes that are allocated, its own among them.
    pub fn heap(&self) -> usize {
        let counts = self.positive.counts.capacity() + self.negative.counts.capacity();
        size_of::<Self>() + size_of::<u64>() * counts
    }

    fn is_occupied(&self) -> bool {
        self.positive.range().is_occupied() || self.negative.range().is_occupied()
    }

    /// Counts with the zero bucket, whose width is `threshold`, what that reaches into.
    fn absorb(&mut self, threshold: f64) -> f64 {
        let mut reach = threshold;
        // Where one side widens it, it ends with a bucket of both: the other side then has none that it cuts.
        let positive = self.positive.take_below(&mut reach, self.scale);
        let negative = self.negative.take_below(&mut reach, self.scale);
        let taken = positive.saturating_add(negative);
        self.zero_count = self.zero_count.saturating_add(taken);
        reach
    }
}

impl Default for ExponentialSum {
    fn default() -> Self {
        ExponentialSum {
            count: 0,
            sum: Some(0.0),
            scale: 0,
            zero_count: 0,
            zero_threshold: None,
            positive: Dense::default(),
            negative: Dense::default(),
        }
    }
}

impl Shape {
    /// Looks at all of a point, so that adding it cannot fail half-way.
    ///
    /// # Errors
    /// [`Skip::Malformed`] and [`Skip::Mismatch`], which adding would make lasting.
    pub fn of(point: &impl Exponential) -> Result<Self, Skip> {
        let scalars = point.scalars();
        zero_threshold(scalars.zero_threshold)?;
        let (mut total, mut ranges) = (u128::from(scalars.zero_count), [Range::NONE; 2]);
        for (side, range) in [point.positive(), point.negative()].into_iter().zip(&mut ranges) {
            for bucket in Occupied::new(side, |i| i) {
                let (i, count) = bucket?;
                total += u128::from(count);
                *range = range.with(Range { first: i, last: i });
            }
        }
        let count = u128::from(scalars.count);
        // Values that are NaN are in no bucket.
        let agree = if scalars.sum.is_some_and(f64::is_nan) { total <= count } else { total == count };
        let [positive, negative] = ranges;
        if agree { Ok(Shape { positive, negative }) } else { Err(Skip::Mismatch) }
    }

    fn is_occupied(&self) -> bool {
        self.positive.is_occupied() || self.negative.is_occupied()
    }
}

impl Dense {
    fn range(&self) -> Range {
        Range { first: self.first, last: self.first + self.counts.len() as i64 - 1 }
    }

    /// Scales down by `own` bits, then adds counts scaled down by `new` bits, which are in `range` then.
    fn add(
        &mut self,
        own: u32,
        range: Range,
        (first, counts): (i64, impl Iterator<Item = Result<u64, WireError>>),
        new: u32,
    ) {
        self.scale_down(own);
        self.cover(range);
        let index = |i: i64| i >> new;
        for (i, count) in Occupied::new((first, counts), index).map_while(Result::ok) {
            if let Some(sum) = usize::try_from(i - self.first).ok().and_then(|i| self.counts.get_mut(i)) {
                *sum = sum.saturating_add(count);
            }
        }
    }

    fn scale_down(&mut self, by: u32) {
        if by == 0 || self.counts.is_empty() {
            return;
        }
        let range = self.range().shifted(by);
        for i in 0..self.counts.len() {
            // No place is above its index, and the one it has is empty when it gets its count.
            let place = ((self.first + i as i64) >> by) - range.first;
            let count = self.counts.get_mut(i).map(std::mem::take).unwrap_or_default();
            if let Some(sum) = self.counts.get_mut(place as usize) {
                *sum = sum.saturating_add(count);
            }
        }
        self.counts.truncate(range.width() as usize);
        self.first = range.first;
    }

    fn cover(&mut self, range: Range) {
        let (own, whole) = (self.range(), self.range().with(range));
        let before = if own.is_occupied() { own.first - whole.first } else { 0 };
        self.counts.resize(whole.width() as usize, 0);
        self.counts.rotate_right(before as usize);
        self.first = whole.first;
    }

    /// Takes away the buckets that begin below `reach`, which is widened to where the last of them ends.
    fn take_below(&mut self, reach: &mut f64, scale: i64) -> u64 {
        let (mut taken, mut gone) = (0u64, 0);
        for (i, &count) in (self.first..).zip(&self.counts) {
            if count > 0 {
                if power(scale, i) >= *reach {
                    break;
                }
                *reach = reach.max(power(scale, i + 1)).min(f64::MAX);
                taken = taken.saturating_add(count);
            }
            gone += 1;
        }
        self.counts.drain(..gone);
        self.first += gone as i64;
        taken
    }
}

impl<'a> Exponential for CumulativeExponential<'a> {
    type Counts = Counts<'a>;

    fn scalars(&self) -> ExponentialScalars {
        let sum = self.sum;
        ExponentialScalars {
            count: sum.count,
            sum: sum.sum,
            scale: sum.scale.clamp(i32::MIN.into(), i32::MAX.into()) as i32,
            zero_count: sum.zero_count,
            zero_threshold: sum.zero_threshold.unwrap_or(0.0),
        }
    }

    fn positive(&self) -> (i64, Counts<'a>) {
        (self.sum.positive.first, Counts(self.sum.positive.counts.iter()))
    }

    fn negative(&self) -> (i64, Counts<'a>) {
        (self.sum.negative.first, Counts(self.sum.negative.counts.iter()))
    }
}

impl Iterator for Counts<'_> {
    type Item = Result<u64, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().copied().map(Ok)
    }
}
