//! A metrics request that is sent again and again with other numbers.
//!
//! Whoever makes the same points each time gives them in the same order. Their values, types and times have a fixed
//! width in protobuf, so all that is done is to write them over those of the last time: no names, attributes or lengths
//! are encoded. When other points come, the request is encoded anew; those that are gone are told about once with the
//! flag "no recorded value", so that whoever reads them knows at once. One that comes back in the same request under
//! another key, with the same metric and attributes, is not gone.
//!
//! Counters without a start of their own begin at the time of their first point, and anew when a value is lower than
//! the one before: what they counted before that is not known. None begins after its time, also where the clock was set
//! back.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use super::wire::{put_bytes, put_tag, put_varint, varint_len};

/// A number that a point holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// An integer.
    Int(i64),
    /// A double.
    Double(f64),
}

impl Number {
    /// As a double.
    pub fn as_f64(self) -> f64 {
        match self {
            Number::Int(n) => n as f64,
            Number::Double(n) => n,
        }
    }
}

/// What a point is of. Whatever it means to who makes it, two points of a request have different keys.
pub type Key = u64;

/// One point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// What it is of.
    pub key: Key,
    /// Its value.
    pub value: Number,
    /// When counting began, in nanoseconds since 1970; 0: see the module's documentation.
    pub start: u64,
}

/// The kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A gauge.
    Gauge,
    /// A cumulative sum that goes up and down: flags, sizes.
    UpDown,
    /// A cumulative sum that only grows. It begins anew when a value is lower than the one before.
    Counter,
}

/// A metric's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head<'a> {
    /// Points of one metric have the same number; metrics stand in this order.
    pub number: u32,
    /// Its name.
    pub name: &'a str,
    /// Its unit.
    pub unit: &'a str,
    /// Its description.
    pub description: &'a str,
    /// Its kind.
    pub kind: Kind,
}

/// Says what keys mean. Asked only when a request is encoded anew.
pub trait Describe {
    /// The metric of a point.
    fn head(&self, key: Key) -> Head<'_>;

    /// Appends the point's attributes: fields as [`put_attribute`] writes them.
    fn attributes(&self, key: Key, out: &mut Vec<u8>);
}

/// The value of an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribute<'a> {
    /// A string.
    Str(&'a str),
    /// An integer.
    Int(i64),
}

/// A request and how many points it holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    /// The request.
    pub request: Bytes,
    /// Its points, those without a value included.
    pub points: usize,
}

/// The request as it was sent last.
#[derive(Debug, Default)]
pub struct Template {
    /// `ResourceMetrics` and its length, as a field of the request.
    request: Vec<u8>,
    /// One for each point, in the order in which they are given.
    slots: Vec<Slot>,
    /// The resource that is in it.
    resource: Vec<u8>,
    scope: Vec<u8>,
}

#[derive(Debug, Clone)]
struct Slot {
    key: Key,
    /// Where the fixed fields begin in the request: the start time of counters, then the time, then the value.
    at: usize,
    last: f64,
    start: u64,
    /// The field of its metric in `heads`, and its attributes, for the point that says it is gone.
    head: std::ops::Range<usize>,
    kind: Kind,
    attributes: std::ops::Range<usize>,
}

const GROUPS: u32 = 1;
const POINT_ATTRIBUTES: u32 = 7;
/// The tags of fixed fields of a point; each is one byte.
const START: u8 = 0x11;
const TIME: u8 = 0x19;
const DOUBLE: u8 = 0x21;
const INT: u8 = 0x31;
/// A tag and eight bytes.
const FIXED: usize = 9;
const NO_RECORDED_VALUE: u64 = 1;
const CUMULATIVE: u64 = 2;

/// Appends an attribute as field `field` of a message.
pub fn put_attribute(out: &mut Vec<u8>, field: u32, key: &str, value: Attribute<'_>) {
    let bytes = |len: usize| 1 + varint_len(len as u64) + len;
    let any = match value {
        Attribute::Str(text) => bytes(text.len()),
        Attribute::Int(number) => 1 + varint_len(number as u64),
    };
    put_tag(out, field, 2);
    put_varint(out, (bytes(key.len()) + bytes(any)) as u64);
    put_bytes(out, 1, key.as_bytes());
    put_tag(out, 2, 2);
    put_varint(out, any as u64);
    match value {
        Attribute::Str(text) => put_bytes(out, 1, text.as_bytes()),
        Attribute::Int(number) => {
            put_tag(out, 3, 0);
            put_varint(out, number as u64);
        }
    }
}

/// Appends an attribute of a point.
pub fn put_point_attribute(out: &mut Vec<u8>, key: &str, value: Attribute<'_>) {
    put_attribute(out, POINT_ATTRIBUTES, key, value);
}

