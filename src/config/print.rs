//! A config tree as YAML or JSON again: what `print-config` shows.

use std::collections::HashSet;

use super::node::{Node, Value};
use super::scalar;
use super::sources::SourceText;

/// What is shown in place of a secret.
const REDACTED: &str = "[REDACTED]";

/// How long a key may be, in bytes, that is not marked by `?`; YAML allows 1024 characters.
const MAX_IMPLICIT_KEY: usize = 1000;

/// What `print-config` shows of a tree.
#[derive(Debug, Clone, Copy, Default)]
pub struct Printing<'a> {
    /// Paths whose values are replaced.
    pub secrets: Option<&'a HashSet<String>>,
    /// Appends where each value comes from: `# file:line`.
    pub provenance: Option<&'a [SourceText]>,
}

impl Printing<'_> {
    /// The tree as YAML.
    pub fn yaml(&self, tree: &Node) -> String {
        let mut out = String::new();
        match &tree.value {
            Value::Map(entries) if !entries.is_empty() => self.block(tree, 0, &mut Vec::new(), &mut out),
            Value::Seq(items) if !items.is_empty() => self.block(tree, 0, &mut Vec::new(), &mut out),
            _ => out.push_str(&format!("{}\n", flat(&tree.value))),
        }
        out
    }

    /// The tree as JSON.
    pub fn json(&self, tree: &Node) -> serde_json::Value {
        self.redacted(tree, &mut Vec::new()).to_json()
    }

    fn block<'n>(&self, node: &'n Node, indent: usize, path: &mut Vec<&'n str>, out: &mut String) {
        let margin = " ".repeat(indent);
        match &node.value {
            Value::Map(entries) => {
                for (key, value) in entries {
                    path.push(&key.text);
                    let key = quoted(&key.text);
                    match key.len() {
                        0..=MAX_IMPLICIT_KEY => out.push_str(&format!("{margin}{key}:")),
                        _ => out.push_str(&format!("{margin}? {key}\n{margin}:")),
                    }
                    self.value(value, indent + 2, path, out);
                    path.pop();
                }
            }
            Value::Seq(items) => {
                for (i, value) in items.iter().enumerate() {
                    let index = i.to_string();
                    let mut inner: Vec<&str> = path.clone();
                    inner.push(&index);
                    let mut item = String::new();
                    self.value(value, indent + 2, &mut inner, &mut item);
                    // A block starts on the line of its dash, where its own margin would be.
                    let text = item
                        .strip_prefix('\n')
                        .map_or(item.as_str(), |block| block.get(indent + 1..).unwrap_or(""));
                    out.push_str(&format!("{margin}-{text}"));
                }
            }
            _ => {}
        }
    }

    fn value(&self, node: &Node, indent: usize, path: &mut Vec<&str>, out: &mut String) {
        let hidden = self.hides(node, path);
        match &node.value {
            Value::Map(entries) if !entries.is_empty() && !hidden => {
                out.push('\n');
                self.block(node, indent, &mut path.clone(), out);
            }
            Value::Seq(items) if !items.is_empty() && !hidden => {
                out.push('\n');
                self.block(node, indent, &mut path.clone(), out);
            }
            value => {
                let shown = match value {
                    _ if hidden => text(REDACTED),
                    Value::Str(s) if self.secrets.is_some() => text(&without_credentials(s)),
                    value => flat(value),
                };
                out.push_str(&format!(" {shown}"));
                if let Some(source) = self.provenance.and_then(|s| s.get(usize::from(node.pos.source))) {
                    let name: String = source.name.chars().filter(|c| !c.is_control()).collect();
                    out.push_str(&format!(" # {name}:{}", node.pos.line));
                }
                out.push('\n');
            }
        }
    }

    fn hides(&self, node: &Node, path: &[&str]) -> bool {
        !node.is_null() && self.secrets.is_some_and(|s| s.contains(&path.join("::")))
    }

    fn redacted<'n>(&self, node: &'n Node, path: &mut Vec<&'n str>) -> Node {
        let value = match &node.value {
            _ if self.hides(node, path) => Value::Str(REDACTED.to_owned()),
            Value::Map(entries) => {
                let entries = entries.iter().map(|(key, value)| {
                    path.push(&key.text);
                    let value = self.redacted(value, path);
                    path.pop();
                    (key.clone(), value)
                });
                Value::Map(entries.collect())
            }
            Value::Seq(items) => {
                let items = items.iter().enumerate().map(|(i, item)| {
                    let index = i.to_string();
                    let mut inner: Vec<&str> = path.clone();
                    inner.push(&index);
                    self.redacted(item, &mut inner)
                });
                Value::Seq(items.collect())
            }
            Value::Str(s) if self.secrets.is_some() => Value::Str(without_credentials(s)),
            other => other.clone(),
        };
        Node::new(node.pos, value)
    }
}

/// Text without the user and password of a URL in it.
fn without_credentials(text: &str) -> String {
    let end = |s: &str| s.find(['/', '?', '#', ' ']).unwrap_or(s.len());
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (authority, path) = rest.split_at(end(rest));
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{REDACTED}@{host}{path}"),
        None => text.to_owned(),
    }
}

