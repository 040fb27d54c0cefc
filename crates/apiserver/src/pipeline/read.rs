//! Reads single objects.

use bytes::Bytes;
use quorate_api::{Reason, Revision, Status};
use quorate_mvcc::{KeyRange, KeyValue, RangeRequest};
use quorate_store::{Consistency, Store};

use crate::error;
use crate::route::Target;

/// Reads one key.
pub(crate) async fn key(store: &Store, key: &str, consistency: Consistency) -> Result<Option<KeyValue>, Status> {
    let request = RangeRequest::new(KeyRange::key(Bytes::copy_from_slice(key.as_bytes())));
    let response = store.range(&request, consistency).await.map_err(|e| error::from_store(&e))?;
    Ok(response.kvs.into_iter().next())
}

/// Returns the target's object, as fresh as `resourceVersion` asks: the newest when it is absent, this member's own
/// state for `0`, otherwise a state that is not older than that version.
///
/// # Errors
/// `NotFound`, or errors of the store.
pub(crate) async fn get(store: &Store, target: &Target, resource_version: Option<&str>) -> Result<KeyValue, Status> {
    let consistency = freshness(store, resource_version).await?;
    key(store, &target.key(), consistency).await?.ok_or_else(|| not_found(target))
}

pub(crate) fn not_found(target: &Target) -> Status {
    Status::not_found(&target.resource.descriptor.resource, target.name())
}

/// Waits until this member may serve a read that asks for `resource_version`.
///
/// # Errors
/// `Timeout` for a version that is not reached yet, `BadRequest` for text that is not a version.
pub(crate) async fn freshness(store: &Store, resource_version: Option<&str>) -> Result<Consistency, Status> {
    match resource_version {
        None => Ok(Consistency::Linearizable),
        Some("0") => Ok(Consistency::Local),
        Some(text) => {
            reach(store, parse(text)?).await?;
            Ok(Consistency::Local)
        }
    }
}

/// Waits until this member has applied `revision`.
///
/// # Errors
/// `Timeout` when the cluster has not reached the revision.
pub(crate) async fn reach(store: &Store, revision: Revision) -> Result<(), Status> {
    if store.revision() >= revision {
        return Ok(());
    }
    store.read_barrier().await.map_err(|e| error::from_store(&e))?;
    let current = store.revision();
    if current >= revision { Ok(()) } else { Err(error::too_large_resource_version(revision.0, current.0)) }
}

/// # Errors
/// Kubernetes' refusal of text that is not a resource version.
pub(crate) fn parse(resource_version: &str) -> Result<Revision, Status> {
    resource_version.parse().map_err(|_| {
        Status::new(
            Reason::Invalid,
            format!("resourceVersion: Invalid value: {resource_version:?}: strconv.ParseUint: parsing {resource_version:?}: invalid syntax"),
        )
    })
}
