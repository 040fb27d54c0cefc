//! The admission stages: plugins that complete and check each attempt to write an object, one file each.
//!
//! [`mutate`] runs before validation and completes a new object. [`validate`] runs after it and refuses, or returns
//! [`Effects`] that join the object's own transaction: the guards keep what a plugin has read from changing before the
//! commit, and the writes take effect with the object's. These two functions are the list of the plugins in their order,
//! which is upstream's.

mod default_class;
mod default_tolerations;
mod fence;
mod limit_ranger;
mod machine;
mod namespace;
mod node_restriction;
mod node_taints;
mod owner_references;
pub(crate) mod pod_defaults;
mod policies;
pub(crate) mod priority;
mod resource_quota;
mod runtime_class;
mod service_account;
mod signing_request;

use quorate_api::{GroupVersionResource, Status};
use quorate_registry::{Subresource, Verb};
use serde_json::Value;

use crate::metadata;
use crate::pipeline::Operation;
use crate::pipeline::commit::Effects;

pub(crate) const NAMESPACES: GroupVersionResource = GroupVersionResource::from_static("", "v1", "namespaces");
const CLAIMS: GroupVersionResource = GroupVersionResource::from_static("", "v1", "persistentvolumeclaims");
const NODES: GroupVersionResource = GroupVersionResource::from_static("", "v1", "nodes");
pub(crate) const PODS: GroupVersionResource = GroupVersionResource::from_static("", "v1", "pods");

/// The system's namespaces, which cannot be deleted.
pub const SYSTEM_NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];

/// The operation that a request performs on an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Create,
    Update,
    Delete,
}

/// One attempt to write, as the plugins see it.
struct Attributes<'a> {
    operation: &'a Operation,
    action: Action,
    /// The stored object; `None` for a creation.
    old: Option<&'a Value>,
    /// The object as it would be written; for a deletion, its last state.
    new: &'a Value,
}

impl Attributes<'_> {
    fn resource(&self) -> &GroupVersionResource {
        &self.operation.target.resource.descriptor.resource
    }

    /// Returns the subresource; `None` for the object itself.
    fn subresource(&self) -> Option<Subresource> {
        self.operation.target.subresource
    }

    fn name(&self) -> &str {
        metadata::text(self.new, "name")
    }

    fn refuse(&self, why: &str) -> Status {
        refuse(self.operation, self.new, why)
    }
}

/// Completes an object that is being created.
///
/// # Errors
/// `Forbidden`; errors of the store.
pub(crate) async fn mutate(operation: &Operation, object: &mut Value) -> Result<(), Status> {
    limit_ranger::mutate(operation, object).await?;
    service_account::mutate(operation, object);
    signing_request::mutate(operation, object)?;
    node_taints::mutate(operation, object);
    priority::mutate(operation, object).await?;
    default_tolerations::mutate(operation, object);
    fence::mutate(operation, object);
    runtime_class::mutate(operation, object).await?;
    default_class::mutate(operation, object).await
}

/// Completes the successor of a stored object.
pub(crate) fn mutate_update(operation: &Operation, new: &mut Value, old: &Value) {
    priority::mutate_update(operation, new, old);
    signing_request::mutate_update(operation, new, old);
    default_tolerations::mutate(operation, new);
}

/// Admits a write.
///
/// # Errors
/// `Forbidden` from most plugins, `NotFound` for an object without its namespace; errors of the store.
pub(crate) async fn validate(operation: &Operation, old: Option<&Value>, new: &Value) -> Result<Effects, Status> {
    let action = match (operation.target.verb, operation.target.subresource) {
        (Verb::Delete | Verb::DeleteCollection, _) | (_, Some(Subresource::Eviction)) => Action::Delete,
        _ if old.is_none() => Action::Create,
        _ => Action::Update,
    };
    let attributes = Attributes { operation, action, old, new };
    namespace::protect(&attributes)?;
    let mut effects = namespace::lifecycle(&attributes).await?;
    limit_ranger::validate(&attributes).await?;
    node_restriction::validate(&attributes)?;
    priority::validate(&attributes).await?;
    owner_references::validate(&attributes).await?;
    // Quotas come last, because they charge only what nothing else refuses.
    effects.join(resource_quota::validate(&attributes).await?);
    Ok(effects)
}

/// Returns what the removal of an object removes with it.
///
/// # Errors
/// Errors of the store.
pub(crate) async fn removal(operation: &Operation, object: &Value) -> Result<Effects, Status> {
    machine::removal(operation, object).await
}

/// Returns the refusal of an object, which may not have its generated name yet.
fn refuse(operation: &Operation, object: &Value, why: &str) -> Status {
    let name = match metadata::text(object, "name") {
        "" => metadata::text(object, "generateName"),
        name => name,
    };
    Status::forbidden(&operation.target.resource.descriptor.resource, name, why)
}

/// Returns whether the request is about a pod itself, not a subresource of it.
fn is_pod(operation: &Operation) -> bool {
    operation.target.resource.descriptor.resource == PODS && operation.target.subresource.is_none()
}
