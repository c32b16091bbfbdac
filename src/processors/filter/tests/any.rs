//! Any bytes are safe, whatever the conditions, and what is left and what is dropped add up.

use proptest::prelude::*;
use prost::Message;

use crate::pdata::testgen::{arb_logs, arb_metrics, arb_traces, mutate};
use crate::pdata::{Signal, count};
use crate::processors::testing::{apply, programs};
use crate::telemetry::Metrics;

/// Filters with something at every level.
const FILTERS: [&str; 3] = [
    "filter: {trace_conditions: ['Len(resource.attributes) == 1', scope.name == \"\", IsRootSpan(), \
     'spanevent.attributes[\"a\"] == nil'], metric_conditions: ['Len(resource.attributes) == 1', \
     'metric.type == METRIC_DATA_TYPE_SUM', 'HasAttrKeyOnDatapoint(\"a\")', 'datapoint.flags == 1'], \
     log_conditions: ['Len(resource.attributes) == 1', 'IsString(log.body)', 'Len(log.attributes) > 2']}",
    "filter: {spans: {include: {match_type: regexp, span_names: [a], libraries: [{name: '.*'}]}, exclude: {match_type: \
     regexp, attributes: [{key: a}]}}, metrics: {include: {match_type: expr, expressions: ['HasLabel(\"a\") || \
     MetricType == \"Sum\"']}, exclude: {match_type: regexp, metric_names: [b], resource_attributes: [{key: a}]}}, \
     logs: {exclude: {match_type: regexp, bodies: [a], severity_number: {min: INFO}}}}",
    "attributes: {actions: [{key: a, value: 1, action: upsert}]}\n\
     filter: {trace_conditions: ['span.attributes[\"a\"] != 1'], metric_conditions: ['datapoint.attributes[\"a\"] == 1'], \
     log_conditions: ['log.attributes[\"a\"] == nil']}",
];

fn adds_up(signal: Signal, bytes: &[u8], valid: bool) {
    let metrics = Metrics::new();
    for filter in FILTERS {
        let counted = count(signal, bytes);
        let (left, out) = apply(&programs(filter, signal, &metrics), signal, bytes, &metrics);
        assert_eq!(out.items + out.dropped, counted.unwrap_or_default(), "{filter}");
        if valid {
            assert_eq!((out.malformed, count(signal, &left)), (0, Ok(out.items)), "{filter}");
        }
        // What a filter has passed it passes again.
        if valid && !filter.contains("HasLabel") && !filter.contains("OnDatapoint") {
            let (again, second) = apply(&programs(filter, signal, &metrics), signal, &left, &metrics);
            assert_eq!((again, second.dropped), (left, 0), "{filter}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn of_traces(request in arb_traces(), seed: u64) {
        let mut bytes = request.encode_to_vec();
        adds_up(Signal::Traces, &bytes, true);
        mutate(&mut bytes, seed);
        adds_up(Signal::Traces, &bytes, false);
    }

    #[test]
    fn of_metrics(request in arb_metrics(), seed: u64) {
        let mut bytes = request.encode_to_vec();
        adds_up(Signal::Metrics, &bytes, true);
        mutate(&mut bytes, seed);
        adds_up(Signal::Metrics, &bytes, false);
    }

    #[test]
    fn of_logs(request in arb_logs(), seed: u64) {
        let mut bytes = request.encode_to_vec();
        adds_up(Signal::Logs, &bytes, true);
        mutate(&mut bytes, seed);
        adds_up(Signal::Logs, &bytes, false);
    }
}
