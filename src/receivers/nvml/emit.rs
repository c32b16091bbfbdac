//! From readings, accounts and events to a metrics request.
//!
//! Points are made in the same order each time as long as the same things are there, so that the
//! [template](crate::pdata::template) only writes numbers over numbers. A [`Thing`] is what a point is of; it has a
//! number while it is seen, found once for all of its points. Names and attributes are looked at only when something
//! comes or goes.
//!
//! Costs: per sample two array accesses and some thirty bytes written, per thing one look-up; no allocation while
//! nothing changes.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use super::accounts::{Payer, Row};
use super::catalogue::{Made, Row as TableRow, Table, Who};
use super::config::GpuId;
use super::holders::Holder;
use super::model::{Driver, Identity, MigIdentity, Process, ProcessKind, Report, Sample, Value};
use crate::pdata::template::{
    Attribute, Describe, Head, Key, Kind, Point, Rendered, Template, put_point_attribute,
};

/// How many numbers of things that are gone are kept beyond those in use.
const SPARE: usize = 64;

/// What points are of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Thing {
    /// The receiver on this node, and one of several states, errors or the like.
    Node(&'static str),
    /// A GPU.
    Device(Arc<Identity>),
    /// All that there is to say of a GPU.
    Info(Arc<Identity>, Arc<Driver>),
    /// A MIG instance of a GPU.
    Mig(Arc<Identity>, Arc<MigIdentity>),
    /// All that there is to say of a MIG instance.
    MigInfo(Arc<Identity>, Arc<MigIdentity>),
    /// A process on a GPU or in GPU and compute instances of it, and whose it is if that is known.
    Process(Arc<Identity>, u32, ProcessKind, (Option<u32>, Option<u32>), Option<Arc<Holder>>),
    /// An XID error of a GPU with this name, and whose the GPU was then.
    Xid(Arc<str>, Option<Arc<str>>, u64, Option<Arc<Holder>>),
    /// Another event of a GPU with this name.
    Event(Arc<str>, Option<Arc<str>>, &'static str),
    /// What a container holds, whose tenant it is, and how that is known.
    Allocation(Arc<str>, Option<Arc<str>>, Option<Arc<Holder>>, Arc<Payer>, &'static str),
    /// A payer's account on a GPU of this model.
    Account(Arc<Payer>, Arc<str>, Arc<str>),
    /// A GPU of this model.
    Gpu(Arc<str>, Arc<str>),
    /// A model.
    Model(Arc<str>),
}

/// What is the same on many points.
#[derive(Debug, Clone)]
pub struct Common {
    /// The node.
    pub node: String,
    /// What stands in `gpu_id`.
    pub gpu_id: GpuId,
    /// What prices are in.
    pub currency: String,
}

/// Makes requests. One for each receiver.
pub struct Emit {
    table: Table,
    common: Common,
    things: Things,
    points: Vec<Point>,
    template: Template,
}

impl Emit {
    /// With these metrics.
    pub fn new(table: Table, common: Common) -> Self {
        Emit { table, common, things: Things::default(), points: Vec::new(), template: Template::default() }
    }

    /// Everything read of a device and its instances.
    pub fn report(&mut self, report: &Report) {
        let device = self.things.number(&Thing::Device(report.identity.clone()));
        for sample in &report.samples {
            for (number, row) in self.table.of(sample.reading) {
                put(&mut self.points, number, row, device, *sample);
            }
        }
        for mig in &report.mig {
            let thing = self.things.number(&Thing::Mig(report.identity.clone(), mig.identity.clone()));
            for sample in &mig.samples {
                for (number, row) in self.table.of(sample.reading) {
                    let ours = |who| matches!(who, Who::Device | Who::TypedDevice);
                    if self.table.metric(row).is_some_and(|metric| ours(metric.who)) {
                        put(&mut self.points, number, row, thing, *sample);
                    }
                }
            }
        }
    }

    /// A process on a device.
    pub fn process(&mut self, device: &Arc<Identity>, process: &Process, holder: Option<Arc<Holder>>) {
        let on = (process.gpu_instance, process.compute_instance);
        let thing = Thing::Process(device.clone(), process.pid, process.kind, on, holder);
        if let Some(memory) = process.memory {
            self.made(Made::ProcessMemory, &thing, memory);
        }
        for (index, load) in (0..).zip(process.load) {
            if let Some(load) = load {
                self.point(Made::ProcessLoad, &thing, index, load.into(), 0);
            }
        }
    }

    /// An account's sums.
    pub fn account(&mut self, row: &Row) {
        let (payer, gpu, model) = row.shared();
        let thing = Thing::Account(payer.clone(), gpu.clone(), model.clone());
        let sums = [
            (Made::TenantAllocated, Some(row.allocated())),
            (Made::TenantBusy, row.busy()),
            (Made::TenantEnergy, row.energy()),
            (Made::TenantCost, row.cost()),
        ];
        for (made, sum) in sums {
            if let Some(sum) = sum {
                self.point(made, &thing, 0, sum.into(), row.start());
            }
        }
    }

    /// A value of our own making.
    pub fn made(&mut self, made: Made, thing: &Thing, value: impl Into<Value>) {
        self.point(made, thing, 0, value.into(), 0);
    }

    /// A count of our own making, since `start` in nanoseconds since 1970.
    pub fn count(&mut self, made: Made, thing: &Thing, value: impl Into<Value>, start: u64) {
        self.point(made, thing, 0, value.into(), start);
    }

    /// The request with everything since the last one.
    pub fn finish(&mut self, time: u64, resource: &[u8], scope: &[u8]) -> Rendered {
        let describe = Names { table: &self.table, common: &self.common, things: &self.things };
        let rendered = self.template.render(&self.points, time, resource, scope, &describe);
        self.points.clear();
        self.things.next();
        rendered
    }

    fn point(&mut self, made: Made, thing: &Thing, index: u16, value: Value, start: u64) {
        let thing = self.things.number(thing);
        for (number, row) in self.table.made(made) {
            if row.from.labels.takes(index) {
                let value = row.from.scale.apply(value);
                self.points.push(Point { key: key(number, index, thing), value, start });
            }
        }
    }
}

#[inline]
fn put(points: &mut Vec<Point>, number: u16, row: &TableRow, thing: u32, sample: Sample) {
    if row.from.labels.takes(sample.index) {
        let value = row.from.scale.apply(sample.value);
        points.push(Point { key: key(number, sample.index, thing), value, start: 0 });
    }
}

/// Row, index and thing in one number.
#[inline]
fn key(row: u16, index: u16, thing: u32) -> Key {
    u64::from(row) << 48 | u64::from(index) << 32 | u64::from(thing)
}

fn parts(key: Key) -> (u16, u16, u32) {
    ((key >> 48) as u16, (key >> 32) as u16, key as u32)
}

/// Numbers of things.
#[derive(Debug, Default)]
struct Things {
    numbers: HashMap<Thing, Seen>,
    by_number: HashMap<u32, Thing>,
    next: u32,
    round: u64,
    in_round: usize,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    number: u32,
    round: u64,
}

impl Things {
    fn number(&mut self, thing: &Thing) -> u32 {
        let round = self.round;
        if let Some(seen) = self.numbers.get_mut(thing) {
            if seen.round != round {
                seen.round = round;
                self.in_round += 1;
            }
            return seen.number;
        }
        let number = self.next;
        // Four billion things later the first are long gone.
        self.next = self.next.wrapping_add(1);
        self.numbers.insert(thing.clone(), Seen { number, round });
        self.by_number.insert(number, thing.clone());
        self.in_round += 1;
        number
    }

    /// Ends a round. What was not seen in it is forgotten once there is too much of it.
    fn next(&mut self) {
        if self.numbers.len() > self.in_round + SPARE {
            let round = self.round;
            self.numbers.retain(|_, seen| seen.round == round);
            let numbers: std::collections::HashSet<u32> =
                self.numbers.values().map(|seen| seen.number).collect();
            self.by_number.retain(|number, _| numbers.contains(number));
        }
        self.round += 1;
        self.in_round = 0;
    }
}

/// What keys mean.
struct Names<'a> {
    table: &'a Table,
    common: &'a Common,
    things: &'a Things,
}

impl Describe for Names<'_> {
    fn head(&self, key: Key) -> Head<'_> {
        let row = self.table.rows.get(usize::from(parts(key).0));
        let metric = row.and_then(|row| self.table.metric(row));
        Head {
            number: row.map_or(u32::MAX, |row| row.metric.into()),
            name: metric.map_or("", |metric| metric.name),
            unit: metric.map_or("", |metric| metric.unit),
            description: metric.map_or("", |metric| metric.about),
            kind: metric.map_or(Kind::Gauge, |metric| metric.shape),
        }
    }

    fn attributes(&self, key: Key, out: &mut Vec<u8>) {
        let (row, index, thing) = parts(key);
        let Some(row) = self.table.rows.get(usize::from(row)) else { return };
        let (Some(metric), Some(thing)) = (self.table.metric(row), self.things.by_number.get(&thing)) else {
            return;
        };
        let mut put = Put(out);
        match thing {
            Thing::Device(device) => self.device(metric.who, device, index, &mut put),
            Thing::Mig(device, mig) => {
                put.text("hw.id", &mig.uuid);
                put.text("hw.name", &device.name);
                put.text("hw.parent", &device.uuid);
                if metric.who == Who::TypedDevice {
                    put.text("hw.type", "gpu");
                }
            }
            other => self.own(row.from.origin, other, &mut put),
        }
        if metric.who != Who::Fan {
            row.from.labels.each(index, |key, label| put_point_attribute(put.0, key, label));
        }
    }
}

