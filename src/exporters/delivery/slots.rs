//! Who is being sent: `num_consumers` places, and which lane may have one. Plain data behind the engine's lock.
//!
//! What has no tenant keeps its place from start to end. A request of a tenant gives it back while it rests, and gets
//! one again before anything new starts, first come first served. Of a tenant that is throttled, or fails, one
//! request is out at a time: it finds out whether that is over, and costs the others one place at most. A tenant that
//! is well leaves a fifth of the places to the others, so that these do not wait for it.
//!
//! Nothing waits for ever: a tenant with nothing out may always have a free place, and whatever is out ends, or rests
//! and asks again; each of these has the engine look again.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use super::lanes::{Chance, LaneKey};
use super::tenancy::Tenancy;
use crate::pdata::Tenant;

/// How many times the free places a tenant may have.
const ALPHA: usize = 4;

/// The places of one engine.
pub(super) struct Slots {
    window: usize,
    taken: usize,
    /// Batches begun and not finished, those that rest included.
    out: usize,
    /// Tenants that have anything out.
    tenants: HashMap<Tenant, Out>,
    /// Rested, and would go on.
    waiting: VecDeque<Arc<Seat>>,
}

/// What one tenant has out.
struct Out {
    tenancy: Arc<Tenancy>,
    taken: usize,
    out: usize,
}

/// The place of one batch that has a tenant.
pub(super) struct Seat {
    pub tenancy: Arc<Tenancy>,
    /// Whether it has its place; changed under the engine's lock only.
    taken: AtomicBool,
    granted: Notify,
}

impl Seat {
    /// Waits until the engine has granted a place that was asked for.
    pub async fn granted(&self) {
        while !self.is_taken() {
            self.granted.notified().await;
        }
    }

    fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Acquire)
    }
}

impl Out {
    /// Whether another request of those that are out may be sent.
    fn may_send(&self, free: usize) -> bool {
        self.taken == 0 || self.taken < free.saturating_mul(ALPHA) && self.tenancy.is_well()
    }
}

impl Slots {
    pub fn new(window: usize) -> Self {
        Slots { window, taken: 0, out: 0, tenants: HashMap::new(), waiting: VecDeque::new() }
    }

    /// Whether nothing is begun and unfinished.
    pub fn is_idle(&self) -> bool {
        self.out == 0
    }

    /// Whether anything could start.
    pub fn has_free(&self) -> bool {
        self.taken < self.window
    }

    fn free(&self) -> usize {
        self.window.saturating_sub(self.taken)
    }

    /// Whether a new batch of a lane may start. A lane that sleeps is to be woken by whatever happens to its tenant:
    /// [`rest`](Slots::rest), [`resume`](Slots::resume) and [`finish`](Slots::finish), one of which always comes.
    pub fn chance(&self, key: &LaneKey) -> Chance {
        match key.tenant.as_ref().and_then(|tenant| self.tenants.get(tenant)) {
            _ if !self.has_free() => Chance::NotNow,
            None => Chance::Now,
            Some(out) if out.out >= self.window || !out.tenancy.is_well() => Chance::Asleep,
            Some(out) if out.taken < self.free().saturating_mul(ALPHA) => Chance::Now,
            Some(_) => Chance::NotNow,
        }
    }

    /// A new batch has a place. What has no tenant needs no seat.
    pub fn start(&mut self, tenancy: &Arc<Tenancy>) -> Option<Arc<Seat>> {
        self.taken += 1;
        self.out += 1;
        let tenant = tenancy.tenant()?;
        let out = self.tenants.entry(tenant.clone()).or_insert_with(|| Out {
            tenancy: tenancy.clone(),
            taken: 0,
            out: 0,
        });
        out.taken += 1;
        out.out += 1;
        let tenancy = tenancy.clone();
        Some(Arc::new(Seat { tenancy, taken: AtomicBool::new(true), granted: Notify::new() }))
    }

    /// A batch gives its place back and stays out. Whether it had one.
    pub fn rest(&mut self, seat: &Seat) -> bool {
        let had = seat.taken.swap(false, Ordering::AcqRel);
        if had {
            self.taken = self.taken.saturating_sub(1);
            if let Some(out) = seat.tenancy.tenant().and_then(|tenant| self.tenants.get_mut(tenant)) {
                out.taken = out.taken.saturating_sub(1);
            }
        }
        had
    }

    /// A batch that has rested wants a place again.
    pub fn resume(&mut self, seat: &Arc<Seat>) {
        self.waiting.push_back(seat.clone());
    }

    /// Gives free places to those who wait.
    pub fn grant(&mut self) {
        let mut at = 0;
        while self.has_free()
            && let Some(seat) = self.waiting.get(at)
        {
            let free = self.free();
            let out = seat.tenancy.tenant().and_then(|tenant| self.tenants.get_mut(tenant));
            match out {
                Some(out) if !out.may_send(free) => at += 1,
                out => {
                    if let Some(out) = out {
                        out.taken += 1;
                    }
                    self.taken += 1;
                    seat.taken.store(true, Ordering::Release);
                    seat.granted.notify_one();
                    self.waiting.remove(at);
                }
            }
        }
    }

    /// A batch has ended, wherever it was.
    pub fn finish(&mut self, seat: Option<&Arc<Seat>>) {
        self.out = self.out.saturating_sub(1);
        let Some(seat) = seat else {
            self.taken = self.taken.saturating_sub(1);
            return;
        };
        if !self.rest(seat) {
            self.waiting.retain(|waiting| !Arc::ptr_eq(waiting, seat));
        }
        if let Some(tenant) = seat.tenancy.tenant()
            && let Some(out) = self.tenants.get_mut(tenant)
        {
            out.out = out.out.saturating_sub(1);
            if out.out == 0 {
                self.tenants.remove(tenant);
            }
        }
    }
}
