//! What a user may write under `receivers: nvml:`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::model::{Group, Groups};
use crate::components::ComponentConfig;
use crate::config::types::Optional;
use crate::config::{Cx, Node, Value};
use crate::processors::tenant::SourceConfig;
use crate::{config, config_enum};

/// Where the kubelet tells which pod holds which device.
const POD_RESOURCES: &str = "unix:///var/lib/kubelet/pod-resources/kubelet.sock";
/// The shortest interval: NVML's own averages cover up to a second.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);
/// The shortest interval of samples between exports.
const SHORTEST_SAMPLE: Duration = Duration::from_millis(20);
/// What sources of tenants see of a pod.
pub const ATTRIBUTES: [&str; 5] =
    ["k8s.namespace.name", "k8s.pod.name", "k8s.pod.uid", "k8s.container.name", "k8s.node.name"];
/// More simulated devices than this are a mistake.
const MOST_SIMULATED: u32 = 64;

config_enum! {
    /// What stands in the label `gpu_id`.
    pub enum GpuId {
        /// The UUID, which is unique in the fleet.
        Uuid = "uuid",
        /// The number, which every node has; join on `instance` as well.
        Index = "index",
    }
}

#[allow(clippy::derivable_impls, reason = "the macro derives no default")]
impl Default for GpuId {
    fn default() -> Self {
        GpuId::Uuid
    }
}

config! {
    /// Reads the node's NVIDIA GPUs through NVML: metrics of devices, MIG instances and processes, events as log
    /// records, and who holds which GPU at what cost.
    pub struct NvmlConfig {
        /// How often metrics are made; at least 1s.
        pub collection_interval: Duration = Duration::from_secs(10),
        /// How long after the start the first are made.
        pub initial_delay: Duration = Duration::from_secs(1),
        /// How often power and utilisation are read between two exports, for their minimum, mean and maximum; 0 turns
        /// that off.
        pub sample_interval: Duration = Duration::ZERO,
        /// How often readings are taken that are slow or hardly change: limits, link maxima, errors by place, modes. With
        /// each collection where that comes less often.
        pub slow_interval: Duration = Duration::from_secs(60),
        /// How long the driver may take for one device. One that takes longer is reported as hung and left alone until
        /// its call has come back; the others go on.
        pub device_timeout: Duration = Duration::from_secs(5),
        /// The driver's library; empty: `libnvidia-ml.so.1` where the system finds it. With a driver in a container
        /// it is below `/run/nvidia/driver`.
        pub library_path: String = String::new(),
        /// Whether a node without driver or GPU says so in metrics (`nvidia.gpu.collection.success` is 0). Without it
        /// such a node has one line in the log and `tidegate_nvml_up` among the agent's own metrics.
        pub required: bool = false,
        /// Which devices are read.
        pub devices: DevicesConfig = DevicesConfig::default(),
        /// Leaves devices alone that the system has put to sleep, rather than waking them up.
        pub skip_sleeping: bool = false,
        /// The name of this node in attributes; empty: the environment's `K8S_NODE_NAME` or `NODE_NAME`, else the
        /// name of the host.
        pub node: String = String::new(),
        /// Adds `gpu_utilization_percent`, `gpu_memory_used_bytes`, `gpu_memory_total_bytes`,
        /// `gpu_temperature_celsius`, `gpu_memory_allocated_bytes` and `gpu_memory_reserved_bytes`.
        pub legacy_names: bool = false,
        /// What stands in the label `gpu_id` of these: `uuid` or `index`.
        pub legacy_gpu_id: GpuId = GpuId::Uuid,
        /// Adds the metrics that have a name in dcgm-exporter under that name, with its labels.
        pub dcgm_names: bool = false,
        /// Which readings are taken.
        pub groups: GroupsConfig = GroupsConfig::default(),
        /// Invents GPUs instead of reading some: for laptops, demonstrations and dashboards.
        pub simulate: Optional<SimulateConfig> = Optional::none(SimulateConfig::default()),
        /// Asks the kubelet which pod holds which device.
        pub pod_resources: Optional<PodResourcesConfig> = Optional::off(PodResourcesConfig::default()),
        /// Finds pods by the processes on a device where the kubelet knows of none.
        pub processes: ProcessesConfig = ProcessesConfig::default(),
        /// Whose a pod is.
        pub tenant: OwnerConfig = OwnerConfig::default(),
        /// Adds up GPU time and what it costs.
        pub cost: Optional<CostConfig> = Optional::off(CostConfig::default()),
    }
    hints {
        "interval" => "write collection_interval",
        "scrape_interval" => "write collection_interval",
        "metrics" => "readings are switched on and off by groups",
    }
    validate = NvmlConfig::check;
}

