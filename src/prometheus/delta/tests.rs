//! Delta streams against running sums.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::{ExponentialHistogramDataPoint, HistogramDataPoint};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::pdata::testgen::mutate;
use crate::prometheus::native::{Explicit, Exponential, Native, Skip, classic, slow};

const KEY: u128 = u128::MAX / 3;

fn accumulator(max_streams: usize) -> Accumulator {
    Accumulator::new(Limits { max_streams, max_stale: Duration::from_secs(300) })
}

/// What `bytes` has to add up from.
fn allocated(accumulator: &Accumulator) -> usize {
    accumulator.streams.values().map(|stream| stream.sum.heap()).sum()
}

fn histogram(times: (u64, u64), bounds: &[f64], counts: &[u64], sum: Option<f64>) -> Vec<u8> {
    HistogramDataPoint {
        start_time_unix_nano: times.0,
        time_unix_nano: times.1,
        count: counts.iter().fold(0, |a, &b| a.saturating_add(b)),
        sum,
        explicit_bounds: bounds.to_vec(),
        bucket_counts: counts.to_vec(),
        ..Default::default()
    }
    .encode_to_vec()
}

fn exponential(
    times: (u64, u64),
    scale: i32,
    zero: (u64, f64),
    positive: (i32, &[u64]),
    negative: (i32, &[u64]),
) -> Vec<u8> {
    let buckets = |(offset, counts): (i32, &[u64])| Some(Buckets { offset, bucket_counts: counts.to_vec() });
    ExponentialHistogramDataPoint {
        start_time_unix_nano: times.0,
        time_unix_nano: times.1,
        count: zero.0 + positive.1.iter().sum::<u64>() + negative.1.iter().sum::<u64>(),
        sum: Some(0.5),
        scale,
        zero_count: zero.0,
        zero_threshold: zero.1,
        positive: buckets(positive),
        negative: buckets(negative),
        ..Default::default()
    }
    .encode_to_vec()
}

/// The start and the counts of a histogram with that point added.
fn add_histogram(accumulator: &mut Accumulator, bytes: &[u8]) -> Result<(u64, Vec<u64>), Refusal> {
    let point = HistogramPoint::parse(bytes).unwrap();
    accumulator.histogram(KEY, &point, 0).map(|sum| (sum.start_ns, sum.counts.to_vec()))
}

/// An exponential histogram with that point added.
fn add_exponential<'a>(
    accumulator: &'a mut Accumulator,
    bytes: &[u8],
) -> Result<CumulativeExponential<'a>, Refusal> {
    accumulator.exponential(KEY, &ExponentialHistogramPoint::parse(bytes).unwrap(), 0)
}

fn dense(
    (first, counts): (i64, impl Iterator<Item = Result<u64, crate::pdata::wire::WireError>>),
) -> (i64, Vec<u64>) {
    (first, counts.map(Result::unwrap).collect())
}

#[test]
fn points_are_added_in_order_of_time() {
    use Refusal::*;
    type Step = ((u64, u64), i64, Result<(u64, i64), Refusal>);
    let cases: &[(&str, &[Step])] = &[
        (
            "H11",
            &[
                ((0, 10), 5, Ok((0, 5))),
                ((10, 20), 3, Ok((0, 8))),
                ((30, 40), 2, Ok((30, 2))),
                ((5, 8), 1, Err(BeforeStart)),
            ],
        ),
        (
            "repeated, overlapping, enclosing",
            &[
                ((10, 20), 1, Ok((10, 1))),
                ((10, 20), 1, Err(BeforeStart)),
                ((12, 18), 1, Err(BeforeStart)),
                ((19, 30), 1, Err(Overlap)),
                ((5, 30), 1, Err(Overlap)),
                ((20, 30), 2, Ok((10, 3))),
            ],
        ),
        (
            "unknown start",
            &[
                ((0, 20), 1, Ok((0, 1))),
                ((0, 25), 2, Ok((0, 3))),
                ((30, 30), 3, Ok((0, 6))),
                ((0, 30), 4, Err(BeforeStart)),
                ((30, 40), 5, Ok((0, 11))),
                ((41, 50), 6, Ok((41, 6))),
                ((0, 60), 7, Ok((41, 13))),
            ],
        ),
        (
            "no interval",
            &[((0, 0), 1, Err(Malformed)), ((5, 0), 1, Err(Malformed)), ((5, 4), 1, Err(Malformed))],
        ),
        ("the end of time", &[((0, u64::MAX), 1, Ok((0, 1))), ((1, u64::MAX), 1, Err(BeforeStart))]),
    ];
    for (name, steps) in cases {
        let mut accumulator = accumulator(1);
        for &((start, time), value, want) in *steps {
            let got = accumulator.number(KEY, start, time, Number::Int(value), 0);
            assert_eq!(got, want.map(|(start, sum)| (start, Number::Int(sum))), "{name} {start} {time}");
        }
    }
}

