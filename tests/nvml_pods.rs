//! Who holds which GPU, asked of a kubelet that speaks the real protocol over a unix socket: pods that come, go and
//! come again, a kubelet that restarts, stalls, refuses or talks nonsense.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "test code"
)]

#[allow(dead_code, reason = "each test uses its part")]
#[path = "nvml/kit.rs"]
mod kit;
#[path = "nvml_pods/receiver.rs"]
mod receiver;
mod support;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use support::kubelet::{Manner, Node};
use tidegate::receivers::nvml::config::{PodResourcesConfig, ProcessesConfig};
use tidegate::receivers::nvml::holders::{Owner, Share};
use tidegate::receivers::nvml::model::{
    Identity, Process, ProcessKind, Reading, Report, Sample, State, Value,
};
use tidegate::receivers::nvml::pods::Pods;
use tidegate::telemetry::Metrics;
use tonic::Code;
use tracing::subscriber::DefaultGuard;

const GPU: &str = "nvidia.com/gpu";
const KEEP: Duration = Duration::from_secs(60);
/// Longer than any answer takes, and short enough to wait for one that does not come.
const A_MOMENT: Duration = Duration::from_secs(1);
/// Longer than anything takes.
const SOON: Duration = Duration::from_secs(10);

/// A node with GPUs, its kubelet, and what an agent makes of them.
struct Rig {
    directory: tempfile::TempDir,
    node: Node,
    metrics: Arc<Metrics>,
    pods: Pods,
    now: Instant,
    log: Log,
    _logging: DefaultGuard,
}

/// Lines of the log, as far as they are worth a user's time.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Lines since the last call.
    fn take(&self) -> Vec<String> {
        let text = String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap();
        text.lines().filter(|line| line.contains("tidegate")).map(str::to_owned).collect()
    }
}

impl Rig {
    /// With time enough for any answer.
    fn new() -> Self {
        Rig::waiting(SOON)
    }

    fn waiting(timeout: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let metrics = Metrics::new();
        let endpoint = format!("unix://{}", directory.path().join("kubelet.sock").display());
        let kubelet = PodResourcesConfig { endpoint, timeout, keep: KEEP };
        let path = |below: &str| directory.path().join(below).to_str().unwrap().to_owned();
        let processes = ProcessesConfig { enabled: true, root: path("proc"), logs: path("log") };
        let pods = Pods::new(Some(&kubelet), &processes, "nvml/1", &metrics);
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::INFO)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        let _logging = tracing::subscriber::set_default(subscriber);
        Rig { directory, node: Node::default(), metrics, pods, now: Instant::now(), log, _logging }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("kubelet.sock")
    }

    fn process(&self, pid: u32, pod: &str, namespace: &str, container: &str) {
        process(self.directory.path(), pid, pod, namespace, container);
    }

    /// One collection, ten seconds after the last.
    async fn collect(&mut self, reports: &[Report]) -> Vec<String> {
        self.collect_after(Duration::from_secs(10), reports).await
    }

    async fn collect_after(&mut self, wait: Duration, reports: &[Report]) -> Vec<String> {
        self.now += wait;
        self.pods.refresh(self.now).await;
        self.pods.attribute(self.now, reports).iter().map(line).collect()
    }

    /// The value of a series, or 0.
    fn metric(&self, name: &str, labels: &[(&str, &str)]) -> i64 {
        let families = self.metrics.gather();
        let metrics = families.iter().filter(|f| f.name() == name).flat_map(|f| f.get_metric());
        let is = |m: &&prometheus::proto::Metric| {
            labels.iter().all(|(k, v)| m.get_label().iter().any(|l| l.name() == *k && l.value() == *v))
        };
        metrics.filter(is).map(|m| (m.get_counter().get_value() + m.get_gauge().get_value()) as i64).sum()
    }

    fn requests(&self, result: &str) -> i64 {
        self.metric("tidegate_nvml_pod_resources_requests", &[("receiver", "nvml/1"), ("result", result)])
    }
}

