//! Rules, compiled for a signal: what happens at which level, and what is kept for the levels below.
//!
//! Each rule runs at the lowest level that any of its labels lives at. What a rule reads from levels above is kept in
//! a slot when the walk passes there, after the rules before it have run at that level and before those behind it. A
//! scratch label gets a new slot with each rule that sets it. So each rule sees what it would see if every item had
//! label sets of its own and the rules ran one after the other.

use std::collections::BTreeMap;

use super::label::{self, Label};
use super::pattern::{Pattern, Template, head};
use crate::pdata::Signal;
use crate::processors::edit::{Level, Levels};
use crate::relabel::{Action, RelabelConfig};

/// Rules, compiled for a signal.
#[derive(Debug)]
pub(super) struct Rules {
    /// What happens at each level, in order: resource, scope, metric, item.
    pub(super) levels: [Vec<Op>; 4],
    pub(super) slots: usize,
    pub(super) drops: bool,
}

/// What is wrong with a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    /// Which rule, from 0.
    pub(super) rule: usize,
    /// The key that it is about.
    pub(super) key: &'static str,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

/// Something to do when a message is shown.
#[derive(Debug)]
pub(super) enum Op {
    /// Keeps what a later rule below will read.
    Keep {
        read: Read,
        slot: usize,
    },
    Rule(Box<Step>),
}

/// One rule.
#[derive(Debug)]
pub(super) struct Step {
    /// Which one it is, from 0.
    pub(super) index: usize,
    pub(super) sources: Vec<Read>,
    pub(super) separator: Vec<u8>,
    pub(super) pattern: Pattern,
    pub(super) act: Act,
}

/// What a rule does.
#[derive(Debug)]
pub(super) enum Act {
    /// Sets a label.
    Set { target: Target, make: Make },
    /// Keeps what matches, or what does not.
    Match { keep: bool },
    /// Keeps what is equal to a label, or what is not.
    Equal { keep: bool, to: Read },
    /// Copies attributes to the names that the template makes of theirs.
    Map { prefix: &'static str, to: Template },
    /// Keeps attributes whose names match, or those whose names do not.
    Names { prefix: &'static str, keep: bool },
}

/// Where the value of a label comes from, while a message is shown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Read {
    /// An attribute of the message.
    Own(Box<[u8]>),
    /// An attribute of the message, else what was kept of the scope's, else of the resource's.
    Nearest {
        key: Box<[u8]>,
        scope: usize,
        resource: usize,
    },
    Slot(usize),
    Name,
    Kind,
    Severity,
    Tenant,
    /// A scratch label that no rule has set.
    Missing,
}

/// The label that is set.
#[derive(Debug)]
pub(super) enum Target {
    Key(Box<[u8]>),
    /// A key that is computed, of an attribute of this level.
    Computed(Level, Template),
    Name,
    /// From the slot in which the label was, if it was, to the one in which it will be.
    Scratch {
        name: String,
        from: Option<usize>,
        to: usize,
    },
}

/// The value that is set.
#[derive(Debug)]
pub(super) enum Make {
    Template(Template),
    Hash(u64),
    Lower,
    Upper,
}

/// What is known while rules are compiled.
struct Compiler {
    signal: Signal,
    rules: Rules,
    /// What is kept already, and still is what it was.
    kept: BTreeMap<(Level, Read), usize>,
    /// Where each scratch label lives, its slot, and the rule that put it there.
    scratch: BTreeMap<String, (Level, usize, usize)>,
    engines: usize,
    wrong: Vec<Wrong>,
}

impl Rules {
    /// Compiles rules.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub(super) fn new(configs: &[RelabelConfig], signal: Signal) -> Result<Rules, Vec<Wrong>> {
        let mut compiler = Compiler {
            signal,
            rules: Rules { levels: Default::default(), slots: 0, drops: false },
            kept: BTreeMap::new(),
            scratch: BTreeMap::new(),
            engines: 0,
            wrong: Vec::new(),
        };
        for (index, config) in configs.iter().enumerate() {
            compiler.rule(index, config);
        }
        if compiler.wrong.is_empty() { Ok(compiler.rules) } else { Err(compiler.wrong) }
    }

    /// The levels at which there is something to do.
    pub(super) fn levels(&self) -> Levels {
        let all = [Level::Resource, Level::Scope, Level::Metric, Level::Item];
        let busy = all.into_iter().zip(&self.levels).filter(|(_, ops)| !ops.is_empty());
        busy.fold(Levels::NONE, |levels, (level, _)| levels.and(level.into()))
    }

