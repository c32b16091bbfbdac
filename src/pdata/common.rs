//! Views shared by all signals: the way from a request to its items, attributes and values.
//!
//! A view is a byte slice with a name, or the scalars of a message read in one pass; iterators go forward
//! over fields in any order and decode what they yield. Singular messages that come in several occurrences
//! are read as if merged, as the wire format has it; of a oneof the last member wins. One thing is simpler
//! than prost: when a key-value holds two `value` messages, the later one replaces the earlier whole, where
//! two lists would be joined. Strings are bytes: they may be no UTF-8.
//!
//! Iterators yield `Result` and end after the first error. Nothing is allocated, and nothing is read twice
//! but what a caller asks for twice. Values nest; whoever descends bounds the depth
//! ([`MAX_VALUE_DEPTH`](super::MAX_VALUE_DEPTH)).

#[cfg(test)]
mod tests;

use super::fields::{any_value, key_value, list, request, resource, resource_group, scope, scope_group};
use super::wire::{Cursor, Value, WireError};

/// The occurrences of one field, in one message or in all occurrences of a message inside another.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    outer: Cursor<'a>,
    outer_number: u32,
    inner: Cursor<'a>,
    number: u32,
}

/// As [`Fields`], for fields that are messages or strings.
#[derive(Debug, Clone, Copy)]
pub struct Messages<'a>(Fields<'a>);

/// The numbers of a repeated field, packed or not: fixed64 and double (as bits) or varints.
#[derive(Debug, Clone, Copy)]
pub struct Scalars<'a> {
    fields: Fields<'a>,
    packed: &'a [u8],
    fixed: bool,
}

/// Attributes: keys and values in order; a key may come twice.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a>(Messages<'a>);

/// One Resource* message: a resource and the scopes under it.
#[derive(Debug, Clone, Copy)]
pub struct ResourceGroup<'a>(&'a [u8]);

/// One Scope* message: an instrumentation scope and the items under it.
#[derive(Debug, Clone, Copy)]
pub struct ScopeGroup<'a>(&'a [u8]);

/// An attribute value or a log body.
#[derive(Debug, Clone, Copy)]
pub enum AnyValue<'a> {
    /// Nothing is set; legal. References into a string table, which only profiles have, read as this too.
    Empty,
    /// A string, UTF-8 or not.
    Str(&'a [u8]),
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A floating-point number.
    Double(f64),
    /// A list.
    Array(Array<'a>),
    /// A map.
    KvList(KvList<'a>),
    /// Bytes.
    Bytes(&'a [u8]),
}

/// A list of values.
#[derive(Debug, Clone, Copy)]
pub struct Array<'a>(Messages<'a>);

/// A map of values.
#[derive(Debug, Clone, Copy)]
pub struct KvList<'a>(Messages<'a>);

/// The Resource* messages of a request, in order.
///
/// # Errors
/// Yields why the request cannot be read on, and then ends.
pub fn groups(request: &[u8]) -> impl Iterator<Item = Result<ResourceGroup<'_>, WireError>> + Clone {
    Messages::of(request, request::GROUPS).map(|m| m.map(ResourceGroup))
}

impl<'a> Fields<'a> {
    /// The occurrences of field `number` in `message`.
    #[inline]
    pub fn of(message: &'a [u8], number: u32) -> Self {
        Fields { outer: Cursor::new(&[]), outer_number: 0, inner: Cursor::new(message), number }
    }

    /// The occurrences of field `number` in every occurrence of field `outer` of `message`.
    #[inline]
    pub fn within(message: &'a [u8], outer: u32, number: u32) -> Self {
        Fields { outer: Cursor::new(message), outer_number: outer, inner: Cursor::new(&[]), number }
    }

    #[inline]
    fn step(&mut self) -> Result<Option<Value<'a>>, WireError> {
        loop {
            while let Some(field) = self.inner.next_field()? {
                if field.number == self.number {
                    return Ok(Some(field.value));
                }
            }
            match self.outer.next_field()? {
                None => return Ok(None),
                Some(field) if field.number == self.outer_number => {
                    self.inner = Cursor::new(field.value.bytes()?);
                }
                Some(_) => {}
            }
        }
    }

    fn end(&mut self) {
        self.outer = Cursor::new(&[]);
        self.inner = Cursor::new(&[]);
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Value<'a>, WireError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let next = self.step();
        if next.is_err() {
            self.end();
        }
        next.transpose()
    }
}

