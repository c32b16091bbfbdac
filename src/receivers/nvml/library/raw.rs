//! The calls that `nvml-wrapper` has no method for, and the one place with `unsafe` code.
//!
//! Every function here is safe to call: handles cannot be made elsewhere, buffers have the size that is told to the
//! driver, and what must be given back is given back on drop. A symbol that the library lacks is an error, never a
//! panic. A handle outlives its device without harm: the driver then answers with an error.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_uint};
use std::sync::Arc;

use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings as sys;

/// The scope of a field that means all links together.
pub(super) const ALL_LINKS: u32 = u32::MAX;

type Result<T> = std::result::Result<T, NvmlError>;

/// A device or MIG instance as the library knows it, without the lifetime of [`Device`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Handle(sys::nvmlDevice_t);

// SAFETY: the library is thread-safe by its documentation, and a handle is only ever given to it, never followed.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Handle {
    /// The handle within a [`Device`].
    pub(super) fn of(device: &Device<'_>) -> Self {
        // SAFETY: reads a pointer. It is used as a handle of the same library only: every caller keeps the handle
        // together with the `Nvml` it came from.
        Handle(unsafe { device.handle() })
    }

    /// The methods of `nvml-wrapper` for this device.
    pub(super) fn device<'nvml>(self, nvml: &'nvml Nvml) -> Device<'nvml> {
        // SAFETY: the pointer came out of this library, which stays loaded and initialised as long as `nvml` lives.
        unsafe { Device::new(self.0, nvml) }
    }
}

