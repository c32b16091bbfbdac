//! Lists, read in two steps: without room the call answers 7 and how much is needed, then it fills.
//!
//! A fault with `/fill` behind the symbol hits the second step alone: a list that grew in between.

use super::{Code, Device, numbers, put};
use crate::scenario::{Process, ProcessSample};
use crate::state::{Call, SHARED, Target, code};

/// `nvmlProcessInfo_t`.
#[repr(C)]
pub struct ProcessInfo {
    pid: u32,
    memory: u64,
    gpu_instance: u32,
    compute_instance: u32,
}

/// `nvmlProcessUtilizationSample_t`.
#[repr(C)]
pub struct UtilizationSample {
    pid: u32,
    timestamp: u64,
    sm: u32,
    memory: u32,
    encoder: u32,
    decoder: u32,
}

/// `nvmlProcessUtilizationInfo_v1_t`.
#[repr(C)]
pub struct UtilizationInfo {
    timestamp: u64,
    pid: u32,
    sm: u32,
    memory: u32,
    encoder: u32,
    decoder: u32,
    jpeg: u32,
    ofa: u32,
}

/// `nvmlProcessesUtilizationInfo_v1_t`.
#[repr(C)]
pub struct UtilizationInfos {
    version: u32,
    count: u32,
    last: u64,
    rows: *mut UtilizationInfo,
}

/// `nvmlSample_t`; the value lies in the low bytes.
#[repr(C)]
pub struct Sample {
    timestamp: u64,
    value: u64,
}

const _: () = assert!(size_of::<ProcessInfo>() == 24 && size_of::<UtilizationSample>() == 32);
const _: () = assert!(size_of::<UtilizationInfo>() == 40 && size_of::<UtilizationInfos>() == 24);

/// Fills a list, or says how much room it needs.
///
/// # Safety
///
/// `count` is null or valid; `rows` is null or has room for what `count` says.
unsafe fn fill<T>(wanted: Vec<T>, count: *mut u32, rows: *mut T) -> Code {
    if count.is_null() {
        return code::INVALID_ARGUMENT;
    }
    // SAFETY: not null, and the caller's word.
    let room = unsafe { count.read() };
    // SAFETY: as above.
    unsafe { count.write(wanted.len() as u32) };
    if wanted.is_empty() {
        return code::SUCCESS;
    }
    if rows.is_null() || (room as usize) < wanted.len() {
        return code::INSUFFICIENT_SIZE;
    }
    for (at, row) in wanted.into_iter().enumerate() {
        // SAFETY: below `room`.
        unsafe { rows.add(at).write(row) };
    }
    code::SUCCESS
}

/// The step a caller is in: one without room asks for the size.
unsafe fn phase<T>(count: *const u32, rows: *const T) -> Option<&'static str> {
    // SAFETY: read only if not null, and the caller's word.
    let room = if count.is_null() { 0 } else { unsafe { count.read() } };
    (room > 0 && !rows.is_null()).then_some("fill")
}

unsafe fn processes(
    symbol: &'static str,
    device: Device,
    count: *mut u32,
    rows: *mut ProcessInfo,
    list: impl Fn(&Target<'_>) -> Vec<Process>,
) -> Code {
    // SAFETY: the caller's word.
    let call = Call { symbol, args: &[], phase: unsafe { phase(count, rows) } };
    SHARED.device(call, device, |_, _, target| {
        let none = |instance: Option<u32>| instance.unwrap_or(u32::MAX);
        let wanted = list(&target).into_iter().map(|process| ProcessInfo {
            pid: process.pid,
            memory: process.memory.unwrap_or(u64::MAX),
            gpu_instance: none(process.gpu_instance),
            compute_instance: none(process.compute_instance),
        });
        // SAFETY: the caller's word.
        unsafe { fill(wanted.collect(), count, rows) }
    })
}

macro_rules! process_list {
    ($($name:ident $field:ident;)*) => {$(
        /// # Safety
        ///
        /// The pointers are null or valid for what the count says.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(device: Device, count: *mut u32, rows: *mut ProcessInfo) -> Code {
            // SAFETY: the caller's word.
            unsafe {
                processes(stringify!($name), device, count, rows, |target| target.device.$field.clone())
            }
        }
    )*};
}

process_list! {
    nvmlDeviceGetComputeRunningProcesses_v3 compute;
    nvmlDeviceGetGraphicsRunningProcesses_v3 graphics;
    nvmlDeviceGetMPSComputeRunningProcesses_v3 mps;
}

/// The rows that a caller has not seen.
fn newer(target: &Target<'_>, last: u64) -> Vec<ProcessSample> {
    target.device.process_samples.iter().filter(|sample| sample.timestamp > last).cloned().collect()
}

