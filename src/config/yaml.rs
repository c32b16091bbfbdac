//! YAML text to [`Node`]s that know where they stand.
//!
//! Built on a parser's events, so that keys, values, duplicates and unknown aliases all have their exact place
//! and one run finds more than the first mistake. Aliases and merge keys (`<<`) are resolved here. Size, depth
//! and the number of values are bounded, whatever the text does with anchors.

use std::collections::HashMap;

use granit_parser::{Event, Options, Parser, ScalarStyle, Span, StrInput, StructureStyle, Tag};

use super::Cx;
use super::node::{Key, Node, Pos, Value};
use super::scalar;

/// The longest text that is read, in bytes.
pub const MAX_BYTES: usize = 4 << 20;

/// How deep values may be nested.
pub const MAX_DEPTH: usize = 100;

/// How many values a text may come to, aliases resolved.
pub const MAX_NODES: usize = 200_000;

/// Where a text stands: positions inside a longer text (a `--set` argument) start further right.
#[derive(Debug, Clone, Copy, Default)]
pub struct Place {
    /// Index of the source.
    pub source: u16,
    /// Columns to add on the first line.
    pub shift: u32,
    /// One place for everything, for text that is in no source (the value of a variable).
    pub fixed: Option<Pos>,
}

/// Reads bytes as UTF-8: the text without a byte order mark, or where it stops being UTF-8 (line and column
/// from 1, then the offset in bytes).
///
/// # Errors
/// Line, column and byte offset of the first wrong byte.
pub fn utf8(bytes: &[u8]) -> Result<&str, (u32, u32, usize)> {
    let body = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(body).map_err(|why| {
        let good =
            body.get(..why.valid_up_to()).and_then(|b| std::str::from_utf8(b).ok()).unwrap_or_default();
        let last = lines(good).last().unwrap_or_default();
        let line = lines(good).count();
        (small(line), small(last.chars().count() + 1), why.valid_up_to() + bytes.len() - body.len())
    })
}

/// The lines of a text without their ends; an end is CR LF, LF or CR, as in YAML. There is always one.
pub fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.find(['\n', '\r']) else {
            rest = None;
            return Some(text);
        };
        let (line, tail) = text.split_at(end);
        rest = tail.strip_prefix("\r\n").or_else(|| tail.get(1..));
        Some(line)
    })
}

/// Parses one document. `None` when it cannot be read to its end; what is wrong is in `cx` then.
pub fn parse(text: &str, place: Place, cx: &mut Cx) -> Option<Node> {
    let mut options = Options::default();
    options.emit_unresolved_aliases = true;
    options.flow_nesting_limit = MAX_DEPTH;
    options.block_nesting_limit = MAX_DEPTH;
    let mut builder = Builder {
        ends: lines(text).map(|l| small(l.chars().count())).collect(),
        parser: Parser::new_from_str_with_options(text, options),
        anchors: HashMap::new(),
        budget: MAX_NODES,
        bytes: MAX_BYTES * 2,
        place,
        cx,
    };
    if text.len() > MAX_BYTES {
        let pos = builder.at(1, 1);
        builder.cx.error(pos, format!("the text is larger than {} MiB", MAX_BYTES >> 20));
        return None;
    }
    builder.document().ok()
}

/// The parse cannot go on; the reason has been reported.
struct Stop;

/// A finished anchor.
struct Anchor {
    node: Node,
    size: Size,
}

/// What copying a node costs.
#[derive(Clone, Copy, Default)]
struct Size {
    nodes: usize,
    bytes: usize,
    depth: usize,
}

struct Builder<'t, 'c> {
    parser: Parser<'t, StrInput<'t>>,
    anchors: HashMap<usize, Anchor>,
    ends: Vec<u32>,
    budget: usize,
    bytes: usize,
    place: Place,
    cx: &'c mut Cx,
}

