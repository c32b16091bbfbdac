//! Views of metrics and their points: the scalars in one pass, the lists when asked for.
//!
//! A metric is reached by [`groups`](super::common::groups), [`scopes`](super::common::ResourceGroup::scopes)
//! and [`items`](super::common::ScopeGroup::items); its points by [`Metric::points`], to be parsed as the
//! kind says. Of several kinds of data in one metric the last on the wire wins.

use super::common::{Attributes, Fields, Messages, Scalars};
use super::count::is_metric_data;
use super::fields::{
    buckets, exemplar, exponential_histogram_point, histogram_point, metric, metric_data, number_point,
    summary_point, value_at_quantile,
};
use super::wire::{Cursor, WireError};

/// What kind of points a metric has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Kind {
    /// No data at all.
    #[default]
    Empty,
    /// [`NumberPoint`]s that are the last value.
    Gauge,
    /// [`NumberPoint`]s that are sums.
    Sum,
    /// [`HistogramPoint`]s.
    Histogram,
    /// [`ExponentialHistogramPoint`]s.
    ExponentialHistogram,
    /// [`SummaryPoint`]s.
    Summary,
}

/// One metric.
#[derive(Debug, Clone, Copy, Default)]
pub struct Metric<'a> {
    /// The encoded message.
    pub message: &'a [u8],
    /// What the metric is called.
    pub name: &'a [u8],
    /// What it tells.
    pub description: &'a [u8],
    /// Its unit, in UCUM.
    pub unit: &'a [u8],
    /// What kind of points it has.
    pub kind: Kind,
    /// AggregationTemporality of sums and histograms; 0 otherwise.
    pub temporality: i32,
    /// Whether a sum never falls; `false` otherwise.
    pub monotonic: bool,
    /// The message from the first data of the winning kind on.
    live: &'a [u8],
}

/// A number: of a point or an exemplar.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// A double.
    Double(f64),
    /// An integer.
    Int(i64),
}

/// A point of a gauge or a sum.
#[derive(Debug, Clone, Copy, Default)]
pub struct NumberPoint<'a> {
    /// The encoded message.
    pub message: &'a [u8],
    /// Begin of the interval, nanoseconds since 1970; 0 when unknown.
    pub start_time_unix_nano: u64,
    /// Time of the value, nanoseconds since 1970.
    pub time_unix_nano: u64,
    /// The value; `None` makes the point invalid, unless its flags say that nothing was recorded.
    pub value: Option<Number>,
    /// DataPointFlags.
    pub flags: u32,
}

/// A point of a histogram with explicit bounds.
#[derive(Debug, Clone, Copy, Default)]
pub struct HistogramPoint<'a> {
    /// The encoded message.
    pub message: &'a [u8],
    /// Begin of the interval, nanoseconds since 1970; 0 when unknown.
    pub start_time_unix_nano: u64,
    /// Time of the value, nanoseconds since 1970.
    pub time_unix_nano: u64,
    /// How many values.
    pub count: u64,
    /// Their sum.
    pub sum: Option<f64>,
    /// The smallest.
    pub min: Option<f64>,
    /// The largest.
    pub max: Option<f64>,
    /// DataPointFlags.
    pub flags: u32,
}

/// A point of an exponential histogram.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExponentialHistogramPoint<'a> {
    /// The encoded message.
    pub message: &'a [u8],
    /// Begin of the interval, nanoseconds since 1970; 0 when unknown.
    pub start_time_unix_nano: u64,
    /// Time of the value, nanoseconds since 1970.
    pub time_unix_nano: u64,
    /// How many values.
    pub count: u64,
    /// Their sum.
    pub sum: Option<f64>,
    /// The smallest.
    pub min: Option<f64>,
    /// The largest.
    pub max: Option<f64>,
    /// The base of the buckets is 2^(2^-scale).
    pub scale: i32,
    /// How many values are in the bucket around zero.
    pub zero_count: u64,
    /// How wide the bucket around zero is.
    pub zero_threshold: f64,
    /// Whether there are buckets for positive values, and the index of the first.
    pub positive_offset: Option<i32>,
    /// Whether there are buckets for negative values, and the index of the first.
    pub negative_offset: Option<i32>,
    /// DataPointFlags.
    pub flags: u32,
}

