//! The actions of the `resource` and `attributes` processors: as written, checked, compiled and applied.

use std::net::SocketAddr;

use bytes::Bytes;
use regex::bytes::{CaptureLocations, Regex};

use super::attrs::{Attrs, Pair, Pool};
use super::value::{Scalar, Target, put_any, put_converted, put_hash, put_str};
use crate::config::types::Any;
use crate::config::{Cx, Node};
use crate::pdata::Batch;
use crate::pdata::wire::WireError;
use crate::{config, config_enum};

config_enum! {
    /// What an action does with its attribute.
    pub enum ActionKind ignore_case {
        /// Sets the attribute if it is absent.
        Insert = "insert",
        /// Sets the attribute if it is present.
        Update = "update",
        /// Sets the attribute always.
        Upsert = "upsert",
        /// Removes every attribute of the key, and every one whose key matches `pattern`.
        Delete = "delete",
        /// Replaces the value of every attribute of the key, and of every one whose key matches `pattern`, by
        /// the SHA-256 of its bytes in lower-case hex.
        Hash = "hash",
        /// Matches `pattern` against the attribute's text; each named group becomes an attribute.
        Extract = "extract",
        /// Changes the value's type to `converted_type`.
        Convert = "convert",
    }
}

#[allow(clippy::derivable_impls, reason = "the macro derives no default")]
impl Default for ActionKind {
    fn default() -> Self {
        ActionKind::Upsert
    }
}

config_enum! {
    /// The type an attribute is converted to.
    pub enum ConvertedType {
        /// A 64-bit integer.
        Int = "int",
        /// A 64-bit floating point number.
        Double = "double",
        /// Text.
        Str = "string",
    }
}

#[allow(clippy::derivable_impls, reason = "the macro derives no default")]
impl Default for ConvertedType {
    fn default() -> Self {
        ConvertedType::Str
    }
}

config! {
    /// One change of an attribute. Actions run in the order written, each on what the one before has left.
    pub struct Action {
        /// The attribute. Required, except for `delete` and `hash` with a `pattern`.
        pub key: String = String::new(),
        /// What to do: `insert`, `update`, `upsert`, `delete`, `hash`, `extract` or `convert`, in any case.
        pub action: Option<ActionKind> = None,
        /// For `insert`, `update` and `upsert`: the value itself. Its type is kept: `1` is an integer, `"1"` a
        /// string, `[a, b]` a list, `{a: 1}` a map.
        pub value: Any = Any::Null,
        /// For `insert`, `update` and `upsert`: the attribute whose value is copied. Nothing happens where it is
        /// absent.
        pub from_attribute: String = String::new(),
        /// For `insert`, `update` and `upsert`: what is known of the client: `metadata.<key>` for a header of its
        /// request (the receiver needs `include_metadata: true`), `auth.<attribute>` for what the authenticator
        /// said, `client.address` for its IP address. Several values are joined with `;`. Nothing happens where
        /// it is absent.
        pub from_context: String = String::new(),
        /// For `delete` and `hash`: a regular expression for keys, matching anywhere in the key. For `extract`: a
        /// regular expression for the value, all of whose groups have names.
        pub pattern: String = String::new(),
        /// For `convert`: `int`, `double` or `string`. A value that cannot be converted stays as it is.
        pub converted_type: Option<ConvertedType> = None,
    }
    validate = Action::check;
}

/// A compiled action.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Put { when: When, key: Box<[u8]>, source: Source },
    Delete(Select),
    Hash(Select),
    Extract(Extract),
    Convert { key: Box<[u8]>, target: Target },
}

/// When a value is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Absent,
    Present,
    Always,
}

/// Where a value comes from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// A finished `AnyValue`, and where the attribute stands in the pool once the program is made.
    Value(Box<[u8]>, Option<Pair>),
    Attribute(Box<[u8]>),
    /// The value in the batch's context at this index; see [`Slots`].
    Context(ContextKey, usize),
}

/// What is asked of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ContextKey {
    Metadata(String),
    Auth(String),
    Address,
    Tenant,
}

/// Which attributes are meant: those of a key, those whose key matches, or both.
#[derive(Debug, Clone)]
pub(crate) struct Select {
    key: Option<Box<[u8]>>,
    pattern: Option<Regex>,
}

/// An `extract` action.
#[derive(Debug, Clone)]
pub(crate) struct Extract {
    key: Box<[u8]>,
    pattern: Regex,
    /// The names of the groups 1, 2, …
    names: Vec<Box<[u8]>>,
    /// The index of its match buffer; see [`Slots`].
    slot: usize,
}

