//! The messages of remote write 1.0 and 2.0, written down twice: as structs that prost decodes, and as tables of
//! what may be on the wire, which find what a lenient decoder lets pass (unknown fields, repeated singular fields,
//! wrong wire types, numbers out of range, text that is not UTF-8).

use prost::{Message, Oneof};

use super::Findings;

/// `prometheus.WriteRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    pub timeseries: Vec<TimeSeries>,
    #[prost(message, repeated, tag = "3")]
    pub metadata: Vec<MetricMetadata>,
}

/// `prometheus.TimeSeries`.
#[derive(Clone, PartialEq, Message)]
pub struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    pub exemplars: Vec<Exemplar>,
    #[prost(message, repeated, tag = "4")]
    pub histograms: Vec<Histogram>,
}

/// `prometheus.Label`.
#[derive(Clone, PartialEq, Message)]
pub struct Label {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A sample of either version; the start time exists in 2.0 alone.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Sample {
    /// The bits of the double: a negative zero and every NaN as they are.
    #[prost(fixed64, tag = "1")]
    pub bits: u64,
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
    #[prost(int64, tag = "3")]
    pub start_timestamp: i64,
}

/// `prometheus.Exemplar`.
#[derive(Clone, PartialEq, Message)]
pub struct Exemplar {
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    #[prost(double, tag = "2")]
    pub value: f64,
    #[prost(int64, tag = "3")]
    pub timestamp: i64,
}

/// `prometheus.MetricMetadata`.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct MetricMetadata {
    #[prost(int32, tag = "1")]
    pub kind: i32,
    #[prost(string, tag = "2")]
    pub metric_family_name: String,
    #[prost(string, tag = "4")]
    pub help: String,
    #[prost(string, tag = "5")]
    pub unit: String,
}

/// A native histogram of either version; the start time exists in 2.0 alone.
#[derive(Clone, PartialEq, Message)]
pub struct Histogram {
    #[prost(oneof = "Count", tags = "1, 2")]
    pub count: Option<Count>,
    #[prost(double, tag = "3")]
    pub sum: f64,
    #[prost(sint32, tag = "4")]
    pub schema: i32,
    #[prost(double, tag = "5")]
    pub zero_threshold: f64,
    #[prost(oneof = "ZeroCount", tags = "6, 7")]
    pub zero_count: Option<ZeroCount>,
    #[prost(message, repeated, tag = "8")]
    pub negative_spans: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "9")]
    pub negative_deltas: Vec<i64>,
    #[prost(double, repeated, tag = "10")]
    pub negative_counts: Vec<f64>,
    #[prost(message, repeated, tag = "11")]
    pub positive_spans: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "12")]
    pub positive_deltas: Vec<i64>,
    #[prost(double, repeated, tag = "13")]
    pub positive_counts: Vec<f64>,
    #[prost(int32, tag = "14")]
    pub reset_hint: i32,
    #[prost(int64, tag = "15")]
    pub timestamp: i64,
    #[prost(double, repeated, tag = "16")]
    pub custom_values: Vec<f64>,
    #[prost(int64, tag = "17")]
    pub start_timestamp: i64,
}

/// How many observations, as the flavour of the histogram has it.
#[derive(Clone, Copy, PartialEq, Oneof)]
pub enum Count {
    #[prost(uint64, tag = "1")]
    Int(u64),
    #[prost(double, tag = "2")]
    Float(f64),
}

/// How many observations in the zero bucket.
#[derive(Clone, Copy, PartialEq, Oneof)]
pub enum ZeroCount {
    #[prost(uint64, tag = "6")]
    Int(u64),
    #[prost(double, tag = "7")]
    Float(f64),
}

/// A run of buckets.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct BucketSpan {
    #[prost(sint32, tag = "1")]
    pub offset: i32,
    #[prost(uint32, tag = "2")]
    pub length: u32,
}

/// `io.prometheus.write.v2.Request`.
#[derive(Clone, PartialEq, Message)]
pub struct Request2 {
    #[prost(string, repeated, tag = "4")]
    pub symbols: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    pub timeseries: Vec<TimeSeries2>,
}

/// `io.prometheus.write.v2.TimeSeries`.
#[derive(Clone, PartialEq, Message)]
pub struct TimeSeries2 {
    #[prost(uint32, repeated, tag = "1")]
    pub labels_refs: Vec<u32>,
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    pub histograms: Vec<Histogram>,
    #[prost(message, repeated, tag = "4")]
    pub exemplars: Vec<Exemplar2>,
    #[prost(message, optional, tag = "5")]
    pub metadata: Option<Metadata2>,
}

/// `io.prometheus.write.v2.Exemplar`.
#[derive(Clone, PartialEq, Message)]
pub struct Exemplar2 {
    #[prost(uint32, repeated, tag = "1")]
    pub labels_refs: Vec<u32>,
    #[prost(double, tag = "2")]
    pub value: f64,
    #[prost(int64, tag = "3")]
    pub timestamp: i64,
}

