//! What a user sees: every file under `tests/config` against the findings beside it, and the command line's codes.
//!
//! After a change that is meant, `UPDATE_EXPECTED=1 cargo test --test config_errors` writes the expectations anew;
//! read the difference before you commit it.

#![allow(clippy::unwrap_used, reason = "a test: a surprise must fail")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tidegate::config::{LoadOptions, Source, load, render};

fn env(name: &str) -> Option<String> {
    match name {
        "TIDEGATE_TEST_HOST" => Some("localhost".to_owned()),
        "TIDEGATE_TEST_SIZE" => Some("sixteen".to_owned()),
        _ => None,
    }
}

fn fixtures() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir("tests/config")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    files
}

#[test]
fn findings_are_as_written_down() {
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let mut wrong = Vec::new();
    let files = fixtures();
    assert!(files.len() > 8);
    for file in files {
        let loaded = load(&[Source::File(file.clone())], LoadOptions { env: &env, ..LoadOptions::default() });
        let found = render(&loaded.diags, &loaded.sources);
        let expected = file.with_extension("expected");
        if update {
            std::fs::write(&expected, &found).unwrap();
        }
        let expected = std::fs::read_to_string(&expected).unwrap_or_default();
        if found != expected {
            wrong.push(format!("{}:\n{found}", file.display()));
        }
        let good = matches!(
            file.file_stem().and_then(|s| s.to_str()),
            Some(
                "good"
                    | "aliases"
                    | "connectors_good"
                    | "remote_write_good"
                    | "loki_good"
                    | "nvml_good"
                    | "tenants"
            )
        );
        assert_eq!(loaded.is_ok(), good, "{}", file.display());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn tidegate(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(args)
        .env("TIDEGATE_TEST_HOST", "localhost")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn exit_codes() {
    for (args, code) in [
        (&["validate", "--config", "tests/config/good.yaml"][..], 0),
        (&["validate", "--config", "tests/config/typo.yaml"], 78),
        (&["run", "--config", "tests/config/typo.yaml"], 78),
        (&["--config", "tests/config/no_such_file.yaml"], 78),
        (&["validate", "--config", "tests/config/good.yaml", "--set", "processors.batch.timeot=1s"], 78),
        (&["validate", "--config", "tests/config/aliases.yaml"], 0),
        (&["validate", "--config", "tests/config/aliases.yaml", "--strict"], 78),
        (&["validate", "--config", "tests/config/remote_write_good.yaml"], 0),
        (&["--version"], 0),
        (&["--help"], 0),
        (&["components"], 0),
        (&["schema"], 0),
        (&[], 2),
        (&["validate"], 2),
        (&["--nonsense"], 2),
        (&["--config", "s3://bucket/key"], 2),
        (&["--config", "https://example.com/c.yaml"], 2),
        (&["validate", "--config", "tests/config/good.yaml", "--set", "x"], 2),
        (&["validate", "--config", "tests/config/good.yaml", "--feature-gates", "-a.b"], 2),
    ] {
        let output = tidegate(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}\n{}", text(&output.stderr));
        assert!(code == 0 || !output.stderr.is_empty(), "{args:?} says nothing");
    }
    let silent = tidegate(&["validate", "--config", "tests/config/good.yaml"]);
    assert_eq!((text(&silent.stdout), text(&silent.stderr)), ("", ""));
    let gate = tidegate(&["validate", "--config", "x", "--feature-gates", "-a.b"]);
    assert_eq!(text(&gate.stderr), "error: no such feature gate \"a.b\". valid gates: []\n");
}

#[test]
fn findings_as_json() {
    let output = tidegate(&["validate", "--config", "tests/config/typo.yaml", "--output", "json"]);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        found,
        serde_json::json!([{
            "severity": "error",
            "file": "tests/config/typo.yaml",
            "line": 5,
            "column": 9,
            "path": "receivers::otlp::protocols::grpc::endpont",
            "message": "unknown key \"endpont\"",
            "hint": "did you mean \"endpoint\"?",
        }])
    );
    assert!(output.stderr.is_empty());
}

#[test]
fn the_config_is_printed_without_secrets() {
    let good = "tests/config/good.yaml";
    let printed = tidegate(&["print-config", "--config", good, "--set", "processors.batch.timeout=3s"]);
    let yaml = text(&printed.stdout);
    assert!(yaml.contains("X-Scope-OrgID: \"[REDACTED]\"") && !yaml.contains("acme"), "{yaml}");
    assert!(yaml.contains("timeout: 3s"), "{yaml}");
    // What is printed is a config again.
    let dir = tempfile::tempdir().unwrap();
    let again = dir.path().join("again.yaml");
    std::fs::write(&again, yaml).unwrap();
    assert_eq!(tidegate(&["validate", "--config", path(&again)]).status.code(), Some(0), "{yaml}");

    let shown = tidegate(&["print-config", "--config", good, "--mode", "unredacted", "--provenance"]);
    assert!(text(&shown.stdout).contains("X-Scope-OrgID: acme # tests/config/good.yaml:16\n"));
    let json = tidegate(&["print-initial-config", "--config", good, "--format", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["exporters"]["otlp_grpc/tempo"]["headers"]["X-Scope-OrgID"], "[REDACTED]");
    let bad = tidegate(&["print-config", "--config", "tests/config/typo.yaml"]);
    assert_eq!((bad.status.code(), text(&bad.stdout)), (Some(78), ""));
    let bad = tidegate(&["print-config", "--config", "tests/config/typo.yaml", "--validate", "false"]);
    assert!(text(&bad.stdout).contains("endpont: \"[REDACTED]\""));
}

#[test]
fn components_are_listed() {
    let listed = tidegate(&["components", "--output", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let otlp = json["exporters"].as_array().unwrap().iter().find(|c| c["name"] == "otlp_grpc").unwrap();
    assert_eq!(otlp["aliases"], serde_json::json!(["otlp"]));
    assert!(otlp["stability"]["traces"].is_string());
    assert!(text(&tidegate(&["components"]).stdout).contains("\n  - name: otlp\n"));
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