/// A scalar or an empty collection on one line.
fn flat(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Int(i) => i.to_string(),
        Value::UInt(u) => u.to_string(),
        Value::Float(f) if f.is_nan() => ".nan".to_owned(),
        Value::Float(f) if f.is_infinite() => if *f > 0.0 { ".inf" } else { "-.inf" }.to_owned(),
        Value::Float(f) => format!("{f:?}"),
        Value::Str(s) => text(s),
        Value::Seq(_) => "[]".to_owned(),
        Value::Map(_) => "{}".to_owned(),
    }
}

/// A value as it can stand in a file and be read, expanded and typed back to itself.
fn text(s: &str) -> String {
    // Dollar signs before a brace or another would be expanded again.
    quoted(&s.replace('$', "$$"))
}

/// Text that is read back as it is, in quotes where it needs them. Keys are this: they are not expanded.
fn quoted(s: &str) -> String {
    let safe = |c: char| c.is_alphanumeric() || "_./-+@%=~$^()*<>;".contains(c);
    let inner = |c: char| safe(c) || c == ' ' || c == ':';
    let plain = s.starts_with(|c: char| c.is_alphanumeric() || "_./$^(".contains(c))
        && s.ends_with(safe)
        && s.chars().all(inner)
        && !s.contains(": ")
        && s.len() < 200
        && matches!(scalar::resolve(s), Value::Str(_));
    if plain { s.to_owned() } else { serde_json::Value::from(s).to_string().replace('\u{7f}', "\\u007f") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Cx;
    use super::super::yaml::{Place, parse};
    use super::*;

    fn read(text: &str) -> Node {
        let mut cx = Cx::default();
        let node = parse(text, Place::default(), &mut cx);
        assert_eq!(cx.diags, [], "{text}");
        node.unwrap()
    }

    #[test]
    fn yaml_with_places_and_without_secrets() {
        let tree = read("a:\n  token: x\n  list: [1, {b: ~}]\n  empty: {}\nc: \"1\"\nd: ${x}\n");
        let sources = [SourceText { name: "c.yaml".into(), text: String::new() }];
        let secrets = HashSet::from(["a::token".to_owned()]);
        let printing = Printing { secrets: Some(&secrets), provenance: Some(&sources) };
        assert_eq!(
            printing.yaml(&tree),
            "a:\n  token: \"[REDACTED]\" # c.yaml:2\n  list:\n    - 1 # c.yaml:3\n    - b: null # c.yaml:3\n  \
             empty: {} # c.yaml:4\nc: \"1\" # c.yaml:5\nd: \"$${x}\" # c.yaml:6\n"
        );
        assert_eq!(
            printing.json(&tree).to_string(),
            r#"{"a":{"token":"[REDACTED]","list":[1,{"b":null}],"empty":{}},"c":"1","d":"${x}"}"#
        );
    }

    #[test]
    fn credentials_in_urls() {
        for (written, shown) in [
            ("http://u:p@h:1/x@y", "http://[REDACTED]@h:1/x@y"),
            ("https://u@h", "https://[REDACTED]@h"),
            ("https://h/a@b", "https://h/a@b"),
            ("a@b", "a@b"),
        ] {
            assert_eq!(without_credentials(written), shown);
        }
    }

    #[test]
    fn long_keys_are_read_back() {
        let key = |text: &str| format!("\"{}{text}\"", "k".repeat(1100));
        let (outer, inner) = (key("é"), key("i"));
        let tree = read(&format!("- ? {outer}\n  : ? {inner}\n    : [x]\n    b: 1\n- c\n"));
        let printed = Printing::default().yaml(&tree);
        assert!(read(&printed).same(&tree), "{printed}");
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            (-1e300..1e300f64).prop_map(Value::Float),
            "[ -~äö\n\t\u{1}\u{85}\u{2028}]{0,12}".prop_map(Value::Str),
            "(0x|0o|~|null|yes|[-+]?[0-9_.]{1,4}|- a|a: b|# c|\\$\\{1\\}|\\$\\$)".prop_map(Value::Str),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            let node = inner.prop_map(|v| Node::new(Default::default(), v));
            let key =
                "[a-z0-9:#~$ -]{0,6}".prop_map(|text| super::super::Key { pos: Default::default(), text });
            prop_oneof![
                proptest::collection::vec(node.clone(), 0..4).prop_map(Value::Seq),
                proptest::collection::vec((key, node), 0..4).prop_map(|mut entries| {
                    entries.sort_by(|a, b| a.0.text.cmp(&b.0.text));
                    entries.dedup_by(|a, b| a.0.text == b.0.text);
                    Value::Map(entries)
                }),
            ]
        })
    }

    proptest! {
        /// What is printed reads back as what it was.
        #[test]
        fn printed_yaml_says_the_same(value in value()) {
            let tree = Node::new(Default::default(), value);
            let printed = Printing::default().yaml(&tree);
            let mut cx = Cx::default();
            let mut sources = Vec::new();
            let back = super::super::expand::expand(read(&printed), &|_| None, &mut sources, &mut cx);
            let same = Node { expanded: None, ..back };
            prop_assert!(same.same(&tree), "{printed}\n{same:?}\n{tree:?}");
        }
    }
}
