//! What a user may write under `receivers: otlp:`, with the Collector's keys and defaults.

use std::time::Duration;

use crate::components::{ClientFact, ComponentConfig};
use crate::config::types::{Endpoint, ExtensionId, Headers, Optional, Unsupported};
use crate::config::{Cx, Key, Node, Value};
use crate::net::listen::Transport;
use crate::net::tls::TlsServerConfig;
use crate::{config, config_enum};

/// The largest message a gRPC server takes when nothing is configured, in MiB.
const DEFAULT_RECV_MIB: usize = 4;
/// The largest value of `max_recv_msg_size_mib`: a gRPC length prefix has 32 bits.
const MAX_RECV_MIB: i64 = 4095;
/// The largest HTTP body when nothing is configured, in bytes.
const DEFAULT_BODY: usize = 20 << 20;

config! {
    /// Receives traces, metrics and logs over OTLP, gRPC and HTTP.
    pub struct OtlpConfig {
        /// The protocols to serve; at least one.
        pub protocols: Protocols = Protocols::default(),
    }
    validate = OtlpConfig::check;
}

config! {
    /// The protocols of the OTLP receiver. A protocol is served when its key is present: `grpc:` alone is enough.
    pub struct Protocols {
        /// OTLP over gRPC.
        pub grpc: Optional<GrpcServerConfig> = Optional::off(GrpcServerConfig::default()),
        /// OTLP over HTTP: protobuf and JSON.
        pub http: Optional<HttpProtocolConfig> = Optional::off(HttpProtocolConfig::default()),
    }
}

config! {
    /// A gRPC server.
    pub struct GrpcServerConfig {
        /// Where to listen: `host:port` or `unix:///path`. `localhost` is reachable from this machine only; write
        /// `0.0.0.0:4317` to serve others.
        pub endpoint: Endpoint = Endpoint::of("localhost:4317"),
        /// What kind of socket `endpoint` names.
        pub transport: Transport = Transport::Tcp,
        /// Serves TLS; plaintext when absent.
        pub tls: Optional<TlsServerConfig> = Optional::none(TlsServerConfig::default()),
        /// The largest message taken, in MiB, compressed and inflated; 0 means 4.
        pub max_recv_msg_size_mib: i64 = 0,
        /// How many requests a client may have open on one connection; 0 leaves it to the agent, which allows 1024.
        pub max_concurrent_streams: u32 = 0,
        /// The most bytes taken from a connection at once, and the largest HTTP/2 frame a client may send (within
        /// 16 KiB to 1 MiB). A request that fits into one frame is never copied.
        pub read_buffer_size: i64 = 512 * 1024,
        /// How many bytes of answers are gathered before they are written to the connection; 0 means 16 KiB.
        pub write_buffer_size: i64 = 0,
        /// When connections are probed and ended.
        pub keepalive: Optional<KeepaliveConfig> = Optional::on(KeepaliveConfig::default()),
        /// Who may send.
        pub auth: Optional<GrpcAuthConfig> = Optional::none(GrpcAuthConfig::default()),
        /// Keeps the request's metadata with the telemetry, for processors and exporters that use it.
        pub include_metadata: bool = false,
        /// Not supported: no extension takes part in requests; memory is limited before a request is read.
        pub middlewares: Unsupported = Unsupported,
    }
    validate = GrpcServerConfig::check;
}

config! {
    /// How a gRPC server keeps and ends connections.
    pub struct KeepaliveConfig {
        /// What the server does on its own.
        pub server_parameters: Optional<ServerParameters> = Optional::on(ServerParameters::default()),
        /// What the server allows its clients.
        pub enforcement_policy: Optional<EnforcementPolicy> = Optional::on(EnforcementPolicy::default()),
    }
}

