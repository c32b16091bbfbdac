//! Label names: attribute keys in the characters that a destination takes.

use super::{NameError, only_underscores};

/// What destinations differ in.
#[derive(Debug, Clone, Copy)]
pub(super) struct LabelRules {
    /// Underscores in a row stay; otherwise they become one, except around a reserved name: `__a__`.
    pub(super) preserve_runs: bool,
    /// A name that starts with one underscore gets `key` in front.
    pub(super) underscore_prefix: bool,
    /// Every character stays, and the two rules above do not count.
    pub(super) utf8: bool,
}

impl LabelRules {
    /// Prometheus as it is set up by default.
    pub(super) const PROMETHEUS: LabelRules =
        LabelRules { preserve_runs: true, underscore_prefix: true, utf8: false };
    /// Prometheus with names in UTF-8.
    pub(super) const UTF8: LabelRules =
        LabelRules { preserve_runs: true, underscore_prefix: false, utf8: true };
    /// Loki.
    pub(super) const LOKI: LabelRules =
        LabelRules { preserve_runs: false, underscore_prefix: false, utf8: false };

    /// Appends the name of an attribute, or nothing and the reason.
    pub(super) fn put(self, key: &str, out: &mut String) -> Result<(), NameError> {
        if key.is_empty() {
            return Err(NameError::Empty);
        }
        let start = out.len();
        let reserved = key.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"));
        match reserved {
            _ if self.utf8 => out.push_str(key),
            _ if self.preserve_runs => out.extend(key.chars().map(escape)),
            Some(inside) => {
                out.push_str("__");
                put_collapsed(inside, out);
                out.push_str("__");
            }
            None => put_collapsed(key, out),
        }
        let made = out.get(start..).unwrap_or_default();
        if !self.utf8 {
            if made.starts_with(|c: char| c.is_ascii_digit()) {
                out.insert_str(start, "key_");
            } else if self.underscore_prefix && made.starts_with('_') && !made.starts_with("__") {
                out.insert_str(start, "key");
            }
        }
        if out.get(start..).is_none_or(only_underscores) {
            out.truncate(start);
            return Err(NameError::OnlyUnderscores);
        }
        Ok(())
    }
}

fn put_collapsed(key: &str, out: &mut String) {
    let mut after_underscore = false;
    for c in key.chars().map(escape) {
        if c != '_' || !after_underscore {
            out.push(c);
        }
        after_underscore = c == '_';
    }
}

fn escape(c: char) -> char {
    if c.is_ascii_alphanumeric() { c } else { '_' }
}
