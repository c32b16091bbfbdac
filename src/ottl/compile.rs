//! Nodes to expressions: contexts are inferred, paths and functions looked up, types checked as far as they are known.

mod args;
mod contexts;

use std::collections::BTreeMap;

use bumpalo::Bump;

use self::args::number;
pub(super) use self::args::{bind, check_type, compile_regex, regex, text, usage, word};
use self::contexts::{client, contexts, in_signal, infer, no_context};
use super::ast::{CallNode, Key, Node, NodeKind, PathNode, StatementNode};
use super::editors::Editor;
use super::eval::{Expr, Test, math};
use super::functions::{CONVERTERS, Call, Extra, Func, Sig, Takes, converter, pieces, verbs};
use super::lex::unhex;
use super::paths::{ClientPath, ENUMS, Field, Path, PathInfo, enum_value, find, suggest};
use super::value::{Buf, Kept, Ty, Val, put_entry, put_item};
use super::{Context, ParseError, parse};
use crate::config::nearest;
use crate::config::types::parse_duration;
use crate::pdata::Signal;
use crate::processors::edit::Level;

/// A condition on messages of one context, compiled.
#[derive(Debug, Clone)]
pub struct Condition {
    context: Context,
    pub(super) text: Box<str>,
    pub(super) test: Test,
    pub(super) captures: Box<[Origin]>,
    pub(super) looks_below: bool,
}

/// A change of messages of one context, compiled.
#[derive(Debug, Clone)]
pub struct Statement {
    context: Context,
    pub(super) text: Box<str>,
    pub(super) editor: Editor,
    pub(super) filter: Option<Test>,
    pub(super) captures: Box<[Origin]>,
    pub(super) looks_below: bool,
}

/// Where a value comes from that is captured before it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// A path of the message of this level around the one at hand.
    Above(Level, Path),
    Client(ClientPath),
}

/// What is known while one text is compiled.
pub(super) struct Compiler {
    pub(super) context: Context,
    signal: Signal,
    /// Whether paths may leave their context out.
    explicit: bool,
    captures: Vec<Origin>,
    /// Whether anything asks about messages below the one at hand.
    looks_below: bool,
}

/// What a path means.
pub(super) enum Resolved {
    Of(Context, &'static PathInfo, Path),
    Client(ClientPath),
}

impl Condition {
    /// Compiles a condition on a signal's messages. Without a context it is inferred: the lowest of which there is a path.
    ///
    /// # Errors
    /// What is wrong with the text, or not supported.
    pub fn parse(text: &str, context: Option<Context>, signal: Signal) -> Result<Self, ParseError> {
        let node = parse::condition(text)?;
        let compiler = Compiler::new(context, signal, [&node])?;
        Condition::compile(text, &node, compiler)
    }

    /// The context that would be inferred.
    pub(super) fn context_of(text: &str, signal: Signal) -> Result<Context, ParseError> {
        infer(signal, [&parse::condition(text)?])
    }

    /// Compiles a condition for a context that was inferred from more than itself.
    pub(super) fn in_context(text: &str, context: Context, signal: Signal) -> Result<Self, ParseError> {
        Condition::compile(text, &parse::condition(text)?, Compiler::inferred(context, signal))
    }

    fn compile(text: &str, node: &Node, mut compiler: Compiler) -> Result<Self, ParseError> {
        let test = compiler.test(node)?;
        Ok(Condition {
            context: compiler.context,
            text: text.into(),
            test,
            captures: compiler.captures.into(),
            looks_below: compiler.looks_below,
        })
    }

    /// The context it was given, or that was inferred.
    pub fn context(&self) -> Context {
        self.context
    }
}

impl Statement {
    /// Compiles a statement about a signal's messages; see [`Condition::parse`].
    ///
    /// # Errors
    /// What is wrong with the text, or not supported.
    pub fn parse(text: &str, context: Option<Context>, signal: Signal) -> Result<Self, ParseError> {
        let node = parse::statement(text)?;
        let compiler = Compiler::new(context, signal, node.nodes())?;
        Statement::compile(text, &node, compiler)
    }

    /// The context that would be inferred.
    pub(super) fn context_of(text: &str, signal: Signal) -> Result<Context, ParseError> {
        infer(signal, parse::statement(text)?.nodes())
    }

