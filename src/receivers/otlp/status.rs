//! Why a request is answered with an error, and how that is written: gRPC trailers, HTTP status, `google.rpc.Status`.
//!
//! One [`Failure`] serves both transports, so that they cannot disagree about what a client may retry.

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use tonic::Code;

use crate::pdata::wire::{put_bytes, put_tag, put_varint};
use crate::pipeline::Verdict;

/// The delay offered when nobody knows a better one. A delay must be offered: Collector clients treat a refusal
/// that has one as throttling and wait, and drop a RESOURCE_EXHAUSTED that has none.
pub const DEFAULT_RETRY: Duration = Duration::from_secs(1);

/// A message longer than this is cut: it travels in a header.
const MAX_MESSAGE: usize = 1024;

/// Why a request was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What gRPC calls it; HTTP's status follows from it.
    pub code: Code,
    /// One sentence for the client.
    pub message: Cow<'static, str>,
    /// The least delay before the same request may be sent again.
    pub retry: Option<Duration>,
    /// HTTP's status where the table from gRPC's codes does not give it.
    pub http: Option<StatusCode>,
    /// What it is counted as.
    pub reason: Reason,
}

/// What a failed request is counted as: `tidegate_receiver_errors{reason}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No credentials, or wrong ones.
    Unauthenticated,
    /// A method, path or content type that is not served.
    Unsupported,
    /// HTTP/2, gRPC or HTTP framing that is not as it must be.
    Protocol,
    /// Larger than configured.
    TooLarge,
    /// The ledger had no room.
    Memory,
    /// The body stopped arriving, or took too long.
    Stalled,
    /// The client's own deadline passed.
    Deadline,
    /// The client went away before its request was complete.
    Disconnected,
    /// Not telemetry, or compressed wrongly.
    Malformed,
    /// A pipeline asked for a retry.
    Retry,
    /// A pipeline refused the request for good.
    Rejected,
    /// The agent is stopping.
    Stopping,
}

impl Reason {
    /// All of them; a reason's place is its number.
    pub const ALL: [Reason; 12] = [
        Reason::Unauthenticated,
        Reason::Unsupported,
        Reason::Protocol,
        Reason::TooLarge,
        Reason::Memory,
        Reason::Stalled,
        Reason::Deadline,
        Reason::Disconnected,
        Reason::Malformed,
        Reason::Retry,
        Reason::Rejected,
        Reason::Stopping,
    ];

    /// The label's value.
    pub const fn word(self) -> &'static str {
        match self {
            Reason::Unauthenticated => "unauthenticated",
            Reason::Unsupported => "unsupported",
            Reason::Protocol => "protocol",
            Reason::TooLarge => "too_large",
            Reason::Memory => "memory",
            Reason::Stalled => "stalled",
            Reason::Deadline => "deadline",
            Reason::Disconnected => "disconnected",
            Reason::Malformed => "malformed",
            Reason::Retry => "retry",
            Reason::Rejected => "rejected",
            Reason::Stopping => "stopping",
        }
    }
}

impl Failure {
    /// A failure that sending the same request again cannot mend.
    pub fn new(code: Code, reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        Failure { code, message: message.into(), retry: None, http: None, reason }
    }

    /// A failure that passes.
    pub fn retry(reason: Reason, after: Duration, message: impl Into<Cow<'static, str>>) -> Self {
        Failure { retry: Some(after), ..Failure::new(Code::Unavailable, reason, message) }
    }

    /// The bytes are not what they claim to be.
    pub fn malformed(message: impl Into<Cow<'static, str>>) -> Self {
        Failure::new(Code::InvalidArgument, Reason::Malformed, message)
    }

    /// The ledger had no room.
    pub fn memory() -> Self {
        Failure::retry(Reason::Memory, DEFAULT_RETRY, "no memory for the request now; send it again later")
    }

    /// The request, as sent or inflated, is larger than configured.
    pub fn too_large(limit: usize) -> Self {
        Failure {
            // The specification asks for 413; the Collector answers 400. Neither is retried.
            http: Some(StatusCode::PAYLOAD_TOO_LARGE),
            ..Failure::new(
                Code::ResourceExhausted,
                Reason::TooLarge,
                format!("the request is larger than the limit of {limit} bytes"),
            )
        }
    }

    /// HTTP's status.
    pub fn http_status(&self) -> StatusCode {
        self.http.unwrap_or(match self.code {
            Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss => StatusCode::SERVICE_UNAVAILABLE,
            Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Code::InvalidArgument => StatusCode::BAD_REQUEST,
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            Code::PermissionDenied => StatusCode::FORBIDDEN,
            Code::Unimplemented => StatusCode::NOT_FOUND,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        })
    }

    /// `Retry-After` in whole seconds, rounded up: coming back too early helps nobody.
    pub fn retry_after(&self) -> Option<u64> {
        let delay = self.retry?;
        Some((delay.as_secs() + u64::from(delay.subsec_nanos() > 0)).max(1))
    }

    /// Adds `grpc-status`, `grpc-message` and, where there is a delay, `grpc-status-details-bin`.
    pub fn write_grpc(&self, headers: &mut HeaderMap) {
        headers.insert("grpc-status", HeaderValue::from(self.code as i32));
        if let Ok(message) = HeaderValue::from_str(&percent_encode(self.short_message())) {
            headers.insert("grpc-message", message);
        }
        if self.retry.is_some()
            && let Ok(details) = HeaderValue::from_str(&STANDARD_NO_PAD.encode(self.to_proto()))
        {
            headers.insert("grpc-status-details-bin", details);
        }
    }

