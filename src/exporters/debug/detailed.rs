//! `verbosity: detailed`: every field of every item on a line of its own, under the Collector's labels.

use std::fmt::Display;
use std::io::Write;

use super::value::{put_number, put_str, put_time, put_typed};
use super::view::Msg;
use crate::pdata::Signal;
use crate::pdata::fields::{
    buckets, entity_ref, event, exemplar, exponential_histogram_point as exponential,
    histogram_point as histogram, key_value, link, log_record, metric, metric_data, number_point as number,
    request, resource, resource_group, scope, scope_group, span, status, summary_point as summary,
    value_at_quantile,
};
use crate::pdata::json::put_hex;
use crate::pdata::wire::WireError;

type Out = Vec<u8>;
type Done = Result<(), WireError>;

/// Appends the whole request.
pub(super) fn put(signal: Signal, req: &[u8], out: &mut Out) -> Done {
    let (group_name, scope_name) = match signal {
        Signal::Traces => ("ResourceSpans", "ScopeSpans"),
        Signal::Metrics => ("ResourceMetrics", "ScopeMetrics"),
        Signal::Logs => ("ResourceLog", "ScopeLogs"),
    };
    for (i, group) in Msg::new(req)?.all(request::GROUPS).enumerate() {
        let group = Msg::new(group)?;
        line(out, format_args!("{group_name} #{i}"));
        text(out, "Resource SchemaURL: ", &group.text(resource_group::SCHEMA_URL));
        let res = group.message(resource_group::RESOURCE);
        let res = Msg::new(&res)?;
        attributes(out, "Resource attributes:", "     ", res.all(resource::ATTRIBUTES))?;
        entities(out, res)?;
        for (i, items) in group.all(resource_group::SCOPES).enumerate() {
            let items = Msg::new(items)?;
            line(out, format_args!("{scope_name} #{i}"));
            text(out, &format!("{scope_name} SchemaURL: "), &items.text(scope_group::SCHEMA_URL));
            instrumentation(out, &items.message(scope_group::SCOPE))?;
            for (i, item) in items.all(scope_group::ITEMS).enumerate() {
                let item = Msg::new(item)?;
                match signal {
                    Signal::Traces => put_span(out, i, item)?,
                    Signal::Metrics => put_metric(out, i, item)?,
                    Signal::Logs => put_log(out, i, item)?,
                }
            }
        }
    }
    Ok(())
}

fn entities(out: &mut Out, res: Msg<'_>) -> Done {
    for (i, entity) in res.all(resource::ENTITY_REFS).enumerate() {
        let entity = Msg::new(entity)?;
        if i == 0 {
            line(out, "Entity references:");
        }
        line(out, format_args!("Entity #{i}"));
        text(out, "     -> Type: ", &entity.text(entity_ref::TYPE));
        text(out, "     -> SchemaURL: ", &entity.text(entity_ref::SCHEMA_URL));
        for (label, number) in
            [("Id key", entity_ref::ID_KEYS), ("Description key", entity_ref::DESCRIPTION_KEYS)]
        {
            for key in entity.all(number) {
                text(out, &format!("     -> {label}: "), &String::from_utf8_lossy(key));
            }
        }
    }
    Ok(())
}

fn instrumentation(out: &mut Out, message: &[u8]) -> Done {
    let message = Msg::new(message)?;
    text(
        out,
        "InstrumentationScope ",
        &format!("{} {}", message.text(scope::NAME), message.text(scope::VERSION)),
    );
    attributes(out, "InstrumentationScope attributes:", "     ", message.all(scope::ATTRIBUTES))?;
    dropped(out, "", message.uint(scope::DROPPED_ATTRIBUTES_COUNT));
    Ok(())
}

