//! The fused edit program: adjacent editing processors compile into one walk over the bytes.
//!
//! Each editing processor contributes an [`Edit`]; a [`Program`] runs those of neighbouring processors in one
//! walk, with the same result as if they ran one after another: a later action sees what an earlier one left,
//! and so do a later processor's conditions.
//!
//! # What it promises
//!
//! * Fields nobody edits keep their bytes, known or unknown, and untouched attributes keep their order. A new
//!   attribute follows the last one there was.
//! * Where nothing changes, the rope stays as it is and nothing is copied. Setting what is there already is no
//!   change.
//! * Any bytes are safe. An item that cannot be read stays as it is and is counted in [`Applied::malformed`].
//! * Where a key stands twice, `delete` and `hash` act on all of them, every other action on the first, which
//!   is the one the Collector finds. A message that stands twice where one belongs is merged, as decoders do.
//!
//! # What it costs
//!
//! A program for resources reads and rewrites each resource and the lengths around it; scopes are referenced
//! and never read. A program for items reads the tags of each item and the keys of its attributes once,
//! whatever the number of processors, and copies the items that change; conditions on resource, scope or
//! metric are decided once for all items below. Memory is allocated per batch, not per item.

mod action;
mod attrs;
mod patch;
mod rewrite;
mod splice;
mod value;
mod walk;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

pub use action::{Action, ActionKind, ConvertedType};
pub(crate) use action::{Op, regex_error};
pub(crate) use rewrite::{Facts, Fate, Kind, Level, Levels, Message, Rewrite, StepCx};
pub(crate) use value::{Scalar, put_any, text as value_text};

use crate::pdata::wire::{Cursor, WireError};
use crate::pdata::{Batch, Rope, Signal, count};
use crate::processors::matching::Matcher;

/// What one editing processor contributes to the program.
#[derive(Debug, Clone, Default)]
pub struct Edit {
    steps: Vec<Step>,
}

/// The fused edits of neighbouring processors for one signal. Shared by all tasks.
#[derive(Debug)]
pub struct Program {
    signal: Signal,
    steps: Vec<Step>,
    slots: action::Slots,
    /// The attributes that actions set, finished.
    pool: Bytes,
    /// Whether any step is about items; if not, scopes are never read.
    edits_items: bool,
    asks_scope: bool,
    asks_metric: bool,
    /// The levels at which any rules are called.
    rules: Levels,
    /// Whether any rules may drop.
    drops: bool,
    /// Whether what cannot be read goes instead of staying as it was.
    readable_only: bool,
    /// About how many bytes the steps add to a resource, and to an item.
    resource_growth: usize,
    item_growth: usize,
}

/// What applying a program found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "malformed items are to be counted"]
pub struct Applied {
    /// Whether the batch is different now.
    pub changed: bool,
    /// Items, or larger messages around them, that could not be read and stayed as they were.
    pub malformed: usize,
    /// Items dropped, as processors were told to; they have counted them.
    pub dropped: usize,
    /// Why the batch is to be refused; it stayed as it was then.
    pub refused: Option<String>,
}

/// One processor's actions on one kind of attributes.
#[derive(Debug, Clone)]
enum Step {
    Resource(Vec<Op>),
    Items {
        matcher: Option<Box<Matcher>>,
        ops: Vec<Op>,
    },
    /// Rules of the processor's own, and the levels at which they are called.
    Rules {
        rules: Arc<dyn Rewrite>,
        levels: Levels,
    },
}

impl Edit {
    /// Actions on the attributes of resources.
    pub(crate) fn resource(ops: Vec<Op>) -> Self {
        Edit { steps: vec![Step::Resource(ops)] }
    }

    /// Actions on the attributes of spans, log records or data points that `matcher` lets through.
    pub(crate) fn items(matcher: Option<Matcher>, ops: Vec<Op>) -> Self {
        Edit { steps: vec![Step::Items { matcher: matcher.map(Box::new), ops }] }
    }

    /// Rules of the processor's own.
    pub(crate) fn rules(rules: Arc<dyn Rewrite>) -> Self {
        Edit { steps: vec![Step::Rules { rules, levels: Levels::NONE }] }
    }

    /// One edit after the other.
    pub(crate) fn then(mut self, next: Edit) -> Self {
        self.steps.extend(next.steps);
        self
    }
}

impl Program {
    /// The programs that run the edits of neighbouring processors, one after another: as few as can be. An edit that
    /// looks at what is below a message sees what the edits before it made of it, so it begins another.
    pub fn chain(signal: Signal, edits: Vec<Edit>) -> Vec<Self> {
        let mut walks: Vec<Vec<Step>> = Vec::new();
        for step in edits.into_iter().flat_map(|edit| edit.steps) {
            let looks_below = matches!(&step, Step::Rules { rules, .. } if rules.looks_below(signal));
            match walks.last_mut() {
                Some(walk) if !looks_below => walk.push(step),
                _ => walks.push(vec![step]),
            }
        }
        walks.into_iter().map(|steps| Program::new(signal, vec![Edit { steps }])).collect()
    }

