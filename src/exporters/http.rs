//! One HTTP POST, as all exporters over HTTP make it: authentication, limits on connections, and an answer of which
//! no more is read than anybody looks at.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::delivery::Outcome;
use crate::components::BuildError;
use crate::net::auth::ClientKey;
use crate::net::client::{HttpClient, HttpClientConfig, causes};
use crate::pdata::ClientInfo;
use crate::pipeline::{RunContext, StartError};

/// How much of an answer is read.
const MAX_ANSWER: usize = 64 << 10;

/// A destination.
pub(super) struct Post {
    config: HttpClientConfig,
    url: reqwest::Url,
    shown: String,
    headers: HeaderMap,
    client: OnceLock<HttpClient>,
}

/// What a destination answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The start of the body.
    pub body: Vec<u8>,
    /// Why the body could not be read to its end, for an answer that is a success all the same.
    pub broken: Option<String>,
}

impl Post {
    /// A destination for requests with these headers; those that the user configured are added and stand.
    ///
    /// # Errors
    /// The URL is none.
    pub fn new(config: &HttpClientConfig, url: &str, mut headers: HeaderMap) -> Result<Self, BuildError> {
        let url = reqwest::Url::parse(url).map_err(|e| format!("endpoint must be a valid URL: {e}"))?;
        headers.extend(config.headers.to_map());
        let mut shown = url.clone();
        let _ = (shown.set_username(""), shown.set_password(None));
        Ok(Post { config: config.clone(), url, shown: shown.into(), headers, client: OnceLock::new() })
    }

    /// The URL as it is logged: without user and password.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Makes the client.
    ///
    /// # Errors
    /// Unreadable certificates, a missing authenticator, a proxy URL that makes no sense.
    pub fn start(&self, cx: &RunContext) -> Result<(), StartError> {
        let client = self.config.connect(self.url.as_str(), cx)?;
        let _ = self.client.set(client);
        Ok(())
    }

    /// What requests take from clients.
    pub fn reads(&self) -> Vec<ClientKey> {
        let auth = self.client.get().and_then(|client| client.auth.as_ref());
        auth.map(|auth| auth.reads()).unwrap_or_default()
    }

    /// Sends a body of `len` bytes. `own` replaces what the configured headers say.
    ///
    /// # Errors
    /// There is no answer: the request may be sent again, unless it could not even be built.
    pub async fn send(
        &self,
        client: &ClientInfo,
        own: HeaderMap,
        body: reqwest::Body,
        len: usize,
    ) -> Result<Answer, Outcome> {
        let http = self.client.get().ok_or_else(|| Outcome::retry("the exporter is not started"))?;
        let mut headers = self.headers.clone();
        headers.extend(own);
        if let Some(auth) = &http.auth {
            auth.authorize(client, &mut headers)?;
        }
        let _slot = match &http.slots {
            Some(slots) => slots.acquire().await.ok(),
            None => None,
        };
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
        let request = http.client.post(self.url.clone()).headers(headers).body(body);
        let mut response = request.send().await.map_err(|e| self.failed(e))?;
        let mut answer = Answer {
            status: response.status(),
            headers: std::mem::take(response.headers_mut()),
            body: Vec::new(),
            broken: None,
        };
        while answer.body.len() < MAX_ANSWER {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    let room = MAX_ANSWER - answer.body.len();
                    answer.body.extend_from_slice(chunk.get(..room.min(chunk.len())).unwrap_or_default());
                }
                Ok(None) => break,
                // The status says what became of the request; only what was said about it is lost.
                Err(e) => {
                    let why = causes(&e.without_url());
                    answer.broken = Some(format!("the answer could not be read: {why}"));
                    break;
                }
            }
        }
        Ok(answer)
    }

    fn failed(&self, error: reqwest::Error) -> Outcome {
        let permanent = error.is_builder();
        let reason =
            format!("failed to make an HTTP request to {}: {}", self.shown, causes(&error.without_url()));
        if permanent { Outcome::rejected(reason) } else { Outcome::retry(reason) }
    }
}

/// `Retry-After`: whole seconds, or the date until which to wait.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    httpdate::parse_http_date(text).ok()?.duration_since(now).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_waits_until_then() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let at = |text: &str| {
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, text.parse().unwrap())]);
            retry_after(&headers, now)
        };
        assert_eq!(at("Sun, 06 Nov 1994 08:50:00 GMT"), Some(Duration::from_secs(23)));
        assert_eq!(at("Sun, 06 Nov 1994 08:49:00 GMT"), None);
        assert_eq!(at("120"), Some(Duration::from_secs(120)));
    }
}
