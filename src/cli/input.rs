//! The input of commands that read telemetry: a file or stdin, JSON documents one after the other.

use std::io::Read as _;
use std::path::Path;

use serde::de::IgnoredAny;

use crate::pdata::json::JsonError;

/// The documents of an input.
pub(super) struct Documents<'a> {
    input: &'a [u8],
    at: usize,
    found: usize,
}

/// One document and what stands before it.
pub(super) struct Document<'a> {
    /// The document; what cannot be parsed reaches to the end of the input.
    pub(super) text: &'a [u8],
    before: &'a [u8],
}

/// What the input is called, and what is in it: of a file, or of stdin if it is `-` or there is none.
pub(super) fn read(path: Option<&Path>) -> (String, std::io::Result<Vec<u8>>) {
    match path.filter(|path| *path != Path::new("-")) {
        Some(path) => (path.display().to_string(), std::fs::read(path)),
        None => {
            let mut input = Vec::new();
            let read = std::io::stdin().lock().read_to_end(&mut input).map(|_| input);
            ("stdin".to_owned(), read)
        }
    }
}

impl<'a> Documents<'a> {
    pub(super) fn new(input: &'a [u8]) -> Self {
        Documents { input, at: 0, found: 0 }
    }

    /// Whether none has been found.
    pub(super) fn is_empty(&self) -> bool {
        self.found == 0
    }

    /// The next one.
    pub(super) fn next(&mut self) -> Option<Document<'a>> {
        let rest = self.input.get(self.at..)?;
        self.at += rest.iter().position(|b| !b.is_ascii_whitespace())?;
        let (before, rest) = self.input.split_at_checked(self.at)?;
        let mut stream = serde_json::Deserializer::from_slice(rest).into_iter::<IgnoredAny>();
        // What cannot be parsed is left to the decoder, which says what is wrong in its own words.
        let len = match stream.next() {
            Some(Ok(_)) => stream.byte_offset(),
            _ => rest.len(),
        };
        self.at += len;
        self.found += 1;
        Some(Document { text: rest.get(..len)?, before })
    }
}

impl Document<'_> {
    /// The line it begins in, from 1.
    pub(super) fn line(&self) -> usize {
        1 + newlines(self.before)
    }

    /// An error with its place in the whole input.
    pub(super) fn placed(&self, mut error: JsonError) -> JsonError {
        if error.line == 1 {
            let line_start = self.before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            error.column += self.before.len() - line_start;
        }
        error.line += newlines(self.before);
        error.offset += self.before.len();
        error
    }
}

fn newlines(text: &[u8]) -> usize {
    text.iter().filter(|b| **b == b'\n').count()
}
