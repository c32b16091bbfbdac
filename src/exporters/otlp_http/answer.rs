//! What an HTTP answer means for a request, by the Collector's table.

use std::time::SystemTime;

use http::{HeaderMap, StatusCode, header};
use serde_json::Value;

use crate::exporters::delivery::Outcome;
use crate::exporters::delivery::otlp::{RpcStatus, partial_success};
use crate::exporters::http::retry_after;

/// Reads one answer; `body` is what was read of it.
pub(super) fn outcome(status: StatusCode, headers: &HeaderMap, body: &[u8], url: &str) -> Outcome {
    if status.is_success() {
        return taken(headers, body);
    }
    let details = details(headers, body);
    let reason = format!(
        "error exporting items, request to {url} responded with HTTP Status Code {}, Message={}, Details={}",
        status.as_u16(),
        details.message,
        details.retry_info.map_or_else(String::new, |d| format!("RetryInfo {d:?}"))
    );
    let after = || retry_after(headers, SystemTime::now()).or(details.retry_info).filter(|d| !d.is_zero());
    match status.as_u16() {
        429 | 503 => Outcome::Retry { after: after(), reason },
        502 | 504 => Outcome::retry(reason),
        413 => Outcome::TooLarge { reason },
        400 | 422 => Outcome::Rejected { bad_data: true, reason },
        _ => Outcome::rejected(reason),
    }
}

fn kind(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// A 2xx. Only answers in OTLP's own forms are read; a proxy's page is an OK like any other.
fn taken(headers: &HeaderMap, body: &[u8]) -> Outcome {
    let unreadable =
        |why: String| Outcome::rejected(format!("error parsing the answer to an accepted request: {why}"));
    match kind(headers) {
        "application/x-protobuf" => match partial_success(body) {
            Ok((rejected, message)) => Outcome::Delivered { rejected, message },
            Err(e) => unreadable(e.to_string()),
        },
        "application/json" if !body.is_empty() => match serde_json::from_slice::<Value>(body) {
            Ok(answer) => partial_success_json(&answer),
            Err(e) => unreadable(e.to_string()),
        },
        _ => Outcome::delivered(),
    }
}

fn partial_success_json(answer: &Value) -> Outcome {
    let member = |of: &Value, names: &[&str]| names.iter().find_map(|name| of.get(name).cloned());
    let Some(partial) = member(answer, &["partialSuccess", "partial_success"]) else {
        return Outcome::delivered();
    };
    let names = [
        "rejectedSpans",
        "rejectedDataPoints",
        "rejectedLogRecords",
        "rejected_spans",
        "rejected_data_points",
        "rejected_log_records",
    ];
    let rejected = match member(&partial, &names) {
        Some(Value::String(text)) => text.parse::<usize>().unwrap_or(0),
        Some(Value::Number(n)) => n.as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(0),
        _ => 0,
    };
    let message = member(&partial, &["errorMessage", "error_message"]);
    let message = message.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
    Outcome::Delivered { rejected, message }
}

/// The `google.rpc.Status` of a refusal, or the start of its text.
fn details(headers: &HeaderMap, body: &[u8]) -> RpcStatus {
    match kind(headers) {
        "application/x-protobuf" => RpcStatus::parse(body).unwrap_or_default(),
        "application/json" => {
            let status: Value = serde_json::from_slice(body).unwrap_or_default();
            let message = status.get("message").and_then(Value::as_str).unwrap_or_default().to_owned();
            RpcStatus { message, ..RpcStatus::default() }
        }
        _ => {
            let start = body.get(..body.len().min(256)).unwrap_or_default();
            RpcStatus { message: String::from_utf8_lossy(start).trim().to_owned(), ..RpcStatus::default() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn statuses_follow_the_table() {
        let class = |status: u16, pairs: &[(&'static str, &str)]| match outcome(
            StatusCode::from_u16(status).unwrap(),
            &headers(pairs),
            b"",
            "u",
        ) {
            Outcome::Delivered { .. } => "ok".to_owned(),
            Outcome::Retry { after: None, .. } => "retry".to_owned(),
            Outcome::Retry { after: Some(d), .. } => format!("retry after {}", d.as_secs()),
            Outcome::Rejected { bad_data: true, .. } => "bad".to_owned(),
            Outcome::Rejected { .. } => "drop".to_owned(),
            Outcome::TooLarge { .. } => "halve".to_owned(),
        };
        for status in [200, 202, 204] {
            assert_eq!(class(status, &[]), "ok");
        }
        for status in [301, 307, 401, 403, 404, 408, 500, 501, 505, 507] {
            assert_eq!(class(status, &[("retry-after", "3")]), "drop", "{status}");
        }
        for (status, after) in [(429, true), (502, false), (503, true), (504, false)] {
            assert_eq!(class(status, &[]), "retry");
            assert_eq!(class(status, &[("retry-after", "7")]), if after { "retry after 7" } else { "retry" });
            assert_eq!(class(status, &[("retry-after", "soon")]), "retry");
            assert_eq!(class(status, &[("retry-after", "0")]), "retry");
        }
        assert_eq!(class(413, &[]), "halve");
        assert_eq!(class(400, &[]), "bad");
    }

    #[test]
    fn partial_success_is_read_in_both_forms() {
        let partial = |rejected, message: &str| Outcome::Delivered { rejected, message: message.to_owned() };
        let proto = [0x0a, 0x06, 0x08, 0x03, 0x12, 0x02, b'n', b'o'];
        let cases: Vec<(&str, &[u8], Outcome)> = vec![
            ("application/x-protobuf", &proto, partial(3, "no")),
            ("application/x-protobuf", b"", partial(0, "")),
            (
                "application/json",
                br#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"no"}}"#,
                partial(3, "no"),
            ),
            ("application/json", br#"{"partialSuccess":{"rejectedLogRecords":4}}"#, partial(4, "")),
            ("application/json; charset=utf-8", br#"{"partialSuccess":{}}"#, partial(0, "")),
            ("application/json", b"{}", partial(0, "")),
            ("application/json", b"", partial(0, "")),
            ("text/html", b"<html>", partial(0, "")),
        ];
        for (kind, body, want) in cases {
            assert_eq!(
                outcome(StatusCode::OK, &headers(&[("content-type", kind)]), body, "u"),
                want,
                "{kind}"
            );
        }
        for (kind, body) in [("application/x-protobuf", &[0x0a_u8][..]), ("application/json", b"{")] {
            let got = outcome(StatusCode::OK, &headers(&[("content-type", kind)]), body, "u");
            assert!(matches!(got, Outcome::Rejected { bad_data: false, .. }), "{got:?}");
        }
    }
}
