//! From OTLP metrics to Prometheus: what the exporters that push and that are scraped have in common.

pub mod delta;
pub mod native;
