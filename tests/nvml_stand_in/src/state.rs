//! The state of one copy of the library, and the one path that every call takes.
//!
//! The path: count the call, see whether the library is up, find the device behind the handle, apply the fault, then
//! answer from the scenario. It is stricter than a driver: what a caller may not do is answered with an error **and**
//! written down as misuse, so that a test can ask for none.
//!
//! Costs a lock and a few look-ups a call, and one `stat` where the scenario is a file.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::scenario::{Device, Event, Fault, Scenario};

/// NVML's return codes, as far as the stand-in itself decides for one.
pub(crate) mod code {
    pub(crate) const SUCCESS: u32 = 0;
    pub(crate) const UNINITIALIZED: u32 = 1;
    pub(crate) const INVALID_ARGUMENT: u32 = 2;
    pub(crate) const NOT_SUPPORTED: u32 = 3;
    pub(crate) const NO_PERMISSION: u32 = 4;
    pub(crate) const NOT_FOUND: u32 = 6;
    pub(crate) const INSUFFICIENT_SIZE: u32 = 7;
    pub(crate) const TIMEOUT: u32 = 10;
    pub(crate) const GPU_IS_LOST: u32 = 15;
    pub(crate) const ARGUMENT_VERSION_MISMATCH: u32 = 25;
}

/// How long a blocked call sleeps before it looks for a changed scenario file.
const SLICE: Duration = Duration::from_millis(20);

/// First handle; far from what a pointer or a small number could be by accident.
const HANDLES: usize = 0x5447_4e56_0000;

/// Distance between two handles.
const STRIDE: usize = 16;

/// The instance, one per copy of the library.
pub(crate) static SHARED: Shared = Shared { state: Mutex::new(State::new()), changed: Condvar::new() };

pub(crate) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// What a device handle stands for.
#[derive(Clone, PartialEq)]
struct Handle {
    generation: u32,
    uuid: String,
}

/// An event on its way to a set.
pub(crate) struct Delivery {
    pub(crate) handle: usize,
    pub(crate) event: Event,
}

/// An event set.
#[derive(Default)]
pub(crate) struct EventSet {
    /// Event types by the UUID of the GPU.
    pub(crate) registered: BTreeMap<String, u64>,
    pub(crate) queue: VecDeque<Delivery>,
}

/// A GPM sample; what it was taken of, once it was.
#[derive(Default, Clone)]
pub(crate) struct Sample {
    pub(crate) of: Option<(String, Option<u32>)>,
    pub(crate) order: u64,
}

/// The scenario file and what it looked like when last read.
struct Watched {
    path: PathBuf,
    seen: Option<(SystemTime, u64, u64)>,
}

pub(crate) struct State {
    pub(crate) scenario: Scenario,
    watched: Option<Watched>,
    looked_for_file: bool,
    closed: bool,
    pub(crate) up: u32,
    generation: u32,
    inits: u64,
    shutdowns: u64,
    handles: Vec<Handle>,
    pub(crate) sets: BTreeMap<usize, EventSet>,
    pub(crate) samples: BTreeMap<usize, Sample>,
    objects: usize,
    events_seen: usize,
    events_missed: u64,
    calls: BTreeMap<String, u64>,
    threads: BTreeSet<i64>,
    hanging: u64,
    spent: BTreeMap<String, u32>,
    misuse: Vec<String>,
}

/// The device a call is about, as the scenario has it.
pub(crate) struct Target<'a> {
    pub(crate) device: &'a Device,
    pub(crate) index: usize,
    /// The GPU, where the device is a MIG instance.
    pub(crate) parent: Option<&'a Device>,
}

/// What a call is: its symbol and its arguments without handles and out-parameters.
pub(crate) struct Call<'a> {
    pub(crate) symbol: &'static str,
    pub(crate) args: &'a [u32],
    /// A fault of this name, behind the symbol, may differ from the symbol's own: `/fill` of a list.
    pub(crate) phase: Option<&'static str>,
}

impl<'a> Call<'a> {
    pub(crate) fn of(symbol: &'static str) -> Call<'a> {
        Call { symbol, args: &[], phase: None }
    }

    pub(crate) fn with(symbol: &'static str, args: &'a [u32]) -> Call<'a> {
        Call { symbol, args, phase: None }
    }

    /// From the most exact key to the plain symbol.
    fn keys(&self) -> Vec<String> {
        let mut keys = vec![self.symbol.to_owned()];
        if let Some(phase) = self.phase {
            keys.push(format!("{}/{phase}", self.symbol));
        }
        let mut key = self.symbol.to_owned();
        for arg in self.args {
            key = format!("{key}/{arg}");
            keys.push(key.clone());
        }
        keys.reverse();
        keys
    }
}

