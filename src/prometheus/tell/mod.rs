//! Tells what OTLP metrics become, for `tidegate names`: families, series, what is dropped and why, collisions.
//!
//! There is no second mapping here. Each data point goes alone through the encoder of the push exporter, with the
//! options of its configuration, and the series told are read from the requests that come out. Points keep their
//! order, so repetitions and late points are dropped as they would be.
//!
//! One thing is unlike a running agent, because a recording is no live traffic: nothing grows old. `sample_age_limit`
//! does not count, and delta streams do not expire.
//!
//! Costs: some ten microseconds a point, and memory for every series and every different list of attributes.

mod collisions;
mod decode;
mod histogram;
mod labels;
mod pieces;
mod print;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use smallvec::SmallVec;

pub use self::collisions::Collision;
use self::decode::Sample;
use self::labels::{Attribute, texts};
pub use self::labels::{LabelFate, LabelNote};
use super::map::{DELTA, Family, Mapper};
use super::names::TranslationStrategy;
use super::remote::{OutOfOrder, RemoteEncoder, RemoteOptions, Version, WriteBody};
use crate::exporters::delivery::sharded::{Report, ShardEncoder as _};
use crate::pdata::common::{Attributes, ResourceGroup, ScopeGroup, groups};
use crate::pdata::fields::{exponential_histogram_point, histogram_point, number_point, summary_point};
use crate::pdata::metrics::{self, Kind};
use crate::pdata::wire::WireError;
use crate::pdata::{Batch, ClientInfo, Rope, Signal};
use crate::pipeline::Acks;

/// Names and values, in order.
pub type Labels = Vec<(String, String)>;

/// What metrics became.
#[derive(Debug)]
pub struct Told {
    /// The version of the protocol they were encoded in.
    pub version: Version,
    /// How names were made.
    pub strategy: TranslationStrategy,
    /// The metrics, in the order in which they came.
    pub metrics: Vec<Metric>,
    /// The series of the metrics, in the order in which they came.
    pub series: Vec<Series>,
    /// The labels of `target_info` series.
    pub targets: Vec<Labels>,
    /// Attributes that are no labels, though they have values.
    pub notes: BTreeSet<LabelNote>,
    /// Different things that become one.
    pub collisions: Vec<Collision>,
}

/// One OTLP metric, whatever resource and scope it comes from.
#[derive(Debug)]
pub struct Metric {
    /// Its name.
    pub name: String,
    /// Its unit.
    pub unit: String,
    /// Its description.
    pub description: String,
    /// What kind of points it has.
    pub kind: Kind,
    /// AggregationTemporality.
    pub temporality: i32,
    /// Whether it never falls.
    pub monotonic: bool,
    /// What it becomes, or the reason why it cannot.
    pub family: Result<Family, &'static str>,
    /// How many points came.
    pub points: usize,
    /// What was sent for its points: places in [`Told::series`], in order.
    pub sent: Vec<Sent>,
    /// How many points were dropped for each reason.
    pub dropped: BTreeMap<&'static str, usize>,
}

/// What was sent of a series.
#[derive(Debug)]
pub struct Sent {
    /// Which of [`Told::series`].
    pub series: usize,
    /// How many samples.
    pub samples: usize,
    /// The last of them, as text.
    pub value: String,
    /// The exemplars with it, and their values as text.
    pub exemplars: Vec<(Labels, String)>,
}

/// One series.
#[derive(Debug)]
pub struct Series {
    /// Its labels, the name among them, sorted.
    pub labels: Labels,
    /// What its samples come from, or would come from if none were dropped as repeated or late.
    origins: BTreeSet<Origin>,
}

/// Takes metrics, to tell what becomes of them.
pub struct Teller {
    mapper: Mapper,
    version: Version,
    /// As configured.
    encoder: RemoteEncoder,
    /// Drops nothing for its order: what would be the series of a repeated point?
    lenient: RemoteEncoder,
    target_info: bool,
    metrics: Vec<Metric>,
    metric_ids: HashMap<MetricKey, usize>,
    series: Vec<Series>,
    series_ids: HashMap<Labels, usize>,
    /// For each metric, where a series is among those sent.
    sent_ids: HashMap<(usize, usize), usize>,
    targets: BTreeSet<Labels>,
    /// Those of points that are dropped as repeated or late too.
    all_targets: BTreeSet<Labels>,
    resources: Interned,
    scopes: Interned,
    points: Interned,
    notes: BTreeSet<LabelNote>,
}

