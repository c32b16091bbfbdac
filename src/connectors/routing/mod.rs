//! `routing`: sends telemetry to one pipeline or another, by tenant, request, attribute or condition.
//!
//! # What it promises
//!
//! * Every item goes to the first route that takes it, and to each `copy` route before that one; what none takes goes
//!   to the default pipelines, or is dropped and counted. `received = forwarded + refused + dropped` at all times.
//! * Parts share the acknowledgement: the sender hears the worst of what became of them.
//! * What cannot be read, because its bytes are not what they should be, is taken by no route but one that takes all;
//!   what lies beside it is.
//!
//! # What it costs
//!
//! By tenant or request: one comparison a route, nothing is read or copied. By attribute or condition: one walk a
//! route, and a second one where a request holds both what fits and what does not. Telemetry is referenced, not
//! copied.

mod attribute;
mod config;
mod request;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use smallvec::SmallVec;

use super::{Connector, Target};
use crate::components::BuildError;
use crate::config::types::type_of;
use crate::ottl::{ErrorMode, Rules};
use crate::pdata::{Batch, Signal};
use crate::pipeline::stages::FanOut;
use crate::pipeline::{Acks, BuildContext, Consumer, Verdict};
use crate::processors::edit::{Edit, Program};
use crate::telemetry::Counter;

pub use config::{RouteAction, RouteConfig, RouteContext, RoutingConfig};

use config::TestConfig;
use request::RequestCondition;

/// The connector for one signal.
struct Routing {
    id: String,
    routes: Vec<Route>,
    /// For what no route takes.
    rest: Option<Arc<dyn Consumer>>,
    error_mode: ErrorMode,
    books: Arc<Books>,
}

struct Route {
    test: Test,
    /// Whether what passes the test is left for the routes behind.
    copy: bool,
    to: Arc<dyn Consumer>,
}

enum Test {
    Tenant(Vec<String>),
    Request(RequestCondition),
    Always,
    Parts(Box<Parts>),
}

/// The two halves of a test that takes requests apart.
struct Parts {
    /// Leaves what fits.
    fitting: Program,
    /// Leaves what does not.
    others: Program,
}

/// What passes a test.
enum Taken {
    Nothing,
    All,
    Part { part: Box<Batch>, rest: Box<Batch> },
}

struct Books {
    received: Counter,
    forwarded: Counter,
    refused: Counter,
    dropped: Counter,
    /// The part of `dropped` that no route took.
    unrouted: Counter,
    /// The part that would have been refused, had it not been acknowledged before.
    failed: Counter,
}

/// Builds the connector for a signal.
///
/// # Errors
/// A route's condition that does not fit the signal, or a pipeline that does not list the connector.
pub fn build(
    config: &RoutingConfig,
    signal: Signal,
    targets: Vec<Target>,
    cx: &BuildContext,
) -> Result<Connector, BuildError> {
    let mut routes = Vec::new();
    for route in &config.table {
        // Pipelines of other signals have an instance of their own.
        let Some(to) = fan_out(&route.pipelines, signal, &targets)? else { continue };
        let test = Test::new(route, signal, config.error_mode, &cx.id)?;
        routes.push(Route { test, copy: route.action == RouteAction::Copy, to });
    }
    let books = Arc::new(Books::new(cx, signal));
    let consumer = Arc::new(Routing {
        id: cx.id.clone(),
        routes,
        rest: fan_out(&config.default_pipelines, signal, &targets)?,
        error_mode: config.error_mode,
        books: books.clone(),
    });
    Ok(Connector { consumer, gap: Some(Box::new(move || books.gap())) })
}

