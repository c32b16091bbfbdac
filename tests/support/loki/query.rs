//! Enough of LogQL to ask what a user would: a selector over labels, then filters of lines and of labels and
//! structured metadata. `{service_name="a", pod=~"b.*"} |= "text" != "other" |~ "re" | tenant_id="c" | level!="d"`

use std::collections::BTreeMap;

use regex::Regex;

use super::check::detected_level;
use super::decode::Entry;
use super::labels::Reader;
use super::{Labels, labels};

/// A query that can be run.
#[derive(Debug)]
pub struct Query {
    selector: Vec<Matcher>,
    steps: Vec<Step>,
}

/// An entry that was found, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub labels: Labels,
    pub entry: Entry,
}

impl Row {
    /// A label of the stream.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

#[derive(Debug)]
enum Step {
    Line(Operator),
    Label(Matcher),
}

#[derive(Debug)]
struct Matcher {
    name: String,
    operator: Operator,
}

#[derive(Debug)]
enum Operator {
    Is(String),
    IsNot(String),
    Like(Regex),
    Unlike(Regex),
    Has(String),
    Lacks(String),
}

impl Operator {
    fn fits(&self, value: &str) -> bool {
        match self {
            Operator::Is(want) => value == want,
            Operator::IsNot(want) => value != want,
            Operator::Like(regex) => regex.is_match(value),
            Operator::Unlike(regex) => !regex.is_match(value),
            Operator::Has(text) => value.contains(text),
            Operator::Lacks(text) => !value.contains(text),
        }
    }
}

impl Query {
    /// # Errors
    /// What cannot be read, and where.
    pub fn parse(text: &str) -> Result<Query, String> {
        let mut reader = Reader { text: text.as_bytes(), at: 0 };
        let (mut selector, mut steps) = (Vec::new(), Vec::new());
        reader.expect("{")?;
        loop {
            selector.push(matcher(&mut reader)?);
            reader.blank();
            if !reader.take(",") {
                break;
            }
        }
        reader.expect("}")?;
        loop {
            reader.blank();
            if reader.peek().is_none() {
                break;
            }
            let step = if reader.take("|=") {
                Step::Line(Operator::Has(reader.string()?))
            } else if reader.take("!=") {
                Step::Line(Operator::Lacks(reader.string()?))
            } else if reader.take("|~") {
                Step::Line(Operator::Like(regex(&reader.string()?)?))
            } else if reader.take("!~") {
                Step::Line(Operator::Unlike(regex(&reader.string()?)?))
            } else {
                reader.expect("|")?;
                Step::Label(matcher(&mut reader)?)
            };
            steps.push(step);
        }
        if selector.iter().all(|m| m.operator.fits("")) {
            return Err("a selector needs a matcher that does not match the empty string".into());
        }
        Ok(Query { selector, steps })
    }

    /// What it finds, oldest first, with the metadata as stored.
    pub fn run(&self, streams: &BTreeMap<Labels, Vec<Entry>>) -> Vec<Row> {
        let mut rows = Vec::new();
        for (pairs, entries) in streams {
            let get = |name: &str| pairs.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value);
            if !self.selector.iter().all(|m| m.operator.fits(get(&m.name))) {
                continue;
            }
            for entry in entries.iter().filter(|entry| self.keeps(pairs, entry)) {
                rows.push(Row { labels: pairs.clone(), entry: entry.clone() });
            }
        }
        rows.sort_by_key(|row| row.entry.time);
        rows
    }

    fn keeps(&self, pairs: &Labels, entry: &Entry) -> bool {
        self.steps.iter().all(|step| match step {
            Step::Line(operator) => operator.fits(&entry.line),
            Step::Label(Matcher { name, operator }) if name == "detected_level" => {
                operator.fits(&detected_level(pairs, entry))
            }
            Step::Label(Matcher { name, operator }) => {
                let label = pairs.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
                operator.fits(label.or_else(|| entry.get(name)).unwrap_or(""))
            }
        })
    }
}

fn matcher(reader: &mut Reader) -> Result<Matcher, String> {
    let name = reader.name()?;
    debug_assert!(labels::is_name(&name));
    reader.blank();
    let operator = if reader.take("=~") {
        Operator::Like(whole(&reader.string()?)?)
    } else if reader.take("!~") {
        Operator::Unlike(whole(&reader.string()?)?)
    } else if reader.take("!=") {
        Operator::IsNot(reader.string()?)
    } else {
        reader.expect("=")?;
        Operator::Is(reader.string()?)
    };
    Ok(Matcher { name, operator })
}

fn regex(text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|e| e.to_string())
}

/// Label matchers cover the whole value.
fn whole(text: &str) -> Result<Regex, String> {
    regex(&format!("^(?s:{text})$"))
}
