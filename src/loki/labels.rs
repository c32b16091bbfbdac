//! Label text: `{a="1", b="2"}`, with Go's escapes.

use std::fmt::Write;

use crate::relabel::Labels;

/// Appends labels as Loki's stream selector, sorted by name.
pub fn put_labels(labels: &Labels, out: &mut String) {
    out.push('{');
    for (i, (name, value)) in labels.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        out.push_str(name);
        out.push_str("=\"");
        for c in value.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\0'..='\u{1f}' | '\u{7f}' => {
                    let _ = write!(out, "\\x{:02x}", u32::from(c));
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
    out.push('}');
}

/// Reads what [`put_labels`] wrote; `None` for anything else.
pub fn parse_labels(text: &str) -> Option<Vec<(String, String)>> {
    let mut rest = text.strip_prefix('{')?.strip_suffix('}')?;
    let mut labels = Vec::new();
    while !rest.is_empty() {
        let (name, tail) = rest.split_once("=\"")?;
        let (value, used) = unquote(tail)?;
        labels.push((name.to_owned(), value));
        rest = tail.get(used..)?;
        rest = rest.strip_prefix(", ").unwrap_or(rest);
    }
    Some(labels)
}

/// The text up to the closing quote, and how many bytes that took.
fn unquote(text: &str) -> Option<(String, usize)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, at + 1)),
            '\\' => match chars.next()?.1 {
                'n' => out.push('\n'),
                'r' => out.push('\r'),
                't' => out.push('\t'),
                'x' => {
                    let code = text.get(at + 2..at + 4)?;
                    out.push(char::from(u8::from_str_radix(code, 16).ok()?));
                    chars.next();
                    chars.next();
                }
                other => out.push(other),
            },
            c => out.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_reads_back() {
        for value in ["x", "C:\\dir \"x\"", "a\nb\t\r\u{1}\u{7f}", "é\u{2028}😀", "a, b=\"c\"}"] {
            let labels: Labels = [("path", value), ("z", "1")].into_iter().collect();
            let mut text = String::new();
            put_labels(&labels, &mut text);
            let want = vec![("path".to_owned(), value.to_owned()), ("z".to_owned(), "1".to_owned())];
            assert_eq!(parse_labels(&text), Some(want), "{text}");
        }
    }

    #[test]
    fn vectors() {
        let text = |pairs: &[(&str, &str)]| {
            let mut out = String::new();
            put_labels(&pairs.iter().copied().collect(), &mut out);
            out
        };
        assert_eq!(text(&[("path", "C:\\dir \"x\"")]), r#"{path="C:\\dir \"x\""}"#, "K17");
        assert_eq!(text(&[("b", "2"), ("a", "1"), ("c", "")]), text(&[("a", "1"), ("b", "2")]), "K18");
    }
}
