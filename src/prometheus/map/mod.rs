//! What a metric becomes: families, and the labels of their series.
//!
//! [`Mapper`] is the specification: it reads views of OTLP and writes text, with the options of a configuration,
//! and knows nothing of caches or wire formats. The push exporter, the pull exporter and `tidegate names` all ask
//! it. Rules: OpenTelemetry's Prometheus compatibility specification, and Prometheus' own OTLP endpoint where
//! that decides what users see (label characters, order of precedence).
//!
//! Costs: microseconds a series. The hot path asks once a series and remembers the answer.

mod labels;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

pub use self::labels::{LabelSet, Level};
use super::names::{NameError, Namer, Shape};
use super::text::value_text;
use crate::pdata::common::{AnyValue, Attributes, ScopeGroup};
use crate::pdata::metrics::{Kind, Metric};
use crate::pdata::wire::WireError;

/// The label that holds the name of a series.
pub const NAME: &str = "__name__";

/// The attributes that make `job` and `instance`.
pub(super) const IDENTIFYING: [&str; 3] = ["service.namespace", "service.name", "service.instance.id"];

/// Which resource attributes become labels of every series.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ResourceLabels {
    /// None: they are in `target_info` alone.
    #[default]
    None,
    /// All of them, without the three that make `job` and `instance` if so wanted.
    All {
        /// Leaves out `service.name`, `service.namespace` and `service.instance.id`.
        exclude_service: bool,
    },
    /// Those that a pattern includes and none excludes. A pattern is a name, in which `*` stands for any text.
    Chosen {
        /// What is in; empty is everything.
        included: Vec<String>,
        /// What is out all the same.
        excluded: Vec<String>,
    },
}

/// How metrics are mapped.
#[derive(Debug, Clone)]
pub struct MapOptions {
    /// Writes names.
    pub namer: Namer,
    /// Labels for every series that does not have them; names as they are sent.
    pub external_labels: Vec<(String, String)>,
    /// Resource attributes as labels.
    pub resource_labels: ResourceLabels,
    /// Whether `target_info` is made.
    pub target_info: bool,
    /// Whether scopes are labels.
    pub scope_labels: bool,
}

/// `MetricMetadata.MetricType` of remote write; the numbers are those of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MetricType {
    /// Nothing is known.
    #[default]
    Unknown = 0,
    /// Only grows.
    Counter = 1,
    /// Goes up and down.
    Gauge = 2,
    /// Buckets, classic or native.
    Histogram = 3,
    /// Quantiles.
    Summary = 5,
    /// A constant whose labels tell something.
    Info = 6,
    /// One of several states.
    StateSet = 7,
}

impl MetricType {
    /// The word in `# TYPE` lines.
    pub const fn word(self) -> &'static str {
        match self {
            MetricType::Unknown => "unknown",
            MetricType::Counter => "counter",
            MetricType::Gauge => "gauge",
            MetricType::Histogram => "histogram",
            MetricType::Summary => "summary",
            MetricType::Info => "info",
            MetricType::StateSet => "stateset",
        }
    }
}

/// What a metric is called, and what is told about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Family {
    /// The name without `_bucket`, `_sum` and `_count`.
    pub name: String,
    /// The type.
    pub kind: MetricType,
    /// The description.
    pub help: String,
    /// The unit in words, or nothing.
    pub unit: String,
}

/// Why a metric, or a point, has no form in Prometheus. The words are `reason`s in the agent's metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unmappable {
    /// The name has no character that may stay.
    Name,
    /// The metric has no data.
    Empty,
    /// Delta temporality, and no conversion.
    Delta,
    /// A sum or histogram that does not say how it aggregates.
    Temporality,
}

impl Unmappable {
    /// The word for it.
    pub const fn reason(self) -> &'static str {
        match self {
            Unmappable::Name => "name",
            Unmappable::Empty => "no_data",
            Unmappable::Delta => "delta",
            Unmappable::Temporality => "temporality",
        }
    }
}

/// AggregationTemporality: what was counted since the last point.
pub const DELTA: i32 = 1;
/// AggregationTemporality: what was counted since the start.
pub const CUMULATIVE: i32 = 2;

