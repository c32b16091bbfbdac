//! How many items a request holds, without decoding it.
//!
//! [`count`] reads the tags and lengths down to the items and skips over everything inside them: about four
//! nanoseconds an item. The answer is what prost would count after decoding: fields in any order, repeated
//! singular messages merge, unknown fields are skipped, a known field with a foreign wire type is an error.
//! A metric's data is a oneof: the last kind on the wire wins and drops the points of an earlier kind, while
//! repetitions of the same kind merge. Not looked at: the inside of items, resources and scopes; see
//! [`check`](super::check()) for that.

use super::Signal;
use super::fields::{metric, metric_data, request, resource_group, scope_group};
use super::wire::{Cursor, WireError};

/// Counts the spans, data points or log records of an encoded request.
///
/// # Errors
/// What is wrong with the request above the level of its items.
pub fn count(signal: Signal, request: &[u8]) -> Result<usize, WireError> {
    walk(signal, request, &mut Nothing)
}

/// Counts the items of one `ResourceSpans`, `ResourceMetrics` or `ResourceLogs`.
pub(crate) fn count_resource(signal: Signal, message: &[u8]) -> Result<usize, WireError> {
    group(signal, message, &mut Nothing)
}

/// Counts the items of one `ScopeSpans`, `ScopeMetrics` or `ScopeLogs`.
pub(crate) fn count_scope(signal: Signal, message: &[u8]) -> Result<usize, WireError> {
    match signal {
        Signal::Metrics => metrics(message, &mut Nothing),
        _ => items(message, &mut Nothing, |_, _| Ok(())),
    }
}

/// Counts the data points of one `Metric`.
pub(crate) fn count_metric(message: &[u8]) -> Result<usize, WireError> {
    points(message, &mut Nothing)
}

/// What is done with the messages met on the way to the items. The defaults look at nothing.
pub(super) trait Visitor {
    /// A Resource.
    #[inline]
    fn resource(&mut self, _message: &[u8]) -> Result<(), WireError> {
        Ok(())
    }
    /// An InstrumentationScope.
    #[inline]
    fn scope(&mut self, _message: &[u8]) -> Result<(), WireError> {
        Ok(())
    }
    /// A KeyValue of a metric's metadata.
    #[inline]
    fn metadata(&mut self, _message: &[u8]) -> Result<(), WireError> {
        Ok(())
    }
    /// A Span.
    #[inline]
    fn span(&mut self, _message: &[u8]) -> Result<(), WireError> {
        Ok(())
    }
    /// A LogRecord.
    #[inline]
    fn log_record(&mut self, _message: &[u8]) -> Result<(), WireError> {
        Ok(())
    }
    /// A data point; `kind` is the field number of the metric's data.
    #[inline]
    fn point(&mut self, _kind: u32, _message: &[u8]) -> Result<(), WireError> {
        Ok(())
    }
}

struct Nothing;

impl Visitor for Nothing {}

/// Walks a request down to its items, shows the visitor what it meets, and counts the items.
pub(super) fn walk<V: Visitor>(signal: Signal, request: &[u8], v: &mut V) -> Result<usize, WireError> {
    let mut total = 0;
    let mut cursor = Cursor::new(request);
    while let Some(field) = cursor.next_field()? {
        if field.number == request::GROUPS {
            total += group(signal, field.value.bytes()?, v)?;
        }
    }
    Ok(total)
}

fn group<V: Visitor>(signal: Signal, message: &[u8], v: &mut V) -> Result<usize, WireError> {
    let mut total = 0;
    let mut cursor = Cursor::new(message);
    while let Some(field) = cursor.next_field()? {
        match field.number {
            resource_group::SCOPES => {
                let message = field.value.bytes()?;
                total += match signal {
                    Signal::Traces => items(message, v, V::span)?,
                    Signal::Logs => items(message, v, V::log_record)?,
                    Signal::Metrics => metrics(message, v)?,
                };
            }
            resource_group::RESOURCE => v.resource(field.value.bytes()?)?,
            resource_group::SCHEMA_URL => {
                field.value.bytes()?;
            }
            _ => {}
        }
    }
    Ok(total)
}

/// ScopeSpans and ScopeLogs.
#[inline]
fn items<V: Visitor>(
    message: &[u8],
    v: &mut V,
    item: impl Fn(&mut V, &[u8]) -> Result<(), WireError>,
) -> Result<usize, WireError> {
    let mut total = 0;
    let mut cursor = Cursor::new(message);
    while let Some(field) = cursor.next_field()? {
        match field.number {
            scope_group::ITEMS => {
                item(v, field.value.bytes()?)?;
                total += 1;
            }
            scope_group::SCOPE => v.scope(field.value.bytes()?)?,
            scope_group::SCHEMA_URL => {
                field.value.bytes()?;
            }
            _ => {}
        }
    }
    Ok(total)
}

/// ScopeMetrics.
fn metrics<V: Visitor>(message: &[u8], v: &mut V) -> Result<usize, WireError> {
    let mut total = 0;
    let mut cursor = Cursor::new(message);
    while let Some(field) = cursor.next_field()? {
        match field.number {
            scope_group::ITEMS => total += points(field.value.bytes()?, v)?,
            scope_group::SCOPE => v.scope(field.value.bytes()?)?,
            scope_group::SCHEMA_URL => {
                field.value.bytes()?;
            }
            _ => {}
        }
    }
    Ok(total)
}

