//! A request as it stands in the file.

use std::io;

use zstd::bulk::Compressor;

use super::config::{Compression, FileConfig, Format};
use crate::exporters::own_thread::WriteError;
use crate::pdata::{Signal, json};

/// Turns requests into records, reusing its buffers.
pub(super) struct Recorder {
    format: Format,
    compressor: Option<Compressor<'static>>,
    record: Vec<u8>,
    packed: Vec<u8>,
}

/// Room for the length before a record.
const PREFIX: usize = 4;

/// Buffers larger than this are given back after the record.
const KEEP: usize = 1 << 20;

impl Recorder {
    pub(super) fn new(config: &FileConfig) -> io::Result<Self> {
        let compressor = match config.compression {
            Compression::None => None,
            Compression::Zstd => Some(Compressor::new(config.compression_params.level)?),
        };
        Ok(Recorder { format: config.format, compressor, record: Vec::new(), packed: Vec::new() })
    }

    /// The record of one request.
    pub(super) fn record(&mut self, signal: Signal, request: &[u8]) -> Result<&[u8], WriteError> {
        self.record.clear();
        self.packed.clear();
        self.record.shrink_to(KEEP);
        self.packed.shrink_to(KEEP);
        let lines = self.format == Format::Json && self.compressor.is_none();
        if !lines {
            self.record.extend_from_slice(&[0; PREFIX]);
        }
        match self.format {
            Format::Proto => self.record.extend_from_slice(request),
            Format::Json => json::encode(signal, request, &mut self.record)
                .map_err(|why| WriteError::Malformed(format!("malformed telemetry: {why}")))?,
        }
        if lines {
            self.record.push(b'\n');
            return Ok(&self.record);
        }
        let Some(compressor) = &mut self.compressor else { return prefixed(&mut self.record) };
        let plain = self.record.get(PREFIX..).unwrap_or_default();
        let packed = compressor
            .compress(plain)
            .map_err(|why| WriteError::Failed(format!("zstd cannot compress a record: {why}")))?;
        self.packed.extend_from_slice(&[0; PREFIX]);
        self.packed.extend_from_slice(&packed);
        prefixed(&mut self.packed)
    }
}

/// Fills in the length that room was left for.
fn prefixed(record: &mut [u8]) -> Result<&[u8], WriteError> {
    let len = u32::try_from(record.len().saturating_sub(PREFIX))
        .map_err(|_| WriteError::Malformed("a record is larger than 4 GiB".to_owned()))?;
    if let Some(room) = record.first_chunk_mut::<PREFIX>() {
        *room = len.to_be_bytes();
    }
    Ok(record)
}
