//! `tenant`: finds out whose telemetry it is, keeps tenants apart and each within its limits.
//!
//! The name comes from the first of several sources that has one. A request of one tenant goes on as it is; one of
//! several is split, by bytes. What follows never mixes them again: the tenant is part of a batch's identity.
//!
//! # What it promises
//!
//! * No item goes on without a tenant, unless there are neither sources that have one nor somebody to use instead; then
//!   it is dropped or refused, as the configuration says.
//! * Names are such as backends take. A value that is none names nobody; the next source is asked.
//! * Rates are held in the long run whatever the size of requests, and who is refused hears when to try again.
//! * A request is refused as a whole or not at all. Where one tenant's part is to be refused, no part goes on and none
//!   is charged, so that nothing is delivered twice when the sender tries again. Telemetry that was acknowledged already
//!   cannot be refused: it is dropped and counted.
//! * Everything that comes in is counted once, by tenant and outcome.
//!
//! # What it costs
//!
//! With sources of the request alone, one look-up. With attributes of resources, one look at each resource. Items are
//! read only where a source of theirs comes before the first that has a name. Memory for tenants is bounded, and those
//! that send nothing are forgotten.

mod active;
mod config;
mod counts;
mod find;
mod limits;
mod namer;
mod names;
mod sources;
mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

pub use config::{
    CertificateName, LimitConfig, LimitsConfig, OnLimit, Otherwise, OverrideConfig, SourceConfig,
    TenantConfig,
};
pub use namer::Namer;

use self::active::PASSES;
use self::counts::{Counts, Outcome, Reason};
use self::sources::{Bucket, Resolver, Resolving, Source};
use self::table::{Owner, Table};
use crate::components::BuildError;
use crate::pdata::partition::{Partition, PartitionError, Pieces, Share, partition};
use crate::pdata::{Batch, Rope, Signal};
use crate::pipeline::{BuildContext, Gone, Lease, Split, Stage, Verdict};
use crate::processors::edit::{Edit, Op};

/// Builds the processor for one pipeline.
///
/// # Errors
/// Sources that are none, in a config that was not decoded from a file.
pub fn build(config: &TenantConfig, signal: Signal, cx: &BuildContext) -> Result<Stage, BuildError> {
    let split = TenantSplit::new(config, signal, cx)?;
    let table = Arc::downgrade(&split.with.table);
    cx.metrics.before_scrape(move || {
        if let Some(table) = table.upgrade() {
            table.look_after(tokio::time::Instant::now().into_std());
        }
    });
    let edit = config.attribute.as_deref().map(|key| Edit::resource(vec![Op::tenant(key)]));
    Ok(Stage::Split(Box::new(split), edit))
}

/// See the module's documentation.
struct TenantSplit {
    signal: Signal,
    with: Resolving,
}

/// What becomes of one tenant's part.
enum Fate {
    Pass(Arc<Owner>),
    /// Over a rate, but goes on.
    Demote(Arc<Owner>),
    Drop(Reason),
    /// And with it the whole request.
    Refuse(Reason, Verdict),
}

impl TenantSplit {
    fn new(config: &TenantConfig, signal: Signal, cx: &BuildContext) -> Result<Self, BuildError> {
        let sources: Vec<Source> = config.from.iter().map(Source::new).collect::<Result<_, _>>()?;
        let used =
            [&config.unresolved, &config.overflow].into_iter().filter_map(|otherwise| match otherwise {
                Otherwise::Use(name) => Some(name.clone()),
                _ => None,
            });
        let named: Vec<String> = sources.iter().flat_map(Source::named).chain(used).collect();
        let counts = Counts::new(&cx.metrics, &cx.id, signal);
        let table = Table::new(signal, config.limits.clone(), config.max_tenants, counts, named.into_iter());
        let (unresolved, overflow) = (config.unresolved.clone(), config.overflow.clone());
        Ok(TenantSplit { signal, with: Resolving { sources, unresolved, overflow, table: Arc::new(table) } })
    }

    fn counts(&self) -> &Counts {
        &self.with.table.counts
    }

