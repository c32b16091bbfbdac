//! What servers and clients share: authentication, compression, TLS.

pub mod auth;
