//! One device of one generation: what it has, what is due, and the report that comes of it.
//!
//! Whether the device has a reading is found out by asking once; what it does not have is not asked for again until
//! the next generation, or until its MIG mode changes. A reading that is taken seldom is repeated from memory.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

use super::Settings;
use super::errors::{self, Class};
use super::fields::{self, Batch};
use super::filter::short_bus_id;
use super::gpm::Gpm;
use super::mig::Mig;
use super::probe::{self, Probed};
use super::processes::Processes;
use super::raw::Handle;
use super::rows::{self, Call, ROWS, Row, Times};
use super::tally::{Cadence, MINUTE, Tally, Tier};
use crate::receivers::nvml::model::{
    Closed, Glance, Group, Identity, Reading, Reason, Report, Sample, State, get,
};

/// Why a device cannot be read to the end.
#[derive(Debug)]
pub(super) enum Stop {
    /// It is lost; the others go on.
    Lost(NvmlError),
    /// Nothing can be read any more.
    Closed(Closed),
}

/// One device.
#[derive(Debug)]
pub(super) struct Gpu {
    /// Who it is.
    pub(super) identity: Arc<Identity>,
    /// Set when its MIG instances may have changed.
    pub(super) mig_changed: Arc<AtomicBool>,
    bond: Option<Bond>,
    state: State,
    look_again: Option<Instant>,
    unknown_reports: u32,
}

/// What there is while the device can be asked.
#[derive(Debug)]
struct Bond {
    handle: Handle,
    entries: Vec<Entry>,
    fields: Batch,
    gpm: Gpm,
    mig: Mig,
    processes: Processes,
    throttle_bits: u64,
    warned: Vec<&'static str>,
}

/// One row with one argument.
#[derive(Debug)]
struct Entry {
    row: &'static Row,
    arg: u16,
    support: Support,
    due: Option<Instant>,
    last: Vec<Sample>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Support {
    /// It works, or nobody has asked yet.
    Open,
    /// The device does not have it.
    Unsupported,
    /// It may not be asked.
    Denied,
}

/// What every device of a generation shares.
#[derive(Debug)]
pub(super) struct Context {
    /// The library.
    pub(super) nvml: Arc<Nvml>,
    /// What the user wants.
    pub(super) settings: Arc<Settings>,
    /// The driver's branch, such as 580.
    pub(super) branch: u32,
}

/// What a failed call means beyond itself, if anything.
pub(super) fn stop(nvml: &Nvml, handle: Handle, error: NvmlError) -> Result<NvmlError, Stop> {
    match errors::class(&error) {
        Class::Lost => Err(Stop::Lost(error)),
        Class::Closed(reason) => Err(Stop::Closed(errors::later(reason, &error))),
        // A call that takes nothing but the handle tells whether that is what is wrong.
        Class::Invalid => match handle.device(nvml).uuid() {
            Err(cause) if errors::class(&cause) == Class::Invalid => {
                Err(Stop::Closed(errors::later(Reason::Changed, &error)))
            }
            _ => Ok(error),
        },
        _ => Ok(error),
    }
}

impl Gpu {
    /// A device that answers.
    ///
    /// # Errors
    /// When it stopped doing so.
    pub(super) fn new(cx: &Context, handle: Handle, identity: Arc<Identity>) -> Result<Self, Stop> {
        let bond = Bond::new(cx, handle)?;
        Ok(Gpu { bond: Some(bond), state: State::Readable, ..Gpu::absent(identity, State::Readable) })
    }

    /// A device that cannot be asked now.
    pub(super) fn absent(identity: Arc<Identity>, state: State) -> Self {
        Gpu { identity, mig_changed: Arc::default(), bond: None, state, look_again: None, unknown_reports: 0 }
    }

    /// The handle, while there is one.
    pub(super) fn handle(&self) -> Option<Handle> {
        Some(self.bond.as_ref()?.handle)
    }

    /// How many reports in a row had no answer at all; `None` while it is not asked anything.
    pub(super) fn silent_for(&self) -> Option<u32> {
        self.bond.as_ref().filter(|_| self.state != State::Asleep).map(|_| self.unknown_reports)
    }

