//! Calls that change a device. A monitor must not make them: each is misuse, and answers "no permission".

use super::{Code, code};
use crate::state::{Call, SHARED};

macro_rules! forbidden {
    ($($name:ident;)*) => {$(
        /// Whatever it is called with.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() -> Code {
            let call = || Call::of(stringify!($name));
            SHARED.global(call(), true, |state| {
                state.misused(&call(), "changes the state of a device", code::NO_PERMISSION)
            })
        }
    )*};
}

forbidden! {
    nvmlDeviceSetPersistenceMode;
    nvmlDeviceSetComputeMode;
    nvmlDeviceSetEccMode;
    nvmlDeviceClearEccErrorCounts;
    nvmlDeviceSetGpuLockedClocks;
    nvmlDeviceResetGpuLockedClocks;
    nvmlDeviceSetMemoryLockedClocks;
    nvmlDeviceResetMemoryLockedClocks;
    nvmlDeviceSetApplicationsClocks;
    nvmlDeviceResetApplicationsClocks;
    nvmlDeviceSetTemperatureThreshold;
    nvmlDeviceSetPowerManagementLimit;
    nvmlDeviceSetPowerManagementLimit_v2;
    nvmlDeviceSetGpuOperationMode;
    nvmlDeviceSetAPIRestriction;
    nvmlDeviceSetFanSpeed_v2;
    nvmlDeviceSetDefaultFanSpeed_v2;
    nvmlDeviceSetFanControlPolicy;
    nvmlDeviceSetAccountingMode;
    nvmlDeviceClearAccountingPids;
    nvmlDeviceResetNvLinkErrorCounters;
    nvmlDeviceSetNvLinkUtilizationControl;
    nvmlDeviceFreezeNvLinkUtilizationCounter;
    nvmlDeviceResetNvLinkUtilizationCounter;
    nvmlDeviceClearFieldValues;
    nvmlDeviceSetMigMode;
    nvmlDeviceCreateGpuInstance;
    nvmlGpuInstanceDestroy;
    nvmlGpuInstanceCreateComputeInstance;
    nvmlComputeInstanceDestroy;
    nvmlDeviceModifyDrainState;
    nvmlDeviceRemoveGpu_v2;
    nvmlGpmSetStreamingEnabled;
}
