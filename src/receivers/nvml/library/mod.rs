//! GPUs as the driver's library has them.
//!
//! A generation lasts from one successful [`Source::open`] to the next close. It ends when the driver says that
//! something is wrong that concerns all devices, or when no device answers anything for three reports. What one device
//! or one reading lacks ends nothing. Between generations nothing holds the library, so that a new one under the same
//! path is loaded; what a source remembers is which devices it has seen.
//!
//! A report costs a call to the driver for each fast reading, some 40, and one for all field values. Slow readings are
//! repeated from memory.

mod device;
mod errors;
mod events;
mod fields;
mod filter;
mod gpm;
mod mig;
mod open;
mod probe;
mod processes;
mod raw;
mod rows;
mod tally;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nvml_wrapper::error::NvmlError;

use self::device::{Context, Gpu, Stop};
use self::errors::Class;
use self::events::{Watched, Watcher};
use self::filter::Filter;
use self::raw::Handle;
use super::model::{
    Closed, EventSink, Glance, Group, Groups, Identity, Inventory, Reason, Report, Source, State,
};
use crate::pipeline::runtime::Supervisor;

pub use self::probe::Probed;

/// Where the system's loader finds the driver's library.
pub const DEFAULT_LIBRARY: &str = "libnvidia-ml.so.1";
/// So many reports in a row without one answer, of every device, and the driver is taken for gone.
const SILENT_REPORTS: u32 = 3;

/// What is read, and how.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The library; `None` for [`DEFAULT_LIBRARY`].
    pub library: Option<PathBuf>,
    /// The readings that are taken.
    pub groups: Groups,
    /// The devices that are read.
    pub devices: super::config::DevicesConfig,
    /// How often slow readings are taken.
    pub slow_interval: Duration,
    /// Whether devices that sleep are left alone.
    pub skip_sleeping: bool,
    /// Whether processes are read even without their group.
    pub processes: bool,
    /// Where sysfs is.
    pub sysfs: PathBuf,
    /// Where processes are.
    pub proc: PathBuf,
    /// Who watches over the thread that waits for events.
    pub supervisor: Supervisor,
    /// What sources with these settings, and clones of them, remember.
    pub memory: Memory,
}

/// What outlives a generation, and a source that was given up because the driver holds its thread. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Memory(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// Devices that were ever seen, by their number.
    seen: BTreeMap<u32, Arc<Identity>>,
    /// Whether a device was ever read.
    worked: bool,
}

/// See [`source`].
#[derive(Debug)]
pub struct Library {
    settings: Arc<Settings>,
    filter: Filter,
    events: EventSink,
    generation: Option<Generation>,
}

/// From one initialisation to the next. The order of the fields is the order in which they are given back.
#[derive(Debug)]
struct Generation {
    watcher: Option<Watcher>,
    gpus: Vec<Gpu>,
    cx: Context,
    turn: Turn,
}

/// Whose turn it is to be read in a way that blocks: one device a collection.
#[derive(Debug, Default)]
struct Turn {
    whose: usize,
    last: Option<usize>,
    used: bool,
}

impl Memory {
    /// No call into the driver is made while this is held: one that does not come back would stop every source.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn worked(&self) -> bool {
        self.known().worked
    }

    fn at(&self, index: u32) -> Option<Arc<Identity>> {
        self.known().seen.get(&index).cloned()
    }
}

/// Reads what the driver's library has.
pub fn source(settings: Settings, events: EventSink) -> Box<dyn Source> {
    Box::new(Library::new(settings, events))
}

impl Library {
    /// A source that opens nothing yet.
    pub fn new(settings: Settings, events: EventSink) -> Self {
        Library {
            filter: Filter::new(&settings.devices),
            settings: Arc::new(settings),
            events,
            generation: None,
        }
    }

    /// Calls everything once on the device with this number, and tells what came of it.
    pub fn probe(&mut self, index: u32) -> Vec<Probed> {
        let Some(Generation { gpus, cx, .. }) = &mut self.generation else { return Vec::new() };
        gpus.iter_mut().find(|gpu| gpu.identity.index == index).map(|gpu| gpu.probe(cx)).unwrap_or_default()
    }

