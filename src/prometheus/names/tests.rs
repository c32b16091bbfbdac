//! Names by the tables that senders agree on, and by the slow version.

use proptest::prelude::*;

use super::Shape::{Counter, Gauge, Histogram, UpDown};
use super::TranslationStrategy::{
    NoTranslation, NoUtf8EscapingWithSuffixes, UnderscoreEscapingWithSuffixes,
    UnderscoreEscapingWithoutSuffixes,
};
use super::*;

const STRATEGIES: [TranslationStrategy; 4] = [
    UnderscoreEscapingWithSuffixes,
    UnderscoreEscapingWithoutSuffixes,
    NoUtf8EscapingWithSuffixes,
    NoTranslation,
];

/// Stands for a name that cannot be made.
const ERR: &str = "(error)";
/// Stands for a name that nobody defined.
const ANY: &str = "(any)";

fn metric(
    strategy: TranslationStrategy,
    namespace: &str,
    name: &str,
    unit: &str,
    shape: Shape,
) -> Result<String, NameError> {
    let mut out = "before ".to_owned();
    let made = Namer::new(strategy, namespace).metric(name, unit, shape, &mut out);
    assert!(out.starts_with("before ") && (made.is_ok() || out == "before "), "{out}");
    made.map(|()| out["before ".len()..].to_owned())
}

fn label(rules: LabelRules, key: &str) -> Result<String, NameError> {
    let mut out = "before ".to_owned();
    let made = rules.put(key, &mut out);
    assert!(out.starts_with("before ") && (made.is_ok() || out == "before "), "{out}");
    made.map(|()| out["before ".len()..].to_owned())
}

