//! From a plan to components wired together. Nothing is opened here: `validate` builds a graph too.
//!
//! Built from the exporters backwards, so that every consumer exists before what feeds it: in each pipeline, and
//! from pipeline to pipeline where connectors join them. One receiver per id; one exporter and one connector per id
//! and signal, shared by pipelines; processors per pipeline. Adjacent edits become one [`Program`].

use std::collections::HashMap;
use std::sync::Arc;

use super::accounting;
use crate::components::{Build, Kind};
use crate::config::{ComponentPlan, PipelinePlan, Plan, Pos};
use crate::connectors::{Connector, Target};
use crate::pdata::Signal;
use crate::pipeline::stages::{Books, Editing, Entry, Exit, FanOut, Observe, Regroup, Splitting};
use crate::pipeline::{
    BuildContext, Consumer, Exporter, Extension, Ledger, Outputs, Prepare, Receiver, Stage,
};
use crate::processors::edit::{Edit, Program};
use crate::telemetry::Metrics;

/// Components wired together, not yet started.
pub struct Graph {
    /// Extensions in start order.
    pub extensions: Vec<(String, Arc<dyn Extension>)>,
    /// Processors that have something to find out first.
    pub prepares: Vec<(String, Arc<dyn Prepare>)>,
    /// Every exporter in use.
    pub exporters: Vec<(String, Signal, Arc<dyn Exporter>)>,
    /// Stages with timers, nearest to the exporters first: over all pipelines, none comes after one that feeds it.
    pub regroups: Vec<Arc<Regroup>>,
    /// Receivers with the pipelines they feed.
    pub receivers: Vec<(String, Box<dyn Receiver>, Outputs)>,
}

/// A component that cannot be built from its config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphError {
    /// Where the component is written.
    pub pos: Pos,
    /// Its path, such as `exporters::otlp`.
    pub path: String,
    /// The reason.
    pub message: String,
}

/// Builds the graph of `plan`.
///
/// # Errors
/// Every component that cannot be built.
pub fn build(plan: &Plan, metrics: &Arc<Metrics>, ledger: &Arc<Ledger>) -> Result<Graph, Vec<GraphError>> {
    let mut builder = Builder { plan, metrics, ledger, errors: Vec::new(), prepares: Vec::new() };
    let extensions = builder.extensions();
    let exporters = builder.exporters();
    let mut regroups = Vec::new();
    let (mut entries, mut connectors) = (Entries::new(), Connectors::new());
    for pipeline in plan.order.iter().filter_map(|at| plan.pipelines.get(*at)) {
        let destinations = builder.destinations(pipeline, &exporters, &mut entries, &mut connectors);
        if let Some(entry) = builder.pipeline(pipeline, destinations, &mut regroups) {
            for id in unique(&pipeline.receivers) {
                let target = Target { pipeline: pipeline.id.clone(), entry: entry.clone() };
                entries.entry((id, pipeline.signal)).or_default().push(target);
            }
        }
    }
    let receivers = builder.receivers(entries);
    if !builder.errors.is_empty() {
        return Err(builder.errors);
    }
    let exporters = exporters.into_iter().map(|((id, signal), exporter)| (id, signal, exporter)).collect();
    Ok(Graph { extensions, prepares: builder.prepares, exporters, regroups, receivers })
}

struct Builder<'a> {
    plan: &'a Plan,
    metrics: &'a Arc<Metrics>,
    ledger: &'a Arc<Ledger>,
    errors: Vec<GraphError>,
    prepares: Vec<(String, Arc<dyn Prepare>)>,
}

/// Exporters by id and signal, in the order in which pipelines name them.
type Exporters = Vec<((String, Signal), Arc<dyn Exporter>)>;

/// Entries of pipelines, by what feeds them and signal.
type Entries<'a> = HashMap<(&'a str, Signal), Vec<Target>>;

/// Connectors by id and signal; `None` where one could not be built.
type Connectors<'a> = HashMap<(&'a str, Signal), Option<Arc<dyn Consumer>>>;

impl<'a> Builder<'a> {
    fn context(&self, id: &str) -> BuildContext {
        BuildContext { id: id.to_owned(), metrics: self.metrics.clone(), ledger: self.ledger.clone() }
    }

