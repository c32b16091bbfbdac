//! The source over a stand-in for the driver's library.

mod failures;

use std::sync::Arc;
use std::time::{Duration, Instant};

use nvml_stand_in::{Event, Fault, Process, ProcessSample, Scenario, StandIn, profile};

use super::*;
use crate::receivers::nvml::config::DevicesConfig;
use crate::receivers::nvml::model::{self, EventKind, Reading, Value};

const SECOND: Duration = Duration::from_secs(1);
/// Longer than anything here takes.
const SOON: Duration = Duration::from_secs(20);

/// A source over a copy of the stand-in.
struct Rig {
    nvml: StandIn,
    source: Library,
    events: crossbeam_channel::Receiver<model::Event>,
    now: Instant,
}

fn settings(library: PathBuf) -> Settings {
    Settings {
        library: Some(library),
        groups: Groups(u32::MAX),
        devices: DevicesConfig::default(),
        slow_interval: Duration::from_secs(60),
        skip_sleeping: false,
        processes: true,
        sysfs: PathBuf::from("/nonexistent"),
        proc: PathBuf::from("/nonexistent"),
        supervisor: Supervisor::default(),
        memory: Memory::default(),
    }
}

impl Rig {
    fn new(scenario: Scenario) -> Self {
        Rig::with(scenario, |_| {})
    }

    fn with(scenario: Scenario, change: impl FnOnce(&mut Settings)) -> Self {
        Rig::over(StandIn::new(scenario), change)
    }

    fn over(nvml: StandIn, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings(nvml.path());
        change(&mut settings);
        let (to, events) = crossbeam_channel::bounded(16);
        let sink = EventSink::new(to, Arc::default());
        Rig { nvml, source: Library::new(settings, sink), events, now: Instant::now() }
    }

    fn open(&mut self) -> Inventory {
        self.source.open(&[], &mut |_| {}).unwrap()
    }

    fn refused(&mut self) -> Reason {
        self.source.open(&[], &mut |_| {}).unwrap_err().reason
    }

    /// A report, ten seconds after the last call.
    fn read(&mut self, index: u32) -> Report {
        self.try_read(index).unwrap()
    }

    fn try_read(&mut self, index: u32) -> Result<Report, Closed> {
        self.now += 10 * SECOND;
        self.source.read(index, self.now)
    }

    /// Closes, and shows that the source was a good guest.
    fn end(mut self) {
        self.source.close();
        let stats = self.nvml.stats();
        assert_eq!(stats.misuse, Vec::<String>::new());
        assert_eq!((stats.up, stats.event_sets, stats.gpm_samples), (0, 0, 0));
        assert_eq!(self.source.settings.supervisor.panicked(), 0);
    }
}

fn int(report: &Report, reading: Reading, index: u16) -> Option<i64> {
    match report.get(reading, index)? {
        Value::Int(n) => Some(n),
        Value::Double(n) => panic!("{n}"),
    }
}

#[test]
fn each_device_has_its_turn_once_a_round() {
    let mut turn = Turn::default();
    let mut round = |lost: usize| -> Vec<usize> {
        (0..3)
            .filter(|&at| {
                let its = turn.is(at);
                let state = if at == lost { State::Lost } else { State::Readable };
                turn.after(at, state, 3);
                its && at != lost
            })
            .collect()
    };
    assert_eq!([round(9), round(9), round(9), round(9)], [[0], [1], [2], [0]]);
    assert_eq!(round(1), [2], "a lost one leaves it to the next");
}

