//! `docs/prometheus.md` says what the agent does: its examples are those of `docs/examples/names.json`, become the
//! series it shows, and its tables hold.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test: a surprise must fail"
)]

use std::collections::BTreeMap;

use serde_json::Value;
use tidegate::components::{self, Kind};
use tidegate::config::{LoadOptions, SchemaKind, Source, load, render};
use tidegate::exporters::prometheus_remote_write::{RemoteWriteConfig, options};
use tidegate::pdata::Signal;
use tidegate::pdata::json::{Limits, decode};
use tidegate::prometheus::names::{Namer, Shape, TranslationStrategy};
use tidegate::prometheus::remote::{Exponential, RemoteOptions};
use tidegate::prometheus::tell::Teller;

const PAGE: &str = include_str!("../docs/prometheus.md");
const EXAMPLES: &str = include_str!("../docs/examples/names.json");

/// The page's fenced blocks: language and text.
fn blocks() -> Vec<(&'static str, &'static str)> {
    let fences = PAGE.split("\n```").skip(1).step_by(2);
    fences.map(|block| block.split_once('\n').unwrap()).collect()
}

/// The rows of the tables whose head starts with `head`: their cells, without backquotes.
fn rows(head: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut lines = PAGE.lines();
    while let Some(line) = lines.next() {
        if !line.starts_with(head) {
            continue;
        }
        for row in lines.by_ref().skip(1).take_while(|line| line.starts_with('|')) {
            let cells = row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', ""));
            found.push(cells.collect());
        }
    }
    assert!(!found.is_empty(), "no table {head}");
    found
}

/// The lines of each metric's series, and of `resources`, as `tidegate names` prints them.
fn told(options: &RemoteOptions) -> BTreeMap<String, Vec<String>> {
    let mut teller = Teller::new(options);
    teller.read(&decode(Signal::Metrics, EXAMPLES.as_bytes(), Limits::default()).unwrap()).unwrap();
    let text = teller.finish().text();
    let paragraph = |text: &str| {
        let (head, rest) = text.trim().strip_prefix("# ")?.split_once('\n')?;
        let name = head.split_once(" (").map_or(head, |(name, _)| name).to_owned();
        Some((name, rest.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()))
    };
    text.split("\n\n").filter_map(paragraph).collect()
}

fn defaults() -> RemoteOptions {
    options(&RemoteWriteConfig::default())
}

/// Takes the times out, which the page leaves out.
fn without_times(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|key, _| !key.ends_with("UnixNano"));
            object.values_mut().for_each(without_times);
        }
        Value::Array(list) => list.iter_mut().for_each(without_times),
        _ => {}
    }
}

fn example_metrics() -> Vec<Value> {
    let mut all: Value = serde_json::from_str(EXAMPLES).unwrap();
    without_times(&mut all);
    let groups = all["resourceMetrics"].as_array().unwrap();
    let scopes = groups.iter().flat_map(|group| group["scopeMetrics"].as_array().unwrap());
    scopes.flat_map(|scope| scope["metrics"].as_array().unwrap().clone()).collect()
}

#[test]
fn examples_are_those_of_the_file() {
    let shown = blocks().into_iter().filter(|(language, _)| *language == "json");
    let shown: Vec<Value> = shown.map(|(_, text)| serde_json::from_str(text).unwrap()).collect();
    let examples = example_metrics();
    for metric in &shown {
        assert!(examples.contains(metric), "not in names.json: {metric}");
    }
    for metric in &examples {
        assert!(shown.contains(metric), "not on the page: {metric}");
    }
}

#[test]
fn examples_become_the_series_shown() {
    let told = told(&defaults());
    let classic = self::told(&RemoteOptions { exponential: Exponential::Classic, ..defaults() });
    let all: Vec<&String> = told.values().flatten().collect();
    // An exemplar stands on a line of its own further down.
    let plain = |line: &String| line.split(" # ").next().unwrap().to_owned();
    let mut checked = 0;
    let mut metric = None;
    for (language, text) in blocks() {
        match language {
            "json" => {
                let json: Value = serde_json::from_str(text).unwrap();
                metric = Some(json["name"].as_str().unwrap().to_owned());
                continue;
            }
            "prometheus" => {
                let whose = match text.starts_with("target_info") {
                    true => "resources".to_owned(),
                    false => metric.take().expect("series without a metric before them"),
                };
                let series: Vec<String> = told[&whose].iter().map(plain).collect();
                assert_eq!(text.lines().collect::<Vec<_>>(), series);
            }
            "text" if text.contains("_bucket{") => {
                assert_eq!(text.lines().collect::<Vec<_>>(), classic["http.response.body.size"]);
            }
            "text" => {
                // One series; dots stand for labels that are not repeated.
                let line = text.lines().map(str::trim).collect::<Vec<_>>().join(" ");
                let (start, end) = line.split_once('…').unwrap_or((&line, ""));
                let fits = |l: &&&String| l.starts_with(start) && l.ends_with(end);
                assert!(all.iter().find(fits).is_some(), "{line}\nis not among\n{all:#?}");
            }
            _ => continue,
        }
        checked += 1;
    }
    assert!(checked >= 12, "only {checked} blocks checked");
}

#[test]
fn delta_is_dropped_or_added_up() {
    assert_eq!(told(&defaults())["jobs.done"], Vec::<String>::new());
    let limits = tidegate::prometheus::delta::Limits {
        max_streams: 10,
        max_stale: std::time::Duration::from_secs(300),
    };
    let series = &told(&RemoteOptions { delta: Some(limits), ..defaults() })["jobs.done"];
    assert_eq!(series, &["jobs_done_total{instance=\"i1\",job=\"shop/api\"} 8"]);
    assert!(PAGE.contains("`jobs_done_total{instance=\"i1\",job=\"shop/api\"}` is 5, then 8"));
}

