//! Prometheus' relabelling: rules that change, drop and pick label sets.
//!
//! The semantics are Prometheus', action by action: expressions match the whole text, the dot matches line breaks
//! too, an empty value deletes a label, a name that is none changes nothing.
//!
//! Promises: any rules on any labels end, in time linear in labels and texts; rules that cannot be compiled are
//! found when the configuration is read. Costs: allocations, for each rule and label set. Callers keep the result for
//! as long as its labels stay the same.

mod config;
pub(crate) mod pattern;
#[cfg(test)]
mod tests;

use md5::{Digest, Md5};
use regex::Regex;

pub use self::config::{Action, RelabelConfig};
pub(crate) use self::pattern::anchored;

/// Labels, sorted by name, without empty values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(Vec<(String, String)>);

/// Which names a rule may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// Letters, digits and `_`, no digit first.
    Legacy,
    /// Any text but the empty one.
    Utf8,
}

/// One compiled rule.
#[derive(Debug, Clone)]
pub struct Rule {
    action: Action,
    source_labels: Vec<String>,
    separator: String,
    regex: Regex,
    modulus: u64,
    target_label: String,
    replacement: String,
    names: Names,
}

impl Labels {
    /// The value of a label; empty if it is not there.
    pub fn get(&self, name: &str) -> &str {
        match self.find(name) {
            Ok(at) => self.0.get(at).map_or("", |(_, value)| value),
            Err(_) => "",
        }
    }

    /// Sets a label; an empty value deletes it.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        match self.find(name) {
            Ok(at) if value.is_empty() => {
                self.0.remove(at);
            }
            Ok(at) => {
                if let Some(slot) = self.0.get_mut(at) {
                    slot.1 = value;
                }
            }
            Err(_) if value.is_empty() => {}
            Err(at) => self.0.insert(at, (name.to_owned(), value)),
        }
    }

    /// Names and values, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Keeps labels of which the function says so.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &str) -> bool) {
        self.0.retain(|(name, value)| keep(name, value));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.as_str().cmp(name))
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Labels {
    fn from_iter<T: IntoIterator<Item = (N, V)>>(iter: T) -> Self {
        let mut labels = Labels::default();
        for (name, value) in iter {
            labels.set(&name.into(), value);
        }
        labels
    }
}

impl Rule {
    /// Compiles a rule.
    ///
    /// # Errors
    /// What is wrong with its expression.
    pub fn new(config: &RelabelConfig, names: Names) -> Result<Self, String> {
        Ok(Rule {
            action: config.action,
            source_labels: config.source_labels.clone(),
            separator: config.separator.clone(),
            regex: pattern::anchored(&config.regex)?,
            modulus: config.modulus.max(1),
            target_label: config.target_label.clone(),
            replacement: config.replacement.clone(),
            names,
        })
    }

    /// Applies the rule; `false` if the labels are dropped.
    fn apply(&self, labels: &mut Labels) -> bool {
        match self.action {
            Action::Replace => self.replace(labels),
            Action::Keep => return self.regex.is_match(&self.source(labels)),
            Action::Drop => return !self.regex.is_match(&self.source(labels)),
            Action::KeepEqual => return self.source(labels) == labels.get(&self.target_label),
            Action::DropEqual => return self.source(labels) != labels.get(&self.target_label),
            Action::HashMod => {
                let digest: [u8; 16] = Md5::digest(self.source(labels).as_bytes()).into();
                let number = u128::from_be_bytes(digest) as u64;
                labels.set(&self.target_label, (number % self.modulus).to_string());
            }
            Action::LabelMap => {
                let snapshot = labels.clone();
                for (name, value) in snapshot.iter() {
                    let Some(groups) = self.regex.captures(name) else { continue };
                    let mut to = String::new();
                    groups.expand(&self.replacement, &mut to);
                    if self.is_name(&to) {
                        labels.set(&to, value);
                    }
                }
            }
            Action::LabelDrop => labels.retain(|name, _| !self.regex.is_match(name)),
            Action::LabelKeep => labels.retain(|name, _| self.regex.is_match(name)),
            Action::Lowercase => {
                let text = map_chars(&self.source(labels), lower);
                labels.set(&self.target_label, text);
            }
            Action::Uppercase => {
                let text = map_chars(&self.source(labels), upper);
                labels.set(&self.target_label, text);
            }
        }
        true
    }

    fn replace(&self, labels: &mut Labels) {
        let source = self.source(labels);
        let Some(groups) = self.regex.captures(&source) else { return };
        let (mut target, mut value) = (String::new(), String::new());
        groups.expand(&self.target_label, &mut target);
        if self.is_name(&target) {
            groups.expand(&self.replacement, &mut value);
            labels.set(&target, value);
        }
    }

    fn source(&self, labels: &Labels) -> String {
        let mut out = String::new();
        for (i, name) in self.source_labels.iter().enumerate() {
            if i > 0 {
                out.push_str(&self.separator);
            }
            out.push_str(labels.get(name));
        }
        out
    }

    fn is_name(&self, name: &str) -> bool {
        match self.names {
            Names::Legacy => is_legacy_name(name),
            Names::Utf8 => !name.is_empty(),
        }
    }
}

/// Applies rules in order; `false` if one of them drops the labels.
pub fn apply(rules: &[Rule], labels: &mut Labels) -> bool {
    rules.iter().all(|rule| rule.apply(labels))
}

/// Whether a name consists of letters, digits and `_`, and does not begin with a digit.
pub fn is_legacy_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    let starts = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    starts && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A character in lower case, as Go has it: one character, or itself.
pub(crate) fn lower(c: char) -> char {
    match c {
        // In full it is two characters.
        'İ' => 'i',
        c => one(c, c.to_lowercase()),
    }
}

/// A character in upper case, as Go has it: one character, or itself.
pub(crate) fn upper(c: char) -> char {
    // In full these Greek letters become two; the single one has the iota beside or below it.
    let title = match c {
        '\u{1f80}'..='\u{1f87}' | '\u{1f90}'..='\u{1f97}' | '\u{1fa0}'..='\u{1fa7}' => 8,
        '\u{1fb3}' | '\u{1fc3}' | '\u{1ff3}' => 9,
        _ => return one(c, c.to_uppercase()),
    };
    char::from_u32(u32::from(c) + title).unwrap_or(c)
}

/// Maps text character by character, as Go does.
fn map_chars(text: &str, map: impl Fn(char) -> char) -> String {
    text.chars().map(map).collect()
}

/// A mapping to one character, else the character itself.
fn one(c: char, mut mapped: impl Iterator<Item = char>) -> char {
    match (mapped.next(), mapped.next()) {
        (Some(to), None) => to,
        _ => c,
    }
}
