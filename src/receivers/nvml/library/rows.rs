//! Readings that have a call of their own: a row each. A reading more is a row here and one in the catalogue.
//!
//! A row gives up its whole call when that fails; what it returned before then is kept out. Values that the driver
//! marks as not available are not there.

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{
    Clock, ComputeMode, EccCounter, MemoryError, MemoryLocation, PcieUtilCounter, PerformancePolicy,
    PerformanceState, TemperatureSensor, TemperatureThreshold,
};
use nvml_wrapper::enum_wrappers::nv_link::ErrorCounter;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use super::device::Tier::{self, Fast, Minute, Slow, Turn};
use super::raw::{self, Handle};
use crate::receivers::nvml::model::Group::{self, *};
use crate::receivers::nvml::model::{Reading, Sample, Value, get};

/// Degrees Celsius above this are not a temperature.
const HOTTEST: u32 = 200;
/// Bits of what holds clocks back that have a meaning.
const THROTTLE_BITS: u16 = 9;

/// What a row is given, and where it puts its readings.
pub(super) struct Call<'a> {
    /// The library.
    pub(super) nvml: &'a Nvml,
    /// The device, for calls that are wrapped.
    pub(super) gpu: &'a Device<'a>,
    /// The device, for calls that are not.
    pub(super) handle: Handle,
    /// The bits of what the device can tell of why its clocks are held back.
    pub(super) throttle_bits: u64,
    /// What was read before, in this report.
    pub(super) before: &'a [Sample],
    /// What this row reads.
    pub(super) out: Vec<Sample>,
}

/// How often a row is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Times {
    /// Once.
    Once,
    /// With arguments from 0 to this, without it.
    Each(u16),
    /// For each fan.
    Fans,
    /// For each link.
    Links,
    /// Once, and only while the row before it is not supported.
    Instead,
}

/// One call and the readings it gives.
pub(super) struct Row {
    /// The symbol in the library.
    pub(super) call: &'static str,
    /// With which readings it is switched on.
    pub(super) group: Group,
    /// How often it is read.
    pub(super) tier: Tier,
    /// How often it is there.
    pub(super) times: Times,
    /// Reads it.
    pub(super) read: fn(&mut Call<'_>, u16) -> Result<(), NvmlError>,
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.call)
    }
}

impl Call<'_> {
    fn put(&mut self, reading: Reading, index: u16, value: impl Into<Value>) -> Result<(), NvmlError> {
        self.out.push(Sample { reading, index, value: value.into() });
        Ok(())
    }

    fn u32(&mut self, reading: Reading, index: u16, value: u32) -> Result<(), NvmlError> {
        if value == u32::MAX { Ok(()) } else { self.put(reading, index, value) }
    }

    fn u64(&mut self, reading: Reading, index: u16, value: u64) -> Result<(), NvmlError> {
        if value == u64::MAX { Ok(()) } else { self.put(reading, index, value) }
    }

    fn percent(&mut self, reading: Reading, index: u16, value: u32) -> Result<(), NvmlError> {
        if value > 100 { Ok(()) } else { self.put(reading, index, value) }
    }

    fn degrees(&mut self, reading: Reading, index: u16, value: u32) -> Result<(), NvmlError> {
        if value > HOTTEST { Ok(()) } else { self.put(reading, index, value) }
    }

    fn limit(&mut self, index: u16, threshold: TemperatureThreshold) -> Result<(), NvmlError> {
        let value = self.gpu.temperature_threshold(threshold)?;
        self.degrees(Reading::TemperatureLimit, index, value)
    }

    fn reasons(&mut self, active: u64) -> Result<(), NvmlError> {
        let bits = self.throttle_bits;
        for bit in (0..THROTTLE_BITS).filter(|bit| bits & (1 << bit) != 0) {
            self.put(Reading::ThrottleActive, bit, active & (1 << bit) != 0)?;
        }
        Ok(())
    }
}

