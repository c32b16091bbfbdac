//! What an endpoint to listen on resolves to.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::types::{Endpoint, Target};
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

/// The addresses to try. Two for a wildcard under `tcp`: IPv6 for both families first, IPv4 for hosts without it.
/// One otherwise.
pub(super) async fn resolve(endpoint: &Endpoint, transport: Transport) -> io::Result<Vec<SocketAddr>> {
    let Target::Tcp { host, port } = endpoint.target() else { return Ok(Vec::new()) };
    let both = [IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
    let literal = host.parse::<IpAddr>().ok();
    if host.is_empty() || literal.is_some_and(|ip| ip.is_unspecified()) {
        let fits = |ip: &IpAddr| fits(transport, *ip);
        return Ok(both.into_iter().filter(fits).map(|ip| SocketAddr::new(ip, *port)).collect());
    }
    let mut found: Vec<SocketAddr> = match literal {
        Some(ip) => vec![SocketAddr::new(ip, *port)],
        None => tokio::net::lookup_host((host.as_str(), *port)).await?.collect(),
    };
    found.retain(|a| fits(transport, a.ip()));
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

    #[tokio::test]
    async fn names_prefer_ipv4_and_wildcards_mean_both_families() {
        let resolve_text = async |transport, text: &str| {
            let endpoint = Endpoint::parse(text).unwrap();
            resolve(&endpoint, transport).await.unwrap().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(resolve_text(Transport::Tcp, "localhost:1").await, ["127.0.0.1:1"]);
        assert_eq!(resolve_text(Transport::Tcp, "0.0.0.0:1").await, ["[::]:1", "0.0.0.0:1"]);
        assert_eq!(resolve_text(Transport::Tcp, ":1").await, ["[::]:1", "0.0.0.0:1"]);
        assert_eq!(resolve_text(Transport::Tcp4, "[::]:1").await, ["0.0.0.0:1"]);
        assert_eq!(resolve_text(Transport::Tcp6, "0.0.0.0:1").await, ["[::]:1"]);
        assert!(resolve_text(Transport::Tcp6, "127.0.0.1:1").await.is_empty());
    }
}
