//! The `nvml` receiver: the node's NVIDIA GPUs, and who pays for them.

pub mod accounts;
pub mod catalogue;
pub mod config;
pub mod holders;
pub mod model;
pub mod outbox;
pub mod pods;
pub mod simulate;
pub mod worker;

pub use config::NvmlConfig;
