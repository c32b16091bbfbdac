//! The walk over a request: resources and scopes. What is below them is in `items`.

mod items;

use std::any::Any;
use std::cell::Cell;

use bytes::Bytes;

use super::action::Batchwise;
use super::attrs::Attrs;
use super::rewrite::{Facts, Fate, Kind, Level, Levels, Message, Rewrite, StepCx};
use super::splice::{Spliced, Splicer};
use super::{Program, Step};
use crate::pdata::wire::{Cursor, Field, Value, WireError, put_varint};
use crate::pdata::{Batch, Signal, count_resource, count_scope};
use crate::processors::matching::Live;

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
    scope: Attrs,
    metric: Attrs,
    item: Attrs,
    event: Attrs,
    /// A resource that stood twice, merged; a scope likewise.
    merged: Vec<u8>,
    merged_scope: Vec<u8>,
    live: Levelwise,
}

/// What each step may still do, as decided at each level above the items.
#[derive(Debug, Default)]
struct Levelwise {
    resource: Vec<Live>,
    scope: Vec<Live>,
    metric: Vec<Live>,
    item: Vec<Live>,
}

struct Walk<'p, 'a> {
    program: &'p Program,
    scratch: Box<Scratch>,
    batch: Batchwise,
    rules: Rules<'a>,
    out: Splicer<'a>,
    malformed: usize,
    /// A metric had data of several kinds and lost points.
    recount: bool,
}

/// What steps with rules of their own are called with.
struct Rules<'a> {
    facts: Facts<'a>,
    /// One a step.
    scratches: Vec<Box<dyn Any>>,
    /// Items dropped, one a step.
    dropped: Vec<usize>,
    refuse: Option<String>,
}

/// What a walk has done.
pub(super) struct Walked {
    /// The edited request, if anything changed.
    pub(super) spliced: Option<Spliced>,
    /// How many messages could not be read.
    pub(super) malformed: usize,
    /// Items dropped by each step.
    pub(super) dropped: Vec<usize>,
    pub(super) refused: Option<String>,
    /// Whether the items that are left have to be counted.
    pub(super) recount: bool,
}

/// Where a message stands in the piece that is being walked.
#[derive(Clone, Copy)]
struct Place {
    header: usize,
    payload: usize,
    end: usize,
}

/// What became of the messages in another one.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    kept: usize,
    gone: usize,
}

/// What the steps made of a resource.
enum Decided {
    /// Whether any of them has something to do below it.
    Stays { runs: bool },
    /// Dropped by this step.
    Dropped(usize),
}

/// Runs the program over the pieces of a request.
pub(super) fn run(program: &Program, pieces: &[Bytes], batch: &Batch) -> Walked {
    let mut walked =
        Walked { spliced: None, malformed: 0, dropped: Vec::new(), refused: None, recount: false };
    let Some(first) = pieces.first() else { return walked };
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
    let Scratch { resource, scope, metric, item, event, .. } = &mut *scratch;
    for attrs in [resource, scope, metric, item, event] {
        attrs.set_pool(&program.pool);
    }
    let mut walk = Walk {
        program,
        scratch,
        batch: program.slots.fill(batch),
        rules: Rules::new(program, batch),
        out: Splicer::new(first, reserve),
        malformed: 0,
        recount: false,
    };
    for (i, piece) in pieces.iter().enumerate() {
        if i > 0 {
            walk.out.next_piece(piece);
        }
        if walk.request(piece).is_err() {
            walk.malformed += 1;
        }
    }
    let Walk { scratch, out, malformed, rules, recount, .. } = walk;
    if scratch.held() <= KEEP {
        SCRATCH.set(Some(scratch));
    }
    walked.malformed = malformed;
    if rules.refuse.is_some() {
        walked.refused = rules.refuse;
    } else {
        walked.spliced = out.finish();
        (walked.dropped, walked.recount) = (rules.dropped, recount);
    }
    walked
}

impl Scratch {
    fn held(&self) -> usize {
        let attrs = [&self.resource, &self.scope, &self.metric, &self.item, &self.event];
        attrs.iter().map(|a| a.held()).sum::<usize>() + self.merged.capacity() + self.merged_scope.capacity()
    }
}

