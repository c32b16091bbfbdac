//! The settings of a gRPC client.

use std::time::Duration;

use super::ClientAuthConfig;
use crate::config::types::{GrpcEndpoint, Headers, Optional, Unsupported};
use crate::config::{Cx, Node};
use crate::net::compress::Codec;
use crate::net::tls::TlsClientConfig;
use crate::{config, config_enum};

config_enum! {
    /// How gRPC messages are compressed.
    pub enum GrpcCompression {
        /// RFC 1952.
        Gzip = "gzip",
        /// Snappy.
        Snappy = "snappy",
        /// RFC 8878.
        Zstd = "zstd",
        /// Not at all.
        None = "none",
        /// Not at all.
        Empty = "",
    }
}

impl GrpcCompression {
    /// The codec, if there is one.
    pub fn codec(self) -> Option<Codec> {
        match self {
            GrpcCompression::Gzip => Some(Codec::Gzip),
            GrpcCompression::Snappy => Some(Codec::Snappy),
            GrpcCompression::Zstd => Some(Codec::Zstd),
            GrpcCompression::None | GrpcCompression::Empty => None,
        }
    }
}

config_enum! {
    /// Which of several addresses behind a name is used.
    pub enum Balancer {
        /// All of them, in turn.
        RoundRobin = "round_robin",
        /// The first that can be reached.
        PickFirst = "pick_first",
    }
}

config! {
    /// Pings that find out whether a connection is still alive.
    pub struct KeepaliveConfig {
        /// How long nothing may be heard before a ping is sent; at least 10s.
        pub time: Duration = Duration::from_secs(10),
        /// How long the answer may take before the connection is closed.
        pub timeout: Duration = Duration::from_secs(10),
        /// Whether to ping while no request is open.
        pub permit_without_stream: bool = false,
    }
}

config! {
    /// A gRPC client.
    pub struct GrpcClientConfig {
        /// Where to send: `host:port`, `dns:///host:port` or `unix:///path`. `https://` in front forces TLS.
        pub endpoint: GrpcEndpoint = GrpcEndpoint::default(),
        /// How messages are compressed.
        pub compression: GrpcCompression = GrpcCompression::Gzip,
        /// TLS, which is on unless `insecure: true` is written here.
        pub tls: TlsClientConfig = TlsClientConfig::default(),
        /// Pings on quiet connections. Off unless written.
        pub keepalive: Optional<KeepaliveConfig> = Optional::none(KeepaliveConfig::default()),
        /// Bytes read from the socket at a time. 0 leaves it to the connection.
        pub read_buffer_size: usize = 0,
        /// Bytes gathered before they are written to the socket. 0 writes each frame by itself.
        pub write_buffer_size: usize = 512 * 1024,
        /// Whether a request waits for a connection, up to its timeout, instead of failing while there is none.
        pub wait_for_ready: bool = false,
        /// Metadata sent with each request.
        pub headers: Headers = Headers::default(),
        /// The user agent.
        pub user_agent: String = String::new(),
        /// How requests are spread over the addresses behind the endpoint's name.
        pub balancer_name: Balancer = Balancer::RoundRobin,
        /// The `:authority` sent, instead of the endpoint's host and port.
        pub authority: String = String::new(),
        /// How requests are authenticated.
        pub auth: Optional<ClientAuthConfig> = Optional::none(ClientAuthConfig::default()),
        /// Not supported: no extension takes part in requests.
        pub middlewares: Unsupported = Unsupported,
    }
    validate = GrpcClientConfig::check;
}

/// Headers that HTTP/2 does not know; a request with one of them is refused before it is sent.
const CONNECTION_HEADERS: [&str; 5] =
    ["connection", "transfer-encoding", "upgrade", "keep-alive", "proxy-connection"];

impl GrpcClientConfig {
    /// What a struct that flattens this one must check of it.
    pub fn check(&self, node: &Node, cx: &mut Cx) {
        if !self.authority.is_empty() && self.authority.parse::<::http::uri::Authority>().is_err() {
            let pos = node.pos_of("authority");
            cx.within("authority", |cx| cx.error(pos, format!("\"{}\" is not an authority", self.authority)));
        }
        for (name, _) in self.headers.iter() {
            let name = name.as_str();
            if name.starts_with("grpc-") || CONNECTION_HEADERS.contains(&name) {
                let why = format!("\"{name}\" belongs to the protocol and cannot be sent as metadata");
                cx.within("headers", |cx| cx.error(node.pos_of("headers"), why));
            }
        }
        if ::http::HeaderValue::from_str(&self.user_agent).is_err() {
            let pos = node.pos_of("user_agent");
            cx.within("user_agent", |cx| cx.error(pos, "a user agent must be printable text"));
        }
    }

    /// Whether the connection is in plaintext, by the Collector's rules.
    pub fn plaintext(&self) -> bool {
        self.tls.grpc_plaintext(self.endpoint.as_str())
    }
}
