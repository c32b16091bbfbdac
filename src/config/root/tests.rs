//! The file as a whole: every mistake the checks know, with its place.

use super::table::TABLE;
use super::*;
use crate::config::render;

fn env(name: &str) -> Option<String> {
    (name == "PORT").then(|| "4317".to_owned())
}

fn options() -> LoadOptions<'static> {
    LoadOptions { strict: false, env: &env, components: TABLE }
}

pub(super) fn load_text(text: &str) -> Loaded {
    load(&[Source::Bytes("c.yaml".to_owned(), text.as_bytes().to_vec())], options())
}

/// Severity, place, path, message and hint of each finding.
pub(super) fn found(text: &str) -> Vec<String> {
    let loaded = load_text(text);
    assert_eq!(loaded.is_ok(), loaded.diags.iter().all(|d| d.severity != Severity::Error));
    loaded.diags.iter().map(show).collect()
}

fn show(d: &Diag) -> String {
    let hint = d.hint.as_ref().map(|h| format!(" | {h}")).unwrap_or_default();
    let related = d.related.map(|(how, p)| format!(" ({how} {}:{})", p.line, p.col)).unwrap_or_default();
    let severity = d.severity.name().chars().next().unwrap_or_default();
    format!("{severity} {}:{} {}: {}{hint}{related}", d.pos.line, d.pos.col, d.path, d.message)
}

const GOOD: &str = "\
receivers:
  otlp:
    protocols:
      grpc:
      http: {endpoint: 0.0.0.0:14318}
processors:
  batch:
exporters:
  otlp_grpc/tempo:
    endpoint: tempo:${env:PORT}
    headers: {x-token: secret}
service:
  pipelines:
    traces:
      receivers: [otlp]
      processors: [batch]
      exporters: [otlp_grpc/tempo]
";

#[test]
fn a_good_file_becomes_a_plan() {
    assert_eq!(found(GOOD), Vec::<String>::new());
    let loaded = load_text(GOOD);
    let plan = loaded.plan.unwrap();
    let ids: Vec<_> = plan.components.iter().map(|c| (c.kind, c.id.as_str(), c.used)).collect();
    assert_eq!(
        ids,
        [
            (Kind::Receiver, "otlp", true),
            (Kind::Processor, "batch", true),
            (Kind::Exporter, "otlp_grpc/tempo", true)
        ]
    );
    let otlp = plan.component(Kind::Receiver, "otlp").unwrap();
    assert_eq!(
        otlp.config.listens(),
        [
            ("protocols::grpc::endpoint", "localhost:4317".to_owned()),
            ("protocols::http::endpoint", "0.0.0.0:14318".to_owned())
        ]
    );
    assert_eq!(
        plan.pipelines,
        [PipelinePlan {
            id: "traces".into(),
            signal: Signal::Traces,
            receivers: vec!["otlp".into()],
            processors: vec!["batch".into()],
            exporters: vec!["otlp_grpc/tempo".into()],
            pos: Pos { source: 0, line: 14, col: 5 },
        }]
    );
    assert_eq!(loaded.secrets, HashSet::from(["exporters::otlp_grpc/tempo::headers::x-token".to_owned()]));
}

/// A whole file around a few lines: what is not given is good.
fn file(receivers: &str, processors: &str, exporters: &str, extensions: &str, service: &str) -> String {
    let section = |name: &str, text: &str, default: &str| match (text, default) {
        ("", "") => String::new(),
        ("", default) => format!("{name}:\n  {default}\n"),
        (text, _) => format!("{name}:\n  {text}\n"),
    };
    let service = match service {
        "" => "pipelines: {traces: {receivers: [otlp], exporters: [otlp_grpc]}}",
        service => service,
    };
    format!(
        "{}{}{}{}service:\n  {service}\n",
        section("receivers", receivers, "otlp: {protocols: {grpc: }}"),
        section("processors", processors, ""),
        section("exporters", exporters, "otlp_grpc: {endpoint: a:1}"),
        section("extensions", extensions, ""),
    )
}

