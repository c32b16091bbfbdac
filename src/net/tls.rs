//! TLS for servers and clients: rustls with ring, under the Collector's keys.
//!
//! Promises: every key has its effect or is refused with a reason; certificates and keys follow their files (also
//! when Kubernetes swaps a symlink) without a restart; a new file that is broken changes nothing but a counter
//! and a log line. No process-wide crypto provider is installed or needed.
//!
//! Costs: one look at the clock a handshake, and a few small reads when a check is due.

mod client;
mod config;
mod material;
mod names;
mod server;

pub use client::ClientTls;
pub use config::{TlsClientConfig, TlsServerConfig, TlsSettings};
pub use names::names;
pub use server::ServerTls;

pub use super::watch::register_metrics;

#[cfg(test)]
mod tests;
