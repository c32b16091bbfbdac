//! A small table of components for tests of the file as a whole.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::components::{AnyConfig, AuthSides, Build, Component, ComponentConfig, Kind, Stability};
use crate::config::types::{Endpoint, ExtensionId, GrpcEndpoint, Headers, Optional, Regex};
use crate::connectors::Connector;
use crate::pdata::{Batch, Signal};
use crate::pipeline::{Consumer, Exporter, Extension, Leftover, Outputs, Receiver, RunContext, StartError};

crate::config! {
    /// A server.
    pub struct Server {
        /// Where.
        pub endpoint: Endpoint = Endpoint::default(),
        /// Who.
        pub auth: Optional<Auth> = Optional::none(Auth::default()),
    }
}

crate::config! {
    /// Authentication.
    pub struct Auth {
        /// The extension.
        pub authenticator: ExtensionId = ExtensionId::default(),
    }
}

fn server(endpoint: &'static str) -> Server {
    Server { endpoint: Endpoint::of(endpoint), ..Server::default() }
}

crate::config! {
    /// The protocols.
    pub struct Protocols {
        /// gRPC.
        pub grpc: Optional<Server> = Optional::off(server("localhost:4317")),
        /// HTTP.
        pub http: Optional<Server> = Optional::off(server("localhost:4318")),
    }
}

crate::config! {
    /// Takes OTLP.
    pub struct Otlp {
        /// Which ways.
        pub protocols: Protocols = Protocols::default(),
    }
    validate = Otlp::check;
}

impl Otlp {
    fn check(&self, node: &crate::config::Node, cx: &mut crate::config::Cx) {
        if self.protocols.grpc.get().is_none() && self.protocols.http.get().is_none() {
            cx.error(
                node.pos_of("protocols"),
                "must specify at least one protocol when using the OTLP receiver",
            );
        }
    }

    fn servers(&self) -> impl Iterator<Item = (&'static str, &'static str, &Server)> {
        let grpc = self.protocols.grpc.get();
        let http = self.protocols.http.get();
        grpc.map(|s| ("protocols::grpc::endpoint", "protocols::grpc::auth::authenticator", s))
            .into_iter()
            .chain(http.map(|s| ("protocols::http::endpoint", "protocols::http::auth::authenticator", s)))
    }
}

impl ComponentConfig for Otlp {
    fn listens(&self) -> Vec<(&'static str, String)> {
        self.servers().filter_map(|(path, _, s)| Some((path, s.endpoint.listen_text()?))).collect()
    }
    fn extension_refs(&self) -> Vec<(&'static str, String)> {
        self.servers()
            .filter_map(|(_, path, s)| Some((path, s.auth.get()?.authenticator.to_string())))
            .collect()
    }
}

crate::config! {
    /// Sends.
    pub struct Send {
        /// Where to.
        pub endpoint: GrpcEndpoint = GrpcEndpoint::default(),
        /// How long.
        pub timeout: Duration = Duration::from_secs(5),
        /// With what.
        pub headers: Headers = Headers::default(),
        /// As whom.
        pub auth: Optional<Auth> = Optional::none(Auth::default()),
    }
}

impl ComponentConfig for Send {
    fn extension_refs(&self) -> Vec<(&'static str, String)> {
        let auth = self.auth.get().map(|a| ("auth::authenticator", a.authenticator.to_string()));
        auth.into_iter().collect()
    }
}

crate::config! {
    /// Edits.
    pub struct Edit {
        /// What.
        pub pattern: Regex = Regex::default(),
    }
}
impl ComponentConfig for Edit {}

crate::config! {
    /// Helps.
    pub struct Help {
        /// Where.
        pub endpoint: Endpoint = Endpoint::of("localhost:13133"),
        /// Who comes before.
        pub after: Option<ExtensionId> = None,
    }
}

impl ComponentConfig for Help {
    fn listens(&self) -> Vec<(&'static str, String)> {
        self.endpoint.listen_text().map(|e| ("endpoint", e)).into_iter().collect()
    }
    fn extension_refs(&self) -> Vec<(&'static str, String)> {
        self.after.iter().map(|id| ("after", id.to_string())).collect()
    }
}

crate::config! {
    /// Knows credentials.
    pub struct Creds {
        /// What.
        pub token: crate::config::types::Secret = crate::config::types::Secret::default(),
    }
}
impl ComponentConfig for Creds {
    fn authenticates(&self) -> AuthSides {
        AuthSides { server: true, client: false }
    }
}

