//! From nodes to config types, collecting every mistake; and from config types to their own documentation.

use std::collections::BTreeMap;
use std::time::Duration;

use super::node::{Node, Pos, Value};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; changes nothing.
    Note,
    /// Probably not meant; an error under `--strict`.
    Warning,
    /// The agent does not start.
    Error,
}

/// One finding about the config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diag {
    /// How bad it is.
    pub severity: Severity,
    /// Where it is.
    pub pos: Pos,
    /// The path of the value, such as `exporters::otlp::endpoint`.
    pub path: String,
    /// The reason, one sentence without a full stop.
    pub message: String,
    /// What to write instead, such as `did you mean "endpoint"?`.
    pub hint: Option<String>,
    /// Another place it has to do with, and how: `first written`.
    pub related: Option<(&'static str, Pos)>,
}

/// Carries the findings and the current path through a decode.
#[derive(Debug, Default)]
pub struct Cx {
    /// Everything found so far.
    pub diags: Vec<Diag>,
    /// The paths of values that must not be shown.
    pub secrets: Vec<String>,
    path: Vec<String>,
}

impl Cx {
    /// Runs `f` with `segment` appended to the path.
    pub fn within<R>(&mut self, segment: &str, f: impl FnOnce(&mut Cx) -> R) -> R {
        self.path.push(segment.to_owned());
        let out = f(self);
        self.path.pop();
        out
    }

    /// Appends to the path, for loops that cannot use a closure; [`Cx::pop`] takes it off again.
    pub(super) fn push(&mut self, segment: &str) {
        self.path.push(segment.to_owned());
    }

    /// Takes off what [`Cx::push`] appended.
    pub(super) fn pop(&mut self) {
        self.path.pop();
    }

    /// Reports an error at `pos` that has to do with another place.
    pub(super) fn twice(&mut self, pos: Pos, message: String, first: Pos) {
        self.report(Severity::Error, pos, message, None);
        if let Some(diag) = self.diags.last_mut() {
            diag.related = Some(("first written", first));
        }
    }

    /// Reports an error at `pos`.
    pub fn error(&mut self, pos: Pos, message: impl Into<String>) {
        self.report(Severity::Error, pos, message.into(), None);
    }

    /// Reports an error with a hint.
    pub fn error_hint(&mut self, pos: Pos, message: impl Into<String>, hint: impl Into<String>) {
        self.report(Severity::Error, pos, message.into(), Some(hint.into()));
    }

    /// Reports a warning at `pos`.
    pub fn warn(&mut self, pos: Pos, message: impl Into<String>) {
        self.report(Severity::Warning, pos, message.into(), None);
    }

    /// Reports a finding at `pos` under the current path.
    pub fn report(&mut self, severity: Severity, pos: Pos, message: String, hint: Option<String>) {
        self.diags.push(Diag { severity, pos, path: self.path(), message, hint, related: None });
    }

    /// Remembers that the value at the current path is a secret: `print-config` shows `[REDACTED]` for it.
    pub fn secret(&mut self) {
        self.secrets.push(self.path());
    }

    /// The current path, such as `exporters::otlp::endpoint`.
    pub fn path(&self) -> String {
        self.path.join("::")
    }

    /// Reports that `node` is not what was expected.
    pub fn wrong_type(&mut self, node: &Node, expected: &str) {
        self.error(node.pos, format!("expected {expected}, got {}", node.kind()));
    }
}

/// What a config type looks like from outside: for the JSON schema and the reference pages.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    /// The type's name in the docs, such as `duration` or `RetryConfig`.
    pub name: &'static str,
    /// Its shape.
    pub kind: SchemaKind,
}

