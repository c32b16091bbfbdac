//! Readings whose answer is one number for each out-parameter.

use super::{Code, Device, put, reading};
use crate::state::{Call, SHARED, code};

reading! {
    nvmlDeviceGetEncoderUtilization() -> percent: u32, period: u32;
    nvmlDeviceGetDecoderUtilization() -> percent: u32, period: u32;
    nvmlDeviceGetJpgUtilization() -> percent: u32, period: u32;
    nvmlDeviceGetOfaUtilization() -> percent: u32, period: u32;
    nvmlDeviceGetTemperature(sensor) -> celsius: u32;
    nvmlDeviceGetTemperatureThreshold(threshold) -> celsius: u32;
    nvmlDeviceGetPowerUsage() -> milliwatts: u32;
    nvmlDeviceGetEnforcedPowerLimit() -> milliwatts: u32;
    nvmlDeviceGetPowerManagementLimit() -> milliwatts: u32;
    nvmlDeviceGetPowerManagementDefaultLimit() -> milliwatts: u32;
    nvmlDeviceGetPowerManagementLimitConstraints() -> least: u32, most: u32;
    nvmlDeviceGetTotalEnergyConsumption() -> millijoules: u64;
    nvmlDeviceGetClockInfo(clock) -> megahertz: u32;
    nvmlDeviceGetMaxClockInfo(clock) -> megahertz: u32;
    nvmlDeviceGetClock(clock, id) -> megahertz: u32;
    nvmlDeviceGetPerformanceState() -> state: u32;
    nvmlDeviceGetNumFans() -> count: u32;
    nvmlDeviceGetFanSpeed_v2(fan) -> percent: u32;
    nvmlDeviceGetPcieThroughput(counter) -> kilobytes: u32;
    nvmlDeviceGetCurrPcieLinkGeneration() -> generation: u32;
    nvmlDeviceGetCurrPcieLinkWidth() -> lanes: u32;
    nvmlDeviceGetMaxPcieLinkGeneration() -> generation: u32;
    nvmlDeviceGetMaxPcieLinkWidth() -> lanes: u32;
    nvmlDeviceGetPcieReplayCounter() -> count: u32;
    nvmlDeviceGetPcieSpeed() -> megabits: u32;
    nvmlDeviceGetPcieLinkMaxSpeed() -> speed: u32;
    nvmlDeviceGetNvLinkState(link) -> active: u32;
    nvmlDeviceGetNvLinkVersion(link) -> version: u32;
    nvmlDeviceGetNvLinkErrorCounter(link, counter) -> count: u64;
    nvmlDeviceGetNvLinkCapability(link, capability) -> able: u32;
    nvmlDeviceGetNvLinkRemoteDeviceType(link) -> kind: u32;
    nvmlDeviceGetEccMode() -> current: u32, pending: u32;
    nvmlDeviceGetTotalEccErrors(error, counter) -> count: u64;
    nvmlDeviceGetMemoryErrorCounter(error, counter, place) -> count: u64;
    nvmlDeviceGetRetiredPagesPendingStatus() -> pending: u32;
    nvmlDeviceGetRemappedRows() -> corrected: u32, uncorrected: u32, pending: u32, failed: u32;
    nvmlDeviceGetMigMode() -> current: u32, pending: u32;
}

/// A plain struct without a version, of as many numbers as the value has.
macro_rules! structure {
    ($($name:ident($($arg:ident),*) -> $type:ty;)*) => {$(
        /// # Safety
        ///
        /// The out-pointer is null or valid.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(device: Device, $($arg: u32,)* out: *mut $type) -> Code {
            let args = [$($arg),*];
            let call = || Call::with(stringify!($name), &args);
            SHARED.device(call(), device, |state, _, target| {
                if out.is_null() {
                    return state.misused(&call(), "a null pointer", code::INVALID_ARGUMENT);
                }
                match super::answer(&call(), &target) {
                    // SAFETY: the caller's word.
                    Ok(values) => unsafe { put(out, values.map(super::Narrow::narrow)) },
                    Err(code) => code,
                }
            })
        }
    )*};
}

structure! {
    // gpu, memory
    nvmlDeviceGetUtilizationRates() -> [u32; 2];
    // total, free, used
    nvmlDeviceGetMemoryInfo() -> [u64; 3];
    // total, free, used
    nvmlDeviceGetBAR1MemoryInfo() -> [u64; 3];
    // reference time µs, violation time ns
    nvmlDeviceGetViolationStatus(policy) -> [u64; 2];
    // max, high, partial, low, none
    nvmlDeviceGetRowRemapperHistogram() -> [u32; 5];
}

/// The older and the newer name of one reading: a value or a fault under the older name is good for both.
macro_rules! renamed {
    ($($new:ident, $old:ident;)*) => {$(
        reading! { $old() -> mask: u64; }

        /// # Safety
        ///
        /// The out-pointer is null or valid.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $new(device: Device, out: *mut u64) -> Code {
            let call = || Call::of(stringify!($new));
            SHARED.device(call(), device, |state, scenario, target| {
                let fault = state.part_fault(scenario, &target.device.uuid, &Call::of(stringify!($old)));
                if fault != code::SUCCESS {
                    return fault;
                }
                let of = |name| super::answer::<1>(&Call::of(name), &target);
                match of(stringify!($new)).or_else(|_| of(stringify!($old))) {
                    // SAFETY: the caller's word.
                    Ok([mask]) => unsafe { put(out, mask) },
                    Err(code) => code,
                }
            })
        }
    )*};
}

renamed! {
    nvmlDeviceGetCurrentClocksEventReasons, nvmlDeviceGetCurrentClocksThrottleReasons;
    nvmlDeviceGetSupportedClocksEventReasons, nvmlDeviceGetSupportedClocksThrottleReasons;
}
