//! `create` of a `v1 Binding`: assigns a pod to a node, once.

use jiff::Timestamp;
use quorate_api::{FieldError, FieldPath, Status};
use serde_json::{Value, json};

use crate::metadata;
use crate::pipeline::modify::{Change, Current, modify};
use crate::pipeline::{Operation, Written};

/// Assigns the target's pod to a node and returns the pod.
///
/// # Errors
/// `Conflict` when the pod already has a node, is gated, is being deleted, or has another uid; `Invalid` without a
/// node.
pub(crate) async fn bind(operation: &Operation, binding: Value) -> Result<Written, Status> {
    let target = &binding["target"];
    let node = target["name"].as_str().unwrap_or_default();
    let kind = target["kind"].as_str().unwrap_or_default();
    let mut errors = Vec::new();
    if !matches!(kind, "" | "Node") {
        let path = FieldPath::new("target").child("kind");
        errors.push(FieldError::not_supported(path, kind, &["Node", "<empty>"]));
    }
    if node.is_empty() {
        errors.push(FieldError::required(FieldPath::new("target").child("name"), ""));
    }
    if !errors.is_empty() {
        return Err(Status::invalid("", "Binding", operation.target.name(), &errors));
    }
    let now = Timestamp::now();
    modify(operation, |current| assign(operation, current, &binding, node, now)).await
}

fn assign(
    operation: &Operation,
    current: &Current,
    binding: &Value,
    node: &str,
    now: Timestamp,
) -> Result<Change, Status> {
    let name = operation.target.name();
    let resource = &operation.target.resource.descriptor.resource;
    let conflict = |why: String| {
        let mut status = Status::conflict(resource, name, &why);
        // Kubernetes' message names the subresource.
        status.message = format!("Operation cannot be fulfilled on {}/binding \"{name}\": {why}", resource.resource);
        Err(status)
    };
    let old = &current.object;
    let uid = metadata::text(binding, "uid");
    let actual = metadata::text(old, "uid");
    if !uid.is_empty() && uid != actual {
        return conflict(format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {actual}"));
    }
    if metadata::is_terminating(old) {
        return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    if let Some(assigned) = old["spec"]["nodeName"].as_str().filter(|n| !n.is_empty()) {
        return conflict(format!("pod {name} is already assigned to node \"{assigned}\""));
    }
    if old["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let mut new = old.clone();
    new["spec"]["nodeName"] = node.into();
    if let Some(annotations) = metadata::of(binding).get("annotations").and_then(Value::as_object) {
        let own = metadata::of_mut(&mut new).entry("annotations").or_insert_with(|| json!({}));
        for (key, value) in annotations {
            own[key] = value.clone();
        }
    }
    set_scheduled(&mut new, now);
    Ok(Change::Put(new))
}

fn set_scheduled(pod: &mut Value, now: Timestamp) {
    let condition = json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": metadata::time(now),
    });
    let conditions = &mut pod["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(list) = conditions.as_array_mut() else { return };
    match list.iter_mut().find(|c| c["type"] == "PodScheduled") {
        Some(existing) => *existing = condition,
        None => list.push(condition),
    }
}