/// `io.prometheus.write.v2.Metadata`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Metadata2 {
    #[prost(int32, tag = "1")]
    pub kind: i32,
    #[prost(uint32, tag = "3")]
    pub help_ref: u32,
    #[prost(uint32, tag = "4")]
    pub unit_ref: u32,
}

/// How a field is written.
pub enum Kind {
    /// A varint up to this.
    UpTo(u64),
    /// A varint of 64 bits, signed or not.
    Int64,
    /// A zigzag varint of 32 bits.
    Sint32,
    Double,
    Text,
    Message(&'static Table),
    /// Varints of at most this, packed.
    PackedUpTo(u64),
    PackedSint64,
    PackedDouble,
}

/// A message: its name, and number, name, kind and "may occur several times" of its fields.
pub struct Table {
    pub name: &'static str,
    pub fields: &'static [(u64, &'static str, Kind, bool)],
}

pub const ONE: bool = false;
pub const MANY: bool = true;
const METRIC_TYPES: u64 = 7;

pub static REQUEST_1: Table = Table {
    name: "WriteRequest",
    fields: &[
        (1, "timeseries", Kind::Message(&SERIES_1), MANY),
        (3, "metadata", Kind::Message(&METADATA_1), MANY),
    ],
};

static SERIES_1: Table = Table {
    name: "TimeSeries",
    fields: &[
        (1, "labels", Kind::Message(&LABEL), MANY),
        (2, "samples", Kind::Message(&SAMPLE_1), MANY),
        (3, "exemplars", Kind::Message(&EXEMPLAR_1), MANY),
        (4, "histograms", Kind::Message(&HISTOGRAM_1), MANY),
    ],
};

static LABEL: Table =
    Table { name: "Label", fields: &[(1, "name", Kind::Text, ONE), (2, "value", Kind::Text, ONE)] };

static SAMPLE_1: Table =
    Table { name: "Sample", fields: &[(1, "value", Kind::Double, ONE), (2, "timestamp", Kind::Int64, ONE)] };

static EXEMPLAR_1: Table = Table {
    name: "Exemplar",
    fields: &[
        (1, "labels", Kind::Message(&LABEL), MANY),
        (2, "value", Kind::Double, ONE),
        (3, "timestamp", Kind::Int64, ONE),
    ],
};

static METADATA_1: Table = Table {
    name: "MetricMetadata",
    fields: &[
        (1, "type", Kind::UpTo(METRIC_TYPES), ONE),
        (2, "metric_family_name", Kind::Text, ONE),
        (4, "help", Kind::Text, ONE),
        (5, "unit", Kind::Text, ONE),
    ],
};

macro_rules! histogram {
    ($($more:expr),*) => {
        Table {
            name: "Histogram",
            fields: &[
                (1, "count_int", Kind::Int64, ONE),
                (2, "count_float", Kind::Double, ONE),
                (3, "sum", Kind::Double, ONE),
                (4, "schema", Kind::Sint32, ONE),
                (5, "zero_threshold", Kind::Double, ONE),
                (6, "zero_count_int", Kind::Int64, ONE),
                (7, "zero_count_float", Kind::Double, ONE),
                (8, "negative_spans", Kind::Message(&SPAN), MANY),
                (9, "negative_deltas", Kind::PackedSint64, ONE),
                (10, "negative_counts", Kind::PackedDouble, ONE),
                (11, "positive_spans", Kind::Message(&SPAN), MANY),
                (12, "positive_deltas", Kind::PackedSint64, ONE),
                (13, "positive_counts", Kind::PackedDouble, ONE),
                (14, "reset_hint", Kind::UpTo(3), ONE),
                (15, "timestamp", Kind::Int64, ONE),
                (16, "custom_values", Kind::PackedDouble, ONE),
                $($more),*
            ],
        }
    };
}

static HISTOGRAM_1: Table = histogram!();
static HISTOGRAM_2: Table = histogram!((17, "start_timestamp", Kind::Int64, ONE));

static SPAN: Table = Table {
    name: "BucketSpan",
    fields: &[(1, "offset", Kind::Sint32, ONE), (2, "length", Kind::UpTo(u32::MAX as u64), ONE)],
};

pub static REQUEST_2: Table = Table {
    name: "Request",
    fields: &[(4, "symbols", Kind::Text, MANY), (5, "timeseries", Kind::Message(&SERIES_2), MANY)],
};

static SERIES_2: Table = Table {
    name: "TimeSeries",
    fields: &[
        (1, "labels_refs", Kind::PackedUpTo(u32::MAX as u64), ONE),
        (2, "samples", Kind::Message(&SAMPLE_2), MANY),
        (3, "histograms", Kind::Message(&HISTOGRAM_2), MANY),
        (4, "exemplars", Kind::Message(&EXEMPLAR_2), MANY),
        (5, "metadata", Kind::Message(&METADATA_2), ONE),
    ],
};

