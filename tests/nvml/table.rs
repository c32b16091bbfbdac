//! What each of NVML's answers becomes, written down from the reference: name, unit, kind, attributes, value.
//!
//! A paragraph is a reading. Its first lines, `key = JSON`, are what the stand-in answers, by every call that tells it;
//! the indented ones, `name | unit | kind | attributes | value`, are the points that must come of it, no more and no
//! fewer. Every point of a device also has `hw.id` and `hw.name`; `@fan0` stands for a fan's `hw.id` and `hw.parent`.
//! Values are chosen so that no two readings can be mistaken for each other.

/// What a device must answer so that readings can be asked for: numbers of things, support, identity.
pub const BASICS: &str = "
nvmlDeviceGetNumFans = 2
nvmlDeviceGetSupportedClocksThrottleReasons = 511
nvmlGpmQueryDeviceSupport = 1
nvmlDeviceGetSupportedEventTypes = 415
nvmlDeviceGetName = \"NVIDIA H200\"
nvmlDeviceGetSerial = \"1650524000001\"
nvmlDeviceGetBoardPartNumber = \"692-2G520-0200-000\"
nvmlDeviceGetVbiosVersion = \"96.00.A5.00.01\"
nvmlDeviceGetMinorNumber = 3
nvmlDeviceGetPciInfo_v3 = [\"00000000:19:00.0\", 590684382, 371658974]
nvmlDeviceGetArchitecture = 9
nvmlDeviceGetBrand = 14
nvmlDeviceGetVirtualizationMode = 0
nvmlDeviceGetCudaComputeCapability = [9, 0]
nvmlDeviceGetNvLinkVersion/0 = 6
nvmlDeviceGetNvLinkVersion/1 = 6
field/91 = 2
";

/// The readings.
pub const READINGS: &str = "
nvmlDeviceGetUtilizationRates = [37, 21]
  hw.gpu.utilization | 1 | gauge | hw.gpu.task=general | 0.37
  nvidia.gpu.memory.controller.utilization | 1 | gauge | | 0.21

nvmlDeviceGetEncoderUtilization = [11, 167000]
  hw.gpu.utilization | 1 | gauge | hw.gpu.task=encoder | 0.11

nvmlDeviceGetDecoderUtilization = [12, 167000]
  hw.gpu.utilization | 1 | gauge | hw.gpu.task=decoder | 0.12

nvmlDeviceGetJpgUtilization = [13, 167000]
  hw.gpu.utilization | 1 | gauge | hw.gpu.task=jpeg | 0.13

nvmlDeviceGetOfaUtilization = [14, 167000]
  hw.gpu.utilization | 1 | gauge | hw.gpu.task=ofa | 0.14

nvmlDeviceGetMemoryInfo_v2 = [150754820096, 754820096, 30000000000, 120000000000]
nvmlDeviceGetMemoryInfo = [150754820096, 30000000000, 120754820096]
  hw.gpu.memory.limit | By | updown | | 150754820096
  hw.gpu.memory.usage | By | updown | | 120000000000
  nvidia.gpu.memory.free | By | updown | | 30000000000
  nvidia.gpu.memory.reserved | By | updown | | 754820096
  hw.gpu.memory.utilization | 1 | gauge | | 0.8

nvmlDeviceGetBAR1MemoryInfo = [274877906944, 274876858368, 1048576]
  nvidia.gpu.bar1.memory.limit | By | updown | | 274877906944
  nvidia.gpu.bar1.memory.usage | By | updown | | 1048576

nvmlDeviceGetTemperature/0 = 52
nvmlDeviceGetTemperatureV/0 = 52
  hw.temperature | Cel | gauge | hw.sensor_location=gpu | 52

field/82 = 61
  hw.temperature | Cel | gauge | hw.sensor_location=memory | 61

nvmlDeviceGetTemperatureThreshold/1 = 87
  hw.temperature.limit | Cel | gauge | hw.limit_type=high.degraded;hw.sensor_location=gpu | 87

nvmlDeviceGetTemperatureThreshold/0 = 92
  hw.temperature.limit | Cel | gauge | hw.limit_type=high.critical;hw.sensor_location=gpu | 92

nvmlDeviceGetTemperatureThreshold/3 = 86
  hw.temperature.limit | Cel | gauge | hw.limit_type=max;hw.sensor_location=gpu | 86

nvmlDeviceGetTemperatureThreshold/2 = 95
  hw.temperature.limit | Cel | gauge | hw.limit_type=max;hw.sensor_location=memory | 95

nvmlDeviceGetMarginTemperature = -3
  nvidia.gpu.temperature.margin | Cel | gauge | | -3

nvmlDeviceGetPowerUsage = 78125
  hw.power | W | gauge | hw.type=gpu | 78.125

nvmlDeviceGetTotalEnergyConsumption = 3600000250
field/83 = 3600000250
  hw.energy | J | counter | hw.type=gpu | 3600000.25

nvmlDeviceGetEnforcedPowerLimit = 650000
  nvidia.gpu.power.limit | W | gauge | nvidia.gpu.power.limit.type=enforced | 650

nvmlDeviceGetPowerManagementLimit = 660000
  nvidia.gpu.power.limit | W | gauge | nvidia.gpu.power.limit.type=requested | 660

nvmlDeviceGetPowerManagementDefaultLimit = 700000
  nvidia.gpu.power.limit | W | gauge | nvidia.gpu.power.limit.type=default | 700

nvmlDeviceGetPowerManagementLimitConstraints = [200000, 710000]
  nvidia.gpu.power.limit | W | gauge | nvidia.gpu.power.limit.type=min | 200
  nvidia.gpu.power.limit | W | gauge | nvidia.gpu.power.limit.type=max | 710

field/186 = 81500
  nvidia.gpu.power.instant | W | gauge | | 81.5

nvmlDeviceGetClockInfo/0 = 1201
  nvidia.gpu.clock.frequency | Hz | gauge | nvidia.gpu.clock=graphics | 1201000000

nvmlDeviceGetClockInfo/1 = 1202
  nvidia.gpu.clock.frequency | Hz | gauge | nvidia.gpu.clock=sm | 1202000000

nvmlDeviceGetClockInfo/2 = 2619
  nvidia.gpu.clock.frequency | Hz | gauge | nvidia.gpu.clock=memory | 2619000000

nvmlDeviceGetClockInfo/3 = 765
  nvidia.gpu.clock.frequency | Hz | gauge | nvidia.gpu.clock=video | 765000000

nvmlDeviceGetMaxClockInfo/0 = 1980
  nvidia.gpu.clock.limit | Hz | gauge | nvidia.gpu.clock=graphics;hw.limit_type=max | 1980000000

nvmlDeviceGetMaxClockInfo/1 = 1981
  nvidia.gpu.clock.limit | Hz | gauge | nvidia.gpu.clock=sm;hw.limit_type=max | 1981000000

nvmlDeviceGetMaxClockInfo/2 = 2620
  nvidia.gpu.clock.limit | Hz | gauge | nvidia.gpu.clock=memory;hw.limit_type=max | 2620000000

nvmlDeviceGetMaxClockInfo/3 = 1545
  nvidia.gpu.clock.limit | Hz | gauge | nvidia.gpu.clock=video;hw.limit_type=max | 1545000000

nvmlDeviceGetCurrentClocksThrottleReasons = 37
  nvidia.gpu.clock.throttle.active | 1 | updown | nvidia.gpu.throttle.reason=gpu_idle | 1
  nvidia.gpu.clock.throttle.active | 1 | updown | nvidia.gpu.throttle.reason=applications_clocks_setting | 0
  nvidia.gpu.clock.throttle.active | 1 | updown | nvidia.gpu.throttle.reason=sw_power_cap | 1
  nvidia.gpu.clock.throttle.active | 1 | updown | nvidia.gpu.throttle.reason=hw_slowdown | 0
  nvidia.gpu.clock.throttle.active | 1 | updown | nvidia.gpu.throttle.reason=sync_boost | 0
  nvidia.gpu.clock.throttle.active | 1 | updown | nvidia.gpu.throttle.reason=sw_thermal_slowdown | 1
  nvidia.gpu.clock.throttle.active | 1 | updown | nvidia.gpu.throttle.reason=hw_thermal_slowdown | 0
  nvidia.gpu.clock.throttle.active | 1 | updown | nvidia.gpu.throttle.reason=hw_power_brake_slowdown | 0
  nvidia.gpu.clock.throttle.active | 1 | updown | nvidia.gpu.throttle.reason=display_clock_setting | 0

field/74 = 1500000000
nvmlDeviceGetViolationStatus/0 = [0, 1500000000]
  nvidia.gpu.clock.throttle.duration | s | counter | nvidia.gpu.throttle.reason=power | 1.5

field/75 = 2500000000
nvmlDeviceGetViolationStatus/1 = [0, 2500000000]
  nvidia.gpu.clock.throttle.duration | s | counter | nvidia.gpu.throttle.reason=thermal | 2.5

field/76 = 3500000000
nvmlDeviceGetViolationStatus/2 = [0, 3500000000]
  nvidia.gpu.clock.throttle.duration | s | counter | nvidia.gpu.throttle.reason=sync_boost | 3.5

field/77 = 4500000000
nvmlDeviceGetViolationStatus/3 = [0, 4500000000]
  nvidia.gpu.clock.throttle.duration | s | counter | nvidia.gpu.throttle.reason=board_limit | 4.5

field/78 = 5500000000
nvmlDeviceGetViolationStatus/4 = [0, 5500000000]
  nvidia.gpu.clock.throttle.duration | s | counter | nvidia.gpu.throttle.reason=low_utilization | 5.5

field/79 = 6500000000
nvmlDeviceGetViolationStatus/5 = [0, 6500000000]
  nvidia.gpu.clock.throttle.duration | s | counter | nvidia.gpu.throttle.reason=reliability | 6.5

field/80 = 7500000000
nvmlDeviceGetViolationStatus/10 = [0, 7500000000]
  nvidia.gpu.clock.throttle.duration | s | counter | nvidia.gpu.throttle.reason=app_clocks | 7.5

field/81 = 8500000000
nvmlDeviceGetViolationStatus/11 = [0, 8500000000]
  nvidia.gpu.clock.throttle.duration | s | counter | nvidia.gpu.throttle.reason=base_clocks | 8.5

field/251 = 9500000000
  nvidia.gpu.clock.throttle.duration | s | counter | nvidia.gpu.throttle.reason=sw_thermal_slowdown | 9.5

field/252 = 10500000000
  nvidia.gpu.clock.throttle.duration | s | counter | nvidia.gpu.throttle.reason=hw_thermal_slowdown | 10.5

field/253 = 11500000000
  nvidia.gpu.clock.throttle.duration | s | counter | nvidia.gpu.throttle.reason=hw_power_brake | 11.5

nvmlDeviceGetPerformanceState = 2
  nvidia.gpu.performance_state | | gauge | | 2

nvmlDeviceGetFanSpeed_v2/0 = 62
nvmlDeviceGetFanSpeed_v2/1 = 104
  hw.fan.speed_ratio | 1 | gauge | @fan0 | 0.62
  hw.fan.speed_ratio | 1 | gauge | @fan1 | 1.04

nvmlDeviceGetFanSpeedRPM/0 = 3120
nvmlDeviceGetFanSpeedRPM/1 = 3240
  hw.fan.speed | rpm | gauge | @fan0 | 3120
  hw.fan.speed | rpm | gauge | @fan1 | 3240

field/197 = 1970000
  hw.gpu.io | By | counter | network.io.direction=transmit | 1970000

field/198 = 1980000
  hw.gpu.io | By | counter | network.io.direction=receive | 1980000

nvmlDeviceGetPcieThroughput/0 = 512
  nvidia.gpu.pcie.throughput | By/s | gauge | network.io.direction=transmit;nvidia.gpu.source=sample | 524288

nvmlDeviceGetPcieThroughput/1 = 1024
  nvidia.gpu.pcie.throughput | By/s | gauge | network.io.direction=receive;nvidia.gpu.source=sample | 1048576

nvmlDeviceGetCurrPcieLinkGeneration = 1
  nvidia.gpu.pcie.link.generation | | gauge | | 1

nvmlDeviceGetCurrPcieLinkWidth = 8
  nvidia.gpu.pcie.link.width | {lane} | gauge | | 8

nvmlDeviceGetMaxPcieLinkGeneration = 5
  nvidia.gpu.pcie.link.generation_max | | gauge | | 5

nvmlDeviceGetMaxPcieLinkWidth = 16
  nvidia.gpu.pcie.link.width_max | {lane} | gauge | | 16

nvmlDeviceGetPcieReplayCounter = 94
field/94 = 94
  nvidia.gpu.pcie.replays | {replay} | counter | | 94

field/173 = 173
  nvidia.gpu.pcie.errors | {error} | counter | error.type=correctable | 173

field/174 = 174
  nvidia.gpu.pcie.errors | {error} | counter | error.type=naks_received | 174

field/175 = 175
  nvidia.gpu.pcie.errors | {error} | counter | error.type=receiver_error | 175

field/176 = 176
  nvidia.gpu.pcie.errors | {error} | counter | error.type=bad_tlp | 176

field/177 = 177
  nvidia.gpu.pcie.errors | {error} | counter | error.type=naks_sent | 177

field/178 = 178
  nvidia.gpu.pcie.errors | {error} | counter | error.type=bad_dllp | 178

field/179 = 179
  nvidia.gpu.pcie.errors | {error} | counter | error.type=non_fatal | 179

field/180 = 180
  nvidia.gpu.pcie.errors | {error} | counter | error.type=fatal | 180

field/181 = 181
  nvidia.gpu.pcie.errors | {error} | counter | error.type=unsupported_request | 181

field/182 = 182
  nvidia.gpu.pcie.errors | {error} | counter | error.type=lcrc | 182

field/183 = 183
  nvidia.gpu.pcie.errors | {error} | counter | error.type=lane | 183

nvmlDeviceGetNvLinkState/0 = 1
  nvidia.gpu.nvlink.active | 1 | updown | nvidia.gpu.nvlink.link=0 | 1

nvmlDeviceGetNvLinkState/1 = 0
  nvidia.gpu.nvlink.active | 1 | updown | nvidia.gpu.nvlink.link=1 | 0

field/138/4294967295 = 7
  nvidia.gpu.nvlink.io | By | counter | network.io.direction=transmit | 7168

field/139/4294967295 = 9
  nvidia.gpu.nvlink.io | By | counter | network.io.direction=receive | 9216

field/38 = 38
  nvidia.gpu.nvlink.errors | {error} | counter | error.type=crc_flit | 38

field/45 = 45
  nvidia.gpu.nvlink.errors | {error} | counter | error.type=crc_data | 45

field/52 = 52
  nvidia.gpu.nvlink.errors | {error} | counter | error.type=replay | 52

field/59 = 59
  nvidia.gpu.nvlink.errors | {error} | counter | error.type=recovery | 59

field/160 = 160
  nvidia.gpu.nvlink.errors | {error} | counter | error.type=ecc | 160

nvmlDeviceGetNvLinkErrorCounter/0/0 = 100
nvmlDeviceGetNvLinkErrorCounter/0/1 = 101
nvmlDeviceGetNvLinkErrorCounter/0/2 = 102
nvmlDeviceGetNvLinkErrorCounter/0/3 = 103
nvmlDeviceGetNvLinkErrorCounter/1/0 = 110
nvmlDeviceGetNvLinkErrorCounter/1/1 = 111
nvmlDeviceGetNvLinkErrorCounter/1/2 = 112
nvmlDeviceGetNvLinkErrorCounter/1/3 = 113
  nvidia.gpu.nvlink.link_errors | {error} | counter | nvidia.gpu.nvlink.link=0;error.type=replay | 100
  nvidia.gpu.nvlink.link_errors | {error} | counter | nvidia.gpu.nvlink.link=0;error.type=recovery | 101
  nvidia.gpu.nvlink.link_errors | {error} | counter | nvidia.gpu.nvlink.link=0;error.type=crc_flit | 102
  nvidia.gpu.nvlink.link_errors | {error} | counter | nvidia.gpu.nvlink.link=0;error.type=crc_data | 103
  nvidia.gpu.nvlink.link_errors | {error} | counter | nvidia.gpu.nvlink.link=1;error.type=replay | 110
  nvidia.gpu.nvlink.link_errors | {error} | counter | nvidia.gpu.nvlink.link=1;error.type=recovery | 111
  nvidia.gpu.nvlink.link_errors | {error} | counter | nvidia.gpu.nvlink.link=1;error.type=crc_flit | 112
  nvidia.gpu.nvlink.link_errors | {error} | counter | nvidia.gpu.nvlink.link=1;error.type=crc_data | 113

nvmlDeviceGetGpuFabricInfoV = [3, 0, 1, 0, 1]
  nvidia.gpu.fabric.state | | gauge | | 3

nvmlDeviceGetTotalEccErrors/0/0 = 300
field/3 = 300
  hw.errors | {error} | counter | hw.type=gpu;error.type=corrected | 300

nvmlDeviceGetTotalEccErrors/1/0 = 400
field/4 = 400
  hw.errors | {error} | counter | hw.type=gpu;error.type=uncorrected | 400

nvmlDeviceGetTotalEccErrors/0/1 = 500
field/5 = 500
  nvidia.gpu.ecc.lifetime_errors | {error} | counter | error.type=corrected | 500

nvmlDeviceGetTotalEccErrors/1/1 = 600
field/6 = 600
  nvidia.gpu.ecc.lifetime_errors | {error} | counter | error.type=uncorrected | 600

nvmlDeviceGetMemoryErrorCounter/0/0/0 = 700
  nvidia.gpu.ecc.location_errors | {error} | counter | error.type=corrected;nvidia.gpu.memory.location=l1_cache | 700

nvmlDeviceGetMemoryErrorCounter/0/0/1 = 701
  nvidia.gpu.ecc.location_errors | {error} | counter | error.type=corrected;nvidia.gpu.memory.location=l2_cache | 701

nvmlDeviceGetMemoryErrorCounter/0/0/2 = 702
  nvidia.gpu.ecc.location_errors | {error} | counter | error.type=corrected;nvidia.gpu.memory.location=device | 702

nvmlDeviceGetMemoryErrorCounter/0/0/3 = 703
  nvidia.gpu.ecc.location_errors | {error} | counter | error.type=corrected;nvidia.gpu.memory.location=register_file | 703

nvmlDeviceGetMemoryErrorCounter/0/0/4 = 704
  nvidia.gpu.ecc.location_errors | {error} | counter | error.type=corrected;nvidia.gpu.memory.location=texture | 704

nvmlDeviceGetMemoryErrorCounter/0/0/5 = 705
  nvidia.gpu.ecc.location_errors | {error} | counter | error.type=corrected;nvidia.gpu.memory.location=shared | 705

nvmlDeviceGetMemoryErrorCounter/0/0/6 = 706
  nvidia.gpu.ecc.location_errors | {error} | counter | error.type=corrected;nvidia.gpu.memory.location=cbu | 706

nvmlDeviceGetMemoryErrorCounter/1/0/7 = 717
  nvidia.gpu.ecc.location_errors | {error} | counter | error.type=uncorrected;nvidia.gpu.memory.location=sram | 717

nvmlDeviceGetEccMode = [1, 0]
  nvidia.gpu.ecc.enabled | 1 | updown | nvidia.gpu.mode.phase=current | 1
  nvidia.gpu.ecc.enabled | 1 | updown | nvidia.gpu.mode.phase=pending | 0

field/29 = 29
  nvidia.gpu.retired_pages | {page} | updown | nvidia.gpu.retirement.cause=single_bit | 29

field/30 = 30
  nvidia.gpu.retired_pages | {page} | updown | nvidia.gpu.retirement.cause=double_bit | 30

field/31 = 1
  nvidia.gpu.retired_pages.pending | 1 | updown | | 1

field/142 = 142
  nvidia.gpu.row_remap.rows | {row} | updown | error.type=corrected | 142

field/143 = 143
  nvidia.gpu.row_remap.rows | {row} | updown | error.type=uncorrected | 143

field/144 = 1
  nvidia.gpu.row_remap.pending | 1 | updown | | 1

field/145 = 0
  nvidia.gpu.row_remap.failed | 1 | updown | | 0

nvmlDeviceGetRowRemapperHistogram = [2560, 24, 13, 2, 1]
  nvidia.gpu.row_remap.banks | {bank} | updown | nvidia.gpu.row_remap.spare=max | 2560
  nvidia.gpu.row_remap.banks | {bank} | updown | nvidia.gpu.row_remap.spare=high | 24
  nvidia.gpu.row_remap.banks | {bank} | updown | nvidia.gpu.row_remap.spare=partial | 13
  nvidia.gpu.row_remap.banks | {bank} | updown | nvidia.gpu.row_remap.spare=low | 2
  nvidia.gpu.row_remap.banks | {bank} | updown | nvidia.gpu.row_remap.spare=none | 1

field/230 = 0
  nvidia.gpu.recovery_action | | gauge | | 0

nvmlDeviceGetMigMode = [0, 1]
  nvidia.gpu.mig.enabled | 1 | updown | nvidia.gpu.mode.phase=current | 0
  nvidia.gpu.mig.enabled | 1 | updown | nvidia.gpu.mode.phase=pending | 1

nvmlDeviceGetPersistenceMode = 1
  nvidia.gpu.persistence.enabled | 1 | updown | | 1

nvmlDeviceGetComputeMode = 3
  nvidia.gpu.compute_mode | 1 | updown | nvidia.gpu.compute_mode=default | 0
  nvidia.gpu.compute_mode | 1 | updown | nvidia.gpu.compute_mode=exclusive_thread | 0
  nvidia.gpu.compute_mode | 1 | updown | nvidia.gpu.compute_mode=prohibited | 0
  nvidia.gpu.compute_mode | 1 | updown | nvidia.gpu.compute_mode=exclusive_process | 1

gpm/1 = 12.5
  nvidia.gpu.graphics.activity | 1 | gauge | | 0.125

gpm/2 = 25.0
  nvidia.gpu.sm.activity | 1 | gauge | | 0.25

gpm/3 = 37.5
  nvidia.gpu.sm.occupancy | 1 | gauge | | 0.375

gpm/5 = 50.0
  nvidia.gpu.tensor.activity | 1 | gauge | | 0.5

gpm/10 = 62.5
  nvidia.gpu.memory.bandwidth.utilization | 1 | gauge | | 0.625

gpm/20 = 1.5
  nvidia.gpu.pcie.throughput | By/s | gauge | network.io.direction=transmit;nvidia.gpu.source=profiling | 1572864

gpm/21 = 2.5
  nvidia.gpu.pcie.throughput | By/s | gauge | network.io.direction=receive;nvidia.gpu.source=profiling | 2621440

gpm/60 = 8.0
  nvidia.gpu.nvlink.throughput | By/s | gauge | network.io.direction=receive | 8388608

gpm/61 = 16.0
  nvidia.gpu.nvlink.throughput | By/s | gauge | network.io.direction=transmit | 16777216
";

/// Series that `legacy_names` adds: name, unit, labels, value.
pub const LEGACY: &str = "
  gpu_utilization_percent | % | gauge | gpu_id=@uuid;node=n1 | 37
  gpu_memory_used_bytes | By | gauge | gpu_id=@uuid;node=n1 | 120000000000
  gpu_temperature_celsius | Cel | gauge | gpu_id=@uuid;node=n1 | 52
  gpu_memory_total_bytes | By | gauge | gpu_id=@uuid;gpu_name=NVIDIA H200 | 150754820096
  gpu_memory_allocated_bytes | By | gauge | gpu_id=@uuid;node=n1 | 120000000000
  gpu_memory_reserved_bytes | By | gauge | gpu_id=@uuid;node=n1 | 754820096
";

/// Series that `dcgm_names` adds, in dcgm-exporter's units: MiB, MHz, ns, mJ.
pub const DCGM: &str = "
DEV_GPU_UTIL 37
DEV_MEM_COPY_UTIL 21
DEV_ENC_UTIL 11
DEV_DEC_UTIL 12
DEV_FB_TOTAL 143771
DEV_FB_USED 114440
DEV_FB_FREE 28610
DEV_FB_RESERVED 719
DEV_FB_USED_PERCENT 0.8
DEV_BAR1_TOTAL 262144
DEV_BAR1_USED 1
DEV_GPU_TEMP 52
DEV_MEMORY_TEMP 61
DEV_SLOWDOWN_TEMP 87
DEV_SHUTDOWN_TEMP 92
DEV_GPU_MAX_OP_TEMP 86
DEV_MEM_MAX_OP_TEMP 95
DEV_GPU_TEMP_LIMIT -3
DEV_POWER_USAGE 78.125
DEV_POWER_USAGE_INSTANT 81.5
DEV_TOTAL_ENERGY_CONSUMPTION 3600000250
DEV_ENFORCED_POWER_LIMIT 650
DEV_POWER_MGMT_LIMIT 660
DEV_SM_CLOCK 1202
DEV_MEM_CLOCK 2619
DEV_VIDEO_CLOCK 765
DEV_PSTATE 2
DEV_FAN_SPEED 62
DEV_PCIE_TX_THROUGHPUT 512
DEV_PCIE_RX_THROUGHPUT 1024
DEV_PCIE_LINK_GEN 1
DEV_PCIE_LINK_WIDTH 8
DEV_PCIE_REPLAY_COUNTER 94
DEV_POWER_VIOLATION 1500000000
DEV_THERMAL_VIOLATION 2500000000
DEV_SYNC_BOOST_VIOLATION 3500000000
DEV_BOARD_LIMIT_VIOLATION 4500000000
DEV_LOW_UTIL_VIOLATION 5500000000
DEV_RELIABILITY_VIOLATION 6500000000
DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL 38
DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL 45
DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL 52
DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL 59
DEV_ECC_SBE_VOL_TOTAL 300
DEV_ECC_DBE_VOL_TOTAL 400
DEV_ECC_SBE_AGG_TOTAL 500
DEV_ECC_DBE_AGG_TOTAL 600
DEV_RETIRED_SBE 29
DEV_RETIRED_DBE 30
DEV_RETIRED_PENDING 1
DEV_CORRECTABLE_REMAPPED_ROWS 142
DEV_UNCORRECTABLE_REMAPPED_ROWS 143
DEV_ROW_REMAP_PENDING 1
DEV_ROW_REMAP_FAILURE 0
PROF_GR_ENGINE_ACTIVE 0.125
PROF_SM_ACTIVE 0.25
PROF_SM_OCCUPANCY 0.375
PROF_PIPE_TENSOR_ACTIVE 0.5
PROF_DRAM_ACTIVE 0.625
PROF_PCIE_TX_BYTES 1572864
PROF_PCIE_RX_BYTES 2621440
PROF_NVLINK_TX_BYTES 16777216
PROF_NVLINK_RX_BYTES 8388608
";