/// What a sample comes from; numbers of interned things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Origin {
    metric: usize,
    resource: usize,
    scope: usize,
    point: usize,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct MetricKey {
    name: Vec<u8>,
    unit: Vec<u8>,
    kind: Kind,
    temporality: i32,
    monotonic: bool,
}

/// Lists of attributes, each once.
#[derive(Debug, Default)]
struct Interned {
    ids: HashMap<Vec<Attribute>, usize>,
    lists: Vec<Vec<Attribute>>,
}

/// What one point became.
struct Point {
    series: Vec<Sample>,
    targets: Vec<Sample>,
    dropped: Option<&'static str>,
}

impl Teller {
    /// A teller for metrics that are sent with these options.
    pub fn new(options: &RemoteOptions) -> Self {
        let options = RemoteOptions {
            shards: 1,
            sample_age_limit: Duration::ZERO,
            senders_wait: false,
            metadata: false,
            ..options.clone()
        };
        Teller {
            mapper: Mapper::new(options.map.clone()),
            version: options.negotiation.version(Instant::now()),
            target_info: options.map.target_info,
            lenient: RemoteEncoder::new(RemoteOptions { out_of_order: OutOfOrder::Keep, ..options.clone() }),
            encoder: RemoteEncoder::new(options),
            metrics: Vec::new(),
            metric_ids: HashMap::new(),
            series: Vec::new(),
            series_ids: HashMap::new(),
            sent_ids: HashMap::new(),
            targets: BTreeSet::new(),
            all_targets: BTreeSet::new(),
            resources: Interned::default(),
            scopes: Interned::default(),
            points: Interned::default(),
            notes: BTreeSet::new(),
        }
    }

