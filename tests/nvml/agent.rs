//! The whole program over the stand-in: a config as a user writes it, and a file at the other end.

use std::path::Path;
use std::time::{Duration, Instant};

use nvml_stand_in::{Event, StandIn, profile};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;

use crate::kit::{Export, SOON};
use crate::support::agent::Agent;

const YAML: &str = "
receivers:
  nvml:
    collection_interval: 1s
    initial_delay: 0s
    slow_interval: 1s
    library_path: '@LIBRARY@'
    legacy_names: true
exporters:
  file/metrics: {path: '@DIR@/metrics.json', flush_interval: 100ms}
  file/logs: {path: '@DIR@/logs.json', flush_interval: 100ms}
service:
  pipelines:
    metrics: {receivers: [nvml], exporters: [file/metrics]}
    logs: {receivers: [nvml], exporters: [file/logs]}
";

/// The requests in a file, one a line.
fn exports(path: &Path) -> Vec<Export> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| Export::from_request(serde_json::from_str(line).unwrap())).collect()
}

/// The first export in the file that is it.
fn until(agent: &Agent, what: &str, is: impl Fn(&Export) -> bool) -> Export {
    let begin = Instant::now();
    let path = agent.dir().join("metrics.json");
    loop {
        if let Some(export) = exports(&path).into_iter().rfind(|export| is(export)) {
            return export;
        }
        assert!(begin.elapsed() < SOON, "not within {SOON:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_agent_reads_gpus_through_losses_and_reloads() {
    let nvml = StandIn::detached(profile::h200(2));
    let mut agent =
        Agent::builder(env!("CARGO_BIN_EXE_tidegate"), YAML).mark("LIBRARY", nvml.path().display()).start();
    let uuids: Vec<String> = nvml.scenario().devices.iter().map(|device| device.uuid.clone()).collect();
    let bad = format!("hw.id={}", uuids[1]);
    let export = until(&agent, "both devices", |export| export.all("hw.power", "").len() == 2);
    assert_eq!(export.value("hw.power", &bad), 78.0);
    assert_eq!(export.value("gpu_temperature_celsius", &format!("gpu_id={}", uuids[0])), 52.0);
    assert_eq!(agent.metric("tidegate_nvml_up", ""), 1.0);

    nvml.push(Event::xid(1, 79));
    until(&agent, "the XID", |export| export.has("nvidia.gpu.xid.events", "nvidia.gpu.xid=79"));
    nvml.edit(|s| {
        s.gpu(1).fail("*", 15);
    });
    until(&agent, "the loss", |export| {
        export.has("nvidia.gpu.up", &bad) && export.value("nvidia.gpu.up", &bad) == 0.0
    });

    // The container loses its devices: what is said names the remedy.
    nvml.edit(|s| {
        s.all(999).init(999);
    });
    until(&agent, "bad health", |export| export.value("nvidia.gpu.collection.success", "") == 0.0);
    let begin = Instant::now();
    while !agent.log().contains("lost access") {
        assert!(begin.elapsed() < SOON, "{}", agent.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(agent.is_running());
    nvml.edit(|s| {
        s.all(0).init(0);
        s.gpu(1).clear("*").set("nvmlDeviceGetPowerUsage", 99_000);
    });
    until(&agent, "both devices again", |export| {
        export.has("hw.power", &bad) && export.value("hw.power", &bad) == 99.0
    });

    let logs = std::fs::read_to_string(agent.dir().join("logs.json")).unwrap();
    let request: ExportLogsServiceRequest = serde_json::from_str(logs.lines().next().unwrap()).unwrap();
    assert_eq!(request.resource_logs[0].scope_logs[0].log_records.len(), 1);
    assert!(agent.terminate(SOON).success());
    let stats = nvml.stats();
    assert_eq!(stats.misuse, Vec::<String>::new());
    assert_eq!((stats.up, stats.event_sets, stats.gpm_samples), (0, 0, 0), "everything is given back");
    // The library was closed in between: it counts from when it was last loaded.
    assert!(stats.inits >= 1 && stats.inits == stats.shutdowns, "{stats:?}");
}

#[test]
fn an_agent_without_a_driver_does_its_other_work() {
    let nvml = StandIn::detached(profile::h200(1));
    nvml.remove(true);
    let yaml = YAML.replace("legacy_names: true", "required: true");
    let mut agent =
        Agent::builder(env!("CARGO_BIN_EXE_tidegate"), &yaml).mark("LIBRARY", nvml.path().display()).start();
    until(&agent, "health", |export| export.value("nvidia.gpu.collection.success", "") == 0.0);
    let lines = agent
        .log()
        .lines()
        .filter(|line| line.contains("no GPU driver") || line.contains("was not found"))
        .count();
    assert_eq!(lines, 1, "{}", agent.log());
    assert!(agent.terminate(SOON).success());
}
