//! What the page remembers: order, types, expiry, limits.

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::exporters::prometheus::negotiate::{Escaping, Format, Media};
use crate::exporters::prometheus::tests::{OPEN, Rig, TEXT, attr, from, gauge, options, page, request, sum};
use crate::pdata::testgen::{arb_metrics, mutate};

/// A gauge whose point says that nothing was recorded.
fn stale(name: &str, time: u64) -> String {
    format!(
        r#"{{"name":"{name}","gauge":{{"dataPoints":[{{"flags":1,"timeUnixNano":"{time}000000000"}}]}}}}"#
    )
}

#[test]
fn the_last_value_is_shown() {
    let rig = Rig::new("");
    rig.store(&gauge("a", "", 10, 1.0), 0);
    assert_eq!(rig.samples(0), "a 1");
    rig.store(&gauge("a", "", 11, 2.0), 0);
    assert_eq!(rig.samples(0), "a 2");
    // Older ones change nothing; one of the same time is a correction.
    assert_eq!(rig.refused(&gauge("a", "", 10, 3.0), 0), "out_of_order");
    assert_eq!(rig.samples(0), "a 2");
    rig.store(&gauge("a", "", 11, 4.0), 0);
    assert_eq!(rig.samples(0), "a 4");
}

#[test]
fn bytes_in_another_order_are_the_same_series() {
    let rig = Rig::new("");
    let (x, y) = (attr("x", "1"), attr("y", "2"));
    rig.store(&gauge("a", &format!("{x},{y}"), 1, 1.0), 0);
    rig.store(&gauge("a", &format!("{y},{x}"), 2, 2.0), 0);
    assert_eq!(rig.samples(0), r#"a{x="1",y="2"} 2"#);
    assert_eq!(rig.0.lock().unwrap().series.len(), 1);
    // However many ways there are to say it, what is kept of them is bounded, and each is taken.
    for n in 0..100 {
        let empty = attr(&format!("empty{n}"), "");
        rig.store(&gauge("a", &format!("{x},{y},{empty}"), 3 + n, n as f64), 0);
    }
    assert_eq!(rig.samples(0), r#"a{x="1",y="2"} 99"#);
    assert_eq!(rig.0.lock().unwrap().series.len(), 1);
}

#[test]
fn series_without_points_vanish() {
    let rig = Rig::new("metric_expiration: 10s");
    rig.store(&[gauge("a", "", 1, 1.0), sum("b", 1, (0, 1), 5)].join(","), 0);
    rig.store(&gauge("a", "", 2, 2.0), 6_000);
    assert_eq!(rig.samples(10_000), "a 2\nb_total 5");
    assert_eq!(rig.samples(10_001), "a 2");
    let mut state = rig.0.lock().unwrap();
    assert_eq!(state.sweep(0, 1, 10_001), Some(1));
    assert_eq!((state.sweep(1, 1, 10_001), state.series.len(), state.sums.len()), (None, 1, 0));
    drop(state);
    // A sum begins anew then.
    rig.store(&sum("b", 1, (20, 21), 3), 12_000);
    assert_eq!(rig.samples(12_000), "a 2\nb_total 3");
}

#[test]
fn nothing_recorded_ends_a_series_at_once() {
    let rig = Rig::new("");
    rig.store(&gauge("a", "", 5, 1.0), 0);
    assert_eq!(rig.refused(&stale("a", 4), 0), "out_of_order");
    assert_eq!(rig.samples(0), "a 1");
    rig.store(&stale("a", 6), 0);
    assert_eq!(rig.text(0), "");
    // So it does when there is none.
    rig.store(&stale("a", 6), 0);
    assert_eq!(rig.0.lock().unwrap().series.len(), 0);
    rig.store(&gauge("a", "", 7, 2.0), 0);
    assert_eq!(rig.samples(0), "a 2");
}

#[test]
fn a_type_that_changes_is_refused_while_the_old_one_lives() {
    let rig = Rig::new("");
    rig.store(&gauge("jobs_total", "", 1, 1.0), 0);
    let outcome = rig.take(&request(&sum("jobs", 2, (0, 2), 5)), 0);
    assert_eq!((outcome.stored, &outcome.dropped[..]), (0, &[("type_conflict", 1)][..]));
    assert_eq!(outcome.conflict.as_deref(), Some("jobs_total"));
    rig.store(&stale("jobs_total", 2), 0);
    rig.store(&sum("jobs", 2, (0, 2), 5), 0);
    assert_eq!(rig.text(0), "# TYPE jobs_total counter\njobs_total 5\n");
}

#[test]
fn names_of_samples_belong_to_one_family() {
    let histogram = r#"{"name":"h","histogram":{"aggregationTemporality":2,"dataPoints":[{"timeUnixNano":"1","count":"1","sum":1,"bucketCounts":["1"]}]}}"#;
    let rig = Rig::new("");
    rig.store(histogram, 0);
    for name in ["h_count", "h_sum", "h_bucket", "h"] {
        assert_eq!(rig.refused(&gauge(name, "", 1, 1.0), 0), "type_conflict", "{name}");
    }
    rig.store(&gauge("h_max", "", 1, 1.0), 0);
    let rig = Rig::new("");
    rig.store(&gauge("h_count", "", 1, 1.0), 0);
    assert_eq!(rig.refused(histogram, 0), "type_conflict");
    rig.store(&stale("h_count", 1), 0);
    rig.store(histogram, 0);
}

#[test]
fn series_have_a_limit() {
    let rig = Rig::new("max_series: 3");
    let point = |n: u64, time| gauge("a", &attr("n", &n.to_string()), time, n as f64);
    rig.store(&[point(1, 1), point(2, 1), point(3, 1)].join(","), 0);
    assert_eq!(rig.refused(&point(4, 1), 0), "max_series");
    rig.store(&point(3, 2), 0);
    let end = point(1, 3).replace(r#""asDouble":1"#, r#""flags":1"#);
    rig.store(&end, 0);
    rig.store(&point(4, 4), 0);
    assert_eq!(rig.samples(0).lines().count(), 3);
    // A histogram counts for what it makes, also when it grows.
    let histogram = |time, bounds: &str, counts: &str| {
        format!(
            r#"{{"name":"h","histogram":{{"aggregationTemporality":2,"dataPoints":[{{"timeUnixNano":"{time}","count":"1","explicitBounds":[{bounds}],"bucketCounts":[{counts}]}}]}}}}"#
        )
    };
    let rig = Rig::new("max_series: 4");
    rig.store(&histogram(1, "1", r#""0","1""#), 0);
    assert_eq!(rig.0.lock().unwrap().series.len(), 4);
    assert_eq!(rig.refused(&histogram(2, "1,2", r#""0","1","0""#), 0), "max_series");
    assert_eq!((rig.samples(0).as_str(), rig.0.lock().unwrap().series.len()), ("", 0));
}

#[test]
fn deltas_are_added_up() {
    let rig = Rig::new("");
    rig.store(&sum("a", 1, (1, 2), 5), 0);
    rig.store(&sum("a", 1, (2, 3), 3), 0);
    assert_eq!(rig.samples(0), "a_total 8");
    assert_eq!(rig.refused(&sum("a", 1, (2, 3), 3), 0), "late");
    assert_eq!(rig.refused(&sum("a", 1, (2, 4), 3), 0), "overlap");
    // After a gap, as after a restart.
    rig.store(&sum("a", 1, (10, 11), 1), 0);
    assert_eq!(rig.samples(0), "a_total 1");
    let histogram = |start, time| {
        format!(
            r#"{{"name":"h","histogram":{{"aggregationTemporality":1,"dataPoints":[{{"startTimeUnixNano":"{start}","timeUnixNano":"{time}","count":"3","sum":4.5,"explicitBounds":[1],"bucketCounts":["1","2"]}}]}}}}"#
        )
    };
    let rig = Rig::new("");
    rig.store(&histogram(1, 2), 0);
    rig.store(&histogram(2, 3), 0);
    assert_eq!(rig.samples(0), "h_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 6\nh_sum 9\nh_count 6");
    let exponential = histogram(1, 2)
        .replace("\"histogram\"", "\"exponentialHistogram\"")
        .replace("\"h\"", "\"e\"")
        .replace(
            r#""explicitBounds":[1],"bucketCounts":["1","2"]"#,
            r#""positive":{"offset":0,"bucketCounts":["1","2"]}"#,
        );
    rig.store(&exponential, 0);
    rig.store(&exponential.replace(r#""1","timeUnixNano":"2""#, r#""2","timeUnixNano":"3""#), 0);
    let samples = rig.samples(0);
    assert!(samples.starts_with("e_bucket{le=\"2\"} 2\ne_bucket{le=\"4\"} 6\n"), "{samples}");
}

#[test]
fn points_that_make_no_series_are_refused() {
    let point = |kind: &str, temporality: &str, point: &str| {
        format!(r#"{{"name":"a","{kind}":{{{temporality}"dataPoints":[{{"timeUnixNano":"1",{point}}}]}}}}"#)
    };
    let cumulative = r#""aggregationTemporality":2,"#;
    let bounds: Vec<String> = (0..1025).map(|n| n.to_string()).collect();
    let many = format!(r#""count":"1","explicitBounds":[{}]"#, bounds.join(","));
    let wide = format!(r#""count":"2","positive":{{"bucketCounts":["1",{}"1"]}}"#, r#""0","#.repeat(2100));
    for (metric, want) in [
        (point("gauge", "", r#""flags":0"#), "no_value"),
        (point("gauge", "", r#""asInt":"1","timeUnixNano":"9223372036854775808""#), "timestamp"),
        (point("sum", "", r#""asInt":"1""#), "temporality"),
        (
            point("histogram", cumulative, r#""explicitBounds":[2,1],"bucketCounts":["0","0","0"]"#),
            "malformed",
        ),
        (point("histogram", cumulative, &many), "too_large"),
        (point("exponentialHistogram", cumulative, &wide), "too_large"),
        (point("exponentialHistogram", cumulative, r#""zeroThreshold":-1"#), "malformed"),
        (
            point("summary", "", r#""quantileValues":[{"quantile":1,"value":1},{"quantile":1,"value":2}]"#),
            "malformed",
        ),
        (point("gauge", "", r#""asInt":"1""#).replace("\"a\"", "\"___\"").replace("___", "."), "name"),
    ] {
        let rig = Rig::new("");
        assert_eq!(rig.refused(&metric, 0), want, "{metric}");
        assert_eq!(rig.text(0), "");
    }
}

#[test]
fn resources_have_a_target_info() {
    let rig = Rig::new("");
    let shop =
        [attr("service.name", "api"), attr("service.instance.id", "i"), attr("region", "eu")].join(",");
    let take = |resource: &str, time, now| rig.take(&from(resource, &gauge("a", "", time, 1.0)), now);
    take(&shop, 1, 0);
    take(&attr("service.name", "db"), 1, 0);
    let want = "a{instance=\"i\",job=\"api\"} 1\na{job=\"db\"} 1\ntarget_info{instance=\"i\",job=\"api\",region=\"eu\"} 1";
    assert_eq!(rig.samples(0), want);
    // It lives as long as there are points of the resource.
    take(&shop, 2, 200_000);
    let want = "a{instance=\"i\",job=\"api\"} 1\ntarget_info{instance=\"i\",job=\"api\",region=\"eu\"} 1";
    assert_eq!(rig.samples(400_000), want);
    assert_eq!(rig.samples(500_001), "");
}

#[test]
fn descriptions_follow_the_newest() {
    let rig = Rig::new("");
    let described = |help: &str, time| {
        gauge("a", "", time, 1.0).replacen('{', &format!(r#"{{"description":"{help}","#), 1)
    };
    rig.store(&described("one", 1), 0);
    rig.store(&described("two", 2), 0);
    assert_eq!(rig.families(0)[0].help, "two");
    rig.store(&described("one", 3), 0);
    assert_eq!(rig.families(0)[0].help, "one");
}

#[test]
fn exemplars_stay_within_their_bounds() {
    let state = State::new(options("enable_open_metrics: true"));
    let mut exemplar = crate::prometheus::exemplars::ExemplarText {
        labels: vec![
            ("trace_id".into(), "t".repeat(8)),
            ("1a".into(), "v".repeat(110)),
            ("1.a".into(), "w".into()),
        ],
        ..Default::default()
    };
    state.name_labels(&mut exemplar);
    assert_eq!(exemplar.labels, [("trace_id".to_owned(), "t".repeat(8))], "key_1a is too long");
    exemplar.labels.extend([("x.y".into(), "1".into()), ("x_y".into(), "2".into())]);
    state.name_labels(&mut exemplar);
    let names: Vec<_> = exemplar.labels.iter().map(|(n, v)| (n.as_str(), v.len())).collect();
    assert_eq!(names, [("trace_id", 8), ("x_y", 1)]);
}

/// Every format in which a page can be asked for.
const FORMATS: [Format; 4] = [
    TEXT,
    OPEN,
    Format { media: Media::Text1, escaping: Escaping::AllowUtf8 },
    Format { media: Media::Open, escaping: Escaping::Underscores },
];

const STRATEGIES: [&str; 4] = [
    "UnderscoreEscapingWithSuffixes",
    "UnderscoreEscapingWithoutSuffixes",
    "NoUTF8EscapingWithSuffixes",
    "NoTranslation",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever comes, all of it is in the books, and every page is one by the rules.
    #[test]
    fn any_request_makes_pages(request in arb_metrics(), strategy in 0..4usize, seed: u64) {
        let mut bytes = request.encode_to_vec();
        let yaml = format!("enable_open_metrics: true, translation_strategy: {}", STRATEGIES[strategy]);
        let rig = Rig(Arc::new(std::sync::Mutex::new(State::new(options(&yaml)))));
        let items = crate::pdata::count(crate::pdata::Signal::Metrics, &bytes).unwrap();
        for round in 0..3 {
            let outcome = rig.take(&bytes, round);
            prop_assert_eq!(outcome.items(), items);
            for format in FORMATS {
                page(&rig.0, format, round == 1, round);
            }
        }
        mutate(&mut bytes, seed);
        rig.take(&bytes, 4);
        for format in FORMATS {
            page(&rig.0, format, true, 4);
        }
        let mut state = rig.0.lock().unwrap();
        prop_assert_eq!(state.sweep(0, usize::MAX / 2, u64::MAX / 2), None);
        prop_assert_eq!(state.series.len(), 0);
        prop_assert!(state.series.is_clear());
    }
}
