//! The whole agent under load, beside what the bytes themselves cost.
//!
//! The system under test runs pinned to core 0, client and backend to core 1. What is reported is processor time
//! (user and system) of the system's process alone, per million items, so that a busy machine matters little;
//! and its memory. A TCP relay and a bare tonic relay run the same load in the same way.
//!
//! ```text
//! cargo bench --bench e2e                          # every row
//! cargo bench --bench e2e -- --rows traces,512     # rows whose name contains every word
//! cargo bench --bench e2e -- --systems tcp,tonic   # baselines only
//! cargo bench --bench e2e -- --seconds 20 --list
//! ```
//!
//! Each result is also one line `row {json}` on standard output.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a bench: a surprise must fail loudly, and the result is what it prints"
)]

mod relay;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use support::agent::Agent;
use support::load::{self, Target};
use support::sink::{Options as SinkOptions, Sink};
use support::{Compression, Signal, free_port, loopback, process};

const AGENT: &str = env!("CARGO_BIN_EXE_tidegate");

/// What the agent does with the telemetry on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Pass,
    ResourceAttribute,
    ItemAttribute,
    /// Four editing processors one behind the other.
    FourEdits,
    /// What a gateway of many tenants does, with rules that touch only the resource.
    Tenancy,
    /// Four processors with rules for items.
    Rules,
}

impl Work {
    fn name(self) -> &'static str {
        match self {
            Work::Pass => "pass",
            Work::ResourceAttribute => "resource",
            Work::ItemAttribute => "insert",
            Work::FourEdits => "four",
            Work::Tenancy => "tenancy",
            Work::Rules => "rules",
        }
    }

    /// The `processors:` section and the list in the pipeline.
    fn processors(self) -> (&'static str, &'static str) {
        match self {
            Work::Pass => ("{}", "[]"),
            Work::ResourceAttribute => (
                "{resource: {attributes: [{key: cluster, value: gpu-west-1, action: upsert}]}}",
                "[resource]",
            ),
            Work::ItemAttribute => (
                "{attributes: {actions: [{key: cluster, value: gpu-west-1, action: insert}]}}",
                "[attributes]",
            ),
            Work::FourEdits => (
                "{resource: {attributes: [{key: cluster, value: gpu-west-1, action: upsert}]}, \
                 attributes/1: {actions: [{key: region, value: eu-west, action: insert}]}, \
                 attributes/2: {actions: [{key: enduser.id, action: delete}]}, \
                 attributes/3: {actions: [{key: tenant, value: shop, action: upsert}]}}",
                "[resource, attributes/1, attributes/2, attributes/3]",
            ),
            Work::Tenancy => (
                r#"{tenant: {from: [{attribute: resource.k8s.namespace.name}], unresolved: refuse, attribute: tenant.id},
                 resource: {attributes: [{key: cluster, value: gpu-west-1, action: upsert}]},
                 relabel: {rules: [{source_labels: [resource.k8s.pod.name], regex: "(.*)-[a-z0-9]+",
                 target_label: resource.workload}, {regex: "resource.host.name", action: labeldrop}]}}"#,
                "[tenant, resource, relabel]",
            ),
            Work::Rules => (
                r#"{resource: {attributes: [{key: cluster, value: gpu-west-1, action: upsert}]},
                 relabel: {rules: [{source_labels: [http.route], regex: "/api/(v[0-9]+)/.*", target_label: route},
                 {regex: "enduser.id", action: labeldrop}]},
                 filter: {trace_conditions: ['span.attributes["http.route"] == "/healthz"'],
                 log_conditions: ['log.attributes["http.route"] == "/healthz"'],
                 metric_conditions: ['datapoint.attributes["http.route"] == "/healthz"']},
                 attributes: {actions: [{key: tenant, value: shop, action: upsert}]}}"#,
                "[resource, relabel, filter, attributes]",
            ),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum System {
    Agent,
    Tcp,
    Tonic,
}

impl System {
    fn name(self) -> &'static str {
        match self {
            System::Agent => "tidegate",
            System::Tcp => "tcp",
            System::Tonic => "tonic",
        }
    }
}

#[derive(Debug, Clone)]
struct Row {
    signal: Signal,
    work: Work,
    items: usize,
    compression: Compression,
    /// Requests a second; 0 for as many as go through.
    rate: u64,
}

impl Row {
    fn name(&self) -> String {
        let rate = if self.rate > 0 { format!(" {}/s", self.rate) } else { String::new() };
        let (signal, work) = (self.signal.name(), self.work.name());
        format!("{signal} {work} {} {}{rate}", self.items, self.compression.name())
    }
}

