//! Every reading of the table is exported as the table says, one that is not there is absent, and the rest stay.

use std::collections::{BTreeMap, BTreeSet};

use nvml_stand_in::{Device, Process, Scenario, profile};
use serde_json::Value;

use crate::kit::{Export, Point, Rig, Shape, pairs};
use crate::table::{BASICS, LEGACY, READINGS};

/// All groups that are off unless asked for.
pub const EVERYTHING: &str = "node: n1, legacy_names: true, groups: {pcie_throughput: {enabled: true}, \
                              nvlink_links: {enabled: true}, ecc_locations: {enabled: true}}";

/// What must come of a reading.
#[derive(Debug, Clone)]
pub struct Want {
    pub name: String,
    pub unit: String,
    pub shape: Shape,
    /// As in the table.
    pub attributes: String,
    pub value: f64,
}

/// A paragraph of the table.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    pub keys: Vec<(String, Value)>,
    pub wants: Vec<Want>,
}

impl Reading {
    /// For messages, and the symbol that it is asked by first.
    pub fn name(&self) -> &str {
        &self.keys[0].0
    }

    /// The keys of the calls: a field is asked for with all others in one call, and fails alone.
    pub fn keys(&self) -> Vec<&str> {
        self.keys.iter().map(|(key, _)| key.as_str()).collect()
    }
}

pub fn parse(text: &str) -> Vec<Reading> {
    let mut readings = Vec::new();
    for paragraph in text.split("\n\n") {
        let mut reading = Reading::default();
        for line in paragraph.lines().filter(|line| !line.trim().is_empty()) {
            if line.starts_with(' ') {
                reading.wants.push(want(line));
            } else {
                let (key, value) = line.split_once(" = ").unwrap();
                reading.keys.push((key.to_owned(), serde_json::from_str(value).unwrap()));
            }
        }
        readings.push(reading);
    }
    readings
}

fn want(line: &str) -> Want {
    let cells: Vec<&str> = line.split('|').map(str::trim).collect();
    let [name, unit, shape, attributes, value] = cells[..] else { panic!("{line}") };
    let shape = match shape {
        "gauge" => Shape::Gauge,
        "updown" => Shape::UpDown,
        "counter" => Shape::Counter,
        other => panic!("{other}"),
    };
    Want {
        name: name.to_owned(),
        unit: unit.to_owned(),
        shape,
        attributes: attributes.to_owned(),
        value: value.parse().unwrap(),
    }
}

/// A device that answers the basics and these readings, and nothing else.
pub fn device<'a>(index: usize, readings: impl IntoIterator<Item = &'a Reading>) -> Device {
    let mut device = profile::h200(index + 1).devices.pop().unwrap();
    device.values.clear();
    for line in BASICS.lines().filter(|line| !line.is_empty()) {
        let (key, value) = line.split_once(" = ").unwrap();
        device.set(key, serde_json::from_str::<Value>(value).unwrap());
    }
    for (key, value) in readings.into_iter().flat_map(|reading| &reading.keys) {
        device.set(key, value.clone());
    }
    device
}

/// A driver with these devices.
pub fn scenario(devices: Vec<Device>) -> Scenario {
    Scenario { devices, ..profile::h200(0) }
}

/// The attributes that a point of the device must have, exactly.
fn attributes(want: &Want, uuid: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    match want.attributes.strip_prefix('@') {
        Some(fan) => {
            all.insert("hw.id".to_owned(), format!("{uuid}/{fan}"));
            all.insert("hw.parent".to_owned(), uuid.to_owned());
        }
        None => {
            if !want.attributes.contains("gpu_id=") {
                all.insert("hw.id".to_owned(), uuid.to_owned());
                all.insert("hw.name".to_owned(), "NVIDIA H200".to_owned());
            }
            let own = pairs(&want.attributes).map(|(key, value)| (key, value.replace("@uuid", uuid)));
            all.extend(own.map(|(key, value)| (key.to_owned(), value)));
        }
    }
    all
}

/// The point that a want asks for, if it is there.
pub fn find<'a>(export: &'a Export, want: &Want, uuid: &str) -> Option<&'a Point> {
    export.exactly(&want.name, &attributes(want, uuid)).filter(|point| point.value.is_some())
}

/// Whether a point is about something that the table is not about.
fn derived(point: &Point) -> bool {
    const MADE: &[&str] = &[
        "nvidia.gpu.up",
        "nvidia.gpu.info",
        "hw.status",
        "nvidia.gpu.process.count",
        "nvidia.gpu.allocation.",
        "gpu.tenant.",
        "gpu.price",
    ];
    MADE.iter().any(|made| point.name.starts_with(made))
}

