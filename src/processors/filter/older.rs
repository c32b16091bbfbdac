//! `include` and `exclude` as written, and what can be wrong with them.

use super::expr::Expr;
use super::legacy::Legacy;
use crate::config::{Cx, Node, Value};
use crate::pdata::Signal;
use crate::processors::matching::{
    AttributeCriterion, MatchConfig, MatchType, Matcher, RegexpConfig, SeverityCriterion, check_attributes,
    check_texts,
};
use crate::{config, config_enum};

config_enum! {
    /// How metrics are told apart.
    pub enum MetricMatchType {
        /// The whole name must be equal.
        Strict = "strict",
        /// A regular expression that may match anywhere in the name.
        Regexp = "regexp",
        /// Expressions over the name and the labels.
        Expr = "expr",
    }
}

#[allow(clippy::derivable_impls, reason = "the macro derives no default")]
impl Default for MetricMatchType {
    fn default() -> Self {
        MetricMatchType::Strict
    }
}

config! {
    /// Which metrics are meant. `metric_names` and `resource_attributes` are asked on their own: with `include` both
    /// must hold for a metric to stay, with `exclude` either makes it go.
    pub struct MetricMatch {
        /// How metrics are told apart: `strict`, `regexp` or `expr`. Required.
        pub match_type: Option<MetricMatchType> = None,
        /// The Collector's cache settings; they change no result.
        pub regexp: RegexpConfig = RegexpConfig::default(),
        /// Names of metrics. One is enough.
        pub metric_names: Vec<String> = Vec::new(),
        /// Attributes of the resource. All must hold.
        pub resource_attributes: Vec<AttributeCriterion> = Vec::new(),
        /// With `match_type: expr`: expressions such as `MetricName == "up" && HasLabel("job")`. It is enough if one
        /// holds for one data point of the metric.
        pub expressions: Vec<String> = Vec::new(),
    }
    validate = MetricMatch::check;
}

config! {
    /// Which log records are meant. Criteria of different kinds must all hold; in a list one entry is enough, except
    /// for attributes, where all must hold.
    pub struct LogMatch {
        /// How texts are compared: `strict` or `regexp`. Required.
        pub match_type: Option<MatchType> = None,
        /// Attributes of the resource.
        pub resource_attributes: Vec<AttributeCriterion> = Vec::new(),
        /// Attributes of the record.
        pub record_attributes: Vec<AttributeCriterion> = Vec::new(),
        /// Severity texts.
        pub severity_texts: Vec<String> = Vec::new(),
        /// The least severity.
        pub severity_number: Option<SeverityCriterion> = None,
        /// Bodies. A body that is no string does not match.
        pub bodies: Vec<String> = Vec::new(),
    }
    validate = LogMatch::check;
}

impl MetricMatch {
    fn check(&self, node: &Node, cx: &mut Cx) {
        let Some(match_type) = self.match_type else {
            return missing_match_type(node, "\"strict\", \"regexp\" or \"expr\"", cx);
        };
        let expr = match_type == MetricMatchType::Expr;
        let lists = [
            ("metric_names", self.metric_names.is_empty(), !expr),
            ("resource_attributes", self.resource_attributes.is_empty(), !expr),
            ("expressions", self.expressions.is_empty(), expr),
        ];
        for (key, empty, fits) in lists {
            if !empty && !fits {
                let needs = if expr { "\"strict\" or \"regexp\"" } else { "\"expr\"" };
                cx.error(node.pos_of(key), format!("\"{key}\" needs match_type {needs}"));
            }
        }
        if lists.iter().all(|(_, empty, _)| *empty) {
            says_nothing(node, cx);
        }
        if match_type == MetricMatchType::Regexp {
            check_texts(&self.metric_names, node, "metric_names", cx);
            check_attributes(&self.resource_attributes, node, "resource_attributes", cx);
        }
        for (i, text) in self.expressions.iter().enumerate().filter(|_| expr) {
            let Err(wrong) = Expr::parse(text) else { continue };
            let element = match node.get("expressions").map(|list| &list.value) {
                Some(Value::Seq(nodes)) => nodes.get(i),
                _ => None,
            };
            let pos = element.map_or_else(
                || node.pos_of("expressions"),
                |element| cx.pos_inside(element.pos, text, wrong.at),
            );
            cx.report(crate::config::Severity::Error, pos, wrong.why, wrong.hint);
        }
    }

