//! The keys of `prometheus`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::components::ComponentConfig;
use crate::config;
use crate::config::types::{Endpoint, Headers, Optional, Unsupported};
use crate::config::{Cx, Node};
use crate::net::listen::Transport;
use crate::net::tls::TlsServerConfig;
use crate::prometheus::config::{
    ResourceConstantLabelsConfig, ResourceToTelemetryConfig, check_constant_labels, check_name_prefix,
    check_resource_labels, constant_labels, resource_labels,
};
use crate::prometheus::map::MapOptions;
use crate::prometheus::names::{Namer, TranslationStrategy};
use crate::receivers::otlp::{CorsConfig, HttpAuthConfig};

config! {
    /// Shows the last value of each series on a page that Prometheus scrapes, at the path `/metrics`. Delta
    /// temporality is added up. Exponential histograms are native histograms for scrapers that take protobuf, and
    /// classic buckets in the text formats.
    pub struct PrometheusConfig {
        /// Where to listen: `host:port` or `unix:///path`. Needed. `localhost` is reachable from this machine only;
        /// write `0.0.0.0:8889` to serve others.
        pub endpoint: Endpoint = Endpoint::default(),
        /// What kind of socket `endpoint` names.
        pub transport: Transport = Transport::Tcp,
        /// Serves TLS; plaintext when absent.
        pub tls: Optional<TlsServerConfig> = Optional::none(TlsServerConfig::default()),
        /// Lets web pages of other origins read the page.
        pub cors: Optional<CorsConfig> = Optional::none(CorsConfig::default()),
        /// Who may scrape.
        pub auth: Optional<HttpAuthConfig> = Optional::none(HttpAuthConfig::default()),
        /// Not supported: a scrape has no body.
        pub max_request_body_size: Unsupported = Unsupported,
        /// Not supported: a scrape brings no telemetry that could keep its headers.
        pub include_metadata: Unsupported = Unsupported,
        /// Headers added to every answer.
        pub response_headers: Headers = Headers::default(),
        /// Not supported: a scrape has no body. What it gets is compressed with gzip if it takes that.
        pub compression_algorithms: Unsupported = Unsupported,
        /// How long a request may take to arrive; 0 means without limit.
        pub read_timeout: Duration = Duration::ZERO,
        /// How long a request's headers may take to arrive; 0 means the same as `read_timeout`.
        pub read_header_timeout: Duration = Duration::from_secs(60),
        /// How long an answer may take, from the end of the headers; 0 means without limit.
        pub write_timeout: Duration = Duration::from_secs(30),
        /// Closes a connection that had no request for this long; 0 means the same as `read_timeout`.
        pub idle_timeout: Duration = Duration::from_secs(60),
        /// Whether a connection may serve more than one request.
        pub keep_alives_enabled: bool = true,
        /// Not supported: no extension takes part in requests.
        pub middlewares: Unsupported = Unsupported,
        /// Put before every metric name, with an underscore.
        pub namespace: String = String::new(),
        /// Labels for every series that does not have them.
        pub const_labels: BTreeMap<String, String> = BTreeMap::new(),
        /// Whether samples have the times of their points. Without them the time of the scrape counts, and
        /// Prometheus notices at once when a series ends.
        pub send_timestamps: bool = false,
        /// How long a series stays on the page after its last point.
        pub metric_expiration: Duration = Duration::from_secs(300),
        /// How many series the page has at most, a histogram counting one for each bucket and three more. Points
        /// of further series are dropped and counted. A number takes about 500 bytes of memory.
        pub max_series: i64 = 1_000_000,
        /// Makes every resource attribute a label. Older than `resource_constant_labels`, which chooses.
        pub resource_to_telemetry_conversion: ResourceToTelemetryConfig = ResourceToTelemetryConfig::default(),
        /// Makes some resource attributes labels.
        pub resource_constant_labels: ResourceConstantLabelsConfig = ResourceConstantLabelsConfig::default(),
        /// Whether scrapers that ask for OpenMetrics get it. Needed for exemplars.
        pub enable_open_metrics: bool = false,
        /// Leaves the labels `otel_scope_*` out. Changes the identity of series.
        pub without_scope_info: bool = false,
        /// Whether units and types are appended to metric names. Older than `translation_strategy`, which wins.
        pub add_metric_suffixes: bool = true,
        /// How names are made. Unless written: `UnderscoreEscapingWithSuffixes`, or without suffixes if
        /// `add_metric_suffixes` is off.
        pub translation_strategy: Option<TranslationStrategy> = None,
        /// Not supported: the page shows the last values, and nothing waits to be sent.
        pub sending_queue: Unsupported = Unsupported,
    }
    validate = PrometheusConfig::check;
}

impl PrometheusConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        let mut fail = |key: &str, why: &str, hint: &str| {
            cx.within(key, |cx| cx.error_hint(node.pos_of(key), why, hint));
        };
        let unix = self.endpoint.unix_path().is_some();
        if self.endpoint.is_empty() {
            fail("endpoint", "'endpoint' must be specified", "write host:port, such as 0.0.0.0:8889");
        } else if self.transport == Transport::Unix && !unix {
            let why = "the endpoint is not the path of a unix socket";
            fail("endpoint", why, "write an absolute path, or leave out transport: unix");
        } else if matches!(self.transport, Transport::Tcp4 | Transport::Tcp6) && unix {
            fail("transport", "the endpoint is a unix socket", "write transport: unix");
        }
        if self.metric_expiration.is_zero() {
            let why = "'metric_expiration' must be positive: every series would be gone before a scrape";
            fail("metric_expiration", why, "write a time longer than the interval of scrapes, such as 5m");
        }
        if self.max_series <= 0 {
            fail("max_series", "'max_series' must be positive", "the default is 1000000");
        }
        check_resource_labels(
            &self.resource_to_telemetry_conversion,
            &self.resource_constant_labels,
            node,
            cx,
        );
        check_name_prefix(&self.namespace, self.strategy(), node, cx);
        let what = ("const_labels", "prometheus exporter: const_labels");
        check_constant_labels(&self.const_labels, &self.namer(), what, node, cx);
    }

    /// How names are made.
    pub fn strategy(&self) -> TranslationStrategy {
        self.translation_strategy.unwrap_or(match self.add_metric_suffixes {
            true => TranslationStrategy::UnderscoreEscapingWithSuffixes,
            false => TranslationStrategy::UnderscoreEscapingWithoutSuffixes,
        })
    }

    fn namer(&self) -> Namer {
        Namer::new(self.strategy(), &self.namespace)
    }

    /// How metrics are mapped.
    pub fn mapping(&self) -> MapOptions {
        let namer = self.namer();
        MapOptions {
            external_labels: constant_labels(&self.const_labels, &namer),
            namer,
            resource_labels: resource_labels(
                &self.resource_to_telemetry_conversion,
                &self.resource_constant_labels,
            ),
            target_info: true,
            scope_labels: !self.without_scope_info,
        }
    }
}

impl ComponentConfig for PrometheusConfig {
    fn listens(&self) -> Vec<(&'static str, String)> {
        self.endpoint.listen_text().map(|text| ("endpoint", text)).into_iter().collect()
    }

    fn extension_refs(&self) -> Vec<(&'static str, String)> {
        let id = self.auth.get().map(|auth| auth.authenticator.as_str().to_owned());
        id.map(|id| ("auth::authenticator", id)).into_iter().collect()
    }
}
