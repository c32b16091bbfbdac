//! Native histograms from points; classic buckets and damaged points are in a file of their own.

mod classic_buckets;

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::{ExponentialHistogramDataPoint, HistogramDataPoint};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::pdata::testgen::assert_linear;
use crate::pdata::wire::put_bytes;

/// `prometheus.Histogram` as the reference has it.
#[derive(Clone, PartialEq, Message)]
struct Histogram {
    #[prost(oneof = "Count", tags = "1, 2")]
    count: Option<Count>,
    #[prost(double, tag = "3")]
    sum: f64,
    #[prost(sint32, tag = "4")]
    schema: i32,
    #[prost(double, tag = "5")]
    zero_threshold: f64,
    #[prost(oneof = "ZeroCount", tags = "6, 7")]
    zero_count: Option<ZeroCount>,
    #[prost(message, repeated, tag = "8")]
    negative_spans: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "9")]
    negative_deltas: Vec<i64>,
    #[prost(double, repeated, tag = "10")]
    negative_counts: Vec<f64>,
    #[prost(message, repeated, tag = "11")]
    positive_spans: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "12")]
    positive_deltas: Vec<i64>,
    #[prost(double, repeated, tag = "13")]
    positive_counts: Vec<f64>,
    #[prost(int32, tag = "14")]
    reset_hint: i32,
    #[prost(int64, tag = "15")]
    timestamp: i64,
    #[prost(double, repeated, tag = "16")]
    custom_values: Vec<f64>,
    #[prost(int64, tag = "17")]
    start_timestamp: i64,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Count {
    #[prost(uint64, tag = "1")]
    Int(u64),
    #[prost(double, tag = "2")]
    Float(f64),
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum ZeroCount {
    #[prost(uint64, tag = "6")]
    Int(u64),
    #[prost(double, tag = "7")]
    Float(f64),
}

#[derive(Clone, PartialEq, Message)]
struct BucketSpan {
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}

type Expanded = BTreeMap<i128, u128>;

/// A point whose count is what its buckets add up to.
fn point(scale: i32, offset: i32, counts: &[u64]) -> ExponentialHistogramDataPoint {
    ExponentialHistogramDataPoint {
        count: counts.iter().fold(0, |a, &b| a.wrapping_add(b)),
        sum: Some(5.5),
        scale,
        positive: Some(Buckets { offset, bucket_counts: counts.to_vec() }),
        ..Default::default()
    }
}

fn native(point: &ExponentialHistogramDataPoint) -> Result<Native, Skip> {
    // A leftover of an earlier point must not show.
    let mut native = leftover();
    let bytes = point.encode_to_vec();
    native.exponential(&ExponentialHistogramPoint::parse(&bytes).unwrap()).map(|()| native)
}

fn custom(point: &HistogramDataPoint) -> Result<Native, Skip> {
    let mut native = leftover();
    let bytes = point.encode_to_vec();
    native.custom_buckets(&HistogramPoint::parse(&bytes).unwrap()).map(|()| native)
}

fn leftover() -> Native {
    let side = Side { spans: vec![(7, 1)], deltas: vec![9] };
    Native {
        count: 1,
        sum_bits: 2,
        schema: 3,
        zero_threshold: 4.0,
        zero_count: 5,
        negative: side.clone(),
        positive: side,
        custom_values: vec![6.0],
    }
}

fn histogram(bounds: &[f64], counts: &[u64], count: u64) -> HistogramDataPoint {
    HistogramDataPoint {
        count,
        sum: Some(1.5),
        explicit_bounds: bounds.to_vec(),
        bucket_counts: counts.to_vec(),
        ..Default::default()
    }
}

fn expand(side: &Side) -> Expanded {
    slow::expand(&side.spans, &side.deltas)
}

#[test]
fn buckets_are_laid_out_and_scaled_down() {
    let with_zeros = |zeros: usize| {
        let mut counts = vec![4, 2, 0, 2];
        counts.resize(4 + zeros, 0);
        counts.push(1);
        counts
    };
    let (twelve, eight) = (with_zeros(12), with_zeros(8));
    type Case<'a> = (&'a str, i32, &'a [u64], i32, &'a [(i128, u128)], &'a [(i32, u32)], &'a [i64]);
    let cases: &[Case<'_>] = &[
        (
            "E1",
            3,
            &[10, 0, 0, 20, 5, 2],
            0,
            &[(4, 10), (7, 20), (8, 5), (9, 2)],
            &[(4, 6)],
            &[10, -10, 0, 20, -15, -3],
        ),
        ("E2", 0, &[4, 3, 2, 1], 0, &[(1, 4), (2, 3), (3, 2), (4, 1)], &[(1, 4)], &[4, -1, -1, -1]),
        ("E3", 0, &[4, 3, 2, 1], 1, &[(1, 7), (2, 3)], &[(1, 2)], &[7, -4]),
        ("E4", 0, &[4, 3, 2, 1], 2, &[(1, 10)], &[(1, 1)], &[10]),
        ("E5", 1, &[4, 3, 2, 1], 0, &[(2, 4), (3, 3), (4, 2), (5, 1)], &[(2, 4)], &[4, -1, -1, -1]),
        ("E6", 1, &[4, 3, 2, 1], 1, &[(1, 4), (2, 5), (3, 1)], &[(1, 3)], &[4, 1, -4]),
        ("E7", 1, &[4, 3, 2, 1], 2, &[(1, 9), (2, 1)], &[(1, 2)], &[9, -8]),
        ("E8", 4, &twelve, 0, &[(5, 4), (6, 2), (8, 2), (21, 1)], &[(5, 4), (12, 1)], &[4, -2, -2, 2, -1]),
        ("E9", 4, &twelve, 1, &[(3, 6), (4, 2), (11, 1)], &[(3, 2), (6, 1)], &[6, -4, -1]),
        ("E10", 4, &twelve, 2, &[(2, 8), (6, 1)], &[(2, 1), (3, 1)], &[8, -7]),
        ("E11", 4, &eight, 1, &[(3, 6), (4, 2), (9, 1)], &[(3, 2), (4, 1)], &[6, -4, -1]),
        ("E12", 4, &eight, 2, &[(2, 8), (5, 1)], &[(2, 4)], &[8, -8, 0, 1]),
        ("E13", -2, &[3, 1, 0, 0, 0, 1], 0, &[(-1, 3), (0, 1), (4, 1)], &[(-1, 2), (3, 1)], &[3, -2, 0]),
        ("E14", -2, &[3, 1, 0, 0, 0, 1], 1, &[(0, 4), (2, 1)], &[(0, 3)], &[4, -4, 1]),
        ("E15", -2, &[3, 1, 0, 0, 0, 1], 2, &[(0, 4), (1, 1)], &[(0, 2)], &[4, -3]),
        ("E16", -2, &[3, 0, 0, 1, 0, 0, 1], 1, &[(0, 3), (1, 1), (3, 1)], &[(0, 4)], &[3, -2, -1, 1]),
        ("E17", -5, &[1, 2, 3, 4, 5, 6, 7], 2, &[(-1, 1), (0, 14), (1, 13)], &[(-1, 3)], &[1, 13, -1]),
        ("E18", -3, &[1, 2, 3], 1, &[(-1, 1), (0, 5)], &[(-1, 2)], &[1, 4]),
        ("E19a", 1000, &[3], 12, &[(1, 3)], &[(1, 1)], &[3]),
        ("E19b", -1000, &[3], 12, &[(0, 3)], &[(0, 1)], &[3]),
        ("E20", 0, &[1, 1, 0, 0, 1, 1], 1, &[(1, 2), (3, 2)], &[(1, 3)], &[2, -2, 2]),
        ("E21", 0, &[0, 0, 1, 1], 1, &[(2, 2)], &[(2, 1)], &[2]),
        ("E22", 0, &[0, 0, 0, 0, 5], 0, &[(5, 5)], &[(5, 1)], &[5]),
        ("E23a", 0, &[0, 0], 0, &[], &[], &[]),
        ("E23b", 0, &[], 0, &[], &[], &[]),
        ("E24", 2147483645, &[1, 1], 1, &[(1073741823, 1), (1073741824, 1)], &[(1073741823, 2)], &[1, 0]),
    ];
    for &(name, offset, counts, n, expanded, spans, deltas) in cases {
        let positive = point(8 + n, offset, counts);
        let mut negative = positive.clone();
        std::mem::swap(&mut negative.positive, &mut negative.negative);
        let got = native(&positive).unwrap();
        let want = Native {
            count: positive.count,
            sum_bits: 5.5f64.to_bits(),
            schema: 8,
            zero_threshold: 1e-128,
            positive: Side { spans: spans.to_vec(), deltas: deltas.to_vec() },
            ..Native::default()
        };
        assert_eq!(got, want, "{name}");
        assert_eq!(expand(&got.positive), expanded.iter().copied().collect(), "{name}");
        let got = native(&negative).unwrap();
        assert_eq!((got.negative, got.positive), (want.positive, want.negative), "{name}");
    }
}

