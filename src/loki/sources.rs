//! Where labels come from, and how attributes are found.

use crate::pdata::MAX_VALUE_DEPTH;
use crate::pdata::common::{AnyValue, Attributes};
use crate::pdata::wire::WireError;

/// Where a label comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelSource {
    /// An attribute of the resource.
    Resource(String),
    /// An attribute of the scope.
    Scope(String),
    /// An attribute of the log record.
    Record(String),
    /// The scope's name.
    ScopeName,
    /// The scope's version.
    ScopeVersion,
    /// The severity as the source calls it.
    SeverityText,
    /// The severity's number.
    SeverityNumber,
    /// The severity's name: `trace` to `fatal`.
    Level,
}

impl LabelSource {
    /// Reads `resource.<key>`, `scope.<key>`, `attribute.<key>` and the names of fields.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let source = match text {
            "scope.name" => LabelSource::ScopeName,
            "scope.version" => LabelSource::ScopeVersion,
            "severity_text" => LabelSource::SeverityText,
            "severity_number" => LabelSource::SeverityNumber,
            "level" => LabelSource::Level,
            _ => match text.split_once('.') {
                Some((_, "")) => return Err(format!("\"{text}\" names no attribute")),
                Some(("resource", key)) => LabelSource::Resource(key.to_owned()),
                Some(("scope", key)) => LabelSource::Scope(key.to_owned()),
                Some(("attribute", key)) => LabelSource::Record(key.to_owned()),
                _ => return Err(format!("\"{text}\" does not say where the label comes from")),
            },
        };
        Ok(source)
    }

    /// What Loki would call it, before its characters are changed.
    pub fn key(&self) -> &str {
        match self {
            LabelSource::Resource(key) | LabelSource::Scope(key) | LabelSource::Record(key) => key,
            LabelSource::ScopeName => "scope_name",
            LabelSource::ScopeVersion => "scope_version",
            LabelSource::SeverityText => "severity_text",
            LabelSource::SeverityNumber => "severity_number",
            LabelSource::Level => "level",
        }
    }
}

/// An attribute by its key, or, for `a.b` where there is none, the key `b` of the map `a`.
pub(super) fn find<'a>(attributes: Attributes<'a>, key: &[u8]) -> Result<Option<AnyValue<'a>>, WireError> {
    find_at(attributes, key, 0)
}

fn find_at<'a>(
    attributes: Attributes<'a>,
    key: &[u8],
    depth: u32,
) -> Result<Option<AnyValue<'a>>, WireError> {
    if let Some(value) = attributes.get(key)? {
        return Ok(Some(value));
    }
    if depth >= MAX_VALUE_DEPTH || !key.contains(&b'.') {
        return Ok(None);
    }
    for pair in attributes {
        let (name, value) = pair?;
        if let AnyValue::KvList(map) = value
            && is_parent(name, key)
            && let Some(rest) = key.get(name.len() + 1..)
            && let Some(found) = find_at(map.pairs(), rest, depth + 1)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Whether a map of this name may hold what the key names.
pub(super) fn is_parent(name: &[u8], key: &[u8]) -> bool {
    key.len() > name.len() && key.get(name.len()) == Some(&b'.') && key.starts_with(name)
}

/// `trace` to `fatal` for a severity number; nothing for none.
pub(super) fn level(number: i32) -> &'static str {
    match number {
        1..=4 => "trace",
        5..=8 => "debug",
        9..=12 => "info",
        13..=16 => "warn",
        17..=20 => "error",
        21..=24 => "fatal",
        _ => "",
    }
}

/// `TRACE` to `FATAL4`, as the old exporter wrote it; nothing for none.
pub(super) fn old_level(number: i32) -> String {
    let name = level(number).to_ascii_uppercase();
    match number.rem_euclid(4) {
        _ if name.is_empty() => name,
        1 => name,
        0 => name + "4",
        n => format!("{name}{n}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        let got: Vec<String> = [-1, 0, 1, 2, 4, 5, 8, 9, 10, 16, 17, 24, 25].map(old_level).to_vec();
        let want = [
            "", "", "TRACE", "TRACE2", "TRACE4", "DEBUG", "DEBUG4", "INFO", "INFO2", "WARN4", "ERROR",
            "FATAL4", "",
        ];
        assert_eq!(got, want);
    }

    #[test]
    fn sources() {
        use LabelSource::{Record, Resource, Scope, ScopeName};
        assert_eq!(LabelSource::parse("resource.a.b"), Ok(Resource("a.b".into())));
        assert_eq!(LabelSource::parse("attribute.a"), Ok(Record("a".into())));
        assert_eq!(LabelSource::parse("scope.x"), Ok(Scope("x".into())));
        assert_eq!(LabelSource::parse("scope.name"), Ok(ScopeName));
        for wrong in ["a", "resource", "resource.", "attributes.x", ""] {
            assert!(LabelSource::parse(wrong).is_err(), "{wrong}");
        }
    }
}
