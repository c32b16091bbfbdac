//! MIG: instances are things of their own, the GPU keeps what is the GPU's, and layouts change.

use nvml_stand_in::{Event, profile};

use crate::kit::{Export, Rig, Shape};

const GIB: f64 = 1_073_741_824.0;

fn uuid(rig: &Rig, slot: usize) -> String {
    rig.nvml.scenario().devices[0].mig[slot].as_ref().unwrap().uuid.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_have_memory_and_a_parent_and_the_gpu_no_utilisation() {
    let rig = Rig::start(profile::a100_mig(), "legacy_names: true").await;
    let export = rig.next().await;
    let gpu = rig.nvml.scenario().devices[0].uuid.clone();
    // 0 would look like an idle GPU.
    assert!(export.all("hw.gpu.utilization", "").is_empty());
    assert!(export.all("gpu_utilization_percent", "").is_empty());
    assert_eq!(export.value("nvidia.gpu.mig.enabled", "nvidia.gpu.mode.phase=current"), 1.0);
    assert_eq!(export.value("hw.power", ""), 80.0, "only on the GPU");
    for (slot, total, used) in [(0, 20_070_793_216.0, 6.0 * GIB), (2, 20_070_793_216.0, GIB)] {
        let with = format!("hw.id={};hw.parent={gpu}", uuid(&rig, slot));
        assert_eq!(export.value("hw.gpu.memory.limit", &with), total);
        let point = export.one("hw.gpu.memory.usage", &with);
        assert_eq!((point.value, point.shape, point.unit.as_str()), (Some(used), Shape::UpDown, "By"));
    }
    // Compute instances of one GPU instance share its memory: it is told once.
    assert!(export.has("hw.gpu.memory.usage", &format!("hw.id={}", uuid(&rig, 3))));
    assert!(!export.has("hw.gpu.memory.usage", &format!("hw.id={}", uuid(&rig, 4))));
    // Series that dashboards know are of GPUs: memory would be there twice.
    assert_eq!(export.all("gpu_memory_total_bytes", "").len(), 1);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_info_series_of_an_instance_says_what_it_is() {
    let rig = Rig::start(profile::a100_mig(), "").await;
    let export = rig.next().await;
    let gpu = rig.nvml.scenario().devices[0].uuid.clone();
    assert_eq!(export.all("nvidia.gpu.mig.info", "").len(), 4, "empty slots are nothing");
    for (slot, profile, gi, ci) in
        [(0, "3g.20gb", 1, 0), (2, "3g.20gb", 2, 0), (3, "1c.1g.5gb", 9, 0), (4, "1c.1g.5gb", 9, 1)]
    {
        let info = export.one("nvidia.gpu.mig.info", &format!("hw.id={}", uuid(&rig, slot)));
        assert_eq!((info.value, info.shape), (Some(1.0), Shape::UpDown));
        let of = |key: &str| info.attributes.get(key).map(String::as_str);
        assert_eq!(of("hw.parent"), Some(gpu.as_str()));
        assert_eq!(of("nvidia.gpu.mig.gpu_instance_id"), Some(gi.to_string().as_str()));
        assert_eq!(of("nvidia.gpu.mig.compute_instance_id"), Some(ci.to_string().as_str()));
        assert!(of("nvidia.gpu.mig.profile").is_some_and(|p| profile.ends_with(p)), "{:?}", info.attributes);
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn activity_of_an_instance_comes_from_profiling() {
    let rig = Rig::start(profile::h100_mig(), "").await;
    let instance = format!("hw.id={}", uuid(&rig, 0));
    let export = rig.until("profiling", |export| export.has("nvidia.gpu.sm.activity", &instance)).await;
    for (metric, value) in [
        ("nvidia.gpu.graphics.activity", 0.61),
        ("nvidia.gpu.sm.activity", 0.555),
        ("nvidia.gpu.sm.occupancy", 0.2025),
        ("nvidia.gpu.tensor.activity", 0.33),
        ("nvidia.gpu.memory.bandwidth.utilization", 0.47),
    ] {
        assert_eq!(export.value(metric, &instance), value);
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_layout_is_seen_with_its_event_and_the_old_series_end() {
    let rig = Rig::start(profile::a100_mig(), "").await;
    rig.next().await;
    let gone = uuid(&rig, 0);
    let old = format!("hw.id={gone}");
    assert!(rig.nvml.wait_calls("nvmlEventSetWait_v2", 1, crate::kit::SOON));
    rig.nvml.edit(|s| {
        let gpu = s.gpu(0);
        gpu.mig[0] = None;
        let name = "NVIDIA A100-SXM4-40GB MIG 2g.10gb";
        gpu.mig[1] = Some(profile::mig(7, name, (4, 0), (2, 2), 28, 10_000_000_000, 5));
        s.events.push(Event::of(0, 0x100));
    });
    let new = format!("hw.id={}", uuid(&rig, 1));
    let mut ended = false;
    let has_new = |export: &Export| {
        ended |= export.ended("hw.gpu.memory.usage", &old);
        export.has("hw.gpu.memory.usage", &new)
    };
    let export = rig.until("the new instance", has_new).await;
    assert_eq!(export.value("hw.gpu.memory.limit", &new), 10_000_000_000.0);
    assert!(ended, "the old series ends with a mark");
    assert!(!export.has("hw.gpu.memory.usage", &old));
    assert_eq!(export.value("nvidia.gpu.events", ""), 1.0);
    assert_eq!(rig.nvml.stats().generation, 1);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_instance_handle_makes_the_inventory_anew_without_an_event() {
    let rig = Rig::start(profile::a100_mig(), "").await;
    rig.next().await;
    let gone = format!("hw.id={}", uuid(&rig, 2));
    rig.nvml.edit(|s| s.gpu(0).mig[2] = None);
    rig.until("the end of the instance", |export| !export.has("nvidia.gpu.mig.info", &gone)).await;
    assert_eq!(rig.nvml.stats().generation, 1);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mig_switched_on_takes_the_utilisation_away() {
    let rig = Rig::start(profile::h100(1), "").await;
    let export = rig.next().await;
    assert!(export.has("hw.gpu.utilization", "hw.gpu.task=general"));
    rig.nvml.edit(|s| {
        let uuid = s.gpu(0).uuid.clone();
        *s = profile::h100_mig();
        s.gpu(0).uuid = uuid;
        s.events.push(Event::of(0, 0x100));
    });
    let export = rig.until("an instance", |export| export.has("nvidia.gpu.mig.info", "")).await;
    let export = if export.has("hw.gpu.utilization", "") { rig.next().await } else { export };
    assert!(!export.has("hw.gpu.utilization", "hw.gpu.task=general"));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_whose_memory_needs_rights_has_instances_all_the_same() {
    let mut scenario = profile::a100_mig();
    scenario.gpu(0).fail("nvmlDeviceGetMemoryInfo_v2", 4).fail("nvmlDeviceGetMemoryInfo", 4);
    let rig = Rig::start(scenario, "").await;
    let export = rig.next().await;
    assert!(export.has("hw.gpu.memory.usage", &format!("hw.id={}", uuid(&rig, 0))));
    let gpu = rig.nvml.scenario().devices[0].uuid.clone();
    assert!(!export.has("hw.gpu.memory.usage", &format!("hw.id={gpu}")));
    rig.stop().await;
}
