//! Adoption and release: a controller owns what its selector matches and has no other controller, and lets go of what
//! its selector no longer matches.
//!
//! A pass that has something to adopt or release does only that; its effect wakes the controller again.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector as SelectorObject, ObjectMeta, OwnerReference};
use k8s_openapi::{Metadata, Resource};
use quorate_api::GroupVersionResource;
use quorate_api::selector::LabelSelector;
use serde_json::{Value, json};

use crate::plan::Action;
use crate::resource::{target, to_json, uid};

/// The selector in a form that can be matched; `None` for one that is malformed or selects everything, which no
/// controller acts on.
pub(crate) fn usable_selector(object: &SelectorObject) -> Option<LabelSelector> {
    LabelSelector::from_object(object).ok().filter(|selector| !selector.is_everything())
}

/// The reference that makes `owner` the controller of an object.
pub(crate) fn controller_reference<K: Resource + Metadata<Ty = ObjectMeta>>(owner: &K) -> OwnerReference {
    let metadata = owner.metadata();
    OwnerReference {
        api_version: K::API_VERSION.to_owned(),
        kind: K::KIND.to_owned(),
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The owner that manages an object.
pub(crate) fn controller_of(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// Patches that bring ownership in line with `selector`: `owned` objects that it no longer matches are released,
/// `uncontrolled` ones that it matches adopted.
pub(crate) fn claim<'a, O, D>(
    owner: &O,
    selector: &LabelSelector,
    resource: &GroupVersionResource,
    owned: impl Iterator<Item = &'a Arc<D>>,
    uncontrolled: impl Iterator<Item = &'a Arc<D>>,
) -> Vec<Action>
where
    O: Resource + Metadata<Ty = ObjectMeta>,
    D: Metadata<Ty = ObjectMeta> + 'a,
{
    if owner.metadata().deletion_timestamp.is_some() {
        return Vec::new();
    }
    let none = BTreeMap::new();
    let matches = |metadata: &ObjectMeta| selector.matches(metadata.labels.as_ref().unwrap_or(&none));
    let released = owned.map(|object| object.metadata()).filter(|metadata| !matches(metadata)).map(|metadata| {
        let owner_uid = uid(owner.metadata());
        let rest = metadata.owner_references.iter().flatten().filter(|reference| reference.uid != owner_uid);
        owners_patch(resource, metadata, rest.map(to_json).collect())
    });
    let adopted = uncontrolled
        .map(|object| object.metadata())
        .filter(|metadata| metadata.deletion_timestamp.is_none() && matches(metadata))
        .map(|metadata| {
            let references = metadata.owner_references.iter().flatten().map(to_json);
            let own = to_json(&controller_reference(owner));
            owners_patch(resource, metadata, references.chain([own]).collect())
        });
    released.chain(adopted).collect()
}

/// Sets an object's owners, unless it has changed meanwhile.
pub(crate) fn owners_patch(resource: &GroupVersionResource, metadata: &ObjectMeta, owners: Vec<Value>) -> Action {
    let owners = if owners.is_empty() { Value::Null } else { Value::Array(owners) };
    Action::Patch {
        target: target(resource.clone(), metadata),
        subresource: None,
        patch: json!({"metadata": {
            "uid": metadata.uid,
            "resourceVersion": metadata.resource_version,
            "ownerReferences": owners,
        }}),
        guards: Vec::new(),
    }
}
