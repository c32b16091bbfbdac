//! What a text says, before anything is known of paths and functions. Every node has the offset at which it begins.

/// A node and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) at: usize,
    pub(super) kind: NodeKind,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum NodeKind {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    Bytes(Vec<u8>),
    /// A word in upper case, or the name of a function that is handed to another one.
    Name(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
    Path(PathNode),
    Call(CallNode),
    Neg(Box<Node>),
    Math(MathOp, Box<Node>, Box<Node>),
    Compare(CompareOp, Box<Node>, Box<Node>),
    Not(Box<Node>),
    And(Vec<Node>),
    Or(Vec<Node>),
}

/// `resource.attributes["k"]`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PathNode {
    /// The words between the dots, and where each begins.
    pub(super) words: Vec<(String, usize)>,
    pub(super) keys: Vec<(Key, usize)>,
}

/// A call of a converter or an editor.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CallNode {
    pub(super) name: String,
    pub(super) args: Vec<Argument>,
    pub(super) keys: Vec<(Key, usize)>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Argument {
    pub(super) name: Option<String>,
    pub(super) value: Node,
}

/// What stands in brackets behind a path or a call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Str(Box<[u8]>),
    Index(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MathOp {
    Add,
    Sub,
    Mul,
    Div,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CompareOp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

/// `editor(…) where …`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StatementNode {
    pub(super) at: usize,
    pub(super) editor: CallNode,
    pub(super) filter: Option<Node>,
}

impl StatementNode {
    /// Its arguments and its condition.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.editor.args.iter().map(|arg| &arg.value).chain(&self.filter)
    }
}

impl Node {
    /// Calls `f` for this node and all below it.
    pub(super) fn visit(&self, f: &mut impl FnMut(&Node)) {
        f(self);
        match &self.kind {
            NodeKind::List(items) | NodeKind::And(items) | NodeKind::Or(items) => {
                items.iter().for_each(|item| item.visit(f));
            }
            NodeKind::Map(entries) => entries.iter().for_each(|(_, item)| item.visit(f)),
            NodeKind::Call(call) => call.args.iter().for_each(|arg| arg.value.visit(f)),
            NodeKind::Neg(inner) | NodeKind::Not(inner) => inner.visit(f),
            NodeKind::Math(_, left, right) | NodeKind::Compare(_, left, right) => {
                left.visit(f);
                right.visit(f);
            }
            _ => {}
        }
    }
}