impl<'t> Builder<'t, '_> {
    fn document(&mut self) -> Result<Node, Stop> {
        let mut root = None;
        while let Some((event, span)) = self.next()? {
            match event {
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                Event::StreamEnd => break,
                _ if root.is_some() => {
                    let pos = self.pos(&span);
                    self.cx.error_hint(pos, "a second document starts here", "a config is one YAML document");
                    return Err(Stop);
                }
                event => root = Some(self.node(event, &span, None, 0)?),
            }
        }
        Ok(root.unwrap_or_else(|| Node::new(self.at(1, 1), Value::Null)))
    }

    fn next(&mut self) -> Result<Option<(Event<'t>, Span)>, Stop> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok((event, span))) => Ok(Some((event, span))),
            Some(Err(why)) => {
                let pos = self.at(why.marker().line(), why.marker().col() + 1);
                self.cx.error(pos, format!("invalid YAML: {}", why.info()));
                Err(Stop)
            }
        }
    }

    /// The next event inside a collection, where the stream cannot end.
    fn inside(&mut self, start: Pos) -> Result<(Event<'t>, Span), Stop> {
        let next = self.next()?;
        next.ok_or_else(|| {
            self.cx.error(start, "invalid YAML: the text ends inside this value");
            Stop
        })
    }

    fn node(&mut self, event: Event<'t>, span: &Span, key: Option<Pos>, depth: usize) -> Result<Node, Stop> {
        let mut pos = self.pos(span);
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                // A value that is not there stands where its key does.
                if let (true, Some(key)) = (span.is_empty(), key) {
                    pos = key;
                }
                self.bytes(text.len(), pos)?;
                (self.scalar(&text, style, tag.as_deref(), pos), anchor)
            }
            Event::SequenceStart(style, anchor, tag) => {
                // A block that starts on a line of its own is found by its key.
                if let (StructureStyle::Block, Some(key)) = (style, key) {
                    pos = key;
                }
                self.collection_tag(tag.as_deref(), "seq", pos);
                (self.sequence(pos, depth)?, anchor)
            }
            Event::MappingStart(style, anchor, tag) => {
                if let (StructureStyle::Block, Some(key)) = (style, key) {
                    pos = key;
                }
                self.collection_tag(tag.as_deref(), "map", pos);
                (self.mapping(pos, depth)?, anchor)
            }
            Event::Alias(id) => return self.alias(id, pos, depth),
            Event::UnresolvedAlias(name) => {
                self.cx.error(pos, format!("the alias \"*{name}\" has no anchor before it"));
                (Value::Null, 0)
            }
            _ => (Value::Null, 0),
        };
        self.spend(1, pos)?;
        let node = Node::new(pos, value);
        if anchor != 0 {
            let size = measure(&node);
            // The copy kept for aliases counts as well.
            self.spend(size.nodes, pos)?;
            self.bytes(size.bytes, pos)?;
            self.anchors.insert(anchor, Anchor { node: node.clone(), size });
        }
        Ok(node)
    }

    fn sequence(&mut self, pos: Pos, depth: usize) -> Result<Value, Stop> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.inside(pos)?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(Value::Seq(items));
            }
            let segment = items.len().to_string();
            self.cx.push(&segment);
            let item = self.node(event, &span, None, depth + 1);
            self.cx.pop();
            items.push(item?);
        }
    }

    fn mapping(&mut self, pos: Pos, depth: usize) -> Result<Value, Stop> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut seen: HashMap<String, Pos> = HashMap::new();
        let mut merges = Vec::new();
        let mut merged = None;
        loop {
            let (event, span) = self.inside(pos)?;
            let key_pos = self.pos(&span);
            let (text, merge) = match event {
                Event::MappingEnd => break,
                Event::Scalar(text, style, ..) => {
                    let merge = style == ScalarStyle::Plain && text == "<<";
                    (text.into_owned(), merge)
                }
                Event::Alias(id) => match self.anchors.get(&id).map(|a| &a.node.value) {
                    Some(Value::Str(text)) => (text.clone(), false),
                    _ => {
                        self.cx.error(key_pos, "a key must be text");
                        (String::new(), false)
                    }
                },
                other => {
                    self.cx.error(key_pos, "a key must be text, not a list or a mapping");
                    self.node(other, &span, None, depth + 1)?;
                    let (event, span) = self.inside(pos)?;
                    self.node(event, &span, None, depth + 1)?;
                    continue;
                }
            };
            self.bytes(text.len(), key_pos)?;
            let (event, span) = self.inside(pos)?;
            self.cx.push(&text);
            let value = self.node(event, &span, Some(key_pos), depth + 1);
            let first = if merge { merged } else { seen.get(&text).copied() };
            if let Some(first) = first {
                self.cx.twice(key_pos, format!("duplicate key \"{text}\""), first);
            }
            self.cx.pop();
            let value = value?;
            if first.is_some() {
                continue;
            }
            if merge {
                merged = Some(key_pos);
                merges.push(value);
            } else {
                seen.insert(text.clone(), key_pos);
                entries.push((Key { pos: key_pos, text }, value));
            }
        }
        for merge in merges {
            self.merge(merge, &mut entries, &mut seen);
        }
        Ok(Value::Map(entries))
    }

    /// `<<`: what the mapping does not say itself comes from another, or from the first of several that says it.
    fn merge(&mut self, from: Node, entries: &mut Vec<(Key, Node)>, seen: &mut HashMap<String, Pos>) {
        match from.value {
            Value::Map(more) => {
                for (key, value) in more {
                    if !seen.contains_key(&key.text) {
                        seen.insert(key.text.clone(), key.pos);
                        entries.push((key, value));
                    }
                }
            }
            Value::Seq(items) if items.iter().all(|i| matches!(i.value, Value::Map(_))) => {
                for item in items {
                    self.merge(item, entries, seen);
                }
            }
            _ => self.cx.error(from.pos, "\"<<\" takes a mapping or a list of mappings"),
        }
    }

    fn alias(&mut self, id: usize, pos: Pos, depth: usize) -> Result<Node, Stop> {
        let Some(anchor) = self.anchors.get(&id) else {
            self.cx.error(pos, "the alias stands inside the value it names");
            return Ok(Node::new(pos, Value::Null));
        };
        let size = anchor.size;
        if depth + size.depth > MAX_DEPTH {
            self.cx.error(pos, format!("aliases nest deeper than {MAX_DEPTH} levels"));
            return Err(Stop);
        }
        let node = anchor.node.clone();
        self.spend(size.nodes, pos)?;
        self.bytes(size.bytes, pos)?;
        Ok(node)
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, pos: Pos) -> Value {
        let plain = style == ScalarStyle::Plain;
        let Some(tag) = tag else {
            return if plain { scalar::resolve(text) } else { Value::Str(text.to_owned()) };
        };
        let typed = match tag.core_suffix() {
            Some("str") => Some(Value::Str(text.to_owned())),
            Some("int") => scalar::number(text).filter(|v| !matches!(v, Value::Float(_))),
            Some("float") => match scalar::resolve(text) {
                Value::Int(i) => Some(Value::Float(i as f64)),
                Value::UInt(u) => Some(Value::Float(u as f64)),
                value => Some(value).filter(|v| matches!(v, Value::Float(_))),
            },
            Some("bool") => Some(scalar::resolve(text)).filter(|v| matches!(v, Value::Bool(_))),
            Some("null") => Some(scalar::resolve(text)).filter(|v| *v == Value::Null),
            _ if tag.original() == "!" => Some(Value::Str(text.to_owned())),
            _ => {
                self.cx.error(pos, format!("the tag \"{}\" is not supported", tag.original()));
                return Value::Str(text.to_owned());
            }
        };
        typed.unwrap_or_else(|| {
            self.cx.error(pos, format!("\"{text}\" is not what its tag \"{}\" says", tag.original()));
            Value::Null
        })
    }

    fn collection_tag(&mut self, tag: Option<&Tag>, expected: &str, pos: Pos) {
        if let Some(tag) = tag.filter(|t| t.core_suffix() != Some(expected) && t.original() != "!") {
            self.cx.error(pos, format!("the tag \"{}\" is not supported here", tag.original()));
        }
    }

    fn spend(&mut self, nodes: usize, pos: Pos) -> Result<(), Stop> {
        self.budget = self.budget.checked_sub(nodes).ok_or_else(|| {
            self.cx.error(pos, format!("the text has more than {MAX_NODES} values, aliases resolved"));
            Stop
        })?;
        Ok(())
    }

    fn bytes(&mut self, bytes: usize, pos: Pos) -> Result<(), Stop> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or_else(|| {
            self.cx.error(pos, "the aliases make the text too long");
            Stop
        })?;
        Ok(())
    }

    fn pos(&self, span: &Span) -> Pos {
        self.at(span.start.line(), span.start.col() + 1)
    }

    /// A position inside the text: past its end becomes its end.
    fn at(&self, line: usize, col: usize) -> Pos {
        if let Some(fixed) = self.place.fixed {
            return fixed;
        }
        let last = small(self.ends.len()).max(1);
        let (line, mut col) = (small(line).max(1), small(col).max(1));
        let end = |line: u32| self.ends.get(line as usize - 1).copied().unwrap_or_default() + 1;
        if line > last {
            return Pos { source: self.place.source, line: last, col: end(last) };
        }
        col = col.min(end(line));
        if line == 1 {
            col += self.place.shift;
        }
        Pos { source: self.place.source, line, col }
    }
}

fn measure(node: &Node) -> Size {
    let mut size = Size { nodes: 1, bytes: 0, depth: 1 };
    let mut add = |node: &Node, key: usize| {
        let inner = measure(node);
        size.nodes += inner.nodes;
        size.bytes += inner.bytes + key;
        size.depth = size.depth.max(inner.depth + 1);
    };
    match &node.value {
        Value::Seq(items) => items.iter().for_each(|item| add(item, 0)),
        Value::Map(entries) => entries.iter().for_each(|(key, value)| add(value, key.text.len())),
        Value::Str(text) => size.bytes = text.len(),
        _ => {}
    }
    size
}

fn small(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