/// One number out of a C function with the arguments `(handle, pointer to the number)`.
macro_rules! one {
    ($(#[doc = $doc:literal])* $name:ident: $symbol:ident -> $ty:ty) => {
        $(#[doc = $doc])*
        pub(super) fn $name(nvml: &Nvml, handle: Handle) -> Result<$ty> {
            let call = nvml_sym(nvml.lib().$symbol.as_ref())?;
            let mut value: $ty = 0;
            // SAFETY: the symbol has this signature, and the pointer is to a number that outlives the call.
            nvml_try(unsafe { call(handle.0, &raw mut value) })?;
            Ok(value)
        }
    };
}

one! {
    /// The number of the GPU instance of a MIG handle.
    gpu_instance: nvmlDeviceGetGpuInstanceId -> c_uint
}
one! {
    /// The number of the compute instance of a MIG handle.
    compute_instance: nvmlDeviceGetComputeInstanceId -> c_uint
}
one! {
    /// Bits of what holds the clocks back.
    event_reasons: nvmlDeviceGetCurrentClocksEventReasons -> u64
}
one! {
    /// Bits of what the device can tell of that.
    supported_event_reasons: nvmlDeviceGetSupportedClocksEventReasons -> u64
}
one! {
    /// Bits of the events that the device can tell of.
    event_types: nvmlDeviceGetSupportedEventTypes -> u64
}

/// A percentage and how long it was measured, in microseconds.
macro_rules! engine {
    ($(#[doc = $doc:literal])* $name:ident: $symbol:ident) => {
        $(#[doc = $doc])*
        pub(super) fn $name(nvml: &Nvml, handle: Handle) -> Result<u32> {
            let call = nvml_sym(nvml.lib().$symbol.as_ref())?;
            let (mut percent, mut micros): (c_uint, c_uint) = (0, 0);
            // SAFETY: the symbol has this signature, and both pointers are to numbers that outlive the call.
            nvml_try(unsafe { call(handle.0, &raw mut percent, &raw mut micros) })?;
            Ok(percent)
        }
    };
}

engine! {
    /// Percent of the time that the JPEG engine was busy.
    jpeg_utilization: nvmlDeviceGetJpgUtilization
}
engine! {
    /// Percent of the time that the optical flow engine was busy.
    ofa_utilization: nvmlDeviceGetOfaUtilization
}

/// A value from [`field_values`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    /// Of an unsigned type; all ones of its type is `None` instead.
    Unsigned(u64),
    /// Of a signed type.
    Signed(i64),
    /// A double.
    Double(f64),
}

/// Which field of a device, and of which part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FieldKey {
    /// The field's number, as this driver counts.
    pub(super) id: u32,
    /// A link, a board, or [`ALL_LINKS`].
    pub(super) scope: u32,
}

/// Reads several fields at once. The answers stand in the order of the questions; each may have failed by itself.
/// `None` is a value that the driver says is not available, or one of a type that is not known.
///
/// # Errors
/// When the call as a whole failed.
pub(super) fn field_values(
    nvml: &Nvml,
    handle: Handle,
    keys: &[FieldKey],
) -> Result<Vec<Result<Option<Number>>>> {
    let call = nvml_sym(nvml.lib().nvmlDeviceGetFieldValues.as_ref())?;
    let mut values: Vec<sys::nvmlFieldValue_t> = keys
        .iter()
        .map(|key| sys::nvmlFieldValue_t {
            fieldId: key.id,
            scopeId: key.scope,
            timestamp: 0,
            latencyUsec: 0,
            valueType: 0,
            // What a library that passes a field over leaves behind must not look like a value.
            nvmlReturn: sys::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED,
            value: sys::nvmlValue_t { ullVal: 0 },
        })
        .collect();
    let count = c_int::try_from(values.len()).map_err(|_| NvmlError::InvalidArg)?;
    // SAFETY: the pointer is to `count` initialised entries that outlive the call.
    nvml_try(unsafe { call(handle.0, count, values.as_mut_ptr()) })?;
    Ok(values
        .iter()
        .map(|answer| {
            nvml_try(answer.nvmlReturn)?;
            // SAFETY: all members of the union are plain numbers of at most eight bytes, all of which were
            // initialised by us; every pattern of bits is a value of each of them.
            let bits = unsafe { answer.value.ullVal };
            Ok(number(answer.valueType, bits))
        })
        .collect())
}

/// What a value's type and bits mean. Only as many bits count as the type has.
pub(super) fn number(kind: u32, bits: u64) -> Option<Number> {
    let bytes = bits.to_ne_bytes();
    let [a, b, c, d, ..] = bytes;
    let four = [a, b, c, d];
    match kind {
        sys::nvmlValueType_enum_NVML_VALUE_TYPE_DOUBLE => Some(Number::Double(f64::from_bits(bits))),
        sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT => {
            let value = u32::from_ne_bytes(four);
            (value != u32::MAX).then_some(Number::Unsigned(value.into()))
        }
        sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG
        | sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG => {
            (bits != u64::MAX).then_some(Number::Unsigned(bits))
        }
        sys::nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_LONG_LONG => {
            Some(Number::Signed(i64::from_ne_bytes(bytes)))
        }
        sys::nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_INT => {
            Some(Number::Signed(i32::from_ne_bytes(four).into()))
        }
        sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_SHORT => {
            let value = u16::from_ne_bytes([a, b]);
            (value != u16::MAX).then_some(Number::Unsigned(value.into()))
        }
        _ => None,
    }
}

/// Memory as drivers before 510 tell it: `used` has the driver's own part in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct MemoryV1 {
    /// Bytes.
    pub(super) total: u64,
    /// Bytes.
    pub(super) free: u64,
    /// Bytes.
    pub(super) used: u64,
}

/// See [`MemoryV1`].
pub(super) fn memory_v1(nvml: &Nvml, handle: Handle) -> Result<MemoryV1> {
    let call = nvml_sym(nvml.lib().nvmlDeviceGetMemoryInfo.as_ref())?;
    let mut memory = sys::nvmlMemory_t { total: 0, free: 0, used: 0 };
    // SAFETY: the symbol has this signature, and the pointer is to a struct that outlives the call.
    nvml_try(unsafe { call(handle.0, &raw mut memory) })?;
    Ok(MemoryV1 { total: memory.total, free: memory.free, used: memory.used })
}

/// Degrees to the slowdown.
pub(super) fn margin(nvml: &Nvml, handle: Handle) -> Result<i32> {
    let call = nvml_sym(nvml.lib().nvmlDeviceGetMarginTemperature.as_ref())?;
    let mut answer = sys::nvmlMarginTemperature_t {
        version: version::<sys::nvmlMarginTemperature_t>(1),
        marginTemperature: 0,
    };
    // SAFETY: the pointer is to a struct of the size that its version tells, and outlives the call.
    nvml_try(unsafe { call(handle.0, &raw mut answer) })?;
    Ok(answer.marginTemperature)
}

/// Degrees of the GPU, by the call that replaces the one `nvml-wrapper` has.
pub(super) fn temperature(nvml: &Nvml, handle: Handle) -> Result<i32> {
    let call = nvml_sym(nvml.lib().nvmlDeviceGetTemperatureV.as_ref())?;
    let mut answer = sys::nvmlTemperature_t {
        version: version::<sys::nvmlTemperature_t>(1),
        sensorType: sys::nvmlTemperatureSensors_enum_NVML_TEMPERATURE_GPU,
        temperature: 0,
    };
    // SAFETY: the pointer is to a struct of the size that its version tells, and outlives the call.
    nvml_try(unsafe { call(handle.0, &raw mut answer) })?;
    Ok(answer.temperature)
}

/// Banks of memory by the spare rows they have left: max, high, partial, low, none.
pub(super) fn spare_rows(nvml: &Nvml, handle: Handle) -> Result<[u32; 5]> {
    let call = nvml_sym(nvml.lib().nvmlDeviceGetRowRemapperHistogram.as_ref())?;
    let mut banks = sys::nvmlRowRemapperHistogramValues_t { max: 0, high: 0, partial: 0, low: 0, none: 0 };
    // SAFETY: the symbol has this signature, and the pointer is to a struct that outlives the call.
    nvml_try(unsafe { call(handle.0, &raw mut banks) })?;
    Ok([banks.max, banks.high, banks.partial, banks.low, banks.none])
}

/// The state of the registration with the fabric.
pub(super) fn fabric_state(nvml: &Nvml, handle: Handle) -> Result<u32> {
    let call = nvml_sym(nvml.lib().nvmlDeviceGetGpuFabricInfoV.as_ref())?;
    let mut answer = sys::nvmlGpuFabricInfo_v3_t {
        // The second version is the first that drivers have behind this symbol; it ends within the third.
        version: version::<sys::nvmlGpuFabricInfo_v2_t>(2),
        clusterUuid: [0; 16],
        status: 0,
        cliqueId: 0,
        state: 0,
        healthMask: 0,
        healthSummary: 0,
    };
    // SAFETY: the pointer is to a struct at least as large as its version tells, and outlives the call.
    nvml_try(unsafe { call(handle.0, &raw mut answer) })?;
    Ok(answer.state.into())
}

/// The newest CUDA that the driver can run, such as 12040 for 12.4. Needs no CUDA library, unlike the newer call.
pub(super) fn cuda_version(nvml: &Nvml) -> Result<i32> {
    let call = nvml_sym(nvml.lib().nvmlSystemGetCudaDriverVersion.as_ref())?;
    let mut version: c_int = 0;
    // SAFETY: the symbol has this signature, and the pointer is to a number that outlives the call.
    nvml_try(unsafe { call(&raw mut version) })?;
    Ok(version)
}

/// Whether the library can be closed again. One that cannot makes `nvml-wrapper` panic on drop.
pub(super) fn can_shut_down(nvml: &Nvml) -> bool {
    nvml.lib().nvmlShutdown.is_ok()
}

/// What the driver waits with until somebody asks for events.
#[derive(Debug)]
pub(super) struct EventSet {
    nvml: Arc<Nvml>,
    set: sys::nvmlEventSet_t,
}

/// One event as the driver tells it.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawEvent {
    /// The device, if the driver names one.
    pub(super) device: Option<Handle>,
    /// What happened, in bits.
    pub(super) kind: u64,
    /// The code of an XID.
    pub(super) data: u64,
    /// The GPU instance.
    pub(super) gpu_instance: Option<u32>,
    /// The compute instance.
    pub(super) compute_instance: Option<u32>,
}

