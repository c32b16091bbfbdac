//! Last values, in the form from which every format is written.

use std::slice;
use std::sync::Arc;

use crate::pdata::wire::WireError;
use crate::prometheus::delta::MAX_BOUNDS;
use crate::prometheus::exemplars::ExemplarText;
use crate::prometheus::native::{Exponential, ExponentialScalars, MAX_CLASSIC_BUCKETS};
use crate::prometheus::text::{openmetrics_double, sample_double};

/// Exponential histograms whose occupied buckets of one sign span more than this are not kept.
pub const MAX_SPAN: usize = 2048;

/// So many exemplars of a point are kept.
pub const MAX_EXEMPLARS: usize = 160;

/// The last value of a series, or of those that go together.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// The bits of a double.
    Number(u64),
    /// A histogram with explicit bounds.
    Classic(Box<Classic>),
    /// An exponential histogram.
    Exponential(Box<Buckets>),
    /// Quantiles.
    Summary(Box<Summary>),
}

/// A histogram with explicit bounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Classic {
    /// How many values.
    pub count: u64,
    /// The bits of their sum.
    pub sum: Option<u64>,
    /// The bounds, shared with other series of the metric.
    pub bounds: Arc<Bounds>,
    /// How many values each bucket has by itself.
    pub counts: Vec<u64>,
}

/// Bounds of buckets, and how they are written.
#[derive(Debug, PartialEq)]
pub struct Bounds {
    /// As they came, packed.
    pub raw: Vec<u8>,
    /// Those that are less than infinite.
    pub values: Vec<f64>,
    /// Their text, as Prometheus' own libraries write it in the text format.
    pub plain: Vec<String>,
    /// Their text in OpenMetrics.
    pub open: Vec<String>,
}

/// An exponential histogram: counts from the first occupied bucket to the last.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Buckets {
    /// All but the buckets.
    pub scalars: ExponentialScalars,
    positive: Side,
    negative: Side,
}

/// Quantiles, ascending.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// How many values.
    pub count: u64,
    /// The bits of their sum.
    pub sum: u64,
    /// Quantiles, and the bits of their values.
    pub quantiles: Vec<(f64, u64)>,
}

/// Counts of one side.
#[derive(Debug, Clone)]
pub struct Counts<'a>(slice::Iter<'a, u64>);

#[derive(Debug, Clone, Default, PartialEq)]
struct Side {
    first: i64,
    counts: Vec<u64>,
}

impl Value {
    /// How many series of Prometheus it makes.
    pub fn weight(&self) -> u32 {
        let series = match self {
            Value::Number(_) => 1,
            Value::Classic(classic) => classic.bounds.values.len() + 3,
            Value::Exponential(buckets) => {
                (buckets.positive.counts.len() + buckets.negative.counts.len()).min(MAX_CLASSIC_BUCKETS) + 4
            }
            Value::Summary(summary) => summary.quantiles.len() + 2,
        };
        series as u32
    }
}

impl Bounds {
    /// Reads packed bounds; `None` if they do not ascend, `Err` if there are too many.
    pub fn new(raw: &[u8]) -> Result<Option<Self>, TooMany> {
        if raw.len() / 8 > MAX_BOUNDS {
            return Err(TooMany);
        }
        let mut values = Vec::with_capacity(raw.len() / 8);
        let mut last = None;
        for bound in numbers(raw).map(f64::from_bits) {
            if bound.is_nan() || last.is_some_and(|last| last >= bound) {
                return Ok(None);
            }
            last = Some(bound);
            if bound < f64::INFINITY {
                values.push(bound);
            }
        }
        let texts = |write: fn(f64, &mut String)| {
            let text = |value: &f64| {
                let mut out = String::new();
                write(*value, &mut out);
                out
            };
            values.iter().map(text).collect()
        };
        let (plain, open) = (texts(plain_bound), texts(openmetrics_double));
        Ok(Some(Bounds { raw: raw.to_vec(), values, plain, open }))
    }
}

/// More bounds than are kept.
#[derive(Debug)]
pub struct TooMany;

impl Classic {
    /// Bounds by their number, and how many values are no greater, ascending; without that of +Inf.
    pub fn cumulative(&self) -> impl Iterator<Item = (usize, f64, u64)> {
        let mut below = 0_u64;
        let pairs = self.bounds.values.iter().zip(&self.counts).enumerate();
        pairs.map(move |(at, (bound, count))| {
            below = below.saturating_add(*count);
            (at, *bound, below)
        })
    }
}

impl Buckets {
    /// Takes over a histogram; `false` if its buckets span too much, and it is then not to be used.
    pub fn fill(&mut self, from: &impl Exponential) -> bool {
        self.scalars = from.scalars();
        self.positive.fill(from.positive()) && self.negative.fill(from.negative())
    }
}

impl Side {
    fn fill(&mut self, (first, counts): (i64, impl Iterator<Item = Result<u64, WireError>>)) -> bool {
        self.counts.clear();
        // Counts that cannot be read were refused before.
        for (index, count) in (first..).zip(counts.map_while(Result::ok)).filter(|(_, count)| *count > 0) {
            if self.counts.is_empty() {
                self.first = index;
            }
            let place = (index - self.first) as usize;
            if place >= MAX_SPAN {
                self.counts.clear();
                return false;
            }
            self.counts.resize(place, 0);
            self.counts.push(count);
        }
        true
    }
}

impl Iterator for Counts<'_> {
    type Item = Result<u64, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|count| Ok(*count))
    }
}

impl<'a> Exponential for &'a Buckets {
    type Counts = Counts<'a>;

    fn scalars(&self) -> ExponentialScalars {
        self.scalars
    }

    fn positive(&self) -> (i64, Counts<'a>) {
        (self.positive.first, Counts(self.positive.counts.iter()))
    }

    fn negative(&self) -> (i64, Counts<'a>) {
        (self.negative.first, Counts(self.negative.counts.iter()))
    }
}

/// Of exemplars that are sorted by value, the newest of those that are no greater than `bound`, and the rest.
pub fn newest_up_to(exemplars: &[ExemplarText], bound: f64) -> (Option<&ExemplarText>, &[ExemplarText]) {
    let within = |e: &ExemplarText| f64::from_bits(e.bits) <= bound || bound == f64::INFINITY;
    let (these, rest) = exemplars.split_at(exemplars.partition_point(within));
    (these.iter().max_by_key(|e| e.time), rest)
}

/// Packed numbers.
pub fn numbers(packed: &[u8]) -> impl Iterator<Item = u64> + Clone {
    packed.chunks_exact(8).map(|b| b.try_into().map_or(0, u64::from_le_bytes))
}

/// A bound or quantile in the text format.
pub fn plain_bound(value: f64, out: &mut String) {
    // Zero has one form, or two buckets could have one bound.
    sample_double((value + 0.0).to_bits(), out);
}
