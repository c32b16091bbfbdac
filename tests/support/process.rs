//! What the kernel knows of a process: memory, processor time, and signals to it.

use std::fs;

/// The kernel's clock ticks a second, as `/proc` reports them (fixed for user space on Linux).
const TICKS: f64 = 100.0;

/// Resident memory now, bytes.
pub fn rss(pid: u32) -> u64 {
    status_kib(pid, "VmRSS:") * 1024
}

/// The most resident memory so far, bytes.
pub fn peak_rss(pid: u32) -> u64 {
    status_kib(pid, "VmHWM:") * 1024
}

/// Starts the peak anew.
pub fn reset_peak(pid: u32) {
    // Refused in some containers; the peak then covers the whole life of the process.
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// User and system seconds of all threads so far.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name may hold spaces and parentheses; fields are counted behind the last one.
    let mut fields = stat.rsplit(')').next().unwrap_or("").split_whitespace().skip(11);
    let mut ticks = || fields.next().and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks() + ticks()) / TICKS
}

/// How many files and sockets it has open.
pub fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Sends a signal by name, such as `TERM`.
pub fn signal(pid: u32, name: &str) {
    let done = std::process::Command::new("kill").args(["-s", name, &pid.to_string()]).status();
    assert!(done.is_ok_and(|s| s.success()), "kill -s {name} {pid}");
}

/// Raises this process's limit of open files to what the kernel allows, and says what it is now.
pub fn raise_open_files() -> u64 {
    let me = std::process::id();
    let hard = open_file_limits(me).1;
    let _ = std::process::Command::new("prlimit")
        .args(["--pid", &me.to_string(), &format!("--nofile={hard}:{hard}")])
        .status();
    open_file_limits(me).0
}

/// Soft and hard limit of open files.
pub fn open_file_limits(pid: u32) -> (u64, u64) {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    let line = limits.lines().find_map(|l| l.strip_prefix("Max open files")).unwrap_or("");
    let mut numbers = line.split_whitespace().map(|f| f.parse().unwrap_or(u64::MAX));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn status_kib(pid: u32, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix(key)).unwrap_or("");
    line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}
