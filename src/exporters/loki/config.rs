//! The keys of `loki`.

use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderName;

use crate::components::ComponentConfig;
use crate::config::types::{ByteSize, Optional};
use crate::config::{Cx, Node};
use crate::exporters::delivery::{QueueConfig, RetryConfig};
use crate::exporters::tenant::check_header;
use crate::loki::{DEFAULT_LABELS, LabelSource, check_label_name, check_tenant};
use crate::net::client::{HttpClientConfig, HttpCompression};
use crate::relabel::RelabelConfig;
use crate::{config, config_enum};

/// Headers that the protocol sets.
pub(super) const RESERVED: [&str; 3] = ["content-encoding", "content-type", "user-agent"];

config_enum! {
    /// The form of requests.
    pub enum EncodingConfig {
        /// Protobuf in a snappy block.
        Protobuf = "protobuf",
        /// JSON, compressed with gzip unless `compression` says otherwise.
        Json = "json",
    }
}

config_enum! {
    /// What the line of an entry is.
    pub enum FormatConfig {
        /// The body alone.
        Raw = "raw",
        /// A JSON object with body, attributes and resource.
        Json = "json",
        /// The same in logfmt.
        Logfmt = "logfmt",
    }
}

config_enum! {
    /// What becomes of a line that is too long.
    pub enum LongLineConfig {
        /// Its end is cut off.
        Truncate = "truncate",
        /// The record is dropped.
        Drop = "drop",
    }
}

config_enum! {
    /// What becomes of a label that is one too many.
    pub enum ManyLabelsConfig {
        /// It becomes structured metadata.
        Demote = "demote",
        /// It is left out.
        Drop = "drop",
    }
}

config_enum! {
    /// What becomes of a label whose value is too long.
    pub enum LongLabelConfig {
        /// It becomes structured metadata.
        Demote = "demote",
        /// The end of its value is cut off.
        Truncate = "truncate",
        /// It is left out.
        Drop = "drop",
    }
}

config_enum! {
    /// What becomes of structured metadata that is too much.
    pub enum LargeMetadataConfig {
        /// What does not fit is left out; record fields and log attributes come first, then resource, then scope.
        Trim = "trim",
        /// The record is dropped.
        Drop = "drop",
    }
}

config! {
    /// What Loki takes. Equal to its defaults; write what yours is set to. Whatever does not fit is changed or
    /// dropped here and counted, because Loki would refuse it.
    pub struct LimitsConfig {
        /// The longest line, in bytes.
        pub max_line_size: ByteSize = ByteSize(256 << 10),
        /// What becomes of a longer line: `truncate` or `drop`.
        pub long_line: LongLineConfig = LongLineConfig::Truncate,
        /// How many labels a stream may have, `service_name` not counted.
        pub max_label_names: usize = 15,
        /// What becomes of labels beyond that: `demote` or `drop`. Those of the default list go first, the least
        /// telling before the others; `service_name` always stays.
        pub many_labels: ManyLabelsConfig = ManyLabelsConfig::Demote,
        /// The longest label name, in bytes. A label with a longer one is left out and counted.
        pub max_label_name_length: usize = 1024,
        /// The longest label value, in bytes.
        pub max_label_value_length: usize = 2048,
        /// What becomes of a label with a longer value: `demote`, `truncate` or `drop`.
        pub long_label: LongLabelConfig = LongLabelConfig::Demote,
        /// How large the structured metadata of an entry may be: the bytes of names and values.
        pub max_metadata_size: ByteSize = ByteSize(64 << 10),
        /// How many names it may have.
        pub max_metadata_count: usize = 128,
        /// What becomes of more: `trim` or `drop`.
        pub large_metadata: LargeMetadataConfig = LargeMetadataConfig::Trim,
        /// Drops records that are older than this. 0 is never.
        pub max_age: Duration = Duration::ZERO,
        /// How many streams a tenant may have at the same time. At three quarters of it the label with most values
        /// becomes structured metadata, at seven eighths the next, and so on. 0 is no limit.
        pub max_streams: usize = 5000,
    }
    validate = LimitsConfig::check;
}

impl LimitsConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        let mut fail = |key: &str, why: &str| cx.within(key, |cx| cx.error(node.pos_of(key), why));
        if self.max_line_size.0 < 16 {
            fail("max_line_size", "'max_line_size' must be at least 16 bytes");
        }
        if self.max_label_names == 0 {
            fail("max_label_names", "'max_label_names' must be positive: a stream has a label");
        }
        if self.max_label_name_length < 16 {
            fail("max_label_name_length", "'max_label_name_length' must be at least 16");
        }
        if self.max_label_value_length < 16 {
            fail("max_label_value_length", "'max_label_value_length' must be at least 16");
        }
    }
}

