//! `forward`: hands everything on to all pipelines that list it as a receiver.
//!
//! Copies share the telemetry's bytes. It costs one clone a further pipeline.

use super::{Connector, Target};
use crate::components::{BuildError, ComponentConfig};
use crate::pdata::Signal;
use crate::pipeline::BuildContext;
use crate::pipeline::stages::FanOut;

crate::config! {
    /// Hands everything on to all pipelines of the same signal that list it as a receiver. Pipelines that list it as
    /// an exporter are joined by it; with several behind it, each gets everything.
    pub struct ForwardConfig {}
}

impl ComponentConfig for ForwardConfig {}

/// Builds the connector for a signal.
///
/// # Errors
/// When no pipeline lists it as a receiver.
pub fn build(
    _config: &ForwardConfig,
    _signal: Signal,
    targets: Vec<Target>,
    _cx: &BuildContext,
) -> Result<Connector, BuildError> {
    FanOut::over(targets.into_iter().map(|target| target.entry).collect())
        .map(|consumer| Connector { consumer, gap: None })
        .ok_or_else(|| "no pipeline lists it as a receiver".to_owned())
}