    /// The request by tenants, and who they are.
    fn resolve(&self, now: Instant, batch: &Batch) -> Result<(Partition, Vec<Bucket>), PartitionError> {
        let pieces;
        let mut resolver = Resolver::new(&self.with, &batch.client, self.signal, now);
        let whole = resolver.request()?;
        let cut = match whole {
            Some(bucket) => {
                let share = Share { bucket, rope: batch.rope.clone(), items: batch.items };
                Partition { shares: vec![share], copied: 0 }
            }
            None => {
                pieces = Pieces::of(&batch.rope);
                partition(self.signal, &pieces, batch.items, &mut resolver)?
            }
        };
        self.counts().invalid(resolver.invalid);
        Ok((cut, resolver.buckets))
    }

    /// What becomes of a part, before anything is charged.
    fn fate(&self, now: Instant, bucket: Option<&Bucket>, settled: bool) -> Fate {
        let with = &self.with;
        let refused = |reason: Reason, verdict: Verdict| match settled {
            true => Fate::Drop(reason),
            false => Fate::Refuse(reason, verdict),
        };
        match bucket {
            Some(Bucket::Owner(owner)) => {
                let Some(after) = owner.meter().wait(now) else { return Fate::Pass(owner.clone()) };
                match owner.limits.on_limit {
                    OnLimit::Refuse => {
                        let reason = format!("the tenant \"{}\" is over its rate limit", owner.name());
                        refused(Reason::RateLimit, Verdict::Retry { after: Some(after), reason })
                    }
                    OnLimit::Drop => Fate::Drop(Reason::RateLimit),
                    OnLimit::Demote => Fate::Demote(owner.clone()),
                }
            }
            Some(Bucket::Overflow) => match with.overflow {
                Otherwise::Refuse => refused(Reason::Overflow, Verdict::retry("there are too many tenants")),
                _ => Fate::Drop(Reason::Overflow),
            },
            Some(Bucket::Unresolved) | None => match with.unresolved {
                Otherwise::Drop => Fate::Drop(Reason::Unresolved),
                _ => {
                    let reason = "nothing in the request says which tenant it is of".to_owned();
                    refused(Reason::Unresolved, Verdict::Rejected { bad_data: true, reason })
                }
            },
        }
    }

    /// Answers a request that cannot be cut.
    fn bad(&self, batch: Batch, why: PartitionError) -> Gone {
        let (items, bytes) = (batch.items, batch.rope.len());
        let settled = batch.acks.settled();
        let outcome = if settled { Outcome::Dropped } else { Outcome::Refused };
        self.counts().add("", outcome, Reason::BadData, items, bytes);
        batch.acks.resolve(Verdict::Rejected { bad_data: true, reason: why.to_string() });
        if settled { Gone { refused: 0, dropped: items } } else { Gone { refused: items, dropped: 0 } }
    }

    /// Refuses the request as a whole.
    fn refuse(&self, batch: Batch, parts: Vec<(Share, Fate)>, buckets: &[Bucket]) -> Gone {
        let mut worst: Option<Verdict> = None;
        for (share, fate) in parts {
            let reason = match fate {
                Fate::Refuse(reason, verdict) => {
                    worst = Some(match worst {
                        // As long as a part can never be taken, trying the others again does not help.
                        Some(already @ Verdict::Rejected { .. }) => already,
                        Some(already) if !matches!(verdict, Verdict::Rejected { .. }) => {
                            already.worst(verdict)
                        }
                        _ => verdict,
                    });
                    reason
                }
                _ => Reason::SharedRequest,
            };
            let tenant = name(buckets.get(share.bucket));
            self.counts().add(tenant, Outcome::Refused, reason, share.items, share.rope.len());
        }
        let verdict = worst.unwrap_or_else(|| Verdict::retry("a tenant is over its limits"));
        let items = batch.items;
        batch.acks.resolve(verdict);
        Gone { refused: items, dropped: 0 }
    }

