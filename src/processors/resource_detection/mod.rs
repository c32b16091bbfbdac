//! The `resource_detection` processor: adds to every resource what the agent finds out about the place it runs at.
//!
//! What it promises
//!
//! * Detection is over before the first port opens, so that no telemetry passes without its result; it takes at most
//!   `timeout` for each detector. `validate` detects nothing.
//! * All pipelines that use one such processor see the same result, also after a refresh.
//! * What could not be found out is logged, and missing; with `fail_on_missing_metadata` the agent does not start.
//!
//! What it costs: for each resource the look-up of each attribute found. Scopes and items are not looked at.

mod config;
mod env;
mod names;
mod system;

#[cfg(test)]
mod tests;

use std::any::Any;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{OnceCell, oneshot};

pub use config::{
    Detector, EnvConfig, HostnameSource, Known, KubernetesConfig, ResourceDetectionConfig, Switches,
    SystemConfig,
};

use crate::components::BuildError;
use crate::config::types::Any as AnyValue;
use crate::pdata::Signal;
use crate::pdata::wire::WireError;
use crate::pipeline::runtime::Supervisor;
use crate::pipeline::{BuildContext, Prepare, RunContext, Stage, StartError};
use crate::processors::edit::{Edit, Facts, Fate, Level, Levels, Message, Rewrite, StepCx, put_any};
use crate::telemetry::Metrics;

/// An attribute that was found: its key, its value as it is written, and its encoded `AnyValue`.
#[derive(Debug, Clone, PartialEq)]
struct Found {
    key: String,
    value: AnyValue,
    encoded: Vec<u8>,
}

/// What a detector found, and what it should have found and could not.
#[derive(Debug, Clone, Default, PartialEq)]
struct Findings {
    found: Vec<Found>,
    missing: Vec<String>,
}

/// Where detectors look.
#[derive(Clone)]
struct Place {
    /// Before `/etc`, `/proc` and `/sys`.
    root: PathBuf,
    variable: Arc<dyn Fn(&str) -> Option<String> + Send + Sync>,
    names: Arc<dyn names::Names>,
}

/// What was found, for all pipelines of one processor.
struct Detection {
    id: String,
    config: ResourceDetectionConfig,
    place: Place,
    /// Kept so that no other agent in this process can be taken for this one.
    metrics: Arc<Metrics>,
    started: OnceCell<()>,
    current: Mutex<Current>,
}

#[derive(Default)]
struct Current {
    /// By detector, in the order of the config.
    findings: Vec<Findings>,
    /// The attributes of all of them, each key once.
    merged: Arc<[Found]>,
}

/// The edit.
struct SetAll {
    detection: Arc<Detection>,
    replace: bool,
}

/// The detections there are: the same id in the same agent is the same one.
static DETECTIONS: Mutex<Vec<Weak<Detection>>> = Mutex::new(Vec::new());