config! {
    /// When a gRPC server probes and ends connections. 0 means the default of gRPC.
    pub struct ServerParameters {
        /// Ends a connection that had no request for this long; 0 means never.
        pub max_connection_idle: Duration = Duration::ZERO,
        /// Ends a connection of this age, give or take a tenth, so that clients spread over servers anew; 0 means
        /// never.
        pub max_connection_age: Duration = Duration::ZERO,
        /// How long requests of a connection that reached its age may go on; 0 means without limit.
        pub max_connection_age_grace: Duration = Duration::ZERO,
        /// Probes a connection that was silent for this long; 0 means 2h.
        pub time: Duration = Duration::ZERO,
        /// How long a probe waits for its answer before the connection is closed; 0 means 20s.
        pub timeout: Duration = Duration::ZERO,
    }
}

config! {
    /// How often clients may probe. A client that probes more often three times is disconnected.
    pub struct EnforcementPolicy {
        /// The least time between a client's probes; 0 means 5m.
        pub min_time: Duration = Duration::ZERO,
        /// Whether clients may probe while they have no request open.
        pub permit_without_stream: bool = false,
    }
}

config! {
    /// Who may send over gRPC.
    pub struct GrpcAuthConfig {
        /// The extension that decides.
        pub authenticator: ExtensionId = ExtensionId::default(),
    }
    validate = GrpcAuthConfig::check;
}

config! {
    /// An HTTP server for OTLP.
    pub struct HttpProtocolConfig {
        /// Where traces are posted.
        pub traces_url_path: String = "/v1/traces".to_owned(),
        /// Where metrics are posted.
        pub metrics_url_path: String = "/v1/metrics".to_owned(),
        /// Where logs are posted.
        pub logs_url_path: String = "/v1/logs".to_owned(),
        /// Where to listen: `host:port` or `unix:///path`. `localhost` is reachable from this machine only; write
        /// `0.0.0.0:4318` to serve others.
        pub endpoint: Endpoint = Endpoint::of("localhost:4318"),
        /// What kind of socket `endpoint` names.
        pub transport: Transport = Transport::Tcp,
        /// Serves TLS; plaintext when absent.
        pub tls: Optional<TlsServerConfig> = Optional::none(TlsServerConfig::default()),
        /// Lets web pages of other origins send telemetry.
        pub cors: Optional<CorsConfig> = Optional::none(CorsConfig::default()),
        /// Who may send.
        pub auth: Optional<HttpAuthConfig> = Optional::none(HttpAuthConfig::default()),
        /// The largest body in bytes, compressed and inflated; 0 or less means 20 MiB.
        pub max_request_body_size: i64 = 0,
        /// Keeps the request's headers with the telemetry, for processors and exporters that use them.
        pub include_metadata: bool = false,
        /// Headers added to every answer.
        pub response_headers: Headers = Headers::default(),
        /// The values of `Content-Encoding` taken; `""` stands for none. An empty list takes every body as it is.
        pub compression_algorithms: Vec<ContentCoding> = ContentCoding::DEFAULT.to_vec(),
        /// How long a request may take to arrive, body included; 0 means without limit. A body that stops
        /// arriving is given up after a minute in any case.
        pub read_timeout: Duration = Duration::ZERO,
        /// How long a request's headers may take to arrive; 0 means the same as `read_timeout`.
        pub read_header_timeout: Duration = Duration::ZERO,
        /// How long an answer may take, from the end of the headers; 0 means without limit.
        pub write_timeout: Duration = Duration::ZERO,
        /// Closes a connection that had no request for this long; 0 means the same as `read_timeout`.
        pub idle_timeout: Duration = Duration::ZERO,
        /// Whether a connection may serve more than one request.
        pub keep_alives_enabled: bool = true,
        /// Not supported: no extension takes part in requests; memory is limited before a request is read.
        pub middlewares: Unsupported = Unsupported,
    }
    validate = HttpProtocolConfig::check;
}

config! {
    /// Cross-origin requests. Credentials are always allowed.
    pub struct CorsConfig {
        /// Origins that may send, such as `https://*.example.com`; none turns the rest off.
        pub allowed_origins: Vec<String> = Vec::new(),
        /// Request headers a page may set besides the safe ones; `*` allows any.
        pub allowed_headers: Vec<String> = Vec::new(),
        /// Response headers a page may read.
        pub exposed_headers: Vec<String> = Vec::new(),
        /// How many seconds a browser may remember the answer; 0 says nothing.
        pub max_age: i64 = 0,
    }
    validate = CorsConfig::check;
}

