//! The `ot` entry of a W3C `tracestate`: reading threshold and randomness, and writing them without touching what
//! others have put there.

use super::threshold::{parse_randomness, parse_threshold, put_randomness, put_threshold};

/// The most an `ot` entry's value may have, in bytes.
const MAX: usize = 256;

/// What a span or log record says about sampling.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// What has been sampled so far.
    pub threshold: Option<u64>,
    /// The randomness to decide by, where it is not the trace id's.
    pub randomness: Option<u64>,
}

/// The entry cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Reads the `ot` entry. Other entries are not looked at.
pub(super) fn read(state: &[u8]) -> Result<Known, Malformed> {
    let mut known = None;
    for member in members(state) {
        if let Some(value) = member.strip_prefix(b"ot=")
            && known.replace(read_value(value)?).is_some()
        {
            return Err(Malformed);
        }
    }
    Ok(known.unwrap_or_default())
}

fn read_value(value: &[u8]) -> Result<Known, Malformed> {
    let mut known = Known::default();
    if value.len() > MAX {
        return Err(Malformed);
    }
    for (key, value) in pairs(value) {
        let value = value.ok_or(Malformed)?;
        let slot = match key {
            b"th" => (&mut known.threshold, parse_threshold(value)),
            b"rv" => (&mut known.randomness, parse_randomness(value)),
            _ => continue,
        };
        if slot.0.replace(slot.1.ok_or(Malformed)?).is_some() {
            return Err(Malformed);
        }
    }
    Ok(known)
}

/// Appends the tracestate with another threshold and randomness. What else is there stays, behind the `ot` entry; of
/// that entry's own, what no longer fits is left out.
pub(super) fn write(state: &[u8], known: Known, out: &mut Vec<u8>) {
    let start = out.len();
    let room = |out: &Vec<u8>, more: usize| out.len() - start + more <= MAX + b"ot=".len();
    let separate = |out: &mut Vec<u8>| out.extend_from_slice(if out.len() == start { b"ot=" } else { b";" });
    if let Some(threshold) = known.threshold {
        separate(out);
        out.extend_from_slice(b"th:");
        put_threshold(out, threshold);
    }
    if let Some(randomness) = known.randomness {
        separate(out);
        out.extend_from_slice(b"rv:");
        put_randomness(out, randomness);
    }
    let own = members(state).find_map(|member| member.strip_prefix(b"ot=")).unwrap_or_default();
    for (key, value) in pairs(own) {
        let value = value.unwrap_or_default();
        if key != b"th" && key != b"rv" && room(out, key.len() + value.len() + 2) {
            separate(out);
            out.extend_from_slice(key);
            out.push(b':');
            out.extend_from_slice(value);
        }
    }
    for member in members(state).filter(|member| !member.starts_with(b"ot=")) {
        if out.len() > start {
            out.push(b',');
        }
        out.extend_from_slice(member);
    }
}

/// The entries of a tracestate, without white space around them.
fn members(state: &[u8]) -> impl Iterator<Item = &[u8]> {
    state.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// Key and value of each part of an `ot` entry.
fn pairs(value: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    let parts = value.split(|b| *b == b';').filter(|part| !part.is_empty());
    parts.map(|part| match part.iter().position(|b| *b == b':') {
        Some(at) => (part.get(..at).unwrap_or_default(), part.get(at + 1..)),
        None => (part, None),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const R: u64 = 0x9b_8233_f7e3_a151;

    fn known(threshold: Option<u64>, randomness: Option<u64>) -> Known {
        Known { threshold, randomness }
    }

    #[test]
    fn reading() {
        let half = Some(1 << 55);
        let long = format!("ot=th:8;x:{}", "y".repeat(250));
        for (state, want) in [
            ("", Ok(known(None, None))),
            ("vendor=1", Ok(known(None, None))),
            ("ot=th:8", Ok(known(half, None))),
            ("ot=th:0", Ok(known(Some(0), None))),
            ("ot=rv:9b8233f7e3a151;th:8", Ok(known(half, Some(R)))),
            ("a=1 , ot=th:8;p:1;rv:9B8233F7E3A151\t,b@c=ot=th:9", Ok(known(half, Some(R)))),
            ("ot=p:8;r:62", Ok(known(None, None))),
            ("ot=", Ok(known(None, None))),
            ("OT=th:8,xot=th:8", Ok(known(None, None))),
            ("ot=th:", Err(Malformed)),
            ("ot=th:xyz", Err(Malformed)),
            ("ot=th:123456789012345", Err(Malformed)),
            ("ot=rv:8", Err(Malformed)),
            ("ot=th", Err(Malformed)),
            ("ot=th:8;th:8", Err(Malformed)),
            ("ot=th:8,ot=th:8", Err(Malformed)),
            (&long, Err(Malformed)),
        ] {
            assert_eq!(read(state.as_bytes()), want, "{state}");
        }
    }

    #[test]
    fn writing() {
        let (th, rv) = (Some(0xc << 52), Some(R));
        for (state, to, want) in [
            ("", known(th, None), "ot=th:c"),
            ("", known(Some(0), rv), "ot=th:0;rv:9b8233f7e3a151"),
            ("", known(None, None), ""),
            ("ot=th:8;rv:9b8233f7e3a151", known(th, rv), "ot=th:c;rv:9b8233f7e3a151"),
            ("ot=rv:9b8233f7e3a151;th:8;p:1", known(th, rv), "ot=th:c;rv:9b8233f7e3a151;p:1"),
            ("a=1 ,  b@c=x y,ot=p:8;th:0;r:62", known(th, None), "ot=th:c;p:8;r:62,a=1,b@c=x y"),
            ("ot=th:8,a=1", known(None, None), "a=1"),
            ("ot=th:8;p:1", known(None, None), "ot=p:1"),
        ] {
            let mut out = Vec::new();
            write(state.as_bytes(), to, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), want, "{state}");
        }
    }

    #[test]
    fn an_entry_stays_as_short_as_it_must() {
        let state = format!("ot=a:{};b:1;c:{},v=1", "x".repeat(200), "y".repeat(40));
        let mut out = Vec::new();
        write(state.as_bytes(), known(Some(1), Some(R)), &mut out);
        let text = String::from_utf8(out).unwrap();
        let value = text.strip_prefix("ot=").unwrap().strip_suffix(",v=1").unwrap();
        assert!(value.len() <= MAX && value.contains("a:x") && value.ends_with(";b:1"), "{value}");
        assert_eq!(read(text.as_bytes()), Ok(known(Some(1), Some(R))));
    }
}
