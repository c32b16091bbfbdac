//! What each detector finds, how results meet resources, and what happens when something cannot be found.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue as Proto, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::ResourceMetrics;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use smallvec::SmallVec;

use super::*;
use crate::config::{Config, Cx, Key, Node, Pos, Value as Yaml};
use crate::pdata::{Batch, Rope};
use crate::pipeline::{Acks, Ledger, Readiness};
use crate::processors::edit::Program;

/// A resolver that knows one host.
#[derive(Default)]
struct Fake {
    canonical: Option<&'static str>,
    addresses: Vec<(&'static str, Option<&'static str>)>,
}

impl names::Names for Fake {
    fn host(&self, name: &str) -> Option<(Option<String>, Vec<IpAddr>)> {
        assert_eq!(name, "web-1");
        let addresses: Vec<IpAddr> = self.addresses.iter().map(|(a, _)| a.parse().unwrap()).collect();
        (self.canonical.is_some() || !addresses.is_empty())
            .then(|| (self.canonical.map(str::to_owned), addresses))
    }

    fn address(&self, address: IpAddr) -> Option<String> {
        let (_, name) = self.addresses.iter().find(|(a, _)| a.parse::<IpAddr>().unwrap() == address)?;
        name.map(str::to_owned)
    }
}

type Variables = Arc<Mutex<HashMap<String, String>>>;

