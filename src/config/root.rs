//! The whole file: from sources to a [`Plan`] the graph is built from.
//!
//! Everything that can be known without opening anything is checked here, in one run: [`load`] returns all
//! findings with their places, and a plan only when there is no error among them.

use std::collections::{HashMap, HashSet};

use super::node::{Key, Node, Pos, Value};
use super::sources::{Reader, Source, SourceText};
use super::telemetry::TelemetryConfig;
use super::types::{check_id, type_of};
use super::{Config, Cx, Diag, Severity, nearest, unknown_key};
use super::{check, expand, hide};
use crate::components::{AnyConfig, COMPONENTS, Component, Kind};
use crate::pdata::Signal;

/// How a config is read.
#[derive(Clone, Copy)]
pub struct LoadOptions<'a> {
    /// Warnings are errors.
    pub strict: bool,
    /// Looks up variables for `${env:…}`.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// The components there are.
    pub components: &'static [Component],
}

impl Default for LoadOptions<'_> {
    fn default() -> Self {
        LoadOptions { strict: false, env: &process_env, components: COMPONENTS }
    }
}

/// What came of reading a config.
pub struct Loaded {
    /// What to build; `None` when there is an error among the findings.
    pub plan: Option<Plan>,
    /// The findings, in the order of sources and lines.
    pub diags: Vec<Diag>,
    /// What positions point into.
    pub sources: Vec<SourceText>,
    /// The merged and expanded config, if it could be read.
    pub tree: Option<Node>,
    /// Paths of values that must not be shown, such as `exporters::otlp::headers::authorization`.
    pub secrets: HashSet<String>,
}

impl Loaded {
    /// Adds errors found after loading: place, path and reason of each. The plan is gone.
    pub fn fail(&mut self, errors: impl IntoIterator<Item = (Pos, String, String)>) {
        for (pos, path, message) in errors {
            self.diags.push(Diag {
                severity: Severity::Error,
                pos,
                path,
                message,
                hint: None,
                related: None,
            });
        }
        self.diags.sort_by_key(|d| (d.pos, std::cmp::Reverse(d.severity)));
        self.plan = None;
    }

    /// Whether the agent can start with it.
    pub fn is_ok(&self) -> bool {
        self.plan.is_some()
    }
}

/// What to build.
pub struct Plan {
    /// Every component that is defined, used or not, in the order of the file.
    pub components: Vec<ComponentPlan>,
    /// The pipelines, in the order of the file.
    pub pipelines: Vec<PipelinePlan>,
    /// The pipelines in an order in which those that a connector feeds come before those that feed it; as indices.
    pub order: Vec<usize>,
    /// Ids of the extensions to start, in this order: an extension comes after those it refers to.
    pub extensions: Vec<String>,
    /// The agent's own telemetry.
    pub telemetry: TelemetryConfig,
}

impl Plan {
    /// The component `id` of a kind.
    pub fn component(&self, kind: Kind, id: &str) -> Option<&ComponentPlan> {
        self.components.iter().find(|c| c.kind == kind && c.id == id)
    }
}

/// A component as it is defined.
pub struct ComponentPlan {
    /// Which section it stands in.
    pub kind: Kind,
    /// Its id as written, such as `otlp/2`.
    pub id: String,
    /// The type as written, perhaps an alias; `component.name` is the canonical one.
    pub type_name: String,
    /// Its row of the table.
    pub component: &'static Component,
    /// Its decoded config.
    pub config: Box<dyn AnyConfig>,
    /// Whether a pipeline or `service.extensions` names it; nothing else is built.
    pub used: bool,
    /// Where its id stands.
    pub pos: Pos,
    /// What was written, expanded: for comparing with the config before a reload, see [`Node::same`].
    pub node: Node,
}

impl ComponentPlan {
    /// Where the value under `path` (`protocols::grpc::endpoint`) stands, or the nearest thing above it.
    pub fn pos_of(&self, path: &str) -> Pos {
        let mut at = (&self.node, self.pos);
        for segment in path.split("::").filter(|s| !s.is_empty()) {
            let next = match &at.0.value {
                Value::Seq(items) => {
                    segment.parse::<usize>().ok().and_then(|i| items.get(i)).map(|n| (n, n.pos))
                }
                _ => at.0.entry(segment).map(|(key, n)| (n, if n.is_null() { key.pos } else { n.pos })),
            };
            match next {
                Some(next) => at = next,
                None => break,
            }
        }
        // A mapping starts at its first key; where its own key stands says more.
        at.1
    }
}

