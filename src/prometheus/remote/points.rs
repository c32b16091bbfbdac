//! The points of each kind as series of a request.
//!
//! A point is written whole or not at all: everything that can be wrong with it is looked at before its first byte.

use super::Version;
use super::cache::Symbols;
use super::encoder::{MetricCx, RemoteEncoder};
use super::families::Known;
use super::open::Sample;
use super::pen::Pen;
use super::series::Placed;
use crate::pdata::metrics::{ExponentialHistogramPoint, HistogramPoint, Kind, Number, SummaryPoint};
use crate::pdata::wire::WireError;
use crate::prometheus::exemplars::ExemplarList;
use crate::prometheus::map::DELTA;
use crate::prometheus::native::{Exponential, Native, ORDINARY_NAN, STALE, Skip, classic};
use crate::prometheus::scan::Scan;
use crate::prometheus::text::plain_double;

/// Bit 0 of DataPointFlags.
const NO_RECORDED_VALUE: u32 = 1;

/// The most bounds or quantiles of a point, and about the most bytes that its series may take. Receivers take no
/// request that is larger.
const MAX_LIST: usize = 1 << 16;
const MAX_POINT: usize = 32 << 20;

/// The largest time that is one: beyond it nanoseconds are negative for who reads them signed.
const MAX_NANOS: u64 = i64::MAX as u64;

/// Reused from point to point.
#[derive(Default)]
pub(super) struct Scratch {
    pub native: Native,
    buckets: Vec<(f64, u64)>,
    /// Bounds and counts as packed lists.
    bounds: Vec<u8>,
    counts: Vec<u8>,
    /// Encoded fields beside a sample.
    pub extra: Vec<u8>,
    pub message: Vec<u8>,
    pub exemplars: ExemplarList,
}

impl Scratch {
    /// An exponential histogram as it is to be sent.
    fn form(&mut self, histogram: &impl Exponential, native: bool) -> Result<(), Skip> {
        if native {
            return self.native.exponential(histogram);
        }
        classic(histogram, &mut self.buckets)?;
        self.bounds.clear();
        self.bounds.extend(self.buckets.iter().flat_map(|(bound, _)| bound.to_le_bytes()));
        Ok(())
    }
}

/// How a point ended: its shard, or the reason why it is dropped.
pub(super) type End = Result<usize, &'static str>;

impl RemoteEncoder {
    /// Writes one point.
    ///
    /// # Errors
    /// It cannot be read.
    #[inline]
    pub(super) fn point(&mut self, cx: &mut MetricCx<'_, '_>, point: &[u8]) -> Result<End, WireError> {
        let kind = cx.metric.kind;
        let scan = Scan::parse(kind, point)?;
        if scan.time == 0 || scan.time > MAX_NANOS {
            return Ok(Err("timestamp"));
        }
        let time = (scan.time / 1_000_000) as i64;
        // What begins after it ended did not begin then.
        let start = if scan.start > scan.time { 0 } else { milliseconds(scan.start) };
        let end = match kind {
            Kind::Gauge | Kind::Sum | Kind::Empty => self.number(cx, &scan, point, time, start)?,
            Kind::Histogram => self.histogram(cx, &scan, point, time, start)?,
            Kind::ExponentialHistogram => self.exponential(cx, &scan, point, time, start)?,
            Kind::Summary => self.summary(cx, &scan, point, time, start)?,
        };
        if end.is_ok() {
            let times = &mut cx.resource.times;
            *times = (times.0.min(time), times.1.max(time));
        }
        Ok(end)
    }

