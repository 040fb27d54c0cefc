//! Checks of a pod's volumes: their names, and one source each.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;
use quorate_api::{FieldError, FieldPath, name};

use super::volume_sources;
use crate::check;

/// The volumes of a pod by name.
pub type Volumes<'a> = BTreeMap<&'a str, &'a core::Volume>;

pub fn validate<'a>(volumes: &'a [core::Volume], path: &FieldPath, errors: &mut Vec<FieldError>) -> Volumes<'a> {
    let mut by_name = Volumes::new();
    for (index, volume) in volumes.iter().enumerate() {
        let path = path.index(index);
        check::required_name(&volume.name, name::dns1123_label, &path.child("name"), errors);
        if !volume.name.is_empty() && by_name.insert(&volume.name, volume).is_some() {
            errors.push(FieldError::duplicate(path.child("name"), &volume.name));
        }
        volume_sources::validate(volume, &path, errors);
    }
    by_name
}
