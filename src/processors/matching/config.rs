//! `include` and `exclude` as written, and what can be wrong with them.

use regex::bytes::Regex;

use crate::config::types::Any;
use crate::config::{Config, Cx, Node, Pos, Schema, SchemaKind, Value as NodeValue, nearest};
use crate::pdata::Signal;
use crate::processors::edit::regex_error;
use crate::{config, config_enum};

config_enum! {
    /// How texts are compared.
    pub enum MatchType {
        /// The whole text must be equal.
        Strict = "strict",
        /// A regular expression that may match anywhere in the text.
        Regexp = "regexp",
    }
}

#[allow(clippy::derivable_impls, reason = "the macro derives no default")]
impl Default for MatchType {
    fn default() -> Self {
        MatchType::Strict
    }
}

config! {
    /// Settings of the Collector's cache of regular expression matches, so that its files keep working. Nothing
    /// is cached here: what a resource, scope or metric decides is asked once for all of its items, and
    /// matching a text costs no more than looking it up would. Neither key changes any result.
    pub struct RegexpConfig {
        /// Whether matches may be cached.
        pub cacheenabled: bool = false,
        /// How many matches may be cached; 0 for any number.
        pub cachemaxnumentries: usize = 0,
    }
}

config! {
    /// An attribute that must be there.
    pub struct AttributeCriterion {
        /// The attribute.
        pub key: String = String::new(),
        /// Its value, of the same type and equal; with `match_type: regexp` a regular expression for its text.
        /// Without a value the attribute need only be present.
        pub value: Any = Any::Null,
    }
    validate = AttributeCriterion::check;
}

config! {
    /// An instrumentation library (scope).
    pub struct LibraryCriterion {
        /// Its name.
        pub name: String = String::new(),
        /// Its version; any version when not given.
        pub version: Option<String> = None,
    }
    validate = LibraryCriterion::check;
}

config! {
    /// Log records of at least some severity.
    pub struct SeverityCriterion {
        /// The least severity: a number from 1 to 24 or a name such as `INFO` or `WARN2`.
        pub min: SeverityNumber = SeverityNumber(0),
        /// Whether records without a severity match.
        pub match_undefined: bool = false,
    }
}

config! {
    /// Which items are meant. Criteria of different kinds must all hold; in a list one entry is enough, except
    /// for `attributes` and `resources`, where all must hold.
    pub struct MatchConfig {
        /// How texts are compared: `strict` or `regexp`. Required.
        pub match_type: Option<MatchType> = None,
        /// The Collector's cache settings; they change no result.
        pub regexp: RegexpConfig = RegexpConfig::default(),
        /// Values of the resource attribute `service.name`.
        pub services: Vec<String> = Vec::new(),
        /// Traces only: names of spans.
        pub span_names: Vec<String> = Vec::new(),
        /// Traces only: kinds of spans, such as `SPAN_KIND_SERVER`.
        pub span_kinds: Vec<String> = Vec::new(),
        /// Logs only: bodies. A body that is no string does not match.
        pub log_bodies: Vec<String> = Vec::new(),
        /// Logs only: severity texts.
        pub log_severity_texts: Vec<String> = Vec::new(),
        /// Logs only: the least severity.
        pub log_severity_number: Option<SeverityCriterion> = None,
        /// Metrics only: names of metrics.
        pub metric_names: Vec<String> = Vec::new(),
        /// Traces and logs only: attributes of the item.
        pub attributes: Vec<AttributeCriterion> = Vec::new(),
        /// Attributes of the resource.
        pub resources: Vec<AttributeCriterion> = Vec::new(),
        /// Instrumentation libraries.
        pub libraries: Vec<LibraryCriterion> = Vec::new(),
    }
    validate = MatchConfig::check;
}

/// A severity number, written as a number from 0 to 24 or as a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SeverityNumber(pub i32);

pub(super) const SPAN_KINDS: [&str; 6] = [
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];

const SEVERITIES: [&str; 6] = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];

impl AttributeCriterion {
    fn check(&self, node: &Node, cx: &mut Cx) {
        if self.key.is_empty() {
            cx.error(node.pos, "missing required field \"key\"");
        }
        if matches!(self.value, Any::List(_) | Any::Map(_)) {
            cx.error(node.pos_of("value"), "only a string, number or boolean can be matched");
        }
    }
}

impl LibraryCriterion {
    fn check(&self, node: &Node, cx: &mut Cx) {
        if self.name.is_empty() {
            cx.error(node.pos, "missing required field \"name\"");
        }
    }
}