impl<'a> Messages<'a> {
    /// As [`Fields::of`].
    #[inline]
    pub fn of(message: &'a [u8], number: u32) -> Self {
        Messages(Fields::of(message, number))
    }

    /// As [`Fields::within`].
    #[inline]
    pub fn within(message: &'a [u8], outer: u32, number: u32) -> Self {
        Messages(Fields::within(message, outer, number))
    }

    /// The last occurrence, or nothing: how a singular string reads.
    ///
    /// # Errors
    /// Why the message cannot be read to its end.
    pub fn last_or_empty(self) -> Result<&'a [u8], WireError> {
        let mut last: &[u8] = &[];
        for bytes in self {
            last = bytes?;
        }
        Ok(last)
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<&'a [u8], WireError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let next = self.0.next()?.and_then(Value::bytes);
        if next.is_err() {
            self.0.end();
        }
        Some(next)
    }
}

impl<'a> Scalars<'a> {
    /// Numbers of eight bytes.
    pub fn fixed64(fields: Fields<'a>) -> Self {
        Scalars { fields, packed: &[], fixed: true }
    }

    /// Varints.
    pub fn varint(fields: Fields<'a>) -> Self {
        Scalars { fields, packed: &[], fixed: false }
    }

    #[inline]
    fn step(&mut self) -> Result<Option<u64>, WireError> {
        while self.packed.is_empty() {
            match self.fields.next().transpose()? {
                None => return Ok(None),
                Some(Value::Bytes(packed)) => self.packed = packed,
                Some(one) => return if self.fixed { one.fixed64() } else { one.varint() }.map(Some),
            }
        }
        if self.fixed {
            let (head, rest) = self.packed.split_first_chunk::<8>().ok_or(WireError::Truncated)?;
            self.packed = rest;
            Ok(Some(u64::from_le_bytes(*head)))
        } else {
            let (value, used) = super::wire::read_varint(self.packed)?;
            self.packed = self.packed.get(used..).unwrap_or_default();
            Ok(Some(value))
        }
    }
}

impl Iterator for Scalars<'_> {
    type Item = Result<u64, WireError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let next = self.step();
        if next.is_err() {
            self.packed = &[];
            self.fields.end();
        }
        next.transpose()
    }
}

impl<'a> Attributes<'a> {
    /// The attributes that stand in field `number` of `message`.
    #[inline]
    pub fn of(message: &'a [u8], number: u32) -> Self {
        Attributes(Messages::of(message, number))
    }

    /// The encoded KeyValue messages.
    #[inline]
    pub fn messages(self) -> Messages<'a> {
        self.0
    }

    /// The value of a key, the first if it comes twice.
    ///
    /// # Errors
    /// Why the attributes cannot be read as far as that.
    pub fn get(self, key: &[u8]) -> Result<Option<AnyValue<'a>>, WireError> {
        for pair in self {
            let (k, value) = pair?;
            if k == key {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<(&'a [u8], AnyValue<'a>), WireError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let next = self.0.next()?.and_then(pair);
        if next.is_err() {
            self.0.0.end();
        }
        Some(next)
    }
}

impl<'a> ResourceGroup<'a> {
    /// An encoded Resource* message.
    pub fn of(message: &'a [u8]) -> Self {
        ResourceGroup(message)
    }

    /// The encoded message.
    pub fn message(self) -> &'a [u8] {
        self.0
    }

    /// The resource's attributes.
    pub fn attributes(self) -> Attributes<'a> {
        Attributes(Messages::within(self.0, resource_group::RESOURCE, resource::ATTRIBUTES))
    }

    /// The encoded Resource: at most one, unless a producer sent several to be merged.
    pub fn resources(self) -> Messages<'a> {
        Messages::of(self.0, resource_group::RESOURCE)
    }

    /// The schema of the resource.
    ///
    /// # Errors
    /// Why the message cannot be read to its end.
    pub fn schema_url(self) -> Result<&'a [u8], WireError> {
        Messages::of(self.0, resource_group::SCHEMA_URL).last_or_empty()
    }

    /// The Scope* messages, in order.
    pub fn scopes(self) -> impl Iterator<Item = Result<ScopeGroup<'a>, WireError>> + Clone {
        Messages::of(self.0, resource_group::SCOPES).map(|m| m.map(ScopeGroup))
    }
}

impl<'a> ScopeGroup<'a> {
    /// An encoded Scope* message.
    pub fn of(message: &'a [u8]) -> Self {
        ScopeGroup(message)
    }

