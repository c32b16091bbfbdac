//! The configuration of `transform`.

use crate::components::ComponentConfig;
use crate::config;
use crate::config::types::{Fixed, Unsupported};
use crate::config::{Cx, Node};
use crate::ottl::{ErrorMode, StatementGroup};
use crate::pdata::Signal;
use crate::processors::statements::{Groups, Problem, StatementBlock, statement_groups};

config! {
    /// Changes telemetry with OTTL statements.
    pub struct TransformConfig {
        /// What happens when a statement fails on an item: `ignore`, `silent` or `propagate`.
        pub error_mode: ErrorMode = ErrorMode::Ignore,
        /// Traces: statements, or blocks of statements with a context, run in the order written.
        pub trace_statements: Groups<StatementBlock> = Groups::default(),
        /// Metrics: statements, or blocks of statements with a context, run in the order written.
        pub metric_statements: Groups<StatementBlock> = Groups::default(),
        /// Logs: statements, or blocks of statements with a context, run in the order written.
        pub log_statements: Groups<StatementBlock> = Groups::default(),
        /// Not supported: profiles are not handled here.
        pub profile_statements: Unsupported = Unsupported,
        /// Has to be false: records are changed where they are.
        pub flatten_data: Fixed<false> = Fixed,
    }
    validate = TransformConfig::check;
}

impl ComponentConfig for TransformConfig {}

impl TransformConfig {
    fn check(&self, _node: &Node, cx: &mut Cx) {
        for signal in Signal::ALL {
            if let Err(problems) = self.statements(signal) {
                problems.into_iter().for_each(|problem| problem.report(cx));
            }
        }
    }

    /// Compiles the statements for a signal.
    pub(super) fn statements(&self, signal: Signal) -> Result<Vec<StatementGroup>, Vec<Problem>> {
        let (key, groups) = match signal {
            Signal::Traces => ("trace_statements", &self.trace_statements),
            Signal::Metrics => ("metric_statements", &self.metric_statements),
            Signal::Logs => ("log_statements", &self.log_statements),
        };
        let mut problems = Vec::new();
        let groups = statement_groups(key, groups, signal, self.error_mode, &mut problems);
        if problems.is_empty() { Ok(groups) } else { Err(problems) }
    }
}
