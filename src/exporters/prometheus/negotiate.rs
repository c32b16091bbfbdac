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
    /// Length-delimited protobuf.
    Protobuf,
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
            (Media::Protobuf, Escaping::Underscores) => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; \
                 encoding=delimited; escaping=underscores"
            }
            (Media::Protobuf, Escaping::AllowUtf8) => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; \
                 encoding=delimited; escaping=allow-utf-8"
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
    let (mut proto, mut encoding) = ("", "");
    for part in parts {
        if let Some(given) = quality(part) {
            q = given;
        } else if let Some((key, value)) = part.split_once('=') {
            match (key.trim().to_ascii_lowercase().as_str(), value.trim().trim_matches('"')) {
                ("proto", value) => proto = value,
                ("encoding", value) => encoding = value,
                ("version", value) => version = value,
                ("escaping", "allow-utf-8") => escaping = Escaping::AllowUtf8,
                _ => {}
            }
        }
    }
    let media = match (name.as_str(), version) {
        ("application/openmetrics-text", "1.0.0" | "") if open => Media::Open,
        ("application/openmetrics-text", "0.0.1") if open => Media::Open0,
        ("application/vnd.google.protobuf", _)
            if (proto, encoding) == ("io.prometheus.client.MetricFamily", "delimited") =>
        {
            Media::Protobuf
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        [(name, value.parse().unwrap())].into_iter().collect()
    }

    #[test]
    fn the_best_that_a_scraper_takes() {
        const PROMETHEUS_3: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        const PROMETHEUS_2: &str = "application/openmetrics-text;version=1.0.0,\
            application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        const PROTOBUF: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
            encoding=delimited;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.2";
        use Escaping::{AllowUtf8, Underscores};
        use Media::{Open, Open0, Protobuf, Text, Text1};
        for (accept, open, media, escaping) in [
            ("", true, Text, Underscores),
            ("*/*", true, Text, Underscores),
            ("image/png", true, Text, Underscores),
            (PROTOBUF, false, Protobuf, AllowUtf8),
            ("application/vnd.google.protobuf;encoding=text, text/plain;q=0.1", true, Text, Underscores),
            (PROMETHEUS_3, true, Open, AllowUtf8),
            (PROMETHEUS_3, false, Text1, AllowUtf8),
            (PROMETHEUS_2, true, Open, Underscores),
            (PROMETHEUS_2, false, Text, Underscores),
            ("application/openmetrics-text", true, Open, Underscores),
            ("Application/OpenMetrics-Text; Version=1.0.0; Q=0.1, text/plain;q=0.5", true, Text, Underscores),
            ("application/openmetrics-text; version=2.0.0", true, Text, Underscores),
            ("application/openmetrics-text; version=0.0.1; escaping=allow-utf-8", true, Open0, Underscores),
            ("text/plain; version=\"1.0.0\"; escaping=allow-utf-8", true, Text1, AllowUtf8),
            ("text/plain; version=0.0.4; escaping=allow-utf-8", true, Text, AllowUtf8),
            ("text/plain; escaping=dots", true, Text, Underscores),
            (
                "text/plain;version=1.0.0;q=0, text/*;q=x, application/openmetrics-text;q=0.1",
                true,
                Open,
                Underscores,
            ),
            ("text/plain;q=0.5, application/openmetrics-text;q=0.5", true, Text, Underscores),
        ] {
            let headers = if accept.is_empty() { HeaderMap::new() } else { headers(header::ACCEPT, accept) };
            assert_eq!(Format::of(&headers, open), Format { media, escaping }, "{accept}");
        }
        let mut two = headers(header::ACCEPT, "text/plain;q=0.5");
        two.append(header::ACCEPT, HeaderValue::from_static("application/openmetrics-text"));
        assert_eq!(Format::of(&two, true).media, Open);
    }

    #[test]
    fn gzip_is_for_those_who_take_it() {
        for (coding, want) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("*", true),
            ("gzip;q=0", false),
            ("gzip; q=0.000", false),
            ("identity", false),
            ("gzipped", false),
        ] {
            assert_eq!(takes_gzip(&headers(header::ACCEPT_ENCODING, coding)), want, "{coding}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