    #[inline]
    fn number(
        &mut self,
        cx: &mut MetricCx<'_, '_>,
        scan: &Scan<'_>,
        point: &[u8],
        time: i64,
        start: i64,
    ) -> Result<End, WireError> {
        let stale = scan.flags & NO_RECORDED_VALUE != 0;
        if scan.value.is_none() && !stale {
            return Ok(Err("no_value"));
        }
        let placed = self.series.place(cx, scan, point)?;
        // A gauge has a value and counts nothing: a receiver would take its start for a zero.
        let (mut value, mut start) = (scan.value, if cx.metric.kind == Kind::Gauge { 0 } else { start });
        if cx.metric.temporality == DELTA
            && let (Some(sums), Some(delta), false) = (&mut self.sums, value, stale)
        {
            match sums.current().number(placed.key, scan.start, scan.time, delta, self.now) {
                Ok((since, sum)) => (start, value) = (milliseconds(since), Some(sum)),
                Err(refusal) => return Ok(Err(refusal.as_str())),
            }
        }
        let bits = match value {
            _ if stale => STALE,
            Some(Number::Double(value)) => ordinary(value),
            Some(Number::Int(value)) => (value as f64).to_bits(),
            None => return Ok(Err("no_value")),
        };
        let with_exemplars = scan.exemplars && cx.metric.monotonic && cx.metric.kind == Kind::Sum;
        if with_exemplars {
            self.scratch.exemplars.read(cx.metric.kind, point)?;
            self.scratch.exemplars.sort_by_time();
        }
        let horizon = self.horizon();
        let step = match self.advance(&placed, time) {
            Ok(step) => step,
            Err(reason) => return Ok(Err(reason)),
        };
        let RemoteEncoder { series, shards, scratch, version, .. } = self;
        let written = series.written(&placed, cx.family, cx.resource.partition, horizon);
        let (Some(open), Some((block, known, symbols, clash))) =
            (shards.get_mut(placed.shard as usize), written)
        else {
            return Ok(Err("no_value"));
        };
        if let Some(mut clash) = clash
            && !clash.is_first(*version, symbols, &[block], time)
        {
            return Ok(Err("collision"));
        }
        scratch.extra.clear();
        if with_exemplars {
            for exemplar in scratch.exemplars.all() {
                open.exemplar(symbols, exemplar, &mut scratch.extra);
            }
        }
        let sample = Sample { bits, time, start };
        open.series(symbols, &[block], Some(sample), &scratch.extra, known.meta);
        open.end_item(step);
        Ok(Ok(placed.shard as usize))
    }

