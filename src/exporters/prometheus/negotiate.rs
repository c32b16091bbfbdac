//! Which format a scraper gets, by what it says it takes.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// A format and how it writes names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// The format.
    pub media: Media,
    /// What becomes of names that are no old-style names.
    pub escaping: Escaping,
}

/// A format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// Prometheus' text format.
    Text,
    /// The same with names of any characters.
    Text1,
    /// OpenMetrics 1.0.0 as text.
    Open,
    /// What came before it, which is written the same.
    Open0,
}

/// What becomes of names that are no old-style names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escaping {
    /// They are written in quotes.
    AllowUtf8,
    /// Underscores stand for what old-style names do not have.
    Underscores,
}

/// What a scraper that says nothing gets.
const DEFAULT: Format = Format { media: Media::Text, escaping: Escaping::Underscores };

impl Format {
    /// The best of what the headers accept; OpenMetrics only if `open`. Who accepts nothing we have gets the text
    /// format all the same, as from other exporters.
    pub fn of(headers: &HeaderMap, open: bool) -> Format {
        let mut best = (0.0, DEFAULT);
        for range in list(headers, header::ACCEPT) {
            if let Some((quality, format)) = parse(range, open)
                && quality > best.0
            {
                best = (quality, format);
            }
        }
        best.1
    }

    /// Whether it is OpenMetrics.
    pub fn is_open(self) -> bool {
        matches!(self.media, Media::Open | Media::Open0)
    }

    /// The content type.
    pub fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match (self.media, self.escaping) {
            (Media::Text, Escaping::Underscores) => "text/plain; version=0.0.4; charset=utf-8",
            (Media::Text, Escaping::AllowUtf8) => {
                "text/plain; version=0.0.4; charset=utf-8; escaping=allow-utf-8"
            }
            (Media::Text1, Escaping::Underscores) => {
                "text/plain; version=1.0.0; charset=utf-8; escaping=underscores"
            }
            (Media::Text1, Escaping::AllowUtf8) => {
                "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8"
            }
            (Media::Open, Escaping::Underscores) => {
                "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"
            }
            (Media::Open, Escaping::AllowUtf8) => {
                "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8"
            }
            (Media::Open0, _) => "application/openmetrics-text; version=0.0.1; charset=utf-8",
        })
    }
}

/// Whether a client takes gzip.
pub fn takes_gzip(headers: &HeaderMap) -> bool {
    list(headers, header::ACCEPT_ENCODING).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip") || name == "*");
        named && parts.all(|part| quality(part).is_none_or(|q| q > 0.0))
    })
}

/// The quality and the format of one media range; `None` if we have no such format.
fn parse(range: &str, open: bool) -> Option<(f64, Format)> {
    let mut parts = range.split(';').map(str::trim);
    let name = parts.next()?.to_ascii_lowercase();
    let (mut q, mut version, mut escaping) = (1.0, "", Escaping::Underscores);
    for part in parts {
        if let Some(given) = quality(part) {
            q = given;
        } else if let Some((key, value)) = part.split_once('=') {
            match (key.trim(), value.trim().trim_matches('"')) {
                ("version", value) => version = value,
                ("escaping", "allow-utf-8") => escaping = Escaping::AllowUtf8,
                _ => {}
            }
        }
    }
    let media = match (name.as_str(), version) {
        ("application/openmetrics-text", "1.0.0" | "") if open => Media::Open,
        ("application/openmetrics-text", "0.0.1") if open => Media::Open0,
        ("text/plain", "1.0.0") => Media::Text1,
        ("text/plain", "0.0.4" | "") | ("text/*" | "*/*", _) => Media::Text,
        _ => return None,
    };
    // This version of OpenMetrics is older than names with any characters.
    if media == Media::Open0 {
        escaping = Escaping::Underscores;
    }
    Some((q, Format { media, escaping }))
}

/// The value of a `q` parameter; one that is no number counts as 0.
fn quality(part: &str) -> Option<f64> {
    let (key, value) = part.split_once('=')?;
    key.trim().eq_ignore_ascii_case("q").then(|| value.trim().parse().unwrap_or(0.0))
}

/// The entries of a header that is a list.
fn list(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers.get_all(name).into_iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','))
}
