//! What OTLP messages look like: one table a message, read by the decoder and the encoder alike.
//!
//! A field's position in its table is its identity on both paths (bit masks, slot arrays), so a table holds at
//! most [`MAX_FIELDS`] fields; they stand in the order of their numbers, which is the order of the output.
//! Fields that only the profiles signal uses (`*_strindex`) count as absent elsewhere.

use crate::pdata::Signal;

/// The most fields a table may have.
pub(super) const MAX_FIELDS: usize = 16;

/// One message.
pub(super) struct Message {
    /// The name in error messages.
    pub(super) name: &'static str,
    /// Its fields, by number.
    pub(super) fields: &'static [Field],
    /// How long the length prefix will probably be.
    pub(super) size: Size,
    /// The one message through which the schema is recursive; nesting is counted here.
    pub(super) recursive: bool,
}

/// A guess of a message's size: a wrong one costs a move of its bytes, nothing else.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    /// Below 128 bytes.
    Small,
    /// Below 16 KiB.
    Medium,
    /// A good part of the request.
    Large,
}

/// One field of a message.
pub(super) struct Field {
    /// The name in JSON: lowerCamelCase.
    pub(super) json: &'static str,
    /// The field number.
    pub(super) number: u32,
    /// Its type.
    pub(super) kind: Kind,
    /// How often it occurs and whether its default is written.
    pub(super) label: Label,
}

/// How often a field occurs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Label {
    /// Once; the default value is the same as absence and is not written.
    Plain,
    /// Once; presence matters.
    Optional,
    /// A member of the message's only oneof; presence matters.
    Oneof,
    /// A list; scalars are packed.
    Repeated,
}

/// A field's type.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// UTF-8 text.
    String,
    /// Base64 in JSON.
    Bytes,
    /// Hexadecimal in JSON, of exactly so many bytes.
    Id(usize),
    Bool,
    Int64,
    Uint64,
    Fixed64,
    Sfixed64,
    Double,
    Uint32,
    Fixed32,
    Sint32,
    /// An integer in JSON; the names are understood as well.
    Enum(&'static [(&'static str, i32)]),
    Message(&'static Message),
    /// Understood, so that it replaces other members of a oneof, and never written.
    Absent,
}

impl Kind {
    /// The wire type of a single value.
    pub(super) const fn wire_type(self) -> u8 {
        match self {
            Kind::Bool
            | Kind::Int64
            | Kind::Uint64
            | Kind::Uint32
            | Kind::Sint32
            | Kind::Enum(_)
            | Kind::Absent => 0,
            Kind::Fixed64 | Kind::Sfixed64 | Kind::Double => 1,
            Kind::String | Kind::Bytes | Kind::Id(_) | Kind::Message(_) => 2,
            Kind::Fixed32 => 5,
        }
    }
}

/// The request message of a signal.
pub(super) fn request(signal: Signal) -> &'static Message {
    match signal {
        Signal::Traces => &TRACES,
        Signal::Metrics => &METRICS,
        Signal::Logs => &LOGS,
    }
}

const fn f(number: u32, json: &'static str, kind: Kind, label: Label) -> Field {
    Field { json, number, kind, label }
}

use Kind::{
    Absent, Bool, Bytes, Double, Enum, Fixed32, Fixed64, Id, Int64, Sfixed64, Sint32, String, Uint32, Uint64,
};
use Label::{Oneof, Optional, Plain, Repeated};

/// `table!(NAME, "Name", size, [number "jsonName" kind label, ...])`; a message as the kind is `{NAME}`.
macro_rules! table {
    ($table:ident, $name:literal, $size:ident, [$($number:literal $json:literal $kind:expr, $label:ident;)*]) => {
        table!($table, $name, $size, false, [$($number $json $kind, $label;)*]);
    };
    ($table:ident, $name:literal, $size:ident, $recursive:literal, [$($number:literal $json:literal $kind:expr, $label:ident;)*]) => {
        static $table: Message = Message {
            name: $name,
            size: Size::$size,
            recursive: $recursive,
            fields: &[$(f($number, $json, $kind, $label)),*],
        };
    };
}

const fn m(message: &'static Message) -> Kind {
    Kind::Message(message)
}

table!(TRACES, "ExportTraceServiceRequest", Large, [
    1 "resourceSpans" m(&RESOURCE_SPANS), Repeated;
]);
table!(METRICS, "ExportMetricsServiceRequest", Large, [
    1 "resourceMetrics" m(&RESOURCE_METRICS), Repeated;
]);
table!(LOGS, "ExportLogsServiceRequest", Large, [
    1 "resourceLogs" m(&RESOURCE_LOGS), Repeated;
]);

