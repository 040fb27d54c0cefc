//! The lifecycle of a node as the masters see it: ready, silent, tainted, evicted, and ready again.
//!
//! The conditions of a node that gives no sign of life for the grace period become Unknown. The conditions become
//! taints, the `NoExecute` ones at the rate that [`zone`] allows. A `NoExecute` taint evicts pods once their toleration
//! ends. Each step is a write that triggers the next one. Eviction is an ordinary deletion, so the pods' controllers
//! replace them at once. A deleted pod of a silent node stays until its node confirms the end, its Node object is gone,
//! or an operator sets the out-of-service taint, because nothing else shows whether it still runs. A fenced pod
//! ([`fence`]) stays until its node must have stopped it.

mod eviction;
mod fence;
mod health;
mod taint;
mod zone;

use std::time::Duration;

pub(crate) use eviction::force_delete;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;

use crate::cache::{Cache, CachedKind, Change, Object};
use crate::controller::{Controller, Input, Settings, WorkKey, Writes};
use crate::plan::Plan;
use crate::resource::{NODES, PODS, name};

/// Interval of the full resync. Requeues meet the deadlines; the resync only bounds the delay after a lost requeue.
const RESYNC: Duration = Duration::from_secs(5);

pub(crate) const CONTROLLER: Controller = Controller {
    name: "node-lifecycle",
    reads: &[CachedKind::Node, CachedKind::Pod],
    writes: Writes::Only(&[NODES, PODS]),
    triggers,
    all_keys,
    reconcile,
    resync: Some(RESYNC),
};

fn all_keys(cache: &Cache) -> Vec<WorkKey> {
    cache.nodes().iter().map(|node| WorkKey::cluster(name(&node.metadata))).collect()
}

fn triggers(cache: &Cache, change: &Change) -> Vec<WorkKey> {
    match change.latest().map(|entry| &entry.object) {
        Some(Object::Node(_)) => {
            let ready = |side: Option<&crate::cache::Entry>| match side.map(|entry| &entry.object) {
                Some(Object::Node(node)) => Some(health::is_ready(node)),
                _ => None,
            };
            if ready(change.old.as_ref()) == ready(change.new.as_ref()) {
                vec![WorkKey::cluster(&change.key.name)]
            } else {
                // The taints of all other nodes depend on whether any node is ready.
                all_keys(cache)
            }
        }
        Some(Object::Pod(pod)) => {
            // Pods matter only on nodes that are not ready or have a `NoExecute` taint.
            let node = cache.nodes().get("", crate::pod_state::node_name(pod));
            let node = node.filter(|node| !health::is_ready(node) || taint::has_no_execute(node));
            node.map(|node| WorkKey::cluster(name(&node.metadata))).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

fn reconcile(input: Input<'_>, key: &WorkKey) -> Plan {
    let Input { cache, now, settings, .. } = input;
    let Some(node) = cache.nodes().get("", &key.name) else { return Plan::default() };
    let watch = Watch::of(cache, node, input.uptime, settings);
    if watch.is_silent
        && let Some(actions) = health::declare_unknown(node, now)
    {
        return Plan { actions, requeue_after: None };
    }
    let taints = taint::update(node, now, || zone::is_any_healthy(input), || zone::turn(input, node));
    let requeue_after = earliest(watch.requeue_after, taints.requeue_after);
    if let Some(patch) = taints.patch {
        return Plan { actions: vec![patch], requeue_after };
    }
    let mut plan = eviction::plan(input, node, watch.is_silent);
    plan.requeue_after = earliest(plan.requeue_after, requeue_after);
    plan
}

/// Whether a node is silent, and otherwise the time until it would be.
struct Watch {
    is_silent: bool,
    requeue_after: Option<Duration>,
}

impl Watch {
    fn of(cache: &Cache, node: &Node, uptime: Duration, settings: &Settings) -> Self {
        // Without a heartbeat, observation of the node has not started.
        let Some(last) = cache.last_heartbeat(name(&node.metadata)) else {
            return Watch { is_silent: false, requeue_after: Some(settings.node_monitor_grace) };
        };
        let silent_at = last.saturating_add(settings.node_monitor_grace);
        let requeue_after = silent_at.checked_sub(uptime).filter(|left| !left.is_zero());
        Watch { is_silent: requeue_after.is_none(), requeue_after }
    }
}

/// Returns the time left until `after` has passed since `since`; `None` when it has passed.
fn remaining(since: Timestamp, after: Duration, now: Timestamp) -> Option<Duration> {
    let passed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    after.checked_sub(passed).filter(|remaining| !remaining.is_zero())
}

fn earliest(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    a.into_iter().chain(b).min()
}

#[cfg(test)]
mod tests;
