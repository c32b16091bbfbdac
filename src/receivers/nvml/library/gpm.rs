//! Profiling counters of Hopper and later: what happened between two samples, one of each report.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nvml_wrapper::error::NvmlError;

use super::device::{Context, Stop, stop};
use super::errors::{self, Class};
use super::raw::{GpmSample, Handle};
use super::tally::Tally;
use crate::receivers::nvml::model::{Reading, Sample};

/// Counters of a shorter time are noise.
const SHORTEST: Duration = Duration::from_secs(1);
/// Counters of a longer time say nothing about now.
const LONGEST: Duration = Duration::from_secs(600);
/// A ratio a little above the maximum is rounding; far above, it is none.
const MOST_PERCENT: f64 = 101.0;

/// The numbers of the metrics, what they tell, and whether they are percent.
const METRICS: [(u32, Reading, u16, bool); 9] = [
    (1, Reading::GraphicsActivity, 0, true),
    (2, Reading::SmActivity, 0, true),
    (3, Reading::SmOccupancy, 0, true),
    (5, Reading::TensorActivity, 0, true),
    (10, Reading::MemoryBandwidth, 0, true),
    (20, Reading::ProfiledPcie, 0, false),
    (21, Reading::ProfiledPcie, 1, false),
    (61, Reading::ProfiledNvlink, 0, false),
    (60, Reading::ProfiledNvlink, 1, false),
];

/// The profiling counters of a device or of one of its GPU instances.
#[derive(Debug)]
pub(super) struct Gpm {
    handle: Handle,
    gpu_instance: Option<u32>,
    over: bool,
    asked: bool,
    older: Option<(GpmSample, Instant)>,
    /// Metrics that this device has, as bits by their place.
    has: u16,
    last: Vec<Sample>,
}

impl Gpm {
    /// Of the device with this handle, or of its GPU instance.
    pub(super) fn new(handle: Handle, gpu_instance: Option<u32>) -> Self {
        Gpm { handle, gpu_instance, over: false, asked: false, older: None, has: u16::MAX, last: Vec::new() }
    }

    /// Takes a sample and adds what happened since the one before.
    ///
    /// # Errors
    /// When the device or the driver is gone.
    pub(super) fn read(
        &mut self,
        cx: &Context,
        now: Instant,
        tally: &mut Tally,
        out: &mut Vec<Sample>,
    ) -> Result<(), Stop> {
        if self.over {
            return Ok(());
        }
        if let Some((_, taken)) = &self.older {
            let window = now.saturating_duration_since(*taken);
            if window < SHORTEST {
                out.extend_from_slice(&self.last);
                return Ok(());
            }
            if window > LONGEST {
                self.older = None;
            }
        }
        self.last.clear();
        match self.step(cx, now, tally) {
            Ok(()) => out.extend_from_slice(&self.last),
            Err(error) => {
                self.older = None;
                self.last.clear();
                let error = match self.gpu_instance {
                    // The instance may be gone; the list of instances is made anew soon.
                    Some(_) if errors::class(&error) == Class::Invalid => error,
                    _ => stop(&cx.nvml, self.handle, error)?,
                };
                if matches!(errors::class(&error), Class::Unsupported | Class::Denied | Class::Invalid) {
                    tracing::debug!(%error, "profiling counters are not there");
                    self.over = true;
                }
            }
        }
        Ok(())
    }

    fn step(&mut self, cx: &Context, now: Instant, tally: &mut Tally) -> Result<(), NvmlError> {
        if !self.asked {
            let supported = self.handle.device(&cx.nvml).gpm_support();
            tally.note(supported.as_ref().err());
            if !supported? {
                return Err(NvmlError::NotSupported);
            }
            self.asked = true;
        }
        let mut newer = GpmSample::new(Arc::clone(&cx.nvml))?;
        let taken = newer.take(self.handle, self.gpu_instance);
        tally.note(taken.as_ref().err());
        taken?;
        let Some((older, _)) = self.older.replace((newer, now)) else { return Ok(()) };
        let Some((newer, _)) = &self.older else { return Ok(()) };
        let wanted: Vec<usize> = (0..METRICS.len()).filter(|at| self.has & (1 << at) != 0).collect();
        let ids: Vec<u32> = wanted.iter().filter_map(|&at| Some(METRICS.get(at)?.0)).collect();
        if ids.is_empty() {
            return Err(NvmlError::NotSupported);
        }
        let values = newer.since(&older, &ids);
        tally.note(values.as_ref().err());
        for (at, value) in wanted.into_iter().zip(values?) {
            let Some(&(_, reading, index, percent)) = METRICS.get(at) else { continue };
            match value {
                Ok(value) if value.is_finite() && value >= 0.0 => {
                    if !percent || value <= MOST_PERCENT {
                        let value = if percent { value.min(100.0) } else { value };
                        self.last.push(Sample { reading, index, value: value.into() });
                    }
                }
                Ok(_) => {}
                Err(error) => match errors::class(&error) {
                    Class::Unsupported | Class::Invalid | Class::Denied => self.has &= !(1 << at),
                    _ => tally.note(Some(&error)),
                },
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_its_bit_and_its_reading() {
        assert!(METRICS.len() <= 16);
        for (at, (id, reading, index, _)) in METRICS.iter().enumerate() {
            for (other, r, i, _) in &METRICS[at + 1..] {
                assert!(id != other && (reading, index) != (r, i), "{id}");
            }
        }
    }
}