#[test]
fn metric_names() {
    // Namespace, name, unit, shape; with suffixes, without, in UTF-8 with suffixes.
    #[rustfmt::skip]
    let table: &[(&str, &str, &str, Shape, [&str; 3])] = &[
        ("", "system.io", "By/s", Counter, ["system_io_bytes_per_second_total", "system_io", "system.io_bytes_per_second_total"]),
        ("", "network.transmitted.bytes.total", "By", Counter, ["network_transmitted_bytes_total", "network_transmitted_bytes_total", "network.transmitted.bytes_total"]),
        ("", "http.server.request.duration", "s", Histogram, ["http_server_request_duration_seconds", "http_server_request_duration", "http.server.request.duration_seconds"]),
        ("", "system.cpu.utilization", "1", Gauge, ["system_cpu_utilization_ratio", "system_cpu_utilization", "system.cpu.utilization_ratio"]),
        ("", "system.cpu.utilization", "1", UpDown, ["system_cpu_utilization", "system_cpu_utilization", "system.cpu.utilization"]),
        ("", "process.cpu.time", "s", Counter, ["process_cpu_time_seconds_total", "process_cpu_time", "process.cpu.time_seconds_total"]),
        ("", "process.memory.usage", "By", UpDown, ["process_memory_usage_bytes", "process_memory_usage", "process.memory.usage_bytes"]),
        ("", "http.server.active_requests", "{request}", UpDown, ["http_server_active_requests", "http_server_active_requests", "http.server.active_requests"]),
        ("", "requests", "1/s", Gauge, ["requests_per_second", "requests", "requests_per_second"]),
        ("", "queue.rate", "{messages}/s", Gauge, ["queue_rate_per_second", "queue_rate", "queue.rate_per_second"]),
        ("", "foo.total.bar", "", Counter, ["foo_bar_total", "foo_total_bar", "foo.total.bar_total"]),
        ("", "total", "", Counter, ["total", "total", "total_total"]),
        ("", "ratio.of.things", "1", Gauge, ["of_things_ratio", "ratio_of_things", "ratio.of.things_ratio"]),
        ("", "_private.metric", "", Gauge, ["private_metric", "_private_metric", "_private.metric"]),
        ("", "5xx.errors", "", Counter, ["_5xx_errors_total", "_5xx_errors", "5xx.errors_total"]),
        ("", "cpu_seconds", "s", Counter, ["cpu_seconds_total", "cpu_seconds", "cpu_seconds_total"]),
        ("", "seconds.since.boot", "s", Gauge, ["seconds_since_boot", "seconds_since_boot", "seconds.since.boot_seconds"]),
        ("", "a..b", "", Gauge, ["a_b", "a_b", "a..b"]),
        ("", "ns:rule.metric", "", Gauge, ["ns:rule_metric", "ns:rule_metric", "ns:rule.metric"]),
        ("", "io.wait_", "ms", Gauge, ["io_wait_milliseconds", "io_wait_", "io.wait__milliseconds"]),
        ("", "memory", "TiBy", Gauge, ["memory_tibibytes", "memory", "memory_tibibytes"]),
        ("", "disk", "kBy", Gauge, ["disk_kBy", "disk", "disk_kBy"]),
        ("", "disk", "KBy", Gauge, ["disk_kilobytes", "disk", "disk_kilobytes"]),
        ("", "speed", "km/h", Gauge, ["speed_km_per_hour", "speed", "speed_km_per_hour"]),
        ("", "x", "m/min", Gauge, ["x_meters_per_min", "x", "x_meters_per_min"]),
        ("", "m%", "%", Gauge, ["m_percent", "m", "m%_percent"]),
        ("", "temp", "Cel", Gauge, ["temp_celsius", "temp", "temp_celsius"]),
        ("", "metric.per_second", "1/s", Gauge, ["metric_per_second_per_second", "metric_per_second", "metric_per_second"]),
        ("", "metric@with#special$chars", "", Gauge, ["metric_with_special_chars", "metric_with_special_chars", "metric@with#special$chars"]),
        ("", "custom_metric", "unit@with#special/chars", Gauge, ["custom_metric_unit_with_special_per_chars", "custom_metric", "custom_metric_unit@with#special_per_chars"]),
        ("", "metric__with__multiple__underscores", "unit__multiple__underscores", Gauge, ["metric_with_multiple_underscores_unit_multiple_underscores", "metric__with__multiple__underscores", "metric__with__multiple__underscores_unit__multiple__underscores"]),
        ("", "metric", " By / s ", Gauge, ["metric_bytes_per_second", "metric", "metric_bytes_per_second"]),
        ("", "metric", "By/", Gauge, ["metric_bytes", "metric", "metric_bytes"]),
        ("", "metric", "/", Gauge, ["metric", "metric", "metric"]),
        ("", "custom_metric", "By/{custom}", Gauge, ["custom_metric_bytes", "custom_metric", "custom_metric_bytes"]),
        ("app", "requests", "1/s", Counter, ["app_requests_per_second_total", "app_requests", "app_requests_per_second_total"]),
        ("app", "123_requests", "", Counter, ["app_123_requests_total", "app_123_requests", "app_123_requests_total"]),
        ("test@namespace!!??", "metric", "", Gauge, [ANY, "test_namespace_metric", ANY]),
        ("", "ようこそ", "", Gauge, [ERR, ERR, "ようこそ"]),
        ("", "123metric", "", Gauge, ["_123metric", "_123metric", "123metric"]),
        ("", "metric@@##$$name", "", Gauge, ["metric_name", "metric_name", "metric@@##$$name"]),
        ("", "@#$%", "", Gauge, [ERR, ERR, "@#$%"]),
        ("", "@#$%", "", Counter, ["total", ERR, "@#$%_total"]),
        ("", "@_#_$_%", "", Gauge, [ERR, ERR, "@_#_$_%"]),
        ("", "___", "", Gauge, [ERR, "___", "___"]),
        ("", "http.requests", "1", Counter, ["http_requests_total", "http_requests", "http.requests_total"]),
        ("", "requests", "1/m", Gauge, ["requests_per_minute", "requests", "requests_per_minute"]),
        ("", "custom", "1/custom_unit", Gauge, ["custom_per_custom_unit", "custom", "custom_per_custom_unit"]),
        // What the rules say beyond the table.
        ("", "", "", Gauge, [ERR, ERR, ERR]),
        ("", "x", "a_", Counter, ["x_a__total", "x", "x_a__total"]),
        ("", "x", "a_/b_", Gauge, ["x_a_per_b", "x", "x_a__per_b_"]),
        ("", "x", "1/@", Gauge, ["x", "x", "x_per_@"]),
        ("", "x", "total", Counter, ["x_total", "x", "x_total_total"]),
        ("", "é", "By/h", Counter, ["bytes_per_hour_total", ERR, "é_bytes_per_hour_total"]),
        ("", "ab→total", "", Counter, ["ab_total", "ab_total", "ab_total"]),
        ("", "→total", "", Counter, ["total", "total", "→total_total"]),
        ("", "x", " 1 ", Gauge, ["x", "x", "x"]),
        ("", "x", "a/b/c", Gauge, ["x_a_per_b_c", "x", "x_a_per_b/c"]),
        ("total", "total", "", Counter, ["total_total", "total_total", "total_total"]),
    ];
    for (namespace, name, unit, shape, want) in table {
        let untouched = if namespace.is_empty() { (*name).to_owned() } else { format!("{namespace}_{name}") };
        let want = want.iter().copied().chain([if untouched.is_empty() { ERR } else { &untouched }]);
        for (strategy, want) in STRATEGIES.into_iter().zip(want).filter(|(_, want)| *want != ANY) {
            let made = metric(strategy, namespace, name, unit, *shape);
            assert_eq!(
                made.as_deref().unwrap_or(ERR),
                want,
                "{strategy:?} {namespace:?} {name:?} {unit:?} {shape:?}"
            );
        }
    }
}

