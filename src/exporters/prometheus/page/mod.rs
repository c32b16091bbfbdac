//! One page, written in parts: the lock on the state is held for one part, and a page takes no more memory than
//! that, however many series there are.
//!
//! Families come in order of their names and series in order of their labels, so a page can go on where it was
//! although the state has changed in between. What came behind the place is shown, what came before it is not.

mod proto;
#[cfg(test)]
pub(super) mod strict;
#[cfg(test)]
mod tests;
pub mod text;

use std::collections::HashSet;
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use self::proto::ProtoWriter;
use self::text::{TextWriter, escape_labels, escape_metric, is_old_metric_name};
use super::negotiate::{Escaping, Format, Media};
use super::state::State;
use super::state::series::{Group, Series};
use crate::prometheus::map::MetricType;

/// A part ends when it has this many bytes.
pub const PART: usize = 64 << 10;
/// A part ends when it has passed this many slots, shown or not.
const VISITS: usize = 4096;

/// A page that is being written.
pub struct Page {
    state: Arc<Mutex<State>>,
    format: Format,
    writer: Writer,
    /// The part that is being written.
    text: String,
    proto: Vec<u8>,
    /// Series last seen before this are not shown.
    alive: u64,
    place: Place,
    /// Names that were shown, where different families could come to have the same.
    shown: HashSet<String>,
    /// Labels that were shown of this family, where different ones could become the same.
    series: HashSet<String>,
    labels: String,
    /// Whether names have to be escaped.
    escapes: bool,
}

/// How a family appears.
#[derive(Debug, Clone, Default)]
pub struct Head {
    /// The name in comments.
    pub family: String,
    /// The name of its samples, without a suffix.
    pub sample: String,
    /// Whether the names must be in quotes.
    pub quoted: bool,
    /// The type as the format says it.
    pub word: &'static str,
    /// The type.
    pub kind: MetricType,
}

enum Writer {
    Text(TextWriter),
    Proto(Box<ProtoWriter>),
}

/// Where a page goes on.
enum Place {
    /// With the first family after this name.
    After(Option<Arc<str>>),
    /// Within a family: its name, its number, the labels shown last, how it appears once that was written.
    Within(Arc<str>, u64, Option<Arc<str>>, Option<Head>),
    /// There is nothing more.
    End,
}

impl Page {
    /// A page of what the state has at `now`.
    pub fn new(state: Arc<Mutex<State>>, format: Format, timestamps: bool, now: u64) -> Self {
        let (alive, utf8) = {
            let state = state.lock().unwrap_or_else(PoisonError::into_inner);
            (state.alive_since(now), state.has_utf8_names())
        };
        Page {
            state,
            format,
            writer: match format.media {
                Media::Protobuf => Writer::Proto(Box::new(ProtoWriter::new(timestamps))),
                _ => Writer::Text(TextWriter::new(format, timestamps)),
            },
            text: String::new(),
            proto: Vec::new(),
            alive,
            place: Place::After(None),
            shown: HashSet::new(),
            series: HashSet::new(),
            labels: String::new(),
            escapes: utf8 && format.escaping == Escaping::Underscores,
        }
    }

    /// The next part, and whether there are more.
    pub fn part(&mut self) -> (Vec<u8>, bool) {
        let more = self.fill();
        let text = std::mem::take(&mut self.text).into_bytes();
        let part = if text.is_empty() { std::mem::take(&mut self.proto) } else { text };
        (part, more)
    }

    fn size(&self) -> usize {
        let pending = if let Writer::Proto(proto) = &self.writer { proto.pending() } else { 0 };
        self.text.len() + self.proto.len() + pending
    }