/// # Safety
///
/// The pointers are null or valid for what the count says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetProcessUtilization(
    device: Device,
    rows: *mut UtilizationSample,
    count: *mut u32,
    last: u64,
) -> Code {
    let symbol = "nvmlDeviceGetProcessUtilization";
    // SAFETY: the caller's word.
    let call = Call { symbol, args: &[], phase: unsafe { phase(count, rows) } };
    SHARED.device(call, device, |_, _, target| {
        if target.device.values.get("nvmlDeviceGetMigMode").is_some_and(|mode| numbers(mode)[0] == 1) {
            return code::NOT_SUPPORTED;
        }
        let wanted = newer(&target, last);
        if wanted.is_empty() {
            return code::NOT_FOUND;
        }
        let wanted = wanted.into_iter().map(|sample| UtilizationSample {
            pid: sample.pid,
            timestamp: sample.timestamp,
            sm: sample.sm,
            memory: sample.memory,
            encoder: sample.encoder,
            decoder: sample.decoder,
        });
        // SAFETY: the caller's word.
        unsafe { fill(wanted.collect(), count, rows) }
    })
}

/// # Safety
///
/// The pointer is null or valid, and the array in it for the count in it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetProcessesUtilizationInfo(
    device: Device,
    out: *mut UtilizationInfos,
) -> Code {
    let call = || Call::of("nvmlDeviceGetProcessesUtilizationInfo");
    SHARED.device(call(), device, |state, _, target| {
        if out.is_null() {
            return state.misused(&call(), "a null pointer", code::INVALID_ARGUMENT);
        }
        // SAFETY: not null, and the caller's word; nothing but the version is looked at before it was found right.
        let version = unsafe { (&raw const (*out).version).read() };
        if version != size_of::<UtilizationInfos>() as u32 | 1 << 24 {
            let what = format!("struct version {version:#x}");
            return state.misused(&call(), &what, code::ARGUMENT_VERSION_MISMATCH);
        }
        // SAFETY: as above.
        let out = unsafe { &mut *out };
        let wanted = newer(&target, out.last);
        if wanted.is_empty() {
            return code::NOT_FOUND;
        }
        let wanted = wanted.into_iter().map(|sample| UtilizationInfo {
            timestamp: sample.timestamp,
            pid: sample.pid,
            sm: sample.sm,
            memory: sample.memory,
            encoder: sample.encoder,
            decoder: sample.decoder,
            jpeg: sample.jpeg,
            ofa: sample.ofa,
        });
        // SAFETY: the caller's word.
        unsafe { fill(wanted.collect(), &raw mut out.count, out.rows) }
    })
}

/// The value is a list of pairs, timestamp in µs and value; only newer ones are given. All are u32 values.
///
/// # Safety
///
/// The pointers are null or valid for what the count says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetSamples(
    device: Device,
    kind: u32,
    last: u64,
    value_type: *mut u32,
    count: *mut u32,
    rows: *mut Sample,
) -> Code {
    let args = [kind];
    // SAFETY: the caller's word.
    let phase = unsafe { phase(count, rows) };
    let call = || Call { symbol: "nvmlDeviceGetSamples", args: &args, phase };
    SHARED.device(call(), device, |_, _, target| {
        let Some(value) = target.device.value(&call()) else { return code::NOT_SUPPORTED };
        let pairs = value.as_array().into_iter().flatten().map(numbers);
        let wanted: Vec<Sample> = pairs
            .filter_map(|pair| Some(Sample { timestamp: *pair.first()?, value: *pair.get(1)? }))
            .filter(|sample| sample.timestamp > last || sample.timestamp == 0)
            .collect();
        if wanted.is_empty() {
            return code::NOT_FOUND;
        }
        // SAFETY: the caller's word.
        unsafe {
            put(value_type, 1);
            match fill(wanted, count, rows) {
                code::INSUFFICIENT_SIZE if rows.is_null() => code::SUCCESS,
                code => code,
            }
        }
    })
}

unsafe fn retired_pages(
    symbol: &'static str,
    device: Device,
    cause: u32,
    count: *mut u32,
    addresses: *mut u64,
    timestamps: Option<*mut u64>,
) -> Code {
    let args = [cause];
    // SAFETY: the caller's word.
    let phase = unsafe { phase(count, addresses) };
    SHARED.device(Call { symbol, args: &args, phase }, device, |_, _, target| {
        let newest = Call::with("nvmlDeviceGetRetiredPages_v2", &args);
        let Some(value) = target.device.value(&newest) else { return code::NOT_SUPPORTED };
        let pages = numbers(value);
        let times = vec![1_700_000_000; pages.len()];
        // SAFETY: the caller's word; the count is put back for the second list.
        unsafe {
            let room = if count.is_null() { 0 } else { count.read() };
            let filled = fill(pages, count, addresses);
            match timestamps {
                Some(timestamps) if filled == code::SUCCESS && room > 0 => {
                    count.write(room);
                    fill(times, count, timestamps)
                }
                _ => filled,
            }
        }
    })
}

/// # Safety
///
/// The pointers are null or valid for what the count says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetRetiredPages(
    device: Device,
    cause: u32,
    count: *mut u32,
    addresses: *mut u64,
) -> Code {
    // SAFETY: the caller's word.
    unsafe { retired_pages("nvmlDeviceGetRetiredPages", device, cause, count, addresses, None) }
}

/// # Safety
///
/// The pointers are null or valid for what the count says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetRetiredPages_v2(
    device: Device,
    cause: u32,
    count: *mut u32,
    addresses: *mut u64,
    timestamps: *mut u64,
) -> Code {
    // SAFETY: the caller's word.
    unsafe {
        retired_pages("nvmlDeviceGetRetiredPages_v2", device, cause, count, addresses, Some(timestamps))
    }
}
