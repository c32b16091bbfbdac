//! Any bytes as a config: findings stand in the file, there is a plan exactly when none of them is an error, and
//! what is printed of a config is read as the same config.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::config::{Node, Pos, Printing, Severity, SourceText, Value, parse_bytes, render, to_json};

/// What is printed is longer than what was read where that had aliases; so much of it is read again.
const LONGEST: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    // Other files are no business of a fuzzer.
    if data.windows(5).any(|w| w == b"file:") {
        return;
    }
    let loaded = parse_bytes(data);
    let inside = |pos: Pos| assert!(stands_in(pos, &loaded.sources), "{pos:?} {:?}", loaded.sources);
    for diag in &loaded.diags {
        inside(diag.pos);
        diag.related.iter().for_each(|(_, pos)| inside(*pos));
    }
    let failed = loaded.diags.iter().any(|d| d.severity == Severity::Error);
    assert_eq!(loaded.is_ok(), !failed);
    let shown = render(&loaded.diags, &loaded.sources);
    assert!(shown.chars().all(|c| c == '\n' || !c.is_control()));
    to_json(&loaded.diags, &loaded.sources);

    let Some(tree) = &loaded.tree else { return };
    places(tree, &inside);
    let printed = Printing::default().yaml(tree);
    if printed.len() < LONGEST && !printed.contains("file:") {
        let again = parse_bytes(printed.as_bytes());
        let why = || format!("{printed}\n{}", render(&again.diags, &again.sources));
        // What a reference stands for is a text to some fields and a number to others; it is printed as a number.
        assert!(again.is_ok() || failed || refers(tree), "{}", why());
        let Some(reread) = &again.tree else { panic!("unreadable: {}", why()) };
        assert_eq!(Printing::default().yaml(reread), printed);
    }
});

/// Whether some value came from a reference and is more than its text.
fn refers(node: &Node) -> bool {
    node.expanded.is_some()
        || match &node.value {
            Value::Seq(items) => items.iter().any(refers),
            Value::Map(entries) => entries.iter().any(|(_, value)| refers(value)),
            _ => false,
        }
}

fn places(node: &Node, inside: &impl Fn(Pos)) {
    inside(node.pos);
    match &node.value {
        Value::Seq(items) => items.iter().for_each(|item| places(item, inside)),
        Value::Map(entries) => entries.iter().for_each(|(key, value)| {
            inside(key.pos);
            places(value, inside);
        }),
        _ => {}
    }
}

/// A place is a character of a line of its source, or the end of that line; line 0 is no place.
fn stands_in(pos: Pos, sources: &[SourceText]) -> bool {
    if pos.line == 0 {
        return true;
    }
    let Some(source) = sources.get(usize::from(pos.source)) else { return false };
    let text = source.text.replace("\r\n", "\n");
    let line = text.split(['\n', '\r']).nth(pos.line as usize - 1);
    line.is_some_and(|line| (1..=line.chars().count() + 1).contains(&(pos.col as usize)))
}
