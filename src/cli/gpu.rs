//! `tidegate gpu probe`: what the driver's library of this node can do, call by call. It reads and changes nothing.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::{FAILED, OK, Output, fail, out, pretty};
use crate::pipeline::runtime::Supervisor;
use crate::receivers::nvml::config::DevicesConfig;
use crate::receivers::nvml::library::{DEFAULT_LIBRARY, Library, Memory, Probed, Settings};
use crate::receivers::nvml::model::{
    EventSink, Group, Groups, Identity, Inventory, Report, Sample, Source as _, State, Value,
};

/// Profiling counters need two samples that are at least a second apart.
const APART: Duration = Duration::from_millis(1100);

/// Arguments of the command.
#[derive(clap::Args)]
pub(super) struct GpuArgs {
    #[command(subcommand)]
    command: GpuCommand,
}

#[derive(clap::Subcommand)]
enum GpuCommand {
    /// Tells of each reading whether this node's driver has it, its value or its error
    Probe(ProbeArgs),
}

#[derive(clap::Args)]
struct ProbeArgs {
    /// The driver's library [default: libnvidia-ml.so.1 where the system finds it]
    #[arg(long, value_name = "PATH")]
    library: Option<PathBuf>,
    /// How the answer is written [default: as --output says]
    #[arg(long, value_enum)]
    format: Option<Output>,
}

/// A device and what came of asking it.
struct Told {
    identity: Arc<Identity>,
    calls: Vec<Probed>,
    report: Result<Report, String>,
}

/// Does what the arguments say.
pub(super) fn run(args: &GpuArgs, output: Output) -> ExitCode {
    let GpuCommand::Probe(args) = &args.command;
    let (inventory, told) = match probe(args) {
        Ok(answer) => answer,
        Err(why) => return fail(FAILED, &why),
    };
    let library = args.library.as_ref().map_or(DEFAULT_LIBRARY.into(), |path| path.to_string_lossy());
    out(&match args.format.unwrap_or(output) {
        Output::Text => text(&library, &inventory, &told),
        Output::Json => pretty(&as_json(&library, &inventory, &told)),
    });
    ExitCode::from(OK)
}

fn probe(args: &ProbeArgs) -> Result<(Inventory, Vec<Told>), String> {
    let settings = Settings {
        library: args.library.clone(),
        // All but events, for which somebody would have to wait.
        groups: Groups(!(1 << Group::Events as u32)),
        devices: DevicesConfig::default(),
        slow_interval: Duration::ZERO,
        skip_sleeping: false,
        processes: true,
        sysfs: PathBuf::from("/sys"),
        proc: PathBuf::from("/proc"),
        supervisor: Supervisor::default(),
        memory: Memory::default(),
    };
    let (events, _) = crossbeam_channel::bounded(1);
    let mut library = Library::new(settings, EventSink::new(events, Arc::default()));
    let inventory = library
        .open(&[], &mut |_| {})
        .map_err(|closed| format!("{} ({})", closed.message, closed.reason.word()))?;
    for device in &inventory.devices {
        // What goes wrong here goes wrong again below.
        let _ = library.read(device.index, Instant::now());
    }
    if !inventory.devices.is_empty() {
        std::thread::sleep(APART);
    }
    let told = inventory.devices.iter().map(|identity| Told {
        identity: Arc::clone(identity),
        calls: library.probe(identity.index),
        report: library.read(identity.index, Instant::now()).map_err(|closed| closed.message),
    });
    let told = told.collect();
    library.close();
    Ok((inventory, told))
}

fn text(library: &str, inventory: &Inventory, told: &[Told]) -> String {
    let driver = &inventory.driver;
    let known = |value: &Option<String>| value.clone().unwrap_or_else(|| "?".to_owned());
    let mut text = format!(
        "library  {library}\ndriver   {}  NVML {}  CUDA {}\ndevices  {}, and {} that may not be read\n",
        driver.version,
        known(&driver.nvml),
        known(&driver.cuda),
        inventory.devices.len(),
        inventory.denied,
    );
    for Told { identity, calls, report } in told {
        text.push_str(&format!(
            "\nGPU {}  {}  {}  {}  {}\n",
            identity.index,
            identity.name,
            identity.uuid,
            known(&identity.pci_bus_id),
            known(&identity.architecture),
        ));
        for Probed { call, outcome, note } in calls {
            let (mark, told) = match outcome {
                Ok(samples) => ("ok", samples.iter().map(sample_text).collect::<Vec<_>>().join("  ")),
                Err((word @ ("not_supported" | "function_not_found"), _)) => ("-", (*word).to_owned()),
                Err((word, error)) => ("FAIL", format!("{word}: {error}")),
            };
            let told = note.as_deref().unwrap_or(&told);
            let told = if told.is_empty() { "no value" } else { told };
            text.push_str(&format!("  {mark:4}  {call:52}  {told}\n"));
        }
        match report {
            Ok(report) => text.push_str(&report_text(report)),
            Err(why) => text.push_str(&format!("  report: {why}\n")),
        }
    }
    text
}

