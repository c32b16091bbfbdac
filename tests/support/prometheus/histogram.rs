//! What makes a native histogram valid, and its buckets one by one.

use super::wire::{BucketSpan, Count, Histogram, ZeroCount};
use super::{Findings, STALE};

/// The schema of custom bucket bounds.
pub const CUSTOM: i32 = -53;

/// Holds a histogram against the rules.
pub fn check(histogram: &Histogram, findings: &mut Findings) {
    let say = |what: &str| format!("{what}: {histogram:?}");
    let custom = histogram.schema == CUSTOM;
    if !custom && !(-4..=8).contains(&histogram.schema) {
        findings.add("histogram-schema", say("schema"));
    }
    let float = matches!(histogram.count, Some(Count::Float(_)));
    let zero_is_float = matches!(histogram.zero_count, Some(ZeroCount::Float(_)));
    let has_deltas = !histogram.positive_deltas.is_empty() || !histogram.negative_deltas.is_empty();
    let has_counts = !histogram.positive_counts.is_empty() || !histogram.negative_counts.is_empty();
    if histogram.count.is_none()
        || float && has_deltas
        || !float && has_counts
        || histogram.zero_count.is_some() && zero_is_float != float
    {
        findings.add("histogram-flavour", say("integers and floats mixed, or no count"));
    }
    if !(histogram.zero_threshold >= 0.0 && histogram.zero_threshold.is_finite()) {
        findings.add("histogram-zero-threshold", say("zero threshold"));
    }
    if custom {
        check_custom(histogram, findings);
    } else if !histogram.custom_values.is_empty() {
        findings.add("histogram-custom-values", say("bounds with an exponential schema"));
    }
    if histogram.sum.to_bits() == STALE {
        let empty = count(histogram) == 0.0
            && zero_count(histogram) == 0.0
            && histogram.positive_spans.is_empty()
            && histogram.negative_spans.is_empty();
        if !empty || has_deltas || has_counts {
            findings.add("histogram-stale-not-empty", say("a stale marker with content"));
        }
        return;
    }
    let sides = [
        (&histogram.positive_spans, &histogram.positive_deltas, &histogram.positive_counts),
        (&histogram.negative_spans, &histogram.negative_deltas, &histogram.negative_counts),
    ];
    let mut total = zero_count(histogram);
    for (spans, deltas, counts) in sides {
        if spans.iter().any(|span| span.length == 0) {
            findings.add("histogram-span-empty", say("a span of no buckets"));
        }
        if spans.iter().skip(1).any(|span| span.offset < 0) || custom && spans.iter().any(|s| s.offset < 0) {
            findings.add("histogram-span-offset", say("a span that goes back"));
        }
        let buckets: u64 = spans.iter().map(|span| u64::from(span.length)).sum();
        if buckets != (deltas.len() + counts.len()) as u64 {
            findings.add("histogram-span-length", say("spans and buckets disagree"));
        }
        if indices(spans).iter().any(|index| i32::try_from(*index).is_err()) {
            findings.add("histogram-index", say("a bucket beyond 32 bits"));
        }
        let counts = absolute(deltas, counts);
        if counts.iter().any(|c| *c < 0.0 || !c.is_finite()) {
            findings.add("histogram-negative-count", say("a bucket of less than nothing"));
        }
        total += counts.iter().sum::<f64>();
    }
    // NaN is observed, but falls into no bucket.
    let agrees = if histogram.sum.is_nan() { total <= count(histogram) } else { total == count(histogram) };
    if !agrees {
        findings.add("histogram-count", say("buckets do not add up to the count"));
    }
}

fn check_custom(histogram: &Histogram, findings: &mut Findings) {
    let say = |what: &str| format!("{what}: {histogram:?}");
    let bounds = &histogram.custom_values;
    if !bounds.is_sorted_by(|a, b| a < b) || bounds.iter().any(|b| b.is_nan() || *b == f64::INFINITY) {
        findings.add("histogram-custom-values", say("bounds not in order, or not bounds"));
    }
    if zero_count(histogram) != 0.0
        || histogram.zero_threshold != 0.0
        || !histogram.negative_spans.is_empty()
        || !histogram.negative_deltas.is_empty()
    {
        findings.add("histogram-custom-zero", say("zero bucket or negative buckets with custom bounds"));
    }
    if indices(&histogram.positive_spans).last().is_some_and(|last| *last > bounds.len() as i64) {
        findings.add("histogram-custom-range", say("a bucket beyond the last bound"));
    }
}

/// The count as a number.
pub fn count(histogram: &Histogram) -> f64 {
    match histogram.count {
        Some(Count::Int(count)) => count as f64,
        Some(Count::Float(count)) => count,
        None => 0.0,
    }
}

/// The zero count as a number.
pub fn zero_count(histogram: &Histogram) -> f64 {
    match histogram.zero_count {
        Some(ZeroCount::Int(count)) => count as f64,
        Some(ZeroCount::Float(count)) => count,
        None => 0.0,
    }
}

/// Index and count of each positive bucket that is not empty.
pub fn positive(histogram: &Histogram) -> Vec<(i64, f64)> {
    buckets(&histogram.positive_spans, &histogram.positive_deltas, &histogram.positive_counts)
}

/// Index and count of each negative bucket that is not empty.
pub fn negative(histogram: &Histogram) -> Vec<(i64, f64)> {
    buckets(&histogram.negative_spans, &histogram.negative_deltas, &histogram.negative_counts)
}

fn buckets(spans: &[BucketSpan], deltas: &[i64], counts: &[f64]) -> Vec<(i64, f64)> {
    let all = indices(spans).into_iter().zip(absolute(deltas, counts));
    all.filter(|(_, count)| *count != 0.0).collect()
}

/// The index of every bucket.
fn indices(spans: &[BucketSpan]) -> Vec<i64> {
    let mut all = Vec::new();
    let mut next = 0i64;
    for span in spans {
        next += i64::from(span.offset);
        // Whatever the lengths say, no more than a request can hold.
        for _ in 0..span.length.min(1 << 20) {
            all.push(next);
            next += 1;
        }
    }
    all
}

fn absolute(deltas: &[i64], counts: &[f64]) -> Vec<f64> {
    let mut sum = 0i128;
    let from_deltas = deltas.iter().map(|delta| {
        sum += i128::from(*delta);
        sum as f64
    });
    from_deltas.chain(counts.iter().copied()).collect()
}