    fn strings(&self) -> Option<MatchType> {
        match self.match_type? {
            MetricMatchType::Strict => Some(MatchType::Strict),
            MetricMatchType::Regexp => Some(MatchType::Regexp),
            MetricMatchType::Expr => None,
        }
    }

    /// The criteria on the name, on the resource or on both; `None` if there are none.
    fn criteria(&self, names: bool, resources: bool) -> Option<MatchConfig> {
        let config = MatchConfig {
            match_type: Some(self.strings()?),
            metric_names: if names { self.metric_names.clone() } else { Vec::new() },
            resources: if resources { self.resource_attributes.clone() } else { Vec::new() },
            ..MatchConfig::default()
        };
        (!config.metric_names.is_empty() || !config.resources.is_empty()).then_some(config)
    }

    fn exprs(&self) -> Result<Option<Vec<Expr>>, String> {
        if self.match_type != Some(MetricMatchType::Expr) || self.expressions.is_empty() {
            return Ok(None);
        }
        let parse = |text: &String| Expr::parse(text).map_err(|wrong| wrong.why);
        self.expressions.iter().map(parse).collect::<Result<_, _>>().map(Some)
    }
}

impl LogMatch {
    fn check(&self, node: &Node, cx: &mut Cx) {
        let Some(match_type) = self.match_type else {
            return missing_match_type(node, "\"strict\" or \"regexp\"", cx);
        };
        if self.criteria().is_none() && node.get("severity_number").is_none_or(Node::is_null) {
            says_nothing(node, cx);
        }
        if match_type == MatchType::Regexp {
            check_texts(&self.severity_texts, node, "severity_texts", cx);
            check_texts(&self.bodies, node, "bodies", cx);
            check_attributes(&self.resource_attributes, node, "resource_attributes", cx);
            check_attributes(&self.record_attributes, node, "record_attributes", cx);
        }
    }

    fn criteria(&self) -> Option<MatchConfig> {
        let given = !self.resource_attributes.is_empty()
            || !self.record_attributes.is_empty()
            || !self.severity_texts.is_empty()
            || !self.bodies.is_empty()
            || self.severity_number.is_some();
        given.then(|| MatchConfig {
            match_type: self.match_type,
            resources: self.resource_attributes.clone(),
            attributes: self.record_attributes.clone(),
            log_severity_texts: self.severity_texts.clone(),
            log_severity_number: self.severity_number.clone(),
            log_bodies: self.bodies.clone(),
            ..MatchConfig::default()
        })
    }
}

/// Compiles the blocks for spans.
pub(super) fn spans(include: Option<&MatchConfig>, exclude: Option<&MatchConfig>) -> Result<Legacy, String> {
    let matchers = Matcher::new(include, exclude, Signal::Traces)?.into_iter().collect();
    Ok(Legacy { matchers, ..Legacy::default() })
}

/// Compiles the blocks for log records.
pub(super) fn logs(include: Option<&LogMatch>, exclude: Option<&LogMatch>) -> Result<Legacy, String> {
    let (include, exclude) = (include.and_then(LogMatch::criteria), exclude.and_then(LogMatch::criteria));
    let matcher = Matcher::new(include.as_ref(), exclude.as_ref(), Signal::Logs)?;
    Ok(Legacy { matchers: matcher.into_iter().collect(), ..Legacy::default() })
}

/// Compiles the blocks for metrics.
pub(super) fn metrics(
    include: Option<&MetricMatch>,
    exclude: Option<&MetricMatch>,
) -> Result<Legacy, String> {
    let of = |which: Option<&MetricMatch>, names, resources| which.and_then(|m| m.criteria(names, resources));
    // An excluded name goes whatever its resource is, and the other way round.
    let pairs = [(of(include, true, true), of(exclude, false, true)), (None, of(exclude, true, false))];
    let mut matchers = Vec::new();
    for (include, exclude) in pairs {
        matchers.extend(Matcher::new(include.as_ref(), exclude.as_ref(), Signal::Metrics)?);
    }
    let exprs = |which: Option<&MetricMatch>| which.map_or(Ok(None), MetricMatch::exprs);
    Ok(Legacy { matchers, include: exprs(include)?, exclude: exprs(exclude)? })
}

fn missing_match_type(node: &Node, words: &str, cx: &mut Cx) {
    if node.get("match_type").is_none_or(Node::is_null) {
        cx.error_hint(node.pos, "missing required field \"match_type\"", format!("write {words}"));
    }
}

fn says_nothing(node: &Node, cx: &mut Cx) {
    cx.warn(node.pos, "no criteria are given: this block has no effect");
}