const fn row(
    call: &'static str,
    group: Group,
    tier: Tier,
    times: Times,
    read: fn(&mut Call<'_>, u16) -> Result<(), NvmlError>,
) -> Row {
    Row { call, group, tier, times, read }
}

/// All of them, in the order of the report.
pub(super) static ROWS: &[Row] = &{
    use Reading as R;
    use Times::{Each, Fans as EachFan, Instead, Links, Once};
    [
        row("nvmlDeviceGetUtilizationRates", Utilization, Fast, Once, |c, _| {
            let busy = c.gpu.utilization_rates()?;
            c.percent(R::Busy, 0, busy.gpu)?;
            c.percent(R::MemoryControllerBusy, 0, busy.memory)
        }),
        row("nvmlDeviceGetEncoderUtilization", Utilization, Fast, Once, |c, _| {
            c.percent(R::Engine, 0, c.gpu.encoder_utilization()?.utilization)
        }),
        row("nvmlDeviceGetDecoderUtilization", Utilization, Fast, Once, |c, _| {
            c.percent(R::Engine, 1, c.gpu.decoder_utilization()?.utilization)
        }),
        row("nvmlDeviceGetJpgUtilization", Utilization, Fast, Once, |c, _| {
            c.percent(R::Engine, 2, raw::jpeg_utilization(c.nvml, c.handle)?)
        }),
        row("nvmlDeviceGetOfaUtilization", Utilization, Fast, Once, |c, _| {
            c.percent(R::Engine, 3, raw::ofa_utilization(c.nvml, c.handle)?)
        }),
        row("nvmlDeviceGetMemoryInfo_v2", Memory, Fast, Once, |c, _| memory(c)),
        row("nvmlDeviceGetMemoryInfo", Memory, Fast, Instead, |c, _| memory_v1(c)),
        row("nvmlDeviceGetBAR1MemoryInfo", Memory, Slow, Once, |c, _| {
            let memory = c.gpu.bar1_memory_info()?;
            c.u64(R::Bar1Total, 0, memory.total)?;
            c.u64(R::Bar1Used, 0, memory.used)
        }),
        row("nvmlDeviceGetTemperature", Temperature, Fast, Once, |c, _| {
            c.degrees(R::Temperature, 0, c.gpu.temperature(TemperatureSensor::Gpu)?)
        }),
        row("nvmlDeviceGetTemperatureV", Temperature, Fast, Instead, |c, _| {
            let value = raw::temperature(c.nvml, c.handle)?;
            u32::try_from(value).map_or(Ok(()), |value| c.degrees(R::Temperature, 0, value))
        }),
        row("nvmlDeviceGetTemperatureThreshold(slowdown)", Temperature, Slow, Once, |c, _| {
            c.limit(0, TemperatureThreshold::Slowdown)
        }),
        row("nvmlDeviceGetTemperatureThreshold(shutdown)", Temperature, Slow, Once, |c, _| {
            c.limit(1, TemperatureThreshold::Shutdown)
        }),
        row("nvmlDeviceGetTemperatureThreshold(gpu max)", Temperature, Slow, Once, |c, _| {
            c.limit(2, TemperatureThreshold::GpuMax)
        }),
        row("nvmlDeviceGetTemperatureThreshold(memory max)", Temperature, Slow, Once, |c, _| {
            c.limit(3, TemperatureThreshold::MemoryMax)
        }),
        row("nvmlDeviceGetMarginTemperature", Temperature, Fast, Once, |c, _| {
            let margin = raw::margin(c.nvml, c.handle)?;
            if margin.unsigned_abs() > HOTTEST { Ok(()) } else { c.put(R::TemperatureMargin, 0, margin) }
        }),
        row("nvmlDeviceGetPowerUsage", Power, Fast, Once, |c, _| c.u32(R::Power, 0, c.gpu.power_usage()?)),
        row("nvmlDeviceGetTotalEnergyConsumption", Power, Fast, Once, |c, _| {
            c.u64(R::Energy, 0, c.gpu.total_energy_consumption()?)
        }),
        row("nvmlDeviceGetEnforcedPowerLimit", Power, Minute, Once, |c, _| {
            c.u32(R::PowerLimit, 0, c.gpu.enforced_power_limit()?)
        }),
        row("nvmlDeviceGetPowerManagementLimit", Power, Minute, Once, |c, _| {
            c.u32(R::PowerLimit, 1, c.gpu.power_management_limit()?)
        }),
        row("nvmlDeviceGetPowerManagementDefaultLimit", Power, Minute, Once, |c, _| {
            c.u32(R::PowerLimit, 2, c.gpu.power_management_limit_default()?)
        }),
        row("nvmlDeviceGetPowerManagementLimitConstraints", Power, Minute, Once, |c, _| {
            let limits = c.gpu.power_management_limit_constraints()?;
            c.u32(R::PowerLimit, 3, limits.min_limit)?;
            c.u32(R::PowerLimit, 4, limits.max_limit)
        }),
        row("nvmlDeviceGetClockInfo", Clocks, Fast, Each(4), |c, which| {
            let Some(clock) = clock(which) else { return Ok(()) };
            c.u32(R::Clock, which, c.gpu.clock_info(clock)?)
        }),
        row("nvmlDeviceGetMaxClockInfo", Clocks, Slow, Each(4), |c, which| {
            let Some(clock) = clock(which) else { return Ok(()) };
            c.u32(R::ClockMax, which, c.gpu.max_clock_info(clock)?)
        }),
        row("nvmlDeviceGetPerformanceState", Clocks, Fast, Once, |c, _| match c.gpu.performance_state() {
            Ok(PerformanceState::Unknown) => Ok(()),
            Ok(state) => c.put(R::PerformanceState, 0, state.as_c()),
            Err(error) => unknown_word(error),
        }),
        row("nvmlDeviceGetCurrentClocksThrottleReasons", Throttling, Fast, Once, |c, _| {
            let active = c.gpu.current_throttle_reasons()?;
            c.reasons(active.bits())
        }),
        row("nvmlDeviceGetCurrentClocksEventReasons", Throttling, Fast, Instead, |c, _| {
            let active = raw::event_reasons(c.nvml, c.handle)?;
            c.reasons(active)
        }),
        row("nvmlDeviceGetViolationStatus", Throttling, Fast, Each(8), |c, which| {
            // Fields tell the same, where the driver has them.
            let Some(policy) = policy(which) else { return Ok(()) };
            if get(c.before, R::ThrottleTime, which).is_some() {
                return Ok(());
            }
            c.u64(R::ThrottleTime, which, c.gpu.violation_status(policy)?.violation_time)
        }),
        row("nvmlDeviceGetFanSpeed_v2", Fans, Fast, EachFan, |c, fan| {
            c.u32(R::FanDuty, fan, c.gpu.fan_speed(fan.into())?)
        }),
        row("nvmlDeviceGetFanSpeedRPM", Fans, Slow, EachFan, |c, fan| {
            c.u32(R::FanSpeed, fan, c.gpu.fan_speed_rpm(fan.into())?)
        }),
        row("nvmlDeviceGetPcieThroughput", PcieThroughput, Turn, Once, |c, _| {
            c.u32(R::PcieThroughput, 0, c.gpu.pcie_throughput(PcieUtilCounter::Send)?)?;
            c.u32(R::PcieThroughput, 1, c.gpu.pcie_throughput(PcieUtilCounter::Receive)?)
        }),
        row("nvmlDeviceGetCurrPcieLinkGeneration", Pcie, Fast, Once, |c, _| {
            c.u32(R::PcieGeneration, 0, c.gpu.current_pcie_link_gen()?)
        }),
        row("nvmlDeviceGetCurrPcieLinkWidth", Pcie, Fast, Once, |c, _| {
            c.u32(R::PcieWidth, 0, c.gpu.current_pcie_link_width()?)
        }),
        row("nvmlDeviceGetMaxPcieLinkGeneration", Pcie, Slow, Once, |c, _| {
            c.u32(R::PcieGenerationMax, 0, c.gpu.max_pcie_link_gen()?)
        }),
        row("nvmlDeviceGetMaxPcieLinkWidth", Pcie, Slow, Once, |c, _| {
            c.u32(R::PcieWidthMax, 0, c.gpu.max_pcie_link_width()?)
        }),
        row("nvmlDeviceGetPcieReplayCounter", Pcie, Fast, Once, |c, _| {
            c.u32(R::PcieReplays, 0, c.gpu.pcie_replay_counter()?)
        }),
        row("nvmlDeviceGetNvLinkState", Nvlink, Fast, Links, |c, link| {
            let active = match c.gpu.link_wrapper_for(link.into()).is_active() {
                // It sleeps.
                Err(NvmlError::UnexpectedVariant(2)) => false,
                other => other?,
            };
            c.put(R::NvlinkActive, link, active)
        }),
        row("nvmlDeviceGetNvLinkErrorCounter(replay)", NvlinkLinks, Slow, Links, |c, link| {
            link_errors(c, link, 0, ErrorCounter::DlReplay)
        }),
        row("nvmlDeviceGetNvLinkErrorCounter(recovery)", NvlinkLinks, Slow, Links, |c, link| {
            link_errors(c, link, 1, ErrorCounter::DlRecovery)
        }),
        row("nvmlDeviceGetNvLinkErrorCounter(crc flit)", NvlinkLinks, Slow, Links, |c, link| {
            link_errors(c, link, 2, ErrorCounter::DlCrcFlit)
        }),
        row("nvmlDeviceGetNvLinkErrorCounter(crc data)", NvlinkLinks, Slow, Links, |c, link| {
            link_errors(c, link, 3, ErrorCounter::DlCrcData)
        }),
        row("nvmlDeviceGetGpuFabricInfoV", Nvlink, Slow, Once, |c, _| {
            c.u32(R::FabricState, 0, raw::fabric_state(c.nvml, c.handle)?)
        }),
        row("nvmlDeviceGetTotalEccErrors(corrected)", Ecc, Fast, Once, |c, _| {
            c.u64(R::EccErrors, 0, c.gpu.total_ecc_errors(MemoryError::Corrected, EccCounter::Volatile)?)
        }),
        row("nvmlDeviceGetTotalEccErrors(uncorrected)", Ecc, Fast, Once, |c, _| {
            c.u64(R::EccErrors, 1, c.gpu.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile)?)
        }),
        row("nvmlDeviceGetTotalEccErrors(corrected, lifetime)", Ecc, Slow, Once, |c, _| {
            c.u64(R::EccLifetime, 0, c.gpu.total_ecc_errors(MemoryError::Corrected, EccCounter::Aggregate)?)
        }),
        row("nvmlDeviceGetTotalEccErrors(uncorrected, lifetime)", Ecc, Slow, Once, |c, _| {
            c.u64(R::EccLifetime, 1, c.gpu.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Aggregate)?)
        }),
        row("nvmlDeviceGetMemoryErrorCounter", EccLocations, Slow, Each(16), |c, which| {
            let kind = if which < 8 { MemoryError::Corrected } else { MemoryError::Uncorrected };
            let Some(place) = place(which % 8) else { return Ok(()) };
            c.u64(R::EccLocation, which, c.gpu.memory_error_counter(kind, EccCounter::Volatile, place)?)
        }),
        row("nvmlDeviceGetEccMode", Ecc, Slow, Once, |c, _| {
            let mode = c.gpu.is_ecc_enabled()?;
            c.put(R::EccEnabled, 0, mode.currently_enabled)?;
            c.put(R::EccEnabled, 1, mode.pending_enabled)
        }),
        row("nvmlDeviceGetRowRemapperHistogram", Ecc, Slow, Once, |c, _| {
            for (index, banks) in (0..).zip(raw::spare_rows(c.nvml, c.handle)?) {
                c.u32(R::RemapBanks, index, banks)?;
            }
            Ok(())
        }),
        row("nvmlDeviceGetMigMode", Mig, Slow, Once, |c, _| {
            let mode = c.gpu.mig_mode()?;
            c.put(R::MigEnabled, 0, mode.current != 0)?;
            c.put(R::MigEnabled, 1, mode.pending != 0)
        }),
        row("nvmlDeviceGetPersistenceMode", Modes, Slow, Once, |c, _| {
            c.put(R::Persistence, 0, c.gpu.is_in_persistent_mode()?)
        }),
        row("nvmlDeviceGetComputeMode", Modes, Slow, Once, |c, _| match c.gpu.compute_mode() {
            Ok(mode) => [
                ComputeMode::Default,
                ComputeMode::ExclusiveThread,
                ComputeMode::Prohibited,
                ComputeMode::ExclusiveProcess,
            ]
            .into_iter()
            .zip(0..)
            .try_for_each(|(one, index)| c.put(R::ComputeMode, index, mode == one)),
            Err(error) => unknown_word(error),
        }),
    ]
};

