//! Metrics of devices and MIG instances.

use super::super::model::Reading as R;
use super::Labels::{Is, Number, NumberAndWord, Rows, TwoWords, Word, WordIn};
use super::Shape::{Counter, Gauge, UpDown};
use super::Who::{Device, Fan, TypedDevice};
use super::{Metric, read};

const TASK: &str = "hw.gpu.task";
const DIRECTION: &str = "network.io.direction";
const ERROR: &str = "error.type";
const LIMIT: &str = "hw.limit_type";
const LOCATION: &str = "hw.sensor_location";
const PHASE: &str = "nvidia.gpu.mode.phase";
const LINK: &str = "nvidia.gpu.nvlink.link";

const DIRECTIONS: &[&str] = &["transmit", "receive"];
const PHASES: &[&str] = &["current", "pending"];
const CORRECTED: &[&str] = &["corrected", "uncorrected"];
const CLOCKS: &[&str] = &["graphics", "sm", "memory", "video"];
const WINDOW: &[&str] = &["min", "mean", "max"];

/// The reasons for which clocks are held back, by the number of their bit.
const REASONS: &[&str] = &[
    "gpu_idle",
    "applications_clocks_setting",
    "sw_power_cap",
    "hw_slowdown",
    "sync_boost",
    "sw_thermal_slowdown",
    "hw_thermal_slowdown",
    "hw_power_brake_slowdown",
    "display_clock_setting",
];

/// What time is counted for.
const POLICIES: &[&str] = &[
    "power",
    "thermal",
    "sync_boost",
    "board_limit",
    "low_utilization",
    "reliability",
    "app_clocks",
    "base_clocks",
    "sw_thermal_slowdown",
    "hw_thermal_slowdown",
    "hw_power_brake",
];

const LOCATIONS: &[&str] =
    &["l1_cache", "l2_cache", "device", "register_file", "texture", "shared", "cbu", "sram"];

macro_rules! metric {
    ($name:literal, $unit:literal, $shape:expr, $who:expr, $about:literal, [$($from:expr),+ $(,)?]) => {
        Metric { name: $name, unit: $unit, shape: $shape, who: $who, about: $about, from: &[$($from),+] }
    };
}

