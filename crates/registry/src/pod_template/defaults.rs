//! Defaults of a pod spec (Kubernetes' `pkg/apis/core/v1/defaults.go`).

use quorate_api::Quantity;
use serde_json::{Value, json};

use crate::value::{child, items_mut, set_default, set_default_text, text};

const FILE_MODE: i32 = 0o644;

/// Fixed defaults of the fields of volume sources.
const SOURCE_DEFAULTS: &[(&str, &[(&str, &str)])] = &[
    ("iscsi", &[("iscsiInterface", "default")]),
    ("rbd", &[("pool", "rbd"), ("user", "admin"), ("keyring", "/etc/ceph/keyring")]),
    ("scaleIO", &[("storageMode", "ThinProvisioned"), ("fsType", "xfs")]),
    ("azureDisk", &[("cachingMode", "ReadWrite"), ("kind", "Shared"), ("fsType", "ext4")]),
];

/// Sets the defaults of a workload's template. Fields that are left out here are set in the pods, so that a new default
/// does not change stored templates.
pub fn default_template(template: &mut Value) {
    child(template, "metadata");
    default_spec(child(template, "spec"));
}

/// Sets the defaults of a pod's spec: those of templates, and those that only pods get.
pub fn default_pod(spec: &mut Value) {
    default_spec(spec);
    requests_from_limits(spec);
    set_default(spec, "enableServiceLinks", true);
    if spec["hostNetwork"] == true {
        host_ports(spec);
    }
}

fn default_spec(spec: &mut Value) {
    set_default_text(spec, "restartPolicy", "Always");
    set_default_text(spec, "dnsPolicy", "ClusterFirst");
    set_default_text(spec, "schedulerName", "default-scheduler");
    set_default(spec, "terminationGracePeriodSeconds", 30);
    child(spec, "securityContext");
    mirror_service_account_name(spec);
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in items_mut(spec, list) {
            container_defaults(container);
        }
    }
    for volume in items_mut(spec, "volumes") {
        volume_defaults(volume);
    }
    for constraint in items_mut(spec, "topologySpreadConstraints") {
        set_default_text(constraint, "nodeAffinityPolicy", "Honor");
        set_default_text(constraint, "nodeTaintsPolicy", "Ignore");
    }
    round(spec.get_mut("overhead"));
    if let Some(resources) = spec.get_mut("resources") {
        resource_defaults(resources);
    }
}

/// Sets the request of each limited resource to its limit, if there is no request.
fn requests_from_limits(spec: &mut Value) {
    for list in ["initContainers", "containers"] {
        for container in items_mut(spec, list) {
            let limits = container["resources"]["limits"].as_object().cloned().unwrap_or_default();
            for (resource, limit) in limits {
                set_default(child(child(container, "resources"), "requests"), &resource, limit);
            }
        }
    }
}

/// Sets host ports to container ports, because the pod shares the node's network.
fn host_ports(spec: &mut Value) {
    for list in ["initContainers", "containers"] {
        for container in items_mut(spec, list) {
            for port in items_mut(container, "ports") {
                if port["hostPort"].as_i64().unwrap_or_default() == 0 {
                    port["hostPort"] = port["containerPort"].clone();
                }
            }
        }
    }
}

/// Sets both `serviceAccountName` and its deprecated name `serviceAccount`, so that readers of either find it.
fn mirror_service_account_name(spec: &mut Value) {
    let name = match text(&spec["serviceAccountName"]) {
        "" => text(&spec["serviceAccount"]).to_owned(),
        name => name.to_owned(),
    };
    if !name.is_empty() {
        spec["serviceAccountName"] = Value::from(name.as_str());
        spec["serviceAccount"] = Value::from(name);
    }
}

