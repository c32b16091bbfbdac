//! The tests' Loki, against requests made by hand: it takes what is right, and for each rule there is a request that
//! breaks this rule alone and gets the answer that a real one gives.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code"
)]
#![allow(clippy::disallowed_methods, reason = "tests have no supervisor")]

mod support;