/// A `Resource` or the like whose attributes are field `field`.
pub fn attributes_message(field: u32, attributes: &[(&str, Attribute<'_>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in attributes {
        put_attribute(&mut out, field, key, *value);
    }
    out
}

impl Template {
    /// The request with these points. `resource` and `scope` are encoded messages; `time` is in nanoseconds since 1970.
    pub fn render(
        &mut self,
        points: &[Point],
        time: u64,
        resource: &[u8],
        scope: &[u8],
        describe: &dyn Describe,
    ) -> Rendered {
        let same = self.slots.len() == points.len()
            && self.slots.iter().zip(points).all(|(slot, point)| slot.key == point.key)
            && self.resource == resource
            && self.scope == scope;
        let gone = if same { (Vec::new(), 0) } else { self.encode(points, time, resource, scope, describe) };
        self.patch(points, time);
        let mut request = Vec::with_capacity(self.request.len() + gone.0.len());
        request.extend_from_slice(&self.request);
        request.extend_from_slice(&gone.0);
        Rendered { request: request.into(), points: points.len() + gone.1 }
    }

    /// Writes values and times over the last ones.
    fn patch(&mut self, points: &[Point], time: u64) {
        for (slot, point) in self.slots.iter_mut().zip(points) {
            let (tag, bits) = match point.value {
                Number::Int(n) => (INT, n as u64),
                Number::Double(n) => (DOUBLE, n.to_bits()),
            };
            let now = point.value.as_f64();
            let mut at = slot.at;
            if slot.kind == Kind::Counter {
                if point.start != 0 {
                    slot.start = point.start;
                } else if slot.start == 0 || now < slot.last {
                    slot.start = time;
                }
                slot.start = slot.start.min(time);
                slot.last = now;
                put_fixed(&mut self.request, at, START, slot.start);
                at += FIXED;
            }
            put_fixed(&mut self.request, at, TIME, time);
            put_fixed(&mut self.request, at + FIXED, tag, bits);
        }
    }

    /// Encodes the request with room for values and times; returns what says of points that they are gone, and how many.
    fn encode(
        &mut self,
        points: &[Point],
        time: u64,
        resource: &[u8],
        scope: &[u8],
        describe: &dyn Describe,
    ) -> (Vec<u8>, usize) {
        let mut keys: Vec<Key> = points.iter().map(|point| point.key).collect();
        keys.sort_unstable();
        let old = std::mem::take(&mut self.request);
        let mut before = std::mem::take(&mut self.slots);
        before.sort_unstable_by_key(|slot| slot.key);
        let part = |range: &std::ops::Range<usize>| old.get(range.clone()).unwrap_or_default();
        let gone = |slot: &&Slot| keys.binary_search(&slot.key).is_err();
        let called: HashMap<(&[u8], &[u8]), &Slot> = before
            .iter()
            .filter(gone)
            .map(|slot| ((part(&slot.head), part(&slot.attributes)), slot))
            .collect();
        let mut renamed: HashSet<Key> = HashSet::new();

        // Metric by metric, points within in the order given.
        let mut order: Vec<(u32, usize)> =
            points.iter().enumerate().map(|(at, point)| (describe.head(point.key).number, at)).collect();
        order.sort_unstable();
        let mut slots: Vec<Option<Slot>> = vec![None; points.len()];
        let mut metrics = Vec::with_capacity(self.request.len());
        let (mut data, mut attributes) = (Vec::new(), Vec::new());
        for same in order.chunk_by(|a, b| a.0 == b.0) {
            let Some(key) = same.first().and_then(|&(_, at)| points.get(at)).map(|p| p.key) else { continue };
            let head = describe.head(key);
            let counter = head.kind == Kind::Counter;
            let mut metric = Vec::with_capacity(128);
            put_head(&mut metric, &head);
            let head_len = metric.len();
            data.clear();
            let mut made = Vec::with_capacity(same.len());
            for &(_, at) in same {
                let Some(point) = points.get(at) else { continue };
                attributes.clear();
                describe.attributes(point.key, &mut attributes);
                let fixed = FIXED * if counter { 3 } else { 2 };
                put_tag(&mut data, 1, 2);
                put_varint(&mut data, (fixed + attributes.len()) as u64);
                let start = data.len();
                data.resize(start + fixed, 0);
                data.extend_from_slice(&attributes);
                let known = before.binary_search_by_key(&point.key, |slot| slot.key);
                let known = known.ok().and_then(|found| before.get(found)).or_else(|| {
                    let same = *called.get(&(metric.as_slice(), attributes.as_slice()))?;
                    renamed.insert(same.key);
                    Some(same)
                });
                let (last, began) = known.map_or((0.0, 0), |known| (known.last, known.start));
                made.push((at, start, start + fixed..data.len(), last, began));
            }
            put_kind(&mut data, head.kind);
            put_tag(&mut metric, data_field(head.kind), 2);
            put_varint(&mut metric, data.len() as u64);
            let data_at = metric.len();
            metric.extend_from_slice(&data);

            put_tag(&mut metrics, 2, 2);
            put_varint(&mut metrics, metric.len() as u64);
            let metric_at = metrics.len();
            metrics.extend_from_slice(&metric);
            for (at, start, attributes, last, began) in made {
                let Some(point) = points.get(at) else { continue };
                let base = metric_at + data_at;
                let slot = Slot {
                    key: point.key,
                    at: base + start,
                    last,
                    start: began,
                    head: metric_at..metric_at + head_len,
                    kind: head.kind,
                    attributes: base + attributes.start..base + attributes.end,
                };
                if let Some(place) = slots.get_mut(at) {
                    *place = Some(slot);
                }
            }
        }
        let left = before.iter().filter(gone).filter(|slot| !renamed.contains(&slot.key)).collect();
        let farewell = self.farewell(&old, left, time);
        self.request = opening(resource, scope, metrics.len());
        let shift = self.request.len();
        self.request.extend_from_slice(&metrics);
        self.slots = slots.into_iter().flatten().collect();
        for slot in &mut self.slots {
            slot.at += shift;
            slot.head = slot.head.start + shift..slot.head.end + shift;
            slot.attributes = slot.attributes.start + shift..slot.attributes.end + shift;
        }
        self.resource = resource.to_vec();
        self.scope = scope.to_vec();
        farewell
    }

    /// What says of these points of the request `old` that they are gone, and how many they are.
    fn farewell(&self, old: &[u8], mut slots: Vec<&Slot>, time: u64) -> (Vec<u8>, usize) {
        if slots.is_empty() {
            return (Vec::new(), 0);
        }
        slots.sort_unstable_by_key(|slot| slot.at);
        let mut metrics = Vec::new();
        for same in slots.chunk_by(|a, b| a.head == b.head) {
            let Some(first) = same.first() else { continue };
            let mut data = Vec::new();
            for slot in same {
                let mut point = Vec::new();
                if slot.kind == Kind::Counter {
                    put_tag(&mut point, 2, 1);
                    point.extend_from_slice(&slot.start.min(time).to_le_bytes());
                }
                put_tag(&mut point, 3, 1);
                point.extend_from_slice(&time.to_le_bytes());
                point.extend_from_slice(old.get(slot.attributes.clone()).unwrap_or_default());
                put_tag(&mut point, 8, 0);
                put_varint(&mut point, NO_RECORDED_VALUE);
                put_bytes(&mut data, 1, &point);
            }
            put_kind(&mut data, first.kind);
            let mut metric = old.get(first.head.clone()).unwrap_or_default().to_vec();
            put_bytes(&mut metric, data_field(first.kind), &data);
            put_bytes(&mut metrics, 2, &metric);
        }
        let mut request = opening(&self.resource, &self.scope, metrics.len());
        request.extend_from_slice(&metrics);
        (request, slots.len())
    }
}

/// A request up to its metrics, which take `metrics` bytes and end it.
fn opening(resource: &[u8], scope: &[u8], metrics: usize) -> Vec<u8> {
    let mut scope_head = Vec::with_capacity(scope.len() + 8);
    put_bytes(&mut scope_head, 1, scope);
    let mut group = Vec::with_capacity(resource.len() + scope_head.len() + 32);
    put_bytes(&mut group, 1, resource);
    put_tag(&mut group, 2, 2);
    put_varint(&mut group, (scope_head.len() + metrics) as u64);
    group.extend_from_slice(&scope_head);
    let mut out = Vec::with_capacity(group.len() + metrics + 16);
    put_tag(&mut out, GROUPS, 2);
    put_varint(&mut out, (group.len() + metrics) as u64);
    out.extend_from_slice(&group);
    out
}

/// Name, description and unit.
fn put_head(out: &mut Vec<u8>, head: &Head<'_>) {
    for (field, text) in [(1, head.name), (2, head.description), (3, head.unit)] {
        if !text.is_empty() {
            put_bytes(out, field, text.as_bytes());
        }
    }
}

/// The field of a metric that holds its points.
const fn data_field(kind: Kind) -> u32 {
    match kind {
        Kind::Gauge => 5,
        Kind::UpDown | Kind::Counter => 7,
    }
}

/// What a sum says beside its points.
fn put_kind(data: &mut Vec<u8>, kind: Kind) {
    if kind != Kind::Gauge {
        put_tag(data, 2, 0);
        put_varint(data, CUMULATIVE);
        if kind == Kind::Counter {
            put_tag(data, 3, 0);
            put_varint(data, 1);
        }
    }
}

#[inline]
fn put_fixed(request: &mut [u8], at: usize, tag: u8, bits: u64) {
    if let Some(field) = request.get_mut(at..at + FIXED)
        && let Some((first, rest)) = field.split_first_mut()
    {
        *first = tag;
        rest.copy_from_slice(&bits.to_le_bytes());
    }
}

#[cfg(test)]
mod tests;