#[test]
fn integers_stay_integers_until_a_double_comes() {
    let mut accumulator = accumulator(1);
    let mut add = |time, value| accumulator.number(KEY, 0, time, value, 0).map(|sum| sum.1);
    assert_eq!(add(1, Number::Int(i64::MAX - 1)), Ok(Number::Int(i64::MAX - 1)));
    assert_eq!(add(2, Number::Int(2)), Ok(Number::Int(i64::MAX)));
    assert_eq!(add(3, Number::Int(-7)), Ok(Number::Int(i64::MAX - 7)));
    assert_eq!(add(4, Number::Int(i64::MIN)), Ok(Number::Int(-8)));
    assert_eq!(add(5, Number::Double(f64::NAN)), Err(Refusal::Malformed));
    assert_eq!(add(5, Number::Double(f64::INFINITY)), Err(Refusal::Malformed));
    assert_eq!(add(5, Number::Double(0.5)), Ok(Number::Double(-7.5)));
    assert_eq!(add(6, Number::Int(10)), Ok(Number::Double(2.5)));
}

#[test]
fn histograms_begin_anew_with_other_bounds_or_another_kind() {
    let mut accumulator = accumulator(1);
    let mut add = |bytes: Vec<u8>| add_histogram(&mut accumulator, &bytes);
    assert_eq!(add(histogram((10, 20), &[1.0], &[1, 2], None)), Ok((10, vec![1, 2])));
    assert_eq!(add(histogram((20, 30), &[1.0], &[1, 2], None)), Ok((10, vec![2, 4])));
    assert_eq!(add(histogram((30, 40), &[1.5], &[1, 2], None)), Ok((30, vec![1, 2])));
    assert_eq!(add(histogram((40, 50), &[1.5, 2.0], &[1, 2, 3], None)), Ok((40, vec![1, 2, 3])));
    assert_eq!(add(histogram((50, 60), &[], &[4], None)), Ok((50, vec![4])));
    assert_eq!(add(histogram((60, 70), &[], &[], None)), Ok((60, vec![])));
    assert_eq!(add(histogram((65, 80), &[1.0], &[1, 2], None)), Err(Refusal::Overlap));
    let number = accumulator.number(KEY, 70, 80, Number::Int(3), 0);
    assert_eq!(number, Ok((70, Number::Int(3))));
    let got = add_exponential(&mut accumulator, &exponential((80, 90), 0, (1, 0.0), (0, &[]), (0, &[])));
    assert_eq!(got.unwrap().start_ns, 80);
    assert_eq!(accumulator.len(), 1);
    assert_eq!(accumulator.heap, allocated(&accumulator));
}

#[test]
fn malformed_histograms_change_nothing() {
    let mut accumulator = accumulator(1);
    let good = histogram((10, 20), &[1.0, 2.0], &[1, 2, 3], Some(1.0));
    for known in [false, true] {
        for (bounds, counts, want) in [
            (&[1.0, 2.0][..], &[1, 2][..], Refusal::Malformed),
            (&[1.0, 2.0], &[], Refusal::Malformed),
            (&[2.0, 1.0], &[1, 2, 3], Refusal::Malformed),
            (&[1.0, 1.0], &[1, 2, 3], Refusal::Malformed),
            (&[1.0, f64::NAN], &[1, 2, 3], Refusal::Malformed),
            (&[], &[1, 2], Refusal::Malformed),
            (&(0..1025).map(f64::from).collect::<Vec<_>>(), &[0; 1026], Refusal::TooLarge),
        ] {
            let bad = histogram((20, 30), bounds, counts, Some(1.0));
            assert_eq!(add_histogram(&mut accumulator, &bad), Err(want));
        }
        let mut cut = histogram((20, 30), &[1.0, 2.0], &[1, 2, 3], Some(1.0));
        cut.extend([0x32, 3, 1, 2, 3]);
        assert_eq!(add_histogram(&mut accumulator, &cut), Err(Refusal::Malformed));
        for (count, zero_threshold) in [(3, 0.0), (1, 0.0), (2, f64::NAN), (2, -1.0), (2, f64::INFINITY)] {
            let bad = ExponentialHistogramDataPoint {
                start_time_unix_nano: 20,
                time_unix_nano: 30,
                count,
                sum: Some(1.0),
                zero_count: 2,
                zero_threshold,
                ..Default::default()
            };
            let got = add_exponential(&mut accumulator, &bad.encode_to_vec());
            assert_eq!(got.err(), Some(Refusal::Malformed));
        }
        assert_eq!(accumulator.len(), usize::from(known));
        if !known {
            add_histogram(&mut accumulator, &good).unwrap();
        }
    }
    let more = histogram((20, 30), &[1.0, 2.0], &[1, 2, 3], Some(1.0));
    assert_eq!(add_histogram(&mut accumulator, &more), Ok((10, vec![2, 4, 6])));
}

