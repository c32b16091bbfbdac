//! Writes a scenario as text: for an agent that is to be driven by hand.
//!
//! `cargo run -p nvml-stand-in --example scenario h200 8 > gpus.json`, then an agent with `library_path` at the shared
//! object and `TIDEGATE_STAND_IN=gpus.json` in its environment. Changes of the file are seen at the next call.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used, reason = "a tool for tests")]

use nvml_stand_in::profile;

fn main() {
    let mut words = std::env::args().skip(1);
    let name = words.next().unwrap_or_else(|| "h200".to_owned());
    let count = words.next().map_or(1, |n| n.parse().expect("how many is a number"));
    let scenario = match name.as_str() {
        "h200" => profile::h200(count),
        "h100" => profile::h100(count),
        "l40s" => profile::l40s(count),
        "a100-mig" => profile::a100_mig(),
        "h100-mig" => profile::h100_mig(),
        "old-driver" => profile::old_driver(count),
        "desktop" => profile::desktop(),
        other => {
            let known = "h200, h100, l40s, a100-mig, h100-mig, old-driver, desktop";
            return println!("there is no profile {other}; there are {known}");
        }
    };
    println!("{}", serde_json::to_string_pretty(&scenario).unwrap());
}
