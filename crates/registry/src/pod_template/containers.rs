//! Checks of containers.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1 as core;
use quorate_api::{FieldError, FieldPath, name};

use super::volumes::Volumes;
use super::{ephemeral, probes, resources, security};
use crate::check;

const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const MESSAGE_POLICIES: &[&str] = &["FallbackToLogsOnError", "File"];

/// Checks all containers of a pod. Names are unique over all of them, host ports over the ordinary ones.
pub fn validate(spec: &core::PodSpec, volumes: &Volumes<'_>, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if spec.containers.is_empty() {
        errors.push(FieldError::required(path.child("containers"), ""));
    }
    let mut names = BTreeSet::new();
    let mut host_ports = BTreeSet::new();
    let host_network = spec.host_network == Some(true);
    for (index, container) in spec.containers.iter().enumerate() {
        let path = path.child("containers").index(index);
        container_name(&container.name, &mut names, &path, errors);
        resources::resize_policy(spec, container, &path.child("resizePolicy"), errors);
        validate_container(container, volumes, host_network, &path, errors);
        for (index, port) in container.ports.iter().flatten().enumerate() {
            let Some(host_port) = port.host_port.filter(|port| *port != 0) else { continue };
            let key = (port.protocol.as_deref(), port.host_ip.as_deref(), host_port);
            if !host_ports.insert(key) {
                let path = path.child("ports").index(index).child("hostPort");
                errors.push(FieldError::duplicate(path, host_port));
            }
        }
        if container.restart_policy.is_some() && container.restart_policy_rules.is_none() {
            one_of_restart(container, &["Always", "Never", "OnFailure"], &path, errors);
        }
    }
    for (index, container) in spec.init_containers.iter().flatten().enumerate() {
        let path = path.child("initContainers").index(index);
        container_name(&container.name, &mut names, &path, errors);
        resources::resize_policy(spec, container, &path.child("resizePolicy"), errors);
        validate_container(container, volumes, host_network, &path, errors);
        one_of_restart(container, &["Always", "Never", "OnFailure"], &path, errors);
        if container.restart_policy.as_deref() != Some("Always") {
            let probes = [
                ("lifecycle", container.lifecycle.is_some()),
                ("livenessProbe", container.liveness_probe.is_some()),
                ("readinessProbe", container.readiness_probe.is_some()),
                ("startupProbe", container.startup_probe.is_some()),
            ];
            for (field, _) in probes.into_iter().filter(|(_, present)| *present) {
                let detail = "may not be set for init containers without restartPolicy=Always";
                errors.push(FieldError::forbidden(path.child(field), detail));
            }
        }
    }
    ephemeral::validate(spec, &names, volumes, path, errors);
}

fn one_of_restart(container: &core::Container, policies: &[&str], path: &FieldPath, errors: &mut Vec<FieldError>) {
    check::one_of_if_set(container.restart_policy.as_deref(), policies, path.child("restartPolicy"), errors);
}

pub(super) fn container_name<'a>(
    name: &'a str,
    names: &mut BTreeSet<&'a str>,
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    check::required_name(name, name::dns1123_label, &path.child("name"), errors);
    if !name.is_empty() && !names.insert(name) {
        errors.push(FieldError::duplicate(path.child("name"), name));
    }
}

pub(super) fn validate_container(
    container: &core::Container,
    volumes: &Volumes<'_>,
    host_network: bool,
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    match container.image.as_deref().unwrap_or_default() {
        "" => errors.push(FieldError::required(path.child("image"), "")),
        image if image.trim() != image => {
            let detail = "must not have leading or trailing whitespace";
            errors.push(FieldError::invalid(path.child("image"), image, detail));
        }
        _ => {}
    }
    check::one_of(container.image_pull_policy.as_deref(), PULL_POLICIES, path.child("imagePullPolicy"), errors);
    let policy = container.termination_message_policy.as_deref();
    check::one_of(policy, MESSAGE_POLICIES, path.child("terminationMessagePolicy"), errors);
    ports(container.ports.as_deref().unwrap_or_default(), host_network, &path.child("ports"), errors);
    env(container.env.as_deref().unwrap_or_default(), &path.child("env"), errors);
    env_from(container.env_from.as_deref().unwrap_or_default(), &path.child("envFrom"), errors);
    mounts(container.volume_mounts.as_deref().unwrap_or_default(), volumes, &path.child("volumeMounts"), errors);
    if let Some(requirements) = &container.resources {
        resources::validate(requirements, &path.child("resources"), errors);
    }
    probes::validate(container, path, errors);
    if let Some(context) = &container.security_context {
        security::container(context, &path.child("securityContext"), errors);
    }
}

fn ports(ports: &[core::ContainerPort], host_network: bool, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let mut names = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            check::named(name, check::port_name, &path.child("name"), errors);
            if !names.insert(name) {
                errors.push(FieldError::duplicate(path.child("name"), name));
            }
        }
        if port.container_port == 0 {
            errors.push(FieldError::required(path.child("containerPort"), ""));
        } else {
            check::port_number(port.container_port, path.child("containerPort"), errors);
        }
        if let Some(host_port) = port.host_port.filter(|port| *port != 0) {
            check::port_number(host_port, path.child("hostPort"), errors);
            if host_network && host_port != port.container_port {
                let detail = "must match `hostPort` when `hostNetwork` is true";
                errors.push(FieldError::invalid(path.child("containerPort"), port.container_port, detail));
            }
        }
        check::one_of(port.protocol.as_deref(), check::PROTOCOLS, path.child("protocol"), errors);
    }
}