    fn fill(&mut self) -> bool {
        let shared = self.state.clone();
        let state = shared.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!((&self.place, &self.writer), (Place::Within(..), Writer::Text(_))) {
            // The part before was a whole one.
            self.text.reserve(PART + PART / 8);
        }
        let mut visits = 0;
        loop {
            match std::mem::replace(&mut self.place, Place::End) {
                Place::End => return false,
                Place::After(name) => {
                    let from = name.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
                    match state.series.family(from) {
                        Some((name, group)) => {
                            self.series.clear();
                            self.place = Place::Within(name.clone(), group.id, None, None);
                        }
                        None => {
                            if self.format.is_open() {
                                self.text.push_str("# EOF\n");
                            }
                            return false;
                        }
                    }
                }
                Place::Within(name, id, labels, head) => {
                    let found = state.series.family(Bound::Included(&name));
                    let group = found.filter(|(found, group)| **found == name && group.id == id);
                    let Some((_, group)) = group else {
                        self.place = Place::After(Some(name));
                        continue;
                    };
                    self.place = self.family(&state.series, (&name, group), labels, head, &mut visits);
                    if let Writer::Proto(proto) = &mut self.writer {
                        proto.flush(&mut self.proto);
                    }
                    if self.size() >= PART || visits >= VISITS {
                        return true;
                    }
                }
            }
        }
    }

    /// Writes series of a family and says where to go on.
    fn family(
        &mut self,
        series: &Series,
        (name, group): (&Arc<str>, &Group),
        labels: Option<Arc<str>>,
        mut head: Option<Head>,
        visits: &mut usize,
    ) -> Place {
        let done = || Place::After(Some(name.clone()));
        let mut last: Option<&Arc<str>> = None;
        for at in group.after(labels.as_deref()) {
            if self.size() >= PART || *visits >= VISITS {
                return Place::Within(name.clone(), group.id, last.cloned().or(labels), head);
            }
            *visits += 1;
            let Some(slot) = series.get(at) else { continue };
            last = Some(&slot.labels);
            if slot.seen < self.alive {
                continue;
            }
            let head = match &mut head {
                Some(head) => head,
                none => {
                    let Some(made) = self.head(series, name, group.kind) else { return done() };
                    match &mut self.writer {
                        Writer::Text(text) => text.head(&made, &group.help, &group.unit, &mut self.text),
                        Writer::Proto(proto) => proto.head(&made, &group.help, &group.unit),
                    }
                    none.insert(made)
                }
            };
            let mut escaped = None;
            if self.escapes {
                escape_labels(&slot.labels, &mut self.labels);
                if !self.series.insert(self.labels.clone()) {
                    continue;
                }
                escaped = Some(self.labels.as_str());
            }
            match &mut self.writer {
                Writer::Text(text) => text.slot(head, slot, escaped, &mut self.text),
                Writer::Proto(proto) => proto.slot(head, slot, escaped),
            }
        }
        done()
    }

    /// How a family appears; `None` if it cannot because another one has the name.
    fn head(&mut self, series: &Series, name: &str, kind: MetricType) -> Option<Head> {
        let mut sample = name.to_owned();
        if self.escapes {
            sample.clear();
            escape_metric(name, &mut sample);
        }
        let mut head =
            Head { quoted: !is_old_metric_name(&sample), family: sample.clone(), sample, kind, word: "" };
        if self.format.is_open() {
            // A name that the rules of the type do not allow is of an unknown type.
            let mut cut = |suffix: &str, word: &'static str, else_word: &'static str| {
                let base = head.sample.strip_suffix(suffix).filter(|base| !base.is_empty());
                match base.filter(|base| !series.is_claimed(base) && !self.shown.contains(*base)) {
                    Some(base) => (head.family, head.word) = (base.to_owned(), word),
                    None => head.word = else_word,
                }
            };
            match kind {
                MetricType::Counter => cut("_total", "counter", "unknown"),
                MetricType::Info => cut("_info", "info", "gauge"),
                MetricType::StateSet => head.word = "gauge",
                kind => head.word = kind.word(),
            }
        } else {
            head.word = match kind {
                MetricType::Unknown => "untyped",
                MetricType::Info | MetricType::StateSet => "gauge",
                kind => kind.word(),
            };
        }
        if self.format.is_open() || self.escapes {
            let names = || super::state::series::sample_names(&head.sample, kind);
            if self.shown.contains(&head.family) || names().any(|name| self.shown.contains(&name)) {
                tracing::debug!(metric = name, "not shown: another metric has its name on this page");
                return None;
            }
            let names: Vec<String> = names().collect();
            self.shown.extend(names);
            self.shown.insert(head.family.clone());
        }
        Some(head)
    }
}

impl Head {
    /// Whether the format knows the family as what it is.
    pub fn is_typed(&self) -> bool {
        self.word == self.kind.word()
    }
}
