//! JSON to values.

use bumpalo::Bump;
use serde_json::Value as Json;

use crate::ottl::value::{Buf, Fault, MAX_DEPTH, Val, put_bytes, put_entry};

/// What a text says. Every number is a double, as in the Collector.
pub(super) fn parse<'v>(text: &[u8], arena: &'v Bump) -> Result<Val<'v>, Fault> {
    let json: Json =
        serde_json::from_slice(text).map_err(|_| Fault::Other("ParseJSON: the text is no JSON"))?;
    value(&json, arena, 1)
}

/// A value that stands `depth` levels deep, counted from 1.
fn value<'v>(json: &Json, arena: &'v Bump, depth: usize) -> Result<Val<'v>, Fault> {
    if depth > MAX_DEPTH {
        return Err(Fault::Other("ParseJSON: the text nests too deeply"));
    }
    Ok(match json {
        Json::Null => Val::Nil,
        Json::Bool(b) => Val::Bool(*b),
        Json::Number(n) => Val::Double(n.as_f64().unwrap_or_default()),
        Json::String(s) => Val::Str(arena.alloc_slice_copy(s.as_bytes())),
        Json::Array(items) => {
            let mut list = Buf::new_in(arena);
            for item in items {
                put_bytes(&mut list, 0x0a, value(item, arena, depth + 1)?.encode(arena)?);
            }
            Val::List(list.into_bump_slice())
        }
        Json::Object(entries) => {
            let mut map = Buf::new_in(arena);
            for (key, item) in entries {
                put_entry(&mut map, key.as_bytes(), value(item, arena, depth + 1)?.encode(arena)?);
            }
            Val::Map(map.into_bump_slice())
        }
    })
}
