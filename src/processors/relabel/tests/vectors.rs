//! The vectors of relabelling through the processor: at each level, across levels, for each signal.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;

use super::tree;
use super::*;
use crate::relabel::Action::{
    Drop, DropEqual, HashMod, Keep, KeepEqual, LabelDrop, LabelKeep, LabelMap, Lowercase, Replace, Uppercase,
};

type Pairs = &'static [(&'static str, &'static str)];

struct Vector {
    name: &'static str,
    labels: Pairs,
    rules: Vec<RelabelConfig>,
    /// All labels after it; `None` if they are dropped.
    want: Option<Pairs>,
}

fn vector(name: &'static str, labels: Pairs, rules: Vec<RelabelConfig>, want: Option<Pairs>) -> Vector {
    Vector { name, labels, rules, want }
}

fn replace(sources: &[&str], regex: &str, target: &str, replacement: &str) -> RelabelConfig {
    rule(Replace, sources, regex, target, replacement)
}

fn of(action: Action, sources: &[&str], regex: &str, target: &str) -> RelabelConfig {
    rule(action, sources, regex, target, "$1")
}

fn hashmod(sources: &[&str], modulus: u64, target: &str) -> RelabelConfig {
    RelabelConfig { modulus, ..of(HashMod, sources, "(.*)", target) }
}

const FOO: Pairs = &[("a", "foo")];
const THREE: Pairs = &[("a", "foo"), ("b1", "bar"), ("b2", "baz")];
const NAMED: Pairs = &[("a", "some-name-value")];
const SOME: &str = "some-([^-]+)-([^,]+)";
const TAGS: &str = "path:/secret,job:some-job,label:foo=bar";
const PORTS: Pairs = &[("__myport", "1234"), ("__port1", "1234"), ("__port2", "5678")];
const MIXED: Pairs = &[("foo", "bAr123Foo")];

