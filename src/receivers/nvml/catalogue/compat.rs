//! The names of others: series that dashboards know already, and those of dcgm-exporter.
//!
//! Names from dcgm-exporter are gauges here, counters included: as sums they would get `_total` on their way to
//! Prometheus, which nobody's dashboard asks for. `rate` works on them all the same.

use super::super::model::Reading as R;
use super::Shape::Gauge;
use super::Who::{Dcgm, Legacy, LegacyNamed};
use super::{Made, Metric, made, read};

const MIB: i64 = 1 << 20;

macro_rules! metric {
    ($name:literal, $unit:literal, $who:expr, $about:literal, $from:expr) => {
        Metric { name: $name, unit: $unit, shape: Gauge, who: $who, about: $about, from: &[$from] }
    };
}

/// The series of `legacy_names`. They are of physical GPUs; memory is what NVML says, not an allocator within a process.
#[rustfmt::skip]
pub const LEGACY: &[Metric] = &[
    metric!("gpu_utilization_percent", "%", Legacy, "Percent of the time with a kernel running.", read(R::Busy)),
    metric!("gpu_memory_used_bytes", "By", Legacy, "Memory in use.", read(R::MemoryUsed)),
    metric!("gpu_memory_total_bytes", "By", LegacyNamed, "Memory of the device.", read(R::MemoryTotal)),
    metric!("gpu_temperature_celsius", "Cel", Legacy, "Temperature of the GPU.", read(R::Temperature).only(0)),
    metric!("gpu_memory_allocated_bytes", "By", Legacy, "Memory in use; the same as used.", read(R::MemoryUsed)),
    metric!("gpu_memory_reserved_bytes", "By", Legacy, "Memory that driver and firmware keep.", read(R::MemoryReserved)),
];