impl<'a> Rules<'a> {
    fn new(program: &Program, batch: &'a Batch) -> Self {
        let facts = Facts { signal: batch.signal, client: &batch.client, tenant: batch.tenant.as_ref() };
        let mut rules = Rules { facts, scratches: Vec::new(), dropped: Vec::new(), refuse: None };
        if program.rules != Levels::NONE {
            rules.scratches.extend(program.steps.iter().map(|step| match step {
                Step::Rules { rules, .. } => rules.scratch(&facts),
                _ => Box::new(()),
            }));
            rules.dropped.resize(program.steps.len(), 0);
        }
        rules
    }

    /// Shows a message to the rules of the step `at`.
    #[inline]
    fn show(&mut self, at: usize, rules: &dyn Rewrite, message: &mut Message<'_>) -> Result<Fate, WireError> {
        let Some(scratch) = self.scratches.get_mut(at) else { return Ok(Fate::Skip) };
        let mut cx = StepCx { facts: self.facts, scratch: scratch.as_mut(), refuse: &mut self.refuse };
        rules.apply(message, &mut cx)
    }

    /// Shows a message above the items to all rules that are called at its level and still live, and to the conditions of
    /// other steps; narrows what they do below it. Returns the step that dropped it, if one did.
    fn show_all(
        &mut self,
        steps: &[Step],
        live: &mut [Live],
        message: &mut Message<'_>,
    ) -> Result<Option<usize>, WireError> {
        let level = message.level();
        for (at, (step, live)) in steps.iter().zip(live).enumerate() {
            match step {
                _ if !live.run => {}
                Step::Rules { rules, levels } if levels.has(level) => {
                    match self.show(at, rules.as_ref(), message)? {
                        Fate::Drop => return Ok(Some(at)),
                        Fate::Skip => live.run = false,
                        Fate::Keep => live.run = !levels.below(level).is_empty(),
                    }
                }
                Step::Items { matcher: Some(matcher), .. } => {
                    let text = |number| message.field(number)?.map_or(Ok(&[][..]), Value::bytes);
                    if level == Level::Scope && matcher.asks_scope() {
                        *live = matcher.at_scope(*live, text(1)?, text(2)?);
                    } else if level == Level::Metric && matcher.asks_metric() {
                        *live = matcher.at_metric(*live, text(1)?);
                    }
                }
                _ => {}
            }
        }
        Ok(None)
    }

    fn dropped(&mut self, at: usize, items: usize) {
        if let Some(dropped) = self.dropped.get_mut(at) {
            *dropped += items;
        }
    }
}

impl Walk<'_, '_> {
    fn request(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        let mut fields = Cursor::new(bytes);
        while let Some(field) = fields.next_field()? {
            if self.rules.refuse.is_some() {
                return Ok(());
            }
            if let (1, Value::Bytes(message)) = (field.number, field.value) {
                let at = Place::new(0, &field, message);
                if self.resource(message, at).is_err() && !self.unreadable_stays() {
                    self.out.replace(at.header, at.end);
                }
            }
        }
        Ok(())
    }

    /// Counts a message that cannot be read. Tells whether it stays.
    #[cold]
    fn unreadable_stays(&mut self) -> bool {
        self.malformed += 1;
        // How many items go with it may not be possible to tell.
        self.recount |= self.program.readable_only;
        !self.program.readable_only
    }

    /// A `ResourceSpans`, `ResourceMetrics` or `ResourceLogs`. On an error nothing in it has been changed.
    fn resource(&mut self, message: &[u8], at: Place) -> Result<(), WireError> {
        let mut merged = std::mem::take(&mut self.scratch.merged);
        let result = self.resource_of(message, at, &mut merged);
        self.scratch.merged = merged;
        result
    }

