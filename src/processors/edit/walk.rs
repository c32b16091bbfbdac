//! The walk over a request: resources, scopes, metrics and items, each visited once.

use std::cell::Cell;

use bytes::Bytes;

use super::action::Batchwise;
use super::attrs::Attrs;
use super::splice::{Spliced, Splicer};
use super::{Program, Step};
use crate::pdata::wire::{Cursor, Field, Value, WireError, put_varint};
use crate::pdata::{Batch, Signal};
use crate::processors::matching::{ItemFields, Live};

/// Buffers beyond this many bytes are not kept from batch to batch.
const KEEP: usize = 1 << 20;

/// The tag of field 1, and of field 2, as a length-delimited field.
const FIELD_1: u8 = 0x0a;
const FIELD_2: u8 = 0x12;

thread_local! {
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// Buffers that are reused from batch to batch on the same thread.
#[derive(Debug, Default)]
struct Scratch {
    resource: Attrs,
    item: Attrs,
    /// A resource that stood twice, merged.
    merged: Vec<u8>,
    live: Levels,
}

/// What each step may still do, as decided at each level above the items.
#[derive(Debug, Default)]
struct Levels {
    resource: Vec<Live>,
    scope: Vec<Live>,
    metric: Vec<Live>,
}

struct Walk<'p, 'a> {
    program: &'p Program,
    scratch: Box<Scratch>,
    batch: Batchwise,
    out: Splicer<'a>,
    malformed: usize,
}

/// Where a message stands in the piece that is being walked.
#[derive(Clone, Copy)]
struct Place {
    header: usize,
    payload: usize,
    end: usize,
}

/// How items stand in the message around them.
#[derive(Clone, Copy)]
struct ItemKind {
    /// Tag of the item's field.
    tag: u8,
    /// Number of the item's attribute field, below 16.
    attributes: u32,
}

/// Runs the program over the pieces of a request. Returns the edited request, if anything changed, and how
/// many messages could not be read.
pub(super) fn run(program: &Program, pieces: &[Bytes], batch: &Batch) -> (Option<Spliced>, usize) {
    let Some(first) = pieces.first() else { return (None, 0) };
    let bytes = batch.rope.len();
    let reserve = if program.edits_items {
        // Guessed growth is bounded by the request's own size: the count of items is the sender's.
        bytes
            + (batch.items.saturating_mul(program.item_growth)).min(4 * bytes)
            + program.resource_growth
            + 256
    } else {
        (pieces.len() * (program.resource_growth + 512)).min(bytes + program.resource_growth + 64)
    };
    let mut scratch = SCRATCH.take().unwrap_or_default();
    scratch.resource.set_pool(&program.pool);
    scratch.item.set_pool(&program.pool);
    let mut walk = Walk {
        program,
        scratch,
        batch: program.slots.fill(&batch.client),
        out: Splicer::new(first, reserve),
        malformed: 0,
    };
    for (i, piece) in pieces.iter().enumerate() {
        if i > 0 {
            walk.out.next_piece(piece);
        }
        if walk.request(piece).is_err() {
            walk.malformed += 1;
        }
    }
    let Walk { scratch, out, malformed, .. } = walk;
    if scratch.resource.held() + scratch.item.held() + scratch.merged.capacity() <= KEEP {
        SCRATCH.set(Some(scratch));
    }
    (out.finish(), malformed)
}

impl Walk<'_, '_> {
    fn request(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        let mut fields = Cursor::new(bytes);
        while let Some(field) = fields.next_field()? {
            if let (1, Value::Bytes(message)) = (field.number, field.value)
                && self.resource(message, Place::new(0, &field, message)).is_err()
            {
                self.malformed += 1;
            }
        }
        Ok(())
    }

    /// A `ResourceSpans`, `ResourceMetrics` or `ResourceLogs`. On an error nothing in it has been changed.
    fn resource(&mut self, message: &[u8], at: Place) -> Result<(), WireError> {
        // The resource may stand behind the scopes, and more than once.
        let mut resource: &[u8] = &[];
        let mut found = 0;
        self.scratch.merged.clear();
        let mut fields = Cursor::new(message);
        while let Some(field) = fields.next_field()? {
            if field.number == 1 {
                let bytes = field.value.bytes()?;
                if found > 0 {
                    if found == 1 {
                        self.scratch.merged.extend_from_slice(resource);
                    }
                    self.scratch.merged.extend_from_slice(bytes);
                }
                found += 1;
                resource = bytes;
            }
        }
        let merged = std::mem::take(&mut self.scratch.merged);
        let resource = if found > 1 { &merged } else { resource };
        let decided = self.decide(resource);
        let result = decided.map(|runs| {
            if runs || self.scratch.resource.changed() {
                self.out.enter(FIELD_1, at.header, at.payload, at.end);
                self.rewrite(message, at, resource, found == 0, runs);
                self.out.leave();
            }
        });
        self.scratch.merged = merged;
        result
    }

    /// Runs the steps for a resource and decides what the others will do below it; tells whether any will.
    fn decide(&mut self, resource: &[u8]) -> Result<bool, WireError> {
        let attrs = &mut self.scratch.resource;
        attrs.read(resource, 1)?;
        let levels = &mut self.scratch.live;
        levels.resource.clear();
        let mut runs = false;
        for step in &self.program.steps {
            let mut live = Live::NO;
            match step {
                Step::Resource(ops) => {
                    for op in ops {
                        op.apply(resource, attrs, &mut self.batch)?;
                    }
                }
                Step::Items { matcher: None, .. } => live = Live::YES,
                Step::Items { matcher: Some(matcher), .. } => {
                    let attrs = &*attrs;
                    live = matcher.at_resource(|key| attrs.lookup(resource, key))?;
                }
            }
            runs |= live.run;
            levels.resource.push(live);
        }
        Ok(runs)
    }

    fn rewrite(&mut self, message: &[u8], at: Place, resource: &[u8], absent: bool, runs: bool) {
        let mut write = self.scratch.resource.changed();
        let rewritten = write;
        if write && absent {
            self.write_resource(at.payload, at.payload, resource);
        }
        let mut fields = Cursor::new(message);
        // The message has been read to its end before.
        while let Ok(Some(field)) = fields.next_field() {
            match (field.number, field.value) {
                (1, _) if rewritten => {
                    let (from, to) = (at.payload + field.start, at.payload + field.end);
                    if write {
                        self.write_resource(from, to, resource);
                        write = false;
                    } else {
                        self.out.replace(from, to);
                    }
                }
                (2, Value::Bytes(scope)) if runs => {
                    let place = Place::new(at.payload, &field, scope);
                    self.out.enter(FIELD_2, place.header, place.payload, place.end);
                    if self.scope(scope, place.payload).is_err() {
                        self.malformed += 1;
                    }
                    self.out.leave();
                }
                _ => {}
            }
        }
    }

    fn write_resource(&mut self, from: usize, to: usize, resource: &[u8]) {
        let attrs = &self.scratch.resource;
        let out = self.out.replace(from, to);
        out.push(FIELD_1);
        put_varint(out, attrs.encoded_len(resource) as u64);
        attrs.write(resource, FIELD_1, out);
    }

    /// A `ScopeSpans`, `ScopeMetrics` or `ScopeLogs` whose first byte is at `base`.
    fn scope(&mut self, message: &[u8], base: usize) -> Result<(), WireError> {
        let levels = &mut self.scratch.live;
        levels.scope.clone_from(&levels.resource);
        if self.program.asks_scope {
            let (name, version) = scope_identity(message)?;
            if !narrow(&self.program.steps, &mut levels.scope, |m, live| m.at_scope(live, name, version)) {
                return Ok(());
            }
        }
        let signal = self.program.signal;
        let kind = match signal {
            Signal::Traces => ItemKind { tag: FIELD_2, attributes: 9 },
            Signal::Logs => ItemKind { tag: FIELD_2, attributes: 6 },
            Signal::Metrics => return self.metrics(message, base),
        };
        levels.metric.clone_from(&levels.scope);
        let mut fields = Cursor::new(message);
        while let Some(field) = fields.next_field()? {
            if let (2, Value::Bytes(item)) = (field.number, field.value) {
                self.item(item, Place::new(base, &field, item), kind);
            }
        }
        Ok(())
    }

    fn metrics(&mut self, message: &[u8], base: usize) -> Result<(), WireError> {
        let mut fields = Cursor::new(message);
        while let Some(field) = fields.next_field()? {
            if let (2, Value::Bytes(metric)) = (field.number, field.value) {
                let place = Place::new(base, &field, metric);
                self.out.enter(FIELD_2, place.header, place.payload, place.end);
                if self.metric(metric, place.payload).is_err() {
                    self.malformed += 1;
                }
                self.out.leave();
            }
        }
        Ok(())
    }

    fn metric(&mut self, message: &[u8], base: usize) -> Result<(), WireError> {
        let levels = &mut self.scratch.live;
        levels.metric.clone_from(&levels.scope);
        if self.program.asks_metric {
            let name = last_bytes(message, 1)?;
            if !narrow(&self.program.steps, &mut levels.metric, |m, live| m.at_metric(live, name)) {
                return Ok(());
            }
        }
        let mut fields = Cursor::new(message);
        while let Some(field) = fields.next_field()? {
            let attributes = match field.number {
                // Gauge, sum, summary; histogram; exponential histogram.
                5 | 7 | 11 => 7,
                9 => 9,
                10 => 1,
                _ => continue,
            };
            let data = field.value.bytes()?;
            let place = Place::new(base, &field, data);
            self.out.enter((field.number << 3 | 2) as u8, place.header, place.payload, place.end);
            let result = self.points(data, place.payload, ItemKind { tag: FIELD_1, attributes });
            self.out.leave();
            result?;
        }
        Ok(())
    }

    fn points(&mut self, data: &[u8], base: usize, kind: ItemKind) -> Result<(), WireError> {
        let mut fields = Cursor::new(data);
        while let Some(field) = fields.next_field()? {
            if let (1, Value::Bytes(point)) = (field.number, field.value) {
                self.item(point, Place::new(base, &field, point), kind);
            }
        }
        Ok(())
    }

    /// A span, log record or data point.
    #[inline]
    fn item(&mut self, item: &[u8], at: Place, kind: ItemKind) {
        match self.edit(item, kind) {
            Ok(()) if !self.scratch.item.changed() => {}
            Ok(()) => {
                let attrs = &self.scratch.item;
                let out = self.out.replace(at.header, at.end);
                out.push(kind.tag);
                put_varint(out, attrs.encoded_len(item) as u64);
                attrs.write(item, (kind.attributes << 3 | 2) as u8, out);
            }
            Err(_) => self.malformed += 1,
        }
    }

    #[inline]
    fn edit(&mut self, item: &[u8], kind: ItemKind) -> Result<(), WireError> {
        let attrs = &mut self.scratch.item;
        attrs.read(item, kind.attributes)?;
        for (step, live) in self.program.steps.iter().zip(&self.scratch.live.metric) {
            let Step::Items { matcher, ops } = step else { continue };
            if !live.run {
                continue;
            }
            if let Some(matcher) = matcher.as_ref().filter(|m| m.asks_item(*live)) {
                let fields = match matcher.asks_item_fields() {
                    true => Some(ItemFields::read(item, self.program.signal)?),
                    false => None,
                };
                let attrs = &*attrs;
                if !matcher.at_item(*live, fields.as_ref(), |key| attrs.lookup(item, key))? {
                    continue;
                }
            }
            for op in ops {
                op.apply(item, attrs, &mut self.batch)?;
            }
        }
        Ok(())
    }
}

impl Place {
    /// The place of a field's message in a message that starts at `base`.
    #[inline]
    fn new(base: usize, field: &Field<'_>, message: &[u8]) -> Self {
        Place { header: base + field.start, payload: base + field.end - message.len(), end: base + field.end }
    }
}

/// Lets every matcher that may still run decide at one level; tells whether anything is left to do below.
fn narrow(
    steps: &[Step],
    live: &mut [Live],
    decide: impl Fn(&crate::processors::matching::Matcher, Live) -> Live,
) -> bool {
    let mut runs = false;
    for (step, live) in steps.iter().zip(live) {
        if let Step::Items { matcher: Some(matcher), .. } = step
            && live.run
        {
            *live = decide(matcher, *live);
        }
        runs |= live.run;
    }
    runs
}

/// Name and version of the scope in a `Scope*` message.
fn scope_identity(message: &[u8]) -> Result<(&[u8], &[u8]), WireError> {
    let (mut name, mut version): (&[u8], &[u8]) = (&[], &[]);
    let mut fields = Cursor::new(message);
    while let Some(field) = fields.next_field()? {
        if field.number == 1 {
            let mut scope = Cursor::new(field.value.bytes()?);
            while let Some(field) = scope.next_field()? {
                match field.number {
                    1 => name = field.value.bytes()?,
                    2 => version = field.value.bytes()?,
                    _ => {}
                }
            }
        }
    }
    Ok((name, version))
}

/// The last value of a text field; empty if it is absent.
fn last_bytes(message: &[u8], number: u32) -> Result<&[u8], WireError> {
    let mut out: &[u8] = &[];
    let mut fields = Cursor::new(message);
    while let Some(field) = fields.next_field()? {
        if field.number == number {
            out = field.value.bytes()?;
        }
    }
    Ok(out)
}