    /// The plan's component of that kind and id; the config check has made sure that there is one.
    fn find(&self, kind: Kind, id: &str) -> Option<&'a ComponentPlan> {
        self.plan.components.iter().find(|c| c.kind == kind && c.id == id)
    }

    /// Keeps what was built, or notes why it was not.
    fn keep<T>(&mut self, component: &ComponentPlan, built: Result<T, String>) -> Option<T> {
        built
            .map_err(|message| {
                let path = format!("{}::{}", component.kind.section(), component.id);
                let error = GraphError { pos: component.pos, path, message };
                // A processor in several pipelines fails the same way in each.
                if !self.errors.contains(&error) {
                    self.errors.push(error);
                }
            })
            .ok()
    }

    fn extensions(&mut self) -> Vec<(String, Arc<dyn Extension>)> {
        let mut out = Vec::new();
        for id in &self.plan.extensions {
            let Some(plan) = self.find(Kind::Extension, id) else { continue };
            let Build::Extension(make) = plan.component.build else { continue };
            let built = make(plan.config.as_ref(), &self.context(id));
            out.extend(self.keep(plan, built).map(|extension| (id.clone(), extension)));
        }
        out
    }

    fn exporters(&mut self) -> Exporters {
        let mut out: Exporters = Vec::new();
        for pipeline in &self.plan.pipelines {
            for id in &pipeline.exporters {
                let signal = pipeline.signal;
                if out.iter().any(|((known, s), _)| known == id && *s == signal) {
                    continue;
                }
                let Some(plan) = self.find(Kind::Exporter, id) else { continue };
                let Build::Exporter(make) = plan.component.build else { continue };
                let built = make(plan.config.as_ref(), signal, &self.context(id));
                out.extend(self.keep(plan, built).map(|exporter| ((id.clone(), signal), exporter)));
            }
        }
        out
    }

    /// What a pipeline sends to. Connectors among it are built when the first pipeline needs them; all that they feed
    /// is there by then.
    fn destinations(
        &mut self,
        pipeline: &'a PipelinePlan,
        exporters: &Exporters,
        entries: &mut Entries<'a>,
        connectors: &mut Connectors<'a>,
    ) -> Vec<Arc<dyn Consumer>> {
        let mut out = Vec::new();
        for id in unique(&pipeline.exporters) {
            let key = (id, pipeline.signal);
            if self.find(Kind::Connector, id).is_some() {
                let built = connectors
                    .entry(key)
                    .or_insert_with(|| self.connector(key, entries.remove(&key).unwrap_or_default()));
                out.extend(built.clone());
                continue;
            }
            let found = exporters.iter().find(|((known, s), _)| known == id && *s == pipeline.signal);
            out.extend(found.map(|(_, exporter)| exporter.clone() as Arc<dyn Consumer>));
        }
        out
    }

    fn connector(&mut self, (id, signal): (&str, Signal), targets: Vec<Target>) -> Option<Arc<dyn Consumer>> {
        let plan = self.find(Kind::Connector, id)?;
        let Build::Connector(make) = plan.component.build else { return None };
        let built = make(plan.config.as_ref(), signal, targets, &self.context(id));
        let Connector { consumer, gap } = self.keep(plan, built)?;
        if let Some(gap) = gap {
            accounting::watch_connector(self.metrics, id, signal, gap);
        }
        Some(consumer)
    }

    /// One pipeline's chain, from its destinations back to its entry.
    fn pipeline(
        &mut self,
        pipeline: &PipelinePlan,
        destinations: Vec<Arc<dyn Consumer>>,
        regroups: &mut Vec<Arc<Regroup>>,
    ) -> Option<Arc<dyn Consumer>> {
        let mut stages = Vec::new();
        for id in &pipeline.processors {
            let Some(plan) = self.find(Kind::Processor, id) else { continue };
            let Build::Processor(make) = plan.component.build else { continue };
            let built = make(plan.config.as_ref(), pipeline.signal, &self.context(id));
            stages.extend(match self.keep(plan, built) {
                Some(Stage::Prepared(edit, prepare)) => {
                    self.prepares.push((id.clone(), prepare));
                    Some(Stage::Edit(edit))
                }
                other => other,
            });
        }
        let books = Books::new(self.metrics, &pipeline.id);
        let mut next: Arc<dyn Consumer> = Arc::new(Exit::new(books.clone(), FanOut::over(destinations)?));
        let mut keeping = Vec::new();
        let mut edits: Vec<Edit> = Vec::new();
        for stage in stages.into_iter().rev() {
            let stage = match stage {
                Stage::Edit(edit) => {
                    edits.insert(0, edit);
                    continue;
                }
                Stage::Split(split, edit) => {
                    edits.splice(0..0, edit);
                    Stage::Split(split, None)
                }
                other => other,
            };
            next = self.editing(pipeline, std::mem::take(&mut edits), &books, next);
            next = match stage {
                Stage::Regroup(processor) => {
                    let regroup = Regroup::new(processor, books.clone(), next);
                    keeping.push(regroup.clone());
                    regroup
                }
                Stage::Split(split, _) => Arc::new(Splitting::new(split, books.clone(), next)),
                Stage::Observe(look) => Arc::new(Observe::new(look, next)),
                Stage::Edit(_) | Stage::Prepared(..) => next,
            };
        }
        next = self.editing(pipeline, edits, &books, next);
        accounting::watch_pipeline(self.metrics, &pipeline.id, books.clone(), keeping.clone());
        regroups.extend(keeping);
        Some(Arc::new(Entry::new(books, next)))
    }

    fn editing(
        &self,
        pipeline: &PipelinePlan,
        edits: Vec<Edit>,
        books: &Arc<Books>,
        next: Arc<dyn Consumer>,
    ) -> Arc<dyn Consumer> {
        if edits.is_empty() {
            return next;
        }
        Program::chain(pipeline.signal, edits).into_iter().rev().fold(next, |next, program| {
            Arc::new(Editing::new(program, self.metrics, &pipeline.id, books.clone(), next))
        })
    }

    fn receivers(&mut self, mut entries: Entries<'a>) -> Vec<(String, Box<dyn Receiver>, Outputs)> {
        let mut out = Vec::new();
        for plan in self.plan.components.iter().filter(|c| c.kind == Kind::Receiver) {
            let outputs = Signal::ALL.map(|s| {
                let entries = entries.remove(&(plan.id.as_str(), s)).unwrap_or_default();
                FanOut::over(entries.into_iter().map(|target| target.entry).collect())
            });
            let Build::Receiver(make) = plan.component.build else { continue };
            if outputs.iter().all(Option::is_none) {
                continue;
            }
            let built = make(plan.config.as_ref(), &self.context(&plan.id));
            out.extend(self.keep(plan, built).map(|receiver| (plan.id.clone(), receiver, outputs)));
        }
        out
    }
}

/// The ids without repeats: a component listed twice in one list counts once.
fn unique(ids: &[String]) -> impl Iterator<Item = &str> {
    ids.iter()
        .enumerate()
        .filter(|(i, id)| !ids.iter().take(*i).any(|seen| seen == *id))
        .map(|(_, id)| id.as_str())
}
