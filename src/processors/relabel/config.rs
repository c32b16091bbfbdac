//! The processor's rules as they are written.

use super::label;
use super::rules::{Rules, Wrong};
use crate::components::{BuildError, ComponentConfig};
use crate::config;
use crate::config::{
    Config, ConfigStruct, Cx, Node, Schema, SchemaField, Severity, Value, decode_and_validate,
};
use crate::pdata::Signal;
use crate::processors::edit::Level;
use crate::relabel::{Action, Names, RelabelConfig};

config! {
    /// Changes, drops and picks telemetry by Prometheus' relabelling rules. A label is an attribute: `resource.K` of
    /// the resource, `scope.K` of the scope, `K` of the span, log record or data point, and where it is read and the
    /// item has none, the scope's or the resource's. `__name__`, `__kind__`, `__severity__` and `__tenant__` stand for
    /// what they say; labels that begin with `__tmp` are there for later rules only.
    pub struct RelabelProcessorConfig {
        /// The rules, run in the order written. Required.
        pub rules: Vec<LabelRule> = Vec::new(),
    }
    validate = RelabelProcessorConfig::check;
}

/// One of the rules: as Prometheus has them, with labels of any name.
#[derive(Debug, Clone, Default)]
pub struct LabelRule(pub RelabelConfig);

impl RelabelProcessorConfig {
    /// The rules for a signal.
    pub(super) fn compile(&self, signal: Signal) -> Result<Rules, BuildError> {
        Rules::new(&self.plain(), signal).map_err(|wrong| {
            let first = wrong.into_iter().next();
            first.map_or_else(String::new, |Wrong { rule, message, .. }| {
                format!("rule {}, for {}: {message}", rule + 1, signal.name())
            })
        })
    }

    fn plain(&self) -> Vec<RelabelConfig> {
        self.rules.iter().map(|rule| rule.0.clone()).collect()
    }

    fn check(&self, node: &Node, cx: &mut Cx) {
        let written = node.get("rules").filter(|rules| !rules.is_null());
        if written.is_none() || self.rules.is_empty() {
            cx.error_hint(
                node.pos_of("rules"),
                "missing required field \"rules\"",
                "list at least one rule, such as {regex: \"resource\\\\.host\\\\.name\", action: labeldrop}",
            );
        }
        let Some(Node { value: Value::Seq(nodes), .. }) = written else { return };
        // What is wrong for one signal alone is found when the processor is built for it.
        let wrong = Rules::new(&self.plain(), Signal::Logs).err().unwrap_or_default();
        cx.within("rules", |cx| {
            for (index, (rule, node)) in self.rules.iter().zip(nodes).enumerate() {
                cx.within(&index.to_string(), |cx| {
                    for Wrong { key, message, hint, .. } in wrong.iter().filter(|w| w.rule == index) {
                        cx.within(key, |cx| {
                            cx.report(Severity::Error, node.pos_of(key), message.clone(), hint.clone());
                        });
                    }
                    rule.warn(node, cx);
                });
            }
        });
    }
}

impl ComponentConfig for RelabelProcessorConfig {}

impl LabelRule {
    /// What can be written but is hardly meant.
    fn warn(&self, node: &Node, cx: &mut Cx) {
        let rule = &self.0;
        if !matches!(rule.action, Action::LabelMap | Action::LabelDrop | Action::LabelKeep) {
            return;
        }
        let inner = rule.regex.trim_start_matches(['^', '(', '?', ':']);
        let meant = label::PREFIXES.iter().find(|(_, prefix)| {
            let rest = inner.strip_prefix(prefix.trim_end_matches('.'));
            let both = ["|scope)", "|resource)"];
            rest.is_some_and(|rest| rest.starts_with(['.', '\\']) || both.iter().any(|b| rest.starts_with(b)))
        });
        if label::level_of_pattern(&rule.regex) == Level::Item
            && let Some((_, prefix)) = meant
        {
            let message = format!(
                "the rule is about the items' own attributes: only an expression that begins with \"{prefix}\" is about the {}'s",
                prefix.trim_end_matches('.')
            );
            cx.within("regex", |cx| cx.warn(node.pos_of("regex"), message));
        }
    }
}

impl ConfigStruct for LabelRule {
    fn decode_key(&mut self, key: &str, node: &Node, cx: &mut Cx) -> bool {
        self.0.decode_key(key, node, cx)
    }

    fn fields(&self) -> Vec<SchemaField> {
        self.0.fields()
    }

    fn validate_all(&mut self, node: &Node, cx: &mut Cx) {
        self.0.check_names(Names::Utf8, node, cx);
    }
}

impl Config for LabelRule {
    fn decode_into(&mut self, node: &Node, cx: &mut Cx) {
        decode_and_validate(self, true, node, cx);
    }

    fn schema() -> Schema {
        RelabelConfig::schema()
    }

    fn to_json(&self) -> serde_json::Value {
        self.0.to_json()
    }
}
