//! The `attributes` processor: changes attributes of spans, log records or data points.

use crate::components::{BuildError, ComponentConfig};
use crate::config;
use crate::config::{Cx, Node};
use crate::pdata::Signal;
use crate::pipeline::{BuildContext, Stage};
use crate::processors::edit::{Action, Edit};
use crate::processors::matching::{MatchConfig, Matcher};

config! {
    /// Changes attributes of spans, log records and data points. Attributes of span events, links and scopes
    /// are left alone.
    pub struct AttributesProcessorConfig {
        /// The actions, run in the order written. Required.
        pub actions: Vec<Action> = Vec::new(),
        /// Which items are changed; all when not given.
        pub include: Option<MatchConfig> = None,
        /// Which of those are not changed.
        pub exclude: Option<MatchConfig> = None,
    }
    validate = AttributesProcessorConfig::check;
}

impl AttributesProcessorConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        if node.get("actions").is_none_or(Node::is_null) || self.actions.is_empty() {
            cx.error_hint(
                node.pos_of("actions"),
                "missing required field \"actions\"",
                "list at least one action, such as {key: env, value: prod, action: insert}",
            );
        }
    }
}

impl ComponentConfig for AttributesProcessorConfig {}

/// Compiles the processor for a signal.
///
/// # Errors
/// `include` or `exclude` with criteria that do not fit the signal; invalid actions in a config that was not
/// decoded from a file.
pub fn build(
    config: &AttributesProcessorConfig,
    signal: Signal,
    _cx: &BuildContext,
) -> Result<Stage, BuildError> {
    let ops = config.actions.iter().map(Action::compile).collect::<Result<_, _>>()?;
    let matcher = Matcher::new(config.include.as_ref(), config.exclude.as_ref(), signal)?;
    Ok(Stage::Edit(Edit::items(matcher, ops)))
}