    /// Reads everything that is due. `turn`: whether it is this device's turn for readings that block.
    ///
    /// # Errors
    /// When nothing can be read any more, of any device.
    pub(super) fn read(&mut self, cx: &Context, now: Instant, turn: bool) -> Result<Report, Closed> {
        if cx.settings.skip_sleeping && sleeps(&cx.settings.sysfs, &self.identity) {
            self.state = State::Asleep;
            return Ok(self.bare(State::Asleep, None));
        }
        if self.bond.is_none() {
            if self.state == State::Lost && self.look_again.is_some_and(|at| now < at) {
                return Ok(self.bare(State::Lost, None));
            }
            match self.look_again(cx) {
                Ok(()) => {}
                Err(Stop::Lost(error)) => return Ok(self.lose(&error, now)),
                Err(Stop::Closed(closed)) => return Err(closed),
            }
        }
        let Some(bond) = &mut self.bond else { return Ok(self.bare(State::Lost, None)) };
        let mut tally = Tally::default();
        let changed = self.mig_changed.swap(false, Ordering::Acquire);
        let mut report = Report::bare(Arc::clone(&self.identity), State::Readable);
        match bond.read(cx, &self.identity, now, turn, changed, &mut tally, &mut report) {
            Ok(()) => {}
            Err(Stop::Lost(error)) => return Ok(self.lose(&error, now)),
            Err(Stop::Closed(closed)) => return Err(closed),
        }
        if tally.silent() {
            // What is repeated from memory does not make it one that was read.
            self.unknown_reports = self.unknown_reports.saturating_add(1);
            self.state = State::Lost;
            report = self.bare(State::Lost, None);
        } else {
            self.unknown_reports = 0;
            self.state = State::Readable;
        }
        report.errors = tally.errors;
        Ok(report)
    }

    /// Reads what changes fastest.
    ///
    /// # Errors
    /// When nothing can be read any more, of any device.
    pub(super) fn glance(&mut self, cx: &Context) -> Result<Glance, Closed> {
        let Some(bond) = self.bond.as_ref().filter(|_| self.state == State::Readable) else {
            return Ok(Glance::default());
        };
        let gpu = bond.handle.device(&cx.nvml);
        let check = |error: NvmlError| match stop(&cx.nvml, bond.handle, error) {
            // The next report finds out that the device is lost.
            Ok(_) | Err(Stop::Lost(_)) => Ok(None),
            Err(Stop::Closed(closed)) => Err(closed),
        };
        let busy = if bond.has(Reading::Busy) {
            gpu.utilization_rates().map(|busy| (busy.gpu <= 100).then_some(busy.gpu)).or_else(check)?
        } else {
            None
        };
        let power = if bond.has(Reading::Power) {
            // All ones is no value, here as in reports.
            gpu.power_usage().map(|power| (power != u32::MAX).then_some(power)).or_else(check)?
        } else {
            None
        };
        Ok(Glance { busy: busy.map(f64::from), power: power.map(f64::from) })
    }

    /// Calls everything once, whatever is known of it.
    pub(super) fn probe(&self, cx: &Context) -> Vec<Probed> {
        self.bond.as_ref().map(|bond| bond.probe(cx)).unwrap_or_default()
    }

    /// Asks the driver for a device that was lost, or asleep when the library was opened.
    fn look_again(&mut self, cx: &Context) -> Result<(), Stop> {
        let error = |error: NvmlError| match errors::class(&error) {
            Class::Closed(reason) => Stop::Closed(errors::later(reason, &error)),
            _ => Stop::Lost(error),
        };
        let device = cx.nvml.device_by_index(self.identity.index).map_err(error)?;
        let uuid = device.uuid().map_err(error)?;
        if *uuid != *self.identity.uuid {
            let message = format!("GPU {} is another one now: {uuid}", self.identity.index);
            return Err(Stop::Closed(Closed { reason: Reason::Changed, message }));
        }
        self.bond = Some(Bond::new(cx, Handle::of(&device))?);
        tracing::info!(gpu = &*uuid, "the GPU answers again");
        Ok(())
    }

