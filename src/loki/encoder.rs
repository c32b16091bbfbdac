//! From a batch to the open requests of shards: the walk over resources, scopes and records.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::IntGauge;

use super::LokiOptions;
use super::body::LokiBody;
use super::cache::Cache;
use super::change::Change;
use super::entry::{claim_fields, entry_head, fields, line};
use super::metadata::Metadata;
use super::names::Names;
use super::open::Open;
use super::resolve::{Place, cut, is_hint};
use super::sources::{LabelSource, is_parent};
use crate::exporters::delivery::sharded::{Output, ShardEncoder};
use crate::pdata::common::{ResourceGroup, ScopeGroup, groups, pair};
use crate::pdata::logs::LogRecord;
use crate::pdata::wire::{WireError, put_varint};
use crate::pdata::{Batch, Tenant};
use crate::telemetry::{Counter, Metrics};

/// Makes push requests.
pub struct LokiEncoder {
    options: LokiOptions,
    names: Names,
    pub(super) cache: Cache,
    metadata: Metadata,
    shards: Vec<Open>,
    /// Entries of other tenants than the open request's, in the order in which they came.
    pending: Vec<Vec<Pending>>,
    snappy: snap::raw::Encoder,
    stamp: u32,
    /// Whether the severity has a say in the stream.
    by_severity: bool,
    /// Record fields that are labels and no metadata.
    text_is_label: bool,
    number_is_label: bool,
    buffer: Vec<u8>,
    head: Vec<u8>,
    line: String,
    /// Nanoseconds since 1970, as of the batch.
    now: u64,
    changes: [u64; 6],
    shown: Option<Shown>,
    id: String,
}

struct Pending {
    tenant: u32,
    stream: u32,
    time: u64,
    entry: Vec<u8>,
}

struct Shown {
    changes: Vec<Counter>,
    guarded: Counter,
    streams: Option<IntGauge>,
    bytes: Option<IntGauge>,
}

impl LokiEncoder {
    /// An encoder with empty caches.
    pub fn new(options: LokiOptions) -> Self {
        let shards = options.shards.max(1);
        let has = |source: LabelSource| options.labels.iter().any(|(_, s)| *s == source);
        let (text_is_label, number_is_label) =
            (has(LabelSource::SeverityText), has(LabelSource::SeverityNumber));
        let by_severity =
            text_is_label || number_is_label || options.old_labels.level || has(LabelSource::Level);
        LokiEncoder {
            names: Names::new(),
            cache: Cache::new(&options),
            metadata: Metadata::new(&options.limits),
            shards: (1..=shards as u32).map(Open::new).collect(),
            pending: std::iter::repeat_with(Vec::new).take(shards).collect(),
            snappy: snap::raw::Encoder::new(),
            stamp: shards as u32,
            by_severity,
            text_is_label,
            number_is_label,
            buffer: Vec::new(),
            head: Vec::new(),
            line: String::new(),
            now: now(),
            changes: [0; 6],
            shown: None,
            id: String::new(),
            options,
        }
    }

    /// Shows what is changed among the agent's metrics, under this exporter's id.
    #[must_use]
    pub fn with_metrics(mut self, metrics: &Metrics, id: &str) -> Self {
        let change = |change: &Change| {
            metrics.series(
                "tidegate_loki_changes",
                "What was changed in log records so that Loki takes them.",
                &[("exporter", id), ("change", change.word())],
            )
        };
        let gauge = |name: &str, help: &str| {
            metrics.gauge(name, help, &["exporter"]).map(|family| family.with_label_values(&[id]))
        };
        self.shown = Some(Shown {
            changes: Change::ALL.iter().map(change).collect(),
            guarded: metrics.series(
                "tidegate_loki_labels_demoted",
                "Labels that became structured metadata because a tenant had too many streams.",
                &[("exporter", id)],
            ),
            streams: gauge("tidegate_loki_streams", "Streams with entries in the last half hour."),
            bytes: gauge("tidegate_loki_cache_bytes", "Memory that known streams take, in bytes."),
        });
        self.id = id.to_owned();
        self
    }

    /// How often each change was made, in the order of [`Change::ALL`].
    pub fn changes(&self) -> [u64; 6] {
        self.changes
    }

    /// Look-ups of streams that were known, and that took the long way.
    pub fn cache(&self) -> (u64, u64) {
        (self.cache.hits, self.cache.misses)
    }

