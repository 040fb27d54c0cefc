//! Garbage collection by owner references, for objects of every kind: what all of whose owners are gone is deleted;
//! an owner being deleted in the foreground waits for the dependents that block it; one being deleted as `Orphan` is
//! first removed from its dependents' references.
//!
//! A work key is the storage key of one object.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use quorate_api::{GroupVersion, ObjectKey};
use serde_json::{Value, json};

use crate::cache::{Cache, Change, Entry, Meta};
use crate::controller::{Controller, Input, WorkKey};
use crate::plan::{Action, Plan};
use crate::resource::{batch, target_of, to_json};

/// Holds an owner back until what blocks it is gone.
const FOREGROUND: &str = "foregroundDeletion";
/// Holds an owner back until its dependents have forgotten it.
const ORPHAN: &str = "orphan";

pub(crate) const CONTROLLER: Controller =
    Controller { name: "garbage-collector", triggers, all_keys, reconcile, resync: None };

fn all_keys(cache: &Cache) -> Vec<WorkKey> {
    let concerned = |(_, entry): &(&ObjectKey, &Entry)| !entry.meta.owner_references.is_empty() || waits(&entry.meta);
    cache.all().filter(concerned).map(|(key, _)| key_of(key)).collect()
}

fn key_of(key: &ObjectKey) -> WorkKey {
    WorkKey::cluster(&key.storage_key())
}

/// Is being deleted, and one of our finalizers holds it.
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
    // Nearly every change is of a status, and of no interest here.
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
    // Owners that wait for this dependent to go or to let go.
    let references = old.into_iter().chain(new).flat_map(|meta| &meta.owner_references);
    let owners = references.filter_map(|reference| cache.by_uid(&reference.uid));
    keys.extend(owners.filter(|(_, owner)| waits(&owner.meta)).map(|(key, _)| key_of(key)));
    keys.sort();
    keys.dedup();
    keys
}

fn reconcile(Input { cache, .. }: Input<'_>, key: &WorkKey) -> Plan {
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
        collect(cache, &key, meta)
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
        set_owners(key, &dependent.meta, rest)
    };
    let mut actions: Vec<Action> = batch(cache.dependents(&owner.uid).map(forget).collect()).into_iter().collect();
    actions.push(remove_finalizer(key, owner, ORPHAN));
    actions
}

/// How one owner reference stands.
enum Owner {
    /// There, and to stay; or not resolvable, which must not cost an object its life.
    Solid,
    /// There, but waiting for its dependents to be deleted.
    Waiting,
    Absent,
}

fn classify(cache: &Cache, dependent: &Meta, reference: &OwnerReference) -> Owner {
    let Some((key, owner)) = cache.by_uid(&reference.uid) else { return Owner::Absent };
    let group = GroupVersion::parse(&reference.api_version).group;
    if owner.meta.kind != reference.kind || key.group != group {
        return Owner::Absent;
    }
    match (&dependent.namespace, &key.namespace) {
        (None, Some(_)) => return Owner::Solid,
        (Some(dependent), Some(owner)) if dependent != owner => return Owner::Absent,
        _ => {}
    }
    if is_deleting_dependents(&owner.meta) { Owner::Waiting } else { Owner::Solid }
}

/// What becomes of an object for the sake of its owners.
fn collect(cache: &Cache, key: &ObjectKey, meta: &Arc<Meta>) -> Vec<Action> {
    let mut solid = Vec::new();
    let mut waiting = 0;
    for reference in &meta.owner_references {
        match classify(cache, meta, reference) {
            Owner::Solid => solid.push(reference),
            Owner::Waiting => waiting += 1,
            Owner::Absent => {}
        }
    }
    if meta.owner_references.is_empty() || solid.len() == meta.owner_references.len() {
        return Vec::new();
    }
    if !solid.is_empty() {
        return vec![set_owners(key, meta, solid.into_iter().map(to_json).collect())];
    }
    if waiting == 0 || cache.dependents(&meta.uid).next().is_none() {
        let propagation = if meta.has_finalizer(ORPHAN) {
            "Orphan"
        } else if meta.has_finalizer(FOREGROUND) {
            "Foreground"
        } else {
            "Background"
        };
        return vec![delete(key, meta, propagation)];
    }
    // Its own dependents go first. Where two wait for each other, this one stops blocking its owner.
    let is_cycle = cache.dependents(&meta.uid).any(|(_, dependent)| is_deleting_dependents(&dependent.meta));
    let blocks = meta.owner_references.iter().any(|reference| reference.block_owner_deletion == Some(true));
    if is_cycle && blocks {
        let unblocked = meta.owner_references.iter().cloned().map(|mut reference| {
            reference.block_owner_deletion = Some(false);
            to_json(&reference)
        });
        return vec![set_owners(key, meta, unblocked.collect())];
    }
    vec![delete(key, meta, "Foreground")]
}

/// Deletes the object unless it has changed since: it may have found another owner.
fn delete(key: &ObjectKey, meta: &Meta, propagation: &'static str) -> Action {
    Action::Delete {
        target: target_of(key, meta),
        uid: Some(meta.uid.clone()),
        resource_version: Some(meta.resource_version.to_string()),
        grace_period_seconds: None,
        propagation: Some(propagation),
    }
}

fn set_owners(key: &ObjectKey, meta: &Meta, owners: Vec<Value>) -> Action {
    patch_metadata(key, meta, "ownerReferences", owners)
}

fn remove_finalizer(key: &ObjectKey, meta: &Meta, finalizer: &str) -> Action {
    let rest = meta.finalizers.iter().filter(|f| *f != finalizer).map(|f| json!(f)).collect();
    patch_metadata(key, meta, "finalizers", rest)
}

fn patch_metadata(key: &ObjectKey, meta: &Meta, field: &str, list: Vec<Value>) -> Action {
    let list = if list.is_empty() { Value::Null } else { Value::Array(list) };
    let mut metadata = json!({"uid": meta.uid, "resourceVersion": meta.resource_version.to_string()});
    metadata[field] = list;
    Action::Patch { target: target_of(key, meta), subresource: None, patch: json!({"metadata": metadata}) }
}

#[cfg(test)]
mod tests;
