//! Expressions as Prometheus means them: RE2's classes of ASCII, anchored at both ends, the dot matching all.

use regex::{Regex, RegexBuilder};

/// The most memory a compiled expression may take.
const SIZE_LIMIT: usize = 8 << 20;

/// Compiles an expression that must match the whole text.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn anchored(text: &str) -> Result<Regex, String> {
    // By itself first: what closes the group here must not pass for an expression.
    let inner = translate(text);
    build(&inner)?;
    build(&format!("^(?s:{inner})$"))
}

fn build(text: &str) -> Result<Regex, String> {
    RegexBuilder::new(text).size_limit(SIZE_LIMIT).build().map_err(|why| {
        let text = why.to_string();
        let last = text.lines().last().unwrap_or_default();
        format!("not a regular expression: {}", last.strip_prefix("error: ").unwrap_or(last))
    })
}

/// Rewrites what RE2 reads otherwise than the library: classes of ASCII, `\Q…\E`, and in brackets the characters
/// with which the library writes sets.
pub(crate) fn translate(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut chars = text.chars().peekable();
    let mut class = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('Q') if !class => {
                    let rest: String = chars.clone().collect();
                    let (quoted, skip) = match rest.find("\\E") {
                        Some(end) => (rest.get(..end).unwrap_or_default(), 2),
                        None => (rest.as_str(), 0),
                    };
                    out.push_str(&regex::escape(quoted));
                    for _ in 0..quoted.chars().count() + skip {
                        chars.next();
                    }
                }
                Some(escape) => out.push_str(&escaped(escape, class)),
                None => out.push('\\'),
            },
            '[' if !class => {
                class = true;
                out.push('[');
                if chars.peek() == Some(&'^') {
                    chars.next();
                    out.push('^');
                }
                // Here a bracket is one of the characters.
                if chars.peek() == Some(&']') {
                    chars.next();
                    out.push_str("\\]");
                }
            }
            '[' if chars.peek() == Some(&':') => {
                out.push('[');
                for c in chars.by_ref() {
                    out.push(c);
                    if c == ']' {
                        break;
                    }
                }
            }
            '[' => out.push_str("\\["),
            ']' if class => {
                class = false;
                out.push(']');
            }
            '&' | '~' if class => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out
}

fn escaped(c: char, class: bool) -> String {
    let (inside, negated) = match c {
        'w' => ("0-9A-Za-z_", false),
        'W' => ("0-9A-Za-z_", true),
        'd' => ("0-9", false),
        'D' => ("0-9", true),
        's' => ("\\t\\n\\f\\r ", false),
        'S' => ("\\t\\n\\f\\r ", true),
        'b' if !class => return "(?-u:\\b)".to_owned(),
        'B' if !class => return "(?-u:\\B)".to_owned(),
        c => return format!("\\{c}"),
    };
    match (class, negated) {
        (true, false) => inside.to_owned(),
        (_, true) => format!("[^{inside}]"),
        (false, false) => format!("[{inside}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_mean_what_they_mean_in_prometheus() {
        for (text, yes, no) in [
            (r"\w+", "a_9", "é"),
            (r"\d", "3", "٣"),
            (r"[\w-]+", "a-b", "a é"),
            (r"[^\d]", "٣", "3"),
            (r"[\D]", "x", "3"),
            (r"\S+", "a\u{b}b", "a b"),
            (r"\Qa.b\E.", "a.bc", "axbc"),
            (r"\Qa.b", "a.b", "axb"),
            (r"[[:alpha:]]", "x", "1"),
            (r"[[&~]+", "[&~", "x"),
            (r"[]a]", "]", "b"),
            (r"a|b", "b", "ab"),
            (r"a.b", "a\nb", "ab"),
            (r"a\b.*", "a-", "ab"),
            ("", "", "a"),
        ] {
            let regex = anchored(text).unwrap();
            assert!(regex.is_match(yes), "{text} does not match {yes:?}");
            assert!(!regex.is_match(no), "{text} matches {no:?}");
        }
        assert!(anchored("a)(b").is_err());
        assert!(anchored("(").is_err());
        assert!(anchored("x{1000}{1000}{1000}").is_err());
    }
}