/// A point of a summary.
#[derive(Debug, Clone, Copy, Default)]
pub struct SummaryPoint<'a> {
    /// The encoded message.
    pub message: &'a [u8],
    /// Begin of the interval, nanoseconds since 1970; 0 when unknown.
    pub start_time_unix_nano: u64,
    /// Time of the value, nanoseconds since 1970.
    pub time_unix_nano: u64,
    /// How many values.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// DataPointFlags.
    pub flags: u32,
}

/// A single measurement, as an example of those behind a point.
#[derive(Debug, Clone, Copy, Default)]
pub struct Exemplar<'a> {
    /// The encoded message.
    pub message: &'a [u8],
    /// Time of the measurement, nanoseconds since 1970.
    pub time_unix_nano: u64,
    /// The value; `None` makes the exemplar invalid.
    pub value: Option<Number>,
    /// 8 bytes, or none.
    pub span_id: &'a [u8],
    /// 16 bytes, or none.
    pub trace_id: &'a [u8],
}

impl Kind {
    /// The kind that stands in this field of Metric.
    pub const fn of(number: u32) -> Kind {
        match number {
            metric::GAUGE => Kind::Gauge,
            metric::SUM => Kind::Sum,
            metric::HISTOGRAM => Kind::Histogram,
            metric::EXPONENTIAL_HISTOGRAM => Kind::ExponentialHistogram,
            metric::SUMMARY => Kind::Summary,
            _ => Kind::Empty,
        }
    }

    /// The field of Metric that holds this kind of data; 0 for none.
    pub const fn field(self) -> u32 {
        match self {
            Kind::Empty => 0,
            Kind::Gauge => metric::GAUGE,
            Kind::Sum => metric::SUM,
            Kind::Histogram => metric::HISTOGRAM,
            Kind::ExponentialHistogram => metric::EXPONENTIAL_HISTOGRAM,
            Kind::Summary => metric::SUMMARY,
        }
    }
}

impl<'a> Metric<'a> {
    /// Reads an encoded metric. The points are passed over once to find what follows them.
    ///
    /// # Errors
    /// What is wrong with it; points and metadata are read when they are iterated.
    pub fn parse(message: &'a [u8]) -> Result<Self, WireError> {
        let mut metric = Metric { message, ..Metric::default() };
        let mut cursor = Cursor::new(message);
        while let Some(field) = cursor.next_field()? {
            match field.number {
                metric::NAME => metric.name = field.value.bytes()?,
                metric::DESCRIPTION => metric.description = field.value.bytes()?,
                metric::UNIT => metric.unit = field.value.bytes()?,
                number if is_metric_data(number) => {
                    if number != metric.kind.field() {
                        metric.kind = Kind::of(number);
                        metric.live = message.get(field.start..).unwrap_or_default();
                        metric.temporality = 0;
                        metric.monotonic = false;
                    }
                    metric.data(field.value.bytes()?)?;
                }
                _ => {}
            }
        }
        Ok(metric)
    }

