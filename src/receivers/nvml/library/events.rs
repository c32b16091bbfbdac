//! What the driver tells by itself: a thread that waits for XIDs and other events of all devices.
//!
//! The thread ends when it is told to or when nobody listens any more, at the latest after the wait it is in. It holds
//! the library open until then, so whoever closes the library waits for it, but not for ever. An event that nobody has
//! room for waits here; beyond a thousand the oldest are dropped, with a line in the log.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

use super::errors::{self, Class};
use super::raw::{self, EventSet, Handle, RawEvent};
use crate::pipeline::runtime::Supervisor;
use crate::receivers::nvml::model::{Event, EventKind, EventSink, unix_nanos};

/// How long one wait takes at most.
const WAIT_MS: u32 = 1000;
/// How long a set is left alone after it failed, at first and at most.
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(30);
/// After which time a device that could not be registered, for no lasting reason, is tried again.
const RETRY: Duration = if cfg!(test) { Duration::from_secs(1) } else { Duration::from_secs(60) };
/// How often a thread that only passes time looks whether it should end.
const TICK: Duration = Duration::from_millis(100);
/// How long closing waits for the thread.
const END_WITHIN: Duration = Duration::from_secs(2);
/// Events that wait for room.
const MOST_WAITING: usize = 1024;

const XID: u64 = 0x8;
const DOUBLE_BIT_ECC: u64 = 0x2;
const MIG_CHANGE: u64 = 0x100;
/// What is asked for, where a device can tell of it.
const WANTED: u64 = XID | DOUBLE_BIT_ECC | MIG_CHANGE;

/// A device whose events are waited for.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    /// It.
    pub(super) handle: Handle,
    /// Its name in events.
    pub(super) uuid: Arc<str>,
    /// Set when its MIG instances have changed.
    pub(super) mig_changed: Arc<AtomicBool>,
}

/// The thread of one generation.
#[derive(Debug)]
pub(super) struct Watcher {
    shared: Arc<Shared>,
    ended: Receiver<()>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    rebuild: AtomicBool,
    devices: Mutex<Vec<Watched>>,
}

/// What the thread works with.
struct Thread {
    shared: Arc<Shared>,
    sink: EventSink,
    waiting: VecDeque<Event>,
    dropped: u64,
}

impl Watcher {
    /// Starts it.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub(super) fn start(
        nvml: Arc<Nvml>,
        devices: Vec<Watched>,
        sink: EventSink,
        supervisor: &Supervisor,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { devices: Mutex::new(devices), ..Shared::default() });
        let (end, ended) = bounded::<()>(1);
        let thread = Thread { shared: Arc::clone(&shared), sink, waiting: VecDeque::new(), dropped: 0 };
        supervisor.thread("nvml-events", move || {
            let end: Sender<()> = end;
            thread.run(&nvml);
            // The library first: whoever waits for the end of this thread wants to close it.
            drop(nvml);
            drop(end);
        })?;
        Ok(Watcher { shared, ended })
    }

    /// Watches these from now on.
    pub(super) fn watch(&self, devices: Vec<Watched>) {
        *self.shared.devices.lock().unwrap_or_else(PoisonError::into_inner) = devices;
        self.shared.rebuild.store(true, Ordering::Release);
    }

    /// Ends the thread. False when it did not end in time.
    pub(super) fn end(self) -> bool {
        self.shared.stop.store(true, Ordering::Release);
        !matches!(self.ended.recv_timeout(END_WITHIN), Err(crossbeam_channel::RecvTimeoutError::Timeout))
    }
}

impl Thread {
    fn run(mut self, nvml: &Arc<Nvml>) {
        let mut back_off = FIRST_BACK_OFF;
        while self.goes_on() {
            self.shared.rebuild.store(false, Ordering::Release);
            let devices = self.shared.devices.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match register(nvml, &devices) {
                Ok(Registered { set, incomplete }) => {
                    let until = incomplete.then(|| Instant::now() + RETRY);
                    let Some(set) = set else {
                        // Nothing to wait for until other devices come.
                        while self.listens(until) {
                            self.pass(TICK);
                        }
                        continue;
                    };
                    if self.listen(nvml, &set, &devices, until) {
                        // A set that worked fails because of one device: the others are waited for again at once.
                        back_off = FIRST_BACK_OFF;
                        drop(set);
                        self.pass(TICK);
                        continue;
                    }
                }
                Err(error) => tracing::debug!(%error, "events cannot be waited for; it is tried again"),
            }
            if self.shared.rebuild.load(Ordering::Acquire) {
                continue;
            }
            self.pass(back_off);
            back_off = (back_off * 2).min(LONGEST_BACK_OFF);
        }
    }

    /// Waits with this set until it fails or another is wanted. True when it ever worked.
    fn listen(&mut self, nvml: &Nvml, set: &EventSet, devices: &[Watched], until: Option<Instant>) -> bool {
        let mut worked = false;
        while self.listens(until) {
            match set.wait(WAIT_MS) {
                Ok(event) => {
                    worked = true;
                    self.take(nvml, event, devices);
                }
                Err(NvmlError::Timeout) => worked = true,
                Err(error) => {
                    tracing::debug!(%error, "waiting for events failed; it begins anew");
                    // That a device is lost may be known a moment before the reason is told.
                    std::thread::sleep(TICK);
                    break;
                }
            }
            self.hand_on();
        }
        // The set is given up with what has come in the meantime: a lost device tells why it is lost.
        for _ in 0..MOST_WAITING {
            let Ok(event) = set.wait(0) else { break };
            self.take(nvml, event, devices);
        }
        self.hand_on();
        worked
    }

