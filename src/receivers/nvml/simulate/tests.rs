//! Simulated GPUs stay plausible, and the same seed shows the same.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::unbounded;

use super::super::model::State;
use super::*;

fn rig(config: &SimulateConfig) -> (Simulated, Instant, crossbeam_channel::Receiver<Event>) {
    let start = Instant::now();
    let (to, events) = unbounded();
    let sink = EventSink::new(to, Arc::default());
    let schedule = Arc::new(Schedule::new(config, start));
    (Simulated::new(config, Groups(u32::MAX), schedule, sink), start, events)
}

#[test]
fn the_same_seed_shows_the_same_and_another_does_not() {
    let read = |seed| {
        let config = SimulateConfig { seed, ..SimulateConfig::default() };
        let (mut source, start, _events) = rig(&config);
        (0..20u32)
            .map(|step| source.read(step % 4, start + Duration::from_secs(u64::from(step) * 30)).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(read(1), read(1));
    assert_ne!(read(1), read(2));
}

#[test]
fn counters_never_fall_and_values_stay_plausible_for_a_day() {
    let config = SimulateConfig { devices: 3, mig_devices: 1, ..SimulateConfig::default() };
    let (mut source, start, events) = rig(&config);
    let growing = [Reading::Energy, Reading::PcieBytes, Reading::NvlinkBytes, Reading::ThrottleTime];
    let mut last = std::collections::HashMap::new();
    let (mut lost, mut busy, mut idle) = (0, 0, 0);
    for second in (0..86_400).step_by(10) {
        for index in 0..3 {
            let report = source.read(index, start + Duration::from_secs(second)).unwrap();
            if report.state == State::Lost {
                lost += 1;
                continue;
            }
            let mig = index == 2;
            assert_eq!(report.get(Reading::Busy, 0).is_none(), mig, "MIG has no utilisation");
            assert_eq!(report.mig.len(), if mig { 3 } else { 0 });
            let value = |reading| report.get(reading, 0).map_or(0.0, Value::as_f64);
            busy += u32::from(value(Reading::Busy) > 50.0);
            idle += u32::from(!mig && value(Reading::Busy) == 0.0);
            assert!((20.0..=95.0).contains(&value(Reading::Temperature)), "{report:?}");
            assert!((70_000.0..=700_000.0).contains(&value(Reading::Power)));
            let memory = [Reading::MemoryUsed, Reading::MemoryFree, Reading::MemoryReserved].map(value);
            assert_eq!(memory.iter().sum::<f64>(), value(Reading::MemoryTotal));
            for sample in report.samples.iter().filter(|sample| growing.contains(&sample.reading)) {
                let before = last.insert((index, sample.reading, sample.index), sample.value.as_f64());
                assert!(before.is_none_or(|before| before <= sample.value.as_f64()), "{sample:?}");
            }
        }
    }
    let xids: Vec<u64> = events
        .try_iter()
        .map(|event| match event.kind {
            EventKind::Xid(code) => code,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(lost > 0 && busy > 1000 && idle > 100, "{lost} {busy} {idle}");
    assert!(xids.contains(&79) && xids.contains(&31), "{xids:?}");
}

#[test]
fn a_hot_device_is_hot_from_the_start_and_no_other_is() {
    let config = SimulateConfig { hot: vec![1], faults: false, ..SimulateConfig::default() };
    let (mut source, start, _events) = rig(&config);
    for index in 0..4 {
        let report = source.read(index, start).unwrap();
        let degrees = report.get(Reading::Temperature, 0).unwrap().as_f64();
        assert_eq!(degrees > 85.0, index == 1, "{degrees}");
    }
}
