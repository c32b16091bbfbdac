//! What is refused when a text is read: where the error points, what it says and what it proposes.

use super::*;
use crate::ottl::{Condition, ParseError, Part, Statement};

fn told(error: ParseError) -> String {
    let hint = error.hint.map(|hint| format!(" | {hint}")).unwrap_or_default();
    format!("{}: {}{hint}", error.offset, error.message)
}

fn condition(context: Option<Context>, text: &str) -> String {
    let signal = context.map_or(Signal::Logs, signal_of);
    told(Condition::parse(text, context, signal).err().unwrap_or_else(|| panic!("{text} is accepted")))
}

fn statement(context: Context, text: &str) -> String {
    let error = Statement::parse(text, Some(context), signal_of(context)).err();
    told(error.unwrap_or_else(|| panic!("{text} is accepted")))
}

#[test]
fn words_and_signs() {
    for (text, want) in [
        ("", "0: condition cannot be empty"),
        ("  ", "0: condition cannot be empty"),
        ("body == 'a'", "8: unexpected character '\\'' | write strings in double quotes"),
        ("true && false", "5: unexpected character '&' | write \"and\""),
        ("true || false", "5: unexpected character '|' | write \"or\""),
        ("!true", "0: unexpected character '!' | write \"not\", or \"!=\" to compare"),
        ("body == \"a", "8: the string is not closed | end it with a double quote"),
        ("IsMatch(body, \"\\d\")", "15: a string has no escape \\d | write a backslash twice: \\\\d"),
        ("flags == 12x", "9: a number is followed by letters"),
        ("flags == 99999999999999999999", "9: 99999999999999999999 is too large a number"),
        ("flags == 9223372036854775808", "9: 9223372036854775808 is too large a number"),
        ("span_id == 0x123", "11: bytes are pairs of hexadecimal digits after 0x"),
        ("body = \"a\"", "5: expected the end, found \"=\" | compare with \"==\""),
        ("body == ", "8: expected a value, found the end"),
        ("body == \"a\" \"b\"", "12: expected an operator or the end, found a string"),
        ("1 < flags < 3", "10: comparisons do not chain | join two comparisons with \"and\""),
        ("(body == \"a\"", "12: expected \")\", found the end"),
        ("body == [1, 2", "13: expected \",\" or \"]\", found the end"),
        ("body == {a: 1}", "9: expected a key in double quotes, found \"a\""),
        ("body == {\"a\" 1}", "13: expected \":\", found a number"),
        ("and true", "0: expected a value, found \"and\""),
        ("body. == 1", "6: expected a name after the dot, found \"==\""),
        ("attributes[] == 1", "11: expected a key in double quotes or an index, found \"]\""),
        ("attributes[\"a\"].b == 1", "15: expected an operator or the end, found \".\""),
        (
            "attributes[name] == 1",
            "11: a key that is computed is not supported | write the key as a string, or an index as a number",
        ),
        (
            "set(body, 1)",
            "0: set is no converter and gives no value | converters begin with an upper-case letter",
        ),
    ] {
        let want = match text {
            "attributes[\"a\"].b == 1" => {
                "15: nothing follows the brackets of a path | write [\"key\"] to look into a map"
            }
            _ => want,
        };
        assert_eq!(condition(Some(Context::Log), text), want, "{text}");
    }
}

#[test]
fn nesting_is_bounded() {
    for text in [
        "(".repeat(100_000),
        "not ".repeat(100_000),
        "[".repeat(100_000),
        "-".repeat(100_000),
        format!("flags == 1{}", " + 1".repeat(100_000)),
        format!("flags == {}1", "IsString(".repeat(100_000)),
        format!("body{} == 1", "[0]".repeat(100_000)),
        "{\"a\":".repeat(100_000),
    ] {
        assert!(Condition::parse(&text, Some(Context::Log), Signal::Logs).is_err());
    }
    let flat = vec!["flags == 1"; 10_000].join(" or ");
    assert!(Condition::parse(&flat, Some(Context::Log), Signal::Logs).is_ok());
}

