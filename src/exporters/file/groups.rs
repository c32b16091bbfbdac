//! One file a value of a resource attribute.
//!
//! A request is cut at its resources, by bytes: each part is a request of its own. The value comes from outside,
//! so it can name folders and a file below the place of the `*`, and nothing else.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::output::Output;
use crate::pdata::fields::{any_value, key_value, request, resource, resource_group};
use crate::pdata::wire::{Cursor, WireError};

/// What stands for the value where a resource has none.
const MISSING: &str = "MISSING";

/// The longest name of a folder or file made from a value, in bytes; file systems allow 255 with what the path adds.
const MAX_SEGMENT: usize = 200;

/// How many folders deep a value may lead.
const MAX_SEGMENTS: usize = 16;

/// The open files.
pub(super) struct Groups {
    /// What stands before and after the `*`.
    around: (String, String),
    attribute: String,
    max_open: usize,
    open: HashMap<String, (u64, Output)>,
    /// Counts uses, to find the file not used for longest.
    clock: u64,
}

impl Groups {
    pub(super) fn new(path: &str, attribute: &str, max_open: usize) -> Self {
        let (before, after) = path.split_once('*').unwrap_or((path, ""));
        Groups {
            around: (before.to_owned(), after.to_owned()),
            attribute: attribute.to_owned(),
            max_open,
            open: HashMap::new(),
            clock: 0,
        }
    }

    /// The folder that has to exist at the start: the fixed part of the path.
    pub(super) fn folder(&self) -> &Path {
        let (before, _) = &self.around;
        Path::new(
            before.rsplit_once('/').map_or(".", |(folder, _)| if folder.is_empty() { "/" } else { folder }),
        )
    }

    /// Cuts a request into one request a file.
    pub(super) fn split(&self, req: &[u8]) -> Result<Vec<(String, Vec<u8>)>, WireError> {
        let mut parts: Vec<(String, Vec<u8>)> = Vec::new();
        let mut index: HashMap<String, usize> = HashMap::new();
        let mut cursor = Cursor::new(req);
        while let Some(field) = cursor.next_field()? {
            if field.number != request::GROUPS {
                continue;
            }
            let value = attribute(field.value.bytes()?, self.attribute.as_bytes())?;
            let name = segment(&String::from_utf8_lossy(value.unwrap_or_default()));
            let bytes = req.get(field.start..field.end).unwrap_or_default();
            let at = *index.entry(name).or_insert_with_key(|name| {
                parts.push((name.clone(), Vec::new()));
                parts.len() - 1
            });
            if let Some((_, part)) = parts.get_mut(at) {
                part.extend_from_slice(bytes);
            }
        }
        Ok(parts)
    }

    /// The file of a value, opened if need be.
    pub(super) fn file(&mut self, name: &str) -> io::Result<&mut Output> {
        self.clock += 1;
        if !self.open.contains_key(name) {
            self.make_room()?;
            let path = self.path(name);
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            let output = Output::open(&path, false, None)?;
            self.open.insert(name.to_owned(), (self.clock, output));
        }
        let found = self.open.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
        found.0 = self.clock;
        Ok(&mut found.1)
    }

    /// Every open file.
    pub(super) fn all(&mut self) -> impl Iterator<Item = &mut Output> {
        self.open.values_mut().map(|(_, output)| output)
    }

    fn make_room(&mut self) -> io::Result<()> {
        while self.open.len() >= self.max_open {
            let oldest = self.open.iter().min_by_key(|(_, (used, _))| *used).map(|(name, _)| name.clone());
            let Some((_, mut output)) = oldest.and_then(|name| self.open.remove(&name)) else { break };
            output.sync()?;
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        let (before, after) = &self.around;
        PathBuf::from(format!("{before}{name}{after}"))
    }
}

/// The text of a resource's attribute, if it has one and it is a text.
fn attribute<'a>(group: &'a [u8], key: &[u8]) -> Result<Option<&'a [u8]>, WireError> {
    let mut cursor = Cursor::new(group);
    while let Some(field) = cursor.next_field()? {
        if field.number != resource_group::RESOURCE {
            continue;
        }
        let mut members = Cursor::new(field.value.bytes()?);
        while let Some(member) = members.next_field()? {
            if member.number != resource::ATTRIBUTES {
                continue;
            }
            let (mut found, mut text) = (false, None);
            let mut parts = Cursor::new(member.value.bytes()?);
            while let Some(part) = parts.next_field()? {
                match part.number {
                    key_value::KEY => found = part.value.bytes()? == key,
                    key_value::VALUE => text = text_of(part.value.bytes()?)?,
                    _ => {}
                }
            }
            if found {
                return Ok(text);
            }
        }
    }
    Ok(None)
}

fn text_of(value: &[u8]) -> Result<Option<&[u8]>, WireError> {
    let mut text = None;
    let mut cursor = Cursor::new(value);
    while let Some(field) = cursor.next_field()? {
        text = if field.number == any_value::STRING { Some(field.value.bytes()?) } else { None };
    }
    Ok(text)
}

/// A value as a relative path that cannot leave its place: no `.`, `..` or empty segments, no backslashes or
/// control characters, bounded in length and depth.
fn segment(value: &str) -> String {
    let clean = |part: &str| -> String {
        let mut out = String::new();
        for c in part.chars() {
            let c = if c.is_control() || c == '\\' { '_' } else { c };
            if out.len() + c.len_utf8() > MAX_SEGMENT {
                break;
            }
            out.push(c);
        }
        out
    };
    let parts: Vec<String> = value
        .split('/')
        .filter(|part| !matches!(part.trim(), "" | "." | ".."))
        .take(MAX_SEGMENTS)
        .map(clean)
        .collect();
    if parts.is_empty() { MISSING.to_owned() } else { parts.join("/") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_leave_their_place() {
        let long = "x".repeat(300);
        let cases = [
            ("team-a", "team-a"),
            ("a/b", "a/b"),
            ("", MISSING),
            (".", MISSING),
            ("..", MISSING),
            ("../../etc/passwd", "etc/passwd"),
            ("/etc/passwd", "etc/passwd"),
            ("a/../../b", "a/b"),
            ("a//./b/", "a/b"),
            (" .. /x", "x"),
            ("..\\..\\x\0\n", ".._.._x__"),
            ("..a", "..a"),
            (long.as_str(), &long[..MAX_SEGMENT]),
        ];
        for (value, want) in cases {
            let got = segment(value);
            assert_eq!(got, want, "{value:?}");
            let up = Path::new(&got).components().any(|c| !matches!(c, std::path::Component::Normal(_)));
            assert!(!up, "{got}");
        }
        assert_eq!(segment(&"d/".repeat(50)).matches('d').count(), MAX_SEGMENTS);
    }
}