    fn look_at_the_clock(&mut self) {
        self.now = now();
        self.cache.now = (self.now / 1_000_000_000) as i64;
    }

    /// What must be so before a batch: room, a current clock, room for tenants, and whose it is.
    ///
    /// # Errors
    /// Why none of it is sent.
    fn begin(&mut self, batch: &Batch, out: &mut Output<'_, LokiBody>) -> Result<(), &'static str> {
        self.look_at_the_clock();
        if self.cache.has_many_tenants() {
            for shard in 0..self.shards.len() {
                self.close_into(shard, out);
            }
            self.shards.iter_mut().for_each(|open| open.tenant = 0);
            self.cache.forget_all(&self.options);
        }
        if self.names.is_full() {
            self.names.clear();
            self.metadata.forget();
            self.cache.forget();
        } else if self.cache.is_full() {
            self.cache.forget();
        }
        self.cache.begin(batch.tenant.as_ref().filter(|_| self.options.batch_tenant))
    }

    fn next_stamp(&mut self) -> u32 {
        self.stamp = self.stamp.wrapping_add(1).max(1);
        self.stamp
    }

    fn take(&mut self, shard: usize) -> Option<LokiBody> {
        let stamp = self.next_stamp();
        let open = self.shards.get_mut(shard)?;
        let tenant = self.cache.tenants.get(open.tenant as usize).and_then(|tenant| tenant.id.clone());
        open.close(tenant, stamp, &mut self.snappy)
    }

    fn close_into(&mut self, shard: usize, out: &mut Output<'_, LokiBody>) {
        if let Some(body) = self.take(shard) {
            out.full(shard, body);
        }
    }

    fn walk(&mut self, request: &[u8], out: &mut Output<'_, LokiBody>) -> Result<(), WireError> {
        for group in groups(request) {
            let group = group?;
            for scope in group.scopes() {
                let scope = scope?;
                let mut above = None;
                for message in scope.items() {
                    let record = LogRecord::parse(message?)?;
                    let place = Place { group, scope, record };
                    let at = match above {
                        Some(at) => at,
                        None => *above.insert(self.above(group, scope, &place)?),
                    };
                    if let Err(reason) = self.record(at, &place, out)? {
                        out.dropped(1, reason);
                    }
                }
            }
        }
        Ok(())
    }

    fn above(
        &mut self,
        group: ResourceGroup<'_>,
        scope: ScopeGroup<'_>,
        place: &Place<'_>,
    ) -> Result<u32, WireError> {
        self.buffer.clear();
        self.buffer.extend_from_slice(&self.cache.base.to_le_bytes());
        for (mark, messages) in [(b'r', group.resources()), (b's', scope.scopes())] {
            for message in messages {
                let message = message?;
                self.buffer.push(mark);
                put_varint(&mut self.buffer, message.len() as u64);
                self.buffer.extend_from_slice(message);
            }
        }
        let key = self.cache.hash(&self.buffer);
        self.cache.above(&self.options, key, place, false, &mut self.names)
    }

    /// What is above a record that has hints of its own.
    #[cold]
    fn hinted(&mut self, above: u32, place: &Place<'_>) -> Result<u32, WireError> {
        self.buffer.clear();
        if let Some(above) = self.cache.get_above(above) {
            self.buffer.extend_from_slice(&above.key.to_le_bytes());
        }
        for message in place.record.attributes().messages() {
            let message = message?;
            if is_hint(pair(message)?.0) {
                put_varint(&mut self.buffer, message.len() as u64);
                self.buffer.extend_from_slice(message);
            }
        }
        let key = self.cache.hash(&self.buffer);
        self.cache.above(&self.options, key, place, true, &mut self.names)
    }

    /// One record.
    fn record(
        &mut self,
        mut at: u32,
        place: &Place<'_>,
        out: &mut Output<'_, LokiBody>,
    ) -> Result<Result<(), &'static str>, WireError> {
        let record = &place.record;
        let time = match (record.time_unix_nano, record.observed_time_unix_nano) {
            (0, 0) => self.now,
            (0, observed) => observed,
            (time, _) => time,
        };
        let max_age = self.options.limits.max_age.as_nanos();
        if max_age > 0 && u128::from(self.now.saturating_sub(time)) > max_age {
            return Ok(Err("too_old"));
        }
        if !self.attributes(at, place)? {
            at = self.hinted(at, place)?;
            self.attributes(at, place)?;
        }
        let direct = self.buffer.len() == 16;
        let known = if direct { self.cache.direct(at) } else { None };
        let known = match known {
            Some(known) => known,
            None => {
                let key = self.cache.hash(&self.buffer);
                match self.cache.find(key) {
                    Some(known) => known,
                    None => self.cache.make(&self.options, key, at, direct, place, &mut self.names)?,
                }
            }
        };
        let Some(known) = self.cache.known(known) else { return Ok(Err("unencodable")) };
        let found = match &known.end {
            Ok(found) => found,
            Err(why) => return Ok(Err(why)),
        };
        let stream = found.stream;
        let (label_dropped, label_truncated) = (found.dropped, found.truncated);
        let mut demoted = 0;
        if let Some(block) = &found.demoted {
            demoted = block.len() as u64;
            if self.options.structured_metadata {
                self.metadata.claim_block(block);
            }
        }
        let Some(above) = self.cache.get_above(at) else { return Ok(Err("unencodable")) };
        if self.options.structured_metadata {
            fields(&mut self.metadata, &self.names, record, self.text_is_label, self.number_is_label);
            self.metadata.block(&above.block);
        }
        let nameless = self.metadata.nameless + above.nameless;
        let trimmed = self.metadata.trimmed;
        if trimmed > 0 && !self.options.limits.trim_metadata {
            return Ok(Err("metadata_too_large"));
        }
        let line = line(&self.options, above, place, &mut self.line)?;
        let max = self.options.limits.line;
        let cut_off = line.len() > max;
        if cut_off && !self.options.limits.cut_lines {
            return Ok(Err("line_too_long"));
        }
        let line = if cut_off { cut(line, max) } else { line };
        // The line may lie in the encoder's own buffer, which is not touched until the entry is written.
        entry_head(time, line.len(), self.metadata.bytes.len(), &mut self.head);
        let Some(known) = self.cache.streams.get_mut(stream as usize) else { return Ok(Err("unencodable")) };
        known.used = (self.now / 1_000_000_000) as i64;
        let (shard, tenant, labels) = (known.shard as usize, known.tenant, known.labels.len());
        let parts: [&[u8]; 3] = [&self.head, line.as_bytes(), &self.metadata.bytes];
        let need = Open::cost(parts.iter().map(|part| part.len()).sum(), labels);
        let Some(open) = self.shards.get_mut(shard) else { return Ok(Err("unencodable")) };
        for (slot, n) in self.changes.iter_mut().zip([
            u64::from(cut_off),
            demoted,
            label_truncated,
            label_dropped,
            trimmed,
            nameless,
        ]) {
            *slot += n;
        }
        if open.items() == 0 && self.pending.get(shard).is_none_or(Vec::is_empty) {
            open.tenant = tenant;
        }
        if open.tenant != tenant {
            if let Some(pending) = self.pending.get_mut(shard) {
                pending.push(Pending { tenant, stream, time, entry: parts.concat() });
            }
            return Ok(Ok(()));
        }
        if open.items() > 0 && open.size() + need > self.options.max_bytes {
            let stamp = self.stamp.wrapping_add(1).max(1);
            self.stamp = stamp;
            let id = self.cache.tenants.get(tenant as usize).and_then(|tenant| tenant.id.clone());
            if let Some(body) = open.close(id, stamp, &mut self.snappy) {
                out.full(shard, body);
            }
        }
        if let Some(known) = self.cache.streams.get_mut(stream as usize) {
            open.add(known, time, &parts);
        }
        out.item(shard);
        Ok(Ok(()))
    }

