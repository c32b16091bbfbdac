//! `memory_limiter`: the Collector's keys for the agent's byte ledger.
//!
//! The ledger bounds memory with or without this processor, by refusing requests before their bodies are read.
//! What this adds: its own budget (`limit` less `spike_limit`), and a look at the real resident size every
//! `check_interval`: above the soft limit free memory is returned to the system, above the hard limit every
//! request is refused until it falls. Refusals are retryable. Cost on the data path: one atomic a request.

use std::time::Duration;

use crate::components::{BuildError, ComponentConfig};
use crate::config::{Cx, Node};
use crate::pdata::{Batch, Signal};
use crate::pipeline::{BuildContext, Limits, Stage, memory};
use crate::telemetry::Counter;

crate::config! {
    /// Refuses telemetry before memory runs out; senders are told to try again. Put it first in every pipeline.
    pub struct MemoryLimiterConfig {
        /// How often the resident size is measured. Required.
        pub check_interval: Duration = Duration::ZERO,
        /// The hard limit, in MiB. Wins over `limit_percentage`.
        pub limit_mib: u32 = 0,
        /// Room below the hard limit that is kept for spikes, in MiB. 0 means a fifth of the limit.
        pub spike_limit_mib: u32 = 0,
        /// The hard limit, in percent of the memory available to the agent (cgroup limit, else physical memory).
        pub limit_percentage: u32 = 0,
        /// Room for spikes, in percent of the available memory. 0 means a fifth of the limit.
        pub spike_limit_percentage: u32 = 0,
        /// Least time between two returns of free memory to the system while above the soft limit.
        pub min_gc_interval_when_soft_limited: Duration = Duration::from_secs(10),
        /// Least time between two returns of free memory to the system while above the hard limit.
        pub min_gc_interval_when_hard_limited: Duration = Duration::ZERO,
        /// The soft interval doubles up to this while returning memory does not help. 0 keeps it as it is.
        pub max_gc_interval_when_soft_limited: Duration = Duration::from_secs(30),
        /// The hard interval doubles up to this while returning memory does not help. 0 keeps it as it is.
        pub max_gc_interval_when_hard_limited: Duration = Duration::from_secs(30),
    }
    validate = MemoryLimiterConfig::check;
}

impl ComponentConfig for MemoryLimiterConfig {}

impl MemoryLimiterConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        let mut rule = |broken: bool, key: &str, message: &str| {
            if broken {
                cx.error(node.pos_of(key), message);
            }
        };
        rule(self.check_interval.is_zero(), "check_interval", "'check_interval' must be greater than zero");
        rule(
            self.limit_mib == 0 && self.limit_percentage == 0,
            "limit_mib",
            "'limit_mib' or 'limit_percentage' must be greater than zero",
        );
        rule(
            self.limit_mib > 0 && self.spike_limit_mib >= self.limit_mib,
            "spike_limit_mib",
            "'spike_limit_mib' must be smaller than 'limit_mib'",
        );
        rule(self.limit_percentage > 100, "limit_percentage", "'limit_percentage' must be at most 100");
        rule(
            self.spike_limit_percentage > 100,
            "spike_limit_percentage",
            "'spike_limit_percentage' must be at most 100",
        );
        rule(
            self.limit_percentage > 0 && self.spike_limit_percentage >= self.limit_percentage,
            "spike_limit_percentage",
            "'spike_limit_percentage' must be smaller than 'limit_percentage'",
        );
        let (soft, hard) = (self.min_gc_interval_when_soft_limited, self.min_gc_interval_when_hard_limited);
        rule(
            soft < hard,
            "min_gc_interval_when_soft_limited",
            "'min_gc_interval_when_soft_limited' must not be less than 'min_gc_interval_when_hard_limited'",
        );
        let (max_soft, max_hard) =
            (self.max_gc_interval_when_soft_limited, self.max_gc_interval_when_hard_limited);
        rule(
            !max_soft.is_zero() && max_soft < soft,
            "max_gc_interval_when_soft_limited",
            "'max_gc_interval_when_soft_limited' must not be less than 'min_gc_interval_when_soft_limited'",
        );
        rule(
            !max_hard.is_zero() && max_hard < hard,
            "max_gc_interval_when_hard_limited",
            "'max_gc_interval_when_hard_limited' must not be less than 'min_gc_interval_when_hard_limited'",
        );
        rule(
            !max_soft.is_zero() && max_soft < max_hard,
            "max_gc_interval_when_soft_limited",
            "'max_gc_interval_when_soft_limited' must not be less than 'max_gc_interval_when_hard_limited'",
        );
    }

    /// The limits in bytes, given the memory available to the agent.
    fn limits(&self, available: usize) -> Limits {
        let mib = |n: u32| n as usize * 1024 * 1024;
        let percent = |n: u32| available / 100 * n as usize;
        let (hard, spike) = if self.limit_mib > 0 {
            (mib(self.limit_mib), mib(self.spike_limit_mib))
        } else {
            (percent(self.limit_percentage), percent(self.spike_limit_percentage))
        };
        let spike = if spike == 0 { hard / 5 } else { spike };
        Limits {
            check_interval: self.check_interval,
            hard,
            soft: hard.saturating_sub(spike),
            soft_interval: (self.min_gc_interval_when_soft_limited, self.max_gc_interval_when_soft_limited),
            hard_interval: (self.min_gc_interval_when_hard_limited, self.max_gc_interval_when_hard_limited),
        }
    }
}

/// Hands the limits to the ledger; the strictest of several limiters counts.
///
/// # Errors
/// None beyond what the config's own validation reports.
pub fn build(config: &MemoryLimiterConfig, signal: Signal, cx: &BuildContext) -> Result<Stage, BuildError> {
    cx.ledger.limit(config.limits(memory::available()));
    let accepted: Counter = cx.metrics.series(
        &format!("otelcol_processor_memory_limiter_accepted_{}", signal.items()),
        "Items that passed the memory limiter.",
        &[("processor", &cx.id)],
    );
    Ok(Stage::Observe(Box::new(move |batch: &Batch| accepted.add(batch.items as u64))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_follow_the_keys() {
        const MIB: usize = 1024 * 1024;
        let base = MemoryLimiterConfig::default();
        let cases = [
            (MemoryLimiterConfig { limit_mib: 100, ..base.clone() }, 100 * MIB, 80 * MIB),
            (
                MemoryLimiterConfig { limit_mib: 100, spike_limit_mib: 30, ..base.clone() },
                100 * MIB,
                70 * MIB,
            ),
            (MemoryLimiterConfig { limit_percentage: 50, ..base.clone() }, 500 * MIB, 400 * MIB),
            (
                MemoryLimiterConfig { limit_percentage: 50, spike_limit_percentage: 25, ..base.clone() },
                500 * MIB,
                250 * MIB,
            ),
            (MemoryLimiterConfig { limit_mib: 100, limit_percentage: 50, ..base }, 100 * MIB, 80 * MIB),
        ];
        for (config, hard, soft) in cases {
            let limits = config.limits(1000 * MIB);
            assert_eq!((limits.hard, limits.soft), (hard, soft), "{config:?}");
        }
    }
}