    fn resource_of(&mut self, message: &[u8], at: Place, merged: &mut Vec<u8>) -> Result<(), WireError> {
        // The resource may stand behind the scopes, and more than once.
        let (resource, absent) = only_message(message, merged)?;
        match self.decide(resource)? {
            Decided::Dropped(step) => {
                let items = count_resource(self.program.signal, message)?;
                self.rules.dropped(step, items);
                self.out.replace(at.header, at.end);
            }
            Decided::Stays { runs } if runs || self.scratch.resource.changed() => {
                self.out.enter(FIELD_1, at.header, at.payload, at.end);
                let tally = self.rewrite(message, at, resource, absent, runs);
                if tally.is_empty() { self.out.abandon() } else { self.out.leave() }
            }
            Decided::Stays { .. } => {}
        }
        Ok(())
    }

    /// Runs the steps for a resource and decides what the others will do below it.
    fn decide(&mut self, resource: &[u8]) -> Result<Decided, WireError> {
        let attrs = &mut self.scratch.resource;
        attrs.read(resource, 1)?;
        let levels = &mut self.scratch.live;
        levels.resource.clear();
        let mut runs = false;
        for (at, step) in self.program.steps.iter().enumerate() {
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
                Step::Rules { rules, levels } => {
                    let mut fate = Fate::Keep;
                    if levels.has(Level::Resource) {
                        let mut message = Message::new(Kind::Resource, resource, attrs);
                        fate = self.rules.show(at, rules.as_ref(), &mut message)?;
                    }
                    match fate {
                        Fate::Drop => return Ok(Decided::Dropped(at)),
                        Fate::Keep => live.run = levels.any(Levels::BELOW_RESOURCE),
                        Fate::Skip => {}
                    }
                }
            }
            runs |= live.run;
            levels.resource.push(live);
        }
        Ok(Decided::Stays { runs })
    }

    fn rewrite(&mut self, message: &[u8], at: Place, resource: &[u8], absent: bool, runs: bool) -> Tally {
        let mut tally = Tally::default();
        let mut write = self.scratch.resource.changed();
        let rewritten = write;
        if write && absent {
            write_message(&mut self.out, &self.scratch.resource, at.payload, at.payload, resource);
        }
        let mut fields = Cursor::new(message);
        // The message has been read to its end before.
        while let Ok(Some(field)) = fields.next_field() {
            match (field.number, field.value) {
                (1, _) if rewritten => {
                    let (from, to) = (at.payload + field.start, at.payload + field.end);
                    if write {
                        write_message(&mut self.out, &self.scratch.resource, from, to, resource);
                        write = false;
                    } else {
                        self.out.replace(from, to);
                    }
                }
                (2, Value::Bytes(scope)) if runs => {
                    let place = Place::new(at.payload, &field, scope);
                    self.out.enter(FIELD_2, place.header, place.payload, place.end);
                    let kept = self.scope(scope, place.payload).unwrap_or_else(|_| self.unreadable_stays());
                    tally.add(kept);
                    if kept { self.out.leave() } else { self.out.abandon() }
                }
                (2, _) => tally.add(true),
                _ => {}
            }
        }
        tally
    }

    /// A `ScopeSpans`, `ScopeMetrics` or `ScopeLogs` whose first byte is at `base`. Tells whether it stays.
    fn scope(&mut self, message: &[u8], base: usize) -> Result<bool, WireError> {
        let levels = &mut self.scratch.live;
        levels.scope.clone_from(&levels.resource);
        if self.program.asks_scope && !self.program.rules.has(Level::Scope) {
            let (name, version) = scope_identity(message)?;
            if !narrow(&self.program.steps, &mut levels.scope, |m, live| m.at_scope(live, name, version)) {
                return Ok(true);
            }
        }
        if !self.program.rules.has(Level::Scope) {
            return self.below_scope(message, base);
        }
        let mut merged = std::mem::take(&mut self.scratch.merged_scope);
        let result = self.scope_with_rules(message, base, &mut merged);
        self.scratch.merged_scope = merged;
        result
    }

    /// The same, when there are rules for the scope itself.
    fn scope_with_rules(
        &mut self,
        message: &[u8],
        base: usize,
        merged: &mut Vec<u8>,
    ) -> Result<bool, WireError> {
        let (scope, absent) = only_message(message, merged)?;
        let Scratch { scope: attrs, live, .. } = &mut *self.scratch;
        attrs.read(scope, Kind::Scope.attributes())?;
        let mut view = Message::new(Kind::Scope, scope, attrs);
        if let Some(step) = self.rules.show_all(&self.program.steps, &mut live.scope, &mut view)? {
            let items = count_scope(self.program.signal, message)?;
            self.rules.dropped(step, items);
            return Ok(false);
        }
        if !self.scratch.scope.changed() {
            return self.below_scope(message, base);
        }
        // Everything has to be readable before anything is written.
        count_scope(self.program.signal, message)?;
        let mut write = true;
        let attrs = std::mem::take(&mut self.scratch.scope);
        if absent {
            write_message(&mut self.out, &attrs, base, base, scope);
        }
        let mut tally = Tally::default();
        let mut fields = Cursor::new(message);
        while let Ok(Some(field)) = fields.next_field() {
            if field.number == 1 {
                let (from, to) = (base + field.start, base + field.end);
                if std::mem::take(&mut write) {
                    write_message(&mut self.out, &attrs, from, to, scope);
                } else {
                    self.out.replace(from, to);
                }
            } else if let (2, Value::Bytes(child)) = (field.number, field.value) {
                tally.add(self.child(child, Place::new(base, &field, child)));
            }
        }
        self.scratch.scope = attrs;
        Ok(!tally.is_empty())
    }

    fn below_scope(&mut self, message: &[u8], base: usize) -> Result<bool, WireError> {
        let mut tally = Tally::default();
        let mut fields = Cursor::new(message);
        while let Some(field) = fields.next_field()? {
            if let (2, Value::Bytes(child)) = (field.number, field.value) {
                tally.add(self.child(child, Place::new(base, &field, child)));
            }
        }
        Ok(!tally.is_empty())
    }

    /// A span, a log record or a metric. Tells whether it stays.
    #[inline]
    fn child(&mut self, child: &[u8], place: Place) -> bool {
        let kind = match self.program.signal {
            Signal::Traces => Kind::Span,
            Signal::Logs => Kind::Log,
            Signal::Metrics => return self.metric_child(child, place),
        };
        self.item(child, place, kind, FIELD_2, Level::Scope)
    }
}