impl Names<'_> {
    fn device(&self, who: Who, device: &Identity, index: u16, put: &mut Put<'_>) {
        let gpu_id = |put: &mut Put<'_>| match self.common.gpu_id {
            GpuId::Uuid => put.text("gpu_id", &device.uuid),
            GpuId::Index => put.text("gpu_id", &device.index.to_string()),
        };
        match who {
            Who::Device | Who::Own => {
                put.text("hw.id", &device.uuid);
                put.text("hw.name", &device.name);
            }
            Who::TypedDevice => {
                put.text("hw.id", &device.uuid);
                put.text("hw.name", &device.name);
                put.text("hw.type", "gpu");
            }
            Who::Fan => {
                put.text("hw.id", &format!("{}/fan{index}", device.uuid));
                put.text("hw.parent", &device.uuid);
            }
            Who::Legacy => {
                gpu_id(put);
                put.text("node", &self.common.node);
            }
            Who::LegacyNamed => {
                gpu_id(put);
                put.text("gpu_name", &device.name);
            }
            Who::Dcgm => {
                put.text("gpu", &device.index.to_string());
                put.text("UUID", &device.uuid);
                put.optional("pci_bus_id", device.pci_bus_id.as_deref());
                put.text("device", &format!("nvidia{}", device.minor.unwrap_or(device.index)));
                put.text("modelName", &device.name);
                put.text("Hostname", &self.common.node);
            }
        }
    }

    /// The attributes of what is no device.
    fn own(&self, origin: super::catalogue::Origin, thing: &Thing, put: &mut Put<'_>) {
        let made = match origin {
            super::catalogue::Origin::Made(made) => Some(made),
            super::catalogue::Origin::Read(_) => None,
        };
        match thing {
            Thing::Device(_) | Thing::Mig(..) => {}
            Thing::MigInfo(device, mig) => {
                put.text("hw.id", &mig.uuid);
                put.text("hw.name", &device.name);
                put.text("hw.parent", &device.uuid);
                put.optional("nvidia.gpu.mig.profile", mig.profile.as_deref());
                put.number("nvidia.gpu.mig.gpu_instance_id", mig.gpu_instance.into());
                put.number("nvidia.gpu.mig.compute_instance_id", mig.compute_instance.into());
                put.number("nvidia.gpu.mig.slices", mig.compute_instance_slices.into());
            }
            Thing::Node(word) => {
                put.text("node", &self.common.node);
                match made {
                    Some(Made::DeviceCount) => put.text("state", word),
                    Some(Made::ReadErrors) => put.text("error.type", word),
                    _ => {}
                }
            }
            Thing::Info(device, driver) => {
                put.text("hw.id", &device.uuid);
                put.text("hw.name", &device.name);
                put.text("hw.model", &device.name);
                put.text("hw.vendor", "NVIDIA");
                put.optional("hw.serial_number", device.serial.as_deref());
                put.optional(
                    "hw.driver_version",
                    Some(&*driver.version).filter(|version| !version.is_empty()),
                );
                put.optional("hw.firmware_version", device.vbios.as_deref());
                put.number("nvidia.gpu.index", device.index.into());
                put.optional("nvidia.gpu.pci.bus_id", device.pci_bus_id.as_deref());
                if let Some(minor) = device.minor {
                    put.number("nvidia.gpu.minor_number", minor.into());
                }
                put.optional("nvidia.cuda.version", driver.cuda.as_deref());
                put.optional("nvidia.gpu.architecture", device.architecture.as_deref());
                put.optional("nvidia.gpu.compute_capability", device.compute_capability.as_deref());
                put.optional("nvidia.gpu.board_part_number", device.part_number.as_deref());
                put.optional("nvidia.gpu.virtualization", device.virtualization.as_deref());
                if let Some(version) = device.nvlink_version {
                    put.number("nvidia.gpu.nvlink.version", version.into());
                }
                put.text("node", &self.common.node);
            }
            Thing::Process(device, pid, kind, (gpu_instance, compute_instance), holder) => {
                put.text("hw.id", &device.uuid);
                put.text("hw.name", &device.name);
                put.number("process.pid", (*pid).into());
                let kind = match kind {
                    ProcessKind::Compute => "compute",
                    ProcessKind::Graphics => "graphics",
                    ProcessKind::Mps => "mps",
                };
                put.text("nvidia.gpu.process.type", kind);
                for (key, id) in [
                    ("nvidia.gpu.mig.gpu_instance_id", gpu_instance),
                    ("nvidia.gpu.mig.compute_instance_id", compute_instance),
                ] {
                    if let Some(id) = id {
                        put.number(key, (*id).into());
                    }
                }
                put.holder(holder.as_deref());
            }
            Thing::Xid(uuid, name, code, holder) => {
                put.text("hw.id", uuid);
                put.optional("hw.name", name.as_deref());
                put.number("nvidia.gpu.xid", i64::try_from(*code).unwrap_or(i64::MAX));
                put.holder(holder.as_deref());
            }
            Thing::Event(uuid, name, word) => {
                put.text("hw.id", uuid);
                put.optional("hw.name", name.as_deref());
                put.text("nvidia.gpu.event.type", word);
            }
            Thing::Allocation(uuid, mig, holder, payer, evidence) => {
                put.text("hw.id", uuid);
                put.optional("nvidia.gpu.mig.uuid", mig.as_deref());
                put.holder(holder.as_deref());
                put.text("gpu.tenant", &payer.tenant);
                put.text("gpu.allocation.source", evidence);
            }
            Thing::Account(payer, uuid, model) => {
                put.text("gpu.tenant", &payer.tenant);
                put.optional("k8s.namespace.name", payer.namespace.as_deref());
                put.optional("k8s.pod.name", payer.pod.as_deref());
                put.text("hw.id", uuid);
                put.text("gpu.model", model);
                if made == Some(Made::TenantCost) {
                    put.text("currency", &self.common.currency);
                }
            }
            Thing::Gpu(uuid, model) => {
                put.text("hw.id", uuid);
                put.text("gpu.model", model);
            }
            Thing::Model(model) => {
                put.text("gpu.model", model);
                put.text("currency", &self.common.currency);
            }
        }
    }
}

/// Writes attributes of a point.
struct Put<'a>(&'a mut Vec<u8>);

impl Put<'_> {
    /// What is not known is not there.
    fn text(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            put_point_attribute(self.0, key, Attribute::Str(value));
        }
    }

    fn number(&mut self, key: &str, value: i64) {
        put_point_attribute(self.0, key, Attribute::Int(value));
    }

    fn optional(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    fn holder(&mut self, holder: Option<&Holder>) {
        let Some(holder) = holder else { return };
        for (key, value) in holder_attributes(holder) {
            self.text(key, value);
        }
    }
}

/// What is known of a container, as attributes.
pub fn holder_attributes(holder: &Holder) -> impl Iterator<Item = (&'static str, &str)> {
    let uid = holder.uid.as_deref().unwrap_or_default();
    let all = [
        ("k8s.namespace.name", holder.namespace.as_str()),
        ("k8s.pod.name", holder.pod.as_str()),
        ("k8s.container.name", holder.container.as_str()),
        ("k8s.pod.uid", uid),
    ];
    all.into_iter().filter(|(_, value)| !value.is_empty())
}
