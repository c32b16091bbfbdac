//! What a destination answers: partial success and gRPC status, against prost. Whatever prost reads means the
//! same here, and no answer makes a delay or an outcome that cannot be.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use tidegate::exporters::delivery::Outcome;
use tidegate::exporters::delivery::otlp::{RpcStatus, partial_success};

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

fuzz_target!(|data: &[u8]| {
    let answer = partial_success(data);
    if let Ok(known) = ExportTraceServiceResponse::decode(data) {
        let known = known.partial_success.unwrap_or_default();
        let rejected = usize::try_from(known.rejected_spans).unwrap_or(0);
        assert_eq!(answer, Ok((rejected, known.error_message)));
    }

    let parsed = RpcStatus::parse(data);
    if let (Ok(status), Ok(known)) = (&parsed, Status::decode(data)) {
        // A code that is negative, or in more than 32 bits, is `UNKNOWN` here.
        assert!(status.code == known.code as u32 || status.code == 2, "{status:?} {known:?}");
        assert_eq!(status.message, known.message);
        let told = known.details.iter().any(|any| any.type_url.ends_with("google.rpc.RetryInfo"));
        assert_eq!(status.retry_info.is_some(), told);
    }
    if let Ok(status) = parsed {
        match status.outcome() {
            Outcome::Delivered { rejected, .. } => assert_eq!((status.code, rejected), (0, 0)),
            Outcome::Retry { after, .. } => {
                assert_eq!(after, status.retry_info.filter(|d| *d > Duration::ZERO));
            }
            Outcome::Rejected { .. } | Outcome::TooLarge { .. } => assert_ne!(status.code, 0),
        }
    }
});