#[rustfmt::skip]
fn vectors() -> Vec<Vector> {
    vec![
        vector("Q1", FOO, vec![replace(&["a"], "f(.*)", "d", "ch${1}-ch${1}")], Some(&[("a", "foo"), ("d", "choo-choo")])),
        vector("Q2", &[("a", "foo"), ("b", "bar"), ("c", "baz")], vec![
            replace(&["a", "b"], "f(.*);(.*)r", "a", "b${1}${2}m"),
            replace(&["c", "a"], "(b).*b(.*)ba(.*)", "d", "$1$2$2$3"),
        ], Some(&[("a", "boobam"), ("b", "bar"), ("c", "baz"), ("d", "boooom")])),
        vector("Q3", FOO, vec![of(Drop, &["a"], ".*o.*", "")], None),
        vector("Q4", FOO, vec![of(Drop, &["a"], "f|o", "")], Some(FOO)),
        vector("Q5", FOO, vec![of(Keep, &["a"], "no-match", "")], None),
        vector("Q6", &[("a", "boo")], vec![replace(&["a"], "f", "b", "bar")], Some(&[("a", "boo")])),
        vector("Q7", &[("a", "foo"), ("f", "baz")], vec![replace(&["a"], "(f).*", "$1", "$2")], Some(FOO)),
        vector("Q8", &[("c", "baz")], vec![hashmod(&["c"], 1000, "d")], Some(&[("c", "baz"), ("d", "976")])),
        vector("Q9", &[("a", "foo\nbar")], vec![hashmod(&["a"], 1000, "b")], Some(&[("a", "foo\nbar"), ("b", "734")])),
        vector("Q10", FOO, vec![hashmod(&["x"], 10, "d")], Some(&[("a", "foo"), ("d", "8")])),
        vector("Q11", &[("a", "10.0.0.1:9100")], vec![hashmod(&["a"], 4, "d")], Some(&[("a", "10.0.0.1:9100"), ("d", "1")])),
        vector("Q12", &[("a", "host-a"), ("b", "job-b")], vec![hashmod(&["a", "b"], 16, "d")],
            Some(&[("a", "host-a"), ("b", "job-b"), ("d", "12")])),
        vector("Q13", THREE, vec![rule(LabelMap, &[], "(b.*)", "", "bar_${1}")],
            Some(&[("a", "foo"), ("b1", "bar"), ("b2", "baz"), ("bar_b1", "bar"), ("bar_b2", "baz")])),
        vector("Q14", &[("__meta_my_bar", "aaa"), ("__meta_other", "ccc")],
            vec![rule(LabelMap, &[], "__meta_(my.*)", "", "${1}")],
            Some(&[("__meta_my_bar", "aaa"), ("__meta_other", "ccc"), ("my_bar", "aaa")])),
        vector("Q15", NAMED, vec![replace(&["a"], SOME, "${1}", "${2}")], Some(&[("a", "some-name-value"), ("name", "value")])),
        vector("Q16", NAMED, vec![replace(&["a"], SOME, "${1}", "${3}")], Some(NAMED)),
        vector("Q17", &[("a", "some-name-0")], vec![replace(&["a"], SOME, "${3}", "${1}")], Some(&[("a", "some-name-0")])),
        vector("Q18", &[("__meta_sd_tags", TAGS)], vec![
            replace(&["__meta_sd_tags"], "(?:.+,|^)path:(/[^,]+).*", "__metrics_path__", "$1"),
            replace(&["__meta_sd_tags"], "(?:.+,|^)job:([^,]+).*", "job", "$1"),
            replace(&["__meta_sd_tags"], "(?:.+,|^)label:([^=]+)=([^,]+).*", "${1}", "${2}"),
        ], Some(&[("__meta_sd_tags", TAGS), ("__metrics_path__", "/secret"), ("foo", "bar"), ("job", "some-job")])),
        vector("Q19 keep", THREE, vec![of(LabelKeep, &[], "(b.*)", "")], Some(&[("b1", "bar"), ("b2", "baz")])),
        vector("Q19 drop", THREE, vec![of(LabelDrop, &[], "(b.*)", "")], Some(FOO)),
        vector("Q20 upper", MIXED, vec![of(Uppercase, &["foo"], "(.*)", "up")], Some(&[("foo", "bAr123Foo"), ("up", "BAR123FOO")])),
        vector("Q20 lower", MIXED, vec![of(Lowercase, &["foo"], "(.*)", "foo")], Some(&[("foo", "bar123foo")])),
        vector("Q21 kept", PORTS, vec![of(KeepEqual, &["__myport"], "(.*)", "__port1")], Some(PORTS)),
        vector("Q21 dropped", PORTS, vec![of(KeepEqual, &["__myport"], "(.*)", "__port2")], None),
        vector("Q22 dropped", PORTS, vec![of(DropEqual, &["__myport"], "(.*)", "__port1")], None),
        vector("Q22 kept", PORTS, vec![of(DropEqual, &["__myport"], "(.*)", "__port2")], Some(PORTS)),
        vector("Q23", &[("a", "line1\nline2")], vec![replace(&["a"], "line1.*line2", "d", "match${1}")],
            Some(&[("a", "line1\nline2"), ("d", "match")])),
        vector("Q24", FOO, vec![replace(&["a"], "(.*)", "b", "$1")], Some(&[("a", "foo"), ("b", "foo")])),
        vector("Q25", &[("b", "x")], vec![replace(&["a"], "(.*)", "b", "$1")], Some(&[])),
        vector("Q26", &[("b", "x")], vec![replace(&["a"], "(.*)", "b", "fixed")], Some(&[("b", "fixed")])),
        vector("Q27", FOO, vec![replace(&["a"], "f(.*)", "d", "$1x")], Some(FOO)),
        vector("Q28", &[], vec![of(Drop, &["x"], "", "")], None),
        // In Prometheus `__tmp` labels are labels; here they are for later rules only.
        vector("scratch", FOO, vec![
            replace(&["a"], "f(.*)", "__tmp_x", "$1"),
            replace(&["a"], "nothing", "__tmp_x", "never"),
            replace(&["__tmp_x", "__tmp_y"], "(.*);", "d", "$1"),
        ], Some(&[("a", "foo"), ("d", "oo")])),
    ]
}

/// Attributes of a resource, scope and item.
type Three = [Vec<KeyValue>; 3];

fn attributes(pairs: Pairs) -> Vec<KeyValue> {
    pairs.iter().map(|(key, value)| attribute(key, string(value))).collect()
}

