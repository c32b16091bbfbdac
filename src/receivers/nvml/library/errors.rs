//! What each of NVML's errors means for us.
//!
//! Codes that `nvml-wrapper` has no name for arrive as `UnexpectedVariant`; so do values of enums that it does not
//! know. Whoever calls something that returns such an enum turns the latter into something else first.

use std::path::Path;

use nvml_wrapper::error::NvmlError;

use crate::receivers::nvml::model::{Closed, Reason};

/// Codes without a name in `nvml-wrapper`.
const GPU_NOT_FOUND: u32 = 28;
const STRUCT_VERSION: u32 = 25;
const DEPRECATED: u32 = 26;

/// What to do about a failed call into a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// The device or the driver does not have it: not asked again in this generation.
    Unsupported,
    /// We may not: not asked again in this generation, and said once.
    Denied,
    /// The argument is wrong, which may mean that the handle is.
    Invalid,
    /// There is nothing there, which is fine.
    Empty,
    /// The list has grown since it was measured.
    Grew,
    /// This device is gone or needs a reset; the others go on.
    Lost,
    /// Nothing can be read any more.
    Closed(Reason),
    /// The driver does not say what is wrong. All calls of all devices together, it may be all of it.
    Unknown,
    /// Not this time.
    Skip,
}

/// What to do about a failed call into a device.
pub(super) fn class(error: &NvmlError) -> Class {
    match error {
        NvmlError::NotSupported
        | NvmlError::FailedToLoadSymbol(_)
        | NvmlError::FunctionNotFound
        | NvmlError::VgpuEccNotSupported
        | NvmlError::UnexpectedVariant(STRUCT_VERSION | DEPRECATED) => Class::Unsupported,
        NvmlError::NoPermission => Class::Denied,
        NvmlError::InvalidArg => Class::Invalid,
        NvmlError::NotFound | NvmlError::Timeout => Class::Empty,
        NvmlError::InsufficientSize(_) => Class::Grew,
        NvmlError::GpuLost | NvmlError::ResetRequired => Class::Lost,
        NvmlError::Uninitialized | NvmlError::DriverNotLoaded => Class::Closed(Reason::DriverNotLoaded),
        NvmlError::LibRmVersionMismatch => Class::Closed(Reason::VersionMismatch),
        NvmlError::UnexpectedVariant(GPU_NOT_FOUND) => Class::Closed(Reason::Changed),
        NvmlError::Unknown => Class::Unknown,
        _ => Class::Skip,
    }
}

/// The word under which a failed call is counted.
pub(super) fn word(error: &NvmlError) -> &'static str {
    match error {
        NvmlError::Uninitialized => "uninitialized",
        NvmlError::InvalidArg => "invalid_argument",
        NvmlError::NotSupported => "not_supported",
        NvmlError::NoPermission => "no_permission",
        NvmlError::NotFound => "not_found",
        NvmlError::InsufficientSize(_) => "insufficient_size",
        NvmlError::InsufficientPower => "insufficient_power",
        NvmlError::DriverNotLoaded => "driver_not_loaded",
        NvmlError::Timeout => "timeout",
        NvmlError::IrqIssue => "irq_issue",
        NvmlError::LibraryNotFound => "library_not_found",
        NvmlError::FunctionNotFound | NvmlError::FailedToLoadSymbol(_) => "function_not_found",
        NvmlError::CorruptedInfoROM => "corrupted_inforom",
        NvmlError::GpuLost => "gpu_is_lost",
        NvmlError::ResetRequired => "reset_required",
        NvmlError::OperatingSystem => "operating_system",
        NvmlError::LibRmVersionMismatch => "lib_rm_version_mismatch",
        NvmlError::InUse => "in_use",
        NvmlError::InsufficientMemory => "memory",
        NvmlError::NoData => "no_data",
        NvmlError::VgpuEccNotSupported => "vgpu_ecc_not_supported",
        NvmlError::Unknown => "unknown",
        NvmlError::UnexpectedVariant(23) => "insufficient_resources",
        NvmlError::UnexpectedVariant(24) => "freq_not_supported",
        NvmlError::UnexpectedVariant(STRUCT_VERSION) => "argument_version_mismatch",
        NvmlError::UnexpectedVariant(DEPRECATED) => "deprecated",
        NvmlError::UnexpectedVariant(27) => "not_ready",
        NvmlError::UnexpectedVariant(GPU_NOT_FOUND) => "gpu_not_found",
        NvmlError::UnexpectedVariant(29) => "invalid_state",
        NvmlError::UnexpectedVariant(30) => "reset_type_not_supported",
        NvmlError::LibloadingError(_) => "library",
        _ => "unexpected_value",
    }
}