fn place(
    root: &std::path::Path,
    variables: &[(&str, &str)],
    names: impl names::Names + 'static,
) -> (Place, Variables) {
    let known: Variables = Arc::default();
    known.lock().unwrap().extend(variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    let asked = known.clone();
    let variable = move |name: &str| asked.lock().unwrap().get(name).cloned();
    (Place { root: root.to_owned(), variable: Arc::new(variable), names: Arc::new(names) }, known)
}

fn here(variables: &[(&str, &str)]) -> (Place, Variables) {
    place(std::path::Path::new("/nonexistent"), variables, Fake::default())
}

fn text(findings: &Findings) -> Vec<(String, String)> {
    findings.found.iter().map(|f| (f.key.clone(), shown_value(&f.value))).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn the_environment_is_read() {
    let config = EnvConfig::default();
    for (variables, want) in [
        (vec![("OTEL_RESOURCE_ATTRIBUTES", "a=1,b.c= two ")], vec![("a", "1"), ("b.c", "two")]),
        (vec![("OTEL_RESOURCE_ATTRIBUTES", " a = x%20y%2Cz=%3D+%C3%BC , ")], vec![("a", "x y,z==+ü")]),
        (vec![("OTEL_RESOURCE_ATTRIBUTES", "a=,a=2")], vec![("a", "2")]),
        (vec![("OTEL_RESOURCE", "old=1")], vec![("old", "1")]),
        (vec![("OTEL_RESOURCE_ATTRIBUTES", "new=1"), ("OTEL_RESOURCE", "old=1")], vec![("new", "1")]),
        (vec![("OTEL_RESOURCE_ATTRIBUTES", " "), ("OTEL_RESOURCE", "old=1")], vec![("old", "1")]),
        (vec![], vec![]),
    ] {
        let findings = env::detect(&config, &here(&variables).0);
        assert_eq!(text(&findings), pairs(&want), "{variables:?}");
        assert_eq!(findings.missing, Vec::<String>::new());
    }
    for bad in ["a", "=1", "a=1,,b=2", "a=%", "a=%4", "a=%zz", "a=%FF"] {
        let findings = env::detect(&config, &here(&[("OTEL_RESOURCE_ATTRIBUTES", bad)]).0);
        assert!(findings.found.is_empty(), "{bad}");
        let why = findings.missing.join("; ");
        assert!(why.starts_with("OTEL_RESOURCE_ATTRIBUTES: invalid resource format: \""), "{bad}: {why}");
    }
    let config = EnvConfig { allow_list: Some(vec!["b".to_owned()]) };
    let findings = env::detect(&config, &here(&[("OTEL_RESOURCE_ATTRIBUTES", "a=1,b=2")]).0);
    assert_eq!(text(&findings), pairs(&[("b", "2")]));
}

#[test]
fn the_downward_api_is_read() {
    let mut config = KubernetesConfig::default();
    let variables = [
        ("K8S_NODE_NAME", "node-7"),
        ("NODE", "node-8"),
        ("K8S_POD_NAME", "agent-x"),
        ("K8S_NAMESPACE_NAME", "ops"),
    ];
    let (place, _) = here(&variables);
    assert_eq!(text(&env::kubernetes(&config, &place)), pairs(&[("k8s.node.name", "node-7")]));
    config.node_from_env_var = "NODE".to_owned();
    for key in ["k8s.pod.name", "k8s.pod.uid", "k8s.namespace.name"] {
        config.resource_attributes.set(key, true);
    }
    let findings = env::kubernetes(&config, &place);
    let want = [("k8s.node.name", "node-8"), ("k8s.pod.name", "agent-x"), ("k8s.namespace.name", "ops")];
    assert_eq!(text(&findings), pairs(&want));
    assert_eq!(findings.missing, ["k8s.pod.uid: the environment variable K8S_POD_UID is not set"]);
}

/// A machine in files.
fn machine() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, content) in [
        ("proc/sys/kernel/hostname", "web-1\n"),
        ("proc/sys/kernel/ostype", "Linux\n"),
        ("proc/sys/kernel/osrelease", "6.8.0\n"),
        ("proc/sys/kernel/version", "#1 SMP\n"),
        ("etc/machine-id", "0123456789abcdef\n"),
        (
            "etc/os-release",
            "PRETTY_NAME=\"Debian GNU/Linux 12\"\nNAME='Debian'\nVERSION_ID=\"12\"\nBUILD_ID=\n",
        ),
        (
            "proc/cpuinfo",
            "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\nmodel name\t: Xeon: big\nstepping\t: 8\n\nprocessor\t: 1\nvendor_id\t: Other\n",
        ),
        ("sys/devices/system/cpu/cpu0/cache/index1/level", "1\n"),
        ("sys/devices/system/cpu/cpu0/cache/index2/level", "2\n"),
        ("sys/devices/system/cpu/cpu0/cache/index2/size", "2048K\n"),
        ("sys/class/net/lo/flags", "0x9\n"),
        ("sys/class/net/lo/address", "00:00:00:00:00:00\n"),
        ("sys/class/net/eth0/flags", "0x1003\n"),
        ("sys/class/net/eth0/address", "ac:de:48:23:45:67\n"),
        ("sys/class/net/tun0/flags", "0x10d1\n"),
        ("sys/class/net/tun0/address", "\n"),
        ("sys/class/net/down0/flags", "0x1002\n"),
        ("sys/class/net/down0/address", "ac:de:48:23:45:68\n"),
        (
            "proc/net/fib_trie",
            "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.0.0.0\n        /24 link UNICAST\n     |-- 10.0.0.5\n        /32 host LOCAL\n     |-- 10.0.0.255\n        /32 link BROADCAST\n     |-- 127.0.0.1\n        /32 host LOCAL\nLocal:\n     |-- 10.0.0.5\n        /32 host LOCAL\n",
        ),
        (
            "proc/net/if_inet6",
            "00000000000000000000000000000001 01 80 10 80       lo\nfd000000000000000000000000000005 02 40 00 80     eth0\n",
        ),
    ] {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    dir
}

#[test]
fn the_system_is_read() {
    let dir = machine();
    let (place, _) = place(dir.path(), &[], Fake::default());
    let mut config = SystemConfig::default();
    assert_eq!(
        text(&system::detect(&config, &place)),
        pairs(&[("host.name", "web-1"), ("os.type", "linux")])
    );
    for known in <config::SystemTable as config::Table>::ALL {
        config.resource_attributes.set(known.key, true);
    }
    let findings = system::detect(&config, &place);
    assert_eq!(findings.missing, ["os.build.id: this system does not say"]);
    let arch = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let description = format!("Debian GNU/Linux 12 (Linux web-1 6.8.0 #1 SMP {})", std::env::consts::ARCH);
    let want = [
        ("host.name", "web-1"),
        ("os.type", "linux"),
        ("host.id", "0123456789abcdef"),
        ("host.arch", arch),
        ("host.ip", "10.0.0.5 fd00::5"),
        ("host.mac", "AC-DE-48-23-45-67"),
        ("host.interface", "eth0 tun0"),
        ("host.cpu.vendor.id", "GenuineIntel"),
        ("host.cpu.family", "6"),
        ("host.cpu.model.id", "143"),
        ("host.cpu.model.name", "Xeon: big"),
        ("host.cpu.stepping", "8"),
        ("host.cpu.cache.l2.size", "2097152"),
        ("os.description", &description),
        ("os.name", "Debian"),
        ("os.version", "12"),
    ];
    assert_eq!(text(&findings), pairs(&want));
    let of = |key: &str| findings.found.iter().find(|f| f.key == key).unwrap().value.clone();
    assert!(
        matches!(of("host.ip"), AnyValue::List(_))
            && matches!(of("host.cpu.cache.l2.size"), AnyValue::Int(_))
    );

    // A machine that shows nothing.
    let findings = system::detect(&config, &here(&[]).0);
    assert_eq!(text(&findings), pairs(&[("os.type", "linux"), ("host.arch", arch)]));
    assert_eq!(findings.missing[0], "host.name: all hostname sources failed to get hostname");
    assert_eq!(findings.missing.len(), 15, "{:?}", findings.missing);
}

#[test]
fn this_machine_has_a_name() {
    let config = SystemConfig { hostname_sources: vec![HostnameSource::Os], ..Default::default() };
    let findings = system::detect(&config, &Place::here());
    assert_eq!(findings.missing, Vec::<String>::new());
    assert!(findings.found.iter().any(|f| f.key == "host.name"));
    // Whatever the resolver says of this machine, it says it without harm.
    let own = Place::here().read("/proc/sys/kernel/hostname");
    for source in [HostnameSource::Dns, HostnameSource::Cname, HostnameSource::Lookup] {
        let found = names::find(source, own.as_deref(), &names::System);
        assert!(found.is_none_or(|name| !name.is_empty() && !name.ends_with('.')));
    }
}

#[test]
fn hosts_have_several_names() {
    use HostnameSource::{Cname, Dns, Lookup, Os};
    let full = || Fake {
        canonical: Some("web-1.example.com."),
        addresses: vec![("10.0.0.5", Some("rack-3.example.com"))],
    };
    let short = || Fake {
        canonical: Some("web-1"),
        addresses: vec![("10.0.0.5", None), ("10.0.0.6", Some("rack-3.example.com."))],
    };
    let local = || Fake {
        canonical: Some("localhost.localdomain"),
        addresses: vec![("127.0.0.1", Some("localhost.localdomain"))],
    };
    for (source, names, want) in [
        (Os, full(), Some("web-1")),
        (Dns, full(), Some("web-1.example.com")),
        (Cname, full(), Some("web-1.example.com")),
        (Lookup, full(), Some("rack-3.example.com")),
        (Dns, short(), Some("rack-3.example.com")),
        (Cname, short(), Some("web-1")),
        (Lookup, short(), Some("rack-3.example.com")),
        (Dns, local(), None),
        (Dns, Fake::default(), None),
        (Cname, Fake::default(), None),
        (Lookup, Fake::default(), None),
    ] {
        assert_eq!(names::find(source, Some("web-1"), &names).as_deref(), want, "{source:?}");
        assert_eq!(names::find(source, None, &names), None);
    }
    let named = Fake { canonical: Some("other.example.com"), ..Default::default() };
    assert_eq!(names::find(Dns, Some("web-1.example.org"), &named).as_deref(), Some("web-1.example.org"));

    let dir = machine();
    for (names, want) in [(full(), "web-1.example.com"), (local(), "web-1")] {
        let (place, _) = place(dir.path(), &[], names);
        assert_eq!(text(&system::detect(&SystemConfig::default(), &place))[0].1, want);
    }
}

fn build_context() -> BuildContext {
    BuildContext {
        id: "resource_detection".to_owned(),
        metrics: Metrics::new(),
        ledger: Ledger::new(1 << 20),
    }
}

fn run_context(cx: &BuildContext) -> RunContext {
    RunContext {
        supervisor: Supervisor::default(),
        ledger: cx.ledger.clone(),
        metrics: cx.metrics.clone(),
        extensions: Arc::default(),
        readiness: Readiness::default(),
    }
}

fn detection(config: &ResourceDetectionConfig, place: Place) -> Arc<Detection> {
    Arc::new(Detection {
        id: "resource_detection".to_owned(),
        config: config.clone(),
        place,
        metrics: Metrics::new(),
        started: OnceCell::new(),
        current: Mutex::default(),
    })
}

fn program(detection: &Arc<Detection>) -> Program {
    let rules = SetAll { detection: detection.clone(), replace: detection.config.r#override };
    Program::new(Signal::Metrics, vec![Edit::rules(Arc::new(rules))])
}

/// The attributes of a resource with these attributes afterwards.
fn edited(program: &Program, before: &[(&str, &str)]) -> Vec<(String, String)> {
    let attribute = |(k, v): &(&str, &str)| KeyValue {
        key: (*k).to_owned(),
        value: Some(Proto { value: Some(any_value::Value::StringValue((*v).to_owned())) }),
        ..Default::default()
    };
    let attributes = before.iter().map(attribute).collect();
    let resource = Some(Resource { attributes, ..Default::default() });
    let request = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics { resource, ..Default::default() }],
    };
    let mut batch = Batch {
        signal: Signal::Metrics,
        rope: Rope::from(request.encode_to_vec()),
        items: 0,
        client: Arc::default(),
        tenant: None,
        demoted: false,
        received: Instant::now(),
        leases: SmallVec::new(),
        acks: Acks::none(),
    };
    assert_eq!(program.apply(&mut batch).malformed, 0);
    let out = ExportMetricsServiceRequest::decode(batch.rope.to_bytes()).unwrap();
    let resource = out.resource_metrics[0].resource.clone().unwrap();
    let pair = |a: KeyValue| match a.value.unwrap().value.unwrap() {
        any_value::Value::StringValue(text) => (a.key, text),
        other => (a.key, format!("{other:?}")),
    };
    resource.attributes.into_iter().map(pair).collect()
}

