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
