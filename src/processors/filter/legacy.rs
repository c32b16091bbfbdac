//! The older way to write a filter: `include` and `exclude`. What is included and not excluded stays.

use std::any::Any;

use super::expr::{Expr, Point};
use crate::pdata::Signal;
use crate::pdata::wire::{Cursor, Value, WireError};
use crate::processors::edit::{Fate, Kind, Level, Levels, Message, Scalar, StepCx};
use crate::processors::matching::{ItemFields, Live, Matcher};

/// Compiled `include` and `exclude` blocks of one signal.
#[derive(Debug, Clone, Default)]
pub(super) struct Legacy {
    /// Each has to let an item through.
    pub(super) matchers: Vec<Matcher>,
    /// A metric stays if any expression holds for any of its data points.
    pub(super) include: Option<Vec<Expr>>,
    /// A metric goes if any expression holds for any of its data points.
    pub(super) exclude: Option<Vec<Expr>>,
}

/// What the matchers have decided at each level above the message they are shown.
#[derive(Debug, Default)]
struct Decided {
    levels: [Vec<Live>; 3],
}

impl Legacy {
    pub(super) fn is_empty(&self) -> bool {
        self.matchers.is_empty() && !self.asks_points()
    }

    /// Whether metrics are judged by their data points.
    pub(super) fn asks_points(&self) -> bool {
        self.include.is_some() || self.exclude.is_some()
    }

    pub(super) fn levels(&self) -> Levels {
        let when = |yes: bool, levels: Levels| if yes { levels } else { Levels::NONE };
        let any = |asks: fn(&Matcher) -> bool| self.matchers.iter().any(asks);
        when(!self.matchers.is_empty(), Levels::RESOURCE)
            .and(when(any(Matcher::asks_scope), Levels::SCOPE))
            .and(when(any(Matcher::asks_metric) || self.asks_points(), Levels::METRIC))
            .and(when(any(Matcher::asks_items), Levels::ITEM))
    }

    pub(super) fn scratch(&self) -> Box<dyn Any> {
        Box::new(Decided::default())
    }

    pub(super) fn apply(&self, message: &Message<'_>, cx: &mut StepCx<'_>) -> Result<Fate, WireError> {
        let Some(decided) = cx.scratch.downcast_mut::<Decided>() else { return Ok(Fate::Keep) };
        let level = message.level();
        if level == Level::Metric && !self.keeps_metric(message)? {
            return Ok(Fate::Drop);
        }
        if level == Level::Item {
            return self.item(message, decided.above(level), cx.facts.signal);
        }
        let at = level as usize;
        let mut lives = decided.levels.get_mut(at).map(std::mem::take).unwrap_or_default();
        lives.clear();
        let fate = self.above_items(message, decided.above(level), &mut lives);
        // Levels that are not asked decide nothing of their own.
        for below in decided.levels.iter_mut().skip(at + 1) {
            below.clone_from(&lives);
        }
        if let Some(slot) = decided.levels.get_mut(at) {
            *slot = lives;
        }
        fate
    }

    /// Decides about everything in a resource, scope or metric.
    fn above_items(
        &self,
        message: &Message<'_>,
        above: &[Live],
        lives: &mut Vec<Live>,
    ) -> Result<Fate, WireError> {
        let text = |number| message.field(number)?.map_or(Ok(&[][..]), Value::bytes);
        let mut more = self.asks_points();
        for (i, matcher) in self.matchers.iter().enumerate() {
            let before = above.get(i).copied().unwrap_or(Live::YES);
            let live = match message.level() {
                Level::Resource => matcher.at_resource(|key| message.attribute(key))?,
                Level::Scope if matcher.asks_scope() => matcher.at_scope(before, text(1)?, text(2)?),
                Level::Metric if matcher.asks_metric() => matcher.at_metric(before, text(1)?),
                _ => before,
            };
            if !live.run {
                return Ok(Fate::Drop);
            }
            more |= matcher.asks_scope() || matcher.asks_metric() || matcher.asks_item(live);
            lives.push(live);
        }
        Ok(if more { Fate::Keep } else { Fate::Skip })
    }

