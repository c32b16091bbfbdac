//! `service.telemetry`: what the agent says about itself, as far as it can be honoured; the rest is an error.

use std::collections::BTreeMap;
use std::time::Duration;

use super::types::{Fixed, Optional, Unsupported};
use super::{Config, Cx, Node, Schema, SchemaKind, Value, unknown_key};

crate::config! {
    /// The agent's own logs and metrics.
    pub struct TelemetryConfig {
        /// The agent's log.
        pub logs: LogsConfig = LogsConfig::default(),
        /// The agent's metrics.
        pub metrics: MetricsConfig = MetricsConfig::default(),
        /// Attributes that describe this agent, in `target_info` and in every JSON log line; null removes one.
        pub resource: ResourceConfig = ResourceConfig::default(),
        /// Traces of the agent itself, which there are none of.
        pub traces: TracesConfig = TracesConfig::default(),
    }
}

crate::config_enum! {
    /// The least severity that is logged.
    pub enum LogLevel ignore_case {
        /// Everything.
        Debug = "debug",
        /// What an operator may want to know.
        Info = "info",
        /// What may need attention; nothing is lost.
        Warn = "warn",
        /// Data is lost or a human must act.
        Error = "error",
    }
}

crate::config_enum! {
    /// How a log line is written.
    pub enum LogEncoding {
        /// Text for people.
        Console = "console",
        /// One JSON object a line.
        Json = "json",
    }
}

crate::config! {
    /// The agent's log.
    pub struct LogsConfig {
        /// The least severity that is logged.
        pub level: LogLevel = LogLevel::Info,
        /// How a line is written.
        pub encoding: LogEncoding = LogEncoding::Console,
        /// Thins out repeated lines; `enabled: false` logs them all.
        pub sampling: Optional<LogSampling> = Optional::on(LogSampling::default()),
        /// Where lines go: `stderr`, `stdout` or paths of files, which are appended to.
        pub output_paths: Vec<String> = vec!["stderr".to_owned()],
        /// Fields added to every line.
        pub initial_fields: BTreeMap<String, serde_json::Value> = BTreeMap::new(),
        /// Only `true` can be written: lines never name the place in the source.
        pub disable_caller: Fixed<true> = Fixed,
        /// Only `true` can be written: lines never carry a stack trace.
        pub disable_stacktrace: Fixed<true> = Fixed,
        /// Only `false` can be written.
        pub development: Fixed<false> = Fixed,
        /// Only `[stderr]` can be written: errors of the log itself go there.
        pub error_output_paths: Vec<String> = vec!["stderr".to_owned()],
        /// Not supported: the log is not exported over OTLP.
        pub processors: Unsupported = Unsupported,
        /// Not supported.
        pub disable_zap_resource: Unsupported = Unsupported,
    }
    validate = LogsConfig::check;
}

impl LogsConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        if self.output_paths.is_empty() || self.output_paths.iter().any(String::is_empty) {
            cx.within("output_paths", |cx| {
                cx.error_hint(
                    node.pos_of("output_paths"),
                    "a path is missing",
                    "write stderr, stdout or a file",
                );
            });
        }
        if self.error_output_paths != ["stderr"] {
            cx.within("error_output_paths", |cx| {
                let pos = node.pos_of("error_output_paths");
                cx.error_hint(
                    pos,
                    "errors of the log itself go to stderr",
                    "write [stderr] or take the key out",
                );
            });
        }
    }
}

crate::config_enum! {
    /// How much the agent traces itself.
    pub enum TracesLevel ignore_case {
        /// Not at all.
        None = "none",
    }
}

crate::config! {
    /// Traces of the agent itself.
    pub struct TracesConfig {
        /// Only `none` can be written.
        pub level: TracesLevel = TracesLevel::None,
        /// Not supported: the agent does not trace itself.
        pub processors: Unsupported = Unsupported,
        /// Not supported: the agent does not trace itself.
        pub propagators: Unsupported = Unsupported,
        /// Not supported: the agent does not trace itself.
        pub sampler: Unsupported = Unsupported,
        /// Not supported: the agent does not trace itself.
        pub limits: Unsupported = Unsupported,
    }
}

crate::config! {
    /// In every `tick`, of the lines with one message and level, the first `initial` are logged, then every
    /// `thereafter`th.
    pub struct LogSampling {
        /// How long a count lasts.
        pub tick: Duration = Duration::from_secs(10),
        /// How many lines are logged before thinning starts.
        pub initial: u32 = 10,
        /// Of the lines after that, every how many-th is logged; 0 logs none of them.
        pub thereafter: u32 = 100,
    }
}

crate::config_enum! {
    /// How much the agent measures of itself.
    pub enum MetricsLevel ignore_case {
        /// Nothing; no endpoint is opened.
        None = "none",
        /// What service owners need.
        Basic = "basic",
        /// What dashboards use.
        Normal = "normal",
        /// Everything there is.
        Detailed = "detailed",
    }
}

