//! One point of each kind: what is wrong with it, and what it makes of its series.

use std::sync::Arc;

use super::series::Slot;
use super::value::{Bounds, Buckets, Classic, MAX_EXEMPLARS, Summary, Value, numbers};
use super::{MetricCx, Place, State};
use crate::pdata::metrics::{ExponentialHistogramPoint, HistogramPoint, Kind, Number, SummaryPoint};
use crate::pdata::wire::WireError;
use crate::prometheus::exemplars::{ExemplarList, ExemplarText, MAX_RUNES};
use crate::prometheus::map::DELTA;
use crate::prometheus::native::{ORDINARY_NAN, classic};
use crate::prometheus::scan::Scan;

/// Bit 0 of DataPointFlags.
const NO_RECORDED_VALUE: u32 = 1;

/// The largest time that is one: beyond it nanoseconds are negative for who reads them signed.
const MAX_NANOS: u64 = i64::MAX as u64;

/// Reused from point to point.
#[derive(Default)]
pub(super) struct Scratch {
    exemplars: ExemplarList,
    buckets: Vec<(f64, u64)>,
    /// Bounds and counts, packed.
    bounds: Vec<u8>,
    counts: Vec<u8>,
}

/// Why a point is dropped.
type Dropped = &'static str;

impl State {
    /// Takes one point.
    ///
    /// # Errors
    /// It cannot be read.
    #[inline]
    pub(super) fn point(
        &mut self,
        cx: &mut MetricCx<'_, '_>,
        point: &[u8],
        now: u64,
    ) -> Result<Result<(), Dropped>, WireError> {
        let kind = cx.metric.kind;
        let scan = Scan::parse(kind, point)?;
        if scan.time > MAX_NANOS {
            return Ok(Err("timestamp"));
        }
        let stale = scan.flags & NO_RECORDED_VALUE != 0;
        let key = self.identity.attributes(kind, &scan, point)? ^ cx.seed;
        let place = match self.series.find(key) {
            Some(at) => Place::Slot(at),
            None => match self.map_labels(key, cx, point)? {
                Ok(place) => place,
                Err(reason) => return Ok(Err(reason)),
            },
        };
        if let Place::Slot(at) = place
            && self.series.get(at).is_some_and(|slot| scan.time < slot.time)
        {
            return Ok(Err("out_of_order"));
        }
        if stale {
            // The series ends: a scrape that does not find it any more notices.
            if let Place::Slot(at) = place {
                self.series.remove(at);
            }
            return Ok(Ok(()));
        }
        let sum_key = match (&place, cx.metric.temporality == DELTA) {
            (_, false) => 0,
            (Place::Slot(at), true) => self.sum_key(&cx.family.name, Some(*at)),
            (Place::New(_), true) => self.sum_key(&cx.family.name, None),
        };
        let stored = match kind {
            Kind::Gauge | Kind::Sum | Kind::Empty => self.number(cx, &scan, &place, sum_key, now),
            Kind::Histogram => self.histogram(cx, &scan, point, &place, sum_key, now)?,
            Kind::ExponentialHistogram => self.exponential(cx, point, &place, sum_key, now)?,
            Kind::Summary => self.summary(cx, &scan, point, &place)?,
        };
        let at = match stored {
            Ok(at) => at,
            Err(reason) => return Ok(Err(reason)),
        };
        let counts = kind != Kind::Sum || cx.metric.monotonic;
        let exemplars = if self.options.exemplars && scan.exemplars && kind != Kind::Gauge && counts {
            self.read_exemplars(kind, point)?
        } else {
            None
        };
        if let Some(slot) = self.series.get_mut(at) {
            (slot.time, slot.seen, slot.exemplars) = (scan.time, now, exemplars);
        }
        let latest = &mut cx.resource.latest;
        *latest = Some(latest.unwrap_or(0).max(scan.time));
        Ok(Ok(()))
    }

    /// The key of a running sum: one a series, whoever adds to it.
    fn sum_key(&self, family: &str, at: Option<u32>) -> u128 {
        let labels = match at.and_then(|at| self.series.get(at)) {
            Some(slot) => &*slot.labels,
            None => &self.block,
        };
        self.identity.hash(family.as_bytes()) ^ self.identity.hash(labels.as_bytes()).rotate_left(1)
    }

