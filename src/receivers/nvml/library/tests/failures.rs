//! What becomes of the source when NVML fails, and what it takes to come back.

use std::time::Instant;

use nvml_stand_in::{Event, Fault, Scenario, StandIn, profile};

use super::{Rig, SECOND, SOON};
use crate::receivers::nvml::model::{EventKind, Reading, Reason, Source as _, State};

#[test]
fn a_lost_device_comes_back_within_a_minute_and_the_others_go_on() {
    let mut rig = Rig::new(profile::h200(2));
    rig.open();
    rig.read(1);
    assert!(rig.nvml.wait_calls("nvmlEventSetWait_v2", 1, SOON));
    rig.nvml.edit(|s| {
        s.events.push(Event::xid(1, 79));
        s.gpu(1).fail("*", 15);
    });
    let report = rig.read(1);
    assert_eq!((report.state, &report.errors[..]), (State::Lost, &[("gpu_is_lost", 1)][..]));
    assert_eq!(rig.events.recv_timeout(SOON).unwrap().kind, EventKind::Xid(79), "why it is lost");
    assert!(report.samples.is_empty());
    assert_eq!(rig.read(0).state, State::Readable);
    rig.nvml.edit(|s| {
        s.gpu(1).clear("*");
    });
    assert_eq!(rig.read(1).state, State::Lost, "it is not asked all the time");
    rig.now += 60 * SECOND;
    let report = rig.read(1);
    assert_eq!(report.state, State::Readable);
    assert!(report.get(Reading::Busy, 0).is_some());
    rig.end();
}

#[test]
fn some_errors_end_the_generation() {
    for (code, reason) in [
        (1, Reason::DriverNotLoaded),
        (9, Reason::DriverNotLoaded),
        (18, Reason::VersionMismatch),
        (28, Reason::Changed),
        (2, Reason::Changed),
    ] {
        let mut rig = Rig::new(profile::h200(1));
        rig.open();
        rig.read(0);
        rig.nvml.edit(|s| {
            s.gpu(0).fail("*", code);
        });
        assert_eq!(rig.try_read(0).unwrap_err().reason, reason, "{code}");
        rig.nvml.edit(|s| {
            s.gpu(0).clear("*");
        });
        rig.open();
        assert_eq!(rig.read(0).state, State::Readable);
        rig.end();
    }
}

#[test]
fn access_that_is_lost_is_told_from_a_driver_that_never_worked() {
    let mut rig = Rig::new(profile::h200(2));
    rig.nvml.edit(|s| {
        s.init(999);
    });
    assert_eq!(rig.refused(), Reason::Other);
    rig.nvml.edit(|s| {
        s.init(0);
    });
    rig.open();
    rig.read(0);
    rig.read(1);
    rig.nvml.edit(|s| {
        s.all(999).init(999);
    });
    for round in 0..3 {
        let last = rig.try_read(0).and_then(|_| rig.try_read(1));
        assert_eq!(last.is_err(), round == 2, "{round}: {last:?}");
        assert!(last.is_err() || last.is_ok_and(|report| report.state == State::Lost), "it was not read");
    }
    assert_eq!(rig.refused(), Reason::AccessLost);
    rig.nvml.edit(|s| {
        s.init(0);
    });
    assert_eq!(rig.refused(), Reason::AccessLost, "as well where init works and devices do not");
    rig.nvml.edit(|s| {
        s.all(0);
    });
    rig.open();
    assert_eq!(rig.read(0).state, State::Readable);
    rig.end();
}

#[test]
fn one_device_that_does_not_answer_ends_nothing() {
    let mut rig = Rig::new(profile::h200(2));
    rig.open();
    rig.nvml.edit(|s| {
        s.gpu(0).fail("*", 999);
    });
    for _ in 0..5 {
        rig.read(0);
        rig.read(1);
    }
    rig.end();
}

#[test]
fn reasons_of_a_failed_start() {
    let mut rig = Rig::new(profile::h200(1));
    for (code, reason) in [
        (9, Reason::DriverNotLoaded),
        (12, Reason::DriverNotLoaded),
        (18, Reason::VersionMismatch),
        (4, Reason::NoPermission),
        (17, Reason::Other),
    ] {
        rig.nvml.edit(|s| {
            s.init(code);
        });
        assert_eq!(rig.refused(), reason, "{code}");
    }
    rig.nvml.edit(|s| {
        s.init(0);
    });
    rig.open();
    rig.nvml.edit(|s| s.devices.clear());
    assert_eq!(rig.refused(), Reason::Changed, "a node does not lose all its GPUs");
    rig.end();

    let mut rig = Rig::new(Scenario::default());
    assert_eq!(rig.open().devices.len(), 0, "a node without GPUs is healthy");
    rig.end();
    let mut rig = Rig::with(profile::h200(1), |s| s.library = Some("/nonexistent/libnvidia-ml.so.1".into()));
    assert_eq!(rig.refused(), Reason::NoLibrary);
    let mut rig = Rig::with(profile::h200(1), |s| s.library = Some("no-such-nvml.so.7".into()));
    assert_eq!(rig.refused(), Reason::NoLibrary, "the system's loader does not find it");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "not a library").unwrap();
    let mut rig = Rig::with(profile::h200(1), |s| s.library = Some(file.path().into()));
    assert_eq!(rig.refused(), Reason::BadLibrary);
    let mut scenario = profile::h200(1);
    scenario.hide(&["nvmlInit_v2", "nvmlInitWithFlags"]);
    assert_eq!(Rig::new(scenario).refused(), Reason::BadLibrary);
    let mut scenario = profile::h200(1);
    scenario.hide(&["nvmlShutdown"]);
    assert_eq!(Rig::new(scenario).refused(), Reason::BadLibrary);
}