    /// Compiles a statement for a context that was inferred from more than itself.
    pub(super) fn in_context(text: &str, context: Context, signal: Signal) -> Result<Self, ParseError> {
        Statement::compile(text, &parse::statement(text)?, Compiler::inferred(context, signal))
    }

    fn compile(text: &str, node: &StatementNode, mut compiler: Compiler) -> Result<Self, ParseError> {
        let editor = Editor::compile(&mut compiler, &node.editor, node.at)?;
        let filter = node.filter.as_ref().map(|filter| compiler.test(filter)).transpose()?;
        Ok(Statement {
            context: compiler.context,
            text: text.into(),
            editor,
            filter,
            captures: compiler.captures.into(),
            looks_below: compiler.looks_below,
        })
    }

    /// The context it was given, or that was inferred.
    pub fn context(&self) -> Context {
        self.context
    }
}

impl Compiler {
    fn new<'n>(
        context: Option<Context>,
        signal: Signal,
        nodes: impl IntoIterator<Item = &'n Node>,
    ) -> Result<Self, ParseError> {
        if let Some(context) = context.filter(|context| !context.is_in(signal)) {
            let message = format!("there is no context \"{}\" in {}", context.name(), signal.name());
            return Err(ParseError::new(0, message).hint(format!("there are: {}", contexts(signal))));
        }
        let inferred = match context {
            Some(context) => context,
            None => infer(signal, nodes)?,
        };
        let explicit = context.is_some();
        Ok(Compiler { context: inferred, signal, explicit, captures: Vec::new(), looks_below: false })
    }

    /// For a context that was inferred from other texts too.
    fn inferred(context: Context, signal: Signal) -> Self {
        Compiler { context, signal, explicit: false, captures: Vec::new(), looks_below: false }
    }

    /// An expression that is true or false.
    pub(super) fn test(&mut self, node: &Node) -> Result<Test, ParseError> {
        Ok(match &node.kind {
            NodeKind::Bool(value) => Test::Const(*value),
            NodeKind::Not(inner) => Test::Not(Box::new(self.test(inner)?)),
            NodeKind::And(parts) => {
                Test::And(parts.iter().map(|part| self.test(part)).collect::<Result<_, _>>()?)
            }
            NodeKind::Or(parts) => {
                Test::Or(parts.iter().map(|part| self.test(part)).collect::<Result<_, _>>()?)
            }
            NodeKind::Compare(op, left, right) => {
                let (mut left, mut right) = (self.expr(left)?, self.expr(right)?);
                self.first_of_metadata(&mut left, right.ty());
                self.first_of_metadata(&mut right, left.ty());
                Test::Compare(*op, left, right)
            }
            NodeKind::Call(_) => {
                let expr = self.expr(node)?;
                if !matches!(expr.ty(), Ty::Bool | Ty::Any) {
                    return Err(self.no_condition(node, expr.ty()));
                }
                Test::Value(expr)
            }
            _ => {
                let ty = self.expr(node)?.ty();
                return Err(self.no_condition(node, ty));
            }
        })
    }

    fn no_condition(&self, node: &Node, ty: Ty) -> ParseError {
        let error = ParseError::new(node.at, format!("{} is no condition", ty.name()));
        error.hint("compare it, as in: attributes[\"key\"] == true")
    }

    /// Metadata is a list of texts. Compared with one text, the first is meant: a list never equals it.
    fn first_of_metadata(&mut self, expr: &mut Expr, other: Ty) {
        if let (Expr::Kept(at, ty), Ty::Str) = (&mut *expr, other)
            && let Some(Origin::Client(ClientPath::Metadata(key, None))) = self.captures.get(*at)
        {
            let first = Origin::Client(ClientPath::Metadata(key.clone(), Some(0)));
            *ty = Ty::Any;
            *at = self.capture(first);
        }
    }

    fn capture(&mut self, origin: Origin) -> usize {
        match self.captures.iter().position(|known| *known == origin) {
            Some(at) => at,
            None => {
                self.captures.push(origin);
                self.captures.len() - 1
            }
        }
    }

