//! GPUs that are not there, for laptops, demonstrations and dashboards.
//!
//! They behave as real ones do: load follows who holds them, heat and power follow load, energy is what power adds up
//! to, and now and then something breaks. Everything follows from a seed and the time since the start, so that the same
//! configuration shows the same again. Readings are such as a device of that model gives, no more and no fewer.

mod device;
mod schedule;

use std::sync::Arc;
use std::time::Instant;

pub use schedule::Schedule;

use self::device::Device;
use super::config::SimulateConfig;
use super::model::{
    Closed, Driver, Event, EventKind, EventSink, Glance, Groups, Inventory, Reading, Report, Source, Value,
    unix_nanos,
};

/// What the driver says of itself.
const DRIVER: &str = "580.82.07";
const CUDA: &str = "13.0";
const NVML: &str = "13.580.82.07";

/// A source of GPUs that are not there.
pub struct Simulated {
    schedule: Arc<Schedule>,
    groups: Groups,
    devices: Vec<Device>,
    events: EventSink,
}

impl Simulated {
    /// A source with these devices. Pods and faults follow the schedule.
    pub fn new(
        config: &SimulateConfig,
        groups: Groups,
        schedule: Arc<Schedule>,
        events: EventSink,
    ) -> Simulated {
        let devices = (0..config.devices).map(|index| Device::new(config, index, &schedule)).collect();
        Simulated { schedule, groups, devices, events }
    }

    fn device(&mut self, index: u32) -> Result<&mut Device, Closed> {
        let missing = || Closed {
            reason: super::model::Reason::Changed,
            message: format!("there is no simulated device {index}"),
        };
        self.devices.get_mut(index as usize).ok_or_else(missing)
    }
}

impl Source for Simulated {
    fn open(&mut self, skip: &[u32], entering: &mut dyn FnMut(u32)) -> Result<Inventory, Closed> {
        let mut devices = Vec::with_capacity(self.devices.len());
        for device in &self.devices {
            if !skip.contains(&device.identity.index) {
                entering(device.identity.index);
            }
            devices.push(device.identity.clone());
        }
        let driver =
            Driver { version: DRIVER.to_owned(), nvml: Some(NVML.to_owned()), cuda: Some(CUDA.to_owned()) };
        Ok(Inventory { driver: Arc::new(driver), devices, denied: 0 })
    }

    fn read(&mut self, index: u32, now: Instant) -> Result<Report, Closed> {
        let at = self.schedule.since_start(now);
        let (schedule, groups) = (self.schedule.clone(), self.groups);
        let device = self.device(index)?;
        device.advance(at, &schedule);
        let xid = device.new_xid(at, &schedule);
        let report = device.report(groups);
        let uuid = device.identity.uuid.clone();
        if groups.has(super::model::Group::Events)
            && let Some(code) = xid
        {
            let event = Event {
                uuid,
                kind: EventKind::Xid(code),
                time: unix_nanos(),
                gpu_instance: None,
                compute_instance: None,
            };
            // Only a receiver that no longer listens has no room for a simulated event.
            let _ = self.events.send(event);
        }
        Ok(report)
    }

    fn glance(&mut self, index: u32) -> Result<Glance, Closed> {
        let at = self.schedule.since_start(Instant::now());
        let schedule = self.schedule.clone();
        let device = self.device(index)?;
        device.advance(at, &schedule);
        let report = device.report(Groups(u32::MAX));
        let value = |reading| report.get(reading, 0).map(Value::as_f64);
        Ok(Glance { busy: value(Reading::Busy), power: value(Reading::Power) })
    }

    fn close(&mut self) {}
}

#[cfg(test)]
mod tests;