crate::config! {
    /// The agent's metrics.
    pub struct MetricsConfig {
        /// How much is measured; `none` opens no endpoint.
        pub level: MetricsLevel = MetricsLevel::Normal,
        /// How they are read: one pull reader for Prometheus.
        pub readers: Vec<MetricsReader> = vec![MetricsReader::default()],
        /// Not supported.
        pub views: Unsupported = Unsupported,
        /// Not supported: it is gone from the Collector too, write `readers`.
        pub address: Unsupported = Unsupported,
    }
    validate = MetricsConfig::check;
}

impl MetricsConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        let pos = node.pos_of("readers");
        cx.within("readers", |cx| match self.readers.len() {
            0 if self.level != MetricsLevel::None => {
                cx.error(
                    pos,
                    "collector telemetry metrics reader should exist when metric level is not none",
                );
            }
            0 | 1 => {}
            n => cx.error(pos, format!("{n} readers; only one is supported")),
        });
    }

    /// Where metrics are served; `None` when they are off.
    pub fn prometheus(&self) -> Option<&PrometheusReader> {
        let reader = self.readers.first().filter(|_| self.level != MetricsLevel::None)?;
        Some(&reader.pull.exporter.prometheus)
    }
}

crate::config! {
    /// A reader of the agent's metrics.
    pub struct MetricsReader {
        /// Served for scraping.
        pub pull: PullReader = PullReader::default(),
        /// Not supported: metrics are served, not pushed; scrape them.
        pub periodic: Unsupported = Unsupported,
    }
}

crate::config! {
    /// Metrics that are served.
    pub struct PullReader {
        /// In which format.
        pub exporter: PullExporter = PullExporter::default(),
    }
}

crate::config! {
    /// The format in which metrics are served.
    pub struct PullExporter {
        /// Prometheus text on `/metrics`.
        pub prometheus: PrometheusReader = PrometheusReader::default(),
    }
}

crate::config! {
    /// The endpoint for Prometheus.
    pub struct PrometheusReader {
        /// The address to listen on; `0.0.0.0` for all.
        pub host: String = "localhost".to_owned(),
        /// The port.
        pub port: u16 = 8888,
        /// Only `true` can be written: metrics carry no scope.
        pub without_scope_info: Fixed<true> = Fixed,
        /// Only `true` can be written: names carry no unit.
        pub without_units: Fixed<true> = Fixed,
        /// Only `true` can be written: counters carry no `_total`.
        pub without_type_suffix: Fixed<true> = Fixed,
        /// Not supported: attributes of the resource are in `target_info`.
        pub with_resource_constant_labels: Unsupported = Unsupported,
    }
}

impl PrometheusReader {
    /// `host:port`, IPv6 in brackets.
    pub fn socket_text(&self) -> String {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        match bare {
            "" => format!("0.0.0.0:{}", self.port),
            _ if bare.contains(':') => format!("[{bare}]:{}", self.port),
            _ => format!("{bare}:{}", self.port),
        }
    }
}

/// Attributes of the agent's resource: a mapping of names to text or null, or the list form under `attributes`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceConfig {
    /// What is set; `None` removes a default attribute.
    pub attributes: BTreeMap<String, Option<String>>,
}

impl Config for ResourceConfig {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        let entries = match &node.value {
            Value::Null => return,
            Value::Map(entries) => entries,
            _ => return cx.wrong_type(node, "a mapping of names to text"),
        };
        if let Some((_, Node { value: Value::Seq(items), .. })) = node.entry("attributes") {
            for (key, _) in entries.iter().filter(|(key, _)| key.text != "attributes") {
                cx.within(&key.text, |cx| unknown_key(key.pos, &key.text, &["attributes"], cx));
            }
            cx.within("attributes", |cx| {
                for (i, item) in items.iter().enumerate() {
                    cx.within(&i.to_string(), |cx| self.item(item, cx));
                }
            });
            return;
        }
        for (key, value) in entries {
            cx.within(&key.text, |cx| {
                let mut text: Option<String> = None;
                text.decode_into(value, cx);
                self.attributes.insert(key.text.clone(), text);
            });
        }
    }

    fn schema() -> Schema {
        let inner = Schema { name: "string", kind: SchemaKind::Optional(Box::new(String::schema())) };
        Schema { name: "resource", kind: SchemaKind::Map(Box::new(inner)) }
    }

    fn to_json(&self) -> serde_json::Value {
        self.attributes.to_json()
    }
}

impl ResourceConfig {
    fn item(&mut self, item: &Node, cx: &mut Cx) {
        let Value::Map(entries) = &item.value else { return cx.wrong_type(item, "{name, value}") };
        let keys = ["name", "value", "type"];
        for (key, _) in entries.iter().filter(|(key, _)| !keys.contains(&key.text.as_str())) {
            cx.within(&key.text, |cx| unknown_key(key.pos, &key.text, &keys, cx));
        }
        if let Some(kind) = item.get("type").filter(|n| n.value != Value::Str("string".to_owned())) {
            cx.error(kind.pos, "only attributes of type string are supported");
        }
        let Some(name) = item.get("name") else { return cx.error(item.pos, "\"name\" is missing") };
        let (mut key, mut value) = (String::new(), None);
        cx.within("name", |cx| key.decode_into(name, cx));
        if let Some(node) = item.get("value") {
            cx.within("value", |cx| Config::decode_into(&mut value, node, cx));
        }
        self.attributes.insert(key, value);
    }
}
