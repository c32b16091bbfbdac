//! Remote write against the plain way, against itself without caches, and against the vectors.

mod bounds;
mod differential;
pub mod plain;
mod rig;
mod tenants;
mod vectors;
