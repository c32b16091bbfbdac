//! Who holds which part of which GPU: what attribution finds out and accounting adds up.

use std::sync::Arc;

use super::model::{Identity, MigIdentity};

/// A container that holds a device.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Holder {
    /// The namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The container.
    pub container: String,
    /// The pod's uid, where it is known.
    pub uid: Option<String>,
}

/// Whose a part of a GPU is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// A container's.
    Pod(Arc<Holder>),
    /// A process outside of any pod has it.
    Host,
    /// Nobody's.
    Unallocated,
    /// Nobody can tell at the moment.
    Unknown,
}

/// How it was found out whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// The kubelet says so.
    Kubelet,
    /// A process of it runs there.
    Process,
    /// There is nothing to find out.
    None,
}

/// A part of a GPU and whose it is. Over all shares of a device the parts add up to 1.
#[derive(Debug, Clone)]
pub struct Share {
    /// The GPU.
    pub device: Arc<Identity>,
    /// The MIG instance, where that is what is held.
    pub mig: Option<Arc<MigIdentity>>,
    /// Whose.
    pub owner: Owner,
    /// How that is known.
    pub evidence: Evidence,
    /// Which part of the physical GPU is held, above 0 and at most 1.
    pub part: f64,
    /// Which part of the physical GPU was busy for it, 0 to 1: on a shared GPU one may use more than its part. `None`
    /// where that cannot be told: MIG without profiling counters, a device that was not read.
    pub busy: Option<f64>,
}
