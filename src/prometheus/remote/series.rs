//! Which series a point is: found by the hash of its bytes, or made the long way and remembered.
//!
//! The key of a point is the hash of its attributes, mixed with that of everything above it: partition, resource,
//! scope, metric; see [`Identity`].

use super::body::Version;
use super::cache::{Store, Symbols};
use super::encoder::{CacheFigures, MetricCx};
use super::families::{Families, Form, Known, label};
use super::groups::{Groups, Order};
use super::target::Targets;
use super::{Exponential, OutOfOrder, RemoteOptions};
use crate::pdata::common::{Attributes, ResourceGroup, ScopeGroup};
use crate::pdata::metrics::{Kind, Metric};
use crate::pdata::wire::WireError;
use crate::prometheus::identity::{Identity, attributes_field};
use crate::prometheus::map::{DELTA, Family, LabelSet, Mapper, NAME, Resource, Scope};
use crate::prometheus::scan::Scan;

/// What a cache may pass its share by while a batch is worked on, so that small caches need not begin anew all the
/// time.
pub(super) const SLACK: usize = 1 << 20;

/// Everything that is known of series.
pub(super) struct Series {
    pub mapper: Mapper,
    pub version: Version,
    pub store: Store,
    pub groups: Groups,
    pub families: Families,
    pub targets: Targets,
    identity: Identity,
    shards: u32,
    exponential: Exponential,
    /// Whether series that several metrics make are told apart. Not where late samples are wanted, and not where
    /// samples may come again because their sender waits.
    single: bool,
    /// Whether 2.0 makes native histograms of histograms, and keeps the classic form too.
    native_histograms: Option<bool>,
    /// Whether delta temporality is converted.
    accumulates: bool,
    /// Whether each partition has families of its own, because it is told of them: a tenant learns nothing of others.
    families_apart: bool,
    /// The cap of all caches, bytes.
    pub cap: usize,
    /// The block that was made last, for series that are not kept.
    block: Vec<u8>,
    labels: LabelSet,
    buffer: Vec<u8>,
}

/// Where a point's series are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed {
    /// The hash of everything that makes the series.
    pub key: u128,
    pub group: u32,
    pub shard: u32,
    pub cuts: (u32, u32),
    /// The entry; `None` for a block that is not kept.
    at: Option<u32>,
}

/// One resource on the way through its metrics.
pub(super) struct ResourceCx<'a> {
    pub group: ResourceGroup<'a>,
    /// The earliest and the latest time of its samples, milliseconds.
    pub times: (i64, i64),
    pub hash: u128,
    pub partition: u64,
    /// What it gives to its series, once that is known.
    pub labels: Option<Resource>,
    scope: Option<(u128, Scope)>,
}

impl Series {
    pub fn new(options: &RemoteOptions, version: Version) -> Self {
        let cap = options.cache_bytes;
        Series {
            mapper: Mapper::new(options.map.clone()),
            version,
            store: Store::new(cap / 4 * 3, version == Version::V2),
            // A group takes about 32 bytes.
            groups: Groups::new(cap / 8 / 32),
            families: Families::default(),
            targets: Targets::default(),
            identity: Identity::new(),
            shards: options.shards.max(1) as u32,
            exponential: options.exponential,
            single: options.out_of_order == OutOfOrder::Drop && !options.senders_wait,
            native_histograms: options.custom_buckets.then_some(options.keep_classic),
            accumulates: options.delta.is_some(),
            families_apart: options.metadata,
            cap,
            block: Vec::new(),
            labels: LabelSet::default(),
            buffer: Vec::new(),
        }
    }

    /// Begins anew in another version. Orders are kept.
    pub fn restart(&mut self, version: Version) {
        self.version = version;
        let figures = (self.store.hits, self.store.misses, self.store.forgotten);
        self.store = Store::new(self.cap / 4 * 3, version == Version::V2);
        (self.store.hits, self.store.misses, self.store.forgotten) = figures;
        self.families.clear();
    }

    /// Whether a cache has had its share.
    pub fn is_full(&self) -> bool {
        self.store.is_full() || self.groups.is_full() || self.families.bytes() > self.cap / 8
    }

    /// Brings the caches back below their shares. Symbols and entries are numbered anew. The horizon is that of
    /// [`Groups::advance`].
    pub fn make_room(&mut self, horizon: i64) {
        if self.store.is_full() {
            self.store.age();
        }
        if self.groups.is_full() {
            self.groups.shrink(horizon);
            self.store.clear();
            self.targets.clear();
        }
        if self.families.bytes() > self.cap / 8 {
            self.families.clear();
        }
    }

    pub fn figures(&self) -> CacheFigures {
        CacheFigures {
            hits: self.store.hits,
            misses: self.store.misses,
            forgotten: self.store.forgotten,
            series: self.store.len(),
            bytes: self.store.bytes() + self.groups.bytes() + self.families.bytes() + self.targets.bytes(),
        }
    }

