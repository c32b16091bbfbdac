//! The walk below scopes: metrics, items and events.

use super::{FIELD_1, FIELD_2, Place, Tally, Walk, narrow};
use crate::pdata::count_metric;
use crate::pdata::wire::{Cursor, Value, WireError, put_varint};
use crate::processors::edit::Step;
use crate::processors::edit::attrs::Attrs;
use crate::processors::edit::rewrite::{Fate, Kind, Level, Message};
use crate::processors::matching::{ItemFields, Live};

/// The field of a span in which its events stand.
const EVENTS: u32 = 11;

impl Walk<'_, '_> {
    /// A `Metric`. Tells whether it stays.
    pub(super) fn metric_child(&mut self, metric: &[u8], place: Place) -> bool {
        self.out.enter(FIELD_2, place.header, place.payload, place.end);
        let kept = self.metric(metric, place.payload).unwrap_or_else(|_| self.unreadable_stays());
        if kept {
            self.out.leave()
        } else {
            self.out.abandon()
        }
        kept
    }

    fn metric(&mut self, message: &[u8], base: usize) -> Result<bool, WireError> {
        let levels = &mut self.scratch.live;
        levels.metric.clone_from(&levels.scope);
        if self.program.asks_metric && !self.program.rules.has(Level::Metric) {
            let name = last_bytes(message, 1)?;
            if !narrow(&self.program.steps, &mut levels.metric, |m, live| m.at_metric(live, name)) {
                return Ok(true);
            }
        }
        if !self.program.rules.has(Level::Metric) {
            return self.metric_data(message, base, None);
        }
        let scratch = &mut *self.scratch;
        scratch.metric.read(message, Kind::Metric.attributes())?;
        let mut view = Message::new(Kind::Metric, message, &mut scratch.metric);
        if let Some(step) = self.rules.show_all(&self.program.steps, &mut scratch.live.metric, &mut view)? {
            let items = count_metric(message)?;
            self.rules.dropped(step, items);
            return Ok(false);
        }
        if !self.scratch.metric.changed() {
            return self.metric_data(message, base, None);
        }
        // Everything has to be readable before anything is written.
        count_metric(message)?;
        let attrs = std::mem::take(&mut self.scratch.metric);
        let kept = self.metric_data(message, base, Some(&attrs));
        self.scratch.metric = attrs;
        kept
    }

    /// The data points of a metric, and between them what has changed of the metric itself.
    fn metric_data(&mut self, message: &[u8], base: usize, own: Option<&Attrs>) -> Result<bool, WireError> {
        let changes = own.map(|attrs| attrs.changes()).unwrap_or_default();
        let mut changes = changes.into_iter().peekable();
        let kinds = if self.program.drops { data_kinds(message)? } else { DataKinds::default() };
        let mut tally = Tally::default();
        let mut fields = Cursor::new(message);
        loop {
            let field = fields.next_field()?;
            let until = field.as_ref().map_or(usize::MAX, |f| f.start);
            while let Some(change) = changes.next_if(|change| change.range().0 <= until) {
                let (from, to) = change.range();
                let out = self.out.replace(base + from, base + to);
                if let Some(attrs) = own {
                    attrs.write_change(message, change, Kind::Metric.tag(), out);
                }
            }
            let Some(field) = field else { break };
            let Some(kind) = Kind::of_points(field.number) else { continue };
            if kinds.last.is_some_and(|last| last != field.number) {
                // Overridden by what comes later: nobody sees these points.
                continue;
            }
            let data = field.value.bytes()?;
            let place = Place::new(base, &field, data);
            self.out.enter((field.number << 3 | 2) as u8, place.header, place.payload, place.end);
            let before = tally.gone;
            let result = self.points(data, place.payload, kind, &mut tally);
            self.recount |= kinds.several && tally.gone > before;
            self.out.leave();
            result?;
        }
        Ok(!tally.is_empty())
    }

    fn points(&mut self, data: &[u8], base: usize, kind: Kind, tally: &mut Tally) -> Result<(), WireError> {
        let mut fields = Cursor::new(data);
        while let Some(field) = fields.next_field()? {
            if let (1, Value::Bytes(point)) = (field.number, field.value) {
                tally.add(self.item(point, Place::new(base, &field, point), kind, FIELD_1, Level::Metric));
            }
        }
        Ok(())
    }

    /// A span, log record or data point below a message of level `above`. Tells whether it stays.
    #[inline]
    pub(super) fn item(&mut self, item: &[u8], at: Place, kind: Kind, tag: u8, above: Level) -> bool {
        match self.edit(item, kind, above) {
            Ok(true) if !self.scratch.item.changed() => {}
            Ok(true) => {
                let attrs = &self.scratch.item;
                let out = self.out.replace(at.header, at.end);
                out.push(tag);
                put_varint(out, attrs.encoded_len(item) as u64);
                attrs.write(item, kind.tag(), out);
            }
            Ok(false) => {
                self.out.replace(at.header, at.end);
                return false;
            }
            Err(_) => {
                if !self.unreadable_stays() {
                    self.out.replace(at.header, at.end);
                    return false;
                }
            }
        }
        true
    }

