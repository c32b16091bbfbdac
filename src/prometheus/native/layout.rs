//! From dense counts to occupied buckets, and from those to spans and deltas.
//!
//! An index is shifted right by a bit for every step that the scale goes down.

use super::{MAX_NATIVE_BUCKETS, Side, Skip};
use crate::pdata::wire::WireError;

/// So many empty buckets are written rather than skipped: they take less room than another span.
const FILLED: i64 = 2;

/// The occupied buckets of dense counts, each with its index; those of equal index are one.
///
/// `index` gives the index from the place in the dense counts, and must not descend.
pub struct Occupied<I, M> {
    counts: I,
    next: i64,
    index: M,
    held: Option<(i64, u64)>,
}

/// The indices from the first to the last occupied bucket of a side; none when `first` is above `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first index.
    pub first: i64,
    /// The last index.
    pub last: i64,
}

impl<I, M> Occupied<I, M>
where
    I: Iterator<Item = Result<u64, WireError>>,
    M: Fn(i64) -> i64,
{
    /// `first` is the place of the first count.
    pub fn new((first, counts): (i64, I), index: M) -> Self {
        Occupied { counts, next: first, index, held: None }
    }

    fn step(&mut self) -> Result<Option<(i64, u64)>, Skip> {
        for count in self.counts.by_ref() {
            let count = count.map_err(|_| Skip::Malformed)?;
            let index = (self.index)(self.next);
            self.next += 1;
            match &mut self.held {
                _ if count == 0 => {}
                Some((held, sum)) if *held == index => {
                    *sum = sum.checked_add(count).ok_or(Skip::TooLarge)?;
                }
                held => {
                    if let Some(done) = held.replace((index, count)) {
                        return Ok(Some(done));
                    }
                }
            }
        }
        Ok(self.held.take())
    }
}

impl<I, M> Iterator for Occupied<I, M>
where
    I: Iterator<Item = Result<u64, WireError>>,
    M: Fn(i64) -> i64,
{
    type Item = Result<(i64, u64), Skip>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

impl Range {
    /// No bucket at all.
    pub const NONE: Range = Range { first: 0, last: -1 };

    /// The range of dense counts, `first` being the place of the first of them. Reads all of them.
    ///
    /// # Errors
    /// [`Skip::Malformed`] when one cannot be read.
    pub fn of((first, counts): (i64, impl Iterator<Item = Result<u64, WireError>>)) -> Result<Self, Skip> {
        let mut range = Range::NONE;
        for (count, i) in counts.zip(first..) {
            if count.map_err(|_| Skip::Malformed)? != 0 {
                range = range.with(Range { first: i, last: i });
            }
        }
        Ok(range)
    }

    /// Whether there is a bucket.
    pub fn is_occupied(self) -> bool {
        self.first <= self.last
    }

    /// The range of the same buckets scaled down.
    pub fn shifted(self, by: u32) -> Self {
        if self.is_occupied() { Range { first: self.first >> by, last: self.last >> by } } else { self }
    }

    /// The least range that has both in it.
    pub fn with(self, other: Self) -> Self {
        match (self.is_occupied(), other.is_occupied()) {
            (false, _) => other,
            (_, false) => self,
            _ => Range { first: self.first.min(other.first), last: self.last.max(other.last) },
        }
    }

    /// How many indices.
    pub fn width(self) -> i64 {
        self.last - self.first + 1
    }
}

/// Writes buckets, ascending and not empty, into an empty side. The sum of their counts.
pub fn lay_out(
    side: &mut Side,
    buckets: impl Iterator<Item = Result<(i64, u64), Skip>>,
) -> Result<u64, Skip> {
    let (mut end, mut last, mut total) = (0i64, 0i64, 0u64);
    for bucket in buckets {
        let (index, count) = bucket?;
        i32::try_from(index).map_err(|_| Skip::TooLarge)?;
        total = total.checked_add(count).ok_or(Skip::TooLarge)?;
        let count = i64::try_from(count).map_err(|_| Skip::TooLarge)?;
        if side.deltas.len() >= MAX_NATIVE_BUCKETS {
            return Err(Skip::TooLarge);
        }
        let gap = index - end;
        match side.spans.last_mut() {
            Some((_, length)) if gap <= FILLED => {
                for _ in 0..gap {
                    side.deltas.push(-last);
                    last = 0;
                }
                let added = u32::try_from(gap + 1).map_err(|_| Skip::TooLarge)?;
                *length = length.checked_add(added).ok_or(Skip::TooLarge)?;
            }
            _ => side.spans.push((i32::try_from(gap).map_err(|_| Skip::TooLarge)?, 1)),
        }
        side.deltas.push(count - last);
        (last, end) = (count, index + 1);
    }
    Ok(total)
}
