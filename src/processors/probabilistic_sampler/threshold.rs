//! The numbers of OpenTelemetry's consistent probability sampling: an item is kept when its randomness is not below a
//! threshold, both of 56 bits.

/// How many values randomness has; as a threshold it keeps nothing.
pub(super) const NEVER: u64 = 1 << 56;

/// Hex digits of 56 bits.
pub(super) const DIGITS: u32 = 14;

/// How many buckets the mode `hash_seed` has.
pub(super) const BUCKETS: u32 = 1 << 14;

/// What stands in front of the 14 bits that decide in the mode `hash_seed`.
const BUCKET_SHIFT: u32 = 42;

/// The threshold that keeps this part of everything, rounded to so many hex digits that say something: leading zeros and
/// `f`s come on top. `None` where it is less than one in 2^56.
pub(super) fn of_probability(probability: f64, precision: u32) -> Option<u64> {
    if probability >= 1.0 {
        return Some(0);
    }
    // NaN, too.
    if probability.partial_cmp(&(1.0 / NEVER as f64)).is_none_or(std::cmp::Ordering::is_lt) {
        return None;
    }
    let leading = exponent(probability).max(exponent(1.0 - probability)) / 4;
    let digits = (precision + leading).min(DIGITS);
    let exact = NEVER - (probability * NEVER as f64).round() as u64;
    let shift = 4 * (DIGITS - digits);
    let half = (1 << shift) >> 1;
    Some(((exact + half) >> shift) << shift).filter(|threshold| *threshold < NEVER)
}

/// Which part of everything a threshold keeps.
pub(super) fn probability(threshold: u64) -> f64 {
    NEVER.saturating_sub(threshold) as f64 / NEVER as f64
}

/// How many zero bits follow the point in a number between 0 and 1.
fn exponent(number: f64) -> u32 {
    // Of a normal number the exponent of 0.5 stands as 1022.
    1022u32.saturating_sub((number.to_bits() >> 52) as u32)
}

/// The threshold of the mode `hash_seed`: a number of buckets, rounded down, as a 56-bit number.
pub(super) fn of_buckets(percentage: f32) -> Option<u64> {
    // In single precision and rounded down, so that every agent and collector decides alike.
    let kept = (percentage.min(100.0) * (BUCKETS as f32 / 100.0)) as u32;
    (kept > 0).then(|| u64::from(BUCKETS - kept) << BUCKET_SHIFT)
}

/// Randomness of the mode `hash_seed`: the 14 bits of the bucket, turned round so that a high number is kept, and below
/// them what else the hash has.
pub(super) fn hashed(seed: u32, data: &[u8]) -> u64 {
    let hash = fnv1a(&[&seed.to_le_bytes(), data]);
    let bucket = u64::from(hash & (BUCKETS - 1));
    let rest = u64::from(hash >> 18);
    let mixed = rest ^ (rest << 10);
    (u64::from(BUCKETS - 1) - bucket) << BUCKET_SHIFT | mixed << 14 | bucket
}

