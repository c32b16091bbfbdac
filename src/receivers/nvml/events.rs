//! What the driver tells by itself: counted, and written as log records.
//!
//! Counts are kept for each device and code and begin at 0 with the receiver. A log record says what happened to which
//! device, and whose it was then; where several containers had it, each of them gets a record of its own, so that each
//! tenant can be shown theirs.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::holders::Holder;
use super::model::{Event, EventKind, Identity};
use crate::pdata::template::{Attribute, Rendered, put_attribute};
use crate::pdata::wire::{put_bytes, put_tag, put_varint};

/// No node has so many; beyond it new codes are not counted apart.
const MOST_COUNTS: usize = 4096;

/// Severity numbers of log records.
const INFO: u64 = 9;
const WARN: u64 = 13;
const ERROR: u64 = 17;

/// A request of log records is not made larger than this by another event, in bytes.
const MOST_LOGGED: usize = 1 << 20;

/// All that was told so far.
#[derive(Debug, Default)]
pub struct Events {
    /// By device, code, and whose it was.
    pub xids: BTreeMap<(Arc<str>, u64, Option<Arc<Holder>>), u64>,
    /// When each code was last seen on each device, whosever it was, in seconds since 1970.
    pub last_seen: BTreeMap<(Arc<str>, u64), f64>,
    /// The last code of each device.
    pub last: BTreeMap<Arc<str>, u64>,
    /// By device and type.
    pub others: BTreeMap<(Arc<str>, &'static str), u64>,
    /// What these devices are called.
    names: BTreeMap<Arc<str>, Arc<str>>,
}

impl Events {
    /// Counts an event of a device of this name. The holder is given where there is exactly one.
    pub fn count(&mut self, event: &Event, name: Option<&Arc<str>>, holder: Option<Arc<Holder>>) {
        if let Some(name) = name
            && self.names.get(&event.uuid) != Some(name)
        {
            self.names.insert(event.uuid.clone(), name.clone());
        }
        match event.kind {
            EventKind::Xid(code) => {
                self.last.insert(event.uuid.clone(), code);
                self.last_seen.insert((event.uuid.clone(), code), event.time as f64 / 1e9);
                let mut key = (event.uuid.clone(), code, holder);
                if self.xids.len() >= MOST_COUNTS && !self.xids.contains_key(&key) {
                    key.2 = None;
                }
                *self.xids.entry(key).or_default() += 1;
            }
            other => *self.others.entry((event.uuid.clone(), word(other))).or_default() += 1,
        }
    }

    /// What a device is called that something was told of.
    pub fn name(&self, uuid: &Arc<str>) -> Option<Arc<str>> {
        self.names.get(uuid).cloned()
    }
}

/// The value of `nvidia.gpu.event.type`.
pub fn word(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Xid(_) => "xid",
        EventKind::DoubleBitEcc => "double_bit_ecc",
        EventKind::MigChange => "mig_change",
        EventKind::Other(_) => "other",
    }
}

/// A device to which something happened, and those who had it.
pub struct Scene<'a> {
    /// The device, if it is known.
    pub device: Option<&'a Identity>,
    /// The node.
    pub node: &'a str,
    /// Each container and its tenant.
    pub holders: &'a [(Arc<Holder>, Arc<str>)],
}

/// Log records that go into one request.
#[derive(Debug, Default)]
pub struct Log {
    records: Vec<u8>,
    count: usize,
}

impl Log {
    /// Adds the records of an event. `now` is in nanoseconds since 1970.
    pub fn add(&mut self, event: &Event, scene: &Scene<'_>, now: u64) {
        if scene.holders.is_empty() {
            put_bytes(&mut self.records, 2, &record(event, scene, None, now));
        }
        for holder in scene.holders {
            put_bytes(&mut self.records, 2, &record(event, scene, Some(holder), now));
        }
        self.count += scene.holders.len().max(1);
    }

    /// Whether the next event should go into another request.
    pub fn is_full(&self) -> bool {
        self.records.len() >= MOST_LOGGED
    }

    /// The request with all that was added since the last one. `resource` and `scope` are encoded messages.
    pub fn finish(&mut self, resource: &[u8], scope: &[u8]) -> Rendered {
        let Log { records, count } = std::mem::take(self);
        let mut scoped = Vec::with_capacity(records.len() + scope.len() + 8);
        put_bytes(&mut scoped, 1, scope);
        scoped.extend_from_slice(&records);
        let mut group = Vec::with_capacity(scoped.len() + resource.len() + 16);
        put_bytes(&mut group, 1, resource);
        put_bytes(&mut group, 2, &scoped);
        let mut request = Vec::with_capacity(group.len() + 8);
        put_bytes(&mut request, 1, &group);
        Rendered { request: request.into(), points: count }
    }
}