config! {
    /// Who may send over HTTP.
    pub struct HttpAuthConfig {
        /// The extension that decides.
        pub authenticator: ExtensionId = ExtensionId::default(),
        /// Query parameters the extension sees as if they were headers.
        pub request_params: Vec<String> = Vec::new(),
    }
    validate = HttpAuthConfig::check;
}

config_enum! {
    /// A `Content-Encoding`.
    pub enum ContentCoding {
        /// None.
        Identity = "",
        /// gzip.
        Gzip = "gzip",
        /// Zstandard.
        Zstd = "zstd",
        /// zlib.
        Zlib = "zlib",
        /// Snappy, block or framed format.
        Snappy = "snappy",
        /// The same as zlib, as in HTTP.
        Deflate = "deflate",
        /// LZ4 frames.
        Lz4 = "lz4",
        /// Snappy's framed format.
        SnappyFramed = "x-snappy-framed",
    }
}

impl ContentCoding {
    /// All of them, in the Collector's order.
    pub const DEFAULT: [ContentCoding; 8] = [
        ContentCoding::Identity,
        ContentCoding::Gzip,
        ContentCoding::Zstd,
        ContentCoding::Zlib,
        ContentCoding::Snappy,
        ContentCoding::Deflate,
        ContentCoding::Lz4,
        ContentCoding::SnappyFramed,
    ];
}

#[allow(clippy::derivable_impls, reason = "config_enum! takes no derives")]
impl Default for ContentCoding {
    fn default() -> Self {
        ContentCoding::Identity
    }
}

impl ComponentConfig for OtlpConfig {
    fn listens(&self) -> Vec<(&'static str, String)> {
        let grpc = self.protocols.grpc.get().and_then(|c| c.endpoint.listen_text());
        let http = self.protocols.http.get().and_then(|c| c.endpoint.listen_text());
        let named = |key, text: Option<String>| text.map(|text| (key, text));
        named("protocols::grpc::endpoint", grpc)
            .into_iter()
            .chain(named("protocols::http::endpoint", http))
            .collect()
    }

    fn extension_refs(&self) -> Vec<(&'static str, String)> {
        let grpc = self.protocols.grpc.get().and_then(|c| c.auth.get()).map(|a| &a.authenticator);
        let http = self.protocols.http.get().and_then(|c| c.auth.get()).map(|a| &a.authenticator);
        let named = |key, id: Option<&ExtensionId>| id.map(|id| (key, id.as_str().to_owned()));
        named("protocols::grpc::auth::authenticator", grpc)
            .into_iter()
            .chain(named("protocols::http::auth::authenticator", http))
            .collect()
    }

    fn knows_of_clients(&self, fact: &ClientFact) -> bool {
        let (grpc, http) = (self.protocols.grpc.get(), self.protocols.http.get());
        match fact {
            ClientFact::Metadata(_) => {
                grpc.is_some_and(|c| c.include_metadata) || http.is_some_and(|c| c.include_metadata)
            }
            ClientFact::Certificate => {
                let tls = [grpc.map(|c| &c.tls), http.map(|c| &c.tls)];
                let verifies = |tls: &TlsServerConfig| !tls.client_ca_file.is_empty();
                tls.into_iter().flatten().any(|tls| tls.get().is_some_and(verifies))
            }
            ClientFact::Auth => {
                grpc.is_some_and(|c| c.auth.get().is_some()) || http.is_some_and(|c| c.auth.get().is_some())
            }
        }
    }
}

impl OtlpConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        let none = self.protocols.grpc.get().is_none() && self.protocols.http.get().is_none();
        let unknown = |(key, _): &(Key, Node)| key.text != "grpc" && key.text != "http";
        // A protocol under a misspelt key is there.
        let misspelt = match node.get("protocols").map(|n| &n.value) {
            Some(Value::Map(entries)) => entries.iter().any(unknown),
            _ => false,
        };
        if none && !misspelt {
            cx.error_hint(
                node.pos_of("protocols"),
                "must specify at least one protocol when using the OTLP receiver",
                "write `protocols:` with `grpc:`, `http:` or both",
            );
        }
    }
}

