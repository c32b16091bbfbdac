//! Through the whole receiver, over a stand-in for the driver: what is exported of who holds what.

use std::path::Path;

use nvml_stand_in::{Event, profile};

use crate::kit::{Export, Rig, SOON};
use crate::support::kubelet::{Manner, Node};

const SHARE: &str = "nvidia.gpu.allocation.share";

/// Settings of the receiver for a kubelet in this directory.
fn settings(directory: &Path) -> String {
    let below = |name: &str| directory.join(name).display().to_string();
    format!(
        "pod_resources: {{endpoint: 'unix://{}', timeout: 1s, keep: 1s}}, processes: {{root: '{}', logs: '{}'}}",
        below("kubelet.sock"),
        below("proc"),
        below("log"),
    )
}

/// Whether this container has so much of this device, and nobody else of the name has any of it.
fn has(export: &Export, container: &str, device: &str, share: f64) -> bool {
    let [namespace, pod, container] = container.split('/').collect::<Vec<_>>()[..] else {
        panic!("{container}")
    };
    let with = format!(
        "{device};k8s.namespace.name={namespace};k8s.pod.name={pod};k8s.container.name={container};gpu.tenant={namespace}"
    );
    export.all(SHARE, &with).iter().any(|point| point.value.is_some_and(|value| (value - share).abs() < 1e-9))
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_follow_pods_and_end_with_them() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::default();
    let socket = directory.path().join("kubelet.sock");
    let kubelet = node.serve(&socket);
    let rig = Rig::start(profile::h200(2), &settings(directory.path())).await;
    let uuids: Vec<String> = rig.nvml.scenario().devices.iter().map(|device| device.uuid.clone()).collect();
    let on: Vec<String> = uuids.iter().map(|uuid| format!("hw.id={uuid}")).collect();
    node.give("ml/train-0/main", "nvidia.com/gpu", &[&uuids[0]]);
    let export = rig.until("the pod", |export| has(export, "ml/train-0/main", &on[0], 1.0)).await;
    assert_eq!(export.all(SHARE, "").len(), 1, "nobody's part is no series");
    assert_eq!(export.one(SHARE, "").attributes["gpu.allocation.source"], "kubelet");
    assert!(export.has("nvidia.gpu.allocation.busy", "k8s.pod.name=train-0"));
    // Devices have no pods in their series: those end with pods.
    let of_pods =
        export.all("hw.power", "").iter().filter(|p| p.attributes.contains_key("k8s.pod.name")).count();
    assert_eq!(of_pods, 0);

    // The pod's successor is on the other device.
    node.remove("ml/train-0");
    node.give("ml/train-1/main", "nvidia.com/gpu", &[&uuids[1]]);
    let mut ended = false;
    let moved = |export: &Export| {
        ended |= export.ended(SHARE, "k8s.pod.name=train-0");
        has(export, "ml/train-1/main", &on[1], 1.0)
    };
    rig.until("the successor", moved).await;
    assert!(ended, "the old series ends with a mark");

    // An event on the device is the pod's, and the other device's is nobody's.
    rig.nvml.push(Event::xid(1, 79));
    rig.nvml.push(Event::xid(0, 43));
    rig.until("the counters", |export| {
        export.has("nvidia.gpu.xid.events", &format!("{};k8s.pod.name=train-1", on[1]))
            && export.has("nvidia.gpu.xid.events", &on[0])
    })
    .await;
    let logs = rig.logs();
    let pod_of = |uuid: &str| {
        let record = logs.iter().find(|record| record.attributes["hw.id"] == uuid).unwrap();
        record.attributes.get("k8s.pod.name").cloned()
    };
    assert_eq!(pod_of(&uuids[1]).as_deref(), Some("train-1"));
    assert_eq!(pod_of(&uuids[0]), None);

    // The kubelet is gone for longer than its word holds: devices go on.
    kubelet.end().await;
    let export = rig.until("the end of the pod", |export| !export.has(SHARE, "")).await;
    assert!(export.has("hw.power", &on[1]) && export.has("hw.gpu.utilization", &on[1]));
    assert!(rig.own("tidegate_nvml_pod_resources_requests", "refused") >= 1.0);
    // And back, at the same path.
    let _kubelet = node.serve(&socket);
    rig.until("the pod again", |export| has(export, "ml/train-1/main", &on[1], 1.0)).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_that_stalls_does_not_hold_up_the_devices() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::default();
    let _kubelet = node.serve(&directory.path().join("kubelet.sock"));
    node.list(Manner::Stalls);
    let rig = Rig::start(profile::h200(1), &settings(directory.path())).await;
    let begin = std::time::Instant::now();
    for _ in 0..3 {
        assert!(rig.next().await.has("hw.power", ""));
    }
    assert!(begin.elapsed() < SOON / 2);
    assert!(rig.own("tidegate_nvml_pod_resources_requests", "timeout") >= 2.0);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_and_replicas_have_their_part_of_the_gpu() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::default();
    let _kubelet = node.serve(&directory.path().join("kubelet.sock"));
    let scenario = profile::a100_mig();
    let slot = |slot: usize| scenario.devices[0].mig[slot].as_ref().unwrap().uuid.clone();
    let (large, shared) = (slot(0), slot(2));
    let replicas: Vec<String> = (0..4).map(|n| format!("{shared}::{n}")).collect();
    node.allocatable("nvidia.com/mig-3g.20gb", &replicas.iter().map(String::as_str).collect::<Vec<_>>());
    node.give("ml/one/main", "nvidia.com/mig-3g.20gb", &[&large]);
    node.give("ml/two/main", "nvidia.com/mig-3g.20gb.shared", &[&replicas[3], &replicas[0]]);
    node.give("ml/three/main", "nvidia.com/mig-3g.20gb.shared", &[&replicas[1]]);
    let rig = Rig::start(scenario.clone(), &settings(directory.path())).await;
    // Memory counts for more than slices: 20,070,793,216 bytes of 42,949,672,960, against 3 of 7. With the 1g.5gb, of
    // which slices count for more, that is more than one GPU.
    let size = 20_070_793_216.0 / 42_949_672_960.0;
    let part = size / (2.0 * size + 1.0 / 7.0);
    let on = |mig: &str| format!("hw.id={};nvidia.gpu.mig.uuid={mig}", scenario.devices[0].uuid);
    rig.until("all three", |export| {
        has(export, "ml/one/main", &on(&large), part)
            && has(export, "ml/two/main", &on(&shared), part / 2.0)
            && has(export, "ml/three/main", &on(&shared), part / 4.0)
    })
    .await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_give_away_who_uses_what_was_given_to_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::default();
    let _kubelet = node.serve(&directory.path().join("kubelet.sock"));
    crate::process(directory.path(), 4321, "sneaky", "ml", "main");
    let rig = Rig::start(profile::h200(1), &settings(directory.path())).await;
    rig.nvml.edit(|scenario| {
        let gpu = scenario.gpu(0);
        gpu.compute = vec![profile::process(4321, 1 << 30)];
        (gpu.graphics, gpu.mps) = (Vec::new(), Vec::new());
    });
    let export = rig.until("the pod", |export| has(export, "ml/sneaky/main", "", 1.0)).await;
    assert_eq!(export.one(SHARE, "").attributes["gpu.allocation.source"], "process");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_on_a_shared_gpu_are_each_their_own_pods() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::default();
    let _kubelet = node.serve(&directory.path().join("kubelet.sock"));
    let scenario = profile::h200(1);
    let replicas = [0, 1].map(|n| format!("{}::{n}", scenario.devices[0].uuid));
    for (pid, pod, replica) in [(4321, "one", &replicas[0]), (4322, "two", &replicas[1])] {
        crate::process(directory.path(), pid, pod, "ml", "main");
        node.give(&format!("ml/{pod}/main"), "nvidia.com/gpu.shared", &[replica]);
    }
    let settings = format!("{}, groups: {{process: {{enabled: true}}}}", settings(directory.path()));
    let rig = Rig::start(scenario, &settings).await;
    rig.nvml.edit(|scenario| {
        let gpu = scenario.gpu(0);
        gpu.compute = vec![profile::process(4321, 1 << 30), profile::process(4322, 2 << 30)];
        (gpu.graphics, gpu.mps) = (Vec::new(), Vec::new());
    });
    let memory = |export: &Export, pod: &str| {
        let all = export.all("nvidia.gpu.process.memory.usage", &format!("k8s.pod.name={pod}"));
        all.first().and_then(|point| point.value)
    };
    rig.until("both", |export| {
        memory(export, "one") == Some(f64::from(1 << 30))
            && memory(export, "two") == Some(2.0 * f64::from(1 << 30))
    })
    .await;
    rig.stop().await;
}