    fn lose(&mut self, error: &NvmlError, now: Instant) -> Report {
        if self.state != State::Lost {
            tracing::warn!(gpu = &*self.identity.uuid, %error, "a GPU is lost; the others go on");
        }
        self.state = State::Lost;
        self.bond = None;
        self.unknown_reports = 0;
        self.look_again = now.checked_add(MINUTE);
        self.bare(State::Lost, Some(error))
    }

    fn bare(&self, state: State, error: Option<&NvmlError>) -> Report {
        let mut report = Report::bare(Arc::clone(&self.identity), state);
        report.errors.extend(error.map(|error| (errors::word(error), 1)));
        report
    }
}

impl Bond {
    fn new(cx: &Context, handle: Handle) -> Result<Self, Stop> {
        let nvml = &*cx.nvml;
        let gpu = handle.device(nvml);
        let groups = cx.settings.groups;
        let count = |wanted: bool, count: &dyn Fn() -> Result<u16, NvmlError>| -> Result<u16, Stop> {
            if !wanted {
                return Ok(0);
            }
            // No fans, no links: nothing to read of them. Anything worse shows up again in the first report.
            count().or_else(|error| stop(nvml, handle, error).map(|_| 0))
        };
        let fans = count(groups.has(Group::Fans), &|| {
            gpu.num_fans().map(|fans| u16::try_from(fans.min(64)).unwrap_or(0))
        })?;
        let wants_links = groups.has(Group::Nvlink) || groups.has(Group::NvlinkLinks);
        let links = count(wants_links, &|| fields::link_count(nvml, handle))?;
        let mut entries = Vec::new();
        for row in ROWS.iter().filter(|row| groups.has(row.group)) {
            let times = match row.times {
                Times::Once | Times::Instead => 1,
                Times::Each(times) => times,
                Times::Fans => fans,
                Times::Links => links,
            };
            entries.extend((0..times).map(|arg| Entry {
                row,
                arg,
                support: Support::Open,
                due: None,
                last: Vec::new(),
            }));
        }
        Ok(Bond {
            handle,
            entries,
            fields: Batch::new(groups, cx.branch, nvml.field_id_scheme()),
            gpm: Gpm::new(handle, None),
            mig: Mig::default(),
            processes: Processes::default(),
            throttle_bits: rows::throttle_bits(nvml, &gpu),
            warned: Vec::new(),
        })
    }

    /// Whether a row that gives this reading works.
    fn has(&self, reading: Reading) -> bool {
        self.entries.iter().any(|entry| {
            entry.support == Support::Open && entry.last.iter().any(|sample| sample.reading == reading)
        })
    }

    #[allow(clippy::too_many_arguments, reason = "one report's worth of context")]
    fn read(
        &mut self,
        cx: &Context,
        identity: &Arc<Identity>,
        now: Instant,
        turn: bool,
        mig_changed: bool,
        tally: &mut Tally,
        report: &mut Report,
    ) -> Result<(), Stop> {
        let (nvml, handle) = (&*cx.nvml, self.handle);
        let groups = cx.settings.groups;
        let cadence = Cadence { slow: cx.settings.slow_interval };
        if groups.has(Group::Mig) && self.mig.refresh(cx, handle, now, mig_changed, tally)? {
            self.forget();
        }
        if self.mig.moved() {
            self.gpm = Gpm::new(handle, None);
        }
        let samples = &mut report.samples;
        if let Err(error) = self.fields.read(nvml, handle, now, &cadence, tally, samples) {
            stop(nvml, handle, error)?;
        }
        self.rows(cx, now, turn, &cadence, tally, samples)?;
        if groups.has(Group::Profiling) {
            self.gpm.read(cx, now, tally, samples)?;
        }
        if groups.has(Group::Mig) {
            report.mig = self.mig.read(cx, handle, now, tally)?;
        }
        let wants_processes = cx.settings.processes || groups.has(Group::Process);
        if wants_processes || groups.has(Group::Utilization) {
            let total = get(&report.samples, Reading::MemoryTotal, 0);
            let running = self.processes.read(cx, handle, total, tally, &mut report.samples)?;
            if wants_processes {
                report.processes = self.processes.load(cx, handle, running, tally)?;
            }
        }
        self.warn(identity, tally);
        Ok(())
    }

