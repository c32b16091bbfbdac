//! What readings are called: the table of metrics, with names, units, kinds, attributes and scales.
//!
//! A metric is one entry of a list below. What the hardware conventions of OpenTelemetry define has their name (`hw.…`);
//! other readings are `nvidia.gpu.…`, accounts are `gpu.tenant.…`. Units are base units. [`Table`] is what is left of
//! the lists for one configuration, flat and by reading, so that naming a sample costs two array accesses.

mod compat;
mod devices;
mod node;

use super::model::{Reading, Value};
use crate::pdata::template::Attribute;

pub use compat::{DCGM, LEGACY};
pub use devices::DEVICES;
pub use node::NODE;

/// What kind of metric it is.
pub use crate::pdata::template::Kind as Shape;

/// Which attributes say what a point is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// `hw.id`, `hw.name`; of a MIG instance `hw.parent` as well.
    Device,
    /// The same and `hw.type`, which the conventions ask for on some metrics.
    TypedDevice,
    /// `hw.id` of the fan, `hw.parent`.
    Fan,
    /// `gpu_id` and `node`.
    Legacy,
    /// `gpu_id` and `gpu_name`.
    LegacyNamed,
    /// The labels of dcgm-exporter.
    Dcgm,
    /// What belongs to the thing itself: see [`Made`].
    Own,
}

/// What becomes of a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    /// Nothing.
    One,
    /// A product; integers stay integers.
    Times(i64),
    /// A quotient.
    Per(f64),
    /// Whole units of the divisor, as dcgm-exporter's MiB.
    Whole(i64),
}

/// What tells several values of one reading apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Labels {
    /// Nothing.
    None,
    /// This.
    Is(&'static str, &'static str),
    /// The index counts through these words; values beyond them are not exported.
    Word(&'static str, &'static [&'static str]),
    /// The index counts through these words, and only one of them is this metric.
    Only(u16),
    /// The index counts through these words, beside something fixed.
    WordIn(&'static str, &'static [&'static str], &'static str, &'static str),
    /// The index counts through rows of words.
    Rows(&'static str, &'static str, &'static [[&'static str; 2]]),
    /// The index itself.
    Number(&'static str),
    /// The index is a number times as many as there are words, plus the place of a word.
    NumberAndWord(&'static str, &'static str, &'static [&'static str]),
    /// Two words: the index is the place of the first times as many as there are of the second, plus the place of that.
    TwoWords(&'static str, &'static [&'static str], &'static str, &'static [&'static str]),
}

/// What is not read from a device but made here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Made {
    /// 1 for a device that was read, 0 for one that was not.
    Up,
    /// Of a device.
    Info,
    /// Of a MIG instance.
    MigInfo,
    /// 1 or 0.
    CollectionSuccess,
    /// Seconds.
    CollectionDuration,
    /// Unix seconds.
    CollectionLastSuccess,
    /// By state.
    DeviceCount,
    /// Times a library was opened.
    Generation,
    /// By error.
    ReadErrors,
    /// By device and code.
    XidEvents,
    /// By device and code: Unix seconds.
    XidLastSeen,
    /// By device: the last code.
    XidLast,
    /// By device and type.
    Events,
    /// Bytes.
    ProcessMemory,
    /// Percent; (sm, memory, encoder, decoder).
    ProcessLoad,
    /// Part of 1.
    AllocationShare,
    /// Part of 1.
    AllocationBusy,
    /// Seconds.
    TenantAllocated,
    /// Seconds.
    TenantBusy,
    /// Joules.
    TenantEnergy,
    /// In the currency.
    TenantCost,
    /// Seconds.
    Unaccounted,
    /// In the currency.
    Price,
}

/// Where values of a metric come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The driver.
    Read(Reading),
    /// Us.
    Made(Made),
}

/// One source of a metric's points.
#[derive(Debug, Clone, Copy)]
pub struct From {
    /// Where values come from.
    pub origin: Origin,
    /// What becomes of them.
    pub scale: Scale,
    /// What tells them apart.
    pub labels: Labels,
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name in OpenTelemetry.
    pub name: &'static str,
    /// Its unit, as UCUM writes it.
    pub unit: &'static str,
    /// Its kind.
    pub shape: Shape,
    /// What it is of.
    pub who: Who,
    /// One sentence.
    pub about: &'static str,
    /// Where its points come from.
    pub from: &'static [From],
}

/// A row of the flat table: a metric and one of its sources.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The metric's place in [`Table::metrics`].
    pub metric: u16,
    /// The source.
    pub from: From,
}

/// The metrics of one configuration.
#[derive(Debug)]
pub struct Table {
    /// The metrics, in the order of export.
    pub metrics: Vec<&'static Metric>,
    /// Metric and source, flat.
    pub rows: Vec<Row>,
    by_reading: Vec<Vec<u16>>,
    by_made: Vec<Vec<u16>>,
}

