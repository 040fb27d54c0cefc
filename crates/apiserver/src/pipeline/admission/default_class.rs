//! The classes of claims and ingresses that name none (upstream's DefaultStorageClass and DefaultIngressClass).

use std::cmp::Reverse;
use std::collections::BTreeMap;

use quorate_api::{GroupVersionResource, Status};
use quorate_store::Consistency;
use serde::Deserialize;
use serde_json::Value;

use super::{CLAIMS, policies};
use crate::metadata;
use crate::pipeline::Operation;

const INGRESSES: GroupVersionResource = GroupVersionResource::from_static("networking.k8s.io", "v1", "ingresses");

/// A kind whose objects name a class.
struct Classified {
    classes: GroupVersionResource,
    /// The field of the spec that names the class.
    field: &'static str,
    /// The annotation that named the class before the field did.
    older: &'static str,
    /// Annotations that make a class the default one.
    marks: &'static [&'static str],
}

const STORAGE: Classified = Classified {
    classes: GroupVersionResource::from_static("storage.k8s.io", "v1", "storageclasses"),
    field: "storageClassName",
    older: "volume.beta.kubernetes.io/storage-class",
    marks: &["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"],
};
const INGRESS: Classified = Classified {
    classes: GroupVersionResource::from_static("networking.k8s.io", "v1", "ingressclasses"),
    field: "ingressClassName",
    older: "kubernetes.io/ingress.class",
    marks: &["ingressclass.kubernetes.io/is-default-class"],
};

#[derive(Deserialize)]
struct Class {
    metadata: ClassMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClassMetadata {
    name: String,
    #[serde(default)]
    creation_timestamp: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// Sets the class of a new object to the default one, if there is one.
///
/// # Errors
/// Errors of the store.
pub(super) async fn mutate(operation: &Operation, object: &mut Value) -> Result<(), Status> {
    let resource = &operation.target.resource.descriptor.resource;
    let kind = match resource {
        resource if *resource == CLAIMS => STORAGE,
        resource if *resource == INGRESSES => INGRESS,
        _ => return Ok(()),
    };
    let annotations = metadata::of(object).get("annotations");
    // An empty class is a choice as well: the object wants none.
    let is_given = !object["spec"][kind.field].is_null() || annotations.is_some_and(|a| a.get(kind.older).is_some());
    if is_given || !object["spec"].is_object() {
        return Ok(());
    }
    let classes: Vec<Class> = policies::list(operation.api.store(), &kind.classes, None, Consistency::Local).await?;
    let is_default = |class: &Class| {
        kind.marks.iter().any(|mark| class.metadata.annotations.get(*mark).is_some_and(|value| value == "true"))
    };
    // The newest default class wins, and among classes of one age the first by name. The timestamps sort as text, because
    // all are UTC in whole seconds.
    let default = classes
        .into_iter()
        .filter(is_default)
        .map(|class| class.metadata)
        .min_by_key(|class| (Reverse(class.creation_timestamp.clone()), class.name.clone()));
    if let Some(default) = default {
        object["spec"][kind.field] = default.name.into();
    }
    Ok(())
}