    /// What is done at a level.
    pub(super) fn at(&self, level: Level) -> &[Op] {
        self.levels.get(level as usize).map_or(&[], Vec::as_slice)
    }

    /// All patterns in the order in which they were compiled.
    pub(super) fn patterns(&self) -> Vec<&Pattern> {
        let steps = self.levels.iter().flatten().filter_map(|op| match op {
            Op::Rule(step) => Some(step),
            Op::Keep { .. } => None,
        });
        let mut steps: Vec<&Step> = steps.map(Box::as_ref).collect();
        steps.sort_by_key(|step| step.index);
        steps.into_iter().map(|step| &step.pattern).collect()
    }

    /// About how many bytes are added at a level.
    pub(super) fn growth(&self, level: Level) -> usize {
        let added = self.at(level).iter().map(|op| {
            let Op::Rule(step) = op else { return 0 };
            let Act::Set { target, make } = &step.act else { return 0 };
            let key = match target {
                Target::Key(key) => key.len(),
                Target::Computed(_, template) => template.len() + 16,
                Target::Name => 0,
                Target::Scratch { .. } => return 0,
            };
            let value = if let Make::Template(template) = make { template.len() } else { 0 };
            key + value + 32
        });
        added.sum()
    }
}

impl Compiler {
    fn rule(&mut self, index: usize, config: &RelabelConfig) {
        let action = config.action;
        let pattern = match action {
            // What these do does not depend on the expression.
            Action::HashMod
            | Action::Lowercase
            | Action::Uppercase
            | Action::KeepEqual
            | Action::DropEqual => Ok(Pattern::Any { group: true }),
            _ => Pattern::new(&config.regex, &mut self.engines),
        };
        let pattern = match pattern {
            Ok(pattern) => pattern,
            Err(message) => return self.wrong(index, "regex", message, None),
        };
        if matches!(action, Action::LabelMap | Action::LabelDrop | Action::LabelKeep) {
            return self.names(index, config, pattern);
        }
        let sources: Vec<Label> = config.source_labels.iter().map(|name| Label::parse(name)).collect();
        let all = sources.iter().map(|label| ("source_labels", label));
        let read = matches!(action, Action::KeepEqual | Action::DropEqual);
        let to = read.then(|| Label::parse(&config.target_label));
        let all: Vec<(&'static str, &Label)> =
            all.chain(to.iter().map(|label| ("target_label", label))).collect();
        for (key, label) in &all {
            if let Label::Attribute(level, name) = label
                && name.is_empty()
            {
                let message = format!("\"{}\" names no attribute", label::prefix(*level));
                self.wrong(index, key, message, None);
            }
        }
        // Where the rule runs as far as what it reads goes, and the label that says so.
        let mut level = Level::Resource;
        let mut lowest = None;
        for (_, label) in &all {
            let at = self.level(label);
            if at > level {
                (level, lowest) = (at, Some((*label).clone()));
            }
        }
        let sets = !read && !matches!(action, Action::Keep | Action::Drop);
        let target = if sets {
            match self.target(index, config, &pattern, &mut level, lowest.as_ref()) {
                Some(target) => Some(target),
                None => return,
            }
        } else {
            self.rules.drops = true;
            None
        };
        let sources: Vec<Read> = sources.iter().map(|label| self.read(label, level)).collect();
        let act = match (action, target, to) {
            (Action::Drop, ..) => Act::Match { keep: false },
            (_, Some(target), _) => {
                let make = match action {
                    Action::HashMod => Make::Hash(config.modulus.max(1)),
                    Action::Lowercase => Make::Lower,
                    Action::Uppercase => Make::Upper,
                    _ => Make::Template(Template::new(&config.replacement, &pattern)),
                };
                Act::Set { target: self.settle(index, target, level), make }
            }
            (_, _, Some(to)) => {
                let to = self.read(&to, level);
                Act::Equal { keep: action == Action::KeepEqual, to }
            }
            _ => Act::Match { keep: true },
        };
        let separator = config.separator.clone().into_bytes();
        self.push(level, Op::Rule(Box::new(Step { index, sources, separator, pattern, act })));
    }

    /// A rule about the names of a level's attributes.
    fn names(&mut self, index: usize, config: &RelabelConfig, mut pattern: Pattern) {
        let level = label::level_of_pattern(&config.regex);
        let own = label::prefix(level);
        let prefix = if pattern.strip(own) { "" } else { own };
        let act = if config.action == Action::LabelMap {
            let head = head(&config.replacement);
            let fixed = head.len() == config.replacement.len();
            let (other, _) = label::of_level(head);
            if other != Level::Item && other != level {
                let what = if level == Level::Item {
                    "the item's own".to_owned()
                } else {
                    format!("the {}'s", name_of(level))
                };
                let message = format!(
                    "\"{}\" is no name among {what} attributes, which the rule is about",
                    config.replacement
                );
                let hint = format!(
                    "begin \"regex\" with \"{}\" to copy attributes of the {}",
                    label::prefix(other),
                    name_of(other)
                );
                return self.wrong(index, "replacement", message, Some(hint));
            }
            let reserved = level == Level::Item
                && (head.starts_with(label::SCRATCH)
                    || (fixed && !matches!(Label::parse(head), Label::Attribute(..))));
            if reserved || (fixed && label::computed_key(level, head.as_bytes()).is_none()) {
                let message = format!("\"{}\" is no attribute's name", config.replacement);
                return self.wrong(index, "replacement", message, None);
            }
            Act::Map { prefix, to: Template::new(&config.replacement, &pattern) }
        } else {
            Act::Names { prefix, keep: config.action == Action::LabelKeep }
        };
        self.forget(level, None);
        let step = Step { index, sources: Vec::new(), separator: Vec::new(), pattern, act };
        self.push(level, Op::Rule(Box::new(step)));
    }

    /// The label that a rule sets, and at which level it runs then. `None` if something is wrong with it.
    fn target(
        &mut self,
        index: usize,
        config: &RelabelConfig,
        pattern: &Pattern,
        level: &mut Level,
        lowest: Option<&Label>,
    ) -> Option<Target> {
        let name = &config.target_label;
        let mut wrong = |message: String, hint: Option<String>| {
            self.wrong.push(Wrong { rule: index, key: "target_label", message, hint });
            None
        };
        // Only `replace` reads it as a template.
        let plain;
        let head = if config.action == Action::Replace { head(name) } else { name };
        let computed = head.len() < name.len();
        let label = if computed {
            // The level must be known now.
            if head.starts_with(label::SCRATCH) {
                return wrong(format!("the name of a scratch label cannot be computed: \"{name}\""), None);
            }
            Label::Attribute(label::of_level(head).0, head.to_owned())
        } else {
            plain = if config.action == Action::Replace { name.replace("$$", "$") } else { name.clone() };
            Label::parse(&plain)
        };
        let own = match &label {
            Label::Tenant | Label::Severity | Label::Kind => {
                return wrong(
                    format!("\"{name}\" cannot be set"),
                    Some("set an attribute, \"__name__\", or a label for later rules, whose name begins with \"__tmp\"".to_owned()),
                );
            }
            Label::Scratch(name) => {
                let known = self.scratch.get(name).copied();
                *level = (*level).max(known.map_or(Level::Resource, |(at, ..)| at));
                return Some(Target::Scratch {
                    name: name.clone(),
                    from: known.map(|(_, slot, _)| slot),
                    to: 0,
                });
            }
            Label::Attribute(_, key) if key.is_empty() && !computed => {
                return wrong(format!("\"{name}\" names no attribute"), None);
            }
            label => label.level(self.signal),
        };
        if *level > own {
            let low = lowest.map(|label| self.why(label, *level, own));
            let (why, hint) = low.unwrap_or_default();
            let owner = name_of(own);
            let what = if label == Label::Name { "name" } else { "attribute" };
            return self.target_too_high(
                index,
                format!("\"{name}\": {} {owner}'s {what} cannot depend on {why}", article(owner)),
                hint,
            );
        }
        *level = own;
        Some(match label {
            Label::Attribute(at, _) if computed => Target::Computed(at, Template::new(name, pattern)),
            Label::Attribute(_, key) => Target::Key(key.into_bytes().into()),
            _ => Target::Name,
        })
    }

    fn target_too_high<T>(&mut self, rule: usize, message: String, hint: Option<String>) -> Option<T> {
        self.wrong.push(Wrong { rule, key: "target_label", message, hint });
        None
    }

    /// What a source depends on, and what could be written instead.
    fn why(&self, label: &Label, level: Level, target: Level) -> (String, Option<String>) {
        let one = match level {
            Level::Scope => "one of its scopes",
            Level::Metric => "one of its metrics",
            _ => "one of its items",
        };
        match label {
            Label::Attribute(Level::Item, key) => {
                let prefix = label::prefix(if target == Level::Metric { Level::Resource } else { target });
                (
                    format!("{one}, and \"{key}\" may be an attribute of the item"),
                    Some(format!(
                        "write \"{prefix}{key}\" if the {}'s attribute is meant",
                        prefix.trim_end_matches('.')
                    )),
                )
            }
            Label::Attribute(_, key) => {
                (format!("{one}, and \"scope.{key}\" is an attribute of the scope"), None)
            }
            Label::Scratch(name) => {
                let rule = self.scratch.get(name).map_or(0, |(.., rule)| rule + 1);
                (format!("{one}, and rule {rule} sets \"{name}\" for each of them"), None)
            }
            Label::Name => (format!("{one}, which \"__name__\" is the name of"), None),
            Label::Kind => (format!("{one}, which \"__kind__\" is the kind of"), None),
            _ => (format!("{one}, which \"__severity__\" is the severity of"), None),
        }
    }

    /// Finishes a target, now that the level is known and the sources have been read.
    fn settle(&mut self, index: usize, target: Target, level: Level) -> Target {
        match target {
            Target::Scratch { name, from, .. } => {
                let to = self.slot();
                self.scratch.insert(name.clone(), (level, to, index));
                Target::Scratch { name, from, to }
            }
            Target::Key(key) => {
                self.forget(level, Some(Read::Own(key.clone())));
                Target::Key(key)
            }
            Target::Name => {
                self.forget(level, Some(Read::Name));
                Target::Name
            }
            computed => {
                self.forget(level, None);
                computed
            }
        }
    }

    fn level(&self, label: &Label) -> Level {
        match label {
            Label::Scratch(name) => self.scratch.get(name).map_or(Level::Resource, |(level, ..)| *level),
            label => label.level(self.signal),
        }
    }

    /// How a rule at a level reads a label.
    fn read(&mut self, label: &Label, level: Level) -> Read {
        let bytes = |key: &str| -> Box<[u8]> { key.as_bytes().into() };
        match label {
            Label::Attribute(Level::Item, key) => Read::Nearest {
                key: bytes(key),
                scope: self.keep(Level::Scope, Read::Own(bytes(key))),
                resource: self.keep(Level::Resource, Read::Own(bytes(key))),
            },
            Label::Attribute(at, key) if *at == level => Read::Own(bytes(key)),
            Label::Attribute(at, key) => Read::Slot(self.keep(*at, Read::Own(bytes(key)))),
            Label::Tenant => Read::Tenant,
            Label::Severity => Read::Severity,
            Label::Scratch(name) => {
                self.scratch.get(name).map_or(Read::Missing, |(_, slot, _)| Read::Slot(*slot))
            }
            Label::Name | Label::Kind => {
                let read = if *label == Label::Name { Read::Name } else { Read::Kind };
                let at = label.level(self.signal);
                if at == level { read } else { Read::Slot(self.keep(at, read)) }
            }
        }
    }

    /// The slot in which something of a level above is kept, as it is when this rule's turn comes.
    fn keep(&mut self, level: Level, read: Read) -> usize {
        if let Some(slot) = self.kept.get(&(level, read.clone())) {
            return *slot;
        }
        let slot = self.slot();
        self.push(level, Op::Keep { read: read.clone(), slot });
        self.kept.insert((level, read), slot);
        slot
    }

    /// What was kept of a level is no longer what is there: one thing, or all attributes.
    fn forget(&mut self, level: Level, what: Option<Read>) {
        self.kept.retain(|(at, read), _| {
            *at != level || what.as_ref().map_or(!matches!(read, Read::Own(_)), |what| what != read)
        });
    }

    fn slot(&mut self) -> usize {
        self.rules.slots += 1;
        self.rules.slots - 1
    }

    fn push(&mut self, level: Level, op: Op) {
        if let Some(ops) = self.rules.levels.get_mut(level as usize) {
            ops.push(op);
        }
    }

    fn wrong(&mut self, rule: usize, key: &'static str, message: String, hint: Option<String>) {
        self.wrong.push(Wrong { rule, key, message, hint });
    }
}

/// What a message of a level is called.
pub(super) fn name_of(level: Level) -> &'static str {
    match level {
        Level::Resource => "resource",
        Level::Scope => "scope",
        Level::Metric => "metric",
        _ => "item",
    }
}

fn article(word: &str) -> &'static str {
    if word.starts_with('i') { "an" } else { "a" }
}
