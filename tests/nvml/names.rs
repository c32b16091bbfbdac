//! Names of others: dcgm-exporter's, and what tells series of several nodes apart.

use nvml_stand_in::Event;

use crate::kit::{Rig, Shape};
use crate::readings::{complete, device, parse, scenario};
use crate::table::{DCGM, READINGS};

#[tokio::test(flavor = "multi_thread")]
async fn dcgm_names_have_its_units_and_labels() {
    let settings = "node: n1, dcgm_names: true, groups: {pcie_throughput: {enabled: true}}";
    let rig = Rig::start(scenario(vec![device(0, &parse(READINGS))]), settings).await;
    let export = rig.until("a complete export", complete).await;
    let uuid = rig.nvml.scenario().devices[0].uuid.clone();
    let mut wrong = Vec::new();
    let mut names = Vec::new();
    for line in DCGM.lines().filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(' ').unwrap();
        let (name, value) = (format!("DCGM_FI_{name}"), value.parse::<f64>().unwrap());
        let with = format!(
            "UUID={uuid};gpu=0;device=nvidia3;modelName=NVIDIA H200;Hostname=n1;pci_bus_id=00000000:19:00.0"
        );
        match export.all(&name, &with)[..] {
            [point] if point.value == Some(value) && point.shape == Shape::Gauge && point.unit.is_empty() => {
            }
            ref other => wrong.push(format!("{name} is not {value}: {other:?}")),
        }
        names.push(name);
    }
    for point in export.points.iter().filter(|point| point.name.starts_with("DCGM")) {
        if !names.contains(&point.name) {
            wrong.push(format!("not in the table: {}", point.key()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(rig.nvml.wait_calls("nvmlEventSetWait_v2", 1, crate::kit::SOON));
    rig.nvml.push(Event::xid(0, 48));
    rig.until("the last XID", |export| export.has("DCGM_FI_DEV_XID_ERRORS", "")).await;
    rig.nvml.push(Event::xid(0, 13));
    let last = |value| move |export: &crate::kit::Export| export.value("DCGM_FI_DEV_XID_ERRORS", "") == value;
    rig.until("the next", last(13.0)).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gpu_id_can_be_the_number() {
    let devices = vec![device(0, &parse(READINGS)), device(1, &parse(READINGS))];
    let rig = Rig::start(scenario(devices), "node: n2, legacy_names: true, legacy_gpu_id: index").await;
    let export = rig.next().await;
    for index in ["0", "1"] {
        assert_eq!(export.value("gpu_temperature_celsius", &format!("gpu_id={index};node=n2")), 52.0);
        assert_eq!(export.one("gpu_temperature_celsius", &format!("gpu_id={index}")).attributes.len(), 2);
    }
    assert_eq!(export.resource["service.instance.id"], "n2");
    rig.stop().await;
}
