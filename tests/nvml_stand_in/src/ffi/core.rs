//! Start, end, the system as a whole, and who the devices are.

use std::ffi::{CStr, c_char, c_int};

use serde_json::Value;

use super::{Code, Device, Narrow, number, put, put_text, reading, text};
use crate::scenario::Scenario;
use crate::state::{Call, SHARED, State, code};

/// `nvmlPciInfo_t`.
#[repr(C)]
pub struct PciInfo {
    legacy: [u8; 16],
    domain: u32,
    bus: u32,
    device: u32,
    device_id: u32,
    subsystem_id: u32,
    id: [u8; 32],
}

const _: () = assert!(size_of::<PciInfo>() == 68);

impl PciInfo {
    /// From `00000000:19:00.0`; `None` if that is not what the text looks like.
    pub(super) fn parse(text: &str, ids: [u32; 2]) -> Option<PciInfo> {
        let (domain, rest) = text.split_once(':')?;
        let (bus, rest) = rest.split_once(':')?;
        let (device, _) = rest.split_once('.')?;
        let hex = |digits| u32::from_str_radix(digits, 16).ok();
        let mut info = PciInfo {
            legacy: [0; 16],
            domain: hex(domain)?,
            bus: hex(bus)?,
            device: hex(device)?,
            device_id: ids[0],
            subsystem_id: ids[1],
            id: [0; 32],
        };
        info.id.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        let legacy = format!("{:04X}:{bus}:{rest}", info.domain & 0xFFFF);
        info.legacy.get_mut(..legacy.len())?.copy_from_slice(legacy.as_bytes());
        Some(info)
    }
}

fn init(symbol: &'static str, args: &[u32]) -> Code {
    SHARED.global(Call::with(symbol, args), true, State::init)
}

/// Counted: as many shutdowns end it.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> Code {
    init("nvmlInit_v2", &[])
}

/// Flags: 1 no GPU is fine, 2 attach none.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInitWithFlags(flags: u32) -> Code {
    init("nvmlInitWithFlags", &[flags])
}

/// The last one frees what is left and says so in the misuse.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> Code {
    let call = || Call::of("nvmlShutdown");
    SHARED.global(call(), true, |state| state.shutdown(&call()))
}

/// Texts of all codes, for ever valid.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(result: Code) -> *const c_char {
    let text = match result {
        0 => c"Success",
        1 => c"Uninitialized",
        2 => c"Invalid Argument",
        3 => c"Not Supported",
        4 => c"Insufficient Permissions",
        5 => c"Already Initialized",
        6 => c"Not Found",
        7 => c"Insufficient Size",
        8 => c"Insufficient External Power",
        9 => c"Driver Not Loaded",
        10 => c"Timeout",
        11 => c"Interrupt Request Issue",
        12 => c"NVML Shared Library Not Found",
        13 => c"Function Not Found",
        14 => c"Corrupted infoROM",
        15 => c"GPU is lost",
        16 => c"GPU requires reset",
        17 => c"GPU access blocked by the operating system",
        18 => c"Driver/library version mismatch",
        _ => c"Unknown Error",
    };
    text.as_ptr()
}

/// A text of the system: the driver version has a field of its own, the rest are values.
unsafe fn system_text(symbol: &'static str, buffer: *mut c_char, length: u32) -> Code {
    SHARED.global(Call::of(symbol), false, |state| {
        let given = state.scenario.values.get(symbol).and_then(Value::as_str);
        let text = given.or_else(|| {
            let version = &state.scenario.driver_version;
            (symbol == "nvmlSystemGetDriverVersion" && !version.is_empty()).then_some(version.as_str())
        });
        match text {
            // SAFETY: the caller's word.
            Some(text) => unsafe { put_text(text, buffer, length) },
            None => code::NOT_SUPPORTED,
        }
    })
}

/// # Safety
///
/// The buffer is null or has the length said.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(buffer: *mut c_char, length: u32) -> Code {
    // SAFETY: the caller's word.
    unsafe { system_text("nvmlSystemGetDriverVersion", buffer, length) }
}

