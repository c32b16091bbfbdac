//! What the kubelet answers, read from the bytes: who was given which devices.
//!
//! Only what is needed is read, and nothing is built from what is not: a message of empty pods costs no memory, however
//! many they are. Time is linear in the size of the message.
//!
//! ```text
//! ListPodResourcesResponse      1 pods    PodResources        1 name, 2 namespace, 3 containers
//! AllocatableResourcesResponse  1 devices ContainerResources  1 name, 2 devices, 5 dynamic resources
//!                                         ContainerDevices    1 resource name, 2 device ids
//!                                         DynamicResource     4 claim resources   ClaimResource  2 driver name
//! ```

use std::fmt;

use crate::pdata::wire::{Cursor, Field, WireError};

/// More pods than any node can have.
pub const MOST_PODS: usize = 16_384;

/// The container that an entry belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Container<'a> {
    /// The namespace.
    pub namespace: &'a str,
    /// The pod.
    pub pod: &'a str,
    /// The container.
    pub container: &'a str,
}

/// Something that a container was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given<'a> {
    /// A device of a device plugin.
    Device {
        /// What pods ask for, such as `nvidia.com/gpu`.
        resource: &'a str,
        /// The plugin's name of the device.
        id: &'a str,
    },
    /// Something allocated dynamically, which has no device id here.
    Dynamic {
        /// Such as `gpu.nvidia.com`.
        driver: &'a str,
    },
}

/// Why an answer cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is no protobuf, or another message.
    Wire(WireError),
    /// A name is not UTF-8.
    Text,
    /// More pods than a node can have.
    TooManyPods,
    /// More devices than a node can have.
    TooManyDevices,
}

impl From<WireError> for Fault {
    fn from(error: WireError) -> Self {
        Fault::Wire(error)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Wire(error) => error.fmt(f),
            Fault::Text => f.write_str("a name is not UTF-8"),
            Fault::TooManyPods => write!(f, "more than {MOST_PODS} pods"),
            Fault::TooManyDevices => f.write_str("more devices than a node can have"),
        }
    }
}

/// Calls `each` for everything that the containers of a `ListPodResourcesResponse` were given, in order.
///
/// # Errors
/// What is wrong with the message; `each` may have been called by then.
pub fn list<'a>(message: &'a [u8], mut each: impl FnMut(Container<'a>, Given<'a>)) -> Result<(), Fault> {
    let mut pods = 0usize;
    messages(message, 1, |pod| {
        pods += 1;
        if pods > MOST_PODS {
            return Err(Fault::TooManyPods);
        }
        let (name, namespace) = (string(pod, 1)?, string(pod, 2)?);
        messages(pod, 3, |container| {
            let of = Container { namespace, pod: name, container: string(container, 1)? };
            messages(container, 2, |devices| {
                ids(devices, |resource, id| each(of, Given::Device { resource, id }))
            })?;
            messages(container, 5, |dynamic| {
                messages(dynamic, 4, |claimed| {
                    each(of, Given::Dynamic { driver: string(claimed, 2)? });
                    Ok(())
                })
            })
        })
    })
}

/// Calls `each` with resource name and id of every device of an `AllocatableResourcesResponse`, in order.
///
/// # Errors
/// What is wrong with the message; `each` may have been called by then.
pub fn allocatable<'a>(message: &'a [u8], mut each: impl FnMut(&'a str, &'a str)) -> Result<(), Fault> {
    messages(message, 1, |devices| ids(devices, &mut each))
}

/// Resource name and ids of one `ContainerDevices`.
fn ids<'a>(devices: &'a [u8], mut each: impl FnMut(&'a str, &'a str)) -> Result<(), Fault> {
    let resource = string(devices, 1)?;
    messages(devices, 2, |id| {
        each(resource, text(id)?);
        Ok(())
    })
}

/// Every field of bytes with this number.
fn messages<'a>(
    message: &'a [u8],
    number: u32,
    mut each: impl FnMut(&'a [u8]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut cursor = Cursor::new(message);
    while let Some(field) = cursor.next_field()? {
        if field.number == number {
            each(field.value.bytes()?)?;
        }
    }
    Ok(())
}

/// The last string with this number, as protobuf has it: fields may stand in any order.
fn string(message: &[u8], number: u32) -> Result<&str, Fault> {
    let mut found = "";
    let mut cursor = Cursor::new(message);
    while let Some(Field { number: at, value, .. }) = cursor.next_field()? {
        if at == number {
            found = text(value.bytes()?)?;
        }
    }
    Ok(found)
}

