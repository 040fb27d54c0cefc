//! The limit ranges of a namespace (upstream's LimitRanger).

use k8s_openapi::api::core::v1::{LimitRange, PersistentVolumeClaim, Pod};
use quorate_api::{GroupVersionResource, Status};
use quorate_registry::Subresource;
use quorate_registry::limit_range;
use quorate_store::Consistency;
use serde::Deserialize;
use serde_json::Value;

use super::{Action, Attributes, CLAIMS, PODS, is_pod, policies};
use crate::metadata;
use crate::pipeline::Operation;

const LIMIT_RANGES: GroupVersionResource = GroupVersionResource::from_static("", "v1", "limitranges");

/// Gives a new pod the defaults of its namespace.
///
/// # Errors
/// Errors of the store.
pub(super) async fn mutate(operation: &Operation, pod: &mut Value) -> Result<(), Status> {
    if is_pod(operation) {
        for range in ranges(operation, Consistency::Local).await? {
            limit_range::apply_defaults(&range, pod);
        }
    }
    Ok(())
}

/// Refuses pods and claims that do not keep the limits of their namespace.
///
/// # Errors
/// `Forbidden`; errors of the store.
pub(super) async fn validate(attributes: &Attributes<'_>) -> Result<(), Status> {
    let is_pod = *attributes.resource() == PODS;
    let is_checked = match (attributes.action, attributes.subresource()) {
        // The resources of a pod change through a subresource of their own.
        (Action::Create, None) | (Action::Update, Some(Subresource::Resize)) if is_pod => true,
        (Action::Create | Action::Update, None) => {
            *attributes.resource() == CLAIMS && !metadata::is_terminating(attributes.new)
        }
        _ => false,
    };
    if !is_checked {
        return Ok(());
    }
    let mut refused = None;
    for consistency in [Consistency::Local, Consistency::Linearizable] {
        let ranges = ranges(attributes.operation, consistency).await?;
        if ranges.is_empty() {
            return Ok(());
        }
        refused = if is_pod {
            let pod = Pod::deserialize(attributes.new).map_err(Status::internal)?;
            ranges.iter().find_map(|range| limit_range::refuses_pod(range, &pod))
        } else {
            let claim = PersistentVolumeClaim::deserialize(attributes.new).map_err(Status::internal)?;
            ranges.iter().find_map(|range| limit_range::refuses_claim(range, &claim))
        };
        if refused.is_none() {
            break;
        }
    }
    refused.map_or(Ok(()), |why| Err(attributes.refuse(&why)))
}

async fn ranges(operation: &Operation, consistency: Consistency) -> Result<Vec<LimitRange>, Status> {
    policies::list(operation.api.store(), &LIMIT_RANGES, operation.target.namespace.as_deref(), consistency).await
}
