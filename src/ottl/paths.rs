//! Paths: what can be asked of a message and of the client, and how it is read. What they are called is in `table`.

mod table;

use bumpalo::Bump;

pub(super) use self::table::{ENUMS, PathInfo, enum_value, find, suggest, table};
use super::ast::Key;
use super::eval::Env;
use super::value::{Buf, Fault, Val, hex, items, put_bytes, put_entry, put_item, put_varint};
use crate::pdata::ClientInfo;
use crate::pdata::wire::{Cursor, Value, WireError};
use crate::processors::edit::{Kind, Message};

/// A path of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) field: Field,
    pub(super) keys: Box<[Key]>,
}

/// What a path without keys is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Attributes,
    /// A field of text.
    Text(u32),
    /// An enum.
    Enum(u32),
    /// A varint of 32 bits without a sign: counts.
    Unsigned(u32),
    Fixed32(u32),
    /// Eight bytes of nanoseconds, as an integer.
    Nanos(u32),
    /// The same as a time.
    Time(u32),
    /// An id of so many bytes.
    Id(u32, usize),
    /// The same in hexadecimal; empty if it is all zeros.
    IdText(u32, usize),
    TraceState,
    /// The kind of a span: `Server`, and `SPAN_KIND_SERVER`.
    KindText,
    KindOldText,
    StatusCode,
    StatusMessage,
    Body,
    BodyText,
    MetricType,
    Temporality,
    Monotonic,
    PointInt,
    PointDouble,
    PointFlags,
    Count,
    Sum,
    Scale,
    ZeroCount,
    BucketCounts,
    Bounds,
    /// Of the buckets in this field.
    BucketOffset(u32),
    BucketsCounts(u32),
}

/// What is asked of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ClientPath {
    Metadata(String, Option<usize>),
    /// An attribute that the authenticator gave.
    Auth(String),
    Address,
}

impl Field {
    /// Whether something can be looked up in it.
    pub(super) fn takes_keys(self) -> bool {
        use Field::{Attributes, Body, Bounds, BucketCounts, BucketsCounts, TraceState};
        matches!(self, Attributes | Body | TraceState | BucketCounts | Bounds | BucketsCounts(_))
    }
}

impl Path {
    /// Reads it from the message.
    #[inline]
    pub(super) fn read<'v>(&self, env: &Env<'v, '_>) -> Result<Val<'v>, Fault> {
        let (message, arena) = (env.message, env.arena);
        if let (Field::Attributes, [Key::Str(key), rest @ ..]) = (self.field, &*self.keys) {
            let Some(any) = message.attribute(key) else { return Ok(Val::Nil) };
            let value = Val::read(any, arena)?;
            return if rest.is_empty() { Ok(value) } else { value.index(rest, arena) };
        }
        let value = self.field.read(message, arena)?;
        if self.keys.is_empty() {
            return Ok(value);
        }
        match (self.field, &*self.keys, value) {
            (Field::TraceState, [Key::Str(key)], Val::Str(state)) => {
                Ok(trace_state(state, key).map_or(Val::Nil, Val::Str))
            }
            // A list that points of this type do not have.
            (field, _, Val::Nil) if field != Field::Body => Ok(Val::Nil),
            (_, keys, value) => value.index(keys, arena),
        }
    }
}

