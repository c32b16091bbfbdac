//! Pipelines that feed each other: mistakes with their places, and the order in which they are built.

use super::tests::{found, load_text};

const HEAD: &str = "\
receivers: {otlp: {protocols: {grpc: }}}
exporters: {otlp_grpc: {endpoint: a:1}, loki: }
";

/// A file with these connectors and pipelines, on lines 3 and 5 and after.
fn file(connectors: &str, pipelines: &[&str]) -> String {
    let lines: String = pipelines.iter().map(|line| format!("  {line}\n")).collect();
    format!("{HEAD}connectors: {connectors}\nservice: {{pipelines: {{\n{lines}}}}}\n")
}

fn errors(connectors: &str, pipelines: &[&str]) -> Vec<String> {
    // The exporters that a case does not use are noted, unless there are errors.
    let found = found(&file(connectors, pipelines));
    found.into_iter().filter(|f| !f.starts_with('n')).collect()
}

#[test]
fn connectors_have_two_sides_of_one_signal() {
    let one_sided = |place: &str, signal: &str, has: &str, lacks: &str| {
        format!(
            "e {place}: connector \"forward\" used as {has} in [{signal}] pipeline but not used in any supported \
             {lacks} pipeline | it connects pipelines of the same signal: list it under {lacks}s: of another \
             {signal} pipeline"
        )
    };
    let cases: &[(&str, &[&str], Vec<String>)] = &[
        (
            "{forward: }",
            &[
                "traces/b: {receivers: [forward], exporters: [otlp_grpc]},",
                "traces: {receivers: [otlp], exporters: [forward]},",
                "logs: {receivers: [otlp], exporters: [forward, loki]},",
                "logs/b: {receivers: [otlp, forward], exporters: [loki]},",
            ],
            vec![],
        ),
        (
            "{forward: }",
            &["traces: {receivers: [otlp], exporters: [forward]}"],
            vec![one_sided("5:43 service::pipelines::traces::exporters::0", "traces", "exporter", "receiver")],
        ),
        (
            "{forward: }",
            &["traces: {receivers: [forward], exporters: [otlp_grpc]}"],
            vec![one_sided("5:24 service::pipelines::traces::receivers::0", "traces", "receiver", "exporter")],
        ),
        // Two signals make no pair.
        (
            "{forward: }",
            &[
                "traces: {receivers: [otlp], exporters: [forward]},",
                "logs: {receivers: [forward], exporters: [loki]},",
            ],
            vec![
                one_sided("5:43 service::pipelines::traces::exporters::0", "traces", "exporter", "receiver"),
                one_sided("6:22 service::pipelines::logs::receivers::0", "logs", "receiver", "exporter"),
            ],
        ),
        // What may be under a misspelt key is not missed.
        (
            "{forward: }",
            &[
                "traces: {receivers: [otlp], exporters: [forward]},",
                "traces/b: {recievers: [forward], exporters: [otlp_grpc]},",
            ],
            vec![
                "e 6:14 service::pipelines::traces/b::recievers: unknown key \"recievers\" | did you mean \
                 \"receivers\"?"
                    .to_owned(),
            ],
        ),
        // Only a logs exporter is called loki where traces flow, so this is about the connector.
        (
            "{loki/x: }",
            &[
                "traces: {receivers: [otlp], exporters: [loki/x]},",
                "logs: {receivers: [otlp], exporters: [loki]},",
            ],
            vec![
                "e 5:43 service::pipelines::traces::exporters::0: the connector \"loki/x\" does not support traces \
                 | it supports logs"
                    .to_owned(),
            ],
        ),
        (
            "{loki: }",
            &["logs: {receivers: [otlp], exporters: [loki]}"],
            vec![
                "e 3:14 connectors::loki: ambiguous id: found both \"loki\" exporter and \"loki\" connector | change \
                 one of the two ids (exporter 2:41)"
                    .to_owned(),
            ],
        ),
        (
            "{forward/a: }",
            &["logs: {receivers: [forward/aa], exporters: [loki]}"],
            vec![
                "e 5:22 service::pipelines::logs::receivers::0: references receiver \"forward/aa\" which is not \
                 configured | did you mean \"forward/a\"?"
                    .to_owned(),
            ],
        ),
        (
            "{forwad: }",
            &["logs: {receivers: [otlp], exporters: [forwad]}"],
            vec![
                "e 3:14 connectors::forwad: unknown connector type \"forwad\" | did you mean \"forward\"?"
                    .to_owned(),
            ],
        ),
    ];
    for (connectors, pipelines, expected) in cases {
        assert_eq!(&errors(connectors, pipelines), expected, "{connectors} {pipelines:#?}");
    }
}