#[test]
fn scales_become_schemas() {
    for (name, scale, want) in [
        ("E25", -5, Err(Skip::ScaleTooLow)),
        ("lowest", i32::MIN, Err(Skip::ScaleTooLow)),
        ("E26a", -4, Ok((-4, 7))),
        ("zero", 0, Ok((0, 7))),
        ("E26b", 8, Ok((8, 7))),
        ("E26c", 9, Ok((8, 4))),
        ("shifted out", 8 + 31, Ok((8, 1))),
        ("beyond the width", 8 + 64, Ok((8, 1))),
        ("highest", i32::MAX, Ok((8, 1))),
    ] {
        let got = native(&point(scale, 6, &[2]));
        let got = got.map(|n| (n.schema, n.positive.spans[0].0));
        assert_eq!(got, want, "{name}");
    }
}

#[test]
fn the_zero_bucket_keeps_its_width_and_count() {
    for (given, want) in [
        (0.0, Ok(1e-128)),
        (-0.0, Ok(1e-128)),
        (0.25, Ok(0.25)),
        (-1.0, Err(Skip::Malformed)),
        (f64::NAN, Err(Skip::Malformed)),
        (f64::INFINITY, Err(Skip::Malformed)),
    ] {
        let mut point = point(0, 0, &[1]);
        (point.zero_threshold, point.zero_count, point.count) = (given, 7, 8);
        assert_eq!(native(&point).map(|n| n.zero_threshold), want, "{given}");
        assert_eq!(native(&point).map_or(7, |n| n.zero_count), 7);
        assert_eq!(classic_buckets::classic_of(&point).is_err(), want.is_err());
    }
}

