//! The alerts and recording rules in `deploy/prometheus`: promtool finds no fault in them, every one of them is shown
//! to do what it should by the tests beside them, and every metric they ask for is one that the receiver gives.
//!
//! promtool is the one in `PATH`, or what `prometheus/install` fetches.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

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
    let untested: Vec<String> =
        [names("alert", &rules), names("record", &rules)].concat().into_iter().filter(|name| !named(name)).collect();
    assert!(untested.is_empty(), "without a test: {untested:?}");
    let alerts = rules.split("- alert: ").skip(1);
    for alert in alerts {
        let name = alert.lines().next().unwrap();
        for key in ["severity: ", "summary: ", "description: ", "runbook: "] {
            assert!(alert.contains(key), "{name} has no {key}");
        }
    }
}
