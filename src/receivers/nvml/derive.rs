//! What follows from readings: the fill of memory, the state of a device, and extremes between collections.

use super::model::{Glance, Reading, Report, Sample, State, Value, get};

/// Minimum, mean and maximum of what was seen between two collections.
#[derive(Debug, Default)]
pub struct Window {
    busy: Extent,
    power: Extent,
}

#[derive(Debug, Default)]
struct Extent {
    seen: u32,
    min: f64,
    max: f64,
    sum: f64,
}

impl Window {
    /// Takes in what was seen.
    pub fn add(&mut self, glance: Glance) {
        self.busy.add(glance.busy);
        self.power.add(glance.power);
    }

    /// Appends what came of it; nothing for what was never seen.
    pub fn put(&self, samples: &mut Vec<Sample>) {
        self.busy.put(Reading::BusyWindow, samples);
        self.power.put(Reading::PowerWindow, samples);
    }
}

impl Extent {
    fn add(&mut self, value: Option<f64>) {
        let Some(value) = value else { return };
        if self.seen == 0 {
            (self.min, self.max) = (value, value);
        }
        self.seen += 1;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.sum += value;
    }

    fn put(&self, reading: Reading, samples: &mut Vec<Sample>) {
        if self.seen > 0 {
            let values = [self.min, self.sum / f64::from(self.seen), self.max];
            samples.extend((0..).zip(values).map(|(index, value)| Sample {
                reading,
                index,
                value: Value::Double(value),
            }));
        }
    }
}

/// The least of the bits of a hardware slowdown: `hw_slowdown`, `hw_thermal_slowdown`, `hw_power_brake_slowdown`.
const HARDWARE_SLOWDOWN: [u16; 3] = [3, 6, 7];

/// Adds what follows from other readings.
pub fn derive(report: &mut Report) {
    let fill = fill_of(&report.samples);
    report.samples.extend(fill);
    for mig in &mut report.mig {
        let fill = fill_of(&mig.samples);
        mig.samples.extend(fill);
    }
    if report.state == State::Asleep {
        return;
    }
    let set = |reading, index| report.get(reading, index).is_some_and(|value| value.as_f64() > 0.0);
    let status = match report.state {
        State::Lost | State::Hung => 2,
        _ if set(Reading::RemapFailed, 0) => 3,
        _ if set(Reading::RecoveryAction, 0) || set(Reading::RemapPending, 0) => 1,
        _ if HARDWARE_SLOWDOWN.into_iter().any(|bit| set(Reading::ThrottleActive, bit)) => 1,
        _ => 0,
    };
    report.samples.extend((0..4u16).map(|state| Sample {
        reading: Reading::Status,
        index: state,
        value: Value::Int(i64::from(state == status)),
    }));
}

/// Used part of the memory that can be used.
fn fill_of(samples: &[Sample]) -> Option<Sample> {
    let bytes = |reading| get(samples, reading, 0).map(Value::as_f64);
    let (total, used) = (bytes(Reading::MemoryTotal)?, bytes(Reading::MemoryUsed)?);
    let usable = total - bytes(Reading::MemoryReserved).unwrap_or_default();
    (usable > 0.0).then_some(Sample {
        reading: Reading::MemoryFill,
        index: 0,
        value: Value::Double(used / usable),
    })
}