#[test]
fn sums_and_counts_are_those_of_the_point() {
    let base = point(0, 0, &[1, 2]);
    let with = |sum, count| ExponentialHistogramDataPoint { sum, count, ..base.clone() };
    let sum_bits = |point| native(&point).map(|n| n.sum_bits);
    assert_eq!(sum_bits(with(None, 3)), Err(Skip::NoSum));
    assert_eq!(sum_bits(with(Some(-0.0), 3)), Ok((-0.0f64).to_bits()));
    // A sum that by chance has the bits of the stale marker does not end the series.
    assert_eq!(sum_bits(with(Some(f64::from_bits(STALE)), 3)), Ok(ORDINARY_NAN));
    assert_eq!(sum_bits(with(Some(-f64::NAN), 3)), Ok(ORDINARY_NAN));
    assert_eq!(sum_bits(with(Some(1.0), 4)), Err(Skip::Mismatch));
    // Values that are NaN count, but are in no bucket.
    assert_eq!(sum_bits(with(Some(f64::NAN), 4)), Ok(ORDINARY_NAN));
    assert_eq!(sum_bits(with(Some(f64::NAN), 2)), Err(Skip::Mismatch));
}

#[test]
fn what_a_native_histogram_cannot_hold_is_refused() {
    let most = i64::MAX as u64;
    assert_eq!(native(&point(0, 0, &[most])).unwrap().positive.deltas, [i64::MAX]);
    assert_eq!(
        native(&point(0, 0, &[most, 0, most])).unwrap().positive.deltas,
        [most as i64, -i64::MAX, i64::MAX]
    );
    assert_eq!(native(&point(0, 0, &[most + 1])), Err(Skip::TooLarge));
    assert_eq!(native(&point(0, 0, &[u64::MAX, u64::MAX])), Err(Skip::TooLarge));
    assert_eq!(native(&point(9, 0, &[u64::MAX, u64::MAX])), Err(Skip::TooLarge));
    // Natively the index is one higher, which has to fit too.
    assert_eq!(native(&point(8, i32::MAX - 1, &[1])).unwrap().positive.spans, [(i32::MAX, 1)]);
    assert_eq!(native(&point(8, i32::MAX, &[1])), Err(Skip::TooLarge));
    assert_eq!(native(&point(8, i32::MAX - 1, &[1, 1])), Err(Skip::TooLarge));
    assert_eq!(native(&point(8, i32::MIN, &[1])).unwrap().positive.spans, [(i32::MIN + 1, 1)]);
    let many = |buckets| native(&point(8, 0, &vec![1; buckets])).map(|n| n.positive.deltas.len());
    assert_eq!(many(MAX_NATIVE_BUCKETS), Ok(MAX_NATIVE_BUCKETS));
    assert_eq!(many(MAX_NATIVE_BUCKETS + 1), Err(Skip::TooLarge));
    let many = |bounds: u32| {
        let bounds: Vec<f64> = (0..bounds).map(f64::from).collect();
        custom(&histogram(&bounds, &vec![0; bounds.len() + 1], 0)).map(|n| n.custom_values.len())
    };
    assert_eq!(many(MAX_NATIVE_BUCKETS as u32), Ok(MAX_NATIVE_BUCKETS));
    assert_eq!(many(MAX_NATIVE_BUCKETS as u32 + 1), Err(Skip::TooLarge));
    // A count that is cut off is found when the counts are read.
    let mut broken = ExponentialHistogramDataPoint { sum: Some(1.0), ..Default::default() }.encode_to_vec();
    put_bytes(&mut broken, 8, &[0x12, 0x02, 0x01, 0x80]);
    let broken = ExponentialHistogramPoint::parse(&broken).unwrap();
    assert_eq!(Native::default().exponential(&broken), Err(Skip::Malformed));
    assert_eq!(classic(&broken, &mut Vec::new()), Err(Skip::Malformed));
}