    fn take(&mut self, nvml: &Nvml, event: RawEvent, devices: &[Watched]) {
        let known = |handle: Handle| devices.iter().find(|device| device.handle == handle);
        // A handle that is not one of ours may be an instance's, or another name of a device.
        let by_uuid = |handle: Handle| {
            let uuid = handle.device(nvml).uuid().ok()?;
            devices.iter().find(|device| *device.uuid == *uuid)
        };
        let device = event.device.and_then(|handle| known(handle).or_else(|| by_uuid(handle)));
        let Some(device) = device else {
            tracing::warn!(kind = event.kind, data = event.data, "an event of a device that is not read");
            return;
        };
        let kind = kind_of(event.kind, event.data);
        if kind == EventKind::MigChange {
            device.mig_changed.store(true, Ordering::Release);
        }
        if self.waiting.len() >= MOST_WAITING {
            self.waiting.pop_front();
            self.dropped += 1;
            if self.dropped.is_power_of_two() {
                tracing::warn!(dropped = self.dropped, "GPU events come faster than they are taken");
            }
        }
        self.waiting.push_back(Event {
            uuid: Arc::clone(&device.uuid),
            kind,
            time: unix_nanos(),
            gpu_instance: event.gpu_instance,
            compute_instance: event.compute_instance,
        });
    }

    fn hand_on(&mut self) {
        while let Some(event) = self.waiting.pop_front() {
            if let Err(event) = self.sink.send(event) {
                self.waiting.push_front(event);
                return;
            }
        }
    }

    fn goes_on(&self) -> bool {
        !self.shared.stop.load(Ordering::Acquire) && self.sink.is_open()
    }

    /// Whether what was registered serves a while longer.
    fn listens(&self, until: Option<Instant>) -> bool {
        let in_time = until.is_none_or(|until| Instant::now() < until);
        in_time && self.goes_on() && !self.shared.rebuild.load(Ordering::Acquire)
    }

    fn pass(&mut self, time: Duration) {
        let mut left = time;
        while !left.is_zero() && self.goes_on() && !self.shared.rebuild.load(Ordering::Acquire) {
            let step = left.min(TICK);
            std::thread::sleep(step);
            left -= step;
            self.hand_on();
        }
    }
}

/// What came of registering devices.
struct Registered {
    /// A set with the events of all devices that can tell of any; `None` when there are no such devices.
    set: Option<EventSet>,
    /// Whether one is missing that may be there another time.
    incomplete: bool,
}

fn register(nvml: &Arc<Nvml>, devices: &[Watched]) -> Result<Registered, NvmlError> {
    let mut incomplete = false;
    let mut failed = |error: &NvmlError| {
        incomplete |= !matches!(errors::class(error), Class::Unsupported | Class::Denied | Class::Invalid);
    };
    let mut wanted: Vec<(Handle, u64)> = Vec::with_capacity(devices.len());
    for device in devices {
        match raw::event_types(nvml, device.handle) {
            Ok(types) if types & WANTED != 0 => wanted.push((device.handle, types & WANTED)),
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(gpu = &*device.uuid, %error, "a GPU tells of no events");
                failed(&error);
            }
        }
    }
    'anew: while !wanted.is_empty() {
        let set = EventSet::new(Arc::clone(nvml))?;
        let mut at = 0;
        while let Some((handle, kinds)) = wanted.get_mut(at) {
            let Err(error) = set.register(*handle, *kinds) else {
                at += 1;
                continue;
            };
            tracing::debug!(kinds, %error, "events of a GPU cannot be waited for");
            failed(&error);
            // To hear of MIG changes may need rights that XIDs do not.
            if *kinds & MIG_CHANGE != 0 && *kinds != MIG_CHANGE {
                *kinds &= !MIG_CHANGE;
            } else {
                wanted.remove(at);
            }
            if errors::class(&error) != Class::Unsupported {
                // Such an error leaves the set unusable, with all that is in it.
                continue 'anew;
            }
        }
        return Ok(Registered { set: (at > 0).then_some(set), incomplete });
    }
    Ok(Registered { set: None, incomplete })
}

fn kind_of(bits: u64, data: u64) -> EventKind {
    match bits {
        bits if bits & XID != 0 => EventKind::Xid(data),
        bits if bits & DOUBLE_BIT_ECC != 0 => EventKind::DoubleBitEcc,
        bits if bits & MIG_CHANGE != 0 => EventKind::MigChange,
        bits => EventKind::Other(bits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_and_kinds() {
        let table = [
            (0x8, 79, EventKind::Xid(79)),
            (0x2, 0, EventKind::DoubleBitEcc),
            (0x100, 0, EventKind::MigChange),
            (0x4000, 0, EventKind::Other(0x4000)),
        ];
        for (bits, data, expected) in table {
            assert_eq!(kind_of(bits, data), expected);
        }
    }
}
