//! What a processor with rules of its own gives to the program: [`Rewrite`], called at each level of the walk.
//!
//! `resource` and `attributes` are lists of actions on attributes, which the walk knows. Whatever looks at more than one
//! level, drops, or changes other fields (`filter`, `transform`, `relabel`, the sampler) is a [`Rewrite`]: it gets each
//! [`Message`] as the steps before it left it, top down: resource, scope, metric, item, event.
//!
//! A step that needs something from above while it is below keeps it in its scratch when it sees it; so it sees what the
//! steps before it made of it, and not what later ones will, just as if each processor had walked alone. For the same
//! reason a step changes a message only while it is shown that message.

use std::any::Any;
use std::fmt;

use super::attrs::Attrs;
use crate::pdata::wire::{Value, WireError};
use crate::pdata::{ClientInfo, Signal, Tenant};

/// One processor's rules, compiled. Shared by all tasks.
pub(crate) trait Rewrite: fmt::Debug + Send + Sync {
    /// The levels at which it is called for this signal.
    fn levels(&self, signal: Signal) -> Levels;

    /// Whether it may return [`Fate::Drop`].
    fn drops(&self) -> bool;

    /// What it wants to keep while a batch is walked, made once a batch.
    fn scratch(&self, _facts: &Facts<'_>) -> Box<dyn Any> {
        Box::new(())
    }

    /// Looks at a message, and changes it or decides its fate.
    ///
    /// # Errors
    /// Bytes inside the message that are not what they should be: it stays as it was and is counted.
    fn apply(&self, message: &mut Message<'_>, cx: &mut StepCx<'_>) -> Result<Fate, WireError>;

    /// Whether what it finds at one level depends on messages further down. It begins a walk of its own then: steps
    /// before it in the same walk would not have changed those messages yet.
    fn looks_below(&self, _signal: Signal) -> bool {
        false
    }

    /// It has dropped so many items of a batch, directly or with what was around them. Called once a batch, if any.
    fn dropped(&self, _items: usize) {}

    /// About how many bytes it adds to a message of a level, for reserving memory.
    fn growth(&self, _level: Level) -> usize {
        0
    }
}

/// Which message of a request this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// `Resource`.
    Resource,
    /// `InstrumentationScope`.
    Scope,
    /// `Metric`, in metrics only. Its data points are items.
    Metric,
    /// `Span`, `LogRecord` or a data point.
    Item,
    /// `Span.Event`, in traces only.
    Event,
}

/// A set of levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Levels(u8);

/// What kind of message it is; says in which field its attributes stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Resource,
    Scope,
    /// Its attributes are its `metadata`.
    Metric,
    Span,
    Event,
    Log,
    Gauge,
    Sum,
    Histogram,
    Exponential,
    Summary,
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It stays, and the step is shown what is below it.
    Keep,
    /// It stays, and the step has nothing to do below it.
    Skip,
    /// It goes with all that is below it. Steps behind this one never see it.
    Drop,
}

/// What is known of the batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) signal: Signal,
    pub(crate) client: &'a ClientInfo,
    pub(crate) tenant: Option<&'a Tenant>,
}

/// What a step has at hand while it is called.
pub(crate) struct StepCx<'a> {
    pub(crate) facts: Facts<'a>,
    /// What [`Rewrite::scratch`] made for this batch.
    pub(crate) scratch: &'a mut dyn Any,
    /// Set to refuse the whole batch, with one sentence for its sender: it stays as it was.
    pub(crate) refuse: &'a mut Option<String>,
}

/// A message while it is edited, as the steps so far left it.
pub(crate) struct Message<'a> {
    kind: Kind,
    src: &'a [u8],
    attrs: &'a mut Attrs,
}

impl Levels {
    pub(crate) const NONE: Levels = Levels(0);
    pub(crate) const RESOURCE: Levels = Levels(1);
    pub(crate) const SCOPE: Levels = Levels(2);
    pub(crate) const METRIC: Levels = Levels(4);
    pub(crate) const ITEM: Levels = Levels(8);
    #[cfg(test)]
    pub(crate) const EVENT: Levels = Levels(16);
    /// Whatever stands below resources.
    pub(crate) const BELOW_RESOURCE: Levels = Levels(2 | 4 | 8 | 16);

    /// Both sets together.
    pub(crate) const fn and(self, other: Levels) -> Levels {
        Levels(self.0 | other.0)
    }

    /// Whether any level of the other set is in this one.
    pub(crate) const fn any(self, other: Levels) -> bool {
        self.0 & other.0 != 0
    }

    /// The levels below one.
    pub(crate) const fn below(self, level: Level) -> Levels {
        Levels(self.0 & ((0xfe_u16 << level as u8) as u8))
    }

