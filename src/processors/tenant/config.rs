//! What is written under `tenant:`, and what can be wrong with it.

use std::collections::BTreeMap;

use super::names;
use crate::components::{ClientFact, ComponentConfig};
use crate::config::types::{ByteSize, Regex};
use crate::config::{Config, Cx, Node, Schema, SchemaKind, Value, decode_word};
use crate::relabel::RelabelConfig;
use crate::{config, config_enum};

config_enum! {
    /// A name in a client's certificate.
    pub enum CertificateName {
        /// The common name of the subject.
        CommonName = "common_name",
        /// The organization of the subject.
        Organization = "organization",
        /// The organizational unit of the subject, the first if there are several.
        OrganizationalUnit = "organizational_unit",
        /// The first DNS name among the alternative names.
        DnsName = "dns_name",
        /// The first URI among the alternative names, such as a SPIFFE id; needs a `pattern`.
        Uri = "uri",
    }
}

#[allow(clippy::derivable_impls, reason = "the macro derives no default")]
impl Default for CertificateName {
    fn default() -> Self {
        CertificateName::CommonName
    }
}

impl CertificateName {
    pub(super) const ALL: [CertificateName; 5] = [
        CertificateName::CommonName,
        CertificateName::Organization,
        CertificateName::OrganizationalUnit,
        CertificateName::DnsName,
        CertificateName::Uri,
    ];
}

config_enum! {
    /// What becomes of telemetry over a limit.
    pub enum OnLimit {
        /// The sender hears that it may try again, and when.
        Refuse = "refuse",
        /// It is dropped and counted.
        Drop = "drop",
        /// It goes on, behind everything else that its destinations have to send.
        Demote = "demote",
    }
}

#[allow(clippy::derivable_impls, reason = "the macro derives no default")]
impl Default for OnLimit {
    fn default() -> Self {
        OnLimit::Refuse
    }
}

config! {
    /// Where a tenant's name may come from: one of `metadata`, `certificate`, `auth`, `attribute`, `relabel` and
    /// `value`, and how the name is made of what is found there.
    pub struct SourceConfig {
        /// A header of the request, such as `x-scope-orgid`; the receiver needs `include_metadata: true`. Several
        /// values that are not the same name nobody.
        pub metadata: Option<String> = None,
        /// A name in the client's TLS certificate: `common_name`, `organization`, `organizational_unit`, `dns_name` or
        /// `uri`. The receiver needs `client_ca_file`, which is what verifies it.
        pub certificate: Option<CertificateName> = None,
        /// What the receiver's authenticator said of the client, such as `username`.
        pub auth: Option<String> = None,
        /// An attribute: `resource.NAME`, `scope.NAME`, or a plain name for spans, log records and data points.
        /// Strings, integers and booleans.
        pub attribute: Option<String> = None,
        /// Prometheus' relabelling rules; the name is what they leave in `__tenant__`. The labels they get are
        /// `resource.NAME` for attributes of the resource and, with every character but letters and digits as `_`,
        /// `__metadata_NAME`, `__auth_NAME` and `__certificate_NAME` for what the other sources would find. Labels
        /// that are dropped name nobody.
        pub relabel: Vec<RelabelConfig> = Vec::new(),
        /// This name.
        pub value: Option<String> = None,
        /// Other names for some values. A value that is here is taken from here and nothing else is done with it.
        pub map: BTreeMap<String, String> = BTreeMap::new(),
        /// A regular expression that a value must match, anywhere unless anchored; one that it does not match names
        /// nobody.
        pub pattern: Option<Regex> = None,
        /// What a value that matches becomes; `$1` and `${name}` are the groups of `pattern`. Without it the first
        /// group, or the whole value if there is no group.
        pub replacement: Option<String> = None,
    }
    validate = SourceConfig::check;
}

config! {
    /// What a tenant may send. 0 is no limit.
    pub struct LimitConfig {
        /// Bytes of telemetry a second, as it is encoded in OTLP. Bursts of one second's worth pass.
        pub bytes_per_second: ByteSize = ByteSize(0),
        /// Spans, log records or data points a second. Bursts of one second's worth pass.
        pub items_per_second: u64 = 0,
        /// What becomes of requests over one of these rates: `refuse`, `drop` or `demote`.
        pub on_limit: OnLimit = OnLimit::Refuse,
        /// Metrics: how many series may have had a point in the last five minutes. Points of further series are
        /// dropped. A histogram is one.
        pub active_series: usize = 0,
        /// Logs: how many streams, which are resources and scopes with different attributes, may have had a record in
        /// the last five minutes. Records of further streams are dropped.
        pub active_streams: usize = 0,
        /// How much of each exporter's queue the tenant may fill: a part of 1.
        pub queue_share: f64 = 1.0,
    }
    validate = LimitConfig::check;
}

