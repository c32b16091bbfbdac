//! How pipelines feed each other: every connector has two sides and a name of its own, the pipelines it chooses from
//! are there, and nothing goes round in a circle.
//!
//! Costs a step a reference, and a search for each pipeline that a connector names; nothing is recursive, however many pipelines there are.

use std::collections::{HashMap, HashSet, VecDeque};

use super::super::root::{ComponentPlan, Draft, Pipeline, Ref};
use super::super::{Cx, Diag, Severity, nearest};
use super::{component, report_at};
use crate::components::Kind;
use crate::pdata::Signal;

/// The lists of a pipeline in which connectors stand.
const RECEIVERS: usize = 0;
const EXPORTERS: usize = 2;

/// How many circles are reported.
const CIRCLES: usize = 10;

/// Checks connectors. Returns the pipelines in an order in which targets come first; `None` if there is a circle.
pub(super) fn connectors(draft: &Draft, cx: &mut Cx) -> Option<Vec<usize>> {
    // What a mistyped pipeline lacks is no second mistake.
    let readable = !cx.diags.iter().any(|d| d.severity == Severity::Error && about_pipelines(&d.path));
    let sides = sides(draft);
    for connector in draft.components.iter().filter(|c| c.kind == Kind::Connector) {
        let ambiguous = ambiguous(connector, draft, cx);
        let both = Signal::ALL.map(|s| sides.get(&(connector.id.as_str(), s)).copied().unwrap_or_default());
        if readable && !ambiguous {
            one_sided(connector, &both, cx);
        }
        // One that no pipeline names is not built, so that it chooses from nothing.
        if both.iter().flatten().any(Option::is_some) {
            chosen(connector, draft, cx);
        }
    }
    order(draft, cx)
}

fn about_pipelines(path: &str) -> bool {
    path == "service" || path.starts_with("service::pipelines")
}

/// An id must say which component is meant.
fn ambiguous(connector: &ComponentPlan, draft: &Draft, cx: &mut Cx) -> bool {
    let id = &connector.id;
    let before = cx.diags.len();
    for kind in [Kind::Receiver, Kind::Exporter] {
        let Some(other) = component(draft, kind, id) else { continue };
        cx.diags.push(Diag {
            severity: Severity::Error,
            pos: connector.pos,
            path: format!("connectors::{id}"),
            message: format!("ambiguous id: found both \"{id}\" {} and \"{id}\" connector", kind.name()),
            hint: Some("change one of the two ids".to_owned()),
            related: Some((kind.name(), other.pos)),
        });
    }
    cx.diags.len() > before
}

/// Where an id first stands as an exporter, and where as a receiver.
type Sides<'d> = [Option<&'d Ref>; 2];

fn sides(draft: &Draft) -> HashMap<(&str, Signal), Sides<'_>> {
    let mut out: HashMap<(&str, Signal), Sides<'_>> = HashMap::new();
    for (side, list) in [EXPORTERS, RECEIVERS].into_iter().enumerate() {
        for (pipeline, reference) in references(draft, list) {
            let sides = out.entry((reference.id.as_str(), pipeline.signal)).or_default();
            if let Some(first) = sides.get_mut(side) {
                first.get_or_insert(reference);
            }
        }
    }
    out
}

