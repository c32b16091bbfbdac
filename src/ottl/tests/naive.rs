//! Random programs on random requests do what a slow and obvious evaluator does on the decoded request.

mod language;
mod obvious;
mod programs;

use proptest::prelude::{ProptestConfig, prop_assert_eq, proptest};

use self::language::Group;
use self::obvious::{Stack, normalize_logs, normalize_traces, run_logs, run_traces, with};
use self::programs::{contexts, group, test};
use super::*;
use crate::ottl::{Condition, ParseError, Statement};
use crate::pdata::testgen::{arb_logs, arb_traces, mutate, scramble};

fn compiled(groups: Vec<Group>, signal: Signal) -> (Vec<Group>, Rules) {
    let both = groups.into_iter().map(|group| group.compile(signal));
    let (groups, compiled): (Vec<_>, Vec<_>) = both.unzip();
    (groups, Rules::transform("naive", signal, compiled))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn programs_on_logs(
        request in arb_logs(),
        groups in proptest::collection::vec(group(Signal::Logs), 1..5),
        seed in proptest::num::u64::ANY,
    ) {
        let (groups, rules) = compiled(groups, Signal::Logs);
        let bytes = scramble(Signal::Logs, &request.encode_to_vec(), seed);
        let mut want = ExportLogsServiceRequest::decode(&bytes[..]).unwrap();
        run_logs(&groups, &mut want);
        let (out, applied) = apply(Signal::Logs, vec![rules], &bytes);
        prop_assert_eq!(applied.malformed, 0);
        let mut got = ExportLogsServiceRequest::decode(&out[..]).unwrap();
        normalize_logs(&mut got);
        normalize_logs(&mut want);
        prop_assert_eq!(got, want);
    }

    #[test]
    fn programs_on_traces(
        request in arb_traces(),
        groups in proptest::collection::vec(group(Signal::Traces), 1..5),
        seed in proptest::num::u64::ANY,
    ) {
        let (groups, rules) = compiled(groups, Signal::Traces);
        let bytes = scramble(Signal::Traces, &request.encode_to_vec(), seed);
        let mut want = ExportTraceServiceRequest::decode(&bytes[..]).unwrap();
        run_traces(&groups, &mut want);
        let (out, applied) = apply(Signal::Traces, vec![rules], &bytes);
        prop_assert_eq!(applied.malformed, 0);
        let mut got = ExportTraceServiceRequest::decode(&out[..]).unwrap();
        normalize_traces(&mut got);
        normalize_traces(&mut want);
        prop_assert_eq!(got, want);
    }

    #[test]
    fn conditions_drop_what_they_drop_in_decoded_logs(
        request in arb_logs(),
        condition in test(contexts(Signal::Logs)),
        keep in proptest::bool::ANY,
    ) {
        let parsed = ConditionGroup::parse(Some(Context::Log), &[condition.text()], Signal::Logs, ErrorMode::Silent);
        let Ok(parsed) = parsed else { return Ok(()) };
        let rules = Rules::filter("naive", Signal::Logs, vec![parsed], keep, None);
        let (out, _) = apply(Signal::Logs, vec![rules], &request.encode_to_vec());
        let got = ExportLogsServiceRequest::decode(&out[..]).unwrap();
        let records = |request: &ExportLogsServiceRequest| -> Vec<LogRecord> {
            let scopes = request.resource_logs.iter().flat_map(|r| &r.scope_logs);
            scopes.flat_map(|s| s.log_records.clone()).collect()
        };
        let mut want = request;
        for of_resource in &mut want.resource_logs {
            with(&mut of_resource.resource, |resource| {
                for of_scope in &mut of_resource.scope_logs {
                    with(&mut of_scope.scope, |scope| {
                        of_scope.log_records.retain_mut(|log| {
                            let mut stack: Stack<'_> =
                                vec![(Context::Resource, resource), (Context::Scope, scope), (Context::Log, log)];
                            (condition.eval(&mut stack) == Ok(true)) == keep
                        });
                    });
                }
            });
        }
        prop_assert_eq!(records(&got), records(&want));
    }

    #[test]
    fn any_bytes_are_safe(
        request in arb_traces(),
        groups in proptest::collection::vec(group(Signal::Traces), 1..4),
        seed in proptest::num::u64::ANY,
    ) {
        let (_, rules) = compiled(groups, Signal::Traces);
        let mut bytes = request.encode_to_vec();
        mutate(&mut bytes, seed);
        let (out, applied) = apply(Signal::Traces, vec![rules], &bytes);
        // What was readable still is, and nothing is lost.
        if let Ok(items) = crate::pdata::count(Signal::Traces, &bytes) {
            prop_assert_eq!(crate::pdata::count(Signal::Traces, &out), Ok(items));
        }
        prop_assert_eq!(applied.dropped, 0);
    }
}
