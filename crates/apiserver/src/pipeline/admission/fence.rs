//! The cluster's fence, for pods that set none.

use quorate_api::fence;
use serde_json::{Value, json};

use super::is_pod;
use crate::metadata;
use crate::pipeline::Operation;

/// Writes the cluster's fence into a new pod, so that it is visible and never changes.
pub(super) fn mutate(operation: &Operation, pod: &mut Value) {
    let Some(after) = operation.api.pod_defaults().fence_after.filter(|_| is_pod(operation)) else { return };
    let annotations = metadata::of_mut(pod).entry("annotations").or_insert(Value::Null);
    if annotations.is_null() {
        *annotations = json!({});
    }
    if annotations.get(fence::ANNOTATION).is_none() {
        annotations[fence::ANNOTATION] = json!(format!("{}s", after.as_secs()));
    }
}
