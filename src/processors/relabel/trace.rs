//! What each rule did, for people who ask. Without anybody asking it costs nothing.

/// Who hears what rules did.
pub(super) trait Trace {
    /// Whether anybody does.
    const ON: bool;

    /// The rule, from 0, did this.
    fn note(&mut self, rule: usize, effect: Effect);
}

/// Nobody.
pub(super) struct Silent;

/// What a rule did. Text that is no UTF-8 is shown as such.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Set a label.
    Set {
        /// Its name.
        label: String,
        /// What it was before; empty if it was not there.
        was: String,
        /// What it is now.
        value: String,
    },
    /// Took a label away.
    Deleted {
        /// Its name.
        label: String,
        /// What it was before.
        was: String,
    },
    /// Set what was there already.
    Same {
        /// The label's name.
        label: String,
        /// Its value; empty if it is not there.
        value: String,
    },
    /// Nothing: the sources did not match.
    NoMatch {
        /// The sources, joined.
        source: String,
    },
    /// Nothing: no name matched, or for `labelkeep` all did.
    NoNames,
    /// Nothing: what came out as a name is none at this level.
    NoName {
        /// What came out.
        name: String,
    },
    /// Nothing: the sources were such that it keeps what they are of.
    Kept {
        /// The sources, joined.
        source: String,
        /// Whether they matched.
        matched: bool,
    },
    /// Dropped the item, or what is around it.
    Dropped {
        /// What: `item`, `metric`, `scope` or `resource`.
        what: &'static str,
        /// The sources, joined.
        source: String,
        /// Whether they matched.
        matched: bool,
    },
    /// Nothing, after comparing the sources with a label.
    KeptBeside {
        /// The sources, joined.
        source: String,
        /// The label's value.
        to: String,
    },
    /// Dropped the item, or what is around it, after comparing the sources with a label.
    DroppedBeside {
        /// What: `item`, `metric`, `scope` or `resource`.
        what: &'static str,
        /// The sources, joined.
        source: String,
        /// The label's value.
        to: String,
    },
}

impl Trace for Silent {
    const ON: bool = false;

    fn note(&mut self, _rule: usize, _effect: Effect) {}
}

impl Trace for Vec<(usize, Effect)> {
    const ON: bool = true;

    fn note(&mut self, rule: usize, effect: Effect) {
        self.push((rule, effect));
    }
}

impl Effect {
    /// What setting a label does.
    pub(super) fn of(label: String, was: &[u8], value: &[u8]) -> Effect {
        match () {
            () if was == value => Effect::Same { label, value: shown(value) },
            () if value.is_empty() => Effect::Deleted { label, was: shown(was) },
            () => Effect::Set { label, was: shown(was), value: shown(value) },
        }
    }
}

/// Text as people see it.
pub(super) fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}