#[test]
fn what_a_healthy_server_tells() {
    let mut rig = Rig::new(profile::h200(2));
    rig.nvml.edit(|s| {
        s.gpu(0).utilization(37, 12);
    });
    let inventory = rig.open();
    assert_eq!(inventory.driver.version, "575.57.08");
    assert_eq!(inventory.driver.cuda.as_deref(), Some("12.9"));
    assert_eq!((inventory.devices.len(), inventory.denied), (2, 0));
    let identity = &inventory.devices[0];
    assert!(identity.uuid.starts_with("GPU-"), "{identity:?}");
    assert_eq!(&*identity.name, "NVIDIA H200");
    assert_eq!(identity.architecture.as_deref(), Some("Hopper"));
    assert_eq!(identity.compute_capability.as_deref(), Some("9.0"));
    assert!(identity.pci_bus_id.is_some() && identity.minor.is_some() && identity.vbios.is_some());

    let report = rig.read(0);
    assert_eq!(report.state, State::Readable);
    assert_eq!(report.errors, []);
    for (reading, index, expected) in [
        (Reading::Busy, 0, 37),
        (Reading::MemoryControllerBusy, 0, 12),
        (Reading::MemoryTotal, 0, 150_754_820_096),
        (Reading::MemoryUsed, 0, 0),
        (Reading::MemoryReserved, 0, 643_825_664),
        (Reading::Temperature, 0, 52),
        (Reading::TemperatureMargin, 0, 35),
        (Reading::Power, 0, 78_000),
        (Reading::PerformanceState, 0, 0),
    ] {
        assert_eq!(int(&report, reading, index), Some(expected), "{reading:?}");
    }
    let mut seen = std::collections::HashSet::new();
    for sample in &report.samples {
        assert!(seen.insert((sample.reading, sample.index)), "twice: {sample:?}");
    }
    assert_eq!(report.get(Reading::FanDuty, 0), None, "no fan");
    let keys = |report: &Report| report.samples.iter().map(|s| (s.reading, s.index)).collect::<Vec<_>>();
    let second = rig.read(0);
    let third = rig.read(0);
    assert_eq!(keys(&second), keys(&third), "always in the same order");
    assert!(second.get(Reading::SmActivity, 0).is_some(), "two samples make a profile");
    assert_eq!(rig.source.glance(0).unwrap(), Glance { busy: Some(37.0), power: Some(78_000.0) });
    rig.nvml.edit(|s| {
        s.gpu(0).set("nvmlDeviceGetPowerUsage", u32::MAX);
    });
    assert_eq!(rig.source.glance(0).unwrap(), Glance { busy: Some(37.0), power: None }, "no value");
    rig.end();
}

