//! Editors: functions that change the message.

mod replace;

use bumpalo::Bump;

pub(super) use self::replace::Replacement;
use self::replace::pattern;
use super::ast::{CallNode, Key, Node, NodeKind};
use super::compile::{Compiler, Resolved, bind, check_type, regex, text, usage, word};
use super::eval::{Env, Expr};
use super::functions::{Param, Takes};
use super::maps::{MapEdit, Strategy, delete_key, merge, put_at, replace_all, whole};
use super::paths::{Field, Path, point_flags, status};
use super::value::{Fault, Kept, Ty, Val, check_depth};
use super::{Context, ParseError};
use crate::config::nearest;
use crate::pdata::wire::Value;
use crate::processors::edit::{Kind, Message};

/// A compiled editor.
#[derive(Debug, Clone)]
pub(super) enum Editor {
    Set(Path, Expr),
    DeleteKey(Path, Expr),
    Map(Path, MapEdit),
    Merge(Path, Expr, Strategy),
    Replace(Path, Replacement),
}

const TEXT: Takes = Takes::Value(&[Ty::Str]);
const ANY: Takes = Takes::Value(&[Ty::Any]);

const fn p(name: &'static str, takes: Takes) -> Param {
    Param { name, takes, optional: false }
}

const fn opt(name: &'static str, takes: Takes) -> Param {
    Param { name, takes, optional: true }
}

/// The editors there are, with their parameters.
pub(super) const EDITORS: [(&str, &[Param]); 12] = [
    ("set", &[p("target", ANY), p("value", ANY)]),
    ("delete_key", &[p("target", ANY), p("key", TEXT)]),
    ("delete_matching_keys", &[p("target", ANY), p("pattern", TEXT)]),
    ("keep_keys", &[p("target", ANY), p("keys", ANY)]),
    ("keep_matching_keys", &[p("target", ANY), p("pattern", TEXT)]),
    ("limit", &[p("target", ANY), p("limit", ANY), opt("priority_keys", ANY)]),
    ("truncate_all", &[p("target", ANY), p("limit", ANY), opt("utf8_safe", ANY)]),
    ("merge_maps", &[p("target", ANY), p("source", ANY), p("strategy", TEXT)]),
    (
        "replace_pattern",
        &[
            p("target", ANY),
            p("regex", TEXT),
            p("replacement", TEXT),
            opt("function", ANY),
            opt("replacement_format", TEXT),
        ],
    ),
    (
        "replace_match",
        &[
            p("target", ANY),
            p("pattern", TEXT),
            p("replacement", TEXT),
            opt("function", ANY),
            opt("replacement_format", TEXT),
        ],
    ),
    (
        "replace_all_patterns",
        &[
            p("target", ANY),
            p("mode", TEXT),
            p("regex", TEXT),
            p("replacement", TEXT),
            opt("function", ANY),
            opt("replacement_format", TEXT),
        ],
    ),
    (
        "replace_all_matches",
        &[
            p("target", ANY),
            p("pattern", TEXT),
            p("replacement", TEXT),
            opt("function", ANY),
            opt("replacement_format", TEXT),
        ],
    ),
];

