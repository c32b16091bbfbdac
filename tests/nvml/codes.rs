//! Every return code on every class of call: what is left out, what is counted, what ends a device or a generation.

use std::collections::BTreeMap;

use nvml_stand_in::{Device, Fault};

use crate::kit::{Export, Rig};
use crate::readings::{Reading, device, find, parse, scenario};
use crate::table::READINGS;

/// One reading of each class of call, by the first key of its paragraph.
const CLASSES: &[&str] = &[
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetEncoderUtilization",
    "nvmlDeviceGetJpgUtilization",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetBAR1MemoryInfo",
    "nvmlDeviceGetTemperature/0",
    "field/82",
    "nvmlDeviceGetTemperatureThreshold/1",
    "nvmlDeviceGetMarginTemperature",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetTotalEnergyConsumption",
    "nvmlDeviceGetEnforcedPowerLimit",
    "nvmlDeviceGetPowerManagementLimitConstraints",
    "nvmlDeviceGetClockInfo/2",
    "nvmlDeviceGetMaxClockInfo/2",
    "nvmlDeviceGetCurrentClocksThrottleReasons",
    "field/74",
    "nvmlDeviceGetPerformanceState",
    "nvmlDeviceGetFanSpeed_v2/0",
    "nvmlDeviceGetFanSpeedRPM/0",
    "field/197",
    "nvmlDeviceGetCurrPcieLinkGeneration",
    "nvmlDeviceGetMaxPcieLinkWidth",
    "nvmlDeviceGetPcieReplayCounter",
    "nvmlDeviceGetNvLinkState/0",
    "field/138/4294967295",
    "nvmlDeviceGetNvLinkErrorCounter/0/0",
    "nvmlDeviceGetGpuFabricInfoV",
    "nvmlDeviceGetTotalEccErrors/0/0",
    "nvmlDeviceGetMemoryErrorCounter/0/0/2",
    "nvmlDeviceGetEccMode",
    "field/142",
    "nvmlDeviceGetRowRemapperHistogram",
    "field/230",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetPersistenceMode",
    "nvmlDeviceGetComputeMode",
    "gpm/2",
];

/// Not this time, and counted; a call that may work the next time.
const TRANSIENT: &[u32] = &[5, 8, 11, 12, 14, 17, 19, 20, 21, 23, 24, 27, 29, 30, 999];

/// Not this time, but nothing is wrong with the driver.
const QUIET: &[u32] = &[6, 7, 10];

/// Not in this generation, and no error.
const UNSUPPORTED: &[u32] = &[3, 13, 22, 25, 26];

/// Calls that tell how many there are of something and whether something is there.
const QUESTIONS: &[&str] = &[
    "nvmlDeviceGetNumFans",
    "nvmlDeviceGetSupportedClocksThrottleReasons",
    "nvmlDeviceGetSupportedEventTypes",
    "nvmlGpmQueryDeviceSupport",
    "nvmlGpmSampleGet",
    "nvmlDeviceGetFieldValues",
    "nvmlDeviceGetMaxMigDeviceCount",
    "nvmlDeviceRegisterEvents",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    // Who the device is, but for its UUID.
    "nvmlDeviceGetName",
    "nvmlDeviceGetSerial",
    "nvmlDeviceGetPciInfo_v3",
    "nvmlDeviceGetVbiosVersion",
    "nvmlDeviceGetArchitecture",
    "nvmlDeviceGetMinorNumber",
    "nvmlDeviceGetCudaComputeCapability",
    "nvmlDeviceGetBoardPartNumber",
    "nvmlDeviceGetVirtualizationMode",
    "nvmlDeviceGetNvLinkVersion",
];

const SETTINGS: &str = "groups: {nvlink_links: {enabled: true}, ecc_locations: {enabled: true}}";

fn classes() -> Vec<Reading> {
    let readings = parse(READINGS);
    let class = |name: &&str| readings.iter().find(|reading| reading.name() == *name).cloned();
    CLASSES.iter().map(|name| class(name).unwrap_or_else(|| panic!("{name}"))).collect()
}

/// A device for each class, with `code` on every call that tells its reading; one more has none.
fn devices(classes: &[Reading], code: u32) -> Vec<Device> {
    let with = |at: usize| {
        let mut device = device(at, classes);
        for key in classes.get(at).map(Reading::keys).unwrap_or_default() {
            device.fail(key, code);
        }
        device
    };
    (0..=classes.len()).map(with).collect()
}

