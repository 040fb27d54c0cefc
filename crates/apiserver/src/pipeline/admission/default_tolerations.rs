//! Tolerations of failed nodes, so that each pod shows how long it stays on one (upstream's DefaultTolerationSeconds).

use serde_json::{Value, json};

use super::is_pod;
use crate::pipeline::Operation;

/// Taints of a failed node.
pub(super) const FAILED: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const NO_EXECUTE: &str = "NoExecute";

/// Adds the tolerations to a new pod, and to a changed one whose client has replaced the list.
pub(super) fn mutate(operation: &Operation, pod: &mut Value) {
    if !is_pod(operation) {
        return;
    }
    let seconds = operation.api.pod_defaults().toleration_seconds();
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let tolerations = spec.entry("tolerations").or_insert(Value::Null);
    if tolerations.is_null() {
        *tolerations = json!([]);
    }
    let Some(tolerations) = tolerations.as_array_mut() else { return };
    for taint in FAILED {
        let is_unset_or =
            |field: &Value, value: &str| field.as_str().is_none_or(|field| field.is_empty() || field == value);
        let is_tolerated = |toleration: &Value| {
            is_unset_or(&toleration["key"], taint) && is_unset_or(&toleration["effect"], NO_EXECUTE)
        };
        if !tolerations.iter().any(is_tolerated) {
            tolerations.push(json!({"key": taint, "operator": "Exists", "effect": NO_EXECUTE,
                "tolerationSeconds": seconds}));
        }
    }
}
