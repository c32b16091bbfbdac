//! From a batch to the open requests of shards: the walk over resources, scopes and metrics.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::body::{Returned, Step, Version, WriteBody};
use super::gauges::Gauges;
use super::groups::Order;
use super::open::Open;
use super::points::Scratch;
use super::series::{Placed, ResourceCx, Series};
use super::snappy::Snappy;
use super::sums::Sums;
use super::{OutOfOrder, RemoteOptions};
use crate::exporters::delivery::sharded::{Output, ShardBody, ShardEncoder};
use crate::net::auth::ClientKey;
use crate::pdata::common::{ScopeGroup, groups};
use crate::pdata::metrics::Metric;
use crate::pdata::wire::WireError;
use crate::pdata::{Batch, ClientInfo};
use crate::telemetry::Metrics;

/// How often 1.0 sends metadata again, milliseconds.
const METADATA_EVERY: i64 = 60_000;
/// How far ahead of our clock receivers take samples.
const AHEAD: i64 = 600_000;
/// What a batch may become, compressed: this, and so many times its own size. Labels of a resource or scope are
/// repeated for each point, so that a small request could be made to fill any memory.
const BATCH: usize = 64 << 20;
const BATCH_TIMES: usize = 4;

/// Makes remote write requests.
pub struct RemoteEncoder {
    pub(super) options: RemoteOptions,
    /// What keeps clients apart: `partition_keys`, and what requests take from clients.
    apart: Vec<ClientKey>,
    pub(super) series: Series,
    pub(super) shards: Vec<Open>,
    pub(super) scratch: Scratch,
    snappy: Snappy,
    pub(super) version: Version,
    returned: Arc<Returned>,
    /// The size at which a request is closed.
    full: usize,
    /// Milliseconds since 1970, as of the batch.
    pub(super) now: i64,
    /// What the batch may still become, bytes.
    pub(super) budget: usize,
    /// Sums of delta temporality.
    pub(super) sums: Option<Sums>,
    gauges: Option<Gauges>,
}

/// One metric on the way through its points.
pub(super) struct MetricCx<'c, 'a> {
    pub metric: Metric<'a>,
    /// Its place among the families.
    pub family: u32,
    /// The hash of everything above the point.
    pub seed: u128,
    pub scope: ScopeGroup<'a>,
    pub resource: &'c mut ResourceCx<'a>,
}

impl RemoteEncoder {
    /// An encoder with empty caches.
    pub fn new(options: RemoteOptions) -> Self {
        let version = options.negotiation.version(Instant::now());
        let shards = options.shards.max(1);
        RemoteEncoder {
            series: Series::new(&options, version),
            shards: std::iter::repeat_with(|| Open::new(version)).take(shards).collect(),
            scratch: Scratch::default(),
            snappy: Snappy::default(),
            version,
            returned: Arc::default(),
            full: options.max_bytes - options.max_bytes / 16,
            now: now(),
            budget: 0,
            sums: options.delta.map(Sums::new),
            gauges: None,
            apart: options.partition_keys.iter().cloned().map(ClientKey::Metadata).collect(),
            options,
        }
    }

    /// Shows the cache's figures among the agent's metrics, under this exporter's id.
    #[must_use]
    pub fn with_metrics(mut self, metrics: &Metrics, id: &str) -> Self {
        self.gauges = Some(Gauges::new(metrics, id));
        self
    }

    /// Hits and misses of the series cache, what it forgot, and what it holds now.
    pub fn cache(&self) -> CacheFigures {
        let mut figures = self.series.figures();
        figures.bytes += self.shards.iter().map(Open::table_bytes).sum::<usize>();
        figures
    }

    /// Items in open requests.
    pub fn open_items(&self) -> usize {
        self.shards.iter().map(Open::items).sum()
    }

    /// Times beyond it are the future's.
    pub(super) fn horizon(&self) -> i64 {
        self.now.saturating_add(AHEAD)
    }

