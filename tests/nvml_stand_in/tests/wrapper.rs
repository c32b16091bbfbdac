//! The stand-in behind nvml-wrapper: what comes out is what the scenario says, and what is misused is seen.

use std::sync::Arc;
use std::time::Duration;

use nvml_stand_in::{Event, Fault, StandIn, profile};
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::enums::gpm::GpmMetricId;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::{Nvml, gpm};

const SOON: Duration = Duration::from_secs(20);

fn open(stand_in: &StandIn) -> Result<Nvml, NvmlError> {
    Nvml::builder().lib_path(stand_in.path().as_os_str()).init()
}

#[test]
fn readings_come_through() {
    let stand_in = StandIn::new(profile::h200(2));
    let nvml = open(&stand_in).unwrap();
    assert_eq!(nvml.sys_driver_version().unwrap(), "575.57.08");
    assert_eq!(nvml.device_count().unwrap(), 2);
    let device = nvml.device_by_index(1).unwrap();
    assert_eq!(device.name().unwrap(), "NVIDIA H200");
    assert_eq!(device.uuid().unwrap(), stand_in.scenario().devices[1].uuid);
    assert_eq!(device.index().unwrap(), 1);
    assert_eq!(device.pci_info().unwrap().bus_id, "00000000:1A:00.0");
    let memory = device.memory_info().unwrap();
    assert_eq!((memory.total, memory.reserved, memory.used), (150_754_820_096, 643_825_664, 0));
    assert_eq!(memory.free, 150_110_994_432);
    assert_eq!(device.temperature(TemperatureSensor::Gpu).unwrap(), 52);
    assert_eq!(device.clock_info(Clock::Memory).unwrap(), 2619);
    assert_eq!(device.total_energy_consumption().unwrap(), 3_600_000_000);
    assert!(matches!(device.num_fans(), Err(NvmlError::NotSupported)));
    let fields = device.field_values_for(&[FieldId(82), FieldId(193), FieldId(142)]).unwrap();
    assert!(fields[0].as_ref().is_ok_and(|f| format!("{:?}", f.value).contains("45")), "{fields:?}");
    assert!(fields[1].as_ref().is_ok_and(|f| f.value.is_err()), "{fields:?}");
    nvml.shutdown().unwrap();
    let stats = stand_in.stats();
    assert_eq!((stats.inits, stats.shutdowns, stats.up), (1, 1, 0));
    assert_eq!(stats.misuse, Vec::<String>::new());
}

#[test]
fn faults_and_their_end() {
    let stand_in = StandIn::new(profile::h200(2));
    let nvml = open(&stand_in).unwrap();
    let device = nvml.device_by_index(0).unwrap();
    let other = nvml.device_by_index(1).unwrap();
    stand_in.edit(|s| {
        s.gpu(0).fail("nvmlDeviceGetPowerUsage", 15);
        s.gpu(0).fail("nvmlDeviceGetClockInfo/2", 999);
    });
    assert!(matches!(device.power_usage(), Err(NvmlError::GpuLost)));
    assert!(matches!(device.clock_info(Clock::Memory), Err(NvmlError::Unknown)));
    assert_eq!(device.clock_info(Clock::SM).unwrap(), 345);
    assert_eq!(other.power_usage().unwrap(), 78_000);
    stand_in.edit(|s| {
        s.gpu(0)
            .clear("nvmlDeviceGetPowerUsage")
            .fault("nvmlDeviceGetUtilizationRates", Fault::code(10).after(1).times(1));
    });
    assert_eq!(device.power_usage().unwrap(), 78_000);
    let seen: Vec<bool> = (0..3).map(|_| device.utilization_rates().is_ok()).collect();
    assert_eq!(seen, [true, false, true]);
    stand_in.edit(|s| {
        s.all(999);
    });
    assert!(matches!(other.power_usage(), Err(NvmlError::Unknown)));
    assert!(matches!(nvml.device_count(), Err(NvmlError::Unknown)));
}

