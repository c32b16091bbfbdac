//! The vectors of relabelling.

use super::*;

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn rule(
    action: Action,
    sources: &[&str],
    regex: Option<&str>,
    target: &str,
    replacement: Option<&str>,
) -> Rule {
    let config = RelabelConfig {
        action,
        source_labels: sources.iter().map(|s| (*s).to_owned()).collect(),
        target_label: target.to_owned(),
        regex: regex.unwrap_or("(.*)").to_owned(),
        replacement: replacement.unwrap_or("$1").to_owned(),
        ..RelabelConfig::default()
    };
    Rule::new(&config, Names::Legacy).unwrap()
}

fn run(labels: Pairs<'_>, rules: &[Rule]) -> Option<Labels> {
    let mut labels: Labels = labels.iter().copied().collect();
    apply(rules, &mut labels).then_some(labels)
}

fn of(pairs: Pairs<'_>) -> Option<Labels> {
    Some(pairs.iter().copied().collect())
}

fn replace(sources: &[&str], regex: Option<&str>, target: &str, replacement: Option<&str>) -> Rule {
    rule(Action::Replace, sources, regex, target, replacement)
}

fn hashmod(sources: &[&str], modulus: u64, target: &str) -> Rule {
    Rule { modulus, ..rule(Action::HashMod, sources, None, target, None) }
}

#[test]
fn replace_vectors() {
    let table: Vec<(&str, Pairs<'_>, Vec<Rule>, Pairs<'_>)> = vec![
        (
            "Q1",
            &[("a", "foo")],
            vec![replace(&["a"], Some("f(.*)"), "d", Some("ch${1}-ch${1}"))],
            &[("a", "foo"), ("d", "choo-choo")],
        ),
        (
            "Q2",
            &[("a", "foo"), ("b", "bar"), ("c", "baz")],
            vec![
                replace(&["a", "b"], Some("f(.*);(.*)r"), "a", Some("b${1}${2}m")),
                replace(&["c", "a"], Some("(b).*b(.*)ba(.*)"), "d", Some("$1$2$2$3")),
            ],
            &[("a", "boobam"), ("b", "bar"), ("c", "baz"), ("d", "boooom")],
        ),
        ("Q6", &[("a", "boo")], vec![replace(&["a"], Some("f"), "b", Some("bar"))], &[("a", "boo")]),
        (
            "Q7",
            &[("a", "foo"), ("f", "baz")],
            vec![replace(&["a"], Some("(f).*"), "$1", Some("$2"))],
            &[("a", "foo")],
        ),
        (
            "Q15",
            &[("a", "some-name-value")],
            vec![replace(&["a"], Some("some-([^-]+)-([^,]+)"), "${1}", Some("${2}"))],
            &[("a", "some-name-value"), ("name", "value")],
        ),
        (
            "Q16",
            &[("a", "some-name-value")],
            vec![replace(&["a"], Some("some-([^-]+)-([^,]+)"), "${1}", Some("${3}"))],
            &[("a", "some-name-value")],
        ),
        (
            "Q17",
            &[("a", "some-name-0")],
            vec![replace(&["a"], Some("some-([^-]+)-([^,]+)"), "${3}", Some("${1}"))],
            &[("a", "some-name-0")],
        ),
        (
            "Q18",
            &[("__meta_sd_tags", "path:/secret,job:some-job,label:foo=bar")],
            vec![
                replace(&["__meta_sd_tags"], Some("(?:.+,|^)path:(/[^,]+).*"), "__metrics_path__", None),
                replace(&["__meta_sd_tags"], Some("(?:.+,|^)job:([^,]+).*"), "job", None),
                replace(&["__meta_sd_tags"], Some("(?:.+,|^)label:([^=]+)=([^,]+).*"), "${1}", Some("${2}")),
            ],
            &[
                ("__meta_sd_tags", "path:/secret,job:some-job,label:foo=bar"),
                ("__metrics_path__", "/secret"),
                ("foo", "bar"),
                ("job", "some-job"),
            ],
        ),
        (
            "Q23",
            &[("a", "line1\nline2")],
            vec![replace(&["a"], Some("line1.*line2"), "d", Some("match${1}"))],
            &[("a", "line1\nline2"), ("d", "match")],
        ),
        ("Q24", &[("a", "foo")], vec![replace(&["a"], None, "b", None)], &[("a", "foo"), ("b", "foo")]),
        ("Q25", &[("b", "x")], vec![replace(&["a"], None, "b", None)], &[]),
        ("Q26", &[("b", "x")], vec![replace(&["a"], None, "b", Some("fixed"))], &[("b", "fixed")]),
        ("Q27", &[("a", "foo")], vec![replace(&["a"], Some("f(.*)"), "d", Some("$1x"))], &[("a", "foo")]),
    ];
    for (name, labels, rules, want) in table {
        assert_eq!(run(labels, &rules), of(want), "{name}");
    }
}

