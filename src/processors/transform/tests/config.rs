//! Every mistake in a config is found where it stands.

use crate::processors::testing::mistakes;

#[test]
fn mistakes_are_found_where_they_stand() {
    let mut wrong = Vec::new();
    for (text, want, hint) in [
        (
            "transform:\n  log_statements:\n  - set(log.body, log.boddy)",
            "3:23 the path \"log.boddy\" is not supported",
            "did you mean \"log.body\"?",
        ),
        ("transform: {log_statements: ['sett(log.body, 1)']}", "1:31 ", "did you mean set?"),
        (
            "transform: {log_statements: ['set(body, 1)']}",
            "1:35 the path \"body\" does not say of what",
            "log.body",
        ),
        (
            "transform: {log_statements: ['set(log.body)']}",
            "1:31 set needs the argument \"value\"",
            "set(target, value)",
        ),
        (
            "transform: {log_statements: ['set(log.body, 1) where log.flags']}",
            "1:54 an integer is no condition",
            "",
        ),
        ("transform: {log_statements: ['log.body == 1']}", "1:34 expected \"(\"", "write it as in"),
        ("transform: {log_statements: ['flatten(log.body)']}", "1:31 ", ""),
        ("transform: {metric_statements: ['scale_metric(10.0)']}", "1:34 ", ""),
        ("transform: {log_statements: ['set(log.trace_id.string, \"a\")']}", "1:35 ", ""),
        (
            "transform: {log_statements: [{context: log, statements: ['set(resource.attributes[\"a\"], 1)']}]}",
            "1:63 ",
            "",
        ),
        ("transform: {log_statements: ['set(resource.attributes[\"a\"], log.body)']}", "1:35 ", ""),
        (
            "transform: {log_statements: ['replace_pattern(log.body, \"a(\", \"\")']}",
            "1:57 not a regular expression: unclosed group",
            "",
        ),
        ("transform: {log_statements: ['']}", "1:30 statement cannot be empty", ""),
        (
            "transform: {log_statements: ['set(log.body, 1)', {statements: []}]}",
            "1:50 configuring multiple configuration styles is not supported",
            "write statements alone",
        ),
        (
            "transform: {log_statements: [{context: log, conditions: ['a == 1'], statements: ['set(body, 1)', 'delete_key(attributes, \"b\")']}]}",
            "1:59 the path \"log.a\" is not supported",
            "",
        ),
        (
            "transform: {log_statements: [{context: span, statements: ['set(body, 1)']}]}",
            "1:40 there is no context \"span\" in logs",
            "there are: resource, scope, log",
        ),
        (
            "transform: {log_statements: [{shared_cache: true, statements: ['set(log.body, 1)']}]}",
            "1:45 \"shared_cache\" is not supported",
            "",
        ),
        (
            "transform: {profile_statements: ['set(a, 1)']}",
            "1:33 \"profile_statements\" is not supported",
            "profiles",
        ),
        ("transform: {flatten_data: true}", "1:27 true is not supported", "write false"),
        ("transform: {error_mode: panic}", "1:25 unsupported value \"panic\"", "ignore"),
        ("transform: {logs_statements: []}", "1:13 unknown key \"logs_statements\"", "log_statements"),
        (
            "transform: {log_statements: ['set(log.cache[\"a\"], 1)']}",
            "1:39 the path \"log.cache\" is not supported",
            "",
        ),
    ] {
        let found = mistakes(text);
        let fits = |(message, said): &(String, Option<String>)| {
            message.starts_with(want) && said.as_deref().unwrap_or_default().contains(hint)
        };
        if found.len() != 1 || !fits(&found[0]) {
            wrong.push(format!("{text}\nwant {want} = {hint}\n got {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn statements_are_looked_at_when_their_conditions_are_wrong() {
    let text = "transform:\n  trace_statements:\n  - context: span\n    conditions: [nam == nil]\n    statements:\n    - \
                set(name, knd)\n    - sett(name, \"\")";
    let found: Vec<String> = mistakes(text).into_iter().map(|(found, _)| found).collect();
    let places: Vec<&str> = found.iter().filter_map(|f| f.split(' ').next()).collect();
    assert_eq!(places, ["4:18", "6:17", "7:7"], "{found:?}");
}
