//! Lines of the text formats: Prometheus' own and OpenMetrics.
//!
//! Labels come as they stand in a slot, which is how both formats write them; only a scraper that does not take
//! every character in names costs a pass over them.

use std::borrow::Cow;
use std::fmt::Write;

use super::Head;
use crate::exporters::prometheus::negotiate::{Escaping, Format};
use crate::exporters::prometheus::state::series::Slot;
use crate::exporters::prometheus::state::value::{Value, newest_up_to, plain_bound};
use crate::prometheus::exemplars::ExemplarText;
use crate::prometheus::map::MetricType;
use crate::prometheus::native::classic;
use crate::prometheus::text::{openmetrics_double, sample_double};

/// Writes the samples of slots.
#[derive(Debug)]
pub struct TextWriter {
    format: Format,
    timestamps: bool,
    buckets: Vec<(f64, u64)>,
    labels: String,
    bound: String,
}

/// What differs from sample to sample of one slot.
struct Sample<'a> {
    suffix: &'static str,
    own: Option<(&'static str, &'a str)>,
    value: Number,
    exemplar: Option<&'a ExemplarText>,
}

enum Number {
    Bits(u64),
    Count(u64),
}

impl TextWriter {
    /// A writer for one page.
    pub fn new(format: Format, timestamps: bool) -> Self {
        let (labels, bound) = (String::new(), String::new());
        TextWriter { format, timestamps, buckets: Vec::new(), labels, bound }
    }

    /// Writes what stands before the samples of a family.
    pub fn head(&self, head: &Head, help: &str, unit: &str, out: &mut String) {
        let open = self.format.is_open();
        let start = |word: &str, out: &mut String| {
            out.push_str("# ");
            out.push_str(word);
            out.push(' ');
            if head.quoted {
                out.push('"');
                put_escaped(&head.family, true, out);
                out.push('"');
            } else {
                out.push_str(&head.family);
            }
            out.push(' ');
        };
        if !help.is_empty() {
            start("HELP", out);
            put_escaped(help, open, out);
            out.push('\n');
        }
        start("TYPE", out);
        out.push_str(head.word);
        out.push('\n');
        let ends_with_unit = |name: &str| name.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_'));
        // An info metric has no unit, and one in words that break the line is none.
        if open && is_old_name(unit, true) && head.word != "info" && ends_with_unit(&head.family) {
            start("UNIT", out);
            out.push_str(unit);
            out.push('\n');
        }
    }

    /// Writes the samples of a slot. `labels` replaces its own if given.
    pub fn slot(&mut self, head: &Head, slot: &Slot, labels: Option<&str>, out: &mut String) {
        let mut own = std::mem::take(&mut self.labels);
        own.clear();
        own.push_str(labels.unwrap_or(&slot.labels));
        let exemplars = if self.format.is_open() { slot.exemplars.as_deref() } else { None };
        let exemplars = exemplars.unwrap_or_default();
        let mut bound = std::mem::take(&mut self.bound);
        let put = |sample: Sample<'_>, out: &mut String| self.line(head, slot.time, &own, &sample, out);
        match &slot.value {
            Value::Number(bits) => {
                let exemplar =
                    exemplars.last().filter(|_| head.kind == MetricType::Counter && head.is_typed());
                put(Sample { suffix: "", own: None, value: Number::Bits(*bits), exemplar }, out);
            }
            Value::Classic(classic) => {
                let open = self.format.is_open();
                let texts = if open { &classic.bounds.open } else { &classic.bounds.plain };
                let mut rest = exemplars;
                for (at, bound, count) in classic.cumulative() {
                    let exemplar;
                    (exemplar, rest) = newest_up_to(rest, bound);
                    let text = texts.get(at).map_or("", String::as_str);
                    put(bucket(text, count, exemplar), out);
                }
                put(bucket("+Inf", classic.count, newest_up_to(rest, f64::INFINITY).0), out);
                put_sum_and_count(classic.sum, classic.count, out, put);
            }
            Value::Exponential(histogram) => {
                let mut buckets = std::mem::take(&mut self.buckets);
                // What cannot be written was refused on its way in.
                let put =
                    |sample: Sample<'_>, out: &mut String| self.line(head, slot.time, &own, &sample, out);
                if classic(&&**histogram, &mut buckets).is_err() {
                    buckets.clear();
                }
                let mut rest = exemplars;
                for &(upper, count) in &buckets {
                    let exemplar;
                    (exemplar, rest) = newest_up_to(rest, upper);
                    bound.clear();
                    self.put_bound(upper, &mut bound);
                    put(bucket(&bound, count, exemplar), out);
                }
                let count = histogram.scalars.count;
                put(bucket("+Inf", count, newest_up_to(rest, f64::INFINITY).0), out);
                put_sum_and_count(histogram.scalars.sum.map(f64::to_bits), count, out, put);
                self.buckets = buckets;
            }
            Value::Summary(summary) => {
                for &(quantile, bits) in &summary.quantiles {
                    bound.clear();
                    self.put_bound(quantile, &mut bound);
                    let own = Some(("quantile", bound.as_str()));
                    put(Sample { suffix: "", own, value: Number::Bits(bits), exemplar: None }, out);
                }
                put_sum_and_count(Some(summary.sum), summary.count, out, put);
            }
        }
        self.labels = own;
        self.bound = bound;
    }

