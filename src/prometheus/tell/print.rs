//! What metrics became, as text in the form of an exposition, and as JSON.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::collisions::{Collision, describe, kind, temporality};
use super::labels::{LabelFate, LabelNote};
use super::{Labels, Metric, Sent, Told};
use crate::pdata::metrics::Kind;
use crate::prometheus::map::NAME;
use crate::prometheus::remote::Version;

impl Told {
    /// As text: an exposition, with the rest in its comments.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = writeln!(out, "# remote write {}, {}", self.protocol(), self.strategy.word());
        for metric in &self.metrics {
            out.push('\n');
            self.metric_text(metric, &mut out);
        }
        if !self.targets.is_empty() {
            out.push_str("\n# resources\n");
            for labels in &self.targets {
                let _ = writeln!(out, "{} 1", series(labels));
            }
        }
        if !self.notes.is_empty() {
            out.push_str("\n# attributes that are no labels\n");
            for note in &self.notes {
                let _ = writeln!(out, "#   {}", one_line(&note.sentence()));
            }
        }
        if !self.collisions.is_empty() {
            out.push_str("\n# collisions\n");
            for collision in &self.collisions {
                self.collision_text(collision, &mut out);
            }
        }
        let [metrics, series, points, dropped] = self.sums();
        let _ = writeln!(
            out,
            "\n# {}, {series} series; {}, {dropped} dropped; {}",
            count(metrics, "metric"),
            count(points, "point"),
            count(self.collisions.len(), "collision"),
        );
        out
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        let [metrics, series, points, dropped] = self.sums();
        json!({
            "protocol": self.protocol(),
            "translation_strategy": self.strategy.word(),
            "metrics": self.metrics.iter().map(|metric| self.metric_json(metric)).collect::<Vec<_>>(),
            "target_info": self.targets.iter().map(|labels| labels_json(labels)).collect::<Vec<_>>(),
            "attributes": self.notes.iter().map(LabelNote::json).collect::<Vec<_>>(),
            "collisions": self.collisions.iter().map(|c| self.collision_json(c)).collect::<Vec<_>>(),
            "summary": {"metrics": metrics, "series": series, "points": points, "dropped": dropped},
        })
    }

    fn protocol(&self) -> &'static str {
        match self.version {
            Version::V1 => "1.0",
            Version::V2 => "2.0",
        }
    }

    /// Metrics, series that are sent, points, points that are dropped.
    fn sums(&self) -> [usize; 4] {
        let mut sent: Vec<usize> =
            self.metrics.iter().flat_map(|m| m.sent.iter().map(|s| s.series)).collect();
        sent.sort_unstable();
        sent.dedup();
        let points = self.metrics.iter().map(|metric| metric.points).sum();
        let dropped = self.metrics.iter().flat_map(|metric| metric.dropped.values()).sum();
        [self.metrics.len(), sent.len() + self.targets.len(), points, dropped]
    }

    fn labels(&self, at: usize) -> &[(String, String)] {
        self.series.get(at).map(|series| series.labels.as_slice()).unwrap_or_default()
    }

    fn metric_text(&self, metric: &Metric, out: &mut String) {
        let _ = writeln!(out, "# {}", describe(metric));
        match &metric.family {
            Ok(family) => {
                let name = family_name(&family.name);
                let help = family.help.replace('\\', "\\\\").replace('\n', "\\n");
                if !help.is_empty() {
                    let _ = writeln!(out, "# HELP {name} {help}");
                }
                let _ = writeln!(out, "# TYPE {name} {}", family.kind.word());
                if !family.unit.is_empty() {
                    let _ = writeln!(out, "# UNIT {name} {}", one_line(&family.unit));
                }
            }
            Err(reason) => {
                let _ = writeln!(out, "# left out, {reason}: {}", explain(reason));
            }
        }
        for sent in &metric.sent {
            let _ = write!(out, "{} {}", series(self.labels(sent.series)), sent.value);
            for (labels, value) in &sent.exemplars {
                let _ = write!(out, " # {} {value}", series(labels));
            }
            out.push('\n');
        }
        for (reason, points) in &metric.dropped {
            let _ = writeln!(out, "# {} dropped, {reason}: {}", count(*points, "point"), explain(reason));
        }
    }

    fn metric_json(&self, metric: &Metric) -> Value {
        let family = metric.family.as_ref().ok().map(|family| {
            let (kind, unit) = (family.kind.word(), &family.unit);
            json!({ "name": family.name, "type": kind, "unit": unit, "help": family.help })
        });
        let mut out = json!({
            "name": metric.name,
            "unit": metric.unit,
            "description": metric.description,
            "kind": kind(metric.kind),
            "temporality": temporality(metric),
            "monotonic": (metric.kind == Kind::Sum).then_some(metric.monotonic),
            "points": metric.points,
            "family": family,
            "series": metric.sent.iter().map(|sent| self.sent_json(sent)).collect::<Vec<_>>(),
            "dropped": metric.dropped.iter().map(|(reason, points)| {
                json!({ "reason": reason, "points": points, "why": explain(reason) })
            }).collect::<Vec<_>>(),
        });
        if let (Err(reason), Value::Object(out)) = (&metric.family, &mut out) {
            out.insert("left_out".to_owned(), json!({ "reason": reason, "why": explain(reason) }));
        }
        out
    }

    fn sent_json(&self, sent: &Sent) -> Value {
        let mut out = labels_json(self.labels(sent.series));
        if let Value::Object(out) = &mut out {
            out.insert("samples".to_owned(), sent.samples.into());
            out.insert("value".to_owned(), sent.value.as_str().into());
            if !sent.exemplars.is_empty() {
                let exemplar =
                    |(labels, value): &(Labels, String)| json!({ "labels": object(labels), "value": value });
                out.insert("exemplars".to_owned(), sent.exemplars.iter().map(exemplar).collect());
            }
        }
        out
    }

    fn collision_text(&self, collision: &Collision, out: &mut String) {
        let Collision { kind, name, metrics, why, series } = collision;
        let more = match series.len() {
            0 | 1 => String::new(),
            n => format!(" and {} more", n - 1),
        };
        let _ = writeln!(out, "#   {kind} {}{more}: {}", one_line(name), one_line(why));
        for metric in metrics {
            let _ = writeln!(out, "#     {metric}");
        }
    }

    fn collision_json(&self, collision: &Collision) -> Value {
        let Collision { kind, name, metrics, why, series } = collision;
        let series: Vec<Value> = series.iter().map(|at| labels_json(self.labels(*at))).collect();
        json!({ "kind": kind, "name": name, "metrics": metrics, "why": why, "series": series })
    }
}

