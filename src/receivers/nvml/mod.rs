//! The `nvml` receiver: the node's NVIDIA GPUs, and who pays for them.

pub mod config;
pub mod holders;
pub mod library;
pub mod model;

pub use config::NvmlConfig;
