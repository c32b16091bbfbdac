//! The tests' remote write receiver, against requests made by hand: it takes what is right, and for each rule there
//! is a request that breaks this rule alone and is found out.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]
#![allow(clippy::disallowed_methods, reason = "tests have no supervisor")]

mod support;

#[path = "prometheus_harness/requests.rs"]
mod requests;

#[path = "prometheus_harness/server.rs"]
mod server;