impl Device {
    /// The value of a call, by its most exact key.
    pub(crate) fn value(&self, call: &Call<'_>) -> Option<&Value> {
        call.keys().iter().find_map(|key| self.values.get(key))
    }
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps until something changed, at most for a moment: a changed file tells nobody.
    pub(crate) fn pause<'a>(&self, state: MutexGuard<'a, State>, most: Duration) -> MutexGuard<'a, State> {
        let (mut state, _) =
            self.changed.wait_timeout(state, most.min(SLICE)).unwrap_or_else(PoisonError::into_inner);
        state.refresh();
        state
    }

    /// Sleeps until something changed or the time is over.
    pub(crate) fn wait<'a>(&self, state: MutexGuard<'a, State>, most: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, most).unwrap_or_else(PoisonError::into_inner).0
    }

    pub(crate) fn notify(&self) {
        self.changed.notify_all();
    }

    /// A call without a device. `always` is for init, shutdown and frees: no `*` fault, no need to be up.
    pub(crate) fn global(&self, call: Call<'_>, always: bool, answer: impl FnOnce(&mut State) -> u32) -> u32 {
        let mut state = self.lock();
        state.enter(&call);
        self.notify();
        if !always && !state.is_up(&call) {
            return code::UNINITIALIZED;
        }
        let (mut state, fault) = self.faulted(state, &call, None, always);
        if fault != code::SUCCESS {
            return fault;
        }
        if !always && state.up == 0 {
            return code::UNINITIALIZED;
        }
        let code = answer(&mut state);
        drop(state);
        self.notify();
        code
    }

    /// A call on a device: `answer` gets the state to write misuse to, and the device's handle resolved.
    pub(crate) fn device(
        &self,
        call: Call<'_>,
        handle: usize,
        answer: impl FnOnce(&mut State, &Scenario, Target<'_>) -> u32,
    ) -> u32 {
        let mut state = self.lock();
        state.enter(&call);
        self.notify();
        if !state.is_up(&call) {
            return code::UNINITIALIZED;
        }
        let Some(of) = state.handle(handle).cloned() else {
            return state.misused(&call, "a handle that was never given out", code::INVALID_ARGUMENT);
        };
        if of.generation != state.generation {
            return state.misused(&call, "a handle of an earlier init", code::INVALID_ARGUMENT);
        }
        let (mut state, fault) = self.faulted(state, &call, Some(&of.uuid), false);
        if fault != code::SUCCESS {
            return fault;
        }
        if state.up == 0 || of.generation != state.generation {
            return code::UNINITIALIZED;
        }
        // Out of the state while the answer may write to it.
        let scenario = std::mem::take(&mut state.scenario);
        let code = match scenario.find(&of.uuid) {
            Some(target) => answer(&mut state, &scenario, target),
            None if of.uuid.starts_with("MIG-") => code::INVALID_ARGUMENT,
            None => code::GPU_IS_LOST,
        };
        state.scenario = scenario;
        code
    }

    /// Sits out delays and hangs, then says what the fault answers.
    fn faulted<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        call: &Call<'_>,
        uuid: Option<&str>,
        always: bool,
    ) -> (MutexGuard<'a, State>, u32) {
        let Some((_, first)) = state.fault(call, uuid, always, true) else { return (state, code::SUCCESS) };
        let entered = Instant::now();
        let mut fault = Some(first);
        let mut counted = false;
        let code = loop {
            let left = match &fault {
                _ if state.closed => break code::GPU_IS_LOST,
                None => break code::SUCCESS,
                Some(fault) if fault.hang => SLICE,
                Some(fault) => Duration::from_millis(fault.delay_ms).saturating_sub(entered.elapsed()),
            };
            if left.is_zero() {
                break fault.map_or(code::SUCCESS, |fault| fault.code);
            }
            if !std::mem::replace(&mut counted, true) {
                state.hanging += 1;
                self.notify();
            }
            state = self.pause(state, left);
            // A fault that was for this call only is spent by now, but still on this call.
            let now = state.fault(call, uuid, always, false).map(|(_, fault)| fault);
            fault = match (now, fault) {
                (None, Some(old)) if old.times.is_some() && state.has(call, uuid, always, &old) => Some(old),
                (now, _) => now,
            };
        };
        if counted {
            state.hanging -= 1;
        }
        (state, code)
    }
}

impl Scenario {
    /// The GPU or MIG instance of this UUID.
    pub(crate) fn find(&self, uuid: &str) -> Option<Target<'_>> {
        self.devices.iter().enumerate().find_map(|(index, device)| {
            if device.uuid == uuid {
                return Some(Target { device, index, parent: None });
            }
            let instance = device.mig.iter().flatten().find(|instance| instance.uuid == uuid)?;
            Some(Target { device: instance, index, parent: Some(device) })
        })
    }
}

