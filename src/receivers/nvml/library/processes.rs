//! Who runs on a device. Some drivers fill the list in another layout than they say, so what cannot be is left out.

use std::collections::HashMap;
use std::path::Path;

use nvml_wrapper::Device;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::{ProcessInfo, ProcessUtilizationSample};

use super::device::{Context, Stop, Tally, stop};
use super::errors::{self, Class};
use super::raw::Handle;
use crate::receivers::nvml::model::{Process, ProcessKind, Reading, Sample, Value};

/// The word under which entries that cannot be are counted.
const IMPOSSIBLE: &str = "impossible_process";
/// The name of a process that only the host's process namespace has: the parent of the kernel's threads.
const OF_THE_HOST: &str = "kthreadd";

/// The processes of one device.
#[derive(Debug, Default)]
pub(super) struct Processes {
    over: [bool; 3],
    load_over: bool,
    /// The newest sample of load that was seen, in the driver's microseconds.
    seen: u64,
}

type List = for<'a, 'b> fn(&'a Device<'b>) -> Result<Vec<ProcessInfo>, NvmlError>;

const LISTS: [(ProcessKind, List); 3] = [
    (ProcessKind::Compute, |gpu| gpu.running_compute_processes()),
    (ProcessKind::Graphics, |gpu| gpu.running_graphics_processes()),
    (ProcessKind::Mps, |gpu| gpu.mps_running_compute_processes()),
];

impl Processes {
    /// Reads all lists and adds how many processes there are.
    ///
    /// # Errors
    /// When the device or the driver is gone.
    pub(super) fn read(
        &mut self,
        cx: &Context,
        handle: Handle,
        total: Option<Value>,
        tally: &mut Tally,
        samples: &mut Vec<Sample>,
    ) -> Result<Vec<Process>, Stop> {
        let gpu = handle.device(&cx.nvml);
        let total = match total {
            Some(Value::Int(total)) => u64::try_from(total).unwrap_or(u64::MAX),
            _ => u64::MAX,
        };
        let host = is_of_host(&cx.settings.proc).then_some(&*cx.settings.proc);
        let mut processes: Vec<Process> = Vec::new();
        for ((kind, list), over) in LISTS.into_iter().zip(&mut self.over) {
            if *over {
                continue;
            }
            let mut entries = list(&gpu);
            if matches!(entries, Err(NvmlError::InsufficientSize(_))) {
                entries = list(&gpu);
            }
            tally.note(entries.as_ref().err());
            let entries = match entries {
                Ok(entries) => entries,
                Err(error) => {
                    let error = stop(&cx.nvml, handle, error)?;
                    *over =
                        matches!(errors::class(&error), Class::Unsupported | Class::Invalid | Class::Denied);
                    continue;
                }
            };
            let (mut possible, mut impossible) = (0_u32, 0_u32);
            for entry in entries {
                if is_possible(&entry, total, host) {
                    possible += 1;
                    add(&mut processes, kind, &entry);
                } else {
                    impossible += 1;
                }
            }
            if impossible > 0 {
                tally.count(IMPOSSIBLE, impossible);
            }
            let index = match kind {
                ProcessKind::Compute => 0,
                ProcessKind::Graphics => 1,
                ProcessKind::Mps => continue,
            };
            samples.push(Sample { reading: Reading::ProcessCount, index, value: possible.into() });
        }
        Ok(processes)
    }

    /// Adds how busy each keeps the device.
    ///
    /// # Errors
    /// When the device or the driver is gone.
    pub(super) fn load(
        &mut self,
        cx: &Context,
        handle: Handle,
        mut processes: Vec<Process>,
        tally: &mut Tally,
    ) -> Result<Vec<Process>, Stop> {
        if self.load_over || processes.is_empty() {
            return Ok(processes);
        }
        let gpu = handle.device(&cx.nvml);
        let seen = self.seen;
        let mut answer = gpu.process_utilization_stats(seen);
        if matches!(answer, Err(NvmlError::InsufficientSize(_))) {
            answer = gpu.process_utilization_stats(seen);
        }
        tally.note(answer.as_ref().err());
        let loads = match answer {
            Ok(loads) => loads,
            Err(error) => {
                let error = stop(&cx.nvml, handle, error)?;
                self.load_over =
                    matches!(errors::class(&error), Class::Unsupported | Class::Invalid | Class::Denied);
                return Ok(processes);
            }
        };
        let means = means(&loads, seen);
        self.seen = loads.iter().map(|load| load.timestamp).max().unwrap_or(seen).max(seen);
        for process in &mut processes {
            if let Some(load) = means.get(&process.pid) {
                process.load = *load;
            }
        }
        Ok(processes)
    }
}