fn request(signal: Signal, [resource, scope, item]: Three) -> Vec<u8> {
    let resource = Some(Resource { attributes: resource, ..Default::default() });
    let scope = Some(InstrumentationScope { attributes: scope, ..Default::default() });
    let schema_url = String::new();
    match signal {
        Signal::Traces => {
            let span = Span { name: "GET /".into(), kind: 2, attributes: item, ..Default::default() };
            let scope_spans = vec![ScopeSpans { scope, spans: vec![span], schema_url: String::new() }];
            let resource_spans = vec![ResourceSpans { resource, scope_spans, schema_url }];
            ExportTraceServiceRequest { resource_spans }.encode_to_vec()
        }
        Signal::Metrics => {
            let data_points = vec![NumberDataPoint { attributes: item, ..Default::default() }];
            let data = Some(Data::Gauge(Gauge { data_points }));
            let metrics = vec![Metric { name: "up".into(), data, ..Default::default() }];
            let scope_metrics = vec![ScopeMetrics { scope, metrics, schema_url: String::new() }];
            let resource_metrics = vec![ResourceMetrics { resource, scope_metrics, schema_url }];
            ExportMetricsServiceRequest { resource_metrics }.encode_to_vec()
        }
        Signal::Logs => {
            let log_records = vec![LogRecord {
                severity_number: 18,
                event_name: "login".into(),
                attributes: item,
                ..Default::default()
            }];
            let scope_logs = vec![ScopeLogs { scope, log_records, schema_url: String::new() }];
            let resource_logs = vec![ResourceLogs { resource, scope_logs, schema_url }];
            ExportLogsServiceRequest { resource_logs }.encode_to_vec()
        }
    }
}

/// The attributes after some rules, sorted; `None` if nothing is left.
fn after(signal: Signal, three: Three, rules: &[RelabelConfig]) -> Option<[Vec<(String, String)>; 3]> {
    let (bytes, applied) = relabelled(rules, signal, &request(signal, three));
    assert_eq!(applied.malformed, 0);
    let mut node = tree::read(signal, &bytes).pop();
    assert_eq!(applied.dropped, usize::from(node.is_none()));
    let mut found = [const { Vec::new() }; 3];
    node.as_ref()?;
    while let Some(mut inner) = node.take() {
        let at = match inner.level {
            Level::Resource => 0,
            Level::Scope => 1,
            Level::Metric => {
                node = inner.children.pop();
                continue;
            }
            _ => 2,
        };
        let pairs = inner.attrs.into_iter().map(|pair| match pair.value.unwrap().value.unwrap() {
            any_value::Value::StringValue(text) => (pair.key, text),
            other => (pair.key, format!("{other:?}")),
        });
        found[at] = pairs.collect();
        found[at].sort();
        node = inner.children.pop();
    }
    Some(found)
}

fn owned(pairs: Pairs) -> Vec<(String, String)> {
    let mut all: Vec<_> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    all.sort();
    all
}

/// The rule with all labels at one level.
fn at(prefix: &str, rule: &RelabelConfig) -> RelabelConfig {
    let mut rule = rule.clone();
    let place = |name: &mut String| {
        if !name.is_empty() && !name.starts_with("__tmp") {
            name.insert_str(0, prefix);
        }
    };
    rule.source_labels.iter_mut().for_each(place);
    place(&mut rule.target_label);
    if matches!(rule.action, LabelMap | LabelDrop | LabelKeep) && !prefix.is_empty() {
        rule.regex.insert_str(0, &prefix.replace('.', "\\."));
    }
    rule
}

#[test]
fn vectors_hold_at_each_level() {
    for signal in Signal::ALL {
        for (level, prefix) in ["resource.", "scope.", ""].into_iter().enumerate() {
            for Vector { name, labels, rules, want } in vectors() {
                let rules: Vec<_> = rules.iter().map(|rule| at(prefix, rule)).collect();
                let bystander: Pairs = &[("a", "bystander"), ("b1", "bystander"), ("q", "bystander")];
                let mut three = [const { Vec::new() }; 3].map(|_: Vec<KeyValue>| attributes(bystander));
                three[level] = attributes(labels);
                let got = after(signal, three, &rules);
                let want = want.map(|want| {
                    let mut all = [bystander; 3].map(owned);
                    all[level] = owned(want);
                    all
                });
                // Other levels' labels are read where the level itself has none, which the vectors with a missing
                // label do not know of.
                if prefix.is_empty() && ["Q10", "Q25", "Q26", "Q28"].contains(&name) {
                    continue;
                }
                assert_eq!(got, want, "{name} at {prefix:?} of {}", signal.name());
            }
        }
    }
}

