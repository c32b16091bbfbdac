//! The keys of `prometheus_remote_write`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::components::ComponentConfig;
use crate::config::types::{ByteSize, HttpUrl, Optional, Unsupported};
use crate::config::{Cx, Node};
use crate::exporters::delivery::RetryConfig;
use crate::exporters::tenant::TenantConfig;
use crate::net::client::{HttpClientConfig, HttpCompression};
use crate::prometheus::config::{
    ResourceConstantLabelsConfig, ResourceToTelemetryConfig, check_constant_labels, check_name_prefix,
    check_resource_labels,
};
use crate::prometheus::names::{Namer, TranslationStrategy};
use crate::{config, config_enum};

/// Headers that the protocol sets.
pub(super) const RESERVED: [&str; 4] =
    ["content-encoding", "content-type", "user-agent", "x-prometheus-remote-write-version"];

/// Those of them, and those the exporter adds, that could be taken for a tenant's.
const OWN: [&str; 2] = ["x-prometheus-remote-write-version", "retry-attempt"];

/// The largest request that can be asked for: offsets into it have 32 bits, and no receiver takes as much.
const LARGEST: i64 = 1 << 30;

config_enum! {
    /// The version of the protocol.
    pub enum Message {
        /// Remote write 1.0, which every receiver knows.
        V1 = "prometheus.WriteRequest",
        /// Remote write 2.0: smaller, with start times and metadata. A receiver that does not know it gets 1.0.
        V2 = "io.prometheus.write.v2.Request",
    }
}

config_enum! {
    /// What becomes of samples that are not newer than the last one of their series.
    pub enum OutOfOrderConfig {
        /// They are dropped and counted.
        Drop = "drop",
        /// They are sent; the receiver must have an out-of-order window.
        Keep = "keep",
    }
}

config_enum! {
    /// What becomes of metrics with delta temporality.
    pub enum DeltaConfig {
        /// They are dropped and counted.
        Drop = "drop",
        /// They are added up.
        Accumulate = "accumulate",
    }
}

config_enum! {
    /// What exponential histograms become.
    pub enum ExponentialConfig {
        /// Native histograms.
        Native = "native",
        /// Classic buckets, for receivers that do not take native histograms.
        Classic = "classic",
    }
}

config! {
    /// Holds metrics in memory until the destination has taken them.
    pub struct RemoteWriteQueueConfig {
        /// Whether there is a queue. Without one the sender of the data waits until the destination has answered.
        pub enabled: bool = true,
        /// How many batches the queue holds, what is being sent included.
        pub queue_size: i64 = 10_000,
        /// How many requests are sent at the same time, each with series of its own.
        pub num_consumers: i64 = 5,
    }
    validate = RemoteWriteQueueConfig::check;
}

impl RemoteWriteQueueConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        let mut fail = |key: &str, why: &str| cx.within(key, |cx| cx.error(node.pos_of(key), why));
        if self.queue_size < 0 {
            fail("queue_size", "remote write queue size can't be negative");
        } else if self.queue_size == 0 && self.enabled {
            fail("queue_size", "a 0 size queue will drop all the data");
        }
        if self.num_consumers < 0 {
            fail("num_consumers", "remote write consumer number can't be negative");
        }
    }
}

config! {
    /// Describes where series come from in a series of their own.
    pub struct TargetInfoConfig {
        /// Whether `target_info` is sent.
        pub enabled: bool = true,
    }
}

config! {
    /// Bounds what is kept to add up metrics with delta temporality.
    pub struct DeltaLimitsConfig {
        /// How many series are added up at most; more are dropped and counted.
        pub max_streams: i64 = 100_000,
        /// How long a series that nothing comes for is remembered.
        pub max_stale: Duration = Duration::from_secs(300),
    }
    validate = DeltaLimitsConfig::check;
}

impl DeltaLimitsConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        let mut fail = |key: &str, why: &str| cx.within(key, |cx| cx.error(node.pos_of(key), why));
        if self.max_streams <= 0 {
            fail("max_streams", "'max_streams' must be positive");
        }
        if self.max_stale.is_zero() {
            fail("max_stale", "'max_stale' must be positive");
        }
    }
}

