//! Positions, typing, anchors, bounds.

use proptest::prelude::*;

use super::*;

fn read(text: &str) -> (Option<Node>, Vec<String>) {
    let mut cx = Cx::default();
    let node = parse(text, Place::default(), &mut cx);
    let diags = cx
        .diags
        .iter()
        .map(|d| {
            let related =
                d.related.map(|(how, p)| format!(" ({how} {}:{})", p.line, p.col)).unwrap_or_default();
            format!("{}:{}: {}: {}{related}", d.pos.line, d.pos.col, d.path, d.message)
        })
        .collect();
    (node, diags)
}

fn good(text: &str) -> Node {
    let (node, diags) = read(text);
    assert_eq!(diags, Vec::<String>::new(), "{text}");
    node.unwrap()
}

/// `key@line:col=value@line:col`, all of it.
fn show(node: &Node) -> String {
    let at = |pos: Pos| format!("{}:{}", pos.line, pos.col);
    let value = match &node.value {
        Value::Map(entries) => {
            let entries: Vec<String> =
                entries.iter().map(|(k, v)| format!("{}@{}={}", k.text, at(k.pos), show(v))).collect();
            format!("{{{}}}", entries.join(" "))
        }
        Value::Seq(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" ")),
        Value::Null => "null".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Int(i) => i.to_string(),
        Value::UInt(u) => u.to_string(),
        Value::Float(f) => format!("{f:?}"),
        Value::Str(s) => format!("{s:?}"),
    };
    format!("{value}@{}", at(node.pos))
}

#[test]
fn everything_has_its_place() {
    for (text, shown) in [
        ("a: 1\nb:\n  c: x # y\n", "{a@1:1=1@1:4 b@2:1={c@3:3=\"x\"@3:6}@2:1}@1:1"),
        ("a:\nb: ~\n", "{a@1:1=null@1:1 b@2:1=null@2:4}@1:1"),
        ("- a\n-\n- [b, {c: d}]\n", "[\"a\"@1:3 null@2:2 [\"b\"@3:4 {c@3:8=\"d\"@3:11}@3:7]@3:3]@1:1"),
        ("\"ä\": 'ö'\r\nb: \"1\"", "{ä@1:1=\"ö\"@1:6 b@2:1=\"1\"@2:4}@1:1"),
        ("a: |\n  x\n  y\n8080: >-\n  z\n", "{a@1:1=\"x\\ny\\n\"@2:3 8080@4:1=\"z\"@5:3}@1:1"),
        ("", "null@1:1"),
        ("# nothing\n", "null@1:1"),
        ("---\na: !!str 1\n...\n", "{a@2:1=\"1\"@2:10}@2:1"),
        ("a: ! 1\nb: !!float 2\n", "{a@1:1=\"1\"@1:6 b@2:1=2.0@2:12}@1:1"),
        ("${env:A}: ${env:B}\n", "{${env:A}@1:1=\"${env:B}\"@1:11}@1:1"),
    ] {
        assert_eq!(show(&good(text)), shown, "{text}");
    }
}

#[test]
fn aliases_and_merge_keys() {
    let node = good("base: &b {x: 1, y: 2}\none: {<<: *b, y: 3}\ntwo: *b\n");
    assert_eq!(
        show(node.get("one").unwrap()),
        "{y@2:15=3@2:18 x@1:11=1@1:14}@2:6",
        "own keys win, merged values keep their places"
    );
    assert_eq!(node.get("two").unwrap(), node.get("base").unwrap());
    let node = good("a: &a {x: 1}\nb: &b {x: 2, y: 3}\nc:\n  <<: [*a, *b]\n  \"<<\": z\n");
    let c = node.get("c").unwrap();
    assert_eq!(c.get("x").unwrap().value, Value::Int(1), "the first of several wins");
    assert_eq!(c.get("<<").unwrap().value, Value::Str("z".into()), "a quoted << is a key");
    assert_eq!(read("a: &a 1\nb: {<<: *a}\n").1, ["1:7: b: \"<<\" takes a mapping or a list of mappings"]);
}

