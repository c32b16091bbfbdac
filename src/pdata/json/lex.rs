//! A pull lexer for JSON over bytes that are known to be UTF-8.
//!
//! Strict in grammar (no comments, no trailing commas, no control characters in strings), lenient in one
//! point: an escaped surrogate without its partner becomes U+FFFD, because browsers write such strings when
//! they cut text, and one string must not cost a whole request. Costs: one visit per byte, no allocation but
//! for errors.

use super::{JsonError, Limit};

/// A position in a document.
pub(super) struct Lexer<'a> {
    text: &'a [u8],
    pos: usize,
}

/// A string as it stands in the document, between its quotes.
#[derive(Clone, Copy)]
pub(super) struct Str<'a> {
    /// The bytes, escapes not yet resolved.
    pub(super) raw: &'a [u8],
    /// Whether there are escapes.
    pub(super) escaped: bool,
    /// Offset of the opening quote.
    pub(super) at: usize,
}

/// A fault and the members that lead to it; positions are computed when it leaves the decoder.
#[derive(Debug)]
pub(super) struct Fault(Box<FaultInner>);

#[derive(Debug)]
struct FaultInner {
    offset: usize,
    limit: Option<Limit>,
    message: String,
    /// From the inside out.
    path: Vec<String>,
}

impl Fault {
    pub(super) fn new(offset: usize, message: impl Into<String>) -> Self {
        Fault(Box::new(FaultInner { offset, limit: None, message: message.into(), path: Vec::new() }))
    }

    pub(super) fn limit(offset: usize, limit: Limit, message: impl Into<String>) -> Self {
        let mut fault = Fault::new(offset, message);
        fault.0.limit = Some(limit);
        fault
    }

    /// Adds the member or index that encloses the fault.
    pub(super) fn within(mut self, segment: impl Into<String>) -> Self {
        self.0.path.push(segment.into());
        self
    }

    pub(super) fn into_error(self, text: &[u8]) -> JsonError {
        let before = text.get(..self.0.offset).unwrap_or(text);
        let line_start = memchr::memrchr(b'\n', before).map_or(0, |at| at + 1);
        let mut path = String::new();
        for segment in self.0.path.iter().rev() {
            if !path.is_empty() && !segment.starts_with('[') {
                path.push('.');
            }
            path.push_str(segment);
        }
        JsonError {
            offset: self.0.offset,
            line: memchr::memchr_iter(b'\n', before).count() + 1,
            column: before.len() - line_start + 1,
            limit: self.0.limit,
            path,
            message: self.0.message,
        }
    }
}

impl<'a> Lexer<'a> {
    /// Starts at the first byte of a document.
    pub(super) fn new(text: &'a [u8]) -> Self {
        Lexer { text, pos: 0 }
    }

    /// Offset of the next byte.
    pub(super) fn pos(&self) -> usize {
        self.pos
    }

    /// Bytes not yet read.
    pub(super) fn remaining(&self) -> usize {
        self.text.len() - self.pos.min(self.text.len())
    }

