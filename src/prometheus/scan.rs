//! One pass over a point: its scalars, and where its attributes stand.
//!
//! A steady series is recognised by the bytes of its attributes, so the scan does not look into them. Producers
//! write the attributes of a point side by side; if they do not, the bytes are gathered.

use crate::pdata::fields::{exponential_histogram_point, histogram_point, number_point, summary_point};
use crate::pdata::metrics::{Kind, Number};
use crate::pdata::wire::{Cursor, Value, WireError};

/// What all kinds of points have, and what numbers and classic histograms have beyond.
#[derive(Debug, Default)]
pub struct Scan<'a> {
    /// Begin of the interval, nanoseconds since 1970; 0 when unknown.
    pub start: u64,
    /// Time of the point, nanoseconds since 1970.
    pub time: u64,
    /// DataPointFlags.
    pub flags: u32,
    /// The value of a number.
    pub value: Option<Number>,
    /// The count of a histogram or summary.
    pub count: u64,
    /// The sum of a histogram or summary, as bits.
    pub sum: Option<u64>,
    /// Packed bounds of a classic histogram.
    pub bounds: &'a [u8],
    /// Packed counts of a classic histogram.
    pub counts: &'a [u8],
    /// Whether bounds or counts came in several pieces and must be read by the view.
    pub pieces: bool,
    /// Whether there are exemplars.
    pub exemplars: bool,
    /// The encoded attribute fields, tags included.
    pub attributes: &'a [u8],
    /// Whether there are more attributes than those.
    pub scattered: bool,
}

/// The field numbers of one kind of point; 0 is a field it does not have.
struct Layout {
    attributes: u32,
    flags: u32,
    exemplars: u32,
    count: u32,
    sum: u32,
}

const NUMBER: Layout = Layout {
    attributes: number_point::ATTRIBUTES,
    flags: number_point::FLAGS,
    exemplars: number_point::EXEMPLARS,
    count: 0,
    sum: 0,
};
const HISTOGRAM: Layout = Layout {
    attributes: histogram_point::ATTRIBUTES,
    flags: histogram_point::FLAGS,
    exemplars: histogram_point::EXEMPLARS,
    count: histogram_point::COUNT,
    sum: histogram_point::SUM,
};
const EXPONENTIAL: Layout = Layout {
    attributes: exponential_histogram_point::ATTRIBUTES,
    flags: exponential_histogram_point::FLAGS,
    exemplars: exponential_histogram_point::EXEMPLARS,
    count: exponential_histogram_point::COUNT,
    sum: exponential_histogram_point::SUM,
};
const SUMMARY: Layout = Layout {
    attributes: summary_point::ATTRIBUTES,
    flags: summary_point::FLAGS,
    exemplars: 0,
    count: summary_point::COUNT,
    sum: summary_point::SUM,
};

impl<'a> Scan<'a> {
    /// Reads an encoded point of this kind.
    ///
    /// # Errors
    /// What is wrong with it.
    #[inline]
    pub fn parse(kind: Kind, point: &'a [u8]) -> Result<Self, WireError> {
        match kind {
            Kind::Histogram => Self::read(point, &HISTOGRAM, |scan, number, value| match number {
                histogram_point::EXPLICIT_BOUNDS => scan.list(value, true),
                histogram_point::BUCKET_COUNTS => scan.list(value, false),
                _ => Ok(()),
            }),
            Kind::ExponentialHistogram => Self::read(point, &EXPONENTIAL, |_, _, _| Ok(())),
            Kind::Summary => Self::read(point, &SUMMARY, |_, _, _| Ok(())),
            Kind::Gauge | Kind::Sum | Kind::Empty => Self::read(point, &NUMBER, |scan, number, value| {
                match number {
                    number_point::AS_DOUBLE => scan.value = Some(Number::Double(value.double()?)),
                    number_point::AS_INT => scan.value = Some(Number::Int(value.fixed64()? as i64)),
                    _ => {}
                }
                Ok(())
            }),
        }
    }

    // One copy for each kind: the layout is a constant in each.
    #[inline(always)]
    fn read(
        point: &'a [u8],
        layout: &Layout,
        rest: impl Fn(&mut Self, u32, Value<'a>) -> Result<(), WireError>,
    ) -> Result<Self, WireError> {
        let mut scan = Scan::default();
        let mut cursor = Cursor::new(point);
        let (mut from, mut to) = (0, 0);
        while let Some(field) = cursor.next_field()? {
            let (number, value) = (field.number, field.value);
            if number == layout.attributes {
                value.bytes()?;
                if from == to {
                    from = field.start;
                } else if field.start != to {
                    scan.scattered = true;
                    continue;
                }
                cursor.pass_short(layout.attributes);
                to = cursor.pos();
            } else if number == 2 {
                // Field 2 and 3 are the times in every kind of point.
                scan.start = value.fixed64()?;
            } else if number == 3 {
                scan.time = value.fixed64()?;
            } else if number == layout.flags {
                scan.flags = value.varint()? as u32;
            } else if number == layout.exemplars {
                scan.exemplars = true;
            } else if layout.count != 0 && number == layout.count {
                scan.count = value.fixed64()?;
            } else if layout.sum != 0 && number == layout.sum {
                scan.sum = Some(value.fixed64()?);
            } else {
                rest(&mut scan, number, value)?;
            }
        }
        scan.attributes = point.get(from..to).unwrap_or_default();
        Ok(scan)
    }

    fn list(&mut self, value: Value<'a>, bounds: bool) -> Result<(), WireError> {
        let place = if bounds { &mut self.bounds } else { &mut self.counts };
        match value {
            Value::Bytes(packed) if place.is_empty() => *place = packed,
            Value::Bytes([]) => {}
            Value::Bytes(_) | Value::Fixed64(_) => self.pieces = true,
            _ => return Err(WireError::WrongType),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_one_range() {
        // time, two attributes, as_int
        let point = b"\x19\x01\0\0\0\0\0\0\0\x3a\x01a\x3a\x02bc\x31\x05\0\0\0\0\0\0\0";
        let scan = Scan::parse(Kind::Gauge, point).unwrap();
        assert_eq!(scan.time, 1);
        assert_eq!(scan.value, Some(Number::Int(5)));
        assert_eq!(scan.attributes, b"\x3a\x01a\x3a\x02bc");
        assert!(!scan.scattered);
    }

    #[test]
    fn attributes_apart_are_noticed() {
        let point = b"\x3a\x01a\x19\x01\0\0\0\0\0\0\0\x3a\x02bc";
        let scan = Scan::parse(Kind::Sum, point).unwrap();
        assert!(scan.scattered);
        assert_eq!(scan.attributes, b"\x3a\x01a");
    }

    #[test]
    fn lists_in_pieces_are_noticed() {
        let one = b"\x3a\x08\0\0\0\0\0\0\xf0\x3f";
        let scan = Scan::parse(Kind::Histogram, one).unwrap();
        assert_eq!((scan.bounds.len(), scan.pieces), (8, false));
        let two = [&one[..], &one[..]].concat();
        assert!(Scan::parse(Kind::Histogram, &two).unwrap().pieces);
        assert!(Scan::parse(Kind::Histogram, b"\x39\0\0\0\0\0\0\xf0\x3f").unwrap().pieces);
        assert_eq!(Scan::parse(Kind::Histogram, b"\x38\x01").unwrap_err(), WireError::WrongType);
    }
}