    /// `google.rpc.Status` as protobuf.
    pub fn to_proto(&self) -> Bytes {
        let mut out = Vec::with_capacity(64 + self.message.len());
        put_tag(&mut out, 1, 0);
        put_varint(&mut out, self.code as i32 as u64);
        put_bytes(&mut out, 2, self.short_message().as_bytes());
        if let Some(delay) = self.retry {
            let mut duration = Vec::with_capacity(16);
            if delay.as_secs() > 0 {
                put_tag(&mut duration, 1, 0);
                put_varint(&mut duration, delay.as_secs());
            }
            if delay.subsec_nanos() > 0 {
                put_tag(&mut duration, 2, 0);
                put_varint(&mut duration, u64::from(delay.subsec_nanos()));
            }
            let mut info = Vec::with_capacity(16);
            put_bytes(&mut info, 1, &duration);
            let mut any = Vec::with_capacity(64);
            put_bytes(&mut any, 1, RETRY_INFO.as_bytes());
            put_bytes(&mut any, 2, &info);
            put_bytes(&mut out, 3, &any);
        }
        out.into()
    }

    /// `google.rpc.Status` as JSON.
    pub fn to_json(&self) -> Bytes {
        let mut status = serde_json::json!({ "code": self.code as i32, "message": self.short_message() });
        if let (Some(delay), Some(map)) = (self.retry, status.as_object_mut()) {
            let mut text = delay.as_secs().to_string();
            if delay.subsec_nanos() > 0 {
                text.push_str(format!(".{:09}", delay.subsec_nanos()).trim_end_matches('0'));
            }
            text.push('s');
            map.insert("details".into(), serde_json::json!([{ "@type": RETRY_INFO, "retryDelay": text }]));
        }
        status.to_string().into()
    }

    fn short_message(&self) -> &str {
        let mut end = self.message.len().min(MAX_MESSAGE);
        while !self.message.is_char_boundary(end) {
            end -= 1;
        }
        self.message.get(..end).unwrap_or_default()
    }
}

impl TryFrom<Verdict> for Failure {
    /// The batch was accepted: there is no failure.
    type Error = ();

    fn try_from(verdict: Verdict) -> Result<Self, ()> {
        match verdict {
            Verdict::Accepted => Err(()),
            Verdict::Retry { after, reason } => {
                Ok(Failure::retry(Reason::Retry, after.unwrap_or(DEFAULT_RETRY), reason))
            }
            Verdict::Rejected { bad_data, reason } => {
                let code = if bad_data { Code::InvalidArgument } else { Code::Internal };
                Ok(Failure::new(code, Reason::Rejected, reason))
            }
        }
    }
}

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// Text as `grpc-message` carries it: printable ASCII without `%` as it is, every other byte as `%XX`.
fn percent_encode(text: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let hex = |nibble: u8| HEX.get(usize::from(nibble)).copied().map_or('0', char::from);
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => out.extend(['%', hex(byte >> 4), hex(byte & 15)]),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn a_status_with_retry_info_has_the_reference_bytes() {
        let mut failure = Failure::retry(Reason::Memory, Duration::from_secs(5), "x");
        failure.code = Code::ResourceExhausted;
        assert_eq!(
            hex(&failure.to_proto()),
            "08081201781a300a28747970652e676f6f676c65617069732e636f6d2f676f6f676c652e7270632e5265747279496e666f12040a020805"
        );
        let mut headers = HeaderMap::new();
        failure.write_grpc(&mut headers);
        assert_eq!(
            headers["grpc-status-details-bin"],
            "CAgSAXgaMAoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJldHJ5SW5mbxIECgIIBQ"
        );
        assert_eq!(headers["grpc-status"], "8");
        assert_eq!(
            failure.to_json(),
            r#"{"code":8,"message":"x","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"5s"}]}"#
        );
    }

    #[test]
    fn messages_are_percent_encoded_and_cut_at_a_character() {
        for (text, want) in [("plain ~", "plain ~"), ("50%\n", "50%25%0A"), ("é", "%C3%A9")] {
            assert_eq!(percent_encode(text), want);
        }
        let failure = Failure::malformed("é".repeat(1000));
        assert_eq!(failure.short_message().len(), MAX_MESSAGE);
        let failure = Failure::malformed(format!("x{}", "é".repeat(1000)));
        assert_eq!(failure.short_message().len(), MAX_MESSAGE - 1);
    }

    #[test]
    fn verdicts_keep_what_a_client_may_retry() {
        let retry = |after| Verdict::Retry { after, reason: "full".into() };
        let cases = [
            (retry(None), Code::Unavailable, 503, Some(1)),
            (retry(Some(Duration::from_millis(1500))), Code::Unavailable, 503, Some(2)),
            (Verdict::Rejected { bad_data: true, reason: "r".into() }, Code::InvalidArgument, 400, None),
            (Verdict::Rejected { bad_data: false, reason: "r".into() }, Code::Internal, 500, None),
        ];
        for (verdict, code, http, after) in cases {
            let failure = Failure::try_from(verdict).unwrap();
            assert_eq!(
                (failure.code, failure.http_status().as_u16(), failure.retry_after()),
                (code, http, after)
            );
        }
        assert_eq!(Failure::try_from(Verdict::Accepted), Err(()));
        assert_eq!(Failure::too_large(1).http_status(), 413);
    }

    #[test]
    fn fractions_of_a_second_survive_in_json() {
        let failure = Failure::retry(Reason::Retry, Duration::from_millis(1500), "x");
        assert!(std::str::from_utf8(&failure.to_json()).unwrap().contains(r#""retryDelay":"1.5s""#));
    }

    #[test]
    fn reasons_are_numbered_by_place() {
        for (i, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, i);
        }
    }
}
