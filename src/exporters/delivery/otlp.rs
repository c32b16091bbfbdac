//! What OTLP exporters share: the encoder, which does nothing, and the reading of answers.

use std::time::Duration;

use super::{Encoded, Encoder, Outcome, Request};
use crate::pdata::wire::{Cursor, Value, WireError};
use crate::pdata::{Rope, Signal};

/// OTLP is what a batch is made of: the request is the rope, nothing is copied.
#[derive(Debug, Clone, Copy, Default)]
pub struct OtlpEncoder;

impl Encoder for OtlpEncoder {
    type Body = Rope;

    fn encode(&self, _signal: Signal, rope: Rope, items: usize) -> Encoded<Rope> {
        Encoded::one(rope, items)
    }

    fn halve(&self, signal: Signal, request: Request<Rope>) -> Result<[Request<Rope>; 2], Request<Rope>> {
        super::split::halve(signal, request)
    }
}

/// `Export*ServiceResponse.partial_success`: how many items were rejected and what the server said.
///
/// # Errors
/// The bytes are no protobuf.
pub fn partial_success(response: &[u8]) -> Result<(usize, String), WireError> {
    let (mut rejected, mut message) = (0, String::new());
    let mut fields = Cursor::new(response);
    while let Some(field) = fields.next_field()? {
        if let (1, Value::Bytes(partial)) = (field.number, field.value) {
            let mut fields = Cursor::new(partial);
            while let Some(field) = fields.next_field()? {
                match (field.number, field.value) {
                    // A negative count is nonsense; it rejects nothing.
                    (1, Value::Varint(n)) => rejected = i64::try_from(n).map_or(0, |n| n as usize),
                    (2, Value::Bytes(text)) => message = String::from_utf8_lossy(text).into_owned(),
                    _ => {}
                }
            }
        }
    }
    Ok((rejected, message))
}

/// A `google.rpc.Status`, as far as an exporter needs it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RpcStatus {
    /// A gRPC code.
    pub code: u32,
    /// What the server said.
    pub message: String,
    /// Whether it said that the request may be sent again, and after how long.
    pub retry_info: Option<Duration>,
}

impl RpcStatus {
    /// Reads a serialized status.
    ///
    /// # Errors
    /// The bytes are no protobuf.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut status = RpcStatus::default();
        let mut fields = Cursor::new(bytes);
        while let Some(field) = fields.next_field()? {
            match (field.number, field.value) {
                (1, Value::Varint(code)) => status.code = u32::try_from(code).unwrap_or(2),
                (2, Value::Bytes(text)) => status.message = String::from_utf8_lossy(text).into_owned(),
                (3, Value::Bytes(any)) => status.retry_info = retry_info(any)?.or(status.retry_info),
                _ => {}
            }
        }
        Ok(status)
    }

    /// What the status means for a request, by the OTLP rules.
    pub fn outcome(&self) -> Outcome {
        let reason = format!("rpc error: code = {} desc = {}", code_name(self.code), self.message);
        let after = self.retry_info.filter(|d| !d.is_zero());
        match self.code {
            0 => Outcome::delivered(),
            // CANCELLED, DEADLINE_EXCEEDED, ABORTED, UNAVAILABLE, DATA_LOSS
            1 | 4 | 10 | 14 | 15 => Outcome::Retry { after, reason },
            // OUT_OF_RANGE
            11 if speaks_of_size(&self.message) => Outcome::TooLarge { reason },
            11 => Outcome::Retry { after, reason },
            // RESOURCE_EXHAUSTED
            8 if self.retry_info.is_some() => Outcome::Retry { after, reason },
            8 if speaks_of_size(&self.message) => Outcome::TooLarge { reason },
            // INVALID_ARGUMENT
            3 => Outcome::Rejected { bad_data: true, reason },
            _ => Outcome::Rejected { bad_data: false, reason },
        }
    }
}

