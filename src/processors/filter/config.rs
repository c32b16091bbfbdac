//! The configuration of `filter`: three styles, of which each signal uses one.

use super::older::{self, LogMatch, MetricMatch};
use crate::components::ComponentConfig;
use crate::config;
use crate::config::types::Unsupported;
use crate::config::{Cx, Node};
use crate::ottl::{ConditionGroup, Context, ErrorMode};
use crate::pdata::Signal;
use crate::processors::matching::{MatchConfig, RegexpConfig};
use crate::processors::statements::{Code, ConditionBlock, Groups, Problem, condition_groups, conditions};

config! {
    /// Drops spans, span events, metrics, data points and log records.
    pub struct FilterConfig {
        /// What happens when a condition fails on an item: `ignore`, `silent` or `propagate`.
        pub error_mode: ErrorMode = ErrorMode::Ignore,
        /// Traces: what any of these OTTL conditions holds for is dropped. Conditions, or blocks of conditions with a
        /// context.
        pub trace_conditions: Groups<ConditionBlock> = Groups::default(),
        /// Metrics: what any of these OTTL conditions holds for is dropped.
        pub metric_conditions: Groups<ConditionBlock> = Groups::default(),
        /// Logs: what any of these OTTL conditions holds for is dropped.
        pub log_conditions: Groups<ConditionBlock> = Groups::default(),
        /// Not supported: profiles are not handled here.
        pub profile_conditions: Unsupported = Unsupported,
        /// Traces: the older form of `trace_conditions`, one list a context.
        pub traces: TraceFilters = TraceFilters::default(),
        /// Metrics: the older forms of `metric_conditions`.
        pub metrics: MetricFilters = MetricFilters::default(),
        /// Logs: the older forms of `log_conditions`.
        pub logs: LogFilters = LogFilters::default(),
        /// Not supported: profiles are not handled here.
        pub profiles: Unsupported = Unsupported,
        /// Traces: the oldest form of `trace_conditions`.
        pub spans: SpanFilters = SpanFilters::default(),
    }
    validate = FilterConfig::check;
}

config! {
    /// OTTL conditions for traces. What any of them holds for is dropped.
    pub struct TraceFilters {
        /// Conditions on the resource; all its spans are dropped.
        pub resource: Vec<Code> = Vec::new(),
        /// Conditions on the span.
        pub span: Vec<Code> = Vec::new(),
        /// Conditions on the span event. A span that loses all its events stays.
        pub spanevent: Vec<Code> = Vec::new(),
    }
}

config! {
    /// Conditions for metrics: OTTL, or `include` and `exclude`, but not both.
    pub struct MetricFilters {
        /// Only these metrics stay.
        pub include: Option<MetricMatch> = None,
        /// Of those, these are dropped.
        pub exclude: Option<MetricMatch> = None,
        /// The Collector's cache settings; they change no result.
        pub regexp: RegexpConfig = RegexpConfig::default(),
        /// OTTL conditions on the resource; all its metrics are dropped.
        pub resource: Vec<Code> = Vec::new(),
        /// OTTL conditions on the metric.
        pub metric: Vec<Code> = Vec::new(),
        /// OTTL conditions on the data point. A metric that loses all its points is dropped.
        pub datapoint: Vec<Code> = Vec::new(),
    }
}

config! {
    /// Conditions for logs: OTTL, or `include` and `exclude`, but not both.
    pub struct LogFilters {
        /// Only these records stay.
        pub include: Option<LogMatch> = None,
        /// Of those, these are dropped.
        pub exclude: Option<LogMatch> = None,
        /// OTTL conditions on the resource; all its records are dropped.
        pub resource: Vec<Code> = Vec::new(),
        /// OTTL conditions on the record.
        pub log_record: Vec<Code> = Vec::new(),
    }
}

config! {
    /// Which spans stay.
    pub struct SpanFilters {
        /// Only these spans stay.
        pub include: Option<MatchConfig> = None,
        /// Of those, these are dropped.
        pub exclude: Option<MatchConfig> = None,
    }
}

impl ComponentConfig for FilterConfig {}

/// The keys of one signal's styles, newest first, with what the Collector says about mixing them.
struct Styles {
    inferred: &'static str,
    /// Each with the section it stands in.
    lists: &'static [(&'static str, &'static str)],
    blocks: &'static [(&'static str, &'static str)],
    inferred_with_older: &'static str,
    lists_with_blocks: &'static str,
}

