//! Contexts: which one is meant, and paths that are of none.

use crate::ottl::ast::{Key, Node, NodeKind, PathNode};
use crate::ottl::functions::{Func, converter};
use crate::ottl::paths::{ClientPath, find};
use crate::ottl::{Context, ParseError};
use crate::pdata::Signal;

/// The lowest context of which there is a path, or that a function needs.
pub(super) fn infer<'n>(
    signal: Signal,
    nodes: impl IntoIterator<Item = &'n Node>,
) -> Result<Context, ParseError> {
    let mut lowest = Context::Resource;
    let mut wrong = None;
    for node in nodes {
        node.visit(&mut |node| {
            let found = match &node.kind {
                NodeKind::Path(path) => match path.words.as_slice() {
                    [(first, at), _, ..] if first != "otelcol" => {
                        Context::of_name(first).map(|context| (context, *at))
                    }
                    _ => None,
                },
                NodeKind::Call(call) => match converter(&call.name).map(|sig| sig.func) {
                    Some(Func::IsRootSpan) => Some((Context::Span, node.at)),
                    Some(Func::HasAttr | Func::HasAttrKey) => Some((Context::Metric, node.at)),
                    _ => None,
                },
                _ => None,
            };
            let Some((context, at)) = found else { return };
            if let Err(error) = in_signal(context, signal, at) {
                wrong.get_or_insert(error);
            } else if context.level() > lowest.level() {
                lowest = context;
            }
        });
    }
    wrong.map_or(Ok(lowest), Err)
}

pub(super) fn in_signal(context: Context, signal: Signal, at: usize) -> Result<(), ParseError> {
    if context.is_in(signal) {
        return Ok(());
    }
    let error = ParseError::new(at, format!("there is no \"{}\" in {}", context.name(), signal.name()));
    Err(error.hint(format!("there are: {}", contexts(signal))))
}

/// The names of a signal's contexts.
pub(super) fn contexts(signal: Signal) -> String {
    let names: Vec<&str> = Context::ALL.iter().filter(|c| c.is_in(signal)).map(|c| c.name()).collect();
    names.join(", ")
}

pub(super) fn no_context(signal: Signal, node: &PathNode) -> ParseError {
    let name = node.words.iter().map(|(word, _)| word.as_str()).collect::<Vec<_>>().join(".");
    let at = node.words.first().map_or(0, |(_, at)| *at);
    let error = ParseError::new(at, format!("the path \"{name}\" does not say of what"));
    let lowest = Context::ALL.iter().rev().find(|c| c.is_in(signal) && find(**c, &name).is_some());
    match lowest {
        Some(context) => error.hint(format!("write \"{}.{name}\", or give a context", context.name())),
        None => error.hint(format!("paths begin with one of: {}", contexts(signal))),
    }
}

/// A path of the client.
pub(super) fn client(node: &PathNode) -> Result<ClientPath, ParseError> {
    let words: Vec<&str> = node.words.iter().map(|(word, _)| word.as_str()).collect();
    let at = node.words.first().map_or(0, |(_, at)| *at);
    let key = |what: &str| match node.keys.first() {
        Some((Key::Str(key), _)) => Ok(String::from_utf8_lossy(key).into_owned()),
        Some((_, at)) => Err(ParseError::new(*at, format!("{what} is looked up by a key in double quotes"))),
        None => Err(ParseError::new(at, format!("\"{}\" as a whole is not supported", words.join(".")))
            .hint("name a key in brackets and double quotes")),
    };
    let only = |count: usize| match node.keys.get(count) {
        Some((_, at)) => Err(ParseError::new(*at, "nothing can be looked up here")),
        None => Ok(()),
    };
    match words.as_slice() {
        ["otelcol", "client" | "grpc", "metadata"] => {
            only(2)?;
            let index = match node.keys.get(1) {
                None => None,
                Some((Key::Index(index), _)) => Some(*index),
                Some((Key::Str(_), at)) => {
                    return Err(ParseError::new(*at, "the values of a key are counted from 0"));
                }
            };
            Ok(ClientPath::Metadata(key("metadata")?, index))
        }
        ["otelcol", "client", "auth", "attributes"] => {
            only(1)?;
            Ok(ClientPath::Auth(key("what the authenticator gave")?))
        }
        ["otelcol", "client", "addr"] => {
            only(0)?;
            Ok(ClientPath::Address)
        }
        _ => {
            let error = ParseError::new(at, format!("the path \"{}\" is not supported", words.join(".")));
            Err(error.hint("there are: otelcol.client.metadata, otelcol.grpc.metadata, otelcol.client.addr, otelcol.client.auth.attributes"))
        }
    }
}
