//! Exponential histograms as classic buckets.

use super::layout::{Occupied, Range};
use super::{Exponential, Skip, shift, zero_threshold};

/// At most so many buckets are made of one histogram: what is finer is scaled down.
pub const MAX_CLASSIC_BUCKETS: usize = 160;

/// The classic buckets being written: bounds ascend, counts are cumulative.
struct Writer<'a> {
    out: &'a mut Vec<(f64, u64)>,
    total: u64,
}

/// The classic buckets of an exponential histogram: upper bounds, finite and ascending, and how many values
/// are no greater; at most [`MAX_CLASSIC_BUCKETS`]. The bucket of +Inf is the caller's to add, from the count.
///
/// There is a bucket for every index from the first to the last that is occupied on each side, and one for
/// the values around zero if there are any, or negative ones. Scales below -4 are welcome. Scaling down takes
/// every second bound away and adds none, so a histogram that grows keeps bounds that it had. A negative value
/// that is itself a bound counts from the next bound on, since negative buckets do not include the upper one.
///
/// # Errors
/// [`Skip::Malformed`], and [`Skip::TooLarge`] when the counts add up to more than 64 bits.
pub fn classic(point: &impl Exponential, out: &mut Vec<(f64, u64)>) -> Result<(), Skip> {
    out.clear();
    let scalars = point.scalars();
    let zero = zero_threshold(scalars.zero_threshold)?;
    let negative = Range::of(point.negative())?;
    let positive = Range::of(point.positive())?;
    let has_zero = scalars.zero_count > 0 || negative.is_occupied();
    // Ends at the latest when there are two indices left on each side, 0 and -1.
    let fits = |steps: &i32| {
        let width = negative.shifted(shift(*steps)).width() + positive.shifted(shift(*steps)).width();
        width + i64::from(has_zero) <= MAX_CLASSIC_BUCKETS as i64
    };
    let steps = (0..=63).find(fits).unwrap_or(63);
    let (scale, shift) = (i64::from(scalars.scale) - i64::from(steps), shift(steps));
    let (negative, positive) = (negative.shifted(shift), positive.shifted(shift));
    let index = |i: i64| i >> shift;

    let mut writer = Writer { out, total: 0 };
    if negative.is_occupied() {
        // The counts come from zero outwards, the bounds are wanted from afar.
        let mut counts = [0u64; MAX_CLASSIC_BUCKETS];
        for bucket in Occupied::new(point.negative(), index) {
            let (i, count) = bucket?;
            let place = usize::try_from(negative.last - i).ok().and_then(|place| counts.get_mut(place));
            *place.ok_or(Skip::TooLarge)? = count;
        }
        for (i, count) in (negative.first..=negative.last).rev().zip(counts) {
            writer.bucket(-power(scale, i), count)?;
        }
    }
    if has_zero {
        writer.bucket(zero, scalars.zero_count)?;
    }
    let mut next = positive.first;
    for bucket in Occupied::new(point.positive(), index) {
        let (i, count) = bucket?;
        for empty in next..i {
            writer.bucket(power(scale, empty + 1), 0)?;
        }
        writer.bucket(power(scale, i + 1), count)?;
        next = i + 1;
    }
    Ok(())
}

impl Writer<'_> {
    /// Counts go to the last bound if the next one is no greater, as bounds beyond the range of doubles are,
    /// and those that a wide zero bucket covers. An infinite one is not written.
    fn bucket(&mut self, bound: f64, count: u64) -> Result<(), Skip> {
        self.total = self.total.checked_add(count).ok_or(Skip::TooLarge)?;
        match self.out.last_mut() {
            Some((last, total)) if *last >= bound => *total = self.total,
            _ if bound.is_finite() => self.out.push((bound, self.total)),
            _ => {}
        }
        Ok(())
    }
}

/// The base of a scale to the power of an index: infinite or 0 when it is beyond the range of doubles.
pub fn power(scale: i64, index: i64) -> f64 {
    // Beyond these scales every base is 1 or infinite; so far the product is never 0 times infinity.
    let scale = scale.clamp(-1000, 1000) as i32;
    (index as f64 * f64::from(-scale).exp2()).exp2()
}