fn rows() -> Vec<Row> {
    let row = |signal, work, items, compression| Row { signal, work, items, compression, rate: 0 };
    let mut rows = Vec::new();
    for signal in [Signal::Traces, Signal::Logs, Signal::Metrics] {
        for work in [
            Work::Pass,
            Work::ResourceAttribute,
            Work::ItemAttribute,
            Work::FourEdits,
            Work::Tenancy,
            Work::Rules,
        ] {
            rows.push(row(signal, work, 512, Compression::None));
        }
    }
    for signal in [Signal::Traces, Signal::Logs] {
        for compression in [Compression::Gzip, Compression::Zstd] {
            rows.push(row(signal, Work::Pass, 512, compression));
            rows.push(row(signal, Work::ResourceAttribute, 512, compression));
        }
    }
    for items in [10, 100, 1000] {
        rows.push(row(Signal::Traces, Work::Pass, items, Compression::None));
        rows.push(row(Signal::Traces, Work::ResourceAttribute, items, Compression::None));
    }
    rows.push(Row { rate: 2000, ..row(Signal::Traces, Work::Pass, 10, Compression::None) });
    rows
}

struct Args {
    words: Vec<String>,
    systems: Vec<System>,
    seconds: f64,
    queue: bool,
    list: bool,
}

fn parse_args() -> Args {
    let mut args = Args {
        words: Vec::new(),
        systems: vec![System::Agent, System::Tonic, System::Tcp],
        seconds: 5.0,
        queue: false,
        list: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
        match word.as_str() {
            // What `cargo bench` itself passes.
            "--bench" => {}
            "--rows" => args.words = value().split(',').map(str::to_owned).collect(),
            "--systems" => {
                args.systems = value()
                    .split(',')
                    .map(|s| {
                        [System::Agent, System::Tcp, System::Tonic]
                            .into_iter()
                            .find(|system| system.name() == s)
                            .unwrap_or_else(|| panic!("no system {s}: tidegate, tcp, tonic"))
                    })
                    .collect();
            }
            "--seconds" => args.seconds = value().parse().expect("a number of seconds"),
            "--queue" => args.queue = true,
            "--list" => args.list = true,
            other => panic!("unknown argument {other}: --rows a,b --systems a,b --seconds n --queue --list"),
        }
    }
    args
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [kind, listen, target] = &words[..]
        && let Some(kind) = kind.strip_prefix("relay-")
    {
        let (listen, target) = (listen.parse().unwrap(), target.parse().unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return match kind {
            "tcp" => runtime.block_on(relay::tcp(listen, target)),
            _ => runtime.block_on(relay::tonic(listen, target)),
        };
    }
    let args = parse_args();
    let selected: Vec<Row> = rows()
        .into_iter()
        .filter(|row| {
            let name = row.name();
            args.words.iter().all(|word| name.split(' ').any(|part| part == word))
        })
        .collect();
    if args.list {
        return selected.iter().for_each(|row| println!("{}", row.name()));
    }
    pin(std::process::id(), 1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        if args.systems.contains(&System::Agent) {
            small_numbers().await;
        }
        println!(
            "{:<34} {:>9} {:>12} {:>10} {:>9} {:>9}",
            "row", "system", "cpu-s/M", "items/s", "busy", "peak MiB"
        );
        for row in &selected {
            for system in &args.systems {
                // The relays do not edit, and the tonic relay knows no compression.
                let compressed = row.compression != Compression::None;
                let knows = match system {
                    System::Agent => true,
                    System::Tcp => row.work == Work::Pass,
                    System::Tonic => row.work == Work::Pass && !compressed,
                };
                if !knows {
                    continue;
                }
                measure(row, *system, &args).await;
            }
        }
    });
}

/// Start, idle memory, size.
async fn small_numbers() {
    let sink = Sink::start(SinkOptions { count_only: true, ..Default::default() }).await;
    let (mut starts, mut idles) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let row = Row {
            signal: Signal::Traces,
            work: Work::Pass,
            items: 1,
            compression: Compression::None,
            rate: 0,
        };
        let agent = start_agent(&row, &sink, false);
        starts.push(agent.start_to_open.as_secs_f64() * 1e3);
        tokio::time::sleep(Duration::from_secs(1)).await;
        idles.push(agent.rss());
    }
    starts.sort_by(f64::total_cmp);
    idles.sort_unstable();
    let size = std::fs::metadata(AGENT).map_or(0, |m| m.len());
    let (start, idle, size) = (starts[2], idles[2] as f64 / 1048576.0, size as f64 / 1e6);
    println!("start to ready {start:.1} ms, idle RSS {idle:.1} MiB, binary {size:.1} MB");
    println!("row {}", json!({"row": "small", "start_ms": start, "idle_mib": idle, "binary_mb": size}));
}

