//! The byte ledger: memory is reserved before a body is read or inflated, and returned with the last clone of
//! the batch it became. One atomic per reservation, none per item.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Limits;

/// The process-wide account of bytes in flight.
#[derive(Debug)]
pub struct Ledger {
    used: AtomicUsize,
    budget: AtomicUsize,
    peak: AtomicUsize,
    /// Set while the process itself is above its hard limit: nothing more is reserved, unless most of what was
    /// reserved is gone.
    closed: AtomicBool,
    /// The part of `used` that open connections hold.
    connections: AtomicUsize,
    limits: Mutex<Option<Limits>>,
}

impl Ledger {
    /// A ledger of `budget` bytes.
    pub fn new(budget: usize) -> Arc<Self> {
        Arc::new(Ledger {
            used: AtomicUsize::new(0),
            budget: AtomicUsize::new(budget),
            peak: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            limits: Mutex::new(None),
        })
    }

    /// Bytes reserved now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes reserved now for telemetry: what is reserved less what open connections hold.
    pub fn in_flight(&self) -> usize {
        // Two readings that are not of one time: a connection that closes in between must not turn it around.
        self.used().saturating_sub(self.connections.load(Ordering::Relaxed))
    }

    /// The budget in bytes.
    pub fn budget(&self) -> usize {
        self.budget.load(Ordering::Relaxed)
    }

    /// The most that was ever reserved at once.
    pub fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    /// Takes the limits of a `memory_limiter`; the strictest of several counts. What is already reserved stays
    /// reserved.
    pub fn limit(&self, limits: Limits) {
        let mut current = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        if current.is_none_or(|c| limits.soft < c.soft) {
            self.budget.store(limits.soft, Ordering::Relaxed);
            *current = Some(limits);
        }
    }

    /// The limits in force, if any were set.
    pub fn limits(&self) -> Option<Limits> {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing is reserved because the process is above its hard limit.
    pub fn closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Whether requests are refused for want of memory, or soon will be: three quarters are in use.
    pub fn is_pressed(&self) -> bool {
        self.closed() || self.used() >= self.budget() / 4 * 3
    }

    /// Stops reserving (`true`), or starts again.
    pub fn close(&self, closed: bool) {
        self.closed.store(closed, Ordering::Relaxed);
    }

    /// Reserves `bytes`, or nothing when the budget does not allow it.
    pub fn reserve(self: &Arc<Self>, bytes: usize) -> Option<Lease> {
        self.take(bytes).then(|| Lease { ledger: self.clone(), bytes: AtomicUsize::new(bytes) })
    }

    /// Reserves `bytes` that exist already, past the budget if need be.
    pub fn hold(self: &Arc<Self>, bytes: usize) -> Lease {
        let used = self.used.fetch_add(bytes, Ordering::AcqRel);
        self.peak.fetch_max(used + bytes, Ordering::Relaxed);
        Lease { ledger: self.clone(), bytes: AtomicUsize::new(bytes) }
    }

    /// Reserves `bytes` for an open connection. Connections get half of the budget at most, so that idle ones,
    /// however many, leave room for telemetry; the first eighth is theirs even when telemetry has taken it, so that
    /// a client that comes while the budget is full hears that it may try again, not that nobody is there.
    pub fn connect(self: &Arc<Self>, bytes: usize) -> Option<ConnectionLease> {
        let (most, own) = (self.budget() / 2, self.budget() / 8);
        let grown = self.connections.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|&total| total <= most)
        });
        let total = grown.ok()? + bytes;
        // Made first, so that it is given back if the reservation itself fails.
        let mut connection = ConnectionLease { ledger: self.clone(), bytes, lease: None };
        connection.lease = Some(if total <= own { self.hold(bytes) } else { self.reserve(bytes)? });
        Some(connection)
    }

    fn take(&self, bytes: usize) -> bool {
        let budget = self.budget();
        // What is above the limit with less than half of the budget in use is not telemetry; and once telemetry has
        // gone, service must not wait for the next look at the process.
        if self.closed() && self.used() >= budget / 2 {
            return false;
        }
        let taken = self.used.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|&total| total <= budget)
        });
        if let Ok(before) = taken {
            self.peak.fetch_max(before + bytes, Ordering::Relaxed);
        }
        taken.is_ok()
    }
}

