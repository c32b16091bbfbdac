//! `docs/gpu.md` says what the receiver does: its tables are those of the catalogue, its groups those of the
//! configuration, its example is what accounts come to, and what it shows in Prometheus is what our exporter makes.
//!
//! After a change that is meant, `UPDATE_EXPECTED=1 cargo test --test docs_gpu` writes the cells that follow from the
//! catalogue anew; metrics that are new there need a row with their name first.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test: a surprise must fail"
)]

#[path = "docs_gpu/simulated.rs"]
mod simulated;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate::components::{self, Kind};
use tidegate::config::{Config, Cx, Node, SchemaKind};
use tidegate::prometheus::names::{Namer, Shape as Series, TranslationStrategy};
use tidegate::receivers::nvml::accounts::{Accounts, Payers};
use tidegate::receivers::nvml::catalogue::{DCGM, DEVICES, LEGACY, Label, Metric, NODE, Origin, Shape, Who};
use tidegate::receivers::nvml::config::{CostConfig, OwnerConfig};
use tidegate::receivers::nvml::holders::{Evidence, Holder, Owner, Share};
use tidegate::receivers::nvml::model::{Identity, MigIdentity, Report, State};
use tidegate::telemetry::Metrics;

const PAGE: &str = include_str!("../docs/gpu.md");
const RULES: &str = include_str!("../deploy/prometheus/gpu-recording.yaml");

/// The tables of metrics, of groups, of the older names, of dcgm-exporter's.
const METRICS: &str = "| Metric | Unit |";
const GROUPS: &str = "| Group | Default |";
const OLDER: &str = "| Series | Labels |";
const DCGMS: &str = "| In dcgm-exporter | Ours |";

/// Attributes that every metric of a device has, and the container's.
const COMMON: [&str; 4] = ["hw.id", "hw.name", "hw.parent", "hw.type"];
const CONTAINER: [&str; 4] = ["k8s.namespace.name", "k8s.pod.name", "k8s.container.name", "k8s.pod.uid"];

/// The rows of the tables whose head starts with `head`: their cells.
fn rows(head: &str) -> Vec<Vec<&'static str>> {
    let mut found = Vec::new();
    let mut lines = PAGE.lines();
    while let Some(line) = lines.next() {
        if line.starts_with(head) {
            found.extend(lines.by_ref().skip(1).take_while(|line| line.starts_with('|')).map(cells));
        }
    }
    found
}

fn cells(line: &str) -> Vec<&str> {
    let line = line.strip_prefix('|').unwrap().strip_suffix('|').unwrap();
    line.split('|').map(str::trim).collect()
}

fn code(text: &str) -> &str {
    text.strip_prefix('`').and_then(|text| text.strip_suffix('`')).unwrap_or(text)
}

fn all() -> impl Iterator<Item = &'static Metric> {
    DEVICES.iter().chain(NODE)
}

fn in_prometheus(metric: &Metric) -> String {
    let shape = match metric.shape {
        Shape::Gauge => Series::Gauge,
        Shape::UpDown => Series::UpDown,
        Shape::Counter => Series::Counter,
    };
    let mut out = String::new();
    let namer = Namer::new(TranslationStrategy::UnderscoreEscapingWithSuffixes, "");
    namer.metric(metric.name, metric.unit, shape, &mut out).unwrap();
    out
}

/// The attributes that tell a metric's points apart, with the words they may have.
fn labels(metric: &Metric) -> Vec<(&'static str, Vec<&'static str>)> {
    let mut keys: Vec<(&str, Vec<&str>)> = Vec::new();
    for from in metric.from {
        for index in (0..64).filter(|index| from.labels.takes(*index)) {
            from.labels.each(index, |key, label| {
                if key.is_empty() {
                    return;
                }
                let at = keys.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
                    keys.push((key, Vec::new()));
                    keys.len() - 1
                });
                if let Label::Str(word) = label
                    && !keys[at].1.contains(&word)
                {
                    keys[at].1.push(word);
                }
            });
        }
    }
    keys
}

fn attributes(metric: &Metric) -> String {
    let typed = (metric.who == Who::TypedDevice).then(|| "`hw.type`: `gpu`".to_owned());
    let own = labels(metric).into_iter().map(|(key, words)| {
        let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
        if words.is_empty() { format!("`{key}`") } else { format!("`{key}`: {}", words.join(", ")) }
    });
    typed.into_iter().chain(own).collect::<Vec<_>>().join("; ")
}

