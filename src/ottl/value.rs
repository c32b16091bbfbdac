//! What expressions evaluate to: values that refer to the message, to what was captured, or to the arena.
//!
//! Lists and maps stay encoded (`ArrayValue`, `KeyValueList`). Reading looks at one level; comparing and rendering
//! recurse, at most [`MAX_DEPTH`] levels.

mod wire;

use std::cmp::Ordering;
use std::fmt;

use bumpalo::Bump;

use self::wire::join;
pub(super) use self::wire::{Buf, entries, find, hex, items, put_bytes, put_entry, put_item, put_varint};
use super::ast::{CompareOp, Key};
use crate::pdata::wire::{Cursor, Value, WireError};
use crate::processors::edit::value_text;

/// How deep values may nest where they are compared or made: deeper ones are refused by those who read them.
pub(super) const MAX_DEPTH: usize = crate::pdata::MAX_VALUE_DEPTH as usize;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Val<'a> {
    Nil,
    Bool(bool),
    Int(i64),
    Double(f64),
    Str(&'a [u8]),
    Bytes(&'a [u8]),
    /// An `ArrayValue`.
    List(&'a [u8]),
    /// A `KeyValueList`.
    Map(&'a [u8]),
    /// Nanoseconds since 1970.
    Time(i64),
    /// Nanoseconds.
    Duration(i64),
}

/// What is known of a value before there is one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Ty {
    Any,
    #[default]
    Nil,
    Bool,
    Int,
    Double,
    Str,
    Bytes,
    List,
    Map,
    Time,
    Duration,
}

/// A value with its own memory, which is reused.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept {
    ty: Ty,
    bits: u64,
    bytes: Vec<u8>,
    /// Why there is none.
    fault: Option<Fault>,
}

/// Why something could not be evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// The message's bytes are no protobuf.
    Wire(WireError),
    /// A value of the wrong type.
    Type { who: &'static str, want: &'static str, found: &'static str },
    /// Anything else.
    Other(&'static str),
}

impl<'a> Val<'a> {
    /// Reads an encoded `AnyValue`. Of several that are set the last counts; neighbouring lists or maps are one.
    pub(super) fn read(any: &'a [u8], arena: &'a Bump) -> Result<Self, WireError> {
        let mut found = Val::Nil;
        let mut fields = Cursor::new(any);
        while let Some(field) = fields.next_field()? {
            found = match (field.number, field.value) {
                (1, Value::Bytes(b)) => Val::Str(b),
                (2, Value::Varint(v)) => Val::Bool(v != 0),
                (3, Value::Varint(v)) => Val::Int(v as i64),
                (4, Value::Fixed64(bits)) => Val::Double(f64::from_bits(bits)),
                (5, Value::Bytes(b)) => match found {
                    Val::List(before) => Val::List(join(before, b, arena)),
                    _ => Val::List(b),
                },
                (6, Value::Bytes(b)) => match found {
                    Val::Map(before) => Val::Map(join(before, b, arena)),
                    _ => Val::Map(b),
                },
                (7, Value::Bytes(b)) => Val::Bytes(b),
                (1..=7, _) => return Err(WireError::WrongType),
                _ => continue,
            };
        }
        Ok(found)
    }

    pub(super) fn ty(&self) -> Ty {
        match self {
            Val::Nil => Ty::Nil,
            Val::Bool(_) => Ty::Bool,
            Val::Int(_) => Ty::Int,
            Val::Double(_) => Ty::Double,
            Val::Str(_) => Ty::Str,
            Val::Bytes(_) => Ty::Bytes,
            Val::List(_) => Ty::List,
            Val::Map(_) => Ty::Map,
            Val::Time(_) => Ty::Time,
            Val::Duration(_) => Ty::Duration,
        }
    }

    /// The same value in the arena.
    pub(super) fn copy(self, arena: &Bump) -> Val<'_> {
        match self {
            Val::Str(b) => Val::Str(arena.alloc_slice_copy(b)),
            Val::Bytes(b) => Val::Bytes(arena.alloc_slice_copy(b)),
            Val::List(b) => Val::List(arena.alloc_slice_copy(b)),
            Val::Map(b) => Val::Map(arena.alloc_slice_copy(b)),
            Val::Nil => Val::Nil,
            Val::Bool(b) => Val::Bool(b),
            Val::Int(i) => Val::Int(i),
            Val::Double(d) => Val::Double(d),
            Val::Time(t) => Val::Time(t),
            Val::Duration(d) => Val::Duration(d),
        }
    }

    /// Appends it as an `AnyValue`.
    pub(super) fn put(self, out: &mut Buf<'_>) -> Result<(), Fault> {
        match self {
            Val::Nil => {}
            Val::Str(b) => put_bytes(out, 0x0a, b),
            Val::Bool(b) => out.extend_from_slice_copy(&[0x10, u8::from(b)]),
            Val::Int(i) => {
                out.push(0x18);
                put_varint(out, i as u64);
            }
            Val::Double(d) => {
                out.push(0x21);
                out.extend_from_slice_copy(&d.to_bits().to_le_bytes());
            }
            Val::List(b) => put_bytes(out, 0x2a, b),
            Val::Map(b) => put_bytes(out, 0x32, b),
            Val::Bytes(b) => put_bytes(out, 0x3a, b),
            Val::Time(_) | Val::Duration(_) => {
                return Err(Fault::wrong("an attribute", "a value that can be stored", self));
            }
        }
        Ok(())
    }

    /// It as an `AnyValue`.
    pub(super) fn encode(self, arena: &Bump) -> Result<&[u8], Fault> {
        let mut out = Buf::new_in(arena);
        self.put(&mut out)?;
        Ok(out.into_bump_slice())
    }

    /// Its text: strings as they are, numbers and booleans as one writes them, bytes in hexadecimal, lists and maps as
    /// JSON; `None` for `nil`.
    pub(super) fn text(self, arena: &'a Bump) -> Result<Option<&'a [u8]>, Fault> {
        use std::io::Write as _;
        Ok(Some(match self {
            Val::Nil => return Ok(None),
            Val::Str(s) => s,
            Val::Bool(true) => b"true",
            Val::Bool(false) => b"false",
            Val::Int(i) => {
                let mut digits = [0u8; 20];
                let mut rest = digits.as_mut_slice();
                let room = rest.len();
                let len = match write!(rest, "{i}") {
                    Ok(()) => room - rest.len(),
                    Err(_) => 0,
                };
                arena.alloc_slice_copy(digits.get(..len).unwrap_or_default())
            }
            Val::Bytes(b) => hex(b, arena),
            Val::Double(_) | Val::List(_) | Val::Map(_) => {
                let text = value_text(self.encode(arena)?)?;
                arena.alloc_slice_copy(text.as_bytes())
            }
            Val::Time(_) | Val::Duration(_) => return Err(Fault::wrong("text", "no time", self)),
        }))
    }

    /// What stands at these keys in it.
    pub(super) fn index(self, keys: &[Key], arena: &'a Bump) -> Result<Val<'a>, Fault> {
        let mut value = self;
        for key in keys {
            value = match (key, value) {
                (Key::Str(key), Val::Map(map)) => match find(map, key, arena)? {
                    Some(any) => Val::read(any, arena)?,
                    // What is missing is nil, and so is everything below it.
                    None => return Ok(Val::Nil),
                },
                (Key::Index(index), Val::List(list)) => match items(list).nth(*index) {
                    Some(any) => Val::read(any?, arena)?,
                    None => return Err(Fault::Other("an index is past the end of the list")),
                },
                (Key::Str(_), _) => return Err(Fault::wrong("[\"key\"]", "a map", value)),
                (Key::Index(_), _) => return Err(Fault::wrong("an index", "a list", value)),
            };
        }
        Ok(value)
    }
}

impl Ty {
    pub(super) fn name(self) -> &'static str {
        match self {
            Ty::Any => "a value",
            Ty::Nil => "nil",
            Ty::Bool => "a boolean",
            Ty::Int => "an integer",
            Ty::Double => "a number",
            Ty::Str => "a string",
            Ty::Bytes => "bytes",
            Ty::List => "a list",
            Ty::Map => "a map",
            Ty::Time => "a time",
            Ty::Duration => "a duration",
        }
    }

    /// Whether a value of this type may be one of `wanted`.
    pub(super) fn may_be(self, wanted: &[Ty]) -> bool {
        matches!(self, Ty::Any | Ty::Nil) || wanted.contains(&Ty::Any) || wanted.contains(&self)
    }
}

impl Kept {
    /// Keeps a value.
    pub(super) fn set(&mut self, value: Val<'_>) {
        self.ty = value.ty();
        self.fault = None;
        self.bytes.clear();
        self.bits = 0;
        match value {
            Val::Nil => {}
            Val::Bool(b) => self.bits = u64::from(b),
            Val::Int(i) | Val::Time(i) | Val::Duration(i) => self.bits = i as u64,
            Val::Double(d) => self.bits = d.to_bits(),
            Val::Str(b) | Val::Bytes(b) | Val::List(b) | Val::Map(b) => self.bytes.extend_from_slice(b),
        }
    }

    /// Keeps that there is no value.
    pub(super) fn fail(&mut self, fault: Fault) {
        self.set(Val::Nil);
        self.fault = Some(fault);
    }

    /// What was kept, or why there is nothing.
    #[inline]
    pub(super) fn value(&self) -> Result<Val<'_>, Fault> {
        match &self.fault {
            None => Ok(self.get()),
            Some(fault) => Err(fault.clone()),
        }
    }

    pub(super) fn of(value: Val<'_>) -> Self {
        let mut kept = Kept::default();
        kept.set(value);
        kept
    }

    #[inline]
    pub(super) fn get(&self) -> Val<'_> {
        match self.ty {
            Ty::Nil | Ty::Any => Val::Nil,
            Ty::Bool => Val::Bool(self.bits != 0),
            Ty::Int => Val::Int(self.bits as i64),
            Ty::Double => Val::Double(f64::from_bits(self.bits)),
            Ty::Str => Val::Str(&self.bytes),
            Ty::Bytes => Val::Bytes(&self.bytes),
            Ty::List => Val::List(&self.bytes),
            Ty::Map => Val::Map(&self.bytes),
            Ty::Time => Val::Time(self.bits as i64),
            Ty::Duration => Val::Duration(self.bits as i64),
        }
    }
}

