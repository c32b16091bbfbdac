//! Any bytes as a histogram's point: no panic, and the native form expands to what the slow version makes of
//! the same counts, in which nothing is lost. Classic buckets ascend and end with all that have a finite bound.
#![no_main]

#[path = "../../src/prometheus/native/slow.rs"]
mod slow;

use libfuzzer_sys::fuzz_target;
use tidegate::pdata::metrics::{ExponentialHistogramPoint, HistogramPoint};
use tidegate::prometheus::native::{MAX_CLASSIC_BUCKETS, MAX_NATIVE_BUCKETS, Native, Skip, classic};

fuzz_target!(|data: &[u8]| {
    let (mut native, mut out) = (Native::default(), Vec::new());
    if let Ok(point) = HistogramPoint::parse(data) {
        custom(&point, &mut native);
    }
    if let Ok(point) = ExponentialHistogramPoint::parse(data) {
        exponential(&point, &mut native);
        if classic(&point, &mut out).is_ok() {
            assert!(out.len() <= MAX_CLASSIC_BUCKETS);
            assert!(out.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 <= w[1].1), "{out:?}");
        }
    }
});

fn exponential(point: &ExponentialHistogramPoint<'_>, native: &mut Native) {
    let done = native.exponential(point);
    let positive: Result<Vec<u64>, _> = point.positive_counts().collect();
    let negative: Result<Vec<u64>, _> = point.negative_counts().collect();
    let (Ok(positive), Ok(negative)) = (positive, negative) else {
        assert!(done.is_err());
        return;
    };
    let of = |offset: Option<i32>, counts: &[u64]| {
        slow::native(offset.unwrap_or_default().into(), counts, point.scale)
    };
    let want = (of(point.positive_offset, &positive), of(point.negative_offset, &negative));
    let buckets = want.0.iter().chain(&want.1);
    let fits =
        buckets.clone().all(|(&index, &count)| i32::try_from(index).is_ok() && i64::try_from(count).is_ok());
    let total: u128 = buckets.map(|(_, count)| count).sum::<u128>() + u128::from(point.zero_count);
    match done {
        Ok(()) => {
            let sides = [&native.positive, &native.negative].map(|s| slow::expand(&s.spans, &s.deltas));
            assert_eq!(sides, [want.0, want.1]);
            assert!(total <= point.count.into());
            let mut bytes = Vec::new();
            native.encode(1, 1, &mut bytes);
        }
        Err(Skip::ScaleTooLow) => assert!(point.scale < -4),
        Err(Skip::NoSum) => assert_eq!(point.sum, None),
        Err(Skip::TooLarge) => {
            let many = positive.len().max(negative.len()) > MAX_NATIVE_BUCKETS;
            assert!(!fits || total > u64::MAX.into() || many);
        }
        Err(Skip::Mismatch) => assert_ne!(total, point.count.into()),
        Err(Skip::Malformed) => assert!(!(point.zero_threshold >= 0.0) || point.zero_threshold.is_infinite()),
    }
}

fn custom(point: &HistogramPoint<'_>, native: &mut Native) {
    if native.custom_buckets(point).is_err() {
        return;
    }
    let buckets = slow::expand(&native.positive.spans, &native.positive.deltas);
    let total: u128 = buckets.values().sum();
    assert!(total == point.count.into() || point.sum.is_some_and(f64::is_nan) && total < point.count.into());
    assert!(buckets.keys().all(|&index| index <= native.custom_values.len() as i128));
    assert!(native.custom_values.windows(2).all(|w| w[0] < w[1]));
    let bounds: Vec<f64> = point.explicit_bounds().map(Result::unwrap).filter(|b| b.is_finite()).collect();
    assert_eq!(native.custom_values, bounds);
    let counts: Vec<u64> = point.bucket_counts().map(Result::unwrap).collect();
    if counts.len() == bounds.len() + 1 {
        assert_eq!(buckets, slow::buckets(0, &counts, 0));
    }
}
