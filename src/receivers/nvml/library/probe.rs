//! What a library can do, call by call: for those who want to know why a reading is not there.

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

use super::errors;
use super::fields::Batch;
use super::raw::{self, Handle};
use crate::receivers::nvml::model::Sample;

/// What one call gave.
#[derive(Debug)]
pub struct Probed {
    /// The symbol, with its arguments, or the number of a field.
    pub call: String,
    /// The values, none where the driver marks them as not available, or the error's word and text.
    pub outcome: Result<Vec<Sample>, (&'static str, String)>,
    /// What else there is to say.
    pub note: Option<String>,
}

impl Probed {
    /// A call that came back.
    pub(super) fn new(call: String, outcome: Result<Vec<Sample>, NvmlError>) -> Self {
        let outcome = outcome.map_err(|error| (errors::word(&error), error.to_string()));
        Probed { call, outcome, note: None }
    }
}

/// Every field on its own.
pub(super) fn fields(batch: &Batch, nvml: &Nvml, handle: Handle) -> Vec<Probed> {
    match batch.probe(nvml, handle) {
        Ok(answers) => answers
            .into_iter()
            .map(|answer| {
                let (reading, index) = answer.reading;
                let sample = |value| Sample { reading, index, value };
                let outcome = answer.outcome.map(|value| value.map(sample).into_iter().collect());
                Probed::new(format!("field {}", answer.id), outcome)
            })
            .collect(),
        Err(error) => vec![Probed::new("nvmlDeviceGetFieldValues".to_owned(), Err(error))],
    }
}

/// Calls that give no reading by themselves.
pub(super) fn others(nvml: &Nvml, handle: Handle) -> Vec<Probed> {
    let gpu = handle.device(nvml);
    let noted = |call: &str, answer: Result<String, NvmlError>| {
        let (outcome, note) = match answer {
            Ok(note) => (Ok(Vec::new()), Some(note)),
            Err(error) => (Err(error), None),
        };
        Probed { note, ..Probed::new(call.to_owned(), outcome) }
    };
    vec![
        noted(
            "nvmlDeviceGetSupportedEventTypes",
            raw::event_types(nvml, handle).map(|types| format!("{types:#x}")),
        ),
        noted(
            "nvmlGpmQueryDeviceSupport",
            gpu.gpm_support().map(|yes| if yes { "supported" } else { "not supported" }.to_owned()),
        ),
        noted("nvmlDeviceGetMaxMigDeviceCount", gpu.mig_device_count().map(|slots| format!("{slots} slots"))),
        noted(
            "nvmlDeviceGetComputeRunningProcesses_v3",
            gpu.running_compute_processes().map(|list| format!("{} processes", list.len())),
        ),
        noted(
            "nvmlDeviceGetGraphicsRunningProcesses_v3",
            gpu.running_graphics_processes().map(|list| format!("{} processes", list.len())),
        ),
        noted(
            "nvmlDeviceGetProcessUtilization",
            gpu.process_utilization_stats(0).map(|list| format!("{} samples", list.len())),
        ),
    ]
}
