//! The page about the language lists what there is, and its recipes are configurations.

use std::collections::BTreeSet;

use crate::ottl::{Context, names};
use crate::processors::testing::mistakes;

const PAGE: &str = include_str!("../../../../docs/transform.md");

/// The words in backticks.
fn words(text: &str) -> BTreeSet<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn paths_are_those_of_the_tables() {
    for context in Context::ALL {
        let row = PAGE.lines().find(|line| {
            line.starts_with(&format!("| `{}` |", context.name())) && line.matches('|').count() == 4
        });
        let cells: Vec<&str> = row.unwrap().split('|').collect();
        let paths = names::paths(context);
        for (cell, writable) in [(2, true), (3, false)] {
            let want: BTreeSet<&str> =
                paths.iter().filter(|(_, w)| *w == writable).map(|(name, _)| *name).collect();
            assert_eq!(words(cells[cell]), want, "{}, can be set: {writable}", context.name());
        }
    }
}

#[test]
fn editors_and_functions_are_those_of_the_tables() {
    for (title, until, want) in
        [("**Editors**", "Not there:", names::editors()), ("**Functions**", "**Names**", names::functions())]
    {
        let (_, rest) = PAGE.split_once(title).unwrap();
        let (list, _) = rest.split_once(until).unwrap();
        let listed = words(list.trim_start_matches(", in `transform`"));
        assert_eq!(listed, want.into_iter().collect(), "{title}");
    }
}

#[test]
fn recipes_are_configurations() {
    let mut checked = 0;
    for block in PAGE.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
        let dedented: String = match block.strip_prefix("processors:\n") {
            Some(inside) => inside.lines().map(|line| format!("{}\n", line.get(2..).unwrap_or(""))).collect(),
            None => block.to_owned(),
        };
        let found = mistakes(&dedented);
        assert!(found.is_empty(), "{block}\n{found:?}");
        checked += 1;
    }
    assert!(checked >= 8, "{checked}");
}
