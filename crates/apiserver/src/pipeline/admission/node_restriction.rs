//! Limits the objects that a node's agent may write, where the decision needs the object (upstream's NodeRestriction).

use std::collections::BTreeSet;

use quorate_api::Status;
use quorate_registry::{Subresource, node_labels};
use serde_json::Value;

use super::{Action, Attributes};
use crate::metadata;

/// Admits a write of a node's agent. Writes of other users pass unchecked.
///
/// # Errors
/// `Forbidden` for objects of another node, and for fields that no node may set.
pub(super) fn validate(attributes: &Attributes<'_>) -> Result<(), Status> {
    let Some(node) = attributes.operation.user.node() else { return Ok(()) };
    let resource = attributes.resource();
    let verdict = match (resource.group.as_ref(), resource.resource.as_ref()) {
        ("", "nodes") => own_node(attributes, node),
        ("", "pods") => own_pod(attributes, node),
        ("coordination.k8s.io", "leases") => own_lease(attributes, node),
        _ => Ok(()),
    };
    verdict.map_err(|why| attributes.refuse(&why))
}

fn own_node(attributes: &Attributes<'_>, node: &str) -> Result<(), String> {
    let name = attributes.name();
    if name != node {
        return Err(format!("node \"{node}\" is not allowed to modify node \"{name}\""));
    }
    let (old, new) = (attributes.old.unwrap_or(&Value::Null), attributes.new);
    let forbidden: Vec<&str> =
        changed_labels(new, old).into_iter().filter(|key| !node_labels::agent_may_set(key)).collect();
    match attributes.action {
        Action::Create if !forbidden.is_empty() => {
            Err(format!("node \"{node}\" is not allowed to set the following labels: {}", forbidden.join(", ")))
        }
        Action::Update if !forbidden.is_empty() => {
            Err(format!("is not allowed to modify labels: {}", forbidden.join(", ")))
        }
        Action::Update if is_changed(&new["spec"]["taints"], &old["spec"]["taints"]) => {
            Err(format!("node \"{node}\" is not allowed to modify taints"))
        }
        Action::Update if is_changed(owners(new), owners(old)) => {
            Err(format!("node \"{node}\" is not allowed to modify ownerReferences"))
        }
        _ => Ok(()),
    }
}

fn own_pod(attributes: &Attributes<'_>, node: &str) -> Result<(), String> {
    let is_own = |pod: &Value| pod["spec"]["nodeName"].as_str() == Some(node);
    if !is_own(attributes.new) || attributes.old.is_some_and(|old| !is_own(old)) {
        let verb = match attributes.action {
            Action::Delete => "delete pods",
            Action::Create => "create pods",
            Action::Update => "update pod status",
        };
        return Err(format!("node \"{node}\" can only {verb} for pods with spec.nodeName set to itself"));
    }
    let is_status = attributes.operation.target.subresource == Some(Subresource::Status);
    if let Some(old) = attributes.old.filter(|_| is_status)
        && is_changed(label_map(attributes.new), label_map(old))
    {
        return Err(format!("node \"{node}\" cannot update labels through pod status"));
    }
    Ok(())
}

/// Admits a lease only if its node is its sole owner, so that it is deleted with the node.
fn own_lease(attributes: &Attributes<'_>, node: &str) -> Result<(), String> {
    let name = attributes.name();
    if name != node {
        return Err(format!("node \"{node}\" is not allowed to modify lease \"{name}\""));
    }
    let is_node = |owner: &Value| owner["apiVersion"] == "v1" && owner["kind"] == "Node" && owner["name"] == node;
    let is_foreign = owners(attributes.new).as_array().is_some_and(|owners| !owners.iter().all(is_node));
    let is_new = attributes.old.is_none_or(|old| is_changed(owners(attributes.new), owners(old)));
    if attributes.action != Action::Delete && is_foreign && is_new {
        return Err(format!("node \"{node}\" can only make its own Node the owner of its lease"));
    }
    Ok(())
}

fn owners(object: &Value) -> &Value {
    &object["metadata"]["ownerReferences"]
}

fn label_map(object: &Value) -> &Value {
    &object["metadata"]["labels"]
}

/// Returns whether two values differ, where absent and empty count as equal.
fn is_changed(new: &Value, old: &Value) -> bool {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    new != old && !(is_empty(new) && is_empty(old))
}

/// Returns the keys of labels that are added, changed or removed.
fn changed_labels<'a>(new: &'a Value, old: &'a Value) -> BTreeSet<&'a str> {
    let labels = |object: &'a Value| metadata::of(object).get("labels").and_then(Value::as_object);
    let (new, old) = (labels(new), labels(old));
    let value = |labels: Option<&'a serde_json::Map<String, Value>>, key: &str| labels?.get(key).cloned();
    let keys = new.into_iter().chain(old).flat_map(|labels| labels.keys());
    keys.filter(|key| value(new, key) != value(old, key)).map(String::as_str).collect()
}
