//! The way of requests of our own making into the pipelines.
//!
//! A client that is refused tries again; so does this. Requests wait in order until the pipelines take them, at most
//! [`WAITING`] of them: of more the oldest are dropped, counted as items refused and with the reason `refused`. One that
//! is refused for good is counted the same way with the reason `rejected`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use smallvec::smallvec;
use tokio::sync::Notify;

use crate::pdata::template::Rendered;
use crate::pdata::{Batch, ClientInfo, Rope, Signal};
use crate::pipeline::{Consumer, Ledger, Outputs, RunContext, Verdict, ack, output};
use crate::telemetry::{Metrics, ReceiverItems};

/// How many requests wait.
const WAITING: usize = 16;
/// The first pause after a refusal, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// The way for one signal. Cheap to clone.
#[derive(Clone)]
pub struct Outbox(Arc<Inner>);

struct Inner {
    id: String,
    signal: Signal,
    consumer: Arc<dyn Consumer>,
    ledger: Arc<Ledger>,
    metrics: Arc<Metrics>,
    items: ReceiverItems,
    client: Arc<ClientInfo>,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Rendered>,
    /// One more has been taken out and has no verdict yet.
    sending: bool,
    closing: bool,
    /// Nobody waits for the rest.
    closed: bool,
}

impl Outbox {
    /// The way into the pipelines of a signal, if there are any. Its task ends with [`Outbox::close`].
    pub fn open(id: &str, signal: Signal, outputs: &Outputs, cx: &RunContext) -> Option<Outbox> {
        let inner = Inner {
            id: id.to_owned(),
            signal,
            consumer: output(outputs, signal)?.clone(),
            ledger: cx.ledger.clone(),
            metrics: cx.metrics.clone(),
            items: ReceiverItems::new(&cx.metrics, id, "nvml"),
            client: Arc::default(),
            state: Mutex::default(),
            changed: Notify::new(),
        };
        let outbox = Outbox(Arc::new(inner));
        let task = outbox.clone();
        cx.supervisor.spawn("nvml outbox", async move { task.0.run().await });
        Some(outbox)
    }

    /// Hands a request over. Never waits.
    pub fn put(&self, request: Rendered) {
        if request.points == 0 {
            return;
        }
        let mut state = self.0.state();
        if state.closing {
            // Whoever takes requests out may have ended.
            drop(state);
            return self.0.dropped(request.points, "shutdown");
        }
        while state.waiting.len() >= WAITING {
            if let Some(oldest) = state.waiting.pop_front() {
                self.0.dropped(oldest.points, "refused");
            }
        }
        state.waiting.push_back(request);
        drop(state);
        self.0.changed.notify_waiters();
    }

    /// Whether another request would not crowd out those that wait, with as much again to spare.
    pub fn has_room(&self) -> bool {
        self.0.state().waiting.len() < WAITING / 2
    }

    /// Returns when everything is on its way, at the latest at the deadline; what is left then is dropped and counted.
    pub async fn close(&self, deadline: tokio::time::Instant) {
        self.0.state().closing = true;
        self.0.changed.notify_waiters();
        let empty = async {
            loop {
                let changed = self.0.changed.notified();
                if self.0.is_empty() {
                    return;
                }
                changed.await;
            }
        };
        let _ = tokio::time::timeout_at(deadline, empty).await;
        let left: Vec<Rendered> = {
            let mut state = self.0.state();
            state.closed = true;
            state.waiting.drain(..).collect()
        };
        for request in left {
            self.0.dropped(request.points, "shutdown");
        }
        self.0.changed.notify_waiters();
    }
}

impl Inner {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_empty(&self) -> bool {
        let state = self.state();
        state.waiting.is_empty() && !state.sending
    }

    fn dropped(&self, points: usize, reason: &'static str) {
        self.items.refused(self.signal, points);
        self.metrics.dropped_items(&self.id, self.signal, reason).add(points as u64);
    }

    async fn run(&self) {
        let mut pause = PAUSE.0;
        loop {
            let Some(request) = self.next().await else { return };
            match self.send(&request).await {
                Verdict::Accepted => {
                    self.items.accepted(self.signal, request.points);
                    pause = PAUSE.0;
                    self.state().sending = false;
                }
                Verdict::Rejected { reason, .. } => {
                    tracing::warn!(component = %self.id, reason, "telemetry of GPUs was rejected");
                    self.dropped(request.points, "rejected");
                    self.state().sending = false;
                }
                Verdict::Retry { after, reason } => {
                    tracing::debug!(component = %self.id, reason, "telemetry of GPUs is sent again later");
                    let dropped = {
                        let mut state = self.state();
                        state.sending = false;
                        // It is the oldest; newer ones may have taken its place.
                        if state.closed {
                            Some((request.points, "shutdown"))
                        } else if state.waiting.len() >= WAITING {
                            Some((request.points, "refused"))
                        } else {
                            state.waiting.push_front(request);
                            None
                        }
                    };
                    if let Some((points, reason)) = dropped {
                        self.dropped(points, reason);
                    }
                    self.pause(after.unwrap_or(pause).min(PAUSE.1)).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
            self.changed.notify_waiters();
        }
    }

    /// The next request; `None` when there will be none.
    async fn next(&self) -> Option<Rendered> {
        loop {
            let changed = self.changed.notified();
            {
                let mut state = self.state();
                if let Some(request) = state.waiting.pop_front() {
                    state.sending = true;
                    return Some(request);
                }
                if state.closing {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// Waits; not longer than until everything ends.
    async fn pause(&self, pause: Duration) {
        let closing = async {
            loop {
                let changed = self.changed.notified();
                if self.state().closing {
                    return;
                }
                changed.await;
            }
        };
        // While closing, a short pause keeps the tries from spinning.
        let pause = if self.state().closing { pause.min(Duration::from_millis(100)) } else { pause };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = closing, if !self.state().closing => {}
        }
    }

    async fn send(&self, request: &Rendered) -> Verdict {
        let Some(lease) = self.ledger.reserve(request.request.len()) else {
            return Verdict::retry("no memory is left");
        };
        let (ack, verdict) = ack();
        self.consumer.consume(Batch {
            signal: self.signal,
            rope: Rope::from(request.request.clone()),
            items: request.points,
            client: self.client.clone(),
            tenant: None,
            demoted: false,
            received: Instant::now(),
            leases: smallvec![Arc::new(lease)],
            acks: ack.into(),
        });
        verdict.await.unwrap_or_else(|_| Verdict::retry("no verdict"))
    }
}

#[cfg(test)]
mod tests;
