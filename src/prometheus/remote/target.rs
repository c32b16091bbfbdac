//! `target_info`: the series that describes a resource, sent at the times of its points.

use std::collections::HashMap;
use std::sync::Arc;

use super::body::WriteBody;
use super::encoder::RemoteEncoder;
use super::families::{Form, Known, label};
use super::open::Sample;
use super::series::{ResourceCx, SLACK, Series};
use crate::exporters::delivery::sharded::Output;
use crate::pdata::wire::WireError;
use crate::prometheus::map::{Family, LabelSet, MetricType, NAME};

/// How many resources' `target_info` is remembered.
const MOST: usize = 16 << 10;
/// How far apart `target_info` samples are within one batch: half of Prometheus' default look-back.
const TARGET_INFO_STEP: i64 = 150_000;
/// How soon the next one may follow.
const TARGET_INFO_REST: i64 = 60_000;
/// How much of the past one batch gets `target_info` for.
const TARGET_INFO_SPAN: i64 = 24 * TARGET_INFO_STEP;

/// A `target_info` series.
#[derive(Debug)]
pub(super) struct Target {
    pub labels: LabelSet,
    pub group: u32,
    pub shard: u32,
}

/// What is remembered of resources, also that they have none.
#[derive(Debug, Default)]
pub(super) struct Targets {
    known: HashMap<u128, Option<Arc<Target>>>,
    bytes: usize,
}

impl Targets {
    /// Forgets all.
    pub fn clear(&mut self) {
        *self = Targets::default();
    }

    /// About how many bytes there are.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn insert(&mut self, resource: u128, target: Option<Arc<Target>>) {
        self.bytes += 128 + target.as_ref().map_or(0, |target| target.labels.bytes());
        self.known.insert(resource, target);
    }
}

impl Series {
    /// The `target_info` of a resource.
    pub fn target(&mut self, resource: &mut ResourceCx<'_>) -> Result<Option<Arc<Target>>, WireError> {
        if let Some(known) = self.targets.known.get(&resource.hash) {
            return Ok(known.clone());
        }
        let mapped = match resource.labels.take() {
            Some(mapped) => mapped,
            None => self.mapper.resource(resource.group.attributes())?,
        };
        let family = self.target_family(resource.partition);
        let target = mapped.target_info.as_ref().map(|labels| {
            let (group, shard) = self.identify(labels, family, "", resource.partition);
            Arc::new(Target { labels: labels.clone(), group, shard })
        });
        resource.labels = Some(mapped);
        if self.targets.known.len() >= MOST || self.targets.bytes > self.cap / 8 + SLACK {
            self.targets.clear();
        }
        self.targets.insert(resource.hash, target.clone());
        Ok(target)
    }

    /// The family of `target_info`, ready to be written.
    pub fn target_family(&mut self, partition: u64) -> u32 {
        let partition = self.told_to(partition);
        // Even, which no other family's is.
        let key = u128::from(partition) << 1;
        let at = match self.families.find(key) {
            Some(at) => at,
            None => {
                let family = Family {
                    name: self.mapper.options().namer.target_info(),
                    kind: MetricType::Gauge,
                    help: "Target metadata".to_owned(),
                    unit: String::new(),
                };
                self.remember(key, Known::new(family, b"", None, partition), Form::Single)
            }
        };
        if let Some(known) = self.families.get_mut(at) {
            known.seen = true;
            known.prepare(self.version, self.store.generation(), self.store.symbols_mut());
        }
        at
    }
}

impl RemoteEncoder {
    /// `target_info` for the time that the points of a resource span.
    pub(super) fn target_info(
        &mut self,
        resource: &mut ResourceCx<'_>,
        out: &mut Output<'_, WriteBody>,
    ) -> Result<(), WireError> {
        let Some(target) = self.series.target(resource)? else { return Ok(()) };
        let (horizon, (first, last)) = (self.horizon(), resource.times);
        let mut time = first.max(last - TARGET_INFO_SPAN);
        loop {
            let newest = self.series.groups.newest(target.group);
            let rested = time >= newest.saturating_add(TARGET_INFO_REST);
            let due = newest == i64::MIN || rested || newest > horizon && time <= horizon;
            if due && self.budget > 0 {
                self.series.groups.advance(target.group, time, horizon);
                let shard = self.tell_target(&target, resource.partition, time);
                self.grown(shard, out);
            }
            if time >= last {
                return Ok(());
            }
            time = (time + TARGET_INFO_STEP).min(last);
        }
    }

    /// Writes a `target_info` sample; gives its shard.
    fn tell_target(&mut self, target: &Target, partition: u64, time: i64) -> usize {
        let family = self.series.target_family(partition);
        let version = self.version();
        let RemoteEncoder { series, shards, scratch, .. } = self;
        let shard = target.shard as usize;
        let Some(known) = series.families.get_mut(family) else { return shard };
        let (name, meta) = (known.names[0].clone(), known.meta);
        let block = &mut scratch.message;
        block.clear();
        let before = target.labels.before(NAME);
        for (i, (label_name, value)) in target.labels.iter().enumerate() {
            if i == before {
                block.extend_from_slice(&name);
            }
            label(version, series.store.symbols_mut(), label_name, value, block);
        }
        if before >= target.labels.len() {
            block.extend_from_slice(&name);
        }
        if let Some(open) = shards.get_mut(shard) {
            let sample = Sample { bits: 1f64.to_bits(), time, start: 0 };
            let start = open.series_size();
            open.series(series.store.symbols(), &[block], Some(sample), &[], meta);
            open.end_extra(start);
        }
        shard
    }
}