    /// What must be so before a batch: room in the caches, the right version, a current clock.
    fn begin(&mut self, out: &mut Output<'_, WriteBody>) {
        self.now = now();
        let returned = self.returned.take();
        if !returned.is_empty() {
            self.series.groups.undo(returned);
        }
        let version = self.options.negotiation.version(Instant::now());
        let renumber = version != self.version || self.series.is_full();
        if !renumber {
            return;
        }
        if self.version == Version::V2 || version != self.version {
            // Open requests know symbols by their old numbers.
            for shard in 0..self.shards.len() {
                self.close_into(shard, version, out);
            }
            self.shards.iter_mut().for_each(Open::forget_symbols);
        }
        if version != self.version {
            self.version = version;
            self.series.restart(version);
        } else {
            self.series.make_room(self.horizon());
        }
    }

    /// Sends the metadata that is due to a partition.
    fn tell(&mut self, partition: u64, out: &mut Output<'_, WriteBody>) {
        if !self.options.metadata || self.version != Version::V1 {
            return;
        }
        let max = self.options.max_bytes;
        for message in self.series.families.tell(partition, self.now, METADATA_EVERY, max) {
            out.extra(0, WriteBody::metadata(&message));
        }
    }

    /// Whose a batch is: tenants, and what `partition_keys` keep apart, share no series, no sum and no time of a last
    /// sample. 0 is nobody's.
    fn whose(&self, batch: &Batch) -> u64 {
        let partition = self.partition(&batch.client);
        let Some(tenant) = &batch.tenant else { return partition };
        let mut text = partition.to_le_bytes().to_vec();
        text.extend_from_slice(tenant.name().as_bytes());
        self.series.hash(&text) as u64 | 1
    }

    /// The version that is written now.
    pub(super) fn version(&self) -> Version {
        self.version
    }

    fn close_into(&mut self, shard: usize, version: Version, out: &mut Output<'_, WriteBody>) {
        if let Some(open) = self.shards.get_mut(shard)
            && let Some(body) = open.close(version, &self.returned, &mut self.snappy)
        {
            self.budget = self.budget.saturating_sub(body.size());
            if body.items() > 0 {
                out.full(shard, body);
            } else {
                // Nobody's items, so that it is sent for whom the batch is from.
                out.extra(shard, body);
            }
        }
    }

    /// Looks after a request that has grown.
    #[inline]
    pub(super) fn grown(&mut self, shard: usize, out: &mut Output<'_, WriteBody>) {
        let Some(open) = self.shards.get_mut(shard) else { return };
        open.compress(&mut self.snappy);
        if open.size() >= self.full {
            self.close_into(shard, self.version, out);
        }
    }

    fn walk(
        &mut self,
        request: &[u8],
        partition: u64,
        out: &mut Output<'_, WriteBody>,
    ) -> Result<(), WireError> {
        for group in groups(request) {
            let mut resource = self.series.resource(group?, partition)?;
            for scope in resource.group.scopes() {
                let scope = scope?;
                let above = self.series.above(&resource, scope)?;
                for metric in scope.items() {
                    let metric = Metric::parse(metric?)?;
                    if metric.points().next().is_none() {
                        continue;
                    }
                    let (family, seed) = self.series.family(&metric, above, partition)?;
                    let mut cx = MetricCx { metric, family, seed, scope, resource: &mut resource };
                    self.metric(&mut cx, out)?;
                }
            }
            if self.options.map.target_info && resource.times.0 <= resource.times.1 {
                self.target_info(&mut resource, out)?;
            }
        }
        Ok(())
    }

    fn metric(
        &mut self,
        cx: &mut MetricCx<'_, '_>,
        out: &mut Output<'_, WriteBody>,
    ) -> Result<(), WireError> {
        let mut dropped = Dropped::default();
        let end = self.points(cx, &mut dropped, out);
        dropped.flush(out);
        end
    }

    fn points(
        &mut self,
        cx: &mut MetricCx<'_, '_>,
        dropped: &mut Dropped,
        out: &mut Output<'_, WriteBody>,
    ) -> Result<(), WireError> {
        let skip = self.series.families.get(cx.family).and_then(|known| known.skip);
        for point in cx.metric.points() {
            let point = point?;
            let end = match skip {
                Some(reason) => Err(reason),
                None if self.budget == 0 => Err("too_large"),
                None => self.point(cx, point)?,
            };
            match end {
                Ok(shard) => {
                    out.item(shard);
                    self.grown(shard, out);
                }
                Err(reason) => dropped.one(reason, out),
            }
        }
        Ok(())
    }