    /// The encoded points, of the type that the kind says.
    pub fn points(&self) -> Messages<'a> {
        Messages::within(self.live, self.kind.field(), metric_data::DATA_POINTS)
    }

    /// The metric's metadata.
    pub fn metadata(&self) -> Attributes<'a> {
        Attributes::of(self.message, metric::METADATA)
    }

    fn data(&mut self, data: &'a [u8]) -> Result<(), WireError> {
        if matches!(self.kind, Kind::Gauge | Kind::Summary) {
            return Ok(());
        }
        let mut cursor = Cursor::new(data);
        while let Some(field) = cursor.next_field()? {
            match field.number {
                metric_data::AGGREGATION_TEMPORALITY => self.temporality = field.value.varint()? as i32,
                metric_data::IS_MONOTONIC if self.kind == Kind::Sum => {
                    self.monotonic = field.value.varint()? != 0;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl<'a> NumberPoint<'a> {
    /// Reads an encoded NumberDataPoint.
    ///
    /// # Errors
    /// What is wrong with it; attributes and exemplars are read when they are iterated.
    pub fn parse(message: &'a [u8]) -> Result<Self, WireError> {
        let mut point = NumberPoint { message, ..NumberPoint::default() };
        let mut cursor = Cursor::new(message);
        while let Some(field) = cursor.next_field()? {
            let value = field.value;
            match field.number {
                number_point::START_TIME_UNIX_NANO => point.start_time_unix_nano = value.fixed64()?,
                number_point::TIME_UNIX_NANO => point.time_unix_nano = value.fixed64()?,
                number_point::AS_DOUBLE => point.value = Some(Number::Double(value.double()?)),
                number_point::AS_INT => point.value = Some(Number::Int(value.fixed64()? as i64)),
                number_point::FLAGS => point.flags = value.varint()? as u32,
                _ => {}
            }
        }
        Ok(point)
    }

    /// The point's attributes.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes::of(self.message, number_point::ATTRIBUTES)
    }

    /// The point's exemplars.
    pub fn exemplars(&self) -> impl Iterator<Item = Result<Exemplar<'a>, WireError>> + Clone {
        Messages::of(self.message, number_point::EXEMPLARS).map(|m| m.and_then(Exemplar::parse))
    }
}

impl<'a> HistogramPoint<'a> {
    /// Reads an encoded HistogramDataPoint.
    ///
    /// # Errors
    /// What is wrong with it; lists are read when they are iterated.
    pub fn parse(message: &'a [u8]) -> Result<Self, WireError> {
        let mut point = HistogramPoint { message, ..HistogramPoint::default() };
        let mut cursor = Cursor::new(message);
        while let Some(field) = cursor.next_field()? {
            let value = field.value;
            match field.number {
                histogram_point::START_TIME_UNIX_NANO => point.start_time_unix_nano = value.fixed64()?,
                histogram_point::TIME_UNIX_NANO => point.time_unix_nano = value.fixed64()?,
                histogram_point::COUNT => point.count = value.fixed64()?,
                histogram_point::SUM => point.sum = Some(value.double()?),
                histogram_point::MIN => point.min = Some(value.double()?),
                histogram_point::MAX => point.max = Some(value.double()?),
                histogram_point::FLAGS => point.flags = value.varint()? as u32,
                _ => {}
            }
        }
        Ok(point)
    }

    /// The counts of the buckets, one more than there are bounds.
    pub fn bucket_counts(&self) -> Scalars<'a> {
        Scalars::fixed64(Fields::of(self.message, histogram_point::BUCKET_COUNTS))
    }

    /// The upper bounds of the buckets, ascending.
    pub fn explicit_bounds(&self) -> impl Iterator<Item = Result<f64, WireError>> + Clone {
        let bits = Scalars::fixed64(Fields::of(self.message, histogram_point::EXPLICIT_BOUNDS));
        bits.map(|b| b.map(f64::from_bits))
    }

    /// The point's attributes.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes::of(self.message, histogram_point::ATTRIBUTES)
    }

    /// The point's exemplars.
    pub fn exemplars(&self) -> impl Iterator<Item = Result<Exemplar<'a>, WireError>> + Clone {
        Messages::of(self.message, histogram_point::EXEMPLARS).map(|m| m.and_then(Exemplar::parse))
    }
}

impl<'a> ExponentialHistogramPoint<'a> {
    /// Reads an encoded ExponentialHistogramDataPoint.
    ///
    /// # Errors
    /// What is wrong with it; lists are read when they are iterated.
    pub fn parse(message: &'a [u8]) -> Result<Self, WireError> {
        use exponential_histogram_point as f;
        let mut point = ExponentialHistogramPoint { message, ..ExponentialHistogramPoint::default() };
        let mut cursor = Cursor::new(message);
        while let Some(field) = cursor.next_field()? {
            let value = field.value;
            match field.number {
                f::START_TIME_UNIX_NANO => point.start_time_unix_nano = value.fixed64()?,
                f::TIME_UNIX_NANO => point.time_unix_nano = value.fixed64()?,
                f::COUNT => point.count = value.fixed64()?,
                f::SUM => point.sum = Some(value.double()?),
                f::MIN => point.min = Some(value.double()?),
                f::MAX => point.max = Some(value.double()?),
                f::SCALE => point.scale = zigzag(value.varint()?),
                f::ZERO_COUNT => point.zero_count = value.fixed64()?,
                f::ZERO_THRESHOLD => point.zero_threshold = value.double()?,
                f::POSITIVE => offset(value.bytes()?, &mut point.positive_offset)?,
                f::NEGATIVE => offset(value.bytes()?, &mut point.negative_offset)?,
                f::FLAGS => point.flags = value.varint()? as u32,
                _ => {}
            }
        }
        Ok(point)
    }

