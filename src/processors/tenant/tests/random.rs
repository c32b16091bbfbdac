//! Random requests: every item comes out under the tenant that the decoded structs give it, or is accounted for.

use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogramDataPoint, HistogramDataPoint, SummaryDataPoint,
};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use proptest::prelude::*;

use super::*;
use crate::pdata::oracle::{Row, rows};
use crate::pdata::testgen::{arb_request, scramble};

/// The attributes of resource, scope and item.
fn levels(signal: Signal, [group, scope, metric, item]: &Row) -> [Vec<KeyValue>; 3] {
    let (resource, scope) = match signal {
        Signal::Traces => {
            (ResourceSpans::decode(&**group).unwrap().resource, ScopeSpans::decode(&**scope).unwrap().scope)
        }
        Signal::Logs => {
            (ResourceLogs::decode(&**group).unwrap().resource, ScopeLogs::decode(&**scope).unwrap().scope)
        }
        Signal::Metrics => (
            ResourceMetrics::decode(&**group).unwrap().resource,
            ScopeMetrics::decode(&**scope).unwrap().scope,
        ),
    };
    let own = match signal {
        Signal::Traces => Span::decode(&**item).unwrap().attributes,
        Signal::Logs => LogRecord::decode(&**item).unwrap().attributes,
        Signal::Metrics => match Metric::decode(&**metric).unwrap().data {
            Some(metric::Data::Histogram(_)) => HistogramDataPoint::decode(&**item).unwrap().attributes,
            Some(metric::Data::ExponentialHistogram(_)) => {
                ExponentialHistogramDataPoint::decode(&**item).unwrap().attributes
            }
            Some(metric::Data::Summary(_)) => SummaryDataPoint::decode(&**item).unwrap().attributes,
            _ => NumberDataPoint::decode(&**item).unwrap().attributes,
        },
    };
    [resource.unwrap_or_default().attributes, scope.unwrap_or_default().attributes, own]
}

fn find(attributes: &[KeyValue], key: &str) -> Option<String> {
    let text = match attributes.iter().find(|a| a.key == key)?.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => text.clone(),
        any_value::Value::IntValue(number) => number.to_string(),
        any_value::Value::BoolValue(yes) => yes.to_string(),
        _ => return None,
    };
    names::check(&text).is_ok().then_some(text)
}

/// Who an item belongs to: sources are a level and a key each.
fn owner(signal: Signal, row: &Row, sources: &[(usize, &str)]) -> String {
    let levels = levels(signal, row);
    sources.iter().find_map(|(level, key)| find(&levels[*level], key)).unwrap_or_else(|| "shared".to_owned())
}

/// Items that are not all defaults, which are told from envelopes that hold none.
fn items(signal: Signal, request: &[u8]) -> impl Iterator<Item = Row> {
    rows(signal, request).into_iter().filter(|row| !row[3].is_empty())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_item_comes_out_under_its_tenant(
        (signal, request) in arb_request(),
        seed: u64,
        scrambled: bool,
        chosen in proptest::collection::vec((0usize..3, prop_oneof![Just("a"), Just("b"), Just("c")]), 1..4),
    ) {
        let request = if scrambled { scramble(signal, &request, seed) } else { request };
        let prefix = |level: usize| ["resource.", "scope.", ""][level];
        let from: Vec<_> = chosen.iter().map(|(level, key)| json!({"attribute": format!("{}{key}", prefix(*level))})).collect();
        let rig = Rig::with_signal(json!({"from": from, "unresolved": {"use": "shared"}}), signal);
        let mut want: BTreeMap<String, Vec<Row>> = BTreeMap::new();
        for row in items(signal, &request) {
            want.entry(owner(signal, &row, &chosen)).or_default().push(row);
        }
        let answer = rig.send(request, nobody());
        prop_assert_eq!(answer.gone, Gone::default());
        let mut got: BTreeMap<String, Vec<Row>> = BTreeMap::new();
        for batch in &answer.out {
            let name = batch.tenant.as_ref().unwrap().name().to_owned();
            prop_assert_eq!(crate::pdata::count(signal, &batch.rope.to_bytes()), Ok(batch.items));
            let of = items(signal, &batch.rope.to_bytes()).collect::<Vec<_>>();
            if !of.is_empty() {
                prop_assert!(got.insert(name, of).is_none(), "one batch for each tenant");
            }
        }
        prop_assert_eq!(got, want);
    }

    #[test]
    fn everything_is_counted_once(
        requests in proptest::collection::vec((proptest::collection::vec(("[a-d]{0,1}", 1usize..20), 1..4), any::<bool>()), 1..30),
        unresolved in prop_oneof![Just(json!("drop")), Just(json!("refuse")), Just(json!({"use": "a"}))],
        overflow in prop_oneof![Just(json!("drop")), Just(json!("refuse")), Just(json!({"use": "o"}))],
    ) {
        let limits = json!({
            "default": {"items_per_second": 50, "active_streams": 2},
            "overrides": {"b": {"on_limit": "drop"}, "c": {"on_limit": "demote"}},
        });
        let mut rig = Rig::new(by_resource(json!({
            "unresolved": unresolved, "overflow": overflow, "max_tenants": 1, "limits": limits,
        })));
        let (mut received, mut passed, mut gone) = (0, 0, Gone::default());
        for (parts, settled) in requests {
            let request: Vec<u8> = parts.iter().flat_map(|(name, n)| logs_of(name, *n)).collect();
            received += parts.iter().map(|(_, n)| n).sum::<usize>();
            let answer = rig.send_with(request, nobody(), settled);
            prop_assert!(!settled || answer.gone.refused == 0, "what was acknowledged is not refused");
            prop_assert!(answer.gone.refused == 0 || answer.out.is_empty(), "refused as a whole");
            prop_assert_eq!(answer.gone.refused > 0, answer.verdict != Some(Verdict::Accepted));
            passed += answer.out.iter().map(|b| b.items).sum::<usize>();
            gone.refused += answer.gone.refused;
            gone.dropped += answer.gone.dropped;
            rig.pass(Duration::from_millis(100));
        }
        let outcome = |wanted: &str| -> u64 {
            let family = rig.metrics.gather().into_iter().find(|f| f.name() == "tidegate_tenant_items");
            let all = family.iter().flat_map(|f| f.get_metric());
            let of = all.filter(|m| m.get_label().iter().any(|l| l.name() == "outcome" && l.value() == wanted));
            of.map(|m| m.get_counter().get_value() as u64).sum()
        };
        prop_assert_eq!(outcome("accepted") + outcome("demoted"), passed as u64);
        prop_assert_eq!(outcome("refused"), gone.refused as u64);
        prop_assert_eq!(outcome("dropped"), gone.dropped as u64);
        let [all, dropped] = rig.metrics.sums(["tidegate_tenant_items", "tidegate_dropped_items"]);
        prop_assert_eq!(all, received as u64);
        prop_assert_eq!(dropped, gone.dropped as u64);
    }
}
