//! The slow, obvious version: rule after rule over a tree of decoded messages, with the rules of plain label sets.

use opentelemetry_proto::tonic::common::v1::KeyValue;
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message;
use std::collections::BTreeMap;

use super::tree::{self, Node};
use super::*;
use crate::pdata::testgen::{arb_logs, arb_metrics, arb_traces, mutate, scramble};
use crate::prometheus::text::value_text;
use crate::relabel::{Labels, Names, Rule, apply};

/// A label's name as it is written, with what stands before it taken off.
fn split(name: &str) -> (Level, &str) {
    match name {
        _ if name.starts_with("resource.") => (Level::Resource, &name[9..]),
        _ if name.starts_with("scope.") => (Level::Scope, &name[6..]),
        _ => (Level::Item, name),
    }
}

struct Naive {
    signal: Signal,
    /// The lowest level at which each scratch label was set.
    scratch: BTreeMap<String, Level>,
}

impl Naive {
    fn level(&self, name: &str) -> Level {
        match name {
            "__tenant__" => Level::Resource,
            "__name__" | "__kind__" if self.signal == Signal::Metrics => Level::Metric,
            _ if name.starts_with("__tmp") => self.scratch.get(name).copied().unwrap_or(Level::Resource),
            _ => split(name).0,
        }
    }

    fn rule_level(&mut self, rule: &RelabelConfig) -> Level {
        use Action::*;
        if matches!(rule.action, LabelMap | LabelDrop | LabelKeep) {
            return match () {
                () if rule.regex.starts_with("resource.") || rule.regex.starts_with("resource\\.") => {
                    Level::Resource
                }
                () if rule.regex.starts_with("scope.") || rule.regex.starts_with("scope\\.") => Level::Scope,
                () => Level::Item,
            };
        }
        let about = Some(&rule.target_label).filter(|_| !matches!(rule.action, Keep | Drop));
        let level = rule.source_labels.iter().chain(about).map(|name| self.level(name)).max();
        let level = level.unwrap_or(Level::Resource);
        let sets = !matches!(rule.action, Keep | Drop | KeepEqual | DropEqual);
        if sets && rule.target_label.starts_with("__tmp") {
            self.scratch.insert(rule.target_label.clone(), level);
        }
        level
    }

    /// Runs a rule at every node of its level.
    fn run(&self, rule: &RelabelConfig, level: Level, above: &mut Vec<Node>, nodes: &mut Vec<Node>) {
        nodes.retain_mut(|node| {
            if node.level == level {
                return self.one(rule, above, node);
            }
            let children = std::mem::take(&mut node.children);
            above.push(node.clone());
            node.children = children;
            self.run(rule, level, above, &mut node.children);
            above.pop();
            true
        });
    }

    fn value(&self, name: &str, above: &[Node], node: &Node) -> String {
        let mut path = std::iter::once(node).chain(above.iter().rev());
        let first = |text: fn(&Node) -> &str| {
            let mut path = std::iter::once(node).chain(above.iter().rev());
            path.find(|n| !text(n).is_empty()).map(|n| text(n).to_owned()).unwrap_or_default()
        };
        match name {
            "__tenant__" => "team".to_owned(),
            "__name__" => first(|n| &n.name),
            "__kind__" => first(|n| &n.kind),
            "__severity__" => first(|n| &n.severity),
            _ if name.starts_with("__tmp") => {
                path.find_map(|n| n.scratch.get(name).cloned()).unwrap_or_default()
            }
            _ => {
                let (level, key) = split(name);
                let seen = |n: &&Node| n.level == level || level == Level::Item;
                path.filter(seen).find_map(|n| text(&n.attrs, key)).unwrap_or_default()
            }
        }
    }

