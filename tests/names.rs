//! `tidegate names`: what it prints for several configs, against what is written down, and its codes.
//!
//! After a change that is meant, `UPDATE_EXPECTED=1 cargo test --test names` writes the expectations anew; read the
//! difference before you commit it.

#![allow(clippy::unwrap_used, reason = "a test: a surprise must fail")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const EXAMPLE: &str = "docs/examples/names.json";

fn names(args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .arg("names")
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
    const CLASSIC: &str = "prometheus_remote_write/classic";
    const PLAIN: &str = "prometheus_remote_write/plain";
    let cases: &[(&str, &[&str])] = &[
        ("default", &[EXAMPLE]),
        ("json", &[EXAMPLE, "--output", "json"]),
        ("utf8", &[EXAMPLE, "--config", "tests/names/utf8.yaml"]),
        ("classic", &[EXAMPLE, "--config", "tests/names/two.yaml", "--exporter", CLASSIC]),
        ("plain", &["--config", "tests/names/two.yaml", "--exporter", PLAIN, EXAMPLE]),
        ("collisions", &["tests/names/collisions.json"]),
        ("collisions_json", &["tests/names/collisions.json", "--output", "json"]),
        ("lines", &["tests/names/lines.jsonl"]),
    ];
    let mut wrong = Vec::new();
    for (name, args) in cases {
        let output = names(args, "");
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""), "{name}");
        let file = Path::new("tests/names").join(name).with_extension("expected");
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
    let example = std::fs::read_to_string(EXAMPLE).unwrap();
    let file = names(&[EXAMPLE], "");
    assert!(!file.stdout.is_empty());
    for args in [&[][..], &["-"]] {
        let output = names(args, &example);
        assert_eq!((output.status.code(), &output.stdout), (Some(0), &file.stdout));
    }
}

#[test]
fn what_cannot_be_read_is_said_with_its_place() {
    const METRIC: &str = r#"{"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "x"}]}]}]}"#;
    let bad = [
        ("", "stdin: there is nothing in it"),
        (" \n", "stdin: there is nothing in it"),
        ("{}", "stdin: there are no metrics in it: a metrics request has \"resourceMetrics\""),
        (
            r#"{"resourceSpans": []}"#,
            "stdin: there are no metrics in it: a metrics request has \"resourceMetrics\"",
        ),
        ("{\n  \"resourceMetrics\": 7}", "stdin: line 2, column 22: resourceMetrics: expected an array"),
        (
            &format!("{METRIC}\n\n{METRIC} {{\"resourceMetrics\": [}}"),
            "stdin: line 3, column 94: resourceMetrics[0]: expected an object",
        ),
        (&format!("{METRIC}\n[\n"), "stdin: line 2, column 1: "),
    ];
    for (input, why) in bad {
        let output = names(&[], input);
        let said = text(&output.stderr);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(65), ""), "{input}: {said}");
        assert!(said.starts_with(&format!("error: {why}")), "{input}: {said}");
    }
    let output = names(&["no/such.json"], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("error: no/such.json: "));
}

#[test]
fn the_exporter_must_be_clear() {
    let two = ["prometheus_remote_write/plain", "prometheus_remote_write/classic"].join(", ");
    for (args, code, why) in [
        (
            &["--config", "tests/names/two.yaml"][..],
            78,
            format!("the config has several Prometheus exporters, choose one with --exporter: {two}"),
        ),
        (
            &["--config", "tests/names/two.yaml", "--exporter", "debug"],
            78,
            format!("no Prometheus exporter \"debug\"; there are: {two}"),
        ),
        (&["--config", "pipelines/gateway.yaml"], 78, "the config has no Prometheus exporter".to_owned()),
    ] {
        let output = names(&[&[EXAMPLE], args].concat(), "");
        let said = (output.status.code(), text(&output.stderr).trim_end().to_owned());
        assert_eq!(said, (Some(code), format!("error: {why}")), "{args:?}");
    }
    assert_eq!(names(&[EXAMPLE, "--exporter", "x"], "").status.code(), Some(2));
    assert_eq!(names(&[EXAMPLE, "--set", "a.b=c"], "").status.code(), Some(2));
    let output = names(&[EXAMPLE, "--config", "tests/config/typo.yaml"], "");
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(78), ""));
    assert!(text(&output.stderr).contains("unknown key \"endpont\""));
}