    fn histogram(
        &mut self,
        cx: &mut MetricCx<'_, '_>,
        scan: &Scan<'_>,
        point: &[u8],
        time: i64,
        start: i64,
    ) -> Result<End, WireError> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let end = self.histogram_with(&mut scratch, cx, scan, point, time, start);
        self.scratch = scratch;
        end
    }

    fn histogram_with(
        &mut self,
        scratch: &mut Scratch,
        cx: &mut MetricCx<'_, '_>,
        scan: &Scan<'_>,
        point: &[u8],
        time: i64,
        start: i64,
    ) -> Result<End, WireError> {
        let stale = scan.flags & NO_RECORDED_VALUE != 0;
        let (mut bounds, mut counts) = (scan.bounds, scan.counts);
        let mut joined = (Vec::new(), Vec::new());
        if scan.pieces {
            let view = HistogramPoint::parse(point)?;
            for bound in view.explicit_bounds() {
                joined.0.extend_from_slice(&bound?.to_le_bytes());
            }
            for count in view.bucket_counts() {
                joined.1.extend_from_slice(&count?.to_le_bytes());
            }
            (bounds, counts) = (&joined.0, &joined.1);
        }
        if bounds.len() % 8 != 0 || counts.len() % 8 != 0 {
            return Err(WireError::Truncated);
        }
        let placed = self.series.place(cx, scan, point)?;
        let native = self.options.custom_buckets && self.version() == Version::V2;
        let classic = !native || self.options.keep_classic;
        let (mut count, mut sum, mut start) = (scan.count, scan.sum, start);
        let mut refused = None;
        if cx.metric.temporality == DELTA
            && let (Some(sums), false) = (&mut self.sums, stale)
        {
            match sums.current().histogram(placed.key, &HistogramPoint::parse(point)?, self.now) {
                Ok(total) => {
                    joined =
                        (packed(total.bounds), total.counts.iter().flat_map(|c| c.to_le_bytes()).collect());
                    (bounds, counts) = (&joined.0, &joined.1);
                    (count, sum, start) =
                        (total.count, total.sum.map(f64::to_bits), milliseconds(total.start_ns));
                    if native {
                        refused = scratch.native.custom_buckets(&total).err();
                    }
                }
                Err(refusal) => return Ok(Err(refusal.as_str())),
            }
        } else if native && !stale {
            refused = scratch.native.custom_buckets(&HistogramPoint::parse(point)?).err();
        }
        if native && stale {
            scratch.native.stale();
        }
        if let Some(skip) = refused {
            return Ok(Err(skip.as_str()));
        }
        if classic && let Err(reason) = self.prepare_bounds(&placed, cx.family, bounds) {
            return Ok(Err(reason));
        }
        scratch.exemplars.clear();
        if scan.exemplars {
            scratch.exemplars.read(cx.metric.kind, point)?;
        }
        let step = match self.advance(&placed, time) {
            Ok(step) => step,
            Err(reason) => return Ok(Err(reason)),
        };
        let Some((mut pen, scratch)) = self.pen(&placed, cx, (time, start), stale, scratch) else {
            return Ok(Err("no_value"));
        };
        if native {
            pen.native(scratch);
        }
        if classic {
            let counts = numbers(counts);
            let bounds = numbers(bounds).map(f64::from_bits);
            pen.classic(count, sum, bounds, counts, scratch);
        }
        Ok(pen.end(step))
    }

    fn exponential(
        &mut self,
        cx: &mut MetricCx<'_, '_>,
        scan: &Scan<'_>,
        point: &[u8],
        time: i64,
        start: i64,
    ) -> Result<End, WireError> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let end = self.exponential_with(&mut scratch, cx, scan, point, time, start);
        self.scratch = scratch;
        end
    }

    fn exponential_with(
        &mut self,
        scratch: &mut Scratch,
        cx: &mut MetricCx<'_, '_>,
        scan: &Scan<'_>,
        point: &[u8],
        time: i64,
        start: i64,
    ) -> Result<End, WireError> {
        let stale = scan.flags & NO_RECORDED_VALUE != 0;
        let view = ExponentialHistogramPoint::parse(point)?;
        let native = self.options.exponential == super::Exponential::Native;
        let placed = self.series.place(cx, scan, point)?;
        let (mut count, mut sum, mut start) = (scan.count, scan.sum, start);
        let formed = if cx.metric.temporality == DELTA
            && let (Some(sums), false) = (&mut self.sums, stale)
        {
            match sums.current().exponential(placed.key, &view, self.now) {
                Ok(total) => {
                    let scalars = total.scalars();
                    (count, sum, start) =
                        (scalars.count, scalars.sum.map(f64::to_bits), milliseconds(total.start_ns));
                    scratch.form(&total, native)
                }
                Err(refusal) => return Ok(Err(refusal.as_str())),
            }
        } else if stale && native {
            scratch.native.stale();
            Ok(())
        } else {
            scratch.form(&view, native)
        };
        if let Err(skip) = formed {
            return Ok(Err(skip.as_str()));
        }
        if !native && let Err(reason) = self.prepare_bounds(&placed, cx.family, &scratch.bounds) {
            return Ok(Err(reason));
        }
        scratch.exemplars.clear();
        if scan.exemplars {
            scratch.exemplars.read(cx.metric.kind, point)?;
        }
        let step = match self.advance(&placed, time) {
            Ok(step) => step,
            Err(reason) => return Ok(Err(reason)),
        };
        let Some((mut pen, scratch)) = self.pen(&placed, cx, (time, start), stale, scratch) else {
            return Ok(Err("no_value"));
        };
        if native {
            pen.native(scratch);
        } else {
            let buckets = std::mem::take(&mut scratch.buckets);
            let bounds = buckets.iter().map(|(bound, _)| *bound);
            // These counts are cumulative already.
            let mut before = 0;
            let counts =
                buckets.iter().map(|(_, count)| count.saturating_sub(std::mem::replace(&mut before, *count)));
            pen.classic(count, sum, bounds, counts, scratch);
            scratch.buckets = buckets;
        }
        Ok(pen.end(step))
    }

    fn summary(
        &mut self,
        cx: &mut MetricCx<'_, '_>,
        scan: &Scan<'_>,
        point: &[u8],
        time: i64,
        start: i64,
    ) -> Result<End, WireError> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let end = self.summary_with(&mut scratch, cx, scan, point, time, start);
        self.scratch = scratch;
        end
    }

    fn summary_with(
        &mut self,
        scratch: &mut Scratch,
        cx: &mut MetricCx<'_, '_>,
        scan: &Scan<'_>,
        point: &[u8],
        time: i64,
        start: i64,
    ) -> Result<End, WireError> {
        let stale = scan.flags & NO_RECORDED_VALUE != 0;
        scratch.bounds.clear();
        scratch.counts.clear();
        for pair in SummaryPoint::parse(point)?.quantiles() {
            let (quantile, value) = pair?;
            scratch.bounds.extend_from_slice(&quantile.to_le_bytes());
            scratch.counts.extend_from_slice(&ordinary(value).to_le_bytes());
        }
        let placed = self.series.place(cx, scan, point)?;
        if let Err(reason) = self.prepare_quantiles(&placed, cx.family, &scratch.bounds) {
            return Ok(Err(reason));
        }
        let step = match self.advance(&placed, time) {
            Ok(step) => step,
            Err(reason) => return Ok(Err(reason)),
        };
        let Some((mut pen, scratch)) = self.pen(&placed, cx, (time, start), stale, scratch) else {
            return Ok(Err("no_value"));
        };
        pen.summary(scan.count, scan.sum.unwrap_or_default(), numbers(&scratch.counts));
        Ok(pen.end(step))
    }

    /// Makes the labels of bounds, if they are not those of the family's last point.
    ///
    /// # Errors
    /// Why a point with these bounds is not sent.
    fn prepare_bounds(&mut self, placed: &Placed, family: u32, raw: &[u8]) -> Result<(), &'static str> {
        self.prepare(placed, family, raw, |known, raw, generation, version, symbols| {
            if known.bounds.fits(raw, generation) {
                return Some((known.bounds.bytes(), false));
            }
            if !ascending(raw) {
                return None;
            }
            let finite = numbers(raw).map(f64::from_bits).filter(|bound| *bound < f64::INFINITY);
            let texts = finite.chain([f64::INFINITY]).map(text);
            known.bounds.make(raw, generation, texts, "le", version, symbols);
            Some((known.bounds.bytes(), true))
        })
    }

    /// The same for quantiles, in whatever order they come.
    fn prepare_quantiles(&mut self, placed: &Placed, family: u32, raw: &[u8]) -> Result<(), &'static str> {
        self.prepare(placed, family, raw, |known, raw, generation, version, symbols| {
            if known.quantiles.fits(raw, generation) {
                return Some((known.quantiles.bytes(), false));
            }
            let mut sorted: Vec<f64> = numbers(raw).map(f64::from_bits).collect();
            sorted.sort_by(f64::total_cmp);
            let twice = sorted.iter().zip(sorted.iter().skip(1)).any(|(a, b)| a >= b);
            if twice || sorted.iter().any(|q| q.is_nan()) {
                return None;
            }
            let texts = numbers(raw).map(f64::from_bits).map(text);
            known.quantiles.make(raw, generation, texts, "quantile", version, symbols);
            Some((known.quantiles.bytes(), true))
        })
    }

    /// Has `labels` made for a list of numbers, which says how many bytes they are and whether they had to be made;
    /// looks at what the point's series take: one for each number, and up to four more.
    #[inline]
    fn prepare(
        &mut self,
        placed: &Placed,
        family: u32,
        raw: &[u8],
        labels: impl FnOnce(&mut Known, &[u8], u64, Version, &mut Symbols) -> Option<(usize, bool)>,
    ) -> Result<(), &'static str> {
        let count = raw.len() / 8;
        if count > MAX_LIST {
            return Err("too_large");
        }
        let (generation, version) = (self.series.store.generation(), self.version());
        let common = self.series.block_len(placed);
        let RemoteEncoder { series, budget, .. } = self;
        let Some(known) = series.families.get_mut(family) else { return Err("malformed") };
        let (before, name) = (known.bytes(), known.family.name.len());
        let (own, made) =
            labels(known, raw, generation, version, series.store.symbols_mut()).ok_or("malformed")?;
        if made {
            series.families.changed(family, before);
            // Texts of numbers are many times as long as the numbers.
            *budget = budget.saturating_sub(own);
        }
        if (count + 4).saturating_mul(common + name + 48).saturating_add(own) > MAX_POINT {
            return Err("too_large");
        }
        Ok(())
    }

    fn pen<'e, 's>(
        &'e mut self,
        placed: &Placed,
        cx: &MetricCx<'_, '_>,
        (time, start): (i64, i64),
        stale: bool,
        scratch: &'s mut Scratch,
    ) -> Option<(Pen<'e>, &'s mut Scratch)> {
        let (version, horizon) = (self.version(), self.horizon());
        let RemoteEncoder { series, shards, .. } = self;
        let written = series.written(placed, cx.family, cx.resource.partition, horizon);
        let (block, known, symbols, clash) = written?;
        let (first, rest) = block.split_at_checked(placed.cuts.0 as usize)?;
        let (second, third) = rest.split_at_checked((placed.cuts.1 - placed.cuts.0) as usize)?;
        let open = shards.get_mut(placed.shard as usize)?;
        let labels = [first, second, third];
        let shard = placed.shard as usize;
        let pen = Pen { labels, known, open, symbols, version, shard, time, start, stale, clash, any: false };
        Some((pen, scratch))
    }
}

/// A start time. Unset is 0, so that the beginning of time is a moment later.
#[inline]
fn milliseconds(nanos: u64) -> i64 {
    if nanos == 0 { 0 } else { ((nanos.min(MAX_NANOS) / 1_000_000) as i64).max(1) }
}

/// The bits of a value; whatever NaN it is, the ordinary one.
#[inline]
pub(super) fn ordinary(value: f64) -> u64 {
    if value.is_nan() { ORDINARY_NAN } else { value.to_bits() }
}

fn packed(numbers: &[f64]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}

fn numbers(packed: &[u8]) -> impl Iterator<Item = u64> + Clone {
    packed.chunks_exact(8).map(|b| b.try_into().map_or(0, u64::from_le_bytes))
}

/// Whether packed bounds ascend and are numbers.
fn ascending(raw: &[u8]) -> bool {
    let mut last = None;
    numbers(raw).map(f64::from_bits).all(|bound| {
        let fine = last.map_or(!bound.is_nan(), |last| bound > last);
        last = Some(bound);
        fine
    })
}

fn text(value: f64) -> String {
    let mut out = String::new();
    plain_double(value, &mut out);
    out
}