/// # Safety
///
/// The buffer is null or has the length said.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetNVMLVersion(buffer: *mut c_char, length: u32) -> Code {
    // SAFETY: the caller's word.
    unsafe { system_text("nvmlSystemGetNVMLVersion", buffer, length) }
}

/// # Safety
///
/// The buffer is null or has the length said.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetProcessName(pid: u32, buffer: *mut c_char, length: u32) -> Code {
    SHARED.global(Call::with("nvmlSystemGetProcessName", &[pid]), false, |state| {
        let name = state.scenario.values.get(&format!("nvmlSystemGetProcessName/{pid}"));
        match name.and_then(Value::as_str) {
            // SAFETY: the caller's word.
            Some(name) => unsafe { put_text(name, buffer, length) },
            None => code::NOT_FOUND,
        }
    })
}

/// A number of the system.
unsafe fn system_number<T: Narrow>(symbol: &'static str, out: *mut T) -> Code {
    SHARED.global(Call::of(symbol), false, |state| match state.scenario.values.get(symbol).and_then(number) {
        // SAFETY: the caller's word.
        Some(bits) => unsafe { put(out, T::narrow(bits)) },
        None => code::NOT_SUPPORTED,
    })
}

/// # Safety
///
/// The out-pointer is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetCudaDriverVersion(out: *mut c_int) -> Code {
    // SAFETY: the caller's word.
    unsafe { system_number("nvmlSystemGetCudaDriverVersion", out) }
}

/// # Safety
///
/// The out-pointer is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(out: *mut c_int) -> Code {
    // SAFETY: the caller's word.
    unsafe { system_number("nvmlSystemGetCudaDriverVersion_v2", out) }
}

/// How many GPUs there are, or what the scenario says of it.
///
/// # Safety
///
/// The out-pointer is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(out: *mut u32) -> Code {
    SHARED.global(Call::of("nvmlDeviceGetCount_v2"), false, |state| {
        let said = state.scenario.values.get("nvmlDeviceGetCount_v2").and_then(number);
        let count = said.unwrap_or(state.scenario.devices.len() as u64);
        // SAFETY: the caller's word.
        unsafe { put(out, count as u32) }
    })
}

/// Writes the handle of the device that `find` picks, unless a fault of that device forbids it.
unsafe fn give_handle(
    call: &Call<'_>,
    state: &mut State,
    out: *mut Device,
    none: Code,
    find: impl Fn(&Scenario) -> Option<String>,
) -> Code {
    let Some(uuid) = find(&state.scenario) else { return none };
    let scenario = std::mem::take(&mut state.scenario);
    let mut fault = state.part_fault(&scenario, &uuid, call);
    if fault == code::SUCCESS {
        fault = state.part_fault(&scenario, &uuid, &Call::of("*"));
    }
    state.scenario = scenario;
    if fault != code::SUCCESS {
        return fault;
    }
    let handle = state.handle_of(&uuid);
    // SAFETY: the caller's word.
    unsafe { put(out, handle) }
}

/// # Safety
///
/// The out-pointer is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: u32, out: *mut Device) -> Code {
    let args = [index];
    let call = || Call::with("nvmlDeviceGetHandleByIndex_v2", &args);
    SHARED.global(call(), false, |state| {
        let plain = Call::of("nvmlDeviceGetHandleByIndex_v2");
        // SAFETY: the caller's word.
        unsafe {
            give_handle(&plain, state, out, code::INVALID_ARGUMENT, |scenario| {
                scenario.devices.get(index as usize).map(|device| device.uuid.clone())
            })
        }
    })
}

