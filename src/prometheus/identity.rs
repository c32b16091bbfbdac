//! What a series is known by: hashes of the raw bytes that make it.
//!
//! The key of a point is the hash of its attributes, mixed with that of everything above it: resource, scope,
//! metric. Hashes are of 128 bits and keyed with random bytes of the process, so that nobody can prepare two series
//! that are taken for one.
//!
//! Costs: one hash of the attributes a point, and of what stands above them once each; nothing is allocated but one
//! reused buffer.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use xxhash_rust::xxh3::xxh3_128_with_secret;

use super::scan::Scan;
use crate::pdata::common::{ResourceGroup, ScopeGroup};
use crate::pdata::fields::{exponential_histogram_point, histogram_point, number_point, summary_point};
use crate::pdata::metrics::{Kind, Metric};
use crate::pdata::wire::{Cursor, WireError, put_bytes};

/// Hashes with the secret of this process.
#[derive(Debug)]
pub struct Identity {
    secret: [u8; 192],
    buffer: Vec<u8>,
}

impl Identity {
    /// A hasher with a secret of its own.
    pub fn new() -> Self {
        Identity { secret: secret(), buffer: Vec::new() }
    }

    /// The hash of any bytes.
    pub fn hash(&self, bytes: &[u8]) -> u128 {
        xxh3_128_with_secret(bytes, &self.secret)
    }

    /// The hash of a resource. Those of different partitions are different.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn resource(&mut self, group: ResourceGroup<'_>, partition: u64) -> Result<u128, WireError> {
        self.buffer.clear();
        self.buffer.extend_from_slice(&partition.to_le_bytes());
        for message in group.resources() {
            put_bytes(&mut self.buffer, 1, message?);
        }
        Ok(self.hash(&self.buffer))
    }

    /// The hash of a scope and the resource above it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn scope(&mut self, resource: u128, scope: ScopeGroup<'_>) -> Result<u128, WireError> {
        self.buffer.clear();
        self.buffer.extend_from_slice(&resource.to_le_bytes());
        for message in scope.scopes() {
            put_bytes(&mut self.buffer, 1, message?);
        }
        put_bytes(&mut self.buffer, 3, scope.schema_url()?);
        Ok(self.hash(&self.buffer))
    }

    /// The hash of what makes a metric's family: all but its points and its description.
    ///
    /// # Errors
    /// Its metadata cannot be read.
    pub fn metric(&mut self, metric: &Metric<'_>) -> Result<u128, WireError> {
        self.buffer.clear();
        let temporality = metric.temporality.clamp(-1, 3) as u8;
        self.buffer.extend_from_slice(&[metric.kind as u8, temporality, u8::from(metric.monotonic)]);
        put_bytes(&mut self.buffer, 1, metric.name);
        put_bytes(&mut self.buffer, 2, metric.unit);
        for pair in metric.metadata().messages() {
            put_bytes(&mut self.buffer, 3, pair?);
        }
        Ok(self.hash(&self.buffer))
    }

    /// One hash of two.
    pub fn mix(&mut self, a: u128, b: u128) -> u128 {
        self.buffer.clear();
        self.buffer.extend_from_slice(&a.to_le_bytes());
        self.buffer.extend_from_slice(&b.to_le_bytes());
        self.hash(&self.buffer)
    }

    /// The hash of a point's attributes.
    ///
    /// # Errors
    /// The point cannot be read.
    #[inline]
    pub fn attributes(&mut self, kind: Kind, scan: &Scan<'_>, point: &[u8]) -> Result<u128, WireError> {
        if !scan.scattered {
            return Ok(self.hash(scan.attributes));
        }
        self.buffer.clear();
        let number = attributes_field(kind);
        let mut cursor = Cursor::new(point);
        while let Some(field) = cursor.next_field()? {
            if field.number == number {
                self.buffer.extend_from_slice(point.get(field.start..field.end).unwrap_or_default());
            }
        }
        Ok(self.hash(&self.buffer))
    }
}

/// The field of a point of this kind that holds its attributes.
pub fn attributes_field(kind: Kind) -> u32 {
    match kind {
        Kind::Histogram => histogram_point::ATTRIBUTES,
        Kind::ExponentialHistogram => exponential_histogram_point::ATTRIBUTES,
        Kind::Summary => summary_point::ATTRIBUTES,
        Kind::Gauge | Kind::Sum | Kind::Empty => number_point::ATTRIBUTES,
    }
}

/// Random bytes of the process: the standard library keys its hash maps from the system's source.
fn secret() -> [u8; 192] {
    let mut secret = [0; 192];
    for (i, chunk) in secret.chunks_exact_mut(8).enumerate() {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_usize(i);
        chunk.copy_from_slice(&hasher.finish().to_le_bytes());
    }
    secret
}
