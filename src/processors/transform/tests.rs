//! What statements make of telemetry, by decoding it; and what can be wrong with their configuration.

mod config;
mod docs;
mod statements;
