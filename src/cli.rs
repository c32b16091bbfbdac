//! The command line: arguments to a config, a config to an answer or a running agent.
//!
//! Exit codes: 0 fine, 1 failed while running, 2 wrong arguments, 65 wrong data, 78 wrong config. Answers go to
//! stdout, findings about the config to stderr (or, as JSON, to stdout where that is the answer).

mod gpu;
mod input;
mod names;
mod relabel;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use serde_json::{Value as Json, json};

use crate::components::{COMPONENTS, Kind};
use crate::config::types::parse_duration;
use crate::config::{self, LoadOptions, Loaded, Node, Printing, Source};
use crate::pipeline::Ledger;
use crate::service::{self, RunOptions};
use crate::telemetry::Metrics;

/// Everything went well.
pub const OK: u8 = 0;
/// Something failed after the config was found good.
pub const FAILED: u8 = 1;
/// The arguments are wrong.
pub const USAGE: u8 = 2;
/// The telemetry to be read is not what it should be (`EX_DATAERR`).
pub const DATA: u8 = 65;
/// The config is wrong (`EX_CONFIG`).
pub const CONFIG: u8 = 78;

/// Which config to run and how to read it; reading it again is how a reload starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Invocation {
    /// Where the config comes from, in the order of the arguments.
    pub sources: Vec<Source>,
    /// Whether warnings are errors.
    pub strict: bool,
}

impl Invocation {
    /// Reads the config as it is now. A config that decodes is also built, which opens nothing, so that what only
    /// constructors can see is found as well.
    pub fn load(&self) -> Loaded {
        let options = LoadOptions { strict: self.strict, ..LoadOptions::default() };
        let mut loaded = config::load(&self.sources, options);
        let plan = loaded.plan.as_ref();
        let built = plan.map(|plan| service::build(plan, &Metrics::new(), &Ledger::new(usize::MAX)));
        if let Some(Err(errors)) = built {
            loaded.fail(errors.into_iter().map(|e| (e.pos, e.path, e.message)));
        }
        loaded
    }
}

#[derive(Parser)]
#[command(
    name = "tidegate",
    version,
    about = "A telemetry agent that keeps telemetry as bytes",
    after_help = "Examples:\n  tidegate --config config.yaml\n  tidegate validate --config config.yaml\n  \
                  tidegate names metrics.json --config config.yaml\n  \
                  tidegate relabel explain --config config.yaml < item.json\n  \
                  tidegate run --config base.yaml --config site.yaml --set processors.batch.timeout=2s",
    disable_help_subcommand = true
)]
struct Cli {
    #[command(flatten)]
    sources: SourceArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Args)]
struct SourceArgs {
    /// A config: a file, a directory of *.yaml files, env:NAME or yaml:TEXT; may be repeated, later ones win
    #[arg(long, value_name = "URI", global = true)]
    config: Vec<String>,
    /// Sets one value, as a.b.c=value; wins over every --config; may be repeated
    #[arg(long, value_name = "KEY=VALUE", global = true)]
    set: Vec<String>,
    /// Treats warnings about the config as errors
    #[arg(long, global = true)]
    strict: bool,
    /// How findings about the config, and listings, are written
    #[arg(long, value_enum, default_value_t, global = true)]
    output: Output,
    /// Accepted for the Collector's sake; there are no feature gates
    #[arg(long, value_name = "IDS", global = true, value_delimiter = ',', allow_hyphen_values = true)]
    feature_gates: Vec<String>,
    /// How long stopping may take, such as 25s
    #[arg(long, value_name = "DURATION", global = true, default_value = "25s", value_parser = parse_duration)]
    shutdown_timeout: Duration,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the agent (as without a command)
    Run,
    /// Checks the config and opens nothing; silent when it is good
    Validate,
    /// Lists the components there are
    Components,
    /// Tells what OTLP metrics become in Prometheus: names, labels, what is dropped, what collides
    Names(names::NamesArgs),
    /// Tells what relabelling rules do
    Relabel(relabel::RelabelArgs),
    /// Looks at the GPUs of this node
    Gpu(gpu::GpuArgs),
    /// Prints the config merged and expanded
    #[command(alias = "print-initial-config")]
    PrintConfig(PrintArgs),
    /// Prints the JSON schema of the config file
    Schema,
    /// Writes the reference pages to a directory
    #[command(hide = true)]
    Reference {
        /// The directory
        dir: PathBuf,
    },
}

#[derive(clap::Args)]
struct PrintArgs {
    /// Whether secrets are shown
    #[arg(long, value_enum, default_value_t)]
    mode: Mode,
    /// How the config is written
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Whether a config with errors is refused
    #[arg(long, action = clap::ArgAction::Set, default_value_t = true, value_name = "BOOL")]
    validate: bool,
    /// Appends where each value comes from (YAML only)
    #[arg(long)]
    provenance: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    #[default]
    Text,
    Json,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Mode {
    #[default]
    Redacted,
    Unredacted,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Yaml,
    Json,
}

/// Does what the arguments say.
pub fn main(args: impl IntoIterator<Item = std::ffi::OsString>) -> ExitCode {
    let args: Vec<_> = args.into_iter().collect();
    if args.len() <= 1 {
        err(&Cli::command().render_help().to_string());
        return ExitCode::from(USAGE);
    }
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        // Help and the version come this way too; clap knows which stream and code.
        Err(why) => {
            let _ = why.print();
            return ExitCode::from(if why.use_stderr() { USAGE } else { OK });
        }
    };
    match act(cli) {
        Ok(code) => code,
        Err(why) => {
            err(&format!("error: {why}\n"));
            ExitCode::from(USAGE)
        }
    }
}

