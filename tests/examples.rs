//! Every configuration we show validates without a warning: the example, the ready pipelines, and each complete
//! one in the documentation.

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

/// Validates a file and returns what is wrong with it.
fn complaint(file: &Path) -> Option<String> {
    let program = std::env::var_os("TIDEGATE_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_tidegate").into());
    let done = Command::new(program)
        .args(["validate", "--strict", "--config"])
        .arg(file)
        .env_clear()
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    (!done.status.success() || !said.is_empty())
        .then(|| format!("{}: {}\n{said}", file.display(), done.status))
}

fn files(directory: &str, extension: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(repository().join(directory))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect();
    found.sort();
    found
}

#[test]
fn the_example_and_the_ready_pipelines_validate() {
    let mut all = files("pipelines", "yaml");
    assert!(all.len() >= 5, "pipelines/ is empty");
    all.push(repository().join("config.example.yaml"));
    let complaints: Vec<String> = all.iter().filter_map(|file| complaint(file)).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn configurations_in_the_documentation_validate() {
    let directory = tempfile::tempdir().unwrap();
    let mut pages = files("docs", "md");
    pages.push(repository().join("README.md"));
    let (mut checked, mut complaints) = (0, Vec::new());
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for block in text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            // A fragment without pipelines is no configuration of its own.
            if !block.contains("service:") || !block.contains("receivers:") {
                continue;
            }
            checked += 1;
            let file = directory.path().join(format!("{checked}.yaml"));
            std::fs::write(&file, block).unwrap();
            complaints.extend(complaint(&file).map(|c| format!("in {}: {c}", page.display())));
        }
    }
    assert!(checked > 0, "no configuration found in the documentation");
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