/// A process of a container whose log is there, below `proc` and `log`.
fn process(root: &Path, pid: u32, pod: &str, namespace: &str, container: &str) {
    let id = format!("{pid:064x}");
    let directory = root.join("proc").join(pid.to_string());
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("cgroup"), format!("0::/kubepods/pod{pid:032x}/{id}\n")).unwrap();
    let fields = "S 1 1 1 0 -1 4194560 1 0 0 0 1 1 0 0 20 0 1 0 77 1000 10 184467";
    std::fs::write(directory.join("stat"), format!("{pid} (python) {fields}\n")).unwrap();
    let logs = root.join("log/containers");
    std::fs::create_dir_all(&logs).unwrap();
    std::fs::write(logs.join(format!("{pod}_{namespace}_{container}-{id}.log")), "").unwrap();
}

fn gpu(index: u32) -> Report {
    let uuid = format!("GPU-0{index}").into();
    let identity = Identity { uuid, index, minor: Some(index), compute_slices: 7, ..Identity::default() };
    let mut report = Report::bare(Arc::new(identity), State::Readable);
    report.samples.push(Sample { reading: Reading::Busy, index: 0, value: Value::Int(50) });
    report
}

fn runs(mut report: Report, pid: u32, load: f64) -> Report {
    let load = [Some(load), None, None, None];
    let kind = ProcessKind::Compute;
    let process = Process { pid, kind, memory: None, gpu_instance: None, compute_instance: None, load };
    report.processes.push(process);
    report
}

fn line(share: &Share) -> String {
    let owner = match &share.owner {
        Owner::Pod(holder) => format!("{}/{}/{}", holder.namespace, holder.pod, holder.container),
        other => format!("{other:?}"),
    };
    let busy = share.busy.map_or("-".to_owned(), |busy| format!("{busy:.2}"));
    format!("{} {owner} {:.2} {busy} {:?}", share.device.uuid, share.part, share.evidence)
}

#[tokio::test]
async fn pods_come_go_and_come_again() {
    let mut rig = Rig::new();
    let _kubelet = rig.node.serve(&rig.socket());
    let reports = [gpu(0), gpu(1)];
    assert_eq!(
        rig.collect(&reports).await,
        ["GPU-00 Unallocated 1.00 0.50 None", "GPU-01 Unallocated 1.00 0.50 None"]
    );
    rig.node.give("ml/train-0/main", GPU, &["GPU-00"]);
    rig.node.give("ml/train-0/main", "rdma/hca", &["0", "1", "mlx5_0"]);
    rig.node.give("web/nginx/main", "smarter-devices/fuse", &["fuse-1"]);
    let first = rig.collect(&reports).await;
    assert_eq!(first, ["GPU-00 ml/train-0/main 1.00 0.50 Kubelet", "GPU-01 Unallocated 1.00 0.50 None"]);
    assert_eq!(rig.pods.holders_of("GPU-00", None, None)[0].pod, "train-0");
    // The pod's successor has another device.
    rig.node.remove("ml/train-0");
    rig.node.give("ml/train-0/main", GPU, &["GPU-01"]);
    let second = rig.collect(&reports).await;
    assert_eq!(second, ["GPU-00 Unallocated 1.00 0.50 None", "GPU-01 ml/train-0/main 1.00 0.50 Kubelet"]);
    assert!(rig.pods.holders_of("GPU-00", None, None).is_empty());
    assert_eq!(rig.requests("ok"), 4, "three lists, and once what there is");
    assert_eq!(rig.metric("tidegate_nvml_pod_resources_up", &[]), 1);
    assert_eq!(rig.log.take().len(), 1, "one line for all of it");
}

#[tokio::test]
async fn a_pod_that_has_ended_and_is_still_listed_does_not_count() {
    let mut rig = Rig::new();
    let _kubelet = rig.node.serve(&rig.socket());
    rig.node.give("ml/old/main", GPU, &["GPU-00"]);
    rig.collect(&[gpu(0)]).await;
    rig.node.give("ml/new/main", GPU, &["GPU-00"]);
    assert_eq!(rig.collect(&[gpu(0)]).await, ["GPU-00 ml/new/main 1.00 0.50 Kubelet"]);
    // Unless it is the one that runs there.
    rig.process(500, "old", "ml", "main");
    assert_eq!(rig.collect(&[runs(gpu(0), 500, 50.0)]).await, ["GPU-00 ml/old/main 1.00 0.50 Kubelet"]);
}