impl MatchConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        let Some(match_type) = self.match_type else {
            if node.get("match_type").is_none_or(Node::is_null) {
                cx.error_hint(
                    node.pos,
                    "missing required field \"match_type\"",
                    "write \"strict\" or \"regexp\"",
                );
            }
            return;
        };
        // A severity that could not be decoded has been reported where it stands.
        if self.given().is_empty() && node.get("log_severity_number").is_none_or(Node::is_null) {
            cx.error_hint(
                node.pos,
                "no criteria are given",
                "give at least one, such as services, attributes, resources or libraries",
            );
        }
        match match_type {
            MatchType::Strict => {
                for (i, kind) in self.span_kinds.iter().enumerate() {
                    if SPAN_KINDS.contains(&kind.as_str()) {
                        continue;
                    }
                    let hint = match nearest(kind, &SPAN_KINDS) {
                        Some(near) => format!("did you mean \"{near}\"?"),
                        None => format!("valid values: {}", SPAN_KINDS.join(", ")),
                    };
                    let pos = element_pos(node, "span_kinds", i);
                    cx.error_hint(pos, format!("\"{kind}\" is no kind of span"), hint);
                }
            }
            MatchType::Regexp => self.check_patterns(node, cx),
        }
    }

    fn check_patterns(&self, node: &Node, cx: &mut Cx) {
        let lists = [
            ("services", &self.services),
            ("span_names", &self.span_names),
            ("span_kinds", &self.span_kinds),
            ("log_bodies", &self.log_bodies),
            ("log_severity_texts", &self.log_severity_texts),
            ("metric_names", &self.metric_names),
        ];
        for (key, list) in lists {
            check_texts(list, node, key, cx);
        }
        check_attributes(&self.attributes, node, "attributes", cx);
        check_attributes(&self.resources, node, "resources", cx);
        for (i, library) in self.libraries.iter().enumerate() {
            let at = element(node, "libraries", i);
            check_regex(&library.name, at.map_or(node.pos, |n| n.pos_of("name")), cx);
            if let Some(version) = &library.version {
                check_regex(version, at.map_or(node.pos, |n| n.pos_of("version")), cx);
            }
        }
    }

    /// The kinds of criteria that are given, each with the signals it fits.
    pub(super) fn given(&self) -> Vec<(&'static str, &'static [Signal])> {
        const ALL: &[Signal] = &Signal::ALL;
        const TRACES: &[Signal] = &[Signal::Traces];
        const LOGS: &[Signal] = &[Signal::Logs];
        const METRICS: &[Signal] = &[Signal::Metrics];
        const ITEMS: &[Signal] = &[Signal::Traces, Signal::Logs];
        [
            ("services", ALL, self.services.is_empty()),
            ("span_names", TRACES, self.span_names.is_empty()),
            ("span_kinds", TRACES, self.span_kinds.is_empty()),
            ("log_bodies", LOGS, self.log_bodies.is_empty()),
            ("log_severity_texts", LOGS, self.log_severity_texts.is_empty()),
            ("log_severity_number", LOGS, self.log_severity_number.is_none()),
            ("metric_names", METRICS, self.metric_names.is_empty()),
            ("attributes", ITEMS, self.attributes.is_empty()),
            ("resources", ALL, self.resources.is_empty()),
            ("libraries", ALL, self.libraries.is_empty()),
        ]
        .into_iter()
        .filter_map(|(key, signals, absent)| (!absent).then_some((key, signals)))
        .collect()
    }
}

impl Config for SeverityNumber {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        match &node.value {
            NodeValue::Null => {}
            // A number in quotes is one as well.
            NodeValue::Str(digits) if digits.parse().is_ok_and(|n: i32| (0..=24).contains(&n)) => {
                self.0 = digits.parse().unwrap_or_default();
            }
            NodeValue::Str(name) => {
                let upper = name.to_ascii_uppercase();
                let (word, digit) = match upper.strip_suffix(['2', '3', '4']) {
                    Some(word) => (word, upper.bytes().last().map_or(0, |d| i32::from(d - b'1'))),
                    None => (upper.as_str(), 0),
                };
                match SEVERITIES.iter().position(|s| *s == word) {
                    Some(i) => self.0 = i as i32 * 4 + 1 + digit,
                    None => cx.error_hint(
                        node.pos,
                        format!("\"{name}\" is no severity"),
                        "write a number from 1 to 24, or TRACE, DEBUG, INFO, WARN, ERROR, FATAL, each also with 2, 3 or 4",
                    ),
                }
            }
            _ => {
                let mut number = self.0;
                number.decode_into(node, cx);
                if (0..=24).contains(&number) {
                    self.0 = number;
                } else {
                    cx.error(node.pos, format!("{number} is out of range: 0 to 24"));
                }
            }
        }
    }

    fn schema() -> Schema {
        Schema { name: "severity", kind: SchemaKind::Any }
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::Value::from(self.0)
    }
}

/// Checks the regular expressions in the list under `key`.
pub(crate) fn check_texts(patterns: &[String], node: &Node, key: &str, cx: &mut Cx) {
    for (i, pattern) in patterns.iter().enumerate() {
        check_regex(pattern, element_pos(node, key, i), cx);
    }
}

/// Checks the attributes in the list under `key`, whose values are regular expressions.
pub(crate) fn check_attributes(criteria: &[AttributeCriterion], node: &Node, key: &str, cx: &mut Cx) {
    for (i, criterion) in criteria.iter().enumerate() {
        let pos = element(node, key, i).map_or(node.pos, |n| n.pos_of("value"));
        match &criterion.value {
            Any::Null | Any::List(_) | Any::Map(_) => {}
            Any::Str(pattern) => check_regex(pattern, pos, cx),
            _ => cx.error_hint(
                pos,
                "with match_type \"regexp\" a value must be a string",
                "quote it, or use match_type: strict",
            ),
        }
    }
}

fn check_regex(pattern: &str, pos: Pos, cx: &mut Cx) {
    if let Err(why) = Regex::new(pattern) {
        cx.error(pos, regex_error(&why));
    }
}

/// The element `i` of the list under `key`.
fn element<'a>(node: &'a Node, key: &str, i: usize) -> Option<&'a Node> {
    match &node.get(key)?.value {
        NodeValue::Seq(nodes) => nodes.get(i),
        _ => None,
    }
}

fn element_pos(node: &Node, key: &str, i: usize) -> Pos {
    element(node, key, i).map_or_else(|| node.pos_of(key), |n| n.pos)
}