impl Fault {
    pub(super) fn wrong(who: &'static str, want: &'static str, found: Val<'_>) -> Self {
        Fault::Type { who, want, found: found.ty().name() }
    }
}

impl From<WireError> for Fault {
    fn from(error: WireError) -> Self {
        Fault::Wire(error)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Wire(error) => error.fmt(f),
            Fault::Type { who, want, found } => write!(f, "{who} needs {want}, found {found}"),
            Fault::Other(what) => f.write_str(what),
        }
    }
}

/// Whether a comparison holds.
#[inline]
pub(super) fn compare(op: CompareOp, left: Val<'_>, right: Val<'_>, arena: &Bump) -> Result<bool, WireError> {
    let order = match (left, right) {
        (Val::Str(a), Val::Str(b)) | (Val::Bytes(a), Val::Bytes(b)) => match op {
            CompareOp::Eq => return Ok(a == b),
            CompareOp::Ne => return Ok(a != b),
            _ => Some(a.cmp(b)),
        },
        (Val::Int(a), Val::Int(b)) | (Val::Time(a), Val::Time(b)) | (Val::Duration(a), Val::Duration(b)) => {
            Some(a.cmp(&b))
        }
        (Val::Double(a), Val::Double(b)) => a.partial_cmp(&b),
        (Val::Int(a), Val::Double(b)) => (a as f64).partial_cmp(&b),
        (Val::Double(a), Val::Int(b)) => a.partial_cmp(&(b as f64)),
        (Val::Bool(a), Val::Bool(b)) => Some(a.cmp(&b)),
        _ => {
            let equal = match op {
                CompareOp::Eq | CompareOp::Ne => equal(left, right, arena, 0)?,
                _ => return Ok(false),
            };
            return Ok(equal == (op == CompareOp::Eq));
        }
    };
    Ok(match op {
        CompareOp::Eq => order == Some(Ordering::Equal),
        CompareOp::Ne => order != Some(Ordering::Equal),
        CompareOp::Lt => order == Some(Ordering::Less),
        CompareOp::Le => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        CompareOp::Gt => order == Some(Ordering::Greater),
        CompareOp::Ge => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    })
}