config! {
    /// Sends metrics to Prometheus and whatever speaks its remote write protocol.
    pub struct RemoteWriteConfig {
        /// The HTTP client. Replaces the keys of the same names at the top level.
        pub http: Optional<HttpClientConfig> = Optional::none(client()),
        /// Put before every metric name, with an underscore.
        pub namespace: String = String::new(),
        /// Labels for every series that does not have them.
        pub external_labels: BTreeMap<String, String> = BTreeMap::new(),
        /// The queue in front of the destination.
        pub remote_write_queue: RemoteWriteQueueConfig = RemoteWriteQueueConfig::default(),
        /// The size of a request before compression, in bytes. 0 is 3000000. A single data point that is larger
        /// than a sixteenth of it can make a request larger.
        pub max_batch_size_bytes: i64 = 3_000_000,
        /// How many requests are sent at the same time. As `num_consumers` unless written.
        pub max_batch_request_parallelism: Option<i64> = None,
        /// Sends failed requests again.
        pub retry_on_failure: RetryConfig = RetryConfig {
            initial_interval: Duration::from_millis(50),
            ..RetryConfig::default()
        },
        /// Makes every resource attribute a label. Older than `resource_constant_labels`, which chooses.
        pub resource_to_telemetry_conversion: ResourceToTelemetryConfig = ResourceToTelemetryConfig::default(),
        /// Makes some resource attributes labels.
        pub resource_constant_labels: ResourceConstantLabelsConfig = ResourceConstantLabelsConfig::default(),
        /// Describes where series come from.
        pub target_info: TargetInfoConfig = TargetInfoConfig::default(),
        /// Leaves the labels `otel_scope_*` out. Changes the identity of series.
        pub disable_scope_info: bool = false,
        /// Whether units and types are appended to metric names. Older than `translation_strategy`, which wins.
        pub add_metric_suffixes: bool = true,
        /// How names are made. Unless written: `UnderscoreEscapingWithSuffixes`, or without suffixes if
        /// `add_metric_suffixes` is off.
        pub translation_strategy: Option<TranslationStrategy> = None,
        /// Whether 1.0 sends type, description and unit of each metric once a minute. 2.0 always sends them.
        pub send_metadata: bool = false,
        /// The version of the protocol.
        pub protobuf_message: Message = Message::V1,
        /// Not supported: the queue is kept in memory.
        pub wal: Unsupported = Unsupported,
        /// Request metadata that is forwarded as headers. Needs `include_metadata` at the receiver.
        pub include_metadata_keys: Vec<String> = Vec::new(),
        /// How the destination is told whose data a request carries. It goes before a key of the same name in
        /// `include_metadata_keys`.
        pub tenant: TenantConfig = TenantConfig::default(),
        /// Makes native histograms with custom buckets of histograms. 2.0 only.
        pub convert_explicit_histograms_to_nhcb: bool = false,
        /// Sends such histograms in the classic form too.
        pub keep_classic_histograms: bool = false,
        /// What exponential histograms become.
        pub exponential_histograms: ExponentialConfig = ExponentialConfig::Native,
        /// What becomes of metrics with delta temporality.
        pub delta: DeltaConfig = DeltaConfig::Drop,
        /// Bounds for `delta: accumulate`.
        pub delta_limits: DeltaLimitsConfig = DeltaLimitsConfig::default(),
        /// What becomes of samples that are not newer than the last one of their series.
        pub out_of_order: OutOfOrderConfig = OutOfOrderConfig::Drop,
        /// Drops samples that are older than this. 0 is never.
        pub sample_age_limit: Duration = Duration::ZERO,
        /// How much memory the labels of known series may take.
        pub series_cache_size: ByteSize = ByteSize(64 << 20),
    }
    flatten {
        client: HttpClientConfig = client(),
    }
    hints {
        "sending_queue" => "the queue of this exporter is \"remote_write_queue\"",
        "export_created_metric" => "there are no series of creation times; with remote write 2.0 samples carry them",
    }
    validate = RemoteWriteConfig::check;
}

fn client() -> HttpClientConfig {
    HttpClientConfig {
        timeout: Duration::from_secs(5),
        write_buffer_size: 512 * 1024,
        compression: HttpCompression::Snappy,
        ..HttpClientConfig::default()
    }
}