table!(RESOURCE_SPANS, "ResourceSpans", Large, [
    1 "resource" m(&RESOURCE), Optional;
    2 "scopeSpans" m(&SCOPE_SPANS), Repeated;
    3 "schemaUrl" String, Plain;
]);
table!(RESOURCE_METRICS, "ResourceMetrics", Large, [
    1 "resource" m(&RESOURCE), Optional;
    2 "scopeMetrics" m(&SCOPE_METRICS), Repeated;
    3 "schemaUrl" String, Plain;
]);
table!(RESOURCE_LOGS, "ResourceLogs", Large, [
    1 "resource" m(&RESOURCE), Optional;
    2 "scopeLogs" m(&SCOPE_LOGS), Repeated;
    3 "schemaUrl" String, Plain;
]);
table!(SCOPE_SPANS, "ScopeSpans", Large, [
    1 "scope" m(&SCOPE), Optional;
    2 "spans" m(&SPAN), Repeated;
    3 "schemaUrl" String, Plain;
]);
table!(SCOPE_METRICS, "ScopeMetrics", Large, [
    1 "scope" m(&SCOPE), Optional;
    2 "metrics" m(&METRIC), Repeated;
    3 "schemaUrl" String, Plain;
]);
table!(SCOPE_LOGS, "ScopeLogs", Large, [
    1 "scope" m(&SCOPE), Optional;
    2 "logRecords" m(&LOG_RECORD), Repeated;
    3 "schemaUrl" String, Plain;
]);
table!(RESOURCE, "Resource", Medium, [
    1 "attributes" m(&KEY_VALUE), Repeated;
    2 "droppedAttributesCount" Uint32, Plain;
    3 "entityRefs" m(&ENTITY_REF), Repeated;
]);
table!(ENTITY_REF, "EntityRef", Small, [
    1 "schemaUrl" String, Plain;
    2 "type" String, Plain;
    3 "idKeys" String, Repeated;
    4 "descriptionKeys" String, Repeated;
]);
table!(SCOPE, "InstrumentationScope", Small, [
    1 "name" String, Plain;
    2 "version" String, Plain;
    3 "attributes" m(&KEY_VALUE), Repeated;
    4 "droppedAttributesCount" Uint32, Plain;
]);
table!(KEY_VALUE, "KeyValue", Small, [
    1 "key" String, Plain;
    2 "value" m(&ANY_VALUE), Optional;
]);
table!(ANY_VALUE, "AnyValue", Small, true, [
    1 "stringValue" String, Oneof;
    2 "boolValue" Bool, Oneof;
    3 "intValue" Int64, Oneof;
    4 "doubleValue" Double, Oneof;
    5 "arrayValue" m(&ARRAY_VALUE), Oneof;
    6 "kvlistValue" m(&KVLIST), Oneof;
    7 "bytesValue" Bytes, Oneof;
    8 "stringValueStrindex" Absent, Oneof;
]);
table!(ARRAY_VALUE, "ArrayValue", Small, [
    1 "values" m(&ANY_VALUE), Repeated;
]);
table!(KVLIST, "KeyValueList", Small, [
    1 "values" m(&KEY_VALUE), Repeated;
]);

table!(SPAN, "Span", Medium, [
    1 "traceId" Id(16), Plain;
    2 "spanId" Id(8), Plain;
    3 "traceState" String, Plain;
    4 "parentSpanId" Id(8), Plain;
    5 "name" String, Plain;
    6 "kind" Enum(SPAN_KINDS), Plain;
    7 "startTimeUnixNano" Fixed64, Plain;
    8 "endTimeUnixNano" Fixed64, Plain;
    9 "attributes" m(&KEY_VALUE), Repeated;
    10 "droppedAttributesCount" Uint32, Plain;
    11 "events" m(&EVENT), Repeated;
    12 "droppedEventsCount" Uint32, Plain;
    13 "links" m(&LINK), Repeated;
    14 "droppedLinksCount" Uint32, Plain;
    15 "status" m(&STATUS), Optional;
    16 "flags" Fixed32, Plain;
]);
table!(EVENT, "Event", Small, [
    1 "timeUnixNano" Fixed64, Plain;
    2 "name" String, Plain;
    3 "attributes" m(&KEY_VALUE), Repeated;
    4 "droppedAttributesCount" Uint32, Plain;
]);
table!(LINK, "Link", Small, [
    1 "traceId" Id(16), Plain;
    2 "spanId" Id(8), Plain;
    3 "traceState" String, Plain;
    4 "attributes" m(&KEY_VALUE), Repeated;
    5 "droppedAttributesCount" Uint32, Plain;
    6 "flags" Fixed32, Plain;
]);
table!(STATUS, "Status", Small, [
    2 "message" String, Plain;
    3 "code" Enum(STATUS_CODES), Plain;
]);

