//! What `resource_detection` is configured with: detectors, and a switch for each attribute they know.

use std::marker::PhantomData;
use std::time::Duration;

use crate::components::ComponentConfig;
use crate::config;
use crate::config::types::Unsupported;
use crate::config::{
    Config, Cx, Node, Schema, SchemaField, SchemaKind, Value, nearest, text_of, unknown_key,
};

/// Something that finds out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Detector {
    /// What environment variables say of resources.
    #[default]
    Env,
    /// What the operating system knows.
    System,
    /// The name of the Kubernetes node, from the Downward API.
    K8sNode,
    /// The same under its new name.
    K8sApi,
}

/// Where the host's name may be asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HostnameSource {
    /// The full name, from the hosts file or DNS.
    #[default]
    Dns,
    /// The kernel.
    Os,
    /// The canonical name in DNS.
    Cname,
    /// The name of the host's addresses.
    Lookup,
}

/// A table of the attributes that a detector knows.
pub trait Table {
    /// The name of the config type.
    const NAME: &'static str;
    /// The attributes, and whether they are on by default.
    const ALL: &'static [Known];
}

/// An attribute that a detector knows.
#[derive(Debug)]
pub struct Known {
    /// Its key.
    pub key: &'static str,
    /// Whether it is on by default.
    pub on: bool,
    /// What it holds.
    pub doc: &'static str,
    /// Why it cannot be turned on.
    pub never: Option<&'static str>,
}

/// A switch for each attribute of a detector: `{host.arch: {enabled: true}}`.
#[derive(Debug, Clone)]
pub struct Switches<T: Table>(Vec<bool>, PhantomData<T>);

config! {
    /// Whether an attribute is detected.
    pub struct Switch {
        /// Whether the attribute is set.
        pub enabled: bool = false,
    }
}

config! {
    /// The detector `env`.
    pub struct EnvConfig {
        /// The attributes that are taken; not written: all there are.
        pub allow_list: Option<Vec<String>> = None,
    }
}

config! {
    /// The detector `system`.
    pub struct SystemConfig {
        /// Where the host's name is asked for, until one answers. `dns`: the full name, from the hosts file or DNS. `os`:
        /// the kernel's; in a pod the pod's name. `cname`: the canonical name in DNS. `lookup`: the name of the host's
        /// addresses.
        pub hostname_sources: Vec<HostnameSource> = vec![HostnameSource::Dns, HostnameSource::Os],
        /// Which attributes are set.
        pub resource_attributes: Switches<SystemTable> = Switches::default(),
    }
}

config! {
    /// The detector `k8s_api`, or `k8snode`: what the Downward API puts into environment variables.
    pub struct KubernetesConfig {
        /// The environment variable that holds the node's name.
        pub node_from_env_var: String = "K8S_NODE_NAME".to_owned(),
        /// Not supported: the Kubernetes API server is not asked, only environment variables are.
        pub auth_type: Unsupported = Unsupported,
        /// Not supported: the Kubernetes API server is not asked, only environment variables are.
        pub context: Unsupported = Unsupported,
        /// Which attributes are set.
        pub resource_attributes: Switches<KubernetesTable> = Switches::default(),
    }
    validate = KubernetesConfig::check;
}

config! {
    /// Adds to every resource what the agent finds out about the place it runs at. Found out once, at the start.
    pub struct ResourceDetectionConfig {
        /// Who finds out: `env`, `system`, `k8s_api` (or `k8snode`). Where two know an attribute the first is right.
        pub detectors: Vec<Detector> = vec![Detector::Env],
        /// Whether attributes replace those that a resource has.
        pub r#override: bool = true,
        /// How long each detector may take. 0 is no limit.
        pub timeout: Duration = Duration::from_secs(5),
        /// How often it is found out again. 0 is never.
        pub refresh_interval: Duration = Duration::ZERO,
        /// Whether the agent does not start when something cannot be found out. Otherwise that is missing, and logged.
        pub fail_on_missing_metadata: bool = false,
        /// `OTEL_RESOURCE_ATTRIBUTES`: `key=value,key=value`, values percent-encoded.
        pub env: EnvConfig = EnvConfig::default(),
        /// Host and operating system.
        pub system: SystemConfig = SystemConfig::default(),
        /// The Kubernetes node; the same as `k8s_api`.
        pub k8snode: KubernetesConfig = KubernetesConfig::default(),
        /// The Kubernetes node, from environment variables that the pod's specification fills.
        pub k8s_api: KubernetesConfig = KubernetesConfig::default(),
    }
    hints {
        "attributes" => "the attributes of a detector are switched one by one: system: {resource_attributes: {host.arch: {enabled: true}}}",
    }
    validate = ResourceDetectionConfig::check;
}

