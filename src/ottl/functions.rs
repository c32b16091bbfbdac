//! Converters: functions that give a value.

mod digest;
mod format;
mod json;
mod table;

use bumpalo::Bump;
use regex::bytes::Regex;

pub(super) use self::format::{Piece, pieces, verbs};
pub(super) use self::table::{CONVERTERS, Func, Param, Sig, Takes, converter};
use super::ast::CompareOp;
use super::eval::{Env, Expr};
use super::paths::points;
use super::value::{
    Buf, Fault, Ty, Val, compare, cuts_character, entries, find, hex, items, put_bytes, put_entry, put_item,
};

/// A call, compiled.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) sig: &'static Sig,
    /// One an argument that is evaluated; `nil` where an optional one is left out.
    pub(super) args: Box<[Expr]>,
    pub(super) extra: Extra,
}

/// What a call needs beside its arguments.
#[derive(Debug, Clone)]
pub(super) enum Extra {
    None,
    Regex(Regex),
    /// The text of a format, taken apart.
    Format(Box<[Piece]>),
}

impl Call {
    pub(super) fn ty(&self) -> Ty {
        self.sig.ty
    }

    fn arg<'v>(&'v self, at: usize, env: &Env<'v, '_>) -> Result<Val<'v>, Fault> {
        self.args.get(at).map_or(Ok(Val::Nil), |arg| arg.eval(env))
    }

    fn text<'v>(&'v self, at: usize, env: &Env<'v, '_>) -> Result<&'v [u8], Fault> {
        match self.arg(at, env)? {
            Val::Str(text) => Ok(text),
            other => Err(self.wrong("a string", other)),
        }
    }

    /// An optional text.
    fn text_or<'v>(&'v self, at: usize, default: &'v str, env: &Env<'v, '_>) -> Result<&'v [u8], Fault> {
        match self.arg(at, env)? {
            Val::Nil => Ok(default.as_bytes()),
            Val::Str(text) => Ok(text),
            other => Err(self.wrong("a string", other)),
        }
    }

    fn int(&self, at: usize, env: &Env<'_, '_>) -> Result<i64, Fault> {
        match self.arg(at, env)? {
            Val::Int(i) => Ok(i),
            other => Err(self.wrong("an integer", other)),
        }
    }

    fn list<'v>(&'v self, at: usize, env: &Env<'v, '_>) -> Result<&'v [u8], Fault> {
        match self.arg(at, env)? {
            Val::List(list) => Ok(list),
            other => Err(self.wrong("a list", other)),
        }
    }

    fn map<'v>(&'v self, at: usize, env: &Env<'v, '_>) -> Result<&'v [u8], Fault> {
        match self.arg(at, env)? {
            Val::Map(map) => Ok(map),
            other => Err(self.wrong("a map", other)),
        }
    }

    fn wrong(&self, want: &'static str, found: Val<'_>) -> Fault {
        Fault::wrong(self.sig.name, want, found)
    }

    pub(super) fn eval<'v>(&'v self, env: &Env<'v, '_>) -> Result<Val<'v>, Fault> {
        let arena = env.arena;
        Ok(match self.sig.func {
            Func::IsMatch => match (self.arg(0, env)?.text(arena)?, &self.extra) {
                (Some(text), Extra::Regex(regex)) => Val::Bool(regex.is_match(text)),
                _ => Val::Bool(false),
            },
            Func::Is(ty) => Val::Bool(self.arg(0, env)?.ty() == ty),
            Func::IsRootSpan => match self.arg(0, env)? {
                Val::Bytes(parent) => Val::Bool(parent.iter().all(|b| *b == 0)),
                _ => Val::Bool(true),
            },
            Func::HasPrefix => Val::Bool(self.text(0, env)?.starts_with(self.text(1, env)?)),
            Func::HasSuffix => Val::Bool(self.text(0, env)?.ends_with(self.text(1, env)?)),
            Func::Concat => self.concat(env)?,
            Func::Split => split(self.text(0, env)?, self.text(1, env)?, arena),
            Func::Substring => {
                let (text, start, len) = (self.text(0, env)?, self.int(1, env)?, self.int(2, env)?);
                let range = usize::try_from(start).ok().zip(usize::try_from(len).ok());
                let piece = range
                    .filter(|(_, len)| *len > 0)
                    .and_then(|(start, len)| text.get(start..start.checked_add(len)?));
                let piece = piece.ok_or(Fault::Other("Substring: the range is not within the text"))?;
                let start = start as usize;
                if cuts_character(text, start) || cuts_character(text, start + piece.len()) {
                    return Err(Fault::Other("Substring: the range cuts a character"));
                }
                Val::Str(piece)
            }
            Func::Len => match self.arg(0, env)? {
                Val::Str(text) => Val::Int(text.len() as i64),
                Val::List(list) => Val::Int(items(list).count() as i64),
                Val::Map(map) => Val::Int(entries(map, arena).count() as i64),
                other => return Err(self.wrong("a string, a list or a map", other)),
            },
            Func::Int => match self.arg(0, env)? {
                Val::Double(d) => Val::Int(d as i64),
                Val::Bool(b) => Val::Int(i64::from(b)),
                Val::Str(s) => parse(s).map_or(Val::Nil, Val::Int),
                value @ (Val::Int(_) | Val::Nil) => value,
                other => return Err(self.wrong("a string, a number or a boolean", other)),
            },
            Func::Double => match self.arg(0, env)? {
                Val::Int(i) => Val::Double(i as f64),
                Val::Bool(b) => Val::Double(f64::from(u8::from(b))),
                Val::Str(s) => parse_double(s).map_or(Val::Nil, Val::Double),
                value @ (Val::Double(_) | Val::Nil) => value,
                other => return Err(self.wrong("a string, a number or a boolean", other)),
            },
            Func::Text => self.arg(0, env)?.text(arena)?.map_or(Val::Nil, Val::Str),
            Func::Bool => match self.arg(0, env)? {
                Val::Int(i) => Val::Bool(i != 0),
                Val::Double(d) => Val::Bool(d != 0.0),
                Val::Str(b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True") => Val::Bool(true),
                Val::Str(b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False") => Val::Bool(false),
                Val::Str(_) => return Err(Fault::Other("Bool: the text is neither true nor false")),
                value @ (Val::Bool(_) | Val::Nil) => value,
                other => return Err(self.wrong("a string, a number or a boolean", other)),
            },
            Func::Lower => cased(self.text(0, env)?, false, arena),
            Func::Upper => cased(self.text(0, env)?, true, arena),
            Func::ConvertCase => cased(self.text(0, env)?, self.text(1, env)? == b"upper", arena),
            Func::Trim => Val::Str(trim(self.text(0, env)?, self.text_or(1, " ", env)?)),
            Func::TrimPrefix => {
                let text = self.text(0, env)?;
                Val::Str(text.strip_prefix(self.text(1, env)?).unwrap_or(text))
            }
            Func::TrimSuffix => {
                let text = self.text(0, env)?;
                Val::Str(text.strip_suffix(self.text(1, env)?).unwrap_or(text))
            }
            Func::Format => {
                let Extra::Format(pieces) = &self.extra else { return Ok(Val::Nil) };
                let list = match self.arg(1, env)? {
                    Val::Nil => &[],
                    Val::List(list) => list,
                    other => return Err(self.wrong("a list", other)),
                };
                Val::Str(format::render(pieces, list, arena)?)
            }
            Func::Digest(digest) => digest.of(self.text(0, env)?, arena),
            Func::Hex => match self.arg(0, env)? {
                Val::Str(b) | Val::Bytes(b) => Val::Str(hex(b, arena)),
                Val::Int(i) => Val::Str(hex(&i.to_be_bytes(), arena)),
                Val::Double(d) => Val::Str(hex(&d.to_bits().to_be_bytes(), arena)),
                Val::Bool(b) => Val::Str(hex(&[u8::from(b)], arena)),
                other => return Err(self.wrong("a string, bytes, a number or a boolean", other)),
            },
            Func::ParseJson => json::parse(self.text(0, env)?, arena)?,
            Func::ParseKeyValue => self.parse_key_value(env)?,
            Func::ExtractPatterns => {
                let Extra::Regex(regex) = &self.extra else { return Ok(Val::Nil) };
                extract(regex, self.text(0, env)?, arena)
            }
            Func::Coalesce => match self.args.first() {
                Some(Expr::List(values)) => {
                    for value in values {
                        let value = value.eval(env)?;
                        if value != Val::Nil {
                            return Ok(value);
                        }
                    }
                    Val::Nil
                }
                _ => {
                    for any in items(self.list(0, env)?) {
                        let value = Val::read(any?, arena)?;
                        if value != Val::Nil {
                            return Ok(value);
                        }
                    }
                    Val::Nil
                }
            },
            Func::ContainsValue => {
                let (list, wanted) = (self.list(0, env)?, self.arg(1, env)?);
                for any in items(list) {
                    if compare(CompareOp::Eq, Val::read(any?, arena)?, wanted, arena)? {
                        return Ok(Val::Bool(true));
                    }
                }
                Val::Bool(false)
            }
            Func::Keys | Func::Values => {
                let mut list = Buf::new_in(arena);
                for entry in entries(self.map(0, env)?, arena) {
                    let (key, any) = entry?;
                    match self.sig.func {
                        Func::Keys => put_item(&mut list, Val::Str(key), arena)?,
                        _ => put_bytes(&mut list, 0x0a, any),
                    }
                }
                Val::List(list.into_bump_slice())
            }
            Func::Index => self.index(env)?,
            Func::Literal => self.arg(0, env)?,
            Func::Unix(unit) => match self.arg(0, env)? {
                Val::Time(t) => Val::Int(t.div_euclid(unit)),
                other => return Err(self.wrong("a time", other)),
            },
            Func::HasAttrKey | Func::HasAttr => {
                let key = self.text(0, env)?;
                let value = match self.sig.func {
                    Func::HasAttr => Some(self.text(1, env)?),
                    _ => None,
                };
                Val::Bool(points(env.message, |kind, point| {
                    has_attribute(kind.attributes(), point, key, value, arena)
                })?)
            }
        })
    }

    fn concat<'v>(&'v self, env: &Env<'v, '_>) -> Result<Val<'v>, Fault> {
        let (arena, delimiter) = (env.arena, self.text(1, env)?);
        let mut out = Buf::new_in(arena);
        let mut first = true;
        let mut push = |value: Val<'v>| -> Result<(), Fault> {
            if !std::mem::take(&mut first) {
                out.extend_from_slice_copy(delimiter);
            }
            out.extend_from_slice_copy(value.text(arena)?.unwrap_or(b"<nil>"));
            Ok(())
        };
        match self.args.first() {
            // Written out: no list has to be made of it.
            Some(Expr::List(values)) => {
                for value in values {
                    push(value.eval(env)?)?;
                }
            }
            _ => {
                for any in items(self.list(0, env)?) {
                    push(Val::read(any?, arena)?)?;
                }
            }
        }
        Ok(Val::Str(out.into_bump_slice()))
    }

    fn index<'v>(&'v self, env: &Env<'v, '_>) -> Result<Val<'v>, Fault> {
        let (arena, wanted) = (env.arena, self.arg(1, env)?);
        match self.arg(0, env)? {
            Val::Str(text) => match wanted {
                Val::Str(part) => Ok(Val::Int(memchr::memmem::find(text, part).map_or(-1, |at| at as i64))),
                other => Err(self.wrong("a string to look for", other)),
            },
            Val::List(list) => {
                for (at, any) in items(list).enumerate() {
                    if compare(CompareOp::Eq, Val::read(any?, arena)?, wanted, arena)? {
                        return Ok(Val::Int(at as i64));
                    }
                }
                Ok(Val::Int(-1))
            }
            other => Err(self.wrong("a string or a list", other)),
        }
    }

    fn parse_key_value<'v>(&'v self, env: &Env<'v, '_>) -> Result<Val<'v>, Fault> {
        let (text, arena) = (self.text(0, env)?, env.arena);
        let (inner, outer) = (self.text_or(1, "=", env)?, self.text_or(2, " ", env)?);
        if text.is_empty() || inner.is_empty() || outer.is_empty() || inner == outer {
            return Err(Fault::Other("ParseKeyValue: needs a text and two different delimiters"));
        }
        let mut map = Buf::new_in(arena);
        for pair in pairs(text, outer) {
            let pair = pair.trim_ascii();
            if pair.is_empty() {
                continue;
            }
            let Some(at) = memchr::memmem::find(pair, inner) else {
                return Err(Fault::Other("ParseKeyValue: a pair has no delimiter"));
            };
            let key = unquoted(pair.get(..at).unwrap_or_default());
            let value = unquoted(pair.get(at + inner.len()..).unwrap_or_default());
            put_entry(&mut map, key, Val::Str(value).encode(arena)?);
        }
        Ok(Val::Map(map.into_bump_slice()))
    }
}