/// The row of a metric as it has to be. What attributes the node's own metrics have, and when one is absent, is written by
/// hand.
fn row(metric: &Metric, now: &[&str]) -> Vec<String> {
    let unit = if metric.unit.is_empty() { String::new() } else { format!("`{}`", metric.unit) };
    let kind = match metric.shape {
        Shape::Gauge => "gauge",
        Shape::UpDown => "sum, not monotonic",
        Shape::Counter => "counter",
    };
    vec![
        format!("`{}`", metric.name),
        unit,
        kind.to_owned(),
        format!("`{}`", in_prometheus(metric)),
        metric.about.trim_end_matches('.').to_owned(),
        if metric.who == Who::Own { now[5].to_owned() } else { attributes(metric) },
        now[6].to_owned(),
    ]
}

fn older(metric: &Metric) -> Vec<String> {
    let labels = if metric.who == Who::Legacy { "`gpu_id`, `node`" } else { "`gpu_id`, `gpu_name`" };
    vec![format!("`{}`", metric.name), labels.to_owned(), metric.about.trim_end_matches('.').to_owned()]
}

/// What of ours has the same reading.
fn ours(metric: &Metric) -> String {
    let from = metric.from[0];
    let index = (0..64).find(|index| from.labels.takes(*index)).unwrap();
    for other in DEVICES {
        for source in other.from.iter().filter(|source| source.origin == from.origin) {
            if !source.labels.takes(index) {
                continue;
            }
            let mut text = format!("`{}`", other.name);
            source.labels.each(index, |key, label| {
                if let Label::Str(word) = label {
                    text.push_str(&format!(", `{key}` is `{word}`"));
                }
            });
            return text;
        }
    }
    assert!(matches!(from.origin, Origin::Made(_)), "{} is nothing of ours", metric.name);
    "the last code of `nvidia.gpu.xid.events`".to_owned()
}

fn group_rows() -> Vec<Vec<String>> {
    let component = components::find(Kind::Receiver, "nvml").unwrap();
    let SchemaKind::Struct { fields, .. } = (component.schema)().kind else { panic!("nvml has no keys") };
    let groups = fields.into_iter().find(|field| field.key == "groups").unwrap();
    let SchemaKind::Struct { fields, .. } = groups.schema.kind else { panic!("groups are none") };
    let row = |field: &tidegate::config::SchemaField| {
        let on = field.default["enabled"] == Value::Bool(true);
        let doc = field.doc.split_whitespace().collect::<Vec<_>>().join(" ");
        let doc = doc.trim_end_matches('.').to_owned();
        vec![format!("`{}`", field.key), if on { "on" } else { "off" }.to_owned(), doc]
    };
    fields.iter().map(row).collect()
}

/// The page with every cell that follows from the catalogue as it has to be.
fn expected() -> String {
    let mut out = String::new();
    let mut lines = PAGE.lines().peekable();
    let mut push = |line: &str| {
        out.push_str(line);
        out.push('\n');
    };
    let joined = |cells: Vec<String>| format!("| {} |", cells.join(" | ")).replace("|  |", "| |");
    while let Some(line) = lines.next() {
        push(line);
        let whole: Option<Vec<Vec<String>>> = match line {
            _ if line.starts_with(GROUPS) => Some(group_rows()),
            _ if line.starts_with(OLDER) => Some(LEGACY.iter().map(older).collect()),
            _ if line.starts_with(DCGMS) => {
                Some(DCGM.iter().map(|metric| vec![format!("`{}`", metric.name), ours(metric)]).collect())
            }
            _ if line.starts_with(METRICS) => None,
            _ => continue,
        };
        push(lines.next().unwrap());
        let mut now = Vec::new();
        while let Some(line) = lines.next_if(|line| line.starts_with('|')) {
            now.push(cells(line));
        }
        let rows = whole.unwrap_or_else(|| {
            let one = |cells: &Vec<&str>| {
                let name = code(cells[0]);
                let metric = all().find(|metric| metric.name == name);
                row(metric.unwrap_or_else(|| panic!("there is no metric {name}")), cells)
            };
            now.iter().map(one).collect()
        });
        rows.into_iter().for_each(|row| push(joined(row).replace("|  |", "| |").as_str()));
    }
    out
}

#[test]
fn tables_are_those_of_the_catalogue() {
    let expected = expected();
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/gpu.md");
        return std::fs::write(path, expected).unwrap();
    }
    for (is, should) in PAGE.lines().zip(expected.lines()) {
        assert_eq!(is, should);
    }
    assert_eq!(PAGE, expected);
}

