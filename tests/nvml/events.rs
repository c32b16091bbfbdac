//! XIDs and other events: each is counted once and written as a log record, whatever else goes wrong.

use nvml_stand_in::{Event, Fault, profile};

use crate::kit::{Export, Record, Rig, SOON, Shape, unix_nanos};

/// A receiver that watches `devices`, for events.
async fn watching(devices: usize) -> Rig {
    let rig = Rig::start(profile::h200(devices), "").await;
    assert!(rig.nvml.wait_calls("nvmlDeviceRegisterEvents", devices as u64, SOON));
    assert!(rig.nvml.wait_calls("nvmlEventSetWait_v2", 1, SOON));
    rig
}

fn xid(code: u64) -> String {
    format!("nvidia.gpu.xid={code}")
}

/// The export that has counted so many of a code.
async fn counted(rig: &Rig, code: u64, count: f64) -> Export {
    let is = |export: &Export| {
        export.all("nvidia.gpu.xid.events", &xid(code)).iter().filter_map(|point| point.value).sum::<f64>()
            >= count
    };
    rig.until(&format!("{count} of XID {code}"), is).await
}

/// The records of an XID.
fn records(rig: &Rig, code: u64) -> Vec<Record> {
    let of = |record: &Record| record.attributes.get("nvidia.gpu.xid") == Some(&code.to_string());
    rig.logs().into_iter().filter(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_xid_is_counted_by_code_and_written_down() {
    let rig = watching(2).await;
    let uuid = rig.nvml.scenario().devices[1].uuid.clone();
    let before = unix_nanos();
    rig.nvml.push(Event::xid(1, 31));
    let export = counted(&rig, 31, 1.0).await;
    let count = export.one("nvidia.gpu.xid.events", &format!("hw.id={uuid};{}", xid(31)));
    assert_eq!((count.value, count.shape, count.unit.as_str()), (Some(1.0), Shape::Counter, "{event}"));
    assert!(count.start > 0 && count.start <= before, "{count:?}");
    assert_eq!(count.attributes["hw.name"], "NVIDIA H200");
    let seen = export.one("nvidia.gpu.xid.last_seen", &format!("hw.id={uuid};{}", xid(31)));
    assert_eq!((seen.shape, seen.unit.as_str()), (Shape::Gauge, "s"));
    let seen = seen.value.unwrap();
    assert!(seen >= before as f64 / 1e9 - 1.0 && seen <= unix_nanos() as f64 / 1e9, "{seen}");

    rig.nvml.push(Event::xid(1, 31));
    rig.nvml.push(Event::xid(0, 31));
    rig.nvml.push(Event::xid(1, 48));
    let export = counted(&rig, 48, 1.0).await;
    assert_eq!(export.value("nvidia.gpu.xid.events", &format!("hw.id={uuid};{}", xid(31))), 2.0);
    assert_eq!(export.all("nvidia.gpu.xid.events", &xid(31)).len(), 2, "a series for each device");
    assert_eq!(export.one("nvidia.gpu.xid.events", &format!("hw.id={uuid};{}", xid(31))).start, count.start);

    let written = records(&rig, 31);
    assert_eq!(written.len(), 3);
    let record = &written[0];
    assert_eq!(record.attributes["hw.id"], uuid);
    assert_eq!(record.attributes["hw.name"], "NVIDIA H200");
    assert_eq!(record.attributes["nvidia.gpu.event.type"], "xid");
    assert!(record.body.contains("XID 31") && record.body.contains(&uuid), "{}", record.body);
    assert!(record.time >= before && record.severity > 0 && !record.event.is_empty(), "{record:?}");
    assert_eq!(record.resource["nvidia.driver.version"], "575.57.08");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_events_are_counted_by_type() {
    let rig = watching(1).await;
    rig.nvml.push(Event::of(0, 0x2));
    rig.nvml.push(Event { unasked: true, ..Event::of(0, 0x4000) });
    rig.nvml.push(Event { unasked: true, ..Event::of(0, 0x4000) });
    let other = "nvidia.gpu.event.type=other";
    let two = |export: &Export| {
        export.all("nvidia.gpu.events", other).first().is_some_and(|p| p.value == Some(2.0))
    };
    let export = rig.until("two unknown events", two).await;
    let point = export.one("nvidia.gpu.events", "nvidia.gpu.event.type=double_bit_ecc");
    assert_eq!((point.value, point.shape, point.unit.as_str()), (Some(1.0), Shape::Counter, "{event}"));
    assert!(export.all("nvidia.gpu.xid.events", "").is_empty(), "these are no XIDs");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_in_an_instance_says_which() {
    let rig = Rig::start(profile::a100_mig(), "").await;
    assert!(rig.nvml.wait_calls("nvmlEventSetWait_v2", 1, SOON));
    rig.nvml.push(Event { gpu_instance: Some(9), compute_instance: Some(1), ..Event::xid(0, 43) });
    counted(&rig, 43, 1.0).await;
    let record = &records(&rig, 43)[0];
    assert_eq!(record.attributes["nvidia.gpu.mig.gpu_instance_id"], "9");
    assert_eq!(record.attributes["nvidia.gpu.mig.compute_instance_id"], "1");
    assert_eq!(record.attributes["hw.id"], rig.nvml.scenario().devices[0].uuid);
    rig.stop().await;
}

/// Whatever registration answers for one device, the others are watched.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_cannot_be_watched_does_not_blind_the_others() {
    for code in [2, 3, 4, 10, 15, 17, 25, 999] {
        let mut scenario = profile::h200(3);
        scenario.gpu(1).fail("nvmlDeviceRegisterEvents", code);
        let rig = Rig::start(scenario, "").await;
        assert!(rig.nvml.wait_calls("nvmlEventSetWait_v2", 1, SOON), "code {code}");
        rig.nvml.push(Event::xid(0, 13));
        rig.nvml.push(Event::xid(2, 13));
        counted(&rig, 13, 2.0).await;
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_without_events_is_read_all_the_same() {
    let mut scenario = profile::h200(2);
    scenario.gpu(0).set("nvmlDeviceGetSupportedEventTypes", 0);
    scenario.gpu(1).unset(&["nvmlDeviceGetSupportedEventTypes"]);
    let rig = Rig::start(scenario, "").await;
    let export = rig.next().await;
    assert_eq!(export.all("hw.power", "").len(), 2);
    assert_eq!(rig.nvml.calls("nvmlDeviceRegisterEvents"), 0);
    rig.stop().await;
}

/// What waiting answers when something is wrong: the set is made anew, and nothing is counted twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_wait_is_followed_by_a_new_set() {
    for code in [15, 999, 4, 20] {
        let rig = watching(1).await;
        rig.nvml.push(Event::xid(0, 94));
        counted(&rig, 94, 1.0).await;
        let sets = rig.nvml.calls("nvmlEventSetCreate");
        rig.nvml.edit(|s| {
            s.fault("nvmlEventSetWait_v2", Fault::code(code));
        });
        assert!(rig.nvml.wait_more_calls("nvmlEventSetWait_v2", 1, SOON));
        rig.nvml.edit(|s| {
            s.clear("nvmlEventSetWait_v2");
        });
        assert!(rig.nvml.wait_calls("nvmlEventSetCreate", sets + 1, SOON), "code {code}");
        assert!(rig.nvml.wait_more_calls("nvmlEventSetWait_v2", 1, SOON));
        rig.nvml.push(Event::xid(0, 94));
        let export = counted(&rig, 94, 2.0).await;
        assert_eq!(export.value("nvidia.gpu.xid.events", ""), 2.0, "code {code}");
        assert_eq!(rig.nvml.stats().event_sets, 1, "the old one was freed");
        assert_eq!(rig.nvml.stats().generation, 1, "code {code}: the readings go on");
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn xid_79_is_counted_before_its_device_is_lost() {
    let rig = watching(2).await;
    let uuids: Vec<String> = rig.nvml.scenario().devices.iter().map(|device| device.uuid.clone()).collect();
    rig.next().await;
    rig.nvml.edit(|s| {
        s.events.push(Event::xid(1, 79));
        s.gpu(1).fail("*", 15);
    });
    let lost = format!("hw.id={}", uuids[1]);
    let is =
        |export: &Export| export.all("nvidia.gpu.up", &lost).first().is_some_and(|p| p.value == Some(0.0));
    rig.until("the loss", is).await;
    let export = counted(&rig, 79, 1.0).await;
    assert_eq!(export.value("nvidia.gpu.xid.events", &format!("{lost};{}", xid(79))), 1.0);
    assert!(export.has("nvidia.gpu.xid.last_seen", &lost));
    assert_eq!(export.value("hw.status", &format!("{lost};hw.state=failed")), 1.0);
    assert_eq!(records(&rig, 79).len(), 1);
    // The other one is still watched, with a set of its own.
    assert!(rig.nvml.wait_more_calls("nvmlEventSetWait_v2", 2, SOON));
    rig.nvml.push(Event::xid(0, 13));
    let export = counted(&rig, 13, 1.0).await;
    assert_eq!(export.value("nvidia.gpu.up", &format!("hw.id={}", uuids[0])), 1.0);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_outlive_the_driver() {
    let rig = watching(1).await;
    rig.nvml.push(Event::xid(0, 63));
    let before = counted(&rig, 63, 1.0).await;
    rig.nvml.edit(|s| {
        s.gpu(0).fault("nvmlDeviceGetPowerUsage", Fault::code(9).times(1));
    });
    let again =
        |export: &Export| export.value("nvidia.gpu.nvml.generation", "") == 2.0 && export.has("hw.power", "");
    rig.until("a new generation", again).await;
    assert!(rig.nvml.wait_more_calls("nvmlEventSetWait_v2", 1, SOON));
    rig.nvml.push(Event::xid(0, 63));
    let after = counted(&rig, 63, 2.0).await;
    let start = |export: &Export| export.one("nvidia.gpu.xid.events", "").start;
    assert_eq!(start(&before), start(&after));
    rig.stop().await;
}

/// A failing application makes one XID after the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_events_is_counted_and_written_down_in_full() {
    const STORM: u64 = 900;
    let rig = watching(2).await;
    rig.nvml.edit(|s| s.events.extend((0..STORM).map(|at| Event::xid((at % 2) as usize, 13 + at % 3 * 18))));
    let all = |export: &Export| {
        export.all("nvidia.gpu.xid.events", "").iter().filter_map(|point| point.value).sum::<f64>()
            == STORM as f64
    };
    let export = rig.until("the whole storm", all).await;
    assert_eq!(export.all("nvidia.gpu.xid.events", "").len(), 6);
    let written = || rig.logs().len() as u64;
    let begin = std::time::Instant::now();
    while written() < STORM && begin.elapsed() < SOON {
        rig.next().await;
    }
    assert_eq!(written(), STORM);
    rig.stop().await;
}