    /// The next byte that is not white space, without taking it.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        while let Some(&b) = self.text.get(self.pos) {
            match b {
                b' ' | b'\n' | b'\t' | b'\r' => self.pos += 1,
                _ => return Some(b),
            }
        }
        None
    }

    /// Takes the byte that [`Lexer::peek`] showed.
    #[inline]
    pub(super) fn bump(&mut self) {
        self.pos += 1;
    }

    /// Takes `want`, or says what stands there instead.
    #[inline]
    pub(super) fn expect(&mut self, want: u8, what: &str) -> Result<(), Fault> {
        if self.peek() == Some(want) {
            self.pos += 1;
            return Ok(());
        }
        Err(self.unexpected(what))
    }

    /// The error for the next token, which is not what was expected.
    #[cold]
    pub(super) fn unexpected(&mut self, expected: &str) -> Fault {
        let got = match self.peek() {
            None => return Fault::new(self.pos, format!("expected {expected}, got the end of the document")),
            Some(b'{') => "an object",
            Some(b'[') => "an array",
            Some(b'"') => "a string",
            Some(b't' | b'f') => "a boolean",
            Some(b'n') => "null",
            Some(b'-' | b'0'..=b'9') => "a number",
            Some(b @ 0x21..=0x7e) => {
                return Fault::new(self.pos, format!("expected {expected}, got '{}'", char::from(b)));
            }
            Some(_) => "something else",
        };
        Fault::new(self.pos, format!("expected {expected}, got {got}"))
    }

    /// Takes `null` if it is next.
    #[inline]
    pub(super) fn null(&mut self) -> Result<bool, Fault> {
        if self.peek() != Some(b'n') {
            return Ok(false);
        }
        self.word(b"null").map(|()| true)
    }

    /// Takes `true` or `false`.
    pub(super) fn boolean(&mut self) -> Result<bool, Fault> {
        match self.peek() {
            Some(b't') => self.word(b"true").map(|()| true),
            Some(b'f') => self.word(b"false").map(|()| false),
            _ => Err(self.unexpected("true or false")),
        }
    }

    fn word(&mut self, word: &'static [u8]) -> Result<(), Fault> {
        let end = self.pos + word.len();
        if self.text.get(self.pos..end) != Some(word) {
            return Err(Fault::new(self.pos, "expected a value, got an unknown word"));
        }
        self.pos = end;
        Ok(())
    }

    /// Takes a string. Its escapes are checked here, so that resolving them cannot fail.
    #[inline]
    pub(super) fn string(&mut self, what: &str) -> Result<Str<'a>, Fault> {
        self.expect(b'"', what)?;
        let at = self.pos - 1;
        let start = self.pos;
        let mut escaped = false;
        loop {
            match self.text.get(self.pos) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(0..=0x1f) => {
                    return Err(Fault::new(self.pos, "a control character in a string must be escaped"));
                }
                Some(_) => self.pos += 1,
                None => return Err(Fault::new(at, "the string is not closed")),
            }
        }
        let raw = self.text.get(start..self.pos).unwrap_or_default();
        self.pos += 1;
        Ok(Str { raw, escaped, at })
    }

    fn escape(&mut self) -> Result<(), Fault> {
        match self.text.get(self.pos + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.pos += 2,
            Some(b'u') => {
                let digits = self.text.get(self.pos + 2..self.pos + 6).unwrap_or_default();
                if digits.len() < 4 || !digits.iter().all(u8::is_ascii_hexdigit) {
                    return Err(Fault::new(self.pos, "expected four hexadecimal digits after \\u"));
                }
                self.pos += 6;
            }
            _ => return Err(Fault::new(self.pos, "unknown escape in a string")),
        }
        Ok(())
    }

    /// Takes a number: its text, which follows the JSON grammar.
    pub(super) fn number(&mut self, what: &str) -> Result<&'a [u8], Fault> {
        if !matches!(self.peek(), Some(b'-' | b'0'..=b'9')) {
            return Err(self.unexpected(what));
        }
        let rest = self.text.get(self.pos..).unwrap_or_default();
        let len = number_len(rest).ok_or_else(|| Fault::new(self.pos, "malformed number"))?;
        self.pos += len;
        Ok(rest.get(..len).unwrap_or_default())
    }

    /// Takes a whole value of any kind and forgets it; at most `depth` levels deep. Iterative.
    pub(super) fn skip(&mut self, depth: u32) -> Result<(), Fault> {
        // One entry an open object (true) or array (false); bounded by `depth`.
        let mut open: Vec<bool> = Vec::new();
        loop {
            let opened = match self.peek() {
                Some(b @ (b'{' | b'[')) => {
                    if open.len() >= depth as usize {
                        return Err(Fault::limit(self.pos, Limit::Depth, "nested too deeply"));
                    }
                    self.bump();
                    open.push(b == b'{');
                    true
                }
                Some(b'"') => {
                    self.string("a string")?;
                    false
                }
                Some(b't' | b'f') => {
                    self.boolean()?;
                    false
                }
                Some(b'n') => {
                    self.null()?;
                    false
                }
                _ => {
                    self.number("a value")?;
                    false
                }
            };
            let mut first = opened;
            loop {
                let Some(&object) = open.last() else { return Ok(()) };
                let close = if object { b'}' } else { b']' };
                if self.peek() == Some(close) {
                    self.bump();
                    open.pop();
                    first = false;
                    continue;
                }
                if !first {
                    self.expect(b',', if object { "',' or '}'" } else { "',' or ']'" })?;
                }
                if object {
                    self.string("a member name")?;
                    self.expect(b':', "':'")?;
                }
                break;
            }
        }
    }
}

/// The length of the JSON number at the start of `text`; `None` if there is none.
pub(super) fn number_len(text: &[u8]) -> Option<usize> {
    let digits =
        |from: usize| text.get(from..).unwrap_or_default().iter().take_while(|b| b.is_ascii_digit()).count();
    let mut at = usize::from(text.first() == Some(&b'-'));
    let whole = digits(at);
    if whole == 0 || (whole > 1 && text.get(at) == Some(&b'0')) {
        return None;
    }
    at += whole;
    if text.get(at) == Some(&b'.') {
        let fraction = digits(at + 1);
        if fraction == 0 {
            return None;
        }
        at += 1 + fraction;
    }
    if matches!(text.get(at), Some(b'e' | b'E')) {
        at += 1 + usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        let exponent = digits(at);
        if exponent == 0 {
            return None;
        }
        at += exponent;
    }
    Some(at)
}

impl Str<'_> {
    /// Appends the text with its escapes resolved.
    pub(super) fn append_to(self, out: &mut Vec<u8>) {
        if !self.escaped {
            out.extend_from_slice(self.raw);
            return;
        }
        let mut rest = self.raw;
        while let Some(at) = memchr::memchr(b'\\', rest) {
            out.extend_from_slice(rest.get(..at).unwrap_or_default());
            rest = rest.get(at + 1..).unwrap_or_default();
            let Some((&kind, tail)) = rest.split_first() else { return };
            rest = tail;
            let plain = match kind {
                b'b' => 0x08,
                b'f' => 0x0c,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'u' => {
                    let c = unicode(&mut rest);
                    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                    continue;
                }
                other => other,
            };
            out.push(plain);
        }
        out.extend_from_slice(rest);
    }
}

/// The character of a `\u` escape whose digits are next in `rest`, with the second half of a pair.
fn unicode(rest: &mut &[u8]) -> char {
    let high = four_digits(rest);
    *rest = rest.get(4..).unwrap_or_default();
    if (0xd800..0xdc00).contains(&high) && rest.starts_with(b"\\u") {
        let low = four_digits(rest.get(2..).unwrap_or_default());
        if (0xdc00..0xe000).contains(&low) {
            *rest = rest.get(6..).unwrap_or_default();
            let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
            return char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
        }
    }
    char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn four_digits(text: &[u8]) -> u32 {
    text.iter().take(4).fold(0, |value, &b| value << 4 | char::from(b).to_digit(16).unwrap_or_default())
}