/// The shape of a config type.
#[derive(Debug, Clone, PartialEq)]
pub enum SchemaKind {
    /// `true` or `false`.
    Bool,
    /// An integer in a range.
    Int {
        /// Least value.
        min: i128,
        /// Greatest value.
        max: i128,
    },
    /// Any number.
    Float,
    /// Free text, with what it must look like.
    Text(&'static str),
    /// One of a few words.
    Enum(&'static [&'static str]),
    /// A list of one type.
    List(Box<Schema>),
    /// A mapping from free keys to one type.
    Map(Box<Schema>),
    /// A mapping with known keys.
    Struct {
        /// The type's doc comment.
        doc: &'static str,
        /// Its keys, flattened ones included.
        fields: Vec<SchemaField>,
    },
    /// The schema of the inner type, or null.
    Optional(Box<Schema>),
    /// Any YAML.
    Any,
    /// One boolean and no other.
    Fixed(bool),
    /// Cannot be written; left out of schema and reference.
    Unsupported,
}

/// One key of a struct.
#[derive(Debug, Clone, PartialEq)]
pub struct SchemaField {
    /// The key.
    pub key: &'static str,
    /// The field's doc comment.
    pub doc: &'static str,
    /// The default as it would be written, secrets never shown.
    pub default: serde_json::Value,
    /// The type.
    pub schema: Schema,
}

/// A type that can be written in the config file.
pub trait Config: Sized {
    /// Overwrites `self`, which holds the defaults, with what `node` says. Mistakes go to `cx` and leave the
    /// default in place.
    fn decode_into(&mut self, node: &Node, cx: &mut Cx);

    /// Describes the type.
    fn schema() -> Schema;

    /// Describes the type with this value's defaults in place of the type's own.
    fn schema_of(&self) -> Schema {
        Self::schema()
    }

    /// The value as it would be written, secrets redacted.
    fn to_json(&self) -> serde_json::Value;
}

/// A struct written by [`config!`](crate::config): what flattening needs.
pub trait ConfigStruct: Config {
    /// Decodes one key if it is one of this struct's own; `false` if it is not.
    fn decode_key(&mut self, key: &str, node: &Node, cx: &mut Cx) -> bool;

    /// The struct's keys, flattened ones included; defaults are taken from `self`.
    fn fields(&self) -> Vec<SchemaField>;

    /// Runs the checks of flattened structs and its own on the decoded value; they may settle what depends on
    /// several keys.
    fn validate_all(&mut self, node: &Node, cx: &mut Cx);
}

