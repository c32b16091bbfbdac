//! Settings that the push and the pull exporter share: which attributes become labels, and labels for all series.

use std::collections::BTreeMap;

use super::map::{ResourceLabels, config_label};
use super::names::{Namer, TranslationStrategy, check_namespace};
use crate::config;
use crate::config::{Cx, Node};

config! {
    /// Makes every resource attribute a label of every series.
    pub struct ResourceToTelemetryConfig {
        /// Whether it does.
        pub enabled: bool = false,
        /// Leaves out `service.name`, `service.namespace` and `service.instance.id`, which are in `job` and
        /// `instance` already.
        pub exclude_service_attributes: bool = false,
    }
}

config! {
    /// Makes some resource attributes labels of every series.
    pub struct ResourceConstantLabelsConfig {
        /// Names of the attributes, in which `*` stands for any text. Empty, with `excluded` written: all.
        pub included: Vec<String> = Vec::new(),
        /// Names of attributes that are no labels all the same.
        pub excluded: Vec<String> = Vec::new(),
    }
}

/// What both blocks together say.
pub fn resource_labels(
    all: &ResourceToTelemetryConfig,
    chosen: &ResourceConstantLabelsConfig,
) -> ResourceLabels {
    if !chosen.included.is_empty() || !chosen.excluded.is_empty() {
        let (included, excluded) = (chosen.included.clone(), chosen.excluded.clone());
        return ResourceLabels::Chosen { included, excluded };
    }
    if all.enabled {
        return ResourceLabels::All { exclude_service: all.exclude_service_attributes };
    }
    ResourceLabels::None
}

/// Reports the two blocks being used together.
pub fn check_resource_labels(
    all: &ResourceToTelemetryConfig,
    chosen: &ResourceConstantLabelsConfig,
    node: &Node,
    cx: &mut Cx,
) {
    if all.enabled && (!chosen.included.is_empty() || !chosen.excluded.is_empty()) {
        let why =
            "'resource_constant_labels' cannot be used together with 'resource_to_telemetry_conversion'";
        let key = "resource_constant_labels";
        cx.within(key, |cx| cx.error_hint(node.pos_of(key), why, "write only 'resource_constant_labels'"));
    }
}

/// Reports a namespace that cannot begin a name.
pub fn check_name_prefix(namespace: &str, strategy: TranslationStrategy, node: &Node, cx: &mut Cx) {
    if strategy.escapes()
        && let Err(why) = check_namespace(namespace)
    {
        cx.within("namespace", |cx| cx.error(node.pos_of("namespace"), why));
    }
}

/// Labels that are written for all series, with their names as they are sent.
pub fn constant_labels(labels: &BTreeMap<String, String>, namer: &Namer) -> Vec<(String, String)> {
    let usable = |(name, value): (&String, &String)| Some((config_label(namer, name).ok()?, value.clone()));
    labels.iter().filter_map(usable).collect()
}

/// Reports labels without a name or a value, or with a name of which nothing is left. `what` names the setting in
/// the Collector's words.
pub fn check_constant_labels(
    labels: &BTreeMap<String, String>,
    namer: &Namer,
    (key, what): (&str, &str),
    node: &Node,
    cx: &mut Cx,
) {
    let mut written: Vec<(String, &String)> = Vec::new();
    for (name, value) in labels {
        let pos = node.get(key).map_or(node.pos, |labels| labels.pos_of(name));
        let mut fail = |why: String| cx.within(key, |cx| cx.within(name, |cx| cx.error(pos, why)));
        if name.is_empty() || value.is_empty() {
            fail(format!("{what} configuration contains an empty key or value: \"{name}\": \"{value}\""));
        } else if config_label(namer, name).is_err() {
            fail(format!("\"{name}\" cannot be a label: nothing is left of its name"));
        } else if name.starts_with("__") {
            fail(format!("\"{name}\" cannot be a label: names that begin with two underscores are reserved"));
        } else if let Ok(label) = config_label(namer, name) {
            match written.iter().find(|(known, _)| *known == label) {
                Some((_, first)) => fail(format!("\"{name}\" and \"{first}\" are one label, \"{label}\"")),
                None => written.push((label, name)),
            }
        }
    }
}