/// The error is about the arguments.
fn act(cli: Cli) -> Result<ExitCode, String> {
    let output = cli.sources.output;
    if let Some(gate) = cli.sources.feature_gates.first() {
        let id = gate.trim_start_matches(['+', '-']);
        return Err(format!("no such feature gate \"{id}\". valid gates: []"));
    }
    match cli.command.unwrap_or(Command::Run) {
        Command::Run => {
            let loaded = invocation(&cli.sources)?.load();
            // A running agent keeps stdout to itself: its log may go there.
            report(&loaded, if loaded.is_ok() { Output::Text } else { output });
            let options = RunOptions { shutdown_timeout: cli.sources.shutdown_timeout };
            Ok(loaded.plan.as_ref().map_or(ExitCode::from(CONFIG), |plan| service::run(plan, &options)))
        }
        Command::Validate => {
            let loaded = invocation(&cli.sources)?.load();
            report(&loaded, output);
            Ok(ExitCode::from(if loaded.is_ok() { OK } else { CONFIG }))
        }
        Command::Components => {
            let list = components();
            out(&match output {
                Output::Text => Printing::default().yaml(&Node::from_json(&list)),
                Output::Json => pretty(&list),
            });
            Ok(ExitCode::from(OK))
        }
        Command::Names(args) => names::run(&args, &cli.sources),
        Command::Relabel(args) => relabel::run(&args, &cli.sources),
        Command::Gpu(args) => Ok(gpu::run(&args, output)),
        Command::PrintConfig(args) => {
            let loaded = invocation(&cli.sources)?.load();
            // The answer is on stdout: findings stay off it.
            err(&config::render(&loaded.diags, &loaded.sources));
            Ok(ExitCode::from(print(&loaded, &args)))
        }
        Command::Schema => {
            out(&pretty(&config::json_schema(COMPONENTS)));
            Ok(ExitCode::from(OK))
        }
        Command::Reference { dir } => match reference(&dir) {
            Ok(()) => Ok(ExitCode::from(OK)),
            Err(why) => {
                err(&format!("error: {}: {why}\n", dir.display()));
                Ok(ExitCode::from(FAILED))
            }
        },
    }
}

fn invocation(args: &SourceArgs) -> Result<Invocation, String> {
    if args.config.is_empty() {
        return Err("at least one config flag must be provided: --config FILE".to_owned());
    }
    let configs = args.config.iter().map(|uri| Source::parse(uri));
    let sources = configs.chain(args.set.iter().map(|set| Source::set(set))).collect::<Result<_, _>>()?;
    Ok(Invocation { sources, strict: args.strict })
}

fn report(loaded: &Loaded, output: Output) {
    match output {
        Output::Text => err(&config::render(&loaded.diags, &loaded.sources)),
        Output::Json => out(&pretty(&config::to_json(&loaded.diags, &loaded.sources))),
    }
}

fn print(loaded: &Loaded, args: &PrintArgs) -> u8 {
    let Some(tree) = loaded.tree.as_ref().filter(|_| loaded.is_ok() || !args.validate) else { return CONFIG };
    let printing = Printing {
        secrets: (args.mode == Mode::Redacted).then_some(&loaded.secrets),
        provenance: args.provenance.then_some(loaded.sources.as_slice()),
    };
    out(&match args.format {
        Format::Yaml => printing.yaml(tree),
        Format::Json => pretty(&printing.json(tree)),
    });
    OK
}

/// The table as the Collector lists it.
fn components() -> Json {
    let mut out = json!({ "buildinfo": {
        "command": "tidegate",
        "description": env!("CARGO_PKG_DESCRIPTION"),
        "version": env!("CARGO_PKG_VERSION"),
    } });
    for kind in Kind::ALL {
        let rows = COMPONENTS.iter().filter(|c| c.kind == kind).map(|c| {
            let level = c.stability.name();
            let mut stability: serde_json::Map<String, Json> =
                c.signals.iter().map(|s| (s.name().to_owned(), level.into())).collect();
            if stability.is_empty() {
                stability.insert(kind.name().to_owned(), level.into());
            }
            let mut row = json!({ "name": c.name, "about": c.about, "stability": stability });
            if let (Json::Object(row), false) = (&mut row, c.aliases.is_empty()) {
                row.insert("aliases".to_owned(), c.aliases.into());
            }
            row
        });
        let rows: Vec<Json> = rows.collect();
        if let Json::Object(out) = &mut out {
            out.insert(kind.section().to_owned(), rows.into());
        }
    }
    out
}

/// Writes the pages and takes away those of components that are gone.
fn reference(dir: &Path) -> std::io::Result<()> {
    let pages = config::reference_pages(COMPONENTS);
    for kind in Kind::ALL {
        let section = dir.join(kind.section());
        if section.is_dir() {
            for entry in std::fs::read_dir(&section)? {
                let path = entry?.path();
                let name = path.strip_prefix(dir).unwrap_or(&path).to_string_lossy().replace('\\', "/");
                if name.ends_with(".md") && !pages.contains_key(&name) {
                    std::fs::remove_file(&path)?;
                }
            }
        }
    }
    for (name, text) in pages {
        let path = dir.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(path, text)?;
    }
    Ok(())
}

fn pretty(json: &Json) -> String {
    format!("{}\n", serde_json::to_string_pretty(json).unwrap_or_default())
}

/// Says what is wrong, for a code other than that of wrong arguments.
fn fail(code: u8, why: &str) -> ExitCode {
    err(&format!("error: {why}\n"));
    ExitCode::from(code)
}

/// A reader that went away is no failure.
fn out(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

fn err(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
