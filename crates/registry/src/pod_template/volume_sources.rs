//! Checks of volume sources: each volume has exactly one, with its required fields.
//!
//! Paths and wording are Kubernetes', even where a path is not the one that a reader would expect.

use k8s_openapi::api::core::v1 as core;
use quorate_api::{FieldError, FieldPath, Quantity, name};

use super::claim_template;
use super::projections::{self, mode};
use crate::check;

const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
const PARTITION_RANGE: &str = "must be between 1 and 255, inclusive";
const LUN_RANGE: &str = "must be between 0 and 255, inclusive";
const ISCSI_FORM: &str = "must be valid format";

type Errors = Vec<FieldError>;

/// Checks the sources of one volume; only the first one counts.
struct Sources<'a> {
    path: &'a FieldPath,
    errors: &'a mut Errors,
    found: bool,
}

impl Sources<'_> {
    fn check<T>(&mut self, field: &str, source: Option<&T>, check: fn(&T, &FieldPath, &mut Errors)) {
        let Some(source) = source else { return };
        let path = self.path.child(field);
        if self.found {
            self.errors.push(FieldError::forbidden(path, "may not specify more than 1 volume type"));
        } else {
            self.found = true;
            check(source, &path, self.errors);
        }
    }
}

pub fn validate(volume: &core::Volume, path: &FieldPath, errors: &mut Errors) {
    let mut sources = Sources { path, errors, found: false };
    sources.check("emptyDir", volume.empty_dir.as_ref(), empty_dir);
    sources.check("hostPath", volume.host_path.as_ref(), host_path);
    sources.check("gitRepo", volume.git_repo.as_ref(), |source, path, errors| {
        required(&source.repository, &path.child("repository"), errors);
        projections::descending(source.directory.as_deref().unwrap_or_default(), &path.child("directory"), errors);
    });
    sources.check("gcePersistentDisk", volume.gce_persistent_disk.as_ref(), |source, path, errors| {
        required(&source.pd_name, &path.child("pdName"), errors);
        partition(source.partition, path, errors);
    });
    sources.check("awsElasticBlockStore", volume.aws_elastic_block_store.as_ref(), |source, path, errors| {
        required(&source.volume_id, &path.child("volumeID"), errors);
        partition(source.partition, path, errors);
    });
    sources.check("secret", volume.secret.as_ref(), |source, path, errors| {
        optional(source.secret_name.as_ref(), &path.child("secretName"), errors);
        mode(source.default_mode, &path.child("defaultMode"), errors);
        projections::files(source.items.as_deref().unwrap_or_default(), path, errors);
    });
    sources.check("nfs", volume.nfs.as_ref(), nfs);
    sources.check("iscsi", volume.iscsi.as_ref(), iscsi);
    sources.check("glusterfs", volume.glusterfs.as_ref(), |source, path, errors| {
        required(&source.endpoints, &path.child("endpoints"), errors);
        required(&source.path, &path.child("path"), errors);
    });
    sources.check("flocker", volume.flocker.as_ref(), flocker);
    sources.check("persistentVolumeClaim", volume.persistent_volume_claim.as_ref(), |source, path, errors| {
        required(&source.claim_name, &path.child("claimName"), errors);
    });
    sources.check("rbd", volume.rbd.as_ref(), |source, path, errors| {
        some(&source.monitors, &path.child("monitors"), errors);
        required(&source.image, &path.child("image"), errors);
    });
    sources.check("cinder", volume.cinder.as_ref(), |source, path, errors| {
        required(&source.volume_id, &path.child("volumeID"), errors);
        secret(source.secret_ref.as_ref(), &path.child("secretRef"), errors);
    });
    sources.check("cephfs", volume.cephfs.as_ref(), |source, path, errors| {
        some(&source.monitors, &path.child("monitors"), errors);
    });
    sources.check("quobyte", volume.quobyte.as_ref(), quobyte);
    sources.check("downwardAPI", volume.downward_api.as_ref(), |source, path, errors| {
        mode(source.default_mode, &path.child("defaultMode"), errors);
        for file in source.items.iter().flatten() {
            projections::downward_file(file, path, errors);
        }
    });
    sources.check("fc", volume.fc.as_ref(), fibre_channel);
    sources.check("flexVolume", volume.flex_volume.as_ref(), flex);
    sources.check("configMap", volume.config_map.as_ref(), |source, path, errors| {
        required(&source.name, &path.child("name"), errors);
        mode(source.default_mode, &path.child("defaultMode"), errors);
        projections::files(source.items.as_deref().unwrap_or_default(), path, errors);
    });
    sources.check("azureFile", volume.azure_file.as_ref(), |source, path, errors| {
        required(&source.secret_name, &path.child("secretName"), errors);
        required(&source.share_name, &path.child("shareName"), errors);
    });
    sources.check("vsphereVolume", volume.vsphere_volume.as_ref(), |source, path, errors| {
        required(&source.volume_path, &path.child("volumePath"), errors);
    });
    sources.check("photonPersistentDisk", volume.photon_persistent_disk.as_ref(), |source, path, errors| {
        required(&source.pd_id, &path.child("pdID"), errors);
    });
    sources.check("portworxVolume", volume.portworx_volume.as_ref(), |source, path, errors| {
        required(&source.volume_id, &path.child("volumeID"), errors);
    });
    sources.check("azureDisk", volume.azure_disk.as_ref(), azure_disk);
    sources.check("storageos", volume.storageos.as_ref(), storage_os);
    sources.check("projected", volume.projected.as_ref(), projections::validate);
    sources.check("scaleIO", volume.scale_io.as_ref(), |source, path, errors| {
        required(&source.gateway, &path.child("gateway"), errors);
        required(&source.system, &path.child("system"), errors);
        optional(source.volume_name.as_ref(), &path.child("volumeName"), errors);
    });
    sources.check("csi", volume.csi.as_ref(), csi);
    sources.check("ephemeral", volume.ephemeral.as_ref(), |source, path, errors| {
        let path = path.child("volumeClaimTemplate");
        match &source.volume_claim_template {
            Some(template) => claim_template::validate(template, &path, errors),
            None => errors.push(FieldError::required(path, "")),
        }
    });
    sources.check("image", volume.image.as_ref(), |source, path, errors| {
        let policies = &["Always", "IfNotPresent", "Never"];
        check::one_of(source.pull_policy.as_deref(), policies, path.child("pullPolicy"), errors);
    });
    if !sources.found {
        errors.push(FieldError::required(path.clone(), "must specify a volume type"));
    }
    if let Some(source) = volume.iscsi.as_ref().filter(|source| source.initiator_name.is_some())
        && volume.name.len() + 1 + source.target_portal.len() > 64
    {
        let detail = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
        errors.push(FieldError::invalid(path.child("name"), &volume.name, detail));
    }
}