    /// The encoded message.
    pub fn message(self) -> &'a [u8] {
        self.0
    }

    /// The scope's name.
    ///
    /// # Errors
    /// Why the message cannot be read to its end.
    pub fn name(self) -> Result<&'a [u8], WireError> {
        Messages::within(self.0, scope_group::SCOPE, scope::NAME).last_or_empty()
    }

    /// The scope's version.
    ///
    /// # Errors
    /// Why the message cannot be read to its end.
    pub fn version(self) -> Result<&'a [u8], WireError> {
        Messages::within(self.0, scope_group::SCOPE, scope::VERSION).last_or_empty()
    }

    /// The scope's attributes.
    pub fn attributes(self) -> Attributes<'a> {
        Attributes(Messages::within(self.0, scope_group::SCOPE, scope::ATTRIBUTES))
    }

    /// The encoded InstrumentationScope: at most one, unless a producer sent several to be merged.
    pub fn scopes(self) -> Messages<'a> {
        Messages::of(self.0, scope_group::SCOPE)
    }

    /// The schema of the scope and its items.
    ///
    /// # Errors
    /// Why the message cannot be read to its end.
    pub fn schema_url(self) -> Result<&'a [u8], WireError> {
        Messages::of(self.0, scope_group::SCHEMA_URL).last_or_empty()
    }

    /// The encoded spans, metrics or log records, in order.
    pub fn items(self) -> Messages<'a> {
        Messages::of(self.0, scope_group::ITEMS)
    }
}

impl<'a> AnyValue<'a> {
    /// Reads an encoded AnyValue.
    ///
    /// # Errors
    /// What is wrong with it, on this level: the insides of lists and maps are read when they are iterated.
    #[inline]
    pub fn parse(message: &'a [u8]) -> Result<Self, WireError> {
        let mut value = AnyValue::Empty;
        let mut cursor = Cursor::new(message);
        while let Some(field) = cursor.next_field()? {
            value = match field.number {
                any_value::STRING => AnyValue::Str(field.value.bytes()?),
                any_value::BOOL => AnyValue::Bool(field.value.varint()? != 0),
                any_value::INT => AnyValue::Int(field.value.varint()? as i64),
                any_value::DOUBLE => AnyValue::Double(field.value.double()?),
                any_value::BYTES => AnyValue::Bytes(field.value.bytes()?),
                number @ (any_value::ARRAY | any_value::KVLIST) => {
                    field.value.bytes()?;
                    // Repetitions of one kind are one list; the view begins at the first of them.
                    match (number, value) {
                        (any_value::ARRAY, AnyValue::Array(_)) | (any_value::KVLIST, AnyValue::KvList(_)) => {
                            value
                        }
                        _ => {
                            let live = message.get(field.start..).unwrap_or_default();
                            let items = Messages::within(live, number, list::VALUES);
                            if number == any_value::ARRAY {
                                AnyValue::Array(Array(items))
                            } else {
                                AnyValue::KvList(KvList(items))
                            }
                        }
                    }
                }
                any_value::STRING_STRINDEX => {
                    field.value.varint()?;
                    AnyValue::Empty
                }
                _ => value,
            };
        }
        Ok(value)
    }
}

impl<'a> Array<'a> {
    /// The values, in order.
    pub fn values(self) -> impl Iterator<Item = Result<AnyValue<'a>, WireError>> + Clone {
        self.0.map(|m| m.and_then(AnyValue::parse))
    }
}

impl<'a> KvList<'a> {
    /// The keys and values, in order; a key may come twice.
    pub fn pairs(self) -> Attributes<'a> {
        Attributes(self.0)
    }
}

/// Reads an encoded KeyValue.
///
/// # Errors
/// What is wrong with it, lists and maps aside.
#[inline]
pub fn pair(message: &[u8]) -> Result<(&[u8], AnyValue<'_>), WireError> {
    let mut key: &[u8] = &[];
    let mut value = AnyValue::Empty;
    let mut cursor = Cursor::new(message);
    while let Some(field) = cursor.next_field()? {
        match field.number {
            key_value::KEY => key = field.value.bytes()?,
            key_value::VALUE => match AnyValue::parse(field.value.bytes()?)? {
                AnyValue::Empty => {}
                set => value = set,
            },
            key_value::KEY_STRINDEX => {
                field.value.varint()?;
            }
            _ => {}
        }
    }
    Ok((key, value))
}
