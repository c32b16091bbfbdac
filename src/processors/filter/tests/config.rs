//! Every mistake in a config is found where it stands.

use crate::processors::testing::mistakes;

#[test]
fn mistakes_in_include_and_exclude_are_found_where_they_stand() {
    let mut wrong = Vec::new();
    for (text, want) in [
        ("filter:\n  spans:\n    include: {span_names: [a]}", "3:14 missing required field \"match_type\""),
        (
            "filter:\n  spans:\n    include: {match_type: strict, log_bodies: [a]}",
            "3:14 include: \"log_bodies\"",
        ),
        (
            "filter: {spans: {exclude: {match_type: regexp, span_names: ['a(']}}}",
            "1:61 the pattern is not a valid",
        ),
        (
            "filter: {metrics: {include: {match_type: any, metric_names: [a]}}}",
            "1:42 unsupported value \"any\"",
        ),
        (
            "filter: {metrics: {include: {match_type: expr, metric_names: [a]}}}",
            "1:62 \"metric_names\" needs match_type \"strict\" or \"regexp\"",
        ),
        (
            "filter: {metrics: {include: {match_type: strict, expressions: [a]}}}",
            "1:63 \"expressions\" needs match_type \"expr\"",
        ),
        (
            "filter: {metrics: {include: {match_type: expr, expressions: ['MetricName == a']}}}",
            "1:77 \"a\" is not supported",
        ),
        (
            "filter:\n  metrics:\n    include:\n      match_type: expr\n      expressions:\n      - MetricName == \"a\" && Lable(\"b\") == \"c\"",
            "6:30 \"Lable\" is not supported",
        ),
        (
            "filter: {metrics: {exclude: {match_type: strict}}}",
            "1:29 no criteria are given: this block has no",
        ),
        ("filter: {logs: {exclude: {match_type: strict}}}", "1:26 no criteria are given: this block has no"),
        ("filter: {logs: {exclude: {bodies: [a]}}}", "1:26 missing required field \"match_type\""),
        ("filter: {logs: {exclude: {match_type: regexp, bodies: ['[']}}}", "1:56 the pattern is not a valid"),
        (
            "filter: {logs: {exclude: {match_type: strict, severity_number: {min: LOUD}}}}",
            "1:70 \"LOUD\" is no severity",
        ),
        ("filter: {log: {}}", "1:10 unknown key \"log\""),
        ("filter: {profile_conditions: [a]}", "1:30 \"profile_conditions\" is not supported"),
        ("filter: {profiles: {profile: [a]}}", "1:20 \"profiles\" is not supported"),
        ("filter: {error_mode: ignored}", "1:22 unsupported value \"ignored\""),
    ] {
        let found = mistakes(text);
        if found.len() != 1 || !found[0].0.starts_with(want) {
            wrong.push(format!("{text}\nwant {want}\n got {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