/// FNV-1a of 32 bits.
fn fnv1a(parts: &[&[u8]]) -> u32 {
    let bytes = parts.iter().flat_map(|part| part.iter());
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// Randomness of a trace: the last 56 bits of its id. `None` for what is no id.
pub(super) fn of_trace(id: &[u8]) -> Option<u64> {
    let id: &[u8; 16] = id.try_into().ok()?;
    let id = u128::from_be_bytes(*id);
    (id != 0).then_some(id as u64 & (NEVER - 1))
}

/// Reads a threshold: up to 14 hex digits, those that are missing are zeros.
pub(super) fn parse_threshold(text: &[u8]) -> Option<u64> {
    let digits = u32::try_from(text.len()).ok().filter(|n| (1..=DIGITS).contains(n))?;
    Some(parse_hex(text)? << (4 * (DIGITS - digits)))
}

/// Reads randomness: 14 hex digits.
pub(super) fn parse_randomness(text: &[u8]) -> Option<u64> {
    if text.len() == DIGITS as usize { parse_hex(text) } else { None }
}

/// Appends a threshold as it is written: without trailing zeros.
pub(super) fn put_threshold(out: &mut Vec<u8>, threshold: u64) {
    let zeros = (threshold.trailing_zeros() / 4).min(DIGITS - 1);
    put_hex(out, threshold, DIGITS - zeros);
}

/// Appends randomness as it is written.
pub(super) fn put_randomness(out: &mut Vec<u8>, randomness: u64) {
    put_hex(out, randomness, DIGITS);
}

/// The first of 14 hex digits.
fn put_hex(out: &mut Vec<u8>, number: u64, digits: u32) {
    out.extend((0..digits).map(|i| {
        let digit = (number >> (4 * (DIGITS - 1 - i)) & 15) as u8;
        if digit < 10 { b'0' + digit } else { b'a' + digit - 10 }
    }));
}

/// At most 16 digits.
fn parse_hex(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0, |number, digit| Some(number << 4 | u64::from(char::from(*digit).to_digit(16)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(threshold: u64) -> String {
        let mut out = Vec::new();
        put_threshold(&mut out, threshold);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn probabilities_become_the_thresholds_of_the_specification() {
        // One in N, and the thresholds of three, four and five digits.
        let table: [(f64, [&str; 3]); 13] = [
            (1.0, ["0", "0", "0"]),
            (2.0, ["8", "8", "8"]),
            (3.0, ["aab", "aaab", "aaaab"]),
            (4.0, ["c", "c", "c"]),
            (5.0, ["ccd", "cccd", "ccccd"]),
            (8.0, ["e", "e", "e"]),
            (10.0, ["e66", "e666", "e6666"]),
            (16.0, ["f", "f", "f"]),
            (100.0, ["fd71", "fd70a", "fd70a4"]),
            (1000.0, ["ffbe7", "ffbe77", "ffbe76d"]),
            (10_000.0, ["fff972", "fff9724", "fff97247"]),
            (100_000.0, ["ffff584", "ffff583a", "ffff583a5"]),
            (1_000_000.0, ["ffffef4", "ffffef39", "ffffef391"]),
        ];
        for (n, want) in table {
            for (precision, want) in (3..).zip(want) {
                let threshold = of_probability(1.0 / n, precision).unwrap();
                assert_eq!(written(threshold), want, "1 in {n} with {precision} digits");
                assert_eq!(parse_threshold(want.as_bytes()), Some(threshold));
                let relative = probability(threshold) * n - 1.0;
                assert!(relative.abs() < 0.5 / 16f64.powi(precision as i32 - 2), "1 in {n}: {relative}");
            }
        }
    }

    #[test]
    fn the_ends_of_the_scale() {
        assert_eq!(of_probability(2f64.powi(-56), 4), Some(NEVER - 1));
        for none in [0.0, -1.0, f64::NAN, 2f64.powi(-57), f64::MIN_POSITIVE] {
            assert_eq!(of_probability(none, 4), None, "{none}");
        }
        assert_eq!(of_probability(7.0, 4), Some(0));
        assert_eq!(of_probability(1.0 - 1e-9, 1).map(written).as_deref(), Some("00000004"));
        assert_eq!(probability(0), 1.0);
        assert_eq!(probability(NEVER), 0.0);
        for precision in 1..=14 {
            for step in 1..2000 {
                let p = f64::from(step) / 2000.0;
                let threshold = of_probability(p, precision).unwrap();
                assert!(threshold < NEVER && written(threshold).len() <= 14);
                assert!(
                    (probability(threshold) - p).abs() <= 0.5 / 16f64.powi(precision as i32) + 1e-15,
                    "{p}"
                );
            }
        }
    }

    #[test]
    fn text_is_read_as_it_is_written() {
        for (text, want) in [
            ("0", Some(0)),
            ("00000000000000", Some(0)),
            ("8", Some(1 << 55)),
            ("C", Some(3 << 54)),
            ("00000000000001", Some(1)),
            ("ffffffffffffff", Some(NEVER - 1)),
            ("", None),
            ("fffffffffffffff", None),
            ("+8", None),
            ("8 ", None),
            ("0x8", None),
        ] {
            assert_eq!(parse_threshold(text.as_bytes()), want, "{text}");
        }
        assert_eq!(parse_randomness(b"9b8233f7e3a151"), Some(0x9b_8233_f7e3_a151));
        assert_eq!(parse_randomness(b"9b8233f7e3a15"), None);
        assert_eq!(parse_randomness(b"9b8233f7e3a15g"), None);
        let mut out = Vec::new();
        put_randomness(&mut out, 0x12);
        assert_eq!(out, b"00000000000012");
    }

    #[test]
    fn the_hash_is_the_collectors() {
        // Vectors of FNV-1a.
        for (text, want) in [("", 0x811c_9dc5), ("a", 0xe40c_292c), ("foobar", 0xbf9c_f968)] {
            assert_eq!(fnv1a(&[text.as_bytes()]), want, "{text}");
        }
        // The seed's lowest byte is hashed first, and what decides is the bucket.
        for (seed, data) in [(0u32, &b"12345678"[..]), (0x0403_0201, &[0xff; 16]), (22, b"")] {
            let whole: Vec<u8> = [seed as u8, (seed >> 8) as u8, (seed >> 16) as u8, (seed >> 24) as u8]
                .into_iter()
                .chain(data.iter().copied())
                .collect();
            let hash = fnv1a(&[&whole]);
            let randomness = hashed(seed, data);
            assert!(randomness < NEVER);
            for percentage in [0.01f32, 0.1, 1.0, 3.3, 10.0, 50.0, 66.6, 99.99, 100.0] {
                let kept = (percentage * 163.84f32) as u32;
                let threshold = of_buckets(percentage).unwrap();
                assert_eq!(randomness >= threshold, hash & 0x3fff < kept, "{seed} {percentage}");
            }
        }
    }

    #[test]
    fn buckets_are_rounded_down() {
        assert_eq!(of_buckets(100.0), Some(0));
        assert_eq!(of_buckets(1e9), Some(0));
        assert_eq!(of_buckets(50.0), Some(1 << 55));
        assert_eq!(of_buckets(0.006_103_516).map(written).as_deref(), Some("fffc"));
        assert_eq!(of_buckets(0.006), None);
        assert_eq!(of_buckets(0.0), None);
    }

    #[test]
    fn a_trace_has_the_randomness_of_the_end_of_its_id() {
        let id = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef_u128.to_be_bytes();
        assert_eq!(of_trace(&id), Some(0x23_4567_89ab_cdef));
        assert_eq!(of_trace(&(1u128 << 56).to_be_bytes()), Some(0));
        for none in [&[][..], &[0; 16], &[1; 15], &[1; 17]] {
            assert_eq!(of_trace(none), None);
        }
    }
}
