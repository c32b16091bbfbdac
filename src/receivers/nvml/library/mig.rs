//! MIG instances of a device: which there are, and what can be read of each.
//!
//! Handles of instances die when the layout changes, so they are looked up anew on an event, every minute, and when
//! one of them is refused. Memory and profiling counters belong to a GPU instance; they stand at its first compute
//! instance, as the others share them.

use std::sync::Arc;
use std::time::Instant;

use nvml_wrapper::error::NvmlError;

use super::device::{Context, Stop, stop};
use super::errors::{self, Class};
use super::gpm::Gpm;
use super::raw::{self, Handle};
use super::rows::{self, Call};
use super::tally::{MINUTE, Tally};
use crate::receivers::nvml::model::{Group, MigIdentity, MigReport, Sample};

/// NVIDIA has built nothing with more slots.
const MOST_SLOTS: u32 = 64;
/// Memory profiles are cut in eighths.
const EIGHTHS: f64 = 8.0;
const GIB: f64 = 1_073_741_824.0;

/// The MIG side of a device.
#[derive(Debug, Default)]
pub(super) struct Mig {
    mode: Option<bool>,
    unsupported: bool,
    instances: Vec<Instance>,
    looked: Option<Instant>,
    refused: bool,
    moved: bool,
}

#[derive(Debug)]
struct Instance {
    handle: Handle,
    identity: Arc<MigIdentity>,
    first: bool,
    gpm: Gpm,
    memory: Memory,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Memory {
    V2,
    V1,
    No,
}

impl Mig {
    /// Looks at mode and instances if that is due. True when the mode has changed.
    ///
    /// # Errors
    /// When the device or the driver is gone.
    pub(super) fn refresh(
        &mut self,
        cx: &Context,
        handle: Handle,
        now: Instant,
        changed: bool,
        tally: &mut Tally,
    ) -> Result<bool, Stop> {
        let due = self.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= MINUTE);
        if self.unsupported || !(due || changed || self.refused) {
            return Ok(false);
        }
        self.looked = Some(now);
        self.refused = false;
        let mode = handle.device(&cx.nvml).mig_mode();
        tally.note(mode.as_ref().err());
        let mode = match mode {
            Ok(mode) => mode.current != 0,
            Err(error) => {
                let error = stop(&cx.nvml, handle, error)?;
                self.unsupported = matches!(errors::class(&error), Class::Unsupported | Class::Invalid);
                if self.unsupported {
                    self.instances.clear();
                } else {
                    // Not this time: what was there is still there, and the next report asks again.
                    self.looked = None;
                }
                return Ok(false);
            }
        };
        let before = self.mode.replace(mode);
        if mode {
            self.look(cx, handle, tally)?;
        } else {
            self.instances.clear();
        }
        Ok(before.is_some_and(|before| before != mode))
    }

    /// Whether instances came or went since this was asked. Counters of before and after do not go together.
    pub(super) fn moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Reads all instances.
    ///
    /// # Errors
    /// When the device or the driver is gone.
    pub(super) fn read(
        &mut self,
        cx: &Context,
        handle: Handle,
        now: Instant,
        tally: &mut Tally,
    ) -> Result<Vec<MigReport>, Stop> {
        let mut reports = self.read_once(cx, now, tally)?;
        if self.refused {
            // What is refused again is looked up at the next report.
            self.refresh(cx, handle, now, true, tally)?;
            reports = self.read_once(cx, now, tally)?;
        }
        Ok(reports)
    }

    fn read_once(&mut self, cx: &Context, now: Instant, tally: &mut Tally) -> Result<Vec<MigReport>, Stop> {
        let groups = cx.settings.groups;
        let mut reports = Vec::with_capacity(self.instances.len());
        for instance in &mut self.instances {
            let mut samples = Vec::new();
            if instance.first && groups.has(Group::Memory) {
                match instance.memory(cx, tally) {
                    Ok(memory) => samples = memory,
                    Err(error) => match errors::class(&error) {
                        Class::Lost => return Err(Stop::Lost(error)),
                        Class::Closed(reason) => return Err(Stop::Closed(errors::later(reason, &error))),
                        Class::Invalid => self.refused = true,
                        _ => {}
                    },
                }
            }
            if instance.first && groups.has(Group::Profiling) {
                instance.gpm.read(cx, now, tally, &mut samples)?;
            }
            reports.push(MigReport { identity: Arc::clone(&instance.identity), samples });
        }
        Ok(reports)
    }

    /// Finds the instances. Those that were there before keep their counters.
    fn look(&mut self, cx: &Context, parent: Handle, tally: &mut Tally) -> Result<(), Stop> {
        let gpu = parent.device(&cx.nvml);
        let slots = gpu.mig_device_count();
        tally.note(slots.as_ref().err());
        let slots = match slots {
            Ok(slots) => slots.min(MOST_SLOTS),
            Err(error) => {
                stop(&cx.nvml, parent, error)?;
                return Ok(());
            }
        };
        let total = gpu.memory_info().map(|memory| memory.total);
        let total = total.or_else(|_| raw::memory_v1(&cx.nvml, parent).map(|memory| memory.total)).ok();
        let mut found: Vec<Instance> = Vec::new();
        let mut came = false;
        for slot in 0..slots {
            let instance =
                gpu.mig_device_by_index(slot).and_then(|device| identify(cx, Handle::of(&device), total));
            let (handle, identity) = match instance {
                Ok(instance) => instance,
                Err(error) => {
                    match errors::class(&error) {
                        Class::Lost => return Err(Stop::Lost(error)),
                        Class::Closed(reason) => return Err(Stop::Closed(errors::later(reason, &error))),
                        // An empty slot.
                        Class::Empty | Class::Invalid => {}
                        _ => tally.note(Some(&error)),
                    }
                    continue;
                }
            };
            let first = found.iter().all(|other| other.identity.gpu_instance != identity.gpu_instance);
            let known = self.instances.iter().position(|known| known.identity == identity);
            found.push(match known.map(|at| self.instances.swap_remove(at)) {
                Some(known) => Instance { handle, first, ..known },
                None => {
                    came = true;
                    let gpm = Gpm::new(parent, Some(identity.gpu_instance));
                    Instance { handle, first, gpm, identity, memory: Memory::V2 }
                }
            });
        }
        // What was known and is found is no longer in the old list.
        self.moved = came || !self.instances.is_empty();
        if self.moved {
            for instance in &mut found {
                instance.gpm = Gpm::new(parent, Some(instance.identity.gpu_instance));
            }
        }
        self.instances = found;
        Ok(())
    }
}