/// A connector that pipelines feed has to feed others of the same signal, and the other way round.
fn one_sided(connector: &ComponentPlan, sides: &[Sides<'_>; 3], cx: &mut Cx) {
    let id = &connector.id;
    for (signal, sides) in Signal::ALL.into_iter().zip(sides) {
        let (has, lacks, there) = match sides {
            _ if !connector.component.signals.contains(&signal) => continue,
            [Some(there), None] => (Kind::Exporter, Kind::Receiver, there),
            [None, Some(there)] => (Kind::Receiver, Kind::Exporter, there),
            _ => continue,
        };
        let signal = signal.name();
        let message = format!(
            "connector \"{id}\" used as {} in [{signal}] pipeline but not used in any supported {} pipeline",
            has.name(),
            lacks.name()
        );
        let hint = format!(
            "it connects pipelines of the same signal: list it under {}: of another {signal} pipeline",
            lacks.section()
        );
        report_at(cx, &there.path, there.pos, message, Some(hint));
    }
}

fn references(draft: &Draft, list: usize) -> impl Iterator<Item = (&Pipeline, &Ref)> {
    draft.pipelines.iter().flat_map(move |p| p.refs.get(list).into_iter().flatten().map(move |r| (p, r)))
}

/// The pipelines a connector names must be there and list it; one that lists it should be named.
fn chosen(connector: &ComponentPlan, draft: &Draft, cx: &mut Cx) {
    let id = &connector.id;
    let refs = connector.config.pipeline_refs();
    let lists = |p: &Pipeline| p.refs.get(RECEIVERS).is_some_and(|refs| refs.iter().any(|r| r.id == *id));
    for (path, target) in &refs {
        let full = format!("connectors::{id}::{path}");
        let pos = connector.pos_of(path);
        match draft.pipelines.iter().find(|p| p.id == *target) {
            Some(pipeline) if lists(pipeline) || pipeline.misspelt.get(RECEIVERS) == Some(&true) => {}
            Some(_) => {
                let message = format!("the pipeline \"{target}\" does not have \"{id}\" as a receiver");
                let hint = format!("add \"{id}\" to service: pipelines: {target}: receivers:");
                report_at(cx, &full, pos, message, Some(hint));
            }
            None => {
                // Its id is what has been reported.
                let known = format!("service::pipelines::{target}");
                if cx.diags.iter().any(|d| d.path == known) {
                    continue;
                }
                let names: Vec<&str> = draft.pipelines.iter().map(|p| p.id.as_str()).collect();
                let hint = match nearest(target, &names) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => "define it under service: pipelines:".to_owned(),
                };
                let message = format!("references pipeline \"{target}\" which is not configured");
                report_at(cx, &full, pos, message, Some(hint));
            }
        }
    }
    let named: HashSet<&str> = refs.iter().map(|(_, target)| target.as_str()).collect();
    if refs.is_empty() {
        return;
    }
    for (pipeline, there) in references(draft, RECEIVERS).filter(|(_, r)| r.id == *id) {
        if !named.contains(pipeline.id.as_str()) {
            cx.diags.push(Diag {
                severity: Severity::Warning,
                pos: there.pos,
                path: there.path.clone(),
                message: format!("the connector \"{id}\" never sends to the pipeline \"{}\"", pipeline.id),
                hint: Some(format!("name the pipeline in connectors: {id}:, or take \"{id}\" out here")),
                related: None,
            });
        }
    }
}

/// Pipelines and connectors as nodes, with edges from what feeds to what is fed.
struct Flow<'d> {
    draft: &'d Draft,
    /// Connectors by id and signal; their nodes follow those of the pipelines.
    connectors: Vec<(&'d str, Signal)>,
    /// The nodes that each node feeds, and those that feed it.
    feeds: Vec<Vec<usize>>,
    fed_by: Vec<Vec<usize>>,
    /// Whether a circle has been cut.
    broken: bool,
}

impl<'d> Flow<'d> {
    fn new(draft: &'d Draft) -> Self {
        let mut flow =
            Flow { draft, connectors: Vec::new(), feeds: Vec::new(), fed_by: Vec::new(), broken: false };
        flow.feeds.resize(draft.pipelines.len(), Vec::new());
        flow.fed_by.resize(draft.pipelines.len(), Vec::new());
        let mut known: HashMap<(&str, Signal), usize> = HashMap::new();
        let ids: HashSet<&str> =
            draft.components.iter().filter(|c| c.kind == Kind::Connector).map(|c| c.id.as_str()).collect();
        for (at, pipeline) in draft.pipelines.iter().enumerate() {
            for list in [RECEIVERS, EXPORTERS] {
                let refs = pipeline.refs.get(list).into_iter().flatten();
                for reference in refs.filter(|r| ids.contains(r.id.as_str())) {
                    let key = (reference.id.as_str(), pipeline.signal);
                    let node = *known.entry(key).or_insert_with(|| {
                        flow.connectors.push(key);
                        flow.feeds.push(Vec::new());
                        flow.fed_by.push(Vec::new());
                        flow.feeds.len() - 1
                    });
                    let (from, to) = if list == EXPORTERS { (at, node) } else { (node, at) };
                    flow.edge(from, to);
                }
            }
        }
        flow
    }