#[test]
fn a_hang_blocks_one_thread_until_it_ends() {
    let stand_in = StandIn::new(profile::h200(1));
    let nvml = Arc::new(open(&stand_in).unwrap());
    stand_in.edit(|s| {
        s.gpu(0).fault("nvmlDeviceGetTemperature", Fault::hang());
    });
    let inside = nvml.clone();
    let hung =
        std::thread::spawn(move || inside.device_by_index(0).unwrap().temperature(TemperatureSensor::Gpu));
    assert!(stand_in.wait_calls("hanging", 1, SOON));
    assert_eq!(nvml.device_by_index(0).unwrap().power_usage().unwrap(), 78_000);
    stand_in.edit(|s| {
        s.gpu(0).clear("nvmlDeviceGetTemperature");
    });
    assert_eq!(hung.join().unwrap().unwrap(), 52);
}

#[test]
fn events_reach_those_who_asked() {
    let stand_in = StandIn::new(profile::h200(2));
    let nvml = open(&stand_in).unwrap();
    stand_in.push(Event::xid(0, 31));
    assert_eq!(stand_in.stats().events_missed, 1);
    let set = nvml.create_event_set().unwrap();
    let device = nvml.device_by_index(0).unwrap();
    let set = device.register_events(EventTypes::CRITICAL_XID_ERROR, set).unwrap();
    assert!(matches!(set.wait(0), Err(NvmlError::Timeout)));
    stand_in.push(Event::xid(0, 79));
    stand_in.push(Event::of(0, 2));
    stand_in.push(Event { unasked: true, ..Event::of(0, 0x4000) });
    assert_eq!(set.wait(10_000).unwrap().device.uuid().unwrap(), device.uuid().unwrap());
    assert!(set.wait(10_000).unwrap().event_type.is_empty());
    stand_in.edit(|s| {
        s.gpu(0).fail("*", 15);
    });
    assert!(matches!(set.wait(10_000), Err(NvmlError::GpuLost)));
    drop(set);
    drop(nvml);
    assert_eq!(stand_in.stats().misuse, Vec::<String>::new());
}

#[test]
fn mig_instances_are_devices() {
    let stand_in = StandIn::new(profile::a100_mig());
    let nvml = open(&stand_in).unwrap();
    let gpu = nvml.device_by_index(0).unwrap();
    assert_eq!(gpu.mig_device_count().unwrap(), 7);
    assert!(matches!(gpu.mig_device_by_index(1), Err(NvmlError::NotFound)));
    let instance = gpu.mig_device_by_index(2).unwrap();
    assert!(instance.uuid().unwrap().starts_with("MIG-"));
    assert_eq!(instance.memory_info().unwrap().total, 20_070_793_216);
    assert_eq!(instance.attributes().unwrap().multiprocessor_count, 42);
    assert_eq!(instance.mig_parent_device().unwrap().uuid().unwrap(), gpu.uuid().unwrap());
    assert!(matches!(gpu.utilization_rates(), Err(NvmlError::NotSupported)));
    stand_in.edit(|s| {
        s.gpu(0).mig[2] = None;
    });
    assert!(matches!(instance.uuid(), Err(NvmlError::InvalidArg)));
}

#[test]
fn lists_come_in_two_steps() {
    let stand_in = StandIn::new(profile::h200(1));
    let nvml = open(&stand_in).unwrap();
    let device = nvml.device_by_index(0).unwrap();
    assert!(device.running_compute_processes().unwrap().is_empty());
    stand_in.edit(|s| {
        s.gpu(0).compute = vec![profile::process(10, 1 << 30), Default::default()];
        s.gpu(0).process_samples = vec![profile::process_sample(10, 5, 50, 20)];
    });
    let processes = device.running_compute_processes().unwrap();
    assert_eq!(processes.len(), 2);
    assert_eq!(processes[0].pid, 10);
    assert_eq!(format!("{:?}", processes[1].used_gpu_memory), "Unavailable");
    assert_eq!(device.process_utilization_stats(4).unwrap()[0].sm_util, 50);
    assert!(matches!(device.process_utilization_stats(5), Err(NvmlError::NotFound)));
    stand_in.edit(|s| {
        s.gpu(0).fault("nvmlDeviceGetComputeRunningProcesses_v3/fill", Fault::code(7).times(1));
    });
    assert!(matches!(device.running_compute_processes(), Err(NvmlError::InsufficientSize(_))));
    assert_eq!(device.running_compute_processes().unwrap().len(), 2);
}

