//! What paths and enums are called, what type a path has, and whether it can be set.

use super::Field;
use crate::config::nearest;
use crate::ottl::Context;
use crate::ottl::value::Ty;

/// One row of the table.
pub(in crate::ottl) struct PathInfo {
    pub(in crate::ottl) name: &'static str,
    pub(in crate::ottl) field: Field,
    pub(in crate::ottl) ty: Ty,
    /// Whether `set` can set it.
    pub(in crate::ottl) writable: bool,
}

const fn rw(name: &'static str, field: Field, ty: Ty) -> PathInfo {
    PathInfo { name, field, ty, writable: true }
}

const fn ro(name: &'static str, field: Field, ty: Ty) -> PathInfo {
    PathInfo { name, field, ty, writable: false }
}

const RESOURCE: &[PathInfo] = &[
    rw("attributes", Field::Attributes, Ty::Map),
    rw("dropped_attributes_count", Field::Unsigned(2), Ty::Int),
];

const SCOPE: &[PathInfo] = &[
    rw("attributes", Field::Attributes, Ty::Map),
    rw("name", Field::Text(1), Ty::Str),
    rw("version", Field::Text(2), Ty::Str),
    rw("dropped_attributes_count", Field::Unsigned(4), Ty::Int),
];

const SPAN: &[PathInfo] = &[
    rw("attributes", Field::Attributes, Ty::Map),
    rw("name", Field::Text(5), Ty::Str),
    rw("kind", Field::Enum(6), Ty::Int),
    ro("kind.string", Field::KindText, Ty::Str),
    ro("kind.deprecated_string", Field::KindOldText, Ty::Str),
    rw("status.code", Field::StatusCode, Ty::Int),
    rw("status.message", Field::StatusMessage, Ty::Str),
    rw("trace_id", Field::Id(1, 16), Ty::Bytes),
    ro("trace_id.string", Field::IdText(1, 16), Ty::Str),
    rw("span_id", Field::Id(2, 8), Ty::Bytes),
    ro("span_id.string", Field::IdText(2, 8), Ty::Str),
    rw("parent_span_id", Field::Id(4, 8), Ty::Bytes),
    ro("parent_span_id.string", Field::IdText(4, 8), Ty::Str),
    rw("trace_state", Field::TraceState, Ty::Str),
    rw("start_time_unix_nano", Field::Nanos(7), Ty::Int),
    rw("start_time", Field::Time(7), Ty::Time),
    rw("end_time_unix_nano", Field::Nanos(8), Ty::Int),
    rw("end_time", Field::Time(8), Ty::Time),
    rw("dropped_attributes_count", Field::Unsigned(10), Ty::Int),
    rw("dropped_events_count", Field::Unsigned(12), Ty::Int),
    rw("dropped_links_count", Field::Unsigned(14), Ty::Int),
    rw("flags", Field::Fixed32(16), Ty::Int),
];

const SPAN_EVENT: &[PathInfo] = &[
    rw("attributes", Field::Attributes, Ty::Map),
    rw("name", Field::Text(2), Ty::Str),
    rw("time_unix_nano", Field::Nanos(1), Ty::Int),
    rw("time", Field::Time(1), Ty::Time),
    rw("dropped_attributes_count", Field::Unsigned(4), Ty::Int),
];

const METRIC: &[PathInfo] = &[
    rw("name", Field::Text(1), Ty::Str),
    rw("description", Field::Text(2), Ty::Str),
    rw("unit", Field::Text(3), Ty::Str),
    ro("type", Field::MetricType, Ty::Int),
    ro("aggregation_temporality", Field::Temporality, Ty::Int),
    ro("is_monotonic", Field::Monotonic, Ty::Bool),
    rw("metadata", Field::Attributes, Ty::Map),
];

const DATA_POINT: &[PathInfo] = &[
    rw("attributes", Field::Attributes, Ty::Map),
    rw("value_int", Field::PointInt, Ty::Int),
    rw("value_double", Field::PointDouble, Ty::Double),
    rw("start_time_unix_nano", Field::Nanos(2), Ty::Int),
    rw("start_time", Field::Time(2), Ty::Time),
    rw("time_unix_nano", Field::Nanos(3), Ty::Int),
    rw("time", Field::Time(3), Ty::Time),
    rw("flags", Field::PointFlags, Ty::Int),
    ro("count", Field::Count, Ty::Int),
    ro("sum", Field::Sum, Ty::Double),
    ro("scale", Field::Scale, Ty::Int),
    ro("zero_count", Field::ZeroCount, Ty::Int),
    ro("bucket_counts", Field::BucketCounts, Ty::List),
    ro("explicit_bounds", Field::Bounds, Ty::List),
    ro("positive.offset", Field::BucketOffset(8), Ty::Int),
    ro("positive.bucket_counts", Field::BucketsCounts(8), Ty::List),
    ro("negative.offset", Field::BucketOffset(9), Ty::Int),
    ro("negative.bucket_counts", Field::BucketsCounts(9), Ty::List),
];

