//! The `transform` processor: runs statements of the transformation language.
//!
//! # What it promises
//!
//! * Statements have their effect in the order written, as if each had walked the request alone.
//! * Each changes what its context names and nothing above it; a statement that would is an error when the
//!   configuration is read.
//! * What no statement touches keeps its bytes. An item that cannot be read passes unchanged and is counted as malformed.
//!
//! # What it costs
//!
//! It is part of the walk it shares with its neighbours. A statement on resources costs nothing per item.

mod config;

#[cfg(test)]
mod tests;

pub use config::TransformConfig;

use crate::components::BuildError;
use crate::ottl::{Rules, StatementGroup};
use crate::pdata::Signal;
use crate::pipeline::{BuildContext, Stage};
use crate::processors::edit::Edit;

/// Compiles the processor for a signal.
///
/// # Errors
/// Statements that cannot be compiled, in a config that was not decoded from a file.
pub fn build(config: &TransformConfig, signal: Signal, cx: &BuildContext) -> Result<Stage, BuildError> {
    let groups = config
        .statements(signal)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
    let mut walks: Vec<Vec<StatementGroup>> = vec![Vec::new()];
    for group in groups {
        if group.looks_below() {
            walks.push(Vec::new());
        }
        if let Some(walk) = walks.last_mut() {
            walk.push(group);
        }
    }
    let edits = walks.into_iter().map(|groups| Rules::transform(&cx.id, signal, groups).edit());
    Ok(Stage::Edit(edits.reduce(Edit::then).unwrap_or_default()))
}
