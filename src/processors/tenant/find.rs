//! Looking into messages and clients for what may name a tenant.

use smallvec::SmallVec;

use super::config::CertificateName;
use crate::pdata::ClientInfo;
use crate::pdata::common::{AnyValue, Messages, ResourceGroup, pair};
use crate::pdata::wire::{Cursor, WireError};
use crate::relabel::Labels;

/// Values found in one message, by source.
pub(super) type Found<'a> = SmallVec<[Option<&'a [u8]>; 8]>;

/// The first value of a key in the occurrences of a message.
pub(super) fn last<'a>(
    messages: Messages<'a>,
    number: u32,
    key: &[u8],
) -> Result<Option<&'a [u8]>, WireError> {
    let mut found: Found<'a> = SmallVec::from_elem(None, 1);
    for message in messages {
        scan(message?, number, &mut found, std::iter::once(Some(key)))?;
    }
    Ok(found.first().copied().flatten())
}

/// Looks for attributes of these keys: the first of each, as an encoded `AnyValue`.
#[inline]
pub(super) fn scan<'a, 'k>(
    message: &'a [u8],
    number: u32,
    found: &mut Found<'a>,
    keys: impl Iterator<Item = Option<&'k [u8]>> + Clone,
) -> Result<(), WireError> {
    let mut fields = Cursor::new(message);
    while let Some(field) = fields.next_field()? {
        if field.number != number {
            continue;
        }
        let message = field.value.bytes()?;
        // What every encoder writes: the key first, no longer than 127 bytes.
        let plain = match message {
            [0x0a, len @ ..=0x7f, rest @ ..] => rest.get(..usize::from(*len)),
            _ => None,
        };
        let key = match plain {
            Some(key) => key,
            None => pair(message)?.0,
        };
        for (place, wanted) in found.iter_mut().zip(keys.clone()) {
            if wanted.is_some_and(|wanted| wanted == key) && place.is_none() {
                *place = value_of(message)?;
            }
        }
    }
    Ok(())
}

/// The value of a `KeyValue`, as it stands there.
fn value_of(message: &[u8]) -> Result<Option<&[u8]>, WireError> {
    let mut value = None;
    let mut fields = Cursor::new(message);
    while let Some(field) = fields.next_field()? {
        if field.number == 2 {
            value = Some(field.value.bytes()?);
        }
    }
    Ok(value)
}

/// A name in the certificate that a client has.
pub(super) fn certificate(client: &ClientInfo, name: CertificateName) -> Option<&str> {
    let certificate = client.certificate.as_deref()?;
    match name {
        CertificateName::CommonName => certificate.common_name.as_deref(),
        CertificateName::Organization => certificate.organization.as_deref(),
        CertificateName::OrganizationalUnit => certificate.organizational_unit.as_deref(),
        CertificateName::DnsName => certificate.dns_names.first().map(String::as_str),
        CertificateName::Uri => certificate.uris.first().map(String::as_str),
    }
}

/// What relabelling rules get.
pub(super) fn labels(client: &ClientInfo, group: Option<ResourceGroup<'_>>) -> Result<Labels, WireError> {
    let mut labels = Labels::default();
    let word = |prefix: &str, name: &str| {
        let plain = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' });
        format!("__{prefix}_{}", plain.collect::<String>())
    };
    for (key, values) in &client.metadata {
        labels.set(&word("metadata", key), values.join(";"));
    }
    for (key, value) in &client.auth {
        labels.set(&word("auth", key), value.as_str());
    }
    for name in CertificateName::ALL {
        labels.set(&word("certificate", name.word()), certificate(client, name).unwrap_or_default());
    }
    let Some(group) = group else { return Ok(labels) };
    for attribute in group.attributes() {
        let (key, value) = attribute?;
        let (Ok(key), Some(value)) = (std::str::from_utf8(key), label_value(value)) else { continue };
        label_resource(&mut labels, key, value);
    }
    Ok(labels)
}

/// What rules see of an attribute of the resource. Of a key that stands twice the first counts.
pub(super) fn label_resource(labels: &mut Labels, key: &str, value: String) {
    let name = format!("resource.{key}");
    if labels.get(&name).is_empty() {
        labels.set(&name, value);
    }
}

/// A value as a label has it; `None` for lists, maps and bytes.
fn label_value(value: AnyValue<'_>) -> Option<String> {
    match value {
        AnyValue::Str(text) => Some(String::from_utf8_lossy(text).into_owned()),
        AnyValue::Bool(yes) => Some(yes.to_string()),
        AnyValue::Int(number) => Some(number.to_string()),
        AnyValue::Double(number) => Some(number.to_string()),
        _ => None,
    }
}
