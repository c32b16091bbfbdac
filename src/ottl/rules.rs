//! Groups of conditions and statements as rules for the walk.
//!
//! A group's paths of higher levels are captured when the message above is shown, in the order of the groups: so a group
//! sees what the groups before it made of that message, as if each group had walked the whole batch by itself.

mod groups;

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bumpalo::Bump;

pub use self::groups::{ConditionGroup, GroupError, Part, StatementGroup};
use super::compile::{Condition, Origin, Statement};
use super::editors::Editor;
use super::eval::{Env, Test};
use super::value::{Fault, Kept};
use super::{Context, ErrorMode};
use crate::pdata::Signal;
use crate::pdata::wire::WireError;
use crate::processors::edit::{Edit, Facts, Fate, Level, Levels, Message, Rewrite, StepCx};
use crate::telemetry::Counter;

/// Seconds between two lines about errors of the same rules.
const LOG_EVERY: u64 = 10;

/// Compiled groups: what the walk calls. [`Rules::edit`] makes the whole contribution of a processor.
#[derive(Debug)]
pub struct Rules {
    /// Who they belong to, for the log.
    owner: String,
    signal: Signal,
    units: Vec<Unit>,
    captures: Vec<Origin>,
    levels: Levels,
    /// Whether any of them depends on messages below the one it is shown.
    looks_below: bool,
    kind: What,
    complaints: Complaints,
}

enum What {
    /// Messages go for which a condition holds or, with `keep`, for which none does.
    Filter {
        keep: bool,
        on_dropped: Option<Counter>,
    },
    Transform,
}

/// A group, compiled.
#[derive(Debug)]
struct Unit {
    level: Level,
    error_mode: ErrorMode,
    gates: Vec<Gate>,
    acts: Vec<Act>,
    /// Its captures among those of the rules.
    captures: std::ops::Range<usize>,
}

#[derive(Debug)]
struct Gate {
    text: Box<str>,
    test: Test,
    captures: std::ops::Range<usize>,
}

#[derive(Debug)]
struct Act {
    text: Box<str>,
    editor: Editor,
    filter: Option<Test>,
    captures: std::ops::Range<usize>,
}

/// What is kept while a batch is walked.
struct Scratch {
    arena: Bump,
    kept: Vec<Kept>,
}

/// Errors that were met, for a line in the log now and then.
#[derive(Debug)]
struct Complaints {
    start: Instant,
    /// The second, counted from 1, of the last line; 0 if there was none.
    last: AtomicU64,
    /// Since then.
    silent: AtomicU64,
}

/// What an error means for what goes on.
enum After {
    Continue,
    /// The batch is refused.
    Stop,
}

impl fmt::Debug for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            What::Filter { keep: false, .. } => "Filter",
            What::Filter { keep: true, .. } => "Keep",
            What::Transform => "Transform",
        })
    }
}

impl Rules {
    /// Drops messages for which a condition holds; with `keep` those for which none of the groups of their level does.
    /// What lies around messages that are all gone goes too. `on_dropped` counts items.
    pub fn filter(
        owner: impl Into<String>,
        signal: Signal,
        groups: Vec<ConditionGroup>,
        keep: bool,
        on_dropped: Option<Counter>,
    ) -> Self {
        let mut rules = Rules::new(owner.into(), signal, What::Filter { keep, on_dropped });
        for group in groups {
            rules.add(group.context, group.error_mode, group.conditions, Vec::new());
        }
        rules
    }

    /// Runs statements, group by group.
    pub fn transform(owner: impl Into<String>, signal: Signal, groups: Vec<StatementGroup>) -> Self {
        let mut rules = Rules::new(owner.into(), signal, What::Transform);
        for group in groups {
            rules.add(group.context, group.error_mode, group.conditions, group.statements);
        }
        rules
    }

    /// These rules as a step of the walk.
    pub fn edit(self) -> Edit {
        Edit::rules(std::sync::Arc::new(self))
    }