    /// Runs a rule at one node; `false` if it drops it.
    fn one(&self, rule: &RelabelConfig, above: &[Node], node: &mut Node) -> bool {
        let prefix = match node.level {
            Level::Resource => "resource.",
            Level::Scope => "scope.",
            _ => "",
        };
        let run = |rule: &RelabelConfig, labels: &mut Labels| {
            apply(&[Rule::new(rule, Names::Utf8).unwrap()], labels)
        };
        if matches!(rule.action, Action::LabelDrop | Action::LabelKeep) {
            node.attrs.retain(|pair| {
                let mut labels = Labels::from_iter([(format!("{prefix}{}", pair.key), "x")]);
                // A label cannot be without a name, an attribute can.
                if pair.key.is_empty() && prefix.is_empty() {
                    labels = Labels::from_iter([("", "x")]);
                }
                run(rule, &mut labels);
                !labels.is_empty()
            });
            return true;
        }
        if rule.action == Action::LabelMap {
            let mut before: BTreeMap<String, String> = BTreeMap::new();
            for pair in &node.attrs {
                before.insert(pair.key.clone(), text(&node.attrs, &pair.key).unwrap());
            }
            let regex = regex::Regex::new(&format!("^(?s:{})$", rule.regex)).unwrap();
            for (key, value) in before {
                // A name that is mapped to itself is set to what it was, whatever came before it in the order.
                let name = format!("{prefix}{key}");
                let Some(groups) = regex.captures(&name) else { continue };
                let mut made = String::new();
                groups.expand(&rule.replacement, &mut made);
                if !made.is_empty() && !value.is_empty() {
                    set_named(node, &made, &value);
                }
            }
            return true;
        }
        let mut labels = Labels::default();
        let mut plain = rule.clone();
        plain.source_labels.clear();
        for (i, name) in rule.source_labels.iter().enumerate() {
            labels.set(&format!("s{i}"), self.value(name, above, node));
            plain.source_labels.push(format!("s{i}"));
        }
        match rule.action {
            Action::Keep | Action::Drop => return run(&plain, &mut labels),
            Action::KeepEqual | Action::DropEqual => {
                labels.set("t", self.value(&rule.target_label, above, node));
                plain.target_label = "t".to_owned();
                return run(&plain, &mut labels);
            }
            _ => {}
        }
        plain.target_label = format!("t:{}", rule.target_label);
        // Which label it sets, if any.
        let named = if rule.action == Action::Replace {
            let mut labels = labels.clone();
            run(&RelabelConfig { replacement: "x".to_owned(), ..plain.clone() }, &mut labels);
            labels.iter().find_map(|(name, _)| name.strip_prefix("t:").map(str::to_owned))
        } else {
            Some(rule.target_label.clone())
        };
        let Some(target) = named else { return true };
        run(&plain, &mut labels);
        let value = labels.get(&format!("t:{target}")).to_owned();
        if rule.target_label == "__name__" {
            node.name = value;
        } else if rule.target_label.starts_with("__tmp") {
            node.scratch.insert(target, value);
        } else {
            set_named(node, &target, &value);
        }
        true
    }
}

/// Sets the attribute that a computed name stands for, if it stands for one.
fn set_named(node: &mut Node, name: &str, value: &str) {
    let (level, key) = split(name);
    let key = if level == node.level { key } else { name };
    let other = level != Level::Item && level != node.level;
    let special =
        ["__name__", "__kind__", "__severity__", "__tenant__"].contains(&key) || key.starts_with("__tmp");
    // What stands behind a level's name may be the name of a level again.
    let nested = split(key).0 != Level::Item && split(key).0 != node.level;
    if key.is_empty() || other || nested || (node.level == Level::Item && special) {
        return;
    }
    if value.is_empty() {
        node.attrs.retain(|pair| pair.key != key);
    } else if text(&node.attrs, key).as_deref() != Some(value) {
        match node.attrs.iter_mut().find(|pair| pair.key == key) {
            Some(pair) => pair.value = Some(string(value)),
            None => node.attrs.push(attribute(key, string(value))),
        }
    }
}

/// The text of the first attribute of that key.
fn text(attrs: &[KeyValue], key: &str) -> Option<String> {
    let pair = attrs.iter().find(|pair| pair.key == key)?;
    let mut out = String::new();
    let bytes = pair.value.clone().unwrap_or_default().encode_to_vec();
    value_text(&crate::pdata::common::AnyValue::parse(&bytes).unwrap(), &mut out);
    Some(out)
}

