//! Every mistake in a config is found where it stands, and nothing else is.

use serde_json::json;

use crate::config::types::Any;
use crate::config::{Config, Cx, Key, Node, Pos, Value};
use crate::pdata::Signal;
use crate::pipeline::{BuildContext, Ledger, Stage};
use crate::processors::attributes::{self, AttributesProcessorConfig};
use crate::processors::resource::{self, ResourceProcessorConfig};
use crate::telemetry::Metrics;

/// A node in which every value has a line of its own.
fn node(json: &serde_json::Value, line: &mut u32) -> Node {
    *line += 1;
    let pos = Pos { source: 0, line: *line, col: 1 };
    let value = match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(b) => Value::Bool(*b),
        serde_json::Value::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(i), _) => Value::Int(i),
            (None, Some(u)) => Value::UInt(u),
            (None, None) => Value::Float(n.as_f64().unwrap()),
        },
        serde_json::Value::String(s) => Value::Str(s.clone()),
        serde_json::Value::Array(items) => Value::Seq(items.iter().map(|i| node(i, line)).collect()),
        serde_json::Value::Object(map) => {
            Value::Map(map.iter().map(|(k, v)| (Key { pos, text: k.clone() }, node(v, line))).collect())
        }
    };
    Node::new(pos, value)
}

/// Where a path such as `actions/0/key` stands.
fn line_of(root: &Node, path: &str) -> u32 {
    let mut at = root;
    for segment in path.split('/').filter(|s| !s.is_empty()) {
        at = match &at.value {
            Value::Seq(items) => &items[segment.parse::<usize>().unwrap()],
            _ => at.get(segment).unwrap(),
        };
    }
    at.pos.line
}

fn decode<T: Config + Default>(json: &serde_json::Value) -> (T, Node, Cx) {
    let root = node(json, &mut 0);
    let (mut config, mut cx) = (T::default(), Cx::default());
    config.decode_into(&root, &mut cx);
    (config, root, cx)
}

fn context() -> BuildContext {
    BuildContext { id: "attributes".into(), metrics: Metrics::new(), ledger: Ledger::new(1 << 30) }
}