#[test]
fn every_metric_is_on_the_page_once() {
    let shown: Vec<&str> = rows(METRICS).iter().map(|cells| code(cells[0])).collect();
    let unique: BTreeSet<&str> = shown.iter().copied().collect();
    assert_eq!(shown.len(), unique.len(), "one is there twice");
    assert_eq!(unique, all().map(|metric| metric.name).collect());
}

#[test]
fn older_series_keep_their_names() {
    for metric in LEGACY.iter().chain(DCGM) {
        assert_eq!(in_prometheus(metric), metric.name, "no suffix is added");
    }
}

/// Words of code on the page that look like series of ours.
#[test]
fn series_that_the_page_mentions_exist() {
    let mut known: BTreeSet<String> = all().chain(LEGACY).chain(DCGM).map(in_prometheus).collect();
    // Words that labels have, and names of labels.
    known.extend(all().flat_map(labels).flat_map(|(_, words)| words).map(str::to_owned));
    let cells = rows(METRICS).into_iter().map(|cells| cells[5]);
    let keys = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).filter(|text| text.contains('.'));
    known.extend(keys.chain(COMMON).chain(CONTAINER).map(|key| key.replace('.', "_")));
    known.extend(["gpu_id", "gpu_name", "nvidia_gpu_exporter"].map(str::to_owned));
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut checked = 0;
    for text in PAGE.split(|c| !word(c)) {
        let ours =
            ["hw_", "nvidia_gpu_", "gpu_tenant", "gpu_price"].iter().any(|start| text.starts_with(start));
        if !ours {
            continue;
        }
        checked += 1;
        match text.contains(':') {
            true => assert!(RULES.contains(&format!("- record: {text}\n")), "no rule records {text}"),
            false => assert!(known.contains(text), "{text} is no series"),
        }
    }
    assert!(checked > 100, "only {checked} names");
    for line in RULES.lines().filter_map(|line| line.trim().strip_prefix("- record: gpu_tenant:")) {
        assert!(PAGE.contains(&format!("`gpu_tenant:{line}`")), "{line} is not on the page");
    }
}

#[test]
fn attributes_are_those_that_are_sent() {
    // A cell that refers to the row before it has what that has.
    let mut documented: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut before = BTreeSet::new();
    for cells in rows(METRICS) {
        let keys = cells[5].split('`').skip(1).step_by(2).map(str::to_owned);
        let mut keys: BTreeSet<String> = keys.filter(|key| key.contains('.') || key.len() > 3).collect();
        if cells[5].contains("the container's") {
            keys.extend(CONTAINER.map(str::to_owned));
        }
        if cells[5].starts_with("the same") {
            keys.extend(before);
        }
        before = keys.clone();
        documented.insert(code(cells[0]).to_owned(), keys);
    }
    let metrics: BTreeMap<&str, &Metric> = all().map(|metric| (metric.name, metric)).collect();
    let seen = simulated::run();
    assert!(seen.len() > 60, "only {} metrics", seen.len());
    for (name, sent) in &seen {
        if name.starts_with("gpu_") || name.starts_with("DCGM_") {
            continue;
        }
        let metric = metrics[name.as_str()];
        assert_eq!(sent.unit, metric.unit, "{name}");
        for key in &sent.attributes {
            let common = metric.who != Who::Own && COMMON.contains(&key.as_str());
            assert!(common || documented[name].contains(key), "{name} has {key}: {:?}", documented[name]);
        }
    }
    let own = ["nvidia.gpu.info", "nvidia.gpu.mig.info", "gpu.tenant.cost", "nvidia.gpu.allocation.share"];
    for name in own.into_iter().chain(["nvidia.gpu.process.utilization", "gpu.price_per_hour"]) {
        assert!(seen.contains_key(name), "{name} is not checked");
    }
    let older = rows(OLDER);
    assert_eq!(older.len(), LEGACY.len());
    for cells in older {
        let labels: BTreeSet<String> = cells[1].split(", ").map(|label| code(label).to_owned()).collect();
        assert_eq!(seen[code(cells[0])].attributes, labels, "{}", cells[0]);
    }
    for label in
        seen.iter().filter(|(name, _)| name.starts_with("DCGM_")).flat_map(|(_, sent)| &sent.attributes)
    {
        assert!(PAGE.contains(&format!("`{label}`")), "{label}");
    }
}

fn decode<T: Config + Default>(config: &Value) -> T {
    let (mut decoded, mut cx) = (T::default(), Cx::default());
    decoded.decode_into(&Node::from_json(config), &mut cx);
    assert!(cx.diags.is_empty(), "{:?}", cx.diags);
    decoded
}