/// The attributes of `system`.
#[derive(Debug, Clone)]
pub struct SystemTable;

/// The attributes of `k8s_api` and `k8snode`.
#[derive(Debug, Clone)]
pub struct KubernetesTable;

/// Detectors of the Collector that are not here.
const ELSEWHERE: [&str; 30] = [
    "akamai",
    "aks",
    "alibaba_ecs",
    "aws",
    "azure",
    "azurecontainerapps",
    "consul",
    "digitalocean",
    "docker",
    "dynatrace",
    "ec2",
    "ecs",
    "eks",
    "elasticbeanstalk",
    "gce",
    "gcp",
    "gke",
    "heroku",
    "hetzner",
    "ibmcloud_classic",
    "ibmcloud_vpc",
    "kubeadm",
    "lambda",
    "nova",
    "openshift",
    "oraclecloud",
    "scaleway",
    "tencent_cvm",
    "upcloud",
    "vultr",
];

const API_SERVER: &str = "it needs the Kubernetes API server, which is not asked";

const fn known(key: &'static str, on: bool, doc: &'static str) -> Known {
    Known { key, on, doc, never: None }
}

impl Table for SystemTable {
    const NAME: &'static str = "SystemAttributes";
    const ALL: &'static [Known] = &[
        known("host.name", true, "The host's name, from the first of `hostname_sources` that has one."),
        known("os.type", true, "The operating system: `linux`."),
        known("host.id", false, "The content of `/etc/machine-id`."),
        known("host.arch", false, "The processor's architecture: `amd64`, `arm64`, …"),
        known("host.ip", false, "The host's addresses, without those of the host itself."),
        known("host.mac", false, "The addresses of its network interfaces: `AC-DE-48-23-45-67`."),
        known("host.interface", false, "The names of its network interfaces."),
        known("host.cpu.vendor.id", false, "The processor's maker, as it says."),
        known("host.cpu.family", false, "Its family."),
        known("host.cpu.model.id", false, "Its model's number."),
        known("host.cpu.model.name", false, "Its model's name."),
        known("host.cpu.stepping", false, "Its stepping."),
        known("host.cpu.cache.l2.size", false, "Its second-level cache, in bytes."),
        known(
            "os.description",
            false,
            "The operating system's name and version, and the kernel's, in one line.",
        ),
        known("os.name", false, "The operating system's name, such as `Ubuntu`."),
        known("os.version", false, "Its version."),
        known("os.build.id", false, "Its build, where it has one."),
    ];
}

impl Table for KubernetesTable {
    const NAME: &'static str = "KubernetesAttributes";
    const ALL: &'static [Known] = &[
        known("k8s.node.name", true, "The node's name, from the variable that `node_from_env_var` names."),
        known("k8s.pod.name", false, "The name of the agent's own pod, from `K8S_POD_NAME`. For sidecars."),
        known("k8s.pod.uid", false, "Its uid, from `K8S_POD_UID`."),
        known("k8s.namespace.name", false, "Its namespace, from `K8S_NAMESPACE_NAME`."),
        Known { key: "k8s.node.uid", on: false, doc: "", never: Some(API_SERVER) },
        Known { key: "k8s.cluster.uid", on: false, doc: "", never: Some(API_SERVER) },
    ];
}

impl<T: Table> Switches<T> {
    /// Whether an attribute is on.
    pub fn on(&self, key: &str) -> bool {
        T::ALL.iter().zip(&self.0).any(|(known, on)| known.key == key && *on)
    }

    /// The attributes that are on.
    pub fn all_on(&self) -> impl Iterator<Item = &'static str> {
        T::ALL.iter().zip(&self.0).filter(|(_, on)| **on).map(|(known, _)| known.key)
    }

    /// Turns an attribute on or off.
    pub fn set(&mut self, key: &str, on: bool) {
        if let Some((_, slot)) = T::ALL.iter().zip(&mut self.0).find(|(known, _)| known.key == key) {
            *slot = on;
        }
    }
}

impl<T: Table> Default for Switches<T> {
    fn default() -> Self {
        Switches(T::ALL.iter().map(|known| known.on).collect(), PhantomData)
    }
}

