//! Addresses: what a server listens on, what a gRPC client dials, the URL an HTTP client asks.
//!
//! Each is parsed once, when the file is read, so that a wrong address is an error with a place in the file and
//! never one at run time. The text the user wrote is kept for logs and for `print-config`.

use std::fmt;
use std::path::{Path, PathBuf};

use super::super::node::Node;
use super::super::{Config, Cx, Schema, SchemaKind, text_of};

/// What a server listens on: `host:port` (IPv6 in brackets, an empty host means all addresses) or a unix
/// socket, written `unix:///path` or, with `transport: unix`, as a bare absolute path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoint {
    text: String,
    target: Target,
}

/// Where an [`Endpoint`] or a [`GrpcEndpoint`] leads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Target {
    /// Nothing was written.
    #[default]
    None,
    /// A TCP address.
    Tcp {
        /// A name or an address, IPv6 without brackets; empty for all addresses.
        host: String,
        /// The port.
        port: u16,
    },
    /// A unix socket.
    Unix(PathBuf),
}

impl Endpoint {
    /// Parses an address.
    ///
    /// # Errors
    /// One sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let target = match text {
            "" => Target::None,
            _ => match unix_path(text)? {
                Some(path) => Target::Unix(path),
                None if text.starts_with('/') => Target::Unix(PathBuf::from(text)),
                None if text.contains("://") => {
                    return Err(format!("\"{text}\" is a URL; a server takes host:port or unix:///path"));
                }
                None => host_port(text)?,
            },
        };
        Ok(Endpoint { text: text.to_owned(), target })
    }

    /// A default known at compile time to be right; wrong text gives an empty endpoint.
    pub fn of(text: &'static str) -> Self {
        Self::parse(text).unwrap_or_default()
    }

    /// The text as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Where it leads.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.target == Target::None
    }

    /// `host:port` as the resolver takes it (an empty host becomes `0.0.0.0`), for TCP.
    pub fn socket_text(&self) -> Option<String> {
        match &self.target {
            Target::Tcp { host, port } if host.is_empty() => Some(format!("0.0.0.0:{port}")),
            Target::Tcp { host, port } => Some(join(host, *port)),
            _ => None,
        }
    }

    /// The socket's path, for unix sockets.
    pub fn unix_path(&self) -> Option<&Path> {
        match &self.target {
            Target::Unix(path) => Some(path),
            _ => None,
        }
    }

    /// The form [`ComponentConfig::listens`](crate::components::ComponentConfig::listens) wants: `host:port` or
    /// `unix:/path`; `None` when nothing was written.
    pub fn listen_text(&self) -> Option<String> {
        match &self.target {
            Target::None => None,
            Target::Tcp { .. } => self.socket_text(),
            Target::Unix(path) => Some(format!("unix:{}", path.display())),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Config for Endpoint {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        decode_text(self, node, cx, Endpoint::parse, "write host:port, such as 0.0.0.0:4317");
    }

    fn schema() -> Schema {
        Schema { name: "endpoint", kind: SchemaKind::Text("host:port, [ipv6]:port or unix:///path") }
    }

    fn to_json(&self) -> serde_json::Value {
        self.text.as_str().into()
    }
}

/// What a gRPC client dials: `host:port`, `dns:///host:port`, `unix:///path`. `http://` and `https://` in front
/// are taken off; `https://` forces TLS, `http://` changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GrpcEndpoint {
    text: String,
    target: Target,
    https: bool,
}

impl GrpcEndpoint {
    /// Parses a target.
    ///
    /// # Errors
    /// One sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let https = text.starts_with("https://");
        let bare = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
        let target = match text {
            "" => Target::None,
            _ => match unix_path(bare)? {
                Some(path) => Target::Unix(path),
                None => {
                    // `dns://authority/host:port` names a DNS server, which we do not ask.
                    let address = match bare.strip_prefix("dns:") {
                        Some(rest) => match rest.strip_prefix("//") {
                            Some(rest) => rest.strip_prefix('/').ok_or_else(|| {
                                format!("\"{text}\" names a DNS server, which is not supported; write dns:///host:port")
                            })?,
                            None => rest,
                        },
                        None => match bare.strip_prefix("passthrough:///") {
                            Some(rest) => rest,
                            None if bare.contains("://") => {
                                return Err(format!("\"{text}\" has an unsupported scheme"));
                            }
                            None => bare,
                        },
                    };
                    let address = address.strip_suffix('/').unwrap_or(address);
                    let target = host_port(address)?;
                    if matches!(&target, Target::Tcp { host, .. } if host.is_empty()) {
                        return Err(format!("\"{text}\" has no host"));
                    }
                    target
                }
            },
        };
        Ok(GrpcEndpoint { text: text.to_owned(), target, https })
    }

    /// The text as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Where it leads.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.target == Target::None
    }

    /// Whether `https://` was written, which forces TLS even with `insecure: true`.
    pub fn forces_tls(&self) -> bool {
        self.https
    }

    /// `host:port` with IPv6 in brackets, for TCP: also the default `:authority`.
    pub fn authority(&self) -> Option<String> {
        match &self.target {
            Target::Tcp { host, port } => Some(join(host, *port)),
            _ => None,
        }
    }
}

