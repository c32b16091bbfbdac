//! The last value of every series, taken from batches as they come.
//!
//! A steady series is recognised by a hash of its raw bytes (resource, scope, metric, attributes): its point costs
//! one pass over its fields, one hash, one look-up and one store. A series that is not known takes the long way
//! through [`Mapper`].
//!
//! Promises: every data point is stored, or dropped for a reason; a point older than the last one of its series
//! changes nothing; the number of series has a limit, and what one may hold has one too.

mod points;
pub mod series;
#[cfg(test)]
mod tests;
pub mod value;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use self::points::Scratch;
use self::series::{Refusal, Series};
use self::value::{Bounds, Value};
use crate::pdata::common::{Attributes, ResourceGroup, ScopeGroup, groups};
use crate::pdata::metrics::{Kind, Metric};
use crate::pdata::wire::WireError;
use crate::prometheus::delta::{Accumulator, Limits};
use crate::prometheus::identity::{Identity, attributes_field};
use crate::prometheus::map::{Family, LabelSet, MapOptions, Mapper, MetricType, Resource, Scope};

/// How many metrics are remembered.
const METRICS: usize = 64 << 10;
/// How many resources without `target_info` are remembered.
const UNTOLD: usize = 16 << 10;

/// How the state is kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// How metrics are mapped.
    pub map: MapOptions,
    /// How long a series stays without a point.
    pub expiration: Duration,
    /// How many series there may be, as Prometheus counts them.
    pub max_series: usize,
    /// Whether exemplars are kept.
    pub exemplars: bool,
}

/// All series.
pub struct State {
    /// The series themselves.
    pub series: Series,
    mapper: Mapper,
    options: Options,
    identity: Identity,
    metrics: HashMap<u128, u32>,
    known: Vec<Known>,
    untold: HashSet<u128>,
    sums: Accumulator,
    scratch: Scratch,
    labels: LabelSet,
    /// The labels made last, as text.
    block: String,
}

/// What became of a batch.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Points that were stored.
    pub stored: usize,
    /// Points that were not, by reason.
    pub dropped: SmallVec<[(&'static str, usize); 2]>,
    /// A family that was not taken because of another of its name.
    pub conflict: Option<String>,
}

/// A metric that came before.
struct Known {
    family: Arc<Family>,
    description: Vec<u8>,
    skip: Option<&'static str>,
    /// Those of its last histogram.
    bounds: Option<Arc<Bounds>>,
}

/// One resource on the way through its metrics.
struct ResourceCx<'a> {
    group: ResourceGroup<'a>,
    hash: u128,
    labels: Option<Resource>,
    scope: Option<(u128, Scope)>,
    /// The latest time of what was stored; `None` if nothing was.
    latest: Option<u64>,
}

/// One metric on the way through its points.
struct MetricCx<'c, 'a> {
    metric: Metric<'a>,
    family: Arc<Family>,
    known: u32,
    seed: u128,
    above: u128,
    scope: ScopeGroup<'a>,
    resource: &'c mut ResourceCx<'a>,
}

/// Where a point's series is.
enum Place {
    Slot(u32),
    /// There is none yet; its labels are in `block`.
    New(u128),
}

impl State {
    /// Knows no series yet.
    pub fn new(options: Options) -> Self {
        let limits = Limits { max_streams: options.max_series, max_stale: options.expiration };
        State {
            series: Series::new(options.max_series),
            mapper: Mapper::new(options.map.clone()),
            identity: Identity::new(),
            metrics: HashMap::new(),
            known: Vec::new(),
            untold: HashSet::new(),
            sums: Accumulator::new(limits),
            scratch: Scratch::default(),
            labels: LabelSet::default(),
            block: String::new(),
            options,
        }
    }

    /// Whether names may have any character.
    pub fn has_utf8_names(&self) -> bool {
        !self.options.map.namer.strategy().escapes()
    }