    pub(crate) const fn has(self, level: Level) -> bool {
        self.0 >> level as u8 & 1 != 0
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl From<Level> for Levels {
    fn from(level: Level) -> Self {
        Levels(1 << level as u8)
    }
}

impl Kind {
    /// The level of such a message.
    pub(crate) const fn level(self) -> Level {
        match self {
            Kind::Resource => Level::Resource,
            Kind::Scope => Level::Scope,
            Kind::Metric => Level::Metric,
            Kind::Event => Level::Event,
            _ => Level::Item,
        }
    }

    /// The number of the field its attributes stand in.
    pub(crate) const fn attributes(self) -> u32 {
        match self {
            Kind::Resource | Kind::Exponential => 1,
            Kind::Scope | Kind::Event => 3,
            Kind::Metric => 12,
            Kind::Span | Kind::Histogram => 9,
            Kind::Log => 6,
            Kind::Gauge | Kind::Sum | Kind::Summary => 7,
        }
    }

    /// The tag of that field.
    pub(crate) const fn tag(self) -> u8 {
        (self.attributes() << 3 | 2) as u8
    }

    /// The kind of the data points in a field of `Metric`.
    pub(crate) const fn of_points(number: u32) -> Option<Kind> {
        Some(match number {
            5 => Kind::Gauge,
            7 => Kind::Sum,
            9 => Kind::Histogram,
            10 => Kind::Exponential,
            11 => Kind::Summary,
            _ => return None,
        })
    }
}

impl<'a> Message<'a> {
    /// A message whose attributes have been read.
    pub(super) fn new(kind: Kind, src: &'a [u8], attrs: &'a mut Attrs) -> Self {
        Message { kind, src, attrs }
    }

    /// What it is.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Its level.
    pub(crate) fn level(&self) -> Level {
        self.kind.level()
    }

    /// The bytes it was read from, without any changes: for fields that no step changes.
    pub(crate) fn original(&self) -> &'a [u8] {
        self.src
    }

    /// The `AnyValue` of the first attribute of that key; empty bytes are an empty value.
    #[inline]
    pub(crate) fn attribute(&self, key: &[u8]) -> Option<&[u8]> {
        self.attrs.lookup(self.src, key)
    }

    /// Sets an attribute to an encoded `AnyValue`: the first of that key, or a new one.
    pub(crate) fn set_attribute(&mut self, key: &[u8], value: &[u8]) -> Result<(), WireError> {
        let value = self.attrs.store(value)?;
        match self.attrs.find(self.src, key) {
            Some(at) => self.attrs.set(self.src, at, value),
            None => {
                let key = self.attrs.store(key)?;
                self.attrs.push(self.src, key, value);
            }
        }
        Ok(())
    }

    /// Adds an attribute of a key that is not there yet, without looking: for long lists.
    pub(crate) fn add_attribute(&mut self, key: &[u8], value: &[u8]) -> Result<(), WireError> {
        let value = self.attrs.store(value)?;
        let key = self.attrs.store(key)?;
        self.attrs.push(self.src, key, value);
        Ok(())
    }

    /// Deletes every attribute of that key; tells whether there was one.
    pub(crate) fn delete_attribute(&mut self, key: &[u8]) -> bool {
        let mut from = 0;
        while let Some(at) = self.attrs.find_from(self.src, key, from) {
            self.attrs.delete(at);
            from = at + 1;
        }
        from > 0
    }

    /// How many places attributes have, deleted ones included. A place is a number below it.
    pub(crate) fn places(&self) -> usize {
        self.attrs.len()
    }

    /// Key and encoded `AnyValue` at a place; `None` where an attribute was deleted.
    pub(crate) fn attribute_at(&self, place: usize) -> Option<(&[u8], &[u8])> {
        let key = self.attrs.key(self.src, place)?;
        Some((key, self.attrs.value(self.src, place)))
    }

    /// The attributes in order: place, key, encoded `AnyValue`.
    pub(crate) fn attributes(&self) -> impl Iterator<Item = (usize, &[u8], &[u8])> {
        (0..self.places()).filter_map(|at| self.attribute_at(at).map(|(key, value)| (at, key, value)))
    }

    /// Sets the value at a place.
    pub(crate) fn set_attribute_at(&mut self, place: usize, value: &[u8]) -> Result<(), WireError> {
        let value = self.attrs.store(value)?;
        self.attrs.set(self.src, place, value);
        Ok(())
    }

    /// Deletes the attribute at a place.
    pub(crate) fn delete_attribute_at(&mut self, place: usize) {
        self.attrs.delete(place);
    }

    /// Whether any field other than the attributes is different from the original.
    pub(crate) fn fields_changed(&self) -> bool {
        !self.attrs.patches.is_empty()
    }

    /// The last value of a field other than the attributes; `None` if it is absent.
    ///
    /// # Errors
    /// The message's bytes are no protobuf.
    pub(crate) fn field(&self, number: u32) -> Result<Option<Value<'_>>, WireError> {
        self.attrs.field(self.src, number)
    }

    /// Sets a singular field other than the attributes: whatever stood in it, however often, is gone.
    ///
    /// # Errors
    /// The message's bytes are no protobuf.
    pub(crate) fn set_field(&mut self, number: u32, value: Value<'_>) -> Result<(), WireError> {
        debug_assert_ne!(number, self.kind.attributes(), "attributes have calls of their own");
        self.attrs.set_field(self.src, number, Some(value))
    }

    /// Takes a field out.
    ///
    /// # Errors
    /// The message's bytes are no protobuf.
    pub(crate) fn clear_field(&mut self, number: u32) -> Result<(), WireError> {
        self.attrs.set_field(self.src, number, None)
    }
}