fn put_span(out: &mut Out, i: usize, item: Msg<'_>) -> Done {
    line(out, format_args!("Span #{i}"));
    id(out, "    Trace ID       : ", item, span::TRACE_ID);
    id(out, "    Parent ID      : ", item, span::PARENT_SPAN_ID);
    id(out, "    ID             : ", item, span::SPAN_ID);
    text(out, "    Name           : ", &item.text(span::NAME));
    let kind = item.uint(span::KIND);
    let names = ["Unspecified", "Internal", "Server", "Client", "Producer", "Consumer"];
    line(out, format_args!("    Kind           : {}", word(&names, kind)));
    let state = item.text(span::TRACE_STATE);
    if !state.is_empty() {
        text(out, "    TraceState     : ", &state);
    }
    time(out, "    Start time     : ", item.uint(span::START_TIME_UNIX_NANO));
    time(out, "    End time       : ", item.uint(span::END_TIME_UNIX_NANO));
    let outcome = item.message(span::STATUS);
    let outcome = Msg::new(&outcome)?;
    let names = ["Unset", "Ok", "Error"];
    line(out, format_args!("    Status code    : {}", word(&names, outcome.uint(status::CODE))));
    text(out, "    Status message : ", &outcome.text(status::MESSAGE));
    for (label, number) in [
        ("attributes", span::DROPPED_ATTRIBUTES_COUNT),
        ("events", span::DROPPED_EVENTS_COUNT),
        ("links", span::DROPPED_LINKS_COUNT),
    ] {
        let count = item.uint(number);
        if count > 0 {
            line(out, format_args!("    Dropped {label} count: {count}"));
        }
    }
    attributes(out, "Attributes:", "     ", item.all(span::ATTRIBUTES))?;
    for (i, message) in item.all(span::EVENTS).enumerate() {
        let message = Msg::new(message)?;
        if i == 0 {
            line(out, "Events:");
        }
        line(out, format_args!("SpanEvent #{i}"));
        text(out, "     -> Name: ", &message.text(event::NAME));
        time(out, "     -> Timestamp: ", message.uint(event::TIME_UNIX_NANO));
        dropped(out, "     -> ", message.uint(event::DROPPED_ATTRIBUTES_COUNT));
        attributes(out, "     -> Attributes::", "          ", message.all(event::ATTRIBUTES))?;
    }
    for (i, message) in item.all(span::LINKS).enumerate() {
        let message = Msg::new(message)?;
        if i == 0 {
            line(out, "Links:");
        }
        line(out, format_args!("SpanLink #{i}"));
        id(out, "     -> Trace ID: ", message, link::TRACE_ID);
        id(out, "     -> ID: ", message, link::SPAN_ID);
        text(out, "     -> TraceState: ", &message.text(link::TRACE_STATE));
        dropped(out, "     -> ", message.uint(link::DROPPED_ATTRIBUTES_COUNT));
        attributes(out, "     -> Attributes::", "          ", message.all(link::ATTRIBUTES))?;
    }
    Ok(())
}

fn put_log(out: &mut Out, i: usize, item: Msg<'_>) -> Done {
    line(out, format_args!("LogRecord #{i}"));
    time(out, "ObservedTimestamp: ", item.uint(log_record::OBSERVED_TIME_UNIX_NANO));
    time(out, "Timestamp: ", item.uint(log_record::TIME_UNIX_NANO));
    text(out, "SeverityText: ", &item.text(log_record::SEVERITY_TEXT));
    let severity = item.uint(log_record::SEVERITY_NUMBER);
    line(out, format_args!("SeverityNumber: {}({severity})", severity_name(severity)));
    let name = item.text(log_record::EVENT_NAME);
    if !name.is_empty() {
        text(out, "EventName: ", &name);
    }
    out.extend_from_slice(b"Body: ");
    put_typed(&item.message(log_record::BODY), out)?;
    out.push(b'\n');
    attributes(out, "Attributes:", "     ", item.all(log_record::ATTRIBUTES))?;
    dropped(out, "", item.uint(log_record::DROPPED_ATTRIBUTES_COUNT));
    id(out, "Trace ID: ", item, log_record::TRACE_ID);
    id(out, "Span ID: ", item, log_record::SPAN_ID);
    line(out, format_args!("Flags: {}", item.uint(log_record::FLAGS)));
    Ok(())
}

fn put_metric(out: &mut Out, i: usize, item: Msg<'_>) -> Done {
    line(out, format_args!("Metric #{i}"));
    line(out, "Descriptor:");
    text(out, "     -> Name: ", &item.text(metric::NAME));
    text(out, "     -> Description: ", &item.text(metric::DESCRIPTION));
    text(out, "     -> Unit: ", &item.text(metric::UNIT));
    let kinds = [
        (metric::GAUGE, "Gauge", "NumberDataPoints"),
        (metric::SUM, "Sum", "NumberDataPoints"),
        (metric::HISTOGRAM, "Histogram", "HistogramDataPoints"),
        (metric::EXPONENTIAL_HISTOGRAM, "ExponentialHistogram", "ExponentialHistogramDataPoints"),
        (metric::SUMMARY, "Summary", "SummaryDataPoints"),
    ];
    let which = item.which(&kinds.map(|(number, ..)| number));
    let Some((kind, name, points)) = kinds.into_iter().find(|(number, ..)| Some(*number) == which) else {
        line(out, "     -> DataType: Empty");
        return attributes(out, "     -> Metadata:", "          ", item.all(metric::METADATA));
    };
    line(out, format_args!("     -> DataType: {name}"));
    let data = item.message(kind);
    let data = Msg::new(&data)?;
    if kind == metric::SUM {
        line(out, format_args!("     -> IsMonotonic: {}", data.uint(metric_data::IS_MONOTONIC) != 0));
    }
    if matches!(kind, metric::SUM | metric::HISTOGRAM | metric::EXPONENTIAL_HISTOGRAM) {
        let temporality = data.uint(metric_data::AGGREGATION_TEMPORALITY);
        let name = word(&["Unspecified", "Delta", "Cumulative"], temporality);
        line(out, format_args!("     -> AggregationTemporality: {name}"));
    }
    attributes(out, "     -> Metadata:", "          ", item.all(metric::METADATA))?;
    for (i, point) in data.all(metric_data::DATA_POINTS).enumerate() {
        line(out, format_args!("{points} #{i}"));
        put_point(out, kind, Msg::new(point)?)?;
    }
    Ok(())
}