impl Editor {
    /// Compiles a call.
    pub(super) fn compile(compiler: &mut Compiler, call: &CallNode, at: usize) -> Result<Self, ParseError> {
        let Some((name, params)) = EDITORS.iter().find(|(name, _)| *name == call.name) else {
            return Err(unknown_editor(&call.name, at));
        };
        let bound = bind(name, params, &call.args, at)?;
        let arg = |i: usize| bound.get(i).copied().flatten();
        let need = |i: usize| {
            arg(i).ok_or_else(|| ParseError::new(at, "an argument is missing").hint(usage(name, params)))
        };
        let target = need(0)?;
        Ok(match *name {
            "set" => {
                let path = writable(compiler, target)?;
                let (node, param) = (need(1)?, params.get(1));
                let value = compiler.expr(node)?;
                if let Some(param) = param {
                    check_type(&value, path.takes(), name, param, node.at)?;
                }
                Editor::Set(path, value)
            }
            "delete_key" => {
                let (path, node) = (map_target(compiler, target)?, need(1)?);
                let key = compiler.expr(node)?;
                if let Some(param) = params.get(1) {
                    check_type(&key, &[Ty::Str], name, param, node.at)?;
                }
                Editor::DeleteKey(path, key)
            }
            "delete_matching_keys" => {
                Editor::Map(map_target(compiler, target)?, MapEdit::DeleteMatching(regex(need(1)?)?))
            }
            "keep_matching_keys" => {
                Editor::Map(map_target(compiler, target)?, MapEdit::KeepMatching(regex(need(1)?)?))
            }
            "keep_keys" => Editor::Map(map_target(compiler, target)?, MapEdit::KeepKeys(keys(need(1)?)?)),
            "limit" => {
                let node = need(1)?;
                let (limit, first) = (size(node)?, arg(2).map(keys).transpose()?.unwrap_or_default());
                if first.len() > limit {
                    let message = format!("{} priority keys do not fit into a limit of {limit}", first.len());
                    return Err(ParseError::new(node.at, message));
                }
                Editor::Map(map_target(compiler, target)?, MapEdit::Limit(limit, first))
            }
            "truncate_all" => {
                match arg(2) {
                    None | Some(Node { kind: NodeKind::Bool(true), .. }) => {}
                    Some(node) => {
                        let error = ParseError::new(node.at, "only true is supported here");
                        return Err(error.hint("a text that is cut within a character is no text"));
                    }
                }
                Editor::Map(map_target(compiler, target)?, MapEdit::Truncate(size(need(1)?)?))
            }
            "merge_maps" => {
                let (path, node) = (map_target(compiler, target)?, need(1)?);
                let source = compiler.expr(node)?;
                if let Some(param) = params.get(1) {
                    check_type(&source, &[Ty::Map], name, param, node.at)?;
                }
                let strategy = match word(need(2)?, &["insert", "update", "upsert"])? {
                    "insert" => Strategy::Insert,
                    "update" => Strategy::Update,
                    _ => Strategy::Upsert,
                };
                Editor::Merge(path, source, strategy)
            }
            "replace_pattern" | "replace_match" => {
                let path = writable(compiler, target)?;
                if !Ty::Str.may_be(path.takes()) || whole(&path) {
                    return Err(ParseError::new(
                        target.at,
                        format!("{name} changes a text, and this is none"),
                    ));
                }
                let regex = pattern(need(1)?, *name == "replace_match")?;
                let groups = *name == "replace_pattern";
                let replacement = Replacement::new(regex, need(2)?, groups, arg(3), arg(4))?;
                Editor::Replace(path, replacement)
            }
            "replace_all_matches" => {
                let path = map_target(compiler, target)?;
                let regex = pattern(need(1)?, true)?;
                let replacement = Replacement::new(regex, need(2)?, false, arg(3), arg(4))?;
                Editor::Map(path, MapEdit::ReplaceValues(replacement))
            }
            _ => {
                let path = map_target(compiler, target)?;
                let keys = word(need(1)?, &["key", "value"])? == "key";
                let replacement = Replacement::new(regex(need(2)?)?, need(3)?, true, arg(4), arg(5))?;
                Editor::Map(
                    path,
                    if keys {
                        MapEdit::ReplaceKeys(replacement)
                    } else {
                        MapEdit::ReplaceValues(replacement)
                    },
                )
            }
        })
    }

    /// Changes the message.
    pub(super) fn run(&self, message: &mut Message<'_>, arena: &Bump, kept: &[Kept]) -> Result<(), Fault> {
        let env = Env { message: &*message, arena, kept };
        match self {
            Editor::Set(path, value) => {
                let value = value.eval(&env)?.copy(arena);
                path.write(value, message, arena)
            }
            Editor::DeleteKey(path, key) => match key.eval(&env)?.copy(arena) {
                Val::Str(key) => delete_key(path, key, message, arena),
                other => Err(Fault::wrong("delete_key", "a string for a key", other)),
            },
            Editor::Map(path, edit) => edit.run(path, message, arena),
            Editor::Merge(path, source, strategy) => match source.eval(&env)?.copy(arena) {
                Val::Map(source) => merge(path, source, *strategy, message, arena),
                other => Err(Fault::wrong("merge_maps", "a map as its source", other)),
            },
            Editor::Replace(path, replacement) => {
                let Val::Str(text) = path.read(&env)? else { return Ok(()) };
                match replacement.apply(text, message, arena)? {
                    Some(new) => path.write(Val::Str(new), message, arena),
                    None => Ok(()),
                }
            }
        }
    }
}

