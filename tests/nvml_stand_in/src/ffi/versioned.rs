//! Readings in structs that begin with a version: the size, or-ed with the number of the layout from bit 24 on.
//!
//! A version that is not one of the call's answers 25 and is misuse, and so does a driver.

use super::core::PciInfo;
use super::{Code, Device, answer, number, put};
use crate::state::{Call, SHARED, Target, code};

/// The version of a layout.
const fn version<T>(number: u32) -> u32 {
    size_of::<T>() as u32 | number << 24
}

/// `nvmlMemory_v2_t`.
#[repr(C)]
pub struct Memory {
    version: u32,
    total: u64,
    reserved: u64,
    free: u64,
    used: u64,
}

/// `nvmlTemperature_v1_t`.
#[repr(C)]
pub struct Temperature {
    version: u32,
    sensor: u32,
    celsius: i32,
}

/// `nvmlMarginTemperature_v1_t`.
#[repr(C)]
pub struct Margin {
    version: u32,
    celsius: i32,
}

/// `nvmlFanSpeedInfo_v1_t`.
#[repr(C)]
pub struct FanSpeed {
    version: u32,
    fan: u32,
    rpm: u32,
}

/// `nvmlGpuFabricInfo_v2_t`; the third layout has one more byte behind.
#[repr(C)]
pub struct Fabric {
    version: u32,
    cluster: [u8; 16],
    status: u32,
    clique: u32,
    state: u8,
    health: u32,
}

/// `nvmlGpuFabricInfo_v3_t`.
#[repr(C)]
pub struct Fabric3 {
    as_before: Fabric,
    summary: u8,
}

/// `nvmlEccSramErrorStatus_v1_t`.
#[repr(C)]
pub struct Sram {
    version: u32,
    counts: [u64; 11],
    exceeded: u32,
}

const _: () = assert!(version::<Memory>(2) == 0x0200_0028);
const _: () =
    assert!(size_of::<Temperature>() == 12 && size_of::<Margin>() == 8 && size_of::<FanSpeed>() == 12);
const _: () = assert!(size_of::<Fabric>() == 36 && size_of::<Fabric3>() == 40 && size_of::<Sram>() == 104);

/// A call that hands in a struct with its version set. `fill` gets the struct after the version was found right.
unsafe fn versioned<'a, T>(
    call: impl Fn() -> Call<'a>,
    device: Device,
    out: *mut T,
    versions: &[u32],
    fill: impl FnOnce(&mut T, &Target<'_>) -> Result<(), Code>,
) -> Code {
    SHARED.device(call(), device, |state, _, target| {
        if out.is_null() {
            return state.misused(&call(), "a null pointer", code::INVALID_ARGUMENT);
        }
        // SAFETY: not null, and every layout begins with its version.
        let given = unsafe { out.cast::<u32>().read() };
        if !versions.contains(&given) {
            let what = format!("struct version {given:#x}");
            return state.misused(&call(), &what, code::ARGUMENT_VERSION_MISMATCH);
        }
        // SAFETY: the version says that this is what the pointer points to.
        super::coded(fill(unsafe { &mut *out }, &target))
    })
}

/// # Safety
///
/// The out-pointer is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(device: Device, out: *mut Memory) -> Code {
    let call = || Call::of("nvmlDeviceGetMemoryInfo_v2");
    // SAFETY: the caller's word.
    unsafe {
        versioned(call, device, out, &[version::<Memory>(2)], |out, target| {
            [out.total, out.reserved, out.free, out.used] = answer(&call(), target)?;
            Ok(())
        })
    }
}

/// A value of its own, or the one of the older call.
///
/// # Safety
///
/// The out-pointer is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperatureV(device: Device, out: *mut Temperature) -> Code {
    // SAFETY: as below; which sensor is meant must be known before the call is.
    let args = [unsafe { out.as_ref() }.map_or(0, |out| out.sensor)];
    let call = || Call::with("nvmlDeviceGetTemperatureV", &args);
    // SAFETY: the caller's word.
    unsafe {
        versioned(call, device, out, &[version::<Temperature>(1)], |out, target| {
            let older = Call::with("nvmlDeviceGetTemperature", &args);
            let [celsius] = answer(&call(), target).or_else(|_| answer(&older, target))?;
            out.celsius = celsius as i32;
            Ok(())
        })
    }
}

