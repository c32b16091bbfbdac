//! A random load in OTLP, and what must be stored of it.
//!
//! Streams of every metric type, spread over resources with and without `service.instance.id`. From push to push
//! they have gaps, restarts, ends, late points and repeated ones, and their attributes change places. Some metrics
//! have names that differ only in characters that Prometheus does not take, so that two streams become one series.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics};

use crate::support::otlp::{
    self, ToValue, attributes, buckets, counter, double, exponential_point, gauge, histogram, int, quantiles,
    resource, scope, summary,
};
use crate::support::prometheus::histogram::{count, negative, positive, zero_count};
use crate::support::prometheus::store::Value;
use crate::support::prometheus::{Labels, ORDINARY_NAN, STALE};

const RESOURCES: usize = 12;
const STEP: i64 = 10_000;
const BOUNDS: [f64; 3] = [0.25, 1.0, 8.0];
const QUANTILES: [(f64, &str); 2] = [(0.5, "0.5"), (0.99, "0.99")];

/// A value as it is compared.
#[derive(Debug, Clone, PartialEq)]
pub enum Want {
    Float(u64),
    /// Count, bits of the sum, schema, zero count, buckets of either side.
    Native(f64, u64, i32, f64, Vec<(i64, f64)>, Vec<(i64, f64)>),
}

impl From<&Value> for Want {
    fn from(value: &Value) -> Self {
        match value {
            Value::Float(bits) => Want::Float(*bits),
            Value::Histogram(h) => {
                Want::Native(count(h), h.sum.to_bits(), h.schema, zero_count(h), positive(h), negative(h))
            }
        }
    }
}

/// What must be stored of one part of the load, which no other part touches.
#[derive(Debug, Default)]
pub struct Model {
    /// Time, start and value.
    pub series: BTreeMap<Labels, Vec<(i64, i64, Want)>>,
    /// Data points that are older than the last one of their series.
    pub late: u64,
    /// Data points of the same time as the last one of their series.
    pub again: u64,
    /// Data points that are sent, and that the receiver refuses.
    pub bad: u64,
    refused: BTreeMap<Labels, Vec<(i64, i64, Want)>>,
    pub points: u64,
}

impl Model {
    pub fn samples(&self) -> usize {
        self.series.values().map(Vec::len).sum()
    }

    /// A data point is to be stored, as these series.
    fn put(&mut self, Told { labels, time, start, series }: &Told) {
        self.points += 1;
        let bad = labels.iter().any(|(name, _)| name == "bad");
        let into = if bad { &mut self.refused } else { &mut self.series };
        let (mut new, mut again) = (false, false);
        for (more, value) in series {
            let mut all: Labels = labels.iter().chain(more).cloned().collect();
            all.sort();
            let points = into.entry(all).or_default();
            again |= points.last().is_some_and(|(last, ..)| last == time);
            if points.last().is_none_or(|(last, ..)| last < time) {
                points.push((*time, *start, value.clone()));
                new = true;
            }
        }
        self.late += u64::from(!new && !again);
        self.again += u64::from(!new && again);
        self.bad += u64::from(new && bad);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
    Exponential,
    Summary,
}

struct Stream {
    number: usize,
    resource: usize,
    kind: Kind,
    name: &'static str,
    bad: bool,
    start: i64,
    last: i64,
    total: u64,
    counts: [u64; 4],
    /// The last point, to be sent again.
    sent: Option<(Metric, Told)>,
}

impl Stream {
    /// The start time that is sent: a gauge has none.
    fn counted_from(&self) -> i64 {
        if self.kind == Kind::Gauge { 0 } else { self.start }
    }
}

/// A data point as the model sees it: labels that all its series share, and the rest of each.
#[derive(Debug, Clone)]
struct Told {
    labels: Labels,
    time: i64,
    start: i64,
    series: Vec<(Labels, Want)>,
}

/// The streams of some of the resources.
pub struct Load {
    streams: Vec<Stream>,
    base: i64,
    rng: fastrand::Rng,
    pub model: Model,
}

impl Load {
    /// One of `parts` equal parts of a load of `streams` streams that begins at `base`.
    pub fn new(streams: usize, base: i64, seed: u64, part: usize, parts: usize) -> Load {
        let stream = |number: usize| {
            // Two in a row are twins: other names, one series.
            let twin = matches!(number % 50, 7 | 8);
            let kind = match number % 20 {
                _ if twin => Kind::Gauge,
                0 => Kind::Exponential,
                1 => Kind::Summary,
                2 | 3 => Kind::Histogram,
                4..=8 => Kind::Gauge,
                _ => Kind::Counter,
            };
            let name = match kind {
                Kind::Gauge if twin && number % 50 == 7 => "twin.gauge",
                Kind::Gauge if twin => "twin_gauge",
                Kind::Gauge => "disk.used",
                Kind::Counter => ["http.requests", "disk.io"][usize::from(number % 20 > 13)],
                Kind::Histogram => "http.duration",
                Kind::Exponential => "rpc.latency",
                Kind::Summary => "gc.pause",
            };
            Stream {
                number: if twin { number / 50 * 50 } else { number },
                // Twins are neighbours.
                resource: number / 50 % RESOURCES,
                kind,
                name,
                // Few however many streams there are: each costs a 1.0 request a dozen attempts.
                bad: number % 400 == 33 && number < 8000,
                start: base - 60_000,
                last: 0,
                total: 0,
                counts: [0; 4],
                sent: None,
            }
        };
        let streams = (0..streams).map(stream).filter(|s| s.resource % parts == part).collect();
        Load { streams, base, rng: fastrand::Rng::with_seed(seed ^ part as u64), model: Model::default() }
    }