/// Everything that must be there has been read: profiling needs two samples, throughput its turn.
pub fn complete(export: &Export) -> bool {
    export.has("nvidia.gpu.sm.activity", "")
        && export.all("nvidia.gpu.pcie.throughput", "nvidia.gpu.source=sample").len() == 2
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reading_is_exported_as_the_table_says() {
    let readings = parse(READINGS);
    let device = device(0, &readings);
    let uuid = device.uuid.clone();
    let rig = Rig::start(scenario(vec![device]), EVERYTHING).await;
    let export = rig.until("a complete export", complete).await;
    let wants = readings.iter().flat_map(|reading| reading.wants.clone());
    let wants: Vec<Want> = wants.chain(LEGACY.lines().filter(|line| !line.is_empty()).map(want)).collect();
    let mut wrong = Vec::new();
    let mut known = BTreeSet::new();
    for want in &wants {
        let Some(point) = find(&export, want, &uuid) else {
            wrong.push(format!("not there: {} {{{}}}", want.name, want.attributes));
            continue;
        };
        known.insert(point.key());
        let right = (point.value.unwrap() - want.value).abs() <= want.value.abs() * 1e-12;
        if (point.shape, point.unit.as_str(), right) != (want.shape, want.unit.as_str(), true) {
            wrong.push(format!("{point:?} is not {want:?}"));
        }
    }
    for point in export.of_device(&uuid) {
        if !derived(point) && !known.contains(&point.key()) {
            wrong.push(format!("not in the table: {} = {:?}", point.key(), point.value));
        }
    }
    assert!(wrong.is_empty(), "{}\namong\n{}", wrong.join("\n"), export.text());
    rig.stop().await;
}

/// One device for each reading, which lacks that reading alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_reading_that_is_not_supported_is_absent_and_nothing_else_is() {
    let readings = parse(READINGS);
    let without = |left_out: usize| {
        let kept = readings.iter().enumerate().filter(move |(at, _)| *at != left_out);
        device(left_out, kept.map(|(_, reading)| reading))
    };
    let devices: Vec<Device> = (0..readings.len()).map(without).collect();
    let uuids: Vec<String> = devices.iter().map(|device| device.uuid.clone()).collect();
    let rig = Rig::start(
        scenario(devices),
        "groups: {nvlink_links: {enabled: true}, ecc_locations: {enabled: true}}",
    )
    .await;
    let all_profiled = |export: &Export| {
        let profiled = export.all("nvidia.gpu.sm.activity", "").len();
        profiled + 1 >= uuids.len()
    };
    let export = rig.until("profiling of all", all_profiled).await;
    let mut wrong = Vec::new();
    for (left_out, uuid) in uuids.iter().enumerate() {
        for (at, reading) in readings.iter().enumerate() {
            // Its turn comes to one device a collection.
            if reading.name().starts_with("nvmlDeviceGetPcieThroughput") {
                continue;
            }
            for want in &reading.wants {
                if find(&export, want, uuid).is_some() == (at == left_out) {
                    let what = if at == left_out { "is there" } else { "is not there" };
                    let name = readings[left_out].name();
                    wrong.push(format!("without {name}: {} {{{}}} {what}", want.name, want.attributes));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(export.all("nvidia.gpu.read.errors", "").len(), 0, "not supported is no error");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_supported_is_not_asked_for_again() {
    let readings = parse(READINGS);
    let rig = Rig::start(scenario(vec![device(0, [])]), EVERYTHING).await;
    rig.next().await;
    rig.next().await;
    let before = rig.nvml.stats().calls;
    rig.next().await;
    rig.next().await;
    let after = rig.nvml.stats().calls;
    let keys = readings.iter().flat_map(Reading::keys);
    let symbols: BTreeSet<&str> = keys.map(|key| key.split('/').next().unwrap()).collect();
    for symbol in symbols {
        let of = |calls: &BTreeMap<String, u64>| calls.get(symbol).copied().unwrap_or_default();
        assert_eq!(of(&before), of(&after), "{symbol}");
    }
    for key in readings.iter().flat_map(Reading::keys).filter(|key| key.starts_with("field/")) {
        let field = key.split('/').take(2).collect::<Vec<_>>().join("/");
        let of = |calls: &BTreeMap<String, u64>| calls.get(&field).copied().unwrap_or_default();
        assert_eq!(of(&before), of(&after), "{field}");
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_that_are_off_cost_no_call() {
    let off = "groups: {utilization: {enabled: false}, memory: {enabled: false}, temperature: {enabled: false}, \
               power: {enabled: false}, clocks: {enabled: false}, throttling: {enabled: false}, fans: {enabled: \
               false}, pcie: {enabled: false}, nvlink: {enabled: false}, ecc: {enabled: false}, mig: {enabled: \
               false}, modes: {enabled: false}, profiling: {enabled: false}, process: {enabled: false}, events: \
               {enabled: false}}, processes: {enabled: false}";
    let readings = parse(READINGS);
    let device = device(0, &readings);
    let uuid = device.uuid.clone();
    let rig = Rig::start(scenario(vec![device]), off).await;
    rig.next().await;
    let export = rig.next().await;
    let left: Vec<String> =
        export.of_device(&uuid).into_iter().filter(|point| !derived(point)).map(Point::key).collect();
    assert_eq!(left, Vec::<String>::new());
    let calls = rig.nvml.stats().calls;
    // Whether there are instances decides about much else.
    let asked = readings.iter().flat_map(Reading::keys).filter(|key| *key != "nvmlDeviceGetMigMode");
    for key in asked {
        let symbol = if key.starts_with("field") { key } else { key.split('/').next().unwrap() };
        assert!(!calls.contains_key(symbol), "{symbol}");
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_info_series_says_what_the_device_is() {
    let rig = Rig::start(scenario(vec![device(0, [])]), "").await;
    let export = rig.next().await;
    let info = export.one("nvidia.gpu.info", "");
    let uuid = rig.nvml.scenario().devices[0].uuid.clone();
    assert_eq!((info.value, info.shape, info.unit.as_str()), (Some(1.0), Shape::UpDown, "1"));
    let wanted = [
        ("hw.id", uuid.as_str()),
        ("hw.name", "NVIDIA H200"),
        ("hw.model", "NVIDIA H200"),
        ("hw.vendor", "NVIDIA"),
        ("hw.serial_number", "1650524000001"),
        ("hw.driver_version", "575.57.08"),
        ("hw.firmware_version", "96.00.A5.00.01"),
        ("nvidia.gpu.index", "0"),
        ("nvidia.gpu.minor_number", "3"),
        ("nvidia.gpu.pci.bus_id", "00000000:19:00.0"),
        ("nvidia.gpu.architecture", "Hopper"),
        ("nvidia.gpu.compute_capability", "9.0"),
        ("nvidia.gpu.board_part_number", "692-2G520-0200-000"),
        ("nvidia.cuda.version", "12.9"),
    ];
    for (key, value) in wanted {
        assert_eq!(
            info.attributes.get(key).map(String::as_str),
            Some(value),
            "{key} of {:?}",
            info.attributes
        );
    }
    // On hot series a driver's upgrade would begin everything anew.
    for point in export.points.iter().filter(|point| point.name != "nvidia.gpu.info") {
        for key in ["hw.driver_version", "hw.serial_number", "hw.firmware_version", "hw.model"] {
            assert!(!point.attributes.contains_key(key), "{key} on {}", point.key());
        }
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn identity_that_is_not_there_is_left_out() {
    let mut bare = device(0, []);
    bare.values.retain(|key, _| key == "nvmlDeviceGetName");
    let rig = Rig::start(scenario(vec![bare]), "").await;
    let export = rig.next().await;
    let info = export.one("nvidia.gpu.info", "");
    for key in [
        "hw.serial_number",
        "nvidia.gpu.pci.bus_id",
        "nvidia.gpu.minor_number",
        "nvidia.gpu.board_part_number",
    ] {
        assert!(!info.attributes.contains_key(key), "{key} = {:?}", info.attributes[key]);
    }
    assert_eq!(export.value("nvidia.gpu.up", ""), 1.0);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_have_memory_and_load() {
    let (own, parent) = (std::process::id(), std::os::unix::process::parent_id());
    let mut gpu = device(0, &parse(READINGS));
    gpu.compute = vec![
        profile::process(own, 7 << 30),
        // Not available, none at all, more than there is, and no process.
        Process { pid: parent, ..Process::default() },
        profile::process(0, 1 << 30),
        profile::process(parent, 1 << 50),
    ];
    gpu.graphics = vec![profile::process(parent, 1 << 20)];
    gpu.process_samples = vec![nvml_stand_in::ProcessSample {
        pid: own,
        timestamp: 1_700_000_000_000_000,
        sm: 40,
        memory: 30,
        encoder: 20,
        decoder: 10,
        ..Default::default()
    }];
    let rig = Rig::start(scenario(vec![gpu]), "groups: {process: {enabled: true}}").await;
    let export = rig.next().await;
    let pid = format!("process.pid={own}");
    assert_eq!(export.value("nvidia.gpu.process.memory.usage", &pid), f64::from(7 << 20) * 1024.0);
    for (task, load) in [("sm", 0.4), ("memory", 0.3), ("encoder", 0.2), ("decoder", 0.1)] {
        let with = format!("{pid};hw.gpu.task={task}");
        let point = export.one("nvidia.gpu.process.utilization", &with);
        assert_eq!((point.value, point.shape), (Some(load), Shape::Gauge));
    }
    assert_eq!(export.all("nvidia.gpu.process.memory.usage", "process.pid=0").len(), 0);
    let parents = export.all("nvidia.gpu.process.memory.usage", &format!("process.pid={parent}"));
    assert!(parents.iter().all(|point| point.value == Some(f64::from(1 << 20))), "{parents:?}");
    assert!(export.value("nvidia.gpu.read.errors", "") >= 1.0, "what cannot be is counted");
    // The next time there are no new samples: no load, and no error.
    let errors = export.value("nvidia.gpu.read.errors", "");
    let export = rig.next().await;
    assert_eq!(
        export.all("nvidia.gpu.process.utilization", "").iter().filter(|p| p.value.is_some()).count(),
        0
    );
    let more = export.all("nvidia.gpu.read.errors", "error.type=not_found").len();
    assert_eq!(more, 0);
    assert!(export.value("nvidia.gpu.read.errors", "") >= errors);
    rig.stop().await;
}