#[test]
fn every_mistake_has_its_place() {
    for (text, expected) in [
        // The file.
        ("", "e 1:1 : empty configuration file | a config has receivers:, exporters: and service:"),
        (
            "# nothing\n",
            "e 1:1 : empty configuration file | a config has receivers:, exporters: and service:",
        ),
        (
            "receivers:\n",
            "e 1:1 : empty configuration file | a config has receivers:, exporters: and service:",
        ),
        (
            "- a\n",
            "e 1:1 : a config is a mapping, got a list | start with receivers:, exporters: and service:",
        ),
        ("a: [\n", "e 1:4 a: invalid YAML: unclosed bracket '['"),
        // Sections.
        (
            &file("", "", "", "", "").replace("receivers:\n", "recievers:\n"),
            "e 1:1 recievers: unknown key \"recievers\" | did you mean \"receivers\"?",
        ),
        (
            &file("", "", "", "", "").replace("receivers:\n  otlp: {protocols: {grpc: }}\n", ""),
            "e 1:1 receivers: no receiver configuration specified in config | add receivers:",
        ),
        (
            &format!("{}procesors: {{}}\n", file("", "", "", "", "")),
            "e 7:1 procesors: unknown key \"procesors\" | did you mean \"processors\"?",
        ),
        (
            "receivers: {otlp: {protocols: {grpc: }}}\nexporters: {otlp_grpc: {}}\nservice: {}\n",
            "e 1:1 service::pipelines: service must have at least one pipeline | add service: pipelines: with \
             traces:, metrics: or logs:",
        ),
        (
            &format!("{}connectors: {{count: }}\n", file("", "", "", "", "")),
            "e 7:14 connectors::count: unknown connector type \"count\" | known types: forward, loki, routing",
        ),
        (&file("5", "", "", "", ""), "e 2:3 receivers: expected a mapping, got an integer"),
        // Ids and types.
        (
            &file("", "/x: ", "", "", ""),
            "e 4:3 processors::/x: in \"/x\" id: the part before / should not be empty | a processor id is type or \
             type/name",
        ),
        (
            &file("", "bach: ", "", "", ""),
            "e 4:3 processors::bach: unknown processor type \"bach\" | did you mean \"batch\"?",
        ),
        (
            &file("", "otlp_grpc/x: ", "", "", ""),
            "e 4:3 processors::otlp_grpc/x: unknown processor type \"otlp_grpc\" | \"otlp_grpc\" is an exporter; \
             write it under exporters:",
        ),
        (
            &file("", "zzzzzzzzz: ", "", "", ""),
            "e 4:3 processors::zzzzzzzzz: unknown processor type \"zzzzzzzzz\" | known types: attributes, batch, \
             memory_limiter",
        ),
        (
            &file("", "", "{otlp_grpc: {endpoint: a:1}, logging: }", "", ""),
            "e 4:32 exporters::logging: unknown exporter type \"logging\" | the logging exporter is gone; use \
             \"debug\"",
        ),
        (
            &file("", "{batch/a: , \" batch/a\": }", "", "", ""),
            "e 4:15 processors:: batch/a: duplicate name \"batch/a\" (first written 4:4)",
        ),
        // Components.
        (
            &file("otlp: {protocols: {grpc: {endpont: x}}}", "", "", "", ""),
            "e 2:29 receivers::otlp::protocols::grpc::endpont: unknown key \"endpont\" | did you mean \"endpoint\"?",
        ),
        (
            &file("otlp:", "", "", "", ""),
            "e 2:3 receivers::otlp: must specify at least one protocol when using the OTLP receiver",
        ),
        (&file("otlp: 5", "", "", "", ""), "e 2:9 receivers::otlp: expected a mapping, got an integer"),
        (
            &file("", "", "otlp_grpc: {timeout: 5x}", "", ""),
            "e 4:24 exporters::otlp_grpc::timeout: \"x\" is not a unit of time in \"5x\" | write a number with a \
             unit, such as 300ms, 5s, 1m30s",
        ),
        (
            &file("", "", "otlp_grpc: {endpoint: 4317}", "", ""),
            "e 4:25 exporters::otlp_grpc::endpoint: expected a string, got an integer | put it in quotes",
        ),
        (
            &file("", "attributes: {pattern: 'a('}", "", "", ""),
            "e 4:25 processors::attributes::pattern: not a regular expression: unclosed group | the syntax is RE2's: \
             no look-around, no back-references",
        ),
        (
            &file("", "", "otlp_grpc: {endpoint: \"${env:NOPE}\"}", "", ""),
            "w 4:26 exporters::otlp_grpc::endpoint: the variable NOPE is not set; the value is null | set it, or \
             give a default: ${env:NOPE:-default}",
        ),
        (
            &file("", "", "otlp_grpc: {timeout: *x, endpoint: a:1}", "", ""),
            "e 4:24 exporters::otlp_grpc::timeout: the alias \"*x\" has no anchor before it",
        ),
        // Aliases of types.
        (
            &file("", "", "otlp: ", "", "pipelines: {traces: {receivers: [otlp], exporters: [otlp]}}"),
            "w 4:3 exporters::otlp: \"otlp\" alias is deprecated; use \"otlp_grpc\" instead",
        ),
        // Pipelines.
        (
            &file("", "", "", "", "pipelines: {tracs: {receivers: [otlp], exporters: [otlp_grpc]}}"),
            "e 6:15 service::pipelines::tracs: unknown pipeline signal: \"tracs\" | did you mean \"traces\"?",
        ),
        (
            &file("", "", "", "", "pipelines: {profiles: {receivers: [otlp], exporters: [otlp_grpc]}}"),
            "e 6:15 service::pipelines::profiles: the signal profiles is not supported",
        ),
        (
            &file("", "", "", "", "pipelines: {traces: {exporters: [otlp_grpc]}}"),
            "e 6:15 service::pipelines::traces: must have at least one receiver | add receivers: [...] to the \
             pipeline",
        ),
        (
            &file("", "", "", "", "pipelines: {traces: {receivers: [otlp], exporters: []}}"),
            "e 6:15 service::pipelines::traces: must have at least one exporter | add exporters: [...] to the \
             pipeline",
        ),
        (
            &file("", "", "", "", "pipelines: {traces: {receivers: [otlp], exporters: [otlp_grp]}}"),
            "e 6:55 service::pipelines::traces::exporters::0: references exporter \"otlp_grp\" which is not \
             configured | did you mean \"otlp_grpc\"?",
        ),
        (
            &file("", "", "", "", "pipelines: {traces: {receivers: [otlp_grpc], exporters: [otlp_grpc]}}"),
            "e 6:36 service::pipelines::traces::receivers::0: references receiver \"otlp_grpc\" which is not \
             configured | \"otlp_grpc\" is an exporter, not a receiver",
        ),
        (
            &file(
                "",
                "batch:",
                "",
                "",
                "pipelines: {traces: {receivers: [otlp], processors: [batch, batch], exporters: [otlp_grpc]}}",
            ),
            "e 8:63 service::pipelines::traces::processors::1: references processor \"batch\" multiple times (first \
             written 8:56)",
        ),
        (
            &file("", "", "loki:", "", "pipelines: {traces: {receivers: [otlp], exporters: [loki]}}"),
            "e 6:55 service::pipelines::traces::exporters::0: the exporter \"loki\" does not support traces | it \
             supports logs",
        ),
        (
            &file(
                "",
                "",
                "",
                "",
                "pipelines: {traces: {recievers: [otlp], receivers: [otlp], exporters: [otlp_grpc]}}",
            ),
            "e 6:24 service::pipelines::traces::recievers: unknown key \"recievers\" | did you mean \"receivers\"?",
        ),
        (
            &file(
                "",
                "{batch: , memory_limiter: }",
                "",
                "",
                "pipelines: {traces: {receivers: [otlp], processors: [batch, memory_limiter], exporters: [otlp_grpc]}}",
            ),
            "n 8:63 service::pipelines::traces::processors::1: memory_limiter works best as the first processor",
        ),
        // Never more than a note.
        (
            &file("", "batch:", "", "", ""),
            "n 4:3 processors::batch: the processor \"batch\" is not used: no pipeline names it",
        ),
        (
            &file("", "", "", "health_check:", ""),
            "n 6:3 extensions::health_check: the extension \"health_check\" is not used: service::extensions does \
             not name it",
        ),
        // Extensions.
        (
            &file(
                "",
                "",
                "",
                "health_check:",
                "{extensions: [healthcheck], pipelines: {traces: {receivers: [otlp], exporters: [otlp_grpc]}}}",
            ),
            "e 8:17 service::extensions::0: references extension \"healthcheck\" which is not configured | did you \
             mean \"health_check\"?",
        ),
        (
            &file("", "", "otlp_grpc: {auth: {authenticator: nope}}", "", ""),
            "e 4:37 exporters::otlp_grpc::auth::authenticator: references extension \"nope\" which is not configured \
             | define it under extensions:",
        ),
        (
            &file("", "", "otlp_grpc: {auth: {authenticator: headers_setter}}", "headers_setter:", ""),
            "e 4:37 exporters::otlp_grpc::auth::authenticator: the extension \"headers_setter\" is not started | add \
             \"headers_setter\" to service: extensions:",
        ),
        (
            &file(
                "",
                "",
                "otlp_grpc: {auth: {authenticator: basicauth}}",
                "basicauth:",
                "{extensions: [basicauth], pipelines: {traces: {receivers: [otlp], exporters: [otlp_grpc]}}}",
            ),
            "e 4:37 exporters::otlp_grpc::auth::authenticator: the extension \"basicauth\" cannot authenticate \
             requests that we send",
        ),
        (
            &file(
                "otlp: {protocols: {grpc: {auth: {authenticator: headers_setter}}}}",
                "",
                "",
                "headers_setter:",
                "{extensions: [headers_setter], pipelines: {traces: {receivers: [otlp], exporters: [otlp_grpc]}}}",
            ),
            "e 2:51 receivers::otlp::protocols::grpc::auth::authenticator: the extension \"headers_setter\" cannot \
             authenticate clients that send to us",
        ),
        (
            &file(
                "",
                "",
                "",
                "{health_check/a: {endpoint: a:1, after: health_check/b}, health_check/b: {after: health_check/a}}",
                "{extensions: [health_check/a, health_check/b], pipelines: {traces: {receivers: [otlp], exporters: [otlp_grpc]}}}",
            ),
            "e 6:4 service::extensions::0: extensions refer to each other in a circle: health_check/a -> \
             health_check/b -> health_check/a",
        ),
        // Ports.
        (
            &file(
                "otlp: {protocols: {grpc: {endpoint: 0.0.0.0:1}, http: {endpoint: \"[::1]:1\"}}}",
                "",
                "",
                "",
                "",
            ),
            "e 2:68 receivers::otlp::protocols::http::endpoint: [::1]:1 is already taken by \
             receivers::otlp::protocols::grpc::endpoint | choose another port (taken 2:39)",
        ),
        (
            &file("otlp: {protocols: {grpc: {endpoint: 127.0.0.1:8888}}}", "", "", "", ""),
            "e 2:39 receivers::otlp::protocols::grpc::endpoint: 127.0.0.1:8888 is already taken by \
             service::telemetry::metrics::readers::0::pull::exporter::prometheus::port | choose another port",
        ),
        (
            &file(
                "",
                "",
                "",
                "",
                "{telemetry: {metrics: {readers: [{pull: {exporter: {prometheus: {port: 4317}}}}]}}, pipelines: {traces: {receivers: [otlp], exporters: [otlp_grpc]}}}",
            ),
            "e 2:22 receivers::otlp::protocols::grpc::endpoint: localhost:4317 is already taken by \
             service::telemetry::metrics::readers::0::pull::exporter::prometheus::port | choose another port (taken \
             6:74)",
        ),
        // The agent's own telemetry.
        (
            &file(
                "",
                "",
                "",
                "",
                "{telemetry: {metrics: {readers: [{periodic: {interval: 1}}]}}, pipelines: {traces: {receivers: [otlp], exporters: [otlp_grpc]}}}",
            ),
            "e 6:47 service::telemetry::metrics::readers::0::periodic: \"periodic\" is not supported | metrics are served, not pushed; scrape them; take the key \
             out",
        ),
        (
            &file(
                "",
                "",
                "",
                "",
                "{telemetry: {metrics: {readers: []}}, pipelines: {traces: {receivers: [otlp], exporters: [otlp_grpc]}}}",
            ),
            "e 6:35 service::telemetry::metrics::readers: collector telemetry metrics reader should exist when metric \
             level is not none",
        ),
        (
            &file(
                "",
                "",
                "",
                "",
                "{telemetry: {logs: {level: trace}}, pipelines: {traces: {receivers: [otlp], exporters: [otlp_grpc]}}}",
            ),
            "e 6:30 service::telemetry::logs::level: unsupported value \"trace\" | valid values: \"debug\", \"info\", \
             \"warn\", \"error\"",
        ),
    ] {
        let found = found(text);
        assert!(found.iter().any(|f| f == expected), "{text}\nexpected {expected}\nfound {found:#?}");
        // One mistake is one finding; only a section that is not there leaves references hanging.
        let most = if text.starts_with("exporters") { 2 } else { 1 };
        assert!(found.len() <= most, "{text}\n{found:#?}");
    }
}