#[tokio::test]
async fn time_sliced_gpus_are_split_by_replica_and_by_load() {
    let mut rig = Rig::new();
    let _kubelet = rig.node.serve(&rig.socket());
    rig.node.allocatable(GPU, &["GPU-00::0", "GPU-00::1", "GPU-00::2", "GPU-00::3"]);
    rig.node.give("a/one/main", "nvidia.com/gpu.shared", &["GPU-00::3"]);
    rig.node.give("b/two/main", "nvidia.com/gpu.shared", &["GPU-00::1", "GPU-00::0"]);
    assert_eq!(
        rig.collect(&[gpu(0)]).await,
        [
            "GPU-00 b/two/main 0.50 0.33 Kubelet",
            "GPU-00 a/one/main 0.25 0.17 Kubelet",
            "GPU-00 Unallocated 0.25 0.00 None"
        ]
    );
    rig.process(500, "one", "a", "main");
    rig.process(501, "two", "b", "main");
    let used = runs(runs(gpu(0), 500, 40.0), 501, 10.0);
    let want = [
        "GPU-00 b/two/main 0.50 0.10 Kubelet",
        "GPU-00 a/one/main 0.25 0.40 Kubelet",
        "GPU-00 Unallocated 0.25 0.00 None",
    ];
    assert_eq!(rig.collect(std::slice::from_ref(&used)).await, want);
    let of = [500, 501, 502].map(|pid| rig.pods.holder_of_process(pid).map(|holder| holder.pod.clone()));
    assert_eq!(of, [Some("one".to_owned()), Some("two".to_owned()), None]);
    // Unhealthy replicas are left out of the list; the share of the others does not grow by that. The list is asked for
    // once a minute.
    rig.node.allocatable(GPU, &[]);
    let asked = rig.node.asked()[1];
    rig.collect_after(Duration::from_secs(61), std::slice::from_ref(&used)).await;
    assert_eq!(rig.node.asked()[1], asked + 1);
    assert_eq!(rig.collect(&[used]).await, want);
    assert_eq!(rig.node.asked()[1], asked + 1);
}

#[tokio::test]
async fn a_gpu_used_without_being_given_is_its_users() {
    let mut rig = Rig::new();
    let _kubelet = rig.node.serve(&rig.socket());
    rig.process(500, "sneaky", "a", "main");
    rig.node.give("a/sneaky/main", GPU, &["GPU-01"]);
    assert_eq!(
        rig.collect(&[runs(gpu(0), 500, 10.0), gpu(1)]).await,
        ["GPU-00 a/sneaky/main 1.00 0.50 Process", "GPU-01 a/sneaky/main 1.00 0.50 Kubelet"]
    );
    assert_eq!(rig.pods.holders_of("GPU-00", None, None), rig.pods.holders_of("GPU-01", None, None));
}

#[tokio::test]
async fn a_kubelet_that_restarts_is_found_again() {
    let mut rig = Rig::new();
    let kubelet = rig.node.serve(&rig.socket());
    rig.node.give("ml/train/main", GPU, &["GPU-00"]);
    let held = ["GPU-00 ml/train/main 1.00 0.50 Kubelet"];
    assert_eq!(rig.collect(&[gpu(0)]).await, held);
    rig.log.take();
    // Gone; its socket is still there, and nobody listens.
    kubelet.end().await;
    for _ in 0..3 {
        assert_eq!(rig.collect(&[gpu(0)]).await, held);
    }
    assert_eq!((rig.requests("refused"), rig.requests("ok")), (3, 2));
    assert_eq!(rig.metric("tidegate_nvml_pod_resources_up", &[]), 0);
    let lines = rig.log.take();
    assert!(lines.len() == 1 && lines[0].contains("refused"), "{lines:?}");
    // A new socket at the same path, and another pod.
    let kubelet = rig.node.serve(&rig.socket());
    rig.node.remove("ml/train");
    rig.node.give("ml/next/main", GPU, &["GPU-00"]);
    assert_eq!(rig.collect(&[gpu(0)]).await, ["GPU-00 ml/next/main 1.00 0.50 Kubelet"]);
    assert_eq!(rig.log.take().len(), 1);
    // Away for longer than an answer holds.
    kubelet.end().await;
    std::fs::remove_file(rig.socket()).unwrap();
    assert_eq!(rig.collect_after(KEEP, &[gpu(0)]).await, ["GPU-00 ml/next/main 1.00 0.50 Kubelet"]);
    assert_eq!(rig.collect_after(Duration::from_secs(1), &[gpu(0)]).await, ["GPU-00 Unknown 1.00 0.50 None"]);
    assert!(rig.pods.holders_of("GPU-00", None, None).is_empty());
    assert_eq!(rig.requests("no_socket"), 2);
    let _kubelet = rig.node.serve(&rig.socket());
    assert_eq!(rig.collect(&[gpu(0)]).await, ["GPU-00 ml/next/main 1.00 0.50 Kubelet"]);
}

