//! Lists of conditions and statements as they are written: texts, or groups of texts with a context.

use crate::config;
use crate::config::types::Unsupported;
use crate::config::{
    Config, ConfigStruct, Cx, Node, Pos, Schema, SchemaKind, Severity, Value, nearest, text_of,
};
use crate::ottl::{self, Context, ErrorMode, ParseError, Part};
use crate::pdata::Signal;

/// A condition or statement, and where it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Code {
    /// The text.
    pub text: String,
    /// Where it starts.
    pub pos: Pos,
}

/// The name of a context, and where it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContextName {
    /// The context, if one is given.
    pub context: Option<Context>,
    pos: Pos,
}

/// What is wrong with a condition or statement.
#[derive(Debug)]
pub(super) struct Problem {
    /// The keys that lead to it, below the processor's own.
    path: String,
    /// Where it starts, and what the text is in which the offset points.
    code: Code,
    error: ParseError,
}

/// A list of texts, or of groups. The two cannot be mixed.
#[derive(Debug, Clone)]
pub struct Groups<G> {
    /// The groups; texts without a group are one.
    pub groups: Vec<G>,
    /// Whether they are texts without a group.
    pub basic: bool,
}

config! {
    /// Conditions of one context.
    pub struct ConditionBlock {
        /// What the conditions are asked about. Found out from the paths in them if not given.
        pub context: ContextName = ContextName::default(),
        /// What happens when a condition fails; the processor's `error_mode` if not given.
        pub error_mode: Option<ErrorMode> = None,
        /// The conditions; one that holds is enough.
        pub conditions: Vec<Code> = Vec::new(),
    }
}

config! {
    /// Statements of one context.
    pub struct StatementBlock {
        /// What the statements are run on. Found out from the paths in them if not given.
        pub context: ContextName = ContextName::default(),
        /// When the statements are run: if any of these conditions holds, or if there are none.
        pub conditions: Vec<Code> = Vec::new(),
        /// The statements, run in the order written.
        pub statements: Vec<Code> = Vec::new(),
        /// What happens when a statement fails; the processor's `error_mode` if not given.
        pub error_mode: Option<ErrorMode> = None,
        /// Not supported: the cache is shared by the statements of one group.
        pub shared_cache: Unsupported = Unsupported,
        /// Not supported: records are changed where they are.
        pub flatten: Unsupported = Unsupported,
    }
}

/// What a list of texts without groups becomes.
pub trait Group: ConfigStruct + Default {
    /// What the texts are, in messages: `condition` or `statement`.
    const WHAT: &'static str;

    /// A group of texts.
    fn of(texts: Vec<Code>) -> Self;
}

impl Group for ConditionBlock {
    const WHAT: &'static str = "condition";

    fn of(conditions: Vec<Code>) -> Self {
        ConditionBlock { conditions, ..ConditionBlock::default() }
    }
}

impl Group for StatementBlock {
    const WHAT: &'static str = "statement";

    fn of(statements: Vec<Code>) -> Self {
        StatementBlock { statements, ..StatementBlock::default() }
    }
}

impl<G> Default for Groups<G> {
    fn default() -> Self {
        Groups { groups: Vec::new(), basic: true }
    }
}

impl<G> Groups<G> {
    /// Whether nothing is written.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

impl<G: Group> Config for Groups<G> {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        let nodes = match &node.value {
            Value::Null => return,
            Value::Seq(nodes) => nodes,
            Value::Str(_) => {
                let message = "expected a list, got a string";
                return cx.error_hint(node.pos, message, format!("write a list with one {}", G::WHAT));
            }
            _ => return cx.wrong_type(node, "a list"),
        };
        self.groups.clear();
        self.basic = nodes.first().is_none_or(|first| !matches!(first.value, Value::Map(_)));
        if let Some(other) = nodes.iter().find(|n| matches!(n.value, Value::Map(_)) == self.basic) {
            return cx.error_hint(
                other.pos,
                "configuring multiple configuration styles is not supported, please use only Basic \
                 configuration or only Advanced configuration",
                format!("write {}s alone, or each in a block with a context", G::WHAT),
            );
        }
        let mut texts = Vec::new();
        for (i, node) in nodes.iter().enumerate() {
            cx.within(&i.to_string(), |cx| {
                if self.basic {
                    let mut code = Code::default();
                    code.decode_into(node, cx);
                    texts.push(code);
                } else {
                    let mut group = G::default();
                    group.decode_into(node, cx);
                    self.groups.push(group);
                }
            });
        }
        if !texts.is_empty() {
            self.groups.push(G::of(texts));
        }
    }

