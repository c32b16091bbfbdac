//! Rewrites a request into another encoding down to the attributes: fields in any order, keys behind values,
//! values that stand twice, unknown fields everywhere.

use crate::pdata::Signal;
use crate::pdata::wire::{Cursor, Value, put_bytes, put_tag, put_varint};

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Request,
    Group,
    Scope,
    Metric,
    Data(u32),
    /// A message with attributes in this field.
    Holder(u32),
    Pair,
}

/// The same request in another encoding, chosen by `seed`. Orders change: compare with what prost makes of it.
pub(super) fn rewrite(signal: Signal, request: &[u8], seed: u64) -> Vec<u8> {
    message(signal, Kind::Request, request, &mut fastrand::Rng::with_seed(seed))
}

fn child(signal: Signal, kind: Kind, number: u32) -> Option<Kind> {
    Some(match (kind, number) {
        (Kind::Request, 1) => Kind::Group,
        (Kind::Group, 1) => Kind::Holder(1),
        (Kind::Group, 2) => Kind::Scope,
        (Kind::Scope, 2) => match signal {
            Signal::Traces => Kind::Holder(9),
            Signal::Logs => Kind::Holder(6),
            Signal::Metrics => Kind::Metric,
        },
        (Kind::Metric, 5 | 7 | 11) => Kind::Data(7),
        (Kind::Metric, 9) => Kind::Data(9),
        (Kind::Metric, 10) => Kind::Data(1),
        (Kind::Data(attributes), 1) => Kind::Holder(attributes),
        (Kind::Holder(attributes), n) if n == attributes => Kind::Pair,
        _ => return None,
    })
}

fn message(signal: Signal, kind: Kind, bytes: &[u8], rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut fields: Vec<Vec<u8>> = Vec::new();
    let mut cursor = Cursor::new(bytes);
    while let Some(field) = cursor.next_field().unwrap() {
        let raw = bytes[field.start..field.end].to_vec();
        match (field.value, child(signal, kind, field.number)) {
            (Value::Bytes(body), Some(kind)) => {
                let mut out = Vec::new();
                put_bytes(&mut out, field.number, &message(signal, kind, body, rng));
                fields.push(out);
            }
            _ => fields.push(raw),
        }
    }
    if rng.u8(..4) == 0 {
        let mut unknown = Vec::new();
        put_tag(&mut unknown, 1000, 0);
        put_varint(&mut unknown, rng.u64(..));
        fields.push(unknown);
    }
    if kind == Kind::Pair && rng.u8(..4) == 0 {
        // A value before the real one, a list that may merge with it, or a key that is replaced.
        let mut earlier = Vec::new();
        match rng.u8(..3) {
            0 => put_bytes(&mut earlier, 2, &[0x18, 7]),
            1 => put_bytes(&mut earlier, 2, &[0x2a, 4, 0x0a, 2, 0x18, 7]),
            _ => put_bytes(&mut earlier, 1, b"a"),
        }
        fields.push(earlier);
    }
    // A oneof's last occurrence counts, so that the order matters and prost is asked what it means.
    rng.shuffle(&mut fields);
    fields.concat()
}