    /// Reads a record's attributes: metadata of those that are no labels, and in the buffer what decides the stream.
    /// `false` if there are hints among them that what is above does not know.
    fn attributes(&mut self, at: u32, place: &Place<'_>) -> Result<bool, WireError> {
        let record = &place.record;
        let Some(above) = self.cache.get_above(at) else { return Ok(true) };
        let metadata = &mut self.metadata;
        let structured = self.options.structured_metadata;
        let mut hinted = false;
        metadata.begin(&self.names);
        self.buffer.clear();
        self.buffer.extend_from_slice(&above.key.to_le_bytes());
        if structured {
            claim_fields(metadata, record, self.text_is_label, self.number_is_label);
        }
        for message in record.attributes().messages() {
            let message = message?;
            let (key, value) = pair(message)?;
            if is_hint(key) {
                hinted = true;
                continue;
            }
            let mut keep = true;
            for wanted in &above.wanted {
                let same = *wanted.key == *key;
                if same || is_parent(key, &wanted.key) {
                    put_varint(&mut self.buffer, message.len() as u64);
                    self.buffer.extend_from_slice(message);
                    keep = !same || wanted.keep;
                    break;
                }
            }
            if keep && structured {
                metadata.attribute(&mut self.names, key, &value)?;
            }
        }
        if self.by_severity {
            self.buffer.extend_from_slice(&record.severity_number.to_le_bytes());
            self.buffer.extend_from_slice(record.severity_text);
            // With the old exporter's labels, an attribute of that name keeps the severity from being one.
            let own = self.options.old_labels.level && record.attributes().get(b"level")?.is_some();
            self.buffer.push(u8::from(own));
        }
        // Hints that are known are in the key of what is above.
        Ok(!hinted || above.hinted)
    }

