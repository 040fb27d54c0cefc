//! Validation of `metadata`, the same for every kind except for the form of names.

use std::collections::HashSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use quorate_api::{FieldError, FieldPath, name};
use serde::Deserialize;
use serde_json::Value;

use crate::descriptor::{Descriptor, Scope};
use crate::value::text;

/// Maximum size of all annotations of an object together, keys and values, in bytes.
pub const MAX_ANNOTATIONS_BYTES: usize = 256 * 1024;

/// Checks the metadata of an object that is about to be stored. The pipeline has already generated the name and set the
/// namespace.
#[must_use]
pub fn validate(object: &Value, descriptor: &Descriptor) -> Vec<FieldError> {
    let path = FieldPath::new("metadata");
    let meta = match ObjectMeta::deserialize(&object["metadata"]) {
        Ok(meta) => meta,
        Err(error) => return vec![FieldError::invalid(path, &object["metadata"], error.to_string())],
    };
    let mut errors = Vec::new();
    check_names(&meta, descriptor, &path, &mut errors);
    check_scope(&meta, descriptor, &path, &mut errors);
    labels(meta.labels.iter().flatten(), &path.child("labels"), &mut errors);
    annotations(meta.annotations.iter().flatten(), &path.child("annotations"), &mut errors);
    owner_references(meta.owner_references.as_deref().unwrap_or_default(), &path, &mut errors);
    for (index, finalizer) in meta.finalizers.iter().flatten().enumerate() {
        check_finalizer(finalizer, &path.child("finalizers").index(index), &mut errors);
    }
    errors
}

/// Checks the metadata fields that may not change.
#[must_use]
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let (new, old, path) = (&new["metadata"], &old["metadata"], FieldPath::new("metadata"));
    let mut errors = Vec::new();
    for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        if new[field] != old[field] {
            errors.push(FieldError::invalid(path.child(field), &new[field], "field is immutable"));
        }
    }
    // An object that is being deleted accepts no new finalizers.
    if !old["deletionTimestamp"].is_null() {
        let before: HashSet<&str> = crate::value::items(&old["finalizers"]).iter().map(text).collect();
        let added: Vec<&str> =
            crate::value::items(&new["finalizers"]).iter().map(text).filter(|f| !before.contains(f)).collect();
        if !added.is_empty() {
            let list = added.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(", ");
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{list}}}"
            );
            errors.push(FieldError::forbidden(path.child("finalizers"), detail));
        }
    }
    errors
}

fn check_names(meta: &ObjectMeta, descriptor: &Descriptor, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if let Some(prefix) = meta.generate_name.as_deref().filter(|prefix| !prefix.is_empty()) {
        // The generated suffix is alphanumeric, so a dash at the prefix's end is valid.
        let masked = match prefix.strip_suffix('-') {
            Some(stem) => format!("{stem}a"),
            None => prefix.to_owned(),
        };
        let problems = descriptor.strategy.check_name(&masked);
        errors.extend(problems.into_iter().map(|p| FieldError::invalid(path.child("generateName"), prefix, p)));
    }
    match meta.name.as_deref().filter(|name| !name.is_empty()) {
        None => errors.push(FieldError::required(path.child("name"), "name or generateName is required")),
        Some(name) => {
            let problems = descriptor.strategy.check_name(name);
            errors.extend(problems.into_iter().map(|p| FieldError::invalid(path.child("name"), name, p)));
        }
    }
}

fn check_scope(meta: &ObjectMeta, descriptor: &Descriptor, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let path = path.child("namespace");
    match descriptor.scope {
        Scope::Namespaced if namespace.is_empty() => errors.push(FieldError::required(path, "")),
        Scope::Namespaced => {
            let problems = name::dns1123_label(namespace);
            errors.extend(problems.into_iter().map(|p| FieldError::invalid(path.clone(), namespace, p)));
        }
        Scope::Cluster if !namespace.is_empty() => {
            errors.push(FieldError::forbidden(path, "not allowed on this type"));
        }
        Scope::Cluster => {}
    }
}

/// Checks label keys and values, also those of pod templates, selectors and node selectors.
pub(crate) fn labels<'a>(
    labels: impl Iterator<Item = (&'a String, &'a String)>,
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    for (key, value) in labels {
        errors.extend(name::qualified_name(key).into_iter().map(|p| FieldError::invalid(path.clone(), key, p)));
        errors.extend(name::label_value(value).into_iter().map(|p| FieldError::invalid(path.clone(), value, p)));
    }
}

pub(crate) fn annotations<'a>(
    annotations: impl Iterator<Item = (&'a String, &'a String)>,
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    let mut size = 0;
    for (key, value) in annotations {
        let lower = key.to_lowercase();
        errors.extend(name::qualified_name(&lower).into_iter().map(|p| FieldError::invalid(path.clone(), key, p)));
        size += key.len() + value.len();
    }
    if size > MAX_ANNOTATIONS_BYTES {
        errors.push(FieldError::too_long(path.clone(), MAX_ANNOTATIONS_BYTES));
    }
}

fn owner_references(owners: &[OwnerReference], path: &FieldPath, errors: &mut Vec<FieldError>) {
    let path = path.child("ownerReferences");
    let mut controllers = Vec::new();
    for (index, owner) in owners.iter().enumerate() {
        let at = path.index(index);
        let version = owner.api_version.rsplit_once('/').map_or(owner.api_version.as_str(), |(_, version)| version);
        if version.is_empty() {
            errors.push(FieldError::invalid(at.child("apiVersion"), &owner.api_version, "version must not be empty"));
        }
        for (field, value) in [("kind", &owner.kind), ("name", &owner.name), ("uid", &owner.uid)] {
            if value.is_empty() {
                errors.push(FieldError::invalid(at.child(field), value, "must not be empty"));
            }
        }
        if owner.kind == "Event" && matches!(owner.api_version.as_str(), "v1" | "events.k8s.io/v1") {
            errors.push(FieldError::invalid(at, owner, format!("{} is disallowed from being an owner", owner.kind)));
        }
        if owner.controller == Some(true) {
            controllers.push(owner.name.as_str());
        }
    }
    if controllers.len() > 1 {
        let detail = format!(
            "Only one reference can have Controller set to true. Found \"true\" in references for {}",
            controllers.join(" and ")
        );
        errors.push(FieldError::invalid(path, owners, detail));
    }
}

fn check_finalizer(finalizer: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    errors.extend(name::qualified_name(finalizer).into_iter().map(|p| FieldError::invalid(path.clone(), finalizer, p)));
    let standard = matches!(finalizer, "kubernetes" | "orphan" | "foregroundDeletion");
    if !finalizer.contains('/') && !standard {
        let detail = "name is neither a standard finalizer name nor is it fully qualified";
        errors.push(FieldError::invalid(path.clone(), finalizer, detail));
    }
}

#[cfg(test)]
mod tests;