impl EventSet {
    /// An empty set.
    pub(super) fn new(nvml: Arc<Nvml>) -> Result<Self> {
        nvml_sym(nvml.lib().nvmlEventSetFree.as_ref())?;
        let mut set: sys::nvmlEventSet_t = std::ptr::null_mut();
        {
            let call = nvml_sym(nvml.lib().nvmlEventSetCreate.as_ref())?;
            // SAFETY: the symbol has this signature, and the pointer outlives the call.
            nvml_try(unsafe { call(&raw mut set) })?;
        }
        Ok(EventSet { nvml, set })
    }

    /// Adds events of a device. After an error other than "not supported" the set must be made anew.
    pub(super) fn register(&self, handle: Handle, kinds: u64) -> Result<()> {
        let call = nvml_sym(self.nvml.lib().nvmlDeviceRegisterEvents.as_ref())?;
        // SAFETY: handle and set are of this library, and the set was not freed.
        nvml_try(unsafe { call(handle.0, kinds, self.set) })
    }

    /// Waits at most so many milliseconds for an event.
    pub(super) fn wait(&self, milliseconds: u32) -> Result<RawEvent> {
        let call = nvml_sym(self.nvml.lib().nvmlEventSetWait_v2.as_ref())?;
        let mut data = sys::nvmlEventData_t {
            device: std::ptr::null_mut(),
            eventType: 0,
            eventData: 0,
            gpuInstanceId: u32::MAX,
            computeInstanceId: u32::MAX,
        };
        // SAFETY: the set was not freed, and the pointer is to a struct that outlives the call.
        nvml_try(unsafe { call(self.set, &raw mut data, milliseconds) })?;
        let instance = |id: u32| (id != u32::MAX).then_some(id);
        Ok(RawEvent {
            device: (!data.device.is_null()).then_some(Handle(data.device)),
            kind: data.eventType,
            data: data.eventData,
            gpu_instance: instance(data.gpuInstanceId),
            compute_instance: instance(data.computeInstanceId),
        })
    }
}

