//! How components are wired, acknowledged, bounded and kept alive.

mod ack;
mod admission;
mod readiness;
pub mod runtime;
mod traits;

pub use ack::{Ack, Acks, Verdict, ack};
pub use admission::{Lease, Ledger};
pub use readiness::{Phase, Readiness};
pub use traits::*;