impl Place {
    /// The place of a field's message in a message that starts at `base`.
    #[inline]
    fn new(base: usize, field: &Field<'_>, message: &[u8]) -> Self {
        Place { header: base + field.start, payload: base + field.end - message.len(), end: base + field.end }
    }
}

impl Tally {
    #[inline]
    fn add(&mut self, kept: bool) {
        self.kept += usize::from(kept);
        self.gone += usize::from(!kept);
    }

    /// Whether everything there was is gone. What was empty before stays.
    fn is_empty(self) -> bool {
        self.kept == 0 && self.gone > 0
    }
}

/// The message in field 1 of another one, and whether there is none. Merged in `merged` if it stands there more than
/// once.
fn only_message<'m>(message: &'m [u8], merged: &'m mut Vec<u8>) -> Result<(&'m [u8], bool), WireError> {
    let mut only: &[u8] = &[];
    let mut found = 0;
    merged.clear();
    let mut fields = Cursor::new(message);
    while let Some(field) = fields.next_field()? {
        if field.number == 1 {
            let bytes = field.value.bytes()?;
            if found == 1 {
                merged.extend_from_slice(only);
            }
            if found > 0 {
                merged.extend_from_slice(bytes);
            }
            found += 1;
            only = bytes;
        }
    }
    Ok((if found > 1 { merged } else { only }, found == 0))
}

/// Writes an edited resource or scope over the input from `from` to `to`.
fn write_message(out: &mut Splicer<'_>, attrs: &Attrs, from: usize, to: usize, src: &[u8]) {
    let out = out.replace(from, to);
    out.push(FIELD_1);
    put_varint(out, attrs.encoded_len(src) as u64);
    attrs.write(src, attrs.tag(), out);
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