fn naive(rules: &[RelabelConfig], signal: Signal, bytes: &[u8]) -> Vec<u8> {
    let mut nodes = tree::read(signal, bytes);
    let mut naive = Naive { signal, scratch: BTreeMap::new() };
    for rule in rules {
        let level = naive.rule_level(rule);
        naive.run(rule, level, &mut Vec::new(), &mut nodes);
    }
    nodes.retain_mut(Node::prune);
    tree::write(signal, bytes, &nodes)
}

/// Names and values of a few letters, so that rules find something.
fn tame(signal: Signal, bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut nodes = tree::read(signal, bytes);
    fn walk(node: &mut Node, rng: &mut fastrand::Rng) {
        for pair in &mut node.attrs {
            if rng.u8(..10) < 8 {
                pair.key = rng.choice(["a", "b", "c", "ab"]).unwrap().to_owned();
            }
            if rng.u8(..10) < 7 {
                pair.value =
                    Some(string(rng.choice(["foo", "bar", "foo-bar", "Foo", "é1", "", "team"]).unwrap()));
            }
        }
        if rng.bool() {
            node.name = rng.choice(["foo", "bar", "foo-bar"]).unwrap().to_owned();
        }
        node.children.iter_mut().for_each(|node| walk(node, rng));
    }
    nodes.iter_mut().for_each(|node| walk(node, &mut rng));
    tree::write(signal, bytes, &nodes)
}

fn arb_label() -> impl Strategy<Value = String> {
    let key = select(vec!["a", "b", "c", "ab"]);
    let special = select(vec!["__name__", "__tenant__", "__severity__", "__kind__", "__tmp", "__tmp_x"]);
    let prefix = select(vec!["resource.", "resource.", "scope.", "", ""]);
    prop_oneof![
        5 => (prefix, key).prop_map(|(prefix, key)| format!("{prefix}{key}")),
        2 => special.prop_map(str::to_owned),
    ]
}

fn arb_rule() -> impl Strategy<Value = RelabelConfig> {
    use Action::*;
    let action = select(vec![
        Replace, Replace, Replace, Replace, Keep, Drop, KeepEqual, DropEqual, HashMod, LabelMap, LabelMap,
        LabelDrop, LabelKeep, Lowercase, Uppercase,
    ]);
    let regex = select(vec![
        "(.*)",
        ".*",
        "(.+)",
        "f.o",
        "(f)(.*)",
        "",
        "foo|bar",
        "(.*)-(.*)",
        "[^;]*;(.*)",
        "bar",
        "é.",
        "\\W*(\\w+).*",
        "(.)(.*)",
    ]);
    let names = select(vec![
        "a",
        "a|b",
        "(.)b?",
        "resource.a",
        "resource\\.(.*)",
        "scope\\.(.)",
        "scope.a|scope.b",
        "(.*)",
        ".",
        "resource.(a|b)",
    ]);
    let computed = select(vec!["$1", "resource.$1", "scope.${2}x", "${1}${2}", "x$2", "resource.x${1}"]);
    let to = prop_oneof![6 => arb_label(), 1 => computed.prop_map(str::to_owned)];
    let replacement = select(vec!["$1", "$1", "${1}", "fixed", "", "$2$1", "a$1", "foo", "scope.c", "$0"]);
    let sources = proptest::collection::vec(arb_label(), 0..3);
    (action, sources, regex, names, to, replacement, 1..9_u64, any::<bool>()).prop_map(
        |(action, source_labels, regex, names, to, replacement, modulus, slash)| {
            let about_names = matches!(action, LabelMap | LabelDrop | LabelKeep);
            RelabelConfig {
                action,
                source_labels: if about_names { Vec::new() } else { source_labels },
                separator: if slash { "/" } else { ";" }.to_owned(),
                regex: if about_names { names } else { regex }.to_owned(),
                target_label: if about_names { String::new() } else { to },
                replacement: replacement.to_owned(),
                modulus,
            }
        },
    )
}