    fn schema() -> Schema {
        Schema { name: "groups", kind: SchemaKind::List(Box::new(G::schema())) }
    }

    fn to_json(&self) -> serde_json::Value {
        if !self.basic {
            return self.groups.iter().map(Config::to_json).collect();
        }
        let texts = |group: &G| match group.to_json().get(format!("{}s", G::WHAT)) {
            Some(serde_json::Value::Array(texts)) => texts.clone(),
            _ => Vec::new(),
        };
        self.groups.iter().flat_map(texts).collect()
    }
}

/// Compiles conditions that stand in blocks: each in a group of its own, in the context that it is about or that its
/// block has. Several kinds of messages can be told apart in one list so.
pub(super) fn condition_groups(
    key: &str,
    groups: &Groups<ConditionBlock>,
    signal: Signal,
    error_mode: ErrorMode,
    problems: &mut Vec<Problem>,
) -> Vec<ottl::ConditionGroup> {
    let mut out = Vec::new();
    for (i, block) in groups.groups.iter().enumerate() {
        let path = if groups.basic { key.to_owned() } else { format!("{key}::{i}::conditions") };
        let Some(context) = block.context.in_signal(signal, &format!("{key}::{i}::context"), problems) else {
            continue;
        };
        let mode = block.error_mode.unwrap_or(error_mode);
        out.extend(conditions(&path, &block.conditions, context, signal, mode, problems));
    }
    out
}

/// Compiles a list of conditions, each in a group of its own.
pub(super) fn conditions(
    path: &str,
    codes: &[Code],
    context: Option<Context>,
    signal: Signal,
    error_mode: ErrorMode,
    problems: &mut Vec<Problem>,
) -> Vec<ottl::ConditionGroup> {
    let mut out = Vec::new();
    for (i, code) in written(path, ConditionBlock::WHAT, codes, problems) {
        match ottl::ConditionGroup::parse(context, &[&code.text], signal, error_mode) {
            Ok(group) => out.push(group),
            Err(wrong) => problems.push(Problem::new(format!("{path}::{i}"), code, wrong.error)),
        }
    }
    out
}

/// Compiles statements that stand in blocks. Without a context each runs where what it is about is: a statement about
/// a resource once a resource, whatever the others in its block are about.
pub(super) fn statement_groups(
    key: &str,
    groups: &Groups<StatementBlock>,
    signal: Signal,
    error_mode: ErrorMode,
    problems: &mut Vec<Problem>,
) -> Vec<ottl::StatementGroup> {
    let mut out = Vec::new();
    for (i, block) in groups.groups.iter().enumerate() {
        let path = |part: &str| if groups.basic { key.to_owned() } else { format!("{key}::{i}::{part}") };
        let Some(context) = block.context.in_signal(signal, &path("context"), problems) else { continue };
        let mode = block.error_mode.unwrap_or(error_mode);
        let (gates, acts) = (path("conditions"), path("statements"));
        let before = problems.len();
        let conditions = written(&gates, ConditionBlock::WHAT, &block.conditions, problems);
        let statements = written(&acts, StatementBlock::WHAT, &block.statements, problems);
        // Conditions are compiled with each statement; what is wrong with them is said once.
        conditions_alone(&gates, &conditions, context, signal, mode, problems);
        // Statements are still looked at when their conditions are wrong: one run finds every mistake.
        let usable = conditions.iter().filter(|_| problems.len() == before);
        let gate: Vec<&str> = usable.map(|(_, code)| code.text.as_str()).collect();
        let parse = |texts: &[&str]| ottl::StatementGroup::parse(context, &gate, texts, signal, mode);
        // Neighbours about the same are one group, so that its conditions are asked once for all of them.
        let mut run: Vec<&str> = Vec::new();
        let mut last = None;
        for (at, code) in statements {
            match parse(&[&code.text]) {
                Ok(group) => {
                    if last.is_some_and(|last| last != group.context()) {
                        out.extend(parse(&run));
                        run.clear();
                    }
                    last = Some(group.context());
                    run.push(&code.text);
                }
                Err(wrong) => match wrong.part {
                    Part::Statement(_) => {
                        problems.push(Problem::new(format!("{acts}::{at}"), code, wrong.error));
                    }
                    Part::Condition(which) => {
                        if let Some((n, code)) = conditions.get(which) {
                            problems.push(Problem::new(format!("{gates}::{n}"), code, wrong.error));
                        }
                    }
                },
            }
        }
        if !run.is_empty() {
            out.extend(parse(&run));
        }
    }
    out
}

