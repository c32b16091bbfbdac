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

#[path = "loki_harness/requests.rs"]
mod requests;

#[path = "loki_harness/server.rs"]
mod server;

#[path = "loki_harness/texts.rs"]
mod texts;

use prost::Message;
use support::http;
use support::loki::Loki;
use support::loki::wire::{self, PushRequest};

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
const JSON: (&str, &str) = ("content-type", "application/json");

fn compress(request: &PushRequest) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).unwrap()
}

/// Sends a body; status and text of the answer.
fn post(to: &Loki, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, String) {
    let address = to.address;
    let answer = tokio::task::block_in_place(|| http::request(address, "POST", path, headers, body));
    let (status, body) = answer.unwrap_or((0, Vec::new()));
    (status, String::from_utf8_lossy(&body).into_owned())
}

fn push(to: &Loki, request: &PushRequest) -> (u16, String) {
    post(to, "/loki/api/v1/push", &[PROTOBUF], &compress(request))
}

/// One entry in one stream.
fn one(labels: &str, time: i64, line: &str) -> PushRequest {
    wire::push(&[(labels, &[(time, line, &[])])])
}
