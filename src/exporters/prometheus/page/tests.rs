//! Pages by format, label by label, and read back by a strict parser.

use super::text::{escape_labels, pairs, put_escaped, put_label_name};
use super::*;
use crate::exporters::prometheus::negotiate::Media;
use crate::exporters::prometheus::tests::{OPEN, Rig, TEXT, attr, gauge, page, request, sum};

const UTF8_TEXT: Format = Format { media: Media::Text1, escaping: Escaping::AllowUtf8 };

/// What a metric of one point looks like in both formats, without `# EOF`.
#[track_caller]
fn shows(metric: &str, text: &str, open: &str) {
    let rig = Rig::new("enable_open_metrics: true");
    rig.store(metric, 0);
    assert_eq!(page(&rig.0, TEXT, true, 0), text, "{metric}");
    assert_eq!(page(&rig.0, OPEN, true, 0), format!("{open}# EOF\n"), "{metric}");
}

/// A metric with one point at 1500 ms.
fn metric(head: &str, kind: &str, point: &str) -> String {
    format!(
        r#"{{{head},"{kind}":{{"aggregationTemporality":2,"dataPoints":[{{"timeUnixNano":"1500000000",{point}}}]}}}}"#
    )
    .replace(if kind == "gauge" || kind == "summary" { r#""aggregationTemporality":2,"# } else { "\u{1}" }, "")
}

#[test]
fn gauges() {
    let head = r#""name":"room.temperature","unit":"Cel","description":"a \"b\"\\\nc""#;
    shows(
        &metric(head, "gauge", &format!(r#""asDouble":-0.5,"attributes":[{}]"#, attr("room", "\\\"\\\\\\n"))),
        "# HELP room_temperature_celsius a \"b\"\\\\\\nc\n# TYPE room_temperature_celsius gauge\n\
         room_temperature_celsius{room=\"\\\"\\\\\\n\"} -0.5 1500\n",
        "# HELP room_temperature_celsius a \\\"b\\\"\\\\\\nc\n# TYPE room_temperature_celsius gauge\n\
         # UNIT room_temperature_celsius celsius\n\
         room_temperature_celsius{room=\"\\\"\\\\\\n\"} -0.5 1.500\n",
    );
    for (value, text) in
        [("\"NaN\"", "NaN"), ("\"-Infinity\"", "-Inf"), ("1e6", "1e+06"), ("0.00001", "1e-05")]
    {
        let want = format!("# TYPE a gauge\na {text} 1500\n");
        shows(
            &metric(r#""name":"a""#, "gauge", &format!(r#""asDouble":{value}"#)),
            &want,
            &want.replace("1500", "1.500"),
        );
    }
}

#[test]
fn gauges_that_say_what_they_are() {
    for (kind, text, open) in
        [("unknown", "untyped", "unknown"), ("stateset", "gauge", "gauge"), ("info", "gauge", "gauge")]
    {
        let head = format!(r#""name":"a","metadata":[{}]"#, attr("prometheus.type", kind));
        shows(
            &metric(&head, "gauge", r#""asInt":"1""#),
            &format!("# TYPE a {text}\na 1 1500\n"),
            &format!("# TYPE a {open}\na 1 1.500\n"),
        );
    }
    let head = format!(r#""name":"build_info","metadata":[{}]"#, attr("prometheus.type", "info"));
    shows(
        &metric(&head, "gauge", r#""asInt":"1""#),
        "# TYPE build_info gauge\nbuild_info 1 1500\n",
        "# TYPE build info\nbuild_info 1 1.500\n",
    );
}

const EXEMPLARS: &str = r#""exemplars":[
    {"timeUnixNano":"1000000000","asDouble":0.5,"traceId":"5b8efff798038103d269b633813fc60c"},
    {"timeUnixNano":"1400000000","asInt":"3","filteredAttributes":[{"key":"user.id","value":{"intValue":"7"}}]},
    {"timeUnixNano":"1200000000","asDouble":2.5},
    {"timeUnixNano":"1100000000","asDouble":100}]"#;

#[test]
fn counters() {
    let counter = metric(r#""name":"io","unit":"By""#, "sum", &format!(r#""asInt":"4096",{EXEMPLARS}"#))
        .replace(r#""aggregationTemporality":2"#, r#""aggregationTemporality":2,"isMonotonic":true"#);
    shows(
        &counter,
        "# TYPE io_bytes_total counter\nio_bytes_total 4096 1500\n",
        "# TYPE io_bytes counter\n# UNIT io_bytes bytes\n\
         io_bytes_total 4096 1.500 # {user_id=\"7\"} 3 1.400\n",
    );
    // What may go down is a gauge and has no exemplars.
    shows(
        &metric(r#""name":"io","unit":"By""#, "sum", &format!(r#""asInt":"-1",{EXEMPLARS}"#)),
        "# TYPE io_bytes gauge\nio_bytes -1 1500\n",
        "# TYPE io_bytes gauge\n# UNIT io_bytes bytes\nio_bytes -1 1.500\n",
    );
}

#[test]
fn counters_whose_names_openmetrics_does_not_allow() {
    let rig = Rig::new("translation_strategy: UnderscoreEscapingWithoutSuffixes");
    rig.store(&[sum("a", 2, (1, 2), 1), sum("b_total", 2, (1, 2), 1), gauge("b", "", 1, 1.0)].join(","), 0);
    let text = "# TYPE a counter\na 1\n# TYPE b gauge\nb 1\n# TYPE b_total counter\nb_total 1\n";
    assert_eq!(page(&rig.0, TEXT, false, 0), text);
    assert_eq!(page(&rig.0, OPEN, false, 0), format!("{}# EOF\n", text.replace("counter", "unknown")));
}

#[test]
fn classic_histograms() {
    let point = format!(
        r#""count":"10","sum":42.5,"explicitBounds":[0.5,1,1000000],"bucketCounts":["1","2","3","4"],"attributes":[{},{}],{EXEMPLARS}"#,
        attr("route", "/a"),
        attr("le", "no")
    );
    shows(
        &metric(r#""name":"d","unit":"s""#, "histogram", &point),
        "# TYPE d_seconds histogram\n\
         d_seconds_bucket{route=\"/a\",le=\"0.5\"} 1 1500\n\
         d_seconds_bucket{route=\"/a\",le=\"1\"} 3 1500\n\
         d_seconds_bucket{route=\"/a\",le=\"1e+06\"} 6 1500\n\
         d_seconds_bucket{route=\"/a\",le=\"+Inf\"} 10 1500\n\
         d_seconds_sum{route=\"/a\"} 42.5 1500\n\
         d_seconds_count{route=\"/a\"} 10 1500\n",
        "# TYPE d_seconds histogram\n# UNIT d_seconds seconds\n\
         d_seconds_bucket{route=\"/a\",le=\"0.5\"} 1 1.500 # {trace_id=\"5b8efff798038103d269b633813fc60c\"} 0.5 1.000\n\
         d_seconds_bucket{route=\"/a\",le=\"1.0\"} 3 1.500\n\
         d_seconds_bucket{route=\"/a\",le=\"1e+06\"} 6 1.500 # {user_id=\"7\"} 3 1.400\n\
         d_seconds_bucket{route=\"/a\",le=\"+Inf\"} 10 1.500\n\
         d_seconds_sum{route=\"/a\"} 42.5 1.500\n\
         d_seconds_count{route=\"/a\"} 10 1.500\n",
    );
    // Without buckets and sum; the last bound is implied.
    for point in [r#""count":"2""#, r#""count":"2","explicitBounds":["Infinity"],"bucketCounts":["2","0"]"#] {
        let want = "# TYPE d histogram\nd_bucket{le=\"+Inf\"} 2 1500\nd_count 2 1500\n";
        shows(&metric(r#""name":"d""#, "histogram", point), want, &want.replace("1500", "1.500"));
    }
}

#[test]
fn exponential_histograms_are_classic_buckets() {
    let point = format!(
        r#""count":"6","sum":9,"scale":0,"zeroCount":"1","positive":{{"offset":0,"bucketCounts":["2","1"]}},"negative":{{"offset":0,"bucketCounts":["2"]}},{EXEMPLARS}"#
    );
    shows(
        &metric(r#""name":"e""#, "exponentialHistogram", &point),
        "# TYPE e histogram\n\
         e_bucket{le=\"-1\"} 2 1500\ne_bucket{le=\"0\"} 3 1500\ne_bucket{le=\"2\"} 5 1500\ne_bucket{le=\"4\"} 6 1500\n\
         e_bucket{le=\"+Inf\"} 6 1500\ne_sum 9 1500\ne_count 6 1500\n",
        "# TYPE e histogram\n\
         e_bucket{le=\"-1.0\"} 2 1.500\ne_bucket{le=\"0.0\"} 3 1.500\n\
         e_bucket{le=\"2.0\"} 5 1.500 # {trace_id=\"5b8efff798038103d269b633813fc60c\"} 0.5 1.000\n\
         e_bucket{le=\"4.0\"} 6 1.500 # {user_id=\"7\"} 3 1.400\n\
         e_bucket{le=\"+Inf\"} 6 1.500 # {} 100 1.100\ne_sum 9 1.500\ne_count 6 1.500\n",
    );
}

#[test]
fn summaries() {
    let point =
        r#""count":"4","sum":20,"quantileValues":[{"quantile":1,"value":10},{"quantile":0.5,"value":"NaN"}]"#;
    let want = "# TYPE s summary\ns{quantile=\"0.5\"} NaN 1500\ns{quantile=\"1\"} 10 1500\ns_sum 20 1500\ns_count 4 1500\n";
    shows(
        &metric(r#""name":"s""#, "summary", point),
        want,
        &want.replace("1500", "1.500").replace("\"1\"", "\"1.0\""),
    );
}

#[test]
fn times_are_left_out_unless_wanted() {
    let rig = Rig::new("");
    rig.store(&[gauge("a", "", 0, 1.0), gauge("b", "", 2, 1.0)].join(","), 0);
    assert_eq!(page(&rig.0, TEXT, false, 0), "# TYPE a gauge\na 1\n# TYPE b gauge\nb 1\n");
    // A point without a time has none to show.
    assert_eq!(page(&rig.0, TEXT, true, 0), "# TYPE a gauge\na 1\n# TYPE b gauge\nb 1 2000\n");
}

#[test]
fn names_with_any_characters() {
    let rig = Rig::new("translation_strategy: NoTranslation, enable_open_metrics: true");
    let (x, y) = (attr("x.y", "v"), attr("a", "1"));
    let histogram = metric(r#""name":"h ü""#, "histogram", r#""count":"1""#);
    rig.store(
        &[gauge("my.metric", &format!("{x},{y}"), 1, 2.0), gauge("plain", &y, 1, 3.0), histogram].join(","),
        0,
    );
    assert_eq!(
        page(&rig.0, UTF8_TEXT, false, 0),
        "# TYPE \"h ü\" histogram\n{\"h ü_bucket\",le=\"+Inf\"} 1\n{\"h ü_count\"} 1\n\
         # TYPE \"my.metric\" gauge\n{\"my.metric\",a=\"1\",\"x.y\"=\"v\"} 2\n\
         # TYPE plain gauge\nplain{a=\"1\"} 3\n"
    );
    assert_eq!(
        page(&rig.0, TEXT, false, 0),
        "# TYPE h__ histogram\nh___bucket{le=\"+Inf\"} 1\nh___count 1\n\
         # TYPE my_metric gauge\nmy_metric{a=\"1\",x_y=\"v\"} 2\n\
         # TYPE plain gauge\nplain{a=\"1\"} 3\n"
    );
}

#[test]
fn names_that_become_the_same_are_shown_once() {
    let rig = Rig::new("translation_strategy: NoTranslation");
    let both = format!("{},{}", attr("x.y", "1"), attr("x_y", "2"));
    rig.store(
        &[
            gauge("a.b", "", 1, 1.0),
            gauge("a_b", "", 1, 2.0),
            gauge("c", &attr("x.y", "1"), 1, 3.0),
            gauge("c", &attr("x_y", "1"), 1, 4.0),
            gauge("c", &both, 1, 5.0),
        ]
        .join(","),
        0,
    );
    assert_eq!(
        page(&rig.0, TEXT, false, 0),
        "# TYPE a_b gauge\na_b 1\n# TYPE c gauge\nc{x_y=\"1\"} 3\nc{x_y=\"1;2\"} 5\n"
    );
    assert_eq!(page(&rig.0, UTF8_TEXT, false, 0).matches(" gauge\n").count(), 3);
}

#[test]
fn a_page_in_parts_is_the_page_and_survives_changes() {
    let rig = Rig::new("");
    let point = |family: u64, n: u64| gauge(&format!("m{family}"), &attr("n", &format!("{n:05}")), 1, 1.0);
    let end = |family: u64, n: u64| point(family, n).replace(r#""asDouble":1"#, r#""flags":1"#);
    for family in 0..3 {
        let points: Vec<String> = (0..6000).map(|n| point(family, n)).collect();
        rig.store(&points.join(","), 0);
    }
    let mut page = Page::new(rig.0.clone(), TEXT, false, 0);
    let (mut text, mut parts, mut more) = (Vec::new(), 0, true);
    while more {
        let part;
        (part, more) = page.part();
        assert!(part.len() < PART + 100, "a part of {} bytes", part.len());
        parts += 1;
        text.extend(part);
        if parts == 1 {
            // Behind and before the place: a series less, a series more, a family gone and made anew with a type.
            rig.take(&request(&end(0, 0)), 0);
            rig.take(&request(&end(1, 17)), 0);
            rig.store(&point(0, 99_999), 0);
            let ends: Vec<String> = (0..6000).map(|n| end(2, n)).collect();
            rig.take(&request(&ends.join(",")), 0);
            rig.store(&sum("m2", 2, (0, 1), 1), 0);
        }
    }
    assert!(parts > 2);
    let families = strict::parse(&String::from_utf8(text).unwrap(), false).unwrap();
    let told: Vec<_> = families.iter().map(|f| (f.name.as_str(), f.samples.len())).collect();
    assert_eq!(told, [("m0", 6001), ("m1", 5999), ("m2_total", 1)]);
}

#[test]
fn a_family_that_is_made_anew_with_another_type_is_not_mixed() {
    let rig = Rig::new("translation_strategy: UnderscoreEscapingWithoutSuffixes");
    let point = |n: u64| gauge("m", &attr("n", &format!("{n:05}")), 1, 1.0);
    let points: Vec<String> = (0..6000).map(point).collect();
    rig.store(&points.join(","), 0);
    let mut page = Page::new(rig.0.clone(), TEXT, false, 0);
    let (mut text, more) = page.part();
    assert!(more);
    let ends: Vec<String> = (0..6000).map(|n| point(n).replace(r#""asDouble":1"#, r#""flags":1"#)).collect();
    rig.take(&request(&ends.join(",")), 0);
    let late = sum("m", 2, (1, 2), 1).replacen(
        r#""timeUnixNano""#,
        &format!(r#""attributes":[{}],"timeUnixNano""#, attr("n", "99999")),
        1,
    );
    rig.store(&late, 0);
    let rest = page.part();
    assert!(!rest.1);
    text.extend(rest.0);
    let text = String::from_utf8(text).unwrap();
    assert!(!text.contains("99999"));
    strict::parse(&text, false).unwrap();
}

#[test]
fn labels_are_escaped_and_read_back() {
    let all = [("a", ""), ("a.b", "\"\\\n,=}"), ("\"", "ü\\"), ("", "x"), ("\\n", "\\n")];
    let mut out = String::new();
    for (i, (name, value)) in all.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        put_label_name(name, &mut out);
        out.push_str("=\"");
        put_escaped(value, true, &mut out);
        out.push('"');
    }
    let back: Vec<_> = pairs(&out).map(|(n, v)| (n.into_owned(), v.into_owned())).collect();
    let want: Vec<_> = all.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    assert_eq!(back, want);
    let mut escaped = String::new();
    escape_labels("\"1a\"=\"x\",\"_a\"=\"y\",b=\"z\"", &mut escaped);
    assert_eq!(escaped, "_a=\"x;y\",b=\"z\"");
}
