//! Matching and expanding, without the engine where an expression is plain text or matches anything.
//!
//! Means what [`crate::relabel`] means, on bytes: in text that is no UTF-8 each wrong byte counts as one character,
//! and groups give back the bytes as they were. Allocates only for such text, in buffers that are kept.

use regex::bytes::{CaptureLocations, Regex};

use crate::relabel::anchored;

/// A compiled expression.
#[derive(Debug)]
pub(super) enum Pattern {
    /// `.*`, or `(.*)` if `group` is set.
    Any { group: bool },
    /// `.+`, or `(.+)` if `group` is set.
    Some { group: bool },
    /// Text, in which dots may stand for any character.
    Text(Vec<Piece>),
    /// Whatever needs the engine, and where its groups are kept in the buffers.
    Engine(Box<Regex>, usize),
}

/// One step of a plain text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    Byte(u8),
    AnyChar,
}

/// What matching needs, kept from text to text.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// One for each [`Pattern::Engine`].
    groups: Vec<CaptureLocations>,
    /// Text with every wrong byte replaced, and for each of its offsets that in the text as it was.
    repaired: Vec<u8>,
    origin: Vec<usize>,
}

/// A text that matched, with its groups.
pub(super) struct Groups<'a> {
    text: &'a [u8],
    found: Found<'a>,
}

enum Found<'a> {
    /// The whole text, once more as the first group if that is set.
    Whole { group: bool },
    /// As the engine found them, in the text or in the repaired one.
    Places(&'a CaptureLocations, Option<&'a [usize]>),
}

/// A text with references to groups.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Group(usize),
}

impl Pattern {
    /// Compiles an expression; `engines` counts those that need the engine.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn new(text: &str, engines: &mut usize) -> Result<Pattern, String> {
        // In any case, so that what is none is refused.
        let regex = anchored(text)?;
        Ok(match text {
            ".*" => Pattern::Any { group: false },
            "(.*)" => Pattern::Any { group: true },
            ".+" => Pattern::Some { group: false },
            "(.+)" => Pattern::Some { group: true },
            _ => match pieces(text) {
                Some(pieces) => Pattern::Text(pieces),
                None => {
                    let regex = Regex::new(regex.as_str()).map_err(|why| why.to_string())?;
                    *engines += 1;
                    Pattern::Engine(Box::new(regex), *engines - 1)
                }
            },
        })
    }

    /// Takes the prefix off that all names it is matched against have; `false` if that cannot be done.
    pub(super) fn strip(&mut self, prefix: &str) -> bool {
        let Pattern::Text(pieces) = self else { return prefix.is_empty() };
        let fits = pieces.len() >= prefix.len()
            && pieces.iter().zip(prefix.bytes()).all(|(piece, byte)| match piece {
                Piece::Byte(b) => *b == byte,
                Piece::AnyChar => true,
            });
        if fits {
            pieces.drain(..prefix.len());
        }
        fits
    }

    /// Whether the whole text matches.
    pub(super) fn is_match(&self, text: &[u8], buffers: &mut Buffers) -> bool {
        match self {
            Pattern::Any { .. } => true,
            Pattern::Some { .. } => !text.is_empty(),
            Pattern::Text(pieces) => matches(pieces, text),
            Pattern::Engine(regex, _) => {
                regex.is_match(text) || (buffers.repair(text) && regex.is_match(&buffers.repaired))
            }
        }
    }

    /// The groups, if the whole text matches.
    pub(super) fn groups<'a>(&self, text: &'a [u8], buffers: &'a mut Buffers) -> Option<Groups<'a>> {
        let found = match self {
            Pattern::Any { group } => Found::Whole { group: *group },
            Pattern::Some { group } if !text.is_empty() => Found::Whole { group: *group },
            Pattern::Some { .. } => return None,
            Pattern::Text(pieces) if matches(pieces, text) => Found::Whole { group: false },
            Pattern::Text(_) => return None,
            Pattern::Engine(regex, at) => {
                let mut origin = None;
                let groups = buffers.groups.get_mut(*at)?;
                if regex.captures_read(groups, text).is_none() {
                    if !buffers.repair(text) {
                        return None;
                    }
                    let groups = buffers.groups.get_mut(*at)?;
                    regex.captures_read(groups, &buffers.repaired)?;
                    origin = Some(buffers.origin.as_slice());
                }
                Found::Places(buffers.groups.get(*at)?, origin)
            }
        };
        Some(Groups { text, found })
    }

    /// The number of a group.
    fn group_named(&self, name: &str) -> Option<usize> {
        let Pattern::Engine(regex, _) = self else { return None };
        regex.capture_names().position(|known| known == Some(name))
    }

    fn locations(&self) -> Option<CaptureLocations> {
        let Pattern::Engine(regex, _) = self else { return None };
        Some(regex.capture_locations())
    }
}

