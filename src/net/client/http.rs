//! The settings of an HTTP client, and the client they make.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::{ClientAuthConfig, UNACKNOWLEDGED, user_agent};
use crate::config::types::{Headers, HttpUrl, Optional, Unsupported};
use crate::config::{Cx, Node, Value};
use crate::net::auth::ClientAuth;
use crate::net::compress::{Codec, validate_level};
use crate::net::tls::TlsClientConfig;
use crate::pipeline::{RunContext, StartError};
use crate::{config, config_enum};

/// The Collector's OTLP exporters write through a buffer of this size by default.
const OTLP_WRITE_BUFFER: i64 = 512 * 1024;

config_enum! {
    /// How request bodies are compressed.
    pub enum HttpCompression {
        /// RFC 1952.
        Gzip = "gzip",
        /// RFC 1950.
        Zlib = "zlib",
        /// RFC 1950, under HTTP's name for it.
        Deflate = "deflate",
        /// Snappy's block format.
        Snappy = "snappy",
        /// Snappy's framed format.
        SnappyFramed = "x-snappy-framed",
        /// RFC 8878.
        Zstd = "zstd",
        /// LZ4's frame format.
        Lz4 = "lz4",
        /// Not at all.
        None = "none",
        /// Not at all.
        Empty = "",
    }
}

impl HttpCompression {
    /// The codec, if there is one.
    pub fn codec(self) -> Option<Codec> {
        Codec::from_encoding(self.word()).flatten()
    }
}

config! {
    /// How hard to compress.
    pub struct CompressionParams {
        /// The codec's level. 0 is the codec's default.
        pub level: i32 = 0,
    }
}

config! {
    /// Keeps the cookies that the server sets.
    pub struct CookiesConfig {
    }
}

config! {
    /// An HTTP client.
    pub struct HttpClientConfig {
        /// The URL to send to.
        pub endpoint: HttpUrl = HttpUrl::default(),
        /// The proxy to use instead of the one named by `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`.
        pub proxy_url: HttpUrl = HttpUrl::default(),
        /// TLS for `https://` URLs.
        pub tls: TlsClientConfig = TlsClientConfig::default(),
        /// Not supported: the connection sizes its buffers itself.
        pub read_buffer_size: i64 = 0,
        /// Not supported: bodies are written from where they lie. The Collector's default, 524288, is taken and
        /// changes nothing.
        pub write_buffer_size: i64 = 0,
        /// The longest one attempt may take. 0 is no limit.
        pub timeout: Duration = Duration::ZERO,
        /// Headers sent with each request. `Host` replaces the URL's host.
        pub headers: Headers = Headers::default(),
        /// How requests are authenticated.
        pub auth: Optional<ClientAuthConfig> = Optional::none(ClientAuthConfig::default()),
        /// How bodies are compressed.
        pub compression: HttpCompression = HttpCompression::Empty,
        /// How hard to compress.
        pub compression_params: CompressionParams = CompressionParams::default(),
        /// How many idle connections are kept. 0 is no limit.
        pub max_idle_conns: i64 = 100,
        /// How many idle connections are kept to one host. 0 is no limit beyond `max_idle_conns`.
        pub max_idle_conns_per_host: i64 = 0,
        /// How many requests are open to the host at the same time. 0 is no limit.
        pub max_conns_per_host: i64 = 0,
        /// How long an idle connection is kept. 0 is forever.
        pub idle_conn_timeout: Duration = Duration::from_secs(90),
        /// Uses each connection for one request only.
        pub disable_keep_alives: bool = false,
        /// After how long a silence an HTTP/2 connection is pinged. 0 is never.
        pub http2_read_idle_timeout: Duration = Duration::ZERO,
        /// How long the answer to a ping may take. 0 is 15s.
        pub http2_ping_timeout: Duration = Duration::ZERO,
        /// Whether HTTP/2 is offered over TLS.
        pub force_attempt_http2: bool = true,
        /// Keeps the cookies that the server sets. Off unless written.
        pub cookies: Optional<CookiesConfig> = Optional::none(CookiesConfig::default()),
        /// Not supported: no extension takes part in requests.
        pub middlewares: Unsupported = Unsupported,
    }
    validate = HttpClientConfig::check;
}

