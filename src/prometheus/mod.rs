//! What OTLP metrics become in Prometheus: names, labels, values and types, shared by all that speak to it.

pub mod config;
pub mod delta;
pub(crate) mod exemplars;
pub(crate) mod identity;
pub mod map;
pub mod names;
pub mod native;
pub mod remote;
pub(crate) mod scan;
pub mod tell;
pub mod text;
