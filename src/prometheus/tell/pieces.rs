//! A request of a single data point, with the metric, scope and resource it stands in.

use crate::pdata::common::{ResourceGroup, ScopeGroup};
use crate::pdata::fields::{metric, metric_data, request, resource_group, scope_group};
use crate::pdata::metrics::Metric;
use crate::pdata::wire::{WireError, put_bytes, put_tag, put_varint};

/// The encoded request. What stands above the point is copied byte for byte: state is kept by it.
///
/// # Errors
/// A part cannot be read.
pub fn one_point(
    group: ResourceGroup<'_>,
    scope: ScopeGroup<'_>,
    of: &Metric<'_>,
    point: &[u8],
) -> Result<Vec<u8>, WireError> {
    let mut data = Vec::new();
    put_bytes(&mut data, metric_data::DATA_POINTS, point);
    put_number(&mut data, metric_data::AGGREGATION_TEMPORALITY, i64::from(of.temporality) as u64);
    put_number(&mut data, metric_data::IS_MONOTONIC, u64::from(of.monotonic));

    let mut one = Vec::new();
    put_bytes(&mut one, metric::NAME, of.name);
    put_bytes(&mut one, metric::DESCRIPTION, of.description);
    put_bytes(&mut one, metric::UNIT, of.unit);
    for pair in of.metadata().messages() {
        put_bytes(&mut one, metric::METADATA, pair?);
    }
    put_bytes(&mut one, of.kind.field(), &data);

    let mut scopes = Vec::new();
    for message in scope.scopes() {
        put_bytes(&mut scopes, scope_group::SCOPE, message?);
    }
    put_bytes(&mut scopes, scope_group::ITEMS, &one);
    put_bytes(&mut scopes, scope_group::SCHEMA_URL, scope.schema_url()?);

    let mut resources = Vec::new();
    for message in group.resources() {
        put_bytes(&mut resources, resource_group::RESOURCE, message?);
    }
    put_bytes(&mut resources, resource_group::SCOPES, &scopes);
    put_bytes(&mut resources, resource_group::SCHEMA_URL, group.schema_url()?);

    let mut out = Vec::new();
    put_bytes(&mut out, request::GROUPS, &resources);
    Ok(out)
}

fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        put_tag(out, number, 0);
        put_varint(out, value);
    }
}