impl<T: Table> Config for Switches<T> {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        let entries = match &node.value {
            Value::Null => return,
            Value::Map(entries) => entries,
            _ => return cx.wrong_type(node, "a mapping"),
        };
        let keys = || T::ALL.iter().filter(|k| k.never.is_none()).map(|k| k.key).collect::<Vec<_>>();
        for (key, value) in entries {
            cx.within(&key.text, |cx| {
                match T::ALL.iter().zip(&mut self.0).find(|(known, _)| known.key == key.text) {
                    None => unknown_key(key.pos, &key.text, &keys(), cx),
                    Some((known, on)) => {
                        let mut switch = Switch { enabled: *on };
                        switch.decode_into(value, cx);
                        match known.never {
                            Some(why) if switch.enabled => {
                                cx.error_hint(value.pos, format!("\"{}\" is not supported", known.key), why);
                            }
                            _ => *on = switch.enabled,
                        }
                    }
                }
            });
        }
    }

    fn schema() -> Schema {
        Switches::<T>::default().schema_of()
    }

    fn schema_of(&self) -> Schema {
        let field = |(known, on): (&Known, &bool)| {
            let switch = Switch { enabled: *on };
            let schema = match known.never {
                Some(_) => Unsupported::schema(),
                None => switch.schema_of(),
            };
            SchemaField { key: known.key, doc: known.doc, default: switch.to_json(), schema }
        };
        let fields = T::ALL.iter().zip(&self.0).map(field).collect();
        Schema { name: T::NAME, kind: SchemaKind::Struct { doc: "Which attributes are set.", fields } }
    }

    fn to_json(&self) -> serde_json::Value {
        let supported = T::ALL.iter().zip(&self.0).filter(|(known, _)| known.never.is_none());
        let entry = |(known, on): (&Known, &bool)| (known.key.to_owned(), Switch { enabled: *on }.to_json());
        serde_json::Value::Object(supported.map(entry).collect())
    }
}

impl Detector {
    const ALL: [(&'static str, Detector); 4] = [
        ("env", Detector::Env),
        ("system", Detector::System),
        ("k8snode", Detector::K8sNode),
        ("k8s_api", Detector::K8sApi),
    ];

    /// The word as it is written in the file.
    pub fn word(self) -> &'static str {
        Detector::ALL.iter().find(|(_, d)| *d == self).map_or("", |(word, _)| word)
    }
}

impl HostnameSource {
    const ALL: [(&'static str, HostnameSource); 4] = [
        ("dns", HostnameSource::Dns),
        ("os", HostnameSource::Os),
        ("cname", HostnameSource::Cname),
        ("lookup", HostnameSource::Lookup),
    ];

    /// The word as it is written in the file.
    pub fn word(self) -> &'static str {
        HostnameSource::ALL.iter().find(|(_, s)| *s == self).map_or("", |(word, _)| word)
    }
}

impl Config for Detector {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        let words = Detector::ALL.map(|(word, _)| word);
        let Some(text) = text_of(node, cx) else { return };
        match Detector::ALL.iter().find(|(word, _)| *word == text) {
            Some((_, detector)) => *self = *detector,
            None => {
                let there = format!("there are {}", words.join(", "));
                let hint = match nearest(text, &words) {
                    _ if ELSEWHERE.contains(&text) => {
                        format!("the Collector's detector is not supported here; {there}")
                    }
                    Some(near) => format!("did you mean \"{near}\"? {there}"),
                    None => there,
                };
                cx.error_hint(node.pos, format!("invalid detector key: {text}"), hint);
            }
        }
    }

    fn schema() -> Schema {
        Schema { name: "detector", kind: SchemaKind::Enum(&["env", "system", "k8snode", "k8s_api"]) }
    }

    fn to_json(&self) -> serde_json::Value {
        self.word().into()
    }
}

impl Config for HostnameSource {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        let Some(text) = text_of(node, cx) else { return };
        match HostnameSource::ALL.iter().find(|(word, _)| *word == text) {
            Some((_, source)) => *self = *source,
            None => cx.error_hint(
                node.pos,
                format!("invalid hostname source: {text}"),
                "valid sources: dns, os, cname, lookup",
            ),
        }
    }

    fn schema() -> Schema {
        Schema { name: "hostname_source", kind: SchemaKind::Enum(&["dns", "os", "cname", "lookup"]) }
    }

    fn to_json(&self) -> serde_json::Value {
        self.word().into()
    }
}

impl KubernetesConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        if self.node_from_env_var.is_empty() && self.resource_attributes.on("k8s.node.name") {
            let pos = node.pos_of("node_from_env_var");
            cx.within("node_from_env_var", |cx| cx.error(pos, "name an environment variable"));
        }
    }
}

impl ResourceDetectionConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        if self.detectors.is_empty() {
            let pos = node.pos_of("detectors");
            cx.within("detectors", |cx| cx.error_hint(pos, "no detectors", "name at least one, such as env"));
        }
        for (i, detector) in self.detectors.iter().enumerate() {
            if self.detectors.iter().take(i).any(|earlier| earlier == detector) {
                let pos = node.pos_of("detectors");
                let why = format!("the detector \"{}\" is named twice", detector.word());
                cx.within("detectors", |cx| cx.error(pos, why));
            }
        }
    }
}

impl ComponentConfig for ResourceDetectionConfig {}
