//! Garbage collection by owner references, for objects of every kind. An object is deleted when all its owners are
//! gone. An owner being deleted in the foreground waits for the dependents that block it. An owner being deleted as
//! `Orphan` is first removed from its dependents' references.
//!
//! An owner is the object of its reference's kind and name in the dependent's namespace (or in none, for a
//! cluster-scoped kind), if it has the reference's uid. The cache alone never proves that an owner is absent, so every
//! write that relies on an absence carries it as a [`Guard`]. While a reference cannot be resolved, because its kind is
//! not served or cannot own this object, the dependent is left as it is.
//!
//! The work key is the storage key of one object.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use quorate_api::ObjectKey;
use serde_json::{Value, json};

use crate::cache::{Cache, Change, Entry, Meta};
use crate::controller::{Controller, Input, WorkKey, Writes};
use crate::kinds::Kinds;
use crate::plan::{Action, EventType, Guard, Plan};
use crate::resource::{batch, target_of, to_json};

/// Finalizer that keeps an owner until the dependents that block it are gone.
const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer that keeps an owner until its dependents no longer refer to it.
const ORPHAN: &str = "orphan";
/// Interval at which a reference to an unserved kind is retried. No object changes when a kind becomes served, so
/// nothing else triggers a reconcile of the dependents.
const UNKNOWN_KIND_RETRY: Duration = Duration::from_secs(30);

pub(crate) const CONTROLLER: Controller = Controller {
    name: "garbage-collector",
    reads: &[],
    writes: Writes::Anything,
    triggers,
    all_keys,
    reconcile,
    resync: None,
};

fn all_keys(cache: &Cache) -> Vec<WorkKey> {
    let concerned = |(_, entry): &(&ObjectKey, &Entry)| !entry.meta.owner_references.is_empty() || waits(&entry.meta);
    cache.all().filter(concerned).map(|(key, _)| key_of(key)).collect()
}

fn key_of(key: &ObjectKey) -> WorkKey {
    WorkKey::cluster(&key.storage_key())
}

/// Returns whether the object is being deleted and held by one of this controller's finalizers.
fn waits(meta: &Meta) -> bool {
    meta.is_terminating() && (meta.has_finalizer(FOREGROUND) || meta.has_finalizer(ORPHAN))
}

fn is_deleting_dependents(meta: &Meta) -> bool {
    meta.is_terminating() && meta.has_finalizer(FOREGROUND)
}

fn triggers(cache: &Cache, change: &Change) -> Vec<WorkKey> {
    let old = change.old.as_ref().map(|entry| &*entry.meta);
    let new = change.new.as_ref().map(|entry| &*entry.meta);
    let same = |a: &Meta, b: &Meta| {
        a.uid == b.uid
            && a.owner_references == b.owner_references
            && a.finalizers == b.finalizers
            && a.is_terminating() == b.is_terminating()
    };
    // Most changes are status updates, which do not matter here.
    if old.is_some_and(|old| new.is_some_and(|new| same(old, new))) {
        return Vec::new();
    }
    let mut keys = Vec::new();
    if let Some(new) = new
        && (!new.owner_references.is_empty() || waits(new))
    {
        keys.push(key_of(&change.key));
    }
    let is_replaced = old.is_some_and(|old| new.is_none_or(|new| new.uid != old.uid));
    let gone = old.filter(|_| is_replaced);
    let starts_deleting = new.filter(|new| is_deleting_dependents(new) && !old.is_some_and(is_deleting_dependents));
    for owner in gone.into_iter().chain(starts_deleting) {
        keys.extend(cache.dependents(&owner.uid).map(|(key, _)| key_of(key)));
    }
    // Owners may wait for this dependent to be deleted or to drop its reference.
    let references = old.into_iter().chain(new).flat_map(|meta| &meta.owner_references);
    let owners = references.filter_map(|reference| cache.by_uid(&reference.uid));
    keys.extend(owners.filter(|(_, owner)| waits(&owner.meta)).map(|(key, _)| key_of(key)));
    keys.sort();
    keys.dedup();
    keys
}

