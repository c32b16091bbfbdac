//! Which resource attributes become labels.

use super::*;
use crate::prometheus::names::TranslationStrategy;

fn mapper(resource_labels: ResourceLabels) -> Mapper {
    Mapper::new(MapOptions {
        namer: Namer::new(TranslationStrategy::UnderscoreEscapingWithSuffixes, ""),
        external_labels: Vec::new(),
        resource_labels,
        target_info: true,
        scope_labels: false,
    })
}

#[test]
fn patterns_fit_whole_names() {
    let table = [
        ("k8s.pod.name", "k8s.pod.name", true),
        ("k8s.pod", "k8s.pod.name", false),
        ("pod.name", "k8s.pod.name", false),
        ("k8s.*", "k8s.pod.name", true),
        ("*.name", "k8s.pod.name", true),
        ("k8s.*.name", "k8s.pod.name", true),
        ("k8s.*.name", "k8s.name", false),
        ("*pod*", "k8s.pod.name", true),
        ("*a*a*", "a", false),
        ("a*a", "a", false),
        ("*", "", true),
        ("", "", true),
        ("", "a", false),
    ];
    for (pattern, text, want) in table {
        assert_eq!(matches(pattern, text), want, "{pattern} {text}");
    }
}

#[test]
fn chosen_attributes_are_labels() {
    let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    let chosen = |included: &[&str], excluded: &[&str]| ResourceLabels::Chosen {
        included: list(included),
        excluded: list(excluded),
    };
    let table = [
        (ResourceLabels::None, ["", "", ""]),
        (ResourceLabels::All { exclude_service: false }, ["yes", "yes", "yes"]),
        (ResourceLabels::All { exclude_service: true }, ["", "yes", "yes"]),
        (chosen(&["k8s.*"], &[]), ["", "yes", ""]),
        (chosen(&[], &["k8s.*"]), ["yes", "", "yes"]),
        (chosen(&["*"], &["service.*", "host"]), ["", "yes", ""]),
    ];
    for (labels, want) in table {
        let mapper = mapper(labels.clone());
        let got = ["service.name", "k8s.pod.name", "host"].map(|key| mapper.is_label(key));
        assert_eq!(got, want.map(|word| word == "yes"), "{labels:?}");
    }
}
