//! Checks of the PersistentVolumeClaim template of an ephemeral volume.

use k8s_openapi::api::core::v1 as core;
use quorate_api::{FieldError, FieldPath, LabelSelector, Quantity, name};

use crate::check;
use crate::metadata;

const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const SINGLE_POD: &str = "ReadWriteOncePod";

pub fn validate(template: &core::PersistentVolumeClaimTemplate, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if let Some(meta) = &template.metadata {
        let path = path.child("metadata");
        metadata::annotations(meta.annotations.iter().flatten(), &path.child("annotations"), errors);
        metadata::labels(meta.labels.iter().flatten(), &path.child("labels"), errors);
        let others = [
            ("name", meta.name.is_some()),
            ("generateName", meta.generate_name.is_some()),
            ("namespace", meta.namespace.is_some()),
            ("finalizers", meta.finalizers.is_some()),
            ("ownerReferences", meta.owner_references.is_some()),
        ];
        for (field, _) in others.iter().filter(|(_, is_set)| *is_set) {
            errors.push(FieldError::forbidden(path.child(field), "cannot be set"));
        }
    }
    spec(&template.spec, &path.child("spec"), errors);
}

/// Checks the spec of a claim.
pub fn spec(spec: &core::PersistentVolumeClaimSpec, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    let at = path.child("accessModes");
    if modes.is_empty() {
        errors.push(FieldError::required(at.clone(), "at least 1 access mode is required"));
    }
    if let Some(Err(error)) = spec.selector.as_ref().map(LabelSelector::from_object) {
        errors.push(FieldError::invalid(path.child("selector"), &spec.selector, error.to_string()));
    }
    for mode in modes.iter().filter(|mode| !ACCESS_MODES.contains(&mode.as_str())) {
        errors.push(FieldError::not_supported(at.clone(), mode, ACCESS_MODES));
    }
    if modes.iter().any(|mode| mode == SINGLE_POD) && modes.iter().any(|mode| mode != SINGLE_POD) {
        errors.push(FieldError::forbidden(at, "may not use ReadWriteOncePod with other access modes"));
    }
    let requests = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let at = path.child("resources").key("storage");
    match requests.and_then(|requests| requests.get("storage")) {
        None => errors.push(FieldError::required(at, "")),
        Some(storage) => match Quantity::try_from(storage) {
            Err(error) => errors.push(FieldError::invalid(at, &storage.0, error.to_string())),
            Ok(amount) if amount <= Quantity::ZERO => {
                errors.push(FieldError::invalid(at, &storage.0, "must be greater than zero"));
            }
            Ok(_) => {}
        },
    }
    if let Some(class) = spec.storage_class_name.as_deref().filter(|class| !class.is_empty()) {
        check::named(class, name::dns1123_subdomain, &path.child("storageClassName"), errors);
    }
    check::one_of_if_set(spec.volume_mode.as_deref(), &["Block", "Filesystem"], path.child("volumeMode"), errors);
}