#[test]
fn a_sum_that_was_missing_once_stays_missing() {
    let mut accumulator = accumulator(1);
    let mut add = |time, sum| {
        let bytes = histogram((time - 10, time), &[], &[1], sum);
        accumulator.histogram(KEY, &HistogramPoint::parse(&bytes).unwrap(), 0).unwrap().sum
    };
    let got = [add(20, Some(1.5)), add(30, Some(2.0)), add(40, None), add(50, Some(1.0)), add(70, Some(1.0))];
    assert_eq!(got, [Some(1.5), Some(3.5), None, None, Some(1.0)]);
}

#[test]
fn streams_and_their_memory_are_bounded() {
    let mut accumulator = accumulator(2);
    let add = |accumulator: &mut Accumulator, key, time, now| {
        accumulator.number(key, 0, time, Number::Int(1), now).map(|sum| sum.1)
    };
    assert_eq!((accumulator.len(), accumulator.is_empty(), accumulator.bytes()), (0, true, 0));
    assert_eq!(add(&mut accumulator, 1, 10, 0), Ok(Number::Int(1)));
    let bytes = histogram((0, 10), &[1.0; 0], &[1], None);
    assert!(accumulator.histogram(2, &HistogramPoint::parse(&bytes).unwrap(), 100_000).is_ok());
    assert!(accumulator.bytes() > 0);
    assert_eq!(add(&mut accumulator, 3, 10, 100_000), Err(Refusal::Full));
    assert_eq!(add(&mut accumulator, 1, 20, 200_000), Ok(Number::Int(2)));
    // A refused point does not keep its stream.
    assert_eq!(add(&mut accumulator, 1, 5, 300_000), Err(Refusal::BeforeStart));
    assert_eq!((accumulator.expire(400_000), accumulator.len()), (0, 2));
    assert_eq!((accumulator.expire(400_001), accumulator.len()), (1, 1));
    assert_eq!(accumulator.heap, 0);
    assert_eq!(add(&mut accumulator, 3, 10, 400_001), Ok(Number::Int(1)));
    assert_eq!((accumulator.expire(500_001), accumulator.len()), (1, 1));
    // Begun anew, it counts from nothing.
    assert_eq!(add(&mut accumulator, 1, 5, 500_001), Ok(Number::Int(1)));
    assert_eq!((accumulator.expire(i64::MIN), accumulator.expire(i64::MAX)), (0, 2));
    assert_eq!(accumulator.bytes(), 0);
}

#[test]
fn many_streams_that_expire_give_their_memory_back() {
    let mut accumulator = accumulator(10_000);
    for key in 0..10_000 {
        let bytes = exponential((0, 10), 0, (0, 0.0), (0, &[1; 100]), (0, &[]));
        let point = ExponentialHistogramPoint::parse(&bytes).unwrap();
        accumulator.exponential(key, &point, if key < 10 { 1_000_000 } else { 0 }).unwrap();
    }
    let full = accumulator.bytes();
    assert!(full > 10_000 * 100 * 8 && full < 10_000 * 3000, "{full}");
    assert_eq!(accumulator.expire(1_000_000), 9_990);
    assert!(accumulator.bytes() < full / 100, "{}", accumulator.bytes());
}

