//! Where a config comes from: files, directories, variables, inline YAML, `--set`; and how several become one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::Cx;
use super::node::{Key, Node, Pos, Value};
use super::yaml::{self, Place};

/// One `--config` or `--set` argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file, or a directory whose `*.yaml` and `*.yml` are read in the order of their names.
    File(PathBuf),
    /// The value of a variable, as YAML.
    Env(String),
    /// Inline YAML; `::` in a key stands for nesting.
    Yaml(String),
    /// `a.b.c=value` from `--set`; wins over every other source.
    Set(String),
    /// Bytes with a name, for tests and tools.
    Bytes(String, Vec<u8>),
}

impl Source {
    /// Reads a `--config` argument: `scheme:rest`, or a path.
    ///
    /// # Errors
    /// A scheme that is not supported.
    pub fn parse(uri: &str) -> Result<Self, String> {
        match scheme_of(uri) {
            None if uri.is_empty() => Err("an empty --config".to_owned()),
            None => Ok(Source::File(PathBuf::from(uri))),
            Some(("file", path)) => Ok(Source::File(PathBuf::from(path))),
            Some(("env", name)) => Ok(Source::Env(name.to_owned())),
            Some(("yaml", text)) => Ok(Source::Yaml(text.to_owned())),
            Some(("http" | "https", _)) => Err(format!(
                "\"{uri}\": reading the config over HTTP is not supported; fetch it to a file first"
            )),
            Some(_) => Err(format!("unsupported scheme on URI \"{uri}\" (supported: file, env, yaml)")),
        }
    }

    /// Reads a `--set` argument.
    ///
    /// # Errors
    /// No equal sign, or nothing before it.
    pub fn set(argument: &str) -> Result<Self, String> {
        match argument.split_once('=') {
            None => Err(format!("missing equal sign in --set {argument}")),
            Some((key, _)) if key.split('.').any(str::is_empty) => {
                Err(format!("an empty key in --set {argument}"))
            }
            Some(_) => Ok(Source::Set(argument.to_owned())),
        }
    }
}

/// A source as it was read: what positions point into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceText {
    /// The path, or `env:NAME`, `yaml`, `--set`.
    pub name: String,
    /// The text; what was not UTF-8 is replaced.
    pub text: String,
}

/// The scheme of a URI and what follows; a single letter is a drive, not a scheme.
pub(super) fn scheme_of(uri: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = uri.split_once(':')?;
    let ok = scheme.len() > 1
        && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '.' | '-'));
    ok.then_some((scheme, rest))
}

/// Reads sources into one tree.
pub(super) struct Reader<'a> {
    /// Looks up variables.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// What has been read.
    pub sources: Vec<SourceText>,
    /// What is wrong with it.
    pub cx: Cx,
}

