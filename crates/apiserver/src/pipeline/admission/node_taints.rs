//! The taint of new nodes (upstream's TaintNodesByCondition). Without it, pods could be bound to a node before its first
//! report. The node controller removes the taint when the node is ready.

use serde_json::{Value, json};

use super::NODES;
use crate::pipeline::Operation;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const NO_SCHEDULE: &str = "NoSchedule";

/// Taints a new node.
pub(super) fn mutate(operation: &Operation, node: &mut Value) {
    if operation.target.resource.descriptor.resource != NODES {
        return;
    }
    let taints = &mut node["spec"]["taints"];
    if taints.is_null() {
        *taints = json!([]);
    }
    let Some(taints) = taints.as_array_mut() else { return };
    if !taints.iter().any(|taint| taint["key"] == NOT_READY && taint["effect"] == NO_SCHEDULE) {
        taints.push(json!({"key": NOT_READY, "effect": NO_SCHEDULE}));
    }
}