/// The list.
#[rustfmt::skip]
pub const DEVICES: &[Metric] = &[
    metric!("hw.gpu.utilization", "1", Gauge, Device,
        "Part of the time in which the engine did something; for `general`, in which at least one kernel ran.",
        [read(R::Busy).per(100.0).by(Is(TASK, "general")),
         read(R::Engine).per(100.0).by(Word(TASK, &["encoder", "decoder", "jpeg", "ofa"]))]),
    metric!("nvidia.gpu.memory.controller.utilization", "1", Gauge, Device,
        "Part of the time in which device memory was read or written.",
        [read(R::MemoryControllerBusy).per(100.0)]),
    metric!("nvidia.gpu.utilization.window", "1", Gauge, Device,
        "Utilisation between two exports, sampled at `sample_interval`.",
        [read(R::BusyWindow).per(100.0).by(Word("nvidia.gpu.window", WINDOW))]),
    metric!("hw.gpu.memory.limit", "By", UpDown, Device, "Memory of the device.", [read(R::MemoryTotal)]),
    metric!("hw.gpu.memory.usage", "By", UpDown, Device, "Memory in use, without what driver and firmware keep.",
        [read(R::MemoryUsed)]),
    metric!("nvidia.gpu.memory.free", "By", UpDown, Device, "Memory that is free.", [read(R::MemoryFree)]),
    metric!("nvidia.gpu.memory.reserved", "By", UpDown, Device, "Memory that driver and firmware keep.",
        [read(R::MemoryReserved)]),
    metric!("hw.gpu.memory.utilization", "1", Gauge, Device, "Used part of the memory that can be used.",
        [read(R::MemoryFill)]),
    metric!("nvidia.gpu.bar1.memory.limit", "By", UpDown, Device, "Memory that can be mapped for the CPU.",
        [read(R::Bar1Total)]),
    metric!("nvidia.gpu.bar1.memory.usage", "By", UpDown, Device, "Memory that is mapped for the CPU.",
        [read(R::Bar1Used)]),
    metric!("hw.temperature", "Cel", Gauge, Device, "Temperature.",
        [read(R::Temperature).by(Word(LOCATION, &["gpu", "memory"]))]),
    metric!("hw.temperature.limit", "Cel", Gauge, Device,
        "Temperature at which the device slows down (high.degraded), switches off (high.critical), or that it should \
         not pass (max).",
        [read(R::TemperatureLimit).by(Rows(LIMIT, LOCATION,
            &[["high.degraded", "gpu"], ["high.critical", "gpu"], ["max", "gpu"], ["max", "memory"]]))]),
    metric!("nvidia.gpu.temperature.margin", "Cel", Gauge, Device,
        "Degrees left until the device slows down; negative beyond.", [read(R::TemperatureMargin)]),
    metric!("hw.power", "W", Gauge, TypedDevice, "Power draw; over the last second on most devices.",
        [read(R::Power).per(1e3)]),
    metric!("nvidia.gpu.power.window", "W", Gauge, Device,
        "Power draw between two exports, sampled at `sample_interval`.",
        [read(R::PowerWindow).per(1e3).by(Word("nvidia.gpu.window", WINDOW))]),
    metric!("nvidia.gpu.power.instant", "W", Gauge, Device, "Power draw at the moment of reading.",
        [read(R::PowerInstant).per(1e3)]),
    metric!("hw.energy", "J", Counter, TypedDevice, "Energy since the driver was loaded.",
        [read(R::Energy).per(1e3)]),
    metric!("nvidia.gpu.power.limit", "W", Gauge, Device, "Power limits: in force, asked for, by default, the range.",
        [read(R::PowerLimit).per(1e3)
            .by(Word("nvidia.gpu.power.limit.type", &["enforced", "requested", "default", "min", "max"]))]),
    metric!("nvidia.gpu.clock.frequency", "Hz", Gauge, Device, "Clock frequencies.",
        [read(R::Clock).times(1_000_000).by(Word("nvidia.gpu.clock", CLOCKS))]),
    metric!("nvidia.gpu.clock.limit", "Hz", Gauge, Device, "Highest clock frequencies.",
        [read(R::ClockMax).times(1_000_000).by(WordIn("nvidia.gpu.clock", CLOCKS, LIMIT, "max"))]),
    metric!("nvidia.gpu.clock.throttle.active", "1", UpDown, Device,
        "Whether clocks are held back for this reason.",
        [read(R::ThrottleActive).by(Word("nvidia.gpu.throttle.reason", REASONS))]),
    metric!("nvidia.gpu.clock.throttle.duration", "s", Counter, Device,
        "Time for which clocks were held back.",
        [read(R::ThrottleTime).per(1e9).by(Word("nvidia.gpu.throttle.reason", POLICIES))]),
    metric!("nvidia.gpu.performance_state", "", Gauge, Device, "0 is fastest, 15 slowest.",
        [read(R::PerformanceState)]),
    metric!("hw.fan.speed_ratio", "1", Gauge, Fan, "Part of the highest speed; may be above 1.",
        [read(R::FanDuty).per(100.0).by(Number(""))]),
    metric!("hw.fan.speed", "rpm", Gauge, Fan, "Speed of the fan.", [read(R::FanSpeed).by(Number(""))]),
    metric!("hw.gpu.io", "By", Counter, Device, "Bytes moved over PCIe.",
        [read(R::PcieBytes).by(Word(DIRECTION, DIRECTIONS))]),
    metric!("nvidia.gpu.pcie.throughput", "By/s", Gauge, Device,
        "PCIe throughput: sampled by the driver, or of the profiling counters.",
        [read(R::PcieThroughput).times(1024).by(WordIn(DIRECTION, DIRECTIONS, "nvidia.gpu.source", "sample")),
         read(R::ProfiledPcie).times(1 << 20).by(WordIn(DIRECTION, DIRECTIONS, "nvidia.gpu.source", "profiling"))]),
    metric!("nvidia.gpu.pcie.link.generation", "", Gauge, Device,
        "Generation of the PCIe link now; idle devices lower it.", [read(R::PcieGeneration)]),
    metric!("nvidia.gpu.pcie.link.width", "{lane}", Gauge, Device, "Lanes of the PCIe link now.",
        [read(R::PcieWidth)]),
    metric!("nvidia.gpu.pcie.link.generation_max", "", Gauge, Device, "Highest generation of the PCIe link.",
        [read(R::PcieGenerationMax)]),
    metric!("nvidia.gpu.pcie.link.width_max", "{lane}", Gauge, Device, "Most lanes of the PCIe link.",
        [read(R::PcieWidthMax)]),
    metric!("nvidia.gpu.pcie.replays", "{replay}", Counter, Device, "PCIe packets sent again.",
        [read(R::PcieReplays)]),
    metric!("nvidia.gpu.pcie.errors", "{error}", Counter, Device, "PCIe errors by type.",
        [read(R::PcieErrors).by(Word(ERROR,
            &["correctable", "naks_received", "receiver_error", "bad_tlp", "naks_sent", "bad_dllp", "non_fatal",
              "fatal", "unsupported_request", "lcrc", "lane"]))]),
    metric!("nvidia.gpu.nvlink.active", "1", UpDown, Device, "Whether the link is up.",
        [read(R::NvlinkActive).by(Number(LINK))]),
    metric!("nvidia.gpu.nvlink.io", "By", Counter, Device, "Bytes of data moved over all NVLinks.",
        [read(R::NvlinkBytes).by(Word(DIRECTION, DIRECTIONS))]),
    metric!("nvidia.gpu.nvlink.throughput", "By/s", Gauge, Device,
        "NVLink throughput of the profiling counters.",
        [read(R::ProfiledNvlink).times(1 << 20).by(Word(DIRECTION, DIRECTIONS))]),
    metric!("nvidia.gpu.nvlink.errors", "{error}", Counter, Device, "NVLink errors over all links.",
        [read(R::NvlinkErrors).by(Word(ERROR,
            &["crc_flit", "crc_data", "replay", "recovery", "ecc", "receive", "recovery_ok", "recovery_failed"]))]),
    metric!("nvidia.gpu.nvlink.link_errors", "{error}", Counter, Device, "NVLink errors by link.",
        [read(R::NvlinkLinkErrors)
            .by(NumberAndWord(LINK, ERROR, &["replay", "recovery", "crc_flit", "crc_data"]))]),
    metric!("nvidia.gpu.fabric.state", "", Gauge, Device,
        "Registration with the NVLink fabric: 0 not supported, 1 not started, 2 in progress, 3 completed.",
        [read(R::FabricState)]),
    metric!("hw.errors", "{error}", Counter, TypedDevice, "ECC errors since the driver was loaded.",
        [read(R::EccErrors).by(Word(ERROR, CORRECTED))]),
    metric!("nvidia.gpu.ecc.lifetime_errors", "{error}", Counter, Device, "ECC errors over the life of the board.",
        [read(R::EccLifetime).by(Word(ERROR, CORRECTED))]),
    metric!("nvidia.gpu.ecc.location_errors", "{error}", Counter, Device,
        "ECC errors since the driver was loaded, by place.",
        [read(R::EccLocation).by(TwoWords(ERROR, CORRECTED, "nvidia.gpu.memory.location", LOCATIONS))]),
    metric!("nvidia.gpu.ecc.enabled", "1", UpDown, Device, "Whether ECC is on, now and after the next reset.",
        [read(R::EccEnabled).by(Word(PHASE, PHASES))]),
    metric!("nvidia.gpu.retired_pages", "{page}", UpDown, Device, "Pages taken out of use.",
        [read(R::RetiredPages).by(Word("nvidia.gpu.retirement.cause", &["single_bit", "double_bit"]))]),
    metric!("nvidia.gpu.retired_pages.pending", "1", UpDown, Device, "Whether pages wait for a restart to be retired.",
        [read(R::RetiredPending)]),
    metric!("nvidia.gpu.row_remap.rows", "{row}", UpDown, Device, "Memory rows replaced by spare ones.",
        [read(R::RemappedRows).by(Word(ERROR, CORRECTED))]),
    metric!("nvidia.gpu.row_remap.pending", "1", UpDown, Device, "Whether rows wait for a reset to be replaced.",
        [read(R::RemapPending)]),
    metric!("nvidia.gpu.row_remap.failed", "1", UpDown, Device, "Whether replacing a row failed.",
        [read(R::RemapFailed)]),
    metric!("nvidia.gpu.row_remap.banks", "{bank}", UpDown, Device, "Memory banks by the spare rows they have left.",
        [read(R::RemapBanks).by(Word("nvidia.gpu.row_remap.spare", &["max", "high", "partial", "low", "none"]))]),
    metric!("nvidia.gpu.recovery_action", "", Gauge, Device,
        "What the driver asks for: 0 nothing, 1 reset the GPU, 2 reboot, 3 drain peer-to-peer, 4 drain and reset, \
         5 recover IMEX.", [read(R::RecoveryAction)]),
    metric!("hw.status", "1", UpDown, TypedDevice, "1 for the state that the device is in.",
        [read(R::Status).by(Word("hw.state", &["ok", "degraded", "failed", "predicted_failure"]))]),
    metric!("nvidia.gpu.mig.enabled", "1", UpDown, Device, "Whether MIG is on, now and after the next reset.",
        [read(R::MigEnabled).by(Word(PHASE, PHASES))]),
    metric!("nvidia.gpu.persistence.enabled", "1", UpDown, Device, "Whether the driver keeps the device initialised.",
        [read(R::Persistence)]),
    metric!("nvidia.gpu.compute_mode", "1", UpDown, Device, "1 for the compute mode that is set.",
        [read(R::ComputeMode).by(Word("nvidia.gpu.compute_mode",
            &["default", "exclusive_thread", "prohibited", "exclusive_process"]))]),
    metric!("nvidia.gpu.process.count", "{process}", UpDown, Device, "Processes on the device.",
        [read(R::ProcessCount).by(Word("nvidia.gpu.process.type", &["compute", "graphics"]))]),
    metric!("nvidia.gpu.graphics.activity", "1", Gauge, Device, "Part of the time with any engine active.",
        [read(R::GraphicsActivity).per(100.0)]),
    metric!("nvidia.gpu.sm.activity", "1", Gauge, Device,
        "Part of the time with at least one warp on a multiprocessor, mean over all of them.",
        [read(R::SmActivity).per(100.0)]),
    metric!("nvidia.gpu.sm.occupancy", "1", Gauge, Device, "Warps on multiprocessors, as a part of what fits.",
        [read(R::SmOccupancy).per(100.0)]),
    metric!("nvidia.gpu.tensor.activity", "1", Gauge, Device, "Part of the time in which tensor cores worked.",
        [read(R::TensorActivity).per(100.0)]),
    metric!("nvidia.gpu.memory.bandwidth.utilization", "1", Gauge, Device,
        "Part of the memory bandwidth that was used.", [read(R::MemoryBandwidth).per(100.0)]),
];
