//! `tidegate names`: what metrics become in Prometheus with a config, from files of OTLP/JSON.

use std::path::PathBuf;
use std::process::ExitCode;

use super::input::{self, Documents};
use super::{CONFIG, DATA, FAILED, OK, Output, SourceArgs, fail, invocation, out, pretty, report};
use crate::components::Kind;
use crate::config::{ComponentPlan, Plan};
use crate::exporters::prometheus;
use crate::exporters::prometheus_remote_write::{self, RemoteWriteConfig};
use crate::pdata::json::{JsonError, Limits, decode};
use crate::pdata::wire::WireError;
use crate::pdata::{Signal, check};
use crate::prometheus::remote::RemoteOptions;
use crate::prometheus::tell::Teller;

/// Arguments of the command.
#[derive(clap::Args)]
pub(super) struct NamesArgs {
    /// A file of OTLP/JSON metrics requests, one after the other; `-`, or none, is stdin
    file: Option<PathBuf>,
    /// Which exporter's options to use, such as prometheus_remote_write/2; not needed if there is only one
    #[arg(long, value_name = "ID", requires = "config")]
    exporter: Option<String>,
}

/// Does what the arguments say.
///
/// # Errors
/// The arguments are wrong.
pub(super) fn run(args: &NamesArgs, sources: &SourceArgs) -> Result<ExitCode, String> {
    let options = if sources.config.is_empty() && sources.set.is_empty() {
        prometheus_remote_write::options(&RemoteWriteConfig::default())
    } else {
        let loaded = invocation(sources)?.load();
        // The answer is on stdout: findings stay off it unless they are the answer.
        let Some(plan) = &loaded.plan else {
            report(&loaded, sources.output);
            return Ok(ExitCode::from(CONFIG));
        };
        report(&loaded, Output::Text);
        match exporter(plan, args.exporter.as_deref()) {
            Ok(options) => options,
            Err(why) => return Ok(fail(CONFIG, &why)),
        }
    };
    let (name, input) = input::read(args.file.as_deref());
    let input = match input {
        Ok(input) => input,
        Err(why) => return Ok(fail(FAILED, &format!("{name}: {why}"))),
    };
    let mut teller = Teller::new(&options);
    if let Err(why) = read(&input, &mut teller) {
        return Ok(fail(DATA, &format!("{name}: {why}")));
    }
    let told = teller.finish();
    out(&match sources.output {
        Output::Text => told.text(),
        Output::Json => pretty(&told.json()),
    });
    Ok(ExitCode::from(OK))
}

/// The options of the exporter that is meant.
fn exporter(plan: &Plan, id: Option<&str>) -> Result<RemoteOptions, String> {
    let all = plan.components.iter().filter(|c| c.kind == Kind::Exporter);
    let known: Vec<(&ComponentPlan, RemoteOptions)> = all.filter_map(|c| Some((c, options(c)?))).collect();
    let ids: Vec<&str> = known.iter().map(|(c, _)| c.id.as_str()).collect();
    let ids = ids.join(", ");
    match id {
        _ if known.is_empty() => Err("the config has no Prometheus exporter".to_owned()),
        Some(id) => {
            let found = known.into_iter().find(|(c, _)| c.id == id);
            found
                .map(|(_, options)| options)
                .ok_or_else(|| format!("no Prometheus exporter \"{id}\"; there are: {ids}"))
        }
        None if known.len() > 1 => {
            Err(format!("the config has several Prometheus exporters, choose one with --exporter: {ids}"))
        }
        None => known.into_iter().next().map(|(_, options)| options).ok_or_else(String::new),
    }
}

/// How an exporter maps metrics, if it does.
fn options(component: &ComponentPlan) -> Option<RemoteOptions> {
    let config = component.config.as_any();
    let pull = || config.downcast_ref().map(prometheus::remote_options);
    config.downcast_ref().map(prometheus_remote_write::options).or_else(pull)
}

/// Reads all documents of an input.
fn read(input: &[u8], teller: &mut Teller) -> Result<(), String> {
    let mut documents = Documents::new(input);
    while let Some(document) = documents.next() {
        let place = |error: JsonError| document.placed(error).to_string();
        let request = decode(Signal::Metrics, document.text, Limits::default()).map_err(place)?;
        let unreadable = |why: WireError| format!("line {}: {why}", document.line());
        check(Signal::Metrics, &request).map_err(unreadable)?;
        teller.read(&request).map_err(unreadable)?;
    }
    match (documents.is_empty(), teller.is_empty()) {
        (true, _) => Err("there is nothing in it".to_owned()),
        (_, true) => Err("there are no metrics in it: a metrics request has \"resourceMetrics\"".to_owned()),
        _ => Ok(()),
    }
}