#[test]
fn listening_twice_is_fine_where_it_is() {
    for (receivers, service) in [
        // Two addresses of one machine.
        ("otlp: {protocols: {grpc: {endpoint: 10.0.0.1:1}, http: {endpoint: 10.0.0.2:1}}}", ""),
        // The system chooses.
        ("otlp: {protocols: {grpc: {endpoint: localhost:0}, http: {endpoint: localhost:0}}}", ""),
        // Metrics are off.
        (
            "otlp: {protocols: {grpc: {endpoint: localhost:8888}}}",
            "{telemetry: {metrics: {level: None}}, pipelines: {traces: {receivers: [otlp], exporters: [otlp_grpc]}}}",
        ),
        ("otlp: {protocols: {grpc: {endpoint: 'unix:///a'}, http: {endpoint: /b}}}", ""),
    ] {
        assert_eq!(found(&file(receivers, "", "", "", service)), Vec::<String>::new(), "{receivers}");
    }
}

#[test]
fn all_mistakes_in_one_run() {
    let loaded = load_text(
        "receivers:\n  otlp: {protocols: {grpc: {endpont: x}}}\nexporters:\n  otlp_grpc: {timeout: 1y}\n  \
         otlp_grpc: {}\nservice:\n  pipelines:\n    traces: {receivers: [otpl], exporters: [otlp_grpc]}\n",
    );
    let lines: Vec<u32> = loaded.diags.iter().map(|d| d.pos.line).collect();
    assert_eq!(lines, [2, 4, 5, 8], "{}", render(&loaded.diags, &loaded.sources));
    assert!(render(&loaded.diags, &loaded.sources).ends_with("\n4 errors\n"));
}

