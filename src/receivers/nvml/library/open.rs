//! From a library to an inventory: loading it, and asking once what does not change.

use std::path::Path;

use nvml_wrapper::bitmasks::InitFlags;
use nvml_wrapper::enum_wrappers::device::GpuVirtualizationMode;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use super::DEFAULT_LIBRARY;
use super::errors::{self, Class};
use super::raw;
use crate::receivers::nvml::model::{COMPUTE_SLICES, Closed, Driver, Group, Groups, Identity, Reason};

/// The number of the profile that takes a whole GPU of seven slices, and of one that takes four.
const WHOLE_PROFILES: [u32; 2] = [4, 3];

/// Loads the library and initialises it. A node whose GPUs are absent is none that fails.
///
/// # Errors
/// Why it cannot be used.
pub(super) fn load(path: Option<&Path>, worked_before: bool) -> Result<Nvml, Closed> {
    let init = |flags| {
        let library = path.map_or_else(|| DEFAULT_LIBRARY.as_ref(), Path::as_os_str);
        Nvml::builder().lib_path(library).flags(flags).init()
    };
    let nvml = match init(InitFlags::NO_GPUS) {
        // Drivers before that flag have the plain call only.
        Err(NvmlError::FailedToLoadSymbol(_)) => init(InitFlags::empty()),
        other => other,
    };
    let nvml = nvml.map_err(|error| errors::at_init(&error, path, worked_before))?;
    if raw::can_shut_down(&nvml) {
        return Ok(nvml);
    }
    // Dropping it would call what is not there.
    std::mem::forget(nvml);
    Err(Closed {
        reason: Reason::BadLibrary,
        message: "the library is not NVML: it has no nvmlShutdown".to_owned(),
    })
}

/// What is known of the driver.
pub(super) fn driver(nvml: &Nvml) -> Driver {
    let cuda = raw::cuda_version(nvml).or_else(|_| nvml.sys_cuda_driver_version()).ok();
    Driver {
        version: nvml.sys_driver_version().unwrap_or_default(),
        nvml: nvml.sys_nvml_version().ok(),
        cuda: cuda.and_then(cuda_text),
    }
}

/// The branch of a driver's version: 580 of `580.82.07`; 0 of what is no version.
pub(super) fn branch(version: &str) -> u32 {
    version.split('.').next().and_then(|branch| branch.parse().ok()).unwrap_or(0)
}

/// Who a device is. What it does not tell is left out.
///
/// # Errors
/// When it does not even tell its UUID, or went away in the middle.
pub(super) fn identity(gpu: &Device<'_>, index: u32, groups: Groups) -> Result<Identity, NvmlError> {
    let uuid = gpu.uuid()?;
    let wants_links = groups.has(Group::Nvlink) || groups.has(Group::NvlinkLinks);
    let capability = told(gpu.cuda_compute_capability())?;
    let virtualization = match told(gpu.virtualization_mode())? {
        Some(GpuVirtualizationMode::PassThrough) => Some("passthrough"),
        Some(GpuVirtualizationMode::Vgpu) => Some("vgpu"),
        Some(GpuVirtualizationMode::HostVgpu) => Some("host_vgpu"),
        Some(GpuVirtualizationMode::HostVsga) => Some("host_vsga"),
        Some(GpuVirtualizationMode::Bare) | None => None,
    };
    Ok(Identity {
        uuid: uuid.into(),
        index,
        name: told(gpu.name())?.unwrap_or_default().into(),
        pci_bus_id: told(gpu.pci_info())?.map(|pci| pci.bus_id),
        minor: told(gpu.minor_number())?,
        serial: text(gpu.serial())?,
        vbios: text(gpu.vbios_version())?,
        architecture: told(gpu.architecture())?.map(|a| format!("{a:?}")).filter(|a| a != "Unknown"),
        compute_capability: capability.map(|version| format!("{}.{}", version.major, version.minor)),
        part_number: text(gpu.board_part_number())?,
        virtualization: virtualization.map(str::to_owned),
        nvlink_version: if wants_links { told(gpu.link_wrapper_for(0).version())? } else { None },
        compute_slices: compute_slices(gpu),
    })
}

/// What a device does not have is left out; that it went away in the middle is not.
fn told<T>(answer: Result<T, NvmlError>) -> Result<Option<T>, NvmlError> {
    match answer {
        Ok(told) => Ok(Some(told)),
        // A word that `nvml-wrapper` does not know, such as an architecture, looks like a code.
        Err(NvmlError::UnexpectedVariant(_)) => Ok(None),
        Err(error) => match errors::class(&error) {
            Class::Lost | Class::Closed(_) => Err(error),
            _ => Ok(None),
        },
    }
}

fn text(answer: Result<String, NvmlError>) -> Result<Option<String>, NvmlError> {
    Ok(told(answer)?.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()))
}

fn compute_slices(gpu: &Device<'_>) -> u32 {
    if gpu.mig_mode().is_err() {
        return COMPUTE_SLICES;
    }
    let slices =
        |profile| gpu.profile_info(profile).ok().map(|info| info.slice_count).filter(|&slices| slices > 0);
    WHOLE_PROFILES.into_iter().find_map(slices).unwrap_or(COMPUTE_SLICES)
}

/// 12040 means 12.4.
fn cuda_text(version: i32) -> Option<String> {
    (version > 0).then(|| format!("{}.{}", version / 1000, version % 1000 / 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(cuda_text(12040).as_deref(), Some("12.4"));
        assert_eq!(cuda_text(13000).as_deref(), Some("13.0"));
        assert_eq!(cuda_text(0), None);
        for (version, expected) in [("580.82.07", 580), ("470.256.02", 470), ("590", 590), ("", 0), ("r5", 0)]
        {
            assert_eq!(branch(version), expected, "{version}");
        }
    }
}
