//! `${…}` in values: variables, files, inline YAML, with the Collector's rules and two mercies.
//!
//! A value that is nothing but one reference takes the type of what it stands for and keeps the original text for
//! string fields; otherwise the text is put in. `$$` is a dollar sign, `$NAME` is left alone. The mercies: `$1`
//! and `${1}` are always literal, so that replacements of regular expressions need no doubling; and a variable
//! that is not set is null, but reported with its place. Rounds, depth and size are bounded.

use std::path::Path;

use super::node::{Node, Pos, Value};
use super::sources::{self, SourceText};
use super::yaml::{self, MAX_DEPTH, Place};
use super::{Cx, Severity};

/// How many references one value may come to.
const MAX_ROUNDS: usize = 1000;

/// How deep references may lead to references.
const MAX_NESTING: usize = 32;

/// How much text all references of a config may come to, in bytes.
const MAX_TEXT: usize = 16 << 20;

/// Replaces every reference in the values of `node`.
pub(super) fn expand(
    node: Node,
    env: &dyn Fn(&str) -> Option<String>,
    sources: &mut Vec<SourceText>,
    cx: &mut Cx,
) -> Node {
    Expander { env, sources, cx, rounds: 0, left: MAX_TEXT }.node(node, 0, 0)
}

/// A piece of a text with references.
#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Text(String),
    Ref(Vec<Piece>),
}

struct Expander<'a> {
    env: &'a dyn Fn(&str) -> Option<String>,
    sources: &'a mut Vec<SourceText>,
    cx: &'a mut Cx,
    rounds: usize,
    left: usize,
}