/// A reservation in the ledger, returned when dropped.
#[derive(Debug)]
pub struct Lease {
    ledger: Arc<Ledger>,
    bytes: AtomicUsize,
}

/// What an open connection holds, returned when dropped.
#[derive(Debug)]
pub struct ConnectionLease {
    ledger: Arc<Ledger>,
    bytes: usize,
    lease: Option<Lease>,
}

impl Drop for ConnectionLease {
    fn drop(&mut self) {
        self.ledger.connections.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl Lease {
    /// Bytes reserved by this lease.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Reserves `more` bytes; `false`, and nothing changed, when the budget does not allow it.
    pub fn grow(&self, more: usize) -> bool {
        let ok = self.ledger.take(more);
        if ok {
            self.bytes.fetch_add(more, Ordering::Relaxed);
        }
        ok
    }

    /// A reservation of its own in the same ledger, past the budget if need be: for bytes that exist already.
    pub fn alongside(&self, bytes: usize) -> Lease {
        let lease = Lease { ledger: self.ledger.clone(), bytes: AtomicUsize::new(0) };
        lease.settle(bytes);
        lease
    }

    /// Sets the reservation to what is really held, past the budget if need be: for bytes that exist already.
    pub fn settle(&self, bytes: usize) {
        let before = self.bytes.swap(bytes, Ordering::Relaxed);
        if bytes >= before {
            let used = self.ledger.used.fetch_add(bytes - before, Ordering::AcqRel);
            self.ledger.peak.fetch_max(used + (bytes - before), Ordering::Relaxed);
        } else {
            self.ledger.used.fetch_sub(before - bytes, Ordering::AcqRel);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.ledger.used.fetch_sub(self.bytes(), Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_holds_and_everything_is_returned() {
        let ledger = Ledger::new(100);
        let a = ledger.reserve(60).unwrap();
        assert!(ledger.reserve(41).is_none());
        assert!(!a.grow(41));
        assert!(a.grow(40));
        assert_eq!((ledger.used(), ledger.peak()), (100, 100));
        a.settle(10);
        let b = ledger.reserve(90).unwrap();
        b.settle(120);
        assert_eq!((ledger.used(), ledger.peak()), (130, 130));
        let c = b.alongside(7);
        assert_eq!((c.bytes(), ledger.used()), (7, 137));
        drop((a, b, c));
        assert_eq!(ledger.used(), 0);
    }

    #[test]
    fn a_closed_ledger_opens_when_telemetry_has_gone() {
        let ledger = Ledger::new(100);
        let held = ledger.reserve(50).unwrap();
        ledger.close(true);
        assert!(ledger.reserve(1).is_none());
        held.settle(49);
        assert!(ledger.reserve(1).is_some());
    }

    #[test]
    fn connections_get_half_of_the_budget() {
        let ledger = Ledger::new(100);
        let first = ledger.connect(30).unwrap();
        assert!(ledger.connect(30).is_none());
        let data = ledger.reserve(65).unwrap();
        assert!(ledger.connect(10).is_none(), "the budget holds for connections too");
        assert_eq!(ledger.used(), 95);
        drop((first, data));
        assert_eq!(ledger.used(), 0);
        let data = ledger.reserve(100).unwrap();
        let first = ledger.connect(12).unwrap();
        assert!(ledger.connect(1).is_none(), "an eighth is theirs");
        drop((first, data));
        assert_eq!(ledger.used(), 0);
        assert!(ledger.connect(50).is_some());
    }
}