impl Drop for EventSet {
    fn drop(&mut self) {
        if let Ok(free) = &self.nvml.lib().nvmlEventSetFree {
            // SAFETY: the set was made by this library, and nobody else frees it.
            let _ = unsafe { free(self.set) };
        }
    }
}

/// The profiling counters of one moment.
#[derive(Debug)]
pub(super) struct GpmSample {
    nvml: Arc<Nvml>,
    sample: sys::nvmlGpmSample_t,
}

// SAFETY: the library does not care which thread works on a sample, as long as only one does at a time, which `&mut`
// and the missing `Sync` see to.
unsafe impl Send for GpmSample {}

impl GpmSample {
    /// Room for counters.
    pub(super) fn new(nvml: Arc<Nvml>) -> Result<Self> {
        nvml_sym(nvml.lib().nvmlGpmSampleFree.as_ref())?;
        let mut sample: sys::nvmlGpmSample_t = std::ptr::null_mut();
        {
            let call = nvml_sym(nvml.lib().nvmlGpmSampleAlloc.as_ref())?;
            // SAFETY: the symbol has this signature, and the pointer outlives the call.
            nvml_try(unsafe { call(&raw mut sample) })?;
        }
        Ok(GpmSample { nvml, sample })
    }

    /// Takes the counters of a device, or of one of its GPU instances.
    pub(super) fn take(&mut self, handle: Handle, gpu_instance: Option<u32>) -> Result<()> {
        let lib = self.nvml.lib();
        if let Some(instance) = gpu_instance {
            let call = nvml_sym(lib.nvmlGpmMigSampleGet.as_ref())?;
            // SAFETY: handle and sample are of this library, and the sample was not freed.
            return nvml_try(unsafe { call(handle.0, instance, self.sample) });
        }
        let call = nvml_sym(lib.nvmlGpmSampleGet.as_ref())?;
        // SAFETY: as above.
        nvml_try(unsafe { call(handle.0, self.sample) })
    }

