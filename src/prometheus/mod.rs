//! What OTLP metrics become in Prometheus: names, labels, values and types, shared by all that speak to it.

pub mod config;
pub mod delta;
pub mod map;
pub mod names;
pub mod native;
pub mod remote;
pub mod tell;
pub mod text;
