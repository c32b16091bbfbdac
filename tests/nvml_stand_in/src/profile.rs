//! Scenarios like real servers: memory, power, clocks and limits of the boards, and what they do not support.
//!
//! Tests that name a value set it themselves; these are there so that everything else is plausible.

use serde_json::json;

use crate::scenario::{Device, Process, ProcessSample, Scenario};

const GIB: u64 = 1 << 30;

/// XIDs, ECC and MIG changes: what current drivers offer.
const EVENTS: u64 = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x80 | 0x100;

/// Clock reasons that every data-centre board knows.
const REASONS: u64 = 0x1FF;

/// A server with H200 boards, driver 575: one numbering of all fields, NVLink, GPM, no fan.
pub fn h200(gpus: usize) -> Scenario {
    server("575.57.08", 12090, gpus, |index| {
        let mut device = hopper(index, "NVIDIA H200");
        device
            .memory(150_754_820_096, 643_825_664, 0)
            .set("nvmlDeviceGetBAR1MemoryInfo", [256 * GIB, 256 * GIB - (1 << 20), 1 << 20].to_vec())
            .set("nvmlDeviceGetMarginTemperature", 35)
            .set("nvmlDeviceGetTemperature/0", 52)
            .set("nvmlDeviceGetPowerUsage", 78_000);
        device
    })
}

/// A server with H100 boards under load, driver 570: the fields of the clock event reasons have other numbers there.
pub fn h100(gpus: usize) -> Scenario {
    server("570.124.06", 12080, gpus, |index| {
        let mut device = hopper(index, "NVIDIA H100 80GB HBM3");
        device
            .memory(85_520_809_984, 563_085_312, 40 * GIB)
            .set("nvmlDeviceGetMarginTemperature", 26)
            .set("nvmlDeviceGetTemperature/0", 59)
            .set("nvmlDeviceGetPowerUsage", 521_000)
            .utilization(97, 41);
        for id in 251..=253 {
            device.values.remove(&format!("field/{id}"));
        }
        device
    })
}

/// One A100 with MIG on: two 3g.20gb instances in slots 0 and 2, and one of 1g.5gb with two compute instances.
pub fn a100_mig() -> Scenario {
    server("550.90.07", 12040, 1, |index| {
        let mut device = board(index, "NVIDIA A100-SXM4-40GB", 7, [8, 0], 0x20B0_10DE);
        device
            .memory(42_949_672_960, 626_262_016, 0)
            .set("nvmlDeviceGetMigMode", vec![1, 1])
            .set("nvmlDeviceGetMaxMigDeviceCount", 7)
            .unset(&[
                "nvmlDeviceGetUtilizationRates",
                "nvmlDeviceGetEncoderUtilization",
                "nvmlDeviceGetDecoderUtilization",
                "nvmlDeviceGetJpgUtilization",
                "nvmlDeviceGetOfaUtilization",
                "nvmlDeviceGetMarginTemperature",
                "nvmlDeviceGetSamples/0",
            ]);
        device.mig = vec![
            Some(mig(0, "NVIDIA A100-SXM4-40GB MIG 3g.20gb", (1, 0), (3, 3), 42, 20_070_793_216, 6 * GIB)),
            None,
            Some(mig(1, "NVIDIA A100-SXM4-40GB MIG 3g.20gb", (2, 0), (3, 3), 42, 20_070_793_216, GIB)),
            Some(mig(2, "NVIDIA A100-SXM4-40GB MIG 1c.1g.5gb", (9, 0), (1, 1), 14, 5_100_273_664, 0)),
            Some(mig(3, "NVIDIA A100-SXM4-40GB MIG 1c.1g.5gb", (9, 1), (1, 1), 14, 5_100_273_664, 0)),
            None,
            None,
        ];
        device
    })
}

/// One H100 with MIG on and GPM for its instances.
pub fn h100_mig() -> Scenario {
    let mut scenario = h100(1);
    let gpu = scenario.gpu(0);
    gpu.set("nvmlDeviceGetMigMode", vec![1, 1]).unset(&[
        "nvmlDeviceGetUtilizationRates",
        "nvmlDeviceGetEncoderUtilization",
        "nvmlDeviceGetDecoderUtilization",
        "nvmlDeviceGetJpgUtilization",
        "nvmlDeviceGetOfaUtilization",
        "nvmlDeviceGetSamples/0",
    ]);
    let mut instance =
        mig(0, "NVIDIA H100 80GB HBM3 MIG 3g.40gb", (2, 0), (3, 3), 60, 42_144_366_592, 9 * GIB);
    for (id, value) in [(1, 61.0), (2, 55.5), (3, 20.25), (5, 33.0), (10, 47.0)] {
        instance.set(&format!("gpm/{id}"), value);
    }
    gpu.mig = vec![Some(instance), None];
    scenario
}