#[test]
fn sources_merge_in_order_and_set_wins() {
    let source = |text: &str| Source::Bytes("x.yaml".to_owned(), text.as_bytes().to_vec());
    let sources = [
        Source::set("exporters.otlp_grpc/tempo.timeout=7s").unwrap(),
        source(GOOD),
        Source::Yaml("exporters::otlp_grpc/tempo::timeout: 6s".to_owned()),
        source(
            "service: {pipelines: {traces: {processors: }}}\nexporters: {otlp_grpc/tempo: {headers: {a: b}}}",
        ),
    ];
    let loaded = load(&sources, options());
    assert!(loaded.is_ok(), "{}", render(&loaded.diags, &loaded.sources));
    let tree = loaded.tree.unwrap();
    let exporter = tree.get("exporters").unwrap().get("otlp_grpc/tempo").unwrap();
    let timeout = exporter.get("timeout").unwrap();
    assert_eq!(timeout.value, Value::Str("7s".to_owned()));
    assert_eq!(loaded.sources[usize::from(timeout.pos.source)].name, "--set");
    assert_eq!((timeout.pos.line, timeout.pos.col), (1, 35));
    assert_eq!(exporter.get("headers").unwrap().to_json().to_string(), r#"{"x-token":"secret","a":"b"}"#);
    assert!(loaded.plan.unwrap().pipelines[0].processors.is_empty(), "a later null replaces");
}

#[test]
fn mistakes_on_the_command_line_have_places_too() {
    let sources = [
        Source::Bytes("x.yaml".to_owned(), GOOD.as_bytes().to_vec()),
        Source::set("exporters.otlp_grpc/tempo.timeot=7s").unwrap(),
    ];
    let loaded = load(&sources, options());
    assert_eq!(
        render(&loaded.diags, &loaded.sources),
        "error: unknown key \"timeot\"\n  --> --set:1:27\n   |\n 1 | exporters.otlp_grpc/tempo.timeot=**\n   |                           ^^^^^^^^^\n   = did you mean \"timeout\"?\n   = at exporters::otlp_grpc/tempo::timeot\n\n1 error\n"
    );
}

#[test]
fn files_and_directories() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("20-b.yml"), "exporters: {otlp_grpc/tempo: {timeout: 9s}}").unwrap();
    std::fs::write(dir.path().join("10-a.yaml"), GOOD).unwrap();
    std::fs::write(dir.path().join("30-c.txt"), "not: read").unwrap();
    let source = Source::parse(&format!("file:{}", dir.path().display())).unwrap();
    let loaded = load(&[source], options());
    assert!(loaded.is_ok());
    assert_eq!(loaded.sources.len(), 2);
    let missing = dir.path().join("no.yaml");
    let loaded = load(&[Source::File(missing.clone())], options());
    assert!(loaded.diags[0].message.starts_with(&format!("unable to read the file {}", missing.display())));
    assert_eq!(loaded.diags.len(), 1);
    let latin = load(&[Source::Bytes("l.yaml".into(), b"receivers:\n  a: \xe4\n".to_vec())], options());
    assert_eq!(
        show(&latin.diags[0]),
        "e 2:6 : invalid UTF-8 at byte 16 | save the file in the encoding UTF-8"
    );
    assert!(Source::parse("http://x/y.yaml").unwrap_err().contains("not supported"));
    assert!(Source::parse("s3:x").unwrap_err().contains("unsupported scheme"));
    assert_eq!(Source::parse("c:x").unwrap(), Source::File("c:x".into()));
}

