//! Who holds which GPU: the rules by table, and that parts add up whatever comes.

use super::*;
use crate::receivers::nvml::model::{MigReport, ProcessKind, Sample, Value};

mod random;
mod rules;
mod system;

/// A device of this name and number, that was read.
fn device(uuid: &str, index: u32) -> Report {
    let identity = Identity {
        uuid: uuid.into(),
        index,
        minor: Some(index + 10),
        compute_slices: 7,
        ..Identity::default()
    };
    Report::bare(Arc::new(identity), State::Readable)
}

/// With this much busy, in percent.
fn busy(mut report: Report, percent: f64) -> Report {
    report.samples.push(Sample { reading: Reading::Busy, index: 0, value: Value::Double(percent) });
    report
}

/// With a process there, with this load in percent.
fn runs(mut report: Report, pid: u32, load: Option<f64>, instance: Option<(u32, u32)>) -> Report {
    report.processes.push(Process {
        pid,
        kind: ProcessKind::Compute,
        memory: None,
        gpu_instance: instance.map(|(gi, _)| gi),
        compute_instance: instance.map(|(_, ci)| ci),
        load: [load, None, None, None],
    });
    report
}

/// With a MIG instance: (GPU instance, its slices), (compute instance, its slices), GB of 80, activity in percent.
fn cut_off(mut report: Report, gi: (u32, u32), ci: (u32, u32), memory: u64, activity: Option<f64>) -> Report {
    if report.mig.is_empty() {
        report.samples.push(Sample { reading: Reading::MemoryTotal, index: 0, value: Value::Int(80) });
    }
    let identity = MigIdentity {
        uuid: format!("MIG-{}{}{}", report.identity.index, gi.0, ci.0).into(),
        profile: None,
        gpu_instance: gi.0,
        compute_instance: ci.0,
        gpu_instance_slices: gi.1,
        compute_instance_slices: ci.1,
        memory,
    };
    let samples = activity
        .map(|percent| Sample { reading: Reading::SmActivity, index: 0, value: Value::Double(percent) })
        .into_iter()
        .collect();
    report.mig.push(MigReport { identity: Arc::new(identity), samples });
    report
}

/// `namespace/pod/container`, or with a uid behind a `#`.
fn holder(text: &str) -> Arc<Holder> {
    let (names, uid) = match text.split_once('#') {
        Some((names, uid)) => (names, Some(uid.to_owned())),
        None => (text, None),
    };
    let mut names = names.split('/').map(str::to_owned);
    let mut name = || names.next().unwrap_or_default();
    Arc::new(Holder { namespace: name(), pod: name(), container: name(), uid })
}

fn told(claims: &[(&str, &str)], allocatable: &[&str], processes: &[(u32, &str)]) -> Told {
    Told {
        claims: claims
            .iter()
            .map(|(id, of)| Claim { device_id: (*id).to_owned(), holder: holder(of) })
            .collect(),
        allocatable: allocatable.iter().map(|id| (*id).to_owned()).collect(),
        processes: processes.iter().map(|(pid, of)| (*pid, holder(of))).collect(),
    }
}

/// Nobody to ask but the system, whose processes are there.
fn by_processes(root: &str, logs: &str) -> Pods {
    let config = ProcessesConfig { enabled: true, root: root.to_owned(), logs: logs.to_owned() };
    Pods::new(None, &config, "nvml", &Metrics::new())
}

/// `device[mig] owner part busy evidence`, a line a share.
fn shown(shares: &[Share]) -> Vec<String> {
    shares.iter().map(line).collect()
}

fn line(share: &Share) -> String {
    let owner = match &share.owner {
        Owner::Pod(holder) => {
            let uid = holder.uid.as_ref().map(|uid| format!("#{uid}")).unwrap_or_default();
            format!("{}/{}/{}{uid}", holder.namespace, holder.pod, holder.container)
        }
        other => format!("{other:?}"),
    };
    let mig = share.mig.as_ref().map(|mig| format!("[{}]", mig.uuid)).unwrap_or_default();
    let busy = share.busy.map_or("-".to_owned(), |busy| format!("{busy:.3}"));
    format!("{}{mig} {owner} {:.3} {busy} {:?}", share.device.uuid, share.part, share.evidence)
}
