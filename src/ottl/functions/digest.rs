//! Hashes of texts.

use bumpalo::Bump;
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha512};

use crate::ottl::value::{Val, hex};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ottl) enum Digest {
    Md5,
    Sha1,
    Sha256,
    Sha512,
    Fnv,
}

impl Digest {
    /// The hash in hexadecimal; FNV's as an integer.
    pub(super) fn of<'v>(self, text: &[u8], arena: &'v Bump) -> Val<'v> {
        Val::Str(match self {
            Digest::Md5 => hex(&Md5::digest(text), arena),
            Digest::Sha1 => hex(&Sha1::digest(text), arena),
            Digest::Sha256 => hex(&Sha256::digest(text), arena),
            Digest::Sha512 => hex(&Sha512::digest(text), arena),
            Digest::Fnv => return Val::Int(fnv(text) as i64),
        })
    }
}

/// FNV-1a of 64 bits.
fn fnv(text: &[u8]) -> u64 {
    text.iter().fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3))
}
