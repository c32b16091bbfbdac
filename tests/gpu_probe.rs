//! `tidegate gpu probe` as a process of its own, over a stand-in for the driver.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code: a surprise must fail loudly")]

use std::path::Path;
use std::process::{Command, Output};

use nvml_stand_in::{StandIn, profile};
use serde_json::Value;

fn probe(library: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(["gpu", "probe", "--library"]).arg(library).args(more).output().unwrap()
}

#[test]
fn every_call_of_every_device_is_told() {
    let mut scenario = profile::h200(2);
    scenario.gpu(0).fail("nvmlDeviceGetEncoderUtilization", 3).fail("nvmlDeviceGetPowerUsage", 999);
    let nvml = StandIn::detached(scenario);
    let output = probe(&nvml.path(), &["--format", "json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["driver"]["version"], "575.57.08");
    assert_eq!(told["devices"].as_array().unwrap().len(), 2);
    let calls = told["devices"][0]["calls"].as_array().unwrap();
    let call = |name: &str| calls.iter().find(|call| call["call"] == name).unwrap();
    assert_eq!(call("nvmlDeviceGetEncoderUtilization")["error"]["type"], "not_supported");
    assert_eq!(call("nvmlDeviceGetPowerUsage")["error"]["type"], "unknown");
    let energy = &call("nvmlDeviceGetTotalEnergyConsumption")["readings"][0];
    assert_eq!(energy["reading"], "energy");
    assert!(energy["value"].as_u64().is_some());
    let report = &told["devices"][1]["report"];
    assert_eq!(report["state"], "readable");
    let readings = report["readings"].as_array().unwrap();
    assert!(readings.iter().any(|r| r["reading"] == "sm_activity"), "two samples were taken");
    let stats = nvml.stats();
    assert_eq!(stats.misuse, Vec::<String>::new());
    assert_eq!((stats.up, stats.gpm_samples), (0, 0));

    let text = String::from_utf8(probe(&nvml.path(), &[]).stdout).unwrap();
    for line in
        ["driver   575.57.08", "GPU 1  NVIDIA H200", "  FAIL  nvmlDeviceGetPowerUsage", "power[0]=78000"]
    {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}

#[test]
fn without_a_library_it_says_why_and_fails() {
    let output = probe(Path::new("/nonexistent/libnvidia-ml.so.1"), &[]);
    assert_eq!(output.status.code(), Some(1));
    let why = String::from_utf8(output.stderr).unwrap();
    assert!(why.contains("/nonexistent/libnvidia-ml.so.1 was not found"), "{why}");
}
