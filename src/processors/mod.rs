//! What happens to telemetry on its way. One file or folder a processor, named like its type in the config.

pub mod attributes;
pub mod batch;
pub mod edit;
pub mod filter;
#[cfg(test)]
mod fusion;
pub mod matching;
pub mod memory_limiter;
pub mod probabilistic_sampler;
pub mod relabel;
pub mod resource;
pub mod resource_detection;
pub mod statements;
pub mod tenant;
#[cfg(test)]
pub(crate) mod testing;
pub mod transform;