#[test]
fn why_a_name_is_refused() {
    let refused = |name, shape| metric(UnderscoreEscapingWithoutSuffixes, "", name, "", shape).unwrap_err();
    assert_eq!(refused("@#$%", Gauge), NameError::Empty);
    assert_eq!(refused("@_#_$_%", Gauge), NameError::OnlyUnderscores);
    assert_eq!(metric(NoTranslation, "", "", "s", Gauge), Err(NameError::Empty));
    assert_eq!(label(LabelRules::PROMETHEUS, ""), Err(NameError::Empty));
    assert_eq!(label(LabelRules::UTF8, "__"), Err(NameError::OnlyUnderscores));
}

#[test]
fn units_of_metadata() {
    let table = [
        ("By/s", "bytes_per_second", "bytes_per_second"),
        ("_custom_unit", "custom_unit", "custom_unit"),
        ("By/_custom__unit_", "bytes_per_custom_unit", "bytes_per__custom__unit"),
        ("1", "", ""),
        ("{packet}", "", ""),
        ("", "", ""),
        ("{packet}/s", "per_second", "per_second"),
        ("a@b_", "a_b", "a@b"),
        ("a_/b", "a_per_b", "a__per_b"),
        ("_", "", ""),
        ("1/_", "", "per_"),
        ("m", "meters", "meters"),
        ("1/m", "per_minute", "per_minute"),
    ];
    for (unit, escaped, utf8) in table {
        for (strategy, want) in STRATEGIES.into_iter().zip([escaped, escaped, utf8, utf8]) {
            assert_eq!(Namer::new(strategy, "").unit(unit), want, "{strategy:?} {unit:?}");
        }
    }
}

