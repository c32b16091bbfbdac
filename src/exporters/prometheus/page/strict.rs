//! A parser of pages that takes nothing the formats do not allow. It knows their rules, not our code.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Family {
    pub name: String,
    pub kind: String,
    pub help: String,
    pub unit: String,
    pub samples: Vec<Sample>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
    pub time: Option<f64>,
    pub exemplar: Option<Exemplar>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Exemplar {
    pub labels: BTreeMap<String, String>,
    pub value: f64,
    pub time: Option<f64>,
}

/// The families of a page, or which line breaks which rule.
pub fn parse(page: &str, open: bool) -> Result<Vec<Family>, String> {
    let body = match (open, page.strip_suffix("# EOF\n")) {
        (true, None) => return Err("no # EOF at the end".to_owned()),
        (true, Some(body)) => body,
        (false, _) => page,
    };
    if !body.is_empty() && !body.ends_with('\n') {
        return Err("the last line does not end".to_owned());
    }
    let mut families: Vec<Family> = Vec::new();
    let mut told = BTreeSet::new();
    let mut series = BTreeSet::new();
    for line in body.lines() {
        let fail = |why: &str| format!("{why}: {line}");
        if let Some(comment) = line.strip_prefix("# ") {
            let (what, rest) = comment.split_once(' ').ok_or_else(|| fail("a comment"))?;
            let (name, text) = name_of(rest).ok_or_else(|| fail("no name"))?;
            let text = text.strip_prefix(' ').ok_or_else(|| fail("no text"))?;
            if families.last().is_none_or(|family| family.name != name) {
                if families.iter().any(|family| family.name == name) {
                    return Err(fail("a family comes twice"));
                }
                told.clear();
                families.push(Family { name, ..Family::default() });
            }
            let family = families.last_mut().expect("just pushed");
            if !family.samples.is_empty() || !told.insert(what.to_owned()) {
                return Err(fail("told after a sample, or twice"));
            }
            match what {
                "HELP" => family.help = unescape(text, open).ok_or_else(|| fail("escapes"))?,
                "TYPE" if kinds(open).contains(&text) => family.kind = text.to_owned(),
                "UNIT" if open && family.name.ends_with(&format!("_{text}")) => family.unit = text.to_owned(),
                _ => return Err(fail("not told so")),
            }
            continue;
        }
        let sample = sample(line, open).ok_or_else(|| fail("no sample"))?;
        let family = families.last_mut().ok_or_else(|| fail("no family"))?;
        let suffix = sample.name.strip_prefix(&family.name).ok_or_else(|| fail("of another family"))?;
        if !suffixes(&family.kind, open).contains(&suffix) {
            return Err(fail("a suffix that the type does not have"));
        }
        let may = open
            && matches!((family.kind.as_str(), suffix), ("counter", "_total") | ("histogram", "_bucket"));
        if sample.exemplar.is_some() && !may {
            return Err(fail("an exemplar"));
        }
        let own = match (family.kind.as_str(), suffix) {
            ("histogram", "_bucket") => Some("le"),
            ("summary", "") => Some("quantile"),
            _ => None,
        };
        if own.is_some_and(|own| !sample.labels.contains_key(own)) {
            return Err(fail("a label is missing"));
        }
        if !series.insert((sample.name.clone(), sample.labels.clone())) {
            return Err(fail("a series comes twice"));
        }
        family.samples.push(sample);
    }
    families.iter().try_for_each(buckets)?;
    match families.iter().find(|family| family.samples.is_empty() || family.kind.is_empty()) {
        Some(family) => Err(format!("{} has no samples or no type", family.name)),
        None => Ok(families),
    }
}

fn kinds(open: bool) -> &'static [&'static str] {
    match open {
        true => &["counter", "gauge", "histogram", "summary", "info", "stateset", "unknown"],
        false => &["counter", "gauge", "histogram", "summary", "untyped"],
    }
}

fn suffixes(kind: &str, open: bool) -> &'static [&'static str] {
    match (kind, open) {
        ("counter", true) => &["_total"],
        ("info", true) => &["_info"],
        ("histogram", _) => &["_bucket", "_count", "_sum"],
        ("summary", _) => &["", "_count", "_sum"],
        _ => &[""],
    }
}