/// The pieces of a text between delimiters that are not in quotes.
fn pairs<'v>(text: &'v [u8], delimiter: &'v [u8]) -> impl Iterator<Item = &'v [u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let (mut at, mut quote) = (0, None);
        while let Some(&b) = text.get(at) {
            match quote {
                Some(q) if q == b => quote = None,
                Some(_) => {}
                None if b == b'"' || b == b'\'' => quote = Some(b),
                None if text.get(at..).is_some_and(|t| t.starts_with(delimiter)) => {
                    rest = text.get(at + delimiter.len()..);
                    return text.get(..at);
                }
                None => {}
            }
            at += 1;
        }
        rest = None;
        Some(text)
    })
}

/// A text without blanks and quotes around it.
fn unquoted(text: &[u8]) -> &[u8] {
    match text.trim_ascii() {
        [b'"', inner @ .., b'"'] | [b'\'', inner @ .., b'\''] => inner,
        text => text,
    }
}

fn split<'v>(text: &[u8], delimiter: &[u8], arena: &'v Bump) -> Val<'v> {
    let mut list = Buf::new_in(arena);
    let mut push = |piece: &[u8]| {
        let mut any = Buf::with_capacity_in(piece.len() + 6, arena);
        put_bytes(&mut any, 0x0a, piece);
        put_bytes(&mut list, 0x0a, &any);
    };
    if delimiter.is_empty() {
        // Between the characters.
        String::from_utf8_lossy(text).chars().for_each(|c| push(c.encode_utf8(&mut [0; 4]).as_bytes()));
    } else {
        let mut from = 0;
        for at in memchr::memmem::find_iter(text, delimiter) {
            push(text.get(from..at).unwrap_or_default());
            from = at + delimiter.len();
        }
        push(text.get(from..).unwrap_or_default());
    }
    Val::List(list.into_bump_slice())
}