/// Also finds MIG instances.
///
/// # Safety
///
/// The text is null or ends with a NUL; the out-pointer is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, out: *mut Device) -> Code {
    let call = || Call::of("nvmlDeviceGetHandleByUUID");
    SHARED.global(call(), false, |state| {
        if uuid.is_null() {
            return state.misused(&call(), "a null pointer", code::INVALID_ARGUMENT);
        }
        // SAFETY: not null, and the caller's word.
        let uuid = unsafe { CStr::from_ptr(uuid) }.to_string_lossy().into_owned();
        // SAFETY: the caller's word.
        unsafe {
            give_handle(&call(), state, out, code::NOT_FOUND, |scenario| {
                scenario.find(&uuid).map(|found| found.device.uuid.clone())
            })
        }
    })
}

/// # Safety
///
/// The text is null or ends with a NUL; the out-pointer is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByPciBusId_v2(id: *const c_char, out: *mut Device) -> Code {
    let call = || Call::of("nvmlDeviceGetHandleByPciBusId_v2");
    SHARED.global(call(), false, |state| {
        if id.is_null() {
            return state.misused(&call(), "a null pointer", code::INVALID_ARGUMENT);
        }
        // SAFETY: not null, and the caller's word.
        let id = unsafe { CStr::from_ptr(id) }.to_string_lossy().to_lowercase();
        let bus = |device: &crate::scenario::Device| {
            let value = device.values.get("nvmlDeviceGetPciInfo_v3")?;
            let text = value.as_str().or_else(|| value.as_array()?.first()?.as_str())?;
            Some(text.to_lowercase())
        };
        // SAFETY: the caller's word.
        unsafe {
            give_handle(&call(), state, out, code::NOT_FOUND, |scenario| {
                let found = scenario.devices.iter().find(|device| bus(device).as_ref() == Some(&id))?;
                Some(found.uuid.clone())
            })
        }
    })
}

/// # Safety
///
/// The buffer is null or has the length said.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(device: Device, buffer: *mut c_char, length: u32) -> Code {
    SHARED.device(Call::of("nvmlDeviceGetUUID"), device, |_, _, target| {
        // SAFETY: the caller's word.
        unsafe { put_text(&target.device.uuid, buffer, length) }
    })
}

/// The position among the GPUs; of a MIG instance, its slot.
///
/// # Safety
///
/// The out-pointer is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetIndex(device: Device, out: *mut u32) -> Code {
    SHARED.device(Call::of("nvmlDeviceGetIndex"), device, |_, _, target| {
        let uuid = &target.device.uuid;
        let slot = target.parent.and_then(|gpu| {
            gpu.mig.iter().position(|slot| slot.as_ref().is_some_and(|instance| instance.uuid == *uuid))
        });
        // SAFETY: the caller's word.
        unsafe { put(out, slot.unwrap_or(target.index) as u32) }
    })
}

/// The value is the bus ID, or a list of the bus ID, the device ID and the subsystem ID.
///
/// # Safety
///
/// The out-pointer is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(device: Device, out: *mut PciInfo) -> Code {
    let call = || Call::of("nvmlDeviceGetPciInfo_v3");
    SHARED.device(call(), device, |_, _, target| {
        let Some(value) = target.device.value(&call()) else { return code::NOT_SUPPORTED };
        let members = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        let id = |at: usize| members.get(at).and_then(number).unwrap_or_default() as u32;
        let text = members.first().and_then(Value::as_str).unwrap_or_default();
        match PciInfo::parse(text, [id(1), id(2)]) {
            // SAFETY: the caller's word.
            Some(info) => unsafe { put(out, info) },
            None => code::NOT_SUPPORTED,
        }
    })
}

text! {
    nvmlDeviceGetName;
    nvmlDeviceGetSerial;
    nvmlDeviceGetBoardPartNumber;
    nvmlDeviceGetVbiosVersion;
}

reading! {
    nvmlDeviceGetMinorNumber() -> out: u32;
    nvmlDeviceGetArchitecture() -> out: u32;
    nvmlDeviceGetBrand() -> out: u32;
    nvmlDeviceGetVirtualizationMode() -> out: u32;
    nvmlDeviceGetPersistenceMode() -> out: u32;
    nvmlDeviceGetComputeMode() -> out: u32;
    nvmlDeviceGetCudaComputeCapability() -> major: c_int, minor: c_int;
}
