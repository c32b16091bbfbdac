//! Values and numbers by tables, and by reading back what was written.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1 as pb;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use proptest::prelude::*;
use prost::Message;

use super::*;

fn holding(value: impl Into<Option<Value>>) -> pb::AnyValue {
    pb::AnyValue { value: value.into() }
}

fn string(text: &str) -> Value {
    Value::StringValue(text.to_owned())
}

fn list(values: Vec<Option<Value>>) -> Value {
    Value::ArrayValue(pb::ArrayValue { values: values.into_iter().map(holding).collect() })
}

fn map(pairs: Vec<(&str, Option<Value>)>) -> Value {
    let pair = |(key, value): (&str, Option<Value>)| pb::KeyValue {
        key: key.to_owned(),
        value: Some(holding(value)),
        ..Default::default()
    };
    Value::KvlistValue(pb::KeyValueList { values: pairs.into_iter().map(pair).collect() })
}

fn text(value: impl Into<Option<Value>>) -> String {
    let mut out = "before ".to_owned();
    value_text(&AnyValue::parse(&holding(value).encode_to_vec()).unwrap(), &mut out);
    out.strip_prefix("before ").unwrap().to_owned()
}

fn written(put: impl Fn(f64, &mut String), value: f64) -> String {
    let mut out = "1e+before".to_owned();
    put(value, &mut out);
    out.strip_prefix("1e+before").unwrap().to_owned()
}