impl RemoteWriteConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        self.client.check(node, cx);
        let (http, at) = match (self.http.get(), node.get("http")) {
            (Some(http), Some(at)) => {
                cx.within("http", |cx| http.check(at, cx));
                (http, at)
            }
            _ => (&self.client, node),
        };
        let nested = self.http.get().is_some();
        let mut fail = |key: &str, why: String| {
            let report = |cx: &mut Cx| cx.within(key, |cx| cx.error(at.pos_of(key), why.clone()));
            if nested { cx.within("http", report) } else { report(cx) }
        };
        if !matches!(http.compression, HttpCompression::Snappy | HttpCompression::Empty) {
            fail("compression", "compression type must be snappy".to_owned());
        }
        if http.endpoint.is_empty() && at.get("endpoint").is_none_or(Node::is_null) {
            fail("endpoint", "'endpoint' must be specified".to_owned());
        }
        for (name, _) in http.headers.iter() {
            if RESERVED.contains(&name.as_str()) {
                fail("headers", format!("header \"{name}\" is set by the exporter"));
            }
        }
        if nested && !self.client.endpoint.is_empty() {
            let why = "'endpoint' is not used beside 'http', which has its own";
            cx.within("endpoint", |cx| cx.error(node.pos_of("endpoint"), why));
        }
        self.check_requests(node, cx);
        self.check_mapping(node, cx);
    }

    fn check_requests(&self, node: &Node, cx: &mut Cx) {
        let mut fail = |key: &str, why: String| cx.within(key, |cx| cx.error(node.pos_of(key), why));
        if self.max_batch_size_bytes < 0 {
            fail("max_batch_size_bytes", "max_batch_byte_size must be greater than 0".to_owned());
        } else if self.max_batch_size_bytes > LARGEST {
            fail("max_batch_size_bytes", format!("'max_batch_size_bytes' can be at most {LARGEST}"));
        }
        if self.max_batch_request_parallelism.is_some_and(|n| n < 1) {
            let why = "max_batch_request_parallelism can't be set to below 1";
            fail("max_batch_request_parallelism", why.to_owned());
        }
        let header = self.tenant.header.to_ascii_lowercase();
        if OWN.contains(&header.as_str()) {
            let why = format!("header \"{header}\" is set by the exporter");
            cx.within("tenant", |cx| {
                let at = node.get("tenant").map_or(node.pos, |at| at.pos_of("header"));
                cx.within("header", |cx| cx.error(at, why));
            });
        }
        let mut fail = |key: &str, why: String| cx.within(key, |cx| cx.error(node.pos_of(key), why));
        for key in &self.include_metadata_keys {
            let name = key.to_ascii_lowercase();
            if RESERVED.contains(&name.as_str()) {
                fail("include_metadata_keys", format!("header \"{key}\" is set by the exporter"));
            } else if http::HeaderName::try_from(name.as_str()).is_err() {
                fail("include_metadata_keys", format!("\"{key}\" is not a header name"));
            }
        }
    }

    fn check_mapping(&self, node: &Node, cx: &mut Cx) {
        let needs_v2 = |cx: &mut Cx, key: &str, what: &str| {
            let why = format!("{what} needs remote write 2.0");
            let hint = "write 'protobuf_message: io.prometheus.write.v2.Request'";
            cx.within(key, |cx| cx.error_hint(node.pos_of(key), why, hint));
        };
        let v1 = self.protobuf_message == Message::V1;
        if v1 && !self.strategy().escapes() {
            needs_v2(cx, "translation_strategy", &format!("\"{}\"", self.strategy().word()));
        }
        if v1 && self.convert_explicit_histograms_to_nhcb {
            let key = "convert_explicit_histograms_to_nhcb";
            needs_v2(cx, key, "'convert_explicit_histograms_to_nhcb'");
        }
        if self.keep_classic_histograms && !self.convert_explicit_histograms_to_nhcb {
            let key = "keep_classic_histograms";
            let why =
                "'keep_classic_histograms' has no meaning without 'convert_explicit_histograms_to_nhcb'";
            cx.within(key, |cx| cx.error(node.pos_of(key), why));
        }
        check_resource_labels(
            &self.resource_to_telemetry_conversion,
            &self.resource_constant_labels,
            node,
            cx,
        );
        check_name_prefix(&self.namespace, self.strategy(), node, cx);
        let what = ("external_labels", "prometheus remote write: external labels");
        check_constant_labels(&self.external_labels, &self.namer(), what, node, cx);
    }

    /// The client that is used.
    pub fn http(&self) -> &HttpClientConfig {
        self.http.get().unwrap_or(&self.client)
    }

    /// How names are made.
    pub fn strategy(&self) -> TranslationStrategy {
        self.translation_strategy.unwrap_or(match self.add_metric_suffixes {
            true => TranslationStrategy::UnderscoreEscapingWithSuffixes,
            false => TranslationStrategy::UnderscoreEscapingWithoutSuffixes,
        })
    }

    /// Makes names.
    pub fn namer(&self) -> Namer {
        Namer::new(self.strategy(), &self.namespace)
    }

    /// How many requests are open at the same time.
    pub fn shards(&self) -> usize {
        let wanted = self.max_batch_request_parallelism.unwrap_or(self.remote_write_queue.num_consumers);
        usize::try_from(wanted).unwrap_or(1).clamp(1, 1000)
    }

    /// The URL requests go to.
    pub fn url(&self) -> &HttpUrl {
        &self.http().endpoint
    }
}

impl ComponentConfig for RemoteWriteConfig {
    fn extension_refs(&self) -> Vec<(&'static str, String)> {
        self.http().extension_refs()
    }
}