/// What the actions of a program need once a batch or once a thread, numbered when the program is made.
#[derive(Debug, Clone, Default)]
pub(super) struct Slots {
    context: Vec<ContextKey>,
    captures: Vec<Regex>,
    pool: Pool,
}

/// The slots' contents for one batch.
#[derive(Debug, Default)]
pub(super) struct Batchwise {
    /// Finished `AnyValue`s; `None` where the client has no such thing.
    context: Vec<Option<Vec<u8>>>,
    captures: Vec<CaptureLocations>,
}

impl Action {
    fn kind(&self) -> ActionKind {
        self.action.unwrap_or_default()
    }

    fn check(&self, node: &Node, cx: &mut Cx) {
        let Some(action) = self.action else {
            if node.get("action").is_none_or(Node::is_null) {
                cx.error_hint(
                    node.pos,
                    "missing required field \"action\"",
                    "write one of insert, update, upsert, delete, hash, extract, convert",
                );
            }
            return;
        };
        let word = action.word();
        let select = matches!(action, ActionKind::Delete | ActionKind::Hash);
        if self.key.is_empty() && (!select || self.pattern.is_empty()) {
            let hint = if select { "give a key, a pattern, or both" } else { "name the attribute" };
            cx.error_hint(node.pos, format!("missing required field \"key\" of the action \"{word}\""), hint);
        }
        let sets = matches!(action, ActionKind::Insert | ActionKind::Update | ActionKind::Upsert);
        self.check_sources(sets, word, node, cx);
        let takes_pattern = select || action == ActionKind::Extract;
        match (self.pattern.is_empty(), takes_pattern) {
            (true, true) if action == ActionKind::Extract => {
                cx.error(node.pos, "missing required field \"pattern\" of the action \"extract\"");
            }
            (false, false) => {
                cx.error(node.pos_of("pattern"), format!("the action \"{word}\" takes no pattern"));
            }
            (false, true) => self.check_pattern(action, node, cx),
            _ => {}
        }
        let converts = action == ActionKind::Convert;
        match self.converted_type {
            None if converts && node.get("converted_type").is_none_or(Node::is_null) => cx.error_hint(
                node.pos,
                "missing required field \"converted_type\" of the action \"convert\"",
                "write int, double or string",
            ),
            Some(_) if !converts => {
                cx.error(
                    node.pos_of("converted_type"),
                    format!("the action \"{word}\" takes no converted_type"),
                );
            }
            _ => {}
        }
    }

    fn check_sources(&self, sets: bool, word: &str, node: &Node, cx: &mut Cx) {
        let given: Vec<&str> = [
            ("value", self.value != Any::Null),
            ("from_attribute", !self.from_attribute.is_empty()),
            ("from_context", !self.from_context.is_empty()),
        ]
        .into_iter()
        .filter_map(|(key, given)| given.then_some(key))
        .collect();
        match (sets, given.as_slice()) {
            (true, [_]) | (false, []) => {}
            (true, []) => {
                // A value that could not be decoded has been reported where it stands.
                if node.get("value").is_none_or(Node::is_null) {
                    cx.error_hint(
                        node.pos,
                        format!("the action \"{word}\" needs a value"),
                        "give one of value, from_attribute, from_context",
                    );
                }
            }
            (true, [_, second, ..]) => cx.error_hint(
                node.pos_of(second),
                format!("the action \"{word}\" has more than one source of its value: {}", given.join(", ")),
                "keep one of them",
            ),
            (false, [first, ..]) => {
                cx.error(node.pos_of(first), format!("the action \"{word}\" takes no {first}"));
            }
        }
    }

    fn check_pattern(&self, action: ActionKind, node: &Node, cx: &mut Cx) {
        let pos = node.pos_of("pattern");
        match Regex::new(&self.pattern) {
            Err(why) => cx.error(pos, regex_error(&why)),
            Ok(regex) if action == ActionKind::Extract => {
                let mut names = regex.capture_names().skip(1).peekable();
                if names.peek().is_none() {
                    cx.error_hint(pos, "the pattern has no named group", "write groups as (?P<name>…)");
                } else if names.any(|name| name.is_none()) {
                    cx.error_hint(
                        pos,
                        "the pattern has a group without a name",
                        "write groups as (?P<name>…), or (?:…) where nothing is to be extracted",
                    );
                }
            }
            Ok(_) => {}
        }
    }