#[tokio::test]
async fn whatever_the_kubelet_says_the_last_word_holds_for_a_while() {
    let huge = vec![0u8; (16 << 20) + 1];
    // Two million pods, each of which is no byte.
    let many = [0x0a, 0x00].repeat(2_000_000);
    let cases = [
        (Manner::Stalls, "timeout"),
        (Manner::Fails(Code::ResourceExhausted), "resource_exhausted"),
        (Manner::Fails(Code::Unimplemented), "unimplemented"),
        (Manner::Fails(Code::Internal), "status"),
        (Manner::Fails(Code::FailedPrecondition), "status"),
        (Manner::Says(Bytes::from_static(b"\x0a\x7fgarbage")), "malformed"),
        (Manner::Says(Bytes::from_static(b"\x0a\x03\x0a\x01\xff")), "malformed"),
        (Manner::Says(many.into()), "malformed"),
        (Manner::Says(huge.into()), "too_large"),
    ];
    for (manner, word) in cases {
        let timeout = if word == "timeout" { A_MOMENT } else { SOON };
        let mut rig = Rig::waiting(timeout);
        let _kubelet = rig.node.serve(&rig.socket());
        rig.node.give("ml/train/main", GPU, &["GPU-00"]);
        rig.collect(&[gpu(0)]).await;
        rig.log.take();
        rig.node.list(manner.clone());
        let start = Instant::now();
        for _ in 0..2 {
            let held = rig.collect(&[gpu(0)]).await;
            assert_eq!(held, ["GPU-00 ml/train/main 1.00 0.50 Kubelet"], "{word}");
        }
        assert!(start.elapsed() < 2 * timeout + SOON, "{word}: {:?}", start.elapsed());
        assert_eq!(rig.requests(word), 2, "{word}");
        let lines = rig.log.take();
        assert!(lines.len() == 1 && lines[0].contains(word), "{word}: {lines:?}");
        let gone = rig.collect_after(KEEP, &[gpu(0)]).await;
        assert_eq!(gone, ["GPU-00 Unknown 1.00 0.50 None"], "{word}");
        rig.node.list(Manner::Answers);
        assert_eq!(rig.collect(&[gpu(0)]).await, ["GPU-00 ml/train/main 1.00 0.50 Kubelet"], "{word}");
    }
}

#[tokio::test]
async fn no_kubelet_at_all() {
    let mut rig = Rig::new();
    for _ in 0..3 {
        assert_eq!(rig.collect(&[gpu(0)]).await, ["GPU-00 Unknown 1.00 0.50 None"]);
    }
    let lines = rig.log.take();
    assert!(lines.len() == 1 && lines[0].contains("no_socket"), "{lines:?}");
    // A process tells all the same.
    rig.process(500, "train", "ml", "main");
    let used = runs(gpu(0), 500, 10.0);
    assert_eq!(rig.collect(&[used]).await, ["GPU-00 ml/train/main 1.00 0.50 Process"]);
}

