//! The `relabel` processor: Prometheus' relabelling rules on traces, metrics and logs.
//!
//! A label is an attribute of the resource (`resource.K`), the scope (`scope.K`) or the item (`K`), or a field with a
//! name such as `__name__`. Values are text; those of other types are read as Prometheus' labels show them, and what a
//! rule sets is a string.
//!
//! # What it promises
//!
//! * The result is that of the rules run one after the other on each item's labels, however many items share them.
//! * What is wrong with rules is found with the configuration, and said of the rule and key.
//! * Any bytes are safe; what a rule does not set keeps its bytes and its place.
//!
//! # What it costs
//!
//! A rule runs once for each message of the lowest level it is about: rules about resources alone never look at items.
//! Nothing is allocated per item. Expressions that are plain text, or match anything, need no engine.

mod config;
mod explain;
mod label;
mod pattern;
mod rules;
mod run;
mod trace;

#[cfg(test)]
mod tests;

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use self::rules::Rules;
use self::run::Scratch;
use self::trace::Silent;
use crate::components::BuildError;
use crate::pdata::Signal;
use crate::pdata::wire::WireError;
use crate::pipeline::{BuildContext, Stage};
use crate::processors::edit::{Edit, Facts, Fate, Level, Levels, Message, Rewrite, StepCx};
use crate::telemetry::{Metrics, dropped};

pub use self::config::{LabelRule, RelabelProcessorConfig};
pub use self::explain::{Explained, Labels, explain};
pub use self::trace::Effect;

/// The processor for one signal.
struct Relabel {
    rules: Rules,
    signal: Signal,
    id: String,
    metrics: Arc<Metrics>,
}

/// Compiles the processor for a signal.
///
/// # Errors
/// A rule that has no meaning for the signal; invalid rules in a config that was not decoded from a file.
pub fn build(
    config: &RelabelProcessorConfig,
    signal: Signal,
    cx: &BuildContext,
) -> Result<Stage, BuildError> {
    let rules = config.compile(signal)?;
    let relabel = Relabel { rules, signal, id: cx.id.clone(), metrics: cx.metrics.clone() };
    Ok(Stage::Edit(Edit::rules(Arc::new(relabel))))
}

impl fmt::Debug for Relabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relabel").field("id", &self.id).field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Rewrite for Relabel {
    fn levels(&self, _signal: Signal) -> Levels {
        self.rules.levels()
    }

    fn drops(&self) -> bool {
        self.rules.drops
    }

    fn scratch(&self, _facts: &Facts<'_>) -> Box<dyn Any> {
        Box::new(Scratch::new(&self.rules))
    }

    fn apply(&self, message: &mut Message<'_>, cx: &mut StepCx<'_>) -> Result<Fate, WireError> {
        let Some(scratch) = cx.scratch.downcast_mut() else { return Ok(Fate::Skip) };
        self.rules.run(message, cx.facts.tenant, scratch, &mut Silent)
    }

    fn dropped(&self, items: usize) {
        dropped(&self.metrics, &self.id, self.signal, items, "relabel");
    }

    fn growth(&self, level: Level) -> usize {
        self.rules.growth(level)
    }
}