/// Memory as drivers since 510 tell it.
pub(super) fn memory(c: &mut Call<'_>) -> Result<(), NvmlError> {
    let memory = c.gpu.memory_info()?;
    c.u64(Reading::MemoryTotal, 0, memory.total)?;
    c.u64(Reading::MemoryUsed, 0, memory.used)?;
    c.u64(Reading::MemoryFree, 0, memory.free)?;
    c.u64(Reading::MemoryReserved, 0, memory.reserved)
}

/// Memory as drivers before that tell it: nothing is known of the reserve.
pub(super) fn memory_v1(c: &mut Call<'_>) -> Result<(), NvmlError> {
    let memory = raw::memory_v1(c.nvml, c.handle)?;
    c.u64(Reading::MemoryTotal, 0, memory.total)?;
    c.u64(Reading::MemoryUsed, 0, memory.used)?;
    c.u64(Reading::MemoryFree, 0, memory.free)
}

/// The bits of what a device can tell of why its clocks are held back. Where it cannot say, all that have a meaning.
pub(super) fn throttle_bits(nvml: &Nvml, gpu: &Device<'_>) -> u64 {
    gpu.supported_throttle_reasons()
        .map(|reasons| reasons.bits())
        .or_else(|_| raw::supported_event_reasons(nvml, Handle::of(gpu)))
        .unwrap_or_else(|_| ThrottleReasons::all().bits())
}