impl Path {
    /// The types that can be set there.
    fn takes(&self) -> &'static [Ty] {
        const STORABLE: &[Ty] = &[Ty::Str, Ty::Bool, Ty::Int, Ty::Double, Ty::Bytes, Ty::List, Ty::Map];
        match self.field {
            Field::Attributes if self.keys.is_empty() => &[Ty::Map],
            Field::Attributes | Field::Body => STORABLE,
            Field::Text(_) | Field::TraceState | Field::StatusMessage | Field::BodyText => &[Ty::Str],
            Field::Time(_) => &[Ty::Time],
            Field::Id(..) => &[Ty::Bytes],
            Field::PointDouble => &[Ty::Double],
            _ => &[Ty::Int],
        }
    }

    /// Sets it. `nil` sets nothing. The value is not of the message's memory.
    pub(super) fn write(&self, value: Val<'_>, message: &mut Message<'_>, arena: &Bump) -> Result<(), Fault> {
        let wrong = |want, value| Err(Fault::wrong("set", want, value));
        match (self.field, value) {
            (_, Val::Nil) => {}
            (Field::Attributes, value) => return self.write_attribute(value, message, arena),
            (Field::Text(n), Val::Str(text)) => put_text(message, n, text)?,
            (Field::TraceState, Val::Str(text)) => put_text(message, 3, text)?,
            (Field::Text(_) | Field::TraceState | Field::StatusMessage | Field::BodyText, value)
                if !matches!(value, Val::Str(_)) =>
            {
                return wrong("a string", value);
            }
            (Field::Enum(n), Val::Int(i)) => put_number(message, n, i64::from(i as i32) as u64)?,
            (Field::Unsigned(n), Val::Int(i)) => put_number(message, n, u64::from(i as u32))?,
            (Field::PointFlags, Val::Int(i)) => {
                let number = point_flags(message.kind());
                put_number(message, number, u64::from(i as u32))?;
            }
            (Field::Fixed32(n), Val::Int(i)) => match i as u32 {
                0 => message.clear_field(n)?,
                flags => message.set_field(n, Value::Fixed32(flags))?,
            },
            (Field::Nanos(n), Val::Int(t)) | (Field::Time(n), Val::Time(t)) => match t as u64 {
                0 => message.clear_field(n)?,
                t => message.set_field(n, Value::Fixed64(t))?,
            },
            (Field::Id(n, len), Val::Bytes(id)) if id.len() == len => {
                if id.iter().all(|b| *b == 0) {
                    message.clear_field(n)?;
                } else {
                    message.set_field(n, Value::Bytes(id))?;
                }
            }
            (Field::StatusCode | Field::StatusMessage, value) => {
                let (code, text) = match (self.field, value) {
                    (Field::StatusCode, Val::Int(code)) => (Some(code), None),
                    (Field::StatusMessage, Val::Str(text)) => (None, Some(text)),
                    (_, value) => return wrong("an integer", value),
                };
                let old = message.field(15)?.map_or(Ok(&[][..]), Value::bytes)?;
                let new = status(old, code.map(|c| i64::from(c as i32)), text, arena)?;
                message.set_field(15, Value::Bytes(new))?;
            }
            (Field::Body, value) if self.keys.is_empty() => {
                message.set_field(5, Value::Bytes(storable(value.encode(arena)?, arena)?))?;
            }
            (Field::Body, value) => {
                let old = message.field(5)?.map_or(Ok(&[][..]), Value::bytes)?;
                let old = Val::read(arena.alloc_slice_copy(old), arena)?;
                let new = put_at(old, &self.keys, value.encode(arena)?, arena)?;
                message.set_field(5, Value::Bytes(storable(new, arena)?))?;
            }
            (Field::BodyText, value) => message.set_field(5, Value::Bytes(value.encode(arena)?))?,
            (Field::PointInt, Val::Int(_)) | (Field::PointDouble, Val::Double(_)) => {
                if !matches!(message.kind(), Kind::Gauge | Kind::Sum) {
                    return Err(Fault::Other("set: only points of gauges and sums have a value"));
                }
                let (number, other, bits) = match value {
                    Val::Double(d) => (4, 6, d.to_bits()),
                    Val::Int(i) => (6, 4, i as u64),
                    _ => return Ok(()),
                };
                message.clear_field(other)?;
                message.set_field(number, Value::Fixed64(bits))?;
            }
            (Field::PointDouble, value) => return wrong("a number", value),
            (Field::Time(_), value) => return wrong("a time", value),
            (Field::Id(..), value) => return wrong("bytes of an id's length", value),
            (_, value) => return wrong("an integer", value),
        }
        Ok(())
    }

    fn write_attribute(&self, value: Val<'_>, message: &mut Message<'_>, arena: &Bump) -> Result<(), Fault> {
        match &*self.keys {
            [] => match value {
                Val::Map(map) => replace_all(message, map, arena),
                other => Err(Fault::wrong("set", "a map for all attributes", other)),
            },
            [Key::Str(key)] => Ok(message.set_attribute(key, storable(value.encode(arena)?, arena)?)?),
            [Key::Str(key), rest @ ..] => {
                let old: &[u8] = arena.alloc_slice_copy(message.attribute(key).unwrap_or_default());
                let new = put_at(Val::read(old, arena)?, rest, value.encode(arena)?, arena)?;
                Ok(message.set_attribute(key, storable(new, arena)?)?)
            }
            [Key::Index(_), ..] => Err(Fault::Other("attributes are looked up by keys")),
        }
    }
}

