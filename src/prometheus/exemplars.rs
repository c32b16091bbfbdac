//! Exemplars of one point, as text.
//!
//! Labels are `trace_id`, `span_id` and the filtered attributes, the latter all or none: with them an exemplar may
//! have no more than 128 characters of names and values.

use crate::pdata::common::Messages;
use crate::pdata::fields::{exponential_histogram_point, histogram_point, number_point};
use crate::pdata::metrics::{Exemplar, Kind, Number};
use crate::pdata::wire::WireError;
use crate::prometheus::native::ORDINARY_NAN;
use crate::prometheus::text::value_text;

/// How many characters an exemplar's labels may have, names and values together.
pub const MAX_RUNES: usize = 128;

/// One exemplar, its labels sorted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExemplarText {
    /// Names and values.
    pub labels: Vec<(String, String)>,
    /// The bits of its value.
    pub bits: u64,
    /// Milliseconds since 1970.
    pub time: i64,
}

/// How many exemplars of a point are read: far more than a point has buckets.
const MOST: usize = 4096;

/// The exemplars of a point.
#[derive(Debug, Default)]
pub struct ExemplarList {
    list: Vec<ExemplarText>,
    /// Those before were given out by [`ExemplarList::up_to`].
    given: usize,
}

impl ExemplarList {
    /// Takes everything out, keeps the room.
    pub fn clear(&mut self) {
        self.list.clear();
        self.given = 0;
    }

    /// Reads the exemplars of a point, in order of their values. One without a value or a time is left out, and so
    /// is what is beyond [`MOST`].
    ///
    /// # Errors
    /// They cannot be read.
    pub fn read(&mut self, kind: Kind, point: &[u8]) -> Result<(), WireError> {
        self.clear();
        let number = match kind {
            Kind::Histogram => histogram_point::EXEMPLARS,
            Kind::ExponentialHistogram => exponential_histogram_point::EXEMPLARS,
            _ => number_point::EXEMPLARS,
        };
        for message in Messages::of(point, number).take(MOST) {
            if let Some(exemplar) = text(&Exemplar::parse(message?)?)? {
                self.list.push(exemplar);
            }
        }
        self.sort_by_value();
        Ok(())
    }

    /// Puts them in the order in which [`ExemplarList::up_to`] wants them.
    pub fn sort_by_value(&mut self) {
        self.list.sort_by(|a, b| f64::from_bits(a.bits).total_cmp(&f64::from_bits(b.bits)));
    }

    /// All of them.
    pub fn all(&self) -> &[ExemplarText] {
        &self.list
    }

    /// Those not given out yet with values of at most `bound`, in the order of their times.
    pub fn up_to(&mut self, bound: f64) -> &[ExemplarText] {
        let from = self.given;
        let rest = self.list.get(from..).unwrap_or_default();
        let within = |e: &ExemplarText| f64::from_bits(e.bits) <= bound || bound == f64::INFINITY;
        self.given += rest.iter().take_while(|e| within(e)).count();
        let given = self.list.get_mut(from..self.given).unwrap_or_default();
        given.sort_by_key(|e| e.time);
        given
    }

    /// Puts them in the order of their times.
    pub fn sort_by_time(&mut self) {
        self.list.sort_by_key(|e| e.time);
    }
}

fn text(exemplar: &Exemplar<'_>) -> Result<Option<ExemplarText>, WireError> {
    let bits = match exemplar.value {
        Some(Number::Double(value)) if value.is_nan() => ORDINARY_NAN,
        Some(Number::Double(value)) => value.to_bits(),
        Some(Number::Int(value)) => (value as f64).to_bits(),
        None => return Ok(None),
    };
    if exemplar.time_unix_nano == 0 || exemplar.time_unix_nano > i64::MAX as u64 {
        return Ok(None);
    }
    let mut labels = Vec::new();
    for (name, id) in [("trace_id", exemplar.trace_id), ("span_id", exemplar.span_id)] {
        if !id.is_empty() {
            labels.push((name.to_owned(), hex(id)));
        }
    }
    let own = labels.len();
    let mut runes: usize = labels.iter().map(|(n, v)| n.chars().count() + v.chars().count()).sum();
    for pair in exemplar.filtered_attributes() {
        let (key, value) = pair?;
        let name = String::from_utf8_lossy(key).into_owned();
        let mut text = String::new();
        value_text(&value, &mut text);
        if name.is_empty() || text.is_empty() || labels.iter().any(|(known, _)| *known == name) {
            continue;
        }
        runes += name.chars().count() + text.chars().count();
        if runes > MAX_RUNES {
            labels.truncate(own);
            break;
        }
        labels.push((name, text));
    }
    labels.sort();
    let time = (exemplar.time_unix_nano / 1_000_000) as i64;
    Ok(Some(ExemplarText { labels, bits, time }))
}

fn hex(id: &[u8]) -> String {
    use std::fmt::Write;
    id.iter().fold(String::with_capacity(2 * id.len()), |mut out, byte| {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}
