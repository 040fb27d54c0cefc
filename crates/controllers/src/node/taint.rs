//! From a node's conditions to its taints, which tell the scheduler and the eviction what the conditions mean.

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

/// What the state of a node's taints calls for.
#[derive(Default)]
pub(super) struct Update {
    /// The patch that brings the taints in line with the conditions, if they are not.
    pub patch: Option<Action>,
    /// The wait for the node's turn to get its eviction taint.
    pub look_again: Option<Duration>,
}

/// `is_any_well`: when no node at all is well, nobody is evicted. `turn` is asked for a failed node that is not
/// tainted yet.
pub(super) fn update(node: &Node, now: Timestamp, is_any_well: impl Fn() -> bool, turn: impl Fn() -> Turn) -> Update {
    let present = taints(node);
    let (wanted, look_again) = wanted(node, is_any_well, turn);
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
        return Update { patch: None, look_again };
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
    Update { patch: Some(patch), look_again }
}

fn is_managed(key: &str) -> bool {
    [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&key) || PRESSURES.iter().any(|(_, taint)| *taint == key)
}

/// The managed taints, by key and effect, that the node's state calls for.
fn wanted(
    node: &Node,
    is_any_well: impl Fn() -> bool,
    turn: impl Fn() -> Turn,
) -> (Vec<(&'static str, &'static str)>, Option<Duration>) {
    let mut wanted = Vec::new();
    let mut look_again = None;
    let trouble = match condition(node, "Ready") {
        Some("True") => None,
        Some("Unknown") => Some(UNREACHABLE),
        _ => Some(NOT_READY),
    };
    if let Some(key) = trouble {
        wanted.push((key, NO_SCHEDULE));
        let is_tainted = no_execute(node).any(|taint| taint.key == NOT_READY || taint.key == UNREACHABLE);
        // A node that never reported yet has nothing to be evicted.
        let is_due = match condition(node, "Ready") {
            None => false,
            Some(_) if is_tainted => is_any_well(),
            Some(_) => match turn() {
                Turn::Now => true,
                Turn::In(wait) => {
                    look_again = Some(wait);
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
    (wanted, look_again)
}