    /// Appends what waits for requests of other tenants.
    fn flush_pending(&mut self, out: &mut Output<'_, LokiBody>) {
        for shard in 0..self.pending.len() {
            let mut pending = match self.pending.get_mut(shard) {
                Some(pending) if !pending.is_empty() => std::mem::take(pending),
                _ => continue,
            };
            // Stable: a tenant's entries stay in their order.
            pending.sort_by_key(|entry| entry.tenant);
            for entry in pending {
                let labels =
                    self.cache.streams.get(entry.stream as usize).map_or(0, |stream| stream.labels.len());
                let need = Open::cost(entry.entry.len(), labels);
                let other = self.shards.get(shard).is_some_and(|open| {
                    open.tenant != entry.tenant || open.size() + need > self.options.max_bytes
                });
                if other {
                    self.close_into(shard, out);
                }
                let stream = self.cache.streams.get_mut(entry.stream as usize);
                if let (Some(open), Some(stream)) = (self.shards.get_mut(shard), stream) {
                    open.tenant = entry.tenant;
                    open.add(stream, entry.time, &[&entry.entry]);
                    out.item(shard);
                }
            }
        }
    }

    fn tell(&mut self, before: [u64; 6]) {
        let guarded = std::mem::take(&mut self.cache.guarded);
        let Some(shown) = &self.shown else { return };
        for ((counter, now), before) in shown.changes.iter().zip(self.changes).zip(before) {
            counter.add(now - before);
        }
        for event in guarded {
            shown.guarded.add(1);
            tracing::warn!(
                otelcol.component.id = %self.id, otelcol.component.kind = "exporter",
                tenant = event.tenant.as_ref().map_or("", Tenant::name), label = %event.label,
                values = event.values, limit = self.options.limits.streams,
                "Too many streams. The label with most values is structured metadata from now on."
            );
        }
    }
}

impl ShardEncoder for LokiEncoder {
    type Body = LokiBody;

    fn shards(&self) -> usize {
        self.shards.len()
    }

    fn encode(&mut self, batch: &Batch, out: &mut Output<'_, LokiBody>) {
        if let Err(reason) = self.begin(batch, out) {
            return out.dropped(batch.items, reason);
        }
        let before = self.changes;
        let request = batch.rope.to_bytes();
        if let Err(error) = self.walk(&request, out) {
            tracing::debug!(%error, "a batch could not be read to its end");
        }
        self.flush_pending(out);
        self.tell(before);
    }

    fn close(&mut self, shard: usize) -> Option<LokiBody> {
        self.take(shard)
    }

    fn open_size(&self, shard: usize) -> usize {
        self.shards.get(shard).map_or(0, Open::size)
    }

    fn open_tenant(&self, shard: usize) -> Option<&Tenant> {
        let open = self.shards.get(shard)?;
        self.cache.tenants.get(open.tenant as usize)?.id.as_ref()
    }

    fn tick(&mut self, _out: &mut Output<'_, LokiBody>) {
        self.look_at_the_clock();
        self.cache.expire();
        let (streams, bytes) = self.cache.figures();
        if let Some(shown) = &self.shown {
            for (gauge, value) in [(&shown.streams, streams), (&shown.bytes, bytes)] {
                if let Some(gauge) = gauge {
                    gauge.set(value as i64);
                }
            }
        }
    }
}

/// Nanoseconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}