    /// Cuts off what is over the limit of series or streams: what is left, and how much was cut off.
    fn limit_active(&self, now: Instant, owner: &Owner, rope: Rope, items: usize) -> (Rope, usize, usize) {
        let Some(mut active) = owner.active() else { return (rope, items, 0) };
        let pieces = Pieces::of(&rope);
        // What cannot be read has no series; it was let in and goes on.
        let Ok(cut) = active.cut(now, self.signal, &pieces, items) else { return (rope, items, 0) };
        drop(active);
        let copied = cut.copied;
        let (mut passes, mut gone) = ((Rope::new(), 0), (0, 0));
        for share in cut.shares {
            if share.bucket == PASSES {
                passes = (share.rope, share.items);
            } else {
                gone = (share.items, share.rope.len());
            }
        }
        let reason = if self.signal == Signal::Logs { Reason::ActiveStreams } else { Reason::ActiveSeries };
        self.counts().add(owner.name(), Outcome::Dropped, reason, gone.0, gone.1);
        if gone.0 == 0 { (rope, items, 0) } else { (passes.0, passes.1, copied) }
    }
}

impl Split for TenantSplit {
    fn split(&self, now: Instant, batch: Batch, out: &mut Vec<Batch>) -> Gone {
        let (cut, buckets) = match self.resolve(now, &batch) {
            Ok(resolved) => resolved,
            Err(why) => return self.bad(batch, why),
        };
        let settled = batch.acks.settled();
        let fates = cut.shares.into_iter().map(|share| {
            let fate = self.fate(now, buckets.get(share.bucket), settled);
            (share, fate)
        });
        let parts: Vec<(Share, Fate)> = fates.collect();
        if parts.iter().any(|(_, fate)| matches!(fate, Fate::Refuse(..))) {
            return self.refuse(batch, parts, &buckets);
        }
        let Batch {
            signal,
            rope: original,
            items: _,
            client,
            tenant: _,
            demoted,
            received,
            mut leases,
            acks,
        } = batch;
        drop(original);
        hold(&mut leases, cut.copied);
        let mut gone = Gone::default();
        let first = out.len();
        for (share, fate) in parts {
            let (owner, outcome) = match fate {
                Fate::Pass(owner) => (owner, Outcome::Accepted),
                Fate::Demote(owner) => (owner, Outcome::Demoted),
                Fate::Drop(reason) | Fate::Refuse(reason, _) => {
                    let tenant = name(buckets.get(share.bucket));
                    self.counts().add(tenant, Outcome::Dropped, reason, share.items, share.rope.len());
                    gone.dropped += share.items;
                    continue;
                }
            };
            let (rope, items, copied) = self.limit_active(now, &owner, share.rope, share.items);
            gone.dropped += share.items - items;
            if items == 0 {
                continue;
            }
            let reason = if outcome == Outcome::Accepted { Reason::Known } else { Reason::RateLimit };
            self.counts().add(owner.name(), outcome, reason, items, rope.len());
            if outcome == Outcome::Accepted {
                owner.meter().charge(now, rope.len(), items);
            }
            let mut own = leases.clone();
            hold(&mut own, copied);
            out.push(Batch {
                signal,
                rope,
                items,
                client: client.clone(),
                tenant: Some(owner.tenant.clone()),
                demoted: demoted || outcome == Outcome::Demoted,
                received,
                leases: own,
                acks: acks.clone(),
            });
        }
        if let Some(last) = out.get_mut(first..).and_then(<[Batch]>::last_mut) {
            // The original shares end with the last part rather than being dropped, which would count as a retry.
            std::mem::replace(&mut last.acks, acks).resolve(Verdict::Accepted);
        } else {
            acks.resolve(Verdict::Accepted);
        }
        gone
    }
}

/// Reserves memory that exists already.
fn hold(leases: &mut SmallVec<[Arc<Lease>; 1]>, bytes: usize) {
    if bytes > 0
        && let Some(first) = leases.first()
    {
        let lease = Arc::new(first.alongside(bytes));
        leases.push(lease);
    }
}

fn name(bucket: Option<&Bucket>) -> &str {
    match bucket {
        Some(Bucket::Owner(owner)) => owner.name(),
        _ => "",
    }
}