/// A server with L40S boards: fans, no NVLink, no HBM, no GPM.
pub fn l40s(gpus: usize) -> Scenario {
    server("575.57.08", 12090, gpus, |index| {
        let mut device = board(index, "NVIDIA L40S", 8, [8, 9], 0x26B9_10DE);
        device
            .memory(48_305_799_168, 557_842_432, 12 * GIB)
            .set("nvmlDeviceGetTemperature/0", 63)
            .set("nvmlDeviceGetMarginTemperature", 25)
            .set("nvmlDeviceGetPowerUsage", 211_000)
            .set("nvmlDeviceGetNumFans", 1)
            .set("nvmlDeviceGetFanSpeed_v2/0", 62)
            .set("nvmlDeviceGetFanSpeedRPM/0", 3120)
            .unset(&["field/82", "field/138/4294967295", "field/139/4294967295", "field/91"]);
        for link in 0..18 {
            for symbol in ["State", "Version"] {
                device.values.remove(&format!("nvmlDeviceGetNvLink{symbol}/{link}"));
            }
        }
        device
    })
}

/// V100 boards and a driver of before 510: no `_v2` of memory, no `_v3` of process lists, nothing newer.
pub fn old_driver(gpus: usize) -> Scenario {
    let mut scenario = server("470.256.02", 11040, gpus, |index| {
        let mut device = board(index, "Tesla V100-SXM2-32GB", 5, [7, 0], 0x1DB5_10DE);
        device
            .memory(34_359_738_368, 0, 2 * GIB)
            .unset(&["nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetMarginTemperature", "nvmlDeviceGetMigMode"])
            .unset(&["field/197", "field/198", "field/230", "field/186"]);
        for id in (142..=145).chain(173..=183).chain(251..=253) {
            device.values.remove(&format!("field/{id}"));
        }
        for (id, value) in [(29, 2), (30, 1), (31, 0)] {
            device.field(id, value);
        }
        device
    });
    scenario.unknown_field_code = 2;
    scenario.hide(&[
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetGraphicsRunningProcesses_v3",
        "nvmlDeviceGetMPSComputeRunningProcesses_v3",
        "nvmlDeviceGetNumFans",
        "nvmlDeviceGetFanSpeedRPM",
        "nvmlDeviceGetJpgUtilization",
        "nvmlDeviceGetOfaUtilization",
        "nvmlDeviceGetTemperatureV",
        "nvmlDeviceGetMarginTemperature",
        "nvmlDeviceGetGpuFabricInfoV",
        "nvmlDeviceGetSramEccErrorStatus",
        "nvmlDeviceGetProcessesUtilizationInfo",
        "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetSupportedClocksEventReasons",
        "nvmlGpmQueryDeviceSupport",
        "nvmlGpmSampleAlloc",
        "nvmlGpmSampleGet",
        "nvmlGpmMigSampleGet",
        "nvmlGpmMetricsGet",
    ]);
    scenario
}

/// A desktop card that idles: P8, PCIe generation 1, one fan, no ECC, no serial.
pub fn desktop() -> Scenario {
    server("580.95.05", 13000, 1, |index| {
        let mut device = board(index, "NVIDIA GeForce RTX 4090", 8, [8, 9], 0x2684_10DE);
        device
            .memory(25_757_220_864, 402_653_184, GIB)
            .set("nvmlDeviceGetPerformanceState", 8)
            .set("nvmlDeviceGetCurrPcieLinkGeneration", 1)
            .set("nvmlDeviceGetNumFans", 1)
            .set("nvmlDeviceGetFanSpeed_v2/0", 0)
            .unset(&[
                "nvmlDeviceGetSerial",
                "nvmlDeviceGetBoardPartNumber",
                "nvmlDeviceGetEccMode",
                "field/82",
            ]);
        let ecc = ["nvmlDeviceGetTotalEccErrors", "nvmlDeviceGetMemoryErrorCounter"];
        device.values.retain(|key, _| !ecc.iter().any(|symbol| key.starts_with(symbol)));
        device
    })
}

