//! `verbosity: normal`: one line a span, data point or log record, under one line a resource and scope.

use std::io::Write;

use super::detailed::short;
use super::value::{put_pairs, put_plain, put_str};
use super::view::Msg;
use crate::pdata::Signal;
use crate::pdata::fields::{
    buckets, exponential_histogram_point as exponential, histogram_point as histogram, log_record, metric,
    metric_data, number_point as number, request, resource, resource_group, scope, scope_group, span,
    summary_point as summary, value_at_quantile,
};
use crate::pdata::json::put_hex;
use crate::pdata::wire::WireError;

type Out = Vec<u8>;
type Done = Result<(), WireError>;

/// Appends the whole request.
pub(super) fn put(signal: Signal, req: &[u8], out: &mut Out) -> Done {
    let (group_name, scope_name) = match signal {
        Signal::Traces => ("ResourceTraces", "ScopeTraces"),
        Signal::Metrics => ("ResourceMetrics", "ScopeMetrics"),
        Signal::Logs => ("ResourceLog", "ScopeLog"),
    };
    for (i, group) in Msg::new(req)?.all(request::GROUPS).enumerate() {
        let group = Msg::new(group)?;
        let _ = write!(out, "{group_name} #{i}");
        schema_url(out, &group.text(resource_group::SCHEMA_URL));
        let res = group.message(resource_group::RESOURCE);
        put_pairs(Msg::new(&res)?.all(resource::ATTRIBUTES), out)?;
        out.push(b'\n');
        for (i, items) in group.all(resource_group::SCOPES).enumerate() {
            let items = Msg::new(items)?;
            let about = items.message(scope_group::SCOPE);
            let about = Msg::new(&about)?;
            let _ = write!(out, "{scope_name} #{i}");
            let (name, version) = (about.text(scope::NAME), about.text(scope::VERSION));
            if !name.is_empty() {
                out.push(b' ');
                put_str(&name, out);
            }
            if !version.is_empty() {
                out.push(b'@');
                put_str(&version, out);
            }
            schema_url(out, &items.text(scope_group::SCHEMA_URL));
            put_pairs(about.all(scope::ATTRIBUTES), out)?;
            out.push(b'\n');
            for item in items.all(scope_group::ITEMS) {
                let item = Msg::new(item)?;
                match signal {
                    Signal::Traces => put_span(out, item)?,
                    Signal::Metrics => put_metric(out, item)?,
                    Signal::Logs => put_log(out, item)?,
                }
            }
        }
    }
    Ok(())
}

fn schema_url(out: &mut Out, url: &str) {
    if !url.is_empty() {
        out.extend_from_slice(b" [");
        put_str(url, out);
        out.push(b']');
    }
}

fn put_span(out: &mut Out, item: Msg<'_>) -> Done {
    put_str(&item.text(span::NAME), out);
    for number in [span::TRACE_ID, span::SPAN_ID] {
        out.push(b' ');
        put_hex(item.last(number).unwrap_or_default(), out);
    }
    put_pairs(item.all(span::ATTRIBUTES), out)?;
    out.push(b'\n');
    Ok(())
}

fn put_log(out: &mut Out, item: Msg<'_>) -> Done {
    let body = item.message(log_record::BODY);
    if body.is_empty() {
        put_str(&item.text(log_record::EVENT_NAME), out);
    }
    put_plain(&body, out)?;
    put_pairs(item.all(log_record::ATTRIBUTES), out)?;
    out.push(b'\n');
    Ok(())
}

fn put_metric(out: &mut Out, item: Msg<'_>) -> Done {
    use metric::{EXPONENTIAL_HISTOGRAM, GAUGE, HISTOGRAM, SUM, SUMMARY};
    let Some(kind) = item.which(&[GAUGE, SUM, HISTOGRAM, EXPONENTIAL_HISTOGRAM, SUMMARY]) else {
        return Ok(());
    };
    let name = item.text(metric::NAME);
    let data = item.message(kind);
    for point in Msg::new(&data)?.all(metric_data::DATA_POINTS) {
        let point = Msg::new(point)?;
        put_str(&name, out);
        let attributes = match kind {
            HISTOGRAM => histogram::ATTRIBUTES,
            EXPONENTIAL_HISTOGRAM => exponential::ATTRIBUTES,
            SUMMARY => summary::ATTRIBUTES,
            _ => number::ATTRIBUTES,
        };
        let start = out.len();
        put_pairs(point.all(attributes), out)?;
        // ` a=1 b=2` becomes `{a=1 b=2}`.
        match out.get_mut(start) {
            Some(blank) => *blank = b'{',
            None => out.push(b'{'),
        }
        out.push(b'}');
        match kind {
            HISTOGRAM => put_histogram(out, point),
            EXPONENTIAL_HISTOGRAM => put_exponential(out, point)?,
            SUMMARY => put_summary(out, point)?,
            _ => put_number(out, point),
        }
        out.push(b'\n');
    }
    Ok(())
}

fn put_number(out: &mut Out, point: Msg<'_>) {
    let _ = match point.which(&[number::AS_DOUBLE, number::AS_INT]) {
        Some(number::AS_INT) => write!(out, " {}", point.uint(number::AS_INT) as i64),
        Some(_) => write!(out, " {}", short(point.double(number::AS_DOUBLE).unwrap_or_default())),
        None => Ok(()),
    };
}

fn put_histogram(out: &mut Out, point: Msg<'_>) {
    let _ = write!(out, " count={}", point.uint(histogram::COUNT));
    put_range(out, point, [histogram::SUM, histogram::MIN, histogram::MAX]);
    let bounds = point.numbers(histogram::EXPLICIT_BOUNDS, true);
    for (i, count) in point.numbers(histogram::BUCKET_COUNTS, true).into_iter().enumerate() {
        let _ = match bounds.get(i) {
            Some(bound) => write!(out, " le{}={count}", short(f64::from_bits(*bound))),
            None => write!(out, " {count}"),
        };
    }
}

fn put_exponential(out: &mut Out, point: Msg<'_>) -> Done {
    let _ = write!(out, " count={}", point.uint(exponential::COUNT));
    put_range(out, point, [exponential::SUM, exponential::MIN, exponential::MAX]);
    let zeros = point.uint(exponential::ZERO_COUNT);
    let _ = write!(out, " scale={} zero_count={zeros}", point.sint(exponential::SCALE));
    for (label, number) in [("negative", exponential::NEGATIVE), ("positive", exponential::POSITIVE)] {
        let message = point.message(number);
        let message = Msg::new(&message)?;
        let counts = message.numbers(buckets::BUCKET_COUNTS, false);
        if !counts.is_empty() {
            let _ = write!(out, " {label}={}:{counts:?}", message.sint(buckets::OFFSET));
        }
    }
    Ok(())
}

fn put_summary(out: &mut Out, point: Msg<'_>) -> Done {
    let sum = short(point.double(summary::SUM).unwrap_or_default());
    let _ = write!(out, " count={} sum={sum}", point.uint(summary::COUNT));
    for quantile in point.all(summary::QUANTILE_VALUES) {
        let quantile = Msg::new(quantile)?;
        let read = |number| short(quantile.double(number).unwrap_or_default());
        let _ = write!(out, " q{}={}", read(value_at_quantile::QUANTILE), read(value_at_quantile::VALUE));
    }
    Ok(())
}

fn put_range(out: &mut Out, point: Msg<'_>, numbers: [u32; 3]) {
    for (label, number) in ["sum", "min", "max"].into_iter().zip(numbers) {
        if let Some(value) = point.double(number) {
            let _ = write!(out, " {label}={}", short(value));
        }
    }
}