    /// An expression that gives a value.
    pub(super) fn expr(&mut self, node: &Node) -> Result<Expr, ParseError> {
        let literal = |value: Val<'_>| Ok(Expr::Literal(Kept::of(value)));
        match &node.kind {
            NodeKind::Nil => literal(Val::Nil),
            NodeKind::Bool(b) => literal(Val::Bool(*b)),
            NodeKind::Int(i) => literal(Val::Int(*i)),
            NodeKind::Float(d) => literal(Val::Double(*d)),
            NodeKind::Str(s) => literal(Val::Str(s.as_bytes())),
            NodeKind::Bytes(b) => literal(Val::Bytes(b)),
            NodeKind::Name(name) => match enum_value(name) {
                Some(value) => literal(Val::Int(value)),
                None => Err(unknown_name(name, node.at)),
            },
            NodeKind::List(items) => {
                let items: Vec<Expr> = items.iter().map(|item| self.expr(item)).collect::<Result<_, _>>()?;
                Ok(folded_list(&items).unwrap_or(Expr::List(items.into())))
            }
            NodeKind::Map(entries) => self.map(entries),
            NodeKind::Path(path) => self.path(path),
            NodeKind::Neg(inner) => {
                let expr = self.expr(inner)?;
                number(&expr, inner.at)?;
                Ok(Expr::Neg(Box::new(expr)))
            }
            NodeKind::Math(op, left, right) => {
                let (a, b) = (self.expr(left)?, self.expr(right)?);
                number(&a, left.at)?;
                number(&b, right.at)?;
                if let (Some(a), Some(b)) = (a.literal(), b.literal()) {
                    let value = math(*op, a, b).map_err(|why| ParseError::new(right.at, why.to_string()))?;
                    return literal(value);
                }
                if let (Ty::Int, Ty::Double) | (Ty::Double, Ty::Int) = (a.ty(), b.ty()) {
                    let error = ParseError::new(right.at, "an integer and a number do not mix in arithmetic");
                    return Err(error.hint("convert one of them with Int(…) or Double(…)"));
                }
                Ok(Expr::Math(*op, Box::new(a), Box::new(b)))
            }
            NodeKind::Call(call) => {
                let expr = self.call(call, node.at)?;
                if call.keys.is_empty() {
                    return Ok(expr);
                }
                let keys = call.keys.iter().map(|(key, _)| key.clone()).collect();
                Ok(Expr::Index(Box::new(expr), keys))
            }
            NodeKind::Compare(..) | NodeKind::Not(_) | NodeKind::And(_) | NodeKind::Or(_) => {
                Err(ParseError::new(node.at, "a condition is no value"))
            }
        }
    }

    fn map(&mut self, entries: &[(String, Node)]) -> Result<Expr, ParseError> {
        // Of a key that is written twice the last counts.
        let mut compiled: Vec<(Box<[u8]>, Expr)> = Vec::new();
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        for (key, item) in entries {
            let item = self.expr(item)?;
            match places.get(key.as_str()).and_then(|at| compiled.get_mut(*at)) {
                Some(entry) => entry.1 = item,
                None => {
                    places.insert(key, compiled.len());
                    compiled.push((key.as_bytes().into(), item));
                }
            }
        }
        Ok(folded_map(&compiled).unwrap_or(Expr::Map(compiled.into())))
    }

    fn path(&mut self, node: &PathNode) -> Result<Expr, ParseError> {
        Ok(match self.resolve(node)? {
            Resolved::Of(context, info, path) => {
                let ty = if path.keys.is_empty() { info.ty } else { Ty::Any };
                if context == self.context {
                    Expr::Path(path, ty)
                } else {
                    Expr::Kept(self.capture(Origin::Above(context.level(), path)), ty)
                }
            }
            Resolved::Client(path) => {
                let ty = match path {
                    ClientPath::Metadata(_, None) => Ty::List,
                    _ => Ty::Any,
                };
                Expr::Kept(self.capture(Origin::Client(path)), ty)
            }
        })
    }