/// # Safety
///
/// The out-pointer is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMarginTemperature(device: Device, out: *mut Margin) -> Code {
    let call = || Call::of("nvmlDeviceGetMarginTemperature");
    // SAFETY: the caller's word.
    unsafe {
        versioned(call, device, out, &[version::<Margin>(1)], |out, target| {
            let [celsius] = answer(&call(), target)?;
            out.celsius = celsius as i32;
            Ok(())
        })
    }
}

/// # Safety
///
/// The out-pointer is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetFanSpeedRPM(device: Device, out: *mut FanSpeed) -> Code {
    // SAFETY: as below; which fan is meant must be known before the call is.
    let args = [unsafe { out.as_ref() }.map_or(0, |out| out.fan)];
    let call = || Call::with("nvmlDeviceGetFanSpeedRPM", &args);
    // SAFETY: the caller's word.
    unsafe {
        versioned(call, device, out, &[version::<FanSpeed>(1)], |out, target| {
            let [rpm] = answer(&call(), target)?;
            out.rpm = rpm as u32;
            Ok(())
        })
    }
}

/// The value is state, status, clique, health mask, health summary.
///
/// # Safety
///
/// The out-pointer is null or valid for the layout that its version names.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuFabricInfoV(device: Device, out: *mut Fabric) -> Code {
    let call = || Call::of("nvmlDeviceGetGpuFabricInfoV");
    let third = version::<Fabric3>(3);
    // SAFETY: the caller's word.
    unsafe {
        versioned(call, device, out, &[version::<Fabric>(2), third], |out, target| {
            let [state, status, clique, health, summary] = answer(&call(), target)?;
            out.cluster = [0x5A; 16];
            out.state = state as u8;
            out.status = status as u32;
            out.clique = clique as u32;
            out.health = health as u32;
            if out.version == third {
                // SAFETY: the version says that the byte is there.
                put(&raw mut (*(&raw mut *out).cast::<Fabric3>()).summary, summary as u8);
            }
            Ok(())
        })
    }
}

/// The value is the eleven counts in order and the flag.
///
/// # Safety
///
/// The out-pointer is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetSramEccErrorStatus(device: Device, out: *mut Sram) -> Code {
    let call = || Call::of("nvmlDeviceGetSramEccErrorStatus");
    // SAFETY: the caller's word.
    unsafe {
        versioned(call, device, out, &[version::<Sram>(1)], |out, target| {
            let values: [u64; 12] = answer(&call(), target)?;
            out.counts.copy_from_slice(&values[..11]);
            out.exceeded = values[11] as u32;
            Ok(())
        })
    }
}

/// Not versioned, but a struct with a text as well: what is at the other end of a link.
///
/// # Safety
///
/// The out-pointer is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNvLinkRemotePciInfo_v2(
    device: Device,
    link: u32,
    out: *mut PciInfo,
) -> Code {
    let args = [link];
    let call = || Call::with("nvmlDeviceGetNvLinkRemotePciInfo_v2", &args);
    SHARED.device(call(), device, |_, _, target| {
        let value = target.device.value(&call());
        match value.and_then(|value| PciInfo::parse(value.as_str()?, [0, 0])) {
            // SAFETY: the caller's word.
            Some(info) => unsafe { put(out, info) },
            None => code::NOT_SUPPORTED,
        }
    })
}

/// `nvmlGpmSupport_t`: its version is a plain 1.
///
/// # Safety
///
/// The out-pointer is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmQueryDeviceSupport(device: Device, out: *mut [u32; 2]) -> Code {
    let call = || Call::of("nvmlGpmQueryDeviceSupport");
    // SAFETY: the caller's word.
    unsafe {
        versioned(call, device, out, &[1], |out, target| {
            out[1] = target.device.value(&call()).and_then(number).unwrap_or_default() as u32;
            Ok(())
        })
    }
}