#[test]
fn strict_makes_warnings_errors() {
    let text = GOOD.replace("${env:PORT}", "${env:UNSET_PORT}1");
    assert!(load_text(&text).is_ok());
    let source = Source::Bytes("c.yaml".to_owned(), text.into_bytes());
    let loaded = load(&[source], LoadOptions { strict: true, ..options() });
    assert!(!loaded.is_ok());
    assert_eq!(loaded.diags[0].severity, Severity::Error);
    assert_eq!((loaded.diags[0].pos.line, loaded.diags[0].pos.col), (10, 21));
}

#[test]
fn extensions_start_after_those_they_need() {
    let text = file(
        "",
        "",
        "",
        "{health_check/a: {endpoint: a:1, after: health_check/b}, health_check/b: {endpoint: a:2}}",
        "{extensions: [health_check/a, health_check/b], pipelines: {traces: {receivers: [otlp], exporters: \
         [otlp_grpc]}}}",
    );
    assert_eq!(load_text(&text).plan.unwrap().extensions, ["health_check/b", "health_check/a"]);
}

#[test]
fn equal_configs_are_the_same_wherever_they_stand() {
    let moved = format!("# one line down\n{GOOD}");
    let (a, b) = (load_text(GOOD).plan.unwrap(), load_text(&moved).plan.unwrap());
    assert!(a.components.iter().zip(&b.components).all(|(a, b)| a.node.same(&b.node) && a.pos != b.pos));
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(500))]

    /// Any bytes are a config or have a mistake with a place in them.
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        check_places(&bytes);
    }

    /// A good file with something wrong in it somewhere.
    #[test]
    fn damaged_files(at in 0..GOOD.len(), cut in 0..20usize, put in "[-:{}\\[\\]'\"&*!|>%@# \n\ta$]{0,4}") {
        let mut bytes = GOOD.as_bytes().to_vec();
        let end = (at + cut).min(bytes.len());
        bytes.splice(at..end, put.bytes());
        check_places(&bytes);
    }
}

fn check_places(bytes: &[u8]) {
    let loaded = load(&[Source::Bytes("c.yaml".to_owned(), bytes.to_vec())], options());
    assert!(loaded.is_ok() || !loaded.diags.is_empty());
    for diag in &loaded.diags {
        let source = &loaded.sources[usize::from(diag.pos.source)];
        let line = crate::config::yaml::lines(&source.text).nth(diag.pos.line as usize - 1);
        let line = line.unwrap_or_else(|| panic!("{diag:?}"));
        assert!(diag.pos.col >= 1 && diag.pos.col as usize <= line.chars().count() + 1, "{diag:?}");
    }
    assert_eq!(render(&loaded.diags, &loaded.sources).is_empty(), loaded.diags.is_empty());
}
