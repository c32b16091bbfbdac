//! Names of metrics, units and labels, against slow obvious code; and that attribute values of any bytes have
//! a text, which is JSON where they nest.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::pdata::common::AnyValue;
use tidegate::prometheus::names::{Namer, Shape, TranslationStrategy, check_namespace, loki_label};
use tidegate::prometheus::text::value_text;
use tidegate_fuzz::naive_names as naive;

const STRATEGIES: [TranslationStrategy; 4] = [
    TranslationStrategy::UnderscoreEscapingWithSuffixes,
    TranslationStrategy::UnderscoreEscapingWithoutSuffixes,
    TranslationStrategy::NoUtf8EscapingWithSuffixes,
    TranslationStrategy::NoTranslation,
];
const SHAPES: [Shape; 5] = [Shape::Counter, Shape::UpDown, Shape::Gauge, Shape::Histogram, Shape::Summary];
const NAMESPACES: [&str; 5] = ["", "app", "_", "total", "a__b:"];

fuzz_target!(|data: &[u8]| {
    let [choice, split, rest @ ..] = data else { return };
    value(rest);

    let text = String::from_utf8_lossy(rest);
    let choice = usize::from(*choice);
    let (strategy, shape, namespace) =
        (STRATEGIES[choice % 4], SHAPES[choice / 4 % 5], NAMESPACES[choice / 20 % 5]);
    // The unit and the name: the unit first, as it is the shorter one.
    let at = usize::from(*split).min(text.len());
    let at = (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let (unit, name) = text.split_at(at);
    let namer = Namer::new(strategy, namespace);

    let metric = made(|out| namer.metric(name, unit, shape, out).is_ok());
    assert_eq!(metric, naive::metric(strategy, namespace, name, unit, shape));
    assert_eq!(namer.unit(unit), naive::unit(strategy.escapes(), unit));
    if let (Some(metric), true) = (metric, strategy.escapes()) {
        assert_eq!(check_namespace(&metric), Ok(()));
    }

    let escapes = strategy.escapes();
    assert_eq!(made(|out| namer.label(name, out).is_ok()), naive::label(true, escapes, !escapes, name));
    assert_eq!(made(|out| loki_label(name, out).is_ok()), naive::label(false, false, false, name));
});

/// What is appended to a string that holds something; nothing may be when it fails.
fn made(put: impl FnOnce(&mut String) -> bool) -> Option<String> {
    let mut out = "7_".to_owned();
    let ok = put(&mut out);
    let appended = out.strip_prefix("7_").expect("what was there stays");
    assert!(ok || appended.is_empty());
    ok.then(|| appended.to_owned())
}

fn value(bytes: &[u8]) {
    let Ok(value) = AnyValue::parse(bytes) else { return };
    let mut out = String::new();
    value_text(&value, &mut out);
    if matches!(value, AnyValue::Array(_) | AnyValue::KvList(_)) {
        serde_json::from_str::<serde_json::Value>(&out).expect("JSON");
    }
}
