//! Checks of projected files: keys of Secrets and ConfigMaps, fields of the pod, tokens, certificates.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1 as core;
use quorate_api::{FieldError, FieldPath, LabelSelector, Quantity, name};

use crate::check;

const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const HUGE_PAGES: [&str; 2] = ["limits.hugepages-", "requests.hugepages-"];
/// Fields that a file can show.
const FILE_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
/// Fields that only environment variables can show.
const OTHER_FIELDS: &[&str] = &[
    "spec.host",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.phase",
    "status.podIP",
    "status.podIPs",
];
const KEY_TYPES: &[&str] = &["ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519", "RSA3072", "RSA4096"];
const MIN_TOKEN_SECONDS: i64 = 600;
const MAX_TOKEN_SECONDS: i64 = 1 << 32;

type Errors = Vec<FieldError>;

/// Checks a `projected` volume.
pub fn validate(source: &core::ProjectedVolumeSource, path: &FieldPath, errors: &mut Errors) {
    mode(source.default_mode, &path.child("defaultMode"), errors);
    let mut paths = BTreeSet::new();
    for (index, source) in source.sources.iter().flatten().enumerate() {
        projection(source, &path.child("sources").index(index), path, &mut paths, errors);
    }
}

fn projection<'a>(
    source: &'a core::VolumeProjection,
    at: &FieldPath,
    volume: &FieldPath,
    paths: &mut BTreeSet<&'a str>,
    errors: &mut Errors,
) {
    let mut kinds = 0;
    let mut keys = |items: &'a Option<Vec<core::KeyToPath>>, name: &str, at: &FieldPath, errors: &mut Errors| {
        if name.is_empty() {
            errors.push(FieldError::required(at.child("name"), ""));
        }
        for (index, item) in items.iter().flatten().enumerate() {
            key_to_path(item, &at.child("items").index(index), errors);
            claim(&item.path, name, volume, paths, errors);
        }
    };
    if let Some(secret) = &source.secret {
        kinds += 1;
        keys(&secret.items, &secret.name, &at.child("secret"), errors);
    }
    if let Some(map) = &source.config_map {
        kinds += 1;
        keys(&map.items, &map.name, &at.child("configMap"), errors);
    }
    if let Some(downward) = &source.downward_api {
        kinds += 1;
        for file in downward.items.iter().flatten() {
            downward_file(file, &at.child("downwardAPI"), errors);
            claim(&file.path, &file.path, volume, paths, errors);
        }
    }
    if let Some(token) = &source.service_account_token {
        kinds += 1;
        service_account_token(token, &at.child("serviceAccountToken"), volume, errors);
    }
    if let Some(bundle) = &source.cluster_trust_bundle {
        kinds += 1;
        cluster_trust_bundle(bundle, &at.child("clusterTrustBundle"), errors);
        claim(&bundle.path, &bundle.path, volume, paths, errors);
    }
    if let Some(certificate) = &source.pod_certificate {
        kinds += 1;
        pod_certificate(certificate, &at.child("podCertificate"), errors);
        for file in certificate_paths(certificate).map(|(_, file)| file) {
            claim(file, file, volume, paths, errors);
        }
    }
    if kinds > 1 {
        errors.push(FieldError::forbidden(at.clone(), "may not specify more than 1 volume type per source"));
    }
}

/// Records a file's path, and refuses it if another source already writes it.
fn claim<'a>(file: &'a str, shown: &str, path: &FieldPath, paths: &mut BTreeSet<&'a str>, errors: &mut Errors) {
    if !file.is_empty() && !paths.insert(file) {
        errors.push(FieldError::invalid(path.clone(), shown, "conflicting duplicate paths"));
    }
}

fn service_account_token(
    token: &core::ServiceAccountTokenProjection,
    path: &FieldPath,
    volume: &FieldPath,
    errors: &mut Errors,
) {
    let seconds = token.expiration_seconds.unwrap_or_default();
    let at = path.child("expirationSeconds");
    if seconds < MIN_TOKEN_SECONDS {
        errors.push(FieldError::invalid(at, seconds, "may not specify a duration less than 10 minutes"));
    } else if seconds > MAX_TOKEN_SECONDS {
        errors.push(FieldError::invalid(at, seconds, "may not specify a duration larger than 2^32 seconds"));
    }
    if token.path.is_empty() {
        errors.push(FieldError::required(volume.child("path"), ""));
    } else {
        inside(&token.path, &volume.child("path"), errors);
    }
}

