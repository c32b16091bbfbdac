//! What config types look like from outside: for the JSON schema and the reference pages.

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
