//! What is owed for a batch while its items are spread over requests, and the shares of it that requests carry.

use std::sync::{Arc, Mutex, PoisonError};

use smallvec::SmallVec;

use crate::exporters::delivery::queue::{Cost, Job};
use crate::exporters::delivery::tenancy::Tenancy;
use crate::pdata::Batch;
use crate::pipeline::{Acks, Lease, Verdict};

/// Which items of which batches a request carries, in the order in which it carries them.
pub(super) type Shares = SmallVec<[Share; 2]>;

/// Items of one batch.
pub(super) struct Share {
    pub ticket: Arc<Ticket>,
    pub items: usize,
}

/// What is owed for one batch until its last item is booked.
pub(super) struct Ticket {
    pub tenancy: Arc<Tenancy>,
    /// Whether somebody waits for the outcome, so that what is not delivered can be given back.
    pub waited_for: bool,
    /// `None` once it is paid.
    owed: Mutex<Option<Owed>>,
}

struct Owed {
    /// Items not yet booked.
    left: usize,
    due: Due,
}

/// What falls due with the last item.
pub(super) struct Due {
    cost: Cost,
    verdict: Verdict,
    leases: SmallVec<[Arc<Lease>; 1]>,
    acks: Acks,
}

impl Ticket {
    /// Takes over what is owed for a job; the batch keeps its telemetry.
    pub fn new(job: &mut Job, tenancy: Arc<Tenancy>) -> Arc<Self> {
        let Job { batch: Batch { acks, leases, items, .. }, cost } = job;
        let due = Due {
            cost: std::mem::take(cost),
            verdict: Verdict::Accepted,
            leases: std::mem::take(leases),
            acks: std::mem::take(acks),
        };
        let waited_for = !due.acks.settled();
        Arc::new(Ticket { tenancy, waited_for, owed: Mutex::new(Some(Owed { left: *items, due })) })
    }

    /// Takes up to `items` out of the books: how many there were, and what falls due if they were the last.
    pub fn take(&self, items: usize, verdict: Option<&Verdict>) -> (usize, Option<Due>) {
        let mut guard = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(owed) = guard.as_mut() else { return (0, None) };
        let items = items.min(owed.left);
        owed.left -= items;
        if let Some(verdict) = verdict {
            let so_far = std::mem::replace(&mut owed.due.verdict, Verdict::Accepted);
            owed.due.verdict = so_far.worst(verdict.clone());
        }
        let due = if owed.left == 0 { guard.take().map(|owed| owed.due) } else { None };
        (items, due)
    }
}

impl Due {
    /// Returns the memory, then tells who waits; the room in the queue is for the caller to return.
    pub fn pay(self) -> Cost {
        drop(self.leases);
        self.acks.resolve(self.verdict);
        self.cost
    }
}

/// How many items the shares are.
pub(super) fn total(shares: &[Share]) -> usize {
    shares.iter().map(|share| share.items).sum()
}

/// Cuts shares in two after `at` items.
pub(super) fn split(shares: Shares, at: usize) -> [Shares; 2] {
    let mut parts = [Shares::new(), Shares::new()];
    let [first, second] = &mut parts;
    let mut left = at;
    for Share { ticket, items } in shares {
        let here = items.min(left);
        left -= here;
        if here > 0 {
            first.push(Share { ticket: ticket.clone(), items: here });
        }
        if items > here {
            second.push(Share { ticket, items: items - here });
        }
    }
    parts
}
