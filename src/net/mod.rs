//! What servers and clients share: authentication, compression, listening sockets, TLS.

pub mod auth;
pub mod client;
pub mod compress;
pub mod listen;
pub mod tls;
pub mod watch;