config! {
    /// What is different for one tenant. What is not written is as in `default`.
    pub struct OverrideConfig {
        /// See `default`.
        pub bytes_per_second: Option<ByteSize> = None,
        /// See `default`.
        pub items_per_second: Option<u64> = None,
        /// See `default`.
        pub on_limit: Option<OnLimit> = None,
        /// See `default`.
        pub active_series: Option<usize> = None,
        /// See `default`.
        pub active_streams: Option<usize> = None,
        /// See `default`.
        pub queue_share: Option<f64> = None,
    }
    validate = OverrideConfig::check;
}

config! {
    /// What tenants may send. Every pipeline that names the processor has limits of its own.
    pub struct LimitsConfig {
        /// For every tenant.
        pub default: LimitConfig = LimitConfig::default(),
        /// For some tenants, by name.
        pub overrides: BTreeMap<String, OverrideConfig> = BTreeMap::new(),
    }
    validate = LimitsConfig::check;
}

config! {
    /// Finds out whose telemetry it is. Requests of several tenants are split; what follows never mixes them again.
    pub struct TenantConfig {
        /// Where the name comes from; the first source that has one wins. Required.
        pub from: Vec<SourceConfig> = Vec::new(),
        /// What becomes of telemetry without a name: `{use: NAME}`, `drop` or `refuse`. Required.
        pub unresolved: Otherwise = Otherwise::Unset,
        /// The resource attribute to which the name is written as well.
        pub attribute: Option<String> = None,
        /// How many tenants are known at a time, beside those that this configuration names. One that sends nothing for
        /// an hour is forgotten.
        pub max_tenants: usize = 1000,
        /// What becomes of telemetry of further tenants: `{use: NAME}`, `drop` or `refuse`.
        pub overflow: Otherwise = Otherwise::Use("overflow".to_owned()),
        /// What tenants may send.
        pub limits: LimitsConfig = LimitsConfig::default(),
    }
    hints {
        "default" => "write unresolved: {use: NAME}",
        "sources" => "write from: with a list of sources",
    }
    validate = TenantConfig::check;
}

/// What is done where there is no tenant to use: `{use: NAME}`, `drop` or `refuse`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Otherwise {
    /// Not written.
    Unset,
    /// This tenant.
    Use(String),
    /// Drop it, counted.
    Drop,
    /// Refuse the request.
    Refuse,
}

impl ComponentConfig for TenantConfig {
    fn asks_of_clients(&self) -> Vec<(String, ClientFact)> {
        let ask = |(at, source): (usize, &SourceConfig)| {
            let (key, fact) = match source {
                SourceConfig { metadata: Some(key), .. } => ("metadata", ClientFact::Metadata(key.clone())),
                SourceConfig { certificate: Some(_), .. } => ("certificate", ClientFact::Certificate),
                SourceConfig { auth: Some(_), .. } => ("auth", ClientFact::Auth),
                _ => return None,
            };
            Some((format!("from::{at}::{key}"), fact))
        };
        self.from.iter().enumerate().filter_map(ask).collect()
    }
}

impl Config for Otherwise {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        match &node.value {
            Value::Null => {}
            Value::Map(entries) if entries.iter().all(|(key, _)| key.text == "use") => {
                let Some(name) = node.get("use") else {
                    return cx.error(node.pos, "expected {use: NAME}, \"drop\" or \"refuse\"");
                };
                let mut text = String::new();
                cx.within("use", |cx| {
                    text.decode_into(name, cx);
                    valid(&text, name, cx);
                });
                *self = Otherwise::Use(text);
            }
            Value::Str(_) => {
                if let Some(refuse) = decode_word(node, &[("drop", false), ("refuse", true)], false, cx) {
                    *self = if refuse { Otherwise::Refuse } else { Otherwise::Drop };
                }
            }
            _ => cx.error(node.pos, "expected {use: NAME}, \"drop\" or \"refuse\""),
        }
    }

    fn schema() -> Schema {
        Schema { name: "{use: NAME}, drop or refuse", kind: SchemaKind::Any }
    }

    fn to_json(&self) -> serde_json::Value {
        match self {
            Otherwise::Unset => serde_json::Value::Null,
            Otherwise::Use(name) => serde_json::json!({ "use": name }),
            Otherwise::Drop => "drop".into(),
            Otherwise::Refuse => "refuse".into(),
        }
    }
}

impl SourceConfig {
    /// The attribute of the resource that it looks at.
    pub fn resource_attribute(&self) -> Option<&str> {
        match level_of(self.attribute.as_deref()?) {
            (Some('r'), name) => Some(name),
            _ => None,
        }
    }

