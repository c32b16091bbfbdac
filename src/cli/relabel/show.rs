//! What rules did, for reading and for programs.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use super::{Explained, Placed, item_name};
use crate::pdata::Signal;
use crate::processors::relabel::{Effect, Labels};
use crate::relabel::{Action, RelabelConfig};

/// For reading.
pub(super) fn text(id: &str, rules: &[Placed<'_>], items: &[(Signal, Explained)]) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut out, id, rules, items);
    out
}

fn write(
    out: &mut String,
    id: &str,
    rules: &[Placed<'_>],
    items: &[(Signal, Explained)],
) -> std::fmt::Result {
    for (number, (signal, item)) in items.iter().enumerate() {
        if number > 0 {
            out.push('\n');
        }
        writeln!(out, "{} {} of {}, processors.{id}", item_name(*signal), number + 1, items.len())?;
        writeln!(out, "  before")?;
        labels(out, &item.before)?;
        for (number, (placed, effects)) in rules.iter().zip(&item.rules).enumerate() {
            let Placed { rule, file, line, column } = placed;
            writeln!(out, "  rule {} at {file}:{line}:{column}: {}", number + 1, described(rule))?;
            if effects.is_empty() {
                writeln!(out, "    not reached")?;
            }
            for effect in effects {
                writeln!(out, "    {}", told(rule, effect))?;
            }
        }
        match &item.after {
            Some(after) => {
                writeln!(out, "  after")?;
                labels(out, after)?;
            }
            None => writeln!(out, "  dropped")?,
        }
    }
    Ok(())
}

fn labels(out: &mut String, labels: &Labels) -> std::fmt::Result {
    if labels.is_empty() {
        writeln!(out, "    (no labels)")?;
    }
    for (name, value) in labels {
        writeln!(out, "    {name} = {}", quoted(value))?;
    }
    Ok(())
}

/// A rule in one line.
fn described(rule: &RelabelConfig) -> String {
    let mut out = rule.action.word().to_owned();
    if !rule.source_labels.is_empty() {
        let _ = write!(out, " {}", rule.source_labels.join(", "));
    }
    let defaults = RelabelConfig::default();
    if rule.regex != defaults.regex {
        let _ = write!(out, " matching {}", quoted(&rule.regex));
    }
    match rule.action {
        Action::LabelMap => {
            let _ = write!(out, " to {}", rule.replacement);
        }
        _ if rule.target_label.is_empty() => {}
        Action::Replace if rule.replacement != defaults.replacement => {
            let _ = write!(out, ", {} to {}", quoted(&rule.replacement), rule.target_label);
        }
        Action::HashMod => {
            let _ = write!(out, " modulo {} to {}", rule.modulus, rule.target_label);
        }
        Action::KeepEqual | Action::DropEqual => {
            let _ = write!(out, " beside {}", rule.target_label);
        }
        _ => {
            let _ = write!(out, " to {}", rule.target_label);
        }
    }
    out
}

/// What a rule did, in a sentence.
fn told(rule: &RelabelConfig, effect: &Effect) -> String {
    let regex = quoted(&rule.regex);
    let matching = |source: &str, matched: bool| {
        format!("{} {} {regex}", quoted(source), if matched { "matches" } else { "does not match" })
    };
    let beside = |source: &str, to: &str| {
        let how = if source == to { "equal" } else { "not equal" };
        format!("{} and {}, which is {}, are {how}", quoted(source), rule.target_label, quoted(to))
    };
    match effect {
        Effect::Set { label, was, value } if was.is_empty() => format!("sets {label} to {}", quoted(value)),
        Effect::Set { label, was, value } => {
            format!("changes {label} from {} to {}", quoted(was), quoted(value))
        }
        Effect::Deleted { label, was } => format!("deletes {label}, which was {}", quoted(was)),
        Effect::Same { label, value } if value.is_empty() => {
            format!("unchanged: the result is empty, and there is no {label}")
        }
        Effect::Same { label, value } => format!("unchanged: {label} is {} already", quoted(value)),
        Effect::NoMatch { source } => format!("unchanged: {}", matching(source, false)),
        Effect::NoNames if rule.action == Action::LabelKeep => {
            format!("unchanged: every name matches {regex}")
        }
        Effect::NoNames => format!("unchanged: no name matches {regex}"),
        Effect::NoName { name } => format!("unchanged: {} is no label's name here", quoted(name)),
        Effect::Kept { source, matched } => format!("kept: {}", matching(source, *matched)),
        Effect::Dropped { what, source, matched } => {
            format!("drops the {what}: {}", matching(source, *matched))
        }
        Effect::KeptBeside { source, to } => format!("kept: {}", beside(source, to)),
        Effect::DroppedBeside { what, source, to } => format!("drops the {what}: {}", beside(source, to)),
    }
}

fn quoted(text: &str) -> String {
    Json::from(text).to_string()
}

/// For programs.
pub(super) fn json(rules: &[Placed<'_>], items: &[(Signal, Explained)]) -> Json {
    let object = |labels: &Labels| -> Json {
        Json::Object(labels.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect())
    };
    let one = |(signal, item): &(Signal, Explained)| {
        let steps = rules.iter().zip(&item.rules).map(|(placed, effects)| {
            json!({
                "file": placed.file,
                "line": placed.line,
                "column": placed.column,
                "action": placed.rule.action.word(),
                "reached": !effects.is_empty(),
                "effects": effects.iter().map(effect).collect::<Vec<_>>(),
            })
        });
        json!({
            "signal": signal.name(),
            "before": object(&item.before),
            "rules": steps.collect::<Vec<_>>(),
            "after": item.after.as_ref().map(object),
        })
    };
    items.iter().map(one).collect()
}

fn effect(effect: &Effect) -> Json {
    match effect {
        Effect::Set { label, was, value } => {
            json!({"effect": "set", "label": label, "was": was, "value": value})
        }
        Effect::Deleted { label, was } => json!({"effect": "deleted", "label": label, "was": was}),
        Effect::Same { label, value } => {
            json!({"effect": "unchanged", "why": "already so", "label": label, "value": value})
        }
        Effect::NoMatch { source } => json!({"effect": "unchanged", "why": "no match", "source": source}),
        Effect::NoNames => json!({"effect": "unchanged", "why": "no names"}),
        Effect::NoName { name } => json!({"effect": "unchanged", "why": "no name", "name": name}),
        Effect::Kept { source, matched } => json!({"effect": "kept", "source": source, "matches": matched}),
        Effect::Dropped { what, source, matched } => {
            json!({"effect": "dropped", "what": what, "source": source, "matches": matched})
        }
        Effect::KeptBeside { source, to } => json!({"effect": "kept", "source": source, "target": to}),
        Effect::DroppedBeside { what, source, to } => {
            json!({"effect": "dropped", "what": what, "source": source, "target": to})
        }
    }
}
