//! Empties a namespace that is being deleted. The pods go first, because the objects they use should outlive them; the
//! objects of all other kinds follow. The finalizer is removed last. Until then, the namespace's conditions say what is
//! left.

mod remaining;

use k8s_openapi::api::core::v1::Namespace;
use quorate_api::ObjectKey;

use crate::cache::{Cache, CachedKind, Change, Entry};
use crate::controller::{Controller, Input, WorkKey, Writes};
use crate::plan::{Action, Plan};
use crate::resource::{NAMESPACES, batch, delete, name, target, target_of, to_json};
use remaining::Remaining;

/// Finalizer in `spec.finalizers` that keeps the namespace until it is empty.
const FINALIZER: &str = "kubernetes";

/// Maximum number of objects that one pass deletes.
const BURST: usize = 500;

pub(crate) const CONTROLLER: Controller = Controller {
    name: "namespace",
    reads: &[CachedKind::Namespace, CachedKind::Pod],
    writes: Writes::Anything,
    triggers,
    all_keys,
    reconcile,
    resync: None,
};

fn all_keys(cache: &Cache) -> Vec<WorkKey> {
    let terminating = cache.namespaces().iter().filter(|namespace| is_terminating(namespace));
    terminating.map(|namespace| WorkKey::cluster(name(&namespace.metadata))).collect()
}

fn triggers(cache: &Cache, change: &Change) -> Vec<WorkKey> {
    let is_namespace = change.key.group.is_empty() && change.key.resource == "namespaces";
    let name = if is_namespace { Some(&change.key.name) } else { change.key.namespace.as_ref() };
    let namespace = name.and_then(|name| cache.namespaces().get("", name));
    let terminating = namespace.filter(|namespace| is_terminating(namespace));
    terminating.map(|namespace| WorkKey::cluster(self::name(&namespace.metadata))).into_iter().collect()
}

fn is_terminating(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_some()
}

fn reconcile(Input { cache, now, failure, .. }: Input<'_>, key: &WorkKey) -> Plan {
    let namespace = cache.namespaces().get("", &key.name).filter(|namespace| is_terminating(namespace));
    let Some(namespace) = namespace else { return Plan::default() };
    let is_pod = |key: &ObjectKey| key.group.is_empty() && key.resource == "pods";
    let has_pods = cache.pods().in_namespace(&key.name).next().is_some();
    let mut remaining = Remaining::default();
    let mut deletions = Vec::new();
    for (key, entry) in cache.in_namespace(&key.name) {
        remaining.count(key, &entry.meta);
        if (!has_pods || is_pod(key)) && !entry.meta.is_terminating() && deletions.len() < BURST {
            deletions.push(delete_content(key, entry));
        }
    }
    if remaining.is_empty() {
        return Plan { actions: release(namespace).into_iter().collect(), requeue_after: None };
    }
    let mut actions = Vec::new();
    if deletions.is_empty() || failure.is_some() {
        // The remaining content is reported only when nothing more can be deleted for now, or when a deletion failed.
        // Otherwise the content is about to be deleted.
        actions.extend(remaining.report(namespace, failure, now));
    }
    actions.extend(batch(deletions));
    Plan { actions, requeue_after: None }
}

fn delete_content(key: &ObjectKey, entry: &Entry) -> Action {
    Action::Delete {
        target: target_of(key, &entry.meta),
        uid: Some(entry.meta.uid.clone()),
        resource_version: None,
        grace_period_seconds: None,
        propagation: Some("Background"),
        guards: Vec::new(),
    }
}

/// Removes this controller's finalizer. Without it, deletes the namespace unless another finalizer holds it.
fn release(namespace: &Namespace) -> Option<Action> {
    let finalizers: Vec<&String> = namespace.spec.iter().flat_map(|spec| spec.finalizers.iter().flatten()).collect();
    if finalizers.iter().any(|finalizer| *finalizer == FINALIZER) {
        let rest: Vec<String> = finalizers.into_iter().filter(|finalizer| *finalizer != FINALIZER).cloned().collect();
        let mut object = namespace.clone();
        object.spec.get_or_insert_default().finalizers = (!rest.is_empty()).then_some(rest);
        return Some(Action::Update {
            target: target(NAMESPACES, &namespace.metadata),
            subresource: Some("finalize"),
            object: to_json(&object),
        });
    }
    let is_held = !finalizers.is_empty() || namespace.metadata.finalizers.iter().flatten().next().is_some();
    (!is_held).then(|| delete(target(NAMESPACES, &namespace.metadata), namespace.metadata.uid.as_deref()))
}

#[cfg(test)]
mod tests;
