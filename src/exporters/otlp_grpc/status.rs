//! The status of a gRPC call, from trailers, headers or what went wrong below them.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderMap, StatusCode};

use crate::exporters::delivery::otlp::RpcStatus;

/// Trailers carry base64 with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The status in `headers`; `None` if there is none.
pub(super) fn from_headers(headers: &HeaderMap) -> Option<RpcStatus> {
    let code = headers.get("grpc-status")?.to_str().ok().and_then(|s| s.parse().ok()).unwrap_or(2);
    let message = headers.get("grpc-message").map(|m| percent_decode(m.as_bytes())).unwrap_or_default();
    let retry_info = headers
        .get("grpc-status-details-bin")
        .and_then(|bin| BASE64.decode(bin.as_bytes()).ok())
        .and_then(|bytes| RpcStatus::parse(&bytes).ok())
        .and_then(|status| status.retry_info);
    Some(RpcStatus { code, message, retry_info })
}

/// What an HTTP status without a gRPC status means (a proxy answered).
pub(super) fn from_http(status: StatusCode) -> RpcStatus {
    let code = match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    };
    let message = format!("unexpected HTTP status code received from server: {status}");
    RpcStatus { code, message, retry_info: None }
}

fn percent_decode(text: &[u8]) -> String {
    let hex = |b: &u8| char::from(*b).to_digit(16).map(|d| d as u8);
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        let decoded = match (first, tail) {
            (b'%', [high, low, after @ ..]) => hex(high).zip(hex(low)).map(|(h, l)| (h << 4 | l, after)),
            _ => None,
        };
        match decoded {
            Some((byte, after)) => {
                out.push(byte);
                rest = after;
            }
            None => out.push(first),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn reads_messages_and_details() {
        let mut headers = HeaderMap::new();
        assert_eq!(from_headers(&headers), None);
        headers.insert("grpc-status", "8".parse().unwrap());
        headers.insert("grpc-message", "caf%C3%A9 100%".parse().unwrap());
        // Status { code: 8, details: [Any { type.googleapis.com/google.rpc.RetryInfo, RetryInfo { 5 s } }] }
        let mut any = Vec::new();
        crate::pdata::wire::put_bytes(&mut any, 1, b"type.googleapis.com/google.rpc.RetryInfo");
        crate::pdata::wire::put_bytes(&mut any, 2, &[0x0a, 0x02, 0x08, 0x05]);
        let mut status = vec![0x08, 0x08];
        crate::pdata::wire::put_bytes(&mut status, 3, &any);
        let want =
            RpcStatus { code: 8, message: "café 100%".into(), retry_info: Some(Duration::from_secs(5)) };
        for padded in [true, false] {
            let text = BASE64.encode(&status);
            let text = if padded { text.as_str() } else { text.trim_end_matches('=') };
            headers.insert("grpc-status-details-bin", text.parse().unwrap());
            assert_eq!(from_headers(&headers).as_ref(), Some(&want));
        }
        headers.insert("grpc-status-details-bin", "!!".parse().unwrap());
        assert_eq!(from_headers(&headers), Some(RpcStatus { retry_info: None, ..want }));
    }
}
