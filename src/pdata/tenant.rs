//! Whose telemetry a batch is: part of a batch's identity through batching, queues and the wire.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A tenant, as it is known to backends. Cheap to clone. Two are equal when their names are.
#[derive(Clone)]
pub struct Tenant(Arc<Inner>);

struct Inner {
    name: Box<str>,
    queue_share: f64,
}

impl Tenant {
    /// The tenant of that name. Names are checked where they come from; backends see this one as it is.
    pub fn new(name: &str) -> Self {
        Tenant::with_queue_share(name, 1.0)
    }

    /// The same, allowed to fill at most this part of each exporter's queue: above 0, at most 1.
    pub fn with_queue_share(name: &str, share: f64) -> Self {
        Tenant(Arc::new(Inner { name: name.into(), queue_share: share }))
    }

    /// Its name, the value of `X-Scope-OrgID`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// How much of an exporter's queue it may fill at most: a part of 1.
    pub fn queue_share(&self) -> f64 {
        self.0.queue_share
    }
}

impl PartialEq for Tenant {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.name == other.0.name
    }
}

impl Eq for Tenant {}

impl Hash for Tenant {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tenant({:?})", self.name())
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