#[tokio::test]
async fn somebody_else_at_the_socket() {
    use tokio::io::AsyncWriteExt;
    // Listens and accepts nobody; accepts and hangs up; speaks, but something else.
    let says: [Option<&'static [u8]>; 3] = [None, Some(b""), Some(b"HTTP/1.1 400 Bad Request\r\n\r\n")];
    for (says, word) in says.into_iter().zip(["timeout", "transport", "transport"]) {
        let mut rig = Rig::new();
        let listener = tokio::net::UnixListener::bind(rig.socket()).unwrap();
        let serving = tokio::spawn(async move {
            let Some(says) = says else { return std::future::pending().await };
            while let Ok((mut socket, _)) = listener.accept().await {
                let _ = socket.write_all(says).await;
            }
        });
        assert_eq!(rig.collect(&[gpu(0)]).await, ["GPU-00 Unknown 1.00 0.50 None"]);
        assert_eq!(rig.requests(word), 1, "{says:?}: {:?}", rig.log.take());
        serving.abort();
    }
}

#[tokio::test]
async fn without_a_list_of_devices_replicas_are_counted_as_seen() {
    for manner in
        [Manner::Fails(Code::Unimplemented), Manner::Stalls, Manner::Says(Bytes::from_static(b"\xff"))]
    {
        let mut rig = Rig::waiting(A_MOMENT);
        let _kubelet = rig.node.serve(&rig.socket());
        rig.node.get_allocatable(manner);
        rig.node.give("a/one/main", GPU, &["GPU-00::3"]);
        let want = ["GPU-00 a/one/main 0.25 0.50 Kubelet", "GPU-00 Unallocated 0.75 0.00 None"];
        for _ in 0..2 {
            assert_eq!(rig.collect(&[gpu(0)]).await, want);
        }
        assert_eq!(rig.node.asked(), [2, 1], "not asked again at once");
        assert_eq!(rig.log.take().len(), 2, "that pods are told, and that devices are not");
    }
}

#[tokio::test]
async fn what_cannot_be_mapped_is_said_once() {
    let mut rig = Rig::new();
    let _kubelet = rig.node.serve(&rig.socket());
    rig.node.give("a/one/main", GPU, &["GPU-00"]);
    rig.node.give("a/two/main", "acme.com/gpu-slice", &["slice-1", "slice-2"]);
    rig.node.claim("a/three/main", "gpu.nvidia.com");
    rig.node.claim("a/four/main", "gpu.nvidia.com");
    rig.node.claim("a/four/main", "compute-domain.nvidia.com");
    rig.node.give("a/four/main", "nvidia.com/hostdev", &["0000:3b:00.2"]);
    // Somebody has the second GPU, and nobody can tell who: it is not nobody's.
    let want = ["GPU-00 a/one/main 1.00 0.50 Kubelet", "GPU-01 Unknown 1.00 0.50 None"];
    for _ in 0..3 {
        assert_eq!(rig.collect(&[gpu(0), gpu(1)]).await, want);
    }
    let lines = rig.log.take();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines.iter().any(|l| l.contains("acme.com/gpu-slice") && l.contains("slice-1")));
    assert!(lines.iter().any(|l| l.contains("gpu.nvidia.com")));
    assert_eq!(rig.metric("tidegate_nvml_pod_resources_unmapped_devices", &[]), 4);
    // Its processes give it away.
    rig.process(500, "three", "a", "main");
    let used = [gpu(0), runs(gpu(1), 500, 10.0)];
    assert_eq!(rig.collect(&used).await[1], "GPU-01 a/three/main 1.00 0.50 Process");
    rig.node.remove("a/two");
    rig.node.remove("a/three");
    rig.node.remove("a/four");
    assert_eq!(rig.collect(&[gpu(0), gpu(1)]).await[1], "GPU-01 Unallocated 1.00 0.50 None");
    assert_eq!(rig.metric("tidegate_nvml_pod_resources_unmapped_devices", &[]), 0);
}

#[tokio::test]
async fn processes_of_another_system_are_noticed_once() {
    let mut rig = Rig::new();
    let _kubelet = rig.node.serve(&rig.socket());
    let used = [runs(gpu(0), 500, 10.0)];
    for _ in 0..5 {
        assert_eq!(rig.collect(&used).await, ["GPU-00 Unknown 1.00 0.50 None"]);
    }
    let lines = rig.log.take();
    assert_eq!(lines.iter().filter(|line| line.contains("hostPID")).count(), 1, "{lines:?}");
}