    /// A hash that nobody outside can foresee.
    pub fn hash(&self, bytes: &[u8]) -> u128 {
        self.identity.hash(bytes)
    }

    /// Begins a resource.
    pub fn resource<'a>(
        &mut self,
        group: ResourceGroup<'a>,
        partition: u64,
    ) -> Result<ResourceCx<'a>, WireError> {
        let hash = self.identity.resource(group, partition)?;
        Ok(ResourceCx { group, times: (i64::MAX, i64::MIN), hash, partition, labels: None, scope: None })
    }

    /// The hash of what stands above the metrics of a scope.
    pub fn above(&mut self, resource: &ResourceCx<'_>, scope: ScopeGroup<'_>) -> Result<u128, WireError> {
        if !self.mapper.options().scope_labels {
            return Ok(resource.hash);
        }
        self.identity.scope(resource.hash, scope)
    }

    /// The family of a metric, and the hash of everything above its points.
    #[inline]
    pub fn family(
        &mut self,
        metric: &Metric<'_>,
        above: u128,
        partition: u64,
    ) -> Result<(u32, u128), WireError> {
        let mut key = self.identity.metric(metric)?;
        if self.told_to(partition) != 0 {
            key = self.identity.mix(u128::from(partition), key);
        }
        // Odd: never the key of `target_info`.
        key |= 1;
        let seed = self.identity.mix(above, key);
        let at = match self.families.find(key) {
            Some(at) => at,
            None => self.meet(key, metric, partition)?,
        };
        if let Some(known) = self.families.get_mut(at) {
            known.seen = true;
            let changed = known.description != metric.description && known.skip.is_none();
            let before = if changed { known.bytes() } else { 0 };
            if changed {
                known.redescribe(metric.description);
            }
            known.prepare(self.version, self.store.generation(), self.store.symbols_mut());
            if changed {
                self.families.changed(at, before);
            }
        }
        Ok((at, seed))
    }

    #[cold]
    fn meet(&mut self, key: u128, metric: &Metric<'_>, partition: u64) -> Result<u32, WireError> {
        let (family, skip) = match self.mapper.family(metric)? {
            Ok(family) => (family, (metric.temporality == DELTA && !self.accumulates).then_some("delta")),
            Err(why) => (Family::default(), Some(why.reason())),
        };
        let form = match metric.kind {
            Kind::Histogram => match self.native_histograms.filter(|_| self.version == Version::V2) {
                None => Form::Classic,
                Some(true) => Form::Both,
                Some(false) => Form::Single,
            },
            Kind::ExponentialHistogram if self.exponential == Exponential::Classic => Form::Classic,
            Kind::Summary => Form::Summary,
            _ => Form::Single,
        };
        let known = Known::new(family, metric.description, skip, self.told_to(partition));
        Ok(self.remember(key, known, form))
    }

    /// Remembers a family, of which no number is held at this point. Others go where a batch has too many.
    pub fn remember(&mut self, key: u128, known: Known, form: Form) -> u32 {
        if self.families.bytes() > self.cap / 4 + SLACK {
            self.families.clear();
        }
        self.families.insert(key, known, form)
    }

    /// The partition as far as families are kept apart.
    pub fn told_to(&self, partition: u64) -> u64 {
        if self.families_apart { partition } else { 0 }
    }

    /// The series of a point.
    #[inline]
    pub fn place(
        &mut self,
        cx: &mut MetricCx<'_, '_>,
        scan: &Scan<'_>,
        point: &[u8],
    ) -> Result<Placed, WireError> {
        let hash = self.identity.attributes(cx.metric.kind, scan, point)?;
        let key = hash ^ cx.seed;
        if let Some(at) = self.store.find(key)
            && let Some((entry, _)) = self.store.entry(at)
        {
            let (group, shard, cuts) = (entry.group, entry.shard, entry.cuts);
            return Ok(Placed { key, group, shard, cuts, at: Some(at) });
        }
        self.make(key, cx, point)
    }

    /// The long way: maps the labels and remembers them.
    #[cold]
    fn make(&mut self, key: u128, cx: &mut MetricCx<'_, '_>, point: &[u8]) -> Result<Placed, WireError> {
        let mut labels = std::mem::take(&mut self.labels);
        let attributes = Attributes::of(point, attributes_field(cx.metric.kind));
        let scope_key = self.above(cx.resource, cx.scope)?;
        let resource = match &mut cx.resource.labels {
            Some(resource) => resource,
            none => none.insert(self.mapper.resource(cx.resource.group.attributes())?),
        };
        if cx.resource.scope.as_ref().is_none_or(|(key, _)| *key != scope_key) {
            cx.resource.scope = Some((scope_key, self.mapper.scope(cx.scope)?));
        }
        if let Some((_, scope)) = &cx.resource.scope {
            self.mapper.labels(resource, scope, attributes, &mut labels)?;
        }
        // What the series of the point differ in is not an attribute's to set.
        let own = match (cx.metric.kind, self.exponential) {
            (Kind::Histogram, _) | (Kind::ExponentialHistogram, Exponential::Classic) => "le",
            (Kind::Summary, _) => "quantile",
            _ => "",
        };
        labels.retain(|name| name != own);
        let number = matches!(cx.metric.kind, Kind::Gauge | Kind::Sum);
        let cuts = self.lay(&labels, own, number, cx.family);
        let (group, shard) = self.identify(&labels, cx.family, own, cx.resource.partition);
        let at = (self.block.len() <= Store::LARGEST && self.store.has_room())
            .then(|| self.store.insert(key, group, shard, cuts, &self.block));
        self.labels = labels;
        Ok(Placed { key, group, shard, cuts, at })
    }

    /// Lays labels out as a block: with the name's label for a number, else in three parts.
    fn lay(&mut self, labels: &LabelSet, own: &str, number: bool, family: u32) -> (u32, u32) {
        let mut block = std::mem::take(&mut self.block);
        block.clear();
        let before_name = labels.before(NAME);
        let before_own = labels.before(own).max(before_name);
        let mut cuts = (0, 0);
        for (i, (name, value)) in labels.iter().enumerate() {
            if i == before_name {
                self.name_here(number, family, &mut block, &mut cuts.0);
            }
            if i == before_own {
                cuts.1 = block.len() as u32;
            }
            label(self.version, self.store.symbols_mut(), name, value, &mut block);
        }
        if labels.len() <= before_name {
            self.name_here(number, family, &mut block, &mut cuts.0);
        }
        if labels.len() <= before_own {
            cuts.1 = block.len() as u32;
        }
        self.block = block;
        cuts
    }

    fn name_here(&mut self, number: bool, family: u32, block: &mut Vec<u8>, cut: &mut u32) {
        *cut = block.len() as u32;
        if number && let Some(known) = self.families.get_mut(family) {
            block.extend_from_slice(&known.names[0]);
        }
    }

    /// The group and the shard of labels.
    pub fn identify(&mut self, labels: &LabelSet, family: u32, own: &str, partition: u64) -> (u32, u32) {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        buffer.extend_from_slice(&partition.to_le_bytes());
        let mut late = Vec::new();
        for (name, value) in labels.iter() {
            let out = if matches!(name, "le" | "quantile") { &mut late } else { &mut buffer };
            // No UTF-8 text has this byte.
            for text in [name, value] {
                out.extend_from_slice(text.as_bytes());
                out.push(0xff);
            }
        }
        let shard = (self.identity.hash(&buffer) as u64 % u64::from(self.shards)) as u32;
        buffer.extend_from_slice(&late);
        if let Some(known) = self.families.get_mut(family) {
            buffer.extend_from_slice(known.family.name.as_bytes());
        }
        // The series of a classic histogram or summary have other names than a number of the family's name.
        buffer.push(0xff);
        buffer.extend_from_slice(own.as_bytes());
        let group = self.groups.intern(self.identity.hash(&buffer));
        self.buffer = buffer;
        (group, shard)
    }

    /// How many bytes the common labels of a placed point's series are.
    pub fn block_len(&self, placed: &Placed) -> usize {
        match placed.at {
            Some(at) => self.store.entry(at).map_or(0, |(_, block)| block.len()),
            None => self.block.len(),
        }
    }

    /// What is needed to write the series of a placed point: its labels, its family, and, if that clashes with
    /// another, the order of single series.
    pub fn written(
        &mut self,
        placed: &Placed,
        family: u32,
        partition: u64,
        horizon: i64,
    ) -> Option<(&[u8], &Known, &Symbols, Option<Clash<'_>>)> {
        let block = match placed.at {
            Some(at) => self.store.entry(at)?.1,
            None => &self.block,
        };
        let known = self.families.get(family)?;
        let clash = (known.clashes && self.single).then_some(Clash {
            groups: &mut self.groups,
            identity: &self.identity,
            partition,
            horizon,
        });
        Some((block, known, self.store.symbols(), clash))
    }
}

/// The order of single series, for metrics that have series of one name.
pub(super) struct Clash<'e> {
    groups: &'e mut Groups,
    identity: &'e Identity,
    partition: u64,
    horizon: i64,
}

impl Clash<'_> {
    /// Whether a series has nothing as new yet: whoever comes first at a time has it.
    pub fn is_first(&mut self, version: Version, symbols: &Symbols, parts: &[&[u8]], time: i64) -> bool {
        // Apart from the names of groups, which begin with a partition alone.
        let mut buffer = b"one series".to_vec();
        buffer.extend_from_slice(&self.partition.to_le_bytes());
        for part in parts {
            if version == Version::V1 {
                buffer.extend_from_slice(part);
                continue;
            }
            for id in part.chunks_exact(4).filter_map(|id| id.try_into().ok()) {
                buffer.extend_from_slice(symbols.get(u32::from_le_bytes(id)));
                buffer.push(0xff);
            }
        }
        let group = self.groups.intern(self.identity.hash(&buffer));
        matches!(self.groups.advance(group, time, self.horizon), Order::Newer(_))
    }
}
