//! From nodes to config types: the trait, and the macros that write it for structs and words.
//!
//! Every mistake is collected, with its place and, where one can be told, what was meant.

use super::node::{Node, Pos, Value};
use super::{Cx, Diag, Schema, SchemaField, SchemaKind};

/// A type that can be written in the config file.
pub trait Config: Sized {
    /// Overwrites `self`, which holds the defaults, with what `node` says. Mistakes go to `cx` and leave the
    /// default in place.
    fn decode_into(&mut self, node: &Node, cx: &mut Cx);

    /// Decodes a field of a struct. `doc` is the field's doc comment, for types whose reports repeat it.
    fn decode_field(&mut self, node: &Node, doc: &'static str, cx: &mut Cx) {
        let _ = doc;
        self.decode_into(node, cx);
    }

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

    /// What to tell whoever writes this unknown key, if there is more to tell than the valid ones.
    fn hint(_key: &str) -> Option<&'static str> {
        None
    }

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
///     hints { "retries" => "there is no limit but \"max_elapsed_time\"" }
///     validate = RetryConfig::check;
/// }
/// impl RetryConfig { fn check(&self, node: &Node, cx: &mut Cx) { .. } }
/// ```
///
/// `flatten` fields (public) take the keys that are not the struct's own. `hints` tells about keys that are not there
/// and that somebody may well write. `validate` runs after decoding, also
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
        $(hints { $( $hkey:literal => $hint:literal ),* $(,)? })?
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
                    $crate::config::Config::decode_field(&mut self.$field, node, concat!($($fdoc, "\n"),*), cx);
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

            $( fn hint(key: &str) -> Option<&'static str> {
                match key {
                    $( $hkey => Some($hint), )*
                    _ => None,
                }
            } )?

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
                    cx.within(&key.text, |cx| match T::hint(&key.text) {
                        Some(hint) => {
                            cx.unknown();
                            cx.error_hint(key.pos, format!("unknown key \"{}\"", key.text), hint);
                        }
                        None => unknown_key(key.pos, &key.text, &keys, cx),
                    });
                }
            }
        }
        _ => cx.wrong_type(node, "a mapping"),
    }
}

/// Reports an unknown key, with the nearest of `keys`.
pub fn unknown_key(pos: Pos, key: &str, keys: &[&str], cx: &mut Cx) {
    let message = format!("unknown key \"{key}\"");
    cx.unknown();
    match nearest(key, keys) {
        Some(near) => cx.error_hint(pos, message, format!("did you mean \"{near}\"?")),
        None if keys.is_empty() => cx.error_hint(pos, message, "this section takes no keys"),
        None => cx.error_hint(pos, message, format!("valid keys: {}", keys.join(", "))),
    }
}

/// The entry of `words` nearest to `word`, if one is near enough to be what was meant.
pub fn nearest<'a>(word: &str, words: &[&'a str]) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let len = word.chars().count();
    let limit = if len < 4 { 1 } else { (len / 5).max(2) };
    words
        .iter()
        .take(1000)
        .map(|w| (w.to_ascii_lowercase(), *w))
        .map(|(w, as_written)| match distance(&word, &w) {
            // A word that was not written to its end.
            d if d > limit && len >= 4 && w.starts_with(&word) => (limit, as_written),
            d => (d, as_written),
        })
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
