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

#[test]
fn mistakes_in_conditions_are_found_where_they_stand() {
    let mixed = "configuring multiple configuration styles is not supported, please use only Basic configuration \
                 or only Advanced configuration";
    let mut wrong = Vec::new();
    for (text, want) in [
        ("filter: {trace_conditions: [span.name == 1 and]}", "1:47 "),
        (
            "filter:\n  trace_conditions:\n  - span.nmae == \"a\"",
            "3:10 the path \"span.nmae\" is not supported",
        ),
        (
            "filter:\n  trace_conditions:\n  - 'span.nmae == \"a\"'",
            "3:11 the path \"span.nmae\" is not supported",
        ),
        (
            "filter:\n  trace_conditions:\n  - \"true and IsMtch(span.name, \\\"a\\\")\"",
            "3:15 the function IsMtch",
        ),
        ("filter:\n  trace_conditions:\n  - |-\n    span.nmae == \"a\"", "4:10 the path \"span.nmae\""),
        ("filter: {trace_conditions: [name == \"a\"]}", "1:29 the path \"name\" does not say of what"),
        ("filter: {trace_conditions: [log.body == \"a\"]}", "1:29 there is no \"log\" in traces"),
        ("filter: {trace_conditions: ['']}", "1:29 condition cannot be empty"),
        ("filter: {trace_conditions: [null]}", "1:29 condition cannot be empty"),
        ("filter: {trace_conditions: span.name == \"a\"}", "1:28 expected a list, got a string"),
        ("filter: {trace_conditions: [true, {conditions: [true]}]}", &format!("1:35 {mixed}")),
        ("filter: {trace_conditions: [{conditions: [true]}, 'true']}", &format!("1:51 {mixed}")),
        (
            "filter: {trace_conditions: [{context: spam, conditions: ['true']}]}",
            "1:39 unknown context \"spam\"",
        ),
        (
            "filter: {trace_conditions: [{context: log, conditions: ['true']}]}",
            "1:39 there is no context \"log\" in traces",
        ),
        (
            "filter: {log_conditions: [{context: log, conditions: ['boddy == nil']}]}",
            "1:56 the path \"log.boddy\" is not supported",
        ),
        ("filter: {log_conditions: [{condition: ['true']}]}", "1:28 unknown key \"condition\""),
        (
            "filter: {log_conditions: [{error_mode: loud, conditions: ['true']}]}",
            "1:40 unsupported value \"loud\"",
        ),
        ("filter: {logs: {log_record: ['body ==']}}", "1:38 "),
        ("filter: {logs: {log_record: ['span.name == nil']}}", "1:31 there is no \"span\" in logs"),
        (
            "filter: {logs: {resource: ['log.body == nil']}}",
            "1:29 a path of \"log\" cannot be used in the context",
        ),
        (
            "filter: {metrics: {datapoint: ['HasAttrKeyOnDatapoint(\"a\")']}}",
            "1:33 HasAttrKeyOnDatapoint is for",
        ),
        ("filter: {traces: {span: ['set(name, \"a\")']}}", "1:27 "),
        (
            "filter: {traces: {span: [], spanevent: ['true']}, trace_conditions: ['true']}",
            "1:25 cannot use context inferred trace conditions \"trace_conditions\" and the settings",
        ),
        (
            "filter: {metric_conditions: ['true'], metrics: {exclude: {match_type: strict, metric_names: [a]}}}",
            "1:58 cannot use context inferred metric conditions \"metric_conditions\" and the settings \"metrics.resource\", \
             \"metrics.metric\", \"metrics.datapoint\", \"metrics.include\", \"metrics.exclude\" at the same time",
        ),
        (
            "filter: {metrics: {metric: ['true'], include: {match_type: strict, metric_names: [a]}}}",
            "1:47 cannot use \"metrics.resource\", \"metrics.metric\", \"metrics.datapoint\" and the settings \
             \"metrics.include\", \"metrics.exclude\" at the same time",
        ),
        (
            "filter: {logs: {resource: ['true'], exclude: {match_type: strict, bodies: [a]}}}",
            "1:46 cannot use \"logs.resource\", \"logs.log_record\" and the settings",
        ),
        (
            "filter: {log_conditions: ['true'], logs: {log_record: ['true']}}",
            "1:55 cannot use context inferred log conditions",
        ),
        (
            "filter: {spans: {include: {match_type: strict, span_names: [a]}}, traces: {span: ['true']}}",
            "1:27 cannot use \"traces.resource\", \"traces.span\", \"traces.spanevent\" and the span settings",
        ),
    ] {
        let found = mistakes(text);
        if found.len() != 1 || !found[0].0.starts_with(want) {
            wrong.push(format!("{text}\nwant {want}\n got {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_mistake_is_found_in_one_run() {
    let text = "filter:\n  trace_conditions: [a, b]\n  log_conditions:\n  - {context: log, conditions: [bdy == nil]}\n  \
                - {conditions: [log.boy == nil, '']}\n  metrics: {datapoint: [valu_int == 1]}";
    let found: Vec<String> = mistakes(text).into_iter().map(|(found, _)| found).collect();
    let places: Vec<&str> = found.iter().filter_map(|f| f.split(' ').next()).collect();
    assert_eq!(places, ["2:22", "2:25", "4:33", "5:23", "5:35", "6:25"], "{found:?}");
}