#[test]
fn devices_that_may_not_be_read_are_counted_and_lost_ones_are_kept() {
    let mut rig = Rig::new(profile::h200(4));
    rig.nvml.edit(|s| {
        s.gpu(1).fail("*", 4);
        s.gpu(2).fail("*", 15);
    });
    let mut entered = Vec::new();
    let inventory = rig.source.open(&[0], &mut |index| entered.push(index)).unwrap();
    assert_eq!(entered, [1, 2, 3], "one that hangs is not touched");
    assert_eq!(inventory.denied, 1);
    let uuids: Vec<_> = inventory.devices.iter().map(|d| (d.index, d.uuid.to_string())).collect();
    assert_eq!(uuids[0], (2, "index-2".to_owned()));
    assert_eq!(uuids[1].0, 3);
    assert_eq!(rig.read(2).state, State::Lost);
    rig.nvml.edit(|s| {
        s.gpu(2).clear("*");
    });
    rig.now += 60 * SECOND;
    assert_eq!(rig.try_read(2).unwrap_err().reason, Reason::Changed, "now it has a name");
    assert_eq!(rig.open().devices.len(), 3);
    rig.end();
}

#[test]
fn a_lost_device_is_not_taken_for_the_one_that_has_its_number_no_more() {
    let mut rig = Rig::new(profile::h200(3));
    let uuids: Vec<_> = rig.open().devices.iter().map(|device| device.uuid.clone()).collect();
    // The second is gone; when something is back, the third has its number.
    rig.nvml.edit(|s| {
        let second = s.devices.remove(1);
        s.devices.push(second);
        s.gpu(2).fail("*", 15);
    });
    let found: Vec<_> = rig.open().devices.iter().map(|device| device.uuid.to_string()).collect();
    assert_eq!(found, [uuids[0].to_string(), uuids[2].to_string(), "index-2".to_owned()]);
    rig.end();
}

#[test]
fn instances_outlast_a_look_that_fails() {
    let mut rig = Rig::new(profile::a100_mig());
    rig.open();
    let before = rig.read(0).mig.len();
    assert!(before > 0);
    rig.nvml.edit(|s| {
        s.gpu(0).fault("nvmlDeviceGetMigMode", Fault::code(999).times(1));
    });
    rig.now += 60 * SECOND;
    assert_eq!(rig.read(0).mig.len(), before);
    assert_eq!(rig.read(0).mig.len(), before);
    rig.end();
}

#[test]
fn a_wait_that_fails_begins_anew() {
    let mut rig = Rig::new(profile::h200(1));
    rig.nvml.edit(|s| {
        s.fault("nvmlEventSetWait_v2", Fault::code(15).times(1));
    });
    rig.open();
    assert!(rig.nvml.wait_calls("nvmlEventSetCreate", 2, SOON));
    assert!(rig.nvml.wait_more_calls("nvmlEventSetWait_v2", 1, SOON));
    rig.nvml.push(Event::xid(0, 48));
    assert_eq!(rig.events.recv_timeout(SOON).unwrap().kind, EventKind::Xid(48));
    rig.end();
}

#[test]
fn a_device_that_could_not_be_registered_is_tried_again() {
    for call in ["nvmlDeviceGetSupportedEventTypes", "nvmlDeviceRegisterEvents"] {
        for devices in [1, 2] {
            let mut rig = Rig::new(profile::h200(devices));
            rig.nvml.edit(|s| {
                s.gpu(0).fault(call, Fault::code(999).times(1));
            });
            rig.open();
            assert!(rig.nvml.wait_calls("nvmlDeviceGetSupportedEventTypes", 2 * devices as u64, SOON));
            assert!(rig.nvml.wait_more_calls("nvmlEventSetWait_v2", 1, SOON));
            rig.nvml.push(Event::xid(0, 48));
            assert_eq!(rig.events.recv_timeout(SOON).unwrap().kind, EventKind::Xid(48), "{call}");
            rig.end();
        }
    }
}

#[test]
fn a_library_that_was_replaced_is_picked_up() {
    let nvml = StandIn::detached(profile::h200(1));
    let mut rig = Rig::over(nvml, |_| {});
    assert_eq!(rig.open().driver.version, "575.57.08");
    rig.read(0);
    rig.read(0);
    rig.nvml.edit(|s| {
        s.driver_version = "590.10".to_owned();
        s.hide(&["nvmlDeviceGetMemoryInfo_v2"]);
    });
    rig.nvml.replace();
    assert!(rig.read(0).get(Reading::MemoryReserved, 0).is_some(), "the old one stays open");
    rig.source.close();
    assert_eq!(rig.open().driver.version, "590.10");
    assert_eq!(rig.read(0).get(Reading::MemoryReserved, 0), None, "the new file has no such symbol");
    rig.end();
}

#[test]
fn closing_does_not_wait_for_a_thread_that_is_stuck() {
    let mut rig = Rig::new(profile::h200(1));
    rig.nvml.edit(|s| {
        s.fault("nvmlEventSetWait_v2", Fault::hang());
    });
    rig.open();
    assert!(rig.nvml.wait_calls("hanging", 1, SOON));
    let begin = Instant::now();
    rig.source.close();
    assert!(begin.elapsed() < 10 * SECOND);
    rig.nvml.edit(|s| {
        s.clear("nvmlEventSetWait_v2");
    });
    assert!(rig.nvml.wait_calls("shutdowns", 1, SOON), "it closes the library when it comes back");
}