    fn rows(
        &mut self,
        cx: &Context,
        now: Instant,
        turn: bool,
        cadence: &Cadence,
        tally: &mut Tally,
        samples: &mut Vec<Sample>,
    ) -> Result<(), Stop> {
        let (nvml, handle) = (&*cx.nvml, self.handle);
        let gpu = handle.device(nvml);
        let mut before = Support::Open;
        for entry in &mut self.entries {
            let previous = std::mem::replace(&mut before, entry.support);
            if entry.support != Support::Open
                || (entry.row.times == Times::Instead && previous != Support::Unsupported)
            {
                continue;
            }
            let waits = entry.due.is_some_and(|due| now < due) || (entry.row.tier == Tier::Turn && !turn);
            if waits {
                samples.extend_from_slice(&entry.last);
                continue;
            }
            let mut call = Call {
                nvml,
                gpu: &gpu,
                handle,
                throttle_bits: self.throttle_bits,
                before: samples,
                out: std::mem::take(&mut entry.last),
            };
            call.out.clear();
            let outcome = (entry.row.read)(&mut call, entry.arg);
            entry.last = call.out;
            tally.note(outcome.as_ref().err());
            match outcome {
                Ok(()) => {
                    entry.due = cadence.next(entry.row.tier, now);
                    samples.extend_from_slice(&entry.last);
                }
                Err(error) => {
                    entry.last.clear();
                    let error = stop(nvml, handle, error)?;
                    entry.support = match errors::class(&error) {
                        Class::Unsupported | Class::Invalid => {
                            tracing::debug!(call = entry.row.call, argument = entry.arg, %error, "a reading is not there");
                            Support::Unsupported
                        }
                        Class::Denied => Support::Denied,
                        _ => Support::Open,
                    };
                    before = entry.support;
                }
            }
        }
        Ok(())
    }

    /// Finds out anew what the device has.
    fn forget(&mut self) {
        for entry in &mut self.entries {
            entry.support = Support::Open;
            entry.due = None;
            entry.last.clear();
        }
        self.fields.forget();
        self.gpm = Gpm::new(self.handle, None);
        self.processes = Processes::default();
    }

    /// Says once of each kind of failure that it happens.
    fn warn(&mut self, identity: &Identity, tally: &Tally) {
        for (word, _) in &tally.errors {
            if !self.warned.contains(word) {
                self.warned.push(word);
                let hint = match *word {
                    "no_permission" => {
                        "some readings need more rights, such as CAP_SYS_ADMIN; they are left out"
                    }
                    "irq_issue" => "the kernel sees a problem with the device's interrupts",
                    "corrupted_inforom" => "the device's infoROM is damaged; other readings go on",
                    _ => "a reading failed; it is tried again",
                };
                tracing::warn!(gpu = &*identity.uuid, error = word, "{hint}");
            }
        }
    }

    fn probe(&self, cx: &Context) -> Vec<Probed> {
        let (nvml, handle) = (&*cx.nvml, self.handle);
        let gpu = handle.device(nvml);
        let mut probed = probe::fields(&self.fields, nvml, handle);
        for entry in &self.entries {
            let mut call = Call {
                nvml,
                gpu: &gpu,
                handle,
                throttle_bits: self.throttle_bits,
                before: &[],
                out: Vec::new(),
            };
            let outcome = (entry.row.read)(&mut call, entry.arg);
            let argument = match entry.row.times {
                Times::Once | Times::Instead => String::new(),
                Times::Each(_) | Times::Fans | Times::Links => format!("/{}", entry.arg),
            };
            probed.push(Probed::new(format!("{}{argument}", entry.row.call), outcome.map(|()| call.out)));
        }
        probed.extend(probe::others(nvml, handle));
        probed
    }
}

/// Whether the system has put the device to sleep; only sysfs is asked, which does not wake it.
pub(super) fn sleeps(sysfs: &Path, identity: &Identity) -> bool {
    let Some(bus) = identity.pci_bus_id.as_deref() else { return false };
    let status = sysfs.join("bus/pci/devices").join(short_bus_id(bus)).join("power/runtime_status");
    std::fs::read_to_string(status).is_ok_and(|status| status.trim() == "suspended")
}
