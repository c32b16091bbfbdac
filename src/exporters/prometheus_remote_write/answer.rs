//! What an answer means for a request, by remote write 1.0 and 2.0 and by what receivers are known to do.

use std::time::SystemTime;

use http::HeaderMap;

use crate::exporters::delivery::Outcome;
use crate::exporters::http::{Answer, retry_after};
use crate::prometheus::remote::{Counts, Version};

/// How much of a refusal is repeated in logs.
const SHOWN: usize = 1024;

/// What is to be done after an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The request has ended so.
    End(Outcome),
    /// The receiver does not know this version: to be sent in the older one.
    Older,
}

/// Reads an answer to a request of `items` data points.
pub(super) fn read(
    answer: &Answer,
    version: Version,
    counts: Counts,
    items: usize,
    confirmed: bool,
    url: &str,
) -> Verdict {
    let status = answer.status.as_u16();
    let reason = || {
        let start = answer.body.get(..answer.body.len().min(SHOWN)).unwrap_or_default();
        let said = String::from_utf8_lossy(start);
        format!("request to {url} responded with HTTP Status Code {status}: {}", said.trim())
    };
    let written = (version == Version::V2).then(|| Written::read(&answer.headers)).flatten();
    let outcome = match (status, version) {
        (200..=299, Version::V1) => stored(answer, items, &reason),
        // Without the headers nothing was stored: the receiver took it for an empty 1.0 request.
        (200..=299, Version::V2) => match written {
            Some(written) => written.compared(counts, items, &reason),
            None => return Verdict::Older,
        },
        (415, Version::V2) => return Verdict::Older,
        (400, Version::V2) => match written {
            Some(written) => written.compared(counts, items, &reason),
            None if !confirmed => return Verdict::Older,
            None => Outcome::Rejected { bad_data: true, reason: reason() },
        },
        // Thanos says 409 for samples that are late or there already, and stores the others.
        (400 | 409 | 422, _) => Outcome::Rejected { bad_data: true, reason: reason() },
        (413, _) => Outcome::TooLarge { reason: reason() },
        (429 | 500..=599, _) => {
            let after = retry_after(&answer.headers, SystemTime::now()).filter(|d| !d.is_zero());
            Outcome::Retry { after, reason: reason() }
        }
        _ => Outcome::rejected(reason()),
    };
    Verdict::End(outcome)
}

/// A 2xx of 1.0. Mimir and Cortex say 202 to the replica of a pair whose data they do not store.
fn stored(answer: &Answer, items: usize, reason: &dyn Fn() -> String) -> Outcome {
    let said = String::from_utf8_lossy(&answer.body);
    if answer.status.as_u16() == 202 && said.contains("replica") {
        return Outcome::Delivered { rejected: items, message: reason() };
    }
    Outcome::delivered()
}

/// The `X-Prometheus-Remote-Write-*-Written` headers of 2.0. One that is missing counts as 0.
struct Written(Counts);

impl Written {
    fn read(headers: &HeaderMap) -> Option<Written> {
        let number = |kind: &str| -> Option<usize> {
            let name = format!("x-prometheus-remote-write-{kind}-written");
            headers.get(name)?.to_str().ok()?.trim().parse().ok()
        };
        let found = [number("samples"), number("histograms"), number("exemplars")];
        let [samples, histograms, exemplars] = found.map(Option::unwrap_or_default);
        found.iter().any(Option::is_some).then_some(Written(Counts { samples, histograms, exemplars }))
    }

    /// What was not written is not wanted: it is not sent again. How many data points that is can only be told
    /// within bounds: each missing sample or histogram is taken for one.
    fn compared(&self, sent: Counts, items: usize, reason: &dyn Fn() -> String) -> Outcome {
        let missing =
            sent.samples.saturating_sub(self.0.samples) + sent.histograms.saturating_sub(self.0.histograms);
        if missing == 0 {
            return Outcome::delivered();
        }
        let nothing = self.0.samples == 0 && self.0.histograms == 0;
        let rejected = if nothing { items } else { missing.min(items) };
        Outcome::Delivered { rejected, message: reason() }
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    const SENT: Counts = Counts { samples: 10, histograms: 2, exemplars: 1 };

    fn verdict(status: u16, version: Version, confirmed: bool, headers: &[(&'static str, &str)]) -> String {
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect(),
            body: b"replicas did not match".to_vec(),
            broken: None,
        };
        match read(&answer, version, SENT, 5, confirmed, "u") {
            Verdict::Older => "older".to_owned(),
            Verdict::End(Outcome::Delivered { rejected, .. }) => format!("stored but {rejected}"),
            Verdict::End(Outcome::Retry { after: Some(d), .. }) => format!("retry after {}", d.as_secs()),
            Verdict::End(Outcome::Retry { .. }) => "retry".to_owned(),
            Verdict::End(Outcome::Rejected { bad_data: true, .. }) => "bisect".to_owned(),
            Verdict::End(Outcome::Rejected { .. }) => "drop".to_owned(),
            Verdict::End(Outcome::TooLarge { .. }) => "halve".to_owned(),
        }
    }

    #[test]
    fn answers_follow_the_table() {
        const SAMPLES: &str = "x-prometheus-remote-write-samples-written";
        const HISTOGRAMS: &str = "x-prometheus-remote-write-histograms-written";
        let all = [(SAMPLES, "10"), (HISTOGRAMS, "2")];
        use Version::{V1, V2};
        let table: &[(u16, Version, bool, &[(&'static str, &str)], &str)] = &[
            (200, V1, false, &[], "stored but 0"),
            (204, V1, false, &[], "stored but 0"),
            (202, V1, false, &[], "stored but 5"),
            (200, V2, false, &[], "older"),
            (204, V2, true, &[], "older"),
            (204, V2, false, &all, "stored but 0"),
            (200, V2, false, &[(SAMPLES, "7"), (HISTOGRAMS, "2")], "stored but 3"),
            (200, V2, false, &[(SAMPLES, "10")], "stored but 2"),
            (400, V2, true, &[(SAMPLES, "0")], "stored but 5"),
            (400, V2, false, &[(SAMPLES, "9"), (HISTOGRAMS, "2")], "stored but 1"),
            (400, V2, false, &[], "older"),
            (400, V2, true, &[], "bisect"),
            (400, V1, false, &[], "bisect"),
            (409, V1, false, &[], "bisect"),
            (422, V1, false, &[], "bisect"),
            (413, V1, false, &[], "halve"),
            (415, V1, false, &[], "drop"),
            (415, V2, true, &[], "older"),
            (401, V1, false, &[], "drop"),
            (404, V1, false, &[], "drop"),
            (301, V1, false, &[], "drop"),
            (429, V1, false, &[("retry-after", "7")], "retry after 7"),
            (429, V2, false, &[], "retry"),
            (500, V1, false, &[], "retry"),
            (501, V1, false, &[], "retry"),
            (503, V2, false, &[("retry-after", "3")], "retry after 3"),
        ];
        for (status, version, confirmed, headers, want) in table {
            let got = verdict(*status, *version, *confirmed, headers);
            assert_eq!(got, *want, "{status} {version:?} confirmed {confirmed} {headers:?}");
        }
    }
}
