//! The one table of components: kind, type name, aliases, stability, signals, config type, constructor.
//!
//! Adding a component is one file, one row here, one example under `pipelines/`. The same table feeds config
//! decoding, `tidegate components`, the JSON schema and the reference pages.

use std::any::Any;
use std::sync::Arc;

use crate::config::{Config, Cx, Node, Schema};
use crate::connectors::forward::{self, ForwardConfig};
use crate::connectors::routing::{self, RoutingConfig};
use crate::connectors::{Connector, Target};
use crate::exporters::debug::{self, DebugConfig};
use crate::exporters::file::{self, FileConfig};
use crate::exporters::loki::{self, LokiConfig};
use crate::exporters::nop::{self, NopConfig};
use crate::exporters::otlp_grpc::{self, OtlpGrpcConfig};
use crate::exporters::otlp_http::{self, OtlpHttpConfig};
use crate::exporters::prometheus::{self, PrometheusConfig};
use crate::exporters::prometheus_remote_write::{self, RemoteWriteConfig};
use crate::extensions::basicauth::{self, BasicAuthConfig};
use crate::extensions::bearertokenauth::{self, BearerTokenAuthConfig};
use crate::extensions::headers_setter::{self, HeadersSetterConfig};
use crate::extensions::health_check::{self, HealthCheckConfig};
use crate::pdata::Signal;
use crate::pipeline::{BuildContext, Exporter, Extension, Receiver, Stage};
use crate::processors::attributes::{self, AttributesProcessorConfig};
use crate::processors::batch::{self, BatchConfig};
use crate::processors::filter::{self, FilterConfig};
use crate::processors::memory_limiter::{self, MemoryLimiterConfig};
use crate::processors::probabilistic_sampler::{self, ProbabilisticSamplerConfig};
use crate::processors::relabel::{self, RelabelProcessorConfig};
use crate::processors::resource::{self, ResourceProcessorConfig};
use crate::processors::resource_detection::{self, ResourceDetectionConfig};
use crate::processors::tenant::{self, TenantConfig};
use crate::processors::transform::{self, TransformConfig};
use crate::receivers::nvml::{self, NvmlConfig};
use crate::receivers::otlp::{self, OtlpConfig};

/// Which section of the file a component is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `receivers:`
    Receiver,
    /// `processors:`
    Processor,
    /// `exporters:`
    Exporter,
    /// `connectors:`
    Connector,
    /// `extensions:`
    Extension,
}

impl Kind {
    /// All kinds, in the order of the file.
    pub const ALL: [Kind; 5] =
        [Kind::Receiver, Kind::Processor, Kind::Exporter, Kind::Connector, Kind::Extension];

    /// `receiver`, `processor`, `exporter`, `connector` or `extension`.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Receiver => "receiver",
            Kind::Processor => "processor",
            Kind::Exporter => "exporter",
            Kind::Connector => "connector",
            Kind::Extension => "extension",
        }
    }

    /// The section of the file: `receivers`, …
    pub const fn section(self) -> &'static str {
        match self {
            Kind::Receiver => "receivers",
            Kind::Processor => "processors",
            Kind::Exporter => "exporters",
            Kind::Connector => "connectors",
            Kind::Extension => "extensions",
        }
    }
}

/// What a user may expect of a component, in the Collector's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stability {
    /// Keys may still change.
    Alpha,
    /// Keys are kept; behaviour may still improve.
    Beta,
    /// Kept as it is.
    Stable,
}

impl Stability {
    /// The word in listings.
    pub const fn name(self) -> &'static str {
        match self {
            Stability::Alpha => "alpha",
            Stability::Beta => "beta",
            Stability::Stable => "stable",
        }
    }
}

/// Which sides of authentication an extension does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AuthSides {
    /// It checks clients that send to us.
    pub server: bool,
    /// It adds credentials to what we send.
    pub client: bool,
}

/// Something that may be known of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientFact {
    /// A header of its requests.
    Metadata(String),
    /// The names in its certificate.
    Certificate,
    /// What an authenticator said of it.
    Auth,
}