    fn edge(&mut self, from: usize, to: usize) {
        if let Some(feeds) = self.feeds.get_mut(from) {
            feeds.push(to);
        }
        if let Some(fed_by) = self.fed_by.get_mut(to) {
            fed_by.push(from);
        }
    }

    /// Takes an edge out, so that another circle can be found.
    fn cut(&mut self, from: usize, to: usize) {
        self.broken = true;
        if let Some(feeds) = self.feeds.get_mut(from) {
            feeds.retain(|n| *n != to);
        }
        if let Some(fed_by) = self.fed_by.get_mut(to) {
            fed_by.retain(|n| *n != from);
        }
    }

    /// The nodes, each after all that it feeds; those on a circle and what feeds them are left out.
    fn targets_first(&self) -> Vec<usize> {
        let mut waits: Vec<usize> = self.feeds.iter().map(Vec::len).collect();
        let mut ready: VecDeque<usize> = (0..waits.len()).filter(|n| waits.get(*n) == Some(&0)).collect();
        let mut out = Vec::with_capacity(waits.len());
        while let Some(node) = ready.pop_front() {
            out.push(node);
            for feeder in self.fed_by.get(node).into_iter().flatten() {
                let Some(left) = waits.get_mut(*feeder) else { continue };
                *left -= 1;
                if *left == 0 {
                    ready.push_back(*feeder);
                }
            }
        }
        out
    }

    /// A circle among the nodes that are not in `sorted`: each of those feeds another one.
    fn circle(&self, sorted: &[usize]) -> Option<Vec<usize>> {
        let sorted: HashSet<usize> = sorted.iter().copied().collect();
        let mut at = (0..self.feeds.len()).find(|n| !sorted.contains(n))?;
        let (mut trail, mut seen) = (Vec::new(), HashMap::new());
        loop {
            if let Some(start) = seen.insert(at, trail.len()) {
                trail.drain(..start);
                return Some(trail);
            }
            trail.push(at);
            at = *self.feeds.get(at)?.iter().find(|n| !sorted.contains(n))?;
        }
    }

    fn name(&self, node: usize) -> String {
        match node.checked_sub(self.draft.pipelines.len()).and_then(|n| self.connectors.get(n)) {
            Some((id, signal)) => {
                let signal = signal.name();
                format!("connector \"{id}\" ({signal} to {signal})")
            }
            None => {
                let id = self.draft.pipelines.get(node).map(|p| p.id.as_str()).unwrap_or_default();
                format!("pipeline \"{id}\"")
            }
        }
    }
}

/// Reports circles, up to [`CIRCLES`] of them.
fn order(draft: &Draft, cx: &mut Cx) -> Option<Vec<usize>> {
    let mut flow = Flow::new(draft);
    let pipelines = draft.pipelines.len();
    for _ in 0..CIRCLES {
        let sorted = flow.targets_first();
        let Some(mut circle) = flow.circle(&sorted) else {
            return (!flow.broken).then(|| sorted.into_iter().filter(|n| *n < pipelines).collect());
        };
        // It is told from the first pipeline in the file; where that one feeds the connector is the place.
        if let Some(first) = (0..circle.len()).min_by_key(|i| circle.get(*i)) {
            circle.rotate_left(first);
        }
        let first = *circle.first()?;
        let pipeline = draft.pipelines.get(first)?;
        circle.rotate_left(1);
        let next = *circle.first()?;
        circle.push(next);
        let (id, _) = flow.connectors.get(next.checked_sub(pipelines)?)?;
        let there = pipeline.refs.get(EXPORTERS)?.iter().find(|r| r.id == *id)?;
        let names: Vec<String> = circle.iter().map(|n| flow.name(*n)).collect();
        let message = format!("cycle detected: {}", names.join(" -> "));
        report_at(cx, &there.path, there.pos, message, Some("take one of the connectors out".to_owned()));
        flow.cut(first, next);
    }
    None
}