/// What a resource gives to its series.
#[derive(Debug, Clone, Default)]
pub struct Resource {
    /// Labels for every series: `job`, `instance`, attributes made labels. Not settled.
    labels: Vec<(Level, String, String)>,
    /// The labels of `target_info` but its name, settled; `None` when there is none.
    pub target_info: Option<LabelSet>,
}

/// What a scope gives to its series.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    labels: Vec<(String, String)>,
}

/// Maps metrics as its options say.
#[derive(Debug, Clone)]
pub struct Mapper {
    options: MapOptions,
}

impl Mapper {
    /// A mapper with these options.
    pub fn new(options: MapOptions) -> Self {
        Mapper { options }
    }

    /// The options.
    pub fn options(&self) -> &MapOptions {
        &self.options
    }

    /// What a metric becomes.
    ///
    /// # Errors
    /// The metric has no form in Prometheus. Whether delta temporality is one depends on the caller, who looks at
    /// it before.
    pub fn family(&self, metric: &Metric<'_>) -> Result<Result<Family, Unmappable>, WireError> {
        let (shape, kind) = match metric.kind {
            Kind::Empty => return Ok(Err(Unmappable::Empty)),
            Kind::Gauge => (Shape::Gauge, gauge_type(metric)?),
            Kind::Sum if metric.monotonic => (Shape::Counter, MetricType::Counter),
            Kind::Sum => (Shape::UpDown, gauge_type(metric)?),
            Kind::Histogram | Kind::ExponentialHistogram => (Shape::Histogram, MetricType::Histogram),
            Kind::Summary => (Shape::Summary, MetricType::Summary),
        };
        let aggregates = matches!(metric.kind, Kind::Sum | Kind::Histogram | Kind::ExponentialHistogram);
        if aggregates && !matches!(metric.temporality, DELTA | CUMULATIVE) {
            return Ok(Err(Unmappable::Temporality));
        }
        let text = String::from_utf8_lossy;
        let (given, unit) = (text(metric.name), text(metric.unit));
        let mut name = String::new();
        let namer = &self.options.namer;
        if namer.metric(&given, &unit, shape, &mut name).is_err() {
            return Ok(Err(Unmappable::Name));
        }
        Ok(Ok(Family { name, kind, help: text(metric.description).into_owned(), unit: namer.unit(&unit) }))
    }

    /// What a resource gives to its series.
    ///
    /// # Errors
    /// Why the attributes cannot be read.
    pub fn resource(&self, attributes: Attributes<'_>) -> Result<Resource, WireError> {
        let mut resource = Resource::default();
        let mut target = LabelSet::default();
        let mut identity: [Option<String>; 3] = Default::default();
        let attributes = sorted(attributes)?;
        for (key, value) in &attributes {
            let mut text = String::new();
            value_text(value, &mut text);
            if let Some(at) = IDENTIFYING.iter().position(|name| name == key) {
                if let Some(slot) = identity.get_mut(at) {
                    *slot = Some(text.clone());
                }
            } else if self.options.target_info {
                self.push_attribute(&mut target, Level::Point, key, &text);
            }
            if self.is_label(key) {
                let mut name = String::new();
                if self.options.namer.label(key, &mut name).is_ok() {
                    resource.labels.push((Level::Resource, name, text));
                }
            }
        }
        let [namespace, name, instance] = identity.map(|part| part.filter(|text| !text.is_empty()));
        let job = name.map(|name| match namespace {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name,
        });
        let told = !target.is_empty();
        let named = job.is_some() || instance.is_some();
        for (label, value) in [("job", job), ("instance", instance)] {
            if let Some(value) = value {
                target.push(Level::Identity, label, &value);
                resource.labels.push((Level::Identity, label.to_owned(), value));
            }
        }
        if self.options.target_info && told && named {
            for (name, value) in &self.options.external_labels {
                target.push(Level::External, name, value);
            }
            target.settle(self.joins());
            target.retain(|name| !name.starts_with("__"));
            resource.target_info = Some(target);
        }
        Ok(resource)
    }