    fn new(owner: String, signal: Signal, kind: What) -> Self {
        Rules {
            owner,
            signal,
            units: Vec::new(),
            captures: Vec::new(),
            levels: Levels::NONE,
            looks_below: false,
            kind,
            complaints: Complaints {
                start: Instant::now(),
                last: AtomicU64::new(0),
                silent: AtomicU64::new(0),
            },
        }
    }

    fn add(
        &mut self,
        context: Context,
        error_mode: ErrorMode,
        conditions: Vec<Condition>,
        statements: Vec<Statement>,
    ) {
        self.looks_below |=
            conditions.iter().any(|c| c.looks_below) || statements.iter().any(|s| s.looks_below);
        let begin = self.captures.len();
        let mut capture = |own: Box<[Origin]>| {
            let from = self.captures.len();
            self.captures.extend(own);
            from..self.captures.len()
        };
        let gates: Vec<Gate> = conditions
            .into_iter()
            .map(|c| Gate { text: c.text, test: c.test, captures: capture(c.captures) })
            .collect();
        let acts = statements
            .into_iter()
            .map(|s| Act { text: s.text, editor: s.editor, filter: s.filter, captures: capture(s.captures) })
            .collect();
        let captures = begin..self.captures.len();
        self.levels = self.levels.and(context.level().into());
        for origin in self.captures.get(captures.clone()).unwrap_or_default() {
            if let Origin::Above(level, _) = origin {
                self.levels = self.levels.and((*level).into());
            }
        }
        self.units.push(Unit { level: context.level(), error_mode, gates, acts, captures });
    }

    /// Keeps what a group asks of the message above its own.
    fn capture(&self, unit: &Unit, message: &Message<'_>, scratch: &mut Scratch) -> Result<(), WireError> {
        for at in unit.captures.clone() {
            if let (Some(Origin::Above(level, path)), Some(slot)) =
                (self.captures.get(at), scratch.kept.get_mut(at))
                && *level == message.level()
            {
                let env = Env { message, arena: &scratch.arena, kept: &[] };
                match path.read(&env) {
                    Ok(value) => slot.set(value),
                    Err(Fault::Wire(error)) => return Err(error),
                    // An error of what asks for it, below.
                    Err(fault) => slot.fail(fault),
                }
            }
        }
        Ok(())
    }