fn required(value: &str, path: &FieldPath, errors: &mut Errors) {
    if value.is_empty() {
        errors.push(FieldError::required(path.clone(), ""));
    }
}

fn optional(value: Option<&String>, path: &FieldPath, errors: &mut Errors) {
    required(value.map_or("", String::as_str), path, errors);
}

fn some(list: &[String], path: &FieldPath, errors: &mut Errors) {
    if list.is_empty() {
        errors.push(FieldError::required(path.clone(), ""));
    }
}

fn secret(reference: Option<&core::LocalObjectReference>, path: &FieldPath, errors: &mut Errors) {
    if let Some(reference) = reference {
        required(&reference.name, &path.child("name"), errors);
    }
}

fn partition(partition: Option<i32>, path: &FieldPath, errors: &mut Errors) {
    if let Some(partition) = partition.filter(|partition| !(0..=255).contains(partition)) {
        errors.push(FieldError::invalid(path.child("partition"), partition, PARTITION_RANGE));
    }
}

fn lun(lun: i32, path: &FieldPath, errors: &mut Errors) {
    if !(0..=255).contains(&lun) {
        errors.push(FieldError::invalid(path.child("lun"), lun, LUN_RANGE));
    }
}

fn empty_dir(source: &core::EmptyDirVolumeSource, path: &FieldPath, errors: &mut Errors) {
    let Some(limit) = &source.size_limit else { return };
    let path = path.child("sizeLimit");
    match Quantity::try_from(limit) {
        Err(error) => errors.push(FieldError::invalid(path, &limit.0, error.to_string())),
        Ok(limit) if limit.is_negative() => {
            errors.push(FieldError::forbidden(path, "SizeLimit field must be a valid resource quantity"));
        }
        Ok(_) => {}
    }
}

