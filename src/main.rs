//! The `tidegate` program: arguments to [`tidegate`] and back to an exit code.

fn main() {}