#[test]
fn keeping_and_dropping_vectors() {
    use Action::{Drop, DropEqual, Keep, KeepEqual};
    let foo: Pairs<'_> = &[("a", "foo")];
    let ports: Pairs<'_> = &[("__tmp_port", "1234"), ("__port1", "1234"), ("__port2", "5678")];
    let table: &[(&str, Pairs<'_>, Rule, bool)] = &[
        ("Q3", foo, rule(Drop, &["a"], Some(".*o.*"), "", None), false),
        ("Q4", foo, rule(Drop, &["a"], Some("f|o"), "", None), true),
        ("Q5", foo, rule(Keep, &["a"], Some("no-match"), "", None), false),
        ("Q21", ports, rule(KeepEqual, &["__tmp_port"], None, "__port1", None), true),
        ("Q21", ports, rule(KeepEqual, &["__tmp_port"], None, "__port2", None), false),
        ("Q22", ports, rule(DropEqual, &["__tmp_port"], None, "__port1", None), false),
        ("Q22", ports, rule(DropEqual, &["__tmp_port"], None, "__port2", None), true),
        ("Q28", &[], rule(Drop, &["x"], Some(""), "", None), false),
    ];
    for (name, labels, rule, kept) in table {
        let want = if *kept { of(labels) } else { None };
        assert_eq!(run(labels, std::slice::from_ref(rule)), want, "{name}");
    }
}

#[test]
fn hash_vectors() {
    let table: &[(&str, Pairs<'_>, Rule, &str)] = &[
        ("Q8", &[("c", "baz")], hashmod(&["c"], 1000, "d"), "976"),
        ("Q9", &[("a", "foo\nbar")], hashmod(&["a"], 1000, "d"), "734"),
        ("Q10", &[], hashmod(&["x"], 10, "d"), "8"),
        ("Q11", &[("a", "10.0.0.1:9100")], hashmod(&["a"], 4, "d"), "1"),
        ("Q12", &[("a", "host-a"), ("b", "job-b")], hashmod(&["a", "b"], 16, "d"), "12"),
    ];
    for (name, labels, rule, want) in table {
        assert_eq!(run(labels, std::slice::from_ref(rule)).unwrap().get("d"), *want, "{name}");
    }
}

#[test]
fn name_and_case_vectors() {
    use Action::{LabelDrop, LabelKeep, LabelMap, Lowercase, Uppercase};
    let three: Pairs<'_> = &[("a", "foo"), ("b1", "bar"), ("b2", "baz")];
    let meta: Pairs<'_> = &[("__meta_my_bar", "aaa"), ("__meta_other", "ccc")];
    let table: &[(&str, Pairs<'_>, Rule, Pairs<'_>)] = &[
        (
            "Q13",
            three,
            rule(LabelMap, &[], Some("(b.*)"), "", Some("bar_${1}")),
            &[("a", "foo"), ("b1", "bar"), ("b2", "baz"), ("bar_b1", "bar"), ("bar_b2", "baz")],
        ),
        (
            "Q14",
            meta,
            rule(LabelMap, &[], Some("__meta_(my.*)"), "", Some("${1}")),
            &[("__meta_my_bar", "aaa"), ("__meta_other", "ccc"), ("my_bar", "aaa")],
        ),
        ("Q19", three, rule(LabelKeep, &[], Some("(b.*)"), "", None), &[("b1", "bar"), ("b2", "baz")]),
        ("Q19", three, rule(LabelDrop, &[], Some("(b.*)"), "", None), &[("a", "foo")]),
        (
            "Q20",
            &[("foo", "bAr123Foo")],
            rule(Uppercase, &["foo"], None, "foo", None),
            &[("foo", "BAR123FOO")],
        ),
        (
            "Q20",
            &[("foo", "bAr123Foo")],
            rule(Lowercase, &["foo"], None, "foo", None),
            &[("foo", "bar123foo")],
        ),
        ("one to one", &[("a", "straße")], rule(Uppercase, &["a"], None, "a", None), &[("a", "STRAßE")]),
        ("simple", &[("a", "ᾀᾗᾳῃῼ")], rule(Uppercase, &["a"], None, "a", None), &[("a", "ᾈᾟᾼῌῼ")]),
        ("simple", &[("a", "İǅẞ")], rule(Lowercase, &["a"], None, "a", None), &[("a", "iǆß")]),
    ];
    for (name, labels, rule, want) in table {
        assert_eq!(run(labels, std::slice::from_ref(rule)), of(want), "{name}");
    }
}

#[test]
fn actions_are_read_in_any_case_and_checked() {
    use crate::config::{Config, Cx, Node};
    for (json, want) in [
        (serde_json::json!({"action": "LabelDrop", "regex": "a"}), None),
        (serde_json::json!({"source_labels": ["a"]}), Some("requires 'target_label'")),
        (serde_json::json!({"action": "hashmod", "target_label": "x"}), Some("non-zero modulus")),
        (serde_json::json!({"action": "labelkeep", "target_label": "x"}), Some("has no meaning")),
        (
            serde_json::json!({"action": "keepequal", "target_label": "x", "regex": "y"}),
            Some("has no meaning"),
        ),
        (serde_json::json!({"action": "drop", "regex": "("}), Some("not a regular expression")),
        (serde_json::json!({"action": "uppercase", "target_label": "$1"}), Some("is invalid 'target_label'")),
    ] {
        let (mut config, mut cx) = (RelabelConfig::default(), Cx::default());
        config.decode_into(&Node::from_json(&json), &mut cx);
        let said = cx.diags.first().map(|d| d.message.clone());
        match want {
            None => assert_eq!(said, None, "{json}"),
            Some(text) => assert!(said.as_deref().is_some_and(|s| s.contains(text)), "{json}: {said:?}"),
        }
    }
}
