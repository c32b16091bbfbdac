//! Which devices are read: by UUID, number, PCI bus id or product.

use crate::receivers::nvml::config::DevicesConfig;
use crate::receivers::nvml::model::Identity;

/// What a user wrote about devices, ready to be asked.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    include: Vec<String>,
    exclude: Vec<String>,
}

impl Filter {
    /// From the config.
    pub(super) fn new(config: &DevicesConfig) -> Self {
        let lower = |entries: &[String]| entries.iter().map(|entry| entry.trim().to_lowercase()).collect();
        Filter { include: lower(&config.include), exclude: lower(&config.exclude) }
    }

    /// Whether this device is read: it is included, or nothing is, and it is not excluded.
    pub(super) fn takes(&self, device: &Identity) -> bool {
        let any = |entries: &[String]| entries.iter().any(|entry| matches(entry, device));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }

    /// Whether the device with this number is left out whatever it is, so that it need not be touched.
    pub(super) fn refuses(&self, index: u32) -> bool {
        let number = index.to_string();
        let only_numbers = |entries: &[String]| entries.iter().all(|e| e.bytes().all(|b| b.is_ascii_digit()));
        self.exclude.contains(&number)
            || (!self.include.is_empty() && only_numbers(&self.include) && !self.include.contains(&number))
    }
}

/// Whether an entry, in lower case, means this device.
fn matches(entry: &str, device: &Identity) -> bool {
    if entry.bytes().all(|b| b.is_ascii_digit()) {
        return *entry == device.index.to_string();
    }
    if *entry == device.uuid.to_lowercase() {
        return true;
    }
    let bus = device.pci_bus_id.as_deref().map(short_bus_id);
    if bus.is_some_and(|bus| bus == short_bus_id(entry)) {
        return true;
    }
    glob(entry, &device.name.to_lowercase())
}

/// A PCI bus id as sysfs has it: in lower case, with four digits of domain where the rest of them are zero.
pub(super) fn short_bus_id(bus: &str) -> String {
    let bus = bus.to_lowercase();
    match bus.split_once(':') {
        Some((domain, rest)) if domain.len() > 4 => {
            let (high, low) = domain.split_at_checked(domain.len() - 4).unwrap_or(("", domain));
            if high.bytes().all(|b| b == b'0') { format!("{low}:{rest}") } else { bus }
        }
        // `19:00.0`, as lspci has it.
        Some((_, rest)) if !rest.contains(':') => format!("0000:{bus}"),
        _ => bus,
    }
}

/// Whether `text` is `pattern`, in which `*` stands for anything.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(include: &[&str], exclude: &[&str]) -> bool {
        let owned = |entries: &[&str]| entries.iter().map(|&e| e.to_owned()).collect();
        let filter = Filter::new(&DevicesConfig { include: owned(include), exclude: owned(exclude) });
        filter.takes(&Identity {
            uuid: "GPU-4a9f".into(),
            index: 3,
            name: "NVIDIA H200 NVL".into(),
            pci_bus_id: Some("00000000:3B:00.0".to_owned()),
            ..Identity::default()
        })
    }

    #[test]
    fn devices_by_all_their_names() {
        let table: &[(&[&str], &[&str], bool)] = &[
            (&[], &[], true),
            (&["3"], &[], true),
            (&["0"], &[], false),
            (&["gpu-4A9F"], &[], true),
            (&["00000000:3b:00.0"], &[], true),
            (&["0000:3B:00.0"], &[], true),
            (&["3b:00.0"], &[], true),
            (&["3c:00.0"], &[], false),
            (&["nvidia h200 nvl"], &[], true),
            (&["nvidia h200"], &[], false),
            (&["*H200*"], &[], true),
            (&["NVIDIA*NVL"], &[], true),
            (&["NVIDIA*SXM"], &[], false),
            (&["*"], &["*h200*"], false),
            (&["3"], &["3"], false),
            (&[], &["0"], true),
        ];
        for (include, exclude, expected) in table {
            assert_eq!(takes(include, exclude), *expected, "{include:?} without {exclude:?}");
        }
    }

    #[test]
    fn patterns_do_not_match_the_same_text_twice() {
        assert!(!glob("aba*aba", "aba"));
        assert!(!glob("ab*ba", "aba"));
        assert!(glob("a**a", "aa"));
        assert!(glob("*b*", "abc"));
        assert!(!glob("*x*", "abc"));
    }

    #[test]
    fn bus_ids_of_large_domains_stay() {
        assert_eq!(short_bus_id("00010000:3B:00.0"), "00010000:3b:00.0");
        assert_eq!(short_bus_id("00000001:3B:00.0"), "0001:3b:00.0");
    }

    #[test]
    fn numbers_alone_spare_others_a_touch() {
        let filter = |include: &[&str], exclude: &[&str]| {
            let owned = |entries: &[&str]| entries.iter().map(|&e| e.to_owned()).collect();
            Filter::new(&DevicesConfig { include: owned(include), exclude: owned(exclude) })
        };
        assert!(filter(&["0", "2"], &[]).refuses(1));
        assert!(!filter(&["0", "*H200*"], &[]).refuses(1));
        assert!(filter(&[], &["1"]).refuses(1));
        assert!(!filter(&[], &[]).refuses(1));
    }
}