fn reconcile(Input { cache, kinds, .. }: Input<'_>, key: &WorkKey) -> Plan {
    let Some(key) = ObjectKey::parse(&key.name) else { return Plan::default() };
    let Some(entry) = cache.get(&key) else { return Plan::default() };
    let meta = &entry.meta;
    let actions = if meta.is_terminating() {
        if meta.has_finalizer(ORPHAN) {
            orphan_dependents(cache, &key, meta)
        } else if meta.has_finalizer(FOREGROUND) && !is_blocked(cache, meta) {
            vec![remove_finalizer(&key, meta, FOREGROUND)]
        } else {
            Vec::new()
        }
    } else {
        return collect(cache, kinds, &key, meta);
    };
    Plan { actions, requeue_after: None }
}

fn is_blocked(cache: &Cache, owner: &Meta) -> bool {
    let blocks =
        |reference: &OwnerReference| reference.uid == owner.uid && reference.block_owner_deletion == Some(true);
    cache.dependents(&owner.uid).any(|(_, dependent)| dependent.meta.owner_references.iter().any(blocks))
}

fn orphan_dependents(cache: &Cache, key: &ObjectKey, owner: &Meta) -> Vec<Action> {
    let forget = |(key, dependent): (&ObjectKey, &Entry)| {
        let references = &dependent.meta.owner_references;
        let rest = references.iter().filter(|reference| reference.uid != owner.uid).map(to_json).collect();
        set_owners(key, &dependent.meta, rest, Vec::new())
    };
    let mut actions: Vec<Action> = batch(cache.dependents(&owner.uid).map(forget).collect()).into_iter().collect();
    actions.push(remove_finalizer(key, owner, ORPHAN));
    actions
}

/// State of one owner reference.
enum Owner {
    Solid,
    /// The owner waits for its dependents to be deleted.
    Waiting,
    /// The owner is not in the cache. The guard confirms its absence at the write.
    Absent(Guard),
    UnknownKind,
    /// A namespaced kind cannot own a cluster-scoped object.
    Impossible,
}

fn classify(cache: &Cache, kinds: &dyn Kinds, dependent: &ObjectKey, reference: &OwnerReference) -> Owner {
    let Some(kind) = kinds.find(&reference.api_version, &reference.kind) else { return Owner::UnknownKind };
    let namespace = if kind.is_namespaced { dependent.namespace.clone() } else { None };
    if kind.is_namespaced && namespace.is_none() {
        return Owner::Impossible;
    }
    let key = ObjectKey {
        group: kind.resource.group.to_string(),
        resource: kind.resource.resource.to_string(),
        namespace,
        name: reference.name.clone(),
    };
    match cache.get(&key).filter(|owner| owner.meta.uid == reference.uid) {
        Some(owner) if is_deleting_dependents(&owner.meta) => Owner::Waiting,
        Some(_) => Owner::Solid,
        None => Owner::Absent(Guard::Absent { key, uid: reference.uid.clone() }),
    }
}

/// Plans the deletion of an object, or the removal of its stale references, by the state of its owners.
fn collect(cache: &Cache, kinds: &dyn Kinds, key: &ObjectKey, meta: &Arc<Meta>) -> Plan {
    let mut solid = Vec::new();
    let mut guards = Vec::new();
    let (mut waiting, mut is_resolved, mut requeue_after) = (0, true, None);
    for reference in &meta.owner_references {
        match classify(cache, kinds, key, reference) {
            Owner::Solid => solid.push(reference),
            Owner::Waiting => waiting += 1,
            Owner::Absent(guard) => guards.push(guard),
            Owner::UnknownKind => (is_resolved, requeue_after) = (false, Some(UNKNOWN_KIND_RETRY)),
            Owner::Impossible => is_resolved = false,
        }
    }
    let mut actions = Vec::new();
    if is_resolved && solid.len() < meta.owner_references.len() {
        actions.push(if solid.is_empty() {
            delete_for(cache, key, meta, waiting, guards)
        } else {
            set_owners(key, meta, solid.into_iter().map(to_json).collect(), guards)
        });
    }
    actions.extend(invalid_namespaces(cache, kinds, meta));
    Plan { actions, requeue_after }
}