#[test]
fn paths_and_contexts() {
    for (context, text, want) in [
        (
            None,
            "attributes[\"a\"] == 1",
            "0: the path \"attributes\" does not say of what | write \"log.attributes\", or give a context",
        ),
        (
            None,
            "true and severty == 1",
            "9: the path \"severty\" does not say of what | paths begin with one of: resource, scope, log",
        ),
        (None, "span.name == \"a\"", "0: there is no \"span\" in logs | there are: resource, scope, log"),
        (None, "IsRootSpan()", "0: there is no \"span\" in logs | there are: resource, scope, log"),
        (
            Some(Context::Log),
            "severty_text == 1",
            "0: the path \"log.severty_text\" is not supported | did you mean \"log.severity_text\"?",
        ),
        (
            Some(Context::Log),
            "1 == log.severty_text",
            "9: the path \"log.severty_text\" is not supported | did you mean \"log.severity_text\"?",
        ),
        (
            Some(Context::Scope),
            "cache[\"a\"] == 1",
            "0: the path \"scope.cache\" is not supported | there are: attributes, name, version, dropped_attributes_count",
        ),
        (
            Some(Context::Resource),
            "resource == 1",
            "0: \"resource\" alone is no path | name a part of it: attributes, dropped_attributes_count",
        ),
        (
            Some(Context::Resource),
            "log.body == 1",
            "0: a path of \"log\" cannot be used in the context \"resource\" | use the context \"log\"",
        ),
        (
            Some(Context::Metric),
            "datapoint.count == 1",
            "0: a path of \"datapoint\" cannot be used in the context \"metric\" | use the context \"datapoint\"",
        ),
        (
            Some(Context::Log),
            "severity_text[\"a\"] == 1",
            "14: \"log.severity_text\" is a string: it has no keys",
        ),
        (
            Some(Context::Log),
            "attributes[0] == 1",
            "11: \"attributes\" is looked up by a key in double quotes",
        ),
        (
            Some(Context::Span),
            "trace_state[\"a\"][\"b\"] == 1",
            "12: a member of the trace state is a string: it has no keys",
        ),
        (
            Some(Context::Log),
            "otelcol.client.metadata == nil",
            "0: \"otelcol.client.metadata\" as a whole is not supported | name a key in brackets and double quotes",
        ),
        (
            Some(Context::Log),
            "otelcol.client.metadata[0] == nil",
            "24: metadata is looked up by a key in double quotes",
        ),
        (
            Some(Context::Log),
            "otelcol.client.metadata[\"a\"][\"b\"] == nil",
            "29: the values of a key are counted from 0",
        ),
        (Some(Context::Log), "otelcol.client.addr[0] == nil", "20: nothing can be looked up here"),
        (
            Some(Context::Log),
            "otelcol.x == nil",
            "0: the path \"otelcol.x\" is not supported | there are: otelcol.client.metadata, otelcol.grpc.metadata, otelcol.client.addr, otelcol.client.auth.attributes",
        ),
        (Some(Context::Metric), "IsRootSpan()", "0: IsRootSpan is for the contexts span and spanevent"),
        (
            Some(Context::DataPoint),
            "HasAttrKeyOnDatapoint(\"a\")",
            "0: HasAttrKeyOnDatapoint is for the context metric",
        ),
    ] {
        assert_eq!(condition(context, text), want, "{text}");
    }
    let wrong = Condition::parse("true", Some(Context::Span), Signal::Logs).unwrap_err();
    assert_eq!(told(wrong), "0: there is no context \"span\" in logs | there are: resource, scope, log");
}

