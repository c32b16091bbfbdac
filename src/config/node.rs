//! A YAML document as a tree that knows where everything stands.

/// A place in a source: which one, line and column from 1, column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Pos {
    /// Index into the sources of the load.
    pub source: u16,
    /// Line, from 1; 0 for values without a place (defaults, `--set`).
    pub line: u32,
    /// Column, from 1.
    pub col: u32,
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where the value starts; for a block of lines under a key, and for a value that is not there, the key.
    pub pos: Pos,
    /// The value.
    pub value: Value,
    /// The scalar's original text where it came from a whole-value `${…}` expansion: a string field takes
    /// this (`0123` stays `0123`), any other field the typed value.
    pub expanded: Option<String>,
}

/// A mapping's key and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Where the key starts.
    pub pos: Pos,
    /// The key.
    pub text: String,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// An integer above `i64::MAX`.
    UInt(u64),
    /// A number with a fraction or an exponent.
    Float(f64),
    /// A string.
    Str(String),
    /// A list.
    Seq(Vec<Node>),
    /// A mapping, in the order of the file, keys unique.
    Map(Vec<(Key, Node)>),
}

impl Node {
    /// A node without an expansion.
    pub fn new(pos: Pos, value: Value) -> Self {
        Node { pos, value, expanded: None }
    }

    /// The value under `key`, if this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|(_, v)| v)
    }

    /// Key and value under `key`, if this is a mapping that has it.
    pub fn entry(&self, key: &str) -> Option<&(Key, Node)> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(k, _)| k.text == key),
            _ => None,
        }
    }

    /// Where `key` stands, or where the mapping starts if it has no such key.
    pub fn pos_of(&self, key: &str) -> Pos {
        self.get(key).map_or(self.pos, |v| v.pos)
    }

    /// Whether two values say the same, wherever they stand.
    pub fn same(&self, other: &Node) -> bool {
        self.expanded == other.expanded
            && match (&self.value, &other.value) {
                (Value::Seq(a), Value::Seq(b)) => {
                    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b))
                }
                (Value::Map(a), Value::Map(b)) => {
                    a.len() == b.len() && a.iter().all(|(k, v)| other.get(&k.text).is_some_and(|o| v.same(o)))
                }
                (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
                (a, b) => a == b,
            }
    }

    /// Whether this is `null`.
    pub fn is_null(&self) -> bool {
        self.value == Value::Null
    }

    /// A tree without places, from JSON.
    pub fn from_json(json: &serde_json::Value) -> Node {
        use serde_json::Value as Json;
        let pos = Pos::default();
        let value = match json {
            Json::Null => Value::Null,
            Json::Bool(b) => Value::Bool(*b),
            Json::Number(n) => n
                .as_i64()
                .map(Value::Int)
                .or_else(|| n.as_u64().map(Value::UInt))
                .unwrap_or_else(|| Value::Float(n.as_f64().unwrap_or_default())),
            Json::String(s) => Value::Str(s.clone()),
            Json::Array(items) => Value::Seq(items.iter().map(Node::from_json).collect()),
            Json::Object(map) => {
                let key = |text: &String| Key { pos, text: text.clone() };
                Value::Map(map.iter().map(|(k, v)| (key(k), Node::from_json(v))).collect())
            }
        };
        Node::new(pos, value)
    }

    /// The value as JSON; what JSON has no number for becomes text.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(b) => (*b).into(),
            Value::Int(i) => (*i).into(),
            Value::UInt(u) => (*u).into(),
            Value::Float(f) if f.is_finite() => (*f).into(),
            Value::Float(f) => f.to_string().into(),
            Value::Str(s) => s.as_str().into(),
            Value::Seq(items) => items.iter().map(Node::to_json).collect(),
            Value::Map(entries) => {
                Json::Object(entries.iter().map(|(k, v)| (k.text.clone(), v.to_json())).collect())
            }
        }
    }

    /// What the value is, in a user's words.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::UInt(_) => "an integer",
            Value::Float(_) => "a number",
            Value::Str(_) => "a string",
            Value::Seq(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}