fn env(variables: &[core::EnvVar], path: &FieldPath, errors: &mut Vec<FieldError>) {
    for (index, variable) in variables.iter().enumerate() {
        let path = path.index(index);
        check::required_name(&variable.name, env_name, &path.child("name"), errors);
        let Some(from) = &variable.value_from else { continue };
        let path = path.child("valueFrom");
        let sources = [
            from.config_map_key_ref.is_some(),
            from.field_ref.is_some(),
            from.file_key_ref.is_some(),
            from.resource_field_ref.is_some(),
            from.secret_key_ref.is_some(),
        ];
        match sources.into_iter().filter(|present| *present).count() {
            0 => {
                let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
                errors.push(FieldError::invalid(path.clone(), "", detail));
            }
            1 => {}
            _ => {
                let detail = "may not have more than one field specified at a time";
                errors.push(FieldError::invalid(path.clone(), "", detail));
            }
        }
        if variable.value.as_deref().is_some_and(|value| !value.is_empty()) {
            errors.push(FieldError::invalid(path.clone(), "", "may not be specified when `value` is not empty"));
        }
        if let Some(reference) = &from.config_map_key_ref {
            key_reference(&reference.name, &reference.key, &path.child("configMapKeyRef"), errors);
        }
        if let Some(reference) = &from.secret_key_ref {
            key_reference(&reference.name, &reference.key, &path.child("secretKeyRef"), errors);
        }
        if let Some(reference) = &from.field_ref {
            field_reference(&reference.field_path, &path.child("fieldRef").child("fieldPath"), errors);
        }
    }
}

fn key_reference(name: &str, key: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if !name.is_empty() {
        check::named(name, name::dns1123_subdomain, &path.child("name"), errors);
    }
    if key.is_empty() {
        errors.push(FieldError::required(path.child("key"), ""));
    } else {
        check::data_key(key, &path.child("key"), errors);
    }
}

const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

fn field_reference(field: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let subscripted = ["metadata.labels['", "metadata.annotations['"]
        .iter()
        .any(|prefix| field.strip_prefix(prefix).is_some_and(|rest| rest.ends_with("']")));
    if field.is_empty() {
        errors.push(FieldError::required(path.clone(), ""));
    } else if !subscripted && !ENV_FIELDS.contains(&field) {
        errors.push(FieldError::not_supported(path.clone(), field, ENV_FIELDS));
    }
}

fn env_from(sources: &[core::EnvFromSource], path: &FieldPath, errors: &mut Vec<FieldError>) {
    for (index, source) in sources.iter().enumerate() {
        let path = path.index(index);
        if let Some(prefix) = source.prefix.as_deref().filter(|prefix| !prefix.is_empty()) {
            check::named(prefix, env_name, &path.child("prefix"), errors);
        }
        match (&source.config_map_ref, &source.secret_ref) {
            (None, None) => {
                let detail = "must specify one of: `configMapRef` or `secretRef`";
                errors.push(FieldError::invalid(path, "", detail));
            }
            (Some(_), Some(_)) => {
                let detail = "may not have more than one field specified at a time";
                errors.push(FieldError::invalid(path, "", detail));
            }
            (Some(reference), None) => {
                check::reference(&reference.name, &path.child("configMapRef").child("name"), errors);
            }
            (None, Some(reference)) => {
                check::reference(&reference.name, &path.child("secretRef").child("name"), errors);
            }
        }
    }
}

/// Checks the name of an environment variable: any printable ASCII except `=`.
fn env_name(name: &str) -> Vec<String> {
    let fits = name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=');
    if fits {
        Vec::new()
    } else {
        vec![
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        ]
    }
}

fn mounts(mounts: &[core::VolumeMount], volumes: &Volumes<'_>, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let mut paths: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, mount) in mounts.iter().enumerate() {
        let path = path.index(index);
        if mount.name.is_empty() {
            errors.push(FieldError::required(path.child("name"), ""));
        } else if !volumes.contains_key(mount.name.as_str()) {
            errors.push(FieldError::not_found(path.child("name"), &mount.name));
        }
        if mount.mount_path.is_empty() {
            errors.push(FieldError::required(path.child("mountPath"), ""));
        } else if paths.insert(&mount.mount_path, index).is_some() {
            let error = FieldError::invalid(path.child("mountPath"), &mount.mount_path, "must be unique");
            errors.push(error);
        }
        let sub_path = mount.sub_path.as_deref().unwrap_or_default();
        if sub_path.starts_with('/') {
            errors.push(FieldError::invalid(path.child("subPath"), sub_path, "must be a relative path"));
        }
        if sub_path.split('/').any(|part| part == "..") {
            errors.push(FieldError::invalid(path.child("subPath"), sub_path, "must not contain '..'"));
        }
        let expression = mount.sub_path_expr.as_deref().unwrap_or_default();
        if !sub_path.is_empty() && !expression.is_empty() {
            let detail = "subPathExpr and subPath are mutually exclusive";
            errors.push(FieldError::invalid(path.child("subPathExpr"), expression, detail));
        }
    }
}