#[test]
fn conditions_and_functions() {
    for (text, want) in [
        ("body", "0: a value is no condition | compare it, as in: attributes[\"key\"] == true"),
        (
            "severity_text and true",
            "0: a string is no condition | compare it, as in: attributes[\"key\"] == true",
        ),
        ("not 1", "4: an integer is no condition | compare it, as in: attributes[\"key\"] == true"),
        ("Len(body)", "0: an integer is no condition | compare it, as in: attributes[\"key\"] == true"),
        ("(1 == 1) == true", "0: a condition is no value"),
        ("IsString(not true)", "9: a condition is no value"),
        (
            "flags == SEVERITY_NUMBER_WARNING",
            "9: the name SEVERITY_NUMBER_WARNING is not supported | did you mean SEVERITY_NUMBER_WARN?",
        ),
        ("flags == IsString", "9: IsString is a function | call it: IsString(…)"),
        ("IsMatsh(body, \"a\")", "0: the function IsMatsh is not supported | did you mean IsMatch?"),
        (
            "IsMatch(body)",
            "0: IsMatch needs the argument \"pattern\" | it is called as IsMatch(target, pattern)",
        ),
        (
            "IsMatch(body, \"a\", \"b\")",
            "19: IsMatch takes at most 2 arguments | it is called as IsMatch(target, pattern)",
        ),
        ("IsString()", "0: IsString needs the argument \"target\" | it is called as IsString(target)"),
        (
            "IsMatch(body, patern=\"a\")",
            "21: IsMatch has no argument \"patern\" | it is called as IsMatch(target, pattern)",
        ),
        ("IsMatch(body, target=\"a\")", "21: the argument \"target\" is given twice"),
        (
            "IsMatch(target=body, \"a\")",
            "21: an argument without a name follows one with a name | put the arguments without names first",
        ),
        (
            "IsMatch(body, severity_text)",
            "14: a string is needed here, written out; a computed one is not supported",
        ),
        ("IsMatch(body, \"(\")", "14: not a regular expression: unclosed group"),
        ("HasPrefix(body, 1)", "16: \"prefix\" of HasPrefix must be a string, not an integer"),
        ("Len(flags) == 1", "4: \"target\" of Len must be a string or a list or a map, not an integer"),
        (
            "ConvertCase(body, \"snake\") == 1",
            "18: \"snake\" is not supported here | write one of: lower, upper",
        ),
        (
            "ExtractPatterns(body, \"a(b)\") == 1",
            "22: the pattern has no named group | write groups as (?P<name>…)",
        ),
        ("Format(\"%y\", [1]) == 1", "7: the verb %y is not supported"),
        ("Format(\"%\", []) == 1", "7: the format ends inside a verb"),
        ("Format(\"%d %d\", [1]) == 1", "0: Format: 2 verbs and 1 values"),
        ("TraceID(0x01) == trace_id", "8: TraceID needs 16 bytes in hexadecimal, written out"),
        ("flags == 1 / 0", "13: division by zero"),
        (
            "flags == 1 + 1.5",
            "9: arithmetic needs two values of one type, integers or numbers, found a number",
        ),
        (
            "flags + 1.5 == 1",
            "8: an integer and a number do not mix in arithmetic | convert one of them with Int(…) or Double(…)",
        ),
        ("flags + \"a\" == 1", "8: a string cannot be used in arithmetic"),
        ("-severity_text == 1", "1: a string cannot be used in arithmetic"),
    ] {
        let got = condition(Some(Context::Log), text);
        let want = if text == "flags == 1 + 1.5" { want.replacen("9", "13", 1) } else { want.to_owned() };
        assert_eq!(got, want, "{text}");
    }
}