/// The pipelines of that signal among `ids`.
fn fan_out(
    ids: &[String],
    signal: Signal,
    targets: &[Target],
) -> Result<Option<Arc<dyn Consumer>>, BuildError> {
    let mut out: Vec<(&str, Arc<dyn Consumer>)> = Vec::new();
    for id in ids.iter().map(|id| id.trim()) {
        if type_of(id) != signal.name() || out.iter().any(|(known, _)| *known == id) {
            continue;
        }
        let target = targets.iter().find(|t| t.pipeline == id);
        let target = target.ok_or_else(|| format!("the pipeline \"{id}\" does not have it as a receiver"))?;
        out.push((id, target.entry.clone()));
    }
    Ok(FanOut::over(out.into_iter().map(|(_, entry)| entry).collect()))
}

impl Test {
    fn new(route: &RouteConfig, signal: Signal, mode: ErrorMode, owner: &str) -> Result<Self, BuildError> {
        let parts = |edit: &dyn Fn(bool) -> Result<Edit, String>| {
            let half = |keep| edit(keep).map(|edit| Program::new(signal, vec![edit]));
            // What cannot be read stays with the others.
            let fitting = half(true)?.readable_only();
            Ok::<_, String>(Test::Parts(Box::new(Parts { fitting, others: half(false)? })))
        };
        match route.test().map_err(|mistake| mistake.message)? {
            TestConfig::Tenant(names) => Ok(Test::Tenant(names.to_vec())),
            TestConfig::Request(condition) => Ok(Test::Request(condition)),
            TestConfig::Attribute { name, equals, fits } => {
                parts(&|keep| attribute::edit(name, equals, fits, keep))
            }
            TestConfig::Always => Ok(Test::Always),
            TestConfig::Condition { text, context } => parts(&|keep| {
                // What fails has been met by the first walk, which is that for the others.
                let mode = if keep { ErrorMode::Silent } else { mode };
                let group = route.compile(text, context, signal, mode).map_err(|mistake| mistake.message)?;
                Ok(Rules::filter(owner, signal, vec![group], keep, None).edit())
            }),
        }
    }

    /// What of a batch passes the test; and what could not be judged, if anything, which does not.
    fn take(&self, batch: &Batch) -> (Taken, Option<String>) {
        let fits = match self {
            Test::Tenant(names) => {
                batch.tenant.as_ref().is_some_and(|t| names.iter().any(|name| name == t.name()))
            }
            Test::Request(condition) => condition.holds(&batch.client),
            Test::Always => true,
            Test::Parts(parts) => return parts.take(batch),
        };
        (if fits { Taken::All } else { Taken::Nothing }, None)
    }
}

impl Parts {
    fn take(&self, batch: &Batch) -> (Taken, Option<String>) {
        let mut rest = unacknowledged(batch);
        let applied = self.others.apply(&mut rest);
        if applied.refused.is_some() {
            return (Taken::Nothing, applied.refused);
        }
        let unread = (applied.malformed > 0).then(|| format!("{} messages are malformed", applied.malformed));
        if applied.dropped == 0 {
            return (Taken::Nothing, unread);
        }
        if rest.items == 0 {
            return (Taken::All, unread);
        }
        let mut part = unacknowledged(batch);
        let applied = self.fitting.apply(&mut part);
        if applied.refused.is_some() {
            return (Taken::Nothing, applied.refused);
        }
        // The two halves are the whole, or nothing is taken.
        if part.items + rest.items != batch.items {
            return (Taken::Nothing, Some("the request cannot be taken apart".to_owned()));
        }
        (Taken::Part { part: Box::new(part), rest: Box::new(rest) }, unread)
    }
}

/// The same telemetry, for which nobody waits.
fn unacknowledged(batch: &Batch) -> Batch {
    Batch {
        signal: batch.signal,
        rope: batch.rope.clone(),
        items: batch.items,
        client: batch.client.clone(),
        tenant: batch.tenant.clone(),
        demoted: batch.demoted,
        received: batch.received,
        leases: batch.leases.clone(),
        acks: Acks::none(),
    }
}

