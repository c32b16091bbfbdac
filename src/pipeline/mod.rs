//! How components are wired, acknowledged, bounded and kept alive.

mod ack;
mod admission;
pub mod allocator;
pub mod memory;
mod readiness;
pub mod runtime;
pub mod stages;
mod traits;

pub use ack::{Ack, Acks, Verdict, ack};
pub use admission::{ConnectionLease, Lease, Ledger};
pub use memory::Limits;
pub use readiness::{Phase, Readiness};
pub use traits::*;