#[test]
fn statements() {
    for (context, text, want) in [
        (Context::Log, "", "0: statement cannot be empty"),
        (
            Context::Log,
            "body == 1",
            "5: expected \"(\" after the editor's name, found \"==\" | write it as in: set(attributes[\"key\"], \"value\") where name == \"x\"",
        ),
        (
            Context::Log,
            "1",
            "0: a statement begins with the name of an editor | write it as in: set(attributes[\"key\"], \"value\") where name == \"x\"",
        ),
        (
            Context::Log,
            "IsString(body)",
            "0: IsString is a converter: it gives a value and changes nothing | write it as in: set(attributes[\"key\"], \"value\") where name == \"x\"",
        ),
        (
            Context::Log,
            "delete_keys(attributes, \"a\")",
            "0: the editor delete_keys is not supported | did you mean delete_key?",
        ),
        (
            Context::Metric,
            "convert_sum_to_gauge()",
            "0: the editor convert_sum_to_gauge is not supported | there are: set, delete_key, delete_matching_keys, keep_keys, keep_matching_keys, limit, truncate_all, merge_maps, replace_pattern, replace_match, replace_all_patterns, replace_all_matches",
        ),
        (
            Context::Log,
            "set(body)",
            "0: set needs the argument \"value\" | it is called as set(target, value)",
        ),
        (Context::Log, "set(1, 2)", "4: a path is needed here: this cannot be changed"),
        (Context::Log, "set(body, 1) if true", "13: expected an operator or the end, found \"if\""),
        (
            Context::Log,
            "set(body, 1) where body",
            "19: a value is no condition | compare it, as in: attributes[\"key\"] == true",
        ),
        (
            Context::Log,
            "set(resource.attributes[\"a\"], 1)",
            "4: changing a \"resource\" is not supported in the context \"log\" | put the statement in a group of its own with the context \"resource\"",
        ),
        (Context::Log, "set(otelcol.client.addr, 1)", "4: what the client sent cannot be changed"),
        (Context::Log, "set(severity_text, 1)", "19: \"value\" of set must be a string, not an integer"),
        (
            Context::Log,
            "set(flags, Concat([\"a\"], \"\"))",
            "11: \"value\" of set must be an integer, not a string",
        ),
        (Context::Log, "set(attributes, \"a\")", "16: \"value\" of set must be a map, not a string"),
        (
            Context::Log,
            "set(attributes[\"a\"], time)",
            "21: \"value\" of set must be a string or a boolean or an integer or a number or bytes or a list or a map, not a time",
        ),
        (
            Context::Log,
            "set(trace_id.string, \"a\")",
            "4: changing \"log.trace_id.string\" is not supported | set \"log.trace_id\"",
        ),
        (
            Context::Metric,
            "set(type, 1)",
            "4: changing \"metric.type\" is not supported | can be changed: name, description, unit, metadata",
        ),
        (
            Context::Span,
            "set(trace_state[\"a\"], \"b\")",
            "4: changing a member of the trace state is not supported | set the whole of it",
        ),
        (
            Context::Log,
            "delete_key(severity_text, \"a\")",
            "11: a map is needed here | attributes, a map in them, or a log's body",
        ),
        (
            Context::Log,
            "delete_key(attributes, 1)",
            "23: \"key\" of delete_key must be a string, not an integer",
        ),
        (
            Context::Log,
            "keep_keys(attributes, \"a\")",
            "22: a list of keys is needed here, as in [\"a\", \"b\"]",
        ),
        (Context::Log, "limit(attributes, -1)", "18: the limit must not be negative"),
        (
            Context::Log,
            "limit(attributes, 1, [\"a\", \"b\"])",
            "18: 2 priority keys do not fit into a limit of 1",
        ),
        (Context::Log, "truncate_all(attributes, \"a\")", "25: a whole number is needed here, written out"),
        (
            Context::Log,
            "truncate_all(attributes, 1, 2)",
            "28: only true is supported here | a text that is cut within a character is no text",
        ),
        (
            Context::Log,
            "merge_maps(attributes, body, \"replace\")",
            "29: \"replace\" is not supported here | write one of: insert, update, upsert",
        ),
        (
            Context::Log,
            "merge_maps(attributes, \"a\", \"insert\")",
            "23: \"source\" of merge_maps must be a map, not a string",
        ),
        (
            Context::Log,
            "replace_pattern(attributes, \"a\", \"b\")",
            "16: replace_pattern changes a text, and this is none",
        ),
        (
            Context::Log,
            "replace_pattern(flags, \"a\", \"b\")",
            "16: replace_pattern changes a text, and this is none",
        ),
        (Context::Log, "replace_pattern(body, \"(\", \"b\")", "22: not a regular expression: unclosed group"),
        (
            Context::Log,
            "replace_pattern(body, \"a\", \"b\", SHA2)",
            "32: the function SHA2 is not supported | did you mean SHA1?",
        ),
        (
            Context::Log,
            "replace_pattern(body, \"a\", \"b\", Split)",
            "32: Split does not make a text of a text",
        ),
        (Context::Log, "replace_pattern(body, \"a\", \"b\", SHA1, \"x\")", "38: the format needs one %s"),
        (
            Context::Log,
            "replace_all_patterns(attributes, \"keys\", \"a\", \"b\")",
            "33: \"keys\" is not supported here | write one of: key, value",
        ),
        (
            Context::Log,
            "replace_all_matches(attributes, \"[\", \"b\")",
            "32: not a regular expression: unclosed character class",
        ),
    ] {
        assert_eq!(statement(context, text), want, "{text}");
    }
}

