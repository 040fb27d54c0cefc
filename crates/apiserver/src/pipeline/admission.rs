//! The admit stage: policies that look at objects. Two are static: a namespace's life cycle, and what a node may touch.

use quorate_api::{Cause, GroupVersionResource, Status, StatusDetails};
use quorate_registry::{Subresource, Verb};
use quorate_store::Consistency;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::metadata;
use crate::pipeline::commit::Guard;
use crate::pipeline::{Operation, read};

pub(crate) const NAMESPACES: GroupVersionResource = GroupVersionResource::from_static("", "v1", "namespaces");
const PODS: GroupVersionResource = GroupVersionResource::from_static("", "v1", "pods");

/// The namespaces that the system lives in; they cannot be deleted.
pub const SYSTEM_NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];

/// Admits a creation. The guards keep what was judged from changing before the commit.
///
/// # Errors
/// `NotFound` without the namespace, `Forbidden` while it goes away or for another node's objects.
pub(crate) async fn create(operation: &Operation, object: &Value) -> Result<Option<Guard>, Status> {
    restrict_node(operation, object)?;
    let Some(namespace) = &operation.target.namespace else { return Ok(None) };
    let Ok(served) = operation.api.catalog().find("", "v1", &NAMESPACES.resource).cloned() else {
        return Ok(None);
    };
    let key = served.key(None, namespace);
    let store = operation.api.store();
    let mut found = read::key(store, &key, Consistency::Local).await?;
    if found.as_ref().is_none_or(|kv| is_terminating(&kv.value)) {
        // This member may lag.
        found = read::key(store, &key, Consistency::Linearizable).await?;
    }
    let found = found.ok_or_else(|| Status::not_found(&NAMESPACES, namespace))?;
    if is_terminating(&found.value) {
        return Err(terminating(operation, object, namespace));
    }
    Ok(Some(Guard { key: found.key, revision: found.mod_revision }))
}

/// Admits a change of an existing object.
///
/// # Errors
/// `Forbidden`.
pub(crate) fn update(operation: &Operation, new: &Value, old: &Value) -> Result<(), Status> {
    restrict_node(operation, old)?;
    restrict_node(operation, new)?;
    keep_labels(operation, new, old)
}

/// Admits a deletion.
///
/// # Errors
/// `Forbidden`.
pub(crate) fn delete(operation: &Operation, object: &Value) -> Result<(), Status> {
    let resource = &operation.target.resource.descriptor.resource;
    let name = metadata::text(object, "name");
    if *resource == NAMESPACES && SYSTEM_NAMESPACES.contains(&name) {
        return Err(Status::forbidden(resource, name, "this namespace may not be deleted"));
    }
    restrict_node(operation, object)
}

/// A pod's labels decide which Services and controllers it belongs to, so a node does not change them with the status.
fn keep_labels(operation: &Operation, new: &Value, old: &Value) -> Result<(), Status> {
    let Some(node) = operation.user.node() else { return Ok(()) };
    let target = &operation.target;
    let resource = &target.resource.descriptor.resource;
    let is_pod_status = *resource == PODS && target.subresource == Some(Subresource::Status);
    if !is_pod_status || metadata::of(new).get("labels") == metadata::of(old).get("labels") {
        return Ok(());
    }
    let why = format!("node \"{node}\" cannot update labels through pod status");
    Err(Status::forbidden(resource, target.name(), &why))
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

/// A node's agent touches its own node and lease, and the pods that run on it.
fn restrict_node(operation: &Operation, object: &Value) -> Result<(), Status> {
    let Some(node) = operation.user.node() else { return Ok(()) };
    let resource = &operation.target.resource.descriptor.resource;
    let name = metadata::text(object, "name");
    let refuse = |why: String| Err(Status::forbidden(resource, name, &why));
    match (resource.group.as_ref(), resource.resource.as_ref()) {
        ("", "nodes") | ("coordination.k8s.io", "leases") if name != node => {
            refuse(format!("node \"{node}\" is not allowed to modify {} \"{name}\"", resource.resource))
        }
        ("", "pods") if object["spec"]["nodeName"].as_str() != Some(node) => {
            let verb = if operation.target.verb == Verb::Delete { "delete pods" } else { "update pod status" };
            refuse(format!("node \"{node}\" can only {verb} for pods with spec.nodeName set to itself"))
        }
        _ => Ok(()),
    }
}
