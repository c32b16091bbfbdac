//! What is read from GPUs, between whoever reads it and whoever makes telemetry of it.
//!
//! A [`Source`] reads devices: the driver's library, or a simulation. It lives on a thread of its own and may block as
//! long as the driver does. What it returns is complete: a reading that is taken less often than the others is repeated
//! until it is taken again, and one that the device does not have is not there. Values are in NVML's own units; the
//! [catalogue](super::catalogue) says what becomes of them.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

use crossbeam_channel::Sender;

pub use super::reading::{Group, Groups, Reading};
/// A number as the driver gives it: counts, bytes, degrees and flags are integers, means and ratios doubles.
pub use crate::pdata::template::Number as Value;

macro_rules! int_values {
    ($($ty:ty),*) => { $( impl From<$ty> for Value {
        fn from(n: $ty) -> Self {
            Value::Int(i64::from(n))
        }
    } )* };
}
int_values!(bool, i32, u32, i64);

impl From<u64> for Value {
    /// Counters beyond the range of the protocol's integers stay at its end.
    fn from(n: u64) -> Self {
        Value::Int(i64::try_from(n).unwrap_or(i64::MAX))
    }
}

impl From<f64> for Value {
    fn from(n: f64) -> Self {
        Value::Double(n)
    }
}

/// One value of a device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// What it is.
    pub reading: Reading,
    /// Which of several: a fan, a link, or a place in the reading's list of words.
    pub index: u16,
    /// The value, in the unit of the reading.
    pub value: Value,
}

/// What does not change while a driver is loaded, of the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Driver {
    /// `580.82.07`.
    pub version: String,
    /// NVML's own version.
    pub nvml: Option<String>,
    /// `13.0`.
    pub cuda: Option<String>,
}

/// Slices of compute on what NVIDIA has built so far, where the device does not say.
pub const COMPUTE_SLICES: u32 = 7;

/// What does not change while a driver is loaded, of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// `GPU-…`.
    pub uuid: Arc<str>,
    /// The number NVML has for it.
    pub index: u32,
    /// The product, such as `NVIDIA H200`.
    pub name: Arc<str>,
    /// Such as `00000000:19:00.0`.
    pub pci_bus_id: Option<String>,
    /// N of `/dev/nvidiaN`.
    pub minor: Option<u32>,
    /// Serial number of the board.
    pub serial: Option<String>,
    /// Version of the video BIOS.
    pub vbios: Option<String>,
    /// Such as `Hopper`.
    pub architecture: Option<String>,
    /// Such as `9.0`.
    pub compute_capability: Option<String>,
    /// Part number of the board.
    pub part_number: Option<String>,
    /// How it is shared with virtual machines, where it is.
    pub virtualization: Option<String>,
    /// The version of its links.
    pub nvlink_version: Option<u32>,
    /// Slices of compute that MIG can cut it into: 7 on what NVIDIA has built so far.
    pub compute_slices: u32,
}

impl Identity {
    /// A device that nothing is known of but its number.
    pub fn unknown(index: u32) -> Self {
        Identity {
            uuid: format!("index-{index}").into(),
            index,
            compute_slices: COMPUTE_SLICES,
            ..Identity::default()
        }
    }
}

// Things are told apart by their UUID; equality looks at the rest as well.
impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.uuid.hash(state);
    }
}

impl Hash for MigIdentity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.uuid.hash(state);
    }
}

impl Hash for Driver {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.version.hash(state);
    }
}

/// What came of reading a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It was read.
    Readable,
    /// The driver says it is lost or needs a reset.
    Lost,
    /// A call did not come back in time; the others go on.
    Hung,
    /// It sleeps, and reading it would wake it up.
    Asleep,
}

/// Everything about one device.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Which.
    pub identity: Arc<Identity>,
    /// Whether it could be read.
    pub state: State,
    /// What was read, each (reading, index) once, always in the same order while the device gives the same readings.
    pub samples: Vec<Sample>,
    /// Its MIG instances, while it has any.
    pub mig: Vec<MigReport>,
    /// Who runs on it, while that is read.
    pub processes: Vec<Process>,
    /// Calls that failed with something other than "not supported", by the error's word.
    pub errors: Vec<(&'static str, u32)>,
}

impl Report {
    /// A device of which nothing is known but its state.
    pub fn bare(identity: Arc<Identity>, state: State) -> Self {
        Report {
            identity,
            state,
            samples: Vec::new(),
            mig: Vec::new(),
            processes: Vec::new(),
            errors: Vec::new(),
        }
    }

    /// One value, if it was read.
    pub fn get(&self, reading: Reading, index: u16) -> Option<Value> {
        get(&self.samples, reading, index)
    }
}

/// One value among several.
pub fn get(samples: &[Sample], reading: Reading, index: u16) -> Option<Value> {
    samples.iter().find(|s| s.reading == reading && s.index == index).map(|s| s.value)
}

/// What does not change of a MIG instance while it exists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MigIdentity {
    /// `MIG-…`.
    pub uuid: Arc<str>,
    /// Such as `1g.18gb`.
    pub profile: Option<String>,
    /// The GPU instance.
    pub gpu_instance: u32,
    /// The compute instance within it.
    pub compute_instance: u32,
    /// Compute slices of the GPU instance.
    pub gpu_instance_slices: u32,
    /// Compute slices of the compute instance.
    pub compute_instance_slices: u32,
    /// Bytes of memory of the GPU instance.
    pub memory: u64,
}

/// Everything about one MIG instance.
#[derive(Debug, Clone, PartialEq)]
pub struct MigReport {
    /// Which.
    pub identity: Arc<MigIdentity>,
    /// What was read. Memory stands at the first compute instance of a GPU instance only: the others share it.
    pub samples: Vec<Sample>,
}