#[test]
fn a_choice_is_among_the_pipelines_that_list_the_connector() {
    let pipelines = [
        "traces: {receivers: [otlp], exporters: [routing]},",
        "traces/a: {receivers: [routing], exporters: [otlp_grpc]},",
        "traces/b: {receivers: [otlp], exporters: [otlp_grpc]},",
    ];
    for (connectors, expected) in [
        ("{routing: {pipelines: [traces/a]}}", vec![]),
        ("{routing: {pipelines: 'traces/a'}}", vec![]),
        // It does not say where to: everywhere, as far as can be known here.
        ("{routing: }", vec![]),
        (
            "{routing: {pipelines: [traces/a, traces/b]}}",
            vec![
                "e 3:46 connectors::routing::pipelines::1: the pipeline \"traces/b\" does not have \"routing\" as a \
                 receiver | add \"routing\" to service: pipelines: traces/b: receivers:",
            ],
        ),
        (
            "{routing: {pipelines: [traces/a, traces/bb, logs]}}",
            vec![
                "e 3:46 connectors::routing::pipelines::1: references pipeline \"traces/bb\" which is not configured \
                 | did you mean \"traces/b\"?",
                "e 3:57 connectors::routing::pipelines::2: references pipeline \"logs\" which is not configured | \
                 define it under service: pipelines:",
            ],
        ),
        // What is not built chooses nothing.
        ("{routing: {pipelines: [traces/a]}, routing/x: {pipelines: [nowhere]}}", vec![]),
    ] {
        assert_eq!(errors(connectors, &pipelines), expected, "{connectors}");
    }
    let more = [&pipelines[..], &["traces/c: {receivers: [routing], exporters: [otlp_grpc]}"]].concat();
    assert_eq!(
        errors("{routing: {pipelines: [traces/a]}}", &more),
        ["w 8:26 service::pipelines::traces/c::receivers::0: the connector \"routing\" never sends to the \
          pipeline \"traces/c\" | name the pipeline in connectors: routing:, or take \"routing\" out here"]
    );
}

#[test]
fn circles_are_named() {
    let connectors = "{forward: , forward/a: , forward/b: , forward/c: }";
    for (pipelines, expected) in [
        (
            vec!["traces: {receivers: [otlp, forward], exporters: [forward]}"],
            vec![(
                "5:52 service::pipelines::traces::exporters::0",
                "connector \"forward\" (traces to traces) -> pipeline \"traces\" -> connector \"forward\" (traces to \
                 traces)",
            )],
        ),
        // One that has nothing to do with it, one that leads there, one of another signal.
        (
            vec![
                "logs/a: {receivers: [otlp], exporters: [forward/a]},",
                "logs/b: {receivers: [forward/a], exporters: [loki]},",
                "traces/in: {receivers: [otlp], exporters: [forward/a]},",
                "traces/a: {receivers: [forward/a, forward/c], exporters: [otlp_grpc, forward/b]},",
                "traces/b: {receivers: [forward/b], exporters: [forward/c]},",
            ],
            vec![(
                "8:72 service::pipelines::traces/a::exporters::1",
                "connector \"forward/b\" (traces to traces) -> pipeline \"traces/b\" -> connector \"forward/c\" \
                 (traces to traces) -> pipeline \"traces/a\" -> connector \"forward/b\" (traces to traces)",
            )],
        ),
        (
            vec![
                "logs: {receivers: [otlp, forward], exporters: [forward]},",
                "traces: {receivers: [otlp, forward/a], exporters: [forward/a]},",
            ],
            vec![
                (
                    "5:50 service::pipelines::logs::exporters::0",
                    "connector \"forward\" (logs to logs) -> pipeline \"logs\" -> connector \"forward\" (logs to logs)",
                ),
                (
                    "6:54 service::pipelines::traces::exporters::0",
                    "connector \"forward/a\" (traces to traces) -> pipeline \"traces\" -> connector \"forward/a\" \
                     (traces to traces)",
                ),
            ],
        ),
    ] {
        let expected: Vec<String> = expected
            .into_iter()
            .map(|(place, circle)| {
                format!("e {place}: cycle detected: {circle} | take one of the connectors out")
            })
            .collect();
        assert_eq!(errors(connectors, &pipelines), expected, "{pipelines:#?}");
    }
}

#[test]
fn targets_come_first() {
    let text = file(
        "{forward: , forward/a: , forward/b: }",
        &[
            "traces: {receivers: [otlp], exporters: [forward, forward/a]},",
            "traces/a: {receivers: [forward], exporters: [forward/a]},",
            "traces/b: {receivers: [forward/a, otlp], exporters: [forward/b, otlp_grpc]},",
            "traces/c: {receivers: [forward/b, forward], exporters: [otlp_grpc]},",
            "logs: {receivers: [otlp], exporters: [loki, forward]},",
            "logs/a: {receivers: [forward], exporters: [loki]},",
        ],
    );
    let plan = load_text(&text).plan.unwrap();
    let order: Vec<&str> = plan.order.iter().map(|at| plan.pipelines[*at].id.as_str()).collect();
    let place = |id: &str| order.iter().position(|o| *o == id).unwrap();
    assert_eq!(order.len(), 6, "{order:?}");
    for (target, feeder) in [
        ("traces/a", "traces"),
        ("traces/b", "traces"),
        ("traces/b", "traces/a"),
        ("traces/c", "traces/b"),
        ("traces/c", "traces"),
        ("logs/a", "logs"),
    ] {
        assert!(place(target) < place(feeder), "{target} before {feeder} in {order:?}");
    }
}

/// Neither recursion nor anything that grows faster than the file.
#[test]
fn many_pipelines_in_a_row_are_fine() {
    let many = 1_000;
    let connectors: String = (0..many).map(|i| format!("forward/{i}: ,")).collect();
    let mut pipelines: Vec<String> = (1..many)
        .map(|i| format!("traces/{i}: {{receivers: [forward/{}], exporters: [forward/{i}]}},", i - 1))
        .collect();
    pipelines.push("traces: {receivers: [otlp], exporters: [forward/0]},".to_owned());
    pipelines.push(format!("traces/end: {{receivers: [forward/{}], exporters: [otlp_grpc]}},", many - 1));
    let pipelines: Vec<&str> = pipelines.iter().map(String::as_str).collect();
    let plan = load_text(&file(&format!("{{{connectors}}}"), &pipelines)).plan.unwrap();
    assert_eq!(plan.pipelines[plan.order[0]].id, "traces/end");
    assert_eq!(plan.pipelines[plan.order[many]].id, "traces");
}
