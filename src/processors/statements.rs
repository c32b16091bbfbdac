//! Lists of conditions and statements as they are written: texts, or groups of texts with a context.

use crate::config::types::Unsupported;
use crate::config::{Config, ConfigStruct, Cx, Node, Pos, Schema, SchemaKind, Value, text_of};
use crate::{config, config_enum};

config_enum! {
    /// What happens when a condition or statement fails on an item, as when it parses text that is no number.
    pub enum ErrorMode {
        /// It is logged; a condition does not hold, a statement does nothing, and the next one is run.
        Ignore = "ignore",
        /// The same without a line in the log.
        Silent = "silent",
        /// The whole request is refused as bad data; its sender is told why.
        Propagate = "propagate",
    }
}

#[allow(clippy::derivable_impls, reason = "the macro derives no default")]
impl Default for ErrorMode {
    fn default() -> Self {
        ErrorMode::Ignore
    }
}

/// A condition or statement, and where it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Code {
    /// The text.
    pub text: String,
    /// Where it starts.
    pub pos: Pos,
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
    pub struct ConditionGroup {
        /// What the conditions are asked about. Found out from the paths in them if not given.
        pub context: Option<String> = None,
        /// What happens when a condition fails; the processor's `error_mode` if not given.
        pub error_mode: Option<ErrorMode> = None,
        /// The conditions; one that holds is enough.
        pub conditions: Vec<Code> = Vec::new(),
    }
}

config! {
    /// Statements of one context.
    pub struct StatementGroup {
        /// What the statements are run on. Found out from the paths in them if not given.
        pub context: Option<String> = None,
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

impl Group for ConditionGroup {
    const WHAT: &'static str = "condition";

    fn of(conditions: Vec<Code>) -> Self {
        ConditionGroup { conditions, ..ConditionGroup::default() }
    }
}

impl Group for StatementGroup {
    const WHAT: &'static str = "statement";

    fn of(statements: Vec<Code>) -> Self {
        StatementGroup { statements, ..StatementGroup::default() }
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

impl Config for Code {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        self.pos = node.pos;
        if let Some(text) = text_of(node, cx) {
            self.text = text.to_owned();
        }
    }

    fn schema() -> Schema {
        Schema { name: "ottl", kind: SchemaKind::Text("text") }
    }

    fn to_json(&self) -> serde_json::Value {
        self.text.as_str().into()
    }
}
