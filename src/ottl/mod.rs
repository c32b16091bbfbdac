//! The OpenTelemetry Transformation Language: conditions and statements on telemetry, as in the Collector's `filter`,
//! `transform` and `routing`.
//!
//! ```text
//!  text ─► tokens ─► nodes ─► expressions ─► Rules: called in the walk with each message
//!          lex       parse    compile        rules, eval, functions, editors
//! ```
//!
//! # What it promises
//!
//! * A part of the language: what is outside of it is an error that says so, points at it and names what is near.
//!   Everything that can be known when the configuration is read is checked then: paths, functions, arguments, regular
//!   expressions, and types as far as they are known.
//! * What is accepted means what it means in the Collector. Values of different types are not equal, except that integers
//!   and numbers compare as numbers; what is missing is `nil`.
//! * A list of groups gives what it gives when each group walks alone: paths of a higher level have the value that the
//!   groups before, and not those behind, have left.
//! * Any bytes are safe. What a value can not be used for is an error of that statement, handled as `error_mode` says.
//!
//! # What it costs
//!
//! Telemetry stays bytes. Comparing an attribute looks up its key and compares the bytes behind it; expressions are
//! compiled once. Values that have to be made live in a buffer that is reused from message to message.

mod ast;
mod compile;
mod editors;
mod eval;
mod functions;
mod lex;
mod maps;
mod parse;
mod paths;
mod rules;
mod value;

#[cfg(test)]
mod tests;

/// What there is, for the test that the documentation lists it.
#[cfg(test)]
pub(crate) mod names {
    use super::Context;

    /// The paths of a context, each with whether it can be set.
    pub(crate) fn paths(context: Context) -> Vec<(&'static str, bool)> {
        super::paths::table(context).iter().map(|info| (info.name, info.writable)).collect()
    }

    pub(crate) fn editors() -> Vec<&'static str> {
        super::editors::EDITORS.iter().map(|(name, _)| *name).collect()
    }

    pub(crate) fn functions() -> Vec<&'static str> {
        super::functions::CONVERTERS.iter().map(|sig| sig.name).collect()
    }
}

use std::fmt;

use crate::pdata::Signal;
use crate::processors::edit::Level;

pub use self::compile::{Condition, Statement};
pub use self::rules::{ConditionGroup, GroupError, Part, Rules, StatementGroup};

use crate::config_enum;

config_enum! {
    /// What becomes of an error while a condition or a statement is evaluated.
    pub enum ErrorMode {
        /// It is logged, and the next statement runs. A condition counts as not met.
        Ignore = "ignore",
        /// The same, without a word in the log.
        Silent = "silent",
        /// The whole batch is refused, unchanged.
        Propagate = "propagate",
    }
}

#[allow(clippy::derivable_impls, reason = "the macro derives no default")]
impl Default for ErrorMode {
    fn default() -> Self {
        ErrorMode::Ignore
    }
}

/// The kind of message that a condition or statement is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Context {
    /// A resource, in any signal.
    Resource,
    /// An instrumentation scope, in any signal.
    Scope,
    /// A span.
    Span,
    /// An event of a span.
    SpanEvent,
    /// A metric, with all its data points.
    Metric,
    /// One data point of a metric.
    DataPoint,
    /// A log record.
    Log,
}

/// What is wrong with a text, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// Offset in the text, in bytes.
    pub offset: usize,
    /// One sentence.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl Context {
    /// All contexts, from the highest to the lowest of each signal.
    pub const ALL: [Context; 7] = [
        Context::Resource,
        Context::Scope,
        Context::Span,
        Context::SpanEvent,
        Context::Metric,
        Context::DataPoint,
        Context::Log,
    ];

    /// The name in configurations and paths.
    pub const fn name(self) -> &'static str {
        match self {
            Context::Resource => "resource",
            Context::Scope => "scope",
            Context::Span => "span",
            Context::SpanEvent => "spanevent",
            Context::Metric => "metric",
            Context::DataPoint => "datapoint",
            Context::Log => "log",
        }
    }

    /// The context of a name; `instrumentation_scope` is another name of `scope`.
    pub fn of_name(name: &str) -> Option<Context> {
        let name = if name == "instrumentation_scope" { "scope" } else { name };
        Context::ALL.into_iter().find(|context| context.name() == name)
    }

    /// The signal in which there are such messages; `None` if in each.
    pub const fn signal(self) -> Option<Signal> {
        match self {
            Context::Resource | Context::Scope => None,
            Context::Span | Context::SpanEvent => Some(Signal::Traces),
            Context::Metric | Context::DataPoint => Some(Signal::Metrics),
            Context::Log => Some(Signal::Logs),
        }
    }

    /// Whether a signal has such messages.
    pub fn is_in(self, signal: Signal) -> bool {
        self.signal().is_none_or(|own| own == signal)
    }

    const fn level(self) -> Level {
        match self {
            Context::Resource => Level::Resource,
            Context::Scope => Level::Scope,
            Context::Metric => Level::Metric,
            Context::Span | Context::DataPoint | Context::Log => Level::Item,
            Context::SpanEvent => Level::Event,
        }
    }
}

impl ParseError {
    fn new(offset: usize, message: impl Into<String>) -> Self {
        ParseError { offset, message: message.into(), hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at byte {})", self.message, self.offset)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "; {hint}"))
    }
}

impl std::error::Error for ParseError {}
