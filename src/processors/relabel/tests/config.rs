//! What is wrong with rules is said where it is written.

use super::*;
use crate::config::{LoadOptions, Source, load, render};

/// The findings about a config whose rules are these lines of YAML, from line 4 on.
fn said(rules: &str, signal: &str) -> String {
    let rules: String = rules.lines().map(|line| format!("      {line}\n")).collect();
    let text = format!(
        "processors:\n  relabel:\n    rules:\n{rules}receivers: {{otlp: {{protocols: {{grpc: }}}}}}\nexporters: {{nop: }}\n\
         service: {{pipelines: {{{signal}: {{receivers: [otlp], processors: [relabel], exporters: [nop]}}}}}}\n"
    );
    let loaded = load(&[Source::parse(&format!("yaml:{text}")).unwrap()], LoadOptions::default());
    let mut out = render(&loaded.diags, &loaded.sources);
    if let Some(plan) = &loaded.plan {
        let built = crate::service::build(plan, &Metrics::new(), &Ledger::new(usize::MAX));
        for error in built.err().unwrap_or_default() {
            out.push_str(&format!("{}: {}", error.path, error.message));
        }
    }
    out
}

#[test]
fn good_rules_are_taken() {
    for rules in [
        "- {source_labels: [resource.k8s.pod.name], regex: '(.*)-[a-z0-9]+', target_label: resource.workload}",
        "- {regex: 'resource.host.name', action: labeldrop}",
        "- {source_labels: [foo.bar], target_label: other.prefix.x}",
        "- {source_labels: [a], target_label: resource.b, action: KeepEqual}",
        "- {source_labels: [resource.a], target_label: __tmp}\n- {source_labels: [__tmp], target_label: resource.b}",
        "- {source_labels: [__tmp_never], target_label: resource.b}",
        "- {source_labels: [resource.a], target_label: resource.$1}",
        "- {regex: 'resource\\.(.*)', action: labelmap, replacement: 'x_$1'}",
        "- {target_label: resource.env, replacement: prod}",
        "- {source_labels: [a], target_label: a.b, modulus: 3, action: hashmod}",
        "- {source_labels: [a.b], target_label: c-d, action: lowercase}",
    ] {
        assert_eq!(said(rules, "traces"), "", "{rules}");
        assert_eq!(said(rules, "metrics"), "", "{rules}");
    }
}

#[test]
fn errors_point_at_the_rule_and_key() {
    let table = [
        (
            "- {source_labels: [a], target_label: b}\n- {source_labels: [resource.x, y], target_label: resource.z}",
            "--> yaml:5:56\n | = at processors::relabel::rules::1::target_label\n | error: \"resource.z\": a resource's attribute cannot depend on one of its items, and \"y\" may be an attribute of the item",
            "write \"resource.y\" if the resource's attribute is meant",
        ),
        (
            "- {source_labels: [scope.y], target_label: resource.z}",
            "--> yaml:4:50\n | = at processors::relabel::rules::0::target_label\n | error: \"resource.z\": a resource's attribute cannot depend on one of its scopes, and \"scope.y\" is",
            "",
        ),
        (
            "- {source_labels: [__severity__], target_label: scope.z}",
            "\"scope.z\": a scope's attribute cannot depend on one of its items, which \"__severity__\" is the severity of",
            "",
        ),
        (
            "- {source_labels: [y], target_label: __tmp_y}\n- {source_labels: [__tmp_y], target_label: resource.z}",
            "--> yaml:5:50\n | = at processors::relabel::rules::1::target_label\n | error: \"resource.z\": a resource's attribute cannot depend on one of its items, and rule 1 sets \"__tmp_y\" for each of them",
            "",
        ),
        (
            "- {source_labels: [a], target_label: __tenant__}",
            "--> yaml:4:44\n | = at processors::relabel::rules::0::target_label\n | error: \"__tenant__\" cannot be set",
            "\"__tmp\"",
        ),
        ("- {source_labels: [a], target_label: resource.}", "\"resource.\" names no attribute", ""),
        ("- {source_labels: [scope.], target_label: a}", "\"scope.\" names no attribute", ""),
        (
            "- {source_labels: [a], target_label: '__tmp_$1'}",
            "the name of a scratch label cannot be computed",
            "",
        ),
        (
            "- {regex: 'a(.*)', action: labelmap, replacement: 'resource.$1'}",
            "\"resource.$1\" is no name among the item's own attributes",
            "begin \"regex\" with \"resource.\"",
        ),
        (
            "- {regex: 'resource.(.*)', action: labelmap, replacement: 'scope.$1'}",
            "is no name among the resource's attributes",
            "begin \"regex\" with \"scope.\"",
        ),
        (
            "- {regex: 'a', action: labelmap, replacement: '__name__'}",
            "\"__name__\" is no attribute's name",
            "",
        ),
        ("- {regex: 'a', action: labelmap, replacement: '__tmp$1'}", "is no attribute's name", ""),
        (
            "- {source_labels: [a]}",
            "--> yaml:4:9\n | = at processors::relabel::rules::0::target_label\n | error: relabel configuration for replace action requires 'target_label'",
            "",
        ),
        (
            "- {source_labels: [a], regex: '(', action: drop}",
            "--> yaml:4:37\n | = at processors::relabel::rules::0::regex\n | error: not a regular expression",
            "",
        ),
        (
            "- {source_labels: [a], target_label: '$1', action: lowercase}",
            "\"$1\" is invalid 'target_label' for lowercase action",
            "",
        ),
        (
            "- {source_labels: [a], regex: b, action: labeldrop}",
            "'source_labels' has no meaning for the labeldrop action",
            "",
        ),
        ("- {source_labels: [a], target_label: b, action: dropp}", "did you mean \"drop\"?", ""),
        (
            "- {regex: '(resource|scope).a', action: labeldrop}",
            "--> yaml:4:17\n | = at processors::relabel::rules::0::regex\n | warning: the rule is about the items' own attributes",
            "",
        ),
        ("[]", "missing required field \"rules\"", "labeldrop"),
    ];
    for (rules, message, hint) in table {
        let got = said(rules, "logs");
        // The place and the path, where they are given, stand in lines of their own.
        let parts: Vec<&str> = message.split(" | ").collect();
        assert!(parts.iter().all(|part| got.contains(part)), "{rules}\n{got}");
        assert!(got.contains(hint), "{rules}\n{got}");
        assert!(got.contains("1 error\n") || got.contains("1 warning\n"), "once: {got}");
    }
}

#[test]
fn what_one_signal_lacks_is_found_when_it_is_built() {
    let rules = "- {source_labels: [a], target_label: __name__}";
    assert_eq!(said(rules, "traces"), "");
    assert_eq!(said(rules, "logs"), "");
    let got = said(rules, "metrics");
    let want = "processors::relabel: rule 1, for metrics: \"__name__\": a metric's name cannot depend on one of its items";
    assert!(got.contains(want), "{got}");
}