const LOG: &[PathInfo] = &[
    rw("attributes", Field::Attributes, Ty::Map),
    rw("body", Field::Body, Ty::Any),
    rw("body.string", Field::BodyText, Ty::Str),
    rw("severity_number", Field::Enum(2), Ty::Int),
    rw("severity_text", Field::Text(3), Ty::Str),
    rw("event_name", Field::Text(12), Ty::Str),
    rw("time_unix_nano", Field::Nanos(1), Ty::Int),
    rw("time", Field::Time(1), Ty::Time),
    rw("observed_time_unix_nano", Field::Nanos(11), Ty::Int),
    rw("observed_time", Field::Time(11), Ty::Time),
    rw("trace_id", Field::Id(9, 16), Ty::Bytes),
    ro("trace_id.string", Field::IdText(9, 16), Ty::Str),
    rw("span_id", Field::Id(10, 8), Ty::Bytes),
    ro("span_id.string", Field::IdText(10, 8), Ty::Str),
    rw("flags", Field::Fixed32(8), Ty::Int),
    rw("dropped_attributes_count", Field::Unsigned(7), Ty::Int),
];

/// The paths of a context.
pub(in crate::ottl) const fn table(context: Context) -> &'static [PathInfo] {
    match context {
        Context::Resource => RESOURCE,
        Context::Scope => SCOPE,
        Context::Span => SPAN,
        Context::SpanEvent => SPAN_EVENT,
        Context::Metric => METRIC,
        Context::DataPoint => DATA_POINT,
        Context::Log => LOG,
    }
}

/// The row of a path, by its words behind the context.
pub(in crate::ottl) fn find(context: Context, name: &str) -> Option<&'static PathInfo> {
    table(context).iter().find(|info| info.name == name)
}

/// What may have been meant by a name that is no path.
pub(in crate::ottl) fn suggest(context: Context, name: &str) -> String {
    let names: Vec<&str> = table(context).iter().map(|info| info.name).collect();
    match nearest(name, &names) {
        Some(near) => format!("did you mean \"{}.{near}\"?", context.name()),
        None => format!("there are: {}", names.join(", ")),
    }
}

/// The number of an enum's name.
pub(in crate::ottl) fn enum_value(name: &str) -> Option<i64> {
    const SEVERITIES: [&str; 6] = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];
    if let Some(severity) = name.strip_prefix("SEVERITY_NUMBER_") {
        if severity == "UNSPECIFIED" {
            return Some(0);
        }
        let word = severity.trim_end_matches(|c: char| ('2'..='4').contains(&c));
        let step: i64 = match severity.get(word.len()..)? {
            "" => 0,
            digit => digit.parse::<i64>().ok().filter(|d| (2..=4).contains(d))? - 1,
        };
        let at = SEVERITIES.iter().position(|s| *s == word)?;
        return Some(at as i64 * 4 + 1 + step);
    }
    ENUMS.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

/// The enums other than severities.
pub(in crate::ottl) const ENUMS: [(&str, i64); 20] = [
    ("SPAN_KIND_UNSPECIFIED", 0),
    ("SPAN_KIND_INTERNAL", 1),
    ("SPAN_KIND_SERVER", 2),
    ("SPAN_KIND_CLIENT", 3),
    ("SPAN_KIND_PRODUCER", 4),
    ("SPAN_KIND_CONSUMER", 5),
    ("STATUS_CODE_UNSET", 0),
    ("STATUS_CODE_OK", 1),
    ("STATUS_CODE_ERROR", 2),
    ("METRIC_DATA_TYPE_NONE", 0),
    ("METRIC_DATA_TYPE_GAUGE", 1),
    ("METRIC_DATA_TYPE_SUM", 2),
    ("METRIC_DATA_TYPE_HISTOGRAM", 3),
    ("METRIC_DATA_TYPE_EXPONENTIAL_HISTOGRAM", 4),
    ("METRIC_DATA_TYPE_SUMMARY", 5),
    ("AGGREGATION_TEMPORALITY_UNSPECIFIED", 0),
    ("AGGREGATION_TEMPORALITY_DELTA", 1),
    ("AGGREGATION_TEMPORALITY_CUMULATIVE", 2),
    ("FLAG_NONE", 0),
    ("FLAG_NO_RECORDED_VALUE", 1),
];