impl Field {
    fn read<'v>(self, message: &'v Message<'_>, arena: &'v Bump) -> Result<Val<'v>, Fault> {
        let number = |n| -> Result<u64, WireError> { message.field(n)?.map_or(Ok(0), Value::varint) };
        let fixed = |n| -> Result<u64, WireError> { message.field(n)?.map_or(Ok(0), Value::fixed64) };
        let bytes =
            |n| -> Result<&'v [u8], WireError> { message.field(n)?.map_or(Ok(&[][..]), Value::bytes) };
        let kind = message.kind();
        Ok(match self {
            Field::Attributes => Val::Map(attributes(message, arena)),
            Field::Text(n) => Val::Str(bytes(n)?),
            Field::Enum(n) => Val::Int(i64::from(number(n)? as i32)),
            Field::Unsigned(n) => Val::Int(i64::from(number(n)? as u32)),
            Field::Fixed32(n) => Val::Int(i64::from(message.field(n)?.map_or(Ok(0), Value::fixed32)?)),
            Field::Nanos(n) => Val::Int(fixed(n)? as i64),
            Field::Time(n) => Val::Time(fixed(n)? as i64),
            Field::Id(n, len) => Val::Bytes(id(bytes(n)?, len, arena)),
            Field::IdText(n, _) => {
                let id = bytes(n)?;
                Val::Str(if id.iter().all(|b| *b == 0) { b"" } else { hex(id, arena) })
            }
            Field::TraceState => Val::Str(bytes(3)?),
            Field::KindText => Val::Str(pick(&KINDS, number(6)?).1),
            Field::KindOldText => Val::Str(pick(&KINDS, number(6)?).0),
            Field::StatusCode => {
                let code = last(bytes(15)?, 3)?.map_or(Ok(0), Value::varint)?;
                Val::Int(i64::from(code as i32))
            }
            Field::StatusMessage => Val::Str(last(bytes(15)?, 2)?.map_or(Ok(&[][..]), Value::bytes)?),
            Field::Body => Val::read(bytes(5)?, arena)?,
            Field::BodyText => match Val::read(bytes(5)?, arena)? {
                Val::Str(s) => Val::Str(s),
                _ => {
                    let text = crate::processors::edit::value_text(bytes(5)?)?;
                    Val::Str(arena.alloc_slice_copy(text.as_bytes()))
                }
            },
            Field::MetricType => Val::Int(data(message)?.map_or(0, |(kind, _)| match kind {
                Kind::Gauge => 1,
                Kind::Sum => 2,
                Kind::Histogram => 3,
                Kind::Exponential => 4,
                _ => 5,
            })),
            Field::Temporality => match data(message)? {
                Some((Kind::Sum | Kind::Histogram | Kind::Exponential, data)) => {
                    Val::Int(i64::from(data.temporality as i32))
                }
                _ => Val::Nil,
            },
            Field::Monotonic => match data(message)? {
                Some((Kind::Sum, data)) => Val::Bool(data.monotonic),
                _ => Val::Nil,
            },
            Field::PointInt | Field::PointDouble => match kind {
                Kind::Gauge | Kind::Sum => match (self, point_value(message)?) {
                    (Field::PointInt, Some(Val::Int(i))) => Val::Int(i),
                    (Field::PointInt, _) => Val::Int(0),
                    (_, Some(Val::Double(d))) => Val::Double(d),
                    _ => Val::Double(0.0),
                },
                _ => Val::Nil,
            },
            Field::PointFlags => Val::Int(i64::from(number(point_flags(kind))? as u32)),
            Field::Count => match kind {
                Kind::Gauge | Kind::Sum => Val::Nil,
                _ => Val::Int(fixed(4)? as i64),
            },
            Field::Sum => match kind {
                Kind::Gauge | Kind::Sum => Val::Nil,
                _ => Val::Double(f64::from_bits(fixed(5)?)),
            },
            Field::Scale if kind == Kind::Exponential => Val::Int(zigzag(number(6)?)),
            Field::ZeroCount if kind == Kind::Exponential => Val::Int(fixed(7)? as i64),
            Field::BucketCounts if kind == Kind::Histogram => {
                numbers(message.original(), 6, arena, |bits| Val::Int(bits as i64))?
            }
            Field::Bounds if kind == Kind::Histogram => {
                numbers(message.original(), 7, arena, |bits| Val::Double(f64::from_bits(bits)))?
            }
            Field::BucketOffset(n) if kind == Kind::Exponential => {
                Val::Int(zigzag(last(bytes(n)?, 1)?.map_or(Ok(0), Value::varint)?))
            }
            Field::BucketsCounts(n) if kind == Kind::Exponential => counts(bytes(n)?, arena)?,
            Field::Scale
            | Field::ZeroCount
            | Field::BucketCounts
            | Field::Bounds
            | Field::BucketOffset(_)
            | Field::BucketsCounts(_) => Val::Nil,
        })
    }
}

