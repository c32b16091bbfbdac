//! NVML without a GPU: a shared library with the driver's C symbols that answers what a scenario says.
//!
//! The crate is two things. As a `cdylib` it is the library an agent loads (`library_path`); as an `rlib` it is what a
//! test drives it with. `cargo test` of the agent builds both and puts the shared object beside the test executables.
//!
//! In the process of the test:
//!
//! ```no_run
//! use nvml_stand_in::{Event, Fault, StandIn, profile};
//! use std::time::Duration;
//!
//! let nvml = StandIn::new(profile::h200(2));       // a copy of the library with a state of its own
//! let path = nvml.path();                          // what goes into `library_path`
//! nvml.edit(|s| {
//!     s.gpu(0).set("nvmlDeviceGetPowerUsage", 78_000).field(82, 61);
//!     s.gpu(1).fail("*", 15);                      // lost
//!     s.gpu(0).fault("nvmlDeviceGetTemperature", Fault::hang());
//! });
//! nvml.push(Event::xid(0, 79));
//! assert!(nvml.wait_calls("nvmlDeviceGetPowerUsage", 3, Duration::from_secs(10)));
//! nvml.edit(|s| { s.gpu(0).clear("nvmlDeviceGetTemperature"); });
//! assert_eq!(nvml.stats().misuse, Vec::<String>::new());
//! # let _ = path;
//! ```
//!
//! For an agent that is a process of its own, and where the library file is to be replaced under a running agent,
//! [`StandIn::detached`] keeps no handle and is driven through a file beside the copy; `TIDEGATE_STAND_IN` can name
//! another file. The same [`Scenario`] serves both.
//!
//! What keys look like is said in [`scenario`]; in short, the C symbol, `/` and the arguments that are not pointers.
//! A call without a value answers "not supported". An old driver is a copy without some symbols: [`Scenario::hide`].
//!
//! It is stricter than a driver, so that a test can show that the agent is a good guest. It notes as **misuse**: calls
//! while not initialised, handles that were never given out or are of an earlier init, wrong struct versions, null
//! pointers, calls that would change a device, freeing twice, event sets and GPM samples left at shutdown, more
//! shutdowns than inits, GPM samples that do not belong together.

#![allow(
    non_snake_case,
    clippy::missing_safety_doc,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "C names; test code, where a surprise must fail loudly"
)]

mod elf;
mod ffi;
mod files;
pub mod profile;
pub mod scenario;
mod stand_in;
mod state;

pub use files::VARIABLE;
pub use scenario::{Device, Event, Fault, Field, Process, ProcessSample, Scenario};
pub use stand_in::{StandIn, Stats};