fn add(processes: &mut Vec<Process>, kind: ProcessKind, entry: &ProcessInfo) {
    let memory = match entry.used_gpu_memory {
        UsedGpuMemory::Used(bytes) => Some(bytes),
        UsedGpuMemory::Unavailable => None,
    };
    let (gpu_instance, compute_instance) = (entry.gpu_instance_id, entry.compute_instance_id);
    let same = |known: &&mut Process| {
        (known.pid, known.gpu_instance, known.compute_instance) == (entry.pid, gpu_instance, compute_instance)
    };
    match processes.iter_mut().find(same) {
        // Lists tell of the same memory.
        Some(known) => known.memory = known.memory.max(memory),
        None => processes.push(Process {
            pid: entry.pid,
            kind,
            memory,
            gpu_instance,
            compute_instance,
            load: [None; 4],
        }),
    }
}

/// Whether an entry can be a process. `host`: the host's processes, where they can be seen.
fn is_possible(entry: &ProcessInfo, total: u64, host: Option<&Path>) -> bool {
    let fits = match entry.used_gpu_memory {
        UsedGpuMemory::Used(bytes) => bytes <= total,
        UsedGpuMemory::Unavailable => true,
    };
    entry.pid != 0 && fits && host.is_none_or(|proc| proc.join(entry.pid.to_string()).exists())
}

/// Whether the processes there are the host's, and not those of a container alone.
fn is_of_host(proc: &Path) -> bool {
    std::fs::read_to_string(proc.join("2/comm")).is_ok_and(|name| name.trim() == OF_THE_HOST)
}

/// The mean of the samples of each process that are newer than `seen`.
fn means(loads: &[ProcessUtilizationSample], seen: u64) -> HashMap<u32, [Option<f64>; 4]> {
    let mut sums: HashMap<u32, [(f64, u32); 4]> = HashMap::new();
    for load in loads.iter().filter(|load| load.timestamp > seen) {
        let sums = sums.entry(load.pid).or_default();
        for ((sum, count), value) in
            sums.iter_mut().zip([load.sm_util, load.mem_util, load.enc_util, load.dec_util])
        {
            if value <= 100 {
                *sum += f64::from(value);
                *count += 1;
            }
        }
    }
    sums.into_iter()
        .map(|(pid, sums)| (pid, sums.map(|(sum, count)| (count > 0).then(|| sum / f64::from(count)))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pid: u32, memory: u64) -> ProcessInfo {
        ProcessInfo {
            pid,
            used_gpu_memory: UsedGpuMemory::from(memory),
            gpu_instance_id: None,
            compute_instance_id: None,
        }
    }

    #[test]
    fn what_cannot_be_is_no_process() {
        let proc = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(proc.path().join("2")).unwrap();
        std::fs::create_dir_all(proc.path().join("77")).unwrap();
        assert!(!is_of_host(proc.path()), "a container's own");
        std::fs::write(proc.path().join("2/comm"), "kthreadd\n").unwrap();
        assert!(is_of_host(proc.path()));
        let host = Some(proc.path());
        assert!(is_possible(&entry(77, 10), 10, host));
        assert!(!is_possible(&entry(78, 10), 10, host), "no such process");
        assert!(is_possible(&entry(78, 10), 10, None), "nobody can tell");
        assert!(!is_possible(&entry(77, 11), 10, host), "more than there is");
        assert!(is_possible(&entry(77, u64::MAX), 10, host), "not told");
        assert!(!is_possible(&entry(0, 1), 10, None));
    }

    #[test]
    fn a_process_in_two_lists_is_one() {
        let mut processes = Vec::new();
        add(&mut processes, ProcessKind::Compute, &entry(7, u64::MAX));
        add(&mut processes, ProcessKind::Graphics, &entry(7, 5));
        add(&mut processes, ProcessKind::Graphics, &entry(8, 6));
        let seen: Vec<_> = processes.iter().map(|p| (p.pid, p.kind, p.memory)).collect();
        assert_eq!(seen, [(7, ProcessKind::Compute, Some(5)), (8, ProcessKind::Graphics, Some(6))]);
    }

    #[test]
    fn load_is_the_mean_of_what_is_new() {
        let load = |pid, timestamp, sm_util| ProcessUtilizationSample {
            pid,
            timestamp,
            sm_util,
            mem_util: 10,
            enc_util: 101,
            dec_util: 0,
        };
        let means = means(&[load(1, 5, 90), load(1, 6, 20), load(1, 7, 40), load(2, 7, 250)], 5);
        assert_eq!(means[&1], [Some(30.0), Some(10.0), None, Some(0.0)]);
        assert_eq!(means[&2], [None, Some(10.0), None, Some(0.0)]);
    }
}
