//! Cross-origin requests: which pages of other origins may send telemetry, as browsers ask for it.

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method};

use super::config::CorsConfig;

/// Headers a page may always set.
const SAFE: [&str; 6] =
    ["accept", "accept-language", "content-language", "content-type", "origin", "x-requested-with"];

/// The rules of one server.
#[derive(Debug)]
pub struct Cors {
    origins: Vec<String>,
    headers: Vec<String>,
    any_header: bool,
    exposed: Option<HeaderValue>,
    max_age: Option<HeaderValue>,
}

impl Cors {
    /// The rules, or `None` when no origin is allowed and CORS is off.
    pub fn new(config: &CorsConfig) -> Option<Self> {
        if config.allowed_origins.is_empty() {
            return None;
        }
        Some(Cors {
            origins: config.allowed_origins.iter().map(|o| o.to_ascii_lowercase()).collect(),
            headers: config.allowed_headers.iter().map(|h| h.to_ascii_lowercase()).collect(),
            any_header: config.allowed_headers.iter().any(|h| h == "*"),
            exposed: HeaderValue::from_str(&config.exposed_headers.join(", ")).ok().filter(|v| !v.is_empty()),
            max_age: (config.max_age > 0).then(|| HeaderValue::from(config.max_age)),
        })
    }

    /// Whether a request asks for permission instead of sending something.
    pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
        method == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// Answers a request for permission. Without the headers a browser takes it as a no.
    pub fn preflight(&self, request: &HeaderMap, response: &mut HeaderMap) {
        for name in ["origin", "access-control-request-method", "access-control-request-headers"] {
            response.append(header::VARY, HeaderValue::from_static(name));
        }
        let Some(origin) = self.allowed(request) else { return };
        let method = request.get(header::ACCESS_CONTROL_REQUEST_METHOD);
        if method.is_none_or(|m| !["POST", "GET", "HEAD"].iter().any(|known| m == known)) {
            return;
        }
        let asked = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
        if !asked.is_none_or(|asked| self.allows_headers(asked)) {
            return;
        }
        let mut set = |name: HeaderName, value: Option<&HeaderValue>| {
            if let Some(value) = value {
                response.insert(name, value.clone());
            }
        };
        set(header::ACCESS_CONTROL_ALLOW_METHODS, method);
        set(header::ACCESS_CONTROL_ALLOW_HEADERS, asked);
        set(header::ACCESS_CONTROL_MAX_AGE, self.max_age.as_ref());
        allow(origin, response);
    }

    /// Adds to an answer what lets a page of the request's origin read it.
    pub fn permit(&self, request: &HeaderMap, response: &mut HeaderMap) {
        response.append(header::VARY, HeaderValue::from_static("origin"));
        let Some(origin) = self.allowed(request) else { return };
        if let Some(exposed) = &self.exposed {
            response.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
        }
        allow(origin, response);
    }

    /// What to allow for the request's origin; `*` when every origin is.
    fn allowed(&self, request: &HeaderMap) -> Option<HeaderValue> {
        let origin = request.get(header::ORIGIN)?;
        if self.origins.iter().any(|o| o == "*") {
            return Some(HeaderValue::from_static("*"));
        }
        let text = origin.to_str().ok()?.to_ascii_lowercase();
        self.origins.iter().any(|pattern| matches(pattern, &text)).then(|| origin.clone())
    }

    fn allows_headers(&self, asked: &HeaderValue) -> bool {
        let Ok(asked) = asked.to_str() else { return false };
        self.any_header
            || asked
                .split(',')
                .map(|h| h.trim().to_ascii_lowercase())
                .filter(|h| !h.is_empty())
                .all(|h| SAFE.contains(&h.as_str()) || self.headers.contains(&h))
    }
}

fn allow(origin: HeaderValue, response: &mut HeaderMap) {
    response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    response.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
}

/// Whether `text` has the form of `pattern`, in which each `*` stands for any characters. Linear but for the
/// search of each part.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        let Some(at) = text.find(part) else { return false };
        text = text.get(at + part.len()..).unwrap_or_default();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_match_with_wildcards() {
        let cases = [
            ("https://a.b", "https://a.b", true),
            ("https://a.b", "https://a.b.c", false),
            ("https://*.b", "https://x.y.b", true),
            ("https://*.b", "https://b", false),
            ("https://*.b:*", "https://x.b:80", true),
            ("*", "anything", true),
            ("a*a", "a", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
        ];
        for (pattern, text, want) in cases {
            assert_eq!(matches(pattern, text), want, "{pattern} {text}");
        }
    }
}