config! {
    /// Which labels streams have. Few are best: each combination of values is a stream.
    pub struct LabelsConfig {
        /// Whether the resource attributes of the default list become labels: those of Loki's own OTLP endpoint,
        /// without `k8s.pod.name` and `service.instance.id`, which are structured metadata.
        pub defaults: bool = true,
        /// What else becomes a label, named as Loki would: `resource.<attribute>`, `scope.<attribute>`,
        /// `attribute.<attribute>` (of the log record), `scope.name`, `scope.version`, `severity_text`,
        /// `severity_number`, `level` (`trace`, `debug`, `info`, `warn`, `error`, `fatal`).
        pub include: Vec<String> = Vec::new(),
        /// The same with names of one's own: `pod: resource.k8s.pod.name`.
        pub rename: BTreeMap<String, String> = BTreeMap::new(),
        /// Labels with fixed values, for all streams. They win over others of their name.
        pub r#static: BTreeMap<String, String> = BTreeMap::new(),
        /// Prometheus' relabelling rules, applied to the labels that the keys above give. A record whose labels
        /// are dropped by `keep` or `drop` is dropped. Labels that begin with `__` are taken off at the end.
        pub relabel_configs: Vec<RelabelConfig> = Vec::new(),
    }
    validate = LabelsConfig::check;
}

impl LabelsConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        cx.within("include", |cx| {
            for (i, text) in self.include.iter().enumerate() {
                if let Err(why) = LabelSource::parse(text) {
                    let hint = "write resource.<attribute>, scope.<attribute> or attribute.<attribute>";
                    cx.within(&i.to_string(), |cx| cx.error_hint(node.pos_of("include"), why, hint));
                }
            }
        });
        for (key, map) in [("rename", &self.rename), ("static", &self.r#static)] {
            let at = node.get(key);
            for (name, value) in map {
                let pos = at.map_or(node.pos, |at| at.pos_of(name));
                let mut fail = |why: String| cx.within(key, |cx| cx.within(name, |cx| cx.error(pos, why)));
                if let Err(why) = check_label_name(name) {
                    fail(why);
                } else if key == "static" && value.is_empty() {
                    fail(format!("the label \"{name}\" has no value"));
                } else if key == "rename"
                    && let Err(why) = LabelSource::parse(value)
                {
                    fail(why);
                }
            }
        }
    }
}

config! {
    /// The labels that the Collector's old exporter gave every stream.
    pub struct DefaultLabelsConfig {
        /// `exporter="OTLP"`.
        pub exporter: bool = false,
        /// `job`: the service's namespace and name.
        pub job: bool = false,
        /// `instance`: the service's instance id.
        pub instance: bool = false,
        /// `level`: the severity, as in `INFO` or `WARN2`.
        pub level: bool = false,
    }
}

config! {
    /// Whose data it is, and how Loki is told. An attribute of the data itself wins, then `value`, then the tenant that
    /// a `tenant` processor found.
    pub struct TenantConfig {
        /// The header that carries the name of the tenant. Empty: none is sent. A header of this name in `headers` is
        /// for data whose tenant neither `value` nor an attribute says.
        pub header: String = "X-Scope-OrgID".to_owned(),
        /// The tenant of all data, or of what has no tenant of its own.
        pub value: String = String::new(),
        /// The attribute that holds the tenant, looked for in the resource, then in the log record.
        pub from_attribute: String = String::new(),
    }
    validate = TenantConfig::check;
}

impl TenantConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        let mut fail = |key: &str, why: String| cx.within(key, |cx| cx.error(node.pos_of(key), why));
        if !self.value.is_empty()
            && let Err(why) = check_tenant(&self.value)
        {
            fail("value", why);
        }
        if let Err(why) = check_header(&self.header) {
            fail("header", why);
        } else if self.header.is_empty() && !(self.value.is_empty() && self.from_attribute.is_empty()) {
            fail("header", "a tenant is configured, and no header to name it in".to_owned());
        }
    }

    /// Whether a header is the one that names the tenant.
    pub fn is_header(&self, name: &HeaderName) -> bool {
        self.header.eq_ignore_ascii_case(name.as_str())
    }
}