    /// Notes the time of a sample of `placed`.
    ///
    /// # Errors
    /// Why the sample is not to be sent.
    #[inline]
    pub(super) fn advance(&mut self, placed: &Placed, time: i64) -> Result<Option<Step>, &'static str> {
        if !self.options.sample_age_limit.is_zero()
            && self.now - time > self.options.sample_age_limit.as_millis() as i64
        {
            return Err("too_old");
        }
        if self.options.out_of_order == OutOfOrder::Keep {
            return Ok(None);
        }
        match self.series.groups.advance(placed.group, time, self.horizon()) {
            Order::Newer(before) if self.options.senders_wait => {
                let epoch = self.series.groups.epoch();
                Ok(Some(Step { group: placed.group, epoch, before, time }))
            }
            Order::Newer(_) => Ok(None),
            Order::Same => Err("duplicate"),
            Order::Older => Err("out_of_order"),
        }
    }
}

impl ShardEncoder for RemoteEncoder {
    type Body = WriteBody;

    fn shards(&self) -> usize {
        self.shards.len()
    }

    fn encode(&mut self, batch: &Batch, out: &mut Output<'_, WriteBody>) {
        self.begin(out);
        let partition = self.whose(batch);
        if let Some(sums) = &mut self.sums {
            sums.begin(partition, batch.tenant.is_some());
        }
        let request = batch.rope.to_bytes();
        self.budget = request.len().saturating_mul(BATCH_TIMES).saturating_add(BATCH);
        if let Err(error) = self.walk(&request, partition, out) {
            tracing::debug!(%error, "a batch could not be read to its end");
        }
        if self.series.told_to(partition) != 0 {
            // Whom it is told to is known while there is a batch of theirs.
            self.tell(partition, out);
        }
    }

    fn close(&mut self, shard: usize) -> Option<WriteBody> {
        let version = self.version;
        self.shards.get_mut(shard)?.close(version, &self.returned, &mut self.snappy)
    }

    fn open_size(&self, shard: usize) -> usize {
        self.shards.get(shard).map_or(0, Open::held)
    }

    fn partition(&self, client: &ClientInfo) -> u64 {
        if self.apart.is_empty() {
            return 0;
        }
        let mut text = Vec::new();
        for key in &self.apart {
            for value in key.values(client) {
                text.extend_from_slice(&(value.len() as u64).to_le_bytes());
                text.extend_from_slice(value.as_bytes());
            }
            text.extend_from_slice(&u64::MAX.to_le_bytes());
        }
        // 0 is nobody.
        self.series.hash(&text) as u64 | 1
    }

    fn keep_apart(&mut self, keys: &[ClientKey]) {
        for key in keys {
            if !self.apart.iter().any(|known| known.same(key)) {
                self.apart.push(key.clone());
            }
        }
    }

    fn tick(&mut self, out: &mut Output<'_, WriteBody>) {
        self.now = now();
        if let Some(sums) = &mut self.sums {
            sums.expire(self.now);
        }
        let (figures, streams) = (self.cache(), self.sums.as_ref().map_or(0, Sums::len));
        if let Some(gauges) = &mut self.gauges {
            gauges.show(figures, streams);
        }
        self.tell(0, out);
    }
}

/// What a series cache did and holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheFigures {
    /// Series found.
    pub hits: u64,
    /// Series that took the long way.
    pub misses: u64,
    /// Series forgotten for want of room.
    pub forgotten: u64,
    /// Series held.
    pub series: usize,
    /// Bytes held, with families and orders.
    pub bytes: usize,
}

/// Drops in a row for one reason, reported together.
#[derive(Default)]
struct Dropped {
    reason: &'static str,
    count: usize,
}

impl Dropped {
    fn one(&mut self, reason: &'static str, out: &mut Output<'_, WriteBody>) {
        if self.reason != reason {
            self.flush(out);
            self.reason = reason;
        }
        self.count += 1;
    }

    fn flush(&mut self, out: &mut Output<'_, WriteBody>) {
        if self.count > 0 {
            out.dropped(std::mem::take(&mut self.count), self.reason);
        }
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}