#[test]
fn mistakes_are_found_where_they_stand() {
    let act = |action: serde_json::Value| json!({"actions": [action]});
    let ok = json!({"key": "k", "action": "delete"});
    let include = |block: serde_json::Value| json!({"actions": [ok], "include": block});
    let cases = [
        (json!({}), "", "missing required field \"actions\""),
        (json!({"actions": []}), "actions", "missing required field \"actions\""),
        (act(json!({"key": "k"})), "actions/0", "missing required field \"action\""),
        (act(json!({"key": "k", "action": "inzert"})), "actions/0/action", "unsupported value \"inzert\""),
        (act(json!({"key": "k", "action": "insert"})), "actions/0", "needs a value"),
        (act(json!({"action": "insert", "value": 1})), "actions/0", "missing required field \"key\""),
        (act(json!({"action": "delete"})), "actions/0", "missing required field \"key\""),
        (
            act(json!({"key": "k", "action": "upsert", "value": 1, "from_attribute": "a"})),
            "actions/0/from_attribute",
            "more than one source",
        ),
        (
            act(json!({"key": "k", "action": "update", "from_attribute": "a", "from_context": "tenant"})),
            "actions/0/from_context",
            "more than one source",
        ),
        (
            act(json!({"key": "k", "action": "delete", "value": 1})),
            "actions/0/value",
            "\"delete\" takes no value",
        ),
        (
            act(json!({"key": "k", "action": "hash", "from_attribute": "a"})),
            "actions/0/from_attribute",
            "\"hash\" takes no from_attribute",
        ),
        (
            act(json!({"key": "k", "action": "convert", "converted_type": "int", "from_context": "a"})),
            "actions/0/from_context",
            "\"convert\" takes no from_context",
        ),
        (act(json!({"key": "k", "action": "extract"})), "actions/0", "missing required field \"pattern\""),
        (
            act(json!({"key": "k", "action": "extract", "pattern": "x"})),
            "actions/0/pattern",
            "no named group",
        ),
        (
            act(json!({"key": "k", "action": "extract", "pattern": "(?P<a>x)(y)"})),
            "actions/0/pattern",
            "a group without a name",
        ),
        (
            act(json!({"key": "k", "action": "delete", "pattern": "(x"})),
            "actions/0/pattern",
            "unclosed group",
        ),
        (
            act(json!({"key": "k", "action": "insert", "value": 1, "pattern": "x"})),
            "actions/0/pattern",
            "takes no pattern",
        ),
        (
            act(json!({"key": "k", "action": "convert"})),
            "actions/0",
            "missing required field \"converted_type\"",
        ),
        (
            act(json!({"key": "k", "action": "convert", "converted_type": "long"})),
            "actions/0/converted_type",
            "unsupported value \"long\"",
        ),
        (
            act(json!({"key": "k", "action": "delete", "converted_type": "int"})),
            "actions/0/converted_type",
            "takes no converted_type",
        ),
        (
            act(json!({"key": "k", "action": "insert", "value": 18_446_744_073_709_551_615u64})),
            "actions/0/value",
            "out of range",
        ),
        (include(json!({"services": ["a"]})), "include", "missing required field \"match_type\""),
        (include(json!({"match_type": "strict"})), "include", "no criteria"),
        (
            include(json!({"match_type": "glob", "services": ["a"]})),
            "include/match_type",
            "unsupported value \"glob\"",
        ),
        (
            include(json!({"match_type": "regexp", "services": ["a", "("]})),
            "include/services/1",
            "unclosed group",
        ),
        (
            include(json!({"match_type": "regexp", "attributes": [{"key": "a", "value": "["}]})),
            "include/attributes/0/value",
            "not a valid regular expression",
        ),
        (
            include(json!({"match_type": "regexp", "resources": [{"key": "a", "value": 1}]})),
            "include/resources/0/value",
            "must be a string",
        ),
        (
            include(json!({"match_type": "strict", "resources": [{"key": "a", "value": [1]}]})),
            "include/resources/0/value",
            "only a string, number or boolean",
        ),
        (
            include(json!({"match_type": "strict", "attributes": [{"value": 1}]})),
            "include/attributes/0",
            "missing required field \"key\"",
        ),
        (
            include(json!({"match_type": "strict", "libraries": [{"version": "1"}]})),
            "include/libraries/0",
            "missing required field \"name\"",
        ),
        (
            include(json!({"match_type": "regexp", "libraries": [{"name": "a", "version": "("}]})),
            "include/libraries/0/version",
            "unclosed group",
        ),
        (
            include(json!({"match_type": "strict", "span_kinds": ["SPAN_KIND_SERVR"]})),
            "include/span_kinds/0",
            "no kind of span",
        ),
        (
            include(json!({"match_type": "strict", "log_severity_number": {"min": "LOUD"}})),
            "include/log_severity_number/min",
            "no severity",
        ),
        (
            include(json!({"match_type": "strict", "log_severity_number": {"min": 25}})),
            "include/log_severity_number/min",
            "out of range",
        ),
    ];
    for (json, path, message) in cases {
        let (_, root, cx) = decode::<AttributesProcessorConfig>(&json);
        let [found] = cx.diags.as_slice() else { panic!("{json}: {:?}", cx.diags) };
        assert!(found.message.contains(message), "{json}: {}", found.message);
        assert_eq!(found.pos.line, line_of(&root, path), "{json}: {}", found.message);
    }
    let (_, _, cx) = decode::<ResourceProcessorConfig>(&json!({}));
    assert_eq!(cx.diags[0].message, "missing required field \"attributes\"");
}