/// Whether two values are the same: lists element by element, maps whatever their order.
fn equal(left: Val<'_>, right: Val<'_>, arena: &Bump, depth: usize) -> Result<bool, WireError> {
    if depth > MAX_DEPTH {
        return Err(WireError::TooDeep);
    }
    match (left, right) {
        (Val::List(a), Val::List(b)) => {
            let (mut a, mut b) = (items(a), items(b));
            loop {
                match (a.next(), b.next()) {
                    (None, None) => return Ok(true),
                    (Some(a), Some(b)) => {
                        if !equal_any(a?, b?, arena, depth)? {
                            return Ok(false);
                        }
                    }
                    _ => return Ok(false),
                }
            }
        }
        (Val::Map(a), Val::Map(b)) => {
            if entries(a, arena).count() != entries(b, arena).count() {
                return Ok(false);
            }
            for entry in entries(a, arena) {
                let (key, value) = entry?;
                match find(b, key, arena)? {
                    Some(other) if equal_any(value, other, arena, depth)? => {}
                    _ => return Ok(false),
                }
            }
            Ok(true)
        }
        _ => Ok(left == right),
    }
}

/// Whether an encoded value that is to be stored nests no deeper than others read.
pub(super) fn check_depth(any: &[u8], arena: &Bump, depth: usize) -> Result<(), Fault> {
    if depth >= MAX_DEPTH {
        return Err(Fault::Other("the value would nest too deeply"));
    }
    match Val::read(any, arena)? {
        Val::List(list) => items(list).try_for_each(|any| check_depth(any?, arena, depth + 1)),
        Val::Map(map) => entries(map, arena).try_for_each(|entry| check_depth(entry?.1, arena, depth + 1)),
        _ => Ok(()),
    }
}

/// Whether an offset is within a character's bytes, of which all but the first begin with the bits 10.
pub(super) fn cuts_character(text: &[u8], at: usize) -> bool {
    text.get(at).is_some_and(|b| b & 0xc0 == 0x80)
}

fn equal_any(left: &[u8], right: &[u8], arena: &Bump, depth: usize) -> Result<bool, WireError> {
    equal(Val::read(left, arena)?, Val::read(right, arena)?, arena, depth + 1)
}
