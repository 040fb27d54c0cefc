//! Runtime classes of pods: their overhead, and the nodes that support them (upstream's RuntimeClass).

use quorate_api::{GroupVersionResource, Status};
use serde_json::{Map, Value};

use super::{is_pod, policies, refuse};
use crate::pipeline::Operation;

const RUNTIME_CLASSES: GroupVersionResource = GroupVersionResource::from_static("node.k8s.io", "v1", "runtimeclasses");

/// Completes a new pod with what its runtime class says.
///
/// # Errors
/// `Forbidden` for an unknown class, and for a pod that contradicts its class; errors of the store.
pub(super) async fn mutate(operation: &Operation, pod: &mut Value) -> Result<(), Status> {
    if !is_pod(operation) || !pod["spec"].is_object() {
        return Ok(());
    }
    let reject = |pod: &Value, why: &str| Err(refuse(operation, pod, &format!("pod rejected: {why}")));
    let given = pod["spec"].get("overhead").filter(|overhead| !is_empty(overhead)).cloned();
    let Some(name) = pod["spec"]["runtimeClassName"].as_str().filter(|name| !name.is_empty()) else {
        return match given {
            Some(_) => reject(pod, "Pod Overhead set without corresponding RuntimeClass defined Overhead"),
            None => Ok(()),
        };
    };
    let class: Option<Value> = policies::find(operation.api.store(), &RUNTIME_CLASSES, name).await?;
    let Some(class) = class else {
        return reject(pod, &format!("RuntimeClass {name:?} not found"));
    };
    let overhead = &class["overhead"]["podFixed"];
    match given {
        Some(_) if is_empty(overhead) => {
            return reject(pod, "Pod Overhead set without corresponding RuntimeClass defined Overhead");
        }
        Some(given) if given != *overhead => {
            return reject(pod, "Pod's Overhead doesn't match RuntimeClass's defined Overhead");
        }
        None if !is_empty(overhead) => pod["spec"]["overhead"] = overhead.clone(),
        _ => {}
    }
    let selector = class["scheduling"]["nodeSelector"].as_object().cloned().unwrap_or_default();
    let mut merged = pod["spec"]["nodeSelector"].as_object().cloned().unwrap_or_default();
    for (label, value) in selector {
        if merged.get(&label).is_some_and(|own| *own != value) {
            return reject(pod, &format!("conflict: runtimeClass.scheduling.nodeSelector[{label}] = {value}"));
        }
        merged.insert(label, value);
    }
    if !merged.is_empty() {
        pod["spec"]["nodeSelector"] = Value::Object(merged);
    }
    let tolerations = class["scheduling"]["tolerations"].as_array().cloned().unwrap_or_default();
    let mut all = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
    for toleration in tolerations {
        if !all.contains(&toleration) {
            all.push(toleration);
        }
    }
    if !all.is_empty() {
        pod["spec"]["tolerations"] = Value::Array(all);
    }
    Ok(())
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_none_or(Map::is_empty)
}