static SAMPLE_2: Table = Table {
    name: "Sample",
    fields: &[
        (1, "value", Kind::Double, ONE),
        (2, "timestamp", Kind::Int64, ONE),
        (3, "start_timestamp", Kind::Int64, ONE),
    ],
};

static EXEMPLAR_2: Table = Table {
    name: "Exemplar",
    fields: &[
        (1, "labels_refs", Kind::PackedUpTo(u32::MAX as u64), ONE),
        (2, "value", Kind::Double, ONE),
        (3, "timestamp", Kind::Int64, ONE),
    ],
};

static METADATA_2: Table = Table {
    name: "Metadata",
    fields: &[
        (1, "type", Kind::UpTo(METRIC_TYPES), ONE),
        (3, "help_ref", Kind::UpTo(u32::MAX as u64), ONE),
        (4, "unit_ref", Kind::UpTo(u32::MAX as u64), ONE),
    ],
};

/// Finds in `message` whatever `table` does not foresee.
pub fn walk(table: &'static Table, message: &[u8], findings: &mut Findings) {
    let mut rest = message;
    let mut seen = 0u32;
    while !rest.is_empty() {
        let Some(tag) = varint(&mut rest) else {
            return findings.add("wire-truncated", format!("{}: in the tag of a field", table.name));
        };
        let Some((number, name, kind, many)) = table.fields.iter().find(|(n, ..)| *n == tag >> 3) else {
            findings
                .add("wire-unknown-field", format!("{}: field {}, type {}", table.name, tag >> 3, tag & 7));
            if skip(tag & 7, &mut rest).is_none() {
                return findings.add("wire-truncated", format!("{}: field {}", table.name, tag >> 3));
            }
            continue;
        };
        let place = || format!("{}.{name}", table.name);
        let wire_type = match kind {
            Kind::UpTo(_) | Kind::Int64 | Kind::Sint32 => 0,
            Kind::Double => 1,
            Kind::Text | Kind::Message(_) => 2,
            Kind::PackedUpTo(_) | Kind::PackedSint64 | Kind::PackedDouble => 2,
        };
        if tag & 7 != wire_type {
            findings.add("wire-type", format!("{} has type {}", place(), tag & 7));
            if skip(tag & 7, &mut rest).is_none() {
                return findings.add("wire-truncated", place());
            }
            continue;
        }
        if !many && seen & 1 << number != 0 {
            findings.add("wire-repeated", place());
        }
        seen |= 1 << number;
        let complete = match kind {
            Kind::Double => rest.get(8..).map(|tail| rest = tail),
            Kind::UpTo(_) | Kind::Int64 | Kind::Sint32 => {
                varint(&mut rest).map(|value| check_number(kind, value, findings, &place))
            }
            _ => bytes(&mut rest).map(|field| check_bytes(kind, field, findings, &place)),
        };
        if complete.is_none() {
            return findings.add("wire-truncated", place());
        }
    }
}

fn check_number(kind: &Kind, value: u64, findings: &mut Findings, place: &dyn Fn() -> String) {
    let limit = match kind {
        Kind::UpTo(limit) | Kind::PackedUpTo(limit) => *limit,
        Kind::Sint32 => u64::from(u32::MAX),
        _ => u64::MAX,
    };
    if value > limit {
        findings.add("wire-range", format!("{} is {value}", place()));
    }
}

fn check_bytes(kind: &Kind, field: &[u8], findings: &mut Findings, place: &dyn Fn() -> String) {
    match kind {
        Kind::Message(table) => walk(table, field, findings),
        Kind::Text if std::str::from_utf8(field).is_err() => {
            findings.add("wire-utf8", format!("{}: {:?}", place(), String::from_utf8_lossy(field)));
        }
        Kind::PackedDouble if !field.len().is_multiple_of(8) => findings.add("wire-truncated", place()),
        Kind::PackedUpTo(_) | Kind::PackedSint64 => {
            let mut rest = field;
            while !rest.is_empty() {
                match varint(&mut rest) {
                    Some(value) => check_number(kind, value, findings, place),
                    None => return findings.add("wire-truncated", place()),
                }
            }
        }
        _ => {}
    }
}

fn skip(wire_type: u64, rest: &mut &[u8]) -> Option<()> {
    match wire_type {
        0 => varint(rest).map(drop),
        1 => rest.get(8..).map(|tail| *rest = tail),
        2 => bytes(rest).map(drop),
        5 => rest.get(4..).map(|tail| *rest = tail),
        _ => None,
    }
}

fn bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(varint(rest)?).ok()?;
    let (field, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(field)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        if shift == 63 && *byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