/// Declares a config struct: fields with docs and defaults in one place, decoding, schema and defaults derived.
///
/// ```text
/// config! {
///     /// What the section is for.
///     pub struct RetryConfig {
///         /// Whether failed requests are sent again.
///         pub enabled: bool = true,
///         /// The first delay.
///         pub initial_interval: Duration = Duration::from_secs(5),
///     }
///     flatten { client: HttpClientConfig = HttpClientConfig::default() }
///     validate = RetryConfig::check;
/// }
/// impl RetryConfig { fn check(&self, node: &Node, cx: &mut Cx) { .. } }
/// ```
///
/// `flatten` fields (public) take the keys that are not the struct's own. `validate` runs after decoding, also
/// when nothing was written; `node.pos_of("key")` gives positions. A raw identifier (`r#type`) is written
/// without its prefix in the file.
#[macro_export]
macro_rules! config {
    (
        $(#[doc = $doc:literal])*
        pub struct $name:ident {
            $( $(#[doc = $fdoc:literal])* pub $field:ident : $ty:ty = $default:expr ),* $(,)?
        }
        $(flatten { $( $(#[doc = $fldoc:literal])* $flat:ident : $fty:ty = $fdefault:expr ),* $(,)? })?
        $(validate = $validate:path;)?
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone)]
        pub struct $name {
            $( $(#[doc = $fdoc])* pub $field: $ty, )*
            $( $( $(#[doc = $fldoc])* #[allow(missing_docs, reason = "documented by its type")] pub $flat: $fty, )* )?
        }

        impl Default for $name {
            fn default() -> Self {
                $name { $( $field: $default, )* $( $( $flat: $fdefault, )* )? }
            }
        }

        impl $crate::config::ConfigStruct for $name {
            #[allow(unused_variables, reason = "a struct may have no fields")]
            fn decode_key(&mut self, key: &str, node: &$crate::config::Node, cx: &mut $crate::config::Cx) -> bool {
                $( if key == $crate::config::key_name(stringify!($field)) {
                    $crate::config::Config::decode_into(&mut self.$field, node, cx);
                    return true;
                } )*
                $( $( if $crate::config::ConfigStruct::decode_key(&mut self.$flat, key, node, cx) {
                    return true;
                } )* )?
                false
            }

            #[allow(unused_mut, reason = "a struct may have no fields")]
            fn fields(&self) -> Vec<$crate::config::SchemaField> {
                let mut out = vec![ $( $crate::config::SchemaField {
                    key: $crate::config::key_name(stringify!($field)),
                    doc: concat!($($fdoc, "\n"),*),
                    default: $crate::config::Config::to_json(&self.$field),
                    schema: $crate::config::Config::schema_of(&self.$field),
                } ),* ];
                $( $( out.extend($crate::config::ConfigStruct::fields(&self.$flat)); )* )?
                out
            }

            #[allow(unused_variables, reason = "not every struct has checks")]
            fn validate_all(&mut self, node: &$crate::config::Node, cx: &mut $crate::config::Cx) {
                $( $( $crate::config::ConfigStruct::validate_all(&mut self.$flat, node, cx); )* )?
                $( $validate(self, node, cx); )?
            }
        }

        impl $crate::config::Config for $name {
            fn decode_into(&mut self, node: &$crate::config::Node, cx: &mut $crate::config::Cx) {
                $crate::config::decode_and_validate(self, true, node, cx);
            }

            fn schema() -> $crate::config::Schema {
                $crate::config::Config::schema_of(&<$name>::default())
            }

            fn schema_of(&self) -> $crate::config::Schema {
                $crate::config::Schema {
                    name: stringify!($name),
                    kind: $crate::config::SchemaKind::Struct {
                        doc: concat!($($doc, "\n"),*),
                        fields: $crate::config::ConfigStruct::fields(self),
                    },
                }
            }

            #[allow(unused_mut, reason = "a struct may have no fields")]
            fn to_json(&self) -> serde_json::Value {
                let mut out = serde_json::Map::new();
                $( out.insert(
                    $crate::config::key_name(stringify!($field)).to_owned(),
                    $crate::config::Config::to_json(&self.$field),
                ); )*
                $( $( if let serde_json::Value::Object(flat) = $crate::config::Config::to_json(&self.$flat) {
                    out.extend(flat);
                } )* )?
                serde_json::Value::Object(out)
            }
        }
    };
}

/// Declares a config enum of words: `config_enum! { /// doc \n pub enum Verbosity { Basic = "basic", .. } }`.
/// Words are compared exactly unless `ignore_case` follows the name of the enum.
#[macro_export]
macro_rules! config_enum {
    (
        $(#[doc = $doc:literal])*
        pub enum $name:ident $($ignore_case:ident)? {
            $( $(#[doc = $vdoc:literal])* $variant:ident = $word:literal ),* $(,)?
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $( $(#[doc = $vdoc])* $variant, )* }

        impl $name {
            /// The word as it is written in the file.
            pub const fn word(self) -> &'static str {
                match self { $( $name::$variant => $word, )* }
            }
        }

        impl $crate::config::Config for $name {
            fn decode_into(&mut self, node: &$crate::config::Node, cx: &mut $crate::config::Cx) {
                const ALL: &[(&str, $name)] = &[ $( ($word, $name::$variant), )* ];
                const IGNORE_CASE: bool = $crate::config_enum!(@case $($ignore_case)?);
                if let Some(found) = $crate::config::decode_word(node, ALL, IGNORE_CASE, cx) {
                    *self = found;
                }
            }

            fn schema() -> $crate::config::Schema {
                $crate::config::Schema {
                    name: stringify!($name),
                    kind: $crate::config::SchemaKind::Enum(&[ $( $word, )* ]),
                }
            }

            fn to_json(&self) -> serde_json::Value {
                serde_json::Value::from(self.word())
            }
        }
    };
    (@case) => { false };
    (@case ignore_case) => { true };
}

/// A field's key in the file: the identifier without a raw prefix.
pub fn key_name(ident: &'static str) -> &'static str {
    ident.strip_prefix("r#").unwrap_or(ident)
}

/// Decodes a struct and, if `validate` is set, checks it. What a check says about a value that did not decode is
/// dropped: it speaks of the default that stands in for it.
pub fn decode_and_validate<T: ConfigStruct>(target: &mut T, validate: bool, node: &Node, cx: &mut Cx) {
    let start = cx.diags.len();
    decode_struct(target, node, cx);
    if !validate || !matches!(node.value, Value::Map(_) | Value::Null) {
        return;
    }
    let decoded = cx.diags.len();
    target.validate_all(node, cx);
    let found = cx.diags.split_off(decoded);
    let wrong = cx.diags.get(start..).unwrap_or_default();
    let news = |d: &Diag| {
        wrong.iter().all(|w| {
            // What is missing is there under a misspelt key.
            let meant =
                w.hint.as_deref().and_then(|h| h.strip_prefix("did you mean \"")?.strip_suffix("\"?"));
            w.pos != d.pos && !(d.pos == node.pos && meant.is_some_and(|key| d.message.contains(key)))
        })
    };
    let found: Vec<Diag> = found.into_iter().filter(news).collect();
    cx.diags.extend(found);
}

/// Decodes a mapping key by key; unknown keys are errors that name the nearest valid one. Null keeps defaults.
pub fn decode_struct<T: ConfigStruct>(target: &mut T, node: &Node, cx: &mut Cx) {
    match &node.value {
        Value::Null => {}
        Value::Map(entries) => {
            for (key, value) in entries {
                let known = cx.within(&key.text, |cx| target.decode_key(&key.text, value, cx));
                if !known {
                    let fields = target.fields();
                    let supported = fields.iter().filter(|f| f.schema.kind != SchemaKind::Unsupported);
                    let keys: Vec<&str> = supported.map(|f| f.key).collect();
                    cx.within(&key.text, |cx| unknown_key(key.pos, &key.text, &keys, cx));
                }
            }
        }
        _ => cx.wrong_type(node, "a mapping"),
    }
}

/// Reports an unknown key, with the nearest of `keys`.
pub fn unknown_key(pos: Pos, key: &str, keys: &[&str], cx: &mut Cx) {
    let message = format!("unknown key \"{key}\"");
    match nearest(key, keys) {
        Some(near) => cx.error_hint(pos, message, format!("did you mean \"{near}\"?")),
        None if keys.is_empty() => cx.error_hint(pos, message, "this section takes no keys"),
        None => cx.error_hint(pos, message, format!("valid keys: {}", keys.join(", "))),
    }
}

/// The entry of `words` nearest to `word`, if one is near enough to be what was meant.
pub fn nearest<'a>(word: &str, words: &[&'a str]) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(2);
    words
        .iter()
        .map(|w| (distance(&word.to_ascii_lowercase(), &w.to_ascii_lowercase()), *w))
        .filter(|(d, _)| *d <= limit)
        .min()
        .map(|(_, w)| w)
}

/// Edit distance with insertions, deletions and substitutions.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut left = i + 1;
        let mut diagonal = i;
        for (slot, cb) in row.iter_mut().skip(1).zip(&b) {
            let above = *slot;
            let cost = diagonal + usize::from(ca != *cb);
            left = cost.min(above + 1).min(left + 1);
            diagonal = above;
            *slot = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

/// Decodes one of a few words; reports the valid ones otherwise.
pub fn decode_word<T: Copy>(node: &Node, all: &[(&str, T)], ignore_case: bool, cx: &mut Cx) -> Option<T> {
    let Value::Str(text) = &node.value else {
        cx.wrong_type(node, "a string");
        return None;
    };
    let same = |w: &str| if ignore_case { w.eq_ignore_ascii_case(text) } else { w == text };
    if let Some((_, value)) = all.iter().find(|(w, _)| same(w)) {
        return Some(*value);
    }
    let words: Vec<&str> = all.iter().map(|(w, _)| *w).collect();
    let valid =
        format!("valid values: {}", words.iter().map(|w| format!("\"{w}\"")).collect::<Vec<_>>().join(", "));
    let hint = nearest(text, &words).map_or(valid.clone(), |w| format!("did you mean \"{w}\"? {valid}"));
    cx.error_hint(node.pos, format!("unsupported value \"{text}\""), hint);
    None
}

impl Config for bool {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        match node.value {
            Value::Bool(b) => *self = b,
            Value::Null => {}
            Value::Str(_) => cx.error_hint(
                node.pos,
                "expected a boolean, got a string",
                "write true or false, without quotes",
            ),
            _ => cx.wrong_type(node, "a boolean"),
        }
    }

    fn schema() -> Schema {
        Schema { name: "boolean", kind: SchemaKind::Bool }
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::Value::from(*self)
    }
}

macro_rules! integers {
    ($($ty:ty),*) => { $(
        impl Config for $ty {
            fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
                let wide: i128 = match node.value {
                    Value::Null => return,
                    Value::Int(i) => i.into(),
                    Value::UInt(u) => u.into(),
                    // The Collector truncates a float in an integer field.
                    Value::Float(f) if f.is_finite() => f as i128,
                    Value::Str(ref text) if text.parse::<i128>().is_ok() => {
                        let message = "expected an integer, got a string";
                        return cx.error_hint(node.pos, message, "take the quotes off");
                    }
                    _ => return cx.wrong_type(node, "an integer"),
                };
                match <$ty>::try_from(wide) {
                    Ok(value) => *self = value,
                    Err(_) => cx.error(node.pos, format!("{wide} is out of range: {} to {}", <$ty>::MIN, <$ty>::MAX)),
                }
            }

            fn schema() -> Schema {
                Schema { name: "integer", kind: SchemaKind::Int { min: <$ty>::MIN as i128, max: <$ty>::MAX as i128 } }
            }

            fn to_json(&self) -> serde_json::Value {
                serde_json::Value::from(*self)
            }
        }
    )* };
}
integers!(i32, i64, u16, u32, u64, usize);

impl Config for f64 {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        match node.value {
            Value::Null => {}
            Value::Int(i) => *self = i as f64,
            Value::UInt(u) => *self = u as f64,
            Value::Float(f) => *self = f,
            _ => cx.wrong_type(node, "a number"),
        }
    }

    fn schema() -> Schema {
        Schema { name: "number", kind: SchemaKind::Float }
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::Value::from(*self)
    }
}

/// The text a string field takes from a node: a string, or the original spelling of an expanded scalar.
pub fn text_of<'a>(node: &'a Node, cx: &mut Cx) -> Option<&'a str> {
    match (&node.expanded, &node.value) {
        (_, Value::Str(s)) => Some(s),
        (Some(raw), _) => Some(raw),
        (None, Value::Null) => None,
        (None, Value::Seq(_) | Value::Map(_)) => {
            cx.wrong_type(node, "a string");
            None
        }
        _ => {
            cx.error_hint(node.pos, format!("expected a string, got {}", node.kind()), "put it in quotes");
            None
        }
    }
}

impl Config for String {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        if let Some(text) = text_of(node, cx) {
            *self = text.to_owned();
        }
    }

    fn schema() -> Schema {
        Schema { name: "string", kind: SchemaKind::Text("text") }
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::Value::from(self.as_str())
    }
}

impl Config for Duration {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        match &node.value {
            Value::Null => {}
            Value::Int(n) => match u64::try_from(*n) {
                Ok(n) => *self = Duration::from_nanos(n),
                Err(_) => cx.error(node.pos, "a duration must not be negative"),
            },
            Value::Float(f) if *f >= 0.0 => *self = Duration::from_nanos(*f as u64),
            Value::Str(text) => match super::types::parse_duration(text) {
                Ok(d) => *self = d,
                Err(why) => {
                    cx.error_hint(node.pos, why, "write a number with a unit, such as 300ms, 5s, 1m30s")
                }
            },
            _ => cx.wrong_type(node, "a duration"),
        }
    }

    fn schema() -> Schema {
        Schema { name: "duration", kind: SchemaKind::Text("a number with a unit: 300ms, 1.5s, 5m, 1h30m") }
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::Value::from(super::types::format_duration(*self))
    }
}

impl Config for serde_json::Value {
    fn decode_into(&mut self, node: &Node, _: &mut Cx) {
        *self = node.to_json();
    }

    fn schema() -> Schema {
        Schema { name: "any", kind: SchemaKind::Any }
    }

    fn to_json(&self) -> serde_json::Value {
        self.clone()
    }
}

impl<T: Config + Default> Config for Option<T> {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        if node.is_null() && node.expanded.is_none() {
            return;
        }
        let before = cx.diags.len();
        let mut value = self.take().unwrap_or_default();
        value.decode_into(node, cx);
        let failed = cx.diags.iter().skip(before).any(|d| d.severity == Severity::Error);
        *self = (!failed).then_some(value);
    }

    fn schema() -> Schema {
        let inner = T::schema();
        Schema { name: inner.name, kind: SchemaKind::Optional(Box::new(inner)) }
    }

    fn to_json(&self) -> serde_json::Value {
        self.as_ref().map_or(serde_json::Value::Null, Config::to_json)
    }
}

impl<T: Config + Default> Config for Vec<T> {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        match &node.value {
            Value::Null => {}
            Value::Seq(nodes) => {
                self.clear();
                for (i, node) in nodes.iter().enumerate() {
                    let mut value = T::default();
                    cx.within(&i.to_string(), |cx| value.decode_into(node, cx));
                    self.push(value);
                }
            }
            // A comma-separated string stands for a list of strings, split without trimming; "" is empty.
            Value::Str(_) | Value::Int(_) | Value::UInt(_) | Value::Float(_) | Value::Bool(_)
                if matches!(T::schema().kind, SchemaKind::Text(_)) =>
            {
                let Some(text) = text_of(node, cx) else { return };
                self.clear();
                for part in text.split(',').filter(|_| !text.is_empty()) {
                    let mut value = T::default();
                    value.decode_into(&Node::new(node.pos, Value::Str(part.to_owned())), cx);
                    self.push(value);
                }
            }
            _ => cx.wrong_type(node, "a list"),
        }
    }

    fn schema() -> Schema {
        Schema { name: "list", kind: SchemaKind::List(Box::new(T::schema())) }
    }

    fn to_json(&self) -> serde_json::Value {
        self.iter().map(Config::to_json).collect()
    }
}

impl<T: Config + Default> Config for BTreeMap<String, T> {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        match &node.value {
            Value::Null => {}
            Value::Map(entries) => {
                for (key, node) in entries {
                    let mut value = T::default();
                    cx.within(&key.text, |cx| value.decode_into(node, cx));
                    self.insert(key.text.clone(), value);
                }
            }
            _ => cx.wrong_type(node, "a mapping"),
        }
    }

    fn schema() -> Schema {
        Schema { name: "mapping", kind: SchemaKind::Map(Box::new(T::schema())) }
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::Value::Object(self.iter().map(|(k, v)| (k.clone(), v.to_json())).collect())
    }
}
