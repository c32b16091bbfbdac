//! `tidegate relabel explain`: what each rule of a relabel processor does to an item.

mod quick;
mod show;

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Deserialize as _;
use serde_json::Value as Json;

use super::input::{self, Document, Documents};
use super::{CONFIG, DATA, FAILED, OK, Output, SourceArgs, fail, invocation, out, pretty, report};
use crate::components::Kind;
use crate::config::{ComponentPlan, Loaded, Plan};
use crate::pdata::Signal;
use crate::pdata::json::{Limits, decode};
use crate::processors::relabel::{Explained, RelabelProcessorConfig, explain};
use crate::relabel::RelabelConfig;

/// Arguments of the command.
#[derive(clap::Args)]
pub(super) struct RelabelArgs {
    #[command(subcommand)]
    command: RelabelCommand,
}

#[derive(clap::Subcommand)]
enum RelabelCommand {
    /// Applies the rules of a relabel processor to items, one by one, and tells what each does
    Explain(ExplainArgs),
}

#[derive(clap::Args)]
struct ExplainArgs {
    /// A file of OTLP/JSON requests of any signal, or of {"labels": {"resource.a": "b", "c": "d"}}, one after the
    /// other; `-`, or none, is stdin
    file: Option<PathBuf>,
    /// Whose rules, such as processors.relabel/x; not needed if there is only one relabel processor
    #[arg(long, value_name = "ID")]
    rules: Option<String>,
    /// The tenant that the items are of
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
}

/// A rule and its place in the config.
struct Placed<'a> {
    rule: &'a RelabelConfig,
    file: &'a str,
    line: u32,
    column: u32,
}

/// Does what the arguments say.
///
/// # Errors
/// The arguments are wrong.
pub(super) fn run(args: &RelabelArgs, sources: &SourceArgs) -> Result<ExitCode, String> {
    let RelabelCommand::Explain(args) = &args.command;
    let loaded = invocation(sources)?.load();
    // The answer is on stdout: findings stay off it unless they are the answer.
    let Some(plan) = &loaded.plan else {
        report(&loaded, sources.output);
        return Ok(ExitCode::from(CONFIG));
    };
    report(&loaded, Output::Text);
    let (component, config) = match processor(plan, args.rules.as_deref()) {
        Ok(found) => found,
        Err(why) => return Ok(fail(CONFIG, &why)),
    };
    let placed = places(&loaded, component, config);
    let (name, input) = input::read(args.file.as_deref());
    let input = match input {
        Ok(input) => input,
        Err(why) => return Ok(fail(FAILED, &format!("{name}: {why}"))),
    };
    let mut documents = Documents::new(&input);
    let mut all = Vec::new();
    while let Some(document) = documents.next() {
        let (signal, tenant, request) = match request(&document) {
            Ok(request) => request,
            Err(why) => return Ok(fail(DATA, &format!("{name}: {why}"))),
        };
        let tenant = tenant.as_deref().or(args.tenant.as_deref());
        match explain(config, signal, tenant, &request) {
            Ok(items) => all.extend(items.into_iter().map(|item| (signal, item))),
            Err(why) => return Ok(fail(CONFIG, &format!("processors::{}: {why}", component.id))),
        }
    }
    if all.is_empty() {
        let why = if documents.is_empty() { "there is nothing in it" } else { "there are no items in it" };
        return Ok(fail(DATA, &format!("{name}: {why}")));
    }
    out(&match sources.output {
        Output::Text => show::text(&component.id, &placed, &all),
        Output::Json => pretty(&show::json(&placed, &all)),
    });
    Ok(ExitCode::from(OK))
}

/// The processor that is meant.
fn processor<'a>(
    plan: &'a Plan,
    id: Option<&str>,
) -> Result<(&'a ComponentPlan, &'a RelabelProcessorConfig), String> {
    let all = plan.components.iter().filter(|c| c.kind == Kind::Processor);
    let known: Vec<_> = all.filter_map(|c| Some((c, c.config.as_any().downcast_ref()?))).collect();
    let ids: Vec<String> = known.iter().map(|(c, _)| format!("processors.{}", c.id)).collect();
    let ids = ids.join(", ");
    match id {
        _ if known.is_empty() => Err("the config has no relabel processor".to_owned()),
        Some(id) => {
            let bare =
                id.strip_prefix("processors.").or_else(|| id.strip_prefix("processors::")).unwrap_or(id);
            let mut fitting = known.into_iter().filter(|(c, _)| c.id == bare);
            fitting.next().ok_or_else(|| format!("no relabel processor \"{id}\"; there are: {ids}"))
        }
        None if known.len() > 1 => {
            Err(format!("the config has several relabel processors, choose one with --rules: {ids}"))
        }
        None => known.into_iter().next().ok_or_else(String::new),
    }
}

/// The rules with their places.
fn places<'a>(
    loaded: &'a Loaded,
    component: &ComponentPlan,
    config: &'a RelabelProcessorConfig,
) -> Vec<Placed<'a>> {
    let rules = config.rules.iter().enumerate();
    rules
        .map(|(index, rule)| {
            let pos = component.pos_of(&format!("rules::{index}"));
            let file = loaded.sources.get(usize::from(pos.source)).map_or("", |source| &source.name);
            Placed { rule: &rule.0, file, line: pos.line, column: pos.col }
        })
        .collect()
}

/// What a document holds: the signal, the tenant if it names one, and the request in protobuf.
fn request(document: &Document<'_>) -> Result<(Signal, Option<String>, Vec<u8>), String> {
    let has = |names: [&str; 2]| {
        let mut stream = serde_json::Deserializer::from_slice(document.text);
        let object = std::collections::BTreeMap::<String, serde::de::IgnoredAny>::deserialize(&mut stream);
        object.is_ok_and(|object| names.iter().any(|name| object.contains_key(*name)))
    };
    let signal = match () {
        () if has(["resourceSpans", "resource_spans"]) => Signal::Traces,
        () if has(["resourceMetrics", "resource_metrics"]) => Signal::Metrics,
        () if has(["labels", "labels"]) => {
            let whole: Json = serde_json::from_slice(document.text).map_err(|why| why.to_string())?;
            return quick::read(&whole).map_err(|why| format!("line {}: {why}", document.line()));
        }
        // What is none of these is said by the decoder, or holds no items.
        () => Signal::Logs,
    };
    let request =
        decode(signal, document.text, Limits::default()).map_err(|why| document.placed(why).to_string())?;
    Ok((signal, None, request))
}

/// What an item of a signal is called.
fn item_name(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "span",
        Signal::Metrics => "data point",
        Signal::Logs => "log record",
    }
}
