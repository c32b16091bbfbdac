//! Replacing parts of a text, or the whole of it.

use bumpalo::Bump;
use regex::bytes::Regex;

use crate::ottl::ParseError;
use crate::ottl::ast::{Node, NodeKind};
use crate::ottl::compile::{compile_regex, regex, text, unknown_converter};
use crate::ottl::eval::{Env, Expr};
use crate::ottl::functions::{Call, Extra, Param, Takes, converter};
use crate::ottl::value::{Buf, Fault, Kept, Ty, Val, cuts_character};
use crate::processors::edit::Message;

/// What replaces a text, or parts of it.
#[derive(Debug, Clone)]
pub(in crate::ottl) struct Replacement {
    regex: Regex,
    with: Box<[u8]>,
    /// Whether groups are put into `with`.
    groups: bool,
    /// What is made of the replacement, of which it is the one argument.
    function: Option<Box<Call>>,
    /// What stands before and behind it.
    around: Option<(Box<[u8]>, Box<[u8]>)>,
}

impl Replacement {
    pub(super) fn new(
        regex: Regex,
        with: &Node,
        groups: bool,
        function: Option<&Node>,
        format: Option<&Node>,
    ) -> Result<Self, ParseError> {
        let with = text(with)?.as_bytes();
        let function = match function {
            None | Some(Node { kind: NodeKind::Nil, .. }) => None,
            Some(node) => Some(Box::new(one_argument(node)?)),
        };
        let around = match format {
            None => None,
            Some(node) => match text(node)?.split_once("%s") {
                Some((before, behind)) if !behind.contains("%s") => {
                    Some((before.as_bytes().into(), behind.as_bytes().into()))
                }
                _ => return Err(ParseError::new(node.at, "the format needs one %s")),
            },
        };
        Ok(Replacement { regex, with: with.into(), groups: groups && with.contains(&b'$'), function, around })
    }

    /// The text with its matches replaced, in the arena; `None` if there are none.
    pub(in crate::ottl) fn apply<'b>(
        &self,
        text: &[u8],
        message: &Message<'_>,
        arena: &'b Bump,
    ) -> Result<Option<&'b [u8]>, Fault> {
        let env = Env { message, arena, kept: &[] };
        if !self.regex.is_match(text) {
            return Ok(None);
        }
        let mut out = Buf::with_capacity_in(text.len() + self.with.len(), arena);
        let mut done = 0;
        if self.groups {
            let mut expanded = Vec::new();
            for found in self.regex.captures_iter(text) {
                let Some(all) = found.get(0).filter(|all| whole(text, all.range())) else { continue };
                out.extend_from_slice_copy(text.get(done..all.start()).unwrap_or_default());
                done = all.end();
                expanded.clear();
                found.expand(&self.with, &mut expanded);
                self.put(&expanded, &mut out, &env)?;
            }
        } else {
            for all in self.regex.find_iter(text).filter(|all| whole(text, all.range())) {
                out.extend_from_slice_copy(text.get(done..all.start()).unwrap_or_default());
                done = all.end();
                self.put(&self.with, &mut out, &env)?;
            }
        }
        out.extend_from_slice_copy(text.get(done..).unwrap_or_default());
        Ok(Some(out.into_bump_slice()))
    }

    fn put(&self, with: &[u8], out: &mut Buf<'_>, env: &Env<'_, '_>) -> Result<(), Fault> {
        if let Some((before, _)) = &self.around {
            out.extend_from_slice_copy(before);
        }
        match &self.function {
            None => out.extend_from_slice_copy(with),
            Some(call) => {
                let kept = [Kept::of(Val::Str(with))];
                let env = Env { message: env.message, arena: env.arena, kept: &kept };
                out.extend_from_slice_copy(call.eval(&env)?.text(env.arena)?.unwrap_or_default());
            }
        }
        if let Some((_, behind)) = &self.around {
            out.extend_from_slice_copy(behind);
        }
        Ok(())
    }
}

/// A converter that is handed over by its name; its argument is what is captured first.
fn one_argument(node: &Node) -> Result<Call, ParseError> {
    let NodeKind::Name(name) = &node.kind else {
        return Err(ParseError::new(node.at, "the name of a converter is needed here, as in SHA256"));
    };
    let Some(sig) = converter(name) else { return Err(unknown_converter(name, node.at)) };
    let text = |param: &Param| matches!(param.takes, Takes::Value(types) if Ty::Str.may_be(types));
    match sig.params {
        [first, rest @ ..] if text(first) && rest.iter().all(|param| param.optional) => {
            let mut args = vec![Expr::Kept(0, Ty::Str)];
            args.extend(rest.iter().map(|_| Expr::Literal(Kept::default())));
            Ok(Call { sig, args: args.into(), extra: Extra::None })
        }
        _ => Err(ParseError::new(node.at, format!("{name} does not make a text of a text"))),
    }
}

/// Whether a match is of whole characters: one of `\\B` alone may stand between the bytes of one.
fn whole(text: &[u8], found: std::ops::Range<usize>) -> bool {
    !cuts_character(text, found.start) && !cuts_character(text, found.end)
}

/// An expression, or a glob for the whole text.
pub(super) fn pattern(node: &Node, glob: bool) -> Result<Regex, ParseError> {
    if !glob {
        return regex(node);
    }
    compile_regex(&glob_regex(text(node)?)).map_err(|why| ParseError::new(node.at, why))
}

/// A glob as an expression for the whole text: `*`, `?`, `[abc]`, `[!abc]`, `{one,two}`, and `\` before any of them.
fn glob_regex(glob: &str) -> String {
    let mut out = "^(?s:".to_owned();
    let mut chars = glob.chars().peekable();
    let (mut class, mut depth) = (false, 0usize);
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push_str(&regex::escape(&chars.next().map(String::from).unwrap_or_default())),
            ']' if class => {
                class = false;
                out.push(']');
            }
            '-' if class => out.push('-'),
            c if class => out.push_str(&regex::escape(&c.to_string())),
            '*' => {
                while chars.next_if_eq(&'*').is_some() {}
                out.push_str(".*");
            }
            '?' => out.push('.'),
            '[' => {
                class = true;
                out.push('[');
                if chars.next_if_eq(&'!').is_some() {
                    out.push('^');
                }
            }
            '{' => {
                depth += 1;
                out.push_str("(?:");
            }
            ',' if depth > 0 => out.push('|'),
            '}' if depth > 0 => {
                depth -= 1;
                out.push(')');
            }
            c => out.push_str(&regex::escape(&c.to_string())),
        }
    }
    out.push_str(")$");
    out
}
