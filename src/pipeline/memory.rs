//! How much memory the agent has, uses, and gives back.
//!
//! The ledger counts what is in flight; this module looks at the process as the kernel sees it, so that memory
//! the ledger cannot see (connections, caches, fragmentation) cannot break the promise either.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Ledger;

/// What a `memory_limiter` asks for, in bytes and times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How often to look.
    pub check_interval: Duration,
    /// Above this resident size every request is refused.
    pub hard: usize,
    /// Budget of the ledger; above this resident size free memory is returned to the system.
    pub soft: usize,
    /// Least and greatest time between two returns above the soft limit.
    pub soft_interval: (Duration, Duration),
    /// Least and greatest time between two returns above the hard limit.
    pub hard_interval: (Duration, Duration),
}

impl Limits {
    /// What holds without a `memory_limiter`: three quarters of a cgroup's limit, or a quarter of the machine's
    /// memory where no cgroup limits it.
    pub fn without_limiter() -> Self {
        let soft = match cgroup_limit() {
            Some(limit) => limit / 4 * 3,
            None => physical() / 4,
        };
        Limits {
            check_interval: Duration::from_secs(1),
            hard: soft / 10 * 11,
            soft,
            soft_interval: (Duration::from_secs(10), Duration::from_secs(30)),
            hard_interval: (Duration::ZERO, Duration::from_secs(30)),
        }
    }
}

/// Memory available to the agent in bytes: the cgroup's limit (v2, then v1), else the machine's memory.
pub fn available() -> usize {
    cgroup_limit().unwrap_or_else(physical)
}

/// The resident size of this process in bytes; 0 where the system does not say.
pub fn resident() -> usize {
    // Second field of statm: resident pages. Pages are 4 KiB on every platform this runs on by default; the
    // ledger does not depend on it.
    const PAGE: usize = 4096;
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm
        .split_ascii_whitespace()
        .nth(1)
        .and_then(|n| n.parse::<usize>().ok())
        .map_or(0, |pages| pages * PAGE)
}

/// Watches the resident size until the process ends: see the module's documentation.
pub async fn watch(ledger: Arc<Ledger>, limits: Limits) {
    let mut tick = tokio::time::interval(limits.check_interval);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut pace = Pace::default();
    loop {
        tick.tick().await;
        let before = resident();
        let over_hard = before > limits.hard;
        if before > limits.soft {
            let interval = if over_hard { limits.hard_interval } else { limits.soft_interval };
            if pace.due(Instant::now(), interval) {
                super::allocator::release();
                pace.helped(resident() < before - before / 50, interval);
            }
        }
        let closed = must_close(resident(), limits.hard, ledger.used(), ledger.budget());
        if closed != ledger.closed() {
            ledger.close(closed);
            if closed {
                tracing::warn!(
                    resident_mib = before >> 20,
                    limit_mib = limits.hard >> 20,
                    "Memory usage is above hard limit. Refusing data."
                );
            } else {
                tracing::info!(
                    resident_mib = resident() >> 20,
                    "Memory usage back within limits. Resuming normal operation."
                );
            }
        }
    }
}

/// Whether requests must be refused whatever the ledger says. Not while telemetry holds less than half of its
/// budget: what is above the limit then is free memory that the allocator has kept, and will use again, or nothing
/// that refusing could mend; the agent would never serve again.
fn must_close(resident: usize, hard: usize, used: usize, budget: usize) -> bool {
    resident > hard && used >= budget / 2
}

/// When free memory was last returned, and how long to wait until the next time.
#[derive(Default)]
struct Pace {
    last: Option<Instant>,
    wait: Duration,
}

impl Pace {
    fn due(&mut self, now: Instant, (least, _): (Duration, Duration)) -> bool {
        let wait = self.wait.max(least);
        let due = self.last.is_none_or(|last| now.duration_since(last) >= wait);
        if due {
            self.last = Some(now);
        }
        due
    }

    /// Doubles the wait while it does not help, up to the greatest interval; starts over once it does.
    fn helped(&mut self, helped: bool, (least, most): (Duration, Duration)) {
        self.wait = if helped || most.is_zero() {
            least
        } else {
            (self.wait.max(least).max(Duration::from_secs(1)) * 2).min(most)
        };
    }
}

fn cgroup_limit() -> Option<usize> {
    ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok()?.trim().parse::<usize>().ok())
        // v1 writes "no limit" as a number near 2^63.
        .find(|&limit| limit < physical())
}

fn physical() -> usize {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    // A machine that does not say gets a budget that fits a small one.
    total.and_then(|kib| kib.trim().parse::<usize>().ok()).map_or(1 << 30, |kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_and_the_machine_have_sizes() {
        assert!(resident() > 1 << 20);
        assert!(available() > resident());
    }

    #[test]
    fn only_telemetry_closes_the_ledger() {
        for (resident, used, closed) in [(99, 80, false), (101, 80, true), (101, 40, true), (101, 39, false)]
        {
            assert_eq!(must_close(resident, 100, used, 80), closed, "{resident} {used}");
        }
    }

    #[test]
    fn returning_memory_backs_off_while_it_does_not_help() {
        let s = Duration::from_secs;
        let interval = (s(1), s(5));
        let mut pace = Pace::default();
        let start = Instant::now();
        let mut at = Vec::new();
        for second in 0..20 {
            if pace.due(start + s(second), interval) {
                at.push(second);
                pace.helped(second >= 12, interval);
            }
        }
        assert_eq!(at, [0, 2, 6, 11, 16, 17, 18, 19]);
    }
}