fn record(event: &Event, scene: &Scene<'_>, holder: Option<&(Arc<Holder>, Arc<str>)>, now: u64) -> Vec<u8> {
    let (severity, text) = match event.kind {
        EventKind::Xid(code) => xid(code),
        EventKind::DoubleBitEcc => (ERROR, "an ECC error that could not be corrected"),
        EventKind::MigChange => (INFO, "MIG instances were made or removed"),
        EventKind::Other(_) => (INFO, "an event of the driver"),
    };
    let name = scene.device.map_or("GPU", |device| &device.name);
    let what = match event.kind {
        EventKind::Xid(code) if text.is_empty() => format!("XID {code}"),
        EventKind::Xid(code) => format!("XID {code}: {text}"),
        _ => text.to_owned(),
    };
    let body = format!("{name} {}: {what}", event.uuid);

    let mut out = Vec::with_capacity(512);
    put_tag(&mut out, 1, 1);
    out.extend_from_slice(&event.time.to_le_bytes());
    put_tag(&mut out, 2, 0);
    put_varint(&mut out, severity);
    let word_of = match severity {
        ERROR => "ERROR",
        WARN => "WARN",
        _ => "INFO",
    };
    put_bytes(&mut out, 3, word_of.as_bytes());
    let mut value = Vec::new();
    put_bytes(&mut value, 1, body.as_bytes());
    put_bytes(&mut out, 5, &value);
    let mut text = |key: &str, value: &str| put_attribute(&mut out, 6, key, Attribute::Str(value));
    text("hw.id", &event.uuid);
    text("nvidia.gpu.event.type", word(event.kind));
    text("node", scene.node);
    if let Some(device) = scene.device {
        text("hw.name", &device.name);
        if let Some(bus) = &device.pci_bus_id {
            text("nvidia.gpu.pci.bus_id", bus);
        }
    }
    if let Some((holder, tenant)) = holder {
        for (key, value) in super::emit::holder_attributes(holder) {
            text(key, value);
        }
        text("gpu.tenant", tenant);
    }
    let mut number = |key: &str, value: u64| {
        put_attribute(&mut out, 6, key, Attribute::Int(i64::try_from(value).unwrap_or(i64::MAX)));
    };
    match event.kind {
        EventKind::Xid(code) => number("nvidia.gpu.xid", code),
        EventKind::Other(bits) => number("nvidia.gpu.event.bits", bits),
        EventKind::DoubleBitEcc | EventKind::MigChange => {}
    }
    if let Some(device) = scene.device {
        number("nvidia.gpu.index", device.index.into());
    }
    for (key, id) in [
        ("nvidia.gpu.mig.gpu_instance_id", event.gpu_instance),
        ("nvidia.gpu.mig.compute_instance_id", event.compute_instance),
    ] {
        if let Some(id) = id {
            number(key, id.into());
        }
    }
    put_tag(&mut out, 11, 1);
    out.extend_from_slice(&now.to_le_bytes());
    let name: &[u8] = match event.kind {
        EventKind::Xid(_) => b"nvidia.gpu.xid",
        _ => b"nvidia.gpu.event",
    };
    put_bytes(&mut out, 12, name);
    out
}

/// How bad an XID is, and what it means. Classes follow NVIDIA's catalogue: what needs a reset, a reboot or a person is an
/// error, what an application causes a warning.
fn xid(code: u64) -> (u64, &'static str) {
    let severity = match code {
        46
        | 48
        | 54
        | 62
        | 64
        | 74
        | 78
        | 79
        | 95
        | 109
        | 110
        | 119
        | 120
        | 136
        | 140
        | 143..=151
        | 154..=156
        | 158
        | 162..=172 => ERROR,
        14
        | 37
        | 38
        | 43
        | 44
        | 63
        | 66
        | 67
        | 92
        | 93
        | 106..=108
        | 121
        | 137
        | 141
        | 152
        | 153
        | 157
        | 160
        | 161 => INFO,
        _ => WARN,
    };
    let text = match code {
        13 => "a kernel caused an exception",
        31 => "a kernel touched memory that is not its own",
        32 => "a corrupt command stream",
        38 => "the driver's firmware failed",
        43 => "an application was stopped after an error of its own",
        45 => "an application's work was cleaned away",
        46 => "the GPU stopped working",
        48 => "an ECC error that could not be corrected",
        61 | 62 => "the GPU's own controller failed",
        63 => "a memory page or row is taken out of use at the next reset",
        64 => "a memory page or row could not be taken out of use",
        74 => "an NVLink error",
        79 => "the GPU fell off the bus",
        92 => "many ECC errors that were corrected",
        94 => "an ECC error that only its application had to pay for",
        95 => "an ECC error that all applications have to pay for",
        109 => "switching between applications took too long",
        119 => "the GPU's system processor does not answer",
        120 => "the GPU's system processor failed",
        140 => "an ECC error that was not recovered from",
        143 => "the GPU could not be initialised",
        154 => "what the GPU needs to recover has changed",
        _ => "",
    };
    (severity, text)
}
