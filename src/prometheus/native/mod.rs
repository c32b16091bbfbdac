//! Native histograms of Prometheus, and the classic buckets that stand in for them.
//!
//! [`Native`] is filled from an exponential histogram or, with custom buckets, from one with explicit bounds:
//! a point on the wire or whatever else implements [`Exponential`] or [`Explicit`]. [`classic`] gives an
//! exponential histogram as classic buckets, for receivers that know no others.
//!
//! A bucket of OTLP has the number of its lower bound, a native one that of its upper bound. What is finer
//! than schema 8 is scaled down. Written are the occupied buckets, with up to two empty ones between them;
//! empty ends are left out.
//!
//! Cost: one pass over the encoded counts (two for [`classic`]), whatever the numbers in them say; nothing is
//! allocated but the growth of the caller's reused buffers, to some MiB at most ([`MAX_NATIVE_BUCKETS`]).

mod classic;
mod encode;
mod layout;
#[cfg(test)]
pub(in crate::prometheus) mod slow;
#[cfg(test)]
mod tests;

use std::fmt;

pub(in crate::prometheus) use self::classic::power;
pub use self::classic::{MAX_CLASSIC_BUCKETS, classic};
use self::layout::lay_out;
pub(in crate::prometheus) use self::layout::{Occupied, Range};
use crate::pdata::common::Scalars;
use crate::pdata::metrics::{ExponentialHistogramPoint, HistogramPoint};
use crate::pdata::wire::WireError;

/// The bits of the value that says that a series has ended.
///
/// A signalling NaN: arithmetic makes an ordinary NaN of it, so it travels as bits.
pub const STALE: u64 = 0x7ff0_0000_0000_0002;

/// The bits of every other NaN that is sent.
pub const ORDINARY_NAN: u64 = 0x7ff8_0000_0000_0001;

/// The schema of histograms with custom buckets.
pub const CUSTOM_BUCKETS: i32 = -53;

/// How many buckets a side may have: far more than anyone makes, far fewer than fit into a request.
pub const MAX_NATIVE_BUCKETS: usize = 1 << 16;

/// The finest and the coarsest schema of native histograms.
const FINEST: i32 = 8;
const COARSEST: i32 = -4;

/// The width of the zero bucket of a point that does not tell.
const DEFAULT_ZERO_THRESHOLD: f64 = 1e-128;

/// A native histogram with integer counts, in the form that both versions of remote write share.
///
/// Made to be reused: every filling begins by clearing. After an error the content means nothing.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Native {
    /// How many values.
    pub count: u64,
    /// The bits of their sum, or [`STALE`].
    pub sum_bits: u64,
    /// -4 to 8: the base of the buckets is 2^(2^-schema); or [`CUSTOM_BUCKETS`].
    pub schema: i32,
    /// How wide the bucket around zero is.
    pub zero_threshold: f64,
    /// How many values are in the bucket around zero.
    pub zero_count: u64,
    /// The buckets for negative values.
    pub negative: Side,
    /// The buckets for positive values, or the custom ones.
    pub positive: Side,
    /// The upper bounds of custom buckets, without +Inf.
    pub custom_values: Vec<f64>,
}

/// Buckets: where they are, and their counts.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Side {
    /// Runs of buckets: how many are left out before it (of the first run: its index), and how many it has.
    pub spans: Vec<(i32, u32)>,
    /// The count of the first bucket, and of each later one the difference to the one before.
    pub deltas: Vec<i64>,
}

/// Why a point has no such form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Skip {
    /// The buckets are coarser than schema -4.
    ScaleTooLow,
    /// There is no sum, which a native histogram must have.
    NoSum,
    /// A count or an index of a bucket is beyond what a native histogram can hold, or there are more than
    /// [`MAX_NATIVE_BUCKETS`].
    TooLarge,
    /// The counts of the buckets do not add up to the count, for which receivers refuse a whole request.
    Mismatch,
    /// It is no protobuf, its bounds do not ascend or are not as many as its counts, or its zero threshold is
    /// no width.
    Malformed,
}