/// An encoded value, if others can read it.
fn storable<'b>(any: &'b [u8], arena: &Bump) -> Result<&'b [u8], Fault> {
    check_depth(any, arena, 0)?;
    Ok(any)
}

fn put_text(message: &mut Message<'_>, number: u32, text: &[u8]) -> Result<(), Fault> {
    Ok(if text.is_empty() {
        message.clear_field(number)
    } else {
        message.set_field(number, Value::Bytes(text))
    }?)
}

fn put_number(message: &mut Message<'_>, number: u32, value: u64) -> Result<(), Fault> {
    Ok(if value == 0 {
        message.clear_field(number)
    } else {
        message.set_field(number, Value::Varint(value))
    }?)
}

/// A path of the statement's own context that can be set.
fn writable(compiler: &Compiler, node: &Node) -> Result<Path, ParseError> {
    let NodeKind::Path(path) = &node.kind else {
        return Err(ParseError::new(node.at, "a path is needed here: this cannot be changed"));
    };
    let own = compiler.context;
    match compiler.resolve(path)? {
        Resolved::Client(_) => Err(ParseError::new(node.at, "what the client sent cannot be changed")),
        Resolved::Of(context, ..) if context != own => {
            let (own, other) = (own.name(), context.name());
            let message = format!("changing a \"{other}\" is not supported in the context \"{own}\"");
            let hint = format!("put the statement in a group of its own with the context \"{other}\"");
            Err(ParseError::new(node.at, message).hint(hint))
        }
        Resolved::Of(context, info, path) => {
            let name = info.name;
            if !info.writable {
                let message = format!("changing \"{}.{name}\" is not supported", context.name());
                let error = ParseError::new(node.at, message);
                return Err(match name.strip_suffix(".string") {
                    Some(base) => error.hint(format!("set \"{}.{base}\"", context.name())),
                    None => error.hint(format!("can be changed: {}", changeable(context))),
                });
            }
            if path.field == Field::TraceState && !path.keys.is_empty() {
                let error = ParseError::new(node.at, "changing a member of the trace state is not supported");
                return Err(error.hint("set the whole of it"));
            }
            Ok(path)
        }
    }
}

fn changeable(context: Context) -> String {
    let names: Vec<&str> =
        super::paths::table(context).iter().filter(|info| info.writable).map(|info| info.name).collect();
    names.join(", ")
}

/// The path of a map.
fn map_target(compiler: &Compiler, node: &Node) -> Result<Path, ParseError> {
    let path = writable(compiler, node)?;
    match path.field {
        Field::Attributes | Field::Body => Ok(path),
        _ => Err(ParseError::new(node.at, "a map is needed here")
            .hint("attributes, a map in them, or a log's body")),
    }
}

/// A size that is written out.
fn size(node: &Node) -> Result<usize, ParseError> {
    match node.kind {
        NodeKind::Int(i) if i >= 0 => Ok(usize::try_from(i).unwrap_or(usize::MAX)),
        NodeKind::Int(_) => Err(ParseError::new(node.at, "the limit must not be negative")),
        _ => Err(ParseError::new(node.at, "a whole number is needed here, written out")),
    }
}

/// Keys that are written out.
fn keys(node: &Node) -> Result<Box<[Box<[u8]>]>, ParseError> {
    let NodeKind::List(items) = &node.kind else {
        return Err(ParseError::new(node.at, "a list of keys is needed here, as in [\"a\", \"b\"]"));
    };
    items.iter().map(|item| Ok(text(item)?.as_bytes().into())).collect()
}

fn unknown_editor(name: &str, at: usize) -> ParseError {
    let error = ParseError::new(at, format!("the editor {name} is not supported"));
    let names: Vec<&str> = EDITORS.iter().map(|(name, _)| *name).collect();
    match nearest(name, &names) {
        Some(near) => error.hint(format!("did you mean {near}?")),
        None => error.hint(format!("there are: {}", names.join(", "))),
    }
}