    /// Takes the points of a request. `now` is in milliseconds of any clock that does not go back.
    pub fn take(&mut self, request: &[u8], now: u64) -> Outcome {
        if self.known.len() > METRICS {
            self.known.clear();
            self.metrics.clear();
        }
        if self.untold.len() > UNTOLD {
            self.untold.clear();
        }
        let mut outcome = Outcome::default();
        if let Err(error) = self.walk(request, now, &mut outcome) {
            tracing::debug!(%error, "a batch could not be read to its end");
        }
        outcome
    }

    /// Takes out series that have expired, of some from `from` on. Returns where to go on, `None` at the end.
    pub fn sweep(&mut self, from: u32, count: usize, now: u64) -> Option<u32> {
        let next = self.series.sweep(from, count, self.alive_since(now));
        if next.is_none() {
            self.sums.expire(now as i64);
        }
        next
    }

    /// Series last seen before this have expired.
    pub fn alive_since(&self, now: u64) -> u64 {
        now.saturating_sub(u64::try_from(self.options.expiration.as_millis()).unwrap_or(u64::MAX))
    }

    fn walk(&mut self, request: &[u8], now: u64, outcome: &mut Outcome) -> Result<(), WireError> {
        for group in groups(request) {
            let group = group?;
            let hash = self.identity.resource(group, 0)?;
            let mut resource = ResourceCx { group, hash, labels: None, scope: None, latest: None };
            for scope in group.scopes() {
                let scope = scope?;
                let above =
                    if self.options.map.scope_labels { self.identity.scope(hash, scope)? } else { hash };
                for metric in scope.items() {
                    let metric = Metric::parse(metric?)?;
                    let (known, seed) = self.meet(&metric, above)?;
                    self.points(metric, known, (above, seed), scope, &mut resource, now, outcome)?;
                }
            }
            if let Some(latest) = resource.latest {
                self.tell_target(&mut resource, latest, now)?;
            }
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "what the walk knows at this depth")]
    fn points<'a>(
        &mut self,
        metric: Metric<'a>,
        at: u32,
        (above, seed): (u128, u128),
        scope: ScopeGroup<'a>,
        resource: &mut ResourceCx<'a>,
        now: u64,
        outcome: &mut Outcome,
    ) -> Result<(), WireError> {
        let Some(known) = self.known.get(at as usize) else { return Ok(()) };
        let (family, skip) = (known.family.clone(), known.skip);
        let mut cx = MetricCx { metric, family, known: at, seed, above, scope, resource };
        for point in cx.metric.points() {
            let point = point?;
            let end = match skip {
                Some(reason) => Err(reason),
                None => self.point(&mut cx, point, now)?,
            };
            match end {
                Ok(()) => outcome.stored += 1,
                Err(reason) => {
                    if reason == CONFLICT && outcome.conflict.is_none() {
                        outcome.conflict = Some(cx.family.name.clone());
                    }
                    outcome.drop_one(reason);
                }
            }
        }
        Ok(())
    }

    /// A metric, and the hash of everything above its points.
    fn meet(&mut self, metric: &Metric<'_>, above: u128) -> Result<(u32, u128), WireError> {
        let key = self.identity.metric(metric)?;
        let seed = self.identity.mix(above, key);
        let at = match self.metrics.get(&key) {
            Some(at) => *at,
            None => {
                let (family, skip) = match self.mapper.family(metric)? {
                    Ok(family) => (family, None),
                    Err(why) => (Family::default(), Some(why.reason())),
                };
                let description = metric.description.to_vec();
                self.series.describe(&family.name, &family.help);
                self.known.push(Known { family: Arc::new(family), description, skip, bounds: None });
                let at = (self.known.len() - 1) as u32;
                self.metrics.insert(key, at);
                at
            }
        };
        if let Some(known) = self.known.get_mut(at as usize)
            && known.description != metric.description
        {
            known.description = metric.description.to_vec();
            let help = String::from_utf8_lossy(metric.description).into_owned();
            self.series.describe(&known.family.name, &help);
            known.family = Arc::new(Family { help, ..Family::clone(&known.family) });
        }
        Ok((at, seed))
    }

    /// The series of labels that are not known by their bytes.
    #[cold]
    fn map_labels(
        &mut self,
        key: u128,
        cx: &mut MetricCx<'_, '_>,
        point: &[u8],
    ) -> Result<Result<Place, &'static str>, WireError> {
        if self.series.check(&cx.family).is_err() {
            return Ok(Err(CONFLICT));
        }
        let attributes = Attributes::of(point, attributes_field(cx.metric.kind));
        let resource = match &mut cx.resource.labels {
            Some(resource) => resource,
            none => none.insert(self.mapper.resource(cx.resource.group.attributes())?),
        };
        if cx.resource.scope.as_ref().is_none_or(|(key, _)| *key != cx.above) {
            cx.resource.scope = Some((cx.above, self.mapper.scope(cx.scope)?));
        }
        if let Some((_, scope)) = &cx.resource.scope {
            self.mapper.labels(resource, scope, attributes, &mut self.labels)?;
        }
        // What the series of the point differ in is not an attribute's to set.
        let own = match cx.metric.kind {
            Kind::Histogram | Kind::ExponentialHistogram => "le",
            Kind::Summary => "quantile",
            _ => "",
        };
        self.labels.retain(|name| name != own);
        put_labels(&self.labels, &mut self.block);
        Ok(Ok(match self.series.find_labels(key, &cx.family.name, &self.block) {
            Some(at) => Place::Slot(at),
            None => Place::New(key),
        }))
    }

    /// Keeps the `target_info` of a resource alive.
    fn tell_target(&mut self, cx: &mut ResourceCx<'_>, time: u64, now: u64) -> Result<(), WireError> {
        if !self.options.map.target_info || self.untold.contains(&cx.hash) {
            return Ok(());
        }
        let at = match self.series.find(cx.hash) {
            Some(at) => Some(at),
            None => {
                let mapped = match cx.labels.take() {
                    Some(mapped) => mapped,
                    None => self.mapper.resource(cx.group.attributes())?,
                };
                let Some(labels) = &mapped.target_info else {
                    self.untold.insert(cx.hash);
                    return Ok(());
                };
                put_labels(labels, &mut self.block);
                let family = Family {
                    name: self.options.map.namer.target_info(),
                    kind: MetricType::Info,
                    help: "Target metadata".to_owned(),
                    unit: String::new(),
                };
                match self.series.find_labels(cx.hash, &family.name, &self.block) {
                    Some(at) => Some(at),
                    None => {
                        let one = Value::Number(1_f64.to_bits());
                        self.series.insert(cx.hash, &family, &self.block, one).ok()
                    }
                }
            }
        };
        if let Some(slot) = at.and_then(|at| self.series.get_mut(at)) {
            (slot.time, slot.seen) = (slot.time.max(time), now);
        }
        Ok(())
    }
}

/// The reason of points whose family is of another type.
pub const CONFLICT: &str = "type_conflict";

impl Refusal {
    /// The word for it.
    pub const fn reason(self) -> &'static str {
        match self {
            Refusal::Conflict => CONFLICT,
            Refusal::Full => "max_series",
        }
    }
}

impl Outcome {
    fn drop_one(&mut self, reason: &'static str) {
        match self.dropped.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => self.dropped.push((reason, 1)),
        }
    }

    /// How many points it speaks of.
    pub fn items(&self) -> usize {
        self.stored + self.dropped.iter().map(|(_, count)| count).sum::<usize>()
    }
}

/// Writes labels as they stand in a slot.
fn put_labels(labels: &LabelSet, out: &mut String) {
    use super::page::text::{put_escaped, put_label_name};
    out.clear();
    for (i, (name, value)) in labels.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        put_label_name(name, out);
        out.push_str("=\"");
        put_escaped(value, true, out);
        out.push('"');
    }
}
