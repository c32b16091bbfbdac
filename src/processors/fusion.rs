//! The law of fusion: neighbouring processors in one walk leave a request as they would one after the other.
//!
//! Processors are drawn from a pool of configs as users write them, in any order and number, over random requests in any
//! encoding; what is compared is what decodes, the items that are left and how many were dropped.

use proptest::prelude::*;
use proptest::sample::select;
use prost::Message;

use super::testing::{Request, run_bytes};
use crate::pdata::Signal;
use crate::pdata::testgen::{arb_logs, arb_metrics, arb_traces, scramble};
use crate::telemetry::Metrics;

/// Processors for every signal. `@` stands for what makes an id its own.
const ANY: &[&str] = &[
    "resource/@: {attributes: [{key: a, value: x, action: upsert}, {key: b, action: delete}]}",
    "resource/@: {attributes: [{key: c, from_attribute: a, action: insert}]}",
    "attributes/@: {actions: [{key: a, value: y, action: insert}, {key: c, action: hash}]}",
    "attributes/@: {actions: [{pattern: '^[a-z]+[.]', action: delete}]}",
    "attributes/@: {include: {match_type: strict, resources: [{key: a, value: x}]}, actions: [{key: n, value: 1, action: upsert}]}",
    "relabel/@: {rules: [{source_labels: [resource.a, resource.b], target_label: resource.joined, separator: '-'}]}",
    "relabel/@: {rules: [{source_labels: [a], regex: '(.).*', target_label: first}, {regex: 'b', action: labeldrop}]}",
    "relabel/@: {rules: [{source_labels: [resource.a], regex: '[a-m].*', action: drop}]}",
    "relabel/@: {rules: [{source_labels: [a, c], regex: '.*[x-z].*', action: drop}]}",
    "relabel/@: {rules: [{source_labels: [__name__, resource.joined], target_label: named}, {regex: '([a-c])', action: labelmap, replacement: 'copy_$1'}]}",
    "relabel/@: {rules: [{source_labels: [scope.a], target_label: scope.b, action: uppercase}, {source_labels: [first], modulus: 7, target_label: shard, action: hashmod}]}",
    "relabel/@: {rules: [{regex: 'resource.joined', action: labeldrop}, {source_labels: [n, named], target_label: both}]}",
];

const TRACES: &[&str] = &[
    "filter/@: {spans: {exclude: {match_type: regexp, span_names: ['^[a-f]']}}}",
    "filter/@: {trace_conditions: ['span.attributes[\"a\"] != nil and IsMatch(span.name, \"[x-z]\")', 'spanevent.name == \"\"']}",
    "transform/@: {trace_statements: ['set(span.attributes[\"r\"], resource.attributes[\"a\"])', 'set(span.name, \"named\") where span.attributes[\"n\"] == 1', 'delete_key(resource.attributes, \"b\")']}",
    "attributes/@: {include: {match_type: strict, span_names: [named]}, actions: [{key: seen, value: true, action: upsert}]}",
];

const METRICS: &[&str] = &[
    "filter/@: {metrics: {exclude: {match_type: regexp, metric_names: ['^[a-f]']}}}",
    "filter/@: {metric_conditions: ['datapoint.attributes[\"a\"] != nil', 'metric.name == \"renamed\" and metric.unit == \"\"']}",
    "transform/@: {metric_statements: ['set(metric.name, \"renamed\") where IsMatch(metric.name, \"[x-z]\")', 'set(datapoint.attributes[\"m\"], metric.name)', 'keep_keys(resource.attributes, [\"a\", \"c\", \"joined\"])']}",
    "attributes/@: {exclude: {match_type: strict, metric_names: [renamed]}, actions: [{key: seen, value: true, action: upsert}]}",
    "filter/@: {metric_conditions: ['HasAttrKeyOnDatapoint(\"seen\")']}",
];

