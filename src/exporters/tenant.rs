//! How a destination is told whose data a request carries: one header, named in the exporter's `tenant` block.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::delivery::Outcome;
use crate::config;
use crate::config::types::Headers;
use crate::config::{Cx, Node};
use crate::pdata::Tenant;

/// What HTTP and gRPC say themselves: a tenant's name in its place would break the request.
const RESERVED: [&str; 12] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

config! {
    /// How the destination is told whose data a request carries.
    pub struct TenantConfig {
        /// The header (with gRPC the metadata key) that carries the name of the tenant, for data that has one. Empty:
        /// none is sent. A header of this name in the exporter's own `headers` goes before it.
        pub header: String = "X-Scope-OrgID".to_owned(),
    }
    validate = TenantConfig::check;
}

impl TenantConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        if let Err(why) = check_header(&self.header) {
            cx.within("header", |cx| cx.error(node.pos_of("header"), why));
        }
    }
}

/// Whether a tenant's name can be sent in the header of this name; the empty one is none.
///
/// # Errors
/// Why it cannot.
pub(super) fn check_header(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Ok(());
    }
    let Ok(header) = HeaderName::try_from(name) else {
        return Err(format!("\"{name}\" is not a header name"));
    };
    let header = header.as_str();
    if RESERVED.contains(&header) || header.starts_with("grpc-") {
        return Err(format!("\"{name}\" has a meaning of its own in HTTP or gRPC"));
    }
    if header.ends_with("-bin") {
        return Err(format!("\"{name}\" is for binary values in gRPC; a tenant's name is text"));
    }
    Ok(())
}

/// The header of one exporter, ready to be added to requests.
#[derive(Debug, Clone, Default)]
pub(super) struct TenantHeader(Option<HeaderName>);

impl TenantHeader {
    /// The header that `config` names, unless the user has written one of that name.
    pub fn new(config: &TenantConfig, written: &Headers) -> Self {
        let name = HeaderName::try_from(config.header.as_str()).ok();
        TenantHeader(name.filter(|name| written.iter().all(|(own, _)| own != name)))
    }

    /// Adds it for a batch that has a tenant.
    ///
    /// # Errors
    /// The name cannot be a header's value: nothing may be sent, as it would be taken for somebody else's.
    pub fn add(&self, tenant: Option<&Tenant>, headers: &mut HeaderMap) -> Result<(), Outcome> {
        if let (Some(name), Some(tenant)) = (&self.0, tenant) {
            let value = HeaderValue::try_from(tenant.name()).map_err(|_| {
                Outcome::rejected(format!("the tenant {:?} cannot be named in a header", tenant.name()))
            })?;
            headers.insert(name.clone(), value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_checked() {
        for good in ["", "X-Scope-OrgID", "x-tenant", "THANOS-TENANT"] {
            assert_eq!(check_header(good), Ok(()), "{good}");
        }
        for bad in ["x tenant", "Content-Type", "grpc-timeout", "te", "tenant-bin", ":path", "ü"] {
            assert!(check_header(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_tenant_is_named_once_and_never_left_out() {
        let none = Headers::default();
        let mut own = Headers::default();
        assert!(own.insert("x-scope-orgid", "fixed"));
        let (team, odd) = (Tenant::new("team-a"), Tenant::new("a\nb"));
        let standard = || TenantConfig::default();
        let empty = TenantConfig { header: String::new() };
        // (config, the user's headers, tenant, what is sent; `None` for a refusal)
        let cases = [
            (standard(), &none, Some(&team), Some(vec!["team-a"])),
            (standard(), &none, None, Some(vec![])),
            (standard(), &none, Some(&odd), None),
            (standard(), &own, Some(&team), Some(vec!["fixed"])),
            (standard(), &own, Some(&odd), Some(vec!["fixed"])),
            (empty, &none, Some(&team), Some(vec![])),
        ];
        for (config, written, tenant, want) in cases {
            let mut headers = written.to_map();
            let added = TenantHeader::new(&config, written).add(tenant, &mut headers);
            let sent: Vec<&str> =
                headers.get_all("x-scope-orgid").iter().map(|v| v.to_str().unwrap()).collect();
            assert_eq!(added.is_ok().then_some(sent), want, "{config:?} {tenant:?}");
        }
    }
}