    /// Tells whether the item stays.
    #[inline]
    fn edit(&mut self, item: &[u8], kind: Kind, above: Level) -> Result<bool, WireError> {
        let scratch = &mut *self.scratch;
        let attrs = &mut scratch.item;
        attrs.read(item, kind.attributes())?;
        let levels = &mut scratch.live;
        let live = if above == Level::Metric { &levels.metric } else { &levels.scope };
        let events = self.program.rules.has(Level::Event) && kind == Kind::Span;
        if events {
            levels.item.clone_from(live);
        }
        for (at, (step, live)) in self.program.steps.iter().zip(live).enumerate() {
            if !live.run {
                continue;
            }
            match step {
                Step::Resource(_) => {}
                Step::Items { matcher, ops } => {
                    if let Some(matcher) = matcher.as_ref().filter(|m| m.asks_item(*live)) {
                        let fields = match matcher.asks_item_fields() {
                            true => Some(patched_fields(item, attrs, self.program.signal)?),
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
                Step::Rules { rules, levels: at_levels } => {
                    if !at_levels.has(Level::Item) {
                        continue;
                    }
                    match self.rules.show(at, rules.as_ref(), &mut Message::new(kind, item, attrs))? {
                        Fate::Keep => {}
                        Fate::Skip => {
                            if let Some(live) = levels.item.get_mut(at).filter(|_| events) {
                                live.run = false;
                            }
                        }
                        Fate::Drop => {
                            self.rules.dropped(at, 1);
                            return Ok(false);
                        }
                    }
                }
            }
        }
        if events {
            self.events(item)?;
        }
        Ok(true)
    }

    /// The events of a span.
    fn events(&mut self, span: &[u8]) -> Result<(), WireError> {
        let mut fields = Cursor::new(span);
        while let Some(field) = fields.next_field()? {
            if field.number != EVENTS {
                continue;
            }
            let message = field.value.bytes()?;
            let scratch = &mut *self.scratch;
            let Some(kept) =
                event(self.program, &mut self.rules, &scratch.live.item, message, &mut scratch.event)?
            else {
                scratch.item.patch_range(field.start, field.end, EVENTS, None)?;
                continue;
            };
            if kept.changed() {
                let len = kept.encoded_len(message);
                let new = scratch.item.build(|out| {
                    put_varint(out, u64::from(EVENTS << 3 | 2));
                    put_varint(out, len as u64);
                    kept.write(message, Kind::Event.tag(), out);
                })?;
                scratch.item.patch_range(field.start, field.end, EVENTS, Some(new))?;
            }
        }
        Ok(())
    }
}

/// Shows an event to the rules; `None` if it is dropped.
fn event<'e>(
    program: &super::Program,
    rules: &mut super::Rules<'_>,
    live: &[Live],
    message: &[u8],
    attrs: &'e mut Attrs,
) -> Result<Option<&'e Attrs>, WireError> {
    attrs.read(message, Kind::Event.attributes())?;
    for (at, (step, live)) in program.steps.iter().zip(live).enumerate() {
        if let Step::Rules { rules: own, levels } = step
            && live.run
            && levels.has(Level::Event)
        {
            let fate = rules.show(at, own.as_ref(), &mut Message::new(Kind::Event, message, attrs))?;
            if fate == Fate::Drop {
                return Ok(None);
            }
        }
    }
    Ok(Some(attrs))
}

/// The fields of an item that criteria ask about, as the steps so far left them.
fn patched_fields<'a>(
    item: &'a [u8],
    attrs: &'a Attrs,
    signal: crate::pdata::Signal,
) -> Result<ItemFields<'a>, WireError> {
    let mut fields = ItemFields::read(item, signal)?;
    if !attrs.patches.is_empty() {
        fields.patch(signal, |number| attrs.field(item, number))?;
    }
    Ok(fields)
}

/// Which kinds of data a metric has.
#[derive(Default)]
struct DataKinds {
    /// The field that counts: the last one.
    last: Option<u32>,
    several: bool,
}

fn data_kinds(message: &[u8]) -> Result<DataKinds, WireError> {
    let mut kinds = DataKinds::default();
    let mut fields = Cursor::new(message);
    while let Some(field) = fields.next_field()? {
        if Kind::of_points(field.number).is_some() {
            kinds.several |= kinds.last.is_some_and(|last| last != field.number);
            kinds.last = Some(field.number);
        }
    }
    Ok(kinds)
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
