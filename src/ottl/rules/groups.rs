//! Groups of conditions and statements, compiled for one context.

use std::fmt;

use crate::ottl::{Condition, Context, ErrorMode, ParseError, Statement};
use crate::pdata::Signal;

/// Conditions of one context, of which one has to hold.
#[derive(Debug, Clone)]
pub struct ConditionGroup {
    pub(super) context: Context,
    pub(super) conditions: Vec<Condition>,
    pub(super) error_mode: ErrorMode,
}

/// Statements of one context that run one after another, where one of the conditions holds.
#[derive(Debug, Clone)]
pub struct StatementGroup {
    pub(super) context: Context,
    /// None: always.
    pub(super) conditions: Vec<Condition>,
    pub(super) statements: Vec<Statement>,
    pub(super) error_mode: ErrorMode,
}

/// Which text of a group is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The condition of this index.
    Condition(usize),
    /// The statement of this index.
    Statement(usize),
}

/// What is wrong with a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupError {
    /// Where.
    pub part: Part,
    /// What.
    pub error: ParseError,
}

impl ConditionGroup {
    /// Compiles conditions. Without a context it is inferred: the lowest that one of them is about.
    ///
    /// # Errors
    /// The first condition that is wrong.
    pub fn parse(
        context: Option<Context>,
        conditions: &[impl AsRef<str>],
        signal: Signal,
        error_mode: ErrorMode,
    ) -> Result<Self, GroupError> {
        let (context, conditions) = parse_conditions(context, conditions, &[] as &[&str], signal)?;
        Ok(ConditionGroup { context, conditions, error_mode })
    }

    /// The context it was given, or that was inferred.
    pub fn context(&self) -> Context {
        self.context
    }
}

impl StatementGroup {
    /// Compiles statements, and conditions of which one has to hold for them to run; without conditions they always
    /// run. Without a context it is inferred: the lowest that one of them is about.
    ///
    /// # Errors
    /// The first condition or statement that is wrong, or is about another context than the group.
    pub fn parse(
        context: Option<Context>,
        conditions: &[impl AsRef<str>],
        statements: &[impl AsRef<str>],
        signal: Signal,
        error_mode: ErrorMode,
    ) -> Result<Self, GroupError> {
        let given = context;
        let (context, conditions) = parse_conditions(given, conditions, statements, signal)?;
        let parse = |(at, text): (usize, &_)| {
            let text: &str = AsRef::as_ref(text);
            let parsed = match given {
                Some(_) => Statement::parse(text, given, signal),
                None => Statement::in_context(text, context, signal),
            };
            parsed.map_err(|error| GroupError { part: Part::Statement(at), error })
        };
        let statements = statements.iter().enumerate().map(parse).collect::<Result<_, _>>()?;
        Ok(StatementGroup { context, conditions, statements, error_mode })
    }

    /// Whether it depends on messages below those it runs on: it begins a walk of its own, so that it sees what groups
    /// before it made of them.
    pub fn looks_below(&self) -> bool {
        self.conditions.iter().any(|c| c.looks_below) || self.statements.iter().any(|s| s.looks_below)
    }

    /// The context it was given, or that was inferred.
    pub fn context(&self) -> Context {
        self.context
    }
}

impl fmt::Display for GroupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, at) = match self.part {
            Part::Condition(at) => ("condition", at),
            Part::Statement(at) => ("statement", at),
        };
        write!(f, "{what} {}: {}", at + 1, self.error)
    }
}

impl std::error::Error for GroupError {}

/// Compiles conditions for the lowest context that one of them, or one of the statements, is about.
fn parse_conditions(
    context: Option<Context>,
    conditions: &[impl AsRef<str>],
    statements: &[impl AsRef<str>],
    signal: Signal,
) -> Result<(Context, Vec<Condition>), GroupError> {
    let at_condition = |at| move |error| GroupError { part: Part::Condition(at), error };
    let at_statement = |at| move |error| GroupError { part: Part::Statement(at), error };
    let lowest = match context {
        Some(context) => context,
        None => {
            let mut lowest = Context::Resource;
            let mut lower = |context: Context| {
                if context.level() > lowest.level() {
                    lowest = context;
                }
            };
            for (at, text) in conditions.iter().enumerate() {
                lower(Condition::context_of(text.as_ref(), signal).map_err(at_condition(at))?);
            }
            for (at, text) in statements.iter().enumerate() {
                lower(Statement::context_of(text.as_ref(), signal).map_err(at_statement(at))?);
            }
            lowest
        }
    };
    let parse = |(at, text): (usize, &_)| {
        let text: &str = AsRef::as_ref(text);
        match context {
            Some(_) => Condition::parse(text, context, signal),
            None => Condition::in_context(text, lowest, signal),
        }
        .map_err(at_condition(at))
    };
    Ok((lowest, conditions.iter().enumerate().map(parse).collect::<Result<_, _>>()?))
}