#[test]
fn zero_buckets_grow_to_the_widest() {
    let mut accumulator = accumulator(1);
    let mut add = |time, zero, positive, negative| {
        let bytes = exponential((time, time + 1), 0, zero, positive, negative);
        let sum = add_exponential(&mut accumulator, &bytes).unwrap();
        let scalars = sum.scalars();
        (scalars.zero_count, scalars.zero_threshold, dense(sum.positive()), dense(sum.negative()))
    };
    // Positive: (0.25, 0.5], (0.5, 1], (1, 2]. As long as the width is the same nothing is moved.
    let none: (i32, &[u64]) = (0, &[]);
    assert_eq!(add(1, (1, 0.375), (-2, &[1, 2, 3]), none), (1, 0.375, (-2, vec![1, 2, 3]), (0, vec![])));
    assert_eq!(add(2, (1, 0.375), (-1, &[1]), none), (2, 0.375, (-2, vec![1, 3, 3]), (0, vec![])));
    // It now reaches half into a bucket of the other side, and then to the end of this.
    assert_eq!(add(3, (1, 0.0), none, none), (4, 0.5, (-1, vec![3, 3]), (0, vec![])));
    assert_eq!(add(4, (0, 0.5), none, (-1, &[0, 5])), (4, 0.5, (-1, vec![3, 3]), (0, vec![5])));
    assert_eq!(add(5, (2, 1.5), none, none), (17, 2.0, (1, vec![]), (1, vec![])));
    assert_eq!(add(6, (0, 0.0), (0, &[1, 1]), none), (18, 2.0, (1, vec![1]), (0, vec![])));
    // Buckets of both sides that it cuts are taken, whichever comes first; its width stays finite.
    // The last point is so far away that indices shrink to an eighth.
    assert_eq!(add(7, (0, 2.0), (2, &[2, 3]), (2, &[4, 5])).0, 18);
    assert_eq!(add(8, (0, 5.0), none, none), (25, 8.0, (3, vec![3]), (3, vec![5])));
    assert_eq!(
        add(9, (0, 2f64.powi(1023) * 1.5), (1023, &[1]), none),
        (34, f64::MAX, (128, vec![]), (1, vec![]))
    );
}

#[test]
fn scales_meet_at_the_coarser_one() {
    let mut accumulator = accumulator(1);
    let none: (i32, &[u64]) = (0, &[]);
    let mut add = |time, scale, positive, negative| {
        let bytes = exponential((time, time + 1), scale, (0, 0.0), positive, negative);
        let sum = add_exponential(&mut accumulator, &bytes).unwrap();
        (sum.scalars().scale, dense(sum.positive()), dense(sum.negative()))
    };
    // The scale of what has no buckets does not matter.
    assert_eq!(add(1, -7, none, none), (-7, (0, vec![]), (0, vec![])));
    assert_eq!(add(2, 3, (-3, &[1, 2, 3]), none), (3, (-3, vec![1, 2, 3]), (0, vec![])));
    assert_eq!(add(3, i32::MIN, none, none), (3, (-3, vec![1, 2, 3]), (0, vec![])));
    assert_eq!(add(4, 2, (1, &[7]), none), (2, (-2, vec![1, 5, 0, 7]), (0, vec![])));
    assert_eq!(add(5, 4, (8, &[0, 9, 0]), (0, &[4, 4, 4])), (2, (-2, vec![1, 5, 0, 7, 9]), (0, vec![12])));
    // 160 buckets fit, one more does not.
    assert_eq!(add(6, 2, (157, &[1]), none).0, 2);
    assert_eq!(add(7, 2, (158, &[1]), none).0, 1);
    let far = add(8, 1, (i32::MIN, &[1]), none);
    assert_eq!((far.0, far.1.1.len()), (1 - 24, 129));
    let lowest = add(9, i32::MIN, (i32::MAX, &[1]), (i32::MIN, &[1]));
    assert_eq!(lowest.0, i32::MIN);
    assert_eq!(lowest.1.1.iter().sum::<u64>(), 26);
}

type Point = ((i32, i32, Vec<u64>), (i32, Vec<u64>), u64);