    /// Whether one of the conditions of a group holds.
    fn gate(
        &self,
        unit: &Unit,
        message: &Message<'_>,
        scratch: &mut Scratch,
        refuse: &mut Option<String>,
    ) -> Result<bool, WireError> {
        for gate in &unit.gates {
            scratch.arena.reset();
            let kept = scratch.kept.get(gate.captures.clone()).unwrap_or_default();
            let env = Env { message, arena: &scratch.arena, kept };
            match gate.test.eval(&env) {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(fault) => {
                    if let After::Stop = self.failed(unit.error_mode, &gate.text, fault, refuse)? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(false)
    }

    /// Runs the statements of a group.
    fn act(
        &self,
        unit: &Unit,
        message: &mut Message<'_>,
        scratch: &mut Scratch,
        refuse: &mut Option<String>,
    ) -> Result<(), WireError> {
        for act in &unit.acts {
            scratch.arena.reset();
            if let Err(fault) = act.run(message, scratch)
                && let After::Stop = self.failed(unit.error_mode, &act.text, fault, refuse)?
            {
                break;
            }
        }
        Ok(())
    }

    #[cold]
    fn failed(
        &self,
        mode: ErrorMode,
        text: &str,
        fault: Fault,
        refuse: &mut Option<String>,
    ) -> Result<After, WireError> {
        match (fault, mode) {
            (Fault::Wire(error), _) => Err(error),
            (_, ErrorMode::Silent) => Ok(After::Continue),
            (fault, ErrorMode::Ignore) => {
                self.complaints.note(&self.owner, text, &fault);
                Ok(After::Continue)
            }
            (fault, ErrorMode::Propagate) => {
                *refuse = Some(format!("{}: {fault}, in: {text}", self.owner));
                Ok(After::Stop)
            }
        }
    }
}

impl Act {
    fn run(&self, message: &mut Message<'_>, scratch: &Scratch) -> Result<(), Fault> {
        let kept = scratch.kept.get(self.captures.clone()).unwrap_or_default();
        if let Some(filter) = &self.filter {
            let env = Env { message: &*message, arena: &scratch.arena, kept };
            if !filter.eval(&env)? {
                return Ok(());
            }
        }
        self.editor.run(message, &scratch.arena, kept)
    }
}

impl Rewrite for Rules {
    fn levels(&self, signal: Signal) -> Levels {
        if signal == self.signal { self.levels } else { Levels::NONE }
    }

    fn drops(&self) -> bool {
        matches!(self.kind, What::Filter { .. })
    }

    fn looks_below(&self, _signal: Signal) -> bool {
        self.looks_below
    }

    fn scratch(&self, facts: &Facts<'_>) -> Box<dyn Any> {
        let arena = Bump::new();
        let mut kept = vec![Kept::default(); self.captures.len()];
        for (slot, origin) in kept.iter_mut().zip(&self.captures) {
            if let Origin::Client(path) = origin {
                slot.set(path.read(facts.client, &arena));
            }
        }
        Box::new(Scratch { arena, kept })
    }

    fn apply(&self, message: &mut Message<'_>, cx: &mut StepCx<'_>) -> Result<Fate, WireError> {
        let Some(scratch) = cx.scratch.downcast_mut::<Scratch>() else { return Ok(Fate::Skip) };
        let level = message.level();
        // Whether a group was about this level, and whether one of its conditions held.
        let (mut asked, mut matched) = (false, false);
        for unit in &self.units {
            if unit.level != level {
                if unit.level > level && !unit.captures.is_empty() {
                    scratch.arena.reset();
                    self.capture(unit, message, scratch)?;
                }
                continue;
            }
            asked = true;
            matched = (unit.gates.is_empty() && !unit.acts.is_empty())
                || self.gate(unit, message, scratch, cx.refuse)?;
            if cx.refuse.is_some() {
                return Ok(Fate::Skip);
            }
            match &self.kind {
                What::Transform if matched => {
                    self.act(unit, message, scratch, cx.refuse)?;
                    if cx.refuse.is_some() {
                        return Ok(Fate::Skip);
                    }
                }
                What::Transform => {}
                What::Filter { keep: false, .. } if matched => return Ok(Fate::Drop),
                What::Filter { .. } if matched => break,
                What::Filter { .. } => {}
            }
        }
        match &self.kind {
            What::Filter { keep: true, .. } if asked && !matched => Ok(Fate::Drop),
            _ => Ok(Fate::Keep),
        }
    }

    fn dropped(&self, items: usize) {
        if let What::Filter { on_dropped: Some(counter), .. } = &self.kind {
            counter.add(items as u64);
        }
    }

    fn growth(&self, level: Level) -> usize {
        let sets = |act: &&Act| matches!(act.editor, Editor::Set(..) | Editor::Merge(..));
        let own = self.units.iter().filter(|unit| unit.level == level);
        own.flat_map(|unit| &unit.acts).filter(sets).count() * 32
    }
}

impl Complaints {
    fn note(&self, owner: &str, text: &str, fault: &Fault) {
        let now = self.start.elapsed().as_secs() + 1;
        let last = self.last.load(Ordering::Relaxed);
        let due = last == 0 || now >= last + LOG_EVERY;
        if !due || self.last.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            self.silent.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let others = self.silent.swap(0, Ordering::Relaxed);
        tracing::warn!(processor = owner, rule = text, error = %fault, others, "cannot evaluate a rule; going on");
    }
}
