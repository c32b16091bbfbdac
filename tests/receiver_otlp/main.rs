//! What the OTLP receiver answers, over real sockets: every request of the tables below gets exactly its answer,
//! and what was accepted is in the pipeline byte by byte.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "tests have no supervisor")]

#[path = "../support/mod.rs"]
mod support;

mod config;
mod grpc;
mod http;
mod kit;
mod life;
