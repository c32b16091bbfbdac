//! MIG: the instances of a GPU and what they are.

use super::{Code, Device, numbers, put};
use crate::state::{Call, SHARED, code};

/// The number of slots, of which some may be empty; the value may say more.
///
/// # Safety
///
/// The out-pointer is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMaxMigDeviceCount(device: Device, out: *mut u32) -> Code {
    let call = || Call::of("nvmlDeviceGetMaxMigDeviceCount");
    SHARED.device(call(), device, |_, _, target| {
        let said = target.device.value(&call()).and_then(super::number);
        // SAFETY: the caller's word.
        unsafe { put(out, said.unwrap_or(target.device.mig.len() as u64) as u32) }
    })
}

/// An empty slot answers 6.
///
/// # Safety
///
/// The out-pointer is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    device: Device,
    index: u32,
    out: *mut Device,
) -> Code {
    let args = [index];
    let call = Call::with("nvmlDeviceGetMigDeviceHandleByIndex", &args);
    SHARED.device(call, device, |state, _, target| {
        if target.parent.is_some() {
            return code::INVALID_ARGUMENT;
        }
        match target.device.mig.get(index as usize) {
            Some(Some(instance)) => {
                let handle = state.handle_of(&instance.uuid);
                // SAFETY: the caller's word.
                unsafe { put(out, handle) }
            }
            Some(None) => code::NOT_FOUND,
            None if target.device.mig.is_empty() => code::NOT_SUPPORTED,
            None => code::NOT_FOUND,
        }
    })
}

/// # Safety
///
/// The out-pointer is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(
    device: Device,
    out: *mut Device,
) -> Code {
    let call = Call::of("nvmlDeviceGetDeviceHandleFromMigDeviceHandle");
    SHARED.device(call, device, |state, _, target| match target.parent {
        Some(gpu) => {
            let handle = state.handle_of(&gpu.uuid);
            // SAFETY: the caller's word.
            unsafe { put(out, handle) }
        }
        None => code::INVALID_ARGUMENT,
    })
}

/// # Safety
///
/// The out-pointer is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceIsMigDeviceHandle(device: Device, out: *mut u32) -> Code {
    SHARED.device(Call::of("nvmlDeviceIsMigDeviceHandle"), device, |_, _, target| {
        // SAFETY: the caller's word.
        unsafe { put(out, u32::from(target.parent.is_some())) }
    })
}

/// # Safety
///
/// The out-pointer is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuInstanceId(device: Device, out: *mut u32) -> Code {
    SHARED.device(Call::of("nvmlDeviceGetGpuInstanceId"), device, |_, _, target| {
        match target.device.gpu_instance {
            // SAFETY: the caller's word.
            Some(id) => unsafe { put(out, id) },
            None => code::NOT_SUPPORTED,
        }
    })
}

/// # Safety
///
/// The out-pointer is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeInstanceId(device: Device, out: *mut u32) -> Code {
    SHARED.device(Call::of("nvmlDeviceGetComputeInstanceId"), device, |_, _, target| {
        match target.device.compute_instance {
            // SAFETY: the caller's word.
            Some(id) => unsafe { put(out, id) },
            None => code::NOT_SUPPORTED,
        }
    })
}

/// `nvmlDeviceAttributes_t`.
#[repr(C)]
pub struct Attributes {
    counts: [u32; 8],
    memory: u64,
}

const _: () = assert!(size_of::<Attributes>() == 40);

/// The value is the eight counts in order and the memory in MiB.
///
/// # Safety
///
/// The out-pointer is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetAttributes_v2(device: Device, out: *mut Attributes) -> Code {
    let call = || Call::of("nvmlDeviceGetAttributes_v2");
    SHARED.device(call(), device, |_, _, target| {
        let values = target.device.value(&call()).map(numbers).unwrap_or_default();
        let Some((memory, counts)) = values.split_last() else { return code::NOT_SUPPORTED };
        let Ok(counts) = <[u64; 8]>::try_from(counts) else { return code::NOT_SUPPORTED };
        // SAFETY: the caller's word.
        unsafe { put(out, Attributes { counts: counts.map(|count| count as u32), memory: *memory }) }
    })
}
