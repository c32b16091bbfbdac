//! Which values must not be shown: secrets, and whatever was not understood.
//!
//! A value under a misspelt key or of an unknown component may be a secret that no config type has claimed, so every
//! scalar that none has taken counts as one. Hidden values are left out of `print-config` and struck out of the
//! lines shown with findings; a value of the wrong type, which is what such a finding is about, is only left out.

use std::collections::{BTreeMap, HashSet};

use super::node::{Node, Pos, Value};
use super::render::token;
use super::sources::SourceText;
use super::yaml::lines;

/// The paths of values to hide. Their texts are struck out of `sources`, which keeps every column where it is.
pub(super) fn hide(
    tree: &Node,
    secrets: Vec<String>,
    unknown: Vec<String>,
    mistyped: Vec<String>,
    sources: &mut [SourceText],
) -> HashSet<String> {
    let mut walk = Walk { struck: unknown.into_iter().collect(), ..Walk::default() };
    walk.struck.extend(secrets.iter().cloned());
    walk.left_out.extend(mistyped);
    walk.node(tree, None, &mut String::new(), Shown::Everywhere);
    let mut paths = walk.paths;
    paths.extend(secrets);
    for (index, places) in walk.places {
        if let Some(source) = sources.get_mut(usize::from(index)) {
            source.text = strike_out(&source.text, &places);
        }
    }
    paths
}

/// What is to be struck out: by line, the columns where hidden values start, and the values.
type Places<'n> = BTreeMap<u32, Vec<(u32, &'n Value)>>;

/// Where a value may be shown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Shown {
    Nowhere,
    InFindings,
    Everywhere,
}

#[derive(Default)]
struct Walk<'n> {
    /// Paths of values that are shown nowhere.
    struck: HashSet<String>,
    /// Paths of values that findings show.
    left_out: HashSet<String>,
    paths: HashSet<String>,
    places: BTreeMap<u16, Places<'n>>,
}

impl<'n> Walk<'n> {
    fn node(&mut self, node: &'n Node, key: Option<Pos>, path: &mut String, above: Shown) {
        let shown = match path.as_str() {
            path if self.struck.contains(path) => Shown::Nowhere,
            path if self.left_out.contains(path) => above.min(Shown::InFindings),
            _ => above,
        };
        let end = path.len();
        let enter = |path: &mut String, segment: &str| {
            if !path.is_empty() {
                path.push_str("::");
            }
            path.push_str(segment);
        };
        match &node.value {
            Value::Map(entries) => {
                for (key, value) in entries {
                    enter(path, &key.text);
                    self.node(value, Some(key.pos), path, shown);
                    path.truncate(end);
                }
            }
            Value::Seq(items) => {
                for (i, item) in items.iter().enumerate() {
                    enter(path, &i.to_string());
                    self.node(item, None, path, shown);
                    path.truncate(end);
                }
            }
            Value::Null => {}
            _ if shown == Shown::Everywhere => {}
            value => {
                self.paths.insert(path.clone());
                // At its key stands a value that is not there. What is written as a reference says nothing.
                if shown == Shown::Nowhere
                    && key != Some(node.pos)
                    && node.pos.line > 0
                    && node.expanded.is_none()
                {
                    let places = self.places.entry(node.pos.source).or_default();
                    places.entry(node.pos.line).or_default().push((node.pos.col, value));
                }
            }
        }
    }
}

fn strike_out(text: &str, places: &Places<'_>) -> String {
    let struck = |(number, line): (u32, &str)| match places.get(&number) {
        None => line.to_owned(),
        Some(places) => {
            let mut chars: Vec<char> = line.chars().collect();
            for (col, value) in places {
                strike(chars.get_mut(*col as usize - 1..).unwrap_or_default(), value);
            }
            chars.into_iter().collect()
        }
    };
    (1..).zip(lines(text)).map(struck).collect::<Vec<_>>().join("\n")
}

/// Strikes out `value` at the start of `rest`, what is left of its line.
fn strike(rest: &mut [char], value: &Value) {
    let (written, len) = match value {
        Value::Str(text) if text.chars().eq(rest.iter().take(text.chars().count()).copied()) => {
            (true, text.chars().count())
        }
        // Where a text that is not written as it reads ends is not worth finding out.
        Value::Str(_) if !matches!(rest.first(), Some('"' | '\'')) => (false, rest.len()),
        _ => (false, token(rest)),
    };
    let mut reference = false;
    for at in 0..len.min(rest.len()) {
        // The name of a variable says nothing.
        reference |= !written && rest.get(at) == Some(&'$') && rest.get(at + 1) == Some(&'{');
        if let Some(c) = rest.get_mut(at) {
            let end = *c == '}';
            if !reference {
                *c = '*';
            }
            reference &= !end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cx::Cx;
    use super::super::yaml::{Place, parse};
    use super::*;

    #[test]
    fn secrets_and_what_was_not_understood() {
        let text = "a: {token: s1, list: [s2, 'it''s', 7]}\nb: \"s3\" # c\nc: s, 4\nd: |\n  s5\ne: shown\nf: ~\ng: h\n";
        let tree = parse(text, Place::default(), &mut Cx::default()).unwrap();
        let mut sources = [SourceText { name: "c.yaml".into(), text: text.to_owned() }];
        let marked = |paths: &[&str]| paths.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>();
        let mut found: Vec<String> =
            hide(&tree, marked(&["b", "d"]), marked(&["a", "c", "f"]), marked(&["g"]), &mut sources)
                .into_iter()
                .collect();
        found.sort();
        assert_eq!(found, ["a::list::0", "a::list::1", "a::list::2", "a::token", "b", "c", "d", "g"]);
        let mut line: Vec<char> = "x ${env:A} y".chars().collect();
        strike(&mut line, &Value::Str("x b y".to_owned()));
        assert_eq!(String::from_iter(line), "**${env:A}**");
        assert_eq!(
            sources[0].text,
            "a: {token: **, list: [**, *******, *]}\nb: **** # c\nc: ****\nd: |\n  **\ne: shown\nf: ~\ng: h\n"
        );
    }
}
