//! Points of delta streams, any bytes each: no panic, what is added is exactly what was accepted since the sum
//! began, and time only goes forward.
#![no_main]

use std::collections::HashMap;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tidegate::pdata::metrics::{ExponentialHistogramPoint, HistogramPoint};
use tidegate::pdata::wire::WireError;
use tidegate::prometheus::delta::{Accumulator, Limits, MAX_BOUNDS, MAX_BUCKETS};
use tidegate::prometheus::native::{Exponential, Native, Skip, classic};

const STREAMS: usize = 3;

/// What a stream has to add up to.
#[derive(Default)]
struct Known {
    start: u64,
    time: u64,
    count: u64,
    /// The sum of all buckets.
    total: u128,
    explicit: bool,
}

fuzz_target!(|data: &[u8]| {
    let limits = Limits { max_streams: STREAMS, max_stale: Duration::from_millis(100) };
    let mut accumulator = Accumulator::new(limits);
    let mut known: HashMap<u128, Known> = HashMap::new();
    let (mut rest, mut now) = (data, 0);
    while let [choice, length, tail @ ..] = rest {
        let (bytes, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = tail;
        let key = u128::from(choice % 4);
        now += i64::from(choice >> 5);
        if choice & 8 != 0 {
            if let Ok(point) = HistogramPoint::parse(bytes) {
                explicit(&mut accumulator, &mut known, key, &point, now);
            }
        } else if let Ok(point) = ExponentialHistogramPoint::parse(bytes) {
            exponential(&mut accumulator, &mut known, key, &point, now);
        }
        if choice & 16 != 0 && accumulator.expire(now) > 0 {
            // Which ones is not told: all begin anew.
            accumulator.expire(i64::MAX);
            known.clear();
        }
        assert!(accumulator.len() == known.len() && known.len() <= STREAMS);
    }
    accumulator.expire(i64::MAX);
    assert_eq!((accumulator.len(), accumulator.bytes()), (0, 0));
});

/// What is known of a stream to which a point of that interval was added.
fn step(known: &mut Known, explicit: bool, start: u64, interval: (u64, u64)) {
    assert!(interval.1 > known.time, "added in spite of its time");
    if known.time == 0 || start != known.start || explicit != known.explicit {
        let begin = if interval.0 == interval.1 { 0 } else { interval.0 };
        assert!(start == begin && (interval.0 >= known.time || explicit != known.explicit || begin == 0));
        *known = Known { start, explicit, ..Known::default() };
    }
    known.time = interval.1;
}

fn exponential(
    accumulator: &mut Accumulator,
    known: &mut HashMap<u128, Known>,
    key: u128,
    point: &ExponentialHistogramPoint<'_>,
    now: i64,
) {
    let Ok(sum) = accumulator.exponential(key, point, now) else { return };
    let known = known.entry(key).or_default();
    step(known, false, sum.start_ns, (point.start_time_unix_nano, point.time_unix_nano));
    known.count = known.count.saturating_add(point.count);
    known.total += total(point.positive_counts()) + total(point.negative_counts());
    known.total += u128::from(point.zero_count);

    let scalars = sum.scalars();
    assert_eq!(scalars.count, known.count);
    let sides = [sum.positive().1, sum.negative().1];
    assert!(sides.iter().all(|side| side.clone().count() <= MAX_BUCKETS));
    let buckets: u128 = sides.into_iter().map(total).sum();
    if known.total <= u64::MAX.into() {
        assert_eq!(buckets + u128::from(scalars.zero_count), known.total);
    }
    let mut out = Vec::new();
    let overflow = known.total > u64::MAX.into();
    assert!(classic(&sum, &mut out).is_ok() || overflow);
    if let Err(skip) = Native::default().exponential(&sum) {
        assert!(matches!(skip, Skip::ScaleTooLow | Skip::NoSum | Skip::TooLarge) || overflow, "{skip}");
    }
}

fn explicit(
    accumulator: &mut Accumulator,
    known: &mut HashMap<u128, Known>,
    key: u128,
    point: &HistogramPoint<'_>,
    now: i64,
) {
    let Ok(sum) = accumulator.histogram(key, point, now) else { return };
    let known = known.entry(key).or_default();
    // Other bounds begin anew without a gap, which shows in the count.
    let anew = sum.count != known.count.saturating_add(point.count) && sum.count == point.count;
    if anew && known.time < point.time_unix_nano {
        *known = Known { start: sum.start_ns, time: known.time, explicit: true, ..Known::default() };
    }
    step(known, true, sum.start_ns, (point.start_time_unix_nano, point.time_unix_nano));
    known.count = known.count.saturating_add(point.count);
    assert_eq!(sum.count, known.count);
    assert!(sum.bounds.len() <= MAX_BOUNDS);
    let bounds: Vec<f64> = point.explicit_bounds().map(Result::unwrap).collect();
    assert_eq!(sum.bounds, bounds);
    let counts: Vec<u64> = point.bucket_counts().map(Result::unwrap).collect();
    assert_eq!(sum.counts.len(), counts.len());
    assert!(sum.counts.iter().zip(&counts).all(|(sum, count)| sum >= count));
}

fn total(counts: impl Iterator<Item = Result<u64, WireError>>) -> u128 {
    counts.map(|count| u128::from(count.unwrap())).sum()
}