#[test]
fn custom_buckets_are_those_of_the_point() {
    // H9 and H10.
    let bounds = [-2.0, -1.0, 0.0, 1.0, 2.0];
    let h9 = custom(&histogram(&bounds, &[10, 0, 0, 20, 5, 2], 37)).unwrap();
    assert_eq!((h9.schema, &h9.custom_values[..]), (-53, &bounds[..]));
    assert_eq!(expand(&h9.positive), BTreeMap::from([(0, 10), (3, 20), (4, 5), (5, 2)]));
    assert_eq!((h9.count, h9.sum_bits), (37, 1.5f64.to_bits()));
    assert_eq!((h9.zero_count, h9.zero_threshold, h9.negative), (0, 0.0, Side::default()));
    let h10 = custom(&histogram(&[0.124, 1.123], &[3, 11, 0], 14)).unwrap();
    assert_eq!(h10.positive, Side { spans: vec![(0, 2)], deltas: vec![3, 8] });
    assert_eq!(h10.custom_values, [0.124, 1.123]);

    let inf = f64::INFINITY;
    for (bounds, counts, count, want) in [
        (&[][..], &[][..], 10, Ok(vec![(0, 10)])),
        (&[], &[], 0, Ok(vec![])),
        (&[], &[10], 10, Ok(vec![(0, 10)])),
        (&[1.0], &[0, 0], 0, Ok(vec![])),
        (&[1.0, inf], &[1, 2, 3], 6, Ok(vec![(0, 1), (1, 5)])),
        (&[inf], &[2, 0], 2, Ok(vec![(0, 2)])),
        (&[1.0], &[2, 3], 9, Err(Skip::Mismatch)),
        (&[1.0], &[], 9, Err(Skip::Malformed)),
        (&[1.0], &[9], 9, Err(Skip::Malformed)),
        (&[], &[1, 1], 2, Err(Skip::Malformed)),
        (&[1.0, 1.0], &[1, 1, 1], 3, Err(Skip::Malformed)),
        (&[2.0, 1.0], &[1, 1, 1], 3, Err(Skip::Malformed)),
        (&[f64::NAN], &[1, 1], 2, Err(Skip::Malformed)),
        (&[1.0, f64::NAN], &[1, 1, 1], 3, Err(Skip::Malformed)),
        (&[-inf], &[1, 1], 2, Err(Skip::Malformed)),
        (&[inf, inf], &[1, 1, 1], 3, Err(Skip::Malformed)),
        (&[], &[], u64::MAX, Err(Skip::TooLarge)),
    ] {
        let got = custom(&histogram(bounds, counts, count));
        let finite = bounds.iter().copied().filter(|b| b.is_finite()).collect::<Vec<_>>();
        if let Ok(native) = &got {
            assert_eq!(native.custom_values, finite);
        }
        let got = got.map(|n| expand(&n.positive).into_iter().collect::<Vec<_>>());
        assert_eq!(got, want, "{bounds:?} {counts:?} {count}");
    }
    let without_sum = HistogramDataPoint { sum: None, ..histogram(&[], &[1], 1) };
    assert_eq!(custom(&without_sum), Err(Skip::NoSum));
}