crate::config! {
    /// Adds headers.
    pub struct Setter {
        /// Which.
        pub headers: Headers = Headers::default(),
    }
}
impl ComponentConfig for Setter {
    fn authenticates(&self) -> AuthSides {
        AuthSides { server: false, client: true }
    }
}

crate::config! {
    /// Joins.
    pub struct Join {}
}
impl ComponentConfig for Join {}

crate::config! {
    /// Chooses.
    pub struct Choose {
        /// Where to.
        pub pipelines: Vec<String> = Vec::new(),
    }
}
impl ComponentConfig for Choose {
    fn pipeline_refs(&self) -> Vec<(String, String)> {
        let ids = self.pipelines.iter().enumerate();
        ids.map(|(i, id)| (format!("pipelines::{i}"), id.clone())).collect()
    }
}

struct Nothing;

#[async_trait]
impl Receiver for Nothing {
    async fn start(&mut self, _: Outputs, _: &RunContext) -> Result<(), StartError> {
        Ok(())
    }
    async fn stop(&mut self, _: Instant) {}
}

impl Consumer for Nothing {
    fn consume(&self, _: Batch) {}
    fn holds_acks(&self) -> bool {
        false
    }
}

#[async_trait]
impl Exporter for Nothing {
    async fn start(&self, _: &RunContext) -> Result<(), StartError> {
        Ok(())
    }
    async fn drain(&self, _: Instant) -> Leftover {
        Leftover::default()
    }
}

#[async_trait]
impl Extension for Nothing {
    async fn start(&self, _: &RunContext) -> Result<(), StartError> {
        Ok(())
    }
    async fn stop(&self) {}
}

const fn row<C: ComponentConfig>(
    kind: Kind,
    name: &'static str,
    aliases: &'static [&'static str],
    signals: &'static [Signal],
    build: Build,
) -> Component {
    Component {
        kind,
        name,
        aliases,
        stability: Stability::Beta,
        signals,
        about: "For tests.",
        schema: C::schema,
        decode: |node, cx| {
            let mut config = C::default();
            config.decode_into(node, cx);
            Box::new(config) as Box<dyn AnyConfig>
        },
        build,
    }
}

const RECEIVER: Build = Build::Receiver(|_, _| Ok(Box::new(Nothing)));
const PROCESSOR: Build = Build::Processor(|_, _, _| Err("not built here".to_owned()));
const EXPORTER: Build = Build::Exporter(|_, _, _| Ok(Arc::new(Nothing)));
const EXTENSION: Build = Build::Extension(|_, _| Ok(Arc::new(Nothing)));
const CONNECTOR: Build =
    Build::Connector(|_, _, _, _| Ok(Connector { consumer: Arc::new(Nothing), gap: None }));
const BROKEN: Build = Build::Exporter(|_, _, _| Err("it cannot be built".to_owned()));

pub static TABLE: &[Component] = &[
    row::<Otlp>(Kind::Receiver, "otlp", &[], &Signal::ALL, RECEIVER),
    row::<Edit>(Kind::Processor, "attributes", &[], &Signal::ALL, PROCESSOR),
    row::<Edit>(Kind::Processor, "batch", &[], &Signal::ALL, PROCESSOR),
    row::<Edit>(Kind::Processor, "memory_limiter", &[], &Signal::ALL, PROCESSOR),
    row::<Send>(Kind::Exporter, "otlp_grpc", &["otlp"], &Signal::ALL, EXPORTER),
    row::<Send>(Kind::Exporter, "loki", &[], &[Signal::Logs], EXPORTER),
    row::<Send>(Kind::Exporter, "broken", &[], &Signal::ALL, BROKEN),
    row::<Join>(Kind::Connector, "forward", &[], &Signal::ALL, CONNECTOR),
    row::<Join>(Kind::Connector, "loki", &[], &[Signal::Logs], CONNECTOR),
    row::<Choose>(Kind::Connector, "routing", &[], &Signal::ALL, CONNECTOR),
    row::<Help>(Kind::Extension, "health_check", &[], &[], EXTENSION),
    row::<Creds>(Kind::Extension, "basicauth", &[], &[], EXTENSION),
    row::<Setter>(Kind::Extension, "headers_setter", &[], &[], EXTENSION),
];