    /// Requests of about `size` points that carry this round, to be sent in this order.
    /// Now and then one comes twice, as from a client that did not hear the answer.
    pub fn round(&mut self, round: i64, size: usize) -> Vec<Vec<ResourceMetrics>> {
        let mut requests = Vec::new();
        let mut order: Vec<usize> = (0..self.streams.len()).collect();
        // Neighbours stay so; where a request begins differs from round to round.
        if !order.is_empty() {
            let by = self.rng.usize(0..order.len());
            order.rotate_left(by);
        }
        for chunk in order.chunks(size) {
            let mut told = Vec::new();
            let mut groups: BTreeMap<usize, Vec<Metric>> = BTreeMap::new();
            for index in chunk {
                let resource = self.streams[*index].resource;
                for (metric, of_model) in self.points(*index, round) {
                    self.model.put(&of_model);
                    told.push(of_model);
                    add(groups.entry(resource).or_default(), metric);
                }
            }
            let mut all = Vec::new();
            for (number, metrics) in groups {
                let mut of_resource = resource_attributes(number);
                self.rng.shuffle(&mut of_resource);
                all.push(resource(of_resource, scope_of(number), metrics));
            }
            if self.rng.u32(0..100) < 5 {
                requests.push(all.clone());
                told.iter().for_each(|point| self.model.put(point));
            }
            requests.push(all);
        }
        requests
    }