impl ClientPath {
    /// Reads it, at the beginning of a batch.
    pub(super) fn read<'v>(&self, client: &'v ClientInfo, arena: &'v Bump) -> Val<'v> {
        match self {
            ClientPath::Metadata(key, index) => {
                let Some(values) = client.metadata(key).filter(|values| !values.is_empty()) else {
                    return Val::Nil;
                };
                match index {
                    Some(index) => values.get(*index).map_or(Val::Nil, |v| Val::Str(v.as_bytes())),
                    None => {
                        let mut list = Buf::new_in(arena);
                        for value in values {
                            let mut any = Buf::new_in(arena);
                            put_bytes(&mut any, 0x0a, value.as_bytes());
                            put_bytes(&mut list, 0x0a, &any);
                        }
                        Val::List(list.into_bump_slice())
                    }
                }
            }
            ClientPath::Auth(key) => {
                let found = client.auth.iter().find(|(k, _)| k == key);
                found.map_or(Val::Nil, |(_, value)| Val::Str(value.as_bytes()))
            }
            ClientPath::Address => match client.address {
                Some(address) => Val::Str(arena.alloc_str(&address.to_string()).as_bytes()),
                None => Val::Nil,
            },
        }
    }
}

/// The field of a point's flags.
pub(super) const fn point_flags(kind: Kind) -> u32 {
    match kind {
        Kind::Histogram | Kind::Exponential => 10,
        _ => 8,
    }
}

/// All attributes as a map.
fn attributes<'v>(message: &Message<'_>, arena: &'v Bump) -> &'v [u8] {
    let mut map = Buf::new_in(arena);
    for (_, key, value) in message.attributes() {
        put_entry(&mut map, key, value);
    }
    map.into_bump_slice()
}

/// What a number point holds: the last of the two fields that stands in it.
fn point_value<'v>(message: &Message<'_>) -> Result<Option<Val<'v>>, WireError> {
    // A step sets one of them and clears the other.
    let (double, int) = (message.field(4)?, message.field(6)?);
    Ok(match (double, int) {
        (Some(double), None) => Some(Val::Double(double.double()?)),
        (None, Some(int)) => Some(Val::Int(int.fixed64()? as i64)),
        (None, None) => None,
        (Some(double), Some(int)) => {
            let mut of_double = true;
            let mut fields = Cursor::new(message.original());
            while let Some(field) = fields.next_field()? {
                match field.number {
                    4 => of_double = true,
                    6 => of_double = false,
                    _ => {}
                }
            }
            Some(if of_double { Val::Double(double.double()?) } else { Val::Int(int.fixed64()? as i64) })
        }
    })
}

#[derive(Default)]
struct Data {
    temporality: u64,
    monotonic: bool,
}

/// The kind of data a metric has, and what is said of it apart from its points.
fn data(message: &Message<'_>) -> Result<Option<(Kind, Data)>, WireError> {
    let mut found: Option<(Kind, Data)> = None;
    let mut fields = Cursor::new(message.original());
    while let Some(field) = fields.next_field()? {
        let Some(kind) = Kind::of_points(field.number) else { continue };
        let mut data = match found.take() {
            Some((before, data)) if before == kind => data,
            _ => Data::default(),
        };
        let mut inner = Cursor::new(field.value.bytes()?);
        while let Some(field) = inner.next_field()? {
            match (field.number, kind) {
                (2, Kind::Sum | Kind::Histogram | Kind::Exponential) => {
                    data.temporality = field.value.varint()?
                }
                (3, Kind::Sum) => data.monotonic = field.value.varint()? != 0,
                _ => {}
            }
        }
        found = Some((kind, data));
    }
    Ok(found)
}