fn link_errors(c: &mut Call<'_>, link: u16, kind: u16, counter: ErrorCounter) -> Result<(), NvmlError> {
    let count = c.gpu.link_wrapper_for(link.into()).error_counter(counter)?;
    c.u64(Reading::NvlinkLinkErrors, link * 4 + kind, count)
}

/// A word that `nvml-wrapper` does not know is no reading; every other error stays one.
fn unknown_word(error: NvmlError) -> Result<(), NvmlError> {
    match error {
        NvmlError::UnexpectedVariant(code) if !(23..=30).contains(&code) => Ok(()),
        error => Err(error),
    }
}

fn clock(which: u16) -> Option<Clock> {
    [Clock::Graphics, Clock::SM, Clock::Memory, Clock::Video].get(usize::from(which)).copied()
}

fn policy(which: u16) -> Option<PerformancePolicy> {
    use PerformancePolicy as P;
    let all = [
        P::Power,
        P::Thermal,
        P::SyncBoost,
        P::BoardLimit,
        P::LowUtilization,
        P::Reliability,
        P::TotalAppClocks,
        P::TotalBaseClocks,
    ];
    all.get(usize::from(which)).copied()
}

fn place(which: u16) -> Option<MemoryLocation> {
    use MemoryLocation as M;
    [M::L1Cache, M::L2Cache, M::Device, M::RegisterFile, M::Texture, M::Shared, M::Cbu, M::SRAM]
        .get(usize::from(which))
        .copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_for_a_row_stands_behind_it() {
        for pair in ROWS.windows(2) {
            if pair[1].times == Times::Instead {
                assert_eq!(pair[0].times, Times::Once, "{:?}", pair[1]);
                assert_eq!(pair[0].group, pair[1].group, "{:?}", pair[1]);
            }
        }
        assert_ne!(ROWS[0].times, Times::Instead);
    }

    #[test]
    fn words_of_newer_drivers_are_no_error() {
        assert!(unknown_word(NvmlError::UnexpectedVariant(17)).is_ok());
        assert!(unknown_word(NvmlError::UnexpectedVariant(28)).is_err());
        assert!(unknown_word(NvmlError::NotSupported).is_err());
    }
}
