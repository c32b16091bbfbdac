//! Loki: OTLP logs as push requests, from the bytes.
//!
//! A record's stream is recognised by a hash of the raw bytes that decide its labels (resource, scope, chosen
//! attributes) and its finished labels are found in a cache; what is not known takes the long way through
//! [`resolve`], which is the specification. What is no label becomes structured metadata, as Loki's own OTLP endpoint
//! would have it.
//!
//! Promises:
//! * all entries of a stream are on one shard, in the order in which they came, and in a request ordered by time;
//! * a request holds one tenant's data and no more bytes than allowed, unless a single entry has more;
//! * whatever would make Loki refuse an entry is changed as configured and counted, or the record is dropped;
//! * every record is one item: sent, or dropped for a reason;
//! * caches have a cap; what one batch brings may pass it until the next batch.
//!
//! Costs, a record of a known stream: one pass over its fields and attributes, a look-up for each attribute's name,
//! two copies of its bytes, no allocation.

mod body;
mod cache;
mod change;
mod encoder;
mod entry;
mod labels;
mod line;
mod metadata;
mod names;
mod open;
mod resolve;
mod sources;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

pub use self::body::LokiBody;
pub use self::change::Change;
pub use self::encoder::LokiEncoder;
pub use self::labels::{parse_labels, put_labels};
pub(crate) use self::resolve::cut;
pub use self::sources::LabelSource;
use crate::relabel::Rule;

/// The resource attributes that are labels by default, the most telling first: those that Loki's own endpoint takes,
/// without two that its documentation advises against.
pub const DEFAULT_LABELS: [&str; 16] = [
    "service.name",
    "service.namespace",
    "k8s.namespace.name",
    "k8s.cluster.name",
    "deployment.environment.name",
    "deployment.environment",
    "k8s.container.name",
    "container.name",
    "k8s.deployment.name",
    "k8s.statefulset.name",
    "k8s.daemonset.name",
    "k8s.cronjob.name",
    "k8s.job.name",
    "cloud.region",
    "cloud.availability_zone",
    "k8s.replicaset.name",
];

/// The form of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Protobuf in a snappy block.
    Protobuf,
    /// JSON, compressed with gzip or not.
    Json {
        /// Whether it is.
        gzip: bool,
    },
}

/// What the line of an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The body alone.
    Raw,
    /// A JSON object.
    Json,
    /// Pairs of `key=value`.
    Logfmt,
}

/// What becomes of a label that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// It becomes structured metadata.
    Demote,
    /// The end of its value is cut off.
    Truncate,
    /// It is left out.
    Drop,
}

/// What Loki takes, and what becomes of what it does not.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a line.
    pub line: usize,
    /// Whether longer lines are cut; otherwise their records are dropped.
    pub cut_lines: bool,
    /// Labels of a stream, `service_name` not counted.
    pub labels: usize,
    /// What becomes of more.
    pub many_labels: Unfit,
    /// Bytes of a label's name.
    pub label_name: usize,
    /// Bytes of a label's value.
    pub label_value: usize,
    /// What becomes of a label with a longer one.
    pub long_label: Unfit,
    /// Bytes of names and values of an entry's metadata.
    pub metadata_bytes: usize,
    /// Names in an entry's metadata.
    pub metadata_count: usize,
    /// Whether what is more is left out; otherwise the record is dropped.
    pub trim_metadata: bool,
    /// Records older than this are dropped; zero is never.
    pub max_age: Duration,
    /// Streams of a tenant at the same time; 0 is no limit.
    pub streams: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            line: 256 << 10,
            cut_lines: true,
            labels: 15,
            many_labels: Unfit::Demote,
            label_name: 1024,
            label_value: 2048,
            long_label: Unfit::Demote,
            metadata_bytes: 64 << 10,
            metadata_count: 128,
            trim_metadata: true,
            max_age: Duration::ZERO,
            streams: 5000,
        }
    }
}

/// The labels of the Collector's old exporter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OldLabels {
    /// `exporter="OTLP"`.
    pub exporter: bool,
    /// `job`.
    pub job: bool,
    /// `instance`.
    pub instance: bool,
    /// `level`.
    pub level: bool,
}

/// How requests are made.
#[derive(Debug, Clone)]
pub struct LokiOptions {
    /// Labels from attributes: the name of one's own, if any, and the source. Of equal names the last counts.
    pub labels: Vec<(Option<String>, LabelSource)>,
    /// The labels of the Collector's old exporter.
    pub old_labels: OldLabels,
    /// Labels for all streams.
    pub static_labels: Vec<(String, String)>,
    /// Rules for the labels.
    pub relabel: Vec<Rule>,
    /// The line.
    pub format: Format,
    /// Whether there is structured metadata.
    pub structured_metadata: bool,
    /// The tenant of what has none of its own.
    pub tenant: Option<Arc<str>>,
    /// The attribute that holds the tenant; empty for none.
    pub tenant_attribute: String,
    /// Whether what has no tenant by these has its batch's.
    pub batch_tenant: bool,
    /// What Loki takes.
    pub limits: Limits,
    /// How many lines of requests there are.
    pub shards: usize,
    /// Bytes of a request before compression.
    pub max_bytes: usize,
    /// The cap of the caches, in bytes.
    pub cache_bytes: usize,
    /// The form of requests.
    pub encoding: Encoding,
}

impl Default for LokiOptions {
    fn default() -> Self {
        let source = |key: &&str| (None, LabelSource::Resource((*key).to_owned()));
        LokiOptions {
            labels: DEFAULT_LABELS.iter().map(source).collect(),
            old_labels: OldLabels::default(),
            static_labels: Vec::new(),
            relabel: Vec::new(),
            format: Format::Raw,
            structured_metadata: true,
            tenant: None,
            tenant_attribute: String::new(),
            batch_tenant: true,
            limits: Limits::default(),
            shards: 4,
            max_bytes: 1 << 20,
            cache_bytes: 64 << 20,
            encoding: Encoding::Protobuf,
        }
    }
}

/// Whether text can be a label's name in Loki.
///
/// # Errors
/// What is wrong with it.
pub fn check_label_name(name: &str) -> Result<(), String> {
    if !crate::relabel::is_legacy_name(name) || name.bytes().all(|b| b == b'_') {
        return Err(format!(
            "\"{name}\" cannot be a label: letters, digits and '_' make a name, no digit first"
        ));
    }
    if name.starts_with("__") {
        return Err(format!(
            "\"{name}\" cannot be a label: names that begin with two underscores are reserved"
        ));
    }
    Ok(())
}

/// Whether text can be a tenant.
///
/// # Errors
/// What is wrong with it.
pub fn check_tenant(tenant: &str) -> Result<(), String> {
    if tenant.len() > 150 {
        return Err("a tenant has at most 150 bytes".to_owned());
    }
    if tenant.is_empty() || tenant == "." || tenant == ".." {
        return Err(format!("\"{tenant}\" cannot be a tenant"));
    }
    match tenant.chars().find(|c| !c.is_ascii_alphanumeric() && !"!-_.*'()".contains(*c)) {
        Some('|') => Err("data has one tenant: '|' is for queries".to_owned()),
        Some(bad) => Err(format!("{bad:?} cannot be part of a tenant")),
        None => Ok(()),
    }
}
