//! The protobuf format: length-delimited `io.prometheus.client.MetricFamily` messages. The one that has native
//! histograms.
//!
//! A family that is larger than a part comes in several messages in a row, which scrapers read as one.

#[cfg(test)]
mod tests;

use super::Head;
use super::text::pairs;
use crate::exporters::prometheus::state::series::Slot;
use crate::exporters::prometheus::state::value::{Buckets, Classic, Summary, Value, newest_up_to};
use crate::pdata::wire::{put_bytes, put_tag, put_varint};
use crate::prometheus::exemplars::ExemplarText;
use crate::prometheus::map::MetricType;
use crate::prometheus::native::{Native, Side, classic};

/// Field numbers of `MetricFamily`.
mod family {
    pub const NAME: u32 = 1;
    pub const HELP: u32 = 2;
    pub const TYPE: u32 = 3;
    pub const METRIC: u32 = 4;
    pub const UNIT: u32 = 5;
}

/// Field numbers of `Metric`.
mod metric {
    pub const LABEL: u32 = 1;
    pub const GAUGE: u32 = 2;
    pub const COUNTER: u32 = 3;
    pub const SUMMARY: u32 = 4;
    pub const UNTYPED: u32 = 5;
    pub const TIMESTAMP_MS: u32 = 6;
    pub const HISTOGRAM: u32 = 7;
}

/// Field numbers of `Histogram`.
mod histogram {
    pub const SAMPLE_COUNT: u32 = 1;
    pub const SAMPLE_SUM: u32 = 2;
    pub const BUCKET: u32 = 3;
    pub const SCHEMA: u32 = 5;
    pub const ZERO_THRESHOLD: u32 = 6;
    pub const ZERO_COUNT: u32 = 7;
    pub const NEGATIVE_SPAN: u32 = 9;
    pub const NEGATIVE_DELTA: u32 = 10;
    pub const POSITIVE_SPAN: u32 = 12;
    pub const POSITIVE_DELTA: u32 = 13;
    pub const EXEMPLARS: u32 = 16;
}

const VARINT: u8 = 0;
const FIXED64: u8 = 1;

/// Writes families.
#[derive(Debug)]
pub struct ProtoWriter {
    timestamps: bool,
    /// The family at hand: what describes it, and its series so far.
    described: Vec<u8>,
    metrics: Vec<u8>,
    message: Vec<u8>,
    inner: Vec<u8>,
    small: Vec<u8>,
    native: Native,
    buckets: Vec<(f64, u64)>,
}

impl ProtoWriter {
    /// A writer for one page.
    pub fn new(timestamps: bool) -> Self {
        ProtoWriter {
            timestamps,
            described: Vec::new(),
            metrics: Vec::new(),
            message: Vec::new(),
            inner: Vec::new(),
            small: Vec::new(),
            native: Native::default(),
            buckets: Vec::new(),
        }
    }

    /// Begins a family.
    pub fn head(&mut self, head: &Head, help: &str, unit: &str) {
        let kind = match head.kind {
            MetricType::Counter => 0,
            MetricType::Gauge | MetricType::Info | MetricType::StateSet => 1,
            MetricType::Summary => 2,
            MetricType::Unknown => 3,
            MetricType::Histogram => 4,
        };
        let out = &mut self.described;
        out.clear();
        put_bytes(out, family::NAME, head.sample.as_bytes());
        if !help.is_empty() {
            put_bytes(out, family::HELP, help.as_bytes());
        }
        put_tag(out, family::TYPE, VARINT);
        put_varint(out, kind);
        if !unit.is_empty() {
            put_bytes(out, family::UNIT, unit.as_bytes());
        }
    }

    /// How many bytes have not been taken.
    pub fn pending(&self) -> usize {
        self.metrics.len()
    }

    /// Appends the series so far as a message. The family may go on after it.
    pub fn flush(&mut self, out: &mut Vec<u8>) {
        if !self.metrics.is_empty() {
            put_varint(out, (self.described.len() + self.metrics.len()) as u64);
            out.extend_from_slice(&self.described);
            out.append(&mut self.metrics);
        }
    }

    /// Adds the series of a slot. `labels` replaces its own if given.
    pub fn slot(&mut self, head: &Head, slot: &Slot, labels: Option<&str>) {
        self.message.clear();
        for (name, value) in pairs(labels.unwrap_or(&slot.labels)) {
            put_label(metric::LABEL, &name, &value, &mut self.small, &mut self.message);
        }
        let exemplars = slot.exemplars.as_deref().unwrap_or_default();
        self.inner.clear();
        let number = match &slot.value {
            Value::Number(bits) => {
                put_double(1, *bits, &mut self.inner);
                match head.kind {
                    MetricType::Counter => {
                        exemplars.last().into_iter().for_each(|e| put_exemplar(2, e, &mut self.inner));
                        metric::COUNTER
                    }
                    MetricType::Unknown => metric::UNTYPED,
                    _ => metric::GAUGE,
                }
            }
            Value::Classic(classic) => {
                self.classic(classic, exemplars);
                metric::HISTOGRAM
            }
            Value::Exponential(buckets) => {
                self.exponential(buckets, exemplars);
                metric::HISTOGRAM
            }
            Value::Summary(summary) => {
                self.summary(summary);
                metric::SUMMARY
            }
        };
        put_bytes(&mut self.message, number, &self.inner);
        if self.timestamps && slot.time != 0 {
            put_tag(&mut self.message, metric::TIMESTAMP_MS, VARINT);
            put_varint(&mut self.message, slot.time / 1_000_000);
        }
        put_bytes(&mut self.metrics, family::METRIC, &self.message);
    }

