//! The host's name: what the kernel, the hosts file and DNS have.

use std::net::{IpAddr, SocketAddr};

use super::config::HostnameSource;

/// What the system's resolver is asked. Calls may block for as long as DNS takes.
pub(super) trait Names: Send + Sync {
    /// The canonical name of a host, and its addresses.
    fn host(&self, name: &str) -> Option<(Option<String>, Vec<IpAddr>)>;

    /// The name of an address.
    fn address(&self, address: IpAddr) -> Option<String>;
}

/// The system's resolver: hosts file, DNS, and whatever else it is set to.
pub(super) struct System;

impl Names for System {
    fn host(&self, name: &str) -> Option<(Option<String>, Vec<IpAddr>)> {
        let hints = dns_lookup::AddrInfoHints {
            flags: libc::AI_CANONNAME,
            socktype: libc::SOCK_STREAM,
            ..Default::default()
        };
        let found: Vec<_> = dns_lookup::getaddrinfo(Some(name), None, Some(hints)).ok()?.flatten().collect();
        let canonical = found.iter().find_map(|info| info.canonname.clone());
        Some((canonical, found.iter().map(|info| info.sockaddr.ip()).collect()))
    }

    fn address(&self, address: IpAddr) -> Option<String> {
        let socket = SocketAddr::new(address, 0);
        dns_lookup::getnameinfo(&socket, libc::NI_NAMEREQD).ok().map(|(name, _)| name)
    }
}

/// The host's name from one source. `own` is the kernel's.
pub(super) fn find(source: HostnameSource, own: Option<&str>, names: &dyn Names) -> Option<String> {
    let own = own?;
    if source == HostnameSource::Os || source == HostnameSource::Dns && own.contains('.') {
        return Some(own.to_owned());
    }
    let (canonical, addresses) = names.host(own)?;
    let canonical = canonical.and_then(trimmed);
    let mut reverse = addresses.iter().filter_map(|a| trimmed(names.address(*a)?));
    match source {
        HostnameSource::Os => None,
        HostnameSource::Cname => canonical,
        HostnameSource::Lookup => reverse.next(),
        HostnameSource::Dns => canonical.filter(|n| is_full(n)).or_else(|| reverse.find(|n| is_full(n))),
    }
}

/// Without the dot at the end that says that a name is complete.
fn trimmed(name: String) -> Option<String> {
    let name = name.trim_end_matches('.');
    (!name.is_empty()).then(|| name.to_owned())
}

/// Whether a name says where in the world its host is; every host is called `localhost` by itself.
fn is_full(name: &str) -> bool {
    name.contains('.') && !name.starts_with("localhost.")
}
