//! Adoption and release. A controller adopts the objects that its selector matches and that have no controller, and
//! releases the objects that its selector no longer matches.
//!
//! A pass that adopts or releases does nothing else; the resulting change triggers the controller again.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector as SelectorObject, ObjectMeta, OwnerReference};
use k8s_openapi::{Metadata, Resource};
use quorate_api::GroupVersionResource;
use quorate_api::selector::LabelSelector;
use serde_json::{Value, json};

use crate::plan::Action;
use crate::resource::{target, to_json, uid};

/// Returns the parsed selector; `None` for a selector that is malformed or selects everything, because no controller
/// acts on such a selector.
pub(crate) fn usable_selector(object: &SelectorObject) -> Option<LabelSelector> {
    LabelSelector::from_object(object).ok().filter(|selector| !selector.is_everything())
}

/// Returns the reference that makes `owner` the controller of an object.
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

/// Returns the owner that controls an object.
pub(crate) fn controller_of(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// Returns the patches that bring ownership in line with `selector`: `owned` objects that do not match are released,
/// and `uncontrolled` ones that match are adopted.
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

/// Sets an object's owners, unless the object has changed meanwhile.
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
