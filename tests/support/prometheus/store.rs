//! What a receiver has stored, and the rules that span requests: ascending time, one value a time, no repetition
//! without a reason, no two requests at once for one series.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::time::Duration;

use prost::Message;

use super::check::Decoded;
use super::wire::{Histogram, MetricMetadata};
use super::{Exemplar, Findings, Labels, Metadata, Refuses, Version};

/// A series as it is stored.
#[derive(Debug, Clone, Default)]
pub struct Series {
    /// Ascending in time.
    pub points: Vec<Point>,
    pub exemplars: Vec<Exemplar>,
    /// The latest, in 2.0.
    pub metadata: Option<Metadata>,
}

impl Series {
    /// Time and bits of each sample.
    pub fn floats(&self) -> Vec<(i64, u64)> {
        let float = |p: &Point| match &p.value {
            Value::Float(bits) => Some((p.timestamp, *bits)),
            Value::Histogram(_) => None,
        };
        self.points.iter().filter_map(float).collect()
    }

    /// The native histograms.
    pub fn histograms(&self) -> Vec<&Histogram> {
        let values = self.points.iter().map(|p| &p.value);
        let histogram = |value| match value {
            &Value::Float(_) => None,
            Value::Histogram(histogram) => Some(&**histogram),
        };
        values.filter_map(histogram).collect()
    }
}

/// A stored sample or histogram.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    pub timestamp: i64,
    /// 0 when unset.
    pub start: i64,
    pub value: Value,
    /// How often it came again.
    pub repeats: u32,
    /// The last request it came with.
    carrier: u64,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// By its bits.
    Float(u64),
    Histogram(Box<Histogram>),
}

impl Value {
    fn same(&self, other: &Value) -> bool {
        // The encoder takes a negative zero for nothing.
        let bits =
            |h: &Histogram| (h.sum.to_bits(), Histogram { start_timestamp: 0, ..h.clone() }.encode_to_vec());
        match (self, other) {
            (Value::Float(a), Value::Float(b)) => a == b,
            (Value::Histogram(a), Value::Histogram(b)) => bits(a) == bits(b),
            _ => false,
        }
    }
}

/// Everything stored.
#[derive(Debug, Default)]
pub struct Store {
    pub series: HashMap<Labels, Series>,
    pub metadata: BTreeMap<String, MetricMetadata>,
    pub points: usize,
    pub repeats: usize,
    /// Requests whose answer may not have arrived, so that they may come again.
    unanswered: HashSet<u64>,
    latest: u64,
}

/// What became of a request's content.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub samples: usize,
    pub histograms: usize,
    pub exemplars: usize,
    /// Samples and histograms that were refused as bad data.
    pub refused: usize,
}

impl Store {
    /// The answer to request `number` did not arrive.
    pub fn lose_answer(&mut self, number: u64) {
        self.unanswered.insert(number);
    }

    /// No answer so far counts.
    pub fn excuse(&mut self) {
        self.unanswered.extend(1..=self.latest);
    }