impl Instance {
    fn memory(&mut self, cx: &Context, tally: &mut Tally) -> Result<Vec<Sample>, NvmlError> {
        let gpu = self.handle.device(&cx.nvml);
        let mut call = Call {
            nvml: &cx.nvml,
            gpu: &gpu,
            handle: self.handle,
            throttle_bits: 0,
            before: &[],
            out: Vec::new(),
        };
        while self.memory != Memory::No {
            call.out.clear();
            let outcome = match self.memory {
                Memory::V2 => rows::memory(&mut call),
                Memory::V1 | Memory::No => rows::memory_v1(&mut call),
            };
            tally.note(outcome.as_ref().err());
            match outcome {
                Ok(()) => return Ok(call.out),
                Err(error) => match errors::class(&error) {
                    Class::Unsupported if self.memory == Memory::V2 => self.memory = Memory::V1,
                    Class::Unsupported | Class::Denied => self.memory = Memory::No,
                    _ => return Err(error),
                },
            }
        }
        Ok(Vec::new())
    }
}

fn identify(
    cx: &Context,
    handle: Handle,
    gpu_memory: Option<u64>,
) -> Result<(Handle, Arc<MigIdentity>), NvmlError> {
    let nvml = &*cx.nvml;
    let device = handle.device(nvml);
    let uuid = device.uuid()?;
    let gpu_instance = raw::gpu_instance(nvml, handle)?;
    let compute_instance = raw::compute_instance(nvml, handle)?;
    // Both of these are worth having, and an instance is one without them.
    let attributes = device.attributes().ok();
    let name = device.name().ok();
    let slices = attributes.as_ref().map_or(0, |a| a.gpu_instance_slice_count);
    let compute = attributes.as_ref().map_or(0, |a| a.compute_instance_slice_count);
    let memory = attributes.as_ref().map_or(0, |a| a.memory_size_mb.saturating_mul(1 << 20));
    let profile = name
        .as_deref()
        .and_then(profile_in_name)
        .map(str::to_owned)
        .or_else(|| built_profile(slices, compute, memory, gpu_memory?));
    Ok((
        handle,
        Arc::new(MigIdentity {
            uuid: uuid.into(),
            profile,
            gpu_instance,
            compute_instance,
            gpu_instance_slices: slices,
            compute_instance_slices: compute,
            memory,
        }),
    ))
}

/// The profile at the end of an instance's name: `NVIDIA H200 MIG 1g.18gb`.
fn profile_in_name(name: &str) -> Option<&str> {
    let last = name.rsplit_once("MIG ")?.1.trim();
    (last.contains("g.") && last.contains("gb") && !last.contains(' ')).then_some(last)
}

/// The profile as NVIDIA names them: compute slices where they are not all, slices, and the share of the GPU's memory
/// in eighths, in whole GB.
fn built_profile(slices: u32, compute: u32, memory: u64, gpu_memory: u64) -> Option<String> {
    if slices == 0 || memory == 0 || gpu_memory == 0 {
        return None;
    }
    let share = (memory as f64 / gpu_memory as f64 * EIGHTHS).ceil() / EIGHTHS;
    let gb = (share * (gpu_memory as f64 / GIB).ceil()).round();
    let part = if compute != 0 && compute < slices { format!("{compute}c.") } else { String::new() };
    Some(format!("{part}{slices}g.{gb}gb"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles() {
        assert_eq!(profile_in_name("NVIDIA A100-SXM4-40GB MIG 1g.5gb"), Some("1g.5gb"));
        assert_eq!(profile_in_name("NVIDIA A100-SXM4-40GB MIG 1c.3g.20gb"), Some("1c.3g.20gb"));
        assert_eq!(profile_in_name("NVIDIA H100 MIG 1g.10gb+me"), Some("1g.10gb+me"));
        assert_eq!(profile_in_name("NVIDIA A100-SXM4-40GB"), None);
        let mib = |n: u64| n << 20;
        let table = [
            (1, 1, mib(4864), mib(40960), "1g.5gb"),
            (3, 3, mib(19968), mib(40960), "3g.20gb"),
            (3, 1, mib(19968), mib(40960), "1c.3g.20gb"),
            (1, 1, mib(16384), 150_754_820_096, "1g.18gb"),
            (7, 7, mib(143_156), 150_754_820_096, "7g.141gb"),
        ];
        for (slices, compute, memory, total, expected) in table {
            assert_eq!(built_profile(slices, compute, memory, total).as_deref(), Some(expected));
        }
        assert_eq!(built_profile(0, 0, 0, 1), None);
    }
}
