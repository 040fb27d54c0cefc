//! Removes pods that no agent can remove: pods bound to a missing node, and pods deleted before they were bound.

pub(crate) mod terminated;

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use crate::cache::{Cache, CachedKind, Change, Object};
use crate::controller::{Controller, Input, WorkKey, Writes};
use crate::node::force_delete;
use crate::plan::{Action, Plan};
use crate::pod_state::{is_terminating, node_name};
use crate::resource::{PODS, batch, name, namespace};

/// Interval of the full resync. Nothing triggers a reconcile when a pod merely gets old, so the resync covers a lost
/// requeue.
const RESYNC: Duration = Duration::from_secs(60);

/// A cluster-scoped key names a missing node, a namespaced one an unbound pod.
pub(crate) const CONTROLLER: Controller = Controller {
    name: "pod-garbage-collector",
    reads: &[CachedKind::Node, CachedKind::Pod],
    writes: Writes::Only(&[PODS]),
    triggers,
    all_keys,
    reconcile,
    resync: Some(RESYNC),
};

fn all_keys(cache: &Cache) -> Vec<WorkKey> {
    let missing = cache.nodes_with_pods().filter(|node| cache.nodes().get("", node).is_none());
    let unbound = cache.pods().iter().filter(|pod| is_stranded(pod));
    missing.map(WorkKey::cluster).chain(unbound.map(|pod| key_of(pod))).collect()
}

fn key_of(pod: &Pod) -> WorkKey {
    WorkKey::namespaced(namespace(&pod.metadata), name(&pod.metadata))
}

fn triggers(cache: &Cache, change: &Change) -> Vec<WorkKey> {
    match (change.new.as_ref().map(|new| &new.object), change.old.as_ref().map(|old| &old.object)) {
        (Some(Object::Pod(pod)), _) if is_stranded(pod) => vec![key_of(pod)],
        (Some(Object::Pod(pod)), _) if !node_name(pod).is_empty() => {
            let is_missing = cache.nodes().get("", node_name(pod)).is_none();
            if is_missing { vec![WorkKey::cluster(node_name(pod))] } else { Vec::new() }
        }
        (None, Some(Object::Node(_))) => vec![WorkKey::cluster(&change.key.name)],
        _ => Vec::new(),
    }
}

/// Returns whether the pod is deleted but bound to no node that could confirm it.
fn is_stranded(pod: &Pod) -> bool {
    is_terminating(pod) && node_name(pod).is_empty() && !is_forced(pod)
}

/// Returns whether the pod is already force-deleted; only finalizers still hold it.
fn is_forced(pod: &Pod) -> bool {
    pod.metadata.deletion_grace_period_seconds == Some(0)
}

fn reconcile(Input { cache, now, settings, .. }: Input<'_>, key: &WorkKey) -> Plan {
    if let Some(namespace) = &key.namespace {
        let pod = cache.pods().get(namespace, &key.name).filter(|pod| is_stranded(pod));
        return Plan { actions: pod.map(|pod| force_delete(pod)).into_iter().collect(), requeue_after: None };
    }
    if cache.nodes().get("", &key.name).is_some() {
        return Plan::default();
    }
    let mut requeue_after: Option<Duration> = None;
    let mut deletions: Vec<Action> = Vec::new();
    for pod in cache.pods_on_node(&key.name).filter(|pod| !is_forced(pod)) {
        let age = pod.metadata.creation_timestamp.as_ref().map(|created| now.duration_since(created.0));
        let age = age.and_then(|age| Duration::try_from(age).ok()).unwrap_or_default();
        match settings.orphan_grace.checked_sub(age).filter(|left| !left.is_zero()) {
            Some(left) => requeue_after = Some(requeue_after.map_or(left, |next| next.min(left))),
            None => deletions.push(force_delete(pod)),
        }
    }
    Plan { actions: batch(deletions).into_iter().collect(), requeue_after }
}
