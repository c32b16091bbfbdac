//! What each primitive takes from each kind of value, and what it says about the others.

use super::super::yaml::{Place, parse};
use super::*;

/// Decodes `text` over a value's default; returns it as written again and what was found.
fn decode<T: Config + Default>(text: &str) -> (serde_json::Value, Vec<String>) {
    over(T::default(), text)
}

fn over<T: Config>(mut value: T, text: &str) -> (serde_json::Value, Vec<String>) {
    let mut cx = Cx::default();
    let node = parse(text, Place::default(), &mut cx).unwrap();
    value.decode_into(&node, &mut cx);
    let found = cx.diags.into_iter().map(|d| match d.hint {
        Some(hint) => format!("{} | {hint}", d.message),
        None => d.message,
    });
    (value.to_json(), found.collect())
}

fn good<T: Config + Default>(cases: &[(&str, &str)]) {
    for (text, want) in cases {
        let (value, found) = decode::<T>(text);
        assert_eq!((value.to_string().as_str(), found), (*want, vec![]), "{text}");
    }
}

fn bad<T: Config + Default>(cases: &[(&str, &str)]) {
    let default = T::default().to_json();
    for (text, want) in cases {
        assert_eq!(decode::<T>(text), (default.clone(), vec![(*want).to_owned()]), "{text}");
    }
}

#[test]
fn booleans() {
    good::<bool>(&[("true", "true"), ("True", "true"), ("false", "false"), ("~", "false")]);
    bad::<bool>(&[
        ("'true'", "expected a boolean, got a string | write true or false, without quotes"),
        ("yes", "expected a boolean, got a string | write true or false, without quotes"),
        ("1", "expected a boolean, got an integer"),
        ("[]", "expected a boolean, got a list"),
    ]);
}

#[test]
fn integers() {
    good::<u16>(&[("8", "8"), ("65535", "65535"), ("0x10", "16"), ("1.9", "1"), ("", "0"), ("-0.5", "0")]);
    good::<i32>(&[("-2147483648", "-2147483648"), ("-1.9", "-1")]);
    good::<u64>(&[("18446744073709551615", "18446744073709551615")]);
    bad::<u16>(&[
        ("65536", "65536 is out of range: 0 to 65535"),
        ("-1", "-1 is out of range: 0 to 65535"),
        ("1e300", "170141183460469231731687303715884105727 is out of range: 0 to 65535"),
        ("'8'", "expected an integer, got a string | take the quotes off"),
        ("8 MiB", "expected an integer, got a string"),
        (".nan", "expected an integer, got a number"),
        ("true", "expected an integer, got a boolean"),
        ("{}", "expected an integer, got a mapping"),
    ]);
}

#[test]
fn numbers() {
    good::<f64>(&[("0.5", "0.5"), ("2", "2.0"), ("9007199254740993", "9007199254740992.0"), ("~", "0.0")]);
    bad::<f64>(&[("'0.5'", "expected a number, got a string"), ("[1]", "expected a number, got a list")]);
}

#[test]
fn text() {
    good::<String>(&[("a b", "\"a b\""), ("'1'", "\"1\""), ("yes", "\"yes\""), ("~", "\"\"")]);
    bad::<String>(&[
        ("1", "expected a string, got an integer | put it in quotes"),
        ("1.2", "expected a string, got a number | put it in quotes"),
        ("true", "expected a string, got a boolean | put it in quotes"),
        ("[a]", "expected a string, got a list"),
        ("{a: b}", "expected a string, got a mapping"),
    ]);
    // What was expanded keeps its spelling.
    let node = Node { expanded: Some("0123".to_owned()), ..Node::new(Default::default(), Value::Int(83)) };
    let (mut value, mut cx) = (String::new(), Cx::default());
    value.decode_into(&node, &mut cx);
    assert_eq!((value.as_str(), cx.diags), ("0123", vec![]));
}

#[test]
fn durations() {
    good::<Duration>(&[("1m30s", "\"90s\""), ("300ms", "\"300ms\""), ("0", "\"0s\""), ("~", "\"0s\"")]);
    let warned = "1500000 without a unit is nanoseconds: 1500us | write a unit, such as 300ms, 5s, 1m30s";
    assert_eq!(decode::<Duration>("1500000"), ("1500us".into(), vec![warned.to_owned()]));
    let warned = "1.9 without a unit is nanoseconds: 1ns | write a unit, such as 300ms, 5s, 1m30s";
    assert_eq!(decode::<Duration>("1.9"), ("1ns".into(), vec![warned.to_owned()]));
    bad::<Duration>(&[
        ("-1", "a duration must not be negative"),
        (
            "5 sec",
            "\" sec\" is not a unit of time in \"5 sec\" | write a number with a unit, such as 300ms, 5s, 1m30s",
        ),
        ("true", "expected a duration, got a boolean"),
        ("[1s]", "expected a duration, got a list"),
    ]);
}

#[test]
fn options() {
    good::<Option<u16>>(&[("1", "1"), ("~", "null")]);
    bad::<Option<u16>>(&[("x", "expected an integer, got a string")]);
    assert_eq!(over(Some(7u16), "~"), (7.into(), vec![]), "null keeps the default");
}

#[test]
fn lists() {
    good::<Vec<String>>(&[
        ("[a, 'b c']", r#"["a","b c"]"#),
        ("a,b", r#"["a","b"]"#),
        ("a, b", r#"["a"," b"]"#),
        ("''", "[]"),
        ("[]", "[]"),
    ]);
    good::<Vec<u16>>(&[("[1, 2]", "[1,2]")]);
    bad::<Vec<u16>>(&[("1", "expected a list, got an integer"), ("{}", "expected a list, got a mapping")]);
    assert_eq!(over(vec![1u16, 2], "~").0.to_string(), "[1,2]", "null keeps the default");
    assert_eq!(over(vec![1u16, 2], "[3]").0.to_string(), "[3]", "a list replaces the default");
    let (_, found) = decode::<Vec<u16>>("[1, x, -1]");
    assert_eq!(found.len(), 2, "every item is looked at");
}

#[test]
fn maps() {
    good::<BTreeMap<String, u16>>(&[("{b: 2, a: 1}", r#"{"a":1,"b":2}"#), ("~", "{}")]);
    bad::<BTreeMap<String, u16>>(&[
        ("[a]", "expected a mapping, got a list"),
        ("a", "expected a mapping, got a string"),
    ]);
}

#[test]
fn any_value() {
    good::<serde_json::Value>(&[("{a: [1, x, ~]}", r#"{"a":[1,"x",null]}"#), ("1.5", "1.5")]);
}