fn report_text(report: &Report) -> String {
    let mut text = format!("  report: {}\n", state(report.state));
    for (word, count) in &report.errors {
        text.push_str(&format!("    {count} failed calls: {word}\n"));
    }
    for sample in &report.samples {
        text.push_str(&format!("    {}\n", sample_text(sample)));
    }
    for mig in &report.mig {
        let profile = mig.identity.profile.as_deref().unwrap_or("?");
        text.push_str(&format!(
            "    instance {profile} {} (GPU instance {}, compute instance {})\n",
            mig.identity.uuid, mig.identity.gpu_instance, mig.identity.compute_instance,
        ));
        for sample in &mig.samples {
            text.push_str(&format!("      {}\n", sample_text(sample)));
        }
    }
    text
}

fn as_json(library: &str, inventory: &Inventory, told: &[Told]) -> Json {
    let driver = &inventory.driver;
    let devices = told.iter().map(|Told { identity, calls, report }| {
        let calls = calls.iter().map(call_json);
        json!({
            "index": identity.index,
            "uuid": *identity.uuid,
            "name": *identity.name,
            "pci_bus_id": identity.pci_bus_id,
            "minor": identity.minor,
            "serial": identity.serial,
            "vbios": identity.vbios,
            "architecture": identity.architecture,
            "compute_capability": identity.compute_capability,
            "part_number": identity.part_number,
            "virtualization": identity.virtualization,
            "nvlink_version": identity.nvlink_version,
            "compute_slices": identity.compute_slices,
            "calls": calls.collect::<Vec<_>>(),
            "report": report.as_ref().map_or_else(|why| json!({ "error": why }), report_json),
        })
    });
    json!({
        "library": library,
        "driver": { "version": driver.version, "nvml": driver.nvml, "cuda": driver.cuda },
        "denied": inventory.denied,
        "devices": devices.collect::<Vec<_>>(),
    })
}

fn call_json(Probed { call, outcome, note }: &Probed) -> Json {
    let mut row = serde_json::Map::new();
    row.insert("call".to_owned(), call.as_str().into());
    match outcome {
        Ok(samples) => row.insert("readings".to_owned(), samples.iter().map(sample_json).collect()),
        Err((word, error)) => row.insert("error".to_owned(), json!({ "type": word, "message": error })),
    };
    if let Some(note) = note {
        row.insert("note".to_owned(), note.as_str().into());
    }
    row.into()
}

fn report_json(report: &Report) -> Json {
    let mig = report.mig.iter().map(|mig| {
        json!({
            "uuid": *mig.identity.uuid,
            "profile": mig.identity.profile,
            "gpu_instance": mig.identity.gpu_instance,
            "compute_instance": mig.identity.compute_instance,
            "gpu_instance_slices": mig.identity.gpu_instance_slices,
            "compute_instance_slices": mig.identity.compute_instance_slices,
            "memory": mig.identity.memory,
            "readings": mig.samples.iter().map(sample_json).collect::<Vec<_>>(),
        })
    });
    let errors: serde_json::Map<String, Json> =
        report.errors.iter().map(|&(word, count)| (word.to_owned(), count.into())).collect();
    json!({
        "state": state(report.state),
        "errors": errors,
        "readings": report.samples.iter().map(sample_json).collect::<Vec<_>>(),
        "mig": mig.collect::<Vec<_>>(),
        "processes": report.processes.len(),
    })
}

fn state(state: State) -> &'static str {
    match state {
        State::Readable => "readable",
        State::Lost => "lost",
        State::Hung => "hung",
        State::Asleep => "asleep",
    }
}

fn sample_text(sample: &Sample) -> String {
    let value = match sample.value {
        Value::Int(n) => n.to_string(),
        Value::Double(n) => n.to_string(),
    };
    format!("{}[{}]={value}", name(sample), sample.index)
}

fn sample_json(sample: &Sample) -> Json {
    let value: Json = match sample.value {
        Value::Int(n) => n.into(),
        Value::Double(n) => n.into(),
    };
    json!({ "reading": name(sample), "index": sample.index, "value": value })
}

/// `MemoryUsed` as `memory_used`.
fn name(sample: &Sample) -> String {
    let mut name = String::new();
    for letter in format!("{:?}", sample.reading).chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}