impl fmt::Display for GrpcEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Config for GrpcEndpoint {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        decode_text(self, node, cx, GrpcEndpoint::parse, "write host:port, such as collector:4317");
    }

    fn schema() -> Schema {
        Schema {
            name: "grpc_endpoint",
            kind: SchemaKind::Text("host:port, dns:///host:port or unix:///path"),
        }
    }

    fn to_json(&self) -> serde_json::Value {
        self.text.as_str().into()
    }
}

/// The URL an HTTP client asks: `http` or `https`, a host, perhaps a port, a path and a query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpUrl {
    text: String,
    uri: Option<http::Uri>,
}

impl HttpUrl {
    /// Parses a URL.
    ///
    /// # Errors
    /// One sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(HttpUrl::default());
        }
        if !text.contains("://") {
            return Err(format!("\"{text}\" is not a URL: it must start with http:// or https://"));
        }
        let uri: http::Uri = text.parse().map_err(|why| format!("\"{text}\" is not a URL: {why}"))?;
        match uri.scheme_str() {
            Some("http" | "https") => {}
            scheme => return Err(format!("\"{}\" is not a supported scheme", scheme.unwrap_or_default())),
        }
        if uri.host().is_none_or(str::is_empty) {
            return Err(format!("\"{text}\" has no host"));
        }
        // `http` reads a port that is no 16-bit number as none.
        if let Some(authority) = uri.authority() {
            let after = authority.as_str().rsplit('@').next().unwrap_or_default();
            let tail = after.rsplit(']').next().unwrap_or(after);
            if let Some((_, port)) = tail.split_once(':') {
                parse_port(port)?;
            }
        }
        Ok(HttpUrl { text: text.to_owned(), uri: Some(uri) })
    }

    /// The text as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The parsed URL, unless nothing was written.
    pub fn uri(&self) -> Option<&http::Uri> {
        self.uri.as_ref()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.uri.is_none()
    }

    /// The text with `path` behind it, one slash between: how `otlp_http` finds `/v1/traces` under `endpoint`.
    pub fn join(&self, path: &str) -> String {
        format!("{}/{}", self.text.trim_end_matches('/'), path.trim_start_matches('/'))
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Config for HttpUrl {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        decode_text(self, node, cx, HttpUrl::parse, "write a URL, such as https://host:4318");
    }

    fn schema() -> Schema {
        Schema { name: "url", kind: SchemaKind::Text("an http:// or https:// URL") }
    }

    fn to_json(&self) -> serde_json::Value {
        self.text.as_str().into()
    }
}

/// Decodes text through `parse`; what is wrong with it is an error at the value.
pub(super) fn decode_text<T>(
    target: &mut T,
    node: &Node,
    cx: &mut Cx,
    parse: impl Fn(&str) -> Result<T, String>,
    hint: &str,
) {
    if let Some(text) = text_of(node, cx) {
        match parse(text) {
            Ok(value) => *target = value,
            Err(why) => cx.error_hint(node.pos, why, hint),
        }
    }
}

/// The path behind `unix:`, `unix://` or `unix:///`.
fn unix_path(text: &str) -> Result<Option<PathBuf>, String> {
    let Some(rest) = text.strip_prefix("unix:") else { return Ok(None) };
    let path = rest.strip_prefix("//").unwrap_or(rest);
    if path.is_empty() || path == "/" {
        return Err("unix socket path cannot be empty".to_owned());
    }
    Ok(Some(PathBuf::from(path)))
}

