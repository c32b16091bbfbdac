//! What servers and clients share: authentication, compression, TLS.

pub mod auth;
pub mod client;
pub mod compress;
pub mod tls;
