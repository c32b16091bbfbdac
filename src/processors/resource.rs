//! The `resource` processor: changes attributes of resources.

use crate::components::{BuildError, ComponentConfig};
use crate::config;
use crate::config::{Cx, Node};
use crate::pdata::Signal;
use crate::pipeline::{BuildContext, Stage};
use crate::processors::edit::{Action, Edit};

config! {
    /// Changes attributes of the resource that telemetry comes from.
    pub struct ResourceProcessorConfig {
        /// The actions, run in the order written. Required.
        pub attributes: Vec<Action> = Vec::new(),
    }
    validate = ResourceProcessorConfig::check;
}

impl ResourceProcessorConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        if node.get("attributes").is_none_or(Node::is_null) || self.attributes.is_empty() {
            cx.error_hint(
                node.pos_of("attributes"),
                "missing required field \"attributes\"",
                "list at least one action, such as {key: host.name, value: web-1, action: upsert}",
            );
        }
    }
}

impl ComponentConfig for ResourceProcessorConfig {}

/// Compiles the processor.
///
/// # Errors
/// Invalid actions in a config that was not decoded from a file.
pub fn build(
    config: &ResourceProcessorConfig,
    _signal: Signal,
    _cx: &BuildContext,
) -> Result<Stage, BuildError> {
    let ops = config.attributes.iter().map(Action::compile).collect::<Result<_, _>>()?;
    Ok(Stage::Edit(Edit::resource(ops)))
}
