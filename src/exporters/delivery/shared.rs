//! What every engine of delivery has around its queue: identity, limits, books, gauges, tenancies, the log and the
//! end.
//!
//! Nothing here knows what a request is made of. Costs: a few relaxed atomics a call; none is made per item.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::gauges::Gauges;
use super::queue::Limits;
use super::tenancy::{Booking, Tenancies, Tenancy};
use super::{QueueConfig, RetryConfig};
use crate::pdata::{Batch, Signal, Tenant};
use crate::pipeline::runtime::Supervisor;
use crate::pipeline::{BuildContext, Ledger, Leftover, RunContext, Verdict};
use crate::telemetry::ExporterItems;

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Phase {
    Running,
    /// Sending what is left, until then.
    Draining(Instant),
    /// Nothing is sent any more.
    Closed,
}

/// One exporter and signal, whatever its engine.
pub(super) struct Shared {
    pub id: String,
    pub signal: Signal,
    pub limits: Option<Limits>,
    pub retry: RetryConfig,
    pub timeout: Duration,
    pub phase: watch::Sender<Phase>,
    pub tenancies: Tenancies,
    pub ledger: Arc<Ledger>,
    pub items: ExporterItems,
    pub gauges: Gauges,
    /// Told whenever an engine may have come to rest.
    pub idle: Notify,
    /// What tasks are started with, once the exporter is.
    pub run: OnceLock<(Supervisor, tokio::runtime::Handle)>,
    /// Items taken and not yet settled: waiting, parked or being sent.
    held: AtomicUsize,
    lost: AtomicU64,
    drops: LogGate,
    warnings: LogGate,
    refusals: LogGate,
}

/// Lets one log line a second through and counts the others.
#[derive(Debug, Default)]
struct LogGate {
    last: Mutex<Option<Instant>>,
    suppressed: AtomicU64,
}

impl Shared {
    pub fn new(
        cx: &BuildContext,
        signal: Signal,
        queue: Option<&QueueConfig>,
        retry: RetryConfig,
        timeout: Duration,
    ) -> Self {
        Shared {
            id: cx.id.clone(),
            signal,
            limits: queue.map(Limits::new),
            tenancies: Tenancies::new(&cx.metrics, &cx.id, signal, &retry),
            retry,
            timeout,
            phase: watch::Sender::new(Phase::Running),
            ledger: cx.ledger.clone(),
            items: ExporterItems::new(&cx.metrics, &cx.id, signal),
            gauges: Gauges::new(&cx.metrics, &cx.id, signal),
            idle: Notify::new(),
            run: OnceLock::new(),
            held: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
            drops: LogGate::default(),
            warnings: LogGate::default(),
            refusals: LogGate::default(),
        }
    }

    /// From here on tasks can be started.
    pub fn start(&self, cx: &RunContext) {
        let _ = self.run.set((cx.supervisor.clone(), tokio::runtime::Handle::current()));
        self.gauges.show(self.limits.map(|l| l.capacity));
    }

    /// Items taken and not yet settled.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Bytes free in the ledger.
    pub fn memory(&self) -> usize {
        self.ledger.budget().saturating_sub(self.ledger.in_flight())
    }

    /// Counts items in.
    pub fn hold(&self, tenancy: &Tenancy, items: usize) {
        self.items.offered(items);
        self.held.fetch_add(items, Ordering::Relaxed);
        self.gauges.held(items as i64);
        tenancy.hold(items);
    }

    /// Moves items from held to where they are booked.
    pub fn settle(&self, tenancy: &Tenancy, items: usize, booking: Booking) {
        match booking {
            Booking::Sent => self.items.sent(items),
            Booking::Dropped(reason) => self.items.dropped(items, reason),
            Booking::Refused(reason) => self.items.refused(items, reason),
        }
        self.held.fetch_sub(items, Ordering::Relaxed);
        self.gauges.held(-(items as i64));
        tenancy.settle(items, booking);
    }

    /// Not delivered, and the data is good: back to who waits for it, else dropped.
    pub fn settle_undelivered(
        &self,
        tenancy: &Tenancy,
        items: usize,
        waited_for: bool,
        reason: &'static str,
    ) {
        let booking = if waited_for { Booking::Refused(reason) } else { Booking::Dropped(reason) };
        self.settle(tenancy, items, booking);
    }