#[tokio::test]
async fn the_first_detector_is_right_and_resources_are_overridden() {
    let dir = machine();
    let variables =
        [("OTEL_RESOURCE_ATTRIBUTES", "host.name=from-env,team=core"), ("K8S_NODE_NAME", "node-7")];
    use Detector::{Env, K8sApi, K8sNode, System};
    for (detectors, replace, before, want) in [
        (
            vec![Env, System, K8sApi],
            true,
            vec![],
            vec![
                ("host.name", "from-env"),
                ("team", "core"),
                ("os.type", "linux"),
                ("k8s.node.name", "node-7"),
            ],
        ),
        (
            vec![System, Env],
            true,
            vec![],
            vec![("host.name", "web-1"), ("os.type", "linux"), ("team", "core")],
        ),
        (
            vec![K8sNode, System],
            true,
            vec![("host.name", "sdk"), ("x", "1")],
            vec![("host.name", "web-1"), ("x", "1"), ("k8s.node.name", "node-7"), ("os.type", "linux")],
        ),
        (
            vec![K8sNode, System],
            false,
            vec![("host.name", "sdk"), ("x", "1")],
            vec![("host.name", "sdk"), ("x", "1"), ("k8s.node.name", "node-7"), ("os.type", "linux")],
        ),
    ] {
        let config = ResourceDetectionConfig { detectors, r#override: replace, ..Default::default() };
        let (place, _) = place(dir.path(), &variables, Fake::default());
        let detection = detection(&config, place);
        let program = program(&detection);
        assert_eq!(edited(&program, &before), pairs(&before), "before it has started");
        detection.start(&run_context(&build_context())).await.unwrap();
        assert_eq!(edited(&program, &before), pairs(&want), "{config:?}");
    }
}

#[tokio::test]
async fn what_is_missing_may_keep_the_agent_from_starting() {
    let run = run_context(&build_context());
    let mut config =
        ResourceDetectionConfig { detectors: vec![Detector::K8sApi, Detector::System], ..Default::default() };
    let lenient = detection(&config, here(&[]).0);
    lenient.start(&run).await.unwrap();
    assert_eq!(edited(&program(&lenient), &[]), pairs(&[("os.type", "linux")]));
    config.fail_on_missing_metadata = true;
    let strict = detection(&config, here(&[]).0);
    let why = strict.start(&run).await.unwrap_err().to_string();
    let want = "k8s.node.name: the environment variable K8S_NODE_NAME is not set; host.name: all hostname sources failed to get hostname";
    assert_eq!(why, want);
}

/// A resolver that never answers while it is held.
struct Stuck(Arc<Mutex<()>>);

impl names::Names for Stuck {
    fn host(&self, _: &str) -> Option<(Option<String>, Vec<IpAddr>)> {
        drop(self.0.lock());
        None
    }

    fn address(&self, _: IpAddr) -> Option<String> {
        None
    }
}

#[tokio::test]
#[allow(clippy::await_holding_lock, reason = "that it is held is the test")]
async fn a_detector_that_hangs_is_given_up() {
    let dir = machine();
    let lock = Arc::new(Mutex::new(()));
    let (place, _) = place(dir.path(), &[("OTEL_RESOURCE_ATTRIBUTES", "a=1")], Stuck(lock.clone()));
    let held = lock.lock().unwrap();
    let config = ResourceDetectionConfig {
        detectors: vec![Detector::System, Detector::Env],
        timeout: Duration::from_millis(20),
        fail_on_missing_metadata: true,
        ..Default::default()
    };
    let strict = detection(&config, place);
    let why = strict.start(&run_context(&build_context())).await.unwrap_err().to_string();
    assert_eq!(why, "the detector \"system\" has not answered within 20ms");
    drop(held);
    // A later attempt may succeed.
    strict.start(&run_context(&build_context())).await.unwrap();
    assert_eq!(edited(&program(&strict), &[])[0].1, "web-1");
}

#[tokio::test]
async fn it_is_found_out_again() {
    let dir = machine();
    let (place, variables) = place(dir.path(), &[("OTEL_RESOURCE_ATTRIBUTES", "a=1")], Fake::default());
    let config = ResourceDetectionConfig {
        detectors: vec![Detector::Env, Detector::System],
        refresh_interval: Duration::from_millis(1),
        system: SystemConfig { hostname_sources: vec![HostnameSource::Os], ..Default::default() },
        ..Default::default()
    };
    let detection = detection(&config, place);
    let run = run_context(&build_context());
    detection.start(&run).await.unwrap();
    let program = program(&detection);
    let host = dir.path().join("proc/sys/kernel/hostname");
    let wait = async |want: &[(&str, &str)]| {
        while edited(&program, &[]) != pairs(want) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    wait(&[("a", "1"), ("host.name", "web-1"), ("os.type", "linux")]).await;
    variables.lock().unwrap().insert("OTEL_RESOURCE_ATTRIBUTES".into(), "b=2".into());
    wait(&[("b", "2"), ("host.name", "web-1"), ("os.type", "linux")]).await;
    // What cannot be found any more stays as it was known.
    std::fs::remove_file(&host).unwrap();
    variables.lock().unwrap().insert("OTEL_RESOURCE_ATTRIBUTES".into(), "c=3,%".into());
    let missing = || {
        let current = detection.current.lock().unwrap();
        current.findings.iter().map(|f| f.missing.len()).sum::<usize>()
    };
    while missing() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(edited(&program, &[]), pairs(&[("b", "2"), ("host.name", "web-1"), ("os.type", "linux")]));
    variables.lock().unwrap().insert("OTEL_RESOURCE_ATTRIBUTES".into(), "c=3".into());
    std::fs::write(&host, "web-2").unwrap();
    wait(&[("c", "3"), ("host.name", "web-2"), ("os.type", "linux")]).await;
    // Nobody uses it any more: nobody asks.
    let weak = Arc::downgrade(&detection);
    drop((program, detection));
    while weak.strong_count() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(run.supervisor.panicked(), 0);
}

#[tokio::test]
async fn pipelines_share_one_detection() {
    let cx = build_context();
    let config = ResourceDetectionConfig::default();
    let (first, second) = (Detection::shared(&config, &cx), Detection::shared(&config, &cx));
    assert!(Arc::ptr_eq(&first, &second));
    let named = BuildContext { id: "resource_detection/2".to_owned(), ..cx.clone() };
    assert!(!Arc::ptr_eq(&first, &Detection::shared(&config, &named)), "another component");
    assert!(!Arc::ptr_eq(&first, &Detection::shared(&config, &build_context())), "another agent");

    let asked = Arc::new(AtomicUsize::new(0));
    let (mut place, _) = here(&[]);
    let count = asked.clone();
    place.variable = Arc::new(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Some("a=1".to_owned())
    });
    let detection = detection(&config, place);
    let run = run_context(&cx);
    let shared = [Shared(detection.clone()), Shared(detection)];
    let (one, two) = tokio::join!(shared[0].start(&run), shared[1].start(&run));
    one.and(two).unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    for signal in Signal::ALL {
        assert!(matches!(build(&config, signal, &cx), Ok(Stage::Prepared(..))));
    }
}

fn map(entries: Vec<(&str, Yaml)>) -> Yaml {
    let entry = |(k, v): (&str, Yaml)| {
        (Key { pos: Pos::default(), text: k.to_owned() }, Node::new(Pos::default(), v))
    };
    Yaml::Map(entries.into_iter().map(entry).collect())
}

fn words(words: &[&str]) -> Yaml {
    Yaml::Seq(words.iter().map(|w| Node::new(Pos::default(), Yaml::Str((*w).to_owned()))).collect())
}

fn decoded(entries: Vec<(&str, Yaml)>) -> (ResourceDetectionConfig, Vec<(String, String)>) {
    let (mut config, mut cx) = (ResourceDetectionConfig::default(), Cx::default());
    config.decode_into(&Node::new(Pos::default(), map(entries)), &mut cx);
    (config, cx.diags.into_iter().map(|d| (d.message, d.hint.unwrap_or_default())).collect())
}

#[test]
fn the_config_is_read() {
    let on = |on| map(vec![("enabled", Yaml::Bool(on))]);
    let (config, mistakes) = decoded(vec![
        ("detectors", words(&["env", "system", "k8s_api"])),
        ("override", Yaml::Bool(false)),
        (
            "system",
            map(vec![
                ("hostname_sources", words(&["os"])),
                (
                    "resource_attributes",
                    map(vec![("host.arch", on(true)), ("os.type", on(false)), ("host.id", Yaml::Null)]),
                ),
            ]),
        ),
        ("k8s_api", map(vec![("resource_attributes", map(vec![("k8s.node.uid", on(false))]))])),
    ]);
    assert_eq!(mistakes, []);
    assert!(!config.r#override);
    assert_eq!(config.detectors, [Detector::Env, Detector::System, Detector::K8sApi]);
    assert_eq!(config.system.resource_attributes.all_on().collect::<Vec<_>>(), ["host.name", "host.arch"]);

    let attribute = |detector: &'static str, key: &'static str, value| {
        vec![(detector, map(vec![("resource_attributes", map(vec![(key, value)]))]))]
    };
    for (entries, want, hint) in [
        (
            vec![("detectors", words(&["ec2"]))],
            "invalid detector key: ec2",
            "the Collector's detector is not supported here; there are env, system, k8snode, k8s_api",
        ),
        (
            vec![("detectors", words(&["sytem"]))],
            "invalid detector key: sytem",
            "did you mean \"system\"? there are env, system, k8snode, k8s_api",
        ),
        (
            vec![("detectors", words(&["xyz"]))],
            "invalid detector key: xyz",
            "there are env, system, k8snode, k8s_api",
        ),
        (vec![("detectors", words(&["env", "env"]))], "the detector \"env\" is named twice", ""),
        (vec![("detectors", words(&[]))], "no detectors", "name at least one, such as env"),
        (
            vec![("system", map(vec![("hostname_sources", words(&["aws"]))]))],
            "invalid hostname source: aws",
            "valid sources: dns, os, cname, lookup",
        ),
        (
            attribute("system", "host.nam", on(true)),
            "unknown key \"host.nam\"",
            "did you mean \"host.name\"?",
        ),
        (attribute("system", "host.name", Yaml::Bool(true)), "expected a mapping, got a boolean", ""),
        (
            attribute("k8s_api", "k8s.node.uid", on(true)),
            "\"k8s.node.uid\" is not supported",
            "it needs the Kubernetes API server, which is not asked",
        ),
        (
            attribute("k8snode", "k8s.cluster.uid", on(true)),
            "\"k8s.cluster.uid\" is not supported",
            "it needs the Kubernetes API server, which is not asked",
        ),
        (
            vec![("k8snode", map(vec![("auth_type", Yaml::Str("serviceAccount".to_owned()))]))],
            "\"auth_type\" is not supported",
            "the Kubernetes API server is not asked, only environment variables are; take the key out",
        ),
        (
            vec![("k8snode", map(vec![("node_from_env_var", Yaml::Str(String::new()))]))],
            "name an environment variable",
            "",
        ),
    ] {
        let (_, mistakes) = decoded(entries);
        assert_eq!(mistakes.len(), 1, "{want}: {mistakes:?}");
        let (message, got) = &mistakes[0];
        assert!(message == want && got.ends_with(hint), "{want}: {message}, {got}");
    }
}