impl Reader<'_> {
    /// Reads and merges all sources, `--set` last. `None` if none could be read.
    pub fn read_all(&mut self, sources: &[Source]) -> Option<Node> {
        let (sets, rest): (Vec<_>, Vec<_>) = sources.iter().partition(|s| matches!(s, Source::Set(_)));
        let mut merged: Option<Node> = None;
        for source in rest.into_iter().chain(sets) {
            for node in self.read(source) {
                merged = Some(match merged {
                    None => node,
                    Some(base) => merge(base, node),
                });
            }
        }
        merged
    }

    fn read(&mut self, source: &Source) -> Vec<Node> {
        let node = match source {
            Source::File(path) if path.is_dir() => return self.directory(path),
            Source::File(path) => self.file(path),
            Source::Bytes(name, bytes) => self.bytes(name, bytes),
            Source::Env(name) => match (self.env)(name) {
                Some(text) => self.bytes(&format!("env:{name}"), text.as_bytes()),
                None => {
                    let pos = self.add(&format!("env:{name}"), "");
                    self.cx.error(pos, format!("the variable {name} is not set"));
                    None
                }
            },
            Source::Yaml(text) => self.bytes("yaml", text.as_bytes()).map(unflatten),
            Source::Set(argument) => self.set(argument),
        };
        // A source that says nothing changes nothing.
        node.filter(|n| !n.is_null() || matches!(source, Source::Set(_))).into_iter().collect()
    }

    fn directory(&mut self, path: &Path) -> Vec<Node> {
        let yaml = |p: &PathBuf| p.extension().is_some_and(|e| e == "yaml" || e == "yml") && p.is_file();
        let mut files: Vec<PathBuf> = match std::fs::read_dir(path) {
            Ok(entries) => entries.filter_map(|e| e.ok().map(|e| e.path())).filter(yaml).collect(),
            Err(why) => {
                let pos = self.add(&path.display().to_string(), "");
                self.cx.error(pos, format!("unable to read the directory {}: {why}", path.display()));
                return Vec::new();
            }
        };
        files.sort();
        if files.is_empty() {
            let pos = self.add(&path.display().to_string(), "");
            self.cx.error(pos, format!("no *.yaml or *.yml file in the directory {}", path.display()));
        }
        files.iter().filter_map(|file| self.file(file)).filter(|n| !n.is_null()).collect()
    }

    fn file(&mut self, path: &Path) -> Option<Node> {
        let name = path.display().to_string();
        match read_limited(path) {
            Ok(bytes) => self.bytes(&name, &bytes),
            Err(why) => {
                let pos = self.add(&name, "");
                self.cx.error(pos, format!("unable to read the file {name}: {why}"));
                None
            }
        }
    }

    fn bytes(&mut self, name: &str, bytes: &[u8]) -> Option<Node> {
        let text = match yaml::utf8(bytes) {
            Ok(text) => text,
            Err((line, col, offset)) => {
                let pos = Pos { line, col, ..self.add(name, &String::from_utf8_lossy(bytes)) };
                self.cx.error_hint(
                    pos,
                    format!("invalid UTF-8 at byte {offset}"),
                    "save the file in the encoding UTF-8",
                );
                return None;
            }
        };
        let source = self.add(name, text).source;
        let node = yaml::parse(text, Place { source, ..Place::default() }, &mut self.cx)?;
        if !matches!(node.value, Value::Map(_) | Value::Null) {
            self.cx.error_hint(
                node.pos,
                format!("a config is a mapping, got {}", node.kind()),
                "start with receivers:, exporters: and service:",
            );
            return None;
        }
        Some(node)
    }

    fn set(&mut self, argument: &str) -> Option<Node> {
        let (path, text) = argument.split_once('=')?;
        let source = self.add("--set", argument).source;
        let shift = u32::try_from(path.chars().count()).unwrap_or(u32::MAX).saturating_add(1);
        let mut node = yaml::parse(text, Place { source, shift, fixed: None }, &mut self.cx)?;
        let keys: Vec<&str> = path.split('.').collect();
        if keys.len() > yaml::MAX_DEPTH {
            self.cx.error(node.pos, "the key is nested too deeply");
            return None;
        }
        let mut col = shift;
        for key in keys.iter().rev() {
            col -= u32::try_from(key.chars().count()).unwrap_or_default() + 1;
            let pos = Pos { source, line: 1, col: col + 1 };
            node = Node::new(pos, Value::Map(vec![(Key { pos, text: (*key).to_owned() }, node)]));
        }
        Some(node)
    }

    /// Remembers a source; its place without line and column.
    pub fn add(&mut self, name: &str, text: &str) -> Pos {
        add(&mut self.sources, name, text)
    }
}

/// Remembers a source; its place without line and column. Past 65,536 sources they share the last index.
pub(super) fn add(sources: &mut Vec<SourceText>, name: &str, text: &str) -> Pos {
    let index = u16::try_from(sources.len()).unwrap_or(u16::MAX);
    if index < u16::MAX {
        sources.push(SourceText { name: name.to_owned(), text: text.to_owned() });
    }
    Pos { source: index, line: 0, col: 0 }
}

/// Reads a file of at most one byte more than is parsed, so that the parser says what is wrong with the rest.
pub(super) fn read_limited(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(yaml::MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The Collector's merge: mappings key by key, everything else replaced, null as well.
pub fn merge(base: Node, over: Node) -> Node {
    match (base.value, over.value) {
        (Value::Map(mut entries), Value::Map(more)) => {
            let places: HashMap<String, usize> =
                entries.iter().enumerate().map(|(i, (key, _))| (key.text.clone(), i)).collect();
            for (key, value) in more {
                match places.get(&key.text).and_then(|i| entries.get_mut(*i)) {
                    Some((known, slot)) => {
                        let old = std::mem::replace(slot, Node::new(Pos::default(), Value::Null));
                        let both = matches!((&old.value, &value.value), (Value::Map(_), Value::Map(_)));
                        *slot = merge(old, value);
                        if !both {
                            *known = key;
                        }
                    }
                    None => entries.push((key, value)),
                }
            }
            Node { pos: base.pos, value: Value::Map(entries), expanded: None }
        }
        (_, value) => Node { pos: over.pos, value, expanded: over.expanded },
    }
}

/// Turns `a::b: 1` into `a: {b: 1}` at the top of an inline text.
fn unflatten(node: Node) -> Node {
    let Value::Map(entries) = node.value else { return node };
    let mut merged = Node::new(node.pos, Value::Map(Vec::new()));
    for (key, mut value) in entries {
        let parts: Vec<&str> = key.text.split("::").take(yaml::MAX_DEPTH).collect();
        let mut end = key.text.chars().count();
        for part in parts.iter().rev() {
            let start = end.saturating_sub(part.chars().count());
            let pos =
                Pos { col: key.pos.col.saturating_add(u32::try_from(start).unwrap_or_default()), ..key.pos };
            value = Node::new(pos, Value::Map(vec![(Key { pos, text: (*part).to_owned() }, value)]));
            end = start.saturating_sub(2);
        }
        merged = merge(merged, value);
    }
    merged
}
