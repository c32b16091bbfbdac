//! Units: codes of UCUM to the words that Prometheus uses in names and metadata.
//!
//! A unit is a main part and, behind the first `/`, a per part. What stands in braces is a remark and no
//! unit. What is in neither table stays as it is.

use std::borrow::Cow;

use super::is_word_char;

/// The words for the main part and, without `per_`, for the per part. Either may be empty.
pub(super) fn words(unit: &str) -> (&str, &str) {
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    let meant = |part: &'_ str| !part.contains(['{', '}']);
    let (main, per) = (main.trim(), per.trim());
    (if meant(main) { main_word(main) } else { "" }, if meant(per) { per_word(per) } else { "" })
}

/// As [`words`], in the characters of metric names; the main part may end with `_`.
pub(super) fn escaped(unit: &str) -> (Cow<'_, str>, Cow<'_, str>) {
    let (main, per) = words(unit);
    let mut per = clean(per);
    if per.ends_with('_') {
        per.to_mut().pop();
    }
    (clean(main), per)
}

/// The unit of metadata in the characters of metric names.
pub(super) fn metadata(unit: &str) -> String {
    let (main, per) = escaped(unit);
    join(main.strip_suffix('_').unwrap_or(&main), &per)
}

/// The unit of metadata in all characters.
pub(super) fn metadata_utf8(unit: &str) -> String {
    let (main, per) = words(unit);
    let joined = join(main, per);
    let text = joined.strip_prefix('_').unwrap_or(&joined);
    text.strip_suffix('_').unwrap_or(text).to_owned()
}

fn join(main: &str, per: &str) -> String {
    let mut out = main.to_owned();
    if !per.is_empty() {
        if !main.is_empty() {
            out.push('_');
        }
        out.push_str("per_");
        out.push_str(per);
    }
    out
}

/// What is no character of words becomes `_`; runs of it become one, and none stands at the start.
fn clean(word: &str) -> Cow<'_, str> {
    if word.chars().all(is_word_char) {
        return Cow::Borrowed(word);
    }
    let mut out = String::with_capacity(word.len());
    for c in word.chars() {
        if is_word_char(c) {
            out.push(c);
        } else if !out.is_empty() && !out.ends_with('_') {
            out.push('_');
        }
    }
    Cow::Owned(out)
}

/// Spelt as Prometheus' translator spells them, `tibibytes` and `KBy` included: queries depend on it.
fn main_word(code: &str) -> &str {
    match code {
        "d" => "days",
        "h" => "hours",
        "min" => "minutes",
        "s" => "seconds",
        "ms" => "milliseconds",
        "us" => "microseconds",
        "ns" => "nanoseconds",
        "By" => "bytes",
        "KiBy" => "kibibytes",
        "MiBy" => "mebibytes",
        "GiBy" => "gibibytes",
        "TiBy" => "tibibytes",
        "KBy" => "kilobytes",
        "MBy" => "megabytes",
        "GBy" => "gigabytes",
        "TBy" => "terabytes",
        "m" => "meters",
        "V" => "volts",
        "A" => "amperes",
        "J" => "joules",
        "W" => "watts",
        "g" => "grams",
        "Cel" => "celsius",
        "Hz" => "hertz",
        "1" => "",
        "%" => "percent",
        other => other,
    }
}

fn per_word(code: &str) -> &str {
    match code {
        "s" => "second",
        "m" => "minute",
        "h" => "hour",
        "d" => "day",
        "w" => "week",
        "mo" => "month",
        "y" => "year",
        other => other,
    }
}