table!(METRIC, "Metric", Medium, [
    1 "name" String, Plain;
    2 "description" String, Plain;
    3 "unit" String, Plain;
    5 "gauge" m(&GAUGE), Oneof;
    7 "sum" m(&SUM), Oneof;
    9 "histogram" m(&HISTOGRAM), Oneof;
    10 "exponentialHistogram" m(&EXPONENTIAL_HISTOGRAM), Oneof;
    11 "summary" m(&SUMMARY), Oneof;
    12 "metadata" m(&KEY_VALUE), Repeated;
]);
table!(GAUGE, "Gauge", Medium, [
    1 "dataPoints" m(&NUMBER_POINT), Repeated;
]);
table!(SUM, "Sum", Medium, [
    1 "dataPoints" m(&NUMBER_POINT), Repeated;
    2 "aggregationTemporality" Enum(TEMPORALITIES), Plain;
    3 "isMonotonic" Bool, Plain;
]);
table!(HISTOGRAM, "Histogram", Medium, [
    1 "dataPoints" m(&HISTOGRAM_POINT), Repeated;
    2 "aggregationTemporality" Enum(TEMPORALITIES), Plain;
]);
table!(EXPONENTIAL_HISTOGRAM, "ExponentialHistogram", Medium, [
    1 "dataPoints" m(&EXPONENTIAL_POINT), Repeated;
    2 "aggregationTemporality" Enum(TEMPORALITIES), Plain;
]);
table!(SUMMARY, "Summary", Medium, [
    1 "dataPoints" m(&SUMMARY_POINT), Repeated;
]);
table!(NUMBER_POINT, "NumberDataPoint", Small, [
    2 "startTimeUnixNano" Fixed64, Plain;
    3 "timeUnixNano" Fixed64, Plain;
    4 "asDouble" Double, Oneof;
    5 "exemplars" m(&EXEMPLAR), Repeated;
    6 "asInt" Sfixed64, Oneof;
    7 "attributes" m(&KEY_VALUE), Repeated;
    8 "flags" Uint32, Plain;
]);
table!(HISTOGRAM_POINT, "HistogramDataPoint", Medium, [
    2 "startTimeUnixNano" Fixed64, Plain;
    3 "timeUnixNano" Fixed64, Plain;
    4 "count" Fixed64, Plain;
    5 "sum" Double, Optional;
    6 "bucketCounts" Fixed64, Repeated;
    7 "explicitBounds" Double, Repeated;
    8 "exemplars" m(&EXEMPLAR), Repeated;
    9 "attributes" m(&KEY_VALUE), Repeated;
    10 "flags" Uint32, Plain;
    11 "min" Double, Optional;
    12 "max" Double, Optional;
]);
table!(EXPONENTIAL_POINT, "ExponentialHistogramDataPoint", Medium, [
    1 "attributes" m(&KEY_VALUE), Repeated;
    2 "startTimeUnixNano" Fixed64, Plain;
    3 "timeUnixNano" Fixed64, Plain;
    4 "count" Fixed64, Plain;
    5 "sum" Double, Optional;
    6 "scale" Sint32, Plain;
    7 "zeroCount" Fixed64, Plain;
    8 "positive" m(&BUCKETS), Optional;
    9 "negative" m(&BUCKETS), Optional;
    10 "flags" Uint32, Plain;
    11 "exemplars" m(&EXEMPLAR), Repeated;
    12 "min" Double, Optional;
    13 "max" Double, Optional;
    14 "zeroThreshold" Double, Plain;
]);
table!(BUCKETS, "Buckets", Small, [
    1 "offset" Sint32, Plain;
    2 "bucketCounts" Uint64, Repeated;
]);
table!(SUMMARY_POINT, "SummaryDataPoint", Medium, [
    2 "startTimeUnixNano" Fixed64, Plain;
    3 "timeUnixNano" Fixed64, Plain;
    4 "count" Fixed64, Plain;
    5 "sum" Double, Plain;
    6 "quantileValues" m(&QUANTILE), Repeated;
    7 "attributes" m(&KEY_VALUE), Repeated;
    8 "flags" Uint32, Plain;
]);
table!(QUANTILE, "ValueAtQuantile", Small, [
    1 "quantile" Double, Plain;
    2 "value" Double, Plain;
]);
table!(EXEMPLAR, "Exemplar", Small, [
    2 "timeUnixNano" Fixed64, Plain;
    3 "asDouble" Double, Oneof;
    4 "spanId" Id(8), Plain;
    5 "traceId" Id(16), Plain;
    6 "asInt" Sfixed64, Oneof;
    7 "filteredAttributes" m(&KEY_VALUE), Repeated;
]);