    /// What a scope gives to its series: nothing, if scopes are no labels.
    ///
    /// # Errors
    /// Why the scope cannot be read.
    pub fn scope(&self, group: ScopeGroup<'_>) -> Result<Scope, WireError> {
        let mut scope = Scope::default();
        if !self.options.scope_labels {
            return Ok(scope);
        }
        let known = [
            ("otel_scope_name", group.name()?),
            ("otel_scope_version", group.version()?),
            ("otel_scope_schema_url", group.schema_url()?),
        ];
        let mut set = LabelSet::default();
        for (key, value) in sorted(group.attributes())? {
            let mut text = String::new();
            value_text(&value, &mut text);
            self.push_attribute(&mut set, Level::Point, &format!("otel_scope_{key}"), &text);
        }
        for (name, value) in known {
            set.push(Level::Scope, name, &String::from_utf8_lossy(value));
        }
        set.settle(self.joins());
        scope.labels = set.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Ok(scope)
    }

    /// The labels of a point's series but `__name__`, `le` and `quantile`: sorted, each with a value, none that
    /// begins with `__`.
    ///
    /// # Errors
    /// Why the attributes cannot be read.
    pub fn labels(
        &self,
        resource: &Resource,
        scope: &Scope,
        attributes: Attributes<'_>,
        set: &mut LabelSet,
    ) -> Result<(), WireError> {
        set.clear();
        for (key, value) in sorted(attributes)? {
            let namer = &self.options.namer;
            let name = |out: &mut String| namer.label(&key, out).is_ok();
            set.push_with(Level::Point, name, |out| value_text(&value, out));
        }
        for (level, name, value) in &resource.labels {
            set.push(*level, name, value);
        }
        for (name, value) in &scope.labels {
            set.push(Level::Scope, name, value);
        }
        for (name, value) in &self.options.external_labels {
            set.push(Level::External, name, value);
        }
        set.settle(self.joins());
        // What begins with two underscores is for Prometheus' own use and never sent.
        set.retain(|name| !name.starts_with("__"));
        Ok(())
    }

    /// Whether two attributes of one level can become one label.
    fn joins(&self) -> bool {
        self.options.namer.strategy().escapes()
    }

    fn push_attribute(&self, set: &mut LabelSet, level: Level, key: &str, text: &str) {
        let name = |out: &mut String| self.options.namer.label(key, out).is_ok();
        set.push_with(level, name, |out| out.push_str(text));
    }

    fn is_label(&self, key: &str) -> bool {
        match &self.options.resource_labels {
            ResourceLabels::None => false,
            ResourceLabels::All { exclude_service } => !(*exclude_service && IDENTIFYING.contains(&key)),
            ResourceLabels::Chosen { included, excluded } => {
                let any = |patterns: &[String]| patterns.iter().any(|p| matches(p, key));
                (included.is_empty() || any(included)) && !any(excluded)
            }
        }
    }
}

/// Normalises the name of a label that a configuration gives.
///
/// # Errors
/// Nothing is left of the name.
pub fn config_label(namer: &Namer, key: &str) -> Result<String, NameError> {
    let mut name = String::new();
    namer.label(key, &mut name)?;
    Ok(name)
}

/// Attributes in the order of their keys' bytes, as text.
fn sorted(attributes: Attributes<'_>) -> Result<Vec<(Cow<'_, str>, AnyValue<'_>)>, WireError> {
    let mut list: Vec<_> = attributes
        .map(|pair| pair.map(|(key, value)| (String::from_utf8_lossy(key), value)))
        .collect::<Result<_, _>>()?;
    list.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
    Ok(list)
}

/// The type of what is sent as a gauge: its metadata may know better.
fn gauge_type(metric: &Metric<'_>) -> Result<MetricType, WireError> {
    Ok(match metric.metadata().get(b"prometheus.type")? {
        Some(AnyValue::Str(b"unknown")) => MetricType::Unknown,
        Some(AnyValue::Str(b"info")) => MetricType::Info,
        Some(AnyValue::Str(b"stateset")) => MetricType::StateSet,
        _ => MetricType::Gauge,
    })
}

/// Whether `text` fits a pattern in which `*` stands for any text. Linear but for the number of stars.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    true
}