fn cased<'v>(text: &'v [u8], upper: bool, arena: &'v Bump) -> Val<'v> {
    if text.is_ascii() {
        let out = arena.alloc_slice_copy(text);
        if upper {
            out.make_ascii_uppercase()
        } else {
            out.make_ascii_lowercase()
        }
        return Val::Str(out);
    }
    let text = String::from_utf8_lossy(text);
    let text = if upper { text.to_uppercase() } else { text.to_lowercase() };
    Val::Str(arena.alloc_slice_copy(text.as_bytes()))
}

/// Takes the characters of a set away at both ends.
fn trim<'v>(text: &'v [u8], set: &[u8]) -> &'v [u8] {
    if set.is_ascii() {
        let is = |b: &u8| set.contains(b);
        let from = text.iter().position(|b| !is(b)).unwrap_or(text.len());
        let to = text.iter().rposition(|b| !is(b)).map_or(from, |at| at + 1);
        return text.get(from..to).unwrap_or_default();
    }
    match (std::str::from_utf8(text), std::str::from_utf8(set)) {
        (Ok(text), Ok(set)) => text.trim_matches(|c| set.contains(c)).as_bytes(),
        _ => text,
    }
}

/// The named groups of a match; nothing where it does not match.
fn extract<'v>(regex: &Regex, text: &[u8], arena: &'v Bump) -> Val<'v> {
    let mut map = Buf::new_in(arena);
    if let Some(found) = regex.captures(text) {
        for (at, name) in regex.capture_names().enumerate() {
            let Some(name) = name else { continue };
            let group = found.get(at).map_or(&[][..], |m| m.as_bytes());
            let mut any = Buf::new_in(arena);
            put_bytes(&mut any, 0x0a, group);
            put_entry(&mut map, name.as_bytes(), &any);
        }
    }
    Val::Map(map.into_bump_slice())
}

/// Whether a point has an attribute, of that text if one is given.
fn has_attribute(
    number: u32,
    point: &[u8],
    key: &[u8],
    value: Option<&[u8]>,
    arena: &Bump,
) -> Result<bool, Fault> {
    let mut fields = crate::pdata::wire::Cursor::new(point);
    while let Some(field) = fields.next_field()? {
        if field.number != number {
            continue;
        }
        // A map of this one entry.
        let mut one = Buf::new_in(arena);
        put_bytes(&mut one, 0x0a, field.value.bytes()?);
        if let Some(any) = find(&one, key, arena)? {
            return Ok(match value {
                None => true,
                Some(value) => matches!(Val::read(any, arena)?, Val::Str(text) if text == value),
            });
        }
    }
    Ok(false)
}

fn parse<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A number; one too large to be told from infinity is none.
fn parse_double(text: &[u8]) -> Option<f64> {
    let d: f64 = parse(text)?;
    (d.is_finite() || !text.iter().any(u8::is_ascii_digit)).then_some(d)
}