    /// Stores request `number` as far as it is not refused; nothing of it when a rule is broken, or when anything is
    /// refused in 1.0.
    pub fn apply(
        &mut self,
        number: u64,
        request: &Decoded,
        refuses: Option<&Refuses>,
        out_of_order: Duration,
        findings: &mut Findings,
    ) -> Written {
        self.latest = self.latest.max(number);
        let window = i64::try_from(out_of_order.as_millis()).unwrap();
        let mut written = Written::default();
        let mut newest: HashMap<&Labels, i64> = HashMap::new();
        let mut good: Vec<(&Labels, Point, bool)> = Vec::new();
        for part in &request.series {
            let stored = self.series.get(&part.labels);
            let newest = newest
                .entry(&part.labels)
                .or_insert_with(|| stored.and_then(|s| s.points.last()).map_or(i64::MIN, |p| p.timestamp));
            for point in points(part, number) {
                if refuses.is_some_and(|refuses| refuses(&part.labels, point.timestamp)) {
                    written.refused += 1;
                    continue;
                }
                let time = point.timestamp;
                let same_time = stored.and_then(|s| {
                    let at = s.points.binary_search_by_key(&time, |p| p.timestamp).ok()?;
                    s.points.get(at)
                });
                match same_time {
                    Some(old) if !old.value.same(&point.value) => findings.add(
                        "order-other-value",
                        format!("{:?} at {time}: {:?}, then {:?}", part.labels, old.value, point.value),
                    ),
                    Some(old) if !self.unanswered.contains(&old.carrier) => {
                        findings
                            .add("order-repeated", format!("{:?} at {time}: it was answered", part.labels));
                    }
                    Some(_) => good.push((&part.labels, point, true)),
                    None if time > *newest => good.push((&part.labels, point, false)),
                    None if time > newest.saturating_sub(window) => {
                        good.push((&part.labels, point, false));
                    }
                    None => findings
                        .add("order-backwards", format!("{:?}: {time} after {}", part.labels, *newest)),
                }
                *newest = time.max(*newest);
            }
        }
        if findings.count() > 0 || written.refused > 0 && request.version == Version::V1 {
            return Written { refused: written.refused, ..Written::default() };
        }
        for (labels, point, repeat) in good {
            match &point.value {
                Value::Float(_) => written.samples += 1,
                Value::Histogram(_) => written.histograms += 1,
            }
            let series = self.series.entry(labels.clone()).or_default();
            let at = series.points.partition_point(|p| p.timestamp < point.timestamp);
            if repeat {
                let old = &mut series.points[at];
                old.repeats += 1;
                old.carrier = number;
                self.repeats += 1;
            } else {
                series.points.insert(at, point);
                self.points += 1;
            }
        }
        for part in &request.series {
            if let Some(series) = self.series.get_mut(&part.labels) {
                written.exemplars += part.exemplars.len();
                for exemplar in &part.exemplars {
                    if !series.exemplars.contains(exemplar) {
                        series.exemplars.push(exemplar.clone());
                    }
                }
                if part.metadata.is_some() {
                    series.metadata.clone_from(&part.metadata);
                }
            }
        }
        for metadata in &request.metadata {
            self.metadata.insert(metadata.metric_family_name.clone(), metadata.clone());
        }
        written
    }
}

fn points(part: &super::Part, carrier: u64) -> impl Iterator<Item = Point> + '_ {
    let samples = part.samples.iter().map(move |s| Point {
        timestamp: s.timestamp,
        start: s.start_timestamp,
        value: Value::Float(s.bits),
        repeats: 0,
        carrier,
    });
    let histograms = part.histograms.iter().map(move |h| Point {
        timestamp: h.timestamp,
        start: h.start_timestamp,
        value: Value::Histogram(Box::new(h.clone())),
        repeats: 0,
        carrier,
    });
    samples.chain(histograms)
}

/// Which series are in requests under way.
#[derive(Debug, Default)]
pub struct InFlight {
    by_series: HashMap<u64, Vec<u64>>,
    /// Series and conflicts of each request. A conflict counts when the older request is answered: a sender that
    /// gave up on it and closed the connection may send again.
    by_request: HashMap<u64, (Vec<u64>, Vec<String>)>,
}

impl InFlight {
    pub fn requests(&self) -> usize {
        self.by_request.len()
    }

    pub fn begin(&mut self, number: u64, request: &Decoded) {
        let mut keys = HashSet::new();
        for part in &request.series {
            let mut hasher = DefaultHasher::new();
            part.labels.hash(&mut hasher);
            if !keys.insert(hasher.finish()) {
                continue;
            }
            let others = self.by_series.entry(hasher.finish()).or_default();
            for other in &*others {
                let text = format!("{:?} in requests {other} and {number} at once", part.labels);
                if let Some((_, conflicts)) = self.by_request.get_mut(other) {
                    conflicts.push(text);
                }
            }
            others.push(number);
        }
        self.by_request.insert(number, (keys.into_iter().collect(), Vec::new()));
    }

    pub fn end(&mut self, number: u64, answered: bool, findings: &mut Findings) {
        let Some((keys, conflicts)) = self.by_request.remove(&number) else { return };
        for key in keys {
            if let Some(others) = self.by_series.get_mut(&key) {
                others.retain(|other| *other != number);
                if others.is_empty() {
                    self.by_series.remove(&key);
                }
            }
        }
        for conflict in conflicts.into_iter().filter(|_| answered) {
            findings.add("order-at-once", conflict);
        }
    }
}