/// The readings that each device has, by the place of the device and of the reading.
fn there(export: &Export, classes: &[Reading], uuids: &[String]) -> Vec<Vec<bool>> {
    let has =
        |reading: &Reading, uuid: &str| reading.wants.iter().any(|want| find(export, want, uuid).is_some());
    uuids.iter().map(|uuid| classes.iter().map(|reading| has(reading, uuid)).collect()).collect()
}

/// Whether profiling, which needs two samples, is there wherever it can be.
fn profiled(export: &Export, devices: usize) -> bool {
    export.all("nvidia.gpu.sm.activity", "").iter().filter(|point| point.value.is_some()).count() + 1
        >= devices
}

fn errors(export: &Export) -> f64 {
    export.all("nvidia.gpu.read.errors", "").iter().filter_map(|point| point.value).sum()
}

/// What is wrong with what is there: every device lacks its own reading and has all others.
fn wrong(export: &Export, classes: &[Reading], uuids: &[String], code: u32) -> Vec<String> {
    let mut wrong = Vec::new();
    for (device, has) in there(export, classes, uuids).into_iter().enumerate() {
        let failing = classes.get(device).map_or("nothing", Reading::name);
        for (at, has) in has.into_iter().enumerate() {
            if has == (at == device) {
                let is = if has { "is there" } else { "is not there" };
                wrong.push(format!("code {code} on {failing}: {} {is}", classes[at].name()));
            }
        }
    }
    wrong
}

async fn leaves_out_one_reading(code: u32, comes_back: bool, counted: bool) -> Vec<String> {
    let classes = classes();
    let devices = devices(&classes, code);
    let uuids: Vec<String> = devices.iter().map(|device| device.uuid.clone()).collect();
    let rig = Rig::start(scenario(devices), SETTINGS).await;
    let export = rig.until("profiling", |export| profiled(export, uuids.len())).await;
    let mut wrong = wrong(&export, &classes, &uuids, code);
    if counted != (errors(&export) > 0.0) {
        wrong.push(format!("code {code}: {} errors counted", errors(&export)));
    }
    let up = export.all("nvidia.gpu.up", "").iter().filter(|point| point.value == Some(1.0)).count();
    if up != uuids.len() {
        wrong.push(format!("code {code}: {up} devices are up"));
    }
    if comes_back {
        rig.nvml.edit(|s| s.devices.iter_mut().for_each(|device| device.faults.clear()));
        let all = |export: &Export| there(export, &classes, &uuids).iter().flatten().all(|has| *has);
        rig.until(&format!("everything after code {code}"), all).await;
    }
    assert_eq!(rig.nvml.stats().generation, 1, "code {code}");
    rig.stop().await;
    wrong
}

