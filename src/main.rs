//! The `tidegate` program: arguments to [`tidegate`] and back to an exit code.
#![allow(clippy::print_stderr, reason = "until the command line is there")]

use std::process::ExitCode;

use tidegate::config::{LoadOptions, Source, load};

fn main() -> ExitCode {
    let files: Vec<Source> =
        std::env::args().skip(1).filter(|a| a != "--config").map(|a| Source::File(a.into())).collect();
    let loaded = load(&files, LoadOptions::default());
    for diag in &loaded.diags {
        eprintln!("{}:{}: {} {:?}", diag.pos.line, diag.pos.col, diag.message, diag.hint);
    }
    match loaded.plan {
        Some(plan) => tidegate::service::run(&plan, &tidegate::service::RunOptions::default()),
        None => ExitCode::from(78),
    }
}
