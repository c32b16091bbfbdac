//! Findings about a config, and what carries them and the current path through a decode.

use super::node::{Node, Pos};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; changes nothing.
    Note,
    /// Probably not meant; an error under `--strict`.
    Warning,
    /// The agent does not start.
    Error,
}

/// One finding about the config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diag {
    /// How bad it is.
    pub severity: Severity,
    /// Where it is.
    pub pos: Pos,
    /// The path of the value, such as `exporters::otlp::endpoint`.
    pub path: String,
    /// The reason, one sentence without a full stop.
    pub message: String,
    /// What to write instead, such as `did you mean "endpoint"?`.
    pub hint: Option<String>,
    /// Another place it has to do with, and how: `first written`.
    pub related: Option<(&'static str, Pos)>,
}

/// Carries the findings and the current path through a decode.
#[derive(Debug, Default)]
pub struct Cx {
    /// Everything found so far.
    pub diags: Vec<Diag>,
    /// The paths of values that must not be shown.
    pub secrets: Vec<String>,
    /// The paths of values whose meaning nobody knows; they may be secrets.
    pub(super) unknown: Vec<String>,
    /// The paths of values that are not of the type that their place asks for.
    pub(super) mistyped: Vec<String>,
    /// The sources that positions point into, while values are decoded.
    pub(super) texts: Vec<super::SourceText>,
    path: Vec<String>,
}

impl Cx {
    /// Runs `f` with `segment` appended to the path.
    pub fn within<R>(&mut self, segment: &str, f: impl FnOnce(&mut Cx) -> R) -> R {
        self.path.push(segment.to_owned());
        let out = f(self);
        self.path.pop();
        out
    }

    /// Appends to the path, for loops that cannot use a closure; [`Cx::pop`] takes it off again.
    pub(super) fn push(&mut self, segment: &str) {
        self.path.push(segment.to_owned());
    }

    /// Takes off what [`Cx::push`] appended.
    pub(super) fn pop(&mut self) {
        self.path.pop();
    }

    /// Reports an error at `pos` that has to do with another place.
    pub(super) fn twice(&mut self, pos: Pos, message: String, first: Pos) {
        self.report(Severity::Error, pos, message, None);
        if let Some(diag) = self.diags.last_mut() {
            diag.related = Some(("first written", first));
        }
    }

    /// Reports an error at `pos`.
    pub fn error(&mut self, pos: Pos, message: impl Into<String>) {
        self.report(Severity::Error, pos, message.into(), None);
    }

    /// Reports an error with a hint.
    pub fn error_hint(&mut self, pos: Pos, message: impl Into<String>, hint: impl Into<String>) {
        self.report(Severity::Error, pos, message.into(), Some(hint.into()));
    }

    /// Reports a warning at `pos`.
    pub fn warn(&mut self, pos: Pos, message: impl Into<String>) {
        self.report(Severity::Warning, pos, message.into(), None);
    }

    /// Reports a finding at `pos` under the current path.
    pub fn report(&mut self, severity: Severity, pos: Pos, message: String, hint: Option<String>) {
        self.diags.push(Diag { severity, pos, path: self.path(), message, hint, related: None });
    }

    /// Where the byte `offset` of the text `value` stands, which starts at `pos`; `pos` itself where that cannot be
    /// told, as in a block of lines.
    pub fn pos_inside(&self, pos: Pos, value: &str, offset: usize) -> Pos {
        super::inside::locate(pos, value, offset, &self.texts)
    }

    /// Remembers that the value at the current path is a secret: `print-config` shows `[REDACTED]` for it.
    pub fn secret(&mut self) {
        self.secrets.push(self.path());
    }

    /// Remembers that nobody knows what the value at the current path means: it is not shown either.
    pub fn unknown(&mut self) {
        self.unknown.push(self.path());
    }

    /// The current path, such as `exporters::otlp::endpoint`.
    pub fn path(&self) -> String {
        self.path.join("::")
    }

    /// Reports that `node` is not what was expected.
    pub fn wrong_type(&mut self, node: &Node, expected: &str) {
        self.mistyped.push(self.path());
        self.error(node.pos, format!("expected {expected}, got {}", node.kind()));
    }
}