fn arb_exponential() -> impl Strategy<Value = Point> {
    let offset = || prop_oneof![8 => -40..40i32, 1 => any::<i32>()];
    let counts = || vec(prop_oneof![2 => Just(0u64), 3 => 1..100u64], 0..30);
    ((-6..=12i32, offset(), counts()), (offset(), counts()), 0..10u64)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    #[test]
    fn sums_are_those_of_the_points_since_the_start(
        points in vec((0..3u128, 0..30u64, 0..12u64, -9..90i64, any::<bool>()), 1..80),
    ) {
        let mut accumulator = accumulator(2);
        // Of every key the points that were taken, since the last gap.
        let mut taken: BTreeMap<u128, Vec<(u64, u64, i64)>> = BTreeMap::new();
        for (key, at, length, value, unknown) in points {
            let (start, time) = if unknown { (0, at + length) } else { (at, at + length) };
            let before = taken.get(&key).and_then(|taken| taken.last()).map(|last| last.1);
            let says = start != 0 && start != time;
            match accumulator.number(key, start, time, Number::Int(value), 0) {
                Ok(sum) => {
                    let points = taken.entry(key).or_default();
                    prop_assert!(before.is_none_or(|end| end < time && (!says || end <= start)));
                    if says && before.is_some_and(|end| end < start) {
                        points.clear();
                    }
                    points.push((if says { start } else { 0 }, time, value));
                    let total = points.iter().map(|point| point.2).sum();
                    prop_assert_eq!(sum, (points[0].0, Number::Int(total)));
                }
                Err(Refusal::Malformed) => prop_assert_eq!(time, 0),
                Err(Refusal::Full) => prop_assert!(before.is_none() && taken.len() == 2),
                Err(Refusal::BeforeStart) => prop_assert!(before >= Some(time)),
                Err(Refusal::Overlap) => prop_assert!(says && Some(start) < before && before < Some(time)),
                Err(Refusal::TooLarge) => prop_assert!(false),
            }
            prop_assert_eq!(accumulator.len(), taken.len());
        }
    }

    #[test]
    fn histograms_are_the_running_sum(
        bounds in 0..6usize,
        points in vec((vec(0..1000u64, 6), option::weighted(0.95, -5..100i32)), 1..20),
    ) {
        let mut accumulator = accumulator(1);
        let bounds: Vec<f64> = (0..bounds as u32).map(f64::from).collect();
        let (mut total, mut sum) = (vec![0; bounds.len() + 1], Some(0.0));
        for (i, (counts, value)) in points.iter().enumerate() {
            let counts = &counts[..=bounds.len()];
            total.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
            sum = sum.zip(*value).map(|(a, b)| a + f64::from(b));
            let times = (10 + i as u64, 11 + i as u64);
            let bytes = histogram(times, &bounds, counts, value.map(f64::from));
            let point = HistogramPoint::parse(&bytes).unwrap();
            let got = accumulator.histogram(KEY, &point, 0).unwrap();
            let count = total.iter().sum();
            let want = Cumulative { start_ns: 10, count, sum, counts: &total, bounds: &bounds };
            prop_assert_eq!(got, want);
            let mut native = Native::default();
            match native.custom_buckets(&got) {
                Ok(()) => {
                    let side = native.positive;
                    prop_assert_eq!(slow::expand(&side.spans, &side.deltas), slow::buckets(0, &total, 0));
                    prop_assert_eq!((native.count, &native.custom_values), (count, &bounds));
                }
                Err(skip) => prop_assert!(skip == Skip::NoSum && got.sum().is_none()),
            }
        }
        prop_assert_eq!(accumulator.heap, allocated(&accumulator));
    }

    #[test]
    fn exponential_histograms_are_the_running_sum(points in vec(arb_exponential(), 1..12)) {
        let mut accumulator = accumulator(1);
        let mut native = Native::default();
        for n in 1..=points.len() {
            let points = &points[..n];
            let ((scale, offset, positive), negative, zero) = points.last().unwrap();
            let times = (n as u64, 1 + n as u64);
            let negative = (negative.0, &negative.1[..]);
            let bytes = exponential(times, *scale, (*zero, 0.0), (*offset, positive), negative);
            let sum = add_exponential(&mut accumulator, &bytes).unwrap();
            let scalars = sum.scalars();

            let at = |scale: i64| {
                let (mut sides, mut zero) = ([BTreeMap::new(), BTreeMap::new()], 0);
                for ((own, offset, positive), negative, zeros) in points {
                    let parts = [(*offset, positive), (negative.0, &negative.1)];
                    for (side, (offset, counts)) in sides.iter_mut().zip(parts) {
                        for (i, count) in slow::buckets(offset.into(), counts, i64::from(*own) - scale) {
                            *side.entry(i).or_insert(0) += count;
                        }
                    }
                    zero += zeros;
                }
                (sides, zero)
            };
            let occupied = |point: &&Point| point.0.2.iter().chain(&point.1.1).any(|&count| count > 0);
            let finest = points.iter().filter(occupied).map(|point| point.0.0).min();
            let fits = |scale: &i64| at(*scale).0.iter().all(|side| {
                let ends = side.first_key_value().zip(side.last_key_value());
                ends.is_none_or(|(first, last)| last.0 - first.0 < MAX_BUCKETS as i128)
            });
            let scale = finest.map_or((*scale).into(), |finest| {
                (i64::from(finest) - 70..=finest.into()).rev().find(fits).unwrap()
            });
            prop_assert_eq!(i64::from(scalars.scale), scale);
            let (sides, zero) = at(scale);
            prop_assert_eq!((scalars.zero_count, sum.start_ns), (zero, 1));
            for ((first, counts), want) in [dense(sum.positive()), dense(sum.negative())].into_iter().zip(&sides) {
                prop_assert!(counts.len() <= MAX_BUCKETS);
                prop_assert_eq!(&slow::buckets(first.into(), &counts, 0), want);
            }
            let count: u128 = sides.iter().flat_map(BTreeMap::values).sum::<u128>() + u128::from(zero);
            prop_assert_eq!(u128::from(scalars.count), count);
            prop_assert_eq!(scalars.sum, Some(0.5 * n as f64));

            let mut buckets = Vec::new();
            prop_assert_eq!(classic(&sum, &mut buckets), Ok(()));
            match native.exponential(&sum) {
                Ok(()) => {
                    let got = [&native.positive, &native.negative].map(|s| slow::expand(&s.spans, &s.deltas));
                    let (sides, _) = at(scale.min(8));
                    let want = sides.map(|side| side.into_iter().map(|(i, count)| (i + 1, count)).collect());
                    prop_assert_eq!(got, want);
                }
                Err(Skip::ScaleTooLow) => prop_assert!(scale < -4),
                // An index that is the highest of 32 bits is one higher natively.
                Err(skip) => prop_assert!(skip == Skip::TooLarge && sides.iter().any(|side| side.contains_key(&i32::MAX.into()))),
            }
        }
        prop_assert_eq!(accumulator.heap, allocated(&accumulator));
    }

    #[test]
    fn damaged_points_are_refused_or_added(
        points in vec((arb_exponential(), 0..3u128, any::<u64>(), 0..9u64, prop_oneof![Just(0.0), 0.0..9.0]), 1..20),
    ) {
        let mut accumulator = accumulator(2);
        for ((positive, negative, zero), key, seed, time, threshold) in points {
            let of = (positive.1, &positive.2[..]);
            let times = (time, time + 1);
            let mut bytes = exponential(times, positive.0, (zero, threshold), of, (negative.0, &negative.1));
            if seed % 4 == 0 {
                bytes = histogram(times, &[1.0], &[zero, 1], None);
            }
            if seed % 3 == 0 {
                mutate(&mut bytes, seed);
            }
            let now = (seed % 500_000) as i64;
            if let Ok(point) = HistogramPoint::parse(&bytes) {
                let _ = accumulator.histogram(key, &point, now);
            }
            if let Ok(point) = ExponentialHistogramPoint::parse(&bytes)
                && let Ok(sum) = accumulator.exponential(key, &point, now)
            {
                    let sides = [dense(sum.positive()).1, dense(sum.negative()).1];
                    prop_assert!(sides.iter().all(|side| side.len() <= MAX_BUCKETS));
                    prop_assert!(sides.iter().flat_map(|side| [side.first(), side.last()]).all(|c| c != Some(&0)));
                    let total: u128 = sides.iter().flatten().map(|&count| u128::from(count)).sum();
                    let scalars = sum.scalars();
                    let exact = scalars.sum.is_none_or(|sum| !sum.is_nan()) && scalars.count < u64::MAX;
                    let known = total + u128::from(scalars.zero_count);
                    prop_assert!(!exact || known == scalars.count.into());
            }
            if seed % 7 == 0 {
                accumulator.expire(now);
            }
            prop_assert!(accumulator.len() <= 2);
            prop_assert_eq!(accumulator.heap, allocated(&accumulator));
        }
    }
}