fn cluster_trust_bundle(bundle: &core::ClusterTrustBundleProjection, path: &FieldPath, errors: &mut Errors) {
    match (&bundle.name, &bundle.signer_name) {
        (Some(_), Some(_)) => {
            errors.push(FieldError::invalid(path.clone(), bundle, "only one of name and signerName may be used"));
        }
        (Some(name), None) => {
            if name.is_empty() {
                errors.push(FieldError::required(path.child("name"), "must be a valid object name"));
            }
            if let Some(selector) = &bundle.label_selector {
                let detail = "labelSelector must be unset if name is specified";
                errors.push(FieldError::invalid(path.child("labelSelector"), selector, detail));
            }
        }
        (None, Some(signer)) => {
            if signer.is_empty() {
                errors.push(FieldError::required(path.child("signerName"), "must be a valid signer name"));
            }
            if let Some(Err(error)) = bundle.label_selector.as_ref().map(LabelSelector::from_object) {
                let at = path.child("labelSelector");
                errors.push(FieldError::invalid(at, &bundle.label_selector, error.to_string()));
            }
        }
        (None, None) => {
            errors.push(FieldError::required(path.clone(), "either name or signerName must be specified"));
        }
    }
    required_inside(&bundle.path, &path.child("path"), errors);
}

fn pod_certificate(certificate: &core::PodCertificateProjection, path: &FieldPath, errors: &mut Errors) {
    if certificate.signer_name.is_empty() {
        errors.push(FieldError::required(path.child("signerName"), ""));
    }
    if !KEY_TYPES.contains(&certificate.key_type.as_str()) {
        errors.push(FieldError::not_supported(path.child("keyType"), &certificate.key_type, KEY_TYPES));
    }
    let mut files = 0;
    for (field, file) in certificate_paths(certificate) {
        files += 1;
        inside(file, &path.child(field), errors);
    }
    if files == 0 {
        let detail = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        errors.push(FieldError::required(path.clone(), detail));
    }
}

fn certificate_paths(certificate: &core::PodCertificateProjection) -> impl Iterator<Item = (&'static str, &str)> {
    [
        ("credentialBundlePath", &certificate.credential_bundle_path),
        ("keyPath", &certificate.key_path),
        ("certificateChainPath", &certificate.certificate_chain_path),
    ]
    .into_iter()
    .filter_map(|(field, file)| Some((field, file.as_deref().filter(|file| !file.is_empty())?)))
}

/// Checks a file that shows a field of the pod or a resource of one of its containers.
pub fn downward_file(file: &core::DownwardAPIVolumeFile, path: &FieldPath, errors: &mut Errors) {
    required_inside(&file.path, &path.child("path"), errors);
    match (&file.field_ref, &file.resource_field_ref) {
        (None, None) => {
            errors.push(FieldError::required(path.clone(), "one of fieldRef and resourceFieldRef is required"));
        }
        (Some(field), resource) => {
            file_field(&field.field_path, &path.child("fieldRef"), errors);
            if resource.is_some() {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(FieldError::invalid(path.clone(), "resource", detail));
            }
        }
        (None, Some(resource)) => resource_field(resource, &path.child("resourceFieldRef"), errors),
    }
    mode(file.mode, &path.child("mode"), errors);
}

fn file_field(field: &str, path: &FieldPath, errors: &mut Errors) {
    let at = path.child("fieldPath");
    let subscript = field.strip_suffix("']").and_then(|rest| rest.split_once("['"));
    match subscript {
        _ if field.is_empty() => errors.push(FieldError::required(at, "")),
        Some(("metadata.annotations", key)) => {
            check::named(&key.to_lowercase(), name::qualified_name, path, errors);
        }
        Some(("metadata.labels", key)) => check::named(key, name::qualified_name, path, errors),
        Some((map, _)) if FILE_FIELDS.contains(&map) || OTHER_FIELDS.contains(&map) => {
            errors.push(FieldError::invalid(path.clone(), map, "does not support subscript"));
        }
        None if FILE_FIELDS.contains(&field) => {}
        None if OTHER_FIELDS.contains(&field) => {
            errors.push(FieldError::not_supported(at, field, FILE_FIELDS));
        }
        _ => {
            let detail = format!("error converting fieldPath: field label not supported: {field}");
            errors.push(FieldError::invalid(at, field, detail));
        }
    }
}