/// The series of `dcgm_names`, in dcgm-exporter's units.
#[rustfmt::skip]
pub const DCGM: &[Metric] = &[
    metric!("DCGM_FI_DEV_SM_CLOCK", "", Dcgm, "SM clock frequency (in MHz).", read(R::Clock).only(1)),
    metric!("DCGM_FI_DEV_MEM_CLOCK", "", Dcgm, "Memory clock frequency (in MHz).", read(R::Clock).only(2)),
    metric!("DCGM_FI_DEV_VIDEO_CLOCK", "", Dcgm, "Video clock frequency (in MHz).", read(R::Clock).only(3)),
    metric!("DCGM_FI_DEV_MEMORY_TEMP", "", Dcgm, "Memory temperature (in C).", read(R::Temperature).only(1)),
    metric!("DCGM_FI_DEV_GPU_TEMP", "", Dcgm, "GPU temperature (in C).", read(R::Temperature).only(0)),
    metric!("DCGM_FI_DEV_SLOWDOWN_TEMP", "", Dcgm, "Slowdown temperature (in C).", read(R::TemperatureLimit).only(0)),
    metric!("DCGM_FI_DEV_SHUTDOWN_TEMP", "", Dcgm, "Shutdown temperature (in C).", read(R::TemperatureLimit).only(1)),
    metric!("DCGM_FI_DEV_GPU_MAX_OP_TEMP", "", Dcgm, "Highest operating temperature (in C).", read(R::TemperatureLimit).only(2)),
    metric!("DCGM_FI_DEV_MEM_MAX_OP_TEMP", "", Dcgm, "Highest operating temperature of memory (in C).", read(R::TemperatureLimit).only(3)),
    metric!("DCGM_FI_DEV_GPU_TEMP_LIMIT", "", Dcgm, "Degrees left until the slowdown (in C).", read(R::TemperatureMargin)),
    metric!("DCGM_FI_DEV_POWER_USAGE", "", Dcgm, "Power draw (in W).", read(R::Power).per(1e3)),
    metric!("DCGM_FI_DEV_POWER_USAGE_INSTANT", "", Dcgm, "Power draw at the moment (in W).", read(R::PowerInstant).per(1e3)),
    metric!("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "", Dcgm, "Energy since the driver was loaded (in mJ).", read(R::Energy)),
    metric!("DCGM_FI_DEV_ENFORCED_POWER_LIMIT", "", Dcgm, "Power limit in force (in W).", read(R::PowerLimit).only(0).per(1e3)),
    metric!("DCGM_FI_DEV_POWER_MGMT_LIMIT", "", Dcgm, "Power limit asked for (in W).", read(R::PowerLimit).only(1).per(1e3)),
    metric!("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "", Dcgm, "PCIe packets sent again.", read(R::PcieReplays)),
    metric!("DCGM_FI_DEV_PCIE_TX_THROUGHPUT", "", Dcgm, "PCIe transmit throughput (in KB/s).", read(R::PcieThroughput).only(0)),
    metric!("DCGM_FI_DEV_PCIE_RX_THROUGHPUT", "", Dcgm, "PCIe receive throughput (in KB/s).", read(R::PcieThroughput).only(1)),
    metric!("DCGM_FI_DEV_PCIE_LINK_GEN", "", Dcgm, "Generation of the PCIe link.", read(R::PcieGeneration)),
    metric!("DCGM_FI_DEV_PCIE_LINK_WIDTH", "", Dcgm, "Lanes of the PCIe link.", read(R::PcieWidth)),
    metric!("DCGM_FI_DEV_GPU_UTIL", "", Dcgm, "GPU utilization (in %).", read(R::Busy)),
    metric!("DCGM_FI_DEV_MEM_COPY_UTIL", "", Dcgm, "Memory utilization (in %).", read(R::MemoryControllerBusy)),
    metric!("DCGM_FI_DEV_ENC_UTIL", "", Dcgm, "Encoder utilization (in %).", read(R::Engine).only(0)),
    metric!("DCGM_FI_DEV_DEC_UTIL", "", Dcgm, "Decoder utilization (in %).", read(R::Engine).only(1)),
    metric!("DCGM_FI_DEV_PSTATE", "", Dcgm, "Performance state.", read(R::PerformanceState)),
    metric!("DCGM_FI_DEV_FAN_SPEED", "", Dcgm, "Speed of the first fan (in %).", read(R::FanDuty).only(0)),
    metric!("DCGM_FI_DEV_XID_ERRORS", "", Dcgm, "Code of the last XID error.", made(Made::XidLast)),
    metric!("DCGM_FI_DEV_POWER_VIOLATION", "", Dcgm, "Time held back by power (in ns).", read(R::ThrottleTime).only(0)),
    metric!("DCGM_FI_DEV_THERMAL_VIOLATION", "", Dcgm, "Time held back by heat (in ns).", read(R::ThrottleTime).only(1)),
    metric!("DCGM_FI_DEV_SYNC_BOOST_VIOLATION", "", Dcgm, "Time held back by sync boost (in ns).", read(R::ThrottleTime).only(2)),
    metric!("DCGM_FI_DEV_BOARD_LIMIT_VIOLATION", "", Dcgm, "Time held back by the board (in ns).", read(R::ThrottleTime).only(3)),
    metric!("DCGM_FI_DEV_LOW_UTIL_VIOLATION", "", Dcgm, "Time held back for want of work (in ns).", read(R::ThrottleTime).only(4)),
    metric!("DCGM_FI_DEV_RELIABILITY_VIOLATION", "", Dcgm, "Time held back for reliability (in ns).", read(R::ThrottleTime).only(5)),
    metric!("DCGM_FI_DEV_FB_TOTAL", "", Dcgm, "Memory (in MiB).", read(R::MemoryTotal).whole(MIB)),
    metric!("DCGM_FI_DEV_FB_FREE", "", Dcgm, "Memory that is free (in MiB).", read(R::MemoryFree).whole(MIB)),
    metric!("DCGM_FI_DEV_FB_USED", "", Dcgm, "Memory in use (in MiB).", read(R::MemoryUsed).whole(MIB)),
    metric!("DCGM_FI_DEV_FB_RESERVED", "", Dcgm, "Memory that driver and firmware keep (in MiB).", read(R::MemoryReserved).whole(MIB)),
    metric!("DCGM_FI_DEV_FB_USED_PERCENT", "", Dcgm, "Used part of the memory, 0 to 1.", read(R::MemoryFill)),
    metric!("DCGM_FI_DEV_BAR1_TOTAL", "", Dcgm, "Memory that can be mapped (in MiB).", read(R::Bar1Total).whole(MIB)),
    metric!("DCGM_FI_DEV_BAR1_USED", "", Dcgm, "Memory that is mapped (in MiB).", read(R::Bar1Used).whole(MIB)),
    metric!("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", "", Dcgm, "Corrected ECC errors since the driver was loaded.", read(R::EccErrors).only(0)),
    metric!("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "", Dcgm, "Uncorrected ECC errors since the driver was loaded.", read(R::EccErrors).only(1)),
    metric!("DCGM_FI_DEV_ECC_SBE_AGG_TOTAL", "", Dcgm, "Corrected ECC errors over the board's life.", read(R::EccLifetime).only(0)),
    metric!("DCGM_FI_DEV_ECC_DBE_AGG_TOTAL", "", Dcgm, "Uncorrected ECC errors over the board's life.", read(R::EccLifetime).only(1)),
    metric!("DCGM_FI_DEV_RETIRED_SBE", "", Dcgm, "Pages retired after single-bit errors.", read(R::RetiredPages).only(0)),
    metric!("DCGM_FI_DEV_RETIRED_DBE", "", Dcgm, "Pages retired after double-bit errors.", read(R::RetiredPages).only(1)),
    metric!("DCGM_FI_DEV_RETIRED_PENDING", "", Dcgm, "Whether pages wait to be retired.", read(R::RetiredPending)),
    metric!("DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", "", Dcgm, "Rows replaced after corrected errors.", read(R::RemappedRows).only(0)),
    metric!("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", "", Dcgm, "Rows replaced after uncorrected errors.", read(R::RemappedRows).only(1)),
    metric!("DCGM_FI_DEV_ROW_REMAP_PENDING", "", Dcgm, "Whether rows wait to be replaced.", read(R::RemapPending)),
    metric!("DCGM_FI_DEV_ROW_REMAP_FAILURE", "", Dcgm, "Whether replacing a row failed.", read(R::RemapFailed)),
    metric!("DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL", "", Dcgm, "NVLink flow-control CRC errors.", read(R::NvlinkErrors).only(0)),
    metric!("DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL", "", Dcgm, "NVLink data CRC errors.", read(R::NvlinkErrors).only(1)),
    metric!("DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL", "", Dcgm, "NVLink retries.", read(R::NvlinkErrors).only(2)),
    metric!("DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL", "", Dcgm, "NVLink recoveries.", read(R::NvlinkErrors).only(3)),
    metric!("DCGM_FI_PROF_GR_ENGINE_ACTIVE", "", Dcgm, "Part of the time with any engine active.", read(R::GraphicsActivity).per(100.0)),
    metric!("DCGM_FI_PROF_SM_ACTIVE", "", Dcgm, "Part of the time with work on multiprocessors.", read(R::SmActivity).per(100.0)),
    metric!("DCGM_FI_PROF_SM_OCCUPANCY", "", Dcgm, "Warps on multiprocessors, as a part of what fits.", read(R::SmOccupancy).per(100.0)),
    metric!("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "", Dcgm, "Part of the time in which tensor cores worked.", read(R::TensorActivity).per(100.0)),
    metric!("DCGM_FI_PROF_DRAM_ACTIVE", "", Dcgm, "Used part of the memory bandwidth.", read(R::MemoryBandwidth).per(100.0)),
    metric!("DCGM_FI_PROF_PCIE_TX_BYTES", "", Dcgm, "PCIe transmit rate (in B/s).", read(R::ProfiledPcie).only(0).times(MIB)),
    metric!("DCGM_FI_PROF_PCIE_RX_BYTES", "", Dcgm, "PCIe receive rate (in B/s).", read(R::ProfiledPcie).only(1).times(MIB)),
    metric!("DCGM_FI_PROF_NVLINK_TX_BYTES", "", Dcgm, "NVLink transmit rate (in B/s).", read(R::ProfiledNvlink).only(0).times(MIB)),
    metric!("DCGM_FI_PROF_NVLINK_RX_BYTES", "", Dcgm, "NVLink receive rate (in B/s).", read(R::ProfiledNvlink).only(1).times(MIB)),
];
