//! Checks of volumes: one source each, paths that stay inside, known keys.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;
use quorate_api::{FieldError, FieldPath, Quantity, name};

use crate::check;

/// The volumes of a pod by name.
pub type Volumes<'a> = BTreeMap<&'a str, &'a core::Volume>;

const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

pub fn validate<'a>(volumes: &'a [core::Volume], path: &FieldPath, errors: &mut Vec<FieldError>) -> Volumes<'a> {
    let mut by_name = Volumes::new();
    for (index, volume) in volumes.iter().enumerate() {
        let path = path.index(index);
        check::required_name(&volume.name, name::dns1123_label, &path.child("name"), errors);
        if !volume.name.is_empty() && by_name.insert(&volume.name, volume).is_some() {
            errors.push(FieldError::duplicate(path.child("name"), &volume.name));
        }
        source(volume, &path, errors);
    }
    by_name
}

fn source(volume: &core::Volume, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let present = match serde_json::to_value(volume) {
        Ok(serde_json::Value::Object(map)) => map.into_iter().map(|(key, _)| key).filter(|key| key != "name").collect(),
        _ => Vec::new(),
    };
    match present.as_slice() {
        [] => errors.push(FieldError::required(path.clone(), "must specify a volume type")),
        [_] => {}
        [_, others @ ..] => errors.extend(
            others
                .iter()
                .map(|other| FieldError::forbidden(path.child(other), "may not specify more than 1 volume type")),
        ),
    }
    if let Some(host_path) = &volume.host_path {
        let path = path.child("hostPath");
        if host_path.path.is_empty() {
            errors.push(FieldError::required(path.child("path"), ""));
        } else if host_path.path.split('/').any(|part| part == "..") {
            errors.push(FieldError::invalid(path.child("path"), &host_path.path, "must not contain '..'"));
        }
        check::one_of_if_set(host_path.type_.as_deref(), HOST_PATH_TYPES, path.child("type"), errors);
    }
    if let Some(limit) = volume.empty_dir.as_ref().and_then(|source| source.size_limit.as_ref()) {
        let path = path.child("emptyDir").child("sizeLimit");
        match Quantity::try_from(limit) {
            Err(error) => errors.push(FieldError::invalid(path, &limit.0, error.to_string())),
            Ok(limit) if limit.is_negative() => {
                errors.push(FieldError::forbidden(path, "SizeLimit field must be a valid resource quantity"));
            }
            Ok(_) => {}
        }
    }
    if let Some(secret) = &volume.secret {
        let path = path.child("secret");
        check::reference(secret.secret_name.as_deref().unwrap_or_default(), &path.child("secretName"), errors);
        files(secret.default_mode, secret.items.as_deref().unwrap_or_default(), &path, errors);
    }
    if let Some(config_map) = &volume.config_map {
        let path = path.child("configMap");
        check::reference(&config_map.name, &path.child("name"), errors);
        files(config_map.default_mode, config_map.items.as_deref().unwrap_or_default(), &path, errors);
    }
    if let Some(claim) = &volume.persistent_volume_claim {
        let path = path.child("persistentVolumeClaim").child("claimName");
        check::reference(&claim.claim_name, &path, errors);
    }
    if let Some(downward) = &volume.downward_api {
        let path = path.child("downwardAPI");
        mode(downward.default_mode, &path.child("defaultMode"), errors);
        for (index, item) in downward.items.iter().flatten().enumerate() {
            relative(&item.path, &path.child("items").index(index).child("path"), errors);
        }
    }
}

fn files(default_mode: Option<i32>, items: &[core::KeyToPath], path: &FieldPath, errors: &mut Vec<FieldError>) {
    mode(default_mode, &path.child("defaultMode"), errors);
    for (index, item) in items.iter().enumerate() {
        let path = path.child("items").index(index);
        if item.key.is_empty() {
            errors.push(FieldError::required(path.child("key"), ""));
        }
        relative(&item.path, &path.child("path"), errors);
        mode(item.mode, &path.child("mode"), errors);
    }
}

fn mode(mode: Option<i32>, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if let Some(mode) = mode.filter(|mode| !(0..=0o777).contains(mode)) {
        let detail = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.push(FieldError::invalid(path.clone(), mode, detail));
    }
}

/// A path inside of the volume.
fn relative(file: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if file.is_empty() {
        errors.push(FieldError::required(path.clone(), ""));
    } else if file.starts_with('/') {
        errors.push(FieldError::invalid(path.clone(), file, "must be a relative path"));
    } else if file.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(path.clone(), file, "must not contain '..'"));
    } else if file.starts_with("..") {
        errors.push(FieldError::invalid(path.clone(), file, "must not start with '..'"));
    }
}