/// Bounds ascend in each label set, and end with +Inf, which is the count.
fn buckets(family: &Family) -> Result<(), String> {
    if family.kind != "histogram" {
        return Ok(());
    }
    let mut bounds: BTreeMap<_, Vec<(f64, f64)>> = BTreeMap::new();
    let mut counts = BTreeMap::new();
    for sample in &family.samples {
        let mut labels = sample.labels.clone();
        let le = labels.remove("le");
        if sample.name.ends_with("_bucket") {
            let bound = number(&le.unwrap_or_default()).ok_or("a bound that is no number")?;
            bounds.entry(labels).or_default().push((bound, sample.value));
        } else if sample.name.ends_with("_count") {
            counts.insert(labels, sample.value);
        }
    }
    for (labels, list) in &bounds {
        let fine = list.windows(2).all(|w| w[0].0 < w[1].0)
            && list.last().is_some_and(|(le, n)| *le == f64::INFINITY && counts.get(labels) == Some(n));
        if !fine {
            return Err(format!("{} {labels:?}: {list:?}", family.name));
        }
    }
    if bounds.len() == counts.len() {
        Ok(())
    } else {
        Err(format!("{}: counts without buckets", family.name))
    }
}

fn sample(line: &str, open: bool) -> Option<Sample> {
    let mut sample = Sample::default();
    let mut rest = line;
    if !rest.starts_with('{') {
        (sample.name, rest) = name_of(rest)?;
        if rest.starts_with('"') {
            return None;
        }
    }
    if rest.starts_with('{') {
        let quoted;
        (quoted, sample.labels, rest) = labels(rest, sample.name.is_empty())?;
        if let Some(name) = quoted {
            sample.name = name;
        }
    }
    let rest = rest.strip_prefix(' ')?;
    let (main, exemplar) = match rest.split_once(" # ") {
        Some((main, exemplar)) => (main, Some(exemplar)),
        None => (rest, None),
    };
    (sample.value, sample.time) = value_and_time(main, open)?;
    if let Some(text) = exemplar {
        let (_, labels, rest) = labels(text, false)?;
        let (value, time) = value_and_time(rest.strip_prefix(' ')?, open)?;
        let length: usize = labels.iter().map(|(n, v)| n.chars().count() + v.chars().count()).sum();
        if length > 128 {
            return None;
        }
        sample.exemplar = Some(Exemplar { labels, value, time });
    }
    (!sample.name.is_empty()).then_some(sample)
}

fn value_and_time(text: &str, open: bool) -> Option<(f64, Option<f64>)> {
    let (value, time) = match text.split_once(' ') {
        Some((value, time)) => (value, Some(time)),
        None => (text, None),
    };
    let time = match time {
        None => None,
        Some(time) if open => Some(number(time)?),
        Some(time) => Some(time.parse::<i64>().ok()? as f64),
    };
    Some((number(value)?, time))
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        "NaN" => Some(f64::NAN),
        _ if text.bytes().all(|b| b.is_ascii_digit() || b"+-.e".contains(&b)) => text.parse().ok(),
        _ => None,
    }
}

/// What is in braces: a quoted name first where the name is missing, then labels.
#[allow(clippy::type_complexity, reason = "name, labels, rest")]
fn labels(text: &str, nameless: bool) -> Option<(Option<String>, BTreeMap<String, String>, &str)> {
    let mut rest = text.strip_prefix('{')?;
    let (mut name, mut labels) = (None, BTreeMap::new());
    let mut first = true;
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            let fine = !nameless || name.is_some();
            return fine.then_some((name, labels, after));
        }
        if !first {
            rest = rest.strip_prefix(',')?;
        }
        let (key, after) = name_of(rest)?;
        match after.strip_prefix("=\"") {
            Some(value) => {
                let (value, after) = quoted(value)?;
                if labels.insert(key, unescape(value, true)?).is_some() {
                    return None;
                }
                rest = after;
            }
            None if first && nameless && rest.starts_with('"') => {
                name = Some(key);
                rest = after;
            }
            None => return None,
        }
        first = false;
    }
}

/// A name, in quotes or not, and what follows.
fn name_of(text: &str) -> Option<(String, &str)> {
    if let Some(rest) = text.strip_prefix('"') {
        let (name, rest) = quoted(rest)?;
        return Some((unescape(name, true)?, rest));
    }
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    (!name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit())).then(|| (name.to_owned(), rest))
}

fn quoted(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    let end = text.char_indices().find(|(_, c)| {
        let end = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        end
    })?;
    Some((&text[..end.0], &text[end.0 + 1..]))
}

fn unescape(text: &str, quotes: bool) -> Option<String> {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push(match chars.next()? {
                'n' => '\n',
                '\\' => '\\',
                '"' if quotes => '"',
                _ => return None,
            }),
            '\n' => return None,
            c => out.push(c),
        }
    }
    Some(out)
}