    fn count_and_sum(&mut self, count: u64, sum: Option<u64>) {
        put_tag(&mut self.inner, histogram::SAMPLE_COUNT, VARINT);
        put_varint(&mut self.inner, count);
        if let Some(sum) = sum {
            put_double(histogram::SAMPLE_SUM, sum, &mut self.inner);
        }
    }

    fn bucket(&mut self, bound: f64, count: u64, exemplar: Option<&ExemplarText>) {
        self.small.clear();
        put_tag(&mut self.small, 1, VARINT);
        put_varint(&mut self.small, count);
        put_double(2, bound.to_bits(), &mut self.small);
        exemplar.into_iter().for_each(|e| put_exemplar(3, e, &mut self.small));
        put_bytes(&mut self.inner, histogram::BUCKET, &self.small);
    }

    fn classic(&mut self, classic: &Classic, exemplars: &[ExemplarText]) {
        self.count_and_sum(classic.count, classic.sum);
        let mut rest = exemplars;
        for (_, bound, count) in classic.cumulative() {
            let exemplar;
            (exemplar, rest) = newest_up_to(rest, bound);
            self.bucket(bound, count, exemplar);
        }
        self.bucket(f64::INFINITY, classic.count, newest_up_to(rest, f64::INFINITY).0);
    }

    fn exponential(&mut self, buckets: &Buckets, exemplars: &[ExemplarText]) {
        let scalars = buckets.scalars;
        if self.native.exponential(&buckets).is_err() {
            return self.as_classic(buckets, exemplars);
        }
        self.count_and_sum(scalars.count, Some(self.native.sum_bits));
        let ProtoWriter { native, inner, small, .. } = self;
        put_tag(inner, histogram::SCHEMA, VARINT);
        put_varint(inner, zigzag(native.schema.into()));
        put_double(histogram::ZERO_THRESHOLD, native.zero_threshold.to_bits(), inner);
        put_tag(inner, histogram::ZERO_COUNT, VARINT);
        put_varint(inner, native.zero_count);
        put_side(&native.negative, histogram::NEGATIVE_SPAN, histogram::NEGATIVE_DELTA, small, inner);
        put_side(&native.positive, histogram::POSITIVE_SPAN, histogram::POSITIVE_DELTA, small, inner);
        exemplars.iter().for_each(|e| put_exemplar(histogram::EXEMPLARS, e, inner));
    }

    /// What native histograms cannot hold: without a sum, too coarse, or with buckets that do not add up.
    fn as_classic(&mut self, buckets: &Buckets, exemplars: &[ExemplarText]) {
        let (scalars, mut bounds) = (buckets.scalars, std::mem::take(&mut self.buckets));
        self.count_and_sum(scalars.count, scalars.sum.map(f64::to_bits));
        if classic(&buckets, &mut bounds).is_err() {
            bounds.clear();
        }
        let mut rest = exemplars;
        for &(bound, count) in &bounds {
            let exemplar;
            (exemplar, rest) = newest_up_to(rest, bound);
            self.bucket(bound, count, exemplar);
        }
        self.bucket(f64::INFINITY, scalars.count, newest_up_to(rest, f64::INFINITY).0);
        self.buckets = bounds;
    }

    fn summary(&mut self, summary: &Summary) {
        self.count_and_sum(summary.count, Some(summary.sum));
        for &(quantile, bits) in &summary.quantiles {
            self.small.clear();
            put_double(1, quantile.to_bits(), &mut self.small);
            put_double(2, bits, &mut self.small);
            put_bytes(&mut self.inner, 3, &self.small);
        }
    }
}

fn put_side(side: &Side, spans: u32, deltas: u32, small: &mut Vec<u8>, out: &mut Vec<u8>) {
    for &(offset, length) in &side.spans {
        small.clear();
        put_tag(small, 1, VARINT);
        put_varint(small, zigzag(offset.into()));
        put_tag(small, 2, VARINT);
        put_varint(small, length.into());
        put_bytes(out, spans, small);
    }
    for &delta in &side.deltas {
        put_tag(out, deltas, VARINT);
        put_varint(out, zigzag(delta));
    }
}

fn put_label(number: u32, name: &str, value: &str, small: &mut Vec<u8>, out: &mut Vec<u8>) {
    small.clear();
    put_bytes(small, 1, name.as_bytes());
    put_bytes(small, 2, value.as_bytes());
    put_bytes(out, number, small);
}

fn put_exemplar(number: u32, exemplar: &ExemplarText, out: &mut Vec<u8>) {
    let (mut message, mut small) = (Vec::new(), Vec::new());
    for (name, value) in &exemplar.labels {
        put_label(1, name, value, &mut small, &mut message);
    }
    put_double(2, exemplar.bits, &mut message);
    small.clear();
    put_tag(&mut small, 1, VARINT);
    put_varint(&mut small, (exemplar.time / 1000) as u64);
    put_tag(&mut small, 2, VARINT);
    put_varint(&mut small, (exemplar.time % 1000 * 1_000_000) as u64);
    put_bytes(&mut message, 3, &small);
    put_bytes(out, number, &message);
}

fn put_double(number: u32, bits: u64, out: &mut Vec<u8>) {
    put_tag(out, number, FIXED64);
    out.extend_from_slice(&bits.to_le_bytes());
}

/// The wire form of sint32 and sint64.
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}
