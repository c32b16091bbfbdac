//! What can be read of a device, and which of it is switched on and off together.

/// What can be read. The words in brackets are what [`Sample::index`] counts through, in this order; the catalogue has
/// the same lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reading {
    /// Percent of the time with a kernel running.
    Busy,
    /// Percent; (encoder, decoder, jpeg, ofa).
    Engine,
    /// Percent of the time with the memory controller busy.
    MemoryControllerBusy,
    /// Percent since the last export; (min, mean, max).
    BusyWindow,
    /// Bytes.
    MemoryTotal,
    /// Bytes.
    MemoryUsed,
    /// Bytes.
    MemoryFree,
    /// Bytes kept by driver and firmware.
    MemoryReserved,
    /// Part of 1; derived.
    MemoryFill,
    /// Bytes.
    Bar1Total,
    /// Bytes.
    Bar1Used,
    /// Degrees Celsius; (gpu, memory).
    Temperature,
    /// Degrees Celsius; (slowdown, shutdown, max gpu, max memory).
    TemperatureLimit,
    /// Degrees Celsius to the slowdown; may be negative.
    TemperatureMargin,
    /// Milliwatts.
    Power,
    /// Milliwatts at this moment.
    PowerInstant,
    /// Milliwatts since the last export; (min, mean, max).
    PowerWindow,
    /// Millijoules since the driver was loaded.
    Energy,
    /// Milliwatts; (enforced, requested, default, min, max).
    PowerLimit,
    /// MHz; (graphics, sm, memory, video).
    Clock,
    /// MHz; (graphics, sm, memory, video).
    ClockMax,
    /// 0 or 1; index is the number of the bit.
    ThrottleActive,
    /// Nanoseconds; (power, thermal, sync_boost, board_limit, low_utilization, reliability, app_clocks, base_clocks,
    /// sw_thermal_slowdown, hw_thermal_slowdown, hw_power_brake).
    ThrottleTime,
    /// 0 to 15.
    PerformanceState,
    /// Percent of the maximum; index is the fan.
    FanDuty,
    /// Revolutions a minute; index is the fan.
    FanSpeed,
    /// Bytes, only growing; (transmit, receive).
    PcieBytes,
    /// KiB a second; (transmit, receive).
    PcieThroughput,
    /// Generation now.
    PcieGeneration,
    /// Lanes now.
    PcieWidth,
    /// Generation.
    PcieGenerationMax,
    /// Lanes.
    PcieWidthMax,
    /// Count.
    PcieReplays,
    /// Count; fields 173 to 183 in order (see the catalogue's words).
    PcieErrors,
    /// 0 or 1; index is the link.
    NvlinkActive,
    /// Bytes; (transmit, receive).
    NvlinkBytes,
    /// Count over all links; (crc_flit, crc_data, replay, recovery, ecc, receive, recovery_ok, recovery_failed).
    NvlinkErrors,
    /// Count; index is the link times 4, plus (replay, recovery, crc_flit, crc_data).
    NvlinkLinkErrors,
    /// The state of the fabric's registration, as NVML numbers it.
    FabricState,
    /// Count since the driver was loaded; (corrected, uncorrected).
    EccErrors,
    /// Count over the life of the board; (corrected, uncorrected).
    EccLifetime,
    /// Count since the driver was loaded; index is (corrected, uncorrected) times 8, plus (l1_cache, l2_cache, device,
    /// register_file, texture, shared, cbu, sram).
    EccLocation,
    /// 0 or 1; (current, pending).
    EccEnabled,
    /// Pages; (single_bit, double_bit).
    RetiredPages,
    /// 0 or 1.
    RetiredPending,
    /// Rows; (corrected, uncorrected).
    RemappedRows,
    /// 0 or 1.
    RemapPending,
    /// 0 or 1.
    RemapFailed,
    /// Banks by the spare rows they have left; (max, high, partial, low, none).
    RemapBanks,
    /// 0 none, 1 reset, 2 reboot, 3 drain peer-to-peer, 4 drain and reset, 5 recover IMEX.
    RecoveryAction,
    /// 0 or 1; (ok, degraded, failed, predicted_failure); derived.
    Status,
    /// 0 or 1; (current, pending).
    MigEnabled,
    /// 0 or 1.
    Persistence,
    /// 0 or 1; (default, exclusive_thread, prohibited, exclusive_process).
    ComputeMode,
    /// Processes; (compute, graphics).
    ProcessCount,
    /// Percent.
    GraphicsActivity,
    /// Percent.
    SmActivity,
    /// Percent.
    SmOccupancy,
    /// Percent.
    TensorActivity,
    /// Percent.
    MemoryBandwidth,
    /// MiB a second, from the profiling counters; (transmit, receive).
    ProfiledPcie,
    /// MiB a second, from the profiling counters; (transmit, receive).
    ProfiledNvlink,
}

/// Readings that are switched on and off together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Group {
    /// What the engines do.
    Utilization,
    /// Memory and BAR1.
    Memory,
    /// Temperatures and their limits.
    Temperature,
    /// Power, energy, limits.
    Power,
    /// Clocks and performance state.
    Clocks,
    /// Why and how long clocks were held back.
    Throttling,
    /// Fans.
    Fans,
    /// Link, bytes, errors.
    Pcie,
    /// The sampled throughput, which blocks for 40 ms a device.
    PcieThroughput,
    /// Links, bytes, errors in sum, fabric.
    Nvlink,
    /// Errors by link.
    NvlinkLinks,
    /// ECC, retired pages, remapped rows, recovery.
    Ecc,
    /// ECC by place.
    EccLocations,
    /// MIG mode and instances.
    Mig,
    /// Persistence, compute mode.
    Modes,
    /// Profiling counters (GPM).
    Profiling,
    /// Readings of each process.
    Process,
    /// XIDs and other events.
    Events,
}

/// Which groups are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Groups(pub u32);

impl Groups {
    /// Whether this group is on.
    pub const fn has(self, group: Group) -> bool {
        self.0 & (1 << group as u32) != 0
    }
}