fn container_defaults(container: &mut Value) {
    set_default_text(container, "terminationMessagePath", "/dev/termination-log");
    set_default_text(container, "terminationMessagePolicy", "File");
    let policy = pull_policy(text(&container["image"]));
    set_default_text(container, "imagePullPolicy", policy);
    resource_defaults(child(container, "resources"));
    for port in items_mut(container, "ports") {
        set_default_text(port, "protocol", "TCP");
    }
    for variable in items_mut(container, "env") {
        if let Some(reference) = variable.get_mut("valueFrom").and_then(|from| from.get_mut("fieldRef")) {
            set_default_text(reference, "apiVersion", "v1");
        }
        if let Some(reference) = variable.get_mut("valueFrom").and_then(|from| from.get_mut("resourceFieldRef")) {
            set_default(reference, "divisor", "0");
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe) {
            probe_defaults(probe);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(hook) = container.get_mut("lifecycle").and_then(|lifecycle| lifecycle.get_mut(hook)) {
            http_defaults(hook);
        }
    }
}

fn probe_defaults(probe: &mut Value) {
    set_positive_default(probe, "timeoutSeconds", 1);
    set_positive_default(probe, "periodSeconds", 10);
    set_positive_default(probe, "successThreshold", 1);
    set_positive_default(probe, "failureThreshold", 3);
    http_defaults(probe);
    if let Some(grpc) = probe.get_mut("grpc") {
        set_default(grpc, "service", "");
    }
}

fn http_defaults(handler: &mut Value) {
    if let Some(get) = handler.get_mut("httpGet") {
        set_default_text(get, "path", "/");
        set_default_text(get, "scheme", "HTTP");
    }
}

fn volume_defaults(volume: &mut Value) {
    let has_source = volume.as_object().is_some_and(|map| map.keys().any(|key| key != "name"));
    if !has_source {
        volume["emptyDir"] = json!({});
    }
    for (source, field) in [
        ("configMap", "defaultMode"),
        ("secret", "defaultMode"),
        ("downwardAPI", "defaultMode"),
        ("projected", "defaultMode"),
    ] {
        if let Some(source) = volume.get_mut(source) {
            set_default(source, field, FILE_MODE);
        }
    }
    if let Some(host_path) = volume.get_mut("hostPath") {
        set_default(host_path, "type", "");
    }
    for source in ["downwardAPI", "projected"] {
        let Some(source) = volume.get_mut(source) else { continue };
        default_field_versions(source);
        for inner in items_mut(source, "sources") {
            if let Some(downward) = inner.get_mut("downwardAPI") {
                default_field_versions(downward);
            }
            if let Some(token) = inner.get_mut("serviceAccountToken") {
                set_default(token, "expirationSeconds", 3600);
            }
        }
    }
    if let Some(image) = volume.get_mut("image") {
        let policy = pull_policy(text(&image["reference"]));
        set_default_text(image, "pullPolicy", policy);
    }
    if let Some(claim) = volume.get_mut("ephemeral").and_then(|source| source.get_mut("volumeClaimTemplate")) {
        let spec = child(claim, "spec");
        set_default_text(spec, "volumeMode", "Filesystem");
        if let Some(resources) = spec.get_mut("resources") {
            resource_defaults(resources);
        }
    }
    for (source, fields) in SOURCE_DEFAULTS {
        let Some(source) = volume.get_mut(*source) else { continue };
        for (field, value) in *fields {
            set_default_text(source, field, value);
        }
    }
    if let Some(disk) = volume.get_mut("azureDisk") {
        set_default(disk, "readOnly", false);
    }
}

fn default_field_versions(downward: &mut Value) {
    for item in items_mut(downward, "items") {
        if let Some(reference) = item.get_mut("fieldRef") {
            set_default_text(reference, "apiVersion", "v1");
        }
    }
}

fn set_positive_default(object: &mut Value, key: &str, value: i32) {
    if object[key].is_null() || object[key] == 0 {
        object[key] = Value::from(value);
    }
}

/// Rounds requests and limits.
fn resource_defaults(resources: &mut Value) {
    for list in ["limits", "requests"] {
        round(resources.get_mut(list));
    }
}

/// Rounds amounts up to thousandths, as Kubernetes does before it stores them.
pub fn round(amounts: Option<&mut Value>) {
    for (_, amount) in amounts.and_then(Value::as_object_mut).into_iter().flatten() {
        if let Some(Ok(quantity)) = amount.as_str().map(Quantity::parse) {
            *amount = Value::from(quantity.rounded_to_milli().to_string());
        }
    }
}

fn pull_policy(image: &str) -> &'static str {
    if is_latest(image) { "Always" } else { "IfNotPresent" }
}

/// Returns whether an image reference names no version: no tag and no digest, or the tag `latest`.
fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    match last.split_once(':') {
        Some((_, tag)) => tag == "latest",
        None => true,
    }
}
