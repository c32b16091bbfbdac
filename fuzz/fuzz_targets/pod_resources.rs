//! What a kubelet answers, against prost: whatever prost reads means the same here, whether it is who holds what or
//! what there is; and the ids of devices in it are taken apart into what they can be put together from again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use tidegate::receivers::nvml::pods::answer::{self, Given, MOST_PODS};
use tidegate::receivers::nvml::pods::device_id::{Base, DeviceId};

/// `ListPodResourcesResponse`.
#[derive(Clone, PartialEq, Message)]
struct List {
    #[prost(message, repeated, tag = "1")]
    pods: Vec<Pod>,
}

/// `PodResources`.
#[derive(Clone, PartialEq, Message)]
struct Pod {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    namespace: String,
    #[prost(message, repeated, tag = "3")]
    containers: Vec<Container>,
}

/// `ContainerResources`.
#[derive(Clone, PartialEq, Message)]
struct Container {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    devices: Vec<Devices>,
    #[prost(message, repeated, tag = "5")]
    dynamic: Vec<Dynamic>,
}

/// `ContainerDevices`.
#[derive(Clone, PartialEq, Message)]
struct Devices {
    #[prost(string, tag = "1")]
    resource: String,
    #[prost(string, repeated, tag = "2")]
    ids: Vec<String>,
}

/// `DynamicResource`.
#[derive(Clone, PartialEq, Message)]
struct Dynamic {
    #[prost(message, repeated, tag = "4")]
    claimed: Vec<Claimed>,
}

/// `ClaimResource`.
#[derive(Clone, PartialEq, Message)]
struct Claimed {
    #[prost(string, tag = "2")]
    driver: String,
}

/// `AllocatableResourcesResponse`.
#[derive(Clone, PartialEq, Message)]
struct Allocatable {
    #[prost(message, repeated, tag = "1")]
    devices: Vec<Devices>,
}

fuzz_target!(|data: &[u8]| {
    let mut ours = Vec::new();
    let read = answer::list(data, |of, given| {
        let (what, id) = match given {
            Given::Device { resource, id } => (resource, Some(id)),
            Given::Dynamic { driver } => (driver, None),
        };
        ours.push([of.namespace, of.pod, of.container, what, id.unwrap_or("-")].map(str::to_owned));
        take_apart(what, id.unwrap_or_default());
    });
    if let Ok(list) = List::decode(data) {
        assert_eq!(read.is_ok(), list.pods.len() <= MOST_PODS, "{read:?}");
        if read.is_ok() {
            assert_eq!(ours, known(&list));
        }
    }

    let mut ours = Vec::new();
    let read = answer::allocatable(data, |resource, id| ours.push((resource.to_owned(), id.to_owned())));
    if let Ok(all) = Allocatable::decode(data) {
        assert_eq!(read, Ok(()));
        let each = |devices: Devices| devices.ids.into_iter().map(move |id| (devices.resource.clone(), id));
        assert_eq!(ours, all.devices.into_iter().flat_map(each).collect::<Vec<_>>());
    }

    let text = String::from_utf8_lossy(data);
    take_apart("nvidia.com/gpu", &text);
    take_apart("rdma/hca", &text);
});

fn known(list: &List) -> Vec<[String; 5]> {
    let mut all = Vec::new();
    for pod in &list.pods {
        for container in &pod.containers {
            let mut put = |what: &str, id: &str| {
                all.push([&*pod.namespace, &*pod.name, &*container.name, what, id].map(str::to_owned));
            };
            for devices in &container.devices {
                devices.ids.iter().for_each(|id| put(&devices.resource, id));
            }
            for claimed in container.dynamic.iter().flat_map(|dynamic| &dynamic.claimed) {
                put(&claimed.driver, "-");
            }
        }
    }
    all
}

/// Put together again, an id is the same but for zeros in front of numbers.
fn take_apart(resource: &str, id: &str) {
    let Some(DeviceId { base, replica }) = DeviceId::parse(resource, id) else { return };
    let base = match base {
        Base::Uuid(uuid) => uuid.into(),
        Base::OldMig(uuid, gi, ci) => format!("MIG-{uuid}/{gi}/{ci}"),
        Base::Minor(minor, None) => format!("nvidia{minor}"),
        Base::Minor(minor, Some(gi)) => format!("nvidia{minor}/gi{gi}"),
        Base::Index(index) => index.to_string(),
    };
    let again = match replica {
        Some(replica) if id.contains("/vgpu") => format!("{base}/vgpu{replica}"),
        Some(replica) => format!("{base}::{replica}"),
        None => base,
    };
    let plain = |text: &str| text.replace('0', "");
    assert_eq!(plain(&again), plain(id));
    assert_eq!(DeviceId::parse(resource, &again), DeviceId::parse(resource, id));
}