impl Expander<'_> {
    /// `depth` is the depth in the tree, `nesting` how many references led here.
    fn node(&mut self, mut node: Node, depth: usize, nesting: usize) -> Node {
        if depth > MAX_DEPTH {
            self.cx.error(node.pos, format!("references nest values deeper than {MAX_DEPTH} levels"));
            return Node::new(node.pos, Value::Null);
        }
        node.value = match node.value {
            Value::Str(text) if text.contains('$') => {
                if nesting == 0 {
                    self.rounds = 0;
                }
                return self.text(&text, node.pos, depth, nesting);
            }
            Value::Seq(items) => {
                let mut out = Vec::with_capacity(items.len());
                for (i, item) in items.into_iter().enumerate() {
                    self.cx.push(&i.to_string());
                    out.push(self.node(item, depth + 1, nesting));
                    self.cx.pop();
                }
                Value::Seq(out)
            }
            Value::Map(entries) => {
                let mut out = Vec::with_capacity(entries.len());
                for (key, value) in entries {
                    self.cx.push(&key.text);
                    out.push((key, self.node(value, depth + 1, nesting)));
                    self.cx.pop();
                }
                Value::Map(out)
            }
            other => other,
        };
        node
    }

    fn text(&mut self, text: &str, pos: Pos, depth: usize, nesting: usize) -> Node {
        let pieces = match pieces(text) {
            Ok(pieces) => pieces,
            Err(why) => {
                self.cx.error(pos, why);
                return Node::new(pos, Value::Null);
            }
        };
        if let [Piece::Ref(inner)] = pieces.as_slice() {
            return self.reference(inner, pos, depth, nesting).unwrap_or_else(|| Node::new(pos, Value::Null));
        }
        let text = self.join(&pieces, pos, nesting);
        Node::new(pos, Value::Str(text))
    }

    /// The pieces as one text.
    fn join(&mut self, pieces: &[Piece], pos: Pos, nesting: usize) -> String {
        let mut out = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Ref(inner) => {
                    let Some(node) = self.reference(inner, pos, MAX_DEPTH - 1, nesting) else { continue };
                    match (&node.value, &node.expanded) {
                        (Value::Str(text), _) => out.push_str(text),
                        (Value::Seq(_) | Value::Map(_), _) => self.cx.error(
                            pos,
                            format!(
                                "{} cannot be put into a text; only a whole value can be one",
                                node.kind()
                            ),
                        ),
                        (_, Some(raw)) => out.push_str(raw),
                        (_, None) => {}
                    }
                }
            }
        }
        out
    }

    /// What a reference stands for; `None` when it cannot be had, which has been reported.
    fn reference(&mut self, inner: &[Piece], pos: Pos, depth: usize, nesting: usize) -> Option<Node> {
        self.rounds += 1;
        if self.rounds > MAX_ROUNDS || nesting >= MAX_NESTING {
            // Once is enough; the other branches of the same value end here as well.
            if self.rounds <= MAX_ROUNDS {
                self.cx.error(pos, "too many recursive expansions");
            }
            self.rounds = MAX_ROUNDS + 1;
            return None;
        }
        let uri = self.join(inner, pos, nesting);
        if uri.contains('$') {
            self.cx.error(pos, format!("the uri \"{uri}\" contains unsupported characters ('$')"));
            return None;
        }
        match sources::scheme_of(&uri) {
            Some(("env", rest)) => self.variable(rest, pos, depth, nesting),
            Some(("file", path)) => self.file(path, pos, depth, nesting),
            Some(("yaml", text)) => {
                let text = text.to_owned();
                self.typed(text, pos, depth, nesting)
            }
            Some(("http" | "https", _)) => {
                self.cx.error(pos, format!("\"{uri}\": references over HTTP are not supported"));
                None
            }
            Some((scheme, _)) => {
                let message = format!("scheme \"{scheme}\" is not supported for uri \"{uri}\"");
                match uri.contains(":-") {
                    true => self.cx.error_hint(pos, message, format!("write ${{env:{uri}}}")),
                    false => self.cx.error_hint(pos, message, "supported: env, file, yaml"),
                }
                None
            }
            None if uri.contains(':') => {
                let message = format!("invalid uri: \"{uri}\"");
                match uri.contains(":-") {
                    true => self.cx.error_hint(pos, message, format!("write ${{env:{uri}}}")),
                    false => self.cx.error(pos, message),
                }
                None
            }
            None => self.variable(&uri, pos, depth, nesting),
        }
    }

    fn variable(&mut self, text: &str, pos: Pos, depth: usize, nesting: usize) -> Option<Node> {
        let (name, default) = match text.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (text, None),
        };
        let head = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !head || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            self.cx.error_hint(
                pos,
                format!("\"{name}\" is not the name of a variable"),
                "a name has letters, digits and underscores; write $${ for a literal ${",
            );
            return None;
        }
        match (self.env)(name).or_else(|| default.map(str::to_owned)) {
            Some(text) => self.typed(text, pos, depth, nesting),
            None => {
                let at = if nesting == 0 { self.find(name, pos) } else { pos };
                self.cx.report(
                    Severity::Warning,
                    at,
                    format!("the variable {name} is not set; the value is null"),
                    Some(format!("set it, or give a default: ${{env:{name}:-default}}")),
                );
                Some(Node::new(pos, Value::Null))
            }
        }
    }

    fn file(&mut self, path: &str, pos: Pos, depth: usize, nesting: usize) -> Option<Node> {
        let bytes = match sources::read_limited(Path::new(path)) {
            Ok(bytes) => bytes,
            Err(why) => {
                self.cx.error(pos, format!("unable to read the file {path}: {why}"));
                return None;
            }
        };
        let Ok(text) = yaml::utf8(&bytes) else {
            self.cx.error(pos, format!("the file {path} is not UTF-8"));
            return None;
        };
        self.take(text, pos)?;
        // A file with a tree in it has places of its own; anything else is text, its last line break taken off.
        let mut trial = Cx::default();
        let source = u16::try_from(self.sources.len()).unwrap_or(u16::MAX);
        let parsed = yaml::parse(text, Place { source, ..Place::default() }, &mut trial);
        let is_yaml = path.ends_with(".yaml") || path.ends_with(".yml");
        match parsed {
            Some(node) if trial.diags.is_empty() && matches!(node.value, Value::Map(_) | Value::Seq(_)) => {
                sources::add(self.sources, path, text);
                let node = self.node(node, depth, nesting + 1);
                Some(Node { expanded: Some(text.to_owned()), ..node })
            }
            _ if is_yaml && !trial.diags.is_empty() => {
                sources::add(self.sources, path, text);
                self.cx.diags.extend(trial.diags);
                None
            }
            _ => {
                let text = text.strip_suffix('\n').map_or(text, |t| t.strip_suffix('\r').unwrap_or(t));
                self.typed(text.to_owned(), pos, depth, nesting)
            }
        }
    }

    /// Text from outside as YAML: a string keeps its spelling, as does text that is no YAML at all.
    fn typed(&mut self, text: String, pos: Pos, depth: usize, nesting: usize) -> Option<Node> {
        self.take(&text, pos)?;
        let mut trial = Cx::default();
        let parsed = yaml::parse(&text, Place { fixed: Some(pos), ..Place::default() }, &mut trial);
        let value = match parsed {
            Some(node) if trial.diags.is_empty() && !matches!(node.value, Value::Str(_)) => node.value,
            _ => Value::Str(text.clone()),
        };
        let node = self.node(Node::new(pos, value), depth, nesting + 1);
        let expanded = node.expanded.or_else(|| (!matches!(node.value, Value::Str(_))).then_some(text));
        Some(Node { expanded, ..node })
    }

    fn take(&mut self, text: &str, pos: Pos) -> Option<()> {
        match self.left.checked_sub(text.len().max(16)) {
            Some(left) => {
                self.left = left;
                Some(())
            }
            None => {
                // Reported once: nothing fits any more.
                if self.left > 0 {
                    self.cx.error(pos, format!("references come to more than {} MiB", MAX_TEXT >> 20));
                }
                self.left = 0;
                None
            }
        }
    }

    /// Where the reference to `name` stands in a value that starts at `pos`.
    fn find(&self, name: &str, pos: Pos) -> Pos {
        let Some(source) = self.sources.get(usize::from(pos.source)) else { return pos };
        let first = (pos.line as usize).saturating_sub(1);
        for (i, line) in yaml::lines(&source.text).enumerate().skip(first).take(1000) {
            let from = if i == first { pos.col.saturating_sub(1) as usize } else { 0 };
            let start = line.char_indices().nth(from).map_or(line.len(), |(at, _)| at);
            let tail = line.get(start..).unwrap_or_default();
            let found = [format!("${{env:{name}"), format!("${{{name}")].iter().find_map(|text| {
                tail.match_indices(text.as_str())
                    .find(|(at, _)| tail.get(at + text.len()..).is_some_and(|t| t.starts_with(['}', ':'])))
                    .map(|(at, _)| at)
            });
            if let Some(at) = found {
                let col = line.get(..start + at).unwrap_or_default().chars().count() + 1;
                return Pos {
                    source: pos.source,
                    line: u32::try_from(i + 1).unwrap_or(pos.line),
                    col: u32::try_from(col).unwrap_or(pos.col),
                };
            }
        }
        pos
    }
}

