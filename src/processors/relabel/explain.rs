//! What rules do to each item of a request, one by one. For people: it takes its time.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use smallvec::SmallVec;

use super::config::RelabelProcessorConfig;
use super::rules::Rules;
use super::run::{Scratch, kind_of, labelled, name_of, severity_of, text_of};
use super::trace::{Effect, shown};
use crate::pdata::split::split_items;
use crate::pdata::wire::WireError;
use crate::pdata::{Batch, ClientInfo, Rope, Signal, Tenant, check};
use crate::pipeline::Acks;
use crate::processors::edit::{Edit, Facts, Fate, Level, Levels, Message, Program, Rewrite, StepCx};

/// Names and values of labels, in the order of the item: the tenant, the resource's, the scope's, the item's.
pub type Labels = Vec<(String, String)>;

/// What rules do to one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// Its labels before.
    pub before: Labels,
    /// What each rule did; none for rules that were not reached.
    pub rules: Vec<Vec<Effect>>,
    /// Its labels in the end; `None` if it is dropped.
    pub after: Option<Labels>,
}

/// The first so many rules, and what the last of them did.
#[derive(Debug)]
struct Traced {
    rules: Rules,
    log: Mutex<Vec<(usize, Effect)>>,
}

/// Reads the labels of an item.
#[derive(Debug, Default)]
struct Lister(Mutex<Labels>);

/// Runs a processor's rules on each item of a request.
///
/// # Errors
/// The rules have no meaning for the signal, or the request cannot be read.
pub fn explain(
    config: &RelabelProcessorConfig,
    signal: Signal,
    tenant: Option<&str>,
    request: &[u8],
) -> Result<Vec<Explained>, String> {
    // Each rule behind those before it, so that each is asked with the labels as they are when its turn comes.
    let mut steps = Vec::new();
    for count in 1..=config.rules.len() {
        let rules = RelabelProcessorConfig { rules: config.rules.iter().take(count).cloned().collect() };
        steps.push(Arc::new(Traced { rules: rules.compile(signal)?, log: Mutex::default() }));
    }
    let programs: Vec<Program> =
        steps.iter().map(|traced| Program::new(signal, vec![Edit::rules(traced.clone())])).collect();
    let items = check(signal, request).map_err(|why| why.to_string())?;
    let tenant = tenant.map(Tenant::new);
    let parts = split_items(signal, Rope::from(Bytes::copy_from_slice(request)), items, 1);
    let parts = parts.into_iter().filter(|(_, items)| *items > 0);
    Ok(parts
        .map(|(rope, items)| one(&steps, &programs, &batch(signal, rope, items, tenant.clone())))
        .collect())
}

fn one(steps: &[Arc<Traced>], programs: &[Program], item: &Batch) -> Explained {
    let mut out = Explained { before: list(item), rules: vec![Vec::new(); steps.len()], after: None };
    let mut last = item.clone();
    for (index, ((traced, program), effects)) in steps.iter().zip(programs).zip(&mut out.rules).enumerate() {
        last = item.clone();
        let _ = program.apply(&mut last);
        let log = std::mem::take(&mut *traced.log.lock().unwrap_or_else(PoisonError::into_inner));
        effects.extend(log.into_iter().filter(|(rule, _)| *rule == index).map(|(_, effect)| effect));
        if last.items == 0 {
            return out;
        }
    }
    out.after = Some(list(&last));
    out
}

/// The labels of a batch of one item.
fn list(item: &Batch) -> Labels {
    let lister = Arc::new(Lister::default());
    if let Some(tenant) = &item.tenant {
        lister.put("__tenant__".to_owned(), tenant.name().as_bytes());
    }
    let _ = Program::new(item.signal, vec![Edit::rules(lister.clone())]).apply(&mut item.clone());
    let mut labels = std::mem::take(&mut *lister.0.lock().unwrap_or_else(PoisonError::into_inner));
    // Of a key that stands twice the first one counts.
    let mut seen = std::collections::BTreeSet::new();
    labels.retain(|(name, _)| seen.insert(name.clone()));
    labels
}

fn batch(signal: Signal, rope: Rope, items: usize, tenant: Option<Tenant>) -> Batch {
    Batch {
        signal,
        rope,
        items,
        client: Arc::new(ClientInfo::default()),
        tenant,
        demoted: false,
        received: Instant::now(),
        leases: SmallVec::new(),
        acks: Acks::none(),
    }
}

impl Rewrite for Traced {
    fn levels(&self, _signal: Signal) -> Levels {
        self.rules.levels()
    }

    fn drops(&self) -> bool {
        self.rules.drops
    }

    fn scratch(&self, _facts: &Facts<'_>) -> Box<dyn Any> {
        Box::new(Scratch::new(&self.rules))
    }

    fn apply(&self, message: &mut Message<'_>, cx: &mut StepCx<'_>) -> Result<Fate, WireError> {
        let Some(scratch) = cx.scratch.downcast_mut() else { return Ok(Fate::Skip) };
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        self.rules.run(message, cx.facts.tenant, scratch, &mut *log)
    }
}

impl Lister {
    fn put(&self, name: String, value: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((name, shown(value)));
    }
}

impl Rewrite for Lister {
    fn levels(&self, _signal: Signal) -> Levels {
        let all = [Level::Resource, Level::Scope, Level::Metric, Level::Item];
        all.into_iter().fold(Levels::NONE, |levels, level| levels.and(level.into()))
    }

    fn drops(&self) -> bool {
        false
    }

    fn apply(&self, message: &mut Message<'_>, _cx: &mut StepCx<'_>) -> Result<Fate, WireError> {
        let special = [
            ("__name__", name_of(message)?),
            ("__kind__", kind_of(message)?),
            ("__severity__", severity_of(message)?),
        ];
        for (name, value) in special {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                self.put(name.to_owned(), value);
            }
        }
        // What a metric has are no attributes of its data points.
        if message.level() != Level::Metric {
            let mut text = String::new();
            for (_, key, value) in message.attributes() {
                self.put(labelled(message.level(), key), text_of(value, &mut text)?);
            }
        }
        Ok(Fate::Keep)
    }
}
