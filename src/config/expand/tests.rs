//! The Collector's forms, the mercies, the bounds.

use super::*;

fn variables(name: &str) -> Option<String> {
    let value = match name {
        "PORT" => "4317",
        "OCTAL" => "0123",
        "HOST" => "collector",
        "LIST" => "[a, b]",
        "EMPTY" => "",
        "QUOTED" => "\"q\"",
        "BROKEN" => "[a: ",
        "NAME" => "HOST",
        "CHAIN" => "${env:PORT}",
        "MIXED" => "${env:HOST}:${env:PORT}",
        "ESCAPED" => "$${x}",
        "SELF" => "${env:SELF}",
        "TWICE" => "${env:TWICE}${env:TWICE}",
        "BIG0" => return Some("x".repeat(1 << 20)),
        "BIG1" => "${BIG0}${BIG0}${BIG0}${BIG0}${BIG0}${BIG0}",
        "BIG2" => "${BIG1}${BIG1}${BIG1}${BIG1}${BIG1}${BIG1}",
        "MAP" => "{k: \"${env:HOST}\"}",
        _ => return None,
    };
    Some(value.to_owned())
}

fn run(value: &str) -> (Node, Vec<String>) {
    let mut cx = Cx::default();
    let node = Node::new(Pos { source: 0, line: 1, col: 4 }, Value::Str(value.to_owned()));
    let mut sources = vec![SourceText { name: "c.yaml".into(), text: format!("a: {value}\n") }];
    let node = expand(node, &variables, &mut sources, &mut cx);
    (node, cx.diags.iter().map(|d| format!("{}:{}: {}", d.pos.line, d.pos.col, d.message)).collect())
}

#[test]
fn a_whole_value_is_typed_and_keeps_its_spelling() {
    for (text, value, spelling) in [
        ("${env:PORT}", Value::Int(4317), Some("4317")),
        ("${PORT}", Value::Int(4317), Some("4317")),
        ("${env:OCTAL}", Value::Int(83), Some("0123")),
        ("${env:HOST}", Value::Str("collector".into()), None),
        ("${env:EMPTY}", Value::Null, Some("")),
        ("${env:QUOTED}", Value::Str("\"q\"".into()), None),
        ("${env:BROKEN}", Value::Str("[a: ".into()), None),
        ("${env:${NAME}}", Value::Str("collector".into()), None),
        ("${env:CHAIN}", Value::Int(4317), Some("4317")),
        ("${env:MIXED}", Value::Str("collector:4317".into()), None),
        ("${env:NOT_SET:-5s}", Value::Str("5s".into()), None),
        ("${env:NOT_SET:-}", Value::Null, Some("")),
        ("${env:EMPTY:-x}", Value::Null, Some("")),
        ("${env:NOT_SET:-${env:PORT}}", Value::Int(4317), Some("4317")),
        ("${yaml:1.5}", Value::Float(1.5), Some("1.5")),
    ] {
        let (node, diags) = run(text);
        assert_eq!(diags, Vec::<String>::new(), "{text}");
        assert_eq!((&node.value, node.expanded.as_deref()), (&value, spelling), "{text}");
    }
    let (node, _) = run("${env:LIST}");
    assert!(matches!(&node.value, Value::Seq(items) if items.len() == 2));
    assert_eq!(node.expanded.as_deref(), Some("[a, b]"));
    let (node, _) = run("${env:MAP}");
    assert_eq!(node.get("k").unwrap().value, Value::Str("collector".into()));
}

#[test]
fn parts_of_a_text() {
    for (text, out) in [
        ("${env:HOST}:${env:PORT}", "collector:4317"),
        ("x${env:OCTAL}", "x0123"),
        ("x${env:EMPTY}y", "xy"),
        ("$HOST", "$HOST"),
        ("$$HOST", "$HOST"),
        ("$${env:HOST}", "${env:HOST}"),
        ("$$${env:HOST}", "$collector"),
        ("$$$${env:HOST}", "$${env:HOST}"),
        ("$${a} ${env:HOST}", "${a} collector"),
        ("$1", "$1"),
        ("$$1", "$1"),
        ("${1}", "${1}"),
        ("$${1}", "${1}"),
        ("${10}-${env:HOST}", "${10}-collector"),
        ("a ${env:ESCAPED}", "a ${x}"),
        ("${env:HOST", "${env:HOST"),
        ("${a${env:HOST}", "${acollector"),
        ("}${env:HOST}}", "}collector}"),
        ("${env:NOT_SET:-{a}}", "{a}"),
        ("100$", "100$"),
        ("a$$", "a$"),
        ("^a$", "^a$"),
    ] {
        let (node, diags) = run(text);
        assert_eq!(diags, Vec::<String>::new(), "{text}");
        assert_eq!(node.value, Value::Str(out.into()), "{text}");
    }
}

#[test]
fn mistakes() {
    for (text, message) in [
        ("x ${env:NOPE}", "1:6: the variable NOPE is not set; the value is null"),
        ("${NOPE}", "1:4: the variable NOPE is not set; the value is null"),
        ("${HOST:-x}", "1:4: scheme \"HOST\" is not supported for uri \"HOST:-x\""),
        ("${MY_X:-x}", "1:4: invalid uri: \"MY_X:-x\""),
        ("${http://a}", "1:4: \"http://a\": references over HTTP are not supported"),
        ("${env:a-b}", "1:4: \"a-b\" is not the name of a variable"),
        ("${}", "1:4: \"\" is not the name of a variable"),
        ("${env:$X}", "1:4: the uri \"env:$X\" contains unsupported characters ('$')"),
        ("a${env:LIST}", "1:4: a list cannot be put into a text; only a whole value can be one"),
        ("${env:SELF}", "1:4: too many recursive expansions"),
        ("x${env:TWICE}", "1:4: too many recursive expansions"),
        ("${BIG2}", "1:4: references come to more than 16 MiB"),
        (
            "${file:/no/such/file}",
            "1:4: unable to read the file /no/such/file: No such file or directory (os error 2)",
        ),
    ] {
        let (_, diags) = run(text);
        assert_eq!(diags.first().map(String::as_str), Some(message), "{text}");
        assert_eq!(diags.len(), 1, "{text}: {diags:?}");
    }
    assert!(run(&"${".repeat(100)).1[0].contains("too many references"));
}

#[test]
fn files_bring_text_or_trees_with_their_own_places() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let token = path("token", "s3cret\n");
    assert_eq!(run(&format!("${{file:{token}}}")).0.value, Value::Str("s3cret".into()));
    let pem = path("pem", "-----BEGIN-----\nMII:\n-----END-----\n");
    assert_eq!(
        run(&format!("${{file:{pem}}}")).0.value,
        Value::Str("-----BEGIN-----\nMII:\n-----END-----".into())
    );
    let tree = path("part.yaml", "endpoint: ${env:HOST}:1\n");
    let (node, _) = run(&format!("${{file:{tree}}}"));
    let endpoint = node.get("endpoint").unwrap();
    assert_eq!(endpoint.value, Value::Str("collector:1".into()));
    assert_eq!((endpoint.pos.source, endpoint.pos.col), (1, 11));
    let broken = path("broken.yaml", "a: [\n");
    assert!(run(&format!("${{file:{broken}}}")).1[0].contains("invalid YAML"));
}