    /// Looks a path up.
    pub(super) fn resolve(&self, node: &PathNode) -> Result<Resolved, ParseError> {
        let Some((first, at)) = node.words.first() else {
            return Err(ParseError::new(0, "a path is empty"));
        };
        if first == "otelcol" {
            return client(node).map(Resolved::Client);
        }
        let (context, words) = match (Context::of_name(first), node.words.get(1..)) {
            (Some(context), Some(rest)) if !rest.is_empty() => (context, rest),
            (Some(context), _) => {
                let names: Vec<&str> = super::paths::table(context).iter().map(|info| info.name).collect();
                let error = ParseError::new(*at, format!("\"{first}\" alone is no path"));
                return Err(error.hint(format!("name a part of it: {}", names.join(", "))));
            }
            (None, _) if self.explicit => (self.context, node.words.as_slice()),
            (None, _) => return Err(no_context(self.signal, node)),
        };
        in_signal(context, self.signal, *at)?;
        self.reach(context, *at)?;
        let name = words.iter().map(|(word, _)| word.as_str()).collect::<Vec<_>>().join(".");
        let Some(info) = find(context, &name) else {
            let at = words.first().map_or(*at, |(_, at)| *at);
            let message = format!("the path \"{}.{name}\" is not supported", context.name());
            return Err(ParseError::new(at, message).hint(suggest(context, &name)));
        };
        let keys: Box<[Key]> = node.keys.iter().map(|(key, _)| key.clone()).collect();
        if let Some((key, at)) = node.keys.first() {
            if !info.field.takes_keys() {
                let message = format!("\"{}.{name}\" is {}: it has no keys", context.name(), info.ty.name());
                return Err(ParseError::new(*at, message));
            }
            let map = matches!(info.field, Field::Attributes | Field::TraceState);
            if map && matches!(key, Key::Index(_)) {
                return Err(ParseError::new(
                    *at,
                    format!("\"{name}\" is looked up by a key in double quotes"),
                ));
            }
            if info.field == Field::TraceState && node.keys.len() > 1 {
                return Err(ParseError::new(*at, "a member of the trace state is a string: it has no keys"));
            }
        }
        Ok(Resolved::Of(context, info, Path { field: info.field, keys }))
    }

    /// Whether a message of the context at hand has one of `context` around it, or is one.
    fn reach(&self, context: Context, at: usize) -> Result<(), ParseError> {
        if context == self.context || context.level() < self.context.level() {
            return Ok(());
        }
        let (own, other) = (self.context.name(), context.name());
        let error =
            ParseError::new(at, format!("a path of \"{other}\" cannot be used in the context \"{own}\""));
        Err(error.hint(format!("use the context \"{other}\"")))
    }

    fn call(&mut self, call: &CallNode, at: usize) -> Result<Expr, ParseError> {
        let Some(sig) = converter(&call.name) else { return Err(unknown_converter(&call.name, at)) };
        match sig.func {
            Func::IsRootSpan => {
                if !matches!(self.context, Context::Span | Context::SpanEvent) {
                    return Err(ParseError::new(at, "IsRootSpan is for the contexts span and spanevent"));
                }
                bind(sig.name, sig.params, &call.args, at)?;
                let word = |word: &str| (word.to_owned(), at);
                let parent = PathNode { words: vec![word("span"), word("parent_span_id")], keys: Vec::new() };
                let args = Box::new([self.path(&parent)?]);
                return Ok(Expr::Call(Box::new(Call { sig, args, extra: Extra::None })));
            }
            Func::HasAttr | Func::HasAttrKey if self.context != Context::Metric => {
                return Err(ParseError::new(at, format!("{} is for the context metric", sig.name)));
            }
            Func::HasAttr | Func::HasAttrKey => self.looks_below = true,
            _ => {}
        }
        let bound = bind(sig.name, sig.params, &call.args, at)?;
        let mut args = Vec::new();
        let mut extra = Extra::None;
        for (param, node) in sig.params.iter().zip(bound) {
            let Some(node) = node else {
                args.push(Expr::Literal(Kept::default()));
                continue;
            };
            match param.takes {
                Takes::Value(types) => {
                    let expr = self.expr(node)?;
                    check_type(&expr, types, sig.name, param, node.at)?;
                    args.push(expr);
                }
                Takes::Regex => extra = Extra::Regex(regex(node)?),
                Takes::Groups => {
                    let regex = regex(node)?;
                    if regex.capture_names().flatten().next().is_none() {
                        let error = ParseError::new(node.at, "the pattern has no named group");
                        return Err(error.hint("write groups as (?P<name>…)"));
                    }
                    extra = Extra::Regex(regex);
                }
                Takes::Word(words) => {
                    let word = word(node, words)?;
                    args.push(Expr::Literal(Kept::of(Val::Str(word.as_bytes()))));
                }
                Takes::Format => {
                    let text = text(node)?;
                    let parts = pieces(text).map_err(|(_, why)| ParseError::new(node.at, why))?;
                    extra = Extra::Format(parts);
                    args.push(Expr::Literal(Kept::default()));
                }
                Takes::Duration => {
                    let duration =
                        parse_duration(text(node)?).map_err(|why| ParseError::new(node.at, why))?;
                    let nanos = i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
                    return Ok(Expr::Literal(Kept::of(Val::Duration(nanos))));
                }
                Takes::Id(len) => {
                    let bytes = match &node.kind {
                        NodeKind::Bytes(bytes) => Some(bytes.clone()),
                        NodeKind::Str(text) => unhex(text),
                        _ => None,
                    };
                    let Some(bytes) = bytes.filter(|bytes| bytes.len() == len) else {
                        let message = format!("{} needs {len} bytes in hexadecimal, written out", sig.name);
                        return Err(ParseError::new(node.at, message));
                    };
                    return Ok(Expr::Literal(Kept::of(Val::Bytes(&bytes))));
                }
            }
        }
        self.check_call(sig, &args, &extra, at)?;
        Ok(Expr::Call(Box::new(Call { sig, args: args.into(), extra })))
    }