    /// What a stream says in a round.
    fn points(&mut self, index: usize, round: i64) -> Vec<(Metric, Told)> {
        let stream = &mut self.streams[index];
        let labels = labels_of(stream);
        let time = self.base + round * STEP + self.rng.i64(0..STEP / 2);
        let mut out = Vec::new();
        match self.rng.u32(0..100) {
            // A gap.
            0..8 => return out,
            // The last point once more.
            8..11 => {
                return stream.sent.iter().cloned().collect();
            }
            // A late point, with a value of its own.
            11..14 if stream.last > 0 => {
                let late = stream.last - self.rng.i64(0..STEP);
                if late > stream.start {
                    let (metric, series) = point(stream, (stream.start, late), false, &mut self.rng);
                    out.push((metric, Told { labels, time: late, start: stream.counted_from(), series }));
                }
                return out;
            }
            14..17 => {
                (stream.start, stream.total, stream.counts) = (time - 1, 0, [0; 4]);
            }
            _ => {}
        }
        // Now and then two points of one series in one request.
        let times = if self.rng.u32(0..100) < 5 { vec![time, time + 1] } else { vec![time] };
        for time in times {
            let ended = self.rng.u32(0..100) < 3;
            let (metric, series) = point(stream, (stream.start, time), ended, &mut self.rng);
            stream.last = time;
            let told = Told { labels: labels.clone(), time, start: stream.counted_from(), series };
            stream.sent = Some((metric.clone(), told.clone()));
            out.push((metric, told));
        }
        out
    }
}

/// Adds a metric of one point; points stay in the order in which they are added.
fn add(metrics: &mut Vec<Metric>, metric: Metric) {
    let Some(old) = metrics.last_mut().filter(|m| m.name == metric.name) else {
        metrics.push(metric);
        return;
    };
    match (old.data.as_mut().unwrap(), metric.data.unwrap()) {
        (Data::Gauge(a), Data::Gauge(b)) => a.data_points.extend(b.data_points),
        (Data::Sum(a), Data::Sum(b)) => a.data_points.extend(b.data_points),
        (Data::Histogram(a), Data::Histogram(b)) => a.data_points.extend(b.data_points),
        (Data::ExponentialHistogram(a), Data::ExponentialHistogram(b)) => a.data_points.extend(b.data_points),
        (Data::Summary(a), Data::Summary(b)) => a.data_points.extend(b.data_points),
        _ => panic!("one name, one type"),
    }
}

fn resource_attributes(number: usize) -> Vec<KeyValue> {
    let (name, instance, host) =
        (format!("api-{}", number % 4), format!("i-{number}"), format!("host-{number}"));
    let mut all: Vec<(&str, &dyn ToValue)> = vec![("host.name", &host), ("cloud.region", &"eu")];
    if number != 11 {
        all.extend([("service.name", &name as &dyn ToValue), ("service.namespace", &"shop")]);
    }
    if !number.is_multiple_of(3) && number != 11 {
        all.push(("service.instance.id", &instance));
    }
    attributes(&all)
}

/// The labels of each `target_info`.
pub fn infos() -> Vec<Labels> {
    let info = |number: usize| {
        let mut labels = vec![("__name__", "target_info".to_owned()), ("cloud_region", "eu".to_owned())];
        labels.push(("host_name", format!("host-{number}")));
        labels.extend(identity(number));
        labels.into_iter().map(|(n, v)| (n.to_owned(), v)).collect()
    };
    (0..RESOURCES).filter(|number| *number != 11).map(info).collect()
}

fn identity(number: usize) -> Vec<(&'static str, String)> {
    let mut labels = Vec::new();
    if !number.is_multiple_of(3) && number != 11 {
        labels.push(("instance", format!("i-{number}")));
    }
    if number != 11 {
        labels.push(("job", format!("shop/api-{}", number % 4)));
    }
    labels
}

fn scope_of(number: usize) -> Option<otlp::Scope> {
    if number.is_multiple_of(2) { scope("lib", "1.0", "", Vec::new()) } else { None }
}

/// Labels of a stream but for its name and what tells its series apart.
fn labels_of(stream: &Stream) -> Labels {
    let mut labels = identity(stream.resource);
    labels.extend([("method", "GET".to_owned()), ("n", stream.number.to_string())]);
    labels.push(("http_status", "200".to_owned()));
    if stream.bad {
        labels.push(("bad", "yes".to_owned()));
    }
    if stream.resource.is_multiple_of(2) {
        labels.extend([("otel_scope_name", "lib".to_owned()), ("otel_scope_version", "1.0".to_owned())]);
    }
    labels.into_iter().map(|(n, v)| (n.to_owned(), v)).collect()
}

/// A point of a stream, and the series it becomes.
fn point(
    stream: &mut Stream,
    times: (i64, i64),
    ended: bool,
    rng: &mut fastrand::Rng,
) -> (Metric, Vec<(Labels, Want)>) {
    let number = stream.number as i64;
    let mut pairs: Vec<(&str, &dyn ToValue)> = vec![
        ("n", &number),
        ("method", &"GET"),
        ("http.status", &200i64),
        ("empty", &""),
        ("__reserved", &"not sent"),
    ];
    if stream.bad {
        pairs.push(("bad", &"yes"));
    }
    rng.shuffle(&mut pairs);
    let attributes = attributes(&pairs);
    let named = |name: &str, more: &[(&str, &str)]| -> Labels {
        let more = more.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        [("__name__".to_owned(), name.to_owned())].into_iter().chain(more).collect()
    };
    let float = |value: f64| {
        Want::Float(match value {
            _ if ended => STALE,
            value if value.is_nan() => ORDINARY_NAN,
            value => value.to_bits(),
        })
    };
    let flags = u32::from(ended);
    stream.total += rng.u64(0..1000);
    stream.counts.iter_mut().for_each(|count| *count += rng.u64(0..50));
    match stream.kind {
        Kind::Counter => {
            let mut point = int(stream.total as i64, times, &attributes);
            point.flags = flags;
            let name = format!("{}_total", stream.name.replace('.', "_"));
            (counter(stream.name, "", vec![point]), vec![(named(&name, &[]), float(stream.total as f64))])
        }
        Kind::Gauge => {
            let value = match rng.u32(0..10) {
                0 => f64::NAN,
                1 => -0.0,
                2 => f64::INFINITY,
                _ => (rng.f64() - 0.5) * 1e6,
            };
            // A gauge does not say since when.
            let mut point = double(value, (0, times.1), &attributes);
            point.flags = flags;
            let name = if stream.name == "disk.used" { "disk_used_bytes" } else { "twin_gauge_bytes" };
            (gauge(stream.name, "By", vec![point]), vec![(named(name, &[]), float(value))])
        }
        Kind::Histogram => {
            let sum = stream.total as f64 / 8.0;
            let mut point = buckets(&BOUNDS, &stream.counts, sum, times, &attributes);
            point.flags = flags;
            let name = "http_duration_seconds";
            let mut series = vec![(named(&format!("{name}_sum"), &[]), float(sum))];
            let mut below = 0;
            for (count, le) in stream.counts.iter().zip(["0.25", "1", "8", "+Inf"]) {
                below += count;
                series.push((named(&format!("{name}_bucket"), &[("le", le)]), float(below as f64)));
            }
            series.push((named(&format!("{name}_count"), &[]), float(below as f64)));
            (histogram(stream.name, "s", vec![point]), series)
        }
        Kind::Exponential => {
            let sum = stream.total as f64 / 8.0;
            let (zero, positive, negative) = (stream.counts[0], &stream.counts[1..], &stream.counts[3..]);
            let (scale, offset) = (rng.i32(-4..=8), rng.i32(-100..100));
            let mut point =
                exponential_point(scale, zero, (offset, positive), (-7, negative), sum, times, &attributes);
            point.flags = flags;
            let want = if ended {
                Want::Native(0.0, STALE, 0, 0.0, Vec::new(), Vec::new())
            } else {
                let side = |offset: i32, counts: &[u64]| {
                    // By its upper bound, a bucket is named one higher.
                    let all = (i64::from(offset) + 1..).zip(counts.iter().map(|c| *c as f64));
                    all.filter(|(_, count)| *count > 0.0).collect()
                };
                let count = point.count as f64;
                Want::Native(
                    count,
                    sum.to_bits(),
                    scale,
                    zero as f64,
                    side(offset, positive),
                    side(-7, negative),
                )
            };
            let name = named("rpc_latency_milliseconds", &[]);
            (otlp::exponential(stream.name, "ms", vec![point]), vec![(name, want)])
        }
        Kind::Summary => {
            let values = QUANTILES.map(|(q, _)| (q, rng.f64()));
            let mut point = quantiles(stream.total, stream.total as f64 / 4.0, &values, times, &attributes);
            point.flags = flags;
            let name = "gc_pause_seconds";
            let mut series = vec![
                (named(&format!("{name}_sum"), &[]), float(stream.total as f64 / 4.0)),
                (named(&format!("{name}_count"), &[]), float(stream.total as f64)),
            ];
            for ((_, value), (_, text)) in values.into_iter().zip(QUANTILES) {
                series.push((named(name, &[("quantile", text)]), float(value)));
            }
            (summary(stream.name, "s", vec![point]), series)
        }
    }
}

/// The type that a series must be said to have, by its name.
pub fn metric_type(name: &str) -> &'static [i32] {
    match name {
        "target_info" => &[2, 6],
        n if n.starts_with("gc_pause") => &[5],
        n if n.starts_with("http_duration") || n.starts_with("rpc_latency") => &[3],
        n if n.ends_with("_total") => &[1],
        _ => &[2],
    }
}
