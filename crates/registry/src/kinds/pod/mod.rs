//! Pod: `update` checks changes, `ephemeral` and `resize` those through their
//! subresources, `printing` renders kubectl's columns. Defaults and the checks of the spec are shared
//! with the templates of workloads in [`crate::pod_template`].

pub mod ephemeral;
mod fence;
mod printing;
mod qos;
pub mod references;
pub mod resize;
mod update;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use quorate_api::{FieldError, FieldPath, name};
use serde_json::{Value, json};

use crate::descriptor::Column;
use crate::kind::Kind;
use crate::pod_template;
use crate::strategy::Deletion;
use crate::value::{carry_over, child, items, text};

/// Grace period when neither the pod nor the request gives one, in seconds.
const DEFAULT_GRACE_SECONDS: i64 = 30;

/// The annotation of a pod that its node defines (a static pod).
const MIRROR: &str = "kubernetes.io/config.mirror";

pub struct Pod;

impl Kind for Pod {
    type Object = core::Pod;

    const HAS_STATUS: bool = true;
    const COUNTS_GENERATIONS: bool = true;
    // A node that writes a status must not disturb garbage collection.
    const STATUS_KEEPS: &'static [&'static str] = &["ownerReferences"];

    fn columns() -> Vec<Column> {
        printing::columns()
    }

    fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
        printing::cells(object, now)
    }

    fn default(object: &mut Value) {
        pod_template::default_pod(child(object, "spec"));
    }

    fn prepare_create(object: &mut Value) {
        let class = qos::class(&object["spec"]);
        object["status"] = json!({"phase": "Pending", "qosClass": class});
    }

    fn prepare_status_update(new: &mut Value, old: &Value) {
        // The class follows from the spec, so a status write need not carry it.
        carry_over(child(new, "status"), &old["status"], "qosClass");
    }

    fn validate(object: &core::Pod) -> Vec<FieldError> {
        let path = FieldPath::new("spec");
        let Some(spec) = &object.spec else { return vec![FieldError::required(path, "")] };
        let mut errors = fence::validate(object);
        pod_template::validate_spec(spec, &path, &mut errors);
        let is_gated = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
        if is_gated && spec.node_name.as_ref().is_some_and(|node| !node.is_empty()) {
            let detail = "cannot be set until all schedulingGates have been cleared";
            errors.push(FieldError::forbidden(path.child("nodeName"), detail));
        }
        volumes(object.metadata.name.as_deref().unwrap_or_default(), spec, &path, &mut errors);
        errors
    }

    fn validate_create(object: &core::Pod) -> Vec<FieldError> {
        let added = object.spec.as_ref().and_then(|spec| spec.ephemeral_containers.as_deref()).unwrap_or_default();
        if added.is_empty() {
            return Vec::new();
        }
        let path = FieldPath::new("spec").child("ephemeralContainers");
        vec![FieldError::forbidden(path, "cannot be set on create")]
    }

    fn validate_update(new: &core::Pod, old: &core::Pod) -> Vec<FieldError> {
        update::validate(new, old)
    }

    fn validate_status_update(new: &core::Pod, old: &core::Pod) -> Vec<FieldError> {
        update::validate_status(new, old)
    }

    fn selectable_field_names() -> &'static [&'static str] {
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ]
    }

    fn selectable_fields(object: &Value) -> Vec<(&'static str, String)> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let host_network = if spec["hostNetwork"] == true { "true" } else { "false" };
        let pod_ip = match items(&status["podIPs"]).first() {
            Some(first) => text(&first["ip"]),
            None => text(&status["podIP"]),
        };
        [
            ("spec.nodeName", text(&spec["nodeName"])),
            ("spec.restartPolicy", text(&spec["restartPolicy"])),
            ("spec.schedulerName", text(&spec["schedulerName"])),
            ("spec.serviceAccountName", text(&spec["serviceAccountName"])),
            ("spec.hostNetwork", host_network),
            ("status.phase", text(&status["phase"])),
            ("status.podIP", pod_ip),
            ("status.nominatedNodeName", text(&status["nominatedNodeName"])),
        ]
        .map(|(name, value)| (name, value.to_owned()))
        .into()
    }

    fn deletion(object: &Value, requested: Option<i64>) -> Deletion {
        let (spec, status) = (&object["spec"], &object["status"]);
        // A pod that does not run needs no grace period.
        let never_started = text(&spec["nodeName"]).is_empty();
        let ended = matches!(text(&status["phase"]), "Succeeded" | "Failed");
        if never_started || ended {
            return Deletion::Immediate;
        }
        let own = spec["terminationGracePeriodSeconds"].as_i64().unwrap_or(DEFAULT_GRACE_SECONDS);
        match requested.unwrap_or(own) {
            0 => Deletion::Immediate,
            // The shortest grace period with which the node stops the pod in an orderly way.
            seconds if seconds < 0 => Deletion::Graceful { seconds: 1 },
            seconds => Deletion::Graceful { seconds },
        }
    }
}

/// Returns whether a pod is the image of one that its node defines, which the API cannot change.
fn is_static(pod: &Value) -> bool {
    pod["metadata"]["annotations"].get(MIRROR).is_some()
}

/// Checks the volumes of a pod beyond those of a template. An image must be named, which a template may leave open. The
/// claim that is created for an ephemeral volume is named after the pod and the volume: its name must be valid, and no
/// other volume of the pod may use it.
fn volumes(pod: &str, spec: &core::PodSpec, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let volumes = spec.volumes.as_deref().unwrap_or_default();
    let claim_of = |volume: &core::Volume| format!("{pod}-{}", volume.name);
    let made: Vec<String> =
        volumes.iter().filter(|_| !pod.is_empty()).filter(|volume| volume.ephemeral.is_some()).map(claim_of).collect();
    for (index, volume) in volumes.iter().enumerate() {
        let path = path.child("volumes").index(index);
        if volume.ephemeral.is_some() && !volume.name.is_empty() && !pod.is_empty() {
            let claim = claim_of(volume);
            for problem in name::dns1123_subdomain(&claim) {
                let detail = format!("PVC name {claim:?}: {problem}");
                errors.push(FieldError::invalid(path.child("name"), &volume.name, detail));
            }
        }
        if volume.image.as_ref().is_some_and(|image| image.reference.as_ref().is_none_or(String::is_empty)) {
            errors.push(FieldError::required(path.child("image").child("reference"), ""));
        }
        let used = volume.persistent_volume_claim.as_ref().map(|source| &source.claim_name);
        if let Some(claim) = used.filter(|claim| made.contains(claim)) {
            let path = path.child("persistentVolumeClaim").child("claimName");
            let detail = "must not reference a PVC that gets created for an ephemeral volume";
            errors.push(FieldError::invalid(path, claim, detail));
        }
    }
}

#[cfg(test)]
mod tests;