    /// Compiles a checked action.
    ///
    /// # Errors
    /// What `check` reports with positions, for configs that were not decoded from a file.
    pub(crate) fn compile(&self) -> Result<Op, String> {
        let mut cx = Cx::default();
        self.check(&Node::new(Default::default(), crate::config::Value::Null), &mut cx);
        if let Some(first) = cx.diags.into_iter().next() {
            return Err(first.message);
        }
        let key: Box<[u8]> = self.key.as_bytes().into();
        let regex = || Regex::new(&self.pattern).map_err(|why| regex_error(&why));
        let select = || {
            Ok::<_, String>(Select {
                key: (!key.is_empty()).then(|| key.clone()),
                pattern: if self.pattern.is_empty() { None } else { Some(regex()?) },
            })
        };
        let put = |when| Op::Put { when, key: key.clone(), source: self.source() };
        Ok(match self.kind() {
            ActionKind::Insert => put(When::Absent),
            ActionKind::Update => put(When::Present),
            ActionKind::Upsert => put(When::Always),
            ActionKind::Delete => Op::Delete(select()?),
            ActionKind::Hash => Op::Hash(select()?),
            ActionKind::Extract => {
                let pattern = regex()?;
                let names = pattern
                    .capture_names()
                    .skip(1)
                    .map(|n| n.unwrap_or_default().as_bytes().into())
                    .collect();
                Op::Extract(Extract { key, pattern, names, slot: 0 })
            }
            ActionKind::Convert => Op::Convert {
                key,
                target: match self.converted_type.unwrap_or_default() {
                    ConvertedType::Int => Target::Int,
                    ConvertedType::Double => Target::Double,
                    ConvertedType::Str => Target::Str,
                },
            },
        })
    }

    fn source(&self) -> Source {
        if !self.from_attribute.is_empty() {
            return Source::Attribute(self.from_attribute.as_bytes().into());
        }
        let context = self.from_context.as_str();
        if !context.is_empty() {
            let key = if let Some(key) = context.strip_prefix("metadata.") {
                ContextKey::Metadata(key.to_owned())
            } else if let Some(key) = context.strip_prefix("auth.") {
                ContextKey::Auth(key.to_owned())
            } else if context == "client.address" {
                ContextKey::Address
            } else {
                // The Collector takes a bare name for a metadata key.
                ContextKey::Metadata(context.to_owned())
            };
            return Source::Context(key, 0);
        }
        let mut value = Vec::new();
        put_any(&mut value, &self.value);
        Source::Value(value.into(), None)
    }
}

impl Op {
    /// Sets an attribute to the batch's tenant, if it has one.
    pub(crate) fn tenant(key: &str) -> Self {
        let source = Source::Context(ContextKey::Tenant, 0);
        Op::Put { when: When::Always, key: key.as_bytes().into(), source }
    }
}

impl ContextKey {
    fn resolve(&self, batch: &Batch) -> Option<Vec<u8>> {
        let client = &batch.client;
        let text = match self {
            ContextKey::Tenant => batch.tenant.as_ref()?.name().to_owned(),
            ContextKey::Metadata(key) => client.metadata(key).filter(|v| !v.is_empty())?.join(";"),
            ContextKey::Auth(key) => {
                let of_key = client.auth.iter().filter(|(k, _)| k == key);
                let values: Vec<&str> = of_key.map(|(_, v)| v.as_str()).collect();
                (!values.is_empty()).then(|| values.join(";"))?
            }
            ContextKey::Address => client.address.as_ref().map(SocketAddr::ip)?.to_string(),
        };
        let mut value = Vec::with_capacity(text.len() + 6);
        put_str(&mut value, text.as_bytes());
        Some(value)
    }
}

impl Slots {
    /// Numbers what `op` needs.
    pub(super) fn assign(&mut self, op: &mut Op) {
        match op {
            Op::Put { source: Source::Context(key, slot), .. } => {
                *slot = self.context.iter().position(|k| k == key).unwrap_or(self.context.len());
                if *slot == self.context.len() {
                    self.context.push(key.clone());
                }
            }
            Op::Put { key, source: Source::Value(value, pair), .. } => {
                *pair = Some(self.pool.add(key, value))
            }
            Op::Extract(extract) => {
                extract.slot = self.captures.len();
                self.captures.push(extract.pattern.clone());
            }
            _ => {}
        }
    }

    /// The finished attributes, when all ops have been numbered.
    pub(super) fn take_pool(&mut self) -> Bytes {
        std::mem::take(&mut self.pool).into_bytes()
    }

    /// Fills the slots for a batch.
    pub(super) fn fill(&self, batch: &Batch) -> Batchwise {
        Batchwise {
            context: self.context.iter().map(|key| key.resolve(batch)).collect(),
            captures: self.captures.iter().map(Regex::capture_locations).collect(),
        }
    }
}