fn put_point(out: &mut Out, kind: u32, point: Msg<'_>) -> Done {
    let (attribute_number, flags, exemplars) = match kind {
        metric::HISTOGRAM => (histogram::ATTRIBUTES, histogram::FLAGS, Some(histogram::EXEMPLARS)),
        metric::EXPONENTIAL_HISTOGRAM => {
            (exponential::ATTRIBUTES, exponential::FLAGS, Some(exponential::EXEMPLARS))
        }
        metric::SUMMARY => (summary::ATTRIBUTES, summary::FLAGS, None),
        _ => (number::ATTRIBUTES, number::FLAGS, Some(number::EXEMPLARS)),
    };
    attributes(out, "Data point attributes:", "     ", point.all(attribute_number))?;
    // The times have the same numbers in every kind of point.
    time(out, "StartTimestamp: ", point.uint(number::START_TIME_UNIX_NANO));
    time(out, "Timestamp: ", point.uint(number::TIME_UNIX_NANO));
    match kind {
        metric::HISTOGRAM => put_histogram(out, point),
        metric::EXPONENTIAL_HISTOGRAM => put_exponential(out, point)?,
        metric::SUMMARY => put_summary(out, point)?,
        _ => value(out, "Value: ", point, number::AS_DOUBLE, number::AS_INT),
    }
    let flags = point.uint(flags);
    if flags != 0 {
        line(out, format_args!("Flags: {flags}"));
    }
    for (i, message) in exemplars.into_iter().flat_map(|number| point.all(number)).enumerate() {
        let message = Msg::new(message)?;
        if i == 0 {
            line(out, "Exemplars:");
        }
        line(out, format_args!("Exemplar #{i}"));
        id(out, "     -> Trace ID: ", message, exemplar::TRACE_ID);
        id(out, "     -> Span ID: ", message, exemplar::SPAN_ID);
        time(out, "     -> Timestamp: ", message.uint(exemplar::TIME_UNIX_NANO));
        value(out, "     -> Value: ", message, exemplar::AS_DOUBLE, exemplar::AS_INT);
        let filtered = message.all(exemplar::FILTERED_ATTRIBUTES);
        attributes(out, "     -> FilteredAttributes:", "          ", filtered)?;
    }
    Ok(())
}

fn put_histogram(out: &mut Out, point: Msg<'_>) {
    line(out, format_args!("Count: {}", point.uint(histogram::COUNT)));
    range(out, point, [histogram::SUM, histogram::MIN, histogram::MAX]);
    for (i, bound) in point.numbers(histogram::EXPLICIT_BOUNDS, true).into_iter().enumerate() {
        line(out, format_args!("ExplicitBounds #{i}: {:.6}", f64::from_bits(bound)));
    }
    for (i, count) in point.numbers(histogram::BUCKET_COUNTS, true).into_iter().enumerate() {
        line(out, format_args!("Buckets #{i}, Count: {count}"));
    }
}

fn put_exponential(out: &mut Out, point: Msg<'_>) -> Done {
    line(out, format_args!("Count: {}", point.uint(exponential::COUNT)));
    range(out, point, [exponential::SUM, exponential::MIN, exponential::MAX]);
    // The bounds of bucket i are base^i and base^(i+1), with base = 2^(2^-scale).
    let scale = point.sint(exponential::SCALE) as i32;
    let bound = |index: i64| (2f64.powi(scale.saturating_neg()) * index as f64).exp2();
    let read = |number| -> Result<(i64, Vec<u64>), WireError> {
        let message = point.message(number);
        let message = Msg::new(&message)?;
        let offset = i64::from(message.sint(buckets::OFFSET) as i32);
        Ok((offset, message.numbers(buckets::BUCKET_COUNTS, false)))
    };
    let (offset, counts) = read(exponential::NEGATIVE)?;
    for (i, count) in counts.into_iter().enumerate().rev().filter(|(_, count)| *count > 0) {
        let index = offset + i as i64;
        let (low, high) = (-bound(index + 1), -bound(index));
        line(out, format_args!("Bucket [{low:.6}, {high:.6}), Count: {count}"));
    }
    let zero = point.uint(exponential::ZERO_COUNT);
    if zero > 0 {
        line(out, format_args!("Bucket [0, 0], Count: {zero}"));
    }
    let (offset, counts) = read(exponential::POSITIVE)?;
    for (i, count) in counts.into_iter().enumerate().filter(|(_, count)| *count > 0) {
        let index = offset + i as i64;
        let (low, high) = (bound(index), bound(index + 1));
        line(out, format_args!("Bucket ({low:.6}, {high:.6}], Count: {count}"));
    }
    Ok(())
}