const STYLES: [Styles; 3] = [
    Styles {
        inferred: "trace_conditions",
        lists: &[("traces", "resource"), ("traces", "span"), ("traces", "spanevent")],
        blocks: &[("spans", "include"), ("spans", "exclude")],
        inferred_with_older: "cannot use context inferred trace conditions \"trace_conditions\" and the settings \
            \"traces.resource\", \"traces.span\", \"traces.spanevent\", \"spans.include\", \"spans.exclude\" at the \
            same time",
        lists_with_blocks: "cannot use \"traces.resource\", \"traces.span\", \"traces.spanevent\" and the span \
            settings \"spans.include\", \"spans.exclude\" at the same time",
    },
    Styles {
        inferred: "metric_conditions",
        lists: &[("metrics", "resource"), ("metrics", "metric"), ("metrics", "datapoint")],
        blocks: &[("metrics", "include"), ("metrics", "exclude")],
        inferred_with_older: "cannot use context inferred metric conditions \"metric_conditions\" and the settings \
            \"metrics.resource\", \"metrics.metric\", \"metrics.datapoint\", \"metrics.include\", \
            \"metrics.exclude\" at the same time",
        lists_with_blocks: "cannot use \"metrics.resource\", \"metrics.metric\", \"metrics.datapoint\" and the \
            settings \"metrics.include\", \"metrics.exclude\" at the same time",
    },
    Styles {
        inferred: "log_conditions",
        lists: &[("logs", "resource"), ("logs", "log_record")],
        blocks: &[("logs", "include"), ("logs", "exclude")],
        inferred_with_older: "cannot use context inferred log conditions \"log_conditions\" and the settings \
            \"logs.resource\", \"logs.log_record\", \"logs.include\", \"logs.exclude\" at the same time",
        lists_with_blocks: "cannot use \"logs.resource\", \"logs.log_record\" and the settings \"logs.include\", \
            \"logs.exclude\" at the same time",
    },
];

impl FilterConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        for styles in &STYLES {
            styles.check(node, cx);
        }
        for signal in Signal::ALL {
            if let Err(problems) = self.conditions(signal) {
                problems.into_iter().for_each(|problem| problem.report(cx));
            }
        }
        let blocks = [
            (Signal::Traces, "spans", "include", self.spans.include.as_ref()),
            (Signal::Traces, "spans", "exclude", self.spans.exclude.as_ref()),
        ];
        for (_, section, key, block) in blocks {
            let include = block.filter(|_| key == "include");
            let exclude = block.filter(|_| key == "exclude");
            if let Err(why) = older::spans(include, exclude) {
                let pos = node.get(section).map_or(node.pos, |section| section.pos_of(key));
                cx.within(section, |cx| cx.within(key, |cx| cx.error(pos, why)));
            }
        }
    }
}

impl FilterConfig {
    /// Compiles the conditions for a signal.
    pub(super) fn conditions(&self, signal: Signal) -> Result<Vec<ConditionGroup>, Vec<Problem>> {
        let (traces, metrics, logs) = (&self.traces, &self.metrics, &self.logs);
        type List<'a> = (&'static str, &'a [Code], Context);
        let (key, inferred, lists): (&str, _, &[List<'_>]) = match signal {
            Signal::Traces => (
                "trace_conditions",
                &self.trace_conditions,
                &[
                    ("traces::resource", &traces.resource, Context::Resource),
                    ("traces::span", &traces.span, Context::Span),
                    ("traces::spanevent", &traces.spanevent, Context::SpanEvent),
                ],
            ),
            Signal::Metrics => (
                "metric_conditions",
                &self.metric_conditions,
                &[
                    ("metrics::resource", &metrics.resource, Context::Resource),
                    ("metrics::metric", &metrics.metric, Context::Metric),
                    ("metrics::datapoint", &metrics.datapoint, Context::DataPoint),
                ],
            ),
            Signal::Logs => (
                "log_conditions",
                &self.log_conditions,
                &[
                    ("logs::resource", &logs.resource, Context::Resource),
                    ("logs::log_record", &logs.log_record, Context::Log),
                ],
            ),
        };
        let mut problems = Vec::new();
        let mut groups = condition_groups(key, inferred, signal, self.error_mode, &mut problems);
        for (path, list, context) in lists {
            groups.extend(conditions(path, list, Some(*context), signal, self.error_mode, &mut problems));
        }
        if problems.is_empty() { Ok(groups) } else { Err(problems) }
    }
}

impl Styles {
    fn check(&self, node: &Node, cx: &mut Cx) {
        let written = |keys: &'static [(&str, &str)]| {
            keys.iter().find_map(|(section, key)| {
                node.get(section)?.get(key).filter(|value| !value.is_null()).map(|value| value.pos)
            })
        };
        let inferred = node.get(self.inferred).is_some_and(|value| !value.is_null());
        match (inferred, written(self.lists), written(self.blocks)) {
            (true, Some(pos), _) | (true, None, Some(pos)) => cx.error(pos, self.inferred_with_older),
            (false, Some(_), Some(pos)) => cx.error(pos, self.lists_with_blocks),
            _ => {}
        }
    }
}