impl LabelNote {
    fn sentence(&self) -> String {
        let LabelNote { fate, of, keys, label } = self;
        let keys = keys.join(", ");
        match fate {
            LabelFate::Joined => format!("joined, {of}: {keys} are {label}"),
            LabelFate::Hidden => {
                format!("hidden, {of}: {keys} would be {label}, which something stronger has")
            }
            LabelFate::Left if label.is_empty() => format!("left out, {of}: nothing of {keys} may stay"),
            LabelFate::Left => {
                format!("left out, {of}: {keys} would be the label {label}, which is reserved")
            }
        }
    }

    fn json(&self) -> Value {
        json!({ "fate": self.fate.word(), "of": self.of, "keys": self.keys, "label": self.label })
    }
}

/// A series as Prometheus shows it: `name{label="value"}`, quoted where names are UTF-8.
pub fn series(labels: &[(String, String)]) -> String {
    let name = labels.iter().find(|(label, _)| label == NAME).map(|(_, name)| name.as_str());
    let mut parts = Vec::new();
    let mut out = String::new();
    match name {
        Some(name) if is_plain(name, true) => out.push_str(name),
        Some(name) => parts.push(quoted(name)),
        None => {}
    }
    for (label, value) in labels.iter().filter(|(label, _)| label != NAME) {
        let label = if is_plain(label, false) { label.clone() } else { quoted(label) };
        parts.push(format!("{label}={}", quoted(value)));
    }
    if !parts.is_empty() || out.is_empty() {
        let _ = write!(out, "{{{}}}", parts.join(","));
    }
    out
}

/// Why points with this reason are dropped, for people.
pub fn explain(reason: &str) -> &'static str {
    match reason {
        "name" => "nothing of the name may stay",
        "no_data" => "the metric has no data",
        "delta" => "delta temporality; `delta: accumulate` adds it up",
        "temporality" => "the metric is neither cumulative nor delta",
        "timestamp" => "the time is missing or out of range",
        "no_value" => "there is no value",
        "malformed" => "bounds, buckets or quantiles are out of order, twice there or no numbers",
        "duplicate" => "the series has a sample of this time",
        "out_of_order" => "the series has a later sample; `out_of_order: keep` sends it",
        "scale_too_low" => "the scale is below -4, the lowest of a native histogram",
        "no_sum" => "a native histogram must have a sum",
        "too_large" => "a count, an index or the number of bounds is too large",
        "count_mismatch" => "the buckets do not add up to the count",
        "late" => "the point is late or repeated: its time is in the sum already",
        "overlap" => "the point begins before the last one ended: two writers have one stream",
        "too_many_streams" => "more delta streams than `delta_limits` allows",
        _ => "the point cannot be encoded",
    }
}

fn labels_json(labels: &[(String, String)]) -> Value {
    let name = labels.iter().find(|(label, _)| label == NAME).map(|(_, name)| name.as_str());
    let others: Vec<_> = labels.iter().filter(|(label, _)| label != NAME).cloned().collect();
    json!({ "name": name, "labels": object(&others) })
}

fn object(labels: &[(String, String)]) -> Value {
    let pairs = labels.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str())));
    Value::Object(pairs.collect::<Map<String, Value>>())
}

/// `1 point`, `2 points`.
fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

fn family_name(name: &str) -> Cow<'_, str> {
    if is_plain(name, true) { Cow::Borrowed(name) } else { Cow::Owned(quoted(name)) }
}

fn is_plain(name: &str, colons: bool) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || colons && c == ':';
    name.starts_with(|c: char| fits(c) && !c.is_ascii_digit()) && name.chars().all(fits)
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// No text of others begins a line of its own.
fn one_line(text: &str) -> Cow<'_, str> {
    if text.contains(char::is_control) {
        return Cow::Owned(text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect());
    }
    Cow::Borrowed(text)
}