/// The delay of a `google.rpc.RetryInfo` packed in an `Any`; `None` if it holds something else.
fn retry_info(any: &[u8]) -> Result<Option<Duration>, WireError> {
    let (mut is_retry_info, mut value) = (false, &[][..]);
    let mut fields = Cursor::new(any);
    while let Some(field) = fields.next_field()? {
        match (field.number, field.value) {
            (1, Value::Bytes(url)) => is_retry_info = url.ends_with(b"google.rpc.RetryInfo"),
            (2, Value::Bytes(bytes)) => value = bytes,
            _ => {}
        }
    }
    if !is_retry_info {
        return Ok(None);
    }
    let (mut seconds, mut nanos) = (0, 0);
    let mut fields = Cursor::new(value);
    while let Some(field) = fields.next_field()? {
        if let (1, Value::Bytes(duration)) = (field.number, field.value) {
            let mut fields = Cursor::new(duration);
            while let Some(field) = fields.next_field()? {
                match (field.number, field.value) {
                    // Negative delays are no delays.
                    (1, Value::Varint(s)) if s <= i64::MAX as u64 => seconds = s,
                    (2, Value::Varint(n)) if n < 1_000_000_000 => nanos = n as u32,
                    _ => {}
                }
            }
        }
    }
    Ok(Some(Duration::new(seconds, nanos)))
}

/// Whether a refusal is about the size of one message: grpc-go, tonic, grpc-java and proxies each have their
/// words for it.
fn speaks_of_size(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    let size = ["message", "request", "payload", "body", "frame"].iter().any(|w| message.contains(w));
    let limit =
        ["larger than", "too large", "too big", "exceeds", "exceeded max", "maximum size", "size limit"]
            .iter()
            .any(|w| message.contains(w));
    // A rate limit is not helped by two requests instead of one.
    size && limit && !message.contains("rate")
}

/// The name of a gRPC code as the Collector prints it.
pub fn code_name(code: u32) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    NAMES.get(code as usize).copied().unwrap_or("Unknown")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pdata::wire::{put_bytes, put_tag, put_varint};

    #[test]
    fn any_bytes_are_read_or_refused() {
        let whole = {
            let mut info = Vec::new();
            put_bytes(&mut info, 1, &[0x08, 0x05, 0x10, 0x01]);
            let mut any = Vec::new();
            put_bytes(&mut any, 1, b"type.googleapis.com/google.rpc.RetryInfo");
            put_bytes(&mut any, 2, &info);
            let mut status = vec![0x08, 0x0e];
            put_bytes(&mut status, 2, b"busy");
            put_bytes(&mut status, 3, &any);
            status
        };
        let want = RpcStatus { code: 14, message: "busy".into(), retry_info: Some(Duration::new(5, 1)) };
        assert_eq!(RpcStatus::parse(&whole), Ok(want));
        for cut in 0..whole.len() {
            let _ = RpcStatus::parse(&whole[..cut]);
            let _ = partial_success(&whole[..cut]);
        }
        let mut negative = Vec::new();
        put_tag(&mut negative, 1, 0);
        put_varint(&mut negative, (-1i64) as u64);
        let mut answer = Vec::new();
        put_bytes(&mut answer, 1, &negative);
        assert_eq!(partial_success(&answer), Ok((0, String::new())));
    }

    #[test]
    fn only_refusals_for_size_are_halved() {
        let too_large = |code, message: &str| {
            let status = RpcStatus { code, message: message.into(), retry_info: None };
            matches!(status.outcome(), Outcome::TooLarge { .. })
        };
        for message in [
            "grpc: received message larger than max (6000000 vs. 4194304)",
            "Error, decoded message length too large: found 5242880 bytes, the limit is: 4194304 bytes",
            "gRPC message exceeds maximum size 4194304: 5242880",
            "grpc: received message after decompression larger than max 4194304",
        ] {
            assert!(too_large(8, message) && too_large(11, message), "{message}");
            assert!(!too_large(14, message));
        }
        assert!(!too_large(
            8,
            "RATE_LIMITED: ingestion rate limit exceeded while adding 10 bytes, message too large"
        ));
        assert!(!too_large(8, "quota used up"));
        assert!(!too_large(11, "offset"));
    }
}
