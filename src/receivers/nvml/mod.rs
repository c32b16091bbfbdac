//! The `nvml` receiver: the node's NVIDIA GPUs, and who pays for them.

pub mod config;
pub mod holders;
pub mod model;
pub mod pods;

pub use config::NvmlConfig;
