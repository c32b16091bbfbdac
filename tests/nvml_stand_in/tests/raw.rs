//! Calls that the wrapper does not wrap, through the bindings that were made from the header: names, arguments and
//! layouts are as a caller of the C interface has them.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::mem::zeroed;

use nvml_stand_in::{StandIn, profile};
use nvml_wrapper_sys::bindings::*;

/// Version of a struct.
fn version<T>(number: u32) -> u32 {
    size_of::<T>() as u32 | number << 24
}

/// The library, up, with the handle of its first device.
fn open(stand_in: &StandIn) -> (NvmlLib, nvmlDevice_t) {
    // SAFETY: the symbols are what the bindings think they are: that is what is tested.
    unsafe {
        let lib = NvmlLib::new(stand_in.path()).unwrap();
        assert_eq!(lib.nvmlInit_v2(), 0);
        let mut device = zeroed();
        assert_eq!(lib.nvmlDeviceGetHandleByIndex_v2(0, &mut device), 0);
        (lib, device)
    }
}

#[test]
fn numbers() {
    let stand_in = StandIn::new(profile::h200(1));
    stand_in.edit(|s| {
        s.gpu(0)
            .set("nvmlDeviceGetJpgUtilization", vec![13, 100])
            .set("nvmlDeviceGetOfaUtilization", vec![14, 200])
            .set("nvmlDeviceGetRemappedRows", vec![1, 2, 0, 1])
            .set("nvmlDeviceGetRowRemapperHistogram", vec![5, 4, 3, 2, 1])
            .set("nvmlDeviceGetCurrentClocksThrottleReasons", 0x41);
    });
    let (lib, device) = open(&stand_in);
    let (mut a, mut b, mut c, mut d, mut mask) = (0, 0, 0, 0, 0);
    // SAFETY: as in `open`.
    unsafe {
        assert_eq!(lib.nvmlDeviceGetJpgUtilization(device, &mut a, &mut b), 0);
        assert_eq!((a, b), (13, 100));
        assert_eq!(lib.nvmlDeviceGetOfaUtilization(device, &mut a, &mut b), 0);
        assert_eq!((a, b), (14, 200));
        assert_eq!(lib.nvmlDeviceGetRemappedRows(device, &mut a, &mut b, &mut c, &mut d), 0);
        assert_eq!((a, b, c, d), (1, 2, 0, 1));
        let mut banks: nvmlRowRemapperHistogramValues_t = zeroed();
        assert_eq!(lib.nvmlDeviceGetRowRemapperHistogram(device, &mut banks), 0);
        assert_eq!((banks.max, banks.high, banks.partial, banks.low, banks.none), (5, 4, 3, 2, 1));
        assert_eq!(lib.nvmlDeviceGetCurrentClocksEventReasons(device, &mut mask), 0);
        assert_eq!(mask, 0x41);
        let mut cuda = 0;
        assert_eq!(lib.nvmlSystemGetCudaDriverVersion(&mut cuda), 0);
        assert_eq!(cuda, 12090);
        assert_eq!(lib.nvmlDeviceGetGpuInstanceId(device, &mut a), 3);
    }
    assert_eq!(stand_in.stats().misuse, Vec::<String>::new());
}