impl HttpClientConfig {
    /// What a struct that flattens this one must check of it.
    pub fn check(&self, node: &Node, cx: &mut Cx) {
        let mut fail = |key: &str, why: String| cx.within(key, |cx| cx.error(node.pos_of(key), why));
        let counts = [
            ("max_idle_conns", self.max_idle_conns),
            ("max_idle_conns_per_host", self.max_idle_conns_per_host),
            ("max_conns_per_host", self.max_conns_per_host),
        ];
        for (key, value) in counts {
            if value < 0 {
                fail(key, format!("'{key}' must be non-negative"));
            }
        }
        for (key, size) in
            [("read_buffer_size", self.read_buffer_size), ("write_buffer_size", self.write_buffer_size)]
        {
            let written = node.get(key).is_some_and(|n| n.value != Value::Null);
            if written && size != 0 && (key, size) != ("write_buffer_size", OTLP_WRITE_BUFFER) {
                fail(key, format!("'{key}' is not supported for HTTP clients; remove it"));
            }
        }
        let level = self.compression_params.level;
        if let Some(codec) = self.compression.codec()
            && let Err(why) = validate_level(codec, level)
        {
            fail("compression_params", why);
        } else if self.compression.codec().is_none() && level != 0 {
            fail("compression_params", "'level' needs a 'compression'".to_owned());
        }
    }

    /// The level for [`deflate`](crate::net::compress::deflate).
    pub fn level(&self) -> Option<i32> {
        Some(self.compression_params.level).filter(|level| *level != 0)
    }

    /// The extensions named here, for [`ComponentConfig`](crate::components::ComponentConfig).
    pub fn extension_refs(&self) -> Vec<(&'static str, String)> {
        let auth = self.auth.get().filter(|a| !a.authenticator.is_empty());
        auth.map(|a| ("auth::authenticator", a.authenticator.as_str().to_owned())).into_iter().collect()
    }

    /// Makes the client. `url` is where it will send to.
    ///
    /// # Errors
    /// Unreadable certificates, a missing authenticator, a proxy URL that makes no sense.
    pub fn connect(&self, url: &str, cx: &RunContext) -> Result<HttpClient, StartError> {
        let failed =
            |e: reqwest::Error| StartError::new(format!("HTTP client: {}", causes(&e.without_url())));
        let count = |n: i64| usize::try_from(n).ok().filter(|n| *n > 0);
        let idle = match (count(self.max_idle_conns), count(self.max_idle_conns_per_host)) {
            _ if self.disable_keep_alives => 0,
            (Some(all), Some(host)) => all.min(host),
            (all, host) => all.or(host).unwrap_or(usize::MAX),
        };
        let nonzero = |d: Duration| Some(d).filter(|d| !d.is_zero());
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(self.tls_for(url)?)
            .user_agent(user_agent())
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .pool_max_idle_per_host(idle)
            .pool_idle_timeout(nonzero(self.idle_conn_timeout))
            .tcp_nodelay(true)
            .tcp_user_timeout(UNACKNOWLEDGED)
            .cookie_store(self.cookies.get().is_some());
        if !self.force_attempt_http2 {
            builder = builder.http1_only();
        }
        if let Some(quiet) = nonzero(self.http2_read_idle_timeout) {
            let answer = nonzero(self.http2_ping_timeout).unwrap_or(Duration::from_secs(15));
            builder = builder
                .http2_keep_alive_interval(quiet)
                .http2_keep_alive_timeout(answer)
                .http2_keep_alive_while_idle(true);
        }
        if !self.proxy_url.is_empty() {
            builder = builder.proxy(reqwest::Proxy::all(self.proxy_url.as_str()).map_err(failed)?);
        }
        let auth = match self.auth.get().filter(|a| !a.authenticator.is_empty()) {
            Some(auth) => Some(cx.client_auth(auth.authenticator.as_str())?),
            None => None,
        };
        let slots =
            count(self.max_conns_per_host).map(|n| Arc::new(Semaphore::new(n.min(Semaphore::MAX_PERMITS))));
        Ok(HttpClient { client: builder.build().map_err(failed)?, auth, slots })
    }

    /// TLS where it is used; without `https` anywhere nothing is read and nobody is trusted.
    fn tls_for(&self, url: &str) -> Result<rustls::ClientConfig, StartError> {
        let https = |url: &str| url.get(..6).is_some_and(|s| s.eq_ignore_ascii_case("https:"));
        let alpn: &[&[u8]] = if self.force_attempt_http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
        if https(url) || https(self.proxy_url.as_str()) {
            return Ok((*self.tls.load(alpn)?.config()).clone());
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| StartError::new(format!("TLS: {e}")))?;
        Ok(builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
    }
}

/// A client made of [`HttpClientConfig`].
pub struct HttpClient {
    /// Sends requests. Follows no redirects.
    pub client: reqwest::Client,
    /// Authenticates them.
    pub auth: Option<Arc<dyn ClientAuth>>,
    /// How many may be open, where there is a limit.
    pub slots: Option<Arc<Semaphore>>,
}

/// An error with its causes, which a plain display hides.
pub fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