#[test]
fn gpm_needs_two_samples_of_one_thing() {
    let stand_in = StandIn::new(profile::h200(1));
    let nvml = open(&stand_in).unwrap();
    let device = nvml.device_by_index(0).unwrap();
    assert!(device.gpm_support().unwrap());
    let [older, newer] = [device.gpm_sample().unwrap(), device.gpm_sample().unwrap()];
    let ids = [GpmMetricId::SmUtil, GpmMetricId::Fp16Util];
    let metrics = gpm::gpm_metrics_get(&nvml, &older, &newer, &ids).unwrap();
    assert!((metrics[0].as_ref().unwrap().value - 9.5).abs() < 1e-9);
    assert!(matches!(metrics[1], Err(NvmlError::NotSupported)));
    assert!(gpm::gpm_metrics_get(&nvml, &newer, &older, &ids).is_err());
    std::mem::forget(older);
    drop(newer);
    nvml.shutdown().unwrap();
    let misuse = stand_in.stats().misuse;
    assert_eq!(misuse.len(), 2, "{misuse:?}");
    assert!(misuse[1].contains("1 GPM samples not freed"), "{misuse:?}");
}

#[test]
fn a_hidden_symbol_is_not_there() {
    let stand_in = StandIn::new(profile::old_driver(1));
    let nvml = open(&stand_in).unwrap();
    let device = nvml.device_by_index(0).unwrap();
    assert!(matches!(device.memory_info(), Err(NvmlError::FailedToLoadSymbol(_))));
    assert!(matches!(device.running_compute_processes(), Err(NvmlError::FailedToLoadSymbol(_))));
    assert_eq!(device.power_usage().unwrap(), 80_000);
}

#[test]
fn a_replaced_file_is_another_library_once_the_old_one_is_closed() {
    let stand_in = StandIn::detached(profile::h100(1));
    let nvml = open(&stand_in).unwrap();
    assert_eq!(nvml.sys_driver_version().unwrap(), "570.124.06");
    stand_in.edit(|s| s.driver_version = "590.10".to_owned());
    assert_eq!(nvml.sys_driver_version().unwrap(), "590.10", "a changed file is read again");
    stand_in.edit(|s| {
        s.driver_version = "590.44".to_owned();
        s.hide(&["nvmlDeviceGetMemoryInfo_v2"]);
    });
    stand_in.replace();
    assert!(nvml.device_by_index(0).unwrap().memory_info().is_ok());
    drop(nvml);
    let stats = stand_in.stats();
    assert_eq!((stats.inits, stats.shutdowns, stats.misuse.len()), (1, 1, 0));
    let nvml = open(&stand_in).unwrap();
    assert!(matches!(nvml.device_by_index(0).unwrap().memory_info(), Err(NvmlError::FailedToLoadSymbol(_))));
}

#[test]
fn a_new_init_is_a_new_generation() {
    let stand_in = StandIn::new(profile::h200(1));
    let nvml = open(&stand_in).unwrap();
    let again = open(&stand_in).unwrap();
    let raw = unsafe { nvml.device_by_index(0).unwrap().handle() };
    drop(nvml);
    drop(again);
    let nvml = open(&stand_in).unwrap();
    let old = unsafe { nvml_wrapper::Device::new(raw, &nvml) };
    assert!(matches!(old.power_usage(), Err(NvmlError::InvalidArg)));
    let misuse = stand_in.stats().misuse;
    assert_eq!(misuse, ["nvmlDeviceGetPowerUsage: a handle of an earlier init"]);
    assert_eq!(stand_in.stats().generation, 2);
}
