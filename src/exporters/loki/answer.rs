//! What an answer means for a request, by what Loki is known to do.
//!
//! A 400 for entries or streams has stored all the others and says how many it has not (of streams it counts one
//! each, so that this is the least). Any other 400 has stored nothing: the request is cut until the culprit stands
//! alone.

use std::time::SystemTime;

use crate::exporters::delivery::Outcome;
use crate::exporters::http::{Answer, retry_after};
use crate::loki::cut;

/// How much of a refusal is repeated in logs.
const SHOWN: usize = 1024;

/// Whether Loki said yes and stored nothing.
pub(super) fn is_blocked(answer: &Answer) -> bool {
    matches!(answer.status.as_u16(), 203 | 205..=299)
}

/// Reads an answer to a request of `items` entries.
pub(super) fn read(answer: &Answer, items: usize, url: &str) -> Outcome {
    let status = answer.status.as_u16();
    let said = String::from_utf8_lossy(&answer.body);
    let shown = cut(said.trim(), SHOWN);
    let reason = format!("request to {url} responded with HTTP Status Code {status}: {shown}");
    match status {
        200 | 201 | 202 | 204 => Outcome::delivered(),
        200..=299 => Outcome::Delivered { rejected: items, message: reason },
        400 => match refused(&said) {
            Some(refused) => Outcome::Delivered { rejected: refused.min(items), message: reason },
            None => Outcome::Rejected { bad_data: true, reason },
        },
        413 => Outcome::TooLarge { reason },
        429 | 500..=599 => {
            let after = retry_after(&answer.headers, SystemTime::now()).filter(|d| !d.is_zero());
            Outcome::Retry { after, reason }
        }
        _ => Outcome::rejected(reason),
    }
}

/// What Loki says of single entries and streams, of whose request it has stored the rest.
const PARTIAL: [&str; 12] = [
    "total ignored: ",
    "ignored, reason: ",
    "errors like: ",
    "timestamp too old",
    "timestamp too new",
    "ax entry size",
    "structured metadata",
    "label names; limit",
    "label name too long",
    "label value too long",
    "duplicate label name",
    "at least one label pair",
];

/// How many entries of a request were refused at least, if the rest is stored.
fn refused(said: &str) -> Option<usize> {
    if !PARTIAL.iter().any(|phrase| said.contains(phrase)) {
        return None;
    }
    let mut total = 0usize;
    // `2 errors like: …; 1 errors like: …`, and for each stream `total ignored: 2 out of 3`.
    for (at, _) in said.match_indices(" errors like: ") {
        let before = said.get(..at).unwrap_or_default();
        let start = before.rfind(|c: char| !c.is_ascii_digit()).map_or(0, |end| end + 1);
        let number = before.get(start..).and_then(|text| text.parse::<usize>().ok());
        total = total.saturating_add(number.unwrap_or(1));
    }
    for part in said.split("total ignored: ").skip(1) {
        let number = part.split(' ').next().and_then(|text| text.parse::<usize>().ok());
        total = total.saturating_add(number.unwrap_or(1));
    }
    Some(total.max(1))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;

    fn verdict(status: u16, said: &str, headers: &[(&'static str, &str)]) -> String {
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers
                .iter()
                .map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap()))
                .collect::<HeaderMap>(),
            body: said.as_bytes().to_vec(),
            broken: None,
        };
        match read(&answer, 5, "u") {
            Outcome::Delivered { rejected, .. } => format!("stored but {rejected}"),
            Outcome::Retry { after: Some(d), .. } => format!("retry after {}", d.as_secs()),
            Outcome::Retry { .. } => "retry".to_owned(),
            Outcome::Rejected { bad_data: true, .. } => "cut".to_owned(),
            Outcome::Rejected { .. } => "drop".to_owned(),
            Outcome::TooLarge { .. } => "halve".to_owned(),
        }
    }

    #[test]
    fn answers_follow_the_table() {
        const LATE: &str = "entry with timestamp 2023-11-14 22:13:20 +0000 UTC ignored, reason: 'entry too far \
                            behind, entry timestamp is: …',\nuser 'a', total ignored: 2 out of 3 for stream: {a=\"b\"}";
        let twice = format!("{LATE}\n{LATE}");
        let thrice = format!("{twice}\n{LATE}");
        let table: &[(u16, &str, &[(&'static str, &str)], &str)] = &[
            (204, "", &[], "stored but 0"),
            (200, "", &[], "stored but 0"),
            (260, "ingestion blocked", &[], "stored but 5"),
            (206, "", &[], "stored but 5"),
            (400, "couldn't parse push request", &[], "cut"),
            (400, "Max entry size '6' bytes exceeded for stream", &[], "stored but 1"),
            (
                400,
                "2 errors like: entry for stream has timestamp too old; 1 errors like: b",
                &[],
                "stored but 3",
            ),
            (400, LATE, &[], "stored but 2"),
            (400, &twice, &[], "stored but 4"),
            (400, &thrice, &[], "stored but 5"),
            (401, "no org id", &[], "drop"),
            (403, "", &[], "drop"),
            (404, "", &[], "drop"),
            (301, "", &[], "drop"),
            (413, "", &[], "halve"),
            (422, "", &[], "drop"),
            (429, "Ingestion rate limit exceeded", &[], "retry"),
            (429, "", &[("retry-after", "7")], "retry after 7"),
            (500, "", &[], "retry"),
            (502, "", &[], "retry"),
            (503, "", &[("retry-after", "3")], "retry after 3"),
            (504, "", &[], "retry"),
        ];
        for (status, said, headers, want) in table {
            assert_eq!(verdict(*status, said, headers), *want, "{status} {said}");
        }
    }
}