impl Buffers {
    /// Buffers for the patterns of some rules, in the order in which they were compiled.
    pub(super) fn new<'p>(patterns: impl Iterator<Item = &'p Pattern>) -> Self {
        Buffers { groups: patterns.filter_map(Pattern::locations).collect(), ..Buffers::default() }
    }

    /// Repairs text that is no UTF-8; `false` if it is.
    #[cold]
    fn repair(&mut self, text: &[u8]) -> bool {
        if std::str::from_utf8(text).is_ok() {
            return false;
        }
        self.repaired.clear();
        self.origin.clear();
        let mut at = 0;
        for chunk in text.utf8_chunks() {
            let valid = chunk.valid().as_bytes();
            self.repaired.extend_from_slice(valid);
            self.origin.extend(at..at + valid.len());
            at += valid.len();
            for _ in chunk.invalid() {
                self.repaired.extend_from_slice("\u{fffd}".as_bytes());
                self.origin.extend([at; 3]);
                at += 1;
            }
        }
        self.origin.push(at);
        true
    }
}

impl<'a> Groups<'a> {
    fn get(&self, number: usize) -> Option<&'a [u8]> {
        match &self.found {
            Found::Whole { group } => (number == 0 || (number == 1 && *group)).then_some(self.text),
            Found::Places(places, origin) => {
                let (from, to) = places.get(number)?;
                let place = |at: usize| origin.map_or(Some(at), |origin| origin.get(at).copied());
                self.text.get(place(from)?..place(to)?)
            }
        }
    }
}

impl Template {
    /// Reads a template for the groups of a pattern: `$1`, `$name`, `${1}`, `${name}`, `$$`.
    pub(super) fn new(text: &str, pattern: &Pattern) -> Template {
        let (mut parts, mut plain, mut rest) = (Vec::new(), Vec::new(), text);
        while let Some((before, after)) = rest.split_once('$') {
            plain.extend_from_slice(before.as_bytes());
            rest = after;
            let Some((name, after)) = reference(rest) else {
                plain.push(b'$');
                rest = rest.strip_prefix('$').unwrap_or(rest);
                continue;
            };
            rest = after;
            let number = name.parse::<u32>().ok().map(|n| n as usize);
            if let Some(number) = number.or_else(|| pattern.group_named(name)) {
                if !plain.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut plain)));
                }
                parts.push(Part::Group(number));
            }
        }
        plain.extend_from_slice(rest.as_bytes());
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Template(parts)
    }

    /// Appends the text for some groups.
    pub(super) fn expand(&self, groups: &Groups<'_>, out: &mut Vec<u8>) {
        for part in &self.0 {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Group(number) => out.extend_from_slice(groups.get(*number).unwrap_or_default()),
            }
        }
    }

    /// How long the text is without what groups add.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|part| if let Part::Text(text) = part { text.len() } else { 0 }).sum()
    }
}

/// The text before the first reference to a group.
pub(super) fn head(template: &str) -> &str {
    let mut from = 0;
    while let Some(at) = template.get(from..).and_then(|rest| rest.find('$')) {
        let after = template.get(from + at + 1..).unwrap_or_default();
        if reference(after).is_some() {
            return template.get(..from + at).unwrap_or_default();
        }
        from += at + 1 + usize::from(after.starts_with('$'));
    }
    template
}

/// The group that text behind a `$` names, and what follows.
fn reference(text: &str) -> Option<(&str, &str)> {
    if let Some(rest) = text.strip_prefix('{') {
        return rest.split_once('}');
    }
    let end = text.bytes().position(|b| !b.is_ascii_alphanumeric() && b != b'_').unwrap_or(text.len());
    if end == 0 { None } else { text.split_at_checked(end) }
}

/// An expression that is plain text but for dots.
fn pieces(text: &str) -> Option<Vec<Piece>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'.' => Piece::AnyChar,
            b'\\' => Piece::Byte(bytes.next().filter(u8::is_ascii_punctuation)?),
            b'+' | b'*' | b'?' | b'(' | b')' | b'|' | b'[' | b']' | b'{' | b'}' | b'^' | b'$' => return None,
            byte => Piece::Byte(byte),
        });
    }
    Some(out)
}

