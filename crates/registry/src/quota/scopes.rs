//! The scopes that limit a quota to a part of the objects in its namespace.

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, Pod, PodAffinityTerm, PodSpec, ResourceQuotaSpec, ScopedResourceSelectorRequirement,
};
use quorate_api::qos::{self, Amounts};

use super::Counted;

/// Returns whether an object is in all scopes of a quota.
pub(super) fn matches(quota: &ResourceQuotaSpec, object: Counted<'_>) -> bool {
    let scopes = quota.scopes.iter().flatten().map(|scope| Scope { name: scope, operator: "Exists", values: &[] });
    let expressions = quota.scope_selector.iter().flat_map(|selector| selector.match_expressions.iter().flatten());
    scopes.chain(expressions.map(Scope::of)).all(|scope| scope.matches(object))
}

struct Scope<'a> {
    name: &'a str,
    operator: &'a str,
    values: &'a [String],
}

impl<'a> Scope<'a> {
    fn of(requirement: &'a ScopedResourceSelectorRequirement) -> Self {
        Scope {
            name: &requirement.scope_name,
            operator: &requirement.operator,
            values: requirement.values.as_deref().unwrap_or_default(),
        }
    }

    fn matches(&self, object: Counted<'_>) -> bool {
        match object {
            Counted::Pod(pod) => self.matches_pod(pod),
            Counted::Claim(claim) if self.name == "VolumeAttributesClass" => {
                self.matches_any(&attribute_classes(claim))
            }
            // Other objects have no scopes, so a quota with a scope does not count them.
            Counted::Claim(_) | Counted::Service(_) | Counted::Other => false,
        }
    }

    fn matches_pod(&self, pod: &Pod) -> bool {
        let Some(spec) = &pod.spec else { return false };
        match self.name {
            "Terminating" => is_terminating(spec),
            "NotTerminating" => !is_terminating(spec),
            "BestEffort" => is_best_effort(pod, spec),
            "NotBestEffort" => !is_best_effort(pod, spec),
            "PriorityClass" => {
                let class = spec.priority_class_name.as_deref().filter(|class| !class.is_empty());
                self.matches_any(class.as_slice())
            }
            "CrossNamespacePodAffinity" => crosses_namespaces(spec),
            _ => false,
        }
    }

    /// Returns whether the operator accepts one of an object's values, or that it has none.
    fn matches_any(&self, actual: &[&str]) -> bool {
        let is_listed = |value: &&str| self.values.iter().any(|listed| listed == value);
        match self.operator {
            "Exists" => !actual.is_empty(),
            "DoesNotExist" => actual.is_empty(),
            "In" => actual.iter().any(is_listed),
            "NotIn" => actual.is_empty() || actual.iter().any(|value| !is_listed(value)),
            _ => false,
        }
    }
}

fn is_terminating(spec: &PodSpec) -> bool {
    spec.active_deadline_seconds.is_some_and(|seconds| seconds >= 0)
}

fn is_best_effort(pod: &Pod, spec: &PodSpec) -> bool {
    const BEST_EFFORT: &str = "BestEffort";
    if let Some(class) = pod.status.as_ref().and_then(|status| status.qos_class.as_deref()) {
        return class == BEST_EFFORT;
    }
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let class = qos::class(containers.map(|container| {
        let resources = container.resources.as_ref();
        ["cpu", "memory"].map(|name| Amounts {
            request: resources.and_then(|r| r.requests.as_ref()?.get(name)).map(|amount| amount.0.as_str()),
            limit: resources.and_then(|r| r.limits.as_ref()?.get(name)).map(|amount| amount.0.as_str()),
        })
    }));
    class == BEST_EFFORT
}

fn crosses_namespaces(spec: &PodSpec) -> bool {
    let crosses = |term: &PodAffinityTerm| {
        term.namespaces.as_ref().is_some_and(|namespaces| !namespaces.is_empty()) || term.namespace_selector.is_some()
    };
    let Some(affinity) = &spec.affinity else { return false };
    let near = affinity.pod_affinity.as_ref().map(|pods| {
        (
            &pods.required_during_scheduling_ignored_during_execution,
            &pods.preferred_during_scheduling_ignored_during_execution,
        )
    });
    let far = affinity.pod_anti_affinity.as_ref().map(|pods| {
        (
            &pods.required_during_scheduling_ignored_during_execution,
            &pods.preferred_during_scheduling_ignored_during_execution,
        )
    });
    near.into_iter().chain(far).any(|(required, preferred)| {
        let preferred = preferred.iter().flatten().map(|weighted| &weighted.pod_affinity_term);
        required.iter().flatten().chain(preferred).any(crosses)
    })
}

/// Returns the names of the volume attributes classes that a claim asks for, has, or is changing to.
pub(super) fn attribute_classes(claim: &PersistentVolumeClaim) -> Vec<&str> {
    let status = claim.status.as_ref();
    let names = [
        claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref()),
        status.and_then(|status| status.current_volume_attributes_class_name.as_deref()),
        status.and_then(|s| s.modify_volume_status.as_ref()?.target_volume_attributes_class_name.as_deref()),
    ];
    let mut names: Vec<&str> = names.into_iter().flatten().filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    names.dedup();
    names
}
