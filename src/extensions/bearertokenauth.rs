//! `bearertokenauth`: a token in a header, on either side of a connection.
//!
//! Promises: comparisons take the same time wherever they fail and look at every token; the file of tokens is
//! followed while the agent runs.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::components::{AuthSides, BuildError, ComponentConfig};
use crate::config;
use crate::config::types::Secret;
use crate::config::{Cx, Node};
use crate::net::auth::{AuthError, ClientAuth, ServerAuth, Unauthorized};
use crate::net::watch::{Watch, read_text};
use crate::pdata::ClientInfo;
use crate::pipeline::{BuildContext, Extension, RunContext, StartError};

config! {
    /// What to do when the file of tokens cannot be read at the start.
    pub struct FileRetryConfig {
        /// Tries again; otherwise the agent does not start.
        pub enabled: bool = false,
        /// How often to try again.
        pub max_retries: u32 = 5,
        /// The pause in between.
        pub retry_interval: Duration = Duration::from_secs(1),
    }
}

config! {
    /// Bearer tokens. Servers accept any of them, clients send the first.
    pub struct BearerTokenAuthConfig {
        /// The word before the token; empty for the bare token.
        pub scheme: String = "Bearer".to_owned(),
        /// The header that carries the token.
        pub header: String = "Authorization".to_owned(),
        /// The token.
        pub token: Secret = Secret::default(),
        /// Several tokens; not together with `token`.
        pub tokens: Vec<Secret> = Vec::new(),
        /// A file with one token a line; wins over `token` and `tokens`. Changes are followed.
        pub filename: String = String::new(),
        /// What to do when the file cannot be read at the start.
        pub file_retry: FileRetryConfig = FileRetryConfig::default(),
    }
    validate = BearerTokenAuthConfig::check;
}

/// How often the file is looked at, at most.
const LOOK: Duration = Duration::from_secs(1);

struct BearerTokenAuth {
    config: BearerTokenAuthConfig,
    header: HeaderName,
    shared: OnceLock<Arc<Shared>>,
}

/// Both sides: they differ in what they do with the tokens.
struct Shared {
    config: BearerTokenAuthConfig,
    header: HeaderName,
    watch: Watch,
    /// Complete header values, scheme included; never empty.
    values: Mutex<Arc<[HeaderValue]>>,
}

impl ComponentConfig for BearerTokenAuthConfig {
    fn authenticates(&self) -> AuthSides {
        AuthSides { server: true, client: true }
    }
}

impl BearerTokenAuthConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        let token = !self.token.expose().is_empty();
        if !token && self.tokens.is_empty() && self.filename.is_empty() {
            cx.error_hint(node.pos, "no bearer token provided", "set token, tokens or filename");
        }
        if token && !self.tokens.is_empty() {
            let pos = node.pos_of("tokens");
            cx.within("tokens", |cx| cx.error(pos, "either tokens or token should be provided, not both"));
        }
        if HeaderName::try_from(&self.header).is_err() {
            let (pos, why) =
                (node.pos_of("header"), format!("\"{}\" cannot be a header's name", self.header));
            cx.within("header", |cx| cx.error(pos, why));
        }
        if self.filename.is_empty()
            && let Err(why) = self.values("")
        {
            cx.error(node.pos, why);
        }
    }

    /// The header values of the tokens configured, or of those in `lines` if there is a file.
    fn values(&self, lines: &str) -> Result<Arc<[HeaderValue]>, String> {
        let configured = [&self.token].into_iter().chain(&self.tokens).map(Secret::expose);
        let tokens: Vec<&str> = match self.filename.as_str() {
            "" => configured.filter(|t| !t.is_empty()).collect(),
            _ => lines.lines().map(str::trim).filter(|t| !t.is_empty()).collect(),
        };
        let value = |token: &str| {
            let space = if self.scheme.is_empty() { "" } else { " " };
            let mut value = HeaderValue::try_from(format!("{}{space}{token}", self.scheme)).ok()?;
            value.set_sensitive(true);
            Some(value)
        };
        let values: Option<Arc<[HeaderValue]>> = tokens.into_iter().map(value).collect();
        values.ok_or_else(|| "a token contains characters that cannot be sent in a header".to_owned())
    }

    fn load(&self) -> Result<Arc<[HeaderValue]>, StartError> {
        let lines = match self.filename.as_str() {
            "" => String::new(),
            path => read_text("filename", path)?,
        };
        let values = self.values(&lines).map_err(StartError::new)?;
        if values.is_empty() {
            return Err(StartError::new(format!("no token in filename \"{}\"", self.filename)));
        }
        Ok(values)
    }
}

