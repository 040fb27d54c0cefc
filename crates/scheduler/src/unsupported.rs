//! Pod fields that this scheduler does not honour yet. A pod that uses one stays Pending with that reason, because a
//! pod must not run with less than it asked for.

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, PodSpec, ResourceClaim};

/// Returns the paths of the pod's fields that set conditions which are not checked; empty for a pod that can be
/// scheduled.
#[must_use]
pub fn fields(spec: &PodSpec) -> Vec<String> {
    let mut fields = Vec::new();
    let affinity = spec.affinity.as_ref();
    let attracts = affinity.and_then(|affinity| affinity.pod_affinity.as_ref());
    let repels = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref());
    for (field, terms) in [
        ("podAffinity", attracts.and_then(|pods| pods.required_during_scheduling_ignored_during_execution.as_ref())),
        ("podAntiAffinity", repels.and_then(|pods| pods.required_during_scheduling_ignored_during_execution.as_ref())),
    ] {
        if terms.is_some_and(|terms| !terms.is_empty()) {
            fields.push(format!("spec.affinity.{field}.requiredDuringSchedulingIgnoredDuringExecution"));
        }
    }
    for (index, constraint) in spec.topology_spread_constraints.iter().flatten().enumerate() {
        if constraint.when_unsatisfiable == "DoNotSchedule" {
            fields.push(format!("spec.topologySpreadConstraints[{index}].whenUnsatisfiable=DoNotSchedule"));
        }
    }
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        let sources = [
            ("persistentVolumeClaim", volume.persistent_volume_claim.is_some()),
            // An ephemeral volume creates a claim.
            ("ephemeral", volume.ephemeral.is_some()),
        ];
        for (source, _) in sources.into_iter().filter(|(_, present)| *present) {
            fields.push(format!("spec.volumes[{index}].{source}"));
        }
    }
    if spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        fields.push("spec.resourceClaims".to_owned());
    }
    claims_of(spec, &mut fields);
    if spec.scheduling_group.is_some() {
        fields.push("spec.schedulingGroup".to_owned());
    }
    fields
}

/// Adds the paths of the device claims of single containers.
fn claims_of(spec: &PodSpec, fields: &mut Vec<String>) {
    let own = |container: &Container| container.resources.as_ref().and_then(|resources| resources.claims.clone());
    let debug =
        |container: &EphemeralContainer| container.resources.as_ref().and_then(|resources| resources.claims.clone());
    let lists: [(&str, Vec<Option<Vec<ResourceClaim>>>); 3] = [
        ("initContainers", spec.init_containers.iter().flatten().map(own).collect()),
        ("containers", spec.containers.iter().map(own).collect()),
        ("ephemeralContainers", spec.ephemeral_containers.iter().flatten().map(debug).collect()),
    ];
    for (list, containers) in lists {
        for (index, claims) in containers.into_iter().enumerate() {
            if claims.is_some_and(|claims| !claims.is_empty()) {
                fields.push(format!("spec.{list}[{index}].resources.claims"));
            }
        }
    }
}
