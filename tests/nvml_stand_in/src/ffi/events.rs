//! Event sets. Only physical GPUs can be watched; events before registration are lost, and counted as missed.

use std::time::{Duration, Instant};

use super::{Code, Device, answer, put};
use crate::state::{Call, EventSet, SHARED, code};

/// `nvmlEventData_t`.
#[repr(C)]
pub struct EventData {
    device: Device,
    kind: u64,
    data: u64,
    gpu_instance: u32,
    compute_instance: u32,
}

const _: () = assert!(size_of::<EventData>() == 32);

/// # Safety
///
/// The out-pointer is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetCreate(out: *mut usize) -> Code {
    SHARED.global(Call::of("nvmlEventSetCreate"), false, |state| {
        let set = state.object();
        state.sets.insert(set, EventSet::default());
        // SAFETY: the caller's word.
        unsafe { put(out, set) }
    })
}

/// Freeing what is not there is misuse, also after shutdown, which frees everything.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlEventSetFree(set: usize) -> Code {
    let call = || Call::of("nvmlEventSetFree");
    SHARED.global(call(), true, |state| match state.sets.remove(&set) {
        Some(_) => code::SUCCESS,
        None => state.misused(&call(), "an event set that does not exist", code::INVALID_ARGUMENT),
    })
}

#[unsafe(no_mangle)]
/// Kinds that the device does not support refuse the whole registration.
pub extern "C" fn nvmlDeviceRegisterEvents(device: Device, kinds: u64, set: usize) -> Code {
    let call = || Call::of("nvmlDeviceRegisterEvents");
    SHARED.device(call(), device, |state, _, target| {
        let supported = answer(&Call::of("nvmlDeviceGetSupportedEventTypes"), &target);
        let supported = supported.map_or(0, |[kinds]| kinds);
        if target.parent.is_some() || kinds & !supported != 0 {
            return code::NOT_SUPPORTED;
        }
        match state.sets.get_mut(&set) {
            Some(set) => {
                *set.registered.entry(target.device.uuid.clone()).or_default() |= kinds;
                code::SUCCESS
            }
            None => state.misused(&call(), "an event set that does not exist", code::INVALID_ARGUMENT),
        }
    })
}

super::reading! {
    nvmlDeviceGetSupportedEventTypes() -> kinds: u64;
}

/// Answers 15 when a GPU of the set answers nothing but that, after the events that came before.
///
/// # Safety
///
/// The out-pointer is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetWait_v2(set: usize, out: *mut EventData, milliseconds: u32) -> Code {
    let call = || Call::of("nvmlEventSetWait_v2");
    let code = SHARED.global(call(), false, |state| match state.sets.contains_key(&set) {
        true => code::SUCCESS,
        false => state.misused(&call(), "an event set that does not exist", code::INVALID_ARGUMENT),
    });
    if code != code::SUCCESS {
        return code;
    }
    let deadline = Instant::now() + Duration::from_millis(u64::from(milliseconds));
    let mut state = SHARED.lock();
    loop {
        let state_ref = &mut *state;
        let Some(waiting) = state_ref.sets.get_mut(&set) else { return code::UNINITIALIZED };
        if let Some(delivery) = waiting.queue.pop_front() {
            let event = delivery.event;
            let data = EventData {
                device: delivery.handle,
                kind: event.kind,
                data: event.data,
                gpu_instance: event.gpu_instance.unwrap_or(u32::MAX),
                compute_instance: event.compute_instance.unwrap_or(u32::MAX),
            };
            // SAFETY: the caller's word.
            return unsafe { put(out, data) };
        }
        let scenario = &state_ref.scenario;
        let lost = waiting.registered.keys().any(|uuid| {
            let found = scenario.find(uuid);
            found.is_none_or(|found| found.device.faults.get("*").is_some_and(|fault| fault.code == 15))
        });
        if lost {
            return code::GPU_IS_LOST;
        }
        // A fault that came up while we waited.
        let faults = [&scenario.faults.get("nvmlEventSetWait_v2"), &scenario.faults.get("*")];
        if let Some(fault) =
            faults.into_iter().flatten().find(|fault| fault.code != 0 && fault.times.is_none())
        {
            return fault.code;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || state.is_closed() {
            return code::TIMEOUT;
        }
        state = SHARED.pause(state, left);
    }
}