    fn check_call(&self, sig: &Sig, args: &[Expr], extra: &Extra, at: usize) -> Result<(), ParseError> {
        if let Extra::Format(parts) = extra {
            let given = match args.get(1) {
                Some(Expr::List(items)) => Some(items.len()),
                Some(Expr::Literal(kept)) => match kept.get() {
                    Val::List(list) => Some(super::value::items(list).count()),
                    _ => Some(0),
                },
                _ => None,
            };
            if let Some(given) = given.filter(|given| *given != verbs(parts)) {
                let wanted = verbs(parts);
                return Err(ParseError::new(at, format!("{}: {wanted} verbs and {given} values", sig.name)));
            }
        }
        Ok(())
    }
}

fn unknown_name(name: &str, at: usize) -> ParseError {
    if converter(name).is_some() {
        let error = ParseError::new(at, format!("{name} is a function"));
        return error.hint(format!("call it: {name}(…)"));
    }
    let error = ParseError::new(at, format!("the name {name} is not supported"));
    let severities = (1..=24).map(severity_name).collect::<Vec<_>>();
    let mut names: Vec<&str> = ENUMS.iter().map(|(name, _)| *name).collect();
    names.extend(severities.iter().map(String::as_str));
    match nearest(name, &names) {
        Some(near) => error.hint(format!("did you mean {near}?")),
        None => error,
    }
}

fn severity_name(number: i64) -> String {
    const WORDS: [&str; 6] = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];
    let word = WORDS.get(((number - 1) / 4) as usize).unwrap_or(&"");
    match (number - 1) % 4 {
        0 => format!("SEVERITY_NUMBER_{word}"),
        step => format!("SEVERITY_NUMBER_{word}{}", step + 1),
    }
}

pub(super) fn unknown_converter(name: &str, at: usize) -> ParseError {
    let error = ParseError::new(at, format!("the function {name} is not supported"));
    let names: Vec<&str> = CONVERTERS.iter().map(|sig| sig.name).collect();
    match nearest(name, &names) {
        Some(near) => error.hint(format!("did you mean {near}?")),
        None => error.hint(format!("there are: {}", names.join(", "))),
    }
}

/// A list of literals, made once.
fn folded_list(items: &[Expr]) -> Option<Expr> {
    let arena = Bump::new();
    let mut list = Buf::new_in(&arena);
    for item in items {
        put_item(&mut list, item.literal()?, &arena).ok()?;
    }
    Some(Expr::Literal(Kept::of(Val::List(&list))))
}

fn folded_map(entries: &[(Box<[u8]>, Expr)]) -> Option<Expr> {
    let arena = Bump::new();
    let mut map = Buf::new_in(&arena);
    for (key, item) in entries {
        put_entry(&mut map, key, item.literal()?.encode(&arena).ok()?);
    }
    Some(Expr::Literal(Kept::of(Val::Map(&map))))
}
