//! From no driver to a driver and back: what is said when nothing can be read, and what happens when it can again.

use std::sync::Arc;
use std::time::Duration;

use nvml_stand_in::{Fault, StandIn, profile};

use crate::kit::{Export, Rig, SOON};

/// A node that has to have GPUs.
const REQUIRED: &str = "required: true";

fn success(export: &Export) -> f64 {
    export.value("nvidia.gpu.collection.success", "")
}

fn healthy(export: &Export) -> bool {
    success(export) == 1.0 && export.has("hw.power", "")
}

fn generation(export: &Export) -> f64 {
    export.value("nvidia.gpu.nvml.generation", "")
}

/// The number of devices in a state.
fn count(export: &Export, state: &str) -> f64 {
    export.value("nvidia.gpu.device.count", &format!("state={state}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_library_the_receiver_says_so_and_lives() {
    let nvml = Arc::new(StandIn::detached(profile::h200(1)));
    nvml.remove(true);
    let rig = Rig::over(nvml.clone(), REQUIRED).await;
    let export = rig.next().await;
    assert_eq!(success(&export), 0.0);
    assert_eq!(generation(&export), 0.0);
    assert!(!export.has("hw.power", ""));
    assert_eq!(rig.own("tidegate_nvml_up", ""), 0.0);
    assert!(rig.abandon(SOON).await < Duration::from_secs(5));
}

/// A node without GPUs is nothing to alert on.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_library_that_is_not_required_nothing_is_exported() {
    let nvml = Arc::new(StandIn::detached(profile::h200(1)));
    nvml.remove(true);
    let rig = Rig::over(nvml.clone(), "").await;
    let silence = tokio::time::timeout(Duration::from_millis(2500), rig.next()).await;
    assert!(silence.is_err(), "{}", silence.unwrap().text());
    assert_eq!(rig.own("tidegate_nvml_up", ""), 0.0);
    rig.abandon(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_nvml_is_not_used() {
    let nvml = Arc::new(StandIn::detached(profile::h200(1)));
    for content in [b"not a library".to_vec(), Vec::new()] {
        std::fs::write(nvml.path(), content).unwrap();
        let rig = Rig::over(nvml.clone(), REQUIRED).await;
        assert_eq!(success(&rig.next().await), 0.0);
        rig.abandon(SOON).await;
    }
    let mut bare = profile::h200(1);
    bare.hide(&["nvmlInit_v2", "nvmlInitWithFlags"]);
    let rig = Rig::over(Arc::new(StandIn::detached(bare)), REQUIRED).await;
    assert_eq!(success(&rig.next().await), 0.0);
    rig.abandon(SOON).await;
}

/// Whatever init answers, the receiver lives, says so, and reads as soon as init works.
#[tokio::test(flavor = "multi_thread")]
async fn every_code_of_init_is_waited_out() {
    let codes: Vec<u32> = (1..=30).chain([999]).collect();
    let one = |code: u32| async move {
        let mut scenario = profile::h200(1);
        scenario.init(code);
        let rig = Rig::start(scenario, REQUIRED).await;
        let export = rig.next().await;
        assert_eq!((success(&export), generation(&export)), (0.0, 0.0), "init answers {code}");
        assert!(!export.has("hw.power", ""), "init answers {code}");
        assert_eq!(rig.own("tidegate_nvml_up", ""), 0.0);
        rig.nvml.edit(|s| {
            s.init(0);
        });
        let export = rig.until(&format!("readings after init answered {code}"), healthy).await;
        assert_eq!(generation(&export), 1.0);
        assert_eq!(rig.own("tidegate_nvml_up", ""), 1.0);
        rig.stop().await;
    };
    for some in codes.chunks(16) {
        let running: Vec<_> = some.iter().map(|&code| tokio::spawn(one(code))).collect();
        for one in running {
            one.await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn init_needs_no_newer_symbol() {
    let mut scenario = profile::h200(1);
    scenario.hide(&["nvmlInitWithFlags"]);
    let rig = Rig::start(scenario, "").await;
    assert!(healthy(&rig.next().await));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_gpus_are_a_healthy_node() {
    let rig = Rig::start(profile::h200(0), "").await;
    let export = rig.next().await;
    assert_eq!(success(&export), 1.0);
    assert_eq!(
        [count(&export, "readable"), count(&export, "denied"), count(&export, "lost")],
        [0.0, 0.0, 0.0]
    );
    assert!(export.all("nvidia.gpu.up", "").is_empty());
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_may_not_be_opened_is_denied_and_the_other_is_read() {
    let mut scenario = profile::h200(2);
    scenario.gpu(1).fail("nvmlDeviceGetHandleByIndex_v2", 4);
    let rig = Rig::start(scenario, "").await;
    let export = rig.next().await;
    assert_eq!(export.all("hw.power", "").len(), 1);
    assert_eq!(
        [count(&export, "readable"), count(&export, "denied"), count(&export, "lost")],
        [1.0, 1.0, 0.0]
    );
    assert_eq!(success(&export), 1.0);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_cannot_be_opened_does_not_hide_the_other() {
    for code in [5, 8, 11, 14, 15, 16, 17, 19, 20, 999] {
        let mut scenario = profile::h200(2);
        scenario.gpu(0).fail("nvmlDeviceGetHandleByIndex_v2", code);
        let good = scenario.devices[1].uuid.clone();
        let rig = Rig::start(scenario, "").await;
        let export = rig.next().await;
        assert!(export.has("hw.power", &format!("hw.id={good}")), "code {code}");
        assert_eq!([count(&export, "readable"), count(&export, "lost")], [1.0, 1.0], "code {code}");
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_device_ends_its_series_once_and_leaves_the_other_alone() {
    let rig = Rig::start(profile::h200(2), "legacy_names: true").await;
    let uuids: Vec<String> = rig.nvml.scenario().devices.iter().map(|device| device.uuid.clone()).collect();
    let (good, bad) = (format!("hw.id={}", uuids[0]), format!("hw.id={}", uuids[1]));
    let before = rig.next().await;
    assert_eq!(count(&before, "readable"), 2.0);
    rig.nvml.edit(|s| {
        s.gpu(1).fail("*", 15);
    });
    let down = |export: &Export| export.value("nvidia.gpu.up", &bad) == 0.0;
    let export = rig.until("the loss", down).await;
    assert_eq!(export.value("hw.status", &format!("{bad};hw.state=failed")), 1.0);
    assert_eq!(export.value("hw.status", &format!("{bad};hw.state=ok")), 0.0);
    assert_eq!([count(&export, "readable"), count(&export, "lost")], [1.0, 1.0]);
    assert_eq!(success(&export), 1.0);
    // Each reading it had ends with a mark, in the same request.
    const STAYS: &[&str] = &["nvidia.gpu.up", "hw.status", "nvidia.gpu.info", "nvidia.gpu.mig.info"];
    for point in before.of_device(&uuids[1]) {
        let now = export.exactly(&point.name, &point.attributes);
        let stays = STAYS.contains(&point.name.as_str());
        assert_eq!(now.is_some_and(|now| now.value.is_some()), stays, "{}", point.key());
        assert_eq!(now.is_some_and(|now| now.value.is_none()), !stays, "{}", point.key());
    }
    for point in before.of_device(&uuids[0]) {
        let now = export.exactly(&point.name, &point.attributes);
        assert!(now.is_some_and(|now| now.value.is_some()), "{}", point.key());
    }
    let next = rig.next().await;
    assert!(next.points.iter().all(|point| point.value.is_some()), "marks come once");
    assert!(next.has("hw.power", &good) && !next.has("hw.power", &bad));

    // A new generation looks at it again at the latest.
    rig.nvml.edit(|s| {
        s.gpu(1).clear("*");
        s.gpu(0).fault("nvmlDeviceGetPowerUsage", Fault::code(1).times(1));
    });
    let back = |export: &Export| export.has("hw.power", &bad) && export.value("nvidia.gpu.up", &bad) == 1.0;
    let export = rig.until("the device is back", back).await;
    assert_eq!([count(&export, "readable"), count(&export, "lost")], [2.0, 0.0]);
    assert_eq!(generation(&export), 2.0);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reloaded_driver_begins_its_counters_anew() {
    let rig = Rig::start(profile::h200(1), "").await;
    rig.nvml.edit(|s| {
        s.gpu(0)
            .set("nvmlDeviceGetTotalEccErrors/0/0", 5)
            .field(3, 5)
            .set("nvmlDeviceGetPcieReplayCounter", 7)
            .field(94, 7);
    });
    let before = rig.fresh().await;
    let energy = before.one("hw.energy", "").clone();
    let ecc = before.one("hw.errors", "error.type=corrected").clone();
    assert_eq!((energy.value, ecc.value), (Some(3_600_000.0), Some(5.0)));
    // While modules are loaded: every call says that nothing is initialised, and init that there is no driver.
    rig.nvml.edit(|s| {
        s.all(1).init(9);
    });
    let down = |export: &Export| success(export) == 0.0;
    let export = rig.until("the driver is away", down).await;
    assert!(!export.has("hw.power", ""), "nothing is made up");
    assert!(export.ended("hw.power", "") && export.ended("hw.energy", ""));
    assert_eq!(count(&export, "readable"), 0.0);
    assert_eq!(rig.own("tidegate_nvml_up", ""), 0.0);
    rig.nvml.edit(|s| {
        s.all(0).init(0);
        s.driver_version = "580.65.06".to_owned();
        // Lower than before, zero, and higher: a new driver counts from the beginning all the same.
        s.gpu(0).set("nvmlDeviceGetTotalEnergyConsumption", 1_000_000).field(83, 1_000_000);
        s.gpu(0).set("nvmlDeviceGetTotalEccErrors/0/0", 0).field(3, 0);
        s.gpu(0).set("nvmlDeviceGetPcieReplayCounter", 9).field(94, 9);
    });
    let export = rig.until("the driver is back", healthy).await;
    assert_eq!(generation(&export), 2.0);
    for (name, with, value) in [
        ("hw.energy", "", 1000.0),
        ("hw.errors", "error.type=corrected", 0.0),
        ("nvidia.gpu.pcie.replays", "", 9.0),
    ] {
        let point = export.one(name, with);
        assert_eq!(point.value, Some(value), "{name}");
        assert!(point.start > energy.time, "{name}: counts from a new start");
        assert!(point.start <= point.time);
    }
    assert_eq!(export.one("nvidia.gpu.info", "").attributes["hw.driver_version"], "580.65.06");
    assert_eq!(export.resource["nvidia.driver.version"], "580.65.06");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_library_is_loaded_when_the_old_one_says_that_it_is_old() {
    let mut old = profile::h200(1);
    old.gpu(0).field(251, 1_000_000_000);
    let nvml = Arc::new(StandIn::detached(old));
    let rig = Rig::over(nvml.clone(), "").await;
    let export = rig.next().await;
    assert_eq!(export.one("nvidia.gpu.info", "").attributes["hw.driver_version"], "575.57.08");
    // The upgrade: another file, and a kernel module that fits the new one only.
    nvml.edit(|s| {
        s.hide(&["nvmlDeviceGetPowerUsage"]);
    });
    nvml.replace();
    nvml.edit(|s| {
        s.all(18);
    });
    rig.until("the mismatch", |export| success(export) == 0.0).await;
    nvml.edit(|s| {
        s.all(0);
        s.driver_version = "590.44.01".to_owned();
        s.gpu(0).field(251, 7_000_000_000_u64).field(269, 2_000_000_000);
    });
    let export = rig.until("the new driver", |export| success(export) == 1.0).await;
    assert_eq!(export.one("nvidia.gpu.info", "").attributes["hw.driver_version"], "590.44.01");
    let reason = "nvidia.gpu.throttle.reason=sw_thermal_slowdown";
    assert_eq!(export.value("nvidia.gpu.clock.throttle.duration", reason), 2.0, "under its new number");
    assert!(!export.has("hw.power", ""), "the new file has no such symbol");
    assert!(export.has("hw.energy", ""));
    rig.abandon(SOON).await;
    assert_eq!(nvml.stats().misuse, Vec::<String>::new());
}

/// A container that has lost its devices: nothing answers any more, and init does not help.
#[tokio::test(flavor = "multi_thread")]
async fn lost_access_is_seen_and_said() {
    let rig = Rig::start(profile::h200(2), "").await;
    rig.next().await;
    rig.nvml.edit(|s| {
        s.all(999).init(999);
    });
    let export = rig.until("health is bad", |export| success(export) == 0.0).await;
    assert!(!export.has("hw.power", ""));
    assert!(export.value("nvidia.gpu.read.errors", "error.type=unknown") > 0.0);
    rig.nvml.edit(|s| {
        s.all(0).init(0);
    });
    rig.until("access is back", healthy).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gpus_that_were_there_and_are_not_counted_any_more_are_missed() {
    let rig = Rig::start(profile::h200(2), "").await;
    rig.next().await;
    let devices = rig.nvml.scenario().devices;
    rig.nvml.edit(|s| {
        s.gpu(0).fault("nvmlDeviceGetPowerUsage", Fault::code(28).times(1));
        s.set("nvmlDeviceGetCount_v2", 0);
    });
    let export = rig.until("a failed collection", |export| success(export) == 0.0).await;
    assert_eq!(count(&export, "lost"), 2.0);
    rig.nvml.edit(|s| {
        s.values.remove("nvmlDeviceGetCount_v2");
        s.devices = devices;
    });
    rig.until("they are back", healthy).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_call_costs_its_device_and_nothing_else() {
    let rig = Rig::start(profile::h200(2), "device_timeout: 300ms").await;
    let uuids: Vec<String> = rig.nvml.scenario().devices.iter().map(|device| device.uuid.clone()).collect();
    let (good, bad) = (format!("hw.id={}", uuids[0]), format!("hw.id={}", uuids[1]));
    rig.next().await;
    rig.nvml.edit(|s| {
        s.gpu(1).fault("nvmlDeviceGetTemperature", Fault::hang());
    });
    assert!(rig.nvml.wait_calls("hanging", 1, SOON));
    let down = |export: &Export| export.value("nvidia.gpu.up", &bad) == 0.0;
    let export = rig.until("the hung device is down", down).await;
    assert!(export.has("hw.power", &good), "the other goes on in the same collection");
    assert_eq!(export.value("nvidia.gpu.up", &good), 1.0);
    assert_eq!(export.value("hw.status", &format!("{bad};hw.state=failed")), 1.0);
    assert!(!export.has("hw.power", &bad));
    assert_eq!([count(&export, "readable"), count(&export, "lost")], [1.0, 1.0]);
    for _ in 0..3 {
        let export = rig.next().await;
        assert!(export.has("hw.power", &good) && down(&export));
        assert!(export.value("nvidia.gpu.collection.duration", "") < 2.0, "it is left alone");
    }
    assert_eq!(rig.nvml.stats().hanging, 1, "no second call goes into it");
    rig.nvml.edit(|s| {
        s.gpu(1).clear("nvmlDeviceGetTemperature");
    });
    rig.until("the device is back", |export| export.has("hw.power", &bad)).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hang_while_a_device_is_met_leaves_the_others() {
    let mut scenario = profile::h200(2);
    scenario.gpu(0).fault("nvmlDeviceGetUUID", Fault::hang());
    let good = format!("hw.id={}", scenario.devices[1].uuid);
    // Opening takes the driver long when it initialises devices, so that it has more time; here it need not.
    let rig = Rig::start(scenario, "device_timeout: 300ms").await;
    assert!(rig.nvml.wait_calls("hanging", 1, SOON));
    rig.nvml.edit(|s| {
        s.gpu(0).clear("nvmlDeviceGetUUID");
    });
    rig.until("the other is read", |export| export.has("hw.power", &good)).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_driver_does_not_hold_up_the_end() {
    let rig = Rig::start(profile::h200(1), "device_timeout: 300ms").await;
    rig.next().await;
    rig.nvml.edit(|s| {
        s.gpu(0).fault("nvmlDeviceGetPowerUsage", Fault::hang());
    });
    assert!(rig.nvml.wait_calls("hanging", 1, SOON));
    let nvml = rig.nvml.clone();
    let took = rig.abandon(Duration::from_secs(2)).await;
    assert!(took < Duration::from_secs(4), "{took:?}");
    // Its thread comes back, gives everything back, and touches nothing more.
    nvml.edit(|s| {
        s.gpu(0).clear("nvmlDeviceGetPowerUsage");
    });
    assert!(nvml.wait_calls("shutdowns", 1, SOON));
    assert_eq!(nvml.stats().misuse, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_driver_is_waited_for() {
    let mut scenario = profile::h200(1);
    scenario.gpu(0).fault("nvmlDeviceGetPowerUsage", Fault::delay(Duration::from_millis(400)));
    let rig = Rig::start(scenario, "device_timeout: 5s").await;
    let export = rig.next().await;
    assert!(export.has("hw.power", ""));
    assert!(export.value("nvidia.gpu.collection.duration", "") >= 0.4);
    assert_eq!(export.value("nvidia.gpu.up", ""), 1.0);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_grows_between_two_calls_is_asked_for_again() {
    let mut scenario = profile::h200(2);
    for device in &mut scenario.devices {
        device.compute = vec![profile::process(std::process::id(), 1 << 30)];
    }
    let symbol = "nvmlDeviceGetComputeRunningProcesses_v3/fill";
    scenario.gpu(0).fault(symbol, Fault::code(7).times(1));
    scenario.gpu(1).fault(symbol, Fault::code(7));
    let uuids: Vec<String> = scenario.devices.iter().map(|device| device.uuid.clone()).collect();
    let rig = Rig::start(scenario, "groups: {process: {enabled: true}}").await;
    let export = rig.next().await;
    let memory = "nvidia.gpu.process.memory.usage";
    assert!(export.has(memory, &format!("hw.id={}", uuids[0])), "asked again");
    assert!(!export.has(memory, &format!("hw.id={}", uuids[1])), "not for ever");
    assert!(export.has("hw.power", &format!("hw.id={}", uuids[1])));
    rig.nvml.edit(|s| {
        s.gpu(1).clear(symbol);
    });
    rig.until("the next time", |export| export.has(memory, &format!("hw.id={}", uuids[1]))).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_that_are_left_out_are_not_touched() {
    let scenario = profile::h200(4);
    let third = scenario.devices[2].uuid.clone();
    let settings = format!("devices: {{include: ['0', '1', '{third}'], exclude: ['1']}}");
    let rig = Rig::start(scenario, &settings).await;
    rig.next().await;
    let export = rig.next().await;
    let mut read: Vec<&str> =
        export.all("hw.power", "").iter().map(|p| p.attributes["hw.id"].as_str()).collect();
    read.sort_unstable();
    let devices = rig.nvml.scenario().devices;
    assert_eq!(read, [devices[0].uuid.as_str(), third.as_str()]);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_between_exports_have_a_least_a_mean_and_a_most() {
    let mut scenario = profile::h200(1);
    scenario.gpu(0).utilization(40, 0).set("nvmlDeviceGetPowerUsage", 300_000);
    let rig = Rig::start(scenario, "sample_interval: 50ms, collection_interval: 2s, slow_interval: 2s").await;
    rig.next().await;
    assert!(rig.nvml.wait_more_calls("nvmlDeviceGetPowerUsage", 5, SOON));
    rig.nvml.edit(|s| {
        s.gpu(0).utilization(80, 0).set("nvmlDeviceGetPowerUsage", 500_000);
    });
    assert!(rig.nvml.wait_more_calls("nvmlDeviceGetPowerUsage", 5, SOON));
    let both = |export: &Export| {
        export.has("nvidia.gpu.power.window", "")
            && export.value("nvidia.gpu.power.window", "nvidia.gpu.window=min") == 300.0
            && export.value("nvidia.gpu.power.window", "nvidia.gpu.window=max") == 500.0
    };
    let export = rig.until("a window with both", both).await;
    let of = |name: &str, window: &str| export.value(name, &format!("nvidia.gpu.window={window}"));
    let mean = of("nvidia.gpu.power.window", "mean");
    assert!(mean > 300.0 && mean < 500.0, "{mean}");
    assert_eq!(of("nvidia.gpu.utilization.window", "min"), 0.4);
    assert_eq!(of("nvidia.gpu.utilization.window", "max"), 0.8);
    rig.stop().await;
}

/// Libraries that lack what gives things back: nothing crashes.
#[tokio::test(flavor = "multi_thread")]
async fn a_library_without_its_free_functions_crashes_nothing() {
    for symbol in
        ["nvmlEventSetFree", "nvmlGpmSampleFree", "nvmlShutdown", "nvmlEventSetWait_v2", "nvmlEventSetCreate"]
    {
        let mut scenario = profile::h200(1);
        scenario.hide(&[symbol]);
        let rig = Rig::start(scenario, REQUIRED).await;
        // What cannot be closed is not opened.
        assert_eq!(healthy(&rig.next().await), symbol != "nvmlShutdown", "{symbol}");
        rig.next().await;
        let supervisor = rig.supervisor.clone();
        assert!(rig.abandon(SOON).await < Duration::from_secs(10), "{symbol}");
        assert_eq!(supervisor.panicked(), 0, "without {symbol}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_goes_away_between_exports_is_opened_again() {
    let rig = Rig::start(profile::h200(2), "sample_interval: 50ms").await;
    rig.next().await;
    for (at, code) in [9, 1, 18, 28].into_iter().enumerate() {
        // Most calls are those between exports, so it is one of them that is told.
        assert!(rig.nvml.wait_more_calls("nvmlDeviceGetPowerUsage", 4, SOON));
        rig.nvml.edit(|s| {
            s.gpu(0).fault("nvmlDeviceGetPowerUsage", Fault::code(code).times(1));
        });
        let again = |export: &Export| generation(export) == at as f64 + 2.0 && healthy(export);
        rig.until(&format!("another generation after {code}"), again).await;
        rig.nvml.edit(|s| {
            s.gpu(0).clear("nvmlDeviceGetPowerUsage");
        });
    }
    rig.stop().await;
}

/// What is not counted as an error may not be asked again and again either: a cycle costs the same number of calls.
#[tokio::test(flavor = "multi_thread")]
async fn a_collection_costs_the_same_calls_every_time() {
    let rig = Rig::start(profile::h200(2), "slow_interval: 1h").await;
    let calls = || {
        let counted = rig.nvml.stats().calls.into_iter();
        counted.filter(|(key, _)| key.starts_with("nvmlDevice")).map(|(_, count)| count).sum::<u64>()
    };
    rig.next().await;
    rig.next().await;
    let mut costs = Vec::new();
    for _ in 0..3 {
        let before = calls();
        rig.next().await;
        costs.push(calls() - before);
    }
    // About forty readings and one batch of fields, for each of two devices.
    assert!(costs.iter().all(|cost| *cost <= 2 * 80), "{costs:?}");
    let stats = rig.nvml.stats();
    assert_eq!(stats.inits, 1, "never once a collection");
    assert!(
        stats.called("nvmlDeviceGetHandleByIndex_v2") <= 4,
        "{}",
        stats.called("nvmlDeviceGetHandleByIndex_v2")
    );
    rig.stop().await;
}