    fn check(&self, node: &Node, cx: &mut Cx) {
        let written = |key: &str| node.get(key).is_some_and(|n| !n.is_null());
        const KINDS: [&str; 6] = ["metadata", "certificate", "auth", "attribute", "relabel", "value"];
        let kinds: Vec<&str> = KINDS.into_iter().filter(|key| written(key)).collect();
        match kinds.as_slice() {
            [_] => {}
            [] => cx.error_hint(
                node.pos,
                "a source needs to say where the name comes from",
                format!("write one of {}", KINDS.join(", ")),
            ),
            [_, second, ..] => cx.error_hint(
                node.pos_of(second),
                format!("a source is one of {}", kinds.join(", ")),
                "make it two sources, the one to be asked first before the other",
            ),
        }
        let named = [("metadata", &self.metadata), ("auth", &self.auth), ("attribute", &self.attribute)];
        for (key, name) in named {
            let name = name.as_deref().unwrap_or("-");
            let name = if key == "attribute" { level_of(name).1 } else { name };
            if name.is_empty() {
                cx.within(key, |cx| cx.error(node.pos_of(key), format!("'{key}' has no name")));
            }
        }
        if let (Some(value), Some(at)) = (&self.value, node.get("value")) {
            cx.within("value", |cx| valid(value, at, cx));
            for key in ["map", "pattern", "replacement"] {
                if written(key) {
                    cx.within(key, |cx| cx.error(node.pos_of(key), format!("a 'value' takes no '{key}'")));
                }
            }
        }
        for (key, name) in &self.map {
            if let Some(at) = node.get("map").and_then(|map| map.get(key)) {
                cx.within("map", |cx| cx.within(key, |cx| valid(name, at, cx)));
            }
        }
        if self.replacement.is_some() && self.pattern.is_none() && !written("pattern") {
            cx.within("replacement", |cx| {
                cx.error_hint(
                    node.pos_of("replacement"),
                    "a 'replacement' needs a 'pattern'",
                    "write the expression whose groups it refers to",
                );
            });
        }
    }
}

impl LimitConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        share(self.queue_share, node, cx);
    }
}

impl OverrideConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        share(self.queue_share.unwrap_or(1.0), node, cx);
    }

    /// The limits of a tenant with these differences.
    pub(super) fn over(&self, default: &LimitConfig) -> LimitConfig {
        LimitConfig {
            bytes_per_second: self.bytes_per_second.unwrap_or(default.bytes_per_second),
            items_per_second: self.items_per_second.unwrap_or(default.items_per_second),
            on_limit: self.on_limit.unwrap_or(default.on_limit),
            active_series: self.active_series.unwrap_or(default.active_series),
            active_streams: self.active_streams.unwrap_or(default.active_streams),
            queue_share: self.queue_share.unwrap_or(default.queue_share),
        }
    }
}

impl LimitsConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        let Some((_, overrides)) = node.entry("overrides") else { return };
        let Value::Map(entries) = &overrides.value else { return };
        for (key, _) in entries {
            if let Err(why) = names::check(&key.text) {
                let message = format!("no tenant can be called \"{}\": {why}", key.text);
                cx.within("overrides", |cx| cx.within(&key.text, |cx| cx.error(key.pos, message)));
            }
        }
    }
}

impl TenantConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        if self.from.is_empty() {
            cx.error_hint(
                node.pos_of("from"),
                "missing required field \"from\"",
                "list at least one source, such as {metadata: x-scope-orgid}",
            );
        }
        if self.unresolved == Otherwise::Unset {
            cx.error_hint(
                node.pos_of("unresolved"),
                "missing required field \"unresolved\"",
                "say what becomes of telemetry without a tenant: {use: NAME}, drop or refuse",
            );
        }
        if self.max_tenants == 0 {
            cx.within("max_tenants", |cx| {
                cx.error(node.pos_of("max_tenants"), "'max_tenants' must be at least 1")
            });
        }
        if self.attribute.as_deref() == Some("") {
            cx.within("attribute", |cx| cx.error(node.pos_of("attribute"), "'attribute' has no name"));
        }
        let last = self.from.iter().position(|source| source.value.is_some());
        let behind = last.map(|at| at + 1).filter(|at| *at < self.from.len());
        if let (Some(at), Some(Value::Seq(sources))) = (behind, node.get("from").map(|n| &n.value)) {
            let pos = sources.get(at).map_or(node.pos, |n| n.pos);
            cx.within("from", |cx| {
                cx.within(&at.to_string(), |cx| {
                    cx.warn(pos, "never asked: the 'value' before it always has a name");
                })
            });
        }
    }
}

/// Where an attribute stands: `Some('r')` for the resource, `Some('s')` for the scope, and its name.
pub(super) fn level_of(attribute: &str) -> (Option<char>, &str) {
    if let Some(name) = attribute.strip_prefix("resource.") {
        return (Some('r'), name);
    }
    match attribute.strip_prefix("scope.") {
        Some(name) => (Some('s'), name),
        None => (None, attribute),
    }
}

fn valid(name: &str, node: &Node, cx: &mut Cx) {
    if let Err(why) = names::check(name) {
        cx.error(node.pos, format!("no tenant can be called \"{name}\": {why}"));
    }
}

fn share(share: f64, node: &Node, cx: &mut Cx) {
    if !(share > 0.0 && share <= 1.0) {
        let message = "'queue_share' must be above 0 and at most 1";
        cx.within("queue_share", |cx| cx.error(node.pos_of("queue_share"), message));
    }
}
