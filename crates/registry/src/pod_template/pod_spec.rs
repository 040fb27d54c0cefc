//! Checks of the pod spec as a whole.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1 as core;
use quorate_api::{FieldError, FieldPath, name};

use super::{containers, scheduling, security, volumes};
use crate::check;
use crate::metadata;

const RESTART_POLICIES: &[&str] = &["Always", "Never", "OnFailure"];
const DNS_POLICIES: &[&str] = &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];

/// The kind that owns a template, and its rules for the template's pods.
pub struct TemplateOwner {
    pub kind: &'static str,
    pub restart_policies: &'static [&'static str],
    /// The pods may have a deadline of their own.
    pub allows_deadline: bool,
}

/// Checks a workload's template: its labels, annotations and spec, and the owner's rules.
pub fn validate_template(
    template: &core::PodTemplateSpec,
    owner: &TemplateOwner,
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    if let Some(meta) = &template.metadata {
        let path = path.child("metadata");
        metadata::labels(meta.labels.iter().flatten(), &path.child("labels"), errors);
        metadata::annotations(meta.annotations.iter().flatten(), &path.child("annotations"), errors);
    }
    let path = path.child("spec");
    let Some(spec) = &template.spec else {
        errors.push(FieldError::required(path.child("containers"), ""));
        return;
    };
    validate_spec(spec, &path, errors);
    if spec.ephemeral_containers.as_ref().is_some_and(|containers| !containers.is_empty()) {
        let detail = "ephemeral containers not allowed in pod template";
        errors.push(FieldError::forbidden(path.child("ephemeralContainers"), detail));
    }
    let policy = spec.restart_policy.as_deref().unwrap_or_default();
    if !owner.restart_policies.contains(&policy) {
        errors.push(FieldError::not_supported(path.child("restartPolicy"), policy, owner.restart_policies));
    }
    if spec.active_deadline_seconds.is_some() && !owner.allows_deadline {
        let detail = format!("activeDeadlineSeconds in {} is not Supported", owner.kind);
        errors.push(FieldError::forbidden(path.child("activeDeadlineSeconds"), detail));
    }
}

pub fn validate_spec(spec: &core::PodSpec, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let volumes = volumes::validate(spec.volumes.as_deref().unwrap_or_default(), &path.child("volumes"), errors);
    containers::validate(spec, &volumes, path, errors);
    check::one_of(spec.restart_policy.as_deref(), RESTART_POLICIES, path.child("restartPolicy"), errors);
    check::one_of(spec.dns_policy.as_deref(), DNS_POLICIES, path.child("dnsPolicy"), errors);
    dns_config(spec, path, errors);
    if let Some(seconds) = spec.termination_grace_period_seconds {
        check::non_negative(seconds, path.child("terminationGracePeriodSeconds"), errors);
    }
    if let Some(seconds) = spec.active_deadline_seconds
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        let detail = "must be between 1 and 2147483647, inclusive";
        errors.push(FieldError::invalid(path.child("activeDeadlineSeconds"), seconds, detail));
    }
    for (field, value, form) in [
        ("nodeName", &spec.node_name, name::dns1123_subdomain as fn(&str) -> Vec<String>),
        ("serviceAccountName", &spec.service_account_name, name::dns1123_subdomain),
        ("hostname", &spec.hostname, name::dns1123_label),
        ("subdomain", &spec.subdomain, name::dns1123_label),
        ("runtimeClassName", &spec.runtime_class_name, name::dns1123_subdomain),
        ("priorityClassName", &spec.priority_class_name, name::dns1123_subdomain),
    ] {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            check::named(value, form, &path.child(field), errors);
        }
    }
    host_aliases(spec, path, errors);
    pull_secrets(spec, path, errors);
    scheduling::validate(spec, path, errors);
    if let Some(policy) = spec.preemption_policy.as_deref() {
        check::one_of(Some(policy), &["Never", "PreemptLowerPriority"], path.child("preemptionPolicy"), errors);
    }
    if let Some(os) = &spec.os {
        check::one_of(Some(&os.name), &["linux", "windows"], path.child("os").child("name"), errors);
    }
    security::pod(spec, path, errors);
}

fn dns_config(spec: &core::PodSpec, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let path = path.child("dnsConfig");
    let servers = spec.dns_config.as_ref().and_then(|config| config.nameservers.as_deref()).unwrap_or_default();
    if spec.dns_policy.as_deref() == Some("None") && servers.is_empty() {
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.push(FieldError::required(path.child("nameservers"), detail));
    }
    for (index, server) in servers.iter().enumerate() {
        check::ip(server, &path.child("nameservers").index(index), errors);
    }
}

fn host_aliases(spec: &core::PodSpec, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for (index, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let path = path.child("hostAliases").index(index);
        check::ip(&alias.ip, &path.child("ip"), errors);
        for (index, host) in alias.hostnames.iter().flatten().enumerate() {
            check::named(host, name::dns1123_subdomain, &path.child("hostnames").index(index), errors);
        }
    }
}

fn pull_secrets(spec: &core::PodSpec, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    for (index, secret) in spec.image_pull_secrets.iter().flatten().enumerate() {
        let path = path.child("imagePullSecrets").index(index).child("name");
        if !secret.name.is_empty() && !seen.insert(secret.name.as_str()) {
            errors.push(FieldError::duplicate(path, &secret.name));
        }
    }
}