#[test]
fn versioned_structs() {
    let stand_in = StandIn::new(profile::h200(1));
    stand_in.edit(|s| {
        s.gpu(0)
            .set("nvmlDeviceGetMarginTemperature", -3)
            .set("nvmlDeviceGetFanSpeedRPM/1", 2900)
            .set("nvmlDeviceGetSramEccErrorStatus", (1..=12).collect::<Vec<u64>>());
        s.gpu(0).process_samples = vec![nvml_stand_in::ProcessSample {
            pid: 7,
            timestamp: 9,
            sm: 1,
            memory: 2,
            encoder: 3,
            decoder: 4,
            jpeg: 5,
            ofa: 6,
        }];
    });
    let (lib, device) = open(&stand_in);
    // SAFETY: as in `open`.
    unsafe {
        let mut margin =
            nvmlMarginTemperature_t { version: version::<nvmlMarginTemperature_v1_t>(1), ..zeroed() };
        assert_eq!(lib.nvmlDeviceGetMarginTemperature(device, &mut margin), 0);
        assert_eq!(margin.marginTemperature, -3);
        let mut heat: nvmlTemperature_t = zeroed();
        heat.version = version::<nvmlTemperature_v1_t>(1);
        assert_eq!(lib.nvmlDeviceGetTemperatureV(device, &mut heat), 0);
        assert_eq!(heat.temperature, 52);
        let mut fan: nvmlFanSpeedInfo_t = zeroed();
        (fan.version, fan.fan) = (version::<nvmlFanSpeedInfo_v1_t>(1), 1);
        assert_eq!(lib.nvmlDeviceGetFanSpeedRPM(device, &mut fan), 0);
        assert_eq!(fan.speed, 2900);
        let mut sram: nvmlEccSramErrorStatus_t = zeroed();
        sram.version = version::<nvmlEccSramErrorStatus_v1_t>(1);
        assert_eq!(lib.nvmlDeviceGetSramEccErrorStatus(device, &mut sram), 0);
        assert_eq!(
            (sram.aggregateUncParity, sram.aggregateUncBucketOther, sram.bThresholdExceeded),
            (1, 11, 12)
        );
        let mut fabric: nvmlGpuFabricInfo_v3_t = zeroed();
        fabric.version = version::<nvmlGpuFabricInfo_v3_t>(3);
        assert_eq!(lib.nvmlDeviceGetGpuFabricInfoV(device, (&raw mut fabric).cast()), 0);
        assert_eq!((fabric.state, fabric.healthSummary), (3, 1));
        let mut rows: [nvmlProcessUtilizationInfo_v1_t; 2] = zeroed();
        let mut load: nvmlProcessesUtilizationInfo_t = zeroed();
        load.version = version::<nvmlProcessesUtilizationInfo_v1_t>(1);
        assert_eq!(lib.nvmlDeviceGetProcessesUtilizationInfo(device, &mut load), 7);
        assert_eq!(load.processSamplesCount, 1);
        (load.processSamplesCount, load.procUtilArray) = (2, rows.as_mut_ptr());
        assert_eq!(lib.nvmlDeviceGetProcessesUtilizationInfo(device, &mut load), 0);
        assert_eq!(load.processSamplesCount, 1);
        assert_eq!((rows[0].pid, rows[0].smUtil, rows[0].jpgUtil, rows[0].ofaUtil), (7, 1, 5, 6));
        assert_eq!(stand_in.stats().misuse, Vec::<String>::new());
        margin.version += 1;
        assert_eq!(lib.nvmlDeviceGetMarginTemperature(device, &mut margin), 25);
        assert_eq!(stand_in.stats().misuse.len(), 1);
    }
}

#[test]
fn fields_with_a_scope() {
    let stand_in = StandIn::new(profile::h200(1));
    stand_in.edit(|s| {
        s.gpu(0).set("field/138/4294967295", 5000).field(193, -4).raw_field(82, 0, 61);
        s.gpu(0).fail("field/3", 999);
    });
    let (lib, device) = open(&stand_in);
    // SAFETY: as in `open`.
    unsafe {
        let field = |id, scope| nvmlFieldValue_t { fieldId: id, scopeId: scope, ..zeroed() };
        let mut fields = [field(138, u32::MAX), field(138, 0), field(193, 0), field(82, 0), field(3, 0)];
        assert_eq!(lib.nvmlDeviceGetFieldValues(device, 5, fields.as_mut_ptr()), 0);
        let codes: Vec<u32> = fields.iter().map(|field| field.nvmlReturn).collect();
        assert_eq!(codes, [0, 3, 0, 0, 999]);
        assert_eq!((fields[0].valueType, fields[0].value.ullVal), (3, 5000));
        assert_eq!((fields[2].valueType, fields[2].value.siVal), (5, -4));
        assert_eq!((fields[3].valueType, fields[3].value.uiVal), (0, 61));
        assert_eq!(fields[4].value.ullVal, u64::MAX);
    }
}

#[test]
fn instance_ids_and_forbidden_calls() {
    let stand_in = StandIn::new(profile::a100_mig());
    let (lib, device) = open(&stand_in);
    // SAFETY: as in `open`.
    unsafe {
        let mut instance = zeroed();
        assert_eq!(lib.nvmlDeviceGetMigDeviceHandleByIndex(device, 4, &mut instance), 0);
        let (mut gpu, mut compute) = (0, 0);
        assert_eq!(lib.nvmlDeviceGetGpuInstanceId(instance, &mut gpu), 0);
        assert_eq!(lib.nvmlDeviceGetComputeInstanceId(instance, &mut compute), 0);
        assert_eq!((gpu, compute), (9, 1));
        assert_eq!(lib.nvmlDeviceSetPersistenceMode(device, 1), 4);
        assert_eq!(lib.nvmlShutdown(), 0);
        assert_eq!(lib.nvmlDeviceGetGpuInstanceId(instance, &mut gpu), 1);
        assert_eq!(lib.nvmlShutdown(), 1);
    }
    assert_eq!(
        stand_in.stats().misuse,
        [
            "nvmlDeviceSetPersistenceMode: changes the state of a device",
            "nvmlDeviceGetGpuInstanceId: called while the library is not initialised",
            "nvmlShutdown: more shutdowns than inits",
        ]
    );
}