    /// Puts a value where its series is, or makes the series.
    fn put(
        &mut self,
        cx: &MetricCx<'_, '_>,
        place: &Place,
        update: impl FnOnce(Option<&mut Value>) -> Option<Value>,
    ) -> Result<u32, Dropped> {
        match *place {
            Place::Slot(at) => {
                let Some(Slot { value, .. }) = self.series.get_mut(at) else { return Err("max_series") };
                if let Some(new) = update(Some(value)) {
                    *value = new;
                }
                if self.series.reweigh(at) { Ok(at) } else { Err("max_series") }
            }
            Place::New(key) => {
                let Some(value) = update(None) else { return Err("no_value") };
                let block = std::mem::take(&mut self.block);
                let inserted = self.series.insert(key, &cx.family, &block, value);
                self.block = block;
                inserted.map_err(|refusal| refusal.reason())
            }
        }
    }

    #[inline]
    fn number(
        &mut self,
        cx: &MetricCx<'_, '_>,
        scan: &Scan<'_>,
        place: &Place,
        sum_key: u128,
        now: u64,
    ) -> Result<u32, Dropped> {
        let mut value = scan.value.ok_or("no_value")?;
        if cx.metric.temporality == DELTA {
            let sum = self.sums.number(sum_key, scan.start, scan.time, value, now as i64);
            value = sum.map_err(|refusal| refusal.as_str())?.1;
        }
        let bits = match value {
            Number::Double(value) => ordinary(value),
            Number::Int(value) => (value as f64).to_bits(),
        };
        self.put(cx, place, |_| Some(Value::Number(bits)))
    }