fn matches(pieces: &[Piece], text: &[u8]) -> bool {
    let mut rest = text;
    for piece in pieces {
        let len = match (piece, rest.first()) {
            (Piece::Byte(byte), Some(first)) if byte == first => 1,
            (Piece::AnyChar, Some(_)) => char_len(rest),
            _ => return false,
        };
        rest = rest.get(len..).unwrap_or_default();
    }
    rest.is_empty()
}

/// How long the first character is; a wrong byte is one.
fn char_len(text: &[u8]) -> usize {
    if text.first().is_some_and(u8::is_ascii) {
        return 1;
    }
    let whole = |len: &usize| text.get(..*len).is_some_and(|start| std::str::from_utf8(start).is_ok());
    (2..=4).find(whole).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn expanded(pattern: &str, template: &str, text: &[u8]) -> Option<Vec<u8>> {
        let compiled = Pattern::new(pattern, &mut 0).unwrap();
        let mut buffers = Buffers::new(std::iter::once(&compiled));
        let groups = compiled.groups(text, &mut buffers);
        let expanded = groups.map(|groups| {
            let mut out = Vec::new();
            Template::new(template, &compiled).expand(&groups, &mut out);
            out
        });
        assert_eq!(compiled.is_match(text, &mut buffers), expanded.is_some());
        expanded
    }

    /// The same by the library alone.
    fn slow(pattern: &str, template: &str, text: &str) -> Option<Vec<u8>> {
        let mut out = String::new();
        anchored(pattern).unwrap().captures(text)?.expand(template, &mut out);
        Some(out.into_bytes())
    }

    const PATTERNS: [&str; 14] = [
        "",
        ".*",
        "(.*)",
        ".+",
        "(.+)",
        "a.b",
        "a\\.b",
        "é",
        ".",
        "(a|é)(.)?",
        "(?P<x>a+)(.*)",
        "[^a]+",
        "(.*)-b",
        "a|b",
    ];
    const TEMPLATES: [&str; 14] =
        ["", "$1", "${1}", "x$0y", "$x", "${x}-$2", "$1x", "$$", "$", "a$", "${", "${1", "$$1", "$9${nope}z"];

    #[test]
    fn without_the_engine_it_is_the_same() {
        for pattern in PATTERNS {
            for template in TEMPLATES {
                for text in ["", "a", "b", "a.b", "aéb", "a-b", "é", "aa", "\n"] {
                    let got = expanded(pattern, template, text.as_bytes());
                    assert_eq!(got, slow(pattern, template, text), "{pattern} {template} {text:?}");
                }
            }
        }
    }

    #[test]
    fn wrong_bytes_are_characters_and_stay() {
        let text = b"\xffa\xe9\x80-b\xf0\x9f";
        assert_eq!(expanded("(.*)-b..", "<$1>", text).as_deref(), Some(&b"<\xffa\xe9\x80>"[..]));
        assert_eq!(expanded("(.*)", "$1", text).as_deref(), Some(&text[..]));
        assert_eq!(expanded(".a..-b..", "y", text).as_deref(), Some(&b"y"[..]));
        assert_eq!(expanded(".a.-b..", "y", text), None);
        assert_eq!(expanded("[^a]a[^a]{2}-(b.)(.)", "$2$1", text).as_deref(), Some(&b"\x9fb\xf0"[..]));
        assert_eq!(expanded("\u{fffd}", "y", b"\xff").as_deref(), None, "text is matched byte by byte");
    }

    #[test]
    fn heads_end_at_the_first_reference() {
        for (template, want) in [
            ("a", "a"),
            ("resource.$1", "resource."),
            ("a$$b$1", "a$$b"),
            ("$x", ""),
            ("a$", "a$"),
            ("a${1", "a${1"),
        ] {
            assert_eq!(head(template), want);
        }
    }

    proptest! {
        #[test]
        fn any_template_is_read_as_the_library_reads_it(template in "[a$x{}1_ é]{0,8}", text in "[aé.-]{0,4}") {
            for pattern in PATTERNS {
                prop_assert_eq!(expanded(pattern, &template, text.as_bytes()), slow(pattern, &template, &text));
            }
        }

        #[test]
        fn any_bytes_match_as_their_repaired_text(bytes in proptest::collection::vec(0x61..=0xff_u8, 0..6)) {
            for pattern in PATTERNS.into_iter().filter(|p| *p != "é") {
                let mut repaired = Buffers::default();
                let text = if repaired.repair(&bytes) { repaired.repaired } else { bytes.clone() };
                let text = String::from_utf8(text).unwrap();
                let got = expanded(pattern, "$0", &bytes);
                prop_assert_eq!(got.is_some(), slow(pattern, "$0", &text).is_some(), "{}", pattern);
                prop_assert!(got.is_none_or(|got| got == bytes));
            }
        }
    }
}
