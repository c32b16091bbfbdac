//! The `tidegate` program: arguments to [`tidegate`] and back to an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidegate::cli::main(std::env::args_os())
}