    fn put_bound(&self, value: f64, out: &mut String) {
        if self.format.is_open() { openmetrics_double(value, out) } else { plain_bound(value, out) }
    }

    fn line(&self, head: &Head, time: u64, labels: &str, sample: &Sample<'_>, out: &mut String) {
        let braces = head.quoted || !labels.is_empty() || sample.own.is_some();
        if head.quoted {
            out.push_str("{\"");
            put_escaped(&head.sample, true, out);
            out.push_str(sample.suffix);
            out.push('"');
        } else {
            out.push_str(&head.sample);
            out.push_str(sample.suffix);
            if braces {
                out.push('{');
            }
        }
        if !labels.is_empty() {
            if head.quoted {
                out.push(',');
            }
            out.push_str(labels);
        }
        if let Some((name, value)) = sample.own {
            if head.quoted || !labels.is_empty() {
                out.push(',');
            }
            out.push_str(name);
            out.push_str("=\"");
            out.push_str(value);
            out.push('"');
        }
        if braces {
            out.push('}');
        }
        out.push(' ');
        match sample.value {
            Number::Bits(bits) => sample_double(bits, out),
            // Writing to a string cannot fail.
            Number::Count(count) => drop(write!(out, "{count}")),
        }
        if self.timestamps && time != 0 {
            out.push(' ');
            self.put_time((time / 1_000_000) as i64, out);
        }
        if let Some(exemplar) = sample.exemplar {
            self.put_exemplar(exemplar, out);
        }
        out.push('\n');
    }

    fn put_time(&self, millis: i64, out: &mut String) {
        let _ = if self.format.is_open() {
            write!(out, "{}.{:03}", millis / 1000, millis % 1000)
        } else {
            write!(out, "{millis}")
        };
    }

    fn put_exemplar(&self, exemplar: &ExemplarText, out: &mut String) {
        out.push_str(" # {");
        for (i, (name, value)) in exemplar.labels.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            match self.format.escaping {
                Escaping::AllowUtf8 => put_label_name(name, out),
                Escaping::Underscores => escape_label(name, out),
            }
            out.push_str("=\"");
            put_escaped(value, true, out);
            out.push('"');
        }
        out.push_str("} ");
        sample_double(exemplar.bits, out);
        out.push(' ');
        self.put_time(exemplar.time, out);
    }
}

fn bucket<'a>(le: &'a str, count: u64, exemplar: Option<&'a ExemplarText>) -> Sample<'a> {
    Sample { suffix: "_bucket", own: Some(("le", le)), value: Number::Count(count), exemplar }
}