fn put_summary(out: &mut Out, point: Msg<'_>) -> Done {
    line(out, format_args!("Count: {}", point.uint(summary::COUNT)));
    line(out, format_args!("Sum: {:.6}", point.double(summary::SUM).unwrap_or_default()));
    for (i, quantile) in point.all(summary::QUANTILE_VALUES).enumerate() {
        let quantile = Msg::new(quantile)?;
        let at = quantile.double(value_at_quantile::QUANTILE).unwrap_or_default();
        let value = quantile.double(value_at_quantile::VALUE).unwrap_or_default();
        line(out, format_args!("QuantileValue #{i}: Quantile {at:.6}, Value {value:.6}"));
    }
    Ok(())
}

fn range(out: &mut Out, point: Msg<'_>, numbers: [u32; 3]) {
    for (label, number) in ["Sum", "Min", "Max"].into_iter().zip(numbers) {
        if let Some(value) = point.double(number) {
            line(out, format_args!("{label}: {value:.6}"));
        }
    }
}

fn value(out: &mut Out, label: &str, message: Msg<'_>, as_double: u32, as_int: u32) {
    match message.which(&[as_double, as_int]) {
        Some(number) if number == as_int => {
            line(out, format_args!("{label}{}", message.uint(number) as i64));
        }
        Some(number) => line(out, format_args!("{label}{:.6}", message.double(number).unwrap_or_default())),
        None => line(out, label.trim_end()),
    }
}

fn attributes<'a>(out: &mut Out, label: &str, indent: &str, list: impl Iterator<Item = &'a [u8]>) -> Done {
    for (i, attribute) in list.enumerate() {
        let attribute = Msg::new(attribute)?;
        if i == 0 {
            line(out, label);
        }
        out.extend_from_slice(indent.as_bytes());
        out.extend_from_slice(b"-> ");
        put_str(&attribute.text(key_value::KEY), out);
        out.extend_from_slice(b": ");
        put_typed(&attribute.message(key_value::VALUE), out)?;
        out.push(b'\n');
    }
    Ok(())
}

fn dropped(out: &mut Out, indent: &str, count: u64) {
    if count > 0 {
        line(out, format_args!("{indent}DroppedAttributesCount: {count}"));
    }
}

fn id(out: &mut Out, label: &str, message: Msg<'_>, number: u32) {
    out.extend_from_slice(label.as_bytes());
    put_hex(message.last(number).unwrap_or_default(), out);
    out.push(b'\n');
}

fn time(out: &mut Out, label: &str, nanos: u64) {
    out.extend_from_slice(label.as_bytes());
    put_time(nanos, out);
    out.push(b'\n');
}

fn text(out: &mut Out, label: &str, text: &str) {
    out.extend_from_slice(label.as_bytes());
    put_str(text, out);
    out.push(b'\n');
}

/// One line; writing to a vector cannot fail.
fn line(out: &mut Out, text: impl Display) {
    let _ = writeln!(out, "{text}");
}

fn word(words: &[&str], index: u64) -> String {
    let known = usize::try_from(index).ok().and_then(|index| words.get(index));
    known.map_or_else(|| index.to_string(), |word| (*word).to_owned())
}

fn severity_name(number: u64) -> String {
    let names = ["Trace", "Debug", "Info", "Warn", "Error", "Fatal"];
    let Some(below) = number.checked_sub(1) else { return "Unspecified".to_owned() };
    match usize::try_from(below / 4).ok().and_then(|i| names.get(i)) {
        Some(name) if below % 4 == 0 => (*name).to_owned(),
        Some(name) => format!("{name}{}", below % 4 + 1),
        None => String::new(),
    }
}

/// A double without needless digits, as `normal` shows it.
pub(super) fn short(value: f64) -> String {
    let mut out = Vec::new();
    put_number(value, &mut out);
    String::from_utf8(out).unwrap_or_default()
}