impl Table {
    /// The table with or without the names of others.
    pub fn new(legacy: bool, dcgm: bool) -> Self {
        let lists = [(true, DEVICES), (true, NODE), (legacy, LEGACY), (dcgm, DCGM)];
        let metrics: Vec<&'static Metric> =
            lists.into_iter().filter(|(on, _)| *on).flat_map(|(_, list)| list).collect();
        let mut table = Table { metrics, rows: Vec::new(), by_reading: Vec::new(), by_made: Vec::new() };
        for (at, metric) in table.metrics.iter().enumerate() {
            for from in metric.from {
                let (list, place) = match from.origin {
                    Origin::Read(reading) => (&mut table.by_reading, reading as usize),
                    Origin::Made(made) => (&mut table.by_made, made as usize),
                };
                if list.len() <= place {
                    list.resize(place + 1, Vec::new());
                }
                if let Some(rows) = list.get_mut(place) {
                    rows.push(table.rows.len() as u16);
                }
                table.rows.push(Row { metric: at as u16, from: *from });
            }
        }
        table
    }

    /// The rows of a reading, with their numbers.
    #[inline]
    pub fn of(&self, reading: Reading) -> impl Iterator<Item = (u16, &Row)> {
        self.numbered(self.by_reading.get(reading as usize))
    }

    /// The rows of what is made here.
    #[inline]
    pub fn made(&self, made: Made) -> impl Iterator<Item = (u16, &Row)> {
        self.numbered(self.by_made.get(made as usize))
    }

    fn numbered<'t>(&'t self, rows: Option<&'t Vec<u16>>) -> impl Iterator<Item = (u16, &'t Row)> {
        let rows = rows.into_iter().flatten();
        rows.filter_map(|&row| Some((row, self.rows.get(usize::from(row))?)))
    }

    /// The metric of a row.
    pub fn metric(&self, row: &Row) -> Option<&'static Metric> {
        self.metrics.get(usize::from(row.metric)).copied()
    }
}

impl Scale {
    /// The value in the metric's unit.
    #[inline]
    pub fn apply(self, value: Value) -> Value {
        match (self, value) {
            (Scale::One, value) => value,
            (Scale::Times(factor), Value::Int(n)) => Value::Int(n.saturating_mul(factor)),
            (Scale::Times(factor), Value::Double(n)) => Value::Double(n * factor as f64),
            (Scale::Per(divisor), value) => Value::Double(value.as_f64() / divisor),
            (Scale::Whole(divisor), Value::Int(n)) => Value::Int(n / divisor.max(1)),
            (Scale::Whole(divisor), Value::Double(n)) => Value::Double((n / divisor as f64).trunc()),
        }
    }
}

impl Labels {
    /// Whether there is a name for this index.
    #[inline]
    pub fn takes(self, index: u16) -> bool {
        let index = usize::from(index);
        match self {
            Labels::None | Labels::Is(..) => index == 0,
            Labels::Only(only) => index == usize::from(only),
            Labels::Word(_, words) | Labels::WordIn(_, words, ..) => {
                words.get(index).is_some_and(|word| !word.is_empty())
            }
            Labels::Rows(_, _, rows) => index < rows.len(),
            Labels::Number(_) | Labels::NumberAndWord(..) => true,
            Labels::TwoWords(_, first, _, second) => index < first.len() * second.len(),
        }
    }

    /// The attributes for an index that it [takes](Labels::takes).
    pub fn each(self, index: u16, mut put: impl FnMut(&'static str, Label)) {
        let at = usize::from(index);
        let word = |words: &'static [&'static str], at: usize| {
            Label::Str(words.get(at).copied().unwrap_or_default())
        };
        match self {
            Labels::None | Labels::Only(_) => {}
            Labels::Is(key, value) => put(key, Label::Str(value)),
            Labels::Word(key, words) => put(key, word(words, at)),
            Labels::WordIn(key, words, other, value) => {
                put(key, word(words, at));
                put(other, Label::Str(value));
            }
            Labels::Rows(first, second, rows) => {
                let row = rows.get(at).copied().unwrap_or_default();
                for (key, value) in [(first, row[0]), (second, row[1])] {
                    if !value.is_empty() {
                        put(key, Label::Str(value));
                    }
                }
            }
            Labels::Number(key) => put(key, Label::Int(index.into())),
            Labels::NumberAndWord(number, key, words) => {
                put(number, Label::Int((at / words.len().max(1)) as i64));
                put(key, word(words, at % words.len().max(1)));
            }
            Labels::TwoWords(first, firsts, second, seconds) => {
                put(first, word(firsts, at / seconds.len().max(1)));
                put(second, word(seconds, at % seconds.len().max(1)));
            }
        }
    }
}

/// The value of an attribute.
pub type Label = Attribute<'static>;

const fn read(reading: Reading) -> From {
    From { origin: Origin::Read(reading), scale: Scale::One, labels: Labels::None }
}

const fn made(made: Made) -> From {
    From { origin: Origin::Made(made), scale: Scale::One, labels: Labels::None }
}

impl From {
    const fn per(self, divisor: f64) -> From {
        From { scale: Scale::Per(divisor), ..self }
    }

    const fn times(self, factor: i64) -> From {
        From { scale: Scale::Times(factor), ..self }
    }

    const fn whole(self, divisor: i64) -> From {
        From { scale: Scale::Whole(divisor), ..self }
    }

    const fn by(self, labels: Labels) -> From {
        From { labels, ..self }
    }

    /// One of several values only.
    const fn only(self, index: u16) -> From {
        self.by(Labels::Only(index))
    }
}

#[cfg(test)]
mod tests;