const LOGS: &[&str] = &[
    "filter/@: {logs: {include: {match_type: strict, resource_attributes: [{key: a, value: x}]}}}",
    "filter/@: {log_conditions: ['log.severity_number < 5 and log.attributes[\"c\"] == nil', 'resource.attributes[\"b\"] == \"\"']}",
    "transform/@: {log_statements: ['set(log.body, log.attributes[\"a\"]) where IsString(log.body)', 'set(log.severity_text, \"named\") where log.attributes[\"n\"] == 1', 'truncate_all(log.attributes, 4)', 'limit(log.attributes, 3, [\"a\"])']}",
    "attributes/@: {include: {match_type: strict, log_severity_texts: [named]}, actions: [{key: seen, value: true, action: upsert}]}",
];

fn arb_chain(own: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    proptest::collection::vec(prop_oneof![3 => select(ANY), 2 => select(own)], 1..6)
}

/// No resource and an empty one are the same, and so are no scope and an empty one, no value and an empty one.
trait Plain {
    fn plain(&mut self);
}

macro_rules! plain {
    ($module:ident, $request:ident, $groups:ident, $scopes:ident) => {
        impl Plain for opentelemetry_proto::tonic::collector::$module::v1::$request {
            fn plain(&mut self) {
                for group in &mut self.$groups {
                    for kv in &mut group.resource.get_or_insert_default().attributes {
                        kv.value.get_or_insert_default();
                    }
                    for scope in &mut group.$scopes {
                        for kv in &mut scope.scope.get_or_insert_default().attributes {
                            kv.value.get_or_insert_default();
                        }
                    }
                }
            }
        }
    };
}

plain!(trace, ExportTraceServiceRequest, resource_spans, scope_spans);
plain!(metrics, ExportMetricsServiceRequest, resource_metrics, scope_metrics);
plain!(logs, ExportLogsServiceRequest, resource_logs, scope_logs);

fn one_walk_is_many<R: Request + Plain + std::fmt::Debug>(
    bytes: &[u8],
    chain: &[&str],
) -> Result<(), TestCaseError> {
    let named: Vec<String> = chain.iter().enumerate().map(|(i, p)| p.replace('@', &i.to_string())).collect();
    let (fused, all) = run_bytes(&named.join("\n"), R::SIGNAL, bytes, &Metrics::new());
    let (mut stepwise, mut items, mut dropped) = (bytes::Bytes::copy_from_slice(bytes), 0, 0);
    for processor in &named {
        let (out, one) = run_bytes(processor, R::SIGNAL, &stepwise, &Metrics::new());
        prop_assert_eq!(one.malformed, 0);
        (stepwise, items, dropped) = (out, one.items, dropped + one.dropped);
    }
    let decode = |bytes: &[u8]| {
        let mut request = R::decode(bytes).unwrap();
        request.plain();
        request
    };
    let (got, want) = (decode(&fused), decode(&stepwise));
    let (a, b) = (format!("{got:#?}"), format!("{want:#?}"));
    let differs: Vec<_> = a.lines().zip(b.lines()).filter(|(a, b)| a != b).take(12).collect();
    prop_assert!(got.encode_to_vec() == want.encode_to_vec(), "{named:#?}\ngot and want: {differs:#?}");
    prop_assert_eq!((all.items, all.dropped, all.malformed), (items, dropped, 0));
    Ok(())
}

fn arb_wire<R: Message>(signal: Signal, typed: impl Strategy<Value = R>) -> impl Strategy<Value = Vec<u8>> {
    (typed, any::<u64>(), any::<bool>()).prop_map(move |(request, seed, plain)| {
        let bytes = request.encode_to_vec();
        if plain { bytes } else { scramble(signal, &bytes, seed) }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn traces(bytes in arb_wire(Signal::Traces, arb_traces()), chain in arb_chain(TRACES)) {
        one_walk_is_many::<opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest>(&bytes, &chain)?;
    }

    #[test]
    fn metrics(bytes in arb_wire(Signal::Metrics, arb_metrics()), chain in arb_chain(METRICS)) {
        one_walk_is_many::<opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest>(&bytes, &chain)?;
    }

    #[test]
    fn logs(bytes in arb_wire(Signal::Logs, arb_logs()), chain in arb_chain(LOGS)) {
        one_walk_is_many::<opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest>(&bytes, &chain)?;
    }
}
