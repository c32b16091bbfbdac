//! What the kernel says about the agent's own process, under the Collector's names, read at each scrape.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Instant;

use prometheus::{Counter, Gauge};

use super::Metrics;
use crate::pipeline::{Ledger, memory};

/// Adds `otelcol_process_*` and the byte ledger's `tidegate_memory_*` to the scrape.
pub fn register(metrics: &Arc<Metrics>, ledger: &Arc<Ledger>) {
    let started = Instant::now();
    let counter = |name: &str, help: &str| {
        let counter = Counter::new(name, help).ok()?;
        metrics.add(Box::new(counter.clone())).then_some(counter)
    };
    let gauge = |name: &str, help: &str| {
        let gauge = Gauge::new(name, help).ok()?;
        metrics.add(Box::new(gauge.clone())).then_some(gauge)
    };
    let uptime = counter("otelcol_process_uptime", "Seconds since the agent started.");
    let cpu = counter("otelcol_process_cpu_seconds", "CPU seconds used, user and system.");
    let rss = gauge("otelcol_process_memory_rss", "Resident size in bytes.");
    let used = gauge("tidegate_memory_reserved_bytes", "Bytes reserved, for connections and telemetry.");
    let telemetry = gauge("tidegate_memory_in_flight_bytes", "Bytes reserved for telemetry in flight.");
    let peak = gauge("tidegate_memory_reserved_peak_bytes", "The most that was ever reserved at once.");
    let budget =
        gauge("tidegate_memory_budget_bytes", "Bytes that may be reserved before requests are refused.");
    let ledger = ledger.clone();
    metrics.before_scrape(move || {
        let advance = |counter: &Option<Counter>, to: f64| {
            if let Some(counter) = counter {
                counter.inc_by((to - counter.get()).max(0.0));
            }
        };
        let set = |gauge: &Option<Gauge>, to: usize| {
            if let Some(gauge) = gauge {
                gauge.set(to as f64);
            }
        };
        advance(&uptime, started.elapsed().as_secs_f64());
        advance(&cpu, cpu_seconds().unwrap_or_default());
        set(&rss, memory::resident());
        set(&used, ledger.used());
        set(&telemetry, ledger.in_flight());
        set(&peak, ledger.peak());
        set(&budget, ledger.budget());
    });
}

/// Adds `target_info`, whose labels describe this agent.
pub fn describe(metrics: &Metrics, about: &BTreeMap<String, String>) {
    let text = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let names: Vec<String> = about.keys().map(|name| name.chars().map(text).collect()).collect();
    let labels: Vec<&str> = names.iter().map(String::as_str).collect();
    let values: Vec<&str> = about.values().map(String::as_str).collect();
    if let Some(family) = metrics.gauge("target_info", "What describes this agent.", &labels) {
        family.with_label_values(&values).set(1);
    }
}

/// User and system time of this process, from `/proc/self/stat`, whose unit is fixed at 100 ticks a second on
/// every Linux architecture this runs on.
fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses and may hold anything; fields 14 and 15 are counted
    // from behind it.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_seen() {
        let metrics = Metrics::new();
        register(&metrics, &Ledger::new(1000));
        let gathered = metrics.gather();
        let value = |name: &str| {
            let family = gathered.iter().find(|f| f.name() == name).unwrap();
            let metric = &family.get_metric()[0];
            metric.get_gauge().get_value() + metric.get_counter().get_value()
        };
        assert!(value("otelcol_process_memory_rss") > 1e6);
        assert_eq!(value("tidegate_memory_budget_bytes"), 1000.0);
        assert!(cpu_seconds().is_some());
    }
}
