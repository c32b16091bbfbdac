//! Values that are none: what the driver marks as not available, what cannot be, and what turns back.

use nvml_stand_in::{Device, profile};
use serde_json::{Value, json};

use crate::kit::{Export, Rig, Shape};
use crate::readings::{device, parse, scenario};
use crate::table::READINGS;

const U32: u64 = u32::MAX as u64;
const U64: u64 = u64::MAX;

/// What a device answers, and the series that must not come of it.
#[test]
fn nothing_that_is_not_available_is_exported() {
    let all = |n: u64, count: usize| Value::from(vec![n; count]);
    let cases: Vec<(&str, Value, &str, &str)> = vec![
        ("nvmlDeviceGetUtilizationRates", all(U32, 2), "hw.gpu.utilization", "hw.gpu.task=general"),
        ("nvmlDeviceGetUtilizationRates", json!([101, 0]), "hw.gpu.utilization", "hw.gpu.task=general"),
        ("nvmlDeviceGetEncoderUtilization", all(U32, 2), "hw.gpu.utilization", "hw.gpu.task=encoder"),
        ("nvmlDeviceGetJpgUtilization", all(U32, 2), "hw.gpu.utilization", "hw.gpu.task=jpeg"),
        ("nvmlDeviceGetMemoryInfo_v2", all(U64, 4), "hw.gpu.memory.usage", ""),
        ("nvmlDeviceGetMemoryInfo_v2", all(U64, 4), "hw.gpu.memory.limit", ""),
        ("nvmlDeviceGetMemoryInfo_v2", all(U64, 4), "hw.gpu.memory.utilization", ""),
        ("nvmlDeviceGetMemoryInfo_v2", json!([0, 0, 0, 0]), "hw.gpu.memory.utilization", ""),
        ("nvmlDeviceGetBAR1MemoryInfo", all(U64, 3), "nvidia.gpu.bar1.memory.usage", ""),
        ("nvmlDeviceGetTemperature/0", json!(U32), "hw.temperature", "hw.sensor_location=gpu"),
        ("nvmlDeviceGetTemperature/0", json!(201), "hw.temperature", "hw.sensor_location=gpu"),
        ("field/82", json!(0), "hw.temperature", "hw.sensor_location=memory"),
        ("field/82", json!(201), "hw.temperature", "hw.sensor_location=memory"),
        ("field/82", json!({"type": 0, "bits": 55}), "hw.temperature", "hw.sensor_location=memory"),
        ("field/82", json!({"type": 1, "bits": U32}), "hw.temperature", "hw.sensor_location=memory"),
        (
            "nvmlDeviceGetTemperatureThreshold/1",
            json!(U32),
            "hw.temperature.limit",
            "hw.limit_type=high.degraded",
        ),
        ("nvmlDeviceGetMarginTemperature", json!(-1_000_000), "nvidia.gpu.temperature.margin", ""),
        ("nvmlDeviceGetPowerUsage", json!(U32), "hw.power", ""),
        ("nvmlDeviceGetTotalEnergyConsumption", json!(U64), "hw.energy", ""),
        (
            "nvmlDeviceGetEnforcedPowerLimit",
            json!(U32),
            "nvidia.gpu.power.limit",
            "nvidia.gpu.power.limit.type=enforced",
        ),
        ("nvmlDeviceGetClockInfo/1", json!(U32), "nvidia.gpu.clock.frequency", "nvidia.gpu.clock=sm"),
        ("nvmlDeviceGetPerformanceState", json!(32), "nvidia.gpu.performance_state", ""),
        ("nvmlDeviceGetPerformanceState", json!(99), "nvidia.gpu.performance_state", ""),
        ("nvmlDeviceGetFanSpeed_v2/0", json!(U32), "hw.fan.speed_ratio", ""),
        ("nvmlDeviceGetPcieReplayCounter", json!(U32), "nvidia.gpu.pcie.replays", ""),
        ("nvmlDeviceGetCurrPcieLinkWidth", json!(U32), "nvidia.gpu.pcie.link.width", ""),
        ("field/197", json!(U64), "hw.gpu.io", "network.io.direction=transmit"),
        ("field/138/4294967295", json!(U64), "nvidia.gpu.nvlink.io", "network.io.direction=transmit"),
        ("field/38", json!(U64), "nvidia.gpu.nvlink.errors", "error.type=crc_flit"),
        ("field/142", json!(U32), "nvidia.gpu.row_remap.rows", "error.type=corrected"),
        ("field/230", json!(U32), "nvidia.gpu.recovery_action", ""),
        ("field/74", json!(U64), "nvidia.gpu.clock.throttle.duration", "nvidia.gpu.throttle.reason=power"),
        ("nvmlDeviceGetTotalEccErrors/0/0", json!(U64), "hw.errors", "error.type=corrected"),
        (
            "nvmlDeviceGetMemoryErrorCounter/0/0/2",
            json!(U64),
            "nvidia.gpu.ecc.location_errors",
            "nvidia.gpu.memory.location=device;error.type=corrected",
        ),
        (
            "nvmlDeviceGetNvLinkErrorCounter/0/0",
            json!(U64),
            "nvidia.gpu.nvlink.link_errors",
            "nvidia.gpu.nvlink.link=0;error.type=replay",
        ),
        ("nvmlDeviceGetComputeMode", json!(77), "nvidia.gpu.compute_mode", ""),
    ];
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let readings = parse(READINGS);
        let with = |(at, (key, value, ..)): (usize, &(&str, Value, &str, &str))| -> Device {
            let mut device = device(at, &readings);
            // Nothing else tells the same.
            for other in readings.iter().filter(|reading| reading.keys().contains(key)).flat_map(|r| r.keys())
            {
                device.values.remove(other);
            }
            device.set(key, value.clone());
            device
        };
        let devices: Vec<Device> = cases.iter().enumerate().map(with).collect();
        let uuids: Vec<String> = devices.iter().map(|device| device.uuid.clone()).collect();
        let groups = "groups: {nvlink_links: {enabled: true}, ecc_locations: {enabled: true}}";
        let rig = Rig::start(scenario(devices), groups).await;
        let export = rig.next().await;
        let mut wrong = Vec::new();
        for ((key, value, metric, with), uuid) in cases.iter().zip(&uuids) {
            let of =
                |point: &&crate::kit::Point| point.attributes.values().any(|v| v.starts_with(uuid.as_str()));
            let found: Vec<_> = export.all(metric, with).into_iter().filter(of).collect();
            // One fan has a speed.
            let most = usize::from(*metric == "hw.fan.speed_ratio");
            if found.iter().filter(|point| point.value.is_some()).count() > most {
                wrong.push(format!("{key} = {value}: {found:?}"));
            }
            assert!(export.value("nvidia.gpu.up", &format!("hw.id={uuid}")) == 1.0);
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        rig.stop().await;
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_but_good_values_are_exported() {
    let mut gpu = device(0, &parse(READINGS));
    gpu.set("nvmlDeviceGetMarginTemperature", -3)
        .set("nvmlDeviceGetFanSpeed_v2/0", 110)
        // A link that sleeps, and a reason that nobody knows.
        .set("nvmlDeviceGetNvLinkState/0", 2)
        .set("nvmlDeviceGetCurrentClocksThrottleReasons", 0x8000_0040_u64)
        .set("nvmlDeviceGetArchitecture", 77);
    let rig = Rig::start(scenario(vec![gpu]), "").await;
    let export = rig.next().await;
    assert_eq!(export.value("nvidia.gpu.temperature.margin", ""), -3.0);
    assert_eq!(export.value("nvidia.gpu.nvlink.active", "nvidia.gpu.nvlink.link=0"), 0.0);
    let reason = "nvidia.gpu.throttle.reason=hw_thermal_slowdown";
    assert_eq!(export.value("nvidia.gpu.clock.throttle.active", reason), 1.0);
    assert_eq!(export.value("hw.status", "hw.state=degraded"), 1.0);
    assert!(export.all("hw.fan.speed_ratio", "").iter().any(|point| point.value == Some(1.1)));
    let info = export.one("nvidia.gpu.info", "");
    assert_eq!(info.attributes.get("nvidia.gpu.compute_capability").map(String::as_str), Some("9.0"));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_of_a_device_follows_its_readings() {
    let readings = parse(READINGS);
    let healthy = |at: usize| {
        let mut device = device(at, &readings);
        device.field(144, 0).field(145, 0).field(230, 0).set("nvmlDeviceGetCurrentClocksThrottleReasons", 1);
        device
    };
    let mut devices: Vec<Device> = (0..6).map(healthy).collect();
    devices[1].field(144, 1);
    devices[2].field(145, 1);
    devices[3].field(230, 2);
    devices[4].set("nvmlDeviceGetCurrentClocksThrottleReasons", 0x80);
    devices[5].field(145, 1).field(144, 1);
    let uuids: Vec<String> = devices.iter().map(|device| device.uuid.clone()).collect();
    let rig = Rig::start(scenario(devices), "").await;
    let export = rig.next().await;
    let states = ["ok", "degraded", "predicted_failure", "degraded", "degraded", "predicted_failure"];
    for (uuid, state) in uuids.iter().zip(states) {
        for name in ["ok", "degraded", "failed", "predicted_failure"] {
            let point = export.one("hw.status", &format!("hw.id={uuid};hw.state={name};hw.type=gpu"));
            let want = f64::from(u8::from(name == state));
            assert_eq!(
                (point.value, point.shape, point.unit.as_str()),
                (Some(want), Shape::UpDown, "1"),
                "{uuid}"
            );
        }
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_counter_that_turns_back_begins_anew() {
    let mut gpu = device(0, &parse(READINGS));
    gpu.field(197, 4_294_000_000_u64);
    let rig = Rig::start(scenario(vec![gpu]), "").await;
    let of = |export: &Export| export.one("hw.gpu.io", "network.io.direction=transmit").clone();
    let first = of(&rig.next().await);
    assert_eq!(first.start, first.time, "its true start is not known");
    rig.nvml.edit(|s| {
        s.gpu(0).field(197, 4_294_900_000_u64);
    });
    let second = of(&rig.fresh().await);
    assert!(second.value > first.value);
    assert_eq!(second.start, first.start);
    rig.nvml.edit(|s| {
        s.gpu(0).field(197, 5000);
    });
    let third = of(&rig.fresh().await);
    assert!(third.start > second.start, "a value below the last one is a reset");
    assert_eq!(third.value, Some(5000.0));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_driver_tells_what_it_can() {
    let rig =
        Rig::start(profile::old_driver(1), "legacy_names: true, groups: {process: {enabled: true}}").await;
    let export = rig.next().await;
    assert_eq!(export.value("hw.gpu.memory.limit", ""), 34_359_738_368.0);
    assert_eq!(export.value("hw.gpu.memory.usage", ""), 2_147_483_648.0);
    assert_eq!(export.value("gpu_memory_used_bytes", ""), 2_147_483_648.0);
    for absent in
        ["nvidia.gpu.memory.reserved", "gpu_memory_reserved_bytes", "nvidia.gpu.process.memory.usage"]
    {
        assert!(!export.has(absent, ""), "{absent}");
    }
    assert!(
        !export.has("nvidia.gpu.clock.throttle.duration", "nvidia.gpu.throttle.reason=sw_thermal_slowdown")
    );
    assert_eq!(export.value("nvidia.gpu.retired_pages", "nvidia.gpu.retirement.cause=single_bit"), 2.0);
    assert_eq!(export.value("nvidia.gpu.retired_pages", "nvidia.gpu.retirement.cause=double_bit"), 1.0);
    assert!(export.all("nvidia.gpu.read.errors", "").is_empty());
    rig.stop().await;
}

/// Three numberings of the same fields.
#[tokio::test(flavor = "multi_thread")]
async fn the_fields_of_event_reasons_are_those_of_the_driver() {
    for (driver, ids) in
        [("570.124.06", None), ("575.57.08", Some(251)), ("580.95.05", Some(269)), ("590.44", Some(269))]
    {
        let mut gpu = device(0, &[]);
        // What lies under these numbers in other drivers.
        for id in 251..=273 {
            gpu.field(id, 1_000_000_000_000_u64);
        }
        for at in 0..3 {
            if let Some(first) = ids {
                gpu.field(first + at, 1_000_000_000_u64 * u64::from(at + 1));
            }
        }
        let mut scenario = scenario(vec![gpu]);
        scenario.driver_version = driver.to_owned();
        let rig = Rig::start(scenario, "").await;
        let export = rig.next().await;
        let reasons = ["sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake"];
        for (at, reason) in reasons.into_iter().enumerate() {
            let found = export
                .all("nvidia.gpu.clock.throttle.duration", &format!("nvidia.gpu.throttle.reason={reason}"));
            let values: Vec<f64> = found.iter().filter_map(|point| point.value).collect();
            let want: Vec<f64> = ids.map(|_| (at + 1) as f64).into_iter().collect();
            assert_eq!(values, want, "{reason} with driver {driver}");
        }
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn boards_without_something_say_nothing_of_it() {
    let rig = Rig::start(profile::l40s(1), "").await;
    let export = rig.next().await;
    assert_eq!(export.value("hw.fan.speed_ratio", ""), 0.62);
    assert_eq!(export.value("hw.fan.speed", ""), 3120.0);
    assert!(!export.has("hw.temperature", "hw.sensor_location=memory"));
    assert!(!export.has("nvidia.gpu.nvlink.active", ""));
    assert!(!export.has("nvidia.gpu.nvlink.io", ""));
    rig.stop().await;
    let rig = Rig::start(profile::desktop(), "").await;
    let export = rig.next().await;
    assert_eq!(export.value("nvidia.gpu.performance_state", ""), 8.0);
    assert_eq!(export.value("nvidia.gpu.pcie.link.generation", ""), 1.0);
    assert_eq!(export.value("hw.fan.speed_ratio", ""), 0.0, "a fan that stands still");
    assert!(!export.has("hw.errors", ""));
    assert!(!export.has("nvidia.gpu.ecc.enabled", ""));
    rig.stop().await;
}

/// The same reading by another call, where the first is not there.
#[tokio::test(flavor = "multi_thread")]
async fn a_reading_is_taken_from_whatever_call_has_it() {
    let readings = parse(READINGS);
    let without = |at: usize, prefixes: &[&str]| {
        let mut device = device(at, &readings);
        device.values.retain(|key, _| !prefixes.iter().any(|prefix| key.starts_with(prefix)));
        device
    };
    let time = "nvidia.gpu.clock.throttle.duration";
    let power = "nvidia.gpu.throttle.reason=power";
    let mut newer_link = without(6, &["field/138", "field/139"]);
    newer_link.set("field/202/4294967295", 2020).set("field/204/4294967295", 2040);
    let mut newer_reasons = without(5, &["nvmlDeviceGetCurrentClocks", "nvmlDeviceGetSupportedClocks"]);
    newer_reasons
        .set("nvmlDeviceGetCurrentClocksEventReasons", 0x40)
        .set("nvmlDeviceGetSupportedClocksEventReasons", 0x40);
    let cases = [
        (without(0, &["nvmlDeviceGetTemperature/"]), "hw.temperature", "hw.sensor_location=gpu", 52.0),
        (without(1, &["nvmlDeviceGetMemoryInfo_v2"]), "hw.gpu.memory.usage", "", 120_754_820_096.0),
        (without(2, &["nvmlDeviceGetViolationStatus"]), time, power, 1.5),
        (without(3, &["field/74"]), time, power, 1.5),
        (
            without(4, &["field/83", "field/94", "field/3", "field/4"]),
            "hw.errors",
            "error.type=corrected",
            300.0,
        ),
        (
            newer_reasons,
            "nvidia.gpu.clock.throttle.active",
            "nvidia.gpu.throttle.reason=hw_thermal_slowdown",
            1.0,
        ),
        (newer_link, "nvidia.gpu.nvlink.io", "network.io.direction=receive", 2040.0),
    ];
    let rig = Rig::start(scenario(cases.iter().map(|(device, ..)| device.clone()).collect()), "").await;
    let export = rig.next().await;
    for (device, metric, with, value) in &cases {
        let found = export.all(metric, &format!("hw.id={};{with}", device.uuid));
        let values: Vec<f64> = found.iter().filter_map(|point| point.value).collect();
        assert_eq!(values, [*value], "{metric} {with}");
    }
    let v1 = format!("hw.id={}", cases[1].0.uuid);
    assert!(!export.has("nvidia.gpu.memory.reserved", &v1), "the older call does not know");
    rig.stop().await;
}