    /// Gives up items because the agent ends: back to their sender if one waits, else lost.
    pub fn settle_unsent(&self, tenancy: &Tenancy, items: usize, waited_for: bool) {
        if !waited_for {
            self.lost.fetch_add(items as u64, Ordering::Relaxed);
        }
        self.settle_undelivered(tenancy, items, waited_for, "shutdown");
    }

    pub fn abandon(&self, batch: Batch) {
        let tenancy = self.tenancies.of(batch.tenant.as_ref());
        self.settle_unsent(&tenancy, batch.items, !batch.acks.settled());
        batch.acks.resolve(Verdict::retry("the agent is shutting down"));
    }

    /// Answers a batch for which the queue has no room.
    pub fn refuse_full(&self, batch: Batch) {
        self.refuse(batch, "sending queue is full", "queue_full");
    }

    /// Answers a batch whose tenant has its share of the queue.
    pub fn refuse_over_share(&self, batch: Batch) {
        self.refuse(batch, "the tenant's share of the sending queue is full", "tenant_share");
    }

    fn refuse(&self, batch: Batch, why: &str, reason: &'static str) {
        let tenancy = self.tenancies.of(batch.tenant.as_ref());
        self.settle(&tenancy, batch.items, Booking::Refused(reason));
        self.log_refusal(why, batch.tenant.as_ref(), batch.items);
        batch.acks.resolve(Verdict::retry(why));
    }

    /// Answers a batch for which the queue will never have room.
    pub fn refuse_too_large(&self, batch: Batch) {
        let tenancy = self.tenancies.of(batch.tenant.as_ref());
        self.settle(&tenancy, batch.items, Booking::Dropped("too_large"));
        self.log_refusal("element size too large", batch.tenant.as_ref(), batch.items);
        let reason = "the request is larger than the exporter's whole queue".to_owned();
        batch.acks.resolve(Verdict::Rejected { bad_data: false, reason });
    }

    fn log_refusal(&self, reason: &str, tenant: Option<&Tenant>, items: usize) {
        if let Some(suppressed) = self.refusals.open() {
            tracing::error!(
                otelcol.component.id = %self.id, otelcol.component.kind = "exporter",
                otelcol.signal = self.signal.name(), error = reason, tenant = tenant.map(Tenant::name),
                rejected_items = items, suppressed,
                "Exporting failed. Rejecting data."
            );
        }
    }

    pub fn log_drop(&self, items: usize, kind: &str, reason: &str) {
        if let Some(suppressed) = self.drops.open() {
            tracing::error!(
                otelcol.component.id = %self.id, otelcol.component.kind = "exporter",
                otelcol.signal = self.signal.name(), error = %format_args!("{kind}: {reason}"),
                dropped_items = items, suppressed,
                "Exporting failed. Dropping data."
            );
        }
    }

    /// What a destination said that took a request, if it is worth a line.
    pub fn log_partial(&self, rejected: usize, message: &str) {
        if message.is_empty() && rejected == 0 {
            return;
        }
        if let Some(suppressed) = self.warnings.open() {
            tracing::warn!(
                otelcol.component.id = %self.id, otelcol.component.kind = "exporter",
                otelcol.signal = self.signal.name(), message_from_destination = message, dropped_items = rejected,
                suppressed, "Partial success response"
            );
        }
    }

    /// Waits until `is_idle`, for as long as `deadline` allows, then calls `close`, which must make it so.
    pub async fn drain(
        &self,
        deadline: Instant,
        is_idle: impl Fn() -> bool,
        close: impl FnOnce(),
    ) -> Leftover {
        let before = self.lost.load(Ordering::Relaxed);
        if tokio::time::timeout_at(deadline, self.wait_until(&is_idle)).await.is_err() {
            close();
            // Tasks notice at once; the limit is for a sender that blocks its thread.
            let _ = tokio::time::timeout(Duration::from_secs(1), self.wait_until(&is_idle)).await;
        }
        Leftover { lost: self.lost.load(Ordering::Relaxed) - before, kept: 0 }
    }

    async fn wait_until(&self, is_idle: impl Fn() -> bool) {
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            if is_idle() {
                return;
            }
            idle.await;
        }
    }
}

impl LogGate {
    /// How many lines were held back since the last one, if this one may be written.
    fn open(&self) -> Option<u64> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if last.is_some_and(|last| now.duration_since(last) < Duration::from_secs(1)) {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        *last = Some(now);
        Some(self.suppressed.swap(0, Ordering::Relaxed))
    }
}