/// Rules that fit together for a signal: those that do not are left out.
fn arb_rules(signal: Signal) -> impl Strategy<Value = Vec<RelabelConfig>> {
    proptest::collection::vec(arb_rule(), 1..9).prop_map(move |all| {
        let mut rules = Vec::new();
        for rule in all {
            // The check of the config.
            let computed = rule.target_label.contains('$') && rule.action != Action::Replace;
            rules.push(rule);
            if computed || Rules::new(&rules, signal).is_err() {
                rules.pop();
            }
        }
        rules
    })
}

fn law(signal: Signal, bytes: &[u8], seed: u64, rules: &[RelabelConfig]) -> Result<(), TestCaseError> {
    let bytes = tame(signal, bytes, seed);
    let bytes = if seed.is_multiple_of(2) { scramble(signal, &bytes, seed) } else { bytes };
    let (got, applied) = relabelled(rules, signal, &bytes);
    prop_assert_eq!(applied.malformed, 0);
    prop_assert!(applied.changed || got == bytes);
    let want = naive(rules, signal, &bytes);
    let before = count(signal, &bytes).unwrap();
    prop_assert_eq!(before - applied.dropped, count(signal, &want).unwrap());
    prop_assert!(
        tree::normal(signal, &got) == tree::normal(signal, &want),
        "rules {:?}\nbefore {:?}\ngot {:?}\nwant {:?}",
        rules,
        tree::read(signal, &bytes),
        tree::read(signal, &got),
        tree::read(signal, &want)
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn spans_are_relabelled_as_label_sets_would_be(
        request in arb_traces(), seed in any::<u64>(), rules in arb_rules(Signal::Traces),
    ) {
        law(Signal::Traces, &request.encode_to_vec(), seed, &rules)?;
    }

    #[test]
    fn points_are_relabelled_as_label_sets_would_be(
        request in arb_metrics(), seed in any::<u64>(), rules in arb_rules(Signal::Metrics),
    ) {
        law(Signal::Metrics, &request.encode_to_vec(), seed, &rules)?;
    }

    #[test]
    fn records_are_relabelled_as_label_sets_would_be(
        request in arb_logs(), seed in any::<u64>(), rules in arb_rules(Signal::Logs),
    ) {
        law(Signal::Logs, &request.encode_to_vec(), seed, &rules)?;
    }

    #[test]
    fn damaged_requests_are_survived(request in arb_metrics(), seed in any::<u64>(), rules in arb_rules(Signal::Metrics)) {
        let mut bytes = request.encode_to_vec();
        mutate(&mut bytes, seed);
        for signal in Signal::ALL {
            if Rules::new(&rules, signal).is_err() {
                continue;
            }
            let mut batch = batch(signal, &bytes);
            let items = batch.items;
            let applied = program(&rules, signal).apply(&mut batch);
            prop_assert_eq!(batch.items, items - applied.dropped);
            if count(signal, &bytes).is_ok() {
                prop_assert_eq!(count(signal, &batch.rope.to_bytes()), Ok(batch.items));
            }
        }
    }
}

/// The rules above would prove nothing if none of them did anything.
#[test]
fn random_rules_change_and_drop() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut changed, mut dropped, mut refused) = (0, 0, 0);
    for seed in 0..200 {
        let request = arb_metrics().new_tree(&mut runner).unwrap().current().encode_to_vec();
        let rules = arb_rules(Signal::Metrics).new_tree(&mut runner).unwrap().current();
        let bytes = tame(Signal::Metrics, &request, seed);
        let applied = relabelled(&rules, Signal::Metrics, &bytes).1;
        changed += usize::from(applied.changed && applied.dropped == 0);
        dropped += usize::from(applied.dropped > 0);
        let one = arb_rule().new_tree(&mut runner).unwrap().current();
        refused += usize::from(Rules::new(&[one], Signal::Metrics).is_err());
    }
    assert!(changed > 30 && dropped > 30 && refused > 10, "{changed} {dropped} {refused}");
}