    fn histogram(
        &mut self,
        cx: &MetricCx<'_, '_>,
        scan: &Scan<'_>,
        point: &[u8],
        place: &Place,
        sum_key: u128,
        now: u64,
    ) -> Result<Result<u32, Dropped>, WireError> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let (mut count, mut sum) = (scan.count, scan.sum);
        let mut packed = (scan.bounds, scan.counts);
        if cx.metric.temporality == DELTA {
            match self.sums.histogram(sum_key, &HistogramPoint::parse(point)?, now as i64) {
                Ok(total) => {
                    (count, sum) = (total.count, total.sum.map(f64::to_bits));
                    scratch.pack(
                        total.bounds.iter().map(|b| Ok(b.to_bits())),
                        total.counts.iter().copied().map(Ok),
                    )?;
                }
                Err(refusal) => {
                    self.scratch = scratch;
                    return Ok(Err(refusal.as_str()));
                }
            }
            packed = (&scratch.bounds, &scratch.counts);
        } else if scan.pieces {
            let view = HistogramPoint::parse(point)?;
            scratch.pack(view.explicit_bounds().map(|b| b.map(f64::to_bits)), view.bucket_counts())?;
            packed = (&scratch.bounds, &scratch.counts);
        }
        let (bounds, counts) = packed;
        if bounds.len() % 8 != 0 || counts.len() % 8 != 0 {
            return Err(WireError::Truncated);
        }
        let stored = match self.bounds(cx.known, bounds) {
            Err(reason) => Err(reason),
            Ok(bounds) => self.put(cx, place, |old| {
                let counts = numbers(counts).take(bounds.values.len());
                let sum = sum.map(|sum| ordinary(f64::from_bits(sum)));
                if let Some(Value::Classic(classic)) = old {
                    (classic.count, classic.sum, classic.bounds) = (count, sum, bounds);
                    classic.counts.clear();
                    classic.counts.extend(counts);
                    return None;
                }
                let counts = counts.collect();
                Some(Value::Classic(Box::new(Classic { count, sum, bounds, counts })))
            }),
        };
        self.scratch = scratch;
        Ok(stored)
    }

    /// Bounds, the same object for equal ones in a row.
    fn bounds(&mut self, known: u32, raw: &[u8]) -> Result<Arc<Bounds>, Dropped> {
        let Some(known) = self.known.get_mut(known as usize) else { return Err("malformed") };
        if let Some(bounds) = &known.bounds
            && bounds.raw == raw
        {
            return Ok(bounds.clone());
        }
        let bounds = Bounds::new(raw).map_err(|_| "too_large")?.ok_or("malformed")?;
        Ok(known.bounds.insert(Arc::new(bounds)).clone())
    }

    fn exponential(
        &mut self,
        cx: &MetricCx<'_, '_>,
        point: &[u8],
        place: &Place,
        sum_key: u128,
        now: u64,
    ) -> Result<Result<u32, Dropped>, WireError> {
        let view = ExponentialHistogramPoint::parse(point)?;
        // Read once for what may be wrong with it: every form can be written of what passes.
        if let Err(skip) = classic(&view, &mut self.scratch.buckets) {
            return Ok(Err(skip.as_str()));
        }
        let mut buckets = Buckets::default();
        let fits = if cx.metric.temporality == DELTA {
            match self.sums.exponential(sum_key, &view, now as i64) {
                Ok(total) => buckets.fill(&total),
                Err(refusal) => return Ok(Err(refusal.as_str())),
            }
        } else {
            buckets.fill(&view)
        };
        if !fits {
            return Ok(Err("too_large"));
        }
        Ok(self.put(cx, place, |old| match old {
            Some(Value::Exponential(old)) => {
                **old = buckets;
                None
            }
            _ => Some(Value::Exponential(Box::new(buckets))),
        }))
    }

    fn summary(
        &mut self,
        cx: &MetricCx<'_, '_>,
        scan: &Scan<'_>,
        point: &[u8],
        place: &Place,
    ) -> Result<Result<u32, Dropped>, WireError> {
        let mut summary = Summary {
            count: scan.count,
            sum: ordinary(f64::from_bits(scan.sum.unwrap_or_default())),
            quantiles: Vec::new(),
        };
        for pair in SummaryPoint::parse(point)?.quantiles() {
            let (quantile, value) = pair?;
            summary.quantiles.push((quantile, ordinary(value)));
        }
        summary.quantiles.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut pairs = summary.quantiles.iter().zip(summary.quantiles.iter().skip(1));
        if pairs.any(|(a, b)| a.0 >= b.0) || summary.quantiles.iter().any(|(q, _)| q.is_nan()) {
            return Ok(Err("malformed"));
        }
        Ok(self.put(cx, place, |_| Some(Value::Summary(Box::new(summary)))))
    }

    fn read_exemplars(&mut self, kind: Kind, point: &[u8]) -> Result<Option<Box<[ExemplarText]>>, WireError> {
        let list = &mut self.scratch.exemplars;
        list.read(kind, point)?;
        if kind == Kind::Sum || list.all().len() > MAX_EXEMPLARS {
            list.sort_by_time();
        }
        let keep = if kind == Kind::Sum { 1 } else { MAX_EXEMPLARS };
        let all = list.all();
        let mut newest = all.get(all.len().saturating_sub(keep)..).unwrap_or_default().to_vec();
        newest.sort_by(|a, b| f64::from_bits(a.bits).total_cmp(&f64::from_bits(b.bits)));
        for exemplar in &mut newest {
            self.name_labels(exemplar);
        }
        Ok((!newest.is_empty()).then(|| newest.into_boxed_slice()))
    }

    /// Names the labels of an exemplar as labels are named; what becomes one label keeps the first value.
    pub(super) fn name_labels(&self, exemplar: &mut ExemplarText) {
        for (name, _) in &mut exemplar.labels {
            let mut named = String::new();
            if self.options.map.namer.label(name, &mut named).is_err() {
                named.clear();
            }
            *name = named;
        }
        exemplar.labels.retain(|(name, _)| !name.is_empty());
        exemplar.labels.sort_by(|a, b| a.0.cmp(&b.0));
        exemplar.labels.dedup_by(|a, b| a.0 == b.0);
        // Names may have grown.
        let runes = |(name, value): &(String, String)| name.chars().count() + value.chars().count();
        if exemplar.labels.iter().map(runes).sum::<usize>() > MAX_RUNES {
            exemplar.labels.retain(|(name, _)| matches!(name.as_str(), "trace_id" | "span_id"));
        }
    }
}

impl Scratch {
    fn pack(
        &mut self,
        bounds: impl Iterator<Item = Result<u64, WireError>>,
        counts: impl Iterator<Item = Result<u64, WireError>>,
    ) -> Result<(), WireError> {
        self.bounds.clear();
        self.counts.clear();
        for bound in bounds {
            self.bounds.extend_from_slice(&bound?.to_le_bytes());
        }
        for count in counts {
            self.counts.extend_from_slice(&count?.to_le_bytes());
        }
        Ok(())
    }
}

/// The bits of a value; whatever NaN it is, the ordinary one.
#[inline]
fn ordinary(value: f64) -> u64 {
    if value.is_nan() { ORDINARY_NAN } else { value.to_bits() }
}
