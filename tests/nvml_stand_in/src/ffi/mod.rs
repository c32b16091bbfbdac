//! NVML's C interface. Names, argument order and struct layouts are the driver's; everything else is in `state`.
//!
//! Null out-pointers, which a driver may or may not survive, answer "invalid argument" and count as misuse. Struct
//! versions are checked where a driver checks them.

use std::ffi::{c_char, c_int};

use serde_json::Value;

use crate::state::{Call, Target, code};

pub(crate) mod control;
mod core;
mod events;
mod fields;
mod forbidden;
mod gpm;
mod lists;
mod mig;
mod readings;
mod versioned;

/// `nvmlReturn_t`.
pub(crate) type Code = u32;

/// A device handle: never dereferenced, so a number is enough.
pub(crate) type Device = usize;

/// The numbers of a value: itself, or the members of a list.
pub(crate) fn numbers(value: &Value) -> Vec<u64> {
    match value {
        Value::Array(members) => members.iter().filter_map(number).collect(),
        value => number(value).into_iter().collect(),
    }
}

/// A number as the bits it has in memory; negative ones in two's complement.
pub(crate) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Bool(flag) => Some(u64::from(*flag)),
        value => value.as_u64().or_else(|| value.as_i64().map(|n| n as u64)),
    }
}

/// The numbers that a call answers on a device, `want` of them; fewer is a scenario that is wrong, and is not supported.
pub(crate) fn answer<const WANT: usize>(call: &Call<'_>, target: &Target<'_>) -> Result<[u64; WANT], Code> {
    let value = target.device.value(call).ok_or(code::NOT_SUPPORTED)?;
    numbers(value).try_into().map_err(|_| code::NOT_SUPPORTED)
}

/// Writes a text with its NUL, if it fits.
///
/// # Safety
///
/// `buffer` is null or has `length` bytes.
pub(crate) unsafe fn put_text(text: &str, buffer: *mut c_char, length: u32) -> Code {
    if buffer.is_null() {
        return code::INVALID_ARGUMENT;
    }
    if text.len() >= length as usize {
        return code::INSUFFICIENT_SIZE;
    }
    // SAFETY: one byte fewer than `length` at most, and the NUL behind.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), buffer, text.len());
        buffer.add(text.len()).write(0);
    }
    code::SUCCESS
}

/// Writes an out-parameter.
///
/// # Safety
///
/// `out` is null or valid for a write.
pub(crate) unsafe fn put<T>(out: *mut T, value: T) -> Code {
    if out.is_null() {
        return code::INVALID_ARGUMENT;
    }
    // SAFETY: not null, and the caller's word.
    unsafe { out.write(value) };
    code::SUCCESS
}

/// The code of a result.
pub(crate) fn coded(result: Result<(), Code>) -> Code {
    result.err().unwrap_or(code::SUCCESS)
}

/// A number of the width of an out-parameter.
pub(crate) trait Narrow {
    fn narrow(bits: u64) -> Self;
}

impl Narrow for u32 {
    fn narrow(bits: u64) -> u32 {
        bits as u32
    }
}

impl Narrow for u64 {
    fn narrow(bits: u64) -> u64 {
        bits
    }
}

impl Narrow for c_int {
    fn narrow(bits: u64) -> c_int {
        bits as c_int
    }
}

/// Functions `(device, arguments…, out-parameters…)` whose answer is a list of numbers, one for each out-parameter.
macro_rules! reading {
    ($($name:ident($($arg:ident),*) -> $($out:ident: $type:ty),+;)*) => {$(
        /// # Safety
        ///
        /// Out-pointers are null or valid.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            device: $crate::ffi::Device, $($arg: u32,)* $($out: *mut $type,)+
        ) -> $crate::ffi::Code {
            let args = [$($arg),*];
            let call = || $crate::state::Call::with(stringify!($name), &args);
            $crate::state::SHARED.device(call(), device, |state, _, target| {
                const WANT: usize = [$(stringify!($out)),+].len();
                if [$($out.is_null()),+].contains(&true) {
                    return state.misused(&call(), "a null pointer", $crate::state::code::INVALID_ARGUMENT);
                }
                let values = match $crate::ffi::answer::<WANT>(&call(), &target) {
                    Ok(values) => values,
                    Err(code) => return code,
                };
                let mut values = values.into_iter();
                $(
                    let bits = values.next().unwrap_or_default();
                    // SAFETY: not null, and the caller's word.
                    unsafe { $out.write($crate::ffi::Narrow::narrow(bits)) };
                )+
                $crate::state::code::SUCCESS
            })
        }
    )*};
}
pub(crate) use reading;

/// Functions `(device, buffer, length)` whose answer is a text.
macro_rules! text {
    ($($name:ident;)*) => {$(
        /// # Safety
        ///
        /// The buffer is null or has the length said.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            device: $crate::ffi::Device, buffer: *mut std::ffi::c_char, length: u32,
        ) -> $crate::ffi::Code {
            let call = || $crate::state::Call::of(stringify!($name));
            $crate::state::SHARED.device(call(), device, |_, _, target| {
                let text = target.device.value(&call()).and_then(|value| value.as_str());
                match text {
                    // SAFETY: the caller's word.
                    Some(text) => unsafe { $crate::ffi::put_text(text, buffer, length) },
                    None => $crate::state::code::NOT_SUPPORTED,
                }
            })
        }
    )*};
}
pub(crate) use text;