fn host_path(source: &core::HostPathVolumeSource, path: &FieldPath, errors: &mut Errors) {
    if source.path.is_empty() {
        errors.push(FieldError::required(path.child("path"), ""));
        return;
    }
    projections::no_backsteps(&source.path, &path.child("path"), errors);
    check::one_of_if_set(source.type_.as_deref(), HOST_PATH_TYPES, path.child("type"), errors);
}

fn nfs(source: &core::NFSVolumeSource, path: &FieldPath, errors: &mut Errors) {
    required(&source.server, &path.child("server"), errors);
    required(&source.path, &path.child("path"), errors);
    if !source.path.starts_with('/') {
        errors.push(FieldError::invalid(path.child("path"), &source.path, "must be an absolute path"));
    }
}

fn iscsi(source: &core::ISCSIVolumeSource, path: &FieldPath, errors: &mut Errors) {
    required(&source.target_portal, &path.child("targetPortal"), errors);
    required(&source.iqn, &path.child("iqn"), errors);
    if !source.iqn.is_empty() {
        iscsi_name(&source.iqn, &path.child("iqn"), errors);
    }
    lun(source.lun, path, errors);
    let authenticates = source.chap_auth_discovery == Some(true) || source.chap_auth_session == Some(true);
    if authenticates && source.secret_ref.is_none() {
        errors.push(FieldError::required(path.child("secretRef"), ""));
    }
    if let Some(initiator) = &source.initiator_name {
        iscsi_name(initiator, &path.child("initiatorname"), errors);
    }
}

/// Checks an iSCSI name: `iqn.2026-01.com.example:disk`, or the hexadecimal forms `eui.…` and `naa.…`.
fn iscsi_name(name: &str, path: &FieldPath, errors: &mut Errors) {
    let alphanumeric =
        |text: &str, length: usize| text.len() == length && text.bytes().all(|b| b.is_ascii_alphanumeric());
    let fits = match name.get(..3) {
        Some("iqn") => is_qualified_name(&name[3..]),
        Some("eui") => name.get(4..).is_some_and(|rest| alphanumeric(rest, 16)),
        Some("naa") => name.get(4..).is_some_and(|rest| alphanumeric(rest, 32)),
        _ => {
            let detail = "must be valid format starting with iqn, eui, or naa";
            errors.push(FieldError::invalid(path.clone(), name, detail));
            return;
        }
    };
    if !fits {
        errors.push(FieldError::invalid(path.clone(), name, ISCSI_FORM));
    }
}

/// Checks the part after `iqn`, such as `.2026-01.com.example:disk`.
fn is_qualified_name(rest: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let Some((authority, target)) = rest.split_once(':') else { return false };
    let Some(authority) = authority.strip_prefix('.') else { return false };
    let (Some(year), Some("-"), Some(month), Some(".")) =
        (authority.get(..4), authority.get(4..5), authority.get(5..7), authority.get(7..8))
    else {
        return false;
    };
    let domain = &authority[8..];
    digits(year)
        && digits(month)
        && !domain.is_empty()
        && domain.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
        && !target.is_empty()
        && !target.contains(|c: char| c.is_whitespace() || ",;*&$|".contains(c))
}

fn flocker(source: &core::FlockerVolumeSource, path: &FieldPath, errors: &mut Errors) {
    let dataset = source.dataset_name.as_deref().unwrap_or_default();
    let uuid = source.dataset_uuid.as_deref().unwrap_or_default();
    match (dataset.is_empty(), uuid.is_empty()) {
        (true, true) => {
            errors.push(FieldError::required(path.clone(), "one of datasetName and datasetUUID is required"));
        }
        (false, false) => {
            let detail = "datasetName and datasetUUID can not be specified simultaneously";
            errors.push(FieldError::invalid(path.clone(), "resource", detail));
        }
        _ => {}
    }
    if dataset.contains('/') {
        errors.push(FieldError::invalid(path.child("datasetName"), dataset, "must not contain '/'"));
    }
}

fn quobyte(source: &core::QuobyteVolumeSource, path: &FieldPath, errors: &mut Errors) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    if source.registry.is_empty() {
        errors.push(FieldError::required(path.child("registry"), PAIRS));
    } else if source.tenant.as_ref().is_some_and(|tenant| tenant.len() > 64) {
        let detail = "must be a UUID and may not exceed a length of 64 characters";
        errors.push(FieldError::required(path.child("tenant"), detail));
    } else {
        let pairs = source.registry.split(',').filter(|pair| !is_host_and_port(pair));
        errors.extend(pairs.map(|_| FieldError::invalid(path.child("registry"), &source.registry, PAIRS)));
    }
    required(&source.volume, &path.child("volume"), errors);
}