#[test]
fn attribute_values() {
    let keys = vec![
        ("strKey", Some(string("strVal"))),
        ("nullKey", None),
        ("mapKey", Some(map(vec![("keyTwo", Some(string("valTwo"))), ("keyOne", Some(string("valOne")))]))),
        ("intKey", Some(Value::IntValue(7))),
        ("floatKey", Some(Value::DoubleValue(18.6))),
        ("boolKey", Some(Value::BoolValue(false))),
        ("arrKey", Some(list(vec![Some(string("strOne")), Some(string("strTwo"))]))),
    ];
    let mixed = vec![
        Some(string("strVal")),
        Some(Value::IntValue(7)),
        Some(Value::DoubleValue(18.6)),
        Some(Value::BoolValue(false)),
        None,
    ];
    let all_keys = r#"{"arrKey":["strOne","strTwo"],"boolKey":false,"floatKey":18.6,"intKey":7,"mapKey":{"keyOne":"valOne","keyTwo":"valTwo"},"nullKey":null,"strKey":"strVal"}"#;
    let not_numbers = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(|d| Some(Value::DoubleValue(d)));
    let table = [
        (Some(string("as \"is\"\n")), "as \"is\"\n"),
        (Some(Value::BoolValue(true)), "true"),
        (Some(Value::BoolValue(false)), "false"),
        (Some(Value::IntValue(-7)), "-7"),
        (Some(Value::IntValue(i64::MIN)), "-9223372036854775808"),
        (Some(Value::DoubleValue(1.61803399)), "1.61803399"),
        (Some(Value::DoubleValue(f64::NAN)), "NaN"),
        (Some(Value::BytesValue(vec![1, 2, 3])), "AQID"),
        (Some(Value::BytesValue(vec![0xfb, 0xff])), "+/8="),
        (Some(list(mixed)), r#"["strVal",7,18.6,false,null]"#),
        (Some(list(vec![])), "[]"),
        (Some(map(vec![])), "{}"),
        (Some(map(keys)), all_keys),
        (Some(map(vec![("key", Some(string("<a href=\"x\">&y</a>")))])), r#"{"key":"<a href=\"x\">&y</a>"}"#),
        (Some(list(not_numbers.into())), r#"["NaN","Infinity","-Infinity"]"#),
        (Some(list(vec![Some(Value::BytesValue(vec![1]))])), r#"["AQ=="]"#),
        (
            Some(list(vec![Some(string("\u{8}\u{c}\n\r\t\u{1}\u{7f}\\é\u{2028}"))])),
            "[\"\\b\\f\\n\\r\\t\\u0001\u{7f}\\\\é\\u2028\"]",
        ),
        (
            Some(map(vec![
                ("b", Some(Value::IntValue(1))),
                ("a", Some(Value::IntValue(2))),
                ("b", Some(Value::IntValue(3))),
            ])),
            r#"{"a":2,"b":3}"#,
        ),
        (None, ""),
    ];
    for (value, want) in table {
        assert_eq!(text(value.clone()), want, "{value:?}");
    }
}

#[test]
fn text_that_is_no_utf8() {
    let mut out = String::new();
    value_text(&AnyValue::Str(b"a\xff\xfeb\xe5\xad"), &mut out);
    assert_eq!(out, "a\u{fffd}\u{fffd}b\u{fffd}");
    // A list with one string that is one wrong byte.
    out.clear();
    value_text(&AnyValue::parse(&[0x2a, 5, 0x0a, 3, 0x0a, 1, 0xff]).unwrap(), &mut out);
    assert_eq!(out, "[\"\u{fffd}\"]");
}

#[test]
fn nesting_ends_at_the_bound() {
    let nested = |depth| (0..depth).fold(Value::BoolValue(true), |inner, _| list(vec![Some(inner)]));
    let allowed = MAX_VALUE_DEPTH as usize - 1;
    assert_eq!(text(nested(allowed)), format!("{}true{}", "[".repeat(allowed), "]".repeat(allowed)));
    let deeper = text(nested(allowed + 20));
    assert_eq!(deeper, format!("{}null{}", "[".repeat(allowed + 1), "]".repeat(allowed + 1)));
}

#[test]
fn lists_that_cannot_be_read_on_end_there() {
    // A list of `true` and of something that promises more bytes than there are.
    let broken = [0x2a, 6, 0x0a, 2, 0x10, 1, 0x0a, 9];
    let mut out = String::new();
    value_text(&AnyValue::parse(&broken).unwrap(), &mut out);
    assert_eq!(out, "[true]");
}

#[test]
fn doubles_of_attributes() {
    let table = [
        (1.61803399, "1.61803399"),
        (9e-9, "9e-9"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (1.23e-6, "0.00000123"),
        (9.99e-7, "9.99e-7"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (-1.5e21, "-1.5e+21"),
        (f64::MAX, "1.7976931348623157e+308"),
        (f64::from_bits(1), "5e-324"),
        (1e6, "1000000"),
        (2.5, "2.5"),
        (100.0, "100"),
        (0.0, "0"),
        (-0.0, "-0"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "Infinity"),
        (f64::NEG_INFINITY, "-Infinity"),
    ];
    for (value, want) in table {
        assert_eq!(written(js_double, value), want);
    }
}

#[test]
fn bounds_and_quantiles() {
    let table = [
        (0.5, "0.5", "0.5"),
        (1.0, "1", "1.0"),
        (100.0, "100", "100.0"),
        (1e6, "1000000", "1e+06"),
        (1e21, "1000000000000000000000", "1e+21"),
        (1e-7, "0.0000001", "1e-07"),
        (-0.5, "-0.5", "-0.5"),
        (f64::INFINITY, "+Inf", "+Inf"),
        (f64::NEG_INFINITY, "-Inf", "-Inf"),
        (f64::NAN, "NaN", "NaN"),
        (0.0, "0", "0.0"),
        (-0.0, "-0", "0.0"),
        (1e-5, "0.00001", "1e-05"),
        (0.0001, "0.0001", "0.0001"),
        (0.99, "0.99", "0.99"),
        (0.001, "0.001", "0.001"),
        (-1.0, "-1", "-1.0"),
        (123456789.0, "123456789", "1.23456789e+08"),
        (1e100, &format!("1{}", "0".repeat(100)), "1e+100"),
    ];
    for (value, plain, openmetrics) in table {
        assert_eq!(written(plain_double, value), plain);
        assert_eq!(written(openmetrics_double, value), openmetrics);
    }
}

#[test]
fn sample_values() {
    // As Go's `strconv.FormatFloat(value, 'g', -1, 64)` prints them.
    let table = [
        (1e6, "1e+06"),
        (123456789.0, "1.23456789e+08"),
        (999999.0, "999999"),
        (1234567.0, "1.234567e+06"),
        (1e20, "1e+20"),
        (1e21, "1e+21"),
        (0.0001, "0.0001"),
        (1e-5, "1e-05"),
        (99999.5, "99999.5"),
        (0.1, "0.1"),
        (100000.0, "100000"),
        (-0.0, "-0"),
        (12345678901234567890.0, "1.2345678901234567e+19"),
        (2.5e-5, "2.5e-05"),
        (f64::from_bits(1), "5e-324"),
        (f64::INFINITY, "+Inf"),
        (f64::NEG_INFINITY, "-Inf"),
        (9007199254740993i64 as f64, "9.007199254740992e+15"),
    ];
    for (value, want) in table {
        assert_eq!(written(|v, out| sample_double(v.to_bits(), out), value), want);
    }
    for nan in [0x7ff0_0000_0000_0002u64, 0x7ff8_0000_0000_0001, u64::MAX] {
        let mut out = String::new();
        sample_double(nan, &mut out);
        assert_eq!(out, "NaN");
    }
}

fn arb_value() -> impl Strategy<Value = pb::AnyValue> {
    let leaf = prop_oneof![
        Just(None),
        any::<bool>().prop_map(|b| Some(Value::BoolValue(b))),
        any::<i64>().prop_map(|i| Some(Value::IntValue(i))),
        any::<f64>().prop_map(|d| Some(Value::DoubleValue(d))),
        any::<u64>().prop_map(|d| Some(Value::DoubleValue(f64::from_bits(d)))),
        ".{0,6}".prop_map(|s| Some(Value::StringValue(s))),
        any::<Vec<u8>>().prop_map(|b| Some(Value::BytesValue(b))),
    ];
    let value = leaf.prop_recursive(4, 24, 5, |inner| {
        let inner = inner.prop_map(|value| pb::AnyValue { value });
        let pair = ("[a-c\"é]{0,2}", proptest::option::of(inner.clone()));
        let pair = pair.prop_map(|(key, value)| pb::KeyValue { key, value, ..Default::default() });
        prop_oneof![
            proptest::collection::vec(inner, 0..5)
                .prop_map(|values| Some(Value::ArrayValue(pb::ArrayValue { values }))),
            proptest::collection::vec(pair, 0..5)
                .prop_map(|values| Some(Value::KvlistValue(pb::KeyValueList { values }))),
        ]
    });
    value.prop_map(|value| pb::AnyValue { value })
}

/// What a value means as JSON, from the generated types.
fn meaning(value: &pb::AnyValue) -> serde_json::Value {
    match &value.value {
        None | Some(Value::StringValueStrindex(_)) => serde_json::Value::Null,
        Some(Value::StringValue(text)) => text.clone().into(),
        Some(Value::BoolValue(truth)) => (*truth).into(),
        Some(Value::IntValue(number)) => (*number).into(),
        Some(Value::DoubleValue(d)) if d.is_nan() => "NaN".into(),
        Some(Value::DoubleValue(d)) if d.is_infinite() && *d > 0.0 => "Infinity".into(),
        Some(Value::DoubleValue(d)) if d.is_infinite() => "-Infinity".into(),
        Some(Value::DoubleValue(d)) => serde_json::from_str(&format!("{d:?}")).unwrap(),
        Some(Value::ArrayValue(list)) => list.values.iter().map(meaning).collect(),
        Some(Value::KvlistValue(map)) => {
            let empty = pb::AnyValue::default();
            let pairs = map.values.iter().map(|pair| (&pair.key, pair.value.as_ref().unwrap_or(&empty)));
            let sorted: BTreeMap<_, _> = pairs.map(|(key, value)| (key.clone(), meaning(value))).collect();
            sorted.into_iter().collect()
        }
        Some(Value::BytesValue(bytes)) => STANDARD.encode(bytes).into(),
    }
}

/// Whether two documents are the same, keys in the same order; `1` and `1.0` are one number.
fn same(a: &serde_json::Value, b: &serde_json::Value) -> bool {
    use serde_json::Value as J;
    match (a, b) {
        (J::Array(a), J::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (J::Object(a), J::Object(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((k, a), (l, b))| k == l && same(a, b))
        }
        (J::Number(a), J::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (a, b) => a == b,
    }
}

proptest! {
    #[test]
    fn nested_values_are_json_that_means_the_same(value in arb_value()) {
        let value = pb::AnyValue { value: Some(Value::ArrayValue(pb::ArrayValue { values: vec![value] })) };
        let mut out = String::new();
        value_text(&AnyValue::parse(&value.encode_to_vec()).unwrap(), &mut out);
        let read: serde_json::Value = serde_json::from_str(&out).unwrap();
        prop_assert!(same(&read, &meaning(&value)), "{}", out);
    }

    #[test]
    fn any_bytes_give_text(bytes: Vec<u8>) {
        if let Ok(value) = AnyValue::parse(&bytes) {
            let mut out = String::new();
            value_text(&value, &mut out);
            prop_assert!(out.len() <= 8 * bytes.len() + 32, "{}", out);
        }
    }

    #[test]
    fn numbers_read_back(bits: u64) {
        let value = f64::from_bits(bits);
        let forms: [fn(f64, &mut String); 4] =
            [js_double, plain_double, openmetrics_double, |v, out| sample_double(v.to_bits(), out)];
        for put in forms {
            let read: f64 = written(put, value).parse().unwrap();
            prop_assert!(read == value || read.is_nan() && value.is_nan());
        }
        let sample = written(|v, out| sample_double(v.to_bits(), out), value);
        let exponent = !value.is_nan() && value.is_finite() && !(1e-4..1e6).contains(&value.abs());
        prop_assert_eq!(sample.contains('e'), exponent && value != 0.0, "{}", sample);
        prop_assert!(!written(plain_double, value).contains('e'));
    }
}