/// A server of `gpus` boards.
fn server(driver: &str, cuda: u32, gpus: usize, device: impl Fn(usize) -> Device) -> Scenario {
    let mut scenario = Scenario {
        driver_version: driver.to_owned(),
        devices: (0..gpus).map(device).collect(),
        ..Scenario::default()
    };
    scenario
        .set("nvmlSystemGetCudaDriverVersion", cuda)
        .set("nvmlSystemGetCudaDriverVersion_v2", cuda)
        .set("nvmlSystemGetNVMLVersion", format!("{}.{driver}", cuda / 1000));
    scenario
}

/// What H100 and H200 have in common.
fn hopper(index: usize, name: &str) -> Device {
    let mut device = board(index, name, 9, [9, 0], 0x2335_10DE);
    device
        .set("nvmlGpmQueryDeviceSupport", 1)
        .set("nvmlDeviceGetGpuFabricInfoV", vec![3, 0, 0, 0, 1])
        .set("nvmlDeviceGetJpgUtilization", vec![0, 167_000])
        .set("nvmlDeviceGetOfaUtilization", vec![0, 167_000])
        .set("nvmlDeviceGetRemappedRows", vec![0, 0, 0, 0])
        .set("nvmlDeviceGetRowRemapperHistogram", vec![2560, 0, 0, 0, 0]);
    for (id, value) in
        [(1, 12.0), (2, 9.5), (3, 4.25), (5, 3.0), (10, 6.0), (20, 1.5), (21, 2.5), (60, 8.0), (61, 16.0)]
    {
        device.set(&format!("gpm/{id}"), value);
    }
    device
}

/// What every data-centre board of the last years answers.
fn board(index: usize, name: &str, architecture: u32, capability: [u32; 2], pci: u32) -> Device {
    let mut device = Device { uuid: uuid("GPU", index, 0), ..Device::default() };
    device
        .set("nvmlDeviceGetName", name)
        .set("nvmlDeviceGetSerial", format!("165052400{index:04}"))
        .set("nvmlDeviceGetBoardPartNumber", "692-2G520-0200-000")
        .set("nvmlDeviceGetVbiosVersion", "96.00.A5.00.01")
        .set("nvmlDeviceGetMinorNumber", index)
        .set(
            "nvmlDeviceGetPciInfo_v3",
            json!([format!("00000000:{:02X}:00.0", 0x19 + index), pci, 0x1626_10DE]),
        )
        .set("nvmlDeviceGetArchitecture", architecture)
        .set("nvmlDeviceGetBrand", 14)
        .set("nvmlDeviceGetVirtualizationMode", 0)
        .set("nvmlDeviceGetPersistenceMode", 1)
        .set("nvmlDeviceGetComputeMode", 0)
        .set("nvmlDeviceGetCudaComputeCapability", capability.to_vec())
        .set("nvmlDeviceGetMigMode", vec![0, 0])
        .set("nvmlDeviceGetSupportedEventTypes", EVENTS);
    readings(&mut device);
    links(&mut device);
    device
}