    /// Fuses the edits of neighbouring processors, first to last.
    pub fn new(signal: Signal, edits: Vec<Edit>) -> Self {
        let mut steps: Vec<Step> = edits.into_iter().flat_map(|edit| edit.steps).collect();
        let mut slots = action::Slots::default();
        let (mut resource_growth, mut item_growth) = (0, 0);
        let (mut all, mut drops) = (Levels::NONE, false);
        for step in &mut steps {
            let (ops, growth) = match step {
                Step::Resource(ops) => (ops, &mut resource_growth),
                Step::Items { ops, .. } => (ops, &mut item_growth),
                Step::Rules { rules, levels } => {
                    *levels = rules.levels(signal);
                    all = all.and(*levels);
                    drops |= rules.drops();
                    resource_growth += rules.growth(Level::Resource);
                    item_growth += rules.growth(Level::Item);
                    continue;
                }
            };
            for op in ops {
                slots.assign(op);
                *growth += op.growth();
            }
        }
        let asks = |test: fn(&Matcher) -> bool| {
            steps.iter().any(|s| matches!(s, Step::Items { matcher: Some(m), .. } if test(m)))
        };
        Program {
            signal,
            pool: slots.take_pool(),
            edits_items: all.any(Levels::BELOW_RESOURCE)
                || steps.iter().any(|s| matches!(s, Step::Items { .. })),
            rules: all,
            drops,
            readable_only: false,
            asks_scope: asks(Matcher::asks_scope),
            asks_metric: asks(Matcher::asks_metric),
            steps,
            slots,
            resource_growth,
            item_growth,
        }
    }

    /// The same program, which drops what it cannot read: for whoever keeps that elsewhere. It is counted as malformed and
    /// as dropped.
    pub(crate) fn readable_only(mut self) -> Self {
        self.readable_only = true;
        self
    }

    /// Runs the program on a batch of its signal. Memory allocated for what changed is added to what the batch
    /// has reserved, past the budget if need be.
    pub fn apply(&self, batch: &mut Batch) -> Applied {
        debug_assert_eq!(batch.signal, self.signal, "a program is made for one signal");
        let pieces = whole_messages(&batch.rope);
        let walk::Walked { spliced, malformed, dropped, refused, recount } = walk::run(self, &pieces, batch);
        let mut applied = Applied { changed: false, malformed, dropped: 0, refused };
        let Some(spliced) = spliced else { return applied };
        applied.changed = true;
        batch.rope = spliced.rope;
        if dropped.iter().any(|n| *n > 0) || recount {
            let before = batch.items;
            batch.items = before.saturating_sub(dropped.iter().sum());
            if recount {
                let pieces = whole_messages(&batch.rope);
                let counted: Result<usize, _> = pieces.iter().map(|piece| count(self.signal, piece)).sum();
                batch.items = counted.unwrap_or(batch.items).min(before);
            }
            applied.dropped = before - batch.items;
            self.tell_dropped(&dropped);
        }
        if let Some(first) = batch.leases.first() {
            let lease = Arc::new(first.alongside(spliced.allocated));
            if !spliced.refers {
                // Nothing of the original is left in this batch.
                batch.leases.clear();
            }
            batch.leases.push(lease);
        }
        applied
    }

    /// Has each step count what it dropped.
    fn tell_dropped(&self, dropped: &[usize]) {
        for (step, &items) in self.steps.iter().zip(dropped) {
            if let Step::Rules { rules, .. } = step
                && items > 0
            {
                rules.dropped(items);
            }
        }
    }
}

/// The rope's pieces, joined where a message of the top level lies across a boundary.
pub(crate) fn whole_messages(rope: &Rope) -> SmallVec<[Bytes; 2]> {
    let mut out = SmallVec::new();
    if let [only] = rope.pieces() {
        out.push(only.clone());
        return out;
    }
    let (mut joined, mut whole) = (Vec::new(), 0);
    for piece in rope.pieces() {
        if joined.is_empty() {
            whole = whole_until(piece, 0);
            if whole == piece.len() {
                out.push(piece.clone());
            } else {
                joined.reserve(rope.len().min(piece.len() * 2));
                joined.extend_from_slice(piece);
            }
            continue;
        }
        joined.extend_from_slice(piece);
        whole = whole_until(&joined, whole);
        if whole == joined.len() {
            out.push(Bytes::from(std::mem::take(&mut joined)));
        }
    }
    if !joined.is_empty() {
        out.push(Bytes::from(joined));
    }
    out
}

/// The end of the last whole field, looking from the end of an earlier one. Bytes that are no message count as
/// whole: joining more to them makes them no better.
fn whole_until(bytes: &[u8], from: usize) -> usize {
    let mut fields = Cursor::new(bytes.get(from..).unwrap_or_default());
    loop {
        match fields.next_field() {
            Ok(Some(_)) => {}
            Ok(None) => return bytes.len(),
            Err(WireError::Truncated) => return from + fields.pos(),
            Err(_) => return bytes.len(),
        }
    }
}