fn resource_field(selector: &core::ResourceFieldSelector, path: &FieldPath, errors: &mut Errors) {
    let resource = selector.resource.as_str();
    let is_known = RESOURCES.contains(&resource) || HUGE_PAGES.iter().any(|prefix| resource.starts_with(prefix));
    if selector.container_name.as_ref().is_none_or(String::is_empty) {
        errors.push(FieldError::required(path.child("containerName"), ""));
    } else if resource.is_empty() {
        errors.push(FieldError::required(path.child("resource"), ""));
    } else if !is_known {
        errors.push(FieldError::not_supported(path.child("resource"), resource, RESOURCES));
    }
    divisor(selector, path, errors);
}

fn divisor(selector: &core::ResourceFieldSelector, path: &FieldPath, errors: &mut Errors) {
    const BYTES: &str = "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei";
    let Some(Ok(divisor)) = selector.divisor.as_ref().map(Quantity::try_from) else { return };
    if divisor.is_zero() {
        return;
    }
    let (supported, resource) = match selector.resource.rsplit_once('.').map_or("", |(_, resource)| resource) {
        "cpu" => ("1m, 1", "cpu"),
        "memory" => (BYTES, "memory"),
        "ephemeral-storage" => (BYTES, "local ephemeral storage"),
        hugepages if hugepages.starts_with("hugepages-") => (BYTES, "hugepages"),
        _ => return,
    };
    let divisor = divisor.to_string();
    if !supported.split(", ").any(|known| known == divisor) {
        let known = if resource == "cpu" { "1m and 1" } else { supported };
        let detail = format!("only divisor's values {known} are supported with the {resource} resource");
        errors.push(FieldError::invalid(path.child("divisor"), &selector.resource, detail));
    }
}

/// Checks the keys of a Secret or ConfigMap that become files.
pub fn files(items: &[core::KeyToPath], path: &FieldPath, errors: &mut Errors) {
    for (index, item) in items.iter().enumerate() {
        key_to_path(item, &path.child("items").index(index), errors);
    }
}

fn key_to_path(item: &core::KeyToPath, path: &FieldPath, errors: &mut Errors) {
    if item.key.is_empty() {
        errors.push(FieldError::required(path.child("key"), ""));
    }
    required_inside(&item.path, &path.child("path"), errors);
    mode(item.mode, &path.child("mode"), errors);
}

pub fn mode(mode: Option<i32>, path: &FieldPath, errors: &mut Errors) {
    if let Some(mode) = mode.filter(|mode| !(0..=0o777).contains(mode)) {
        let detail = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.push(FieldError::invalid(path.clone(), mode, detail));
    }
}

fn required_inside(file: &str, path: &FieldPath, errors: &mut Errors) {
    if file.is_empty() {
        errors.push(FieldError::required(path.clone(), ""));
    }
    inside(file, path, errors);
}

/// Checks that a path stays inside of the volume and does not begin with `..`, like the node's own files there.
fn inside(file: &str, path: &FieldPath, errors: &mut Errors) {
    descending(file, path, errors);
    if file.starts_with("..") && !file.starts_with("../") {
        errors.push(FieldError::invalid(path.clone(), file, "must not start with '..'"));
    }
}

/// Checks that a path is relative and has no `..` in it.
pub fn descending(file: &str, path: &FieldPath, errors: &mut Errors) {
    if file.starts_with('/') {
        errors.push(FieldError::invalid(path.clone(), file, "must be a relative path"));
    }
    no_backsteps(file, path, errors);
}

pub fn no_backsteps(file: &str, path: &FieldPath, errors: &mut Errors) {
    if file.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(path.clone(), file, "must not contain '..'"));
    }
}