/// Load, heat, power, clocks, memory errors.
fn readings(device: &mut Device) {
    device
        .utilization(0, 0)
        .set("nvmlDeviceGetEncoderUtilization", vec![0, 167_000])
        .set("nvmlDeviceGetDecoderUtilization", vec![0, 167_000])
        .set("nvmlDeviceGetBAR1MemoryInfo", vec![128 * GIB, 128 * GIB - (1 << 20), 1 << 20])
        .set("nvmlDeviceGetTemperature/0", 40)
        .set("nvmlDeviceGetTemperatureThreshold/0", 92)
        .set("nvmlDeviceGetTemperatureThreshold/1", 87)
        .set("nvmlDeviceGetTemperatureThreshold/2", 95)
        .set("nvmlDeviceGetTemperatureThreshold/3", 85)
        .set("nvmlDeviceGetPowerUsage", 80_000)
        .set("nvmlDeviceGetEnforcedPowerLimit", 700_000)
        .set("nvmlDeviceGetPowerManagementLimit", 700_000)
        .set("nvmlDeviceGetPowerManagementDefaultLimit", 700_000)
        .set("nvmlDeviceGetPowerManagementLimitConstraints", vec![200_000, 700_000])
        .set("nvmlDeviceGetTotalEnergyConsumption", 3_600_000_000_u64)
        .set("nvmlDeviceGetPerformanceState", 0)
        .set("nvmlDeviceGetCurrentClocksThrottleReasons", 1)
        .set("nvmlDeviceGetSupportedClocksThrottleReasons", REASONS)
        .set("nvmlDeviceGetEccMode", vec![1, 1])
        .set("nvmlDeviceGetRetiredPagesPendingStatus", 0);
    for (clock, now, most) in [(0, 345, 1980), (1, 345, 1980), (2, 2619, 2619), (3, 765, 1545)] {
        device
            .set(&format!("nvmlDeviceGetClockInfo/{clock}"), now)
            .set(&format!("nvmlDeviceGetMaxClockInfo/{clock}"), most);
    }
    for error in 0..2 {
        for counter in 0..2 {
            device.set(&format!("nvmlDeviceGetTotalEccErrors/{error}/{counter}"), 0);
            for place in [0, 1, 2, 3, 4, 5, 6, 7] {
                device.set(&format!("nvmlDeviceGetMemoryErrorCounter/{error}/{counter}/{place}"), 0);
            }
        }
    }
    for policy in 0..12 {
        device.set(&format!("nvmlDeviceGetViolationStatus/{policy}"), vec![0, 0]);
    }
    for id in (3..=6).chain(74..=81).chain(142..=145).chain(251..=253).chain([230]) {
        device.field(id, 0);
    }
    device.field(82, 45).field(83, 3_600_000_000_u64).field(186, 79_500);
}

/// PCIe and NVLink.
fn links(device: &mut Device) {
    device
        .set("nvmlDeviceGetPcieThroughput/0", 512)
        .set("nvmlDeviceGetPcieThroughput/1", 1024)
        .set("nvmlDeviceGetCurrPcieLinkGeneration", 5)
        .set("nvmlDeviceGetCurrPcieLinkWidth", 16)
        .set("nvmlDeviceGetMaxPcieLinkGeneration", 5)
        .set("nvmlDeviceGetMaxPcieLinkWidth", 16)
        .set("nvmlDeviceGetPcieReplayCounter", 0)
        .set("nvmlDeviceGetPcieSpeed", 32_000)
        .set("nvmlDeviceGetPcieLinkMaxSpeed", 6)
        .field(94, 0)
        .field(197, 0)
        .field(198, 0);
    for id in 173..=183 {
        device.field(id, 0);
    }
    device.field(91, 18).set("field/138/4294967295", 0).set("field/139/4294967295", 0);
    for id in [38, 45, 52, 59, 160] {
        device.field(id, 0);
    }
    for link in 0..18 {
        device
            .set(&format!("nvmlDeviceGetNvLinkState/{link}"), 1)
            .set(&format!("nvmlDeviceGetNvLinkVersion/{link}"), 6);
        for counter in 0..4 {
            device.set(&format!("nvmlDeviceGetNvLinkErrorCounter/{link}/{counter}"), 0);
        }
    }
}

/// A MIG instance: `(GPU instance, compute instance)`, `(GPU slices, compute slices)`.
pub fn mig(
    number: usize,
    name: &str,
    (gpu_instance, compute_instance): (u32, u32),
    (slices, compute_slices): (u64, u64),
    multiprocessors: u64,
    total: u64,
    used: u64,
) -> Device {
    let mut device = Device {
        uuid: uuid("MIG", 0, number + 1),
        gpu_instance: Some(gpu_instance),
        compute_instance: Some(compute_instance),
        ..Device::default()
    };
    device
        .set("nvmlDeviceGetName", name)
        .set("nvmlDeviceGetComputeMode", 0)
        .set(
            "nvmlDeviceGetAttributes_v2",
            vec![multiprocessors, slices, 2, 0, 0, 0, slices, compute_slices, total >> 20],
        )
        .memory(total, 0, used);
    device
}

/// A row of a process list.
pub fn process(pid: u32, memory: u64) -> Process {
    Process { pid, memory: Some(memory), ..Process::default() }
}

/// A row of the load buffer: SM and memory per cent.
pub fn process_sample(pid: u32, timestamp: u64, sm: u32, memory: u32) -> ProcessSample {
    ProcessSample { pid, timestamp, sm, memory, ..ProcessSample::default() }
}

fn uuid(kind: &str, index: usize, part: usize) -> String {
    format!("{kind}-5d0a4be8-7c11-4c5e-9b8f-{:04x}{index:04x}{part:04x}", 0xA100)
}