/// Builds the processor.
///
/// # Errors
/// None: the config has been checked.
pub fn build(
    config: &ResourceDetectionConfig,
    _signal: Signal,
    cx: &BuildContext,
) -> Result<Stage, BuildError> {
    let detection = Detection::shared(config, cx);
    let edit = Edit::rules(Arc::new(SetAll { detection: detection.clone(), replace: config.r#override }));
    Ok(Stage::Prepared(edit, Arc::new(Shared(detection))))
}

/// A handle on what is shared.
struct Shared(Arc<Detection>);

#[async_trait]
impl Prepare for Shared {
    async fn start(&self, cx: &RunContext) -> Result<(), StartError> {
        self.0.start(cx).await
    }
}

impl Found {
    fn new(key: &str, value: AnyValue) -> Self {
        let mut encoded = Vec::new();
        put_any(&mut encoded, &value);
        Found { key: key.to_owned(), value, encoded }
    }

    fn text(key: &str, value: impl Into<String>) -> Self {
        Found::new(key, AnyValue::Str(value.into()))
    }
}

impl Place {
    fn here() -> Self {
        Place {
            root: PathBuf::from("/"),
            variable: Arc::new(|name| std::env::var(name).ok()),
            names: Arc::new(names::System),
        }
    }

    /// The trimmed content of a file; `None` if it cannot be read or is empty.
    fn read(&self, path: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.root.join(path.trim_start_matches('/'))).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// An environment variable that says something.
    fn variable(&self, name: &str) -> Option<String> {
        (self.variable)(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }
}

impl Detection {
    fn shared(config: &ResourceDetectionConfig, cx: &BuildContext) -> Arc<Self> {
        let mut all = DETECTIONS.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|known| known.strong_count() > 0);
        let same = |known: &Arc<Detection>| known.id == cx.id && Arc::ptr_eq(&known.metrics, &cx.metrics);
        if let Some(known) = all.iter().filter_map(Weak::upgrade).find(same) {
            return known;
        }
        let new = Arc::new(Detection {
            id: cx.id.clone(),
            config: config.clone(),
            place: Place::here(),
            metrics: cx.metrics.clone(),
            started: OnceCell::new(),
            current: Mutex::default(),
        });
        all.push(Arc::downgrade(&new));
        new
    }

    async fn start(self: &Arc<Self>, cx: &RunContext) -> Result<(), StartError> {
        self.started.get_or_try_init(|| self.first(&cx.supervisor)).await?;
        Ok(())
    }

    async fn first(self: &Arc<Self>, supervisor: &Supervisor) -> Result<(), StartError> {
        let findings = self.detect(supervisor).await;
        let missing: Vec<&str> = findings.iter().flat_map(|f| &f.missing).map(String::as_str).collect();
        if self.config.fail_on_missing_metadata && !missing.is_empty() {
            return Err(StartError::new(missing.join("; ")));
        }
        self.tell(&missing);
        self.take(findings);
        let every = self.config.refresh_interval;
        if !every.is_zero() {
            supervisor.spawn("resource detection", refresh(Arc::downgrade(self), supervisor.clone(), every));
        }
        Ok(())
    }

    /// Asks every detector.
    async fn detect(&self, supervisor: &Supervisor) -> Vec<Findings> {
        let mut all = Vec::new();
        for detector in &self.config.detectors {
            all.push(self.ask(*detector, supervisor).await);
        }
        all
    }

    /// Asks one detector, on a thread of its own: the resolver may take its time.
    async fn ask(&self, detector: Detector, supervisor: &Supervisor) -> Findings {
        let (config, place) = (self.config.clone(), self.place.clone());
        let (tx, rx) = oneshot::channel();
        let work = move || {
            let _ = tx.send(match detector {
                Detector::Env => env::detect(&config.env, &place),
                Detector::System => system::detect(&config.system, &place),
                Detector::K8sNode => env::kubernetes(&config.k8snode, &place),
                Detector::K8sApi => env::kubernetes(&config.k8s_api, &place),
            });
        };
        let failed = |why: String| Findings {
            found: Vec::new(),
            missing: vec![format!("the detector \"{}\" {why}", detector.word())],
        };
        if let Err(error) = supervisor.thread("resource detection", work) {
            return failed(format!("cannot run: {error}"));
        }
        let limit = Some(self.config.timeout).filter(|t| !t.is_zero()).unwrap_or(Duration::MAX);
        match tokio::time::timeout(limit, rx).await {
            Ok(Ok(findings)) => findings,
            Ok(Err(_)) => failed("ended without an answer".to_owned()),
            Err(_) => failed(format!("has not answered within {limit:?}")),
        }
    }

    /// What was found counts from now on. Returns whether that is anything new.
    fn take(&self, findings: Vec<Findings>) -> bool {
        let merged = merge(&findings);
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let new = *current.merged != *merged;
        *current = Current { findings, merged };
        drop(current);
        if new {
            let shown = self.merged();
            let shown: Vec<String> =
                shown.iter().map(|f| format!("{}={}", f.key, shown_value(&f.value))).collect();
            tracing::info!(otelcol.component.id = %self.id, resource = shown.join(", "), "detected resource information");
        }
        new
    }

    fn refresh(&self, mut findings: Vec<Findings>) {
        let old = std::mem::take(&mut self.current.lock().unwrap_or_else(PoisonError::into_inner).findings);
        for (new, old) in findings.iter_mut().zip(&old).filter(|(new, _)| !new.missing.is_empty()) {
            // Where something is missing now, what was known of it is still the best guess.
            let mut kept = old.found.clone();
            for found in new.found.drain(..) {
                match kept.iter_mut().find(|known| known.key == found.key) {
                    Some(known) => *known = found,
                    None => kept.push(found),
                }
            }
            new.found = kept;
        }
        let missing: Vec<&str> = findings.iter().flat_map(|f| &f.missing).map(String::as_str).collect();
        let before: Vec<&str> = old.iter().flat_map(|f| &f.missing).map(String::as_str).collect();
        if missing != before {
            self.tell(&missing);
        }
        self.take(findings);
    }

    fn tell(&self, missing: &[&str]) {
        for why in missing {
            tracing::warn!(otelcol.component.id = %self.id, "resource detection: {why}");
        }
    }

    fn merged(&self) -> Arc<[Found]> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).merged.clone()
    }
}

/// Detects again and again, until nobody uses the result.
async fn refresh(detection: Weak<Detection>, supervisor: Supervisor, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let Some(detection) = detection.upgrade() else { return };
        let findings = detection.detect(&supervisor).await;
        detection.refresh(findings);
    }
}

/// All that was found, each key as the first detector has it.
fn merge(findings: &[Findings]) -> Arc<[Found]> {
    let mut merged: Vec<Found> = Vec::new();
    for found in findings.iter().flat_map(|f| &f.found) {
        if merged.iter().all(|known| known.key != found.key) {
            merged.push(found.clone());
        }
    }
    merged.into()
}

fn shown_value(value: &AnyValue) -> String {
    match value {
        AnyValue::Str(text) => text.clone(),
        AnyValue::List(items) => items.iter().map(shown_value).collect::<Vec<_>>().join(" "),
        AnyValue::Int(number) => number.to_string(),
        _ => String::new(),
    }
}

impl fmt::Debug for SetAll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetAll").field("id", &self.detection.id).field("replace", &self.replace).finish()
    }
}

impl Rewrite for SetAll {
    fn levels(&self, _signal: Signal) -> Levels {
        Levels::RESOURCE
    }

    fn drops(&self) -> bool {
        false
    }

    fn scratch(&self, _facts: &Facts<'_>) -> Box<dyn Any> {
        Box::new(self.detection.merged())
    }

    fn apply(&self, message: &mut Message<'_>, cx: &mut StepCx<'_>) -> Result<Fate, WireError> {
        let all = cx.scratch.downcast_ref::<Arc<[Found]>>().map(|all| &**all).unwrap_or_default();
        for Found { key, encoded, .. } in all {
            if self.replace || message.attribute(key.as_bytes()).is_none() {
                message.set_attribute(key.as_bytes(), encoded)?;
            }
        }
        Ok(Fate::Keep)
    }

    fn growth(&self, level: Level) -> usize {
        // Not known before detection; about what host, node and a few of the environment's have.
        if level == Level::Resource { 512 } else { 0 }
    }
}