/// In which of NVML's lists a process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProcessKind {
    /// It computes.
    Compute,
    /// It draws.
    Graphics,
    /// It computes through MPS.
    Mps,
}

/// One process on a device.
#[derive(Debug, Clone, PartialEq)]
pub struct Process {
    /// Its number, in the namespace that the driver sees.
    pub pid: u32,
    /// In which list it stands; compute where it stands in several.
    pub kind: ProcessKind,
    /// Bytes of the device's memory.
    pub memory: Option<u64>,
    /// The GPU instance it runs in, under MIG.
    pub gpu_instance: Option<u32>,
    /// The compute instance it runs in, under MIG.
    pub compute_instance: Option<u32>,
    /// Percent of the time, mean of the samples since the last report; (sm, memory, encoder, decoder).
    pub load: [Option<f64>; 4],
}

/// Something that the driver told about by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The device.
    pub uuid: Arc<str>,
    /// What happened.
    pub kind: EventKind,
    /// Nanoseconds since 1970.
    pub time: u64,
    /// The GPU instance, under MIG.
    pub gpu_instance: Option<u32>,
    /// The compute instance, under MIG.
    pub compute_instance: Option<u32>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// An XID error, with its code.
    Xid(u64),
    /// An ECC error that could not be corrected.
    DoubleBitEcc,
    /// MIG instances were made or removed.
    MigChange,
    /// Another, with its bits.
    Other(u64),
}

/// What is there after a library was opened.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Inventory {
    /// The driver.
    pub driver: Arc<Driver>,
    /// The devices that can be asked, in the order of their numbers.
    pub devices: Vec<Arc<Identity>>,
    /// How many there are that may not be asked.
    pub denied: u32,
}

/// Why nothing can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// Why, as the value of `error.type`.
    pub reason: Reason,
    /// One sentence for the log.
    pub message: String,
}

/// Why nothing can be read, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// There is no library, as on nodes without GPUs.
    NoLibrary,
    /// The library is not one, or too old.
    BadLibrary,
    /// The driver is not loaded, or was unloaded.
    DriverNotLoaded,
    /// Library and driver have different versions.
    VersionMismatch,
    /// The system does not let us.
    NoPermission,
    /// The container has lost its devices; it must be made anew.
    AccessLost,
    /// The devices changed; they are looked for again.
    Changed,
    /// A call did not come back.
    Hung,
    /// Something else.
    Other,
}

impl Reason {
    /// The value of `error.type`.
    pub const fn word(self) -> &'static str {
        match self {
            Reason::NoLibrary => "no_library",
            Reason::BadLibrary => "bad_library",
            Reason::DriverNotLoaded => "driver_not_loaded",
            Reason::VersionMismatch => "version_mismatch",
            Reason::NoPermission => "no_permission",
            Reason::AccessLost => "access_lost",
            Reason::Changed => "changed",
            Reason::Hung => "hung",
            Reason::Other => "other",
        }
    }
}

/// The two readings that are worth taking often.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Glance {
    /// [`Reading::Busy`].
    pub busy: Option<f64>,
    /// [`Reading::Power`].
    pub power: Option<f64>,
}

/// Reads GPUs. One at a time is used, on a thread of its own; every call may block as long as the driver does.
///
/// An error of [`Source::read`] or [`Source::glance`] ends the generation: the source is closed, and opened again after
/// a while. What concerns one device alone is no error: it is a [`State`], or a reading less.
pub trait Source: Send {
    /// Opens the library and finds the devices, leaving alone those whose numbers are in `skip` (calls into them do
    /// not come back). `entering` is called with the number of a device before it is touched.
    ///
    /// # Errors
    /// Why there is nothing to read.
    fn open(&mut self, skip: &[u32], entering: &mut dyn FnMut(u32)) -> Result<Inventory, Closed>;

    /// Reads the device with this number of the inventory (its [`Identity::index`]).
    ///
    /// # Errors
    /// Why nothing can be read any more, of any device.
    fn read(&mut self, index: u32, now: Instant) -> Result<Report, Closed>;

    /// Reads what changes fastest.
    ///
    /// # Errors
    /// As [`Source::read`].
    fn glance(&mut self, index: u32) -> Result<Glance, Closed>;

    /// Gives back everything that was opened.
    fn close(&mut self);
}

/// Where a source's own threads put events. Closed when its source was given up, so that nobody tells twice.
#[derive(Debug, Clone)]
pub struct EventSink {
    to: Sender<Event>,
    open: Arc<AtomicBool>,
    wake: Arc<tokio::sync::Notify>,
}

impl EventSink {
    /// A sink into this channel, which must be bounded.
    pub fn new(to: Sender<Event>, wake: Arc<tokio::sync::Notify>) -> Self {
        EventSink { to, open: Arc::new(AtomicBool::new(true)), wake }
    }

    /// Hands an event on. When the channel is full the event stays with the caller for a later try.
    ///
    /// # Errors
    /// The event, when it cannot be taken now, or ever: see [`EventSink::is_open`].
    pub fn send(&self, event: Event) -> Result<(), Event> {
        if !self.is_open() {
            return Err(event);
        }
        self.to.try_send(event).map_err(crossbeam_channel::TrySendError::into_inner)?;
        self.wake.notify_one();
        Ok(())
    }

    /// Whether somebody still listens. A thread that finds this false ends.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Ends it for all clones.
    pub fn close(&self) {
        self.open.store(false, Ordering::Release);
    }
}

/// The time in nanoseconds since 1970.
pub(super) fn unix_nanos() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Makes a source that puts its events there.
pub type Factory = Arc<dyn Fn(EventSink) -> Box<dyn Source> + Send + Sync>;