#[test]
fn the_example_is_what_accounts_come_to() {
    let written = "`cost: {per_gpu_hour: {NVIDIA H200: 3.5}, per_mig_hour: {1g.18gb: 0.6}}`";
    let text = PAGE.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains(written));
    let cost: CostConfig =
        decode(&json!({"per_gpu_hour": {"NVIDIA H200": 3.5}, "per_mig_hour": {"1g.18gb": 0.6}}));
    let payers = Payers::new(&OwnerConfig::default(), "node", true).unwrap();
    let mut accounts = Accounts::new(Some(&cost), payers, &Metrics::new(), "nvml");
    let gpus: Vec<Arc<Identity>> = (0..4)
        .map(|index| {
            let (uuid, name) = (format!("GPU-{index}").into(), "NVIDIA H200".into());
            Arc::new(Identity { uuid, index, name, ..Identity::default() })
        })
        .collect();
    let reports: Vec<Report> = gpus.iter().map(|gpu| Report::bare(gpu.clone(), State::Readable)).collect();
    let held: Vec<(f64, Share)> = rows("| Container | GPU |")
        .into_iter()
        .map(|cells| {
            let (namespace, pod) = code(cells[0]).split_once('/').unwrap();
            let holder = Holder {
                namespace: namespace.to_owned(),
                pod: pod.to_owned(),
                container: "main".to_owned(),
                uid: None,
            };
            let mig = cells[2].split('`').nth(1).map(|profile| {
                Arc::new(MigIdentity { profile: Some(profile.to_owned()), ..MigIdentity::default() })
            });
            let part = cells[3].split_once('/').map_or_else(
                || cells[3].parse().unwrap(),
                |(a, b)| a.parse::<f64>().unwrap() / b.parse::<f64>().unwrap(),
            );
            let share = Share {
                device: gpus[cells[1].parse::<usize>().unwrap()].clone(),
                mig,
                owner: Owner::Pod(Arc::new(holder)),
                evidence: Evidence::Kubelet,
                part,
                busy: cells[5].parse().ok(),
            };
            (cells[4].parse().unwrap(), share)
        })
        .collect();
    assert_eq!(held.len(), 5);

    let (begin, minute) = (Instant::now(), Duration::from_secs(60));
    // Sums of each row at last, of those too that are forgotten by the end of the day.
    let mut last: BTreeMap<(String, String, String), [f64; 3]> = BTreeMap::new();
    for passed in 0..=24 * 60u32 {
        let now = begin + minute * passed;
        let share =
            |(hours, share): &(f64, Share)| (f64::from(passed) <= hours * 60.0).then(|| share.clone());
        let mut shares: Vec<Share> = held.iter().filter_map(share).collect();
        for device in gpus
            .iter()
            .filter(|gpu| shares.iter().all(|share| share.device.uuid != gpu.uuid))
            .cloned()
            .collect::<Vec<_>>()
        {
            let (owner, evidence) = (Owner::Unallocated, Evidence::None);
            shares.push(Share { device, mig: None, owner, evidence, part: 1.0, busy: None });
        }
        accounts.advance(now, u64::from(passed) * 60_000_000_000, minute, &shares, &reports);
        for row in accounts.rows() {
            let key =
                (row.tenant().to_owned(), row.pod().unwrap_or_default().to_owned(), row.gpu().to_owned());
            last.insert(key, [row.allocated(), row.busy().unwrap_or_default(), row.cost().unwrap()]);
        }
    }
    let table = rows("| Tenant | Allocated, s |");
    let tenants: BTreeSet<&str> = last.keys().map(|(tenant, ..)| tenant.as_str()).collect();
    assert_eq!(table.iter().map(|cells| code(cells[0])).collect::<BTreeSet<_>>(), tenants);
    let mut sums = [0.0; 3];
    for cells in table {
        for (at, sum) in sums.iter_mut().enumerate() {
            let of = last.iter().filter(|((tenant, ..), _)| tenant == code(cells[0]));
            let value: f64 = of.map(|(_, sums)| sums[at]).sum();
            let shown: f64 = if cells[at + 1].is_empty() { 0.0 } else { cells[at + 1].parse().unwrap() };
            assert!((value - shown).abs() < 1e-3, "{}: {value} is not {shown}", cells[0]);
            *sum += value;
        }
    }
    assert!((sums[0] - 4.0 * 86_400.0).abs() < 1e-6, "{sums:?}");
    assert!((sums[2] - 338.4).abs() < 1e-9 && text.contains("the sum is 338.40 rather than 336"));
    assert_eq!(accounts.unaccounted().map(|time| time.seconds).sum::<f64>(), 0.0);
}
