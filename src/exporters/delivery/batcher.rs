//! `sending_queue.batch`: merges what was taken until it is worth a request, and splits what is too much for one.
//!
//! Merging appends ropes and copies no telemetry. Data of different clients shares a batch unless partition keys
//! keep it apart, or the exporter's authenticator takes headers from what they differ in; a merged batch keeps of its
//! clients what they have in common: the values of those keys.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::queue::Job;
use super::split;
use super::{BatchConfig, BatchSizer};
use crate::net::auth::ClientKey;
use crate::pdata::{Batch, ClientInfo, Tenant};

/// What waits for more, by partition.
#[derive(Debug)]
pub(super) struct Batcher {
    min: usize,
    max: usize,
    sizer: BatchSizer,
    timeout: Duration,
    keys: Vec<ClientKey>,
    /// Few in practice; the queue bounds them, as each holds at least one batch.
    partitions: Vec<Partition>,
}

#[derive(Debug)]
struct Partition {
    values: Vec<Vec<String>>,
    tenant: Option<Tenant>,
    demoted: bool,
    /// Whether senders wait for the outcome. Data that is waited for can be refused when it cannot be delivered,
    /// other data is lost then: one batch must not hold both.
    waited_for: bool,
    job: Job,
    due: Instant,
}

impl Batcher {
    pub fn new(config: &BatchConfig) -> Self {
        let size = |n: i64| usize::try_from(n).unwrap_or(0);
        Batcher {
            min: size(config.min_size),
            max: size(config.max_size),
            sizer: config.sizer,
            timeout: config.flush_timeout,
            keys: config.partition.metadata_keys.iter().cloned().map(ClientKey::Metadata).collect(),
            partitions: Vec::new(),
        }
    }

    /// Keeps clients apart that differ in these, too.
    pub fn keep_apart(&mut self, keys: Vec<ClientKey>) {
        for key in keys {
            if !self.keys.iter().any(|known| known.same(&key)) {
                self.keys.push(key);
            }
        }
    }

    /// Adds a batch; what is large enough goes to `out`. Returns pieces that are larger than `max_size` and
    /// cannot be cut, for the caller to give up on.
    pub fn add(&mut self, now: Instant, job: Job, out: &mut VecDeque<Job>) -> Vec<Job> {
        let values = self.values(&job.batch.client);
        let waited_for = !job.batch.acks.settled();
        let (tenant, demoted) = (job.batch.tenant.clone(), job.batch.demoted);
        let at = self.partitions.iter().position(|p| {
            p.values == values && p.tenant == tenant && p.demoted == demoted && p.waited_for == waited_for
        });
        let (mut job, due) = match at.map(|at| self.partitions.swap_remove(at)) {
            Some(waiting) => (self.merge(waiting.job, job, &values), waiting.due),
            None => (job, now + self.timeout),
        };
        let mut oversized = Vec::new();
        if self.max > 0 && self.size(&job.batch) > self.max {
            let mut pieces = VecDeque::from(split::cut(job, self.max, self.sizer));
            let Some(last) = pieces.pop_back() else { return oversized };
            for piece in pieces {
                self.emit(piece, out, &mut oversized);
            }
            job = last;
        }
        if self.size(&job.batch) >= self.min {
            self.emit(job, out, &mut oversized);
        } else {
            self.partitions.push(Partition { values, tenant, demoted, waited_for, job, due });
        }
        oversized
    }

    fn emit(&self, job: Job, out: &mut VecDeque<Job>, oversized: &mut Vec<Job>) {
        if self.max > 0 && self.size(&job.batch) > self.max {
            oversized.push(job);
        } else {
            out.push_back(job);
        }
    }

    /// Moves what is due at `now` to `out`, or everything without a time.
    pub fn flush(&mut self, now: Option<Instant>, out: &mut VecDeque<Job>) {
        let is_due = |p: &mut Partition| now.is_none_or(|now| p.due <= now);
        out.extend(self.partitions.extract_if(.., is_due).map(|p| p.job));
    }

    /// When `flush` has something to do next.
    pub fn deadline(&self) -> Option<Instant> {
        self.partitions.iter().map(|p| p.due).min()
    }

    fn size(&self, batch: &Batch) -> usize {
        match self.sizer {
            BatchSizer::Items => batch.items,
            BatchSizer::Bytes => batch.rope.len(),
        }
    }

    fn values(&self, client: &ClientInfo) -> Vec<Vec<String>> {
        self.keys.iter().map(|key| key.values(client).map(str::to_owned).collect()).collect()
    }

    fn merge(&self, mut into: Job, job: Job, values: &[Vec<String>]) -> Job {
        into.cost.add(job.cost);
        let Batch { rope, items, client, received, leases, acks, .. } = job.batch;
        let batch = &mut into.batch;
        if !Arc::ptr_eq(&batch.client, &client) {
            let mut common = ClientInfo::default();
            for (key, values) in self.keys.iter().zip(values) {
                key.add_to(&mut common, values);
            }
            batch.client = Arc::new(common);
        }
        batch.rope.append(rope);
        batch.items += items;
        batch.received = batch.received.min(received);
        batch.leases.extend(leases);
        batch.acks.append(acks);
        into
    }
}