/// Metric: the points of the kind of data that wins.
fn points<V: Visitor>(message: &[u8], v: &mut V) -> Result<usize, WireError> {
    let mut total = 0;
    let mut winner = 0;
    let mut cursor = Cursor::new(message);
    while let Some(field) = cursor.next_field()? {
        match field.number {
            metric::NAME | metric::DESCRIPTION | metric::UNIT => {
                field.value.bytes()?;
            }
            metric::METADATA => v.metadata(field.value.bytes()?)?,
            kind if is_metric_data(kind) => {
                if kind != winner {
                    winner = kind;
                    total = 0;
                }
                total += data(kind, field.value.bytes()?, v)?;
            }
            _ => {}
        }
    }
    Ok(total)
}

/// Gauge, Sum, Histogram, ExponentialHistogram or Summary.
fn data<V: Visitor>(kind: u32, message: &[u8], v: &mut V) -> Result<usize, WireError> {
    let mut total = 0;
    let mut cursor = Cursor::new(message);
    while let Some(field) = cursor.next_field()? {
        match field.number {
            metric_data::DATA_POINTS => {
                v.point(kind, field.value.bytes()?)?;
                total += 1;
            }
            metric_data::AGGREGATION_TEMPORALITY if !matches!(kind, metric::GAUGE | metric::SUMMARY) => {
                field.value.varint()?;
            }
            metric_data::IS_MONOTONIC if kind == metric::SUM => {
                field.value.varint()?;
            }
            _ => {}
        }
    }
    Ok(total)
}

/// Whether a field of Metric is a member of its data oneof.
#[inline]
pub(super) const fn is_metric_data(number: u32) -> bool {
    matches!(
        number,
        metric::GAUGE | metric::SUM | metric::HISTOGRAM | metric::EXPONENTIAL_HISTOGRAM | metric::SUMMARY
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pdata::testgen::{arb_request, arb_signal, mutate, oracle_count, scramble};
    use crate::pdata::wire::put_bytes;

    #[test]
    fn golden_request_counts_one_record() {
        let bytes = b"\x0a\x20\x0a\x0a\x0a\x08\x0a\x01a\x12\x03\x0a\x01b\x12\x12\x12\x10\
            \x09\x01\0\0\0\0\0\0\0\x10\x09\x2a\x03\x0a\x01x";
        assert_eq!(count(Signal::Logs, bytes), Ok(1));
        assert_eq!(count(Signal::Logs, b""), Ok(0));
    }

    #[test]
    fn the_last_kind_of_metric_data_wins_and_equal_kinds_merge() {
        let point = |n: usize| [0x0a, 0x00].repeat(n);
        let nest = |parts: &[(u32, Vec<u8>)]| {
            let mut out = Vec::new();
            for (number, bytes) in parts {
                put_bytes(&mut out, *number, bytes);
            }
            out
        };
        let cases: &[(&[(u32, usize)], usize)] = &[
            (&[(5, 2)], 2),
            (&[(5, 2), (5, 3)], 5),
            (&[(5, 2), (7, 1)], 1),
            (&[(5, 2), (7, 1), (5, 4)], 4),
            (&[(5, 2), (9, 0)], 0),
            (&[(6, 2), (8, 0)], 0),
        ];
        for (data, want) in cases {
            let data: Vec<_> = data.iter().map(|&(kind, n)| (kind, point(n))).collect();
            let request = nest(&[(1, nest(&[(2, nest(&[(2, nest(&data))]))]))]);
            assert_eq!(count(Signal::Metrics, &request), Ok(*want), "{data:?}");
            assert_eq!(oracle_count(Signal::Metrics, &request), Some(*want), "{data:?}");
        }
    }

    #[test]
    fn a_known_field_with_a_foreign_type_is_refused() {
        let cases: &[(Signal, &[u8])] = &[
            (Signal::Traces, &[0x08, 1]),
            (Signal::Traces, &[0x0a, 2, 0x08, 1]),
            (Signal::Logs, &[0x0a, 2, 0x18, 1]),
            (Signal::Logs, &[0x0a, 4, 0x12, 2, 0x10, 1]),
            (Signal::Metrics, &[0x0a, 6, 0x12, 4, 0x12, 2, 0x28, 0]),
            (Signal::Metrics, &[0x0a, 8, 0x12, 6, 0x12, 4, 0x3a, 2, 0x12, 0]),
        ];
        for (signal, bytes) in cases {
            assert_eq!(count(*signal, bytes), Err(WireError::WrongType), "{bytes:02x?}");
            assert_eq!(oracle_count(*signal, bytes), None, "{bytes:02x?}");
        }
    }

    proptest! {
        #[test]
        fn counts_what_prost_counts((signal, bytes) in arb_request(), seed: u64) {
            prop_assert_eq!(count(signal, &bytes).ok(), oracle_count(signal, &bytes));
            let other = scramble(signal, &bytes, seed);
            prop_assert_eq!(count(signal, &other).ok(), oracle_count(signal, &other));
        }

        #[test]
        fn damaged_requests_count_as_prost_does_or_fail((signal, mut bytes) in arb_request(), seed: u64) {
            mutate(&mut bytes, seed);
            let ours = count(signal, &bytes);
            // prost reads deeper, so it may refuse what the count does not see; never the other way round.
            if let Some(theirs) = oracle_count(signal, &bytes) {
                prop_assert_eq!(ours, Ok(theirs));
            }
        }

        #[test]
        fn any_bytes_are_survived(signal in arb_signal(), bytes: Vec<u8>) {
            if let Some(theirs) = oracle_count(signal, &bytes) {
                prop_assert_eq!(count(signal, &bytes), Ok(theirs));
            }
        }
    }
}