/// Takes a text apart. A reference that is never closed is literal.
fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut stack: Vec<Vec<Piece>> = vec![Vec::new()];
    let mut rest = text;
    let put = |stack: &mut Vec<Vec<Piece>>, text: &str| {
        if let (Some(top), false) = (stack.last_mut(), text.is_empty()) {
            match top.last_mut() {
                Some(Piece::Text(last)) => last.push_str(text),
                _ => top.push(Piece::Text(text.to_owned())),
            }
        }
    };
    while !rest.is_empty() {
        let plain = rest.find(['$', '}']).unwrap_or(rest.len());
        let (before, tail) = rest.split_at(plain);
        put(&mut stack, before);
        rest = tail;
        if let Some(tail) = rest.strip_prefix('}') {
            rest = tail;
            match stack.pop() {
                Some(inner) if !stack.is_empty() => {
                    if let Some(top) = stack.last_mut() {
                        top.push(Piece::Ref(inner));
                    }
                }
                bottom => {
                    stack.extend(bottom);
                    put(&mut stack, "}");
                }
            }
            continue;
        }
        let tail = rest.trim_start_matches('$');
        let dollars = rest.len() - tail.len();
        rest = tail;
        let Some(inside) = tail.strip_prefix('{') else {
            put(&mut stack, &"$".repeat(dollars.div_ceil(2)));
            continue;
        };
        put(&mut stack, &"$".repeat(dollars / 2));
        if dollars.is_multiple_of(2) {
            // The dollar signs escape each other; the brace is text.
            put(&mut stack, "{");
            rest = inside;
            continue;
        }
        let digits = inside.find(|c: char| !c.is_ascii_digit()).unwrap_or(inside.len());
        if digits > 0 && inside.get(digits..).is_some_and(|t| t.starts_with('}')) {
            put(&mut stack, "${");
            put(&mut stack, inside.get(..=digits).unwrap_or_default());
            rest = inside.get(digits + 1..).unwrap_or_default();
            continue;
        }
        rest = inside;
        stack.push(Vec::new());
        if stack.len() > MAX_NESTING {
            return Err("too many references inside references".to_owned());
        }
    }
    // What was opened and never closed is text after all.
    while stack.len() > 1 {
        let open = stack.pop().unwrap_or_default();
        put(&mut stack, "${");
        for piece in open {
            match piece {
                Piece::Text(text) => put(&mut stack, &text),
                reference => stack.last_mut().into_iter().for_each(|top| top.push(reference.clone())),
            }
        }
    }
    Ok(stack.pop().unwrap_or_default())
}

#[cfg(test)]
mod tests;