    /// What happened between `older` and this, by the numbers of the metrics. Each may have failed by itself.
    pub(super) fn since(&self, older: &GpmSample, metrics: &[u32]) -> Result<Vec<Result<f64>>> {
        let call = nvml_sym(self.nvml.lib().nvmlGpmMetricsGet.as_ref())?;
        let none = sys::nvmlGpmMetric_t {
            metricId: 0,
            nvmlReturn: sys::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED,
            value: 0.0,
            metricInfo: sys::nvmlGpmMetric_t__bindgen_ty_1 {
                shortName: std::ptr::null_mut(),
                longName: std::ptr::null_mut(),
                unit: std::ptr::null_mut(),
            },
        };
        let mut request = Box::new(sys::nvmlGpmMetricsGet_t {
            version: sys::NVML_GPM_METRICS_GET_VERSION,
            numMetrics: 0,
            sample1: older.sample,
            sample2: self.sample,
            metrics: [none; 210],
        });
        for (slot, &id) in request.metrics.iter_mut().zip(metrics) {
            slot.metricId = id;
            request.numMetrics += 1;
        }
        // SAFETY: both samples are of this library and were not freed, and the struct has at least `numMetrics`
        // entries, which is all that the driver looks at.
        nvml_try(unsafe { call(&raw mut *request) })?;
        let count = metrics.len().min(request.metrics.len());
        Ok(request
            .metrics
            .iter()
            .take(count)
            .map(|metric| {
                nvml_try(metric.nvmlReturn)?;
                Ok(metric.value)
            })
            .collect())
    }
}

impl Drop for GpmSample {
    fn drop(&mut self) {
        if let Ok(free) = &self.nvml.lib().nvmlGpmSampleFree {
            // SAFETY: the sample was made by this library, and nobody else frees it.
            let _ = unsafe { free(self.sample) };
        }
    }
}

/// What NVML wants to stand in a struct's first field: its size and the number of its version.
fn version<T>(number: u32) -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(0) | (number << 24)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_by_their_type() {
        let low = |n: u32| {
            u64::from_ne_bytes({
                let [a, b, c, d] = n.to_ne_bytes();
                [a, b, c, d, 0xAA, 0xAA, 0xAA, 0xAA]
            })
        };
        assert_eq!(number(0, 1.5f64.to_bits()), Some(Number::Double(1.5)));
        assert_eq!(number(1, low(7)), Some(Number::Unsigned(7)), "only four bytes count");
        assert_eq!(number(1, low(u32::MAX)), None, "all ones is no value");
        assert_eq!(number(2, 1 << 40), Some(Number::Unsigned(1 << 40)), "long is not cut");
        assert_eq!(number(3, u64::MAX), None);
        assert_eq!(number(4, (-3i64).cast_unsigned()), Some(Number::Signed(-3)));
        assert_eq!(number(5, low((-3i32).cast_unsigned())), Some(Number::Signed(-3)));
        assert_eq!(
            number(6, u64::from_ne_bytes([1, 2, 9, 9, 9, 9, 9, 9])),
            number(1, low(u16::from_ne_bytes([1, 2]).into()))
        );
        assert_eq!(number(99, 1), None, "a type that does not exist yet");
    }

    #[test]
    fn structs_tell_their_size_and_version() {
        assert_eq!(version::<sys::nvmlMarginTemperature_t>(1), 0x0100_0008);
        assert_eq!(version::<sys::nvmlGpuFabricInfo_v2_t>(2), 0x0200_0024);
        assert!(size_of::<sys::nvmlGpuFabricInfo_v3_t>() >= size_of::<sys::nvmlGpuFabricInfo_v2_t>());
    }
}
