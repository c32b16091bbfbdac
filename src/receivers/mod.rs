//! Where telemetry comes in. One file or folder a receiver, named like its type in the config.

pub mod nvml;
pub mod otlp;
