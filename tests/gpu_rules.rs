//! The alerts and recording rules in `deploy/prometheus` and the dashboard in `deploy/grafana`: promtool finds no fault
//! in the rules, every one of them is shown to do what it should by the tests beside them, and every metric that rules
//! and dashboard ask for is one that the receiver gives.
//!
//! promtool is the one in `PATH`, or what `prometheus/install` fetches.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;
use serde_json::Value;
use tidegate::receivers::nvml::catalogue::{DEVICES, LEGACY, Metric, NODE, Shape};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn yaml_files(directory: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(repository().join(directory)).unwrap();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|e| e == "yaml"));
    found.sort();
    assert!(!found.is_empty(), "nothing in {directory}");
    found
}

/// Runs promtool; what it said, if it found fault.
fn promtool(words: &[&str], files: &[PathBuf]) -> Result<String, String> {
    let done = Command::new(repository().join("tests/prometheus/install")).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let fetched = repository().join("target/prometheus/promtool");
    let program = if fetched.exists() { fetched } else { "promtool".into() };
    let done = Command::new(program).args(words).args(files).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    if done.status.success() { Ok(said) } else { Err(said) }
}

/// The names behind `- alert:` or `- record:`.
fn names(key: &str, text: &str) -> Vec<String> {
    let marker = format!("- {key}: ");
    text.lines().filter_map(|line| line.trim_start().strip_prefix(&marker)).map(str::to_owned).collect()
}

fn text_of(files: &[PathBuf]) -> String {
    files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect()
}

#[test]
fn promtool_finds_no_fault_in_the_rules() {
    let files = yaml_files("deploy/prometheus");
    assert!(files.len() >= 3, "{files:?}");
    promtool(&["check", "rules", "--lint-fatal"], &files).unwrap_or_else(|said| panic!("{said}"));
}

#[test]
fn the_rules_do_what_their_tests_say() {
    let said = promtool(&["test", "rules"], &yaml_files("deploy/prometheus/tests"));
    let said = said.unwrap_or_else(|said| panic!("{said}"));
    assert!(!said.contains("FAILED"), "{said}");
}

/// A rule that is broken on purpose fails: the tests look at something.
#[test]
fn a_changed_threshold_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let (rules, tests) = (directory.path(), directory.path().join("tests"));
    std::fs::create_dir(&tests).unwrap();
    for file in yaml_files("deploy/prometheus") {
        let text = std::fs::read_to_string(&file).unwrap();
        let changed = text.replace("> 85", "> 84").replace("< 0.3", "< 0.32").replace("> 0.95", "> 0.94");
        std::fs::write(rules.join(file.file_name().unwrap()), changed).unwrap();
    }
    for name in ["heat.yaml", "use.yaml"] {
        let copy = tests.join(name);
        std::fs::copy(repository().join("deploy/prometheus/tests").join(name), &copy).unwrap();
        let said = promtool(&["test", "rules"], &[copy]).expect_err("a changed threshold was not noticed");
        assert!(said.contains("FAILED"), "{said}");
    }
}

#[test]
fn every_rule_has_a_test_and_every_alert_says_what_to_do() {
    let rules = text_of(&yaml_files("deploy/prometheus"));
    let tests = text_of(&yaml_files("deploy/prometheus/tests"));
    let named = |name: &str| {
        let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        tests.match_indices(name).any(|(at, _)| ends(&tests[at + name.len()..]))
    };
    let untested: Vec<String> = [names("alert", &rules), names("record", &rules)]
        .concat()
        .into_iter()
        .filter(|name| !named(name))
        .collect();
    assert!(untested.is_empty(), "without a test: {untested:?}");
    let alerts = rules.split("- alert: ").skip(1);
    for alert in alerts {
        let name = alert.lines().next().unwrap();
        for key in ["severity: ", "summary: ", "description: ", "runbook: "] {
            assert!(alert.contains(key), "{name} has no {key}");
        }
    }
}

/// What the metric is called in Prometheus, by the rules of the specification.
fn prometheus_name(metric: &Metric) -> String {
    let mut name = metric.name.replace('.', "_");
    let word = match metric.unit {
        "By" => "bytes",
        "By/s" => "bytes_per_second",
        "Cel" => "celsius",
        "Hz" => "hertz",
        "J" => "joules",
        "W" => "watts",
        "s" => "seconds",
        "%" => "percent",
        "1" if metric.shape == Shape::Gauge => "ratio",
        "rpm" => "rpm",
        unit => {
            assert!(unit.is_empty() || unit == "1" || unit.starts_with('{'), "{unit} of {name} is new here");
            ""
        }
    };
    if !word.is_empty() && !name.split('_').any(|part| part == word) {
        name = format!("{name}_{word}");
    }
    if metric.shape == Shape::Counter { format!("{name}_total") } else { name }
}

