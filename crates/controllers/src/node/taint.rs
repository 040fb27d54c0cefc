//! A node's taints, derived from its conditions for the scheduler and for eviction.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::health::condition;
use super::zone::Turn;
use crate::plan::Action;
use crate::resource::{NODES, target, to_json};

pub(super) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(super) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
pub(super) const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions and the taints that exist while they are True.
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

/// Change to make to a node's taints.
#[derive(Default)]
pub(super) struct Update {
    /// Patch that brings the taints in line with the conditions, if they differ.
    pub patch: Option<Action>,
    /// Time until it is the node's turn to get its eviction taint.
    pub requeue_after: Option<Duration>,
}

/// Computes the change to a node's taints. Without any healthy node (`is_any_healthy`), no node gets an eviction taint.
/// `turn` is called for a failed node that has no eviction taint yet.
pub(super) fn update(
    node: &Node,
    now: Timestamp,
    is_any_healthy: impl Fn() -> bool,
    turn: impl Fn() -> Turn,
) -> Update {
    let present = taints(node);
    let (wanted, requeue_after) = wanted(node, is_any_healthy, turn);
    let is_wanted = |taint: &Taint| wanted.iter().any(|(key, effect)| taint.key == *key && taint.effect == *effect);
    let mut result: Vec<Taint> =
        present.iter().filter(|taint| !is_managed(&taint.key) || is_wanted(taint)).cloned().collect();
    for taint in result.iter_mut().filter(|taint| taint.effect == NO_EXECUTE && taint.time_added.is_none()) {
        // Toleration times count from `timeAdded`.
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
        return Update { patch: None, requeue_after };
    }
    let list = if result.is_empty() { Value::Null } else { result.iter().map(to_json).collect() };
    let patch = Action::Patch {
        target: target(NODES, &node.metadata),
        subresource: None,
        patch: json!({
            "metadata": {"resourceVersion": node.metadata.resource_version},
            "spec": {"taints": list},
        }),
        guards: Vec::new(),
    };
    Update { patch: Some(patch), requeue_after }
}

fn is_managed(key: &str) -> bool {
    [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&key) || PRESSURES.iter().any(|(_, taint)| *taint == key)
}

/// Returns the managed taints that the node should have, by key and effect, and the time until its turn.
fn wanted(
    node: &Node,
    is_any_healthy: impl Fn() -> bool,
    turn: impl Fn() -> Turn,
) -> (Vec<(&'static str, &'static str)>, Option<Duration>) {
    let mut wanted = Vec::new();
    let mut requeue_after = None;
    let trouble = match condition(node, "Ready") {
        Some("True") => None,
        Some("Unknown") => Some(UNREACHABLE),
        _ => Some(NOT_READY),
    };
    if let Some(key) = trouble {
        wanted.push((key, NO_SCHEDULE));
        let is_tainted = no_execute(node).any(|taint| taint.key == NOT_READY || taint.key == UNREACHABLE);
        // A node that has never reported has no pods to evict.
        let is_due = match condition(node, "Ready") {
            None => false,
            Some(_) if is_tainted => is_any_healthy(),
            Some(_) => match turn() {
                Turn::Now => true,
                Turn::In(wait) => {
                    requeue_after = Some(wait);
                    false
                }
                Turn::Never => false,
            },
        };
        if is_due {
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
    (wanted, requeue_after)
}