/// Builds the extension.
///
/// # Errors
/// A header name that is none.
pub fn build(config: &BearerTokenAuthConfig, _: &BuildContext) -> Result<Arc<dyn Extension>, BuildError> {
    let header = HeaderName::try_from(&config.header).map_err(|e| format!("header: {e}"))?;
    Ok(Arc::new(BearerTokenAuth { config: config.clone(), header, shared: OnceLock::new() }))
}

#[async_trait]
impl Extension for BearerTokenAuth {
    async fn start(&self, _: &RunContext) -> Result<(), StartError> {
        let config = &self.config;
        let mut retries = if config.file_retry.enabled { config.file_retry.max_retries } else { 0 };
        loop {
            let watch = Watch::new("bearertokenauth", &[("filename", &config.filename)], Some(LOOK));
            match config.load() {
                Ok(values) => {
                    let (config, header) = (config.clone(), self.header.clone());
                    let shared = Shared { config, header, watch, values: Mutex::new(values) };
                    let _ = self.shared.set(Arc::new(shared));
                    return Ok(());
                }
                Err(error) if retries == 0 => return Err(error),
                Err(error) => {
                    retries -= 1;
                    tracing::warn!(%error, "cannot load bearer tokens; trying again");
                    tokio::time::sleep(config.file_retry.retry_interval).await;
                }
            }
        }
    }

    async fn stop(&self) {}

    fn server_auth(&self) -> Option<Arc<dyn ServerAuth>> {
        self.shared.get().map(|s| s.clone() as Arc<dyn ServerAuth>)
    }

    fn client_auth(&self) -> Option<Arc<dyn ClientAuth>> {
        self.shared.get().map(|s| s.clone() as Arc<dyn ClientAuth>)
    }
}

impl Shared {
    fn current(&self) -> Arc<[HeaderValue]> {
        let values = || self.values.lock().unwrap_or_else(PoisonError::into_inner);
        self.watch.poll(|| self.config.load(), |new| *values() = new);
        values().clone()
    }
}

impl ServerAuth for Shared {
    fn authenticate(&self, headers: &HeaderMap) -> Result<Vec<(String, String)>, AuthError> {
        let got = headers.get(&self.header).filter(|v| !v.is_empty()).ok_or_else(|| {
            AuthError(format!("missing or empty authorization header: {}", self.config.header))
        })?;
        // Digests, so that the time taken tells neither a length nor a common prefix.
        let got = Sha256::digest(got.as_bytes());
        let same = |value: &HeaderValue| Sha256::digest(value.as_bytes()).as_slice().ct_eq(got.as_slice());
        // Every token is looked at, whichever fits.
        let fits = self.current().iter().fold(Choice::from(0), |fits, value| fits | same(value));
        if fits.into() {
            return Ok(Vec::new());
        }
        Err(AuthError("provided authorization does not match expected scheme or token".to_owned()))
    }
}