#[test]
fn groups_say_which_text_is_wrong() {
    let parse = |context, conditions: &[&str], statements: &[&str]| {
        StatementGroup::parse(context, conditions, statements, Signal::Logs, ErrorMode::Ignore)
    };
    let wrong = parse(None, &["true", "log.x == 1"], &["set(log.body, 1)"]).unwrap_err();
    assert_eq!((wrong.part, wrong.error.offset), (Part::Condition(1), 4));
    let wrong = parse(None, &["true"], &["set(log.body, 1)", "set(log.x, 1)"]).unwrap_err();
    assert_eq!((wrong.part, wrong.error.offset), (Part::Statement(1), 8));
    assert_eq!(
        wrong.to_string(),
        "statement 2: the path \"log.x\" is not supported (at byte 8); there are: attributes, body, body.string, severity_number, severity_text, event_name, time_unix_nano, time, observed_time_unix_nano, observed_time, trace_id, trace_id.string, span_id, span_id.string, flags, dropped_attributes_count"
    );
    // A statement about another level than the group's.
    let wrong = parse(None, &["log.body == 1"], &["set(resource.attributes[\"a\"], 1)"]).unwrap_err();
    assert_eq!((wrong.part, wrong.error.offset), (Part::Statement(0), 4));
    // Inferred contexts leave no path without one.
    let wrong = parse(None, &[], &["set(log.body, 1)", "set(body, 1)"]).unwrap_err();
    assert_eq!(wrong.error.message, "the path \"body\" does not say of what");
}

#[test]
fn contexts_are_inferred() {
    for (signal, text, want) in [
        (Signal::Logs, "true", Context::Resource),
        (Signal::Logs, "otelcol.client.metadata[\"a\"] == \"b\"", Context::Resource),
        (Signal::Logs, "resource.attributes[\"a\"] == scope.name", Context::Scope),
        (Signal::Logs, "instrumentation_scope.name == log.body", Context::Log),
        (Signal::Traces, "IsRootSpan()", Context::Span),
        (
            Signal::Traces,
            "spanevent.name == span.name and resource.attributes[\"a\"] == 1",
            Context::SpanEvent,
        ),
        (Signal::Metrics, "HasAttrKeyOnDatapoint(\"a\")", Context::Metric),
        (Signal::Metrics, "metric.name == \"a\" or datapoint.count == 1", Context::DataPoint),
    ] {
        assert_eq!(Condition::parse(text, None, signal).unwrap().context(), want, "{text}");
    }
    let statement =
        Statement::parse("set(span.name, \"a\") where spanevent.name == \"b\"", None, Signal::Traces);
    assert!(told(statement.unwrap_err()).starts_with("4: changing a \"span\" is not supported"));
    let group = ConditionGroup::parse(
        None,
        &["span.name == \"a\"", "spanevent.name == \"b\""],
        Signal::Traces,
        ErrorMode::Ignore,
    );
    assert_eq!(group.unwrap().context(), Context::SpanEvent);
}