impl State {
    const fn new() -> State {
        State {
            scenario: Scenario {
                driver_version: String::new(),
                values: BTreeMap::new(),
                faults: BTreeMap::new(),
                devices: Vec::new(),
                events: Vec::new(),
                hidden: Vec::new(),
                unknown_field_code: 0,
            },
            watched: None,
            looked_for_file: false,
            closed: false,
            up: 0,
            generation: 0,
            inits: 0,
            shutdowns: 0,
            handles: Vec::new(),
            sets: BTreeMap::new(),
            samples: BTreeMap::new(),
            objects: 0,
            events_seen: 0,
            events_missed: 0,
            calls: BTreeMap::new(),
            threads: BTreeSet::new(),
            hanging: 0,
            spent: BTreeMap::new(),
            misuse: Vec::new(),
        }
    }

    /// Takes a new scenario over; handles, sets and counts stay.
    pub(crate) fn load(&mut self, scenario: Scenario) {
        // A fault that is as it was goes on counting where it stood.
        let kept: BTreeMap<String, u32> = std::mem::take(&mut self.spent)
            .into_iter()
            .filter(|(key, _)| {
                let same = |s: &Scenario| s.fault_at(key).cloned();
                same(&scenario) == same(&self.scenario)
            })
            .collect();
        self.spent = kept;
        self.scenario = scenario;
        self.deliver();
    }

    /// Lets go of every blocked call, now and later.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    /// Whether calls must not block any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Reads the scenario file if it is there and looks different from last time.
    pub(crate) fn refresh(&mut self) {
        if !std::mem::replace(&mut self.looked_for_file, true) {
            self.watched = crate::files::scenario_file().map(|path| Watched { path, seen: None });
        }
        let Some(watched) = &mut self.watched else { return };
        let Some(seen) = crate::files::signature(&watched.path) else { return };
        if watched.seen == Some(seen) {
            return;
        }
        watched.seen = Some(seen);
        match crate::files::read(&watched.path) {
            Ok(scenario) => self.load(scenario),
            Err(e) => self.misuse.push(format!("scenario file: {e}")),
        }
    }

    /// Books a call. Every call passes here first.
    fn enter(&mut self, call: &Call<'_>) {
        self.refresh();
        self.count(call.symbol);
        // SAFETY: gettid takes nothing and cannot fail.
        self.threads.insert(unsafe { libc::syscall(libc::SYS_gettid) });
    }

    /// Books a call of a part of a call: a field, a GPM metric.
    pub(crate) fn count(&mut self, key: &str) {
        match self.calls.get_mut(key) {
            Some(count) => *count += 1,
            None => drop(self.calls.insert(key.to_owned(), 1)),
        }
    }

    fn is_up(&mut self, call: &Call<'_>) -> bool {
        if self.up == 0 {
            self.misused(call, "called while the library is not initialised", code::UNINITIALIZED);
        }
        self.up > 0
    }

    /// Writes down what a caller did wrong and answers `code`.
    pub(crate) fn misused(&mut self, call: &Call<'_>, what: &str, code: u32) -> u32 {
        if self.misuse.len() < 1000 {
            self.misuse.push(format!("{}: {what}", call.symbol));
        }
        code
    }

    /// The fault on a call, the device's before the library's, the exact before the general. `spend` counts the call.
    fn fault(
        &mut self,
        call: &Call<'_>,
        uuid: Option<&str>,
        always: bool,
        spend: bool,
    ) -> Option<(String, Fault)> {
        // Most devices have none, and there may be hundreds.
        let of_device = uuid.and_then(|uuid| self.scenario.find(uuid));
        if self.scenario.faults.is_empty() && of_device.is_none_or(|target| target.device.faults.is_empty()) {
            return None;
        }
        for place in places(call, uuid, always) {
            let Some(fault) = self.scenario.fault_at(&place).cloned() else { continue };
            let spent = self.spent.entry(place.clone()).or_default();
            let over = fault.times.is_some_and(|times| *spent >= fault.after + times);
            let early = *spent < fault.after;
            if spend && (early || !over) {
                *spent += 1;
            }
            if !early && !over {
                return Some((place, fault));
            }
        }
        None
    }

    /// Whether a fault is still written down for a call, spent or not.
    fn has(&self, call: &Call<'_>, uuid: Option<&str>, always: bool, fault: &Fault) -> bool {
        places(call, uuid, always).iter().any(|place| self.scenario.fault_at(place) == Some(fault))
    }

