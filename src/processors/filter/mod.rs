//! The `filter` processor: drops what conditions hold for.
//!
//! # What it promises
//!
//! * What it drops is counted, and acknowledged to its sender. A request that is dropped to the last item is answered
//!   as delivered.
//! * Dropping all events of a span leaves the span; dropping all points of a metric drops the metric. Scopes and
//!   resources that are left without anything are taken out.
//! * An item that cannot be read is not judged: it passes and is counted as malformed.
//!
//! # What it costs
//!
//! It is part of the walk it shares with its neighbours. Conditions on a resource cost nothing per item, and what is
//! dropped above the items is not read further than to count it.

mod config;
mod expr;
mod legacy;
mod older;

#[cfg(test)]
mod tests;

use std::any::Any;
use std::sync::Arc;

pub use config::{FilterConfig, LogFilters, MetricFilters, SpanFilters, TraceFilters};
pub use older::{LogMatch, MetricMatch, MetricMatchType};

use crate::components::BuildError;
use crate::ottl::Rules;
use crate::pdata::Signal;
use crate::pdata::wire::WireError;
use crate::pipeline::{BuildContext, Stage};
use crate::processors::edit::{Edit, Facts, Fate, Levels, Message, Rewrite, StepCx};
use crate::telemetry::Counter;
use legacy::Legacy;

/// A compiled filter for one signal.
#[derive(Debug)]
struct Filter {
    what: What,
    counters: Counters,
}

/// The styles it can be written in; a signal uses one.
#[derive(Debug)]
enum What {
    Nothing,
    Conditions(Rules),
    Older(Legacy),
}

/// What has been dropped: in the Collector's name, and in ours.
struct Counters {
    filtered: Counter,
    dropped: Counter,
}

/// Compiles the processor for a signal.
///
/// # Errors
/// Criteria or conditions that cannot be compiled, in a config that was not decoded from a file.
pub fn build(config: &FilterConfig, signal: Signal, cx: &BuildContext) -> Result<Stage, BuildError> {
    let groups = config
        .conditions(signal)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
    let legacy = match signal {
        Signal::Traces => older::spans(config.spans.include.as_ref(), config.spans.exclude.as_ref())?,
        Signal::Metrics => older::metrics(config.metrics.include.as_ref(), config.metrics.exclude.as_ref())?,
        Signal::Logs => older::logs(config.logs.include.as_ref(), config.logs.exclude.as_ref())?,
    };
    let what = match (groups.is_empty(), legacy.is_empty()) {
        (true, true) => What::Nothing,
        (false, true) => What::Conditions(Rules::filter(&cx.id, signal, groups, false, None)),
        (true, false) => What::Older(legacy),
        (false, false) => {
            return Err("conditions and include or exclude cannot be used at the same time".into());
        }
    };
    Ok(Stage::Edit(Edit::rules(Arc::new(Filter { what, counters: Counters::new(signal, cx) }))))
}

impl Rewrite for Filter {
    fn levels(&self, signal: Signal) -> Levels {
        match &self.what {
            What::Nothing => Levels::NONE,
            What::Conditions(rules) => rules.levels(signal),
            What::Older(legacy) => legacy.levels(),
        }
    }

    fn drops(&self) -> bool {
        !matches!(self.what, What::Nothing)
    }

    fn looks_below(&self, signal: Signal) -> bool {
        match &self.what {
            What::Nothing => false,
            What::Conditions(rules) => rules.looks_below(signal),
            What::Older(legacy) => legacy.asks_points(),
        }
    }

    fn scratch(&self, facts: &Facts<'_>) -> Box<dyn Any> {
        match &self.what {
            What::Nothing => Box::new(()),
            What::Conditions(rules) => rules.scratch(facts),
            What::Older(legacy) => legacy.scratch(),
        }
    }

    fn apply(&self, message: &mut Message<'_>, cx: &mut StepCx<'_>) -> Result<Fate, WireError> {
        match &self.what {
            What::Nothing => Ok(Fate::Skip),
            What::Conditions(rules) => rules.apply(message, cx),
            What::Older(legacy) => legacy.apply(message, cx),
        }
    }

    fn dropped(&self, items: usize) {
        self.counters.filtered.add(items as u64);
        self.counters.dropped.add(items as u64);
    }
}

impl Counters {
    fn new(signal: Signal, cx: &BuildContext) -> Self {
        let what = match signal {
            Signal::Traces => "spans",
            Signal::Metrics => "datapoints",
            Signal::Logs => "logs",
        };
        Counters {
            filtered: cx.metrics.series(
                &format!("otelcol_processor_filter_{what}_filtered"),
                "Items the filter dropped.",
                &[("processor", &cx.id)],
            ),
            dropped: cx.metrics.dropped_items(&cx.id, signal, "filtered"),
        }
    }
}

impl std::fmt::Debug for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Counters")
    }
}