impl ClientAuth for Shared {
    fn authorize(&self, _: &ClientInfo, headers: &mut HeaderMap) -> Result<(), Unauthorized> {
        let current = self.current();
        let value =
            current.first().ok_or_else(|| Unauthorized::NotNow("no bearer token provided".to_owned()))?;
        headers.insert(self.header.clone(), value.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extensions::testing::{context, decode, list, text};

    fn shared(config: BearerTokenAuthConfig) -> Shared {
        let watch = Watch::new("test", &[("filename", &config.filename)], Some(Duration::from_nanos(1)));
        let header = HeaderName::try_from(&config.header).unwrap();
        Shared { values: Mutex::new(config.load().unwrap()), header, watch, config }
    }

    fn headers(name: &str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap())])
    }

    fn sent(side: &Shared) -> HeaderMap {
        let mut headers = HeaderMap::new();
        side.authorize(&ClientInfo::default(), &mut headers).unwrap();
        assert!(headers.values().all(HeaderValue::is_sensitive));
        headers
    }

    #[test]
    fn servers_accept_any_token_and_clients_send_the_first() {
        let tokens = vec![Secret::from("one"), Secret::from("two")];
        let side = shared(BearerTokenAuthConfig { tokens, ..Default::default() });
        for good in ["Bearer one", "Bearer two"] {
            assert_eq!(side.authenticate(&headers("authorization", good)), Ok(vec![]));
        }
        for bad in ["one", "Bearer", "Bearer on", "Bearer onee", "bearer one", "Basic one", "Bearer one two"]
        {
            let refused = side.authenticate(&headers("authorization", bad)).unwrap_err();
            assert_eq!(refused.0, "provided authorization does not match expected scheme or token", "{bad}");
        }
        for missing in [HeaderMap::new(), headers("authorization", ""), headers("x-token", "Bearer one")] {
            let refused = side.authenticate(&missing).unwrap_err();
            assert_eq!(refused.0, "missing or empty authorization header: Authorization");
        }
        assert_eq!(sent(&side), headers("authorization", "Bearer one"));
    }

    #[test]
    fn scheme_and_header_are_as_configured() {
        let config = BearerTokenAuthConfig {
            scheme: String::new(),
            header: "X-Api-Key".to_owned(),
            token: Secret::from("k"),
            ..Default::default()
        };
        let side = shared(config);
        assert_eq!(sent(&side), headers("x-api-key", "k"));
        assert!(side.authenticate(&headers("x-api-key", "k")).is_ok());
        assert!(side.authenticate(&headers("x-api-key", "Bearer k")).is_err());
    }

    #[test]
    fn the_file_wins_and_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        std::fs::write(&path, "first\n\n second \r\n").unwrap();
        let filename = path.to_str().unwrap().to_owned();
        let side = shared(BearerTokenAuthConfig { token: Secret::from("t"), filename, ..Default::default() });
        assert_eq!(sent(&side), headers("authorization", "Bearer first"));
        assert!(side.authenticate(&headers("authorization", "Bearer second")).is_ok());
        assert!(side.authenticate(&headers("authorization", "Bearer t")).is_err());
        std::fs::write(&path, "third").unwrap();
        assert_eq!(sent(&side), headers("authorization", "Bearer third"));
        assert!(side.authenticate(&headers("authorization", "Bearer first")).is_err());
        for broken in ["\n", "to\u{1}ken"] {
            std::fs::write(&path, broken).unwrap();
            assert_eq!(sent(&side), headers("authorization", "Bearer third"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_comes_late_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let filename = path.to_str().unwrap().to_owned();
        let (run, cx) = context();
        let mut config = BearerTokenAuthConfig { filename, ..Default::default() };
        let extension = build(&config, &cx).unwrap();
        assert!(extension.start(&run).await.unwrap_err().to_string().contains("cannot read filename"));

        config.file_retry = FileRetryConfig { enabled: true, ..Default::default() };
        let extension = build(&config, &cx).unwrap();
        assert!(extension.start(&run).await.is_err(), "retries without end");
        let (started, ()) = tokio::join!(extension.start(&run), async {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            std::fs::write(&path, "late").unwrap();
        });
        started.unwrap();
        assert!(extension.server_auth().is_some() && extension.client_auth().is_some());
    }

    #[test]
    fn validation() {
        for (entries, want) in [
            (vec![], Some("no bearer token provided")),
            (
                vec![("token", text("a")), ("tokens", list(&["b"]))],
                Some("either tokens or token should be provided, not both"),
            ),
            (vec![("token", text("a")), ("header", text("a b"))], Some("cannot be a header's name")),
            (vec![("token", text("a\nb"))], Some("cannot be sent in a header")),
            (vec![("token", text("a"))], None),
            (vec![("tokens", list(&["a", "b"]))], None),
            (vec![("filename", text("/run/token")), ("token", text("a"))], None),
        ] {
            let (_, messages) = decode::<BearerTokenAuthConfig>(&entries);
            match want {
                Some(want) => assert!(messages.iter().any(|m| m.contains(want)), "{want}: {messages:?}"),
                None => assert!(messages.is_empty(), "{messages:?}"),
            }
        }
    }
}