fn text(bytes: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(bytes).map_err(|_| Fault::Text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct List {
        #[prost(message, repeated, tag = "1")]
        pods: Vec<Pod>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Pod {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(string, tag = "2")]
        namespace: String,
        #[prost(message, repeated, tag = "3")]
        containers: Vec<Of>,
        #[prost(int64, repeated, tag = "4")]
        cpu_ids: Vec<i64>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Of {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(message, repeated, tag = "2")]
        devices: Vec<Devices>,
        #[prost(message, repeated, tag = "5")]
        dynamic: Vec<Dynamic>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Devices {
        #[prost(string, tag = "1")]
        resource: String,
        #[prost(string, repeated, tag = "2")]
        ids: Vec<String>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Dynamic {
        #[prost(string, tag = "2")]
        claim_name: String,
        #[prost(message, repeated, tag = "4")]
        claimed: Vec<Claimed>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Claimed {
        #[prost(string, tag = "2")]
        driver: String,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Allocatable {
        #[prost(message, repeated, tag = "1")]
        devices: Vec<Devices>,
        #[prost(int64, repeated, tag = "2")]
        cpu_ids: Vec<i64>,
    }

    fn devices() -> impl Strategy<Value = Vec<Devices>> {
        let one = ("[a-z./]{0,9}", prop::collection::vec("\\PC{0,9}", 0..4));
        prop::collection::vec(one.prop_map(|(resource, ids)| Devices { resource, ids }), 0..4)
    }

    fn lists() -> impl Strategy<Value = List> {
        let claimed = "[a-z]{0,5}".prop_map(|driver| Claimed { driver });
        let dynamic = ("[a-z]{0,5}", prop::collection::vec(claimed, 0..3))
            .prop_map(|(claim_name, claimed)| Dynamic { claim_name, claimed });
        let of = ("\\PC{0,5}", devices(), prop::collection::vec(dynamic, 0..3))
            .prop_map(|(name, devices, dynamic)| Of { name, devices, dynamic });
        let pod = (
            "[a-z]{0,9}",
            "[a-z]{0,9}",
            prop::collection::vec(of, 0..3),
            prop::collection::vec(0i64..9, 0..3),
        );
        let pod = pod.prop_map(|(name, namespace, containers, cpu_ids)| Pod {
            name,
            namespace,
            containers,
            cpu_ids,
        });
        prop::collection::vec(pod, 0..4).prop_map(|pods| List { pods })
    }

    /// Everything in a list, in order, as text.
    fn known(list: &List) -> Vec<String> {
        let mut all = Vec::new();
        for (pod, of) in list.pods.iter().flat_map(|pod| pod.containers.iter().map(move |of| (pod, of))) {
            let owner = format!("{} {} {}", pod.namespace, pod.name, of.name);
            for devices in &of.devices {
                all.extend(devices.ids.iter().map(|id| format!("{owner} {} {id}", devices.resource)));
            }
            let claimed = of.dynamic.iter().flat_map(|dynamic| &dynamic.claimed);
            all.extend(claimed.map(|claimed| format!("{owner} by {}", claimed.driver)));
        }
        all
    }

    fn read(message: &[u8]) -> Result<Vec<String>, Fault> {
        let mut all = Vec::new();
        list(message, |of, given| {
            let owner = format!("{} {} {}", of.namespace, of.pod, of.container);
            all.push(match given {
                Given::Device { resource, id } => format!("{owner} {resource} {id}"),
                Given::Dynamic { driver } => format!("{owner} by {driver}"),
            });
        })?;
        Ok(all)
    }

    proptest! {
        #[test]
        fn a_list_means_what_prost_reads(of in lists()) {
            prop_assert_eq!(read(&of.encode_to_vec()), Ok(known(&of)));
        }

        #[test]
        fn so_does_what_there_is(devices in devices()) {
            let message = Allocatable { devices: devices.clone(), cpu_ids: vec![1, 2] }.encode_to_vec();
            let mut all = Vec::new();
            prop_assert_eq!(allocatable(&message, |resource, id| all.push(format!("{resource} {id}"))), Ok(()));
            let want = devices.iter().flat_map(|d| d.ids.iter().map(|id| format!("{} {id}", d.resource)));
            prop_assert_eq!(all, want.collect::<Vec<_>>());
        }

        #[test]
        fn damage_is_a_fault_or_another_message(of in lists(), at: prop::sample::Index, byte: u8) {
            let mut message = of.encode_to_vec();
            if !message.is_empty() {
                let at = at.index(message.len());
                message[at] = byte;
            }
            if let Ok(other) = List::decode(&message[..]) {
                prop_assert_eq!(read(&message), Ok(known(&other)));
            }
        }
    }

    #[test]
    fn names_may_come_after_what_they_name() {
        // Containers, then name and namespace; devices, then the container's name; an id, then the resource's.
        let devices = [b"\x12\x05GPU-1" as &[u8], b"\x0a\x01r"].concat();
        let container = [b"\x12\x0a" as &[u8], &devices, b"\x0a\x01c"].concat();
        let pod = [b"\x1a\x0f" as &[u8], &container, b"\x12\x01n\x0a\x01x\x0a\x01p"].concat();
        let message = [&[0x0a, pod.len() as u8] as &[u8], &pod].concat();
        assert_eq!(read(&message), Ok(vec!["n p c r GPU-1".to_owned()]));
    }

    #[test]
    fn faults_are_named() {
        assert_eq!(read(b"\x0a\x05\x0a"), Err(Fault::Wire(WireError::Truncated)));
        assert_eq!(read(b"\x08\x05"), Err(Fault::Wire(WireError::WrongType)));
        assert_eq!(read(b"\x0a\x03\x0a\x01\xff"), Err(Fault::Text));
        assert_eq!(read(&[0x0a, 0].repeat(MOST_PODS)), Ok(Vec::new()));
        assert_eq!(read(&[0x0a, 0].repeat(MOST_PODS + 1)), Err(Fault::TooManyPods));
        assert_eq!(allocatable(b"\x0a\x03\x12\x01\xff", |_, _| ()), Err(Fault::Text));
    }
}
