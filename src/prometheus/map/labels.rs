//! The labels of one series, put together from the levels they come from.
//!
//! Labels are pushed with the [`Level`] they come from, in any order, and settled once: sorted by name bytes, one
//! value a name. Of several levels the first in the order of [`Level`] wins. Attributes of one level whose names
//! become the same label are joined with `;` in the order of their original keys, as Prometheus does.
//!
//! Costs: one buffer and one list, reused; `n log n` comparisons of names.

use std::cmp::Ordering;
use std::mem::size_of;
use std::ops::Range;

/// Where a label comes from, the strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// `otel_scope_*`: overwrite whatever has their name.
    Scope,
    /// `job` and `instance`.
    Identity,
    /// Attributes of the point.
    Point,
    /// Attributes of the resource that are made labels.
    Resource,
    /// `external_labels`: only where nothing else has the name.
    External,
}

/// Labels being put together.
#[derive(Debug, Clone, Default)]
pub struct LabelSet {
    text: String,
    labels: Vec<Label>,
    /// For values that are joined.
    joined: String,
}

#[derive(Debug, Clone)]
struct Label {
    level: Level,
    name: Range<usize>,
    value: Range<usize>,
}

impl LabelSet {
    /// Takes everything out, keeps the room.
    pub fn clear(&mut self) {
        self.text.clear();
        self.labels.clear();
    }

    /// How many labels there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Adds a label.
    pub fn push(&mut self, level: Level, name: &str, value: &str) {
        self.push_with(
            level,
            |out| {
                out.push_str(name);
                true
            },
            |out| out.push_str(value),
        );
    }

    /// Adds a label whose name and value are written by the callers' functions; without a name nothing is added.
    pub fn push_with(
        &mut self,
        level: Level,
        name: impl FnOnce(&mut String) -> bool,
        value: impl FnOnce(&mut String),
    ) {
        let start = self.text.len();
        if !name(&mut self.text) {
            self.text.truncate(start);
            return;
        }
        let middle = self.text.len();
        value(&mut self.text);
        self.labels.push(Label { level, name: start..middle, value: middle..self.text.len() });
    }

    /// Sorts, decides between levels, joins what collides and leaves out labels without a value. With `join` off
    /// (names are not changed, so that nothing collides) the last of equal names of one level stays.
    pub fn settle(&mut self, join: bool) {
        let LabelSet { text, labels, joined } = self;
        labels.sort_by(|a, b| get(text, &a.name).cmp(get(text, &b.name)).then(a.level.cmp(&b.level)));
        let mut kept = 0;
        let mut at = 0;
        while let Some(first) = labels.get(at) {
            let same = |other: &&Label| get(text, &other.name) == get(text, &first.name);
            let group = labels.get(at..).unwrap_or_default().iter().take_while(same).count();
            let winners = labels.get(at..at + group).unwrap_or_default();
            let winners = winners.iter().take_while(|l| l.level == first.level);
            let mut winner = first.clone();
            if join && matches!(first.level, Level::Point | Level::Resource) && winners.clone().count() > 1 {
                joined.clear();
                for (i, label) in winners.enumerate() {
                    // An empty earlier value is replaced rather than joined.
                    if i > 0 && !joined.is_empty() {
                        joined.push(';');
                    }
                    joined.push_str(get(text, &label.value));
                }
                let start = text.len();
                text.push_str(joined);
                winner.value = start..text.len();
            } else if let Some(last) = winners.last() {
                winner = last.clone();
            }
            at += group;
            if !winner.value.is_empty()
                && let Some(slot) = labels.get_mut(kept)
            {
                *slot = winner;
                kept += 1;
            }
        }
        labels.truncate(kept);
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.text.capacity() + self.joined.capacity() + self.labels.capacity() * size_of::<Label>()
    }

    /// Names and values, in order once settled.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + Clone {
        self.labels.iter().map(|l| (get(&self.text, &l.name), get(&self.text, &l.value)))
    }

    /// The value of a label of a settled set.
    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self.labels.binary_search_by(|l| get(&self.text, &l.name).cmp(name)).ok()?;
        self.labels.get(at).map(|l| get(&self.text, &l.value))
    }

    /// Keeps the labels for which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        let text = &self.text;
        self.labels.retain(|l| keep(get(text, &l.name)));
    }

    /// How names of a settled set compare with `name`: the number of labels before it.
    pub fn before(&self, name: &str) -> usize {
        self.labels.partition_point(|l| get(&self.text, &l.name).cmp(name) == Ordering::Less)
    }
}

fn get<'a>(text: &'a str, range: &Range<usize>) -> &'a str {
    text.get(range.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(labels: &[(Level, &str, &str)]) -> Vec<(String, String)> {
        let mut set = LabelSet::default();
        for (level, name, value) in labels {
            set.push(*level, name, value);
        }
        set.settle(true);
        set.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn names_are_sorted_by_bytes() {
        use Level::Point;
        let labels = [(Point, "job", "j"), (Point, "A", "1"), (Point, "__x", "2"), (Point, "Zone", "3")];
        assert_eq!(settled(&labels), pairs(&[("A", "1"), ("Zone", "3"), ("__x", "2"), ("job", "j")]));
    }

    #[test]
    fn collisions_are_joined_in_the_order_pushed() {
        use Level::Point;
        let two = |a, b| settled(&[(Point, "a_b", a), (Point, "a_b", b)]);
        assert_eq!(two("1", "2"), pairs(&[("a_b", "1;2")]));
        assert_eq!(two("x", "x"), pairs(&[("a_b", "x;x")]));
        assert_eq!(two("", "2"), pairs(&[("a_b", "2")]));
        assert_eq!(two("1", ""), pairs(&[("a_b", "1;")]));
        assert_eq!(two("", ""), pairs(&[]));
    }

    #[test]
    fn levels_have_an_order() {
        use Level::{External, Identity, Point, Resource, Scope};
        let labels = [
            (External, "job", "e"),
            (External, "region", "eu"),
            (Point, "job", "p"),
            (Identity, "job", "shop/api"),
            (Resource, "route", "r"),
            (Point, "route", "/a"),
            (Point, "otel_scope_name", "p"),
            (Scope, "otel_scope_name", "s"),
        ];
        let want = [("job", "shop/api"), ("otel_scope_name", "s"), ("region", "eu"), ("route", "/a")];
        assert_eq!(settled(&labels), pairs(&want));
    }
}
