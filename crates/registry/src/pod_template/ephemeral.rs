//! Checks of ephemeral containers.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1 as core;
use quorate_api::{FieldError, FieldPath, ephemeral};

use super::containers::{container_name, validate_container};
use super::volumes::Volumes;

const CANNOT: &str = "cannot be set for an Ephemeral Container";

/// Checks the ephemeral containers of a pod. `names` are those of its other containers.
pub fn validate<'a>(
    spec: &'a core::PodSpec,
    names: &BTreeSet<&'a str>,
    volumes: &Volumes<'_>,
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    let mut all_names = names.clone();
    for (index, container) in spec.ephemeral_containers.iter().flatten().enumerate() {
        let path = path.child("ephemeralContainers").index(index);
        container_name(&container.name, &mut all_names, &path, errors);
        let target = container.target_container_name.as_deref().unwrap_or_default();
        if !target.is_empty() && !names.contains(target) {
            errors.push(FieldError::not_found(path.child("targetContainerName"), target));
        }
        forbidden_fields(container, &path, errors);
        let mut plain = ephemeral::container(container);
        // These fields are forbidden, so their content is not worth a second error.
        (plain.lifecycle, plain.liveness_probe, plain.readiness_probe, plain.startup_probe) = (None, None, None, None);
        (plain.ports, plain.resources) = (None, None);
        validate_container(&plain, volumes, spec.host_network == Some(true), &path, errors);
        // A mount of a part of a volume is cleaned up only with the pod.
        for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
            let path = path.child("volumeMounts").index(index);
            for (field, value) in [("subPath", &mount.sub_path), ("subPathExpr", &mount.sub_path_expr)] {
                if value.as_ref().is_some_and(|value| !value.is_empty()) {
                    errors.push(FieldError::forbidden(path.child(field), CANNOT));
                }
            }
        }
    }
}

/// Refuses the fields of services that a pod relies on, which an ephemeral container must not be.
fn forbidden_fields(container: &core::EphemeralContainer, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let any = |list: Option<usize>| list.is_some_and(|count| count > 0);
    let resources = container.resources.as_ref().is_some_and(|resources| {
        any(resources.claims.as_ref().map(Vec::len))
            || any(resources.limits.as_ref().map(std::collections::BTreeMap::len))
            || any(resources.requests.as_ref().map(std::collections::BTreeMap::len))
    });
    for (field, is_set) in [
        ("ports", any(container.ports.as_ref().map(Vec::len))),
        ("resources", resources),
        ("resizePolicy", any(container.resize_policy.as_ref().map(Vec::len))),
        ("restartPolicy", container.restart_policy.is_some()),
        ("restartPolicyRules", any(container.restart_policy_rules.as_ref().map(Vec::len))),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
        ("lifecycle", container.lifecycle.is_some()),
    ] {
        if is_set {
            errors.push(FieldError::forbidden(path.child(field), CANNOT));
        }
    }
}