    /// What the driver has at this number.
    fn meet(&self, cx: &Context, index: u32) -> Met {
        let known = self.settings.memory.at(index);
        if let Some(identity) = &known
            && self.settings.skip_sleeping
            && device::sleeps(&self.settings.sysfs, identity)
        {
            return self.met(Gpu::absent(Arc::clone(identity), State::Asleep));
        }
        let found = cx.nvml.device_by_index(index).and_then(|gpu| {
            let identity = open::identity(&gpu, index, self.settings.groups)?;
            Ok((Handle::of(&gpu), identity))
        });
        let error = match found {
            Ok((handle, identity)) => {
                // The same allocation for the same device, so that comparing is cheap.
                let identity =
                    known.filter(|known| **known == identity).unwrap_or_else(|| Arc::new(identity));
                self.settings.memory.known().seen.insert(index, Arc::clone(&identity));
                if !self.filter.takes(&identity) {
                    return Met::Filtered;
                }
                match Gpu::new(cx, handle, identity) {
                    Ok(gpu) => return Met::Gpu(gpu),
                    Err(Stop::Closed(closed)) => return Met::Closed(closed),
                    Err(Stop::Lost(error)) => error,
                }
            }
            Err(error) => error,
        };
        match errors::class(&error) {
            Class::Closed(reason) => return Met::Closed(errors::later(reason, &error)),
            Class::Denied => {
                tracing::warn!(index, "a GPU may not be read: its device node is not there or not allowed");
                return Met::Denied;
            }
            Class::Invalid => {
                let message = format!("the driver counts GPU {index} but does not know it");
                return Met::Closed(Closed { reason: Reason::Changed, message });
            }
            _ => {}
        }
        let hint = match error {
            NvmlError::InsufficientPower => "its power cables are not properly attached",
            NvmlError::IrqIssue => "the kernel sees a problem with its interrupts",
            NvmlError::Unknown => "the driver does not say why",
            _ => "the others go on",
        };
        tracing::warn!(index, %error, "a GPU cannot be read: {hint}");
        let identity = self.settings.memory.at(index).unwrap_or_else(|| Arc::new(Identity::unknown(index)));
        match self.met(Gpu::absent(identity, State::Lost)) {
            Met::Gpu(gpu) if matches!(error, NvmlError::Unknown) => Met::Silent(gpu),
            met => met,
        }
    }

    fn met(&self, gpu: Gpu) -> Met {
        if self.filter.takes(&gpu.identity) { Met::Gpu(gpu) } else { Met::Filtered }
    }

    fn generation(&mut self) -> Result<&mut Generation, Closed> {
        self.generation
            .as_mut()
            .ok_or_else(|| Closed { reason: Reason::Other, message: "the library is not open".to_owned() })
    }
}

/// What came of asking for a device.
enum Met {
    Gpu(Gpu),
    /// It is there, but the driver answers nothing about it.
    Silent(Gpu),
    Filtered,
    Denied,
    Closed(Closed),
}

impl Source for Library {
    fn open(&mut self, skip: &[u32], entering: &mut dyn FnMut(u32)) -> Result<Inventory, Closed> {
        self.close();
        let worked = self.settings.memory.worked();
        let nvml = open::load(self.settings.library.as_deref(), worked)?;
        let driver = Arc::new(open::driver(&nvml));
        let count = nvml.device_count().map_err(|error| match errors::class(&error) {
            Class::Closed(reason) => errors::later(reason, &error),
            _ => errors::at_init(&error, self.settings.library.as_deref(), worked),
        })?;
        let seen = self.settings.memory.known().seen.len();
        if count == 0 && seen > 0 {
            let message = format!("the driver shows no GPU, where there were {seen}");
            return Err(Closed { reason: Reason::Changed, message });
        }
        let cx = Context {
            branch: open::branch(&driver.version),
            nvml: Arc::new(nvml),
            settings: Arc::clone(&self.settings),
        };
        let mut gpus = Vec::new();
        let (mut denied, mut silent, mut asked) = (0, 0, 0);
        for index in (0..count).filter(|index| !skip.contains(index)) {
            if self.filter.refuses(index) {
                continue;
            }
            entering(index);
            asked += 1;
            match self.meet(&cx, index) {
                Met::Gpu(gpu) => gpus.push(gpu),
                Met::Silent(gpu) => {
                    silent += 1;
                    gpus.push(gpu);
                }
                Met::Filtered => {}
                Met::Denied => denied += 1,
                Met::Closed(closed) => return Err(closed),
            }
        }
        tell_apart(&mut gpus);
        if asked > 0 && silent == asked {
            return Err(errors::at_init(&NvmlError::Unknown, self.settings.library.as_deref(), worked));
        }
        let watcher = if self.settings.groups.has(Group::Events) {
            let (nvml, events) = (Arc::clone(&cx.nvml), self.events.clone());
            let started = Watcher::start(nvml, watched(&gpus), events, &self.settings.supervisor);
            started.map_err(|error| tracing::error!(%error, "no thread to wait for GPU events")).ok()
        } else {
            None
        };
        let devices = gpus.iter().map(|gpu| Arc::clone(&gpu.identity)).collect();
        self.generation = Some(Generation { watcher, gpus, cx, turn: Turn::default() });
        Ok(Inventory { driver, devices, denied })
    }