async fn measure(row: &Row, system: System, args: &Args) {
    let sink = Sink::start(SinkOptions { count_only: true, ..Default::default() }).await;
    let mut running = Running::start(row, system, &sink, args.queue);
    let options = load::Options {
        targets: vec![Target::Grpc(running.address())],
        connections: 4,
        in_flight: 4,
        items_per_request: vec![row.items],
        signals: vec![row.signal],
        compressions: vec![row.compression],
        rate: row.rate,
        keep_books: false,
        ..Default::default()
    };
    let load = load::start(options);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let pid = running.pid();
    let (cpu, items, start) = (process::cpu_seconds(pid), sink.items(), Instant::now());
    tokio::time::sleep(Duration::from_secs_f64(args.seconds)).await;
    let (cpu, items) = (process::cpu_seconds(pid) - cpu, sink.items() - items);
    let elapsed = start.elapsed().as_secs_f64();
    load.stop();
    let report = load.finish().await;
    // Everything acknowledged is at the backend before the peak is read; nothing may be missing.
    support::eventually(Duration::from_secs(30), "everything acknowledged has arrived", || {
        sink.items() >= report.acknowledged
    })
    .await;
    let peak = process::peak_rss(pid) as f64 / 1048576.0;
    running.check();
    assert!(items > 0, "nothing went through: {report:?}");
    let per_million = cpu / items as f64 * 1e6;
    let (name, rate, busy) = (row.name(), items as f64 / elapsed, cpu / elapsed);
    println!(
        "{name:<34} {:>9} {per_million:>12.3} {rate:>10.0} {:>8.0}% {peak:>9.1}",
        system.name(),
        busy * 100.0
    );
    println!(
        "row {}",
        json!({
            "row": name, "system": system.name(), "cpu_s_per_million": per_million, "items_per_s": rate,
            "busy": busy, "peak_mib": peak, "seconds": elapsed, "items": items, "queue": args.queue,
            "bytes_per_item": report.bytes as f64 / (report.acknowledged.max(1)) as f64,
            "retryable": report.retryable, "permanent": report.permanent, "broken": report.broken,
        })
    );
}

/// A system under test as a process on core 0.
enum Running {
    Agent(Box<Agent>),
    Relay(Child, SocketAddr),
}

impl Running {
    fn start(row: &Row, system: System, sink: &Sink, queue: bool) -> Running {
        let kind = match system {
            System::Agent => return Running::Agent(Box::new(start_agent(row, sink, queue))),
            System::Tcp => "relay-tcp",
            System::Tonic => "relay-tonic",
        };
        let listen = loopback(free_port());
        let program = std::env::current_exe().unwrap();
        let child = Command::new("taskset")
            .args(["-c", "0"])
            .arg(program)
            .args([kind, &listen.to_string(), &sink.grpc.to_string()])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while std::net::TcpStream::connect(listen).is_err() {
            assert!(start.elapsed() < Duration::from_secs(10), "the relay does not open its port");
            std::thread::sleep(Duration::from_millis(1));
        }
        Running::Relay(child, listen)
    }

    fn pid(&self) -> u32 {
        match self {
            Running::Agent(agent) => agent.pid(),
            Running::Relay(child, _) => child.id(),
        }
    }

    fn address(&self) -> SocketAddr {
        match self {
            Running::Agent(agent) => agent.grpc,
            Running::Relay(_, address) => *address,
        }
    }

    fn check(&mut self) {
        let alive = match self {
            Running::Agent(agent) => agent.is_running(),
            Running::Relay(child, _) => child.try_wait().unwrap().is_none(),
        };
        assert!(alive, "the system under test ended");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Running::Relay(child, _) = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn start_agent(row: &Row, sink: &Sink, queue: bool) -> Agent {
    let (processors, used) = row.work.processors();
    let compression = row.compression.name();
    let queue = if queue { "{sizer: bytes, queue_size: 33554432}" } else { "{enabled: false}" };
    let yaml = format!(
        "
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: '127.0.0.1:@GRPC@'}}}}}}
processors: {processors}
exporters:
  otlp_grpc:
    endpoint: {sink}
    tls: {{insecure: true}}
    compression: {compression}
    sending_queue: {queue}
service:
  pipelines:
    traces: {{receivers: [otlp], processors: {used}, exporters: [otlp_grpc]}}
    metrics: {{receivers: [otlp], processors: {used}, exporters: [otlp_grpc]}}
    logs: {{receivers: [otlp], processors: {used}, exporters: [otlp_grpc]}}
",
        sink = sink.grpc
    );
    Agent::builder(AGENT, &yaml).through(&["taskset", "-c", "0"]).start()
}

/// Binds a process to one core.
fn pin(pid: u32, core: usize) {
    let done = Command::new("taskset").args(["-pc", &core.to_string(), &pid.to_string()]).output();
    assert!(done.is_ok_and(|o| o.status.success()), "taskset: pinning needs two cores and util-linux");
}