/// Labels on the resource or scope, read by their plain names; what is set is the item's own.
#[test]
fn vectors_hold_across_levels() {
    for signal in Signal::ALL {
        for level in [0, 1] {
            for Vector { name, labels, rules, want } in vectors() {
                let about_names =
                    |rule: &RelabelConfig| matches!(rule.action, LabelMap | LabelDrop | LabelKeep);
                // A label that is deleted is the item's, and above it is still there.
                let deletes =
                    want.is_some_and(|want| labels.iter().any(|(key, _)| want.iter().all(|(k, _)| k != key)));
                if rules.iter().any(about_names) || deletes {
                    continue;
                }
                let mut three = [const { Vec::new() }; 3];
                three[level] = attributes(labels);
                let got = after(signal, three, &rules);
                let want = want.map(|want| {
                    let mut all = [const { Vec::new() }; 3];
                    all[level] = owned(labels);
                    let mut new = owned(want);
                    new.retain(|pair| !all[level].contains(pair));
                    all[2] = new;
                    all
                });
                assert_eq!(got, want, "{name} with labels at {level} of {}", signal.name());
            }
        }
    }
}

/// Rules of several levels in a row, each sees what those before it left.
#[test]
fn levels_are_seen_in_the_order_of_rules() {
    let rules = [
        replace(&["resource.a"], "(.*)", "first", "$1"),
        replace(&["resource.a"], "(.*)", "resource.a", "$1!"),
        replace(&["resource.a", "scope.a"], "(.*)", "scope.b", "$1"),
        replace(&["a"], "(.*)", "second", "$1"),
        rule(LabelMap, &[], "resource\\.(a)", "", "resource.${1}b"),
        replace(&["resource.ab", "scope.b"], "(.*)", "third", "$1"),
        of(LabelDrop, &[], "resource.a", ""),
        replace(&["resource.a", "resource.ab"], "(.*)", "fourth", "$1"),
        replace(&["scope.b"], "(.*)", "scope.b", ""),
        replace(&["__tenant__", "b"], "(.*)", "fifth", "$1"),
    ];
    for signal in Signal::ALL {
        let three = [attributes(&[("a", "r")]), attributes(&[("a", "s")]), attributes(&[])];
        let got = after(signal, three, &rules).unwrap();
        assert_eq!(got[0], owned(&[("ab", "r!")]));
        assert_eq!(got[1], owned(&[("a", "s")]));
        let want: Pairs =
            &[("first", "r"), ("second", "s"), ("third", "r!;r!;s"), ("fourth", ";r!"), ("fifth", "team;")];
        assert_eq!(got[2], owned(want));
    }
}

#[test]
fn empty_is_present_but_a_result_that_is_empty_is_none() {
    let rules = [replace(&["x"], "(.*)", "saw", "<$1>"), replace(&["none"], "(.*)", "y", "$1")];
    let three = [attributes(&[("x", "r")]), attributes(&[]), attributes(&[("x", ""), ("y", "")])];
    let got = after(Signal::Traces, three, &rules).unwrap();
    assert_eq!(got[2], owned(&[("saw", "<>"), ("x", "")]));
}

#[test]
fn values_are_text_and_results_are_strings() {
    use any_value::Value::{BoolValue, BytesValue, DoubleValue, IntValue};
    let values = [IntValue(7), BoolValue(true), DoubleValue(0.5), BytesValue(vec![1, 2])];
    let keys = ["i", "t", "d", "b"];
    let item = keys.iter().zip(values).map(|(key, value)| attribute(key, AnyValue { value: Some(value) }));
    let three = [Vec::new(), Vec::new(), item.collect()];
    let rules = [
        replace(&keys, "(.*)", "all", "$1"),
        replace(&["i"], "(.*)", "copy", "$1"),
        // The text is the same: it stays a number.
        of(Lowercase, &["i"], "(.*)", "i"),
        replace(&["t"], "(.*)", "t", "$1!"),
    ];
    let got = after(Signal::Logs, three, &rules).unwrap();
    let want: Pairs = &[
        ("all", "7;true;0.5;AQI="),
        ("b", "BytesValue([1, 2])"),
        ("copy", "7"),
        ("d", "DoubleValue(0.5)"),
        ("i", "IntValue(7)"),
        ("t", "true!"),
    ];
    assert_eq!(got[2], owned(want));
}