/// Each unit word of the tables, in names and in metadata.
#[test]
fn unit_words() {
    let main = "d days h hours min minutes s seconds ms milliseconds us microseconds ns nanoseconds By bytes \
        KiBy kibibytes MiBy mebibytes GiBy gibibytes TiBy tibibytes KBy kilobytes MBy megabytes GBy gigabytes \
        TBy terabytes m meters V volts A amperes J joules W watts g grams Cel celsius Hz hertz % percent";
    let per = "s second m minute h hour d day w week mo month y year";
    let namer = Namer::new(UnderscoreEscapingWithSuffixes, "");
    let named = |unit: &str| {
        let mut out = String::new();
        namer.metric("x", unit, Gauge, &mut out).unwrap();
        assert_eq!(out, format!("x_{}", namer.unit(unit)));
        namer.unit(unit)
    };
    for pair in main.split_whitespace().collect::<Vec<_>>().chunks(2) {
        assert_eq!(named(pair[0]), pair[1]);
    }
    for pair in per.split_whitespace().collect::<Vec<_>>().chunks(2) {
        assert_eq!(named(&format!("1/{}", pair[0])), format!("per_{}", pair[1]));
    }
}

#[test]
fn label_names() {
    const Q: LabelRules = LabelRules { preserve_runs: false, underscore_prefix: true, utf8: false };
    const R: LabelRules = LabelRules { preserve_runs: true, underscore_prefix: false, utf8: false };
    // Key; Prometheus; with runs collapsed; without `key` before `_`; Loki.
    #[rustfmt::skip]
    let table: &[(&str, [&str; 4])] = &[
        ("label:with:colons", ["label_with_colons"; 4]),
        ("LabelWithCapitalLetters", ["LabelWithCapitalLetters"; 4]),
        ("label!with&special$chars)", ["label_with_special_chars_"; 4]),
        ("label_with_foreign_characters_字符", ["label_with_foreign_characters___", "label_with_foreign_characters_", "label_with_foreign_characters___", "label_with_foreign_characters_"]),
        ("label.with.dots", ["label_with_dots"; 4]),
        (".foo", ["key_foo", "key_foo", "_foo", "_foo"]),
        ("123label", ["key_123label"; 4]),
        ("_label_starting_with_underscore", ["key_label_starting_with_underscore", "key_label_starting_with_underscore", "_label_starting_with_underscore", "_label_starting_with_underscore"]),
        ("__label_starting_with_2underscores", ["__label_starting_with_2underscores", "key_label_starting_with_2underscores", "__label_starting_with_2underscores", "_label_starting_with_2underscores"]),
        ("label__with__double__underscores", ["label__with__double__underscores", "label_with_double_underscores", "label__with__double__underscores", "label_with_double_underscores"]),
        ("label.name__with&&special##chars", ["label_name__with__special__chars", "label_name_with_special_chars", "label_name__with__special__chars", "label_name_with_special_chars"]),
        ("__reserved__label__name__", ["__reserved__label__name__", "__reserved_label_name__", "__reserved__label__name__", "__reserved_label_name__"]),
        ("trailing_underscores___", ["trailing_underscores___", "trailing_underscores_", "trailing_underscores___", "trailing_underscores_"]),
        ("ようこそ", [ERR, "key_", ERR, ERR]),
        ("__", [ERR, "key_", ERR, ERR]),
        ("", [ERR; 4]),
        ("__x", ["__x", "key_x", "__x", "_x"]),
        ("..x", ["__x", "key_x", "__x", "_x"]),
        ("__a..b__", ["__a__b__", "__a_b__", "__a__b__", "__a_b__"]),
        ("é", ["key_", "key_", ERR, ERR]),
        ("_é", [ERR, "key_", ERR, ERR]),
        ("0", ["key_0"; 4]),
        ("http.method", ["http_method"; 4]),
        // What the rules say beyond the table.
        ("____", [ERR; 4]),
        ("___a___", ["___a___"; 4]),
        ("..a..", ["__a__", "key_a_", "__a__", "_a_"]),
    ];
    for (key, want) in table {
        for (rules, want) in [LabelRules::PROMETHEUS, Q, R, LabelRules::LOKI].into_iter().zip(want) {
            assert_eq!(label(rules, key).as_deref().unwrap_or(ERR), *want, "{rules:?} {key:?}");
        }
    }
}

