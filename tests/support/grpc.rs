//! gRPC by hand, for both ends: message framing, status, and the details that carry a retry delay.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};
use prost::Message;

pub const OK: u32 = 0;
pub const INVALID_ARGUMENT: u32 = 3;
pub const DEADLINE_EXCEEDED: u32 = 4;
pub const RESOURCE_EXHAUSTED: u32 = 8;
pub const UNIMPLEMENTED: u32 = 12;
pub const INTERNAL: u32 = 13;
pub const UNAVAILABLE: u32 = 14;
pub const UNAUTHENTICATED: u32 = 16;

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<AnyMessage>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
pub struct AnyMessage {
    #[prost(string, tag = "1")]
    pub type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
pub struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    pub retry_delay: Option<WireDuration>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
pub struct WireDuration {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

impl RpcStatus {
    pub fn new(code: u32, message: &str, retry: Option<Duration>) -> Self {
        let details = retry
            .map(|delay| AnyMessage {
                type_url: RETRY_INFO.into(),
                value: RetryInfo {
                    retry_delay: Some(WireDuration {
                        seconds: delay.as_secs() as i64,
                        nanos: delay.subsec_nanos() as i32,
                    }),
                }
                .encode_to_vec(),
            })
            .into_iter()
            .collect();
        RpcStatus { code: code as i32, message: message.into(), details }
    }

    /// The delay it asks for.
    pub fn retry_after(&self) -> Option<Duration> {
        let detail = self.details.iter().find(|d| d.type_url == RETRY_INFO)?;
        let delay = RetryInfo::decode(&detail.value[..]).ok()?.retry_delay.unwrap_or_default();
        Some(Duration::new(delay.seconds.max(0) as u64, delay.nanos.max(0) as u32))
    }

    /// As trailers, or as the headers of an answer that is nothing but a status.
    pub fn write(&self, headers: &mut HeaderMap) {
        headers.insert("grpc-status", HeaderValue::from(self.code));
        if !self.message.is_empty() {
            headers.insert("grpc-message", HeaderValue::from_str(&self.message).unwrap());
        }
        if !self.details.is_empty() {
            let details = STANDARD_NO_PAD.encode(self.encode_to_vec());
            headers.insert("grpc-status-details-bin", HeaderValue::from_str(&details).unwrap());
        }
    }

    /// Reads what [`RpcStatus::write`] and other servers write; `None` without a status.
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let code = headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
        let message = headers.get("grpc-message").and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
        let details = headers
            .get("grpc-status-details-bin")
            .and_then(|v| {
                let text = v.as_bytes();
                STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).ok()
            })
            .and_then(|bytes| RpcStatus::decode(&bytes[..]).ok())
            .map(|status| status.details)
            .unwrap_or_default();
        Some(RpcStatus { code, message, details })
    }
}

/// A message with its five bytes in front.
pub fn frame(message: &[u8], compressed: bool) -> Bytes {
    let mut out = BytesMut::with_capacity(message.len() + 5);
    out.put_u8(u8::from(compressed));
    out.put_u32(message.len() as u32);
    out.put_slice(message);
    out.freeze()
}

/// The one message of a unary body and whether it is compressed.
///
/// # Errors
/// What is wrong with the framing.
pub fn unframe(body: &[u8]) -> Result<(bool, &[u8]), String> {
    let Some((head, message)) = body.split_first_chunk::<5>() else {
        return Err(format!("a body of {} bytes has no gRPC prefix", body.len()));
    };
    let [flag, length @ ..] = *head;
    if flag > 1 {
        return Err(format!("compressed flag {flag}"));
    }
    if u32::from_be_bytes(length) as usize != message.len() {
        return Err(format!("prefix says {}, body has {}", u32::from_be_bytes(length), message.len()));
    }
    Ok((flag == 1, message))
}