#[test]
fn a_stale_histogram_is_only_its_sum() {
    let mut native = leftover();
    native.stale();
    assert_eq!(native, Native { sum_bits: STALE, ..Native::default() });
    let mut bytes = Vec::new();
    native.encode(1, 0, &mut bytes);
    assert_eq!(bytes, [8, 0, 0x19, 2, 0, 0, 0, 0, 0, 0xf0, 0x7f, 0x30, 0, 0x78, 1]);
}

#[test]
fn the_encoded_bytes_are_the_golden_ones() {
    let native = native(&point(0, 0, &[4, 3, 2, 1])).unwrap();
    let mut series = Vec::new();
    let mut label = Vec::new();
    put_bytes(&mut label, 1, b"__name__");
    put_bytes(&mut label, 2, b"h");
    put_bytes(&mut series, 1, &label);
    let mut histogram = Vec::new();
    native.encode(1000, 0, &mut histogram);
    put_bytes(&mut series, 4, &histogram);
    let mut request = Vec::new();
    put_bytes(&mut request, 1, &series);
    let hex: String = request.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        "0a360a0d0a085f5f6e616d655f5f1201682225080a190000000000001640299d978ccf08ba5b253000\
         5a040802100462040801010178e807"
    );
}

#[test]
fn cost_is_that_of_the_encoded_counts() {
    let make = |size: usize| {
        let counts: Vec<u64> = (0..size as u64).map(|i| u64::from(i % 5 == 0)).collect();
        let mut point = point(30, i32::MIN, &counts);
        point.negative = Some(Buckets { offset: i32::MAX, bucket_counts: counts });
        point.count *= 2;
        point.encode_to_vec()
    };
    let work = |bytes: &Vec<u8>| {
        let point = ExponentialHistogramPoint::parse(bytes).unwrap();
        let (mut native, mut buckets) = (Native::default(), Vec::new());
        let done = (native.exponential(&point), classic(&point, &mut buckets));
        assert_eq!(done, (Ok(()), Ok(())));
        (native, buckets)
    };
    assert_linear(make, work, 20_000);
}

fn arb_counts() -> impl Strategy<Value = Vec<u64>> {
    let count = prop_oneof![
        6 => Just(0u64),
        6 => 1..1000u64,
        1 => (i64::MAX as u64 / 100)..(i64::MAX as u64 / 50),
    ];
    prop_oneof![20 => vec(count, 0..40), 1 => vec(any::<u64>(), 0..4)]
}

fn arb_offset() -> impl Strategy<Value = i32> {
    prop_oneof![
        4 => -50..50i32,
        1 => any::<i32>(),
        1 => i32::MIN..i32::MIN + 50,
        1 => i32::MAX - 50..=i32::MAX,
    ]
}

