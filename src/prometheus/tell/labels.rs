//! Attributes that do not become a label of their own: what is told about them.
//!
//! Which label an attribute asks for is the namer's word; whether it got it is read from the labels that were made.

use std::collections::BTreeMap;

use super::Teller;
use super::decode::Sample;
use crate::pdata::common::{Attributes, ResourceGroup, ScopeGroup};
use crate::pdata::wire::WireError;
use crate::prometheus::map::{IDENTIFYING, LabelSet, Resource};
use crate::prometheus::text::value_text;

/// A key, and its value as text.
pub type Attribute = (String, String);

/// What became of attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LabelFate {
    /// Several became one label.
    Joined,
    /// Something stronger has the label.
    Hidden,
    /// There is no such label.
    Left,
}

/// What became of attributes that are no labels of their own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LabelNote {
    /// What became of them.
    pub fate: LabelFate,
    /// Whose they are: `resource`, `scope` or `metric` and its name.
    pub of: String,
    /// Their keys.
    pub keys: Vec<String>,
    /// The label they ask for; empty if there is none.
    pub label: String,
}

impl LabelFate {
    /// A word for it.
    pub const fn word(self) -> &'static str {
        match self {
            LabelFate::Joined => "joined",
            LabelFate::Hidden => "hidden",
            LabelFate::Left => "left_out",
        }
    }
}

impl Teller {
    /// Notes what became of a resource's attributes in `target_info`.
    pub(super) fn resource_notes(&mut self, group: ResourceGroup<'_>) -> Result<(), WireError> {
        let Some(target) = self.mapper.resource(group.attributes())?.target_info else { return Ok(()) };
        let mut attributes = texts(group.attributes())?;
        attributes.retain(|(key, _)| !IDENTIFYING.contains(&key.as_str()));
        self.note("resource", "", &attributes, |label| target.get(label));
        Ok(())
    }

    /// Notes what became of a scope's attributes.
    pub(super) fn scope_notes(&mut self, scope: ScopeGroup<'_>) -> Result<(), WireError> {
        let attributes = texts(scope.attributes())?;
        if attributes.is_empty() || !self.mapper.options().scope_labels {
            return Ok(());
        }
        let mut labels = LabelSet::default();
        let mapped = self.mapper.scope(scope)?;
        self.mapper.labels(&Resource::default(), &mapped, Attributes::of(&[], 1), &mut labels)?;
        self.note("scope", "otel_scope_", &attributes, |label| labels.get(label));
        Ok(())
    }

    /// Notes what became of a point's attributes in the first of its series.
    pub(super) fn point_notes(&mut self, metric: usize, attributes: &[Attribute], series: Option<&Sample>) {
        let (Some(series), Some(metric)) = (series, self.metrics.get(metric)) else { return };
        let of = format!("metric {}", metric.name);
        let got = |label: &str| series.labels.iter().find(|(name, _)| name == label).map(|(_, v)| v.as_str());
        self.note(&of, "", attributes, got);
    }

    fn note<'a>(
        &mut self,
        of: &str,
        prefix: &str,
        attributes: &[Attribute],
        got: impl Fn(&str) -> Option<&'a str>,
    ) {
        let namer = &self.mapper.options().namer;
        let mut asked: BTreeMap<String, Vec<&Attribute>> = BTreeMap::new();
        for attribute in attributes.iter().filter(|(_, text)| !text.is_empty()) {
            let mut label = String::new();
            // Without a label the name stays empty, which none has.
            let _ = namer.label(&format!("{prefix}{}", attribute.0), &mut label);
            asked.entry(label).or_default().push(attribute);
        }
        for (label, wanted) in asked {
            let several = wanted.len() > 1;
            let fate = match got(&label) {
                None => Some(LabelFate::Left),
                Some(value) if several && wanted.iter().all(|(_, text)| value.contains(text.as_str())) => {
                    Some(LabelFate::Joined)
                }
                Some(value) if wanted.iter().all(|(_, text)| text == value) => None,
                Some(_) => Some(LabelFate::Hidden),
            };
            if let Some(fate) = fate {
                let keys = wanted.into_iter().map(|(key, _)| key.clone()).collect();
                self.notes.insert(LabelNote { fate, of: of.to_owned(), keys, label });
            }
        }
    }
}

/// Attributes as text, in the order of their keys.
pub fn texts(attributes: Attributes<'_>) -> Result<Vec<Attribute>, WireError> {
    let mut list = Vec::new();
    for pair in attributes {
        let (key, value) = pair?;
        let mut text = String::new();
        value_text(&value, &mut text);
        list.push((String::from_utf8_lossy(key).into_owned(), text));
    }
    list.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(list)
}

/// What tells a scope from others.
pub fn scope_texts(scope: ScopeGroup<'_>) -> Result<Vec<Attribute>, WireError> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut list = vec![
        ("name".to_owned(), text(scope.name()?)),
        ("version".to_owned(), text(scope.version()?)),
        ("schema_url".to_owned(), text(scope.schema_url()?)),
    ];
    list.extend(texts(scope.attributes())?.into_iter().map(|(key, text)| (format!("attribute {key}"), text)));
    Ok(list)
}