    /// What a part of a call answers by its faults: a field, a GPM metric.
    pub(crate) fn part_fault(&mut self, scenario: &Scenario, uuid: &str, call: &Call<'_>) -> u32 {
        if scenario.find(uuid).is_some_and(|target| target.device.faults.is_empty()) {
            return code::SUCCESS;
        }
        // The scenario is with the caller just now.
        let at = |place: &str| scenario.fault_at(place);
        for key in call.keys() {
            let place = format!("{uuid} {key}");
            let Some(fault) = at(&place) else { continue };
            let spent = self.spent.entry(place).or_default();
            *spent += 1;
            if *spent > fault.after && fault.times.is_none_or(|times| *spent <= fault.after + times) {
                return fault.code;
            }
        }
        code::SUCCESS
    }

    fn handle(&self, handle: usize) -> Option<&Handle> {
        let offset = handle.checked_sub(HANDLES)?;
        (offset % STRIDE == 0).then(|| self.handles.get(offset / STRIDE))?
    }

    /// The handle of a device in this generation; the same one every time.
    pub(crate) fn handle_of(&mut self, uuid: &str) -> usize {
        let wanted = Handle { generation: self.generation, uuid: uuid.to_owned() };
        let at = self.handles.iter().position(|handle| *handle == wanted).unwrap_or_else(|| {
            self.handles.push(wanted);
            self.handles.len() - 1
        });
        HANDLES + at * STRIDE
    }

    /// A number for a new event set or sample, in the form of a pointer.
    pub(crate) fn object(&mut self) -> usize {
        self.objects += 1;
        2 * HANDLES + self.objects * STRIDE
    }

    /// A count that only grows, to tell older from newer.
    pub(crate) fn next(&mut self) -> u64 {
        self.objects += 1;
        self.objects as u64
    }

    /// One more init.
    pub(crate) fn init(&mut self) -> u32 {
        if self.up == 0 {
            self.generation += 1;
        }
        self.up += 1;
        self.inits += 1;
        code::SUCCESS
    }

    /// One init taken back; the last one ends the generation and must leave nothing open.
    pub(crate) fn shutdown(&mut self, call: &Call<'_>) -> u32 {
        if self.up == 0 {
            return self.misused(call, "more shutdowns than inits", code::UNINITIALIZED);
        }
        self.up -= 1;
        self.shutdowns += 1;
        if self.up == 0 {
            for (left, what) in [(self.sets.len(), "event sets"), (self.samples.len(), "GPM samples")] {
                if left > 0 {
                    self.misused(call, &format!("{left} {what} not freed"), code::SUCCESS);
                }
            }
            self.sets.clear();
            self.samples.clear();
        }
        if let Some(watched) = &self.watched {
            crate::files::write_stats(&watched.path, &self.stats());
        }
        code::SUCCESS
    }

    /// Puts new events into the sets that watch for them.
    pub(crate) fn deliver(&mut self) {
        while let Some(event) = self.scenario.events.get(self.events_seen).cloned() {
            self.events_seen += 1;
            let uuid = self.scenario.devices.get(event.device).map(|device| device.uuid.clone());
            let Some(uuid) = uuid else { continue };
            let handle = self.handle_of(&uuid);
            let mut heard = false;
            for set in self.sets.values_mut() {
                let asked = set.registered.get(&uuid);
                if asked.is_some_and(|kinds| event.unasked || kinds & event.kind != 0) {
                    set.queue.push_back(Delivery { handle, event: event.clone() });
                    heard = true;
                }
            }
            self.events_missed += u64::from(!heard);
        }
    }

    /// How often a symbol was called.
    pub(crate) fn calls(&self, key: &str) -> u64 {
        match key {
            "hanging" => self.hanging,
            "inits" => self.inits,
            "shutdowns" => self.shutdowns,
            key => self.calls.get(key).copied().unwrap_or_default(),
        }
    }

    pub(crate) fn stats(&self) -> Value {
        json!({
            "calls": self.calls,
            "misuse": self.misuse,
            "up": self.up,
            "generation": self.generation,
            "inits": self.inits,
            "shutdowns": self.shutdowns,
            "event_sets": self.sets.len(),
            "gpm_samples": self.samples.len(),
            "events_missed": self.events_missed,
            "hanging": self.hanging,
            "threads": self.threads.len(),
        })
    }
}

impl Scenario {
    /// The fault at `<uuid> <key>`, or, with an empty UUID, at a key of the library.
    fn fault_at(&self, place: &str) -> Option<&Fault> {
        let (uuid, key) = place.split_once(' ')?;
        match uuid {
            "" => self.faults.get(key),
            uuid => self.find(uuid)?.device.faults.get(key),
        }
    }
}

/// Where a fault of a call may be written.
fn places(call: &Call<'_>, uuid: Option<&str>, always: bool) -> Vec<String> {
    let mut keys = call.keys();
    if !always {
        keys.push("*".to_owned());
    }
    let of = |uuid: &str| keys.iter().map(|key| format!("{uuid} {key}")).collect::<Vec<_>>();
    let mut places = uuid.map(of).unwrap_or_default();
    places.extend(of(""));
    places
}