impl Op {
    /// Applies the action to the attributes of the message `src`.
    #[inline]
    pub(super) fn apply(
        &self,
        src: &[u8],
        attrs: &mut Attrs,
        batch: &mut Batchwise,
    ) -> Result<(), WireError> {
        match self {
            Op::Put { when, key, source } => {
                let at = attrs.find(src, key);
                match (when, at) {
                    (When::Absent, Some(_)) | (When::Present, None) => return Ok(()),
                    _ => {}
                }
                let value = match source {
                    Source::Value(_, Some(pair)) => {
                        match at {
                            Some(at) => attrs.set(src, at, pair.value()),
                            None => attrs.push_pair(key, pair),
                        }
                        return Ok(());
                    }
                    Source::Value(value, None) => attrs.store(value)?,
                    Source::Attribute(from) => match attrs.find(src, from) {
                        Some(from) => attrs.value_loc(from),
                        None => return Ok(()),
                    },
                    Source::Context(_, slot) => match batch.context.get(*slot) {
                        Some(Some(value)) => attrs.store(value)?,
                        _ => return Ok(()),
                    },
                };
                match at {
                    Some(at) => attrs.set(src, at, value),
                    None => {
                        let key = attrs.store(key)?;
                        attrs.push(src, key, value);
                    }
                }
            }
            Op::Delete(select) => {
                let mut next = select.next(src, attrs, 0);
                while let Some(at) = next {
                    attrs.delete(at);
                    next = select.next(src, attrs, at + 1);
                }
            }
            Op::Hash(select) => {
                let mut next = select.next(src, attrs, 0);
                while let Some(at) = next {
                    let hashed = attrs.derive(src, at, |value, out| put_hash(out, value).map(|()| true))?;
                    if let Some(hashed) = hashed {
                        attrs.set(src, at, hashed);
                    }
                    next = select.next(src, attrs, at + 1);
                }
            }
            Op::Extract(extract) => extract.apply(src, attrs, batch)?,
            Op::Convert { key, target } => {
                if let Some(at) = attrs.find(src, key) {
                    let made = attrs.derive(src, at, |value, out| put_converted(out, value, *target))?;
                    if let Some(value) = made {
                        attrs.set(src, at, value);
                    }
                }
            }
        }
        Ok(())
    }

    /// About how many bytes the action adds to a message, for reserving memory.
    pub(super) fn growth(&self) -> usize {
        match self {
            Op::Put { source: Source::Value(_, Some(pair)), .. } => pair.len() + 2,
            Op::Put { key, .. } => key.len() + 40,
            Op::Delete(_) | Op::Convert { .. } => 0,
            Op::Hash(_) => 64,
            Op::Extract(extract) => extract.names.iter().map(|n| n.len() + 24).sum(),
        }
    }
}

impl Select {
    /// The first place at `from` or behind it whose attribute is meant.
    fn next(&self, src: &[u8], attrs: &Attrs, from: usize) -> Option<usize> {
        match (&self.key, &self.pattern) {
            (Some(key), None) => attrs.find_from(src, key, from),
            (key, Some(pattern)) => (from..attrs.len()).find(|&at| {
                let is = |k: &[u8]| key.as_deref() == Some(k) || pattern.is_match(k);
                attrs.key(src, at).is_some_and(is)
            }),
            (None, None) => None,
        }
    }
}

impl Extract {
    fn apply(&self, src: &[u8], attrs: &mut Attrs, batch: &mut Batchwise) -> Result<(), WireError> {
        let Some(at) = attrs.find(src, &self.key) else { return Ok(()) };
        let Some(found) = batch.captures.get_mut(self.slot) else { return Ok(()) };
        let whole = attrs.value_loc(at);
        let value = attrs.value(src, at);
        let Scalar::Str(text) = Scalar::read(value)? else { return Ok(()) };
        if self.pattern.captures_read(found, text).is_none() {
            return Ok(());
        }
        let base = (text.as_ptr() as usize).saturating_sub(value.as_ptr() as usize);
        for (i, name) in self.names.iter().enumerate() {
            // A group without a part in the match gives the empty string, as in the Collector.
            let (from, to) = found.get(i + 1).unwrap_or((0, 0));
            let value = attrs.text_piece(src, whole, base + from, base + to)?;
            match attrs.find(src, name) {
                Some(at) => attrs.set(src, at, value),
                None => {
                    let key = attrs.store(name)?;
                    attrs.push(src, key, value);
                }
            }
        }
        Ok(())
    }
}

/// A regular expression's fault in one line: the last of the library's report, which names the fault.
pub(crate) fn regex_error(why: &regex::Error) -> String {
    let text = why.to_string();
    let last = text.lines().last().unwrap_or_default().trim().trim_start_matches("error: ");
    format!("the pattern is not a valid regular expression: {last}")
}