/// Compiles the conditions of a block of statements for the sake of what is wrong with them.
fn conditions_alone(
    path: &str,
    codes: &[(usize, &Code)],
    context: Option<Context>,
    signal: Signal,
    mode: ErrorMode,
    problems: &mut Vec<Problem>,
) {
    for (i, code) in codes {
        if let Err(wrong) = ottl::ConditionGroup::parse(context, &[&code.text], signal, mode) {
            problems.push(Problem::new(format!("{path}::{i}"), code, wrong.error));
        }
    }
}

/// The texts that say something, each with its index; the others are problems.
fn written<'c>(
    path: &str,
    what: &str,
    codes: &'c [Code],
    problems: &mut Vec<Problem>,
) -> Vec<(usize, &'c Code)> {
    let mut out = Vec::new();
    for (i, code) in codes.iter().enumerate() {
        if code.text.trim().is_empty() {
            let error = ParseError { offset: 0, message: format!("{what} cannot be empty"), hint: None };
            problems.push(Problem::new(format!("{path}::{i}"), code, error));
        } else {
            out.push((i, code));
        }
    }
    out
}

impl Problem {
    fn new(path: String, code: &Code, error: ParseError) -> Self {
        Problem { path, code: code.clone(), error }
    }

    /// Reports it where it stands.
    pub(super) fn report(self, cx: &mut Cx) {
        let pos = cx.pos_inside(self.code.pos, &self.code.text, self.error.offset);
        cx.within(&self.path, |cx| cx.report(Severity::Error, pos, self.error.message, self.error.hint));
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.error)
    }
}

impl ContextName {
    /// The context if it is one of the signal's, or none given; what is wrong with it otherwise.
    fn in_signal(&self, signal: Signal, path: &str, problems: &mut Vec<Problem>) -> Option<Option<Context>> {
        let Some(context) = self.context.filter(|context| !context.is_in(signal)) else {
            return Some(self.context);
        };
        let names: Vec<&str> = Context::ALL.iter().filter(|c| c.is_in(signal)).map(|c| c.name()).collect();
        let error = ParseError {
            offset: 0,
            message: format!("there is no context \"{}\" in {}", context.name(), signal.name()),
            hint: Some(format!("there are: {}", names.join(", "))),
        };
        let code = Code { text: context.name().to_owned(), pos: self.pos };
        problems.push(Problem::new(path.to_owned(), &code, error));
        None
    }
}

impl Config for ContextName {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        self.pos = node.pos;
        let Some(text) = text_of(node, cx).filter(|text| !text.is_empty()) else { return };
        self.context = Context::of_name(&text.to_ascii_lowercase());
        if self.context.is_none() {
            let names = Context::ALL.map(Context::name);
            let hint = match nearest(text, &names) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("there are: {}", names.join(", ")),
            };
            cx.error_hint(node.pos, format!("unknown context \"{text}\""), hint);
        }
    }

    fn schema() -> Schema {
        const NAMES: &[&str] = &["resource", "scope", "span", "spanevent", "metric", "datapoint", "log"];
        Schema { name: "context", kind: SchemaKind::Enum(NAMES) }
    }

    fn to_json(&self) -> serde_json::Value {
        self.context.map_or(serde_json::Value::Null, |context| context.name().into())
    }
}

impl Config for Code {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        self.pos = node.pos;
        if let Some(text) = text_of(node, cx) {
            self.text = text.to_owned();
        }
    }

    fn schema() -> Schema {
        Schema { name: "OTTL", kind: SchemaKind::Text("text") }
    }

    fn to_json(&self) -> serde_json::Value {
        self.text.as_str().into()
    }
}
