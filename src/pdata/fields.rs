//! The field numbers of OTLP 1.x, one module a message.
//!
//! Facts to keep in mind: the attributes of an exponential histogram point are field 1, of every other
//! point field 7 or 9; an exemplar has its span id before its trace id; field 16 of a span takes a tag of
//! two bytes. The three signals share their outer shape, so [`resource_group`] and [`scope_group`] stand
//! for `ResourceSpans`/`ResourceMetrics`/`ResourceLogs` and `ScopeSpans`/`ScopeMetrics`/`ScopeLogs` alike.

/// Declares one message: its fields and their numbers.
macro_rules! message {
    ($(#[$meta:meta])* $name:ident { $($field:ident = $number:literal),+ $(,)? }) => {
        $(#[$meta])*
        pub mod $name {
            $(
                #[doc = concat!("Field number ", $number, ".")]
                pub const $field: u32 = $number;
            )+
        }
    };
}

message! {
    /// Export{Trace,Metrics,Logs}ServiceRequest, and TracesData, MetricsData, LogsData.
    request { GROUPS = 1 }
}
message! {
    /// ResourceSpans, ResourceMetrics, ResourceLogs.
    resource_group { RESOURCE = 1, SCOPES = 2, SCHEMA_URL = 3 }
}
message! {
    /// ScopeSpans, ScopeMetrics, ScopeLogs. `ITEMS` are spans, metrics or log records.
    scope_group { SCOPE = 1, ITEMS = 2, SCHEMA_URL = 3 }
}
message! {
    /// Resource.
    resource { ATTRIBUTES = 1, DROPPED_ATTRIBUTES_COUNT = 2, ENTITY_REFS = 3 }
}
message! {
    /// EntityRef (in development).
    entity_ref { SCHEMA_URL = 1, TYPE = 2, ID_KEYS = 3, DESCRIPTION_KEYS = 4 }
}
message! {
    /// InstrumentationScope.
    scope { NAME = 1, VERSION = 2, ATTRIBUTES = 3, DROPPED_ATTRIBUTES_COUNT = 4 }
}
message! {
    /// KeyValue.
    key_value { KEY = 1, VALUE = 2, KEY_STRINDEX = 3 }
}
message! {
    /// AnyValue: a oneof.
    any_value {
        STRING = 1, BOOL = 2, INT = 3, DOUBLE = 4, ARRAY = 5, KVLIST = 6, BYTES = 7, STRING_STRINDEX = 8,
    }
}
message! {
    /// ArrayValue and KeyValueList.
    list { VALUES = 1 }
}
message! {
    /// Span.
    span {
        TRACE_ID = 1, SPAN_ID = 2, TRACE_STATE = 3, PARENT_SPAN_ID = 4, NAME = 5, KIND = 6,
        START_TIME_UNIX_NANO = 7, END_TIME_UNIX_NANO = 8, ATTRIBUTES = 9, DROPPED_ATTRIBUTES_COUNT = 10,
        EVENTS = 11, DROPPED_EVENTS_COUNT = 12, LINKS = 13, DROPPED_LINKS_COUNT = 14, STATUS = 15, FLAGS = 16,
    }
}
message! {
    /// Span.Event.
    event { TIME_UNIX_NANO = 1, NAME = 2, ATTRIBUTES = 3, DROPPED_ATTRIBUTES_COUNT = 4 }
}
message! {
    /// Span.Link.
    link {
        TRACE_ID = 1, SPAN_ID = 2, TRACE_STATE = 3, ATTRIBUTES = 4, DROPPED_ATTRIBUTES_COUNT = 5, FLAGS = 6,
    }
}
message! {
    /// Status.
    status { MESSAGE = 2, CODE = 3 }
}
message! {
    /// Metric. `GAUGE` to `SUMMARY` are a oneof.
    metric {
        NAME = 1, DESCRIPTION = 2, UNIT = 3, GAUGE = 5, SUM = 7, HISTOGRAM = 9, EXPONENTIAL_HISTOGRAM = 10,
        SUMMARY = 11, METADATA = 12,
    }
}
message! {
    /// Gauge, Sum, Histogram, ExponentialHistogram, Summary. `IS_MONOTONIC` is of sums alone.
    metric_data { DATA_POINTS = 1, AGGREGATION_TEMPORALITY = 2, IS_MONOTONIC = 3 }
}
message! {
    /// NumberDataPoint.
    number_point {
        START_TIME_UNIX_NANO = 2, TIME_UNIX_NANO = 3, AS_DOUBLE = 4, EXEMPLARS = 5, AS_INT = 6,
        ATTRIBUTES = 7, FLAGS = 8,
    }
}
message! {
    /// HistogramDataPoint.
    histogram_point {
        START_TIME_UNIX_NANO = 2, TIME_UNIX_NANO = 3, COUNT = 4, SUM = 5, BUCKET_COUNTS = 6,
        EXPLICIT_BOUNDS = 7, EXEMPLARS = 8, ATTRIBUTES = 9, FLAGS = 10, MIN = 11, MAX = 12,
    }
}
message! {
    /// ExponentialHistogramDataPoint.
    exponential_histogram_point {
        ATTRIBUTES = 1, START_TIME_UNIX_NANO = 2, TIME_UNIX_NANO = 3, COUNT = 4, SUM = 5, SCALE = 6,
        ZERO_COUNT = 7, POSITIVE = 8, NEGATIVE = 9, FLAGS = 10, EXEMPLARS = 11, MIN = 12, MAX = 13,
        ZERO_THRESHOLD = 14,
    }
}
message! {
    /// ExponentialHistogramDataPoint.Buckets.
    buckets { OFFSET = 1, BUCKET_COUNTS = 2 }
}
message! {
    /// SummaryDataPoint.
    summary_point {
        START_TIME_UNIX_NANO = 2, TIME_UNIX_NANO = 3, COUNT = 4, SUM = 5, QUANTILE_VALUES = 6, ATTRIBUTES = 7,
        FLAGS = 8,
    }
}
message! {
    /// SummaryDataPoint.ValueAtQuantile.
    value_at_quantile { QUANTILE = 1, VALUE = 2 }
}
message! {
    /// Exemplar.
    exemplar {
        TIME_UNIX_NANO = 2, AS_DOUBLE = 3, SPAN_ID = 4, TRACE_ID = 5, AS_INT = 6, FILTERED_ATTRIBUTES = 7,
    }
}
message! {
    /// LogRecord.
    log_record {
        TIME_UNIX_NANO = 1, SEVERITY_NUMBER = 2, SEVERITY_TEXT = 3, BODY = 5, ATTRIBUTES = 6,
        DROPPED_ATTRIBUTES_COUNT = 7, FLAGS = 8, TRACE_ID = 9, SPAN_ID = 10, OBSERVED_TIME_UNIX_NANO = 11,
        EVENT_NAME = 12,
    }
}