#[test]
fn several_mistakes_in_one_run() {
    let (_, diags) = read("a: 1\nb: *nope\na: 2\nc:\n  d: 1\n  d: 2\n[x]: y\ne: !custom z\nf: !!int x\n");
    assert_eq!(
        diags,
        [
            "2:4: b: the alias \"*nope\" has no anchor before it",
            "3:1: a: duplicate key \"a\" (first written 1:1)",
            "6:3: c::d: duplicate key \"d\" (first written 5:3)",
            "7:1: : a key must be text, not a list or a mapping",
            "8:12: e: the tag \"!custom\" is not supported",
            "9:10: f: \"x\" is not what its tag \"!!int\" says",
        ]
    );
}

#[test]
fn invalid_yaml() {
    for (text, at) in [
        ("a: b: c\n", "1:5"),
        ("a: [1, 2\n", "1:4"),
        ("a:\n\t- b\n", "2:2"),
        ("a: 'b\n", "2:1"),
        ("a: 1\n---\nb: 2\n", "3:1"),
        ("a: &x [*x]\n", "1:8"),
    ] {
        let (_, diags) = read(text);
        assert_eq!(diags.len(), 1, "{text}: {diags:?}");
        assert!(diags[0].starts_with(&format!("{at}:")), "{text}: {diags:?}");
    }
}

#[test]
fn bombs_are_refused() {
    let mut doubling = String::from("a0: &a0 [x]\n");
    for i in 1..40 {
        doubling.push_str(&format!("a{i}: &a{i} [*a{p}, *a{p}]\n", p = i - 1));
    }
    assert!(read(&doubling).1[0].contains("more than 200000 values"));

    let mut deep = String::from("a0: &a0 [x]\n");
    for i in 1..500 {
        deep.push_str(&format!("a{i}: &a{i} [*a{}]\n", i - 1));
    }
    assert!(read(&deep).1[0].contains("nest deeper than 100"));

    let mut long = format!("a: &a {}\nb:\n", "x".repeat(1 << 20));
    long.push_str(&"- *a\n".repeat(100));
    assert!(read(&long).1[0].contains("too long"));

    assert!(read(&"[".repeat(100_000)).0.is_none());
    assert!(read(&format!("a: {}", "x".repeat(MAX_BYTES))).1[0].contains("larger than 4 MiB"));
}

#[test]
fn what_is_not_utf8_has_a_place() {
    assert_eq!(utf8(b"\xef\xbb\xbfa: b"), Ok("a: b"));
    assert_eq!(utf8(b"a: b\nc: \xff"), Err((2, 4, 8)));
    assert_eq!(utf8("a\r\n\u{e4}".as_bytes()), Ok("a\r\nä"));
    assert_eq!(utf8(b"\xff\xfea"), Err((1, 1, 0)));
}

#[test]
fn lines_end_as_in_yaml() {
    assert_eq!(lines("a\nb\r\nc\rd").collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    assert_eq!(lines("").collect::<Vec<_>>(), [""]);
    assert_eq!(lines("a\n").collect::<Vec<_>>(), ["a", ""]);
}

fn positions(node: &Node, out: &mut Vec<Pos>) {
    out.push(node.pos);
    match &node.value {
        Value::Seq(items) => items.iter().for_each(|item| positions(item, out)),
        Value::Map(entries) => entries.iter().for_each(|(key, value)| {
            out.push(key.pos);
            positions(value, out);
        }),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever the text: no panic, and every place named is in it.
    #[test]
    fn positions_are_in_the_text(text in "[a-c:\\-\\[\\]{},&*<>|!'\"# \n\r\tä\u{feff}?0.%@~]{0,60}") {
        let mut cx = Cx::default();
        let node = parse(&text, Place::default(), &mut cx);
        let mut all: Vec<Pos> = cx.diags.iter().flat_map(|d| [Some(d.pos), d.related.map(|r| r.1)]).flatten().collect();
        if let Some(node) = &node {
            positions(node, &mut all);
        }
        prop_assert!(node.is_some() || !cx.diags.is_empty());
        let lengths: Vec<usize> = lines(&text).map(|l| l.chars().count()).collect();
        for pos in all {
            prop_assert!(pos.line >= 1 && pos.line as usize <= lengths.len(), "{pos:?}");
            prop_assert!(pos.col >= 1 && pos.col as usize <= lengths[pos.line as usize - 1] + 1, "{pos:?}");
        }
    }
}
