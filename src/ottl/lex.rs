//! Text to tokens, each with the offset at which it begins.
//!
//! Costs: one pass, at configuration time. Any text gives tokens or an error that points at the offending byte.

use super::ParseError;

/// A token and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) at: usize,
    pub(super) kind: TokenKind,
}

/// What a token is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum TokenKind {
    /// A letter or `_`, then letters, digits and `_`.
    Word(String),
    Int(u64),
    Float(f64),
    Str(String),
    Bytes(Vec<u8>),
    /// An operator or a bracket.
    Sign(&'static str),
    End,
}

/// Longer ones first.
const SIGNS: [&str; 20] =
    ["==", "!=", "<=", ">=", "<", ">", "=", "(", ")", "[", "]", "{", "}", ",", ".", ":", "+", "-", "*", "/"];

/// The tokens of a text; the last is [`TokenKind::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, ParseError> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(first) = text.get(at..).and_then(|rest| rest.chars().next()) {
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        let rest = text.get(at..).unwrap_or_default();
        let (kind, len) = if first.is_ascii_alphabetic() || first == '_' {
            let len = run(rest, |c| c.is_ascii_alphanumeric() || c == '_');
            (TokenKind::Word(rest.get(..len).unwrap_or_default().to_owned()), len)
        } else if first == '"' {
            string(rest, at)?
        } else if let Some(hex) = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
            bytes(hex, at)?
        } else if first.is_ascii_digit() || (first == '.' && rest.get(1..).is_some_and(digit)) {
            number(rest, at)?
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            (TokenKind::Sign(sign), sign.len())
        } else {
            return Err(stray(first, at));
        };
        out.push(Token { at, kind });
        at += len;
    }
    out.push(Token { at: text.len(), kind: TokenKind::End });
    Ok(out)
}

fn stray(c: char, at: usize) -> ParseError {
    let error = ParseError::new(at, format!("unexpected character {c:?}"));
    match c {
        '\'' | '`' => error.hint("write strings in double quotes"),
        '&' => error.hint("write \"and\""),
        '|' => error.hint("write \"or\""),
        '!' => error.hint("write \"not\", or \"!=\" to compare"),
        _ => error,
    }
}

fn digit(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
}

/// How many bytes at the start satisfy a test.
fn run(text: &str, test: impl Fn(char) -> bool) -> usize {
    text.find(|c| !test(c)).unwrap_or(text.len())
}

fn number(text: &str, at: usize) -> Result<(TokenKind, usize), ParseError> {
    let digits = |from: usize| run(text.get(from..).unwrap_or_default(), |c| c.is_ascii_digit());
    let mut len = digits(0);
    let mut float = false;
    if text.get(len..).is_some_and(|rest| rest.starts_with('.') && digit(rest.get(1..).unwrap_or_default())) {
        float = true;
        len += 1 + digits(len + 1);
        let exponent = text.get(len..).unwrap_or_default();
        if exponent.starts_with(['e', 'E']) {
            let sign = usize::from(exponent.get(1..).unwrap_or_default().starts_with(['+', '-']));
            let count = digits(len + 1 + sign);
            if count > 0 {
                len += 1 + sign + count;
            }
        }
    }
    let word = text.get(..len).unwrap_or_default();
    let after = text.get(len..).unwrap_or_default();
    if after.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        return Err(ParseError::new(at, "a number is followed by letters"));
    }
    let bad = |_| ParseError::new(at, format!("{word} is too large a number"));
    Ok(match float {
        true => (TokenKind::Float(word.parse().map_err(|_| ParseError::new(at, "not a number"))?), len),
        false => (TokenKind::Int(word.parse().map_err(bad)?), len),
    })
}

fn bytes(hex: &str, at: usize) -> Result<(TokenKind, usize), ParseError> {
    let len = run(hex, |c| c.is_ascii_alphanumeric());
    match unhex(hex.get(..len).unwrap_or_default()) {
        Some(bytes) => Ok((TokenKind::Bytes(bytes), len + 2)),
        None => Err(ParseError::new(at, "bytes are pairs of hexadecimal digits after 0x")),
    }
}

/// Pairs of hexadecimal digits as bytes.
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let nibble = |c: &u8| char::from(*c).to_digit(16);
    text.as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some((nibble(high)? << 4 | nibble(low)?) as u8),
            _ => None,
        })
        .collect()
}

/// A string in double quotes at the start of `text`.
fn string(text: &str, at: usize) -> Result<(TokenKind, usize), ParseError> {
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return Ok((TokenKind::Str(out), i + 1)),
            '\\' => {
                let Some((_, escape)) = chars.next() else { break };
                let mut hex = |digits: usize| -> Option<char> {
                    let mut value = 0;
                    for _ in 0..digits {
                        value = value * 16 + chars.next()?.1.to_digit(16)?;
                    }
                    char::from_u32(value)
                };
                let escaped = match escape {
                    'n' => Some('\n'),
                    't' => Some('\t'),
                    'r' => Some('\r'),
                    'a' => Some('\u{7}'),
                    'b' => Some('\u{8}'),
                    'f' => Some('\u{c}'),
                    'v' => Some('\u{b}'),
                    '\\' | '"' | '\'' => Some(escape),
                    'x' => hex(2).filter(char::is_ascii),
                    'u' => hex(4),
                    'U' => hex(8),
                    _ => None,
                };
                out.push(escaped.ok_or_else(|| {
                    ParseError::new(at + i, format!("a string has no escape \\{escape}"))
                        .hint(format!("write a backslash twice: \\\\{escape}"))
                })?);
            }
            c => out.push(c),
        }
    }
    Err(ParseError::new(at, "the string is not closed").hint("end it with a double quote"))
}