#[test]
fn what_the_collector_takes_is_taken() {
    let json = json!({
        "actions": [
            {"key": "a", "value": 1, "action": "INSERT"},
            {"key": "b", "value": [1, "x", {"y": 2.5}], "action": "Upsert"},
            {"key": "c", "from_attribute": "a", "action": "update"},
            {"key": "d", "from_context": "metadata.x-tenant", "action": "upsert"},
            {"pattern": "^http\\.", "action": "delete"},
            {"key": "f", "pattern": "x", "action": "hash"},
            {"key": "g", "pattern": "(?P<x>.)", "action": "extract"},
            {"key": "h", "converted_type": "double", "action": "convert"}
        ],
        "include": {
            "match_type": "regexp",
            "regexp": {"cacheenabled": true, "cachemaxnumentries": 1000},
            "services": ["checkout", "shop-.*"],
            "resources": [{"key": "host.name", "value": "^web"}],
            "libraries": [{"name": "io", "version": "1"}]
        },
        "exclude": {"match_type": "strict", "attributes": [{"key": "x"}, {"key": "y", "value": false}]}
    });
    let (config, _, cx) = decode::<AttributesProcessorConfig>(&json);
    assert_eq!(cx.diags, []);
    assert_eq!(
        config.actions[1].value,
        Any::List(vec![Any::Int(1), Any::Str("x".into()), Any::Map(vec![("y".into(), Any::Float(2.5))])])
    );
    assert!(matches!(attributes::build(&config, Signal::Traces, &context()), Ok(Stage::Edit(_))));
    assert!(matches!(attributes::build(&config, Signal::Logs, &context()), Ok(Stage::Edit(_))));
    let severities = [("INFO", 9), ("warn2", 14), ("FATAL4", 24), ("TRACE", 1)];
    for (name, number) in severities {
        let json = json!({
            "actions": [{"key": "a", "action": "delete"}],
            "include": {"match_type": "strict", "log_severity_number": {"min": name, "match_undefined": true}}
        });
        let (config, _, cx) = decode::<AttributesProcessorConfig>(&json);
        assert_eq!(cx.diags, []);
        assert_eq!(config.include.unwrap().log_severity_number.unwrap().min.0, number);
    }
    let (config, _, cx) = decode::<ResourceProcessorConfig>(
        &json!({"attributes": [{"key": "a", "value": true, "action": "upsert"}]}),
    );
    assert_eq!(cx.diags, []);
    assert!(matches!(resource::build(&config, Signal::Metrics, &context()), Ok(Stage::Edit(_))));
}

#[test]
fn criteria_have_to_fit_the_signal() {
    let all = [
        ("services", json!(["a"]), [true, true, true]),
        ("span_names", json!(["a"]), [true, false, false]),
        ("span_kinds", json!(["SPAN_KIND_SERVER"]), [true, false, false]),
        ("log_bodies", json!(["a"]), [false, false, true]),
        ("log_severity_texts", json!(["a"]), [false, false, true]),
        ("log_severity_number", json!({"min": 9}), [false, false, true]),
        ("metric_names", json!(["a"]), [false, true, false]),
        ("attributes", json!([{"key": "a"}]), [true, false, true]),
        ("resources", json!([{"key": "a"}]), [true, true, true]),
        ("libraries", json!([{"name": "a"}]), [true, true, true]),
    ];
    for (key, value, fits) in all {
        for section in ["include", "exclude"] {
            let mut json =
                json!({"actions": [{"key": "a", "action": "delete"}], section: {"match_type": "strict"}});
            json[section][key] = value.clone();
            let (config, _, cx) = decode::<AttributesProcessorConfig>(&json);
            assert_eq!(cx.diags, [], "{key}");
            for signal in Signal::ALL {
                match attributes::build(&config, signal, &context()) {
                    Ok(_) => assert!(fits[signal.index()], "{key} {signal:?}"),
                    Err(why) => {
                        assert!(!fits[signal.index()], "{key} {signal:?}: {why}");
                        assert!(
                            why.contains(key) && why.contains(section) && why.contains(signal.name()),
                            "{why}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_config_that_was_never_decoded_is_checked_too() {
    let config = ResourceProcessorConfig { attributes: vec![Default::default()] };
    assert!(resource::build(&config, Signal::Logs, &context()).is_err());
}
