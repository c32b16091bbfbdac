//! `tidegate relabel explain`: what it prints for rules and items, against what is written down, and its codes.
//!
//! After a change that is meant, `UPDATE_EXPECTED=1 cargo test --test relabel` writes the expectations anew; read the
//! difference before you commit it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test: a surprise must fail"
)]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const RULES: &str = "tests/relabel/rules.yaml";
const TWO: &str = "tests/relabel/two.yaml";

fn explain(args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["relabel", "explain"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that does not read its input closes it.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn what_is_printed_is_as_written_down() {
    let quick = "tests/relabel/quick.jsonl";
    let request = "tests/relabel/request.json";
    let cases: &[(&str, &[&str])] = &[
        ("quick", &[quick, "--config", RULES]),
        ("quick_json", &[quick, "--config", RULES, "--output", "json"]),
        ("request", &[request, "--config", TWO, "--rules", "processors.relabel", "--tenant", "team-a"]),
        ("other", &[request, "--config", TWO, "--rules", "relabel/other"]),
        ("metrics", &["docs/examples/names.json", "--config", RULES]),
    ];
    let mut wrong = Vec::new();
    for (name, args) in cases {
        let output = explain(args, "");
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""), "{name}");
        let file = Path::new("tests/relabel").join(name).with_extension("expected");
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            std::fs::write(&file, &output.stdout).unwrap();
        }
        let expected = std::fs::read_to_string(&file).unwrap_or_default();
        if text(&output.stdout) != expected {
            wrong.push(format!("{name}:\n{}", text(&output.stdout)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn stdin_is_read_without_a_file() {
    let labels = r#"{"labels": {"a": 1.5, "b": true, "c": null}}"#;
    for args in [&["--config", RULES][..], &["-", "--config", RULES]] {
        let output = explain(args, labels);
        assert_eq!(output.status.code(), Some(0));
        let said = text(&output.stdout);
        assert!(
            said.starts_with(
                "log record 1 of 1, processors.relabel\n  before\n    a = \"1.5\"\n    b = \"true\"\n  rule 1"
            ),
            "{said}"
        );
    }
}

#[test]
fn what_cannot_be_read_is_said_with_its_place() {
    let bad = [
        ("", "stdin: there is nothing in it"),
        ("{}", "stdin: there are no items in it"),
        (r#"{"resourceSpans": []}"#, "stdin: there are no items in it"),
        ("{\n  \"resourceMetrics\": 7}", "stdin: line 2, column 22: resourceMetrics: expected an array"),
        ("\n{\"labels\": 7}", "stdin: line 2: labels: expected an object"),
        (r#"{"labels": {"a": [1]}}"#, "stdin: line 1: labels.a: expected a string, a number or a boolean"),
        (r#"{"labels": {"__name__": 1}}"#, "stdin: line 1: labels.__name__: expected a string"),
        (
            r#"{"labels": {"__tmp": "x"}}"#,
            "stdin: line 1: labels.__tmp: only rules set labels that begin with \"__tmp\"",
        ),
        (
            r#"{"labels": {"__kind__": "x"}}"#,
            "stdin: line 1: labels.__kind__: a metric's type is one of gauge",
        ),
        (
            r#"{"labels": {"__kind__": "sum"}, "signal": "traces"}"#,
            "stdin: line 1: labels.__kind__: a span's kind is one of internal",
        ),
        (
            r#"{"labels": {"__kind__": "x", "__severity__": "y"}}"#,
            "stdin: line 1: labels.__kind__: a log record has none",
        ),
        (
            r#"{"labels": {"__kind__": "server", "__severity__": "y"}}"#,
            "stdin: line 1: labels.__severity__: only log records have one",
        ),
        (
            r#"{"labels": {}, "signal": "profiles"}"#,
            "stdin: line 1: signal: expected \"traces\", \"metrics\" or \"logs\"",
        ),
    ];
    for (input, why) in bad {
        let output = explain(&["--config", RULES], input);
        let said = text(&output.stderr);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(65), ""), "{input}: {said}");
        assert!(said.starts_with(&format!("error: {why}")), "{input}: {said}");
    }
    let output = explain(&["no/such.json", "--config", RULES], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("error: no/such.json: "));
}

#[test]
fn the_rules_must_be_clear() {
    let two = "processors.relabel, processors.relabel/other";
    for (args, why) in [
        (
            &["--config", TWO][..],
            format!("the config has several relabel processors, choose one with --rules: {two}"),
        ),
        (
            &["--config", TWO, "--rules", "processors.batch"],
            format!("no relabel processor \"processors.batch\"; there are: {two}"),
        ),
        (&["--config", "pipelines/gateway.yaml"], "the config has no relabel processor".to_owned()),
    ] {
        let output = explain(args, "{}");
        let said = (output.status.code(), text(&output.stderr).trim_end().to_owned());
        assert_eq!(said, (Some(78), format!("error: {why}")), "{args:?}");
    }
    assert_eq!(explain(&[], "{}").status.code(), Some(2));
    let output = explain(&["--config", "tests/config/typo.yaml"], "");
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(78), ""));
    assert!(text(&output.stderr).contains("unknown key \"endpont\""));
    // Rules that a signal has no meaning for, of a processor that no pipeline of that signal uses.
    let set = "processors.relabel/other.rules=[{source_labels: [b], target_label: __name__}]";
    let args = ["--config", TWO, "--set", set, "--rules", "relabel/other"];
    let output = explain(&args, r#"{"labels": {"__name__": "up"}}"#);
    assert_eq!(output.status.code(), Some(78), "{}", text(&output.stderr));
    assert!(
        text(&output.stderr)
            .contains("processors::relabel/other: rule 1, for metrics: \"__name__\": a metric's name")
    );
}

/// Blocks of the page in a language.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    page.split(fence.as_str()).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn recipes_do_what_they_say() {
    let page = std::fs::read_to_string("docs/relabel.md").unwrap();
    let (_, recipes) = page.split_once("## Recipes").unwrap();
    let rules = blocks(recipes, "yaml");
    let items = blocks(recipes, "json");
    assert_eq!((rules.len(), items.len()), (9, 9));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("recipe.yaml");
    for (rules, items) in rules.into_iter().zip(items) {
        let rules: String = rules.lines().map(|line| format!("      {line}\n")).collect();
        let base = std::fs::read_to_string(TWO).unwrap();
        let (head, rest) = base.split_once("  relabel:\n").unwrap();
        let (_, tail) = rest.split_once("  relabel/other:").unwrap();
        std::fs::write(&file, format!("{head}  relabel:\n    rules:\n{rules}  relabel/other:{tail}"))
            .unwrap();
        let [before, after] = items.trim().lines().collect::<Vec<_>>()[..] else { panic!("{items}") };
        let labels = format!("{{\"labels\": {before}}}");
        let args = ["--config", file.to_str().unwrap(), "--rules", "processors.relabel", "--output", "json"];
        let output = explain(&args, &labels);
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""), "{rules}");
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(told[0]["after"], serde_json::from_str::<serde_json::Value>(after).unwrap(), "{rules}");
    }
}

#[test]
fn the_page_shows_what_is_printed() {
    let page = std::fs::read_to_string("docs/relabel.md").unwrap();
    let shown = blocks(&page, "text")[0];
    let (command, answer) = shown.split_once("pipelines/relabel.yaml\n").unwrap();
    let labels = command.split('\'').nth(1).unwrap();
    let output = explain(&["--config", "pipelines/relabel.yaml"], labels);
    let (shown, _) = answer.split_once("  …").unwrap();
    assert!(text(&output.stdout).starts_with(shown), "{}", text(&output.stdout));
}
