//! One node, a clock on the wall and another that only goes on, and what is reported of its GPUs.

mod edges;
mod payers;
mod random;
mod table;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::*;
use crate::config::{Config, Cx, Node, Severity};
use crate::receivers::nvml::config::OwnerConfig;
use crate::receivers::nvml::holders::{Evidence, Holder};
use crate::receivers::nvml::model::{MigIdentity, Sample};

const INTERVAL: Duration = Duration::from_secs(10);
/// The wall clock when a node begins.
const WALL: u64 = 1_700_000_000_000_000_000;
const SECOND: u64 = 1_000_000_000;

/// A node whose accounts are kept.
struct Rig {
    accounts: Accounts,
    metrics: Arc<Metrics>,
    now: Instant,
    wall: u64,
}

impl Rig {
    fn new(cost: Option<serde_json::Value>) -> Self {
        Rig::with(cost, json!({}))
    }

    fn with(cost: Option<serde_json::Value>, owner: serde_json::Value) -> Self {
        let cost: Option<CostConfig> = cost.map(|cost| decode(&cost).unwrap());
        let owner: OwnerConfig = decode(&owner).unwrap();
        let per_pod = cost.as_ref().is_none_or(|cost| cost.per_pod);
        let payers = Payers::new(&owner, "node-1", per_pod).unwrap();
        let metrics = Metrics::new();
        let accounts = Accounts::new(cost.as_ref(), payers, &metrics, "nvml");
        Rig { accounts, metrics, now: Instant::now(), wall: WALL }
    }

    /// Lets time pass and reports.
    fn pass(&mut self, seconds: f64, shares: &[Share], reports: &[Report]) {
        let time = Duration::from_secs_f64(seconds);
        self.now += time;
        self.wall += u64::try_from(time.as_nanos()).unwrap();
        self.accounts.advance(self.now, self.wall, INTERVAL, shares, reports);
    }

    /// Tenant, namespace and pod of each row, with its seconds.
    fn allocated(&self) -> Vec<(String, f64)> {
        let name = |row: &Row| {
            [Some(row.tenant()), row.namespace(), row.pod()]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join("/")
        };
        let mut rows: Vec<_> =
            self.accounts.rows().map(|row| (name(row), (row.allocated() * 1e6).round() / 1e6)).collect();
        rows.sort_by(|a, b| a.partial_cmp(b).unwrap());
        rows
    }

    fn row(&self, tenant: &str) -> &Row {
        let mut rows = self.accounts.rows().filter(|row| row.tenant() == tenant);
        let row = rows.next().unwrap_or_else(|| panic!("no {tenant} in {:?}", self.allocated()));
        assert!(rows.next().is_none(), "several rows of {tenant}");
        row
    }

    fn unaccounted(&self) -> f64 {
        self.accounts.unaccounted().map(|u| u.seconds).sum()
    }

    fn evicted(&self) -> u64 {
        let [evicted] = self.metrics.sums(["tidegate_nvml_accounts_evicted"]);
        evicted
    }
}

fn decode<T: Config + Default>(config: &serde_json::Value) -> Result<T, Vec<(String, String)>> {
    let (mut decoded, mut cx) = (T::default(), Cx::default());
    decoded.decode_into(&Node::from_json(config), &mut cx);
    let errors = cx.diags.into_iter().filter(|d| d.severity == Severity::Error);
    let errors: Vec<_> =
        errors.map(|d| (d.path, format!("{} ({})", d.message, d.hint.unwrap_or_default()))).collect();
    if errors.is_empty() { Ok(decoded) } else { Err(errors) }
}

fn gpu(number: u32) -> Arc<Identity> {
    let name = if number == 9 { "NVIDIA L4" } else { "NVIDIA H200" };
    Arc::new(Identity {
        uuid: format!("GPU-{number}").into(),
        index: number,
        name: name.into(),
        ..Identity::default()
    })
}

fn report(number: u32, state: State) -> Report {
    Report::bare(gpu(number), state)
}

fn readable(number: u32) -> Report {
    report(number, State::Readable)
}

fn with_energy(number: u32, millijoules: u64) -> Report {
    let value = Value::from(millijoules);
    Report { samples: vec![Sample { reading: Reading::Energy, index: 0, value }], ..readable(number) }
}

/// A pod in a namespace, as `namespace/pod`.
fn pod(name: &str) -> Owner {
    let (namespace, pod) = name.split_once('/').unwrap_or((name, "pod"));
    Owner::Pod(Arc::new(Holder {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        container: "main".to_owned(),
        uid: None,
    }))
}

fn share(number: u32, owner: Owner, part: f64, busy: Option<f64>) -> Share {
    Share { device: gpu(number), mig: None, owner, evidence: Evidence::Kubelet, part, busy }
}

fn instance(number: u32, name: &str, profile: &str, owner: Owner, part: f64) -> Share {
    let identity =
        MigIdentity { uuid: name.into(), profile: Some(profile.to_owned()), ..MigIdentity::default() };
    Share { mig: Some(Arc::new(identity)), ..share(number, owner, part, None) }
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
}
