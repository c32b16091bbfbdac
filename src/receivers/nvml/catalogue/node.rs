//! Metrics that are made here: of the receiver, of events, of processes, of who holds what.

use super::Labels::Word;
use super::Made as M;
use super::Shape::{Counter, Gauge, UpDown};
use super::Who::{Device, Own};
use super::{Metric, made};

macro_rules! metric {
    ($name:literal, $unit:literal, $shape:expr, $who:expr, $about:literal, [$($from:expr),+ $(,)?]) => {
        Metric { name: $name, unit: $unit, shape: $shape, who: $who, about: $about, from: &[$($from),+] }
    };
}

/// The list.
#[rustfmt::skip]
pub const NODE: &[Metric] = &[
    metric!("nvidia.gpu.up", "1", UpDown, Device, "Whether the device was read in the last collection.",
        [made(M::Up)]),
    metric!("nvidia.gpu.info", "1", UpDown, Own, "What the device is; always 1.", [made(M::Info)]),
    metric!("nvidia.gpu.mig.info", "1", UpDown, Own, "What the MIG instance is; always 1.", [made(M::MigInfo)]),
    metric!("nvidia.gpu.collection.success", "1", UpDown, Own, "Whether the driver can be asked.",
        [made(M::CollectionSuccess)]),
    metric!("nvidia.gpu.collection.duration", "s", Gauge, Own, "How long the last collection took.",
        [made(M::CollectionDuration)]),
    metric!("nvidia.gpu.collection.last_success", "s", Gauge, Own, "When a collection last read a device: Unix time.",
        [made(M::CollectionLastSuccess)]),
    metric!("nvidia.gpu.device.count", "{gpu}", UpDown, Own, "Devices of the node by state.", [made(M::DeviceCount)]),
    metric!("nvidia.gpu.nvml.generation", "{init}", Counter, Own, "Times the driver's library was opened.",
        [made(M::Generation)]),
    metric!("nvidia.gpu.read.errors", "{error}", Counter, Own,
        "Calls that failed; those that the device does not support are not counted.", [made(M::ReadErrors)]),
    metric!("nvidia.gpu.xid.events", "{event}", Counter, Own, "XID errors by code.", [made(M::XidEvents)]),
    metric!("nvidia.gpu.xid.last_seen", "s", Gauge, Own, "When the XID error was last seen: Unix time.",
        [made(M::XidLastSeen)]),
    metric!("nvidia.gpu.events", "{event}", Counter, Own, "Other events of the driver, by type.", [made(M::Events)]),
    metric!("nvidia.gpu.process.memory.usage", "By", UpDown, Own, "Memory of the device that the process holds.",
        [made(M::ProcessMemory)]),
    metric!("nvidia.gpu.process.utilization", "1", Gauge, Own, "Part of the time in which the engine worked for the process.",
        [made(M::ProcessLoad).per(100.0).by(Word("hw.gpu.task", &["sm", "memory", "encoder", "decoder"]))]),
    metric!("nvidia.gpu.allocation.share", "1", Gauge, Own, "Part of the physical GPU that the container holds.",
        [made(M::AllocationShare)]),
    metric!("nvidia.gpu.allocation.busy", "1", Gauge, Own, "Part of the physical GPU that was busy for the container.",
        [made(M::AllocationBusy)]),
    metric!("gpu.tenant.allocated_time", "s", Counter, Own, "GPU time that the tenant held.",
        [made(M::TenantAllocated)]),
    metric!("gpu.tenant.busy_time", "s", Counter, Own, "GPU time in which GPUs worked for the tenant.",
        [made(M::TenantBusy)]),
    metric!("gpu.tenant.energy", "J", Counter, Own, "Energy of what the tenant held.", [made(M::TenantEnergy)]),
    metric!("gpu.tenant.cost", "{currency}", Counter, Own,
        "What the tenant's GPU time cost, at the prices of the time.", [made(M::TenantCost)]),
    metric!("gpu.tenant.unaccounted_time", "s", Counter, Own,
        "GPU time that is in no account: gaps between collections, devices that could not be read.",
        [made(M::Unaccounted)]),
    metric!("gpu.price_per_hour", "", Gauge, Own, "What an hour of such a GPU costs.", [made(M::Price)]),
];