/// Returns whether `pair` is `host:port`, with brackets around an IPv6 address.
fn is_host_and_port(pair: &str) -> bool {
    match pair.rsplit_once(':') {
        Some((host, _)) if host.starts_with('[') => host.ends_with(']'),
        Some((host, _)) => !host.contains(':'),
        None => false,
    }
}

fn fibre_channel(source: &core::FCVolumeSource, path: &FieldPath, errors: &mut Errors) {
    let targets = source.target_wwns.as_deref().unwrap_or_default();
    let wwids = source.wwids.as_deref().unwrap_or_default();
    let at = path.child("targetWWNs");
    if targets.is_empty() && wwids.is_empty() {
        let detail = "must specify either targetWWNs or wwids, but not both";
        errors.push(FieldError::required(at, detail));
    } else if !targets.is_empty() && !wwids.is_empty() {
        errors.push(FieldError::invalid(at, targets, "targetWWNs and wwids can not be specified simultaneously"));
    }
    if !targets.is_empty() {
        match source.lun {
            Some(number) => lun(number, path, errors),
            None => {
                errors.push(FieldError::required(path.child("lun"), "lun is required if targetWWNs is specified"));
            }
        }
    }
}

fn flex(source: &core::FlexVolumeSource, path: &FieldPath, errors: &mut Errors) {
    required(&source.driver, &path.child("driver"), errors);
    for key in source.options.iter().flatten().map(|(key, _)| key) {
        let namespace = key.split_once('/').map_or(key.as_str(), |(namespace, _)| namespace);
        let namespace = format!(".{}", namespace.to_lowercase());
        if namespace.ends_with(".kubernetes.io") || namespace.ends_with(".k8s.io") {
            let detail = "kubernetes.io and k8s.io namespaces are reserved";
            errors.push(FieldError::invalid(path.child("options").key(key), key, detail));
        }
    }
}

fn azure_disk(source: &core::AzureDiskVolumeSource, path: &FieldPath, errors: &mut Errors) {
    const MANAGED: &str =
        "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
    const BLOB: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    required(&source.disk_name, &path.child("diskName"), errors);
    required(&source.disk_uri, &path.child("diskURI"), errors);
    let caching = &["None", "ReadOnly", "ReadWrite"];
    check::one_of_if_set(source.caching_mode.as_deref(), caching, path.child("cachingMode"), errors);
    let kind = source.kind.as_deref();
    check::one_of_if_set(kind, &["Dedicated", "Managed", "Shared"], path.child("kind"), errors);
    let (prefix, form) = if kind == Some("Managed") { ("/subscriptions/", MANAGED) } else { ("https://", BLOB) };
    if kind.is_some() && !source.disk_uri.starts_with(prefix) {
        errors.push(FieldError::not_supported(path.child("diskURI"), &source.disk_uri, &[form]));
    }
}

fn storage_os(source: &core::StorageOSVolumeSource, path: &FieldPath, errors: &mut Errors) {
    let volume = source.volume_name.as_deref().unwrap_or_default();
    check::required_name(volume, name::dns1123_label, &path.child("volumeName"), errors);
    if let Some(namespace) = source.volume_namespace.as_deref().filter(|namespace| !namespace.is_empty()) {
        check::named(namespace, name::dns1123_label, &path.child("volumeNamespace"), errors);
    }
    secret(source.secret_ref.as_ref(), &path.child("secretRef"), errors);
}

fn csi(source: &core::CSIVolumeSource, path: &FieldPath, errors: &mut Errors) {
    const MAX_DRIVER_BYTES: usize = 63;
    let at = path.child("driver");
    required(&source.driver, &at, errors);
    if source.driver.len() > MAX_DRIVER_BYTES {
        errors.push(FieldError::too_long(at.clone(), MAX_DRIVER_BYTES));
    }
    let problems = name::dns1123_subdomain(&source.driver.to_lowercase());
    errors.extend(problems.into_iter().map(|problem| FieldError::invalid(at.clone(), &source.driver, problem)));
    if let Some(reference) = &source.node_publish_secret_ref {
        if reference.name.is_empty() {
            errors.push(FieldError::required(path.child("nodePublishSecretRef").child("name"), ""));
        } else {
            check::named(&reference.name, name::dns1123_subdomain, &path.child("name"), errors);
        }
    }
}
