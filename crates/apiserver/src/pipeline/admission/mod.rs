//! The admit stage: policies that check each attempt to write an object.
//!
//! Three policies are built in: the namespace life cycle, the node restriction, and the removal of a worker's machine row
//! with its Node. Their [`Effects`] join the object's own transaction: the guards keep what the policy has read from
//! changing before the commit, and the writes take effect with the object's.

use quorate_api::{Cause, GroupVersionResource, Revision, Status, StatusDetails};
use quorate_registry::{Subresource, Verb};
use quorate_store::Consistency;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::join;
use crate::metadata;
use crate::pipeline::commit::{Effects, Guard, Write};
use crate::pipeline::{Operation, node_restriction, read};

pub(crate) const NAMESPACES: GroupVersionResource = GroupVersionResource::from_static("", "v1", "namespaces");
const NODES: GroupVersionResource = GroupVersionResource::from_static("", "v1", "nodes");

/// The system's namespaces, which cannot be deleted.
pub const SYSTEM_NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];

/// The operation that a request performs on an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Create,
    Update,
    Delete,
}

/// One attempt to write, as the policies see it.
pub(crate) struct Attributes<'a> {
    pub operation: &'a Operation,
    pub action: Action,
    /// The stored object; `None` for a creation.
    pub old: Option<&'a Value>,
    /// The object as it would be written; for a deletion, its last state.
    pub new: &'a Value,
}

impl Attributes<'_> {
    pub fn resource(&self) -> &GroupVersionResource {
        &self.operation.target.resource.descriptor.resource
    }

    pub fn name(&self) -> &str {
        metadata::text(self.new, "name")
    }

    pub fn refuse(&self, why: &str) -> Status {
        Status::forbidden(self.resource(), self.name(), why)
    }
}

/// Admits a write.
///
/// # Errors
/// `Forbidden` from most policies, `NotFound` for an object without its namespace.
pub(crate) async fn admit(operation: &Operation, old: Option<&Value>, new: &Value) -> Result<Effects, Status> {
    let action = match (operation.target.verb, operation.target.subresource) {
        (Verb::Delete | Verb::DeleteCollection, _) | (_, Some(Subresource::Eviction)) => Action::Delete,
        _ if old.is_none() => Action::Create,
        _ => Action::Update,
    };
    let attributes = Attributes { operation, action, old, new };
    node_restriction::admit(&attributes)?;
    protect_system_namespaces(&attributes)?;
    namespace_lifecycle(&attributes).await
}

/// Returns what the removal of an object removes with it. A worker whose Node is removed can no longer renew its
/// certificates, because its machine row goes in the same transaction.
///
/// # Errors
/// Errors of the store.
pub(crate) async fn removal(operation: &Operation, object: &Value) -> Result<Effects, Status> {
    if operation.target.resource.descriptor.resource != NODES {
        return Ok(Effects::default());
    }
    let row = join::machine_row(metadata::text(object, "name"));
    let found = read::key(operation.api.store(), &row, Consistency::Local).await?;
    // A machine may join at the same time, so an absent row has a guard too.
    let revision = found.as_ref().map_or(Revision::ZERO, |found| found.mod_revision);
    let guards = vec![Guard { key: row.into(), revision }];
    Ok(Effects { guards, writes: found.into_iter().map(|found| Write::Delete { key: found.key }).collect() })
}

fn protect_system_namespaces(attributes: &Attributes<'_>) -> Result<(), Status> {
    let is_deletion = attributes.action == Action::Delete;
    if is_deletion && *attributes.resource() == NAMESPACES && SYSTEM_NAMESPACES.contains(&attributes.name()) {
        return Err(attributes.refuse("this namespace may not be deleted"));
    }
    Ok(())
}

/// Refuses creations in a namespace that does not exist or is being deleted.
async fn namespace_lifecycle(attributes: &Attributes<'_>) -> Result<Effects, Status> {
    let operation = attributes.operation;
    let Some(namespace) = operation.target.namespace.as_ref().filter(|_| attributes.action == Action::Create) else {
        return Ok(Effects::default());
    };
    let Ok(served) = operation.api.catalog().find("", "v1", &NAMESPACES.resource).cloned() else {
        return Ok(Effects::default());
    };
    let key = served.key(None, namespace);
    let store = operation.api.store();
    let mut found = read::key(store, &key, Consistency::Local).await?;
    if found.as_ref().is_none_or(|kv| is_terminating(&kv.value)) {
        // This member may lag, so an absent namespace is read again linearizably.
        found = read::key(store, &key, Consistency::Linearizable).await?;
    }
    let found = found.ok_or_else(|| Status::not_found(&NAMESPACES, namespace))?;
    if is_terminating(&found.value) {
        return Err(terminating(operation, attributes.new, namespace));
    }
    let unchanged = Guard { key: found.key, revision: found.mod_revision };
    Ok(Effects { guards: vec![unchanged], writes: Vec::new() })
}

fn is_terminating(namespace: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Object {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        deletion_timestamp: Option<IgnoredAny>,
    }
    serde_json::from_slice::<Object>(namespace).is_ok_and(|o| o.metadata.deletion_timestamp.is_some())
}

fn terminating(operation: &Operation, object: &Value, namespace: &str) -> Status {
    let resource = &operation.target.resource.descriptor.resource;
    let name = metadata::text(object, "name");
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let cause = Cause {
        reason: "NamespaceTerminating".to_owned(),
        message: format!("namespace {namespace} is being terminated"),
        field: "metadata.namespace".to_owned(),
    };
    Status::forbidden(resource, name, &why).with_details(StatusDetails {
        name: name.to_owned(),
        group: resource.group.to_string(),
        kind: resource.resource.to_string(),
        causes: vec![cause],
        ..StatusDetails::default()
    })
}
