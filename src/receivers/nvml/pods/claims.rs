//! Which container was given which device, whoever says so.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::device_id::{Base, DeviceId};
use crate::receivers::nvml::holders::Holder;

/// Devices with replicas that are remembered: MIG instances come and go, and nobody says which are gone for good.
const MOST_SHARED: usize = 4096;

/// Everything that is known of who was given what.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// Each device of each container, in the order they were told.
    pub held: Vec<Held>,
    /// How many share a device, where several do.
    pub replicas: HashMap<Base, u32>,
    /// Whether some container holds a GPU, and nobody knows which.
    pub unmapped: bool,
}

/// One device in one container.
#[derive(Debug, Clone)]
pub(super) struct Held {
    /// The device.
    pub id: DeviceId,
    /// The container.
    pub holder: Arc<Holder>,
    /// The round in which that was told first.
    pub since: u64,
}

impl Claims {
    /// Takes what was told in this round; what was told before keeps its age, and its holders their place in memory.
    pub fn replace(&mut self, held: Vec<Held>, round: u64) {
        let before: HashMap<(&DeviceId, &Holder), &Held> =
            self.held.iter().map(|held| ((&held.id, &*held.holder), held)).collect();
        let held = held
            .into_iter()
            .map(|new| match before.get(&(&new.id, &*new.holder)) {
                Some(old) => Held { holder: old.holder.clone(), since: old.since, ..new },
                None => Held { since: round, ..new },
            })
            .collect();
        self.held = held;
    }

    /// Counts how many share each of these devices, which are all there are at the moment. One that is not among them
    /// keeps its number, for what is unhealthy is left out; one that is there for itself alone is not shared any more.
    pub fn count_replicas(&mut self, devices: impl IntoIterator<Item = DeviceId>) {
        let mut shared: HashMap<Base, BTreeSet<u32>> = HashMap::new();
        let mut exclusive: HashSet<Base> = HashSet::new();
        for DeviceId { base, replica } in devices {
            match replica {
                Some(replica) => {
                    shared.entry(base).or_default().insert(replica);
                }
                None => {
                    exclusive.insert(base);
                }
            }
        }
        self.replicas.retain(|base, _| !exclusive.contains(base));
        if self.replicas.len() + shared.len() > MOST_SHARED {
            self.replicas.clear();
        }
        let counted = |(base, numbers): (Base, BTreeSet<u32>)| (base, numbers.len() as u32);
        self.replicas.extend(shared.into_iter().map(counted));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> DeviceId {
        DeviceId::parse("nvidia.com/gpu", text).unwrap()
    }

    fn held(device: &str, pod: &str) -> Held {
        let holder = Holder { namespace: "n".into(), pod: pod.into(), container: "c".into(), uid: None };
        Held { id: id(device), holder: Arc::new(holder), since: 0 }
    }

    #[test]
    fn what_was_told_before_keeps_its_age() {
        let mut claims = Claims::default();
        claims.replace(vec![held("GPU-1", "a")], 1);
        let first = claims.held[0].holder.clone();
        claims.replace(vec![held("GPU-1", "b"), held("GPU-1", "a"), held("GPU-2", "a")], 2);
        let ages: Vec<_> = claims.held.iter().map(|h| (h.holder.pod.as_str(), h.since)).collect();
        assert_eq!(ages, [("b", 2), ("a", 1), ("a", 2)]);
        assert!(Arc::ptr_eq(&claims.held[1].holder, &first));
        claims.replace(vec![], 3);
        claims.replace(vec![held("GPU-1", "a")], 4);
        assert_eq!(claims.held[0].since, 4);
    }

    #[test]
    fn replicas_keep_their_number_until_another_is_told() {
        let mut claims = Claims::default();
        let mut count = |devices: &[&str]| {
            claims.count_replicas(devices.iter().map(|d| id(d)));
            let mut now: Vec<_> = claims.replicas.iter().map(|(base, n)| (base.clone(), *n)).collect();
            now.sort();
            now
        };
        let (one, two) = (id("GPU-1").base, id("nvidia2").base);
        assert_eq!(count(&["GPU-1::0", "GPU-1::1", "GPU-1::1", "GPU-3"]), [(one.clone(), 2)]);
        assert_eq!(count(&["nvidia2/vgpu0"]), [(one.clone(), 2), (two.clone(), 1)]);
        assert_eq!(count(&[]), [(one.clone(), 2), (two.clone(), 1)]);
        assert_eq!(count(&["GPU-1::0", "GPU-1::1", "GPU-1::2"]), [(one, 3), (two.clone(), 1)]);
        assert_eq!(count(&["GPU-1"]), [(two, 1)]);
    }
}
