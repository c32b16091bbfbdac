//! `host:port`, `unix:///path` and what they resolve to.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use crate::config_enum;

config_enum! {
    /// The network of a server's `endpoint`.
    pub enum Transport {
        /// TCP over IPv4 and IPv6.
        Tcp = "tcp",
        /// TCP over IPv4 alone.
        Tcp4 = "tcp4",
        /// TCP over IPv6 alone.
        Tcp6 = "tcp6",
        /// A unix socket; the endpoint is its path.
        Unix = "unix",
    }
}

impl Default for Transport {
    fn default() -> Self {
        Transport::Tcp
    }
}

/// A place to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A TCP port.
    Tcp {
        /// Name or address; empty for every address.
        host: String,
        /// The port; 0 for one that the kernel chooses.
        port: u16,
        /// Which address families.
        transport: Transport,
    },
    /// A unix socket.
    Unix(PathBuf),
}

impl Endpoint {
    /// Reads a server's `endpoint` under its `transport`. `unix:///path` and `unix:/path` mean a unix socket
    /// whatever the transport says.
    ///
    /// # Errors
    /// One sentence for the user.
    pub fn parse(transport: Transport, text: &str) -> Result<Endpoint, String> {
        let path = match text.strip_prefix("unix:") {
            Some(path) => Some(path.strip_prefix("//").unwrap_or(path)),
            None => (transport == Transport::Unix).then_some(text),
        };
        if let Some(path) = path {
            if path.is_empty() {
                return Err("unix socket path cannot be empty".to_owned());
            }
            // The kernel's field has 108 bytes, the last of them zero.
            if path.len() > 107 {
                return Err(format!("the unix socket path \"{path}\" is longer than 107 bytes"));
            }
            return Ok(Endpoint::Unix(PathBuf::from(path)));
        }
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(format!("an endpoint to listen on has no scheme: remove \"{scheme}://\""));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(format!("missing port in address \"{text}\""));
        };
        let host = match host.strip_prefix('[').map(|h| h.strip_suffix(']')) {
            Some(Some(bare)) => bare,
            Some(None) => return Err(format!("missing ']' in address \"{text}\"")),
            None if host.contains(':') => {
                return Err(format!(
                    "too many colons in address \"{text}\": write an IPv6 address in brackets"
                ));
            }
            None => host,
        };
        let port = port.parse().map_err(|_| format!("invalid port \"{port}\" in address \"{text}\""))?;
        Ok(Endpoint::Tcp { host: host.to_owned(), port, transport })
    }
}

/// As [`ComponentConfig::listens`](crate::components::ComponentConfig::listens) wants it: `host:port` or
/// `unix:/path`.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp { host, port, .. } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Endpoint::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The addresses to try. Two for a wildcard under `tcp`: IPv6 for both families first, IPv4 for hosts without it.
/// One otherwise.
pub(super) async fn resolve(endpoint: &Endpoint) -> io::Result<Vec<SocketAddr>> {
    let Endpoint::Tcp { host, port, transport } = endpoint else { return Ok(Vec::new()) };
    let both = [IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
    let literal = host.parse::<IpAddr>().ok();
    if host.is_empty() || literal.is_some_and(|ip| ip.is_unspecified()) {
        let fits = |ip: &IpAddr| fits(*transport, *ip);
        return Ok(both.into_iter().filter(fits).map(|ip| SocketAddr::new(ip, *port)).collect());
    }
    let mut found: Vec<SocketAddr> = match literal {
        Some(ip) => vec![SocketAddr::new(ip, *port)],
        None => tokio::net::lookup_host((host.as_str(), *port)).await?.collect(),
    };
    found.retain(|a| fits(*transport, a.ip()));
    found.sort_by_key(SocketAddr::is_ipv6);
    found.truncate(1);
    Ok(found)
}

fn fits(transport: Transport, ip: IpAddr) -> bool {
    match transport {
        Transport::Tcp4 => ip.is_ipv4(),
        Transport::Tcp6 => ip.is_ipv6(),
        Transport::Tcp | Transport::Unix => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_as_written() {
        use Transport::{Tcp, Tcp4, Unix};
        let cases = [
            (Tcp, "localhost:4317", Ok("localhost:4317")),
            (Tcp, ":4317", Ok(":4317")),
            (Tcp4, "0.0.0.0:0", Ok("0.0.0.0:0")),
            (Tcp, "[::1]:4317", Ok("[::1]:4317")),
            (Tcp, "unix:///run/a.sock", Ok("unix:/run/a.sock")),
            (Tcp, "unix:/run/a.sock", Ok("unix:/run/a.sock")),
            (Unix, "run/a.sock", Ok("unix:run/a.sock")),
            (Tcp, "localhost", Err("missing port")),
            (Tcp, "localhost:otlp", Err("invalid port \"otlp\"")),
            (Tcp, "localhost:65536", Err("invalid port")),
            (Tcp, "::1:4317", Err("in brackets")),
            (Tcp, "[::1:4317", Err("missing ']'")),
            (Tcp, "http://localhost:4318", Err("remove \"http://\"")),
            (Unix, "", Err("cannot be empty")),
            (Tcp, "unix://", Err("cannot be empty")),
        ];
        for (transport, text, want) in cases {
            match (Endpoint::parse(transport, text), want) {
                (Ok(got), Ok(want)) => assert_eq!(got.to_string(), want),
                (Err(got), Err(want)) => assert!(got.contains(want), "{text}: {got}"),
                (got, want) => panic!("{text}: {got:?}, expected {want:?}"),
            }
        }
    }

    #[tokio::test]
    async fn names_prefer_ipv4_and_wildcards_mean_both_families() {
        let resolve_text = async |transport, text: &str| {
            let endpoint = Endpoint::parse(transport, text).unwrap();
            resolve(&endpoint).await.unwrap().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(resolve_text(Transport::Tcp, "localhost:1").await, ["127.0.0.1:1"]);
        assert_eq!(resolve_text(Transport::Tcp, "0.0.0.0:1").await, ["[::]:1", "0.0.0.0:1"]);
        assert_eq!(resolve_text(Transport::Tcp, ":1").await, ["[::]:1", "0.0.0.0:1"]);
        assert_eq!(resolve_text(Transport::Tcp4, "[::]:1").await, ["0.0.0.0:1"]);
        assert_eq!(resolve_text(Transport::Tcp6, "0.0.0.0:1").await, ["[::]:1"]);
        assert!(resolve_text(Transport::Tcp6, "127.0.0.1:1").await.is_empty());
    }
}
