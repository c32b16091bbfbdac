//! Different things of OTLP that become one thing of Prometheus.

use std::collections::{BTreeMap, BTreeSet};

use super::labels::{Attribute, LabelFate};
use super::{Interned, Metric, Origin, Teller};
use crate::pdata::metrics::Kind;
use crate::prometheus::map::{CUMULATIVE, DELTA, NAME};

/// Different things that become one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collision {
    /// In what they are one: `family`, `type`, `name`, `series`, `target_info` or `label`.
    pub kind: &'static str,
    /// What they become: the name, or the first series.
    pub name: String,
    /// The metrics they are or come from.
    pub metrics: Vec<String>,
    /// What makes them one, and a way out.
    pub why: String,
    /// The series that are made alike; places in [`Told::series`](super::Told::series).
    pub series: Vec<usize>,
}

/// What the origins of a series differ in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Mixture {
    metrics: BTreeSet<usize>,
    resources: BTreeSet<usize>,
    scopes: BTreeSet<usize>,
    /// Keys in which points differ.
    keys: BTreeSet<String>,
}

impl Teller {
    pub(super) fn collisions(&self) -> Vec<Collision> {
        let mut found = self.families();
        found.extend(self.names());
        found.extend(self.alike());
        found.extend(self.target_infos());
        found.extend(self.joined_labels());
        found
    }

    /// Attributes that are one label.
    fn joined_labels(&self) -> impl Iterator<Item = Collision> {
        let joined = self.notes.iter().filter(|note| note.fate == LabelFate::Joined);
        joined.map(|note| Collision {
            kind: "label",
            name: note.label.clone(),
            metrics: Vec::new(),
            why: format!("attributes {} of {} are joined", note.keys.join(", "), note.of),
            series: Vec::new(),
        })
    }

    /// Metrics that are one family.
    fn families(&self) -> Vec<Collision> {
        let mut families: BTreeMap<&str, Vec<&Metric>> = BTreeMap::new();
        for metric in self.metrics.iter().filter(|metric| !metric.is_left_out()) {
            if let Ok(family) = &metric.family {
                families.entry(&family.name).or_default().push(metric);
            }
        }
        let several = families.into_iter().filter(|(_, metrics)| metrics.len() > 1);
        let collision = |(name, metrics): (&str, Vec<&Metric>)| {
            let types: BTreeSet<&str> =
                metrics.iter().filter_map(|m| m.family.as_ref().ok()).map(|f| f.kind.word()).collect();
            let (kind, why) = if types.len() > 1 {
                let types: Vec<&str> = types.into_iter().collect();
                ("type", format!("one name of several types: {}", types.join(", ")))
            } else {
                ("family", format!("{} metrics have one name", metrics.len()))
            };
            let metrics = metrics.into_iter().map(describe).collect();
            Collision { kind, name: name.to_owned(), metrics, why, series: Vec::new() }
        };
        several.map(collision).collect()
    }

    /// Series of one name from different families: `x_count` of a histogram `x`, and a metric `x_count`.
    fn names(&self) -> Vec<Collision> {
        let mut names: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
        for series in &self.series {
            let name = series.labels.iter().find(|(label, _)| label == NAME).map(|(_, name)| name.as_str());
            let metrics = series.origins.iter().map(|origin| origin.metric);
            names.entry(name.unwrap_or_default()).or_default().extend(metrics);
        }
        let target_info = self.mapper.options().namer.target_info();
        let mut found = Vec::new();
        for (name, ids) in names {
            let metrics: Vec<&Metric> = ids.iter().filter_map(|id| self.metrics.get(*id)).collect();
            let families: BTreeSet<&str> =
                metrics.iter().filter_map(|m| m.family.as_ref().ok()).map(|f| f.name.as_str()).collect();
            let mut collide = |why: String| {
                let metrics = metrics.iter().map(|metric| describe(metric)).collect();
                found.push(Collision {
                    kind: "name",
                    name: name.to_owned(),
                    metrics,
                    why,
                    series: Vec::new(),
                });
            };
            if families.len() > 1 {
                let families: Vec<&str> = families.into_iter().collect();
                collide(format!("series of {} have one name", families.join(" and ")));
            }
            if self.target_info && name == target_info && !self.all_targets.is_empty() {
                collide("the series that describes resources has this name".to_owned());
            }
        }
        found
    }

    /// Series that come from several places.
    fn alike(&self) -> Vec<Collision> {
        let mut mixtures: BTreeMap<Mixture, Vec<usize>> = BTreeMap::new();
        for (id, series) in self.series.iter().enumerate().filter(|(_, series)| series.origins.len() > 1) {
            mixtures.entry(self.mixture(&series.origins)).or_default().push(id);
        }
        let mut found: Vec<Collision> = mixtures
            .into_iter()
            .map(|(mixture, series)| Collision {
                kind: "series",
                name: series
                    .first()
                    .and_then(|id| self.series.get(*id))
                    .map(|series| super::print::series(&series.labels))
                    .unwrap_or_default(),
                metrics: mixture
                    .metrics
                    .iter()
                    .filter_map(|id| self.metrics.get(*id))
                    .map(describe)
                    .collect(),
                why: self.why(&mixture),
                series,
            })
            .collect();
        found.sort_by_key(|collision| collision.series.first().copied());
        found
    }