config! {
    /// Sends logs to Loki by its push protocol.
    pub struct LokiConfig {
        /// The form of requests.
        pub encoding: EncodingConfig = EncodingConfig::Protobuf,
        /// What the line of an entry is: `raw`, `json` or `logfmt`. The attribute `loki.format` overrides it.
        pub format: FormatConfig = FormatConfig::Raw,
        /// Whether attributes that are no labels, and severity, trace, scope and so on, are sent as structured
        /// metadata. Turn it off for a Loki that does not allow that; `format` decides what is left.
        pub structured_metadata: bool = true,
        /// Whose data it is.
        pub tenant: TenantConfig = TenantConfig::default(),
        /// Which labels streams have.
        pub labels: LabelsConfig = LabelsConfig::default(),
        /// The labels that the Collector's old exporter gave every stream. All are off unless written.
        pub default_labels_enabled: DefaultLabelsConfig = DefaultLabelsConfig::default(),
        /// What Loki takes.
        pub limits: LimitsConfig = LimitsConfig::default(),
        /// The size of a request before compression, in bytes. Only a single larger entry can pass it.
        pub max_batch_size_bytes: ByteSize = ByteSize(1 << 20),
        /// How much memory what is known of streams and attributes may take.
        pub stream_cache_size: ByteSize = ByteSize(64 << 20),
        /// Sends failed requests again.
        pub retry_on_failure: RetryConfig = RetryConfig {
            initial_interval: Duration::from_millis(500),
            ..RetryConfig::default()
        },
        /// Holds data until Loki has taken it. On unless `enabled: false`. Each consumer sends streams of its own,
        /// so that every stream stays in order.
        pub sending_queue: Optional<QueueConfig> = Optional::on(QueueConfig {
            num_consumers: 4,
            ..QueueConfig::default()
        }),
    }
    flatten {
        client: HttpClientConfig = HttpClientConfig {
            timeout: Duration::from_secs(30),
            write_buffer_size: 512 * 1024,
            compression: HttpCompression::Snappy,
            ..HttpClientConfig::default()
        },
    }
    hints {
        "default_labels" => "the labels of the old exporter are turned on in \"default_labels_enabled\"",
        "tenant_id" => "write \"tenant: {value: …}\"",
        "url" => "the URL is \"endpoint\"",
        "external_labels" => "labels for all streams are \"labels: {static: {…}}\"",
        "batchwait" => "requests grow while Loki is busy; their size is \"max_batch_size_bytes\"",
        "batchsize" => "the size of a request is \"max_batch_size_bytes\"",
    }
    validate = LokiConfig::check;
}

impl LokiConfig {
    fn check(&mut self, node: &Node, cx: &mut Cx) {
        self.client.check(node, cx);
        let json = self.encoding == EncodingConfig::Json;
        if json && node.get("compression").is_none() {
            self.client.compression = HttpCompression::Gzip;
        }
        let mut fail = |key: &str, why: &str| cx.within(key, |cx| cx.error(node.pos_of(key), why));
        use HttpCompression::{Empty, Gzip, None as Plain, Snappy};
        match (json, self.client.compression) {
            (false, Snappy | Empty) | (true, Gzip | Plain | Empty) => {}
            (false, _) => fail("compression", "protobuf is always compressed with snappy"),
            (true, _) => fail("compression", "JSON is compressed with gzip or none"),
        }
        if self.client.endpoint.is_empty() && node.get("endpoint").is_none_or(Node::is_null) {
            fail("endpoint", "'endpoint' must be specified");
        }
        for (name, _) in self.client.headers.iter() {
            if RESERVED.contains(&name.as_str()) {
                fail("headers", &format!("header \"{name}\" is set by the exporter"));
            } else if self.tenant.is_header(name) && !self.tenant.value.is_empty() {
                fail("headers", "the tenant is given twice: in 'headers' and in 'tenant'");
            }
        }
        if self.max_batch_size_bytes.0 < 1024 {
            fail("max_batch_size_bytes", "'max_batch_size_bytes' must be at least 1KiB");
        } else if self.max_batch_size_bytes.0 > 1 << 30 {
            fail("max_batch_size_bytes", "'max_batch_size_bytes' must be at most 1GiB");
        }
        if let (Some(queue), Some(at)) = (self.sending_queue.get(), node.get("sending_queue"))
            && queue.batch.get().is_some()
        {
            let why = "requests are made of streams, not of batches";
            let hint = "the size of a request is 'max_batch_size_bytes'; requests grow while Loki is busy";
            cx.within("sending_queue", |cx| {
                cx.within("batch", |cx| cx.error_hint(at.pos_of("batch"), why, hint));
            });
        }
        let unlabelled = !self.labels.defaults
            && self.labels.include.is_empty()
            && self.labels.rename.is_empty()
            && self.labels.r#static.is_empty()
            && self.labels.relabel_configs.is_empty();
        let old = &self.default_labels_enabled;
        if unlabelled && !(old.exporter || old.job || old.instance || old.level) {
            let why = "no labels are configured: all logs are one stream";
            cx.within("labels", |cx| cx.warn(node.pos_of("labels"), why));
        }
    }

    /// How many requests are open at the same time.
    pub fn shards(&self) -> usize {
        let wanted = self.sending_queue.get().map_or(4, |queue| queue.num_consumers);
        usize::try_from(wanted).unwrap_or(1).clamp(1, 1000)
    }
}

impl ComponentConfig for LokiConfig {
    fn extension_refs(&self) -> Vec<(&'static str, String)> {
        self.client.extension_refs()
    }
}

/// The sources of the default labels, in the order of their weight.
pub(super) fn default_sources() -> impl Iterator<Item = LabelSource> {
    DEFAULT_LABELS.iter().map(|key| LabelSource::Resource((*key).to_owned()))
}