    /// Takes one encoded ExportMetricsServiceRequest.
    ///
    /// # Errors
    /// It cannot be read. What comes before the fault is told all the same.
    pub fn read(&mut self, request: &[u8]) -> Result<(), WireError> {
        for group in groups(request) {
            let group = group?;
            let resource = self.resources.intern(texts(group.attributes())?);
            self.resource_notes(group)?;
            for scope in group.scopes() {
                let scope = scope?;
                let scope_id = self.scopes.intern(labels::scope_texts(scope)?);
                self.scope_notes(scope)?;
                for metric in scope.items() {
                    let metric = metrics::Metric::parse(metric?)?;
                    let id = self.metric(&metric)?;
                    for point in metric.points() {
                        self.point((group, resource), (scope, scope_id), (&metric, id), point?)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether no metric has come.
    pub fn is_empty(&self) -> bool {
        self.metrics.is_empty()
    }

    /// What became of all that came.
    pub fn finish(mut self) -> Told {
        let collisions = self.collisions();
        self.notes.retain(|note| note.fate != LabelFate::Joined);
        let Teller { mapper, version, metrics, series, targets, notes, .. } = self;
        Told {
            version,
            strategy: mapper.options().namer.strategy(),
            metrics,
            series,
            targets: targets.into_iter().collect(),
            notes,
            collisions,
        }
    }

    fn metric(&mut self, metric: &metrics::Metric<'_>) -> Result<usize, WireError> {
        let key = MetricKey {
            name: metric.name.to_vec(),
            unit: metric.unit.to_vec(),
            kind: metric.kind,
            temporality: metric.temporality,
            monotonic: metric.monotonic,
        };
        if let Some(&id) = self.metric_ids.get(&key) {
            return Ok(id);
        }
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let id = self.metrics.len();
        self.metrics.push(Metric {
            name: text(metric.name),
            unit: text(metric.unit),
            description: text(metric.description),
            kind: metric.kind,
            temporality: metric.temporality,
            monotonic: metric.monotonic,
            family: self.mapper.family(metric)?.map_err(|why| why.reason()),
            points: 0,
            sent: Vec::new(),
            dropped: BTreeMap::new(),
        });
        self.metric_ids.insert(key, id);
        Ok(id)
    }

    fn point(
        &mut self,
        (group, resource): (ResourceGroup<'_>, usize),
        (scope, scope_id): (ScopeGroup<'_>, usize),
        (metric, id): (&metrics::Metric<'_>, usize),
        point: &[u8],
    ) -> Result<(), WireError> {
        let request = Bytes::from(pieces::one_point(group, scope, metric, point)?);
        let attributes = texts(Attributes::of(point, attributes_field(metric.kind)))?;
        let sent = encode(&mut self.encoder, &request)?;
        let could = encode(&mut self.lenient, &request)?;
        self.point_notes(id, &attributes, could.series.first());
        let origin = Origin { metric: id, resource, scope: scope_id, point: self.points.intern(attributes) };
        self.all_targets.extend(could.targets.into_iter().map(|sample| sample.labels));
        for sample in could.series {
            let series = self.series(sample.labels);
            if let Some(series) = self.series.get_mut(series) {
                series.origins.insert(origin);
            }
        }
        for sample in sent.series {
            let series = self.series(sample.labels);
            let Some(metric) = self.metrics.get_mut(id) else { continue };
            let at = *self.sent_ids.entry((id, series)).or_insert(metric.sent.len());
            if at == metric.sent.len() {
                metric.sent.push(Sent { series, samples: 0, value: String::new(), exemplars: Vec::new() });
            }
            if let Some(known) = metric.sent.get_mut(at) {
                known.samples += 1;
                known.value = sample.value;
                known.exemplars = sample.exemplars;
            }
        }
        self.targets.extend(sent.targets.into_iter().map(|sample| sample.labels));
        if let Some(metric) = self.metrics.get_mut(id) {
            metric.points += 1;
            if let Some(reason) = sent.dropped {
                *metric.dropped.entry(reason).or_default() += 1;
            }
        }
        Ok(())
    }

    /// The number of a series.
    fn series(&mut self, labels: Labels) -> usize {
        if let Some(&id) = self.series_ids.get(&labels) {
            return id;
        }
        let id = self.series.len();
        self.series_ids.insert(labels.clone(), id);
        self.series.push(Series { labels, origins: BTreeSet::new() });
        id
    }
}

impl Metric {
    /// Whether all its points are left out for what the metric is.
    fn is_left_out(&self) -> bool {
        self.family.is_err()
            || self.temporality == DELTA && self.dropped.get("delta").is_some_and(|n| *n == self.points)
    }
}

impl Interned {
    fn intern(&mut self, list: Vec<Attribute>) -> usize {
        if let Some(&id) = self.ids.get(&list) {
            return id;
        }
        let id = self.lists.len();
        self.lists.push(list.clone());
        self.ids.insert(list, id);
        id
    }

    fn get(&self, id: usize) -> &[Attribute] {
        self.lists.get(id).map(Vec::as_slice).unwrap_or_default()
    }
}

/// Sends one point through an encoder.
fn encode(encoder: &mut RemoteEncoder, request: &Bytes) -> Result<Point, WireError> {
    let batch = Batch {
        signal: Signal::Metrics,
        rope: Rope::from(request.clone()),
        items: 1,
        client: Arc::new(ClientInfo::default()),
        tenant: None,
        demoted: false,
        received: Instant::now(),
        leases: SmallVec::new(),
        acks: Acks::none(),
    };
    let mut report = Report::<WriteBody>::new(1);
    encoder.encode(&batch, &mut report.output());
    let rest = encoder.close(0);
    let mut point = Point { series: Vec::new(), targets: Vec::new(), dropped: None };
    let mut items = 0;
    for body in report.closed().iter().map(|closed| &closed.body).chain(&rest) {
        let (mut series, count) = decode::samples(body)?;
        items += count;
        point.targets.extend(series.split_off(count.min(series.len())));
        point.series.append(&mut series);
    }
    if items == 0 {
        point.dropped = Some(report.dropped().first().map_or("unencodable", |(_, reason)| reason));
    }
    Ok(point)
}

fn attributes_field(kind: Kind) -> u32 {
    match kind {
        Kind::Histogram => histogram_point::ATTRIBUTES,
        Kind::ExponentialHistogram => exponential_histogram_point::ATTRIBUTES,
        Kind::Summary => summary_point::ATTRIBUTES,
        Kind::Gauge | Kind::Sum | Kind::Empty => number_point::ATTRIBUTES,
    }
}
