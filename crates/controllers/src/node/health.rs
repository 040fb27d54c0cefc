//! A node's conditions, and their change to Unknown when the node is silent.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::plan::{Action, EventType};
use crate::resource::{NODES, event, name, target, to_json};

/// Conditions that the agent reports, and that are unknown once it is silent.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// Returns the status (`True`, `False`, `Unknown`) of a condition; `None` when the node has no such condition.
pub(super) fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a str> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == type_).map(|condition| condition.status.as_str())
}

pub(super) fn is_ready(node: &Node) -> bool {
    condition(node, "Ready") == Some("True")
}

/// Sets the conditions of a silent node to Unknown; `None` when they are Unknown already.
pub(super) fn declare_unknown(node: &Node, now: Timestamp) -> Option<Vec<Action>> {
    if REPORTED.iter().all(|type_| condition(node, type_) == Some("Unknown")) {
        return None;
    }
    let was_ready = is_ready(node);
    let mut object = node.clone();
    let conditions = object.status.get_or_insert_default().conditions.get_or_insert_default();
    for type_ in REPORTED {
        match conditions.iter_mut().find(|condition| condition.type_ == type_) {
            Some(condition) if condition.status == "Unknown" => {}
            Some(condition) => {
                condition.status = "Unknown".to_owned();
                condition.reason = Some("NodeStatusUnknown".to_owned());
                condition.message = Some("Kubelet stopped posting node status.".to_owned());
                condition.last_transition_time = Some(Time(now));
            }
            None => conditions.push(NodeCondition {
                type_: type_.to_owned(),
                status: "Unknown".to_owned(),
                reason: Some("NodeStatusNeverUpdated".to_owned()),
                message: Some("Kubelet never posted node status.".to_owned()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(Time(now)),
            }),
        }
    }
    let mut actions = vec![Action::Update {
        target: target(NODES, &node.metadata),
        subresource: Some("status"),
        object: to_json(&object),
    }];
    if was_ready {
        let message = format!("Node {} status is now: NodeNotReady", name(&node.metadata));
        actions.push(event(node, EventType::Normal, "NodeNotReady", message));
    }
    Some(actions)
}
