//! `tidegate names`: what metrics become in Prometheus with a config, from files of OTLP/JSON.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::de::IgnoredAny;

use super::{CONFIG, DATA, FAILED, OK, Output, SourceArgs, err, invocation, out, pretty, report};
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
    let path = args.file.as_deref().filter(|path| *path != Path::new("-"));
    let name = path.map_or_else(|| "stdin".to_owned(), |path| path.display().to_string());
    let input = match path {
        Some(path) => std::fs::read(path),
        None => {
            let mut input = Vec::new();
            std::io::stdin().lock().read_to_end(&mut input).map(|_| input)
        }
    };
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

fn fail(code: u8, why: &str) -> ExitCode {
    err(&format!("error: {why}\n"));
    ExitCode::from(code)
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
    let mut at = 0;
    let mut documents = 0;
    while let Some(skipped) =
        input.get(at..).and_then(|rest| rest.iter().position(|b| !b.is_ascii_whitespace()))
    {
        at += skipped;
        let rest = input.get(at..).unwrap_or_default();
        let mut stream = serde_json::Deserializer::from_slice(rest).into_iter::<IgnoredAny>();
        // What cannot be parsed is left to the decoder, which says what is wrong in its own words.
        let len = match stream.next() {
            Some(Ok(_)) => stream.byte_offset(),
            _ => rest.len(),
        };
        let document = rest.get(..len).unwrap_or_default();
        let place = |error: JsonError| placed(error, input.get(..at).unwrap_or_default()).to_string();
        let request = decode(Signal::Metrics, document, Limits::default()).map_err(place)?;
        let line = 1 + newlines(input.get(..at).unwrap_or_default());
        let unreadable = |why: WireError| format!("line {line}: {why}");
        check(Signal::Metrics, &request).map_err(unreadable)?;
        teller.read(&request).map_err(unreadable)?;
        documents += 1;
        at += len;
    }
    match (documents, teller.is_empty()) {
        (0, _) => Err("there is nothing in it".to_owned()),
        (_, true) => Err("there are no metrics in it: a metrics request has \"resourceMetrics\"".to_owned()),
        _ => Ok(()),
    }
}

/// An error with its place in the whole input.
fn placed(mut error: JsonError, before: &[u8]) -> JsonError {
    if error.line == 1 {
        let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        error.column += before.len() - line_start;
    }
    error.line += newlines(before);
    error.offset += before.len();
    error
}

fn newlines(text: &[u8]) -> usize {
    text.iter().filter(|b| **b == b'\n').count()
}