/// Why the library at `path` (`None`: where the system finds it) could not be opened.
pub(super) fn at_init(error: &NvmlError, path: Option<&Path>, worked_before: bool) -> Closed {
    let library = path.map_or_else(|| super::DEFAULT_LIBRARY.to_owned(), |path| path.display().to_string());
    let (reason, message) = match error {
        NvmlError::LibloadingError(cause) => {
            let absent = match path.filter(|path| path.components().count() > 1) {
                Some(path) => !path.exists(),
                // The loader's message names the library itself, not one that the library in turn needs.
                None => cause.to_string().contains(&format!("{library}: cannot open shared object file")),
            };
            if absent {
                let hint = "there is no NVIDIA driver here, or library_path must say where its library is";
                (Reason::NoLibrary, format!("{library} was not found: {hint}"))
            } else {
                (Reason::BadLibrary, format!("{library} cannot be loaded: {cause}"))
            }
        }
        NvmlError::FailedToLoadSymbol(symbol) => {
            (Reason::BadLibrary, format!("{library} is not NVML, or too old: {symbol}"))
        }
        NvmlError::DriverNotLoaded | NvmlError::Uninitialized => (
            Reason::DriverNotLoaded,
            "the NVIDIA driver is not loaded: see whether `nvidia-smi` works on this node".to_owned(),
        ),
        NvmlError::LibraryNotFound => (
            Reason::DriverNotLoaded,
            format!("{library} misses a library of the driver: the installation is not complete"),
        ),
        NvmlError::LibRmVersionMismatch => (
            Reason::VersionMismatch,
            format!(
                "{library} and the loaded kernel module have different versions: reload the driver or reboot; in a \
                 container whose driver was upgraded, make the pod anew"
            ),
        ),
        NvmlError::NoPermission => (
            Reason::NoPermission,
            "the driver may not be used by this process: it needs access to /dev/nvidiactl and /dev/nvidia*".to_owned(),
        ),
        NvmlError::Unknown if worked_before => (Reason::AccessLost, access_lost()),
        NvmlError::Unknown => (
            Reason::Other,
            "the driver does not answer (unknown error): are the device nodes /dev/nvidia* there, and may they be \
             used? The kernel's log may say more"
                .to_owned(),
        ),
        other => (Reason::Other, format!("{library} could not be initialised: {other}")),
    };
    Closed { reason, message }
}

/// Why a generation ended in the middle.
pub(super) fn later(reason: Reason, error: &NvmlError) -> Closed {
    let message = match reason {
        Reason::DriverNotLoaded => "the NVIDIA driver was unloaded or restarted".to_owned(),
        Reason::VersionMismatch => "the NVIDIA driver was upgraded; its library is loaded anew".to_owned(),
        Reason::Changed => format!("the devices changed: {error}"),
        _ => error.to_string(),
    };
    Closed { reason, message }
}

/// What to say when everything worked and nothing does any more.
pub(super) fn access_lost() -> String {
    "the driver refuses everything although it worked before: this container has lost access to its devices, as after \
     `systemctl daemon-reload` on the host; only making the pod anew helps"
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_class() {
        let reason = Class::Closed;
        let table = [
            (1, reason(Reason::DriverNotLoaded), "uninitialized"),
            (2, Class::Invalid, "invalid_argument"),
            (3, Class::Unsupported, "not_supported"),
            (4, Class::Denied, "no_permission"),
            (5, Class::Skip, "unexpected_value"),
            (6, Class::Empty, "not_found"),
            (7, Class::Grew, "insufficient_size"),
            (8, Class::Skip, "insufficient_power"),
            (9, reason(Reason::DriverNotLoaded), "driver_not_loaded"),
            (10, Class::Empty, "timeout"),
            (11, Class::Skip, "irq_issue"),
            (12, Class::Skip, "library_not_found"),
            (13, Class::Unsupported, "function_not_found"),
            (14, Class::Skip, "corrupted_inforom"),
            (15, Class::Lost, "gpu_is_lost"),
            (16, Class::Lost, "reset_required"),
            (17, Class::Skip, "operating_system"),
            (18, reason(Reason::VersionMismatch), "lib_rm_version_mismatch"),
            (19, Class::Skip, "in_use"),
            (20, Class::Skip, "memory"),
            (21, Class::Skip, "no_data"),
            (22, Class::Unsupported, "vgpu_ecc_not_supported"),
            (23, Class::Skip, "insufficient_resources"),
            (24, Class::Skip, "freq_not_supported"),
            (25, Class::Unsupported, "argument_version_mismatch"),
            (26, Class::Unsupported, "deprecated"),
            (27, Class::Skip, "not_ready"),
            (28, reason(Reason::Changed), "gpu_not_found"),
            (29, Class::Skip, "invalid_state"),
            (30, Class::Skip, "reset_type_not_supported"),
            (31, Class::Skip, "unexpected_value"),
            (999, Class::Unknown, "unknown"),
        ];
        for (code, expected, name) in table {
            let error = NvmlError::from(code as u32);
            assert_eq!((class(&error), word(&error)), (expected, name), "{code}");
        }
        assert_eq!(class(&NvmlError::FailedToLoadSymbol(String::new())), Class::Unsupported);
    }

    #[test]
    fn reasons_of_a_failed_start() {
        let path = Path::new("/nonexistent/libnvidia-ml.so.1");
        let reason = |code: u32, worked| at_init(&NvmlError::from(code), Some(path), worked).reason;
        assert_eq!(reason(9, false), Reason::DriverNotLoaded);
        assert_eq!(reason(12, false), Reason::DriverNotLoaded);
        assert_eq!(reason(18, false), Reason::VersionMismatch);
        assert_eq!(reason(4, false), Reason::NoPermission);
        assert_eq!(reason(999, false), Reason::Other);
        assert_eq!(reason(999, true), Reason::AccessLost);
        assert_eq!(reason(20, false), Reason::Other);
        let symbol = NvmlError::FailedToLoadSymbol("nvmlInit_v2".to_owned());
        assert_eq!(at_init(&symbol, None, false).reason, Reason::BadLibrary);
    }
}