impl Consumer for Routing {
    fn consume(&self, mut batch: Batch) {
        self.books.received.add(batch.items as u64);
        let mut copied: SmallVec<[&Parts; 2]> = SmallVec::new();
        let mut all_copied = false;
        for Route { test, copy, to } in &self.routes {
            let (taken, unjudged) = test.take(&batch);
            if let Some(reason) = unjudged {
                match self.error_mode {
                    ErrorMode::Propagate => return self.refuse(batch, reason),
                    ErrorMode::Silent => {}
                    ErrorMode::Ignore => {
                        tracing::warn!(connector = self.id, reason, "A route leaves what it cannot judge");
                    }
                }
            }
            match taken {
                Taken::Nothing => {}
                Taken::All if *copy => {
                    all_copied = true;
                    to.consume(batch.clone());
                }
                Taken::All => {
                    self.books.forwarded.add(batch.items as u64);
                    return to.consume(batch);
                }
                Taken::Part { mut part, mut rest } => {
                    part.acks = batch.acks.clone();
                    if *copy {
                        copied.extend(match test {
                            Test::Parts(parts) => Some(parts.as_ref()),
                            _ => None,
                        });
                    } else {
                        self.books.forwarded.add(part.items as u64);
                        rest.acks = batch.acks;
                        batch = *rest;
                    }
                    to.consume(*part);
                }
            }
        }
        match &self.rest {
            Some(rest) => {
                self.books.forwarded.add(batch.items as u64);
                rest.consume(batch);
            }
            None => self.leave(batch, all_copied, &copied),
        }
    }

    fn holds_acks(&self) -> bool {
        self.routes.iter().map(|route| &route.to).chain(&self.rest).any(|to| to.holds_acks())
    }
}

impl Routing {
    /// Ends the way of what no route has moved: copies of it may have gone somewhere, the rest is dropped.
    fn leave(&self, batch: Batch, all_copied: bool, copied: &[&Parts]) {
        let items = batch.items;
        let mut nowhere = 0;
        if !all_copied {
            let mut left = unacknowledged(&batch);
            for parts in copied {
                let _counted_before = parts.others.apply(&mut left);
            }
            nowhere = left.items;
        }
        self.books.forwarded.add((items - nowhere) as u64);
        self.books.dropped.add(nowhere as u64);
        self.books.unrouted.add(nowhere as u64);
        batch.acks.resolve(Verdict::Accepted);
    }

    fn refuse(&self, batch: Batch, reason: String) {
        let items = batch.items as u64;
        if batch.acks.settled() {
            // Some of it has been acknowledged, so that nobody will send it again.
            self.books.dropped.add(items);
            self.books.failed.add(items);
        } else {
            self.books.refused.add(items);
        }
        batch.acks.resolve(Verdict::Rejected { bad_data: true, reason });
    }
}

impl Books {
    fn new(cx: &BuildContext, signal: Signal) -> Self {
        let signal = signal.name();
        let series = |name: &str, help: &str| {
            cx.metrics.series(name, help, &[("connector", &cx.id), ("data_type", signal)])
        };
        let dropped = |reason: &str| {
            let labels = &[("component", cx.id.as_str()), ("data_type", signal), ("reason", reason)];
            cx.metrics.series("tidegate_dropped_items", "Items given up on, by reason.", labels)
        };
        Books {
            received: series(
                "tidegate_connector_received_items",
                "Items handed to a connector that chooses.",
            ),
            forwarded: series(
                "tidegate_connector_forwarded_items",
                "Items a connector sent to pipelines, counted once however many there are.",
            ),
            refused: series(
                "tidegate_connector_refused_items",
                "Items a connector refused because it could not judge them.",
            ),
            dropped: series(
                "tidegate_connector_dropped_items",
                "Items a connector dropped; see tidegate_dropped_items for the reasons.",
            ),
            unrouted: dropped("unrouted"),
            failed: dropped("route_failed"),
        }
    }

    /// What is missing from the books: 0, or a bug.
    fn gap(&self) -> i64 {
        let out = self.forwarded.get() + self.refused.get() + self.dropped.get();
        self.received.get() as i64 - out as i64
    }
}
