//! The table of metrics: names and labels are unique, readings find their rows, scales and labels.

use std::collections::HashSet;

use super::*;

#[test]
fn names_are_unique_and_labels_of_a_metric_tell_its_points_apart() {
    let table = Table::new(true, true);
    let mut names = HashSet::new();
    for metric in &table.metrics {
        assert!(names.insert(metric.name), "{} is there twice", metric.name);
        assert!(!metric.from.is_empty() && metric.about.ends_with('.'), "{}", metric.name);
        let mut sets = HashSet::new();
        for from in metric.from {
            for index in (0..600).filter(|&index| from.labels.takes(index)) {
                let mut set = Vec::new();
                from.labels.each(index, |key, label| set.push(format!("{key}={label:?}")));
                assert!(sets.insert(set.clone()), "{}: {set:?} is there twice", metric.name);
            }
        }
    }
}

#[test]
fn readings_find_their_rows() {
    let names = |table: &Table, reading| {
        let rows: Vec<_> = table.of(reading).collect();
        rows.iter().map(|(_, row)| table.metric(row).unwrap().name).collect::<Vec<_>>()
    };
    let plain = Table::new(false, false);
    assert_eq!(names(&plain, Reading::Busy), ["hw.gpu.utilization"]);
    let all = Table::new(true, true);
    let want = ["hw.gpu.utilization", "gpu_utilization_percent", "DCGM_FI_DEV_GPU_UTIL"];
    assert_eq!(names(&all, Reading::Busy), want);
    let made: Vec<_> = all.made(Made::Up).map(|(_, row)| all.metric(row).unwrap().name).collect();
    assert_eq!(made, ["nvidia.gpu.up"]);
    assert_eq!(plain.made(Made::XidLast).count(), 0);
}

#[test]
fn scales() {
    let cases = [
        (Scale::One, Value::Int(7), Value::Int(7)),
        (Scale::Per(100.0), Value::Int(57), Value::Double(0.57)),
        (Scale::Per(1e3), Value::Int(78_123), Value::Double(78.123)),
        (Scale::Times(1_000_000), Value::Int(1980), Value::Int(1_980_000_000)),
        (Scale::Times(1 << 20), Value::Double(1.5), Value::Double(1_572_864.0)),
        (Scale::Times(1024), Value::Int(i64::MAX), Value::Int(i64::MAX)),
        (Scale::Whole(1 << 20), Value::Int(150_754_820_096), Value::Int(143_771)),
    ];
    for (scale, value, want) in cases {
        assert_eq!(scale.apply(value), want, "{scale:?} of {value:?}");
    }
}

#[test]
fn labels() {
    let got = |labels: Labels, index| {
        let mut out = Vec::new();
        if labels.takes(index) {
            labels.each(index, |key, label| {
                out.push(match label {
                    Label::Str(word) => format!("{key}={word}"),
                    Label::Int(n) => format!("{key}={n}"),
                });
            });
        }
        out.join(" ")
    };
    let words = &["a", "b"];
    assert_eq!(got(Labels::Is("k", "v"), 0), "k=v");
    assert_eq!(got(Labels::Is("k", "v"), 1), "");
    assert_eq!(got(Labels::Word("k", words), 1), "k=b");
    assert_eq!(got(Labels::Word("k", words), 2), "");
    assert_eq!(got(Labels::NumberAndWord("n", "k", words), 7), "n=3 k=b");
    assert_eq!(got(Labels::TwoWords("x", words, "y", &["c", "d", "e"]), 4), "x=b y=d");
    assert_eq!(got(Labels::TwoWords("x", words, "y", &["c", "d", "e"]), 6), "");
}
