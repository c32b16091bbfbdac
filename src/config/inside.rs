//! Where a mistake inside a text stands: from an offset in the value to line and column in the source.
//!
//! A value that was written plain or in quotes on one line is read again, character by character, so that escapes,
//! doubled quotes and doubled dollar signs move nothing. In a literal block of lines (`|`) the line is found first.
//! Whatever else the value came from (folded lines, a variable), the place is where it starts.

use super::Pos;
use super::sources::SourceText;
use super::yaml::lines;

/// The place of the character that starts at the byte `offset` of `value`, which starts at `pos`.
pub(super) fn locate(pos: Pos, value: &str, offset: usize, sources: &[SourceText]) -> Pos {
    let before = value.get(..offset).unwrap_or_default();
    if let Some(start) = before.rfind('\n').map(|at| at + 1) {
        let (skipped, line) = (before.matches('\n').count(), value.get(start..).unwrap_or_default());
        let line = line.split('\n').next().unwrap_or_default();
        let first = Pos { line: pos.line + u32::try_from(skipped).unwrap_or_default(), ..pos };
        let found = locate(first, line, offset - start, sources);
        // Lines of a block begin in one column, and each is there as a whole.
        let there = sources
            .get(usize::from(pos.source))
            .and_then(|source| lines(&source.text).nth(first.line as usize - 1))
            .is_some_and(|text| pos.line > 0 && text.trim() == line.trim() && !line.trim().is_empty());
        return if there { found } else { pos };
    }
    let value = value.split('\n').next().unwrap_or_default();
    let column = || {
        let source = sources.get(usize::from(pos.source)).filter(|_| pos.line > 0)?;
        let line = lines(&source.text).nth(pos.line as usize - 1)?;
        let start = (pos.col as usize).checked_sub(1)?;
        let chars: Vec<char> = line.chars().skip(start).collect();
        let mut read = scalar(&chars, value)?;
        if !same(&read, value) {
            read = without_escaped_dollars(&read);
        }
        if !same(&read, value) {
            return None;
        }
        // A mistake at the end stands behind the last character.
        let nth = value.get(..offset)?.chars().count();
        let behind = || read.last().map_or(0, |(_, at)| at + 1);
        let at = read.get(nth).map_or_else(behind, |(_, at)| *at);
        u32::try_from(start + at + 1).ok()
    };
    Pos { col: column().unwrap_or(pos.col), ..pos }
}

/// The characters that a scalar on one line stands for, each with its place in `chars`.
fn scalar(chars: &[char], value: &str) -> Option<Vec<(char, usize)>> {
    match chars.first()? {
        '\'' => single_quoted(chars),
        '"' => double_quoted(chars),
        _ => {
            // A plain scalar has no escapes but dollar signs.
            let text: Vec<(char, usize)> = chars.iter().copied().zip(0..).collect();
            let len = value.chars().count();
            match text.get(..len).filter(|head| same(head, value)) {
                Some(head) => Some(head.to_vec()),
                None => without_escaped_dollars(&text).get(..len).map(<[_]>::to_vec),
            }
        }
    }
}

fn single_quoted(chars: &[char]) -> Option<Vec<(char, usize)>> {
    let mut out = Vec::new();
    let mut at = 1;
    loop {
        match (chars.get(at)?, chars.get(at + 1)) {
            ('\'', Some('\'')) => {
                out.push(('\'', at));
                at += 2;
            }
            ('\'', _) => return Some(out),
            (c, _) => {
                out.push((*c, at));
                at += 1;
            }
        }
    }
}

fn double_quoted(chars: &[char]) -> Option<Vec<(char, usize)>> {
    let mut out = Vec::new();
    let mut at = 1;
    loop {
        let start = at;
        let c = match chars.get(at)? {
            '"' => return Some(out),
            '\\' => {
                at += 1;
                let digits = match chars.get(at)? {
                    'x' => 2,
                    'u' => 4,
                    'U' => 8,
                    _ => 0,
                };
                if digits > 0 {
                    let hex: String = chars.get(at + 1..at + 1 + digits)?.iter().collect();
                    at += digits;
                    char::from_u32(u32::from_str_radix(&hex, 16).ok()?)?
                } else {
                    escaped(*chars.get(at)?)?
                }
            }
            c => *c,
        };
        out.push((c, start));
        at += 1;
    }
}

/// What a letter behind a backslash stands for in double quotes.
fn escaped(letter: char) -> Option<char> {
    Some(match letter {
        '0' => '\0',
        'a' => '\x07',
        'b' => '\x08',
        't' | '\t' => '\t',
        'n' => '\n',
        'v' => '\x0b',
        'f' => '\x0c',
        'r' => '\r',
        'e' => '\x1b',
        ' ' | '"' | '/' | '\\' => letter,
        'N' => '\u{85}',
        '_' => '\u{a0}',
        'L' => '\u{2028}',
        'P' => '\u{2029}',
        _ => return None,
    })
}

/// Half of each run of dollar signs, as expansion leaves them where no reference follows.
fn without_escaped_dollars(text: &[(char, usize)]) -> Vec<(char, usize)> {
    let mut out = Vec::with_capacity(text.len());
    let mut run = 0;
    for &(c, at) in text {
        run = if c == '$' { run + 1 } else { 0 };
        if run == 0 || run % 2 == 1 {
            out.push((c, at));
        }
    }
    out
}

fn same(read: &[(char, usize)], value: &str) -> bool {
    read.iter().map(|(c, _)| *c).eq(value.chars())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_inside_scalars() {
        // The line, where the scalar starts in it, its value, and where the X of the value is.
        for (line, col, value, want) in [
            ("key: abX", 6, "abX", 8),
            ("key: 'abX'", 6, "abX", 9),
            ("key: 'a''X' # more", 6, "a'X", 10),
            (r#"key: "a\"\\X""#, 6, r#"a"\X"#, 12),
            (r#"key: "\u00e4\x41X""#, 6, "äAX", 17),
            ("- ü == X # comment", 3, "ü == X", 8),
            ("- a$$1X", 3, "a$1X", 7),
            ("- 'a$$$$X'", 3, "a$$X", 9),
            ("- a$1X", 3, "a$1X", 6),
            // Not what stands there: the start of the value.
            ("- ${env:NAME}", 3, "abX", 3),
            ("- |-", 3, "abX", 3),
            ("- \"ab", 3, "ab X", 3),
        ] {
            let sources = [SourceText { name: "c.yaml".into(), text: format!("first:\n{line}\n") }];
            let pos = Pos { source: 0, line: 2, col };
            let offset = value.find('X').unwrap();
            assert_eq!(locate(pos, value, offset, &sources).col, want, "{line}");
        }
        let sources = [SourceText { name: "c.yaml".into(), text: "- abc # more\n".into() }];
        let pos = Pos { source: 0, line: 1, col: 3 };
        assert_eq!(locate(pos, "abc", 3, &sources).col, 6, "at the end");
        assert_eq!(locate(pos, "abc", 99, &sources), pos);
        let sources = [SourceText { name: "c.yaml".into(), text: "- |\n    abc\n    d X\n- e\n".into() }];
        let pos = Pos { source: 0, line: 2, col: 5 };
        assert_eq!(locate(pos, "abc\nd X\n", 2, &sources), Pos { line: 2, col: 7, ..pos });
        assert_eq!(locate(pos, "abc\nd X\n", 6, &sources), Pos { line: 3, col: 7, ..pos });
        assert_eq!(locate(pos, "abc\nd Y\n", 6, &sources), pos);
        assert_eq!(locate(Pos::default(), "abc", 1, &sources), Pos::default());
    }
}
