//! The text of a label set, and names as Loki makes them.

use super::Labels;

/// Longer texts are refused unread.
const LONGEST: usize = 16 << 20;

/// Reads `{a="b", c="d"}`; the pairs as they come, empty values included.
///
/// # Errors
/// What is wrong, and at which byte.
pub fn parse(text: &[u8]) -> Result<Labels, String> {
    if text.len() > LONGEST {
        return Err(format!("{} bytes of labels are too many", text.len()));
    }
    let mut reader = Reader { text, at: 0 };
    let pairs = reader.selector()?;
    reader.blank();
    match reader.peek() {
        None => Ok(pairs),
        Some(_) => Err(reader.wrong("nothing more")),
    }
}

/// A label set as Loki writes it.
pub fn write(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={}", quote(value))).collect();
    format!("{{{}}}", pairs.join(", "))
}

fn quote(value: &str) -> String {
    let mut out = String::from('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A name as Loki normalises it; `None` when nothing is left of it.
pub fn normalise(name: &str) -> Option<String> {
    let mut out = String::new();
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        out.push_str("key_");
    }
    let replaced: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let reserved = replaced.len() > 4 && name.starts_with("__") && name.ends_with("__");
    for c in replaced.chars() {
        if c != '_' || !out.ends_with('_') {
            out.push(c);
        }
    }
    if out.chars().all(|c| c == '_') {
        return None;
    }
    Some(if reserved { format!("_{out}_") } else { out })
}

pub fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Reads selectors, of which a label set is the simplest.
pub struct Reader<'a> {
    pub text: &'a [u8],
    pub at: usize,
}

impl<'a> Reader<'a> {
    fn selector(&mut self) -> Result<Labels, String> {
        let mut pairs = Vec::new();
        self.expect("{")?;
        loop {
            self.blank();
            if self.take("}") {
                return Ok(pairs);
            }
            let name = self.name()?;
            self.expect("=")?;
            pairs.push((name, self.string()?));
            self.blank();
            if !self.take(",") {
                self.expect("}")?;
                return Ok(pairs);
            }
        }
    }

    pub fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    pub fn blank(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    pub fn take(&mut self, word: &str) -> bool {
        let found = self.text[self.at..].starts_with(word.as_bytes());
        self.at += if found { word.len() } else { 0 };
        found
    }

    pub fn expect(&mut self, word: &str) -> Result<(), String> {
        self.blank();
        if self.take(word) { Ok(()) } else { Err(self.wrong(&format!("{word:?}"))) }
    }

    pub fn wrong(&self, wanted: &str) -> String {
        let rest = &self.text[self.at..];
        let found = String::from_utf8_lossy(&rest[..rest.len().min(20)]);
        format!("1:{}: parse error: unexpected {found:?}, expected {wanted}", self.at + 1)
    }

    pub fn name(&mut self) -> Result<String, String> {
        self.blank();
        let rest = &self.text[self.at..];
        let length = rest.iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
        let name = String::from_utf8_lossy(&rest[..length]).into_owned();
        if !is_name(&name) {
            return Err(self.wrong("a label name"));
        }
        self.at += length;
        Ok(name)
    }

    /// A string in double quotes with the escapes of Go.
    pub fn string(&mut self) -> Result<String, String> {
        self.expect("\"")?;
        let mut out = Vec::new();
        loop {
            match self.peek() {
                None | Some(b'\n') => return Err(self.wrong("the end of a string")),
                Some(b'"') => break,
                Some(b'\\') => self.escape(&mut out)?,
                Some(byte) => {
                    out.push(byte);
                    self.at += 1;
                }
            }
        }
        self.at += 1;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<(), String> {
        let simple = [
            (b'a', 7),
            (b'b', 8),
            (b'f', 12),
            (b'n', b'\n'),
            (b'r', b'\r'),
            (b't', b'\t'),
            (b'v', 11),
            (b'\\', b'\\'),
            (b'"', b'"'),
        ];
        let kind = self.text.get(self.at + 1).copied();
        if let Some((_, byte)) = simple.iter().find(|(letter, _)| Some(*letter) == kind) {
            out.push(*byte);
            self.at += 2;
            return Ok(());
        }
        let (skip, digits, radix) = match kind {
            Some(b'x') => (2, 2, 16),
            Some(b'u') => (2, 4, 16),
            Some(b'U') => (2, 8, 16),
            Some(b'0'..=b'7') => (1, 3, 8),
            _ => return Err(self.wrong("an escape")),
        };
        let from = self.at + skip;
        let number = self
            .text
            .get(from..from + digits)
            .filter(|d| d.iter().all(u8::is_ascii_alphanumeric))
            .and_then(|d| u32::from_str_radix(std::str::from_utf8(d).ok()?, radix).ok())
            .ok_or_else(|| self.wrong("an escape"))?;
        if digits < 4 {
            out.push(u8::try_from(number).map_err(|_| self.wrong("an escape"))?);
        } else {
            let c = char::from_u32(number).ok_or_else(|| self.wrong("an escape"))?;
            out.extend(c.to_string().bytes());
        }
        self.at = from + digits;
        Ok(())
    }
}