/// A component's config type: what the checks across components need to know of it.
pub trait ComponentConfig: Config + Default + Any + Send + Sync {
    /// Addresses it listens on, each with the path of its key inside the component (`protocols::grpc::endpoint`),
    /// for the check that no two collide. TCP as `host:port`, unix sockets as `unix:/path`.
    fn listens(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Extensions it refers to, each with the path of the key that names it (`auth::authenticator`).
    fn extension_refs(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Pipelines it sends to, each with the path of its place inside the component (`table::0::pipelines::1`). For
    /// connectors that choose; empty where all pipelines that list the connector as a receiver are meant.
    fn pipeline_refs(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// What it can do as an authenticator, once started with this config.
    fn authenticates(&self) -> AuthSides {
        AuthSides::default()
    }

    /// What it asks about clients, each with the path of the key that does.
    fn asks_of_clients(&self) -> Vec<(String, ClientFact)> {
        Vec::new()
    }

    /// Whether a receiver tells this of its clients.
    fn knows_of_clients(&self, _fact: &ClientFact) -> bool {
        false
    }

    /// Whether this is still known of clients behind a processor.
    fn keeps_of_clients(&self, _fact: &ClientFact) -> bool {
        true
    }
}

/// A decoded component config whose type the table knows.
pub trait AnyConfig: Send + Sync {
    /// For the constructor's downcast.
    fn as_any(&self) -> &dyn Any;
    /// See [`ComponentConfig::listens`].
    fn listens(&self) -> Vec<(&'static str, String)>;
    /// See [`ComponentConfig::extension_refs`].
    fn extension_refs(&self) -> Vec<(&'static str, String)>;
    /// See [`ComponentConfig::pipeline_refs`].
    fn pipeline_refs(&self) -> Vec<(String, String)>;
    /// See [`ComponentConfig::authenticates`].
    fn authenticates(&self) -> AuthSides;
    /// See [`ComponentConfig::asks_of_clients`].
    fn asks_of_clients(&self) -> Vec<(String, ClientFact)>;
    /// See [`ComponentConfig::knows_of_clients`].
    fn knows_of_clients(&self, fact: &ClientFact) -> bool;
    /// See [`ComponentConfig::keeps_of_clients`].
    fn keeps_of_clients(&self, fact: &ClientFact) -> bool;
}

impl<T: ComponentConfig> AnyConfig for T {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn listens(&self) -> Vec<(&'static str, String)> {
        ComponentConfig::listens(self)
    }
    fn extension_refs(&self) -> Vec<(&'static str, String)> {
        ComponentConfig::extension_refs(self)
    }
    fn pipeline_refs(&self) -> Vec<(String, String)> {
        ComponentConfig::pipeline_refs(self)
    }
    fn authenticates(&self) -> AuthSides {
        ComponentConfig::authenticates(self)
    }
    fn asks_of_clients(&self) -> Vec<(String, ClientFact)> {
        ComponentConfig::asks_of_clients(self)
    }
    fn knows_of_clients(&self, fact: &ClientFact) -> bool {
        ComponentConfig::knows_of_clients(self, fact)
    }
    fn keeps_of_clients(&self, fact: &ClientFact) -> bool {
        ComponentConfig::keeps_of_clients(self, fact)
    }
}

/// Why a component cannot be built from a config that decodes: one sentence for the user.
pub type BuildError = String;

/// The constructor of a connector.
pub type ConnectorBuild =
    fn(&dyn AnyConfig, Signal, Vec<Target>, &BuildContext) -> Result<Connector, BuildError>;

/// A component's constructor. It opens nothing: `validate` runs it too.
#[derive(Clone, Copy)]
pub enum Build {
    /// One instance an id, for all signals.
    Receiver(fn(&dyn AnyConfig, &BuildContext) -> Result<Box<dyn Receiver>, BuildError>),
    /// One instance a pipeline.
    Processor(fn(&dyn AnyConfig, Signal, &BuildContext) -> Result<Stage, BuildError>),
    /// One instance an id and signal.
    Exporter(fn(&dyn AnyConfig, Signal, &BuildContext) -> Result<Arc<dyn Exporter>, BuildError>),
    /// One instance an id and signal, over the pipelines of that signal that list it as a receiver.
    Connector(ConnectorBuild),
    /// One instance an id.
    Extension(fn(&dyn AnyConfig, &BuildContext) -> Result<Arc<dyn Extension>, BuildError>),
}

/// One row of the table.
pub struct Component {
    /// Which section it is written in.
    pub kind: Kind,
    /// The type name.
    pub name: &'static str,
    /// Older names of the same type; using one is a warning.
    pub aliases: &'static [&'static str],
    /// What a user may expect.
    pub stability: Stability,
    /// The signals it supports; empty for extensions.
    pub signals: &'static [Signal],
    /// One sentence for listings and the reference.
    pub about: &'static str,
    /// Describes its config.
    pub schema: fn() -> Schema,
    /// Decodes its config over the defaults.
    pub decode: fn(&Node, &mut Cx) -> Box<dyn AnyConfig>,
    /// Builds it.
    pub build: Build,
}

/// One row: `row!(Receiver, "otlp", aliases [], Beta, ALL, "about", OtlpConfig, otlp::build)`. The constructor
/// takes `&OtlpConfig` first, then what its kind's constructors take.
macro_rules! row {
    ($kind:ident, $name:literal, aliases $aliases:expr, $stability:ident, $signals:expr, $about:literal,
     $config:ty, $build:expr) => {
        Component {
            kind: Kind::$kind,
            name: $name,
            aliases: &$aliases,
            stability: Stability::$stability,
            signals: $signals,
            about: $about,
            schema: <$config as Config>::schema,
            decode: |node, cx| {
                let mut config = <$config>::default();
                config.decode_into(node, cx);
                Box::new(config)
            },
            build: row!(@build $kind $config, $build),
        }
    };
    (@build Receiver $config:ty, $build:expr) => {
        Build::Receiver(|config, cx| { let build: fn(&$config, &BuildContext) -> _ = $build; build(typed(config)?, cx) })
    };
    (@build Extension $config:ty, $build:expr) => {
        Build::Extension(|config, cx| { let build: fn(&$config, &BuildContext) -> _ = $build; build(typed(config)?, cx) })
    };
    (@build Processor $config:ty, $build:expr) => {
        Build::Processor(|config, signal, cx| {
            let build: fn(&$config, Signal, &BuildContext) -> _ = $build;
            build(typed(config)?, signal, cx)
        })
    };
    (@build Connector $config:ty, $build:expr) => {
        Build::Connector(|config, signal, targets, cx| {
            let build: fn(&$config, Signal, Vec<Target>, &BuildContext) -> _ = $build;
            build(typed(config)?, signal, targets, cx)
        })
    };
    (@build Exporter $config:ty, $build:expr) => {
        Build::Exporter(|config, signal, cx| {
            let build: fn(&$config, Signal, &BuildContext) -> _ = $build;
            build(typed(config)?, signal, cx)
        })
    };
}

/// Every component there is.
#[rustfmt::skip]
pub static COMPONENTS: &[Component] = &[
    row!(Receiver, "nvml", aliases [], Beta, &[Signal::Metrics, Signal::Logs],
        "Reads the node's NVIDIA GPUs, and says who holds them at what cost.", NvmlConfig, nvml::build),
    row!(Receiver, "otlp", aliases [], Beta, &Signal::ALL,
        "Receives OTLP over gRPC and HTTP, protobuf and JSON.", OtlpConfig, otlp::build),
    row!(Processor, "attributes", aliases [], Beta, &Signal::ALL,
        "Changes attributes of spans, log records and data points.", AttributesProcessorConfig, attributes::build),
    row!(Processor, "batch", aliases [], Beta, &Signal::ALL,
        "Collects requests into larger ones, by item count and time.", BatchConfig, batch::build),
    row!(Processor, "filter", aliases [], Beta, &Signal::ALL,
        "Drops spans, span events, metrics, data points and log records.", FilterConfig, filter::build),
    row!(Processor, "memory_limiter", aliases [], Beta, &Signal::ALL,
        "Refuses telemetry before memory runs out; senders are told to try again.",
        MemoryLimiterConfig, memory_limiter::build),
    row!(Processor, "probabilistic_sampler", aliases [], Beta, &[Signal::Traces, Signal::Logs],
        "Keeps a part of all traces or log records, and says of each what it stands for.",
        ProbabilisticSamplerConfig, probabilistic_sampler::build),
    row!(Processor, "relabel", aliases [], Beta, &Signal::ALL,
        "Changes, drops and picks telemetry by Prometheus' relabelling rules.",
        RelabelProcessorConfig, relabel::build),
    row!(Processor, "resource", aliases [], Beta, &Signal::ALL,
        "Changes attributes of the resource that telemetry comes from.", ResourceProcessorConfig, resource::build),
    row!(Processor, "resource_detection", aliases ["resourcedetection"], Beta, &Signal::ALL,
        "Says of every resource where it runs: host, node, and what the environment knows.",
        ResourceDetectionConfig, resource_detection::build),
    row!(Processor, "tenant", aliases [], Beta, &Signal::ALL,
        "Finds out whose telemetry it is, keeps tenants apart and each within its limits.", TenantConfig, tenant::build),
    row!(Processor, "transform", aliases [], Beta, &Signal::ALL,
        "Changes telemetry with statements of the transformation language (OTTL).", TransformConfig, transform::build),
    row!(Exporter, "debug", aliases [], Beta, &Signal::ALL,
        "Writes what it gets to the agent's log, the console or files, for people to read.",
        DebugConfig, debug::build),
    row!(Exporter, "file", aliases [], Beta, &Signal::ALL,
        "Writes OTLP to files, as JSON lines or length-prefixed protobuf.", FileConfig, file::build),
    row!(Exporter, "loki", aliases [], Beta, &[Signal::Logs],
        "Sends logs to Loki by its push protocol, with few labels and the rest as structured metadata.",
        LokiConfig, loki::build),
    row!(Exporter, "nop", aliases [], Stable, &Signal::ALL,
        "Takes everything and sends it nowhere.", NopConfig, nop::build),
    row!(Exporter, "otlp_grpc", aliases ["otlp"], Beta, &Signal::ALL,
        "Sends OTLP over gRPC.", OtlpGrpcConfig, otlp_grpc::build),
    row!(Exporter, "otlp_http", aliases ["otlphttp"], Beta, &Signal::ALL,
        "Sends OTLP over HTTP, as protobuf or JSON.", OtlpHttpConfig, otlp_http::build),
    row!(Exporter, "prometheus", aliases [], Beta, &[Signal::Metrics],
        "Shows metrics on a page that Prometheus scrapes.", PrometheusConfig, prometheus::build),
    row!(Exporter, "prometheus_remote_write", aliases ["prometheusremotewrite"], Beta, &[Signal::Metrics],
        "Sends metrics to Prometheus and whatever speaks its remote write protocol, 1.0 or 2.0.",
        RemoteWriteConfig, prometheus_remote_write::build),
    row!(Connector, "forward", aliases [], Beta, &Signal::ALL,
        "Hands everything on to other pipelines of the same signal.", ForwardConfig, forward::build),
    row!(Connector, "routing", aliases [], Beta, &Signal::ALL,
        "Sends telemetry to one pipeline or another: by tenant, attribute or condition.",
        RoutingConfig, routing::build),
    row!(Extension, "basicauth", aliases [], Beta, &[],
        "User and password, for receivers and exporters.", BasicAuthConfig, basicauth::build),
    row!(Extension, "bearertokenauth", aliases [], Beta, &[],
        "A token in a header, for receivers and exporters.", BearerTokenAuthConfig, bearertokenauth::build),
    row!(Extension, "headers_setter", aliases [], Beta, &[],
        "Sets headers of what exporters send, from what clients sent.", HeadersSetterConfig, headers_setter::build),
    row!(Extension, "health_check", aliases [], Beta, &[],
        "Says over HTTP whether the agent is ready.", HealthCheckConfig, health_check::build),
];

/// The row for a type name or alias.
pub fn find(kind: Kind, type_name: &str) -> Option<&'static Component> {
    COMPONENTS.iter().find(|c| c.kind == kind && (c.name == type_name || c.aliases.contains(&type_name)))
}

/// The config as the type the row was written for.
fn typed<T: 'static>(config: &dyn AnyConfig) -> Result<&T, BuildError> {
    config.as_any().downcast_ref().ok_or_else(|| "the config has another component's type".to_owned())
}
