//! Classic buckets from exponential histograms, and what damaged points do to either form.

use super::*;
use crate::pdata::testgen::mutate;

pub fn classic_of(point: &ExponentialHistogramDataPoint) -> Result<Vec<(f64, u64)>, Skip> {
    let mut out = vec![(1e9, 1)];
    let bytes = point.encode_to_vec();
    classic(&ExponentialHistogramPoint::parse(&bytes).unwrap(), &mut out).map(|()| out)
}

#[test]
fn classic_buckets_ascend_and_add_up() {
    let mut both = point(0, -1, &[1, 0, 3]);
    both.negative = Some(Buckets { offset: 1, bucket_counts: vec![5, 7] });
    (both.zero_count, both.zero_threshold) = (2, 0.125);
    // Negative: 7 in [-8, -4), 5 in [-4, -2). Positive: 1 in (0.5, 1], none in (1, 2], 3 in (2, 4].
    assert_eq!(
        classic_of(&both).unwrap(),
        [(-4.0, 7), (-2.0, 12), (0.125, 14), (1.0, 15), (2.0, 15), (4.0, 18)]
    );
    assert_eq!(classic_of(&point(0, 3, &[0, 0])).unwrap(), []);
    // Lower scales than native histograms have.
    assert_eq!(classic_of(&point(-5, 0, &[4])).unwrap(), [(4294967296.0, 4)]);
    // Bounds beyond the range of doubles: the caller's +Inf has those, 0 is merged with the zero bucket.
    assert_eq!(classic_of(&point(0, 1022, &[1, 2, 3])).unwrap(), [(2f64.powi(1023), 1)]);
    assert_eq!(classic_of(&point(i32::MIN, 0, &[4])).unwrap(), []);
    assert_eq!(classic_of(&point(i32::MAX, 0, &[4])).unwrap(), [(1.0, 4)]);
    let mut tiny = point(0, -2000, &[3]);
    assert_eq!(classic_of(&tiny).unwrap(), [(0.0, 3)]);
    tiny.zero_count = 1;
    assert_eq!(classic_of(&tiny).unwrap(), [(0.0, 4)]);
    // A zero bucket that covers others takes them in.
    let mut wide = point(0, -1, &[1, 0, 3]);
    (wide.zero_threshold, wide.zero_count) = (1.5, 1);
    assert_eq!(classic_of(&wide).unwrap(), [(1.5, 2), (2.0, 2), (4.0, 5)]);
    assert_eq!(classic_of(&point(0, 0, &[u64::MAX, 1])), Err(Skip::TooLarge));
}

#[test]
fn fine_histograms_are_scaled_down_to_few_classic_buckets() {
    let most = classic_of(&point(3, -80, &[1; 160])).unwrap();
    assert_eq!((most.len(), most[0].0, most[159].0), (160, (-79f64 / 8.0).exp2(), 1024.0));
    let halved = classic_of(&point(3, -80, &[1; 161])).unwrap();
    assert_eq!(halved.len(), 81);
    assert_eq!(
        (halved[0], halved[79], halved[80]),
        (((-39f64 / 4.0).exp2(), 2), (1024.0, 160), ((41f64 / 4.0).exp2(), 161))
    );
    // Every bound that is left was one before, to the bit.
    assert!(halved[..80].iter().all(|bucket| most.contains(bucket)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn classic_is_what_the_slow_version_makes(point in arb_point()) {
        slow_classic(&point)?;
    }

    #[test]
    fn damaged_points_do_no_harm(point in arb_point(), seed in any::<u64>()) {
        let mut bytes = point.encode_to_vec();
        mutate(&mut bytes, seed);
        let mut native = Native::default();
        if let Ok(point) = HistogramPoint::parse(&bytes) {
            let _ = native.custom_buckets(&point);
        }
        if let Ok(parsed) = ExponentialHistogramPoint::parse(&bytes) {
            let _ = native.exponential(&parsed);
            if let Ok(point) = ExponentialHistogramDataPoint::decode(&bytes[..]) {
                slow_classic(&point)?;
            }
        }
    }
}

/// At every bound stand the counts of the buckets that end there or before, and nowhere is there room for a
/// finer scale.
fn slow_classic(point: &ExponentialHistogramDataPoint) -> Result<(), TestCaseError> {
    let side = |side: &Option<Buckets>| side.clone().unwrap_or_default();
    let (positive, negative) = (side(&point.positive), side(&point.negative));
    let total: u128 =
        positive.bucket_counts.iter().chain(&negative.bucket_counts).map(|&c| u128::from(c)).sum();
    let total = total + u128::from(point.zero_count);
    let threshold = point.zero_threshold;
    let buckets = match classic_of(point) {
        Ok(buckets) => buckets,
        Err(Skip::Malformed) => {
            prop_assert!(!(threshold >= 0.0 && threshold.is_finite()));
            return Ok(());
        }
        Err(skip) => {
            prop_assert!(skip == Skip::TooLarge && total > u64::MAX.into(), "{skip:?}");
            return Ok(());
        }
    };
    prop_assert!(buckets.len() <= MAX_CLASSIC_BUCKETS);
    prop_assert!(buckets.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 <= w[1].1), "{buckets:?}");
    let width = |map: &Expanded| match (map.first_key_value(), map.last_key_value()) {
        (Some((first, _)), Some((last, _))) => last - first + 1,
        _ => 0,
    };
    let at = |steps: i64| {
        let positive = slow::buckets(positive.offset.into(), &positive.bucket_counts, steps);
        let negative = slow::buckets(negative.offset.into(), &negative.bucket_counts, steps);
        let zero = i128::from(point.zero_count > 0 || !negative.is_empty());
        let wide = width(&positive) + width(&negative) + zero;
        (positive, negative, wide)
    };
    let steps = (0..).find(|&steps| at(steps).2 <= MAX_CLASSIC_BUCKETS as i128).unwrap();
    let (positive, negative, wide) = at(steps);
    prop_assert!(buckets.len() as i128 <= wide);
    let scale = (f64::from(point.scale) - steps as f64).clamp(-1000.0, 1000.0);
    let bound = |index: i128| (index as f64 * (-scale).exp2()).exp2();
    let mut ends: Vec<(f64, u128)> = negative.iter().map(|(&i, &count)| (-bound(i), count)).collect();
    // What is below a zero bucket that covers it counts with that.
    let covers =
        |end: f64| if point.zero_count > 0 || !negative.is_empty() { end.max(threshold) } else { end };
    ends.push((threshold, point.zero_count.into()));
    ends.extend(positive.iter().map(|(&i, &count)| (covers(bound(i + 1)), count)));
    for (upper, count) in buckets {
        let want: u128 = ends.iter().filter(|(end, _)| *end <= upper).map(|(_, count)| count).sum();
        prop_assert_eq!(u128::from(count), want, "{}", upper);
    }
    Ok(())
}