fn host_port(text: &str) -> Result<Target, String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, tail) = rest.split_once(']').ok_or_else(|| format!("\"{text}\" lacks a \"]\""))?;
            let bare = host.split('%').next().unwrap_or(host);
            if bare.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(format!("\"{host}\" is not an IPv6 address"));
            }
            let port = tail.strip_prefix(':').ok_or_else(|| format!("\"{text}\" has no port"))?;
            (host, port)
        }
        None => {
            let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("\"{text}\" has no port"))?;
            if host.contains(':') {
                return Err(format!("\"{text}\" has too many colons; write an IPv6 address in brackets"));
            }
            (host, port)
        }
    };
    if let Some(bad) = host.chars().find(|c| c.is_whitespace() || c.is_control() || "/?#@\"\\<>".contains(*c))
    {
        return Err(format!("{bad:?} cannot be part of a host name in \"{text}\""));
    }
    Ok(Target::Tcp { host: host.to_owned(), port: parse_port(port)? })
}

fn parse_port(text: &str) -> Result<u16, String> {
    // `parse` takes a sign; a port has none.
    match text.parse::<u16>() {
        Ok(port) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
        _ => Err(format!("invalid port \"{text}\"")),
    }
}

fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_addresses() {
        for (text, socket) in [
            ("localhost:4317", "localhost:4317"),
            ("0.0.0.0:4317", "0.0.0.0:4317"),
            (":4317", "0.0.0.0:4317"),
            ("[::]:4317", "[::]:4317"),
            ("[fe80::1%eth0]:1", "[fe80::1%eth0]:1"),
            ("host:0", "host:0"),
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!(endpoint.socket_text().as_deref(), Some(socket), "{text}");
            assert_eq!(endpoint.as_str(), text);
        }
        for text in ["unix:///run/a.sock", "unix:/run/a.sock", "/run/a.sock"] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!(endpoint.listen_text().as_deref(), Some("unix:/run/a.sock"), "{text}");
        }
        assert!(Endpoint::parse("").unwrap().is_empty());
    }

    #[test]
    fn wrong_server_addresses() {
        for (text, why) in [
            ("localhost", "\"localhost\" has no port"),
            ("localhost:", "invalid port \"\""),
            ("localhost:http", "invalid port \"http\""),
            ("localhost:+1", "invalid port \"+1\""),
            ("localhost:65536", "invalid port \"65536\""),
            ("::1:4317", "\"::1:4317\" has too many colons; write an IPv6 address in brackets"),
            ("[::1]", "\"[::1]\" has no port"),
            ("[::1:4317", "\"[::1:4317\" lacks a \"]\""),
            ("[x]:1", "\"x\" is not an IPv6 address"),
            ("a b:1", "' ' cannot be part of a host name in \"a b:1\""),
            ("http://a:1", "\"http://a:1\" is a URL; a server takes host:port or unix:///path"),
            ("unix://", "unix socket path cannot be empty"),
        ] {
            assert_eq!(Endpoint::parse(text).unwrap_err(), why);
        }
    }

    #[test]
    fn grpc_targets() {
        for (text, authority, tls) in [
            ("tempo:4317", "tempo:4317", false),
            ("http://tempo:4317", "tempo:4317", false),
            ("https://tempo:4317", "tempo:4317", true),
            ("https://tempo:4317/", "tempo:4317", true),
            ("dns:///tempo:4317", "tempo:4317", false),
            ("dns:tempo:4317", "tempo:4317", false),
            ("passthrough:///tempo:4317", "tempo:4317", false),
            ("[::1]:4317", "[::1]:4317", false),
        ] {
            let endpoint = GrpcEndpoint::parse(text).unwrap();
            assert_eq!(endpoint.authority().as_deref(), Some(authority), "{text}");
            assert_eq!(endpoint.forces_tls(), tls, "{text}");
        }
        let unix = GrpcEndpoint::parse("unix:///run/a.sock").unwrap();
        assert_eq!(unix.target(), &Target::Unix("/run/a.sock".into()));
        assert!(GrpcEndpoint::parse("").unwrap().is_empty());
        for text in ["tempo", ":4317", "tempo:grpc", "xds:///a:1", "dns://8.8.8.8/a:1", "unix://", "https://"]
        {
            assert!(GrpcEndpoint::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn urls() {
        let url = HttpUrl::parse("https://mimir.example:9009/api/?a=b").unwrap();
        assert_eq!(url.uri().unwrap().host(), Some("mimir.example"));
        assert_eq!(HttpUrl::parse("http://a:1/").unwrap().join("/v1/traces"), "http://a:1/v1/traces");
        assert_eq!(HttpUrl::parse("http://[::1]:4318").unwrap().uri().unwrap().port_u16(), Some(4318));
        for text in
            ["a:4318", "ftp://a", "http://", "http:///x", "http://a:99999", "http://a b", "http://u:p@h:x"]
        {
            assert!(HttpUrl::parse(text).is_err(), "{text}");
        }
    }
}