    /// The counts of the buckets for positive values.
    pub fn positive_counts(&self) -> Scalars<'a> {
        self.counts(exponential_histogram_point::POSITIVE)
    }

    /// The counts of the buckets for negative values.
    pub fn negative_counts(&self) -> Scalars<'a> {
        self.counts(exponential_histogram_point::NEGATIVE)
    }

    /// The point's attributes.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes::of(self.message, exponential_histogram_point::ATTRIBUTES)
    }

    /// The point's exemplars.
    pub fn exemplars(&self) -> impl Iterator<Item = Result<Exemplar<'a>, WireError>> + Clone {
        Messages::of(self.message, exponential_histogram_point::EXEMPLARS)
            .map(|m| m.and_then(Exemplar::parse))
    }

    fn counts(&self, side: u32) -> Scalars<'a> {
        Scalars::varint(Fields::within(self.message, side, buckets::BUCKET_COUNTS))
    }
}

impl<'a> SummaryPoint<'a> {
    /// Reads an encoded SummaryDataPoint.
    ///
    /// # Errors
    /// What is wrong with it; lists are read when they are iterated.
    pub fn parse(message: &'a [u8]) -> Result<Self, WireError> {
        let mut point = SummaryPoint { message, ..SummaryPoint::default() };
        let mut cursor = Cursor::new(message);
        while let Some(field) = cursor.next_field()? {
            let value = field.value;
            match field.number {
                summary_point::START_TIME_UNIX_NANO => point.start_time_unix_nano = value.fixed64()?,
                summary_point::TIME_UNIX_NANO => point.time_unix_nano = value.fixed64()?,
                summary_point::COUNT => point.count = value.fixed64()?,
                summary_point::SUM => point.sum = value.double()?,
                summary_point::FLAGS => point.flags = value.varint()? as u32,
                _ => {}
            }
        }
        Ok(point)
    }

    /// The quantiles and their values.
    pub fn quantiles(&self) -> impl Iterator<Item = Result<(f64, f64), WireError>> + Clone {
        Messages::of(self.message, summary_point::QUANTILE_VALUES).map(|m| m.and_then(quantile))
    }

    /// The point's attributes.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes::of(self.message, summary_point::ATTRIBUTES)
    }
}

impl<'a> Exemplar<'a> {
    /// Reads an encoded exemplar.
    ///
    /// # Errors
    /// What is wrong with it; attributes are read when they are iterated.
    pub fn parse(message: &'a [u8]) -> Result<Self, WireError> {
        let mut exemplar = Exemplar { message, ..Exemplar::default() };
        let mut cursor = Cursor::new(message);
        while let Some(field) = cursor.next_field()? {
            let value = field.value;
            match field.number {
                exemplar::TIME_UNIX_NANO => exemplar.time_unix_nano = value.fixed64()?,
                exemplar::AS_DOUBLE => exemplar.value = Some(Number::Double(value.double()?)),
                exemplar::AS_INT => exemplar.value = Some(Number::Int(value.fixed64()? as i64)),
                exemplar::SPAN_ID => exemplar.span_id = value.bytes()?,
                exemplar::TRACE_ID => exemplar.trace_id = value.bytes()?,
                _ => {}
            }
        }
        Ok(exemplar)
    }

    /// The attributes that the point does not have.
    pub fn filtered_attributes(&self) -> Attributes<'a> {
        Attributes::of(self.message, exemplar::FILTERED_ATTRIBUTES)
    }
}

fn offset(message: &[u8], offset: &mut Option<i32>) -> Result<(), WireError> {
    let offset = offset.get_or_insert(0);
    let mut cursor = Cursor::new(message);
    while let Some(field) = cursor.next_field()? {
        if field.number == buckets::OFFSET {
            *offset = zigzag(field.value.varint()?);
        }
    }
    Ok(())
}

fn quantile(message: &[u8]) -> Result<(f64, f64), WireError> {
    let (mut quantile, mut at) = (0.0, 0.0);
    let mut cursor = Cursor::new(message);
    while let Some(field) = cursor.next_field()? {
        match field.number {
            value_at_quantile::QUANTILE => quantile = field.value.double()?,
            value_at_quantile::VALUE => at = field.value.double()?,
            _ => {}
        }
    }
    Ok((quantile, at))
}

/// The wire form of sint32.
fn zigzag(value: u64) -> i32 {
    let value = value as u32;
    (value >> 1) as i32 ^ -((value & 1) as i32)
}
