//! The `nvml` receiver over a stand-in for the driver: what is exported of what NVML says, and what becomes of it when
//! NVML fails in every way it can.
//!
//! Names, units and values in the tables are written down by hand from the reference, not taken from the code.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "test code: a surprise must fail loudly"
)]

#[path = "nvml/agent.rs"]
mod agent;
#[path = "nvml/codes.rs"]
mod codes;
#[path = "nvml/events.rs"]
mod events;
#[path = "nvml/kit.rs"]
mod kit;
#[path = "nvml/lifecycle.rs"]
mod lifecycle;
#[path = "nvml/mig.rs"]
mod mig;
#[path = "nvml/names.rs"]
mod names;
#[path = "nvml/readings.rs"]
mod readings;
mod support;
#[path = "nvml/table.rs"]
mod table;
#[path = "nvml/values.rs"]
mod values;