/// The scalars of an exponential histogram.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ExponentialScalars {
    /// How many values.
    pub count: u64,
    /// Their sum.
    pub sum: Option<f64>,
    /// The base of the buckets is 2^(2^-scale).
    pub scale: i32,
    /// How many values are in the bucket around zero.
    pub zero_count: u64,
    /// How wide the bucket around zero is; 0 when unknown.
    pub zero_threshold: f64,
}

/// An exponential histogram in the terms of OTLP.
pub trait Exponential {
    /// The counts of one side, in ascending order of the index.
    type Counts: Iterator<Item = Result<u64, WireError>>;

    /// All but the buckets.
    fn scalars(&self) -> ExponentialScalars;

    /// The buckets for positive values: the index of the first, and the counts.
    fn positive(&self) -> (i64, Self::Counts);

    /// The buckets for negative values: the index of the first, and the counts.
    fn negative(&self) -> (i64, Self::Counts);
}

/// A histogram with explicit bounds in the terms of OTLP.
pub trait Explicit {
    /// How many values.
    fn count(&self) -> u64;

    /// Their sum.
    fn sum(&self) -> Option<f64>;

    /// The upper bounds of the buckets.
    fn bounds(&self) -> impl Iterator<Item = Result<f64, WireError>>;

    /// The counts of the buckets, one more than there are bounds, or none at all.
    fn counts(&self) -> impl Iterator<Item = Result<u64, WireError>>;
}

impl Native {
    /// Becomes the native form of an exponential histogram.
    ///
    /// Whether the point says that nothing was recorded is the caller's to look at ([`Native::stale`]).
    ///
    /// # Errors
    /// Why it has none.
    pub fn exponential(&mut self, point: &impl Exponential) -> Result<(), Skip> {
        self.clear();
        let scalars = point.scalars();
        if scalars.scale < COARSEST {
            return Err(Skip::ScaleTooLow);
        }
        self.scalars(scalars.count, scalars.sum)?;
        self.schema = scalars.scale.min(FINEST);
        self.zero_count = scalars.zero_count;
        self.zero_threshold = match zero_threshold(scalars.zero_threshold)? {
            0.0 => DEFAULT_ZERO_THRESHOLD,
            known => known,
        };
        let shift = shift(scalars.scale - self.schema);
        let index = |i: i64| (i >> shift) + 1;
        let negative = lay_out(&mut self.negative, Occupied::new(point.negative(), index))?;
        let positive = lay_out(&mut self.positive, Occupied::new(point.positive(), index))?;
        self.agree([negative, positive, scalars.zero_count])
    }

    /// Becomes a histogram with custom buckets, which are those of a histogram with explicit bounds.
    ///
    /// A histogram of neither bounds nor counts has one bucket for everything. A last bound of +Inf is left
    /// out, being implied.
    ///
    /// # Errors
    /// Why it has no such form; one without a sum has none.
    pub fn custom_buckets(&mut self, point: &impl Explicit) -> Result<(), Skip> {
        self.clear();
        self.scalars(point.count(), point.sum())?;
        self.schema = CUSTOM_BUCKETS;
        let mut bounds = 0i64;
        let mut last = f64::NEG_INFINITY;
        for bound in point.bounds() {
            let bound = bound.map_err(|_| Skip::Malformed)?;
            // The first may not be -Inf either.
            if bound.is_nan() || bound <= last {
                return Err(Skip::Malformed);
            }
            bounds += 1;
            last = bound;
            if bound.is_finite() {
                if self.custom_values.len() == MAX_NATIVE_BUCKETS {
                    return Err(Skip::TooLarge);
                }
                self.custom_values.push(bound);
            }
        }
        // Two buckets have the index of the last when a bound of +Inf was left out.
        let top = self.custom_values.len() as i64;
        let mut seen = 0i64;
        let counts = point.counts().inspect(|_| seen += 1);
        let total = lay_out(&mut self.positive, Occupied::new((0, counts), |i| i.min(top)))?;
        match seen {
            0 if bounds == 0 => {
                let all = (0, std::iter::once(Ok(self.count)));
                lay_out(&mut self.positive, Occupied::new(all, |i| i)).map(drop)
            }
            _ if seen == bounds + 1 => self.agree([total, 0, 0]),
            _ => Err(Skip::Malformed),
        }
    }

