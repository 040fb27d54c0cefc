//! From a node's conditions to its taints, which tell the scheduler and the eviction what the conditions mean.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::health::condition;
use crate::plan::Action;
use crate::resource::{NODES, target, to_json};

pub(super) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(super) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
pub(super) const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Taints of conditions that stand when the condition is True.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];
const NO_SCHEDULE: &str = "NoSchedule";
const NO_EXECUTE: &str = "NoExecute";

pub(super) fn no_execute(node: &Node) -> impl Iterator<Item = &Taint> {
    taints(node).iter().filter(|taint| taint.effect == NO_EXECUTE)
}

pub(super) fn has_no_execute(node: &Node) -> bool {
    no_execute(node).next().is_some()
}

fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

/// The patch that brings the taints in line with the conditions, if they are not. When no node at all is ready, the
/// fault is more likely ours than theirs, and nobody is evicted.
pub(super) fn update(node: &Node, now: Timestamp, any_ready: impl Fn() -> bool) -> Option<Action> {
    let present = taints(node);
    let wanted = wanted(node, any_ready);
    let is_wanted = |taint: &Taint| wanted.iter().any(|(key, effect)| taint.key == *key && taint.effect == *effect);
    let mut result: Vec<Taint> =
        present.iter().filter(|taint| !is_managed(&taint.key) || is_wanted(taint)).cloned().collect();
    for taint in result.iter_mut().filter(|taint| taint.effect == NO_EXECUTE && taint.time_added.is_none()) {
        // Tolerations count from here.
        taint.time_added = Some(Time(now));
    }
    for (key, effect) in wanted {
        if !present.iter().any(|taint| taint.key == key && taint.effect == effect) {
            result.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                value: None,
                time_added: Some(Time(now)),
            });
        }
    }
    if result == present {
        return None;
    }
    let list = if result.is_empty() { Value::Null } else { result.iter().map(to_json).collect() };
    Some(Action::Patch {
        target: target(NODES, &node.metadata),
        subresource: None,
        patch: json!({
            "metadata": {"resourceVersion": node.metadata.resource_version},
            "spec": {"taints": list},
        }),
    })
}

fn is_managed(key: &str) -> bool {
    [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&key) || PRESSURES.iter().any(|(_, taint)| *taint == key)
}

/// The managed taints, by key and effect, that the node's state calls for.
fn wanted(node: &Node, any_ready: impl Fn() -> bool) -> Vec<(&'static str, &'static str)> {
    let mut wanted = Vec::new();
    let trouble = match condition(node, "Ready") {
        Some("True") => None,
        Some("Unknown") => Some(UNREACHABLE),
        _ => Some(NOT_READY),
    };
    if let Some(key) = trouble {
        wanted.push((key, NO_SCHEDULE));
        // A node that never reported yet has nothing to be evicted.
        if condition(node, "Ready").is_some() && any_ready() {
            wanted.push((key, NO_EXECUTE));
        }
    }
    for (type_, key) in PRESSURES {
        if condition(node, type_) == Some("True") {
            wanted.push((key, NO_SCHEDULE));
        }
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    wanted
}
