//! The names of labels: what each stands for, and at which level it lives.

use crate::pdata::Signal;
use crate::processors::edit::Level;

/// What stands before the names of a level's attributes. An item's own have nothing before them.
pub(super) const PREFIXES: [(Level, &str); 2] = [(Level::Resource, "resource."), (Level::Scope, "scope.")];

/// What names of scratch labels begin with.
pub(super) const SCRATCH: &str = "__tmp";

const NAME: &str = "__name__";
const TENANT: &str = "__tenant__";
const SEVERITY: &str = "__severity__";
const KIND: &str = "__kind__";

/// What a label's name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Label {
    /// An attribute at a level: resource, scope or item.
    Attribute(Level, String),
    /// The name of the metric or the span, the event name of the log record.
    Name,
    /// The batch's tenant.
    Tenant,
    /// The severity of the log record.
    Severity,
    /// The kind of the span, the type of the metric.
    Kind,
    /// A label that is there for later rules only.
    Scratch(String),
}

impl Label {
    /// Reads a label's name. Any text is one.
    pub(super) fn parse(name: &str) -> Label {
        match name {
            NAME => return Label::Name,
            TENANT => return Label::Tenant,
            SEVERITY => return Label::Severity,
            KIND => return Label::Kind,
            _ if name.starts_with(SCRATCH) => return Label::Scratch(name.to_owned()),
            _ => {}
        }
        let (level, key) = of_level(name);
        Label::Attribute(level, key.to_owned())
    }

    /// Where it lives. A scratch label lives where it was written, which the caller knows.
    pub(super) fn level(&self, signal: Signal) -> Level {
        match self {
            Label::Attribute(level, _) => *level,
            Label::Tenant | Label::Scratch(_) => Level::Resource,
            Label::Name | Label::Kind if signal == Signal::Metrics => Level::Metric,
            Label::Name | Label::Kind | Label::Severity => Level::Item,
        }
    }
}

/// What stands before the names of a level's attributes.
pub(super) fn prefix(level: Level) -> &'static str {
    PREFIXES.iter().find(|(known, _)| *known == level).map_or("", |(_, prefix)| prefix)
}

/// The level that a name speaks of, and the key there.
pub(super) fn of_level(name: &str) -> (Level, &str) {
    PREFIXES
        .iter()
        .find_map(|(level, prefix)| Some((*level, name.strip_prefix(prefix)?)))
        .unwrap_or((Level::Item, name))
}

/// The level whose names an expression is about: that with whose prefix it begins.
pub(super) fn level_of_pattern(pattern: &str) -> Level {
    let begins = |prefix: &str| {
        let word = prefix.trim_end_matches('.');
        pattern.strip_prefix(word).is_some_and(|rest| rest.starts_with('.') || rest.starts_with("\\."))
    };
    PREFIXES.iter().find(|(_, prefix)| begins(prefix)).map_or(Level::Item, |(level, _)| *level)
}

/// The key that a computed name stands for at a level; `None` if it is no attribute's name there.
pub(super) fn computed_key(level: Level, name: &[u8]) -> Option<&[u8]> {
    let key = name.strip_prefix(prefix(level).as_bytes()).unwrap_or(name);
    let foreign =
        PREFIXES.iter().any(|(other, prefix)| *other != level && key.starts_with(prefix.as_bytes()));
    let special = level == Level::Item
        && (key.starts_with(SCRATCH.as_bytes())
            || [NAME, TENANT, SEVERITY, KIND].iter().any(|name| key == name.as_bytes()));
    (!key.is_empty() && !foreign && !special).then_some(key)
}