#[test]
fn namers_choose_the_rules() {
    let label = |strategy, key: &str| {
        let mut out = String::new();
        Namer::new(strategy, "").label(key, &mut out).map(|()| out)
    };
    assert_eq!(label(UnderscoreEscapingWithSuffixes, "a..b").as_deref(), Ok("a__b"));
    assert_eq!(label(UnderscoreEscapingWithoutSuffixes, ".b").as_deref(), Ok("key_b"));
    assert_eq!(label(NoUtf8EscapingWithSuffixes, "_é.1").as_deref(), Ok("_é.1"));
    assert_eq!(label(NoTranslation, "1").as_deref(), Ok("1"));
    let mut out = String::new();
    assert_eq!(loki_label("__a..b", &mut out), Ok(()));
    assert_eq!(out, "_a_b");
}

#[test]
fn target_info() {
    for strategy in STRATEGIES {
        assert_eq!(Namer::new(strategy, "").target_info(), "target_info");
        assert_eq!(Namer::new(strategy, "app").target_info(), "app_target_info");
    }
}

#[test]
fn namespaces() {
    for good in ["", "app", "_app", "a:b_9", "A"] {
        assert_eq!(check_namespace(good), Ok(()));
    }
    for bad in ["9a", "a.b", "a-b", "é", " "] {
        assert!(check_namespace(bad).unwrap_err().contains(&format!("{bad:?}")));
    }
}

#[test]
fn strategies_as_words() {
    let words = STRATEGIES.map(TranslationStrategy::word);
    assert_eq!(
        words,
        [
            "UnderscoreEscapingWithSuffixes",
            "UnderscoreEscapingWithoutSuffixes",
            "NoUTF8EscapingWithSuffixes",
            "NoTranslation"
        ]
    );
    assert_eq!(STRATEGIES.map(TranslationStrategy::escapes), [true, true, false, false]);
    assert_eq!(STRATEGIES.map(TranslationStrategy::suffixes), [true, false, true, false]);
}

/// Names and units made of what the rules treat in a special way.
fn arb_nasty() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        proptest::sample::select(vec!["_", ".", ":", "/", "{", "}", " ", "__", "_total", ".ratio", "per_"]),
        proptest::sample::select(vec![
            "total", "ratio", "seconds", "s", "By", "bytes", "1", "m", "second", "per", "%"
        ]),
        proptest::sample::select(vec!["a", "B", "7", "0", "é", "字", "\u{85}", "\u{3000}", "@", "-", "\0"]),
    ];
    proptest::collection::vec(part, 0..7).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn metrics_as_the_slow_version_names_them(
        name in arb_nasty(),
        unit in arb_nasty(),
        strategy in proptest::sample::select(STRATEGIES.to_vec()),
        namespace in proptest::sample::select(vec!["", "app", "_", "total", "seconds", "a__b:"]),
        shape in proptest::sample::select(vec![Counter, UpDown, Gauge, Histogram, Shape::Summary]),
    ) {
        let made = metric(strategy, namespace, &name, &unit, shape);
        prop_assert_eq!(made.clone().ok(), naive::metric(strategy, namespace, &name, &unit, shape));
        prop_assert_eq!(
            Namer::new(strategy, namespace).unit(&unit),
            naive::unit(strategy.escapes(), &unit)
        );
        if let (Ok(made), true) = (made, strategy.escapes()) {
            prop_assert_eq!(check_namespace(&made), Ok(()), "a name of the old character set");
        }
    }

    #[test]
    fn labels_as_the_slow_version_names_them(
        key in arb_nasty(),
        preserve_runs: bool,
        underscore_prefix: bool,
        utf8: bool,
    ) {
        let made = label(LabelRules { preserve_runs, underscore_prefix, utf8 }, &key).ok();
        prop_assert_eq!(made.clone(), naive::label(preserve_runs, underscore_prefix, utf8, &key));
        if let (Some(made), false) = (made, utf8) {
            prop_assert!(made.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{}", made);
            prop_assert!(!made.starts_with(|c: char| c.is_ascii_digit()), "{}", made);
        }
    }
}