/// The data points of a metric, as they were before any step.
pub(super) fn points(
    message: &Message<'_>,
    mut f: impl FnMut(Kind, &[u8]) -> Result<bool, Fault>,
) -> Result<bool, Fault> {
    let Some((wanted, _)) = data(message)? else { return Ok(false) };
    let mut fields = Cursor::new(message.original());
    while let Some(field) = fields.next_field()? {
        if Kind::of_points(field.number) == Some(wanted) {
            for point in items(field.value.bytes()?) {
                if f(wanted, point?)? {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}

fn zigzag(n: u64) -> i64 {
    let n = n as u32;
    i64::from((n >> 1) as i32 ^ -((n & 1) as i32))
}

/// The last value of a field.
fn last(message: &[u8], number: u32) -> Result<Option<Value<'_>>, WireError> {
    let mut found = None;
    let mut fields = Cursor::new(message);
    while let Some(field) = fields.next_field()? {
        if field.number == number {
            found = Some(field.value);
        }
    }
    Ok(found)
}

/// A repeated field of eight bytes each, packed or not, as a list.
fn numbers<'v>(
    message: &[u8],
    number: u32,
    arena: &'v Bump,
    value: impl Fn(u64) -> Val<'static>,
) -> Result<Val<'v>, Fault> {
    let mut list = Buf::new_in(arena);
    let mut fields = Cursor::new(message);
    while let Some(field) = fields.next_field()? {
        match field.value {
            _ if field.number != number => {}
            Value::Fixed64(bits) => put_item(&mut list, value(bits), arena)?,
            Value::Bytes(packed) => {
                let (whole, rest) = packed.as_chunks::<8>();
                if !rest.is_empty() {
                    return Err(WireError::Truncated.into());
                }
                for bits in whole {
                    put_item(&mut list, value(u64::from_le_bytes(*bits)), arena)?;
                }
            }
            _ => return Err(WireError::WrongType.into()),
        }
    }
    Ok(Val::List(list.into_bump_slice()))
}

/// The counts of exponential buckets as a list.
fn counts<'v>(buckets: &[u8], arena: &'v Bump) -> Result<Val<'v>, Fault> {
    let mut list = Buf::new_in(arena);
    let mut fields = Cursor::new(buckets);
    while let Some(field) = fields.next_field()? {
        match field.value {
            _ if field.number != 2 => {}
            Value::Varint(n) => put_item(&mut list, Val::Int(n as i64), arena)?,
            Value::Bytes(mut packed) => {
                while !packed.is_empty() {
                    let (n, used) = crate::pdata::wire::read_varint(packed)?;
                    packed = packed.get(used..).unwrap_or_default();
                    put_item(&mut list, Val::Int(n as i64), arena)?;
                }
            }
            _ => return Err(WireError::WrongType.into()),
        }
    }
    Ok(Val::List(list.into_bump_slice()))
}

/// An id of its full length; one that is absent is all zeros.
fn id<'v>(bytes: &'v [u8], len: usize, arena: &'v Bump) -> &'v [u8] {
    if bytes.is_empty() { arena.alloc_slice_fill_copy(len, 0) } else { bytes }
}

/// A member of a W3C trace state.
fn trace_state<'v>(state: &'v [u8], key: &[u8]) -> Option<&'v [u8]> {
    state.split(|b| *b == b',').find_map(|member| {
        let member = member.trim_ascii();
        let at = member.iter().position(|b| *b == b'=')?;
        if member.get(..at)? == key { member.get(at + 1..) } else { None }
    })
}

const KINDS: [(&[u8], &[u8]); 6] = [
    (b"SPAN_KIND_UNSPECIFIED", b"Unspecified"),
    (b"SPAN_KIND_INTERNAL", b"Internal"),
    (b"SPAN_KIND_SERVER", b"Server"),
    (b"SPAN_KIND_CLIENT", b"Client"),
    (b"SPAN_KIND_PRODUCER", b"Producer"),
    (b"SPAN_KIND_CONSUMER", b"Consumer"),
];

fn pick(names: &'static [(&'static [u8], &'static [u8])], number: u64) -> (&'static [u8], &'static [u8]) {
    usize::try_from(number).ok().and_then(|n| names.get(n)).copied().unwrap_or_default()
}

/// Appends a status with another code or message.
pub(super) fn status<'v>(
    old: &[u8],
    code: Option<i64>,
    message: Option<&[u8]>,
    arena: &'v Bump,
) -> Result<&'v [u8], WireError> {
    let mut out = Buf::new_in(arena);
    let mut fields = Cursor::new(old);
    while let Some(field) = fields.next_field()? {
        let replaced = (field.number == 3 && code.is_some()) || (field.number == 2 && message.is_some());
        if !replaced {
            out.extend_from_slice_copy(old.get(field.start..field.end).unwrap_or_default());
        }
    }
    if let Some(message) = message.filter(|m| !m.is_empty()) {
        put_bytes(&mut out, 0x12, message);
    }
    if let Some(code) = code.filter(|code| *code != 0) {
        out.push(0x18);
        put_varint(&mut out, code as u64);
    }
    Ok(out.into_bump_slice())
}
