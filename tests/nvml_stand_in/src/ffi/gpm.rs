//! GPM: samples that are taken, and metrics of the time between two.
//!
//! Metrics come from the scenario as `gpm/<id>` of the device that both samples are of. Only the entries that the
//! caller counts are written: the array behind them differs from header to header.

use std::ffi::c_char;

use super::{Code, Device, put};
use crate::state::{Call, SHARED, Sample, State, Target, code};

/// `nvmlGpmMetric_t`.
#[repr(C)]
pub struct Metric {
    id: u32,
    code: Code,
    value: f64,
    names: [*const c_char; 3],
}

/// `nvmlGpmMetricsGet_t`.
#[repr(C)]
pub struct MetricsGet {
    version: u32,
    count: u32,
    older: usize,
    newer: usize,
    metrics: [Metric; 210],
}

const _: () = assert!(size_of::<Metric>() == 40 && size_of::<MetricsGet>() == 8424);

/// # Safety
///
/// The out-pointer is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmSampleAlloc(out: *mut usize) -> Code {
    SHARED.global(Call::of("nvmlGpmSampleAlloc"), false, |state| {
        let sample = state.object();
        state.samples.insert(sample, Sample::default());
        // SAFETY: the caller's word.
        unsafe { put(out, sample) }
    })
}

/// Freeing what is not there is misuse, also after shutdown, which frees everything.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlGpmSampleFree(sample: usize) -> Code {
    let call = || Call::of("nvmlGpmSampleFree");
    SHARED.global(call(), true, |state| match state.samples.remove(&sample) {
        Some(_) => code::SUCCESS,
        None => state.misused(&call(), "a GPM sample that does not exist", code::INVALID_ARGUMENT),
    })
}

fn take(
    call: &Call<'_>,
    state: &mut State,
    target: &Target<'_>,
    instance: Option<u32>,
    sample: usize,
) -> Code {
    let supported = target.device.values.get("nvmlGpmQueryDeviceSupport").and_then(super::number);
    if supported != Some(1) {
        return code::NOT_SUPPORTED;
    }
    let order = state.next();
    match state.samples.get_mut(&sample) {
        Some(sample) => {
            *sample = Sample { of: Some((target.device.uuid.clone(), instance)), order };
            code::SUCCESS
        }
        None => state.misused(call, "a GPM sample that does not exist", code::INVALID_ARGUMENT),
    }
}

/// On a GPU.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlGpmSampleGet(device: Device, sample: usize) -> Code {
    let call = || Call::of("nvmlGpmSampleGet");
    SHARED.device(call(), device, |state, _, target| take(&call(), state, &target, None, sample))
}

/// On the GPU, of one of its GPU instances.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlGpmMigSampleGet(device: Device, instance: u32, sample: usize) -> Code {
    let args = [instance];
    let call = || Call::with("nvmlGpmMigSampleGet", &args);
    SHARED.device(call(), device, |state, _, target| {
        let mut instances = target.device.mig.iter().flatten();
        if !instances.any(|mig| mig.gpu_instance == Some(instance)) {
            return code::INVALID_ARGUMENT;
        }
        take(&call(), state, &target, Some(instance), sample)
    })
}

/// # Safety
///
/// The pointer is null or valid, for as many metrics as it counts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmMetricsGet(out: *mut MetricsGet) -> Code {
    let call = || Call::of("nvmlGpmMetricsGet");
    SHARED.global(call(), false, |state| {
        if out.is_null() {
            return state.misused(&call(), "a null pointer", code::INVALID_ARGUMENT);
        }
        // SAFETY: not null, the caller's word; the metrics behind the count are not touched.
        let (version, count, older, newer) = unsafe {
            let version = (&raw const (*out).version).read();
            let count = (&raw const (*out).count).read();
            (version, count, (&raw const (*out).older).read(), (&raw const (*out).newer).read())
        };
        if version != 1 {
            let what = format!("struct version {version:#x}");
            return state.misused(&call(), &what, code::ARGUMENT_VERSION_MISMATCH);
        }
        let (Some(older), Some(newer)) = (state.samples.get(&older), state.samples.get(&newer)) else {
            return state.misused(&call(), "a GPM sample that does not exist", code::INVALID_ARGUMENT);
        };
        let (older, newer) = (older.clone(), newer.clone());
        let Some((uuid, instance)) = newer.of.clone().filter(|_| older.of == newer.of) else {
            return state.misused(
                &call(),
                "samples of different things, or not taken",
                code::INVALID_ARGUMENT,
            );
        };
        if older.order >= newer.order {
            return state.misused(&call(), "the older sample is not the older one", code::INVALID_ARGUMENT);
        }
        let scenario = std::mem::take(&mut state.scenario);
        let device = scenario.find(&uuid).and_then(|found| match instance {
            Some(id) => found.device.mig.iter().flatten().find(|mig| mig.gpu_instance == Some(id)),
            None => Some(found.device),
        });
        let answer = match device {
            Some(device) => {
                for at in 0..(count as usize).min(210) {
                    // SAFETY: below `count`, the caller's word.
                    let metric = unsafe { &mut *(&raw mut (*out).metrics).cast::<Metric>().add(at) };
                    let key = format!("gpm/{}", metric.id);
                    state.count(&key);
                    let args = [metric.id];
                    let fault = state.part_fault(&scenario, &device.uuid, &Call::with("gpm", &args));
                    let value = device.values.get(&key).and_then(serde_json::Value::as_f64);
                    metric.code = match (fault, value) {
                        (code::SUCCESS, None) => code::NOT_SUPPORTED,
                        (fault, _) => fault,
                    };
                    let good = value.filter(|_| metric.code == code::SUCCESS);
                    metric.value = good.unwrap_or(f64::NAN);
                }
                code::SUCCESS
            }
            None => code::GPU_IS_LOST,
        };
        state.scenario = scenario;
        answer
    })
}