prop_compose! {
    fn arb_point()(
        scale in prop_oneof![8 => -6..=40i32, 1 => any::<i32>()],
        positive in (arb_offset(), arb_counts()),
        negative in (arb_offset(), arb_counts()),
        zero_count in prop_oneof![Just(0u64), 0..100u64],
        zero_threshold in prop_oneof![Just(0.0), 0.0..2.0],
    ) -> ExponentialHistogramDataPoint {
        let buckets = |(offset, bucket_counts)| Some(Buckets { offset, bucket_counts });
        let total = |counts: &[u64]| counts.iter().fold(0, |a: u64, &b| a.wrapping_add(b));
        ExponentialHistogramDataPoint {
            count: total(&positive.1).wrapping_add(total(&negative.1)).wrapping_add(zero_count),
            sum: Some(2.5),
            scale,
            zero_count,
            zero_threshold,
            positive: buckets(positive),
            negative: buckets(negative),
            ..Default::default()
        }
    }
}

/// What the slow version makes of a side, and whether a native histogram can hold that.
fn slow_side(side: &Option<Buckets>, scale: i32) -> (Expanded, bool) {
    let side = side.clone().unwrap_or_default();
    let buckets = slow::native(side.offset.into(), &side.bucket_counts, scale);
    let holds = buckets.values().all(|&count| count <= i64::MAX as u128)
        && buckets.values().sum::<u128>() <= u64::MAX.into()
        && buckets.keys().all(|&index| i32::try_from(index).is_ok());
    (buckets, holds)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn native_is_what_the_slow_version_makes(point in arb_point()) {
        let (positive, fits) = slow_side(&point.positive, point.scale);
        let (negative, fits_too) = slow_side(&point.negative, point.scale);
        let total = positive.values().chain(negative.values()).sum::<u128>() + u128::from(point.zero_count);
        match native(&point) {
            Ok(native) => {
                prop_assert!(point.scale >= -4 && fits && fits_too && total == point.count.into());
                prop_assert_eq!(native.schema, point.scale.min(8));
                prop_assert_eq!(expand(&native.positive), positive);
                prop_assert_eq!(expand(&native.negative), negative);
                prop_assert_eq!((native.count, native.zero_count), (point.count, point.zero_count));
            }
            Err(Skip::ScaleTooLow) => prop_assert!(point.scale < -4),
            Err(Skip::TooLarge) => prop_assert!(!fits || !fits_too),
            Err(Skip::Mismatch) => prop_assert!(total > u64::MAX.into()),
            Err(skip) => prop_assert!(false, "{skip:?}"),
        }
    }

    #[test]
    fn encoded_histograms_are_read_back(
        point in arb_point(),
        bounds in vec(-1e9..1e9f64, 0..5),
        times in (any::<i64>(), any::<i64>()),
    ) {
        let mut natives = Vec::from_iter(native(&point));
        let mut bounds = bounds;
        bounds.sort_by(f64::total_cmp);
        let counts: Vec<u64> = (0..=bounds.len() as u64).collect();
        natives.extend(custom(&histogram(&bounds, &counts, counts.iter().sum())));
        for native in natives {
            let mut bytes = Vec::new();
            native.encode(times.0, times.1, &mut bytes);
            let spans = |side: &Side| {
                side.spans.iter().map(|&(offset, length)| BucketSpan { offset, length }).collect()
            };
            let want = Histogram {
                count: Some(Count::Int(native.count)),
                sum: f64::from_bits(native.sum_bits),
                schema: native.schema,
                zero_threshold: native.zero_threshold,
                zero_count: Some(ZeroCount::Int(native.zero_count)),
                negative_spans: spans(&native.negative),
                negative_deltas: native.negative.deltas.clone(),
                positive_spans: spans(&native.positive),
                positive_deltas: native.positive.deltas.clone(),
                timestamp: times.0,
                custom_values: native.custom_values.clone(),
                start_timestamp: times.1,
                ..Histogram::default()
            };
            prop_assert_eq!(Histogram::decode(&bytes[..]).unwrap(), want.clone());
            prop_assert_eq!(bytes, want.encode_to_vec());
        }
    }
}