fn put_sum_and_count(
    sum: Option<u64>,
    count: u64,
    out: &mut String,
    mut put: impl FnMut(Sample<'_>, &mut String),
) {
    if let Some(sum) = sum {
        put(Sample { suffix: "_sum", own: None, value: Number::Bits(sum), exemplar: None }, out);
    }
    put(Sample { suffix: "_count", own: None, value: Number::Count(count), exemplar: None }, out);
}

/// Whether a metric's name is one that every version of Prometheus knows.
pub fn is_old_metric_name(name: &str) -> bool {
    is_old_name(name, true)
}

fn is_old_name(name: &str, colons: bool) -> bool {
    let fits = |c: u8| c.is_ascii_alphanumeric() || c == b'_' || (colons && c == b':');
    !name.is_empty() && name.bytes().all(fits) && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// Writes a label's name, in quotes if it is no old-style name.
pub fn put_label_name(name: &str, out: &mut String) {
    if is_old_name(name, false) {
        out.push_str(name);
    } else {
        out.push('"');
        put_escaped(name, true, out);
        out.push('"');
    }
}

/// Writes text with backslashes and line ends escaped, and quotes if `quotes` says so.
pub fn put_escaped(text: &str, quotes: bool, out: &mut String) {
    let mut rest = text;
    let special = |c: char| c == '\\' || c == '\n' || (quotes && c == '"');
    while let Some(at) = rest.find(special) {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        let mut chars = after.chars();
        match chars.next() {
            Some('\n') => out.push_str("\\n"),
            Some(c) => out.extend(['\\', c]),
            None => {}
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
}

/// Writes a metric's name with underscores for what old-style names do not have.
pub fn escape_metric(name: &str, out: &mut String) {
    escape_name(name, true, out);
}

/// As [`escape_metric`], for labels.
pub fn escape_label(name: &str, out: &mut String) {
    escape_name(name, false, out);
}

fn escape_name(name: &str, colons: bool, out: &mut String) {
    for (i, c) in name.chars().enumerate() {
        let fits = c.is_ascii_alphanumeric() || c == '_' || (colons && c == ':');
        out.push(if fits && !(i == 0 && c.is_ascii_digit()) { c } else { '_' });
    }
}

/// Names and values of a slot's labels as they were before they were escaped.
pub fn pairs(labels: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    let mut rest = labels;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let name = match rest.strip_prefix('"') {
            Some(quoted) => {
                let (name, after) = split_quoted(quoted)?;
                rest = after.strip_prefix('=')?;
                unescape(name)
            }
            None => {
                let (name, after) = rest.split_once('=')?;
                rest = after;
                Cow::Borrowed(name)
            }
        };
        let (value, after) = split_quoted(rest.strip_prefix('"')?)?;
        rest = after.strip_prefix(',').unwrap_or(after);
        Some((name, unescape(value)))
    })
}

/// Labels with underscores for what old-style names do not have. What becomes one label is joined with `;`.
pub fn escape_labels(labels: &str, out: &mut String) {
    let mut named: Vec<(String, String)> = Vec::new();
    for (name, value) in pairs(labels) {
        let mut escaped = String::new();
        escape_label(&name, &mut escaped);
        match named.iter_mut().find(|(known, _)| *known == escaped) {
            Some((_, known)) => {
                known.push(';');
                known.push_str(&value);
            }
            None => named.push((escaped, value.into_owned())),
        }
    }
    out.clear();
    for (i, (name, value)) in named.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        out.push_str(name);
        out.push_str("=\"");
        put_escaped(value, true, out);
        out.push('"');
    }
}

/// What stands before the quote that ends it, and what after.
fn split_quoted(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some((text.get(..at)?, text.get(at + 1..)?)),
            _ => {}
        }
    }
    None
}

fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some(c) => out.push(c),
                None => {}
            },
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}