/// The expressions of rules: what stands behind `expr:`, up to the next key.
fn expressions_of_rules(text: &str) -> Vec<String> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(first) = line.trim_start().strip_prefix("expr: ") else { continue };
        let more = lines[at + 1..].iter().take_while(|next| indent(next) > indent(line));
        let more: Vec<&str> = more.map(|next| next.trim()).collect();
        found.push(format!("{} {}", first.trim_start_matches(">-"), more.join(" ")));
    }
    found
}

fn dashboard() -> Value {
    let text = std::fs::read_to_string(repository().join("deploy/grafana/gpu-dashboard.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The expressions of the dashboard's panels and variables.
fn expressions_of_dashboard(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let asked = variables.filter_map(|variable| variable["definition"].as_str());
    targets.map(|target| target["expr"].as_str().unwrap()).chain(asked).map(str::to_owned).collect()
}

/// The metrics that an expression names.
fn metrics_in(expression: &str) -> BTreeSet<String> {
    let aside = [
        r#""[^"]*""#,
        r"\{[^}]*\}",
        r"\b(by|on|without|ignoring|group_left|group_right) *\([^)]*\)",
        r", *\w+\)$",
    ];
    let plain = aside.iter().fold(expression.to_owned(), |text, pattern| {
        Regex::new(pattern).unwrap().replace_all(&text, " ").into_owned()
    });
    let name = Regex::new(r"\b(hw|nvidia|gpu)[_:][a-z0-9_:]+").unwrap();
    name.find_iter(&plain).map(|found| found.as_str().to_owned()).collect()
}

#[test]
fn rules_and_dashboard_ask_for_metrics_that_there_are() {
    let rules = text_of(&yaml_files("deploy/prometheus"));
    let mut known: BTreeSet<String> = DEVICES.iter().chain(NODE).chain(LEGACY).map(prometheus_name).collect();
    known.extend(names("record", &rules));
    let expressions = [expressions_of_rules(&rules), expressions_of_dashboard(&dashboard())].concat();
    assert!(expressions.len() > 80, "only {} expressions were found", expressions.len());
    for expression in expressions {
        let metrics = metrics_in(&expression);
        assert!(!metrics.is_empty() || expression.contains("ALERTS"), "no metric in {expression}");
        let unknown: Vec<&String> = metrics.difference(&known).collect();
        assert!(unknown.is_empty(), "the receiver gives no {unknown:?}, asked for by {expression}");
    }
}

#[test]
fn the_dashboard_is_sound() {
    let dashboard = dashboard();
    assert_eq!(dashboard["uid"], "tidegate-gpu");
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 36);
    let variables: Vec<&str> = dashboard["templating"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v["name"].as_str().unwrap())
        .collect();
    assert_eq!(variables, ["datasource", "node", "gpu", "tenant"]);
    let known = Regex::new(r"\$(\{datasource\}|node|gpu|tenant|__rate_interval|1\b)").unwrap();

    let (mut ids, mut titles, mut cells) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title} has the id of another panel");
        assert!(titles.insert(title), "two panels are called {title}");
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{title} is wider than the page");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(cells.insert((x, y)), "{title} covers another panel");
            }
        }
        if panel["type"] == "row" {
            continue;
        }
        assert!(
            panel["description"].as_str().is_some_and(|text| text.len() > 20),
            "{title} is not described"
        );
        let mut refs = BTreeSet::new();
        for target in panel["targets"].as_array().unwrap() {
            assert!(refs.insert(target["refId"].as_str().unwrap()), "{title}: two queries of one name");
            for source in [&panel["datasource"], &target["datasource"]] {
                assert_eq!(source["uid"], "${datasource}", "{title}");
            }
            let expression = target["expr"].as_str().unwrap();
            let rest = known.replace_all(expression, "");
            assert!(!rest.contains('$'), "{title}: an unknown variable in {expression}");
        }
        assert!(!refs.is_empty(), "{title} asks nothing");
    }
}
