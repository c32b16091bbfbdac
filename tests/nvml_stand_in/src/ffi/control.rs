//! What a test says to a copy that is open in its own process.

use std::ffi::{CStr, CString, c_char};
use std::time::{Duration, Instant};

use crate::scenario::{Event, Scenario};
use crate::state::{SHARED, State};

/// The text behind a pointer as JSON.
unsafe fn parsed<T: serde::de::DeserializeOwned>(text: *const c_char) -> Result<T, String> {
    if text.is_null() {
        return Err("null".to_owned());
    }
    // SAFETY: not null, and the caller's word.
    let text = unsafe { CStr::from_ptr(text) };
    serde_json::from_slice(text.to_bytes()).map_err(|e| e.to_string())
}

/// Does something with a text, and wakes who waits. 0 is good.
unsafe fn apply<T: serde::de::DeserializeOwned>(
    text: *const c_char,
    change: impl FnOnce(&mut State, T) -> Result<(), String>,
) -> i32 {
    // SAFETY: the caller's word.
    let parsed = unsafe { parsed(text) };
    let done = parsed.and_then(|value| change(&mut SHARED.lock(), value));
    SHARED.notify();
    match done {
        Ok(()) => 0,
        Err(e) => {
            eprintln!("stand-in: {e}");
            1
        }
    }
}

/// Takes a whole scenario over, as JSON. Handles, event sets and counts stay as they are.
///
/// # Safety
///
/// The text is null or ends with a NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidegate_stand_in_load(text: *const c_char) -> i32 {
    // SAFETY: the caller's word.
    unsafe {
        apply(text, |state, scenario: Scenario| {
            state.load(scenario);
            Ok(())
        })
    }
}

/// Sets what one key answers. `device` is the index of a GPU, or -1 for the library.
///
/// # Safety
///
/// The texts are null or end with a NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidegate_stand_in_set(device: i32, key: *const c_char, value: *const c_char) -> i32 {
    if key.is_null() {
        return 1;
    }
    // SAFETY: not null, and the caller's word.
    let key = unsafe { CStr::from_ptr(key) }.to_string_lossy().into_owned();
    // SAFETY: the caller's word.
    unsafe {
        apply(value, |state, value: serde_json::Value| {
            match usize::try_from(device) {
                Ok(index) => {
                    let device = state.scenario.devices.get_mut(index).ok_or("no such device")?;
                    device.values.insert(key, value);
                }
                Err(_) => drop(state.scenario.values.insert(key, value)),
            }
            Ok(())
        })
    }
}

/// One more event.
///
/// # Safety
///
/// The text is null or ends with a NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidegate_stand_in_push_event(text: *const c_char) -> i32 {
    // SAFETY: the caller's word.
    unsafe {
        apply(text, |state, event: Event| {
            state.scenario.events.push(event);
            state.deliver();
            Ok(())
        })
    }
}

/// The counts as JSON; to be given back to [`tidegate_stand_in_free`].
#[unsafe(no_mangle)]
pub extern "C" fn tidegate_stand_in_stats() -> *mut c_char {
    let text = SHARED.lock().stats().to_string();
    CString::new(text).map_or(std::ptr::null_mut(), CString::into_raw)
}

/// # Safety
///
/// The text is null or from [`tidegate_stand_in_stats`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidegate_stand_in_free(text: *mut c_char) {
    if !text.is_null() {
        // SAFETY: the caller's word.
        drop(unsafe { CString::from_raw(text) });
    }
}

/// Waits until a symbol (or `field/<id>`, `gpm/<id>`, `inits`, `shutdowns`, `hanging`) was called so often. 1 if so.
///
/// # Safety
///
/// The text is null or ends with a NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidegate_stand_in_wait(key: *const c_char, count: u64, milliseconds: u64) -> i32 {
    if key.is_null() {
        return 0;
    }
    // SAFETY: not null, and the caller's word.
    let key = unsafe { CStr::from_ptr(key) }.to_string_lossy().into_owned();
    let deadline = Instant::now() + Duration::from_millis(milliseconds);
    let mut state = SHARED.lock();
    while state.calls(&key) < count {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return 0;
        }
        state = SHARED.wait(state, left);
    }
    1
}

/// Lets go of every blocked call, now and later.
#[unsafe(no_mangle)]
pub extern "C" fn tidegate_stand_in_close() {
    SHARED.lock().close();
    SHARED.notify();
}