#[test]
fn fragments_of_configuration_are_taken() {
    const REST: &str = r#"
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:4317"}}}}
exporters:
  prometheus_remote_write: {endpoint: "http://127.0.0.1:9090/api/v1/write"}
  prometheus: {endpoint: "127.0.0.1:8889"}
service: {pipelines: {metrics: {receivers: [otlp], exporters: [prometheus_remote_write, prometheus]}}}
"#;
    let fragments: Vec<_> = blocks().into_iter().filter(|(language, _)| *language == "yaml").collect();
    assert!(!fragments.is_empty());
    for (_, fragment) in fragments {
        let source = |name: &str, text: &str| Source::Bytes(name.to_owned(), text.as_bytes().to_vec());
        let loaded = load(&[source("rest", REST), source("fragment", fragment)], LoadOptions::default());
        assert_eq!(render(&loaded.diags, &loaded.sources), "");
    }
}

fn name(strategy: TranslationStrategy, name: &str, unit: &str, shape: Shape) -> Option<String> {
    let mut out = String::new();
    Namer::new(strategy, "").metric(name, unit, shape, &mut out).ok().map(|()| out)
}

#[test]
fn names_and_units_are_those_of_the_tables() {
    use TranslationStrategy::{
        NoTranslation, NoUtf8EscapingWithSuffixes, UnderscoreEscapingWithSuffixes,
        UnderscoreEscapingWithoutSuffixes,
    };
    const DEFAULT: TranslationStrategy = UnderscoreEscapingWithSuffixes;
    for row in rows("| Name | Unit | Type |") {
        let shape = match row[2].as_str() {
            "histogram" => Shape::Histogram,
            "counter" => Shape::Counter,
            "gauge" => Shape::Gauge,
            "sum, not monotonic" => Shape::UpDown,
            other => panic!("{other}"),
        };
        let made = name(DEFAULT, &row[0], &row[1], shape);
        assert_eq!(made.unwrap_or("left out, reason name: nothing remains".to_owned()), row[3]);
    }
    let strategies = [DEFAULT, UnderscoreEscapingWithoutSuffixes, NoUtf8EscapingWithSuffixes, NoTranslation];
    let table = rows("| `translation_strategy` | Other");
    assert_eq!(table.len(), strategies.len());
    for (row, strategy) in table.iter().zip(strategies) {
        assert_eq!(row[0], strategy.word());
        assert_eq!(row[1] == "_", strategy.escapes());
        assert_eq!(row[2] == "appended", strategy.suffixes());
        let made = name(strategy, "http.server.request.duration", "s", Shape::Histogram);
        assert_eq!(made.as_ref(), Some(&row[3]));
    }
    let cells = |head| {
        rows(head)
            .into_iter()
            .flat_map(|row| row.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect::<Vec<_>>())
    };
    for (unit, word) in cells("| Unit | Word |").filter(|(unit, _)| !unit.is_empty()) {
        let word = if word == "none" { "x".to_owned() } else { format!("x_{word}") };
        assert_eq!(name(DEFAULT, "x", &unit, Shape::UpDown), Some(word), "{unit}");
    }
    for (unit, word) in cells("| Per | Word |").filter(|(unit, _)| !unit.is_empty()) {
        assert_eq!(name(DEFAULT, "x", &format!("By{unit}"), Shape::UpDown), Some(format!("x_bytes_{word}")));
    }
}

#[test]
fn labels_are_those_of_the_table() {
    let namer = Namer::new(TranslationStrategy::UnderscoreEscapingWithSuffixes, "");
    for row in rows("| In | Label |").iter().filter(|row| !row[0].starts_with("any")) {
        for key in row[0].split(", ") {
            let mut label = String::new();
            let made = namer.label(key, &mut label).is_ok() && !label.starts_with("__");
            assert_eq!(if made { &label } else { "not sent" }, row[1], "{key}");
        }
    }
}

#[test]
fn options_are_those_of_the_exporters() {
    let table = rows("| Key of `prometheus_remote_write` |");
    for (column, exporter) in [(0, "prometheus_remote_write"), (1, "prometheus")] {
        let Some(row) = components::find(Kind::Exporter, exporter) else { continue };
        let SchemaKind::Struct { fields, .. } = (row.schema)().kind else { panic!("{exporter} has no keys") };
        let mut checked = 0;
        for cells in &table {
            let key = if cells[column] == "the same" { &cells[0] } else { &cells[column] };
            if key == "–" {
                continue;
            }
            let (block, inner) = key.split_once('.').unwrap_or((key, ""));
            let field = fields.iter().find(|field| field.key == block);
            let field = field.unwrap_or_else(|| panic!("{exporter} has no {key}"));
            if let SchemaKind::Struct { fields, .. } = &field.schema.kind
                && !inner.is_empty()
            {
                assert!(fields.iter().any(|field| field.key == inner), "{exporter} has no {key}");
            }
            // Defaults that are words, numbers or durations are as the schema has them.
            let said = cells[2].split(' ').next().unwrap_or_default();
            if let (0, Value::String(default)) = (column, &field.default)
                && !default.is_empty()
            {
                assert!(default == said || default == "0s", "{key}: {default} is not {said}");
            }
            if let (0, Value::Bool(default)) = (column, &field.default) {
                assert_eq!(default.to_string(), said, "{key}");
            }
            checked += 1;
        }
        assert!(checked > 5, "{exporter}: only {checked} keys checked");
    }
}
