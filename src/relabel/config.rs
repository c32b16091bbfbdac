//! A rule as it is written.

use super::{Names, Rule, is_legacy_name};
use crate::config::{Cx, Node};
use crate::{config, config_enum};

config_enum! {
    /// What a rule does.
    pub enum Action ignore_case {
        /// Sets the target to the replacement if the expression matches.
        Replace = "replace",
        /// Drops what the expression does not match.
        Keep = "keep",
        /// Drops what the expression matches.
        Drop = "drop",
        /// Drops where the sources are not equal to the target.
        KeepEqual = "keepequal",
        /// Drops where the sources are equal to the target.
        DropEqual = "dropequal",
        /// Sets the target to a hash of the sources, modulo `modulus`.
        HashMod = "hashmod",
        /// Copies labels whose name the expression matches to the name in `replacement`.
        LabelMap = "labelmap",
        /// Removes labels whose name the expression matches.
        LabelDrop = "labeldrop",
        /// Removes labels whose name the expression does not match.
        LabelKeep = "labelkeep",
        /// Sets the target to the sources in lower case.
        Lowercase = "lowercase",
        /// Sets the target to the sources in upper case.
        Uppercase = "uppercase",
    }
}

config! {
    /// One of Prometheus' relabelling rules.
    pub struct RelabelConfig {
        /// The labels whose values, joined by `separator`, the rule looks at.
        pub source_labels: Vec<String> = Vec::new(),
        /// Stands between the values.
        pub separator: String = ";".to_owned(),
        /// What the joined values, or names, must match as a whole.
        pub regex: String = "(.*)".to_owned(),
        /// What `hashmod` divides by.
        pub modulus: u64 = 0,
        /// The label that is set. `$1` and `${name}` stand for groups of the expression.
        pub target_label: String = String::new(),
        /// The value, or for `labelmap` the name, that is set. `$1` and `${name}` stand for groups.
        pub replacement: String = "$1".to_owned(),
        /// What the rule does.
        pub action: Action = Action::Replace,
    }
    validate = RelabelConfig::check;
}

impl RelabelConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        self.check_names(Names::Legacy, node, cx);
    }

    /// The checks, for targets whose names are of one kind. With [`Names::Utf8`], `$` still has no place in a name
    /// that is not computed.
    pub(crate) fn check_names(&self, names: Names, node: &Node, cx: &mut Cx) {
        let is_name = |name: &str| match names {
            Names::Legacy => is_legacy_name(name),
            Names::Utf8 => !name.contains('$'),
        };
        let word = self.action.word();
        let mut fail = |key: &str, why: String| cx.within(key, |cx| cx.error(node.pos_of(key), why));
        if let Err(why) = Rule::new(self, Names::Utf8) {
            fail("regex", why);
        }
        let targets = matches!(
            self.action,
            Action::Replace
                | Action::KeepEqual
                | Action::DropEqual
                | Action::HashMod
                | Action::Lowercase
                | Action::Uppercase
        );
        if targets && self.target_label.is_empty() {
            fail("target_label", format!("relabel configuration for {word} action requires 'target_label'"));
        } else if targets && self.action != Action::Replace && !is_name(&self.target_label) {
            fail(
                "target_label",
                format!("\"{}\" is invalid 'target_label' for {word} action", self.target_label),
            );
        }
        if self.action == Action::HashMod && self.modulus == 0 {
            fail("modulus", "relabel configuration for hashmod requires non-zero modulus".to_owned());
        }
        // What an action does not look at would be accepted and ignored.
        let unused: &[&str] = match self.action {
            Action::KeepEqual | Action::DropEqual => &["separator", "regex", "modulus", "replacement"],
            Action::LabelDrop | Action::LabelKeep => {
                &["source_labels", "separator", "modulus", "target_label", "replacement"]
            }
            Action::Lowercase | Action::Uppercase => &["replacement"],
            _ => &[],
        };
        for key in unused.iter().filter(|key| node.get(key).is_some_and(|n| !n.is_null())) {
            fail(key, format!("'{key}' has no meaning for the {word} action"));
        }
    }
}
