//! OTLP metrics as Prometheus knows them: names, labels, values, and the wire of remote write.

pub mod map;
pub mod names;
pub mod remote;
pub mod text;
