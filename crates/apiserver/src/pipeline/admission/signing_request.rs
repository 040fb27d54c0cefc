//! Certificate signing requests: the server says who asks, and when a condition changed. Signers trust both.

use jiff::Timestamp;
use quorate_api::GroupVersionResource;
use serde_json::{Value, json};

use crate::metadata;
use crate::pipeline::Operation;

const REQUESTS: GroupVersionResource =
    GroupVersionResource::from_static("certificates.k8s.io", "v1", "certificatesigningrequests");

/// Sets the user that makes a new request. The status of a new request is empty.
pub(super) fn mutate(operation: &Operation, request: &mut Value) {
    if operation.target.resource.descriptor.resource != REQUESTS {
        return;
    }
    let Some(spec) = request.get_mut("spec").and_then(Value::as_object_mut) else { return };
    for field in ["uid", "extra"] {
        spec.remove(field);
    }
    spec.insert("username".to_owned(), operation.user.name.as_str().into());
    spec.insert("groups".to_owned(), json!(operation.user.groups));
}

/// Sets the times of conditions that are new or have changed.
pub(super) fn mutate_update(operation: &Operation, new: &mut Value, old: &Value) {
    if operation.target.resource.descriptor.resource != REQUESTS {
        return;
    }
    let now = metadata::time(Timestamp::now());
    let known = old["status"]["conditions"].as_array();
    let conditions = new.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        let before = known.into_iter().flatten().find(|known| known["type"] == condition["type"]);
        let is_same_status = before.is_some_and(|before| before["status"] == condition["status"]);
        if condition["lastUpdateTime"].is_null() {
            condition["lastUpdateTime"] = now.as_str().into();
        }
        if condition["lastTransitionTime"].is_null() {
            condition["lastTransitionTime"] = match before.filter(|_| is_same_status) {
                Some(before) if !before["lastTransitionTime"].is_null() => before["lastTransitionTime"].clone(),
                _ => now.as_str().into(),
            };
        }
    }
}