    fn item(&self, message: &Message<'_>, above: &[Live], signal: Signal) -> Result<Fate, WireError> {
        for (matcher, live) in self.matchers.iter().zip(above) {
            if !matcher.asks_item(*live) {
                continue;
            }
            let fields = match matcher.asks_item_fields() {
                true => Some(fields(message, signal)?),
                false => None,
            };
            if !matcher.at_item(*live, fields.as_ref(), |key| message.attribute(key))? {
                return Ok(Fate::Drop);
            }
        }
        Ok(Fate::Keep)
    }

    fn keeps_metric(&self, message: &Message<'_>) -> Result<bool, WireError> {
        if !self.asks_points() {
            return Ok(true);
        }
        let name = message.field(1)?.map_or(Ok(&[][..]), Value::bytes)?;
        let holds = |exprs: &Option<Vec<Expr>>| {
            exprs.as_ref().map(|exprs| any_point(message.original(), name, exprs)).transpose()
        };
        Ok(holds(&self.include)?.unwrap_or(true) && !holds(&self.exclude)?.unwrap_or(false))
    }
}

impl Decided {
    fn above(&self, level: Level) -> &[Live] {
        let above = (level as usize).checked_sub(1).and_then(|at| self.levels.get(at));
        above.map(Vec::as_slice).unwrap_or_default()
    }
}

/// The fields of an item as earlier steps left them.
fn fields<'m>(message: &'m Message<'_>, signal: Signal) -> Result<ItemFields<'m>, WireError> {
    let mut fields = ItemFields::read(message.original(), signal)?;
    if message.fields_changed() {
        fields.patch(signal, |number| message.field(number))?;
    }
    Ok(fields)
}

/// Whether any expression holds for any data point of a metric.
fn any_point(metric: &[u8], name: &[u8], exprs: &[Expr]) -> Result<bool, WireError> {
    // Of several kinds of data the last counts, as every decoder has it.
    let mut kind = None;
    let mut fields = Cursor::new(metric);
    while let Some(field) = fields.next_field()? {
        kind = Kind::of_points(field.number).map(|kind| (field.number, kind)).or(kind);
    }
    let Some((number, kind)) = kind else { return Ok(false) };
    let mut fields = Cursor::new(metric);
    while let Some(field) = fields.next_field()? {
        if field.number != number {
            continue;
        }
        let mut points = Cursor::new(field.value.bytes()?);
        while let Some(point) = points.next_field()? {
            if point.number != 1 {
                continue;
            }
            let bytes = point.value.bytes()?;
            // Read to its end once, so that looking for labels cannot fail.
            check(bytes, kind.attributes())?;
            let label = |key: &str| find_label(bytes, kind.attributes(), key.as_bytes());
            let point = Point { name, kind: name_of(kind), label };
            if exprs.iter().any(|expr| expr.eval(&point)) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Whether the attributes of a data point can be read.
fn check(point: &[u8], number: u32) -> Result<(), WireError> {
    let mut fields = Cursor::new(point);
    while let Some(field) = fields.next_field()? {
        if field.number == number {
            let mut pair = Cursor::new(field.value.bytes()?);
            while let Some(field) = pair.next_field()? {
                match field.number {
                    1 => drop(field.value.bytes()?),
                    2 => drop(Scalar::read(field.value.bytes()?)?),
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

/// The first label of that key: its text, empty if it is no string.
fn find_label<'p>(point: &'p [u8], number: u32, key: &[u8]) -> Option<&'p [u8]> {
    let mut fields = Cursor::new(point);
    while let Ok(Some(field)) = fields.next_field() {
        let (true, Value::Bytes(pair)) = (field.number == number, field.value) else { continue };
        let (mut found, mut text): (&[u8], &[u8]) = (&[], &[]);
        let mut pair = Cursor::new(pair);
        while let Ok(Some(field)) = pair.next_field() {
            match (field.number, field.value) {
                (1, Value::Bytes(bytes)) => found = bytes,
                (2, Value::Bytes(any)) => match Scalar::read(any) {
                    Ok(Scalar::Str(bytes)) => text = bytes,
                    Ok(Scalar::Empty) => {}
                    _ => text = &[],
                },
                _ => {}
            }
        }
        if found == key {
            return Some(text);
        }
    }
    None
}

/// `MetricType` of a metric with such data points.
fn name_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Gauge => "Gauge",
        Kind::Sum => "Sum",
        Kind::Histogram => "Histogram",
        Kind::Exponential => "ExponentialHistogram",
        Kind::Summary => "Summary",
        _ => "Empty",
    }
}