/// A pipeline as it is defined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelinePlan {
    /// Its id, such as `traces/2`.
    pub id: String,
    /// What flows through it.
    pub signal: Signal,
    /// Ids of receivers, and of connectors that feed it, without repetitions.
    pub receivers: Vec<String>,
    /// Ids of processors, in order.
    pub processors: Vec<String>,
    /// Ids of exporters, and of connectors that it feeds, without repetitions.
    pub exporters: Vec<String>,
    /// Where its id stands.
    pub pos: Pos,
}

/// A name in a list, and its place.
#[derive(Debug, Clone)]
pub(super) struct Ref {
    pub id: String,
    pub pos: Pos,
    pub path: String,
}

/// A pipeline with the places of its references.
pub(super) struct Pipeline {
    pub id: String,
    pub signal: Signal,
    pub pos: Pos,
    /// Receivers, processors, exporters.
    pub refs: [Vec<Ref>; 3],
    /// Which of them are there under a misspelt key: what they lack is no second mistake.
    pub misspelt: [bool; 3],
}

/// What the file says, before it is checked as a whole.
pub(super) struct Draft {
    pub root: Pos,
    pub components: Vec<ComponentPlan>,
    /// Ids whose type is unknown: they are defined, so references to them are no second mistake.
    pub unknown: HashSet<(Kind, String)>,
    /// Sections that are there but cannot be read, or misspelt: what they lack is no second mistake.
    pub broken: HashSet<Kind>,
    pub pipelines: Vec<Pipeline>,
    pub extensions: Vec<Ref>,
    pub telemetry: TelemetryConfig,
    pub telemetry_node: Node,
}

/// Reads, merges, expands, decodes and checks a config. Opens nothing but the files it is told to read.
pub fn load(sources: &[Source], options: LoadOptions<'_>) -> Loaded {
    let mut reader = Reader { env: options.env, sources: Vec::new(), cx: Cx::default() };
    let tree = reader.read_all(sources);
    let (mut texts, mut cx) = (reader.sources, reader.cx);
    let tree = tree.map(|node| expand::expand(node, options.env, &mut texts, &mut cx));
    let broken = cx.diags.iter().any(|d| d.severity == Severity::Error);
    let read = cx.diags.len();
    cx.texts = texts;
    let draft = match &tree {
        Some(node) if !is_empty(node) => Some(decode(node, options.components, &mut cx)),
        // A file that cannot be read is not an empty one.
        _ if broken => None,
        _ => {
            let one = u32::from(!cx.texts.is_empty());
            let pos = Pos { source: 0, line: one, col: one };
            cx.error_hint(
                pos,
                "empty configuration file",
                "a config has receivers:, exporters: and service:",
            );
            None
        }
    };
    let plan = draft.and_then(|draft| check::check(draft, &mut cx));
    let mut texts = std::mem::take(&mut cx.texts);
    let mut diags = cx.diags;
    let found = diags.split_off(read);
    // What stands in for a value that could not be read is no second mistake.
    let unread: HashSet<Pos> =
        diags.iter().filter(|d| d.severity == Severity::Error).map(|d| d.pos).collect();
    diags.extend(found.into_iter().filter(|d| d.pos.line == 0 || !unread.contains(&d.pos)));
    let secrets = tree
        .as_ref()
        .map(|tree| hide::hide(tree, cx.secrets, cx.unknown, cx.mistyped, &mut texts))
        .unwrap_or_default();
    if options.strict {
        for diag in diags.iter_mut().filter(|d| d.severity == Severity::Warning) {
            diag.severity = Severity::Error;
        }
    }
    diags.sort_by_key(|d| (d.pos, std::cmp::Reverse(d.severity)));
    diags.dedup();
    let failed = diags.iter().any(|d| d.severity == Severity::Error);
    Loaded { plan: plan.filter(|_| !failed), diags, sources: texts, tree, secrets }
}

/// Any bytes as a config, with no variables set: for fuzzing and tests.
pub fn parse_bytes(bytes: &[u8]) -> Loaded {
    let options = LoadOptions { env: &|_| None, ..LoadOptions::default() };
    load(&[Source::Bytes("config.yaml".to_owned(), bytes.to_vec())], options)
}