    fn read(&mut self, index: u32, now: Instant) -> Result<Report, Closed> {
        let Generation { watcher, gpus, cx, turn } = self.generation()?;
        let found = gpus.iter_mut().enumerate().find(|(_, gpu)| gpu.identity.index == index);
        let Some((at, gpu)) = found else {
            let message = format!("there is no GPU {index} in the inventory");
            return Err(Closed { reason: Reason::Changed, message });
        };
        let before = gpu.handle();
        let report = gpu.read(cx, now, turn.is(at))?;
        turn.after(at, report.state, gpus.len());
        let changed = gpus.get(at).is_some_and(|gpu| gpu.handle() != before);
        if changed && let Some(watcher) = watcher {
            watcher.watch(watched(gpus));
        }
        let mut streaks = gpus.iter().filter_map(Gpu::silent_for).peekable();
        if streaks.peek().is_some() && streaks.all(|reports| reports >= SILENT_REPORTS) {
            let message = format!("the driver has answered nothing for {SILENT_REPORTS} collections");
            return Err(Closed { reason: Reason::Other, message });
        }
        if report.state == State::Readable && !report.samples.is_empty() {
            self.settings.memory.known().worked = true;
        }
        Ok(report)
    }

    fn glance(&mut self, index: u32) -> Result<Glance, Closed> {
        let Generation { gpus, cx, .. } = self.generation()?;
        match gpus.iter_mut().find(|gpu| gpu.identity.index == index) {
            Some(gpu) => gpu.glance(cx),
            None => Ok(Glance::default()),
        }
    }

    fn close(&mut self) {
        let Some(Generation { watcher, gpus, cx, .. }) = self.generation.take() else { return };
        // Samples of counters go with their devices, the event set with its thread, and the library after both.
        drop(gpus);
        if watcher.is_some_and(|watcher| !watcher.end()) {
            tracing::warn!(
                "the driver holds the thread that waits for events; its library stays open until it lets go"
            );
        }
        if let Some(nvml) = Arc::into_inner(cx.nvml)
            && let Err(error) = nvml.shutdown()
        {
            tracing::debug!(%error, "the library did not shut down cleanly");
        }
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        self.close();
    }
}

impl Turn {
    fn is(&mut self, at: usize) -> bool {
        // A device that is not behind the last one begins a new collection.
        if self.last.is_none_or(|last| at <= last) {
            self.used = false;
        }
        self.last = Some(at);
        !self.used && at == self.whose
    }

    fn after(&mut self, at: usize, state: State, devices: usize) {
        if !self.used && at == self.whose {
            // One that could not be read leaves the turn to the next.
            self.used = state == State::Readable;
            self.whose = (at + 1) % devices.max(1);
        }
    }
}

/// A device that does not say who it is was remembered by its number; where another one turns out to be that, nobody
/// knows who it is.
fn tell_apart(gpus: &mut [Gpu]) {
    let met: Vec<Arc<str>> =
        gpus.iter().filter(|gpu| gpu.handle().is_some()).map(|gpu| Arc::clone(&gpu.identity.uuid)).collect();
    for gpu in gpus.iter_mut().filter(|gpu| gpu.handle().is_none() && met.contains(&gpu.identity.uuid)) {
        gpu.identity = Arc::new(Identity::unknown(gpu.identity.index));
    }
}

fn watched(gpus: &[Gpu]) -> Vec<Watched> {
    gpus.iter()
        .filter_map(|gpu| {
            Some(Watched {
                handle: gpu.handle()?,
                uuid: Arc::clone(&gpu.identity.uuid),
                mig_changed: Arc::clone(&gpu.mig_changed),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests;
