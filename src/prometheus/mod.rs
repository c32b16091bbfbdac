//! What OTLP metrics become in Prometheus: names, labels, values and types, shared by all that speak to it.

pub mod names;
pub mod text;