    fn mixture(&self, origins: &BTreeSet<Origin>) -> Mixture {
        let all = |part: fn(&Origin) -> usize| -> BTreeSet<usize> { origins.iter().map(part).collect() };
        let metrics = all(|origin| origin.metric);
        // Of other metrics points may well differ: that is no reason.
        let keys = match metrics.len() {
            1 => differing(&self.points, &all(|origin| origin.point)),
            _ => BTreeSet::new(),
        };
        Mixture {
            metrics,
            resources: all(|origin| origin.resource),
            scopes: all(|origin| origin.scope),
            keys,
        }
    }

    fn why(&self, mixture: &Mixture) -> String {
        let mut reasons = Vec::new();
        if mixture.metrics.len() > 1 {
            reasons.push(format!("{} metrics make it", mixture.metrics.len()));
        }
        if mixture.resources.len() > 1 {
            let named =
                |id: &usize| self.resources.get(*id).iter().any(|(key, _)| key == "service.instance.id");
            let keys = joined(&differing(&self.resources, &mixture.resources));
            let advice = match mixture.resources.iter().all(named) {
                true => "their service.instance.id is the same",
                false => "give each a service.instance.id of its own",
            };
            reasons.push(format!(
                "{} resources make it, which differ in {keys}: {advice}",
                mixture.resources.len()
            ));
        }
        if mixture.scopes.len() > 1 {
            let keys = joined(&differing(&self.scopes, &mixture.scopes));
            let advice = match self.mapper.options().scope_labels {
                true => "",
                false => ", which are no labels with disable_scope_info",
            };
            reasons.push(format!("{} scopes make it, which differ in {keys}{advice}", mixture.scopes.len()));
        }
        if !mixture.keys.is_empty() {
            reasons.push(format!("points make it that differ in {}", joined(&mixture.keys)));
        }
        if reasons.is_empty() {
            reasons.push("points of one metric make it".to_owned());
        }
        reasons.join("; ")
    }

    /// Resources of one identity whose `target_info` differ: joins with it find two.
    fn target_infos(&self) -> Vec<Collision> {
        let mut identities: BTreeMap<Vec<&(String, String)>, usize> = BTreeMap::new();
        for labels in &self.all_targets {
            let identity = labels.iter().filter(|(name, _)| matches!(name.as_str(), "job" | "instance"));
            *identities.entry(identity.collect()).or_default() += 1;
        }
        let several = identities.into_iter().filter(|(_, count)| *count > 1);
        let collision = |(identity, count): (Vec<&(String, String)>, usize)| {
            let mut labels: Vec<_> = identity.into_iter().cloned().collect();
            labels.push((NAME.to_owned(), self.mapper.options().namer.target_info()));
            Collision {
                kind: "target_info",
                name: super::print::series(&labels),
                metrics: Vec::new(),
                why: format!("{count} resources have this identity, so that a join with it fails"),
                series: Vec::new(),
            }
        };
        several.map(collision).collect()
    }
}

/// A metric in words: `network.io (sum, monotonic, cumulative, unit "By")`.
pub fn describe(metric: &Metric) -> String {
    let mut words = vec![kind(metric.kind).to_owned()];
    if metric.kind == Kind::Sum && metric.monotonic {
        words.push("monotonic".to_owned());
    }
    words.extend(temporality(metric).map(str::to_owned));
    if !metric.unit.is_empty() {
        words.push(format!("unit {}", quoted(&metric.unit)));
    }
    let name = quoted(&metric.name);
    let plain = name.get(1..name.len() - 1).filter(|inner| *inner == metric.name && !inner.is_empty());
    format!("{} ({})", plain.unwrap_or(&name), words.join(", "))
}

/// The word for a kind of points.
pub const fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Empty => "no data",
        Kind::Gauge => "gauge",
        Kind::Sum => "sum",
        Kind::Histogram => "histogram",
        Kind::ExponentialHistogram => "exponential histogram",
        Kind::Summary => "summary",
    }
}

/// The word for how a metric aggregates, if it does.
pub fn temporality(metric: &Metric) -> Option<&'static str> {
    matches!(metric.kind, Kind::Sum | Kind::Histogram | Kind::ExponentialHistogram).then_some(
        match metric.temporality {
            CUMULATIVE => "cumulative",
            DELTA => "delta",
            _ => "no temporality",
        },
    )
}

/// A text in quotes, on one line.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn joined(keys: &BTreeSet<String>) -> String {
    keys.iter().cloned().collect::<Vec<_>>().join(", ")
}

/// The keys whose values are not the same in all lists.
fn differing(lists: &Interned, ids: &BTreeSet<usize>) -> BTreeSet<String> {
    let all: Vec<&[Attribute]> = ids.iter().map(|id| lists.get(*id)).collect();
    let keys: BTreeSet<&String> = all.iter().flat_map(|list| list.iter().map(|(key, _)| key)).collect();
    let values = |key: &String| -> BTreeSet<Option<&String>> {
        all.iter().map(|list| list.iter().find(|(k, _)| k == key).map(|(_, text)| text)).collect()
    };
    keys.into_iter().filter(|key| values(key).len() > 1).cloned().collect()
}
