//! What an answer means for a request, by what Loki is known to do.
//!
//! A 400 for single entries has stored all the others, and says how many it has not; when that cannot be told the
//! request is cut, since what is stored already is stored once.

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
            Some(refused) if refused <= items => Outcome::Delivered { rejected: refused, message: reason },
            _ => Outcome::Rejected { bad_data: true, reason },
        },
        413 => Outcome::TooLarge { reason },
        422 => Outcome::Rejected { bad_data: true, reason },
        429 | 500..=599 => {
            let after = retry_after(&answer.headers, SystemTime::now()).filter(|d| !d.is_zero());
            Outcome::Retry { after, reason }
        }
        _ => Outcome::rejected(reason),
    }
}

/// How many entries of a request were refused, if all that is said is about entries that came too late.
fn refused(said: &str) -> Option<usize> {
    const IGNORED: &str = "total ignored: ";
    let mut total = 0;
    let mut rest = said;
    let mut any = false;
    while let Some((_, tail)) = rest.split_once(IGNORED) {
        let (number, tail) = tail.split_once(" out of ")?;
        total += number.parse::<usize>().ok()?;
        rest = tail;
        any = true;
    }
    any.then_some(total)
}
