//! Slow, obvious versions to compare with. Nothing here refers to the rest of the crate, so that fuzz targets
//! can include this file.

use std::collections::BTreeMap;

/// The occupied buckets, by index, of dense counts that begin at `offset`, scaled down by `steps`.
pub fn buckets(offset: i128, counts: &[u64], steps: i64) -> BTreeMap<i128, u128> {
    let mut buckets = BTreeMap::new();
    for (i, &count) in counts.iter().enumerate() {
        let mut index = offset + i as i128;
        // After so many steps every index that there can be is 0 or -1.
        for _ in 0..steps.clamp(0, 200) {
            index = index.div_euclid(2);
        }
        if count > 0 {
            *buckets.entry(index).or_insert(0) += u128::from(count);
        }
    }
    buckets
}

/// The same as a native histogram numbers them, by the upper bound.
pub fn native(offset: i128, counts: &[u64], scale: i32) -> BTreeMap<i128, u128> {
    let steps = i64::from(scale) - 8;
    buckets(offset, counts, steps).into_iter().map(|(index, count)| (index + 1, count)).collect()
}

/// The occupied buckets that spans and deltas stand for. Panics when they do not agree, when the first or the
/// last bucket is empty, and when a count is negative.
pub fn expand(spans: &[(i32, u32)], deltas: &[i64]) -> BTreeMap<i128, u128> {
    let mut buckets = BTreeMap::new();
    let (mut index, mut count) = (0i128, 0i128);
    let mut deltas = deltas.iter();
    for (i, &(offset, length)) in spans.iter().enumerate() {
        assert!(length > 0 && (i == 0 || offset > 2), "{spans:?}");
        index += i128::from(offset);
        for place in 0..length {
            count += i128::from(*deltas.next().expect("a delta for every bucket"));
            let end = place == 0 || place + 1 == length;
            assert!(count > 0 || count == 0 && !end, "{spans:?} {count}");
            if count > 0 {
                buckets.insert(index, count as u128);
            }
            index += 1;
        }
    }
    assert_eq!(deltas.next(), None);
    buckets
}