fn process_env(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

fn is_empty(node: &Node) -> bool {
    matches!(&node.value, Value::Map(entries) if entries.iter().all(|(_, v)| v.is_null())) || node.is_null()
}

fn decode(root: &Node, table: &'static [Component], cx: &mut Cx) -> Draft {
    let mut draft = Draft {
        root: root.pos,
        components: Vec::new(),
        unknown: HashSet::new(),
        broken: HashSet::new(),
        pipelines: Vec::new(),
        extensions: Vec::new(),
        telemetry: TelemetryConfig::default(),
        telemetry_node: Node::new(root.pos, Value::Null),
    };
    const KEYS: &[&str] = &["receivers", "processors", "exporters", "connectors", "extensions", "service"];
    for (key, node) in entries(root, cx) {
        cx.push(&key.text);
        match Kind::ALL.iter().find(|k| k.section() == key.text) {
            Some(kind) => section(*kind, node, table, &mut draft, cx),
            None if key.text == "service" => service(node, &mut draft, cx),
            None => {
                unknown_key(key.pos, &key.text, KEYS, cx);
                let meant = nearest(&key.text, KEYS);
                draft.broken.extend(Kind::ALL.into_iter().filter(|k| Some(k.section()) == meant));
            }
        }
        cx.pop();
    }
    draft
}

fn section(kind: Kind, node: &Node, table: &'static [Component], draft: &mut Draft, cx: &mut Cx) {
    let mut seen: HashMap<&str, Pos> = HashMap::new();
    if !matches!(node.value, Value::Map(_) | Value::Null) {
        draft.broken.insert(kind);
    }
    for (key, value) in entries(node, cx) {
        cx.push(&key.text);
        let id = key.text.trim();
        match check_id(id) {
            Err(why) => {
                cx.unknown();
                cx.error_hint(key.pos, why, format!("{} id is type or type/name", article(kind)));
            }
            Ok(()) => {
                if let Some(first) = seen.insert(id, key.pos) {
                    cx.twice(key.pos, format!("duplicate name \"{id}\""), first);
                }
                match find(table, kind, type_of(id)) {
                    Some(component) => {
                        draft.components.push(decode_component(kind, key, value, component, cx))
                    }
                    None => {
                        unknown_type(kind, key.pos, type_of(id), table, cx);
                        draft.unknown.insert((kind, id.to_owned()));
                    }
                }
            }
        }
        cx.pop();
    }
}

fn decode_component(
    kind: Kind,
    key: &Key,
    value: &Node,
    component: &'static Component,
    cx: &mut Cx,
) -> ComponentPlan {
    let id = key.text.trim();
    let type_name = type_of(id);
    if type_name != component.name {
        let message = format!("\"{type_name}\" alias is deprecated; use \"{}\" instead", component.name);
        cx.warn(key.pos, message);
    }
    // Mistakes in an empty block stand at its key.
    let node = if value.is_null() { Node::new(key.pos, Value::Null) } else { value.clone() };
    ComponentPlan {
        kind,
        id: id.to_owned(),
        type_name: type_name.to_owned(),
        component,
        config: (component.decode)(&node, cx),
        used: false,
        pos: key.pos,
        node,
    }
}

pub(super) fn find(table: &'static [Component], kind: Kind, name: &str) -> Option<&'static Component> {
    table.iter().find(|c| c.kind == kind && (c.name == name || c.aliases.contains(&name)))
}

fn unknown_type(kind: Kind, pos: Pos, name: &str, table: &'static [Component], cx: &mut Cx) {
    let message = format!("unknown {} type \"{name}\"", kind.name());
    cx.unknown();
    if let Some(hint) = gone(kind, name) {
        return cx.error_hint(pos, message, hint);
    }
    let names: Vec<&str> = table.iter().filter(|c| c.kind == kind).map(|c| c.name).collect();
    if let Some(other) = Kind::ALL.iter().find(|k| **k != kind && find(table, **k, name).is_some()) {
        let hint = format!("\"{name}\" is {}; write it under {}:", article(*other), other.section());
        return cx.error_hint(pos, message, hint);
    }
    match nearest(name, &names) {
        Some(near) => cx.error_hint(pos, message, format!("did you mean \"{near}\"?")),
        None => cx.error_hint(pos, message, format!("known types: {}", names.join(", "))),
    }
}

/// What to use in place of types that Collector users may still have.
fn gone(kind: Kind, name: &str) -> Option<&'static str> {
    match (kind, name) {
        (Kind::Exporter, "logging") => Some("the logging exporter is gone; use \"debug\""),
        (Kind::Exporter, "jaeger" | "jaeger_thrift" | "zipkin") => Some("send OTLP: use \"otlp_grpc\""),
        (Kind::Exporter, "opencensus") | (Kind::Receiver, "opencensus" | "jaeger" | "zipkin") => {
            Some("only OTLP is spoken here: use \"otlp\" (exporters: \"otlp_grpc\")")
        }
        (Kind::Processor, "queued_retry") => {
            Some("queue and retry belong to exporters: sending_queue, retry_on_failure")
        }
        (Kind::Extension, "memory_ballast") => Some("there is no heap to hold down; take it out"),
        _ => None,
    }
}

/// The kind with its article.
pub(super) fn article(kind: Kind) -> String {
    match kind {
        Kind::Exporter | Kind::Extension => format!("an {}", kind.name()),
        Kind::Receiver | Kind::Processor | Kind::Connector => format!("a {}", kind.name()),
    }
}

fn service(node: &Node, draft: &mut Draft, cx: &mut Cx) {
    for (key, value) in entries(node, cx) {
        cx.push(&key.text);
        match key.text.as_str() {
            "extensions" => draft.extensions = refs(value, cx),
            "pipelines" => pipelines(value, draft, cx),
            "telemetry" => {
                draft.telemetry.decode_into(value, cx);
                draft.telemetry_node = value.clone();
            }
            other => unknown_key(key.pos, other, &["extensions", "pipelines", "telemetry"], cx),
        }
        cx.pop();
    }
}

fn pipelines(node: &Node, draft: &mut Draft, cx: &mut Cx) {
    let mut seen: HashMap<String, Pos> = HashMap::new();
    for (key, value) in entries(node, cx) {
        cx.push(&key.text);
        let id = key.text.trim();
        let signal = signal_of(id, key.pos, cx);
        if let Some(first) = seen.insert(id.to_owned(), key.pos) {
            cx.twice(key.pos, format!("duplicate name \"{id}\""), first);
        }
        const KEYS: &[&str] = &["receivers", "processors", "exporters"];
        let mut refs: [Vec<Ref>; 3] = Default::default();
        let mut misspelt = [false; 3];
        for (key, value) in entries(value, cx) {
            cx.push(&key.text);
            let index = KEYS.iter().position(|k| *k == key.text);
            match index.and_then(|i| refs.get_mut(i)) {
                Some(slot) => *slot = self::refs(value, cx),
                None => {
                    unknown_key(key.pos, &key.text, KEYS, cx);
                    let meant = nearest(&key.text, KEYS);
                    misspelt.iter_mut().zip(KEYS).for_each(|(slot, k)| *slot |= meant == Some(k));
                }
            }
            cx.pop();
        }
        if let Some(signal) = signal {
            draft.pipelines.push(Pipeline { id: id.to_owned(), signal, pos: key.pos, refs, misspelt });
        }
        cx.pop();
    }
}

fn signal_of(id: &str, pos: Pos, cx: &mut Cx) -> Option<Signal> {
    if let Err(why) = check_id(id) {
        cx.error_hint(pos, why, "a pipeline's id is traces, metrics or logs, perhaps with /name");
        return None;
    }
    let name = type_of(id);
    let found = Signal::ALL.into_iter().find(|s| s.name() == name);
    if found.is_none() {
        let names = Signal::ALL.map(Signal::name);
        match name {
            "profiles" => cx.error(pos, "the signal profiles is not supported"),
            _ => {
                let hint = nearest(name, &names).map(|n| format!("did you mean \"{n}\"?"));
                let hint = hint.unwrap_or_else(|| format!("known signals: {}", names.join(", ")));
                cx.error_hint(pos, format!("unknown pipeline signal: \"{name}\""), hint);
            }
        }
    }
    found
}

/// A list of ids; a comma-separated text counts as one.
fn refs(node: &Node, cx: &mut Cx) -> Vec<Ref> {
    let mut out = Vec::new();
    let mut add = |text: &str, pos: Pos, cx: &mut Cx| {
        let id = text.trim();
        match check_id(id) {
            Ok(()) => out.push(Ref { id: id.to_owned(), pos, path: cx.path() }),
            Err(why) => cx.error(pos, why),
        }
    };
    match &node.value {
        Value::Null => {}
        Value::Str(text) => {
            text.split(',').filter(|_| !text.is_empty()).for_each(|part| add(part, node.pos, cx))
        }
        Value::Seq(items) => {
            for (i, item) in items.iter().enumerate() {
                cx.push(&i.to_string());
                match &item.value {
                    Value::Str(text) => add(text, item.pos, cx),
                    _ => cx.wrong_type(item, "the id of a component"),
                }
                cx.pop();
            }
        }
        _ => cx.wrong_type(node, "a list of component ids"),
    }
    out
}

/// The entries of a mapping; null has none, anything else is an error.
fn entries<'n>(node: &'n Node, cx: &mut Cx) -> &'n [(Key, Node)] {
    match &node.value {
        Value::Map(entries) => entries,
        Value::Null => &[],
        _ => {
            cx.wrong_type(node, "a mapping");
            &[]
        }
    }
}

#[cfg(test)]
mod joined;
#[cfg(test)]
mod table;
#[cfg(test)]
mod tests;
