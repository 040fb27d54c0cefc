//! Reads of the objects that the plugins go by, such as limit ranges.

use quorate_api::{GroupVersionResource, ObjectKey, ResourcePrefix, Status};
use quorate_mvcc::{KeyRange, KeyValue, RangeRequest};
use quorate_store::{Consistency, Store};
use serde::de::DeserializeOwned;

use crate::error;
use crate::pipeline::read;

/// Reads all objects of a kind, in one namespace or in all.
///
/// A member may lag, so a plugin refuses on the newest state only. An object that this member does not have yet does not
/// exist for a plugin: upstream's informers lag as well.
///
/// # Errors
/// Errors of the store.
pub(super) async fn rows(
    store: &Store,
    resource: &GroupVersionResource,
    namespace: Option<&str>,
    consistency: Consistency,
) -> Result<Vec<KeyValue>, Status> {
    let prefix = ResourcePrefix {
        group: resource.group.to_string(),
        resource: resource.resource.to_string(),
        namespace: namespace.map(str::to_owned),
    };
    let request = RangeRequest::new(KeyRange::prefix(prefix.storage_prefix()));
    Ok(store.range(&request, consistency).await.map_err(|error| error::from_store(&error))?.kvs)
}

/// Reads and decodes all objects of a kind, in one namespace or in all.
///
/// # Errors
/// As [`rows`]; `InternalError` for an object that cannot be decoded, because a policy is never skipped.
pub(super) async fn list<T: DeserializeOwned>(
    store: &Store,
    resource: &GroupVersionResource,
    namespace: Option<&str>,
    consistency: Consistency,
) -> Result<Vec<T>, Status> {
    let rows = rows(store, resource, namespace, consistency).await?;
    rows.iter().map(|kv| decode(&kv.value)).collect()
}

/// Decodes an object, or the part of it that `T` names.
///
/// # Errors
/// `InternalError`.
pub(super) fn decode<T: DeserializeOwned>(value: &[u8]) -> Result<T, Status> {
    serde_json::from_slice(value)
        .map_err(|error| Status::internal(format!("a stored object cannot be decoded: {error}")))
}

/// Finds and decodes a cluster-scoped object. This member may lag, so an object that it does not have is read again
/// linearizably.
///
/// # Errors
/// As [`list`].
pub(super) async fn find<T: DeserializeOwned>(
    store: &Store,
    resource: &GroupVersionResource,
    name: &str,
) -> Result<Option<T>, Status> {
    let key = ObjectKey {
        group: resource.group.to_string(),
        resource: resource.resource.to_string(),
        namespace: None,
        name: name.to_owned(),
    };
    let key = key.storage_key();
    let mut found = read::key(store, &key, Consistency::Local).await?;
    if found.is_none() {
        found = read::key(store, &key, Consistency::Linearizable).await?;
    }
    found.map(|kv| decode(&kv.value)).transpose()
}
