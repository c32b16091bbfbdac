//! Field values: the call succeeds, every field has a type tag and a code of its own.
//!
//! A field that fails holds all ones, so that a caller who does not look at the code is seen.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::{Code, Device, number};
use crate::scenario::Field;
use crate::state::{Call, SHARED, code};

/// `nvmlFieldValue_t`.
#[repr(C)]
pub struct FieldValue {
    id: u32,
    scope: u32,
    timestamp: i64,
    latency: i64,
    kind: u32,
    code: u32,
    bits: u64,
}

const _: () = assert!(size_of::<FieldValue>() == 40);

/// Type tags.
const U32: u32 = 1;
const U64: u32 = 3;
const I32: u32 = 5;

/// The type that a field has by the header.
fn kind(id: u32) -> u32 {
    match id {
        29..=31 | 82 | 90 | 91 | 94 | 142..=145 | 164..=166 | 173..=190 | 226 | 230 => U32,
        193..=196 => I32,
        _ => U64,
    }
}

/// A scenario's value as tag and bits.
fn typed(id: u32, value: &Value) -> Option<Field> {
    match value {
        Value::Object(_) => serde_json::from_value(value.clone()).ok(),
        value => {
            let bits = number(value)?;
            let kind = kind(id);
            Some(Field { kind, bits: if kind == U64 { bits } else { bits & 0xFFFF_FFFF } })
        }
    }
}

/// # Safety
///
/// `values` is null or has `count` entries with ID and scope set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetFieldValues(
    device: Device,
    count: i32,
    values: *mut FieldValue,
) -> Code {
    let call = || Call::of("nvmlDeviceGetFieldValues");
    SHARED.device(call(), device, |state, scenario, target| {
        let Ok(count) = usize::try_from(count) else {
            return state.misused(&call(), "a negative count", code::INVALID_ARGUMENT);
        };
        if values.is_null() || count == 0 {
            return state.misused(&call(), "no fields asked for", code::INVALID_ARGUMENT);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as i64;
        for at in 0..count {
            // SAFETY: below `count`, the caller's word.
            let value = unsafe { &mut *values.add(at) };
            let args = [value.id, value.scope];
            let field = Call::with("field", &args);
            let plain = format!("field/{}", value.id);
            state.count(&plain);
            // A value is for its scope alone: an unscoped question is for the first link, not for all.
            let found = match value.scope {
                0 => target.device.values.get(&plain),
                scope => target.device.values.get(&format!("field/{}/{scope}", value.id)),
            };
            let found = found.and_then(|found| typed(value.id, found));
            let unknown = match scenario.unknown_field_code {
                0 => code::NOT_SUPPORTED,
                code => code,
            };
            value.code = match (state.part_fault(scenario, &target.device.uuid, &field), &found) {
                (code::SUCCESS, None) => unknown,
                (code, _) => code,
            };
            value.timestamp = now;
            value.latency = 0;
            let answer = found.filter(|_| value.code == code::SUCCESS);
            value.kind = answer.as_ref().map_or(U64, |field| field.kind);
            value.bits = answer.map_or(u64::MAX, |field| field.bits);
        }
        code::SUCCESS
    })
}