config! {
    /// Which devices are read: each entry is a UUID, a number, a PCI bus id, or a product's name in which `*` stands
    /// for anything.
    pub struct DevicesConfig {
        /// Only these; empty: all.
        pub include: Vec<String> = Vec::new(),
        /// Not these.
        pub exclude: Vec<String> = Vec::new(),
    }
}

config! {
    /// A group of readings that is on unless switched off.
    pub struct OnSwitch {
        /// Whether it is read.
        pub enabled: bool = true,
    }
}

config! {
    /// A group of readings that is off unless switched on.
    pub struct OffSwitch {
        /// Whether it is read.
        pub enabled: bool = false,
    }
}

macro_rules! groups {
    ($( $(#[doc = $doc:literal])* $field:ident: $switch:ident = $group:ident; )*) => {
        config! {
            /// Which readings are taken. What a device does not have is not there, whatever is written here.
            pub struct GroupsConfig {
                $( $(#[doc = $doc])* pub $field: $switch = $switch::default(), )*
            }
        }

        impl GroupsConfig {
            /// The groups that are on.
            pub fn on(&self) -> Groups {
                let mut on = 0;
                $( on |= u32::from(self.$field.enabled) << Group::$group as u32; )*
                Groups(on)
            }
        }
    };
}

groups! {
    /// How busy the GPU, its memory controller and its encoders are.
    utilization: OnSwitch = Utilization;
    /// Memory and BAR1.
    memory: OnSwitch = Memory;
    /// Temperatures, limits, margin.
    temperature: OnSwitch = Temperature;
    /// Power, energy, power limits.
    power: OnSwitch = Power;
    /// Clocks, their limits, performance state.
    clocks: OnSwitch = Clocks;
    /// Why and how long clocks were held back.
    throttling: OnSwitch = Throttling;
    /// Fans.
    fans: OnSwitch = Fans;
    /// The PCIe link: bytes, width, generation, replays, errors.
    pcie: OnSwitch = Pcie;
    /// PCIe throughput as the driver samples it. It blocks for 20 ms a direction and device; one device is sampled at a
    /// time, a device a collection.
    pcie_throughput: OffSwitch = PcieThroughput;
    /// NVLink: links, bytes, errors in sum, fabric state.
    nvlink: OnSwitch = Nvlink;
    /// NVLink errors by link.
    nvlink_links: OffSwitch = NvlinkLinks;
    /// ECC errors, retired pages, remapped rows, recovery action.
    ecc: OnSwitch = Ecc;
    /// ECC errors by place in the chip.
    ecc_locations: OffSwitch = EccLocations;
    /// MIG mode and instances.
    mig: OnSwitch = Mig;
    /// Persistence and compute mode.
    modes: OnSwitch = Modes;
    /// Profiling counters (GPM), on Hopper and later: activity of SMs and tensor cores, memory bandwidth.
    profiling: OnSwitch = Profiling;
    /// Memory and load of each process. A series a process: off unless wanted.
    process: OffSwitch = Process;
    /// XIDs and other events, as a counter and as log records.
    events: OnSwitch = Events;
}

config! {
    /// GPUs that are not there.
    pub struct SimulateConfig {
        /// How many.
        pub devices: u32 = 4,
        /// The product they claim to be.
        pub model: String = "NVIDIA H200".to_owned(),
        /// How many of them are cut into MIG instances, beginning with the last.
        pub mig_devices: u32 = 0,
        /// Where their randomness starts: the same number gives the same GPUs and the same faults.
        pub seed: u64 = 1,
        /// Faults that come by now and then: heat, XIDs, ECC errors, a lost device.
        pub faults: bool = true,
        /// Numbers of devices that are always too hot.
        pub hot: Vec<u32> = Vec::new(),
        /// Pods that come and go, hold devices and load them.
        pub pods: bool = true,
    }
    validate = SimulateConfig::check;
}

config! {
    /// The kubelet's PodResources API.
    pub struct PodResourcesConfig {
        /// The socket: `unix:///path`. Mount the directory, so that a new socket is seen when the kubelet restarts.
        pub endpoint: String = POD_RESOURCES.to_owned(),
        /// How long an answer may take.
        pub timeout: Duration = Duration::from_secs(2),
        /// How long the last answer holds when there is no new one.
        pub keep: Duration = Duration::from_secs(60),
    }
    validate = PodResourcesConfig::check;
}

config! {
    /// From a process on a device to the pod it runs in. Needs `hostPID: true`.
    pub struct ProcessesConfig {
        /// Whether it is done where the kubelet knows of no pod.
        pub enabled: bool = true,
        /// Where the host's processes are: `/proc`, or where it is mounted.
        pub root: String = "/proc".to_owned(),
        /// Where the kubelet keeps logs: the names in its directories `containers` and `pods` tell which pod a process
        /// is in. Without them such a pod has a uid and no name.
        pub logs: String = "/var/log".to_owned(),
    }
}

config! {
    /// Whose a pod is, found as by the `tenant` processor. What sources see are the resource attributes
    /// `k8s.namespace.name`, `k8s.pod.name`, `k8s.pod.uid`, `k8s.container.name` and `k8s.node.name`.
    pub struct OwnerConfig {
        /// Where the tenant's name comes from; the first source that has one wins. Without it the namespace's name.
        pub from: Vec<SourceConfig> = Vec::new(),
    }
    validate = OwnerConfig::check;
}

config! {
    /// GPU time and what it costs, added up for each tenant, namespace and pod.
    pub struct CostConfig {
        /// The currency of prices, as an attribute of costs.
        pub currency: String = "USD".to_owned(),
        /// What an hour of a GPU costs, by product; `default` is for all others. Without a price there is no cost.
        pub per_gpu_hour: BTreeMap<String, f64> = BTreeMap::new(),
        /// What an hour of a MIG instance costs, by profile such as `1g.18gb`. Without it, its share of the GPU's price.
        pub per_mig_hour: BTreeMap<String, f64> = BTreeMap::new(),
        /// Whether sums are kept for each pod, or only for tenant and namespace.
        pub per_pod: bool = true,
    }
    validate = CostConfig::check;
}

impl ComponentConfig for NvmlConfig {}

impl NvmlConfig {
    /// Whether anything asks who holds devices.
    pub fn accounts(&self) -> bool {
        self.cost.get().is_some() || self.pod_resources.get().is_some() || self.simulate.get().is_some()
    }

    fn check(&self, node: &Node, cx: &mut Cx) {
        let at_least = |key: &str, value: Duration, least: Duration, cx: &mut Cx| {
            if value < least {
                let least = crate::config::types::format_duration(least);
                cx.error(node.pos_of(key), format!("must be at least {least}"));
            }
        };
        at_least("collection_interval", self.collection_interval, SHORTEST_INTERVAL, cx);
        at_least("device_timeout", self.device_timeout, Duration::from_millis(100), cx);
        if !self.sample_interval.is_zero() {
            at_least("sample_interval", self.sample_interval, SHORTEST_SAMPLE, cx);
            if self.sample_interval > self.collection_interval / 2 {
                cx.error(
                    node.pos_of("sample_interval"),
                    "must be at most half of collection_interval; 0 turns it off",
                );
            }
        }
        // Whoever tries a file out on a laptop adds one line to it; what that puts out of use is said.
        if self.simulate.get().is_some() {
            if !self.library_path.is_empty() {
                cx.warn(node.pos_of("library_path"), "the library is not opened: the GPUs are simulated");
            }
            if self.pod_resources.get().is_some() {
                let message = "the kubelet is not asked: the GPUs are simulated, and so are their pods";
                cx.warn(node.pos_of("pod_resources"), message);
            }
        }
    }
}

impl SimulateConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        if self.devices > MOST_SIMULATED {
            cx.error(node.pos_of("devices"), format!("must be at most {MOST_SIMULATED}"));
        }
        if self.mig_devices > self.devices {
            cx.error(node.pos_of("mig_devices"), "must be at most the number of devices");
        }
        if self.hot.iter().any(|&index| index >= self.devices) {
            cx.error(node.pos_of("hot"), "there is no device with that number; the first is 0");
        }
        if self.model.is_empty() {
            cx.error(node.pos_of("model"), "must not be empty");
        }
    }
}

impl PodResourcesConfig {
    /// The path of the socket.
    pub fn path(&self) -> &str {
        let path = self.endpoint.strip_prefix("unix:").unwrap_or_default();
        path.strip_prefix("//").unwrap_or(path)
    }

    fn check(&self, node: &Node, cx: &mut Cx) {
        if !self.path().starts_with('/') {
            cx.error_hint(
                node.pos_of("endpoint"),
                format!("\"{}\" is no unix socket", self.endpoint),
                format!("write unix:///path, such as {POD_RESOURCES}"),
            );
        }
        if self.timeout.is_zero() {
            cx.error(node.pos_of("timeout"), "must be greater than 0");
        }
    }
}

impl OwnerConfig {
    /// Finds sources that can never have a name, because a pod is no request.
    fn check(&self, node: &Node, cx: &mut Cx) {
        let nodes = match node.get("from").map(|from| &from.value) {
            Some(Value::Seq(nodes)) => nodes.as_slice(),
            _ => &[],
        };
        for (at, source) in self.from.iter().enumerate() {
            let Some(node) = nodes.get(at) else { continue };
            let written = |key: &&&str| node.get(key).is_some_and(|n| !n.is_null());
            let mut error = |key: &str, message: String, hint: String| {
                cx.within("from", |cx| {
                    cx.within(&at.to_string(), |cx| {
                        cx.within(key, |cx| cx.error_hint(node.pos_of(key), message, hint));
                    });
                });
            };
            if let Some(key) = ["metadata", "certificate", "auth"].iter().find(written) {
                let hint = "use sources with attribute, relabel or value";
                error(key, "a pod that holds a GPU sends no request".to_owned(), hint.to_owned());
            }
            let Some(attribute) = &source.attribute else { continue };
            let known = ATTRIBUTES.map(|name| format!("resource.{name}")).join(", ");
            match source.resource_attribute() {
                Some(name) if ATTRIBUTES.contains(&name) => {}
                Some(name) => error(
                    "attribute",
                    format!("nothing is known of \"{name}\" here"),
                    format!("what is known of a pod: {known}"),
                ),
                None => error(
                    "attribute",
                    format!(
                        "\"{attribute}\" is no attribute of a resource: a pod has no scopes and no items"
                    ),
                    format!("what is known of a pod: {known}"),
                ),
            }
        }
    }
}

impl CostConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        for (key, prices) in [("per_gpu_hour", &self.per_gpu_hour), ("per_mig_hour", &self.per_mig_hour)] {
            for (name, price) in prices {
                if !price.is_finite() || *price < 0.0 {
                    let pos = node.get(key).map_or(node.pos, |prices| prices.pos_of(name));
                    cx.error(pos, format!("the price of \"{name}\" must be a number, 0 or more"));
                }
            }
        }
        if self.currency.is_empty() {
            cx.error(node.pos_of("currency"), "must not be empty");
        }
    }
}
