//! What goes where: against an obvious model, for every signal; and what senders and books say about it.

mod rig;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric::Data,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use proptest::prelude::*;
use prost::Message as _;
use smallvec::smallvec;

use super::*;
use crate::components::Kind;
use crate::config::{LoadOptions, Source, load};
use crate::pdata::{ClientInfo, Rope, Tenant};
use crate::pipeline::{Ledger, ack};
use crate::telemetry::Metrics;
use rig::*;

#[test]
fn by_attribute() {
    let all: Vec<u64> = (1..=8).collect();
    let got = |pairs: &[(&'static str, &[u64])]| -> BTreeMap<&'static str, Vec<u64>> {
        pairs.iter().map(|(id, numbers)| (*id, numbers.to_vec())).collect()
    };
    for (keys, expected, unrouted) in [
        (
            "table: [{attribute: resource.env, value: prod, pipelines: [@/a]}], default_pipelines: [@/rest]",
            got(&[("a", &[1, 2, 3]), ("rest", &[4, 5, 6, 7, 8])]),
            0,
        ),
        // Nothing and everything.
        (
            "table: [{attribute: resource.env, value: pro, pipelines: [@/a]}], default_pipelines: [@/rest]",
            got(&[("rest", &all)]),
            0,
        ),
        (
            "table: [{attribute: kind, regex: '', pipelines: [@/a]}, {statement: 'route()', pipelines: [@/b]}]",
            got(&[("a", &[1, 2, 4, 5, 7, 8]), ("b", &[3, 6])]),
            0,
        ),
        ("table: [{statement: 'route()', pipelines: [@/a, @/b]}]", got(&[("a", &all), ("b", &all)]), 0),
        // The first that fits, and nobody else.
        (
            "table: [{attribute: scope.level, value: 1, pipelines: [@/a]}, {attribute: resource.env, value: prod, \
             pipelines: [@/b]}, {attribute: kind, regex: ^x$, pipelines: [@/c]}]",
            got(&[("a", &[1, 2, 7]), ("b", &[3]), ("c", &[4, 8])]),
            2,
        ),
        // Anywhere in the text, and numbers as text.
        (
            "table: [{attribute: kind, regex: y, pipelines: [@/a]}, {attribute: scope.level, regex: '^[27]$', \
             pipelines: [@/b]}]",
            got(&[("a", &[2, 5, 7]), ("b", &[4, 6, 8])]),
            2,
        ),
        // A number is no string.
        (
            "table: [{attribute: scope.level, value: '1', pipelines: [@/a]}, {attribute: scope.level, value: 1.0, \
             pipelines: [@/b]}], default_pipelines: [@/rest]",
            got(&[("b", &[1, 2, 7]), ("rest", &[3, 4, 5, 6, 8])]),
            0,
        ),
        // A copy is there for the next, too; one that nobody moves has been somewhere all the same.
        (
            "table: [{attribute: resource.env, value: prod, pipelines: [@/a], action: copy}, {attribute: kind, \
             value: x, pipelines: [@/b]}], default_pipelines: [@/rest]",
            got(&[("a", &[1, 2, 3]), ("b", &[1, 4, 8]), ("rest", &[2, 3, 5, 6, 7])]),
            0,
        ),
        (
            "table: [{attribute: resource.env, value: prod, pipelines: [@/a], action: copy}, {attribute: kind, \
             value: x, pipelines: [@/b]}]",
            got(&[("a", &[1, 2, 3]), ("b", &[1, 4, 8])]),
            3,
        ),
        (
            "table: [{statement: 'route()', pipelines: [@/a], action: copy}, {attribute: kind, value: x, pipelines: \
             [@/b]}]",
            got(&[("a", &all), ("b", &[1, 4, 8])]),
            0,
        ),
    ] {
        for signal in Signal::ALL {
            let rig = sent(signal, keys);
            assert_eq!(rig.got(), expected, "{} {keys}", signal.name());
            assert_eq!(rig.count("tidegate_dropped_items"), unrouted, "{} {keys}", signal.name());
            assert_eq!(rig.count("tidegate_connector_forwarded_items"), 8 - unrouted);
        }
    }
}

#[test]
fn by_condition() {
    let got = |pairs: &[(&'static str, &[u64])]| -> BTreeMap<&'static str, Vec<u64>> {
        pairs.iter().map(|(id, numbers)| (*id, numbers.to_vec())).collect()
    };
    for (route, expected) in [
        // About resources unless it says otherwise.
        (
            "condition: 'attributes[\"env\"] == \"prod\"'",
            got(&[("a", &[1, 2, 3]), ("rest", &[4, 5, 6, 7, 8])]),
        ),
        (
            "condition: 'resource.attributes[\"env\"] != nil'",
            got(&[("a", &[1, 2, 3, 4, 5, 6]), ("rest", &[7, 8])]),
        ),
        (
            "statement: 'route() where attributes[\"env\"] == \"prod\" or attributes[\"env\"] == nil'",
            got(&[("a", &[1, 2, 3, 7, 8]), ("rest", &[4, 5, 6])]),
        ),
        ("condition: 'true'", got(&[("a", &[1, 2, 3, 4, 5, 6, 7, 8])])),
        ("condition: 'false'", got(&[("rest", &[1, 2, 3, 4, 5, 6, 7, 8])])),
        // About items, with what is above them.
        (
            "condition: 'IsMatch(%.attributes[\"kind\"], \"y\") and resource.attributes[\"env\"] != \"test\"'",
            got(&[("a", &[2, 7]), ("rest", &[1, 3, 4, 5, 6, 8])]),
        ),
        (
            "context: %, statement: 'route() where attributes[\"kind\"] == nil'",
            got(&[("a", &[3, 6]), ("rest", &[1, 2, 4, 5, 7, 8])]),
        ),
        // What fails is not taken: kind is missing, and no number can be made of the others.
        (
            "context: %, condition: 'Int(attributes[\"kind\"]) == 1 or scope.attributes[\"level\"] == 7'",
            got(&[("a", &[8]), ("rest", &[1, 2, 3, 4, 5, 6, 7])]),
        ),
        (
            "context: otelcol, condition: 'otelcol.client.metadata[\"x\"] == nil'",
            got(&[("a", &[1, 2, 3, 4, 5, 6, 7, 8])]),
        ),
    ] {
        for signal in Signal::ALL {
            let rig =
                sent(signal, &format!("table: [{{{route}, pipelines: [@/a]}}], default_pipelines: [@/rest]"));
            assert_eq!(rig.got(), expected, "{} {route}", signal.name());
        }
    }
    // Metrics with all their points.
    let route = "context: metric, condition: 'name == \"m\"'";
    let rig = sent(Signal::Metrics, &format!("table: [{{{route}, pipelines: [@/a]}}]"));
    assert_eq!(rig.got().keys().copied().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn a_condition_that_fails_refuses_the_request_if_it_is_told_to() {
    let keys = "error_mode: propagate, table: [{statement: 'route()', action: copy, pipelines: [logs/b]}, {context: log, \
                condition: 'Substring(attributes[\"kind\"], 5, 9) == \"a\"', pipelines: [logs/a]}], \
                default_pipelines: [logs/rest]";
    let rig = Rig::new(Signal::Logs, keys);
    let (share, mut verdict) = ack();
    rig.connector
        .consumer
        .consume(Batch { acks: share.into(), ..batch(Signal::Logs, encode(Signal::Logs, &tree()), 8) });
    let told = verdict.try_recv();
    assert!(
        matches!(&told, Ok(Verdict::Rejected { bad_data: true, reason }) if reason.contains("Substring")),
        "{told:?}"
    );
    assert_eq!(
        rig.got().keys().copied().collect::<Vec<_>>(),
        ["b"],
        "what was copied before is not taken back"
    );
    assert_eq!((rig.count("tidegate_connector_refused_items"), rig.gap()), (8, 0));
}

#[test]
fn whole_requests_are_handed_on_as_they_are() {
    let keys = "table: [{tenant: team-a, pipelines: [logs/a]}, {tenant: [team-b, team-c], action: copy, pipelines: \
                [logs/b]}, {context: request, condition: 'request[\"x-to\"] == \"c\"', pipelines: [logs/c]}], \
                default_pipelines: [logs/rest]";
    for (tenant, header, expected) in [
        (Some("team-a"), None, &["a"][..]),
        (Some("team-a"), Some("c"), &["a"]),
        (Some("team-b"), None, &["b", "rest"]),
        (Some("team-c"), Some("c"), &["b", "c"]),
        (Some("team-d"), None, &["rest"]),
        (None, Some("c"), &["c"]),
        (None, Some("d"), &["rest"]),
        (None, None, &["rest"]),
    ] {
        let rig = Rig::new(Signal::Logs, keys);
        let bytes = Bytes::from(encode(Signal::Logs, &tree()));
        let metadata = header.map(|h| ("x-to".to_owned(), smallvec![h.to_owned()])).into_iter().collect();
        rig.connector.consumer.consume(Batch {
            rope: Rope::from(bytes.clone()),
            tenant: tenant.map(Tenant::new),
            client: Arc::new(ClientInfo { metadata, ..ClientInfo::default() }),
            ..batch(Signal::Logs, Vec::new(), 8)
        });
        let got: Vec<&str> = rig.got().into_keys().collect();
        assert_eq!(got, expected, "{tenant:?} {header:?}");
        for pipeline in rig.pipelines.values() {
            for batch in pipeline.taken.lock().unwrap().iter() {
                let [piece] = batch.rope.pieces() else { panic!("a piece was cut") };
                assert_eq!(piece.as_ptr(), bytes.as_ptr(), "the bytes are shared");
                assert_eq!(batch.tenant.as_ref().map(Tenant::name), tenant);
            }
        }
        assert_eq!(rig.gap(), 0);
    }
}

#[test]
fn parts_share_the_acknowledgement() {
    let keys = "table: [{attribute: resource.env, value: prod, pipelines: [traces/a]}, {attribute: resource.env, \
                value: test, action: copy, pipelines: [traces/b, traces/c]}], default_pipelines: [traces/rest]";
    for full in PIPELINES.map(Some).into_iter().chain([None]) {
        let rig = Rig::new(Signal::Traces, keys);
        assert!(!rig.connector.consumer.holds_acks());
        if let Some(full) = full {
            rig.pipelines[full].full.store(true, Ordering::Relaxed);
            assert!(
                rig.connector.consumer.holds_acks(),
                "while one pipeline may refuse, whoever buffers has to wait"
            );
        }
        let (share, mut verdict) = ack();
        let batch = batch(Signal::Traces, encode(Signal::Traces, &tree()), 8);
        rig.connector.consumer.consume(Batch { acks: share.into(), ..batch });
        let expected = full.map_or(Verdict::Accepted, |_| Verdict::retry("full"));
        assert_eq!(verdict.try_recv(), Ok(expected), "{full:?}");
        assert_eq!(rig.got().len(), if full.is_some() { 3 } else { 4 }, "nobody is kept from their part");
    }
}

/// A request of two records, one with an attribute that is no message, and one that fits.
fn malformed() -> Vec<u8> {
    let good = encode(Signal::Logs, &vec![(Some("prod"), vec![(None, vec![Some("x"), Some("y")])])]);
    let mut broken = good.clone();
    // The key of the second record's attribute: its length reaches past its end.
    let at = memchr::memmem::rfind(&broken, b"kind").unwrap();
    broken[at - 1] = 0x7f;
    broken
}

#[test]
fn what_cannot_be_read_is_left_to_the_routes_behind() {
    let bad = || Verdict::Rejected { bad_data: true, reason: "1 messages are malformed".to_owned() };
    for (mode, fits, verdict, arrived) in [
        ("ignore", "x", Verdict::Accepted, [("a", 1), ("rest", 1)].as_slice()),
        ("silent", "x", Verdict::Accepted, &[("a", 1), ("rest", 1)]),
        ("silent", "z", Verdict::Accepted, &[("rest", 2)]),
        ("propagate", "x", bad(), &[]),
        ("propagate", "z", bad(), &[]),
    ] {
        let keys = format!(
            "error_mode: {mode}, table: [{{attribute: kind, value: {fits}, pipelines: [logs/a]}}], default_pipelines: \
             [logs/rest]"
        );
        let rig = Rig::new(Signal::Logs, &keys);
        let (share, mut told) = ack();
        rig.connector.consumer.consume(Batch { acks: share.into(), ..batch(Signal::Logs, malformed(), 2) });
        assert_eq!(told.try_recv(), Ok(verdict), "{mode} {fits}");
        let mut got = Vec::new();
        for (id, pipeline) in &rig.pipelines {
            for batch in pipeline.taken.lock().unwrap().iter() {
                assert_eq!(crate::pdata::count(Signal::Logs, &batch.rope.to_bytes()), Ok(batch.items));
                let broken = memchr::memmem::find(&batch.rope.to_bytes(), b"\x7fkind").is_some();
                assert_eq!(broken, *id == "rest", "{mode} {fits}: nothing else is where it is");
                got.push((*id, batch.items));
            }
        }
        assert_eq!(got, arrived, "{mode} {fits}");
        assert_eq!(rig.gap(), 0);
        let refused = if arrived.is_empty() { 2 } else { 0 };
        assert_eq!(rig.count("tidegate_connector_refused_items"), refused);
    }
    // Nobody would send it again.
    let keys = "error_mode: propagate, table: [{attribute: kind, value: x, pipelines: [logs/a]}]";
    let rig = Rig::new(Signal::Logs, keys);
    rig.connector.consumer.consume(batch(Signal::Logs, malformed(), 2));
    assert_eq!((rig.count("tidegate_dropped_items"), rig.gap()), (2, 0));
}

#[test]
fn a_table_serves_every_signal() {
    let config = RoutingConfig {
        table: vec![
            RouteConfig {
                tenant: vec!["a".to_owned()],
                pipelines: vec!["logs/a".to_owned(), " traces/a".to_owned()],
                ..RouteConfig::default()
            },
            RouteConfig {
                tenant: vec!["a".to_owned()],
                pipelines: vec!["metrics/a".to_owned()],
                ..RouteConfig::default()
            },
        ],
        ..RoutingConfig::default()
    };
    let cx = BuildContext { id: "routing".into(), metrics: Metrics::new(), ledger: Ledger::new(1 << 30) };
    for signal in Signal::ALL {
        let pipeline = Arc::<Pipeline>::default();
        let target = Target { pipeline: format!("{}/a", signal.name()), entry: pipeline.clone() };
        let connector = build(&config, signal, vec![target], &cx).unwrap();
        let tenant = Some(Tenant::new("a"));
        let request = batch(signal, encode(signal, &tree()), 8);
        connector.consumer.consume(Batch { tenant, ..request });
        assert_eq!(pipeline.taken.lock().unwrap().len(), 1);
    }
    let missing = build(&config, Signal::Logs, Vec::new(), &cx);
    assert_eq!(missing.err().as_deref(), Some("the pipeline \"logs/a\" does not have it as a receiver"));
}

/// One route of the model: its keys, what it takes, whether it copies, where it sends.
type ModelRoute = (String, fn(&Item) -> bool, bool, Vec<usize>);

fn arb_route() -> impl Strategy<Value = ModelRoute> {
    let tests: Vec<(&str, fn(&Item) -> bool)> = vec![
        ("attribute: resource.env, value: prod", |i| i.env == Some("prod")),
        ("attribute: resource.env, regex: 't$'", |i| i.env == Some("test")),
        ("attribute: scope.level, value: 1", |i| i.level == Some(1)),
        ("attribute: scope.level, regex: '[12]'", |i| matches!(i.level, Some(1 | 2))),
        ("attribute: kind, value: x", |i| i.kind == Some("x")),
        ("attribute: kind, regex: y", |i| matches!(i.kind, Some("y" | "xy"))),
        ("condition: 'attributes[\"env\"] == \"prod\" or attributes[\"env\"] == \"dev\"'", |i| {
            matches!(i.env, Some("prod" | "dev"))
        }),
        ("condition: 'scope.attributes[\"level\"] >= 2'", |i| i.level.is_some_and(|l| l >= 2)),
        ("context: %, condition: 'attributes[\"kind\"] == nil'", |i| i.kind.is_none()),
        ("condition: '%.attributes[\"kind\"] == \"x\" and scope.attributes[\"level\"] == 1'", |i| {
            i.kind == Some("x") && i.level == Some(1)
        }),
        ("tenant: none", |_| false),
        ("statement: 'route()'", |_| true),
    ];
    let pipelines = prop::sample::subsequence(vec![0, 1, 2, 3], 1..3);
    (prop::sample::select(tests), any::<bool>(), pipelines).prop_map(|((keys, takes), copy, pipelines)| {
        let names: Vec<String> = pipelines.iter().map(|p| format!("@/{}", PIPELINES[*p])).collect();
        let action = if copy { "copy" } else { "move" };
        let keys = format!("{{{keys}, action: {action}, pipelines: [{}]}}", names.join(", "));
        (keys, takes, copy, pipelines)
    })
}

fn arb_tree() -> impl Strategy<Value = Tree> {
    let one = |values: &[&'static str]| prop::option::of(prop::sample::select(values.to_vec()));
    let kinds = prop::collection::vec(one(&["x", "y", "xy", "z"]), 0..5);
    let scope = (prop::option::of(prop::sample::select(vec![1i64, 2, 3])), kinds);
    let resource = (one(&["prod", "test", "dev"]), prop::collection::vec(scope, 0..4));
    prop::collection::vec(resource, 0..4)
}

proptest! {
    #[test]
    fn routing_is_as_the_obvious_model_has_it(
        signal in crate::pdata::testgen::arb_signal(),
        routes in prop::collection::vec(arb_route(), 1..5),
        default in prop::option::of(0..4usize),
        tree in arb_tree(),
    ) {
        let table: Vec<&str> = routes.iter().map(|r| r.0.as_str()).collect();
        let rest = default.map(|p| format!(", default_pipelines: [@/{}]", PIPELINES[p])).unwrap_or_default();
        let rig = Rig::new(signal, &format!("table: [{}]{rest}", table.join(", ")));
        let all = items(&tree);
        let (share, mut verdict) = ack();
        let request = batch(signal, encode(signal, &tree), all.len());
        rig.connector.consumer.consume(Batch { acks: share.into(), ..request });

        let mut expected: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        let mut nowhere = 0;
        for item in &all {
            let (mut moved, mut copied) = (false, false);
            for (_, takes, copy, pipelines) in &routes {
                if moved || !takes(item) {
                    continue;
                }
                for p in pipelines {
                    expected.entry(PIPELINES[*p]).or_default().push(item.number);
                }
                copied |= copy;
                moved |= !copy;
            }
            match default {
                Some(p) if !moved => expected.entry(PIPELINES[p]).or_default().push(item.number),
                None if !moved && !copied => nowhere += 1,
                _ => {}
            }
        }
        expected.values_mut().for_each(|numbers| numbers.sort_unstable());
        // A request without items is nobody's, and goes where all would have gone.
        if !all.is_empty() {
            prop_assert_eq!(rig.got(), expected);
        }
        prop_assert_eq!(rig.count("tidegate_dropped_items"), nowhere);
        prop_assert_eq!(rig.count("tidegate_connector_forwarded_items"), all.len() as u64 - nowhere);
        prop_assert_eq!(rig.gap(), 0);
        prop_assert_eq!(verdict.try_recv(), Ok(Verdict::Accepted));
    }

    #[test]
    fn any_bytes_are_accounted_for(
        (signal, mut bytes) in crate::pdata::testgen::arb_request(),
        seed in any::<u64>(),
        wrong in any::<bool>(),
        mode in prop::sample::select(vec!["silent", "propagate"]),
    ) {
        if wrong {
            crate::pdata::testgen::mutate(&mut bytes, seed);
        }
        let Ok(items) = crate::pdata::count(signal, &bytes) else { return Ok(()) };
        let rig = Rig::new(
            signal,
            &format!(
                "error_mode: {mode}, table: [{{attribute: resource.a, regex: '', pipelines: [@/a]}}, {{attribute: a, \
                 regex: '', pipelines: [@/b]}}]"
            ),
        );
        let (share, mut verdict) = ack();
        rig.connector.consumer.consume(Batch { acks: share.into(), ..batch(signal, bytes, items) });
        let told = verdict.try_recv();
        let answered = matches!(told, Ok(Verdict::Accepted | Verdict::Rejected { bad_data: true, .. }));
        prop_assert!(answered, "{told:?}");
        prop_assert_eq!(rig.gap(), 0);
        let taken: usize = rig
            .pipelines
            .values()
            .flat_map(|p| p.taken.lock().unwrap().iter().map(|b| b.items).collect::<Vec<_>>())
            .sum();
        prop_assert_eq!(taken as u64, rig.count("tidegate_connector_forwarded_items"));
    }
}