impl GrpcServerConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        if !(0..=MAX_RECV_MIB).contains(&self.max_recv_msg_size_mib) {
            cx.error(
                node.pos_of("max_recv_msg_size_mib"),
                format!(
                    "invalid max_recv_msg_size_mib value, must be between 1 and {MAX_RECV_MIB}: {}",
                    self.max_recv_msg_size_mib
                ),
            );
        }
        for (key, value) in
            [("read_buffer_size", self.read_buffer_size), ("write_buffer_size", self.write_buffer_size)]
        {
            if value < 0 {
                cx.error(node.pos_of(key), format!("invalid {key} value: {value}"));
            }
        }
        check_listen(&self.endpoint, self.transport, node, cx);
    }

    /// The largest message, in bytes.
    pub fn max_message(&self) -> usize {
        let mib = usize::try_from(self.max_recv_msg_size_mib).unwrap_or(0);
        (if mib == 0 { DEFAULT_RECV_MIB } else { mib }) << 20
    }
}

impl HttpProtocolConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        for (key, path) in self.paths_as_written() {
            if normal_path(path).is_none() {
                cx.error_hint(
                    node.pos_of(key),
                    format!("invalid HTTP URL path set for signal: \"{path}\""),
                    "write a path such as /v1/traces",
                );
            }
        }
        check_listen(&self.endpoint, self.transport, node, cx);
    }

    /// The path of each signal, in the order of [`Signal::ALL`](crate::pdata::Signal::ALL).
    pub fn paths(&self) -> [String; 3] {
        self.paths_as_written().map(|(_, path)| normal_path(path).unwrap_or_default())
    }

    /// The largest body, in bytes.
    pub fn max_body(&self) -> usize {
        usize::try_from(self.max_request_body_size).ok().filter(|&n| n > 0).unwrap_or(DEFAULT_BODY)
    }

    fn paths_as_written(&self) -> [(&'static str, &str); 3] {
        [
            ("traces_url_path", &self.traces_url_path),
            ("metrics_url_path", &self.metrics_url_path),
            ("logs_url_path", &self.logs_url_path),
        ]
    }
}

impl CorsConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        if self.allowed_origins.is_empty() && !self.allowed_headers.is_empty() {
            cx.warn(
                node.pos_of("allowed_headers"),
                "without allowed_origins, CORS is off and allowed_headers has no effect",
            );
        }
        if self.max_age < 0 {
            cx.error(node.pos_of("max_age"), "max_age must not be negative");
        }
    }
}

impl GrpcAuthConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        check_authenticator(&self.authenticator, node, cx);
    }
}

impl HttpAuthConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        check_authenticator(&self.authenticator, node, cx);
    }
}

fn check_authenticator(id: &ExtensionId, node: &Node, cx: &mut Cx) {
    // A block that was not written has no position and is not on.
    if id.is_empty() && !node.is_null() {
        cx.error_hint(
            node.pos,
            "\"authenticator\" is missing",
            "name an extension, such as basicauth/server",
        );
    }
}

fn check_listen(endpoint: &Endpoint, transport: Transport, node: &Node, cx: &mut Cx) {
    if endpoint.is_empty() {
        cx.error_hint(
            node.pos_of("endpoint"),
            "\"endpoint\" is empty",
            "write host:port, such as 0.0.0.0:4317",
        );
    } else if transport == Transport::Unix && endpoint.unix_path().is_none() {
        cx.error_hint(
            node.pos_of("endpoint"),
            format!("\"{endpoint}\" is not the path of a unix socket"),
            "write an absolute path, or leave out transport: unix",
        );
    } else if matches!(transport, Transport::Tcp4 | Transport::Tcp6) && endpoint.unix_path().is_some() {
        cx.error(node.pos_of("transport"), "the endpoint is a unix socket; write transport: unix");
    }
}

/// The path with its leading slash, or `None` if it cannot be a path.
fn normal_path(path: &str) -> Option<String> {
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let uri: http::Uri = path.parse().ok()?;
    (uri.path() == path).then_some(path)
}
