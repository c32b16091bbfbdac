//! Findings as a user reads them, and as a program does.

use super::node::Pos;
use super::sources::SourceText;
use super::yaml::lines;
use super::{Diag, Severity};

/// How many findings are shown as text; nobody reads more, and each may show a long line.
const SHOWN: usize = 100;

/// How much of a long line is shown, in characters.
const WINDOW: usize = 120;

impl Severity {
    /// The word in front of a finding.
    pub const fn name(self) -> &'static str {
        match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// Findings as text: each with its place, the line and a caret under it, then how many there are.
pub fn render(diags: &[Diag], sources: &[SourceText]) -> String {
    let mut out = String::new();
    for diag in diags.iter().take(SHOWN) {
        one(diag, sources, &mut out);
        out.push('\n');
    }
    if !diags.is_empty() {
        out.push_str(&summary(diags));
        if diags.len() > SHOWN {
            out.push_str(&format!("; the first {SHOWN} are shown"));
        }
        out.push('\n');
    }
    out
}

/// Findings as a JSON array of objects; `line` and `column` are null where there is no place.
pub fn to_json(diags: &[Diag], sources: &[SourceText]) -> serde_json::Value {
    let place = |n: u32| if n == 0 { serde_json::Value::Null } else { n.into() };
    diags
        .iter()
        .map(|d| {
            let related = d.related.map(|(how, pos)| format!("{how} at {}", at(pos, sources)));
            let hint: Vec<&str> = d.hint.as_deref().into_iter().chain(related.as_deref()).collect();
            serde_json::json!({
                "severity": d.severity.name(),
                "file": sources.get(usize::from(d.pos.source)).map(|s| s.name.as_str()),
                "line": place(d.pos.line),
                "column": place(d.pos.col),
                "path": d.path,
                "message": d.message,
                "hint": if hint.is_empty() { serde_json::Value::Null } else { hint.join("; ").into() },
            })
        })
        .collect()
}

/// `2 errors, 1 warning`.
pub fn summary(diags: &[Diag]) -> String {
    let parts: Vec<String> = [Severity::Error, Severity::Warning, Severity::Note]
        .into_iter()
        .filter_map(|severity| {
            let n = diags.iter().filter(|d| d.severity == severity).count();
            (n > 0).then(|| format!("{n} {}{}", severity.name(), if n == 1 { "" } else { "s" }))
        })
        .collect();
    parts.join(", ")
}

/// `file:line:column`, or only the file where there is no place.
fn at(pos: Pos, sources: &[SourceText]) -> String {
    let name = sources.get(usize::from(pos.source)).map_or("config", |s| s.name.as_str());
    if pos.line == 0 { name.to_owned() } else { format!("{name}:{}:{}", pos.line, pos.col) }
}

fn one(diag: &Diag, sources: &[SourceText], out: &mut String) {
    let Pos { line, col, .. } = diag.pos;
    let number = line.to_string();
    let margin = " ".repeat(number.len() + 1);
    out.push_str(&format!("{}: {}\n", diag.severity.name(), printable(&diag.message)));
    out.push_str(&format!("{margin}--> {}\n", printable(&at(diag.pos, sources))));
    let text = sources.get(usize::from(diag.pos.source)).filter(|_| line > 0);
    if let Some(shown) = text.and_then(|s| lines(&s.text).nth(line as usize - 1)) {
        let chars: Vec<char> = shown.chars().collect();
        let col = (col.max(1) as usize - 1).min(chars.len());
        let len = token(chars.get(col..).unwrap_or_default()).max(1);
        // A long line is shown around its mistake.
        let start = if chars.len() > WINDOW { col.saturating_sub(WINDOW / 2) } else { 0 };
        let window: String = chars.iter().skip(start).take(WINDOW).collect();
        let window = printable(&window);
        let len = len.min((WINDOW + start).saturating_sub(col).max(1));
        let shown = format!(" {number} | {window}");
        out.push_str(&format!("{margin} |\n{}\n", shown.trim_end()));
        out.push_str(&format!("{margin} | {}{}\n", " ".repeat(col - start), "^".repeat(len)));
    }
    if let Some(hint) = &diag.hint {
        out.push_str(&format!("{margin} = {}\n", printable(hint)));
    }
    if let Some((how, pos)) = diag.related {
        out.push_str(&format!("{margin} = {how} at {}\n", printable(&at(pos, sources))));
    }
    if !diag.path.is_empty() {
        out.push_str(&format!("{margin} = at {}\n", printable(&diag.path)));
    }
}

/// One line that a terminal shows as it is: control characters would move the caret, or worse.
fn printable(text: &str) -> String {
    let show = |c: char| match c {
        '\t' | '\n' => ' ',
        // Marks that turn the direction of text can hide what a line says.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200b}'..='\u{200f}' | '\u{feff}' => {
            '\u{fffd}'
        }
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.chars().map(show).collect()
}

/// How long the key or the value at the start of `rest` is.
pub(super) fn token(rest: &[char]) -> usize {
    let blank = |c: Option<&char>| c.is_none_or(|c| c.is_whitespace());
    match rest.first() {
        None => 0,
        Some(quote @ ('"' | '\'')) => {
            let mut at = 1;
            let end = loop {
                match rest.get(at) {
                    None => break rest.len(),
                    Some('\\') if *quote == '"' => at += 2,
                    Some(c) if c == quote && *quote == '\'' && rest.get(at + 1) == Some(quote) => at += 2,
                    Some(c) if c == quote => break at + 1,
                    Some(_) => at += 1,
                }
            };
            end.min(rest.len())
        }
        Some('[' | '{') => 1,
        Some('$') if rest.get(1) == Some(&'{') => {
            rest.iter().position(|c| *c == '}').map_or(rest.len(), |end| end + 1)
        }
        Some(_) => {
            let end = rest.iter().enumerate().position(|(i, c)| match c {
                ':' => blank(rest.get(i + 1)),
                '#' => i > 0 && blank(rest.get(i - 1)),
                ',' | ']' | '}' => {
                    i > 0 && rest.get(i + 1).is_none_or(|c| c.is_whitespace() || "]},".contains(*c))
                }
                _ => false,
            });
            let text = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
            text.iter().rposition(|c| !c.is_whitespace()).map_or(1, |last| last + 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diag(line: u32, col: u32) -> Diag {
        Diag {
            severity: Severity::Error,
            pos: Pos { source: 0, line, col },
            path: "receivers::otlp".to_owned(),
            message: "bad".to_owned(),
            hint: Some("better".to_owned()),
            related: Some(("first written", Pos { source: 0, line: 1, col: 2 })),
        }
    }

    fn shown(text: &str, line: u32, col: u32) -> String {
        render(&[diag(line, col)], &[SourceText { name: "c.yaml".into(), text: text.into() }])
    }

    #[test]
    fn the_format_is_kept() {
        assert_eq!(
            shown("a:\n  endpont: x # y\n", 2, 3),
            "error: bad\n  --> c.yaml:2:3\n   |\n 2 |   endpont: x # y\n   |   ^^^^^^^\n   = better\n   = first written at c.yaml:1:2\n   = at receivers::otlp\n\n1 error\n"
        );
        assert_eq!(
            shown("", 0, 0),
            "error: bad\n  --> c.yaml\n   = better\n   = first written at c.yaml:1:2\n   = at receivers::otlp\n\n1 error\n"
        );
        let json = to_json(&[diag(0, 0)], &[SourceText { name: "c.yaml".into(), text: String::new() }]);
        assert_eq!(
            json.to_string(),
            r#"[{"severity":"error","file":"c.yaml","line":null,"column":null,"path":"receivers::otlp","message":"bad","hint":"better; first written at c.yaml:1:2"}]"#
        );
    }

    #[test]
    fn the_caret_covers_what_is_meant() {
        for (text, col, len) in [
            ("a: b c # d", 4, 3),
            ("a: \"b \\\" c\" # d", 4, 8),
            ("a: 'b''c: d' # e", 4, 9),
            ("a: \"b\\", 4, 3),
            ("a: [x, y]", 4, 1),
            ("a: [x, y]", 5, 1),
            ("a: [x, yz]", 8, 2),
            ("{a: b}", 2, 1),
            ("a: http://x:1", 4, 10),
            ("a: x${env:B}y", 5, 8),
            ("ä: ö", 4, 1),
            ("a", 2, 1),
        ] {
            let out = shown(text, 1, col);
            let caret = out.lines().find(|l| l.contains('^')).unwrap();
            assert_eq!(caret.matches('^').count(), len, "{text}");
            assert_eq!(caret.find('^').unwrap(), 5 + col as usize - 1, "{text}");
        }
    }

    #[test]
    fn hostile_text_stays_on_its_line() {
        let out = shown(&format!("{}\u{1b}[31m\t\u{202e}: x", "y".repeat(500)), 1, 501);
        assert!(out.chars().all(|c| c == '\n' || !c.is_control()));
        assert!(out.lines().all(|l| l.chars().count() < WINDOW + 10));
    }

    #[test]
    fn a_flood_is_cut() {
        let out = shown("", 0, 0).len();
        let many = render(&vec![diag(0, 0); 1000], &[]);
        assert!(many.ends_with("\n1000 errors; the first 100 are shown\n") && many.len() < 101 * out);
    }

    #[test]
    fn counts() {
        let mut diags = vec![diag(0, 0), diag(0, 0), diag(0, 0), diag(0, 0)];
        diags[2].severity = Severity::Warning;
        diags[3].severity = Severity::Note;
        assert_eq!(summary(&diags), "2 errors, 1 warning, 1 note");
        assert_eq!(render(&[], &[]), "");
    }
}