/// Returns the deletion of an object that has no remaining owner. `waiting` is the number of owners that wait for it.
fn delete_for(cache: &Cache, key: &ObjectKey, meta: &Arc<Meta>, waiting: usize, guards: Vec<Guard>) -> Action {
    if waiting == 0 || cache.dependents(&meta.uid).next().is_none() {
        let propagation = if meta.has_finalizer(ORPHAN) {
            "Orphan"
        } else if meta.has_finalizer(FOREGROUND) {
            "Foreground"
        } else {
            "Background"
        };
        return delete(key, meta, propagation, guards);
    }
    // The object's own dependents are deleted first. If two objects wait for each other, this one stops blocking its
    // owner.
    let is_cycle = cache.dependents(&meta.uid).any(|(_, dependent)| is_deleting_dependents(&dependent.meta));
    let blocks = meta.owner_references.iter().any(|reference| reference.block_owner_deletion == Some(true));
    if is_cycle && blocks {
        let unblocked = meta.owner_references.iter().cloned().map(|mut reference| {
            reference.block_owner_deletion = Some(false);
            to_json(&reference)
        });
        return set_owners(key, meta, unblocked.collect(), Vec::new());
    }
    delete(key, meta, "Foreground", guards)
}

/// Warns about references to an object in another namespace, which cannot own this one, and about references from a
/// cluster-scoped object to a namespaced kind.
fn invalid_namespaces<'a>(cache: &'a Cache, kinds: &'a dyn Kinds, meta: &'a Meta) -> impl Iterator<Item = Action> + 'a {
    let is_elsewhere = |reference: &&OwnerReference| {
        let owner = cache.by_uid(&reference.uid).and_then(|(key, _)| key.namespace.as_ref());
        let is_namespaced =
            || kinds.find(&reference.api_version, &reference.kind).is_some_and(|kind| kind.is_namespaced);
        match owner {
            Some(namespace) => meta.namespace.as_ref() != Some(namespace),
            None => meta.namespace.is_none() && is_namespaced(),
        }
    };
    meta.owner_references.iter().filter(is_elsewhere).map(|reference| {
        let OwnerReference { api_version, kind, name, uid, .. } = reference;
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let mut regarding = json!({"apiVersion": meta.api_version, "kind": meta.kind, "name": meta.name, "uid": meta.uid});
        if let Some(namespace) = &meta.namespace {
            regarding["namespace"] = json!(namespace);
        }
        Action::Event {
            regarding,
            event_type: EventType::Warning,
            reason: "OwnerRefInvalidNamespace",
            message: format!(
                "ownerRef [{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {uid}] does not exist in namespace {namespace:?}"
            ),
        }
    })
}

/// Deletes the object unless it has changed since, because it may have got another owner.
fn delete(key: &ObjectKey, meta: &Meta, propagation: &'static str, guards: Vec<Guard>) -> Action {
    Action::Delete {
        target: target_of(key, meta),
        uid: Some(meta.uid.clone()),
        resource_version: Some(meta.resource_version.to_string()),
        grace_period_seconds: None,
        propagation: Some(propagation),
        guards,
    }
}

fn set_owners(key: &ObjectKey, meta: &Meta, owners: Vec<Value>, guards: Vec<Guard>) -> Action {
    patch_metadata(key, meta, "ownerReferences", owners, guards)
}

fn remove_finalizer(key: &ObjectKey, meta: &Meta, finalizer: &str) -> Action {
    let rest = meta.finalizers.iter().filter(|f| *f != finalizer).map(|f| json!(f)).collect();
    patch_metadata(key, meta, "finalizers", rest, Vec::new())
}

fn patch_metadata(key: &ObjectKey, meta: &Meta, field: &str, list: Vec<Value>, guards: Vec<Guard>) -> Action {
    let list = if list.is_empty() { Value::Null } else { Value::Array(list) };
    let mut metadata = json!({"uid": meta.uid, "resourceVersion": meta.resource_version.to_string()});
    metadata[field] = list;
    Action::Patch { target: target_of(key, meta), subresource: None, patch: json!({"metadata": metadata}), guards }
}

#[cfg(test)]
mod tests;