#[test]
fn what_is_not_there_is_asked_for_once() {
    let mut rig = Rig::new(profile::h200(1));
    rig.nvml.edit(|s| {
        s.gpu(0).fail("nvmlDeviceGetEncoderUtilization", 3);
        s.gpu(0).fail("nvmlDeviceGetPowerUsage", 25);
        s.gpu(0).fail("nvmlDeviceGetPcieReplayCounter", 4);
        s.gpu(0).fail("nvmlDeviceGetTotalEnergyConsumption", 17);
        s.gpu(0).fail("nvmlDeviceGetClockInfo/3", 2);
    });
    rig.open();
    let first = rig.read(0);
    assert_eq!(first.errors, [("operating_system", 1), ("no_permission", 1)]);
    let second = rig.read(0);
    assert_eq!(second.errors, [("operating_system", 1)], "what may not be read is not tried again");
    for symbol in
        ["nvmlDeviceGetEncoderUtilization", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetPcieReplayCounter"]
    {
        assert_eq!(rig.nvml.calls(symbol), 1, "{symbol}");
    }
    assert_eq!(rig.nvml.calls("nvmlDeviceGetTotalEnergyConsumption"), 2);
    assert_eq!(int(&second, Reading::Clock, 3), None);
    assert!(int(&second, Reading::Clock, 2).is_some());
    assert_eq!(rig.nvml.calls("field/82"), 2);
    assert_eq!(rig.nvml.calls("field/202"), 1, "an older field tells the same");
    rig.end();
}

#[test]
fn slow_readings_are_repeated_from_memory() {
    let mut rig = Rig::new(profile::h200(1));
    rig.open();
    let limit = int(&rig.read(0), Reading::PowerLimit, 0);
    assert!(limit.is_some());
    for _ in 0..5 {
        assert_eq!(int(&rig.read(0), Reading::PowerLimit, 0), limit);
    }
    assert_eq!(rig.nvml.calls("nvmlDeviceGetEnforcedPowerLimit"), 1);
    rig.read(0);
    assert_eq!(rig.nvml.calls("nvmlDeviceGetEnforcedPowerLimit"), 2, "a minute later");
    rig.end();
}

#[test]
fn throughput_is_sampled_on_one_device_a_collection() {
    let mut rig = Rig::new(profile::h200(2));
    rig.nvml.edit(|s| {
        for gpu in 0..2 {
            s.gpu(gpu).set("nvmlDeviceGetPcieThroughput/0", 7).set("nvmlDeviceGetPcieThroughput/1", 9);
        }
    });
    rig.open();
    let got: Vec<_> =
        [0, 1, 0, 1].into_iter().map(|gpu| int(&rig.read(gpu), Reading::PcieThroughput, 1)).collect();
    assert_eq!(got, [Some(9), None, Some(9), Some(9)]);
    assert_eq!(rig.nvml.calls("nvmlDeviceGetPcieThroughput"), 4);
    rig.end();
}

#[test]
fn only_the_devices_that_are_wanted() {
    let change = |s: &mut Settings| s.devices.include = vec!["1".to_owned()];
    let mut rig = Rig::with(profile::h200(3), change);
    let mut entered = Vec::new();
    let inventory = rig.source.open(&[], &mut |index| entered.push(index)).unwrap();
    assert_eq!((entered, inventory.devices[0].index), (vec![1], 1));
    rig.end();
    let mut rig = Rig::with(profile::h200(3), |s| s.devices.exclude = vec!["*H200*".to_owned()]);
    assert_eq!(rig.open().devices, []);
    rig.end();
}

#[test]
fn a_device_that_sleeps_is_left_alone() {
    let sysfs = tempfile::tempdir().unwrap();
    let mut rig = Rig::with(profile::h200(1), |s| {
        s.skip_sleeping = true;
        s.sysfs = sysfs.path().to_owned();
    });
    let identity = rig.open().devices[0].clone();
    let bus = filter::short_bus_id(identity.pci_bus_id.as_deref().unwrap());
    let power = sysfs.path().join("bus/pci/devices").join(bus).join("power");
    std::fs::create_dir_all(&power).unwrap();
    std::fs::write(power.join("runtime_status"), "suspended\n").unwrap();
    let calls = rig.nvml.calls("nvmlDeviceGetPowerUsage");
    assert_eq!(rig.read(0).state, State::Asleep);
    assert_eq!(rig.source.glance(0).unwrap(), Glance::default());
    let handles = rig.nvml.calls("nvmlDeviceGetHandleByIndex_v2");
    assert_eq!(*rig.open().devices[0], *identity, "who it is stays known");
    assert_eq!(rig.nvml.calls("nvmlDeviceGetHandleByIndex_v2"), handles);
    assert_eq!(rig.nvml.calls("nvmlDeviceGetPowerUsage"), calls);
    std::fs::write(power.join("runtime_status"), "active\n").unwrap();
    assert_eq!(rig.read(0).state, State::Readable);
    rig.end();
}

#[test]
fn an_old_driver_tells_what_it_can() {
    let mut rig = Rig::new(profile::old_driver(1));
    rig.open();
    let report = rig.read(0);
    assert_eq!(int(&report, Reading::MemoryTotal, 0), Some(34_359_738_368));
    assert_eq!(int(&report, Reading::MemoryReserved, 0), None);
    assert_eq!(int(&report, Reading::RetiredPages, 0), Some(2));
    assert_eq!(report.get(Reading::ProcessCount, 0), None);
    assert_eq!(report.errors, []);
    rig.read(0);
    assert_eq!(rig.nvml.calls("nvmlDeviceGetMemoryInfo"), 2);
    rig.end();
}

#[test]
fn values_that_are_none_are_left_out() {
    let mut rig = Rig::new(profile::h200(1));
    rig.nvml.edit(|s| {
        let gpu = s.gpu(0);
        gpu.set("nvmlDeviceGetTemperature/0", 201);
        gpu.set("nvmlDeviceGetPowerUsage", u32::MAX);
        gpu.set("nvmlDeviceGetTotalEnergyConsumption", u64::MAX);
        gpu.set("nvmlDeviceGetPerformanceState", 32);
        gpu.set("nvmlDeviceGetMarginTemperature", -3);
        gpu.set("nvmlDeviceGetNvLinkState/0", 2);
        gpu.raw_field(82, 0, 64);
        gpu.unset(&["field/138/4294967295"]).raw_field(138, 3, u64::MAX);
    });
    rig.open();
    let report = rig.read(0);
    for (reading, index, expected) in [
        (Reading::Temperature, 0, None),
        (Reading::Temperature, 1, None),
        (Reading::Power, 0, None),
        (Reading::Energy, 0, None),
        (Reading::PerformanceState, 0, None),
        (Reading::TemperatureMargin, 0, Some(-3)),
        (Reading::NvlinkActive, 0, Some(0)),
        (Reading::NvlinkBytes, 0, None),
    ] {
        assert_eq!(int(&report, reading, index), expected, "{reading:?} {index}");
    }
    assert_eq!(report.errors, []);
    rig.end();
}

#[test]
fn processes_are_checked_and_their_load_is_new() {
    let mut rig = Rig::new(profile::h200(1));
    let process = |pid, memory| Process { pid, memory: Some(memory), ..Process::default() };
    let load = |pid, timestamp, sm| ProcessSample { pid, timestamp, sm, ..ProcessSample::default() };
    rig.nvml.edit(|s| {
        s.gpu(0).compute = vec![process(70, 5), process(0, 1), process(71, u64::MAX - 1)];
        s.gpu(0).graphics = vec![process(70, 5)];
        s.gpu(0).process_samples = vec![load(70, 100, 40), load(70, 200, 60)];
        let grew = Fault::code(7).after(1).times(1);
        s.gpu(0).fault("nvmlDeviceGetComputeRunningProcesses_v3", grew);
    });
    rig.open();
    let report = rig.read(0);
    assert_eq!(report.processes.len(), 1);
    assert_eq!((report.processes[0].pid, report.processes[0].memory), (70, Some(5)));
    assert_eq!(report.processes[0].load[0], Some(50.0));
    assert_eq!(report.errors, [("impossible_process", 2)]);
    assert_eq!(int(&report, Reading::ProcessCount, 0), Some(1));
    assert_eq!(int(&report, Reading::ProcessCount, 1), Some(1));
    let report = rig.read(0);
    assert_eq!(report.processes[0].load[0], None, "nothing new");
    rig.end();
}

#[test]
fn mig_instances_share_memory_and_follow_the_layout() {
    let mut rig = Rig::new(profile::a100_mig());
    rig.open();
    let report = rig.read(0);
    assert_eq!(report.get(Reading::Busy, 0), None);
    assert_eq!(int(&report, Reading::MigEnabled, 0), Some(1));
    let uuids = |report: &Report| report.mig.iter().map(|m| m.identity.uuid.to_string()).collect::<Vec<_>>();
    let before = uuids(&report);
    assert!(before.len() >= 2 && before.iter().all(|uuid| uuid.starts_with("MIG-")), "{before:?}");
    let mut with_memory = std::collections::HashSet::new();
    for mig in &report.mig {
        let id = &mig.identity;
        assert!(id.profile.is_some() && id.gpu_instance_slices > 0 && id.memory > 0, "{id:?}");
        let has = model::get(&mig.samples, Reading::MemoryUsed, 0).is_some();
        assert_eq!(has, with_memory.insert(id.gpu_instance), "once a GPU instance: {id:?}");
    }
    // The layout changes; the next refused handle tells.
    rig.nvml.edit(|s| {
        let gone = s.gpu(0).mig.iter().position(Option::is_some).unwrap();
        s.gpu(0).mig[gone] = None;
    });
    let report = rig.read(0);
    assert_eq!(report.mig.len(), before.len() - 1);
    assert!(uuids(&report).iter().all(|uuid| before.contains(uuid)));
    rig.end();
}

#[test]
fn instances_have_profiles_of_their_own() {
    let mut rig = Rig::new(profile::h100_mig());
    rig.open();
    rig.read(0);
    let report = rig.read(0);
    let mig = &report.mig[0];
    let activity = |report: &Report| model::get(&report.mig[0].samples, Reading::SmActivity, 0);
    assert_eq!(activity(&report), Some(Value::Double(55.5)));
    assert_eq!(mig.identity.profile.as_deref(), Some("3g.40gb"));
    // Another instance comes: samples of before are not compared with samples of after.
    rig.nvml.edit(|s| {
        let mut other = s.gpu(0).mig[0].clone().unwrap();
        other.uuid.push_str("-other");
        other.gpu_instance = Some(9);
        s.gpu(0).mig[1] = Some(other);
    });
    assert!(rig.nvml.wait_more_calls("nvmlEventSetWait_v2", 1, SOON));
    rig.nvml.push(Event::of(0, 0x100));
    assert_eq!(rig.events.recv_timeout(SOON).unwrap().kind, EventKind::MigChange);
    let report = rig.read(0);
    assert_eq!((report.mig.len(), activity(&report)), (2, None));
    let report = rig.read(0);
    assert_eq!(activity(&report), Some(Value::Double(55.5)));
    rig.end();
}

#[test]
fn events_come_with_their_instances() {
    let mut rig = Rig::new(profile::h200(2));
    rig.nvml.edit(|s| {
        // The others are still watched.
        s.gpu(0).fail("nvmlDeviceRegisterEvents", 999);
    });
    let inventory = rig.open();
    assert!(rig.nvml.wait_calls("nvmlEventSetWait_v2", 1, SOON));
    rig.nvml.push(Event { gpu_instance: Some(3), compute_instance: Some(0), ..Event::xid(1, 79) });
    rig.nvml.push(Event { unasked: true, ..Event::of(1, 0x4000) });
    let event = rig.events.recv_timeout(SOON).unwrap();
    assert_eq!(event.kind, EventKind::Xid(79));
    assert_eq!((event.gpu_instance, event.compute_instance), (Some(3), Some(0)));
    assert_eq!(event.uuid, inventory.devices[1].uuid);
    let event = rig.events.recv_timeout(SOON).unwrap();
    assert_eq!((event.kind, event.gpu_instance), (EventKind::Other(0x4000), None));
    rig.end();
}

#[test]
fn xids_are_heard_of_without_the_right_to_hear_of_mig_changes() {
    let mut rig = Rig::new(profile::h200(1));
    rig.nvml.edit(|s| {
        s.gpu(0).fault("nvmlDeviceRegisterEvents", Fault::code(4).times(1));
    });
    rig.open();
    assert!(rig.nvml.wait_calls("nvmlEventSetWait_v2", 1, SOON));
    rig.nvml.push(Event::of(0, 0x100));
    rig.nvml.push(Event::xid(0, 48));
    assert_eq!(rig.events.recv_timeout(SOON).unwrap().kind, EventKind::Xid(48));
    assert_eq!(rig.nvml.stats().events_missed, 1);
    rig.end();
}

#[test]
fn a_sink_that_nobody_reads_loses_nothing_for_a_while() {
    let mut rig = Rig::new(profile::h200(1));
    rig.open();
    assert!(rig.nvml.wait_calls("nvmlEventSetWait_v2", 1, SOON));
    for xid in 0..20 {
        rig.nvml.push(Event::xid(0, xid));
    }
    for xid in 0..20 {
        assert_eq!(rig.events.recv_timeout(SOON).unwrap().kind, EventKind::Xid(xid));
    }
    rig.end();
}