/// Runs a check for each code, some at a time.
async fn for_all<F>(codes: &[u32], check: impl Fn(u32) -> F)
where
    F: Future<Output = Vec<String>> + Send + 'static,
{
    let mut wrong = Vec::new();
    for codes in codes.chunks(5) {
        let running: Vec<_> = codes.iter().map(|&code| tokio::spawn(check(code))).collect();
        for check in running {
            wrong.extend(check.await.unwrap());
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passing_error_costs_one_reading_for_one_time() {
    for_all(TRANSIENT, |code| leaves_out_one_reading(code, true, true)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_nothing_there_costs_one_reading_for_one_time() {
    for &code in QUIET {
        let wrong = leaves_out_one_reading(code, true, code == 7).await;
        assert!(wrong.iter().all(|w| w.contains("errors counted")), "{}", wrong.join("\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_supported_is_left_out_and_not_counted() {
    for_all(UNSUPPORTED, |code| leaves_out_one_reading(code, false, false)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_costs_the_readings_that_need_it() {
    for_all(&[4], |code| leaves_out_one_reading(code, false, true)).await;
}

/// What fields answer where a driver knows them less well: as not supported.
#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_field_is_one_that_is_not_supported() {
    let classes: Vec<Reading> = classes();
    let mut devices = devices(&classes, 0);
    for (device, reading) in devices.iter_mut().zip(&classes) {
        let fields = reading.keys().into_iter().filter(|key| key.starts_with("field/"));
        fields.for_each(|key| {
            device.fail(key, 2);
        });
    }
    let uuids: Vec<String> = devices.iter().map(|device| device.uuid.clone()).collect();
    let rig = Rig::start(scenario(devices), SETTINGS).await;
    let export = rig.next().await;
    for (at, has) in there(&export, &classes, &uuids).into_iter().enumerate() {
        for (reading, has) in classes.iter().zip(has) {
            let only_a_field = reading.keys().iter().all(|key| key.starts_with("field/"));
            let missing = only_a_field && classes.get(at).is_some_and(|own| own.name() == reading.name());
            if !reading.name().starts_with("gpm") {
                assert_eq!(has, !missing, "{} on {at}", reading.name());
            }
        }
    }
    assert_eq!(errors(&export), 0.0);
    assert_eq!(rig.nvml.stats().generation, 1);
    rig.stop().await;
}

/// A device that fails in what decides about others: it keeps what does not depend on it.
#[tokio::test(flavor = "multi_thread")]
async fn a_failing_question_costs_what_depends_on_it() {
    let readings = parse(READINGS);
    let codes: Vec<u32> = [TRANSIENT, QUIET, UNSUPPORTED, &[4]].concat();
    let mut devices = Vec::new();
    let mut names = Vec::new();
    for question in QUESTIONS {
        for &code in &codes {
            let mut device = device(devices.len(), &readings);
            device.fail(question, code);
            devices.push(device);
            names.push(format!("{question} with {code}"));
        }
    }
    let uuids: Vec<String> = devices.iter().map(|device| device.uuid.clone()).collect();
    let rig = Rig::start(scenario(devices), "groups: {process: {enabled: true}}").await;
    let export = rig.next().await;
    for (uuid, name) in uuids.iter().zip(&names) {
        for metric in ["hw.power", "hw.gpu.memory.usage", "nvidia.gpu.clock.limit", "nvidia.gpu.up"] {
            assert!(export.has(metric, &format!("hw.id={uuid}")), "{metric} where {name} fails");
        }
    }
    assert_eq!(rig.nvml.stats().generation, 1);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_and_reset_required_drop_the_device_alone() {
    for_all(&[15, 16], |code| async move {
        let classes = classes();
        let mut devices = devices(&classes, code);
        // No driver says so of one field alone.
        for (device, reading) in devices.iter_mut().zip(&classes) {
            if reading.name().starts_with("field/") {
                device.fail("nvmlDeviceGetFieldValues", code);
            }
        }
        let uuids: Vec<String> = devices.iter().map(|device| device.uuid.clone()).collect();
        let rig = Rig::start(scenario(devices), SETTINGS).await;
        // A profiling metric alone is no device.
        let lost = classes.len() as f64 - 1.0;
        let is = |export: &Export| {
            export
                .all("nvidia.gpu.device.count", "state=lost")
                .first()
                .is_some_and(|point| point.value >= Some(lost))
        };
        let export = rig.until("the lost are counted", is).await;
        let mut wrong = Vec::new();
        let healthy = uuids.len() - 1;
        for (at, uuid) in uuids.iter().enumerate() {
            let name = classes.get(at).map_or("nothing", Reading::name);
            if name.starts_with("gpm") {
                continue;
            }
            let with = format!("hw.id={uuid}");
            let (up, failed) = if at == healthy { (1.0, 0.0) } else { (0.0, 1.0) };
            if export.value("nvidia.gpu.up", &with) != up {
                wrong.push(format!("code {code} on {name}: up is not {up}"));
            }
            let state = format!("{with};hw.state=failed");
            if export.all("hw.status", &state).first().and_then(|point| point.value) != Some(failed) {
                wrong.push(format!("code {code} on {name}: hw.status failed is not {failed}"));
            }
            if export.has("hw.power", &with) != (at == healthy) {
                wrong.push(format!("code {code} on {name}: hw.power"));
            }
        }
        assert_eq!(rig.nvml.stats().generation, 1, "code {code}");
        rig.stop().await;
        wrong
    })
    .await;
}

/// Codes that say that the driver is another one, or none, or that the devices changed.
#[tokio::test(flavor = "multi_thread")]
async fn codes_of_the_life_cycle_end_the_generation_whatever_call_they_come_from() {
    for_all(&[1, 9, 18, 28], |code| async move {
        let mut wrong = Vec::new();
        let classes = classes();
        let mut rigs = BTreeMap::new();
        for reading in &classes {
            // A field has no such code of its own that would not be the call's.
            let key = match reading.name() {
                name if name.starts_with("field/") => "nvmlDeviceGetFieldValues",
                name if name.starts_with("gpm/") => "nvmlGpmSampleGet",
                name => name,
            };
            if !rigs.contains_key(key) {
                let rig = Rig::start(scenario(vec![device(0, &classes)]), SETTINGS).await;
                rigs.insert(key, rig);
            }
        }
        for (key, rig) in &rigs {
            rig.next().await;
            rig.nvml.edit(|s| {
                s.gpu(0).fault(key, Fault::code(code).times(1));
            });
        }
        for (key, rig) in rigs {
            let generation = |export: &Export| export.value("nvidia.gpu.nvml.generation", "") >= 2.0;
            let next = rig.until(&format!("a new generation after {code} from {key}"), generation).await;
            let next = if next.has("hw.power", "") { next } else { rig.next().await };
            if !next.has("hw.power", "") {
                wrong.push(format!("no readings after code {code} from {key}"));
            }
            rig.stop().await;
        }
        wrong
    })
    .await;
}

/// What is asked of the driver as a whole: without its version or CUDA's, everything else is read.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_known_of_the_driver_is_left_out() {
    let codes: Vec<u32> = [TRANSIENT, QUIET, UNSUPPORTED, &[2, 4]].concat();
    for_all(&codes, |code| async move {
        let mut scenario = scenario(vec![device(0, &parse(READINGS))]);
        let calls = [
            "nvmlSystemGetCudaDriverVersion",
            "nvmlSystemGetCudaDriverVersion_v2",
            "nvmlSystemGetNVMLVersion",
        ];
        for symbol in calls {
            scenario.fault(symbol, Fault::code(code));
        }
        let version = Rig::start(scenario.clone(), "").await;
        scenario.fault("nvmlSystemGetDriverVersion", Fault::code(code));
        let nothing = Rig::start(scenario, "").await;
        for (rig, known) in [(version, true), (nothing, false)] {
            let export = rig.next().await;
            assert!(export.has("hw.power", ""), "code {code}");
            let info = export.one("nvidia.gpu.info", "");
            assert!(!info.attributes.contains_key("nvidia.cuda.version"), "code {code}");
            let driver = info.attributes.get("hw.driver_version").map(String::as_str);
            assert_eq!(driver, known.then_some("575.57.08"), "code {code}");
            rig.stop().await;
        }
        Vec::new()
    })
    .await;
}

/// Without a count there are no devices; it is asked again.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_count_nothing_is_read_until_there_is_one() {
    let codes: Vec<u32> = [TRANSIENT, QUIET, UNSUPPORTED, &[1, 2, 4, 9, 15, 18, 28]].concat();
    for_all(&codes, |code| async move {
        let mut scenario = scenario(vec![device(0, &parse(READINGS))]);
        scenario.fault("nvmlDeviceGetCount_v2", Fault::code(code));
        let rig = Rig::start(scenario, "required: true").await;
        let export = rig.next().await;
        assert_eq!(export.value("nvidia.gpu.collection.success", ""), 0.0, "code {code}");
        assert!(!export.has("nvidia.gpu.up", ""), "code {code}");
        rig.nvml.edit(|s| {
            s.clear("nvmlDeviceGetCount_v2");
        });
        rig.until(&format!("readings after code {code}"), |export| export.has("hw.power", "")).await;
        rig.stop().await;
        Vec::new()
    })
    .await;
}

/// One device that answers nothing is no reason to begin anew: the driver answers for the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_answers_nothing_but_unknown_ends_nothing() {
    let readings = parse(READINGS);
    let mut devices = vec![device(0, &readings), device(1, &readings)];
    let good = format!("hw.id={}", devices[0].uuid);
    let bad = format!("hw.id={}", devices[1].uuid);
    for key in readings.iter().flat_map(Reading::keys) {
        devices[1].fail(key, 999);
    }
    devices[1].fail("nvmlDeviceGetFieldValues", 999);
    let rig = Rig::start(scenario(devices), "").await;
    for _ in 0..5 {
        let export = rig.next().await;
        assert_eq!(export.value("nvidia.gpu.up", &good), 1.0);
        assert!(export.has("hw.power", &good));
        assert!(!export.has("hw.power", &bad));
    }
    assert_eq!(rig.nvml.stats().generation, 1);
    rig.stop().await;
}