table!(LOG_RECORD, "LogRecord", Medium, [
    1 "timeUnixNano" Fixed64, Plain;
    2 "severityNumber" Enum(SEVERITIES), Plain;
    3 "severityText" String, Plain;
    5 "body" m(&ANY_VALUE), Optional;
    6 "attributes" m(&KEY_VALUE), Repeated;
    7 "droppedAttributesCount" Uint32, Plain;
    8 "flags" Fixed32, Plain;
    9 "traceId" Id(16), Plain;
    10 "spanId" Id(8), Plain;
    11 "observedTimeUnixNano" Fixed64, Plain;
    12 "eventName" String, Plain;
]);

static SPAN_KINDS: &[(&str, i32)] = &[
    ("SPAN_KIND_UNSPECIFIED", 0),
    ("SPAN_KIND_INTERNAL", 1),
    ("SPAN_KIND_SERVER", 2),
    ("SPAN_KIND_CLIENT", 3),
    ("SPAN_KIND_PRODUCER", 4),
    ("SPAN_KIND_CONSUMER", 5),
];
static STATUS_CODES: &[(&str, i32)] =
    &[("STATUS_CODE_UNSET", 0), ("STATUS_CODE_OK", 1), ("STATUS_CODE_ERROR", 2)];
static TEMPORALITIES: &[(&str, i32)] = &[
    ("AGGREGATION_TEMPORALITY_UNSPECIFIED", 0),
    ("AGGREGATION_TEMPORALITY_DELTA", 1),
    ("AGGREGATION_TEMPORALITY_CUMULATIVE", 2),
];
static SEVERITIES: &[(&str, i32)] = &[
    ("SEVERITY_NUMBER_UNSPECIFIED", 0),
    ("SEVERITY_NUMBER_TRACE", 1),
    ("SEVERITY_NUMBER_TRACE2", 2),
    ("SEVERITY_NUMBER_TRACE3", 3),
    ("SEVERITY_NUMBER_TRACE4", 4),
    ("SEVERITY_NUMBER_DEBUG", 5),
    ("SEVERITY_NUMBER_DEBUG2", 6),
    ("SEVERITY_NUMBER_DEBUG3", 7),
    ("SEVERITY_NUMBER_DEBUG4", 8),
    ("SEVERITY_NUMBER_INFO", 9),
    ("SEVERITY_NUMBER_INFO2", 10),
    ("SEVERITY_NUMBER_INFO3", 11),
    ("SEVERITY_NUMBER_INFO4", 12),
    ("SEVERITY_NUMBER_WARN", 13),
    ("SEVERITY_NUMBER_WARN2", 14),
    ("SEVERITY_NUMBER_WARN3", 15),
    ("SEVERITY_NUMBER_WARN4", 16),
    ("SEVERITY_NUMBER_ERROR", 17),
    ("SEVERITY_NUMBER_ERROR2", 18),
    ("SEVERITY_NUMBER_ERROR3", 19),
    ("SEVERITY_NUMBER_ERROR4", 20),
    ("SEVERITY_NUMBER_FATAL", 21),
    ("SEVERITY_NUMBER_FATAL2", 22),
    ("SEVERITY_NUMBER_FATAL3", 23),
    ("SEVERITY_NUMBER_FATAL4", 24),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_within_their_bounds() {
        let mut todo: Vec<&'static Message> = vec![&TRACES, &METRICS, &LOGS];
        let mut seen: Vec<&'static str> = Vec::new();
        while let Some(table) = todo.pop() {
            if seen.contains(&table.name) {
                continue;
            }
            seen.push(table.name);
            assert!(table.fields.len() <= MAX_FIELDS, "{}", table.name);
            assert!(table.fields.is_sorted_by(|a, b| a.number < b.number), "{}", table.name);
            for field in table.fields {
                assert!(!field.json.contains('_'), "{}", field.json);
                if let Kind::Message(inner) = field.kind {
                    assert!(field.label != Label::Plain, "{}.{}", table.name, field.json);
                    todo.push(inner);
                }
            }
        }
        assert_eq!(seen.len(), 34, "{seen:?}");
    }
}
