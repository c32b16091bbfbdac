//! What a plain scalar means: the rules of the Go YAML v3 library, which the Collector reads its files with.
//!
//! YAML 1.2's core schema, plus what that library keeps of 1.1: underscores in numbers, `0b`, and a leading zero
//! for octal. `yes`, `no`, `on` and `off` are text.

use super::node::Value;

/// Types a plain scalar.
pub fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Value::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Value::Str(text.to_owned());
    }
    number(text).unwrap_or_else(|| Value::Str(text.to_owned()))
}

/// The number a plain scalar spells, if it spells one.
pub fn number(text: &str) -> Option<Value> {
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    integer(&plain).or_else(|| is_float(&plain).then(|| plain.parse().ok().map(Value::Float)).flatten())
}

fn integer(text: &str) -> Option<Value> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    let prefix = digits.get(..2).map(str::to_ascii_lowercase);
    let (radix, digits) = match prefix.as_deref() {
        Some("0x") => (16, digits.get(2..)?),
        Some("0o") => (8, digits.get(2..)?),
        Some("0b") => (2, digits.get(2..)?),
        Some(two) if two.starts_with('0') => (8, digits.get(1..)?),
        _ => (10, digits),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let wide = u64::from_str_radix(digits, radix).ok()?;
    match (negative, i64::try_from(wide)) {
        (false, Ok(value)) => Some(Value::Int(value)),
        (false, Err(_)) => Some(Value::UInt(wide)),
        (true, _) => i64::try_from(-i128::from(wide)).ok().map(Value::Int),
    }
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (text, None),
    };
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    let mantissa_ok = match mantissa.split_once('.') {
        Some(("", after)) => !after.is_empty() && digits(after),
        Some((before, after)) => digits(before) && digits(after),
        None => !mantissa.is_empty() && digits(mantissa),
    };
    mantissa_ok && exponent.is_none_or(|e| !e.is_empty() && digits(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars() {
        for (text, value) in [
            ("12", Value::Int(12)),
            ("+12", Value::Int(12)),
            ("-12", Value::Int(-12)),
            ("0", Value::Int(0)),
            ("0x1F", Value::Int(31)),
            ("-0x1f", Value::Int(-31)),
            ("0o17", Value::Int(15)),
            ("017", Value::Int(15)),
            ("0b101", Value::Int(5)),
            ("1_000", Value::Int(1000)),
            ("9223372036854775807", Value::Int(i64::MAX)),
            ("9223372036854775808", Value::UInt(1 << 63)),
            ("-9223372036854775808", Value::Int(i64::MIN)),
            ("18446744073709551616", Value::Float(18446744073709551616.0)),
            ("08", Value::Float(8.0)),
            ("1.5", Value::Float(1.5)),
            ("1.", Value::Float(1.0)),
            (".5", Value::Float(0.5)),
            ("1e3", Value::Float(1000.0)),
            ("-1.5E-2", Value::Float(-0.015)),
            (".inf", Value::Float(f64::INFINITY)),
            ("-.Inf", Value::Float(f64::NEG_INFINITY)),
            ("~", Value::Null),
            ("", Value::Null),
            ("True", Value::Bool(true)),
        ] {
            assert_eq!(resolve(text), value, "{text}");
        }
        for text in [
            "yes",
            "no",
            "on",
            "off",
            "tRue",
            "nan",
            "inf",
            "-",
            "+",
            ".",
            "..",
            "1.2.3",
            "1h",
            "0x",
            "0xg",
            "1e",
            "e3",
            "127.0.0.1:80",
            "2020-01-01",
            "--1",
            "_1",
            "1:2",
            "-.",
            "infinity",
            "nUll",
            "0o8",
            "0b2",
        ] {
            assert_eq!(resolve(text), Value::Str(text.to_owned()), "{text}");
        }
        assert!(matches!(resolve(".nan"), Value::Float(f) if f.is_nan()));
    }
}