#[test]
fn names_kinds_severities_and_tenants_are_labels() {
    let table = [
        (Signal::Traces, "GET /", "server", ""),
        (Signal::Metrics, "up", "gauge", ""),
        (Signal::Logs, "login", "", "ERROR2"),
    ];
    for (signal, name, kind, severity) in table {
        let rules = [replace(&["__name__", "__kind__", "__severity__", "__tenant__"], "(.*)", "x", "$1")];
        let got = after(signal, Default::default(), &rules).unwrap();
        assert_eq!(got[2], [("x".to_owned(), format!("{name};{kind};{severity};team"))]);
        // Rules see the name as earlier ones left it.
        let rules = [
            replace(&["resource.q", "__name__"], "(.*)", "__name__", "n$1"),
            replace(&["__name__"], "n(.*)", "x", "$1"),
            of(Drop, &["__name__"], "gone", ""),
        ];
        let bytes = request(signal, Default::default());
        let (bytes, _) = relabelled(&rules, signal, &bytes);
        let mut node = tree::read(signal, &bytes).remove(0);
        while node.name.is_empty() {
            node = node.children.remove(0);
        }
        assert_eq!(node.name, format!("n;{name}"));
        let (_, applied) = relabelled(&[of(Drop, &["__name__"], name, "")], signal, &bytes);
        assert_eq!(applied.dropped, 0);
        let (_, applied) = relabelled(&[of(Drop, &["__name__"], ".*", "")], signal, &bytes);
        assert_eq!(applied.dropped, 1);
    }
}

#[test]
fn rules_about_resources_never_look_at_items() {
    let rules = [
        replace(&["resource.a", "__tenant__"], "(.*)", "resource.b", "$1"),
        replace(&["resource.b"], "(.*)", "__tmp_x", "$1"),
        replace(&["__tmp_x"], "(.*)", "resource.c", "$1"),
        of(Drop, &["resource.c"], "no", ""),
        of(LabelDrop, &[], "resource.a", ""),
    ];
    for signal in Signal::ALL {
        let compiled = Rules::new(&rules, signal).unwrap();
        assert_eq!(compiled.levels(), Level::Resource.into());
    }
    let item = Rules::new(&[replace(&["resource.a"], "(.*)", "b", "$1")], Signal::Traces).unwrap();
    assert_eq!(item.levels(), Levels::RESOURCE.and(Levels::ITEM).and(Levels::NONE));
    let metric = [of(Drop, &["__name__", "resource.a"], "x", "")];
    assert_eq!(Rules::new(&metric, Signal::Metrics).unwrap().levels(), Levels::RESOURCE.and(Levels::METRIC));
}

#[test]
fn text_that_is_no_utf8_passes_through() {
    // A span of which the attribute "a" is a byte that is no text.
    let span: &[u8] = b"\x4a\x08\x0a\x01a\x12\x03\x0a\x01\xff";
    let scope = [&[0x12, span.len() as u8][..], span].concat();
    let group = [&[0x12, scope.len() as u8][..], &scope].concat();
    let bytes = [&[0x0a, group.len() as u8][..], &group].concat();
    let rules = [
        replace(&["a"], "(.)", "b", "<$1>"),
        of(Uppercase, &["b"], "(.*)", "c"),
        of(Keep, &["a"], "[^x]", ""),
        hashmod(&["a"], 10, "d"),
    ];
    let (out, applied) = relabelled(&rules, Signal::Traces, &bytes);
    assert_eq!((applied.malformed, applied.dropped), (0, 0));
    for piece in [&b"b\x12\x05\x0a\x03<\xff>"[..], b"c\x12\x05\x0a\x03<\xff>", b"a\x12\x03\x0a\x01\xff"] {
        assert!(out.windows(piece.len()).any(|window| window == piece), "{out:?}");
    }
}

#[test]
fn what_is_dropped_is_counted() {
    let context = context();
    let rules = vec![LabelRule(of(Drop, &["a"], "foo", ""))];
    let Ok(Stage::Edit(edit)) = build(&RelabelProcessorConfig { rules }, Signal::Logs, &context) else {
        panic!()
    };
    let mut batch = batch(Signal::Logs, &request(Signal::Logs, [Vec::new(), Vec::new(), attributes(FOO)]));
    let _ = Program::new(Signal::Logs, vec![edit]).apply(&mut batch);
    assert_eq!(batch.items, 0);
    let families = context.metrics.gather();
    let family = families.iter().find(|family| family.name() == "tidegate_dropped_items").unwrap();
    let [series] = family.get_metric() else { panic!("{family:?}") };
    let labels: Vec<&str> = series.get_label().iter().map(|label| label.value()).collect();
    assert_eq!(
        (series.get_counter().get_value(), labels.as_slice()),
        (1.0, &["relabel", "logs", "relabel"][..])
    );
}