    /// Says that nothing was recorded: the series ends here.
    pub fn stale(&mut self) {
        self.clear();
        self.sum_bits = STALE;
    }

    /// Keeps what is allocated.
    fn clear(&mut self) {
        (self.count, self.sum_bits, self.schema) = (0, 0, 0);
        (self.zero_threshold, self.zero_count) = (0.0, 0);
        for side in [&mut self.negative, &mut self.positive] {
            side.spans.clear();
            side.deltas.clear();
        }
        self.custom_values.clear();
    }

    fn scalars(&mut self, count: u64, sum: Option<f64>) -> Result<(), Skip> {
        let sum = sum.ok_or(Skip::NoSum)?;
        self.count = count;
        self.sum_bits = if sum.is_nan() { ORDINARY_NAN } else { sum.to_bits() };
        Ok(())
    }

    /// Compares the counts of the buckets with the count, as receivers do: a value that is NaN is in no
    /// bucket, and makes the sum NaN.
    fn agree(&self, parts: [u64; 3]) -> Result<(), Skip> {
        let total: u128 = parts.into_iter().map(u128::from).sum();
        let count = u128::from(self.count);
        let agree = if self.sum_bits == ORDINARY_NAN { total <= count } else { total == count };
        if agree { Ok(()) } else { Err(Skip::Mismatch) }
    }
}

impl Skip {
    /// A word for it, as the reason by which drops are counted.
    pub const fn as_str(self) -> &'static str {
        match self {
            Skip::ScaleTooLow => "scale_too_low",
            Skip::NoSum => "no_sum",
            Skip::TooLarge => "too_large",
            Skip::Mismatch => "count_mismatch",
            Skip::Malformed => "malformed",
        }
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Skip::ScaleTooLow => "the scale is below -4, the lowest of a native histogram",
            Skip::NoSum => "the histogram has no sum",
            Skip::TooLarge => "a count, an index or the number of buckets of the histogram is too large",
            Skip::Mismatch => "the counts of the buckets do not add up to the count",
            Skip::Malformed => "the histogram's buckets are malformed",
        })
    }
}

impl std::error::Error for Skip {}

impl<'a> Exponential for ExponentialHistogramPoint<'a> {
    type Counts = Scalars<'a>;

    fn scalars(&self) -> ExponentialScalars {
        ExponentialScalars {
            count: self.count,
            sum: self.sum,
            scale: self.scale,
            zero_count: self.zero_count,
            zero_threshold: self.zero_threshold,
        }
    }

    fn positive(&self) -> (i64, Scalars<'a>) {
        (self.positive_offset.unwrap_or(0).into(), self.positive_counts())
    }

    fn negative(&self) -> (i64, Scalars<'a>) {
        (self.negative_offset.unwrap_or(0).into(), self.negative_counts())
    }
}

impl Explicit for HistogramPoint<'_> {
    fn count(&self) -> u64 {
        self.count
    }

    fn sum(&self) -> Option<f64> {
        self.sum
    }

    fn bounds(&self) -> impl Iterator<Item = Result<f64, WireError>> {
        self.explicit_bounds()
    }

    fn counts(&self) -> impl Iterator<Item = Result<u64, WireError>> {
        self.bucket_counts()
    }
}

/// The zero threshold if it is a width; 0 when unknown.
pub(in crate::prometheus) fn zero_threshold(given: f64) -> Result<f64, Skip> {
    if given >= 0.0 && given.is_finite() { Ok(given.abs()) } else { Err(Skip::Malformed) }
}

/// By how many bits the index of a bucket is shifted to scale it down by `steps`; beyond 63 nothing changes.
pub(in crate::prometheus) fn shift(steps: impl Into<i64>) -> u32 {
    steps.into().clamp(0, 63) as u32
}
